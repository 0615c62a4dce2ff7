/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VDI chunks and the pieces of agent messages, in both directions.  Nothing
 * here knows what a message means; it only sees to it that the beginning of
 * each is judged before any of it goes on.
 *
 * From the guest: a stream of chunks, each a header (port, size) and bytes.
 * The bytes of port 1 are a stream of messages of their own; a message may be
 * spread over chunks and a chunk may hold several.  A piece for the clients
 * ends where it has SPICE_VDAGENT_PIECE_MAX bytes, where its message ends, or
 * where its chunk ends; the first one of a message not before there is enough
 * of it to be judged.
 *
 * From a client: every AGENT_DATA becomes one chunk.  It may not run past the
 * end of its message.  There are clients that send the header in a piece of
 * its own; such a beginning is kept until the part that is judged is complete,
 * and then goes as a chunk of its own in front.
 */
#include "vdagent-priv.h"

#include <string.h>

size_t vdagent_prefix_size(uint32_t type, uint32_t size)
{
    uint32_t payload = 0;

    switch (type) {
    case VD_AGENT_ANNOUNCE_CAPABILITIES:
        payload = 4 + 4 * SPICE_VDAGENT_CAPS_WORDS;
        break;
    case VD_AGENT_CLIPBOARD_GRAB:
        /* selection, serial, types */
        payload = 4 + 4 + 4 * SPICE_VDAGENT_GRAB_TYPES;
        break;
    case VD_AGENT_CLIPBOARD:
    case VD_AGENT_CLIPBOARD_REQUEST:
    case VD_AGENT_CLIPBOARD_RELEASE:
        /* selection, type */
        payload = 4 + 4;
        break;
    case VD_AGENT_FILE_XFER_START:
    case VD_AGENT_FILE_XFER_DATA:
    case VD_AGENT_MAX_CLIPBOARD:
        payload = 4;
        break;
    case VD_AGENT_FILE_XFER_STATUS:
    case VD_AGENT_REPLY:
        payload = 4 + 4;
        break;
    }
    return HEADER_SIZE + MIN(size, payload);
}

static void message_init(Message *msg, uint8_t *prefix, size_t len)
{
    *msg = (Message) {
        .type = spice_flow_get_u32(prefix + 4),
        .size = spice_flow_get_u32(prefix + 16),
        .payload = prefix + HEADER_SIZE,
        .have = len - HEADER_SIZE,
    };
}

/*
 * From the guest
 */

static void guest_message_end(Agent *agent)
{
    agent->s.judged = false;
    agent->s.passing = false;
    agent->s.message_left = 0;
    agent->s.fill = 0;
    FOREACH_STARTED(agent, client, l) {
        client->s.receiving = false;
    }
}

/* What is left of the message is for nobody. */
static void guest_message_skip(Agent *agent)
{
    agent->s.passing = false;
    agent->s.fill = 0;
    if (agent->s.message_left == 0) {
        guest_message_end(agent);
    }
}

void vdagent_stop_receiving(Client *client)
{
    Agent *agent = client->agent;

    if (!client->s.receiving) {
        return;
    }
    client->s.receiving = false;
    FOREACH_STARTED(agent, other, l) {
        if (other->s.receiving) {
            return;
        }
    }
    guest_message_skip(agent);
}

static void guest_judge(Agent *agent)
{
    SpiceVdagentState *s = &agent->s;
    Message msg;

    message_init(&msg, s->piece, s->fill);
    s->judged = true;
    s->first = true;
    s->message_left = (uint64_t)HEADER_SIZE + s->size - s->fill;
    s->passing = vdagent_from_guest(agent, &msg);
    if (!s->passing) {
        guest_message_skip(agent);
    }
}

/* The beginning of a message, up to what is judged. */
static size_t guest_prefix(Agent *agent, const uint8_t *data, size_t len)
{
    SpiceVdagentState *s = &agent->s;
    size_t want = HEADER_SIZE;

    if (s->fill >= HEADER_SIZE) {
        want = vdagent_prefix_size(s->type, s->size);
    }
    len = MIN(len, want - s->fill);
    memcpy(s->piece + s->fill, data, len);
    s->fill += len;

    if (s->fill == HEADER_SIZE) {
        s->type = spice_flow_get_u32(s->piece + 4);
        s->opaque = spice_flow_get_u64(s->piece + 8);
        s->size = spice_flow_get_u32(s->piece + 16);
        if (spice_flow_get_u32(s->piece) != VD_AGENT_PROTOCOL) {
            s->error = SPICE_VDAGENT_GUEST_PROTOCOL;
            return len;
        }
        want = vdagent_prefix_size(s->type, s->size);
    }
    if (s->fill == want) {
        guest_judge(agent);
    }
    return len;
}

