/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random walks of the flow-control machine beside its reference model.
 *
 * A walk is a list of random steps of flow-play.h, all kinds of them, callbacks
 * that call back included, chosen so that they mean something most of the
 * time: clients send what they have tokens for, sockets get stuck and free
 * again, the guest takes little, nothing or too much.  The player compares the
 * two sides after every step.
 *
 * When a walk fails its seed is printed, and the shortest script found that
 * fails the same way, in the language of test-flow.c: put it there.
 *
 *   test-flow-walk [--walks N] [--steps N] [--seed N] [--seconds N] [--brief]
 */
#include "flow-play.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng_state;

/* xorshift64*: the same walk for the same seed on every machine */
static uint32_t rnd(uint32_t below)
{
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (uint32_t)((rng_state * UINT64_C(2685821657736338717)) >> 33) %
           below;
}

static bool one_in(uint32_t n)
{
    return rnd(n) == 0;
}

/* What is likely in this walk. */
typedef struct Mood {
    unsigned clients;           /* how many letters are used */
    bool raw;                   /* a byte stream */
    bool same;                  /* all clients have the same properties */
    bool calm;                  /* nothing is put off into callbacks */
    uint32_t timeout;
    uint32_t max;
    FlowStep add;
} Mood;

static uint32_t some_len(const Mood *mood)
{
    switch (rnd(16)) {
    case 0:
        return 1;
    case 1:
        return mood->max;
    default:
        return 1 + rnd(MIN(mood->max, 24));
    }
}

static void make_add(const Mood *mood, FlowStep *step)
{
    bool fc = mood->raw ? one_in(4) : !one_in(6);
    uint32_t window = rnd(6);

    *step = (FlowStep) {
        .op = STEP_ADD,
        .v = { fc ? window << 1 | 1 : 0, fc ? rnd(4) : 0, fc ? rnd(4) : 0,
               8 + rnd(100), 1 + rnd(4), mood->max + rnd(60), 1 + rnd(4) },
    };
}

static void make_open(Mood *mood, FlowStep *step)
{
    *mood = (Mood) {
        .clients = 1 + rnd(one_in(4) ? FLOW_PLAY_CLIENTS : 3),
        .raw = one_in(3),
        .same = one_in(3),
        .calm = one_in(3),
        .timeout = one_in(8) ? rnd(4) : 40 + rnd(100),
        .max = 1 + rnd(40),
    };
    make_add(mood, &mood->add);
    *step = (FlowStep) {
        .op = STEP_OPEN,
        .v = { mood->raw, rnd(3), mood->max, mood->timeout, mood->clients },
    };
}

