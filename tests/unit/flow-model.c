/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reference model of the flow-control machine.
 *
 * It follows the contract in include/chardev/spiceflow/flow.h and the rules in
 * docs, and nothing else: buffers are copied when they are handed in and stand
 * in plain arrays, whatever can be counted is counted again each time, nothing
 * is shared, borrowed or recycled, and nothing is freed before the model is
 * closed and idle.  So it is slow, and short enough to be checked by reading.
 *
 * What it has in common with the machine is what callers see: which op is
 * called when and with what.  As every op may call back, that includes
 * the two rules for calls from inside an op: a nested call leaves the work of
 * a loop that is running to that loop, and the guest is woken and the clock
 * looked at when the outermost call ends.
 */
#include "flow-model.h"

#include <string.h>

#define ROOM_STEP (32 * 1024)
#define STREAM_STEP (32 * 1024)

/* bytes on their way to the guest or to a client */
typedef struct Buf {
    FlowModelClient *owner;     /* to guest: NULL for orphans and the server */
    uint8_t *data;
    size_t size;
    size_t pos;
    uint32_t price;
    bool paid;
    bool more;
} Buf;

struct FlowModelClient {
    FlowModel *m;
    void *opaque;
    SpiceFlowClientParams params;
    uint32_t tokens, due, send_tokens;
    int receiving;              /* as in SpiceFlowSavedClient */
    bool dead, gone, away, broken, flushing, wants_room;
    int64_t since;              /* of stalling, or -1 */
    GPtrArray *queue;           /* Buf: to the guest, without the current */
    GPtrArray *ring;            /* Buf: to the client, in flight first */
    uint32_t in_flight;
};

struct FlowModel {
    const FlowModelOps *ops;
    void *opaque;
    SpiceFlowParams params;
    GPtrArray *clients;         /* newest first, the gone ones too */
    GPtrArray *ready;           /* clients with a queue, but not the turn's */
    GPtrArray *orphans, *server;
    Buf *current;
    FlowModelClient *turn;
    int64_t turn_since, stopped_at;
    uint32_t self_tokens;
    size_t wait_len;            /* the guest waits for this much, or 0 */
    FlowModelClient *wait_for;
    bool running, torn, closed, writing, again, sending, clock_runs;
    int depth;
    SpiceFlowInfo count;
    GPtrArray *all_bufs, *all_clients;      /* to be freed in the end */
};

static const FlowModelOps no_ops;

static Buf *buf_new(FlowModel *m, const void *data, size_t size)
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

static void *pop(GPtrArray *array)
{
    return array->len ? g_ptr_array_steal_index(array, 0) : NULL;
}

static void push(GPtrArray *array, void *what)
{
    g_ptr_array_add(array, what);
}

static void event(FlowModel *m, SpiceFlowEvent ev, const FlowModelClient *c,
                  uint64_t value)
{
    if (m->ops->event) {
        m->ops->event(m->opaque, ev, c ? c->params.id : 0, value);
    }
}

static bool live(const FlowModelClient *c)
{
    return !c->dead && !c->gone;
}

static uint32_t live_clients(const FlowModel *m)
{
    uint32_t n = 0;

    for (guint i = 0; i < m->clients->len; i++) {
        n += live(m->clients->pdata[i]);
    }
    return n;
}

/* The clients as they are now: callbacks may change the list. */
static GPtrArray *clients_now(const FlowModel *m)
{
    return g_ptr_array_copy(m->clients, NULL, NULL);
}

static uint32_t held_messages(const FlowModelClient *c)
{
    const Buf *cur = c->m->current;

    return c->queue->len + (cur && cur->owner == c);
}

static size_t held_bytes(const FlowModelClient *c)
{
    const Buf *cur = c->m->current;
    size_t n = cur && cur->owner == c ? cur->size - cur->pos : 0;

    for (guint i = 0; i < c->queue->len; i++) {
        n += ((Buf *)c->queue->pdata[i])->size;
    }
    return n;
}

