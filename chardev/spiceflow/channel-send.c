/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a channel sends.
 *
 * A message goes to the socket directly while nothing is queued, header and
 * body in one call.  What the socket does not take is queued, and a watch on
 * the socket sends the queue many messages at a time.  With TLS the same is
 * done by record: short messages are copied together to fill one, a long body
 * is encrypted from where it lies, and the records leave together.
 *
 * A system call costs more than the bytes of a small message.  A guest that
 * streams writes many of them before the main loop has its next turn, so when
 * some have gone out in a row and the client has said nothing meanwhile, the
 * next are corked: they are queued, although the socket would take them, and go
 * out together in that turn, or when enough have come together.  A turn that
 * finds only one ends it.  Who answers, or waits for an answer, never gets this
 * far.
 *
 * While a guest fills the queue, the socket runs empty and the client waits,
 * for the main loop has no turn.  So the socket is tried again each time that
 * enough has come.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "channel-priv.h"
#include "compat.h"
#include "trace.h"

/* Messages of one write, and bytes after which it takes no further one. */
#define WRITE_ITEMS         32
#define WRITE_MAX           (256 * KiB)
/* Small messages that go out one by one, before the next are corked. */
#define IN_ROW_MAX          4
/* Bytes of the largest message that is corked. */
#define CORK_MESSAGE_MAX    (16 * KiB)
/* Bytes that come before a socket that was full or corked is tried again. */
#define UNTRIED_MAX         (64 * KiB)
/* Messages of the server's own that a client may leave unread. */
#define CONTROL_MAX         (64 * KiB)

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

/* A place in the queue, or in a message that is not in it. */
typedef struct Cursor {
    const SFItem *item;         /* NULL: at the end */
    size_t skip;                /* bytes of it that are done with */
} Cursor;

static void cursor_advance(Cursor *at, size_t n)
{
    at->skip += n;
    while (at->item && at->skip >= item_size(at->item)) {
        at->skip -= item_size(at->item);
        at->item = QSIMPLEQ_NEXT(at->item, next);
    }
}

/* The bytes at @at that lie in one place. */
static struct iovec cursor_piece(const Cursor *at)
{
    const SFItem *item = at->item;

    if (at->skip < item->header_len) {
        return (struct iovec) {
            .iov_base = (void *)(item->header + at->skip),
            .iov_len = item->header_len - at->skip,
        };
    }
    return (struct iovec) {
        .iov_base = (void *)(item->data + (at->skip - item->header_len)),
        .iov_len = item_size(item) - at->skip,
    };
}

static Cursor queue_begin(const SFChannel *channel)
{
    return (Cursor) { QSIMPLEQ_FIRST(&channel->items),
                      channel->items_offset };
}

/* Some messages of the queue; @asked is set to how many bytes that were. */
static ssize_t items_write(SFChannel *channel, size_t *asked)
{
    struct iovec iov[WRITE_ITEMS * 2];
    Cursor at = queue_begin(channel);
    unsigned n;

    *asked = 0;
    for (n = 0; at.item && n < ARRAY_SIZE(iov) && *asked < WRITE_MAX; n++) {
        iov[n] = cursor_piece(&at);
        *asked += iov[n].iov_len;
        cursor_advance(&at, iov[n].iov_len);
    }
    return channel_writev(channel, iov, n);
}

/*
 * TLS
 */

/*
 * The next record: of a long message its bytes where they lie, the header by
 * itself, else what comes, gathered in @copy.
 */
static struct iovec tls_record(Cursor at, uint8_t *copy)
{
    struct iovec record = cursor_piece(&at);
    size_t fill = 0;

    if (item_size(at.item) - at.skip >= SF_TLS_RECORD_MAX) {
        record.iov_len = MIN(record.iov_len, SF_TLS_RECORD_MAX);
        return record;
    }
    while (at.item && fill < SF_TLS_RECORD_MAX) {
        struct iovec piece = cursor_piece(&at);
        size_t n = MIN(piece.iov_len, SF_TLS_RECORD_MAX - fill);

        memcpy(copy + fill, piece.iov_base, n);
        fill += n;
        cursor_advance(&at, n);
    }
    return (struct iovec) { .iov_base = copy, .iov_len = fill };
}

