/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes in tests: out of hexadecimal text, and into a fuzzer's corpus.
 */
#ifndef TESTS_UNIT_BYTES_H
#define TESTS_UNIT_BYTES_H

#include <glib.h>
#include <stdint.h>

static inline GByteArray *bytes_of(const char *hex)
{
    GByteArray *bytes = g_byte_array_new();
    int nibble = -1;

    for (; *hex; hex++) {
        int digit = g_ascii_xdigit_value(*hex);
        uint8_t byte;

        if (*hex == ' ') {
            continue;
        }
        g_assert_cmpint(digit, >=, 0);
        if (nibble < 0) {
            nibble = digit;
            continue;
        }
        byte = nibble << 4 | digit;
        g_byte_array_append(bytes, &byte, 1);
        nibble = -1;
    }
    g_assert_cmpint(nibble, ==, -1);
    return bytes;
}

/* A file of a corpus, with the name of the test that its bytes are from. */
static inline void corpus_write(const char *folder, const char *name,
                                const GByteArray *bytes)
{
    g_autofree char *file = g_strdelimit(g_strdup(name), "/", '-');
    g_autofree char *path = g_build_filename(folder, file, NULL);
    g_autoptr(GError) error = NULL;

    if (!g_file_set_contents(path, (const char *)bytes->data, bytes->len,
                             &error)) {
        g_error("%s", error->message);
    }
}

#endif
