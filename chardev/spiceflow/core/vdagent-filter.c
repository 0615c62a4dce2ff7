/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What becomes of an agent message: judged once, from its beginning, for all
 * of its pieces.  The messages that several clients share are settled here;
 * capabilities, clipboards and file transfers have a file each.
 */
#include "vdagent-priv.h"

bool vdagent_refuse(Agent *agent, SpiceVdagentEvent why, const Client *client,
                    const Message *msg)
{
    vdagent_event(agent, why, client ? client->s.id : 0, msg);
    return false;
}

bool vdagent_to_guest(Client *client, const Message *msg)
{
    vdagent_event(client->agent, SPICE_VDAGENT_EV_TO_GUEST, client->s.id, msg);
    return true;
}

bool vdagent_to_one(Client *client, const Message *msg)
{
    client->s.receiving = true;
    vdagent_event(client->agent, SPICE_VDAGENT_EV_TO_CLIENT, client->s.id,
                  msg);
    return true;
}

bool vdagent_to_all(Agent *agent, const Message *msg)
{
    if (!agent->num_started) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, NULL, msg);
    }
    FOREACH_STARTED(agent, client, l) {
        client->s.receiving = true;
    }
    vdagent_event(agent, SPICE_VDAGENT_EV_TO_CLIENT, 0, msg);
    return true;
}

bool vdagent_question_take(Questions *questions, unsigned i, uint32_t *client,
                           uint32_t *type)
{
    if (i >= questions->num) {
        return false;
    }
    *client = questions->client[i];
    *type = questions->type[i];
    questions->num--;
    for (; i < questions->num; i++) {
        questions->client[i] = questions->client[i + 1];
        questions->type[i] = questions->type[i + 1];
        questions->passed[i] = questions->passed[i + 1];
    }
    return true;
}

void vdagent_question_add(Questions *questions, const Client *client,
                          uint32_t type)
{
    uint32_t ignored;

    if (questions->num == SPICE_VDAGENT_QUESTIONS) {
        vdagent_question_take(questions, 0, &ignored, &ignored);
    }
    questions->client[questions->num] = client ? client->s.id : 0;
    questions->type[questions->num] = type;
    questions->passed[questions->num] = client ? client->s.passed + 1 : 0;
    questions->num++;
}

void vdagent_questions_forgotten(Agent *agent, Questions *questions,
                                 void (*fn)(Agent *, uint32_t client,
                                            unsigned arg), unsigned arg)
{
    uint32_t client, ignored;
    unsigned i = 0;

    while (i < questions->num) {
        if (vdagent_is_queued(agent, questions->client[i],
                              questions->passed[i])) {
            i++;
            continue;
        }
        vdagent_question_take(questions, i, &client, &ignored);
        if (fn) {
            fn(agent, client, arg);
        }
    }
}

void vdagent_question_disown(Questions *questions, uint32_t client)
{
    for (unsigned i = 0; i < questions->num; i++) {
        if (questions->client[i] == client) {
            questions->client[i] = NO_CLIENT;
        }
    }
}

void vdagent_replies_client_gone(Agent *agent, uint32_t id)
{
    vdagent_question_disown(&agent->s.replies[0], id);
    vdagent_question_disown(&agent->s.replies[1], id);
}

/* Who waits for a reply to a message of this type. */
static Questions *replies_to(Agent *agent, uint32_t type)
{
    switch (type) {
    case VD_AGENT_MONITORS_CONFIG:
        return &agent->s.replies[0];
    case VD_AGENT_DISPLAY_CONFIG:
        return &agent->s.replies[1];
    default:
        return NULL;
    }
}

static bool reply_from_guest(Agent *agent, const Message *msg)
{
    Questions *waiting = NULL;
    uint32_t id, ignored;
    Client *client;

    if (msg->have >= 4) {
        waiting = replies_to(agent, spice_flow_get_u32(msg->payload));
    }
    if (!waiting || !vdagent_question_take(waiting, 0, &id, &ignored)) {
        return vdagent_to_all(agent, msg);
    }
    client = vdagent_started(agent, id);
    return client ? vdagent_to_one(client, msg)
                  : vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, NULL, msg);
}

