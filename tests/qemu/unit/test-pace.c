/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of how much the channels of a server move in a turn of the main loop.
 * A channel here has a backlog, moves pieces of it as long as it may, and does
 * so again when its turn has come.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "pace.h"

#define CHANNELS    64
#define PIECE       (64 * KiB)
/* What pace.c says. */
#define ALONE_MAX   (1 * MiB)
#define TURN_MAX    (512 * KiB)
#define SHARE_MIN   (128 * KiB)
#define LITTLE_MAX  (4 * KiB)

typedef struct Channel {
    struct Fixture *f;
    SFPaced paced;
    size_t piece;
    uint64_t backlog;
    uint64_t moved;
    unsigned gone;              /* how often its turn came */
} Channel;

typedef struct Fixture {
    SFPace pace;
    Channel channels[CHANNELS];
    uint64_t moved;             /* by all of them in this turn */
    GString *order;             /* whose turn came, a letter each */
} Fixture;

static void channel_move(Channel *c)
{
    while (c->backlog) {
        size_t n = MIN(c->piece, c->backlog);

        if (n > sf_pace_limit(&c->paced)) {
            sf_pace_wait(&c->paced);
            return;
        }
        sf_pace_moved(&c->paced, n);
        c->backlog -= n;
        c->moved += n;
        c->f->moved += n;
    }
}

static void channel_go(void *opaque)
{
    Channel *c = opaque;

    c->gone++;
    g_string_append_c(c->f->order, 'A' + (c - c->f->channels));
    channel_move(c);
}

static void setup(Fixture *f, const void *data)
{
    sf_pace_init(&f->pace);
    f->order = g_string_new(NULL);
    for (int i = 0; i < CHANNELS; i++) {
        f->channels[i] = (Channel) {
            .f = f,
            .paced = {
                .pace = &f->pace, .go = channel_go, .cost = 1,
                .opaque = &f->channels[i],
            },
            .piece = PIECE,
        };
    }
}

static void teardown(Fixture *f, const void *data)
{
    for (int i = 0; i < CHANNELS; i++) {
        sf_pace_leave(&f->channels[i].paced);
    }
    g_assert_cmpuint(f->pace.num_waiting, ==, 0);
    sf_pace_cleanup(&f->pace);
    /* No source is left behind. */
    g_assert_false(g_main_context_iteration(NULL, false));
    g_string_free(f->order, true);
}

/* A turn of the main loop; returns what was moved at its end. */
static uint64_t turn(Fixture *f)
{
    f->moved = 0;
    g_main_context_iteration(NULL, false);
    return f->moved;
}

static void fill(Fixture *f, int n, uint64_t backlog)
{
    for (int i = 0; i < n; i++) {
        f->channels[i].backlog += backlog;
    }
}

/* All that have something and do not wait try it, as their sockets say. */
static void try_all(Fixture *f)
{
    for (int i = 0; i < CHANNELS; i++) {
        if (!f->channels[i].paced.waits) {
            channel_move(&f->channels[i]);
        }
    }
}

/* All have more to move than there is time for. */
static void flood(Fixture *f)
{
    fill(f, CHANNELS, 64 * MiB);
    try_all(f);
    for (int i = 0; i < 512; i++) {
        turn(f);
        try_all(f);
    }
}

/* In a turn that many share no more goes than is said, whoever they are. */
static void test_bound(Fixture *f, const void *data)
{
    fill(f, CHANNELS, 8 * MiB);
    f->moved = 0;
    try_all(f);
    g_assert_cmpuint(f->moved, ==, ALONE_MAX);
    for (int i = 0; i < 200; i++) {
        uint64_t moved = turn(f);

        try_all(f);
        g_assert_cmpuint(moved, ==, TURN_MAX);
        g_assert_cmpuint(f->moved, ==, moved);
    }
}

/* All come to their end, and nobody is much ahead on the way. */
static void test_fair(Fixture *f, const void *data)
{
    uint64_t least, most;

    fill(f, CHANNELS, 4 * MiB);
    do {
        least = UINT64_MAX;
        most = 0;
        turn(f);
        try_all(f);
        for (int i = 0; i < CHANNELS; i++) {
            least = MIN(least, f->channels[i].moved);
            most = MAX(most, f->channels[i].moved);
        }
        /* The first had the first turn to itself. */
        g_assert_cmpuint(most - least, <=, ALONE_MAX + SHARE_MIN);
    } while (least < 4 * MiB);
    turn(f);
}

/* Those who wait go in the order in which they came, as many as fit. */
static void test_order(Fixture *f, const void *data)
{
    fill(f, 6, 4 * MiB);
    try_all(f);
    turn(f);
    g_assert_cmpstr(f->order->str, ==, "ABCD");
    turn(f);
    g_assert_cmpstr(f->order->str, ==, "ABCDEFAB");
}

/* Few share a whole turn. */
static void test_share(Fixture *f, const void *data)
{
    fill(f, 2, 4 * MiB);
    try_all(f);
    g_assert_cmpuint(turn(f), ==, TURN_MAX);
    g_assert_cmpuint(f->channels[1].moved, ==, TURN_MAX / 2);
}

