/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One SPICE channel.
 *
 * Receiving.  The socket is read into a buffer on the stack of the read
 * function, never more than the user has room for, so what was read can be
 * handed on and an idle channel holds no buffer.  Only a gathered message may
 * take more room than it has bytes; what was read behind it is then held.  A
 * message that is split over reads leaves its header, and the body of a
 * gathered message, behind in the channel.  With no room the watch is removed:
 * back pressure reaches the client through its socket.  sf_channel_room() then
 * reads at once instead of waiting for the descriptor, because a TLS session
 * may hold bytes that raise no descriptor any more.
 *
 * Sending is in channel-send.c.  While the client of a channel moves to another
 * server, channel-move.c has what comes.
 *
 * Closing.  sf_channel_close() is final and synchronous.  An error met while
 * sending may be met inside a frontend's write, perhaps on a vCPU's thread, so
 * there sf_channel_fail() leaves the closing to an idle source of the main
 * loop.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "channel-priv.h"
#include "compat.h"
#include "trace.h"

#ifdef CONFIG_LINUX
#include <netinet/tcp.h>
#endif

/* Full reads in a row before other sources get their turn. */
#define READS_PER_TURN      4
/*
 * Segments or window probes in a row without an answer that make silence mean
 * something.  To a client that has stopped to read, probes are minutes apart,
 * but each is answered.
 */
#define UNANSWERED_MIN      2
/* Bodies of the messages every channel has: PONG is 12 bytes. */
#define BASE_MESSAGE_MAX    64

/* Encrypting a byte takes as long as copying so many. */
#define TLS_COST            4

static void channel_read(SFChannel *channel);
static void channel_go(void *opaque);

SFChannel *sf_channel_new(const SFChannelInfo *info)
{
    SFChannel *channel = g_new0(SFChannel, 1);

    channel->refs = 1;
    channel->info = *info;
    channel->peer = g_strdup(info->peer);
    channel->info.peer = channel->peer;
    channel->mini = info->mess.common_caps &
                    BIT(SPICE_COMMON_CAP_MINI_HEADER);
    object_ref(OBJECT(info->ioc));
    if (info->tls) {
        channel->tls = SF_TLS_BUFFER(QIO_CHANNEL_TLS(info->ioc)->master);
        sf_tls_buffer_start(channel->tls);
    }
    QSIMPLEQ_INIT(&channel->items);
    channel->paced = (SFPaced) {
        .pace = info->pace,
        .go = channel_go,
        .opaque = channel,
        .cost = info->tls ? TLS_COST : 1,
    };
    return channel;
}

SFChannel *sf_channel_ref(SFChannel *channel)
{
    channel->refs++;
    return channel;
}

void sf_channel_unref(SFChannel *channel)
{
    if (!channel || --channel->refs) {
        return;
    }
    sf_channel_close(channel, SF_REASON_LEFT, "freed");
    object_unref(OBJECT(channel->info.ioc));
    g_free(channel->why);
    g_free(channel->peer);
    g_free(channel);
}

const SFChannelInfo *sf_channel_info(const SFChannel *channel)
{
    return &channel->info;
}

bool sf_channel_closed(const SFChannel *channel)
{
    return channel->closed || channel->failed;
}

SFReason sf_channel_reason(const SFChannel *channel)
{
    return channel->reason;
}

const char *sf_channel_why(const SFChannel *channel)
{
    return channel->why;
}

size_t sf_channel_queued(const SFChannel *channel)
{
    return channel->queued +
           (channel->tls ? sf_tls_buffer_waiting(channel->tls) : 0);
}

/*
 * A watch on the socket.  GLib takes the descriptor of a source that may not
 * recurse out of its main context around every dispatch, and each time wakes
 * up the context by writing to a descriptor of its own: three system calls for
 * nothing, a tenth of a round trip.  Our sources may recurse: a main loop that
 * runs inside a callback finds `reading` set, or a queue in order.
 */
guint channel_watch(SFChannel *channel, GIOCondition condition,
                    QIOChannelFunc func)
{
    g_autoptr(GSource) source = qio_channel_create_watch(channel->info.ioc,
                                                         condition);

    g_source_set_callback(source, (GSourceFunc)(void (*)(void))func, channel,
                          NULL);
    g_source_set_can_recurse(source, true);
    return g_source_attach(source, NULL);
}

/*
 * Later: the main loop's next turn, whoever's thread this is
 */

static gboolean channel_later(void *opaque)
{
    g_autoptr(SFChannel) channel = sf_channel_ref(opaque);

    channel->later_tag = 0;
    if (channel->failed) {
        sf_channel_close(channel, channel->reason, NULL);
    } else {
        channel_read(channel);
    }
    return G_SOURCE_REMOVE;
}

