/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * spiceflow-pump: a character device frontend with no guest behind it
 *
 * Theory of operation
 *
 * What a chardev backend costs is hidden when a guest drives it, the more so
 * an emulated one.  The pump stands where the guest's device would stand and
 * moves bytes as fast as the backend lets it, inside a real QEMU with its real
 * main loop, but with no CPU, memory or interrupts of a guest:
 *
 *   qemu-system-x86_64 -machine none -display none -nodefaults ...
 *       -chardev BACKEND,id=c0,... -device spiceflow-pump,id=pump0,chardev=c0
 *
 * It has four modes.
 *
 *   source  writes `total` bytes in units of `write-size`
 *   sink    reads `total` bytes, offering `can-read-size` at a time
 *   echo    writes back what it reads, `total` bytes or for ever (0)
 *   ping    writes `write-size` bytes, waits for as many, `count` times over
 *
 * Settings are ordinary QOM properties, to be given with -device or changed by
 * qom-set while the pump rests.  Setting `running` to true starts it, which
 * first opens the frontend's side of the chardev as a guest that opens its
 * port does; setting it to false stops the pump and closes that side.  A
 * pump that has done its work rests by itself but stays open, as what it wrote
 * may still be on its way.  `results` tells what happened.
 *
 * It behaves as a frontend should, so that a backend is measured in the way
 * in which it will be used:
 *
 * - It writes only while the backend is OPENED, never from inside a chardev
 *   event (the backend may hold its lock there), and after a write that was
 *   not taken whole it waits for the watch it asked for.  There is no retry
 *   timer: a backend whose watch never fires stalls, and shows up as such.
 * - A unit that was taken in part is continued, not started anew.
 * - After it has answered can_read with 0 it calls accept_input as soon as the
 *   answer would be another one.
 * - At most `burst` bytes move in either direction before the main loop gets
 *   its turn, in a bottom half; the amount that a virtio queue full of
 *   buffers holds is the default.  Without that limit a backend that
 *   delivers as long as it is allowed to would never return.
 *
 * In echo and ping mode the answer is written from within the read callback,
 * as usb-redir and ccid-card-passthru do.  With `defer` it is written from a
 * bottom half, which is closer to a guest that answers from its own thread.
 *
 * With `drops` a source asks for no watch, and what a write does not take is
 * lost, as with a virtio console.
 *
 * With `agent` a source plays the SPICE agent of a guest: it writes chunks of
 * PUMP_CHUNK bytes with one message each, of a type that nobody knows and
 * everybody passes on, and takes what the backend says to the agent.
 *
 * With `verify` each stream carries the pattern of pattern.h and what is read
 * is compared with it; the first wrong byte stops the pump.  Without it the
 * content is left alone, as a comparison would be charged to the backend.
 */

#include "qemu/osdep.h"
#include "chardev/char-fe.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"

#include "pattern.h"
#include "pump.h"

/*
 * A VDI chunk (port, size) with a whole agent message (protocol, type, opaque,
 * size) in it: as much as there may be in one
 */
#define PUMP_CHUNK_HEADER   8
#define PUMP_CHUNK          (PUMP_CHUNK_HEADER + 2048)
#define PUMP_AGENT_HEADER   20
#define PUMP_AGENT_TYPE     0x5f10

static void pump_write(SpiceFlowPump *p);
static void pump_accept(SpiceFlowPump *p);

/* The end of a run, good or bad */

static void pump_rest(SpiceFlowPump *p)
{
    p->running = false;
    p->res.finished_ns = get_clock();
    g_clear_handle_id(&p->watch, g_source_remove);
    qemu_bh_cancel(p->bh);
}

static void G_GNUC_PRINTF(2, 3) pump_fail(SpiceFlowPump *p,
                                          const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_free(p->error);
    p->error = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    pump_rest(p);
}

static void pump_first(SpiceFlowPump *p)
{
    if (!p->res.first_ns) {
        p->res.first_ns = get_clock();
    }
}

/* Writing */

