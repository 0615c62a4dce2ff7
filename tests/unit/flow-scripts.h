/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The scripts of test-flow.c, in the language of flow-step.c.  Every step is
 * also done to the reference model and compared, so a script only states what
 * matters to it.
 */
#ifndef TESTS_UNIT_FLOW_SCRIPTS_H
#define TESTS_UNIT_FLOW_SCRIPTS_H

typedef struct FlowScript {
    const char *name;
    const char *text;
} FlowScript;

static const FlowScript flow_scripts[] = {
    /*
     * To guest: one client
     */
    { "to-guest/straight-through",
      "open\n" "start\n"
      "add a window=4 interval=2\n"
      "events client-add/1/4\n"
      "write a 10\n"
      "events token-take/1/3 to-guest-queue/1/10 to-guest-done/1/10\n"
      "expect a tokens=3 due=1 held=0\n"
      "expect guest=10 sent=1 queue=0 bytes=0 peak=10\n"
      "settle\n"
      "events token-give/1/1\n"
      "expect a tokens=4 due=0\n" },
    { "to-guest/head-and-data",
      "open\n" "start\n" "add a\n"
      "write a 20 head=8\n"
      "calls wake write:20=20\n"
      "guest 0\n"
      "write a 20 head=8\n" "write a 8 head=8\n"
      "takes 28\n"
      "expect guest=48 queue=0\n" },
    { "to-guest/guest-takes-nothing",
      "open\n" "start\n" "add a\n" "guest 0\n"
      "write a 10\n"
      "expect a held=1 bytes=10 tokens=3\n"
      "expect queue=1 guest=0\n"
      "ready\n"
      "expect queue=1\n"
      "takes 10\n"
      "expect queue=0 guest=10\n" },
    { "to-guest/guest-fails",
      "open\n" "start\n" "add a\n" "guest 0 fails\n"
      "write a 10\n"
      "expect queue=1 guest=0\n"
      "takes 3\n"
      "expect queue=1 guest=3 bytes=7\n"
      "takes 7\n"
      "expect queue=0\n" },
    { "to-guest/guest-takes-too-much",
      "open\n" "start\n" "add a\n" "guest 100 over\n"
      "write a 10\n"
      "expect queue=0 guest=10 bytes=0\n"
      "expect a bytes=0 held=0\n" },
    { "to-guest/partial-writes",
      "open\n" "start\n" "add a\n" "guest 0\n"
      "write a 10\n" "write a 10\n"
      "takes 4\n"
      "calls wake write:10=0 write:10=0 write:10=4 write:6=0\n"
      "expect a held=2 bytes=16 due=0\n"
      "takes 7\n"
      "calls write:6=6 write:10=1 write:9=0\n"
      "expect a held=1 bytes=9 due=1\n"
      "takes 9\n"
      "expect a held=0 tokens=4 due=0\n" },
    { "to-guest/short-writes-go-on-at-once",
      "open\n" "start\n" "add a\n" "guest 100 chunk=3\n"
      "write a 10\n"
      "calls wake write:10=3 write:7=3 write:4=3 write:1=1\n"
      "expect queue=0\n" },
    { "to-guest/write-not-begun",
      "open\n" "start\n" "add a\n"
      "body a 10 -> 0\n"
      "expect a tokens=4 held=0 dead=0\n" },
    { "to-guest/begin-twice",
      "open\n" "start\n" "add a\n"
      "begin a -> 1\n" "begin a -> 0\n"
      "expect a tokens=3 dead=0 receiving=1\n"
      "body a 5 -> 1\n"
      "expect a receiving=0\n" },
    { "to-guest/too-large",
      "open max=20\n" "start\n" "add a\n"
      "write a 21 -> 0\n"
      "expect a tokens=3 due=1 dead=0\n"
      "settle\n"
      "expect a tokens=4\n"
      "write a 20 -> 1\n" },
    { "to-guest/nothing",
      "open\n" "start\n" "add a\n"
      "write a 0 -> 1\n"
      "expect a tokens=3 due=1\n"
      "expect sent=0 guest=0\n"
      "add b raw\n" "write b 0 -> 1\n"
      "expect sent=0\n" },

    /*
     * Client tokens
     */
    { "tokens/lumps-of-interval",
      "open\n" "start\n" "add a window=10 interval=5\n" "guest 0\n"
      "write a 1\n" "write a 1\n" "write a 1\n" "write a 1\n" "write a 1\n"
      "write a 1\n"
      "expect a tokens=4 held=6\n"
      "takes 4\n"
      "calls wake write:1=0 write:1=0 write:1=0 write:1=0 write:1=0 write:1=0 "
      "write:1=1 write:1=1 write:1=1 write:1=1 write:1=0\n"
      "expect a tokens=4 due=4 held=2\n"
      "takes 1\n"
      "calls write:1=1 give:a:5 write:1=0\n"
      "expect a tokens=9 due=0 held=1\n" },
    { "tokens/interval-0-is-1",
      "open\n" "start\n" "add a window=2 interval=0\n"
      "write a 1\n"
      "calls wake write:1=1 give:a:1\n" },
    { "tokens/window-all-used",
      "open\n" "start\n" "add a window=2 interval=1\n" "guest 0\n"
      "write a 1\n" "write a 1\n"
      "expect a tokens=0 held=2\n"
      "takes 2\n"
      "expect a tokens=2\n"
      "write a 1 -> 1\n" },
    { "tokens/violation",
      "open\n" "start\n" "add a window=1\n" "guest 0\n"
      "write a 5\n"
      "owner later\n"
      "begin a -> 0\n"
      "events client-kick/1/0\n"
      "expect a dead=1\n"
      "expect violations=1 live=0\n"
      "begin a -> -1\n"
      "remove a -> 0\n" },
    { "tokens/violation-removes-at-once",
      "open\n" "start\n" "add a window=0\n"
      "begin a -> 0\n"
      "calls wake remove:a:0\n"
      "events client-kick/1/0 client-remove/1/0\n"
      "expect live=0 violations=1\n"
      "add a window=1\n" "begin a -> 1\n" },
    { "tokens/filtered-message-gives-its-token-back",
      "open\n" "start\n" "add a window=4 interval=2\n"
      "begin a\n" "cancel a\n"
      "expect a tokens=3 due=1\n"
      "begin a\n" "cancel a\n"
      "calls wake give:a:2\n"
      "cancel a\n"
      "expect a tokens=4 due=0\n" },
    { "D15/none-withheld-when-the-queue-runs-empty",
      "open\n" "start\n" "add a window=10 interval=5\n"
      "write a 1\n" "write a 1\n" "write a 1\n"
      "expect a tokens=7 due=3\n"
      "settle\n"
      "expect a tokens=10 due=0\n" },
    { "D15/after-an-asynchronous-drain",
      "open\n" "start\n" "add a window=10 interval=5\n" "guest 0\n"
      "write a 1\n" "settle\n"
      "expect a tokens=9 held=1\n"
      "takes 1\n"
      "calls wake write:1=0 write:1=1 give:a:1\n" },
    { "D15/after-another-client-left",
      "open\n" "start\n" "add a window=4 interval=4\n" "add b\n" "guest 0\n"
      "write b 5 more\n" "write a 1\n"
      "guest 100\n"
      "remove b -> 1\n"
      "expect a tokens=4 due=0 held=0\n" },
    { "D15/after-a-buffer-of-the-server",
      "open\n" "start\n" "add a window=4 interval=4\n" "guest 0\n"
      "write a 1\n"
      "guest 100\n"
      "server 1\n"
      "expect a tokens=4 due=0\n" },
    { "D15/settle-while-something-is-queued",
      "open\n" "start\n" "add a window=4 interval=3\n" "guest 1\n"
      "write a 1\n" "write a 1\n" "settle\n"
      "expect a tokens=2 due=1 held=1\n" },

    /*
     * Without flow control: budgets
     */
    { "raw/room",
      "open raw\n" "start\n" "add a raw bytes=100 messages=3\n" "guest 0\n"
      "room a -> 100\n"
      "write a 30\n" "room a -> 70\n"
      "write a 70 -> 1\n" "room a -> 0\n"
      "write a 1 -> 0\n"
      "expect a held=2 bytes=100\n"
      "takes 40\n"
      "calls wake write:30=0 write:30=0 write:30=30 write:70=10 write:60=0\n"
      "takes 10\n"
      "calls write:60=10 write:50=0 room:a\n"
      "takes 50\n"
      "calls write:50=50\n"
      "room a -> 100\n" },
    { "D25/raw-budget-in-messages-too",
      "open raw\n" "start\n" "add a raw bytes=100 messages=2\n" "guest 0\n"
      "write a 1 -> 1\n" "write a 1 -> 1\n" "write a 1 -> 0\n"
      "room a -> 0\n"
      "takes 1\n"
      "calls wake write:1=0 write:1=0 write:1=1 write:1=0 room:a\n"
      "write a 1 -> 1\n" },
    { "D25/raw-budget-in-bytes",
      "open raw max=200\n" "start\n" "add a raw bytes=100 messages=50\n"
      "guest 0\n"
      "write a 101 -> 0\n" "write a 99 -> 1\n" "write a 2 -> 0\n"
      "write a 1 -> 1\n" },
    { "raw/larger-than-a-message",
      "open raw max=20\n" "start\n" "add a raw bytes=100\n"
      "write a 21 -> 0\n" "write a 20 -> 1\n" },
    { "raw/begin-is-for-tokens",
      "open raw\n" "start\n" "add a raw\n"
      "begin a -> 0\n" "expect a dead=0\n" "cancel a\n" "grant a 3\n"
      "expect a send=0\n" },
    { "raw/room-of-one-who-was-told-to-go",
      "open raw\n" "start\n" "add a raw ring=1\n" "add b raw ring=9\n"
      "owner later\n" "stuck a 1\n" "send 1\n" "send 1\n"
      "expect a dead=1\n" "room a -> -1\n" "write a 1 -> -1\n"
      "remove a\n" },
    { "raw/room-is-forgotten-with-the-client",
      "open raw\n" "start\n" "add a raw bytes=10 messages=1\n" "guest 0\n"
      "write a 10\n" "room a -> 0\n" "remove a -> 0\n"
      "takes 50\n" "calls wake write:10=0\n" },

    { "raw/room-asked-twice-and-by-two",
      "open raw\n" "start\n" "add a raw bytes=10 messages=2\n"
      "add b raw bytes=100 messages=2\n" "guest 0\n"
      "write a 10\n" "write b 90\n" "room a -> 0\n" "room a -> 0\n"
      "room b -> 10\n"
      "takes 10\n" "calls wake write:10=0 write:10=0 write:10=10 write:90=0 "
      "room:a\n"
      "takes 90\n" "calls write:90=90 room:b\n" },
    { "raw/one-wants-room-the-other-does-not",
      "open raw\n" "start\n" "add a raw bytes=10 messages=2\n"
      "add b raw bytes=10 messages=2\n" "guest 0\n"
      "write a 9\n" "write b 9\n" "room a -> 1\n"
      "takes 18\n" "calls wake write:9=0 write:9=0 write:9=9 write:9=9 "
      "room:a\n" },
    { "raw/no-room-for-one-who-is-away",
      "open raw\n" "add a raw bytes=10 messages=2\n" "write a 10\n" "move\n"
      "start\n" "calls write:10=10 wake\n" "resume a\n" "room a -> 10\n" },
    { "raw/parts",
      "open raw\n" "start\n" "add a raw\n" "add b raw\n" "write a 3 more\n"
      "write b 4\n" "expect b held=1\n" "remove a -> 0\n"
      "expect queue=0 torn=0\n" },

    /*
     * Several clients toward the guest
     */
    { "turns/round-robin-by-message",
      "open\n" "start\n" "add a\n" "add b\n" "add c\n" "guest 0\n"
      "write a 1\n" "write a 2\n" "write b 3\n" "write c 4\n" "write b 5\n"
      "calls wake write:1=0 write:1=0 write:1=0 write:1=0 write:1=0\n"
      "takes 100\n"
      "calls write:1=1 write:2=2 give:a:2 write:3=3 write:4=4 write:5=5 "
      "give:b:2 give:c:1\n" },
    { "turns/a-message-goes-on",
      "open\n" "start\n" "add a\n" "add b\n" "guest 0\n"
      "write a 1 more\n" "write b 7\n" "write a 2 more\n" "write a 3\n"
      "takes 100\n"
      "calls wake write:1=0 write:1=0 write:1=0 write:1=0 "
      "write:1=1 write:2=2 give:a:2 write:3=3 write:7=7 give:b:1 give:a:1\n" },
    { "turns/others-wait-for-a-pause",
      "open\n" "start\n" "add a\n" "add b\n"
      "write a 1 more\n"
      "expect turn=1\n"
      "write b 7\n"
      "events token-take/2/3 to-guest-queue/2/7 stall/0/1\n"
      "expect b held=1\n"
      "write a 2\n"
      "expect turn=0\n" "expect b held=0\n" "expect guest=10\n" },
    { "turns/the-rest-of-one-and-the-next-of-it",
      "open\n" "start\n" "add a\n" "add b\n" "guest 0\n"
      "write a 1 more\n" "write a 1\n" "write a 2\n" "write b 3\n"
      "takes 100\n"
      "calls wake write:1=0 write:1=0 write:1=0 write:1=0 write:1=1 write:1=1 "
      "give:a:2 write:3=3 write:2=2 give:b:1 give:a:1\n" },
    { "turns/server-between-messages-and-parts",
      "open self=2\n" "start\n" "add a\n" "add b\n" "guest 0\n"
      "write a 1 more\n" "write b 3\n" "server 5\n"
      "takes 100\n"
      "calls wake write:1=0 write:1=0 write:1=0 write:1=1 write:5=5 self "
      "give:a:1 clock:1\n" },
    { "turns/lost",
      "open timeout=1000\n" "start\n" "add a\n" "add b\n"
      "write a 1 more\n" "write b 7\n"
      "calls wake write:1=1 clock:1\n"
      "tick 1 -> 251\n" "tick 500 -> 751\n" "tick 498 -> 1001\n"
      "expect turn=1\n" "expect b held=1\n"
      "tick 2\n"
      "calls lost:a write:1=1 write:7=7 give:b:1 give:a:1 clock:0\n"
      "expect turn=0 torn=0 stalls=1\n" "expect b held=0\n" },
    { "turns/lost-and-nothing-goes-before-the-notice",
      "open timeout=1000\n" "start\n" "owner silent\n" "add a\n" "add b\n"
      "write a 1 more\n" "write b 7\n" "tick 1\n" "tick 1000\n"
      "expect torn=1 turn=0\n" "expect b held=1\n"
      "write a 3\n" "ready\n"
      "expect a held=1\n"
      "unpaid 0\n"
      "expect torn=0 queue=0\n" },
    { "turns/pause-without-others-is-not-timed",
      "open timeout=1000\n" "start\n" "add a\n" "add b\n"
      "write a 1 more\n" "tick 5000 -> -1\n" "tick 5000 -> -1\n"
      "write b 1\n" "tick 1\n" "tick 900\n" "expect turn=1\n"
      "write a 1\n" "tick 5000 -> -1\n" "expect turn=0 stalls=0\n" },
    { "turns/pause-is-timed-anew-for-others",
      "open timeout=1000\n" "start\n" "add a\n" "add b\n" "add c\n"
      "write a 1 more\n" "write b 1\n" "tick 1\n" "tick 900\n"
      "remove b\n"
      "write c 1\n" "tick 5000\n"
      "expect turn=1 stalls=0\n"
      "tick 1000\n" "expect turn=0 stalls=1\n" },
    { "turns/pause-is-timed-anew-after-a-part",
      "open timeout=1000\n" "start\n" "add a\n" "add b\n"
      "write a 1 more\n" "write b 1\n" "tick 1\n" "tick 900\n"
      "write a 1 more\n" "tick 900\n" "expect turn=1\n"
      "tick 1000\n" "expect turn=0\n" },
    { "turns/lost-by-another-timeout",
      "open timeout=1000\n" "start\n" "add a\n" "add b\n" "timeout 5000 -> -1\n"
      "write a 1 more\n" "write b 7\n" "tick 1 -> 1251\n" "tick 2000 -> 3251\n"
      "expect turn=1\n" "timeout 3000 -> 2751\n" "timeout 2000 -> -1\n"
      "expect turn=0 torn=0 stalls=1\n" },
    { "turns/the-guest-is-slow-not-the-client",
      "open timeout=1000 self=1\n" "start\n" "add a\n" "add b\n"
      "write a 1 more\n" "write b 1\n" "tick 1\n"
      "guest 0\n" "server 5\n"
      "tick 5000 -> -1\n" "expect turn=1\n" },

    /*
     * Clients leave
     */
    { "leave/framed-current-is-completed",
      "open\n" "start\n" "add a\n" "guest 3\n"
      "write a 10\n" "write a 5\n"
      "remove a -> 0\n"
      "events client-remove/1/1\n"
      "expect queue=1 bytes=7 dropped=1\n"
      "takes 100\n"
      "expect queue=0 guest=10\n" },
    { "leave/framed-parts-are-completed",
      "open\n" "start\n" "add a\n" "add b\n" "guest 3\n"
      "write a 10 more\n" "write a 5 more\n" "write a 4\n" "write a 9\n"
      "write b 6\n"
      "remove a -> 0\n"
      "expect dropped=1 queue=4\n"
      "takes 100\n"
      "calls wake write:10=3 write:7=0 write:7=0 write:7=0 write:7=0 write:7=0 "
      "write:7=0 write:7=7 write:5=5 write:4=4 write:6=6 give:b:1\n" },
    { "leave/framed-message-that-has-no-end",
      "open\n" "start\n" "owner silent\n" "add a\n" "add b\n" "guest 3\n"
      "write a 10 more\n" "write b 6\n"
      "remove a -> 1\n"
      "expect torn=1\n"
      "takes 100\n"
      "expect guest=10 queue=1\n"
      "unpaid 0\n"
      "expect torn=0 queue=0 guest=17\n" },
    { "leave/framed-what-is-here-of-it",
      "open self=2\n" "start\n" "owner silent\n" "add a\n" "add b\n" "guest 3\n"
      "write a 10 more\n" "write a 5 more\n" "write a 4 more\n" "write b 6\n"
      "remove a -> 1\n"
      "expect torn=1 dropped=0 queue=4\n"
      "server 7\n"
      "takes 100\n"
      "expect guest=26 queue=1\n"
      "unpaid 0\n"
      "expect torn=0 queue=0 guest=33\n" },
    { "leave/framed-in-a-pause",
      "open\n" "start\n" "add a\n" "add b\n"
      "write a 10 more\n" "write b 6\n"
      "remove a -> 1\n"
      "expect queue=0 torn=0 guest=17\n" },
    { "leave/framed-between-messages",
      "open\n" "start\n" "add a\n" "write a 10\n" "remove a -> 0\n"
      "expect torn=0\n" },
    { "D2/raw-clears-everything",
      "open raw\n" "start\n" "add a raw\n" "guest 3\n"
      "write a 10\n" "write a 5\n"
      "remove a -> 0\n"
      "expect queue=0 bytes=0 dropped=2\n"
      "add b raw\n" "takes 100\n" "write b 4\n"
      "expect guest=7\n" },
    { "D1/no-one-is-told-of-room-after-leaving",
      "open raw\n" "start\n" "add a raw bytes=10\n" "guest 0\n"
      "write a 10\n" "room a -> 0\n" "in write: remove a\n"
      "takes 10\n"
      "calls wake write:10=0 write:10=10\n" },
    { "leave/the-current-is-another-ones",
      "open\n" "start\n" "add a\n" "add b\n" "guest 1\n" "write a 5\n"
      "write b 5\n" "remove b -> 0\n" "expect queue=1 dropped=1\n"
      "takes 100\n" "expect guest=5\n" "expect a held=0\n" },
    { "leave/unknown-to-others",
      "open\n" "start\n" "add a -> 1\n" "add a -> 0\n" "add b\n"
      "expect live=2\n" "remove a\n" "add a -> 1\n" "expect live=2\n" },

    /*
     * The server's own buffers
     */
    { "server/self-tokens",
      "open self=2\n" "start\n" "guest 0\n"
      "server 5 -> 1\n"
      "events self-token/0/1 to-guest-queue/0/5\n"
      "server 6 -> 1\n" "server 7 -> 0\n"
      "expect self=0 queue=2\n"
      "takes 5\n"
      "calls wake write:5=0 write:5=0 write:5=5 self write:6=0\n"
      "server 7 -> 1\n"
      "takes 100\n" "expect self=2 queue=0\n" },
    { "server/unpaid-is-not-queued-twice",
      "open self=0\n" "start\n" "guest 0\n"
      "server 5 -> 0\n" "unpaid 0\n" "unpaid 1\n" "unpaid 2\n"
      "expect queue=3\n"
      "unpaid 1\n" "unpaid 2\n"
      "expect queue=3\n"
      "unpaid 0\n"              /* that one is current */
      "expect queue=4\n"
      "takes 100\n" "calls wake write:1=0 write:1=0 write:1=0 write:1=0 "
      "write:1=1 write:3=3 write:3=3 write:1=1\n" },
    { "server/goes-before-clients",
      "open\n" "start\n" "add a\n" "guest 0\n"
      "write a 1\n" "write a 2\n" "server 3\n"
      "takes 100\n"
      "calls wake write:1=0 write:1=0 write:1=0 write:1=1 write:3=3 self "
      "write:2=2 give:a:2\n" },

    /*
     * To client
     */
    { "to-client/straight-through",
      "open\n" "start\n" "add a send=2\n"
      "send 10 -> 1\n"
      "events to-client-send/1/10 to-client-done/1/10\n"
      "expect a send=1 got=10 ring=0\n" "expect taken=1\n" },
    { "to-client/kept-by-the-socket",
      "open\n" "start\n" "add a send=3\n" "stuck a 1\n"
      "send 10 -> 1\n"
      "events to-client-send/1/10\n"
      "expect a send=2 got=0 ring=1 flying=1 ringbytes=10\n"
      "stuck a 0\n" "send 5 -> 1\n"
      "expect a flying=2\n"
      "out a 1 -> 1\n"
      "events to-client-done/1/10\n"
      "out a 9 -> 1\n"
      "expect a ring=0 got=15\n" },
    { "to-client/no-tokens-the-guest-waits",
      "open\n" "start\n" "add a send=1\n"
      "send 10 -> 1\n" "send 10 -> 0\n"
      "events guest-wait/0/0\n"
      "may 1 -> 0\n"
      "events\n"
      "expect waits=1\n"
      "calls wake send:a:10\n"
      "grant a 1\n"
      "calls wake\n"
      "expect waits=0 taken=1\n"
      "send 10 -> 1\n" },
    { "to-client/no-room-the-guest-waits",
      "open\n" "start\n" "add a send=9 ring=2\n" "stuck a 1\n"
      "send 1\n" "send 1\n" "send 1 -> 0\n"
      "calls wake send:a:1 send:a:1\n"
      "out a 1\n"
      "calls wake\n" },
    { "to-client/bytes-are-a-budget",
      "open\n" "start\n" "add a send=9 ring=9 ringbytes=100\n" "stuck a 1\n"
      "send 60\n" "may 41 -> 0\n"
      "out a 1\n" "calls wake send:a:60 wake\n"
      "send 60\n" "send 40 -> 1\n" "may 1 -> 0\n" },
    { "to-client/nothing-taken-without-reason",
      "open\n" "start\n" "add a send=0\n" "may 5 -> 0\n"
      "grant a 1\n" "calls wake wake\n" "grant a 1\n" "calls\n" },
    { "to-client/no-client-is-discarded",
      "open\n" "start\n"
      "send 10 -> 1\n"
      "events discard/0/10\n"
      "expect discarded=1 taken=1 waits=0\n"
      "stream 600 -> 512\n" },
    { "to-client/client-without-flow-control",
      "open raw\n" "start\n" "add a raw ring=2\n"
      "send 5 -> 1\n" "stuck a 1\n" "send 5\n" "send 5\n" "send 5 -> 0\n"
      "out a 1\n" "send 5 -> 1\n" },
    { "D14/limit-is-asked-for-each-message",
      "open\n" "start\n"
      "send 1 -> 1\n" "send 1 -> 1\n"
      "add a send=1\n"
      "send 1 -> 1\n" "send 1 -> 0\n"
      "in wake: send 2\n"
      "set a 1\n"
      "expect a send=0 got=3\n" },
    { "D14/tokens-go-while-sending",
      "open\n" "start\n" "add a send=3\n"
      "in send: set a 0\n"
      "send 1 -> 1\n" "send 1 -> 0\n" },
    { "to-client/several-share",
      "open\n" "start\n" "add a send=2\n" "add b send=2\n"
      "send 10 -> 1\n"
      "calls wake send:b:10 send:a:10\n"
      "expect a got=10\n" "expect b got=10\n" "expect taken=1\n" },
    { "to-client/one-without-tokens-gets-it-later",
      "open\n" "start\n" "add a send=0\n" "add b send=3\n"
      "send 10 -> 1\n"
      "events to-client-send/2/10 to-client-done/2/10 to-client-queue/1/10 "
      "stall/0/1\n"
      "expect a ring=1 flying=0\n"
      "grant a 1\n"
      "events send-tokens/1/1 to-client-send/1/10 to-client-done/1/10 "
      "stall/0/0\n"
      "expect a ring=0 got=10 send=0\n" },
    { "to-client/order-is-kept",
      "open\n" "start\n" "add a send=0\n" "add b send=9\n"
      "send 1\n" "send 2\n" "send 3\n"
      "grant a 2\n" "expect a got=3 ring=1\n"
      "send 4\n" "expect a ring=2 flying=0\n"
      "grant a 9\n" "expect a got=10\n" },
    { "to-client/over-budget-goes",
      "open\n" "start\n" "add a send=0 ring=2\n" "add b send=9\n"
      "send 1\n" "send 1\n" "send 1\n"
      "calls wake send:b:1 clock:1 send:b:1 send:b:1 remove:a:2 clock:0\n"
      "expect live=1 stalls=1\n"
      "send 1 -> 1\n" },
    { "to-client/lone-client-is-never-removed",
      "open timeout=10\n" "start\n" "add a send=0 ring=1\n"
      "send 1 -> 0\n" "tick 1000 -> -1\n" "tick 1000 -> -1\n"
      "expect live=1\n" "expect a dead=0\n" },
    { "to-client/to-one-alone",
      "open\n" "start\n" "add a send=1 ring=2\n" "add b send=1\n"
      "mayto a 5 -> 1\n" "sendto a 5\n" "expect a got=5\n" "expect b got=0\n"
      "sendto a 6\n" "expect a ring=1\n"
      "mayto a 5 -> 1\n" "sendto a 7\n" "mayto a 5 -> 0\n"
      "expect waits=1\n"
      "grant a 1\n" "expect waits=0\n" "expect a got=11\n" },
    { "to-client/to-one-alone-over-budget",
      "open\n" "start\n" "add a send=0 ring=1\n"
      "sendto a 5\n" "sendto a 5\n"
      "events client-kick/1/2 client-remove/1/0\n" "expect live=0\n" },
    { "to-client/to-one-who-was-told-to-go",
      "open\n" "start\n" "add a window=0\n" "owner later\n" "begin a -> 0\n"
      "mayto a 5 -> 1\n" "sendto a 5\n" "events discard/0/5\n" },
    { "to-client/one-alone-that-leaves",
      "open\n" "start\n" "add a send=0 ring=1\n" "sendto a 1\n"
      "mayto a 1 -> 0\n" "remove a\n"
      "expect waits=0\n" },
    { "to-client/one-alone-that-leaves-while-stopped",
      "open\n" "add a send=0 ring=1\n" "mayto a 1 -> 0\n"
      "remove a\n" "expect waits=1\n" "start\n" "expect waits=0\n" },
    { "to-client/larger-than-the-budget",
      "open max=200\n" "start\n" "add a send=9 ringbytes=50\n"
      "send 200 -> 1\n" "stuck a 1\n" "send 200 -> 1\n" "send 1 -> 0\n" },
    { "stream/cut-into-messages",
      "open raw max=100\n" "start\n" "add a raw ring=9 ringbytes=1000\n"
      "stream 250 -> 250\n"
      "calls wake send:a:100 send:a:100 send:a:50\n" },
    { "stream/as-much-as-fits",
      "open raw max=100\n" "start\n" "add a raw ring=9 ringbytes=150\n"
      "stuck a 1\n"
      "stream 250 -> 150\n"
      "expect waits=1\n"
      "out a 1\n"               /* a wake is worth it when all is free */
      "expect waits=1\n"
      "out a 1\n"
      "expect waits=0\n" },
    { "stream/no-slot",
      "open raw max=10\n" "start\n" "add a raw ring=2 ringbytes=100\n"
      "stuck a 1\n" "stream 50 -> 20\n" "out a 2\n" "expect waits=0\n" },
    { "stream/not-while-stopped",
      "open raw\n" "add a raw\n" "stream 5 -> 0\n" "expect waits=1\n"
      "start\n" "expect waits=0\n" "stream 5 -> 5\n" },
    { "stream/not-from-inside-send",
      "open raw\n" "start\n" "add a raw\n" "in send: stream 5\n"
      "stream 7 -> 7\n" "expect a got=7\n" "expect waits=0\n" },
    { "stream/someone-else-has-room",
      "open raw max=100\n" "start\n" "add a raw ringbytes=20\n"
      "add b raw ringbytes=300 ring=9\n" "stuck a 1\n"
      "stream 50 -> 50\n" "expect a ringbytes=50\n"
      "stream 5 -> 5\n" "expect live=1\n" },

    /*
     * Send tokens
     */
    { "send-tokens/add-and-set",
      "open\n" "start\n" "add a send=1\n"
      "grant a 4\n" "expect a send=5\n" "set a 2\n" "expect a send=2\n"
      "set a 0\n" "expect a send=0\n" },
    { "send-tokens/overflow",
      "open\n" "start\n" "add a send=1\n"
      "grant a 4294967295\n" "expect a send=4294967295\n"
      "grant a 4294967295\n" "expect a send=4294967295\n"
      "send 1\n" "expect a send=4294967294\n" },
    { "send-tokens/of-one-who-was-told-to-go",
      "open\n" "start\n" "add a window=0 send=0\n" "owner later\n" "begin a\n"
      "grant a 4\n" "set a 4\n" "expect a send=0\n" },

    /*
     * Stalled clients
     */
    { "D13/no-tokens-is-removed-in-time",
      "open timeout=1000\n" "start\n" "add a send=0\n" "add b send=9\n"
      "send 1\n"
      "calls wake send:b:1 clock:1\n"
      "expect a waits=0\n"
      "tick 100 -> 350\n" "expect a waits=1\n"
      "tick 900 -> 1100\n" "tick 99\n" "expect a dead=0\n"
      "tick 1 -> -1\n"
      "calls remove:a:1 clock:0\n"
      "expect live=1 stalls=1\n" },
    { "D13/full-socket-is-removed-in-time",
      "open timeout=1000\n" "start\n" "add a send=9\n" "add b send=9\n"
      "stuck a 1\n" "send 1\n" "tick 1\n" "tick 999\n" "expect live=2\n"
      "tick 1\n" "expect live=1\n" },
    { "D13/progress-starts-the-clock-anew",
      "open timeout=1000\n" "start\n" "add a send=9\n" "add b send=9\n"
      "stuck a 1\n" "send 1\n" "send 1\n" "tick 1\n" "tick 900\n"
      "out a 1\n" "expect a waits=0\n"
      "tick 900\n" "tick 900\n" "expect live=2\n"
      "out a 1\n" "tick 5000 -> -1\n" "expect live=2\n" },
    { "D13/not-for-the-time-alone",
      "open timeout=1000\n" "start\n" "add a send=0\n" "add b send=9\n"
      "send 1\n" "tick 1\n" "tick 900\n" "remove b\n"
      "tick 5000 -> -1\n" "expect a waits=0\n"
      "add c send=9\n" "tick 5000\n" "expect a dead=0\n"
      "tick 1000\n" "expect live=1\n" },
    { "D13/both",
      "open timeout=1000\n" "start\n" "add a send=0\n" "add b send=0\n"
      "add c send=1\n" "send 1\n" "remove c\n" "tick 1\n" "tick 1000\n"
      "expect live=1\n"         /* who is left alone may stay */
      "expect a dead=0\n" },
    { "D13/who-is-left-alone-stays-even-without-patience",
      "open timeout=0\n" "start\n" "add a send=0\n" "add b send=0\n"
      "add c send=1\n" "in send: remove c\n" "in clock: tick 0\n" "send 1\n"
      "expect live=1\n" },
    { "D13/wakes-a-guest-that-waited-for-it",
      "open timeout=1000\n" "start\n" "add a send=0\n" "add b send=1\n"
      "send 1\n" "stuck b 1\n" "set b 1\n" "send 1\n" "may 1 -> 0\n"
      "tick 1\n" "tick 1000\n"
      "expect live=1\n" },
    { "stall/stands-still-while-stopped",
      "open timeout=1000\n" "start\n" "add a send=0\n" "add b send=9\n"
      "send 1\n" "tick 1\n" "tick 500\n" "stop\n"
      "calls wake send:b:1 clock:1 clock:0\n"
      "tick 5000 -> -1\n"
      "start\n"
      "calls wake clock:1\n"
      "tick 400\n" "expect live=2\n" "tick 100\n" "expect live=1\n" },
    { "stall/timeout-0",
      "open timeout=0\n" "start\n" "add a send=0\n" "add b send=9\n"
      "send 1\n" "tick 0\n" "expect live=1\n" },
    { "stall/no-one-stalls",
      "open\n" "tick 5 -> -1\n" "start\n" "tick 5 -> -1\n" },

    /*
     * Start, stop, reset
     */
    { "stop/nothing-is-written",
      "open\n" "add a\n" "write a 5\n" "server 3\n" "ready\n"
      "calls\n" "expect queue=2 guest=0 running=0\n"
      "start\n"
      "calls write:3=3 self write:5=5 give:a:1 wake\n"
      "expect running=1\n"
      "stop\n"
      "events stop/0/0\n"
      "write a 5\n" "takes 5\n"
      "calls\n"
      "start\n" "start\n" "expect guest=13\n" },
    { "stop/nothing-is-taken",
      "open\n" "add a send=9\n" "may 1 -> 0\n" "send 1 -> 0\n"
      "mayto a 1 -> 0\n"
      "expect waits=1 taken=0\n"
      "start\n" "calls wake\n" "expect waits=0\n" },
    { "stop/nothing-is-discarded",
      "open\n" "send 1 -> 0\n" "expect discarded=0\n" },
    { "stop/sockets-are-served-within-the-window",
      "open\n" "add a window=2\n"
      "write a 1 -> 1\n" "write a 1 -> 1\n" "begin a -> 0\n"
      "expect violations=1\n" },
    { "stop/what-waits-may-go-to-clients",
      "open\n" "start\n" "add a send=0\n" "add b send=1\n" "send 3\n" "stop\n"
      "grant a 1\n" "expect a got=3\n" },
    { "stop/twice",
      "open\n" "stop\n" "calls\n" "start\n" "stop\n" "stop\n" "events\n" },
    { "reset/drops-both-directions",
      "open self=2\n" "start\n" "add a window=4 interval=3 send=1\n"
      "add b send=9\n" "guest 1\n"
      "write a 5 more\n" "write b 6\n" "server 7\n" "send 3\n" "send 4\n"
      "expect a ring=1 flying=0\n"
      "reset\n"
      "events reset/0/4 self-token/0/2 stall/0/0\n"
      "expect queue=0 bytes=0 dropped=4 turn=0 self=2\n"
      "expect a tokens=4 due=0 held=0 ring=0\n"
      "expect b tokens=4 due=0\n"
      "takes 100\n" "expect guest=1\n" },
    { "reset/what-is-on-its-way-goes-on",
      "open\n" "start\n" "add a send=1\n" "add b send=9\n" "stuck a 1\n"
      "send 1\n" "send 2\n" "expect a ring=2 flying=1\n"
      "reset\n" "expect a ring=1 flying=1\n" "out a 1\n"
      "expect a got=1 ring=0\n" },
    { "reset/orphans-go-too",
      "open\n" "start\n" "add a\n" "guest 1\n" "write a 5 more\n" "write a 5\n"
      "remove a -> 0\n" "expect queue=2\n" "reset\n" "expect queue=0\n" },
    { "reset/ends-a-tear",
      "open\n" "start\n" "owner silent\n" "add a\n" "add b\n" "write a 1 more\n"
      "remove a -> 1\n" "write b 1\n" "expect torn=1 queue=1\n"
      "reset\n" "expect torn=0\n" "write b 1\n" "expect queue=0\n" },
    { "reset/room",
      "open raw\n" "start\n" "add a raw bytes=10 messages=1\n" "guest 0\n"
      "write a 10\n" "room a -> 0\n" "calls wake write:10=0\n"
      "reset\n" "calls room:a\n" "room a -> 10\n" },
    { "reset/one-who-was-told-to-go",
      "open\n" "start\n" "add a window=0\n" "owner later\n" "begin a\n"
      "reset\n" "expect a tokens=0 dead=1\n" },
    { "D12/half-received-message-costs-nothing",
      "open\n" "start\n" "add a window=2 interval=2\n" "guest 0\n"
      "begin a\n" "expect a tokens=1 receiving=1\n"
      "reset\n"
      "expect a tokens=2 receiving=0 due=0\n"
      "body a 10 -> 1\n"
      "expect a tokens=2 due=0 held=0\n" "expect queue=0\n"
      "write a 1 -> 1\n" "write a 1 -> 1\n"
      "expect a tokens=0 held=2 dead=0\n" },
    { "D12/half-received-message-that-is-cancelled",
      "open\n" "start\n" "add a window=2\n" "begin a\n" "reset\n" "reset\n"
      "begin a -> 0\n" "cancel a\n" "expect a tokens=2 due=0\n"
      "begin a -> 1\n" },
    { "D12/half-received-message-too-large",
      "open max=10\n" "start\n" "add a window=2\n" "begin a\n" "reset\n"
      "body a 11 -> 1\n" "expect a tokens=2 due=0\n" },

    /*
     * Wakeups and callbacks that call back
     */
    { "D24/ready-inside-a-write-that-took-nothing",
      "open\n" "start\n" "add a\n" "guest 0\n"
      "in write: takes 10\n"
      "write a 10\n"
      "calls wake write:10=0 write:10=10\n"
      "expect queue=0\n" },
    { "D24/ready-inside-a-write-that-took-some",
      "open\n" "start\n" "add a\n" "guest 3\n"
      "in write: takes 3\n"
      "write a 10\n"
      "expect bytes=4\n" },
    { "inside/write-from-write",
      "open\n" "start\n" "add a\n" "add b\n"
      "in write: write b 4\n"
      "write a 3\n"
      "calls wake write:3=3 write:4=4\n" },
    { "inside/stop-from-write",
      "open\n" "start\n" "add a\n" "guest 100 chunk=4\n"
      "in write: stop\n"
      "write a 10\n"
      "expect guest=4 bytes=6 running=0\n"
      "start\n" "expect guest=10\n" },
    { "inside/stop-and-start-from-write",
      "open\n" "start\n" "add a\n" "guest 100 chunk=4\n"
      "in write: stop\n" "in write: start\n"
      "write a 10\n" "expect guest=4\n" "start\n"
      "expect guest=10\n" },
    { "inside/ready-and-stop-from-write",
      "open\n" "start\n" "add a\n" "guest 5 chunk=4\n" "in write: ready\n"
      "in write: stop\n" "write a 10\n" "calls wake write:10=4 write:6=1\n"
      "expect guest=5\n" "start\n" },
    { "inside/stop-from-give-after-ready",
      "open\n" "start\n" "add a interval=1\n" "in write: ready\n"
      "in give: stop\n" "write a 10\n" "expect running=0 queue=0\n" },
    { "inside/may-send-to-one-from-send",
      "open\n" "start\n" "add a send=9\n" "in send: mayto a 1\n"
      "send 5 -> 1\n" "calls wake send:a:5 wake\n" },
    { "inside/stream-beside-a-flush",
      "open\n" "start\n" "add a send=0\n" "add b send=9\n" "send 1\n"
      "in send: stream 5\n" "grant a 3\n"
      "expect a got=6\n" "expect b got=6\n" },
    { "inside/stop-from-start",
      "open\n" "add a\n" "write a 3\n" "in write: stop\n" "start\n"
      "calls write:3=3 give:a:1\n" "expect running=0\n" },
    { "inside/remove-from-write-framed",
      "open\n" "start\n" "add a\n" "guest 100 chunk=4\n" "in write: remove a\n"
      "write a 10\n" "expect guest=10 queue=0 live=0\n" },
    { "inside/remove-from-write-raw",
      "open raw\n" "start\n" "add a raw\n" "guest 100 chunk=4\n"
      "in write: remove a\n" "write a 10\n"
      "expect guest=4 queue=0 live=0 dropped=1\n" },
    { "inside/reset-from-write",
      "open self=1\n" "start\n" "add a\n" "guest 100 chunk=4\n"
      "in write: reset\n" "write a 10\n"
      "expect guest=4 queue=0\n" "expect a tokens=4 due=0\n" },
    { "inside/reset-from-send-of-an-older-message",
      "open raw max=1\n" "start\n" "add a send=0\n" "add b raw\n"
      "in send: stream 3\n" "in send: sendto a 1\n" "in send: grant a 9\n"
      "in send: reset\n" "stream 5 -> 5\n"
      "expect a got=4\n" "expect b got=5\n" },
    { "inside/resets-of-two-streams-in-one-another",
      "open\n" "in send: reset\n" "start\n"
      "add a send=15\n" "add b send=0 ringbytes=4\n"
      "in send: stream 5\n" "in send: grant a 4\n" "in send: reset\n"
      "send 23\n"
      "in send: stream 27\n" "in send: reset\n" "grant b 4\n"
      "sendto a 1\n" },
    { "inside/close-from-write",
      "open\n" "start\n" "add a\n" "in write: close\n" "write a 10\n"
      "open\n" "start\n" "add a\n" "in write: close\n" "server 10\n" },
    { "inside/close-from-everywhere",
      "open\n" "in wake: close\n" "start\n"
      "open\n" "start\n" "add a send=1\n" "in send: close\n" "send 5\n"
      "open\n" "start\n" "add a send=1\n" "stuck a 1\n" "send 5\n" "close\n"
      "open\n" "start\n" "add a interval=1\n" "in give: close\n" "write a 5\n"
      "open\n" "start\n" "add a interval=3\n" "in give: close\n" "write a 5\n"
      "settle\n"
      "open\n" "start\n" "in self: close\n" "server 5\n"
      "open\n" "start\n" "in self: close\n" "guest 0\n" "server 5\n" "reset\n"
      "open\n" "start\n" "add a window=0\n" "in remove: close\n" "begin a\n"
      "open\n" "start\n" "add a send=0\n" "add b send=9\n" "in clock: close\n"
      "send 1\n"
      "open timeout=5\n" "start\n" "add a\n" "add b\n" "write a 1 more\n"
      "write b 1\n" "tick 1\n" "in lost: close\n" "tick 9\n"
      "open raw\n" "start\n" "add a raw bytes=4 messages=1\n" "guest 0\n"
      "write a 4\n" "room a\n" "in room: close\n" "takes 4\n"
      "open timeout=5\n" "start\n" "add a send=0\n" "add b send=9\n"
      "add c send=0\n" "send 1\n" "tick 1\n" "in remove: close\n" "tick 9\n" },
    { "inside/remove-others-from-send",
      "open\n" "start\n" "add a send=9\n" "add b send=9\n" "add c send=9\n"
      "in send: remove b\n"
      "send 5\n"
      "expect a got=5\n" "expect c got=5\n" "expect live=2\n" },
    { "inside/remove-itself-from-send",
      "open\n" "start\n" "add a send=9\n" "add b send=9\n"
      "in send: remove b\n" "send 5 -> 1\n"
      "expect a got=5\n" "expect live=1\n"
      "stuck a 1\n" "in send: remove a\n" "send 5 -> 1\n"
      "expect live=0\n" },
    { "inside/tokens-from-send",
      "open\n" "start\n" "add a send=0\n" "add b send=9\n" "send 1\n" "send 2\n"
      "in send: grant a 1\n" "grant a 1\n" "expect a got=3 send=0\n" },
    { "inside/send-from-send-is-refused",
      "open\n" "start\n" "add a send=9\n"
      "in send: send 7\n" "send 5 -> 1\n"
      "calls wake send:a:5 wake\n" "expect a got=5\n" },
    { "inside/sent-from-send",
      "open\n" "start\n" "add a send=9\n" "stuck a 1\n" "send 5\n"
      "in send: out a 1\n" "send 6\n" "expect a got=5 ring=1\n" },
    { "inside/send-to-one-while-flushing",
      "open\n" "start\n" "add a send=0\n" "sendto a 1\n"
      "in send: sendto a 2\n" "grant a 1\n"
      "expect a got=1 ring=1\n" "grant a 1\n" "expect a got=3\n" },
    { "inside/flushing-one-takes-nothing",
      "open\n" "start\n" "add a send=0\n" "sendto a 1\n"
      "in send: may 1\n" "grant a 2\n" "calls wake send:a:1 wake\n" },
    { "inside/kick-and-remove-in-the-loop",
      "open\n" "start\n" "add a send=9\n" "add b send=0 ring=1\n"
      "add c send=9\n" "send 1\n" "send 1\n"
      "expect a got=2\n" "expect c got=2\n" "expect live=2\n" },
    { "inside/refused-in-wake-and-then-room",
      "open\n" "start\n" "add a send=1\n" "send 1\n" "may 1 -> 0\n"
      "in wake: send 1\n" "in send: may 1\n"
      "grant a 1\n"
      "calls wake send:a:1 wake send:a:1\n"
      "expect waits=1\n"
      "in wake: stop\n" "grant a 2\n" "expect waits=0 running=0\n" },
    { "inside/clock-after-wake",
      "open\n" "start\n" "add a send=0\n" "add b send=0\n" "may 1 -> 0\n"
      "in wake: send 1\n"
      "grant b 1\n"
      "calls wake wake send:b:1 clock:1\n" },
    { "inside/tick-after-stop",
      "open timeout=4\n" "start\n" "add a send=9\n" "add b send=9\n"
      "stuck a 1\n" "send 1\n" "tick 1\n"
      "in send: stop\n" "in send: tick 99\n" "send 1\n"
      "expect live=2 running=0\n" "move 0\n" },
    { "inside/wake-after-clock",
      "open\n" "start\n" "add a send=0 ring=1\n" "add b send=1\n"
      "in clock: remove b\n"
      "send 1\n" "expect live=1\n" },
    { "inside/add-from-wake",
      "open\n" "start\n" "add a send=1\n" "send 1\n" "may 1 -> 0\n"
      "in wake: add b send=1\n"
      "grant a 1\n" "expect live=2\n" },
    { "inside/remove-from-give",
      "open\n" "start\n" "add a\n" "add b\n" "write a 1\n" "write b 1\n"
      "in give: remove a\n" "settle\n"
      "expect live=1\n" "expect b due=0\n" },
    { "inside/settle-and-close-when-all-is-done",
      "open\n" "start\n" "add a\n" "close\n" "close\n" },

    /*
     * Saved and restored
     */
    { "move/idle",
      "open\n" "start\n" "add a\n" "move\n" "expect a away=1 tokens=4\n"
      "expect running=0 live=1\n"
      "resume a -> 1\n" "expect a away=0\n" "resume a -> 0\n"
      "start\n" "write a 3\n" "expect guest=3\n" },
    { "move/queue-to-the-guest",
      "open self=2\n" "start\n" "add a\n" "add b\n" "guest 3\n"
      "write a 10 more\n" "write b 6\n" "server 5\n" "unpaid 1\n"
      "write a 4\n" "begin b\n"
      "move\n"
      "expect queue=5 bytes=25 self=1 turn=1\n"
      "expect a held=2 tokens=2\n" "expect b held=1 tokens=2 receiving=1\n"
      "resume a\n" "resume b\n" "body b 2\n"
      "guest 100\n" "start\n"
      "calls wake write:10=3 write:7=0 write:7=0 write:7=0 write:7=0 write:7=0 "
      "write:7=7 write:5=5 self write:3=3 write:4=4 give:a:2 write:6=6 "
      "write:2=2 give:b:2 wake\n" },
    { "move/orphans-and-tear",
      "open\n" "start\n" "owner silent\n" "add a\n" "add b\n" "guest 1\n"
      "write a 5 more\n" "write a 5\n" "remove a -> 0\n" "move\n"
      "expect queue=2\n" "takes 100\n" "start\n" "expect guest=10\n"
      "resume b\n" "add a\n" "write a 1 more\n" "remove a -> 1\n" "write b 1\n"
      "move\n" "expect torn=1 queue=1\n" "resume b\n" "start\n" "ready\n"
      "expect queue=1\n" "unpaid 0\n" "expect queue=0\n" },
    { "move/on-their-way-to-the-client",
      "open\n" "start\n" "add a send=3\n" "stuck a 1\n"
      "send 1\n" "send 2\n" "send 3\n"
      "move 1\n"
      "expect a ring=3 flying=3 got=1\n"
      "stuck a 0\n" "resume a -> 1\n"
      "events to-client-done/1/1 client-resume/1/2 to-client-send/1/2 "
      "to-client-done/1/2 to-client-send/1/3 to-client-done/1/3\n"
      "expect a ring=0 got=6 send=0\n" },
    { "move/waiting-for-tokens",
      "open\n" "start\n" "add a send=1\n" "add b send=9\n" "stuck a 1\n"
      "send 1\n" "send 2\n" "move\n" "stuck a 0\n" "resume a\n"
      "expect a got=1 ring=1\n" "grant a 1\n" "expect a got=3\n" },
    { "move/more-delivered-than-there-were",
      "open\n" "start\n" "add a send=3\n" "stuck a 1\n" "send 1\n" "move\n"
      "resume a 2 -> 0\n" "expect a away=1\n" "resume a -> 1\n" },
    { "move/without-flow-control",
      "open raw\n" "start\n" "add a raw\n" "stuck a 1\n" "send 3\n"
      "guest 1\n" "write a 3\n" "room a\n" "move 0\n" "expect a bytes=2\n"
      "resume a\n" "takes 3\n" "start\n" "out a 9\n"
      "expect guest=3\n" "expect a got=3\n" },
    { "move/tokens-stay-due-while-away",
      "open\n" "start\n" "add a window=4 interval=2\n" "guest 0\n"
      "write a 1\n" "write a 1\n" "write a 1\n" "move\n" "guest 100\n"
      "start\n"
      "expect a due=3 tokens=1 held=0\n"
      "resume a\n"
      "events client-resume/1/0 token-give/1/3\n"
      "expect a due=0 tokens=4\n" },
    { "move/a-lump-is-due-while-away",
      "open\n" "start\n" "add a window=4 interval=2\n" "guest 0\n"
      "write a 1\n" "write a 1\n" "write a 1\n" "move\n" "guest 2\n" "start\n"
      "expect a due=2 tokens=1 held=1\n" "resume a\n"
      "expect a due=0 tokens=3\n" },
    { "move/away-takes-nothing",
      "open\n" "start\n" "add a send=9\n" "move\n" "start\n"
      "may 1 -> 0\n" "resume a\n" "calls wake wake wake\n" "may 1 -> 1\n" },
    { "move/others-go-on",
      "open timeout=100\n" "start\n" "add a send=9 ring=2\n" "add b send=9\n"
      "move\n" "resume b\n" "start\n" "send 1\n" "tick 1000\n" "tick 1000\n"
      "expect a ring=1 dead=0\n"
      "send 1\n" "send 1\n"
      "expect a dead=1\n" "resume a -> 0\n" "remove a -> 0\n" },
    { "move/stall-clock",
      "open timeout=1000\n" "start\n" "add a send=0\n" "add b send=9\n"
      "send 1\n" "tick 1000\n" "tick 600\n" "move\n" "expect a waits=1\n"
      "resume a\n" "resume b\n" "start\n" "tick 300\n" "expect live=2\n"
      "tick 100\n" "expect live=1\n" },
    { "move/turn-clock",
      "open timeout=1000\n" "start\n" "add a\n" "add b\n" "write a 1 more\n"
      "write b 1\n" "tick 1000\n" "tick 600\n" "move\n"
      "start\n" "tick 5000 -> -1\n" "expect turn=1\n"
      "resume a\n" "resume b\n" "tick 1\n" "expect turn=0\n" },
    { "move/one-told-to-go-stays-behind",
      "open\n" "start\n" "add a window=0\n" "add b\n" "owner later\n"
      "begin a\n" "move\n" "expect live=1\n" },
    { "move/half-received-of-before-a-reset",
      "open\n" "start\n" "add a window=2\n" "begin a\n" "reset\n" "move\n"
      "resume a\n" "start\n" "body a 5 -> 1\n" "expect a tokens=2 held=0\n" },
    { "move/the-whole-window-again-after-a-reset-without-tokens",
      "open raw\n" "start\n" "add a raw\n" "reset\n" "expect a tokens=0\n"
      "move\n" "return\n" },
    { "move/failed",
      "open\n" "start\n" "add a\n" "guest 3\n" "write a 10 more\n" "stop\n"
      "return\n" "write a 4\n" "guest 100\n" "start\n" "expect guest=14\n" },
    { "move/twice",
      "open\n" "start\n" "add a send=9\n" "stuck a 1\n" "send 3\n" "send 4\n"
      "move 1\n" "move 0\n" "stuck a 0\n" "resume a -> 1\n"
      "expect a got=7\n" },
    { "snapshot/loads-many-times",
      "open\n" "start\n" "add a\n" "guest 0\n" "write a 5\n" "snap\n"
      "guest 100\n" "ready\n" "expect queue=0\n"
      "revert\n" "expect queue=1\n" "expect a away=1\n"
      "start\n" "expect queue=0\n" "revert\n" "expect queue=1\n"
      "resume a\n" "start\n" "write a 1\n" },
    { "snapshot/forgets-who-is-there",
      "open\n" "start\n" "snap\n" "add a\n" "write a 1 more\n" "guest 0\n"
      "write a 4\n" "revert\n" "expect live=0 queue=0 turn=0\n" },
};

#endif