void channel_schedule(SFChannel *channel)
{
    if (!channel->later_tag) {
        channel->later_tag = g_idle_add_full(G_PRIORITY_DEFAULT, channel_later,
                                             channel, NULL);
    }
}

/*
 * Turns of the main loop: see pace.c
 */

static void channel_wait(SFChannel *channel)
{
    if (sf_pace_wait(&channel->paced)) {
        g_clear_handle_id(&channel->in_tag, g_source_remove);
    }
    g_clear_handle_id(&channel->out_tag, g_source_remove);
}

bool channel_may_move(SFChannel *channel, size_t len)
{
    if (len > sf_pace_limit(&channel->paced)) {
        channel_wait(channel);
        return false;
    }
    return true;
}

bool sf_channel_waits(const SFChannel *channel)
{
    return channel->paced.waits;
}

static void channel_go(void *opaque)
{
    g_autoptr(SFChannel) channel = sf_channel_ref(opaque);

    if (!channel->paused) {
        channel_watch_input(channel);
        if (channel->tls || channel->held) {
            channel_schedule(channel);
        }
    }
    channel_flush(channel);
    if (!sf_channel_closed(channel) && !sf_channel_waits(channel) &&
        channel->ops->may_send) {
        channel->ops->may_send(channel->opaque);
    }
}

/* The first reason counts: what follows is a consequence. */
static void channel_set_reason(SFChannel *channel, SFReason reason,
                               const char *why)
{
    if (!channel->why) {
        if (channel_is_mute(channel) && reason == SF_REASON_LEFT) {
            reason = SF_REASON_MIGRATION;
        }
        channel->reason = reason;
        channel->why = g_strdup(why ?: sf_reason_text(reason));
    }
}

void sf_channel_fail(SFChannel *channel, SFReason reason, const char *why)
{
    if (sf_channel_closed(channel)) {
        return;
    }
    channel_set_reason(channel, reason, why);
    trace_spiceflow_channel_fail(channel->info.mess.channel_type,
                                 channel->info.mess.channel_id, channel->peer,
                                 channel->why);
    channel->failed = true;
    g_clear_handle_id(&channel->in_tag, g_source_remove);
    g_clear_handle_id(&channel->out_tag, g_source_remove);
    sf_pace_leave(&channel->paced);
    channel_schedule(channel);
}

/*
 * Receiving
 */

/* Messages that every channel has, and all of them may ignore. */
static bool is_base_message(uint16_t type)
{
    switch (type) {
    case SPICE_MSGC_ACK_SYNC:
    case SPICE_MSGC_ACK:
    case SPICE_MSGC_PONG:
    case SPICE_MSGC_DISCONNECTING:
        return true;
    default:
        return false;
    }
}

/* It says that something was read, is no answer and waits for none. */
static bool is_receipt(const SFChannel *channel)
{
    return is_base_message(channel->type) ||
           (channel->type == SPICE_MSGC_MAIN_AGENT_TOKEN &&
            channel->info.mess.channel_type == SPICE_CHANNEL_MAIN);
}

/* Returns false when the channel was closed for it. */
static bool message_begin(SFChannel *channel)
{
    spice_flow_header_decode(channel->header, channel->mini, &channel->type,
                             &channel->left);
    trace_spiceflow_channel_receive(channel->info.mess.channel_type,
                                    channel->info.mess.channel_id,
                                    channel->type, channel->left);
    if (!is_receipt(channel)) {
        channel->in_row = 0;
    }
    if (channel->move == MOVE_AWAITING) {
        channel->disposition = channel_arrival_header(channel);
    } else if (is_base_message(channel->type)) {
        channel->disposition = channel->left <= BASE_MESSAGE_MAX ?
                               SF_BODY_SKIP : SF_BODY_REFUSE;
    } else {
        channel->disposition = channel->ops->header(channel->opaque,
                                                    channel->type,
                                                    channel->left);
    }
    if (channel->disposition == SF_BODY_REFUSE && !channel->closed) {
        g_autofree char *why = g_strdup_printf("message %u of %u bytes is not "
                                               "expected", channel->type,
                                               channel->left);
        sf_channel_close(channel, SF_REASON_PROTOCOL_ERROR, why);
    }
    return !channel->closed;
}

/* A gathered message is there. */
static void message_deliver(SFChannel *channel, uint8_t *data, size_t len)
{
    if (channel->move == MOVE_AWAITING) {
        channel_arrive(channel, data, len);
    } else {
        channel->ops->message(channel->opaque, channel->type, data, len);
    }
}

static void message_end(SFChannel *channel)
{
    GByteArray *body = g_steal_pointer(&channel->body);

    channel->header_len = 0;
    if (channel->disposition == SF_BODY_COLLECT && !channel->closed) {
        message_deliver(channel, body ? body->data : NULL,
                        body ? body->len : 0);
    }
    if (body) {
        g_byte_array_unref(body);
    }
}

