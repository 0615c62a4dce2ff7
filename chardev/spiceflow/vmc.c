/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw devices: USB redirection, webdav and every other port.
 *
 * The bytes of DATA messages are a stream in each direction.  A device belongs
 * to the first client that opens its channel, until that leaves; another one
 * is refused in the link result.  The frontend sees the client as its other
 * end: opened before the first byte, closed when it leaves, and then both
 * directions are cleared.
 *
 * usb-redir is another matter: it is never left closed.  Its parser lives from
 * OPENED to CLOSED, and without one QEMU dies as soon as the guest configures
 * an endpoint of a device that is gone, which a guest may do that has not
 * noticed yet, and after a migration does.  So a client that leaves is a close
 * and an open in one, and usb-redir's hello to the next one waits until that
 * has come.
 *
 * To guest: the channel is read as far as the flow machine has room.  The
 * bodies that one read brought are moved together and handed over as one
 * buffer, which goes straight through when the guest takes it.
 *
 * usbredir is watched over: usb-redir aborts QEMU on packets that it can not
 * parse, so only packets whose headers are right are let through, and a client
 * that sends others loses its channel.  Before the guest has said hello a
 * client's packets can not be judged, and some not while usb-redir has more to
 * say than was taken: they wait, and nothing more is read.
 *
 * LZ4 is used both ways as the capability says, never on UNIX sockets.  A
 * compressed message may unpack to more than there is room for now; the rest
 * waits likewise.
 *
 * To client: what the guest writes goes out from where it lies; what does not
 * is queued by the flow machine, and when its budget is used the guest waits.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "chardev/spiceflow/usbredir.h"
#include "compress.h"
#include "device.h"
#include "events.h"
#include "handover.h"
#include "migrate.h"
#include "system/runstate.h"
#include "trace.h"

/* Room kept for what the guard has held back: one packet header. */
#define SLACK               SPICE_FLOW_USBREDIR_HEADER_MAX

typedef struct SFVmc {
    SFDevice *device;
    SpiceFlowOps flow_ops;
    SFClient *owner;            /* who has it, or is about to */
    SFChannel *channel;
    SpiceFlowClient *flow_client;
    uint8_t *batch;             /* stream bytes of this read, in one piece */
    size_t batch_len;
    GByteArray *pending;        /* received, and not handed over yet */
    SpiceFlowUsbredir *guard;   /* only of usbredir */
    QEMUBH *retry_bh;
    uint32_t stale;             /* messages in flight from another guest */
    bool writing;
    bool awaiting;              /* its owner is on its way here */
} SFVmc;

static bool vmc_is_port(const SFVmc *vmc)
{
    return vmc->device->endpoint.type != SPICE_CHANNEL_USBREDIR;
}

static void vmc_send_port_event(SFVmc *vmc, uint8_t event)
{
    GByteArray *body = g_byte_array_new();

    spice_flow_wire_u8(body, event);
    sf_channel_send(vmc->channel, SPICE_MSG_PORT_EVENT, body);
}

/*
 * The client leaves
 */

static void vmc_attach(SFVmc *vmc)
{
    SFDevice *device = vmc->device;
    SpiceFlowClientParams params = sf_device_client_params(device,
                                                           vmc->owner->id);

    vmc->flow_client = spice_flow_client_add(device->flow, &params, vmc);
}

/* The client stays, but nothing of what it sent or is to get. */
static void vmc_detach(SFVmc *vmc)
{
    SpiceFlowClientInfo info;

    spice_flow_client_info(vmc->flow_client, &info);
    vmc->stale += info.to_client_in_flight;
    spice_flow_client_remove(g_steal_pointer(&vmc->flow_client));
    vmc->batch_len = 0;
    g_byte_array_set_size(vmc->pending, 0);
}

/* The frontend sees its other end go. */
static void vmc_hang_up(SFVmc *vmc)
{
    SFFrontend *frontend = &vmc->device->frontend;

    sf_frontend_set_open(frontend, false);
    if (vmc->guard) {
        sf_frontend_set_open(frontend, true);
    }
}

