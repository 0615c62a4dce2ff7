/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flow-control state machine of one character device.
 *
 * Theory of operation
 * ===================
 *
 * To guest.  Every client has a queue of its own, and there is one for the
 * server.  At most one buffer is `current`: the guest may have a part of it.
 * The next current buffer is taken, in this order, from
 *
 *   orphans   what completes a message whose client left in the middle of it;
 *   server    the server's own buffers: they are complete in themselves, and a
 *             notice about a client that left must precede the next client.
 *             After a message that can not be completed (`torn`) only these
 *             go, until there was an unpaid one: it makes the guest forget
 *             the rest;
 *   turn      the client whose last buffer said that its message goes on.  No
 *             other client may come between, even while it has nothing queued;
 *   ready     the clients with something queued, round robin by message.
 *
 * A buffer is finished when the guest took its last byte.  Only then is its
 * client token due.  What is due is given back in lumps of `interval`, and
 * whatever the lump when the client has nothing queued any more, so none is
 * withheld.  For each client with flow control
 *
 *   tokens + due + unfinished buffers + (1 while it is in a message) = window
 *
 * holds after every call.  Clients without flow control have a budget instead:
 * they ask for room before they read their socket.
 *
 * To client.  A message of the guest's is taken when some client can have it
 * at once, or when there is no client (then it is discarded).  Each client has
 * a ring of undelivered messages: first those in flight (with the owner's
 * socket), then those that wait for send tokens.  Messages are shared between
 * clients.  Those who can not have it at once get it queued; a client over its
 * budget is removed, because the others do not wait for it.  A lone client
 * makes the guest wait instead and is never removed for being slow.
 *
 * Borrowed bytes.  A message begins as a view of its caller's memory.  Whoever
 * needs it beyond the call makes it keep the bytes, which copies them once, so
 * data that passes straight through is never copied.
 *
 * Stop.  Between stop and start the write op is not called and nothing is
 * taken from the guest; everything else works within its budgets.
 *
 * Time.  A client that has messages undelivered while there are others, and
 * the client whose turn it is while it pauses and others are ready, are timed.
 * The clock op says when that begins; spice_flow_tick() brings the time, so a
 * message costs no look at a clock.  A stall is noticed after one to one and a
 * quarter stall timeouts.
 *
 * Re-entrancy.  Every op may call back.  `depth` counts the calls in progress:
 * memory of removed clients is freed when it is zero again.  `writing` and a
 * client's `flushing` make a nested call leave the work to the loop that is
 * running, so nothing overtakes; a nested wakeup sets `write_again`, so none is
 * lost.  While a message is being handed out (`sending`) the guest has to
 * wait.
 *
 * Memory.  Messages are recycled by size class.  When the last one in use is
 * given back the pool shrinks toward what the busy period just ended needed.
 */
#include "flow-priv.h"

#include <string.h>

/* What a closed device calls: nothing. */
static const SpiceFlowOps no_ops;

static const char *const event_names[SPICE_FLOW_EV__MAX] = {
    [SPICE_FLOW_EV_START] = "start",
    [SPICE_FLOW_EV_STOP] = "stop",
    [SPICE_FLOW_EV_RESET] = "reset",
    [SPICE_FLOW_EV_CLIENT_ADD] = "client-add",
    [SPICE_FLOW_EV_CLIENT_REMOVE] = "client-remove",
    [SPICE_FLOW_EV_CLIENT_KICK] = "client-kick",
    [SPICE_FLOW_EV_CLIENT_RESUME] = "client-resume",
    [SPICE_FLOW_EV_TOKEN_TAKE] = "token-take",
    [SPICE_FLOW_EV_TOKEN_GIVE] = "token-give",
    [SPICE_FLOW_EV_SEND_TOKENS] = "send-tokens",
    [SPICE_FLOW_EV_TO_GUEST_QUEUE] = "to-guest-queue",
    [SPICE_FLOW_EV_TO_GUEST_DONE] = "to-guest-done",
    [SPICE_FLOW_EV_TO_CLIENT_SEND] = "to-client-send",
    [SPICE_FLOW_EV_TO_CLIENT_QUEUE] = "to-client-queue",
    [SPICE_FLOW_EV_TO_CLIENT_DONE] = "to-client-done",
    [SPICE_FLOW_EV_DISCARD] = "discard",
    [SPICE_FLOW_EV_GUEST_WAIT] = "guest-wait",
    [SPICE_FLOW_EV_GUEST_WAKE] = "guest-wake",
    [SPICE_FLOW_EV_STALL] = "stall",
    [SPICE_FLOW_EV_TURN_LOST] = "turn-lost",
    [SPICE_FLOW_EV_SELF_TOKEN] = "self-token",
    [SPICE_FLOW_EV_RESTORE] = "restore",
};

