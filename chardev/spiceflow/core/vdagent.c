/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SPICE agent's protocol between one guest and its clients.
 *
 * Theory of operation
 * ===================
 *
 * A message is a header (protocol, type, opaque, size) and a payload.  It
 * travels in pieces of at most 2048 bytes: in chunks on the guest's port, in
 * AGENT_DATA on a client's main channel.  It is judged once, when its beginning
 * has come (header and what is needed of the payload), and what was decided
 * holds to its end: whatever changes meanwhile, a peer never gets half of a
 * message, and never the rest of one whose beginning it did not get.
 *
 * vdagent-chunk.c      cuts and joins, both ways; judges nothing
 * vdagent-filter.c     judges by type
 * vdagent-caps.c       capabilities: what each side is told of the other
 * vdagent-clipboard.c  whose clipboard contents it is, who asked for it
 * vdagent-xfer.c       whose file transfer it is
 * vdagent-notice.c     what the server says itself
 * vdagent-mend.c       messages to the guest that break off
 * vdagent-state.c      the state, saved and restored
 *
 * Private and shared.  A guest knows one client; the server is that client,
 * for as many as there are.
 *
 *   shared     the guest's capabilities and clipboard contents, volume, and
 *              all messages of the guest that are not known here: every client
 *              gets them.  Monitors, display settings, volume set by clients:
 *              the last one counts.  The guest is told of the capabilities and
 *              the clipboard limit of all clients together
 *   private    a client's clipboard contents: they go to the guest, never to
 *              another client.  Contents that a client asked for, replies, and
 *              the status of file transfers: only that client gets them
 *   reserved   CLIENT_DISCONNECTED of a client that is not alone, because the
 *              guest would forget the others
 *
 * Clients begin with spice_vdagent_client_start(): what they began to send
 * before was meant for an earlier agent, what the guest began to say before is
 * lost to them.  After spice_vdagent_reset() all of them have to start again,
 * and the rest of what they are in the middle of is swallowed.
 *
 * Forgetting.  A client may leave the guest in the middle of a message, or stop
 * sending there, while others stay.  A file's data and clipboard contents are
 * then filled up, in a way that nothing comes of them: vdagent-mend.c.  For the
 * rest the one message that makes a guest drop a part of a message is
 * CLIENT_DISCONNECTED, and it drops everything else with it.  So the others are
 * introduced again: capabilities, with the request that makes the guest begin
 * a session, and who has the clipboards; transfers have ended for them.  What
 * they said that still waits for the guest stands: it comes after the message,
 * and its sender is often the one for whom the guest had to forget.
 */
#include "vdagent-priv.h"

static const SpiceVdagentOps no_ops;

void vdagent_event(Agent *agent, SpiceVdagentEvent event, uint32_t client,
                   const Message *msg)
{
    agent->messages[event]++;
    if (agent->ops->event) {
        agent->ops->event(agent->opaque, event, client, msg->type, msg->size);
    }
}

void vdagent_transfer(Agent *agent, const SpiceVdagentTransfer *transfer)
{
    if (agent->ops->transfer) {
        agent->ops->transfer(agent->opaque, transfer);
    }
}

bool vdagent_is_queued(const Agent *agent, uint32_t client, uint64_t passed)
{
    const Client *c = vdagent_started(agent, client);

    return c && passed && agent->ops->queued &&
           passed + agent->ops->queued(agent->opaque, client) > c->s.passed;
}

const char *spice_vdagent_event_name(SpiceVdagentEvent event)
{
    static const char *const names[SPICE_VDAGENT_EV__MAX] = {
        [SPICE_VDAGENT_EV_TO_GUEST] = "to-guest",
        [SPICE_VDAGENT_EV_TO_CLIENT] = "to-client",
        [SPICE_VDAGENT_EV_ABSORBED] = "absorbed",
        [SPICE_VDAGENT_EV_REFUSED_POLICY] = "refused-policy",
        [SPICE_VDAGENT_EV_REFUSED_SIZE] = "refused-size",
        [SPICE_VDAGENT_EV_DROPPED] = "dropped",
    };

    return (unsigned)event < SPICE_VDAGENT_EV__MAX ? names[event] : "?";
}

SpiceVdagent *spice_vdagent_new(const SpiceVdagentPolicy *policy,
                                const SpiceVdagentOps *ops, void *opaque)
{
    Agent *agent = g_new0(Agent, 1);

    agent->ops = ops ? ops : &no_ops;
    agent->opaque = opaque;
    agent->policy = *policy;
    vdagent_xfer_init(agent);
    vdagent_caps_check_serial(agent);
    return agent;
}

static void client_free(Client *client)
{
    g_queue_clear_full(&client->statuses, g_free);
    g_queue_unlink(&client->agent->clients, &client->link);
    g_free(client);
}

void spice_vdagent_free(SpiceVdagent *agent)
{
    if (!agent) {
        return;
    }
    vdagent_xfer_clear(agent);
    while (agent->clients.head) {
        client_free(client_of(agent->clients.head));
    }
    vdagent_xfer_free(agent);
    g_free(agent);
}

/* What it knew of its clients is nothing to the guest any more. */
static void session_clear(Agent *agent)
{
    SpiceVdagentState *s = &agent->s;

    vdagent_clipboard_clear(agent);
    vdagent_xfer_clear(agent);
    vdagent_mend_forget(agent);
    s->guest_told = (Caps) { 0 };
    s->announce_due = false;
    s->announce_request = false;
    s->max_told = false;
    s->max_due = false;
    s->replies[0].num = 0;
    s->replies[1].num = 0;
}