/* Returns whether all records are out; if not, the socket may be gone. */
static bool tls_flush(SFChannel *channel)
{
    g_autoptr(Error) err = NULL;
    int ret = sf_tls_buffer_flush(channel->tls, &err);

    if (ret < 0) {
        sf_channel_fail(channel, SF_REASON_LEFT, error_get_pretty(err));
    }
    return ret > 0;
}

/*
 * As many records as leave together, from @at on.  Returns the bytes that are
 * out, or wait for nothing but the socket; 0 for none now, -1 after a failure.
 */
static ssize_t tls_write(SFChannel *channel, Cursor at)
{
    QEMU_UNINITIALIZED uint8_t copy[SF_TLS_RECORD_MAX];
    ssize_t done = 0;

    if (tls_flush(channel)) {
        while (at.item && sf_tls_buffer_waiting(channel->tls) +
                          SF_TLS_RECORD_MAX / 2 < SF_TLS_BUFFER_SIZE) {
            struct iovec record = tls_record(at, copy);
            ssize_t n = channel_writev(channel, &record, 1);

            if (n <= 0) {
                break;
            }
            cursor_advance(&at, n);
            done += n;
        }
        tls_flush(channel);
    }
    return channel->failed ? -1 : done;
}

void channel_flush_session(SFChannel *channel)
{
    if (channel->tls && sf_tls_buffer_waiting(channel->tls)) {
        channel_flush(channel);
    }
}

static bool channel_has_output(const SFChannel *channel)
{
    return !QSIMPLEQ_EMPTY(&channel->items) ||
           (channel->tls && sf_tls_buffer_waiting(channel->tls));
}