/* A part of the body; a gathered message that lies here whole is not copied. */
static void message_part(SFChannel *channel, uint8_t *data, size_t len)
{
    channel->left -= len;
    switch (channel->disposition) {
    case SF_BODY_STREAM:
        channel->ops->stream(channel->opaque, channel->type, data, len);
        break;
    case SF_BODY_COLLECT:
        if (!channel->body && channel->left == 0) {
            channel->header_len = 0;
            message_deliver(channel, data, len);
            return;
        }
        if (!channel->body) {
            channel->body = g_byte_array_new();
        }
        g_byte_array_append(channel->body, data, len);
        break;
    default:
        break;
    }
    if (channel->left == 0) {
        message_end(channel);
    }
}

/*
 * Whether the gathered message just handed over has used up the room: one may
 * stand for many more bytes than it has, when it is compressed.
 */
static bool room_is_gone(SFChannel *channel)
{
    return channel->header_len == 0 &&
           channel->disposition == SF_BODY_COLLECT && !channel->closed &&
           channel->ops->room && channel->ops->room(channel->opaque) == 0;
}

/* Returns how much is done with: not all when the room is gone. */
static size_t channel_parse(SFChannel *channel, uint8_t *data, size_t len)
{
    size_t header_size = spice_flow_header_size(channel->mini);
    size_t done = 0;

    while (done < len && !channel->closed) {
        bool awaiting;
        size_t n;

        if (channel->header_len < header_size) {
            n = MIN(len - done, header_size - channel->header_len);
            memcpy(channel->header + channel->header_len, data + done, n);
            channel->header_len += n;
            done += n;
            if (channel->header_len < header_size) {
                break;
            }
            if (message_begin(channel) && channel->left == 0) {
                message_end(channel);
            }
            continue;
        }
        n = MIN(len - done, channel->left);
        awaiting = channel->move == MOVE_AWAITING;
        message_part(channel, data + done, n);
        done += n;
        /* What MIGRATE_DATA has brought comes before what is behind it. */
        if ((awaiting && channel->move != MOVE_AWAITING) ||
            room_is_gone(channel)) {
            break;
        }
    }
    return done;
}

void channel_hold(SFChannel *channel, const uint8_t *data, size_t len)
{
    if (!channel->held) {
        channel->held = g_byte_array_new();
    }
    g_byte_array_append(channel->held, data, len);
}

static void channel_tell_received(SFChannel *channel)
{
    if (channel->ops->received && !channel->closed && !channel_moves(channel)) {
        channel->ops->received(channel->opaque);
    }
}

/* What was read while there was no room for it. */
static void channel_parse_held(SFChannel *channel, size_t room)
{
    g_autoptr(GByteArray) held = g_byte_array_ref(channel->held);

    channel->held_at += channel_parse(channel, held->data + channel->held_at,
                                      MIN(held->len - channel->held_at, room));
    /* What the user was given is valid until then. */
    channel_tell_received(channel);
    if (channel->held && channel->held_at == held->len) {
        channel->held_at = 0;
        g_clear_pointer(&channel->held, g_byte_array_unref);
    }
}

/* How much may be read now; after 0 the user tells when that changes. */
static size_t channel_room(SFChannel *channel)
{
    size_t room = channel_moves(channel) || !channel->ops->room ?
                  SF_CHANNEL_READ_MAX : channel->ops->room(channel->opaque);

    return MIN(room, SF_CHANNEL_READ_MAX);
}

/* Bytes fresh from the socket. */
static void channel_received(SFChannel *channel, uint8_t *data, size_t len)
{
    size_t done;

    if (channel_is_mute(channel)) {
        channel_gather(channel, data, len);
        return;
    }
    done = channel_parse(channel, data, len);
    if (done < len && !channel->closed) {
        channel_hold(channel, data + done, len - done);
    }
}

/* A TLS session gives one record at a time: as many as there are. */
static ssize_t channel_read_records(SFChannel *channel, uint8_t *data,
                                    size_t room, Error **errp)
{
    QIOChannel *ioc = channel->info.ioc;
    ssize_t n = qio_channel_read(ioc, (char *)data, room, errp);
    size_t done = MAX(n, 0);

    while (n > 0 && done < room && sf_tls_buffer_has_more(channel->tls)) {
        /* an error comes again */
        n = qio_channel_read(ioc, (char *)data + done, room - done, NULL);
        done += MAX(n, 0);
    }
    return done ? (ssize_t)done : n;
}

