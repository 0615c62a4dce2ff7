/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spiceflow-tap: what a frontend gets from its chardev, in a file.
 *
 *   -chardev spiceflow,id=u0,... -device usb-redir,chardev=u0
 *   -device spiceflow-tap,of=u0,path=FILE
 *
 * A chardev's logfile= has what the frontend writes; this is the other
 * direction.  It puts itself between the chardev and the frontend that has
 * it, whose handler is called as before, and is for frontends that set their
 * handlers once, such as usb-redir.  It comes after that on the command line,
 * and is gone with its own chardev.
 */
#include "qemu/osdep.h"
#include "chardev/char.h"
#include "chardev/char-fe.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qom/object.h"

#include "test-compat.h"

#define TYPE_SPICEFLOW_TAP "spiceflow-tap"
OBJECT_DECLARE_SIMPLE_TYPE(SpiceFlowTap, SPICEFLOW_TAP)

struct SpiceFlowTap {
    DeviceState parent_obj;

    char *of;
    char *path;
    FILE *file;
    /* the frontend's own */
    IOCanReadHandler *can_read;
    IOReadHandler *read;
    IOEventHandler *event;
    void *opaque;
};

static int tap_can_read(void *opaque)
{
    SpiceFlowTap *tap = opaque;

    return tap->can_read(tap->opaque);
}

static void tap_read(void *opaque, const uint8_t *buf, int size)
{
    SpiceFlowTap *tap = opaque;

    if (fwrite(buf, 1, size, tap->file) != (size_t)size || fflush(tap->file)) {
        error_report("spiceflow-tap: can not write '%s'", tap->path);
    }
    tap->read(tap->opaque, buf, size);
}

static void tap_event(void *opaque, QEMUChrEvent event)
{
    SpiceFlowTap *tap = opaque;

    tap->event(tap->opaque, event);
}

static void tap_realize(DeviceState *dev, Error **errp)
{
    SpiceFlowTap *tap = SPICEFLOW_TAP(dev);
    Chardev *chr = tap->of ? qemu_chr_find(tap->of) : NULL;
    TestFrontend *frontend = chr ? TEST_FRONTEND_OF(chr) : NULL;

    if (!frontend || !frontend->chr_read) {
        error_setg(errp, "spiceflow-tap: 'of' must be a chardev that a "
                   "frontend before this on the command line has");
        return;
    }
    tap->file = tap->path ? fopen(tap->path, "wb") : NULL;
    if (!tap->file) {
        error_setg(errp, "spiceflow-tap: can not write 'path'");
        return;
    }
    tap->can_read = frontend->chr_can_read;
    tap->read = frontend->chr_read;
    tap->event = frontend->chr_event;
    tap->opaque = frontend->opaque;
    frontend->chr_can_read = tap_can_read;
    frontend->chr_read = tap_read;
    frontend->chr_event = tap_event;
    frontend->opaque = tap;
}

static const Property tap_properties[] = {
    DEFINE_PROP_STRING("of", SpiceFlowTap, of),
    DEFINE_PROP_STRING("path", SpiceFlowTap, path),
};

static void tap_class_init(ObjectClass *klass, TestClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->desc = "what a frontend gets from its chardev, for tests";
    dc->realize = tap_realize;
    dc->user_creatable = true;
    dc->hotpluggable = false;
    device_class_set_props(dc, tap_properties);
}

static const TypeInfo tap_info = {
    .name = TYPE_SPICEFLOW_TAP,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(SpiceFlowTap),
    .class_init = tap_class_init,
};
module_obj(TYPE_SPICEFLOW_TAP);

static void tap_register_types(void)
{
    type_register_static(&tap_info);
}

type_init(tap_register_types);
