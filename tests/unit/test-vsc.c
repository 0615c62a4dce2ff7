/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Smart-card (VSC) messages.
 *
 * Most cases are scripts, one line per step:
 *
 *   > HEX               these bytes come
 *   < TYPE READER HEX   this message must be the next that they make
 *   = HEX               and these bytes are it for the other side
 *   ! TYPE READER LEN   a message of LEN bytes of payload must be refused next
 *   .                   nothing more, and the stream is at a message's border
 *   ~                   nothing more yet, and the stream is inside a message
 *
 * A script is played as written, then its bytes are fed in every way of
 * cutting them once, one by one, all at once, and with the parser saved and
 * restored at every byte; what comes out must be the same each time.
 */
#include "chardev/spiceflow/vsc.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"

typedef struct Script {
    const char *name;
    SpiceFlowVscOrder order;
    const char *steps[24];
} Script;

static const Script scripts[] = {
    /* each type once, little-endian */
    { "/vsc/wire/init", SPICE_FLOW_VSC_WIRE, {
        "> 01000000 ffffffff 0c000000 44435356 02000000 00000000",
        "< Init 4294967295 44435356 02000000 00000000",
        "= 00000001 ffffffff 0000000c 44435356 02000000 00000000",
        "." } },
    { "/vsc/wire/error", SPICE_FLOW_VSC_WIRE, {
        "> 02000000 03000000 04000000 00000001",
        "< Error 3 00000001",
        "= 00000002 00000003 00000004 00000001",
        "." } },
    { "/vsc/wire/reader-add", SPICE_FLOW_VSC_WIRE, {
        "> 03000000 00000000 05000000 6e616d6500",
        "< ReaderAdd 0 6e616d6500",
        "= 00000003 00000000 00000000",
        "." } },
    { "/vsc/wire/reader-remove", SPICE_FLOW_VSC_WIRE, {
        "> 04000000 01000000 00000000",
        "< ReaderRemove 1",
        "= 00000004 00000001 00000000",
        "." } },
    { "/vsc/wire/atr", SPICE_FLOW_VSC_WIRE, {
        "> 05000000 00000000 04000000 3bd518ff",
        "< ATR 0 3bd518ff",
        "= 00000005 00000000 00000004 3bd518ff",
        "." } },
    { "/vsc/wire/card-remove", SPICE_FLOW_VSC_WIRE, {
        "> 06000000 02000000 00000000",
        "< CardRemove 2",
        "= 00000006 00000002 00000000",
        "." } },
    { "/vsc/wire/apdu", SPICE_FLOW_VSC_WIRE, {
        "> 07000000 01000000 02000000 9000",
        "< APDU 1 9000",
        "= 00000007 00000001 00000002 9000",
        "." } },
    { "/vsc/wire/flush-complete", SPICE_FLOW_VSC_WIRE, {
        "> 09000000 00000000 00000000",
        "< FlushComplete 0",
        "= 00000009 00000000 00000000",
        "." } },
    { "/vsc/device/flush", SPICE_FLOW_VSC_DEVICE, {
        "> 00000008 00000000 00000000",
        "< Flush 0",
        "= 08000000 00000000 00000000",
        "." } },
    { "/vsc/device/apdu", SPICE_FLOW_VSC_DEVICE, {
        "> 00000007 0000abcd 00000005 00a4040000",
        "< APDU 43981 00a4040000",
        "= 07000000 cdab0000 05000000 00a4040000",
        "." } },

    /* the list of spice-server's smartcard test */
    { "/vsc/upstream/init-split", SPICE_FLOW_VSC_WIRE, {
        "> 01000000 ffff",
        "~",
        "> ffff 0c000000 44435356 02",
        "~",
        "> 000000 00000000",
        "< Init 4294967295 44435356 02000000 00000000",
        "." } },
    { "/vsc/upstream/client-to-device-in-order", SPICE_FLOW_VSC_WIRE, {
        "> 03000000 00000000 04000000 74657374",
        "< ReaderAdd 0 74657374",
        "= 00000003 00000000 00000000",
        "> 07000000 00000000 03000000 666f6f",
        "< APDU 0 666f6f",
        "= 00000007 00000000 00000003 666f6f",
        "> 04000000 00000000 00000000",
        "< ReaderRemove 0",
        "= 00000004 00000000 00000000",
        "." } },
    { "/vsc/upstream/device-coalesced", SPICE_FLOW_VSC_DEVICE, {
        "> 00000007 00000000 0000",
        "~",
        "> 0003 68656c 00000007 00000000 00000002 6c",
        "< APDU 0 68656c",
        "= 07000000 00000000 03000000 68656c",
        "~",
        "> 6f",
        "< APDU 0 6c6f",
        "= 07000000 00000000 02000000 6c6f",
        "." } },
    { "/vsc/upstream/remove-unknown-reader", SPICE_FLOW_VSC_WIRE, {
        "> 04000000 05000000 00000000 04000000 05010000 00000000",
        "< ReaderRemove 5",
        "< ReaderRemove 261",
        "." } },
    { "/vsc/upstream/unknown-type-goes-on", SPICE_FLOW_VSC_WIRE, {
        "> 85000000 00000000 02000000 abcd 07000000 00000000 00000000",
        "< unknown 0 abcd",
        "= 00000085 00000000 00000002 abcd",
        "< APDU 0",
        "." } },
    { "/vsc/upstream/device-error-unchanged", SPICE_FLOW_VSC_DEVICE, {
        "> 00000002 00000000 00000004 00000003",
        "< Error 0 00000003",
        "= 02000000 00000000 04000000 00000003",
        "." } },
    { "/vsc/upstream/apdu-of-no-reader", SPICE_FLOW_VSC_WIRE, {
        "> 07000000 cdab0000 00000000",
        "< APDU 43981",
        "." } },

    /* QEMU's device writes header and payload one after the other */
    { "/vsc/device/header-then-payload", SPICE_FLOW_VSC_DEVICE, {
        "> 00000001 ffffffff 0000000c",
        "~",
        "> 00000002 44435356 00000000",
        "< Init 4294967295 00000002 44435356 00000000",
        "." } },

    /* 2012: data of the next message counted as the rest of this one */
    { "/vsc/remaining-data-size", SPICE_FLOW_VSC_DEVICE, {
        "> 00000007 00000000 00000004 01020304 00000007 00000000 00000002 05",
        "< APDU 0 01020304",
        "~",
        "> 06 00000006 00000000 00000000 00000007 00",
        "< APDU 0 0506",
        "< CardRemove 0",
        "~",
        "> 0000 01 00000001 07",
        "< APDU 1 07",
        "." } },
    { "/vsc/four-at-once", SPICE_FLOW_VSC_WIRE, {
        "> 06000000 00000000 00000000 07000000 00000000 01000000 aa"
        "  06000000 01000000 00000000 07000000 01000000 01000000 bb",
        "< CardRemove 0",
        "< APDU 0 aa",
        "< CardRemove 1",
        "< APDU 1 bb",
        "." } },

    /* nothing comes of nothing */
    { "/vsc/empty", SPICE_FLOW_VSC_WIRE, {
        ">",
        ".",
        "> 07",
        "~",
        ">",
        "~" } },
    { "/vsc/unfinished-header", SPICE_FLOW_VSC_WIRE, {
        "> 07000000 00000000 000000",
        "~" } },
    { "/vsc/unfinished-payload", SPICE_FLOW_VSC_WIRE, {
        "> 07000000 00000000 02000000 90",
        "~" } },

    /* unknown types, the lowest and the highest */
    { "/vsc/type-0", SPICE_FLOW_VSC_WIRE, {
        "> 00000000 00000000 00000000 0a000000 00000000 00000000",
        "< unknown 0",
        "< unknown 0",
        "." } },
    { "/vsc/type-max", SPICE_FLOW_VSC_DEVICE, {
        "> ffffffff ffffffff 00000000",
        "< unknown 4294967295",
        "." } },

    /* D34: over 65,536 bytes with the header, refused, and skipped */
    { "/vsc/D34/65525", SPICE_FLOW_VSC_WIRE, {
        "> 07000000 00000000 f5ff0000 00112233",
        "! APDU 0 65525",
        "~" } },
    { "/vsc/D34/65525-device", SPICE_FLOW_VSC_DEVICE, {
        "> 00000007 00000001 0000fff5",
        "! APDU 1 65525",
        "~" } },
    { "/vsc/D34/4-gib", SPICE_FLOW_VSC_WIRE, {
        "> 05000000 02000000 ffffffff 07000000 00000000 02000000 9000",
        "! ATR 2 4294967295",
        "~" } },
    { "/vsc/D34/sign-bit", SPICE_FLOW_VSC_WIRE, {
        "> 05000000 02000000 00000080",
        "! ATR 2 2147483648",
        "~" } },
};

