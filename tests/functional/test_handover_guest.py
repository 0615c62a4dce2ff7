# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that follow a guest in a live migration.

A scripted client shows that each byte, message and token comes once and in
order, wherever it was when the state was saved; the real client library shows
that a user notices nothing.  Each message of the ways there are, and what
becomes of those who do it wrong, is in test_handover.
"""

import re
import struct

from lib import handover, migration, spiceclient as sc
from lib.agentguest import CLIPBOARD, chunk, chunks, message, pieces
from lib.guest import words
from lib.rig import AGENT, PORT, agent_port_args, port_args, usb_args
from lib.samples import MIB, make_file


def check(got, wanted):
    """Equal, or where they are not."""
    if got != wanted:
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b),
                  min(len(got), len(wanted)))
        raise AssertionError(
            "%d bytes, not %d; from byte %d on %s, not %s" % (
                len(got), len(wanted), at, got[at:at + 24].hex(),
                wanted[at:at + 24].hex()))


class Travel(migration.Moving):
    """A guest whose clients go with it from one QEMU to the next."""

    def args(self):
        return [*handover.server_args(), *port_args(PORT),
                *agent_port_args("spiceflow"),
                "-trace", "spiceflow_handover",
                "-trace", "spiceflow_channel_hand_over",
                "-trace", "spiceflow_channel_arrive"]

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
        port.expect_event(sc.EVENT_OPENED)
        port.send_data(words(1000, 1))
        assert port.receive_data(8000) == words(1000, 1)
        target = self.target()
        arrival = handover.lead(session, self.qemu, target)
        self.qemu.command("stop")
        sent = words(4000, 1)
        port.send_data(sent[8000:16000])
        self.qemu.wait_flow("p1", "to-guest-bytes", 8000)
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

    def test_agent(self):
        """In the middle of a message each way, with half a piece on the wire:
        the guest's agent hears of nothing, no token is lost."""
        long = message(CLIPBOARD, bytes(range(256)) * 40)
        after = message(CLIPBOARD, b"after")
        cut = pieces(long)
        expected = chunks(long) + chunk(after)
        session = self.session()
        job = self.guest.start("porttool recv %s %d /tmp/got" %
                               (AGENT, len(expected)))
        session.wait_agent()
        session.main.agent_start(0)
        for piece in cut[:2]:
            session.main.agent_data(piece)
        target = self.target()
        arrival = handover.lead(session, self.qemu, target)
        half = session.main.message(sc.MSGC_MAIN_AGENT_DATA, cut[2])
        session.main.connection.send(half[:1000])
        self.run(target)
        session.main.connection.send(half[1000:])
        handover.swap(session, arrival)
        self.arrive(target)
        for piece in cut[3:]:
            session.main.agent_data(piece)
        session.main.agent_data(after)
        job.wait()
        assert self.guest.read_file("/tmp/got") == expected
        # the guest writes nothing, so its side closes with the tool
        tokens = sum(struct.unpack("<I", body)[0] for kind, body in
                     self.messages(session.main)
                     if kind == sc.MSG_MAIN_AGENT_TOKEN)
        assert tokens == len(cut) + 1, tokens
        session.close()

    @staticmethod
    def messages(channel):
        """What comes until the agent is gone."""
        channel.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        return channel.pending

    def test_to_client(self):
        """What waits for the client's tokens goes with the machine; each
        message comes once, in order."""
        session = self.session()
        wanted = [message(CLIPBOARD, bytes([n]) * 100) for n in range(10)]
        # it gets back what it sends; the port stays open
        self.guest.start("porttool echo %s 100000" % AGENT)
        session.wait_agent()
        session.main.agent_start(3)
        for one in wanted:
            session.main.agent_data(one)
        got = [session.main.expect(sc.MSG_MAIN_AGENT_DATA) for _ in range(3)]
        target = self.target()
        arrival = handover.lead(session, self.qemu, target)
        self.run(target)
        session.main.agent_token(2)
        handover.swap(session, arrival)
        self.arrive(target)
        session.main.agent_token(20)
        got += [session.main.expect(sc.MSG_MAIN_AGENT_DATA) for _ in range(7)]
        assert got == wanted
        session.close()

    def test_postcopy(self):
        """The guest runs at the target before its memory is there."""
        session = self.session()
        port = session.open_port(PORT)
        job = self.guest.start("porttool echo %s %d" % (PORT, 3000 * 8))
        port.expect_event(sc.EVENT_OPENED)
        port.send_data(words(1000))
        target = self.target()
        arrival = handover.lead(session, self.qemu, target)

        def follow():
            port.send_data(words(1000, first=1000))
            handover.swap(session, arrival)
            port.send_data(words(1000, first=2000))

        self.guest.poll()
        migration.postcopy(self.qemu, target, self.rig.path("wire"), follow)
        self.arrive(target)
        check(port.receive_data(24000), words(3000))
        job.result()
        session.close()


class TestClientLibrary(Travel):
    """The client on libspice-client-glib, three times from one QEMU to the
    next with all it does, and nothing missing at the end."""

    BACK = "org.example.back.0"

    def args(self):
        return [*handover.server_args(),
                *port_args(PORT, self.BACK),
                *agent_port_args("spiceflow"),
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

    def test_source_ends_at_once(self):
        """Management ends the source when the guest runs at the target."""
        total = 16 * MIB
        client = self.client()
        client.find(r"^port-new %s$" % PORT)
        client.send("port", PORT, "gen", total, 7)
        job = self.guest.start("porttool check %s %d -s 7" % (PORT, total))
        client.wait_port(PORT)
        target = self.target()
        handover.begin(self.qemu, target)
        self.run(target)
        old = self.qemu
        handover.adopt(self.guest, target)
        old.quit()
        client.outcome("port", PORT, "gen", timeout=60)
        job.result(60)
        client.quit()

    def file(self, name, size):
        path = self.rig.path(name)
        return path, make_file(path, size)
