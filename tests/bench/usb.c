/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A USB device at the far end of a usbredir stream
 *
 * Theory of operation
 *
 * What a SPICE client does with a device that is plugged into its machine is
 * done here, with libusbredirparser as there, for a device that is not: it has
 * an endpoint of every kind in each direction, and what goes through them can
 * be checked byte by byte.  It is reached through spiceflow or spicevmc as a
 * client (--wire spice), or through -chardev socket (--wire raw).
 *
 *   81 02   bulk, packets of 512 bytes
 *   83 04   interrupt, packets of up to 1024 bytes
 *   85 06   isochronous, packets of up to 3072 bytes, one per millisecond
 *
 * Each endpoint has a stream of its own, made of 64-bit little-endian words:
 * word i is the endpoint's address << 56 | i.  The guest's part is
 * tests/guest/usbtool.c.  Bulk IN answers with as much as is asked for.
 * Interrupt and isochronous IN send when they are told to, and all that was
 * asked for at once, so that nothing is lost because somebody was late: that is
 * what usb-redir's buffers are for.  On an OUT endpoint a wrong byte ends the
 * program, which the guest sees as an unplugged device.
 *
 * Vendor requests on the control endpoint:
 *
 *   1 OUT   value: how many packets, index: the endpoint, data: their size,
 *           16 bits: send them
 *   2 OUT   begin all streams anew
 *   3 IN    index: the endpoint; how many bytes have passed, 64 bits
 *   4 IN, 5 OUT   data as of endpoints 80 and 00
 *
 * It is told what to do by lines: "status" prints the number of bytes of each
 * stream and of the usbredir stream itself, "unplug" and "plug" take the device
 * away and bring it back, the end of the input ends the program.  With
 * --capture PREFIX all bytes of the usbredir stream are written to
 * PREFIX.to-guest and PREFIX.to-client as they pass.
 */

#include "wire.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <usbredirparser.h>

#define EPS             32
#define EP_IN           0x80

#define EP_BULK_IN      0x81
#define EP_BULK_OUT     0x02
#define EP_INT_IN       0x83
#define EP_INT_OUT      0x04
#define EP_ISO_IN       0x85
#define EP_ISO_OUT      0x06

#define BULK_PACKET     512
#define INT_PACKET      1024
/* Three transactions of 1024 bytes */
#define ISO_PACKET      (2 << 11 | 1024)
#define ISO_SIZE        3072
/* Microframes */
#define INTERVAL        8
#define B_INTERVAL      4

#define VENDOR          0x1209
#define PRODUCT         0x0001

enum {
    GET_DESCRIPTOR = 6,
    SET_FEATURE = 3,
    CLEAR_FEATURE = 1,
    TYPE_VENDOR = 0x40,
    VENDOR_SEND = 1,
    VENDOR_RESET = 2,
    VENDOR_PASSED = 3,
    VENDOR_IN = 4,
    VENDOR_OUT = 5,
};

typedef struct Usb {
    WireAddress where;
    Wire *wire;
    struct usbredirparser *parser;
    const uint8_t *data;            /* read, and not parsed yet */
    size_t len;
    uint64_t passed[EPS];           /* bytes of each stream */
    uint64_t packets[EPS];
    bool started[EPS];              /* interrupt or isochronous stream */
    uint64_t to_guest, to_client;
    uint64_t cancelled;
    FILE *to_guest_copy;            /* of the stream, or NULL */
    FILE *to_client_copy;
} Usb;

static const struct {
    uint8_t address;
    uint8_t type;
    uint16_t packet;
} endpoints[] = {
    { EP_BULK_IN, usb_redir_type_bulk, BULK_PACKET },
    { EP_BULK_OUT, usb_redir_type_bulk, BULK_PACKET },
    { EP_INT_IN, usb_redir_type_interrupt, INT_PACKET },
    { EP_INT_OUT, usb_redir_type_interrupt, INT_PACKET },
    { EP_ISO_IN, usb_redir_type_iso, ISO_PACKET },
    { EP_ISO_OUT, usb_redir_type_iso, ISO_PACKET },
};
#define NUM_ENDPOINTS   (sizeof(endpoints) / sizeof(endpoints[0]))

