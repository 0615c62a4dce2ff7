/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What QEMU's usb-ccid does not tell its card.
 */
#ifndef CHARDEV_SPICEFLOW_CCID_H
#define CHARDEV_SPICEFLOW_CCID_H

/**
 * sf_ccid_unfetched: answers that a reader holds for its guest.
 * @label: id of the chardev of a ccid-card-passthru in that reader
 *
 * Returns: their number, or -1 when there is no such card or no telling.
 */
int sf_ccid_unfetched(const char *label);

#endif
