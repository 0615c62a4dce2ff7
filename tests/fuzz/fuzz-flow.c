/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of the flow-control machine: bytes are steps of flow-play.h in
 * tests/unit, done to the machine and to the reference model.  A difference
 * between the two is a finding like any crash; it is printed with the script
 * that leads to it.
 *
 * The corpus is what "test-flow --corpus tests/fuzz/corpus/flow" writes.
 */
#include "flow-play.h"
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

/* Longer inputs only say the same more slowly. */
#define STEPS_MAX 300

static void finding(const uint8_t *data, size_t end, const char *error)
{
    FlowStep step;
    size_t n;

    for (size_t at = 0; at < end; at += n) {
        g_autofree char *line = NULL;

        n = flow_step_decode(&step, data + at, end - at);
        line = flow_step_print(&step);
        fprintf(stderr, "    \"%s\\n\"\n", line);
    }
    fprintf(stderr, "%s\n", error);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FlowPlay *play = flow_play_new();
    const char *error = NULL;
    FlowStep step;
    size_t at = 0, n;

    for (unsigned i = 0; i < STEPS_MAX && !error; i++, at += n) {
        n = flow_step_decode(&step, data + at, size - at);
        if (n == 0) {
            break;
        }
        error = flow_play_step(play, &step);
    }
    if (error) {
        finding(data, at, error);
    }
    flow_play_free(play);
    return 0;
}
