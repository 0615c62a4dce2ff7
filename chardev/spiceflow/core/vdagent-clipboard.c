/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's clipboards, shared by the clients.
 *
 * Each selection has one owner: the guest, a client, or nobody.  Whoever grabs
 * it last owns it.  The guest's contents are for every client; a client's are
 * for the guest alone, never for another client.
 *
 *   guest grabs, releases   told to all clients
 *   client grabs            told to the guest; to the other clients it is a
 *                           release, if the guest owned it
 *   client releases         told to the guest, if that client is the owner
 *   guest asks              the owner, and nobody else
 *   client asks             the guest; the answer goes to the client that
 *                           asked, matched by type, oldest first (an empty
 *                           answer has no type)
 *   owner leaves            a release to the guest
 *
 * A question that must not be answered, or whose answer is too large, is
 * answered by the server with no contents: to a client as type NONE, as agents
 * do; to the guest under the type it asked for, because agents that look for
 * the question of an answer do not find it otherwise.
 *
 * Contents are reported when they are judged, unless they are none: that is an
 * answer too.  Where the policy is against them they are not even asked for:
 * then the grab or the question that is refused is what is reported.
 *
 * With one client every message goes through whether it fits the above or not,
 * so that agents of before clipboards by demand work too.
 */
#include "vdagent-priv.h"

typedef struct Clip {
    Selection *sel;
    unsigned index;
    size_t body;                /* offset of what follows the selection */
    uint32_t type;              /* of a question or of contents */
    uint64_t bytes;             /* of contents */
} Clip;

static bool is_question(const Message *msg)
{
    return msg->type == VD_AGENT_CLIPBOARD_REQUEST;
}

static bool allowed(const SpiceVdagentPolicy *policy,
                    SpiceVdagentClipboard way)
{
    return policy->clipboard & way;
}

static void report(Agent *agent, const Message *msg, const Clip *clip,
                   SpiceVdagentTransfer transfer)
{
    transfer.has_bytes = msg->type == VD_AGENT_CLIPBOARD;
    transfer.bytes = clip->bytes;
    if (transfer.bytes || !transfer.has_bytes) {
        vdagent_transfer(agent, &transfer);
    }
}

/* Contents for the guest, of @client; it is NULL where the guest asks. */
static void report_to_guest(Agent *agent, const Client *client,
                            const Message *msg, const Clip *clip,
                            SpiceVdagentOutcome outcome)
{
    report(agent, msg, clip, (SpiceVdagentTransfer) {
        .to_guest = true,
        .outcome = outcome,
        .client = client ? client->s.id : 0,
    });
}

/* Contents of the guest, for @client; it is NULL for all of them. */
static void report_to_client(Agent *agent, const Client *client,
                             const Message *msg, const Clip *clip,
                             SpiceVdagentOutcome outcome)
{
    report(agent, msg, clip, (SpiceVdagentTransfer) {
        .outcome = outcome,
        .client = client ? client->s.id : 0,
    });
}

/* Agents are known that release with a selection of one byte. */
static bool clip_parse(Agent *agent, const Message *msg, Clip *clip)
{
    bool typed = msg->type == VD_AGENT_CLIPBOARD || is_question(msg);

    *clip = (Clip) { 0 };
    if (vdagent_caps_selection(agent) && msg->have) {
        clip->index = msg->payload[0];
        clip->body = MIN(4, msg->have);
    }
    if (clip->index >= SPICE_VDAGENT_SELECTIONS ||
        (typed && msg->have < clip->body + 4)) {
        return false;
    }
    clip->sel = &agent->s.selection[clip->index];
    if (typed) {
        clip->type = spice_flow_get_u32(msg->payload + clip->body);
        clip->bytes = msg->size - clip->body - 4;
    }
    return true;
}

static void empty_answer(Agent *agent, uint32_t id, unsigned index)
{
    Client *client = vdagent_started(agent, id);

    if (client) {
        client->s.empty_due[index]++;
    }
}

