/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of agenttool share: agenttool.c, which has the theory of
 * operation, the port and the commands; agent-out.c and agent-in.c, messages
 * and chunks each way; agent-files.c and agent-clip.c, what they mean.
 */
#ifndef SPICEFLOW_GUEST_AGENT_H
#define SPICEFLOW_GUEST_AGENT_H

#include <endian.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tool.h"

/* Numbers of the agent protocol (spice/vd_agent.h) */
enum { PORT_CLIENT = 1, PORT_SERVER = 2, PROTOCOL = 1 };
enum {
    MSG_MOUSE_STATE = 1, MSG_MONITORS_CONFIG, MSG_REPLY, MSG_CLIPBOARD,
    MSG_DISPLAY_CONFIG, MSG_CAPS, MSG_GRAB, MSG_REQUEST, MSG_RELEASE,
    MSG_FILE_START, MSG_FILE_STATUS, MSG_FILE_DATA, MSG_DISCONNECTED,
    MSG_MAX_CLIPBOARD, MSG_VOLUME, MSG_GRAPHICS,
};
enum {
    CAP_MONITORS_CONFIG = 1, CAP_REPLY = 2, CAP_BY_DEMAND = 5,
    CAP_SELECTION = 6, CAP_LINEEND_LF = 8, CAP_MAX_CLIPBOARD = 10,
    CAP_FILE_ERRORS = 14,
};
enum { FILE_CAN_SEND, FILE_CANCELLED, FILE_ERROR, FILE_SUCCESS };
#define TEXT_TYPE 1
#define CHUNK_HEADER 8
#define HEADER 20

typedef struct Options {
    const char *port, *fifo, *dir;
    uint32_t caps, chunk_max;
    bool quiet;
} Options;

extern Options opt;
extern uint32_t peer_caps;

static inline uint32_t get32(const void *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return le32toh(v);
}

static inline uint64_t get64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return le64toh(v);
}

static inline uint8_t *put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, 4);
    return p + 4;
}

/* agent-out.c */
/* Room for bytes that come next; out_shorten() takes the end of them back. */
uint8_t *out_reserve(size_t len);
void out_shorten(size_t len);
void out_reset(void);
/* Nothing more is queued until out_reset(). */
void out_mute(void);
bool out_waits(void);
void out_write(int port);
void send_caps(uint32_t request);
/* With both sides able to, clipboard messages begin with the selection. */
bool selections(void);
void send_clipboard(uint32_t type, bool with_type, const void *data,
                    size_t len);
void send_status(uint32_t id, uint32_t status);
void send_flood(uint64_t bytes, uint32_t size, uint64_t start);

/* agent-in.c */
void on_bytes(const uint8_t *data, size_t len);
void in_reset(void);

/* agent-files.c */
void on_file_start(const uint8_t *body, uint32_t size);
void on_file_data(const uint8_t *body, uint32_t size);
void on_file_status(const uint8_t *body, uint32_t size);
void files_drop(const char *why);
void files_hold(void);
void files_accept(const char *which);
void files_cancel(const char *which);

/* agent-clip.c */
void on_clipboard(uint32_t kind, const uint8_t *body, uint32_t size);
void clip_set(const char *path);
void clip_get(const char *path);

#endif
