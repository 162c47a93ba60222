/* hub/sha.h - SHA-256 and SHA-1 (FIPS 180-4) of streams: what hubs name contents by.
 *
 * SHA-256 names what a repository keeps in large file storage; SHA-1 over "blob SIZE\0" and the bytes is git's name of the rest.  SHA-1
 * is used because git does: it finds damage, not forgery. */
#ifndef QUIRE_HUB_SHA_H
#define QUIRE_HUB_SHA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hub_sha_kind { HUB_SHA_NONE, HUB_SHA256, HUB_SHA1_GIT };

struct hub_sha {
    enum hub_sha_kind kind;
    uint32_t h[8];
    uint64_t n_bytes;
    unsigned char block[64];
};

/* size: of the whole content, which SHA1_GIT hashes first.  NONE accepts everything. */
void hub_sha_begin(struct hub_sha *s, enum hub_sha_kind kind, uint64_t size);
void hub_sha_update(struct hub_sha *s, const void *data, size_t n);
/* Lower-case hexadecimal digits, NUL-terminated; "" for NONE.  s must be begun again before its next use. */
void hub_sha_end(struct hub_sha *s, char hex[65]);

#endif
