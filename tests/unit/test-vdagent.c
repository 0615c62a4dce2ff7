/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's protocol, in scripts.
 *
 * A script is a list of lines.  A line either does something
 *
 *   guest> BYTES       the guest writes; all of it is taken
 *   guest! BYTES       likewise, and breaks the protocol with it
 *   A> BYTES           client A (A to D) sends one AGENT_DATA
 *   A! BYTES           likewise, and breaks the protocol with it
 *   add A  start A  remove A  torn A  lost A      torn: in mid-message
 *   stop A  cut A      A's start was for an earlier agent; cut: in mid-message
 *   carry A            A leaves, and comes back where it was in its message
 *   queued A N         of A's last N pieces the guest has got nothing
 *   reset
 *   hold  take         notices are not taken from here on; are taken again
 *   policy WORD...     clipboard=off|to-guest|to-client|both, files=on|off,
 *                      to-guest=N, to-client=N; what is not named stays
 *
 * or says what came of the last line that did:
 *
 *   guest< BYTES       the next buffer for the guest
 *   A< BYTES           the next AGENT_DATA for A
 *   EVENT N            N messages had this event (spice_vdagent_event_name())
 *   owner N WHO        selection N belongs to A to D, guest or none
 *   file|clip WAY OUTCOME WHO [N]
 *                      the next transfer reported: to-guest or to-client,
 *                      passed, refused-policy, refused-size, refused-number or
 *                      cancelled, of A to D or all, with N bytes
 *   unreported         no more was
 *
 * Everything that came has to be said, in order.  BYTES are
 *
 *   N                  a 32-bit number, little-endian
 *   b:N  N*b:N         a byte, many bytes
 *   ( TYPE ... )       a message: header and payload.  size=N, proto=N and
 *                      opaque=N after the type change what the header claims
 *   [ ... ]            a chunk; port=N (else 1) and size=N likewise
 *
 * Every script is run several times: as it stands; with the guest's bytes one
 * by one; with the state saved and restored into a new agent after each line;
 * and so after each of the guest's bytes.
 *
 * With --corpus DIR the scripts are written as inputs for fuzz-vdagent.
 */
#include "chardev/spiceflow/vdagent-state.h"
#include "chardev/spiceflow/wire.h"

#include <spice/vd_agent.h>
#include <string.h>

#include "vdagent-scripts.h"

#define CLIENTS             4

typedef enum {
    MODE_PLAIN,
    MODE_BYTES,
    MODE_SAVE,
    MODE_SAVE_BYTES,
    MODE__MAX
} Mode;

typedef struct Run {
    Mode mode;
    const char *name;
    const char *line;
    SpiceVdagent *agent;
    SpiceVdagentPolicy policy;
    bool hold;
    GQueue to_guest;            /* GBytes */
    GQueue to_client[CLIENTS];
    bool in_message;            /* the pieces that were handed out */
    unsigned events[SPICE_VDAGENT_EV__MAX];
    GQueue transfers;           /* as text */
    bool muted;
    uint32_t queued[CLIENTS];
    uint32_t judged_type, judged_size;
    GByteArray *corpus;
} Run;

/*
 * BYTES
 */

static const char *const type_names[] = {
    [VD_AGENT_MOUSE_STATE] = "mouse",
    [VD_AGENT_MONITORS_CONFIG] = "monitors",
    [VD_AGENT_REPLY] = "reply",
    [VD_AGENT_CLIPBOARD] = "clip",
    [VD_AGENT_DISPLAY_CONFIG] = "display",
    [VD_AGENT_ANNOUNCE_CAPABILITIES] = "caps",
    [VD_AGENT_CLIPBOARD_GRAB] = "grab",
    [VD_AGENT_CLIPBOARD_REQUEST] = "ask",
    [VD_AGENT_CLIPBOARD_RELEASE] = "release",
    [VD_AGENT_FILE_XFER_START] = "xstart",
    [VD_AGENT_FILE_XFER_STATUS] = "xstatus",
    [VD_AGENT_FILE_XFER_DATA] = "xdata",
    [VD_AGENT_CLIENT_DISCONNECTED] = "gone",
    [VD_AGENT_MAX_CLIPBOARD] = "max",
    [VD_AGENT_AUDIO_VOLUME_SYNC] = "volume",
    [VD_AGENT_GRAPHICS_DEVICE_INFO] = "devices",
};

static uint64_t number(const char *word)
{
    return g_ascii_strtoull(word, NULL, 0);
}

static uint32_t type_number(const char *word)
{
    for (unsigned i = 1; i < G_N_ELEMENTS(type_names); i++) {
        if (g_str_equal(word, type_names[i])) {
            return i;
        }
    }
    return number(word);
}

static bool word_value(const char *word, const char *key, uint64_t *value)
{
    if (!g_str_has_prefix(word, key)) {
        return false;
    }
    *value = number(word + strlen(key));
    return true;
}

static char **bytes_append(GByteArray *out, char **word);

static char **message_append(GByteArray *out, char **word)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    uint32_t type = type_number(*word++);
    uint64_t proto = VD_AGENT_PROTOCOL, opaque = 0, size = UINT64_MAX;

    while (word_value(*word, "size=", &size) ||
           word_value(*word, "proto=", &proto) ||
           word_value(*word, "opaque=", &opaque)) {
        word++;
    }
    word = bytes_append(payload, word);
    spice_flow_wire_u32(out, proto);
    spice_flow_wire_u32(out, type);
    spice_flow_wire_u64(out, opaque);
    spice_flow_wire_u32(out, size == UINT64_MAX ? payload->len : size);
    g_byte_array_append(out, payload->data, payload->len);
    return word;
}

static char **chunk_append(GByteArray *out, char **word)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    uint64_t port = VDP_CLIENT_PORT, size = UINT64_MAX;

    while (word_value(*word, "size=", &size) ||
           word_value(*word, "port=", &port)) {
        word++;
    }
    word = bytes_append(bytes, word);
    spice_flow_wire_u32(out, port);
    spice_flow_wire_u32(out, size == UINT64_MAX ? bytes->len : size);
    g_byte_array_append(out, bytes->data, bytes->len);
    return word;
}

