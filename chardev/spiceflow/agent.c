/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SPICE agent: a virtio port on one side, AGENT_DATA on the main channels
 * of all clients on the other.
 *
 * core/vdagent says what each piece is, whether it may pass and for whom;
 * core/flow moves it, with tokens in both directions.  What is left here:
 *
 * The agent is there while the guest has its port open.  Clients are told, and
 * answer with AGENT_START; only then a client is attached to the flow machine,
 * with the window that it was told.  When the agent goes, clients are detached
 * again, so the next agent begins with a full window on both sides, and what a
 * client sent before its AGENT_START belongs to the agent before.  A client
 * that can not be told a number (it lacks AGENT_CONNECTED_TOKENS) goes on
 * counting where it was: what it has spent on the agent before is given back
 * as tokens when it attaches.
 *
 * Announcements and answers cross.  An AGENT_START may have been meant for an
 * agent that is gone, with a window of its own, and its client counts anew as
 * soon as it has read of the next one, whatever it was given before.  So both
 * are counted, and only the answer to the last announcement attaches a client:
 * what comes before that was meant for nobody here, and no token is given for
 * it, which would be one more than the next window has.  This takes clients
 * that answer every announcement; those that are known do.
 *
 * What concerns a client longer than there is an agent device (where it is in
 * its message, what it has spent) is handed to SFClient when the device goes,
 * and taken from there by the next one.
 *
 * A guest that breaks the protocol is treated as one that closed its port,
 * until it does; the port is closed from a bottom half, because the fault is
 * found inside the guest's own write.  Nothing else ever closes it: when the
 * last client leaves, the guest gets VD_AGENT_CLIENT_DISCONNECTED.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "agent.h"
#include "events.h"
#include "migrate.h"
#include "trace.h"

/* Notices of the server's own that may wait for the guest. */
#define SELF_TOKENS         4
/*
 * With more than this undelivered a client gets no notices: they must not be
 * what fills its queue.
 */
#define NOTICE_BACKLOG      (SF_QUEUE_MESSAGES(0) / 2)

bool sf_agent_connected(SFDevice *device)
{
    SFAgent *agent = device->priv;

    return device->fe_open && !agent->broken;
}

static bool client_counts_itself(const SFAgentClient *c)
{
    return !(sf_channel_info(c->client->main)->mess.channel_caps &
             BIT(SPICE_MAIN_CAP_AGENT_CONNECTED_TOKENS));
}

/*
 * What the server says itself
 */

static void agent_say_to_guest(SFAgent *agent)
{
    SpiceFlow *flow = agent->device->flow;
    SpiceVdagentNotice notice;
    SpiceFlowBuffer buffer = { .data = notice.data };

    if (spice_vdagent_take_disconnect(agent->agent, &notice)) {
        buffer.len = notice.len;
        spice_flow_server_write_unpaid(flow, &buffer);
    }
    while (spice_flow_server_may_write(flow) &&
           spice_vdagent_take_to_guest(agent->agent, &notice)) {
        buffer.len = notice.len;
        if (notice.ends_torn) {
            spice_flow_server_write_unpaid(flow, &buffer);
        } else {
            spice_flow_server_write(flow, &buffer);
        }
    }
}

static bool client_takes_notice(SFAgentClient *c)
{
    SpiceFlowClientInfo info;

    /* Of a client that is to go on elsewhere, all is said there. */
    spice_flow_client_info(c->flow, &info);
    c->held = info.to_client_messages > NOTICE_BACKLOG ||
              c->client->move == SF_MOVE_FROZEN;
    return !c->held;
}

static void agent_say_to_clients(SFAgent *agent)
{
    SpiceVdagentNotice notice;
    SFClient *client;

    QTAILQ_FOREACH(client, &agent->device->server->clients, next) {
        SFAgentClient *c = client->agent;

        while (c && c->flow && client_takes_notice(c) &&
               spice_vdagent_take_to_client(c->vdagent, &notice)) {
            spice_flow_send_to(c->flow, notice.data, notice.len);
        }
    }
}