const char *spice_flow_event_name(SpiceFlowEvent event)
{
    return (unsigned)event < SPICE_FLOW_EV__MAX ? event_names[event] : "?";
}

const char *spice_flow_reason_name(SpiceFlowReason reason)
{
    switch (reason) {
    case SPICE_FLOW_TOKEN_VIOLATION:
        return "token violation";
    case SPICE_FLOW_STALLED:
        return "stalled";
    case SPICE_FLOW_OVERFLOW:
        return "queue full";
    }
    return "?";
}

/* Returns whether anything changed. */
static bool clock_update(SpiceFlow *flow)
{
    bool runs = flow_clock_wanted(flow);

    if (runs == flow->clock_runs) {
        return false;
    }
    flow->clock_runs = runs;
    flow_event(flow, SPICE_FLOW_EV_STALL, NULL, runs);
    if (flow->ops->clock) {
        flow->ops->clock(flow->opaque, runs);
    }
    return true;
}

void flow_clocks_forget(SpiceFlow *flow)
{
    bool timed = false;

    if (!flow->turn || flow->turn->to_guest.length || !flow->ready.length) {
        flow->turn_since = -1;
    }
    for (GList *l = flow->clients.head; l; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (client->ring.len == 0 || flow->num_live <= 1) {
            client->stalled_since = -1;
        }
        timed = timed || client->stalled_since >= 0;
    }
    flow->timed = timed || flow->turn_since >= 0;
}

void flow_free_if_done(SpiceFlow *flow)
{
    if (flow->closed && flow->depth == 0 && flow->live_messages == 0) {
        flow_pool_trim(flow, 0);
        g_free(flow);
    }
}

static void flow_wake(SpiceFlow *flow)
{
    flow->guest_wait_len = 0;
    flow->guest_wait_for = NULL;
    flow_event(flow, SPICE_FLOW_EV_GUEST_WAKE, NULL, 0);
    if (flow->ops->wake) {
        flow->ops->wake(flow->opaque);
    }
}

/* Returns whether the guest was woken. */
static bool flow_wake_if_due(SpiceFlow *flow)
{
    if (!flow->guest_wait_len || !flow_guest_can_go_on(flow)) {
        return false;
    }
    flow_wake(flow);
    return true;
}

static void free_gone_clients(SpiceFlow *flow)
{
    for (GList *l = flow->clients.head, *next; l; l = next) {
        SpiceFlowClient *client = l->data;

        next = l->next;
        if (client->gone) {
            g_queue_unlink(&flow->clients, l);
            if (flow->guest_wait_for == client) {
                flow->guest_wait_for = NULL;
            }
            g_free(client->ring.slot);
            g_free(client);
        }
    }
    flow->num_gone = 0;
}

void flow_leave_outermost(SpiceFlow *flow)
{
    bool again;

    /* Each op may do what makes the other due. */
    do {
        again = flow_wake_if_due(flow);
        again = clock_update(flow) || again;
    } while (again);
    if (flow->num_gone) {
        free_gone_clients(flow);
    }
    flow->depth--;
    flow_free_if_done(flow);
}

/*
 * Clients
 */

/* Everything that the device holds of a client goes.  Returns buffers. */
static uint32_t client_detach(SpiceFlowClient *client)
{
    client->flow->num_live--;
    return flow_to_guest_detach(client) + flow_client_ring_drop(client, 0);
}

void flow_client_kick(SpiceFlowClient *client, SpiceFlowReason reason)
{
    SpiceFlow *flow = client->flow;

    client_detach(client);
    client->dead = true;
    flow_clocks_forget(flow);
    flow_event(flow, SPICE_FLOW_EV_CLIENT_KICK, client, reason);
    if (flow->ops->remove && !client->away) {
        flow->ops->remove(client->opaque, reason);
    }
}

