/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main channel: what a client is told of the VM and of the other channels,
 * and the agent's messages, which travel on it.
 *
 * INIT goes out first, before anything else may.  There is no display, so the
 * only mouse mode is the server's.  The channel list never names the main
 * channel itself, and lists after the first only add.
 */
#include "qemu/osdep.h"
#include "qemu/uuid.h"
#include "client.h"
#include "device.h"
#include "handover.h"
#include "chardev/spiceflow/vdagent.h"
#include "system/system.h"
#include "trace.h"

/* Largest piece of agent data: SPICE_AGENT_MAX_DATA_SIZE. */
#define AGENT_DATA_MAX      2048
/* What is ignored must be small all the same. */
#define IGNORED_MAX         256

static SFDevice *main_agent(SFClient *client)
{
    return client->server->agent;
}

/*
 * To client
 */

static void main_send_list(SFClient *client, GArray *list)
{
    GByteArray *body = g_byte_array_new();

    spice_flow_channels_list_encode(body, (SpiceFlowChannelId *)list->data,
                                    list->len);
    sf_channel_send(client->main, SPICE_MSG_MAIN_CHANNELS_LIST, body);
}

static void main_attach_channels(SFClient *client)
{
    g_autoptr(GArray) list = g_array_new(false, false,
                                         sizeof(SpiceFlowChannelId));
    SFEndpoint *endpoint;

    QTAILQ_FOREACH(endpoint, &client->server->endpoints, next) {
        SpiceFlowChannelId channel = { endpoint->type, endpoint->id };

        if (endpoint->type != SPICE_CHANNEL_MAIN) {
            g_array_append_val(list, channel);
        }
    }
    client->attached = true;
    main_send_list(client, list);
}

void sf_main_channel_add(SFClient *client, SpiceFlowChannelId channel)
{
    g_autoptr(GArray) list = g_array_new(false, false, sizeof(channel));

    if (client->attached) {
        g_array_append_val(list, channel);
        main_send_list(client, list);
    }
}

void sf_main_channel_agent_connected(SFClient *client)
{
    GByteArray *body;

    client->agent_unanswered++;
    if (!(sf_channel_info(client->main)->mess.channel_caps &
          BIT(SPICE_MAIN_CAP_AGENT_CONNECTED_TOKENS))) {
        sf_channel_send(client->main, SPICE_MSG_MAIN_AGENT_CONNECTED, NULL);
        return;
    }
    client->agent_window = client->server->agent_window;
    body = g_byte_array_new();
    spice_flow_wire_u32(body, client->agent_window);
    sf_channel_send(client->main, SPICE_MSG_MAIN_AGENT_CONNECTED_TOKENS, body);
}

void sf_main_channel_agent_disconnected(SFClient *client)
{
    GByteArray *body = g_byte_array_new();

    spice_flow_wire_u32(body, SPICE_LINK_ERR_OK);
    sf_channel_send(client->main, SPICE_MSG_MAIN_AGENT_DISCONNECTED, body);
}

void sf_main_channel_agent_tokens(SFClient *client, uint32_t n)
{
    GByteArray *body = g_byte_array_new();

    spice_flow_wire_u32(body, n);
    sf_channel_send(client->main, SPICE_MSG_MAIN_AGENT_TOKEN, body);
}

static void main_send_mouse_mode(SFClient *client)
{
    GByteArray *body = g_byte_array_new();

    spice_flow_mouse_mode_encode(body, SPICE_MOUSE_MODE_SERVER,
                                 SPICE_MOUSE_MODE_SERVER);
    sf_channel_send(client->main, SPICE_MSG_MAIN_MOUSE_MODE, body);
}

/*
 * From the client
 */

static SFBody main_agent_data_header(SFClient *client, uint32_t size)
{
    SFDevice *agent = main_agent(client);

    if (size > AGENT_DATA_MAX) {
        return SF_BODY_REFUSE;
    }
    if (agent && !agent->agent_ops->begin(agent, client)) {
        return SF_BODY_SKIP;
    }
    return SF_BODY_COLLECT;
}

/* There is no agent device, but there may be one before its message ends. */
static void main_agent_data_lost(SFClient *client, const uint8_t *data,
                                 size_t len)
{
    client->agent_owed++;
    client->agent_left = spice_vdagent_left_after(client->agent_left, data,
                                                  len);
}

