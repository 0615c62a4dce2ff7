/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A formal model of the flow-control machine (chardev/spiceflow/core/flow.c)
 * for spin.  README.md beside this file says what it covers, what it leaves
 * out and how many states it has; scripts/model checks it.
 *
 * Theory of operation
 *
 * The machine is sequential: its owner calls it, and it calls its owner back.
 * So the model is one process that picks, for ever, one of the operations
 * that are possible now and carries it out in one atomic step.  Concurrency
 * enters in two places: a write to the guest is two steps, the call and the
 * return, and every operation may come between them (that is re-entrancy);
 * and a migration is two steps, save and the outcome, with the source going
 * on in between.
 *
 * A run has no bound: messages carry sequence numbers modulo MOD, which is
 * more than can be under way at once, so a loss, a repetition and a swap are
 * all seen, and the state space is closed after any number of messages,
 * clients, stops, resets and migrations.
 *
 * Everything is there twice where a migration needs it: index LIVE is the
 * machine, index COPY what was saved.  AT(i, c) is client c's place in i.
 *
 * Beside the machine's own variables stand those of an observer (obs_...):
 * what the guest has got, what the clients have got and believe.  The machine
 * never reads them; the assertions compare.
 *
 * The directions do not depend on each other but for attach, stop and
 * migration, so each is checked by itself (TO_GUEST, TO_CLIENT), which is
 * what keeps the search exhaustive.
 */

#ifndef WINDOW
#define WINDOW 2        /* client tokens given at the start */
#endif
#ifndef INTERVAL
#define INTERVAL 2      /* consumed messages gathered before they go back */
#endif
#ifndef BUDGET
#define BUDGET 2        /* messages a queue may hold */
#endif
#ifndef UNITS
#define UNITS 2         /* pieces that a buffer can be written in */
#endif
#ifndef SENDMAX
#define SENDMAX 2       /* send tokens that a client ever holds */
#endif
#ifndef FAULT
#define FAULT 0         /* one of the faults that the search must find */
#endif
#define MOD 4
#define NEXT(x) (((x) + 1) % MOD)

#define NC 2
#define LIVE 0
#define COPY 1
#define AT(i, c) ((i) * NC + (c))

/* whose a buffer is */
#define ORPHAN 2        /* its client left */
#define SERVER 3
#define NOBODY 4
#define TORN 5          /* the guest is inside a message that has no end */

/* a buffer: sequence number and "the message goes on", or for the server's
 * own "a self token comes back" */
#define ENTRY(seq, more) ((seq) * 2 + (more))
#define SEQ(e) ((e) / 2)
#define MORE(e) ((e) % 2)
#define PAID(e) ((e) % 2)

/* ------------------------------------------------------------------------
 * The machine
 */

bool running;
bool attached[4], away[4], dead[4];

#ifdef TO_GUEST
byte tokens[4], due[4];
byte receiving[4];              /* 0 no, 1 yes, 2 yes, but of before a reset */
chan queue0 = [BUDGET] of { byte };
chan queue1 = [BUDGET] of { byte };
chan queue2 = [BUDGET] of { byte };
chan queue3 = [BUDGET] of { byte };
chan orphans0 = [BUDGET] of { byte };
chan orphans1 = [BUDGET] of { byte };
byte first[2];                  /* the client served first: the ready list */
byte turn[2];                   /* the client in the middle of a message */
byte cur_owner[2], cur_entry[2], cur_off[2];
chan server0 = [2] of { byte };
chan server1 = [2] of { byte };
bool self_token[2];
bool torn[2];                   /* the guest waits for a lost end */
bool in_write, again, want;
bool wrote_lost;                /* the buffer being written was dropped */
byte turn_clock;                /* 0 stands, else 1 + ticks seen */
#endif

#ifdef TO_CLIENT
byte ring[16];                  /* AT(i, c) * 4: sequence numbers */
byte count[4], in_flight[4], send_tokens[4];
byte newest;                    /* the client offered a message first */
bool guest_waits;
byte stall_clock[4];            /* 0 stands, else 1 + ticks seen */
#endif

/* ------------------------------------------------------------------------
 * The observer
 */

bool obs_migrating;
#ifdef TO_GUEST
byte obs_in;                    /* whose message the guest is inside */
byte obs_off;                   /* units of the buffer the guest is inside */
byte obs_got[4];                /* next expected: clients, orphan, server */
byte obs_put[4];                /* next to be handed in */
bool obs_mid[2];                /* the client has not ended its message */
bool obs_notice;                /* a notice is queued */
bool obs_skip[2];               /* the rest of its message is unwanted */
byte obs_view[2];               /* tokens the client believes to have */
byte obs_wire[2];               /* messages it sent and we did not see yet */
bool obs_refused;               /* the guest refused, and was not heard since */
bool obs_unsettled;             /* settle() is owed */
bool obs_room[2];               /* it was told there is no room */
byte obs_turn_age;
#endif
#ifdef TO_CLIENT
byte obs_put_to[2];             /* the next message offered to it */
byte obs_exp[2];                /* next message the client must get */
byte obs_delivered[2];          /* what the source delivered after saving */
byte obs_age[2];                /* ticks that it has kept another waiting */
#endif

/* Scratch: zero between two steps. */
byte i, j, k, x, n, c, d, ok, stuck;

