/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guard over usbredir packet headers beside libusbredirparser, which is
 * what usb-redir reads with: random streams, and a talk of its two ends.
 */
#include "usbredir-play.h"

/*
 * Against libusbredirparser.  Streams are made of packets that are right in
 * most of their fields; what the guard passes the parser must take, and what
 * the guard refuses the parser must refuse, but for the rules that go beyond.
 */
typedef struct Tally {
    unsigned streams;
    unsigned passed;
    unsigned refused;
    unsigned stricter;
    unsigned open;
} Tally;

static const uint16_t header_sizes[][3] = {
    { 64 }, { 8, 10 }, { 0 }, { 0 }, { 132 }, { 96, 160, 288 }, { 1 }, { 0 },
    { 2 }, { 2 }, { 1 }, { 3 }, { 3 }, { 1 }, { 2 }, { 1 }, { 1 }, { 2 },
    { 8 }, { 4 }, { 9 }, { 0 }, { 0 }, { 0 }, { 0 }, { 10 }, { 5 }, { 6 },
};

static bool chance(GRand *rand, int percent)
{
    return g_rand_int_range(rand, 0, 100) < percent;
}

static size_t any_size(GRand *rand, int below, size_t most)
{
    size_t size = g_rand_int_range(rand, 1, below);

    return MIN(size, most);
}

static void put_u16(uint8_t *out, uint32_t value)
{
    out[0] = value;
    out[1] = value >> 8;
}

static void put_u32(uint8_t *out, uint32_t value)
{
    put_u16(out, value);
    put_u16(out + 2, value >> 16);
}

static uint32_t any_type(GRand *rand, bool to_guest)
{
    static const uint8_t for_guest[] = { 1, 2, 4, 5, 8, 11, 14, 17, 20, 27,
                                         100, 101, 102, 103, 104 };
    static const uint8_t for_client[] = { 3, 6, 7, 9, 10, 12, 13, 15, 16, 18,
                                          19, 21, 22, 23, 24, 25, 26, 100,
                                          101, 102, 103 };

    if (chance(rand, 1)) {
        return g_rand_int(rand);
    }
    if (chance(rand, 2)) {
        return g_rand_int_range(rand, 0, 106);
    }
    return to_guest
        ? for_guest[g_rand_int_range(rand, 0, sizeof(for_guest))]
        : for_client[g_rand_int_range(rand, 0, sizeof(for_client))];
}

/* The header of a transfer, with a length that is mostly right. */
static size_t any_transfer(GRand *rand, uint32_t type, uint8_t *header,
                           bool to_guest, bool bulk_32, uint32_t *payload)
{
    bool in = chance(rand, 95) ? to_guest : !to_guest;
    uint8_t ep = g_rand_int_range(rand, 0, 16) | (in ? 0x80 : 0);
    uint32_t length = g_rand_int_range(rand, 0, 40);

    *payload = in == to_guest ? length : 0;
    if (chance(rand, 4)) {
        *payload = g_rand_int_range(rand, 0, 40);
    }
    if (chance(rand, 2)) {
        length |= 1u << g_rand_int_range(rand, 0, 32);
    }
    switch (type) {
    case usb_redir_control_packet:
        header[0] = ep;
        put_u16(header + 8, length);
        return 10;
    case usb_redir_bulk_packet:
        header[0] = ep;
        put_u16(header + 2, length);
        put_u16(header + 8, length >> 16);
        return bulk_32 ? 10 : 8;
    case usb_redir_buffered_bulk_packet:
        header[8] = ep;
        put_u32(header + 4, length);
        return 10;
    default:
        header[0] = ep;
        put_u16(header + 2, length);
        return 4;
    }
}

