# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots: the guest goes back in time, clients do not.

They are told so where the protocol has a word for it and go on at once, and
what they sent to the guest of before never reaches the guest of then.
"""

import re
import struct
import time

from lib import migration, spiceclient as sc
from lib.agentguest import CLIPBOARD, GONE, chunk, message
from lib.guest import words
from lib.paths import seconds
from lib.process import wait_until
from lib.rig import (AGENT, PORT, agent_port_args, chardev_args, port_args,
                     server_args)
from lib.samples import MIB
from test_usb import Usb, make_image


class TestSnapshot:
    """One guest with a port, an agent's port and a disk for snapshots."""

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(
            *server_args(rig.socket), *port_args(PORT), *agent_port_args(),
            *migration.disk(rig.path("disk")),
            "-trace", "virtio_serial_send_control_event")
        self.qemu = self.guest.qemu

    def savevm(self, name="a"):
        migration.savevm(self.qemu, name)

    def loadvm(self, name="a"):
        migration.loadvm(self.qemu, name)

    def told(self, before):
        """What the guest was told of the port's host side, as "0" and "1"."""
        return "".join(re.findall(
            r"send_control_event port 1, event 6, value (\d)",
            self.qemu.log()[before:]))

    def echo(self, port, count=1000, seed=4):
        """Some traffic both ways through an open port."""
        job = self.guest.start("porttool echo %s %d" % (PORT, count * 8))
        port.wait_event(sc.EVENT_OPENED)
        port.send_data(words(count, seed))
        assert port.receive_data(count * 8) == words(count, seed)
        job.result()
        port.expect_event(sc.EVENT_CLOSED)

    def test_without_clients(self):
        """Saved and loaded with nobody there; later clients work."""
        self.savevm()
        session = self.rig.raw()
        self.echo(session.open_port(PORT))
        session.close()
        self.loadvm()
        session = self.rig.raw()
        self.echo(session.open_port(PORT))
        session.close()

    def test_under_a_port_client(self):
        """The guest sees its client leave and come, the client its guest's
        port close and open; both go on without a reconnect."""
        session = self.rig.raw()
        port = session.open_port(PORT)
        hold = self.guest.hold(PORT)
        port.expect_event(sc.EVENT_OPENED)
        self.savevm()
        for _ in range(3):
            port.send_data(words(500, 7))
            before = len(self.qemu.log())
            self.loadvm()
            port.expect_event(sc.EVENT_CLOSED)
            port.expect_event(sc.EVENT_OPENED)
            wait_until(lambda: self.told(before) == "01", 5,
                       "the guest to see a close and an open")
        hold.end()
        port.expect_event(sc.EVENT_CLOSED)
        self.echo(port)
        session.close()

    def test_queued_data(self):
        """Saving takes nothing away from what waits for the guest; loading
        drops it, whoever sent it."""
        session = self.rig.raw()
        port = session.open_port(PORT)
        job = self.guest.start("porttool check %s 16000 -s 2" % PORT)
        port.expect_event(sc.EVENT_OPENED)
        self.qemu.command("stop")
        port.send_data(words(1000, 2))
        self.qemu.wait_flow("p1", "to-guest-bytes", 8000)
        self.savevm()
        assert self.qemu.flow("p1")["to-guest-bytes"] == 8000
        self.qemu.command("cont")
        port.send_data(words(2000, 2)[8000:])
        job.result()
        port.expect_event(sc.EVENT_CLOSED)
        self.loadvm()       # stopped, the job waits for its first byte
        assert self.qemu.flow("p1")["to-guest-bytes"] == 0
        port.expect_event(sc.EVENT_OPENED)
        port.send_data(words(2000, 2))
        self.guest.revive(job)
        self.qemu.command("cont")
        job.result()
        session.close()

    def test_under_an_agent_client(self):
        """The agent works again within a second and without a reconnect; the
        agent of then is told that its client of then is gone."""
        before, lost, after = (message(CLIPBOARD, bytes([c]) * 300)
                               for c in b"ABC")
        expected = chunk(before) + GONE + chunk(after)
        session = self.rig.raw()
        main = session.main
        job = self.guest.start("porttool recv %s %d /tmp/got" %
                               (AGENT, len(expected)))
        session.wait_agent()
        main.agent_start()
        main.agent_data(before)
        main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        self.savevm()
        main.agent_data(lost)
        main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        for _ in range(3):
            self.loadvm()
            since = time.monotonic()
            main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
            main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
            main.agent_start()
            main.agent_data(after)
            main.expect(sc.MSG_MAIN_AGENT_TOKEN)
            assert time.monotonic() - since < seconds(1), "it took too long"
            job.wait()
            assert self.guest.read_file("/tmp/got") == expected
            self.guest.revive(job)
        self.guest.forget(job)
        session.close()

    def test_agent_torn(self):
        """A message of which the guest has a part at the time of the snapshot
        is ended by CLIENT_DISCONNECTED, and the next client's is whole."""
        long = message(CLIPBOARD, bytes(5000))
        after = message(CLIPBOARD, b"after")
        expected = chunk(long[:2048]) + GONE + chunk(after)
        job = self.guest.start("porttool recv %s %d /tmp/got" %
                               (AGENT, len(expected)))
        session = self.rig.raw()
        session.wait_agent()
        session.main.agent_start()
        session.main.agent_data(long[:2048])
        session.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        self.savevm()
        session.main.agent_data(long[2048:4096])
        session.main.agent_data(long[4096:])
        session.close()
        job.wait(check=False)
        self.loadvm()
        self.guest.revive(job)
        session = self.rig.raw()
        session.wait_agent()
        session.main.agent_start()
        session.main.agent_data(after)
        job.wait()
        assert self.guest.read_file("/tmp/got") == expected
        session.close()

    def test_agent_not_there_then(self):
        """Back to before the agent came: clients are told that it is gone."""
        session = self.rig.raw()
        self.savevm("before")
        job = self.guest.hold(AGENT)
        session.wait_agent()
        session.main.agent_start()
        session.main.agent_data(message(CLIPBOARD, b"x"))
        session.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        self.loadvm("before")
        session.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        assert not self.qemu.flow("agent")["guest-open"]
        self.guest.forget(job)
        job = self.guest.hold(AGENT)
        assert session.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        job.end()
        session.close()

    def test_nothing_to_carry_then(self):
        """A snapshot that has nothing of the port is loaded under a client
        with much queued: that is gone, and the client goes on."""
        self.savevm("empty")
        session = self.rig.raw()
        port = session.open_port(PORT)
        hold = self.guest.hold(PORT)
        port.expect_event(sc.EVENT_OPENED)
        self.qemu.command("stop")
        port.send_data(words(1000, 3))
        self.qemu.wait_flow("p1", "to-guest-bytes", 8000)
        self.loadvm("empty")
        assert self.qemu.flow("p1")["to-guest-bytes"] == 0
        port.expect_event(sc.EVENT_CLOSED)
        self.guest.forget(hold)
        self.qemu.command("cont")
        self.echo(port)
        session.close()


