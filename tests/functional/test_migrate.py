# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration without a hand-over of clients: to a file and back, between two
QEMUs, failed and cancelled.

The guest goes on on the other side without noticing, its agent's port stays
open, and is told that its clients are gone; a migration that comes to nothing
changes nothing.
"""

import os
import re
import time

from lib import migration, paths, spiceclient as sc
from lib.agentguest import CLIPBOARD, GONE, chunk, message
from lib.guest import words
from lib.process import wait_until
from lib.qemu import refused
from lib.rig import (AGENT, PORT, agent_port_args, chardev_args, port_args,
                     server_args)
from lib.samples import MIB


class Move(migration.Moving):
    """A guest that moves, its clients stay behind."""

    count = 0

    def args(self):
        """Every QEMU has a socket of its own."""
        self.count += 1
        self.socket = self.rig.path("spice%d" % self.count)
        return [*server_args(self.socket, "spiceflow"), *port_args(PORT),
                *agent_port_args(),
                "-trace", "spiceflow_migrate_*",
                "-trace", "virtio_serial_send_control_event"]

    def session(self):
        return self.rig.raw(self.socket)

    def arrive(self, target):
        """The guest lives there now; the old QEMU ends."""
        old = self.qemu
        self.guest.adopt(target)
        old.quit()

    def through_file(self):
        path = self.rig.path("state")
        self.guest.poll()
        migration.migrate(self.qemu, "file:" + path)
        target = self.target()
        migration.incoming(target, "file:" + path)
        migration.wait_running(target)
        os.unlink(path)
        self.arrive(target)

    def live(self):
        path = self.rig.path("wire")
        self.guest.poll()
        target = self.target()
        target.command("migrate-incoming", uri="unix:" + path)
        migration.migrate(self.qemu, "unix:" + path)
        migration.wait_running(target)
        self.arrive(target)

    def told(self, port):
        """What the guest was told there of a port's host side."""
        return "".join(re.findall(
            r"send_control_event port %d, event 6, value (\d)" % port,
            self.qemu.log()))

    def echo(self, port, count=1000, seed=4):
        job = self.guest.start("porttool echo %s %d" % (PORT, count * 8))
        if not port.port_init.opened:
            port.expect_event(sc.EVENT_OPENED)
        port.send_data(words(count, seed))
        assert port.receive_data(count * 8) == words(count, seed)
        job.result()

    def check_port(self, move):
        """A client with data on the way: on the other side that is dropped,
        the guest sees it leave, and the next one works at once."""
        session = self.session()
        port = session.open_port(PORT)
        hold = self.guest.hold(PORT)
        port.expect_event(sc.EVENT_OPENED)
        self.qemu.command("stop")
        port.send_data(words(1000, 3))
        self.qemu.wait_flow("p1", "to-guest-bytes", 8000)
        self.qemu.command("cont")
        move()
        assert self.qemu.flow("p1")["to-guest-bytes"] == 0
        assert self.told(1).endswith("0"), "the guest did not see it leave"
        assert self.qemu.flow("p1")["guest-open"]
        hold.end()
        session = self.session()
        self.echo(session.open_port(PORT))
        session.close()

    def check_agent(self, move):
        """The port stays open, the message begun is ended, and the next
        client has a full window."""
        long = message(CLIPBOARD, bytes(5000))
        after = message(CLIPBOARD, b"after")
        expected = chunk(long[:2048]) + GONE + chunk(after)
        job = self.guest.start("porttool recv %s %d /tmp/got" %
                               (AGENT, len(expected)))
        session = self.session()
        session.wait_agent()
        session.main.agent_start()
        session.main.agent_data(long[:2048])
        session.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        move()
        assert "0" not in self.told(2), "the agent's port was closed"
        session = self.session()
        session.wait_agent()
        session.main.agent_start()
        session.main.agent_data(after)
        job.wait()
        assert self.guest.read_file("/tmp/got") == expected
        session.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        session.close()

    def check_whole(self, move):
        """Messages that had come whole while the VM was stopped: of these the
        guest gets what it had begun, which is none."""
        gone = message(CLIPBOARD, b"gone")
        after = message(CLIPBOARD, b"after")
        expected = GONE + chunk(after)
        job = self.guest.start("porttool recv %s %d /tmp/got" %
                               (AGENT, len(expected)))
        session = self.session()
        session.wait_agent()
        session.main.agent_start()
        self.qemu.command("stop")
        for _ in range(10):
            session.main.agent_data(gone)
        self.qemu.wait_flow("agent", "to-guest-messages", 10)
        self.paused_move(move)
        session = self.session()
        session.wait_agent()
        session.main.agent_start()
        session.main.agent_data(after)
        job.wait()
        assert self.guest.read_file("/tmp/got") == expected
        session.close()

    def paused_move(self, move):
        """A VM that is stopped when it is migrated is stopped afterwards."""
        wait, migration.wait_running = migration.wait_running, lambda q: None
        try:
            move()
        finally:
            migration.wait_running = wait
        assert not self.qemu.command("query-status")["running"]
        self.qemu.command("cont")


