/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flow-control machine in numbers, and its state saved and restored.
 *
 * What is saved is flat: a table of clients, a table of buffers, queue by
 * queue, and the bytes of all buffers one behind the other, so that a stream
 * format can describe it without knowing the machine.  A state is checked
 * completely before any of it is taken over.
 */
#include "flow-priv.h"

#include <string.h>

/* Unpaid server buffers that can be told apart; for spice_flow_saved_max(). */
#define UNPAID_MAX          4

void spice_flow_info(const SpiceFlow *flow, SpiceFlowInfo *info)
{
    *info = flow->count;
    info->running = flow->running;
    info->guest_waits = spice_flow_guest_waits(flow);
    info->clients = flow->num_live;
    info->self_tokens = flow->self_tokens;
    info->pool_bytes = flow->pool_bytes;
}

void spice_flow_client_info(const SpiceFlowClient *client,
                            SpiceFlowClientInfo *info)
{
    *info = (SpiceFlowClientInfo) {
        .id = client->params.id,
        .flow_control = client->params.flow_control,
        .away = client->away,
        .dead = client->dead,
        .receiving = client->receiving == RECEIVING,
        .waits = client->stalled_since >= 0,
        .window = client->params.window,
        .client_tokens = client->tokens,
        .due_tokens = client->due,
        .send_tokens = client->send_tokens,
        .to_guest_messages = client->to_guest_messages,
        .to_guest_bytes = client->to_guest_bytes,
        .to_client_messages = client->ring.len,
        .to_client_in_flight = client->in_flight,
        .to_client_bytes = client->ring_bytes,
    };
}

void spice_flow_client_foreach(SpiceFlow *flow,
                               void (*fn)(SpiceFlowClient *, void *),
                               void *data)
{
    for (GList *l = flow->clients.head; l; l = l->next) {
        SpiceFlowClient *client = l->data;

        if (!client->gone) {
            fn(client, data);
        }
    }
}

static bool client_tokens_conserved(const SpiceFlowClient *client)
{
    return (uint64_t)client->tokens + client->due + client->to_guest_messages +
           (client->receiving == RECEIVING) == client->params.window;
}

static const char *client_check(const SpiceFlowClient *client)
{
    const SpiceFlow *flow = client->flow;
    const SpiceFlowClientParams *params = &client->params;
    bool queued = client->to_guest.length > 0;

    if (params->flow_control && !client_tokens_conserved(client)) {
        return "client tokens are conserved";
    }
    if (!params->flow_control &&
        (client->to_guest_bytes > params->to_guest_bytes ||
         client->to_guest_messages > params->to_guest_messages)) {
        return "bytes to the guest are within the budget";
    }
    if (client->ring.len > params->to_client_messages ||
        (client->ring_bytes > params->to_client_bytes &&
         client->ring.len > 1)) {
        return "bytes to a client are within the budget";
    }
    if (client->in_flight > client->ring.len) {
        return "what is in flight is undelivered";
    }
    if (client_waiting(client) && !client->away &&
        (!params->flow_control || client->send_tokens)) {
        return "nothing waits that may be sent";
    }
    if (queued != (client->ready || (queued && client == flow->turn))) {
        return "a client with a queue is ready or has the turn";
    }
    return NULL;
}

const char *spice_flow_check(const SpiceFlow *flow)
{
    size_t bytes = 0;
    uint32_t messages = 0;

    for (GList *l = flow->clients.head; l; l = l->next) {
        const SpiceFlowClient *client = l->data;
        const char *wrong = client_live(client) ? client_check(client) : NULL;

        if (wrong) {
            return wrong;
        }
        bytes += client->to_guest_bytes;
        messages += client->to_guest_messages;
    }
    if (bytes > flow->count.to_guest_bytes ||
        messages > flow->count.to_guest_messages) {
        return "what clients have queued is queued";
    }
    if (flow->self_tokens > flow->params.self_tokens) {
        return "self tokens are conserved";
    }
    if (flow->turn && flow->torn) {
        return "a torn message has no turn";
    }
    return NULL;
}

size_t spice_flow_saved_max(const SpiceFlow *flow,
                            const SpiceFlowClientParams *client,
                            uint32_t num_clients)
{
    const SpiceFlowParams *params = &flow->params;
    size_t bytes, buffers;

    if (client->flow_control) {
        buffers = client->window;
        bytes = client->window * params->max_message;
    } else {
        buffers = client->to_guest_messages;
        bytes = client->to_guest_bytes;
    }
    buffers += client->to_client_messages;
    bytes += MAX(client->to_client_bytes, params->max_message);
    bytes += buffers * sizeof(SpiceFlowSavedBuffer) +
             sizeof(SpiceFlowSavedClient);

    /*
     * One more client's worth may be left of one who went; the current buffer
     * is saved whole; and there are the server's own.
     */
    return sizeof(SpiceFlowSaved) + (num_clients + (size_t)1) * bytes +
           ((size_t)params->self_tokens + UNPAID_MAX + 1) *
           (params->max_message + sizeof(SpiceFlowSavedBuffer));
}

