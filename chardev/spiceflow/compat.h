/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every difference between QEMU versions that the module meets, and nothing
 * else.  Known: 10.0 and 10.2.
 */
#ifndef CHARDEV_SPICEFLOW_COMPAT_H
#define CHARDEV_SPICEFLOW_COMPAT_H

#include "qemu/osdep.h"
#include "io/net-listener.h"

#define SF_QEMU_AT_LEAST(major, minor)                                  \
    (QEMU_VERSION_MAJOR > (major) ||                                    \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

/*
 * QEMU clears every local variable, also large buffers; later versions have a
 * word against that.
 */
#ifndef QEMU_UNINITIALIZED
#if g_macro__has_attribute(uninitialized)
#define QEMU_UNINITIALIZED __attribute__((uninitialized))
#else
#define QEMU_UNINITIALIZED
#endif
#endif

/* What class_init functions get beside the class. */
#if SF_QEMU_AT_LEAST(10, 1)
typedef const void SFClassData;
#define SF_INTERFACES       (const InterfaceInfo[])
#else
typedef void SFClassData;
#define SF_INTERFACES       (InterfaceInfo[])
#endif

/* The frontend that a chardev is attached to, and the chardev's field. */
#if SF_QEMU_AT_LEAST(10, 2)
#define SF_CHARDEV_FRONTEND(chr)    ((chr)->fe)
#else
#define SF_CHARDEV_FRONTEND(chr)    ((chr)->be)
#endif

/* As the io_set_blocking method of a channel has to answer. */
static inline int sf_compat_set_blocking(QIOChannel *ioc, bool enabled,
                                         Error **errp)
{
#if SF_QEMU_AT_LEAST(10, 2)
    return qio_channel_set_blocking(ioc, enabled, errp) ? 0 : -1;
#else
    return qio_channel_set_blocking(ioc, enabled, errp);
#endif
}

/* The first address that a listener is bound to, or NULL. */
static inline SocketAddress *
sf_compat_listener_address(QIONetListener *listener)
{
#if SF_QEMU_AT_LEAST(10, 2)
    return qio_net_listener_get_local_address(listener, 0, NULL);
#else
    return listener->nsioc ?
           qio_channel_socket_get_local_address(listener->sioc[0], NULL) : NULL;
#endif
}

#endif
