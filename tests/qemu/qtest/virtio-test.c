/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A port on virtio-serial, with a guest that is this test.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_console.h"
#include "virtio-guest.h"

#define QUEUE_SIZE          (64 * 1024)

typedef struct Port {
    VirtioGuest g;
    SpiceTestChannel *main;
    SpiceTestChannel *port;
} Port;

static void port_boot(Port *p)
{
    *p = (Port) { };
    virtio_guest_boot(&p->g, "", "org.example.q", QUEUE_SIZE);
}

static void port_end(Port *p)
{
    if (p->port) {
        spice_test_close(p->port);
    }
    if (p->main) {
        spice_test_close(p->main);
    }
    virtio_guest_end(&p->g);
}

/*
 * The client
 */

static void client_come(Port *p)
{
    uint32_t session;

    if (!p->main) {
        p->main = spice_test_main(p->g.server.path, &session);
        p->port = spice_test_open(p->g.server.path, SPICE_TEST_PORT, 0,
                                  session);
        g_byte_array_unref(spice_test_expect(p->port, SPICE_TEST_PORT_INIT));
    }
}

static void client_leave(Port *p)
{
    spice_test_close(g_steal_pointer(&p->port));
    spice_test_close(g_steal_pointer(&p->main));
}

static void client_expect_event(Port *p, uint8_t event)
{
    g_autoptr(GByteArray) body = spice_test_expect(p->port,
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
    Port p;

    port_boot(&p);
    client_come(&p);
    virtio_guest_open(&p.g, true);
    client_expect_event(&p, SPICE_TEST_OPENED);
    spice_test_pattern(want, 0, len);
    spice_test_send(p.port, SPICE_TEST_DATA, want, 15000);
    spice_test_send(p.port, SPICE_TEST_DATA, want + 15000, 1);
    spice_test_send(p.port, SPICE_TEST_DATA, want + 15001, len - 15001);
    virtio_guest_take(&p.g, got, len, sizes, G_N_ELEMENTS(sizes));
    g_assert_cmpmem(got, len, want, len);
    g_assert_cmpint(spice_test_flow(p.g.qs->qts, "to-guest-bytes"), ==, 0);
    port_end(&p);
}

static void test_to_client(void)
{
    static const uint32_t sizes[] = { 1, 2, 100, 4096, 32768, 1, 20000 };
    uint64_t addr;
    size_t done = 0;
    Port p;

    port_boot(&p);
    client_come(&p);
    virtio_guest_open(&p.g, true);
    client_expect_event(&p, SPICE_TEST_OPENED);
    addr = guest_alloc(&p.g.qs->alloc, 32768);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree uint8_t *want = g_malloc(sizes[i]);
        g_autofree uint8_t *got = g_malloc(sizes[i]);
        uint32_t head;

        spice_test_pattern(want, done, sizes[i]);
        done += sizes[i];
        qtest_memwrite(p.g.qs->qts, addr, want, sizes[i]);
        virtio_guest_post(&p.g, OUT, addr, sizes[i]);
        virtio_guest_used(&p.g, OUT, &head);
        spice_test_receive_data(p.port, got, sizes[i]);
        g_assert_cmpmem(got, sizes[i], want, sizes[i]);
    }
    g_assert_cmpint(spice_test_flow(p.g.qs->qts, "total-from-guest-bytes"), ==,
                    done);
    port_end(&p);
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
    Port p;

    port_boot(&p);
    client_come(&p);
    virtio_guest_open(&p.g, true);
    client_expect_event(&p, SPICE_TEST_OPENED);
    for (unsigned i = 0; i < count; i++) {
        addr[i] = guest_alloc(&p.g.qs->alloc, size);
        spice_test_pattern(want, i * size, size);
        qtest_memwrite(p.g.qs->qts, addr[i], want, size);
        virtio_guest_post(&p.g, OUT, addr[i], size);
    }
    g_usleep(300 * 1000);
    while (qvirtqueue_get_buf(p.g.qs->qts, p.g.vq[OUT], &head, &len)) {
        used++;
    }
    g_assert_cmpuint(used, >, 0);
    g_assert_cmpuint(used, <, count / 2);
    g_assert_cmpint(spice_test_flow(p.g.qs->qts, "client/to-client-bytes"), <=,
                    QUEUE_SIZE);
    for (unsigned i = 0; i < count; i++) {
        spice_test_receive_data(p.port, got, size);
        spice_test_pattern(want, i * size, size);
        g_assert_cmpmem(got, size, want, size);
    }
    while (used < count) {
        virtio_guest_used(&p.g, OUT, &head);
        used++;
    }
    port_end(&p);
}

