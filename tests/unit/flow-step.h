/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words that lines of a script are made of, for who reads lines that are
 * no steps; steps themselves are in flow-play.h.
 */
#ifndef SPICEFLOW_FLOW_STEP_H
#define SPICEFLOW_FLOW_STEP_H

#include "flow-play.h"

typedef struct FlowWords {
    char **word;
    unsigned next;
    unsigned used;              /* bits: words understood */
} FlowWords;

/* Names by FlowStepIn and FlowStepOp. */
extern const char *const flow_step_callbacks[IN__MAX];
extern const char *const flow_step_names[STEP__MAX];

/* A line without its comment; g_strfreev(). */
char **flow_words_split(const char *line);

/* Cut "-> N" off.  Returns false when it is there and no number. */
bool flow_words_cut_result(char **words, bool *has, int64_t *want);

bool flow_words_number(const char *text, uint64_t *value);

/* The next word, if it is a client's letter. */
bool flow_words_client(FlowWords *w, uint8_t *who);

bool flow_words_step(FlowStep *step, char **words);

#endif
