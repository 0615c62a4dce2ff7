/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guard over the usbredir stream of one device.
 *
 * QEMU's usb-redir reads the stream with libusbredirparser, and aborts QEMU
 * after a packet that this one refuses.  The guard follows both directions by
 * their packet headers and lets a packet begin only when its whole header was
 * seen and is one that the parser accepts.  Payloads pass uncopied.
 *
 * The guard owns no descriptor and no clock; core/usbredir.c opens with how it
 * works and lists what it refuses.
 */
#ifndef CHARDEV_SPICEFLOW_USBREDIR_H
#define CHARDEV_SPICEFLOW_USBREDIR_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SpiceFlowUsbredir SpiceFlowUsbredir;

/* The longest header: 64-bit ids, ep_info with streams */
#define SPICE_FLOW_USBREDIR_HEADER_MAX  304

/* Bulk requests without an answer that a guard keeps account of */
#define SPICE_FLOW_USBREDIR_REQUESTS    4096

#define SPICE_FLOW_USBREDIR_INTERFACES  32
#define SPICE_FLOW_USBREDIR_ENDPOINTS   32

/* What a packet may carry beside its header: the parser's own limit */
#define SPICE_FLOW_USBREDIR_BULK_MAX    (128u * 1024 * 1024)

/**
 * SpiceFlowUsbredirDirection: one of the two streams.
 * @SPICE_FLOW_USBREDIR_TO_GUEST: from the client (usb-host) to usb-redir
 * @SPICE_FLOW_USBREDIR_TO_CLIENT: from usb-redir (usb-guest) to the client
 */
typedef enum {
    SPICE_FLOW_USBREDIR_TO_GUEST,
    SPICE_FLOW_USBREDIR_TO_CLIENT,
} SpiceFlowUsbredirDirection;

/**
 * SpiceFlowUsbredirResult: what became of the bytes that were checked.
 * @SPICE_FLOW_USBREDIR_PASS: all are used
 * @SPICE_FLOW_USBREDIR_WAIT: those not used can not be judged before more of
 *   the other direction was seen: its hello, or what
 *   spice_flow_usbredir_set_behind() told of.  Check them again after that.
 * @SPICE_FLOW_USBREDIR_BAD: a packet was refused; spice_flow_usbredir_error()
 *   says why.  Nothing passes any more until spice_flow_usbredir_reset().
 */
typedef enum {
    SPICE_FLOW_USBREDIR_PASS,
    SPICE_FLOW_USBREDIR_WAIT,
    SPICE_FLOW_USBREDIR_BAD,
} SpiceFlowUsbredirResult;

/**
 * struct SpiceFlowUsbredirSpans: what may go on, in this order.
 * @held: first these bytes, which earlier calls kept back; borrowed from the
 *   guard, valid until its next call
 * @held_len: how many, often 0
 * @pass: then this many of the bytes given, from their beginning
 * @used: how many of the bytes given are done with.  Those between @pass and
 *   @used are the beginning of a header, and kept by the guard.
 */
typedef struct SpiceFlowUsbredirSpans {
    const uint8_t *held;
    size_t held_len;
    size_t pass;
    size_t used;
} SpiceFlowUsbredirSpans;

/**
 * struct SpiceFlowUsbredirSavedStream: one saved direction.
 * @hello: 1 when its hello has passed
 * @caps: the capabilities in there
 * @type: type of the packet whose payload is passing, else 0
 * @left: bytes of that payload still to come, else 0
 * @held_size: bytes of @held
 * @held: the beginning of a header
 */
typedef struct SpiceFlowUsbredirSavedStream {
    uint8_t hello;
    uint32_t caps;
    uint32_t type;
    uint32_t left;
    uint32_t held_size;
    uint8_t held[SPICE_FLOW_USBREDIR_HEADER_MAX];
} SpiceFlowUsbredirSavedStream;

/**
 * struct SpiceFlowUsbredirRequest: a bulk request without an answer.
 * @id: its packet's id
 * @stream: the bulk stream, 0 without one
 * @endpoint: index of the endpoint, the IN ones from 16
 */
typedef struct SpiceFlowUsbredirRequest {
    uint64_t id;
    uint32_t stream;
    uint8_t endpoint;
} SpiceFlowUsbredirRequest;

/**
 * struct SpiceFlowUsbredirDevice: how the client described its device last.
 * @has_interfaces: it told of interfaces
 * @has_endpoints: it told of endpoints
 * @num_interfaces: how many
 * @interfaces: number, class, subclass, protocol, each of all interfaces
 * @type: of each endpoint, the IN ones from 16
 * @interface: likewise, the number of its interface
 * @max_packet: likewise, the size of its packets; 0 when not told
 */
typedef struct SpiceFlowUsbredirDevice {
    bool has_interfaces;
    bool has_endpoints;
    uint32_t num_interfaces;
    uint8_t interfaces[4 * SPICE_FLOW_USBREDIR_INTERFACES];
    uint8_t type[SPICE_FLOW_USBREDIR_ENDPOINTS];
    uint8_t interface[SPICE_FLOW_USBREDIR_ENDPOINTS];
    uint16_t max_packet[SPICE_FLOW_USBREDIR_ENDPOINTS];
} SpiceFlowUsbredirDevice;