/* A guest without buffers: the client is held back, then everything comes. */
static void test_to_guest_stalled(void)
{
    static const uint32_t sizes[] = { 1, 4096 };
    const size_t len = 1024 * 1024;
    g_autofree uint8_t *data = g_malloc(len + 6), *got = g_malloc(len);
    size_t pushed, taken = 0;
    Port p;

    port_boot(&p);
    client_come(&p);
    virtio_guest_open(&p.g, true);
    client_expect_event(&p, SPICE_TEST_OPENED);
    stw_le_p(data, SPICE_TEST_DATA);
    stl_le_p(data + 2, len);
    spice_test_pattern(data + 6, 0, len);
    pushed = spice_test_push(p.port, data, len + 6);
    g_assert_cmpuint(pushed, <, len);
    g_assert_cmpint(spice_test_flow(p.g.qs->qts, "to-guest-bytes"), <=,
                    QUEUE_SIZE);
    while (pushed < len + 6) {
        virtio_guest_take(&p.g, got + taken, 50000, sizes, G_N_ELEMENTS(sizes));
        taken += 50000;
        pushed += spice_test_push(p.port, data + pushed, len + 6 - pushed);
    }
    virtio_guest_take(&p.g, got + taken, len - taken, sizes,
                      G_N_ELEMENTS(sizes));
    g_assert_cmpmem(got, len, data + 6, len);
    port_end(&p);
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
    Port p;

    port_boot(&p);
    addr = guest_alloc(&p.g.qs->alloc, 4096);
    virtio_guest_post(&p.g, IN, addr, 4096);
    client_come(&p);
    spice_test_pattern(want, 0, len);
    spice_test_send(p.port, SPICE_TEST_DATA, want, len);
    spice_test_flow_wait(p.g.qs->qts, "to-guest-bytes", len);
    g_assert_false(qvirtqueue_get_buf(p.g.qs->qts, p.g.vq[IN], &head, &n));
    virtio_guest_open(&p.g, true);
    n = virtio_guest_used(&p.g, IN, &head);
    g_assert_cmpuint(n, ==, len);
    qtest_memread(p.g.qs->qts, addr, got, n);
    g_assert_cmpmem(got, n, want, len);
    port_end(&p);
}

/* Each side learns that the other one opens and closes. */
static void test_open_and_close(void)
{
    Port p;

    port_boot(&p);
    for (unsigned i = 0; i < 3; i++) {
        client_come(&p);
        g_assert_cmpuint(virtio_guest_told(&p.g, VIRTIO_CONSOLE_PORT_OPEN),
                         ==, 1);
        virtio_guest_open(&p.g, true);
        client_expect_event(&p, SPICE_TEST_OPENED);
        virtio_guest_open(&p.g, false);
        client_expect_event(&p, SPICE_TEST_CLOSED);
        client_leave(&p);
        g_assert_cmpuint(virtio_guest_told(&p.g, VIRTIO_CONSOLE_PORT_OPEN),
                         ==, 0);
    }
    port_end(&p);
}

/*
 * D2: the guest has taken a part of what a client sent when that one leaves.
 * The rest is gone, and the next client's first byte is the next byte.
 */
static void test_d2_next_client(void)
{
    static const uint32_t sizes[] = { 100 };
    uint8_t want[2000], got[2000];
    Port p;

    port_boot(&p);
    client_come(&p);
    virtio_guest_open(&p.g, true);
    client_expect_event(&p, SPICE_TEST_OPENED);
    memset(want, 0xee, sizeof(want));
    spice_test_send(p.port, SPICE_TEST_DATA, want, sizeof(want));
    virtio_guest_take(&p.g, got, 700, sizes, 1);
    g_assert_cmpmem(got, 700, want, 700);
    spice_test_flow_wait(p.g.qs->qts, "to-guest-bytes", sizeof(want) - 700);
    client_leave(&p);
    spice_test_flow_wait(p.g.qs->qts, "to-guest-bytes", 0);
    client_come(&p);
    spice_test_pattern(want, 0, sizeof(want));
    spice_test_send(p.port, SPICE_TEST_DATA, want, sizeof(want));
    virtio_guest_take(&p.g, got, sizeof(got), sizes, 1);
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
    port_end(&p);
}

/* A stop in the middle of a transfer: not a byte moves until the start. */
static void test_d33_stop(void)
{
    static const uint32_t sizes[] = { 64 };
    uint8_t want[2000], got[2000];
    uint32_t head, n;
    uint64_t addr;
    Port p;

    port_boot(&p);
    client_come(&p);
    virtio_guest_open(&p.g, true);
    client_expect_event(&p, SPICE_TEST_OPENED);
    spice_test_pattern(want, 0, sizeof(want));
    spice_test_send(p.port, SPICE_TEST_DATA, want, sizeof(want));
    virtio_guest_take(&p.g, got, 640, sizes, 1);
    qobject_unref(qtest_qmp(p.g.qs->qts, "{ 'execute': 'stop' }"));
    addr = guest_alloc(&p.g.qs->alloc, 360);
    virtio_guest_post(&p.g, IN, addr, 360);
    g_usleep(100 * 1000);
    g_assert_false(qvirtqueue_get_buf(p.g.qs->qts, p.g.vq[IN], &head, &n));
    g_assert_cmpint(spice_test_flow(p.g.qs->qts, "to-guest-bytes"), ==,
                    sizeof(want) - 640);
    qobject_unref(qtest_qmp(p.g.qs->qts, "{ 'execute': 'cont' }"));
    n = virtio_guest_used(&p.g, IN, &head);
    g_assert_cmpuint(n, ==, 360);
    qtest_memread(p.g.qs->qts, addr, got + 640, n);
    virtio_guest_take(&p.g, got + 1000, 1000, sizes, 1);
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
    port_end(&p);
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