static void any_packet(GRand *rand, GByteArray *stream, bool to_guest,
                       uint32_t both_caps)
{
    uint8_t head[16], header[288], data[64];
    uint32_t type = any_type(rand, to_guest);
    uint32_t payload = 0, length;
    size_t size = 0;

    for (size_t i = 0; i < sizeof(header); i++) {
        header[i] = chance(rand, 50) ? g_rand_int(rand) : 0;
    }
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = chance(rand, 50) ? g_rand_int(rand) : 0;
    }
    if (type >= 100) {
        size = any_transfer(rand, type, header, to_guest,
                            both_caps & BULK_32, &payload);
    } else if (type < G_N_ELEMENTS(header_sizes)) {
        size = header_sizes[type][0];
        if (chance(rand, 95)) {
            /* every endpoint that must be IN */
            header[0] |= 0x80;
            header[1] |= 0x80;
            header[4] |= 0x80;
            header[8] |= 0x80;
        }
        if (type == usb_redir_device_connect && both_caps & VERSION) {
            size = header_sizes[type][1];
        } else if (type == usb_redir_ep_info && both_caps & EP_MAX) {
            size = header_sizes[type][both_caps & STREAMS ? 2 : 1];
        } else if (type == usb_redir_interface_info && chance(rand, 90)) {
            put_u32(header, g_rand_int_range(rand, 0, 34));
        } else if (type == usb_redir_start_bulk_receiving &&
                   chance(rand, 95)) {
            put_u32(header + 4, 1u << g_rand_int_range(rand, 0, 29));
        } else if (type == usb_redir_filter_filter) {
            payload = g_rand_int_range(rand, 0, sizeof(data));
            if (payload && chance(rand, 90)) {
                data[payload - 1] = 0;
            }
        } else if (type == usb_redir_hello) {
            payload = g_rand_int_range(rand, 0, 9);
        }
    }
    length = size + payload;
    if (chance(rand, 3)) {
        length += g_rand_int_range(rand, -3, 4);
    }
    if (chance(rand, 1)) {
        length ^= 1u << g_rand_int_range(rand, 0, 32);
    }
    put_u32(head, type);
    put_u32(head + 4, length);
    put_u32(head + 8, g_rand_int(rand));
    put_u32(head + 12, g_rand_int(rand));
    g_byte_array_append(stream, head, both_caps & ID_64 ? 16 : 12);
    g_byte_array_append(stream, header, size);
    g_byte_array_append(stream, data, payload);
}

static uint32_t any_caps(GRand *rand)
{
    return chance(rand, 40) ? ALL_CAPS : g_rand_int(rand) & ALL_CAPS;
}

/* Both sides' capabilities as libusbredirparser understands them */
static uint32_t common_caps(uint32_t client_caps, uint32_t device_caps)
{
    if (!(client_caps & EP_MAX)) {
        client_caps &= ~STREAMS;
    }
    if (!(device_caps & EP_MAX)) {
        device_caps &= ~STREAMS;
    }
    return client_caps & device_caps;
}

static bool goes_beyond(const char *error)
{
    return g_str_has_suffix(error, "there was a hello already") ||
           strstr(error, "(filter_filter)") ||
           strstr(error, "bulk packets of");
}

static guint64 length_of(const char *error)
{
    return g_ascii_strtoull(strstr(error, "length ") + strlen("length "),
                            NULL, 10);
}

