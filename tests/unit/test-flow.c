/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flow-control machine, script by script.  flow-step.c has the language;
 * every step is also done to the reference model and compared, so a script
 * only states what matters to it.
 */
#include "flow-play.h"
#include "../../chardev/spiceflow/core/flow-priv.h"

#include <string.h>

typedef struct Script {
    const char *name;
    const char *text;
} Script;

static const Script scripts[] = {
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

static void test_script(gconstpointer data)
{
    const Script *script = data;
    FlowPlay *play = flow_play_new();
    const char *error = flow_play_script(play, script->text);

    if (error) {
        g_test_message("%s", error);
        g_test_fail();
    }
    flow_play_free(play);
}

/* What is printed of a step is the step, and so are its bytes. */
static void test_language(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(scripts); i++) {
        g_auto(GStrv) lines = g_strsplit(scripts[i].text, "\n", -1);

        for (guint j = 0; lines[j]; j++) {
            g_autoptr(GByteArray) bytes = g_byte_array_new();
            g_autofree char *line = NULL;
            FlowStep step, again;

            if (!flow_step_parse(&step, lines[j])) {
                continue;
            }
            line = flow_step_print(&step);
            g_assert_true(flow_step_parse(&again, line));
            g_assert_cmpmem(&step, sizeof(step), &again, sizeof(again));
            flow_step_encode(bytes, &step);
            g_assert_cmpuint(flow_step_decode(&again, bytes->data, bytes->len),
                             ==, bytes->len);
            g_assert_cmpuint(again.op, ==, step.op);
            g_assert_cmpuint(again.in, ==, step.in);
            g_assert_cmpuint(again.who, ==, MAX(step.who, 1));
        }
    }
}

/*
 * What scripts do not reach
 */

static const SpiceFlowParams plain_params = {
    .framing = SPICE_FLOW_FRAMED,
    .self_tokens = 2,
    .max_message = 64 * 1024,
    .stall_timeout = 100,
};

static const SpiceFlowClientParams plain_client = {
    .id = 7,
    .flow_control = true,
    .window = 8,
    .interval = 4,
    .send_tokens = 8,
    .to_client_bytes = 256 * 1024,
    .to_client_messages = 64,
};

static ssize_t write_all(void *opaque, const uint8_t *data, size_t len)
{
    (void)data;
    *(size_t *)opaque += len;
    return len;
}

static ssize_t write_none(void *opaque, const uint8_t *data, size_t len)
{
    (void)opaque;
    (void)data;
    (void)len;
    return 0;
}

static bool send_all(void *opaque, SpiceFlowMessage *msg)
{
    (void)opaque;
    (void)msg;
    return true;
}

static bool send_keeps(void *opaque, SpiceFlowMessage *msg)
{
    g_queue_push_tail(opaque, spice_flow_message_keep(msg));
    return false;
}

