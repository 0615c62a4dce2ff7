/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A smart-card reader whose guest is this test: it drives the UHCI controller
 * that QEMU's usb-ccid sits on, transfer by transfer, and plays the client too.
 *
 * So it says exactly when the guest sends an APDU and when it fetches an
 * answer, and the guest's clock runs only when it says so.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "libqos/pci-pc.h"
#include "machine.h"

#define SLOT            5
#define UHCI_CMD        0x00
#define UHCI_FRAMES     0x08
#define UHCI_PORT       0x10
#define UHCI_RUN        0x01
#define PORT_ENABLE     0x004
#define PORT_RESET      0x200

/* In the guest's memory. */
#define FRAMES          0x100000
#define QUEUE_HEAD      0x101000
#define DESCRIPTOR      0x101100
#define BUFFER          0x102000

#define END             1
#define IS_QUEUE        2
#define TD_ACTIVE       (1u << 23)
#define TD_STALLED      (1u << 22)
#define TD_NAK          (1u << 19)
#define PID_IN          0x69
#define PID_OUT         0xe1
#define PID_SETUP       0x2d
#define PACKET          64

#define EP_IN           2
#define EP_OUT          3
#define CCID_HEADER     10
#define POWER_ON        0x62
#define SLOT_STATUS     0x65
#define XFR_BLOCK       0x6f
#define DATA_BLOCK      0x80
#define STATUS          0x81
#define CARD_ACTIVE     0
#define CARD_ABSENT     2
/* The most that usb-ccid passes on of an answer. */
#define ANSWER_MAX      (384 - CCID_HEADER)

#define VSC_HEADER      12
#define VSC_ERROR       2
#define VSC_READER_ADD  3
#define VSC_READER_REMOVE 4
#define VSC_ATR         5
#define VSC_APDU        7
#define VSC_MAX         65536
#define NO_READER       0xffffffff

static const uint8_t atr[] = { 0x3b, 0x04, 0x53, 0x46, 0x4c, 0x57 };

typedef struct Reader {
    SpiceTestServer server;
    QTestState *qts;
    QPCIBus *bus;
    QPCIDevice *pci;
    QPCIBar bar;
    uint8_t sequence;
    SpiceTestChannel *main;
    SpiceTestChannel *card;
} Reader;

/*
 * The guest's driver
 */

/* One packet; returns the bytes that were moved, -1 when there were none. */
static int usb_packet(Reader *r, uint8_t pid, uint8_t endpoint, size_t len)
{
    uint32_t td[4] = {
        cpu_to_le32(END),
        cpu_to_le32(TD_ACTIVE | 3 << 27),
        cpu_to_le32(pid | endpoint << 15 | ((len - 1) & 0x7ff) << 21),
        cpu_to_le32(BUFFER),
    };
    uint32_t head[2] = { cpu_to_le32(END), cpu_to_le32(DESCRIPTOR) };
    uint32_t status;

    qtest_memwrite(r->qts, DESCRIPTOR, td, sizeof(td));
    qtest_memwrite(r->qts, QUEUE_HEAD, head, sizeof(head));
    qtest_clock_step(r->qts, 1100 * 1000);
    status = qtest_readl(r->qts, DESCRIPTOR + 4);
    qtest_writel(r->qts, QUEUE_HEAD + 4, END);
    g_assert_cmphex(status & TD_STALLED, ==, 0);
    if (status & TD_ACTIVE) {
        g_assert_cmphex(status & TD_NAK, ==, TD_NAK);
        return -1;
    }
    return (status + 1) & 0x7ff;
}

static void usb_control(Reader *r, uint8_t request, uint16_t value)
{
    uint8_t setup[8] = { 0, request, value };

    qtest_memwrite(r->qts, BUFFER, setup, sizeof(setup));
    g_assert_cmpint(usb_packet(r, PID_SETUP, 0, sizeof(setup)), ==, 8);
    g_assert_cmpint(usb_packet(r, PID_IN, 0, 0), ==, 0);
}