/* Whatever may have become due is said; nested calls leave it to the first. */
void sf_agent_say(SFAgent *agent)
{
    agent->say_again = true;
    if (agent->saying) {
        return;
    }
    agent->saying = true;
    while (agent->say_again) {
        agent->say_again = false;
        agent_say_to_guest(agent);
        agent_say_to_clients(agent);
    }
    agent->saying = false;
}

/*
 * Attach and detach
 */

static void params_window(SpiceFlowClientParams *params, uint32_t window)
{
    params->flow_control = true;
    params->window = window;
    params->interval = MAX(window / 2, 1);
}

/* Who was told another agent-window keeps it. */
static void agent_client_params(const SFDevice *device,
                                SpiceFlowClientParams *params)
{
    uint32_t window = device->server->agent_window;
    SFClient *client;

    QTAILQ_FOREACH(client, &device->server->clients, next) {
        window = MAX(window, client->agent_window);
    }
    params_window(params, window);
}

static void client_attach(SFAgentClient *c, uint32_t send_tokens)
{
    SFAgent *agent = c->owner;
    SpiceFlowClientParams params = sf_device_client_params(agent->device,
                                                           c->client->id);

    params_window(&params, c->client->agent_window);
    params.send_tokens = send_tokens;
    /* It may wake us, but a piece that waits is not for this client. */
    agent->handing_out = true;
    c->flow = spice_flow_client_add(agent->device->flow, &params, c);
    agent->handing_out = false;
    if (c->owed) {
        sf_main_channel_agent_tokens(c->client, c->owed);
        c->owed = 0;
    }
    spice_vdagent_client_start(c->vdagent);
}

/* What outlives that it is attached. */
static void client_take_stock(SFAgentClient *c)
{
    SpiceFlowClientInfo info;

    if (!c->flow) {
        return;
    }
    spice_flow_client_info(c->flow, &info);
    c->stale += info.to_client_in_flight;
    if (client_counts_itself(c)) {
        c->owed = info.window - info.client_tokens;
    }
}

/* Returns whether the guest is left in the middle of a message. */
static bool client_detach(SFAgentClient *c)
{
    SpiceFlowClient *flow = g_steal_pointer(&c->flow);

    c->begun = false;
    c->held = false;
    return flow && spice_flow_client_remove(flow);
}

void sf_agent_tell_clients(SFAgent *agent)
{
    SFClient *client;

    QTAILQ_FOREACH(client, &agent->device->server->clients, next) {
        if (sf_agent_connected(agent->device)) {
            sf_main_channel_agent_connected(client);
        } else {
            sf_main_channel_agent_disconnected(client);
        }
    }
}

/*
 * The agent is gone; what clients have sent for it is, too.  First nothing is
 * due to it, then nothing is queued: no step leaves the next one something to
 * write.
 */
static void agent_gone(SFAgent *agent, const char *why)
{
    SFClient *client;

    QTAILQ_FOREACH(client, &agent->device->server->clients, next) {
        if (client->agent) {
            client_take_stock(client->agent);
        }
    }
    spice_vdagent_reset(agent->agent);
    spice_flow_reset(agent->device->flow);
    QTAILQ_FOREACH(client, &agent->device->server->clients, next) {
        SFAgentClient *c = client->agent;

        if (c && c->flow) {
            sf_event_device_released(agent->device, client,
                                     SF_REASON_GUEST_CLOSED, why);
            client_detach(c);
        }
    }
    sf_agent_tell_clients(agent);
}

static void agent_drop(void *opaque)
{
    SFAgent *agent = opaque;

    /* The guest may have been quicker, and opened it again. */
    if (agent->broken) {
        sf_frontend_set_open(&agent->device->frontend, false);
    }
}

