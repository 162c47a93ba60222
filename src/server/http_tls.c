/* TLS: certificates, and their exchange while the server runs.
 *
 * libmicrohttpd loads a certificate once and for all.  So each connection is given its credentials as it begins, before the
 * handshake: those that are current.  A connection keeps what it began with; the last one to end frees it. */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/http_int.h"

enum { MAX_PEM_BYTES = 4 << 20 };
const char http_tls_priorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

struct tls_creds {
    atomic_int refs;
    gnutls_certificate_credentials_t cred;
    int64_t expires_s;                    /* of the server's own certificate, since 1970 */
};

struct http_tls {
    struct http_tls_opts o;
    struct stat seen[3];
    pthread_mutex_t lock;                 /* guards now */
    struct tls_creds *now;
};

/* ---- loading ---- */

static void creds_unref(struct tls_creds *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    if (c->cred)
        gnutls_certificate_free_credentials(c->cred);
    mem_free(c);
}

static bool read_pem(const char *flag, const char *path, gnutls_datum_t *out, struct err *e)
{
    size_t len = 0;
    char *text = file_read(path, MAX_PEM_BYTES, &len, e);
    if (!text)
        return err_prefix(e, "%s", flag);
    *out = (gnutls_datum_t){(unsigned char *)text, (unsigned)len};
    return true;
}

static void wipe(gnutls_datum_t *d)
{
    if (d->data)
        explicit_bzero(d->data, d->size);
    mem_free(d->data);
}

static const char *why_pair(int rc)
{
    return rc == GNUTLS_E_CERTIFICATE_KEY_MISMATCH ? "the key does not belong to the certificate"
           : rc == GNUTLS_E_DECRYPTION_FAILED
               ? "the key is encrypted; store it without a password, readable by the server alone"
           : rc == GNUTLS_E_BASE64_DECODING_ERROR || rc == GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR || rc == GNUTLS_E_NO_CERTIFICATE_FOUND
               ? "one of them is not PEM of its kind"
               : gnutls_strerror(rc);
}

static bool load_pair(const struct http_tls_opts *o, struct tls_creds *c, struct err *e)
{
    gnutls_datum_t cert = {0}, key = {0};
    gnutls_x509_crt_t *chain = NULL;
    unsigned n = 0;
    bool ok = read_pem("--ssl-certfile", o->cert_file, &cert, e) && read_pem("--ssl-keyfile", o->key_file, &key, e);
    int rc = ok ? gnutls_certificate_set_x509_key_mem2(c->cred, &cert, &key, GNUTLS_X509_FMT_PEM, NULL, 0) : 0;
    if (ok && rc < 0)
        ok = err_set(e, ERR_FORMAT, "--ssl-certfile %s and --ssl-keyfile %s cannot be used: %s", o->cert_file, o->key_file, why_pair(rc));
    if (ok && gnutls_x509_crt_list_import2(&chain, &n, &cert, GNUTLS_X509_FMT_PEM, 0) >= 0) {
        if (n > 0)
            c->expires_s = (int64_t)gnutls_x509_crt_get_expiration_time(chain[0]);
        for (unsigned i = 0; i < n; i++)
            gnutls_x509_crt_deinit(chain[i]);
        gnutls_free(chain);
    }
    wipe(&cert);
    wipe(&key);
    return ok;
}

static bool load_authorities(const struct http_tls_opts *o, struct tls_creds *c, struct err *e)
{
    gnutls_datum_t pem = {0};
    if (!o->ca_file)
        return true;
    bool ok = read_pem("--ssl-ca-certs", o->ca_file, &pem, e);
    int n = ok ? gnutls_certificate_set_x509_trust_mem(c->cred, &pem, GNUTLS_X509_FMT_PEM) : 0;
    if (ok && n <= 0)
        ok = err_set(e, ERR_FORMAT, "--ssl-ca-certs %s: %s", o->ca_file, n < 0 ? gnutls_strerror(n) : "there is no certificate in it");
    wipe(&pem);
    return ok;
}

static void look(const struct http_tls *t, struct stat st[3])
{
    const char *const paths[3] = {t->o.cert_file, t->o.key_file, t->o.ca_file};
    for (int i = 0; i < 3; i++)
        if (!paths[i] || stat(paths[i], &st[i]) != 0)
            st[i] = (struct stat){0};
}

