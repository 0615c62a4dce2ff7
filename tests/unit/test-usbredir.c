/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guard over usbredir packet headers: packets by themselves.
 *
 * Most cases are one line each: what both sides said in their hellos, and a
 * stream in one direction with what must become of it.  Each is given to the
 * guard whole, cut once at every byte, in pieces of every small size, and with
 * the guard saved and restored between the pieces; and, in the end, to
 * libusbredirparser, which must agree, but for the lines marked stricter.
 *
 * What one packet means for later ones is tested in test-usbredir-order.c,
 * random streams in test-usbredir-parser.c.
 */
#include "usbredir-play.h"

G_STATIC_ASSERT(SPICE_FLOW_USBREDIR_HEADER_MAX ==
                sizeof(struct usb_redir_header) +
                sizeof(struct usb_redir_ep_info_header));

/* ep_info: types, intervals, interfaces, packet sizes, streams; 81 is bulk */
#define EP_TYPES         R16("ff") "ff02" R4("ff") R4("ff") R4("ff") "ffff"
#define EP_SIZES(size)   R32("00") "0000" size R16("00") R4("00") \
                         R4("00") R4("00")
#define EP_INFO_96       EP_TYPES R32("00") R32("00")
#define EP_INFO_160(size) EP_INFO_96 EP_SIZES(size)
#define EP_INFO_288(size) EP_INFO_160(size) R64("00") R64("00")

typedef struct Case {
    const char *name;
    SpiceFlowUsbredirDirection direction;
    uint32_t client_caps;
    uint32_t device_caps;
    const char *stream;
    struct {
        const char *error;      /* its reason; NULL: all passes */
        size_t passes;          /* bytes before the packet refused */
        bool stricter;          /* libusbredirparser would take it */
    } want;
} Case;

#define PASSES              { NULL, 0, false }
#define REFUSED(error, n)   { (error), (n), false }
#define STRICTER(error, n)  { (error), (n), true }

