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
 * To guest: the channel is read as far as the flow machine has room.  The
 * bodies that one read brought are moved together and handed over as one
 * buffer, which goes straight through when the guest takes it.
 *
 * To client: what the guest writes goes out from where it lies; what does not
 * is queued by the flow machine, and when its budget is used the guest waits.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "device.h"
#include "trace.h"

typedef struct SFVmc {
    SFDevice *device;
    SpiceFlowOps flow_ops;
    SFClient *owner;            /* who has it, or is about to */
    SFChannel *channel;
    SpiceFlowClient *flow_client;
    uint8_t *batch;             /* stream bytes of this read, in one piece */
    size_t batch_len;
} SFVmc;

static bool vmc_is_port(const SFVmc *vmc)
{
    return vmc->device->type != SPICE_CHANNEL_USBREDIR;
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

static void vmc_disconnect(SFVmc *vmc)
{
    SFChannel *channel = g_steal_pointer(&vmc->channel);

    vmc->owner = NULL;
    vmc->batch_len = 0;
    if (!channel) {
        return;
    }
    spice_flow_client_remove(g_steal_pointer(&vmc->flow_client));
    sf_channel_close(channel, "the device lets it go");
    sf_channel_unref(channel);
    trace_spiceflow_vmc_disconnect(vmc->device->label);
    sf_frontend_set_open(&vmc->device->frontend, false);
}

/*
 * To guest
 */

static void vmc_flush_batch(SFVmc *vmc)
{
    SpiceFlowBuffer buffer = {
        .data = vmc->batch,
        .len = vmc->batch_len,
    };

    if (vmc->batch_len) {
        vmc->batch_len = 0;
        spice_flow_client_write(vmc->flow_client, &buffer);
    }
}

static SFBody vmc_channel_header(void *opaque, uint16_t type, uint32_t size)
{
    SFVmc *vmc = opaque;

    switch (type) {
    case SPICE_MSGC_SPICEVMC_DATA:
        return SF_BODY_STREAM;
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

static void vmc_channel_message(void *opaque, uint16_t type,
                                const uint8_t *data, size_t len)
{
    SFVmc *vmc = opaque;

    vmc_flush_batch(vmc);
    if (vmc->channel && data[0] == SPICE_PORT_EVENT_BREAK) {
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

    return spice_flow_client_room(vmc->flow_client);
}

static void vmc_channel_sent(void *opaque)
{
    SFVmc *vmc = opaque;

    spice_flow_client_sent(vmc->flow_client);
}

static void vmc_channel_closed(void *opaque)
{
    vmc_disconnect(opaque);
}

static const SFChannelOps vmc_channel_ops = {
    .header = vmc_channel_header,
    .message = vmc_channel_message,
    .stream = vmc_channel_stream,
    .received = vmc_channel_received,
    .room = vmc_channel_room,
    .sent = vmc_channel_sent,
    .closed = vmc_channel_closed,
};

static void vmc_flow_room(void *opaque)
{
    SFVmc *vmc = opaque;

    sf_channel_room(vmc->channel);
}

/*
 * To client
 */

static bool vmc_flow_send(void *opaque, SpiceFlowMessage *msg)
{
    SFVmc *vmc = opaque;

    return sf_channel_send_message(vmc->channel, SPICE_MSG_SPICEVMC_DATA, msg);
}

static void vmc_flow_remove(void *opaque, SpiceFlowReason reason)
{
    SFVmc *vmc = opaque;

    sf_channel_fail(vmc->channel, spice_flow_reason_name(reason));
}

static size_t vmc_write(SFDevice *device, const uint8_t *buf, size_t len)
{
    return spice_flow_send_stream(device->flow, buf, len);
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

static uint32_t vmc_channel_caps(SFDevice *device, const SFChannelInfo *info)
{
    return 0;
}

static uint32_t vmc_may_open(SFDevice *device, SFClient *client)
{
    SFVmc *vmc = device->priv;

    return vmc->owner ? SPICE_LINK_ERR_CHANNEL_NOT_AVAILABLE
                      : SPICE_LINK_ERR_OK;
}

static void vmc_open(SFDevice *device, SFClient *client, SFChannel *channel)
{
    SFVmc *vmc = device->priv;
    SpiceFlowClientParams params = sf_device_client_params(device, client->id);

    vmc->owner = client;
    vmc->channel = sf_channel_ref(channel);
    if (vmc_is_port(vmc)) {
        GByteArray *body = g_byte_array_new();

        spice_flow_port_init_encode(body, device->name, device->fe_open);
        sf_channel_send(channel, SPICE_MSG_PORT_INIT, body);
    }
    vmc->flow_client = spice_flow_client_add(device->flow, &params, vmc);
    trace_spiceflow_vmc_connect(device->label, client->id);
    sf_frontend_set_open(&device->frontend, true);
    sf_channel_set_ops(channel, &vmc_channel_ops, vmc);
}

static void vmc_client_gone(SFDevice *device, SFClient *client)
{
    SFVmc *vmc = device->priv;

    if (vmc->owner == client) {
        vmc_disconnect(vmc);
    }
}

static const SFDeviceOps vmc_device_ops = {
    .channel_caps = vmc_channel_caps,
    .may_open = vmc_may_open,
    .open = vmc_open,
    .client_gone = vmc_client_gone,
};

static bool vmc_init(SFDevice *device, Error **errp)
{
    SFVmc *vmc = g_new0(SFVmc, 1);
    SpiceFlowParams params = {
        .framing = SPICE_FLOW_RAW,
        .max_clients = 1,
        .max_message = SF_MESSAGE_MAX,
        .stall_timeout = device->server->stall_timeout,
    };

    device->priv = vmc;
    vmc->device = device;
    vmc->flow_ops.send = vmc_flow_send;
    vmc->flow_ops.room = vmc_flow_room;
    vmc->flow_ops.remove = vmc_flow_remove;
    sf_device_flow_new(device, &vmc->flow_ops, &params);
    return true;
}

static void vmc_cleanup(SFDevice *device)
{
    vmc_disconnect(device->priv);
    g_free(device->priv);
}

const SFKind sf_vmc_kind = {
    .device_ops = &vmc_device_ops,
    .init = vmc_init,
    .cleanup = vmc_cleanup,
    .write = vmc_write,
    .set_fe_open = vmc_set_fe_open,
};
