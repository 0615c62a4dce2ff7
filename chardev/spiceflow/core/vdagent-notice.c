/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the server has to say itself.
 *
 * Notices are not queued: they are made, one at a time, out of what is due at
 * that moment, so what waits is bounded and never out of date.
 *
 * To the guest they go on port 2, each complete in one chunk, and so may come
 * between the pieces of a client's message; agents take a message for what its
 * type says, whatever its port.  To a client they go between the guest's
 * messages, because it has one stream only.
 */
#include "vdagent-priv.h"

#include <string.h>

static void notice_begin(Notice *notice, bool to_guest, uint32_t type)
{
    uint8_t *p = notice->data;

    memset(p, 0, CHUNK_HEADER_SIZE + HEADER_SIZE);
    notice->len = HEADER_SIZE;
    notice->ends_torn = false;
    if (to_guest) {
        spice_flow_put_u32(p, VDP_SERVER_PORT);
        p += CHUNK_HEADER_SIZE;
        notice->len += CHUNK_HEADER_SIZE;
    }
    spice_flow_put_u32(p, VD_AGENT_PROTOCOL);
    spice_flow_put_u32(p + 4, type);
}

static void notice_put(Notice *notice, uint32_t v)
{
    spice_flow_put_u32(notice->data + notice->len, v);
    notice->len += 4;
}

/* Fill in the sizes. */
static bool notice_end(Notice *notice, bool to_guest)
{
    uint8_t *p = notice->data;
    size_t len = notice->len;

    if (to_guest) {
        len -= CHUNK_HEADER_SIZE;
        spice_flow_put_u32(p + 4, len);
        p += CHUNK_HEADER_SIZE;
    }
    spice_flow_put_u32(p + 16, len - HEADER_SIZE);
    return true;
}

bool spice_vdagent_build_chunk(SpiceVdagentNotice *notice, uint32_t type,
                               const void *payload, size_t len)
{
    if (len > SPICE_VDAGENT_NOTICE_MAX - CHUNK_HEADER_SIZE - HEADER_SIZE) {
        return false;
    }
    notice_begin(notice, true, type);
    if (len) {
        memcpy(notice->data + notice->len, payload, len);
        notice->len += len;
    }
    return notice_end(notice, true);
}

static bool build_announce(Notice *notice, bool to_guest, const Caps *caps,
                           bool request)
{
    notice_begin(notice, to_guest, VD_AGENT_ANNOUNCE_CAPABILITIES);
    notice_put(notice, request);
    for (unsigned i = 0; i < caps->num; i++) {
        notice_put(notice, caps->word[i]);
    }
    return notice_end(notice, to_guest);
}

static void clipboard_begin(const Agent *agent, Notice *notice, bool to_guest,
                            uint32_t type, unsigned index)
{
    notice_begin(notice, to_guest, type);
    if (vdagent_caps_selection(agent)) {
        notice_put(notice, index);
    }
}

static bool build_release(const Agent *agent, Notice *notice, bool to_guest,
                          unsigned index)
{
    clipboard_begin(agent, notice, to_guest, VD_AGENT_CLIPBOARD_RELEASE,
                    index);
    return notice_end(notice, to_guest);
}

static bool build_grab(const Agent *agent, Notice *notice, bool to_guest,
                       unsigned index)
{
    const Selection *sel = &agent->s.selection[index];

    clipboard_begin(agent, notice, to_guest, VD_AGENT_CLIPBOARD_GRAB, index);
    for (unsigned i = 0; i < sel->num_types; i++) {
        notice_put(notice, sel->types[i]);
    }
    return notice_end(notice, to_guest);
}

static bool build_empty(const Agent *agent, Notice *notice, bool to_guest,
                        unsigned index, uint32_t type)
{
    clipboard_begin(agent, notice, to_guest, VD_AGENT_CLIPBOARD, index);
    notice_put(notice, type);
    return notice_end(notice, to_guest);
}

static bool build_status(Notice *notice, bool to_guest, uint32_t id,
                         uint32_t result)
{
    notice_begin(notice, to_guest, VD_AGENT_FILE_XFER_STATUS);
    notice_put(notice, id);
    notice_put(notice, result);
    return notice_end(notice, to_guest);
}

/*
 * To the guest
 */

bool spice_vdagent_take_disconnect(SpiceVdagent *agent,
                                   SpiceVdagentNotice *notice)
{
    if (!agent->s.disconnect_due) {
        return false;
    }
    agent->s.disconnect_due = false;
    spice_vdagent_build_chunk(notice, VD_AGENT_CLIENT_DISCONNECTED, NULL, 0);
    notice->ends_torn = true;
    return true;
}

