/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guard over usbredir packet headers.
 *
 * Theory of operation
 *
 * A usbredir stream is a row of packets: type, length and id (32 bits each,
 * the id 64 if both sides said so), a header of a size that the type and the
 * capabilities of both sides fix, and for some types a payload, which is what
 * is left of the length.  Everything is little-endian.  Both sides begin with
 * a hello, which tells their capabilities.
 *
 * Each direction stands at one of two places:
 *
 *   header    the bytes of a header that came so far are held, 0 of them at a
 *             packet's border
 *   payload   the header was passed, "left" bytes of payload are still to pass
 *
 * packet_judge() decides on a header from the bytes there are: it needs more,
 * or it can not know yet, or the packet is bad, or it may begin.  A header
 * that lies in the caller's bytes is judged there; one that is cut is gathered
 * in the guard and handed out, whole, before the bytes that completed it.  So
 * no byte of a refused packet ever passes (one exception: the last byte of a
 * filter string is judged when it comes).
 *
 * Refused is what libusbredirparser 0.8 to 0.15 refuses to read:
 *   - a type that is none, or that is not for this direction
 *   - a length below the type's header, or above it for types without payload,
 *     or above 128 MiB + 1 KiB
 *   - a payload that is not as long as the packet's own header says, or that
 *     goes against the direction of the endpoint
 *   - isochronous, buffered bulk and (to the client) interrupt packets for an
 *     endpoint of the other direction; interrupt and bulk receiving on an OUT
 *     endpoint
 *   - bulk lengths above 128 MiB, more than 32 interfaces
 *   - filters, acknowledgements and bulk receiving sent to who did not say that
 *     it knows them; a filter that is empty or has no terminating zero
 *
 * and some more, which no client sends and usb-redir does not survive or
 * should not be asked to (QEMU 10.0, 10.2):
 *   - anything before the hello, and a second hello
 *   - a filter for the guest: usb-redir says that it knows filters, but sets
 *     no function for them, and the parser calls it all the same
 *   - a bulk IN endpoint whose packets are smaller than 8 bytes, the smallest
 *     that USB has: usb-redir divides by that size, and counts on room for
 *     two bytes in it
 *
 *   - an answer to a bulk request before the answer to an earlier one of the
 *     same endpoint, and another description of what has requests open
 *     (usbredir-order.c)
 *
 * Whether what a well-formed packet says makes sense otherwise is not looked
 * at: usb-redir ignores what it does not expect.
 */
#include "chardev/spiceflow/usbredir.h"

#include <string.h>

#include "usbredir-order.h"

/* The parser's allowance for headers in a packet's length */
#define LENGTH_MAX          (SPICE_FLOW_USBREDIR_BULK_MAX + 1024)

/* Type, length and id of 32 or 64 bits */
#define HEAD_32             12
#define HEAD_64             16

/* The capabilities follow the version string of a hello */
#define HELLO_VERSION_SIZE  64
#define HELLO_CAPS_SIZE     4

#define MAX_INTERFACES      32

/* ep_info: 32 endpoints, the IN ones last; arrays one behind the other */
#define NUM_EPS             32
#define FIRST_IN_EP         16
#define EP_INFO_TYPE        0
#define EP_INFO_MAX_PACKET  96
#define EP_TYPE_BULK        2
#define BULK_PACKET_MIN     8

#define EP_IN               0x80

enum {
    CAP_BULK_STREAMS,
    CAP_CONNECT_DEVICE_VERSION,
    CAP_FILTER,
    CAP_DEVICE_DISCONNECT_ACK,
    CAP_EP_INFO_MAX_PACKET_SIZE,
    CAP_64BITS_IDS,
    CAP_32BITS_BULK_LENGTH,
    CAP_BULK_RECEIVING,
};