static const Case cases[] = {
    /* every type, in its direction */
    { "device_connect/short", TO_GUEST, 0, 0,
      P("01", "08000000") "02000000 34120100", PASSES },
    { "device_connect/short-one-side", TO_GUEST, VERSION, 0,
      P("01", "08000000") "02000000 34120100", PASSES },
    { "device_connect/version", TO_GUEST, VERSION, VERSION,
      P("01", "0a000000") "02000000 34120100 0002", PASSES },
    { "device_connect/id64", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("01", "0a000000") "02000000 34120100 0002", PASSES },
    { "device_disconnect", TO_GUEST, 0, 0, P("02", "00000000"), PASSES },
    { "reset", TO_CLIENT, 0, 0, P("03", "00000000"), PASSES },
    { "interface_info", TO_GUEST, 0, 0,
      P("04", "84000000") "20000000" R64("08") R64("06"), PASSES },
    { "ep_info/96", TO_GUEST, 0, 0, P("05", "60000000") EP_INFO_96, PASSES },
    { "ep_info/96-one-side", TO_GUEST, 0, EP_MAX,
      P("05", "60000000") EP_INFO_96, PASSES },
    { "ep_info/160", TO_GUEST, EP_MAX, EP_MAX,
      P("05", "a0000000") EP_INFO_160("0002"), PASSES },
    { "ep_info/160-streams-one-side", TO_GUEST, EP_MAX | STREAMS, EP_MAX,
      P("05", "a0000000") EP_INFO_160("0002"), PASSES },
    { "ep_info/96-streams-without-size", TO_GUEST, STREAMS, STREAMS,
      P("05", "60000000") EP_INFO_96, PASSES },
    { "ep_info/96-streams-without-size-one-side", TO_GUEST, EP_MAX | STREAMS,
      STREAMS, P("05", "60000000") EP_INFO_96, PASSES },
    { "ep_info/288", TO_GUEST, EP_MAX | STREAMS, EP_MAX | STREAMS,
      P("05", "20010000") EP_INFO_288("0004"), PASSES },
    { "ep_info/288-id64", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("05", "20010000") EP_INFO_288("0004"), PASSES },
    { "set_configuration", TO_CLIENT, 0, 0, P("06", "01000000") "01", PASSES },
    { "get_configuration", TO_CLIENT, 0, 0, P("07", "00000000"), PASSES },
    { "configuration_status", TO_GUEST, 0, 0, P("08", "02000000") "0001",
      PASSES },
    { "set_alt_setting", TO_CLIENT, 0, 0, P("09", "02000000") "0001", PASSES },
    { "get_alt_setting", TO_CLIENT, 0, 0, P("0a", "01000000") "00", PASSES },
    { "alt_setting_status", TO_GUEST, 0, 0, P("0b", "03000000") "000001",
      PASSES },
    { "start_iso_stream", TO_CLIENT, 0, 0, P("0c", "03000000") "810804",
      PASSES },
    { "stop_iso_stream", TO_CLIENT, 0, 0, P("0d", "01000000") "81", PASSES },
    { "iso_stream_status", TO_GUEST, 0, 0, P("0e", "02000000") "0081", PASSES },
    { "start_interrupt_receiving", TO_CLIENT, 0, 0,
      P("0f", "01000000") "81", PASSES },
    { "stop_interrupt_receiving", TO_CLIENT, 0, 0, P("10", "01000000") "81",
      PASSES },
    { "interrupt_receiving_status", TO_GUEST, 0, 0,
      P("11", "02000000") "0081", PASSES },
    { "alloc_bulk_streams", TO_CLIENT, 0, 0,
      P("12", "08000000") "00000200 10000000", PASSES },
    { "free_bulk_streams", TO_CLIENT, 0, 0, P("13", "04000000") "00000200",
      PASSES },
    { "bulk_streams_status", TO_GUEST, 0, 0,
      P("14", "09000000") "00000200 10000000 00", PASSES },
    { "cancel_data_packet", TO_CLIENT, 0, 0, P("15", "00000000"), PASSES },
    { "filter_reject", TO_CLIENT, FILTER, 0, P("16", "00000000"), PASSES },
    { "filter_filter", TO_CLIENT, FILTER, 0,
      P("17", "10000000") "3078303862782c2d312c2d312c2d3100", PASSES },
    { "filter_filter/zero-only", TO_CLIENT, FILTER, 0,
      P("17", "01000000") "00", PASSES },
    { "device_disconnect_ack", TO_CLIENT, ACK, 0, P("18", "00000000"), PASSES },
    { "start_bulk_receiving", TO_CLIENT, RECEIVING, 0,
      P("19", "0a000000") "00000000 00020000 8105", PASSES },
    { "start_bulk_receiving/limit", TO_CLIENT, RECEIVING, 0,
      P("19", "0a000000") "00000000 00000008 8105", PASSES },
    { "stop_bulk_receiving", TO_CLIENT, RECEIVING, 0,
      P("1a", "05000000") "00000000 81", PASSES },
    { "bulk_receiving_status", TO_GUEST, 0, RECEIVING,
      P("1b", "06000000") "00000000 8100", PASSES },

    /* transfers: the data goes with the endpoint's direction */
    { "control/in-request", TO_CLIENT, 0, 0,
      P("64", "0a000000") "80068000 0001 0000 1200", PASSES },
    { "control/in-answer", TO_GUEST, 0, 0,
      P("64", "0e000000") "80068000 0001 0000 0400 12010002", PASSES },
    { "control/in-answer-empty", TO_GUEST, 0, 0,
      P("64", "0a000000") "80068000 0001 0000 0000", PASSES },
    { "control/out-request", TO_CLIENT, 0, 0,
      P("64", "0c000000") "00092100 0002 0000 0200 0102", PASSES },
    { "control/out-answer", TO_GUEST, 0, 0,
      P("64", "0a000000") "00092100 0002 0000 0200", PASSES },
    { "bulk/in-request-16", TO_CLIENT, 0, 0,
      P("65", "08000000") "8100 0002 00000000", PASSES },
    { "bulk/in-answer-16", TO_GUEST, BULK_32, 0,
      P("65", "0b000000") "8100 0300 00000000 010203", PASSES },
    { "bulk/in-request-32", TO_CLIENT, BULK_32, BULK_32,
      P("65", "0a000000") "8100 0000 00000000 0100", PASSES },
    { "bulk/in-request-limit", TO_CLIENT, BULK_32, BULK_32,
      P("65", "0a000000") "8100 0000 00000000 0008", PASSES },
    { "bulk/in-answer-32", TO_GUEST, BULK_32, BULK_32,
      P("65", "0d000000") "8100 0300 00000000 0000 010203", PASSES },
    { "bulk/in-stall", TO_GUEST, BULK_32, BULK_32,
      P("65", "0a000000") "8104 0000 00000000 0000", PASSES },
    { "bulk/out-request-32", TO_CLIENT, ALL_CAPS, ALL_CAPS,
      Q("65", "0e000000") "0200 0400 00000000 0000 aabbccdd", PASSES },
    { "bulk/out-answer-32", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("65", "0a000000") "0200 0400 00000000 0000", PASSES },
    { "iso/in", TO_GUEST, 0, 0, P("66", "06000000") "8100 0200 aabb", PASSES },
    { "iso/in-empty", TO_GUEST, 0, 0, P("66", "04000000") "8100 0000", PASSES },
    { "iso/out", TO_CLIENT, 0, 0, P("66", "06000000") "0100 0200 aabb",
      PASSES },
    { "interrupt/in", TO_GUEST, 0, 0, P("67", "06000000") "8100 0200 aabb",
      PASSES },
    { "interrupt/out", TO_CLIENT, 0, 0, P("67", "06000000") "0100 0200 aabb",
      PASSES },
    { "interrupt/out-answer", TO_GUEST, 0, 0,
      P("67", "04000000") "0100 0200", PASSES },
    { "buffered_bulk", TO_GUEST, 0, RECEIVING,
      P("68", "0c000000") "00000000 02000000 8100 aabb", PASSES },
    { "buffered_bulk/empty", TO_GUEST, 0, RECEIVING,
      P("68", "0a000000") "00000000 00000000 8100", PASSES },

    /* several packets, payloads of any content */
    { "row/to-guest", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("04", "84000000") "01000000" R64("08") R64("06")
      Q("05", "20010000") EP_INFO_288("0800")
      Q("01", "0a000000") "02000000 34120100 0002"
      Q("65", "12000000") "8100 0800 00000000 0000 ffffffffffffffff"
      Q("64", "0c000000") "80068000 0001 0000 0200 ffff"
      Q("02", "00000000"), PASSES },
    { "row/to-client", TO_CLIENT, ALL_CAPS, ALL_CAPS,
      Q("16", "00000000") Q("18", "00000000") Q("03", "00000000")
      Q("17", "02000000") "2d00"
      Q("65", "0e000000") "0200 0400 00000000 0000 ffffffff"
      Q("15", "00000000"), PASSES },

    /* issue 5: six malformed packets, each behind a good one */
    { "malformed/short", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("02", "00000000")
      Q("65", "09000000") "8100 0000 00000000 00",
      REFUSED("the header alone has 10 bytes", 16) },
    { "malformed/long", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("02", "00000000")
      Q("08", "03000000") "000100",
      REFUSED("the header has 2 bytes, and nothing may follow", 16) },
    { "malformed/unknown-type", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("02", "00000000")
      Q("1c", "02000000") "0000",
      REFUSED("there is no such type", 16) },
    { "malformed/bad-length", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("02", "00000000")
      Q("65", "0d000000") "8100 0200 00000000 0000 010203",
      REFUSED("endpoint 81: 3 bytes of data, the header says 2", 16) },
    { "malformed/wrong-endpoint", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("02", "00000000")
      Q("66", "06000000") "0100 0200 aabb",
      REFUSED("endpoint 01: 2 bytes of data against its direction", 16) },
    { "malformed/garbage", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("02", "00000000")
      R16("a5") R16("5a") R16("ff"),
      REFUSED("there is no such type", 16) },

    /* types */
    { "type/99", TO_GUEST, 0, 0, P("63", "00000000"),
      REFUSED("there is no such type", 0) },
    { "type/105", TO_GUEST, 0, 0, P("69", "00000000"),
      REFUSED("there is no such type", 0) },
    { "type/high-bytes", TO_GUEST, 0, 0,
      "64010000 0a000000 00000000" "80068000 0001 0000 0000",
      REFUSED("there is no such type", 0) },
    { "type/max", TO_GUEST, 0, 0,
      "ffffffff 00000000 00000000",
      REFUSED("there is no such type", 0) },
    { "direction/reset", TO_GUEST, 0, 0, P("03", "00000000"),
      REFUSED("this type is not for usb-redir", 0) },
    { "direction/set_configuration", TO_GUEST, 0, 0,
      P("06", "01000000") "01",
      REFUSED("this type is not for usb-redir", 0) },
    { "direction/cancel", TO_GUEST, 0, 0, P("15", "00000000"),
      REFUSED("this type is not for usb-redir", 0) },
    { "direction/filter_reject", TO_GUEST, FILTER, FILTER,
      P("16", "00000000"),
      REFUSED("this type is not for usb-redir", 0) },
    { "direction/ack", TO_GUEST, ACK, ACK, P("18", "00000000"),
      REFUSED("this type is not for usb-redir", 0) },
    { "direction/device_connect", TO_CLIENT, 0, 0,
      P("01", "08000000") "02000000 34120100",
      REFUSED("this type is not for the client", 0) },
    { "direction/buffered_bulk", TO_CLIENT, RECEIVING, RECEIVING,
      P("68", "0c000000") "00000000 02000000 0100 aabb",
      REFUSED("this type is not for the client", 0) },

    /* lengths */
    { "length/0", TO_GUEST, 0, 0, P("04", "00000000"),
      REFUSED("the header alone has 132 bytes", 0) },
    { "length/131", TO_GUEST, 0, 0, P("04", "83000000"),
      REFUSED("the header alone has 132 bytes", 0) },
    { "length/133", TO_GUEST, 0, 0, P("04", "85000000"),
      REFUSED("the header has 132 bytes, and nothing may follow", 0) },
    { "length/disconnect-1", TO_GUEST, 0, 0, P("02", "01000000") "00",
      REFUSED("the header has 0 bytes, and nothing may follow", 0) },
    { "length/connect-needs-version", TO_GUEST, VERSION, VERSION,
      P("01", "08000000") "02000000 34120100",
      REFUSED("the header alone has 10 bytes", 0) },
    { "length/connect-needs-no-version", TO_GUEST, 0, VERSION,
      P("01", "0a000000") "02000000 34120100 0002",
      REFUSED("the header has 8 bytes, and nothing may follow", 0) },
    { "length/ep_info-needs-sizes", TO_GUEST, EP_MAX, EP_MAX,
      P("05", "60000000") EP_INFO_96,
      REFUSED("the header alone has 160 bytes", 0) },
    { "length/ep_info-needs-streams", TO_GUEST, ALL_CAPS & ~ID_64, ALL_CAPS,
      P("05", "a0000000") EP_INFO_160("0002"),
      REFUSED("the header alone has 288 bytes", 0) },
    { "length/bulk-needs-32-bits", TO_GUEST, BULK_32, BULK_32,
      P("65", "08000000") "8100 0000 00000000",
      REFUSED("the header alone has 10 bytes", 0) },
    { "length/bulk-has-16-bits", TO_GUEST, 0, BULK_32,
      P("65", "0a000000") "8100 0000 00000000 0000",
      REFUSED("endpoint 81: 2 bytes of data, the header says 0", 0) },
    { "length/limit", TO_GUEST, BULK_32, BULK_32,
      P("65", "01040008"),
      REFUSED("the limit is 134218752 bytes", 0) },
    { "length/max", TO_GUEST, BULK_32, BULK_32,
      P("65", "ffffffff"),
      REFUSED("the limit is 134218752 bytes", 0) },
    { "length/sign-bit", TO_GUEST, 0, 0,
      P("64", "00000080"),
      REFUSED("the limit is 134218752 bytes", 0) },
    { "length/id32-read-as-id64", TO_GUEST, ALL_CAPS, ALL_CAPS,
      P("08", "02000000") "0001" R4("00"), PASSES },
    { "length/id64-read-as-id32", TO_GUEST, 0, 0,
      Q("08", "02000000") "0001" R16("00"),
      REFUSED("there is no such type", 14) },

    /* transfers */
    { "transfer/control-long", TO_GUEST, 0, 0,
      P("64", "0f000000") "80068000 0001 0000 0400 1201000200",
      REFUSED("endpoint 80: 5 bytes of data, the header says 4", 0) },
    { "transfer/control-short", TO_GUEST, 0, 0,
      P("64", "0a000000") "80068000 0001 0000 0400",
      REFUSED("endpoint 80: 0 bytes of data, the header says 4", 0) },
    { "transfer/control-against", TO_GUEST, 0, 0,
      P("64", "0b000000") "00092100 0002 0000 0100 01",
      REFUSED("endpoint 00: 1 bytes of data against its direction", 0) },
    { "transfer/control-against-client", TO_CLIENT, 0, 0,
      P("64", "0b000000") "80068000 0002 0000 0100 01",
      REFUSED("endpoint 80: 1 bytes of data against its direction", 0) },
    { "transfer/bulk-high-length", TO_GUEST, BULK_32, BULK_32,
      P("65", "0d000000") "8100 0300 00000000 0100 010203",
      REFUSED("endpoint 81: 3 bytes of data, the header says 65539", 0) },
    { "transfer/bulk-limit", TO_CLIENT, BULK_32, BULK_32,
      P("65", "0a000000") "8100 0100 00000000 0008",
      REFUSED("endpoint 81: 134217729 bytes to transfer, the limit is "
              "134217728", 0) },
    { "transfer/bulk-against", TO_GUEST, 0, 0,
      P("65", "09000000") "0200 0100 00000000 01",
      REFUSED("endpoint 02: 1 bytes of data against its direction", 0) },
    { "transfer/iso-out-answer", TO_GUEST, 0, 0,
      P("66", "04000000") "0100 0200",
      REFUSED("endpoint 01 has the other direction", 0) },
    { "transfer/iso-in-request", TO_CLIENT, 0, 0,
      P("66", "04000000") "8100 0200",
      REFUSED("endpoint 81 has the other direction", 0) },
    { "transfer/interrupt-in-request", TO_CLIENT, 0, 0,
      P("67", "04000000") "8100 0200",
      REFUSED("endpoint 81 has the other direction", 0) },
    { "transfer/buffered-out", TO_GUEST, 0, RECEIVING,
      P("68", "0a000000") "00000000 02000000 0100",
      REFUSED("endpoint 01 has the other direction", 0) },
    { "transfer/buffered-length", TO_GUEST, 0, RECEIVING,
      P("68", "0b000000") "00000000 02000000 8100 aa",
      REFUSED("endpoint 81: 1 bytes of data, the header says 2", 0) },
    { "transfer/buffered-limit", TO_GUEST, 0, RECEIVING,
      P("68", "0a000000") "00000000 01000008 8100",
      REFUSED("endpoint 81: 134217729 bytes to transfer, the limit is "
              "134217728", 0) },

    /* endpoints that must be IN */
    { "ep/start_interrupt", TO_CLIENT, 0, 0, P("0f", "01000000") "01",
      REFUSED("endpoint 01 is no input", 0) },
    { "ep/stop_interrupt", TO_CLIENT, 0, 0, P("10", "01000000") "7f",
      REFUSED("endpoint 7f is no input", 0) },
    { "ep/interrupt_status", TO_GUEST, 0, 0, P("11", "02000000") "8001",
      REFUSED("endpoint 01 is no input", 0) },
    { "ep/start_bulk_receiving", TO_CLIENT, RECEIVING, 0,
      P("19", "0a000000") "80808080 00020000 0105",
      REFUSED("endpoint 01 is no input", 0) },
    { "ep/stop_bulk_receiving", TO_CLIENT, RECEIVING, 0,
      P("1a", "05000000") "80808080 01",
      REFUSED("endpoint 01 is no input", 0) },
    { "ep/bulk_receiving_status", TO_GUEST, 0, RECEIVING,
      P("1b", "06000000") "80808080 0180",
      REFUSED("endpoint 01 is no input", 0) },

    /* contents of headers */
    { "interfaces/33", TO_GUEST, 0, 0,
      P("04", "84000000") "21000000" R64("00") R64("00"),
      REFUSED("33 interfaces, 32 is the most", 0) },
    { "interfaces/max", TO_GUEST, 0, 0,
      P("04", "84000000") "ffffffff" R64("00") R64("00"),
      REFUSED("4294967295 interfaces, 32 is the most", 0) },
    { "bulk_receiving/limit", TO_CLIENT, RECEIVING, 0,
      P("19", "0a000000") "00000000 01000008 8105",
      REFUSED("134217729 bytes per transfer, the limit is 134217728", 0) },

    /* capabilities of the receiver, not of the sender */
    { "cap/filter_reject", TO_CLIENT, 0, FILTER, P("16", "00000000"),
      REFUSED("the receiver lacks capability 2", 0) },
    { "cap/filter_filter", TO_CLIENT, 0, FILTER, P("17", "01000000") "00",
      REFUSED("the receiver lacks capability 2", 0) },
    { "cap/ack", TO_CLIENT, 0, ACK, P("18", "00000000"),
      REFUSED("the receiver lacks capability 3", 0) },
    { "cap/start_bulk_receiving", TO_CLIENT, 0, RECEIVING,
      P("19", "0a000000") "00000000 00020000 8105",
      REFUSED("the receiver lacks capability 7", 0) },
    { "cap/stop_bulk_receiving", TO_CLIENT, 0, RECEIVING,
      P("1a", "05000000") "00000000 81",
      REFUSED("the receiver lacks capability 7", 0) },
    { "cap/bulk_receiving_status", TO_GUEST, RECEIVING, 0,
      P("1b", "06000000") "00000000 8100",
      REFUSED("the receiver lacks capability 7", 0) },
    { "cap/buffered_bulk", TO_GUEST, RECEIVING, 0,
      P("68", "0a000000") "00000000 00000000 8100",
      REFUSED("the receiver lacks capability 7", 0) },

    /* filters */
    { "filter/empty", TO_CLIENT, FILTER, 0, P("17", "00000000"),
      REFUSED("a filter has one byte at least", 0) },
    { "filter/no-zero", TO_CLIENT, FILTER, 0, P("17", "03000000") "2d0031",
      REFUSED("the filter does not end with a zero", 14) },
    { "filter/to-guest", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("17", "02000000") "2d00",
      STRICTER("this type is not for usb-redir", 0) },

    /* what usb-redir divides by */
    { "packet-size/0", TO_GUEST, EP_MAX, EP_MAX,
      P("05", "a0000000") EP_INFO_160("0000"),
      STRICTER("endpoint 81: bulk packets of 0 bytes, 8 is the least", 0) },
    { "packet-size/7", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("05", "20010000") EP_INFO_288("0700"),
      STRICTER("endpoint 81: bulk packets of 7 bytes, 8 is the least", 0) },
    { "packet-size/8", TO_GUEST, EP_MAX, EP_MAX,
      P("05", "a0000000") EP_INFO_160("0800"), PASSES },
    { "packet-size/0-of-out-and-other-types", TO_GUEST, EP_MAX, EP_MAX,
      P("05", "a0000000") "00" R4("02") R4("02") R4("02") "020202"
      "00" R4("01") R4("03") R4("ff") "ffffff" R64("01") R64("00"), PASSES },

    { "packet-size/is-not-read-from-intervals", TO_GUEST, ALL_CAPS, ALL_CAPS,
      Q("05", "20010000") R32("ff") R32("02") R32("00") R64("00")
      R64("00") R64("00"), PASSES },

    /* hellos */
    { "hello/again", TO_GUEST, 0, 0, HELLO("00000000"),
      STRICTER("there was a hello already", 0) },
    { "hello/again-from-usb-redir", TO_CLIENT, 0, 0, HELLO("00000000"),
      STRICTER("there was a hello already", 0) },
};