/* What was asked is not going to be answered by the guest. */
static void drop_asked(Agent *agent, unsigned index, bool answer)
{
    Questions *asked = &agent->s.selection[index].asked;

    for (unsigned i = 0; answer && i < asked->num; i++) {
        empty_answer(agent, asked->client[i], index);
    }
    asked->num = 0;
}

static void grab_read(const Agent *agent, const Message *msg,
                      const Clip *clip)
{
    Selection *sel = clip->sel;
    size_t at = clip->body;

    if (vdagent_caps_has(&agent->s.guest, VD_AGENT_CAP_CLIPBOARD_GRAB_SERIAL) &&
        vdagent_caps_has(&agent->s.guest_told,
                         VD_AGENT_CAP_CLIPBOARD_GRAB_SERIAL)) {
        at += 4;
    }
    sel->num_types = 0;
    for (; at + 4 <= msg->have && sel->num_types < SPICE_VDAGENT_GRAB_TYPES;
         at += 4) {
        sel->types[sel->num_types++] = spice_flow_get_u32(msg->payload + at);
    }
}

static void owner_set(Selection *sel, uint32_t client, bool guest)
{
    sel->owner = client;
    sel->guest_owns = guest;
    sel->release_due = false;
    sel->grab_due = false;
}

/*
 * From the guest
 */

/*
 * The guest has taken or given up a selection: what was asked of the contents
 * before is void, and so is what the server was about to say of them itself.
 */
static bool ownership_to_clients(Agent *agent, const Message *msg,
                                 const Clip *clip)
{
    drop_asked(agent, clip->index, agent->num_started > 1);
    if (!allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_CLIENT)) {
        if (msg->type == VD_AGENT_CLIPBOARD_GRAB && agent->num_started) {
            report_to_client(agent, NULL, msg, clip,
                             SPICE_VDAGENT_REFUSED_POLICY);
        }
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_POLICY, NULL,
                              msg);
    }
    FOREACH_STARTED(agent, client, l) {
        client->s.release_due[clip->index] = false;
        client->s.grab_due[clip->index] = false;
    }
    return vdagent_to_all(agent, msg);
}

static bool grab_from_guest(Agent *agent, const Message *msg, const Clip *clip)
{
    owner_set(clip->sel, 0, true);
    grab_read(agent, msg, clip);
    clip->sel->refused.num = 0;
    return ownership_to_clients(agent, msg, clip);
}

static bool release_from_guest(Agent *agent, const Message *msg,
                               const Clip *clip)
{
    clip->sel->guest_owns = false;
    return ownership_to_clients(agent, msg, clip);
}

static bool question_from_guest(Agent *agent, const Message *msg,
                                const Clip *clip)
{
    SpiceVdagentEvent why = SPICE_VDAGENT_EV_REFUSED_POLICY;

    if (allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_GUEST)) {
        Client *client = vdagent_started(agent, clip->sel->owner);

        if (!client) {
            client = vdagent_only(agent);
        }
        if (client) {
            return vdagent_to_one(client, msg);
        }
        why = SPICE_VDAGENT_EV_DROPPED;
    } else {
        report_to_guest(agent, NULL, msg, clip, SPICE_VDAGENT_REFUSED_POLICY);
    }
    vdagent_question_add(&clip->sel->refused, NULL, clip->type);
    return vdagent_refuse(agent, why, NULL, msg);
}

/* Who asked for these contents; 0 when nobody did. */
static uint32_t find_asker(Selection *sel, uint32_t type)
{
    uint32_t id = 0, ignored;
    unsigned i = 0;

    if (type != VD_AGENT_CLIPBOARD_NONE) {
        while (i < sel->asked.num && sel->asked.type[i] != type) {
            i++;
        }
    }
    vdagent_question_take(&sel->asked, i, &id, &ignored);
    return id;
}

