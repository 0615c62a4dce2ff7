/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtio-serial port whose guest is this test: it drives the rings itself.
 *
 * So it says exactly which buffers there are for the device to fill, how small
 * they are, when the guest opens its port and what it writes, and a write to
 * the guest can be cut wherever a case wants it.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "libqos/libqos-pc.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_console.h"
#include "machine.h"

#define CONTROL_BUFFERS     16
#define CONTROL_SIZE        128
#define TIMEOUT_US          (10 * 1000 * 1000)
#define QUEUE_SIZE          (64 * 1024)

/* Rings of a device with one port: of console 0, control, port 1. */
enum { IN0, OUT0, CONTROL_IN, CONTROL_OUT, IN, OUT, NUM_QUEUES };

typedef struct Guest {
    SpiceTestServer server;
    QOSState *qs;
    QVirtioPCIDevice *dev;
    QVirtQueue *vq[NUM_QUEUES];
    uint64_t control[CONTROL_BUFFERS];
    SpiceTestChannel *main;
    SpiceTestChannel *port;
} Guest;

/*
 * The guest's driver
 */

static uint32_t guest_post(Guest *g, int queue, uint64_t addr, uint32_t len)
{
    bool in = queue == IN || queue == CONTROL_IN;
    uint32_t head = qvirtqueue_add(g->qs->qts, g->vq[queue], addr, len, in,
                                   false);

    qvirtqueue_kick(g->qs->qts, &g->dev->vdev, g->vq[queue], head);
    return head;
}

/* Wait for any buffer of a ring to come back. */
static uint32_t guest_used(Guest *g, int queue, uint32_t *head)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    uint32_t len = 0;

    while (!qvirtqueue_get_buf(g->qs->qts, g->vq[queue], head, &len)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(500);
    }
    return len;
}

static void guest_control(Guest *g, uint32_t port, uint16_t event,
                          uint16_t value)
{
    uint64_t addr = guest_alloc(&g->qs->alloc, 8);
    uint8_t message[8];
    uint32_t head;

    stl_le_p(message, port);
    stw_le_p(message + 4, event);
    stw_le_p(message + 6, value);
    qtest_memwrite(g->qs->qts, addr, message, sizeof(message));
    guest_post(g, CONTROL_OUT, addr, sizeof(message));
    guest_used(g, CONTROL_OUT, &head);
    guest_free(&g->qs->alloc, addr);
}

/* The next control message of the device that tells of @event. */
static uint16_t guest_told(Guest *g, uint16_t event)
{
    while (true) {
        uint8_t message[8];
        uint32_t head;

        guest_used(g, CONTROL_IN, &head);
        g_assert_cmpuint(head, <, CONTROL_BUFFERS);
        qtest_memread(g->qs->qts, g->control[head], message, sizeof(message));
        if (lduw_le_p(message + 4) == event) {
            return lduw_le_p(message + 6);
        }
    }
}

static void guest_boot(Guest *g)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(4, 0) };
    QVirtioDevice *vdev;
    uint64_t features;

    *g = (Guest) { };
    spice_test_server(&g->server, QUEUE_SIZE);
    g->qs = qtest_pc_boot("%s-device virtio-serial-pci,id=vser,addr=04.0,"
                          "max_ports=2 -device virtserialport,bus=vser.0,nr=1,"
                          "chardev=p1,name=org.example.q", g->server.args);
    g->dev = virtio_pci_new(g->qs->pcibus, &addr);
    g_assert_nonnull(g->dev);
    vdev = &g->dev->vdev;
    qvirtio_pci_device_enable(g->dev);
    qvirtio_start_device(vdev);
    features = qvirtio_get_features(vdev);
    features &= ~(QVIRTIO_F_BAD_FEATURE |
                  (1ull << VIRTIO_RING_F_INDIRECT_DESC) |
                  (1ull << VIRTIO_RING_F_EVENT_IDX));
    g_assert_true(features & (1ull << VIRTIO_CONSOLE_F_MULTIPORT));
    qvirtio_set_features(vdev, features);
    for (unsigned i = 0; i < NUM_QUEUES; i++) {
        g->vq[i] = qvirtqueue_setup(vdev, &g->qs->alloc, i);
    }
    qvirtio_set_driver_ok(vdev);

    for (unsigned i = 0; i < CONTROL_BUFFERS; i++) {
        g->control[i] = guest_alloc(&g->qs->alloc, CONTROL_SIZE);
        g_assert_cmpuint(guest_post(g, CONTROL_IN, g->control[i],
                                    CONTROL_SIZE), ==, i);
    }
    guest_control(g, 0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1);
    guest_told(g, VIRTIO_CONSOLE_PORT_ADD);
    guest_control(g, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    guest_told(g, VIRTIO_CONSOLE_PORT_NAME);
}