/* In a first piece and others of @step; what passes must be as @one says. */
static void in_pieces(const Case *one, const GByteArray *stream, size_t first,
                      size_t step, bool saved)
{
    SpiceFlowUsbredir *guard = greeted_guard(one->client_caps,
                                             one->device_caps);
    g_autoptr(GByteArray) out = g_byte_array_new();
    SpiceFlowUsbredirResult result = SPICE_FLOW_USBREDIR_PASS;
    size_t passes = one->want.error ? one->want.passes : stream->len;
    size_t pos = 0;
    size_t n = MIN(first, stream->len);

    while (result == SPICE_FLOW_USBREDIR_PASS) {
        result = give(guard, one->direction, stream->data + pos, n, out);
        pos += n;
        n = MIN(step, stream->len - pos);
        if (saved) {
            reload(guard);
        }
        if (!n) {
            break;
        }
    }
    g_assert_cmpmem(out->data, out->len, stream->data, passes);
    if (one->want.error) {
        g_autoptr(GByteArray) good = bytes_of(P("02", "00000000"));

        g_assert_cmpint(result, ==, SPICE_FLOW_USBREDIR_BAD);
        if (!saved) {
            const char *error = spice_flow_usbredir_error(guard);

            g_assert_cmpstr(strstr(error, ": ") + 2, ==, one->want.error);
        }
        /* that was all, in both directions */
        g_assert_cmpint(give(guard, TO_GUEST, good->data, good->len, out), ==,
                        SPICE_FLOW_USBREDIR_BAD);
        g_assert_cmpint(give(guard, TO_CLIENT, good->data, good->len, out),
                        ==, SPICE_FLOW_USBREDIR_BAD);
        g_assert_cmpuint(out->len, ==, passes);
    } else {
        g_assert_cmpint(result, ==, SPICE_FLOW_USBREDIR_PASS);
        g_assert_false(spice_flow_usbredir_partial(guard, one->direction));
    }
    spice_flow_usbredir_free(guard);
}

