/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reference model of the flow-control machine.
 *
 * It follows the contract in include/chardev/spiceflow/flow.h and the rules in
 * docs, and nothing else: buffers are copied when they are handed in and stand
 * in plain arrays, whatever can be counted is counted again each time, nothing
 * is shared, borrowed or recycled, and nothing is freed before the model is
 * closed and idle.  So it is slow, and short enough to be checked by reading.
 * Its files are the machine's: here are clients, the device and calls in
 * progress, flow-model-to-guest.c and flow-model-to-client.c have the two
 * directions, flow-model-state.c what is told, saved and restored.
 *
 * What it has in common with the machine is what callers see: which op is
 * called when and with what.  As every op may call back, that includes
 * the two rules for calls from inside an op: a nested call leaves the work of
 * a loop that is running to that loop, and the guest is woken and the clock
 * looked at when the outermost call ends.
 */
#include "flow-model-priv.h"

#include <string.h>

static const FlowModelOps no_ops;

/*
 * Buffers and clients
 */

Buf *model_buf_new(FlowModel *m, const void *data, size_t size)
{
    Buf *b = g_new0(Buf, 1);

    b->data = g_malloc(size + 1);
    if (size) {
        memcpy(b->data, data, size);
    }
    b->size = size;
    g_ptr_array_add(m->all_bufs, b);
    return b;
}

uint32_t model_live_clients(const FlowModel *m)
{
    uint32_t n = 0;

    for (guint i = 0; i < m->clients->len; i++) {
        n += live(m->clients->pdata[i]);
    }
    return n;
}

/* The clients as they are now: callbacks may change the list. */
GPtrArray *model_clients_now(const FlowModel *m)
{
    return g_ptr_array_copy(m->clients, NULL, NULL);
}

size_t model_held_bytes(const FlowModelClient *c)
{
    const Buf *cur = c->m->current;
    size_t n = cur && cur->owner == c ? cur->size - cur->pos : 0;

    for (guint i = 0; i < c->queue->len; i++) {
        n += ((Buf *)c->queue->pdata[i])->size;
    }
    return n;
}

size_t model_array_bytes(const GPtrArray *array)
{
    size_t n = 0;

    for (guint i = 0; i < array->len; i++) {
        n += ((Buf *)array->pdata[i])->size;
    }
    return n;
}

/*
 * Calls in progress
 */

bool model_fits(const FlowModelClient *c, size_t len)
{
    size_t used = model_array_bytes(c->ring);
    size_t space = 0;

    if (c->ring->len < c->params.to_client_messages &&
        used < c->params.to_client_bytes) {
        space = c->params.to_client_bytes - used;
    }
    return space >= MIN(len, c->params.to_client_bytes);
}

bool model_takes(const FlowModelClient *c)
{
    return live(c) && !c->away && !c->flushing && waiting(c) == 0 &&
           (!c->params.flow_control || c->send_tokens);
}

bool model_can_place(const FlowModel *m, size_t len)
{
    if (!m->running || m->sending) {
        return false;
    }
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        if (model_takes(c) && model_fits(c, len)) {
            return true;
        }
    }
    return model_live_clients(m) == 0;
}

bool model_can_place_to(const FlowModelClient *c, size_t len)
{
    return c->m->running && !c->m->sending && (!live(c) || model_fits(c, len));
}

/*
 * The client in the middle of a message to the guest has nothing here, and
 * others have.
 */
static bool turn_pauses(const FlowModel *m)
{
    return m->turn && !m->current && !m->turn->queue->len && m->ready->len;
}

static bool stalls(const FlowModelClient *c)
{
    return live(c) && !c->away && c->ring->len && model_live_clients(c->m) > 1;
}

static bool update_wake(FlowModel *m)
{
    if (!m->wait_len ||
        !(m->wait_for ? model_can_place_to(m->wait_for, m->wait_len)
                      : model_can_place(m, m->wait_len))) {
        return false;
    }
    m->wait_len = 0;
    m->wait_for = NULL;
    event(m, SPICE_FLOW_EV_GUEST_WAKE, NULL, 0);
    if (m->ops->wake) {
        m->ops->wake(m->opaque);
    }
    return true;
}