static void guest_open(Guest *g, bool open)
{
    guest_control(g, 1, VIRTIO_CONSOLE_PORT_OPEN, open);
}

static void guest_end(Guest *g)
{
    if (g->port) {
        spice_test_close(g->port);
    }
    if (g->main) {
        spice_test_close(g->main);
    }
    for (unsigned i = 0; i < NUM_QUEUES; i++) {
        qvirtqueue_cleanup(g->dev->vdev.bus, g->vq[i], &g->qs->alloc);
    }
    qvirtio_pci_device_disable(g->dev);
    g_free(g->dev);
    qtest_shutdown(g->qs);
    spice_test_server_clear(&g->server);
}

/* Take bytes through buffers of these sizes, the last one again and again. */
static void guest_take(Guest *g, uint8_t *data, size_t len,
                       const uint32_t *sizes, unsigned num_sizes)
{
    uint64_t addr = guest_alloc(&g->qs->alloc, QUEUE_SIZE);
    unsigned i = 0;

    while (len) {
        uint32_t size = MIN(sizes[i], len);
        uint32_t head, n;

        guest_post(g, IN, addr, size);
        n = guest_used(g, IN, &head);
        g_assert_cmpuint(n, >, 0);
        g_assert_cmpuint(n, <=, size);
        qtest_memread(g->qs->qts, addr, data, n);
        data += n;
        len -= n;
        i += i + 1 < num_sizes;
    }
    guest_free(&g->qs->alloc, addr);
}

/*
 * The client
 */

static void client_come(Guest *g)
{
    uint32_t session;

    if (!g->main) {
        g->main = spice_test_main(g->server.path, &session);
        g->port = spice_test_open(g->server.path, SPICE_TEST_PORT, 0, session);
        g_byte_array_unref(spice_test_expect(g->port, SPICE_TEST_PORT_INIT));
    }
}

static void client_leave(Guest *g)
{
    spice_test_close(g_steal_pointer(&g->port));
    spice_test_close(g_steal_pointer(&g->main));
}

static void client_expect_event(Guest *g, uint8_t event)
{
    g_autoptr(GByteArray) body = spice_test_expect(g->port,
                                                   SPICE_TEST_PORT_EVENT);

    g_assert_cmpuint(body->len, ==, 1);
    g_assert_cmpuint(body->data[0], ==, event);
}

/*
 * Cases
 */

/* Buffers of every size, so that each write is cut somewhere else. */
static void test_to_guest(void)
{
    static const uint32_t sizes[] = {
        1, 1, 2, 3, 5, 8, 13, 1, 21, 100, 1000, 1, 4095, 4096, 4097, 7, 333
    };
    const size_t len = 40000;
    g_autofree uint8_t *want = g_malloc(len), *got = g_malloc(len);
    Guest g;

    guest_boot(&g);
    client_come(&g);
    guest_open(&g, true);
    client_expect_event(&g, SPICE_TEST_OPENED);
    spice_test_pattern(want, 0, len);
    spice_test_send(g.port, SPICE_TEST_DATA, want, 15000);
    spice_test_send(g.port, SPICE_TEST_DATA, want + 15000, 1);
    spice_test_send(g.port, SPICE_TEST_DATA, want + 15001, len - 15001);
    guest_take(&g, got, len, sizes, G_N_ELEMENTS(sizes));
    g_assert_cmpmem(got, len, want, len);
    g_assert_cmpint(spice_test_flow(g.qs->qts, "to-guest-bytes"), ==, 0);
    guest_end(&g);
}

