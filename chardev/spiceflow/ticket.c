/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SPICE ticket.
 *
 * QEMU's own crypto layer has no OAEP padding and makes no RSA keys, so this
 * uses libgcrypt.  One key pair serves every link of a server: it protects a
 * password on its way, and a fresh one for each channel would only cost time.
 * Whoever needs more than 1024 bits of RSA uses TLS, which wraps all of it.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "ticket.h"

#include <gcrypt.h>

#define MODULUS_SIZE        (SPICE_TICKET_KEY_PAIR_LENGTH / 8)

struct SFTicketKey {
    gcry_sexp_t secret;
    uint8_t public[SPICE_FLOW_PUBKEY_SIZE];
};

/*
 * SubjectPublicKeyInfo around a modulus of 1024 bits with the top bit set and
 * the exponent 65537: with these two fixed, every length in it is too.
 */
static const uint8_t spki_head[] = {
    0x30, 0x81, 0x9f,                       /* SEQUENCE */
    0x30, 0x0d,                             /*   SEQUENCE */
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,     /*     rsaEncryption */
    0xf7, 0x0d, 0x01, 0x01, 0x01,
    0x05, 0x00,                             /*     NULL */
    0x03, 0x81, 0x8d, 0x00,                 /*   BIT STRING */
    0x30, 0x81, 0x89,                       /*     SEQUENCE */
    0x02, 0x81, 0x81, 0x00,                 /*       INTEGER: modulus */
};
static const uint8_t spki_tail[] = {
    0x02, 0x03, 0x01, 0x00, 0x01,           /*       INTEGER: 65537 */
};
QEMU_BUILD_BUG_ON(sizeof(spki_head) + MODULUS_SIZE + sizeof(spki_tail) !=
                  SPICE_FLOW_PUBKEY_SIZE);

static bool gcrypt_error(Error **errp, gcry_error_t rc)
{
    error_setg(errp, "cannot make the key for SPICE passwords: %s",
               gcry_strerror(rc));
    return false;
}

/* libgcrypt wants to be initialised once by whoever uses it first. */
static bool gcrypt_ready(Error **errp)
{
    if (!gcry_check_version(GCRYPT_VERSION)) {
        error_setg(errp, "libgcrypt is older than %s, which this was built "
                   "with", GCRYPT_VERSION);
        return false;
    }
    if (!gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) {
        gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
        gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    }
    return true;
}

static bool public_encode(SFTicketKey *key, gcry_sexp_t pair, Error **errp)
{
    gcry_mpi_t n = NULL, e = NULL;
    uint8_t *p = key->public;
    unsigned exponent = 0;
    gcry_error_t rc;
    bool ok;

    rc = gcry_sexp_extract_param(pair, "public-key!rsa", "ne", &n, &e, NULL);
    if (rc) {
        return gcrypt_error(errp, rc);
    }
    ok = gcry_mpi_get_nbits(n) == SPICE_TICKET_KEY_PAIR_LENGTH &&
         !gcry_mpi_get_ui(&exponent, e) && exponent == 65537;
    if (ok) {
        p = mempcpy(p, spki_head, sizeof(spki_head));
        ok = !gcry_mpi_print(GCRYMPI_FMT_USG, p, MODULUS_SIZE, NULL, n);
        memcpy(p + MODULUS_SIZE, spki_tail, sizeof(spki_tail));
    }
    gcry_mpi_release(n);
    gcry_mpi_release(e);
    if (!ok) {
        error_setg(errp, "libgcrypt made a key for SPICE passwords that is "
                   "not RSA-%d with exponent 65537",
                   SPICE_TICKET_KEY_PAIR_LENGTH);
    }
    return ok;
}

SFTicketKey *sf_ticket_key_new(Error **errp)
{
    g_autofree SFTicketKey *key = g_new0(SFTicketKey, 1);
    gcry_sexp_t params, pair;
    gcry_error_t rc;
    bool ok;

    if (!gcrypt_ready(errp)) {
        return NULL;
    }
    /* In the form of libgcrypt, the number has its own length in front. */
    rc = gcry_sexp_build(&params, NULL,
                         "(genkey (rsa (nbits %d) (rsa-use-e 5:65537)"
                         "(flags transient-key)))",
                         SPICE_TICKET_KEY_PAIR_LENGTH);
    if (rc) {
        gcrypt_error(errp, rc);
        return NULL;
    }
    rc = gcry_pk_genkey(&pair, params);
    gcry_sexp_release(params);
    if (rc) {
        gcrypt_error(errp, rc);
        return NULL;
    }
    ok = public_encode(key, pair, errp);
    key->secret = gcry_sexp_find_token(pair, "private-key", 0);
    gcry_sexp_release(pair);
    if (!ok) {
        gcry_sexp_release(key->secret);
        return NULL;
    }
    return g_steal_pointer(&key);
}

void sf_ticket_key_free(SFTicketKey *key)
{
    if (key) {
        gcry_sexp_release(key->secret);
        g_free(key);
    }
}

const uint8_t *sf_ticket_key_public(const SFTicketKey *key)
{
    return key->public;
}

/* Compares all of both, whatever differs first. */
static bool same_bytes(const uint8_t *a, size_t a_len, const uint8_t *b,
                       size_t b_len)
{
    uint8_t pad_a[MODULUS_SIZE] = { 0 }, pad_b[MODULUS_SIZE] = { 0 };
    unsigned diff = a_len ^ b_len;

    memcpy(pad_a, a, MIN(a_len, sizeof(pad_a)));
    memcpy(pad_b, b, MIN(b_len, sizeof(pad_b)));
    for (size_t i = 0; i < sizeof(pad_a); i++) {
        diff |= pad_a[i] ^ pad_b[i];
    }
    return diff == 0;
}

bool sf_ticket_check(const SFTicketKey *key, const uint8_t *ticket,
                     const char *password)
{
    gcry_sexp_t data = NULL, plain = NULL, value = NULL;
    const char *bytes = NULL;
    size_t len = 0;
    bool ok = false;

    if (!gcry_sexp_build(&data, NULL, "(enc-val (flags oaep) (hash-algo sha1)"
                         "(rsa (a %b)))", SPICE_FLOW_TICKET_SIZE,
                         (const char *)ticket) &&
        !gcry_pk_decrypt(&plain, data, key->secret)) {
        value = gcry_sexp_find_token(plain, "value", 0);
        bytes = value ? gcry_sexp_nth_data(value, 1, &len) : NULL;
        ok = bytes && same_bytes((const uint8_t *)bytes, len,
                                 (const uint8_t *)password,
                                 strlen(password) + 1);
    }
    gcry_sexp_release(value);
    gcry_sexp_release(plain);
    gcry_sexp_release(data);
    return ok;
}