enum {
    HELLO = 0,
    DEVICE_CONNECT = 1,
    DEVICE_DISCONNECT = 2,
    INTERFACE_INFO = 4,
    EP_INFO = 5,
    CANCEL_DATA_PACKET = 21,
    FILTER_FILTER = 23,
    START_BULK_RECEIVING = 25,
    STOP_BULK_RECEIVING = 26,
    CONTROL_PACKET = 100,
    BULK_PACKET = 101,
    ISO_PACKET = 102,
    INTERRUPT_PACKET = 103,
    BUFFERED_BULK_PACKET = 104,
};

/* Who a type is for */
#define GUEST   (1 << SPICE_FLOW_USBREDIR_TO_GUEST)
#define CLIENT  (1 << SPICE_FLOW_USBREDIR_TO_CLIENT)

/* Marks for "none" where 0 is a meaning */
#define NONE    0xff

/*
 * name, whom it is for, bytes of its header (the smallest, where capabilities
 * make it longer), whether a payload may follow, the capability that the
 * receiver must have, where in the header the endpoint is that must be IN
 */
typedef struct PacketType {
    const char *name;
    uint8_t to;
    uint8_t header;
    bool payload;
    uint8_t cap;
    uint8_t in_ep;
} PacketType;

static const PacketType control_types[] = {
    { "hello", GUEST | CLIENT, 64, true, NONE, NONE },
    { "device_connect", GUEST, 8, false, NONE, NONE },
    { "device_disconnect", GUEST, 0, false, NONE, NONE },
    { "reset", CLIENT, 0, false, NONE, NONE },
    { "interface_info", GUEST, 132, false, NONE, NONE },
    { "ep_info", GUEST, 96, false, NONE, NONE },
    { "set_configuration", CLIENT, 1, false, NONE, NONE },
    { "get_configuration", CLIENT, 0, false, NONE, NONE },
    { "configuration_status", GUEST, 2, false, NONE, NONE },
    { "set_alt_setting", CLIENT, 2, false, NONE, NONE },
    { "get_alt_setting", CLIENT, 1, false, NONE, NONE },
    { "alt_setting_status", GUEST, 3, false, NONE, NONE },
    { "start_iso_stream", CLIENT, 3, false, NONE, NONE },
    { "stop_iso_stream", CLIENT, 1, false, NONE, NONE },
    { "iso_stream_status", GUEST, 2, false, NONE, NONE },
    { "start_interrupt_receiving", CLIENT, 1, false, NONE, 0 },
    { "stop_interrupt_receiving", CLIENT, 1, false, NONE, 0 },
    { "interrupt_receiving_status", GUEST, 2, false, NONE, 1 },
    { "alloc_bulk_streams", CLIENT, 8, false, NONE, NONE },
    { "free_bulk_streams", CLIENT, 4, false, NONE, NONE },
    { "bulk_streams_status", GUEST, 9, false, NONE, NONE },
    { "cancel_data_packet", CLIENT, 0, false, NONE, NONE },
    { "filter_reject", CLIENT, 0, false, CAP_FILTER, NONE },
    { "filter_filter", CLIENT, 0, true, CAP_FILTER, NONE },
    { "device_disconnect_ack", CLIENT, 0, false,
      CAP_DEVICE_DISCONNECT_ACK, NONE },
    { "start_bulk_receiving", CLIENT, 10, false, CAP_BULK_RECEIVING, 8 },
    { "stop_bulk_receiving", CLIENT, 5, false, CAP_BULK_RECEIVING, 4 },
    { "bulk_receiving_status", GUEST, 6, false, CAP_BULK_RECEIVING, 4 },
};

static const PacketType data_types[] = {
    { "control_packet", GUEST | CLIENT, 10, true, NONE, NONE },
    { "bulk_packet", GUEST | CLIENT, 8, true, NONE, NONE },
    { "iso_packet", GUEST | CLIENT, 4, true, NONE, NONE },
    { "interrupt_packet", GUEST | CLIENT, 4, true, NONE, NONE },
    { "buffered_bulk_packet", GUEST, 10, true, CAP_BULK_RECEIVING, NONE },
};