/* Which client's socket is full, for the length of one operation. */
inline sockets() {
    if
    :: stuck = 0
    :: stuck = 1
    :: stuck = 2
    :: stuck = 3
    fi
}

#define LIVES(c) (attached[c] && !dead[c])

/* ------------------------------------------------------------------------
 * To guest
 */
#ifdef TO_GUEST

#define Q_LEN(a) ((a) == 0 -> len(queue0) : ((a) == 1 -> len(queue1) : \
                  ((a) == 2 -> len(queue2) : len(queue3))))
#define HOLDS(c) (Q_LEN(c) + (cur_owner[LIVE] == (c)))
#define READY(c) (Q_LEN(c) > 0)

inline q_put(a, e) {
    if
    :: (a) == 0 -> queue0!e
    :: (a) == 1 -> queue1!e
    :: (a) == 2 -> queue2!e
    :: (a) == 3 -> queue3!e
    fi
}

inline q_get(a, e) {
    if
    :: (a) == 0 -> queue0?e
    :: (a) == 1 -> queue1?e
    :: (a) == 2 -> queue2?e
    :: (a) == 3 -> queue3?e
    fi
}

inline q_clear(a) {
    do
    :: Q_LEN(a) > 0 -> q_get(a, x)
    :: else -> break
    od
}

inline orphans_clear() {
    do
    :: len(orphans0) > 0 -> orphans0?x
    :: else -> break
    od
}

inline cur_clear() {
    if
    :: in_write -> wrote_lost = true
    :: else
    fi;
    cur_owner[LIVE] = NOBODY; cur_entry[LIVE] = 0; cur_off[LIVE] = 0
}

inline give(c) {
    if
    :: due[c] > 0 && !dead[c] && !away[c] ->
        tokens[c] = tokens[c] + due[c];
        obs_view[c] = obs_view[c] + due[c];
        due[c] = 0
    :: else
    fi
}

/* A client's token comes back. */
inline token_back(c) {
    due[c] = due[c] + 1;
    if
    :: due[c] >= INTERVAL -> give(c)
    :: else
    fi
}

/* What is due to clients that have nothing left in the queue goes back. */
inline give_all() {
    j = 0;
    do
    :: j < NC ->
        if
        :: attached[j] && HOLDS(j) == 0 -> give(j)
        :: else
        fi;
        j++
    :: else -> break
    od
}

/* Choose the next buffer: orphans, the server's own, the turn's, by turns. */
inline pick() {
    if
    :: cur_owner[LIVE] != NOBODY
    :: else ->
        if
        :: len(orphans0) > 0 ->
            orphans0?x;
            cur_owner[LIVE] = ORPHAN; cur_entry[LIVE] = x
        :: else ->
            if
            :: len(server0) > 0 ->
                server0?x;
                torn[LIVE] = torn[LIVE] && PAID(x);
                obs_notice = obs_notice && PAID(x);
                cur_owner[LIVE] = SERVER; cur_entry[LIVE] = x
            :: else ->
                n = NOBODY;
                if
                :: torn[LIVE]
                :: !torn[LIVE] && turn[LIVE] != NOBODY ->
                    if
                    :: READY(turn[LIVE]) -> n = turn[LIVE]
                    :: else
                    fi
                :: !torn[LIVE] && turn[LIVE] == NOBODY ->
                    if
                    :: READY(first[LIVE]) -> n = first[LIVE]
                    :: else ->
                        if
                        :: READY(1 - first[LIVE]) -> n = 1 - first[LIVE]
                        :: else
                        fi
                    fi
                fi;
                if
                :: FAULT == 4 && n == NOBODY && !torn[LIVE] && READY(1) ->
                    n = 1
                :: else
                fi;
                if
                :: n != NOBODY ->
                    q_get(n, x);
                    cur_owner[LIVE] = n; cur_entry[LIVE] = x;
                    if
                    :: MORE(x) -> turn[LIVE] = n
                    :: else ->
                        turn[LIVE] = NOBODY;
                        first[LIVE] = 1 - n
                    fi
                :: else
                fi
            fi
        fi
    fi
}

#define CAN_PICK (cur_owner[LIVE] != NOBODY || len(orphans0) > 0 || \
                  len(server0) > 0 || \
                  (!torn[LIVE] && turn[LIVE] != NOBODY && \
                   READY(turn[LIVE])) || \
                  (!torn[LIVE] && turn[LIVE] == NOBODY && \
                   (READY(0) || READY(1))))

