/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flow-control machine, toward the guest: queues, the current buffer, whose
 * turn it is, client and self tokens.  See flow.c.
 */
#include "flow-priv.h"

#include <string.h>

/* Steady clients get room again in pieces worth a read of their socket. */
#define ROOM_STEP           (32 * 1024)

static void client_room_forget(SpiceFlowClient *client)
{
    if (client->wants_room) {
        client->wants_room = false;
        client->flow->num_want_room--;
    }
}

static void ready_remove(SpiceFlowClient *client)
{
    if (client->ready) {
        client->ready = false;
        g_queue_unlink(&client->flow->ready, &client->ready_link);
    }
}

void flow_ready_add(SpiceFlowClient *client)
{
    if (!client->ready && client != client->flow->turn) {
        client->ready = true;
        g_queue_push_tail_link(&client->flow->ready, &client->ready_link);
    }
}

static size_t client_room(const SpiceFlowClient *client)
{
    const SpiceFlowClientParams *params = &client->params;

    if (!client_live(client) ||
        client->to_guest_messages >= params->to_guest_messages ||
        client->to_guest_bytes >= params->to_guest_bytes) {
        return 0;
    }
    return params->to_guest_bytes - client->to_guest_bytes;
}

/* Bytes of a buffer are with the guest, or dropped. */
static void to_guest_forget_bytes(SpiceFlowMessage *msg, size_t bytes)
{
    msg->flow->count.to_guest_bytes -= bytes;
    if (msg->owner) {
        msg->owner->to_guest_bytes -= bytes;
    }
}

static void to_guest_forget(SpiceFlowMessage *msg)
{
    msg->flow->count.to_guest_messages--;
    if (msg->owner) {
        msg->owner->to_guest_messages--;
    }
}

/* Drop a buffer that is in no queue any more; no client token comes back. */
static void to_guest_drop(SpiceFlowMessage *msg, size_t pos)
{
    SpiceFlow *flow = msg->flow;

    to_guest_forget_bytes(msg, msg->size - pos);
    to_guest_forget(msg);
    flow_count_dropped(flow, msg->size - pos);
    flow->self_tokens += msg->paid;
    flow_message_unref(msg);
}

static uint32_t to_guest_drop_queue(GQueue *queue)
{
    uint32_t n = 0;
    GList *link;

    for (; (link = g_queue_pop_head_link(queue)); n++) {
        to_guest_drop(link->data, 0);
    }
    return n;
}

static uint32_t current_drop(SpiceFlow *flow)
{
    SpiceFlowMessage *msg = flow->current;

    if (!msg) {
        return 0;
    }
    flow->current = NULL;
    to_guest_drop(msg, flow->current_pos);
    return 1;
}

static void to_guest_disown(SpiceFlowMessage *msg, size_t pos)
{
    to_guest_forget_bytes(msg, msg->size - pos);
    to_guest_forget(msg);
    msg->flow->count.to_guest_bytes += msg->size - pos;
    msg->flow->count.to_guest_messages++;
    msg->owner = NULL;
    msg->price = 0;
}

/*
 * The client leaves in the middle of a message: what is here of the rest
 * outlives it.  Returns whether that is all.
 */
static bool client_orphan_message(SpiceFlowClient *client)
{
    bool more = true;
    GList *link;

    while (more && (link = g_queue_pop_head_link(&client->to_guest))) {
        SpiceFlowMessage *msg = link->data;

        more = msg->more;
        to_guest_disown(msg, 0);
        g_queue_push_tail_link(&client->flow->orphans, link);
    }
    return !more;
}

