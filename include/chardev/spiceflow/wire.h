/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Layouts of the SPICE wire protocol as far as character devices need them:
 * the link phase, message headers, and the bodies of the messages that the
 * server sends or understands.  Decoders check every length against the bytes
 * there are; encoders append to a GByteArray.  Numbers and names are those of
 * spice-protocol (spice/protocol.h, spice/enums.h).
 */
#ifndef CHARDEV_SPICEFLOW_WIRE_H
#define CHARDEV_SPICEFLOW_WIRE_H

#include <glib.h>
#include <spice/enums.h>
#include <spice/protocol.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SpiceLinkHeader: magic, major, minor, size of what follows. */
#define SPICE_FLOW_LINK_HEADER_SIZE   16
/* SpiceLinkMess without its capabilities. */
#define SPICE_FLOW_LINK_MESS_SIZE     18
/* Largest SpiceLinkMess with capabilities that a server accepts. */
#define SPICE_FLOW_LINK_MESS_MAX      4096
/* SpiceLinkReply without its capabilities. */
#define SPICE_FLOW_LINK_REPLY_SIZE    178
/* RSA-1024 SubjectPublicKeyInfo, and the ticket encrypted with it. */
#define SPICE_FLOW_PUBKEY_SIZE        162
#define SPICE_FLOW_TICKET_SIZE        128
/* u16 type, u32 size */
#define SPICE_FLOW_MINI_HEADER_SIZE   6
/* u64 serial, u16 type, u32 size, u32 sub list */
#define SPICE_FLOW_FULL_HEADER_SIZE   18
/* Largest header of either kind. */
#define SPICE_FLOW_HEADER_MAX         SPICE_FLOW_FULL_HEADER_SIZE
/* Version of the hand-over: told in MIGRATE_BEGIN_SEAMLESS, never 1. */
#define SPICE_FLOW_MIGRATE_VERSION    0x53460001
/* SpiceFlowMigrateData without the stream: magic, version, kind, size */
#define SPICE_FLOW_MIGRATE_DATA_SIZE  16
/* Largest stream in it. */
#define SPICE_FLOW_MIGRATE_STREAM_MAX (16 * 1024 * 1024)

/**
 * struct SpiceFlowLinkMess: what a client says of the channel it wants.
 * @connection_id: 0 for a new session
 * @channel_type: SPICE_CHANNEL_*
 * @channel_id: number among the channels of that type
 * @common_caps: the first 32 common capabilities, bit n for number n
 * @channel_caps: likewise those of the channel
 */
typedef struct SpiceFlowLinkMess {
    uint32_t connection_id;
    uint8_t channel_type;
    uint8_t channel_id;
    uint32_t common_caps;
    uint32_t channel_caps;
} SpiceFlowLinkMess;

/**
 * struct SpiceFlowChannelId: one line of a channel list.
 * @type: SPICE_CHANNEL_*
 * @id: number among the channels of that type
 */
typedef struct SpiceFlowChannelId {
    uint8_t type;
    uint8_t id;
} SpiceFlowChannelId;

/**
 * struct SpiceFlowMainInit: the body of SPICE_MSG_MAIN_INIT without what only
 * a display has.
 * @session_id: the connection id that the session's channels carry
 * @agent_connected: the guest's agent has opened its port
 * @agent_tokens: client tokens toward it
 * @multi_media_time: ms
 */
typedef struct SpiceFlowMainInit {
    uint32_t session_id;
    bool agent_connected;
    uint32_t agent_tokens;
    uint32_t multi_media_time;
} SpiceFlowMainInit;

/**
 * struct SpiceFlowTarget: where clients are to go.
 * @host: a name or an address; borrowed
 * @port: without TLS, or 0
 * @tls_port: with TLS, or 0
 */
typedef struct SpiceFlowTarget {
    const char *host;
    uint16_t port;
    uint16_t tls_port;
} SpiceFlowTarget;

/**
 * struct SpiceFlowMigrateData: the body of SPICE_MSG_MIGRATE_DATA, and of
 * SPICE_MSGC_MIGRATE_DATA on the other side.
 * @mini: which kind of headers are in @stream
 * @size: bytes of @stream
 * @stream: what the client sent on the channel since the state was saved;
 *   borrowed
 */