class TestFile(Move):
    """Through a file."""

    def test_port(self):
        self.check_port(self.through_file)

    def test_agent(self):
        self.check_agent(self.through_file)

    def test_paused(self):
        self.check_whole(self.through_file)

    def test_file_twice(self):
        """The same file loads again and again; the source goes on as if
        nothing had been saved."""
        path = self.rig.path("state")
        piece = message(CLIPBOARD, b"hello")
        session = self.session()
        job = self.guest.start("porttool recv %s %d /tmp/got" %
                               (AGENT, 3 * len(chunk(piece))))
        session.wait_agent()
        session.main.agent_start()
        session.main.agent_data(piece)
        session.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        self.qemu.command("stop")
        session.main.agent_data(piece)
        self.qemu.wait_flow("agent", "to-guest-messages", 1)
        self.guest.poll()
        migration.migrate(self.qemu, "file:" + path)
        for _ in range(2):
            target = self.target()
            migration.incoming(target, "file:" + path)
            flow = target.flow("agent")
            assert flow["guest-open"] and flow["clients"] == []
            assert flow["to-guest-messages"] == 1, flow   # CLIENT_DISCONNECTED
            target.quit()
        self.qemu.command("cont")
        session.main.agent_data(piece)
        job.wait()
        assert self.guest.read_file("/tmp/got") == chunk(piece) * 3
        session.close()


class TestLive(Move):
    """Between two QEMUs."""

    def test_port(self):
        self.check_port(self.live)

    def test_agent(self):
        self.check_agent(self.live)

    def test_postcopy(self):
        """The guest runs there before its memory has come."""
        session = self.session()
        port = session.open_port(PORT)
        hold = self.guest.hold(PORT)
        port.expect_event(sc.EVENT_OPENED)
        self.guest.poll()
        target = self.target()
        migration.postcopy(self.qemu, target, self.rig.path("wire"))
        self.arrive(target)
        hold.end()
        session = self.session()
        self.echo(session.open_port(PORT))
        session.close()