static SFBody main_header(void *opaque, uint16_t type, uint32_t size)
{
    SFClient *client = opaque;

    switch (type) {
    case SPICE_MSGC_MAIN_ATTACH_CHANNELS:
        return size == 0 ? SF_BODY_COLLECT : SF_BODY_REFUSE;
    case SPICE_MSGC_MAIN_MOUSE_MODE_REQUEST:
        return size == 2 ? SF_BODY_COLLECT : SF_BODY_REFUSE;
    case SPICE_MSGC_MAIN_AGENT_START:
    case SPICE_MSGC_MAIN_AGENT_TOKEN:
        return size == 4 ? SF_BODY_COLLECT : SF_BODY_REFUSE;
    case SPICE_MSGC_MAIN_AGENT_DATA:
        return main_agent_data_header(client, size);
    case SPICE_MSGC_MAIN_MIGRATE_CONNECTED:
    case SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS:
    case SPICE_MSGC_MAIN_MIGRATE_CONNECT_ERROR:
        return size == 0 ? SF_BODY_COLLECT : SF_BODY_REFUSE;
    case SPICE_MSGC_MAIN_CLIENT_INFO:
    case SPICE_MSGC_MAIN_QUALITY_INDICATOR:
        return size <= IGNORED_MAX ? SF_BODY_SKIP : SF_BODY_REFUSE;
    default:
        return SF_BODY_REFUSE;
    }
}

static void main_message(void *opaque, uint16_t type, uint8_t *data,
                         size_t len)
{
    SFClient *client = opaque;
    SFDevice *agent = main_agent(client);

    switch (type) {
    case SPICE_MSGC_MAIN_ATTACH_CHANNELS:
        main_attach_channels(client);
        break;
    case SPICE_MSGC_MAIN_MOUSE_MODE_REQUEST:
        main_send_mouse_mode(client);
        break;
    case SPICE_MSGC_MAIN_AGENT_START:
        if (agent) {
            agent->agent_ops->start(agent, client, spice_flow_get_u32(data));
        }
        if (client->agent_unanswered) {
            client->agent_unanswered--;
        }
        break;
    case SPICE_MSGC_MAIN_AGENT_TOKEN:
        if (agent) {
            agent->agent_ops->tokens(agent, client, spice_flow_get_u32(data));
        }
        break;
    case SPICE_MSGC_MAIN_AGENT_DATA:
        if (agent) {
            agent->agent_ops->data(agent, client, data, len);
        } else {
            main_agent_data_lost(client, data, len);
        }
        break;
    case SPICE_MSGC_MAIN_MIGRATE_CONNECTED:
        sf_handover_answer(client, SF_MOVE_CONNECTED);
        break;
    case SPICE_MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS:
        sf_handover_answer(client, SF_MOVE_SEAMLESS);
        break;
    case SPICE_MSGC_MAIN_MIGRATE_CONNECT_ERROR:
        sf_handover_answer(client, SF_MOVE_REFUSED);
        break;
    }
}

static void main_received(void *opaque)
{
    SFClient *client = opaque;
    SFDevice *agent = main_agent(client);

    if (agent) {
        agent->agent_ops->received(agent, client);
    }
}

static void main_sent(void *opaque)
{
    SFClient *client = opaque;
    SFDevice *agent = main_agent(client);

    if (agent) {
        agent->agent_ops->sent(agent, client);
    } else if (client->agent_stale) {
        client->agent_stale--;
    }
}

static void main_closed(void *opaque)
{
    SFClient *client = opaque;

    sf_client_remove(client, sf_channel_reason(client->main),
                     sf_channel_why(client->main));
}

static const SFChannelOps main_channel_ops = {
    .header = main_header,
    .message = main_message,
    .received = main_received,
    .sent = main_sent,
    .closed = main_closed,
};

void sf_main_channel_start(SFClient *client)
{
    SFDevice *agent = main_agent(client);
    SpiceFlowMainInit init = {
        .session_id = client->id,
        .agent_connected = agent && agent->agent_ops->connected(agent),
        .agent_tokens = client->server->agent_window,
        .multi_media_time = g_get_monotonic_time() / 1000,
    };
    GByteArray *body = g_byte_array_new();

    client->agent_window = init.agent_tokens;
    client->agent_unanswered = init.agent_connected;
    spice_flow_main_init_encode(body, &init);
    sf_channel_send(client->main, SPICE_MSG_MAIN_INIT, body);
    if (sf_channel_info(client->main)->mess.channel_caps &
        BIT(SPICE_MAIN_CAP_NAME_AND_UUID)) {
        body = g_byte_array_new();
        spice_flow_main_name_encode(body, qemu_get_vm_name() ?: "");
        sf_channel_send(client->main, SPICE_MSG_MAIN_NAME, body);
        body = g_byte_array_new();
        g_byte_array_append(body, qemu_uuid.data, sizeof(qemu_uuid.data));
        sf_channel_send(client->main, SPICE_MSG_MAIN_UUID, body);
    }
    sf_channel_set_ops(client->main, &main_channel_ops, client);
}

void sf_main_channel_resume(SFClient *client)
{
    client->attached = true;
    sf_channel_set_ops(client->main, &main_channel_ops, client);
}
