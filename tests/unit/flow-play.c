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
 * flow-step.c has the language that steps are written in, flow-world.c what a
 * side is.  "STEP -> N" says what must be returned, and what is no step is an
 * expectation:
 *
 *   expect KEY=N...                running waits live self queue bytes peak
 *                                  guest sent discarded dropped stalls
 *                                  violations turn torn
 *   expect C KEY=N...              tokens due send held bytes ring flying
 *                                  ringbytes receiving waits dead away got
 *   calls WORD...                  exactly these callbacks since the last time
 *   events WORD...                 exactly these events in the last step
 */
#include "flow-step.h"
#include "flow-world.h"

#include <string.h>

/*
 * Comparing
 */

static void note_print(GString *out, const Note *n)
{
    if (n->kind == NOTE_RET) {
        g_string_append_printf(out, " (%s=%" G_GINT64_FORMAT ")",
                               n->who < STEP__MAX ?
                               flow_step_names[n->who] : "?",
                               (gint64)n->value);
    } else if (n->kind == NOTE_EVENT) {
        g_string_append_printf(out, " %s/%u/%u",
                               spice_flow_event_name(n->who),
                               (unsigned)n->value, (unsigned)n->more);
    } else {
        g_string_append_printf(out, " %s",
                               flow_step_callbacks[n->kind - NOTE_CALL]);
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
        side_fail(&play->side[0], #field " is %" G_GUINT64_FORMAT \
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
        side_fail(&play->side[0], \
                  "client %c: " #field " is %" G_GUINT64_FORMAT \
                  ", the model has %" G_GUINT64_FORMAT, 'a' + id - 1, \
                  (guint64)a.field, (guint64)b.field); \
    }
    SAME(id) SAME(flow_control) SAME(away) SAME(dead) SAME(receiving)
    SAME(waits) SAME(window) SAME(client_tokens) SAME(due_tokens)
    SAME(send_tokens) SAME(to_guest_messages) SAME(to_guest_bytes)
    SAME(to_client_messages) SAME(to_client_in_flight) SAME(to_client_bytes)
#undef SAME
    if (w->fc && !a.dead && w->view != a.client_tokens) {
        side_fail(&play->side[0],
                  "client %c believes to have %u tokens, it has %u",
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
    what = side_saved_differ(&a, &b);
    if (what) {
        side_fail(s, "the saved state differs in %s", what);
    }
    max = spice_flow_saved_max(s->flow, &s->same, s->max_clients);
    if (s->all_same && a.num_clients <= s->max_clients &&
        saved_size(&a) > max) {
        side_fail(s, "%zu bytes to save, the bound is %zu", saved_size(&a),
                  max);
    }
    spice_flow_saved_clear(&a);
    spice_flow_saved_clear(&b);
}

static void compare(FlowPlay *play, uint64_t ret_a, uint64_t ret_b)
{
    Side *a = &play->side[0], *b = &play->side[1];
    const char *what;

    if (ret_a != ret_b) {
        side_fail(a, "returned %" G_GINT64_FORMAT ", the model %"
                  G_GINT64_FORMAT, (gint64)ret_a, (gint64)ret_b);
    }
    if (!arrays_equal(a->notes->data, a->notes->len * sizeof(Note),
                      b->notes->data, b->notes->len * sizeof(Note))) {
        side_fail(a, "other calls");
    }
    if (!arrays_equal(a->guest->data, a->guest->len, b->guest->data,
                      b->guest->len)) {
        side_fail(a, "other bytes to the guest");
    }
    if (!arrays_equal(a->clients->data, a->clients->len, b->clients->data,
                      b->clients->len)) {
        side_fail(a, "other bytes to clients");
    }
    if (!play->failed && side_is_open(a)) {
        compare_info(play);
        for (unsigned i = 1; i <= FLOW_PLAY_CLIENTS; i++) {
            if (!a->who[i] != !b->who[i]) {
                side_fail(a, "client %c is on one side only", 'a' + i - 1);
            } else if (a->who[i]) {
                compare_client(play, i);
            }
        }
        compare_saved(play);
        what = spice_flow_check(a->flow);
        if (what) {
            side_fail(a, "it does not hold that %s", what);
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
            ret[i] = side_step(s, step);
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
    FlowWords w = { .word = words, .next = 1 };
    uint8_t who = 0;

    if (!side_is_open(s)) {
        return wrong(play, "there is no device");
    }
    flow_words_client(&w, &who);
    if (who && !s->who[who]) {
        return wrong(play, "there is no client %s", words[1]);
    }
    for (char **word = words + w.next; *word; word++) {
        g_auto(GStrv) pair = g_strsplit(*word, "=", 2);
        uint64_t want, have;

        if (!pair[0] || !pair[1] || !flow_words_number(pair[1], &want) ||
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
    g_auto(GStrv) words = flow_words_split(line);
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
    if (!flow_words_cut_result(words, &has, &want) ||
        !flow_words_step(&step, words)) {
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

void flow_play_set_carry(FlowPlay *play, FlowPlayCarry carry, void *opaque)
{
    play->carry = carry;
    play->carry_opaque = opaque;
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
    return side_is_open(&play->side[0]);
}

bool flow_play_info(const FlowPlay *play, SpiceFlowInfo *info)
{
    if (!side_is_open(&play->side[0])) {
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
