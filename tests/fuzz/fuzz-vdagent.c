/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzes the agent's protocol, both directions, with up to four clients that
 * come and go, policies that change, and states that travel.
 *
 * The input is a list of operations: a byte that says which, a byte of
 * argument, and for the first two a length (16 bits) and bytes:
 *
 *   0  the guest writes           4  a client leaves
 *   1  a client sends a piece     5  a client loses its turn, if it has it
 *   2  a client is added          6  the agent is reset
 *   3  a client starts            7  the policy: bits as in set_policy()
 *   8  a client's start is undone 9  a client leaves and comes back
 *
 * 10 and up save the state and restore it.  What comes out is read by a checker
 * of its own: the guest has to get whole chunks, whole messages, also of who
 * breaks off, and on port 1 no message of one client inside another's; a client
 * gets pieces of at most 2048 bytes that are messages from their first header
 * to their last byte.
 *
 * Seeds are written by test-vdagent --corpus DIR.
 */
#include "chardev/spiceflow/vdagent-state.h"
#include "chardev/spiceflow/wire.h"

#include <spice/vd_agent.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define CLIENTS             4
#define HEADER_SIZE         20

typedef struct Input {
    const uint8_t *data;
    size_t len;
} Input;

typedef struct Fuzz {
    SpiceVdagentPolicy policy;
    SpiceVdagent *agent;
    /* what the peers still have to get of a message */
    uint64_t guest_left;
    unsigned guest_owner;       /* whose; only when guest_left */
    uint64_t client_left[CLIENTS];
} Fuzz;

static void check(bool ok, const char *what)
{
    if (!ok) {
        g_printerr("broken: %s\n", what);
        abort();
    }
}

static uint8_t next(Input *in)
{
    if (!in->len) {
        return 0;
    }
    in->len--;
    return *in->data++;
}

static SpiceVdagentClient *client_at(const Fuzz *fuzz, unsigned i)
{
    return spice_vdagent_client_find(fuzz->agent, i % CLIENTS + 1);
}

/*
 * The checker
 */

static uint64_t check_header(const uint8_t *data, size_t len)
{
    check(len >= HEADER_SIZE, "a message begins with its header");
    check(spice_flow_get_u32(data) == VD_AGENT_PROTOCOL, "protocol 1");
    return (uint64_t)HEADER_SIZE + spice_flow_get_u32(data + 16);
}

static void check_stream(uint64_t *left, const uint8_t *data, size_t len)
{
    if (*left == 0) {
        *left = check_header(data, len);
    }
    check(len <= *left, "nothing past the end of a message");
    *left -= len;
}

/* A whole number of chunks of a client's. */
static void check_buffer(Fuzz *fuzz, unsigned i, const SpiceFlowBuffer *buffer)
{
    g_autoptr(GByteArray) all = g_byte_array_new();
    const uint8_t *p;
    size_t left;

    check(buffer->len > 0, "a buffer has bytes");
    check(buffer->head_len + buffer->len <= SPICE_VDAGENT_BUFFER_MAX,
          "a buffer is not larger than said");
    g_byte_array_append(all, buffer->head, buffer->head_len);
    g_byte_array_append(all, buffer->data, buffer->len);
    p = all->data;
    left = all->len;

    check(!fuzz->guest_left || fuzz->guest_owner == i,
          "messages of clients do not mix");
    fuzz->guest_owner = i;
    while (left) {
        uint32_t size;

        check(left > 8, "a chunk has a header and bytes");
        size = spice_flow_get_u32(p + 4);
        check(spice_flow_get_u32(p) == VDP_CLIENT_PORT, "port 1");
        check(size && size <= SPICE_VDAGENT_PIECE_MAX && size <= left - 8,
              "a chunk is whole");
        check_stream(&fuzz->guest_left, p + 8, size);
        p += 8 + size;
        left -= 8 + size;
    }
    check(buffer->more == (fuzz->guest_left > 0), "more");
}

/* The rest of a message that a client did not end. */
static void check_mend(Fuzz *fuzz, const SpiceVdagentNotice *notice)
{
    size_t len = notice->len - 8;

    check(len && len <= fuzz->guest_left, "not filled up too far");
    check(spice_flow_get_u32(notice->data + 4) == len, "a chunk is whole");
    fuzz->guest_left -= len;
    check(notice->ends_torn == !fuzz->guest_left, "filled up is ended");
}