/* Up to the closing word, or the end; returns what follows. */
static char **bytes_append(GByteArray *out, char **word)
{
    while (*word) {
        char *end, *at = *word++;
        uint64_t n;

        if (g_str_equal(at, "(")) {
            word = message_append(out, word);
            continue;
        }
        if (g_str_equal(at, "[")) {
            word = chunk_append(out, word);
            continue;
        }
        if (g_str_equal(at, ")") || g_str_equal(at, "]")) {
            break;
        }
        if (g_str_has_prefix(at, "b:")) {
            spice_flow_wire_u8(out, number(at + 2));
            continue;
        }
        n = g_ascii_strtoull(at, &end, 0);
        if (g_str_has_prefix(end, "*b:")) {
            for (; n; n--) {
                spice_flow_wire_u8(out, number(end + 3));
            }
            continue;
        }
        g_assert_cmpstr(end, ==, "");
        spice_flow_wire_u32(out, n);
    }
    return word;
}

static GBytes *bytes_of(char **words)
{
    GByteArray *out = g_byte_array_new();

    g_assert_null(*bytes_append(out, words));
    return g_byte_array_free_to_bytes(out);
}

/*
 * Running
 */

static void expect(const Run *run, bool ok, const char *what)
{
    if (!ok) {
        g_error("%s, mode %u, at \"%s\": %s (last judged: type %u, %u bytes)",
                run->name, run->mode, run->line, what, run->judged_type,
                run->judged_size);
    }
}

static void on_event(void *opaque, SpiceVdagentEvent event, uint32_t client,
                     uint32_t type, uint32_t size)
{
    Run *run = opaque;

    g_assert_cmpuint(client, <=, CLIENTS);
    run->events[event]++;
    run->judged_type = type;
    run->judged_size = size;
}

static void on_transfer(void *opaque, const SpiceVdagentTransfer *transfer)
{
    static const char *const outcome[SPICE_VDAGENT_OUTCOME__MAX] = {
        "passed", "refused-policy", "refused-size", "refused-number",
        "cancelled",
    };
    Run *run = opaque;
    GString *text = g_string_new(transfer->file ? "file" : "clip");

    g_string_append_printf(text, " to-%s %s ",
                           transfer->to_guest ? "guest" : "client",
                           outcome[transfer->outcome]);
    if (transfer->client) {
        g_string_append_c(text, 'A' + transfer->client - 1);
    } else {
        g_string_append(text, "all");
    }
    if (transfer->has_bytes) {
        g_string_append_printf(text, " %" G_GUINT64_FORMAT,
                               transfer->bytes);
    }
    if (run->muted) {
        g_string_free(text, TRUE);
    } else {
        g_queue_push_tail(&run->transfers, g_string_free(text, FALSE));
    }
}

static uint32_t on_queued(void *opaque, uint32_t client)
{
    Run *run = opaque;

    return run->queued[client - 1];
}

static const SpiceVdagentOps ops = {
    .event = on_event,
    .transfer = on_transfer,
    .queued = on_queued,
};

static SpiceVdagentClient *client_at(const Run *run, unsigned i)
{
    return spice_vdagent_client_find(run->agent, i + 1);
}

/* What is due is taken, but only by peers that are there. */
static void take_notices(Run *run)
{
    SpiceVdagentNotice notice;

    while (spice_vdagent_take_disconnect(run->agent, &notice) ||
           spice_vdagent_take_to_guest(run->agent, &notice)) {
        bool own = spice_flow_get_u32(notice.data) == VDP_SERVER_PORT;

        /* what is filled up has its end with the last of it */
        expect(run, notice.ends_torn ==
               (own ? spice_flow_get_u32(notice.data + 12) ==
                          VD_AGENT_CLIENT_DISCONNECTED
                    : notice.len < sizeof(notice.data)), "ends a torn one");
        g_queue_push_tail(&run->to_guest,
                          g_bytes_new(notice.data, notice.len));
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        SpiceVdagentClient *client = client_at(run, i);

        while (client && spice_vdagent_take_to_client(client, &notice)) {
            g_queue_push_tail(&run->to_client[i],
                              g_bytes_new(notice.data, notice.len));
        }
    }
}

static void save_and_restore(Run *run)
{
    SpiceVdagent *agent = spice_vdagent_new(&run->policy, &ops, run);
    SpiceVdagentSaved saved;
    char *error = NULL;

    spice_vdagent_save(run->agent, &saved);
    if (!spice_vdagent_restore(agent, &saved, &error)) {
        expect(run, false, error);
    }
    spice_vdagent_saved_clear(&saved);
    run->muted = true;
    spice_vdagent_free(run->agent);
    run->muted = false;
    run->agent = agent;
}

static void hand_out(Run *run)
{
    SpiceVdagentPiece piece;

    while (spice_vdagent_piece(run->agent, &piece)) {
        SpiceVdagentInfo info;
        uint32_t receivers = 0;

        expect(run, piece.len && piece.len <= SPICE_VDAGENT_PIECE_MAX,
               "length of a piece");
        expect(run, piece.first == !run->in_message, "first piece");
        run->in_message = !piece.last;
        if (piece.first) {
            expect(run, piece.len >= 20, "header in the first piece");
            expect(run, spice_flow_get_u32(piece.data + 4) == piece.type,
                   "type of a piece");
            expect(run, spice_flow_get_u64(piece.data + 8) == piece.opaque,
                   "opaque of a piece");
            expect(run, spice_flow_get_u32(piece.data + 16) == piece.size,
                   "size of a piece");
            expect(run, !piece.last || piece.len == 20 + piece.size,
                   "end of a piece");
        }
        for (unsigned i = 0; i < CLIENTS; i++) {
            SpiceVdagentClient *client = client_at(run, i);

            if (client && spice_vdagent_client_receives(client)) {
                receivers++;
                g_queue_push_tail(&run->to_client[i],
                                  g_bytes_new(piece.data, piece.len));
            }
        }
        spice_vdagent_info(run->agent, &info);
        expect(run, piece.everyone == (receivers == info.started),
               "everyone receives");
        spice_vdagent_piece_done(run->agent);
    }
}

