/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The layouts of the SPICE wire protocol, byte by byte.
 *
 * Everything is written as the bytes that travel, in hexadecimal with blanks
 * between the fields, so that this file can be read beside a capture; "*N"
 * repeats the byte before it up to N times in all.  The bytes of the tables
 * named "captured" were recorded from libspice-server 0.15.1 and spice-gtk
 * 0.42; where spiceflow differs on purpose, the case says so.
 *
 * test-wire --corpus FOLDER writes the fuzzer's seed corpus.
 *
 * What is decoded lies at the very end of a block of its own size, so that a
 * sanitizer or valgrind sees any look beyond.
 */
#include "chardev/spiceflow/wire.h"

#include <string.h>

#include "bytes.h"

/* Bytes of "52 45 00*4 ..." */
static GByteArray *from_hex(const char *text)
{
    GByteArray *out = g_byte_array_new();
    const char *p = text;

    while (*p) {
        if (*p == ' ' || *p == '|') {
            p++;
        } else if (*p == '*') {
            uint8_t last = out->data[out->len - 1];
            unsigned n = g_ascii_strtoull(p + 1, (char **)&p, 10);

            while (--n) {
                g_byte_array_append(out, &last, 1);
            }
        } else {
            uint8_t byte = g_ascii_xdigit_value(p[0]) << 4 |
                           g_ascii_xdigit_value(p[1]);

            g_assert_true(g_ascii_isxdigit(p[0]) && g_ascii_isxdigit(p[1]));
            g_byte_array_append(out, &byte, 1);
            p += 2;
        }
    }
    return out;
}

static void assert_bytes(GByteArray *got, const char *hex)
{
    g_autoptr(GByteArray) want = from_hex(hex);

    g_assert_cmpmem(got->data, got->len, want->data, want->len);
}

/* A copy with nothing behind it. */
static uint8_t *exact(const GByteArray *bytes)
{
    return g_memdup2(bytes->data, bytes->len);
}

/*
 * The first 16 bytes of a connection
 */

typedef struct HeaderCase {
    const char *name;
    const char *bytes;
    uint32_t error;
    uint32_t size;
} HeaderCase;

static const HeaderCase header_cases[] = {
    { "captured", "52454451 02000000 02000000 1a000000",
      SPICE_LINK_ERR_OK, 26 },
    { "smallest", "52454451 02000000 02000000 12000000",
      SPICE_LINK_ERR_OK, 18 },
    { "largest", "52454451 02000000 02000000 00100000",
      SPICE_LINK_ERR_OK, 4096 },
    { "minor-0", "52454451 02000000 00000000 12000000",
      SPICE_LINK_ERR_OK, 18 },
    { "minor-later", "52454451 02000000 ffffffff 12000000",
      SPICE_LINK_ERR_OK, 18 },
    { "magic-none", "00000000 02000000 02000000 12000000",
      SPICE_LINK_ERR_INVALID_MAGIC, 0 },
    { "magic-first-byte", "53454451 02000000 02000000 12000000",
      SPICE_LINK_ERR_INVALID_MAGIC, 0 },
    { "magic-last-byte", "52454452 02000000 02000000 12000000",
      SPICE_LINK_ERR_INVALID_MAGIC, 0 },
    { "magic-swapped", "51444552 02000000 02000000 12000000",
      SPICE_LINK_ERR_INVALID_MAGIC, 0 },
    { "http", "47455420 2f204854 54502f31 2e310d0a",
      SPICE_LINK_ERR_INVALID_MAGIC, 0 },
    { "tls", "16030102 00010001 fc0303aa bbccddee",
      SPICE_LINK_ERR_INVALID_MAGIC, 0 },
    { "major-0", "52454451 00000000 02000000 12000000",
      SPICE_LINK_ERR_VERSION_MISMATCH, 0 },
    { "major-1", "52454451 01000000 02000000 12000000",
      SPICE_LINK_ERR_VERSION_MISMATCH, 0 },
    { "major-3", "52454451 03000000 02000000 12000000",
      SPICE_LINK_ERR_VERSION_MISMATCH, 0 },
    { "major-swapped", "52454451 00000002 02000000 12000000",
      SPICE_LINK_ERR_VERSION_MISMATCH, 0 },
    { "magic-before-version", "00000000 03000000 02000000 00000000",
      SPICE_LINK_ERR_INVALID_MAGIC, 0 },
    { "version-before-size", "52454451 03000000 02000000 00000000",
      SPICE_LINK_ERR_VERSION_MISMATCH, 0 },
    { "size-0", "52454451 02000000 02000000 00000000",
      SPICE_LINK_ERR_INVALID_DATA, 0 },
    { "size-17", "52454451 02000000 02000000 11000000",
      SPICE_LINK_ERR_INVALID_DATA, 0 },
    { "size-4097", "52454451 02000000 02000000 01100000",
      SPICE_LINK_ERR_INVALID_DATA, 0 },
    { "size-2^31", "52454451 02000000 02000000 00000080",
      SPICE_LINK_ERR_INVALID_DATA, 0 },
    { "size-2^32-1", "52454451 02000000 02000000 ffffffff",
      SPICE_LINK_ERR_INVALID_DATA, 0 },
};

