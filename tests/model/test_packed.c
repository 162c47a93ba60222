/* The packed-weight file: what is kept comes back; anything stale, cut off or altered is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/packed.h"

enum { N = 5 };
static char dir[64], *path;
static unsigned char *content[N];
static size_t sizes[N];

static int setup(void **state)
{
    (void)state;
    struct rng r = {3};
    snprintf(dir, sizeof dir, "/tmp/quire-packed-XXXXXX");
    assert_non_null(mkdtemp(dir));
    char sub[96];
    snprintf(sub, sizeof sub, "%s/a/b", dir); /* folders are made as needed */
    path = packed_path(sub, "/models/x", "layout 1");
    for (int i = 0; i < N; i++) {
        sizes[i] = i == 2 ? 0 : 1 + rng_next_below(&r, 9000);
        content[i] = mem_must_zalloc(sizes[i] + 1, 1);
        for (size_t k = 0; k < sizes[i]; k++)
            content[i][k] = (unsigned char)rng_next(&r);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char name[128];
    unlink(path);
    snprintf(name, sizeof name, "%s/a/b", dir);
    rmdir(name); /* fails if a half-written file was left, and then so does the next */
    snprintf(name, sizeof name, "%s/a", dir);
    rmdir(name);
    int rc = rmdir(dir);
    mem_free(path);
    for (int i = 0; i < N; i++)
        mem_free(content[i]);
    return rc;
}

static void write_file(uint64_t key, bool commit)
{
    struct packed_writer *w;
    struct err e;
    assert_true(packed_writer_open(&w, path, key, N + 3, &e));
    for (int i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        assert_true(packed_writer_add(w, name, content[i], sizes[i], &e));
    }
    assert_true(packed_writer_close(&w, commit, &e));
    assert_null(w);
}