SpiceFlowClient *flow_client_insert(SpiceFlow *flow,
                                    const SpiceFlowClientParams *params,
                                    void *opaque)
{
    SpiceFlowClient *client = g_new0(SpiceFlowClient, 1);

    client->link.data = client;
    client->ready_link.data = client;
    client->flow = flow;
    client->opaque = opaque;
    client->params = *params;
    client->stalled_since = -1;
    if (params->flow_control) {
        client->params.interval = MAX(params->interval, 1);
        client->tokens = params->window;
        client->send_tokens = params->send_tokens;
    }
    g_queue_push_head_link(&flow->clients, &client->link);
    flow->num_live++;
    return client;
}

SpiceFlowClient *spice_flow_client_find(SpiceFlow *flow, uint32_t id)
{
    for (GList *l = flow->clients.head; l; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (client->params.id == id && !client->gone) {
            return client;
        }
    }
    return NULL;
}

SpiceFlowClient *spice_flow_client_add(SpiceFlow *flow,
                                       const SpiceFlowClientParams *params,
                                       void *opaque)
{
    SpiceFlowClient *client;

    if (params->id == 0 || spice_flow_client_find(flow, params->id)) {
        return NULL;
    }
    flow_enter(flow);
    client = flow_client_insert(flow, params, opaque);
    flow_event(flow, SPICE_FLOW_EV_CLIENT_ADD, client, client->tokens);
    flow_leave(flow);
    return client;
}

/* Loops over the clients may be under way: the memory stays for now. */
static void client_mark_gone(SpiceFlowClient *client)
{
    client->gone = true;
    client->flow->num_gone++;
}

bool spice_flow_client_remove(SpiceFlowClient *client)
{
    SpiceFlow *flow = client->flow;
    bool broken;
    uint32_t dropped = 0;

    flow_enter(flow);
    if (!client->dead) {
        dropped = client_detach(client);
    }
    flow_event(flow, SPICE_FLOW_EV_CLIENT_REMOVE, client, dropped);
    broken = client->broken;
    client_mark_gone(client);
    /* Whoever waited for its turn may go now. */
    flow_write(flow);
    spice_flow_settle(flow);
    flow_leave(flow);
    return broken;
}

bool spice_flow_client_resume(SpiceFlowClient *client, void *opaque,
                              uint32_t delivered)
{
    SpiceFlow *flow = client->flow;

    if (!client->away || !client_live(client) ||
        delivered > client->in_flight) {
        return false;
    }
    flow_enter(flow);
    client->opaque = opaque;
    for (; delivered; delivered--) {
        spice_flow_client_sent(client);
    }
    /* Sent, but not delivered: the send tokens for these are spent already. */
    if (client->params.flow_control) {
        client->send_tokens = MIN((uint64_t)client->send_tokens +
                                  client->in_flight, UINT32_MAX);
    }
    flow_event(flow, SPICE_FLOW_EV_CLIENT_RESUME, client, client->in_flight);
    client->in_flight = 0;
    client->away = false;
    flow->num_undelivered += client->ring.len > 0;
    flow_client_settle(client);
    flow_client_flush(client);
    flow_leave(flow);
    return true;
}

/*
 * The device
 */

SpiceFlow *spice_flow_new(const SpiceFlowOps *ops, void *opaque,
                          const SpiceFlowParams *params)
{
    SpiceFlow *flow = g_new0(SpiceFlow, 1);

    flow->ops = ops;
    flow->opaque = opaque;
    flow->params = *params;
    flow->self_tokens = params->self_tokens;
    flow->turn_since = -1;
    return flow;
}

void flow_clients_forget(SpiceFlow *flow)
{
    flow_to_guest_clear(flow);
    for (GList *l = flow->clients.head; l; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (client_live(client)) {
            client_detach(client);
        }
        if (!client->gone) {
            client_mark_gone(client);
        }
    }
}

void spice_flow_close(SpiceFlow *flow)
{
    if (!flow) {
        return;
    }
    flow_enter(flow);
    flow->ops = &no_ops;
    flow->running = false;
    flow->guest_wait_len = 0;
    flow->guest_wait_for = NULL;
    flow_clients_forget(flow);
    flow->closed = true;
    flow_leave(flow);
}

