# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest does to itself and has done to it: it sleeps, it panics, its
reset button is hammered.  Clients stay connected, their tokens stay theirs,
and afterwards they go on without a reconnect."""

import struct
import time

from lib import spiceclient as sc
from lib.agentguest import CLIPBOARD, chunk, message
from lib.guest import words
from lib.process import wait_until
from lib.rig import AGENT, PORT, agent_port_args, port_args, server_args

WINDOW = 64


class Power:
    """A guest with a port and an agent's port, a client with both."""

    more = ()

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(
            *server_args(rig.socket), *port_args(PORT),
            *agent_port_args(), *self.more,
            reboots=True)
        self.qemu = self.guest.qemu

    def connect(self):
        self.session = self.rig.raw()
        self.port = self.session.open_port(PORT)

    def flow(self, chardev="p1"):
        return self.qemu.flow(chardev)

    def clients(self):
        return len(self.qemu.stats()["clients"])

    def port_is(self, opened):
        self.port.expect_event(sc.EVENT_OPENED if opened else sc.EVENT_CLOSED)

    def port_reopens(self):
        """The guest's driver has let its port go, and taken it again."""
        self.port_is(False)
        self.port_is(True)

    def echo(self, seed, count=1000):
        """Through a port that is not open in the guest, both ways."""
        job = self.guest.start("porttool echo %s %d" % (PORT, count * 8))
        self.port_is(True)
        self.port.send_data(words(count, seed))
        assert self.port.receive_data(count * 8) == words(count, seed)
        job.result()
        self.port_is(False)

    def agent_works(self):
        """An agent opens its port, gets a window full of messages and one
        more, and every token comes back."""
        piece = message(CLIPBOARD, b"x" * 500)
        count = WINDOW + 1
        job = self.guest.start("porttool recv %s %d /tmp/got" % (
            AGENT, len(chunk(piece)) * count))
        body = self.session.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        assert struct.unpack("<I", body) == (WINDOW,)
        self.session.main.agent_start()
        given = 0
        for number in range(count):
            if number == WINDOW:
                given += self.token()
            self.session.main.agent_data(piece)
        while given < count:
            given += self.token()
        assert given == count
        job.result()
        self.session.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)

    def token(self):
        return struct.unpack("<I", self.session.main.expect(
            sc.MSG_MAIN_AGENT_TOKEN))[0]


class TestSuspend(Power):
    """The guest sleeps (S3) and is woken.

    The guest's own way down and up is gone with the kernel's self-test, which
    puts all devices to sleep and wakes them: a guest that is booted without a
    boot loader does not find back through the firmware."""

    def nap(self, seconds=2):
        """All devices of the guest sleep for a while."""
        self.guest.run("echo %d > /sys/module/suspend/parameters/"
                       "pm_test_delay; echo devices > /sys/power/pm_test" %
                       seconds)
        return self.guest.start("echo mem > /sys/power/state")

    def test_idle(self):
        self.connect()
        self.nap(1).wait()
        assert self.clients() == 1
        self.echo(1)
        self.agent_works()

    def test_with_open_ports(self):
        """The guest's driver closes its ports and opens them again: so the
        clients are told, and what they send to the sleeping guest comes to
        the one that is awake."""
        self.connect()
        echo = self.guest.start("porttool echo %s 16000" % PORT)
        self.port_is(True)
        self.port.send_data(words(1000, 5))
        assert self.port.receive_data(8000) == words(1000, 5)
        agent = self.guest.hold(AGENT)
        self.session.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        self.session.main.agent_start()
        sleeping = self.nap()
        self.port_is(False)
        self.session.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        self.port.send_data(words(1000, 6))
        self.qemu.wait_flow("p1", "to-guest-bytes", 8000)
        sleeping.wait()
        self.port_is(True)
        assert self.port.receive_data(8000) == words(1000, 6)
        echo.result()
        self.port_is(False)
        body = self.session.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        assert struct.unpack("<I", body) == (WINDOW,)
        self.session.main.agent_start()
        agent.end()
        self.session.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        self.agent_works()

    def test_system_wakeup(self):
        """A VM that sleeps, also one that is stopped and continued in its
        sleep, keeps what its clients send.  The wakeup resets the devices;
        what was for a port that nobody had opened is still there.  This guest
        is not seen again, for the reason above."""
        self.connect()
        self.guest.run("echo none > /sys/power/pm_test")
        self.guest.start("echo mem > /sys/power/state")
        self.qemu.qmp.event("SUSPEND", 20)
        self.port.send_data(words(10000, 4))
        self.qemu.wait_flow("p1", "to-guest-bytes", 80000)
        self.qemu.command("stop")
        assert not self.flow()["running"]
        self.qemu.command("cont")
        assert self.qemu.command("query-status")["status"] == "suspended"
        self.qemu.command("system_wakeup")
        self.qemu.qmp.event("WAKEUP", 20)
        self.qemu.wait_flow("p1", "running", True)
        assert self.clients() == 1 and self.flow()["to-guest-bytes"] == 80000
        self.guest.jobs = {}


