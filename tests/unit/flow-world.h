/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One side of the player (flow-play.c): the machine or the model, and the
 * little world around it.
 */
#ifndef SPICEFLOW_FLOW_WORLD_H
#define SPICEFLOW_FLOW_WORLD_H

#include "flow-model.h"
#include "flow-play.h"

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
    uint8_t send_from, send_len;    /* of all that is being sent, in 0..127 */
    GArray *hooks;              /* FlowStep */
    GArray *notes;              /* Note: of this step */
    GByteArray *guest;          /* of this step */
    GByteArray *clients;        /* of this step, all of them */
    uint64_t guest_total;
    bool has_snapshot;
    SpiceFlowSaved snapshot;
    Counters snapshot_at;
    uint32_t max_clients;       /* for the bound of what is saved */
    SpiceFlowClientParams same;
    bool all_same;
};

struct FlowPlay {
    Side side[2];
    FlowPlayCarry carry;        /* of saved states, or NULL */
    void *carry_opaque;
    GString *error;
    bool failed;
    GArray *calls;              /* Note: since the last "calls" */
    uint64_t ret;
    uint64_t bytes;
};

/*
 * Both sides by one name
 */

#define DEVICE(s, fn, ...) \
    ((s)->is_model ? flow_model_##fn((s)->model, ##__VA_ARGS__) \
                   : spice_flow_##fn((s)->flow, ##__VA_ARGS__))
#define CLIENT(w, fn, ...) \
    ((w)->side->is_model ? flow_model_##fn((w)->c, ##__VA_ARGS__) \
                         : spice_flow_##fn((w)->c, ##__VA_ARGS__))

static inline bool side_is_open(const Side *s)
{
    return s->flow || s->model;
}

/* The side, or its world, does what no one may do. */
void side_fail(Side *s, const char *format, ...) G_GNUC_PRINTF(2, 3);

/*
 * Life (flow-world.c)
 */

/* Do a step now; what is returned is compared. */
uint64_t side_step(Side *s, const FlowStep *step);
/* The machine or the model alone. */
void side_new(Side *s);
void side_close(Side *s);

Who *who_new(Side *s, unsigned id);
/* The machine knows this client no more. */
void who_forget(Who *w);
void who_drop_kept(Who *w);
/* @n of the messages that its socket has kept are out. */
uint64_t client_out(Who *w, unsigned n);

/*
 * Saved states (flow-world-state.c)
 */

void side_save(const Side *s, SpiceFlowSaved *saved);
/* Returns what differs, or NULL. */
const char *side_saved_differ(const SpiceFlowSaved *a,
                              const SpiceFlowSaved *b);
bool side_params_equal(const SpiceFlowClientParams *a,
                       const SpiceFlowClientParams *b);
/* To another host, to one that fails, into a snapshot and back, damaged. */
void side_move(Side *s, unsigned delivers);
void side_return(Side *s);
void side_snap(Side *s);
void side_revert(Side *s);
void side_bad(Side *s, uint32_t seed);

#endif
