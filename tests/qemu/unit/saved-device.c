/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device as its state sees it, and random steps; see saved-device.h.
 */
#include "qemu/osdep.h"
#include <spice/enums.h>
#include "qemu/bswap.h"
#include "saved-device.h"

#define STEPS           400
#define CLIENTS         3
#define QUEUE           (64 * 1024)

typedef struct Client {
    Device *device;
    uint32_t id;
    SpiceFlowClient *flow;
    SpiceVdagentClient *vdagent;
    bool begun;
    uint32_t left;              /* of its message to the guest */
} Client;

static Client clients[CLIENTS];

static ssize_t on_write(void *opaque, const uint8_t *data, size_t len)
{
    Device *device = opaque;

    return g_rand_int_range(device->rand, 0, 3) ?
           g_rand_int_range(device->rand, 0, len + 1) : 0;
}

static bool on_send(void *opaque, SpiceFlowMessage *msg)
{
    Client *client = opaque;

    if (g_rand_boolean(client->device->rand)) {
        return true;
    }
    g_queue_push_tail(&client->device->kept, spice_flow_message_keep(msg));
    return false;
}

static void on_give_tokens(void *opaque, uint32_t n)
{
}

static void on_remove(void *opaque, SpiceFlowReason reason)
{
}

static const SpiceFlowOps flow_ops = {
    .write = on_write,
    .send = on_send,
    .give_tokens = on_give_tokens,
    .remove = on_remove,
};

static const SpiceVdagentOps vdagent_ops;

static SpiceFlowParams flow_params(uint8_t type)
{
    bool agent = type == SPICE_CHANNEL_MAIN;
    bool framed = agent || type == SPICE_CHANNEL_SMARTCARD;

    return (SpiceFlowParams) {
        .framing = framed ? SPICE_FLOW_FRAMED : SPICE_FLOW_RAW,
        .self_tokens = agent ? 4 : 0,
        .max_message = agent ? SPICE_VDAGENT_BUFFER_MAX : 64 * 1024,
        .stall_timeout = 30000,
    };
}

void device_init(Device *device, uint8_t type, GRand *rand)
{
    static const SpiceVdagentPolicy policy = {
        .clipboard = SPICE_VDAGENT_CLIPBOARD_BOTH,
        .max_to_guest = UINT32_MAX,
        .max_to_client = UINT32_MAX,
        .file_transfer = true,
    };
    SpiceFlowParams params = flow_params(type);

    *device = (Device) { .rand = rand, .type = type };
    device->flow = spice_flow_new(&flow_ops, device, &params);
    if (type == SPICE_CHANNEL_MAIN) {
        device->agent = spice_vdagent_new(&policy, &vdagent_ops, NULL);
    } else if (type == SPICE_CHANNEL_SMARTCARD) {
        device->parser = spice_flow_vsc_new(SPICE_FLOW_VSC_DEVICE);
    } else if (type == SPICE_CHANNEL_USBREDIR) {
        device->guard = spice_flow_usbredir_new();
    }
}

void device_clear(Device *device)
{
    spice_flow_close(device->flow);
    g_queue_clear_full(&device->kept,
                       (GDestroyNotify)spice_flow_message_unref);
    spice_vdagent_free(device->agent);
    spice_flow_vsc_free(device->parser);
    spice_flow_usbredir_free(device->guard);
}

SpiceFlowClient *device_add_client(Device *device,
                                   const SpiceFlowClientParams *params)
{
    clients[0] = (Client) { .device = device };
    return spice_flow_client_add(device->flow, params, &clients[0]);
}

void device_save(Device *device, SFSaved *saved)
{
    *saved = (SFSaved) {
        .type = device->type,
        .guest_open = true,
        .host_open = device->type == SPICE_CHANNEL_MAIN,
    };
    spice_flow_save(device->flow, &saved->flow, 5000);
    if (device->agent) {
        saved->agent.num_clients = 1;
        saved->agent.clients = g_new0(SFSavedAgentClient, 1);
        saved->agent.clients[0] = (SFSavedAgentClient) { 11, 12, 13 };
        spice_vdagent_save(device->agent, &saved->agent.vdagent);
    } else if (device->parser) {
        saved->card.added = true;
        saved->card.stale_answers = 14;
        saved->card.commands = 15;
        spice_flow_vsc_save(device->parser, &saved->card.parser);
    } else {
        saved->vmc.pending_size = 5;
        saved->vmc.pending = g_memdup2("hello", 5);
        if (device->guard) {
            spice_flow_usbredir_save(device->guard, &saved->vmc.guard);
        }
    }
}