/* Called in the handshake.  A client that sends no certificate comes this far only where none is required. */
static int verify_client(gnutls_session_t session)
{
    gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT};
    unsigned n = 0, status = 0;
    if (!gnutls_certificate_get_peers(session, &n) || n == 0)
        return 0;
    return gnutls_certificate_verify_peers(session, &purpose, 1, &status) < 0 || status != 0 ? -1 : 0;
}

static bool load(struct http *h, struct err *e)
{
    struct http_tls *t = h->tls;
    struct tls_creds *c = mem_try_zalloc(1, sizeof *c), *old;
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    atomic_init(&c->refs, 1);
    look(t, t->seen); /* also when they cannot be used: to be told of once is enough */
    if (gnutls_certificate_allocate_credentials(&c->cred) < 0) {
        mem_free(c);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    gnutls_certificate_set_verify_function(c->cred, verify_client);
    if (!load_pair(&t->o, c, e) || !load_authorities(&t->o, c, e)) {
        creds_unref(c);
        return false;
    }
    if (c->expires_s > 0 && c->expires_s < clock_unix_s())
        log_warn(h->o.log, "tls", "the certificate in %s has expired: clients will refuse it", t->o.cert_file);
    pthread_mutex_lock(&t->lock);
    old = t->now;
    t->now = c;
    pthread_mutex_unlock(&t->lock);
    creds_unref(old);
    return true;
}

bool http_tls_open(struct http *h, struct err *e)
{
    if (!h->o.tls.cert_file && !h->o.tls.key_file && !h->o.tls.ca_file)
        return true;
    if (!h->o.tls.cert_file || !h->o.tls.key_file)
        return err_set(e, ERR_INVALID, "TLS needs both --ssl-certfile and --ssl-keyfile");
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return err_set(e, ERR_UNSUPPORTED, "this libmicrohttpd was built without TLS");
    h->tls = mem_try_zalloc(1, sizeof *h->tls);
    if (!h->tls)
        return err_set(e, ERR_NOMEM, "out of memory");
    h->tls->o = h->o.tls;
    pthread_mutex_init(&h->tls->lock, NULL);
    return load(h, e);
}

void http_tls_close(struct http *h)
{
    struct http_tls *t = h->tls;
    if (!t)
        return;
    h->tls = NULL;
    creds_unref(t->now);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

bool http_tls_changed(const struct http *h)
{
    struct stat now[3];
    if (!h->tls)
        return false;
    look(h->tls, now);
    for (int i = 0; i < 3; i++)
        if (now[i].st_size > 0 && (now[i].st_ino != h->tls->seen[i].st_ino || now[i].st_size != h->tls->seen[i].st_size ||
                                   now[i].st_mtim.tv_sec != h->tls->seen[i].st_mtim.tv_sec || now[i].st_mtim.tv_nsec != h->tls->seen[i].st_mtim.tv_nsec))
            return true;
    return false;
}

bool http_tls_reload(struct http *h, struct err *e) { return !h->tls || load(h, e); }

int64_t http_tls_expires_s(struct http *h)
{
    if (!h->tls)
        return 0;
    pthread_mutex_lock(&h->tls->lock);
    int64_t s = h->tls->now->expires_s;
    pthread_mutex_unlock(&h->tls->lock);
    return s;
}

/* ---- connections ---- */

int http_tls_no_certificate(gnutls_session_t session, const gnutls_datum_t *ca, int n_ca, const gnutls_pk_algorithm_t *pk, int n_pk,
                            gnutls_pcert_st **cert, unsigned *n_cert, gnutls_privkey_t *key)
{
    (void)session; (void)ca; (void)n_ca; (void)pk; (void)n_pk; (void)cert; (void)n_cert; (void)key;
    return -1;
}

void http_tls_begin(struct http *h, struct MHD_Connection *conn, void **socket_context)
{
    struct http_tls *t = h->tls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    gnutls_session_t session = info ? info->tls_session : NULL;
    if (!session)
        return;
    pthread_mutex_lock(&t->lock);
    struct tls_creds *c = t->now;
    atomic_fetch_add(&c->refs, 1);
    pthread_mutex_unlock(&t->lock);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, c->cred);
    if (t->o.client_certs != HTTP_TLS_CLIENT_NONE)
        gnutls_certificate_server_set_request(session, t->o.client_certs == HTTP_TLS_CLIENT_REQUIRED ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_REQUEST);
    *socket_context = c;
}

void http_tls_end(void *socket_context) { creds_unref(socket_context); }