static bool update_clock(FlowModel *m)
{
    bool runs = turn_pauses(m) && !m->turn->away;

    for (guint i = 0; i < m->clients->len; i++) {
        runs = runs || stalls(m->clients->pdata[i]);
    }
    runs = runs && m->running;
    if (runs == m->clock_runs) {
        return false;
    }
    m->clock_runs = runs;
    event(m, SPICE_FLOW_EV_STALL, NULL, runs);
    if (m->ops->clock) {
        m->ops->clock(m->opaque, runs);
    }
    return true;
}

static void free_all(FlowModel *m)
{
    for (guint i = 0; i < m->all_bufs->len; i++) {
        Buf *b = m->all_bufs->pdata[i];

        g_free(b->data);
        g_free(b);
    }
    g_ptr_array_set_size(m->all_bufs, 0);
    for (guint i = 0; i < m->all_clients->len; i++) {
        FlowModelClient *c = m->all_clients->pdata[i];

        g_ptr_array_unref(c->queue);
        g_ptr_array_unref(c->ring);
        g_free(c);
    }
    g_ptr_array_unref(m->all_bufs);
    g_ptr_array_unref(m->all_clients);
    g_ptr_array_unref(m->clients);
    g_ptr_array_unref(m->ready);
    g_ptr_array_unref(m->orphans);
    g_ptr_array_unref(m->server);
    g_free(m);
}

static void mark(GHashTable *used, const GPtrArray *bufs)
{
    for (guint i = 0; i < bufs->len; i++) {
        g_hash_table_add(used, bufs->pdata[i]);
    }
}

/* Now and then throw away buffers that are in no queue any more. */
static void sweep(FlowModel *m)
{
    g_autoptr(GHashTable) used = NULL;
    guint left = 0;

    if (m->all_bufs->len < 256) {
        return;
    }
    used = g_hash_table_new(NULL, NULL);
    g_hash_table_add(used, m->current);
    mark(used, m->orphans);
    mark(used, m->server);
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        mark(used, c->queue);
        mark(used, c->ring);
    }
    for (guint i = 0; i < m->all_bufs->len; i++) {
        Buf *b = m->all_bufs->pdata[i];

        if (g_hash_table_contains(used, b)) {
            m->all_bufs->pdata[left++] = b;
        } else {
            g_free(b->data);
            g_free(b);
        }
    }
    g_ptr_array_set_size(m->all_bufs, left);
}

static void forget_gone(FlowModel *m)
{
    for (guint i = 0; i < m->clients->len;) {
        FlowModelClient *c = m->clients->pdata[i];

        if (c->gone) {
            g_ptr_array_remove_index(m->clients, i);
            if (m->wait_for == c) {
                m->wait_for = NULL;
            }
        } else {
            i++;
        }
    }
    sweep(m);
}

void model_enter(FlowModel *m)
{
    m->depth++;
}

/* Who keeps no one waiting is timed anew the next time. */
static void forget_clocks(FlowModel *m)
{
    if (!m->turn || m->turn->queue->len || !m->ready->len) {
        m->turn_since = -1;
    }
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        if (c->ring->len == 0 || model_live_clients(m) <= 1) {
            c->since = -1;
        }
    }
}

void model_leave(FlowModel *m)
{
    forget_clocks(m);
    if (m->depth == 1) {
        for (;;) {
            bool woken = update_wake(m);
            bool clocked = update_clock(m);

            if (!woken && !clocked) {
                break;
            }
        }
        forget_gone(m);
    }
    m->depth--;
    if (m->closed && m->depth == 0) {
        free_all(m);
    }
}

/*
 * Clients come and go
 */

static uint32_t drop_ring(FlowModelClient *c, uint32_t keep)
{
    uint32_t n = 0;

    while (c->ring->len > keep) {
        model_dropped(c->m, g_ptr_array_steal_index(c->ring, c->ring->len - 1));
        c->since = -1;
        n++;
    }
    c->in_flight = MIN(c->in_flight, keep);
    return n;
}