static void vmc_disconnect(SFVmc *vmc, SFReason reason, const char *why)
{
    SFChannel *channel = g_steal_pointer(&vmc->channel);
    SFClient *owner = g_steal_pointer(&vmc->owner);

    if (!channel) {
        return;
    }
    vmc_detach(vmc);
    vmc->stale = 0;
    sf_channel_close(channel, reason, why);
    sf_event_device_released(vmc->device, owner, sf_channel_reason(channel),
                             sf_channel_why(channel));
    sf_event_channel_closed(owner, channel);
    sf_channel_unref(channel);
    trace_spiceflow_vmc_disconnect(vmc->device->label);
    vmc_hang_up(vmc);
    sf_frontend_wake(&vmc->device->frontend);
}

/*
 * To guest
 */

static void vmc_refuse(SFVmc *vmc, const char *why)
{
    sf_client_notify(vmc->owner, SPICE_NOTIFY_SEVERITY_ERROR, why);
    sf_channel_fail(vmc->channel, SF_REASON_PROTOCOL_ERROR, why);
}

/*
 * Hand over what the guard allows of at most @len bytes.  Returns how many are
 * done with; 0 when the guard has to wait for the guest's hello.
 */
static size_t vmc_write_guarded(SFVmc *vmc, const uint8_t *data, size_t len)
{
    SpiceFlowUsbredirSpans spans;
    SpiceFlowUsbredirResult result =
        spice_flow_usbredir_check(vmc->guard, SPICE_FLOW_USBREDIR_TO_GUEST,
                                  data, len, &spans);
    SpiceFlowBuffer buffer = {
        .head = spans.held,
        .head_len = spans.held_len,
        .data = data,
        .len = spans.pass,
    };

    spice_flow_client_write(vmc->flow_client, &buffer);
    if (result == SPICE_FLOW_USBREDIR_BAD) {
        vmc_refuse(vmc, spice_flow_usbredir_error(vmc->guard));
        return len;
    }
    return spans.used;
}

/* Returns how many bytes the flow machine and the guard have taken. */
static size_t vmc_write_guest(SFVmc *vmc, const uint8_t *data, size_t len)
{
    size_t done = 0;

    vmc->writing = true;
    while (done < len && vmc->channel && !sf_channel_closed(vmc->channel)) {
        SpiceFlowBuffer buffer = { .data = data + done };
        size_t room = spice_flow_client_room(vmc->flow_client);
        size_t n = MIN(len - done, SF_MESSAGE_MAX - SLACK);

        if (room < SLACK * 2) {
            break;
        }
        n = MIN(n, room - SLACK);
        if (vmc->guard) {
            n = vmc_write_guarded(vmc, data + done, n);
            if (n == 0) {
                break;
            }
        } else {
            buffer.len = n;
            spice_flow_client_write(vmc->flow_client, &buffer);
        }
        done += n;
    }
    vmc->writing = false;
    return done;
}

/* What can not go on now waits here; nothing more is read until it has. */
static void vmc_take(SFVmc *vmc, const uint8_t *data, size_t len)
{
    size_t done = vmc->pending->len ? 0 : vmc_write_guest(vmc, data, len);

    if (vmc->channel && done < len) {
        g_byte_array_append(vmc->pending, data + done, len - done);
    }
}

static void vmc_retry_pending(SFVmc *vmc)
{
    size_t done;

    /* Room that came up while we write is seen by the loop that writes. */
    if (vmc->writing) {
        return;
    }
    if (vmc->pending->len) {
        done = vmc_write_guest(vmc, vmc->pending->data, vmc->pending->len);
        g_byte_array_remove_range(vmc->pending, 0,
                                  MIN(done, vmc->pending->len));
    }
    if (vmc->channel && vmc->pending->len == 0) {
        sf_channel_room(vmc->channel);
    }
}

static void vmc_flush_batch(SFVmc *vmc)
{
    size_t len = vmc->batch_len;

    if (len) {
        vmc->batch_len = 0;
        vmc_take(vmc, vmc->batch, len);
    }
}

