/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reasons in words.
 */
#include "qemu/osdep.h"
#include "reason.h"

const char *sf_reason_text(SFReason reason)
{
    static const char *const text[SF_REASON__MAX] = {
        [SF_REASON_LEFT] = "left",
        [SF_REASON_VANISHED] = "its machine does not answer any more",
        [SF_REASON_STALLED] = "stalled",
        [SF_REASON_OVERFLOW] = "it does not read what it is sent",
        [SF_REASON_TOKEN_VIOLATION] = "token violation",
        [SF_REASON_PROTOCOL_ERROR] = "protocol error",
        [SF_REASON_REPLACED] = "a new client takes its place",
        [SF_REASON_MIGRATION] = "the machine migrates",
        [SF_REASON_GUEST_CLOSED] = "the guest closed its end",
        [SF_REASON_GUEST_REPLACED] = "the guest was replaced",
        [SF_REASON_DEVICE_DELETED] = "the device is deleted",
        [SF_REASON_SERVER_DELETED] = "the server is deleted",
    };

    return text[reason];
}

SFReason sf_reason_of_flow(SpiceFlowReason reason)
{
    static const SFReason of[] = {
        [SPICE_FLOW_TOKEN_VIOLATION] = SF_REASON_TOKEN_VIOLATION,
        [SPICE_FLOW_STALLED] = SF_REASON_STALLED,
        [SPICE_FLOW_OVERFLOW] = SF_REASON_OVERFLOW,
    };

    return of[reason];
}