static void test_case(gconstpointer data)
{
    const Case *one = data;
    g_autoptr(GByteArray) stream = bytes_of(one->stream);
    g_autoptr(GByteArray) more = bytes_of(R16(R16("00")));
    g_autoptr(Receiver) receiver = NULL;
    bool taken;

    for (size_t cut = 0; cut <= stream->len; cut++) {
        in_pieces(one, stream, cut, stream->len, false);
        in_pieces(one, stream, cut, stream->len, true);
    }
    for (size_t step = 1; step < 20; step++) {
        in_pieces(one, stream, step, step, false);
        in_pieces(one, stream, step, step, true);
    }

    /* usb-guests say ACK by themselves */
    receiver = greeted_receiver(one->direction, one->client_caps,
                                one->device_caps);
    taken = receiver_read(receiver, stream->data, stream->len);
    if (one->want.error && taken && !one->want.stricter) {
        /* it only looks at the end of the packet */
        taken = receiver_read(receiver, more->data, more->len);
    }
    g_assert_cmpint(taken, ==, !one->want.error || one->want.stricter);
}

/* After each malformed packet comes an honest client. */
static void test_next_client(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = spice_flow_usbredir_new();
    g_autoptr(GByteArray) hello = hello_of(ALL_CAPS);
    g_autoptr(GByteArray) honest =
        bytes_of(Q("01", "0a000000") "02000000 34120100 0002"
                 Q("65", "0c000000") "8100 0200 00000000 0000 aabb");
    unsigned seen = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) stream = bytes_of(cases[i].stream);
        g_autoptr(GByteArray) out = g_byte_array_new();
        g_autoptr(GByteArray) want = g_byte_array_new();

        if (!g_str_has_prefix(cases[i].name, "malformed/")) {
            continue;
        }
        seen++;
        give(guard, TO_CLIENT, hello->data, hello->len, out);
        give(guard, TO_GUEST, hello->data, hello->len, out);
        g_assert_cmpint(give(guard, TO_GUEST, stream->data, stream->len, out),
                        ==, SPICE_FLOW_USBREDIR_BAD);
        spice_flow_usbredir_reset(guard);
        g_assert_null(spice_flow_usbredir_error(guard));

        g_byte_array_set_size(out, 0);
        give(guard, TO_CLIENT, hello->data, hello->len, out);
        give(guard, TO_GUEST, hello->data, hello->len, out);
        give(guard, TO_GUEST, honest->data, honest->len, out);
        g_byte_array_append(want, hello->data, hello->len);
        g_byte_array_append(want, hello->data, hello->len);
        g_byte_array_append(want, honest->data, honest->len);
        g_assert_cmpmem(out->data, out->len, want->data, want->len);
        spice_flow_usbredir_reset(guard);
    }
    g_assert_cmpuint(seen, ==, 6);
    spice_flow_usbredir_free(NULL);
}

