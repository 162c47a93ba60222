#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "base/mem.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/quire-file-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int count_files(bool remove_them)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *ent; (ent = readdir(d));) {
        if (ent->d_name[0] == '.' && (!ent->d_name[1] || ent->d_name[1] == '.'))
            continue;
        n++;
        char *path = file_join(dir, ent->d_name);
        if (remove_them && unlink(path) != 0)
            rmdir(path);
        mem_free(path);
    }
    closedir(d);
    return n;
}

static int drop_dir(void **state)
{
    (void)state;
    count_files(true);
    return rmdir(dir);
}

static char *in_dir(const char *name)
{
    char *path = file_join(dir, name);
    assert_non_null(path);
    return path;
}

static void joins(void **state)
{
    (void)state;
    const struct { const char *dir, *name, *want; } cases[] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}, {"a/b", "c/d", "a/b/c/d"}, {"a", "", "a/"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *p = file_join(cases[i].dir, cases[i].name);
        assert_string_equal(p, cases[i].want);
        mem_free(p);
    }
    mem_fault_after(1);
    assert_null(file_join("a", "b"));
}

static void writes_reads_maps(void **state)
{
    (void)state;
    struct err e = {0};
    char *path = in_dir("data"), *big = mem_try_zalloc(100000, 1);
    const size_t sizes[] = {0, 1, 4094, 4095, 4096, 4097, 4098, 100000};
    for (int i = 0; i < 100000; i++)
        big[i] = (char)(i * 7 + i / 256);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i], len = 99;
        if (!file_write_atomic(path, big, n, &e))
            fail_msg("%s", e.msg);
        assert_int_equal(count_files(false), 1); /* no temporary stays */
        char *text = file_read(path, n, &len, &e);
        assert_non_null(text);
        assert_int_equal(len, n);
        assert_memory_equal(text, big, n);
        assert_int_equal(text[n], 0);
        mem_free(text);
        text = file_read(path, SIZE_MAX, NULL, &e);
        assert_non_null(text);
        mem_free(text);
        if (n) {
            assert_null(file_read(path, n - 1, &len, &e));
            assert_int_equal(e.code, ERR_TOO_LARGE);
        }
        struct file_view v;
        assert_true(file_view_open(&v, path, &e));
        assert_int_equal(v.size, n);
        assert_int_equal(v.data == NULL, n == 0);
        if (n)
            assert_memory_equal(v.data, big, n);
        file_view_close(&v);
        assert_true(!v.data && !v.size && !v.mapped);
        file_view_close(&v);
    }
    assert_true(file_exists(path) && !file_is_dir(path) && file_is_dir(dir) && file_exists(dir));
    mem_free(big);
    mem_free(path);
}

