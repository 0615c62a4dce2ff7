/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtio-serial port whose guest is the test: it drives the rings itself.
 *
 * So it says exactly which buffers there are for the device to fill, how small
 * they are, when the guest opens its port and what it writes, and a write to
 * the guest can be cut wherever a case wants it.
 */
#ifndef SPICEFLOW_QTEST_VIRTIO_GUEST_H
#define SPICEFLOW_QTEST_VIRTIO_GUEST_H

#include "libqos/libqos-pc.h"
#include "libqos/virtio-pci.h"
#include "machine.h"

#define CONTROL_BUFFERS     16

/* Rings of a device with one port: of console 0, control, port 1. */
enum { IN0, OUT0, CONTROL_IN, CONTROL_OUT, IN, OUT, NUM_QUEUES };

typedef struct VirtioGuest {
    SpiceTestServer server;
    QOSState *qs;
    QVirtioPCIDevice *dev;
    QVirtQueue *vq[NUM_QUEUES];
    uint64_t control[CONTROL_BUFFERS];
} VirtioGuest;

/**
 * virtio_guest_boot: start the machine, up to the ready port.
 * @g: filled; virtio_guest_end() is due
 * @server_options: more for the server, each after a comma
 * @name: of the chardev
 * @queue_size: of the chardev
 */
void virtio_guest_boot(VirtioGuest *g, const char *server_options,
                       const char *name, unsigned queue_size);
void virtio_guest_end(VirtioGuest *g);

/**
 * virtio_guest_open: open or close the port.
 * @g: the guest
 * @open: which
 */
void virtio_guest_open(VirtioGuest *g, bool open);

/**
 * virtio_guest_told: wait for a control message of the device.
 * @g: the guest
 * @event: VIRTIO_CONSOLE_*; others are passed over
 *
 * Returns: its value.
 */
uint16_t virtio_guest_told(VirtioGuest *g, uint16_t event);

/**
 * virtio_guest_post: put a buffer into a ring.
 * @g: the guest
 * @queue: the ring
 * @addr: where it is in the guest's memory
 * @len: its bytes
 *
 * Returns: its number.
 */
uint32_t virtio_guest_post(VirtioGuest *g, int queue, uint64_t addr,
                           uint32_t len);

/**
 * virtio_guest_used: wait for any buffer of a ring to come back.
 * @g: the guest
 * @queue: the ring
 * @head: set to its number
 *
 * Returns: bytes that the device put into it.
 */
uint32_t virtio_guest_used(VirtioGuest *g, int queue, uint32_t *head);

/**
 * virtio_guest_take: take bytes through buffers of some sizes.
 * @g: the guest
 * @data: filled
 * @len: how many bytes
 * @sizes: of the buffers; the last one is used again and again
 * @num_sizes: how many
 */
void virtio_guest_take(VirtioGuest *g, uint8_t *data, size_t len,
                       const uint32_t *sizes, unsigned num_sizes);

#endif