/* The largest contents that any of the clients, and the policy, lets in. */
uint32_t vdagent_max_value(const Agent *agent)
{
    uint32_t max = 0;

    FOREACH_STARTED(agent, client, l) {
        max = MAX(max, client->s.max_clipboard);
    }
    return MIN(max, agent->policy.max_to_client);
}

static bool max_clipboard_from_client(Client *client, Message *msg)
{
    Agent *agent = client->agent;
    uint32_t max;

    if (msg->have < 4) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client, msg);
    }
    max = spice_flow_get_u32(msg->payload);
    client->s.max_clipboard = max > INT32_MAX ? NO_LIMIT : max;

    max = vdagent_max_value(agent);
    agent->s.max_told = true;
    agent->s.max_due = false;
    agent->s.max_value = max;
    spice_flow_put_u32(msg->payload, max > INT32_MAX ? NO_LIMIT : max);
    return vdagent_to_guest(client, msg);
}

static bool is_clipboard(uint32_t type)
{
    return type == VD_AGENT_CLIPBOARD || type == VD_AGENT_CLIPBOARD_GRAB ||
           type == VD_AGENT_CLIPBOARD_REQUEST ||
           type == VD_AGENT_CLIPBOARD_RELEASE;
}

bool vdagent_from_guest(Agent *agent, Message *msg)
{
    /* a client may allocate whatever the message claims */
    if (!is_clipboard(msg->type) && msg->size > SPICE_VDAGENT_OTHER_MAX) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_SIZE, NULL, msg);
    }
    switch (msg->type) {
    case VD_AGENT_ANNOUNCE_CAPABILITIES:
        return vdagent_caps_from_guest(agent, msg);
    case VD_AGENT_CLIPBOARD:
    case VD_AGENT_CLIPBOARD_GRAB:
    case VD_AGENT_CLIPBOARD_REQUEST:
    case VD_AGENT_CLIPBOARD_RELEASE:
        return vdagent_clipboard_from_guest(agent, msg);
    case VD_AGENT_FILE_XFER_START:
    case VD_AGENT_FILE_XFER_STATUS:
    case VD_AGENT_FILE_XFER_DATA:
        return vdagent_xfer_from_guest(agent, msg);
    case VD_AGENT_REPLY:
        return reply_from_guest(agent, msg);
    default:
        return vdagent_to_all(agent, msg);
    }
}

bool vdagent_from_client(Client *client, Message *msg)
{
    Agent *agent = client->agent;
    Questions *replies;

    if (!client->s.wanted) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client, msg);
    }
    /* and so may the guest */
    if (!is_clipboard(msg->type) && msg->size > SPICE_VDAGENT_OTHER_MAX) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_SIZE, client,
                              msg);
    }
    switch (msg->type) {
    case VD_AGENT_ANNOUNCE_CAPABILITIES:
        return vdagent_caps_from_client(client, msg);
    case VD_AGENT_CLIPBOARD:
    case VD_AGENT_CLIPBOARD_GRAB:
    case VD_AGENT_CLIPBOARD_REQUEST:
    case VD_AGENT_CLIPBOARD_RELEASE:
        return vdagent_clipboard_from_client(client, msg);
    case VD_AGENT_FILE_XFER_START:
    case VD_AGENT_FILE_XFER_STATUS:
    case VD_AGENT_FILE_XFER_DATA:
        return vdagent_xfer_from_client(client, msg);
    case VD_AGENT_MAX_CLIPBOARD:
        return max_clipboard_from_client(client, msg);
    case VD_AGENT_MONITORS_CONFIG:
    case VD_AGENT_DISPLAY_CONFIG:
        replies = replies_to(agent, msg->type);
        vdagent_question_add(replies, client, 0);
        return vdagent_to_guest(client, msg);
    case VD_AGENT_CLIENT_DISCONNECTED:
        /* it would end what the other clients do */
        if (!vdagent_only(agent)) {
            return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client,
                                  msg);
        }
        return vdagent_to_guest(client, msg);
    default:
        return vdagent_to_guest(client, msg);
    }
}