static size_t array_bytes(const GPtrArray *array)
{
    size_t n = 0;

    for (guint i = 0; i < array->len; i++) {
        n += ((Buf *)array->pdata[i])->size;
    }
    return n;
}

static uint32_t waiting(const FlowModelClient *c)
{
    return c->ring->len - c->in_flight;
}

/* What waits for the guest, all in all. */
static void count_to_guest(const FlowModel *m, uint32_t *messages,
                           size_t *bytes)
{
    *messages = m->orphans->len + m->server->len + (m->current != NULL);
    *bytes = array_bytes(m->orphans) + array_bytes(m->server) +
             (m->current ? m->current->size - m->current->pos : 0);
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        *messages += c->queue->len;
        *bytes += array_bytes(c->queue);
    }
}

/*
 * Calls in progress
 */

static bool fits(const FlowModelClient *c, size_t len)
{
    size_t used = array_bytes(c->ring);
    size_t space = 0;

    if (c->ring->len < c->params.to_client_messages &&
        used < c->params.to_client_bytes) {
        space = c->params.to_client_bytes - used;
    }
    return space >= MIN(len, c->params.to_client_bytes);
}

static bool takes(const FlowModelClient *c)
{
    return live(c) && !c->away && !c->flushing && waiting(c) == 0 &&
           (!c->params.flow_control || c->send_tokens);
}

static bool can_place(const FlowModel *m, size_t len)
{
    if (!m->running || m->sending) {
        return false;
    }
    for (guint i = 0; i < m->clients->len; i++) {
        if (takes(m->clients->pdata[i]) && fits(m->clients->pdata[i], len)) {
            return true;
        }
    }
    return live_clients(m) == 0;
}

static bool can_place_to(const FlowModelClient *c, size_t len)
{
    return c->m->running && !c->m->sending && (!live(c) || fits(c, len));
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
    return live(c) && !c->away && c->ring->len && live_clients(c->m) > 1;
}

static bool update_wake(FlowModel *m)
{
    if (!m->wait_len || !(m->wait_for ? can_place_to(m->wait_for, m->wait_len)
                                      : can_place(m, m->wait_len))) {
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

static void enter(FlowModel *m)
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

        if (c->ring->len == 0 || live_clients(m) <= 1) {
            c->since = -1;
        }
    }
}

static void leave(FlowModel *m)
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
 * To guest
 */

static void queued(FlowModel *m, const FlowModelClient *c, size_t size)
{
    uint32_t messages;
    size_t bytes;

    count_to_guest(m, &messages, &bytes);
    m->count.to_guest_peak = MAX(m->count.to_guest_peak, bytes);
    event(m, SPICE_FLOW_EV_TO_GUEST_QUEUE, c, size);
}

static void dropped(FlowModel *m, const Buf *b)
{
    m->count.dropped_messages++;
    m->count.dropped_bytes += b->size - b->pos;
    m->self_tokens += b->paid;
}

static uint32_t drop_all(FlowModel *m, GPtrArray *bufs)
{
    uint32_t n = bufs->len;

    for (Buf *b; (b = pop(bufs));) {
        dropped(m, b);
    }
    return n;
}

static uint32_t drop_current(FlowModel *m)
{
    Buf *b = m->current;

    if (!b) {
        return 0;
    }
    m->current = NULL;
    dropped(m, b);
    return 1;
}

static void ready_add(FlowModelClient *c)
{
    if (c != c->m->turn && !g_ptr_array_find(c->m->ready, c, NULL)) {
        push(c->m->ready, c);
    }
}

static void give(FlowModelClient *c)
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
        give(c);
    }
}

void flow_model_settle(FlowModel *m)
{
    GPtrArray *all;

    enter(m);
    all = clients_now(m);
    for (guint i = 0; i < all->len; i++) {
        FlowModelClient *c = all->pdata[i];

        if (live(c) && !c->away && c->due && held_messages(c) == 0) {
            give(c);
        }
    }
    g_ptr_array_unref(all);
    leave(m);
}