typedef struct Stream {
    bool hello;
    uint32_t caps;
    uint32_t type;
    uint32_t left;
    size_t held_len;
    uint8_t held[SPICE_FLOW_USBREDIR_HEADER_MAX];
    /* a header that is complete, while the caller passes it on */
    uint8_t out[SPICE_FLOW_USBREDIR_HEADER_MAX];
} Stream;

struct SpiceFlowUsbredir {
    Stream stream[2];
    Order order;
    bool refused;
    char *error;
};

typedef enum {
    MORE,                       /* @size bytes of it are needed */
    WAIT,                       /* for what the other side says */
    BAD,
    GOOD,                       /* @size bytes of header, @payload behind */
} Verdict;

/* What a stream's next packet is known to be. */
typedef struct Packet {
    SpiceFlowUsbredirDirection direction;
    uint32_t type;
    uint32_t length;
    const PacketType *info;
    size_t head_size;
    size_t header_size;
    size_t size;
    uint32_t payload;
    uint64_t id;
    char *error;
} Packet;

static uint16_t get_u16(const uint8_t *in)
{
    return in[0] | in[1] << 8;
}

static uint32_t get_u32(const uint8_t *in)
{
    return get_u16(in) | (uint32_t)get_u16(in + 2) << 16;
}

static const PacketType *type_info(uint32_t type)
{
    if (type < G_N_ELEMENTS(control_types)) {
        return &control_types[type];
    }
    if (type >= CONTROL_PACKET &&
        type - CONTROL_PACKET < G_N_ELEMENTS(data_types)) {
        return &data_types[type - CONTROL_PACKET];
    }
    return NULL;
}

const char *spice_flow_usbredir_type_name(uint32_t type)
{
    const PacketType *info = type_info(type);

    return info ? info->name : NULL;
}

SpiceFlowUsbredir *spice_flow_usbredir_new(void)
{
    return g_new0(SpiceFlowUsbredir, 1);
}

void spice_flow_usbredir_free(SpiceFlowUsbredir *guard)
{
    if (guard) {
        order_free(&guard->order);
        g_free(guard->error);
        g_free(guard);
    }
}

void spice_flow_usbredir_reset(SpiceFlowUsbredir *guard)
{
    order_free(&guard->order);
    g_free(guard->error);
    memset(guard, 0, sizeof(*guard));
}

static const Stream *other_stream(const SpiceFlowUsbredir *guard,
                                  SpiceFlowUsbredirDirection direction)
{
    return &guard->stream[!direction];
}

static bool both_have(const SpiceFlowUsbredir *guard, unsigned cap)
{
    return guard->stream[0].caps & guard->stream[1].caps & 1u << cap;
}

/* The parser takes no streams from who does not tell packet sizes. */
static uint32_t effective_caps(uint32_t caps)
{
    if (!(caps & 1u << CAP_EP_INFO_MAX_PACKET_SIZE)) {
        caps &= ~(1u << CAP_BULK_STREAMS);
    }
    return caps;
}

G_GNUC_PRINTF(2, 3)
static Verdict bad(Packet *packet, const char *format, ...)
{
    g_autofree char *reason = NULL;
    const char *name = spice_flow_usbredir_type_name(packet->type);
    va_list args;

    va_start(args, format);
    reason = g_strdup_vprintf(format, args);
    va_end(args);
    packet->error = g_strdup_printf(
        "usbredir packet from %s, type %u (%s), length %u: %s",
        packet->direction == SPICE_FLOW_USBREDIR_TO_GUEST ? "the client"
                                                          : "usb-redir",
        packet->type, name ?: "unknown", packet->length, reason);
    return BAD;
}

static size_t header_size(const SpiceFlowUsbredir *guard, const Packet *packet)
{
    switch (packet->type) {
    case DEVICE_CONNECT:
        return both_have(guard, CAP_CONNECT_DEVICE_VERSION) ? 10 : 8;
    case EP_INFO:
        if (both_have(guard, CAP_BULK_STREAMS)) {
            return 288;
        }
        return both_have(guard, CAP_EP_INFO_MAX_PACKET_SIZE) ? 160 : 96;
    case BULK_PACKET:
        return both_have(guard, CAP_32BITS_BULK_LENGTH) ? 10 : 8;
    default:
        return packet->info->header;
    }
}

