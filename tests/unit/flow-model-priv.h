/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the reference model share; flow-model.c says what it is.
 */
#ifndef SPICEFLOW_FLOW_MODEL_PRIV_H
#define SPICEFLOW_FLOW_MODEL_PRIV_H

#include "flow-model.h"

/* bytes on their way to the guest or to a client */
typedef struct Buf {
    FlowModelClient *owner;     /* to guest: NULL for orphans and the server */
    uint8_t *data;
    size_t size;
    size_t pos;
    uint32_t price;
    bool paid;
    bool more;
} Buf;

struct FlowModelClient {
    FlowModel *m;
    void *opaque;
    SpiceFlowClientParams params;
    uint32_t tokens, due, send_tokens;
    int receiving;              /* as in SpiceFlowSavedClient */
    bool dead, gone, away, broken, flushing, wants_room;
    int64_t since;              /* of stalling, or -1 */
    GPtrArray *queue;           /* Buf: to the guest, without the current */
    GPtrArray *ring;            /* Buf: to the client, in flight first */
    uint32_t in_flight;
};

struct FlowModel {
    const FlowModelOps *ops;
    void *opaque;
    SpiceFlowParams params;
    GPtrArray *clients;         /* newest first, the gone ones too */
    GPtrArray *ready;           /* clients with a queue, but not the turn's */
    GPtrArray *orphans, *server;
    Buf *current;
    FlowModelClient *turn;
    int64_t turn_since, stopped_at;
    uint32_t self_tokens;
    size_t wait_len;            /* the guest waits for this much, or 0 */
    FlowModelClient *wait_for;
    bool running, torn, closed, writing, again, sending, clock_runs;
    int depth;
    SpiceFlowInfo count;
    GPtrArray *all_bufs, *all_clients;      /* to be freed in the end */
};

static inline void *pop(GPtrArray *array)
{
    return array->len ? g_ptr_array_steal_index(array, 0) : NULL;
}

static inline void push(GPtrArray *array, void *what)
{
    g_ptr_array_add(array, what);
}

static inline void event(FlowModel *m, SpiceFlowEvent ev,
                         const FlowModelClient *c, uint64_t value)
{
    if (m->ops->event) {
        m->ops->event(m->opaque, ev, c ? c->params.id : 0, value);
    }
}

static inline bool live(const FlowModelClient *c)
{
    return !c->dead && !c->gone;
}

static inline uint32_t held_messages(const FlowModelClient *c)
{
    const Buf *cur = c->m->current;

    return c->queue->len + (cur && cur->owner == c);
}

static inline uint32_t waiting(const FlowModelClient *c)
{
    return c->ring->len - c->in_flight;
}

/* flow-model.c */
Buf *model_buf_new(FlowModel *m, const void *data, size_t size);
uint32_t model_live_clients(const FlowModel *m);
GPtrArray *model_clients_now(const FlowModel *m);
size_t model_held_bytes(const FlowModelClient *c);
size_t model_array_bytes(const GPtrArray *array);
bool model_fits(const FlowModelClient *c, size_t len);
bool model_takes(const FlowModelClient *c);
bool model_can_place(const FlowModel *m, size_t len);
bool model_can_place_to(const FlowModelClient *c, size_t len);
void model_enter(FlowModel *m);
void model_leave(FlowModel *m);
void model_kick(FlowModelClient *c, SpiceFlowReason reason);
FlowModelClient *model_insert(FlowModel *m,
                              const SpiceFlowClientParams *params,
                              void *opaque);
void model_forget_clients(FlowModel *m);

/* flow-model-to-guest.c */
void model_count_to_guest(const FlowModel *m, uint32_t *messages,
                          size_t *bytes);
void model_queued(FlowModel *m, const FlowModelClient *c, size_t size);
void model_dropped(FlowModel *m, const Buf *b);
uint32_t model_drop_all(FlowModel *m, GPtrArray *bufs);
uint32_t model_drop_current(FlowModel *m);
void model_ready_add(FlowModelClient *c);
void model_give(FlowModelClient *c);
void model_self_token_back(FlowModel *m);
void model_drain(FlowModel *m);
void model_notify_room(FlowModel *m);

/* flow-model-to-client.c */
void model_flush(FlowModelClient *c);

#endif
