/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of a device, described to QEMU.
 *
 * The stream comes from a host that is trusted, over a wire or a disk that may
 * not be: nothing is allocated before its length was found plausible, and what
 * the fields mean together is checked by those who take the state over
 * (spice_flow_restore() and its like).  A bad length is reported by QEMU as
 * "Input validation failed", with the name of the field.
 *
 * The order of fields is that of the stream: lengths first, what must hold of
 * them next, then what has these lengths.  Fields of the host's own width
 * (size_t) travel as 64 bits.
 */
#include "qemu/osdep.h"
#include <spice/enums.h>
#include "migration/qemu-file-types.h"
#include "saved.h"

/* An array of structs whose memory the load allocates. */
#define SF_VMSTATE_STRUCTS(_field, _state, _num, _vmsd, _type) {        \
    .name       = (stringify(_field)),                                  \
    .num_offset = vmstate_offset_value(_state, _num, uint32_t),         \
    .size       = sizeof(_type),                                        \
    .vmsd       = &(_vmsd),                                             \
    .flags      = VMS_STRUCT | VMS_VARRAY_UINT32 | VMS_ALLOC |          \
                  VMS_POINTER,                                          \
    .offset     = vmstate_offset_pointer(_state, _field, _type),        \
}

#define SF_VMSTATE_SIZE(_field, _state)                                 \
    VMSTATE_SINGLE(_field, _state, 1, vmstate_size_info, size_t)

static int size_load(QEMUFile *f, void *pv, size_t unused,
                     const VMStateField *field)
{
    uint64_t value = qemu_get_be64(f);

    *(size_t *)pv = value;
    return value > SIZE_MAX ? -EINVAL : 0;
}

static int size_save(QEMUFile *f, void *pv, size_t unused,
                     const VMStateField *field, JSONWriter *vmdesc)
{
    qemu_put_be64(f, *(size_t *)pv);
    return 0;
}

static const VMStateInfo vmstate_size_info = {
    .name = "size",
    .get = size_load,
    .put = size_save,
};

/*
 * Flow machine
 */

static const VMStateDescription vmstate_flow_buffer = {
    .name = "spiceflow/flow/buffer",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(place, SpiceFlowSavedBuffer),
        VMSTATE_UINT8(price, SpiceFlowSavedBuffer),
        VMSTATE_UINT8(paid, SpiceFlowSavedBuffer),
        VMSTATE_UINT8(more, SpiceFlowSavedBuffer),
        VMSTATE_UINT32(client, SpiceFlowSavedBuffer),
        VMSTATE_UINT32(size, SpiceFlowSavedBuffer),
        VMSTATE_UINT32(offset, SpiceFlowSavedBuffer),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_flow_client_params = {
    .name = "spiceflow/flow/client-params",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(id, SpiceFlowClientParams),
        VMSTATE_BOOL(flow_control, SpiceFlowClientParams),
        VMSTATE_UINT32(window, SpiceFlowClientParams),
        VMSTATE_UINT32(interval, SpiceFlowClientParams),
        VMSTATE_UINT32(send_tokens, SpiceFlowClientParams),
        SF_VMSTATE_SIZE(to_guest_bytes, SpiceFlowClientParams),
        VMSTATE_UINT32(to_guest_messages, SpiceFlowClientParams),
        SF_VMSTATE_SIZE(to_client_bytes, SpiceFlowClientParams),
        VMSTATE_UINT32(to_client_messages, SpiceFlowClientParams),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_flow_client = {
    .name = "spiceflow/flow/client",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT(params, SpiceFlowSavedClient, 1,
                       vmstate_flow_client_params, SpiceFlowClientParams),
        VMSTATE_UINT32(tokens, SpiceFlowSavedClient),
        VMSTATE_UINT32(due, SpiceFlowSavedClient),
        VMSTATE_UINT32(send_tokens, SpiceFlowSavedClient),
        VMSTATE_UINT32(in_flight, SpiceFlowSavedClient),
        VMSTATE_INT64(waited, SpiceFlowSavedClient),
        VMSTATE_UINT8(receiving, SpiceFlowSavedClient),
        VMSTATE_END_OF_LIST()
    }
};

static bool flow_num_clients_ok(void *opaque, int version_id)
{
    const SpiceFlowSaved *flow = opaque;

    return flow->num_clients <= SF_SAVED_CLIENTS_MAX;
}

static bool flow_data_size_ok(void *opaque, int version_id)
{
    const SpiceFlowSaved *flow = opaque;

    return flow->data_size <= container_of(flow, SFSaved, flow)->data_max;
}

/* Each buffer has a byte at least. */
static bool flow_num_buffers_ok(void *opaque, int version_id)
{
    const SpiceFlowSaved *flow = opaque;

    return flow->num_buffers <= flow->data_size;
}

static const VMStateDescription vmstate_flow = {
    .name = "spiceflow/flow",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(self_tokens, SpiceFlowSaved),
        VMSTATE_UINT32(turn, SpiceFlowSaved),
        VMSTATE_INT64(turn_waited, SpiceFlowSaved),
        VMSTATE_UINT8(torn, SpiceFlowSaved),
        VMSTATE_UINT32(num_clients, SpiceFlowSaved),
        VMSTATE_UINT32(num_buffers, SpiceFlowSaved),
        VMSTATE_UINT32(data_size, SpiceFlowSaved),
        VMSTATE_VALIDATE("num_clients", flow_num_clients_ok),
        VMSTATE_VALIDATE("data_size", flow_data_size_ok),
        VMSTATE_VALIDATE("num_buffers", flow_num_buffers_ok),
        SF_VMSTATE_STRUCTS(clients, SpiceFlowSaved, num_clients,
                           vmstate_flow_client, SpiceFlowSavedClient),
        SF_VMSTATE_STRUCTS(buffers, SpiceFlowSaved, num_buffers,
                           vmstate_flow_buffer, SpiceFlowSavedBuffer),
        VMSTATE_VBUFFER_ALLOC_UINT32(data, SpiceFlowSaved, 1, NULL, data_size),
        VMSTATE_END_OF_LIST()
    }
};