class TestUsb:
    """A drive that a client has plugged in, and snapshots."""

    def setup(self, rig):
        self.rig = rig
        self.usb = Usb(rig, "qemu-xhci", more=migration.disk(
            rig.path("disk")))
        self.guest = self.usb.guest
        self.qemu = self.guest.qemu
        self.image = rig.path("cd.img")
        self.sha256 = make_image(self.image, 4 * MIB)

    def works(self):
        """Another drive, in another client."""
        client = self.usb.client()
        self.usb.plug(client, self.image)
        self.usb.wait_drive()
        assert self.usb.digest() == self.sha256
        client.quit()
        self.usb.wait_no_drive()

    def test_under_its_client(self):
        """The device of then leaves, and comes when the client plugs it in
        again."""
        client = self.usb.client()
        self.usb.plug(client, self.image)
        self.usb.wait_drive()
        assert self.usb.digest() == self.sha256
        migration.savevm(self.qemu, "a")
        self.guest.poll()
        migration.loadvm(self.qemu, "a")
        client.expect(r"^channel-event usbredir 0 closed")
        client.expect(r"^channel-event usbredir 0 opened")
        self.usb.wait_no_drive()
        other = self.rig.path("other.img")
        sha256 = make_image(other, 2 * MIB)
        self.usb.plug(client, other)
        self.usb.wait_drive()
        assert self.usb.digest() == sha256
        client.quit()
        self.usb.wait_no_drive()
        self.works()

    def test_without_clients(self):
        """It is loaded when nobody is there: the device of then leaves."""
        migration.loadvm(self.qemu, "a")
        self.usb.wait_no_drive()
        self.works()

    def test_in_the_middle_of_a_packet(self):
        """A client has sent a part of a packet when the snapshot is loaded."""
        migration.savevm(self.qemu, "b")
        session = self.rig.raw()
        session.attach()
        channel = session.open(sc.USBREDIR, 0)
        hello = struct.pack("<III", 0, 68, 0) + b"test".ljust(64, b"\0") + \
            struct.pack("<I", 0)
        channel.send_data(hello)
        # a connect of a device, without its last bytes
        channel.send_data(struct.pack("<III", 1, 10, 0) + bytes(4))
        channel.receive_data(80)
        migration.loadvm(self.qemu, "b")
        channel.wait_closed()
        session.close()
        self.works()