/* All but write and send can be left out. */
static void test_ops_left_out(void)
{
    static const SpiceFlowOps ops = { .write = write_all, .send = send_all };
    SpiceFlowClientParams params = plain_client;
    SpiceFlowBuffer part = { .data = "part", .len = 4, .more = true };
    SpiceFlowBuffer end = { .data = "end", .len = 3 };
    SpiceFlowClient *a, *b, *raw;
    size_t bytes = 0;
    SpiceFlow *flow = spice_flow_new(&ops, &bytes, &plain_params);

    params.interval = 1;
    g_assert_false(spice_flow_may_send(flow, 1));
    spice_flow_start(flow, 0);
    a = spice_flow_client_add(flow, &params, NULL);
    params.id = 8;
    params.send_tokens = 0;
    b = spice_flow_client_add(flow, &params, NULL);
    g_assert_true(spice_flow_client_find(flow, 8) == b);
    g_assert_null(spice_flow_client_find(flow, 9));
    params.id = 0;
    g_assert_null(spice_flow_client_add(flow, &params, NULL));
    params.id = 9;
    params.flow_control = false;
    params.to_guest_bytes = params.to_guest_messages = 1;
    raw = spice_flow_client_add(flow, &params, NULL);
    spice_flow_stop(flow, 0);
    g_assert_true(spice_flow_client_write(raw, &(SpiceFlowBuffer) {
        .data = "x", .len = 1 }));
    g_assert_cmpuint(spice_flow_client_room(raw), ==, 0);
    spice_flow_start(flow, 0);
    g_assert_cmpuint(spice_flow_client_room(raw), ==, 1);

    g_assert_true(spice_flow_client_begin(a));
    g_assert_true(spice_flow_client_write(a, &part));
    g_assert_true(spice_flow_client_begin(b));
    g_assert_true(spice_flow_client_write(b, &end));
    spice_flow_tick(flow, 1);
    spice_flow_tick(flow, 200);                 /* a loses its turn */
    g_assert_true(spice_flow_server_may_write(flow));
    g_assert_true(spice_flow_server_write(flow, &end));
    g_assert_cmpuint(bytes, ==, 8);             /* b still has to wait */
    spice_flow_server_write_unpaid(flow, &(SpiceFlowBuffer) {
        .data = "!", .len = 1 });
    g_assert_true(spice_flow_send(flow, "x", 1));
    spice_flow_tick(flow, 300);
    spice_flow_tick(flow, 500);                 /* b takes nothing */
    g_assert_false(spice_flow_client_begin(b));
    g_assert_cmpuint(bytes, ==, 12);
    g_assert_null(spice_flow_check(flow));
    spice_flow_client_remove(b);
    spice_flow_close(flow);
    spice_flow_close(NULL);
}

static void count_client(SpiceFlowClient *client, void *data)
{
    SpiceFlowClientInfo info;

    spice_flow_client_info(client, &info);
    *(unsigned *)data = *(unsigned *)data * 16 + info.id;
}

static void test_foreach(void)
{
    static const SpiceFlowOps ops = { .write = write_all, .send = send_all };
    SpiceFlowClientParams params = plain_client;
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    SpiceFlowClient *two;
    unsigned ids = 0;

    params.id = 1;
    spice_flow_client_add(flow, &params, NULL);
    params.id = 2;
    two = spice_flow_client_add(flow, &params, NULL);
    params.id = 3;
    spice_flow_client_add(flow, &params, NULL);
    spice_flow_client_foreach(flow, count_client, &ids);
    g_assert_cmphex(ids, ==, 0x321);
    spice_flow_client_remove(two);
    ids = 0;
    spice_flow_client_foreach(flow, count_client, &ids);
    g_assert_cmphex(ids, ==, 0x31);
    spice_flow_close(flow);
}

typedef struct Gone {
    SpiceFlow *flow;
    SpiceFlowClient *client;
    unsigned ids;
} Gone;

static void wake_removes(void *opaque)
{
    Gone *gone = opaque;

    if (gone->client) {
        spice_flow_client_remove(gone->client);
        gone->client = NULL;
    }
    spice_flow_client_foreach(gone->flow, count_client, &gone->ids);
    spice_flow_client_foreach(gone->flow, count_client, &gone->ids);
}

/* A client that is removed while a call is in progress is not seen again. */
static void test_foreach_inside(void)
{
    static const SpiceFlowOps ops = {
        .write = write_all, .send = send_all, .wake = wake_removes,
    };
    SpiceFlowClientParams params = plain_client;
    Gone gone = { NULL, NULL, 0 };
    SpiceFlow *flow = spice_flow_new(&ops, &gone, &plain_params);

    gone.flow = flow;
    gone.client = spice_flow_client_add(flow, &params, NULL);
    params.id = 5;
    spice_flow_client_add(flow, &params, NULL);
    spice_flow_start(flow, 0);
    g_assert_cmphex(gone.ids, ==, 0x55);
    spice_flow_close(flow);
}

