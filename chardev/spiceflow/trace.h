/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trace events of the module.
 *
 * QEMU generates one header per folder that has a trace-events file of its
 * own.  Ours are appended to those of chardev/ when the overlay is grafted,
 * so that no list of folders in QEMU's build has to change; the tracing code
 * itself lives in the emulator, not in the module.
 */
#include "trace/trace-chardev.h"