/**
 * struct SpiceFlowUsbredirSavedOrder: what usb-redir waits for.  All zero when
 * that is nothing, and in states that were saved without it.
 * @behind: usb-redir has said more than was seen
 * @receiving: bits of the endpoints that receive buffered bulk data
 * @device: what the requests are made of
 * @requests: in the order in which they were made
 */
typedef struct SpiceFlowUsbredirSavedOrder {
    bool behind;
    uint32_t receiving;
    SpiceFlowUsbredirDevice device;
    uint32_t num_requests;
    SpiceFlowUsbredirRequest *requests;
} SpiceFlowUsbredirSavedOrder;

/**
 * struct SpiceFlowUsbredirSaved: the state of a guard.
 * @refused: 1 when a packet was refused and the guard not reset since
 * @stream: by SpiceFlowUsbredirDirection
 * @order: what usb-redir waits for
 */
typedef struct SpiceFlowUsbredirSaved {
    uint8_t refused;
    SpiceFlowUsbredirSavedStream stream[2];
    SpiceFlowUsbredirSavedOrder order;
} SpiceFlowUsbredirSaved;

/* Bytes that a saved state has at most, its requests included */
#define SPICE_FLOW_USBREDIR_SAVED_MAX                           \
    (sizeof(SpiceFlowUsbredirSaved) +                           \
     SPICE_FLOW_USBREDIR_REQUESTS * sizeof(SpiceFlowUsbredirRequest))

/**
 * spice_flow_usbredir_new: a guard at the beginning of both streams.
 *
 * Returns: a guard, freed with spice_flow_usbredir_free().
 */
SpiceFlowUsbredir *spice_flow_usbredir_new(void);

/**
 * spice_flow_usbredir_free: free a guard.
 * @guard: the guard, or NULL
 */
void spice_flow_usbredir_free(SpiceFlowUsbredir *guard);

/**
 * spice_flow_usbredir_reset: begin both streams anew.  To be called whenever
 * usb-redir makes itself a new parser: when it is told OPENED.
 * @guard: the guard
 */
void spice_flow_usbredir_reset(SpiceFlowUsbredir *guard);

/**
 * spice_flow_usbredir_check: judge the next bytes of a stream.
 * @guard: the guard
 * @direction: which stream
 * @data: the bytes
 * @len: how many
 * @spans: filled, whatever is returned: what may go on.  With
 *   SPICE_FLOW_USBREDIR_BAD that is what came before the refused packet.
 *
 * Returns: what became of them.
 */
SpiceFlowUsbredirResult
spice_flow_usbredir_check(SpiceFlowUsbredir *guard,
                          SpiceFlowUsbredirDirection direction,
                          const uint8_t *data, size_t len,
                          SpiceFlowUsbredirSpans *spans);

/**
 * spice_flow_usbredir_set_behind: whether usb-redir holds packets that it
 * could not write yet.  While it does, packets of the client that only those
 * can tell right from wrong have to wait.
 * @guard: the guard
 * @behind: true while usb-redir's last write was not taken completely
 */
void spice_flow_usbredir_set_behind(SpiceFlowUsbredir *guard, bool behind);

/**
 * spice_flow_usbredir_error: why a packet was refused.
 * @guard: the guard
 *
 * Returns: a sentence that names the sender and the packet, valid until the
 * guard is reset, restored or freed; NULL when none was refused.
 */
const char *spice_flow_usbredir_error(const SpiceFlowUsbredir *guard);

/**
 * spice_flow_usbredir_greeted: whether the hello of a stream has passed.
 * @guard: the guard
 * @direction: which stream
 */
bool spice_flow_usbredir_greeted(const SpiceFlowUsbredir *guard,
                                 SpiceFlowUsbredirDirection direction);

/**
 * spice_flow_usbredir_partial: whether a stream stands inside a packet.
 * @guard: the guard
 * @direction: which stream
 */
bool spice_flow_usbredir_partial(const SpiceFlowUsbredir *guard,
                                 SpiceFlowUsbredirDirection direction);

/**
 * spice_flow_usbredir_save: copy the state; nothing changes.
 * @guard: the guard
 * @saved: filled; what it had is not freed
 */
void spice_flow_usbredir_save(const SpiceFlowUsbredir *guard,
                              SpiceFlowUsbredirSaved *saved);

/**
 * spice_flow_usbredir_saved_clear: free what a saved state holds.
 * @saved: the state; zeroed
 */
void spice_flow_usbredir_saved_clear(SpiceFlowUsbredirSaved *saved);

/**
 * spice_flow_usbredir_saved_order: whether a saved state has more than zeroes
 * in its order.
 * @saved: the state
 */
bool spice_flow_usbredir_saved_order(const SpiceFlowUsbredirSaved *saved);

/**
 * spice_flow_usbredir_restore: replace the state.
 * @guard: the guard
 * @saved: the state; borrowed
 * @error: set to what does not add up, naming the field; freed with g_free()
 *
 * Returns: false when @saved is not a possible state; then nothing changed.
 */
bool spice_flow_usbredir_restore(SpiceFlowUsbredir *guard,
                                 const SpiceFlowUsbredirSaved *saved,
                                 char **error);

/**
 * spice_flow_usbredir_type_name: a packet's type in words.
 * @type: the type
 *
 * Returns: the protocol's name for it, NULL for a type that is none.
 */
const char *spice_flow_usbredir_type_name(uint32_t type);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(SpiceFlowUsbredir, spice_flow_usbredir_free)

#endif
