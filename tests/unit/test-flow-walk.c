/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random walks (flow-walk.h) of the flow-control machine beside its reference
 * model.  The player compares the two sides after every step.
 *
 * When a walk fails its seed is printed, and the shortest script found that
 * fails the same way, in the language of test-flow.c: put it there.
 *
 *   test-flow-walk [--walks N] [--steps N] [--seed N] [--seconds N] [--brief]
 */
#include "flow-walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *replay(FlowPlay *play, const GArray *steps)
{
    for (guint i = 0; i < steps->len; i++) {
        const char *error =
            flow_play_step(play, &g_array_index(steps, FlowStep, i));

        if (error) {
            return error;
        }
    }
    return NULL;
}

/* The first words of an error: what kind it is. */
static bool same_kind(const char *a, const char *b)
{
    return !strncmp(a, b, 20);
}

static bool fails_so(const GArray *steps, const char *error)
{
    FlowPlay *play = flow_play_new();
    const char *now = replay(play, steps);
    bool so = now && same_kind(now, error);

    flow_play_free(play);
    return so;
}

/* Leave out whatever can be left out, first large pieces, then single steps. */
static void shrink(GArray *steps, const char *error)
{
    for (guint piece = MAX(steps->len / 2, 1); piece > 0;) {
        bool less = false;

        for (guint i = 0; i + piece <= steps->len;) {
            GArray *shorter = g_array_new(FALSE, FALSE, sizeof(FlowStep));

            g_array_append_vals(shorter, steps->data, i);
            g_array_append_vals(shorter,
                                &g_array_index(steps, FlowStep, i + piece),
                                steps->len - i - piece);
            if (fails_so(shorter, error)) {
                g_array_set_size(steps, 0);
                g_array_append_vals(steps, shorter->data, shorter->len);
                less = true;
            } else {
                i += piece;
            }
            g_array_unref(shorter);
        }
        if (piece > 1) {
            piece /= 2;
        } else if (!less) {
            break;
        }
    }
}

/* Lines of a comment, as TAP wants it. */
static void print_error(const char *error)
{
    g_auto(GStrv) lines = g_strsplit(error, "\n", -1);
    g_autofree char *text = g_strjoinv("\n#", lines);

    printf("%s\n", text);
}

static bool brief;

static void report(uint64_t seed, GArray *steps, const char *said)
{
    g_autofree char *error = g_strdup(said);
    const char *again;
    FlowPlay *play;

    printf("# seed %" G_GUINT64_FORMAT ", step %u: ", (guint64)seed,
           steps->len);
    print_error(error);
    if (brief) {
        return;
    }
    shrink(steps, error);
    printf("#\n# The same in %u steps:\n", steps->len);
    for (guint i = 0; i < steps->len; i++) {
        g_autofree char *line =
            flow_step_print(&g_array_index(steps, FlowStep, i));

        printf("#   \"%s\\n\"\n", line);
    }
    play = flow_play_new();
    printf("# ");
    again = replay(play, steps);
    print_error(again ? again : "it did not fail again");
    flow_play_free(play);
}

static bool walk(uint64_t seed, unsigned length, uint64_t *bytes)
{
    GArray *steps = g_array_new(FALSE, FALSE, sizeof(FlowStep));
    FlowPlay *play = flow_play_new();
    const char *error = NULL;
    FlowWalk w;

    flow_walk_begin(&w, seed);
    for (unsigned i = 0; i < length && !error; i++) {
        FlowStep step;

        flow_walk_next(&w, play, &step);
        g_array_append_val(steps, step);
        error = flow_play_step(play, &step);
    }
    if (error) {
        report(seed, steps, error);
    }
    *bytes += flow_play_bytes(play);
    flow_play_free(play);
    g_array_unref(steps);
    return !error;
}

static uint64_t argument(int argc, char **argv, const char *name,
                         uint64_t otherwise)
{
    for (int i = 1; i + 1 < argc; i++) {
        if (!strcmp(argv[i], name)) {
            return g_ascii_strtoull(argv[i + 1], NULL, 0);
        }
    }
    return otherwise;
}

int main(int argc, char **argv)
{
    uint64_t walks = argument(argc, argv, "--walks", 4000);
    uint64_t length = argument(argc, argv, "--steps", 250);
    uint64_t seed = argument(argc, argv, "--seed", 1);
    uint64_t seconds = argument(argc, argv, "--seconds", 0);
    uint64_t keep_going = argument(argc, argv, "--failures", 1);
    int64_t begin = g_get_monotonic_time();
    uint64_t bytes = 0, done = 0;
    double took;
    bool good = true;

    for (int i = 1; i < argc; i++) {
        brief = brief || !strcmp(argv[i], "--brief");
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..1\n");
    for (;; done++) {
        if (seconds ? g_get_monotonic_time() - begin >=
                      (int64_t)seconds * G_USEC_PER_SEC : done >= walks) {
            break;
        }
        if (!walk(seed + done, length, &bytes)) {
            good = false;
            if (!--keep_going) {
                break;
            }
        }
    }
    took = (g_get_monotonic_time() - begin) / 1e6;
    printf("# %" G_GUINT64_FORMAT " walks of %" G_GUINT64_FORMAT
           " steps, %" G_GUINT64_FORMAT " bytes compared, %.1f s "
           "(%.0f steps/s)\n", (guint64)done, (guint64)length, (guint64)bytes,
           took, done * length / took);
    printf("%sok 1 /flow/walk\n", good ? "" : "not ");
    return good ? 0 : 1;
}