static gboolean pump_watch(void *do_not_use, GIOCondition cond, void *opaque)
{
    SpiceFlowPump *p = opaque;

    p->watch = 0;
    p->res.watches++;
    p->turn_written = 0;        /* the main loop had its turn to get here */
    if (p->running && p->opened) {
        pump_write(p);
        pump_accept(p);         /* an echo that is out makes room */
    }
    return G_SOURCE_REMOVE;
}

static uint32_t pump_burst_left(const SpiceFlowPump *p, uint32_t used)
{
    if (!p->set.burst) {
        return UINT32_MAX;
    }
    return used < p->set.burst ? p->set.burst - used : 0;
}

/*
 * Write up to @len bytes.  Returns how many the backend took; when that is
 * less, a watch or the bottom half will call pump_write() again.
 */
static uint32_t pump_write_some(SpiceFlowPump *p, const uint8_t *buf,
                                uint32_t len)
{
    uint32_t done;
    int ret;

    if (p->watch || !p->opened) {
        return 0;
    }
    if (!pump_burst_left(p, p->turn_written)) {
        p->res.turns++;
        qemu_bh_schedule(p->bh);
        return 0;
    }

    ret = qemu_chr_fe_write(&p->chr, buf, len);
    p->res.writes++;
    done = MAX(ret, 0);
    if (done == 0) {
        p->res.zero_writes++;
    } else {
        pump_first(p);
    }
    if (p->set.drops && p->running) {
        p->res.short_writes += done < len;
        done = len;
    }
    p->res.written += done;
    p->turn_written += done;

    /* A backend may close, or the pump be stopped, from inside the write */
    if (done < len && p->running && p->opened) {
        p->res.short_writes += done > 0;
        p->watch = qemu_chr_fe_add_watch(&p->chr, G_IO_OUT | G_IO_HUP,
                                         pump_watch, p);
        if (!p->watch) {
            pump_fail(p, "the chardev took %u of %u bytes and gives no watch",
                      done, len);
        }
    }
    return done;
}

static void pump_chunk_fill(uint8_t *chunk)
{
    uint8_t *message = chunk + PUMP_CHUNK_HEADER;

    memset(chunk, 0, PUMP_CHUNK);
    stl_le_p(chunk, 1);                         /* to the clients */
    stl_le_p(chunk + 4, PUMP_CHUNK - PUMP_CHUNK_HEADER);
    stl_le_p(message, 1);
    stl_le_p(message + 4, PUMP_AGENT_TYPE);
    stl_le_p(message + 16, PUMP_CHUNK - PUMP_CHUNK_HEADER - PUMP_AGENT_HEADER);
}

static const uint8_t *pump_data(const SpiceFlowPump *p)
{
    if (p->set.agent) {
        return p->chunk + p->res.written % PUMP_CHUNK;
    }
    return p->set.verify ? pump_pattern_at(p->pattern, p->res.written)
                         : p->pattern;
}

static void pump_write_source(SpiceFlowPump *p)
{
    while (p->running) {
        uint32_t done;

        if (p->res.written == p->set.total) {
            pump_rest(p);
            return;
        }
        if (!p->unit_left) {
            p->unit_left = MIN(p->set.agent ? PUMP_CHUNK : p->set.write_size,
                               p->set.total - p->res.written);
        }
        done = pump_write_some(p, pump_data(p), p->unit_left);
        if (!done) {
            return;
        }
        p->unit_left -= done;
    }
}

static void pump_write_echo(SpiceFlowPump *p)
{
    while (p->running && p->pending_len) {
        uint32_t done = pump_write_some(p, p->pending + p->pending_pos,
                                        p->pending_len);

        if (!done) {
            return;
        }
        p->pending_pos += done;
        p->pending_len -= done;
    }
    if (p->running && p->set.total && p->res.written == p->set.total) {
        pump_rest(p);
    }
}

static void pump_write_ping(SpiceFlowPump *p)
{
    if (!p->unit_left && !p->answer_left) {
        p->unit_left = p->set.write_size;
        p->answer_left = p->set.write_size;
        p->ping_ns = get_clock();
    }
    while (p->running && p->unit_left) {
        uint32_t done = pump_write_some(p, pump_data(p), p->unit_left);

        if (!done) {
            return;
        }
        p->unit_left -= done;
    }
}

