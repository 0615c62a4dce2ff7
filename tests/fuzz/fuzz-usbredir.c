/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzes the guard over usbredir packet headers, against libusbredirparser.
 *
 * Input: direction (bit 0) and whether the hellos are part of the stream
 * (bit 1), the capabilities of the client and of usb-redir, how the stream is
 * cut, and the stream.  Whatever the cuts, and the savings and restorings in
 * between, the same bytes pass, in order; and the parser accepts all of them.
 */
#include "chardev/spiceflow/usbredir.h"
#include "../unit/usbredir-receiver.h"
#include "fuzz.h"

/* The parser allocates what a packet claims: do not let it wait for more */
#define WORTH_COMPARING     65536

typedef struct Input {
    SpiceFlowUsbredirDirection direction;
    bool raw;
    uint32_t client_caps;
    uint32_t device_caps;
    const uint8_t *stream;
    size_t size;
} Input;

static void give_hello(SpiceFlowUsbredir *guard,
                       SpiceFlowUsbredirDirection direction, uint32_t caps)
{
    uint8_t hello[80] = { [4] = 68, [76] = caps };
    SpiceFlowUsbredirSpans spans;

    g_assert_cmpint(spice_flow_usbredir_check(guard, direction, hello,
                                              sizeof(hello), &spans), ==,
                    SPICE_FLOW_USBREDIR_PASS);
    g_assert_cmpuint(spans.pass, ==, sizeof(hello));
}

static SpiceFlowUsbredir *guard_for(const Input *input)
{
    SpiceFlowUsbredir *guard = spice_flow_usbredir_new();
    bool to_guest = input->direction == SPICE_FLOW_USBREDIR_TO_GUEST;

    if (!input->raw || to_guest) {
        give_hello(guard, SPICE_FLOW_USBREDIR_TO_CLIENT,
                   input->device_caps);
    }
    if (!input->raw || !to_guest) {
        give_hello(guard, SPICE_FLOW_USBREDIR_TO_GUEST, input->client_caps);
    }
    return guard;
}

static SpiceFlowUsbredir *reload(SpiceFlowUsbredir *guard)
{
    SpiceFlowUsbredir *next = spice_flow_usbredir_new();
    SpiceFlowUsbredirSaved saved;
    char *error = NULL;

    spice_flow_usbredir_save(guard, &saved);
    g_assert_true(spice_flow_usbredir_restore(next, &saved, &error));
    spice_flow_usbredir_saved_clear(&saved);
    spice_flow_usbredir_free(guard);
    return next;
}

/* Returns how many bytes of the stream passed. */
static size_t run(const Input *input, uint32_t cut, bool *refused,
                  uint32_t *left)
{
    SpiceFlowUsbredir *guard = guard_for(input);
    g_autoptr(GByteArray) out = g_byte_array_new();
    SpiceFlowUsbredirResult result = SPICE_FLOW_USBREDIR_PASS;
    SpiceFlowUsbredirSaved saved;
    size_t pos = 0;

    while (pos < input->size && result == SPICE_FLOW_USBREDIR_PASS) {
        size_t n = cut ? 1 + cut % 331 : input->size;
        g_autofree uint8_t *exact = NULL;
        SpiceFlowUsbredirSpans spans;

        n = MIN(n, input->size - pos);
        exact = g_memdup2(input->stream + pos, n);
        result = spice_flow_usbredir_check(guard, input->direction, exact, n,
                                           &spans);
        g_assert_cmpuint(spans.pass, <=, spans.used);
        g_assert_cmpuint(spans.used, <=, n);
        g_byte_array_append(out, spans.held, spans.held_len);
        g_byte_array_append(out, exact, spans.pass);
        pos += n;
        cut = cut * 1103515245u + 12345u;
        if (cut & 0x10000) {
            guard = reload(guard);
        }
    }
    g_assert_cmpuint(out->len, <=, input->size);
    g_assert_cmpmem(out->data, out->len, input->stream, out->len);
    *refused = result != SPICE_FLOW_USBREDIR_PASS;
    spice_flow_usbredir_save(guard, &saved);
    *left = saved.stream[input->direction].left;
    spice_flow_usbredir_saved_clear(&saved);
    spice_flow_usbredir_free(guard);
    return out->len;
}

