/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guard over usbredir packet headers.
 *
 * Most cases are one line each: what both sides said in their hellos, and a
 * stream in one direction with what must become of it.  Each is given to the
 * guard whole, cut once at every byte, in pieces of every small size, and with
 * the guard saved and restored between the pieces; and, in the end, to
 * libusbredirparser, which must agree, but for the lines marked stricter.
 */
#include "chardev/spiceflow/usbredir.h"
#include "usbredir-receiver.h"

#include <stdio.h>

G_STATIC_ASSERT(SPICE_FLOW_USBREDIR_HEADER_MAX ==
                sizeof(struct usb_redir_header) +
                sizeof(struct usb_redir_ep_info_header));

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

static GByteArray *bytes_of(const char *hex)
{
    GByteArray *bytes = g_byte_array_new();
    int nibble = -1;

    for (; *hex; hex++) {
        int digit = g_ascii_xdigit_value(*hex);
        uint8_t byte;

        if (*hex == ' ') {
            continue;
        }
        g_assert_cmpint(digit, >=, 0);
        if (nibble < 0) {
            nibble = digit;
            continue;
        }
        byte = nibble << 4 | digit;
        g_byte_array_append(bytes, &byte, 1);
        nibble = -1;
    }
    g_assert_cmpint(nibble, ==, -1);
    return bytes;
}

static GByteArray *hello_of(uint32_t caps)
{
    GByteArray *hello = bytes_of(P("00", "44000000") R64("00"));

    caps = GUINT32_TO_LE(caps);
    g_byte_array_append(hello, (const uint8_t *)&caps, sizeof(caps));
    return hello;
}

static SpiceFlowUsbredir *reload(SpiceFlowUsbredir *guard)
{
    SpiceFlowUsbredir *next = spice_flow_usbredir_new();
    SpiceFlowUsbredirSaved saved, again;
    char *error = NULL;

    spice_flow_usbredir_save(guard, &saved);
    g_assert_true(spice_flow_usbredir_restore(next, &saved, &error));
    g_assert_null(error);
    spice_flow_usbredir_save(next, &again);
    g_assert_cmpmem(&saved, sizeof(saved), &again, sizeof(again));
    spice_flow_usbredir_free(guard);
    return next;
}

/*
 * Gives the guard a piece, in a block of its own that is gone afterwards, and
 * appends what passes to @out.
 */
static SpiceFlowUsbredirResult give(SpiceFlowUsbredir *guard,
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

static SpiceFlowUsbredir *greeted_guard(uint32_t client_caps,
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
            guard = reload(guard);
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

static Receiver *greeted_receiver(SpiceFlowUsbredirDirection direction,
                                  uint32_t client_caps, uint32_t device_caps)
{
    bool host = direction == TO_CLIENT;
    Receiver *receiver = receiver_new(host, host ? client_caps : device_caps);
    g_autoptr(GByteArray) hello = hello_of(host ? device_caps : client_caps);

    g_assert_true(receiver_read(receiver, hello->data, hello->len));
    return receiver;
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
/* Gives one packet; the result, and all of it or nothing has passed. */
static SpiceFlowUsbredirResult give_hex(SpiceFlowUsbredir *guard,
                                        SpiceFlowUsbredirDirection direction,
                                        const char *hex)
{
    g_autoptr(GByteArray) packet = bytes_of(hex);
    SpiceFlowUsbredirSpans spans;
    SpiceFlowUsbredirResult result =
        spice_flow_usbredir_check(guard, direction, packet->data, packet->len,
                                  &spans);

    g_assert_cmpuint(spans.pass, ==, result == SPICE_FLOW_USBREDIR_PASS ?
                                     packet->len : 0);
    g_assert_cmpuint(spans.used, ==, spans.pass);
    return result;
}

#define GIVES(guard, direction, hex, result) \
    g_assert_cmpint(give_hex(guard, direction, hex), ==, \
                    SPICE_FLOW_USBREDIR_##result)

/* Bulk packets without data, ids and streams as they lie in the packet */
#define BULK(id, ep, stream) \
    "65000000 08000000" id ep "000000" stream
#define CANCEL(id)          "15000000 00000000" id
#define RECEIVE(ep)         P("19", "0a000000") "00000000 00020000" ep "05"
#define RECEIVE_NOT(ep)     P("1a", "05000000") "00000000" ep
#define ID(n)               n "000000"
#define STREAM_0            "00000000"

/*
 * Two bulk endpoints of interface 1, 02 and 82, and one of interface 2, 83;
 * then interfaces: number, class.
 */
#define SOME_EPS(type_83, if_83, size_82) \
    P("05", "a0000000") \
    "00ffff" "ff" R4("ff") R4("ff") R4("ff") \
    "00ff02" type_83 R4("ff") R4("ff") R4("ff") \
    R32("00") \
    "0000" "0000" R4("00") R4("00") R4("00") \
    "000001" if_83 R4("00") R4("00") R4("00") \
    R32("00") "0000 0000" size_82 "0002" R16("00") R4("00") R4("00")
#define SOME_INTERFACES(count, second, class_1) \
    P("04", "84000000") count "000000" \
    "01" second "0000" R4("00") R4("00") R4("00") R4("00") R4("00") R4("00") \
    R4("00") \
    class_1 "ff0000" R4("00") R4("00") R4("00") R4("00") R4("00") R4("00") \
    R4("00") \
    R64("00")

/* The USB core asserts that answers come in the order of the requests. */
static void test_answers_in_order(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);

    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("03"), "83", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("04"), "82", STREAM_0), PASS);
    /* another endpoint is another row */
    GIVES(guard, TO_GUEST, BULK(ID("03"), "83", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("01"), "82", STREAM_0), PASS);
    /* one taken back is out of the row, and may be answered or not */
    GIVES(guard, TO_CLIENT, CANCEL(ID("02")), PASS);
    GIVES(guard, TO_CLIENT, CANCEL(ID("02")), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("02"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("04"), "82", STREAM_0), PASS);
    /* never asked: nothing in usb-redir is found with it */
    GIVES(guard, TO_GUEST, BULK(ID("09"), "82", STREAM_0), PASS);
    /* nor is one with the number of another endpoint's request */
    GIVES(guard, TO_CLIENT, BULK(ID("05"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("06"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("06"), "83", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("06"), "82", STREAM_0), BAD);
    g_assert_nonnull(strstr(spice_flow_usbredir_error(guard),
                            "endpoint 82: an earlier request has no answer"));
}

static void test_answers_of_streams(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);

    GIVES(guard, TO_CLIENT, BULK(ID("01"), "02", ID("01")), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "02", ID("02")), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("02"), "02", ID("02")), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("01"), "02", ID("01")), PASS);
}