class TestCard:
    """A smart card's reader, and snapshots: no guest looks at it."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(
            *server_args(rig.socket), "-device", "piix3-usb-uhci",
            "-device", "usb-ccid", *chardev_args("card", "smartcard"),
            "-device", "ccid-card-passthru,chardev=card",
            *migration.disk(rig.path("disk")))

    def add(self):
        """A client that adds a reader; the device's answer."""
        session = self.rig.raw()
        session.attach()
        channel = session.open(sc.SMARTCARD, 0)
        channel.send(sc.MSGC_DATA, struct.pack("<III", 3, 0xffffffff, 5) +
                     b"card\0")
        return session, channel

    @staticmethod
    def answer(channel):
        """Reader and code of the device's next answer."""
        kind, reader, size = struct.unpack_from("<III", body := channel.expect(
            sc.MSG_DATA))
        assert (kind, size) == (2, 4), body
        return reader, struct.unpack(">I", body[12:])[0]

    def test_under_its_client(self):
        """The client of now loses its channel, the reader of then is removed,
        and the next client's is added."""
        session, channel = self.add()
        assert self.answer(channel) == (0, 0)
        migration.savevm(self.qemu, "a")
        for _ in range(2):
            migration.loadvm(self.qemu, "a")
            channel.wait_closed()
            session.close()
            session, channel = self.add()
            assert self.answer(channel) == (0, 0)
        session.close()

    def test_stopped(self):
        """A command that waited for a stopped device is not answered, and
        nobody waits for the answer."""
        self.qemu.command("stop")
        session, channel = self.add()
        self.qemu.wait_flow("card", "to-guest-messages", 1)
        migration.savevm(self.qemu, "b")
        migration.loadvm(self.qemu, "b")
        channel.wait_closed()
        session.close()
        self.qemu.command("cont")
        for _ in range(2):
            session, channel = self.add()
            assert self.answer(channel) == (0, 0)
            session.close()
            self.qemu.wait_no_clients()

    def test_leaves_meanwhile(self):
        """So it is with a client that leaves a stopped VM."""
        self.qemu.command("stop")
        session, channel = self.add()
        self.qemu.wait_flow("card", "to-guest-messages", 1)
        session.close()
        self.qemu.wait_no_clients()
        self.qemu.command("cont")
        session, channel = self.add()
        assert self.answer(channel) == (0, 0)
        self.qemu.command("stop")
        session.close()
        self.qemu.wait_no_clients()
        self.qemu.command("cont")
        session, channel = self.add()
        assert self.answer(channel) == (0, 0)
        session.close()