static void test_to_client(void)
{
    static const uint32_t sizes[] = { 1, 2, 100, 4096, 32768, 1, 20000 };
    uint64_t addr;
    size_t done = 0;
    Guest g;

    guest_boot(&g);
    client_come(&g);
    guest_open(&g, true);
    client_expect_event(&g, SPICE_TEST_OPENED);
    addr = guest_alloc(&g.qs->alloc, 32768);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree uint8_t *want = g_malloc(sizes[i]);
        g_autofree uint8_t *got = g_malloc(sizes[i]);
        uint32_t head;

        spice_test_pattern(want, done, sizes[i]);
        done += sizes[i];
        qtest_memwrite(g.qs->qts, addr, want, sizes[i]);
        guest_post(&g, OUT, addr, sizes[i]);
        guest_used(&g, OUT, &head);
        spice_test_receive_data(g.port, got, sizes[i]);
        g_assert_cmpmem(got, sizes[i], want, sizes[i]);
    }
    g_assert_cmpint(spice_test_flow(g.qs->qts, "total-from-guest-bytes"), ==,
                    done);
    guest_end(&g);
}

/*
 * A client that does not read: buffers stay in the ring, and come back once it
 * does, in order and complete.
 */
static void test_to_client_stalled(void)
{
    const uint32_t size = 32768, count = 60;
    g_autofree uint8_t *want = g_malloc(size), *got = g_malloc(size);
    uint32_t head, len, used = 0;
    uint64_t addr[60];
    Guest g;

    guest_boot(&g);
    client_come(&g);
    guest_open(&g, true);
    client_expect_event(&g, SPICE_TEST_OPENED);
    for (unsigned i = 0; i < count; i++) {
        addr[i] = guest_alloc(&g.qs->alloc, size);
        spice_test_pattern(want, i * size, size);
        qtest_memwrite(g.qs->qts, addr[i], want, size);
        guest_post(&g, OUT, addr[i], size);
    }
    g_usleep(300 * 1000);
    while (qvirtqueue_get_buf(g.qs->qts, g.vq[OUT], &head, &len)) {
        used++;
    }
    g_assert_cmpuint(used, >, 0);
    g_assert_cmpuint(used, <, count / 2);
    g_assert_cmpint(spice_test_flow(g.qs->qts, "client/to-client-bytes"), <=,
                    QUEUE_SIZE);
    for (unsigned i = 0; i < count; i++) {
        spice_test_receive_data(g.port, got, size);
        spice_test_pattern(want, i * size, size);
        g_assert_cmpmem(got, size, want, size);
    }
    while (used < count) {
        guest_used(&g, OUT, &head);
        used++;
    }
    guest_end(&g);
}

/* A guest without buffers: the client is held back, then everything comes. */
static void test_to_guest_stalled(void)
{
    static const uint32_t sizes[] = { 1, 4096 };
    const size_t len = 1024 * 1024;
    g_autofree uint8_t *data = g_malloc(len + 6), *got = g_malloc(len);
    size_t pushed, taken = 0;
    Guest g;

    guest_boot(&g);
    client_come(&g);
    guest_open(&g, true);
    client_expect_event(&g, SPICE_TEST_OPENED);
    stw_le_p(data, SPICE_TEST_DATA);
    stl_le_p(data + 2, len);
    spice_test_pattern(data + 6, 0, len);
    pushed = spice_test_push(g.port, data, len + 6);
    g_assert_cmpuint(pushed, <, len);
    g_assert_cmpint(spice_test_flow(g.qs->qts, "to-guest-bytes"), <=,
                    QUEUE_SIZE);
    while (pushed < len + 6) {
        guest_take(&g, got + taken, 50000, sizes, G_N_ELEMENTS(sizes));
        taken += 50000;
        pushed += spice_test_push(g.port, data + pushed, len + 6 - pushed);
    }
    guest_take(&g, got + taken, len - taken, sizes, G_N_ELEMENTS(sizes));
    g_assert_cmpmem(got, len, data + 6, len);
    guest_end(&g);
}

/*
 * D31: what a client sends before the guest has opened its port arrives when
 * it does, though virtio-console tells nobody that it takes input now.  The
 * guest's buffers are there before, so no kick helps either.
 */
static void test_d31_open(void)
{
    const size_t len = 3000;
    g_autofree uint8_t *want = g_malloc(len), *got = g_malloc(len);
    uint32_t head, n;
    uint64_t addr;
    Guest g;

    guest_boot(&g);
    addr = guest_alloc(&g.qs->alloc, 4096);
    guest_post(&g, IN, addr, 4096);
    client_come(&g);
    spice_test_pattern(want, 0, len);
    spice_test_send(g.port, SPICE_TEST_DATA, want, len);
    spice_test_flow_wait(g.qs->qts, "to-guest-bytes", len);
    g_assert_false(qvirtqueue_get_buf(g.qs->qts, g.vq[IN], &head, &n));
    guest_open(&g, true);
    n = guest_used(&g, IN, &head);
    g_assert_cmpuint(n, ==, len);
    qtest_memread(g.qs->qts, addr, got, n);
    g_assert_cmpmem(got, n, want, len);
    guest_end(&g);
}