/* With the device go its requests; bits that usb-redir ignores do not count. */
static void test_answers_after_disconnect(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);

    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, P("02", "00000000"), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("03"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("02"), "f2", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, BULK(ID("03"), "82", STREAM_0), PASS);
}

/* The table of requests has an end. */
static void test_requests_limit(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);

    for (unsigned i = 0; i < 4096; i++) {
        GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    }
    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), BAD);
    g_assert_nonnull(strstr(spice_flow_usbredir_error(guard),
                            "4096 requests are without an answer already"));
}

/* While usb-redir holds what nobody saw, some packets can not be judged. */
static void test_behind(void)
{
    g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(EP_MAX, EP_MAX);
    g_autoptr(GByteArray) answer = bytes_of(BULK(ID("02"), "82", STREAM_0));
    SpiceFlowUsbredirSpans spans;

    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    spice_flow_usbredir_set_behind(guard, true);
    GIVES(guard, TO_GUEST, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "08"), WAIT);
    GIVES(guard, TO_GUEST, SOME_EPS("02", "02", "0002"), WAIT);
    GIVES(guard, TO_GUEST, P("64", "0a000000") "00090000 0100 0000 0000",
          PASS);
    GIVES(guard, TO_GUEST, BULK(ID("02"), "82", STREAM_0), WAIT);
    /* held in part, then completed: the rest is asked for again */
    g_assert_cmpint(spice_flow_usbredir_check(guard, TO_GUEST, answer->data, 9,
                                              &spans), ==,
                    SPICE_FLOW_USBREDIR_PASS);
    g_assert_cmpuint(spans.used, ==, 9);
    g_assert_cmpint(spice_flow_usbredir_check(guard, TO_GUEST,
                                              answer->data + 9,
                                              answer->len - 9, &spans), ==,
                    SPICE_FLOW_USBREDIR_WAIT);
    g_assert_cmpuint(spans.used, ==, 0);
    GIVES(guard, TO_CLIENT, BULK(ID("02"), "82", STREAM_0), PASS);
    spice_flow_usbredir_set_behind(guard, false);
    g_assert_cmpint(spice_flow_usbredir_check(guard, TO_GUEST,
                                              answer->data + 9,
                                              answer->len - 9, &spans), ==,
                    SPICE_FLOW_USBREDIR_PASS);
    g_assert_cmpuint(spans.held_len, ==, 9);
    g_assert_cmpuint(spans.pass, ==, answer->len - 9);
}