static bool take_announce_to_guest(Agent *agent, Notice *notice)
{
    bool request = agent->s.announce_request;
    Caps caps;

    vdagent_caps_for_guest(agent, &caps);
    if (!caps.known ||
        (!agent->s.announce_due &&
         (!agent->s.guest_told.known ||
          vdagent_caps_equal(&caps, &agent->s.guest_told)))) {
        return false;
    }
    agent->s.guest_told = caps;
    agent->s.announce_due = false;
    agent->s.announce_request = false;
    return build_announce(notice, true, &caps, request);
}

static bool take_max_clipboard(Agent *agent, Notice *notice)
{
    uint32_t max = vdagent_max_value(agent);

    if (!agent->s.max_told || !agent->num_started ||
        (!agent->s.max_due && max == agent->s.max_value)) {
        return false;
    }
    agent->s.max_due = false;
    agent->s.max_value = max;
    notice_begin(notice, true, VD_AGENT_MAX_CLIPBOARD);
    notice_put(notice, max > INT32_MAX ? NO_LIMIT : max);
    return notice_end(notice, true);
}

/* Before what is filled up gets its end, and before anybody grabs. */
static bool take_mend_release(Agent *agent, Notice *notice)
{
    unsigned index = agent->s.mend_release;

    if (!index) {
        return false;
    }
    agent->s.mend_release = 0;
    agent->s.selection[index - 1].release_due = false;
    return build_release(agent, notice, true, index - 1);
}

static bool take_clipboard_to_guest(Agent *agent, unsigned index,
                                    Notice *notice)
{
    Selection *sel = &agent->s.selection[index];
    uint32_t type, ignored;

    if (sel->release_due) {
        sel->release_due = false;
        return build_release(agent, notice, true, index);
    }
    if (sel->grab_due && !agent->s.mend_left) {
        sel->grab_due = false;
        return build_grab(agent, notice, true, index);
    }
    return vdagent_question_take(&sel->refused, 0, &ignored, &type) &&
           build_empty(agent, notice, true, index, type);
}

bool spice_vdagent_take_to_guest(SpiceVdagent *agent,
                                 SpiceVdagentNotice *notice)
{
    uint32_t id;

    if (agent->s.disconnect_due) {
        return false;
    }
    if (take_mend_release(agent, notice) ||
        take_announce_to_guest(agent, notice) ||
        take_max_clipboard(agent, notice)) {
        return true;
    }
    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        if (take_clipboard_to_guest(agent, i, notice)) {
            return true;
        }
    }
    if (vdagent_xfer_take_cancelled(agent, &id)) {
        return build_status(notice, true, id,
                            VD_AGENT_FILE_XFER_STATUS_CANCELLED);
    }
    return vdagent_mend_take(agent, notice);
}

/*
 * To a client
 */

static bool take_announce_to_client(Client *client, Notice *notice)
{
    SpiceVdagentClientState *s = &client->s;
    Caps caps;

    vdagent_caps_for_client(client->agent, &caps);
    if (!caps.known ||
        (!s->announce_due &&
         (!s->told.known || vdagent_caps_equal(&caps, &s->told)))) {
        return false;
    }
    s->told = caps;
    s->announce_due = false;
    return build_announce(notice, false, &caps, false);
}

static bool take_clipboard_to_client(Client *client, unsigned index,
                                     Notice *notice)
{
    SpiceVdagentClientState *s = &client->s;

    if (s->empty_due[index]) {
        s->empty_due[index]--;
        return build_empty(client->agent, notice, false, index,
                           VD_AGENT_CLIPBOARD_NONE);
    }
    if (s->release_due[index]) {
        s->release_due[index] = false;
        return build_release(client->agent, notice, false, index);
    }
    if (s->grab_due[index]) {
        s->grab_due[index] = false;
        return build_grab(client->agent, notice, false, index);
    }
    return false;
}

static bool take_status(Client *client, Notice *notice)
{
    uint32_t id, result;

    if (!vdagent_xfer_take_status(client, &id, &result)) {
        return false;
    }
    /* the later ones are for those who know them */
    if (result > VD_AGENT_FILE_XFER_STATUS_SUCCESS &&
        !vdagent_caps_has(&client->s.caps,
                          VD_AGENT_CAP_FILE_XFER_DETAILED_ERRORS)) {
        result = VD_AGENT_FILE_XFER_STATUS_ERROR;
    }
    return build_status(notice, false, id, result);
}

bool spice_vdagent_take_to_client(SpiceVdagentClient *client,
                                  SpiceVdagentNotice *notice)
{
    if (!client->s.started || client->s.receiving) {
        return false;
    }
    if (take_announce_to_client(client, notice)) {
        return true;
    }
    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        if (take_clipboard_to_client(client, i, notice)) {
            return true;
        }
    }
    return take_status(client, notice);
}