/* The guest gets one unit of the current buffer; the observer looks. */
inline guest_gets() {
    /* 3: nothing lost, nothing twice, nothing reordered */
    assert(SEQ(cur_entry[LIVE]) == obs_got[cur_owner[LIVE]]);
    assert(cur_off[LIVE] == obs_off);
    /* 4: no other client's buffer inside a message */
    assert(obs_in == NOBODY || cur_owner[LIVE] == SERVER ||
           cur_owner[LIVE] == obs_in);
    if
    :: cur_owner[LIVE] != SERVER -> obs_in = cur_owner[LIVE]
    :: else
    fi;
    obs_off = cur_off[LIVE] + 1;
    if
    :: FAULT == 3 && again          /* forgets where it was */
    :: else -> cur_off[LIVE] = obs_off
    fi;
    if
    :: cur_off[LIVE] == UNITS ->
        obs_off = 0;
        obs_got[cur_owner[LIVE]] = NEXT(obs_got[cur_owner[LIVE]]);
        if
        :: cur_owner[LIVE] != SERVER && !MORE(cur_entry[LIVE]) ->
            obs_in = NOBODY
        :: cur_owner[LIVE] == ORPHAN && MORE(cur_entry[LIVE]) &&
           len(orphans0) == 0 ->
            obs_in = TORN           /* completed as far as it was sent */
        :: cur_owner[LIVE] == SERVER && obs_in == TORN &&
           !PAID(cur_entry[LIVE]) ->
            obs_in = NOBODY         /* the notice: the guest forgets */
        :: else
        fi;
        /* the machine: the buffer is done */
        n = cur_owner[LIVE];
        ok = PAID(cur_entry[LIVE]);
        cur_owner[LIVE] = NOBODY; cur_entry[LIVE] = 0; cur_off[LIVE] = 0;
        if
        :: n < NC ->
#ifndef RAW
            token_back(n)
#else
            obs_room[n] = false
#endif
        :: n == SERVER && ok -> self_token[LIVE] = true
        :: else
        fi;
        n = 0; ok = 0
    :: else
    fi
}

/* The client in the middle of a message has nothing here, another one has. */
#define TURN_PAUSES (turn[LIVE] != NOBODY && cur_owner[LIVE] == NOBODY && \
                     !READY(turn[LIVE]) && READY(1 - turn[LIVE]))

inline turn_update() {
    if
    :: TURN_PAUSES ->
        if
        :: running && turn_clock == 0 -> turn_clock = 1
        :: else
        fi
    :: else -> turn_clock = 0; obs_turn_age = 0
    fi
}

/* The client hands in a buffer; it has paid where it must. */
inline hand_in(c, more) {
    q_put(c, ENTRY(obs_put[c], more));
    obs_put[c] = NEXT(obs_put[c]);
    obs_mid[c] = more;
    want = true;
    obs_unsettled = true
}

#endif

/* ------------------------------------------------------------------------
 * To client
 */
#ifdef TO_CLIENT

#define RING(a, p) ring[(a) * 4 + (p)]

#define TAKES(c) (LIVES(c) && !away[c] && count[c] == in_flight[c] && \
                  send_tokens[c] > 0 && count[c] < BUDGET)
#define MAY_SEND (running && ((!LIVES(0) && !LIVES(1)) || TAKES(0) || \
                              TAKES(1)))
/* It has something undelivered, and there is another one. */
#define HINDERS(c) (LIVES(c) && !away[c] && LIVES(1 - (c)) && count[c] > 0)

/* What the source delivered after saving, and the ring does not know yet. */
#define LAG(c) (away[c] -> obs_delivered[c] : 0)

inline ring_pop(a) {
    k = 0;
    do
    :: k + 1 < count[a] -> RING(a, k) = RING(a, k + 1); k++
    :: else -> break
    od;
    RING(a, count[a] - 1) = 0;
    count[a] = count[a] - 1
}

inline ring_clear(a) {
    do
    :: count[a] > 0 -> count[a] = count[a] - 1; RING(a, count[a]) = 0
    :: else -> break
    od;
    in_flight[a] = 0
}

/* The client gets the oldest message under way. */
inline client_gets(c) {
    assert(in_flight[c] > 0);
    assert(RING(c, 0) == obs_exp[c]);           /* 3 */
    obs_exp[c] = NEXT(obs_exp[c]);
    ring_pop(c);
    in_flight[c] = in_flight[c] - 1;
    stall_clock[c] = 0;
    obs_age[c] = 0
}

/* The send op: all of it out at once, or kept. */
inline send_op(c) {
    in_flight[c] = in_flight[c] + 1;
    stall_clock[c] = 0;
    obs_age[c] = 0;
    if
    :: in_flight[c] == 1 && !((stuck >> c) & 1) -> client_gets(c)
    :: else
    fi
}

inline flush(c) {
    do
    :: LIVES(c) && !away[c] && count[c] > in_flight[c] &&
       send_tokens[c] > 0 ->
        send_tokens[c] = send_tokens[c] - 1;
        send_op(c)
    :: else -> break
    od
}

inline clocks_update() {
    j = 0;
    do
    :: j < NC ->
        if
        :: HINDERS(j) && running ->
            if
            :: stall_clock[j] == 0 -> stall_clock[j] = 1
            :: else
            fi
        :: HINDERS(j) && !running
        :: else -> stall_clock[j] = 0; obs_age[j] = 0
        fi;
        j++
    :: else -> break
    od;
    /* the wake op: it may offer again */
    if
    :: guest_waits && MAY_SEND -> guest_waits = false
    :: else
    fi
}

#endif

/* ------------------------------------------------------------------------
 * Clients leave, or are told to
 */

