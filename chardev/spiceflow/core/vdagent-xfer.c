/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File transfers: whose is which.
 *
 * Clients number their transfers, each from its own first number on, and the
 * guest knows of one client only.  So each transfer has a number for the guest
 * too: the client's own while it is the only client, else a fresh one.  The
 * number is rewritten where it stands, in START, DATA and STATUS.
 *
 * A transfer ends with any STATUS of its client, and with any of the guest's
 * but CAN_SEND_DATA.  When its client leaves, or the policy ends it, it is
 * cancelled: the guest is told (and the client); until then it keeps its
 * number, so that no new one is taken for it.  What still comes for a transfer
 * that has ended is dropped.
 *
 * What is reported of a transfer is counted from what passes here, not from
 * what the client claims.
 */
#include "vdagent-priv.h"

/* Where the numbers begin that clients do not reach by counting */
#define FRESH_ID            0x80000000u
/* Bytes of a DATA message before those of the file: number and size. */
#define XFER_DATA_HEADER    12u

typedef struct Status {
    uint32_t id;
    uint32_t result;
} Status;

void vdagent_xfer_init(Agent *agent)
{
    agent->s.next_xfer = FRESH_ID;
    agent->xfer_by_guest = g_hash_table_new(NULL, NULL);
    agent->xfer_by_client = g_hash_table_new(g_int64_hash, g_int64_equal);
}

void vdagent_xfer_free(Agent *agent)
{
    g_hash_table_unref(agent->xfer_by_guest);
    g_hash_table_unref(agent->xfer_by_client);
}

static Xfer *find_by_guest(const Agent *agent, uint32_t guest_id)
{
    return g_hash_table_lookup(agent->xfer_by_guest,
                               GUINT_TO_POINTER(guest_id));
}

static uint64_t client_key(uint32_t client, uint32_t id)
{
    return (uint64_t)client << 32 | id;
}

static Xfer *find_by_client(const Client *client, uint32_t id)
{
    uint64_t key = client_key(client->s.id, id);

    return g_hash_table_lookup(client->agent->xfer_by_client, &key);
}

void vdagent_xfer_insert(Agent *agent, const SpiceVdagentXferState *x)
{
    Xfer *xfer = g_new0(Xfer, 1);

    xfer->link.data = xfer;
    xfer->x = *x;
    xfer->outcome = SPICE_VDAGENT_CANCELLED;
    xfer->client_key = client_key(x->client, x->id);
    g_queue_push_tail_link(&agent->xfers, &xfer->link);
    g_hash_table_insert(agent->xfer_by_guest, GUINT_TO_POINTER(x->guest_id),
                        xfer);
    if (x->client) {
        g_hash_table_insert(agent->xfer_by_client, &xfer->client_key, xfer);
        spice_vdagent_client_find(agent, x->client)->num_xfers++;
    } else {
        agent->num_cancelled++;
    }
}

/* A file that did not become a transfer. */
static bool refuse_file(Agent *agent, const Client *client, const Message *msg,
                        SpiceVdagentOutcome outcome)
{
    if (msg->type == VD_AGENT_FILE_XFER_START) {
        SpiceVdagentTransfer transfer = {
            .file = true,
            .to_guest = client != NULL,
            .outcome = outcome,
            .client = client ? client->s.id : 0,
        };

        vdagent_transfer(agent, &transfer);
    }
    return vdagent_refuse(agent, SPICE_VDAGENT_EV_REFUSED_POLICY, client, msg);
}

/* It is its client's no longer; the guest still knows of it. */
static void xfer_cancel(Agent *agent, Xfer *xfer)
{
    SpiceVdagentTransfer transfer = {
        .file = true,
        .to_guest = true,
        .outcome = xfer->outcome,
        .client = xfer->x.client,
        .has_bytes = true,
        .bytes = xfer->x.bytes,
    };

    vdagent_transfer(agent, &transfer);
    g_hash_table_remove(agent->xfer_by_client, &xfer->client_key);
    spice_vdagent_client_find(agent, xfer->x.client)->num_xfers--;
    xfer->x.client = 0;
    agent->num_cancelled++;
}

