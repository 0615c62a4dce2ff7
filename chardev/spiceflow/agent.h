/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the agent's device share: agent.c, which has the theory of
 * operation, agent-show.c and agent-state.c.
 */
#ifndef CHARDEV_SPICEFLOW_AGENT_H
#define CHARDEV_SPICEFLOW_AGENT_H

#include "chardev/spiceflow/vdagent.h"
#include "device.h"

typedef struct SFAgent {
    SFDevice *device;
    SpiceFlowOps flow_ops;
    SpiceVdagent *agent;
    QEMUBH *drop_bh;
    bool broken;                /* the guest's stream, until it closes */
    bool saying;
    bool say_again;
    bool handing_out;           /* or not to be done now */
} SFAgent;

/* A client as the agent sees it; SFClient.agent. */
typedef struct SFAgentClient {
    SFAgent *owner;
    SFClient *client;
    SpiceVdagentClient *vdagent;
    SpiceFlowClient *flow;      /* NULL before AGENT_START */
    bool begun;                 /* its AGENT_DATA has a token */
    bool held;                  /* a notice waits for its queue to shrink */
    uint32_t owed;              /* tokens spent outside of any window */
    uint32_t stale;             /* messages in flight from before */
} SFAgentClient;

/* agent.c */
bool sf_agent_connected(SFDevice *device);
/* Every client is told whether the agent is there. */
void sf_agent_tell_clients(SFAgent *agent);
/* Whatever may have become due is said; nested calls leave it to the first. */
void sf_agent_say(SFAgent *agent);

/* agent-show.c */
void sf_agent_describe(SFDevice *device, QDict *dict);

/* agent-state.c */
bool sf_agent_carries(SFDevice *device);
void sf_agent_save(SFDevice *device, SFSaved *saved);
size_t sf_agent_saved_max(const SFDevice *device, uint32_t num_clients);
bool sf_agent_restore(SFDevice *device, const SFSaved *saved, Error **errp);
void sf_agent_lose(SFDevice *device);

#endif