static void test_names(void)
{
    for (int i = 0; i < SPICE_FLOW_EV__MAX; i++) {
        const char *name = spice_flow_event_name(i);

        g_assert_nonnull(name);
        g_assert_cmpstr(name, !=, "?");
        for (int j = 0; j < i; j++) {
            g_assert_cmpstr(name, !=, spice_flow_event_name(j));
        }
    }
    g_assert_cmpstr(spice_flow_event_name(SPICE_FLOW_EV__MAX), ==, "?");
    g_assert_cmpstr(spice_flow_reason_name(SPICE_FLOW_TOKEN_VIOLATION), ==,
                    "token violation");
    g_assert_cmpstr(spice_flow_reason_name(SPICE_FLOW_STALLED), ==, "stalled");
    g_assert_cmpstr(spice_flow_reason_name(SPICE_FLOW_OVERFLOW), ==,
                    "queue full");
    g_assert_cmpstr(spice_flow_reason_name(99), ==, "?");
}

static void write_size(SpiceFlowClient *client, size_t size)
{
    g_autofree uint8_t *bytes = g_malloc0(size);
    SpiceFlowBuffer buffer = { .data = bytes, .len = size };

    g_assert_true(spice_flow_client_begin(client));
    g_assert_true(spice_flow_client_write(client, &buffer));
}

/* Buffers are recycled, within a cap that shrinks when idle. */
static void test_pool(void)
{
    static SpiceFlowOps ops;
    SpiceFlowClientParams params = plain_client;
    SpiceFlowParams device = plain_params;
    SpiceFlowClient *client;
    SpiceFlowInfo info;
    size_t bytes = 0, before;
    SpiceFlow *flow;

    device.max_message = 1024 * 1024;
    params.window = 200;
    params.interval = 1;
    ops = (SpiceFlowOps) { .write = write_none, .send = send_all };
    flow = spice_flow_new(&ops, &bytes, &device);
    client = spice_flow_client_add(flow, &params, NULL);
    spice_flow_start(flow, 0);
    for (size_t size = 1; size <= 96 * 1024; size += 1 + size / 2) {
        write_size(client, size);
    }
    ops.write = write_all;
    spice_flow_guest_ready(flow);
    spice_flow_info(flow, &info);
    before = info.pool_bytes;
    g_assert_cmpuint(before, >, 100 * 1024);
    g_assert_cmpuint(before, <=, 2 * bytes + 4096);
    /* small traffic from here on: what is kept shrinks to that */
    for (int i = 0; i < 100; i++) {
        write_size(client, 100);
    }
    spice_flow_info(flow, &info);
    g_assert_cmpuint(info.pool_bytes, <, 1024);

    /* never above the cap, whatever the traffic */
    ops.write = write_none;
    for (int i = 0; i < 100; i++) {
        write_size(client, 64 * 1024);
    }
    ops.write = write_all;
    spice_flow_guest_ready(flow);
    spice_flow_info(flow, &info);
    g_assert_cmpuint(info.pool_bytes, <=, 4 * 1024 * 1024);
    g_assert_cmpuint(info.pool_bytes, >, 3 * 1024 * 1024);
    spice_flow_close(flow);
}

/* A ring grows as far as its budget and does not stay large. */
static void test_ring(void)
{
    static const SpiceFlowOps ops = { .write = write_all, .send = send_keeps };
    SpiceFlowClientParams params = plain_client;
    GQueue kept = G_QUEUE_INIT;
    SpiceFlowClient *client;
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    uint32_t sent = 0, got = 0;

    params.flow_control = false;
    client = spice_flow_client_add(flow, &params, &kept);
    spice_flow_start(flow, 0);
    for (int round = 1; round < 70; round++) {
        for (int i = 0; i < round && i < 60; i++) {
            g_assert_true(spice_flow_send(flow, &sent, sizeof(sent)));
            sent++;
        }
        for (int i = 0; i < round && i < 60; i++) {
            SpiceFlowMessage *msg = g_queue_pop_head(&kept);
            size_t len;
            const uint8_t *data = spice_flow_message_data(msg, &len);

            g_assert_cmpuint(len, ==, sizeof(got));
            g_assert_cmpint(memcmp(data, &got, len), ==, 0);
            got++;
            spice_flow_client_sent(client);
            spice_flow_message_unref(msg);
        }
        spice_flow_client_sent(client);         /* one too many: nothing */
    }
    spice_flow_close(flow);
}

