/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clients that follow the VM in a live migration: the source.  See handover.c.
 */
#include "qemu/osdep.h"
#include "device.h"
#include "handover.h"
#include "trace.h"

static unsigned client_open_channels(const SFClient *client)
{
    unsigned n = 0;

    for (unsigned i = 0; i < client->channels->len; i++) {
        n += !sf_channel_closed(g_ptr_array_index(client->channels, i));
    }
    return n;
}

/*
 * The target knows the channels that the client had when it connected there.
 * With others than those it can not be told to go on.
 */
static bool client_unchanged(const SFClient *client)
{
    return client->opened == client->move_opened &&
           client_open_channels(client) == client->move_open &&
           !sf_channel_closed(client->main);
}

static bool client_has_cap(const SFClient *client, unsigned cap)
{
    return sf_channel_info(client->main)->mess.channel_caps & BIT(cap);
}

static void client_set_move(SFClient *client, SFMove move)
{
    client->move = move;
    trace_spiceflow_handover(client->id, sf_handover_client_state(client));
}

static void client_each_channel(SFClient *client, void (*fn)(SFChannel *))
{
    fn(client->main);
    for (unsigned i = 0; i < client->channels->len; i++) {
        fn(g_ptr_array_index(client->channels, i));
    }
}

/*
 * Ask
 */

static void client_ask(SFHandover *handover, SFClient *client)
{
    bool seamless = client_has_cap(client, SPICE_MAIN_CAP_SEAMLESS_MIGRATE);
    GByteArray *body;

    if (!seamless &&
        !client_has_cap(client, SPICE_MAIN_CAP_SEMI_SEAMLESS_MIGRATE)) {
        return;
    }
    client->move_opened = client->opened;
    client->move_open = client_open_channels(client);
    client->move_questions++;
    client_set_move(client, SF_MOVE_ASKED);
    body = g_byte_array_new();
    spice_flow_migrate_begin_encode(body, &handover->where, seamless ?
                                    SPICE_FLOW_MIGRATE_VERSION : 0);
    sf_channel_send(client->main,
                    seamless ? SPICE_MSG_MAIN_MIGRATE_BEGIN_SEAMLESS
                             : SPICE_MSG_MAIN_MIGRATE_BEGIN, body);
}

static void client_cancel(SFClient *client)
{
    SFDevice *agent = client->server->agent;
    bool frozen = client->move == SF_MOVE_FROZEN;

    if (client->move == SF_MOVE_NONE || client->move >= SF_MOVE_LEAVING) {
        return;
    }
    client_each_channel(client, sf_channel_thaw);
    client_set_move(client, SF_MOVE_NONE);
    sf_channel_send(client->main, SPICE_MSG_MAIN_MIGRATE_CANCEL, NULL);
    /* What the agent had to say meanwhile. */
    if (frozen && agent) {
        agent->agent_ops->received(agent, client);
    }
}

void sf_handover_answer(SFClient *client, SFMove move)
{
    /* Each question gets an answer; only that to the last one counts. */
    if (client->move_questions == 0 || --client->move_questions ||
        client->move != SF_MOVE_ASKED) {
        return;
    }
    client_set_move(client, move);
}

void sf_handover_ask_all(SFHandover *handover)
{
    SFClient *client;

    if (!handover->target) {
        return;
    }
    QTAILQ_FOREACH(client, &handover->server->clients, next) {
        if (client->move == SF_MOVE_REFUSED || !client_unchanged(client)) {
            client_cancel(client);
        }
        if (sf_handover_move(client) == SF_MOVE_NONE) {
            client_ask(handover, client);
        }
    }
}

void sf_handover_cancel_all(SFHandover *handover)
{
    SFClient *client;

    QTAILQ_FOREACH(client, &handover->server->clients, next) {
        client_cancel(client);
    }
}

/*
 * Save
 */

static bool client_may_go_on(const SFClient *client)
{
    return client->move == SF_MOVE_FROZEN ||
           (client->move == SF_MOVE_SEAMLESS && client_unchanged(client));
}

bool sf_handover_saves(const SFServer *server)
{
    SFClient *client;

    if (!server->handover->active) {
        return false;
    }
    QTAILQ_FOREACH(client, &server->clients, next) {
        if (client_may_go_on(client)) {
            return true;
        }
    }
    return false;
}

/* All devices are saved at one time: the first one freezes for all. */
static void handover_freeze(SFHandover *handover)
{
    SFClient *client;

    if (handover->frozen) {
        return;
    }
    handover->frozen = true;
    QTAILQ_FOREACH(client, &handover->server->clients, next) {
        if (client_may_go_on(client)) {
            client_each_channel(client, sf_channel_freeze);
            client_set_move(client, SF_MOVE_FROZEN);
        }
    }
}

void sf_handover_save(SFServer *server, SFMoving *moving)
{
    SFClient *client;

    if (!server->handover->active || !server->handover->target) {
        return;
    }
    handover_freeze(server->handover);
    moving->clients = g_new0(SFMovingClient, server->num_clients);
    QTAILQ_FOREACH(client, &server->clients, next) {
        if (client->move == SF_MOVE_FROZEN) {
            moving->clients[moving->num++] = (SFMovingClient) {
                .id = client->id,
                .unanswered = client->agent_unanswered,
            };
        }
    }
}

/*
 * Send
 */

static void client_switch_host(SFHandover *handover, SFClient *client)
{
    GByteArray *body;

    client_cancel(client);
    /* A client on a UNIX socket would come back to that one. */
    if (sf_channel_info(client->main)->local) {
        sf_client_remove(client, SF_REASON_MIGRATION, NULL);
        return;
    }
    body = g_byte_array_new();
    spice_flow_switch_host_encode(body, &handover->where);
    sf_channel_send(client->main, SPICE_MSG_MAIN_MIGRATE_SWITCH_HOST, body);
    client_set_move(client, SF_MOVE_LEAVING);
}

static void client_send(SFHandover *handover, SFClient *client)
{
    if (client->move == SF_MOVE_FROZEN) {
        client_set_move(client, SF_MOVE_LEAVING);
        client_each_channel(client, sf_channel_hand_over);
    } else if (client->move == SF_MOVE_CONNECTED && client_unchanged(client)) {
        client_set_move(client, SF_MOVE_LEAVING);
        sf_channel_send(client->main, SPICE_MSG_MAIN_MIGRATE_END, NULL);
    } else {
        client_switch_host(handover, client);
    }
}

void sf_handover_send_all(SFHandover *handover)
{
    SFClient *client, *next;

    /* Without a target the VM may be in a file, and go on here. */
    if (!handover->target) {
        return;
    }
    QTAILQ_FOREACH_SAFE(client, &handover->server->clients, next, next) {
        client_send(handover, client);
    }
    timer_mod(handover->deadline, sf_device_now() +
                                  handover->server->migrate_timeout);
}