/*
 * Save
 */

static SpiceFlowSavedBuffer *saved_append(SpiceFlowSaved *saved,
                                          const SpiceFlowMessage *msg)
{
    SpiceFlowSavedBuffer *buffer = &saved->buffers[saved->num_buffers++];

    *buffer = (SpiceFlowSavedBuffer) {
        .price = msg->price,
        .paid = msg->paid,
        .more = msg->more,
        .client = msg->owner ? msg->owner->params.id : 0,
        .size = msg->size,
    };
    memcpy(saved->data + saved->data_size, msg->data, msg->size);
    saved->data_size += msg->size;
    return buffer;
}

static void save_queue(SpiceFlowSaved *saved, const GQueue *queue,
                       SpiceFlowSavedPlace place)
{
    for (GList *l = queue->head; l; l = l->next) {
        saved_append(saved, l->data)->place = place;
    }
}

static void save_ring(SpiceFlowSaved *saved, const SpiceFlowClient *client)
{
    for (uint32_t i = 0; i < client->ring.len; i++) {
        SpiceFlowSavedBuffer *buffer =
            saved_append(saved, flow_ring_at(client, i));

        buffer->place = SPICE_FLOW_AT_TO_CLIENT;
        buffer->client = client->params.id;
    }
}

static int64_t waited(int64_t since, int64_t now)
{
    return since < 0 ? -1 : now - since;
}

static void save_client(SpiceFlowSavedClient *to, const SpiceFlowClient *client,
                        int64_t now)
{
    *to = (SpiceFlowSavedClient) {
        .params = client->params,
        .tokens = client->tokens,
        .due = client->due,
        .send_tokens = client->send_tokens,
        .in_flight = client->in_flight,
        .waited = waited(client->stalled_since, now),
        .receiving = client->receiving,
    };
}

void spice_flow_save(const SpiceFlow *flow, SpiceFlowSaved *saved, int64_t now)
{
    uint32_t buffers = flow->count.to_guest_messages;
    size_t bytes = flow->count.to_guest_bytes;

    if (!flow->running) {
        now = flow->stopped_at;
    }
    if (flow->current) {
        bytes += flow->current_pos;
    }
    for (GList *l = flow->clients.head; l; l = l->next) {
        const SpiceFlowClient *client = l->data;

        buffers += client->ring.len;
        bytes += client->ring_bytes;
    }
    *saved = (SpiceFlowSaved) {
        .self_tokens = flow->self_tokens,
        .turn = flow->turn ? flow->turn->params.id : 0,
        .turn_waited = waited(flow->turn_since, now),
        .torn = flow->torn,
        .clients = g_new0(SpiceFlowSavedClient, flow->num_live),
        .buffers = g_new0(SpiceFlowSavedBuffer, buffers),
        .data = g_malloc(bytes),
    };
    if (flow->current) {
        SpiceFlowSavedBuffer *buffer = saved_append(saved, flow->current);

        buffer->place = SPICE_FLOW_AT_CURRENT;
        buffer->offset = flow->current_pos;
    }
    save_queue(saved, &flow->orphans, SPICE_FLOW_AT_ORPHAN);
    save_queue(saved, &flow->server, SPICE_FLOW_AT_SERVER);
    if (flow->turn) {
        save_queue(saved, &flow->turn->to_guest, SPICE_FLOW_AT_CLIENT);
    }
    for (GList *l = flow->ready.head; l; l = l->next) {
        const SpiceFlowClient *client = l->data;

        save_queue(saved, &client->to_guest, SPICE_FLOW_AT_CLIENT);
    }
    for (GList *l = flow->clients.head; l; l = l->next) {
        const SpiceFlowClient *client = l->data;

        if (client_live(client)) {
            save_client(&saved->clients[saved->num_clients++], client, now);
            save_ring(saved, client);
        }
    }
}

void spice_flow_saved_clear(SpiceFlowSaved *saved)
{
    g_free(saved->clients);
    g_free(saved->buffers);
    g_free(saved->data);
    *saved = (SpiceFlowSaved) { 0 };
}

/*
 * Restore
 */

