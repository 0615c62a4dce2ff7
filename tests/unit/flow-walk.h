/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random walks of the player (flow-play.h): the same one for the same seed on
 * every machine.
 */
#ifndef SPICEFLOW_FLOW_WALK_H
#define SPICEFLOW_FLOW_WALK_H

#include "flow-play.h"

/* What is likely in this walk. */
typedef struct FlowMood {
    unsigned clients;           /* how many letters are used */
    bool raw;                   /* a byte stream */
    bool same;                  /* all clients have the same properties */
    bool calm;                  /* nothing is put off into callbacks */
    uint32_t timeout;
    uint32_t max;
    FlowStep add;
} FlowMood;

typedef struct FlowWalk {
    uint64_t random;
    FlowMood mood;
} FlowWalk;

void flow_walk_begin(FlowWalk *w, uint64_t seed);

/* The next step, for what is going on in @play now. */
void flow_walk_next(FlowWalk *w, const FlowPlay *play, FlowStep *step);

#endif