uint32_t flow_to_guest_detach(SpiceFlowClient *client)
{
    SpiceFlow *flow = client->flow;
    SpiceFlowMessage *current = flow->current;
    uint32_t dropped = 0;

    if (current && current->owner == client) {
        if (flow->params.framing == SPICE_FLOW_RAW) {
            dropped += current_drop(flow);
        } else {
            to_guest_disown(current, flow->current_pos);
        }
    }
    if (flow->turn == client) {
        if (flow->params.framing == SPICE_FLOW_FRAMED) {
            client->broken = !client_orphan_message(client);
            flow->torn = client->broken;
        }
        flow->turn = NULL;
    }
    dropped += to_guest_drop_queue(&client->to_guest);
    ready_remove(client);
    client_room_forget(client);
    return dropped;
}

static void client_give_tokens(SpiceFlowClient *client)
{
    SpiceFlow *flow = client->flow;
    uint32_t n = client->due;

    client->due = 0;
    client->tokens += n;
    flow_event(flow, SPICE_FLOW_EV_TOKEN_GIVE, client, n);
    if (flow->ops->give_tokens) {
        flow->ops->give_tokens(client->opaque, n);
    }
}

void flow_client_settle(SpiceFlowClient *client)
{
    /* A client that is away can not be told, so it stays due. */
    if (client->due && client_live(client) && !client->away &&
        (client->due >= client->params.interval ||
         client->to_guest_messages == 0)) {
        client_give_tokens(client);
    }
}

static void client_token_due(SpiceFlowClient *client)
{
    client->due++;
    if (client->due >= client->params.interval && !client->away) {
        client_give_tokens(client);
    }
}

void flow_self_token_back(SpiceFlow *flow)
{
    flow_event(flow, SPICE_FLOW_EV_SELF_TOKEN, NULL, flow->self_tokens);
    if (flow->ops->self_token_free) {
        flow->ops->self_token_free(flow->opaque);
    }
}

void spice_flow_settle(SpiceFlow *flow)
{
    flow_enter(flow);
    for (GList *l = flow->clients.head; l; l = l->next) {
        flow_client_settle(l->data);
    }
    flow_leave(flow);
}

/* The last byte of the current buffer is with the guest. */
static void current_done(SpiceFlow *flow)
{
    SpiceFlowMessage *msg = flow->current;
    SpiceFlowClient *owner = msg->owner;
    bool paid = msg->paid, price = msg->price;

    flow->current = NULL;
    flow->count.guest_messages++;
    flow_event(flow, SPICE_FLOW_EV_TO_GUEST_DONE, owner, msg->size);
    to_guest_forget(msg);
    flow_message_unref(msg);
    if (price) {
        client_token_due(owner);
    }
    if (paid) {
        flow->self_tokens++;
        flow_self_token_back(flow);
    }
}

/* Move the buffer whose turn it is to the front.  Returns whether there is. */
static bool current_next(SpiceFlow *flow)
{
    SpiceFlowClient *client;
    GList *link = flow_queue_pop(&flow->orphans);

    if (!link) {
        link = flow_queue_pop(&flow->server);
        /* A paid one may have been queued before the message was torn. */
        if (link && !((SpiceFlowMessage *)link->data)->paid) {
            flow->torn = false;
        }
    }
    if (!link) {
        client = flow->turn;
        if (flow->torn) {
            return false;
        }
        if (!client) {
            GList *first = flow_queue_pop(&flow->ready);

            if (!first) {
                return false;
            }
            client = first->data;
            client->ready = false;
        }
        link = flow_queue_pop(&client->to_guest);
        if (!link) {
            return false;
        }
        if (((SpiceFlowMessage *)link->data)->more) {
            flow->turn = client;
            flow->turn_since = -1;
        } else {
            flow->turn = NULL;
            if (!g_queue_is_empty(&client->to_guest)) {
                flow_ready_add(client);
            }
        }
    }
    flow->current = link->data;
    flow->current_pos = 0;
    return true;
}

/*
 * Tell clients that were short of room; not from inside the write loop, so
 * that what they bring can go straight through.
 */
