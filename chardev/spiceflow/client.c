/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One SPICE client.
 *
 * A client lives as long as its main channel.  Its other channels belong to
 * the devices they opened; when the client goes, each device that it uses is
 * asked to drop it.
 *
 * On TCP a peer may vanish without a word.  A ping every PING_INTERVAL makes
 * sure that something is on its way to it; a machine that has not acknowledged
 * anything for SILENCE_MAX is taken for gone; earlier when the server's
 * stall-timeout is shorter than that.  A client that is merely stopped or slow
 * acknowledges and stays.
 */
#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "client.h"
#include "device.h"
#include "events.h"
#include "trace.h"

#define PING_INTERVAL       5000    /* ms */
#define SILENCE_MAX         20000   /* ms */

static uint32_t client_silence_max(const SFClient *client)
{
    return MIN(SILENCE_MAX, client->server->stall_timeout);
}

static int64_t client_next_ping(const SFClient *client)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
           MIN(PING_INTERVAL, client_silence_max(client) / 4 + 1);
}

static void client_keepalive(void *opaque)
{
    SFClient *client = opaque;
    GByteArray *body;

    if (sf_channel_silent_for(client->main) > client_silence_max(client)) {
        sf_client_remove(client, SF_REASON_VANISHED, NULL);
        return;
    }
    /* One ping on its way is enough; a stopped client reads none. */
    if (sf_channel_queued(client->main) == 0) {
        body = g_byte_array_new();
        spice_flow_ping_encode(body, ++client->pings, g_get_monotonic_time());
        sf_channel_send(client->main, SPICE_MSG_PING, body);
    }
    timer_mod(client->keepalive, client_next_ping(client));
}

SFClient *sf_client_alloc(SFServer *server, uint32_t id, SFChannel *main)
{
    SFClient *client = g_new0(SFClient, 1);

    client->server = server;
    client->id = id;
    client->main = sf_channel_ref(main);
    client->channels = g_ptr_array_new_with_free_func(
        (GDestroyNotify)sf_channel_unref);
    return client;
}

void sf_client_register(SFClient *client)
{
    SFServer *server = client->server;
    SFEndpoint *endpoint;

    QTAILQ_INSERT_TAIL(&server->clients, client, next);
    server->num_clients++;
    trace_spiceflow_client_new(client->id, sf_channel_info(client->main)->peer);
    sf_event_client_connected(client);
    QTAILQ_FOREACH(endpoint, &server->endpoints, next) {
        if (endpoint->ops->client_new) {
            endpoint->ops->client_new(endpoint, client);
        }
    }
    if (!sf_channel_info(client->main)->local) {
        client->keepalive = timer_new_ms(QEMU_CLOCK_REALTIME, client_keepalive,
                                         client);
        timer_mod(client->keepalive, client_next_ping(client));
    }
}

SFClient *sf_client_new(SFServer *server, uint32_t id, SFChannel *main)
{
    SFClient *client = sf_client_alloc(server, id, main);

    sf_client_register(client);
    sf_main_channel_start(client);
    return client;
}

void sf_client_add_channel(SFClient *client, SFChannel *channel)
{
    for (unsigned i = client->channels->len; i-- > 0;) {
        if (sf_channel_closed(g_ptr_array_index(client->channels, i))) {
            g_ptr_array_remove_index(client->channels, i);
        }
    }
    g_ptr_array_add(client->channels, sf_channel_ref(channel));
    client->opened++;
}

void sf_client_free(SFClient *client)
{
    timer_free(client->keepalive);
    sf_channel_unref(client->main);
    g_ptr_array_unref(client->channels);
    g_free(client);
}

void sf_client_remove(SFClient *client, SFReason reason, const char *why)
{
    SFServer *server = client->server;
    SFEndpoint *endpoint, *next;

    if (client->removing) {
        return;
    }
    client->removing = true;
    if (client->move == SF_MOVE_LEAVING && reason == SF_REASON_LEFT) {
        reason = SF_REASON_MIGRATION;
    }
    client->reason = reason;
    client->why = why ?: sf_reason_text(reason);
    trace_spiceflow_client_remove(client->id, client->why);
    QTAILQ_REMOVE(&server->clients, client, next);
    server->num_clients--;
    QTAILQ_FOREACH_SAFE(endpoint, &server->endpoints, next, next) {
        endpoint->ops->client_gone(endpoint, client);
    }
    sf_channel_close(client->main, reason, why);
    sf_event_client_removed(client);
    sf_client_free(client);
}

void sf_client_notify(SFClient *client, uint32_t severity, const char *text)
{
    GByteArray *body = g_byte_array_new();

    spice_flow_notify_encode(body, g_get_real_time() * 1000, severity, text);
    sf_channel_send(client->main, SPICE_MSG_NOTIFY, body);
}