static void test_comes_back(void **state)
{
    (void)state;
    struct packed *p;
    struct err e;
    assert_false(packed_open(&p, path, 7, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    write_file(7, false);
    assert_false(file_exists(path));
    write_file(7, true);
    assert_true(packed_open(&p, path, 7, &e));
    assert_int_equal(packed_count(p), N);
    assert_int_equal(packed_find(p, "w9"), -1);
    for (int i = 0; i < N; i++) {
        char name[16];
        size_t bytes;
        snprintf(name, sizeof name, "w%d", i);
        int64_t at = packed_find(p, name);
        assert_true(at >= 0 && packed_verify(p, at));
        const void *data = packed_entry(p, at, NULL, &bytes);
        assert_int_equal((uintptr_t)data % 64, 0);
        assert_int_equal(bytes, sizes[i]);
        assert_memory_equal(data, content[i], bytes);
    }
    packed_close(&p);
    assert_false(packed_open(&p, path, 8, &e)); /* another checkpoint */
    assert_int_equal(e.code, ERR_FORMAT);
}

/* Flip one bit, or cut: either the file is refused, or the entry that changed does not verify, or padding was hit. */
static void test_damage_is_seen(void **state)
{
    (void)state;
    struct err e;
    struct rng r = {17};
    size_t len;
    write_file(7, true);
    char *good = file_read(path, 1 << 20, &len, &e);
    assert_non_null(good);
    int refused = 0, unverified = 0;
    for (int round = 0; round < 400; round++) {
        char *bad = mem_must_zalloc(len, 1);
        memcpy(bad, good, len);
        size_t at = rng_next_below(&r, round % 2 ? len : 1024), n = len;
        if (round % 5 == 4)
            n = rng_next_below(&r, len);
        else
            bad[at] ^= (char)(1 << rng_next_below(&r, 8));
        assert_true(file_write_atomic(path, bad, n, &e));
        struct packed *p;
        if (!packed_open(&p, path, 7, &e)) {
            refused++;
        } else {
            for (int64_t i = 0; i < packed_count(p); i++) {
                size_t bytes;
                const char *name;
                const unsigned char *data = packed_entry(p, i, &name, &bytes);
                bool same = memcmp(data, content[name[1] - '0'], bytes) == 0;
                assert_int_equal(packed_verify(p, i), same);
                unverified += !same;
            }
            packed_close(&p);
        }
        mem_free(bad);
    }
    mem_free(good);
    assert_true(refused > 50 && unverified > 50);
}

static void test_bounds_of_writing(void **state)
{
    (void)state;
    struct packed_writer *w;
    struct err e;
    assert_false(packed_writer_open(&w, path, 1, 0, &e));
    assert_true(packed_writer_open(&w, path, 1, 1, &e));
    assert_false(packed_writer_add(w, "a name that is far too long to fit the sixty-three bytes of a table's entry", "x", 1, &e));
    assert_true(packed_writer_add(w, "a", "x", 1, &e));
    assert_false(packed_writer_add(w, "b", "x", 1, &e));
    assert_true(packed_writer_close(&w, false, &e));
    assert_false(packed_writer_open(&w, "/proc/none/here.qpk", 1, 1, &e));
    assert_int_equal(e.code, ERR_IO);
}

/* The file again, written in small pieces: no file system keeps it in huge pages then. */
static void write_again_in_small_pieces(void)
{
    enum { PIECE = 60000 };
    struct err e;
    struct file_view v;
    char copy[160];
    snprintf(copy, sizeof copy, "%s/copy", dir);
    assert_true(file_view_open(&v, path, &e));
    int fd = open(copy, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    for (size_t at = 0; at < v.size; at += PIECE)
        assert_true(file_write_all(fd, v.data + at, v.size - at < PIECE ? v.size - at : PIECE));
    assert_int_equal(close(fd), 0);
    file_view_close(&v);
    assert_int_equal(rename(copy, path), 0);
}

/* Bytes are what they were, at the addresses they had, in huge pages of the file or while they move below those who read them, and wherever
 * moving stops. */
static void test_huge_pages(void **state)
{
    (void)state;
    enum { BIG = 90 << 20, ODD = 5000001, ROUNDS = 4 };
    struct rng r = {7};
    uint64_t *big = mem_must_zalloc(BIG / 8, 8);
    for (size_t i = 0; i < BIG / 8; i++)
        big[i] = rng_next(&r);
    for (int round = 0; round < 2 * ROUNDS; round++) {
        struct packed_writer *w;
        struct packed *p;
        struct err e;
        const char *name;
        size_t bytes;
        if (round == 0) {
            assert_true(packed_writer_open(&w, path, 1, 3, &e));
            assert_true(packed_writer_add(w, "small", "abc", 3, &e) && packed_writer_add(w, "odd", big, ODD, &e) &&
                        packed_writer_add(w, "big", big, BIG, &e));
            assert_true(packed_writer_close(&w, true, &e));
        }
        if (round == ROUNDS)
            write_again_in_small_pieces();
        assert_true(packed_open(&p, path, 1, &e));
        const unsigned char *at = packed_entry(p, 2, &name, &bytes), *odd;
        assert_int_equal(bytes, BIG);
        packed_move_to_huge_pages(p);
        for (int pass = 0; pass < 3 * (round % ROUNDS); pass++) {   /* closed at once when 0 */
            assert_memory_equal(at, big, BIG);
            assert_true(packed_verify(p, 0) && packed_verify(p, 1) && packed_verify(p, 2));
        }
        assert_ptr_equal(packed_entry(p, 2, &name, &bytes), at);
        odd = packed_entry(p, 1, &name, &bytes);
        assert_int_equal(bytes, ODD);
        assert_memory_equal(odd, big, ODD);
        for (const unsigned char *gap = odd + ODD; gap < at; gap++)
            assert_int_equal(*gap, 0);
        packed_close(&p);
    }
    mem_free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds_of_writing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_huge_pages, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