void flow_notify_room(SpiceFlow *flow)
{
    for (GList *l = flow->clients.head; l && flow->num_want_room; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (client->wants_room &&
            client_room(client) >= MIN(ROOM_STEP,
                                       client->params.to_guest_bytes / 2)) {
            client_room_forget(client);
            if (flow->ops->room && !client->away) {
                flow->ops->room(client->opaque);
            }
        }
    }
}

/* Give the guest what it takes.  Returns false when it took nothing more. */
static bool current_write(SpiceFlow *flow)
{
    SpiceFlowMessage *msg = flow->current;
    size_t left = msg->size - flow->current_pos;
    ssize_t n;

    /* The op may drop the buffer; the frontend still reads from it. */
    msg->refs++;
    n = flow->ops->write(flow->opaque, msg->data + flow->current_pos, left);
    if (n > 0) {
        size_t took = MIN((size_t)n, left);

        flow->count.guest_bytes += took;
        if (flow->current == msg) {
            flow->current_pos += took;
            to_guest_forget_bytes(msg, took);
            if (took == left) {
                current_done(flow);
            }
        }
    }
    flow_message_unref(msg);
    return n > 0;
}

void flow_write(SpiceFlow *flow)
{
    if (flow->writing) {
        flow->write_again = true;
        return;
    }
    flow->writing = true;
    do {
        flow->write_again = false;
        while (flow->running && (flow->current || current_next(flow)) &&
               current_write(flow)) {
            /* as long as the guest takes something */
        }
    } while (flow->write_again && flow->running);
    flow->writing = false;
    flow_notify_room(flow);
}

void spice_flow_guest_ready(SpiceFlow *flow)
{
    flow_enter(flow);
    flow_write(flow);
    spice_flow_settle(flow);
    flow_leave(flow);
}

size_t spice_flow_client_room(SpiceFlowClient *client)
{
    size_t room = client_room(client);

    if (room < client->params.to_guest_bytes && client_live(client) &&
        !client->wants_room) {
        client->wants_room = true;
        client->flow->num_want_room++;
    }
    return room;
}

bool spice_flow_client_begin(SpiceFlowClient *client)
{
    SpiceFlow *flow = client->flow;

    if (!client_live(client) || client->receiving ||
        !client->params.flow_control) {
        return false;
    }
    if (client->tokens == 0) {
        flow->count.violations++;
        flow_enter(flow);
        flow_client_kick(client, SPICE_FLOW_TOKEN_VIOLATION);
        flow_leave(flow);
        return false;
    }
    client->tokens--;
    client->receiving = RECEIVING;
    flow_event(flow, SPICE_FLOW_EV_TOKEN_TAKE, client, client->tokens);
    return true;
}

void spice_flow_client_cancel(SpiceFlowClient *client)
{
    SpiceFlow *flow = client->flow;
    uint8_t receiving = client->receiving;

    client->receiving = RECEIVING_NOT;
    if (receiving == RECEIVING && client_live(client)) {
        flow_enter(flow);
        client_token_due(client);
        flow_leave(flow);
    }
}

SpiceFlowMessage *flow_to_guest_new(SpiceFlow *flow, SpiceFlowClient *owner,
                                      const SpiceFlowBuffer *buffer)
{
    size_t size = buffer->head_len + buffer->len;
    SpiceFlowMessage *msg = flow_message_new(flow, buffer->data, size);

    if (buffer->head_len) {
        memcpy(msg->storage, buffer->head, buffer->head_len);
        if (buffer->len) {
            memcpy(msg->storage + buffer->head_len, buffer->data, buffer->len);
        }
        msg->data = msg->storage;
    }
    msg->refs++;
    msg->owner = owner;
    msg->more = buffer->more;
    if (owner) {
        owner->to_guest_messages++;
        owner->to_guest_bytes += size;
    }
    flow->count.to_guest_messages++;
    flow->count.to_guest_bytes += size;
    flow->count.to_guest_peak = MAX(flow->count.to_guest_peak,
                                    flow->count.to_guest_bytes);
    flow_event(flow, SPICE_FLOW_EV_TO_GUEST_QUEUE, owner, size);
    return msg;
}