/* Everything that the device holds of a client goes. */
inline detach(c) {
#ifdef TO_GUEST
#ifdef RAW
    /* a byte stream: all of it, the current buffer too (D2) */
    if
    :: cur_owner[LIVE] == c -> cur_clear()
    :: else
    fi;
    if
    :: obs_in == c -> obs_in = NOBODY; obs_off = 0
    :: else
    fi;
#else
    /* framed: the current buffer is completed, and what is here of the rest
       of its message */
    if
    :: cur_owner[LIVE] == c ->
        cur_owner[LIVE] = ORPHAN;
        obs_got[ORPHAN] = obs_got[c]
    :: else
    fi;
    if
    :: turn[LIVE] == c ->
        ok = false;
        do
        :: !ok && Q_LEN(c) > 0 ->
            if
            :: cur_owner[LIVE] != ORPHAN && len(orphans0) == 0 ->
                obs_got[ORPHAN] = obs_got[c]
            :: else
            fi;
            q_get(c, x);
            orphans0!x;
            ok = !MORE(x)
        :: else -> break
        od;
        torn[LIVE] = !ok;
        ok = 0
    :: else
    fi;
    /* the observer: the same message, by another name, or cut off */
    if
    :: obs_in == c && (cur_owner[LIVE] == ORPHAN || len(orphans0) > 0) ->
        obs_in = ORPHAN
    :: obs_in == c && !(cur_owner[LIVE] == ORPHAN || len(orphans0) > 0) ->
        assert(torn[LIVE]);         /* the owner is told so */
        obs_in = TORN
    :: else
    fi;
#endif
    q_clear(c);
    if
    :: turn[LIVE] == c -> turn[LIVE] = NOBODY
    :: else
    fi;
    receiving[c] = 0; tokens[c] = 0; due[c] = 0;
    obs_got[c] = 0; obs_put[c] = 0;
    obs_mid[c] = false; obs_skip[c] = false;
    obs_view[c] = 0; obs_wire[c] = 0; obs_room[c] = false;
    /* the turn is free: what the other has may go now */
    want = want || (running && !in_write && CAN_PICK && !obs_refused);
    turn_update();
#endif
#ifdef TO_CLIENT
    ring_clear(c);
    send_tokens[c] = 0; stall_clock[c] = 0;
    obs_exp[c] = 0; obs_put_to[c] = 0;
    obs_age[c] = 0; obs_delivered[c] = 0;
#endif
    away[c] = false
}

#ifdef TO_CLIENT

inline kick(c) {
    detach(c);
    dead[c] = true
}

inline offer(c) {
    if
    :: LIVES(c) ->
        if
        :: TAKES(c) ->
            RING(c, count[c]) = obs_put_to[c];
            count[c] = count[c] + 1;
            send_tokens[c] = send_tokens[c] - 1;
            send_op(c)
        :: else ->
            if
            :: count[c] < BUDGET + (FAULT == 2) ->
                RING(c, count[c]) = obs_put_to[c];
                count[c] = count[c] + 1
            :: else -> kick(c)
            fi
        fi;
        if
        :: LIVES(c) -> obs_put_to[c] = NEXT(obs_put_to[c])
        :: else
        fi
    :: else
    fi
}

#endif

/* ------------------------------------------------------------------------
 * What must hold between two steps
 */

inline invariants() {
    c = 0;
    do
    :: c < NC ->
#ifdef TO_GUEST
#ifndef RAW
        if
        :: LIVES(c) ->
            /* 1: tokens are conserved, and the client knows no more */
            assert(tokens[c] + due[c] + HOLDS(c) + (receiving[c] == 1) ==
                   WINDOW);
            assert(obs_view[c] + obs_wire[c] <= tokens[c]);
            /* 6: no withheld token */
            assert(due[c] < INTERVAL || away[c]);
            assert(obs_unsettled || want || in_write || HOLDS(c) > 0 ||
                   due[c] == 0 || away[c])
        :: else ->
            assert(HOLDS(c) == 0)
        fi;
#else
        /* a gone client has nothing left anywhere: D2 */
        assert(attached[c] || HOLDS(c) == 0);
        /* whoever was told that there is no room was told when there was */
        assert(!obs_room[c] || HOLDS(c) == BUDGET || !attached[c] ||
               dead[c] || away[c]);
#endif
        /* 2: bounded */
        assert(HOLDS(c) <= BUDGET);
        /* 3: nothing lost */
        assert(!LIVES(c) || HOLDS(c) > 0 ||
               obs_got[c] == obs_put[c] || wrote_lost);
#endif
#ifdef TO_CLIENT
        assert(count[c] <= BUDGET && in_flight[c] <= count[c]);     /* 2 */
        assert(send_tokens[c] <= SENDMAX);
        /* 3: what is in the ring is what the client wants next, in order */
        assert(count[c] <= LAG(c) || RING(c, LAG(c)) == obs_exp[c]);
        assert(!LIVES(c) ||
               (obs_exp[c] + count[c] - LAG(c)) % MOD == obs_put_to[c]);
        /* nothing waits that could go */
        assert(!(LIVES(c) && !away[c]) || count[c] == in_flight[c] ||
               send_tokens[c] == 0);
        /* 5: who hinders the other is on the clock and goes in time */
        assert(!(running && HINDERS(c)) || stall_clock[c] > 0);
        assert(obs_age[c] < 2);
        /* ... and a lone client never */
        assert(LIVES(1 - c) || stall_clock[c] == 0);
#endif
        /* where nothing is under way, counting may begin at 0 again */
#ifdef TO_GUEST
        if
        :: HOLDS(c) == 0 && !wrote_lost -> obs_got[c] = 0; obs_put[c] = 0
        :: else
        fi;
#endif
#ifdef TO_CLIENT
        if
        :: count[c] == 0 && !obs_migrating ->
            obs_exp[c] = 0; obs_put_to[c] = 0
        :: else
        fi;
#endif
        c++
    :: else -> break
    od;
#ifdef TO_GUEST
    /* 7: stop is stop (the write that stop() was called from may return) */
    assert(!in_write || cur_owner[LIVE] != NOBODY || wrote_lost);
    /* no missed wakeup: what could go and does not was refused (D24) */
    assert(!running || in_write || want || !CAN_PICK || obs_refused);
    /* 4: mid-buffer, the machine still has the rest */
    assert(obs_off == 0 || cur_off[LIVE] == obs_off || wrote_lost);
    assert(len(orphans0) <= BUDGET);
    assert(!(running && TURN_PAUSES) || turn_clock > 0);
    assert(obs_turn_age < 2);
    assert(!torn[LIVE] || turn[LIVE] == NOBODY);
    if
    :: len(server0) == 0 && cur_owner[LIVE] != SERVER && !wrote_lost ->
        obs_got[SERVER] = 0; obs_put[SERVER] = 0
    :: else
    fi;
    if
    :: len(orphans0) == 0 && cur_owner[LIVE] != ORPHAN && !wrote_lost ->
        obs_got[ORPHAN] = 0
    :: else
    fi;
#endif
#ifdef TO_CLIENT
    assert(!(guest_waits && MAY_SEND));         /* no missed wake */
#endif
    c = 0; i = 0; j = 0; k = 0; x = 0; n = 0; d = 0;
    ok = 0; stuck = 0
}

