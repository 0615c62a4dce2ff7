/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flow-control machine, toward the clients: rings of undelivered messages,
 * send tokens, and when the guest has to wait.  See flow.c.
 */
#include "flow-priv.h"

#include <string.h>

/* A stream that had to wait goes on when this much fits. */
#define STREAM_STEP         (32 * 1024)
/* Slots that an empty ring keeps. */
#define RING_IDLE           16

static inline SpiceFlowMessage *ring_at(const Ring *ring, uint32_t i)
{
    return ring->slot[(ring->head + i) & (ring->size - 1)];
}

static void ring_push(Ring *ring, SpiceFlowMessage *msg)
{
    if (ring->len == ring->size) {
        uint32_t size = MAX(RING_IDLE / 2, ring->size * 2);
        SpiceFlowMessage **slot = g_new(SpiceFlowMessage *, size);

        for (uint32_t i = 0; i < ring->len; i++) {
            slot[i] = ring_at(ring, i);
        }
        g_free(ring->slot);
        ring->slot = slot;
        ring->size = size;
        ring->head = 0;
    }
    ring->slot[(ring->head + ring->len++) & (ring->size - 1)] = msg;
}

static SpiceFlowMessage *ring_pop_head(Ring *ring)
{
    SpiceFlowMessage *msg = ring_at(ring, 0);

    ring->head = (ring->head + 1) & (ring->size - 1);
    ring->len--;
    return msg;
}

/* An empty ring keeps no more than an idle client may cost. */
static void ring_shrink(Ring *ring)
{
    if (ring->size > RING_IDLE) {
        g_free(ring->slot);
        *ring = (Ring) { 0 };
    }
}

static SpiceFlowMessage *ring_pop_tail(Ring *ring)
{
    return ring_at(ring, --ring->len);
}

static size_t client_space(const SpiceFlowClient *client)
{
    if (client->ring.len >= client->params.to_client_messages ||
        client->ring_bytes >= client->params.to_client_bytes) {
        return 0;
    }
    return client->params.to_client_bytes - client->ring_bytes;
}

/*
 * A message larger than the budget would fit an empty ring: no budget may make
 * a guest wait for ever.
 */
static bool client_fits(const SpiceFlowClient *client, size_t len)
{
    return client_space(client) >= MIN(len, client->params.to_client_bytes);
}

/* Whether a message would be on its way to the client at once. */
static bool client_can_take(const SpiceFlowClient *client)
{
    return client_live(client) && !client->away && !client->flushing &&
           client_waiting(client) == 0 &&
           (!client->params.flow_control || client->send_tokens > 0);
}

void flow_client_ring_push(SpiceFlowClient *client, SpiceFlowMessage *msg)
{
    if (client->ring.len == 0) {
        client->flow->num_undelivered += !client->away;
        client->stalled_since = -1;
    }
    msg->refs++;
    ring_push(&client->ring, msg);
    client->ring_bytes += msg->size;
}

/* @msg has left the ring; the reference of the ring goes. */
static void client_ring_popped(SpiceFlowClient *client, SpiceFlowMessage *msg)
{
    client->ring_bytes -= msg->size;
    client->stalled_since = -1;
    if (client->ring.len == 0) {
        client->flow->num_undelivered -= !client->away;
        ring_shrink(&client->ring);
    }
    flow_message_unref(msg);
}

SpiceFlowMessage *flow_ring_at(const SpiceFlowClient *client, uint32_t i)
{
    return ring_at(&client->ring, i);
}

uint32_t flow_client_ring_drop(SpiceFlowClient *client, uint32_t keep)
{
    uint32_t dropped = 0;

    for (; client->ring.len > keep; dropped++) {
        SpiceFlowMessage *msg = ring_pop_tail(&client->ring);

        flow_count_dropped(client->flow, msg->size);
        client_ring_popped(client, msg);
    }
    client->in_flight = MIN(client->in_flight, keep);
    return dropped;
}

/* Put what waits on its way, as far as send tokens allow. */
void flow_client_flush(SpiceFlowClient *client)
{
    SpiceFlow *flow = client->flow;

    if (client->flushing) {
        return;
    }
    client->flushing = true;
    while (client_live(client) && !client->away && client_waiting(client) &&
           (!client->params.flow_control || client->send_tokens > 0)) {
        SpiceFlowMessage *msg = ring_at(&client->ring, client->in_flight);
        bool out;

        if (client->params.flow_control) {
            client->send_tokens--;
        }
        client->in_flight++;
        flow_event(flow, SPICE_FLOW_EV_TO_CLIENT_SEND, client, msg->size);
        msg->refs++;
        out = flow->ops->send(client->opaque, msg);
        flow_message_unref(msg);
        if (out && client_live(client)) {
            spice_flow_client_sent(client);
        }
    }
    client->flushing = false;
}

static void client_offer(SpiceFlowClient *client, SpiceFlowMessage *msg)
{
    if (!client_fits(client, msg->size)) {
        client->flow->count.stalls++;
        flow_client_kick(client, SPICE_FLOW_OVERFLOW);
        return;
    }
    flow_client_ring_push(client, msg);
    flow_client_flush(client);
    if (client_live(client) && client_waiting(client)) {
        flow_event(client->flow, SPICE_FLOW_EV_TO_CLIENT_QUEUE, client,
                   msg->size);
    }
}

