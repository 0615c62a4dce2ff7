/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -chardev spiceflow: the Chardev class around a device.
 *
 * Options, QOM properties and frontend calls end here; device.c and the kinds
 * do the work.  A write while the VM is stopped is answered with 0: virtio
 * flushes its queues after our stop handler ran, and on the target of a
 * migration before our start handler does.  The watch that follows fires after
 * the start.
 */
#include "qemu/osdep.h"
#include "chardev/char.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/module.h"
#include "qemu/option.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "system/replay.h"
#include "compat.h"
#include "device.h"
#include "hw/vmstate-if.h"
#include "migrate.h"
#include "trace.h"

#define TYPE_CHARDEV_SPICEFLOW "chardev-spiceflow"
OBJECT_DECLARE_SIMPLE_TYPE(SpiceFlowChardev, CHARDEV_SPICEFLOW)

struct SpiceFlowChardev {
    Chardev parent;
    SFDevice device;
    ResettableState reset_state;
};

static int spiceflow_write(Chardev *chr, const uint8_t *buf, int len)
{
    SFDevice *device = &CHARDEV_SPICEFLOW(chr)->device;

    return device->kind->write(device, buf, len);
}

static GSource *spiceflow_add_watch(Chardev *chr, GIOCondition condition)
{
    SFDevice *device = &CHARDEV_SPICEFLOW(chr)->device;

    bool waits = !spice_flow_running(device->flow) ||
                 spice_flow_guest_waits(device->flow) ||
                 (device->kind->held_back &&
                  device->kind->held_back(device));

    return sf_frontend_watch(&device->frontend, !waits);
}

static void spiceflow_accept_input(Chardev *chr)
{
    spice_flow_guest_ready(CHARDEV_SPICEFLOW(chr)->device.flow);
}

/* The frontend is another one, or behaves as one. */
static void spiceflow_update_read_handler(Chardev *chr)
{
    CHARDEV_SPICEFLOW(chr)->device.frontend.patient = false;
}

static void spiceflow_set_fe_open(Chardev *chr, int fe_open)
{
    SFDevice *device = &CHARDEV_SPICEFLOW(chr)->device;

    trace_spiceflow_fe_open(device->label, fe_open);
    /* After a load virtio-serial says what was saved, and known here. */
    if (device->fe_open != fe_open) {
        device->fe_open = fe_open;
        device->kind->set_fe_open(device, fe_open);
    }
    /* A port that opens takes what came before, and tells nobody. */
    spice_flow_guest_ready(device->flow);
}

/*
 * Options
 */

static void spiceflow_parse(QemuOpts *opts, ChardevBackend *backend,
                            Error **errp)
{
    const char *name = qemu_opt_get(opts, "name");
    const char *server_id = qemu_opt_get(opts, "server-id");
    ChardevSpiceflow *spiceflow;

    if (!name) {
        error_setg(errp, "chardev: spiceflow: no name given; it is vdagent, "
                   "usbredir, smartcard or the name of a port");
        return;
    }
    backend->type = CHARDEV_BACKEND_KIND_SPICEFLOW;
    spiceflow = backend->u.spiceflow.data = g_new0(ChardevSpiceflow, 1);
    qemu_chr_parse_common(opts, qapi_ChardevSpiceflow_base(spiceflow));
    spiceflow->name = g_strdup(name);
    spiceflow->server_id = g_strdup(server_id);
    spiceflow->has_queue_size = qemu_opt_get(opts, "queue-size") != NULL;
    spiceflow->queue_size = qemu_opt_get_size(opts, "queue-size", 0);
}

static bool check_options(const ChardevSpiceflow *opts, const char *label,
                          Error **errp)
{
    if (replay_mode != REPLAY_MODE_NONE) {
        error_setg(errp, "chardev '%s': spiceflow does not support "
                   "record/replay", label);
        return false;
    }
    if (!*opts->name) {
        error_setg(errp, "chardev '%s': name must not be empty", label);
        return false;
    }
    if (opts->has_queue_size && (opts->queue_size < SF_QUEUE_MIN ||
                                 opts->queue_size > INT32_MAX)) {
        error_setg(errp, "chardev '%s': queue-size must be from %d to %d, not "
                   "%" PRIu64, label, SF_QUEUE_MIN, INT32_MAX,
                   opts->queue_size);
        return false;
    }
    return true;
}

