/* The parts of hub/ that need no server: checksums, ids, lists, choices, partial files, the cache's folders.  What needs one is in
 * tests/e2e/hub.test.mjs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "hub/hub_int.h"

static void sha_of(enum hub_sha_kind kind, const char *text, size_t n, size_t step, char hex[65])
{
    struct hub_sha s;
    hub_sha_begin(&s, kind, n);
    for (size_t i = 0; i < n; i += step)
        hub_sha_update(&s, text + i, n - i < step ? n - i : step);
    hub_sha_end(&s, hex);
}

/* FIPS 180-4 examples; git hash-object of the same. */
static void sha_vectors(void **state)
{
    (void)state;
    char hex[65], again[65];
    static char million[1000000];
    memset(million, 'a', sizeof million);
    sha_of(HUB_SHA256, "", 0, 1, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha_of(HUB_SHA256, "abc", 3, 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha_of(HUB_SHA256, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, 7, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    sha_of(HUB_SHA256, million, sizeof million, 999, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    sha_of(HUB_SHA1_GIT, "", 0, 1, hex);
    assert_string_equal(hex, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    sha_of(HUB_SHA1_GIT, "test content\n", 13, 4, hex);
    assert_string_equal(hex, "d670460b4b4aece5915caf5c68d12f560a9fe3e4");
    for (size_t n = 0; n < 200; n++) {   /* every place a block can end */
        sha_of(HUB_SHA256, million, n, 200, hex);
        sha_of(HUB_SHA256, million, n, 1, again);
        assert_string_equal(hex, again);
        sha_of(HUB_SHA1_GIT, million, n, 63, hex);
        sha_of(HUB_SHA1_GIT, million, n, 64, again);
        assert_string_equal(hex, again);
    }
}

static void refs(void **state)
{
    (void)state;
    struct hub_ref r;
    struct err e;
    assert_true(hub_ref_parse(&r, "org/name", &e));
    assert_string_equal(r.repo, "org/name");
    assert_string_equal(r.revision, "main");
    assert_string_equal(r.file, "");
    assert_true(hub_ref_parse(&r, "org/na.me-1_x@refs/pr/7:sub/m-Q4_K_M.gguf", &e));
    assert_string_equal(r.repo, "org/na.me-1_x");
    assert_string_equal(r.revision, "refs/pr/7");
    assert_string_equal(r.file, "sub/m-Q4_K_M.gguf");
    assert_true(hub_ref_parse(&r, "gpt2", &e));
    assert_false(hub_ref_fits("gpt2"));
    assert_true(hub_ref_fits("org/name"));
    static const char *const bad[] = {"", "/", "a/", "/a", "a/b/c", "a//b", "./a", "../a", "a/..", "a/b..c", "a--b/c", "-a/b", "a/b-", "a b/c", "a/b@", "a/b:",
                                      "a/b@../c", "a/b@c//d", "a/b:../x.gguf", "a/b:/x", "a/b:x\\y", "a/b\n", "~/x", "a/b@/etc"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (hub_ref_parse(&r, bad[i], &e))
            fail_msg("'%s' was taken", bad[i]);
    char long_id[400];
    memset(long_id, 'a', sizeof long_id);
    memcpy(long_id + 5, "/", 1);
    long_id[399] = 0;
    assert_false(hub_ref_parse(&r, long_id, &e));
}

static void etags(void **state)
{
    (void)state;
    char out[HUB_ETAG_MAX];
    assert_true(hub_etag_clean(out, "W/\"abc-1\""));
    assert_string_equal(out, "abc-1");
    assert_true(hub_etag_clean(out, "abc"));
    assert_false(hub_etag_clean(out, "\"../x\""));
    assert_false(hub_etag_clean(out, "\"\""));
    char long_tag[300];
    memset(long_tag, 'a', 299);
    long_tag[299] = 0;
    assert_false(hub_etag_clean(out, long_tag));
}

/* ---- lists and choices ---- */

static void list_of(struct hub_list *l, const char *const *names)
{
    struct err e;
    *l = (struct hub_list){.commit = "c0ffee"};
    for (; *names; names++)
        assert_non_null(hub_list_add(l, *names, &e));
}

static void assert_wanted(const struct hub_list *l, const char *expected)
{
    char got[1024] = "";
    for (size_t i = 0; i < l->n; i++)
        if (l->files[i].wanted)
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", *got ? " " : "", l->files[i].name);
    assert_string_equal(got, expected);
}

static void choices(void **state)
{
    (void)state;
    struct hub_list l;
    struct err e;
    const char *main_file;
    struct hub_ref ref = {.file = ""};
    list_of(&l, (const char *const[]){"config.json", "model.safetensors", "pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx",
                                      "original/tokenizer.model", "merges.txt", "qwen.tiktoken", "README.md", "additional_chat_templates/x.jinja", NULL});
    hub_select_text(&l);
    assert_true(hub_select_weights(&l, &ref, NULL, 0, &main_file, &e));
    assert_null(main_file);
    assert_wanted(&l, "config.json model.safetensors merges.txt qwen.tiktoken additional_chat_templates/x.jinja");
    hub_list_free(&l);

    list_of(&l, (const char *const[]){"a-Q4_0.gguf", "a-Q8_0.gguf", "a-mmproj-Q4_K_M.gguf", "imatrix.gguf", NULL});
    assert_true(hub_select_weights(&l, &ref, NULL, 0, &main_file, &e));
    assert_string_equal(main_file, "a-Q4_0.gguf");
    assert_wanted(&l, "a-Q4_0.gguf");
    hub_list_free(&l);

    list_of(&l, (const char *const[]){"a.gguf", "b.gguf", NULL});
    assert_false(hub_select_weights(&l, &ref, NULL, 0, &main_file, &e));
    assert_non_null(strstr(e.msg, "a.gguf, b.gguf"));
    hub_list_free(&l);

    list_of(&l, (const char *const[]){"README.md", NULL});
    assert_false(hub_select_weights(&l, &ref, NULL, 0, &main_file, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    hub_list_free(&l);
}

static void lists_round(void **state)
{
    (void)state;
    static const char text[] = "{\"sha\":\"abc\",\"siblings\":[{\"rfilename\":\"a\",\"size\":3,\"blobId\":\"0123456789012345678901234567890123456789\"},"
                               "{\"rfilename\":\"b/\\u00e9.safetensors\",\"lfs\":{\"sha256\":\"" "ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789" "\",\"size\":9},\"size\":130},"
                               "{\"rfilename\":\"c\"}]}";
    struct hub_list l = {0}, again = {0};
    struct err e;
    struct buf b;
    bool has;
    buf_init(&b, 0);
    assert_true(hub_list_parse(&l, text, sizeof text - 1, &has, &e));
    assert_true(has);
    assert_int_equal(l.files[0].sha, HUB_SHA1_GIT);
    assert_int_equal(l.files[1].sha, HUB_SHA256);
    assert_int_equal(l.files[1].size, 9);
    assert_int_equal(l.files[1].etag[0], 'a');
    assert_int_equal(l.files[2].size, -1);
    assert_true(hub_list_write(&l, &b));
    assert_true(hub_list_parse(&again, b.data, b.len, &has, &e));
    assert_int_equal(again.n, l.n);
    for (size_t i = 0; i < l.n; i++) {
        assert_string_equal(again.files[i].name, l.files[i].name);
        assert_string_equal(again.files[i].etag, l.files[i].etag);
        assert_true(again.files[i].size == l.files[i].size || i == 1);
    }
    hub_list_free(&l);
    hub_list_free(&again);
    /* out of memory at every point */
    for (int n = 1;; n++) {
        mem_fault_after(n);
        bool ok = hub_list_parse(&l, text, sizeof text - 1, &has, &e);
        bool fired = mem_fault_fired();
        mem_fault_after(0);
        hub_list_free(&l);
        if (!fired) {
            assert_true(ok);
            break;
        }
    }
    buf_free(&b);
}

/* ---- partial files ---- */

struct place { char root[64]; struct hub_cache cache; };

static void place_open(struct place *p)
{
    struct err e;
    snprintf(p->root, sizeof p->root, "/tmp/quire-test-hub-XXXXXX");
    assert_non_null(mkdtemp(p->root));
    assert_true(hub_cache_open(&p->cache, p->root, "org/name", &e));
}

static void place_close(struct place *p)
{
    char command[128];
    hub_cache_free(&p->cache);
    snprintf(command, sizeof command, "rm -rf '%s'", p->root);
    assert_int_equal(system(command), 0);
}

/* Random writes with closings in between give the content, and what the map says is there is there. */
static void parts_random(void **state)
{
    (void)state;
    enum { SIZE = 100000 };
    static unsigned char content[SIZE];
    struct rng rng = {.state = 7};
    struct place pl;
    struct err e;
    place_open(&pl);
    for (int i = 0; i < SIZE; i++)
        content[i] = (unsigned char)rng_next(&rng);
    for (int round = 0; round < 20; round++) {
        struct hub_file f = {.size = SIZE};
        struct hub_part p;
        char etag[16];
        snprintf(etag, sizeof etag, "f%d", round);
        hub_file_set_etag(&f, etag);
        int64_t segment = 1 + (int64_t)rng_next_below(&rng, SIZE);
        assert_true(hub_part_open(&p, &pl.cache, &f, segment, &e));
        while (hub_part_total(&p) < SIZE) {
            int i = (int)rng_next_below(&rng, (uint64_t)p.n_segments);
            int64_t left = hub_part_segment_len(&p, i) - p.done[i];
            if (left > 0) {
                size_t n = 1 + rng_next_below(&rng, (uint64_t)left);
                assert_true(hub_part_write(&p, i, content + i * p.segment_bytes + p.done[i], n, &e));
                assert_true(hub_part_save(&p, i, &e));
            }
            assert_false(hub_part_write(&p, i, content, (size_t)(hub_part_segment_len(&p, i) - p.done[i] + 1), &e));
            if (rng_next_below(&rng, 4) == 0) {
                int64_t total = hub_part_total(&p), frontier = hub_part_frontier(&p);
                hub_part_close(&p, false);
                assert_true(hub_part_open(&p, &pl.cache, &f, 12345, &e));
                assert_int_equal(hub_part_total(&p), total);
                assert_int_equal(hub_part_frontier(&p), frontier);
            }
        }
        assert_false(hub_cache_has_blob(&pl.cache, &f));
        assert_true(hub_part_finish(&p, &e));
        char *blob = mem_try_strdup(p.blob);
        size_t len;
        hub_part_close(&p, false);
        assert_true(hub_cache_has_blob(&pl.cache, &f));
        char *got = file_read(blob, SIZE * 2, &len, &e);
        assert_int_equal(len, SIZE);
        assert_memory_equal(got, content, SIZE);
        mem_free(got);
        mem_free(blob);
    }
    place_close(&pl);
}

/* A map that lies is not believed. */
static void parts_damaged(void **state)
{
    (void)state;
    struct place pl;
    struct err e;
    struct hub_file f = {.size = 1000};
    struct hub_part p;
    place_open(&pl);
    hub_file_set_etag(&f, "abc");
    for (int at = 0; at < 24 + 4 * 8; at++) {
        assert_true(hub_part_open(&p, &pl.cache, &f, 300, &e));
        for (int i = 0; i < 4; i++)
            assert_true(hub_part_write(&p, i, "xyz", 3, &e) && hub_part_save(&p, i, &e));
        unsigned char byte = 0x80;
        assert_int_equal(pwrite(p.fd, &byte, 1, 1000 + at), 1);
        hub_part_close(&p, false);
        assert_true(hub_part_open(&p, &pl.cache, &f, 300, &e));
        for (int i = 0; i < p.n_segments; i++)
            assert_in_range(p.done[i], 0, hub_part_segment_len(&p, i));
        hub_part_close(&p, true);
    }
    f.size = 0;
    hub_file_set_etag(&f, "empty");
    assert_true(hub_part_open(&p, &pl.cache, &f, 300, &e));
    assert_int_equal(p.n_segments, 0);
    assert_true(hub_part_reset(&p, true, &e));
    assert_true(hub_part_finish(&p, &e));
    hub_part_close(&p, false);
    place_close(&pl);
}

static void cache_folders(void **state)
{
    (void)state;
    struct place pl;
    struct err e;
    char commit[72];
    struct hub_file f = {.name = (char *)"a/b.json", .size = 2};
    int fd, second;
    place_open(&pl);
    hub_file_set_etag(&f, "feed");
    assert_false(hub_cache_commit(&pl.cache, "main", commit));
    assert_true(hub_cache_set_commit(&pl.cache, "refs/pr/1", "c0ffee", &e));
    assert_true(hub_cache_commit(&pl.cache, "refs/pr/1", commit));
    assert_string_equal(commit, "c0ffee");
    assert_true(hub_cache_lock(&pl.cache, &f, &fd, &e));
    assert_true(fd >= 0);
    assert_true(hub_cache_lock(&pl.cache, &f, &second, &e));
    assert_int_equal(second, -1);
    close(fd);
    assert_true(hub_cache_lock(&pl.cache, &f, &second, &e));
    assert_true(second >= 0);
    close(second);
    char *blob = hub_path(&e, "%s/blobs/feed", pl.cache.repo);
    assert_true(hub_make_parents(blob, &e) && file_write_atomic(blob, "{}", 2, &e));
    mem_free(blob);
    assert_true(hub_cache_link(&pl.cache, "c0ffee", &f, &e) && hub_cache_link(&pl.cache, "c0ffee", &f, &e));
    assert_true(hub_cache_has(&pl.cache, "c0ffee", &f));
    f.size = 3;
    assert_false(hub_cache_has(&pl.cache, "c0ffee", &f));
    assert_true(hub_cache_commit(&pl.cache, "c0ffee", commit));
    assert_true(hub_cache_room(&pl.cache) > 0);
    struct hub_list l = {0};
    assert_true(hub_cache_list_snapshot(&pl.cache, "c0ffee", &l, &e));
    assert_int_equal(l.n, 1);
    assert_string_equal(l.files[0].name, "a/b.json");
    hub_list_free(&l);
    place_close(&pl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha_vectors), cmocka_unit_test(refs), cmocka_unit_test(etags), cmocka_unit_test(choices), cmocka_unit_test(lists_round),
        cmocka_unit_test(parts_random), cmocka_unit_test(parts_damaged), cmocka_unit_test(cache_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