/* What the buffers of one client add up to. */
typedef struct Sum {
    uint32_t prices;
    uint32_t to_guest_messages;
    size_t to_guest_bytes;
    uint32_t to_client_messages;
    size_t to_client_bytes;
} Sum;

static const SpiceFlowSavedClient *saved_client(const SpiceFlowSaved *saved,
                                                uint32_t id)
{
    for (uint32_t i = 0; i < saved->num_clients; i++) {
        if (saved->clients[i].params.id == id) {
            return &saved->clients[i];
        }
    }
    return NULL;
}

/* Returns NULL, or the field of @buffer that can not be. */
static const char *buffer_wrong(const SpiceFlow *flow,
                                const SpiceFlowSaved *saved,
                                const SpiceFlowSavedBuffer *buffer, bool first)
{
    const SpiceFlowSavedClient *client = saved_client(saved, buffer->client);
    bool current = buffer->place == SPICE_FLOW_AT_CURRENT;

    if (buffer->place >= SPICE_FLOW_AT__MAX || (current && !first)) {
        return "place";
    }
    if (buffer->size == 0 || buffer->size > flow->params.max_message) {
        return "size";
    }
    if (current ? buffer->offset >= buffer->size : buffer->offset) {
        return "offset";
    }
    if (buffer->client ? !client : (buffer->place == SPICE_FLOW_AT_CLIENT ||
                                    buffer->place == SPICE_FLOW_AT_TO_CLIENT)) {
        return "client";
    }
    if (buffer->client && (buffer->place == SPICE_FLOW_AT_ORPHAN ||
                           buffer->place == SPICE_FLOW_AT_SERVER)) {
        return "client";
    }
    if (buffer->price != (client && client->params.flow_control &&
                          buffer->place != SPICE_FLOW_AT_TO_CLIENT)) {
        return "price";
    }
    if (buffer->paid > (buffer->place == SPICE_FLOW_AT_SERVER ||
                        (current && !client))) {
        return "paid";
    }
    if (buffer->more > (buffer->place != SPICE_FLOW_AT_SERVER &&
                        buffer->place != SPICE_FLOW_AT_TO_CLIENT)) {
        return "more";
    }
    return NULL;
}

static Sum client_sum(const SpiceFlowSaved *saved, uint32_t id)
{
    Sum sum = { 0 };

    for (uint32_t i = 0; i < saved->num_buffers; i++) {
        const SpiceFlowSavedBuffer *buffer = &saved->buffers[i];

        if (buffer->client != id) {
            continue;
        }
        if (buffer->place == SPICE_FLOW_AT_TO_CLIENT) {
            sum.to_client_messages++;
            sum.to_client_bytes += buffer->size;
        } else {
            sum.prices += buffer->price;
            sum.to_guest_messages++;
            sum.to_guest_bytes += buffer->size - buffer->offset;
        }
    }
    return sum;
}

/* Returns NULL, or the field of @client that can not be. */
static const char *client_wrong(const SpiceFlowSaved *saved,
                                const SpiceFlowSavedClient *client)
{
    const SpiceFlowClientParams *params = &client->params;
    Sum sum;

    if (params->id == 0 || saved_client(saved, params->id) != client) {
        return "id";
    }
    if (params->flow_control && params->interval == 0) {
        return "interval";
    }
    if (client->receiving > (params->flow_control ? RECEIVING_STALE : 0)) {
        return "receiving";
    }
    sum = client_sum(saved, params->id);
    if (params->flow_control) {
        if ((uint64_t)client->tokens + client->due + sum.prices +
            (client->receiving == RECEIVING) != params->window) {
            return "tokens";
        }
    } else {
        if (client->tokens || client->due) {
            return "tokens";
        }
        if (sum.to_guest_bytes > params->to_guest_bytes ||
            sum.to_guest_messages > params->to_guest_messages) {
            return "to_guest_bytes";
        }
    }
    if (sum.to_client_messages > params->to_client_messages ||
        (sum.to_client_bytes > params->to_client_bytes &&
         sum.to_client_messages > 1)) {
        return "to_client_bytes";
    }
    if (client->in_flight > sum.to_client_messages) {
        return "in_flight";
    }
    return NULL;
}

