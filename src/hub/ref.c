/* What people write to name a model of a hub. */
#include <ctype.h>
#include <string.h>
#include "hub/hub_int.h"

/* Letters, digits, '-', '_', '.', as the hub allows; "--" and ".." never: they would be ambiguous as folder names. */
static bool part_is_good(const char *s, size_t n)
{
    if (n == 0 || n > 96 || !(isalnum((unsigned char)s[0]) || s[0] == '_'))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i]))
            return false;
        if (i && s[i] == s[i - 1] && (s[i] == '-' || s[i] == '.'))
            return false;
    }
    return s[n - 1] != '.' && s[n - 1] != '-';
}

bool hub_name_is_safe(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n >= HUB_FILE_MAX || name[0] == '/' || name[n - 1] == '/')
        return false;
    for (const char *p = name; *p;) {
        size_t len = strcspn(p, "/");
        if (len == 0 || len > 255 || (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        for (size_t i = 0; i < len; i++)
            if ((unsigned char)p[i] < 32 || p[i] == 127 || p[i] == '\\')
                return false;
        p += len + (p[len] == '/');
    }
    return true;
}

static bool copy(char *out, size_t cap, const char *s, size_t n)
{
    if (n >= cap)
        return false;
    memcpy(out, s, n);
    out[n] = 0;
    return true;
}

/* Splits without judging; false when a part is too long. */
static bool split(struct hub_ref *ref, const char *text)
{
    *ref = (struct hub_ref){.revision = "main"};
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    const char *at = memchr(text, '@', n);
    size_t n_repo = at ? (size_t)(at - text) : n;
    return copy(ref->repo, sizeof ref->repo, text, n_repo) &&
           (!at || copy(ref->revision, sizeof ref->revision, at + 1, n - n_repo - 1)) &&
           (!colon || copy(ref->file, sizeof ref->file, colon + 1, strlen(colon + 1)));
}

bool hub_ref_parse(struct hub_ref *ref, const char *text, struct err *e)
{
    if (!split(ref, text))
        return err_set(e, ERR_INVALID, "'%.80s' is too long for a hub id", text);
    const char *slash = strchr(ref->repo, '/'), *name = slash ? slash + 1 : ref->repo;
    if ((slash && !part_is_good(ref->repo, (size_t)(slash - ref->repo))) || !part_is_good(name, strlen(name)))
        return err_set(e, ERR_INVALID, "'%.200s' is not a hub id: expected ORG/NAME, ORG/NAME@REVISION or ORG/NAME:FILE.gguf", text);
    if (!hub_name_is_safe(ref->revision))
        return err_set(e, ERR_INVALID, "'%.200s': '%.80s' is not a revision", text, ref->revision);
    if (strchr(text, ':') && !hub_name_is_safe(ref->file))
        return err_set(e, ERR_INVALID, "'%.200s': '%.80s' is not a file of a repository", text, ref->file);
    return true;
}

bool hub_ref_fits(const char *text)
{
    struct hub_ref ref;
    return hub_ref_parse(&ref, text, NULL) && strchr(ref.repo, '/');
}
