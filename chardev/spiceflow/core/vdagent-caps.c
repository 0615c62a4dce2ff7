/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Capabilities of the guest and of the clients.
 *
 * With one client its announcement and the guest's pass, changed in place to
 * what the policy allows.  What each side announced, and what each was told of
 * the other, is remembered.  What a side should know and what it was told are
 * compared whenever notices are taken, so every cause of a change (policy, a
 * client that comes or goes) leads to a new announcement by itself.
 *
 * An announcement that asks for the guest's resets the guest: it takes it for
 * a new client's.  So when there is a client that has announced already, the
 * next one's does not pass: the guest is told of all of them together, and the
 * client is told of the guest by the server.
 *
 * Of several clients together the guest is told what any of them can do,
 * except where a capability changes the layout of messages or what a peer may
 * expect: that must hold for all.  For the same reason the clients are told of
 * the guest's layouts only where all of them can.
 *
 * Grabs are counted by both peers (GRAB_SERIAL), which works only while every
 * grab reaches the other.  As soon as some do not, because of the policy or of
 * a second client, the counts differ for good, and the capability is taken
 * away until the next session.
 */
#include "vdagent-priv.h"

#define CAP(cap)            (1u << VD_AGENT_CAP_##cap)

#define CAPS_CLIPBOARD      (CAP(CLIPBOARD) | CAP(CLIPBOARD_BY_DEMAND) | \
                             CAP(CLIPBOARD_SELECTION) | \
                             CAP(CLIPBOARD_NO_RELEASE_ON_REGRAB) | \
                             CAP(CLIPBOARD_GRAB_SERIAL))
/* Layouts that all peers have to agree on */
#define CAPS_LAYOUT         (CAP(CLIPBOARD_SELECTION) | \
                             CAP(CLIPBOARD_GRAB_SERIAL))
/* What a client without it would not understand, or miss */
#define CAPS_OF_ALL         (CAPS_LAYOUT | \
                             CAP(CLIPBOARD_NO_RELEASE_ON_REGRAB) | \
                             CAP(FILE_XFER_DISABLED) | \
                             CAP(FILE_XFER_DETAILED_ERRORS))

bool vdagent_caps_has(const Caps *caps, unsigned cap)
{
    return caps->word[cap / 32] >> (cap % 32) & 1;
}

bool vdagent_caps_equal(const Caps *a, const Caps *b)
{
    for (unsigned i = 0; i < SPICE_VDAGENT_CAPS_WORDS; i++) {
        if (a->word[i] != b->word[i]) {
            return false;
        }
    }
    return true;
}

void vdagent_caps_check_serial(Agent *agent)
{
    if (agent->num_started > 1 ||
        agent->policy.clipboard != SPICE_VDAGENT_CLIPBOARD_BOTH) {
        agent->s.no_serial = true;
    } else if (agent->num_started == 0) {
        agent->s.no_serial = false;
    }
}

static void caps_apply_policy(const Agent *agent, Caps *caps)
{
    if (agent->policy.clipboard == SPICE_VDAGENT_CLIPBOARD_OFF) {
        caps->word[0] &= ~CAPS_CLIPBOARD;
    }
    if (agent->s.no_serial) {
        caps->word[0] &= ~CAP(CLIPBOARD_GRAB_SERIAL);
    }
    if (!agent->policy.file_transfer && caps->num) {
        caps->word[0] |= CAP(FILE_XFER_DISABLED);
    }
}

void vdagent_caps_changed(Agent *agent)
{
    agent->together.current = false;
}

static void caps_add_up(Agent *agent)
{
    Caps *any = &agent->together.any;

    *any = (Caps) { 0 };
    agent->together.all = ~0u;
    agent->together.count = 0;
    agent->together.current = true;
    FOREACH_STARTED(agent, client, l) {
        const Caps *caps = &client->s.caps;

        if (!caps->known) {
            continue;
        }
        agent->together.count++;
        any->known = true;
        any->num = MAX(any->num, caps->num);
        agent->together.all &= caps->word[0];
        for (unsigned i = 0; i < SPICE_VDAGENT_CAPS_WORDS; i++) {
            any->word[i] |= caps->word[i];
        }
    }
}

