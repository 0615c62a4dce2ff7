# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's channel with Debian's own agent.

Every test here uses spice-vdagentd and spice-vdagent as Debian's package
spice-vdagent has them, in a session on an X server without a screen; xclip is
the program that copies and pastes there (tests/guest/desktop).  The client is
libspice-client-glib, but where a test says that it is scripted.  What needs
an agent that says what it sees, or misbehaves, is in test_agent.py.
"""

import os
import struct

from lib import agentguest as ag
from lib.agentscript import AgentClient
from lib.paths import unless_quick
from lib.rig import agent_args, not_with_peer, server_args
from lib.samples import KIB, MIB, make_file, make_text

VARIANTS = ("desktop",)
CLIP_SIZES = (1, 2048, 100 * KIB, 16 * MIB)
FILE_SIZES = (0, 1, unless_quick(16 * MIB, 256 * MIB))
XCLIP = "DISPLAY=:0 xclip -selection clipboard "


class Desktop:
    """A rig with Debian's agent in the guest."""

    def setup(self, rig):
        not_with_peer("two clients of one agent")
        self.rig = rig
        self.guest = rig.guest(*server_args(rig.socket, clients=2,
                                            stall_timeout=500),
                               *agent_args(), variant="desktop",
                               memory=1024)
        self.qmp = self.guest.qemu.qmp
        self.guest.run("desktop", 60)

    def client(self, *options):
        """A client that has found the agent."""
        client = self.rig.client(*options)
        client.find(r"^agent-caps ")
        return client

    # -- clipboard --

    def guest_offers(self, client, path):
        client.skip()
        self.guest.run(XCLIP + "-i " + path)
        client.expect(r"^clip-grab 0 1\b")

    def clip_to_guest(self, client, size):
        """Copied at the client, pasted in the guest's session."""
        path = self.rig.path("clip")
        sha256 = make_text(path, size)
        # so that what is found later is the client's
        self.guest_offers(client, "/dev/null")
        client.send("clip", "set", path)
        self.guest.run("until %s-o -t UTF8_STRING >/tmp/got && [ -s /tmp/got ]"
                       "; do sleep 0.1; done" % XCLIP, 100)
        got = self.guest.run("wc -c </tmp/got; sha256sum /tmp/got").split()
        assert got[:2] == [str(size), sha256], got

    def clip_to_client(self, client, size):
        """Copied in the guest's session, pasted at the client."""
        self.guest.run("porttool file /tmp/raw %d -s %d && base64 /tmp/raw | "
                       "head -c %d >/tmp/clip" % (size, size % 99, size), 100)
        sha256 = self.guest.run("sha256sum /tmp/clip", 100).split()[0]
        self.guest_offers(client, "/tmp/clip")
        client.send("clip", "get", self.rig.path("got"))
        done = client.outcome("clip", "get", timeout=100)
        assert (done["bytes"], done["sha256"]) == (size, sha256), done

    # -- files --

    def file(self, size, name):
        path = self.rig.path(name)
        return path, make_file(path, size)

    def copied(self, client, path, sha256, timeout=300):
        """The copy has ended well, and this is in the guest; it goes."""
        name = os.path.basename(path)
        client.outcome("agent", "copy", name, timeout=timeout)
        there = "/tmp/files/" + name
        got = self.guest.run("sha256sum %s" % there, timeout).split()[0]
        assert got == sha256, (name, self.guest.run("ls -l /tmp/files"))
        self.guest.run("rm " + there)

    def check_copy(self, client, size=100 * KIB, name="check"):
        path, sha256 = self.file(size, name)
        client.send("agent", "copy", path)
        self.copied(client, path, sha256)

    def check(self, client):
        """Everything works for this client, now."""
        self.check_copy(client)
        self.clip_to_guest(client, 3000)
        self.clip_to_client(client, 4000)


