# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's channel: clipboard and file transfer, with a real guest.

The guest's side here is tests/guest/agenttool.c, which speaks the agent
protocol on the port itself, needs no desktop and can misbehave; the real
spice-vdagentd has its tests in test_vdagentd.py.
"""

import os
import re
import time

from lib.paths import RigError, scaled
from lib.rig import agent_args, backend, not_with_peer, server_args
from lib.samples import KIB, MIB, make_file, make_text

CLIP_SIZES = (1, 2048, 100 * KIB, 16 * MIB)
FILE_SIZES = (0, 1, 256 * MIB)


class Agent:
    """The test agent in the guest."""

    def __init__(self, guest, *options):
        self.guest = guest
        self.options = options
        self.start()

    def start(self):
        self.job = self.guest.start("agenttool run " + " ".join(self.options))
        self.expect("^open$")

    def expect(self, pattern, timeout=30):
        """The next of its lines that matches; "bad" ends it and raises."""
        return self.job.line(pattern, timeout)

    def expect_all(self, *patterns, timeout=30):
        """Lines that match all of these, in whatever order."""
        left = list(patterns)
        while left:
            line = self.expect("|".join("(?:%s)" % p for p in left), timeout)
            left = [p for p in left if not re.search(p, line.group(0))]

    def do(self, *words):
        self.guest.run("agenttool do " + " ".join(map(str, words)))

    def kill(self):
        self.job.signal(9)
        self.job.wait(10, check=False)


class AgentRig:
    """What the tests of this file share."""

    def start_rig(self, rig, **options):
        self.rig = rig
        self.guest = rig.guest(*server_args(rig.socket, **options),
                               *agent_args())

    def client(self, *options):
        """A client that has found the agent."""
        client = self.rig.client(*options)
        client.find(r"^agent-caps ")
        return client

    def file(self, size, name="file"):
        path = self.rig.path(name)
        return path, make_file(path, size)

    @staticmethod
    def copy(client, path):
        """Begin to copy a file into the guest."""
        client.send("agent", "copy", path)

    @staticmethod
    def copied(agent, client, path, sha256, timeout=100):
        """The copy has ended well on both sides."""
        name = os.path.basename(path)
        done = agent.expect(r"^file-done .*name=%s .*" % name, timeout)
        assert done.group(0).endswith("sha256=" + sha256), done.group(0)
        assert client.outcome("agent", "copy", name)["bytes"] == \
            os.path.getsize(path)

    def check_copy(self, agent, client, size=100 * KIB, name="check"):
        """A file can be copied, now."""
        path, sha256 = self.file(size, name)
        self.copy(client, path)
        self.copied(agent, client, path, sha256)

    def clip_to_guest(self, agent, client, size):
        path = self.rig.path("clip")
        sha256 = make_text(path, size)
        client.send("clip", "set", path)
        agent.expect(r"^clip-grab selection=0 types=1 first=1$")
        agent.do("get")
        got = agent.expect(r"^clip-data type=1 bytes=(\d+) sha256=(\w+)$", 60)
        assert got.groups() == (str(size), sha256), got.group(0)

    def clip_to_client(self, agent, client, size):
        self.guest.run("porttool file /tmp/clip %d -s %d" % (size, size % 99))
        sha256 = self.guest.run("sha256sum /tmp/clip").split()[0]
        agent.do("set", "/tmp/clip")
        client.expect(r"^clip-grab 0 1$")
        client.send("clip", "get", self.rig.path("got"))
        done = client.outcome("clip", "get")
        assert done["bytes"] == size, done
        assert done["sha256"] == sha256, done
        agent.expect(r"^clip-request selection=0 type=1$")
        self.guest.run("rm /tmp/clip")


class TestAgent(AgentRig):
    """One guest, one client at a time, an agent of its own for each test."""

    def setup(self, rig):
        self.start_rig(rig)

    def test_capabilities(self):
        """Each side learns what the other can do, whoever comes first."""
        agent = Agent(self.guest)
        client = self.rig.client()
        client.find(r"^agent-connected 1$")
        caps = client.find(r"^agent-caps (\w+)$").group(1)
        # monitors, reply, by-demand, selection, LF, max, detailed errors
        assert int(caps, 16) == 0x4566, caps
        agent.expect(r"^caps request=1 caps=0x\w+$")
        agent.kill()
        client.expect(r"^agent-connected 0$")
        agent = Agent(self.guest)
        client.expect(r"^agent-connected 1$")
        client.expect(r"^agent-caps 4566$")
        agent.expect(r"^caps ")
        client.quit()
        agent.expect(r"^client-left$")

    def test_clipboard(self):
        """Text of 1 byte to 16 MiB, both ways."""
        agent = Agent(self.guest)
        client = self.client()
        for size in CLIP_SIZES:
            self.clip_to_guest(agent, client, size)
            self.clip_to_client(agent, client, size)
        client.quit()

    def test_large_clipboard(self):
        """64 MiB each way do not become QEMU's."""
        agent = Agent(self.guest)
        client = self.client()
        self.clip_to_guest(agent, client, MIB)
        self.clip_to_client(agent, client, MIB)
        process = self.guest.qemu.process
        before = process.private_kib()
        self.clip_to_guest(agent, client, scaled(64 * MIB))
        self.clip_to_client(agent, client, scaled(64 * MIB))
        grown = process.private_kib() - before
        assert grown < 16 * 1024, "QEMU grew by %d KiB" % grown
        client.quit()

    def test_files(self):
        """Nothing, one byte, and 256 MiB."""
        agent = Agent(self.guest)
        client = self.client()
        for number, size in enumerate(FILE_SIZES):
            path, sha256 = self.file(scaled(size, min(size, 1)),
                                     "file%d" % number)
            self.copy(client, path)
            self.copied(agent, client, path, sha256)
        client.quit()

    def test_small_chunks(self):
        """An agent that sends in small pieces is understood."""
        # spice-server takes a split header for a fault
        smallest = 7 if backend() == "spiceflow" else 20
        for size in (smallest, 61, 2047):
            agent = Agent(self.guest, "-k", str(size))
            client = self.client()
            self.clip_to_client(agent, client, 100 * KIB)
            self.clip_to_guest(agent, client, 5000)
            client.quit()
            agent.expect(r"^client-left$")
            agent.kill()

    def test_agent_restarts(self):
        """The agent dies in the middle of a copy: the client is told, and
        the next agent works for it at once."""
        agent = Agent(self.guest)
        client = self.client("--progress", "20")
        path, _ = self.file(64 * MIB)
        self.copy(client, path)
        client.expect(r"^progress agent file [1-9]")
        agent.kill()
        client.fails("agent", "copy")
        client.find(r"^agent-connected 0$")
        agent = Agent(self.guest)
        client.expect(r"^agent-connected 1$")
        client.expect(r"^agent-caps ")
        self.check_copy(agent, client, MIB)
        self.clip_to_guest(agent, client, 100 * KIB)
        self.clip_to_client(agent, client, 100 * KIB)
        client.quit()

    def test_agent_restarts_in_its_message(self):
        """The agent dies in the middle of what it sends: the client drops
        that message and understands the next agent."""
        agent = Agent(self.guest)
        client = self.client()
        for now in (4, 8, 20, 28, 500, 100000):
            agent.do("partial", MIB, now)
            agent.expect(r"^partial ")
            # Let it get there; there is no event for half a message.
            time.sleep(0.1)
            agent.kill()
            client.expect(r"^agent-connected 0$")
            agent.start()
            client.expect(r"^agent-caps ")
            self.clip_to_client(agent, client, 3000)
        self.check_copy(agent, client)
        client.quit()

    def test_client_killed(self):
        """A client that dies in the middle of a copy: the agent is told, and
        the next client works at once."""
        agent = Agent(self.guest)
        for _ in range(3):
            client = self.client("--progress", "20")
            path, _ = self.file(64 * MIB)
            self.copy(client, path)
            client.expect(r"^progress agent file [1-9]")
            client.process.send_signal(9)
            client.process.wait()
            agent.expect(r"^file-gone .*name=file .*why=client-left$")
            client = self.client()
            self.check_copy(agent, client)
            self.clip_to_guest(agent, client, 100 * KIB)
            self.clip_to_client(agent, client, 100 * KIB)
            client.quit()
            agent.expect(r"^client-left$")

    def test_client_killed_receiving(self):
        """A client that dies while it is being sent to."""
        agent = Agent(self.guest)
        client = self.client("--progress", "20")
        client.send("clip", "check", 64 * MIB)
        agent.do("flood", 64 * MIB, 100000)
        client.expect(r"^progress clip check [1-9]")
        client.process.send_signal(9)
        client.process.wait()
        agent.expect_all(r"^client-left$", r"^flood-sent .*")
        client = self.client()
        self.clip_to_client(agent, client, 100 * KIB)
        self.check_copy(agent, client)
        client.quit()

    def test_stalled_client(self):
        """A client that stops reading stops the agent; nothing is lost and
        QEMU does not keep it."""
        agent = Agent(self.guest)
        client = self.client()
        client.send("clip", "check", MIB, 1)
        agent.do("flood", MIB, 65536, 1)
        client.outcome("clip", "check")
        agent.expect(r"^flood-sent ")
        client.send("clip", "check", 64 * MIB, 2)
        client.pause()
        before = self.guest.qemu.process.private_kib()
        agent.do("flood", 64 * MIB, 65536, 2)
        try:
            agent.expect(r"^flood-sent ", 2)
            raise AssertionError("the agent was not stopped")
        except RigError:
            pass
        grown = self.guest.qemu.process.private_kib() - before
        assert grown < 16 * 1024, "QEMU grew by %d KiB" % grown
        client.resume()
        client.outcome("clip", "check")
        agent.expect(r"^flood-sent ")
        client.quit()

    def test_stalled_agent(self):
        """An agent that stops reading stops the client, not QEMU; the copy
        goes on when it reads again."""
        agent = Agent(self.guest)
        client = self.client("--progress", "20")
        self.check_copy(agent, client, MIB)
        path, sha256 = self.file(64 * MIB)
        before = self.guest.qemu.process.private_kib()
        self.copy(client, path)
        client.expect(r"^progress agent file [1-9]")
        agent.do("stop")
        agent.expect(r"^stopped$")
        time.sleep(0.5)
        there = client.progress()
        time.sleep(1)
        assert client.progress() == there, "the client was not stopped"
        assert there[0] < 64 * MIB, "it came too late"
        grown = self.guest.qemu.process.private_kib() - before
        assert grown < 16 * 1024, "QEMU grew by %d KiB" % grown
        agent.do("go")
        self.copied(agent, client, path, sha256)
        client.quit()

    def test_broken_agent(self):
        """An agent that breaks the protocol is gone for the client; it works
        again after it has opened its port again."""
        agent = Agent(self.guest)
        client = self.client()
        for kind in ("chunk", "protocol", "size"):
            agent.do("break", kind)
            client.expect(r"^agent-connected 0$")
            agent.do("reopen")
            client.expect(r"^agent-connected 1$")
            client.expect(r"^agent-caps ")
            self.clip_to_guest(agent, client, 5000)
            self.check_copy(agent, client)
        client.quit()

    def test_several_files(self):
        """Several files from one client at the same time."""
        agent = Agent(self.guest)
        client = self.client()
        agent.do("hold")
        sums = {}
        for number in range(4):
            path, sums["f%d" % number] = self.file(5 * MIB + number,
                                                   "f%d" % number)
            self.copy(client, path)
        for _ in range(4):
            agent.expect(r"^file-start ")
        agent.do("accept", "all")
        for _ in range(4):
            done = agent.expect(r"^file-done .*name=(\w+) .*sha256=(\w+)$")
            assert sums.pop(done.group(1)) == done.group(2)
            client.outcome("agent", "copy")
        client.quit()

    def test_stop_and_continue(self):
        """The VM is stopped and continued every 100 ms during a copy."""
        agent = Agent(self.guest)
        client = self.client("--progress", "20")
        path, sha256 = self.file(24 * MIB)
        self.copy(client, path)
        stops = 0
        qmp = self.guest.qemu.qmp
        while True:
            qmp.command("stop")
            time.sleep(0.1)
            qmp.command("cont")
            time.sleep(0.1)
            stops += 1
            client.poll()
            if any(line.startswith(("done agent", "failed agent"))
                   for line in client.lines):
                break
        self.copied(agent, client, path, sha256)
        assert stops > 2, stops
        client.quit()


