/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spiceflow-usb-pump: usb-redir's end of a usbredir stream, with no guest
 *
 * Theory of operation
 *
 * How long a bulk transfer takes through a chardev is hidden in the time that
 * an emulated guest needs to ask for one.  This frontend behaves to the chardev
 * as usb-redir does: it greets when it is opened, takes up to 1 MiB at a time,
 * writes a request as one buffer and counts a transfer as done when the last
 * byte of the answer is here.  The next request goes out from within the read
 * callback.  The device at the other end is tests/bench/usb.c.
 *
 *   -device spiceflow-usb-pump,id=pump0,chardev=c0,size=512,count=1000
 *
 * asks for bulk IN transfers of `size` bytes when `running` is set; `results`
 * then tells their times.  Packets that are not answers pass unseen.
 */

#include "qemu/osdep.h"
#include "chardev/char-fe.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qom/object.h"

#include "samples.h"
#include "test-compat.h"

#define TYPE_SPICEFLOW_USB_PUMP "spiceflow-usb-pump"
OBJECT_DECLARE_SIMPLE_TYPE(SpiceFlowUsbPump, SPICEFLOW_USB_PUMP)

#define USB_PUMP_CAN_READ   MiB
#define USB_PUMP_SIZE_MAX   (16 * MiB)
#define USB_PUMP_COUNT_MAX  (10u * 1000 * 1000)

#define EP_BULK_IN          0x81

/* usbredir: type, length, id, the latter of 64 bits after the hellos */
enum {
    HEAD_32 = 12,
    HEAD_64 = 16,
    HELLO = 0,
    HELLO_SIZE = 68,
    DEVICE_CONNECT = 1,
    BULK = 101,
    BULK_SIZE = 10,
    /* packet sizes of endpoints, 64-bit ids, 32-bit lengths; connect version */
    CAPS = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6,
};

struct SpiceFlowUsbPump {
    DeviceState parent_obj;

    TestFrontend chr;
    uint32_t size;
    uint32_t count;

    bool opened;
    bool plugged;               /* the device is there */
    bool greeted;               /* the other side's hello has passed */
    bool running;
    guint watch;
    QEMUBH *bh;

    uint8_t out[HEAD_32 + HELLO_SIZE];      /* a hello or a request */
    uint32_t out_len;
    uint32_t out_left;
    uint8_t head[HEAD_64];
    uint32_t head_len;
    uint32_t payload_left;

    uint32_t done;
    int64_t begin_ns;
    uint32_t *samples;          /* `done` of them, ns */
    char *error;
};

static void G_GNUC_PRINTF(2, 3) usb_pump_fail(SpiceFlowUsbPump *p,
                                              const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_free(p->error);
    p->error = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    p->running = false;
}

/* Requests */

static gboolean usb_pump_watch(void *do_not_use, GIOCondition cond,
                               void *opaque);

static void usb_pump_flush(SpiceFlowUsbPump *p)
{
    while (p->out_left && !p->watch && p->opened) {
        const uint8_t *from = p->out + p->out_len - p->out_left;
        int n = qemu_chr_fe_write(&p->chr, from, p->out_left);

        p->out_left -= MAX(n, 0);
        if (p->out_left) {
            p->watch = qemu_chr_fe_add_watch(&p->chr, G_IO_OUT | G_IO_HUP,
                                             usb_pump_watch, p);
            if (!p->watch) {
                usb_pump_fail(p, "the chardev gives no watch");
                return;
            }
        }
    }
}

static gboolean usb_pump_watch(void *do_not_use, GIOCondition cond,
                               void *opaque)
{
    SpiceFlowUsbPump *p = opaque;

    p->watch = 0;
    usb_pump_flush(p);
    return G_SOURCE_REMOVE;
}