static size_t feed(Run *run, const uint8_t *data, size_t len)
{
    size_t used = 0, n;

    do {
        n = spice_vdagent_feed(run->agent, data + used, len - used);
        used += n;
        if (run->mode == MODE_SAVE_BYTES) {
            save_and_restore(run);
        }
        hand_out(run);
    } while (used < len && n);
    return used;
}

static void corpus_add(Run *run, unsigned op, unsigned arg, GBytes *bytes)
{
    if (!run->corpus) {
        return;
    }
    spice_flow_wire_u8(run->corpus, op);
    spice_flow_wire_u8(run->corpus, arg);
    if (bytes) {
        spice_flow_wire_u16(run->corpus, g_bytes_get_size(bytes));
        g_byte_array_append(run->corpus, g_bytes_get_data(bytes, NULL),
                            g_bytes_get_size(bytes));
    }
}

static void from_guest(Run *run, char **words, bool fails)
{
    g_autoptr(GBytes) bytes = bytes_of(words);
    size_t len, used = 0;
    const uint8_t *data = g_bytes_get_data(bytes, &len);

    if (run->mode == MODE_BYTES || run->mode == MODE_SAVE_BYTES) {
        while (used < len && feed(run, data + used, 1)) {
            used++;
        }
    } else {
        used = feed(run, data, len);
    }
    expect(run, fails ? used <= len : used == len, "guest's bytes taken");
    expect(run, !spice_vdagent_guest_error(run->agent) == !fails,
           "guest's error");
    corpus_add(run, 0, 0, bytes);
}

static void from_client(Run *run, unsigned i, char **words, bool fails)
{
    g_autoptr(GBytes) bytes = bytes_of(words);
    gsize len;
    /* exactly as large as it is, and writable */
    g_autofree uint8_t *data = g_memdup2(g_bytes_get_data(bytes, &len),
                                         g_bytes_get_size(bytes));
    SpiceFlowBuffer buffer;
    SpiceVdagentVerdict verdict;

    corpus_add(run, 1, i, bytes);
    verdict = spice_vdagent_client_piece(client_at(run, i), data, len,
                                         &buffer);
    expect(run, (verdict == SPICE_VDAGENT_ERROR) == fails, "client's error");
    expect(run, !spice_vdagent_client_error(client_at(run, i)) == !fails,
           "client's error text");
    if (verdict == SPICE_VDAGENT_PASS) {
        GByteArray *all = g_byte_array_new();

        expect(run, buffer.len > 0, "data in a buffer");
        expect(run, buffer.head_len + buffer.len <= SPICE_VDAGENT_BUFFER_MAX,
               "length of a buffer");
        g_byte_array_append(all, buffer.head, buffer.head_len);
        g_byte_array_append(all, buffer.data, buffer.len);
        if (buffer.more) {
            /* shown as a byte of its own, so that scripts see it */
            spice_flow_wire_u8(all, '+');
        }
        g_queue_push_tail(&run->to_guest, g_byte_array_free_to_bytes(all));
    }
}

static void policy_set(Run *run, char **words)
{
    static const char *const ways[] = { "off", "to-guest", "to-client",
                                        "both" };
    uint8_t flags;

    for (; *words; words++) {
        uint64_t value;

        if (word_value(*words, "to-guest=", &value)) {
            run->policy.max_to_guest = value;
        } else if (word_value(*words, "to-client=", &value)) {
            run->policy.max_to_client = value;
        } else if (g_str_has_prefix(*words, "files=")) {
            run->policy.file_transfer = g_str_equal(*words, "files=on");
        } else {
            unsigned way = 0;

            while (!g_str_equal(*words + strlen("clipboard="), ways[way])) {
                way++;
            }
            run->policy.clipboard = way;
        }
    }
    spice_vdagent_set_policy(run->agent, &run->policy);
    flags = run->policy.clipboard | run->policy.file_transfer << 2 |
            (run->policy.max_to_guest < 100) << 3 |
            (run->policy.max_to_client < 100) << 4;
    corpus_add(run, 7, flags, NULL);
}

/* Whether the guest's message goes on without this client. */
static bool only_others_receive(const Run *run, unsigned i)
{
    for (unsigned other = 0; other < CLIENTS; other++) {
        if (other != i && client_at(run, other) &&
            spice_vdagent_client_receives(client_at(run, other))) {
            return true;
        }
    }
    return false;
}

static void client_act(Run *run, const char *verb, unsigned i)
{
    if (g_str_equal(verb, "add")) {
        expect(run, spice_vdagent_client_add(run->agent, i + 1), "added");
        corpus_add(run, 2, i, NULL);
    } else if (g_str_equal(verb, "start")) {
        spice_vdagent_client_start(client_at(run, i));
        corpus_add(run, 3, i, NULL);
    } else if (g_str_equal(verb, "lost")) {
        spice_vdagent_client_turn_lost(client_at(run, i));
        corpus_add(run, 5, i, NULL);
    } else if (g_str_equal(verb, "stop") || g_str_equal(verb, "cut")) {
        run->in_message = run->in_message && only_others_receive(run, i);
        spice_vdagent_client_stop(client_at(run, i),
                                  g_str_equal(verb, "cut"));
        corpus_add(run, 8, i, NULL);
    } else if (g_str_equal(verb, "carry")) {
        uint64_t left = spice_vdagent_client_left(client_at(run, i));

        run->in_message = run->in_message && only_others_receive(run, i);
        spice_vdagent_client_remove(client_at(run, i), false);
        spice_vdagent_client_skip(spice_vdagent_client_add(run->agent, i + 1),
                                  left);
        corpus_add(run, 9, i, NULL);
    } else {
        bool torn = g_str_equal(verb, "torn");

        run->in_message = run->in_message && only_others_receive(run, i);
        expect(run, torn || g_str_equal(verb, "remove"), "a verb");
        spice_vdagent_client_remove(client_at(run, i), torn);
        corpus_add(run, 4, i, NULL);
    }
}

