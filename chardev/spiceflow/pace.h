/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much the channels of one server move in one turn of the main loop.
 */
#ifndef CHARDEV_SPICEFLOW_PACE_H
#define CHARDEV_SPICEFLOW_PACE_H

#include "qemu/queue.h"
#include "ready.h"

typedef struct SFPaced SFPaced;

/**
 * struct SFPace: of a server.
 * @waiting: who waits for a later turn, first come first
 * @num_waiting: how many
 * @limit: bytes that go in this turn without anybody's waiting
 * @left: of these, still to go
 * @turn: counts the turns in which much is moved
 * @movers: how many have moved something in this turn, or wanted to
 * @end: the source that ends a turn, from the first busy one on
 */
typedef struct SFPace {
    QTAILQ_HEAD(, SFPaced) waiting;
    unsigned num_waiting;
    int64_t limit;
    int64_t left;
    unsigned turn;
    unsigned movers;
    SFReady *end;
} SFPace;

/**
 * struct SFPaced: of a channel.
 * @pace: of its server, or NULL: it moves what it likes
 * @go: it has waited, and its turn has come
 * @opaque: handed to @go
 * @cost: what a byte counts; 1 for one that is only copied
 * @waits: whether it is among SFPace.waiting
 * @turn: the turn that @moved is of
 * @moved: bytes, each counted as @cost
 * @grant: bytes that it may move because it has waited; below 0 when that was
 *   overdrawn
 * @granted: the turn that @grant is of
 */
struct SFPaced {
    SFPace *pace;
    void (*go)(void *opaque);
    void *opaque;
    unsigned cost;
    bool waits;
    unsigned turn;
    size_t moved;
    int64_t grant;
    unsigned granted;
    QTAILQ_ENTRY(SFPaced) next;
};

void sf_pace_init(SFPace *pace);

/**
 * sf_pace_cleanup: the server goes, and its channels have gone.
 * @pace: its pace
 */
void sf_pace_cleanup(SFPace *pace);

/**
 * sf_pace_limit: what a channel may move without waiting.
 * @paced: of the channel
 *
 * Returns: bytes; SIZE_MAX: as much as goes at a time, then it is to ask again.
 */
size_t sf_pace_limit(SFPaced *paced);

/**
 * sf_pace_wait: a channel has more to move than sf_pace_limit() says.
 * @paced: of the channel; SFPaced.go follows
 *
 * Returns: whether so many wait that its socket had better not be watched until
 * then: to ask for each of them takes longer than to move what one has.
 */
bool sf_pace_wait(SFPaced *paced);

/**
 * sf_pace_moved: bytes were sent or received.
 * @paced: of the channel
 * @len: how many
 */
void sf_pace_moved(SFPaced *paced, size_t len);

/**
 * sf_pace_leave: a channel is at its end, and moves what is left as it likes.
 * @paced: of the channel
 */
void sf_pace_leave(SFPaced *paced);

#endif
