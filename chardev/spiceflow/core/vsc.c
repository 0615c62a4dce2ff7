/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Smart-card (VSC) messages.
 *
 * Theory of operation
 *
 * The parser stands at one of three places of its stream:
 *
 *   header    0 to 11 bytes of a header are held, in the parser itself
 *   payload   the header is complete, some of the payload is held
 *   skip      a message was refused; its payload is thrown away as it comes
 *
 * One call uses bytes up to the end of one message at most, whatever the
 * bytes behind it are; that is how several messages in one piece and one
 * message in several pieces come to the same.  (The 2012 code, still in
 * spice-server, kept a "remaining data size" next to a buffer position and
 * mixed them up; here what remains is always computed from what is held.)
 *
 * A payload that lies in the caller's bytes whole is handed out from there.
 * Otherwise it is gathered in a block that doubles as bytes come: a header
 * alone allocates nothing.  The block is kept for the next message, and never
 * exceeds SPICE_FLOW_VSC_MAX_SIZE.
 */
#include "chardev/spiceflow/vsc.h"

#include <string.h>

/* The first block for a payload: an ordinary APDU fits */
#define PAYLOAD_MIN     256
#define PAYLOAD_MAX     (SPICE_FLOW_VSC_MAX_SIZE - SPICE_FLOW_VSC_HEADER_SIZE)

struct SpiceFlowVsc {
    SpiceFlowVscOrder order;
    uint8_t header[SPICE_FLOW_VSC_HEADER_SIZE];
    size_t header_len;
    uint8_t *payload;
    size_t payload_len;
    size_t payload_size;
    uint32_t skip;
};

static uint32_t get_u32(const uint8_t *in, SpiceFlowVscOrder order)
{
    uint32_t word;

    memcpy(&word, in, sizeof(word));
    return order == SPICE_FLOW_VSC_WIRE ? GUINT32_FROM_LE(word)
                                        : GUINT32_FROM_BE(word);
}

static void put_u32(uint8_t *out, SpiceFlowVscOrder order, uint32_t word)
{
    word = order == SPICE_FLOW_VSC_WIRE ? GUINT32_TO_LE(word)
                                        : GUINT32_TO_BE(word);
    memcpy(out, &word, sizeof(word));
}

SpiceFlowVsc *spice_flow_vsc_new(SpiceFlowVscOrder order)
{
    SpiceFlowVsc *vsc = g_new0(SpiceFlowVsc, 1);

    vsc->order = order;
    return vsc;
}

void spice_flow_vsc_free(SpiceFlowVsc *vsc)
{
    if (vsc) {
        g_free(vsc->payload);
        g_free(vsc);
    }
}

void spice_flow_vsc_reset(SpiceFlowVsc *vsc)
{
    vsc->header_len = 0;
    vsc->payload_len = 0;
    vsc->skip = 0;
}

/* Returns how many of @len bytes the header took. */
static size_t take_header(SpiceFlowVsc *vsc, const uint8_t *data, size_t len)
{
    size_t n = MIN(len, SPICE_FLOW_VSC_HEADER_SIZE - vsc->header_len);

    if (n) {
        memcpy(vsc->header + vsc->header_len, data, n);
        vsc->header_len += n;
    }
    return n;
}

/* Appends to the payload; @len does not go beyond its end. */
static void take_payload(SpiceFlowVsc *vsc, const uint8_t *data, size_t len)
{
    size_t need = vsc->payload_len + len;

    if (need > vsc->payload_size) {
        vsc->payload_size = MIN(MAX(2 * need, PAYLOAD_MIN), PAYLOAD_MAX);
        vsc->payload = g_realloc(vsc->payload, vsc->payload_size);
    }
    if (len) {
        memcpy(vsc->payload + vsc->payload_len, data, len);
        vsc->payload_len = need;
    }
}

SpiceFlowVscResult spice_flow_vsc_feed(SpiceFlowVsc *vsc,
                                       const uint8_t *data, size_t len,
                                       size_t *used,
                                       SpiceFlowVscMessage *message)
{
    size_t pos = MIN(len, vsc->skip);
    size_t rest;

    *used = 0;
    if (!len) {
        return SPICE_FLOW_VSC_MORE;
    }
    vsc->skip -= pos;
    if (!vsc->skip) {
        pos += take_header(vsc, data + pos, len - pos);
    }
    *used = pos;
    if (vsc->header_len < SPICE_FLOW_VSC_HEADER_SIZE) {
        return SPICE_FLOW_VSC_MORE;
    }

    *message = (SpiceFlowVscMessage) {
        .type = get_u32(vsc->header, vsc->order),
        .reader_id = get_u32(vsc->header + 4, vsc->order),
        .length = get_u32(vsc->header + 8, vsc->order),
    };
    if (message->length > PAYLOAD_MAX) {
        vsc->skip = message->length;
        vsc->header_len = 0;
        return SPICE_FLOW_VSC_TOO_LONG;
    }

    rest = message->length - vsc->payload_len;
    if (len - pos < rest) {
        take_payload(vsc, data + pos, len - pos);
        *used = len;
        return SPICE_FLOW_VSC_MORE;
    }
    if (vsc->payload_len) {
        take_payload(vsc, data + pos, rest);
        message->payload = vsc->payload;
    } else {
        message->payload = data + pos;
    }
    *used = pos + rest;
    vsc->header_len = 0;
    vsc->payload_len = 0;
    return SPICE_FLOW_VSC_MESSAGE;
}