static void agent_set_fe_open(SFDevice *device, bool open)
{
    SFAgent *agent = device->priv;
    bool was_broken = agent->broken;

    agent->broken = false;
    if (open) {
        sf_frontend_set_open(&device->frontend, true);
        sf_agent_tell_clients(agent);
    } else {
        sf_frontend_set_open(&device->frontend, false);
        if (!was_broken) {
            agent_gone(agent, NULL);
        }
    }
}

/*
 * From the guest
 */

static void guest_broke_protocol(SFAgent *agent)
{
    const char *why = spice_vdagent_guest_error(agent->agent);

    trace_spiceflow_agent_broken(agent->device->label, why);
    agent->broken = true;
    agent_gone(agent, why);
    qemu_bh_schedule(agent->drop_bh);
}

/*
 * Whether each client that the piece is for has room for it.  Those of a
 * message for everyone do not wait for one another.
 */
static bool piece_may_go(SFAgent *agent, const SpiceVdagentPiece *piece)
{
    SFClient *client;

    if (piece->everyone) {
        return spice_flow_may_send(agent->device->flow, piece->len);
    }
    QTAILQ_FOREACH(client, &agent->device->server->clients, next) {
        SFAgentClient *c = client->agent;

        if (c && c->flow && spice_vdagent_client_receives(c->vdagent) &&
            !spice_flow_may_send_to(c->flow, piece->len)) {
            return false;
        }
    }
    return true;
}

static void piece_go(SFAgent *agent, const SpiceVdagentPiece *piece)
{
    SFClient *client;

    if (piece->everyone) {
        spice_flow_send(agent->device->flow, piece->data, piece->len);
        return;
    }
    QTAILQ_FOREACH(client, &agent->device->server->clients, next) {
        SFAgentClient *c = client->agent;

        if (c && c->flow && spice_vdagent_client_receives(c->vdagent)) {
            spice_flow_send_to(c->flow, piece->data, piece->len);
        }
    }
}

/* Hand out the piece that waits.  Returns false when it has to wait on. */
static bool agent_hand_out(SFAgent *agent)
{
    SpiceVdagentPiece piece;

    /* A wakeup while a piece goes out: it is not done with yet. */
    if (agent->handing_out) {
        return false;
    }
    while (spice_vdagent_piece(agent->agent, &piece)) {
        if (!piece_may_go(agent, &piece)) {
            return false;
        }
        agent->handing_out = true;
        piece_go(agent, &piece);
        agent->handing_out = false;
        spice_vdagent_piece_done(agent->agent);
        if (piece.last) {
            sf_agent_say(agent);
        }
    }
    return true;
}

static size_t agent_write(SFDevice *device, const uint8_t *buf, size_t len)
{
    SFAgent *agent = device->priv;
    size_t done = 0;

    if (agent->broken) {
        return spice_flow_running(device->flow) ? len : 0;
    }
    /*
     * Also while nobody is there: what the guest says then is parsed and
     * forgotten, but not while the VM is stopped.
     */
    while (done < len && spice_flow_running(device->flow)) {
        if (!agent_hand_out(agent)) {
            return done;
        }
        done += spice_vdagent_feed(agent->agent, buf + done, len - done);
        if (spice_vdagent_guest_error(agent->agent)) {
            guest_broke_protocol(agent);
            return len;
        }
    }
    agent_hand_out(agent);
    sf_agent_say(agent);
    return done;
}

/*
 * From a client
 */

static void agent_start(SFDevice *device, SFClient *client, uint32_t tokens)
{
    SFAgentClient *c = client->agent;
    bool again = c->flow != NULL;

    /* Another announcement is on its way to it, and its answer will come. */
    if (!sf_agent_connected(device) || client->agent_unanswered > 1) {
        return;
    }
    if (c->flow && client->agent_unanswered) {
        client_take_stock(c);
        spice_vdagent_client_stop(c->vdagent, client_detach(c));
    }
    if (c->flow) {
        spice_flow_client_tokens_set(c->flow, tokens);
    } else {
        client_attach(c, tokens);
        if (!again) {
            sf_event_device_claimed(device, client);
        }
        agent_hand_out(device->priv);
    }
    sf_agent_say(device->priv);
}

