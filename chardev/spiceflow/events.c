/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QMP events.  This file alone knows how they look to QEMU.
 *
 * What happens is noted in a queue, and told by a bottom half: some of it
 * happens inside a frontend's write, on a vCPU's thread, and what is told
 * must be in order.
 *
 * Peers decide how often most of it happens, and QEMU keeps events without a
 * limit for a monitor that does not read.  So of each kind BURST may come at
 * once and RATE per second in the long run; the next one that is told says how
 * many were not.  QEMU's own throttling would keep the last of a second, and
 * of all servers together.
 */
#include "qemu/osdep.h"
#include "qapi/qapi-events-char.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "qemu/timer.h"
#include "device.h"
#include "events.h"
#include "trace.h"

#define BURST               100
#define RATE                20

typedef enum {
    EVENT_CLIENT_CONNECTED,
    EVENT_CLIENT_REMOVED,
    EVENT_CHANNEL_OPENED,
    EVENT_CHANNEL_CLOSED,
    EVENT_DEVICE_CLAIMED,
    EVENT_DEVICE_RELEASED,
    EVENT_LINK_REFUSED,
    EVENT_TRANSFER
} SFEventKind;

#define EVENT_KINDS         (EVENT_TRANSFER + 1)

/* An event that waits; what its kind does not have is 0. */
typedef struct SFEvent {
    SFEventKind kind;
    uint64_t suppressed;
    uint32_t client;
    uint8_t channel_type;
    uint8_t channel_id;
    bool tls;
    SFReason reason;
    SFRefusal refusal;
    SpiceVdagentTransfer transfer;
    char *peer;
    char *why;
    char *device;
    char *name;
    QSIMPLEQ_ENTRY(SFEvent) next;
} SFEvent;

/* How many of a kind may still come. */
typedef struct SFAllowance {
    int64_t credit;             /* thousandths of an event */
    int64_t since;              /* ms */
    uint64_t suppressed;        /* not told of yet */
} SFAllowance;

struct SFEvents {
    char *id;
    QEMUBH *bh;
    QSIMPLEQ_HEAD(, SFEvent) queue;
    SFAllowance allowance[EVENT_KINDS];
    uint64_t suppressed;
    uint64_t refused[SF_REFUSAL__MAX];
    char *last_peer;
    char *last_why;
    SFRefusal last_refusal;
};

static const SpiceflowReason reasons[SF_REASON__MAX] = {
    [SF_REASON_LEFT] = SPICEFLOW_REASON_LEFT,
    [SF_REASON_VANISHED] = SPICEFLOW_REASON_VANISHED,
    [SF_REASON_STALLED] = SPICEFLOW_REASON_STALLED,
    [SF_REASON_OVERFLOW] = SPICEFLOW_REASON_OVERFLOW,
    [SF_REASON_TOKEN_VIOLATION] = SPICEFLOW_REASON_TOKEN_VIOLATION,
    [SF_REASON_PROTOCOL_ERROR] = SPICEFLOW_REASON_PROTOCOL_ERROR,
    [SF_REASON_REPLACED] = SPICEFLOW_REASON_REPLACED,
    [SF_REASON_MIGRATION] = SPICEFLOW_REASON_MIGRATION,
    [SF_REASON_GUEST_CLOSED] = SPICEFLOW_REASON_GUEST_CLOSED,
    [SF_REASON_GUEST_REPLACED] = SPICEFLOW_REASON_GUEST_REPLACED,
    [SF_REASON_DEVICE_DELETED] = SPICEFLOW_REASON_DEVICE_DELETED,
    [SF_REASON_SERVER_DELETED] = SPICEFLOW_REASON_SERVER_DELETED,
};

static const SpiceflowRefusal refusals[SF_REFUSAL__MAX] = {
    [SF_REFUSAL_AUTHENTICATION] = SPICEFLOW_REFUSAL_AUTHENTICATION,
    [SF_REFUSAL_TLS_REQUIRED] = SPICEFLOW_REFUSAL_TLS_REQUIRED,
    [SF_REFUSAL_TLS_FAILED] = SPICEFLOW_REFUSAL_TLS_FAILED,
    [SF_REFUSAL_MAX_CLIENTS] = SPICEFLOW_REFUSAL_MAX_CLIENTS,
    [SF_REFUSAL_UNKNOWN_CLIENT] = SPICEFLOW_REFUSAL_UNKNOWN_CLIENT,
    [SF_REFUSAL_NO_SUCH_CHANNEL] = SPICEFLOW_REFUSAL_NO_SUCH_CHANNEL,
    [SF_REFUSAL_CHANNEL_BUSY] = SPICEFLOW_REFUSAL_CHANNEL_BUSY,
    [SF_REFUSAL_TIMEOUT] = SPICEFLOW_REFUSAL_TIMEOUT,
    [SF_REFUSAL_TOO_MANY_LINKS] = SPICEFLOW_REFUSAL_TOO_MANY_LINKS,
    [SF_REFUSAL_PROTOCOL_ERROR] = SPICEFLOW_REFUSAL_PROTOCOL_ERROR,
};