/* @msg stands in its queue: that queue has the second reference. */
static void to_guest_go(SpiceFlow *flow, SpiceFlowMessage *msg)
{
    flow_enter(flow);
    flow_write(flow);
    flow_message_release_borrowed(msg);
    flow_leave(flow);
}

/* Whether a client's bytes may be queued; consumes the message begun. */
static bool client_accepts(SpiceFlowClient *client, size_t size)
{
    SpiceFlow *flow = client->flow;

    if (!client_live(client)) {
        return false;
    }
    if (!client->params.flow_control) {
        return size <= flow->params.max_message && size <= client_room(client);
    }
    if (!client->receiving) {
        return false;
    }
    if (client->receiving == RECEIVING && size > flow->params.max_message) {
        spice_flow_client_cancel(client);
        return false;
    }
    return true;
}

bool spice_flow_client_write(SpiceFlowClient *client,
                             const SpiceFlowBuffer *buffer)
{
    SpiceFlow *flow = client->flow;
    size_t size = buffer->head_len + buffer->len;
    SpiceFlowMessage *msg;

    if (!client_accepts(client, size)) {
        return false;
    }
    if (client->receiving == RECEIVING_STALE || size == 0) {
        spice_flow_client_cancel(client);
        return true;
    }
    client->receiving = RECEIVING_NOT;
    msg = flow_to_guest_new(flow, client, buffer);
    msg->price = client->params.flow_control;
    g_queue_push_tail_link(&client->to_guest, &msg->link);
    flow_ready_add(client);
    to_guest_go(flow, msg);
    return true;
}

static void server_write(SpiceFlow *flow, const SpiceFlowBuffer *buffer,
                         bool paid)
{
    SpiceFlowMessage *msg = flow_to_guest_new(flow, NULL, buffer);

    msg->paid = paid;
    g_queue_push_tail_link(&flow->server, &msg->link);
    flow_enter(flow);
    to_guest_go(flow, msg);
    spice_flow_settle(flow);
    flow_leave(flow);
}

bool spice_flow_server_may_write(const SpiceFlow *flow)
{
    return flow->self_tokens > 0;
}

bool spice_flow_server_write(SpiceFlow *flow, const SpiceFlowBuffer *buffer)
{
    if (!spice_flow_server_may_write(flow)) {
        return false;
    }
    flow->self_tokens--;
    flow_event(flow, SPICE_FLOW_EV_SELF_TOKEN, NULL, flow->self_tokens);
    server_write(flow, buffer, true);
    return true;
}

static bool message_is(const SpiceFlowMessage *msg,
                       const SpiceFlowBuffer *buffer)
{
    return msg->size == buffer->head_len + buffer->len &&
           (!buffer->head_len ||
            !memcmp(msg->data, buffer->head, buffer->head_len)) &&
           (!buffer->len ||
            !memcmp(msg->data + buffer->head_len, buffer->data, buffer->len));
}

void spice_flow_server_write_unpaid(SpiceFlow *flow,
                                    const SpiceFlowBuffer *buffer)
{
    for (GList *l = flow->server.head; l; l = l->next) {
        if (!((SpiceFlowMessage *)l->data)->paid &&
            message_is(l->data, buffer)) {
            return;
        }
    }
    server_write(flow, buffer, false);
}

/* Everything queued goes; clients stay, with their counters untouched. */
uint32_t flow_to_guest_clear(SpiceFlow *flow)
{
    uint32_t dropped = current_drop(flow);

    dropped += to_guest_drop_queue(&flow->orphans);
    dropped += to_guest_drop_queue(&flow->server);
    for (GList *l = flow->clients.head; l; l = l->next) {
        SpiceFlowClient *client = l->data;

        dropped += to_guest_drop_queue(&client->to_guest);
        ready_remove(client);
    }
    flow->turn = NULL;
    flow->torn = false;
    return dropped;
}