static void expect_bytes(Run *run, GQueue *queue, char **words, bool to_guest)
{
    g_autoptr(GBytes) got = g_queue_pop_head(queue);
    g_autoptr(GBytes) want = NULL;
    char **last = words + g_strv_length(words) - 1;

    expect(run, got, "nothing came");
    if (to_guest && g_str_equal(*last, "+")) {
        g_free(*last);
        *last = g_strdup("b:43");
    }
    want = bytes_of(words);
    if (!g_bytes_equal(got, want)) {
        gsize len, i;
        const uint8_t *data = g_bytes_get_data(got, &len);
        g_autoptr(GString) text = g_string_new("came:");

        for (i = 0; i < MIN(len, 120); i++) {
            g_string_append_printf(text, "%s%02x", i % 4 ? "" : " ", data[i]);
        }
        g_string_append_printf(text, " (%zu bytes)", len);
        expect(run, false, text->str);
    }
}

static bool expect_event(Run *run, char **words)
{
    for (unsigned i = 0; i < SPICE_VDAGENT_EV__MAX; i++) {
        if (g_str_equal(words[0], spice_vdagent_event_name(i))) {
            expect(run, run->events[i] == number(words[1]),
                   "number of events");
            run->events[i] = 0;
            return true;
        }
    }
    return false;
}

static void expect_owner(const Run *run, char **words)
{
    SpiceVdagentInfo info;
    uint32_t owner = 0;

    if (g_str_equal(words[2], "guest")) {
        owner = UINT32_MAX;
    } else if (!g_str_equal(words[2], "none")) {
        owner = words[2][0] - 'A' + 1;
    }
    spice_vdagent_info(run->agent, &info);
    expect(run, info.clipboard_owner[number(words[1])] == owner, "owner");
}

/* Returns whether the line is about transfers. */
static bool expect_transfer(Run *run)
{
    g_autofree char *got = NULL;
    bool none = g_str_equal(run->line, "unreported");

    if (!none && !g_str_has_prefix(run->line, "file ") &&
        !g_str_has_prefix(run->line, "clip ")) {
        return false;
    }
    got = g_queue_pop_head(&run->transfers);
    if (none || !got || !g_str_equal(got, run->line)) {
        expect(run, none && !got, got ? got : "no transfer was reported");
    }
    return true;
}

static void nothing_left(Run *run)
{
    expect(run, !run->to_guest.length, "the guest got more before");
    for (unsigned i = 0; i < CLIENTS; i++) {
        expect(run, !run->to_client[i].length, "a client got more before");
    }
}

/* Returns false when the line only says what came. */
static bool run_line(Run *run, char **words)
{
    bool client = words[0][0] >= 'A' && words[0][0] < 'A' + CLIENTS;
    unsigned i = client ? words[0][0] - 'A' : 0;

    if (g_str_equal(words[0], "guest<")) {
        expect_bytes(run, &run->to_guest, words + 1, true);
        return false;
    }
    if (client && words[0][1] == '<') {
        expect_bytes(run, &run->to_client[i], words + 1, false);
        return false;
    }
    if (g_str_equal(words[0], "owner")) {
        expect_owner(run, words);
        return false;
    }
    if (expect_event(run, words) || expect_transfer(run)) {
        return false;
    }
    nothing_left(run);
    g_queue_clear_full(&run->transfers, g_free);
    memset(run->events, 0, sizeof(run->events));
    if (g_str_has_prefix(words[0], "guest")) {
        from_guest(run, words + 1, words[0][5] == '!');
    } else if (client) {
        from_client(run, i, words + 1, words[0][1] == '!');
    } else if (g_str_equal(words[0], "reset")) {
        spice_vdagent_reset(run->agent);
        run->in_message = false;
        corpus_add(run, 6, 0, NULL);
    } else if (g_str_equal(words[0], "hold")) {
        run->hold = true;
    } else if (g_str_equal(words[0], "take")) {
        run->hold = false;
    } else if (g_str_equal(words[0], "policy")) {
        policy_set(run, words + 1);
    } else if (g_str_equal(words[0], "queued")) {
        run->queued[words[1][0] - 'A'] = number(words[2]);
    } else {
        client_act(run, words[0], words[1][0] - 'A');
    }
    return true;
}

static void run_script(const VdagentScript *script, Mode mode,
                       GByteArray *corpus)
{
    Run run = {
        .mode = mode,
        .name = script->name,
        .corpus = corpus,
        .policy = {
            .clipboard = SPICE_VDAGENT_CLIPBOARD_BOTH,
            .max_to_guest = UINT32_MAX,
            .max_to_client = UINT32_MAX,
            .file_transfer = true,
        },
    };

    run.agent = spice_vdagent_new(&run.policy, &ops, &run);
    for (unsigned i = 0; script->line[i]; i++) {
        g_auto(GStrv) words = g_strsplit(script->line[i], " ", 0);

        run.line = script->line[i];
        if (run_line(&run, words)) {
            if (mode == MODE_SAVE || mode == MODE_SAVE_BYTES) {
                save_and_restore(&run);
            }
            if (!run.hold) {
                take_notices(&run);
            }
        }
    }
    run.line = "the end";
    nothing_left(&run);
    spice_vdagent_free(run.agent);
    g_queue_clear_full(&run.transfers, g_free);
}

static void test_script(const void *data)
{
    for (Mode mode = 0; mode < MODE__MAX; mode++) {
        run_script(data, mode, NULL);
    }
}

/*
 * What is not a script
 */

static const SpiceVdagentPolicy allow_all = {
    .clipboard = SPICE_VDAGENT_CLIPBOARD_BOTH,
    .max_to_guest = UINT32_MAX,
    .max_to_client = UINT32_MAX,
    .file_transfer = true,
};

static void put_message(GByteArray *out, uint32_t type, uint32_t size)
{
    spice_flow_wire_u32(out, VD_AGENT_PROTOCOL);
    spice_flow_wire_u32(out, type);
    spice_flow_wire_u64(out, 0);
    spice_flow_wire_u32(out, size);
}