/*
 * The other chardev of that id, while one takes the other's place
 * (chardev-change).
 */
static SFDevice *namesake(SFDevice *device)
{
    Object *obj = OBJECT(qemu_chr_find(device->label));

    if (!obj || obj == OBJECT(device->frontend.chr) ||
        !object_dynamic_cast(obj, TYPE_CHARDEV_SPICEFLOW)) {
        return NULL;
    }
    return &CHARDEV_SPICEFLOW(obj)->device;
}

static bool carry(SFDevice *device, Error **errp)
{
    SFDevice *other = namesake(device);

    if (other) {
        sf_migrate_unregister(other);
    }
    return sf_migrate_register(device, errp);
}

/* When it was the new one that failed, the old one stays. */
static void uncarry(SFDevice *device)
{
    SFDevice *other = device->carried ? namesake(device) : NULL;

    sf_migrate_unregister(device);
    if (other) {
        sf_migrate_register(other, &error_abort);
    }
}

static void spiceflow_open(Chardev *chr, ChardevBackend *backend,
                           bool *be_opened, Error **errp)
{
    ChardevSpiceflow *opts = backend->u.spiceflow.data;
    SFDevice *device = &CHARDEV_SPICEFLOW(chr)->device;

    *be_opened = false;
    if (!check_options(opts, chr->label, errp)) {
        return;
    }
    device->label = chr->label;
    device->name = g_strdup(opts->name);
    device->queue_size = opts->has_queue_size ? opts->queue_size
                                              : SF_QUEUE_DEFAULT;
    device->server = sf_server_find(opts->server_id, errp);
    if (!device->server) {
        error_prepend(errp, "chardev '%s': ", chr->label);
        return;
    }
    chr->filename = g_strdup_printf("spiceflow:%s", device->name);
    if (sf_device_init(device, errp)) {
        carry(device, errp);
    }
}

static void spiceflow_instance_init(Object *obj)
{
    SpiceFlowChardev *s = CHARDEV_SPICEFLOW(obj);

    sf_frontend_init(&s->device.frontend, CHARDEV(obj));
}

static void spiceflow_finalize(Object *obj)
{
    SFDevice *device = &CHARDEV_SPICEFLOW(obj)->device;

    uncarry(device);
    sf_device_cleanup(device);
    sf_frontend_cleanup(&device->frontend);
    if (device->server) {
        object_unref(OBJECT(device->server));
    }
}

/*
 * Properties
 */

static void flow_client(SpiceFlowClient *client, void *opaque)
{
    SpiceFlowClientInfo info;
    QDict *dict = qdict_new();

    spice_flow_client_info(client, &info);
    qdict_put_int(dict, "connection-id", info.id);
    qdict_put_bool(dict, "flow-control", info.flow_control);
    qdict_put_bool(dict, "away", info.away);
    qdict_put_bool(dict, "stalls", info.waits);
    if (info.flow_control) {
        qdict_put_int(dict, "window", info.window);
        qdict_put_int(dict, "client-tokens", info.client_tokens);
        qdict_put_int(dict, "due-tokens", info.due_tokens);
        qdict_put_int(dict, "send-tokens", info.send_tokens);
    }
    qdict_put_int(dict, "to-guest-messages", info.to_guest_messages);
    qdict_put_int(dict, "to-guest-bytes", info.to_guest_bytes);
    qdict_put_int(dict, "to-client-messages", info.to_client_messages);
    qdict_put_int(dict, "to-client-in-flight", info.to_client_in_flight);
    qdict_put_int(dict, "to-client-bytes", info.to_client_bytes);
    qlist_append(opaque, dict);
}