static bool contents_from_guest(Agent *agent, const Message *msg,
                                const Clip *clip)
{
    uint32_t id = find_asker(clip->sel, clip->type);
    Client *client;

    if (!id && clip->type != VD_AGENT_CLIPBOARD_NONE) {
        id = clip->sel->last_asker;
    }
    client = vdagent_started(agent, id);
    if (!client && !id) {
        client = vdagent_only(agent);
    }
    if (!client) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, NULL, msg);
    }
    if (!allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_CLIENT)) {
        client->s.empty_due[clip->index]++;
        report_to_client(agent, client, msg, clip,
                         SPICE_VDAGENT_REFUSED_POLICY);
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_POLICY, NULL,
                              msg);
    }
    if (clip->bytes > MIN(agent->policy.max_to_client,
                          client->s.max_clipboard)) {
        client->s.empty_due[clip->index]++;
        report_to_client(agent, client, msg, clip, SPICE_VDAGENT_REFUSED_SIZE);
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_SIZE, NULL, msg);
    }
    report_to_client(agent, client, msg, clip, SPICE_VDAGENT_PASSED);
    return vdagent_to_one(client, msg);
}

bool vdagent_clipboard_from_guest(Agent *agent, Message *msg)
{
    Clip clip;

    if (!clip_parse(agent, msg, &clip)) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, NULL, msg);
    }
    switch (msg->type) {
    case VD_AGENT_CLIPBOARD_GRAB:
        return grab_from_guest(agent, msg, &clip);
    case VD_AGENT_CLIPBOARD_RELEASE:
        return release_from_guest(agent, msg, &clip);
    case VD_AGENT_CLIPBOARD_REQUEST:
        return question_from_guest(agent, msg, &clip);
    default:
        return contents_from_guest(agent, msg, &clip);
    }
}

/*
 * From a client
 */

/* Another client than this one owns the contents. */
static bool others_own(const Client *client, const Clip *clip)
{
    return clip->sel->owner && clip->sel->owner != client->s.id;
}

static bool grab_from_client(Client *client, const Message *msg,
                             const Clip *clip)
{
    Agent *agent = client->agent;

    FOREACH_STARTED(agent, other, l) {
        other->s.grab_due[clip->index] = false;
        if (clip->sel->guest_owns && other != client &&
            allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_CLIENT)) {
            other->s.release_due[clip->index] = true;
        }
    }
    owner_set(clip->sel, client->s.id, false);
    grab_read(agent, msg, clip);
    clip->sel->refused.num = 0;
    return vdagent_to_guest(client, msg);
}

static bool release_from_client(Client *client, const Message *msg,
                                const Clip *clip)
{
    if (others_own(client, clip)) {
        return vdagent_refuse(client->agent, SPICE_VDAGENT_EV_DROPPED, client,
                              msg);
    }
    clip->sel->owner = 0;
    clip->sel->grab_due = false;
    return vdagent_to_guest(client, msg);
}

static bool question_from_client(Client *client, const Message *msg,
                                 const Clip *clip)
{
    if (!allowed(&client->agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_CLIENT)) {
        client->s.empty_due[clip->index]++;
        report_to_client(client->agent, client, msg, clip,
                         SPICE_VDAGENT_REFUSED_POLICY);
        return vdagent_refuse(client->agent, SPICE_VDAGENT_EV_REFUSED_POLICY,
                              client, msg);
    }
    vdagent_question_add(&clip->sel->asked, client, clip->type);
    clip->sel->last_asker = client->s.id;
    return vdagent_to_guest(client, msg);
}

static bool contents_from_client(Client *client, const Message *msg,
                                 const Clip *clip)
{
    Agent *agent = client->agent;

    if (others_own(client, clip)) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client, msg);
    }
    if (!allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_GUEST)) {
        vdagent_question_add(&clip->sel->refused, NULL, clip->type);
        report_to_guest(agent, client, msg, clip, SPICE_VDAGENT_REFUSED_POLICY);
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_POLICY, client,
                              msg);
    }
    if (clip->bytes > agent->policy.max_to_guest) {
        vdagent_question_add(&clip->sel->refused, NULL, clip->type);
        report_to_guest(agent, client, msg, clip, SPICE_VDAGENT_REFUSED_SIZE);
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_SIZE, client,
                              msg);
    }
    report_to_guest(agent, client, msg, clip, SPICE_VDAGENT_PASSED);
    return vdagent_to_guest(client, msg);
}

