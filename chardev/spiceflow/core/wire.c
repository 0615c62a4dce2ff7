/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Layouts of the SPICE wire protocol: decoding with bounds, encoding, nothing
 * else.  All numbers are little-endian and unaligned; offsets inside a message
 * count from the first byte of its body.
 */
#include "chardev/spiceflow/wire.h"

#include <string.h>

/* "REDQ" as the little-endian number that SPICE_MAGIC is on the wire. */
#define LINK_MAGIC          0x51444552u
/* "SFMD" likewise. */
#define MIGRATE_MAGIC       0x444d4653u
#define CAPS_MAX            1024    /* words of either kind */

void spice_flow_wire_u8(GByteArray *out, uint8_t v)
{
    g_byte_array_append(out, &v, 1);
}

void spice_flow_wire_u16(GByteArray *out, uint16_t v)
{
    uint8_t p[2];

    spice_flow_put_u16(p, v);
    g_byte_array_append(out, p, sizeof(p));
}

void spice_flow_wire_u32(GByteArray *out, uint32_t v)
{
    uint8_t p[4];

    spice_flow_put_u32(p, v);
    g_byte_array_append(out, p, sizeof(p));
}

void spice_flow_wire_u64(GByteArray *out, uint64_t v)
{
    uint8_t p[8];

    spice_flow_put_u64(p, v);
    g_byte_array_append(out, p, sizeof(p));
}

/*
 * Link phase
 */

uint32_t spice_flow_link_header_decode(const uint8_t *p, uint32_t *size)
{
    if (spice_flow_get_u32(p) != LINK_MAGIC) {
        return SPICE_LINK_ERR_INVALID_MAGIC;
    }
    if (spice_flow_get_u32(p + 4) != SPICE_VERSION_MAJOR) {
        return SPICE_LINK_ERR_VERSION_MISMATCH;
    }
    *size = spice_flow_get_u32(p + 12);
    if (*size < SPICE_FLOW_LINK_MESS_SIZE || *size > SPICE_FLOW_LINK_MESS_MAX) {
        return SPICE_LINK_ERR_INVALID_DATA;
    }
    return SPICE_LINK_ERR_OK;
}

uint32_t spice_flow_link_mess_decode(const uint8_t *p, size_t len,
                                     SpiceFlowLinkMess *mess)
{
    uint32_t num_common, num_channel, offset;

    if (len < SPICE_FLOW_LINK_MESS_SIZE) {
        return SPICE_LINK_ERR_INVALID_DATA;
    }
    *mess = (SpiceFlowLinkMess) {
        .connection_id = spice_flow_get_u32(p),
        .channel_type = p[4],
        .channel_id = p[5],
    };
    num_common = spice_flow_get_u32(p + 6);
    num_channel = spice_flow_get_u32(p + 10);
    offset = spice_flow_get_u32(p + 14);
    if (num_common == 0 && num_channel == 0) {
        return SPICE_LINK_ERR_OK;
    }
    if (num_common > CAPS_MAX || num_channel > CAPS_MAX ||
        offset < SPICE_FLOW_LINK_MESS_SIZE || offset > len ||
        len - offset < (size_t)(num_common + num_channel) * 4) {
        return SPICE_LINK_ERR_INVALID_DATA;
    }
    if (num_common) {
        mess->common_caps = spice_flow_get_u32(p + offset);
    }
    if (num_channel) {
        mess->channel_caps = spice_flow_get_u32(p + offset + num_common * 4);
    }
    return SPICE_LINK_ERR_OK;
}

void spice_flow_link_reply_encode(GByteArray *out, uint32_t error,
                                  const uint8_t *pubkey, uint32_t common_caps,
                                  uint32_t channel_caps)
{
    static const uint8_t no_key[SPICE_FLOW_PUBKEY_SIZE];
    bool ok = error == SPICE_LINK_ERR_OK;
    uint32_t num_common = ok;
    uint32_t num_channel = ok && channel_caps;

    spice_flow_wire_u32(out, LINK_MAGIC);
    spice_flow_wire_u32(out, SPICE_VERSION_MAJOR);
    spice_flow_wire_u32(out, SPICE_VERSION_MINOR);
    spice_flow_wire_u32(out, SPICE_FLOW_LINK_REPLY_SIZE +
                             (num_common + num_channel) * 4);

    spice_flow_wire_u32(out, error);
    g_byte_array_append(out, ok ? pubkey : no_key, SPICE_FLOW_PUBKEY_SIZE);
    spice_flow_wire_u32(out, num_common);
    spice_flow_wire_u32(out, num_channel);
    spice_flow_wire_u32(out, ok ? SPICE_FLOW_LINK_REPLY_SIZE : 0);
    if (num_common) {
        spice_flow_wire_u32(out, common_caps);
    }
    if (num_channel) {
        spice_flow_wire_u32(out, channel_caps);
    }
}

/*
 * Message headers
 */

void spice_flow_header_decode(const uint8_t *p, bool mini, uint16_t *type,
                              uint32_t *size)
{
    if (!mini) {
        p += 8;
    }
    *type = spice_flow_get_u16(p);
    *size = spice_flow_get_u32(p + 2);
}

size_t spice_flow_header_encode(uint8_t *p, bool mini, uint64_t serial,
                                uint16_t type, uint32_t size)
{
    if (!mini) {
        spice_flow_put_u64(p, serial);
        spice_flow_put_u32(p + 14, 0);
        p += 8;
    }
    spice_flow_put_u16(p, type);
    spice_flow_put_u32(p + 2, size);
    return spice_flow_header_size(mini);
}