bool device_restore(Device *device, const SFSaved *saved)
{
    char *why = NULL;
    bool ok = saved->type == device->type;

    if (!ok) {
        return false;
    }
    ok = spice_flow_restore(device->flow, &saved->flow, 6000, &why);
    if (ok && device->agent) {
        ok = spice_vdagent_restore(device->agent, &saved->agent.vdagent, &why);
    }
    if (ok && device->parser) {
        ok = spice_flow_vsc_restore(device->parser, &saved->card.parser, &why);
    }
    if (ok && device->guard) {
        ok = spice_flow_usbredir_restore(device->guard, &saved->vmc.guard,
                                         &why);
    }
    g_assert(ok == !why);
    g_assert(ok || *why);
    g_free(why);
    return ok;
}

/*
 * Random steps
 */

static uint32_t upto(Device *device, uint32_t n)
{
    return g_rand_int_range(device->rand, 0, n);
}

static void random_bytes(Device *device, uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        p[i] = g_rand_int(device->rand);
    }
}

static void client_join(Device *device, Client *client)
{
    SpiceFlowClientParams params = {
        .id = client->id,
        .flow_control = device->agent != NULL,
        .window = 20,
        .interval = 10,
        .send_tokens = upto(device, 10),
        .to_guest_bytes = QUEUE,
        .to_guest_messages = 64,
        .to_client_bytes = 2 * QUEUE,
        .to_client_messages = 64,
    };

    client->flow = spice_flow_client_add(device->flow, &params, client);
    if (device->agent) {
        client->vdagent = spice_vdagent_client_add(device->agent, client->id);
        spice_vdagent_client_start(client->vdagent);
    }
}

static void client_leave(Device *device, Client *client)
{
    bool torn = spice_flow_client_remove(client->flow);
    SpiceVdagentNotice notice;

    if (device->agent) {
        spice_vdagent_client_remove(client->vdagent, torn);
        if (spice_vdagent_take_disconnect(device->agent, &notice)) {
            SpiceFlowBuffer buffer = { .data = notice.data,
                                       .len = notice.len };

            spice_flow_server_write_unpaid(device->flow, &buffer);
        }
    }
    *client = (Client) { .device = device, .id = client->id };
}

static void agent_speaks(Device *device, Client *client)
{
    uint8_t data[2048];
    SpiceFlowBuffer buffer;
    size_t n;

    if (!client->begun) {
        client->begun = spice_flow_client_begin(client->flow);
        if (!client->begun || upto(device, 3) == 0) {
            return;
        }
    }
    client->begun = false;
    random_bytes(device, data, sizeof(data));
    if (client->left) {
        n = MIN(client->left, sizeof(data));
        client->left -= n;
    } else {
        client->left = upto(device, 5000);
        stl_le_p(data, 1);
        stl_le_p(data + 4, 1 + upto(device, 16));
        stl_le_p(data + 16, client->left);
        n = MIN(client->left + 20, sizeof(data));
        client->left -= n - 20;
    }
    switch (spice_vdagent_client_piece(client->vdagent, data, n, &buffer)) {
    case SPICE_VDAGENT_PASS:
        spice_flow_client_write(client->flow, &buffer);
        break;
    case SPICE_VDAGENT_DISCARD:
        spice_flow_client_cancel(client->flow);
        break;
    case SPICE_VDAGENT_ERROR:
        spice_flow_client_cancel(client->flow);
        client_leave(device, client);
        break;
    }
}

static void guard_hears(Device *device, SpiceFlowUsbredirDirection direction,
                        const uint8_t *packet, size_t len)
{
    SpiceFlowUsbredirSpans spans;

    spice_flow_usbredir_check(device->guard, direction, packet, len, &spans);
}

static size_t packet_head(uint8_t *packet, uint32_t type, uint32_t len,
                          uint32_t id)
{
    stl_le_p(packet, type);
    stl_le_p(packet + 4, len);
    stl_le_p(packet + 8, id);
    return 12 + len;
}