static void one_stream(GRand *rand, Tally *tally)
{
    SpiceFlowUsbredirDirection direction = chance(rand, 60) ? TO_GUEST
                                                            : TO_CLIENT;
    uint32_t client_caps = any_caps(rand);
    uint32_t device_caps = any_caps(rand);
    uint32_t caps = common_caps(client_caps, device_caps | ACK);
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(client_caps,
                                                       device_caps | ACK);
    g_autoptr(Receiver) receiver = greeted_receiver(direction, client_caps,
                                                    device_caps);
    g_autoptr(GByteArray) stream = g_byte_array_new();
    g_autoptr(GByteArray) out = g_byte_array_new();
    SpiceFlowUsbredirResult result = SPICE_FLOW_USBREDIR_PASS;
    int packets = g_rand_int_range(rand, 1, 9);
    bool taken;

    for (int i = 0; i < packets; i++) {
        any_packet(rand, stream, direction == TO_GUEST, caps);
    }
    if (chance(rand, 30)) {
        stream->data[g_rand_int_range(rand, 0, stream->len)] ^=
            1 << g_rand_int_range(rand, 0, 8);
    }
    for (size_t pos = 0, n; pos < stream->len &&
         result == SPICE_FLOW_USBREDIR_PASS; pos += n) {
        n = any_size(rand, 300, stream->len - pos);
        result = give(guard, direction, stream->data + pos, n, out);
    }

    tally->streams++;
    g_assert_cmpmem(out->data, out->len, stream->data, out->len);
    g_assert_true(receiver_read(receiver, out->data, out->len));
    if (result == SPICE_FLOW_USBREDIR_PASS) {
        tally->passed++;
        return;
    }
    if (goes_beyond(spice_flow_usbredir_error(guard))) {
        tally->stricter++;
        return;
    }
    /* the parser looks at the end of the packet: let it come */
    taken = receiver_read(receiver, stream->data + out->len,
                          stream->len - out->len);
    for (int i = 0; taken && i < 64; i++) {
        static const uint8_t zeros[4096];

        taken = receiver_read(receiver, zeros, sizeof(zeros));
    }
    if (taken) {
        /* it still waits for a payload longer than all those */
        g_assert_cmpuint(length_of(spice_flow_usbredir_error(guard)), >,
                         64 * 4096);
        tally->open++;
        return;
    }
    tally->refused++;
}

static void test_differential(void)
{
    GRand *rand = g_rand_new_with_seed(20120831);
    Tally tally = { .streams = 0 };

    for (int i = 0; i < 40000; i++) {
        one_stream(rand, &tally);
    }
    g_rand_free(rand);
    g_test_message("%u streams: %u passed, %u refused by both, %u by the "
                   "guard's own rules, %u too long to tell", tally.streams,
                   tally.passed, tally.refused, tally.stricter, tally.open);
    g_assert_cmpuint(tally.passed, >, tally.streams / 10);
    g_assert_cmpuint(tally.refused, >, tally.streams / 10);
    g_assert_cmpuint(tally.stricter, >, 100);
    g_assert_cmpuint(tally.open, <, tally.streams / 100);
}

/* The two ends of libusbredirparser talk to each other through the guard. */
typedef struct Talk {
    Receiver *client;
    Receiver *device;
    SpiceFlowUsbredir *guard;
    GRand *rand;
    size_t bytes;
} Talk;

static void talk_through(Talk *talk, SpiceFlowUsbredirDirection direction)
{
    Receiver *from = direction == TO_GUEST ? talk->client : talk->device;
    Receiver *to = direction == TO_GUEST ? talk->device : talk->client;
    g_autoptr(GByteArray) sent = receiver_take_sent(from);

    talk->bytes += sent->len;
    for (size_t pos = 0, n; pos < sent->len; pos += n) {
        g_autoptr(GByteArray) out = g_byte_array_new();

        n = any_size(talk->rand, 2000, sent->len - pos);
        give(talk->guard, direction, sent->data + pos, n, out);
        g_assert_cmpstr(spice_flow_usbredir_error(talk->guard), ==, NULL);
        g_assert_true(receiver_read(to, out->data, out->len));
    }
    g_assert_false(spice_flow_usbredir_partial(talk->guard, direction));
}