bool vdagent_clipboard_from_client(Client *client, Message *msg)
{
    Agent *agent = client->agent;
    Clip clip;

    if (!clip_parse(agent, msg, &clip)) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client, msg);
    }
    switch (msg->type) {
    case VD_AGENT_CLIPBOARD_REQUEST:
        return question_from_client(client, msg, &clip);
    case VD_AGENT_CLIPBOARD:
        return contents_from_client(client, msg, &clip);
    }
    if (!allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_GUEST)) {
        if (msg->type == VD_AGENT_CLIPBOARD_GRAB) {
            report_to_guest(agent, client, msg, &clip,
                            SPICE_VDAGENT_REFUSED_POLICY);
        }
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_POLICY, client,
                              msg);
    }
    return msg->type == VD_AGENT_CLIPBOARD_GRAB
        ? grab_from_client(client, msg, &clip)
        : release_from_client(client, msg, &clip);
}

/*
 * Clients that come and go, and the policy
 */

void vdagent_clipboard_client_gone(Agent *agent, uint32_t id)
{
    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        Selection *sel = &agent->s.selection[i];

        if (sel->owner == id) {
            owner_set(sel, 0, false);
            sel->release_due = true;
        }
        vdagent_question_disown(&sel->asked, id);
        if (sel->last_asker == id) {
            sel->last_asker = NO_CLIENT;
        }
    }
}

void vdagent_clipboard_client_joined(Client *client)
{
    const Agent *agent = client->agent;

    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        client->s.grab_due[i] =
            agent->s.selection[i].guest_owns &&
            allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_CLIENT);
    }
}

void vdagent_clipboard_forgotten(Agent *agent)
{
    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        Selection *sel = &agent->s.selection[i];

        vdagent_questions_forgotten(agent, &sel->asked, empty_answer, i);
        sel->refused.num = 0;
        sel->release_due = false;
        sel->grab_due = sel->owner != 0;
        if (!sel->guest_owns) {
            continue;
        }
        sel->guest_owns = false;
        FOREACH_STARTED(agent, client, l) {
            client->s.grab_due[i] = false;
            client->s.release_due[i] =
                allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_CLIENT);
        }
    }
}

bool vdagent_clipboard_mend(Client *client, unsigned index)
{
    Agent *agent = client->agent;
    Selection *sel = &agent->s.selection[index];

    if (!vdagent_caps_has(&agent->s.guest, VD_AGENT_CAP_CLIPBOARD_BY_DEMAND)) {
        return false;
    }
    agent->s.mend_release = index + 1;
    if (sel->owner == client->s.id) {
        sel->grab_due = true;
    }
    return true;
}

void vdagent_clipboard_take_away(Agent *agent, const SpiceVdagentPolicy *old)
{
    bool to_client =
        allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_CLIENT);
    bool change = to_client != allowed(old, SPICE_VDAGENT_CLIPBOARD_TO_CLIENT);

    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        Selection *sel = &agent->s.selection[i];

        if (sel->guest_owns && change) {
            FOREACH_STARTED(agent, client, l) {
                client->s.grab_due[i] = to_client;
                client->s.release_due[i] = !to_client;
            }
        }
        if (sel->owner &&
            !allowed(&agent->policy, SPICE_VDAGENT_CLIPBOARD_TO_GUEST)) {
            owner_set(sel, 0, false);
            sel->release_due = true;
        }
    }
}

void vdagent_clipboard_clear(Agent *agent)
{
    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        agent->s.selection[i] = (Selection) { 0 };
        for (GList *l = agent->clients.head; l; l = l->next) {
            client_of(l)->s.empty_due[i] = 0;
            client_of(l)->s.release_due[i] = false;
            client_of(l)->s.grab_due[i] = false;
        }
    }
}
