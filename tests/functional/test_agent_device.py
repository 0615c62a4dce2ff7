# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's device: stopped, unplugged, replaced, filled, looked at."""

import hashlib
import struct
import threading
import time

from lib import agentguest as ag
from lib import spiceclient as sc
from lib.agentguest import DATA
from lib.agentscript import BRIDGE, NO_TOKENS_CAP, WINDOW, AgentScript
from lib.process import wait_until
from lib.qemu import refused
from lib.samples import MIB, ramp

LONG = ramp(5000)


class TestStop(AgentScript):
    """Stop is stop: not a byte to or from the device."""

    def test_to_guest(self):
        """What the client sends within its window is kept, and goes in order
        when the VM runs again; CLIENT_DISCONNECTED and others included."""
        agent = self.agent()
        client = self.client()
        client.say(DATA, b"before")
        assert agent.expect(DATA) == b"before"
        client.tokens_given()
        self.qemu.command("stop")
        for n in range(WINDOW):
            client.say(DATA, b"%d" % n)
        self.wait_tokens(0)
        assert agent.silent(0.3) and client.silent()
        flow = self.flow()
        assert not flow["running"] and flow["to-guest-messages"] == WINDOW
        self.qemu.command("cont")
        for n in range(WINDOW):
            assert agent.take_message() == (DATA, b"%d" % n)
        self.wait_tokens(WINDOW)
        assert client.tokens_given() == WINDOW

    def test_window_holds_while_stopped(self):
        """One more than the window is a violation, stopped or not."""
        agent = self.agent()
        client = self.client()
        self.qemu.command("stop")
        for _ in range(WINDOW):
            client.say(DATA, b"x")
        self.wait_tokens(0)
        client.say(DATA, b"y")
        client.main.expect(sc.MSG_NOTIFY)
        client.main.wait_closed()
        self.wait_gone(client)
        assert agent.silent()
        self.qemu.command("cont")
        agent.expect(ag.CLIENT_DISCONNECTED, ag.PORT_SERVER)

    def test_from_guest(self):
        """What the guest wrote and is not taken stays with it; what was taken
        stays here, and goes on where it was."""
        agent = self.agent()
        client = self.client()
        stream = ag.chunks(ag.message(DATA, LONG)) * 100
        for cut in (3, 20, 1000, 2056, 2060, 4000):
            agent.write(stream[:cut])
            time.sleep(0.05)
            self.qemu.command("stop")
            before = self.flow()["total-from-guest-bytes"]
            taken = agent.offer(stream[cut:], 0.2)
            time.sleep(0.1)
            assert self.flow()["total-from-guest-bytes"] == before
            self.qemu.command("cont")
            agent.write(stream[cut + taken:])
            for _ in range(100):
                assert client.take() == (DATA, LONG)

    def test_clients_come_and_go_while_stopped(self):
        """Tokens from the client, a start, a leave and a policy: all of it
        counts, and nothing moves before the VM runs."""
        agent = self.agent()
        first = self.client(tokens=0)
        agent.say(DATA, b"waits")
        self.qemu.command("stop")
        first.session.close()
        self.wait_gone(first)
        second = self.client()
        second.announce()
        self.set("agent-clipboard", "off")
        self.set("agent-clipboard", "both")
        second.say(DATA, b"second")
        self.wait_tokens(WINDOW - 2, second)
        assert agent.silent(0.3)
        self.qemu.command("cont")
        assert agent.take_message(ag.PORT_SERVER) == (
            ag.CLIENT_DISCONNECTED, b"")
        assert agent.expect(ag.ANNOUNCE_CAPABILITIES)
        assert agent.take_message() == (DATA, b"second")
        agent.say(DATA, b"and back")
        assert second.expect(DATA) in (b"waits", b"and back")

    def test_guest_goes_while_stopped(self):
        """A port that closes and opens on a stopped VM: the clients hear of
        it at once, the guest's bytes wait."""
        agent = self.agent()
        client = self.client()
        client.main.agent_data(ag.pieces(ag.message(DATA, LONG))[0])
        agent.read_chunk()
        self.qemu.command("stop")
        self.close_agent()
        self.disconnected(client)
        agent = self.agent()
        self.connected(client)
        for part in ag.pieces(ag.message(DATA, LONG))[1:]:
            client.main.agent_data(part)
        client.say(DATA, b"new")
        assert agent.silent(0.3)
        self.qemu.command("cont")
        assert agent.take_message() == (DATA, b"new")
        self.wait_tokens(WINDOW)