static gboolean channel_writable(QIOChannel *ioc, GIOCondition condition,
                                 void *opaque)
{
    g_autoptr(SFChannel) channel = sf_channel_ref(opaque);

    channel_flush(channel);
    return channel->out_tag ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void channel_watch_output(SFChannel *channel)
{
    if (!channel->out_tag && !sf_channel_waits(channel)) {
        channel->out_tag = channel_watch(channel, G_IO_OUT, channel_writable);
    }
}

/* Some of the queue.  Returns whether the socket may take more. */
static bool queue_write(SFChannel *channel)
{
    size_t asked = 0;
    ssize_t n;

    if (channel->tls) {
        n = tls_write(channel, queue_begin(channel));
    } else {
        n = items_write(channel, &asked);
    }
    if (n > 0) {
        sf_pace_moved(&channel->paced, n);
        items_advance(channel, n);
    }
    return channel->tls ? n > 0 && !sf_tls_buffer_waiting(channel->tls)
                        : n >= 0 && (size_t)n == asked;
}

static void queue_write_all(SFChannel *channel)
{
    if (channel->corked) {
        trace_spiceflow_channel_uncork(channel->info.mess.channel_type,
                                       channel->info.mess.channel_id,
                                       channel->corked);
    }
    if (channel->tls && !tls_flush(channel)) {
        return;
    }
    while (!QSIMPLEQ_EMPTY(&channel->items) &&
           channel_may_move(channel, channel->queued) &&
           queue_write(channel)) {
        /* The next ones; a channel that is closed meanwhile has none. */
    }
}

void channel_uncork(SFChannel *channel)
{
    if (channel->corked && !channel->failed && !channel->flushing) {
        queue_write_all(channel);
    }
}

void channel_flush(SFChannel *channel)
{
    if (channel->flushing) {
        return;
    }
    if (channel->corked == 1) {
        channel->in_row = 0;
    }
    channel->flushing = true;
    queue_write_all(channel);
    channel->flushing = false;
    channel->corked = 0;
    channel->untried = 0;
    if (sf_channel_closed(channel) || !channel_has_output(channel)) {
        g_clear_handle_id(&channel->out_tag, g_source_remove);
    } else {
        channel_watch_output(channel);
    }
}

bool sf_channel_may_send(SFChannel *channel, size_t len)
{
    return sf_channel_closed(channel) || channel_may_move(channel, len);
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
    channel->untried += item_size(item);
    if (!item->counts) {
        channel->control += item_size(item);
    }
}

void channel_send_control(SFChannel *channel, uint16_t type, GByteArray *body)
{
    SFItem *item = g_new0(SFItem, 1);

    *item = item_direct(channel, type, body ? body->data : NULL,
                        body ? body->len : 0);
    item->body = body;
    item_queue(channel, item);
    trace_spiceflow_channel_send(channel->info.mess.channel_type,
                                 channel->info.mess.channel_id, type,
                                 item->len);
    channel_flush(channel);
}

void sf_channel_send(SFChannel *channel, uint16_t type, GByteArray *body)
{
    if (sf_channel_closed(channel) || channel_is_mute(channel)) {
        if (body) {
            g_byte_array_unref(body);
        }
        return;
    }
    channel_send_control(channel, type, body);
    if (channel->control > CONTROL_MAX) {
        sf_channel_fail(channel, SF_REASON_OVERFLOW, NULL);
    }
}

/* Whether @item goes to the socket at once. */
static bool item_is_next(SFChannel *channel, const SFItem *item)
{
    bool small = item_size(item) <= CORK_MESSAGE_MAX;

    if (channel->corked >= WRITE_ITEMS || (channel->corked && !small) ||
        (channel->untried &&
         channel->untried + item_size(item) > UNTRIED_MAX)) {
        channel_flush(channel);
    }
    if (sf_channel_closed(channel)) {
        return false;
    }
    if (QSIMPLEQ_EMPTY(&channel->items) && small &&
        channel->in_row == IN_ROW_MAX) {
        channel->corked = 1;
        return false;
    }
    channel->corked += channel->corked > 0;
    channel->in_row += small && channel->in_row < IN_ROW_MAX;
    return QSIMPLEQ_EMPTY(&channel->items) &&
           channel_may_move(channel, item_size(item));
}

/* Returns how much of @item went out at once: 0 with anything before it. */
static size_t item_write_directly(SFChannel *channel, SFItem *item)
{
    struct iovec iov[2] = {
        { .iov_base = item->header, .iov_len = item->header_len },
        { .iov_base = (void *)item->data, .iov_len = item->len },
    };
    Cursor at = { item, 0 };
    size_t done = 0;
    ssize_t n;

    if (!item_is_next(channel, item)) {
        return 0;
    }
    if (!channel->tls) {
        n = channel_writev(channel, iov, 2);
        sf_pace_moved(&channel->paced, MAX(n, 0));
        return MAX(n, 0);
    }
    do {
        n = tls_write(channel, at);
        cursor_advance(&at, MAX(n, 0));
        done += MAX(n, 0);
    } while (n > 0 && at.item);
    sf_pace_moved(&channel->paced, done);
    if (sf_tls_buffer_waiting(channel->tls) && !channel->failed) {
        channel_watch_output(channel);
    }
    return done;
}

/*
 * Send now what can be; returns whether it is all out.  What is not gets
 * queued, with its bytes made its own by @keep.
 */
static bool item_send(SFChannel *borrowed, SFItem *direct,
                      void (*keep)(SFItem *item))
{
    g_autoptr(SFChannel) channel = sf_channel_ref(borrowed);
    size_t done = item_write_directly(channel, direct);
    SFItem *item;

    if (done == item_size(direct) || sf_channel_closed(channel)) {
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
    channel_watch_output(channel);
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

    if (sf_channel_closed(channel) || channel_is_mute(channel)) {
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

    if (!sf_channel_closed(channel) && !channel_is_mute(channel)) {
        direct = item_direct(channel, type, body->data, body->len);
        direct.body = body;
        out = item_send(channel, &direct, keep_body);
    }
    g_byte_array_unref(body);
    return out;
}

void channel_drop_items(SFChannel *channel)
{
    while (!QSIMPLEQ_EMPTY(&channel->items)) {
        item_pop(channel);
    }
}