static void append_hex(GString *out, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        g_string_append_printf(out, "%02x", data[i]);
    }
}

static void append_message(GString *out, const SpiceFlowVscMessage *msg)
{
    g_string_append_printf(out, "< %s %u ",
                           spice_flow_vsc_type_name(msg->type),
                           msg->reader_id);
    append_hex(out, msg->payload, msg->length);
}

static SpiceFlowVscOrder other_side(SpiceFlowVscOrder order)
{
    return order == SPICE_FLOW_VSC_WIRE ? SPICE_FLOW_VSC_DEVICE
                                        : SPICE_FLOW_VSC_WIRE;
}

/* What goes to the other side for @msg: names of readers are left out. */
static char *converted(const SpiceFlowVscMessage *msg, SpiceFlowVscOrder order)
{
    g_autoptr(GString) out = g_string_new("= ");
    uint8_t header[SPICE_FLOW_VSC_HEADER_SIZE];

    switch (msg->type) {
    case SPICE_FLOW_VSC_READER_ADD:
        spice_flow_vsc_put_reader_add(header, order, msg->reader_id);
        append_hex(out, header, sizeof(header));
        break;
    case SPICE_FLOW_VSC_READER_REMOVE:
        spice_flow_vsc_put_reader_remove(header, order, msg->reader_id);
        append_hex(out, header, sizeof(header));
        break;
    default:
        spice_flow_vsc_put_header(header, order, msg->type, msg->reader_id,
                                  msg->length);
        append_hex(out, header, sizeof(header));
        append_hex(out, msg->payload, msg->length);
    }
    return g_strdup(out->str);
}