static void self_token_back(FlowModel *m)
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
        ready_add(c);
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
        self_token_back(m);
    }
}

static size_t room(const FlowModelClient *c)
{
    size_t bytes = held_bytes(c);

    if (!live(c) || held_messages(c) >= c->params.to_guest_messages ||
        bytes >= c->params.to_guest_bytes) {
        return 0;
    }
    return c->params.to_guest_bytes - bytes;
}

static void notify_room(FlowModel *m)
{
    GPtrArray *all = clients_now(m);

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

static void drain(FlowModel *m)
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
    notify_room(m);
}

void flow_model_guest_ready(FlowModel *m)
{
    enter(m);
    drain(m);
    flow_model_settle(m);
    leave(m);
}

size_t flow_model_client_room(FlowModelClient *c)
{
    size_t n = room(c);

    if (live(c) && n < c->params.to_guest_bytes) {
        c->wants_room = true;
    }
    return n;
}

static uint32_t detach(FlowModelClient *c);

static void kick(FlowModelClient *c, SpiceFlowReason reason)
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

bool flow_model_client_begin(FlowModelClient *c)
{
    FlowModel *m = c->m;

    if (!live(c) || !c->params.flow_control || c->receiving) {
        return false;
    }
    if (c->tokens == 0) {
        enter(m);
        m->count.violations++;
        kick(c, SPICE_FLOW_TOKEN_VIOLATION);
        leave(m);
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
        enter(c->m);
        token_back(c);
        leave(c->m);
    }
}

static Buf *buf_of(FlowModel *m, const SpiceFlowBuffer *from)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    Buf *b;

    g_byte_array_append(bytes, from->head, from->head_len);
    g_byte_array_append(bytes, from->data, from->len);
    b = buf_new(m, bytes->data, bytes->len);
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
    enter(m);
    b = buf_of(m, buffer);
    b->owner = c;
    b->price = c->params.flow_control;
    push(c->queue, b);
    queued(m, c, size);
    ready_add(c);
    drain(m);
    leave(m);
    return true;
}

static void server_write(FlowModel *m, const SpiceFlowBuffer *buffer, bool paid)
{
    Buf *b;

    enter(m);
    b = buf_of(m, buffer);
    b->paid = paid;
    push(m->server, b);
    queued(m, NULL, b->size);
    drain(m);
    flow_model_settle(m);
    leave(m);
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

/*
 * To client
 */

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
    if (can_place(m, len)) {
        return true;
    }
    guest_waits(m, NULL, len);
    return false;
}

bool flow_model_may_send_to(FlowModelClient *c, size_t len)
{
    if (can_place_to(c, len)) {
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
    enter(c->m);
    b = pop(c->ring);
    c->in_flight--;
    c->since = -1;
    event(c->m, SPICE_FLOW_EV_TO_CLIENT_DONE, c, b->size);
    leave(c->m);
}

static void flush(FlowModelClient *c)
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

    if (!fits(c, len)) {
        m->count.stalls++;
        kick(c, SPICE_FLOW_OVERFLOW);
        return;
    }
    push(c->ring, buf_new(m, data, len));
    flush(c);
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
    if (live_clients(m) == 0) {
        discard(m, len);
        return true;
    }
    enter(m);
    m->sending = true;
    all = clients_now(m);
    for (guint i = 0; i < all->len; i++) {
        if (live(all->pdata[i])) {
            offer(all->pdata[i], data, len);
        }
    }
    g_ptr_array_unref(all);
    m->sending = false;
    leave(m);
    return true;
}

void flow_model_send_to(FlowModelClient *c, const void *data, size_t len)
{
    taken(c->m, len);
    if (!live(c)) {
        discard(c->m, len);
        return;
    }
    enter(c->m);
    offer(c, data, len);
    leave(c->m);
}