/* The sentence that the log gets. */
static void test_error_text(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(0, 0);
    g_autoptr(GByteArray) bad = bytes_of(P("08", "03000000"));
    g_autoptr(GByteArray) unknown = bytes_of(P("ff", "00000000"));
    g_autoptr(GByteArray) out = g_byte_array_new();

    give(guard, TO_GUEST, bad->data, bad->len, out);
    g_assert_cmpstr(spice_flow_usbredir_error(guard), ==,
                    "usbredir packet from the client, type 8 "
                    "(configuration_status), length 3: the header has 2 "
                    "bytes, and nothing may follow");
    spice_flow_usbredir_free(g_steal_pointer(&guard));
    guard = greeted_guard(0, 0);
    give(guard, TO_CLIENT, unknown->data, unknown->len, out);
    g_assert_cmpstr(spice_flow_usbredir_error(guard), ==,
                    "usbredir packet from usb-redir, type 255 (unknown), "
                    "length 0: there is no such type");
    g_assert_cmpstr(spice_flow_usbredir_type_name(104), ==,
                    "buffered_bulk_packet");
    g_assert_null(spice_flow_usbredir_type_name(28));
}

/* Anything before a hello is refused. */
static void test_hello_first(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = spice_flow_usbredir_new();
    g_autoptr(GByteArray) early = bytes_of(P("02", "00000000"));
    g_autoptr(GByteArray) out = g_byte_array_new();

    g_assert_cmpint(give(guard, TO_GUEST, early->data, early->len, out), ==,
                    SPICE_FLOW_USBREDIR_BAD);
    g_assert_cmpuint(out->len, ==, 0);
    g_assert_true(g_str_has_suffix(spice_flow_usbredir_error(guard),
                                   "the first packet must be a hello"));
}

