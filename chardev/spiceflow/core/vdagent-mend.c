/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A message to the guest whose client left, or lost its turn, in the middle of
 * it.  The guest waits for the rest, and takes whatever comes next for it.
 *
 * The one message that makes a guest drop what it has is CLIENT_DISCONNECTED,
 * and with it goes everything else that it knows of its clients: see
 * guest_forgets() in vdagent.c.  The two kinds that take long to send, and so
 * are the ones that break off, can be ended instead, at the cost of the client
 * that did not:
 *
 *   a file's data        the transfer is cancelled, then the message is filled
 *                        up.  Agents drop data of transfers that they do not
 *                        know
 *   clipboard contents   the selection is released, then the message is filled
 *                        up.  Agents that ask for contents drop those that they
 *                        did not ask for, and a release ends their question.
 *                        The client that is still there grabs it again after
 *                        that, so nobody can ask in between
 *
 * Both notices go on port 2, where they are complete in themselves, and so are
 * understood before the message that they make void has its end.
 *
 * What can not be ended like this: contents for an agent that takes them
 * without having asked, messages with more than MEND_MAX bytes to come, because
 * filling them up would keep the others waiting for too long, and any other
 * type.  Those fit in one piece, unless a client cuts smaller ones.
 */
#include "vdagent-priv.h"

#include <string.h>

#define MEND_MAX            (4u * 1024 * 1024)

bool vdagent_mend(Client *client)
{
    SpiceVdagentState *s = &client->agent->s;
    const uint8_t *payload = client->s.prefix + HEADER_SIZE;
    bool harmless = false;

    if (!client->s.passing || client->s.message_left == 0 ||
        client->s.message_left > MEND_MAX || s->mend_left ||
        s->disconnect_due) {
        return false;
    }
    switch (spice_flow_get_u32(client->s.prefix + 4)) {
    case VD_AGENT_FILE_XFER_DATA:
        vdagent_xfer_mend(client, spice_flow_get_u32(payload));
        harmless = true;
        break;
    case VD_AGENT_CLIPBOARD:
        harmless = vdagent_clipboard_mend(
            client, vdagent_caps_selection(client->agent) ? payload[0] : 0);
        break;
    }
    if (harmless) {
        s->mend_left = client->s.message_left;
    }
    return harmless;
}

void vdagent_mend_forget(Agent *agent)
{
    agent->s.mend_left = 0;
    agent->s.mend_release = 0;
}

bool vdagent_mend_take(Agent *agent, Notice *notice)
{
    size_t len = MIN(agent->s.mend_left, SPICE_VDAGENT_PIECE_MAX);

    if (len == 0) {
        return false;
    }
    agent->s.mend_left -= len;
    notice->len = CHUNK_HEADER_SIZE + len;
    notice->ends_torn = agent->s.mend_left == 0;
    spice_flow_put_u32(notice->data, VDP_CLIENT_PORT);
    spice_flow_put_u32(notice->data + 4, len);
    memset(notice->data + CHUNK_HEADER_SIZE, 0, len);
    return true;
}

const char *vdagent_mend_check(const SpiceVdagentState *s)
{
    if (s->mend_left > MEND_MAX) {
        return "left";
    }
    if (s->mend_release > (s->mend_left ? SPICE_VDAGENT_SELECTIONS : 0)) {
        return "release";
    }
    return NULL;
}