static SFBody vmc_channel_header(void *opaque, uint16_t type, uint32_t size)
{
    SFVmc *vmc = opaque;

    switch (type) {
    case SPICE_MSGC_SPICEVMC_DATA:
        return SF_BODY_STREAM;
    case SPICE_MSGC_SPICEVMC_COMPRESSED_DATA:
        return size <= SF_COMPRESSED_MAX ? SF_BODY_COLLECT : SF_BODY_REFUSE;
    case SPICE_MSGC_PORT_EVENT:
        return vmc_is_port(vmc) && size == 1 ? SF_BODY_COLLECT : SF_BODY_REFUSE;
    default:
        return SF_BODY_REFUSE;
    }
}

static void vmc_channel_stream(void *opaque, uint16_t type, uint8_t *data,
                               size_t len)
{
    SFVmc *vmc = opaque;

    if (vmc->batch_len == 0) {
        vmc->batch = data;
    } else if (vmc->batch + vmc->batch_len != data) {
        memmove(vmc->batch + vmc->batch_len, data, len);
    }
    vmc->batch_len += len;
}

static void vmc_compressed(SFVmc *vmc, const uint8_t *body, size_t len)
{
    const char *why;
    GByteArray *data = sf_uncompress(body, len, &why);

    if (!data) {
        vmc_refuse(vmc, why);
        return;
    }
    vmc_take(vmc, data->data, data->len);
    g_byte_array_unref(data);
}

static void vmc_channel_message(void *opaque, uint16_t type, uint8_t *data,
                                size_t len)
{
    SFVmc *vmc = opaque;

    vmc_flush_batch(vmc);
    if (!vmc->channel) {
        return;
    }
    if (type == SPICE_MSGC_SPICEVMC_COMPRESSED_DATA) {
        vmc_compressed(vmc, data, len);
    } else if (data[0] == SPICE_PORT_EVENT_BREAK) {
        sf_frontend_break(&vmc->device->frontend);
    }
}

static void vmc_channel_received(void *opaque)
{
    vmc_flush_batch(opaque);
}

static size_t vmc_channel_room(void *opaque)
{
    SFVmc *vmc = opaque;
    size_t room = spice_flow_client_room(vmc->flow_client);

    return vmc->pending->len || room < SLACK * 2 ? 0 : room - SLACK;
}

static void vmc_channel_sent(void *opaque)
{
    SFVmc *vmc = opaque;

    if (vmc->stale) {
        vmc->stale--;
    } else if (vmc->flow_client) {
        spice_flow_client_sent(vmc->flow_client);
    }
}

static void vmc_channel_may_send(void *opaque)
{
    SFVmc *vmc = opaque;

    sf_frontend_wake(&vmc->device->frontend);
}

static void vmc_channel_closed(void *opaque)
{
    SFVmc *vmc = opaque;

    if (vmc->channel) {
        vmc_disconnect(vmc, sf_channel_reason(vmc->channel), NULL);
    }
}

static const SFChannelOps vmc_channel_ops = {
    .header = vmc_channel_header,
    .message = vmc_channel_message,
    .stream = vmc_channel_stream,
    .received = vmc_channel_received,
    .room = vmc_channel_room,
    .sent = vmc_channel_sent,
    .may_send = vmc_channel_may_send,
    .closed = vmc_channel_closed,
};

static void vmc_flow_room(void *opaque)
{
    vmc_retry_pending(opaque);
}

/*
 * To client
 */

static GByteArray *vmc_compress(SFVmc *vmc, SpiceFlowMessage *msg)
{
    const uint32_t lz4_cap = BIT(SPICE_SPICEVMC_CAP_DATA_COMPRESS_LZ4);
    const SFChannelInfo *info = sf_channel_info(vmc->channel);
    const uint8_t *data;
    size_t len;

    data = spice_flow_message_data(msg, &len);
    if (info->local || len < SF_COMPRESS_MIN ||
        !(info->mess.channel_caps & lz4_cap)) {
        return NULL;
    }
    return sf_compress(data, len);
}

