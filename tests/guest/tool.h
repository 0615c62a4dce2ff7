/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tools for the test guest share: how they speak, and how they find a
 * virtio port.
 */
#ifndef SPICEFLOW_GUEST_TOOL_H
#define SPICEFLOW_GUEST_TOOL_H

#include <stdint.h>

/* How long to wait before looking again at a port whose host side is closed. */
#define HOST_CLOSED_SLEEP_US 20000

int64_t now_ns(void);

/* One line on the standard output, at once. */
void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...);

/* The last line: "bad ", and what is wrong. */
void __attribute__((noreturn, format(printf, 1, 2))) bad(const char *fmt, ...);

/*
 * Open a port: a path, or a name as in /sys/class/virtio-ports.  A name is
 * waited for, because a port can be hotplugged, and so is a last user's close.
 */
int port_open(const char *name, int flags);

#endif