static SpiceVdagentVerdict send_numbers(SpiceVdagentClient *client,
                                        uint32_t type, uint32_t a, uint32_t b)
{
    g_autoptr(GByteArray) msg = g_byte_array_new();
    SpiceFlowBuffer buffer;

    put_message(msg, type, 8);
    spice_flow_wire_u32(msg, a);
    spice_flow_wire_u32(msg, b);
    return spice_vdagent_client_piece(client, msg->data, msg->len, &buffer);
}

/*
 * The list of upstream's test-agent-msg-filter, as far as it applies: what a
 * message alone, without anything before it, leads to.
 */
static void test_filter(void)
{
    static const struct {
        SpiceVdagentPolicy policy;
        bool started;
        uint32_t passes;        /* by type, bits */
    } tests[] = {
        { { SPICE_VDAGENT_CLIPBOARD_BOTH, 9, 9, true }, false, 0 },
        /* Transfers that were not started have no status and no data */
        { { SPICE_VDAGENT_CLIPBOARD_BOTH, 9, 9, true }, true,
          ~(1u << VD_AGENT_FILE_XFER_STATUS | 1u << VD_AGENT_FILE_XFER_DATA) },
        { { SPICE_VDAGENT_CLIPBOARD_OFF, 9, 9, false }, true,
          ~(1u << VD_AGENT_CLIPBOARD | 1u << VD_AGENT_CLIPBOARD_GRAB |
            1u << VD_AGENT_CLIPBOARD_REQUEST |
            1u << VD_AGENT_CLIPBOARD_RELEASE | 1u << VD_AGENT_FILE_XFER_START |
            1u << VD_AGENT_FILE_XFER_STATUS | 1u << VD_AGENT_FILE_XFER_DATA) },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
        for (unsigned type = 1; type < VD_AGENT_END_MESSAGE + 2; type++) {
            SpiceVdagent *agent = spice_vdagent_new(&tests[i].policy, NULL,
                                                    NULL);
            SpiceVdagentClient *client = spice_vdagent_client_add(agent, 1);

            if (tests[i].started) {
                spice_vdagent_client_start(client);
            }
            g_assert_cmpint(send_numbers(client, type, 1, 1), ==,
                            tests[i].passes >> type & 1
                            ? SPICE_VDAGENT_PASS : SPICE_VDAGENT_DISCARD);
            spice_vdagent_free(agent);
        }
    }
}

/* Neither more transfers nor more answers than there is room for. */
static void test_transfer_limits(void)
{
    SpiceVdagent *agent = spice_vdagent_new(&allow_all, NULL, NULL);
    SpiceVdagentPolicy policy = allow_all;
    SpiceVdagentClient *client = NULL;
    SpiceVdagentNotice notice;
    SpiceVdagentSaved saved;
    SpiceVdagentInfo info;
    unsigned count = 0;
    char *error = NULL;

    for (uint32_t id = 1; id <= 5; id++) {
        client = spice_vdagent_client_add(agent, id);
        spice_vdagent_client_start(client);
        /* those that have ended do not count */
        for (uint32_t i = 0; id == 1 && i < 5; i++) {
            send_numbers(client, VD_AGENT_FILE_XFER_START, i, 0);
            send_numbers(client, VD_AGENT_FILE_XFER_STATUS, i, 1);
        }
        for (uint32_t i = 0; i < SPICE_VDAGENT_CLIENT_XFERS; i++) {
            g_assert_cmpint(send_numbers(client, VD_AGENT_FILE_XFER_START, i,
                                         0), ==,
                            id < 5 ? SPICE_VDAGENT_PASS
                                   : SPICE_VDAGENT_DISCARD);
        }
        g_assert_cmpint(send_numbers(client, VD_AGENT_FILE_XFER_START,
                                     UINT32_MAX, 0), ==,
                        SPICE_VDAGENT_DISCARD);
    }
    spice_vdagent_info(agent, &info);
    g_assert_cmpuint(info.transfers, ==, SPICE_VDAGENT_XFERS);
    g_assert_cmpuint(info.started, ==, 5);

    /* that many can be saved and restored */
    spice_vdagent_save(agent, &saved);
    g_assert_cmpuint(saved.num_xfers, ==, SPICE_VDAGENT_XFERS);
    if (!spice_vdagent_restore(agent, &saved, &error)) {
        g_error("%s", error);
    }
    spice_vdagent_saved_clear(&saved);
    client = spice_vdagent_client_find(agent, 5);

    /* the fifth was refused once too often to be told of each */
    while (spice_vdagent_take_to_client(client, &notice)) {
        g_assert_cmpuint(spice_flow_get_u32(notice.data + 24), ==,
                         VD_AGENT_FILE_XFER_STATUS_ERROR);
        count++;
    }
    g_assert_cmpuint(count, ==, SPICE_VDAGENT_CLIENT_XFERS);

    /* all are cancelled: the guest is told of each */
    policy.file_transfer = false;
    spice_vdagent_set_policy(agent, &policy);
    spice_vdagent_info(agent, &info);
    g_assert_cmpuint(info.transfers, ==, 0);
    count = 0;
    while (spice_vdagent_take_to_guest(agent, &notice)) {
        g_assert_cmpuint(spice_flow_get_u32(notice.data + 32), ==,
                         VD_AGENT_FILE_XFER_STATUS_CANCELLED);
        count++;
    }
    g_assert_cmpuint(count, ==, SPICE_VDAGENT_XFERS);
    spice_vdagent_free(agent);
}

