/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What usb-redir waits for, as seen in the stream.
 *
 * Theory of operation
 *
 * QEMU's USB core asserts that the requests of an endpoint are completed in
 * the order in which the guest made them (but for those with a stream id), and
 * usb-redir completes whatever a client answers.  So the bulk requests without
 * an answer are kept in a table, in order: usb-redir adds and cancels, an
 * answer takes out.  An answer to a request that is not in the table finds
 * nothing in usb-redir either, and passes: the usual end of a cancelled one.
 *
 * How a request is completed depends on what the client said of its endpoint:
 * combined with others, or out of a buffer.  So an interface that has a
 * request open, or receives buffered bulk data, must stay as it is, with its
 * endpoints.  Guests cancel what is open before they change a setting, and
 * honest clients describe a device anew only then.
 *
 * usb-redir keeps what the device does not take, so it may have made requests
 * that were not seen yet.  While that is so ("behind"), what depends on it has
 * to wait.
 *
 * All of this is saved, but earlier versions did not: a guard that was restored
 * from a state of theirs knows no open requests, so the answers to those that
 * were open then all pass.
 */
#include "usbredir-order.h"

#include <string.h>

#define EP_IN               0x80

/* Where arrays lie in interface_info and ep_info */
#define INTERFACE_ARRAYS    4
#define EP_INTERFACE        64
#define EP_MAX_PACKET       96
/* The type of an endpoint that there is not */
#define EP_NONE             0xff

typedef SpiceFlowUsbredirRequest Request;

#define INTERFACES          SPICE_FLOW_USBREDIR_INTERFACES
#define EPS                 SPICE_FLOW_USBREDIR_ENDPOINTS

/* usb-redir looks at these bits alone. */
static uint8_t ep_index(uint8_t ep)
{
    return (ep & EP_IN) >> 3 | (ep & 0x0f);
}

static uint8_t index_ep(unsigned i)
{
    return (i & 0x10) << 3 | (i & 0x0f);
}

static uint32_t get_u32(const uint8_t *in)
{
    return in[0] | in[1] << 8 | in[2] << 16 | (uint32_t)in[3] << 24;
}

static uint16_t ep_max_packet(const uint8_t *header, unsigned i, bool sizes)
{
    const uint8_t *in = header + EP_MAX_PACKET + 2 * i;

    return sizes ? in[0] | in[1] << 8 : 0;
}

static const Request *request_at(const Order *order, unsigned i)
{
    return &g_array_index(order->requests, Request, i);
}

static unsigned num_requests(const Order *order)
{
    return order->requests ? order->requests->len : 0;
}

void order_free(Order *order)
{
    if (order->requests) {
        g_array_unref(order->requests);
    }
    memset(order, 0, sizeof(*order));
}

void order_reset(Order *order)
{
    bool behind = order->behind;

    order_free(order);
    order->behind = behind;
}

static void request_append(Order *order, const Request *request)
{
    if (!order->requests) {
        order->requests = g_array_new(FALSE, FALSE, sizeof(Request));
    }
    g_array_append_vals(order->requests, request, 1);
}

bool order_request(Order *order, uint8_t ep, uint32_t stream, uint64_t id)
{
    Request request = { .id = id, .stream = stream, .endpoint = ep_index(ep) };

    if (num_requests(order) == SPICE_FLOW_USBREDIR_REQUESTS) {
        return false;
    }
    request_append(order, &request);
    return true;
}

void order_cancel(Order *order, uint64_t id)
{
    for (unsigned i = 0; i < num_requests(order); i++) {
        if (request_at(order, i)->id == id) {
            g_array_remove_index(order->requests, i);
            return;
        }
    }
}

void order_receiving(Order *order, uint8_t ep, bool on)
{
    uint32_t bit = 1u << ep_index(ep);

    order->receiving = on ? order->receiving | bit : order->receiving & ~bit;
}

OrderVerdict order_may_answer(const Order *order, uint8_t ep, uint64_t id)
{
    uint8_t index = ep_index(ep);
    bool first = true;

    for (unsigned i = 0; i < num_requests(order); i++) {
        const Request *request = request_at(order, i);

        if (request->endpoint != index) {
            continue;
        }
        if (request->id == id) {
            return first || request->stream ? ORDER_GOOD : ORDER_BAD;
        }
        first = false;
    }
    return order->behind ? ORDER_UNSEEN : ORDER_GOOD;
}

void order_answer(Order *order, uint8_t ep, uint64_t id)
{
    for (unsigned i = 0; i < num_requests(order); i++) {
        const Request *request = request_at(order, i);

        if (request->endpoint == ep_index(ep) && request->id == id) {
            g_array_remove_index(order->requests, i);
            return;
        }
    }
}