static const SpiceflowOutcome outcomes[SPICE_VDAGENT_OUTCOME__MAX] = {
    [SPICE_VDAGENT_PASSED] = SPICEFLOW_OUTCOME_PASSED,
    [SPICE_VDAGENT_REFUSED_POLICY] = SPICEFLOW_OUTCOME_REFUSED_POLICY,
    [SPICE_VDAGENT_REFUSED_SIZE] = SPICEFLOW_OUTCOME_REFUSED_SIZE,
    [SPICE_VDAGENT_REFUSED_NUMBER] = SPICEFLOW_OUTCOME_REFUSED_NUMBER,
    [SPICE_VDAGENT_CANCELLED] = SPICEFLOW_OUTCOME_CANCELLED,
};

/*
 * Out
 */

static void tell_transfer(SFEvents *events, const SFEvent *event)
{
    const SpiceVdagentTransfer *t = &event->transfer;

    qapi_event_send_spiceflow_transfer(
        events->id, event->suppressed != 0, event->suppressed, event->device,
        t->file ? SPICEFLOW_TRANSFER_KIND_FILE
                : SPICEFLOW_TRANSFER_KIND_CLIPBOARD,
        t->to_guest ? SPICEFLOW_DIRECTION_TO_GUEST
                    : SPICEFLOW_DIRECTION_TO_CLIENT,
        outcomes[t->outcome], t->client != 0, t->client, t->has_bytes,
        t->bytes);
}

static void event_tell(SFEvents *events, const SFEvent *event)
{
    const char *server = events->id;
    bool has_suppressed = event->suppressed != 0;

    switch (event->kind) {
    case EVENT_CLIENT_CONNECTED:
        qapi_event_send_spiceflow_client_connected(
            server, has_suppressed, event->suppressed, event->client,
            event->peer, event->tls);
        break;
    case EVENT_CLIENT_REMOVED:
        qapi_event_send_spiceflow_client_removed(
            server, has_suppressed, event->suppressed, event->client,
            event->peer, reasons[event->reason], event->why);
        break;
    case EVENT_CHANNEL_OPENED:
        qapi_event_send_spiceflow_channel_opened(
            server, has_suppressed, event->suppressed, event->client,
            event->channel_type, event->channel_id, event->tls);
        break;
    case EVENT_CHANNEL_CLOSED:
        qapi_event_send_spiceflow_channel_closed(
            server, has_suppressed, event->suppressed, event->client,
            event->channel_type, event->channel_id, reasons[event->reason],
            event->why);
        break;
    case EVENT_DEVICE_CLAIMED:
        qapi_event_send_spiceflow_device_claimed(
            server, has_suppressed, event->suppressed, event->device,
            event->name, event->client);
        break;
    case EVENT_DEVICE_RELEASED:
        qapi_event_send_spiceflow_device_released(
            server, has_suppressed, event->suppressed, event->device,
            event->name, event->client, reasons[event->reason], event->why);
        break;
    case EVENT_LINK_REFUSED:
        qapi_event_send_spiceflow_link_refused(
            server, has_suppressed, event->suppressed, event->peer,
            refusals[event->refusal], event->why);
        break;
    case EVENT_TRANSFER:
        tell_transfer(events, event);
        break;
    }
}

static void event_free(SFEvent *event)
{
    g_free(event->peer);
    g_free(event->why);
    g_free(event->device);
    g_free(event->name);
    g_free(event);
}

static void events_tell(void *opaque)
{
    SFEvents *events = opaque;
    SFEvent *event;

    while ((event = QSIMPLEQ_FIRST(&events->queue)) != NULL) {
        QSIMPLEQ_REMOVE_HEAD(&events->queue, next);
        event_tell(events, event);
        event_free(event);
    }
}

/*
 * In
 */

static bool allowed(SFAllowance *allowance)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    allowance->credit = MIN(allowance->credit +
                            (now - allowance->since) * RATE, BURST * 1000);
    allowance->since = now;
    if (allowance->credit < 1000) {
        return false;
    }
    allowance->credit -= 1000;
    return true;
}

/* A new event, in the queue already; NULL when it is one too many. */
static SFEvent *event_new(SFEvents *events, SFEventKind kind)
{
    SFAllowance *allowance;
    SFEvent *event;

    if (!events) {
        return NULL;
    }
    allowance = &events->allowance[kind];
    if (!allowed(allowance)) {
        allowance->suppressed++;
        events->suppressed++;
        return NULL;
    }
    event = g_new0(SFEvent, 1);
    event->kind = kind;
    event->suppressed = allowance->suppressed;
    allowance->suppressed = 0;
    QSIMPLEQ_INSERT_TAIL(&events->queue, event, next);
    qemu_bh_schedule(events->bh);
    return event;
}

