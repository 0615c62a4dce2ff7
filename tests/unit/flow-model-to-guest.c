/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reference model: from clients and the server to the guest.
 */
#include "flow-model-priv.h"

#include <string.h>

#define ROOM_STEP (32 * 1024)

/* What waits for the guest, all in all. */
void model_count_to_guest(const FlowModel *m, uint32_t *messages,
                          size_t *bytes)
{
    *messages = m->orphans->len + m->server->len + (m->current != NULL);
    *bytes = model_array_bytes(m->orphans) + model_array_bytes(m->server) +
             (m->current ? m->current->size - m->current->pos : 0);
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        *messages += c->queue->len;
        *bytes += model_array_bytes(c->queue);
    }
}

void model_queued(FlowModel *m, const FlowModelClient *c, size_t size)
{
    uint32_t messages;
    size_t bytes;

    model_count_to_guest(m, &messages, &bytes);
    m->count.to_guest_peak = MAX(m->count.to_guest_peak, bytes);
    event(m, SPICE_FLOW_EV_TO_GUEST_QUEUE, c, size);
}

void model_dropped(FlowModel *m, const Buf *b)
{
    m->count.dropped_messages++;
    m->count.dropped_bytes += b->size - b->pos;
    m->self_tokens += b->paid;
}

uint32_t model_drop_all(FlowModel *m, GPtrArray *bufs)
{
    uint32_t n = bufs->len;

    for (Buf *b; (b = pop(bufs));) {
        model_dropped(m, b);
    }
    return n;
}

uint32_t model_drop_current(FlowModel *m)
{
    Buf *b = m->current;

    if (!b) {
        return 0;
    }
    m->current = NULL;
    model_dropped(m, b);
    return 1;
}

void model_ready_add(FlowModelClient *c)
{
    if (c != c->m->turn && !g_ptr_array_find(c->m->ready, c, NULL)) {
        push(c->m->ready, c);
    }
}

void model_give(FlowModelClient *c)
{
    uint32_t n = c->due;

    c->due = 0;
    c->tokens += n;
    event(c->m, SPICE_FLOW_EV_TOKEN_GIVE, c, n);
    if (c->m->ops->give_tokens) {
        c->m->ops->give_tokens(c->opaque, n);
    }
}

/* One who is away could not hear of its tokens: they stay due. */
static void token_back(FlowModelClient *c)
{
    c->due++;
    if (c->due >= c->params.interval && !c->away) {
        model_give(c);
    }
}

void flow_model_settle(FlowModel *m)
{
    GPtrArray *all;

    model_enter(m);
    all = model_clients_now(m);
    for (guint i = 0; i < all->len; i++) {
        FlowModelClient *c = all->pdata[i];

        if (live(c) && !c->away && c->due && held_messages(c) == 0) {
            model_give(c);
        }
    }
    g_ptr_array_unref(all);
    model_leave(m);
}

void model_self_token_back(FlowModel *m)
{
    event(m, SPICE_FLOW_EV_SELF_TOKEN, NULL, m->self_tokens);
    if (m->ops->self_token_free) {
        m->ops->self_token_free(m->opaque);
    }
}

/* orphans, the server's own, whose turn it is, the others by turns */
static bool pick(FlowModel *m)
{
    FlowModelClient *c;

    if (m->current) {
        return true;
    }
    if (m->orphans->len) {
        m->current = pop(m->orphans);
        return true;
    }
    if (m->server->len) {
        m->current = pop(m->server);
        m->torn = m->torn && m->current->paid;
        return true;
    }
    if (m->torn) {
        return false;
    }
    c = m->turn ? m->turn : pop(m->ready);
    if (!c || !c->queue->len) {
        return false;
    }
    m->current = pop(c->queue);
    m->turn = m->current->more ? c : NULL;
    if (m->turn) {
        m->turn_since = -1;
    } else if (c->queue->len) {
        model_ready_add(c);
    }
    return true;
}

static void done(FlowModel *m)
{
    Buf *b = m->current;

    m->current = NULL;
    m->count.guest_messages++;
    event(m, SPICE_FLOW_EV_TO_GUEST_DONE, b->owner, b->size);
    if (b->price) {
        token_back(b->owner);
    }
    if (b->paid) {
        m->self_tokens++;
        model_self_token_back(m);
    }
}

static size_t room(const FlowModelClient *c)
{
    size_t bytes = model_held_bytes(c);

    if (!live(c) || held_messages(c) >= c->params.to_guest_messages ||
        bytes >= c->params.to_guest_bytes) {
        return 0;
    }
    return c->params.to_guest_bytes - bytes;
}