class TestVdagentd(Desktop):
    """One session; a client, or two, for each test."""

    def test_capabilities(self):
        """spice-vdagentd: each side learns what the other can do; the agent's
        port is opened when its session begins."""
        client = self.client()
        caps = int(client.find(r"^agent-caps (\w+)$").group(1), 16)
        for cap in (ag.CAP_MONITORS_CONFIG, ag.CAP_REPLY, ag.CAP_BY_DEMAND,
                    ag.CAP_SELECTION, ag.CAP_MAX_CLIPBOARD):
            assert caps & 1 << cap, (hex(caps), cap)
        assert not caps & 1 << ag.CAP_XFER_DISABLED, hex(caps)
        flow = self.qmp.command("qom-get", path="/chardevs/agent",
                                property="flow")["agent"]
        assert flow["connected"] and flow["started-clients"] == 1, flow
        assert "clipboard-selection" in flow["guest-capabilities"], flow
        client.quit()

    def test_clipboard(self):
        """spice-vdagentd: text of 1 byte to 16 MiB, both ways."""
        client = self.client()
        for size in CLIP_SIZES:
            self.clip_to_guest(client, size)
            self.clip_to_client(client, size)
        client.quit()

    def test_files(self):
        """spice-vdagentd: nothing, one byte, and a large one."""
        client = self.client()
        for size in FILE_SIZES:
            self.check_copy(client, size, "file%d" % size)
        client.quit()

    test_files.deadline = unless_quick(120, 400)

    def test_monitors(self):
        """spice-vdagentd, and a scripted client: what it says of its screens
        gets there, and the answer comes back."""
        client = AgentClient(self.rig.raw())
        client.main.agent_start()
        client.announce()
        client.expect(ag.ANNOUNCE_CAPABILITIES)
        screen = struct.pack("<IIIII", 480, 640, 32, 0, 0)
        client.say(ag.MONITORS_CONFIG, struct.pack("<II", 1, 0) + screen)
        reply = client.expect(ag.REPLY)
        assert reply == struct.pack("<II", ag.MONITORS_CONFIG, 1), reply

    def test_daemon_restarts(self):
        """spice-vdagentd dies in the middle of a copy: the client is told,
        and the next one works for it at once."""
        client = self.client("--progress", "20")
        path, _ = self.file(64 * MIB, "file")
        client.send("agent", "copy", path)
        client.expect(r"^progress agent file [1-9]")
        self.guest.run("desktop restart", 60)
        client.fails("agent", "copy")
        client.find(r"^agent-connected 0$")
        client.expect(r"^agent-connected 1$")
        client.expect(r"^agent-caps ")
        self.check(client)
        client.quit()

    def test_client_killed(self):
        """spice-vdagentd: a client dies in the middle of a copy, and the next
        one works at once."""
        client = self.client("--progress", "20")
        path, _ = self.file(64 * MIB, "file")
        client.send("agent", "copy", path)
        client.expect(r"^progress agent file [1-9]")
        client.process.send_signal(9)
        client.process.wait()
        client = self.client()
        self.check(client)
        client.quit()

    def test_policy(self):
        """spice-vdagentd: what is allowed changes while a client is there; it
        is told with the capabilities, and what is refused is answered."""
        client = self.client()
        client.expect(r"^agent-caps ")
        qemu = self.guest.qemu
        qemu.set("/objects/sf0", "agent-file-transfer", False)
        caps = client.expect(r"^agent-caps (\w+)$").group(1)
        assert int(caps, 16) & 1 << ag.CAP_XFER_DISABLED, caps
        path, _ = self.file(KIB, "refused")
        client.send("agent", "copy", path)
        client.fails("agent", "copy")
        assert not self.guest.run("ls /tmp/files")
        qemu.set("/objects/sf0", "agent-clipboard", "off")
        caps = client.expect(r"^agent-caps (\w+)$").group(1)
        assert not int(caps, 16) & 1 << ag.CAP_BY_DEMAND, caps
        qemu.set("/objects/sf0", "agent-file-transfer", True)
        qemu.set("/objects/sf0", "agent-clipboard", "both")
        client.expect(r"^agent-caps ")
        client.expect(r"^agent-caps ")
        self.check(client)
        client.quit()

    def test_two_clients(self):
        """spice-vdagentd and two clients: both copy at once, each its own."""
        clients = [self.client(), self.client()]
        files = []
        for number, client in enumerate(clients):
            files.append(self.file(8 * MIB + number, "file%d" % number))
            client.send("agent", "copy", files[-1][0])
        for client, (path, sha256) in zip(clients, files):
            self.copied(client, path, sha256)
        for client in clients:
            self.check(client)
            client.quit()

    def test_one_of_two_killed(self):
        """spice-vdagentd and two clients: one dies in the middle of its copy;
        the other's goes on, and the next client works at once."""
        for _ in range(2):
            first, second = self.begin_two()
            first.process.send_signal(9)
            first.process.wait()
            third = self.client()
            self.copied(second, *self.kept)
            self.check(third)
            self.check(second)
            second.quit()
            third.quit()
        assert self.guest.run("ls /tmp/files") == ""

    def test_one_of_two_stopped(self):
        """spice-vdagentd and two clients: one stops in the middle of its copy;
        the other's goes on, and both can do everything afterwards."""
        first, second = self.begin_two()
        first.pause()
        self.copied(second, *self.kept)
        self.check(second)
        first.resume()
        first.expect(r"^(failed|done) agent copy doomed", 60)
        self.guest.run("rm -f /tmp/files/*")
        self.check(first)
        first.quit()
        second.quit()

    def begin_two(self):
        """Two clients that copy; the first is in the middle of its file."""
        first, second = self.client("--progress", "20"), self.client()
        doomed, _ = self.file(16 * MIB, "doomed")
        self.kept = self.file(4 * MIB, "kept")
        first.send("agent", "copy", doomed)
        first.expect(r"^progress agent doomed [1-9]")
        second.send("agent", "copy", self.kept[0])
        return first, second