/*
 * Agent
 */

static const VMStateDescription vmstate_caps = {
    .name = "spiceflow/agent/caps",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(known, SpiceVdagentCaps),
        VMSTATE_UINT8(num, SpiceVdagentCaps),
        VMSTATE_UINT32_ARRAY(word, SpiceVdagentCaps,
                             SPICE_VDAGENT_CAPS_WORDS),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_questions = {
    .name = "spiceflow/agent/questions",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(num, SpiceVdagentQuestions),
        VMSTATE_UINT32_ARRAY(client, SpiceVdagentQuestions,
                             SPICE_VDAGENT_QUESTIONS),
        VMSTATE_UINT32_ARRAY(type, SpiceVdagentQuestions,
                             SPICE_VDAGENT_QUESTIONS),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_selection = {
    .name = "spiceflow/agent/selection",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(guest_owns, SpiceVdagentSelection),
        VMSTATE_UINT32(owner, SpiceVdagentSelection),
        VMSTATE_UINT8(num_types, SpiceVdagentSelection),
        VMSTATE_UINT32_ARRAY(types, SpiceVdagentSelection,
                             SPICE_VDAGENT_GRAB_TYPES),
        VMSTATE_UINT32(last_asker, SpiceVdagentSelection),
        VMSTATE_STRUCT(asked, SpiceVdagentSelection, 1, vmstate_questions,
                       SpiceVdagentQuestions),
        VMSTATE_STRUCT(refused, SpiceVdagentSelection, 1, vmstate_questions,
                       SpiceVdagentQuestions),
        VMSTATE_BOOL(release_due, SpiceVdagentSelection),
        VMSTATE_BOOL(grab_due, SpiceVdagentSelection),
        VMSTATE_END_OF_LIST()
    }
};

static bool vdagent_mend_needed(void *opaque)
{
    SpiceVdagentState *state = opaque;

    return state->mend_left || state->mend_release;
}

/* Since version 2 of the streams; those of version 1 end without it. */
static const VMStateDescription vmstate_vdagent_mend = {
    .name = "spiceflow/agent/guest/mend",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vdagent_mend_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(mend_left, SpiceVdagentState),
        VMSTATE_UINT8(mend_release, SpiceVdagentState),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_vdagent_once = {
    .name = "spiceflow/agent/guest",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(error, SpiceVdagentState),
        VMSTATE_UINT8(chunk_header_len, SpiceVdagentState),
        VMSTATE_BUFFER(chunk_header, SpiceVdagentState),
        VMSTATE_UINT32(chunk_left, SpiceVdagentState),
        VMSTATE_BOOL(judged, SpiceVdagentState),
        VMSTATE_BOOL(passing, SpiceVdagentState),
        VMSTATE_BOOL(first, SpiceVdagentState),
        VMSTATE_UINT32(type, SpiceVdagentState),
        VMSTATE_UINT32(size, SpiceVdagentState),
        VMSTATE_UINT64(opaque, SpiceVdagentState),
        VMSTATE_UINT64(message_left, SpiceVdagentState),
        VMSTATE_UINT32(fill, SpiceVdagentState),
        VMSTATE_BUFFER(piece, SpiceVdagentState),
        VMSTATE_STRUCT(guest, SpiceVdagentState, 1, vmstate_caps,
                       SpiceVdagentCaps),
        VMSTATE_STRUCT(guest_told, SpiceVdagentState, 1, vmstate_caps,
                       SpiceVdagentCaps),
        VMSTATE_BOOL(announce_due, SpiceVdagentState),
        VMSTATE_BOOL(announce_request, SpiceVdagentState),
        VMSTATE_BOOL(disconnect_due, SpiceVdagentState),
        VMSTATE_BOOL(max_told, SpiceVdagentState),
        VMSTATE_BOOL(max_due, SpiceVdagentState),
        VMSTATE_UINT32(max_value, SpiceVdagentState),
        VMSTATE_BOOL(no_serial, SpiceVdagentState),
        VMSTATE_STRUCT_ARRAY(selection, SpiceVdagentState,
                             SPICE_VDAGENT_SELECTIONS, 1, vmstate_selection,
                             SpiceVdagentSelection),
        VMSTATE_STRUCT_ARRAY(replies, SpiceVdagentState, 2, 1,
                             vmstate_questions, SpiceVdagentQuestions),
        VMSTATE_UINT32(next_xfer, SpiceVdagentState),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_vdagent_mend,
        NULL
    }
};

static const VMStateDescription vmstate_vdagent_client = {
    .name = "spiceflow/agent/client",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(id, SpiceVdagentClientState),
        VMSTATE_BOOL(started, SpiceVdagentClientState),
        VMSTATE_BOOL(receiving, SpiceVdagentClientState),
        VMSTATE_UINT8(error, SpiceVdagentClientState),
        VMSTATE_BOOL(wanted, SpiceVdagentClientState),
        VMSTATE_BOOL(judged, SpiceVdagentClientState),
        VMSTATE_BOOL(passing, SpiceVdagentClientState),
        VMSTATE_UINT64(message_left, SpiceVdagentClientState),
        VMSTATE_UINT32(prefix_len, SpiceVdagentClientState),
        VMSTATE_BUFFER(prefix, SpiceVdagentClientState),
        VMSTATE_STRUCT(caps, SpiceVdagentClientState, 1, vmstate_caps,
                       SpiceVdagentCaps),
        VMSTATE_STRUCT(told, SpiceVdagentClientState, 1, vmstate_caps,
                       SpiceVdagentCaps),
        VMSTATE_BOOL(announce_due, SpiceVdagentClientState),
        VMSTATE_UINT32(max_clipboard, SpiceVdagentClientState),
        VMSTATE_UINT32_ARRAY(empty_due, SpiceVdagentClientState,
                             SPICE_VDAGENT_SELECTIONS),
        VMSTATE_BOOL_ARRAY(release_due, SpiceVdagentClientState,
                           SPICE_VDAGENT_SELECTIONS),
        VMSTATE_BOOL_ARRAY(grab_due, SpiceVdagentClientState,
                           SPICE_VDAGENT_SELECTIONS),
        VMSTATE_END_OF_LIST()
    }
};