/*
 * Feeds @len bytes and appends a line for each result to @lines: messages,
 * with what they become for the other side if @convert, and refusals.  The
 * bytes are a block of their own, gone before the results are compared, so
 * that a parser that kept a pointer into them is found out.
 */
static void feed(SpiceFlowVsc *vsc, SpiceFlowVscOrder order, bool convert,
                 const uint8_t *data, size_t len, GPtrArray *lines)
{
    g_autofree uint8_t *copy = g_malloc(MAX(len, 1));
    size_t pos = 0;

    memcpy(copy, len ? data : (const uint8_t *)"", len);
    for (;;) {
        SpiceFlowVscMessage msg = { .type = 0 };
        g_autoptr(GString) line = g_string_new(NULL);
        size_t used = SIZE_MAX;

        switch (spice_flow_vsc_feed(vsc, copy + pos, len - pos, &used, &msg)) {
        case SPICE_FLOW_VSC_MORE:
            g_assert_cmpuint(used, ==, len - pos);
            return;
        case SPICE_FLOW_VSC_MESSAGE:
            append_message(line, &msg);
            g_ptr_array_add(lines, g_strdup(line->str));
            if (convert) {
                g_ptr_array_add(lines, converted(&msg, other_side(order)));
            }
            break;
        case SPICE_FLOW_VSC_TOO_LONG:
            g_assert_null(msg.payload);
            g_string_printf(line, "! %s %u %u",
                            spice_flow_vsc_type_name(msg.type), msg.reader_id,
                            msg.length);
            g_ptr_array_add(lines, g_strdup(line->str));
            break;
        }
        g_assert_cmpuint(used, >, 0);
        g_assert_cmpuint(used, <=, len - pos);
        pos += used;
    }
}

