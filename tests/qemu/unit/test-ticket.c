/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SPICE ticket: a key, its public half as clients get it, and what is
 * encrypted with that.
 *
 * The client's side is done here with libgcrypt from the bytes of the public
 * key alone, so that their layout is tested too.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "chardev/spiceflow/wire.h"
#include "ticket.h"

#include <gcrypt.h>

/* Offset of the modulus in a SubjectPublicKeyInfo for RSA-1024. */
#define MODULUS_AT      29
#define MODULUS_SIZE    128

static SFTicketKey *key;

/* What a client sends for these bytes. */
static void encrypt(const void *plain, size_t len, const char *flags,
                    uint8_t *ticket)
{
    const uint8_t *spki = sf_ticket_key_public(key);
    g_autofree char *format = g_strdup_printf(
        "(data (flags %s) (value %%b))", flags);
    gcry_sexp_t public, data, result;
    gcry_mpi_t number;
    size_t n;

    g_assert_cmpint(gcry_sexp_build(&public, NULL, "(public-key (rsa (n %b)"
                                    "(e %b)))", MODULUS_SIZE + 1,
                                    spki + MODULUS_AT - 1, 3,
                                    spki + SPICE_FLOW_PUBKEY_SIZE - 3), ==, 0);
    g_assert_cmpint(gcry_sexp_build(&data, NULL, format, (int)len, plain),
                    ==, 0);
    g_assert_cmpint(gcry_pk_encrypt(&result, data, public), ==, 0);
    g_assert_cmpint(gcry_sexp_extract_param(result, "enc-val!rsa", "a",
                                            &number, NULL), ==, 0);
    /* the number has no leading zeros, the ticket has */
    memset(ticket, 0, SPICE_FLOW_TICKET_SIZE);
    n = (gcry_mpi_get_nbits(number) + 7) / 8;
    g_assert_cmpint(gcry_mpi_print(GCRYMPI_FMT_USG,
                                   ticket + SPICE_FLOW_TICKET_SIZE - n, n,
                                   NULL, number), ==, 0);
    gcry_mpi_release(number);
    gcry_sexp_release(result);
    gcry_sexp_release(data);
    gcry_sexp_release(public);
}

static bool check(const void *plain, size_t len, const char *password)
{
    uint8_t ticket[SPICE_FLOW_TICKET_SIZE];

    encrypt(plain, len, "oaep", ticket);
    return sf_ticket_check(key, ticket, password);
}

/* The bytes around the modulus are those of openssl's encoder. */
static void test_public_key(void)
{
    static const uint8_t head[MODULUS_AT] = {
        0x30, 0x81, 0x9f, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48,
        0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x03, 0x81,
        0x8d, 0x00, 0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00
    };
    static const uint8_t tail[] = { 0x02, 0x03, 0x01, 0x00, 0x01 };
    const uint8_t *spki = sf_ticket_key_public(key);

    g_assert_cmpmem(spki, sizeof(head), head, sizeof(head));
    g_assert_cmpmem(spki + MODULUS_AT + MODULUS_SIZE,
                    SPICE_FLOW_PUBKEY_SIZE - MODULUS_AT - MODULUS_SIZE,
                    tail, sizeof(tail));
    g_assert_true(spki[MODULUS_AT] & 0x80);
    g_assert_true(spki[MODULUS_AT + MODULUS_SIZE - 1] & 1);
}

static void test_keys_differ(void)
{
    SFTicketKey *other = sf_ticket_key_new(&error_abort);
    uint8_t ticket[SPICE_FLOW_TICKET_SIZE];

    g_assert_cmpint(memcmp(sf_ticket_key_public(key),
                           sf_ticket_key_public(other),
                           SPICE_FLOW_PUBKEY_SIZE), !=, 0);
    encrypt("secret", 7, "oaep", ticket);
    g_assert_true(sf_ticket_check(key, ticket, "secret"));
    g_assert_false(sf_ticket_check(other, ticket, "secret"));
    sf_ticket_key_free(other);
}