static bool vdagent_xfer_bytes_needed(void *opaque)
{
    SpiceVdagentXferState *x = opaque;

    return x->bytes != 0;
}

/* Since version 2 of the streams; only for what is reported of a transfer. */
static const VMStateDescription vmstate_vdagent_xfer_bytes = {
    .name = "spiceflow/agent/transfer/bytes",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vdagent_xfer_bytes_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(bytes, SpiceVdagentXferState),
        VMSTATE_END_OF_LIST()
    }
};

/* The table is allocated as it is; not all of it comes from the stream. */
static int vdagent_xfer_pre_load(void *opaque)
{
    SpiceVdagentXferState *x = opaque;

    *x = (SpiceVdagentXferState) { 0 };
    return 0;
}

static const VMStateDescription vmstate_vdagent_xfer = {
    .name = "spiceflow/agent/transfer",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = vdagent_xfer_pre_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(client, SpiceVdagentXferState),
        VMSTATE_UINT32(id, SpiceVdagentXferState),
        VMSTATE_UINT32(guest_id, SpiceVdagentXferState),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_vdagent_xfer_bytes,
        NULL
    }
};

static const VMStateDescription vmstate_vdagent_status = {
    .name = "spiceflow/agent/status",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(client, SpiceVdagentStatusState),
        VMSTATE_UINT32(id, SpiceVdagentStatusState),
        VMSTATE_UINT32(result, SpiceVdagentStatusState),
        VMSTATE_END_OF_LIST()
    }
};