static void agent_tokens(SFDevice *device, SFClient *client, uint32_t n)
{
    SFAgentClient *c = client->agent;

    /* Before AGENT_START they mean nothing: that one sets the number. */
    if (c->flow) {
        spice_flow_client_tokens_add(c->flow, n);
    }
}

static bool agent_begin(SFDevice *device, SFClient *client)
{
    SFAgentClient *c = client->agent;

    /* It has followed the guest here in the middle of the message. */
    if (c->begun) {
        return true;
    }
    c->begun = c->flow && spice_flow_client_begin(c->flow);
    if (!c->flow && client_counts_itself(c)) {
        c->owed++;
    }
    return c->begun || !c->flow;
}

static void client_broke_protocol(SFAgentClient *c)
{
    const char *why = spice_vdagent_client_error(c->vdagent);

    trace_spiceflow_agent_client_broken(c->owner->device->label, c->client->id,
                                        why);
    sf_client_notify(c->client, SPICE_NOTIFY_SEVERITY_ERROR, why);
    sf_channel_fail(c->client->main, SF_REASON_PROTOCOL_ERROR, why);
}

static void agent_data(SFDevice *device, SFClient *client, uint8_t *data,
                       size_t len)
{
    SFAgentClient *c = client->agent;
    SpiceFlowBuffer buffer;
    bool begun = c->begun;

    c->begun = false;
    switch (spice_vdagent_client_piece(c->vdagent, data, len, &buffer)) {
    case SPICE_VDAGENT_PASS:
        if (begun) {
            spice_flow_client_write(c->flow, &buffer);
        }
        break;
    case SPICE_VDAGENT_DISCARD:
        if (begun) {
            spice_flow_client_cancel(c->flow);
        }
        break;
    case SPICE_VDAGENT_ERROR:
        client_broke_protocol(c);
        break;
    }
}

static void agent_received(SFDevice *device, SFClient *client)
{
    spice_flow_settle(device->flow);
    sf_agent_say(device->priv);
}

static void agent_sent(SFDevice *device, SFClient *client)
{
    SFAgentClient *c = client->agent;

    if (c->stale) {
        c->stale--;
    } else if (c->flow) {
        spice_flow_client_sent(c->flow);
    }
    if (c->held) {
        sf_agent_say(device->priv);
    }
}

/*
 * Flow machine
 */

static bool agent_flow_send(void *opaque, SpiceFlowMessage *msg)
{
    SFAgentClient *c = opaque;

    return sf_channel_send_message(c->client->main, SPICE_MSG_MAIN_AGENT_DATA,
                                   msg);
}

static void agent_flow_give_tokens(void *opaque, uint32_t n)
{
    SFAgentClient *c = opaque;

    sf_main_channel_agent_tokens(c->client, n);
}

/*
 * The last piece of what the guest wrote waits here; the guest may have no more
 * to write, and nobody else would come for it.
 */
static void agent_flow_wake(void *opaque)
{
    SFDevice *device = opaque;
    SFAgent *agent = device->priv;

    if (agent->handing_out || agent_hand_out(agent)) {
        sf_frontend_wake(&device->frontend);
    }
}

static void agent_flow_turn_lost(void *opaque)
{
    SFAgentClient *c = opaque;

    spice_vdagent_client_turn_lost(c->vdagent);
    sf_agent_say(c->owner);
}

static void agent_flow_remove(void *opaque, SpiceFlowReason reason)
{
    SFAgentClient *c = opaque;
    const char *why = spice_flow_reason_name(reason);

    sf_client_notify(c->client, SPICE_NOTIFY_SEVERITY_ERROR, why);
    sf_channel_fail(c->client->main, sf_reason_of_flow(reason), NULL);
}

