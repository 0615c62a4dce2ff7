/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Steps of the player (flow-play.h) as lines and as bytes.
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
 */
#include "flow-step.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const flow_step_callbacks[IN__MAX] = {
    "", "write", "wake", "self", "clock", "send", "give", "room", "lost",
    "remove",
};

const char *const flow_step_names[STEP__MAX] = {
    "open", "close", "start", "stop", "reset", "tick",
    "add", "remove", "resume",
    "begin", "body", "write", "cancel", "room", "settle",
    "server", "unpaid", "guest", "ready", "takes",
    "may", "send", "mayto", "sendto", "stream",
    "stuck", "out", "grant", "set",
    "move", "return", "snap", "revert", "bad", "owner",
    "timeout",
};

bool flow_words_number(const char *text, uint64_t *value)
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
static uint32_t option(FlowWords *w, const char *key, uint32_t otherwise)
{
    size_t len = strlen(key);
    uint64_t value;

    for (unsigned i = 0; w->word[i]; i++) {
        if (!strncmp(w->word[i], key, len) && w->word[i][len] == '=' &&
            flow_words_number(w->word[i] + len + 1, &value)) {
            w->used |= 1u << i;
            return MIN(value, UINT32_MAX);
        }
    }
    return otherwise;
}

static bool flag(FlowWords *w, const char *name)
{
    for (unsigned i = 0; w->word[i]; i++) {
        if (!strcmp(w->word[i], name)) {
            w->used |= 1u << i;
            return true;
        }
    }
    return false;
}

static bool plain(FlowWords *w, uint32_t *value)
{
    uint64_t n;

    if (!w->word[w->next] || !flow_words_number(w->word[w->next], &n)) {
        return false;
    }
    w->used |= 1u << w->next++;
    *value = MIN(n, UINT32_MAX);
    return true;
}

bool flow_words_client(FlowWords *w, uint8_t *who)
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

static bool all_used(const FlowWords *w)
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

static bool parse_options(FlowStep *step, FlowWords *w)
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

bool flow_words_step(FlowStep *step, char **words)
{
    FlowWords w = { .word = words };
    const char *takes;

    *step = (FlowStep) { .op = STEP__MAX };
    if (words[0] && !strcmp(words[0], "in") && words[1]) {
        for (unsigned i = 1; i < IN__MAX; i++) {
            size_t len = strlen(flow_step_callbacks[i]);

            if (!strncmp(words[1], flow_step_callbacks[i], len) &&
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
        if (!strcmp(w.word[0], flow_step_names[i])) {
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
        if (*takes == 'C' ? !flow_words_client(&w, &step->who)
                          : !plain(&w, &step->v[0]) && *takes == 'N') {
            return false;
        }
    }
    return parse_options(step, &w);
}

char **flow_words_split(const char *line)
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
bool flow_words_cut_result(char **words, bool *has, int64_t *want)
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
    g_auto(GStrv) words = flow_words_split(line);
    bool has;
    int64_t want;

    return flow_words_cut_result(words, &has, &want) &&
           flow_words_step(step, words);
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
        g_string_append_printf(out, "in %s: ", flow_step_callbacks[step->in]);
    }
    g_string_append(out, flow_step_names[step->op]);
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