bool spice_flow_running(const SpiceFlow *flow)
{
    return flow->running;
}

/* Stall clocks stand still between stop and start. */
static void clocks_shift(SpiceFlow *flow, int64_t ms)
{
    for (GList *l = flow->clients.head; l; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (client->stalled_since >= 0) {
            client->stalled_since += ms;
        }
    }
    if (flow->turn_since >= 0) {
        flow->turn_since += ms;
    }
}

void spice_flow_start(SpiceFlow *flow, int64_t now)
{
    if (flow->running || flow->closed) {
        return;
    }
    flow_enter(flow);
    flow->running = true;
    clocks_shift(flow, now - flow->stopped_at);
    flow_event(flow, SPICE_FLOW_EV_START, NULL, 0);
    flow_write(flow);
    spice_flow_settle(flow);
    /*
     * A guest that was refused by another instance waits here without having
     * been refused: ask it in any case.
     */
    if (flow->running) {
        flow_wake(flow);
    }
    flow_leave(flow);
}

void spice_flow_stop(SpiceFlow *flow, int64_t now)
{
    if (!flow->running) {
        return;
    }
    flow_enter(flow);
    flow->running = false;
    flow->stopped_at = now;
    flow_event(flow, SPICE_FLOW_EV_STOP, NULL, 0);
    flow_leave(flow);
}

static uint32_t client_reset(SpiceFlowClient *client)
{
    client->tokens = client->params.flow_control ? client->params.window : 0;
    client->due = 0;
    if (client->receiving) {
        client->receiving = RECEIVING_STALE;
    }
    return flow_client_ring_drop(client, client->in_flight);
}

void spice_flow_reset(SpiceFlow *flow)
{
    uint32_t self_tokens = flow->self_tokens;
    uint32_t dropped;

    flow_enter(flow);
    dropped = flow_to_guest_clear(flow);
    for (GList *l = flow->clients.head; l; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (client_live(client)) {
            dropped += client_reset(client);
        }
    }
    flow_event(flow, SPICE_FLOW_EV_RESET, NULL, dropped);
    if (flow->self_tokens != self_tokens) {
        flow_self_token_back(flow);
    }
    flow_notify_room(flow);
    flow_leave(flow);
}

static void turn_lose(SpiceFlow *flow)
{
    SpiceFlowClient *client = flow->turn;

    flow->turn = NULL;
    flow->turn_since = -1;
    flow->torn = true;
    flow->count.stalls++;
    flow_event(flow, SPICE_FLOW_EV_TURN_LOST, client, 0);
    if (flow->ops->turn_lost) {
        flow->ops->turn_lost(client->opaque);
    }
}

int64_t spice_flow_tick(SpiceFlow *flow, int64_t now)
{
    int64_t timeout = flow->params.stall_timeout;
    int64_t next = now + MAX(timeout / 4, 1);

    /* stopped within an op, the clock op is still to come */
    if (!flow->clock_runs || !flow->running) {
        return -1;
    }
    flow_enter(flow);
    for (GList *l = flow->clients.head; l && flow->num_live > 1; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (!client_live(client) || client->away || client->ring.len == 0) {
            continue;
        }
        if (client->stalled_since < 0) {
            client->stalled_since = now;
            flow->timed = true;
        }
        if (now - client->stalled_since >= timeout) {
            flow->count.stalls++;
            flow_client_kick(client, SPICE_FLOW_STALLED);
        } else {
            next = MIN(next, client->stalled_since + timeout);
        }
    }
    if (flow_turn_pauses(flow)) {
        if (flow->turn_since < 0) {
            flow->turn_since = now;
            flow->timed = true;
        }
        if (now - flow->turn_since >= timeout) {
            turn_lose(flow);
        } else {
            next = MIN(next, flow->turn_since + timeout);
        }
    }
    clock_update(flow);
    if (!flow->clock_runs) {
        next = -1;
    }
    flow_leave(flow);
    return next;
}

int64_t spice_flow_set_stall_timeout(SpiceFlow *flow, uint32_t stall_timeout,
                                     int64_t now)
{
    flow->params.stall_timeout = stall_timeout;
    return spice_flow_tick(flow, now);
}
