/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bodies of COMPRESSED_DATA messages.
 *
 * The size that a body claims is checked before anything is allocated for it,
 * and what comes out must have that size exactly.
 */
#include "qemu/osdep.h"
#include "compress.h"

#include <lz4.h>

#define BODY_HEAD           5       /* type and uncompressed size */

GByteArray *sf_compress(const uint8_t *data, size_t len)
{
    GByteArray *body;
    int n;

    if (len <= BODY_HEAD || len > SF_UNCOMPRESSED_MAX) {
        return NULL;
    }
    body = g_byte_array_new();
    g_byte_array_set_size(body, len);
    body->data[0] = SPICE_DATA_COMPRESSION_TYPE_LZ4;
    spice_flow_put_u32(body->data + 1, len);
    /* With less room than the data has it gives up, instead of growing. */
    n = LZ4_compress_default((const char *)data,
                             (char *)body->data + BODY_HEAD, len,
                             len - BODY_HEAD);
    if (n <= 0) {
        g_byte_array_unref(body);
        return NULL;
    }
    g_byte_array_set_size(body, BODY_HEAD + n);
    return body;
}

GByteArray *sf_uncompress(const uint8_t *body, size_t len, const char **why)
{
    GByteArray *data;
    uint32_t size;

    if (len < BODY_HEAD || body[0] != SPICE_DATA_COMPRESSION_TYPE_LZ4) {
        *why = "compressed data of an unknown kind";
        return NULL;
    }
    size = spice_flow_get_u32(body + 1);
    if (size == 0 || size > SF_UNCOMPRESSED_MAX) {
        *why = "compressed data that claims an impossible size";
        return NULL;
    }
    data = g_byte_array_new();
    g_byte_array_set_size(data, size);
    if (LZ4_decompress_safe((const char *)body + BODY_HEAD, (char *)data->data,
                            len - BODY_HEAD, size) != size) {
        *why = "compressed data that does not unpack to its size";
        g_byte_array_unref(data);
        return NULL;
    }
    return data;
}
