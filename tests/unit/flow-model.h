/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reference model of the flow-control machine: the same interface as
 * include/chardev/spiceflow/flow.h, function by function, in the plainest way.
 * flow-model.c says how it differs from the machine.
 */
#ifndef SPICEFLOW_FLOW_MODEL_H
#define SPICEFLOW_FLOW_MODEL_H

#include "chardev/spiceflow/flow.h"

typedef struct FlowModel FlowModel;
typedef struct FlowModelClient FlowModelClient;

/* SpiceFlowOps, but for send: the bytes are the call's alone. */
typedef struct FlowModelOps {
    ssize_t (*write)(void *opaque, const uint8_t *data, size_t len);
    void (*wake)(void *opaque);
    void (*self_token_free)(void *opaque);
    void (*clock)(void *opaque, bool runs);
    void (*event)(void *opaque, SpiceFlowEvent event, uint32_t client,
                  uint64_t value);

    bool (*send)(void *client_opaque, const uint8_t *data, size_t len);
    void (*give_tokens)(void *client_opaque, uint32_t n);
    void (*room)(void *client_opaque);
    void (*turn_lost)(void *client_opaque);
    void (*remove)(void *client_opaque, SpiceFlowReason reason);
} FlowModelOps;

FlowModel *flow_model_new(const FlowModelOps *ops, void *opaque,
                          const SpiceFlowParams *params);
void flow_model_close(FlowModel *m);
void flow_model_start(FlowModel *m, int64_t now);
void flow_model_stop(FlowModel *m, int64_t now);
bool flow_model_running(const FlowModel *m);
void flow_model_reset(FlowModel *m);
int64_t flow_model_tick(FlowModel *m, int64_t now);
int64_t flow_model_set_stall_timeout(FlowModel *m, uint32_t stall_timeout,
                                     int64_t now);

FlowModelClient *flow_model_client_add(FlowModel *m,
                                       const SpiceFlowClientParams *params,
                                       void *opaque);
bool flow_model_client_remove(FlowModelClient *c);
FlowModelClient *flow_model_client_find(FlowModel *m, uint32_t id);
bool flow_model_client_resume(FlowModelClient *c, void *opaque,
                              uint32_t delivered);

size_t flow_model_client_room(FlowModelClient *c);
bool flow_model_client_begin(FlowModelClient *c);
void flow_model_client_cancel(FlowModelClient *c);
bool flow_model_client_write(FlowModelClient *c, const SpiceFlowBuffer *buffer);
void flow_model_settle(FlowModel *m);
bool flow_model_server_write(FlowModel *m, const SpiceFlowBuffer *buffer);
bool flow_model_server_may_write(const FlowModel *m);
void flow_model_server_write_unpaid(FlowModel *m,
                                    const SpiceFlowBuffer *buffer);
void flow_model_guest_ready(FlowModel *m);

bool flow_model_may_send(FlowModel *m, size_t len);
bool flow_model_guest_waits(const FlowModel *m);
bool flow_model_send(FlowModel *m, const void *data, size_t len);
bool flow_model_may_send_to(FlowModelClient *c, size_t len);
void flow_model_send_to(FlowModelClient *c, const void *data, size_t len);
size_t flow_model_send_stream(FlowModel *m, const void *data, size_t len);
void flow_model_client_sent(FlowModelClient *c);
void flow_model_client_tokens_add(FlowModelClient *c, uint32_t n);
void flow_model_client_tokens_set(FlowModelClient *c, uint32_t n);

/* pool_bytes is not modelled and stays 0 */
void flow_model_info(const FlowModel *m, SpiceFlowInfo *info);
void flow_model_client_info(const FlowModelClient *c,
                            SpiceFlowClientInfo *info);
void flow_model_client_foreach(FlowModel *m,
                               void (*fn)(FlowModelClient *, void *),
                               void *data);
void flow_model_save(const FlowModel *m, SpiceFlowSaved *saved, int64_t now);
/* Of a state that is known to be good: the model does not look for errors. */
void flow_model_restore(FlowModel *m, const SpiceFlowSaved *saved,
                        int64_t now);

#endif
