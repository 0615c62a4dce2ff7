/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much the channels of one server move in one turn of the main loop.
 *
 * Whatever becomes ready waits for the end of the turn: an answer on another
 * channel, a disk, a processor of the guest's that wants the big lock.  A turn
 * in which each of many busy channels moves all that its socket takes or has
 * lasts for milliseconds.  So what goes in one turn is bounded for all of them
 * together, and who finds nothing left gets in line.  When the turn ends, those
 * who came first are granted a share of the next one, as many as it holds: few
 * channels with much each, because a system call for little costs more.  What
 * leaves at a time may overdraw a share; the debt is taken off the next one.
 *
 * Two need not wait.  For a channel alone it would only be more turns for the
 * same bytes, so its turns are long.  And who moves little in a turn, as one
 * does that waits for answers, is let through whoever waits.
 *
 * A channel that does not use its share at once has no more to move: share and
 * debt are forgotten.
 *
 * A turn ends with a source that is made ready when it turns out to be a busy
 * one, and dispatched once in the next.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "pace.h"

/* Bytes of a turn: of one channel alone, of several together. */
#define ALONE_MAX       (1 * MiB)
#define TURN_MAX        (512 * KiB)
/* Bytes of the smallest share of a turn. */
#define SHARE_MIN       (128 * KiB)
/* Bytes of a turn in which nobody cares where it ends. */
#define CALM_MAX        (128 * KiB)
/* Bytes that a channel moves in a turn without waiting behind others. */
#define LITTLE_MAX      (4 * KiB)
/* Turns for which a share, or a debt, is good if nothing is made of it. */
#define GRANT_TURNS     2
/* Waiting channels that together are slow to poll. */
#define CROWD_MIN       32

static void pace_get_in_line(SFPaced *paced)
{
    paced->waits = true;
    QTAILQ_INSERT_TAIL(&paced->pace->waiting, paced, next);
    paced->pace->num_waiting++;
}

static void pace_get_out_of_line(SFPaced *paced)
{
    paced->waits = false;
    QTAILQ_REMOVE(&paced->pace->waiting, paced, next);
    paced->pace->num_waiting--;
}

static void pace_grant(SFPace *pace)
{
    unsigned n = pace->num_waiting;
    int64_t share = MAX(TURN_MAX / MAX(n, 1), SHARE_MIN);

    while (n-- && pace->left > 0 && pace->num_waiting) {
        SFPaced *paced = QTAILQ_FIRST(&pace->waiting);

        pace_get_out_of_line(paced);
        paced->grant = MIN(paced->grant, 0) + share;
        paced->granted = pace->turn;
        if (paced->grant > 0) {
            pace->left -= share;
            paced->go(paced->opaque);
        } else {
            pace_get_in_line(paced);
        }
    }
}

static gboolean pace_dispatch(GSource *source, GSourceFunc callback,
                              gpointer opaque)
{
    return callback(opaque);
}

static GSourceFuncs pace_funcs = {
    .prepare = sf_ready_prepare,
    .check = sf_ready_check,
    .dispatch = pace_dispatch,
};

static gboolean pace_turn(void *opaque)
{
    SFPace *pace = opaque;
    bool alone = pace->movers <= 1 && pace->num_waiting <= 1;

    pace->end->ready = false;
    pace->turn++;
    pace->movers = 0;
    pace->limit = pace->left = alone ? ALONE_MAX : TURN_MAX;
    pace_grant(pace);
    if (pace->num_waiting) {
        sf_ready_set(pace->end);
    }
    return G_SOURCE_CONTINUE;
}

static void pace_end_turn(SFPace *pace)
{
    if (!pace->end) {
        GSource *source = g_source_new(&pace_funcs, sizeof(SFReady));

        g_source_set_callback(source, pace_turn, pace, NULL);
        g_source_attach(source, NULL);
        pace->end = (SFReady *)source;
    }
    sf_ready_set(pace->end);
}

void sf_pace_init(SFPace *pace)
{
    QTAILQ_INIT(&pace->waiting);
    pace->limit = pace->left = ALONE_MAX;
    pace->turn = 1;
}

void sf_pace_cleanup(SFPace *pace)
{
    if (pace->end) {
        g_source_destroy(&pace->end->source);
        g_source_unref(&pace->end->source);
        pace->end = NULL;
    }
}

size_t sf_pace_limit(SFPaced *paced)
{
    SFPace *pace = paced->pace;

    if (!pace) {
        return SIZE_MAX;
    }
    if (paced->waits) {
        return 0;
    }
    if (paced->turn != pace->turn) {
        paced->turn = pace->turn;
        paced->moved = 0;
        pace->movers++;
        if (pace->turn - paced->granted > GRANT_TURNS) {
            paced->grant = 0;
        }
    }
    if (paced->grant > 0 || (pace->left > 0 && !pace->num_waiting)) {
        return SIZE_MAX;
    }
    return LITTLE_MAX - MIN(paced->moved, LITTLE_MAX);
}

bool sf_pace_wait(SFPaced *paced)
{
    SFPace *pace = paced->pace;

    if (!paced->waits) {
        pace_get_in_line(paced);
        pace_end_turn(pace);
    }
    return pace->num_waiting > CROWD_MIN;
}

void sf_pace_moved(SFPaced *paced, size_t len)
{
    SFPace *pace = paced->pace;
    uint64_t bytes = (uint64_t)len * paced->cost;

    if (!pace) {
        return;
    }
    paced->moved += bytes;
    if (paced->grant > 0) {
        paced->grant -= bytes;
        return;
    }
    pace->left -= bytes;
    if (pace->limit - pace->left >= CALM_MAX) {
        pace_end_turn(pace);
    }
}

void sf_pace_leave(SFPaced *paced)
{
    if (paced->waits) {
        pace_get_out_of_line(paced);
    }
    paced->pace = NULL;
}
