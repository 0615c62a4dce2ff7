/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A player of scripts for the flow-control machine.
 *
 * Theory of operation
 *
 * There are two sides, the machine (chardev/spiceflow/core/flow*.c) and the
 * reference model (flow-model.c).  Each has a little world around it: a guest
 * that takes as many bytes as it was told to, clients with sockets that take
 * messages or not, an owner that answers callbacks.  A step is done to one side
 * and then to the other; every callback, event and return value is noted, and
 * then the notes, the bytes that came out, all numbers that the interface
 * shows and the saved states of both sides have to be equal.
 *
 * A step can be put off into a callback ("in write: remove a"): it is done the
 * next time when a side calls that op.  That is how re-entrancy is played.
 *
 * Beside the comparison the worlds watch by themselves what no one may ever
 * do: write while stopped, call for a client that was removed or told to go,
 * lose, repeat or swap bytes, know more tokens than the client does.
 *
 * The language, one step in a line (# begins a comment):
 *
 *   open [framed|raw] [self=N] [max=N] [timeout=MS] [clients=N]   a new device
 *   close | start | stop | reset | settle
 *   tick MS                        time goes on, and the machine is told
 *   timeout MS                     another stall timeout
 *   add C [window=N interval=N send=N] [raw] [bytes=N] [messages=N]
 *         [ring=N] [ringbytes=N]   a client, C is a letter from a to e
 *   remove C                       likewise from "remove" op when owner says
 *   begin C | body C LEN [more] [head=N] | cancel C | room C
 *   write C LEN [more] [head=N]    begin and body, or body without tokens
 *   server LEN | unpaid N          buffers of the server's own
 *   guest N [chunk=N] [fails] [over]   takes N bytes, CHUNK at a time; then
 *                                  0 or -1; over: claims to have taken more
 *   ready | takes N                guest_ready; N bytes more, and ready
 *   may LEN | send LEN | mayto C LEN | sendto C LEN | stream LEN
 *   stuck C N                      1: its socket is full, messages are kept
 *   out C N                        N kept ones are out
 *   grant C N | set C N            send tokens: added, set
 *   move [N]                       migration, N messages delivered meanwhile
 *   return                         migration that failed
 *   snap | revert                  savevm, loadvm
 *   resume C [N]                   it is back; N: claims too many delivered
 *   bad N                          a damaged state, made from this one
 *   owner [later] [notice]         removes clients told to go not at once;
 *                                  queues no notice after a torn message
 *   in CALLBACK: STEP              callbacks: write wake self clock send give
 *                                  room lost remove
 *
 * "STEP -> N" says what must be returned.  And expectations:
 *
 *   expect KEY=N...                running waits live self queue bytes peak
 *                                  guest sent discarded dropped stalls
 *                                  violations turn torn
 *   expect C KEY=N...              tokens due send held bytes ring flying
 *                                  ringbytes receiving waits dead away got
 *   calls WORD...                  exactly these callbacks since the last time
 *   events WORD...                 exactly these events in the last step
 */
#include "flow-play.h"
#include "flow-model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEN 512             /* bytes of one buffer or message */
#define TAG_SERVER 6
#define TAG_UNPAID 7

typedef struct Side Side;

typedef struct Kept {
    SpiceFlowMessage *msg;      /* NULL on the model's side */
    uint8_t *copy;
    size_t len;
} Kept;

/* A client, as its owner sees it. */
typedef struct Who {
    Side *side;
    unsigned id;
    void *c;                    /* SpiceFlowClient or FlowModelClient */
    bool fc, away, kicked, gone, stuck, stale, receiving;
    uint32_t window;
    uint32_t view;              /* tokens the client believes to have */
    GQueue kept;
    uint32_t delivered;         /* since the state was saved */
    uint8_t next_all, next_own; /* expected bytes of the two streams */
    bool any_all, any_own;      /* any byte is as good */
    uint64_t got;
} Who;

typedef enum NoteKind {
    NOTE_RET, NOTE_EVENT,
    NOTE_CALL,                  /* + FlowStepIn */
} NoteKind;

typedef struct Note {
    uint32_t kind;
    uint32_t who;
    uint64_t value;
    uint64_t more;
} Note;

/*
 * Where the streams have got to that are handed in: to the guest by tag, to
 * all clients, to one alone.  The next byte may also be one of "skip", each
 * as often as it says: what was dropped is missing up to there.
 */
typedef struct Counters {
    uint8_t put[8];
    uint16_t skip[8][32];
    uint8_t put_all;
    uint8_t put_own[FLOW_PLAY_CLIENTS + 1];
    uint16_t skip_all[FLOW_PLAY_CLIENTS + 1][128];
    uint16_t skip_own[FLOW_PLAY_CLIENTS + 1][128];
} Counters;

struct Side {
    FlowPlay *play;
    bool is_model;
    SpiceFlow *flow;
    FlowModel *model;
    SpiceFlowParams params;
    bool running;               /* as told */
    int64_t now;
    Who *who[FLOW_PLAY_CLIENTS + 1];
    GPtrArray *all_who;
    unsigned calls;             /* callbacks in progress */

    uint64_t guest_room, guest_chunk;
    bool guest_fails, guest_over;
    bool later, no_notice;

    uint8_t next[8];            /* next byte by tag, as the guest must get it */
    bool any[8];
    Counters at;
    unsigned resets, sends;
    uint8_t send_from;          /* where the message being sent begins */
    GArray *hooks;              /* FlowStep */
    GArray *notes;              /* Note: of this step */
    GByteArray *guest;          /* of this step */
    GByteArray *clients;        /* of this step, all of them */
    uint64_t guest_total;
    bool has_snapshot;
    SpiceFlowSaved snapshot;
    Counters snapshot_at;
    SpiceFlowClientParams same;
    bool all_same;
};

struct FlowPlay {
    Side side[2];
    GString *error;
    bool failed;
    GArray *calls;              /* Note: since the last "calls" */
    uint64_t ret;
    uint64_t bytes;
};

static const char *const in_names[IN__MAX] = {
    "", "write", "wake", "self", "clock", "send", "give", "room", "lost",
    "remove",
};

static const char *const op_names[STEP__MAX] = {
    "open", "close", "start", "stop", "reset", "tick",
    "add", "remove", "resume",
    "begin", "body", "write", "cancel", "room", "settle",
    "server", "unpaid", "guest", "ready", "takes",
    "may", "send", "mayto", "sendto", "stream",
    "stuck", "out", "grant", "set",
    "move", "return", "snap", "revert", "bad", "owner",
    "timeout",
};

static void fail(Side *s, const char *format, ...) G_GNUC_PRINTF(2, 3);

static void fail(Side *s, const char *format, ...)
{
    va_list args;

    if (s->play->failed) {
        return;
    }
    s->play->failed = true;
    g_string_append(s->play->error, s->is_model ? "model: " : "machine: ");
    va_start(args, format);
    g_string_append_vprintf(s->play->error, format, args);
    va_end(args);
}

static void note(Side *s, uint32_t kind, uint32_t who, uint64_t value,
                 uint64_t more)
{
    Note n = { kind, who, value, more };

    g_array_append_val(s->notes, n);
}

/*
 * Both sides by one name
 */

#define DEVICE(s, fn, ...) \
    ((s)->is_model ? flow_model_##fn((s)->model, ##__VA_ARGS__) \
                   : spice_flow_##fn((s)->flow, ##__VA_ARGS__))
#define CLIENT(w, fn, ...) \
    ((w)->side->is_model ? flow_model_##fn((w)->c, ##__VA_ARGS__) \
                         : spice_flow_##fn((w)->c, ##__VA_ARGS__))

static bool is_open(const Side *s)
{
    return s->flow || s->model;
}

/*
 * The world's answers
 */

static uint64_t step_do(Side *s, const FlowStep *step);

/* Do what was put off into this callback. */
static void callback(Side *s, FlowStepIn in, const Who *w, uint64_t value,
                     uint64_t more)
{
    note(s, NOTE_CALL + in, w ? w->id : 0, value, more);
    for (guint i = 0; i < s->hooks->len; i++) {
        FlowStep step = g_array_index(s->hooks, FlowStep, i);

        if (step.in == in) {
            g_array_remove_index(s->hooks, i);
            s->calls++;
            note(s, NOTE_RET, step.op, step_do(s, &step), 0);
            s->calls--;
            break;
        }
    }
}

static bool may_call(Who *w, const char *what)
{
    if (w->gone || w->kicked || w->away) {
        fail(w->side, "%s for client %c who is %s", what, 'a' + w->id - 1,
             w->gone ? "removed" : w->kicked ? "told to go" : "away");
        return false;
    }
    return true;
}

/* The guest looks at each byte: who it is from, and whether it is the next. */
static void guest_check(Side *s, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned tag = data[i] >> 5;
        uint8_t n = data[i] & 31;

        if (tag == TAG_UNPAID) {
            continue;
        }
        if (tag == 0) {
            fail(s, "the guest got a byte that no one sent");
            return;
        }
        if (n != s->next[tag] && !s->any[tag] && !s->at.skip[tag][n]--) {
            fail(s, "the guest got byte %u of %c, not %u", n, '`' + tag,
                 s->next[tag]);
            return;
        }
        s->any[tag] = false;
        s->next[tag] = (n + 1) & 31;
    }
}

static ssize_t do_write(Side *s, const uint8_t *data, size_t len)
{
    size_t n = MIN(len, s->guest_room);

    if (!s->running) {
        fail(s, "the guest was written to while stopped");
    }
    if (s->guest_chunk) {
        n = MIN(n, s->guest_chunk);
    }
    callback(s, IN_WRITE, NULL, len, n);
    /* the caller's bytes must still be good */
    guest_check(s, data, n);
    g_byte_array_append(s->guest, data, n);
    s->guest_total += n;
    s->guest_room -= MIN(n, s->guest_room);
    if (n == 0) {
        return s->guest_fails ? -1 : 0;
    }
    return s->guest_over && n == len ? n + 7 : n;
}

static ssize_t on_write(void *opaque, const uint8_t *data, size_t len)
{
    return do_write(opaque, data, len);
}

static void on_wake(void *opaque)
{
    callback(opaque, IN_WAKE, NULL, 0, 0);
}

static void on_self(void *opaque)
{
    callback(opaque, IN_SELF, NULL, 0, 0);
}

static void on_clock(void *opaque, bool runs)
{
    callback(opaque, IN_CLOCK, NULL, runs, 0);
}

static void on_event(void *opaque, SpiceFlowEvent event, uint32_t client,
                     uint64_t value)
{
    note(opaque, NOTE_EVENT, event, client, value);
}

static void client_gets(Who *w, const uint8_t *data, size_t len)
{
    Side *s = w->side;

    for (size_t i = 0; i < len; i++) {
        bool own = data[i] & 0x80;
        uint8_t n = data[i] & 0x7f;
        uint8_t *next = own ? &w->next_own : &w->next_all;
        bool *any = own ? &w->any_own : &w->any_all;
        uint16_t *skip = own ? s->at.skip_own[w->id] : s->at.skip_all[w->id];

        if (n != *next && !*any && !skip[n]--) {
            fail(s, "client %c got byte %u, not %u", 'a' + w->id - 1, n, *next);
        }
        *any = false;
        *next = (n + 1) & 0x7f;
    }
    g_byte_array_append(s->clients, data, len);
    w->got += len;
}

static bool do_send(Who *w, const uint8_t *data, size_t len,
                    SpiceFlowMessage *msg)
{
    Kept *kept;

    may_call(w, "send");
    callback(w->side, IN_SEND, w, len, 0);
    if (w->gone || w->kicked) {
        return w->stuck;
    }
    if (!w->stuck && g_queue_is_empty(&w->kept)) {
        client_gets(w, data, len);
        return true;
    }
    kept = g_new0(Kept, 1);
    kept->msg = msg ? spice_flow_message_keep(msg) : NULL;
    kept->copy = g_memdup2(data, len);
    kept->len = len;
    g_queue_push_tail(&w->kept, kept);
    return false;
}

static bool on_machine_send(void *opaque, SpiceFlowMessage *msg)
{
    size_t len;
    const uint8_t *data = spice_flow_message_data(msg, &len);

    return do_send(opaque, data, len, msg);
}

static bool on_model_send(void *opaque, const uint8_t *data, size_t len)
{
    return do_send(opaque, data, len, NULL);
}

static void on_give(void *opaque, uint32_t n)
{
    Who *w = opaque;

    may_call(w, "give_tokens");
    if (!w->fc || n == 0) {
        fail(w->side, "%u tokens given to client %c", n, 'a' + w->id - 1);
    }
    w->view += n;
    callback(w->side, IN_GIVE, w, n, 0);
}

static void on_room(void *opaque)
{
    Who *w = opaque;

    may_call(w, "room");
    callback(w->side, IN_ROOM, w, 0, 0);
}

static void notice(Side *s);

static void on_lost(void *opaque)
{
    Who *w = opaque;

    may_call(w, "turn_lost");
    callback(w->side, IN_LOST, w, 0, 0);
    notice(w->side);
}

static uint64_t who_remove(Who *w);

static void on_remove(void *opaque, SpiceFlowReason reason)
{
    Who *w = opaque;

    may_call(w, "remove");
    w->kicked = true;
    callback(w->side, IN_REMOVE, w, reason, 0);
    if (!w->side->later && !w->gone) {
        who_remove(w);
    }
}

static const SpiceFlowOps machine_ops = {
    .write = on_write,
    .wake = on_wake,
    .self_token_free = on_self,
    .clock = on_clock,
    .event = on_event,
    .send = on_machine_send,
    .give_tokens = on_give,
    .room = on_room,
    .turn_lost = on_lost,
    .remove = on_remove,
};

static const FlowModelOps model_ops = {
    .write = on_write,
    .wake = on_wake,
    .self_token_free = on_self,
    .clock = on_clock,
    .event = on_event,
    .send = on_model_send,
    .give_tokens = on_give,
    .room = on_room,
    .turn_lost = on_lost,
    .remove = on_remove,
};

/*
 * Clients of a side
 */

static void kept_free(Side *s, Kept *kept)
{
    if (kept->msg) {
        size_t len;
        const uint8_t *data = spice_flow_message_data(kept->msg, &len);

        if (len != kept->len || memcmp(data, kept->copy, len)) {
            fail(s, "a kept message has changed");
        }
        spice_flow_message_unref(kept->msg);
    }
    g_free(kept->copy);
    g_free(kept);
}

static void who_drop_kept(Who *w)
{
    Kept *kept;

    while ((kept = g_queue_pop_head(&w->kept))) {
        kept_free(w->side, kept);
    }
}

static Who *who_new(Side *s, unsigned id)
{
    Who *w = g_new0(Who, 1);

    w->side = s;
    w->id = id;
    w->any_all = w->any_own = true;
    g_ptr_array_add(s->all_who, w);
    return w;
}

/* The machine knows this client no more. */
static void who_forget(Who *w)
{
    w->gone = true;
    if (w->side->who[w->id] == w) {
        w->side->who[w->id] = NULL;
    }
}

/* What was handed in of a stream is dropped: it may go on from here. */
static void stream_cut(Side *s, unsigned tag)
{
    s->at.skip[tag][s->at.put[tag]]++;
}

static void notice(Side *s)
{
    FlowStep step = { .op = STEP_UNPAID };

    if (!s->no_notice) {
        step_do(s, &step);
    }
}

static uint64_t who_remove(Who *w)
{
    Side *s = w->side;
    bool broken;

    if (!w->c) {
        w->c = s->is_model ? (void *)flow_model_client_find(s->model, w->id)
                           : (void *)spice_flow_client_find(s->flow, w->id);
    }
    who_forget(w);
    broken = CLIENT(w, client_remove);
    who_drop_kept(w);
    if (broken) {
        notice(s);
    }
    return broken;
}

static bool params_equal(const SpiceFlowClientParams *a,
                         const SpiceFlowClientParams *b)
{
    return a->id == b->id && a->flow_control == b->flow_control &&
           a->window == b->window && a->interval == b->interval &&
           a->send_tokens == b->send_tokens &&
           a->to_guest_bytes == b->to_guest_bytes &&
           a->to_guest_messages == b->to_guest_messages &&
           a->to_client_bytes == b->to_client_bytes &&
           a->to_client_messages == b->to_client_messages;
}

static uint64_t who_add(Side *s, unsigned id, const uint32_t *v)
{
    SpiceFlowClientParams params = {
        .id = id,
        .flow_control = v[0] & 1,
        .window = v[0] >> 1,
        .interval = v[1],
        .send_tokens = v[2],
        .to_guest_bytes = v[3],
        .to_guest_messages = v[4],
        .to_client_bytes = MAX(v[5], 1),
        .to_client_messages = v[6],
    };
    bool there = s->who[id];
    Who *w = who_new(s, id);
    void *c;

    w->fc = params.flow_control;
    w->window = w->view = w->fc ? params.window : 0;
    if (!there) {
        memset(s->at.skip_all[id], 0, sizeof(s->at.skip_all[id]));
        memset(s->at.skip_own[id], 0, sizeof(s->at.skip_own[id]));
    }
    /* the guest may be woken in here, and then much can happen */
    c = s->is_model ? (void *)flow_model_client_add(s->model, &params, w)
                    : (void *)spice_flow_client_add(s->flow, &params, w);
    if (!c) {
        w->gone = true;
        return 0;
    }
    if (there) {
        fail(s, "client %c is there twice", 'a' + id - 1);
    }
    if (!is_open(s) || w->gone) {
        w->gone = true;
        return 1;
    }
    w->c = c;
    s->who[id] = w;
    stream_cut(s, id);
    if (s->same.id == 0) {
        s->same = params;
        s->all_same = true;
    }
    params.id = s->same.id;
    s->all_same = s->all_same && params_equal(&params, &s->same);
    return 1;
}

/*
 * Steps
 */

static void fill(uint8_t *data, size_t len, unsigned tag, uint8_t from)
{
    for (size_t i = 0; i < len; i++) {
        data[i] = tag << 5 | ((from + i) & 31);
    }
}

static uint64_t client_body(Who *w, size_t len, bool more, size_t head)
{
    Side *s = w->side;
    uint8_t bytes[MAX_LEN];
    uint8_t from = s->at.put[w->id];
    SpiceFlowBuffer buffer = { .more = more };
    bool swallowed = w->stale || len == 0 || len > s->params.max_message;
    uint8_t after;
    uint64_t ret;

    len = MIN(len, MAX_LEN);
    head = MIN(head, len);
    fill(bytes, len, w->id, from);
    buffer.head = head ? bytes : NULL;
    buffer.head_len = head;
    buffer.data = bytes + head;
    buffer.len = len - head;
    if (!swallowed) {
        s->at.put[w->id] = (from + len) & 31;
    }
    after = s->at.put[w->id];
    w->stale = w->receiving = false;
    ret = CLIENT(w, client_write, &buffer);
    memset(bytes, 0, sizeof(bytes));            /* they were borrowed */
    if (!ret && !swallowed) {
        if (s->at.put[w->id] == after) {
            s->at.put[w->id] = from;
        } else {
            stream_cut(s, w->id);
        }
    }
    return ret;
}

static uint64_t client_begin(Who *w)
{
    uint64_t ret = CLIENT(w, client_begin);

    w->view -= ret;
    w->receiving = w->receiving || ret;
    return ret;
}

static uint64_t client_write(Who *w, size_t len, bool more, size_t head)
{
    if (w->fc && !client_begin(w)) {
        return 0;
    }
    return w->gone ? 0 : client_body(w, len, more, head);
}

static uint64_t server_write(Side *s, size_t len)
{
    uint8_t bytes[MAX_LEN];
    uint8_t from = s->at.put[TAG_SERVER];
    SpiceFlowBuffer buffer = { .data = bytes };
    uint64_t ret;

    len = CLAMP(len, 1, s->params.max_message);
    buffer.len = len;
    fill(bytes, len, TAG_SERVER, from);
    s->at.put[TAG_SERVER] = (from + len) & 31;
    ret = DEVICE(s, server_write, &buffer);
    memset(bytes, 0, sizeof(bytes));
    if (!ret) {
        s->at.put[TAG_SERVER] = from;
    }
    return ret;
}

static void server_write_unpaid(Side *s, unsigned kind)
{
    uint8_t bytes[8];
    SpiceFlowBuffer buffer = { .head = bytes, .data = bytes + 1 };

    buffer.head_len = kind & 1;
    buffer.len = 1 + kind % MIN(4, s->params.max_message);
    if (s->params.max_message < 5) {
        buffer.head_len = 0;
    }
    fill(bytes, sizeof(bytes), TAG_UNPAID, kind);
    DEVICE(s, server_write_unpaid, &buffer);
    memset(bytes, 0, sizeof(bytes));
}

static void fill_up(uint8_t *data, size_t len, uint8_t mark, uint8_t from)
{
    for (size_t i = 0; i < len; i++) {
        data[i] = mark | ((from + i) & 0x7f);
    }
}

/* A stream that was cut is not taken up again: it goes on from here. */
static void stream_skips(Side *s)
{
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        s->at.skip_all[i][s->at.put_all]++;
    }
}

/* The guest sends: all of it, or as much of a stream as goes. */
static uint64_t guest_sends(Side *s, size_t len, bool stream)
{
    uint8_t bytes[MAX_LEN];
    uint8_t from = s->at.put_all, after;
    unsigned resets = s->resets;
    size_t n;

    len = CLAMP(len, 1, stream ? MAX_LEN : s->params.max_message);
    fill_up(bytes, len, 0, from);
    if (s->sends) {
        stream_skips(s);        /* woken at the end of one that was cut */
    }
    s->at.put_all = after = (from + len) & 0x7f;
    s->sends++;
    s->send_from = from;
    n = stream ? DEVICE(s, send_stream, bytes, len)
               : DEVICE(s, send, bytes, len) ? len : 0;
    s->sends--;
    memset(bytes, 0xff, sizeof(bytes));
    if (n == len) {
        return stream ? n : 1;
    }
    if (s->at.put_all == after && s->resets == resets) {
        s->at.put_all = (from + n) & 0x7f;
    } else {
        stream_skips(s);
    }
    return stream ? n : 0;
}

static void guest_sends_to(Who *w, size_t len)
{
    uint8_t bytes[MAX_LEN];

    len = CLAMP(len, 1, w->side->params.max_message);
    fill_up(bytes, len, 0x80, w->side->at.put_own[w->id]);
    w->side->at.put_own[w->id] += len;
    CLIENT(w, send_to, bytes, len);
    memset(bytes, 0xff, sizeof(bytes));
}

static uint64_t client_out(Who *w, unsigned n)
{
    uint64_t done = 0;

    while (n-- && !w->gone && !w->kicked && !w->away) {
        Kept *kept = g_queue_pop_head(&w->kept);

        if (!kept) {
            break;
        }
        client_gets(w, kept->copy, kept->len);
        kept_free(w->side, kept);
        CLIENT(w, client_sent);
        done++;
    }
    return done;
}

static void everyone_after_reset(Side *s)
{
    s->resets++;
    stream_cut(s, TAG_SERVER);
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        Who *w = s->who[i];

        stream_cut(s, i);
        if (!w) {
            continue;
        }
        s->at.skip_all[i][s->at.put_all & 0x7f]++;
        /* a message that is being handed out now still is, to the others */
        if (s->sends) {
            w->any_all = true;
            s->at.skip_all[i][s->send_from]++;
        }
        s->at.skip_own[i][s->at.put_own[i] & 0x7f]++;
        w->view = w->window;
        if (w->receiving) {
            w->stale = true;
        }
    }
}