/* Hellos of other lengths: no word of capabilities, part of one, several. */
static void test_hello_sizes(void)
{
    static const struct {
        const char *hello;
        bool id_64;
    } hellos[] = {
        { P("00", "40000000") R64("41"), false },
        { P("00", "43000000") R64("41") "ffffff", false },
        { P("00", "44000000") R64("41") "20000000", true },
        { P("00", "47000000") R64("41") "20000000 000000", true },
        { P("00", "48000000") R64("41") "20000000 ffffffff", true },
        { P("00", "4c000000") R64("41") "00000000 ffffffff ffffffff", false },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(hellos); i++) {
        g_autoptr(GByteArray) device = hello_of(ALL_CAPS);
        g_autoptr(GByteArray) hello = bytes_of(hellos[i].hello);
        g_autoptr(GByteArray) next =
            bytes_of(hellos[i].id_64 ? Q("02", "00000000")
                                     : P("02", "00000000"));

        for (size_t step = 1; step <= hello->len; step++) {
            SpiceFlowUsbredir *guard = spice_flow_usbredir_new();
            g_autoptr(Receiver) receiver = receiver_new(false, ALL_CAPS);
            g_autoptr(GByteArray) out = g_byte_array_new();

            give(guard, TO_CLIENT, device->data, device->len, out);
            g_byte_array_set_size(out, 0);
            for (size_t pos = 0; pos < hello->len; pos += step) {
                g_assert_cmpint(give(guard, TO_GUEST, hello->data + pos,
                                     MIN(step, hello->len - pos), out), ==,
                                SPICE_FLOW_USBREDIR_PASS);
                reload(guard);
            }
            give(guard, TO_GUEST, next->data, next->len, out);
            g_assert_cmpuint(out->len, ==, hello->len + next->len);
            g_assert_false(spice_flow_usbredir_partial(guard, TO_GUEST));
            g_assert_true(receiver_read(receiver, out->data, out->len));
            spice_flow_usbredir_free(guard);
        }
    }
}

