/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random steps for the player of the flow-control machine: all kinds of them,
 * callbacks that call back included, chosen so that they mean something most
 * of the time: clients send what they have tokens for, sockets get stuck and
 * free again, the guest takes little, nothing or too much.
 */
#include "flow-walk.h"

/* xorshift64*: the same walk for the same seed on every machine */
static uint32_t rnd(FlowWalk *w, uint32_t below)
{
    w->random ^= w->random >> 12;
    w->random ^= w->random << 25;
    w->random ^= w->random >> 27;
    return (uint32_t)((w->random * UINT64_C(2685821657736338717)) >> 33) %
           below;
}

static bool one_in(FlowWalk *w, uint32_t n)
{
    return rnd(w, n) == 0;
}

static uint32_t some_len(FlowWalk *w)
{
    switch (rnd(w, 16)) {
    case 0:
        return 1;
    case 1:
        return w->mood.max;
    default:
        return 1 + rnd(w, MIN(w->mood.max, 24));
    }
}

static void make_add(FlowWalk *w, FlowStep *step)
{
    bool fc = w->mood.raw ? one_in(w, 4) : !one_in(w, 6);
    uint32_t window = rnd(w, 6);

    *step = (FlowStep) {
        .op = STEP_ADD,
        .v = { fc ? window << 1 | 1 : 0, fc ? rnd(w, 4) : 0, fc ? rnd(w, 4) : 0,
               8 + rnd(w, 100), 1 + rnd(w, 4), w->mood.max + rnd(w, 60),
               1 + rnd(w, 4) },
    };
}

static void make_open(FlowWalk *w, FlowStep *step)
{
    w->mood = (FlowMood) {
        .clients = 1 + rnd(w, one_in(w, 4) ? FLOW_PLAY_CLIENTS : 3),
        .raw = one_in(w, 3),
        .same = one_in(w, 3),
        .calm = one_in(w, 3),
        .timeout = one_in(w, 8) ? rnd(w, 4) : 40 + rnd(w, 100),
        .max = 1 + rnd(w, 40),
    };
    make_add(w, &w->mood.add);
    *step = (FlowStep) {
        .op = STEP_OPEN,
        .v = { w->mood.raw, rnd(w, 3), w->mood.max, w->mood.timeout,
               w->mood.clients },
    };
}