/* Read once.  Returns whether there may be more at once. */
static bool channel_read_some(SFChannel *channel, uint8_t *data)
{
    g_autoptr(Error) err = NULL;
    size_t room = channel_room(channel);
    ssize_t n;

    if (room == 0) {
        channel->paused = true;
        g_clear_handle_id(&channel->in_tag, g_source_remove);
        return false;
    }
    room = MIN(room, sf_pace_limit(&channel->paced));
    if (room == 0) {
        channel_wait(channel);
        return false;
    }
    if (channel->held) {
        channel_parse_held(channel, room);
        return !channel->closed;
    }
    n = channel->tls ? channel_read_records(channel, data, room, &err)
                     : qio_channel_read(channel->info.ioc, (char *)data, room,
                                        &err);
    if (n == QIO_CHANNEL_ERR_BLOCK) {
        return false;
    }
    if (n <= 0) {
        sf_channel_close(channel, SF_REASON_LEFT,
                         n ? error_get_pretty(err) : NULL);
        return false;
    }
    sf_pace_moved(&channel->paced, n);
    channel_received(channel, data, n);
    if (channel->closed) {
        return false;
    }
    return channel->held || n == room ||
           (channel->tls && sf_tls_buffer_has_more(channel->tls));
}

static void channel_read(SFChannel *channel)
{
    /* Of the main loop's stack, which has megabytes. */
    QEMU_UNINITIALIZED uint8_t data[SF_CHANNEL_READ_MAX];
    unsigned turns = READS_PER_TURN;
    bool more = true;

    if (channel->reading || sf_channel_closed(channel)) {
        return;
    }
    if (channel->move == MOVE_FROZEN) {
        g_clear_handle_id(&channel->in_tag, g_source_remove);
        return;
    }
    channel->reading = true;
    channel->paused = false;
    while (more && turns--) {
        more = channel_read_some(channel, data);
        channel_tell_received(channel);
    }
    channel->reading = false;
    channel_flush_session(channel);
    if (more && (channel->tls || channel->held)) {
        channel_schedule(channel);
    }
}

static gboolean channel_readable(QIOChannel *ioc, GIOCondition condition,
                                 void *opaque)
{
    g_autoptr(SFChannel) channel = sf_channel_ref(opaque);

    channel_read(channel);
    return channel->in_tag ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

void channel_watch_input(SFChannel *channel)
{
    if (!channel->in_tag && !sf_channel_closed(channel) &&
        !sf_channel_waits(channel)) {
        channel->in_tag = channel_watch(channel, G_IO_IN, channel_readable);
    }
}

void sf_channel_room(SFChannel *channel)
{
    if (channel->paused && !sf_channel_closed(channel)) {
        channel->paused = false;
        channel_watch_input(channel);
        channel_schedule(channel);
    }
}

void sf_channel_set_ops(SFChannel *channel, const SFChannelOps *ops,
                        void *opaque)
{
    channel->ops = ops;
    channel->opaque = opaque;
    channel->paused = false;
    channel_watch_input(channel);
    /* What came together with the end of the link phase raises nothing. */
    if (channel->tls || channel->held) {
        channel_schedule(channel);
    }
}

void sf_channel_close(SFChannel *channel, SFReason reason, const char *why)
{
    if (channel->closed) {
        return;
    }
    channel_set_reason(channel, reason, why);
    trace_spiceflow_channel_close(channel->info.mess.channel_type,
                                  channel->info.mess.channel_id, channel->peer,
                                  channel->why);
    channel->closed = true;
    g_clear_handle_id(&channel->in_tag, g_source_remove);
    g_clear_handle_id(&channel->out_tag, g_source_remove);
    g_clear_handle_id(&channel->later_tag, g_source_remove);
    sf_pace_leave(&channel->paced);
    channel_uncork(channel);
    channel_drop_items(channel);
    g_clear_pointer(&channel->gathered, g_byte_array_unref);
    g_clear_pointer(&channel->body, g_byte_array_unref);
    g_clear_pointer(&channel->held, g_byte_array_unref);
    qio_channel_close(channel->info.ioc, NULL);
    if (channel->ops) {
        channel->ops->closed(channel->opaque);
    }
}

uint32_t sf_channel_silent_for(const SFChannel *channel)
{
#ifdef CONFIG_LINUX
    QIOChannelSocket *socket;
    struct tcp_info info = { 0 };
    socklen_t len = sizeof(info);

    if (channel->closed || channel->info.local) {
        return 0;
    }
    socket = channel->tls ? sf_tls_buffer_socket(channel->tls)
                          : QIO_CHANNEL_SOCKET(channel->info.ioc);
    if (getsockopt(socket->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
        MAX(info.tcpi_retransmits, info.tcpi_probes) >= UNANSWERED_MIN) {
        return MIN(info.tcpi_last_ack_recv, info.tcpi_last_data_recv);
    }
#endif
    return 0;
}