static void usb_pump_ask(SpiceFlowUsbPump *p)
{
    uint8_t *header = p->out + HEAD_64;

    memset(p->out, 0, HEAD_64 + BULK_SIZE);
    stl_le_p(p->out, BULK);
    stl_le_p(p->out + 4, BULK_SIZE);
    stq_le_p(p->out + 8, p->done);
    header[0] = EP_BULK_IN;
    stw_le_p(header + 2, p->size);
    stw_le_p(header + 8, p->size >> 16);
    p->out_len = p->out_left = HEAD_64 + BULK_SIZE;
    p->begin_ns = get_clock();
    usb_pump_flush(p);
}

static void usb_pump_answered(SpiceFlowUsbPump *p)
{
    int64_t ns = get_clock() - p->begin_ns;

    p->samples[p->done++] = MIN(ns, UINT32_MAX);
    if (p->done == p->count) {
        p->running = false;
    } else {
        usb_pump_ask(p);
    }
}

/* Answers */

/* What has come is a whole packet. */
static void usb_pump_packet(SpiceFlowUsbPump *p)
{
    uint32_t type = ldl_le_p(p->head);

    p->head_len = 0;
    if (type == HELLO) {
        p->greeted = true;
    } else if (type == DEVICE_CONNECT) {
        p->plugged = true;
        qemu_bh_schedule(p->bh);
    } else if (type == BULK && p->running) {
        if (p->out_left || ldq_le_p(p->head + 8) != p->done) {
            usb_pump_fail(p, "an answer to something else");
            return;
        }
        usb_pump_answered(p);
    }
}

static void usb_pump_read(void *opaque, const uint8_t *buf, int size)
{
    SpiceFlowUsbPump *p = opaque;
    const uint8_t *end = buf + size;

    while (buf < end) {
        uint32_t head = p->greeted ? HEAD_64 : HEAD_32;
        uint32_t n;

        if (p->head_len < head) {
            n = MIN(head - p->head_len, end - buf);
            memcpy(p->head + p->head_len, buf, n);
            p->head_len += n;
            buf += n;
            if (p->head_len < head) {
                return;
            }
            p->payload_left = ldl_le_p(p->head + 4);
        }
        n = MIN(p->payload_left, end - buf);
        p->payload_left -= n;
        buf += n;
        if (!p->payload_left) {
            usb_pump_packet(p);
        }
    }
}

static int usb_pump_can_read(void *opaque)
{
    return USB_PUMP_CAN_READ;
}

static void usb_pump_event(void *opaque, QEMUChrEvent event)
{
    SpiceFlowUsbPump *p = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        p->opened = true;
        p->head_len = p->payload_left = 0;
        memset(p->out, 0, sizeof(p->out));
        stl_le_p(p->out + 4, HELLO_SIZE);
        pstrcpy((char *)p->out + HEAD_32, 64, "spiceflow-usb-pump");
        stl_le_p(p->out + HEAD_32 + 64, CAPS);
        p->out_len = p->out_left = sizeof(p->out);
        /* It may have to wait until there is a client. */
        usb_pump_flush(p);
        break;
    case CHR_EVENT_CLOSED:
        p->opened = p->greeted = p->plugged = false;
        g_clear_handle_id(&p->watch, g_source_remove);
        break;
    default:
        break;
    }
}

/* Start, results */

static void usb_pump_bh(void *opaque)
{
    SpiceFlowUsbPump *p = opaque;

    if (p->running && p->plugged && !p->done && !p->out_left) {
        usb_pump_ask(p);
    }
}

static bool usb_pump_get_running(Object *obj, Error **errp)
{
    return SPICEFLOW_USB_PUMP(obj)->running;
}

static void usb_pump_set_running(Object *obj, bool value, Error **errp)
{
    SpiceFlowUsbPump *p = SPICEFLOW_USB_PUMP(obj);

    if (!DEVICE(obj)->realized || p->running || !value) {
        error_setg(errp, "spiceflow-usb-pump: 'running' can be set to true, "
                   "when it is not");
        return;
    }
    g_clear_pointer(&p->error, g_free);
    p->done = 0;
    p->running = true;
    qemu_bh_schedule(p->bh);
}