static unsigned ep_index(uint8_t ep)
{
    return (ep & EP_IN) >> 3 | (ep & 0x0f);
}

static bool periodic(uint8_t type)
{
    return type == usb_redir_type_iso || type == usb_redir_type_interrupt;
}

/* The streams */

static uint8_t stream_byte(uint8_t ep, uint64_t at)
{
    uint64_t word = (uint64_t)ep << 56 | at / 8;

    return word >> 8 * (at % 8);
}

static void stream_fill(Usb *usb, uint8_t ep, uint8_t *data, size_t len)
{
    uint64_t *at = &usb->passed[ep_index(ep)];
    size_t i = 0;

    while (i < len) {
        uint64_t word = (uint64_t)ep << 56 | *at / 8;

        if (*at % 8 == 0 && len - i >= 8) {
            memcpy(data + i, &word, 8);         /* little-endian as we are */
            i += 8;
            *at += 8;
        } else {
            data[i++] = stream_byte(ep, (*at)++);
        }
    }
    usb->packets[ep_index(ep)]++;
}

static void stream_check(Usb *usb, uint8_t ep, const uint8_t *data, size_t len)
{
    uint64_t *at = &usb->passed[ep_index(ep)];
    size_t i = 0;

    while (i < len) {
        uint64_t word = (uint64_t)ep << 56 | *at / 8;

        if (*at % 8 == 0 && len - i >= 8 && !memcmp(data + i, &word, 8)) {
            i += 8;
            *at += 8;
            continue;
        }
        if (data[i] != stream_byte(ep, *at)) {
            die("endpoint %02x: wrong byte at %" PRIu64, ep, *at);
        }
        i++;
        (*at)++;
    }
    usb->packets[ep_index(ep)]++;
}

/* The device */

static void describe(Usb *usb)
{
    struct usb_redir_interface_info_header interfaces = {
        .interface_count = 1,
        .interface = { 0 },
        .interface_class = { 0xff },
    };
    struct usb_redir_ep_info_header info = { .type = { 0 } };
    unsigned i;

    for (i = 0; i < EPS; i++) {
        info.type[i] = i % 16 ? usb_redir_type_invalid
                              : usb_redir_type_control;
        info.max_packet_size[i] = i % 16 ? 0 : 64;
    }
    for (i = 0; i < NUM_ENDPOINTS; i++) {
        unsigned at = ep_index(endpoints[i].address);

        info.type[at] = endpoints[i].type;
        info.interval[at] = periodic(endpoints[i].type) ? INTERVAL : 0;
        info.max_packet_size[at] = endpoints[i].packet;
    }
    usbredirparser_send_interface_info(usb->parser, &interfaces);
    usbredirparser_send_ep_info(usb->parser, &info);
}

static void plug(Usb *usb)
{
    struct usb_redir_device_connect_header connect = {
        .speed = usb_redir_speed_high,
        .device_class = 0xff,
        .vendor_id = VENDOR,
        .product_id = PRODUCT,
        .device_version_bcd = 0x0100,
    };

    describe(usb);
    usbredirparser_send_device_connect(usb->parser, &connect);
}

static void begin_anew(Usb *usb)
{
    memset(usb->passed, 0, sizeof(usb->passed));
    memset(usb->packets, 0, sizeof(usb->packets));
}

