/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzes the parser of smart-card messages.
 *
 * Input: one byte for the byte order, one for how the rest is cut, and the
 * stream.  A second reading of the stream, in one go and by the definition of
 * a message only, says what must come out of the parser; in between, the
 * parser is saved and restored now and then.
 */
#include "chardev/spiceflow/vsc.h"
#include "fuzz.h"

#include <string.h>

typedef struct Oracle {
    const uint8_t *data;
    size_t size;
    size_t pos;
    SpiceFlowVscOrder order;
} Oracle;

static uint32_t word_at(const Oracle *oracle, size_t pos)
{
    const uint8_t *in = oracle->data + pos;

    if (oracle->order == SPICE_FLOW_VSC_WIRE) {
        return in[0] | in[1] << 8 | in[2] << 16 | (uint32_t)in[3] << 24;
    }
    return in[3] | in[2] << 8 | in[1] << 16 | (uint32_t)in[0] << 24;
}

static SpiceFlowVscResult oracle_next(Oracle *oracle,
                                      SpiceFlowVscMessage *message)
{
    size_t left = oracle->size - oracle->pos;

    if (left < 12) {
        return SPICE_FLOW_VSC_MORE;
    }
    message->type = word_at(oracle, oracle->pos);
    message->reader_id = word_at(oracle, oracle->pos + 4);
    message->length = word_at(oracle, oracle->pos + 8);
    if (message->length > 65536 - 12) {
        oracle->pos += MIN(left, (size_t)message->length + 12);
        return SPICE_FLOW_VSC_TOO_LONG;
    }
    if (left < message->length + 12) {
        return SPICE_FLOW_VSC_MORE;
    }
    message->payload = oracle->data + oracle->pos + 12;
    oracle->pos += message->length + 12;
    return SPICE_FLOW_VSC_MESSAGE;
}

static void same(const SpiceFlowVscMessage *got,
                 const SpiceFlowVscMessage *want, SpiceFlowVscResult result)
{
    g_assert_cmphex(got->type, ==, want->type);
    g_assert_cmphex(got->reader_id, ==, want->reader_id);
    g_assert_cmphex(got->length, ==, want->length);
    if (result == SPICE_FLOW_VSC_MESSAGE) {
        g_assert_cmpmem(got->payload, got->length,
                        want->payload, want->length);
    }
}

static SpiceFlowVsc *reload(SpiceFlowVsc *vsc, SpiceFlowVscOrder order)
{
    SpiceFlowVsc *next = spice_flow_vsc_new(order);
    g_autofree char *error = NULL;
    SpiceFlowVscSaved saved;

    spice_flow_vsc_save(vsc, &saved);
    g_assert_true(spice_flow_vsc_restore(next, &saved, &error));
    g_assert_cmpint(spice_flow_vsc_partial(next), ==,
                    spice_flow_vsc_partial(vsc));
    spice_flow_vsc_saved_clear(&saved);
    spice_flow_vsc_free(vsc);
    return next;
}

/* The input as a saved state: refused or taken, never more. */
static void restore_anything(const uint8_t *data, size_t size,
                             SpiceFlowVscOrder order)
{
    g_autoptr(SpiceFlowVsc) vsc = spice_flow_vsc_new(order);
    SpiceFlowVscSaved saved = { .skip = 0 }, again;
    SpiceFlowVscMessage message;
    char *error = NULL;
    size_t used;

    if (size < 4) {
        return;
    }
    memcpy(&saved.skip, data, 4);
    saved.size = size - 4;
    saved.data = g_memdup2(data + 4, size - 4);
    if (spice_flow_vsc_restore(vsc, &saved, &error)) {
        spice_flow_vsc_save(vsc, &again);
        g_assert_cmpuint(again.skip, ==, saved.skip);
        g_assert_cmpmem(again.data, again.size, saved.data, saved.size);
        spice_flow_vsc_saved_clear(&again);
        spice_flow_vsc_feed(vsc, data, size, &used, &message);
    }
    g_free(error);
    spice_flow_vsc_saved_clear(&saved);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    SpiceFlowVsc *vsc;
    Oracle oracle;
    uint32_t cut;
    size_t pos = 0;

    if (size < 2) {
        return 0;
    }
    oracle = (Oracle) { .data = data + 2, .size = size - 2,
                        .order = data[0] & 1 };
    cut = data[1];
    restore_anything(oracle.data, oracle.size, oracle.order);

    vsc = spice_flow_vsc_new(oracle.order);
    while (pos < oracle.size) {
        size_t piece = cut ? 1 + cut % 97 : oracle.size;
        size_t end = MIN(pos + piece, oracle.size);

        cut = cut * 1103515245u + 12345u;
        for (;;) {
            g_autofree uint8_t *exact = g_memdup2(oracle.data + pos,
                                                  end - pos);
            SpiceFlowVscMessage got = { .type = 0 }, want = { .type = 0 };
            SpiceFlowVscResult result;
            size_t used;

            result = spice_flow_vsc_feed(vsc, exact, end - pos, &used, &got);
            g_assert_cmpuint(used, <=, end - pos);
            pos += used;
            g_assert_cmpuint(spice_flow_vsc_memory(vsc), <=,
                             MAX(2 * pos, 256));
            g_assert_cmpuint(spice_flow_vsc_memory(vsc), <=, 65536);
            if (result == SPICE_FLOW_VSC_MORE) {
                g_assert_cmpuint(pos, ==, end);
                break;
            }
            g_assert_cmpint(oracle_next(&oracle, &want), ==, result);
            same(&got, &want, result);
        }
        if (cut & 0x10000) {
            vsc = reload(vsc, oracle.order);
        }
    }
    {
        SpiceFlowVscMessage want;

        g_assert_cmpint(oracle_next(&oracle, &want), ==, SPICE_FLOW_VSC_MORE);
    }
    spice_flow_vsc_free(vsc);
    return 0;
}
