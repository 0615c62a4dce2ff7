/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a channel sends.
 *
 * A message goes to the socket directly while nothing is queued, header and
 * body in one call.  What the socket does not take is queued, and a watch on
 * the socket sends the queue many messages at a time.  With TLS the same is
 * done record by record: a header and what follows it are copied together to
 * fill one, the inside of a long body is encrypted from where it lies.
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

/* Messages of one write. */
#define WRITE_ITEMS         32
/* Bytes of the largest TLS record. */
#define TLS_RECORD          (16 * KiB)
/* Small messages that go out one by one, before the next are corked. */
#define IN_ROW_MAX          4
/* Bytes of the largest message that is corked. */
#define CORK_MESSAGE_MAX    (16 * KiB)
/* Bytes that come before a socket that was full or corked is tried again. */
#define UNTRIED_MAX         (64 * KiB)
/* Messages of the server's own that a client may leave unread. */
#define CONTROL_MAX         (64 * KiB)

static void channel_flush(SFChannel *channel);

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

/* Some of the queue.  Returns whether the socket may take more. */
static bool queue_write(SFChannel *channel)
{
    size_t asked;
    ssize_t n = channel->info.tls ? tls_write(channel,
                                              QSIMPLEQ_FIRST(&channel->items),
                                              channel->items_offset, &asked)
                                  : items_write(channel, &asked);

    if (n > 0) {
        items_advance(channel, n);
    }
    return n >= 0 && (size_t)n == asked;
}

static void queue_write_all(SFChannel *channel)
{
    if (channel->corked) {
        trace_spiceflow_channel_uncork(channel->info.mess.channel_type,
                                       channel->info.mess.channel_id,
                                       channel->corked);
    }
    while (!QSIMPLEQ_EMPTY(&channel->items) && queue_write(channel)) {
        /* The next ones; a channel that is closed meanwhile has none. */
    }
}

void channel_uncork(SFChannel *channel)
{
    if (channel->corked && !channel->failed && !channel->flushing) {
        queue_write_all(channel);
    }
}

static void channel_flush(SFChannel *channel)
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
    return QSIMPLEQ_EMPTY(&channel->items);
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

    if (!item_is_next(channel, item)) {
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
