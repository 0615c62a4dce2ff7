/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clients that follow the VM in a live migration: the target.  See handover.c.
 *
 * A client that has connected here before its VM is not registered: no device
 * knows it, and its channels are listened to only as far as the migration goes.
 * Who it is, it can only claim; what it is the owner of, the devices' state
 * says, which comes from the source.  So a claim without a state is a client
 * that waits in vain, and a state without a client that has come is lost: the
 * guest is told that its client is gone.
 */
#include "qemu/osdep.h"
#include "device.h"
#include "events.h"
#include "handover.h"
#include "trace.h"

static void client_set_move(SFClient *client, SFMove move)
{
    client->move = move;
    trace_spiceflow_handover(client->id, sf_handover_client_state(client));
}

SFClient *sf_handover_joining(SFServer *server, uint32_t id)
{
    SFClient *client;

    QTAILQ_FOREACH(client, &server->handover->joining, next) {
        if (client->id == id) {
            return client;
        }
    }
    return NULL;
}

/* It is not joining any more; what becomes of it is the caller's. */
static void joining_take(SFHandover *handover, SFClient *client)
{
    QTAILQ_REMOVE(&handover->joining, client, next);
    handover->num_joining--;
}

static void joining_remove(SFClient *client, SFReason reason, const char *why)
{
    if (client->removing) {
        return;
    }
    client->removing = true;
    trace_spiceflow_client_remove(client->id, why ?: sf_reason_text(reason));
    joining_take(client->server->handover, client);
    for (unsigned i = 0; i < client->channels->len; i++) {
        sf_channel_close(g_ptr_array_index(client->channels, i), reason, why);
    }
    sf_channel_close(client->main, reason, why);
    sf_client_free(client);
}

/*
 * Channels that wait for their VM
 */

static SFBody waiting_header(void *opaque, uint16_t type, uint32_t size)
{
    return SF_BODY_REFUSE;
}

/* What MIGRATE_DATA has brought waits for the device. */
static size_t waiting_room(void *opaque)
{
    return 0;
}

static void waiting_closed(void *opaque)
{
}

static const SFChannelOps waiting_channel_ops = {
    .header = waiting_header,
    .room = waiting_room,
    .closed = waiting_closed,
};

uint32_t sf_handover_may_open(SFClient *client, uint8_t type, uint8_t id)
{
    if (!sf_server_endpoint(client->server, type, id)) {
        return SPICE_LINK_ERR_CHANNEL_NOT_AVAILABLE;
    }
    for (unsigned i = 0; i < client->channels->len; i++) {
        SFChannel *channel = g_ptr_array_index(client->channels, i);
        const SpiceFlowLinkMess *mess = &sf_channel_info(channel)->mess;

        if (mess->channel_type == type && mess->channel_id == id &&
            !sf_channel_closed(channel)) {
            return SPICE_LINK_ERR_CHANNEL_NOT_AVAILABLE;
        }
    }
    return SPICE_LINK_ERR_OK;
}

void sf_handover_open(SFClient *client, SFChannel *channel)
{
    sf_client_add_channel(client, channel);
    sf_channel_await(channel, true);
    sf_channel_set_ops(channel, &waiting_channel_ops, client);
}

/*
 * The VM is here
 */

/* Gives a channel to its endpoint, which may be NULL, or closes it. */
typedef void ChannelGive(SFEndpoint *endpoint, SFClient *client,
                         SFChannel *channel);

static void client_hand_out(SFClient *client, ChannelGive *give)
{
    for (unsigned i = 0; i < client->channels->len; i++) {
        SFChannel *channel = g_ptr_array_index(client->channels, i);
        const SpiceFlowLinkMess *mess = &sf_channel_info(channel)->mess;

        if (!sf_channel_closed(channel)) {
            give(sf_server_endpoint(client->server, mess->channel_type,
                                    mess->channel_id), client, channel);
        }
    }
}

static void give_resumed(SFEndpoint *endpoint, SFClient *client,
                         SFChannel *channel)
{
    sf_event_channel_opened(client, channel);
    if (!(endpoint && endpoint->ops->resume(endpoint, client, channel))) {
        sf_channel_close(channel, SF_REASON_MIGRATION,
                         "the VM came without its state");
        sf_event_channel_closed(client, channel);
    }
}

static void give_new(SFEndpoint *endpoint, SFClient *client,
                     SFChannel *channel)
{
    sf_channel_await(channel, false);
    if (endpoint &&
        endpoint->ops->may_open(endpoint, client) == SPICE_LINK_ERR_OK) {
        sf_event_channel_opened(client, channel);
        endpoint->ops->open(endpoint, client, channel);
    } else {
        sf_channel_close(channel, SF_REASON_MIGRATION,
                         "the channel is not free");
    }
}

static void client_arrive(SFHandover *handover, SFClient *client)
{
    joining_take(handover, client);
    client_set_move(client, SF_MOVE_ARRIVING);
    sf_client_register(client);
    sf_main_channel_resume(client);
    client_hand_out(client, give_resumed);
}

/* Nothing is left of what it had: INIT, and its channels as new ones. */
static void client_begin(SFHandover *handover, SFClient *client)
{
    joining_take(handover, client);
    client_set_move(client, SF_MOVE_NONE);
    sf_client_register(client);
    sf_main_channel_start(client);
    client->attached = true;
    client_hand_out(client, give_new);
}

/* What was restored of clients that are not here is for nobody. */
static void devices_lose(SFServer *server)
{
    SFDevice *device;

    QTAILQ_FOREACH(device, &server->devices, next) {
        if (device->moving.num) {
            device->kind->lose(device);
            sf_moving_clear(&device->moving);
        }
    }
}

