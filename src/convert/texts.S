/* The texts that calibrate and measure when none are named: models/calibration. */
    .section .note.GNU-stack, "", @progbits
    .section .rodata

#define TEXT(symbol, file) \
    .globl convert_text_##symbol; convert_text_##symbol: .incbin file; \
    .globl convert_text_##symbol##_end; convert_text_##symbol##_end: .byte 0

TEXT(calibration, "calibration.txt")
TEXT(heldout, "heldout.txt")