/* The step as feed() would print it: no blanks inside hexadecimal. */
static char *normal(const char *step)
{
    unsigned words = step[0] == '<' ? 3 : step[0] == '=' ? 1 : 4;
    g_auto(GStrv) word = g_strsplit(step, " ", words + 1);
    g_autoptr(GString) out = g_string_new(NULL);

    for (unsigned i = 0; i < words; i++) {
        g_string_append(out, word[i]);
        if (i < words - 1 || step[0] != '!') {
            g_string_append_c(out, ' ');
        }
    }
    for (const char *c = g_strv_length(word) > words ? word[words] : ""; *c;
         c++) {
        if (*c != ' ') {
            g_string_append_c(out, *c);
        }
    }
    return g_strdup(out->str);
}

static void take_line(GPtrArray *lines, const char *step)
{
    g_autofree char *want = normal(step);

    g_assert_cmpuint(lines->len, >, 0);
    /* a script may leave out what a message becomes */
    if (step[0] != '=' && ((char *)lines->pdata[0])[0] == '=') {
        g_ptr_array_remove_index(lines, 0);
        g_assert_cmpuint(lines->len, >, 0);
    }
    g_assert_cmpstr(lines->pdata[0], ==, want);
    g_ptr_array_remove_index(lines, 0);
}

static void no_more_lines(GPtrArray *lines)
{
    if (lines->len == 1 && ((char *)lines->pdata[0])[0] == '=') {
        g_ptr_array_remove_index(lines, 0);
    }
    g_assert_cmpuint(lines->len, ==, 0);
}

/* As written; fills the bytes of the whole script. */
static void play(const Script *script, GByteArray *all)
{
    g_autoptr(SpiceFlowVsc) vsc = spice_flow_vsc_new(script->order);
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);

    for (unsigned i = 0; script->steps[i]; i++) {
        const char *step = script->steps[i];

        if (step[0] == '>') {
            g_autoptr(GByteArray) bytes = bytes_of(step + 1);

            no_more_lines(lines);
            feed(vsc, script->order, true, bytes->data, bytes->len, lines);
            g_byte_array_append(all, bytes->data, bytes->len);
        } else if (step[0] == '.' || step[0] == '~') {
            no_more_lines(lines);
            g_assert_cmpint(spice_flow_vsc_partial(vsc), ==, step[0] == '~');
        } else {
            take_line(lines, step);
        }
    }
    no_more_lines(lines);
}

static char *join(GPtrArray *lines)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (unsigned i = 0; i < lines->len; i++) {
        g_string_append_printf(out, "%s\n", (char *)lines->pdata[i]);
    }
    return g_strdup(out->str);
}

/*
 * In pieces of @step bytes, the first of @first; saved and restored between
 * them if @reload.
 */
static char *in_pieces(SpiceFlowVscOrder order, const GByteArray *all,
                       size_t first, size_t step, bool reload)
{
    SpiceFlowVsc *vsc = spice_flow_vsc_new(order);
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    size_t pos = 0;
    size_t n = MIN(first, all->len);

    for (;;) {
        feed(vsc, order, false, all->data + pos, n, lines);
        pos += n;
        if (pos == all->len) {
            break;
        }
        n = MIN(step, all->len - pos);
        if (reload) {
            SpiceFlowVsc *next = spice_flow_vsc_new(order);
            SpiceFlowVscSaved saved, again;
            char *error = NULL;

            spice_flow_vsc_save(vsc, &saved);
            g_assert_true(spice_flow_vsc_restore(next, &saved, &error));
            g_assert_null(error);
            spice_flow_vsc_save(next, &again);
            g_assert_cmpuint(again.skip, ==, saved.skip);
            g_assert_cmpmem(again.data, again.size, saved.data, saved.size);
            g_assert_cmpint(spice_flow_vsc_partial(next), ==,
                            spice_flow_vsc_partial(vsc));
            spice_flow_vsc_saved_clear(&saved);
            spice_flow_vsc_saved_clear(&again);
            g_assert_null(saved.data);
            spice_flow_vsc_free(vsc);
            vsc = next;
        }
    }
    spice_flow_vsc_free(vsc);
    return join(lines);
}