static bool vmc_flow_send(void *opaque, SpiceFlowMessage *msg)
{
    SFVmc *vmc = opaque;
    GByteArray *body = vmc_compress(vmc, msg);

    if (body) {
        return sf_channel_send_encoded(vmc->channel,
                                       SPICE_MSG_SPICEVMC_COMPRESSED_DATA,
                                       body);
    }
    return sf_channel_send_message(vmc->channel, SPICE_MSG_SPICEVMC_DATA, msg);
}

static void vmc_flow_remove(void *opaque, SpiceFlowReason reason)
{
    SFVmc *vmc = opaque;

    sf_channel_fail(vmc->channel, sf_reason_of_flow(reason), NULL);
}

/*
 * usb-redir is trusted; the guard follows it to know what the client may
 * answer.  What was not taken stays in usb-redir, unseen.
 */
static void vmc_follow(SFVmc *vmc, const uint8_t *buf, size_t len, bool behind)
{
    SpiceFlowUsbredirSpans spans;
    SpiceFlowUsbredirResult result =
        spice_flow_usbredir_check(vmc->guard, SPICE_FLOW_USBREDIR_TO_CLIENT,
                                  buf, len, &spans);

    spice_flow_usbredir_set_behind(vmc->guard, behind);
    if (result == SPICE_FLOW_USBREDIR_BAD && vmc->channel &&
        !sf_channel_closed(vmc->channel)) {
        vmc_refuse(vmc, spice_flow_usbredir_error(vmc->guard));
    }
    if (vmc->pending->len) {
        qemu_bh_schedule(vmc->retry_bh);
    }
}

static bool vmc_nobody(const SFVmc *vmc)
{
    return vmc->guard && !vmc->flow_client && !vmc->awaiting;
}

static bool vmc_held_back(const SFDevice *device)
{
    const SFVmc *vmc = device->priv;

    return vmc_nobody(vmc) || (vmc->channel && sf_channel_waits(vmc->channel));
}

/*
 * What can not be sent in this turn would be copied; a frontend that waits
 * keeps it.
 */
static bool vmc_may_send(const SFVmc *vmc, size_t len)
{
    return !vmc->device->frontend.patient || !vmc->channel ||
           sf_channel_may_send(vmc->channel, len);
}

static size_t vmc_write(SFDevice *device, const uint8_t *buf, size_t len)
{
    SFVmc *vmc = device->priv;
    size_t n;

    if (vmc_nobody(vmc)) {
        return 0;
    }
    n = vmc_may_send(vmc, len) ? spice_flow_send_stream(device->flow, buf, len)
                               : 0;
    if (vmc->guard) {
        vmc_follow(vmc, buf, n, n < len);
    }
    return n;
}

static void vmc_set_fe_open(SFDevice *device, bool open)
{
    SFVmc *vmc = device->priv;

    if (vmc->channel && vmc_is_port(vmc)) {
        vmc_send_port_event(vmc, open ? SPICE_PORT_EVENT_OPENED
                                      : SPICE_PORT_EVENT_CLOSED);
    }
}

/*
 * The client comes
 */

static SFVmc *endpoint_vmc(SFEndpoint *endpoint)
{
    return container_of(endpoint, SFDevice, endpoint)->priv;
}

static uint32_t vmc_channel_caps(SFEndpoint *endpoint,
                                 const SFChannelInfo *info)
{
    return info->local ? 0 : BIT(SPICE_SPICEVMC_CAP_DATA_COMPRESS_LZ4);
}

static uint32_t vmc_may_open(SFEndpoint *endpoint, SFClient *client)
{
    SFVmc *vmc = endpoint_vmc(endpoint);

    return vmc->owner || vmc->awaiting ? SPICE_LINK_ERR_CHANNEL_NOT_AVAILABLE
                                       : SPICE_LINK_ERR_OK;
}

