/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QEMU frontend of a device.
 *
 * Watches are sources without a descriptor: see ready.h.  A watch may outlive
 * everything but the chardev, so it holds a reference to that; the list of
 * watches only knows those that are still alive.
 *
 * Events.  A frontend whose port is stopped has its handlers taken away, and
 * only an OPENED is repeated when it gets them back.  So events are held back
 * while the VM is stopped, and what the frontend has to know is told when it
 * runs again: a close, an open, or a close and an open when one client went and
 * another came.
 *
 * Except in a load.  usb-redir takes its device for lost if it is not open when
 * its own state comes, and a guest does not notice a migration only if its port
 * is open when the VM starts, so there the event is told at once.
 */
#include "qemu/osdep.h"
#include "frontend.h"
#include "ready.h"

typedef struct SFWatch {
    SFReady ready;
    GList link;
    SFFrontend *frontend;       /* NULL when not in its list any more */
    Chardev *chr;
} SFWatch;

void sf_frontend_init(SFFrontend *frontend, Chardev *chr)
{
    frontend->chr = chr;
    g_queue_init(&frontend->watches);
}

static void watch_unlink(SFWatch *watch)
{
    if (watch->frontend) {
        g_queue_unlink(&watch->frontend->watches, &watch->link);
        watch->frontend = NULL;
    }
}

void sf_frontend_cleanup(SFFrontend *frontend)
{
    while (frontend->watches.head) {
        watch_unlink(frontend->watches.head->data);
    }
}

/*
 * To guest
 */

size_t sf_frontend_room(SFFrontend *frontend)
{
    return frontend->open && frontend->running ?
           qemu_chr_be_can_write(frontend->chr) : 0;
}

size_t sf_frontend_write(SFFrontend *frontend, const uint8_t *data, size_t len)
{
    size_t done = 0;

    /* Bytes for a closed port would be dropped without a word. */
    while (done < len && frontend->open && frontend->running) {
        size_t room = qemu_chr_be_can_write(frontend->chr);
        size_t n = MIN(room, len - done);

        if (n == 0) {
            break;
        }
        qemu_chr_be_write(frontend->chr, data + done, n);
        done += n;
    }
    return done;
}

static void frontend_sync(SFFrontend *frontend)
{
    if (!frontend->running) {
        return;
    }
    if (frontend->open && (frontend->reopen || !frontend->want_open)) {
        frontend->open = false;
        qemu_chr_be_event(frontend->chr, CHR_EVENT_CLOSED);
    }
    frontend->reopen = false;
    if (!frontend->open && frontend->want_open) {
        frontend->open = true;
        qemu_chr_be_event(frontend->chr, CHR_EVENT_OPENED);
    }
}

void sf_frontend_set_open(SFFrontend *frontend, bool open)
{
    if (frontend->want_open && !open) {
        frontend->reopen = true;
    }
    frontend->want_open = open;
    frontend_sync(frontend);
}

void sf_frontend_resume(SFFrontend *frontend, bool open)
{
    frontend->want_open = open;
    frontend->reopen = false;
    if (open && !frontend->open) {
        frontend->open = true;
        qemu_chr_be_event(frontend->chr, CHR_EVENT_OPENED);
    }
}

void sf_frontend_lost(SFFrontend *frontend, bool open)
{
    if (open && !frontend->open) {
        frontend->open = true;
        qemu_chr_be_event(frontend->chr, CHR_EVENT_OPENED);
    }
    frontend->reopen = true;
}

void sf_frontend_renew(SFFrontend *frontend)
{
    if (frontend->open) {
        qemu_chr_be_event(frontend->chr, CHR_EVENT_CLOSED);
        qemu_chr_be_event(frontend->chr, CHR_EVENT_OPENED);
        frontend->reopen = true;
    }
}

void sf_frontend_break(SFFrontend *frontend)
{
    if (frontend->open && frontend->running) {
        qemu_chr_be_event(frontend->chr, CHR_EVENT_BREAK);
    }
}

void sf_frontend_set_running(SFFrontend *frontend, bool running)
{
    frontend->running = running;
    frontend_sync(frontend);
}

/*
 * Watches
 */

static gboolean watch_dispatch(GSource *source, GSourceFunc callback,
                               gpointer user_data)
{
    SFWatch *watch = (SFWatch *)source;
    FEWatchFunc func = (FEWatchFunc)(void (*)(void))callback;

    watch_unlink(watch);
    watch->ready.ready = false;
    if (!func(watch->chr, G_IO_OUT, user_data)) {
        return G_SOURCE_REMOVE;
    }
    /* It wants to be asked again: at once, as with a writable descriptor. */
    sf_ready_set(&watch->ready);
    return G_SOURCE_CONTINUE;
}

static void watch_finalize(GSource *source)
{
    SFWatch *watch = (SFWatch *)source;

    watch_unlink(watch);
    object_unref(OBJECT(watch->chr));
}

static GSourceFuncs watch_funcs = {
    .prepare = sf_ready_prepare,
    .check = sf_ready_check,
    .dispatch = watch_dispatch,
    .finalize = watch_finalize,
};

GSource *sf_frontend_watch(SFFrontend *frontend, bool ready)
{
    GSource *source = g_source_new(&watch_funcs, sizeof(SFWatch));
    SFWatch *watch = (SFWatch *)source;

    frontend->patient = true;
    watch->chr = frontend->chr;
    object_ref(OBJECT(watch->chr));
    watch->frontend = frontend;
    watch->link = (GList) { .data = watch };
    g_queue_push_tail_link(&frontend->watches, &watch->link);
    watch->ready.ready = ready;
    return source;
}

void sf_frontend_wake(SFFrontend *frontend)
{
    for (GList *l = frontend->watches.head; l; l = l->next) {
        sf_ready_set(&((SFWatch *)l->data)->ready);
    }
}