/* Each side learns that the other one opens and closes. */
static void test_open_and_close(void)
{
    Guest g;

    guest_boot(&g);
    for (unsigned i = 0; i < 3; i++) {
        client_come(&g);
        g_assert_cmpuint(guest_told(&g, VIRTIO_CONSOLE_PORT_OPEN), ==, 1);
        guest_open(&g, true);
        client_expect_event(&g, SPICE_TEST_OPENED);
        guest_open(&g, false);
        client_expect_event(&g, SPICE_TEST_CLOSED);
        client_leave(&g);
        g_assert_cmpuint(guest_told(&g, VIRTIO_CONSOLE_PORT_OPEN), ==, 0);
    }
    guest_end(&g);
}

/*
 * D2: the guest has taken a part of what a client sent when that one leaves.
 * The rest is gone, and the next client's first byte is the next byte.
 */
static void test_d2_next_client(void)
{
    static const uint32_t sizes[] = { 100 };
    uint8_t want[2000], got[2000];
    Guest g;

    guest_boot(&g);
    client_come(&g);
    guest_open(&g, true);
    client_expect_event(&g, SPICE_TEST_OPENED);
    memset(want, 0xee, sizeof(want));
    spice_test_send(g.port, SPICE_TEST_DATA, want, sizeof(want));
    guest_take(&g, got, 700, sizes, 1);
    g_assert_cmpmem(got, 700, want, 700);
    spice_test_flow_wait(g.qs->qts, "to-guest-bytes", sizeof(want) - 700);
    client_leave(&g);
    spice_test_flow_wait(g.qs->qts, "to-guest-bytes", 0);
    client_come(&g);
    spice_test_pattern(want, 0, sizeof(want));
    spice_test_send(g.port, SPICE_TEST_DATA, want, sizeof(want));
    guest_take(&g, got, sizeof(got), sizes, 1);
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
    guest_end(&g);
}

/* A stop in the middle of a transfer: not a byte moves until the start. */
static void test_d33_stop(void)
{
    static const uint32_t sizes[] = { 64 };
    uint8_t want[2000], got[2000];
    uint32_t head, n;
    uint64_t addr;
    Guest g;

    guest_boot(&g);
    client_come(&g);
    guest_open(&g, true);
    client_expect_event(&g, SPICE_TEST_OPENED);
    spice_test_pattern(want, 0, sizeof(want));
    spice_test_send(g.port, SPICE_TEST_DATA, want, sizeof(want));
    guest_take(&g, got, 640, sizes, 1);
    qobject_unref(qtest_qmp(g.qs->qts, "{ 'execute': 'stop' }"));
    addr = guest_alloc(&g.qs->alloc, 360);
    guest_post(&g, IN, addr, 360);
    g_usleep(100 * 1000);
    g_assert_false(qvirtqueue_get_buf(g.qs->qts, g.vq[IN], &head, &n));
    g_assert_cmpint(spice_test_flow(g.qs->qts, "to-guest-bytes"), ==,
                    sizeof(want) - 640);
    qobject_unref(qtest_qmp(g.qs->qts, "{ 'execute': 'cont' }"));
    n = guest_used(&g, IN, &head);
    g_assert_cmpuint(n, ==, 360);
    qtest_memread(g.qs->qts, addr, got + 640, n);
    guest_take(&g, got + 1000, 1000, sizes, 1);
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
    guest_end(&g);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/spiceflow/virtio/to-guest", test_to_guest);
    qtest_add_func("/spiceflow/virtio/to-guest-stalled",
                   test_to_guest_stalled);
    qtest_add_func("/spiceflow/virtio/to-client", test_to_client);
    qtest_add_func("/spiceflow/virtio/to-client-stalled",
                   test_to_client_stalled);
    qtest_add_func("/spiceflow/virtio/open-and-close", test_open_and_close);
    qtest_add_func("/spiceflow/virtio/d2-next-client", test_d2_next_client);
    qtest_add_func("/spiceflow/virtio/d31-open", test_d31_open);
    qtest_add_func("/spiceflow/virtio/d33-stop", test_d33_stop);
    return g_test_run();
}