static void talk_transfers(Talk *talk, struct usbredirparser *host,
                           struct usbredirparser *guest, bool bulk_32)
{
    static const int sizes[] = { 0, 1, 8, 511, 512, 513, 4096, 65535, 65536,
                                 1 << 20 };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        int size = sizes[i];
        int small = MIN(size, 65535);
        g_autofree uint8_t *data = g_malloc0(size + 1);
        struct usb_redir_control_packet_header control = {
            .endpoint = 0x80, .length = small };
        struct usb_redir_bulk_packet_header bulk = {
            .endpoint = 0x81, .length = bulk_32 ? size : small,
            .length_high = bulk_32 ? size >> 16 : 0 };
        struct usb_redir_iso_packet_header iso = {
            .endpoint = 0x82, .length = small };
        struct usb_redir_interrupt_packet_header interrupt = {
            .endpoint = 0x83, .length = small };
        struct usb_redir_buffered_bulk_packet_header buffered = {
            .endpoint = 0x84, .length = size };
        int bulk_size = bulk_32 ? size : small;

        usbredirparser_send_control_packet(guest, i, &control, NULL, 0);
        usbredirparser_send_bulk_packet(guest, i, &bulk, NULL, 0);
        talk_through(talk, TO_CLIENT);
        usbredirparser_send_control_packet(host, i, &control, data, small);
        usbredirparser_send_bulk_packet(host, i, &bulk, data, bulk_size);
        usbredirparser_send_iso_packet(host, i, &iso, data, small);
        usbredirparser_send_interrupt_packet(host, i, &interrupt, data,
                                             small);
        if (usbredirparser_peer_has_cap(host, usb_redir_cap_bulk_receiving)) {
            usbredirparser_send_buffered_bulk_packet(host, i, &buffered, data,
                                                     size);
        }
        talk_through(talk, TO_GUEST);

        control.endpoint = 0;
        bulk.endpoint = iso.endpoint = interrupt.endpoint = 2;
        usbredirparser_send_control_packet(guest, i, &control, data, small);
        usbredirparser_send_bulk_packet(guest, i, &bulk, data, bulk_size);
        usbredirparser_send_iso_packet(guest, i, &iso, data, small);
        usbredirparser_send_interrupt_packet(guest, i, &interrupt, data,
                                             small);
        usbredirparser_send_cancel_data_packet(guest, i);
        talk_through(talk, TO_CLIENT);
        usbredirparser_send_control_packet(host, i, &control, NULL, 0);
        usbredirparser_send_bulk_packet(host, i, &bulk, NULL, 0);
        usbredirparser_send_interrupt_packet(host, i, &interrupt, NULL, 0);
        talk_through(talk, TO_GUEST);
    }
}

static void talk_device(Talk *talk, struct usbredirparser *host,
                        struct usbredirparser *guest)
{
    struct usb_redir_device_connect_header connect = { .speed = 2 };
    struct usb_redir_interface_info_header interfaces = {
        .interface_count = 32 };
    struct usb_redir_ep_info_header eps = { .type = { [17] = 2 } };
    struct usb_redir_set_configuration_header config = { .configuration = 1 };
    struct usb_redir_configuration_status_header config_status = {
        .configuration = 1 };
    struct usb_redir_set_alt_setting_header alt = { .alt = 1 };
    struct usb_redir_get_alt_setting_header get_alt = { .interface = 1 };
    struct usb_redir_alt_setting_status_header alt_status = { .alt = 1 };
    struct usb_redir_start_iso_stream_header start_iso = { .endpoint = 2 };
    struct usb_redir_stop_iso_stream_header stop_iso = { .endpoint = 2 };
    struct usb_redir_iso_stream_status_header iso_status = { .endpoint = 2 };
    struct usb_redir_start_interrupt_receiving_header start_int = {
        .endpoint = 0x83 };
    struct usb_redir_stop_interrupt_receiving_header stop_int = {
        .endpoint = 0x83 };
    struct usb_redir_interrupt_receiving_status_header int_status = {
        .endpoint = 0x83 };
    struct usb_redir_alloc_bulk_streams_header alloc = { .no_streams = 16 };
    struct usb_redir_free_bulk_streams_header free_streams = {
        .endpoints = 1 };
    struct usb_redir_bulk_streams_status_header streams_status = {
        .no_streams = 16 };
    struct usb_redir_start_bulk_receiving_header start_bulk = {
        .endpoint = 0x84, .bytes_per_transfer = 512 };
    struct usb_redir_stop_bulk_receiving_header stop_bulk = {
        .endpoint = 0x84 };
    struct usb_redir_bulk_receiving_status_header bulk_status = {
        .endpoint = 0x84 };
    struct usbredirfilter_rule rule = { -1, -1, -1, -1, 1 };

