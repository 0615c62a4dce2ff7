/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of a device, carried with the VM.
 *
 * Saving.  The section has the label in its name, so that hotplugged chardevs
 * may come in any order on the other side, and is left out when there is
 * nothing to carry, so that a plain setup can move to a QEMU that does not
 * know it.  What is saved is a copy: the source may go on afterwards, because
 * the migration failed or because it was a snapshot.
 *
 * Loading.  The state may be loaded any number of times, into a QEMU that has
 * just begun or into one that has clients.  In the latter case the guest that
 * they talked to is gone, so first the device is rewound: clients that can be
 * told so are told, the others lose their channel.  With a snapshot that is
 * known beforehand, from the reset that precedes every load, and has to be
 * done also when no section follows.  Then the state is taken over, with the
 * clients of then, and those are let go as any client that leaves: what the
 * guest has begun to receive is completed, and it is told.
 *
 * Host and guest side.  What the guest had open stays open without a word: the
 * frontend sees its other end opened again in the load, before its own state
 * is loaded or before the VM starts, whichever comes first; and what it says
 * of its guest's side later on is no news.
 */
#include "qemu/osdep.h"
#include "chardev/char-fe.h"
#include "hw/vmstate-if.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "system/reset.h"
#include "compat.h"
#include "handover.h"
#include "migrate.h"
#include "trace.h"

bool sf_migrate_flow_restore(SFDevice *device, const SFSaved *saved,
                             Error **errp)
{
    g_autofree char *wrong = NULL;

    if (!spice_flow_restore(device->flow, &saved->flow, sf_device_now(),
                            &wrong)) {
        error_setg(errp, "bad flow state: %s", wrong);
        return false;
    }
    return true;
}

bool sf_migrate_flow_lose(SFDevice *device)
{
    bool torn = false;

    for (uint32_t i = 0; i < device->saved->flow.num_clients; i++) {
        uint32_t id = device->saved->flow.clients[i].params.id;

        if (!sf_handover_awaited(device, id)) {
            torn |= spice_flow_client_remove(
                spice_flow_client_find(device->flow, id));
        }
    }
    return torn;
}

void sf_migrate_flow_lose_away(SFDevice *device)
{
    for (uint32_t i = 0; i < device->moving.num; i++) {
        SpiceFlowClient *client =
            spice_flow_client_find(device->flow, device->moving.clients[i].id);
        SpiceFlowClientInfo info;

        if (client) {
            spice_flow_client_info(client, &info);
            if (info.away) {
                spice_flow_client_remove(client);
            }
        }
    }
}

bool sf_migrate_flow_resume(SpiceFlowClient *client, void *opaque)
{
    SpiceFlowClientInfo info;

    /* The source has sent what was on its way: see channel-move.c. */
    spice_flow_client_info(client, &info);
    return spice_flow_client_resume(client, opaque, info.to_client_in_flight);
}

/*
 * The guest is replaced
 */

static void device_set_guest_open(SFDevice *device, bool open)
{
    if (device->fe_open != open) {
        device->fe_open = open;
        device->kind->set_fe_open(device, open);
    }
}

static void device_rewind(SFDevice *device)
{
    if (device->rewound) {
        return;
    }
    trace_spiceflow_migrate_rewind(device->label);
    device->rewound = true;
    device_set_guest_open(device, false);
    if (device->kind->rewind) {
        device->kind->rewind(device);
    }
}

void sf_migrate_reset(SFDevice *device, ResetType type)
{
    /* Every load of a snapshot begins with one of these. */
    if (type == RESET_TYPE_SNAPSHOT_LOAD) {
        device_rewind(device);
    }
}

void sf_migrate_started(SFDevice *device)
{
    Chardev *chr = device->frontend.chr;

    if (!device->rewound) {
        return;
    }
    device->rewound = false;
    /* A frontend that is always open has no reason to say so again. */
    if (SF_CHARDEV_FRONTEND(chr) && SF_CHARDEV_FRONTEND(chr)->fe_is_open) {
        device_set_guest_open(device, true);
    }
}

static void saved_free(SFDevice *device)
{
    if (device->saved) {
        sf_saved_clear(device->saved);
        g_clear_pointer(&device->saved, g_free);
    }
}

/* What a load that failed has left goes first. */
static SFSaved *saved_new(SFDevice *device)
{
    saved_free(device);
    sf_moving_clear(&device->moving);
    device->saved = g_new0(SFSaved, 1);
    return device->saved;
}