/* What passed, the parser reads without complaint. */
static void compare(const Input *input, size_t passed)
{
    bool host = input->direction == SPICE_FLOW_USBREDIR_TO_CLIENT;
    uint8_t hello[80] = { [4] = 68, [76] = host ? input->device_caps
                                                : input->client_caps };
    Receiver *receiver = receiver_new(host, host ? input->client_caps
                                                 : input->device_caps);

    if (!input->raw) {
        g_assert_true(receiver_read(receiver, hello, sizeof(hello)));
    }
    g_assert_true(receiver_read(receiver, input->stream, passed));
    receiver_free(receiver);
}

/* Fields of an order out of the last bytes of the stream */
static void restore_order(const Input *input,
                          SpiceFlowUsbredirSavedOrder *order)
{
    const uint8_t *at = input->stream + input->size;
    size_t left = input->size;
    SpiceFlowUsbredirRequest *requests;
    unsigned n;

    if (left < 4) {
        return;
    }
    order->behind = at[-1] & 1;
    order->device.has_interfaces = at[-1] & 2;
    order->device.has_endpoints = at[-1] & 4;
    order->device.num_interfaces = at[-2] & 63;
    order->receiving = at[-3] * 0x01010101u;
    n = MIN(at[-4], (left - 4) / 2);
    requests = g_new0(SpiceFlowUsbredirRequest, n);
    for (unsigned i = 0; i < n; i++) {
        requests[i].endpoint = at[-5 - 2 * (int)i] & 63;
        requests[i].id = at[-6 - 2 * (int)i];
    }
    order->num_requests = n;
    order->requests = requests;
}

/* The stream as a saved state: refused, or taken as it is. */
static void restore_anything(const Input *input)
{
    SpiceFlowUsbredirSaved saved, again;
    g_autoptr(SpiceFlowUsbredir) guard = spice_flow_usbredir_new();
    size_t order = G_STRUCT_OFFSET(SpiceFlowUsbredirSaved, order);
    SpiceFlowUsbredirSpans spans;
    char *error = NULL;

    memset(&saved, 0, sizeof(saved));
    memcpy(&saved, input->stream, MIN(order, input->size));
    restore_order(input, &saved.order);
    if (spice_flow_usbredir_restore(guard, &saved, &error)) {
        spice_flow_usbredir_save(guard, &again);
        for (int i = 0; i < 2; i++) {
            g_assert_cmpuint(again.stream[i].left, ==, saved.stream[i].left);
            g_assert_cmpmem(again.stream[i].held, again.stream[i].held_size,
                            saved.stream[i].held, saved.stream[i].held_size);
            spice_flow_usbredir_check(guard, i, input->stream, input->size,
                                      &spans);
        }
        spice_flow_usbredir_saved_clear(&again);
    }
    g_free(error);
    spice_flow_usbredir_saved_clear(&saved);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input input;
    bool whole_refused, cut_refused;
    uint32_t whole_left, cut_left;
    size_t whole, cut;

    if (size < 5) {
        return 0;
    }
    input = (Input) {
        .direction = data[0] & 1,
        .raw = data[0] & 2,
        .client_caps = data[1],
        /* a usb-guest says by itself that it acknowledges */
        .device_caps = data[2] | 1 << usb_redir_cap_device_disconnect_ack,
        .stream = data + 4,
        .size = size - 4,
    };

    whole = run(&input, 0, &whole_refused, &whole_left);
    cut = run(&input, data[3] | 1, &cut_refused, &cut_left);
    g_assert_cmpuint(whole, ==, cut);
    g_assert_cmpint(whole_refused, ==, cut_refused);
    g_assert_cmpuint(whole_left, ==, cut_left);
    if (whole_left < WORTH_COMPARING) {
        compare(&input, whole);
    }
    restore_anything(&input);
    return 0;
}
