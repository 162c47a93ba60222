/* Files and batches in one process: the journal torn anywhere, owners, pages, a batch over two models of which one fits, stopped in the middle. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/files.h"
#include "server/files_journal.h"
#include "server/http_keys.h"
#include "server/models.h"

enum { N_LINES = 24 };

static char dir[] = "/tmp/quire-test-files-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static void empty_dir(void)
{
    DIR *d = opendir(dir);
    char path[600];
    for (struct dirent *de; d && (de = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", dir, de->d_name);
        if (de->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
}

static int remove_dir(void **state)
{
    (void)state;
    empty_dir();
    return rmdir(dir);
}

static void pause_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* ---- the journal ---- */

struct seen { int n; struct files_record records[N_LINES + 2]; };

static void see(void *ctx, const struct files_record *r)
{
    struct seen *s = ctx;
    s->records[s->n++] = *r;
}

static const char *const texts[] = {"{\"a\":1}", "", "{\"text\":\"O 1 2 \xc3\xa9\"}", "x"};
enum { N_TEXTS = 4 };

static void write_journal(const char *path, int64_t ends[N_TEXTS])
{
    struct files_journal j;
    struct seen s = {0};
    unlink(path);
    assert_true(files_journal_open(&j, path, see, &s, NULL));
    for (int i = 0; i < N_TEXTS; i++) {
        struct files_record r = {.failed = i % 2, .index = 1000 - i, .len = strlen(texts[i])};
        assert_true(files_journal_add(&j, &r, texts[i], NULL));
        ends[i] = j.end;
    }
    assert_true(files_journal_sync(&j, NULL));
    files_journal_close(&j);
    assert_int_equal(s.n, 0);
}

/* What is there after a crash that left the first n bytes, or damaged one: the records before, and room for more. */
static void expect_records(const char *path, int n)
{
    struct files_journal j;
    struct seen s = {0};
    struct files_record r = {.index = 7, .len = 3};
    struct buf text;
    assert_true(files_journal_open(&j, path, see, &s, NULL));
    assert_int_equal(s.n, n);
    buf_init(&text, 0);
    for (int i = 0; i < n; i++) {
        buf_clear(&text);
        assert_true(files_journal_read(&j, &s.records[i], &text, NULL));
        assert_string_equal(text.data, texts[i]);
        assert_int_equal(s.records[i].index, 1000 - i);
        assert_int_equal(s.records[i].failed, i % 2);
    }
    assert_true(files_journal_add(&j, &r, "new", NULL));
    files_journal_close(&j);
    s.n = 0;
    assert_true(files_journal_open(&j, path, see, &s, NULL));
    assert_int_equal(s.n, n + 1);
    buf_clear(&text);
    assert_true(files_journal_read(&j, &s.records[n], &text, NULL));
    assert_string_equal(text.data, "new");
    files_journal_close(&j);
    buf_free(&text);
}

static void journal_torn_anywhere(void **state)
{
    (void)state;
    int64_t ends[N_TEXTS];
    char path[600];
    snprintf(path, sizeof path, "%s/journal", dir);
    write_journal(path, ends);
    for (int64_t cut = 0; cut <= ends[N_TEXTS - 1]; cut++) {
        int whole = 0;
        write_journal(path, ends);
        assert_int_equal(truncate(path, cut), 0);
        while (whole < N_TEXTS && ends[whole] <= cut)
            whole++;
        expect_records(path, whole);
    }
    for (int64_t at = 0; at < ends[N_TEXTS - 1]; at++) {   /* a byte that the disk lost */
        int whole = 0;
        write_journal(path, ends);
        FILE *f = fopen(path, "r+");
        fseek(f, at, SEEK_SET);
        fputc(0, f);
        fclose(f);
        while (whole < N_TEXTS && ends[whole] <= at)
            whole++;
        expect_records(path, whole);
    }
    unlink(path);
}

/* ---- a store ---- */

static struct server_models *models;
static struct server_model_opts model_opts[2];

static void open_models(void)
{
    struct server_models_opts o = {.models = model_opts, .n_models = 2, .max_loaded = 1};
    struct err e;
    for (int i = 0; i < 2; i++) {
        model_opts[i].name = i ? "b" : "a";
        engine_opts_default(&model_opts[i].engine);
        model_opts[i].engine.num_kv_blocks = 100;
        model_opts[i].engine.max_num_seqs = 4;
        model_opts[i].engine.n_threads = 1;
        model_opts[i].engine.packed_cache = "off";
    }
    if (!server_models_open(&models, &o, &e))
        fail_msg("%s", e.msg);
}

static struct files *open_files(void)
{
    struct files *f;
    struct err e;
    const struct files_opts o = {.dir = dir, .models = models};
    if (!files_open(&f, &o, &e))
        fail_msg("%s", e.msg);
    return f;
}

static json_t *add(struct files *f, const char *owner, const char *text)
{
    struct api_error e;
    const struct files_upload u = {.name = "in.jsonl", .purpose = "batch", .data = text, .n_bytes = strlen(text)};
    json_t *j = files_add(f, owner, &u, &e);
    assert_non_null(j);
    assert_null(json_object_get(j, "quire"));
    return j;
}

