/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver of a virtio-serial device with one port, whose guest is a test.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_console.h"
#include "virtio-guest.h"

#define CONTROL_SIZE        128
#define TIMEOUT_US          (10 * 1000 * 1000)
#define LARGEST             (64 * 1024u)

uint32_t virtio_guest_post(VirtioGuest *g, int queue, uint64_t addr,
                           uint32_t len)
{
    bool in = queue == IN || queue == CONTROL_IN;
    uint32_t head = qvirtqueue_add(g->qs->qts, g->vq[queue], addr, len, in,
                                   false);

    qvirtqueue_kick(g->qs->qts, &g->dev->vdev, g->vq[queue], head);
    return head;
}

uint32_t virtio_guest_used(VirtioGuest *g, int queue, uint32_t *head)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    uint32_t len = 0;

    while (!qvirtqueue_get_buf(g->qs->qts, g->vq[queue], head, &len)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(500);
    }
    return len;
}

static void guest_control(VirtioGuest *g, uint32_t port, uint16_t event,
                          uint16_t value)
{
    uint64_t addr = guest_alloc(&g->qs->alloc, 8);
    uint8_t message[8];
    uint32_t head;

    stl_le_p(message, port);
    stw_le_p(message + 4, event);
    stw_le_p(message + 6, value);
    qtest_memwrite(g->qs->qts, addr, message, sizeof(message));
    virtio_guest_post(g, CONTROL_OUT, addr, sizeof(message));
    virtio_guest_used(g, CONTROL_OUT, &head);
    guest_free(&g->qs->alloc, addr);
}

uint16_t virtio_guest_told(VirtioGuest *g, uint16_t event)
{
    while (true) {
        uint8_t message[8];
        uint32_t head;

        virtio_guest_used(g, CONTROL_IN, &head);
        g_assert_cmpuint(head, <, CONTROL_BUFFERS);
        qtest_memread(g->qs->qts, g->control[head], message, sizeof(message));
        if (lduw_le_p(message + 4) == event) {
            return lduw_le_p(message + 6);
        }
    }
}

void virtio_guest_boot(VirtioGuest *g, const char *server_options,
                       const char *name, unsigned queue_size)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(4, 0) };
    QVirtioDevice *vdev;
    uint64_t features;

    *g = (VirtioGuest) { };
    spice_test_server_for(&g->server, server_options, name, queue_size);
    g->qs = qtest_pc_boot("%s-device virtio-serial-pci,id=vser,addr=04.0,"
                          "max_ports=2 -device virtserialport,bus=vser.0,nr=1,"
                          "chardev=p1", g->server.args);
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
        g_assert_cmpuint(virtio_guest_post(g, CONTROL_IN, g->control[i],
                                           CONTROL_SIZE), ==, i);
    }
    guest_control(g, 0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1);
    virtio_guest_told(g, VIRTIO_CONSOLE_PORT_ADD);
    guest_control(g, 1, VIRTIO_CONSOLE_PORT_READY, 1);
}

void virtio_guest_open(VirtioGuest *g, bool open)
{
    guest_control(g, 1, VIRTIO_CONSOLE_PORT_OPEN, open);
}

void virtio_guest_end(VirtioGuest *g)
{
    for (unsigned i = 0; i < NUM_QUEUES; i++) {
        qvirtqueue_cleanup(g->dev->vdev.bus, g->vq[i], &g->qs->alloc);
    }
    qvirtio_pci_device_disable(g->dev);
    g_free(g->dev);
    qtest_shutdown(g->qs);
    spice_test_server_clear(&g->server);
}

void virtio_guest_take(VirtioGuest *g, uint8_t *data, size_t len,
                       const uint32_t *sizes, unsigned num_sizes)
{
    uint64_t addr = guest_alloc(&g->qs->alloc, LARGEST);
    unsigned i = 0;

    while (len) {
        uint32_t size = MIN(MIN(sizes[i], len), LARGEST);
        uint32_t head, n;

        virtio_guest_post(g, IN, addr, size);
        n = virtio_guest_used(g, IN, &head);
        g_assert_cmpuint(n, >, 0);
        g_assert_cmpuint(n, <=, size);
        qtest_memread(g->qs->qts, addr, data, n);
        data += n;
        len -= n;
        i += i + 1 < num_sizes;
    }
    guest_free(&g->qs->alloc, addr);
}