static void side_close(Side *s)
{
    SpiceFlow *flow = s->flow;
    FlowModel *model = s->model;

    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        if (s->who[i]) {
            who_forget(s->who[i]);
        }
    }
    s->flow = NULL;
    s->model = NULL;
    s->running = false;
    g_array_set_size(s->hooks, 0);
    spice_flow_close(flow);
    flow_model_close(model);
    /* the owner lets go of what its sockets kept some time later */
    for (guint i = 0; i < s->all_who->len; i++) {
        who_drop_kept(s->all_who->pdata[i]);
    }
    if (s->has_snapshot) {
        spice_flow_saved_clear(&s->snapshot);
        s->has_snapshot = false;
    }
}

static void side_new(Side *s)
{
    if (s->is_model) {
        s->model = flow_model_new(&model_ops, s, &s->params);
    } else {
        s->flow = spice_flow_new(&machine_ops, s, &s->params);
    }
}

static void side_open(Side *s, const uint32_t *v)
{
    side_close(s);
    s->params = (SpiceFlowParams) {
        .framing = v[0] & 1 ? SPICE_FLOW_RAW : SPICE_FLOW_FRAMED,
        .self_tokens = v[1],
        .max_message = CLAMP(v[2], 1, MAX_LEN),
        .stall_timeout = v[3],
        .max_clients = v[4],
    };
    s->guest_room = UINT64_MAX;
    s->guest_chunk = 0;
    s->guest_fails = s->guest_over = false;
    s->later = s->no_notice = false;
    s->guest_total = 0;
    s->at = (Counters) { .put_all = s->at.put_all };
    s->same = (SpiceFlowClientParams) { 0 };
    s->all_same = false;
    memset(s->any, true, sizeof(s->any));
    side_new(s);
}

