/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reference model: from the guest to the clients.
 */
#include "flow-model-priv.h"

#define STREAM_STEP (32 * 1024)

bool flow_model_guest_waits(const FlowModel *m)
{
    return m->wait_len != 0;
}

static void guest_waits(FlowModel *m, FlowModelClient *c, size_t len)
{
    if (!m->wait_len) {
        event(m, SPICE_FLOW_EV_GUEST_WAIT, NULL, 0);
    }
    m->wait_len = MAX(len, 1);
    m->wait_for = c;
}

bool flow_model_may_send(FlowModel *m, size_t len)
{
    if (model_can_place(m, len)) {
        return true;
    }
    guest_waits(m, NULL, len);
    return false;
}

bool flow_model_may_send_to(FlowModelClient *c, size_t len)
{
    if (model_can_place_to(c, len)) {
        return true;
    }
    guest_waits(c->m, c, len);
    return false;
}

void flow_model_client_sent(FlowModelClient *c)
{
    Buf *b;

    if (!live(c) || c->in_flight == 0) {
        return;
    }
    model_enter(c->m);
    b = pop(c->ring);
    c->in_flight--;
    c->since = -1;
    event(c->m, SPICE_FLOW_EV_TO_CLIENT_DONE, c, b->size);
    model_leave(c->m);
}

void model_flush(FlowModelClient *c)
{
    FlowModel *m = c->m;

    if (c->flushing) {
        return;
    }
    c->flushing = true;
    while (live(c) && !c->away && waiting(c) &&
           (!c->params.flow_control || c->send_tokens)) {
        Buf *b = c->ring->pdata[c->in_flight];

        if (c->params.flow_control) {
            c->send_tokens--;
        }
        c->in_flight++;
        event(m, SPICE_FLOW_EV_TO_CLIENT_SEND, c, b->size);
        if (m->ops->send(c->opaque, b->data, b->size) && live(c)) {
            flow_model_client_sent(c);
        }
    }
    c->flushing = false;
}

static void offer(FlowModelClient *c, const uint8_t *data, size_t len)
{
    FlowModel *m = c->m;

    if (!model_fits(c, len)) {
        m->count.stalls++;
        model_kick(c, SPICE_FLOW_OVERFLOW);
        return;
    }
    push(c->ring, model_buf_new(m, data, len));
    model_flush(c);
    if (live(c) && waiting(c)) {
        event(m, SPICE_FLOW_EV_TO_CLIENT_QUEUE, c, len);
    }
}

static void taken(FlowModel *m, size_t len)
{
    m->count.client_messages++;
    m->count.client_bytes += len;
}

static void discard(FlowModel *m, size_t len)
{
    m->count.discarded_messages++;
    m->count.discarded_bytes += len;
    event(m, SPICE_FLOW_EV_DISCARD, NULL, len);
}

bool flow_model_send(FlowModel *m, const void *data, size_t len)
{
    GPtrArray *all;

    if (!flow_model_may_send(m, len)) {
        return false;
    }
    taken(m, len);
    if (model_live_clients(m) == 0) {
        discard(m, len);
        return true;
    }
    model_enter(m);
    m->sending = true;
    all = model_clients_now(m);
    for (guint i = 0; i < all->len; i++) {
        if (live(all->pdata[i])) {
            offer(all->pdata[i], data, len);
        }
    }
    g_ptr_array_unref(all);
    m->sending = false;
    model_leave(m);
    return true;
}

void flow_model_send_to(FlowModelClient *c, const void *data, size_t len)
{
    taken(c->m, len);
    if (!live(c)) {
        discard(c->m, len);
        return;
    }
    model_enter(c->m);
    offer(c, data, len);
    model_leave(c->m);
}

static size_t stream_room(const FlowModel *m)
{
    size_t best = 0;

    if (!m->running || m->sending) {
        return 0;
    }
    if (model_live_clients(m) == 0) {
        return m->params.max_message;
    }
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];
        size_t used = model_array_bytes(c->ring);

        if (model_takes(c) && c->ring->len < c->params.to_client_messages &&
            used < c->params.to_client_bytes) {
            best = MAX(best, c->params.to_client_bytes - used);
        }
    }
    return MIN(best, m->params.max_message);
}

size_t flow_model_send_stream(FlowModel *m, const void *data, size_t len)
{
    size_t n, sent = 0;

    model_enter(m);
    while (sent < len) {
        n = MIN(stream_room(m), len - sent);
        if (n == 0) {
            guest_waits(m, NULL, STREAM_STEP);
            break;
        }
        flow_model_send(m, (const uint8_t *)data + sent, n);
        sent += n;
    }
    model_leave(m);
    return sent;
}

static void set_send_tokens(FlowModelClient *c, uint64_t n)
{
    if (!live(c) || !c->params.flow_control) {
        return;
    }
    model_enter(c->m);
    c->send_tokens = MIN(n, UINT32_MAX);
    event(c->m, SPICE_FLOW_EV_SEND_TOKENS, c, c->send_tokens);
    model_flush(c);
    model_leave(c->m);
}

void flow_model_client_tokens_add(FlowModelClient *c, uint32_t n)
{
    set_send_tokens(c, (uint64_t)c->send_tokens + n);
}

void flow_model_client_tokens_set(FlowModelClient *c, uint32_t n)
{
    set_send_tokens(c, n);
}
