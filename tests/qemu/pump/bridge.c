/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spiceflow-bridge: two chardevs back to back, for tests.
 *
 * A test that wants to play the guest puts a socket chardev behind the device
 * under test:
 *
 *   -chardev spiceflow,id=dut,... -chardev socket,id=far,server=on,...
 *   -device spiceflow-bridge,chardev=dut,far=far
 *
 * What is written into the socket is what the guest writes, and the other way
 * round.  Whoever connects to the socket opens the guest's side of the port,
 * as an agent does with its virtio port, and closes it by hanging up.  Bytes
 * wait in the bridge when the other side does not take them, and only one
 * read's worth of them, so that back pressure passes.  With `blocked` the
 * guest's side takes nothing.  With `plugged` false it is as a device that was
 * unplugged: the chardev under test may be removed, and another one of its name
 * be there when it is true again.
 */
#include "qemu/osdep.h"
#include "chardev/char-fe.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qom/object.h"

#include "test-compat.h"

#define TYPE_SPICEFLOW_BRIDGE "spiceflow-bridge"
OBJECT_DECLARE_SIMPLE_TYPE(SpiceFlowBridge, SPICEFLOW_BRIDGE)

#define BRIDGE_BUFFER   (64 * 1024)

typedef struct BridgeSide {
    TestFrontend chr;
    SpiceFlowBridge *bridge;
    struct BridgeSide *other;
    uint8_t pending[BRIDGE_BUFFER];     /* read here, not written there yet */
    size_t pos;
    size_t len;
    guint watch;                        /* on the other side */
} BridgeSide;

struct SpiceFlowBridge {
    DeviceState parent_obj;

    BridgeSide dut;
    BridgeSide far;
    uint32_t can_read_size;
    bool blocked;
    char *unplugged;            /* the label of the device under test */
    bool connected;             /* somebody is at the far side */
    bool opened;                /* the device under test told us so */
    uint32_t opens;
    uint32_t closes;
    uint32_t breaks;
};

static gboolean bridge_writable(void *unused, GIOCondition condition,
                                void *opaque);

/* Returns whether all is written. */
static bool bridge_flush(BridgeSide *side)
{
    /*
     * Nobody reads it.  Also, the far chardev tells of its end with its lock
     * held: whatever wants to write from in there would wait for itself.
     */
    if (side == &side->bridge->dut && !side->bridge->connected) {
        side->pos = side->len;
    }
    while (side->pos < side->len) {
        int n = qemu_chr_fe_write(&side->other->chr, side->pending + side->pos,
                                  side->len - side->pos);

        if (n <= 0) {
            if (!side->watch) {
                side->watch = qemu_chr_fe_add_watch(&side->other->chr,
                                                    G_IO_OUT | G_IO_HUP,
                                                    bridge_writable, side);
            }
            return false;
        }
        side->pos += n;
    }
    side->pos = side->len = 0;
    return true;
}

static gboolean bridge_writable(void *unused, GIOCondition condition,
                                void *opaque)
{
    BridgeSide *side = opaque;

    side->watch = 0;
    if (bridge_flush(side)) {
        qemu_chr_fe_accept_input(&side->chr);
    }
    return G_SOURCE_REMOVE;
}

static int bridge_can_read(void *opaque)
{
    BridgeSide *side = opaque;
    SpiceFlowBridge *bridge = side->bridge;

    if (side->len || (side == &bridge->dut && bridge->blocked)) {
        return 0;
    }
    return side == &bridge->dut ? MIN(bridge->can_read_size, BRIDGE_BUFFER)
                                : BRIDGE_BUFFER;
}

static void bridge_read(void *opaque, const uint8_t *buf, int size)
{
    BridgeSide *side = opaque;

    memcpy(side->pending, buf, size);
    side->pos = 0;
    side->len = size;
    bridge_flush(side);
}

static void bridge_forget(BridgeSide *side)
{
    g_clear_handle_id(&side->watch, g_source_remove);
    side->pos = side->len = 0;
}

static void bridge_dut_event(void *opaque, QEMUChrEvent event)
{
    SpiceFlowBridge *bridge = ((BridgeSide *)opaque)->bridge;

    switch (event) {
    case CHR_EVENT_OPENED:
        bridge->opened = true;
        bridge->opens++;
        break;
    case CHR_EVENT_CLOSED:
        bridge->opened = false;
        bridge->closes++;
        break;
    case CHR_EVENT_BREAK:
        bridge->breaks++;
        break;
    default:
        break;
    }
}

static void bridge_far_event(void *opaque, QEMUChrEvent event)
{
    SpiceFlowBridge *bridge = ((BridgeSide *)opaque)->bridge;

    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        bridge->connected = event == CHR_EVENT_OPENED;
        bridge_forget(&bridge->dut);
        bridge_forget(&bridge->far);
        qemu_chr_fe_set_open(&bridge->dut.chr, event == CHR_EVENT_OPENED);
    }
}

static void bridge_listen(SpiceFlowBridge *bridge)
{
    qemu_chr_fe_set_handlers(&bridge->dut.chr, bridge_can_read, bridge_read,
                             bridge_dut_event, NULL, &bridge->dut, NULL,
                             false);
}