static void side_save(const Side *s, SpiceFlowSaved *saved)
{
    if (s->is_model) {
        flow_model_save(s->model, saved, s->now);
    } else {
        spice_flow_save(s->flow, saved, s->now);
    }
}

/* Returns what differs, or NULL. */
static const char *saved_differ(const SpiceFlowSaved *a,
                                const SpiceFlowSaved *b)
{
    if (a->self_tokens != b->self_tokens) {
        return "self_tokens";
    }
    if (a->turn != b->turn || a->turn_waited != b->turn_waited) {
        return a->turn != b->turn ? "turn" : "turn_waited";
    }
    if (a->torn != b->torn) {
        return "torn";
    }
    if (a->num_clients != b->num_clients ||
        a->num_buffers != b->num_buffers || a->data_size != b->data_size) {
        return "a number of";
    }
    for (uint32_t i = 0; i < a->num_clients; i++) {
        const SpiceFlowSavedClient *x = &a->clients[i], *y = &b->clients[i];

        if (x->params.id != y->params.id || x->tokens != y->tokens ||
            x->due != y->due || x->send_tokens != y->send_tokens ||
            x->in_flight != y->in_flight || x->receiving != y->receiving) {
            return "clients";
        }
        if (x->waited != y->waited) {
            return "waited";
        }
        if (!params_equal(&x->params, &y->params)) {
            return "params";
        }
    }
    if (a->num_buffers && memcmp(a->buffers, b->buffers,
                                 a->num_buffers * sizeof(*a->buffers))) {
        return "buffers";
    }
    if (a->data_size && memcmp(a->data, b->data, a->data_size)) {
        return "data";
    }
    return NULL;
}

