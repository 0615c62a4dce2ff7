/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why something ends: a client, a channel, a hold on a device.  And why a
 * connection does not become any of these.
 *
 * Where a reason is asked for, a phrase may be given as well, for traces and
 * people; NULL stands for the reason's own.
 */
#ifndef CHARDEV_SPICEFLOW_REASON_H
#define CHARDEV_SPICEFLOW_REASON_H

#include "chardev/spiceflow/flow.h"

/**
 * SFReason: why it has ended.
 * @SF_REASON_LEFT: the client wanted it, or its connection broke
 * @SF_REASON_VANISHED: its machine does not answer
 * @SF_REASON_STALLED: it takes nothing, and others wait
 * @SF_REASON_OVERFLOW: it does not read, and its queue is full
 * @SF_REASON_TOKEN_VIOLATION: it sent more than it had tokens for
 * @SF_REASON_PROTOCOL_ERROR: it sent what the protocol does not allow
 * @SF_REASON_REPLACED: another client has its place
 * @SF_REASON_MIGRATION: it is on its way to the target
 * @SF_REASON_GUEST_CLOSED: the guest's end is closed
 * @SF_REASON_GUEST_REPLACED: another state was loaded
 * @SF_REASON_DEVICE_DELETED: the chardev goes
 * @SF_REASON_SERVER_DELETED: the server object goes
 */
typedef enum {
    SF_REASON_LEFT,
    SF_REASON_VANISHED,
    SF_REASON_STALLED,
    SF_REASON_OVERFLOW,
    SF_REASON_TOKEN_VIOLATION,
    SF_REASON_PROTOCOL_ERROR,
    SF_REASON_REPLACED,
    SF_REASON_MIGRATION,
    SF_REASON_GUEST_CLOSED,
    SF_REASON_GUEST_REPLACED,
    SF_REASON_DEVICE_DELETED,
    SF_REASON_SERVER_DELETED,
    SF_REASON__MAX
} SFReason;

/**
 * SFRefusal: why a connection was not let in.
 * @SF_REFUSAL_NONE: it went away by itself
 * @SF_REFUSAL_AUTHENTICATION: wrong password, or none to compare with
 * @SF_REFUSAL_TLS_REQUIRED: it speaks in the clear
 * @SF_REFUSAL_TLS_FAILED: the handshake failed
 * @SF_REFUSAL_MAX_CLIENTS: there are enough clients
 * @SF_REFUSAL_UNKNOWN_CLIENT: its connection id is nobody's
 * @SF_REFUSAL_NO_SUCH_CHANNEL: there is no such channel
 * @SF_REFUSAL_CHANNEL_BUSY: another client has the channel
 * @SF_REFUSAL_TIMEOUT: it took too long
 * @SF_REFUSAL_TOO_MANY_LINKS: newer ones came
 * @SF_REFUSAL_PROTOCOL_ERROR: it does not speak SPICE
 */
typedef enum {
    SF_REFUSAL_NONE,
    SF_REFUSAL_AUTHENTICATION,
    SF_REFUSAL_TLS_REQUIRED,
    SF_REFUSAL_TLS_FAILED,
    SF_REFUSAL_MAX_CLIENTS,
    SF_REFUSAL_UNKNOWN_CLIENT,
    SF_REFUSAL_NO_SUCH_CHANNEL,
    SF_REFUSAL_CHANNEL_BUSY,
    SF_REFUSAL_TIMEOUT,
    SF_REFUSAL_TOO_MANY_LINKS,
    SF_REFUSAL_PROTOCOL_ERROR,
    SF_REFUSAL__MAX
} SFRefusal;

/**
 * sf_reason_text: a reason in words.
 * @reason: the reason
 *
 * Returns: a constant phrase about the client.
 */
const char *sf_reason_text(SFReason reason);

/**
 * sf_reason_of_flow: what a reason of the flow machine is here.
 * @reason: why it wants a client removed
 */
SFReason sf_reason_of_flow(SpiceFlowReason reason);

#endif
