# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that follow the guest in a live migration.

Scripted clients show each message of the three ways, seamless, semi-seamless
and switch-host, and what becomes of those who do it wrong; the real client
library shows that a user notices nothing.
"""

import hashlib
import os
import re
import struct

from lib import handover, migration, paths, spiceclient as sc
from lib.process import wait_until
from lib.rig import PORT, chardev_args, port_args, usb_args

MIB = 1 << 20
AGENT = "com.redhat.spice.0"


def words(count, seed=0, first=0):
    """Words as porttool generates and checks them."""
    return struct.pack("<%dQ" % count, *(seed << 48 | i for i in range(
        first, first + count)))


def check(got, wanted):
    """Equal, or where they are not."""
    if got != wanted:
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b),
                  min(len(got), len(wanted)))
        raise AssertionError(
            "%d bytes, not %d; from byte %d on %s, not %s" % (
                len(got), len(wanted), at, got[at:at + 24].hex(),
                wanted[at:at + 24].hex()))


class Travel:
    """A guest whose clients go with it from one QEMU to the next."""

    PROPERTIES = {}

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(*self.args())
        self.prepared = None

    def args(self):
        return [*handover.server_args(**self.PROPERTIES), *port_args(PORT),
                *chardev_args("agent", "vdagent", "spiceflow"),
                "-device", "virtserialport,chardev=agent,name=" + AGENT,
                "-trace", "spiceflow_handover",
                "-trace", "spiceflow_channel_hand_over",
                "-trace", "spiceflow_channel_arrive"]

    @property
    def qemu(self):
        return self.guest.qemu

    def target(self):
        return self.rig.qemu(*self.args(), "-incoming", "defer",
                             guest=paths.guest_images())

    def session(self, **options):
        return self.rig.raw(handover.address(self.qemu), **options)

    def run(self, target):
        self.guest.poll()
        handover.run(self.qemu, target, self.rig.path("wire"))

    def arrive(self, target, timeout=20):
        """The guest is there, its clients go on; the old QEMU ends."""
        old = self.qemu
        handover.finish(old, target, timeout)
        handover.adopt(self.guest, target)
        old.quit()


class TestSeamless(Travel):
    """The same session goes on."""

    def test_port(self):
        """Records both ways, with some in every place where they may be when
        the state is saved."""
        session = self.session()
        port = session.open_port(PORT)
        job = self.guest.start("porttool echo %s %d" % (PORT, 4000 * 8))
        assert port.expect(sc.MSG_PORT_EVENT) == bytes([sc.EVENT_OPENED])
        port.send_data(words(1000, 1))
        assert port.receive_data(8000) == words(1000, 1)
        target = self.target()
        handover.set_target(self.qemu, target)
        arrival = handover.follow(session)
        handover.wait_states(self.qemu, "seamless")
        self.qemu.command("stop")
        sent = words(4000, 1)
        port.send_data(sent[8000:16000])
        wait_until(lambda: self.qemu.get("/chardevs/p1", "flow")
                   ["to-guest-bytes"] == 8000, 5, "the bytes")
        # a message in the middle of its body, and then one of its header
        half = port.message(sc.MSGC_DATA, sent[16000:24000])
        port.connection.send(half[:3000])
        self.qemu.command("cont")
        self.run(target)
        port.connection.send(half[3000:])
        port.send_data(sent[24000:28000])
        handover.swap(session, arrival)
        port.send_data(sent[28000:])
        check(port.receive_data(24000), sent[8000:])
        self.arrive(target)
        job.result()


class TestClientLibrary(Travel):
    """The client on libspice-client-glib, three times from one QEMU to the
    next with all it does, and nothing missing at the end."""

    BACK = "org.example.back.0"

    def args(self):
        return [*handover.server_args(),
                *port_args(PORT, self.BACK),
                *chardev_args("agent", "vdagent", "spiceflow"),
                "-device", "virtserialport,chardev=agent,name=" + AGENT,
                *usb_args("qemu-xhci"),
                "-trace", "spiceflow_handover",
                "-trace", "spiceflow_channel_hand_over",
                "-trace", "spiceflow_channel_close",
                "-trace", "spiceflow_channel_arrive"]

    def client(self, *options):
        return self.rig.client(*options, uri=handover.uri(self.qemu))

    def move(self):
        target = self.target()
        handover.begin(self.qemu, target)
        self.run(target)
        self.arrive(target)

    def test_streams(self):
        """Ports, one way each."""
        total = 48 * MIB
        client = self.client()
        client.find(r"^port-new %s$" % PORT)
        client.find(r"^port-new %s$" % self.BACK)
        client.send("port", PORT, "check", total, 3)
        out = self.guest.start("porttool gen %s %d -s 3" % (PORT, total))
        back = self.guest.start("porttool check %s %d -s 5" %
                                (self.BACK, total))
        client.wait_port(PORT)
        client.wait_port(self.BACK)
        client.send("port", self.BACK, "gen", total, 5)
        for _ in range(2):
            self.move()
        client.outcome("port", PORT, "check", timeout=60)
        out.result()
        back.result(60)
        client.quit()

    def test_all(self):
        """A CD that the guest reads and a file that is copied to it, at once;
        the guest's agent and drive see nothing of it."""
        cd, cd_sum = self.file("cd.img", 24 * MIB)
        copy, copy_sum = self.file("copy", 16 * MIB)
        agent = self.guest.start("agenttool run")
        agent.line("^open$")
        self.guest.run("echo 0 > /sys/module/usb_storage/parameters/delay_use")
        client = self.client("--usb-channel", "0")
        client.find(r"^channel-event usbredir 0 opened")
        client.find(r"^agent-caps ")
        client.send("usb", "cd", cd)
        client.outcome("usb", "cd", "cd.img")
        self.guest.run("until [ -e /sys/block/sr0 ]; do usleep 5000; done")
        before = len(client.lines)
        read = self.guest.start("sha256sum /dev/sr0")
        client.send("agent", "copy", copy)
        for _ in range(2):
            self.move()
        done = agent.line("^file-done .*name=copy .*", 90)
        assert done.group(0).endswith("sha256=" + copy_sum), done.group(0)
        assert client.outcome("agent", "copy", "copy")["bytes"] == 16 * MIB
        assert read.wait(90).split()[0] == cd_sum
        client.poll()
        news = [line for line in client.lines[before:] if
                re.match("channel-|agent-connected|usb-removed", line)]
        assert not news, news
        assert "disconnected" not in agent.output, agent.output
        client.quit()

    def file(self, name, size):
        path = self.rig.path(name)
        data = os.urandom(size)
        with open(path, "wb") as file:
            file.write(data)
        return path, hashlib.sha256(data).hexdigest()