static void test_script(gconstpointer data)
{
    const Script *script = data;
    g_autoptr(GByteArray) all = g_byte_array_new();
    g_autofree char *whole = NULL;

    play(script, all);
    whole = in_pieces(script->order, all, all->len, 1, false);
    for (size_t cut = 0; cut <= all->len; cut++) {
        g_autofree char *two = in_pieces(script->order, all, cut, all->len,
                                         false);
        g_autofree char *saved = in_pieces(script->order, all, cut, all->len,
                                           true);

        g_assert_cmpstr(two, ==, whole);
        g_assert_cmpstr(saved, ==, whole);
    }
    for (size_t step = 1; step < 14; step++) {
        g_autofree char *many = in_pieces(script->order, all, step, step,
                                          false);
        g_autofree char *saved = in_pieces(script->order, all, step, step,
                                           true);

        g_assert_cmpstr(many, ==, whole);
        g_assert_cmpstr(saved, ==, whole);
    }
}

/* An APDU with @size bytes of payload that can be told from any other. */
static GByteArray *apdu(SpiceFlowVscOrder order, uint32_t size)
{
    GByteArray *bytes = g_byte_array_new();
    uint8_t header[SPICE_FLOW_VSC_HEADER_SIZE];

    spice_flow_vsc_put_header(header, order, SPICE_FLOW_VSC_APDU, size, size);
    g_byte_array_append(bytes, header, sizeof(header));
    for (uint32_t i = 0; i < size; i++) {
        uint8_t byte = (i * 7 + size) >> (i & 1 ? 8 : 0);

        g_byte_array_append(bytes, &byte, 1);
    }
    return bytes;
}

/*
 * D10: the sizes at which spice-server loses bytes (275, 281), works by luck
 * (271, 282) or crashes (2,000, 60,000), and the largest there is.  Two
 * messages, in pieces of each length.
 */
static void test_d10_sizes(void)
{
    static const uint32_t sizes[] = { 0, 1, 270, 271, 275, 281, 282, 2000,
                                      60000, 65524 };
    static const size_t steps[] = { 1, 11, 12, 13, 254, 270, 271, 282, 512,
                                    4096, 65535, 65536, 65537, 131072 };

    for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
        SpiceFlowVscOrder order = s & 1 ? SPICE_FLOW_VSC_WIRE
                                        : SPICE_FLOW_VSC_DEVICE;
        g_autoptr(GByteArray) one = apdu(order, sizes[s]);
        g_autoptr(GByteArray) all = g_byte_array_new();
        g_autoptr(GString) want = g_string_new(NULL);

        for (int i = 0; i < 2; i++) {
            g_byte_array_append(all, one->data, one->len);
            g_string_append_printf(want, "< APDU %u ", sizes[s]);
            append_hex(want, one->data + SPICE_FLOW_VSC_HEADER_SIZE,
                       sizes[s]);
            g_string_append_c(want, '\n');
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
            g_autofree char *got = in_pieces(order, all, steps[i], steps[i],
                                             steps[i] > 253);

            g_assert_true(g_str_equal(got, want->str));
        }
    }
}

/* The parser that refused one message parses the next. */
static void test_d34_goes_on(void)
{
    g_autoptr(GByteArray) big = apdu(SPICE_FLOW_VSC_WIRE, 65525);
    g_autoptr(GByteArray) next = apdu(SPICE_FLOW_VSC_WIRE, 3);
    static const size_t steps[] = { 1, 12, 1000, 65536, 200000 };

    g_byte_array_append(big, next->data, next->len);
    g_byte_array_append(big, next->data, next->len);
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        for (int reload = 0; reload < 2; reload++) {
            g_autofree char *got = in_pieces(SPICE_FLOW_VSC_WIRE, big,
                                             steps[i], steps[i], reload);

            g_assert_cmpstr(got, ==, "! APDU 65525 65525\n"
                                     "< APDU 3 030011\n< APDU 3 030011\n");
        }
    }
}