static void test_passwords(void)
{
    g_assert_true(check("secret", 7, "secret"));
    g_assert_true(check("", 1, ""));
    g_assert_false(check("secreT", 7, "secret"));
    g_assert_false(check("secre", 6, "secret"));
    g_assert_false(check("secrets", 8, "secret"));
    g_assert_false(check("", 1, "secret"));
    g_assert_false(check("secret", 7, ""));
    /* without its NUL it is not the password */
    g_assert_false(check("secret", 6, "secret"));
    g_assert_false(check("s", 1, ""));
}

/* D17: 60 characters, each of which counts. */
static void test_d17_longest(void)
{
    char password[SF_PASSWORD_MAX + 1];

    for (unsigned i = 0; i < SF_PASSWORD_MAX; i++) {
        password[i] = 'A' + i;
    }
    password[SF_PASSWORD_MAX] = 0;
    g_assert_cmpuint(SF_PASSWORD_MAX, ==, 60);
    g_assert_true(check(password, sizeof(password), password));
    for (unsigned i = 0; i < sizeof(password); i++) {
        char wrong[sizeof(password)];

        memcpy(wrong, password, sizeof(wrong));
        wrong[i] ^= 0x20;
        g_assert_false(check(wrong, sizeof(wrong), password));
    }
}

/* D35: what stands behind a NUL counts too. */
static void test_d35_behind_the_nul(void)
{
    uint8_t most[86] = "secret";

    g_assert_false(check("secret\0x", 8, "secret"));
    g_assert_false(check("secret\0", 8, "secret"));
    g_assert_false(check("secret\0secret", 14, "secret"));
    /* as much as fits: 128 bytes less the padding's 42 */
    g_assert_false(check(most, sizeof(most), "secret"));
}

/* Whatever 128 bytes come: an answer, and it is no. */
static void test_garbage(void)
{
    uint8_t ticket[SPICE_FLOW_TICKET_SIZE];

    memset(ticket, 0, sizeof(ticket));
    g_assert_false(sf_ticket_check(key, ticket, ""));
    ticket[sizeof(ticket) - 1] = 1;
    g_assert_false(sf_ticket_check(key, ticket, ""));
    memset(ticket, 0xff, sizeof(ticket));
    g_assert_false(sf_ticket_check(key, ticket, ""));
    memcpy(ticket, sf_ticket_key_public(key) + MODULUS_AT, MODULUS_SIZE);
    g_assert_false(sf_ticket_check(key, ticket, ""));
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned j = 0; j < sizeof(ticket); j++) {
            ticket[j] = g_test_rand_int();
        }
        g_assert_false(sf_ticket_check(key, ticket, "secret"));
    }
    encrypt("secret", 7, "pkcs1", ticket);
    g_assert_false(sf_ticket_check(key, ticket, "secret"));
    encrypt("secret", 7, "oaep", ticket);
    g_assert_true(sf_ticket_check(key, ticket, "secret"));
    for (unsigned i = 0; i < sizeof(ticket) * 8; i += 5) {
        ticket[i / 8] ^= 1 << i % 8;
        g_assert_false(sf_ticket_check(key, ticket, "secret"));
        ticket[i / 8] ^= 1 << i % 8;
    }
}

/* A ticket that begins with zeros is one in 256. */
static void test_many(void)
{
    for (unsigned i = 0; i < 600; i++) {
        g_assert_true(check("secret", 7, "secret"));
    }
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    key = sf_ticket_key_new(&error_abort);
    g_test_add_func("/spiceflow/ticket/public-key", test_public_key);
    g_test_add_func("/spiceflow/ticket/keys-differ", test_keys_differ);
    g_test_add_func("/spiceflow/ticket/passwords", test_passwords);
    g_test_add_func("/spiceflow/ticket/d17-longest", test_d17_longest);
    g_test_add_func("/spiceflow/ticket/d35-behind-the-nul",
                    test_d35_behind_the_nul);
    g_test_add_func("/spiceflow/ticket/garbage", test_garbage);
    g_test_add_func("/spiceflow/ticket/many", test_many);
    ret = g_test_run();
    sf_ticket_key_free(key);
    return ret;
}
