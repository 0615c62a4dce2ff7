/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QEMU frontend of a device, as the devices see it: bytes and events to
 * it, and the watches by which it waits to be asked again.
 */
#ifndef CHARDEV_SPICEFLOW_FRONTEND_H
#define CHARDEV_SPICEFLOW_FRONTEND_H

#include "chardev/char-fe.h"

/**
 * struct SFFrontend: embedded in the chardev.
 * @chr: the chardev
 * @patient: it has asked for a watch, so it waits with what is not taken
 * @watches: those of sf_frontend_watch() that have not fired
 * @running: whether the VM runs; events wait for that
 * @open: what the frontend was last told
 * @want_open: what it is to be told
 * @reopen: it is to see a close before the next open
 */
typedef struct SFFrontend {
    Chardev *chr;
    GQueue watches;
    bool patient;
    bool running;
    bool open;
    bool want_open;
    bool reopen;
} SFFrontend;

void sf_frontend_init(SFFrontend *frontend, Chardev *chr);
void sf_frontend_cleanup(SFFrontend *frontend);

/**
 * sf_frontend_room: bytes that sf_frontend_write() would pass at once.
 * @frontend: the frontend
 *
 * Returns: bytes; more may go when these are done with.
 */
size_t sf_frontend_room(SFFrontend *frontend);

/**
 * sf_frontend_write: give bytes to the frontend.
 * @frontend: the frontend
 * @data: the bytes
 * @len: how many
 *
 * Returns: how many it took.
 */
size_t sf_frontend_write(SFFrontend *frontend, const uint8_t *data,
                         size_t len);

/**
 * sf_frontend_set_open: a client has come or gone: CHR_EVENT_OPENED or CLOSED.
 * While the VM is stopped the events wait, because a stopped virtio port has
 * no handlers and would never hear of them.
 * @frontend: the frontend
 * @open: whether there is a client
 */
void sf_frontend_set_open(SFFrontend *frontend, bool open);

/**
 * sf_frontend_resume: a state was loaded in which the frontend saw a client,
 * and it is to go on as if nothing had happened.
 * @frontend: the frontend
 * @open: whether it saw one
 */
void sf_frontend_resume(SFFrontend *frontend, bool open);

/**
 * sf_frontend_lost: likewise, but the client is gone: the guest is to see a
 * close when the VM starts, before it sees another client.
 * @frontend: the frontend
 * @open: whether it saw one
 */
void sf_frontend_lost(SFFrontend *frontend, bool open);

/**
 * sf_frontend_renew: a frontend that is open closes and opens now, stopped or
 * not, so that it forgets what it knows of its client.
 * @frontend: the frontend
 */
void sf_frontend_renew(SFFrontend *frontend);

/**
 * sf_frontend_break: CHR_EVENT_BREAK.
 * @frontend: the frontend
 */
void sf_frontend_break(SFFrontend *frontend);

/**
 * sf_frontend_set_running: the VM has started or is about to stop.
 * @frontend: the frontend
 * @running: which
 */
void sf_frontend_set_running(SFFrontend *frontend, bool running);

/**
 * sf_frontend_watch: ChardevClass.chr_add_watch.
 * @frontend: the frontend
 * @ready: whether it need not wait
 *
 * Returns: a source that fires once sf_frontend_wake() is called.
 */
GSource *sf_frontend_watch(SFFrontend *frontend, bool ready);

/**
 * sf_frontend_wake: what the frontend was refused may be written again.
 * @frontend: the frontend
 */
void sf_frontend_wake(SFFrontend *frontend);

#endif