static char *event_why(SFReason reason, const char *why)
{
    return g_strdup(why ?: sf_reason_text(reason));
}

void sf_event_client_connected(SFClient *client)
{
    SFEvent *event = event_new(client->server->events, EVENT_CLIENT_CONNECTED);

    if (event) {
        event->client = client->id;
        event->peer = g_strdup(sf_channel_info(client->main)->peer);
        event->tls = sf_channel_info(client->main)->tls;
    }
}

void sf_event_client_removed(SFClient *client)
{
    SFEvent *event = event_new(client->server->events, EVENT_CLIENT_REMOVED);

    if (event) {
        event->client = client->id;
        event->peer = g_strdup(sf_channel_info(client->main)->peer);
        event->reason = client->reason;
        event->why = event_why(client->reason, client->why);
    }
}

static SFEvent *channel_event(SFClient *client, SFChannel *channel,
                              SFEventKind kind)
{
    const SFChannelInfo *info = sf_channel_info(channel);
    SFEvent *event = event_new(client->server->events, kind);

    if (event) {
        event->client = client->id;
        event->channel_type = info->mess.channel_type;
        event->channel_id = info->mess.channel_id;
        event->tls = info->tls;
    }
    return event;
}

void sf_event_channel_opened(SFClient *client, SFChannel *channel)
{
    channel_event(client, channel, EVENT_CHANNEL_OPENED);
}

void sf_event_channel_closed(SFClient *client, SFChannel *channel)
{
    SFEvent *event = channel_event(client, channel, EVENT_CHANNEL_CLOSED);

    if (event) {
        event->reason = sf_channel_reason(channel);
        event->why = g_strdup(sf_channel_why(channel));
    }
}

static SFEvent *device_event(SFDevice *device, SFEventKind kind)
{
    SFEvent *event = event_new(device->server->events, kind);

    if (event) {
        event->device = g_strdup(device->label);
        event->name = g_strdup(device->name);
    }
    return event;
}

void sf_event_device_claimed(SFDevice *device, SFClient *client)
{
    SFEvent *event = device_event(device, EVENT_DEVICE_CLAIMED);

    if (event) {
        event->client = client->id;
    }
}

void sf_event_device_released(SFDevice *device, SFClient *client,
                              SFReason reason, const char *why)
{
    SFEvent *event = device_event(device, EVENT_DEVICE_RELEASED);

    if (event) {
        event->client = client->id;
        event->reason = reason;
        event->why = event_why(reason, why);
    }
}

void sf_event_link_refused(SFServer *server, const char *peer,
                           SFRefusal refusal, const char *why)
{
    SFEvents *events = server->events;
    SFEvent *event;

    events->refused[refusal]++;
    if (refusal == SF_REFUSAL_NONE) {
        return;
    }
    events->last_refusal = refusal;
    g_free(events->last_peer);
    events->last_peer = g_strdup(peer);
    g_free(events->last_why);
    events->last_why = g_strdup(why);

    event = event_new(events, EVENT_LINK_REFUSED);
    if (event) {
        event->peer = g_strdup(peer);
        event->refusal = refusal;
        event->why = g_strdup(why);
    }
}

void sf_event_transfer(SFDevice *device, const SpiceVdagentTransfer *transfer)
{
    SFEvent *event = device_event(device, EVENT_TRANSFER);

    if (event) {
        event->transfer = *transfer;
    }
}

/*
 * Life
 */

SFEvents *sf_events_new(const char *id)
{
    SFEvents *events = g_new0(SFEvents, 1);

    events->id = g_strdup(id);
    events->bh = qemu_bh_new(events_tell, events);
    QSIMPLEQ_INIT(&events->queue);
    for (unsigned i = 0; i < EVENT_KINDS; i++) {
        events->allowance[i].credit = BURST * 1000;
        events->allowance[i].since = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    }
    return events;
}

void sf_events_free(SFEvents *events)
{
    if (events) {
        events_tell(events);
        qemu_bh_delete(events->bh);
        g_free(events->last_peer);
        g_free(events->last_why);
        g_free(events->id);
        g_free(events);
    }
}

void sf_events_describe(const SFEvents *events, QDict *dict)
{
    QDict *refused = qdict_new(), *last;

    for (unsigned i = SF_REFUSAL_NONE + 1; i < SF_REFUSAL__MAX; i++) {
        qdict_put_int(refused, SpiceflowRefusal_str(refusals[i]),
                      events ? events->refused[i] : 0);
    }
    qdict_put(dict, "links-refused", refused);
    qdict_put_int(dict, "events-suppressed", events ? events->suppressed : 0);
    if (events && events->last_refusal) {
        last = qdict_new();
        qdict_put_str(last, "peer", events->last_peer);
        qdict_put_str(last, "reason",
                      SpiceflowRefusal_str(refusals[events->last_refusal]));
        qdict_put_str(last, "message", events->last_why);
        qdict_put(dict, "last-refused", last);
    }
}