bool spice_flow_vsc_partial(const SpiceFlowVsc *vsc)
{
    return vsc->skip || vsc->header_len;
}

size_t spice_flow_vsc_memory(const SpiceFlowVsc *vsc)
{
    return vsc->payload_size;
}

void spice_flow_vsc_save(const SpiceFlowVsc *vsc, SpiceFlowVscSaved *saved)
{
    *saved = (SpiceFlowVscSaved) {
        .skip = vsc->skip,
        .size = vsc->header_len + vsc->payload_len,
    };
    if (saved->size) {
        saved->data = g_malloc(saved->size);
        memcpy(saved->data, vsc->header, vsc->header_len);
    }
    if (vsc->payload_len) {
        memcpy(saved->data + vsc->header_len, vsc->payload, vsc->payload_len);
    }
}

/* Returns NULL, or the field that can not be. */
static const char *saved_wrong(const SpiceFlowVsc *vsc,
                               const SpiceFlowVscSaved *saved)
{
    uint32_t length;

    if (saved->skip && saved->size) {
        return "skip";
    }
    if (saved->size >= SPICE_FLOW_VSC_MAX_SIZE) {
        return "size";
    }
    if (saved->size >= SPICE_FLOW_VSC_HEADER_SIZE) {
        length = get_u32(saved->data + 8, vsc->order);
        if (length > PAYLOAD_MAX ||
            length <= saved->size - SPICE_FLOW_VSC_HEADER_SIZE) {
            return "data";
        }
    }
    return NULL;
}

bool spice_flow_vsc_restore(SpiceFlowVsc *vsc, const SpiceFlowVscSaved *saved,
                            char **error)
{
    const char *field = saved_wrong(vsc, saved);
    size_t header_len;

    if (field) {
        *error = g_strdup(field);
        return false;
    }
    spice_flow_vsc_reset(vsc);
    vsc->skip = saved->skip;
    header_len = take_header(vsc, saved->data, saved->size);
    if (header_len < saved->size) {
        take_payload(vsc, saved->data + header_len, saved->size - header_len);
    }
    return true;
}

void spice_flow_vsc_saved_clear(SpiceFlowVscSaved *saved)
{
    g_free(saved->data);
    *saved = (SpiceFlowVscSaved) { .data = NULL };
}

void spice_flow_vsc_put_header(uint8_t *out, SpiceFlowVscOrder order,
                               uint32_t type, uint32_t reader_id,
                               uint32_t length)
{
    put_u32(out, order, type);
    put_u32(out + 4, order, reader_id);
    put_u32(out + 8, order, length);
}

void spice_flow_vsc_put_error(uint8_t *out, SpiceFlowVscOrder order,
                              uint32_t reader_id, uint32_t code)
{
    spice_flow_vsc_put_header(out, order, SPICE_FLOW_VSC_ERROR, reader_id,
                              sizeof(code));
    put_u32(out + SPICE_FLOW_VSC_HEADER_SIZE, SPICE_FLOW_VSC_DEVICE, code);
}

bool spice_flow_vsc_get_error(const SpiceFlowVscMessage *message,
                              uint32_t *code)
{
    if (message->length < sizeof(*code)) {
        return false;
    }
    *code = get_u32(message->payload, SPICE_FLOW_VSC_DEVICE);
    return true;
}

void spice_flow_vsc_put_reader_add(uint8_t *out, SpiceFlowVscOrder order,
                                   uint32_t reader_id)
{
    spice_flow_vsc_put_header(out, order, SPICE_FLOW_VSC_READER_ADD, reader_id,
                              0);
}

void spice_flow_vsc_put_reader_remove(uint8_t *out, SpiceFlowVscOrder order,
                                      uint32_t reader_id)
{
    spice_flow_vsc_put_header(out, order, SPICE_FLOW_VSC_READER_REMOVE,
                              reader_id, 0);
}

const char *spice_flow_vsc_type_name(uint32_t type)
{
    static const char *const names[] = {
        [SPICE_FLOW_VSC_INIT] = "Init",
        [SPICE_FLOW_VSC_ERROR] = "Error",
        [SPICE_FLOW_VSC_READER_ADD] = "ReaderAdd",
        [SPICE_FLOW_VSC_READER_REMOVE] = "ReaderRemove",
        [SPICE_FLOW_VSC_ATR] = "ATR",
        [SPICE_FLOW_VSC_CARD_REMOVE] = "CardRemove",
        [SPICE_FLOW_VSC_APDU] = "APDU",
        [SPICE_FLOW_VSC_FLUSH] = "Flush",
        [SPICE_FLOW_VSC_FLUSH_COMPLETE] = "FlushComplete",
    };

    if (type >= G_N_ELEMENTS(names) || !names[type]) {
        return "unknown";
    }
    return names[type];
}