/* Type and length: what can be said before the type's header came. */
static Verdict judge_head(const SpiceFlowUsbredir *guard, Packet *packet)
{
    bool greeted = guard->stream[packet->direction].hello;
    uint32_t receiver_caps = other_stream(guard, packet->direction)->caps;

    packet->info = type_info(packet->type);
    if (!packet->info) {
        return bad(packet, "there is no such type");
    }
    if (!greeted && packet->type != HELLO) {
        return bad(packet, "the first packet must be a hello");
    }
    if (greeted && packet->type == HELLO) {
        return bad(packet, "there was a hello already");
    }
    if (!(packet->info->to & 1 << packet->direction)) {
        return bad(packet, "this type is not for %s",
                   packet->direction == SPICE_FLOW_USBREDIR_TO_GUEST
                       ? "usb-redir" : "the client");
    }
    if (packet->info->cap != NONE &&
        !(receiver_caps & 1u << packet->info->cap)) {
        return bad(packet, "the receiver lacks capability %u",
                   packet->info->cap);
    }
    packet->header_size = header_size(guard, packet);
    if (packet->length < packet->header_size) {
        return bad(packet, "the header alone has %zu bytes",
                   packet->header_size);
    }
    if (packet->length > packet->header_size && !packet->info->payload) {
        return bad(packet, "the header has %zu bytes, and nothing may follow",
                   packet->header_size);
    }
    if (packet->length > LENGTH_MAX) {
        return bad(packet, "the limit is %u bytes", LENGTH_MAX);
    }
    packet->payload = packet->length - packet->header_size;
    if (packet->type == FILTER_FILTER && !packet->payload) {
        return bad(packet, "a filter has one byte at least");
    }
    return GOOD;
}

/* The payload of a transfer goes where its endpoint goes, and only there. */
static Verdict judge_transfer(Packet *packet, uint8_t ep, uint32_t length)
{
    bool to_guest = packet->direction == SPICE_FLOW_USBREDIR_TO_GUEST;
    bool carries = !!(ep & EP_IN) == to_guest;

    if (length > SPICE_FLOW_USBREDIR_BULK_MAX) {
        return bad(packet, "endpoint %02x: %u bytes to transfer, the limit is "
                   "%u", ep, length, SPICE_FLOW_USBREDIR_BULK_MAX);
    }
    if (carries) {
        if (packet->payload != length) {
            return bad(packet, "endpoint %02x: %u bytes of data, the header "
                       "says %u", ep, packet->payload, length);
        }
        return GOOD;
    }
    if (packet->payload) {
        return bad(packet, "endpoint %02x: %u bytes of data against its "
                   "direction", ep, packet->payload);
    }
    if (packet->type == ISO_PACKET || packet->type == BUFFERED_BULK_PACKET ||
        (packet->type == INTERRUPT_PACKET && !to_guest)) {
        return bad(packet, "endpoint %02x has the other direction", ep);
    }
    return GOOD;
}

static Verdict judge_ep_info(Packet *packet, const uint8_t *header)
{
    if (packet->direction != SPICE_FLOW_USBREDIR_TO_GUEST ||
        packet->header_size <= EP_INFO_MAX_PACKET) {
        return GOOD;
    }
    for (unsigned ep = FIRST_IN_EP; ep < NUM_EPS; ep++) {
        uint16_t size = get_u16(header + EP_INFO_MAX_PACKET + 2 * ep);

        if (header[EP_INFO_TYPE + ep] == EP_TYPE_BULK &&
            size < BULK_PACKET_MIN) {
            return bad(packet, "endpoint %02x: bulk packets of %u bytes, %u is "
                       "the least", EP_IN | (ep - FIRST_IN_EP), size,
                       BULK_PACKET_MIN);
        }
    }
    return GOOD;
}