/* ------------------------------------------------------------------------
 * Operations
 */

inline op_add(c) {
    attached[c] = true; dead[c] = false; away[c] = false;
#ifdef TO_GUEST
    receiving[c] = 0; due[c] = 0;
    obs_got[c] = 0; obs_put[c] = 0;
    obs_mid[c] = false; obs_skip[c] = false; obs_wire[c] = 0;
    obs_room[c] = false;
#ifndef RAW
    tokens[c] = WINDOW; obs_view[c] = WINDOW;
#endif
#endif
#ifdef TO_CLIENT
    send_tokens[c] = 0;
    newest = c;
    obs_exp[c] = 0; obs_put_to[c] = 0; obs_age[c] = 0;
    clocks_update();
#endif
    invariants()
}

inline op_remove(c) {
    detach(c);
    attached[c] = false; dead[c] = false;
#ifdef TO_CLIENT
    clocks_update();
#endif
    invariants()
}

inline op_start() {
    running = true;
#ifdef TO_GUEST
    want = true;
    turn_update();
#endif
#ifdef TO_CLIENT
    clocks_update();
#endif
    invariants()
}

inline op_stop() {
    running = false;
#ifdef TO_GUEST
    if
    :: want && !in_write ->
        /* called from inside the loop, between two writes: it ends */
        want = false;
        give_all()
    :: else -> want = want && FAULT == 7
    fi;
#endif
    invariants()
}

#ifdef TO_GUEST

/* The client sends a message, on its side of the wire. */
inline op_client_sends(c) {
    obs_view[c] = obs_view[c] - 1;
    obs_wire[c] = obs_wire[c] + 1;
    invariants()
}

/* We see its header. */
inline op_begin(c) {
    assert(tokens[c] > 0);      /* who keeps to the rules is never removed */
    tokens[c] = tokens[c] - 1;
    obs_wire[c] = obs_wire[c] - 1;
    receiving[c] = 1;
    invariants()
}

/* One that sends without a token. */
inline op_violate(c) {
    detach(c);
    dead[c] = true;
    invariants()
}

/* Its body: queued, or swallowed when of the time before a reset. */
inline op_body(c, more) {
    if
    :: receiving[c] == 2 -> receiving[c] = 0
    :: else -> receiving[c] = 0; hand_in(c, more)
    fi;
    turn_update();
    invariants()
}

inline op_cancel(c) {
    if
    :: receiving[c] == 1 -> receiving[c] = 0; token_back(c)
    :: else -> receiving[c] = 0
    fi;
    obs_unsettled = true;
    invariants()
}

/* A byte stream: no tokens, its budget is the bound. */
inline op_stream(c) {
    hand_in(c, 0);
    invariants()
}

inline op_room(c) {
    obs_room[c] = true;
    invariants()
}

inline op_settle() {
    obs_unsettled = false;
    give_all();
    invariants()
}

inline op_server(paid) {
    if
    :: paid -> self_token[LIVE] = false
    :: else
    fi;
    server0!ENTRY(obs_put[SERVER], paid);
    obs_put[SERVER] = NEXT(obs_put[SERVER]);
    want = true;
    invariants()
}

inline op_ready() {
    obs_refused = false;
    if
    :: in_write -> again = (FAULT != 9)
    :: else -> want = true
    fi;
    invariants()
}

inline op_write_call() {
    assert(running);                                        /* 7 */
    pick();
    if
    :: cur_owner[LIVE] != NOBODY ->
        in_write = true; again = false; wrote_lost = false;
        obs_refused = true              /* unless it is heard meanwhile */
    :: else ->
        want = false;
        give_all()
    fi;
    turn_update();
    invariants()
}

