/* Runs a fuzz entry over files and folders of inputs, so that the corpus is tested in every
 * build without a fuzzer. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/file.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static int replay_file(const char *path)
{
    size_t len;
    struct err e;
    char *text = file_read(path, (size_t)64 << 20, &len, &e);
    if (!text) {
        fprintf(stderr, "%s: %s\n", path, e.msg);
        return 1;
    }
    /* An exact copy, so that a read past the end is seen by the sanitizer. */
    unsigned char *exact = malloc(len ? len : 1);
    memcpy(exact, text, len);
    mem_free(text);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    return 0;
}

static int replay(const char *path, int *n)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return 0; /* no corpus yet */
    if (!S_ISDIR(st.st_mode)) {
        (*n)++;
        return replay_file(path);
    }
    int bad = 0;
    DIR *d = opendir(path);
    for (struct dirent *ent; d && (ent = readdir(d));) {
        if (ent->d_name[0] == '.')
            continue;
        char *child = file_join(path, ent->d_name);
        bad |= replay(child, n);
        mem_free(child);
    }
    if (d)
        closedir(d);
    return bad;
}

int main(int argc, char **argv)
{
    int n = 0, bad = 0;
    LLVMFuzzerTestOneInput((const unsigned char *)"", 0);
    for (int i = 1; i < argc; i++)
        bad |= replay(argv[i], &n);
    printf("replayed %d inputs\n", n);
    return bad;
}
