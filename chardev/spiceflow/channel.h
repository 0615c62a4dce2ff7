/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One SPICE channel: a connection after its link phase.  It cuts what it
 * receives into messages, queues what it sends, and is read only as far as
 * its user has room.
 */
#ifndef CHARDEV_SPICEFLOW_CHANNEL_H
#define CHARDEV_SPICEFLOW_CHANNEL_H

#include "chardev/spiceflow/flow.h"
#include "chardev/spiceflow/wire.h"
#include "io/channel.h"
#include "qemu/units.h"
#include "pace.h"
#include "reason.h"

typedef struct SFChannel SFChannel;

/* Bytes of the largest read: more than a UNIX socket holds. */
#define SF_CHANNEL_READ_MAX (256 * KiB)

/**
 * SFBody: what to do with a message whose header has come.
 * @SF_BODY_COLLECT: gather the body, then SFChannelOps.message
 * @SF_BODY_STREAM: SFChannelOps.stream for each part as it comes
 * @SF_BODY_SKIP: read and forget it
 * @SF_BODY_REFUSE: close the channel
 */
typedef enum {
    SF_BODY_COLLECT,
    SF_BODY_STREAM,
    SF_BODY_SKIP,
    SF_BODY_REFUSE,
} SFBody;

/**
 * struct SFChannelOps: the user of a channel.  Any may close the channel.
 * @header: decides on a message by type and size.  Sizes must be checked here:
 *   the body is gathered as it comes, but up to @size.  Not called for the
 *   messages that every channel has, except those of a migration.
 * @message: a gathered message; may be changed in place
 * @stream: the next bytes of a body; may be changed in place, and stay valid
 *   until @received.  Optional.
 * @received: all that was read is handed over.  Optional.
 * @room: how many bytes may be read now; after 0 sf_channel_room() is owed.
 *   Optional: no limit.
 * @sent: the oldest message kept by sf_channel_send_message() is out.
 *   Optional.
 * @may_send: after sf_channel_waits() it may send again.  Optional.
 * @closed: the connection is gone, and the channel calls nothing any more.
 */
typedef struct SFChannelOps {
    SFBody (*header)(void *opaque, uint16_t type, uint32_t size);
    void (*message)(void *opaque, uint16_t type, uint8_t *data, size_t len);
    void (*stream)(void *opaque, uint16_t type, uint8_t *data, size_t len);
    void (*received)(void *opaque);
    size_t (*room)(void *opaque);
    void (*sent)(void *opaque);
    void (*may_send)(void *opaque);
    void (*closed)(void *opaque);
} SFChannelOps;

/**
 * struct SFChannelInfo: what the link phase found out about a channel.
 * @ioc: the connection, non-blocking; a reference is taken
 * @tls: whether it is encrypted
 * @local: whether its peer is on this machine's UNIX sockets
 * @peer: text that tells where it comes from
 * @pace: of its server, or NULL
 * @mess: what the client said
 */
typedef struct SFChannelInfo {
    QIOChannel *ioc;
    bool tls;
    bool local;
    const char *peer;
    SFPace *pace;
    SpiceFlowLinkMess mess;
} SFChannelInfo;

/**
 * sf_channel_new: a channel; nothing is read before sf_channel_set_ops().
 * @info: copied
 *
 * Returns: a channel with one reference.
 */
SFChannel *sf_channel_new(const SFChannelInfo *info);
SFChannel *sf_channel_ref(SFChannel *channel);
void sf_channel_unref(SFChannel *channel);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SFChannel, sf_channel_unref)

/**
 * sf_channel_set_ops: give the channel its user and start to read.
 * @channel: the channel
 * @ops: borrowed
 * @opaque: handed to the ops
 */
void sf_channel_set_ops(SFChannel *channel, const SFChannelOps *ops,
                        void *opaque);

/**
 * sf_channel_info: what sf_channel_new() was given.
 * @channel: the channel
 *
 * Returns: borrowed.
 */
const SFChannelInfo *sf_channel_info(const SFChannel *channel);

/**
 * sf_channel_closed: whether the channel is closed or about to be.
 * @channel: the channel
 */
bool sf_channel_closed(const SFChannel *channel);