/* A length that is claimed costs nothing; bytes that came cost their double. */
static void test_memory(void)
{
    g_autoptr(SpiceFlowVsc) vsc = spice_flow_vsc_new(SPICE_FLOW_VSC_WIRE);
    g_autoptr(GByteArray) bytes = apdu(SPICE_FLOW_VSC_WIRE, 65524);
    SpiceFlowVscMessage msg;
    size_t used, most;

    g_assert_cmpint(spice_flow_vsc_feed(vsc, bytes->data, 12, &used, &msg),
                    ==, SPICE_FLOW_VSC_MORE);
    g_assert_cmpuint(spice_flow_vsc_memory(vsc), ==, 0);
    for (size_t n = 1; n < 65524; n++) {
        g_assert_cmpint(spice_flow_vsc_feed(vsc, bytes->data + 11 + n, 1,
                                            &used, &msg),
                        ==, SPICE_FLOW_VSC_MORE);
        most = MAX(2 * n, 256);
        g_assert_cmpuint(spice_flow_vsc_memory(vsc), >=, n);
        g_assert_cmpuint(spice_flow_vsc_memory(vsc), <=, most);
    }
    g_assert_cmpint(spice_flow_vsc_feed(vsc, bytes->data + bytes->len - 1, 1,
                                        &used, &msg),
                    ==, SPICE_FLOW_VSC_MESSAGE);
    g_assert_cmpmem(msg.payload, msg.length, bytes->data + 12, 65524);
    g_assert_cmpuint(spice_flow_vsc_memory(vsc), <=, SPICE_FLOW_VSC_MAX_SIZE);
}

/*
 * A payload that lies in the bytes whole is handed out from there, even with
 * its header cut.
 */
static void test_no_copy(void)
{
    g_autoptr(SpiceFlowVsc) vsc = spice_flow_vsc_new(SPICE_FLOW_VSC_DEVICE);
    g_autoptr(GByteArray) bytes = apdu(SPICE_FLOW_VSC_DEVICE, 500);
    SpiceFlowVscMessage msg;
    size_t used;

    for (size_t cut = 0; cut <= 12; cut++) {
        spice_flow_vsc_feed(vsc, bytes->data, cut, &used, &msg);
        g_assert_cmpuint(used, ==, cut);
        g_assert_cmpint(spice_flow_vsc_feed(vsc, bytes->data + cut,
                                            bytes->len - cut, &used, &msg),
                        ==, SPICE_FLOW_VSC_MESSAGE);
        g_assert_cmpuint(used, ==, bytes->len - cut);
        g_assert_true(msg.payload == bytes->data + 12);
        g_assert_cmpuint(msg.length, ==, 500);
    }
    g_assert_cmpuint(spice_flow_vsc_memory(vsc), ==, 0);
}

/* A message is handed out before the bytes behind it are looked at. */
static void test_one_at_a_time(void)
{
    g_autoptr(SpiceFlowVsc) vsc = spice_flow_vsc_new(SPICE_FLOW_VSC_WIRE);
    g_autoptr(GByteArray) bytes = apdu(SPICE_FLOW_VSC_WIRE, 4);
    SpiceFlowVscMessage msg;
    size_t used;

    g_byte_array_append(bytes, (const uint8_t *)"\xff\xff\xff", 3);
    g_assert_cmpint(spice_flow_vsc_feed(vsc, bytes->data, bytes->len, &used,
                                        &msg), ==, SPICE_FLOW_VSC_MESSAGE);
    g_assert_cmpuint(used, ==, 16);
    g_assert_false(spice_flow_vsc_partial(vsc));
}

static void test_reset(void)
{
    static const char *const cuts[] = {
        "07", "07000000 00000000 02000000", "07000000 00000000 02000000 90",
        "07000000 00000000 f5ff0000",
    };
    g_autoptr(SpiceFlowVsc) vsc = spice_flow_vsc_new(SPICE_FLOW_VSC_WIRE);
    g_autoptr(GByteArray) good = bytes_of("06000000 01000000 00000000");

    for (unsigned i = 0; i < G_N_ELEMENTS(cuts); i++) {
        g_autoptr(GByteArray) cut = bytes_of(cuts[i]);
        SpiceFlowVscMessage msg;
        size_t used;

        spice_flow_vsc_feed(vsc, cut->data, cut->len, &used, &msg);
        g_assert_true(spice_flow_vsc_partial(vsc));
        spice_flow_vsc_reset(vsc);
        g_assert_false(spice_flow_vsc_partial(vsc));
        g_assert_cmpint(spice_flow_vsc_feed(vsc, good->data, good->len, &used,
                                            &msg), ==,
                        SPICE_FLOW_VSC_MESSAGE);
        g_assert_cmpuint(msg.reader_id, ==, 1);
    }
    spice_flow_vsc_free(NULL);
}