    for (int i = 0; i < 32; i++) {
        eps.max_packet_size[i] = 512;
    }
    usbredirparser_send_interface_info(host, &interfaces);
    usbredirparser_send_ep_info(host, &eps);
    usbredirparser_send_device_connect(host, &connect);
    usbredirparser_send_configuration_status(host, 1, &config_status);
    usbredirparser_send_alt_setting_status(host, 1, &alt_status);
    usbredirparser_send_iso_stream_status(host, 1, &iso_status);
    usbredirparser_send_interrupt_receiving_status(host, 1, &int_status);
    usbredirparser_send_bulk_streams_status(host, 1, &streams_status);
    if (usbredirparser_peer_has_cap(host, usb_redir_cap_bulk_receiving)) {
        usbredirparser_send_bulk_receiving_status(host, 1, &bulk_status);
    }
    usbredirparser_send_device_disconnect(host);
    talk_through(talk, TO_GUEST);

    usbredirparser_send_filter_filter(guest, &rule, 1);
    usbredirparser_send_filter_reject(guest);
    usbredirparser_send_reset(guest);
    usbredirparser_send_set_configuration(guest, 1, &config);
    usbredirparser_send_get_configuration(guest, 1);
    usbredirparser_send_set_alt_setting(guest, 1, &alt);
    usbredirparser_send_get_alt_setting(guest, 1, &get_alt);
    usbredirparser_send_start_iso_stream(guest, 1, &start_iso);
    usbredirparser_send_stop_iso_stream(guest, 1, &stop_iso);
    usbredirparser_send_start_interrupt_receiving(guest, 1, &start_int);
    usbredirparser_send_stop_interrupt_receiving(guest, 1, &stop_int);
    usbredirparser_send_alloc_bulk_streams(guest, 1, &alloc);
    usbredirparser_send_free_bulk_streams(guest, 1, &free_streams);
    if (usbredirparser_peer_has_cap(guest, usb_redir_cap_bulk_receiving)) {
        usbredirparser_send_start_bulk_receiving(guest, 1, &start_bulk);
        usbredirparser_send_stop_bulk_receiving(guest, 1, &stop_bulk);
    }
    talk_through(talk, TO_CLIENT);
}

/* For all pairs of capabilities in which one bit is not on both sides. */
static void test_talk(void)
{
    GRand *rand = g_rand_new_with_seed(5);

    for (int i = -1; i < 24; i++) {
        uint32_t bit = i < 0 ? 0 : 1u << i / 3;
        uint32_t client_caps = i % 3 == 0 ? ALL_CAPS : ALL_CAPS & ~bit;
        uint32_t device_caps = i % 3 == 1 ? ALL_CAPS : ALL_CAPS & ~bit;
        Talk talk = {
            .client = receiver_new(true, client_caps),
            .device = receiver_new(false, device_caps),
            .guard = spice_flow_usbredir_new(),
            .rand = rand,
        };

        talk_through(&talk, TO_CLIENT);
        talk_through(&talk, TO_GUEST);
        talk_device(&talk, talk.client->parser, talk.device->parser);
        talk_transfers(&talk, talk.client->parser, talk.device->parser,
                       client_caps & device_caps & BULK_32);
        g_assert_cmpuint(talk.bytes, >, 1 << 20);
        receiver_free(talk.client);
        receiver_free(talk.device);
        spice_flow_usbredir_free(talk.guard);
    }
    g_rand_free(rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usbredir/parser/differential", test_differential);
    g_test_add_func("/usbredir/parser/talk", test_talk);
    return g_test_run();
}
