/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The differences between the supported QEMU versions that the test devices
 * meet.
 */
#ifndef SPICEFLOW_TEST_COMPAT_H
#define SPICEFLOW_TEST_COMPAT_H

#include "chardev/char-fe.h"

#if QEMU_VERSION_MAJOR > 10 || \
    (QEMU_VERSION_MAJOR == 10 && QEMU_VERSION_MINOR >= 2)
typedef CharFrontend TestFrontend;
#define TEST_FRONTEND_OF(chr) ((chr)->fe)
#else
typedef CharBackend TestFrontend;
#define TEST_FRONTEND_OF(chr) ((chr)->be)
#endif
#if QEMU_VERSION_MAJOR > 10 || \
    (QEMU_VERSION_MAJOR == 10 && QEMU_VERSION_MINOR >= 1)
typedef const void TestClassData;
#else
typedef void TestClassData;
#endif

#endif
