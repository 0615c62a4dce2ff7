# SPDX-License-Identifier: GPL-2.0-or-later
"""Torments a virtual machine, and counts what its guest and client have lost.

A Linux guest and a client on the library of the common viewers exchange
records both ways through a port, copy a file to the guest's agent, and read
the client's CD in the guest, all at once and without end.  Meanwhile the VM is
stopped and continued, frozen, saved to files, restored from them, and migrated
from one QEMU to the next.  At the end every record must have arrived once and
in order, and every checksum must be right.

Everything random follows from the seed, which is printed; the times at which
things happen do not.  With --peer the same events are done to the peer
beside it: what that loses is printed, and is no failure of this test.
"""

import argparse
import collections
import random
import re
import signal
import sys
import time

from lib import process
from lib.paths import TESTS, builder
from lib.rig import Rig

from . import events
from .load import ERRORS, Load, Wrong
from .machine import Machine

MIB = 1 << 20
FULL = 900 << 10        # bytes of a device whose queue is as good as full


class Run:
    """One back end's run."""

    def __init__(self, rig, which, args):
        self.rig = rig
        self.which = which
        self.rounds = args.rounds
        self.random = random.Random(args.seed)
        self.strict = which == "spiceflow"
        self.machine = Machine(rig, which)
        self.load = Load(rig, self.machine, self.strict, args.rate * 1000000)
        self.follow = self.machine.follows() and not args.reconnect
        self.counts = collections.Counter()
        self.restored = 0
        self.broken = 0         # guests that were restored, and do not work
        self.round = 0
        self.problem = None
        self.seconds = 0

    def torment(self):
        source = events.bag(self.random)
        self.load.start()
        for self.round in range(1, self.rounds + 1):
            self.load.wait(self.random.uniform(0.1, 0.6))
            event = next(source)
            begin = time.monotonic()
            said = event(self)
            self.counts[event.__name__] += 1
            print("%5d/%d  %5.1f s  %s" % (
                self.round, self.rounds, time.monotonic() - begin, said),
                flush=True)
        self.load.wait(0.3)
        violations = self.machine.violations()
        if violations:
            raise Wrong("%d token violations were counted" % violations)
        self.load.finish()

    def go(self):
        start = time.monotonic()
        try:
            self.torment()
        except ERRORS as error:
            self.problem = "round %d: %s" % (self.round, error)
            if self.strict:
                print("\n%s\n%s" % (self.problem, self.rig.report()),
                      flush=True)
            try:
                self.load.give_up()
            except ERRORS as other:
                print("(no counts: %s)" % other)
        self.seconds = time.monotonic() - start

    # -- the table --

    def rows(self):
        load = self.load
        for title, stream in (("records to client", load.to_client),
                              ("records to guest", load.to_guest)):
            yield (title, stream.good(), stream.sent, stream.received,
                   stream.lost, stream.repeated, stream.wrong,
                   "%.1f" % (stream.bytes / MIB))
        for title, work in (("copies to the agent", load.copies),
                            ("reads of the CD", load.reads)):
            yield (title, work.good(), work.begun, work.done,
                   work.begun - work.done, "", work.failed, "")

    def table(self):
        print("\n%s: %d rounds in %.0f s: %s" % (
            self.which, self.round, self.seconds, ", ".join(
                "%s %d" % item for item in sorted(self.counts.items()))))
        print("  %-20s %8s %8s %8s %8s %8s %9s" % (
            "", "sent", "arrived", "lost", "repeated", "wrong", "MiB"))
        for title, _good, *numbers in self.rows():
            print("  %-20s %8s %8s %8s %8s %8s %9s" % (title, *numbers))
        print("  clients %d, ended by the server %d; agents started again %d;"
              " guests restored %d, that do not work %d" %
              (self.load.sessions, self.load.lost_sessions, self.load.agents,
               self.restored + self.broken, self.broken))
        self.show_times()
        if self.problem:
            print("  ended early in %s" % self.problem.splitlines()[0])

    def show_times(self):
        for kind, lines in self.machine.times().items():
            found = [tuple(map(int, re.search(
                r"bytes (\d+) in (\d+) us", line).groups())) for line in lines]
            if found:
                times = sorted(us for _, us in found)
                full = [us for size, us in found if size >= FULL]
                print("  devices %s: %d, with %d KiB at most, in %d us "
                      "(median), %d at most; with %d KiB and more: %s" % (
                          {"save": "saved", "load": "loaded"}[kind],
                          len(found), max(size for size, _ in found) >> 10,
                          times[len(times) // 2], times[-1], FULL >> 10,
                          "%d, in %d us (median)" % (
                              len(full), sorted(full)[len(full) // 2])
                          if full else "none"))
        times = sorted(self.machine.downtimes)
        if times:
            print("  downtime of migrations: median %d ms, %d at most" %
                  (times[len(times) // 2], times[-1]))

    def verdict(self):
        """Passed and failed."""
        good = [row[1] for row in self.rows()]
        good += [True] * self.restored
        good.append(not self.problem and self.load.lost_sessions == 0)
        return sum(good), len(good) - sum(good)


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/torture", description="Stop, save, restore and migrate a"
        " virtual machine at work, and see whether anything is lost.")
    parser.add_argument("--rounds", type=int, default=0, metavar="N",
                        help="how many things happen (15; 500 with --long)")
    parser.add_argument("--seed", type=int, metavar="N",
                        default=random.randrange(1 << 32),
                        help="of an earlier run")
    parser.add_argument("--rate", type=int, default=8, metavar="MB",
                        help="MB/s of records each way, 0: all that goes (8)")
    parser.add_argument("--peer", choices=("spicevmc",),
                        help="the same with another back end beside it")
    parser.add_argument("--reconnect", action="store_true",
                        help="clients do not follow migrations, but come anew")
    parser.add_argument("--quick", action="store_true",
                        help="the default, which scripts/check uses")
    parser.add_argument("--long", action="store_true",
                        help="500 rounds")
    parser.add_argument("--no-setup", action="store_true",
                        help="the emulator is built already")
    args = parser.parse_args()
    args.rounds = args.rounds or (500 if args.long else 15)
    return args


def interrupted(_signum, _frame):
    raise KeyboardInterrupt


def main():
    args = parse()
    signal.signal(signal.SIGTERM, interrupted)
    process.become_subreaper()
    print("seed %d" % args.seed, flush=True)
    passed = failed = 0
    try:
        builder(TESTS / "guest" / "build")
        builder(TESTS / "client" / "build")
        for which in ["spiceflow"] + [args.peer] * bool(args.peer):
            rig = Rig()
            try:
                run = Run(rig, which, args)
                run.go()
                run.table()
            finally:
                rig.close()
            if which == "spiceflow":
                passed, failed = run.verdict()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except ERRORS as error:
        print("error: %s" % error, file=sys.stderr)
        failed += 1
    if failed:
        print("\nagain: scripts/torture --seed %d --rounds %d" %
              (args.seed, args.rounds))
    print("\n%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