static bool vdagent_num_clients_ok(void *opaque, int version_id)
{
    const SpiceVdagentSaved *vdagent = opaque;

    return vdagent->num_clients <= SF_SAVED_CLIENTS_MAX;
}

static bool vdagent_num_xfers_ok(void *opaque, int version_id)
{
    const SpiceVdagentSaved *vdagent = opaque;

    return vdagent->num_xfers <= SPICE_VDAGENT_XFERS;
}

static bool vdagent_num_statuses_ok(void *opaque, int version_id)
{
    const SpiceVdagentSaved *vdagent = opaque;

    return vdagent->num_statuses <=
           vdagent->num_clients * SPICE_VDAGENT_CLIENT_XFERS;
}

static const VMStateDescription vmstate_vdagent = {
    .name = "spiceflow/agent/protocol",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT(agent, SpiceVdagentSaved, 1, vmstate_vdagent_once,
                       SpiceVdagentState),
        VMSTATE_UINT8(clipboard, SpiceVdagentSaved),
        VMSTATE_UINT32(num_clients, SpiceVdagentSaved),
        VMSTATE_UINT32(num_xfers, SpiceVdagentSaved),
        VMSTATE_UINT32(num_statuses, SpiceVdagentSaved),
        VMSTATE_VALIDATE("num_clients", vdagent_num_clients_ok),
        VMSTATE_VALIDATE("num_xfers", vdagent_num_xfers_ok),
        VMSTATE_VALIDATE("num_statuses", vdagent_num_statuses_ok),
        SF_VMSTATE_STRUCTS(clients, SpiceVdagentSaved, num_clients,
                           vmstate_vdagent_client, SpiceVdagentClientState),
        SF_VMSTATE_STRUCTS(xfers, SpiceVdagentSaved, num_xfers,
                           vmstate_vdagent_xfer, SpiceVdagentXferState),
        SF_VMSTATE_STRUCTS(statuses, SpiceVdagentSaved, num_statuses,
                           vmstate_vdagent_status, SpiceVdagentStatusState),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_agent_client = {
    .name = "spiceflow/agent/window",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(id, SFSavedAgentClient),
        VMSTATE_UINT32(window, SFSavedAgentClient),
        VMSTATE_UINT32(owed, SFSavedAgentClient),
        VMSTATE_END_OF_LIST()
    }
};

static bool agent_num_clients_ok(void *opaque, int version_id)
{
    const SFSavedAgent *agent = opaque;

    return agent->num_clients <= SF_SAVED_CLIENTS_MAX;
}

static const VMStateDescription vmstate_agent = {
    .name = "spiceflow/agent",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(broken, SFSavedAgent),
        VMSTATE_UINT32(num_clients, SFSavedAgent),
        VMSTATE_VALIDATE("num_clients", agent_num_clients_ok),
        SF_VMSTATE_STRUCTS(clients, SFSavedAgent, num_clients,
                           vmstate_agent_client, SFSavedAgentClient),
        VMSTATE_STRUCT(vdagent, SFSavedAgent, 1, vmstate_vdagent,
                       SpiceVdagentSaved),
        VMSTATE_END_OF_LIST()
    }
};

/*
 * Raw devices
 */

static bool guard_held_size_ok(void *opaque, int version_id)
{
    const SpiceFlowUsbredirSavedStream *stream = opaque;

    return stream->held_size <= sizeof(stream->held);
}