class TestPlug(AgentScript):
    """A device that goes and comes while clients are connected."""

    def unplug(self):
        while self.agents:
            self.agents.pop().close()
        self.qemu.set(BRIDGE, "plugged", False)
        self.qemu.command("chardev-remove", id="agent")

    def plug(self):
        self.qemu.command("chardev-add", id="agent", backend={
            "type": "spiceflow", "data": {"name": "vdagent"}})
        self.qemu.set(BRIDGE, "plugged", True)

    def goes_on(self, client, rest):
        """The next device's agent gets nothing of what was begun, and the
        client's next message."""
        self.plug()
        agent = self.agent()
        self.connected(client)
        client.main.agent_data(rest)
        client.say(DATA, b"new")
        assert agent.take_message() == (DATA, b"new")

    def test_in_mid_message(self):
        """Its client goes on with the message it was in, to no device and to
        the next: that is for nobody, and costs it nothing."""
        agent = self.agent()
        client = self.client()
        parts = ag.pieces(ag.message(DATA, LONG))
        client.main.agent_data(parts[0])
        agent.read_chunk()
        self.unplug()
        self.disconnected(client)
        client.main.agent_data(parts[1])
        self.goes_on(client, parts[2])
        self.wait_tokens(WINDOW)

    def test_begun_without_a_device(self):
        """Also a message that was begun while there was none."""
        agent = self.agent()
        client = self.client()
        parts = ag.pieces(ag.message(DATA, LONG))
        self.unplug()
        self.disconnected(client)
        client.say(DATA, b"for nobody")
        client.main.agent_data(parts[0])
        client.main.agent_data(parts[1])
        client.main.send(sc.MSGC_MAIN_MOUSE_MODE_REQUEST, b"\1\0")
        client.main.expect(sc.MSG_MAIN_MOUSE_MODE)
        self.goes_on(client, parts[2])

    def test_d21_tokens_outlive_the_device(self):
        """A client that can not be told a number loses none to a device that
        is replaced."""
        self.agent()
        client = self.client(caps=NO_TOKENS_CAP)
        client.tokens_given()
        has = WINDOW
        with self.guest_asleep():
            client.say(DATA, b"in vain")
            self.wait_tokens(WINDOW - 1)
            self.unplug()
        client.say(DATA, b"for nobody")
        has -= 2
        self.plug()
        agent = self.agent()
        client.main.expect(sc.MSG_MAIN_AGENT_CONNECTED)
        self.start(client)
        has += client.tokens_given()
        assert has == WINDOW, has
        client.say(DATA, b"new")
        assert agent.take_message() == (DATA, b"new")

    def in_flight(self):
        return self.client_flow()["to-client-in-flight"]

    def test_with_a_queue_for_a_client(self):
        """What is on its way to a client that reads nothing outlives the
        device, and is not mistaken for the next one's."""
        agent = self.agent()
        client = self.client()
        body = bytes(2000)
        agent.write(ag.chunks(ag.message(DATA, body)) * 300)
        agent.wait_read()               # all 300 are on their way
        assert self.in_flight() > 100
        self.unplug()
        self.plug()
        agent = self.agent()
        client.main.agent_start()
        wait_until(self.client_flow, 5, "the client is attached")
        agent.write(ag.chunks(ag.message(DATA, b"new" + body)) * 100)
        wait_until(lambda: self.in_flight() == 100, 5, "another queue")
        count = 0
        while True:
            kind, got = client.take()
            if got.startswith(b"new"):
                break
            count += 1
        assert count == 300, count
        for _ in range(99):
            assert client.take() == (DATA, b"new" + body)
        flow = self.client_flow()
        assert flow["to-client-messages"] == flow["to-client-bytes"] == 0

    def test_a_second_one(self):
        """One agent per server; the error names the first."""
        with refused("vdagent device already", "'agent'", "'agent2'"):
            self.qemu.command("chardev-add", id="agent2", backend={
                "type": "spiceflow", "data": {"name": "vdagent"}})
        agent = self.agent()
        client = self.client()
        client.say(DATA, b"works")
        assert agent.take_message() == (DATA, b"works")

    def test_fifty_times(self):
        """Plugged and unplugged with a client in all kinds of states."""
        self.agent()
        client = self.client()
        for n in range(50):
            if n % 3:
                client.main.agent_start()
            if n % 2:
                client.main.agent_data(b"")
                client.say(DATA, b"whatever")
            self.unplug()
            self.plug()
        agent = self.agent()
        client.main.agent_start()
        wait_until(self.client_flow, 5, "the client is attached")
        client.say(DATA, b"works")
        assert agent.expect(DATA) == b"works"