static void xfer_forget(Agent *agent, Xfer *xfer)
{
    if (xfer->x.client) {
        xfer_cancel(agent, xfer);
    }
    agent->num_cancelled--;
    g_hash_table_remove(agent->xfer_by_guest,
                        GUINT_TO_POINTER(xfer->x.guest_id));
    g_queue_unlink(&agent->xfers, &xfer->link);
    g_free(xfer);
}

void vdagent_xfer_status_add(Client *client, uint32_t id, uint32_t result)
{
    Status *status;

    /* one that starts transfers and takes no answers gets no more of them */
    if (client->statuses.length >= SPICE_VDAGENT_CLIENT_XFERS) {
        return;
    }
    status = g_new(Status, 1);
    *status = (Status) { .id = id, .result = result };
    g_queue_push_tail(&client->statuses, status);
}

bool vdagent_xfer_take_status(Client *client, uint32_t *id, uint32_t *result)
{
    g_autofree Status *status = g_queue_pop_head(&client->statuses);

    if (!status) {
        return false;
    }
    *id = status->id;
    *result = status->result;
    return true;
}

uint32_t vdagent_xfer_save_statuses(const Client *client,
                                    SpiceVdagentStatusState *to, uint32_t at)
{
    for (GList *l = client->statuses.head; l; l = l->next) {
        const Status *status = l->data;

        to[at++] = (SpiceVdagentStatusState) {
            .client = client->s.id,
            .id = status->id,
            .result = status->result,
        };
    }
    return at;
}

bool vdagent_xfer_take_cancelled(Agent *agent, uint32_t *guest_id)
{
    GList *l = agent->num_cancelled ? agent->xfers.head : NULL;

    for (; l; l = l->next) {
        Xfer *xfer = l->data;

        /* not before the guest has heard of it */
        if (!xfer->x.client &&
            !vdagent_is_queued(agent, xfer->x.beginner, xfer->x.passed)) {
            *guest_id = xfer->x.guest_id;
            xfer_forget(agent, xfer);
            return true;
        }
    }
    return false;
}

static uint32_t guest_id_new(Agent *agent, const Client *client, uint32_t id)
{
    if (vdagent_only(agent) == client && !find_by_guest(agent, id)) {
        return id;
    }
    while (find_by_guest(agent, agent->s.next_xfer)) {
        agent->s.next_xfer++;
    }
    return agent->s.next_xfer++;
}

static bool start_from_client(Client *client, Message *msg, uint32_t id)
{
    Agent *agent = client->agent;
    SpiceVdagentXferState x = {
        .client = client->s.id,
        .id = id,
        .beginner = client->s.id,
        .passed = client->s.passed + 1,
    };

    if (!agent->policy.file_transfer) {
        vdagent_xfer_status_add(client, id, VD_AGENT_FILE_XFER_STATUS_DISABLED);
        return refuse_file(agent, client, msg, SPICE_VDAGENT_REFUSED_POLICY);
    }
    if (find_by_client(client, id)) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client, msg);
    }
    if (client->num_xfers >= SPICE_VDAGENT_CLIENT_XFERS ||
        agent->xfers.length >= SPICE_VDAGENT_XFERS) {
        vdagent_xfer_status_add(client, id, VD_AGENT_FILE_XFER_STATUS_ERROR);
        return refuse_file(agent, client, msg, SPICE_VDAGENT_REFUSED_NUMBER);
    }
    x.guest_id = guest_id_new(agent, client, id);
    vdagent_xfer_insert(agent, &x);
    spice_flow_put_u32(msg->payload, x.guest_id);
    return vdagent_to_guest(client, msg);
}

bool vdagent_xfer_from_client(Client *client, Message *msg)
{
    Agent *agent = client->agent;
    Xfer *xfer;
    uint32_t id;

    if (msg->have < 4) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client, msg);
    }
    id = spice_flow_get_u32(msg->payload);
    if (msg->type == VD_AGENT_FILE_XFER_START) {
        return start_from_client(client, msg, id);
    }
    xfer = find_by_client(client, id);
    if (!xfer) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, client, msg);
    }
    spice_flow_put_u32(msg->payload, xfer->x.guest_id);
    if (msg->type == VD_AGENT_FILE_XFER_STATUS) {
        xfer_forget(agent, xfer);
    } else {
        xfer->x.bytes += msg->size - MIN(msg->size, XFER_DATA_HEADER);
    }
    return vdagent_to_guest(client, msg);
}