static void bridge_realize(DeviceState *dev, Error **errp)
{
    SpiceFlowBridge *bridge = SPICEFLOW_BRIDGE(dev);

    if (!qemu_chr_fe_backend_connected(&bridge->dut.chr) ||
        !qemu_chr_fe_backend_connected(&bridge->far.chr)) {
        error_setg(errp, "spiceflow-bridge: chardev and far must be given");
        return;
    }
    bridge_listen(bridge);
    qemu_chr_fe_set_handlers(&bridge->far.chr, bridge_can_read, bridge_read,
                             bridge_far_event, NULL, &bridge->far, NULL, true);
}

static void bridge_unrealize(DeviceState *dev)
{
    SpiceFlowBridge *bridge = SPICEFLOW_BRIDGE(dev);

    bridge_forget(&bridge->dut);
    bridge_forget(&bridge->far);
    qemu_chr_fe_deinit(&bridge->dut.chr, false);
    qemu_chr_fe_deinit(&bridge->far.chr, false);
    g_clear_pointer(&bridge->unplugged, g_free);
}

static bool bridge_get_opened(Object *obj, Error **errp)
{
    return SPICEFLOW_BRIDGE(obj)->opened;
}

static bool bridge_get_blocked(Object *obj, Error **errp)
{
    return SPICEFLOW_BRIDGE(obj)->blocked;
}

static void bridge_set_blocked(Object *obj, bool value, Error **errp)
{
    SpiceFlowBridge *bridge = SPICEFLOW_BRIDGE(obj);

    bridge->blocked = value;
    if (!value && DEVICE(obj)->realized) {
        qemu_chr_fe_accept_input(&bridge->dut.chr);
    }
}

static bool bridge_get_plugged(Object *obj, Error **errp)
{
    return !SPICEFLOW_BRIDGE(obj)->unplugged;
}

static void bridge_plug(SpiceFlowBridge *bridge, Error **errp)
{
    Chardev *chr = qemu_chr_find(bridge->unplugged);

    if (!chr) {
        error_setg(errp, "spiceflow-bridge: there is no chardev '%s'",
                   bridge->unplugged);
        return;
    }
    if (!qemu_chr_fe_init(&bridge->dut.chr, chr, errp)) {
        return;
    }
    g_clear_pointer(&bridge->unplugged, g_free);
    bridge_listen(bridge);
}

static void bridge_set_plugged(Object *obj, bool value, Error **errp)
{
    SpiceFlowBridge *bridge = SPICEFLOW_BRIDGE(obj);

    if (!DEVICE(obj)->realized) {
        error_setg(errp, "spiceflow-bridge: plugged is for a running device");
    } else if (value && bridge->unplugged) {
        bridge_plug(bridge, errp);
    } else if (!value && !bridge->unplugged) {
        bridge->unplugged = g_strdup(
            qemu_chr_fe_get_driver(&bridge->dut.chr)->label);
        bridge_forget(&bridge->dut);
        bridge_forget(&bridge->far);
        qemu_chr_fe_deinit(&bridge->dut.chr, false);
        bridge->opened = false;
    }
}

static void bridge_instance_init(Object *obj)
{
    SpiceFlowBridge *bridge = SPICEFLOW_BRIDGE(obj);

    bridge->dut.bridge = bridge->far.bridge = bridge;
    bridge->dut.other = &bridge->far;
    bridge->far.other = &bridge->dut;
    object_property_add_uint32_ptr(obj, "opens", &bridge->opens,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint32_ptr(obj, "closes", &bridge->closes,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint32_ptr(obj, "breaks", &bridge->breaks,
                                   OBJ_PROP_FLAG_READ);
}

static const Property bridge_properties[] = {
    DEFINE_PROP_CHR("chardev", SpiceFlowBridge, dut.chr),
    DEFINE_PROP_CHR("far", SpiceFlowBridge, far.chr),
    DEFINE_PROP_UINT32("can-read-size", SpiceFlowBridge, can_read_size, 4096),
};

static void bridge_class_init(ObjectClass *klass, TestClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->desc = "two chardevs back to back, for tests";
    dc->realize = bridge_realize;
    dc->unrealize = bridge_unrealize;
    dc->user_creatable = true;
    device_class_set_props(dc, bridge_properties);
    object_class_property_add_bool(klass, "opened", bridge_get_opened, NULL);
    object_class_property_add_bool(klass, "blocked", bridge_get_blocked,
                                   bridge_set_blocked);
    object_class_property_add_bool(klass, "plugged", bridge_get_plugged,
                                   bridge_set_plugged);
}

static const TypeInfo bridge_info = {
    .name = TYPE_SPICEFLOW_BRIDGE,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(SpiceFlowBridge),
    .instance_init = bridge_instance_init,
    .class_init = bridge_class_init,
};
module_obj(TYPE_SPICEFLOW_BRIDGE);

static void bridge_register_types(void)
{
    type_register_static(&bridge_info);
}

type_init(bridge_register_types);