void sf_handover_arrive(SFHandover *handover)
{
    SFServer *server = handover->server;
    SFClient *client, *next;

    QTAILQ_FOREACH_SAFE(client, &handover->joining, next, next) {
        if (client->move == SF_MOVE_AGREED && client->listed) {
            client_arrive(handover, client);
        }
    }
    devices_lose(server);
    QTAILQ_FOREACH_SAFE(client, &handover->joining, next, next) {
        if (client->ended) {
            client_begin(handover, client);
        }
    }
    QTAILQ_FOREACH(client, &server->clients, next) {
        if (client->move == SF_MOVE_ARRIVING) {
            break;
        }
    }
    if (client || handover->num_joining) {
        timer_mod(handover->deadline,
                  sf_device_now() + server->migrate_timeout);
    }
}

void sf_handover_give_up_joining(SFHandover *handover)
{
    while (!QTAILQ_EMPTY(&handover->joining)) {
        handover->lost++;
        joining_remove(QTAILQ_FIRST(&handover->joining), SF_REASON_MIGRATION,
                       "its VM went on without it");
    }
}

bool sf_handover_give_way(SFHandover *handover)
{
    SFClient *client;

    if (runstate_check(RUN_STATE_INMIGRATE)) {
        return false;
    }
    QTAILQ_FOREACH(client, &handover->joining, next) {
        if (!client->listed) {
            handover->lost++;
            joining_remove(client, SF_REASON_REPLACED,
                           "its VM has come without it");
            return true;
        }
    }
    return false;
}

/*
 * Main channels that wait for their VM
 */

static SFBody joining_header(void *opaque, uint16_t type, uint32_t size)
{
    switch (type) {
    case SPICE_MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS:
        return size == 4 ? SF_BODY_COLLECT : SF_BODY_REFUSE;
    case SPICE_MSGC_MAIN_MIGRATE_END:
        return size == 0 ? SF_BODY_COLLECT : SF_BODY_REFUSE;
    default:
        return SF_BODY_REFUSE;
    }
}

static void joining_message(void *opaque, uint16_t type, uint8_t *data,
                            size_t len)
{
    SFClient *client = opaque;

    if (type == SPICE_MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS) {
        bool known = spice_flow_get_u32(data) == SPICE_FLOW_MIGRATE_VERSION;

        sf_channel_send(client->main,
                        known ? SPICE_MSG_MAIN_MIGRATE_DST_SEAMLESS_ACK
                              : SPICE_MSG_MAIN_MIGRATE_DST_SEAMLESS_NACK,
                        NULL);
        if (known) {
            client_set_move(client, SF_MOVE_AGREED);
            sf_channel_await(client->main, true);
        }
        return;
    }
    client->ended = true;
    if (!runstate_check(RUN_STATE_INMIGRATE)) {
        client_begin(client->server->handover, client);
    }
}

static size_t joining_room(void *opaque)
{
    SFClient *client = opaque;

    return client->move == SF_MOVE_JOINING && !client->ended ? SIZE_MAX : 0;
}

static void joining_closed(void *opaque)
{
    joining_remove(opaque, SF_REASON_LEFT, NULL);
}

static const SFChannelOps joining_channel_ops = {
    .header = joining_header,
    .message = joining_message,
    .room = joining_room,
    .closed = joining_closed,
};

/* There may be one too many: a client that connected before by itself. */
static bool make_room(SFHandover *handover)
{
    SFServer *server = handover->server;

    while (server->num_clients + handover->num_joining >=
           server->max_clients) {
        if (server->max_clients > 1) {
            return false;
        }
        if (server->num_clients) {
            sf_client_remove(QTAILQ_FIRST(&server->clients),
                             SF_REASON_REPLACED,
                             "a client that follows its VM takes its place");
        } else {
            joining_remove(QTAILQ_FIRST(&handover->joining),
                           SF_REASON_REPLACED, NULL);
        }
    }
    return true;
}

uint32_t sf_handover_may_join(SFServer *server, uint32_t id)
{
    SFClient *old = sf_handover_joining(server, id);

    if (!runstate_check(RUN_STATE_INMIGRATE) || sf_server_client(server, id)) {
        return SPICE_LINK_ERR_BAD_CONNECTION_ID;
    }
    if (old) {
        joining_remove(old, SF_REASON_REPLACED, "it has connected anew");
    }
    return make_room(server->handover) ? SPICE_LINK_ERR_OK
                                       : SPICE_LINK_ERR_PERMISSION_DENIED;
}

void sf_handover_join(SFServer *server, uint32_t id, SFChannel *main)
{
    SFClient *client = sf_client_alloc(server, id, main);

    QTAILQ_INSERT_TAIL(&server->handover->joining, client, next);
    server->handover->num_joining++;
    client_set_move(client, SF_MOVE_JOINING);
    sf_channel_set_ops(main, &joining_channel_ops, client);
}

/*
 * What the devices' state says
 */

void sf_handover_list(SFServer *server, const SFMoving *moving)
{
    for (uint32_t i = 0; i < moving->num; i++) {
        SFClient *client = sf_handover_joining(server, moving->clients[i].id);

        if (client && client->move == SF_MOVE_AGREED) {
            client->listed = true;
            client->agent_unanswered = moving->clients[i].unanswered;
        }
    }
}

SFClient *sf_handover_awaited(SFDevice *device, uint32_t id)
{
    const SFMoving *moving = &device->moving;
    SFClient *client = sf_handover_joining(device->server, id);

    if (!client || !client->listed ||
        moving->place != sf_device_place(device)) {
        return NULL;
    }
    for (uint32_t i = 0; i < moving->num; i++) {
        if (moving->clients[i].id == id) {
            return client;
        }
    }
    return NULL;
}