static const char *id_of(const json_t *j) { return json_string_value(json_object_get(j, "id")); }

static int n_listed(struct files *f, const char *owner)
{
    struct api_error e;
    const struct files_page p = {.limit = 100};
    json_t *list = files_list(f, owner, &p, &e);
    int n = (int)json_array_size(json_object_get(list, "data"));
    json_decref(list);
    return n;
}

static void owners(void **state)
{
    (void)state;
    struct api_error e;
    struct buf out;
    open_models();
    struct files *f = open_files();
    json_t *a = add(f, "aa", "x"), *b = add(f, "bb", "y"), *c = add(f, "", "z"), *j;
    buf_init(&out, 0);
    assert_int_equal(n_listed(f, "aa"), 2);
    assert_int_equal(n_listed(f, "bb"), 2);
    assert_int_equal(n_listed(f, "cc"), 1);
    assert_int_equal(n_listed(f, ""), 3);
    assert_null(files_get(f, "bb", id_of(a), &e));
    assert_int_equal(e.status, 404);
    assert_false(files_delete(f, "bb", id_of(a), &e));
    assert_false(files_content(f, "bb", id_of(a), &out, &e));
    json_t *order = json_pack("{s:s,s:s}", "input_file_id", id_of(a), "endpoint", "/v1/completions");
    assert_null(files_batch_add(f, "bb", order, &e));
    assert_int_equal(e.status, 404);
    assert_true(files_content(f, "aa", id_of(a), &out, &e));
    assert_string_equal(out.data, "x");
    assert_non_null(j = files_get(f, "bb", id_of(c), &e));
    json_decref(j);
    assert_true(files_delete(f, "bb", id_of(b), &e));
    /* A second server is kept out of the folder. */
    struct files *second;
    struct err err;
    const struct files_opts o = {.dir = dir, .models = models};
    assert_false(files_open(&second, &o, &err));
    assert_non_null(strstr(err.msg, "another server"));
    json_decref(order);
    json_decref(a);
    json_decref(b);
    json_decref(c);
    buf_free(&out);
    files_close(&f);
    server_models_close(&models);
    empty_dir();
}

static void pages(void **state)
{
    (void)state;
    struct api_error e;
    char ids[9][64];
    open_models();
    struct files *f = open_files();
    for (int i = 0; i < 9; i++) {
        json_t *j = add(f, i % 3 == 2 ? "bb" : "aa", "x");
        snprintf(ids[i], sizeof ids[i], "%s", id_of(j));
        json_decref(j);
        assert_true(i == 0 || strcmp(ids[i], ids[i - 1]) > 0);
    }
    for (int oldest = 0; oldest < 2; oldest++) {
        char after[64] = "";
        int n = 0;
        bool more = true;
        while (more) {
            const struct files_page p = {.limit = 4, .oldest_first = oldest, .after = *after ? after : NULL};
            json_t *list = files_list(f, "aa", &p, &e), *data = json_object_get(list, "data");
            for (size_t i = 0; i < json_array_size(data); i++, n++) {
                int want = oldest ? n : 5 - n;                 /* of a's: 0 1 3 4 6 7 */
                assert_string_equal(id_of(json_array_get(data, i)), ids[want / 2 * 3 + want % 2]);
            }
            more = json_is_true(json_object_get(list, "has_more"));
            snprintf(after, sizeof after, "%s", json_string_value(json_object_get(list, "last_id")));
            assert_string_equal(id_of(json_array_get(data, json_array_size(data) - 1)), after);
            json_decref(list);
        }
        assert_int_equal(n, 6);
    }
    /* Behind one that is gone: the id says where that was. */
    assert_true(files_delete(f, "aa", ids[3], &e));
    const struct files_page p = {.limit = 1, .after = ids[3]}, bad = {.limit = 1, .after = "file-x"}, none = {.limit = 5, .purpose = "batch_output"};
    json_t *list = files_list(f, "aa", &p, &e);
    assert_string_equal(id_of(json_array_get(json_object_get(list, "data"), 0)), ids[1]);
    json_decref(list);
    assert_null(files_list(f, "aa", &bad, &e));
    assert_int_equal(e.status, 400);
    list = files_list(f, "aa", &none, &e);
    assert_int_equal(json_array_size(json_object_get(list, "data")), 0);
    assert_true(json_is_null(json_object_get(list, "first_id")));
    json_decref(list);
    files_close(&f);
    server_models_close(&models);
    empty_dir();
}

/* ---- a batch ---- */

/* Lines of both models in turn, one of a model that there is not, one that is no JSON. */
static char *make_lines(void)
{
    struct buf b;
    buf_init(&b, 0);
    for (int i = 0; i < N_LINES; i++)
        buf_printf(&b, "{\"custom_id\":\"r%d\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"model\":\"%s\",\"prompt\":\"Once upon a time\","
                       "\"max_tokens\":60,\"ignore_eos\":true,\"seed\":%d}}\n", i, i == 5 ? "c" : i % 2 ? "b" : "a", i);
    buf_puts(&b, "junk");
    return buf_take(&b);
}

