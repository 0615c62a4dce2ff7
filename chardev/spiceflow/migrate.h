/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of a device in QEMU's vmstate, and what a device does when its
 * guest is replaced by another one: snapshots, and migration.
 */
#ifndef CHARDEV_SPICEFLOW_MIGRATE_H
#define CHARDEV_SPICEFLOW_MIGRATE_H

#include "device.h"
#include "hw/resettable.h"

/**
 * sf_migrate_register: carry the device from now on, as the section
 * "LABEL/spiceflow".  There can be one of that name at a time.
 * @device: the device, initialised
 * @errp: pointer to a NULL-initialized error object
 *
 * Returns: false on failure.
 */
bool sf_migrate_register(SFDevice *device, Error **errp);

/**
 * sf_migrate_unregister: stop that.
 * @device: the device, registered or not
 */
void sf_migrate_unregister(SFDevice *device);

/**
 * sf_migrate_reset: the machine is reset.
 * @device: the device
 * @type: why
 */
void sf_migrate_reset(SFDevice *device, ResetType type);

/**
 * sf_migrate_started: the VM has started.
 * @device: the device
 */
void sf_migrate_started(SFDevice *device);

/**
 * sf_migrate_flow_restore: put a flow machine where another one was saved.
 * @device: the device; its flow machine has no client that its kind knows of
 * @saved: the state
 * @errp: pointer to a NULL-initialized error object
 *
 * Returns: false when it is not a possible state; then the machine is as it
 * was.
 */
bool sf_migrate_flow_restore(SFDevice *device, const SFSaved *saved,
                             Error **errp);

/**
 * sf_migrate_flow_lose: of the clients that were just restored only those stay
 * that are on their way here: see sf_handover_awaited().
 * @device: the device
 *
 * Returns: whether the guest is left in the middle of a message, see
 * spice_flow_client_remove().
 */
bool sf_migrate_flow_lose(SFDevice *device);

/**
 * sf_migrate_flow_lose_away: nor do those who have not come by now.
 * @device: the device
 */
void sf_migrate_flow_lose_away(SFDevice *device);

/**
 * sf_migrate_flow_resume: a client that was restored has come.
 * @client: the client
 * @opaque: handed to the client ops from now on
 *
 * Returns: false when it has to go.
 */
bool sf_migrate_flow_resume(SpiceFlowClient *client, void *opaque);

#endif