static void side_restore(Side *s, const SpiceFlowSaved *saved)
{
    char *error = NULL;

    if (s->is_model) {
        flow_model_restore(s->model, saved, s->now);
    } else if (!spice_flow_restore(s->flow, saved, s->now, &error)) {
        fail(s, "restore refused a good state: %s", error);
        g_free(error);
    }
}

static void side_restored_same(Side *s, const SpiceFlowSaved *saved)
{
    SpiceFlowSaved again;
    const char *what;

    side_save(s, &again);
    what = saved_differ(saved, &again);
    if (what) {
        fail(s, "saved, restored and saved again, and %s differs", what);
    }
    spice_flow_saved_clear(&again);
}

/* The clients of a state are there now, and away. */
static void who_restored(Side *s, const SpiceFlowSavedClient *saved, Who *old)
{
    unsigned id = saved->params.id;
    Who *w = who_new(s, id);

    s->who[id] = w;
    w->away = true;
    w->fc = saved->params.flow_control;
    w->window = w->fc ? saved->params.window : 0;
    w->view = w->fc ? saved->tokens : 0;
    w->receiving = saved->receiving != 0;
    w->stale = saved->receiving == 2;
    if (old) {
        w->view = old->view;
        w->stuck = old->stuck;
        w->delivered = old->delivered;
        w->next_all = old->next_all;
        w->next_own = old->next_own;
        w->any_all = old->any_all;
        w->any_own = old->any_own;
        w->got = old->got;
    }
    w->c = s->is_model ? (void *)flow_model_client_find(s->model, id)
                       : (void *)spice_flow_client_find(s->flow, id);
    if (!w->c) {
        fail(s, "client %c was not restored", 'a' + id - 1);
    }
}

static void side_move(Side *s, unsigned delivers)
{
    Who *old[FLOW_PLAY_CLIENTS + 1] = { NULL };
    SpiceFlow *flow = s->flow;
    FlowModel *model = s->model;
    SpiceFlowSaved saved;

    if (s->running) {
        s->running = false;
        DEVICE(s, stop, s->now);
    }
    if (!is_open(s) || s->running) {
        return;         /* stop's callbacks can do that */
    }
    side_save(s, &saved);
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        Who *w = s->who[i];

        if (w && !w->away) {
            w->delivered = client_out(w, delivers);
        }
        old[i] = w;
    }
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        if (old[i]) {
            who_forget(old[i]);
        }
    }
    s->flow = NULL;
    s->model = NULL;
    side_new(s);
    s->now += 5;        /* another host's clock */
    side_restore(s, &saved);
    side_restored_same(s, &saved);
    for (uint32_t i = 0; i < saved.num_clients; i++) {
        who_restored(s, &saved.clients[i], old[saved.clients[i].params.id]);
    }
    spice_flow_close(flow);
    flow_model_close(model);
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        if (old[i]) {
            who_drop_kept(old[i]);
        }
    }
    spice_flow_saved_clear(&saved);
}

/* The target takes the state and fails; the source has not noticed. */
static void side_return(Side *s)
{
    SpiceFlow *flow = s->flow;
    FlowModel *model = s->model;
    SpiceFlowSaved saved;

    side_save(s, &saved);
    side_new(s);
    side_restore(s, &saved);
    spice_flow_close(s->flow);
    flow_model_close(s->model);
    s->flow = flow;
    s->model = model;
    side_restored_same(s, &saved);
    spice_flow_saved_clear(&saved);
}

static void side_snap(Side *s)
{
    if (s->has_snapshot) {
        spice_flow_saved_clear(&s->snapshot);
    }
    side_save(s, &s->snapshot);
    s->snapshot_at = s->at;
    s->has_snapshot = true;
}

static void side_revert(Side *s)
{
    if (!s->has_snapshot) {
        return;
    }
    if (s->running) {
        s->running = false;
        DEVICE(s, stop, s->now);
    }
    if (!is_open(s) || s->running || !s->has_snapshot) {
        return;
    }
    for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
        Who *w = s->who[i];

        if (w) {
            who_forget(w);
            who_drop_kept(w);
        }
    }
    side_restore(s, &s->snapshot);
    side_restored_same(s, &s->snapshot);
    for (uint32_t i = 0; i < s->snapshot.num_clients; i++) {
        who_restored(s, &s->snapshot.clients[i], NULL);
    }
    s->at = s->snapshot_at;
    memset(s->any, true, sizeof(s->any));
}

/*
 * A damaged state is refused with a word about it and changes nothing, or it
 * is a possible state by chance, and then the machine works with it.
 */
