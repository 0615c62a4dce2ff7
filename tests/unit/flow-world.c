/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One side of the player: a guest that takes as many bytes as it was told to,
 * clients with sockets that take messages or not, an owner that answers
 * callbacks, and how steps are done to them.  The world watches by itself what
 * no one may ever do: write while stopped, call for a client that was removed
 * or told to go, lose, repeat or swap bytes.
 */
#include "flow-world.h"

#include <string.h>

#define MAX_LEN 512             /* bytes of one buffer or message */
#define TAG_SERVER 6
#define TAG_UNPAID 7

void side_fail(Side *s, const char *format, ...)
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

static void side_note(Side *s, uint32_t kind, uint32_t who, uint64_t value,
                 uint64_t more)
{
    Note n = { kind, who, value, more };

    g_array_append_val(s->notes, n);
}

/*
 * The world's answers
 */

/* Do what was put off into this callback. */
static void callback(Side *s, FlowStepIn in, const Who *w, uint64_t value,
                     uint64_t more)
{
    side_note(s, NOTE_CALL + in, w ? w->id : 0, value, more);
    for (guint i = 0; i < s->hooks->len; i++) {
        FlowStep step = g_array_index(s->hooks, FlowStep, i);

        if (step.in == in) {
            g_array_remove_index(s->hooks, i);
            s->calls++;
            side_note(s, NOTE_RET, step.op, side_step(s, &step), 0);
            s->calls--;
            break;
        }
    }
}

static bool may_call(Who *w, const char *what)
{
    if (w->gone || w->kicked || w->away) {
        side_fail(w->side, "%s for client %c who is %s", what, 'a' + w->id - 1,
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
            side_fail(s, "the guest got a byte that no one sent");
            return;
        }
        if (n != s->next[tag] && !s->any[tag] && !s->at.skip[tag][n]--) {
            side_fail(s, "the guest got byte %u of %c, not %u", n, '`' + tag,
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
        side_fail(s, "the guest was written to while stopped");
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
    side_note(opaque, NOTE_EVENT, event, client, value);
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
            side_fail(s, "client %c got byte %u, not %u", 'a' + w->id - 1, n,
                      *next);
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
        side_fail(w->side, "%u tokens given to client %c", n, 'a' + w->id - 1);
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
            side_fail(s, "a kept message has changed");
        }
        spice_flow_message_unref(kept->msg);
    }
    g_free(kept->copy);
    g_free(kept);
}

void who_drop_kept(Who *w)
{
    Kept *kept;

    while ((kept = g_queue_pop_head(&w->kept))) {
        kept_free(w->side, kept);
    }
}

Who *who_new(Side *s, unsigned id)
{
    Who *w = g_new0(Who, 1);

    w->side = s;
    w->id = id;
    w->any_all = w->any_own = true;
    g_ptr_array_add(s->all_who, w);
    return w;
}

/* The machine knows this client no more. */
void who_forget(Who *w)
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
        side_step(s, &step);
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
        side_fail(s, "client %c is there twice", 'a' + id - 1);
    }
    if (!side_is_open(s) || w->gone) {
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
    s->all_same = s->all_same && side_params_equal(&params, &s->same);
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
    if (s->sends++) {
        s->send_len = MIN(s->send_len + len, 127);
    } else {
        s->send_from = from;
        s->send_len = MIN(len, 127);
    }
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

uint64_t client_out(Who *w, unsigned n)
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
        /*
         * What is still to be handed out now goes on, from which message
         * depends on the client's place among the clients.
         */
        for (unsigned n = 0; s->sends && n <= s->send_len; n++) {
            s->at.skip_all[i][(s->send_from + n) & 0x7f]++;
        }
        s->at.skip_own[i][s->at.put_own[i] & 0x7f]++;
        w->view = w->window;
        if (w->receiving) {
            w->stale = true;
        }
    }
}

void side_close(Side *s)
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

void side_new(Side *s)
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
    };
    s->max_clients = v[4];
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

uint64_t side_step(Side *s, const FlowStep *step)
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
    if (!side_is_open(s)) {
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