static void guest_start(Reader *r)
{
    uint32_t frame[1024];

    r->bus = qpci_new_pc(r->qts, NULL);
    r->pci = qpci_device_find(r->bus, QPCI_DEVFN(SLOT, 0));
    g_assert_nonnull(r->pci);
    qpci_device_enable(r->pci);
    r->bar = qpci_iomap(r->pci, 4, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(frame); i++) {
        frame[i] = cpu_to_le32(QUEUE_HEAD | IS_QUEUE);
    }
    qtest_memwrite(r->qts, FRAMES, frame, sizeof(frame));
    qtest_writel(r->qts, QUEUE_HEAD, END);
    qtest_writel(r->qts, QUEUE_HEAD + 4, END);
    qpci_io_writel(r->pci, r->bar, UHCI_FRAMES, FRAMES);
    qpci_io_writew(r->pci, r->bar, UHCI_PORT, PORT_RESET);
    qpci_io_writew(r->pci, r->bar, UHCI_PORT, PORT_ENABLE);
    qpci_io_writew(r->pci, r->bar, UHCI_CMD, UHCI_RUN);
    usb_control(r, 9, 1);       /* SET_CONFIGURATION */
}

/* A CCID command, answered or not. */
static void guest_send(Reader *r, uint8_t type, const void *data, size_t len)
{
    g_autofree uint8_t *message = g_malloc0(CCID_HEADER + len);
    size_t size = CCID_HEADER + len;

    message[0] = type;
    stl_le_p(message + 1, len);
    message[6] = ++r->sequence;
    if (len) {
        memcpy(message + CCID_HEADER, data, len);
    }
    for (size_t at = 0, n; at < size; at += n) {
        n = MIN(size - at, PACKET);
        qtest_memwrite(r->qts, BUFFER, message + at, n);
        g_assert_cmpint(usb_packet(r, PID_OUT, EP_OUT, n), ==, n);
    }
}

/* Whether there is nothing for the guest to fetch. */
static bool guest_hears_nothing(Reader *r)
{
    return usb_packet(r, PID_IN, EP_IN, PACKET) < 0;
}

/* The answer to the last command: its data. */
static GByteArray *guest_fetch(Reader *r, uint8_t type, uint8_t status)
{
    GByteArray *out = g_byte_array_new();
    uint8_t packet[PACKET];
    int n = -1;

    for (unsigned i = 0; i < 1000 && n < 0; i++) {
        if (i) {
            g_usleep(1000);
        }
        n = usb_packet(r, PID_IN, EP_IN, PACKET);
    }
    for (;; n = usb_packet(r, PID_IN, EP_IN, PACKET)) {
        g_assert_cmpint(n, >=, 0);
        qtest_memread(r->qts, BUFFER, packet, n);
        g_byte_array_append(out, packet, n);
        if (n < PACKET) {
            break;
        }
    }
    g_assert_cmpuint(out->len, >=, CCID_HEADER);
    g_assert_cmphex(out->data[0], ==, type);
    g_assert_cmphex(out->data[6], ==, r->sequence);
    g_assert_cmphex(out->data[7], ==, status);
    g_assert_cmpuint(ldl_le_p(out->data + 1), ==, out->len - CCID_HEADER);
    return g_byte_array_remove_range(out, 0, CCID_HEADER);
}

static void guest_fetch_this(Reader *r, const void *data, size_t len)
{
    g_autoptr(GByteArray) got = guest_fetch(r, DATA_BLOCK, CARD_ACTIVE);

    g_assert_cmpmem(got->data, got->len, data, len);
}

static void guest_expect_status(Reader *r, uint8_t status)
{
    g_autoptr(GByteArray) got = NULL;

    guest_send(r, SLOT_STATUS, NULL, 0);
    got = guest_fetch(r, STATUS, status);
}

static void guest_power_on(Reader *r)
{
    guest_send(r, POWER_ON, NULL, 0);
    guest_fetch_this(r, atr, sizeof(atr));
}

/* The clock runs while the guest does nothing. */
static void guest_wait(Reader *r, unsigned ms)
{
    qtest_clock_step(r->qts, ms * 1000000LL);
}