static void test_link_header(gconstpointer data)
{
    const HeaderCase *c = data;
    g_autoptr(GByteArray) bytes = from_hex(c->bytes);
    g_autofree uint8_t *p = exact(bytes);
    uint32_t size = 0;

    g_assert_cmpuint(bytes->len, ==, SPICE_FLOW_LINK_HEADER_SIZE);
    g_assert_cmpuint(spice_flow_link_header_decode(p, &size), ==, c->error);
    if (c->error == SPICE_LINK_ERR_OK) {
        g_assert_cmpuint(size, ==, c->size);
    }
}

/*
 * The link message
 */

typedef struct MessCase {
    const char *name;
    const char *bytes;
    uint32_t error;
    SpiceFlowLinkMess mess;
} MessCase;

static const MessCase mess_cases[] = {
    /*    connection type id common   channel  offset   capabilities */
    { "captured-main",
      "00000000 01 00 01000000 01000000 12000000 0d000000 0f000000",
      SPICE_LINK_ERR_OK, { 0, SPICE_CHANNEL_MAIN, 0, 0x0d, 0x0f } },
    { "no-capabilities", "78563412 0a 03 00000000 00000000 12000000",
      SPICE_LINK_ERR_OK, { 0x12345678, SPICE_CHANNEL_PORT, 3, 0, 0 } },
    { "no-capabilities-any-offset",
      "00000000 01 00 00000000 00000000 ffffffff",
      SPICE_LINK_ERR_OK, { 0, SPICE_CHANNEL_MAIN, 0, 0, 0 } },
    { "common-only", "ffffffff 09 ff 01000000 00000000 12000000 09000000",
      SPICE_LINK_ERR_OK, { 0xffffffff, SPICE_CHANNEL_USBREDIR, 255, 9, 0 } },
    { "channel-only", "01000000 09 00 00000000 01000000 12000000 01000000",
      SPICE_LINK_ERR_OK, { 1, SPICE_CHANNEL_USBREDIR, 0, 0, 1 } },
    { "second-words-ignored",
      "00000000 01 00 02000000 02000000 12000000"
      "09000000 ffffffff 0f000000 ffffffff",
      SPICE_LINK_ERR_OK, { 0, SPICE_CHANNEL_MAIN, 0, 9, 0xf } },
    { "bytes-between",
      "00000000 01 00 01000000 01000000 15000000 aabbcc 09000000 0f000000",
      SPICE_LINK_ERR_OK, { 0, SPICE_CHANNEL_MAIN, 0, 9, 0xf } },
    { "bytes-behind",
      "00000000 01 00 01000000 01000000 12000000 09000000 0f000000 aabbcc",
      SPICE_LINK_ERR_OK, { 0, SPICE_CHANNEL_MAIN, 0, 9, 0xf } },
    { "1000-words",
      "00000000 01 00 e8030000 00000000 12000000 ff*4000",
      SPICE_LINK_ERR_OK, { 0, SPICE_CHANNEL_MAIN, 0, 0xffffffff, 0 } },
    { "empty", "", SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "short", "00000000 01 00 00000000 00000000 120000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "offset-0", "00000000 01 00 01000000 00000000 00000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "offset-17", "00000000 01 00 01000000 00000000 11000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "offset-19", "00000000 01 00 01000000 00000000 13000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "offset-at-end", "00000000 01 00 01000000 00000000 16000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "offset-beyond", "00000000 01 00 01000000 00000000 17000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "offset-2^31", "00000000 01 00 01000000 00000000 00000080 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "offset-wraps", "00000000 01 00 01000000 00000000 fcffffff 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "word-cut-off", "00000000 01 00 01000000 00000000 12000000 090000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "channel-word-missing",
      "00000000 01 00 01000000 01000000 12000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "common-1025", "00000000 01 00 01040000 00000000 12000000 ff*4078",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "channel-1025", "00000000 01 00 00000000 01040000 12000000 ff*4078",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "common-2^30", "00000000 01 00 00000040 00000000 12000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "common-2^32-1", "00000000 01 00 ffffffff 01000000 12000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
    { "both-2^31", "00000000 01 00 00000080 00000080 12000000 09000000",
      SPICE_LINK_ERR_INVALID_DATA, { 0 } },
};

static void test_link_mess(gconstpointer data)
{
    const MessCase *c = data;
    g_autoptr(GByteArray) bytes = from_hex(c->bytes);
    g_autofree uint8_t *p = exact(bytes);
    SpiceFlowLinkMess mess = { 0 };

    g_assert_cmpuint(spice_flow_link_mess_decode(p, bytes->len, &mess), ==,
                     c->error);
    if (c->error != SPICE_LINK_ERR_OK) {
        return;
    }
    g_assert_cmphex(mess.connection_id, ==, c->mess.connection_id);
    g_assert_cmpuint(mess.channel_type, ==, c->mess.channel_type);
    g_assert_cmpuint(mess.channel_id, ==, c->mess.channel_id);
    g_assert_cmphex(mess.common_caps, ==, c->mess.common_caps);
    g_assert_cmphex(mess.channel_caps, ==, c->mess.channel_caps);
}

/* Cutting a good message anywhere is noticed, and nothing beyond is read. */
static void test_link_mess_every_length(void)
{
    g_autoptr(GByteArray) bytes =
        from_hex("00000000 01 00 01000000 01000000 12000000 0d000000 0f000000");

    for (size_t len = 0; len < bytes->len; len++) {
        g_autofree uint8_t *p = g_memdup2(bytes->data, len);
        SpiceFlowLinkMess mess;

        g_assert_cmpuint(spice_flow_link_mess_decode(p, len, &mess), ==,
                         SPICE_LINK_ERR_INVALID_DATA);
    }
}

/*
 * The link reply
 */

typedef struct ReplyCase {
    const char *name;
    uint32_t error;
    uint32_t common;
    uint32_t channel;
    const char *bytes;
} ReplyCase;

static const ReplyCase reply_cases[] = {
    { "captured-main", SPICE_LINK_ERR_OK, 0x0b, 0x0f,
      "52454451 02000000 02000000 ba000000 | 00000000 | 5a*162 |"
      "01000000 01000000 b2000000 | 0b000000 0f000000" },
    { "captured-usbredir", SPICE_LINK_ERR_OK, 0x0b, 0x01,
      "52454451 02000000 02000000 ba000000 | 00000000 | 5a*162 |"
      "01000000 01000000 b2000000 | 0b000000 01000000" },
    { "no-channel-capabilities", SPICE_LINK_ERR_OK, 0x0b, 0,
      "52454451 02000000 02000000 b6000000 | 00000000 | 5a*162 |"
      "01000000 00000000 b2000000 | 0b000000" },
    { "captured-magic", SPICE_LINK_ERR_INVALID_MAGIC, 0, 0,
      "52454451 02000000 02000000 b2000000 | 02000000 | 00*162 | 00*12" },
    { "need-secured", SPICE_LINK_ERR_NEED_SECURED, 0x0b, 0x0f,
      "52454451 02000000 02000000 b2000000 | 05000000 | 00*162 | 00*12" },
};

static void test_link_reply(gconstpointer data)
{
    const ReplyCase *c = data;
    g_autoptr(GByteArray) out = g_byte_array_new();
    uint8_t key[SPICE_FLOW_PUBKEY_SIZE];

    memset(key, 0x5a, sizeof(key));
    spice_flow_link_reply_encode(out, c->error, key, c->common, c->channel);
    assert_bytes(out, c->bytes);
}

/*
 * Message headers
 */

static void test_header_mini(void)
{
    uint8_t p[SPICE_FLOW_MINI_HEADER_SIZE];
    uint16_t type;
    uint32_t size;

    g_assert_cmpuint(spice_flow_header_size(true), ==, 6);
    g_assert_cmpuint(spice_flow_header_encode(p, true, 7, SPICE_MSG_MAIN_INIT,
                                              32), ==, 6);
    g_assert_cmpmem(p, 6, "\x67\x00\x20\x00\x00\x00", 6);
    spice_flow_header_decode((uint8_t *)"\x34\x12\xfe\xff\xff\xff", true,
                             &type, &size);
    g_assert_cmphex(type, ==, 0x1234);
    g_assert_cmphex(size, ==, 0xfffffffe);
}

static void test_header_full(void)
{
    uint8_t p[SPICE_FLOW_FULL_HEADER_SIZE];
    g_autoptr(GByteArray) want =
        from_hex("0807060504030201 6800 0a000000 00000000");
    uint16_t type;
    uint32_t size;

    memset(p, 0xee, sizeof(p));
    g_assert_cmpuint(spice_flow_header_size(false), ==, 18);
    g_assert_cmpuint(spice_flow_header_encode(p, false, 0x0102030405060708,
                                              SPICE_MSG_MAIN_CHANNELS_LIST,
                                              10), ==, 18);
    g_assert_cmpmem(p, sizeof(p), want->data, want->len);
    spice_flow_header_decode(p, false, &type, &size);
    g_assert_cmpuint(type, ==, SPICE_MSG_MAIN_CHANNELS_LIST);
    g_assert_cmpuint(size, ==, 10);
}

/* The list of sub messages is the client's to claim and ours to ignore. */
static void test_header_full_sub_list(void)
{
    g_autoptr(GByteArray) bytes =
        from_hex("ffffffffffffffff 6500 05000000 ffffffff");
    g_autofree uint8_t *p = exact(bytes);
    uint16_t type;
    uint32_t size;

    spice_flow_header_decode(p, false, &type, &size);
    g_assert_cmpuint(type, ==, SPICE_MSGC_SPICEVMC_DATA);
    g_assert_cmpuint(size, ==, 5);
}

/*
 * Message bodies
 */

static void encode_init(GByteArray *out)
{
    SpiceFlowMainInit init = {
        .session_id = 0x11223344,
        .agent_tokens = 10,
        .multi_media_time = 0x55667788,
    };

    spice_flow_main_init_encode(out, &init);
}

static void encode_init_agent(GByteArray *out)
{
    SpiceFlowMainInit init = {
        .session_id = 0xffffffff,
        .agent_connected = true,
        .agent_tokens = 64,
    };

    spice_flow_main_init_encode(out, &init);
}

static void encode_list(GByteArray *out)
{
    static const SpiceFlowChannelId list[] = {
        { SPICE_CHANNEL_PORT, 0 },
        { SPICE_CHANNEL_USBREDIR, 0 },
        { SPICE_CHANNEL_INPUTS, 0 },
    };

    spice_flow_channels_list_encode(out, list, G_N_ELEMENTS(list));
}

static void encode_list_hotplug(GByteArray *out)
{
    static const SpiceFlowChannelId list[] = { { SPICE_CHANNEL_USBREDIR, 1 } };

    spice_flow_channels_list_encode(out, list, G_N_ELEMENTS(list));
}

static void encode_list_empty(GByteArray *out)
{
    spice_flow_channels_list_encode(out, NULL, 0);
}

static void encode_name(GByteArray *out)
{
    spice_flow_main_name_encode(out, "vm");
}

static void encode_name_empty(GByteArray *out)
{
    spice_flow_main_name_encode(out, "");
}

static void encode_mouse_mode(GByteArray *out)
{
    spice_flow_mouse_mode_encode(out, SPICE_MOUSE_MODE_SERVER,
                                 SPICE_MOUSE_MODE_SERVER);
}

static void encode_port_init(GByteArray *out)
{
    spice_flow_port_init_encode(out, "org.test.port.0", false);
}

static void encode_port_init_open(GByteArray *out)
{
    spice_flow_port_init_encode(out, "p", true);
}

static void encode_ping(GByteArray *out)
{
    spice_flow_ping_encode(out, 3, 0x0807060504030201);
}

static void encode_notify(GByteArray *out)
{
    spice_flow_notify_encode(out, 0x0102030405060708,
                             SPICE_NOTIFY_SEVERITY_WARN, "busy");
}

/* All that a target says of itself: name, port, TLS port, no subject. */
static const SpiceFlowTarget a_target = { "vm", 5930, 0 };
static const SpiceFlowTarget a_tls_target = { "::1", 0, 0xfffe };

static void encode_begin_seamless(GByteArray *out)
{
    g_autoptr(GByteArray) body = g_byte_array_new();

    spice_flow_migrate_begin_encode(body, &a_target,
                                    SPICE_FLOW_MIGRATE_VERSION);
    g_byte_array_append(out, body->data, body->len);
}

static void encode_begin(GByteArray *out)
{
    g_autoptr(GByteArray) body = g_byte_array_new();

    spice_flow_migrate_begin_encode(body, &a_tls_target, 0);
    g_byte_array_append(out, body->data, body->len);
}

static void encode_switch_host(GByteArray *out)
{
    g_autoptr(GByteArray) body = g_byte_array_new();

    spice_flow_switch_host_encode(body, &a_target);
    g_byte_array_append(out, body->data, body->len);
}

static void encode_migrate_data(GByteArray *out)
{
    spice_flow_migrate_data_encode(out, true, (const uint8_t *)"abc", 3);
}

static void encode_migrate_data_empty(GByteArray *out)
{
    spice_flow_migrate_data_encode(out, false, NULL, 0);
}

typedef struct BodyCase {
    const char *name;
    void (*encode)(GByteArray *out);
    const char *bytes;
} BodyCase;

static const BodyCase body_cases[] = {
    { "captured-init", encode_init,
      "44332211 00000000 01000000 01000000 00000000 0a000000 88776655"
      "00000000" },
    { "init-with-agent", encode_init_agent,
      "ffffffff 00000000 01000000 01000000 01000000 40000000 00000000"
      "00000000" },
    { "captured-channels-list", encode_list, "03000000 | 0a00 | 0900 | 0300" },
    { "captured-hotplug", encode_list_hotplug, "01000000 | 0901" },
    { "no-channels", encode_list_empty, "00000000" },
    { "name", encode_name, "03000000 766d00" },
    { "no-name", encode_name_empty, "01000000 00" },
    { "mouse-mode", encode_mouse_mode, "0100 0100" },
    { "captured-port-init", encode_port_init,
      "10000000 09000000 00 6f72672e746573742e706f72742e30 00" },
    { "port-init-open", encode_port_init_open, "02000000 09000000 01 7000" },
    { "ping", encode_ping, "03000000 0102030405060708" },
    { "notify", encode_notify,
      "0807060504030201 01000000 02000000 00000000 04000000 62757379 00" },
    { "migrate-begin-seamless", encode_begin_seamless,
      "2a17 0000 03000000 18000000 00000000 00000000 01004653 766d00" },
    { "migrate-begin", encode_begin,
      "0000 feff 04000000 14000000 00000000 00000000 3a3a3100" },
    { "migrate-switch-host", encode_switch_host,
      "2a17 0000 03000000 14000000 00000000 00000000 766d00" },
    { "migrate-data", encode_migrate_data,
      "53464d44 01004653 01000000 03000000 616263" },
    { "no-migrate-data", encode_migrate_data_empty,
      "53464d44 01004653 00000000 00000000" },
};

static void test_body(gconstpointer data)
{
    const BodyCase *c = data;
    g_autoptr(GByteArray) out = g_byte_array_new();

    /* an encoder adds to what is there */
    spice_flow_wire_u8(out, 0xee);
    c->encode(out);
    g_byte_array_remove_index(out, 0);
    assert_bytes(out, c->bytes);
}

typedef struct MigrateCase {
    const char *name;
    const char *bytes;
    const char *wrong;          /* NULL: it is right */
    SpiceFlowMigrateData data;
} MigrateCase;

static const MigrateCase migrate_cases[] = {
    { "empty", "", "length", { 0 } },
    { "short", "53464d44 01004653 00000000 000000", "length", { 0 } },
    { "magic", "52464d44 01004653 00000000 00000000", "magic", { 0 } },
    { "version", "53464d44 01000000 00000000 00000000", "version", { 0 } },
    { "kind", "53464d44 01004653 02000000 00000000", "header kind", { 0 } },
    { "too-few", "53464d44 01004653 00000000 02000000 61", "size", { 0 } },
    { "too-many", "53464d44 01004653 00000000 00000000 61", "size", { 0 } },
    { "negative", "53464d44 01004653 00000000 ffffffff 61", "size", { 0 } },
    { "wraps", "53464d44 01004653 00000000 f1ffffff 61", "size", { 0 } },
    { "nothing", "53464d44 01004653 00000000 00000000", NULL,
      { .mini = false, .size = 0 } },
    { "something", "53464d44 01004653 01000000 03000000 616263", NULL,
      { .mini = true, .size = 3 } },
};

static void test_migrate_data(gconstpointer data)
{
    const MigrateCase *c = data;
    g_autoptr(GByteArray) bytes = from_hex(c->bytes);
    /* with nothing behind it, so that a look beyond is seen */
    g_autofree uint8_t *p = g_memdup2(bytes->data, bytes->len);
    SpiceFlowMigrateData got = { 0 };
    const char *wrong = spice_flow_migrate_data_decode(p, bytes->len, &got);

    g_assert_cmpstr(wrong, ==, c->wrong);
    if (!wrong) {
        g_assert_cmpint(got.mini, ==, c->data.mini);
        g_assert_cmpuint(got.size, ==, c->data.size);
        g_assert_true(got.stream == p + SPICE_FLOW_MIGRATE_DATA_SIZE);
    }
}

/* The largest is taken, one byte more is not. */
static void test_migrate_data_largest(void)
{
    g_autofree uint8_t *stream = g_malloc0(SPICE_FLOW_MIGRATE_STREAM_MAX + 1);
    SpiceFlowMigrateData got;

    for (unsigned more = 0; more < 2; more++) {
        g_autoptr(GByteArray) body = g_byte_array_new();

        spice_flow_migrate_data_encode(body, true, stream,
                                       SPICE_FLOW_MIGRATE_STREAM_MAX + more);
        g_assert_cmpstr(spice_flow_migrate_data_decode(body->data, body->len,
                                                       &got), ==,
                        more ? "size" : NULL);
    }
}

/*
 * Numbers
 */

static void test_numbers(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

    spice_flow_wire_u8(out, 0x80);
    spice_flow_wire_u16(out, 0xfedc);
    spice_flow_wire_u32(out, 0x89abcdef);
    spice_flow_wire_u64(out, 0xfedcba9876543210);
    assert_bytes(out, "80 dcfe efcdab89 1032547698badcfe");
    g_assert_cmphex(spice_flow_get_u16(out->data + 1), ==, 0xfedc);
    g_assert_cmphex(spice_flow_get_u32(out->data + 3), ==, 0x89abcdef);
    g_assert_cmphex(spice_flow_get_u64(out->data + 7), ==, 0xfedcba9876543210);
}

/* Whole connections as files of the fuzzer's corpus. */
static void write_corpus(const char *folder)
{
    static const char good_header[] = "52454451 02000000 02000000";
    static const char mini_messages[] =
        "6800 00000000 | 6500 05000000 68656c6c6f | c900 01000000 00 |"
        "6a00 04000000 ffffffff |"
        "0500 13000000 53464d44 01004653 01000000 03000000 616263 |"
        "6500 ffffffff";
    static const char full_messages[] =
        "0100000000000000 6800 00000000 00000000 |"
        "0200000000000000 6500 05000000 00000000 68656c6c6f |"
        "0300000000000000 0500 10000000 00000000"
        "53464d44 01004653 00000000 00000000 |"
        "0300000000000000 6500 ffffffff ffffffff";

    for (size_t i = 0; i < G_N_ELEMENTS(header_cases); i++) {
        g_autoptr(GByteArray) bytes = from_hex(header_cases[i].bytes);
        g_autofree char *name = g_strdup_printf("header-%s",
                                                header_cases[i].name);

        corpus_write(folder, name, bytes);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(mess_cases); i++) {
        g_autoptr(GByteArray) bytes = from_hex(good_header);
        g_autoptr(GByteArray) mess = from_hex(mess_cases[i].bytes);
        g_autoptr(GByteArray) after =
            from_hex(mess_cases[i].mess.common_caps & 8 ? mini_messages
                                                        : full_messages);
        g_autofree char *name = g_strdup_printf("message-%s",
                                                mess_cases[i].name);

        spice_flow_wire_u32(bytes, mess->len);
        g_byte_array_append(bytes, mess->data, mess->len);
        g_byte_array_append(bytes, after->data, after->len);
        corpus_write(folder, name, bytes);
    }
}

#define ADD_TABLE(group, cases, function)                                   \
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {                      \
        g_autofree char *path = g_strdup_printf("/wire/" group "/%s",       \
                                                (cases)[i].name);           \
        g_test_add_data_func(path, &(cases)[i], function);                  \
    }

int main(int argc, char **argv)
{
    if (argc == 3 && g_str_equal(argv[1], "--corpus")) {
        write_corpus(argv[2]);
        return 0;
    }
    g_test_init(&argc, &argv, NULL);
    ADD_TABLE("link-header", header_cases, test_link_header);
    ADD_TABLE("link-message", mess_cases, test_link_mess);
    g_test_add_func("/wire/link-message/every-length",
                    test_link_mess_every_length);
    ADD_TABLE("link-reply", reply_cases, test_link_reply);
    g_test_add_func("/wire/header/mini", test_header_mini);
    g_test_add_func("/wire/header/full", test_header_full);
    g_test_add_func("/wire/header/full-sub-list", test_header_full_sub_list);
    ADD_TABLE("body", body_cases, test_body);
    ADD_TABLE("migrate-data", migrate_cases, test_migrate_data);
    g_test_add_func("/wire/migrate-data/largest", test_migrate_data_largest);
    g_test_add_func("/wire/numbers", test_numbers);
    return g_test_run();
}