/* The type's header by itself. */
static Verdict judge_header(Packet *packet, const uint8_t *header)
{
    uint8_t in_ep = packet->info->in_ep;
    uint32_t length;

    if (in_ep != NONE && !(header[in_ep] & EP_IN)) {
        return bad(packet, "endpoint %02x is no input", header[in_ep]);
    }
    switch (packet->type) {
    case INTERFACE_INFO:
        if (get_u32(header) > MAX_INTERFACES) {
            return bad(packet, "%u interfaces, %u is the most",
                       get_u32(header), MAX_INTERFACES);
        }
        return GOOD;
    case EP_INFO:
        return judge_ep_info(packet, header);
    case START_BULK_RECEIVING:
        if (get_u32(header + 4) > SPICE_FLOW_USBREDIR_BULK_MAX) {
            return bad(packet, "%u bytes per transfer, the limit is %u",
                       get_u32(header + 4), SPICE_FLOW_USBREDIR_BULK_MAX);
        }
        return GOOD;
    case CONTROL_PACKET:
        return judge_transfer(packet, header[0], get_u16(header + 8));
    case BULK_PACKET:
        length = get_u16(header + 2);
        if (packet->header_size > 8) {
            length |= (uint32_t)get_u16(header + 8) << 16;
        }
        return judge_transfer(packet, header[0], length);
    case ISO_PACKET:
    case INTERRUPT_PACKET:
        return judge_transfer(packet, header[0], get_u16(header + 2));
    case BUFFERED_BULK_PACKET:
        return judge_transfer(packet, header[8], get_u32(header + 4));
    default:
        return GOOD;
    }
}

/* A well-formed packet of the client's, by what usb-redir waits for. */
static Verdict judge_order(const Order *order, Packet *packet,
                           const uint8_t *header)
{
    OrderVerdict verdict = ORDER_GOOD;
    uint8_t which = 0;

    switch (packet->type) {
    case BULK_PACKET:
        which = header[0];
        verdict = order_may_answer(order, which, packet->id);
        break;
    case INTERFACE_INFO:
        verdict = order_may_set_interfaces(order, header, &which);
        break;
    case EP_INFO:
        verdict = order_may_set_eps(order, header,
                                    packet->header_size > EP_INFO_MAX_PACKET,
                                    &which);
        break;
    default:
        break;
    }
    if (verdict == ORDER_UNSEEN) {
        return WAIT;
    }
    if (verdict == ORDER_GOOD) {
        return GOOD;
    }
    switch (packet->type) {
    case BULK_PACKET:
        return bad(packet, "endpoint %02x: an earlier request has no answer "
                   "yet", which);
    case INTERFACE_INFO:
        return bad(packet, "interface %u changes while requests are open on "
                   "it", which);
    default:
        return bad(packet, "endpoint %02x changes while requests are open on "
                   "its interface", which);
    }
}

/* Judges the packet that begins with the @len bytes @data. */
static Verdict packet_judge(const SpiceFlowUsbredir *guard, Packet *packet,
                            const uint8_t *data, size_t len)
{
    bool greeted = guard->stream[packet->direction].hello;

    if (greeted && !other_stream(guard, packet->direction)->hello) {
        return WAIT;
    }
    packet->head_size = both_have(guard, CAP_64BITS_IDS) ? HEAD_64 : HEAD_32;
    packet->size = packet->head_size;
    if (len < packet->size) {
        return MORE;
    }
    packet->type = get_u32(data);
    packet->length = get_u32(data + 4);
    if (judge_head(guard, packet) == BAD) {
        return BAD;
    }
    packet->size += packet->header_size;
    if (packet->type == HELLO && packet->payload >= HELLO_CAPS_SIZE) {
        /* counted as header, so that it is never cut */
        packet->size += HELLO_CAPS_SIZE;
        packet->payload -= HELLO_CAPS_SIZE;
    }
    if (len < packet->size) {
        return MORE;
    }
    packet->id = get_u32(data + 8);
    if (packet->head_size == HEAD_64) {
        packet->id |= (uint64_t)get_u32(data + 12) << 32;
    }
    if (judge_header(packet, data + packet->head_size) == BAD) {
        return BAD;
    }
    if (packet->direction == SPICE_FLOW_USBREDIR_TO_CLIENT) {
        return GOOD;
    }
    return judge_order(&guard->order, packet, data + packet->head_size);
}