static QDict *flow_dict(SFDevice *device)
{
    SpiceFlowInfo info;
    QDict *dict = qdict_new();
    QList *clients = qlist_new();

    spice_flow_info(device->flow, &info);
    spice_flow_client_foreach(device->flow, flow_client, clients);
    qdict_put_str(dict, "name", device->name);
    qdict_put_int(dict, "channel-type", device->endpoint.type);
    qdict_put_int(dict, "channel-id", device->endpoint.id);
    qdict_put_bool(dict, "frontend",
                   SF_CHARDEV_FRONTEND(device->frontend.chr) != NULL);
    qdict_put_bool(dict, "running", info.running);
    qdict_put_bool(dict, "guest-open", device->fe_open);
    qdict_put_bool(dict, "guest-waits", info.guest_waits);
    qdict_put(dict, "clients", clients);
    qdict_put_int(dict, "queue-size", device->queue_size);
    qdict_put_int(dict, "saved-max", sf_device_saved_max(device));
    qdict_put_int(dict, "to-guest-messages", info.to_guest_messages);
    qdict_put_int(dict, "to-guest-bytes", info.to_guest_bytes);
    qdict_put_int(dict, "to-guest-peak", info.to_guest_peak);
    qdict_put_int(dict, "pool-bytes", info.pool_bytes);
    qdict_put_int(dict, "total-to-guest-messages", info.guest_messages);
    qdict_put_int(dict, "total-to-guest-bytes", info.guest_bytes);
    qdict_put_int(dict, "total-from-guest-messages", info.client_messages);
    qdict_put_int(dict, "total-from-guest-bytes", info.client_bytes);
    qdict_put_int(dict, "discarded-messages", info.discarded_messages);
    qdict_put_int(dict, "discarded-bytes", info.discarded_bytes);
    qdict_put_int(dict, "dropped-messages", info.dropped_messages);
    qdict_put_int(dict, "dropped-bytes", info.dropped_bytes);
    qdict_put_int(dict, "stalls", info.stalls);
    qdict_put_int(dict, "token-violations", info.violations);
    if (device->kind->describe) {
        device->kind->describe(device, dict);
    }
    return dict;
}

static void flow_get(Object *obj, Visitor *v, const char *name, void *opaque,
                     Error **errp)
{
    SFDevice *device = &CHARDEV_SPICEFLOW(obj)->device;
    g_autoptr(QDict) dict = device->flow ? flow_dict(device) : qdict_new();
    QObject *any = QOBJECT(dict);

    visit_type_any(v, name, &any, errp);
}

/*
 * Vmstate and reset
 */

static ResettableState *spiceflow_reset_state(Object *obj)
{
    return &CHARDEV_SPICEFLOW(obj)->reset_state;
}

static void spiceflow_reset(Object *obj, ResetType type)
{
    sf_migrate_reset(&CHARDEV_SPICEFLOW(obj)->device, type);
}

static char *spiceflow_get_id(VMStateIf *obj)
{
    return g_strdup(CHARDEV(obj)->label);
}

static void spiceflow_class_init(ObjectClass *klass, SFClassData *data)
{
    ChardevClass *cc = CHARDEV_CLASS(klass);

    cc->parse = spiceflow_parse;
    cc->open = spiceflow_open;
    cc->chr_write = spiceflow_write;
    cc->chr_add_watch = spiceflow_add_watch;
    cc->chr_accept_input = spiceflow_accept_input;
    cc->chr_update_read_handler = spiceflow_update_read_handler;
    cc->chr_set_fe_open = spiceflow_set_fe_open;

    VMSTATE_IF_CLASS(klass)->get_id = spiceflow_get_id;
    RESETTABLE_CLASS(klass)->get_state = spiceflow_reset_state;
    RESETTABLE_CLASS(klass)->phases.hold = spiceflow_reset;

    object_class_property_add(klass, "flow", "any", flow_get, NULL, NULL,
                              NULL);
    object_class_property_set_description(klass, "flow",
                                          "queues, tokens and counters");
}

static const TypeInfo spiceflow_info = {
    .name = TYPE_CHARDEV_SPICEFLOW,
    .parent = TYPE_CHARDEV,
    .instance_size = sizeof(SpiceFlowChardev),
    .instance_init = spiceflow_instance_init,
    .instance_finalize = spiceflow_finalize,
    .class_init = spiceflow_class_init,
    .interfaces = SF_INTERFACES {
        { TYPE_VMSTATE_IF },
        { TYPE_RESETTABLE_INTERFACE },
        { }
    },
};
module_obj(TYPE_CHARDEV_SPICEFLOW);

static void register_types(void)
{
    type_register_static(&spiceflow_info);
}

type_init(register_types);
