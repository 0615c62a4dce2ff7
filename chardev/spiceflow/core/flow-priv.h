/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the flow-control machine share: the structs of a device, a
 * client and a message.  core/flow.c has the theory of operation and the
 * device; flow-to-guest.c and flow-to-client.c the two directions;
 * flow-message.c messages and their pool; flow-state.c what can be seen, saved
 * and restored.  Nobody else includes this.
 */
#ifndef CHARDEV_SPICEFLOW_FLOW_PRIV_H
#define CHARDEV_SPICEFLOW_FLOW_PRIV_H

#include "chardev/spiceflow/flow.h"

/* Capacities of recycled messages: 2^k and 3/4 of it, 128 bytes to 64 KiB. */
#define CLASS_MIN_BITS      7
#define CLASS_MAX_BITS      16
#define NUM_CLASSES         (2 * (CLASS_MAX_BITS - CLASS_MIN_BITS) + 1)
#define CLASS_NONE          NUM_CLASSES

typedef enum {
    RECEIVING_NOT,
    RECEIVING,
    RECEIVING_STALE,    /* begun before a reset: its token is back already */
} Receiving;

struct SpiceFlowMessage {
    GList link;                 /* in a queue to the guest, or in the pool */
    SpiceFlow *flow;
    SpiceFlowClient *owner;     /* to guest: who gets the token, or NULL */
    const uint8_t *data;        /* the caller's memory, or storage */
    size_t size;
    size_t capacity;            /* of storage */
    unsigned refs;
    uint8_t size_class;
    uint8_t price;              /* client tokens due when finished */
    bool paid;                  /* a self token is due when finished */
    bool more;
    uint8_t storage[];
};

typedef struct Ring {
    SpiceFlowMessage **slot;
    uint32_t size;              /* a power of two, or 0 */
    uint32_t head;
    uint32_t len;
} Ring;

struct SpiceFlowClient {
    GList link;                 /* in SpiceFlow.clients, also when gone */
    GList ready_link;
    SpiceFlow *flow;
    void *opaque;
    SpiceFlowClientParams params;

    uint32_t tokens;
    uint32_t due;
    uint32_t send_tokens;

    GQueue to_guest;            /* not the current one */
    uint32_t to_guest_messages; /* the current one included */
    size_t to_guest_bytes;      /* what the guest does not have yet */

    Ring ring;                  /* in flight, then waiting */
    uint32_t in_flight;
    size_t ring_bytes;

    int64_t stalled_since;      /* -1: tick has not seen it stall yet */
    uint8_t receiving;
    bool ready;
    bool dead;                  /* the remove op was called */
    bool gone;                  /* removed, memory waits for depth 0 */
    bool away;                  /* restored, not connected yet */
    bool broken;                /* left the guest in mid-message */
    bool flushing;
    bool wants_room;
};

struct SpiceFlow {
    const SpiceFlowOps *ops;
    void *opaque;
    SpiceFlowParams params;

    GQueue clients;             /* newest first */
    unsigned depth;
    uint32_t num_gone;
    uint32_t num_live;          /* neither dead nor gone */
    uint32_t num_undelivered;   /* connected ones whose ring is not empty */
    uint32_t num_want_room;

    SpiceFlowMessage *current;
    size_t current_pos;
    GQueue orphans;
    GQueue server;
    GQueue ready;               /* clients */
    SpiceFlowClient *turn;
    int64_t turn_since;         /* -1: tick has not seen it pause yet */
    uint32_t self_tokens;

    int64_t stopped_at;
    size_t guest_wait_len;      /* 0: the guest does not wait */
    SpiceFlowClient *guest_wait_for;    /* the one it waits for, or any */
    bool running;
    bool closed;
    bool writing;
    bool write_again;
    bool sending;
    bool clock_runs;
    bool timed;                 /* somebody may have a time in since */
    bool torn;                  /* the guest waits for a lost end of message */

    GQueue pool[NUM_CLASSES];
    size_t pool_bytes;
    size_t live_bytes;          /* capacity of messages in use */
    size_t live_peak;           /* since none was in use */
    size_t pool_target;
    uint32_t live_messages;

    SpiceFlowInfo count;        /* the counters in it */
};

/* flow.c */
/* The outermost call ends: what has to wait for that is done. */
void flow_leave_outermost(SpiceFlow *flow);
void flow_free_if_done(SpiceFlow *flow);
void flow_clients_forget(SpiceFlow *flow);
/* Of a live client. */
void flow_client_kick(SpiceFlowClient *client, SpiceFlowReason reason);
SpiceFlowClient *flow_client_insert(SpiceFlow *flow,
                                    const SpiceFlowClientParams *params,
                                    void *opaque);

