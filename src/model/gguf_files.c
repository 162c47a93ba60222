/* Which files make a GGUF model: one, or all of "NAME-00001-of-0000N.gguf". */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "model/gguf_int.h"

enum { MAX_FILES = 999, TAIL = 20 };   /* "-00001-of-00002.gguf" */

bool gguf_is_file(const char *path)
{
    size_t n = strlen(path);
    char magic[4] = { 0 };
    if (file_is_dir(path))
        return false;
    if (n > 5 && strcmp(path + n - 5, ".gguf") == 0)
        return true;
    FILE *f = fopen(path, "rb");
    bool ok = f && fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (f)
        fclose(f);
    return ok;
}

static bool open_one(struct gguf_files *f, const char *name, struct err *e)
{
    struct gguf_file *file = &f->files[f->n_files];
    char *path = file_join(f->dir, name);
    file->name = mem_try_strdup(name);
    bool ok = path && file->name;
    f->n_files++;
    if (!ok)
        err_set(e, ERR_NOMEM, "%s: no memory for its name", name);
    ok = ok && file_view_open(&file->view, path, e) && gguf_parse(&file->g, file->view.data, file->view.size, file->name, e);
    mem_free(path);
    return ok;
}

/* "NAME-00001-of-0000N.gguf": the length of NAME; 0 when it is not so named. */
static size_t split_stem(const char *name, int *no, int *count)
{
    size_t n = strlen(name);
    int used = 0;
    if (n <= TAIL || sscanf(name + n - TAIL, "-%5d-of-%5d.gguf%n", no, count, &used) != 2 || used != TAIL)
        return 0;
    return n - TAIL;
}

/* A file that a model may begin with: not a later part, nor the eyes of one that sees. */
static bool begins_model(const char *name)
{
    size_t n = strlen(name);
    int no, count;
    if (n <= 5 || strcmp(name + n - 5, ".gguf") != 0 || strstr(name, "mmproj"))
        return false;
    return !split_stem(name, &no, &count) || no == 1;
}

bool gguf_find_in_folder(const char *dir, char **path, struct err *e)
{
    DIR *d = opendir(dir);
    bool ok = true;
    *path = NULL;
    for (struct dirent *ent; ok && d && (ent = readdir(d));) {
        if (!begins_model(ent->d_name))
            continue;
        if (*path)
            ok = err_set(e, ERR_INVALID, "has several .gguf files, %.100s among them: name one", ent->d_name);
        else if (!(*path = file_join(dir, ent->d_name)))
            ok = err_set(e, ERR_NOMEM, "no memory for a name");
    }
    if (d)
        closedir(d);
    if (!ok) {
        mem_free(*path);
        *path = NULL;
    }
    return ok;
}

static bool open_split(struct gguf_files *f, const char *name, int64_t count, bool first_only, struct err *e)
{
    int no = 0, named = 0;
    size_t stem = split_stem(name, &no, &named);
    if (count < 1 || count > MAX_FILES)
        return err_set(e, ERR_FORMAT, "%s: split.count is %lld; possible are 1 to %d", name, (long long)count, MAX_FILES);
    if (!stem || named != count)
        return err_set(e, ERR_FORMAT, "%s: is one of %lld parts, but its name does not end in -00001-of-%05lld.gguf", name, (long long)count, (long long)count);
    struct gguf_file *files = mem_try_zalloc((size_t)count, sizeof *files);
    if (!files)
        return err_set(e, ERR_NOMEM, "%s: no memory for %lld parts", name, (long long)count);
    struct gguf_file opened = f->files[0];
    mem_free(f->files);
    f->files = files;
    if (no == 1) {
        files[0] = opened;
        files[0].g.file = opened.name;
    } else {
        gguf_free(&opened.g);
        file_view_close(&opened.view);
        mem_free(opened.name);
        f->n_files = 0;
    }
    while (f->n_files < (size_t)count && !(first_only && f->n_files == 1)) {
        char part[300];
        int64_t said = -1, of = -1;
        size_t i = f->n_files;
        if (stem > 255)
            return err_set(e, ERR_INVALID, "%.200s: the name is too long", name);
        snprintf(part, sizeof part, "%.*s-%05zu-of-%05lld.gguf", (int)stem, name, i + 1, (long long)count);
        if (!open_one(f, part, e))
            return false;
        const struct gguf *g = &f->files[i].g;
        if (!gguf_get_i64(g, "split.no", &said, e) || !gguf_get_i64(g, "split.count", &of, e))
            return false;
        if (said != (int64_t)i || of != count)
            return err_set(e, ERR_FORMAT, "%s: says that it is part %lld of %lld, its name part %zu of %lld", part, (long long)said, (long long)of, i,
                           (long long)count);
    }
    return true;
}

static bool open_all(struct gguf_files *f, const char *path, bool first_only, struct err *e)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int64_t count = 1;
    f->dir = slash ? mem_try_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : mem_try_strdup(".");
    f->files = mem_try_zalloc(1, sizeof *f->files);
    if (!f->dir || !f->files)
        return err_set(e, ERR_NOMEM, "no memory for the model's files");
    if (!open_one(f, name, e) || !gguf_get_i64(&f->files[0].g, "split.count", &count, e))
        return false;
    return count == 1 || count == 0 || open_split(f, name, count, first_only, e);
}

bool gguf_files_open(struct gguf_files **out, const char *path, bool first_only, struct err *e)
{
    *out = NULL;
    struct gguf_files *f = mem_try_zalloc(1, sizeof *f);
    if (!f)
        return err_set(e, ERR_NOMEM, "no memory for the model's files");
    if (open_all(f, path, first_only, e)) {
        *out = f;
        return true;
    }
    gguf_files_close(&f);
    return false;
}

void gguf_files_close(struct gguf_files **f)
{
    struct gguf_files *p = *f;
    *f = NULL;
    if (!p)
        return;
    for (size_t i = 0; i < p->n_files; i++) {
        gguf_free(&p->files[i].g);
        file_view_close(&p->files[i].view);
        mem_free(p->files[i].name);
    }
    mem_free(p->files);
    mem_free(p->dir);
    mem_free(p);
}

const struct tensor *gguf_files_find(const struct gguf_files *f, const char *name)
{
    for (size_t i = 0; i < f->n_files; i++)
        for (size_t j = 0; j < f->files[i].g.n_tensors; j++)
            if (strcmp(f->files[i].g.tensors[j].name, name) == 0)
                return &f->files[i].g.tensors[j];
    return NULL;
}
