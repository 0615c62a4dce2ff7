/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages of the flow-control machine and the pool they are recycled in.
 *
 * A message is refcounted bytes: a view of its caller's memory first, a copy in
 * its own storage once somebody needs it beyond the call.  Storage comes in
 * size classes, each with a list of free messages.  When the last message in
 * use is given back, the pool shrinks toward what the busy period just ended
 * needed.
 */
#include "flow-priv.h"

#include <string.h>

#define POOL_MAX            (4 * 1024 * 1024)

static unsigned class_of(size_t size)
{
    unsigned bits = size > 1 ? g_bit_storage(size - 1) : 0;

    if (bits <= CLASS_MIN_BITS) {
        return 0;
    }
    if (bits > CLASS_MAX_BITS) {
        return CLASS_NONE;
    }
    return 2 * (bits - CLASS_MIN_BITS) - (size <= (size_t)3 << (bits - 2));
}

static size_t class_capacity(unsigned size_class)
{
    unsigned bits = CLASS_MIN_BITS + (size_class + 1) / 2;

    return size_class & 1 ? (size_t)3 << (bits - 2) : (size_t)1 << bits;
}

void flow_pool_trim(SpiceFlow *flow, size_t target)
{
    for (unsigned i = NUM_CLASSES; i-- > 0 && flow->pool_bytes > target;) {
        GList *link;

        while (flow->pool_bytes > target &&
               (link = g_queue_pop_tail_link(&flow->pool[i]))) {
            flow->pool_bytes -= class_capacity(i);
            g_free(link->data);
        }
    }
}

/*
 * No message is in use: keep what the last busy period needed, forget what
 * earlier ones needed by a quarter each time.
 */
static void pool_idle(SpiceFlow *flow)
{
    flow->pool_target = MAX(flow->live_peak,
                            flow->pool_target - flow->pool_target / 4);
    flow->live_peak = 0;
    if (flow->pool_bytes > flow->pool_target) {
        flow_pool_trim(flow, flow->pool_target);
    }
}

SpiceFlowMessage *flow_message_new(SpiceFlow *flow, const void *data,
                                     size_t size)
{
    unsigned size_class = class_of(size);
    SpiceFlowMessage *msg;
    GList *link = NULL;

    if (size_class != CLASS_NONE) {
        link = flow_queue_pop(&flow->pool[size_class]);
    }
    if (link) {
        msg = link->data;
        flow->pool_bytes -= msg->capacity;
    } else {
        size_t capacity = size_class == CLASS_NONE ? size
                                                   : class_capacity(size_class);

        msg = g_malloc(sizeof(*msg) + capacity);
        msg->capacity = capacity;
        msg->size_class = size_class;
        msg->link = (GList) { .data = msg };
        msg->flow = flow;
    }
    msg->owner = NULL;
    msg->data = data;
    msg->size = size;
    msg->refs = 1;
    msg->price = 0;
    msg->paid = false;
    msg->more = false;

    flow->live_messages++;
    flow->live_bytes += msg->capacity;
    flow->live_peak = MAX(flow->live_peak, flow->live_bytes);
    return msg;
}

void flow_message_free(SpiceFlowMessage *msg)
{
    SpiceFlow *flow = msg->flow;
    size_t capacity = msg->capacity;

    flow->live_messages--;
    flow->live_bytes -= capacity;
    if (flow->closed || msg->size_class == CLASS_NONE ||
        flow->pool_bytes + capacity > POOL_MAX) {
        g_free(msg);
    } else {
        g_queue_push_head_link(&flow->pool[msg->size_class], &msg->link);
        flow->pool_bytes += capacity;
    }
    if (flow->live_messages == 0) {
        if (flow->closed) {
            flow_free_if_done(flow);
        } else {
            pool_idle(flow);
        }
    }
}

void spice_flow_message_unref(SpiceFlowMessage *msg)
{
    flow_message_unref(msg);
}

/* Make the bytes the message's own: its caller's memory ends with the call. */
void flow_message_own(SpiceFlowMessage *msg)
{
    if (msg->data != msg->storage) {
        memcpy(msg->storage, msg->data, msg->size);
        msg->data = msg->storage;
    }
}

SpiceFlowMessage *spice_flow_message_keep(SpiceFlowMessage *msg)
{
    flow_message_own(msg);
    msg->refs++;
    return msg;
}

/* The caller's memory ends now: drop its reference, keep bytes still wanted. */
void flow_message_release_borrowed(SpiceFlowMessage *msg)
{
    if (msg->refs > 1) {
        flow_message_own(msg);
    }
    flow_message_unref(msg);
}

const uint8_t *spice_flow_message_data(const SpiceFlowMessage *msg,
                                       size_t *len)
{
    *len = msg->size;
    return msg->data;
}
