/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random walks of the flow machine beside its reference model (tests/unit),
 * in which every state that is restored, by a migration, by one that fails, by
 * a snapshot, has gone through QEMU's own save and load code on its way.
 *
 * The player saves what it has restored again, and compares it with what was
 * saved before, so whatever the stream loses or changes is seen at once, and
 * what it would have led to later is seen as well: machine and model go on
 * with what was loaded.
 *
 * Beside each good stream a damaged one is loaded.  It is refused with a word
 * about it, or becomes a state that the machine takes over or refuses.
 */
#include "qemu/osdep.h"
#include <spice/enums.h>
#include "qemu/module.h"
#include "saved.h"
#include "stream.h"
#include "../player/flow-walk.h"

#define WALKS           (g_test_slow() ? 20000 : 2000)
#define STEPS           250

typedef struct Way {
    GRand *rand;
    uint64_t carried, damaged, refused;
} Way;

static void take_over(const SpiceFlowSaved *saved)
{
    static const SpiceFlowOps ops;
    SpiceFlowParams params = { .max_message = 4096 };
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &params);
    g_autofree char *wrong = NULL;

    if (spice_flow_restore(flow, saved, 5000, &wrong)) {
        g_assert_null(spice_flow_check(flow));
    } else {
        g_assert(wrong && *wrong);
    }
    spice_flow_close(flow);
}

static void damage(Way *way, const GByteArray *stream)
{
    g_autofree uint8_t *data = g_memdup2(stream->data, stream->len);
    size_t len = stream->len;
    SFSaved loaded = { 0 };

    if (g_rand_boolean(way->rand)) {
        data[g_rand_int_range(way->rand, 0, len)] ^=
            1 << g_rand_int_range(way->rand, 0, 8);
    } else {
        len = g_rand_int_range(way->rand, 0, len);
    }
    way->damaged++;
    if (stream_load(&loaded, data, len)) {
        take_over(&loaded.flow);
    } else {
        g_assert_cmpuint(reported->len, >, 0);
        way->refused++;
    }
    sf_saved_clear(&loaded);
}

/* FlowPlayCarry */
static const char *through_stream(void *opaque, const SpiceFlowSaved *saved,
                                  SpiceFlowSaved *carried)
{
    Way *way = opaque;
    SFSaved to = { .type = SPICE_CHANNEL_PORT, .flow = *saved };
    SFSaved from = { 0 };
    g_autoptr(GByteArray) stream = stream_save(&to);

    way->carried++;
    if (!stream_load(&from, stream->data, stream->len)) {
        return reported->str;
    }
    *carried = from.flow;
    from.flow = (SpiceFlowSaved) { 0 };
    sf_saved_clear(&from);
    damage(way, stream);
    return NULL;
}

static void test_walk(void)
{
    Way way = { .rand = g_rand_new_with_seed(g_test_rand_int()) };

    for (uint64_t seed = 1; seed <= WALKS; seed++) {
        FlowPlay *play = flow_play_new();
        const char *error = NULL;
        FlowWalk walk;

        flow_play_set_carry(play, through_stream, &way);
        flow_walk_begin(&walk, seed);
        for (int i = 0; i < STEPS && !error; i++) {
            FlowStep step;

            flow_walk_next(&walk, play, &step);
            error = flow_play_step(play, &step);
            if (error) {
                g_test_message("seed %" PRIu64 ", step %d: %s", seed, i,
                               error);
            }
        }
        g_assert_null(error);
        flow_play_free(play);
    }
    g_test_message("%" PRIu64 " states were carried, %" PRIu64 " damaged, of "
                   "those %" PRIu64 " refused", way.carried, way.damaged,
                   way.refused);
    g_assert_cmpuint(way.carried, >, WALKS);
    g_assert_cmpuint(way.refused, >, 0);
    g_rand_free(way.rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    reported = g_string_new(NULL);
    g_test_add_func("/spiceflow/walk/carried", test_walk);
    return g_test_run();
}