static size_t stream_room(const FlowModel *m)
{
    size_t best = 0;

    if (!m->running || m->sending) {
        return 0;
    }
    if (live_clients(m) == 0) {
        return m->params.max_message;
    }
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];
        size_t used = array_bytes(c->ring);

        if (takes(c) && c->ring->len < c->params.to_client_messages &&
            used < c->params.to_client_bytes) {
            best = MAX(best, c->params.to_client_bytes - used);
        }
    }
    return MIN(best, m->params.max_message);
}

size_t flow_model_send_stream(FlowModel *m, const void *data, size_t len)
{
    size_t n, sent = 0;

    enter(m);
    while (sent < len) {
        n = MIN(stream_room(m), len - sent);
        if (n == 0) {
            guest_waits(m, NULL, STREAM_STEP);
            break;
        }
        flow_model_send(m, (const uint8_t *)data + sent, n);
        sent += n;
    }
    leave(m);
    return sent;
}

static void set_send_tokens(FlowModelClient *c, uint64_t n)
{
    if (!live(c) || !c->params.flow_control) {
        return;
    }
    enter(c->m);
    c->send_tokens = MIN(n, UINT32_MAX);
    event(c->m, SPICE_FLOW_EV_SEND_TOKENS, c, c->send_tokens);
    flush(c);
    leave(c->m);
}

void flow_model_client_tokens_add(FlowModelClient *c, uint32_t n)
{
    set_send_tokens(c, (uint64_t)c->send_tokens + n);
}

void flow_model_client_tokens_set(FlowModelClient *c, uint32_t n)
{
    set_send_tokens(c, n);
}

/*
 * Clients come and go
 */

static uint32_t drop_ring(FlowModelClient *c, uint32_t keep)
{
    uint32_t n = 0;

    while (c->ring->len > keep) {
        dropped(c->m, g_ptr_array_steal_index(c->ring, c->ring->len - 1));
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
            n += drop_current(m);
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
    n += drop_all(m, c->queue);
    g_ptr_array_remove(m->ready, c);
    c->wants_room = false;
    return n + drop_ring(c, 0);
}

static FlowModelClient *insert(FlowModel *m,
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
    enter(m);
    c = insert(m, params, opaque);
    event(m, SPICE_FLOW_EV_CLIENT_ADD, c, c->tokens);
    leave(m);
    return c;
}

bool flow_model_client_remove(FlowModelClient *c)
{
    FlowModel *m = c->m;
    bool broken;

    enter(m);
    event(m, SPICE_FLOW_EV_CLIENT_REMOVE, c, c->dead ? 0 : detach(c));
    broken = c->broken;
    c->gone = true;
    drain(m);
    flow_model_settle(m);
    leave(m);
    return broken;
}

bool flow_model_client_resume(FlowModelClient *c, void *opaque,
                              uint32_t delivered)
{
    FlowModel *m = c->m;

    if (!c->away || !live(c) || delivered > c->in_flight) {
        return false;
    }
    enter(m);
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
        give(c);
    }
    flush(c);
    leave(m);
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
    uint32_t n = drop_current(m) + drop_all(m, m->orphans) +
                 drop_all(m, m->server);

    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        n += drop_all(m, c->queue);
    }
    g_ptr_array_set_size(m->ready, 0);
    m->turn = NULL;
    m->torn = false;
    return n;
}

static void forget_clients(FlowModel *m)
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
    enter(m);
    m->ops = &no_ops;
    m->running = false;
    m->wait_len = 0;
    m->wait_for = NULL;
    forget_clients(m);
    m->closed = true;
    leave(m);
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
    enter(m);
    m->running = true;
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        c->since += c->since < 0 ? 0 : pause;
    }
    m->turn_since += m->turn_since < 0 ? 0 : pause;
    event(m, SPICE_FLOW_EV_START, NULL, 0);
    drain(m);
    flow_model_settle(m);
    if (m->running) {
        m->wait_len = 0;
        m->wait_for = NULL;
        event(m, SPICE_FLOW_EV_GUEST_WAKE, NULL, 0);
        if (m->ops->wake) {
            m->ops->wake(m->opaque);
        }
    }
    leave(m);
}