/*
 * One byte back tells the peer that all has arrived here: it takes the time
 * of the whole way by its own clock and needs no polling.
 */
static void pump_write_sink(SpiceFlowPump *p)
{
    if (p->res.read < p->set.total) {
        return;
    }
    if (pump_write_some(p, p->pattern, 1) && p->running) {
        pump_rest(p);
    }
}

static void pump_write(SpiceFlowPump *p)
{
    switch (p->set.mode) {
    case PUMP_SOURCE:
        pump_write_source(p);
        break;
    case PUMP_ECHO:
        pump_write_echo(p);
        break;
    case PUMP_PING:
        pump_write_ping(p);
        break;
    case PUMP_SINK:
        pump_write_sink(p);
        break;
    }
}

/* An answer is written at once, or from the bottom half if so wished */
static void pump_answer(SpiceFlowPump *p)
{
    if (p->set.defer) {
        qemu_bh_schedule(p->bh);
    } else {
        pump_write(p);
    }
}

/* Reading */

static uint32_t pump_can_take(const SpiceFlowPump *p)
{
    uint64_t room = p->set.can_read_size;

    if (!p->running) {
        return 0;
    }

    switch (p->set.mode) {
    case PUMP_SOURCE:
        room = p->set.agent ? room : 0;
        break;
    case PUMP_SINK:
        room = MIN(room, p->set.total - p->res.read);
        break;
    case PUMP_ECHO:
        if (p->pending_len) {
            return 0;
        }
        if (p->set.total) {
            room = MIN(room, p->set.total - p->res.read);
        }
        break;
    case PUMP_PING:
        room = MIN(room, p->answer_left);
        break;
    }
    return MIN(room, pump_burst_left(p, p->turn_read));
}

static void pump_accept(SpiceFlowPump *p)
{
    if (p->starved && pump_can_take(p)) {
        p->starved = false;
        qemu_chr_fe_accept_input(&p->chr);
    }
}

static int pump_can_read(void *opaque)
{
    SpiceFlowPump *p = opaque;
    uint32_t n = pump_can_take(p);

    if (!n) {
        p->starved = true;
    }
    return n;
}

static void pump_read_echo(SpiceFlowPump *p, const uint8_t *buf, uint32_t len)
{
    uint32_t done = p->set.defer ? 0 : pump_write_some(p, buf, len);

    if (done == len) {
        pump_write_echo(p);     /* for its check of the end */
        return;
    }
    p->pending_pos = 0;
    p->pending_len = len - done;
    memcpy(p->pending, buf + done, p->pending_len);
    if (p->set.defer) {
        qemu_bh_schedule(p->bh);
    } else {
        pump_write_echo(p);
    }
}

static void pump_read_ping(SpiceFlowPump *p, uint32_t len)
{
    int64_t ns;

    p->answer_left -= len;
    if (p->answer_left) {
        return;
    }
    if (p->unit_left) {
        pump_fail(p, "answered before the question was complete");
        return;
    }
    ns = get_clock() - p->ping_ns;
    p->samples[p->res.round_trips++] = MIN(ns, UINT32_MAX);
    if (p->res.round_trips == p->set.count) {
        pump_rest(p);
        return;
    }
    pump_answer(p);
}

static void pump_read(void *opaque, const uint8_t *buf, int size)
{
    SpiceFlowPump *p = opaque;
    uint32_t len = size;

    if (!p->running || len > pump_can_take(p)) {
        if (p->running) {
            pump_fail(p, "the chardev delivered %u bytes, %u were asked for",
                      len, pump_can_take(p));
        }
        return;
    }
    if (p->set.verify && !p->set.agent) {
        size_t good = pump_pattern_mismatch(p->pattern, p->res.read,
                                            buf, len);

        if (good < len) {
            pump_fail(p, "wrong byte at %" PRIu64, p->res.read + good);
            return;
        }
    }

    pump_first(p);
    p->res.reads++;
    p->res.read += len;
    p->turn_read += len;
    if (!pump_burst_left(p, p->turn_read)) {
        p->res.turns++;
        qemu_bh_schedule(p->bh);
    }

    switch (p->set.mode) {
    case PUMP_SINK:
        pump_write_sink(p);
        break;
    case PUMP_ECHO:
        pump_read_echo(p, buf, len);
        break;
    case PUMP_PING:
        pump_read_ping(p, len);
        break;
    case PUMP_SOURCE:
        break;
    }
}

