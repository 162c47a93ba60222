/* What tells one state of a checkpoint from another without reading it whole. */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include "base/hash.h"
#include "base/mem.h"
#include "model/weights_int.h"

static bool counts(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".json") == 0 || strcmp(dot, ".gguf") == 0);
}

static uint64_t file_identity(const char *name, const struct stat *st)
{
    const uint64_t facts[] = {(uint64_t)st->st_size, (uint64_t)st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec, (uint64_t)st->st_ino};
    return hash_bytes(facts, sizeof facts, hash_bytes(name, strlen(name), 0));
}

static uint64_t gguf_identity(const struct gguf_files *f)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < f->n_files; i++) {
        struct stat st;
        char *path = file_join(f->dir, f->files[i].name);
        bool ok = path && stat(path, &st) == 0;
        mem_free(path);
        if (!ok)
            return 0;
        sum += file_identity(f->files[i].name, &st);
    }
    return sum ? sum : 1;
}

/* The sum over files does not depend on the order in which the folder lists them. */
uint64_t model_identity(const struct model *m)
{
    if (m->gguf && !m->dummy)
        return gguf_identity(m->gguf);
    if (m->dummy || !m->files.dir)
        return 0;
    uint64_t sum = 0;
    DIR *d = opendir(m->files.dir);
    for (struct dirent *ent; d && (ent = readdir(d));) {
        struct stat st;
        if (!counts(ent->d_name) || fstatat(dirfd(d), ent->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode))
            continue;
        sum += file_identity(ent->d_name, &st);
    }
    if (d)
        closedir(d);
    return sum ? sum : 1;
}