/* flow-message.c: a message begins as a view of the caller's memory. */
SpiceFlowMessage *flow_message_new(SpiceFlow *flow, const void *data,
                                   size_t size);
/* Copy the bytes, unless they are the message's own already. */
void flow_message_own(SpiceFlowMessage *msg);
/* The caller's memory ends now: drop its reference, keep bytes still wanted. */
void flow_message_release_borrowed(SpiceFlowMessage *msg);
/* Nobody has a reference any more. */
void flow_message_free(SpiceFlowMessage *msg);
void flow_pool_trim(SpiceFlow *flow, size_t target);

/* flow-to-guest.c */
void flow_write(SpiceFlow *flow);
void flow_notify_room(SpiceFlow *flow);
void flow_self_token_back(SpiceFlow *flow);
/* Give back what is due to a client and need not be gathered further. */
void flow_client_settle(SpiceFlowClient *client);
/* A buffer with a reference for its queue and one for the caller. */
SpiceFlowMessage *flow_to_guest_new(SpiceFlow *flow, SpiceFlowClient *owner,
                                    const SpiceFlowBuffer *buffer);
void flow_ready_add(SpiceFlowClient *client);
/* Both return how many buffers were dropped. */
uint32_t flow_to_guest_clear(SpiceFlow *flow);
uint32_t flow_to_guest_detach(SpiceFlowClient *client);

/* flow-to-client.c */
/* Whether what the guest waits for has come about. */
bool flow_guest_can_go_on(const SpiceFlow *flow);
void flow_client_flush(SpiceFlowClient *client);
void flow_client_ring_push(SpiceFlowClient *client, SpiceFlowMessage *msg);
SpiceFlowMessage *flow_ring_at(const SpiceFlowClient *client, uint32_t i);
/*
 * Drop the newest undelivered messages until @keep are left.  Returns how
 * many.
 */
uint32_t flow_client_ring_drop(SpiceFlowClient *client, uint32_t keep);

static inline void flow_enter(SpiceFlow *flow)
{
    flow->depth++;
}

static inline void flow_message_unref(SpiceFlowMessage *msg)
{
    if (--msg->refs == 0) {
        flow_message_free(msg);
    }
}

/* g_queue_pop_head_link() without a call for a queue that is empty. */
static inline GList *flow_queue_pop(GQueue *queue)
{
    return queue->head ? g_queue_pop_head_link(queue) : NULL;
}

static inline bool flow_turn_pauses(const SpiceFlow *flow)
{
    return flow->turn && !flow->turn->away && !flow->current &&
           !flow->turn->to_guest.length && flow->ready.length;
}

/* Some client keeps others waiting, or may do so soon. */
static inline bool flow_clock_wanted(const SpiceFlow *flow)
{
    return flow->running &&
           ((flow->num_undelivered && flow->num_live > 1) ||
            flow_turn_pauses(flow));
}

/* Who keeps nobody waiting any more is timed anew the next time. */
void flow_clocks_forget(SpiceFlow *flow);

/* Whether the end of the outermost call leaves nothing to be done. */
static inline bool flow_quiet(const SpiceFlow *flow)
{
    return !flow->guest_wait_len && !flow->num_gone && !flow->closed &&
           flow->clock_runs == flow_clock_wanted(flow);
}

static inline void flow_leave(SpiceFlow *flow)
{
#ifdef SPICE_FLOW_DEBUG
    /* Debug builds: the invariants hold whenever the owner has its turn. */
    g_assert(flow->depth > 1 || !spice_flow_check(flow));
#endif
    if (flow->timed) {
        flow_clocks_forget(flow);
    }
    if (flow->depth == 1 && !flow_quiet(flow)) {
        flow_leave_outermost(flow);
    } else {
        flow->depth--;
    }
}

/* Every transition goes through here. */
static inline void flow_event(SpiceFlow *flow, SpiceFlowEvent event,
                              const SpiceFlowClient *client, uint64_t value)
{
    if (flow->ops->event) {
        flow->ops->event(flow->opaque, event, client ? client->params.id : 0,
                         value);
    }
}

static inline bool client_live(const SpiceFlowClient *client)
{
    return !client->dead && !client->gone;
}

static inline uint32_t client_waiting(const SpiceFlowClient *client)
{
    return client->ring.len - client->in_flight;
}

static inline void flow_count_dropped(SpiceFlow *flow, size_t bytes)
{
    flow->count.dropped_messages++;
    flow->count.dropped_bytes += bytes;
}

#endif
