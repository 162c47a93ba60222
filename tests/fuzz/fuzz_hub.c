/* What a hub sends as its list of files, in both forms, and what is chosen from it. */
#include <stdlib.h>
#include <string.h>
#include "hub/hub_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hub_list l = {0};
    struct hub_ref ref = {.file = ""};
    struct buf b;
    struct err e;
    const char *main_file = NULL;
    bool has;
    buf_init(&b, 0);
    if (hub_list_parse(&l, (const char *)data, size, &has, &e)) {
        for (size_t i = 0; i < l.n; i++)
            if (!hub_name_is_safe(l.files[i].name) || (l.files[i].etag[0] && !hub_id_is_safe(l.files[i].etag, HUB_ETAG_MAX - 1)))
                abort();
        hub_select_text(&l);
        hub_select_weights(&l, &ref, (const char *)data, size, &main_file, &e);
        hub_list_write(&l, &b);
    }
    hub_list_free(&l);
    if (hub_list_parse_tree(&l, (const char *)data, size, &e))
        hub_select_gguf(&l, "Q4_K_M", &main_file, &e);
    hub_list_free(&l);
    char *text = size < 2000 ? strndup((const char *)data, size) : NULL;
    if (text) {
        hub_ref_parse(&ref, text, &e);
        hub_etag_clean((char[HUB_ETAG_MAX]){0}, text);
    }
    free(text);
    buf_free(&b);
    return 0;
}