/* Messages that are kept outlive the device. */
static void test_keep_beyond_close(void)
{
    static const SpiceFlowOps ops = { .write = write_all, .send = send_keeps };
    GQueue kept = G_QUEUE_INIT;
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    SpiceFlowMessage *msg;
    size_t len;

    spice_flow_client_add(flow, &plain_client, &kept);
    spice_flow_start(flow, 0);
    g_assert_true(spice_flow_send(flow, "one", 3));
    g_assert_true(spice_flow_send(flow, "three", 5));
    spice_flow_close(flow);
    msg = g_queue_pop_head(&kept);
    g_assert_cmpint(memcmp(spice_flow_message_data(msg, &len), "one", 3), ==,
                    0);
    spice_flow_message_unref(msg);
    msg = g_queue_pop_head(&kept);
    g_assert_cmpint(memcmp(spice_flow_message_data(msg, &len), "three", 5), ==,
                    0);
    g_assert_cmpuint(len, ==, 5);
    spice_flow_message_unref(msg);
}

/*
 * States that can not be: each is refused with the name of its field
 */

static SpiceFlow *restore_device(void)
{
    static const SpiceFlowOps ops = { .write = write_none, .send = send_keeps };

    return spice_flow_new(&ops, NULL, &plain_params);
}

/*
 * 7: flow control, window 8: two to the guest, one under way to it; 8: a
 * stream, one each way; and two of the server's own, one of them paid
 */
static void good_state(SpiceFlowSaved *saved)
{
    static SpiceFlowSavedClient clients[2];
    static SpiceFlowSavedBuffer buffers[7];
    static uint8_t data[70];

    memset(buffers, 0, sizeof(buffers));
    for (int i = 0; i < 7; i++) {
        buffers[i].size = 10;
    }
    buffers[0].place = SPICE_FLOW_AT_CURRENT;
    buffers[0].client = 7;
    buffers[0].price = 1;
    buffers[0].offset = 9;
    buffers[1].place = SPICE_FLOW_AT_SERVER;
    buffers[1].paid = 1;
    buffers[2].place = SPICE_FLOW_AT_SERVER;
    buffers[3].place = SPICE_FLOW_AT_CLIENT;
    buffers[3].client = 7;
    buffers[3].price = 1;
    buffers[4].place = SPICE_FLOW_AT_CLIENT;
    buffers[4].client = 8;
    buffers[5].place = SPICE_FLOW_AT_TO_CLIENT;
    buffers[5].client = 7;
    buffers[6].place = SPICE_FLOW_AT_TO_CLIENT;
    buffers[6].client = 8;
    clients[0] = (SpiceFlowSavedClient) {
        .params = plain_client, .tokens = 4, .due = 1, .send_tokens = 3,
        .in_flight = 1, .waited = 20, .receiving = 1,
    };
    clients[1] = (SpiceFlowSavedClient) {
        .params = { .id = 8, .to_guest_bytes = 10, .to_guest_messages = 1,
                    .to_client_bytes = 10, .to_client_messages = 1 },
        .waited = -1,
    };
    *saved = (SpiceFlowSaved) {
        .self_tokens = 1, .turn_waited = -1,
        .num_clients = 2, .clients = clients,
        .num_buffers = 7, .buffers = buffers,
        .data_size = sizeof(data), .data = data,
    };
}