static uint64_t side_bad(Side *s, uint32_t seed)
{
    SpiceFlowSaved saved, before, after;
    SpiceFlow *flow = s->flow;
    char *error = NULL;
    bool good;
    const char *what;
    uint8_t *at;
    size_t size;

    if (s->is_model) {
        return 0;
    }
    side_save(s, &saved);
    switch (seed % 4) {
    case 0:
        at = (uint8_t *)&saved;
        size = offsetof(SpiceFlowSaved, num_clients);
        break;
    case 1:
        at = (uint8_t *)saved.clients;
        size = saved.num_clients * sizeof(*saved.clients);
        break;
    case 2:
        at = (uint8_t *)saved.buffers;
        size = saved.num_buffers * sizeof(*saved.buffers);
        break;
    default:
        at = (uint8_t *)&saved.data_size;
        size = sizeof(saved.data_size);
        break;
    }
    seed /= 4;
    if (size) {
        at[seed / 16 % size] ^= 1 << (seed & 7);
        if (seed & 8) {
            at[seed / 16 % size] = 0xff;
        }
    }
    /* flow_control is a bool: only 0 and 1 are values */
    for (uint32_t i = 0; i < saved.num_clients; i++) {
        uint8_t raw;

        memcpy(&raw, &saved.clients[i].params.flow_control, 1);
        saved.clients[i].params.flow_control = false;
        if (raw) {
            saved.clients[i].params.flow_control = true;
        }
    }
    s->flow = spice_flow_new(&machine_ops, s, &s->params);
    side_save(s, &before);
    good = spice_flow_restore(s->flow, &saved, s->now, &error);
    side_save(s, &after);
    what = saved_differ(&before, &after);
    if (!good && what) {
        fail(s, "a refused state has changed %s", what);
    }
    if (good) {
        /* what save() would not have written like this it writes so now */
        side_restore(s, &after);
        side_restored_same(s, &after);
    }
    if (!good && (!error || !*error)) {
        fail(s, "a state was refused without a word");
    }
    what = spice_flow_check(s->flow);
    if (good && what) {
        fail(s, "restored, and it does not hold that %s", what);
    }
    g_free(error);
    spice_flow_close(s->flow);
    s->flow = flow;
    spice_flow_saved_clear(&saved);
    spice_flow_saved_clear(&before);
    spice_flow_saved_clear(&after);
    return 0;
}

static uint64_t client_resume(Who *w, uint32_t too_many)
{
    uint64_t ret;
    uint32_t delivered = w->delivered + too_many;

    if (!w->away) {
        return CLIENT(w, client_resume, w, delivered);
    }
    w->away = false;
    w->delivered = 0;
    w->any_all = w->any_all || too_many;
    w->any_own = w->any_own || too_many;
    ret = CLIENT(w, client_resume, w, delivered);
    if (!ret) {
        w->away = true;
        w->delivered = delivered - too_many;
    }
    return ret;
}

static uint64_t client_step(Side *s, const FlowStep *step)
{
    const uint32_t *v = step->v;
    Who *w = s->who[step->who];

    if (step->op == STEP_ADD) {
        return who_add(s, step->who, v);
    }
    if (!w) {
        return UINT64_MAX;
    }
    switch (step->op) {
    case STEP_REMOVE:
        return who_remove(w);
    case STEP_RESUME:
        return client_resume(w, v[0]);
    case STEP_STUCK:
        w->stuck = v[0];
        return 0;
    case STEP_OUT:
        return client_out(w, v[0]);
    case STEP_MAYTO:
        return CLIENT(w, may_send_to, v[0]);
    case STEP_SENDTO:
        guest_sends_to(w, v[0]);
        return 0;
    default:
        break;
    }
    /* what a client does, it does when it is there */
    if (w->away || w->kicked) {
        return UINT64_MAX;
    }
    switch (step->op) {
    case STEP_BEGIN:
        return client_begin(w);
    case STEP_BODY:
        return client_body(w, v[0], v[1], v[2]);
    case STEP_WRITE:
        return client_write(w, v[0], v[1], v[2]);
    case STEP_CANCEL:
        w->stale = w->receiving = false;
        CLIENT(w, client_cancel);
        return 0;
    case STEP_ROOM:
        return CLIENT(w, client_room);
    case STEP_GRANT:
        CLIENT(w, client_tokens_add, v[0]);
        return 0;
    default:
        CLIENT(w, client_tokens_set, v[0]);
        return 0;
    }
}

static uint64_t device_step(Side *s, const FlowStep *step)
{
    const uint32_t *v = step->v;

    switch (step->op) {
    case STEP_CLOSE:
        side_close(s);
        return 0;
    case STEP_START:
        s->running = true;
        DEVICE(s, start, s->now);
        return 0;
    case STEP_STOP:
        s->running = false;
        DEVICE(s, stop, s->now);
        return 0;
    case STEP_RESET:
        everyone_after_reset(s);
        DEVICE(s, reset);
        return 0;
    case STEP_TICK:
        s->now += v[0];
        return DEVICE(s, tick, s->now);
    case STEP_TIMEOUT:
        s->params.stall_timeout = MAX(v[0], 1);
        return DEVICE(s, set_stall_timeout, s->params.stall_timeout, s->now);
    case STEP_SETTLE:
        DEVICE(s, settle);
        return 0;
    case STEP_SERVER:
        return server_write(s, v[0]);
    case STEP_UNPAID:
        server_write_unpaid(s, v[0]);
        return 0;
    case STEP_TAKES:
        s->guest_room += MIN(v[0], UINT64_MAX - s->guest_room);
        DEVICE(s, guest_ready);
        return 0;
    case STEP_READY:
        DEVICE(s, guest_ready);
        return 0;
    case STEP_MAY:
        return DEVICE(s, may_send, v[0]);
    case STEP_SEND:
        return guest_sends(s, v[0], false);
    case STEP_STREAM:
        return guest_sends(s, v[0], true);
    default:
        break;
    }
    /* the rest is not for callbacks */
    if (s->calls) {
        return UINT64_MAX;
    }
    switch (step->op) {
    case STEP_MOVE:
        side_move(s, v[0]);
        break;
    case STEP_RETURN:
        side_return(s);
        break;
    case STEP_SNAP:
        side_snap(s);
        break;
    case STEP_REVERT:
        side_revert(s);
        break;
    case STEP_BAD:
        side_bad(s, v[0]);
        break;
    default:
        break;
    }
    return 0;
}

static uint64_t step_do(Side *s, const FlowStep *step)
{
    switch (step->op) {
    case STEP_OPEN:
        if (s->calls == 0) {
            side_open(s, step->v);
        }
        return 0;
    case STEP_GUEST:
        s->guest_room = step->v[0];
        s->guest_chunk = step->v[1];
        s->guest_fails = step->v[2] & 1;
        s->guest_over = step->v[2] & 2;
        return 0;
    case STEP_OWNER:
        s->later = step->v[0] & 1;
        s->no_notice = step->v[0] & 2;
        return 0;
    default:
        break;
    }
    if (!is_open(s)) {
        return UINT64_MAX;
    }
    switch (step->op) {
    case STEP_ADD: case STEP_REMOVE: case STEP_RESUME: case STEP_BEGIN:
    case STEP_BODY: case STEP_WRITE: case STEP_CANCEL: case STEP_ROOM:
    case STEP_MAYTO: case STEP_SENDTO: case STEP_STUCK: case STEP_OUT:
    case STEP_GRANT: case STEP_SET:
        return client_step(s, step);
    default:
        return device_step(s, step);
    }
}

/*
 * Comparing
 */

static void note_print(GString *out, const Note *n)
{
    if (n->kind == NOTE_RET) {
        g_string_append_printf(out, " (%s=%" G_GINT64_FORMAT ")",
                               n->who < STEP__MAX ? op_names[n->who] : "?",
                               (gint64)n->value);
    } else if (n->kind == NOTE_EVENT) {
        g_string_append_printf(out, " %s/%u/%u",
                               spice_flow_event_name(n->who),
                               (unsigned)n->value, (unsigned)n->more);
    } else {
        g_string_append_printf(out, " %s", in_names[n->kind - NOTE_CALL]);
        if (n->who) {
            g_string_append_printf(out, ":%c", 'a' + n->who - 1);
        }
        if (n->kind == NOTE_CALL + IN_WRITE) {
            g_string_append_printf(out, ":%u=%u", (unsigned)n->value,
                                   (unsigned)n->more);
        } else if (n->kind != NOTE_CALL + IN_WAKE &&
                   n->kind != NOTE_CALL + IN_SELF &&
                   n->kind != NOTE_CALL + IN_ROOM &&
                   n->kind != NOTE_CALL + IN_LOST) {
            g_string_append_printf(out, ":%u", (unsigned)n->value);
        }
    }
}

static void notes_print(GString *out, const Side *s)
{
    g_string_append(out, s->is_model ? "\n  model:  " : "\n  machine:");
    for (guint i = 0; i < s->notes->len; i++) {
        note_print(out, &g_array_index(s->notes, Note, i));
    }
}