class TestLarge(AgentScript):
    """64 MiB of clipboard, with little memory."""

    window = 64

    def memory(self):
        """Bytes of QEMU's own, now."""
        with open("/proc/%d/status" % self.qemu.pid,
                  encoding="ascii") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    def watch(self, work):
        """Run WORK; by how much QEMU's memory grew at most."""
        start = peak = self.memory()
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        while worker.is_alive():
            peak = max(peak, self.memory())
            worker.join(0.02)
        return peak - start

    def digest(self, size):
        return hashlib.sha256(b"0123456789abcdef" * (size // 16)).hexdigest()

    def test_to_client(self):
        agent, client = self.pair()
        size = 64 * MIB
        client.say(ag.CLIPBOARD_REQUEST, struct.pack("<II", 0, 1))
        agent.expect(ag.CLIPBOARD_REQUEST)
        agent.timeout = 60
        body = struct.pack("<II", 0, 1) + b"0123456789abcdef" * (size // 16)
        stream = ag.chunks(ag.message(ag.CLIPBOARD, body))
        # The client takes nothing for a while, and all of it then.
        taken = agent.offer(stream, 0.5)
        assert taken < 4 * MIB
        got = []

        def transfer():
            writer = threading.Thread(target=agent.write,
                                      args=(stream[taken:],), daemon=True)
            writer.start()
            data, end = hashlib.sha256(), 0
            while end < 20 + len(body):
                piece = client.main.expect(sc.MSG_MAIN_AGENT_DATA, 60)
                data.update(piece if end else piece[28:])
                end += len(piece)
            writer.join()
            got.append((end, data.hexdigest()))

        grown = self.watch(transfer)
        assert got == [(20 + len(body), self.digest(size))], got
        assert grown < 8 * MIB, grown

    def test_to_guest(self):
        agent, client = self.pair()
        size = 64 * MIB
        body = struct.pack("<II", 0, 1) + b"0123456789abcdef" * (size // 16)
        parts = ag.pieces(ag.message(ag.CLIPBOARD, body))
        agent.timeout = 60
        got = []

        def send():
            tokens = self.window
            for part in parts:
                while not tokens:
                    given = client.main.expect(sc.MSG_MAIN_AGENT_TOKEN, 60)
                    tokens += struct.unpack("<I", given)[0]
                client.main.agent_data(part)
                tokens -= 1

        def transfer():
            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            data, end = hashlib.sha256(), 0
            while end < 20 + len(body):
                _, piece = agent.read_chunk()
                data.update(piece if end else piece[28:])
                end += len(piece)
                agent.streams[ag.PORT_CLIENT].clear()
            sender.join()
            got.append((end, data.hexdigest()))

        client.tokens_given()
        grown = self.watch(transfer)
        assert got == [(20 + len(body), self.digest(size))], got
        assert grown < 8 * MIB, grown
        assert self.flow()["to-guest-peak"] <= self.window * 2200


class TestShown(AgentScript):
    """What `flow` tells of the agent."""

    def test_agent_member(self):
        self.close_agent()
        shown = self.flow()["agent"]
        assert not shown["connected"], shown
        assert shown["guest-capabilities"] == [], shown
        agent, client = self.pair()
        shown = self.flow()["agent"]
        assert shown["connected"] and shown["started-clients"] == 1, shown
        assert sorted(shown["guest-capabilities"]) == [
            "clipboard-by-demand", "clipboard-selection", "max-clipboard",
            "monitors-config", "reply"], shown
        nobody = {"owner": "nobody"}
        assert shown["clipboards"] == {
            "clipboard": nobody, "primary": nobody, "secondary": nobody}, shown
        assert set(shown["messages"]) == {
            "to-guest", "to-client", "absorbed", "refused-policy",
            "refused-size", "dropped"}, shown
        agent.announce(0xffffffff)
        client.expect(ag.ANNOUNCE_CAPABILITIES)
        caps = self.flow()["agent"]["guest-capabilities"]
        assert len(caps) == len(set(caps)) == 32, caps
        assert "capability-31" in caps, caps
        before = self.counts()["to-guest"]
        client.say(ag.FILE_XFER_START, struct.pack("<I", 1) + b"name")
        agent.expect(ag.FILE_XFER_START)
        shown = self.flow()["agent"]
        assert shown["transfers"] == 1, shown
        assert shown["messages"]["to-guest"] == before + 1, shown
        agent.write(b"nonsense" * 4)
        self.disconnected(client)
        shown = self.flow()["agent"]
        assert not shown["connected"] and not shown["started-clients"], shown