static void choose(FlowWalk *w, const FlowPlay *play, FlowStep *step)
{
    SpiceFlowInfo info = { 0 };
    SpiceFlowClientInfo c = { 0 };
    uint32_t *v = step->v;
    bool there, fc;

    *step = (FlowStep) { .who = 1 + rnd(w, w->mood.clients) };
    flow_play_info(play, &info);
    there = flow_play_client(play, step->who, &c);
    fc = c.flow_control;
    if (!info.running && one_in(w, 5)) {
        step->op = STEP_START;
        return;
    }
    if (!there && one_in(w, 3)) {
        uint8_t who = step->who;

        *step = w->mood.add;
        if (!w->mood.same) {
            make_add(w, step);
        }
        step->who = who;
        return;
    }
    if (c.away && one_in(w, 3)) {
        step->op = STEP_RESUME;
        v[0] = one_in(w, 6) ? 1 + rnd(w, 3) : 0;
        return;
    }
    switch (rnd(w, 64)) {
    case 0:
        step->op = one_in(w, 2) ? STEP_STOP : STEP_START;
        break;
    case 1:
        step->op = one_in(w, 3) ? STEP_RESET : STEP_SETTLE;
        break;
    case 2:
    case 3:
        step->op = one_in(w, 16) ? STEP_TIMEOUT : STEP_TICK;
        v[0] = one_in(w, 4) ? w->mood.timeout : rnd(w, w->mood.timeout / 2 + 2);
        break;
    case 4:
        step->op = one_in(w, 2) ? STEP_REMOVE : STEP_SETTLE;
        break;
    case 5:
        make_add(w, step);
        step->who = 1 + rnd(w, w->mood.clients);
        break;
    case 6:
        step->op = one_in(w, 3) ? STEP_MOVE :
                   one_in(w, 2) ? STEP_RETURN : STEP_BAD;
        v[0] = step->op == STEP_BAD ? rnd(w, UINT32_MAX) : rnd(w, 4);
        break;
    case 7:
        step->op = one_in(w, 3) ? STEP_REVERT :
                   one_in(w, 2) ? STEP_SNAP : STEP_BAD;
        v[0] = step->op == STEP_BAD ? rnd(w, UINT32_MAX) : 0;
        break;
    case 8:
        step->op = STEP_OWNER;
        v[0] = rnd(w, 4) & rnd(w, 4);
        break;
    case 9:
    case 10:
        step->op = STEP_GUEST;
        v[0] = one_in(w, 3) ? 0 : one_in(w, 3) ? UINT32_MAX : rnd(w, 60);
        v[1] = one_in(w, 2) ? 0 : 1 + rnd(w, 9);
        v[2] = rnd(w, 4);
        break;
    case 11: case 12: case 13:
        step->op = STEP_TAKES;
        v[0] = rnd(w, 50);
        break;
    case 14:
        step->op = STEP_READY;
        break;
    case 15:
    case 16:
        step->op = STEP_SERVER;
        v[0] = some_len(w);
        break;
    case 17:
        step->op = STEP_UNPAID;
        v[0] = rnd(w, 4);
        break;
    case 18:
        step->op = STEP_ROOM;
        break;
    case 19:
        step->op = STEP_CANCEL;
        break;
    case 20: case 21: case 22:
        /* one in a while without a token, or without a beginning */
        if (fc && c.client_tokens == 0 && !one_in(w, 6)) {
            step->op = STEP_SETTLE;
            break;
        }
        step->op = STEP_BEGIN;
        break;
    case 23: case 24: case 25:
        step->op = STEP_BODY;
        v[0] = one_in(w, 20) ? w->mood.max + 1 + rnd(w, 3) : one_in(w, 20) ? 0
                                                  : some_len(w);
        v[1] = !w->mood.raw && one_in(w, 3);
        v[2] = one_in(w, 4) ? rnd(w, 9) : 0;
        break;
    case 26: case 27: case 28: case 29: case 30: case 31: case 32: case 33:
    case 34:
        if (fc && c.client_tokens == 0 && !one_in(w, 10)) {
            step->op = STEP_SETTLE;
            break;
        }
        step->op = STEP_WRITE;
        v[0] = some_len(w);
        v[1] = !w->mood.raw && one_in(w, 3);
        v[2] = one_in(w, 4) ? rnd(w, 9) : 0;
        break;
    case 35:
        step->op = STEP_MAY;
        v[0] = some_len(w);
        break;
    case 36: case 37: case 38: case 39: case 40: case 41:
        step->op = STEP_SEND;
        v[0] = some_len(w);
        break;
    case 42: case 43:
        step->op = STEP_STREAM;
        v[0] = 1 + rnd(w, 120);
        break;
    case 44:
        step->op = STEP_MAYTO;
        v[0] = some_len(w);
        break;
    case 45: case 46:
        step->op = STEP_SENDTO;
        v[0] = some_len(w);
        break;
    case 47: case 48: case 49:
        step->op = STEP_STUCK;
        v[0] = one_in(w, 2);
        break;
    case 50: case 51: case 52: case 53:
        step->op = STEP_OUT;
        v[0] = 1 + rnd(w, 4);
        break;
    case 54: case 55: case 56: case 57:
        step->op = STEP_GRANT;
        v[0] = one_in(w, 20) ? UINT32_MAX : rnd(w, 4);
        break;
    case 58:
        step->op = STEP_SET;
        v[0] = one_in(w, 20) ? UINT32_MAX : rnd(w, 3);
        break;
    case 59:
        step->op = one_in(w, 20) ? STEP_CLOSE : STEP_SETTLE;
        break;
    default:
        step->op = STEP_SETTLE;
        break;
    }
    if (!w->mood.calm && one_in(w, 8)) {
        step->in = 1 + rnd(w, IN__MAX - 1);
    }
}

void flow_walk_begin(FlowWalk *w, uint64_t seed)
{
    *w = (FlowWalk) {
        .random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15),
    };
}

void flow_walk_next(FlowWalk *w, const FlowPlay *play, FlowStep *step)
{
    if (!flow_play_is_open(play)) {
        make_open(w, step);
    } else {
        choose(w, play, step);
    }
}