static bool arrays_equal(const void *a, size_t a_len, const void *b,
                         size_t b_len)
{
    return a_len == b_len && (a_len == 0 || !memcmp(a, b, a_len));
}

static void compare_info(FlowPlay *play)
{
    SpiceFlowInfo a, b;

    spice_flow_info(play->side[0].flow, &a);
    flow_model_info(play->side[1].model, &b);
#define SAME(field) \
    if (a.field != b.field) { \
        fail(&play->side[0], #field " is %" G_GUINT64_FORMAT \
             ", the model has %" G_GUINT64_FORMAT, (guint64)a.field, \
             (guint64)b.field); \
    }
    SAME(running) SAME(guest_waits) SAME(clients) SAME(self_tokens)
    SAME(to_guest_messages) SAME(to_guest_bytes) SAME(to_guest_peak)
    SAME(guest_messages) SAME(guest_bytes) SAME(client_messages)
    SAME(client_bytes) SAME(discarded_messages) SAME(discarded_bytes)
    SAME(dropped_messages) SAME(dropped_bytes) SAME(stalls) SAME(violations)
}

static void compare_client(FlowPlay *play, unsigned id)
{
    Who *w = play->side[0].who[id];
    SpiceFlowClientInfo a, b;

    spice_flow_client_info(w->c, &a);
    flow_model_client_info(play->side[1].who[id]->c, &b);
#undef SAME
#define SAME(field) \
    if (a.field != b.field) { \
        fail(&play->side[0], "client %c: " #field " is %" G_GUINT64_FORMAT \
             ", the model has %" G_GUINT64_FORMAT, 'a' + id - 1, \
             (guint64)a.field, (guint64)b.field); \
    }
    SAME(id) SAME(flow_control) SAME(away) SAME(dead) SAME(receiving)
    SAME(waits) SAME(window) SAME(client_tokens) SAME(due_tokens)
    SAME(send_tokens) SAME(to_guest_messages) SAME(to_guest_bytes)
    SAME(to_client_messages) SAME(to_client_in_flight) SAME(to_client_bytes)
#undef SAME
    if (w->fc && !a.dead && w->view != a.client_tokens) {
        fail(&play->side[0], "client %c believes to have %u tokens, it has %u",
             'a' + id - 1, w->view, a.client_tokens);
    }
}

static size_t saved_size(const SpiceFlowSaved *saved)
{
    return sizeof(*saved) + saved->num_clients * sizeof(*saved->clients) +
           saved->num_buffers * sizeof(*saved->buffers) + saved->data_size;
}

static void compare_saved(FlowPlay *play)
{
    Side *s = &play->side[0];
    SpiceFlowSaved a, b;
    const char *what;
    size_t max;

    side_save(s, &a);
    side_save(&play->side[1], &b);
    what = saved_differ(&a, &b);
    if (what) {
        fail(s, "the saved state differs in %s", what);
    }
    max = spice_flow_saved_max(s->flow, &s->same);
    if (s->all_same && a.num_clients <= s->params.max_clients &&
        saved_size(&a) > max) {
        fail(s, "%zu bytes to save, the bound is %zu", saved_size(&a), max);
    }
    spice_flow_saved_clear(&a);
    spice_flow_saved_clear(&b);
}

static void compare(FlowPlay *play, uint64_t ret_a, uint64_t ret_b)
{
    Side *a = &play->side[0], *b = &play->side[1];
    const char *what;

    if (ret_a != ret_b) {
        fail(a, "returned %" G_GINT64_FORMAT ", the model %" G_GINT64_FORMAT,
             (gint64)ret_a, (gint64)ret_b);
    }
    if (!arrays_equal(a->notes->data, a->notes->len * sizeof(Note),
                      b->notes->data, b->notes->len * sizeof(Note))) {
        fail(a, "other calls");
    }
    if (!arrays_equal(a->guest->data, a->guest->len, b->guest->data,
                      b->guest->len)) {
        fail(a, "other bytes to the guest");
    }
    if (!arrays_equal(a->clients->data, a->clients->len, b->clients->data,
                      b->clients->len)) {
        fail(a, "other bytes to clients");
    }
    if (!play->failed && is_open(a)) {
        compare_info(play);
        for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
            if (!a->who[i] != !b->who[i]) {
                fail(a, "client %c is on one side only", 'a' + i - 1);
            } else if (a->who[i]) {
                compare_client(play, i);
            }
        }
        compare_saved(play);
        what = spice_flow_check(a->flow);
        if (what) {
            fail(a, "it does not hold that %s", what);
        }
    }
    if (play->failed) {
        notes_print(play->error, a);
        notes_print(play->error, b);
    }
}

static void side_begin(Side *s)
{
    g_array_set_size(s->notes, 0);
    g_byte_array_set_size(s->guest, 0);
    g_byte_array_set_size(s->clients, 0);
}

const char *flow_play_step(FlowPlay *play, const FlowStep *step)
{
    uint64_t ret[2] = { 0, 0 };

    if (play->failed) {
        return play->error->str;
    }
    for (int i = 0; i < 2; i++) {
        Side *s = &play->side[i];

        side_begin(s);
        if (step->in != IN_NOTHING) {
            g_array_append_val(s->hooks, *step);
        } else {
            ret[i] = step_do(s, step);
        }
    }
    if (step->op == STEP_BAD) {
        /* made of notes that only one side has */
        g_array_set_size(play->side[0].notes, 0);
    }
    compare(play, ret[0], ret[1]);
    play->ret = ret[0];
    for (guint i = 0; i < play->side[0].notes->len; i++) {
        Note *n = &g_array_index(play->side[0].notes, Note, i);

        if (n->kind >= NOTE_CALL) {
            g_array_append_val(play->calls, *n);
        }
    }
    play->bytes += play->side[0].guest->len + play->side[0].clients->len;
    return play->failed ? play->error->str : NULL;
}

/*
 * The language
 */

typedef struct Words {
    char **word;
    unsigned next;
    unsigned used;              /* bits: words understood */
} Words;

static bool number(const char *text, uint64_t *value)
{
    char *end;

    if (!g_ascii_isdigit(*text)) {
        return false;
    }
    errno = 0;
    *value = g_ascii_strtoull(text, &end, 0);
    return !*end && !errno;
}

/* The value of "key=N", or what stands for it when it is not there. */
static uint32_t option(Words *w, const char *key, uint32_t otherwise)
{
    size_t len = strlen(key);
    uint64_t value;

    for (unsigned i = 0; w->word[i]; i++) {
        if (!strncmp(w->word[i], key, len) && w->word[i][len] == '=' &&
            number(w->word[i] + len + 1, &value)) {
            w->used |= 1u << i;
            return MIN(value, UINT32_MAX);
        }
    }
    return otherwise;
}

static bool flag(Words *w, const char *name)
{
    for (unsigned i = 0; w->word[i]; i++) {
        if (!strcmp(w->word[i], name)) {
            w->used |= 1u << i;
            return true;
        }
    }
    return false;
}

static bool plain(Words *w, uint32_t *value)
{
    uint64_t n;

    if (!w->word[w->next] || !number(w->word[w->next], &n)) {
        return false;
    }
    w->used |= 1u << w->next++;
    *value = MIN(n, UINT32_MAX);
    return true;
}

static bool letter(Words *w, uint8_t *who)
{
    const char *text = w->word[w->next];

    if (!text || text[0] < 'a' || text[0] >= 'a' + FLOW_PLAY_CLIENTS ||
        text[1]) {
        return false;
    }
    w->used |= 1u << w->next++;
    *who = text[0] - 'a' + 1;
    return true;
}

static bool all_used(const Words *w)
{
    for (unsigned i = 0; w->word[i]; i++) {
        if (!(w->used & 1u << i)) {
            return false;
        }
    }
    return true;
}

