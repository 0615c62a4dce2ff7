# SPDX-License-Identifier: GPL-2.0-or-later
"""Stop is stop: while the VM is stopped not a byte goes to the guest or comes
from it, what clients send waits within its budget and then in their sockets,
and afterwards everything goes on in order."""

import hashlib
import struct
import time

from lib import spiceclient as sc
from lib.agentguest import CLIPBOARD, chunk, message
from lib.guest import words
from lib.rig import AGENT, PORT, agent_port_args, port_args, server_args
from lib.samples import MIB

WORDS = 2 * MIB // 8


def counters(qemu, chardev="p1"):
    flow = qemu.flow(chardev)
    return (flow["total-to-guest-bytes"], flow["total-from-guest-bytes"],
            flow["discarded-bytes"])


class TestStop:
    """One guest with a port and an agent's port."""

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(
            *server_args(rig.socket), *port_args(PORT),
            *agent_port_args())
        self.qemu = self.guest.qemu

    def still(self, chardev="p1", duration=0.5):
        """No counter of the device changes for that long."""
        before = counters(self.qemu, chardev)
        time.sleep(duration)
        assert counters(self.qemu, chardev) == before, \
            "%s became %s while stopped" % (before,
                                            counters(self.qemu, chardev))
        return before

    def test_to_guest(self):
        """What a client sends meanwhile is kept within queue-size; then its
        socket is left unread; nothing is lost or disordered."""
        data = words(WORDS, 5)
        session = self.rig.raw()
        port = session.open_port(PORT)
        job = self.guest.start("porttool check %s %d -s 5" %
                               (PORT, len(data)))
        port.expect_event(sc.EVENT_OPENED)
        port.send_data(data[:MIB // 2])
        self.qemu.command("stop")
        before = self.still()
        messages = b"".join(
            port.message(sc.MSGC_DATA, data[at:at + 65536])
            for at in range(MIB // 2, len(data), 65536))
        port.connection.sock.setblocking(False)
        taken = 0
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                taken += port.connection.sock.send(messages[taken:])
            except BlockingIOError:
                time.sleep(0.05)
        assert taken < len(messages), "the socket was read without end"
        assert self.still() == before
        flow = self.qemu.flow("p1")
        assert not flow["running"]
        assert 0 < flow["to-guest-bytes"] <= flow["queue-size"], flow
        self.qemu.command("cont")
        port.connection.send(messages[taken:])
        assert job.result()["bytes"] == len(data)
        session.close()

    def test_to_client(self):
        """The guest's bytes stay where they are."""
        total = 64 * MIB
        session = self.rig.raw()
        port = session.open_port(PORT)
        job = self.guest.start("porttool gen %s %d -s 6" % (PORT, total))
        got = port.receive_data(MIB)
        self.qemu.command("stop")
        self.still()
        before = counters(self.qemu)[1]
        flow = self.qemu.flow("p1")
        waiting = flow["clients"][0]["to-client-bytes"]
        # what had been taken from the guest is delivered, and no more
        rest = port.receive_data(before - MIB)
        assert port.connection.silent(0.5), "a stopped guest goes on speaking"
        assert waiting <= flow["queue-size"]
        got += rest
        assert got == words(len(got) // 8 + 1, 6)[:len(got)]
        self.qemu.command("cont")
        tail = port.receive_data(total - len(got), 60)
        assert tail == words(total // 8, 6)[len(got):]
        job.result()
        session.close()

    def test_storm(self):
        """A hundred stops and starts under a stream lose nothing.  One way,
        for the reason given in test_migrate."""
        client = self.rig.client()
        client.find(r"^port-new %s$" % PORT)
        total = 48 * MIB
        client.send("port", PORT, "check", total, 3)
        job = self.guest.start("porttool gen %s %d -s 3" % (PORT, total))
        client.wait_port(PORT)
        for i in range(100):
            self.qemu.command("stop")
            time.sleep(0.002 * (i % 4))
            self.qemu.command("cont")
            time.sleep(0.002 * (i % 7))
        client.expect(r"^done port \S+ check", 60, r"^failed")
        job.result()
        client.quit()

    def test_agent(self):
        """A stopped guest's agent gets nothing and its clients' window holds;
        AGENT_START and tokens work meanwhile."""
        piece = message(CLIPBOARD, b"x" * 100)
        expected = chunk(piece) * 30
        job = self.guest.start("porttool recv %s %d /tmp/a" %
                               (AGENT, len(expected)))
        session = self.rig.raw()
        session.wait_agent()
        session.attach()
        self.qemu.command("stop")
        before = self.still("agent", 0.2)
        session.main.agent_start()
        for _ in range(30):
            session.main.agent_data(piece)
        self.qemu.wait_flow("agent", "to-guest-messages", 30)
        assert self.still("agent", 0.3) == before
        assert session.main.connection.silent(0.1), "tokens came from a stopped guest"
        self.qemu.command("cont")
        job.result()
        assert self.guest.run("sha256sum < /tmp/a").split()[0] == \
            hashlib.sha256(expected).hexdigest()
        tokens = 0
        while tokens < 30:
            tokens += struct.unpack("<I", session.main.expect(
                sc.MSG_MAIN_AGENT_TOKEN))[0]
        assert tokens == 30
        session.close()

    def test_client_leaves_meanwhile(self):
        """A client that leaves a stopped VM and one that comes: the guest
        sees a close and an open when it runs again, and none of the bytes
        that it did not get before."""
        session = self.rig.raw()
        port = session.open_port(PORT)
        watch = self.guest.start("porttool watch %s 60" % PORT)
        watch.line("host connected=1")
        self.qemu.command("stop")
        port.send_data(words(1000, 1))
        self.qemu.wait_flow("p1", "to-guest-bytes", 8000)
        session.close()
        self.qemu.wait_flow("p1", "clients", [])
        self.qemu.command("cont")
        watch.line("host connected=0")
        watch.end()
        session = self.rig.raw()
        port = session.open_port(PORT)
        job = self.guest.start("porttool check %s 8000 -s 2" % PORT)
        port.expect_event(sc.EVENT_OPENED)
        port.send_data(words(1000, 2))
        job.result()
        session.close()

    def test_system_reset(self):
        """The client stays over a reset of the guest and goes on after it."""
        self.qemu.command("set-action", reboot="reset")
        session = self.rig.raw()
        port = session.open_port(PORT)
        self.guest.hold(PORT)
        port.expect_event(sc.EVENT_OPENED)
        self.guest.begins_anew()
        self.qemu.command("system_reset")
        port.expect_event(sc.EVENT_CLOSED)
        self.guest.wait_ready(60)
        job = self.guest.start("porttool echo %s 800" % PORT)
        port.expect_event(sc.EVENT_OPENED)
        data = words(100, 9)
        port.send_data(data)
        assert port.receive_data(800) == data
        job.result()
        session.close()