/* A packet of the client's passes. */
static void order_to_guest(Order *order, const Packet *packet,
                           const uint8_t *header)
{
    switch (packet->type) {
    case DEVICE_DISCONNECT:
        order_reset(order);
        break;
    case INTERFACE_INFO:
        order_set_interfaces(order, header);
        break;
    case EP_INFO:
        order_set_eps(order, header, packet->header_size > EP_INFO_MAX_PACKET);
        break;
    case BULK_PACKET:
        order_answer(order, header[0], packet->id);
        break;
    default:
        break;
    }
}

/* A packet of usb-redir's passes; false when it is one request too many. */
static bool order_to_client(Order *order, const Packet *packet,
                            const uint8_t *header)
{
    switch (packet->type) {
    case BULK_PACKET:
        return order_request(order, header[0], get_u32(header + 4),
                             packet->id);
    case CANCEL_DATA_PACKET:
        order_cancel(order, packet->id);
        return true;
    case START_BULK_RECEIVING:
        order_receiving(order, header[8], true);
        return true;
    case STOP_BULK_RECEIVING:
        order_receiving(order, header[4], false);
        return true;
    default:
        return true;
    }
}

/* The header at @data may pass, and does. */
static Verdict packet_begin(SpiceFlowUsbredir *guard, Stream *stream,
                            Packet *packet, const uint8_t *data)
{
    size_t caps = packet->head_size + HELLO_VERSION_SIZE;

    if (packet->direction == SPICE_FLOW_USBREDIR_TO_GUEST) {
        order_to_guest(&guard->order, packet, data + packet->head_size);
    } else if (!order_to_client(&guard->order, packet,
                                data + packet->head_size)) {
        return bad(packet, "%u requests are without an answer already",
                   SPICE_FLOW_USBREDIR_REQUESTS);
    }
    if (packet->type == HELLO) {
        stream->hello = true;
        if (packet->size > caps) {
            stream->caps = effective_caps(get_u32(data + caps));
        }
    }
    stream->left = packet->payload;
    stream->type = packet->payload ? packet->type : 0;
    return GOOD;
}

/*
 * Passes payload; returns false at the last byte of a filter that is not
 * zero, as the parser would.
 */
static bool payload_pass(Stream *stream, const uint8_t *data, size_t len,
                         SpiceFlowUsbredirSpans *spans)
{
    size_t n = MIN(len - spans->used, stream->left);
    bool last = n == stream->left;
    bool good = !last || stream->type != FILTER_FILTER ||
                !data[spans->used + n - 1];

    spans->used += good ? n : n - 1;
    spans->pass = spans->used;
    stream->left -= n;
    if (last) {
        stream->type = 0;
    }
    return good;
}

/* Takes over the beginning of a header, up to @size bytes of it in all. */
static size_t header_hold(Stream *stream, size_t size, const uint8_t *data,
                          size_t len)
{
    size_t n = MIN(len, size - stream->held_len);

    memcpy(stream->held + stream->held_len, data, n);
    stream->held_len += n;
    return n;
}

/*
 * Completes the header that is held with the first bytes of @data, @used of
 * them.  When it may begin, what was held before goes out first.
 */