static uint32_t detach(FlowModelClient *c)
{
    FlowModel *m = c->m;
    bool framed = m->params.framing == SPICE_FLOW_FRAMED;
    uint32_t n = 0;

    if (m->current && m->current->owner == c) {
        if (framed) {
            m->current->owner = NULL;
            m->current->price = 0;
        } else {
            n += model_drop_current(m);
        }
    }
    if (m->turn == c && framed) {
        c->broken = true;
        while (c->broken && c->queue->len) {
            Buf *b = pop(c->queue);

            b->owner = NULL;
            b->price = 0;
            push(m->orphans, b);
            c->broken = b->more;
        }
        m->torn = c->broken;
    }
    if (m->turn == c) {
        m->turn = NULL;
    }
    n += model_drop_all(m, c->queue);
    g_ptr_array_remove(m->ready, c);
    c->wants_room = false;
    return n + drop_ring(c, 0);
}

void model_kick(FlowModelClient *c, SpiceFlowReason reason)
{
    FlowModel *m = c->m;

    detach(c);
    c->dead = true;
    forget_clocks(m);
    event(m, SPICE_FLOW_EV_CLIENT_KICK, c, reason);
    if (m->ops->remove && !c->away) {
        m->ops->remove(c->opaque, reason);
    }
}

FlowModelClient *model_insert(FlowModel *m,
                              const SpiceFlowClientParams *params,
                              void *opaque)
{
    FlowModelClient *c = g_new0(FlowModelClient, 1);

    c->m = m;
    c->opaque = opaque;
    c->params = *params;
    c->since = -1;
    c->queue = g_ptr_array_new();
    c->ring = g_ptr_array_new();
    if (params->flow_control) {
        c->params.interval = MAX(params->interval, 1);
        c->tokens = params->window;
        c->send_tokens = params->send_tokens;
    }
    g_ptr_array_insert(m->clients, 0, c);
    push(m->all_clients, c);
    return c;
}

FlowModelClient *flow_model_client_find(FlowModel *m, uint32_t id)
{
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        if (c->params.id == id && !c->gone) {
            return c;
        }
    }
    return NULL;
}

FlowModelClient *flow_model_client_add(FlowModel *m,
                                       const SpiceFlowClientParams *params,
                                       void *opaque)
{
    FlowModelClient *c;

    if (params->id == 0 || flow_model_client_find(m, params->id)) {
        return NULL;
    }
    model_enter(m);
    c = model_insert(m, params, opaque);
    event(m, SPICE_FLOW_EV_CLIENT_ADD, c, c->tokens);
    model_leave(m);
    return c;
}

bool flow_model_client_remove(FlowModelClient *c)
{
    FlowModel *m = c->m;
    bool broken;

    model_enter(m);
    event(m, SPICE_FLOW_EV_CLIENT_REMOVE, c, c->dead ? 0 : detach(c));
    broken = c->broken;
    c->gone = true;
    model_drain(m);
    flow_model_settle(m);
    model_leave(m);
    return broken;
}

bool flow_model_client_resume(FlowModelClient *c, void *opaque,
                              uint32_t delivered)
{
    FlowModel *m = c->m;

    if (!c->away || !live(c) || delivered > c->in_flight) {
        return false;
    }
    model_enter(m);
    c->opaque = opaque;
    while (delivered--) {
        flow_model_client_sent(c);
    }
    if (c->params.flow_control) {
        c->send_tokens = MIN((uint64_t)c->send_tokens + c->in_flight,
                             UINT32_MAX);
    }
    event(m, SPICE_FLOW_EV_CLIENT_RESUME, c, c->in_flight);
    c->in_flight = 0;
    c->away = false;
    if (c->due && (held_messages(c) == 0 || c->due >= c->params.interval)) {
        model_give(c);
    }
    model_flush(c);
    model_leave(m);
    return true;
}

/*
 * The device
 */

FlowModel *flow_model_new(const FlowModelOps *ops, void *opaque,
                          const SpiceFlowParams *params)
{
    FlowModel *m = g_new0(FlowModel, 1);

    m->ops = ops;
    m->opaque = opaque;
    m->params = *params;
    m->clients = g_ptr_array_new();
    m->ready = g_ptr_array_new();
    m->orphans = g_ptr_array_new();
    m->server = g_ptr_array_new();
    m->all_bufs = g_ptr_array_new();
    m->all_clients = g_ptr_array_new();
    m->self_tokens = params->self_tokens;
    m->turn_since = -1;
    return m;
}