class TestPanic(Power):
    """The guest panics, and QEMU pauses it (-action panic=pause)."""

    more = ("-device", "pvpanic-pci", "-action", "panic=pause")

    def test_panic(self):
        """Nothing moves after it; what clients send waits in its bounds; the
        reset empties what was for the guest of before, and the next one
        works with the same client."""
        self.connect()
        hold = self.guest.hold(PORT)
        self.port_is(True)
        agent = self.guest.hold(AGENT)
        self.session.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        self.session.main.agent_start()
        self.guest.start("echo c > /proc/sysrq-trigger")
        self.qemu.qmp.event("GUEST_PANICKED", 20)
        wait_until(lambda: self.qemu.command("query-status")["status"] ==
                   "guest-panicked", 5, "the pause")
        before = self.flow()["total-to-guest-bytes"]
        self.port.send_data(words(10000, 8))
        for _ in range(WINDOW):
            self.session.main.agent_data(message(CLIPBOARD, b"y" * 100))
        self.qemu.wait_flow("p1", "to-guest-bytes", 80000)
        self.qemu.wait_flow("agent", "to-guest-messages", WINDOW)
        assert self.flow()["total-to-guest-bytes"] == before
        client, = self.flow("agent")["clients"]
        assert client["client-tokens"] == 0 and self.clients() == 1

        self.guest.begins_anew()
        self.qemu.command("system_reset")
        self.qemu.command("cont")
        self.port_is(False)
        self.session.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        self.guest.wait_ready(60)
        self.session.main.pending.clear()
        stale = self.flow()["to-guest-bytes"]
        job = self.guest.start("porttool check %s %d -s 8" % (PORT, stale)) \
            if stale else None
        if job:
            self.port_is(True)
            job.result()
            self.port_is(False)
        self.echo(9)
        self.agent_works()
        assert self.clients() == 1 and \
            self.flow("agent")["token-violations"] == 0


class TestReset(Power):
    """The reset button."""

    def test_storm(self):
        """Pressed again before the guest is up, while its clients talk, with
        stops between."""
        self.connect()
        hold = self.guest.hold(PORT)
        self.port_is(True)
        self.port.send_data(words(1000, 1))
        self.guest.poll()
        self.guest.begins_anew()
        for number in range(12):
            self.qemu.command("system_reset")
            if number % 3 == 1:
                self.qemu.command("stop")
                self.port.send_data(words(100, number))
                self.qemu.command("system_reset")
                self.qemu.command("cont")
            time.sleep(0.05 * (number % 4))
        self.guest.wait_ready(60)
        assert self.clients() == 1
        flow = self.flow()
        assert flow["to-guest-bytes"] <= flow["queue-size"], flow
        self.port_is(False)
        # what was sent to a port that nobody had opened is still to come
        job = self.guest.start("porttool drain %s %d" % (
            PORT, flow["to-guest-bytes"])) if flow["to-guest-bytes"] else None
        if job:
            self.port_is(True)
            job.result()
            self.port_is(False)
        self.echo(3)
        self.agent_works()