/*
 * All clients that announced some together; returns how many those are.  It is
 * asked for each client after each message.
 */
static unsigned caps_of_clients(Agent *agent, Caps *any, uint32_t *all)
{
    if (!agent->together.current) {
        caps_add_up(agent);
    }
    *any = agent->together.any;
    *all = agent->together.all;
    return agent->together.count;
}

void vdagent_caps_for_guest(Agent *agent, Caps *caps)
{
    uint32_t all;

    caps_of_clients(agent, caps, &all);
    caps->word[0] &= ~CAPS_OF_ALL | all;
    caps_apply_policy(agent, caps);
}

void vdagent_caps_for_client(Agent *agent, Caps *caps)
{
    Caps any;
    uint32_t all;

    *caps = agent->s.guest;
    /* a lone client knows itself what it can not */
    if (caps_of_clients(agent, &any, &all) > 1) {
        caps->word[0] &= ~CAPS_LAYOUT | all;
    }
    caps_apply_policy(agent, caps);
}

bool vdagent_caps_selection(const Agent *agent)
{
    /* what is in use is what was told, not what is due to be */
    return agent->s.guest_told.word[0] & agent->s.guest.word[0] &
           CAP(CLIPBOARD_SELECTION);
}

/* Remember what an announcement says. */
static void caps_read(Caps *caps, const Message *msg)
{
    *caps = (Caps) {
        .known = true,
        .num = MIN((msg->have - 4) / 4, SPICE_VDAGENT_CAPS_WORDS),
    };
    for (unsigned i = 0; i < caps->num; i++) {
        caps->word[i] = spice_flow_get_u32(msg->payload + 4 + 4 * i);
    }
}

/* Change an announcement to what its receiver is to know. */
static void caps_write(const Caps *caps, Message *msg)
{
    for (unsigned i = 0; i < caps->num; i++) {
        spice_flow_put_u32(msg->payload + 4 + 4 * i, caps->word[i]);
    }
}

bool vdagent_caps_from_guest(Agent *agent, Message *msg)
{
    Caps caps, any;
    uint32_t all;

    if (msg->have < 4) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, NULL, msg);
    }
    caps_read(&agent->s.guest, msg);
    /* Each client would answer for itself alone */
    if (spice_flow_get_u32(msg->payload) &&
        caps_of_clients(agent, &any, &all) > 1) {
        agent->s.announce_due = true;
    }
    vdagent_caps_for_client(agent, &caps);
    caps_write(&caps, msg);
    FOREACH_STARTED(agent, client, l) {
        client->s.told = caps;
        client->s.announce_due = false;
    }
    return vdagent_to_all(agent, msg);
}

static bool others_announced(const Client *client)
{
    FOREACH_STARTED(client->agent, other, l) {
        if (other != client && other->s.caps.known) {
            return true;
        }
    }
    return false;
}

bool vdagent_caps_from_client(Client *client, Message *msg)
{
    Agent *agent = client->agent;
    bool joins = !client->s.caps.known;

    if (msg->have < 4) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client, msg);
    }
    caps_read(&client->s.caps, msg);
    vdagent_caps_changed(agent);
    if (others_announced(client)) {
        if (spice_flow_get_u32(msg->payload)) {
            client->s.announce_due = true;
        }
        if (joins) {
            vdagent_clipboard_client_joined(client);
        }
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_ABSORBED, client, msg);
    }
    vdagent_caps_for_guest(agent, &agent->s.guest_told);
    caps_write(&agent->s.guest_told, msg);
    agent->s.announce_due = false;
    agent->s.announce_request = false;
    return vdagent_to_guest(client, msg);
}
