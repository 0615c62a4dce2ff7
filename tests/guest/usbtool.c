/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * usbtool - drive the USB device of tests/bench/usb.c from the guest
 *
 * Theory of operation
 *
 *   usbtool bulk-in  BYTES COUNT [-d DEPTH] [-n]
 *   usbtool bulk-out BYTES COUNT [-d DEPTH]
 *   usbtool int-in   BYTES COUNT
 *   usbtool int-out  BYTES COUNT [-d DEPTH]
 *   usbtool iso-in   BYTES COUNT
 *   usbtool iso-out  BYTES COUNT [-d DEPTH]
 *   usbtool control  BYTES COUNT
 *   usbtool wait
 *
 * There is no driver in between: requests (URBs) go through usbfs, so that
 * each one has exactly the size that was asked for, DEPTH of them at a time.
 * COUNT is the number of URBs, for isochronous endpoints that of packets.
 *
 * What comes is compared with the device's streams, and what goes is made like
 * them: 64-bit little-endian words, the endpoint's address << 56 | index.  -n
 * does not compare, to measure.  For OUT endpoints the device says in the end
 * how much has come; it has compared it itself.
 *
 * Isochronous packets are lost where nobody takes them in time, so the device
 * sends a number that fits into the buffers on the way, all at once, and here
 * URBs are kept pending until all have come: empty packets in between are
 * what the bus does when there is nothing.  "wait" waits for the device.
 *
 * Each run prints one line, "ok" or "bad", with key=value pairs.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/usbdevice_fs.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tool.h"

#define VENDOR      "1209"
#define PRODUCT     "0001"
#define WAIT_S      10
#define TIMEOUT_MS  20000

#define EP_IN       0x80
#define VENDOR_OUT  0x40
#define VENDOR_SEND 1
#define VENDOR_RESET 2
#define VENDOR_PASSED 3
#define VENDOR_DATA_IN 4
#define VENDOR_DATA_OUT 5

#define ISO_PACKETS 8           /* of one URB */
/* One URB takes longer than a turn of the emulator: some must be pending */
#define ISO_DEPTH   16

static const struct {
    const char *name;
    uint8_t ep;
    uint8_t type;
} ways[] = {
    { "bulk-in", 0x81, USBDEVFS_URB_TYPE_BULK },
    { "bulk-out", 0x02, USBDEVFS_URB_TYPE_BULK },
    { "int-in", 0x83, USBDEVFS_URB_TYPE_INTERRUPT },
    { "int-out", 0x04, USBDEVFS_URB_TYPE_INTERRUPT },
    { "iso-in", 0x85, USBDEVFS_URB_TYPE_ISO },
    { "iso-out", 0x06, USBDEVFS_URB_TYPE_ISO },
};
#define NUM_WAYS    (sizeof(ways) / sizeof(ways[0]))

static int device;
static uint8_t ep;
static uint8_t type;
static size_t size;
static uint64_t count;
static bool compare = true;
static uint64_t passed;         /* bytes of the stream */
static uint64_t packets;
static uint64_t empty;          /* isochronous packets */

/* The device */

static bool sysfs_is(const char *name, const char *file, const char *want)
{
    char path[512], text[32] = "";
    FILE *f;
    bool same;

    snprintf(path, sizeof(path), "/sys/bus/usb/devices/%s/%s", name, file);
    f = fopen(path, "r");
    if (!f) {
        return false;
    }
    same = fscanf(f, "%31s", text) == 1 && (!want || !strcmp(text, want));
    fclose(f);
    return same;
}

static unsigned sysfs_number(const char *name, const char *file)
{
    char path[512];
    unsigned n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/sys/bus/usb/devices/%s/%s", name, file);
    f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%u", &n) != 1) {
            n = 0;
        }
        fclose(f);
    }
    return n;
}