/* A number that is taken is not given again, also after 2^31 of them. */
static void test_transfer_numbers(void)
{
    SpiceVdagent *agent = spice_vdagent_new(&allow_all, NULL, NULL);
    SpiceVdagentClient *a = spice_vdagent_client_add(agent, 1);
    SpiceVdagentClient *b = spice_vdagent_client_add(agent, 2);
    SpiceVdagentSaved saved;
    char *error = NULL;

    spice_vdagent_client_start(a);
    send_numbers(a, VD_AGENT_FILE_XFER_START, UINT32_MAX, 0);
    send_numbers(a, VD_AGENT_FILE_XFER_START, 0, 0);
    spice_vdagent_client_start(b);
    spice_vdagent_save(agent, &saved);
    saved.agent.next_xfer = UINT32_MAX;
    g_assert_true(spice_vdagent_restore(agent, &saved, &error));
    spice_vdagent_saved_clear(&saved);

    b = spice_vdagent_client_find(agent, 2);
    send_numbers(b, VD_AGENT_FILE_XFER_START, 7, 0);
    spice_vdagent_save(agent, &saved);
    g_assert_cmpuint(saved.num_xfers, ==, 3);
    g_assert_cmpuint(saved.xfers[2].guest_id, ==, 1);
    spice_vdagent_saved_clear(&saved);
    spice_vdagent_free(agent);
}

static void test_odds(void)
{
    SpiceVdagent *agent = spice_vdagent_new(&allow_all, NULL, NULL);
    SpiceVdagentClient *client;
    SpiceVdagentNotice notice;
    SpiceVdagentPiece piece;
    SpiceVdagentInfo info;
    const size_t max = SPICE_VDAGENT_NOTICE_MAX - 28;
    uint8_t payload[SPICE_VDAGENT_NOTICE_MAX] = { 0 };

    spice_vdagent_free(NULL);
    g_assert_null(spice_vdagent_client_add(agent, 0));
    g_assert_null(spice_vdagent_client_add(agent, UINT32_MAX));
    client = spice_vdagent_client_add(agent, 7);
    g_assert_nonnull(client);
    g_assert_null(spice_vdagent_client_add(agent, 7));
    g_assert_true(spice_vdagent_client_find(agent, 7) == client);
    g_assert_null(spice_vdagent_client_find(agent, 8));
    g_assert_false(spice_vdagent_client_receives(client));
    g_assert_false(spice_vdagent_piece(agent, &piece));
    g_assert_false(spice_vdagent_take_disconnect(agent, &notice));
    g_assert_false(spice_vdagent_take_to_guest(agent, &notice));
    g_assert_false(spice_vdagent_take_to_client(client, &notice));
    g_assert_null(spice_vdagent_guest_error(agent));
    g_assert_null(spice_vdagent_client_error(client));

    /* what makes the guest forget goes before what it is to know */
    spice_vdagent_client_start(client);
    send_numbers(client, VD_AGENT_ANNOUNCE_CAPABILITIES, 1, 2);
    send_numbers(client, VD_AGENT_FILE_XFER_START, 1, 0);
    spice_vdagent_client_turn_lost(client);
    g_assert_false(spice_vdagent_take_to_guest(agent, &notice));
    g_assert_true(spice_vdagent_take_disconnect(agent, &notice));
    g_assert_true(spice_vdagent_take_to_guest(agent, &notice));
    g_assert_false(spice_vdagent_take_disconnect(agent, &notice));

    send_numbers(client, VD_AGENT_CLIPBOARD_GRAB, 1, 2);
    spice_vdagent_info(agent, &info);
    g_assert_cmpuint(info.clipboard_owner[0], ==, 7);
    g_assert_cmpuint(info.clipboard_owner[1], ==, 0);
    g_assert_cmpuint(info.messages[SPICE_VDAGENT_EV_TO_GUEST], ==, 3);

    payload[max - 1] = 5;
    g_assert_true(spice_vdagent_build_chunk(&notice, 99, payload, max));
    g_assert_cmpmem(notice.data + 28, max, payload, max);
    g_assert_cmpuint(notice.len, ==, SPICE_VDAGENT_NOTICE_MAX);
    g_assert_false(spice_vdagent_build_chunk(&notice, 99, payload, max + 1));

    g_assert_cmpstr(spice_vdagent_event_name(SPICE_VDAGENT_EV__MAX), ==, "?");
    for (unsigned i = 0; i < SPICE_VDAGENT_EV__MAX; i++) {
        g_assert_nonnull(spice_vdagent_event_name(i));
    }
    g_assert_cmpuint(spice_vdagent_saved_max(2), >,
                     spice_vdagent_saved_max(1));
    spice_vdagent_free(agent);
}

/*
 * States that are refused.  Each test changes something in a state of two
 * clients: the guest is in the middle of a message for both, or at the
 * beginning of one; the second client has sent a header of its own, and has
 * transfers, and an answer due to it.
 */
static void saved_sample(SpiceVdagentSaved *saved, bool prefix)
{
    SpiceVdagent *agent = spice_vdagent_new(&allow_all, NULL, NULL);
    g_autoptr(GByteArray) data = g_byte_array_new();
    SpiceVdagentClient *client[2];
    SpiceFlowBuffer buffer;

    for (unsigned i = 0; i < 2; i++) {
        client[i] = spice_vdagent_client_add(agent, i + 1);
        spice_vdagent_client_start(client[i]);
        send_numbers(client[i], VD_AGENT_FILE_XFER_START, 5, 0);
        send_numbers(client[i], VD_AGENT_ANNOUNCE_CAPABILITIES, 0, 0);
    }
    for (unsigned i = 0; i < SPICE_VDAGENT_CLIENT_XFERS; i++) {
        send_numbers(client[1], VD_AGENT_FILE_XFER_START, 6 + i, 0);
    }
    put_message(data, VD_AGENT_CLIPBOARD, 100);
    g_assert_cmpint(spice_vdagent_client_piece(client[1], data->data, 20,
                                               &buffer), ==,
                    SPICE_VDAGENT_DISCARD);

    g_byte_array_set_size(data, 0);
    spice_flow_wire_u32(data, VDP_CLIENT_PORT);
    spice_flow_wire_u32(data, 1000);
    put_message(data, prefix ? VD_AGENT_CLIPBOARD_GRAB
                             : VD_AGENT_AUDIO_VOLUME_SYNC, 900);
    spice_flow_wire_u32(data, 0);
    g_assert_cmpuint(spice_vdagent_feed(agent, data->data, data->len), ==,
                     data->len);
    spice_vdagent_save(agent, saved);
    spice_vdagent_free(agent);
}