static void agent_flow_self_token_free(void *opaque)
{
    SFDevice *device = opaque;

    sf_agent_say(device->priv);
}

/*
 * Clients come and go
 */

static SFDevice *endpoint_device(SFEndpoint *endpoint)
{
    return container_of(endpoint, SFDevice, endpoint);
}

static void agent_client_resume(SFAgentClient *c)
{
    SpiceFlowClientInfo info;

    c->flow = spice_flow_client_find(c->owner->device->flow, c->client->id);
    if (!c->flow) {
        return;
    }
    sf_event_device_claimed(c->owner->device, c->client);
    spice_flow_client_info(c->flow, &info);
    c->begun = info.receiving;
    if (!sf_migrate_flow_resume(c->flow, c)) {
        sf_channel_fail(c->client->main, SF_REASON_MIGRATION,
                        "its state can not be resumed");
    }
}

static void agent_client_new(SFEndpoint *endpoint, SFClient *client)
{
    SFAgent *agent = endpoint_device(endpoint)->priv;
    SFAgentClient *c = g_new0(SFAgentClient, 1);

    c->owner = agent;
    c->client = client;
    c->owed = client->agent_owed;
    c->stale = client->agent_stale;
    client->agent = c;
    /* One that has followed the guest here is known. */
    c->vdagent = spice_vdagent_client_find(agent->agent, client->id);
    if (c->vdagent) {
        agent_client_resume(c);
    } else {
        c->vdagent = spice_vdagent_client_add(agent->agent, client->id);
        spice_vdagent_client_skip(c->vdagent, client->agent_left);
    }
}

static void agent_client_gone(SFEndpoint *endpoint, SFClient *client)
{
    SFAgent *agent = endpoint_device(endpoint)->priv;
    SFAgentClient *c = g_steal_pointer(&client->agent);
    bool torn;

    if (c) {
        if (c->flow) {
            sf_event_device_released(agent->device, client,
                                     client->removing ?
                                     client->reason : SF_REASON_DEVICE_DELETED,
                                     client->why);
        }
        client_take_stock(c);
        client->agent_left = spice_vdagent_client_left(c->vdagent);
        client->agent_owed = c->owed;
        client->agent_stale = c->stale;
        torn = client_detach(c);
        spice_vdagent_client_remove(c->vdagent, torn);
        g_free(c);
        sf_agent_say(agent);
    }
}

static SpiceVdagentPolicy server_policy(const SFServer *server)
{
    static const SpiceVdagentClipboard clipboard[] = {
        [SPICEFLOW_CLIPBOARD_OFF] = SPICE_VDAGENT_CLIPBOARD_OFF,
        [SPICEFLOW_CLIPBOARD_TO_GUEST] = SPICE_VDAGENT_CLIPBOARD_TO_GUEST,
        [SPICEFLOW_CLIPBOARD_TO_CLIENT] = SPICE_VDAGENT_CLIPBOARD_TO_CLIENT,
        [SPICEFLOW_CLIPBOARD_BOTH] = SPICE_VDAGENT_CLIPBOARD_BOTH,
    };

    return (SpiceVdagentPolicy) {
        .clipboard = clipboard[server->agent_clipboard],
        .max_to_guest = server->agent_max_clipboard,
        .max_to_client = server->agent_max_clipboard,
        .file_transfer = server->agent_file_transfer,
    };
}

static void agent_policy(SFDevice *device)
{
    SFAgent *agent = device->priv;
    SpiceVdagentPolicy policy = server_policy(device->server);

    spice_vdagent_set_policy(agent->agent, &policy);
    sf_agent_say(agent);
}

static void agent_transfer(void *opaque, const SpiceVdagentTransfer *transfer)
{
    SFAgent *agent = opaque;

    sf_event_transfer(agent->device, transfer);
}