/*
 * The client's second packet waits for usb-redir's hello, which may come late:
 * usb-redir says nothing while the VM is stopped.  And the other way round.
 */
static void test_wait(void)
{
    for (int i = 0; i < 2; i++) {
        SpiceFlowUsbredirDirection first = i ? TO_CLIENT : TO_GUEST;
        g_autoptr(SpiceFlowUsbredir) guard = spice_flow_usbredir_new();
        g_autoptr(GByteArray) both = hello_of(ALL_CAPS);
        g_autoptr(GByteArray) hello = hello_of(ALL_CAPS);
        g_autoptr(GByteArray) next =
            bytes_of(i ? Q("03", "00000000") : Q("02", "00000000"));
        g_autoptr(GByteArray) out = g_byte_array_new();
        SpiceFlowUsbredirSpans spans;

        g_byte_array_append(both, next->data, next->len);
        g_assert_cmpint(spice_flow_usbredir_check(guard, first, both->data,
                                                  both->len, &spans), ==,
                        SPICE_FLOW_USBREDIR_WAIT);
        g_assert_cmpuint(spans.pass, ==, hello->len);
        g_assert_cmpuint(spans.used, ==, hello->len);
        g_assert_true(spice_flow_usbredir_greeted(guard, first));
        g_assert_false(spice_flow_usbredir_greeted(guard, !first));
        g_assert_false(spice_flow_usbredir_partial(guard, first));
        /* asking again changes nothing */
        reload(guard);
        g_assert_cmpint(spice_flow_usbredir_check(guard, first, next->data, 1,
                                                  &spans), ==,
                        SPICE_FLOW_USBREDIR_WAIT);
        g_assert_cmpuint(spans.used, ==, 0);

        g_assert_cmpint(give(guard, !first, hello->data, hello->len, out), ==,
                        SPICE_FLOW_USBREDIR_PASS);
        g_byte_array_set_size(out, 0);
        g_assert_cmpint(give(guard, first, next->data, next->len, out), ==,
                        SPICE_FLOW_USBREDIR_PASS);
        g_assert_cmpmem(out->data, out->len, next->data, next->len);
    }
}

/* A header that is not cut is not copied, nor is a payload. */
static void test_no_copy(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(0, 0);
    g_autoptr(GByteArray) packet =
        bytes_of(P("65", "48000000") "8100 4000 00000000" R64("aa"));
    SpiceFlowUsbredirSpans spans;

    for (size_t cut = 20; cut <= packet->len; cut++) {
        spice_flow_usbredir_check(guard, TO_GUEST, packet->data, cut, &spans);
        g_assert_cmpuint(spans.held_len, ==, 0);
        g_assert_cmpuint(spans.pass, ==, cut);
        g_assert_cmpint(spice_flow_usbredir_partial(guard, TO_GUEST), ==,
                        cut < packet->len);
        spice_flow_usbredir_check(guard, TO_GUEST, packet->data + cut,
                                  packet->len - cut, &spans);
        g_assert_cmpuint(spans.held_len, ==, 0);
        g_assert_cmpuint(spans.pass, ==, packet->len - cut);
    }
    /* cut: what was held comes first, the rest from the caller's bytes */
    spice_flow_usbredir_check(guard, TO_GUEST, packet->data, 19, &spans);
    g_assert_cmpuint(spans.held_len + spans.pass, ==, 0);
    g_assert_cmpuint(spans.used, ==, 19);
    g_assert_true(spice_flow_usbredir_partial(guard, TO_GUEST));
    spice_flow_usbredir_check(guard, TO_GUEST, packet->data + 19,
                              packet->len - 19, &spans);
    g_assert_cmpmem(spans.held, spans.held_len, packet->data, 19);
    g_assert_cmpuint(spans.pass, ==, packet->len - 19);
}