static void check_notice(Fuzz *fuzz, const SpiceVdagentNotice *notice)
{
    check(notice->len >= 8 && notice->len <= sizeof(notice->data),
          "a notice has bytes");
    if (spice_flow_get_u32(notice->data) == VDP_CLIENT_PORT) {
        check_mend(fuzz, notice);
        return;
    }
    check(!notice->ends_torn || spice_flow_get_u32(notice->data + 12) ==
          VD_AGENT_CLIENT_DISCONNECTED, "only that makes a guest forget");
    check(spice_flow_get_u32(notice->data) == VDP_SERVER_PORT, "port 2");
    check(spice_flow_get_u32(notice->data + 4) == notice->len - 8,
          "a notice is one chunk");
    check(check_header(notice->data + 8, notice->len - 8) == notice->len - 8,
          "and one message");
}

/*
 * Running
 */

static void take_notices(Fuzz *fuzz)
{
    SpiceVdagentNotice notice;

    if (spice_vdagent_take_disconnect(fuzz->agent, &notice)) {
        check_notice(fuzz, &notice);
        fuzz->guest_left = 0;
    }
    while (spice_vdagent_take_to_guest(fuzz->agent, &notice)) {
        check_notice(fuzz, &notice);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        SpiceVdagentClient *client = client_at(fuzz, i);

        while (client && spice_vdagent_take_to_client(client, &notice)) {
            check(fuzz->client_left[i] == 0, "a notice between messages");
            check_stream(&fuzz->client_left[i], notice.data, notice.len);
            check(fuzz->client_left[i] == 0, "a notice is one message");
        }
    }
}

static void save_and_restore(Fuzz *fuzz)
{
    SpiceVdagent *agent = spice_vdagent_new(&fuzz->policy, NULL, NULL);
    SpiceVdagentSaved saved;
    char *error = NULL;

    spice_vdagent_save(fuzz->agent, &saved);
    if (!spice_vdagent_restore(agent, &saved, &error)) {
        check(false, error);
    }
    spice_vdagent_saved_clear(&saved);
    spice_vdagent_free(fuzz->agent);
    fuzz->agent = agent;
}

static void from_guest(Fuzz *fuzz, const uint8_t *data, size_t len)
{
    SpiceVdagentPiece piece;
    bool again;

    do {
        size_t used = spice_vdagent_feed(fuzz->agent, data, len);

        check(used <= len, "no more taken than there is");
        data += used;
        len -= used;
        again = spice_vdagent_piece(fuzz->agent, &piece);
        if (!again) {
            break;
        }
        check(piece.len && piece.len <= SPICE_VDAGENT_PIECE_MAX,
              "length of a piece");
        for (unsigned i = 0; i < CLIENTS; i++) {
            SpiceVdagentClient *client = client_at(fuzz, i);

            if (!client || !spice_vdagent_client_receives(client)) {
                continue;
            }
            check(piece.first == (fuzz->client_left[i] == 0), "first");
            check_stream(&fuzz->client_left[i], piece.data, piece.len);
            check(piece.last == (fuzz->client_left[i] == 0), "last");
        }
        spice_vdagent_piece_done(fuzz->agent);
    } while (again);
    check(!len || spice_vdagent_guest_error(fuzz->agent), "all is taken");
}

/* What was torn is ended, one way or the other. */
static void take_torn(Fuzz *fuzz, bool torn)
{
    take_notices(fuzz);
    check(!torn || !fuzz->guest_left, "what was torn has an end");
}

/* As the flow-control machine would say it. */
static bool torn_by(const Fuzz *fuzz, unsigned i)
{
    return fuzz->guest_left && fuzz->guest_owner == i % CLIENTS;
}

static void client_remove(Fuzz *fuzz, unsigned i)
{
    bool torn = torn_by(fuzz, i);

    spice_vdagent_client_remove(client_at(fuzz, i), torn);
    fuzz->client_left[i % CLIENTS] = 0;
    take_torn(fuzz, torn);
}

static void client_stop(Fuzz *fuzz, unsigned i)
{
    bool torn = torn_by(fuzz, i);

    spice_vdagent_client_stop(client_at(fuzz, i), torn);
    fuzz->client_left[i % CLIENTS] = 0;
    take_torn(fuzz, torn);
}