/* Whoever waits: little goes at once, in each turn again. */
static void test_little(Fixture *f, const void *data)
{
    Channel *probe = &f->channels[CHANNELS - 1];

    probe->piece = 1;
    fill(f, CHANNELS - 1, 8 * MiB);
    try_all(f);
    for (int i = 0; i < 10; i++) {
        probe->backlog = LITTLE_MAX;
        channel_move(probe);
        g_assert_cmpuint(probe->backlog, ==, 0);
        g_assert_false(probe->paced.waits);
        turn(f);
    }
    probe->backlog = LITTLE_MAX + 1;
    channel_move(probe);
    g_assert_cmpuint(probe->backlog, ==, 1);
    g_assert_true(probe->paced.waits);
    g_assert_cmpuint(sf_pace_limit(&probe->paced), ==, 0);
}

/* Alone it has long turns, and does not wait while they last. */
static void test_alone(Fixture *f, const void *data)
{
    Channel *c = &f->channels[0];

    for (int i = 0; i < 10; i++) {
        c->backlog = ALONE_MAX;
        channel_move(c);
        g_assert_cmpuint(c->backlog, ==, 0);
        turn(f);
    }
    g_assert_cmpuint(c->gone, ==, 0);
    c->backlog = 3 * ALONE_MAX;
    channel_move(c);
    g_assert_cmpuint(c->backlog, ==, 2 * ALONE_MAX);
    turn(f);
    g_assert_cmpuint(c->gone, ==, 1);
    g_assert_cmpuint(c->backlog, >=, ALONE_MAX);
}

/* In a calm server no source runs. */
static void test_calm(Fixture *f, const void *data)
{
    Channel *c = &f->channels[0];

    for (int i = 0; i < 100; i++) {
        c->backlog = KiB;
        channel_move(c);
        g_assert_cmpuint(c->backlog, ==, 0);
        g_assert_false(g_main_context_pending(NULL));
    }
}

/* What leaves at a time overdraws a share: then it waits for longer. */
static void test_debt(Fixture *f, const void *data)
{
    Channel *large = &f->channels[0];

    large->piece = 4 * SHARE_MIN;
    flood(f);
    g_assert_cmpuint(large->moved, <=, f->channels[1].moved + 2 * ALONE_MAX);
    g_assert_cmpuint(large->moved + 2 * ALONE_MAX, >=, f->channels[1].moved);
    g_assert_cmpuint(large->gone * 3, <, f->channels[1].gone);
}

/* A byte that costs more counts more. */
static void test_cost(Fixture *f, const void *data)
{
    Channel *tls = &f->channels[0];

    tls->paced.cost = 4;
    flood(f);
    g_assert_cmpuint(tls->moved * 7 / 2, <, f->channels[1].moved + ALONE_MAX);
    g_assert_cmpuint(tls->moved * 5, >, f->channels[1].moved);
}

/* Who has made nothing of its share has none later, and no debt either. */
static void test_forgotten(Fixture *f, const void *data)
{
    Channel *c = &f->channels[1];

    fill(f, 2, 64 * MiB);
    try_all(f);
    c->backlog = 0;                     /* it had other plans */
    turn(f);
    g_assert_cmpint(c->paced.grant, >, 0);
    for (int i = 0; i < 4; i++) {
        turn(f);
        channel_move(&f->channels[0]);
    }
    c->backlog = MiB;
    channel_move(c);
    g_assert_true(c->paced.waits);
    g_assert_cmpuint(c->backlog, ==, MiB);
}

/* Who leaves while it waits is not called, and holds nobody up. */
static void test_leave(Fixture *f, const void *data)
{
    fill(f, 4, 4 * MiB);
    try_all(f);
    sf_pace_leave(&f->channels[2].paced);
    turn(f);
    g_assert_cmpuint(f->channels[2].gone, ==, 0);
    g_assert_cmpuint(f->channels[3].gone, ==, 1);
    g_assert_cmpuint(sf_pace_limit(&f->channels[2].paced), ==, SIZE_MAX);
    sf_pace_moved(&f->channels[2].paced, PIECE);
}

/* One of many that wait is told that it need not be watched. */
static void test_crowd(Fixture *f, const void *data)
{
    f->pace.left = 0;
    for (int i = 0; i < CHANNELS; i++) {
        g_assert_cmpuint(sf_pace_limit(&f->channels[i].paced), ==, LITTLE_MAX);
        g_assert_cmpint(sf_pace_wait(&f->channels[i].paced), ==, i >= 32);
    }
    g_assert_cmpuint(f->pace.num_waiting, ==, CHANNELS);
}

/* A server goes with the end of a turn still to come. */
static void test_cleanup(Fixture *f, const void *data)
{
    fill(f, 1, ALONE_MAX);
    try_all(f);
    g_assert_true(f->pace.end->ready);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) \
    g_test_add("/spiceflow/pace/" #name, Fixture, NULL, setup, test_##name, \
               teardown)
    ADD(bound);
    ADD(fair);
    ADD(order);
    ADD(share);
    ADD(little);
    ADD(alone);
    ADD(calm);
    ADD(debt);
    ADD(cost);
    ADD(forgotten);
    ADD(leave);
    ADD(crowd);
    ADD(cleanup);
#undef ADD
    return g_test_run();
}