/* What a saved state can not be: the field that is named, or NULL. */
static const struct {
    SpiceFlowVscOrder order;
    uint32_t skip;
    uint32_t size;              /* 0: of the bytes below */
    const char *data;
    const char *field;
} saved_cases[] = {
    { SPICE_FLOW_VSC_WIRE, 0, 0, "", NULL },
    { SPICE_FLOW_VSC_WIRE, 1, 0, "", NULL },
    { SPICE_FLOW_VSC_WIRE, 0xffffffff, 0, "", NULL },
    { SPICE_FLOW_VSC_WIRE, 1, 0, "07", "skip" },
    { SPICE_FLOW_VSC_WIRE, 0, 65536, "", "size" },
    { SPICE_FLOW_VSC_WIRE, 0, 0xffffffff, "", "size" },
    { SPICE_FLOW_VSC_WIRE, 0, 0, "070000000000000002000000", NULL },
    { SPICE_FLOW_VSC_WIRE, 0, 0, "07000000000000000200000001", NULL },
    { SPICE_FLOW_VSC_WIRE, 0, 0, "070000000000000000000000", "data" },
    { SPICE_FLOW_VSC_WIRE, 0, 0, "0700000000000000020000000102", "data" },
    { SPICE_FLOW_VSC_WIRE, 0, 0, "070000000000000002000000010203", "data" },
    { SPICE_FLOW_VSC_WIRE, 0, 0, "0700000000000000f4ff0000", NULL },
    { SPICE_FLOW_VSC_WIRE, 0, 0, "0700000000000000f5ff0000", "data" },
    { SPICE_FLOW_VSC_DEVICE, 0, 0, "070000000000000002000000", "data" },
    { SPICE_FLOW_VSC_DEVICE, 0, 0, "000000070000000000000002", NULL },
};

static void test_restore_refused(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(saved_cases); i++) {
        g_autoptr(SpiceFlowVsc) vsc =
            spice_flow_vsc_new(saved_cases[i].order);
        g_autoptr(GByteArray) data = bytes_of(saved_cases[i].data);
        g_autofree char *error = NULL;
        SpiceFlowVscSaved saved = {
            .skip = saved_cases[i].skip,
            .size = saved_cases[i].size ?: data->len,
            .data = data->data,
        };
        SpiceFlowVscMessage msg;
        size_t used;
        bool good;

        spice_flow_vsc_feed(vsc, (const uint8_t *)"\7", 1, &used, &msg);
        good = spice_flow_vsc_restore(vsc, &saved, &error);
        g_assert_cmpstr(error, ==, saved_cases[i].field);
        g_assert_cmpint(good, ==, !saved_cases[i].field);
        /* a refused state leaves the parser as it was */
        g_assert_cmpint(spice_flow_vsc_partial(vsc), ==,
                        !good || saved.skip || saved.size);
    }
}

/* The largest state there is. */
static void test_restore_largest(void)
{
    g_autoptr(SpiceFlowVsc) vsc = spice_flow_vsc_new(SPICE_FLOW_VSC_DEVICE);
    g_autoptr(SpiceFlowVsc) next = spice_flow_vsc_new(SPICE_FLOW_VSC_DEVICE);
    g_autoptr(GByteArray) bytes = apdu(SPICE_FLOW_VSC_DEVICE, 65524);
    g_autofree char *error = NULL;
    SpiceFlowVscMessage msg;
    SpiceFlowVscSaved saved;
    size_t used;

    spice_flow_vsc_feed(vsc, bytes->data, 65535, &used, &msg);
    spice_flow_vsc_save(vsc, &saved);
    g_assert_cmpuint(saved.size, ==, 65535);
    g_assert_true(spice_flow_vsc_restore(next, &saved, &error));
    spice_flow_vsc_saved_clear(&saved);
    g_assert_cmpint(spice_flow_vsc_feed(next, bytes->data + 65535, 1, &used,
                                        &msg), ==, SPICE_FLOW_VSC_MESSAGE);
    g_assert_cmpmem(msg.payload, msg.length, bytes->data + 12, 65524);
}

