/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sources of the main loop that are made ready by a flag.
 *
 * The main loop looks at the flag before and after it sleeps, with the big lock
 * held both times.  Seen from a processor's thread it may be asleep and has to
 * be woken up; inside a dispatch it is not, and will look before it sleeps.
 */
#include "qemu/osdep.h"
#include "ready.h"

gboolean sf_ready_prepare(GSource *source, int *timeout)
{
    *timeout = -1;
    return ((SFReady *)source)->ready;
}

gboolean sf_ready_check(GSource *source)
{
    return ((SFReady *)source)->ready;
}

void sf_ready_set(SFReady *ready)
{
    if (!ready->ready) {
        ready->ready = true;
        if (!g_main_context_is_owner(NULL)) {
            g_main_context_wakeup(NULL);
        }
    }
}