class TestTwoClients(AgentRig):
    """Two clients that share the agent; spice-server has no such thing, but
    for a switch for debugging under which they take each other's data."""

    def setup(self, rig):
        not_with_peer("two clients of one agent")
        self.start_rig(rig, clients=2, stall_timeout=500)

    def test_files(self):
        """Both copy at once; each sees its own end."""
        agent = Agent(self.guest)
        clients = [self.client(), self.client()]
        files = []
        for number, client in enumerate(clients):
            files.append(self.file(32 * MIB + number, "file%d" % number))
            self.copy(client, files[-1][0])
        sums = {}
        for _ in clients:
            done = agent.expect(r"^file-done .*name=(\w+) .*sha256=(\w+)$", 60)
            sums[done.group(1)] = done.group(2)
        for client, (path, sha256) in zip(clients, files):
            name = os.path.basename(path)
            assert sums[name] == sha256, name
            client.outcome("agent", "copy", name)
        clients[0].quit()
        self.check_copy(agent, clients[1])
        clients[1].quit()
        agent.expect(r"^client-left$")

    def test_one_killed(self):
        """One dies in the middle of its copy, mostly with half of a message
        at the guest.  The other's copy goes on, and it can copy at once."""
        agent = Agent(self.guest)
        for _ in range(3):
            first, second = self.client("--progress", "20"), self.client()
            doomed, _ = self.file(64 * MIB, "doomed")
            path, sha256 = self.file(16 * MIB, "kept")
            self.copy(first, doomed)
            first.expect(r"^progress agent doomed [1-9]")
            self.copy(second, path)
            agent.expect(r"^file-start .*name=kept ")
            first.process.send_signal(9)
            first.process.wait()
            self.copied(agent, second, path, sha256)
            third = self.client()
            self.check_copy(agent, third)
            self.check_copy(agent, second)
            second.quit()
            third.quit()
            agent.expect(r"^client-left$")

    def test_one_stopped(self):
        """One stops.  If it does so in the middle of a message it loses its
        turn, and its copy ends.  The other's does not, and the one that comes
        back can begin anew."""
        agent = Agent(self.guest)
        first, second = self.client("--progress", "20"), self.client()
        path, _ = self.file(64 * MIB, "slow")
        self.copy(first, path)
        first.expect(r"^progress agent slow [1-9]")
        first.pause()
        start = time.monotonic()
        self.check_copy(agent, second, 4 * MIB, "quick")
        self.check_copy(agent, second, 4 * MIB)
        self.clip_to_guest(agent, second, 100 * KIB)
        spent = time.monotonic() - start
        assert spent < 10, "it waited %.1f s for the other" % spent
        first.resume()
        first.expect(r"^(failed|done) agent copy slow")
        self.check_copy(agent, first)
        self.clip_to_guest(agent, first, 100 * KIB)

    def test_clipboard(self):
        """An offer of the guest reaches both; data only who asked."""
        agent = Agent(self.guest)
        clients = [self.client(), self.client()]
        self.guest.run("porttool file /tmp/clip 5000")
        sha256 = self.guest.run("sha256sum /tmp/clip").split()[0]
        agent.do("set", "/tmp/clip")
        for client in clients:
            client.expect(r"^clip-grab 0 1$")
        for client in clients:
            client.send("clip", "get", self.rig.path("got"))
            assert client.outcome("clip", "get")["sha256"] == sha256
        for client in clients:
            client.poll()
            assert not [t for t in client.lines if t.startswith("clip-data")]
        for number, client in enumerate(clients):
            path = self.rig.path("clip%d" % number)
            sha256 = make_text(path, 3000 + number)
            client.send("clip", "set", path)
            agent.expect(r"^clip-grab ")
            agent.do("get")
            got = agent.expect(r"^clip-data .*sha256=(\w+)$")
            assert got.group(1) == sha256


def test_guest_reboots(rig):
    """The guest's port vanishes with the guest, and comes back with it."""
    guest = rig.guest(*server_args(rig.socket), *agent_args(),
                      reboots=True)
    agent = Agent(guest)
    client = rig.client()
    client.find(r"^agent-caps ")
    guest.reset()
    client.expect(r"^agent-connected 0$")
    agent = Agent(guest)
    client.expect(r"^agent-connected 1$")
    client.expect(r"^agent-caps ")
    path = rig.path("file")
    sha256 = make_file(path, MIB)
    client.send("agent", "copy", path)
    AgentRig.copied(agent, client, path, sha256)
    client.quit()