inline op_write_return(took) {
    in_write = false;
    if
    :: wrote_lost -> wrote_lost = false
    :: else ->
        d = 0;
        do
        :: d < took && cur_owner[LIVE] != NOBODY -> guest_gets(); d++
        :: else -> break
        od
    fi;
    if
    :: took == 0 && !again -> want = false
    :: took == 0 && again -> want = running
    :: took > 0 -> want = running; obs_refused = false
    fi;
    if
    :: !want && FAULT != 6 -> give_all()        /* the loop ends */
    :: else
    fi;
    again = false;
    turn_update();
    invariants()
}

inline op_turn_tick() {
    obs_turn_age = obs_turn_age + 1;
    if
    :: turn_clock == 1 -> turn_clock = 2
    :: turn_clock == 2 ->
        /* turn_lost: the rest of that message will never be wanted */
        obs_skip[turn[LIVE]] = true;
        obs_in = TORN;
        turn[LIVE] = NOBODY;
        torn[LIVE] = true;
        turn_update()
    fi;
    invariants()
}

inline op_reset() {
    if
    :: cur_owner[LIVE] != NOBODY -> cur_clear()
    :: else
    fi;
    orphans_clear();
    if
    :: !self_token[LIVE] -> self_token[LIVE] = true
    :: else
    fi;
    do
    :: len(server0) > 0 -> server0?x
    :: else -> break
    od;
    torn[LIVE] = false; obs_notice = false;
    turn[LIVE] = NOBODY; turn_clock = 0; obs_turn_age = 0;
    c = 0;
    do
    :: c < NC ->
        q_clear(c);
        if
        :: LIVES(c) ->
            tokens[c] = WINDOW; due[c] = 0;
            if
            :: FAULT != 1 && receiving[c] > 0 -> receiving[c] = 2
            :: else
            fi;
            /* the announcement tells the client; what it sent before is
               thrown away by the owner */
            obs_view[c] = WINDOW;
            obs_wire[c] = 0;
            obs_got[c] = 0; obs_put[c] = 0;
            obs_mid[c] = false; obs_skip[c] = false
        :: else
        fi;
        c++
    :: else -> break
    od;
    obs_room[0] = false; obs_room[1] = false;
    obs_in = NOBODY; obs_off = 0;
    obs_got[ORPHAN] = 0; obs_got[SERVER] = 0; obs_put[SERVER] = 0;
    invariants()
}

#endif

#ifdef TO_CLIENT

inline op_guest_sends() {
    if
    :: MAY_SEND ->
        assert(running);                                    /* 7 */
        c = newest;
        offer(c);
        c = 1 - newest;
        offer(c);
        clocks_update()
    :: else -> guest_waits = true
    fi;
    invariants()
}

inline op_sent(c) {
    client_gets(c);
    if
    :: obs_migrating -> obs_delivered[c] = obs_delivered[c] + 1
    :: else
    fi;
    clocks_update();
    invariants()
}

inline op_tokens(c, by) {
    send_tokens[c] = by;
    flush(c);
    clocks_update();
    invariants()
}

inline op_tick() {
    c = 0;
    do
    :: c < NC ->
        if
        :: HINDERS(c) -> obs_age[c] = obs_age[c] + 1
        :: else
        fi;
        if
        :: stall_clock[c] == 1 -> stall_clock[c] = 2
        :: stall_clock[c] == 2 && FAULT != 5 -> kick(c); stall_clock[c] = 0; obs_age[c] = 0
        :: else
        fi;
        c++
    :: else -> break
    od;
    clocks_update();
    invariants()
}

inline op_up_reset() {
    /* what waits is dropped, what is under way goes on */
    c = 0;
    do
    :: c < NC ->
        do
        :: count[c] > in_flight[c] ->
            count[c] = count[c] - 1; RING(c, count[c]) = 0;
            obs_put_to[c] = (obs_put_to[c] + MOD - 1) % MOD
        :: else -> break
        od;
        c++
    :: else -> break
    od;
    clocks_update()
}

#endif

/* ------------------------------------------------------------------------
 * Migration: save, then what the source still does, then the outcome
 */

inline copy_client(s, t, c) {
    attached[AT(t, c)] = attached[AT(s, c)];
    dead[AT(t, c)] = dead[AT(s, c)];
    away[AT(t, c)] = away[AT(s, c)];
#ifdef TO_GUEST
    tokens[AT(t, c)] = tokens[AT(s, c)];
    due[AT(t, c)] = due[AT(s, c)];
    receiving[AT(t, c)] = receiving[AT(s, c)];
    q_clear(AT(t, c));
    n = Q_LEN(AT(s, c));
    do
    :: n > 0 ->
        q_get(AT(s, c), x); q_put(AT(s, c), x); q_put(AT(t, c), x);
        n--
    :: else -> break
    od;
#endif
#ifdef TO_CLIENT
    send_tokens[AT(t, c)] = send_tokens[AT(s, c)];
    in_flight[AT(t, c)] = in_flight[AT(s, c)];
    count[AT(t, c)] = count[AT(s, c)];
    stall_clock[AT(t, c)] = stall_clock[AT(s, c)];
    k = 0;
    do
    :: k < 4 -> RING(AT(t, c), k) = RING(AT(s, c), k); k++
    :: else -> break
    od;
#endif
}