static size_t descriptor(uint8_t *out, unsigned which)
{
    static const uint8_t device[] = {
        18, 1, 0x00, 0x02, 0xff, 0, 0, 64, VENDOR & 0xff, VENDOR >> 8,
        PRODUCT & 0xff, PRODUCT >> 8, 0x00, 0x01, 0, 0, 0, 1
    };
    size_t len = 9 + 9 + 7 * NUM_ENDPOINTS, i;
    const uint8_t head[] = {
        9, 2, len, 0, 1, 1, 0, 0x80, 50,
        9, 4, 0, 0, NUM_ENDPOINTS, 0xff, 0, 0, 0,
    };

    if (which == 1) {
        memcpy(out, device, sizeof(device));
        return sizeof(device);
    }
    if (which != 2) {
        return 0;
    }
    memcpy(out, head, sizeof(head));
    for (i = 0; i < NUM_ENDPOINTS; i++) {
        uint8_t *p = out + sizeof(head) + 7 * i;
        uint8_t type = endpoints[i].type;

        p[0] = 7;
        p[1] = 5;
        p[2] = endpoints[i].address;
        p[3] = type == usb_redir_type_iso ? type | 0x04 : type;
        p[4] = endpoints[i].packet;
        p[5] = endpoints[i].packet >> 8;
        p[6] = periodic(type) ? B_INTERVAL : 0;
    }
    return len;
}

static void send_packets(Usb *usb, uint8_t ep, unsigned count, uint16_t size)
{
    uint8_t *data = malloc(size + 1);

    for (unsigned i = 0; data && i < count; i++) {
        stream_fill(usb, ep, data, size);
        if (ep == EP_ISO_IN) {
            struct usb_redir_iso_packet_header iso = {
                .endpoint = ep, .length = size,
            };

            usbredirparser_send_iso_packet(usb->parser, i, &iso, data, size);
        } else {
            struct usb_redir_interrupt_packet_header interrupt = {
                .endpoint = ep, .length = size,
            };

            usbredirparser_send_interrupt_packet(usb->parser, i, &interrupt,
                                                 data, size);
        }
    }
    free(data);
}

/*
 * Returns how many bytes of @answer there are, or -1 for a stall.  What the
 * request makes the device send on another endpoint goes out before it.
 */
static int vendor(Usb *usb, const struct usb_redir_control_packet_header *h,
                  const uint8_t *data, int len, uint8_t *answer)
{
    uint8_t ep = h->index;

    switch (h->request) {
    case VENDOR_SEND:
        if (len != 2 || (ep != EP_ISO_IN && ep != EP_INT_IN) ||
            !usb->started[ep_index(ep)]) {
            return -1;
        }
        send_packets(usb, ep, h->value, data[0] | data[1] << 8);
        return 0;
    case VENDOR_RESET:
        begin_anew(usb);
        return 0;
    case VENDOR_PASSED:
        memcpy(answer, &usb->passed[ep_index(ep)], 8);
        return 8;
    case VENDOR_IN:
        stream_fill(usb, 0x80, answer, h->length);
        return h->length;
    case VENDOR_OUT:
        stream_check(usb, 0x00, data, len);
        return 0;
    default:
        return -1;
    }
}

/* What usb-redir says */

static void on_log(void *priv, int level, const char *text)
{
    (void)priv;
    if (level <= usbredirparser_warning) {
        die("usbredir: %s", text);
    }
}

static int on_read(void *priv, uint8_t *data, int count)
{
    Usb *usb = priv;
    size_t n = (size_t)count < usb->len ? (size_t)count : usb->len;

    memcpy(data, usb->data, n);
    usb->data += n;
    usb->len -= n;
    return n;
}

static int on_write(void *priv, uint8_t *data, int count)
{
    Usb *usb = priv;

    /* Before it goes out: who has seen it finds it in the file */
    if (usb->to_guest_copy) {
        fwrite(data, 1, count, usb->to_guest_copy);
        fflush(usb->to_guest_copy);
    }
    wire_write(usb->wire, data, count);
    usb->to_guest += count;
    return count;
}

static void on_hello(void *priv, struct usb_redir_hello_header *hello)
{
    (void)hello;
    plug(priv);
}

static void on_reset(void *priv)
{
    Usb *usb = priv;

    memset(usb->started, 0, sizeof(usb->started));
}

static void send_configuration(Usb *usb, uint64_t id, uint8_t configuration)
{
    struct usb_redir_configuration_status_header status = {
        .configuration = configuration,
    };

    usbredirparser_send_configuration_status(usb->parser, id, &status);
}

static void on_set_configuration(void *priv, uint64_t id,
                                 struct usb_redir_set_configuration_header *h)
{
    describe(priv);
    send_configuration(priv, id, h->configuration);
}