/* What has a request open must stay what it is. */
static void test_open_stays(void)
{
    static const struct {
        const char *change;
        const char *error;
    } changes[] = {
        { SOME_EPS("02", "02", "0002"), NULL },
        { SOME_INTERFACES("02", "02", "08"), NULL },
        /* the other interface may change, and end */
        { SOME_EPS("03", "02", "0002"), NULL },
        { SOME_EPS("ff", "00", "0002"), NULL },
        { SOME_INTERFACES("01", "00", "08"), NULL },
        { SOME_EPS("02", "02", "0001"), "endpoint 82 changes" },
        { SOME_EPS("02", "01", "0002"), "endpoint 83 changes" },
        { SOME_INTERFACES("02", "02", "ff"), "interface 1 changes" },
        { SOME_INTERFACES("00", "02", "08"), "interface 1 changes" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(changes) * 2; i++) {
        g_autoptr(SpiceFlowUsbredir) guard =
            greeted_guard(EP_MAX | RECEIVING, EP_MAX | RECEIVING);
        const char *error = changes[i / 2].error;

        GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "08"), PASS);
        GIVES(guard, TO_GUEST, SOME_EPS("02", "02", "0002"), PASS);
        if (i % 2) {
            GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
        } else {
            GIVES(guard, TO_CLIENT, RECEIVE("82"), PASS);
        }
        g_assert_cmpint(give_hex(guard, TO_GUEST, changes[i / 2].change), ==,
                        error ? SPICE_FLOW_USBREDIR_BAD
                              : SPICE_FLOW_USBREDIR_PASS);
        g_assert_true(!error || strstr(spice_flow_usbredir_error(guard),
                                       error));
    }
}

/* Once nothing is open, everything may change. */
static void test_closed_changes(void)
{
    g_autoptr(SpiceFlowUsbredir) guard =
        greeted_guard(EP_MAX | RECEIVING, EP_MAX | RECEIVING);

    GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "08"), PASS);
    GIVES(guard, TO_GUEST, SOME_EPS("02", "02", "0002"), PASS);
    GIVES(guard, TO_CLIENT, RECEIVE("82"), PASS);
    GIVES(guard, TO_CLIENT, BULK(ID("01"), "82", STREAM_0), PASS);
    GIVES(guard, TO_CLIENT, CANCEL(ID("01")), PASS);
    GIVES(guard, TO_CLIENT, RECEIVE_NOT("82"), PASS);
    GIVES(guard, TO_GUEST, SOME_INTERFACES("02", "02", "ff"), PASS);
    GIVES(guard, TO_GUEST, SOME_EPS("ff", "00", "0001"), PASS);
}

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
                guard = reload(guard);
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
        guard = reload(guard);
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
    guard = reload(guard);
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

/* What a saved state can not be: one field set to something else. */
typedef struct SavedCase {
    const char *error;
    SpiceFlowUsbredirSaved saved;
} SavedCase;

#define GREETED(flags)  { .hello = 1, .caps = (flags) }

static const SavedCase saved_cases[] = {
    { NULL, { .refused = 0 } },
    { NULL, { .refused = 1 } },
    { NULL, { .stream = { GREETED(ALL_CAPS), GREETED(ALL_CAPS) } } },
    { NULL, { .stream = { GREETED(ALL_CAPS), { .hello = 0 } } } },
    { NULL, { .stream = { { .hello = 1, .type = 101, .left = 1 },
                          GREETED(0) } } },
    { NULL, { .stream = { { .hello = 1, .type = 101, .left = 134218752 },
                          GREETED(0) } } },
    { NULL, { .stream = { { .hello = 1, .type = 0, .left = 3 },
                          { .hello = 0 } } } },
    { NULL, { .stream = { { .held_size = 11 }, { .held_size = 1 } } } },
    { NULL, { .stream = { { .held_size = 79, .held = { [4] = 68 } } } } },
    { NULL, { .stream = { { .hello = 1, .held_size = 12,
                            .held = { 101, [4] = 8 } }, GREETED(0) } } },
    /* refused: what else there is does not matter any more */
    { NULL, { .refused = 1,
              .stream = { { .held_size = 12, .held = { 9 } } } } },

    { "refused", { .refused = 2 } },
    { "stream[0].hello", { .stream = { { .hello = 2 } } } },
    { "stream[1].hello", { .stream = { GREETED(0), { .hello = 255 } } } },
    { "stream[0].caps", { .stream = { { .caps = 1 } } } },
    { "stream[1].caps", { .stream = { GREETED(0), GREETED(STREAMS) } } },
    { "stream[0].left", { .stream = { { .type = 101, .left = 1 } } } },
    { "stream[0].left", { .stream = { { .hello = 1, .type = 101,
                                        .left = 134218753 } } } },
    { "stream[0].left", { .stream = { { .hello = 1, .type = 101,
                                        .left = 0xffffffff } } } },
    { "stream[0].type", { .stream = { { .hello = 1, .type = 101 } } } },
    { "stream[0].type", { .stream = { { .hello = 1, .type = 5,
                                        .left = 1 } } } },
    { "stream[0].type", { .stream = { { .hello = 1, .type = 77,
                                        .left = 1 } } } },
    { "stream[0].held_size", { .stream = { { .held_size = 304 } } } },
    { "stream[0].held_size", { .stream = { { .held_size = 0xffffffff } } } },
    { "stream[0].held_size", { .stream = { { .hello = 1, .type = 101,
                                             .left = 1, .held_size = 1 },
                                           GREETED(0) } } },
    /* a whole header, a bad one, one that could not have been judged */
    { "stream[0].held", { .stream = { { .held_size = 80,
                                        .held = { [4] = 68 } } } } },
    { "stream[0].held", { .stream = { { .held_size = 12,
                                        .held = { 9 } } } } },
    { "stream[0].held", { .stream = { { .hello = 1, .held_size = 1 } } } },
    { "stream[1].held", { .stream = { GREETED(0),
                                      { .hello = 1, .held_size = 12,
                                        .held = { 3 } } } } },
};

