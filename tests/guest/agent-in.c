/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agenttool: what it hears.  Messages are reassembled per chunk port, because
 * the server's own messages may come between the chunks of a client's.
 */
#include <stdlib.h>

#include "agent.h"

#define MESSAGE_MAX (256u << 20)

/* A message of one chunk port, as far as it has come. */
typedef struct Message {
    uint8_t header[HEADER];
    uint32_t have;              /* of header and body together */
    uint32_t type, size;
    uint8_t *body;
} Message;

static uint8_t chunk_header[CHUNK_HEADER];
static uint32_t chunk_have, chunk_left, chunk_port;
static Message messages[3];     /* by chunk port */

static void message_reset(Message *message)
{
    free(message->body);
    *message = (Message) { 0 };
}

static void on_message(uint32_t from, uint32_t type, const uint8_t *body,
                       uint32_t size)
{
    switch (type) {
    case MSG_CAPS:
        if (size < 8) {
            bad("capabilities of %" PRIu32 " bytes", size);
        }
        peer_caps = get32(body + 4);
        say("caps request=%" PRIu32 " caps=0x%" PRIx32, get32(body),
            peer_caps);
        if (get32(body)) {
            send_caps(0);
        }
        break;
    case MSG_GRAB:
    case MSG_RELEASE:
    case MSG_REQUEST:
    case MSG_CLIPBOARD:
        on_clipboard(type, body, size);
        break;
    case MSG_FILE_START:
        on_file_start(body, size);
        break;
    case MSG_FILE_STATUS:
        on_file_status(body, size);
        break;
    case MSG_FILE_DATA:
        on_file_data(body, size);
        break;
    case MSG_DISCONNECTED:
        if (from != PORT_SERVER || size) {
            bad("a client's end from port %" PRIu32 " with %" PRIu32 " bytes",
                from, size);
        }
        /* As the real agent does; nothing else ends half a message. */
        message_reset(&messages[PORT_CLIENT]);
        files_drop("client-left");
        say("client-left");
        break;
    case MSG_MONITORS_CONFIG:
        say("monitors bytes=%" PRIu32, size);
        break;
    case MSG_MAX_CLIPBOARD:
        say("max-clipboard %" PRId32, size < 4 ? 0 : (int32_t)get32(body));
        break;
    default:
        say("message type=%" PRIu32 " port=%" PRIu32 " bytes=%" PRIu32, type,
            from, size);
    }
}

/* Bytes of one chunk; a chunk may hold several messages or a part of one. */
static void on_chunk_data(uint32_t from, const uint8_t *data, size_t len)
{
    Message *message = &messages[from];

    for (;;) {
        size_t n;

        if (message->have < HEADER) {
            n = HEADER - message->have < len ? HEADER - message->have : len;
            memcpy(message->header + message->have, data, n);
            message->have += n;
            data += n;
            len -= n;
            if (message->have < HEADER) {
                return;
            }
            if (get32(message->header) != PROTOCOL) {
                bad("agent protocol %" PRIu32 " from port %" PRIu32,
                    get32(message->header), from);
            }
            message->type = get32(message->header + 4);
            message->size = get32(message->header + 16);
            if (message->size > MESSAGE_MAX) {
                bad("a message of %" PRIu32 " bytes", message->size);
            }
            message->body = malloc(message->size + 1);
            if (!message->body) {
                bad("no memory for a message of %" PRIu32 " bytes",
                    message->size);
            }
        }
        n = HEADER + message->size - message->have;
        n = n < len ? n : len;
        memcpy(message->body + message->have - HEADER, data, n);
        message->have += n;
        data += n;
        len -= n;
        if (message->have < HEADER + message->size) {
            return;
        }
        on_message(from, message->type, message->body, message->size);
        message_reset(message);
        if (!len) {
            return;
        }
    }
}

void on_bytes(const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n;

        if (chunk_left == 0) {
            n = CHUNK_HEADER - chunk_have < len ?
                CHUNK_HEADER - chunk_have : len;
            memcpy(chunk_header + chunk_have, data, n);
            chunk_have += n;
            data += n;
            len -= n;
            if (chunk_have < CHUNK_HEADER) {
                return;
            }
            chunk_have = 0;
            chunk_port = get32(chunk_header);
            chunk_left = get32(chunk_header + 4);
            if (chunk_port != PORT_CLIENT && chunk_port != PORT_SERVER) {
                bad("a chunk for port %" PRIu32, chunk_port);
            }
            continue;
        }
        n = chunk_left < len ? chunk_left : len;
        on_chunk_data(chunk_port, data, n);
        chunk_left -= n;
        data += n;
        len -= n;
    }
}

void in_reset(void)
{
    chunk_have = chunk_left = 0;
    message_reset(&messages[PORT_CLIENT]);
    message_reset(&messages[PORT_SERVER]);
    peer_caps = 0;
}
