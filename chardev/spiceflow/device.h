/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all devices share: a kind, a server, a frontend, and a flow machine that
 * follows the VM's run state.
 */
#ifndef CHARDEV_SPICEFLOW_DEVICE_H
#define CHARDEV_SPICEFLOW_DEVICE_H

#include "qobject/qdict.h"
#include "qemu/timer.h"
#include "frontend.h"
#include "saved.h"
#include "server.h"

typedef struct SFKind SFKind;

/**
 * struct SFKind: one of agent, vmc (usbredir and ports) and smart card.
 * @endpoint_ops: of the device's own endpoint, or NULL when it has none
 * @shared: all clients of the server use it at once; otherwise one has it
 * @init: make the flow machine; false with @errp set
 * @cleanup: the device goes: everything that @init made goes too
 * @write: ChardevClass.chr_write, while a client is there or not
 * @held_back: whether what the frontend writes has to wait for something else
 *   than room: @write takes nothing then.  Optional
 * @set_fe_open: the guest opened or closed its side
 * @carries: whether there is something to save while the flow machine is
 *   empty.  Optional
 * @save: fill in what is the kind's own; nothing changes
 * @rewind: the guest is about to be replaced by another one: clients go, or
 *   begin anew; the guest's side is closed already.  Optional
 * @restore: take a state over, after @rewind.  On failure nothing of it stays.
 *   Clients of sf_handover_awaited() stay in it, until SFEndpointOps.resume or
 *   @lose; the others are lost at once
 * @lose: who was restored and is not here now will not come
 * @place: the number by which clients know the device; that of the endpoint
 *   where there is none.  Optional
 * @client_params: change those of sf_device_client_params().  Optional
 * @saved_max: bytes of its state beside the flow machine's, at most, with so
 *   many clients.  Optional
 * @describe: add what is the kind's own to the members of `flow`.  Optional
 */
struct SFKind {
    const SFEndpointOps *endpoint_ops;
    bool shared;
    bool (*init)(SFDevice *device, Error **errp);
    void (*cleanup)(SFDevice *device);
    size_t (*write)(SFDevice *device, const uint8_t *buf, size_t len);
    bool (*held_back)(const SFDevice *device);
    void (*set_fe_open)(SFDevice *device, bool open);
    bool (*carries)(SFDevice *device);
    void (*save)(SFDevice *device, SFSaved *saved);
    void (*rewind)(SFDevice *device);
    bool (*restore)(SFDevice *device, const SFSaved *saved, Error **errp);
    void (*lose)(SFDevice *device);
    uint32_t (*place)(const SFDevice *device);
    void (*client_params)(const SFDevice *device,
                          SpiceFlowClientParams *params);
    size_t (*saved_max)(const SFDevice *device, uint32_t num_clients);
    void (*describe)(SFDevice *device, QDict *dict);
};

/**
 * struct SFDevice: one device, embedded in the chardev.
 * @endpoint: its channel; not of a smart card, those share one
 * @agent_ops: for the main channel; only of the agent
 * @kind: its kind
 * @label: the chardev's id
 * @name: the chardev's name option
 * @queue_size: bytes that may wait per direction and client
 * @frontend: the QEMU frontend behind it
 * @flow: the flow machine
 * @fe_open: the guest has opened its side
 * @carried: it is a section of the vmstate
 * @rewound: the guest is another one when the VM starts next
 * @settling: the frontend takes nothing yet
 * @saved: what is being saved or loaded, else NULL
 * @moving: likewise, and after a load until the VM starts
 * @priv: of the kind
 */
struct SFDevice {
    SFEndpoint endpoint;
    const SFAgentOps *agent_ops;
    const SFKind *kind;
    const char *label;
    char *name;
    uint64_t queue_size;
    SFServer *server;
    SFFrontend frontend;
    SpiceFlow *flow;
    bool fe_open;
    bool registered;
    bool carried;
    bool rewound;
    bool settling;
    SFSaved *saved;
    SFMoving moving;
    QEMUTimer *stall_timer;
    QEMUTimer *settle_timer;
    VMChangeStateEntry *run_state;
    void *priv;
    QTAILQ_ENTRY(SFDevice) next;
};

extern const SFKind sf_agent_kind;
extern const SFKind sf_card_kind;
extern const SFKind sf_vmc_kind;

/* Bytes of the largest buffer to the guest, and message to a client. */
#define SF_MESSAGE_MAX      (64 * 1024)
/* Smallest queue-size: one message must fit. */
#define SF_QUEUE_MIN        SF_MESSAGE_MAX
#define SF_QUEUE_DEFAULT    (1024 * 1024)
/*
 * Messages that may wait for each KiB of queue-size: small ones cost more
 * than their bytes.
 */
#define SF_QUEUE_MESSAGES(bytes)    MAX((bytes) / 1024, 64)

/**
 * sf_device_kind: the kind of device, and the type of channel, for a name.
 * @name: the chardev's name option
 * @type: set to SPICE_CHANNEL_*
 *
 * Returns: the kind.
 */
const SFKind *sf_device_kind(const char *name, uint8_t *type);

/**
 * sf_device_init: bring a device up and register it.
 * @device: zeroed, with label, name, queue_size and server set; the frontend
 *   initialised
 * @errp: pointer to a NULL-initialized error object
 *
 * Returns: false on failure; sf_device_cleanup() is due all the same.
 */
bool sf_device_init(SFDevice *device, Error **errp);
void sf_device_cleanup(SFDevice *device);

/**
 * sf_device_place: the number by which clients know the device.
 * @device: the device
 */
uint32_t sf_device_place(const SFDevice *device);

/**
 * sf_device_settle: the frontend has come from elsewhere, and takes nothing
 * before the devices around it have begun to work.
 * @device: the device
 */
void sf_device_settle(SFDevice *device);

/**
 * sf_device_now: the time that the flow machine of a device is given.
 *
 * Returns: ms; runs on while the VM is stopped.
 */
static inline int64_t sf_device_now(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

/**
 * sf_device_flow_new: a flow machine whose ops without a client are served by
 * the device.
 * @device: the device
 * @ops: the kind's client ops; the others are filled in
 * @params: see spice_flow_new()
 */
void sf_device_flow_new(SFDevice *device, SpiceFlowOps *ops,
                        const SpiceFlowParams *params);

/**
 * sf_device_stall_timeout_changed: the server has another stall-timeout.
 * @device: the device
 */
void sf_device_stall_timeout_changed(SFDevice *device);

/**
 * sf_device_client_params: flow parameters of a client.
 * @device: the device
 * @id: its connection id
 */
SpiceFlowClientParams sf_device_client_params(const SFDevice *device,
                                              uint32_t id);

/**
 * sf_device_queued_max: bytes that the state of the flow machine can grow to
 * with as many clients as are allowed now.
 * @device: the device
 */
size_t sf_device_queued_max(const SFDevice *device);

/**
 * sf_device_saved_max: likewise, all that a migration carries of the device.
 * @device: the device
 */
size_t sf_device_saved_max(const SFDevice *device);

#endif