typedef struct SpiceFlowMigrateData {
    bool mini;
    uint32_t size;
    const uint8_t *stream;
} SpiceFlowMigrateData;

static inline uint16_t spice_flow_get_u16(const uint8_t *p)
{
    return p[0] | p[1] << 8;
}

static inline uint32_t spice_flow_get_u32(const uint8_t *p)
{
    return spice_flow_get_u16(p) | (uint32_t)spice_flow_get_u16(p + 2) << 16;
}

static inline uint64_t spice_flow_get_u64(const uint8_t *p)
{
    return spice_flow_get_u32(p) | (uint64_t)spice_flow_get_u32(p + 4) << 32;
}

static inline void spice_flow_put_u16(uint8_t *p, uint16_t v)
{
    p[0] = v;
    p[1] = v >> 8;
}

static inline void spice_flow_put_u32(uint8_t *p, uint32_t v)
{
    spice_flow_put_u16(p, v);
    spice_flow_put_u16(p + 2, v >> 16);
}

static inline void spice_flow_put_u64(uint8_t *p, uint64_t v)
{
    spice_flow_put_u32(p, v);
    spice_flow_put_u32(p + 4, v >> 32);
}

/**
 * spice_flow_wire_u8: append a byte.  The others append little-endian numbers.
 * @out: the bytes so far
 * @v: the value
 */
void spice_flow_wire_u8(GByteArray *out, uint8_t v);
void spice_flow_wire_u16(GByteArray *out, uint16_t v);
void spice_flow_wire_u32(GByteArray *out, uint32_t v);
void spice_flow_wire_u64(GByteArray *out, uint64_t v);

/**
 * spice_flow_link_header_decode: check the first bytes of a connection.
 * @p: SPICE_FLOW_LINK_HEADER_SIZE bytes
 * @size: set to the size of the SpiceLinkMess that follows
 *
 * Returns: SPICE_LINK_ERR_OK, or the error to answer with: INVALID_MAGIC,
 * VERSION_MISMATCH (only major version 2 is spoken) or INVALID_DATA (size).
 */
uint32_t spice_flow_link_header_decode(const uint8_t *p, uint32_t *size);

/**
 * spice_flow_link_mess_decode: decode a SpiceLinkMess.
 * @p: its bytes
 * @len: as many as the header said
 * @mess: filled
 *
 * Returns: SPICE_LINK_ERR_OK, or SPICE_LINK_ERR_INVALID_DATA.
 */
uint32_t spice_flow_link_mess_decode(const uint8_t *p, size_t len,
                                     SpiceFlowLinkMess *mess);

/**
 * spice_flow_link_reply_encode: append a SpiceLinkHeader and SpiceLinkReply.
 * @out: the bytes so far
 * @error: SPICE_LINK_ERR_*; with an error there is neither key nor capability
 * @pubkey: SPICE_FLOW_PUBKEY_SIZE bytes, not used with an error
 * @common_caps: the first word of common capabilities
 * @channel_caps: the first word of the channel's; 0 sends none
 */
void spice_flow_link_reply_encode(GByteArray *out, uint32_t error,
                                  const uint8_t *pubkey, uint32_t common_caps,
                                  uint32_t channel_caps);

/**
 * spice_flow_header_size: bytes of a message header.
 * @mini: whether both sides have SPICE_COMMON_CAP_MINI_HEADER
 *
 * Returns: bytes
 */
static inline size_t spice_flow_header_size(bool mini)
{
    return mini ? SPICE_FLOW_MINI_HEADER_SIZE : SPICE_FLOW_FULL_HEADER_SIZE;
}

/**
 * spice_flow_header_decode: type and size of a message.
 * @p: spice_flow_header_size() bytes
 * @mini: which kind
 * @type: set
 * @size: set to the bytes of the body
 */
void spice_flow_header_decode(const uint8_t *p, bool mini, uint16_t *type,
                              uint32_t *size);

/**
 * spice_flow_header_encode: write a message header.
 * @p: room for spice_flow_header_size() bytes
 * @mini: which kind
 * @serial: counts the messages of the channel from 1; not in a mini header
 * @type: of the message
 * @size: bytes of the body
 *
 * Returns: bytes written.
 */
