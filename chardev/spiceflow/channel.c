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
 * Sending.  A message goes to the socket directly while nothing is queued,
 * header and body in one call.  What the socket does not take is queued, and a
 * watch on the socket sends the queue many messages at a time.  With TLS the
 * same is done record by record: a header and what follows it are copied
 * together to fill one, the inside of a long body is encrypted from where it
 * lies.
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
#include "channel.h"
#include "compat.h"
#include "trace.h"

#ifdef CONFIG_LINUX
#include <netinet/tcp.h>
#endif

/* Bytes of one read. */
#define READ_SIZE           (64 * KiB)
/* Full reads in a row before other sources get their turn. */
#define READS_PER_TURN      4
/* Turns of the main loop in which no further TLS record is looked for. */
#define TLS_SKIP_MAX        15
/* Messages of one write. */
#define WRITE_ITEMS         32
/* Bytes of the largest TLS record. */
#define TLS_RECORD          (16 * KiB)
/* Messages of the server's own that a client may leave unread. */
#define CONTROL_MAX         (64 * KiB)
/*
 * Segments or window probes in a row without an answer that make silence mean
 * something.  To a client that has stopped to read, probes are minutes apart,
 * but each is answered.
 */
#define UNANSWERED_MIN      2
/* Bodies of the messages every channel has: PONG is 12 bytes. */
#define BASE_MESSAGE_MAX    64

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
    char *peer;
    const SFChannelOps *ops;
    void *opaque;
    bool mini;
    bool reading;
    bool paused;
    bool failed;
    bool closed;
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

    /* What waits for the socket. */
    uint64_t serial;
    QSIMPLEQ_HEAD(, SFItem) items;
    size_t items_offset;        /* bytes of the first item already out */
    size_t queued;
    size_t control;             /* of these, the server's own */
    size_t tls_retry;           /* length of a record that is half out */
    unsigned tls_vain;          /* looks for a further record: see tls_more() */
    unsigned tls_skip;
};

static void channel_read(SFChannel *channel);
static void channel_flush(SFChannel *channel);

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
    QSIMPLEQ_INIT(&channel->items);
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
    return channel->queued;
}

/*
 * A watch on the socket.  GLib takes the descriptor of a source that may not
 * recurse out of its main context around every dispatch, and each time wakes
 * up the context by writing to a descriptor of its own: three system calls for
 * nothing, a tenth of a round trip.  Our sources may recurse: a main loop that
 * runs inside a callback finds `reading` set, or a queue in order.
 */