static uint32_t clear_to_guest(FlowModel *m)
{
    uint32_t n = model_drop_current(m) + model_drop_all(m, m->orphans) +
                 model_drop_all(m, m->server);

    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        n += model_drop_all(m, c->queue);
    }
    g_ptr_array_set_size(m->ready, 0);
    m->turn = NULL;
    m->torn = false;
    return n;
}

void model_forget_clients(FlowModel *m)
{
    clear_to_guest(m);
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        drop_ring(c, 0);
        c->gone = true;
    }
}

void flow_model_close(FlowModel *m)
{
    if (!m) {
        return;
    }
    model_enter(m);
    m->ops = &no_ops;
    m->running = false;
    m->wait_len = 0;
    m->wait_for = NULL;
    model_forget_clients(m);
    m->closed = true;
    model_leave(m);
}

bool flow_model_running(const FlowModel *m)
{
    return m->running;
}

void flow_model_start(FlowModel *m, int64_t now)
{
    int64_t pause = now - m->stopped_at;

    if (m->running || m->closed) {
        return;
    }
    model_enter(m);
    m->running = true;
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        c->since += c->since < 0 ? 0 : pause;
    }
    m->turn_since += m->turn_since < 0 ? 0 : pause;
    event(m, SPICE_FLOW_EV_START, NULL, 0);
    model_drain(m);
    flow_model_settle(m);
    if (m->running) {
        m->wait_len = 0;
        m->wait_for = NULL;
        event(m, SPICE_FLOW_EV_GUEST_WAKE, NULL, 0);
        if (m->ops->wake) {
            m->ops->wake(m->opaque);
        }
    }
    model_leave(m);
}

void flow_model_stop(FlowModel *m, int64_t now)
{
    if (!m->running) {
        return;
    }
    model_enter(m);
    m->running = false;
    m->stopped_at = now;
    event(m, SPICE_FLOW_EV_STOP, NULL, 0);
    model_leave(m);
}

void flow_model_reset(FlowModel *m)
{
    uint32_t had = m->self_tokens;
    uint32_t n;

    model_enter(m);
    n = clear_to_guest(m);
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        if (live(c)) {
            c->tokens = c->params.flow_control ? c->params.window : 0;
            c->due = 0;
            c->receiving = c->receiving ? 2 : 0;
            n += drop_ring(c, c->in_flight);
        }
    }
    event(m, SPICE_FLOW_EV_RESET, NULL, n);
    if (m->self_tokens != had) {
        model_self_token_back(m);
    }
    model_notify_room(m);
    model_leave(m);
}

int64_t flow_model_tick(FlowModel *m, int64_t now)
{
    int64_t timeout = m->params.stall_timeout;
    int64_t next = now + MAX(timeout / 4, 1);
    GPtrArray *all;

    if (!m->clock_runs || !m->running) {
        return -1;
    }
    model_enter(m);
    all = model_clients_now(m);
    for (guint i = 0; i < all->len; i++) {
        FlowModelClient *c = all->pdata[i];

        if (!stalls(c)) {
            continue;
        }
        if (c->since < 0) {
            c->since = now;
        }
        if (now - c->since >= timeout) {
            m->count.stalls++;
            model_kick(c, SPICE_FLOW_STALLED);
        } else {
            next = MIN(next, c->since + timeout);
        }
    }
    g_ptr_array_unref(all);
    if (turn_pauses(m) && !m->turn->away) {
        if (m->turn_since < 0) {
            m->turn_since = now;
        }
        if (now - m->turn_since >= timeout) {
            FlowModelClient *c = m->turn;

            m->turn = NULL;
            m->turn_since = -1;
            m->torn = true;
            m->count.stalls++;
            event(m, SPICE_FLOW_EV_TURN_LOST, c, 0);
            if (m->ops->turn_lost) {
                m->ops->turn_lost(c->opaque);
            }
        } else {
            next = MIN(next, m->turn_since + timeout);
        }
    }
    update_clock(m);
    if (!m->clock_runs) {
        next = -1;
    }
    model_leave(m);
    return next;
}

int64_t flow_model_set_stall_timeout(FlowModel *m, uint32_t stall_timeout,
                                     int64_t now)
{
    m->params.stall_timeout = stall_timeout;
    return flow_model_tick(m, now);
}
