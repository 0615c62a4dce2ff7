/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clients that follow the VM in a live migration.
 *
 * Three ways, of which each client is given the best that it and the two
 * servers are capable of:
 *
 *   seamless      the client connects to the target beforehand.  The devices'
 *                 state of it travels with the VM; what it sent since that was
 *                 saved, it brings along itself.  Nothing is lost or repeated
 *   semi-seamless it connects beforehand, and begins anew there when told
 *   switch-host   it is told where to go, and comes as a new client
 *
 * Source: MIGRATE_BEGIN(_SEAMLESS) when a target is set or a migration begins,
 * the client's answer, and at the end of the migration MIGRATE on each channel,
 * MIGRATE_END or MIGRATE_SWITCH_HOST; after a migration that failed
 * MIGRATE_CANCEL.  Nothing waits for a client: who has not answered by then
 * gets the next way.
 *
 * Target: a client that comes with a connection id while the VM is not here is
 * joining.  When the VM starts, it goes on, begins anew, or waits for
 * MIGRATE_END.
 *
 * Management ends the source as soon as it knows the VM at the target, which
 * may be before the clients have been told all.  So when QEMU is to end, the
 * main loop goes on for a moment; it does so only with clients that leave.
 *
 * The end of a migration is told on QEMU's migration thread when it is the
 * switch to postcopy, so it is left to the main loop.  QEMU may tell it twice,
 * and has started the VM again when it tells that a migration failed.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "device.h"
#include "handover.h"
#include "trace.h"

/* Before that of the devices: see device.c. */
#define RUN_STATE_PRIORITY  900
/* ms that the end of this QEMU waits for clients that are about to leave. */
#define EXIT_WAIT_MAX       1000

static const char *const move_names[] = {
    [SF_MOVE_NONE] = "none",
    [SF_MOVE_ASKED] = "asked",
    [SF_MOVE_REFUSED] = "refused",
    [SF_MOVE_CONNECTED] = "connected",
    [SF_MOVE_SEAMLESS] = "seamless",
    [SF_MOVE_FROZEN] = "moving",
    [SF_MOVE_LEAVING] = "leaving",
    [SF_MOVE_JOINING] = "joining",
    [SF_MOVE_AGREED] = "joining",
    [SF_MOVE_ARRIVING] = "arriving",
};

static bool client_arriving(const SFClient *client)
{
    bool arriving = sf_channel_awaits(client->main);

    for (unsigned i = 0; i < client->channels->len; i++) {
        SFChannel *channel = g_ptr_array_index(client->channels, i);

        arriving |= !sf_channel_closed(channel) && sf_channel_awaits(channel);
    }
    return arriving;
}

SFMove sf_handover_move(SFClient *client)
{
    if (client->move == SF_MOVE_ARRIVING && !client_arriving(client)) {
        client->move = SF_MOVE_NONE;
    }
    return client->move;
}

/*
 * Target address
 */

/* Split HOST:PORT or [ADDRESS]:PORT. */
static bool target_parse(const char *text, char **host, uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon ? colon - text : 0;
    unsigned number;

    if (len == 0 || qemu_strtoui(colon + 1, NULL, 10, &number) < 0 ||
        !g_ascii_isdigit(colon[1]) || number == 0 || number > UINT16_MAX) {
        return false;
    }
    if (text[0] == '[' && colon[-1] == ']') {
        text++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return false;
    }
    if (len == 0 || memchr(text, '/', len)) {
        return false;
    }
    *host = g_strndup(text, len);
    *port = number;
    return true;
}

bool sf_handover_check_target(const char *text, Error **errp)
{
    g_autofree char *host = NULL;
    uint16_t port;

    if (*text && !target_parse(text, &host, &port)) {
        error_setg(errp, "migrate-target: '%s' is not HOST:PORT, and clients "
                   "can not follow to anything else", text);
        return false;
    }
    return true;
}

bool sf_handover_set_target(SFHandover *handover, const char *text,
                            Error **errp)
{
    uint16_t port = 0;

    if (handover->frozen) {
        error_setg(errp, "migrate-target: can not be changed while the VM is "
                   "on its way");
        return false;
    }
    sf_handover_cancel_all(handover);
    g_clear_pointer(&handover->target, g_free);
    g_clear_pointer(&handover->host, g_free);
    if (text && *text && target_parse(text, &handover->host, &port)) {
        bool tls = handover->server->tls_creds;

        handover->target = g_strdup(text);
        handover->where = (SpiceFlowTarget) {
            .host = handover->host,
            .port = tls ? 0 : port,
            .tls_port = tls ? port : 0,
        };
        sf_handover_ask_all(handover);
    }
    return true;
}

/*
 * Events
 */

static void handover_end(SFHandover *handover)
{
    if (!handover->active) {
        return;
    }
    handover->active = false;
    handover->frozen = false;
    if (handover->ended == MIG_EVENT_PRECOPY_DONE) {
        sf_handover_send_all(handover);
    } else {
        sf_handover_cancel_all(handover);
    }
}

static void handover_ending(void *opaque)
{
    handover_end(opaque);
}

