/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of the wire layouts: the input is what a client sends from its first
 * byte on, decoded as link.c and channel.c do it.
 *
 * Besides memory errors it looks for what must hold of anything that was
 * accepted: sizes within their limits, capabilities that lie in the message,
 * and headers and MIGRATE_DATA that are encoded again come out as the bytes
 * they were read from.
 */
#include "chardev/spiceflow/wire.h"
#include "fuzz.h"

#include <string.h>

/* Returns the size of the link message, or 0 for an error answered. */
static uint32_t fuzz_link_header(const uint8_t *p)
{
    uint32_t size = 0;
    uint32_t error = spice_flow_link_header_decode(p, &size);

    if (error != SPICE_LINK_ERR_OK) {
        g_assert(error == SPICE_LINK_ERR_INVALID_MAGIC ||
                 error == SPICE_LINK_ERR_VERSION_MISMATCH ||
                 error == SPICE_LINK_ERR_INVALID_DATA);
        return 0;
    }
    g_assert(memcmp(p, "REDQ", 4) == 0);
    g_assert(size >= SPICE_FLOW_LINK_MESS_SIZE &&
             size <= SPICE_FLOW_LINK_MESS_MAX);
    return size;
}

static void fuzz_link_mess(const uint8_t *data, size_t size,
                           SpiceFlowLinkMess *mess)
{
    /* with nothing behind it, so that a look beyond is seen */
    g_autofree uint8_t *p = g_memdup2(data, size);
    uint32_t error = spice_flow_link_mess_decode(p, size, mess);

    if (error != SPICE_LINK_ERR_OK) {
        g_assert(error == SPICE_LINK_ERR_INVALID_DATA);
        *mess = (SpiceFlowLinkMess) { 0 };
        return;
    }
    g_assert(mess->connection_id == spice_flow_get_u32(p));
    g_assert(mess->channel_type == p[4] && mess->channel_id == p[5]);
    if (mess->common_caps || mess->channel_caps) {
        g_assert(size >= SPICE_FLOW_LINK_MESS_SIZE + 4);
    }
}

/* Of a client that comes from another server; nothing lies behind it. */
static void fuzz_migrate_data(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *p = g_memdup2(data, size);
    SpiceFlowMigrateData migrate;

    if (!spice_flow_migrate_data_decode(p, size, &migrate)) {
        g_autoptr(GByteArray) again = g_byte_array_new();

        g_assert(migrate.stream + migrate.size == p + size);
        spice_flow_migrate_data_encode(again, migrate.mini, migrate.stream,
                                       migrate.size);
        g_assert(again->len == size && memcmp(again->data, p, size) == 0);
    }
}

static void fuzz_messages(const uint8_t *p, size_t left, bool mini)
{
    size_t header = spice_flow_header_size(mini);

    while (left >= header) {
        uint8_t again[SPICE_FLOW_HEADER_MAX];
        uint16_t type;
        uint32_t size;

        spice_flow_header_decode(p, mini, &type, &size);
        g_assert(spice_flow_header_encode(again, mini,
                                          mini ? 0 : spice_flow_get_u64(p),
                                          type, size) == header);
        /* all but the list of sub messages, which is never sent */
        g_assert(memcmp(again, p, MIN(header, 14)) == 0);
        p += header;
        left -= header;
        if (size > left) {
            break;
        }
        fuzz_migrate_data(p, size);
        p += size;
        left -= size;
    }
}

/* Encoders are given what decoders found. */
static void fuzz_encode(const uint8_t *data, size_t size,
                        const SpiceFlowLinkMess *mess, uint32_t error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree char *text = g_strndup((const char *)data, size);
    uint8_t key[SPICE_FLOW_PUBKEY_SIZE] = { 0 };
    size_t before;

    spice_flow_link_reply_encode(out, error, key, mess->common_caps,
                                 mess->channel_caps);
    g_assert(out->len == SPICE_FLOW_LINK_HEADER_SIZE +
                         spice_flow_get_u32(out->data + 12));
    before = out->len;
    spice_flow_port_init_encode(out, text, size & 1);
    g_assert(out->len == before + 9 + strlen(text) + 1);
    before = out->len;
    spice_flow_notify_encode(out, mess->connection_id, 0, text);
    g_assert(spice_flow_get_u32(out->data + before + 20) == strlen(text));
    g_assert(out->data[out->len - 1] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    SpiceFlowLinkMess mess = { 0 };
    uint32_t want;

    if (size < SPICE_FLOW_LINK_HEADER_SIZE) {
        return 0;
    }
    want = fuzz_link_header(data);
    data += SPICE_FLOW_LINK_HEADER_SIZE;
    size -= SPICE_FLOW_LINK_HEADER_SIZE;
    if (want == 0 || want > size) {
        /* what would not be read is tried all the same */
        fuzz_link_mess(data, size, &mess);
        fuzz_encode(data, size, &mess, SPICE_LINK_ERR_INVALID_DATA);
        return 0;
    }
    fuzz_link_mess(data, want, &mess);
    fuzz_encode(data, want, &mess, SPICE_LINK_ERR_OK);
    data += want;
    size -= want;
    fuzz_messages(data, size, mess.common_caps &
                              (1u << SPICE_COMMON_CAP_MINI_HEADER));
    return 0;
}
