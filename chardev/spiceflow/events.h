/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is told to those who manage the VM: the QMP events SPICEFLOW_*, and
 * counts of what was refused.
 */
#ifndef CHARDEV_SPICEFLOW_EVENTS_H
#define CHARDEV_SPICEFLOW_EVENTS_H

#include "qobject/qdict.h"
#include "chardev/spiceflow/vdagent.h"
#include "server.h"

/**
 * sf_events_new: a server has begun to listen.
 * @id: its id, copied
 *
 * Returns: freed with sf_events_free().
 */
SFEvents *sf_events_new(const char *id);

/**
 * sf_events_free: what was not told yet is told now.
 * @events: may be NULL
 */
void sf_events_free(SFEvents *events);

/**
 * sf_events_describe: add counts to the members of `stats`.
 * @events: may be NULL
 * @dict: the members
 */
void sf_events_describe(const SFEvents *events, QDict *dict);

/*
 * Each may be called anywhere under QEMU's lock; the event goes out from the
 * main loop.  Strings are copied; @why may be NULL, see reason.h.
 */

void sf_event_client_connected(SFClient *client);
void sf_event_client_removed(SFClient *client);

/**
 * sf_event_channel_opened: a channel has been given to its device.
 * @client: its client
 * @channel: the channel
 */
void sf_event_channel_opened(SFClient *client, SFChannel *channel);

/**
 * sf_event_channel_closed: a channel was closed, for its reason.
 * @client: its client
 * @channel: the channel
 */
void sf_event_channel_closed(SFClient *client, SFChannel *channel);

void sf_event_device_claimed(SFDevice *device, SFClient *client);
void sf_event_device_released(SFDevice *device, SFClient *client,
                              SFReason reason, const char *why);
void sf_event_link_refused(SFServer *server, const char *peer,
                           SFRefusal refusal, const char *why);
void sf_event_transfer(SFDevice *device, const SpiceVdagentTransfer *transfer);

#endif