static void vmc_open(SFEndpoint *endpoint, SFClient *client,
                     SFChannel *channel)
{
    SFVmc *vmc = endpoint_vmc(endpoint);
    SFDevice *device = vmc->device;

    vmc->owner = client;
    vmc->channel = sf_channel_ref(channel);
    if (vmc->guard) {
        spice_flow_usbredir_reset(vmc->guard);
    }
    if (vmc_is_port(vmc)) {
        GByteArray *body = g_byte_array_new();

        spice_flow_port_init_encode(body, device->name, device->fe_open);
        sf_channel_send(channel, SPICE_MSG_PORT_INIT, body);
    }
    vmc_attach(vmc);
    trace_spiceflow_vmc_connect(device->label, client->id);
    sf_event_device_claimed(device, client);
    sf_frontend_set_open(&device->frontend, true);
    sf_frontend_wake(&device->frontend);
    sf_channel_set_ops(channel, &vmc_channel_ops, vmc);
}

static bool vmc_resume(SFEndpoint *endpoint, SFClient *client,
                       SFChannel *channel)
{
    SFVmc *vmc = endpoint_vmc(endpoint);
    SpiceFlowClient *flow_client =
        vmc->awaiting ? spice_flow_client_find(vmc->device->flow, client->id)
                      : NULL;

    if (!flow_client) {
        return false;
    }
    vmc->awaiting = false;
    vmc->owner = client;
    vmc->channel = sf_channel_ref(channel);
    vmc->flow_client = flow_client;
    trace_spiceflow_vmc_connect(vmc->device->label, client->id);
    sf_event_device_claimed(vmc->device, client);
    sf_channel_set_ops(channel, &vmc_channel_ops, vmc);
    qemu_bh_schedule(vmc->retry_bh);
    sf_frontend_wake(&vmc->device->frontend);
    /*
     * usb-redir takes an answer for wrong while its host controller has not
     * asked again for what was under way.
     */
    if (vmc->guard) {
        sf_device_settle(vmc->device);
    }
    if (!sf_migrate_flow_resume(flow_client, vmc)) {
        sf_channel_fail(channel, SF_REASON_MIGRATION, NULL);
    }
    return true;
}

static void vmc_client_gone(SFEndpoint *endpoint, SFClient *client)
{
    SFVmc *vmc = endpoint_vmc(endpoint);

    if (vmc->owner == client) {
        vmc_disconnect(vmc, client->reason, client->why);
    }
}

static const SFEndpointOps vmc_endpoint_ops = {
    .channel_caps = vmc_channel_caps,
    .may_open = vmc_may_open,
    .open = vmc_open,
    .resume = vmc_resume,
    .client_gone = vmc_client_gone,
};

/*
 * State
 */

/* What waits is of one read, and one message more that was compressed. */
static size_t vmc_saved_max(const SFDevice *device, uint32_t num_clients)
{
    const SFVmc *vmc = device->priv;

    return SF_CHANNEL_READ_MAX + SF_UNCOMPRESSED_MAX +
           (vmc->guard ? SPICE_FLOW_USBREDIR_SAVED_MAX : 0);
}

static void vmc_save(SFDevice *device, SFSaved *saved)
{
    SFVmc *vmc = device->priv;

    saved->vmc.pending_size = vmc->pending->len;
    saved->vmc.pending = g_memdup2(vmc->pending->data, vmc->pending->len);
    if (vmc->guard) {
        spice_flow_usbredir_save(vmc->guard, &saved->vmc.guard);
    }
}

static void vmc_rewind(SFDevice *device)
{
    SFVmc *vmc = device->priv;

    /* A client of usb-redir greets once: it has to open the channel again. */
    if (vmc->guard) {
        if (vmc->channel) {
            SFClient *owner = vmc->owner;

            sf_channel_close(vmc->channel, SF_REASON_GUEST_REPLACED, NULL);
            sf_main_channel_add(owner, (SpiceFlowChannelId) {
                device->endpoint.type, device->endpoint.id
            });
        }
        sf_frontend_renew(&device->frontend);
    } else if (vmc->channel) {
        vmc_detach(vmc);
        vmc_attach(vmc);
    }
    sf_frontend_lost(&device->frontend, false);
}