/* Configured, so that its interface can be claimed */
static bool device_path(char *path, size_t len)
{
    DIR *dir = opendir("/sys/bus/usb/devices");
    struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir))) {
        const char *name = entry->d_name;

        if (sysfs_is(name, "idVendor", VENDOR) &&
            sysfs_is(name, "idProduct", PRODUCT) &&
            sysfs_is(name, "bConfigurationValue", "1")) {
            snprintf(path, len, "/dev/bus/usb/%03u/%03u",
                     sysfs_number(name, "busnum"),
                     sysfs_number(name, "devnum"));
            found = access(path, F_OK) == 0;
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

static void device_open(void)
{
    int64_t end = now_ns() + WAIT_S * INT64_C(1000000000);
    int interface = 0;
    char path[512];

    while (!device_path(path, sizeof(path))) {
        if (now_ns() > end) {
            bad("there is no device");
        }
        usleep(5000);
    }
    device = open(path, O_RDWR);
    if (device < 0) {
        bad("%s: %s", path, strerror(errno));
    }
    if (ioctl(device, USBDEVFS_CLAIMINTERFACE, &interface)) {
        bad("claim: %s", strerror(errno));
    }
}

static int control_try(uint8_t way, uint8_t request, uint16_t value,
                       uint16_t index, void *data, uint16_t len)
{
    struct usbdevfs_ctrltransfer transfer = {
        .bRequestType = way, .bRequest = request, .wValue = value,
        .wIndex = index, .wLength = len, .timeout = TIMEOUT_MS, .data = data,
    };

    return ioctl(device, USBDEVFS_CONTROL, &transfer);
}

static int control(uint8_t way, uint8_t request, uint16_t value,
                   uint16_t index, void *data, uint16_t len)
{
    int ret = control_try(way, request, value, index, data, len);

    if (ret < 0) {
        bad("vendor request %u: %s", request, strerror(errno));
    }
    return ret;
}

/* The streams */

static uint8_t stream_byte(uint64_t at)
{
    return ((uint64_t)ep << 56 | at / 8) >> 8 * (at % 8);
}

static void stream_fill(uint8_t *data, size_t len)
{
    size_t i = 0;

    while (i < len) {
        uint64_t word = (uint64_t)ep << 56 | passed / 8;

        if (passed % 8 == 0 && len - i >= 8) {
            memcpy(data + i, &word, 8);
            i += 8;
            passed += 8;
        } else {
            data[i++] = stream_byte(passed++);
        }
    }
}

static void stream_check(const uint8_t *data, size_t len)
{
    size_t i = 0;

    while (compare && i < len) {
        uint64_t word = (uint64_t)ep << 56 | passed / 8;

        if (passed % 8 == 0 && len - i >= 8) {
            if (memcmp(data + i, &word, 8)) {
                memcpy(&word, data + i, 8);
                bad("wrong word at %" PRIu64 ": %016" PRIx64, passed, word);
            }
            i += 8;
            passed += 8;
            continue;
        }
        if (data[i++] != stream_byte(passed++)) {
            bad("wrong byte at %" PRIu64, passed - 1);
        }
    }
    passed += compare ? 0 : len;
}

/* URBs */

static void urb_fill(struct usbdevfs_urb *urb)
{
    if (!(ep & EP_IN)) {
        stream_fill(urb->buffer, urb->buffer_length);
    }
}

static void urb_submit(struct usbdevfs_urb *urb)
{
    urb_fill(urb);
    if (ioctl(device, USBDEVFS_SUBMITURB, urb)) {
        bad("submit: %s after %" PRIu64 " packets", strerror(errno), packets);
    }
}

static struct usbdevfs_urb *urb_new(unsigned iso)
{
    struct usbdevfs_urb *urb = calloc(
        1, sizeof(*urb) + iso * sizeof(struct usbdevfs_iso_packet_desc));
    unsigned i;

    urb->type = type;
    urb->endpoint = ep;
    urb->buffer_length = size * (iso ? iso : 1);
    urb->buffer = calloc(1, urb->buffer_length + 1);
    if (!urb->buffer) {
        bad("out of memory");
    }
    if (iso) {
        urb->flags = USBDEVFS_URB_ISO_ASAP;
        urb->number_of_packets = iso;
        for (i = 0; i < iso; i++) {
            urb->iso_frame_desc[i].length = size;
        }
    }
    return urb;
}

static void urb_free(struct usbdevfs_urb *urb)
{
    free(urb->buffer);
    free(urb);
}

static struct usbdevfs_urb *urb_reap(void)
{
    struct pollfd fd = { .fd = device, .events = POLLOUT };
    struct usbdevfs_urb *urb = NULL;
    int ret = poll(&fd, 1, TIMEOUT_MS);

    if (ret == 0) {
        bad("nothing for %d s, after %" PRIu64 " packets", TIMEOUT_MS / 1000,
            packets);
    }
    if (ioctl(device, USBDEVFS_REAPURBNDELAY, &urb)) {
        bad("reap: %s after %" PRIu64 " packets", strerror(errno), packets);
    }
    return urb;
}

static void urb_done(const struct usbdevfs_urb *urb)
{
    if (urb->status) {
        bad("URB: %s after %" PRIu64 " packets", strerror(-urb->status),
            packets);
    }
    if ((size_t)urb->actual_length != size) {
        bad("URB: %d of %zu bytes", urb->actual_length, size);
    }
    if (ep & EP_IN) {
        stream_check(urb->buffer, urb->actual_length);
    }
    packets++;
}

static void iso_done(const struct usbdevfs_urb *urb)
{
    const uint8_t *data = urb->buffer;
    int i;

    if (urb->status) {
        bad("URB: %s after %" PRIu64 " packets", strerror(-urb->status),
            packets);
    }
    for (i = 0; i < urb->number_of_packets; i++) {
        const struct usbdevfs_iso_packet_desc *d = &urb->iso_frame_desc[i];

        /* EHCI skips frames when it is late, in which case nothing came */
        if (d->status && ((int)d->status != -EXDEV || !(ep & EP_IN))) {
            bad("isochronous packet: status %d after %" PRIu64 " packets",
                (int)d->status, packets);
        }
        if (!(ep & EP_IN)) {
            packets++;
        } else if (!d->actual_length) {
            empty++;
        } else if (d->actual_length != size) {
            bad("isochronous packet: %u of %zu bytes", d->actual_length, size);
        } else {
            stream_check(data, size);
            packets++;
        }
        data += d->length;
    }
}

/*
 * The first URB makes usb-redir start the endpoint, in its own time: until then
 * the device refuses.
 */
static void ask_for(uint16_t n)
{
    uint8_t data[2] = { size, size >> 8 };
    int64_t end = now_ns() + WAIT_S * INT64_C(1000000000);

    while (control_try(VENDOR_OUT, VENDOR_SEND, n, ep, data,
                       sizeof(data)) < 0) {
        if (errno != EPIPE || now_ns() > end) {
            bad("endpoint %02x does not start: %s", ep, strerror(errno));
        }
        usleep(1000);
    }
}

static void run(unsigned depth)
{
    bool iso = type == USBDEVFS_URB_TYPE_ISO;
    bool asked = !(ep & EP_IN) || type == USBDEVFS_URB_TYPE_BULK;
    uint64_t urbs = iso ? (count + ISO_PACKETS - 1) / ISO_PACKETS : count;
    uint64_t submitted = 0, pending = 0;
    unsigned i;

    for (i = 0; i < depth && (i < urbs || (iso && (ep & EP_IN))); i++) {
        urb_submit(urb_new(iso ? ISO_PACKETS : 0));
        submitted++;
        pending++;
    }
    if (!asked) {
        ask_for(count);
    }
    while (packets < count) {
        struct usbdevfs_urb *urb = urb_reap();
        bool again;

        if (iso) {
            iso_done(urb);
            again = ep & EP_IN ? packets < count : submitted < urbs;
        } else {
            urb_done(urb);
            again = submitted < urbs;
        }
        if (again) {
            urb_submit(urb);
            submitted++;
        } else {
            pending--;
            urb_free(urb);
        }
    }
}

/* What went out has come, sooner or later: nobody tells when */
static void wait_passed(void)
{
    int64_t end = now_ns() + WAIT_S * INT64_C(1000000000);
    uint64_t there = 0;

    while (there != passed) {
        control(VENDOR_OUT | EP_IN, VENDOR_PASSED, 0, ep, &there,
                sizeof(there));
        if (now_ns() > end) {
            bad("%" PRIu64 " of %" PRIu64 " bytes came", there, passed);
        }
    }
}

/* Both directions, one after the other */
static void run_control(void)
{
    uint8_t *data = malloc(size + 1);

    for (packets = 0; packets < count; packets++) {
        uint64_t before = passed;

        ep = EP_IN;
        if (control(VENDOR_OUT | EP_IN, VENDOR_DATA_IN, 0, 0, data, size) !=
            (int)size) {
            bad("a control transfer was short");
        }
        stream_check(data, size);
        passed = before;
        ep = 0;
        stream_fill(data, size);
        control(VENDOR_OUT, VENDOR_DATA_OUT, 0, 0, data, size);
    }
    free(data);
}

static void __attribute__((noreturn)) usage(void)
{
    bad("usage: usbtool bulk-in|bulk-out|int-in|int-out|iso-in|iso-out|control "
        "BYTES COUNT [-d DEPTH] [-n], or usbtool wait");
}

static uint64_t number(const char *text)
{
    uint64_t n = 0;
    int used = 0;

    if (sscanf(text, "%" SCNu64 "%n", &n, &used) != 1 || text[used]) {
        usage();
    }
    return n;
}

int main(int argc, char **argv)
{
    unsigned depth = 4;
    int64_t begin;
    size_t i;
    int opt;

    while ((opt = getopt(argc, argv, "d:n")) != -1) {
        if (opt == 'd') {
            depth = number(optarg);
        } else if (opt == 'n') {
            compare = false;
        } else {
            usage();
        }
    }
    argv += optind;
    argc -= optind;
    if (argc == 1 && !strcmp(argv[0], "wait")) {
        device_open();
        printf("ok\n");
        return 0;
    }
    if (argc != 3) {
        usage();
    }
    size = number(argv[1]);
    count = number(argv[2]);
    device_open();
    control(VENDOR_OUT, VENDOR_RESET, 0, 0, NULL, 0);
    begin = now_ns();
    if (!strcmp(argv[0], "control")) {
        run_control();
    } else {
        for (i = 0; i < NUM_WAYS && strcmp(argv[0], ways[i].name); i++) {
            continue;
        }
        if (i == NUM_WAYS || !depth) {
            usage();
        }
        ep = ways[i].ep;
        type = ways[i].type;
        run(type == USBDEVFS_URB_TYPE_ISO ? ISO_DEPTH : depth);
        if (!(ep & EP_IN)) {
            wait_passed();
        }
    }
    printf("ok mode=%s bytes=%" PRIu64 " packets=%" PRIu64 " empty=%" PRIu64
           " ns=%" PRId64 "\n", argv[0], passed, packets, empty,
           now_ns() - begin);
    return 0;
}