static guint channel_watch(SFChannel *channel, GIOCondition condition,
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

static void channel_schedule(SFChannel *channel)
{
    if (!channel->later_tag) {
        channel->later_tag = g_idle_add_full(G_PRIORITY_DEFAULT, channel_later,
                                             channel, NULL);
    }
}

/* The first reason counts: what follows is a consequence. */
static void channel_set_reason(SFChannel *channel, SFReason reason,
                               const char *why)
{
    if (!channel->why) {
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
    channel_schedule(channel);
}

/*
 * Sending
 */

static void item_free(SFItem *item)
{
    if (item->body) {
        g_byte_array_unref(item->body);
    }
    if (item->msg) {
        spice_flow_message_unref(item->msg);
    }
    g_free(item);
}

static size_t item_size(const SFItem *item)
{
    return item->header_len + item->len;
}

static void item_pop(SFChannel *channel)
{
    SFItem *item = QSIMPLEQ_FIRST(&channel->items);
    bool counts = item->counts;

    QSIMPLEQ_REMOVE_HEAD(&channel->items, next);
    channel->queued -= item_size(item);
    if (!counts) {
        channel->control -= item_size(item);
    }
    item_free(item);
    if (counts && channel->ops->sent && !channel->closed) {
        channel->ops->sent(channel->opaque);
    }
}

/* @n bytes of the queue are out. */
static void items_advance(SFChannel *channel, size_t n)
{
    channel->items_offset += n;
    while (!QSIMPLEQ_EMPTY(&channel->items)) {
        size_t size = item_size(QSIMPLEQ_FIRST(&channel->items));

        if (channel->items_offset < size) {
            break;
        }
        channel->items_offset -= size;
        item_pop(channel);
    }
}

/* Write; returns the bytes taken, 0 for none now, -1 after a failure. */
static ssize_t channel_writev(SFChannel *channel, const struct iovec *iov,
                              size_t n)
{
    g_autoptr(Error) err = NULL;
    ssize_t ret = qio_channel_writev(channel->info.ioc, iov, n, &err);

    if (ret == QIO_CHANNEL_ERR_BLOCK) {
        return 0;
    }
    if (ret < 0) {
        sf_channel_fail(channel, SF_REASON_LEFT, error_get_pretty(err));
        return -1;
    }
    return ret;
}

/* Some messages of the queue; @asked is set to how many bytes that were. */
static ssize_t items_write(SFChannel *channel, size_t *asked)
{
    struct iovec iov[WRITE_ITEMS * 2];
    size_t skip = channel->items_offset;
    unsigned n = 0;
    SFItem *item;

    *asked = 0;
    QSIMPLEQ_FOREACH(item, &channel->items, next) {
        size_t in_header = MIN(skip, item->header_len);

        if (n == ARRAY_SIZE(iov)) {
            break;
        }
        *asked += item_size(item) - skip;
        iov[n].iov_base = item->header + in_header;
        iov[n++].iov_len = item->header_len - in_header;
        skip -= in_header;
        iov[n].iov_base = (void *)(item->data + skip);
        iov[n++].iov_len = item->len - skip;
        skip = 0;
    }
    return channel_writev(channel, iov, n);
}

static size_t item_copy(const SFItem *item, size_t skip, uint8_t *to,
                        size_t room)
{
    size_t in_header = MIN(skip, item->header_len);
    size_t n = MIN(room, item->header_len - in_header);
    size_t m = MIN(room - n, item->len - (skip - in_header));

    memcpy(to, item->header + in_header, n);
    if (m) {
        memcpy(to + n, item->data + (skip - in_header), m);
    }
    return n + m;
}

/*
 * The next @len bytes, or as many as there are, from @skip into @item on: where
 * they lie if that is one place, else gathered in @copy.
 */
static struct iovec tls_record(const SFItem *item, size_t skip, size_t len,
                               uint8_t *copy)
{
    size_t fill = 0;

    if (skip >= item->header_len && item_size(item) - skip >= len) {
        return (struct iovec) {
            .iov_base = (void *)(item->data + (skip - item->header_len)),
            .iov_len = len,
        };
    }
    for (; item && fill < len; item = QSIMPLEQ_NEXT(item, next)) {
        fill += item_copy(item, skip, copy + fill, len - fill);
        skip = 0;
    }
    return (struct iovec) { .iov_base = copy, .iov_len = fill };
}

/*
 * One record, from @skip into @item on; @asked is set to its length.  GnuTLS
 * has encrypted what the socket did not take, and wants to be given the same
 * bytes until it is out.
 */
static ssize_t tls_write(SFChannel *channel, const SFItem *item, size_t skip,
                         size_t *asked)
{
    QEMU_UNINITIALIZED uint8_t copy[TLS_RECORD];
    struct iovec iov = tls_record(item, skip,
                                  channel->tls_retry ?: TLS_RECORD, copy);
    ssize_t n = channel_writev(channel, &iov, 1);

    *asked = iov.iov_len;
    channel->tls_retry = n ? 0 : iov.iov_len;
    return n;
}

static gboolean channel_writable(QIOChannel *ioc, GIOCondition condition,
                                 void *opaque)
{
    g_autoptr(SFChannel) channel = sf_channel_ref(opaque);

    channel_flush(channel);
    return channel->out_tag ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void channel_flush(SFChannel *channel)
{
    size_t asked = 0;
    ssize_t n = 0;

    /* After a short write the socket is full. */
    while (n >= 0 && (size_t)n == asked &&
           !channel->closed && !QSIMPLEQ_EMPTY(&channel->items)) {
        n = channel->info.tls ? tls_write(channel,
                                          QSIMPLEQ_FIRST(&channel->items),
                                          channel->items_offset, &asked)
                              : items_write(channel, &asked);
        if (n > 0) {
            items_advance(channel, n);
        }
    }
    if (sf_channel_closed(channel) || QSIMPLEQ_EMPTY(&channel->items)) {
        g_clear_handle_id(&channel->out_tag, g_source_remove);
    } else if (!channel->out_tag) {
        channel->out_tag = channel_watch(channel, G_IO_OUT,
                                         channel_writable);
    }
}

static SFItem item_direct(SFChannel *channel, uint16_t type,
                          const uint8_t *data, size_t len)
{
    SFItem item = { .data = data, .len = len };

    item.header_len = spice_flow_header_encode(item.header, channel->mini,
                                               ++channel->serial, type, len);
    return item;
}

static void item_queue(SFChannel *channel, SFItem *item)
{
    QSIMPLEQ_INSERT_TAIL(&channel->items, item, next);
    channel->queued += item_size(item);
    if (!item->counts) {
        channel->control += item_size(item);
    }
}

void sf_channel_send(SFChannel *channel, uint16_t type, GByteArray *body)
{
    SFItem *item;

    if (sf_channel_closed(channel)) {
        if (body) {
            g_byte_array_unref(body);
        }
        return;
    }
    item = g_new0(SFItem, 1);
    *item = item_direct(channel, type, body ? body->data : NULL,
                        body ? body->len : 0);
    item->body = body;
    item_queue(channel, item);
    trace_spiceflow_channel_send(channel->info.mess.channel_type,
                                 channel->info.mess.channel_id, type,
                                 item->len);
    channel_flush(channel);
    if (channel->control > CONTROL_MAX) {
        sf_channel_fail(channel, SF_REASON_OVERFLOW, NULL);
    }
}

/* Returns how much of @item went out at once: 0 with anything before it. */
static size_t item_write_directly(SFChannel *channel, SFItem *item)
{
    struct iovec iov[2] = {
        { .iov_base = item->header, .iov_len = item->header_len },
        { .iov_base = (void *)item->data, .iov_len = item->len },
    };
    size_t done = 0, asked;
    ssize_t n = 1;

    if (!QSIMPLEQ_EMPTY(&channel->items)) {
        return 0;
    }
    if (!channel->info.tls) {
        n = channel_writev(channel, iov, 2);
        return MAX(n, 0);
    }
    while (done < item_size(item) && n > 0) {
        n = tls_write(channel, item, done, &asked);
        done += MAX(n, 0);
    }
    return done;
}

/*
 * Send now what can be; returns whether it is all out.  What is not gets
 * queued, with its bytes made its own by @keep.
 */
static bool item_send(SFChannel *channel, SFItem *direct,
                      void (*keep)(SFItem *item))
{
    size_t done = item_write_directly(channel, direct);
    SFItem *item;

    if (done == item_size(direct) || channel->failed) {
        return true;
    }
    item = g_memdup2(direct, sizeof(*direct));
    item->counts = true;
    keep(item);
    item_queue(channel, item);
    if (QSIMPLEQ_FIRST(&channel->items) == item) {
        channel->items_offset = done;
    }
    /* A flush here would report the message as sent before this returns. */
    if (!channel->out_tag) {
        channel->out_tag = channel_watch(channel, G_IO_OUT,
                                         channel_writable);
    }
    return false;
}

static void keep_message(SFItem *item)
{
    spice_flow_message_keep(item->msg);
    item->data = spice_flow_message_data(item->msg, &item->len);
}

bool sf_channel_send_message(SFChannel *channel, uint16_t type,
                             SpiceFlowMessage *msg)
{
    const uint8_t *data;
    SFItem direct;
    size_t len;

    if (sf_channel_closed(channel)) {
        return true;
    }
    data = spice_flow_message_data(msg, &len);
    direct = item_direct(channel, type, data, len);
    direct.msg = msg;
    return item_send(channel, &direct, keep_message);
}

static void keep_body(SFItem *item)
{
    g_byte_array_ref(item->body);
}

bool sf_channel_send_encoded(SFChannel *channel, uint16_t type,
                             GByteArray *body)
{
    bool out = true;
    SFItem direct;

    if (!sf_channel_closed(channel)) {
        direct = item_direct(channel, type, body->data, body->len);
        direct.body = body;
        out = item_send(channel, &direct, keep_body);
    }
    g_byte_array_unref(body);
    return out;
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

/* Returns false when the channel was closed for it. */
static bool message_begin(SFChannel *channel)
{
    spice_flow_header_decode(channel->header, channel->mini, &channel->type,
                             &channel->left);
    trace_spiceflow_channel_receive(channel->info.mess.channel_type,
                                    channel->info.mess.channel_id,
                                    channel->type, channel->left);
    if (is_base_message(channel->type)) {
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

static void message_end(SFChannel *channel)
{
    GByteArray *body = g_steal_pointer(&channel->body);

    channel->header_len = 0;
    if (channel->disposition == SF_BODY_COLLECT && !channel->closed) {
        channel->ops->message(channel->opaque, channel->type,
                              body ? body->data : NULL, body ? body->len : 0);
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
            channel->ops->message(channel->opaque, channel->type, data, len);
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

static void channel_parse(SFChannel *channel, uint8_t *data, size_t len)
{
    size_t header_size = spice_flow_header_size(channel->mini);

    while (len && !channel->closed) {
        size_t n;

        if (channel->header_len < header_size) {
            n = MIN(len, header_size - channel->header_len);
            memcpy(channel->header + channel->header_len, data, n);
            channel->header_len += n;
            data += n;
            len -= n;
            if (channel->header_len < header_size) {
                return;
            }
            if (message_begin(channel) && channel->left == 0) {
                message_end(channel);
            }
            continue;
        }
        n = MIN(len, channel->left);
        message_part(channel, data, n);
        data += n;
        len -= n;
        if (len && room_is_gone(channel)) {
            channel->held = g_byte_array_append(g_byte_array_new(), data, len);
            return;
        }
    }
}

/* What was read while there was no room for it. */
static void channel_parse_held(SFChannel *channel)
{
    GByteArray *held = g_steal_pointer(&channel->held);

    channel_parse(channel, held->data, held->len);
    g_byte_array_unref(held);
}

/*
 * A TLS session gives one record at a time, and only reading tells whether the
 * socket has the next one.  In a stream it has, and a turn of the main loop is
 * saved; between single messages the system call is in vain.  So after each
 * time in vain it is left for a longer while.
 */
static bool tls_more(SFChannel *channel)
{
    if (channel->tls_skip) {
        channel->tls_skip--;
        return false;
    }
    return true;
}

static void tls_looked(SFChannel *channel, bool found)
{
    channel->tls_vain = found ? 0 : MIN(2 * channel->tls_vain + 1,
                                        TLS_SKIP_MAX);
    channel->tls_skip = channel->tls_vain;
}

/* Read once.  Returns whether there may be more at once. */
static bool channel_read_some(SFChannel *channel, uint8_t *data, bool again)
{
    g_autoptr(Error) err = NULL;
    size_t room = channel->ops->room ? channel->ops->room(channel->opaque)
                                     : READ_SIZE;
    ssize_t n;

    room = MIN(room, READ_SIZE);
    if (room == 0) {
        channel->paused = true;
        g_clear_handle_id(&channel->in_tag, g_source_remove);
        return false;
    }
    if (channel->held) {
        channel_parse_held(channel);
        return !channel->closed;
    }
    n = qio_channel_read(channel->info.ioc, (char *)data, room, &err);
    if (again && channel->info.tls) {
        tls_looked(channel, n != QIO_CHANNEL_ERR_BLOCK);
    }
    if (n == QIO_CHANNEL_ERR_BLOCK) {
        return false;
    }
    if (n <= 0) {
        sf_channel_close(channel, SF_REASON_LEFT,
                         n ? error_get_pretty(err) : NULL);
        return false;
    }
    channel_parse(channel, data, n);
    if (channel->closed) {
        return false;
    }
    return channel->info.tls ? tls_more(channel) : n == room;
}

static void channel_read(SFChannel *channel)
{
    QEMU_UNINITIALIZED uint8_t data[READ_SIZE];
    unsigned turns = READS_PER_TURN;
    bool more = true;

    if (channel->reading || sf_channel_closed(channel)) {
        return;
    }
    channel->reading = true;
    channel->paused = false;
    while (more && turns--) {
        more = channel_read_some(channel, data, turns < READS_PER_TURN - 1);
        if (channel->ops->received && !channel->closed) {
            channel->ops->received(channel->opaque);
        }
    }
    channel->reading = false;
    if (more && (channel->info.tls || channel->held)) {
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

static void channel_watch_input(SFChannel *channel)
{
    if (!channel->in_tag && !sf_channel_closed(channel)) {
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
    channel_watch_input(channel);
    /* What came together with the end of the link phase raises nothing. */
    if (channel->info.tls) {
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
    while (!QSIMPLEQ_EMPTY(&channel->items)) {
        item_pop(channel);
    }
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
    QIOChannel *ioc = channel->info.ioc;
    struct tcp_info info = { 0 };
    socklen_t len = sizeof(info);

    if (channel->closed || channel->info.local) {
        return 0;
    }
    if (channel->info.tls) {
        ioc = QIO_CHANNEL_TLS(ioc)->master;
    }
    if (getsockopt(QIO_CHANNEL_SOCKET(ioc)->fd, IPPROTO_TCP, TCP_INFO, &info,
                   &len) == 0 &&
        MAX(info.tcpi_retransmits, info.tcpi_probes) >= UNANSWERED_MIN) {
        return MIN(info.tcpi_last_ack_recv, info.tcpi_last_data_recv);
    }
#endif
    return 0;
}