static void on_get_configuration(void *priv, uint64_t id)
{
    send_configuration(priv, id, 1);
}

static void send_alt_setting(Usb *usb, uint64_t id, uint8_t interface)
{
    struct usb_redir_alt_setting_status_header status = {
        .interface = interface,
    };

    usbredirparser_send_alt_setting_status(usb->parser, id, &status);
}

static void on_set_alt_setting(void *priv, uint64_t id,
                               struct usb_redir_set_alt_setting_header *h)
{
    describe(priv);
    send_alt_setting(priv, id, h->interface);
}

static void on_get_alt_setting(void *priv, uint64_t id,
                               struct usb_redir_get_alt_setting_header *h)
{
    send_alt_setting(priv, id, h->interface);
}

static void iso_status(Usb *usb, uint64_t id, uint8_t ep, bool started)
{
    struct usb_redir_iso_stream_status_header status = { .endpoint = ep };

    usb->started[ep_index(ep)] = started;
    usbredirparser_send_iso_stream_status(usb->parser, id, &status);
}

static void on_start_iso(void *priv, uint64_t id,
                         struct usb_redir_start_iso_stream_header *h)
{
    iso_status(priv, id, h->endpoint, true);
}

static void on_stop_iso(void *priv, uint64_t id,
                        struct usb_redir_stop_iso_stream_header *h)
{
    iso_status(priv, id, h->endpoint, false);
}

static void interrupt_status(Usb *usb, uint64_t id, uint8_t ep, bool started)
{
    struct usb_redir_interrupt_receiving_status_header status = {
        .endpoint = ep,
    };

    usb->started[ep_index(ep)] = started;
    usbredirparser_send_interrupt_receiving_status(usb->parser, id, &status);
}

static void on_start_interrupt(
    void *priv, uint64_t id,
    struct usb_redir_start_interrupt_receiving_header *h)
{
    interrupt_status(priv, id, h->endpoint, true);
}

static void on_stop_interrupt(
    void *priv, uint64_t id,
    struct usb_redir_stop_interrupt_receiving_header *h)
{
    interrupt_status(priv, id, h->endpoint, false);
}

/* Everything is answered at once: it crossed the answer */
static void on_cancel(void *priv, uint64_t id)
{
    Usb *usb = priv;

    (void)id;
    usb->cancelled++;
}

static void on_control(void *priv, uint64_t id,
                       struct usb_redir_control_packet_header *h,
                       uint8_t *data, int len)
{
    Usb *usb = priv;
    struct usb_redir_control_packet_header answer = *h;
    uint8_t *out = calloc(1, 65536);
    int n = -1;

    if (!out) {
        die("out of memory");
    }
    if ((h->requesttype & 0x60) == TYPE_VENDOR) {
        n = vendor(usb, h, data, len, out);
    } else if (h->requesttype == EP_IN && h->request == GET_DESCRIPTOR) {
        n = descriptor(out, h->value >> 8);
        n = n ? n : -1;
    } else if (h->requesttype == EP_IN && !h->request) {
        n = 2;                      /* GET_STATUS */
    } else if (h->request == CLEAR_FEATURE || h->request == SET_FEATURE) {
        n = 0;
    }
    answer.status = n < 0 ? usb_redir_stall : usb_redir_success;
    n = n < 0 ? 0 : n > h->length ? h->length : n;
    if (h->endpoint & EP_IN) {
        answer.length = n;
    } else {
        n = 0;
    }
    usbredirparser_send_control_packet(usb->parser, id, &answer,
                                       n ? out : NULL, n);
    usbredirparser_free_packet_data(usb->parser, data);
    free(out);
}

static void on_bulk(void *priv, uint64_t id,
                    struct usb_redir_bulk_packet_header *h, uint8_t *data,
                    int len)
{
    Usb *usb = priv;
    uint32_t size = h->length | (uint32_t)h->length_high << 16;
    uint8_t *out = NULL;

    if (h->endpoint == EP_BULK_IN) {
        out = malloc(size + 1);
        if (!out) {
            die("out of memory");
        }
        stream_fill(usb, h->endpoint, out, size);
    } else if (h->endpoint == EP_BULK_OUT) {
        stream_check(usb, h->endpoint, data, len);
    } else {
        h->status = usb_redir_stall;
        h->length = h->length_high = size = 0;
    }
    usbredirparser_send_bulk_packet(usb->parser, id, h, out, out ? size : 0);
    usbredirparser_free_packet_data(usb->parser, data);
    free(out);
}