size_t spice_flow_header_encode(uint8_t *p, bool mini, uint64_t serial,
                                uint16_t type, uint32_t size);

/**
 * spice_flow_main_init_encode: append the body of SPICE_MSG_MAIN_INIT, with
 * no display and server mouse mode alone.
 * @out: the bytes so far
 * @init: what varies
 */
void spice_flow_main_init_encode(GByteArray *out,
                                 const SpiceFlowMainInit *init);

/**
 * spice_flow_channels_list_encode: append the body of
 * SPICE_MSG_MAIN_CHANNELS_LIST.
 * @out: the bytes so far
 * @channels: the channels
 * @n: how many
 */
void spice_flow_channels_list_encode(GByteArray *out,
                                     const SpiceFlowChannelId *channels,
                                     uint32_t n);

/**
 * spice_flow_main_name_encode: append the body of SPICE_MSG_MAIN_NAME.
 * @out: the bytes so far
 * @name: the VM's name
 */
void spice_flow_main_name_encode(GByteArray *out, const char *name);

/**
 * spice_flow_mouse_mode_encode: append the body of SPICE_MSG_MAIN_MOUSE_MODE.
 * @out: the bytes so far
 * @supported: SPICE_MOUSE_MODE_* bits
 * @current: the mode in force
 */
void spice_flow_mouse_mode_encode(GByteArray *out, uint16_t supported,
                                  uint16_t current);

/**
 * spice_flow_notify_encode: append the body of SPICE_MSG_NOTIFY.
 * @out: the bytes so far
 * @time: ns
 * @severity: SPICE_NOTIFY_SEVERITY_*
 * @text: one line
 */
void spice_flow_notify_encode(GByteArray *out, uint64_t time,
                              uint32_t severity, const char *text);

/**
 * spice_flow_ping_encode: append the body of SPICE_MSG_PING, without filler.
 * @out: the bytes so far
 * @id: comes back in the answer
 * @time: likewise
 */
void spice_flow_ping_encode(GByteArray *out, uint32_t id, uint64_t time);

/**
 * spice_flow_migrate_begin_encode: append the body of
 * SPICE_MSG_MAIN_MIGRATE_BEGIN, or with a version that of
 * SPICE_MSG_MAIN_MIGRATE_BEGIN_SEAMLESS.  No certificate subject is told: the
 * client checks the target as it checked the source.
 * @out: nothing so far: what is in it is told as offsets
 * @target: where to go
 * @version: 0 for none
 */
void spice_flow_migrate_begin_encode(GByteArray *out,
                                     const SpiceFlowTarget *target,
                                     uint32_t version);

/**
 * spice_flow_switch_host_encode: append the body of
 * SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST.
 * @out: nothing so far
 * @target: where to go
 */
void spice_flow_switch_host_encode(GByteArray *out,
                                   const SpiceFlowTarget *target);

/**
 * spice_flow_migrate_data_encode: append the body of SPICE_MSG_MIGRATE_DATA.
 * @out: the bytes so far
 * @mini: which kind of headers are in @stream
 * @stream: what the target is to read first
 * @size: bytes of it, at most SPICE_FLOW_MIGRATE_STREAM_MAX
 */
void spice_flow_migrate_data_encode(GByteArray *out, bool mini,
                                    const uint8_t *stream, uint32_t size);

/**
 * spice_flow_migrate_data_decode: check and decode the body of
 * SPICE_MSGC_MIGRATE_DATA.
 * @p: its bytes
 * @len: how many
 * @data: filled
 *
 * Returns: NULL, or the name of the field that can not be.
 */
const char *spice_flow_migrate_data_decode(const uint8_t *p, size_t len,
                                           SpiceFlowMigrateData *data);

/**
 * spice_flow_port_init_encode: append the body of SPICE_MSG_PORT_INIT.
 * @out: the bytes so far
 * @name: the port's name
 * @opened: whether the guest's side is open
 */
void spice_flow_port_init_encode(GByteArray *out, const char *name,
                                 bool opened);

#endif