static void refused(const SpiceFlowSaved *saved, const char *field)
{
    SpiceFlow *flow = restore_device();
    char *error = NULL;
    SpiceFlowInfo info;

    spice_flow_client_add(flow, &plain_client, NULL);
    if (spice_flow_restore(flow, saved, 1000, &error)) {
        g_test_message("%s was not refused", field);
        g_test_fail();
    } else if (!strstr(error, field)) {
        g_test_message("'%s' does not name %s", error, field);
        g_test_fail();
    }
    spice_flow_info(flow, &info);
    g_assert_cmpuint(info.clients, ==, 1);
    g_assert_cmpuint(info.to_guest_messages, ==, 0);
    g_free(error);
    spice_flow_close(flow);
}

static void test_restore_good(void)
{
    SpiceFlow *flow = restore_device();
    SpiceFlowSaved saved;
    SpiceFlowInfo info;
    char *error = NULL;

    good_state(&saved);
    spice_flow_client_add(flow, &plain_client, NULL);
    g_assert_true(spice_flow_restore(flow, &saved, 1000, &error));
    g_assert_null(error);
    g_assert_null(spice_flow_check(flow));
    spice_flow_info(flow, &info);
    g_assert_cmpuint(info.clients, ==, 2);
    g_assert_cmpuint(info.to_guest_messages, ==, 5);
    g_assert_cmpuint(info.to_guest_bytes, ==, 41);
    g_assert_cmpuint(info.to_guest_peak, ==, 41);
    g_assert_cmpuint(info.self_tokens, ==, 1);
    spice_flow_start(flow, 1000);
    g_assert_false(spice_flow_restore(flow, &saved, 1000, &error));
    g_assert_cmpstr(error, ==, "running");
    g_free(error);
    spice_flow_close(flow);
}

static void test_restore_bad(void)
{
    SpiceFlowSaved s;

#define BAD(field, change) \
    do { \
        good_state(&s); \
        change; \
        refused(&s, field); \
    } while (0)

    BAD("buffers[0].place", s.buffers[0].place = SPICE_FLOW_AT__MAX);
    BAD("buffers[3].place", s.buffers[3].place = SPICE_FLOW_AT_CURRENT);
    BAD("buffers[1].size", s.buffers[1].size = 0);
    BAD("buffers[1].size", s.buffers[1].size = 64 * 1024 + 1);
    BAD("buffers[0].offset", s.buffers[0].offset = 10);
    BAD("buffers[1].offset", s.buffers[1].offset = 1);
    BAD("buffers[3].client", s.buffers[3].client = 9);
    BAD("buffers[3].client", s.buffers[3].client = 0);
    BAD("buffers[6].client", s.buffers[6].client = 0);
    BAD("buffers[1].client", s.buffers[1].client = 7);
    BAD("buffers[1].client", (s.buffers[1].client = 7,
                              s.buffers[1].place = SPICE_FLOW_AT_ORPHAN));
    BAD("buffers[3].price", s.buffers[3].price = 0);
    BAD("buffers[3].price", s.buffers[3].price = 2);
    BAD("buffers[4].price", s.buffers[4].price = 1);
    BAD("buffers[5].price", s.buffers[5].price = 1);
    BAD("buffers[1].price", s.buffers[1].price = 1);
    BAD("buffers[3].paid", s.buffers[3].paid = 1);
    BAD("buffers[1].paid", s.buffers[1].paid = 2);
    BAD("buffers[0].paid", s.buffers[0].paid = 1);
    BAD("buffers[1].more", s.buffers[1].more = 1);
    BAD("buffers[5].more", s.buffers[5].more = 1);
    BAD("buffers[3].more", s.buffers[3].more = 2);
    BAD("data_size", s.data_size = 69);
    /* all buffers are the first client's, so that only the id is wrong */
    BAD("clients[1].id", (s.buffers[4].client = s.buffers[6].client = 7,
                          s.buffers[4].price = 1, s.clients[0].tokens = 3,
                          s.clients[1].params.id = 7));
    BAD("clients[1].id", (s.buffers[4].client = s.buffers[6].client = 7,
                          s.buffers[4].price = 1, s.clients[0].tokens = 3,
                          s.clients[1].params.id = 0));
    BAD("clients[0].interval", s.clients[0].params.interval = 0);
    BAD("clients[0].receiving", s.clients[0].receiving = 3);
    BAD("clients[1].receiving", s.clients[1].receiving = 1);
    BAD("clients[0].tokens", s.clients[0].tokens = 3);
    BAD("clients[0].tokens", s.clients[0].due = UINT32_MAX);
    BAD("clients[0].tokens", s.clients[0].receiving = 0);
    BAD("clients[1].tokens", s.clients[1].tokens = 1);
    BAD("clients[1].tokens", s.clients[1].due = 1);
    BAD("clients[1].to_guest_bytes", s.clients[1].params.to_guest_bytes = 9);
    BAD("clients[1].to_guest_bytes", s.clients[1].params.to_guest_messages = 0);
    BAD("clients[1].to_client_bytes",
        s.clients[1].params.to_client_messages = 0);
    BAD("clients[1].to_client_bytes",
        (s.clients[1].params.to_client_messages = 2,
         s.buffers[5].client = 8, s.clients[0].in_flight = 0));
    BAD("clients[0].in_flight", s.clients[0].in_flight = 2);
    BAD("self_tokens", s.self_tokens = 2);
    BAD("self_tokens", s.buffers[1].paid = 0);
    BAD("turn", s.turn = 9);
    BAD("turn", (s.turn = 7, s.buffers[2].place = SPICE_FLOW_AT_ORPHAN));
    BAD("torn", s.torn = 2);
    BAD("torn", (s.torn = 1, s.turn = 7));
#undef BAD
}