void model_notify_room(FlowModel *m)
{
    GPtrArray *all = model_clients_now(m);

    for (guint i = 0; i < all->len; i++) {
        FlowModelClient *c = all->pdata[i];

        if (live(c) && c->wants_room &&
            room(c) >= MIN(ROOM_STEP, c->params.to_guest_bytes / 2)) {
            c->wants_room = false;
            if (m->ops->room && !c->away) {
                m->ops->room(c->opaque);
            }
        }
    }
    g_ptr_array_unref(all);
}

/* Returns whether the guest took something. */
static bool write_some(FlowModel *m)
{
    Buf *b = m->current;
    size_t left = b->size - b->pos;
    ssize_t n = m->ops->write(m->opaque, b->data + b->pos, left);

    if (n <= 0) {
        return false;
    }
    n = MIN((size_t)n, left);
    m->count.guest_bytes += n;
    if (m->current == b) {
        b->pos += n;
        if (b->pos == b->size) {
            done(m);
        }
    }
    return true;
}

void model_drain(FlowModel *m)
{
    if (m->writing) {
        m->again = true;
        return;
    }
    m->writing = true;
    do {
        m->again = false;
        while (m->running && pick(m) && write_some(m)) {
            /* on */
        }
    } while (m->again && m->running);
    m->writing = false;
    model_notify_room(m);
}

void flow_model_guest_ready(FlowModel *m)
{
    model_enter(m);
    model_drain(m);
    flow_model_settle(m);
    model_leave(m);
}

size_t flow_model_client_room(FlowModelClient *c)
{
    size_t n = room(c);

    if (live(c) && n < c->params.to_guest_bytes) {
        c->wants_room = true;
    }
    return n;
}

bool flow_model_client_begin(FlowModelClient *c)
{
    FlowModel *m = c->m;

    if (!live(c) || !c->params.flow_control || c->receiving) {
        return false;
    }
    if (c->tokens == 0) {
        model_enter(m);
        m->count.violations++;
        model_kick(c, SPICE_FLOW_TOKEN_VIOLATION);
        model_leave(m);
        return false;
    }
    c->tokens--;
    c->receiving = 1;
    event(m, SPICE_FLOW_EV_TOKEN_TAKE, c, c->tokens);
    return true;
}

void flow_model_client_cancel(FlowModelClient *c)
{
    bool counts = c->receiving == 1 && live(c);

    c->receiving = 0;
    if (counts) {
        model_enter(c->m);
        token_back(c);
        model_leave(c->m);
    }
}

static Buf *buf_of(FlowModel *m, const SpiceFlowBuffer *from)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    Buf *b;

    g_byte_array_append(bytes, from->head, from->head_len);
    g_byte_array_append(bytes, from->data, from->len);
    b = model_buf_new(m, bytes->data, bytes->len);
    b->more = from->more;
    return b;
}

bool flow_model_client_write(FlowModelClient *c, const SpiceFlowBuffer *buffer)
{
    FlowModel *m = c->m;
    size_t size = buffer->head_len + buffer->len;
    bool large = size > m->params.max_message;
    Buf *b;

    if (!live(c)) {
        return false;
    }
    if (c->params.flow_control) {
        if (c->receiving == 0) {
            return false;
        }
        if (c->receiving == 2 || large || size == 0) {
            bool stale = c->receiving == 2;

            flow_model_client_cancel(c);
            return stale || !large;
        }
        c->receiving = 0;
    } else {
        if (large || size > room(c)) {
            return false;
        }
        if (size == 0) {
            return true;
        }
    }
    model_enter(m);
    b = buf_of(m, buffer);
    b->owner = c;
    b->price = c->params.flow_control;
    push(c->queue, b);
    model_queued(m, c, size);
    model_ready_add(c);
    model_drain(m);
    model_leave(m);
    return true;
}

static void server_write(FlowModel *m, const SpiceFlowBuffer *buffer, bool paid)
{
    Buf *b;

    model_enter(m);
    b = buf_of(m, buffer);
    b->paid = paid;
    push(m->server, b);
    model_queued(m, NULL, b->size);
    model_drain(m);
    flow_model_settle(m);
    model_leave(m);
}

bool flow_model_server_may_write(const FlowModel *m)
{
    return m->self_tokens > 0;
}

bool flow_model_server_write(FlowModel *m, const SpiceFlowBuffer *buffer)
{
    if (m->self_tokens == 0) {
        return false;
    }
    m->self_tokens--;
    event(m, SPICE_FLOW_EV_SELF_TOKEN, NULL, m->self_tokens);
    server_write(m, buffer, true);
    return true;
}

void flow_model_server_write_unpaid(FlowModel *m,
                                    const SpiceFlowBuffer *buffer)
{
    Buf *b = buf_of(m, buffer);

    for (guint i = 0; i < m->server->len; i++) {
        Buf *old = m->server->pdata[i];

        if (!old->paid && old->size == b->size &&
            !memcmp(old->data, b->data, b->size)) {
            return;
        }
    }
    server_write(m, buffer, false);
}