/* What steps take: C a client, N a number, n a number that can be left out. */
static const char *const op_takes[STEP__MAX] = {
    [STEP_TICK] = "N", [STEP_ADD] = "C", [STEP_REMOVE] = "C",
    [STEP_RESUME] = "Cn", [STEP_BEGIN] = "C", [STEP_BODY] = "CN",
    [STEP_WRITE] = "CN", [STEP_CANCEL] = "C", [STEP_ROOM] = "C",
    [STEP_SERVER] = "N", [STEP_UNPAID] = "N", [STEP_GUEST] = "N",
    [STEP_TAKES] = "N", [STEP_MAY] = "N", [STEP_SEND] = "N",
    [STEP_MAYTO] = "CN", [STEP_SENDTO] = "CN", [STEP_STREAM] = "N",
    [STEP_STUCK] = "CN", [STEP_OUT] = "CN", [STEP_GRANT] = "CN",
    [STEP_SET] = "CN", [STEP_MOVE] = "n", [STEP_BAD] = "N",
    [STEP_TIMEOUT] = "N",
};

static bool parse_options(FlowStep *step, Words *w)
{
    uint32_t *v = step->v;
    bool raw;

    switch (step->op) {
    case STEP_OPEN:
        v[0] = flag(w, "raw") && !flag(w, "framed");
        flag(w, "framed");
        v[1] = option(w, "self", 1);
        v[2] = option(w, "max", 256);
        v[3] = option(w, "timeout", 1000);
        v[4] = option(w, "clients", 3);
        break;
    case STEP_ADD:
        raw = flag(w, "raw");
        v[0] = raw ? 0 : option(w, "window", 4) << 1 | 1;
        v[1] = raw ? 0 : option(w, "interval", 2);
        v[2] = raw ? 0 : option(w, "send", 4);
        v[3] = option(w, "bytes", 256);
        v[4] = option(w, "messages", 4);
        v[5] = option(w, "ringbytes", 1024);
        v[6] = option(w, "ring", 4);
        break;
    case STEP_BODY:
    case STEP_WRITE:
        v[1] = flag(w, "more");
        v[2] = option(w, "head", 0);
        break;
    case STEP_GUEST:
        v[1] = option(w, "chunk", 0);
        v[2] = flag(w, "fails") | flag(w, "over") << 1;
        break;
    case STEP_OWNER:
        v[0] = flag(w, "later") | (flag(w, "silent") << 1);
        break;
    default:
        break;
    }
    return all_used(w);
}

static bool parse_step(FlowStep *step, char **words)
{
    Words w = { .word = words };
    const char *takes;

    *step = (FlowStep) { .op = STEP__MAX };
    if (words[0] && !strcmp(words[0], "in") && words[1]) {
        for (unsigned i = 1; i < IN__MAX; i++) {
            size_t len = strlen(in_names[i]);

            if (!strncmp(words[1], in_names[i], len) &&
                !strcmp(words[1] + len, ":")) {
                step->in = i;
            }
        }
        if (step->in == IN_NOTHING) {
            return false;
        }
        w.word += 2;
    }
    for (unsigned i = 0; w.word[0] && i < STEP__MAX; i++) {
        if (!strcmp(w.word[0], op_names[i])) {
            step->op = i;
        }
    }
    if (step->op == STEP__MAX) {
        return false;
    }
    w.used = 1;
    w.next = 1;
    takes = op_takes[step->op] ? op_takes[step->op] : "";
    for (; *takes; takes++) {
        if (*takes == 'C' ? !letter(&w, &step->who)
                          : !plain(&w, &step->v[0]) && *takes == 'N') {
            return false;
        }
    }
    return parse_options(step, &w);
}

static char **split(const char *line)
{
    g_auto(GStrv) halves = g_strsplit(line, "#", 2);
    g_auto(GStrv) all = g_strsplit_set(halves[0] ? halves[0] : "", " \t\n", -1);
    GPtrArray *words = g_ptr_array_new();

    for (guint i = 0; all[i]; i++) {
        if (*all[i]) {
            g_ptr_array_add(words, g_strdup(all[i]));
        }
    }
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

/* Cut "-> N" off.  Returns false when it is there and no number. */
static bool cut_result(char **words, bool *has, int64_t *want)
{
    guint n = g_strv_length(words);
    char *end;

    *has = n >= 2 && !strcmp(words[n - 2], "->");
    if (!*has) {
        return true;
    }
    *want = g_ascii_strtoll(words[n - 1], &end, 0);
    if (*end) {
        return false;
    }
    g_clear_pointer(&words[n - 1], g_free);
    g_clear_pointer(&words[n - 2], g_free);
    return true;
}

bool flow_step_parse(FlowStep *step, const char *line)
{
    g_auto(GStrv) words = split(line);
    bool has;
    int64_t want;

    return cut_result(words, &has, &want) && parse_step(step, words);
}

/*
 * Steps as bytes: the op, who and in which callback, and the values, one byte
 * each
 */

static const uint8_t op_values[STEP__MAX] = {
    [STEP_OPEN] = 5, [STEP_TICK] = 1, [STEP_ADD] = 7, [STEP_RESUME] = 1,
    [STEP_BODY] = 3, [STEP_WRITE] = 3, [STEP_SERVER] = 1, [STEP_UNPAID] = 1,
    [STEP_GUEST] = 3, [STEP_TAKES] = 1, [STEP_MAY] = 1, [STEP_SEND] = 1,
    [STEP_MAYTO] = 1, [STEP_SENDTO] = 1, [STEP_STREAM] = 1, [STEP_STUCK] = 1,
    [STEP_OUT] = 1, [STEP_GRANT] = 1, [STEP_SET] = 1, [STEP_MOVE] = 1,
    [STEP_BAD] = 4, [STEP_OWNER] = 1, [STEP_TIMEOUT] = 1,
};

static const uint32_t large[] = { 300, 512, 1000, 5000, UINT32_MAX };

#define LARGE_FROM (256 - G_N_ELEMENTS(large))

static uint8_t value_encode(uint32_t value)
{
    if (value < LARGE_FROM) {
        return value;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(large); i++) {
        if (value <= large[i]) {
            return LARGE_FROM + i;
        }
    }
    return 255;
}

static uint32_t value_decode(uint8_t byte)
{
    return byte < LARGE_FROM ? byte : large[byte - LARGE_FROM];
}

void flow_step_encode(GByteArray *out, const FlowStep *step)
{
    uint8_t head[2] = { step->op, (MAX(step->who, 1) - 1) << 4 | step->in };

    g_byte_array_append(out, head, sizeof(head));
    for (unsigned i = 0; i < op_values[step->op]; i++) {
        uint8_t byte = step->op == STEP_BAD ? step->v[0] >> (8 * i)
                                            : value_encode(step->v[i]);

        g_byte_array_append(out, &byte, 1);
    }
}

size_t flow_step_decode(FlowStep *step, const uint8_t *data, size_t len)
{
    unsigned values;

    if (len < 2) {
        return 0;
    }
    *step = (FlowStep) {
        .op = data[0] % STEP__MAX,
        .in = (data[1] & 15) % IN__MAX,
        .who = 1 + (data[1] >> 4) % FLOW_PLAY_CLIENTS,
    };
    values = MIN(op_values[step->op], len - 2);
    for (unsigned i = 0; i < values; i++) {
        if (step->op == STEP_BAD) {
            step->v[0] |= (uint32_t)data[2 + i] << (8 * i);
        } else {
            step->v[i] = value_decode(data[2 + i]);
        }
    }
    return 2 + values;
}

char *flow_step_print(const FlowStep *step)
{
    GString *out = g_string_new(NULL);
    const uint32_t *v = step->v;
    const char *takes = op_takes[step->op] ? op_takes[step->op] : "";

    if (step->in) {
        g_string_append_printf(out, "in %s: ", in_names[step->in]);
    }
    g_string_append(out, op_names[step->op]);
    for (; *takes; takes++) {
        if (*takes == 'C') {
            g_string_append_printf(out, " %c", 'a' + step->who - 1);
        } else {
            g_string_append_printf(out, " %u", v[0]);
        }
    }
    switch (step->op) {
    case STEP_OPEN:
        g_string_append_printf(out, " %s self=%u max=%u timeout=%u clients=%u",
                               v[0] ? "raw" : "framed", v[1], v[2], v[3], v[4]);
        break;
    case STEP_ADD:
        if (v[0] & 1) {
            g_string_append_printf(out, " window=%u interval=%u send=%u",
                                   v[0] >> 1, v[1], v[2]);
        } else {
            g_string_append(out, " raw");
        }
        g_string_append_printf(out, " bytes=%u messages=%u ringbytes=%u "
                               "ring=%u", v[3], v[4], v[5], v[6]);
        break;
    case STEP_BODY:
    case STEP_WRITE:
        g_string_append(out, v[1] ? " more" : "");
        if (v[2]) {
            g_string_append_printf(out, " head=%u", v[2]);
        }
        break;
    case STEP_GUEST:
        if (v[1]) {
            g_string_append_printf(out, " chunk=%u", v[1]);
        }
        g_string_append(out, v[2] & 1 ? " fails" : "");
        g_string_append(out, v[2] & 2 ? " over" : "");
        break;
    case STEP_OWNER:
        g_string_append(out, v[0] & 1 ? " later" : "");
        g_string_append(out, v[0] & 2 ? " silent" : "");
        break;
    default:
        break;
    }
    return g_string_free(out, FALSE);
}

/*
 * Expectations
 */

static bool device_value(const FlowPlay *play, const char *key, uint64_t *value)
{
    const Side *s = &play->side[0];
    SpiceFlowSaved saved;
    SpiceFlowInfo info;

    spice_flow_info(s->flow, &info);
    side_save(s, &saved);
    const struct {
        const char *key;
        uint64_t value;
    } table[] = {
        { "running", info.running }, { "waits", info.guest_waits },
        { "live", info.clients }, { "self", info.self_tokens },
        { "queue", info.to_guest_messages }, { "bytes", info.to_guest_bytes },
        { "peak", info.to_guest_peak }, { "guest", s->guest_total },
        { "sent", info.guest_messages }, { "taken", info.client_messages },
        { "discarded", info.discarded_messages },
        { "dropped", info.dropped_messages },
        { "stalls", info.stalls }, { "violations", info.violations },
        { "turn", saved.turn }, { "torn", saved.torn },
    };
    spice_flow_saved_clear(&saved);
    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        if (!strcmp(key, table[i].key)) {
            *value = table[i].value;
            return true;
        }
    }
    return false;
}

