# SPDX-License-Identifier: GPL-2.0-or-later
"""What can happen to the VM of a torture run.

An event is a function of a Run and returns words for the progress line.  BAG
says how often each comes: a bag is emptied in random order and filled again,
so that also a short run sees every kind.
"""

import os
import signal
import time

from .load import ERRORS, check_twin


def stop(run):
    """Stopped for a while."""
    run.machine.qemu.command("stop")
    duration = run.random.uniform(0.01, 0.5)
    run.load.wait(duration)
    run.machine.cont()
    return "stopped for %.2f s" % duration


def storm(run):
    """Stopped and continued in quick succession."""
    count = run.random.randint(5, 40)
    for _ in range(count):
        run.machine.qemu.command("stop")
        time.sleep(run.random.uniform(0, 0.006))
        run.machine.cont()
        time.sleep(run.random.uniform(0, 0.010))
    return "stopped and continued %d times" % count


def freeze(run):
    """The host takes the processor away from QEMU."""
    duration = run.random.uniform(0.05, 0.6)
    run.machine.qemu.process.send_signal(signal.SIGSTOP)
    run.load.wait(duration)
    run.machine.qemu.process.send_signal(signal.SIGCONT)
    return "QEMU frozen for %.2f s" % duration


def stall(run):
    """The client stands still: everything toward it fills up."""
    duration = run.random.uniform(0.1, 1)
    run.load.client.pause()
    time.sleep(duration)
    run.load.client.resume()
    return "client frozen for %.2f s" % duration


def save(run):
    """Saved to a file, and on as if nothing had been.

    No read of the CD is under way: when its state is saved usb-redir notes
    down the requests in flight for whoever loads it, and if it goes on itself,
    it takes the next ones with these ids for answered.  They are addresses in
    a ring, so they come again.  The guest then waits half a minute."""
    path = run.rig.path("state")
    run.load.hold_reads()
    if run.random.random() < 0.3:
        run.machine.qemu.command("stop")
        run.load.wait(0.1)
    run.machine.save(path, run.load.poll)
    size = os.path.getsize(path)
    run.load.wait(run.random.uniform(0, 0.2))
    run.machine.cont()
    run.load.resume_reads()
    os.unlink(path)
    return "saved to a file of %d MiB" % (size >> 20)


def restore(run):
    """Saved, and loaded in a new process while this one goes on."""
    path = run.rig.path("state")
    run.load.hold_reads()
    run.machine.save(path, run.load.poll)
    twin = run.machine.restore(path)
    run.machine.cont()
    os.unlink(path)
    run.load.resume_reads()
    try:
        said = "%s from there" % check_twin(run.rig, run.machine, twin)
        run.restored += 1
    except ERRORS as error:
        if run.strict:
            raise
        said = "and works no more: " + str(error).split(":", 1)[0]
        run.broken += 1
        run.rig.clients.pop().close()
    finally:
        run.machine.discard(twin)
    run.load.wait(0)
    return "restored beside this one, " + said


def cancel(run):
    """A migration that is cancelled."""
    run.machine.cancel(run.random.uniform(0.05, 0.4), run.load.poll)
    return "a migration cancelled"


def migrate(run):
    """To another QEMU, running, stopped, or with a client that does not
    read."""
    machine, load = run.machine, run.load
    way = run.random.choice(("", "", "stopped", "client frozen"))
    target = machine.target()
    follow = run.follow
    if follow:
        machine.announce(target, load.poll)
    else:
        load.hold()
        load.leave()
    load_poll = load.poll if follow else machine.guest.poll
    if way == "stopped":
        machine.qemu.command("stop")
    during = None
    if follow and way == "client frozen":
        load.client.pause()
        time.sleep(0.2)
        during = load.client.resume
    old = machine.move(target, load_poll, during)
    if way == "stopped":
        machine.cont()
    machine.end(old, load_poll)
    if not follow:
        load.back()
    return "migrated%s%s" % (", the client after it" if follow else
                             " between two clients", way and ", " + way)


# Kind, and how often in a bag.
BAG = ((stop, 2), (storm, 1), (freeze, 1), (stall, 1), (save, 1), (restore, 1),
       (cancel, 1), (migrate, 4))


def bag(rng):
    """Events without end."""
    while True:
        events = [event for event, count in BAG for _ in range(count)]
        rng.shuffle(events)
        yield from events