inline copy_device(s, t) {
#ifdef TO_GUEST
    first[t] = first[s]; turn[t] = turn[s];
    cur_owner[t] = cur_owner[s]; cur_entry[t] = cur_entry[s];
    cur_off[t] = cur_off[s];
    self_token[t] = self_token[s]; torn[t] = torn[s];
    if
    :: s == LIVE ->
        n = len(orphans0);
        do
        :: n > 0 -> orphans0?x; orphans0!x; orphans1!x; n--
        :: else -> break
        od;
        n = len(server0);
        do
        :: n > 0 -> server0?x; server0!x; server1!x; n--
        :: else -> break
        od
    :: else ->
        orphans_clear();
        do
        :: len(orphans1) > 0 -> orphans1?x; orphans0!x
        :: else -> break
        od;
        do
        :: len(server0) > 0 -> server0?x
        :: else -> break
        od;
        do
        :: len(server1) > 0 -> server1?x; server0!x
        :: else -> break
        od
    fi;
#endif
    skip
}

inline copy_drop() {
    c = 0;
    do
    :: c < NC ->
        attached[AT(COPY, c)] = false;
        dead[AT(COPY, c)] = false;
        away[AT(COPY, c)] = false;
#ifdef TO_GUEST
        tokens[AT(COPY, c)] = 0; due[AT(COPY, c)] = 0;
        receiving[AT(COPY, c)] = 0;
        q_clear(AT(COPY, c));
#endif
#ifdef TO_CLIENT
        send_tokens[AT(COPY, c)] = 0;
        ring_clear(AT(COPY, c));
        obs_delivered[c] = (away[c] -> obs_delivered[c] : 0);
#endif
        c++
    :: else -> break
    od;
#ifdef TO_GUEST
    first[COPY] = 0; turn[COPY] = 0; cur_owner[COPY] = 0;
    cur_entry[COPY] = 0; cur_off[COPY] = 0;
    self_token[COPY] = false; torn[COPY] = false;
    do
    :: len(orphans1) > 0 -> orphans1?x
    :: else -> break
    od;
    do
    :: len(server1) > 0 -> server1?x
    :: else -> break
    od;
#endif
    obs_migrating = false
}

inline op_save() {
    c = 0;
    do
    :: c < NC -> copy_client(LIVE, COPY, c); c++
    :: else -> break
    od;
    copy_device(LIVE, COPY);
    obs_migrating = true;
    invariants()
}

/* The target starts with what was saved; the source is gone. */
inline op_migrated() {
    c = 0;
    do
    :: c < NC ->
        copy_client(COPY, LIVE, c);
        away[c] = attached[c];
        c++
    :: else -> break
    od;
    copy_device(COPY, LIVE);
#ifdef TO_GUEST
    in_write = false; again = false; want = false;
#endif
    copy_drop();
#ifdef TO_CLIENT
    guest_waits = false;
#endif
    invariants()
}

inline op_failed() {
    copy_drop();
    invariants()
}

/* The client is back, and knows what the source delivered since. */
inline op_resume(c) {
    away[c] = false;
#ifdef TO_GUEST
    if
    :: HOLDS(c) == 0 || due[c] >= INTERVAL -> give(c)
    :: else
    fi;
#endif
#ifdef TO_CLIENT
    d = in_flight[c];
    do
    :: obs_delivered[c] > 0 ->
        if
        :: FAULT != 8 -> ring_pop(c); d--
        :: else
        fi;
        obs_delivered[c] = obs_delivered[c] - 1
    :: else -> break
    od;
    in_flight[c] = 0;
    do
    :: d > 0 -> send_op(c); d--
    :: else -> break
    od;
    flush(c);
    clocks_update();
#endif
    invariants()
}

/* ------------------------------------------------------------------------
 * Whatever is possible now
 */

#define SOURCE_RUNS (!obs_migrating)
#define HERE(c) (attached[c] && !dead[c] && !away[c])