static void choose(const FlowPlay *play, const Mood *mood, FlowStep *step)
{
    SpiceFlowInfo info = { 0 };
    SpiceFlowClientInfo c = { 0 };
    uint32_t *v = step->v;
    bool there, fc;

    *step = (FlowStep) { .who = 1 + rnd(mood->clients) };
    flow_play_info(play, &info);
    there = flow_play_client(play, step->who, &c);
    fc = c.flow_control;
    if (!info.running && one_in(5)) {
        step->op = STEP_START;
        return;
    }
    if (!there && one_in(3)) {
        uint8_t who = step->who;

        *step = mood->add;
        if (!mood->same) {
            make_add(mood, step);
        }
        step->who = who;
        return;
    }
    if (c.away && one_in(3)) {
        step->op = STEP_RESUME;
        v[0] = one_in(6) ? 1 + rnd(3) : 0;
        return;
    }
    switch (rnd(64)) {
    case 0:
        step->op = one_in(2) ? STEP_STOP : STEP_START;
        break;
    case 1:
        step->op = one_in(3) ? STEP_RESET : STEP_SETTLE;
        break;
    case 2:
    case 3:
        step->op = one_in(16) ? STEP_TIMEOUT : STEP_TICK;
        v[0] = one_in(4) ? mood->timeout : rnd(mood->timeout / 2 + 2);
        break;
    case 4:
        step->op = one_in(2) ? STEP_REMOVE : STEP_SETTLE;
        break;
    case 5:
        make_add(mood, step);
        step->who = 1 + rnd(mood->clients);
        break;
    case 6:
        step->op = one_in(3) ? STEP_MOVE : one_in(2) ? STEP_RETURN : STEP_BAD;
        v[0] = step->op == STEP_BAD ? rnd(UINT32_MAX) : rnd(4);
        break;
    case 7:
        step->op = one_in(3) ? STEP_REVERT : one_in(2) ? STEP_SNAP : STEP_BAD;
        v[0] = step->op == STEP_BAD ? rnd(UINT32_MAX) : 0;
        break;
    case 8:
        step->op = STEP_OWNER;
        v[0] = rnd(4) & rnd(4);
        break;
    case 9:
    case 10:
        step->op = STEP_GUEST;
        v[0] = one_in(3) ? 0 : one_in(3) ? UINT32_MAX : rnd(60);
        v[1] = one_in(2) ? 0 : 1 + rnd(9);
        v[2] = rnd(4);
        break;
    case 11: case 12: case 13:
        step->op = STEP_TAKES;
        v[0] = rnd(50);
        break;
    case 14:
        step->op = STEP_READY;
        break;
    case 15:
    case 16:
        step->op = STEP_SERVER;
        v[0] = some_len(mood);
        break;
    case 17:
        step->op = STEP_UNPAID;
        v[0] = rnd(4);
        break;
    case 18:
        step->op = STEP_ROOM;
        break;
    case 19:
        step->op = STEP_CANCEL;
        break;
    case 20: case 21: case 22:
        /* one in a while without a token, or without a beginning */
        if (fc && c.client_tokens == 0 && !one_in(6)) {
            step->op = STEP_SETTLE;
            break;
        }
        step->op = STEP_BEGIN;
        break;
    case 23: case 24: case 25:
        step->op = STEP_BODY;
        v[0] = one_in(20) ? mood->max + 1 + rnd(3) : one_in(20) ? 0
                                                  : some_len(mood);
        v[1] = !mood->raw && one_in(3);
        v[2] = one_in(4) ? rnd(9) : 0;
        break;
    case 26: case 27: case 28: case 29: case 30: case 31: case 32: case 33:
    case 34:
        if (fc && c.client_tokens == 0 && !one_in(10)) {
            step->op = STEP_SETTLE;
            break;
        }
        step->op = STEP_WRITE;
        v[0] = some_len(mood);
        v[1] = !mood->raw && one_in(3);
        v[2] = one_in(4) ? rnd(9) : 0;
        break;
    case 35:
        step->op = STEP_MAY;
        v[0] = some_len(mood);
        break;
    case 36: case 37: case 38: case 39: case 40: case 41:
        step->op = STEP_SEND;
        v[0] = some_len(mood);
        break;
    case 42: case 43:
        step->op = STEP_STREAM;
        v[0] = 1 + rnd(120);
        break;
    case 44:
        step->op = STEP_MAYTO;
        v[0] = some_len(mood);
        break;
    case 45: case 46:
        step->op = STEP_SENDTO;
        v[0] = some_len(mood);
        break;
    case 47: case 48: case 49:
        step->op = STEP_STUCK;
        v[0] = one_in(2);
        break;
    case 50: case 51: case 52: case 53:
        step->op = STEP_OUT;
        v[0] = 1 + rnd(4);
        break;
    case 54: case 55: case 56: case 57:
        step->op = STEP_GRANT;
        v[0] = one_in(20) ? UINT32_MAX : rnd(4);
        break;
    case 58:
        step->op = STEP_SET;
        v[0] = one_in(20) ? UINT32_MAX : rnd(3);
        break;
    case 59:
        step->op = one_in(20) ? STEP_CLOSE : STEP_SETTLE;
        break;
    default:
        step->op = STEP_SETTLE;
        break;
    }
    if (!mood->calm && one_in(8)) {
        step->in = 1 + rnd(IN__MAX - 1);
    }
}

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
    Mood mood;

    rng_state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (unsigned i = 0; i < length && !error; i++) {
        FlowStep step;

        if (!flow_play_is_open(play)) {
            make_open(&mood, &step);
        } else {
            choose(play, &mood, &step);
        }
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