/* The owner goes on where it was. */
static bool vmc_restore_owner(SFVmc *vmc, const SFSaved *saved, Error **errp)
{
    g_autofree char *wrong = NULL;

    if (vmc->guard && !spice_flow_usbredir_restore(vmc->guard,
                                                   &saved->vmc.guard,
                                                   &wrong)) {
        error_setg(errp, "bad usbredir state: %s", wrong);
        return false;
    }
    g_byte_array_set_size(vmc->pending, 0);
    g_byte_array_append(vmc->pending, saved->vmc.pending,
                        saved->vmc.pending_size);
    vmc->awaiting = true;
    sf_frontend_resume(&vmc->device->frontend, saved->host_open);
    vmc->device->fe_open = saved->guest_open;
    return true;
}

static bool vmc_restore(SFDevice *device, const SFSaved *saved, Error **errp)
{
    SFVmc *vmc = device->priv;
    bool ok;

    if (saved->flow.num_clients > 1) {
        error_setg(errp, "bad flow state: num_clients");
        return false;
    }
    vmc->awaiting = false;
    if (saved->flow.num_clients &&
        sf_handover_awaited(device, saved->flow.clients[0].params.id)) {
        /* Whoever was first here is in its place. */
        vmc_disconnect(vmc, SF_REASON_REPLACED, NULL);
        return sf_migrate_flow_restore(device, saved, errp) &&
               vmc_restore_owner(vmc, saved, errp);
    }
    if (vmc->channel) {
        vmc_detach(vmc);
    }
    ok = sf_migrate_flow_restore(device, saved, errp);
    if (ok) {
        sf_migrate_flow_lose(device);
    }
    if (vmc->channel) {
        vmc_attach(vmc);
    }
    if (ok) {
        sf_frontend_lost(&device->frontend, saved->host_open);
        device->fe_open = saved->guest_open;
        vmc_set_fe_open(device, device->fe_open);
    }
    return ok;
}

static void vmc_lose(SFDevice *device)
{
    SFVmc *vmc = device->priv;

    sf_migrate_flow_lose_away(device);
    if (vmc->awaiting) {
        vmc->awaiting = false;
        g_byte_array_set_size(vmc->pending, 0);
        vmc_hang_up(vmc);
    }
}

static void vmc_retry(void *opaque)
{
    vmc_retry_pending(opaque);
}

static bool vmc_init(SFDevice *device, Error **errp)
{
    SFVmc *vmc = g_new0(SFVmc, 1);
    SpiceFlowParams params = {
        .framing = SPICE_FLOW_RAW,
        .max_message = SF_MESSAGE_MAX,
        .stall_timeout = device->server->stall_timeout,
    };

    device->priv = vmc;
    vmc->device = device;
    vmc->pending = g_byte_array_new();
    vmc->retry_bh = qemu_bh_new(vmc_retry, vmc);
    if (!vmc_is_port(vmc)) {
        vmc->guard = spice_flow_usbredir_new();
        sf_frontend_set_open(&device->frontend, true);
        if (runstate_check(RUN_STATE_INMIGRATE)) {
            sf_frontend_lost(&device->frontend, true);
        }
    }
    vmc->flow_ops.send = vmc_flow_send;
    vmc->flow_ops.room = vmc_flow_room;
    vmc->flow_ops.remove = vmc_flow_remove;
    sf_device_flow_new(device, &vmc->flow_ops, &params);
    return true;
}

static void vmc_cleanup(SFDevice *device)
{
    SFVmc *vmc = device->priv;

    spice_flow_usbredir_free(g_steal_pointer(&vmc->guard));
    vmc_disconnect(vmc, SF_REASON_DEVICE_DELETED, NULL);
    qemu_bh_delete(vmc->retry_bh);
    g_byte_array_unref(vmc->pending);
    g_free(vmc);
}

const SFKind sf_vmc_kind = {
    .endpoint_ops = &vmc_endpoint_ops,
    .init = vmc_init,
    .cleanup = vmc_cleanup,
    .write = vmc_write,
    .held_back = vmc_held_back,
    .set_fe_open = vmc_set_fe_open,
    .save = vmc_save,
    .saved_max = vmc_saved_max,
    .rewind = vmc_rewind,
    .restore = vmc_restore,
    .lose = vmc_lose,
};
