/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pump between what moves its bytes, pump.c, and what is seen and set of it
 * from outside, pump-object.c.
 */
#ifndef SPICEFLOW_PUMP_H
#define SPICEFLOW_PUMP_H

#include "hw/qdev-core.h"
#include "qom/object.h"

#include "test-compat.h"

#define TYPE_SPICEFLOW_PUMP "spiceflow-pump"
OBJECT_DECLARE_SIMPLE_TYPE(SpiceFlowPump, SPICEFLOW_PUMP)

typedef enum PumpMode {
    PUMP_SOURCE,
    PUMP_SINK,
    PUMP_ECHO,
    PUMP_PING,
} PumpMode;

/* What is settable; none of it changes while the pump runs */
typedef struct PumpSettings {
    PumpMode mode;
    bool verify;
    bool defer;
    bool drops;
    bool agent;
    uint32_t write_size;
    uint32_t can_read_size;
    uint32_t burst;             /* 0: no limit */
    uint32_t count;
    uint64_t total;
} PumpSettings;

typedef struct PumpResults {
    int64_t started_ns;         /* host's monotonic clock, as all of these */
    int64_t first_ns;           /* the first byte went through */
    int64_t finished_ns;
    uint64_t written;
    uint64_t read;
    uint64_t writes;            /* calls to the backend */
    uint64_t reads;             /* calls from the backend */
    uint64_t short_writes;      /* taken in part */
    uint64_t zero_writes;       /* not taken at all */
    uint64_t watches;           /* watches that fired */
    uint64_t turns;             /* bursts used up */
    uint32_t round_trips;
} PumpResults;

struct SpiceFlowPump {
    DeviceState parent_obj;

    TestFrontend chr;
    PumpSettings set;
    PumpResults res;

    bool running;
    bool opened;                /* the backend's side */
    bool starved;               /* can_read said 0 */
    guint watch;
    QEMUBH *bh;
    uint32_t turn_written;      /* in this turn of the main loop */
    uint32_t turn_read;

    uint32_t unit_left;         /* of the unit that is being written */
    uint32_t answer_left;       /* ping: not come back yet */
    int64_t ping_ns;
    uint32_t *samples;          /* ping: round_trips of them, ns */
    bool sorted;

    uint8_t *pattern;
    uint8_t *chunk;             /* agent */
    uint8_t *pending;           /* echo: read but not written yet */
    uint32_t pending_pos;
    uint32_t pending_len;
    char *error;
};

/* By mode, and NULL. */
extern const char *const pump_mode_names[];

void pump_start(SpiceFlowPump *p, Error **errp);
void pump_stop(SpiceFlowPump *p);
void pump_realize(DeviceState *dev, Error **errp);
void pump_unrealize(DeviceState *dev);

#endif
