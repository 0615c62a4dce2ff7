/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of a channel share: channel.c has its life and what it
 * receives, channel-send.c what it sends, channel-move.c how its client takes
 * it to another server.  Nobody else includes this.
 */
#ifndef CHARDEV_SPICEFLOW_CHANNEL_PRIV_H
#define CHARDEV_SPICEFLOW_CHANNEL_PRIV_H

#include "qemu/queue.h"
#include "channel.h"
#include "tls-buffer.h"

/* Where a channel is on the way of its client to another server. */
typedef enum {
    MOVE_NONE,
    MOVE_FROZEN,        /* source: nothing is read */
    MOVE_FLUSHING,      /* source: what comes is gathered up to FLUSH_MARK */
    MOVE_DONE,          /* source: MIGRATE_DATA was sent, what comes is lost */
    MOVE_AWAITING,      /* target: MIGRATE_DATA has to come first */
} SFChannelMove;

typedef struct SFItem {
    QSIMPLEQ_ENTRY(SFItem) next;
    uint8_t header[SPICE_FLOW_HEADER_MAX];
    size_t header_len;
    GByteArray *body;           /* where the data lies, or NULL */
    SpiceFlowMessage *msg;      /* likewise */
    bool counts;                /* of the flow machine: reported as sent */
    const uint8_t *data;
    size_t len;
} SFItem;

struct SFChannel {
    unsigned refs;
    SFChannelInfo info;
    SFTlsBuffer *tls;           /* below the session, or NULL */
    char *peer;
    const SFChannelOps *ops;
    void *opaque;
    bool mini;
    bool reading;
    bool paused;
    bool failed;
    bool closed;
    SFChannelMove move;
    SFReason reason;            /* of the failure, or of the closing */
    char *why;
    guint in_tag;
    guint out_tag;
    guint later_tag;            /* read again, or close */

    /* The message that is being received. */
    uint8_t header[SPICE_FLOW_HEADER_MAX];
    size_t header_len;
    uint16_t type;
    uint32_t left;              /* bytes of its body still to come */
    SFBody disposition;
    GByteArray *body;
    GByteArray *held;           /* read, but there is no room for it yet */
    size_t held_at;             /* bytes of it that are done with */

    /* What the client sends while it is handed over, and its state is gone. */
    GByteArray *gathered;

    /* What waits for the socket, or for the main loop's next turn. */
    SFPaced paced;
    uint64_t serial;
    QSIMPLEQ_HEAD(, SFItem) items;
    size_t items_offset;        /* bytes of the first item already out */
    size_t queued;
    size_t control;             /* of these, the server's own */
    size_t untried;             /* of these, come since the socket was tried */
    unsigned in_row;            /* small messages sent with no word between */
    unsigned corked;            /* of the queue, wait for others to come */
    bool flushing;              /* who is told of what is out may send again */
};

/* channel.c */

/* A watch on the socket. */
guint channel_watch(SFChannel *channel, GIOCondition condition,
                    QIOChannelFunc func);
/*
 * Whether so much may be sent in this turn of the main loop.  If not, the
 * channel waits for a later one.
 */
bool channel_may_move(SFChannel *channel, size_t len);
/* Read again, or close, from the main loop's next turn. */
void channel_schedule(SFChannel *channel);
void channel_watch_input(SFChannel *channel);
/* These bytes come before all that the socket has. */
void channel_hold(SFChannel *channel, const uint8_t *data, size_t len);

/* channel-send.c */

/* As sf_channel_send(), of any size and in any state. */
void channel_send_control(SFChannel *channel, uint16_t type, GByteArray *body);
/* Send what waits for others to come, if the socket takes it. */
void channel_uncork(SFChannel *channel);
/* Send what a TLS session has to say of its own accord. */
void channel_flush_session(SFChannel *channel);
/* Send what waits, as far as the socket takes it. */
void channel_flush(SFChannel *channel);
/* Drop all that waits for the socket. */
void channel_drop_items(SFChannel *channel);

/* channel-move.c */

/* Whether what comes now is not for the channel's user. */
bool channel_moves(const SFChannel *channel);
/* Such bytes. */
void channel_gather(SFChannel *channel, const uint8_t *data, size_t len);
/* How the message that has come, while MOVE_AWAITING, is to be taken. */
SFBody channel_arrival_header(SFChannel *channel);
/* The body of that message. */
void channel_arrive(SFChannel *channel, const uint8_t *data, size_t len);

static inline bool channel_is_mute(const SFChannel *channel)
{
    return channel->move == MOVE_FLUSHING || channel->move == MOVE_DONE;
}

#endif
