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
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/bswap.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qom/object.h"

#include "pattern.h"
#include "test-compat.h"

#define TYPE_SPICEFLOW_PUMP "spiceflow-pump"
OBJECT_DECLARE_SIMPLE_TYPE(SpiceFlowPump, SPICEFLOW_PUMP)

#define PUMP_MAX_UNIT  PUMP_PATTERN_MAX
#define PUMP_MAX_COUNT (10u * 1000 * 1000)

/*
 * A VDI chunk (port, size) with a whole agent message (protocol, type, opaque,
 * size) in it: as much as there may be in one
 */
#define PUMP_CHUNK_HEADER   8
#define PUMP_CHUNK          (PUMP_CHUNK_HEADER + 2048)
#define PUMP_AGENT_HEADER   20
#define PUMP_AGENT_TYPE     0x5f10

typedef enum PumpMode {
    PUMP_SOURCE,
    PUMP_SINK,
    PUMP_ECHO,
    PUMP_PING,
} PumpMode;

static const char *const pump_mode_names[] = {
    [PUMP_SOURCE] = "source",
    [PUMP_SINK] = "sink",
    [PUMP_ECHO] = "echo",
    [PUMP_PING] = "ping",
    NULL
};

static const QEnumLookup pump_mode_lookup = {
    .array = pump_mode_names,
    .size = ARRAY_SIZE(pump_mode_names) - 1,
};

/* What is settable; none of it changes while the pump runs */
typedef struct PumpSettings {
    PumpMode mode;
    bool verify;
    bool defer;
    bool agent;
    uint32_t write_size;
    uint32_t can_read_size;
    uint32_t burst;             /* 0: no limit */
    uint32_t count;
    uint64_t total;
} PumpSettings;

typedef struct PumpResults {
    int64_t started_ns;         /* host's monotonic clock, as all of these */
    int64_t first_ns;           /* the first byte went through */
    int64_t finished_ns;
    uint64_t written;
    uint64_t read;
    uint64_t writes;            /* calls to the backend */
    uint64_t reads;             /* calls from the backend */
    uint64_t short_writes;      /* taken in part */
    uint64_t zero_writes;       /* not taken at all */
    uint64_t watches;           /* watches that fired */
    uint64_t turns;             /* bursts used up */
    uint32_t round_trips;
} PumpResults;

struct SpiceFlowPump {
    DeviceState parent_obj;

    TestFrontend chr;
    PumpSettings set;
    PumpResults res;

    bool running;
    bool opened;                /* the backend's side */
    bool starved;               /* can_read said 0 */
    guint watch;
    QEMUBH *bh;
    uint32_t turn_written;      /* in this turn of the main loop */
    uint32_t turn_read;

    uint32_t unit_left;         /* of the unit that is being written */
    uint32_t answer_left;       /* ping: not come back yet */
    int64_t ping_ns;
    uint32_t *samples;          /* ping: round_trips of them, ns */
    bool sorted;

    uint8_t *pattern;
    uint8_t *chunk;             /* agent */
    uint8_t *pending;           /* echo: read but not written yet */
    uint32_t pending_pos;
    uint32_t pending_len;
    char *error;
};

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

static void pump_start(SpiceFlowPump *p, Error **errp)
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

static void pump_stop(SpiceFlowPump *p)
{
    if (p->running) {
        pump_rest(p);
    }
    qemu_chr_fe_set_open(&p->chr, false);
}

static bool pump_get_running(Object *obj, Error **errp)
{
    return SPICEFLOW_PUMP(obj)->running;
}

static void pump_set_running(Object *obj, bool value, Error **errp)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);

    if (!DEVICE(obj)->realized) {
        error_setg(errp, "spiceflow-pump: 'running' can be set only after "
                   "the device was created");
        return;
    }
    if (value == p->running && value) {
        error_setg(errp, "spiceflow-pump: it is running already");
        return;
    }
    if (value) {
        pump_start(p, errp);
    } else {
        pump_stop(p);
    }
}

/* Settings */

static bool pump_may_set(SpiceFlowPump *p, const char *name, Error **errp)
{
    if (p->running) {
        error_setg(errp, "spiceflow-pump: '%s' can not be changed while the "
                   "pump is running", name);
        return false;
    }
    return true;
}

