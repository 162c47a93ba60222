#include "tok/unicode.h"

#include <string.h>

#include "base/mem.h"

uint8_t *tok_uc_table(void)
{
    static const uint32_t spaces[][2] = {{0x9, 0xd}, {0x20, 0x20}, {0x85, 0x85}, {0xa0, 0xa0}, {0x1680, 0x1680},
        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
    uint8_t *uc = mem_try_alloc(TOK_CP_END, 1);
    if (!uc)
        return NULL;
    for (size_t i = 0; i < tok_n_gc_runs; i++) {
        uint32_t first = tok_gc_runs[i] >> 8;
        uint32_t end = i + 1 < tok_n_gc_runs ? tok_gc_runs[i + 1] >> 8 : TOK_CP_END;
        memset(uc + first, (int)(tok_gc_runs[i] & 0xff), end - first);
    }
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        for (uint32_t cp = spaces[i][0]; cp <= spaces[i][1]; cp++)
            uc[cp] |= TOK_UC_SPACE;
    return uc;
}

int tok_uc_script(uint32_t cp)
{
    size_t lo = 0, hi = tok_n_script_runs;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (tok_script_runs[mid] >> 8 <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return (int)(tok_script_runs[lo] & 0xff);
}

bool tok_uc_is_word(const uint8_t *uc, uint32_t cp)
{
    int gc = uc[cp] & TOK_UC_GC;
    if (gc <= TOK_GC_NL || gc == TOK_GC_PC)
        return true;
    /* Other_Alphabetic symbols (circled and squared letters), and Join_Control. */
    return (cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
           (cp >= 0x1f170 && cp <= 0x1f189) || cp == 0x200c || cp == 0x200d;
}