/* It leaves, and comes back where it is in its message. */
static void client_carry(Fuzz *fuzz, unsigned i)
{
    uint64_t left = spice_vdagent_client_left(client_at(fuzz, i));

    client_remove(fuzz, i);
    spice_vdagent_client_skip(
        spice_vdagent_client_add(fuzz->agent, i % CLIENTS + 1), left);
}

static void from_client(Fuzz *fuzz, unsigned i, const uint8_t *data,
                        size_t len)
{
    g_autofree uint8_t *copy = g_memdup2(data, len);
    SpiceVdagentClient *client = client_at(fuzz, i);
    SpiceFlowBuffer buffer;

    i %= CLIENTS;
    /* the flow-control machine lets nobody in between */
    if (fuzz->guest_left && fuzz->guest_owner != i) {
        spice_vdagent_client_turn_lost(client_at(fuzz, fuzz->guest_owner));
        take_torn(fuzz, true);
    }
    switch (spice_vdagent_client_piece(client, copy, len, &buffer)) {
    case SPICE_VDAGENT_PASS:
        check_buffer(fuzz, i, &buffer);
        break;
    case SPICE_VDAGENT_DISCARD:
        break;
    case SPICE_VDAGENT_ERROR:
        check(spice_vdagent_client_error(client), "an error has a text");
        client_remove(fuzz, i);
    }
}

static void set_policy(Fuzz *fuzz, uint8_t flags)
{
    fuzz->policy = (SpiceVdagentPolicy) {
        .clipboard = flags & SPICE_VDAGENT_CLIPBOARD_BOTH,
        .file_transfer = flags >> 2 & 1,
        .max_to_guest = flags >> 3 & 1 ? 3 : UINT32_MAX,
        .max_to_client = flags >> 4 & 1 ? 3 : UINT32_MAX,
    };
    spice_vdagent_set_policy(fuzz->agent, &fuzz->policy);
}

static void reset(Fuzz *fuzz)
{
    spice_vdagent_reset(fuzz->agent);
    fuzz->guest_left = 0;
    memset(fuzz->client_left, 0, sizeof(fuzz->client_left));
}

static void run_bytes(Fuzz *fuzz, unsigned op, unsigned arg, Input *in)
{
    size_t len = next(in);

    len |= next(in) << 8;
    len = MIN(len, in->len);
    if (op == 0) {
        from_guest(fuzz, in->data, len);
    } else if (client_at(fuzz, arg)) {
        from_client(fuzz, arg, in->data, len);
    }
    in->data += len;
    in->len -= len;
}

static void run_op(Fuzz *fuzz, Input *in)
{
    unsigned op = next(in), arg = next(in);
    SpiceVdagentClient *client = client_at(fuzz, arg);

    if (op < 2) {
        run_bytes(fuzz, op, arg, in);
    } else if (op == 2) {
        spice_vdagent_client_add(fuzz->agent, arg % CLIENTS + 1);
    } else if (op == 6) {
        reset(fuzz);
    } else if (op == 7) {
        set_policy(fuzz, arg);
    } else if (op > 9) {
        save_and_restore(fuzz);
    } else if (client && op == 8) {
        client_stop(fuzz, arg);
    } else if (client && op == 9) {
        client_carry(fuzz, arg);
    } else if (client && op == 3) {
        spice_vdagent_client_start(client);
    } else if (client && op == 4) {
        client_remove(fuzz, arg);
    } else if (client && torn_by(fuzz, arg)) {
        spice_vdagent_client_turn_lost(client);
        take_torn(fuzz, true);
    }
}

/* With @restore the state travels after each operation. */
static void run(Input in, bool restore)
{
    Fuzz fuzz = {
        .policy = { SPICE_VDAGENT_CLIPBOARD_BOTH, UINT32_MAX, UINT32_MAX,
                    true },
    };

    fuzz.agent = spice_vdagent_new(&fuzz.policy, NULL, NULL);
    while (in.len) {
        run_op(&fuzz, &in);
        if (restore) {
            save_and_restore(&fuzz);
        }
        take_notices(&fuzz);
    }
    spice_vdagent_free(fuzz.agent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = { data, size };

    run(in, false);
    run(in, true);
    return 0;
}