/* A header completed and the next one begun in one piece. */
static void test_held_twice(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(ALL_CAPS, ALL_CAPS);
    g_autoptr(GByteArray) packet =
        bytes_of(Q("05", "20010000") EP_INFO_288("0004"));
    g_autoptr(GByteArray) two = g_byte_array_new();
    SpiceFlowUsbredirSpans spans;

    g_assert_cmpuint(packet->len, ==, SPICE_FLOW_USBREDIR_HEADER_MAX);
    g_byte_array_append(two, packet->data, packet->len);
    g_byte_array_append(two, packet->data, packet->len);
    spice_flow_usbredir_check(guard, TO_GUEST, two->data, 303, &spans);
    g_assert_cmpuint(spans.pass, ==, 0);
    spice_flow_usbredir_check(guard, TO_GUEST, two->data + 303, 304, &spans);
    g_assert_cmpmem(spans.held, spans.held_len, two->data, 303);
    g_assert_cmpuint(spans.pass, ==, 1);
    g_assert_cmpuint(spans.used, ==, 304);
    spice_flow_usbredir_check(guard, TO_GUEST, two->data + 607, 1, &spans);
    g_assert_cmpmem(spans.held, spans.held_len, two->data + 304, 303);
    g_assert_cmpuint(spans.pass, ==, 1);
}

/* The longest packet that the parser takes is a filter's or a hello's. */
static void test_longest(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(FILTER, 0);
    g_autoptr(GByteArray) most = bytes_of(P("17", "00040008"));
    g_autoptr(GByteArray) more = bytes_of(P("17", "01040008"));
    g_autoptr(GByteArray) out = g_byte_array_new();

    g_assert_cmpint(give(guard, TO_CLIENT, most->data, most->len, out), ==,
                    SPICE_FLOW_USBREDIR_PASS);
    g_assert_cmpuint(out->len, ==, most->len);
    reload(guard);
    spice_flow_usbredir_free(g_steal_pointer(&guard));
    guard = greeted_guard(FILTER, 0);
    g_assert_cmpint(give(guard, TO_CLIENT, more->data, more->len, out), ==,
                    SPICE_FLOW_USBREDIR_BAD);
}

/* The largest bulk transfer there is passes, without memory for it. */
static void test_largest(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(BULK_32, BULK_32);
    g_autoptr(GByteArray) header =
        bytes_of(P("65", "0a000008") "8100 0000 00000000 0008");
    g_autoptr(GByteArray) next = bytes_of(P("02", "00000000"));
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree uint8_t *piece = g_malloc0(1 << 20);
    SpiceFlowUsbredirSpans spans;

    give(guard, TO_GUEST, header->data, header->len, out);
    g_assert_cmpuint(out->len, ==, header->len);
    for (int i = 0; i < 128; i++) {
        g_assert_true(spice_flow_usbredir_partial(guard, TO_GUEST));
        spice_flow_usbredir_check(guard, TO_GUEST, piece, 1 << 20, &spans);
        g_assert_cmpuint(spans.pass, ==, 1 << 20);
    }
    g_assert_false(spice_flow_usbredir_partial(guard, TO_GUEST));
    g_assert_cmpint(give(guard, TO_GUEST, next->data, next->len, out), ==,
                    SPICE_FLOW_USBREDIR_PASS);
}

/* A file of the fuzzer's corpus; with @raw, the stream has its own hello. */
static void write_seed(const char *folder, const Case *one, bool raw)
{
    g_autoptr(GByteArray) stream = bytes_of(one->stream);
    g_autofree char *name = g_strconcat(raw ? "raw-" : "", one->name, NULL);
    uint8_t head[4] = { one->direction | raw << 1, one->client_caps,
                        one->device_caps, 7 };

    if (raw) {
        g_autoptr(GByteArray) hello =
            hello_of(one->direction == TO_GUEST ? one->client_caps
                                                : one->device_caps);

        g_byte_array_prepend(stream, hello->data, hello->len);
    }
    g_byte_array_prepend(stream, head, sizeof(head));
    corpus_write(folder, name, stream);
}

static void write_corpus(const char *folder)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        write_seed(folder, &cases[i], false);
        if (g_str_has_prefix(cases[i].name, "row/") ||
            g_str_has_prefix(cases[i].name, "hello/")) {
            write_seed(folder, &cases[i], true);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && g_str_equal(argv[1], "--corpus")) {
        write_corpus(argv[2]);
        return 0;
    }
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strconcat("/usbredir/", cases[i].name, NULL);

        g_test_add_data_func(path, &cases[i], test_case);
    }
    g_test_add_func("/usbredir/D32/next-client", test_next_client);
    g_test_add_func("/usbredir/error-text", test_error_text);
    g_test_add_func("/usbredir/hello-first", test_hello_first);
    g_test_add_func("/usbredir/hello-sizes", test_hello_sizes);
    g_test_add_func("/usbredir/wait-for-hello", test_wait);
    g_test_add_func("/usbredir/no-copy", test_no_copy);
    g_test_add_func("/usbredir/held-twice", test_held_twice);
    g_test_add_func("/usbredir/largest", test_largest);
    g_test_add_func("/usbredir/longest", test_longest);
    return g_test_run();
}