static void usb_pump_get_results(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    SpiceFlowUsbPump *p = SPICEFLOW_USB_PUMP(obj);
    bool done = !p->running && p->done == p->count;
    char *error = p->error ? p->error : (char *)"";
    uint64_t p50 = 0, p99 = 0, transfers = p->done;

    if (done) {
        pump_samples_sort(p->samples, p->done);
        p50 = p->samples[(uint64_t)p->done * 50 / 100];
        p99 = p->samples[(uint64_t)p->done * 99 / 100];
    }
    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (visit_type_bool(v, "running", &p->running, errp) &&
        visit_type_bool(v, "opened", &p->plugged, errp) &&
        visit_type_bool(v, "done", &done, errp) &&
        visit_type_str(v, "error", &error, errp) &&
        visit_type_uint64(v, "transfers", &transfers, errp) &&
        visit_type_uint64(v, "p50-ns", &p50, errp) &&
        visit_type_uint64(v, "p99-ns", &p99, errp)) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}

/* The device */

static void usb_pump_realize(DeviceState *dev, Error **errp)
{
    SpiceFlowUsbPump *p = SPICEFLOW_USB_PUMP(dev);

    if (!qemu_chr_fe_backend_connected(&p->chr)) {
        error_setg(errp, "spiceflow-usb-pump: property 'chardev' is missing");
        return;
    }
    if (p->size > USB_PUMP_SIZE_MAX || !p->count ||
        p->count > USB_PUMP_COUNT_MAX) {
        error_setg(errp, "spiceflow-usb-pump: 'size' or 'count' is too large, "
                   "or 'count' is 0");
        return;
    }
    p->samples = g_new(uint32_t, p->count);
    p->bh = qemu_bh_new_guarded(usb_pump_bh, p, &dev->mem_reentrancy_guard);
    qemu_chr_fe_set_handlers(&p->chr, usb_pump_can_read, usb_pump_read,
                             usb_pump_event, NULL, p, NULL, true);
}

static void usb_pump_unrealize(DeviceState *dev)
{
    SpiceFlowUsbPump *p = SPICEFLOW_USB_PUMP(dev);

    g_clear_handle_id(&p->watch, g_source_remove);
    qemu_chr_fe_deinit(&p->chr, false);
    g_clear_pointer(&p->bh, qemu_bh_delete);
    g_clear_pointer(&p->samples, g_free);
    g_clear_pointer(&p->error, g_free);
}

static const Property usb_pump_properties[] = {
    DEFINE_PROP_CHR("chardev", SpiceFlowUsbPump, chr),
    DEFINE_PROP_UINT32("size", SpiceFlowUsbPump, size, 512),
    DEFINE_PROP_UINT32("count", SpiceFlowUsbPump, count, 1000),
};

static void usb_pump_class_init(ObjectClass *klass, TestClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->desc = "asks a USB device for bulk transfers, for measuring";
    dc->realize = usb_pump_realize;
    dc->unrealize = usb_pump_unrealize;
    dc->hotpluggable = false;
    device_class_set_props(dc, usb_pump_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    object_class_property_add_bool(klass, "running", usb_pump_get_running,
                                   usb_pump_set_running);
    object_class_property_add(klass, "results", "SpiceFlowUsbPumpResults",
                              usb_pump_get_results, NULL, NULL, NULL);
}

static const TypeInfo usb_pump_types[] = {
    {
        .name = TYPE_SPICEFLOW_USB_PUMP,
        .parent = TYPE_DEVICE,
        .instance_size = sizeof(SpiceFlowUsbPump),
        .class_init = usb_pump_class_init,
    },
};

module_obj(TYPE_SPICEFLOW_USB_PUMP);

DEFINE_TYPES(usb_pump_types)