/* The main loop's turn is over, or something is to be begun outside events */
static void pump_bh(void *opaque)
{
    SpiceFlowPump *p = opaque;

    if (!p->running) {
        return;
    }
    p->turn_written = 0;
    p->turn_read = 0;
    if (p->opened && !p->watch) {
        pump_write(p);
    }
    pump_accept(p);
}

static void pump_event(void *opaque, QEMUChrEvent event)
{
    SpiceFlowPump *p = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        p->opened = true;
        if (p->running) {
            qemu_bh_schedule(p->bh);
        }
        break;
    case CHR_EVENT_CLOSED:
        p->opened = false;
        g_clear_handle_id(&p->watch, g_source_remove);
        break;
    default:
        break;
    }
}

/* Start and stop */

void pump_start(SpiceFlowPump *p, Error **errp)
{
    if (!qemu_chr_fe_backend_connected(&p->chr)) {
        error_setg(errp, "spiceflow-pump: no chardev is given");
        return;
    }
    if (!p->set.total && (p->set.mode == PUMP_SOURCE ||
                          p->set.mode == PUMP_SINK)) {
        error_setg(errp, "spiceflow-pump: mode %s needs a total above 0",
                   pump_mode_names[p->set.mode]);
        return;
    }

    if (p->set.agent && (p->set.mode != PUMP_SOURCE ||
                         p->set.total % PUMP_CHUNK)) {
        error_setg(errp, "spiceflow-pump: with 'agent' the mode must be source "
                   "and the total a multiple of %d", PUMP_CHUNK);
        return;
    }

    p->res = (PumpResults) { .started_ns = get_clock() };
    p->turn_written = 0;
    p->turn_read = 0;
    p->unit_left = 0;
    p->answer_left = 0;
    p->pending_len = 0;
    p->sorted = false;
    g_clear_pointer(&p->error, g_free);
    if (p->set.mode == PUMP_ECHO) {
        p->pending = g_realloc(p->pending, p->set.can_read_size);
    } else if (p->set.mode == PUMP_PING) {
        p->samples = g_renew(uint32_t, p->samples, p->set.count);
    }

    /* A backend that had to hold input back is asked again in any case */
    p->starved = true;
    p->running = true;
    qemu_chr_fe_set_open(&p->chr, true);
    qemu_bh_schedule(p->bh);
}

void pump_stop(SpiceFlowPump *p)
{
    if (p->running) {
        pump_rest(p);
    }
    qemu_chr_fe_set_open(&p->chr, false);
}

/* The device; pump-object.c has what is seen of it */

void pump_realize(DeviceState *dev, Error **errp)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(dev);

    if (!qemu_chr_fe_backend_connected(&p->chr)) {
        error_setg(errp, "spiceflow-pump: property 'chardev' is missing");
        return;
    }
    p->pattern = g_malloc(PUMP_PATTERN_SIZE);
    pump_pattern_fill(p->pattern);
    p->chunk = g_malloc(PUMP_CHUNK);
    pump_chunk_fill(p->chunk);
    p->bh = qemu_bh_new_guarded(pump_bh, p, &dev->mem_reentrancy_guard);
    qemu_chr_fe_set_handlers(&p->chr, pump_can_read, pump_read, pump_event,
                             NULL, p, NULL, false);
}

void pump_unrealize(DeviceState *dev)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(dev);

    if (p->running) {
        pump_rest(p);
    }
    qemu_chr_fe_deinit(&p->chr, false);
    g_clear_pointer(&p->bh, qemu_bh_delete);
    g_clear_pointer(&p->pattern, g_free);
    g_clear_pointer(&p->chunk, g_free);
    g_clear_pointer(&p->pending, g_free);
    g_clear_pointer(&p->samples, g_free);
    g_clear_pointer(&p->error, g_free);
}
