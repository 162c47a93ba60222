/* The files of the web page, linked into the program. */
    .section .note.GNU-stack, "", @progbits
    .section .rodata

#define FILE(symbol, file) \
    .globl server_web_##symbol; server_web_##symbol: .incbin file; \
    .globl server_web_##symbol##_end; server_web_##symbol##_end: .byte 0

FILE(index, "index.html")
FILE(style, "style.css")
FILE(app, "app.js")
FILE(chat, "chat.js")
FILE(markdown, "markdown.js")
FILE(live, "live.js")
FILE(draw, "draw.js")
FILE(icon, "icon.svg")