/* What may stand where it does not usually. */
static void test_restore_possible(void)
{
    SpiceFlow *flow = restore_device();
    SpiceFlowSaved saved;
    char *error = NULL;

    good_state(&saved);
    saved.buffers[0].client = 0;        /* current: of one who left, paid */
    saved.buffers[0].price = 0;
    saved.buffers[0].more = 1;
    saved.buffers[1].paid = 0;
    saved.buffers[0].paid = 1;
    saved.buffers[2].place = SPICE_FLOW_AT_ORPHAN;
    saved.clients[0].tokens = 5;
    saved.torn = 1;
    g_assert_true(spice_flow_restore(flow, &saved, 1000, &error));
    spice_flow_close(flow);
}

/*
 * spice_flow_check() sees what it is there to see: numbers are changed behind
 * the machine's back.
 */
static void test_check(void)
{
    static const SpiceFlowOps ops = { .write = write_none, .send = send_keeps };
    SpiceFlowClientParams params = plain_client;
    SpiceFlowBuffer buffer = { .data = "bytes", .len = 5 };
    GQueue kept = G_QUEUE_INIT;
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    SpiceFlowClient *a, *b;

    g_assert_false(spice_flow_running(flow));
    spice_flow_start(flow, 0);
    g_assert_true(spice_flow_running(flow));
    params.send_tokens = 1;
    a = spice_flow_client_add(flow, &params, &kept);
    params = (SpiceFlowClientParams) {
        .id = 8, .to_guest_bytes = 20, .to_guest_messages = 4,
        .to_client_bytes = 100, .to_client_messages = 4,
    };
    b = spice_flow_client_add(flow, &params, &kept);
    for (int i = 0; i < 3; i++) {
        g_assert_true(spice_flow_client_begin(a));
        g_assert_true(spice_flow_client_write(a, &buffer));
        g_assert_true(spice_flow_client_write(b, &buffer));
        g_assert_true(spice_flow_send(flow, "bytes", 5));
    }
    g_assert_null(spice_flow_check(flow));

#define WRONG(says, field, value) \
    do { \
        __typeof__(field) was = field; \
        field = value; \
        g_assert_cmpstr(spice_flow_check(flow), ==, says); \
        field = was; \
        g_assert_null(spice_flow_check(flow)); \
    } while (0)

    WRONG("client tokens are conserved", a->tokens, a->tokens + 1);
    WRONG("client tokens are conserved", a->due, 1);
    WRONG("client tokens are conserved", a->receiving, RECEIVING);
    WRONG("client tokens are conserved", a->to_guest_messages, 4);
    WRONG("bytes to the guest are within the budget",
          b->params.to_guest_bytes, 14);
    WRONG("bytes to the guest are within the budget",
          b->params.to_guest_messages, 2);
    WRONG("bytes to a client are within the budget",
          b->params.to_client_bytes, 14);
    WRONG("bytes to a client are within the budget",
          b->params.to_client_messages, 2);
    WRONG("what is in flight is undelivered", b->in_flight, 4);
    WRONG("nothing waits that may be sent", a->send_tokens, 1);
    WRONG("nothing waits that may be sent", b->in_flight, 2);
    WRONG("a client with a queue is ready or has the turn", a->ready, false);
    WRONG("what clients have queued is queued", flow->count.to_guest_bytes, 29);
    WRONG("what clients have queued is queued",
          flow->count.to_guest_messages, 5);
    WRONG("self tokens are conserved", flow->self_tokens, 3);
    a->away = true;                     /* nothing goes to one who is away */
    WRONG(NULL, a->send_tokens, 1);
    a->away = false;
    a->dead = true;                     /* one told to go is not looked at */
    WRONG(NULL, a->tokens, 99);
    a->dead = false;
    flow->torn = true;
    WRONG("a torn message has no turn", flow->turn, a);
    flow->torn = false;
#undef WRONG

    spice_flow_close(flow);
    for (SpiceFlowMessage *msg; (msg = g_queue_pop_head(&kept));) {
        spice_flow_message_unref(msg);
    }
}

