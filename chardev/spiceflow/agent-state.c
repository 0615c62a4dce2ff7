/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's state, carried with the VM.  A client of the saved VM leaves when
 * it is loaded, as it would have left there, unless it is on its way here; a
 * client of this QEMU begins anew, but for the message that it is in the middle
 * of.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "agent.h"
#include "handover.h"
#include "migrate.h"

bool sf_agent_carries(SFDevice *device)
{
    return device->fe_open;
}

void sf_agent_save(SFDevice *device, SFSaved *saved)
{
    SFAgent *agent = device->priv;
    SFServer *server = device->server;
    SFClient *client;

    saved->agent.broken = agent->broken;
    saved->agent.clients = g_new0(SFSavedAgentClient, server->num_clients);
    QTAILQ_FOREACH(client, &server->clients, next) {
        SFAgentClient *c = client->agent;

        saved->agent.clients[saved->agent.num_clients++] =
            (SFSavedAgentClient) {
                .id = client->id,
                .window = client->agent_window,
                .owed = c->owed,
            };
    }
    spice_vdagent_save(agent->agent, &saved->agent.vdagent);
}

size_t sf_agent_saved_max(const SFDevice *device, uint32_t num_clients)
{
    return spice_vdagent_saved_max(num_clients) +
           num_clients * sizeof(SFSavedAgentClient);
}

/* Who has something queued is one of the protocol's clients. */
static bool saved_clients_agree(const SFSaved *saved, Error **errp)
{
    const SpiceVdagentSaved *vdagent = &saved->agent.vdagent;

    for (uint32_t i = 0; i < saved->flow.num_clients; i++) {
        uint32_t id = saved->flow.clients[i].params.id;
        uint32_t k = 0;

        while (k < vdagent->num_clients && vdagent->clients[k].id != id) {
            k++;
        }
        if (k == vdagent->num_clients || !vdagent->clients[k].started) {
            error_setg(errp, "bad agent state: flow client %" PRIu32
                       ": bad id", i);
            return false;
        }
    }
    return true;
}

static void agent_lose_client(SFAgent *agent, uint32_t id, bool torn)
{
    SpiceFlowClient *flow = spice_flow_client_find(agent->device->flow, id);

    /* One that was on its way out may have torn it before. */
    if (flow) {
        torn = spice_flow_client_remove(flow);
    }
    spice_vdagent_client_remove(spice_vdagent_client_find(agent->agent, id),
                                torn);
}

/* The clients of then leave, unless they come here. */
static void agent_lose_saved(SFAgent *agent, const SFSaved *saved)
{
    const SFSavedAgent *then = &saved->agent;

    for (uint32_t i = 0; i < then->vdagent.num_clients; i++) {
        uint32_t id = then->vdagent.clients[i].id;

        if (!sf_handover_awaited(agent->device, id)) {
            agent_lose_client(agent, id, saved->flow.torn);
        }
    }
    for (uint32_t i = 0; i < then->num_clients; i++) {
        SFClient *client = sf_handover_awaited(agent->device,
                                               then->clients[i].id);

        if (client) {
            client->agent_window = then->clients[i].window;
            client->agent_owed = then->clients[i].owed;
        }
    }
}

void sf_agent_lose(SFDevice *device)
{
    SFAgent *agent = device->priv;

    for (uint32_t i = 0; i < device->moving.num; i++) {
        uint32_t id = device->moving.clients[i].id;

        if (!sf_server_client(device->server, id) &&
            spice_vdagent_client_find(agent->agent, id)) {
            agent_lose_client(agent, id, false);
        }
    }
    sf_agent_say(agent);
}

/* The clients of now begin anew, but for the message that they are in. */
static void agent_add_clients(SFAgent *agent)
{
    SFClient *client;

    QTAILQ_FOREACH(client, &agent->device->server->clients, next) {
        SFAgentClient *c = client->agent;

        c->vdagent = spice_vdagent_client_add(agent->agent, client->id);
        spice_vdagent_client_skip(c->vdagent, client->agent_left);
    }
}

static void agent_note_left(SFAgent *agent)
{
    SFClient *client;

    QTAILQ_FOREACH(client, &agent->device->server->clients, next) {
        SFAgentClient *c = client->agent;

        client->agent_left = spice_vdagent_client_left(c->vdagent);
    }
}

bool sf_agent_restore(SFDevice *device, const SFSaved *saved, Error **errp)
{
    SFAgent *agent = device->priv;
    g_autofree char *wrong = NULL;

    if (!saved_clients_agree(saved, errp) ||
        !sf_migrate_flow_restore(device, saved, errp)) {
        return false;
    }
    agent_note_left(agent);
    if (!spice_vdagent_restore(agent->agent, &saved->agent.vdagent, &wrong)) {
        sf_migrate_flow_lose(device);
        spice_flow_reset(device->flow);
        error_setg(errp, "bad %s", wrong);
        return false;
    }
    agent_lose_saved(agent, saved);
    agent_add_clients(agent);

    qemu_bh_cancel(agent->drop_bh);
    agent->broken = saved->agent.broken;
    device->fe_open = saved->guest_open;
    sf_frontend_resume(&device->frontend, saved->host_open);
    if (agent->broken) {
        qemu_bh_schedule(agent->drop_bh);
    }
    if (sf_agent_connected(device)) {
        sf_agent_tell_clients(agent);
    }
    sf_agent_say(agent);
    return true;
}