static Verdict held_judge(SpiceFlowUsbredir *guard, Stream *stream,
                          Packet *packet, const uint8_t *data, size_t len,
                          SpiceFlowUsbredirSpans *spans)
{
    size_t before = stream->held_len;
    Verdict verdict;

    for (;;) {
        verdict = packet_judge(guard, packet, stream->held, stream->held_len);
        if (verdict != MORE || spans->used == len) {
            break;
        }
        spans->used += header_hold(stream, packet->size, data + spans->used,
                                   len - spans->used);
    }
    if (verdict == WAIT) {
        /* What completed it comes again. */
        stream->held_len = before;
        spans->used = 0;
    } else if (verdict == GOOD) {
        verdict = packet_begin(guard, stream, packet, stream->held);
    }
    if (verdict == GOOD) {
        memcpy(stream->out, stream->held, before);
        spans->held = stream->out;
        spans->held_len = before;
        spans->pass = spans->used;
        stream->held_len = 0;
    }
    return verdict;
}

/* Judges, and begins or holds, the header at the bytes not used yet. */
static Verdict data_judge(SpiceFlowUsbredir *guard, Stream *stream,
                          Packet *packet, const uint8_t *data, size_t len,
                          SpiceFlowUsbredirSpans *spans)
{
    Verdict verdict = packet_judge(guard, packet, data + spans->used,
                                   len - spans->used);

    if (verdict == GOOD) {
        verdict = packet_begin(guard, stream, packet, data + spans->used);
    }
    if (verdict == GOOD) {
        spans->used += packet->size;
        spans->pass = spans->used;
    } else if (verdict == MORE) {
        spans->used += header_hold(stream, packet->size, data + spans->used,
                                   len - spans->used);
    }
    return verdict;
}

static SpiceFlowUsbredirResult refuse(SpiceFlowUsbredir *guard,
                                      const Packet *packet)
{
    Stream *stream = &guard->stream[packet->direction];

    stream->held_len = 0;
    guard->refused = true;
    guard->error = packet->error;
    return SPICE_FLOW_USBREDIR_BAD;
}

SpiceFlowUsbredirResult
spice_flow_usbredir_check(SpiceFlowUsbredir *guard,
                          SpiceFlowUsbredirDirection direction,
                          const uint8_t *data, size_t len,
                          SpiceFlowUsbredirSpans *spans)
{
    Stream *stream = &guard->stream[direction];

    *spans = (SpiceFlowUsbredirSpans) { .held = NULL };
    if (guard->refused) {
        return SPICE_FLOW_USBREDIR_BAD;
    }
    while (spans->used < len) {
        Packet packet = { .direction = direction };
        Verdict verdict = GOOD;

        if (stream->held_len) {
            verdict = held_judge(guard, stream, &packet, data, len, spans);
        } else if (!stream->left) {
            verdict = data_judge(guard, stream, &packet, data, len, spans);
        } else if (!payload_pass(stream, data, len, spans)) {
            packet.type = FILTER_FILTER;
            verdict = bad(&packet, "the filter does not end with a zero");
        }
        if (verdict == BAD) {
            return refuse(guard, &packet);
        }
        if (verdict == WAIT) {
            return SPICE_FLOW_USBREDIR_WAIT;
        }
    }
    return SPICE_FLOW_USBREDIR_PASS;
}

void spice_flow_usbredir_set_behind(SpiceFlowUsbredir *guard, bool behind)
{
    guard->order.behind = behind;
}

const char *spice_flow_usbredir_error(const SpiceFlowUsbredir *guard)
{
    return guard->error;
}

bool spice_flow_usbredir_greeted(const SpiceFlowUsbredir *guard,
                                 SpiceFlowUsbredirDirection direction)
{
    return guard->stream[direction].hello;
}

bool spice_flow_usbredir_partial(const SpiceFlowUsbredir *guard,
                                 SpiceFlowUsbredirDirection direction)
{
    const Stream *stream = &guard->stream[direction];

    return stream->left || stream->held_len;
}

