# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots: the guest goes back in time, clients do not.

They are told so where the protocol has a word for it and go on at once, and
what they sent to the guest of before never reaches the guest of then.
"""

import re
import struct
import time

from lib import migration, spiceclient as sc
from lib.process import wait_until
from lib.rig import PORT, chardev_args, port_args, server_args
from test_usb import Usb, make_image

MIB = 1 << 20

AGENT = "com.redhat.spice.0"
# VD_AGENT_CLIENT_DISCONNECTED as the server's own chunk
GONE = struct.pack("<IIIIQI", 2, 20, 1, 13, 0, 0)


def words(count, seed=0):
    """Words as porttool generates and checks them."""
    return struct.pack("<%dQ" % count, *(seed << 48 | i
                                         for i in range(count)))


def agent_message(payload, kind=4):
    return struct.pack("<IIQI", 1, kind, 0, len(payload)) + payload


def chunk(piece):
    """A client's piece as the guest gets it."""
    return struct.pack("<II", 1, len(piece)) + piece


def agent_args():
    return [*chardev_args("agent", "vdagent"), "-device",
            "virtserialport,chardev=agent,name=" + AGENT]


def agent_connected(session):
    """Wait until the session knows of an agent; its window."""
    if session.init.agent_connected:
        return session.init.agent_tokens
    return struct.unpack("<I", session.main.expect(
        sc.MSG_MAIN_AGENT_CONNECTED_TOKENS))[0]


def queued(qemu, chardev):
    return qemu.get("/chardevs/" + chardev, "flow")["to-guest-bytes"]