init {
    d_step {
#ifdef TO_GUEST
        cur_owner[LIVE] = NOBODY;
        turn[LIVE] = NOBODY;
        obs_in = NOBODY;
        self_token[LIVE] = true;
#endif
        skip
    };
end:
    do
    :: d_step { !running && SOURCE_RUNS -> op_start() }
    :: d_step { running -> op_stop() }
    :: d_step { SOURCE_RUNS && !attached[0] -> op_add(0) }
    :: d_step { SOURCE_RUNS && !attached[1] -> op_add(1) }
    :: d_step { SOURCE_RUNS && attached[0] -> op_remove(0) }
    :: d_step { SOURCE_RUNS && attached[1] -> op_remove(1) }
#ifdef MIGRATION
#ifdef TO_GUEST
    :: d_step { SOURCE_RUNS && !running && !in_write -> op_save() }
#else
    :: d_step { SOURCE_RUNS && !running -> op_save() }
#endif
    :: d_step { obs_migrating -> op_migrated() }
    :: d_step { obs_migrating -> op_failed() }
    :: atomic { attached[0] && away[0] && !dead[0] && SOURCE_RUNS -> sockets();
                d_step { op_resume(0) } }
    :: atomic { attached[1] && away[1] && !dead[1] && SOURCE_RUNS -> sockets();
                d_step { op_resume(1) } }
#endif
#ifdef TO_GUEST
#ifdef RAW
    :: d_step { HERE(0) && SOURCE_RUNS && HOLDS(0) < BUDGET -> op_stream(0) }
    :: d_step { HERE(1) && SOURCE_RUNS && HOLDS(1) < BUDGET -> op_stream(1) }
    :: d_step { HERE(0) && HOLDS(0) == BUDGET && !obs_room[0] -> op_room(0) }
    :: d_step { HERE(1) && HOLDS(1) == BUDGET && !obs_room[1] -> op_room(1) }
#else
#ifdef WIRE
    :: d_step { obs_view[0] > 0 -> op_client_sends(0) }
    :: d_step { obs_view[1] > 0 -> op_client_sends(1) }
    :: d_step { HERE(0) && SOURCE_RUNS && obs_wire[0] > 0 &&
                receiving[0] == 0 -> op_begin(0) }
    :: d_step { HERE(1) && SOURCE_RUNS && obs_wire[1] > 0 &&
                receiving[1] == 0 -> op_begin(1) }
#else
    :: d_step { HERE(0) && SOURCE_RUNS && obs_view[0] > 0 &&
                receiving[0] == 0 -> obs_view[0]--; obs_wire[0]++;
                op_begin(0) }
    :: d_step { HERE(1) && SOURCE_RUNS && obs_view[1] > 0 &&
                receiving[1] == 0 -> obs_view[1]--; obs_wire[1]++;
                op_begin(1) }
#endif
    :: d_step { HERE(1) && SOURCE_RUNS && tokens[1] == 0 &&
                receiving[1] == 0 -> op_violate(1) }
    :: d_step { HERE(0) && SOURCE_RUNS && receiving[0] > 0 &&
                !obs_skip[0] -> op_body(0, 0) }
    :: d_step { HERE(1) && SOURCE_RUNS && receiving[1] > 0 &&
                !obs_skip[1] -> op_body(1, 0) }
#ifdef PARTS
    :: d_step { HERE(0) && SOURCE_RUNS && receiving[0] > 0 &&
                !obs_skip[0] -> op_body(0, 1) }
    :: d_step { HERE(1) && SOURCE_RUNS && receiving[1] > 0 &&
                !obs_skip[1] -> op_body(1, 1) }
#endif
    :: d_step { HERE(0) && SOURCE_RUNS && receiving[0] > 0 &&
                (obs_skip[0] || !obs_mid[0]) -> op_cancel(0) }
    :: d_step { HERE(1) && SOURCE_RUNS && receiving[1] > 0 &&
                (obs_skip[1] || !obs_mid[1]) -> op_cancel(1) }
    :: d_step { obs_skip[0] && receiving[0] == 0 -> obs_skip[0] = false;
                obs_mid[0] = false }
    :: d_step { obs_skip[1] && receiving[1] == 0 -> obs_skip[1] = false;
                obs_mid[1] = false }
    :: d_step { turn_clock > 0 && running -> op_turn_tick() }
#endif
    :: d_step { obs_unsettled && SOURCE_RUNS -> op_settle() }
#ifdef SERVER_OWN
    :: d_step { self_token[LIVE] && SOURCE_RUNS -> op_server(1) }
#endif
    :: d_step { torn[LIVE] && !obs_notice && SOURCE_RUNS ->
                obs_notice = true; op_server(0) }
    :: d_step { in_write || obs_refused -> op_ready() }
    :: d_step { want && (running || FAULT == 7) && !in_write ->
                op_write_call() }
    :: d_step { in_write -> op_write_return(0) }
    :: d_step { in_write -> op_write_return(1) }
    :: d_step { in_write -> op_write_return(UNITS) }
#ifdef RESET
    :: d_step { SOURCE_RUNS -> op_reset() }
#endif
#endif
#ifdef TO_CLIENT
    :: atomic { running -> sockets();
                d_step { op_guest_sends() } }
    :: d_step { LIVES(0) && !away[0] && in_flight[0] > 0 -> op_sent(0) }
    :: d_step { LIVES(1) && !away[1] && in_flight[1] > 0 -> op_sent(1) }
    :: atomic { HERE(0) && send_tokens[0] < SENDMAX && SOURCE_RUNS -> sockets();
                d_step { op_tokens(0, send_tokens[0] + 1) } }
    :: atomic { HERE(1) && send_tokens[1] < SENDMAX && SOURCE_RUNS -> sockets();
                d_step { op_tokens(1, send_tokens[1] + 1) } }
    :: atomic { HERE(0) && send_tokens[0] > 0 && SOURCE_RUNS -> sockets();
                d_step { op_tokens(0, 0) } }
    :: atomic { HERE(1) && send_tokens[1] > 0 && SOURCE_RUNS -> sockets();
                d_step { op_tokens(1, 0) } }
    :: d_step { running && (stall_clock[0] > 0 || stall_clock[1] > 0) ->
                op_tick() }
#ifdef RESET
    :: d_step { SOURCE_RUNS -> op_up_reset(); invariants() }
#endif
#endif
    od
}