void spice_flow_usbredir_save(const SpiceFlowUsbredir *guard,
                              SpiceFlowUsbredirSaved *saved)
{
    memset(saved, 0, sizeof(*saved));
    saved->refused = guard->refused;
    for (unsigned i = 0; i < 2; i++) {
        const Stream *stream = &guard->stream[i];
        SpiceFlowUsbredirSavedStream *out = &saved->stream[i];

        out->hello = stream->hello;
        out->caps = stream->caps;
        out->type = stream->type;
        out->left = stream->left;
        out->held_size = stream->held_len;
        memcpy(out->held, stream->held, stream->held_len);
    }
    order_save(&guard->order, &saved->order);
}

void spice_flow_usbredir_saved_clear(SpiceFlowUsbredirSaved *saved)
{
    g_free(saved->order.requests);
    memset(saved, 0, sizeof(*saved));
}

bool spice_flow_usbredir_saved_order(const SpiceFlowUsbredirSaved *saved)
{
    const SpiceFlowUsbredirSavedOrder *order = &saved->order;

    return order->behind || order->receiving || order->num_requests ||
           order->device.has_interfaces || order->device.has_endpoints;
}

static void stream_restore(Stream *stream,
                           const SpiceFlowUsbredirSavedStream *saved)
{
    stream->hello = saved->hello;
    stream->caps = saved->caps;
    stream->type = saved->type;
    stream->left = saved->left;
    stream->held_len = saved->held_size;
    memcpy(stream->held, saved->held, saved->held_size);
}

/* Returns NULL, or the field of one stream that can not be by itself. */
static const char *stream_wrong(const SpiceFlowUsbredirSavedStream *saved)
{
    const PacketType *info = type_info(saved->type);

    if (saved->hello > 1) {
        return "hello";
    }
    if (saved->caps != (saved->hello ? effective_caps(saved->caps) : 0)) {
        return "caps";
    }
    if (saved->left > (saved->hello ? LENGTH_MAX : 0)) {
        return "left";
    }
    if (saved->left ? !info || !info->payload : saved->type != 0) {
        return "type";
    }
    if (saved->held_size >= SPICE_FLOW_USBREDIR_HEADER_MAX ||
        (saved->held_size && saved->left)) {
        return "held_size";
    }
    return NULL;
}

/* Whether what is held is the beginning of a header that is no full one. */
static bool held_wrong(const SpiceFlowUsbredir *guard,
                       SpiceFlowUsbredirDirection direction)
{
    const Stream *stream = &guard->stream[direction];
    Packet packet = { .direction = direction };
    bool wrong = stream->held_len &&
                 packet_judge(guard, &packet, stream->held,
                              stream->held_len) != MORE;

    g_free(packet.error);
    return wrong;
}

bool spice_flow_usbredir_restore(SpiceFlowUsbredir *guard,
                                 const SpiceFlowUsbredirSaved *saved,
                                 char **error)
{
    g_autoptr(SpiceFlowUsbredir) next = spice_flow_usbredir_new();
    const char *wrong;

    if (saved->refused > 1) {
        *error = g_strdup("refused");
        return false;
    }
    for (unsigned i = 0; i < 2; i++) {
        const char *field = stream_wrong(&saved->stream[i]);

        if (field) {
            *error = g_strdup_printf("stream[%u].%s", i, field);
            return false;
        }
        stream_restore(&next->stream[i], &saved->stream[i]);
    }
    /* each is judged with what the other one's hello said */
    for (unsigned i = 0; !saved->refused && i < 2; i++) {
        if (held_wrong(next, i)) {
            *error = g_strdup_printf("stream[%u].held", i);
            return false;
        }
    }
    wrong = order_restore(&next->order, &saved->order);
    if (wrong) {
        *error = g_strdup_printf("order.%s", wrong);
        return false;
    }
    spice_flow_usbredir_reset(guard);
    memcpy(guard->stream, next->stream, sizeof(guard->stream));
    guard->order = next->order;
    memset(&next->order, 0, sizeof(next->order));
    if (saved->refused) {
        guard->refused = true;
        guard->error = g_strdup("a usbredir packet was refused before the "
                                "state was saved");
    }
    return true;
}