/* Whether a message of the guest's can be handed out now. */
static bool flow_can_place(const SpiceFlow *flow, size_t len)
{
    if (!flow->running || flow->sending) {
        return false;
    }
    if (flow->num_live == 0) {
        return true;
    }
    for (GList *l = flow->clients.head; l; l = l->next) {
        const SpiceFlowClient *client = l->data;

        if (client_can_take(client) && client_fits(client, len)) {
            return true;
        }
    }
    return false;
}

static bool client_can_place(const SpiceFlowClient *client, size_t len)
{
    return client->flow->running && !client->flow->sending &&
           (!client_live(client) || client_fits(client, len));
}

bool flow_guest_can_go_on(const SpiceFlow *flow)
{
    return flow->guest_wait_for ?
           client_can_place(flow->guest_wait_for, flow->guest_wait_len) :
           flow_can_place(flow, flow->guest_wait_len);
}

static void guest_waits(SpiceFlow *flow, SpiceFlowClient *client, size_t len)
{
    if (!flow->guest_wait_len) {
        flow_event(flow, SPICE_FLOW_EV_GUEST_WAIT, NULL, 0);
    }
    flow->guest_wait_len = len;
    flow->guest_wait_for = client;
}

bool spice_flow_may_send(SpiceFlow *flow, size_t len)
{
    if (flow_can_place(flow, len)) {
        return true;
    }
    guest_waits(flow, NULL, MAX(len, 1));
    return false;
}

bool spice_flow_may_send_to(SpiceFlowClient *client, size_t len)
{
    if (client_can_place(client, len)) {
        return true;
    }
    guest_waits(client->flow, client, MAX(len, 1));
    return false;
}

bool spice_flow_guest_waits(const SpiceFlow *flow)
{
    return flow->guest_wait_len != 0;
}

static void count_taken(SpiceFlow *flow, size_t len)
{
    flow->count.client_messages++;
    flow->count.client_bytes += len;
}

static void flow_discard(SpiceFlow *flow, size_t len)
{
    flow->count.discarded_messages++;
    flow->count.discarded_bytes += len;
    flow_event(flow, SPICE_FLOW_EV_DISCARD, NULL, len);
}

bool spice_flow_send(SpiceFlow *flow, const void *data, size_t len)
{
    SpiceFlowMessage *msg;

    if (!spice_flow_may_send(flow, len)) {
        return false;
    }
    count_taken(flow, len);
    if (flow->num_live == 0) {
        flow_discard(flow, len);
        return true;
    }
    flow_enter(flow);
    flow->sending = true;
    msg = flow_message_new(flow, data, len);
    for (GList *l = flow->clients.head; l; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (client_live(client)) {
            client_offer(client, msg);
        }
    }
    flow_message_release_borrowed(msg);
    flow->sending = false;
    flow_leave(flow);
    return true;
}

void spice_flow_send_to(SpiceFlowClient *client, const void *data, size_t len)
{
    SpiceFlow *flow = client->flow;
    SpiceFlowMessage *msg;

    count_taken(flow, len);
    if (!client_live(client)) {
        flow_discard(flow, len);
        return;
    }
    flow_enter(flow);
    msg = flow_message_new(flow, data, len);
    client_offer(client, msg);
    flow_message_release_borrowed(msg);
    flow_leave(flow);
}

/* The most that one message of a stream can carry now. */
static size_t stream_room(const SpiceFlow *flow)
{
    size_t room = 0;

    if (!flow->running || flow->sending) {
        return 0;
    }
    if (flow->num_live == 0) {
        return flow->params.max_message;
    }
    for (GList *l = flow->clients.head; l; l = l->next) {
        const SpiceFlowClient *client = l->data;

        if (client_can_take(client)) {
            room = MAX(room, client_space(client));
        }
    }
    return MIN(room, flow->params.max_message);
}

size_t spice_flow_send_stream(SpiceFlow *flow, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t done = 0;

    flow_enter(flow);
    while (done < len) {
        size_t n = MIN(len - done, stream_room(flow));

        if (n == 0) {
            guest_waits(flow, NULL, STREAM_STEP);
            break;
        }
        spice_flow_send(flow, p + done, n);
        done += n;
    }
    flow_leave(flow);
    return done;
}

void spice_flow_client_sent(SpiceFlowClient *client)
{
    SpiceFlow *flow = client->flow;
    SpiceFlowMessage *msg;

    if (!client_live(client) || client->in_flight == 0) {
        return;
    }
    flow_enter(flow);
    msg = ring_pop_head(&client->ring);
    client->in_flight--;
    flow_event(flow, SPICE_FLOW_EV_TO_CLIENT_DONE, client, msg->size);
    client_ring_popped(client, msg);
    flow_leave(flow);
}

/* The one way in which send tokens change by the client's word. */
static void client_send_tokens(SpiceFlowClient *client, uint64_t n)
{
    SpiceFlow *flow = client->flow;

    if (!client_live(client) || !client->params.flow_control) {
        return;
    }
    flow_enter(flow);
    client->send_tokens = MIN(n, UINT32_MAX);
    flow_event(flow, SPICE_FLOW_EV_SEND_TOKENS, client, client->send_tokens);
    flow_client_flush(client);
    flow_leave(flow);
}

void spice_flow_client_tokens_add(SpiceFlowClient *client, uint32_t n)
{
    client_send_tokens(client, (uint64_t)client->send_tokens + n);
}

void spice_flow_client_tokens_set(SpiceFlowClient *client, uint32_t n)
{
    client_send_tokens(client, n);
}
