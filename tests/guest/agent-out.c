/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * agenttool: what it says.  Messages are queued as chunks and written as the
 * port takes them; a flood is made as it is written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent.h"

#define QUEUE_SIZE 65536        /* of a flood, more or less */

static uint8_t *out;
static size_t out_pos, out_len, out_size;
static struct {
    uint64_t left, next;
    uint32_t size;
    int64_t start;
    uint64_t total;
} flood;
static bool muted;

uint8_t *out_reserve(size_t len)
{
    if (out_pos == out_len) {
        out_pos = out_len = 0;
    }
    if (out_len + len > out_size) {
        memmove(out, out + out_pos, out_len - out_pos);
        out_len -= out_pos;
        out_pos = 0;
    }
    if (out_len + len > out_size) {
        out_size = out_len + len;
        out = realloc(out, out_size);
        if (!out) {
            bad("no memory for %zu bytes to be sent", out_size);
        }
    }
    out_len += len;
    return out + out_len - len;
}

/* Queue bytes of one chunk stream, in chunks of the wanted size. */
static void send_chunks(const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = len < opt.chunk_max ? len : opt.chunk_max;
        uint8_t *p = out_reserve(CHUNK_HEADER + n);

        p = put32(p, PORT_CLIENT);
        p = put32(p, n);
        memcpy(p, data, n);
        data += n;
        len -= n;
    }
}

/* A message: its body is @head followed by @data. */
static void send_message(uint32_t type, const void *head, size_t head_len,
                         const void *data, size_t len)
{
    size_t total = HEADER + head_len + len;
    uint8_t *whole, *p;

    if (muted) {
        return;
    }
    p = whole = malloc(total);
    if (!whole) {
        bad("no memory for a message of %zu bytes", total);
    }
    p = put32(p, PROTOCOL);
    p = put32(p, type);
    p = put32(p, 0);
    p = put32(p, 0);
    p = put32(p, head_len + len);
    if (head_len) {
        memcpy(p, head, head_len);
    }
    if (len) {
        memcpy(p + head_len, data, len);
    }
    send_chunks(whole, total);
    free(whole);
}

void send_caps(uint32_t request)
{
    uint8_t body[8];

    put32(put32(body, request), opt.caps);
    send_message(MSG_CAPS, body, 8, NULL, 0);
}

bool selections(void)
{
    return opt.caps & peer_caps & 1u << CAP_SELECTION;
}

void send_clipboard(uint32_t type, bool with_type, const void *data,
                    size_t len)
{
    uint8_t head[8] = { 0 };
    size_t used = selections() ? 4 : 0;

    if (with_type) {
        put32(head + used, TEXT_TYPE);
        used += 4;
    }
    send_message(type, head, used, data, len);
}

void send_status(uint32_t id, uint32_t status)
{
    uint8_t body[8];

    put32(put32(body, id), status);
    send_message(MSG_FILE_STATUS, body, 8, NULL, 0);
}

/* Keep some of the flood queued, as long as there is any left. */
static void flood_more(void)
{
    while (flood.left > 0 && out_len - out_pos < QUEUE_SIZE) {
        size_t n = flood.left < flood.size ? flood.left : flood.size;
        uint64_t *words = malloc((n + 7) & ~7ul);

        if (!words) {
            bad("no memory");
        }
        for (size_t i = 0; i < (n + 7) / 8; i++) {
            words[i] = htole64(flood.next++);
        }
        send_clipboard(MSG_CLIPBOARD, true, words, n);
        free(words);
        flood.left -= n;
    }
}

void send_flood(uint64_t bytes, uint32_t size, uint64_t start)
{
    flood.left = flood.total = bytes;
    flood.size = size ? size : 65536;
    flood.next = start << 48;
    flood.start = now_ns();
}

void out_shorten(size_t len)
{
    out_len -= len;
}

void out_mute(void)
{
    muted = true;
}

void out_reset(void)
{
    out_pos = out_len = 0;
    flood.left = 0;
    muted = false;
}

bool out_waits(void)
{
    return out_pos < out_len || flood.left;
}

void out_write(int port)
{
    flood_more();
    for (int turn = 0; turn < 4 && out_pos < out_len; turn++) {
        ssize_t n = write(port, out + out_pos, out_len - out_pos);

        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n < 0) {
            bad("writing to the port: %s", strerror(errno));
        }
        out_pos += n;
        flood_more();
    }
    if (flood.total && !flood.left) {
        say("flood-sent bytes=%" PRIu64 " ms=%" PRId64, flood.total,
            (now_ns() - flood.start) / 1000000);
        flood.total = 0;
    }
}