class TestNothingComesOfIt(Move):
    """Failed and cancelled: the client and the guest never know."""

    def transfer(self, attempt):
        """A stream to the client, with ATTEMPT in the middle of it.  Only one
        way: spice-gtk does not read a channel while a write on it waits, so
        an echo of more than the buffers hold stands still."""
        total = 64 * MIB
        client = self.rig.client(uri="spice+unix://" + self.socket)
        client.find(r"^port-new %s$" % PORT)
        client.send("port", PORT, "check", total, 3)
        job = self.guest.start("porttool gen %s %d -s 3" % (PORT, total))
        client.wait_port(PORT)
        attempt()
        assert self.qemu.command("query-status")["running"]
        client.expect(r"^done port \S+ check", 90, r"^failed")
        job.result()
        client.quit()

    def test_cancelled(self):
        def attempt():
            self.qemu.command("migrate-set-parameters", max_bandwidth=MIB)
            self.qemu.command("migrate", uri="exec:cat > /dev/null")
            migration.wait_status(self.qemu, "active")
            time.sleep(0.3)
            self.qemu.command("migrate_cancel")
            migration.wait_status(self.qemu, "cancelled")

        self.transfer(attempt)

    def test_failed_early(self):
        def attempt():
            self.qemu.command("migrate", uri="unix:" + self.rig.path("none"))
            migration.wait_status(self.qemu, "failed")

        self.transfer(attempt)

    def test_failed_late(self):
        """The target refuses the state when all of it has been saved: it has
        no such device."""
        def attempt():
            path = self.rig.path("wire")
            socket = self.socket
            target = self.rig.qemu(
                *server_args(self.rig.path("other"), "spiceflow"),
                *port_args(PORT),
                "-device", "virtserialport,name=" + AGENT,
                "-incoming", "defer", guest=paths.guest_images())
            target.expected_end = True
            self.socket = socket
            target.command("migrate-incoming", uri="unix:" + path)
            migration.unlimited(self.qemu)
            migration.capability("return-path", self.qemu)
            self.qemu.command("migrate", uri="unix:" + path)
            assert migration.wait_status(self.qemu, *migration.ENDED) == \
                "failed"
            migration.wait_running(self.qemu)

        hold = self.guest.hold(AGENT)
        self.transfer(attempt)
        hold.end()


def test_wrong_kind(rig):
    """A state for another kind of device is refused, and says why."""
    def start(name, number, *more, **options):
        return rig.qemu(
            *server_args(rig.path("spice%d" % number), "spiceflow"),
            "-device", "virtio-serial-pci", *chardev_args("c", name),
            "-device", "virtserialport,chardev=c,name=x", *more, **options)

    path = rig.path("state")
    source = start("org.example.x", 1, paused=True)
    session = rig.raw(rig.path("spice1"))
    session.open_port("org.example.x")
    migration.migrate(source, "file:" + path)
    target = start("vdagent", 2, "-incoming", "defer")
    target.expected_end = True
    target.command("migrate-incoming", uri="file:" + path)
    wait_until(lambda: not target.process.running(), 10, "the refusal")
    assert "chardev 'c': its state can not be loaded: type: it is of a " \
        "channel of type 10, here it is 1" in target.log(), target.log()


def test_chardev_change(rig):
    """A chardev of ours in the place of one of ours: its state is carried
    once, under the same name, whether the change succeeds or not."""
    qemu = rig.qemu(
        *server_args(rig.path("spice"), "spiceflow"),
        *port_args(PORT), *chardev_args("agent", "vdagent"),
        *migration.disk(rig.path("disk")))
    new = {"type": "spiceflow", "data": {"name": "org.example.new.0"}}
    session = rig.raw()
    session.open_port(PORT)
    qemu.command("chardev-change", id="p1", backend=new)
    migration.savevm(qemu, "a")
    migration.loadvm(qemu, "a")
    session.close()
    session = rig.raw()
    session.open_port("org.example.new.0")
    # a second agent is refused; the port that was to become it stays
    bad = {"type": "spiceflow", "data": {"name": "vdagent"}}
    with refused("vdagent"):
        qemu.command("chardev-change", id="p1", backend=bad)
    migration.savevm(qemu, "b")
    migration.loadvm(qemu, "b")
    session.close()
    session = rig.raw()
    session.open_port("org.example.new.0")
    qemu.command("chardev-change", id="p1", backend={
        "type": "null", "data": {}})
    migration.savevm(qemu, "c")
    migration.loadvm(qemu, "c")
    session.close()
    qemu.quit()
