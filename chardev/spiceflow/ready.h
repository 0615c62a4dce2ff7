/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sources of the main loop that are made ready by a flag.  A ready time would
 * do, but setting one costs two system calls, and an idle source is allocated
 * anew each time; neither is needed while the main loop is on its way to look.
 */
#ifndef CHARDEV_SPICEFLOW_READY_H
#define CHARDEV_SPICEFLOW_READY_H

/**
 * struct SFReady: the beginning of such a source.
 * @source: its GSourceFuncs have the two functions below
 * @ready: whether it is to be dispatched; who dispatches it clears that
 */
typedef struct SFReady {
    GSource source;
    bool ready;
} SFReady;

gboolean sf_ready_prepare(GSource *source, int *timeout);
gboolean sf_ready_check(GSource *source);

/**
 * sf_ready_set: have it dispatched in the main loop's next turn.
 * @ready: the source; from any thread that has the big lock
 */
void sf_ready_set(SFReady *ready);

#endif