static void agent_event(void *opaque, SpiceVdagentEvent event, uint32_t client,
                        uint32_t type, uint32_t size)
{
    SFAgent *agent = opaque;

    trace_spiceflow_agent_message(agent->device->label,
                                  spice_vdagent_event_name(event), client,
                                  type, size);
}

/* What was begun is not the queue's any more: then another has no turn. */
static uint32_t agent_queued(void *opaque, uint32_t client)
{
    SFAgent *agent = opaque;
    SpiceFlowClient *flow = spice_flow_client_find(agent->device->flow,
                                                   client);
    SpiceFlowClientInfo info = { 0 };

    if (flow) {
        spice_flow_client_info(flow, &info);
    }
    return info.to_guest_messages;
}

static const SpiceVdagentOps vdagent_ops = {
    .event = agent_event,
    .transfer = agent_transfer,
    .queued = agent_queued,
};

static const SFAgentOps agent_ops = {
    .connected = sf_agent_connected,
    .start = agent_start,
    .tokens = agent_tokens,
    .begin = agent_begin,
    .data = agent_data,
    .received = agent_received,
    .sent = agent_sent,
    .policy = agent_policy,
};

static const SFEndpointOps agent_endpoint_ops = {
    .client_gone = agent_client_gone,
    .client_new = agent_client_new,
};

static bool agent_init(SFDevice *device, Error **errp)
{
    SFServer *server = device->server;
    SpiceVdagentPolicy policy = server_policy(server);
    SpiceFlowParams params = {
        .framing = SPICE_FLOW_FRAMED,
        .self_tokens = SELF_TOKENS,
        .max_message = SPICE_VDAGENT_BUFFER_MAX,
        .stall_timeout = server->stall_timeout,
    };
    SFAgent *agent;

    if (server->agent) {
        error_setg(errp, "chardev '%s': the server has a vdagent device "
                   "already, '%s'", device->label, server->agent->label);
        return false;
    }
    agent = g_new0(SFAgent, 1);
    agent->device = device;
    agent->agent = spice_vdagent_new(&policy, &vdagent_ops, agent);
    agent->drop_bh = qemu_bh_new(agent_drop, agent);
    agent->flow_ops.send = agent_flow_send;
    agent->flow_ops.give_tokens = agent_flow_give_tokens;
    agent->flow_ops.turn_lost = agent_flow_turn_lost;
    agent->flow_ops.remove = agent_flow_remove;
    agent->flow_ops.self_token_free = agent_flow_self_token_free;
    device->priv = agent;
    device->agent_ops = &agent_ops;
    sf_device_flow_new(device, &agent->flow_ops, &params);
    agent->flow_ops.wake = agent_flow_wake;
    server->agent = device;
    return true;
}

static void agent_cleanup(SFDevice *device)
{
    SFAgent *agent = device->priv;
    SFClient *client;

    if (!agent) {
        return;
    }
    QTAILQ_FOREACH(client, &device->server->clients, next) {
        if (sf_agent_connected(device)) {
            sf_main_channel_agent_disconnected(client);
        }
        agent_client_gone(&device->endpoint, client);
    }
    device->server->agent = NULL;
    qemu_bh_delete(agent->drop_bh);
    spice_vdagent_free(agent->agent);
    g_free(agent);
}

const SFKind sf_agent_kind = {
    .endpoint_ops = &agent_endpoint_ops,
    .shared = true,
    .init = agent_init,
    .cleanup = agent_cleanup,
    .write = agent_write,
    .set_fe_open = agent_set_fe_open,
    .carries = sf_agent_carries,
    .save = sf_agent_save,
    .restore = sf_agent_restore,
    .lose = sf_agent_lose,
    .client_params = agent_client_params,
    .saved_max = sf_agent_saved_max,
    .describe = sf_agent_describe,
};