static void forgets(void *opaque, SpiceFlowReason reason)
{
    (void)opaque;
    (void)reason;
}

/* Whatever an owner does for a client that was told to go has no effect. */
static void test_told_to_go(void)
{
    static const SpiceFlowOps ops = {
        .write = write_all, .send = send_all, .remove = forgets,
    };
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    SpiceFlowBuffer buffer = { .data = "bytes", .len = 5 };
    SpiceFlowClientParams params = plain_client;
    SpiceFlowClientInfo before, after;
    SpiceFlowClient *client;

    params.window = 1;
    client = spice_flow_client_add(flow, &params, NULL);
    g_assert_true(spice_flow_client_begin(client));
    g_assert_true(spice_flow_client_write(client, &buffer));
    g_assert_false(spice_flow_client_begin(client));
    spice_flow_client_info(client, &before);
    g_assert_true(before.dead);
    g_assert_false(spice_flow_client_begin(client));
    g_assert_false(spice_flow_client_write(client, &buffer));
    spice_flow_client_cancel(client);
    spice_flow_client_sent(client);
    spice_flow_client_tokens_add(client, 5);
    spice_flow_client_tokens_set(client, 5);
    g_assert_cmpuint(spice_flow_client_room(client), ==, 0);
    g_assert_false(spice_flow_client_resume(client, NULL, 0));
    spice_flow_settle(flow);
    spice_flow_client_info(client, &after);
    g_assert_cmpuint(after.client_tokens, ==, before.client_tokens);
    g_assert_cmpuint(after.due_tokens, ==, before.due_tokens);
    g_assert_cmpuint(after.send_tokens, ==, before.send_tokens);
    g_assert_cmpuint(after.to_client_messages, ==, 0);
    g_assert_false(spice_flow_client_remove(client));
    spice_flow_close(flow);
}

/*
 * Notices are the same when their bytes are, however they are cut.  A paid
 * buffer is none: it does not end a torn message.
 */