static void client_reset(Client *client)
{
    SpiceVdagentClientState *s = &client->s;

    vdagent_caps_changed(client->agent);
    s->started = false;
    s->receiving = false;
    s->wanted = false;
    s->passing = false;
    s->caps = (Caps) { 0 };
    s->told = (Caps) { 0 };
    s->announce_due = false;
    s->max_clipboard = NO_LIMIT;
    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        s->empty_due[i] = 0;
        s->release_due[i] = false;
        s->grab_due[i] = false;
    }
}

void spice_vdagent_reset(SpiceVdagent *agent)
{
    SpiceVdagentState *s = &agent->s;

    session_clear(agent);
    s->error = 0;
    s->chunk_header_len = 0;
    s->chunk_left = 0;
    s->judged = false;
    s->passing = false;
    s->message_left = 0;
    s->fill = 0;
    s->guest = (Caps) { 0 };
    s->disconnect_due = false;
    for (GList *l = agent->clients.head; l; l = l->next) {
        client_reset(client_of(l));
    }
    agent->num_started = 0;
    vdagent_caps_check_serial(agent);
}

/* The guest drops what it has of a message, and all it knew of its clients. */
static void guest_forgets(Agent *agent)
{
    SpiceVdagentState *s = &agent->s;

    s->disconnect_due = true;
    s->announce_due = true;
    s->announce_request = true;
    s->max_due = true;
    vdagent_mend_forget(agent);
    vdagent_questions_forgotten(agent, &s->replies[0], NULL, 0);
    vdagent_questions_forgotten(agent, &s->replies[1], NULL, 0);
    vdagent_clipboard_forgotten(agent);
    vdagent_xfer_forgotten(agent);
}

void vdagent_take_away(Agent *agent, const SpiceVdagentPolicy *old)
{
    vdagent_caps_check_serial(agent);
    vdagent_clipboard_take_away(agent, old);
    if (!agent->policy.file_transfer) {
        vdagent_xfer_end_all(agent, VD_AGENT_FILE_XFER_STATUS_DISABLED);
    }
}

void spice_vdagent_set_policy(SpiceVdagent *agent,
                              const SpiceVdagentPolicy *policy)
{
    SpiceVdagentPolicy old = agent->policy;

    agent->policy = *policy;
    vdagent_take_away(agent, &old);
}

/*
 * Clients
 */

SpiceVdagentClient *spice_vdagent_client_find(SpiceVdagent *agent, uint32_t id)
{
    for (GList *l = agent->clients.head; l; l = l->next) {
        if (client_of(l)->s.id == id) {
            return client_of(l);
        }
    }
    return NULL;
}

Client *vdagent_started(const Agent *agent, uint32_t id)
{
    FOREACH_STARTED(agent, client, l) {
        if (client->s.id == id) {
            return client;
        }
    }
    return NULL;
}

Client *vdagent_only(const Agent *agent)
{
    if (agent->num_started == 1) {
        FOREACH_STARTED(agent, client, l) {
            return client;
        }
    }
    return NULL;
}

SpiceVdagentClient *spice_vdagent_client_add(SpiceVdagent *agent, uint32_t id)
{
    Client *client;

    /* the highest one stands for the guest where owners are shown */
    if (id == 0 || id == OWNER_GUEST || spice_vdagent_client_find(agent, id)) {
        return NULL;
    }
    client = g_new0(Client, 1);
    client->link.data = client;
    client->agent = agent;
    client->s.id = id;
    client->s.max_clipboard = NO_LIMIT;
    g_queue_push_tail_link(&agent->clients, &client->link);
    return client;
}

void spice_vdagent_client_start(SpiceVdagentClient *client)
{
    if (client->s.started) {
        return;
    }
    client->s.started = true;
    client->agent->num_started++;
    vdagent_caps_changed(client->agent);
    vdagent_caps_check_serial(client->agent);
}

void spice_vdagent_client_stop(SpiceVdagentClient *client, bool torn)
{
    Agent *agent = client->agent;
    bool started = client->s.started;
    bool mended = torn && agent->num_started > 1 && vdagent_mend(client);

    vdagent_stop_receiving(client);
    vdagent_xfer_client_gone(client);
    if (started) {
        agent->num_started--;
        vdagent_clipboard_client_gone(agent, client->s.id);
        vdagent_replies_client_gone(agent, client->s.id);
    }
    client_reset(client);

    if (started && agent->num_started == 0) {
        session_clear(agent);
        agent->s.disconnect_due = true;
    } else if (torn && !mended) {
        guest_forgets(agent);
    }
    vdagent_caps_check_serial(agent);
}

void spice_vdagent_client_remove(SpiceVdagentClient *client, bool torn)
{
    spice_vdagent_client_stop(client, torn);
    client_free(client);
}

void spice_vdagent_client_turn_lost(SpiceVdagentClient *client)
{
    if (!vdagent_mend(client)) {
        guest_forgets(client->agent);
    }
    client->s.passing = false;
}

void spice_vdagent_info(const SpiceVdagent *agent, SpiceVdagentInfo *info)
{
    *info = (SpiceVdagentInfo) {
        .guest_caps = agent->s.guest.word[0],
        .started = agent->num_started,
        .transfers = agent->xfers.length - agent->num_cancelled,
    };
    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        const Selection *sel = &agent->s.selection[i];

        info->clipboard_owner[i] = sel->guest_owns ? OWNER_GUEST : sel->owner;
    }
    for (unsigned i = 0; i < SPICE_VDAGENT_EV__MAX; i++) {
        info->messages[i] = agent->messages[i];
    }
}
