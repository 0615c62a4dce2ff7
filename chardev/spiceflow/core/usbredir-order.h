/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What usb-redir waits for, as seen in the stream.  Private to the guard over
 * usbredir packets; usbredir-order.c opens with how it works.
 */
#ifndef CORE_USBREDIR_ORDER_H
#define CORE_USBREDIR_ORDER_H

#include "chardev/spiceflow/usbredir.h"

typedef struct Order {
    GArray *requests;           /* SpiceFlowUsbredirRequest, in their order */
    uint32_t receiving;         /* endpoints with buffered bulk */
    bool behind;                /* usb-redir has said more than was seen */
    SpiceFlowUsbredirDevice device;
} Order;

typedef enum {
    ORDER_GOOD,
    ORDER_UNSEEN,               /* depends on what was not seen yet */
    ORDER_BAD,
} OrderVerdict;

/* The device is gone, and with it all that it was asked. */
void order_reset(Order *order);
void order_free(Order *order);

/* usb-redir asks; false when too much is without an answer. */
bool order_request(Order *order, uint8_t ep, uint32_t stream, uint64_t id);
/* usb-redir takes a request back. */
void order_cancel(Order *order, uint64_t id);
void order_receiving(Order *order, uint8_t ep, bool on);

/* Whether the client may answer; order_answer() then counts it. */
OrderVerdict order_may_answer(const Order *order, uint8_t ep, uint64_t id);
void order_answer(Order *order, uint8_t ep, uint64_t id);

/*
 * Whether the client may describe interfaces or endpoints that way, @header
 * as it is in the packet (interface_info, ep_info with or without @sizes); on
 * ORDER_BAD @which is the interface or the endpoint.
 */
OrderVerdict order_may_set_interfaces(const Order *order,
                                      const uint8_t *header, uint8_t *which);
void order_set_interfaces(Order *order, const uint8_t *header);
OrderVerdict order_may_set_eps(const Order *order, const uint8_t *header,
                               bool sizes, uint8_t *which);
void order_set_eps(Order *order, const uint8_t *header, bool sizes);

void order_save(const Order *order, SpiceFlowUsbredirSavedOrder *saved);
/* Returns NULL, or the field that can not be; then nothing has changed. */
const char *order_restore(Order *order,
                          const SpiceFlowUsbredirSavedOrder *saved);

#endif