/*
 * Save
 */

static bool device_needed(void *opaque)
{
    SFDevice *device = opaque;
    SpiceFlowInfo info;

    spice_flow_info(device->flow, &info);
    return info.clients || info.to_guest_messages ||
           sf_handover_saves(device->server) ||
           (device->kind->carries && device->kind->carries(device));
}

static int device_pre_save(void *opaque)
{
    SFDevice *device = opaque;
    int64_t begin = g_get_monotonic_time();
    SFSaved *saved = saved_new(device);

    device->moving.place = sf_device_place(device);
    sf_handover_save(device->server, &device->moving);
    saved->data_max = INT32_MAX;
    saved->type = device->endpoint.type;
    saved->guest_open = device->fe_open;
    saved->host_open = device->frontend.want_open;
    spice_flow_save(device->flow, &saved->flow, sf_device_now());
    device->kind->save(device, saved);
    trace_spiceflow_migrate_save(device->label, saved->flow.num_clients,
                                 saved->flow.num_buffers,
                                 saved->flow.data_size,
                                 g_get_monotonic_time() - begin);
    if (saved->flow.data_size > saved->data_max) {
        error_report("chardev '%s': more than %" PRIu32 " bytes are queued",
                     device->label, saved->data_max);
        saved_free(device);
        return -E2BIG;
    }
    return 0;
}

static int device_post_save(void *opaque)
{
    SFDevice *device = opaque;

    saved_free(device);
    sf_moving_clear(&device->moving);
    return 0;
}

/*
 * Load
 */

static int device_pre_load(void *opaque)
{
    SFDevice *device = opaque;
    size_t max = sf_device_queued_max(device);

    saved_new(device)->data_max = CLAMP(max, SF_SAVED_DATA_MIN, INT32_MAX);
    return 0;
}

static bool device_restore(SFDevice *device, Error **errp)
{
    SFSaved *saved = device->saved;

    if (saved->type != device->endpoint.type) {
        error_setg(errp, "type: it is of a channel of type %u, here it is %u",
                   saved->type, device->endpoint.type);
        return false;
    }
    if (spice_flow_running(device->flow)) {
        error_setg(errp, "the VM is running");
        return false;
    }
    device_rewind(device);
    sf_handover_list(device->server, &device->moving);
    return device->kind->restore(device, saved, errp);
}

static int device_post_load(void *opaque, int version_id)
{
    SFDevice *device = opaque;
    SFSaved *saved = device->saved;
    int64_t begin = g_get_monotonic_time();
    Error *err = NULL;

    if (!device_restore(device, &err)) {
        error_prepend(&err, "chardev '%s': its state can not be loaded: ",
                      device->label);
        error_report_err(err);
        saved_free(device);
        return -EINVAL;
    }
    trace_spiceflow_migrate_load(device->label, saved->flow.num_clients,
                                 saved->flow.num_buffers,
                                 saved->flow.data_size,
                                 g_get_monotonic_time() - begin);
    saved_free(device);
    return 0;
}

static bool device_moves(void *opaque)
{
    SFDevice *device = opaque;

    return device->moving.num;
}

/* In a migration that clients follow. */
static const VMStateDescription vmstate_device_moving = {
    .name = "spiceflow/moving",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = device_moves,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT(moving, SFDevice, 1, sf_vmstate_moving, SFMoving),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_device = {
    .name = "spiceflow",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = device_needed,
    .pre_save = device_pre_save,
    .post_save = device_post_save,
    .pre_load = device_pre_load,
    .post_load = device_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT_POINTER(saved, SFDevice, sf_vmstate_saved, SFSaved),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_device_moving,
        NULL
    }
};

bool sf_migrate_register(SFDevice *device, Error **errp)
{
    if (vmstate_register_with_alias_id(VMSTATE_IF(device->frontend.chr),
                                       VMSTATE_INSTANCE_ID_ANY,
                                       &vmstate_device, device, -1, 0,
                                       errp) < 0) {
        return false;
    }
    qemu_register_resettable(OBJECT(device->frontend.chr));
    device->carried = true;
    return true;
}

void sf_migrate_unregister(SFDevice *device)
{
    if (device->carried) {
        device->carried = false;
        qemu_unregister_resettable(OBJECT(device->frontend.chr));
        vmstate_unregister(VMSTATE_IF(device->frontend.chr), &vmstate_device,
                           device);
    }
    sf_moving_clear(&device->moving);
    saved_free(device);
}