static int pump_get_mode(Object *obj, Error **errp)
{
    return SPICEFLOW_PUMP(obj)->set.mode;
}

static void pump_set_mode(Object *obj, int value, Error **errp)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);

    if (pump_may_set(p, "mode", errp)) {
        p->set.mode = value;
    }
}

/* One description per plain setting; all are unsigned with a range */
typedef struct PumpSetting {
    const char *name;
    const char *help;
    size_t offset;
    uint64_t min;
    uint64_t max;
    uint64_t initial;
    enum { PUMP_BOOL, PUMP_U32, PUMP_U64 } kind;
} PumpSetting;

static const PumpSetting pump_settings[] = {
    { "write-size", "bytes in one write to the chardev",
      offsetof(PumpSettings, write_size), 1, PUMP_MAX_UNIT, 4 * KiB, PUMP_U32 },
    { "can-read-size", "bytes accepted in one read from the chardev",
      offsetof(PumpSettings, can_read_size), 1, PUMP_MAX_UNIT, 4 * KiB,
      PUMP_U32 },
    { "burst", "bytes per direction and turn of the main loop, 0: no limit",
      offsetof(PumpSettings, burst), 0, 1 * GiB, 512 * KiB, PUMP_U32 },
    { "count", "round trips in mode ping",
      offsetof(PumpSettings, count), 1, PUMP_MAX_COUNT, 10000, PUMP_U32 },
    { "total", "bytes to move in the other modes",
      offsetof(PumpSettings, total), 0, INT64_MAX, 256 * MiB, PUMP_U64 },
    { "verify", "the data carries its position and is checked when read",
      offsetof(PumpSettings, verify), 0, 1, 0, PUMP_BOOL },
    { "agent", "mode source writes what a SPICE agent would",
      offsetof(PumpSettings, agent), 0, 1, 0, PUMP_BOOL },
    { "defer", "modes echo and ping answer from a bottom half",
      offsetof(PumpSettings, defer), 0, 1, 0, PUMP_BOOL },
};

static uint64_t pump_load(const SpiceFlowPump *p, const PumpSetting *s)
{
    const char *field = (const char *)&p->set + s->offset;

    switch (s->kind) {
    case PUMP_BOOL:
        return *(const bool *)field;
    case PUMP_U32:
        return *(const uint32_t *)field;
    default:
        return *(const uint64_t *)field;
    }
}

static void pump_store(SpiceFlowPump *p, const PumpSetting *s, uint64_t value)
{
    char *field = (char *)&p->set + s->offset;

    switch (s->kind) {
    case PUMP_BOOL:
        *(bool *)field = value;
        break;
    case PUMP_U32:
        *(uint32_t *)field = value;
        break;
    default:
        *(uint64_t *)field = value;
        break;
    }
}

static void pump_get_setting(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    const PumpSetting *s = opaque;
    uint64_t value = pump_load(SPICEFLOW_PUMP(obj), s);
    bool on = value;

    if (s->kind == PUMP_BOOL) {
        visit_type_bool(v, name, &on, errp);
    } else {
        visit_type_uint64(v, name, &value, errp);
    }
}

static void pump_set_setting(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    const PumpSetting *s = opaque;
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);
    uint64_t value;
    bool on;

    if (s->kind == PUMP_BOOL) {
        if (!visit_type_bool(v, name, &on, errp)) {
            return;
        }
        value = on;
    } else if (!visit_type_size(v, name, &value, errp)) {
        return;
    }
    if (!pump_may_set(p, name, errp)) {
        return;
    }
    if (value < s->min || value > s->max) {
        error_setg(errp, "spiceflow-pump: '%s' must be from %" PRIu64
                   " to %" PRIu64 ", not %" PRIu64,
                   name, s->min, s->max, value);
        return;
    }
    pump_store(p, s, value);
}

/* Results */

static int pump_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* The value that @permille of the samples do not exceed */
static uint64_t pump_quantile(SpiceFlowPump *p, unsigned permille)
{
    uint32_t n = p->res.round_trips;

    if (!n || p->running) {
        return 0;
    }
    if (!p->sorted) {
        qsort(p->samples, n, sizeof(p->samples[0]), pump_compare);
        p->sorted = true;
    }
    return p->samples[(uint64_t)(n - 1) * permille / 1000];
}

