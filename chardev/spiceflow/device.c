/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all devices share.
 *
 * Run state.  The handler has a high priority number: it is the last to run
 * when the VM starts, when the frontends have their handlers back, and the
 * first when it stops, while they still have them.
 *
 * Stall clock.  The flow machine says when it has something to time; the timer
 * runs only then, on the real-time clock.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/timer.h"
#include "device.h"
#include "migrate.h"
#include "system/runstate.h"
#include "trace.h"

/* Above that of every frontend: usb-redir has 0, virtio its depth. */
#define RUN_STATE_PRIORITY  1000
/*
 * ms of the guest's time.  Host controllers look at what the guest asks for
 * every millisecond, or at once.
 */
#define SETTLE_TIME         20

/*
 * Flow machine
 */

static ssize_t device_write_guest(void *opaque, const uint8_t *data,
                                  size_t len)
{
    SFDevice *device = opaque;

    return device->settling ? 0 : sf_frontend_write(&device->frontend, data,
                                                    len);
}

static void device_settled(void *opaque)
{
    SFDevice *device = opaque;

    device->settling = false;
    spice_flow_guest_ready(device->flow);
}

void sf_device_settle(SFDevice *device)
{
    device->settling = true;
    timer_mod(device->settle_timer,
              qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + SETTLE_TIME);
}

static void device_wake_guest(void *opaque)
{
    SFDevice *device = opaque;

    sf_frontend_wake(&device->frontend);
}

static void device_tick_again(SFDevice *device, int64_t next)
{
    if (next >= 0) {
        timer_mod(device->stall_timer, next);
    }
}

static void device_tick(void *opaque)
{
    SFDevice *device = opaque;

    device_tick_again(device, spice_flow_tick(device->flow, sf_device_now()));
}

void sf_device_stall_timeout_changed(SFDevice *device)
{
    device_tick_again(device, spice_flow_set_stall_timeout(
        device->flow, device->server->stall_timeout, sf_device_now()));
}

static void device_clock(void *opaque, bool runs)
{
    SFDevice *device = opaque;

    if (runs) {
        timer_mod(device->stall_timer, sf_device_now());
    } else {
        timer_del(device->stall_timer);
    }
}

static void device_event(void *opaque, SpiceFlowEvent event, uint32_t client,
                         uint64_t value)
{
    SFDevice *device = opaque;

    trace_spiceflow_flow(device->label, spice_flow_event_name(event), client,
                         value);
}

void sf_device_flow_new(SFDevice *device, SpiceFlowOps *ops,
                        const SpiceFlowParams *params)
{
    ops->write = device_write_guest;
    ops->wake = device_wake_guest;
    ops->clock = device_clock;
    ops->event = device_event;
    device->flow = spice_flow_new(ops, device, params);
}

SpiceFlowClientParams sf_device_client_params(const SFDevice *device,
                                              uint32_t id)
{
    uint32_t messages = SF_QUEUE_MESSAGES(device->queue_size);
    SpiceFlowClientParams params = {
        .id = id,
        .to_guest_bytes = device->queue_size,
        .to_guest_messages = messages,
        .to_client_bytes = device->queue_size,
        .to_client_messages = messages,
    };

    if (device->kind->client_params) {
        device->kind->client_params(device, &params);
    }
    return params;
}

/* Lowering max-clients removes nobody. */
static uint32_t device_clients_max(const SFDevice *device)
{
    const SFServer *server = device->server;

    return device->kind->shared ? MAX(server->max_clients, server->num_clients)
                                : 1;
}

size_t sf_device_queued_max(const SFDevice *device)
{
    SpiceFlowClientParams params = sf_device_client_params(device, 1);

    return spice_flow_saved_max(device->flow, &params,
                                device_clients_max(device));
}

size_t sf_device_saved_max(const SFDevice *device)
{
    uint32_t clients = device_clients_max(device);
    size_t max = sf_device_queued_max(device) + sizeof(SFSaved) +
                 clients * sizeof(SFMovingClient);

    if (device->kind->saved_max) {
        max += device->kind->saved_max(device, clients);
    }
    return max;
}

uint32_t sf_device_place(const SFDevice *device)
{
    return device->kind->place ? device->kind->place(device)
                               : device->endpoint.id;
}

/*
 * Run state
 */

static void device_run_state(void *opaque, bool running, RunState state)
{
    SFDevice *device = opaque;

    if (running) {
        sf_migrate_started(device);
        sf_frontend_set_running(&device->frontend, true);
        spice_flow_start(device->flow, sf_device_now());
    } else {
        spice_flow_stop(device->flow, sf_device_now());
        sf_frontend_set_running(&device->frontend, false);
    }
}

/*
 * Life
 */

const SFKind *sf_device_kind(const char *name, uint8_t *type)
{
    if (strcmp(name, "vdagent") == 0) {
        *type = SPICE_CHANNEL_MAIN;
        return &sf_agent_kind;
    }
    if (strcmp(name, "smartcard") == 0) {
        *type = SPICE_CHANNEL_SMARTCARD;
        return &sf_card_kind;
    }
    if (strcmp(name, "usbredir") == 0) {
        *type = SPICE_CHANNEL_USBREDIR;
    } else if (strcmp(name, "org.spice-space.webdav.0") == 0) {
        *type = SPICE_CHANNEL_WEBDAV;
    } else {
        *type = SPICE_CHANNEL_PORT;
    }
    return &sf_vmc_kind;
}

bool sf_device_init(SFDevice *device, Error **errp)
{
    device->kind = sf_device_kind(device->name, &device->endpoint.type);
    device->endpoint.ops = device->kind->endpoint_ops;
    QTAILQ_INSERT_TAIL(&device->server->devices, device, next);
    device->stall_timer = timer_new_ms(QEMU_CLOCK_REALTIME, device_tick,
                                       device);
    device->settle_timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, device_settled,
                                        device);
    if (!device->kind->init(device, errp)) {
        return false;
    }
    if (device->endpoint.ops) {
        if (!sf_server_add_endpoint(device->server, &device->endpoint, errp)) {
            error_prepend(errp, "chardev '%s': ", device->label);
            return false;
        }
        device->registered = true;
    }
    device->run_state =
        qemu_add_vm_change_state_handler_prio(device_run_state, device,
                                              RUN_STATE_PRIORITY);
    if (runstate_is_running()) {
        device_run_state(device, true, RUN_STATE_RUNNING);
    }
    trace_spiceflow_device_init(device->label, device->endpoint.type,
                                device->endpoint.id);
    return true;
}

void sf_device_cleanup(SFDevice *device)
{
    if (device->run_state) {
        qemu_del_vm_change_state_handler(device->run_state);
    }
    if (device->registered) {
        sf_server_remove_endpoint(device->server, &device->endpoint);
    }
    if (device->kind) {
        device->kind->cleanup(device);
        QTAILQ_REMOVE(&device->server->devices, device, next);
    }
    spice_flow_close(device->flow);
    timer_free(device->stall_timer);
    timer_free(device->settle_timer);
    g_free(device->name);
}