static bool status_from_guest(Agent *agent, Message *msg)
{
    Client *client = NULL;
    Xfer *xfer = NULL;
    uint32_t result;

    if (msg->have >= 8) {
        xfer = find_by_guest(agent, spice_flow_get_u32(msg->payload));
    }
    if (xfer) {
        client = vdagent_started(agent, xfer->x.client);
    }
    if (!client) {
        return vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, NULL, msg);
    }
    spice_flow_put_u32(msg->payload, xfer->x.id);
    result = spice_flow_get_u32(msg->payload + 4);
    if (result != VD_AGENT_FILE_XFER_STATUS_CAN_SEND_DATA) {
        if (result == VD_AGENT_FILE_XFER_STATUS_SUCCESS) {
            xfer->outcome = SPICE_VDAGENT_PASSED;
        }
        xfer_forget(agent, xfer);
    }
    return vdagent_to_one(client, msg);
}

bool vdagent_xfer_from_guest(Agent *agent, Message *msg)
{
    Client *client = vdagent_only(agent);

    if (msg->type == VD_AGENT_FILE_XFER_STATUS) {
        return status_from_guest(agent, msg);
    }
    /* No agent sends files; a file is not for several clients. */
    if (!agent->policy.file_transfer) {
        return refuse_file(agent, NULL, msg, SPICE_VDAGENT_REFUSED_POLICY);
    }
    return client ? vdagent_to_one(client, msg)
                  : vdagent_refuse(agent, SPICE_VDAGENT_EV_DROPPED, NULL, msg);
}

void vdagent_xfer_client_gone(Client *client)
{
    for (GList *l = client->agent->xfers.head; l && client->num_xfers;
         l = l->next) {
        Xfer *xfer = l->data;

        if (xfer->x.client == client->s.id) {
            xfer_cancel(client->agent, xfer);
        }
    }
    g_queue_clear_full(&client->statuses, g_free);
}

/* It is over, and its client is told; the guest is, unless it is forgotten. */
static void xfer_end(Agent *agent, Xfer *xfer, uint32_t result)
{
    if (xfer->x.client) {
        if (result == VD_AGENT_FILE_XFER_STATUS_DISABLED) {
            xfer->outcome = SPICE_VDAGENT_REFUSED_POLICY;
        }
        vdagent_xfer_status_add(
            spice_vdagent_client_find(agent, xfer->x.client), xfer->x.id,
            result);
        xfer_cancel(agent, xfer);
    }
}

void vdagent_xfer_mend(Client *client, uint32_t guest_id)
{
    Xfer *xfer = find_by_guest(client->agent, guest_id);

    if (xfer && xfer->x.client == client->s.id) {
        xfer_end(client->agent, xfer, VD_AGENT_FILE_XFER_STATUS_CANCELLED);
    }
}

void vdagent_xfer_end_all(Agent *agent, uint32_t result)
{
    for (GList *l = agent->xfers.head; l; l = l->next) {
        xfer_end(agent, l->data, result);
    }
}

void vdagent_xfer_forgotten(Agent *agent)
{
    GList *l = agent->xfers.head;

    while (l) {
        Xfer *xfer = l->data;

        l = l->next;
        if (!vdagent_is_queued(agent, xfer->x.client, xfer->x.passed)) {
            xfer_end(agent, xfer, VD_AGENT_FILE_XFER_STATUS_CANCELLED);
            xfer_forget(agent, xfer);
        }
    }
}

void vdagent_xfer_clear(Agent *agent)
{
    while (agent->xfers.head) {
        xfer_forget(agent, agent->xfers.head->data);
    }
    for (GList *l = agent->clients.head; l; l = l->next) {
        g_queue_clear_full(&client_of(l)->statuses, g_free);
    }
}