static void on_iso(void *priv, uint64_t id,
                   struct usb_redir_iso_packet_header *h, uint8_t *data,
                   int len)
{
    Usb *usb = priv;

    (void)id;
    stream_check(usb, h->endpoint, data, len);
    usbredirparser_free_packet_data(usb->parser, data);
}

static void on_interrupt(void *priv, uint64_t id,
                         struct usb_redir_interrupt_packet_header *h,
                         uint8_t *data, int len)
{
    Usb *usb = priv;

    stream_check(usb, h->endpoint, data, len);
    usbredirparser_send_interrupt_packet(usb->parser, id, h, NULL, 0);
    usbredirparser_free_packet_data(usb->parser, data);
}

static void on_plain(void *priv)
{
    (void)priv;
}

static void on_filter(void *priv, struct usbredirfilter_rule *rules, int n)
{
    (void)priv;
    (void)n;
    free(rules);
}

static void on_streams(void *priv, uint64_t id,
                       struct usb_redir_alloc_bulk_streams_header *h)
{
    (void)priv;
    (void)id;
    (void)h;
    die("usb-redir asks for bulk streams, which this device has not");
}

static void on_no_streams(void *priv, uint64_t id,
                          struct usb_redir_free_bulk_streams_header *h)
{
    (void)priv;
    (void)id;
    (void)h;
}

static void parser_start(Usb *usb)
{
    uint32_t caps[USB_REDIR_CAPS_SIZE] = { 0 };
    struct usbredirparser *p = usbredirparser_create();

    if (!p) {
        die("out of memory");
    }
    usb->parser = p;
    p->priv = usb;
    p->log_func = on_log;
    p->read_func = on_read;
    p->write_func = on_write;
    p->hello_func = on_hello;
    p->reset_func = on_reset;
    p->set_configuration_func = on_set_configuration;
    p->get_configuration_func = on_get_configuration;
    p->set_alt_setting_func = on_set_alt_setting;
    p->get_alt_setting_func = on_get_alt_setting;
    p->start_iso_stream_func = on_start_iso;
    p->stop_iso_stream_func = on_stop_iso;
    p->start_interrupt_receiving_func = on_start_interrupt;
    p->stop_interrupt_receiving_func = on_stop_interrupt;
    p->alloc_bulk_streams_func = on_streams;
    p->free_bulk_streams_func = on_no_streams;
    p->cancel_data_packet_func = on_cancel;
    p->control_packet_func = on_control;
    p->bulk_packet_func = on_bulk;
    p->iso_packet_func = on_iso;
    p->interrupt_packet_func = on_interrupt;
    p->filter_reject_func = on_plain;
    p->filter_filter_func = on_filter;
    p->device_disconnect_ack_func = on_plain;
    usbredirparser_caps_set_cap(caps, usb_redir_cap_connect_device_version);
    usbredirparser_caps_set_cap(caps, usb_redir_cap_filter);
    usbredirparser_caps_set_cap(caps, usb_redir_cap_device_disconnect_ack);
    usbredirparser_caps_set_cap(caps, usb_redir_cap_ep_info_max_packet_size);
    usbredirparser_caps_set_cap(caps, usb_redir_cap_64bits_ids);
    usbredirparser_caps_set_cap(caps, usb_redir_cap_32bits_bulk_length);
    usbredirparser_init(p, "spiceflow test device", caps, USB_REDIR_CAPS_SIZE,
                        usbredirparser_fl_usb_host);
}

/* The program */