void flow_model_stop(FlowModel *m, int64_t now)
{
    if (!m->running) {
        return;
    }
    enter(m);
    m->running = false;
    m->stopped_at = now;
    event(m, SPICE_FLOW_EV_STOP, NULL, 0);
    leave(m);
}

void flow_model_reset(FlowModel *m)
{
    uint32_t had = m->self_tokens;
    uint32_t n;

    enter(m);
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
        self_token_back(m);
    }
    notify_room(m);
    leave(m);
}

int64_t flow_model_tick(FlowModel *m, int64_t now)
{
    int64_t timeout = m->params.stall_timeout;
    int64_t next = now + MAX(timeout / 4, 1);
    GPtrArray *all;

    if (!m->clock_runs) {
        return -1;
    }
    enter(m);
    all = clients_now(m);
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
            kick(c, SPICE_FLOW_STALLED);
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
    leave(m);
    return next;
}

int64_t flow_model_set_stall_timeout(FlowModel *m, uint32_t stall_timeout,
                                     int64_t now)
{
    m->params.stall_timeout = stall_timeout;
    return flow_model_tick(m, now);
}

/*
 * State
 */

void flow_model_info(const FlowModel *m, SpiceFlowInfo *info)
{
    *info = m->count;
    info->running = m->running;
    info->guest_waits = m->wait_len != 0;
    info->clients = live_clients(m);
    info->self_tokens = m->self_tokens;
    count_to_guest(m, &info->to_guest_messages, &info->to_guest_bytes);
}

void flow_model_client_info(const FlowModelClient *c,
                            SpiceFlowClientInfo *info)
{
    *info = (SpiceFlowClientInfo) {
        .id = c->params.id,
        .flow_control = c->params.flow_control,
        .away = c->away,
        .dead = c->dead,
        .receiving = c->receiving == 1,
        .waits = c->since >= 0,
        .window = c->params.window,
        .client_tokens = c->tokens,
        .due_tokens = c->due,
        .send_tokens = c->send_tokens,
        .to_guest_messages = held_messages(c),
        .to_guest_bytes = held_bytes(c),
        .to_client_messages = c->ring->len,
        .to_client_in_flight = c->in_flight,
        .to_client_bytes = array_bytes(c->ring),
    };
}

void flow_model_client_foreach(FlowModel *m,
                               void (*fn)(FlowModelClient *, void *),
                               void *data)
{
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        if (!c->gone) {
            fn(c, data);
        }
    }
}

static void save_buf(const Buf *b, GArray *buffers, GByteArray *data,
                     SpiceFlowSavedPlace place, uint32_t client)
{
    SpiceFlowSavedBuffer saved = {
        .place = place,
        .price = b->price,
        .paid = b->paid,
        .more = b->more,
        .client = client,
        .size = b->size,
        .offset = b->pos,
    };

    g_array_append_val(buffers, saved);
    g_byte_array_append(data, b->data, b->size);
}

static void save_bufs(const GPtrArray *bufs, GArray *buffers, GByteArray *data,
                      SpiceFlowSavedPlace place, uint32_t client)
{
    for (guint i = 0; i < bufs->len; i++) {
        save_buf(bufs->pdata[i], buffers, data, place, client);
    }
}