static const VMStateDescription vmstate_guard_stream = {
    .name = "spiceflow/usbredir/stream",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(hello, SpiceFlowUsbredirSavedStream),
        VMSTATE_UINT32(caps, SpiceFlowUsbredirSavedStream),
        VMSTATE_UINT32(type, SpiceFlowUsbredirSavedStream),
        VMSTATE_UINT32(left, SpiceFlowUsbredirSavedStream),
        VMSTATE_UINT32(held_size, SpiceFlowUsbredirSavedStream),
        VMSTATE_VALIDATE("held_size", guard_held_size_ok),
        VMSTATE_BUFFER(held, SpiceFlowUsbredirSavedStream),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_guard_device = {
    .name = "spiceflow/usbredir/device",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(has_interfaces, SpiceFlowUsbredirDevice),
        VMSTATE_BOOL(has_endpoints, SpiceFlowUsbredirDevice),
        VMSTATE_UINT32(num_interfaces, SpiceFlowUsbredirDevice),
        VMSTATE_BUFFER(interfaces, SpiceFlowUsbredirDevice),
        VMSTATE_BUFFER(type, SpiceFlowUsbredirDevice),
        VMSTATE_BUFFER(interface, SpiceFlowUsbredirDevice),
        VMSTATE_UINT16_ARRAY(max_packet, SpiceFlowUsbredirDevice,
                             SPICE_FLOW_USBREDIR_ENDPOINTS),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_guard_request = {
    .name = "spiceflow/usbredir/request",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(id, SpiceFlowUsbredirRequest),
        VMSTATE_UINT32(stream, SpiceFlowUsbredirRequest),
        VMSTATE_UINT8(endpoint, SpiceFlowUsbredirRequest),
        VMSTATE_END_OF_LIST()
    }
};

static bool guard_num_requests_ok(void *opaque, int version_id)
{
    const SpiceFlowUsbredirSavedOrder *order = opaque;

    return order->num_requests <= SPICE_FLOW_USBREDIR_REQUESTS;
}

static const VMStateDescription vmstate_guard_requests = {
    .name = "spiceflow/usbredir/requests",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(behind, SpiceFlowUsbredirSavedOrder),
        VMSTATE_UINT32(receiving, SpiceFlowUsbredirSavedOrder),
        VMSTATE_STRUCT(device, SpiceFlowUsbredirSavedOrder, 1,
                       vmstate_guard_device, SpiceFlowUsbredirDevice),
        VMSTATE_UINT32(num_requests, SpiceFlowUsbredirSavedOrder),
        VMSTATE_VALIDATE("num_requests", guard_num_requests_ok),
        SF_VMSTATE_STRUCTS(requests, SpiceFlowUsbredirSavedOrder, num_requests,
                           vmstate_guard_request, SpiceFlowUsbredirRequest),
        VMSTATE_END_OF_LIST()
    }
};

static bool guard_order_needed(void *opaque)
{
    return spice_flow_usbredir_saved_order(opaque);
}

/* Since version 2 of the streams; those of version 1 end without it. */
static const VMStateDescription vmstate_guard_order = {
    .name = "spiceflow/usbredir/order",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = guard_order_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT(order, SpiceFlowUsbredirSaved, 1,
                       vmstate_guard_requests, SpiceFlowUsbredirSavedOrder),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_guard = {
    .name = "spiceflow/usbredir",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(refused, SpiceFlowUsbredirSaved),
        VMSTATE_STRUCT_ARRAY(stream, SpiceFlowUsbredirSaved, 2, 1,
                             vmstate_guard_stream,
                             SpiceFlowUsbredirSavedStream),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_guard_order,
        NULL
    }
};

static bool vmc_pending_size_ok(void *opaque, int version_id)
{
    const SFSavedVmc *vmc = opaque;

    return vmc->pending_size <= container_of(vmc, SFSaved, vmc)->data_max;
}

static bool vmc_is_guarded(void *opaque, int version_id)
{
    const SFSavedVmc *vmc = opaque;

    return container_of(vmc, SFSaved, vmc)->type == SPICE_CHANNEL_USBREDIR;
}