static void pump_get_results(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);
    const PumpResults *r = &p->res;
    int64_t end = p->running ? get_clock() : r->finished_ns;
    struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        { "elapsed-ns", end - r->started_ns },
        { "started-ns", r->started_ns },
        { "first-ns", r->first_ns },
        { "finished-ns", r->finished_ns },
        { "bytes-written", r->written },
        { "bytes-read", r->read },
        { "writes", r->writes },
        { "reads", r->reads },
        { "short-writes", r->short_writes },
        { "zero-writes", r->zero_writes },
        { "watches", r->watches },
        { "turns", r->turns },
        { "round-trips", r->round_trips },
        { "min-ns", pump_quantile(p, 0) },
        { "p50-ns", pump_quantile(p, 500) },
        { "p90-ns", pump_quantile(p, 900) },
        { "p99-ns", pump_quantile(p, 990) },
        { "max-ns", pump_quantile(p, 1000) },
    };
    bool done = r->finished_ns && !p->error &&
        (p->set.mode == PUMP_PING ? r->round_trips == p->set.count :
         p->set.mode == PUMP_SINK ? r->read == p->set.total :
         r->written == p->set.total);
    char *error = p->error ? p->error : (char *)"";
    size_t i;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (!visit_type_bool(v, "running", &p->running, errp) ||
        !visit_type_bool(v, "opened", &p->opened, errp) ||
        !visit_type_bool(v, "done", &done, errp) ||
        !visit_type_str(v, "error", &error, errp)) {
        goto out;
    }
    for (i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (!visit_type_uint64(v, numbers[i].name, &numbers[i].value, errp)) {
            goto out;
        }
    }
    visit_check_struct(v, errp);
out:
    visit_end_struct(v, NULL);
}

/* The device */

static void pump_realize(DeviceState *dev, Error **errp)
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

static void pump_unrealize(DeviceState *dev)
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

static void pump_init(Object *obj)
{
    SpiceFlowPump *p = SPICEFLOW_PUMP(obj);
    size_t i;

    for (i = 0; i < ARRAY_SIZE(pump_settings); i++) {
        pump_store(p, &pump_settings[i], pump_settings[i].initial);
    }
}

static const Property pump_properties[] = {
    DEFINE_PROP_CHR("chardev", SpiceFlowPump, chr),
};

static void pump_class_init(ObjectClass *klass, TestClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    size_t i;

    dc->desc = "feeds and drains a chardev without a guest, for measuring";
    dc->realize = pump_realize;
    dc->unrealize = pump_unrealize;
    dc->hotpluggable = false;
    device_class_set_props(dc, pump_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);

    object_class_property_add_enum(klass, "mode", "SpiceFlowPumpMode",
                                   &pump_mode_lookup,
                                   pump_get_mode, pump_set_mode);
    object_class_property_set_description(klass, "mode",
                                          "source, sink, echo or ping");
    for (i = 0; i < ARRAY_SIZE(pump_settings); i++) {
        const PumpSetting *s = &pump_settings[i];

        object_class_property_add(klass, s->name,
                                  s->kind == PUMP_BOOL ? "bool" : "size",
                                  pump_get_setting, pump_set_setting,
                                  NULL, (void *)s);
        object_class_property_set_description(klass, s->name, s->help);
    }
    object_class_property_add_bool(klass, "running", pump_get_running,
                                   pump_set_running);
    object_class_property_set_description(klass, "running",
                                          "set it to start or to stop");
    object_class_property_add(klass, "results", "SpiceFlowPumpResults",
                              pump_get_results, NULL, NULL, NULL);
    object_class_property_set_description(klass, "results",
                                          "what the last run did");
}

static const TypeInfo pump_types[] = {
    {
        .name = TYPE_SPICEFLOW_PUMP,
        .parent = TYPE_DEVICE,
        .instance_size = sizeof(SpiceFlowPump),
        .instance_init = pump_init,
        .class_init = pump_class_init,
    },
};

module_obj(TYPE_SPICEFLOW_PUMP);

DEFINE_TYPES(pump_types)