/*
 * The client
 */

static void card_say(Reader *r, uint32_t type, uint32_t reader,
                     const void *data, size_t len)
{
    g_autofree uint8_t *message = g_malloc(VSC_HEADER + len);

    stl_le_p(message, type);
    stl_le_p(message + 4, reader);
    stl_le_p(message + 8, len);
    if (len) {
        memcpy(message + VSC_HEADER, data, len);
    }
    spice_test_send(r->card, SPICE_TEST_DATA, message, VSC_HEADER + len);
}

static void card_expect(Reader *r, uint32_t type, const void *data, size_t len)
{
    g_autoptr(GByteArray) got = spice_test_expect(r->card, SPICE_TEST_DATA);

    g_assert_cmpuint(got->len, >=, VSC_HEADER);
    g_assert_cmpuint(ldl_le_p(got->data), ==, type);
    g_assert_cmpuint(ldl_le_p(got->data + 4), ==, 0);
    g_assert_cmpuint(ldl_le_p(got->data + 8), ==, len);
    g_assert_cmpmem(got->data + VSC_HEADER, got->len - VSC_HEADER, data, len);
}

static void card_expect_success(Reader *r)
{
    card_expect(r, VSC_ERROR, (const uint8_t [4]) { 0 }, 4);
}

static void card_connect(Reader *r)
{
    uint32_t session;

    r->main = spice_test_main(r->server.path, &session);
    r->card = spice_test_open(r->server.path, SPICE_TEST_SMARTCARD, 0,
                              session);
    card_say(r, VSC_READER_ADD, NO_READER, "name", 5);
}

static void card_insert(Reader *r)
{
    card_say(r, VSC_ATR, 0, atr, sizeof(atr));
    card_expect_success(r);
}

static void card_leave(Reader *r)
{
    spice_test_close(r->card);
    spice_test_close(r->main);
}

static void reader_start(Reader *r)
{
    spice_test_server(&r->server, 1024 * 1024);
    r->qts = qtest_initf(
        "-machine pc %s -chardev spiceflow,id=card,name=smartcard "
        "-device piix3-usb-uhci,id=usb,addr=%d -device usb-ccid,bus=usb.0 "
        "-device ccid-card-passthru,chardev=card", r->server.args, SLOT);
    r->sequence = 0;
    guest_start(r);
    guest_expect_status(r, CARD_ABSENT);
    card_connect(r);
    card_expect_success(r);
    card_insert(r);
    guest_power_on(r);
}

static void reader_end(Reader *r)
{
    card_leave(r);
    g_free(r->pci);
    qpci_free_pc(r->bus);
    qtest_quit(r->qts);
    spice_test_server_clear(&r->server);
}

/*
 * Cases
 */

/* APDUs of the sizes that spice-server broke on. */
static void test_d10_sizes(void)
{
    static const size_t sizes[] = {
        5, 54, 254, 271, 275, 281, 282, 2000, 60000, VSC_MAX - VSC_HEADER
    };
    g_autofree uint8_t *data = g_malloc(VSC_MAX);
    Reader r;

    reader_start(&r);
    spice_test_pattern(data, 0, VSC_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        guest_send(&r, XFR_BLOCK, data, sizes[i]);
        card_expect(&r, VSC_APDU, data, sizes[i]);
        g_assert_true(guest_hears_nothing(&r));
        card_say(&r, VSC_APDU, 0, data, sizes[i]);
        if (sizes[i] <= ANSWER_MAX) {
            guest_fetch_this(&r, data, sizes[i]);
        } else {
            /* usb-ccid drops it; the answer to this says that it came */
            card_insert(&r);
            g_assert_true(guest_hears_nothing(&r));
        }
    }
    guest_power_on(&r);
    reader_end(&r);
}

/*
 * The guest's driver gets an answer, and then the card goes; then the next
 * client, who is there already, gets the reader.
 */