/*
 * Message bodies
 */

void spice_flow_main_init_encode(GByteArray *out,
                                 const SpiceFlowMainInit *init)
{
    spice_flow_wire_u32(out, init->session_id);
    spice_flow_wire_u32(out, 0);                        /* displays */
    spice_flow_wire_u32(out, SPICE_MOUSE_MODE_SERVER);  /* supported */
    spice_flow_wire_u32(out, SPICE_MOUSE_MODE_SERVER);  /* current */
    spice_flow_wire_u32(out, init->agent_connected);
    spice_flow_wire_u32(out, init->agent_tokens);
    spice_flow_wire_u32(out, init->multi_media_time);
    spice_flow_wire_u32(out, 0);                        /* RAM hint */
}

void spice_flow_channels_list_encode(GByteArray *out,
                                     const SpiceFlowChannelId *channels,
                                     uint32_t n)
{
    spice_flow_wire_u32(out, n);
    for (uint32_t i = 0; i < n; i++) {
        spice_flow_wire_u8(out, channels[i].type);
        spice_flow_wire_u8(out, channels[i].id);
    }
}

void spice_flow_main_name_encode(GByteArray *out, const char *name)
{
    size_t size = strlen(name) + 1;

    spice_flow_wire_u32(out, size);
    g_byte_array_append(out, (const uint8_t *)name, size);
}

void spice_flow_mouse_mode_encode(GByteArray *out, uint16_t supported,
                                  uint16_t current)
{
    spice_flow_wire_u16(out, supported);
    spice_flow_wire_u16(out, current);
}

void spice_flow_notify_encode(GByteArray *out, uint64_t time,
                              uint32_t severity, const char *text)
{
    size_t len = strlen(text);

    spice_flow_wire_u64(out, time);
    spice_flow_wire_u32(out, severity);
    spice_flow_wire_u32(out, SPICE_NOTIFY_VISIBILITY_HIGH);
    spice_flow_wire_u32(out, 0);                        /* what: no code */
    spice_flow_wire_u32(out, len);
    g_byte_array_append(out, (const uint8_t *)text, len + 1);
}

void spice_flow_ping_encode(GByteArray *out, uint32_t id, uint64_t time)
{
    spice_flow_wire_u32(out, id);
    spice_flow_wire_u64(out, time);
}

void spice_flow_port_init_encode(GByteArray *out, const char *name,
                                 bool opened)
{
    size_t size = strlen(name) + 1;

    spice_flow_wire_u32(out, size);
    spice_flow_wire_u32(out, 9);    /* offset: behind these three fields */
    spice_flow_wire_u8(out, opened);
    g_byte_array_append(out, (const uint8_t *)name, size);
}

/*
 * A client that goes to another server
 */

/* Offsets count from the beginning of the body. */
static void target_encode(GByteArray *out, const SpiceFlowTarget *target,
                          uint32_t fixed_size)
{
    spice_flow_wire_u16(out, target->port);
    spice_flow_wire_u16(out, target->tls_port);
    spice_flow_wire_u32(out, strlen(target->host) + 1);
    spice_flow_wire_u32(out, fixed_size);
    spice_flow_wire_u32(out, 0);                        /* subject: none */
    spice_flow_wire_u32(out, 0);
}

static void target_host_encode(GByteArray *out, const SpiceFlowTarget *target)
{
    g_byte_array_append(out, (const uint8_t *)target->host,
                        strlen(target->host) + 1);
}

void spice_flow_migrate_begin_encode(GByteArray *out,
                                     const SpiceFlowTarget *target,
                                     uint32_t version)
{
    target_encode(out, target, 20 + (version ? 4 : 0));
    if (version) {
        spice_flow_wire_u32(out, version);
    }
    target_host_encode(out, target);
}

void spice_flow_switch_host_encode(GByteArray *out,
                                   const SpiceFlowTarget *target)
{
    target_encode(out, target, 20);
    target_host_encode(out, target);
}

void spice_flow_migrate_data_encode(GByteArray *out, bool mini,
                                    const uint8_t *stream, uint32_t size)
{
    spice_flow_wire_u32(out, MIGRATE_MAGIC);
    spice_flow_wire_u32(out, SPICE_FLOW_MIGRATE_VERSION);
    spice_flow_wire_u32(out, mini);
    spice_flow_wire_u32(out, size);
    g_byte_array_append(out, stream, size);
}

const char *spice_flow_migrate_data_decode(const uint8_t *p, size_t len,
                                           SpiceFlowMigrateData *data)
{
    if (len < SPICE_FLOW_MIGRATE_DATA_SIZE) {
        return "length";
    }
    if (spice_flow_get_u32(p) != MIGRATE_MAGIC) {
        return "magic";
    }
    if (spice_flow_get_u32(p + 4) != SPICE_FLOW_MIGRATE_VERSION) {
        return "version";
    }
    if (spice_flow_get_u32(p + 8) > 1) {
        return "header kind";
    }
    *data = (SpiceFlowMigrateData) {
        .mini = spice_flow_get_u32(p + 8),
        .size = spice_flow_get_u32(p + 12),
        .stream = p + SPICE_FLOW_MIGRATE_DATA_SIZE,
    };
    if (data->size > SPICE_FLOW_MIGRATE_STREAM_MAX ||
        data->size != len - SPICE_FLOW_MIGRATE_DATA_SIZE) {
        return "size";
    }
    return NULL;
}