/**
 * sf_channel_send: send a message of the server's own.
 * @channel: the channel
 * @type: message type
 * @body: its bytes, taken over; NULL for none
 */
void sf_channel_send(SFChannel *channel, uint16_t type, GByteArray *body);

/**
 * sf_channel_send_message: send a message of the flow machine.  Written from
 * where it lies when nothing is before it.
 * @channel: the channel
 * @type: message type
 * @msg: kept when it can not be written now
 *
 * Returns: true when it is out already, false when SFChannelOps.sent follows.
 */
bool sf_channel_send_message(SFChannel *channel, uint16_t type,
                             SpiceFlowMessage *msg);

/**
 * sf_channel_send_encoded: send what a message of the flow machine was turned
 * into.
 * @channel: the channel
 * @type: message type
 * @body: its bytes, taken over
 *
 * Returns: as sf_channel_send_message().
 */
bool sf_channel_send_encoded(SFChannel *channel, uint16_t type,
                             GByteArray *body);

/**
 * sf_channel_may_send: whether a message can be sent in this turn of the main
 * loop; one that is sent all the same is queued.
 * @channel: the channel
 * @len: bytes of the message
 *
 * Returns: if not, SFChannelOps.may_send follows.
 */
bool sf_channel_may_send(SFChannel *channel, size_t len);

/**
 * sf_channel_waits: whether SFChannelOps.may_send is to follow.
 * @channel: the channel
 */
bool sf_channel_waits(const SFChannel *channel);

/**
 * sf_channel_room: SFChannelOps.room is worth asking again.
 * @channel: the channel
 */
void sf_channel_room(SFChannel *channel);

/**
 * sf_channel_fail: close the channel soon, from the main loop.  For places
 * that must not take away a client under their callers, such as a frontend's
 * write.
 * @channel: the channel
 * @reason: why
 * @why: the same as one phrase, or NULL
 */
void sf_channel_fail(SFChannel *channel, SFReason reason, const char *why);

/**
 * sf_channel_close: close the channel now.
 * @channel: the channel
 * @reason: why, unless it has failed before: then that is why
 * @why: the same as one phrase, or NULL
 */
void sf_channel_close(SFChannel *channel, SFReason reason, const char *why);

/**
 * sf_channel_reason: why a channel was closed or has failed.
 * @channel: the channel; sf_channel_closed()
 */
SFReason sf_channel_reason(const SFChannel *channel);

/**
 * sf_channel_why: the same as one phrase.
 * @channel: the channel; sf_channel_closed()
 *
 * Returns: borrowed.
 */
const char *sf_channel_why(const SFChannel *channel);

/*
 * The client moves to another server: channel-move.c
 */

/**
 * sf_channel_freeze: the state of the channel's device is saved: read nothing
 * more.  What waits for the socket still goes out.
 * @channel: the channel
 */
void sf_channel_freeze(SFChannel *channel);

/**
 * sf_channel_thaw: nothing came of it; go on.
 * @channel: the channel, frozen or not
 */
void sf_channel_thaw(SFChannel *channel);

/**
 * sf_channel_hand_over: the state has arrived at the target: tell the client
 * to go there, and give it along what the state does not have.  Nothing else
 * is sent or received from here on.
 * @channel: the channel, frozen
 */
void sf_channel_hand_over(SFChannel *channel);

/**
 * sf_channel_await: before anything else the client has to bring along what
 * the source received after the state was saved.
 * @channel: the channel, that has received nothing so far
 * @wait: false: not so any more
 */
void sf_channel_await(SFChannel *channel, bool wait);

/**
 * sf_channel_awaits: whether that has not come yet.
 * @channel: the channel
 */
bool sf_channel_awaits(const SFChannel *channel);

/**
 * sf_channel_silent_for: how long the peer's machine has not been heard of.
 * A peer that is alive but does not read still counts as heard.
 * @channel: the channel
 *
 * Returns: ms; 0 where it can not be known.
 */
uint32_t sf_channel_silent_for(const SFChannel *channel);

/**
 * sf_channel_queued: bytes that wait for the socket.
 * @channel: the channel
 */
size_t sf_channel_queued(const SFChannel *channel);

#endif