/* The endpoints that something is open on. */
static uint32_t busy_eps(const Order *order)
{
    uint32_t busy = order->receiving;

    for (unsigned i = 0; i < num_requests(order); i++) {
        busy |= 1u << request_at(order, i)->endpoint;
    }
    return busy;
}

static bool interface_busy(const Order *order, uint32_t busy, uint8_t interface)
{
    for (unsigned i = 0; i < EPS; i++) {
        if (busy & 1u << i && order->device.interface[i] == interface) {
            return true;
        }
    }
    return false;
}

/* What interface_info says of an interface: its place there, or none. */
static const uint8_t *interface_find(const uint8_t *arrays, uint32_t num,
                                     uint8_t interface)
{
    for (unsigned i = 0; i < num; i++) {
        if (arrays[i] == interface) {
            return arrays + i;
        }
    }
    return NULL;
}

static bool interface_same(const uint8_t *a, const uint8_t *b)
{
    for (unsigned i = 0; i < INTERFACE_ARRAYS; i++) {
        if (!a != !b || (a && a[i * INTERFACES] != b[i * INTERFACES])) {
            return false;
        }
    }
    return true;
}

OrderVerdict order_may_set_interfaces(const Order *order,
                                      const uint8_t *header, uint8_t *which)
{
    const SpiceFlowUsbredirDevice *device = &order->device;
    uint32_t busy = busy_eps(order);

    if (order->behind) {
        return ORDER_UNSEEN;
    }
    for (unsigned i = 0; device->has_interfaces && i < EPS; i++) {
        uint8_t interface = device->interface[i];

        if (busy & 1u << i &&
            !interface_same(interface_find(device->interfaces,
                                           device->num_interfaces, interface),
                            interface_find(header + 4, get_u32(header),
                                           interface))) {
            *which = interface;
            return ORDER_BAD;
        }
    }
    return ORDER_GOOD;
}

void order_set_interfaces(Order *order, const uint8_t *header)
{
    SpiceFlowUsbredirDevice *device = &order->device;

    device->has_interfaces = true;
    device->num_interfaces = get_u32(header);
    memcpy(device->interfaces, header + 4, sizeof(device->interfaces));
}

OrderVerdict order_may_set_eps(const Order *order, const uint8_t *header,
                               bool sizes, uint8_t *which)
{
    const SpiceFlowUsbredirDevice *device = &order->device;
    uint32_t busy = busy_eps(order);

    if (order->behind) {
        return ORDER_UNSEEN;
    }
    for (unsigned i = 0; busy && device->has_endpoints && i < EPS; i++) {
        uint8_t interface = header[EP_INTERFACE + i];

        if (((device->type[i] != EP_NONE &&
              interface_busy(order, busy, device->interface[i])) ||
             (header[i] != EP_NONE &&
              interface_busy(order, busy, interface))) &&
            (device->type[i] != header[i] ||
             device->interface[i] != interface ||
             device->max_packet[i] != ep_max_packet(header, i, sizes))) {
            *which = index_ep(i);
            return ORDER_BAD;
        }
    }
    return ORDER_GOOD;
}

void order_set_eps(Order *order, const uint8_t *header, bool sizes)
{
    SpiceFlowUsbredirDevice *device = &order->device;

    device->has_endpoints = true;
    for (unsigned i = 0; i < EPS; i++) {
        device->type[i] = header[i];
        device->interface[i] = header[EP_INTERFACE + i];
        device->max_packet[i] = ep_max_packet(header, i, sizes);
    }
}

void order_save(const Order *order, SpiceFlowUsbredirSavedOrder *saved)
{
    saved->behind = order->behind;
    saved->receiving = order->receiving;
    saved->device = order->device;
    saved->num_requests = num_requests(order);
    saved->requests = saved->num_requests ?
                      g_memdup2(order->requests->data,
                                saved->num_requests * sizeof(Request)) : NULL;
}

const char *order_restore(Order *order,
                          const SpiceFlowUsbredirSavedOrder *saved)
{
    if (saved->num_requests > SPICE_FLOW_USBREDIR_REQUESTS) {
        return "num_requests";
    }
    for (uint32_t i = 0; i < saved->num_requests; i++) {
        if (saved->requests[i].endpoint >= EPS) {
            return "requests.endpoint";
        }
    }
    if (saved->device.num_interfaces >
        (saved->device.has_interfaces ? INTERFACES : 0)) {
        return "device.num_interfaces";
    }
    order_free(order);
    order->behind = saved->behind;
    order->receiving = saved->receiving;
    order->device = saved->device;
    for (uint32_t i = 0; i < saved->num_requests; i++) {
        request_append(order, &saved->requests[i]);
    }
    return NULL;
}