/* Errors: the header follows the side, the code never does. */
static const struct {
    SpiceFlowVscOrder order;
    uint32_t reader_id;
    uint32_t code;
    const char *bytes;
} errors[] = {
    { SPICE_FLOW_VSC_WIRE, 5, SPICE_FLOW_VSC_GENERAL_ERROR,
      "02000000 05000000 04000000 00000001" },
    { SPICE_FLOW_VSC_WIRE, 261, SPICE_FLOW_VSC_GENERAL_ERROR,
      "02000000 05010000 04000000 00000001" },
    { SPICE_FLOW_VSC_WIRE, SPICE_FLOW_VSC_NO_READER,
      SPICE_FLOW_VSC_NO_MORE_READERS,
      "02000000 ffffffff 04000000 00000002" },
    { SPICE_FLOW_VSC_WIRE, 0, SPICE_FLOW_VSC_SUCCESS,
      "02000000 00000000 04000000 00000000" },
    { SPICE_FLOW_VSC_DEVICE, 1, SPICE_FLOW_VSC_CARD_ALREADY_INSERTED,
      "00000002 00000001 00000004 00000003" },
    { SPICE_FLOW_VSC_DEVICE, 0, 0x01020304,
      "00000002 00000000 00000004 01020304" },
};

static void test_errors(void)
{
    SpiceFlowVscMessage cut = { .type = SPICE_FLOW_VSC_ERROR, .length = 3,
                                .payload = (const uint8_t *)"\0\0\0" };
    uint32_t code = 77;

    for (unsigned i = 0; i < G_N_ELEMENTS(errors); i++) {
        g_autoptr(SpiceFlowVsc) vsc = spice_flow_vsc_new(errors[i].order);
        g_autoptr(GByteArray) want = bytes_of(errors[i].bytes);
        uint8_t got[SPICE_FLOW_VSC_ERROR_SIZE];
        SpiceFlowVscMessage msg;
        size_t used;

        spice_flow_vsc_put_error(got, errors[i].order, errors[i].reader_id,
                                 errors[i].code);
        g_assert_cmpmem(got, sizeof(got), want->data, want->len);
        g_assert_cmpint(spice_flow_vsc_feed(vsc, got, sizeof(got), &used,
                                            &msg), ==,
                        SPICE_FLOW_VSC_MESSAGE);
        g_assert_true(spice_flow_vsc_get_error(&msg, &code));
        g_assert_cmphex(code, ==, errors[i].code);
    }
    g_assert_false(spice_flow_vsc_get_error(&cut, &code));
}

/* The scripts' bytes as files of the fuzzer's corpus, and what they lack. */
static void write_corpus(const char *folder)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(scripts); i++) {
        g_autoptr(GByteArray) all = g_byte_array_new();
        uint8_t order = scripts[i].order;

        g_byte_array_append(all, &order, 1);
        g_byte_array_append(all, (const uint8_t *)"\7", 1);
        play(&scripts[i], all);
        corpus_write(folder, scripts[i].name + strlen("/vsc/"), all);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && g_str_equal(argv[1], "--corpus")) {
        write_corpus(argv[2]);
        return 0;
    }
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(scripts); i++) {
        g_test_add_data_func(scripts[i].name, &scripts[i], test_script);
    }
    g_test_add_func("/vsc/D10/sizes", test_d10_sizes);
    g_test_add_func("/vsc/D34/goes-on", test_d34_goes_on);
    g_test_add_func("/vsc/memory-follows-bytes", test_memory);
    g_test_add_func("/vsc/no-copy", test_no_copy);
    g_test_add_func("/vsc/one-at-a-time", test_one_at_a_time);
    g_test_add_func("/vsc/reset", test_reset);
    g_test_add_func("/vsc/restore/refused", test_restore_refused);
    g_test_add_func("/vsc/restore/largest", test_restore_largest);
    g_test_add_func("/vsc/errors", test_errors);
    return g_test_run();
}