static void test_client_leaves_in_an_apdu(void)
{
    static const uint8_t apdu[] = { 0, 0xa4, 4, 0 }, error[] = { 0x6f, 0 };
    Reader r;

    reader_start(&r);
    for (unsigned turn = 0; turn < 3; turn++) {
        guest_send(&r, XFR_BLOCK, apdu, sizeof(apdu));
        card_expect(&r, VSC_APDU, apdu, sizeof(apdu));
        card_leave(&r);
        card_connect(&r);
        guest_wait(&r, 1 + turn * 2000);
        g_assert_true(spice_test_silent(r.card, 50));
        guest_fetch_this(&r, error, sizeof(error));
        guest_wait(&r, 10);
        card_expect_success(&r);
        guest_expect_status(&r, CARD_ABSENT);
        card_insert(&r);
        guest_power_on(&r);
    }
    reader_end(&r);
}

/* It does not fetch it: others do not wait for that for ever. */
static void test_guest_does_not_fetch(void)
{
    static const uint8_t apdu[] = { 0, 0xa4, 4, 0 };
    Reader r;

    reader_start(&r);
    guest_send(&r, XFR_BLOCK, apdu, sizeof(apdu));
    card_expect(&r, VSC_APDU, apdu, sizeof(apdu));
    card_leave(&r);
    card_connect(&r);
    g_assert_true(spice_test_silent(r.card, 50));
    guest_wait(&r, 4900);
    g_assert_true(spice_test_silent(r.card, 50));
    guest_wait(&r, 200);
    card_expect_success(&r);
    g_assert_true(guest_hears_nothing(&r));
    guest_expect_status(&r, CARD_ABSENT);
    reader_end(&r);
}

/*
 * The client has answered, and what it has not answered is the reader's own,
 * but the guest has not fetched it when the client leaves.
 */
static void test_answer_not_fetched(void)
{
    static const uint8_t apdu[] = { 0, 0xb0, 0, 0 }, data[] = "the answer";
    g_autoptr(GByteArray) refused = NULL;
    g_autoptr(GByteArray) status = NULL;
    Reader r;

    reader_start(&r);
    guest_send(&r, XFR_BLOCK, apdu, sizeof(apdu));
    card_expect(&r, VSC_APDU, apdu, sizeof(apdu));
    card_say(&r, VSC_APDU, 0, data, sizeof(data));
    /* there is none of that number; when this is said the answer is there */
    card_say(&r, VSC_READER_REMOVE, 9, NULL, 0);
    refused = spice_test_expect(r.card, SPICE_TEST_DATA);
    card_leave(&r);
    card_connect(&r);
    guest_wait(&r, 400);
    g_assert_true(spice_test_silent(r.card, 20));
    guest_fetch_this(&r, data, sizeof(data));
    guest_wait(&r, 10);
    card_expect_success(&r);
    card_insert(&r);

    guest_send(&r, SLOT_STATUS, NULL, 0);
    card_leave(&r);
    card_connect(&r);
    g_assert_true(spice_test_silent(r.card, 50));
    status = guest_fetch(&r, STATUS, CARD_ACTIVE);
    guest_wait(&r, 10);
    card_expect_success(&r);
    guest_expect_status(&r, CARD_ABSENT);
    reader_end(&r);
}

/* Nothing to wait for: it goes at once. */
static void test_client_leaves_idle(void)
{
    Reader r;

    reader_start(&r);
    card_leave(&r);
    card_connect(&r);
    card_expect_success(&r);
    guest_expect_status(&r, CARD_ABSENT);
    reader_end(&r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/spiceflow/card/d10-sizes", test_d10_sizes);
    qtest_add_func("/spiceflow/card/client-leaves-in-an-apdu",
                   test_client_leaves_in_an_apdu);
    qtest_add_func("/spiceflow/card/guest-does-not-fetch",
                   test_guest_does_not_fetch);
    qtest_add_func("/spiceflow/card/answer-not-fetched",
                   test_answer_not_fetched);
    qtest_add_func("/spiceflow/card/client-leaves-idle",
                   test_client_leaves_idle);
    return g_test_run();
}