static void status(const Usb *usb)
{
    unsigned i;

    printf("{\"event\": \"status\", \"to-guest\": %" PRIu64
           ", \"to-client\": %" PRIu64 ", \"cancelled\": %" PRIu64,
           usb->to_guest, usb->to_client, usb->cancelled);
    for (i = 0; i < NUM_ENDPOINTS; i++) {
        uint8_t ep = endpoints[i].address;

        printf(", \"%02x\": [%" PRIu64 ", %" PRIu64 "]", ep,
               usb->packets[ep_index(ep)], usb->passed[ep_index(ep)]);
    }
    puts("}");
    fflush(stdout);
}

/* False when the program is to end */
static bool command(Usb *usb)
{
    char line[64];
    size_t n = 0;

    /* Byte by byte: what is buffered is not seen by poll() */
    while (n < sizeof(line) - 1) {
        ssize_t ret = read(STDIN_FILENO, line + n, 1);

        if (ret <= 0) {
            return false;
        }
        if (line[n] == '\n') {
            break;
        }
        n++;
    }
    line[n] = 0;
    if (!strcmp(line, "status")) {
        status(usb);
    } else if (!strcmp(line, "unplug")) {
        usbredirparser_send_device_disconnect(usb->parser);
    } else if (!strcmp(line, "plug")) {
        plug(usb);
    } else {
        die("unknown command: %s", line);
    }
    return true;
}

static void hear(Usb *usb)
{
    usb->len = wire_read(usb->wire, &usb->data);
    usb->to_client += usb->len;
    if (usb->to_client_copy) {
        fwrite(usb->data, 1, usb->len, usb->to_client_copy);
        fflush(usb->to_client_copy);
    }
    if (usbredirparser_do_read(usb->parser)) {
        die("the usbredir stream can not be read");
    }
}

static void serve(Usb *usb)
{
    for (;;) {
        struct pollfd fds[2] = {
            { .fd = wire_fd(usb->wire), .events = POLLIN },
            { .fd = STDIN_FILENO, .events = POLLIN },
        };

        if (usbredirparser_has_data_to_write(usb->parser) &&
            usbredirparser_do_write(usb->parser)) {
            die("the usbredir stream can not be written");
        }
        if (!wire_buffered(usb->wire)) {
            if (poll(fds, 2, -1) < 0 && errno != EINTR) {
                die("poll: %s", strerror(errno));
            }
            if (fds[1].revents && !command(usb)) {
                return;
            }
            if (!fds[0].revents) {
                continue;
            }
        }
        hear(usb);
    }
}

static FILE *capture_open(const char *prefix, const char *suffix)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s.%s", prefix, suffix);
    file = fopen(path, "wb");
    if (!file) {
        die("can not write %s: %s", path, strerror(errno));
    }
    return file;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "connect", required_argument, NULL, 'c' },
        { "wire", required_argument, NULL, 'w' },
        { "channel", required_argument, NULL, 'n' },
        { "capture", required_argument, NULL, 'k' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    static Usb usb = { .where = { .password = "", .usb = true } };
    int opt;

    /* Never outlive the script that started this */
    prctl(PR_SET_PDEATHSIG, SIGKILL);

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            usb.where.address = optarg;
            break;
        case 'w':
            if (strcmp(optarg, "raw") && strcmp(optarg, "spice")) {
                die("--wire must be raw or spice, not %s", optarg);
            }
            usb.where.spice = !strcmp(optarg, "spice");
            break;
        case 'n':
            usb.where.channel = atoi(optarg);
            break;
        case 'k':
            usb.to_guest_copy = capture_open(optarg, "to-guest");
            usb.to_client_copy = capture_open(optarg, "to-client");
            break;
        default:
            puts("usage: usb --connect unix:PATH|tcp:HOST:PORT|listen:PATH\n"
                 "           [--wire raw|spice] [--channel N]\n"
                 "           [--capture PREFIX]");
            return opt != 'h';
        }
    }
    if (!usb.where.address || optind != argc) {
        die("--connect is missing, see --help");
    }
    parser_start(&usb);
    usb.wire = wire_open(&usb.where);
    puts("{\"event\": \"connected\"}");
    fflush(stdout);
    serve(&usb);
    wire_close(usb.wire);
    return 0;
}