typedef struct StateChange {
    enum { AGENT = 1, SELECTION, CLIENT, XFER, STATUS, TOP } in;
    unsigned index;
    size_t offset, size;
    uint64_t value;
} StateChange;

typedef struct StateTest {
    const char *error;
    bool prefix;            /* the guest is at the beginning of its message */
    StateChange change[4];
} StateTest;

#define sizeof_field(type, field) (sizeof(((type *)NULL)->field))
#define IN(where, i, type, field, v) \
    { where, i, offsetof(type, field), sizeof_field(type, field), v }
#define A(field, v)     IN(AGENT, 0, SpiceVdagentState, field, v)
#define S(i, field, v)  IN(SELECTION, i, SpiceVdagentSelection, field, v)
#define C(i, field, v)  IN(CLIENT, i, SpiceVdagentClientState, field, v)
#define X(i, field, v)  IN(XFER, i, SpiceVdagentXferState, field, v)
#define T(i, field, v)  IN(STATUS, i, SpiceVdagentStatusState, field, v)
#define TOP(field, v)   IN(TOP, 0, SpiceVdagentSaved, field, v)

static const StateTest state_tests[] = {
    { "message: bad error", false, { A(error, 3) } },
    { "message: bad chunk-header-len", false, { A(chunk_header_len, 9) } },
    { "message: bad chunk-header", false, { A(chunk_header[0], 3) } },
    { "message: bad chunk-left", false, { A(chunk_left, 1001) } },
    { "message: bad chunk-left", false, { A(chunk_header_len, 7) } },
    { "message: bad fill", false, { A(fill, 2049) } },
    { "message: bad message-left", false, { A(message_left, 897) } },
    { "message: bad passing", false, { A(passing, 0) } },
    { "message: bad passing", false,
      { A(passing, 0), A(fill, 0), A(message_left, 0) } },
    { "message: bad fill", false, { A(fill, 0), A(message_left, 0) } },
    { "message: bad passing", false,
      { C(0, receiving, 0), C(1, receiving, 0) } },
    { "client 0: bad receiving", false,
      { A(passing, 0), A(fill, 0) } },
    { "message: bad passing", true, { A(passing, 1) } },
    { "message: bad message-left", true, { A(message_left, 1) } },
    { "message: bad type", true, { A(type, 1) } },
    { "message: bad size", true, { A(size, 1) } },
    { "message: bad fill", true, { A(fill, 92) } },
    { NULL, true, { A(fill, 19) } },
    { "capabilities 0: bad num", false, { A(guest.num, 1) } },
    { "capabilities 0: bad num", false,
      { A(guest.known, 1), A(guest.num, 5) } },
    { "capabilities 0: bad word", false, { A(guest.word[0], 1) } },
    { "capabilities 1: bad word", false, { A(guest_told.word[3], 1) } },
    { "selection 2: bad owner", false, { S(2, owner, UINT32_MAX) } },
    { "selection 2: bad owner", false,
      { S(2, owner, 1), S(2, guest_owns, 1) } },
    { "selection 1: bad owner", false, { S(1, owner, 3) } },
    { "selection 1: bad owner", false,
      { S(1, owner, 1), C(0, started, 0), C(0, receiving, 0),
        C(0, wanted, 0) } },
    { "selection 0: bad num-types", false, { S(0, num_types, 17) } },
    { "selection 0: bad asked", false, { S(0, asked.num, 17) } },
    { "selection 0: bad refused", false, { S(0, refused.num, 17) } },
    { "selection 0: bad grab-due", false, { S(0, grab_due, 1) } },
    { NULL, false, { S(0, num_types, 16), S(1, asked.num, 16),
                     S(2, refused.num, 16), A(replies[0].num, 16) } },
    { "replies 0: bad num", false, { A(replies[0].num, 17) } },
    { "replies 1: bad num", false, { A(replies[1].num, 17) } },
    { NULL, false, { A(mend_left, 4 << 20), A(mend_release, 3) } },
    { "mend 0: bad left", false, { A(mend_left, (4 << 20) + 1) } },
    { "mend 0: bad release", false, { A(mend_release, 1) } },
    { "mend 0: bad release", false, { A(mend_left, 1), A(mend_release, 4) } },
    { "client 0: bad id", false, { C(0, id, 0) } },
    { "client 0: bad id", false, { C(0, id, UINT32_MAX) } },
    { "client 1: bad id, there twice", false, { C(1, id, 1) } },
    { "client 0: bad error", false, { C(0, error, 5) } },
    { "client 0: bad receiving", false, { C(0, started, 0) } },
    { "client 0: bad wanted", false,
      { C(0, started, 0), C(0, receiving, 0), C(0, wanted, 1) } },
    { "client 0: bad message-left", false,
      { C(0, message_left, (1ull << 32) + 20) } },
    { "client 0: bad judged", false,
      { C(0, message_left, 1), C(0, judged, 0) } },
    { "client 1: bad prefix-len", false, { C(1, prefix_len, 19) } },
    { "client 1: bad prefix-len", false, { C(1, prefix_len, 28) } },
    { "client 1: bad prefix-len", false, { C(1, judged, 1) } },
    { "client 1: bad message-left", false, { C(1, message_left, 101) } },
    { "client 1: bad caps", false, { C(1, caps.num, 5) } },
    { "client 1: bad told", false, { C(1, told.num, 5) } },
    { "transfers 16385: bad number", false, { TOP(num_xfers, 16385) } },
    { "transfer 1: bad guest-id, there twice", false, { X(1, guest_id, 5) } },
    { "transfer 1: bad client", false, { X(1, client, 9) } },
    { "transfer 1: bad id, there twice", false, { X(1, client, 1) } },
    { NULL, false, { X(1, client, 0) } },
    { "statuses 12288: bad number", false, { TOP(num_statuses, 12288) } },
    { "status 0: bad client", false, { T(0, client, 3) } },
};

static uint8_t *state_part(SpiceVdagentSaved *saved, const StateChange *change)
{
    switch (change->in) {
    case AGENT:
        return (uint8_t *)&saved->agent;
    case SELECTION:
        return (uint8_t *)&saved->agent.selection[change->index];
    case CLIENT:
        return (uint8_t *)&saved->clients[change->index];
    case XFER:
        return (uint8_t *)&saved->xfers[change->index];
    case STATUS:
        return (uint8_t *)&saved->statuses[change->index];
    default:
        return (uint8_t *)saved;
    }
}