void flow_model_save(const FlowModel *m, SpiceFlowSaved *saved, int64_t now)
{
    GArray *clients = g_array_new(FALSE, TRUE, sizeof(SpiceFlowSavedClient));
    GArray *buffers = g_array_new(FALSE, TRUE, sizeof(SpiceFlowSavedBuffer));
    GByteArray *data = g_byte_array_new();

    now = m->running ? now : m->stopped_at;
    if (m->current) {
        save_buf(m->current, buffers, data, SPICE_FLOW_AT_CURRENT,
                 m->current->owner ? m->current->owner->params.id : 0);
    }
    save_bufs(m->orphans, buffers, data, SPICE_FLOW_AT_ORPHAN, 0);
    save_bufs(m->server, buffers, data, SPICE_FLOW_AT_SERVER, 0);
    if (m->turn) {
        save_bufs(m->turn->queue, buffers, data, SPICE_FLOW_AT_CLIENT,
                  m->turn->params.id);
    }
    for (guint i = 0; i < m->ready->len; i++) {
        FlowModelClient *c = m->ready->pdata[i];

        save_bufs(c->queue, buffers, data, SPICE_FLOW_AT_CLIENT, c->params.id);
    }
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];
        SpiceFlowSavedClient sc = {
            .params = c->params,
            .tokens = c->tokens,
            .due = c->due,
            .send_tokens = c->send_tokens,
            .in_flight = c->in_flight,
            .waited = c->since < 0 ? -1 : now - c->since,
            .receiving = c->receiving,
        };

        if (live(c)) {
            g_array_append_val(clients, sc);
            save_bufs(c->ring, buffers, data, SPICE_FLOW_AT_TO_CLIENT,
                      c->params.id);
        }
    }
    *saved = (SpiceFlowSaved) {
        .self_tokens = m->self_tokens,
        .turn = m->turn ? m->turn->params.id : 0,
        .turn_waited = m->turn_since < 0 ? -1 : now - m->turn_since,
        .torn = m->torn,
        .num_clients = clients->len,
        .num_buffers = buffers->len,
        .data_size = data->len,
    };
    saved->clients = (void *)g_array_free(clients, FALSE);
    saved->buffers = (void *)g_array_free(buffers, FALSE);
    saved->data = g_byte_array_free(data, FALSE);
}

void flow_model_restore(FlowModel *m, const SpiceFlowSaved *saved, int64_t now)
{
    const uint8_t *data = saved->data;

    enter(m);
    forget_clients(m);
    m->stopped_at = now;
    m->wait_len = 0;
    m->wait_for = NULL;
    m->self_tokens = saved->self_tokens;
    m->torn = saved->torn;
    for (uint32_t i = saved->num_clients; i-- > 0;) {
        const SpiceFlowSavedClient *sc = &saved->clients[i];
        FlowModelClient *c = insert(m, &sc->params, NULL);

        c->away = true;
        c->tokens = sc->tokens;
        c->due = sc->due;
        c->send_tokens = sc->send_tokens;
        c->in_flight = sc->in_flight;
        c->receiving = sc->receiving;
        c->since = sc->waited < 0 ? -1 : now - sc->waited;
    }
    m->turn = saved->turn ? flow_model_client_find(m, saved->turn) : NULL;
    m->turn_since = saved->turn_waited < 0 ? -1 : now - saved->turn_waited;
    for (uint32_t i = 0; i < saved->num_buffers; i++) {
        const SpiceFlowSavedBuffer *sb = &saved->buffers[i];
        Buf *b = buf_new(m, data, sb->size);
        FlowModelClient *c = sb->client ?
            flow_model_client_find(m, sb->client) : NULL;

        data += sb->size;
        b->pos = sb->offset;
        b->price = sb->price;
        b->paid = sb->paid;
        b->more = sb->more;
        if (sb->place == SPICE_FLOW_AT_TO_CLIENT) {
            push(c->ring, b);
            continue;
        }
        b->owner = c;
        switch (sb->place) {
        case SPICE_FLOW_AT_CURRENT:
            m->current = b;
            break;
        case SPICE_FLOW_AT_ORPHAN:
            push(m->orphans, b);
            break;
        case SPICE_FLOW_AT_SERVER:
            push(m->server, b);
            break;
        default:
            push(c->queue, b);
            ready_add(c);
            break;
        }
        queued(m, c, b->size);
    }
    event(m, SPICE_FLOW_EV_RESTORE, NULL, saved->num_buffers);
    leave(m);
}
