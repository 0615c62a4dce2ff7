/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A player of scripts for the flow-control machine: every step is done to the
 * machine and to the reference model (flow-model.h), each with an owner, a
 * guest and clients of its own, and after every step all that can be seen of
 * the two has to be the same.  flow-step.c describes the language.
 */
#ifndef SPICEFLOW_FLOW_PLAY_H
#define SPICEFLOW_FLOW_PLAY_H

#include "chardev/spiceflow/flow.h"

#define FLOW_PLAY_CLIENTS 5

typedef enum FlowStepOp {
    STEP_OPEN, STEP_CLOSE, STEP_START, STEP_STOP, STEP_RESET, STEP_TICK,
    STEP_ADD, STEP_REMOVE, STEP_RESUME,
    STEP_BEGIN, STEP_BODY, STEP_WRITE, STEP_CANCEL, STEP_ROOM, STEP_SETTLE,
    STEP_SERVER, STEP_UNPAID, STEP_GUEST, STEP_READY, STEP_TAKES,
    STEP_MAY, STEP_SEND, STEP_MAYTO, STEP_SENDTO, STEP_STREAM,
    STEP_STUCK, STEP_OUT, STEP_GRANT, STEP_SET,
    STEP_MOVE, STEP_RETURN, STEP_SNAP, STEP_REVERT, STEP_BAD, STEP_OWNER,
    STEP_TIMEOUT,
    STEP__MAX
} FlowStepOp;

/* The callback that a step is to be done in, instead of now. */
typedef enum FlowStepIn {
    IN_NOTHING, IN_WRITE, IN_WAKE, IN_SELF, IN_CLOCK, IN_SEND, IN_GIVE,
    IN_ROOM, IN_LOST, IN_REMOVE,
    IN__MAX
} FlowStepIn;

#define FLOW_STEP_VALUES 7

typedef struct FlowStep {
    uint8_t op;             /* FlowStepOp */
    uint8_t in;             /* FlowStepIn */
    uint8_t who;            /* client: 1 to FLOW_PLAY_CLIENTS */
    uint32_t v[FLOW_STEP_VALUES];
} FlowStep;

typedef struct FlowPlay FlowPlay;

FlowPlay *flow_play_new(void);
void flow_play_free(FlowPlay *play);

/*
 * What is restored is not @saved but what this makes of it: @carried, which
 * has to be the same.  Returns NULL, or what is wrong.
 */
typedef const char *(*FlowPlayCarry)(void *opaque, const SpiceFlowSaved *saved,
                                     SpiceFlowSaved *carried);

void flow_play_set_carry(FlowPlay *play, FlowPlayCarry carry, void *opaque);

/* Do a step.  Returns NULL, or what is wrong (valid until the next step). */
const char *flow_play_step(FlowPlay *play, const FlowStep *step);

/* Do a line of a script, which may also be an expectation. */
const char *flow_play_line(FlowPlay *play, const char *line);

/* Do a whole script.  Returns NULL, or what is wrong and in which line. */
const char *flow_play_script(FlowPlay *play, const char *script);

/* The line that stands for a step, and back; false for what is no step. */
char *flow_step_print(const FlowStep *step);
bool flow_step_parse(FlowStep *step, const char *line);

/*
 * Steps as bytes, for fuzzers: any bytes are steps.  Large numbers are rounded.
 * Decoding returns how many bytes were used, 0 when there are no more.
 */
void flow_step_encode(GByteArray *out, const FlowStep *step);
size_t flow_step_decode(FlowStep *step, const uint8_t *data, size_t len);

/* What a walker wants to know to choose its next step; of the machine. */
bool flow_play_is_open(const FlowPlay *play);
bool flow_play_info(const FlowPlay *play, SpiceFlowInfo *info);
bool flow_play_client(const FlowPlay *play, unsigned who,
                      SpiceFlowClientInfo *info);

/* Bytes that passed to the guest and to clients, for figures. */
uint64_t flow_play_bytes(const FlowPlay *play);

#endif