class TestSnapshot:
    """One guest with a port, an agent's port and a disk for snapshots."""

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(
            *server_args(rig.socket), *port_args(PORT), *agent_args(),
            *migration.disk(rig.path("disk")),
            "-trace", "virtio_serial_send_control_event")
        self.qemu = self.guest.qemu

    def savevm(self, name="a"):
        migration.savevm(self.qemu, name)

    def loadvm(self, name="a"):
        migration.loadvm(self.qemu, name)

    def revive(self, job):
        """A job that has ended runs in the snapshot."""
        job.status = None
        job.output = ""
        self.guest.jobs[job.number] = job

    def told(self, before):
        """What the guest was told of the port's host side, as "0" and "1"."""
        return "".join(re.findall(
            r"send_control_event port 1, event 6, value (\d)",
            self.qemu.log()[before:]))

    def echo(self, port, count=1000, seed=4):
        """Some traffic both ways through an open port."""
        job = self.guest.start("porttool echo %s %d" % (PORT, count * 8))
        while port.expect(sc.MSG_PORT_EVENT) != bytes([sc.EVENT_OPENED]):
            pass
        port.send_data(words(count, seed))
        assert port.receive_data(count * 8) == words(count, seed)
        job.result()
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_CLOSED])

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
        hold = self.guest.start("porttool hold %s 600" % PORT)
        hold.line("mode=hold")
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_OPENED])
        self.savevm()
        for _ in range(3):
            port.send_data(words(500, 7))
            before = len(self.qemu.log())
            self.loadvm()
            assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_CLOSED])
            assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_OPENED])
            wait_until(lambda: self.told(before) == "01", 5,
                       "the guest to see a close and an open")
        hold.signal(15)
        hold.wait(check=False)
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_CLOSED])
        self.echo(port)
        session.close()

    def test_queued_data(self):
        """Saving takes nothing away from what waits for the guest; loading
        drops it, whoever sent it."""
        session = self.rig.raw()
        port = session.open_port(PORT)
        job = self.guest.start("porttool check %s 16000 -s 2" % PORT)
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_OPENED])
        self.qemu.command("stop")
        port.send_data(words(1000, 2))
        wait_until(lambda: queued(self.qemu, "p1") == 8000, 5, "the bytes")
        self.savevm()
        assert queued(self.qemu, "p1") == 8000
        self.qemu.command("cont")
        port.send_data(words(2000, 2)[8000:])
        job.result()
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_CLOSED])
        self.loadvm()       # stopped, the job waits for its first byte
        assert queued(self.qemu, "p1") == 0
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_OPENED])
        port.send_data(words(2000, 2))
        self.revive(job)
        self.qemu.command("cont")
        job.result()
        session.close()

    def test_under_an_agent_client(self):
        """The agent works again within a second and without a reconnect; the
        agent of then is told that its client of then is gone."""
        before, lost, after = (agent_message(bytes([c]) * 300)
                               for c in b"ABC")
        expected = chunk(before) + GONE + chunk(after)
        session = self.rig.raw()
        main = session.main
        job = self.guest.start("porttool recv %s %d /tmp/got" %
                               (AGENT, len(expected)))
        agent_connected(session)
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
            assert time.monotonic() - since < 1, "it took too long"
            job.wait()
            assert self.guest.run("od -An -v -tx1 /tmp/got | tr -d ' \\n'") \
                == expected.hex()
            self.revive(job)
        self.guest.forget(job)
        session.close()

    def test_agent_torn(self):
        """A message of which the guest has a part at the time of the snapshot
        is ended by CLIENT_DISCONNECTED, and the next client's is whole."""
        long = agent_message(bytes(5000))
        after = agent_message(b"after")
        expected = chunk(long[:2048]) + GONE + chunk(after)
        job = self.guest.start("porttool recv %s %d /tmp/got" %
                               (AGENT, len(expected)))
        session = self.rig.raw()
        agent_connected(session)
        session.main.agent_start()
        session.main.agent_data(long[:2048])
        session.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        self.savevm()
        session.main.agent_data(long[2048:4096])
        session.main.agent_data(long[4096:])
        session.close()
        job.wait(check=False)
        self.loadvm()
        self.revive(job)
        session = self.rig.raw()
        agent_connected(session)
        session.main.agent_start()
        session.main.agent_data(after)
        job.wait()
        assert self.guest.run("od -An -v -tx1 /tmp/got | tr -d ' \\n'") == \
            expected.hex()
        session.close()

    def test_agent_not_there_then(self):
        """Back to before the agent came: clients are told that it is gone."""
        session = self.rig.raw()
        self.savevm("before")
        job = self.guest.start("porttool hold %s 600" % AGENT)
        job.line("mode=hold")
        agent_connected(session)
        session.main.agent_start()
        session.main.agent_data(agent_message(b"x"))
        session.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        self.loadvm("before")
        session.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        assert not self.qemu.get("/chardevs/agent", "flow")["guest-open"]
        self.guest.forget(job)
        job = self.guest.start("porttool hold %s 600" % AGENT)
        job.line("mode=hold")
        assert session.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        job.signal(15)
        job.wait(check=False)
        session.close()

    def test_nothing_to_carry_then(self):
        """A snapshot that has nothing of the port is loaded under a client
        with much queued: that is gone, and the client goes on."""
        self.savevm("empty")
        session = self.rig.raw()
        port = session.open_port(PORT)
        hold = self.guest.start("porttool hold %s 600" % PORT)
        hold.line("mode=hold")
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_OPENED])
        self.qemu.command("stop")
        port.send_data(words(1000, 3))
        wait_until(lambda: queued(self.qemu, "p1") == 8000, 5, "the bytes")
        self.loadvm("empty")
        assert queued(self.qemu, "p1") == 0
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_CLOSED])
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
        wait_until(lambda: self.qemu.get("/chardevs/card", "flow")
                   ["to-guest-messages"] == 1, 5, "the command")
        migration.savevm(self.qemu, "b")
        migration.loadvm(self.qemu, "b")
        channel.wait_closed()
        session.close()
        self.qemu.command("cont")
        for _ in range(2):
            session, channel = self.add()
            assert self.answer(channel) == (0, 0)
            session.close()
            wait_until(lambda: not self.qemu.get("/objects/sf0", "stats")
                       ["clients"], 5, "the leave")

    def test_leaves_meanwhile(self):
        """So it is with a client that leaves a stopped VM."""
        self.qemu.command("stop")
        session, channel = self.add()
        wait_until(lambda: self.qemu.get("/chardevs/card", "flow")
                   ["to-guest-messages"] == 1, 5, "the command")
        session.close()
        wait_until(lambda: not self.qemu.get("/objects/sf0", "stats")
                   ["clients"], 5, "the leave")
        self.qemu.command("cont")
        session, channel = self.add()
        assert self.answer(channel) == (0, 0)
        self.qemu.command("stop")
        session.close()
        wait_until(lambda: not self.qemu.get("/objects/sf0", "stats")
                   ["clients"], 5, "the leave")
        self.qemu.command("cont")
        session, channel = self.add()
        assert self.answer(channel) == (0, 0)
        session.close()