static bool status_is(struct files *f, const char *id, const char *status)
{
    struct api_error e;
    json_t *j = files_get(f, "aa", id, &e);
    const char *s = json_string_value(json_object_get(j, "status"));
    bool is = s && strcmp(s, status) == 0;
    json_decref(j);
    return is;
}

/* The file's lines as JSON. */
static json_t *answers(struct files *f, const json_t *batch, const char *key)
{
    struct api_error e;
    struct buf out;
    json_t *list = json_array();
    buf_init(&out, 0);
    if (!files_content(f, "aa", json_string_value(json_object_get(batch, key)), &out, &e))
        fail_msg("%s", e.msg);
    for (char *at = out.data, *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        json_t *j = json_loadb(at, (size_t)(end - at), 0, NULL);
        assert_non_null(j);
        json_array_append_new(list, j);
    }
    buf_free(&out);
    return list;
}

static void read_journal(const char *path, json_t *kept[N_LINES + 1])
{
    struct files_journal j;
    struct seen s = {0};
    struct buf text;
    buf_init(&text, 0);
    assert_true(files_journal_open(&j, path, see, &s, NULL));
    for (int i = 0; i < s.n; i++) {
        buf_clear(&text);
        assert_true(files_journal_read(&j, &s.records[i], &text, NULL));
        kept[s.records[i].index] = json_loadb(text.data, text.len, 0, NULL);
        assert_non_null(kept[s.records[i].index]);
    }
    files_journal_close(&j);
    buf_free(&text);
}

static void batch_over_two_models_and_two_lives(void **state)
{
    (void)state;
    struct api_error e;
    char id[64], part[600], *lines = make_lines();
    open_models();
    struct files *f = open_files();
    json_t *file = add(f, "aa", lines), *order = json_pack("{s:s,s:s}", "input_file_id", id_of(file), "endpoint", "/v1/completions");
    json_t *batch = files_batch_add(f, "aa", order, &e);
    assert_non_null(batch);
    snprintf(id, sizeof id, "%s", id_of(batch));
    snprintf(part, sizeof part, "%s/%s.part", dir, id);
    json_decref(batch);
    assert_false(files_delete(f, "aa", id_of(file), &e) && !status_is(f, id, "completed"));
    do {                                                       /* some answers, then the end */
        char *text;
        size_t len = 0, n = 0;
        pause_ms(1);
        text = file_read(part, 1 << 20, &len, NULL);
        for (size_t i = 0; text && i < len; i++)
            n += text[i] == '\n';
        mem_free(text);
        if (n >= 3)
            break;
    } while (!status_is(f, id, "completed"));
    files_close(&f);
    server_models_close(&models);
    json_t *kept[N_LINES + 1] = {NULL};
    if (file_exists(part))                                     /* it was not too quick for us */
        read_journal(part, kept);
    open_models();
    f = open_files();
    for (int k = 0; !status_is(f, id, "completed"); k++) {
        assert_true(k < 60000);
        pause_ms(2);
    }
    batch = files_get(f, "aa", id, &e);
    json_t *good = answers(f, batch, "output_file_id"), *bad = answers(f, batch, "error_file_id");
    assert_int_equal(json_array_size(good), N_LINES - 1);
    assert_int_equal(json_array_size(bad), 2);
    for (int i = 0, k = 0; i < N_LINES; i++) {
        char want[16];
        json_t *line = i == 5 ? json_array_get(bad, 0) : json_array_get(good, (size_t)k++);
        snprintf(want, sizeof want, "r%d", i);
        assert_string_equal(json_string_value(json_object_get(line, "custom_id")), want);
        assert_true(!kept[i] || json_equal(kept[i], line));    /* ids are random: it was not computed again */
    }
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json_array_get(bad, 0), "response"), "status_code")), 404);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json_array_get(bad, 1), "response"), "status_code")), 400);
    for (int k = 0; file_exists(part); k++) {                  /* it goes once the end is on disk, which can be seen a moment before */
        assert_true(k < 60000);
        pause_ms(1);
    }
    assert_null(files_get(f, "bb", id, &e));
    assert_null(files_get(f, "bb", json_string_value(json_object_get(batch, "output_file_id")), &e));
    for (int i = 0; i <= N_LINES; i++)
        json_decref(kept[i]);
    json_decref(good);
    json_decref(bad);
    json_decref(batch);
    json_decref(order);
    json_decref(file);
    mem_free(lines);
    files_close(&f);
    server_models_close(&models);
    empty_dir();
}

static void ids_of_keys(void **state)
{
    (void)state;
    char a[HTTP_KEY_ID_MAX], b[HTTP_KEY_ID_MAX];
    assert_true(http_key_id("sk-alice-0001", 13, a));
    assert_true(http_key_id("sk-alice-0001", 13, b));
    assert_string_equal(a, b);
    assert_int_equal(strlen(a), 32);
    assert_true(http_key_id("sk-alice-0002", 13, b));
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(journal_torn_anywhere), cmocka_unit_test(ids_of_keys), cmocka_unit_test(owners), cmocka_unit_test(pages),
        cmocka_unit_test(batch_over_two_models_and_two_lives),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
