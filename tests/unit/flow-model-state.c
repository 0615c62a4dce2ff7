/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reference model: what is told of it, saved and restored.
 */
#include "flow-model-priv.h"

void flow_model_info(const FlowModel *m, SpiceFlowInfo *info)
{
    *info = m->count;
    info->running = m->running;
    info->guest_waits = m->wait_len != 0;
    info->clients = model_live_clients(m);
    info->self_tokens = m->self_tokens;
    model_count_to_guest(m, &info->to_guest_messages, &info->to_guest_bytes);
}

void flow_model_client_info(const FlowModelClient *c,
                            SpiceFlowClientInfo *info)
{
    *info = (SpiceFlowClientInfo) {
        .id = c->params.id,
        .flow_control = c->params.flow_control,
        .away = c->away,
        .dead = c->dead,
        .receiving = c->receiving == 1,
        .waits = c->since >= 0,
        .window = c->params.window,
        .client_tokens = c->tokens,
        .due_tokens = c->due,
        .send_tokens = c->send_tokens,
        .to_guest_messages = held_messages(c),
        .to_guest_bytes = model_held_bytes(c),
        .to_client_messages = c->ring->len,
        .to_client_in_flight = c->in_flight,
        .to_client_bytes = model_array_bytes(c->ring),
    };
}

void flow_model_client_foreach(FlowModel *m,
                               void (*fn)(FlowModelClient *, void *),
                               void *data)
{
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];

        if (!c->gone) {
            fn(c, data);
        }
    }
}

static void save_buf(const Buf *b, GArray *buffers, GByteArray *data,
                     SpiceFlowSavedPlace place, uint32_t client)
{
    SpiceFlowSavedBuffer saved = {
        .place = place,
        .price = b->price,
        .paid = b->paid,
        .more = b->more,
        .client = client,
        .size = b->size,
        .offset = b->pos,
    };

    g_array_append_val(buffers, saved);
    g_byte_array_append(data, b->data, b->size);
}

static void save_bufs(const GPtrArray *bufs, GArray *buffers, GByteArray *data,
                      SpiceFlowSavedPlace place, uint32_t client)
{
    for (guint i = 0; i < bufs->len; i++) {
        save_buf(bufs->pdata[i], buffers, data, place, client);
    }
}

void flow_model_save(const FlowModel *m, SpiceFlowSaved *saved, int64_t now)
{
    GArray *clients = g_array_new(FALSE, TRUE, sizeof(SpiceFlowSavedClient));
    GArray *buffers = g_array_new(FALSE, TRUE, sizeof(SpiceFlowSavedBuffer));
    GByteArray *data = g_byte_array_new();

    now = m->running ? now : m->stopped_at;
    if (m->current) {
        save_buf(m->current, buffers, data, SPICE_FLOW_AT_CURRENT,
                 m->current->owner ? m->current->owner->params.id : 0);
    }
    save_bufs(m->orphans, buffers, data, SPICE_FLOW_AT_ORPHAN, 0);
    save_bufs(m->server, buffers, data, SPICE_FLOW_AT_SERVER, 0);
    if (m->turn) {
        save_bufs(m->turn->queue, buffers, data, SPICE_FLOW_AT_CLIENT,
                  m->turn->params.id);
    }
    for (guint i = 0; i < m->ready->len; i++) {
        FlowModelClient *c = m->ready->pdata[i];

        save_bufs(c->queue, buffers, data, SPICE_FLOW_AT_CLIENT, c->params.id);
    }
    for (guint i = 0; i < m->clients->len; i++) {
        FlowModelClient *c = m->clients->pdata[i];
        SpiceFlowSavedClient sc = {
            .params = c->params,
            .tokens = c->tokens,
            .due = c->due,
            .send_tokens = c->send_tokens,
            .in_flight = c->in_flight,
            .waited = c->since < 0 ? -1 : now - c->since,
            .receiving = c->receiving,
        };

        if (live(c)) {
            g_array_append_val(clients, sc);
            save_bufs(c->ring, buffers, data, SPICE_FLOW_AT_TO_CLIENT,
                      c->params.id);
        }
    }
    *saved = (SpiceFlowSaved) {
        .self_tokens = m->self_tokens,
        .turn = m->turn ? m->turn->params.id : 0,
        .turn_waited = m->turn_since < 0 ? -1 : now - m->turn_since,
        .torn = m->torn,
        .num_clients = clients->len,
        .num_buffers = buffers->len,
        .data_size = data->len,
    };
    saved->clients = (void *)g_array_free(clients, FALSE);
    saved->buffers = (void *)g_array_free(buffers, FALSE);
    saved->data = g_byte_array_free(data, FALSE);
}

void flow_model_restore(FlowModel *m, const SpiceFlowSaved *saved, int64_t now)
{
    const uint8_t *data = saved->data;

    model_enter(m);
    model_forget_clients(m);
    m->stopped_at = now;
    m->wait_len = 0;
    m->wait_for = NULL;
    m->self_tokens = saved->self_tokens;
    m->torn = saved->torn;
    for (uint32_t i = saved->num_clients; i-- > 0;) {
        const SpiceFlowSavedClient *sc = &saved->clients[i];
        FlowModelClient *c = model_insert(m, &sc->params, NULL);

        c->away = true;
        c->tokens = sc->tokens;
        c->due = sc->due;
        c->send_tokens = sc->send_tokens;
        c->in_flight = sc->in_flight;
        c->receiving = sc->receiving;
        c->since = sc->waited < 0 ? -1 : now - sc->waited;
    }
    m->turn = saved->turn ? flow_model_client_find(m, saved->turn) : NULL;
    m->turn_since = saved->turn_waited < 0 ? -1 : now - saved->turn_waited;
    for (uint32_t i = 0; i < saved->num_buffers; i++) {
        const SpiceFlowSavedBuffer *sb = &saved->buffers[i];
        Buf *b = model_buf_new(m, data, sb->size);
        FlowModelClient *c = sb->client ?
            flow_model_client_find(m, sb->client) : NULL;

        data += sb->size;
        b->pos = sb->offset;
        b->price = sb->price;
        b->paid = sb->paid;
        b->more = sb->more;
        if (sb->place == SPICE_FLOW_AT_TO_CLIENT) {
            push(c->ring, b);
            continue;
        }
        b->owner = c;
        switch (sb->place) {
        case SPICE_FLOW_AT_CURRENT:
            m->current = b;
            break;
        case SPICE_FLOW_AT_ORPHAN:
            push(m->orphans, b);
            break;
        case SPICE_FLOW_AT_SERVER:
            push(m->server, b);
            break;
        default:
            push(c->queue, b);
            model_ready_add(c);
            break;
        }
        model_queued(m, c, b->size);
    }
    event(m, SPICE_FLOW_EV_RESTORE, NULL, saved->num_buffers);
    model_leave(m);
}
