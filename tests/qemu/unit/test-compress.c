/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bodies of COMPRESSED_DATA messages: there and back, and every kind of body
 * that lies (D3).
 */
#include "qemu/osdep.h"
#include "compress.h"

/* Bytes that LZ4 shrinks, but not to nothing. */
static uint8_t *wordy(size_t len)
{
    uint8_t *data = g_malloc(len);

    for (size_t i = 0; i < len; i++) {
        data[i] = i % 37 ? "the quick brown fox "[i % 20] : g_test_rand_int();
    }
    return data;
}

static GByteArray *unpack(const uint8_t *body, size_t len)
{
    /* with nothing behind it, so that a look beyond is seen */
    g_autofree uint8_t *exact = g_memdup2(body, len);
    const char *why = NULL;
    GByteArray *data = sf_uncompress(exact, len, &why);

    g_assert_true((data == NULL) == (why != NULL));
    return data;
}

static void test_there_and_back(void)
{
    static const size_t sizes[] = {
        SF_COMPRESS_MIN, SF_COMPRESS_MIN + 1, 5000, 65535, 65536, 65537,
        1024 * 1024, SF_UNCOMPRESSED_MAX
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree uint8_t *data = wordy(sizes[i]);
        g_autoptr(GByteArray) body = sf_compress(data, sizes[i]);
        g_autoptr(GByteArray) back = NULL;

        g_assert_nonnull(body);
        g_assert_cmpuint(body->len, <, sizes[i]);
        g_assert_cmpuint(body->data[0], ==, SPICE_DATA_COMPRESSION_TYPE_LZ4);
        g_assert_cmpuint(spice_flow_get_u32(body->data + 1), ==, sizes[i]);
        back = unpack(body->data, body->len);
        g_assert_nonnull(back);
        g_assert_cmpmem(back->data, back->len, data, sizes[i]);
    }
}

/* What does not shrink, or is too much for one message, stays as it is. */
static void test_not_worth_it(void)
{
    g_autofree uint8_t *noise = g_malloc(65536);
    g_autofree uint8_t *zeros = g_malloc0(SF_UNCOMPRESSED_MAX + 1);

    for (unsigned i = 0; i < 65536; i++) {
        noise[i] = g_test_rand_int();
    }
    g_assert_null(sf_compress(noise, 65536));
    g_assert_null(sf_compress(noise, 1));
    g_assert_null(sf_compress(noise, 0));
    g_assert_null(sf_compress(zeros, SF_UNCOMPRESSED_MAX + 1));
}

/* The size that a body claims is the one it must have. */
static void test_d3_sizes(void)
{
    static const uint32_t wrong[] = {
        0, 1, 1999, 2001, 65536, SF_UNCOMPRESSED_MAX, SF_UNCOMPRESSED_MAX + 1,
        1000000000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff
    };
    g_autofree uint8_t *data = wordy(2000);
    g_autoptr(GByteArray) body = sf_compress(data, 2000);

    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        spice_flow_put_u32(body->data + 1, wrong[i]);
        g_assert_null(unpack(body->data, body->len));
    }
}

static void test_d3_types(void)
{
    g_autofree uint8_t *data = wordy(2000);
    g_autoptr(GByteArray) body = sf_compress(data, 2000);

    for (unsigned type = 0; type < 256; type++) {
        g_autoptr(GByteArray) back = NULL;

        body->data[0] = type;
        back = unpack(body->data, body->len);
        g_assert_true((back != NULL) ==
                      (type == SPICE_DATA_COMPRESSION_TYPE_LZ4));
    }
}

/*
 * Cut off anywhere, and with any byte changed, it is refused or unpacks to
 * the size it claims; nothing beyond is touched.
 */
static void test_d3_damaged(void)
{
    g_autofree uint8_t *data = wordy(2000);
    g_autoptr(GByteArray) body = sf_compress(data, 2000);

    for (size_t len = 0; len < body->len; len++) {
        g_assert_null(unpack(body->data, len));
    }
    for (size_t i = 5; i < body->len; i++) {
        uint8_t saved = body->data[i];

        for (unsigned value = 0; value < 256; value += 15) {
            g_autoptr(GByteArray) back = NULL;

            body->data[i] = value;
            back = unpack(body->data, body->len);
            g_assert_true(!back || back->len == 2000);
        }
        body->data[i] = saved;
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/spiceflow/compress/there-and-back", test_there_and_back);
    g_test_add_func("/spiceflow/compress/not-worth-it", test_not_worth_it);
    g_test_add_func("/spiceflow/compress/d3-sizes", test_d3_sizes);
    g_test_add_func("/spiceflow/compress/d3-types", test_d3_types);
    g_test_add_func("/spiceflow/compress/d3-damaged", test_d3_damaged);
    return g_test_run();
}