/* A pipe has no size to trust, and /proc files say 0. */
static void reads_what_has_no_size(void **state)
{
    (void)state;
    struct err e;
    size_t len;
    char *text = file_read("/proc/self/status", 1 << 20, &len, &e);
    assert_true(text && len > 100 && strlen(text) == len);
    mem_free(text);
    assert_null(file_read("/proc/self/status", 10, &len, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    char block[20000], path[64];
    memset(block, 'p', sizeof block);
    assert_int_equal(write(fd[1], block, sizeof block), sizeof block);
    close(fd[1]);
    snprintf(path, sizeof path, "/dev/fd/%d", fd[0]);
    text = file_read(path, sizeof block, &len, &e);
    assert_true(text && len == sizeof block);
    assert_memory_equal(text, block, len);
    mem_free(text);
    close(fd[0]);
}

static void errors(void **state)
{
    (void)state;
    struct err e;
    struct file_view v;
    char *none = in_dir("none"), *below = in_dir("none/x"), *fifo = in_dir("fifo");
    assert_null(file_read(none, 10, NULL, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, none));
    assert_false(file_view_open(&v, none, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_false(file_view_open(&v, dir, &e));
    assert_int_equal(e.code, ERR_IO);
    assert_null(file_read(dir, 10, NULL, &e));
    assert_int_equal(e.code, ERR_IO);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_false(file_view_open(&v, fifo, &e)); /* and does not hang */
    assert_int_equal(e.code, ERR_IO);
    assert_false(file_write_atomic(below, "x", 1, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_false(file_write_atomic(dir, "x", 1, NULL)); /* rename onto a folder */
    assert_false(file_exists(none) || file_is_dir(none));
    unlink(fifo);
    mem_free(none);
    mem_free(below);
    mem_free(fifo);
}

static void atomic_keeps_mode_and_old(void **state)
{
    (void)state;
    struct err e;
    struct stat st;
    char *path = in_dir("kept");
    mode_t mask = umask(027);
    assert_true(file_write_atomic(path, "old", 3, &e));
    umask(mask);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    chmod(path, 0604);
    assert_true(file_write_atomic(path, "new", 3, &e));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0604);
    mem_fault_after(1);
    assert_false(file_write_atomic(path, "bad", 3, &e));
    assert_int_equal(e.code, ERR_NOMEM);
    char *text = file_read(path, 10, NULL, &e);
    assert_string_equal(text, "new");
    mem_free(text);
    mem_free(path);
}

static void read_out_of_memory(void **state)
{
    (void)state;
    struct err e;
    long n = 1;
    for (bool fired = true; fired; n++) {
        mem_fault_after(n);
        char *text = file_read("/proc/self/maps", 1 << 20, NULL, &e);
        fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(text == NULL, fired);
        if (fired)
            assert_int_equal(e.code, ERR_NOMEM);
        mem_free(text);
    }
}

static void sets(void **state)
{
    (void)state;
    static const struct file_blob blobs[] = {
        {"config.json", (const unsigned char *)"{}", 2}, {"empty", (const unsigned char *)"", 0}, {0}};
    struct err e = {0};
    char *path = in_dir("config.json"), *empty = in_dir("empty");
    assert_true(file_write_atomic(path, "{}", 2, &e) && file_write_atomic(empty, NULL, 0, &e));
    const struct file_set both[] = {{.dir = dir}, {.blobs = blobs}};
    for (int i = 0; i < 2; i++) {
        const struct file_set *fs = &both[i];
        struct file_view v;
        size_t len = 9;
        assert_true(file_set_has(fs, "config.json") && file_set_has(fs, "empty") && !file_set_has(fs, "other"));
        assert_true(file_set_open(fs, "config.json", &v, &e));
        assert_int_equal(v.size, 2);
        assert_memory_equal(v.data, "{}", 2);
        assert_int_equal(v.mapped, i == 0);
        file_view_close(&v);
        assert_true(file_set_open(fs, "empty", &v, &e));
        assert_true(v.data == NULL && v.size == 0);
        file_view_close(&v);
        char *text = file_set_read(fs, "config.json", 2, &len, &e);
        assert_string_equal(text, "{}");
        assert_int_equal(len, 2);
        mem_free(text);
        assert_null(file_set_read(fs, "config.json", 1, &len, &e));
        assert_int_equal(e.code, ERR_TOO_LARGE);
        assert_null(file_set_read(fs, "other", 1, &len, &e));
        assert_int_equal(e.code, ERR_NOT_FOUND);
        assert_false(file_set_open(fs, "other", &v, &e));
        assert_int_equal(e.code, ERR_NOT_FOUND);
        mem_fault_after(1);
        assert_null(file_set_read(fs, "config.json", 2, &len, &e));
        assert_int_equal(e.code, ERR_NOMEM);
        const char *bad[] = {"", ".", "..", "/etc/passwd", "a/b", "../x", "a..b", NULL};
        for (size_t k = 0; k < 8; k++) {
            assert_false(file_set_has(fs, bad[k]) || file_set_open(fs, bad[k], &v, &e));
            assert_int_equal(e.code, ERR_INVALID);
            assert_null(file_set_read(fs, bad[k], 10, &len, &e));
        }
    }
    mem_free(path);
    mem_free(empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins), cmocka_unit_test(writes_reads_maps), cmocka_unit_test(reads_what_has_no_size),
        cmocka_unit_test(errors), cmocka_unit_test(atomic_keeps_mode_and_old), cmocka_unit_test(read_out_of_memory),
        cmocka_unit_test(sets),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