static bool client_value(const Who *w, const char *key, uint64_t *value)
{
    SpiceFlowClientInfo info;

    spice_flow_client_info(w->c, &info);
    const struct {
        const char *key;
        uint64_t value;
    } table[] = {
        { "tokens", info.client_tokens }, { "due", info.due_tokens },
        { "send", info.send_tokens }, { "held", info.to_guest_messages },
        { "bytes", info.to_guest_bytes }, { "ring", info.to_client_messages },
        { "flying", info.to_client_in_flight },
        { "ringbytes", info.to_client_bytes },
        { "receiving", info.receiving }, { "waits", info.waits },
        { "dead", info.dead }, { "away", info.away }, { "got", w->got },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        if (!strcmp(key, table[i].key)) {
            *value = table[i].value;
            return true;
        }
    }
    return false;
}

static const char *wrong(FlowPlay *play, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

static const char *wrong(FlowPlay *play, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_string_vprintf(play->error, format, args);
    va_end(args);
    return play->error->str;
}

static const char *expect(FlowPlay *play, char **words)
{
    const Side *s = &play->side[0];
    Words w = { .word = words, .next = 1 };
    uint8_t who = 0;

    if (!is_open(s)) {
        return wrong(play, "there is no device");
    }
    letter(&w, &who);
    if (who && !s->who[who]) {
        return wrong(play, "there is no client %s", words[1]);
    }
    for (char **word = words + w.next; *word; word++) {
        g_auto(GStrv) pair = g_strsplit(*word, "=", 2);
        uint64_t want, have;

        if (!pair[0] || !pair[1] || !number(pair[1], &want) ||
            !(who ? client_value(s->who[who], pair[0], &have)
                  : device_value(play, pair[0], &have))) {
            return wrong(play, "'%s' is not understood", *word);
        }
        if (have != want) {
            return wrong(play, "%s is %" G_GUINT64_FORMAT, pair[0],
                         (guint64)have);
        }
    }
    return NULL;
}

static const char *expect_calls(FlowPlay *play, char **words)
{
    g_autoptr(GString) have = g_string_new(NULL);
    g_autofree char *want = g_strjoinv(" ", words + 1);

    for (guint i = 0; i < play->calls->len; i++) {
        note_print(have, &g_array_index(play->calls, Note, i));
    }
    g_array_set_size(play->calls, 0);
    if (strcmp(have->len ? have->str + 1 : "", want)) {
        return wrong(play, "the calls were '%s'",
                     have->len ? have->str + 1 : "");
    }
    return NULL;
}

static const char *expect_events(FlowPlay *play, char **words)
{
    g_autoptr(GString) have = g_string_new(NULL);
    g_autofree char *want = g_strjoinv(" ", words + 1);
    const Side *s = &play->side[0];

    for (guint i = 0; i < s->notes->len; i++) {
        const Note *n = &g_array_index(s->notes, Note, i);

        if (n->kind == NOTE_EVENT) {
            note_print(have, n);
        }
    }
    if (strcmp(have->len ? have->str + 1 : "", want)) {
        return wrong(play, "the events were '%s'",
                     have->len ? have->str + 1 : "");
    }
    return NULL;
}

const char *flow_play_line(FlowPlay *play, const char *line)
{
    g_auto(GStrv) words = split(line);
    const char *error;
    FlowStep step;
    bool has;
    int64_t want = 0;

    if (!words[0]) {
        return NULL;
    }
    if (!strcmp(words[0], "expect")) {
        return expect(play, words);
    }
    if (!strcmp(words[0], "calls")) {
        return expect_calls(play, words);
    }
    if (!strcmp(words[0], "events")) {
        return expect_events(play, words);
    }
    if (!cut_result(words, &has, &want) || !parse_step(&step, words)) {
        return wrong(play, "'%s' is not understood", line);
    }
    error = flow_play_step(play, &step);
    if (!error && has && (int64_t)play->ret != want) {
        return wrong(play, "%" G_GINT64_FORMAT " was returned",
                     (gint64)play->ret);
    }
    return error;
}

const char *flow_play_script(FlowPlay *play, const char *script)
{
    g_auto(GStrv) lines = g_strsplit(script, "\n", -1);

    for (guint i = 0; lines[i]; i++) {
        const char *error = flow_play_line(play, lines[i]);

        if (error) {
            g_autofree char *text = g_strdup(error);

            return wrong(play, "line %u, '%s': %s", i + 1,
                         g_strstrip(lines[i]), text);
        }
    }
    return NULL;
}

FlowPlay *flow_play_new(void)
{
    FlowPlay *play = g_new0(FlowPlay, 1);

    play->error = g_string_new(NULL);
    play->calls = g_array_new(FALSE, TRUE, sizeof(Note));
    for (int i = 0; i < 2; i++) {
        Side *s = &play->side[i];

        s->play = play;
        s->is_model = i == 1;
        s->all_who = g_ptr_array_new_with_free_func(g_free);
        s->hooks = g_array_new(FALSE, TRUE, sizeof(FlowStep));
        s->notes = g_array_new(FALSE, TRUE, sizeof(Note));
        s->guest = g_byte_array_new();
        s->clients = g_byte_array_new();
    }
    return play;
}

void flow_play_free(FlowPlay *play)
{
    for (int i = 0; i < 2; i++) {
        Side *s = &play->side[i];

        side_close(s);
        g_ptr_array_unref(s->all_who);
        g_array_unref(s->hooks);
        g_array_unref(s->notes);
        g_byte_array_unref(s->guest);
        g_byte_array_unref(s->clients);
    }
    g_array_unref(play->calls);
    g_string_free(play->error, TRUE);
    g_free(play);
}

bool flow_play_is_open(const FlowPlay *play)
{
    return is_open(&play->side[0]);
}

bool flow_play_info(const FlowPlay *play, SpiceFlowInfo *info)
{
    if (!is_open(&play->side[0])) {
        return false;
    }
    spice_flow_info(play->side[0].flow, info);
    return true;
}

bool flow_play_client(const FlowPlay *play, unsigned who,
                      SpiceFlowClientInfo *info)
{
    const Who *w = play->side[0].who[who];

    if (!w) {
        return false;
    }
    spice_flow_client_info(w->c, info);
    return true;
}

uint64_t flow_play_bytes(const FlowPlay *play)
{
    return play->bytes;
}