static void state_change(SpiceVdagentSaved *saved, const StateChange *change)
{
    uint8_t *at = state_part(saved, change) + change->offset;

    switch (change->size) {
    case 1:
        *at = change->value;
        break;
    case 4:
        memcpy(at, &(uint32_t) { change->value }, 4);
        break;
    default:
        g_assert_cmpuint(change->size, ==, 8);
        memcpy(at, &change->value, 8);
    }
}

static void test_states(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(state_tests); i++) {
        const StateTest *test = &state_tests[i];
        SpiceVdagent *agent = spice_vdagent_new(&allow_all, NULL, NULL);
        SpiceVdagentSaved saved, after;
        g_autofree char *error = NULL;
        bool ok;

        saved_sample(&saved, test->prefix);
        spice_vdagent_client_add(agent, 77);
        for (unsigned j = 0; j < 4 && test->change[j].in; j++) {
            state_change(&saved, &test->change[j]);
        }
        ok = spice_vdagent_restore(agent, &saved, &error);
        if (!test->error) {
            g_assert_true(ok);
        } else {
            g_autofree char *want = g_strconcat("agent state: ", test->error,
                                                NULL);
            g_autofree char *guests = g_strconcat("agent state: guest's ",
                                                  test->error, NULL);

            if (g_strcmp0(error, guests)) {
                g_assert_cmpstr(error, ==, want);
            }
            g_assert_false(ok);
            g_assert_nonnull(spice_vdagent_client_find(agent, 77));
        }
        /* what was taken over can be saved and taken over again */
        spice_vdagent_save(agent, &after);
        g_clear_pointer(&error, g_free);
        g_assert_true(spice_vdagent_restore(agent, &after, &error));
        spice_vdagent_saved_clear(&after);
        spice_vdagent_saved_clear(&saved);
        spice_vdagent_free(agent);
    }
}

/* Restored under another policy, both sides learn what is different. */
static void test_restore_policy(void)
{
    SpiceVdagentPolicy strict = { SPICE_VDAGENT_CLIPBOARD_OFF, 0, 0, false };
    SpiceVdagent *agent = spice_vdagent_new(&strict, NULL, NULL);
    SpiceVdagentSaved saved;
    SpiceVdagentNotice notice;
    char *error = NULL;
    unsigned count = 0;

    saved_sample(&saved, true);
    saved.agent.selection[0].owner = 2;
    g_assert_true(spice_vdagent_restore(agent, &saved, &error));
    spice_vdagent_saved_clear(&saved);

    g_assert_true(spice_vdagent_take_to_guest(agent, &notice));
    g_assert_cmpuint(spice_flow_get_u32(notice.data + 12), ==,
                     VD_AGENT_ANNOUNCE_CAPABILITIES);
    g_assert_true(spice_vdagent_take_to_guest(agent, &notice));
    g_assert_cmpuint(spice_flow_get_u32(notice.data + 12), ==,
                     VD_AGENT_CLIPBOARD_RELEASE);
    while (spice_vdagent_take_to_guest(agent, &notice)) {
        g_assert_cmpuint(spice_flow_get_u32(notice.data + 12), ==,
                         VD_AGENT_FILE_XFER_STATUS);
        count++;
    }
    g_assert_cmpuint(count, ==, 1 + SPICE_VDAGENT_CLIENT_XFERS);
    spice_vdagent_free(agent);
}

/* Following a client's messages without an agent. */
static void test_left_after(void)
{
    g_autoptr(GByteArray) msg = g_byte_array_new();
    uint8_t rest[2048] = { 0 };
    uint64_t left;

    put_message(msg, VD_AGENT_CLIPBOARD, 3000);
    left = spice_vdagent_left_after(0, msg->data, msg->len);
    g_assert_cmpuint(left, ==, 3000);
    left = spice_vdagent_left_after(left, rest, 2048);
    g_assert_cmpuint(left, ==, 952);
    left = spice_vdagent_left_after(left, rest, 0);
    g_assert_cmpuint(left, ==, 952);
    /* what is past the end, or too short, is not followed */
    left = spice_vdagent_left_after(left, rest, 2048);
    g_assert_cmpuint(left, ==, 0);
    g_assert_cmpuint(spice_vdagent_left_after(0, rest, 19), ==, 0);

    memset(msg->data + 16, 0xff, 4);
    left = spice_vdagent_left_after(0, msg->data, msg->len);
    g_assert_cmpuint(left, ==, UINT32_MAX);
}

static int write_corpus(const char *dir)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(vdagent_scripts); i++) {
        g_autoptr(GByteArray) corpus = g_byte_array_new();
        g_autoptr(GError) error = NULL;
        g_autofree char *path = g_build_filename(dir, vdagent_scripts[i].name,
                                                 NULL);

        run_script(&vdagent_scripts[i], MODE_PLAIN, corpus);
        if (!g_file_set_contents(path, (char *)corpus->data, corpus->len,
                                 &error)) {
            g_printerr("%s\n", error->message);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && g_str_equal(argv[1], "--corpus")) {
        return write_corpus(argv[2]);
    }
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(vdagent_scripts); i++) {
        g_autofree char *path = g_strconcat("/vdagent/script/",
                                            vdagent_scripts[i].name, NULL);

        g_test_add_data_func(path, &vdagent_scripts[i], test_script);
    }
    g_test_add_func("/vdagent/filter", test_filter);
    g_test_add_func("/vdagent/transfer-limits", test_transfer_limits);
    g_test_add_func("/vdagent/transfer-numbers", test_transfer_numbers);
    g_test_add_func("/vdagent/odds", test_odds);
    g_test_add_func("/vdagent/left-after", test_left_after);
    g_test_add_func("/vdagent/states", test_states);
    g_test_add_func("/vdagent/restore-policy", test_restore_policy);
    return g_test_run();
}