static char *saved_wrong(const SpiceFlow *flow, const SpiceFlowSaved *saved)
{
    uint64_t bytes = 0, paid = 0;
    uint32_t orphans = 0;
    const char *field;

    for (uint32_t i = 0; i < saved->num_buffers; i++) {
        field = buffer_wrong(flow, saved, &saved->buffers[i], i == 0);
        if (field) {
            return g_strdup_printf("buffers[%u].%s", i, field);
        }
        bytes += saved->buffers[i].size;
        paid += saved->buffers[i].paid;
        orphans += saved->buffers[i].place == SPICE_FLOW_AT_ORPHAN;
    }
    if (bytes != saved->data_size) {
        return g_strdup("data_size");
    }
    for (uint32_t i = 0; i < saved->num_clients; i++) {
        field = client_wrong(saved, &saved->clients[i]);
        if (field) {
            return g_strdup_printf("clients[%u].%s", i, field);
        }
    }
    if (paid + saved->self_tokens != flow->params.self_tokens) {
        return g_strdup("self_tokens");
    }
    if (saved->turn && (!saved_client(saved, saved->turn) || orphans)) {
        return g_strdup("turn");
    }
    if (saved->torn > !saved->turn) {
        return g_strdup("torn");
    }
    return NULL;
}

static void restore_client(SpiceFlow *flow, const SpiceFlowSavedClient *saved,
                           int64_t now)
{
    SpiceFlowClient *client = flow_client_insert(flow, &saved->params, NULL);

    client->away = true;
    client->tokens = saved->tokens;
    client->due = saved->due;
    client->send_tokens = saved->send_tokens;
    client->in_flight = saved->in_flight;
    client->receiving = saved->receiving;
    client->stalled_since = saved->waited < 0 ? -1 : now - saved->waited;
}

static void restore_to_client(SpiceFlow *flow, SpiceFlowClient *client,
                              const SpiceFlowSavedBuffer *saved,
                              const uint8_t *data)
{
    SpiceFlowMessage *msg = flow_message_new(flow, data, saved->size);
    int64_t since = client->stalled_since;

    flow_client_ring_push(client, msg);
    client->stalled_since = since;
    flow_message_release_borrowed(msg);
}

static void restore_to_guest(SpiceFlow *flow, SpiceFlowClient *client,
                             const SpiceFlowSavedBuffer *saved,
                             const uint8_t *data)
{
    SpiceFlowBuffer buffer = {
        .data = data,
        .len = saved->size,
        .more = saved->more,
    };
    size_t peak = flow->count.to_guest_peak;
    SpiceFlowMessage *msg = flow_to_guest_new(flow, client, &buffer);

    msg->price = saved->price;
    msg->paid = saved->paid;
    switch (saved->place) {
    case SPICE_FLOW_AT_CURRENT:
        flow->current = msg;
        flow->current_pos = saved->offset;
        flow->count.to_guest_bytes -= saved->offset;
        if (client) {
            client->to_guest_bytes -= saved->offset;
        }
        flow->count.to_guest_peak = MAX(peak, flow->count.to_guest_bytes);
        break;
    case SPICE_FLOW_AT_ORPHAN:
        g_queue_push_tail_link(&flow->orphans, &msg->link);
        break;
    case SPICE_FLOW_AT_SERVER:
        g_queue_push_tail_link(&flow->server, &msg->link);
        break;
    default:
        g_queue_push_tail_link(&client->to_guest, &msg->link);
        flow_ready_add(client);
        break;
    }
    flow_message_release_borrowed(msg);
}

bool spice_flow_restore(SpiceFlow *flow, const SpiceFlowSaved *saved,
                        int64_t now, char **error)
{
    const uint8_t *data = saved->data;
    char *wrong = flow->running ? g_strdup("running")
                                : saved_wrong(flow, saved);

    if (wrong) {
        *error = wrong;
        return false;
    }
    flow_enter(flow);
    flow_clients_forget(flow);
    flow->stopped_at = now;
    flow->guest_wait_len = 0;
    flow->guest_wait_for = NULL;
    flow->self_tokens = saved->self_tokens;
    flow->torn = saved->torn;
    for (uint32_t i = saved->num_clients; i-- > 0;) {
        restore_client(flow, &saved->clients[i], now);
    }
    flow->turn = saved->turn ? spice_flow_client_find(flow, saved->turn) : NULL;
    flow->timed = true;
    flow->turn_since = saved->turn_waited < 0 ? -1 : now - saved->turn_waited;
    for (uint32_t i = 0; i < saved->num_buffers; i++) {
        const SpiceFlowSavedBuffer *buffer = &saved->buffers[i];
        SpiceFlowClient *client = buffer->client ?
            spice_flow_client_find(flow, buffer->client) : NULL;

        if (buffer->place == SPICE_FLOW_AT_TO_CLIENT) {
            restore_to_client(flow, client, buffer, data);
        } else {
            restore_to_guest(flow, client, buffer, data);
        }
        data += buffer->size;
    }
    flow_event(flow, SPICE_FLOW_EV_RESTORE, NULL, saved->num_buffers);
    flow_leave(flow);
    return true;
}