/* A packet that leaves something in the guard's state. */
static void usbredir_speaks(Device *device)
{
    uint8_t packet[12 + 132] = { 0 };
    uint8_t ep = 0x81 + upto(device, 3);
    uint32_t id = upto(device, 20);

    switch (upto(device, 8)) {
    case 0:
    case 1:
        for (int i = 0; i < 2; i++) {
            guard_hears(device, i, packet, packet_head(packet, 0, 64, 0));
        }
        break;
    case 2:
        packet[12] = 32;
        random_bytes(device, packet + 16, 128);
        guard_hears(device, SPICE_FLOW_USBREDIR_TO_GUEST, packet,
                    packet_head(packet, 4, 132, 0));
        break;
    case 3:
        random_bytes(device, packet + 12, 96);
        guard_hears(device, SPICE_FLOW_USBREDIR_TO_GUEST, packet,
                    packet_head(packet, 5, 96, 0));
        break;
    case 4:
        spice_flow_usbredir_set_behind(device->guard, upto(device, 2));
        break;
    default:
        packet[12] = ep;
        guard_hears(device, SPICE_FLOW_USBREDIR_TO_CLIENT, packet,
                    packet_head(packet, 101, 8, id));
    }
    if (upto(device, 200) == 0) {
        spice_flow_usbredir_reset(device->guard);
    }
}

static void client_speaks(Device *device, Client *client)
{
    g_autofree uint8_t *data = NULL;
    SpiceFlowBuffer buffer;
    size_t n;

    if (device->agent) {
        agent_speaks(device, client);
        return;
    }
    n = MIN(spice_flow_client_room(client->flow), upto(device, 4000));
    data = g_malloc(n + 1);
    random_bytes(device, data, n);
    buffer = (SpiceFlowBuffer) { .data = data, .len = n };
    if (n) {
        spice_flow_client_write(client->flow, &buffer);
    }
}

static void guest_speaks(Device *device)
{
    uint8_t data[3000];
    size_t n = 1 + upto(device, sizeof(data));
    SpiceVdagentPiece piece;
    SpiceFlowVscMessage message;
    size_t used;

    random_bytes(device, data, sizeof(data));
    if (device->agent) {
        if (!spice_vdagent_guest_error(device->agent)) {
            stl_le_p(data, 1 + upto(device, 2));
            stl_le_p(data + 4, n);
            stl_le_p(data + 8, 1);
            stl_le_p(data + 12, 1 + upto(device, 16));
            stl_le_p(data + 24, upto(device, 4000));
            spice_vdagent_feed(device->agent, data, n);
        }
        while (spice_vdagent_piece(device->agent, &piece) &&
               spice_flow_may_send(device->flow, piece.len)) {
            spice_flow_send(device->flow, piece.data, piece.len);
            spice_vdagent_piece_done(device->agent);
        }
    } else if (device->parser) {
        stl_be_p(data + 8, upto(device, 5000));
        spice_flow_vsc_feed(device->parser, data, n, &used, &message);
        if (spice_flow_may_send(device->flow, n)) {
            spice_flow_send(device->flow, data, n);
        }
    } else {
        spice_flow_send_stream(device->flow, data, n);
    }
}

static void step(Device *device)
{
    Client *client = &clients[upto(device, device->agent ? CLIENTS : 1)];

    if (device->guard) {
        usbredir_speaks(device);
    }
    switch (upto(device, 12)) {
    case 0:
        if (spice_flow_running(device->flow)) {
            spice_flow_stop(device->flow, 4000);
        } else {
            spice_flow_start(device->flow, 4000);
        }
        break;
    case 1:
        if (!client->flow) {
            client_join(device, client);
        } else if (upto(device, 6) == 0) {
            client_leave(device, client);
        }
        break;
    case 2:
    case 3:
        guest_speaks(device);
        break;
    case 4:
        spice_flow_guest_ready(device->flow);
        break;
    case 5:
        if (client->flow && device->agent) {
            spice_flow_client_tokens_add(client->flow, upto(device, 5));
        }
        break;
    case 6:
        if (client->flow) {
            spice_flow_client_sent(client->flow);
        }
        break;
    default:
        if (client->flow) {
            client_speaks(device, client);
        }
    }
}

void device_walk(Device *device, uint8_t type, GRand *rand)
{
    uint32_t steps;

    device_init(device, type, rand);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (Client) { .device = device, .id = 100 + i };
    }
    spice_flow_start(device->flow, 4000);
    steps = upto(device, STEPS);
    for (uint32_t i = 0; i < steps; i++) {
        step(device);
    }
    spice_flow_stop(device->flow, 4500);
    g_assert_null(spice_flow_check(device->flow));
}
