/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device of any kind with what of it needs no QEMU: the machine, the agent,
 * the guard or the parser.  A random walk brings it into states that occur:
 * with clients that are in the middle of something, queues both ways, messages
 * in flight, open requests.
 */
#ifndef SPICEFLOW_TEST_SAVED_DEVICE_H
#define SPICEFLOW_TEST_SAVED_DEVICE_H

#include "chardev/spiceflow/vdagent.h"
#include "saved.h"

typedef struct Device {
    GRand *rand;
    uint8_t type;
    SpiceFlow *flow;
    SpiceVdagent *agent;
    SpiceFlowUsbredir *guard;
    SpiceFlowVsc *parser;
    GQueue kept;                /* messages in flight */
} Device;

void device_init(Device *device, uint8_t type, GRand *rand);
void device_clear(Device *device);

/* A client other than those of a walk; one at a time. */
SpiceFlowClient *device_add_client(Device *device,
                                   const SpiceFlowClientParams *params);

/* Its state; sf_saved_clear() frees what is in it. */
void device_save(Device *device, SFSaved *saved);

/* Whether the machines take it; if not, they say why. */
bool device_restore(Device *device, const SFSaved *saved);

/* Begin it, do random steps, and stop it. */
void device_walk(Device *device, uint8_t type, GRand *rand);

#endif