static size_t guest_message(Agent *agent, const uint8_t *data, size_t len)
{
    SpiceVdagentState *s = &agent->s;

    if (!s->judged) {
        return guest_prefix(agent, data, len);
    }
    len = MIN(len, s->message_left);
    if (s->passing) {
        len = MIN(len, sizeof(s->piece) - s->fill);
        memcpy(s->piece + s->fill, data, len);
        s->fill += len;
    }
    s->message_left -= len;
    if (!s->passing && s->message_left == 0) {
        guest_message_end(agent);
    }
    return len;
}

static size_t guest_chunk_header(SpiceVdagentState *s, const uint8_t *data,
                                 size_t len)
{
    uint32_t port;

    len = MIN(len, sizeof(s->chunk_header) - s->chunk_header_len);
    memcpy(s->chunk_header + s->chunk_header_len, data, len);
    s->chunk_header_len += len;
    if (s->chunk_header_len < CHUNK_HEADER_SIZE) {
        return len;
    }
    port = spice_flow_get_u32(s->chunk_header);
    s->chunk_left = spice_flow_get_u32(s->chunk_header + 4);
    if (port != VDP_CLIENT_PORT && port != VDP_SERVER_PORT) {
        s->error = SPICE_VDAGENT_GUEST_PORT;
    }
    return len;
}

static size_t guest_chunk(Agent *agent, const uint8_t *data, size_t len)
{
    SpiceVdagentState *s = &agent->s;

    len = MIN(len, s->chunk_left);
    /* what the guest says to the server is of no use to it */
    if (spice_flow_get_u32(s->chunk_header) == VDP_CLIENT_PORT) {
        len = guest_message(agent, data, len);
    }
    s->chunk_left -= len;
    return len;
}

static bool guest_piece_ready(const SpiceVdagentState *s)
{
    return s->passing && s->fill &&
           (s->fill == sizeof(s->piece) || s->message_left == 0 ||
            s->chunk_left == 0);
}

size_t spice_vdagent_feed(SpiceVdagent *agent, const uint8_t *data, size_t len)
{
    SpiceVdagentState *s = &agent->s;
    size_t used = 0;

    while (used < len && !s->error && !guest_piece_ready(s)) {
        if (s->chunk_header_len < CHUNK_HEADER_SIZE) {
            used += guest_chunk_header(s, data + used, len - used);
        } else {
            used += guest_chunk(agent, data + used, len - used);
        }
        if (s->chunk_left == 0 && s->chunk_header_len == CHUNK_HEADER_SIZE) {
            s->chunk_header_len = 0;
        }
    }
    return used;
}

bool spice_vdagent_piece(SpiceVdagent *agent, SpiceVdagentPiece *piece)
{
    const SpiceVdagentState *s = &agent->s;
    bool everyone = true;

    if (!guest_piece_ready(s)) {
        return false;
    }
    FOREACH_STARTED(agent, client, l) {
        everyone = everyone && client->s.receiving;
    }
    *piece = (SpiceVdagentPiece) {
        .data = s->piece,
        .len = s->fill,
        .type = s->type,
        .size = s->size,
        .opaque = s->opaque,
        .first = s->first,
        .last = s->message_left == 0,
        .everyone = everyone,
    };
    return true;
}

bool spice_vdagent_client_receives(const SpiceVdagentClient *client)
{
    return client->s.receiving;
}

void spice_vdagent_piece_done(SpiceVdagent *agent)
{
    agent->s.fill = 0;
    agent->s.first = false;
    if (agent->s.message_left == 0) {
        guest_message_end(agent);
    }
}

const char *spice_vdagent_guest_error(const SpiceVdagent *agent)
{
    static const char *const text[SPICE_VDAGENT_GUEST_ERROR__MAX] = {
        [SPICE_VDAGENT_GUEST_PORT] =
            "the guest's agent sent a chunk for an unknown port",
        [SPICE_VDAGENT_GUEST_PROTOCOL] =
            "the guest's agent sent a message of an unknown protocol",
    };

    return text[agent->s.error];
}

/*
 * From a client
 */

static uint8_t *put_chunk_header(uint8_t *p, uint32_t size)
{
    spice_flow_put_u32(p, VDP_CLIENT_PORT);
    spice_flow_put_u32(p + 4, size);
    return p + CHUNK_HEADER_SIZE;
}

static void client_buffer(Client *client, const uint8_t *data, size_t len,
                          SpiceFlowBuffer *buffer)
{
    put_chunk_header(client->head, len);
    *buffer = (SpiceFlowBuffer) {
        .head = client->head,
        .head_len = CHUNK_HEADER_SIZE,
        .data = data,
        .len = len,
        .more = client->s.message_left > 0,
    };
}

/* The kept beginning as a chunk, then the rest of this piece as one. */
static void client_buffer_kept(Client *client, const uint8_t *data, size_t len,
                               SpiceFlowBuffer *buffer)
{
    SpiceVdagentClientState *s = &client->s;
    uint8_t *p;

    if (len == 0) {
        client_buffer(client, s->prefix, s->prefix_len, buffer);
        return;
    }
    p = put_chunk_header(client->head, s->prefix_len);
    memcpy(p, s->prefix, s->prefix_len);
    p = put_chunk_header(p + s->prefix_len, len);
    *buffer = (SpiceFlowBuffer) {
        .head = client->head,
        .head_len = p - client->head,
        .data = data,
        .len = len,
        .more = s->message_left > 0,
    };
}