static const VMStateDescription vmstate_vmc = {
    .name = "spiceflow/vmc",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(pending_size, SFSavedVmc),
        VMSTATE_VALIDATE("pending_size", vmc_pending_size_ok),
        VMSTATE_VBUFFER_ALLOC_UINT32(pending, SFSavedVmc, 1, NULL,
                                     pending_size),
        VMSTATE_STRUCT_TEST(guard, SFSavedVmc, vmc_is_guarded, 1,
                            vmstate_guard, SpiceFlowUsbredirSaved),
        VMSTATE_END_OF_LIST()
    }
};

/*
 * Smart card
 */

static bool parser_size_ok(void *opaque, int version_id)
{
    const SpiceFlowVscSaved *parser = opaque;

    return parser->size < SPICE_FLOW_VSC_MAX_SIZE;
}

static const VMStateDescription vmstate_parser = {
    .name = "spiceflow/card/parser",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(skip, SpiceFlowVscSaved),
        VMSTATE_UINT32(size, SpiceFlowVscSaved),
        VMSTATE_VALIDATE("size", parser_size_ok),
        VMSTATE_VBUFFER_ALLOC_UINT32(data, SpiceFlowVscSaved, 1, NULL, size),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_card = {
    .name = "spiceflow/card",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(added, SFSavedCard),
        VMSTATE_BOOL(removing, SFSavedCard),
        VMSTATE_UINT32(stale_answers, SFSavedCard),
        VMSTATE_UINT32(commands, SFSavedCard),
        VMSTATE_STRUCT(parser, SFSavedCard, 1, vmstate_parser,
                       SpiceFlowVscSaved),
        VMSTATE_END_OF_LIST()
    }
};

/*
 * Device
 */

static bool is_agent(void *opaque, int version_id)
{
    const SFSaved *saved = opaque;

    return saved->type == SPICE_CHANNEL_MAIN;
}

static bool is_card(void *opaque, int version_id)
{
    const SFSaved *saved = opaque;

    return saved->type == SPICE_CHANNEL_SMARTCARD;
}

static bool is_vmc(void *opaque, int version_id)
{
    return !is_agent(opaque, version_id) && !is_card(opaque, version_id);
}

const VMStateDescription sf_vmstate_saved = {
    .name = "spiceflow/device",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(type, SFSaved),
        VMSTATE_BOOL(guest_open, SFSaved),
        VMSTATE_BOOL(host_open, SFSaved),
        VMSTATE_STRUCT(flow, SFSaved, 1, vmstate_flow, SpiceFlowSaved),
        VMSTATE_STRUCT_TEST(agent, SFSaved, is_agent, 1, vmstate_agent,
                            SFSavedAgent),
        VMSTATE_STRUCT_TEST(vmc, SFSaved, is_vmc, 1, vmstate_vmc, SFSavedVmc),
        VMSTATE_STRUCT_TEST(card, SFSaved, is_card, 1, vmstate_card,
                            SFSavedCard),
        VMSTATE_END_OF_LIST()
    }
};

/*
 * Clients that follow
 */

static const VMStateDescription vmstate_moving_client = {
    .name = "spiceflow/moving/client",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(id, SFMovingClient),
        VMSTATE_UINT32(unanswered, SFMovingClient),
        VMSTATE_END_OF_LIST()
    }
};

static bool moving_num_ok(void *opaque, int version_id)
{
    const SFMoving *moving = opaque;

    return moving->num <= SF_SAVED_CLIENTS_MAX;
}

const VMStateDescription sf_vmstate_moving = {
    .name = "spiceflow/moving/list",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(place, SFMoving),
        VMSTATE_UINT32(num, SFMoving),
        VMSTATE_VALIDATE("num", moving_num_ok),
        SF_VMSTATE_STRUCTS(clients, SFMoving, num, vmstate_moving_client,
                           SFMovingClient),
        VMSTATE_END_OF_LIST()
    }
};

void sf_moving_clear(SFMoving *moving)
{
    g_free(moving->clients);
    *moving = (SFMoving) { 0 };
}

void sf_saved_clear(SFSaved *saved)
{
    uint32_t data_max = saved->data_max;

    spice_flow_saved_clear(&saved->flow);
    g_free(saved->agent.clients);
    spice_vdagent_saved_clear(&saved->agent.vdagent);
    g_free(saved->vmc.pending);
    spice_flow_usbredir_saved_clear(&saved->vmc.guard);
    spice_flow_vsc_saved_clear(&saved->card.parser);
    *saved = (SFSaved) { .data_max = data_max };
}
