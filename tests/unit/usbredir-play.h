/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of the guard over usbredir packets share: packets in
 * hexadecimal, and how they are given to a guard.
 */
#ifndef TESTS_UNIT_USBREDIR_PLAY_H
#define TESTS_UNIT_USBREDIR_PLAY_H

#include "bytes.h"
#include "chardev/spiceflow/usbredir.h"
#include "usbredir-receiver.h"

#define TO_GUEST    SPICE_FLOW_USBREDIR_TO_GUEST
#define TO_CLIENT   SPICE_FLOW_USBREDIR_TO_CLIENT

/* Capabilities */
#define STREAMS     (1 << usb_redir_cap_bulk_streams)
#define VERSION     (1 << usb_redir_cap_connect_device_version)
#define FILTER      (1 << usb_redir_cap_filter)
#define ACK         (1 << usb_redir_cap_device_disconnect_ack)
#define EP_MAX      (1 << usb_redir_cap_ep_info_max_packet_size)
#define ID_64       (1 << usb_redir_cap_64bits_ids)
#define BULK_32     (1 << usb_redir_cap_32bits_bulk_length)
#define RECEIVING   (1 << usb_redir_cap_bulk_receiving)
#define ALL_CAPS    0xff

/* Hexadecimal: repeated, a head with an id of 32 and of 64 bits */
#define R4(x)       x x x x
#define R16(x)      R4(R4(x))
#define R32(x)      R16(x) R16(x)
#define R64(x)      R16(R4(x))
#define P(type, length)  type "000000 " length " 07000000 "
#define Q(type, length)  type "000000 " length " 07000000 00000000 "

#define HELLO(caps)      P("00", "44000000") R64("00") caps

static inline GByteArray *hello_of(uint32_t caps)
{
    GByteArray *hello = bytes_of(P("00", "44000000") R64("00"));

    caps = GUINT32_TO_LE(caps);
    g_byte_array_append(hello, (const uint8_t *)&caps, sizeof(caps));
    return hello;
}

static inline void saved_same(const SpiceFlowUsbredirSaved *a,
                              const SpiceFlowUsbredirSaved *b)
{
    SpiceFlowUsbredirSaved x = *a, y = *b;

    g_assert_cmpuint(x.order.num_requests, ==, y.order.num_requests);
    for (uint32_t i = 0; i < x.order.num_requests; i++) {
        g_assert_cmpuint(x.order.requests[i].id, ==, y.order.requests[i].id);
        g_assert_cmpuint(x.order.requests[i].stream, ==,
                         y.order.requests[i].stream);
        g_assert_cmpuint(x.order.requests[i].endpoint, ==,
                         y.order.requests[i].endpoint);
    }
    x.order.requests = y.order.requests = NULL;
    g_assert_cmpmem(&x, sizeof(x), &y, sizeof(y));
}

/* The guard goes on as one that was saved and restored. */
static inline void reload(SpiceFlowUsbredir *guard)
{
    SpiceFlowUsbredirSaved saved, again;
    char *error = NULL;

    spice_flow_usbredir_save(guard, &saved);
    spice_flow_usbredir_reset(guard);
    g_assert_true(spice_flow_usbredir_restore(guard, &saved, &error));
    g_assert_null(error);
    spice_flow_usbredir_save(guard, &again);
    saved_same(&saved, &again);
    spice_flow_usbredir_saved_clear(&saved);
    spice_flow_usbredir_saved_clear(&again);
}

/*
 * Gives the guard a piece, in a block of its own that is gone afterwards, and
 * appends what passes to @out.
 */
static inline SpiceFlowUsbredirResult give(SpiceFlowUsbredir *guard,
                                    SpiceFlowUsbredirDirection direction,
                                    const uint8_t *data, size_t len,
                                    GByteArray *out)
{
    g_autofree uint8_t *copy = g_memdup2(data, len);
    SpiceFlowUsbredirSpans spans;
    SpiceFlowUsbredirResult result;

    result = spice_flow_usbredir_check(guard, direction, copy, len, &spans);
    g_assert_cmpuint(spans.pass, <=, spans.used);
    g_assert_cmpuint(spans.used, <=, len);
    if (result == SPICE_FLOW_USBREDIR_PASS) {
        g_assert_cmpuint(spans.used, ==, len);
    }
    g_assert_cmpint(result == SPICE_FLOW_USBREDIR_BAD, ==,
                    spice_flow_usbredir_error(guard) != NULL);
    if (spans.held_len) {
        g_byte_array_append(out, spans.held, spans.held_len);
    }
    if (spans.pass) {
        g_byte_array_append(out, copy, spans.pass);
    }
    return result;
}

static inline SpiceFlowUsbredir *greeted_guard(uint32_t client_caps,
                                        uint32_t device_caps)
{
    SpiceFlowUsbredir *guard = spice_flow_usbredir_new();
    g_autoptr(GByteArray) client = hello_of(client_caps);
    g_autoptr(GByteArray) device = hello_of(device_caps);
    g_autoptr(GByteArray) out = g_byte_array_new();

    g_assert_cmpint(give(guard, TO_CLIENT, device->data, device->len, out),
                    ==, SPICE_FLOW_USBREDIR_PASS);
    g_assert_cmpint(give(guard, TO_GUEST, client->data, client->len, out),
                    ==, SPICE_FLOW_USBREDIR_PASS);
    g_assert_cmpuint(out->len, ==, client->len + device->len);
    g_assert_true(spice_flow_usbredir_greeted(guard, TO_GUEST));
    g_assert_true(spice_flow_usbredir_greeted(guard, TO_CLIENT));
    return guard;
}

static inline Receiver *greeted_receiver(SpiceFlowUsbredirDirection direction,
                                  uint32_t client_caps, uint32_t device_caps)
{
    bool host = direction == TO_CLIENT;
    Receiver *receiver = receiver_new(host, host ? client_caps : device_caps);
    g_autoptr(GByteArray) hello = hello_of(host ? device_caps : client_caps);

    g_assert_true(receiver_read(receiver, hello->data, hello->len));
    return receiver;
}

#endif