static int handover_migration(NotifierWithReturn *notifier,
                              MigrationEvent *event, Error **errp)
{
    SFHandover *handover = container_of(notifier, SFHandover, migration);

    if (event->type != MIG_EVENT_PRECOPY_SETUP) {
        handover->ended = event->type;
        qemu_bh_schedule(handover->ending);
        return 0;
    }
    qemu_bh_cancel(handover->ending);
    handover_end(handover);
    handover->active = true;
    sf_handover_ask_all(handover);
    return 0;
}

static bool handover_unfinished(SFHandover *handover)
{
    SFClient *client;

    QTAILQ_FOREACH(client, &handover->server->clients, next) {
        if (client->move == SF_MOVE_FROZEN || client->move == SF_MOVE_LEAVING) {
            return true;
        }
    }
    return false;
}

static void handover_wake(void *opaque)
{
}

static void handover_shutdown(Notifier *notifier, void *data)
{
    SFHandover *handover = container_of(notifier, SFHandover, shutdown);
    int64_t end = sf_device_now() + EXIT_WAIT_MAX;
    QEMUTimer *wake;

    if (!handover_unfinished(handover)) {
        return;
    }
    wake = timer_new_ms(QEMU_CLOCK_REALTIME, handover_wake, NULL);
    timer_mod(wake, end);
    while (handover_unfinished(handover) && sf_device_now() < end) {
        main_loop_wait(false);
    }
    timer_free(wake);
}

static void handover_run_state(void *opaque, bool running, RunState state)
{
    if (running) {
        sf_handover_arrive(opaque);
    }
}

/* A channel alone may have broken on the way; then the others go on. */
static void client_give_up(SFClient *client)
{
    static const char why[] = "what it was to bring did not come";

    if (sf_channel_awaits(client->main)) {
        sf_client_remove(client, SF_REASON_MIGRATION, why);
        return;
    }
    for (unsigned i = 0; i < client->channels->len; i++) {
        SFChannel *channel = g_ptr_array_index(client->channels, i);

        if (sf_channel_awaits(channel)) {
            sf_channel_close(channel, SF_REASON_MIGRATION, why);
        }
    }
}

static void handover_deadline(void *opaque)
{
    SFHandover *handover = opaque;
    SFClient *client, *next;

    sf_handover_give_up_joining(handover);
    QTAILQ_FOREACH_SAFE(client, &handover->server->clients, next, next) {
        SFMove move = sf_handover_move(client);

        if (move == SF_MOVE_LEAVING) {
            handover->lost++;
            sf_client_remove(client, SF_REASON_MIGRATION,
                             "it does not go to the target");
        } else if (move == SF_MOVE_ARRIVING) {
            handover->lost++;
            client_give_up(client);
        }
    }
}

/*
 * To be seen
 */
const char *sf_handover_client_state(SFClient *client)
{
    return move_names[sf_handover_move(client)];
}

static unsigned count(SFHandover *handover, SFMove move)
{
    SFClient *client;
    unsigned n = 0;

    QTAILQ_FOREACH(client, &handover->server->clients, next) {
        n += sf_handover_move(client) == move;
    }
    return n;
}

QDict *sf_handover_stats(SFHandover *handover)
{
    QDict *dict = qdict_new();

    qdict_put_int(dict, "asked", count(handover, SF_MOVE_ASKED));
    qdict_put_int(dict, "refused", count(handover, SF_MOVE_REFUSED));
    qdict_put_int(dict, "connected", count(handover, SF_MOVE_CONNECTED));
    qdict_put_int(dict, "seamless", count(handover, SF_MOVE_SEAMLESS));
    qdict_put_int(dict, "moving", count(handover, SF_MOVE_FROZEN));
    qdict_put_int(dict, "leaving", count(handover, SF_MOVE_LEAVING));
    qdict_put_int(dict, "arriving", count(handover, SF_MOVE_ARRIVING));
    qdict_put_int(dict, "joining", handover->num_joining);
    qdict_put_int(dict, "lost", handover->lost);
    qdict_put_bool(dict, "active", handover->active);
    return dict;
}

/*
 * Life
 */

SFHandover *sf_handover_new(SFServer *server)
{
    SFHandover *handover = g_new0(SFHandover, 1);

    handover->server = server;
    QTAILQ_INIT(&handover->joining);
    handover->ending = qemu_bh_new(handover_ending, handover);
    handover->deadline = timer_new_ms(QEMU_CLOCK_REALTIME, handover_deadline,
                                      handover);
    handover->run_state =
        qemu_add_vm_change_state_handler_prio(handover_run_state, handover,
                                              RUN_STATE_PRIORITY);
    migration_add_notifier(&handover->migration, handover_migration);
    handover->shutdown.notify = handover_shutdown;
    qemu_register_shutdown_notifier(&handover->shutdown);
    return handover;
}

void sf_handover_free(SFHandover *handover)
{
    if (!handover) {
        return;
    }
    sf_handover_give_up_joining(handover);
    notifier_remove(&handover->shutdown);
    migration_remove_notifier(&handover->migration);
    qemu_del_vm_change_state_handler(handover->run_state);
    qemu_bh_delete(handover->ending);
    timer_free(handover->deadline);
    g_free(handover->target);
    g_free(handover->host);
    g_free(handover);
}