static void test_restore(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(saved_cases); i++) {
        g_autoptr(SpiceFlowUsbredir) guard = greeted_guard(VERSION, FILTER);
        SpiceFlowUsbredirSaved before, after;
        g_autofree char *error = NULL;
        bool good;

        spice_flow_usbredir_save(guard, &before);
        good = spice_flow_usbredir_restore(guard, &saved_cases[i].saved,
                                           &error);
        g_assert_cmpstr(error, ==, saved_cases[i].error);
        g_assert_cmpint(good, ==, !saved_cases[i].error);
        spice_flow_usbredir_save(guard, &after);
        if (!good) {
            g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));
        } else {
            g_assert_cmpint(after.refused, ==, saved_cases[i].saved.refused);
            g_assert_cmpint(spice_flow_usbredir_error(guard) != NULL, ==,
                            after.refused);
        }
    }
}

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

/* A file of the fuzzer's corpus; with @raw, the stream has its own hello. */
static void write_seed(const char *folder, const Case *one, bool raw)
{
    g_autoptr(GByteArray) stream = bytes_of(one->stream);
    g_autofree char *name = g_strdelimit(g_strdup(one->name), "/", '-');
    g_autofree char *path = g_strdup_printf("%s/%s%s", folder,
                                            raw ? "raw-" : "", name);
    uint8_t head[4] = { one->direction | raw << 1, one->client_caps,
                        one->device_caps, 7 };

    if (raw) {
        g_autoptr(GByteArray) hello =
            hello_of(one->direction == TO_GUEST ? one->client_caps
                                                : one->device_caps);

        g_byte_array_prepend(stream, hello->data, hello->len);
    }
    g_byte_array_prepend(stream, head, sizeof(head));
    if (!g_file_set_contents(path, (const char *)stream->data, stream->len,
                             NULL)) {
        g_error("cannot write %s", path);
    }
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
    g_test_add_func("/usbredir/order/answers", test_answers_in_order);
    g_test_add_func("/usbredir/order/streams", test_answers_of_streams);
    g_test_add_func("/usbredir/order/disconnect",
                    test_answers_after_disconnect);
    g_test_add_func("/usbredir/order/limit", test_requests_limit);
    g_test_add_func("/usbredir/order/behind", test_behind);
    g_test_add_func("/usbredir/order/open-stays", test_open_stays);
    g_test_add_func("/usbredir/order/closed-changes", test_closed_changes);
    g_test_add_func("/usbredir/hello-first", test_hello_first);
    g_test_add_func("/usbredir/hello-sizes", test_hello_sizes);
    g_test_add_func("/usbredir/wait-for-hello", test_wait);
    g_test_add_func("/usbredir/no-copy", test_no_copy);
    g_test_add_func("/usbredir/held-twice", test_held_twice);
    g_test_add_func("/usbredir/largest", test_largest);
    g_test_add_func("/usbredir/longest", test_longest);
    g_test_add_func("/usbredir/restore", test_restore);
    g_test_add_func("/usbredir/parser/differential", test_differential);
    g_test_add_func("/usbredir/parser/talk", test_talk);
    return g_test_run();
}