static void test_unpaid(void)
{
    static const SpiceFlowOps ops = { .write = write_none, .send = send_all };
    SpiceFlow *flow = spice_flow_new(&ops, NULL, &plain_params);
    const SpiceFlowBuffer notices[] = {
        { .data = "notice", .len = 6 },
        { .head = "not", .head_len = 3, .data = "ice", .len = 3 },
        { .head = "notice", .head_len = 6 },
        { .head = "Not", .head_len = 3, .data = "ice", .len = 3 },
        { .head = "not", .head_len = 3, .data = "ICE", .len = 3 },
        { .head = "notices", .head_len = 7 },
    };
    const unsigned queued[] = { 2, 2, 2, 3, 4, 5 };
    SpiceFlowInfo info;

    g_assert_true(spice_flow_server_write(flow, &notices[0]));
    for (size_t i = 0; i < G_N_ELEMENTS(notices); i++) {
        spice_flow_server_write_unpaid(flow, &notices[i]);
        spice_flow_info(flow, &info);
        g_assert_cmpuint(info.to_guest_messages, ==, queued[i]);
    }
    spice_flow_close(flow);
}

/* The bound of what there is to save, known before there is a client. */
static void test_saved_max(void)
{
    SpiceFlow *flow = restore_device();
    SpiceFlowClientParams params = plain_client;
    size_t fc, raw;

    fc = spice_flow_saved_max(flow, &params, 2);
    g_assert_cmpuint(fc, >=, 3 * (8 * 64 * 1024 + 256 * 1024));
    params.flow_control = false;
    params.to_guest_bytes = 1000;
    params.to_guest_messages = 4;
    raw = spice_flow_saved_max(flow, &params, 2);
    g_assert_cmpuint(fc - raw, >=, 3 * (8 * 64 * 1024 - 1000));
    spice_flow_close(flow);
}

/* test-flow --corpus FOLDER: the scripts as bytes, for the fuzzer. */
static int write_corpus(const char *folder)
{
    for (size_t i = 0; i < G_N_ELEMENTS(scripts); i++) {
        g_auto(GStrv) lines = g_strsplit(scripts[i].text, "\n", -1);
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        g_autofree char *name = g_strdelimit(g_strdup(scripts[i].name), "/",
                                             '-');
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autoptr(GError) err = NULL;

        for (guint j = 0; lines[j]; j++) {
            FlowStep step;

            if (flow_step_parse(&step, lines[j])) {
                flow_step_encode(bytes, &step);
            }
        }
        if (!g_file_set_contents(path, (char *)bytes->data, bytes->len, &err)) {
            g_printerr("%s\n", err->message);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--corpus")) {
        return write_corpus(argv[2]);
    }
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(scripts); i++) {
        g_autofree char *path = g_strconcat("/flow/", scripts[i].name, NULL);

        g_test_add_data_func(path, &scripts[i], test_script);
    }
    g_test_add_func("/flow/language", test_language);
    g_test_add_func("/flow/ops-left-out", test_ops_left_out);
    g_test_add_func("/flow/foreach", test_foreach);
    g_test_add_func("/flow/foreach-inside", test_foreach_inside);
    g_test_add_func("/flow/names", test_names);
    g_test_add_func("/flow/pool", test_pool);
    g_test_add_func("/flow/ring", test_ring);
    g_test_add_func("/flow/keep-beyond-close", test_keep_beyond_close);
    g_test_add_func("/flow/restore/good", test_restore_good);
    g_test_add_func("/flow/restore/bad", test_restore_bad);
    g_test_add_func("/flow/restore/possible", test_restore_possible);
    g_test_add_func("/flow/saved-max", test_saved_max);
    g_test_add_func("/flow/check", test_check);
    g_test_add_func("/flow/told-to-go", test_told_to_go);
    g_test_add_func("/flow/unpaid", test_unpaid);
    return g_test_run();
}