static SpiceVdagentVerdict client_fail(Client *client,
                                       SpiceVdagentClientError error)
{
    client->s.error = error;
    return SPICE_VDAGENT_ERROR;
}

/* The first piece of a message; 0 when it is in order. */
static SpiceVdagentClientError client_begin(SpiceVdagentClientState *s,
                                            const uint8_t *data, size_t len)
{
    uint64_t message;

    if (len < HEADER_SIZE) {
        return SPICE_VDAGENT_CLIENT_SHORT_HEADER;
    }
    if (spice_flow_get_u32(data) != VD_AGENT_PROTOCOL) {
        return SPICE_VDAGENT_CLIENT_PROTOCOL;
    }
    message = (uint64_t)HEADER_SIZE + spice_flow_get_u32(data + 16);
    if (len > message) {
        return SPICE_VDAGENT_CLIENT_PAST_END;
    }
    s->message_left = message;
    s->judged = false;
    s->wanted = s->started;
    return 0;
}

/* The pieces of a message until it can be judged; mostly that is one. */
static SpiceVdagentVerdict client_prefix(Client *client, uint8_t *data,
                                         size_t len, SpiceFlowBuffer *buffer)
{
    SpiceVdagentClientState *s = &client->s;
    const uint8_t *header = s->prefix_len ? s->prefix : data;
    size_t want = vdagent_prefix_size(spice_flow_get_u32(header + 4),
                                      spice_flow_get_u32(header + 16));
    size_t kept = s->prefix_len;
    size_t take = MIN(len, want - kept);
    Message msg;

    memcpy(s->prefix + kept, data, take);
    s->prefix_len += take;
    if (s->prefix_len < want) {
        return SPICE_VDAGENT_DISCARD;
    }
    message_init(&msg, s->prefix, want);
    s->judged = true;
    s->passing = vdagent_from_client(client, &msg);
    if (!s->passing) {
        s->prefix_len = 0;
        return SPICE_VDAGENT_DISCARD;
    }
    s->passed++;
    if (kept) {
        client_buffer_kept(client, data + take, len - take, buffer);
    } else {
        memcpy(data, s->prefix, want);
        client_buffer(client, data, len, buffer);
    }
    s->prefix_len = 0;
    return SPICE_VDAGENT_PASS;
}

SpiceVdagentVerdict spice_vdagent_client_piece(SpiceVdagentClient *client,
                                               uint8_t *data, size_t len,
                                               SpiceFlowBuffer *buffer)
{
    SpiceVdagentClientState *s = &client->s;

    if (s->error) {
        return SPICE_VDAGENT_ERROR;
    }
    if (len > SPICE_VDAGENT_PIECE_MAX) {
        return client_fail(client, SPICE_VDAGENT_CLIENT_LONG_PIECE);
    }
    if (len == 0) {
        return SPICE_VDAGENT_DISCARD;
    }
    if (s->message_left == 0) {
        SpiceVdagentClientError error = client_begin(s, data, len);

        if (error) {
            return client_fail(client, error);
        }
    }
    if (len > s->message_left) {
        return client_fail(client, SPICE_VDAGENT_CLIENT_PAST_END);
    }
    s->message_left -= len;

    if (!s->judged) {
        return client_prefix(client, data, len, buffer);
    }
    if (!s->passing) {
        return SPICE_VDAGENT_DISCARD;
    }
    s->passed++;
    client_buffer(client, data, len, buffer);
    return SPICE_VDAGENT_PASS;
}

uint64_t spice_vdagent_client_left(const SpiceVdagentClient *client)
{
    return client->s.message_left;
}

void spice_vdagent_client_skip(SpiceVdagentClient *client, uint64_t left)
{
    client->s.message_left = left;
    client->s.judged = true;
    client->s.passing = false;
}

uint64_t spice_vdagent_left_after(uint64_t left, const uint8_t *data,
                                  size_t len)
{
    if (left == 0 && len >= HEADER_SIZE) {
        left = (uint64_t)HEADER_SIZE + spice_flow_get_u32(data + 16);
    }
    return left - MIN(len, left);
}

const char *spice_vdagent_client_error(const SpiceVdagentClient *client)
{
    static const char *const text[SPICE_VDAGENT_CLIENT_ERROR__MAX] = {
        [SPICE_VDAGENT_CLIENT_LONG_PIECE] =
            "the client sent more than 2048 bytes of agent data at once",
        [SPICE_VDAGENT_CLIENT_SHORT_HEADER] =
            "the client sent an agent message without its whole header",
        [SPICE_VDAGENT_CLIENT_PROTOCOL] =
            "the client sent an agent message of an unknown protocol",
        [SPICE_VDAGENT_CLIENT_PAST_END] =
            "the client sent agent data past the end of its message",
    };

    return text[client->s.error];
}
