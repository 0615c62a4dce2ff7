# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents and clients that come and go, mostly in the middle of something."""

import struct

from lib import agentguest as ag
from lib import spiceclient as sc
from lib.agentguest import DATA
from lib.agentscript import BRIDGE, WINDOW, AgentScript
from lib.process import wait_until
from lib.samples import ramp

LONG = ramp(6000)


class TestRestart(AgentScript):
    """One agent after another, one client after another."""

    def whole(self, agent, client):
        """Both ways work, and the window is whole."""
        agent.say(DATA, LONG)
        assert client.take() == (DATA, LONG)
        client.say(DATA, LONG)
        assert agent.expect(DATA) == LONG
        self.wait_tokens(WINDOW, client)

    def test_agent_goes_in_mid_message_to_client(self):
        """Wherever the guest's stream is cut, the next agent's begins anew:
        in a chunk header, in a message's header, in its payload, between
        pieces."""
        client = None
        stream = ag.chunks(ag.message(DATA, LONG), piece=3000)
        for cut in (1, 7, 8, 9, 27, 28, 29, 2055, 2056, 2057, 3008, 3015,
                    5000, len(stream) - 1):
            agent = self.agent()
            if client:
                self.disconnected(client)
                self.connected(client)
            else:
                client = self.client()
            agent.write(stream[:cut])
            agent.wait_read()
            agent.close()
        self.wait_open(False)
        self.agents.clear()
        self.disconnected(client)
        agent = self.agent()
        self.connected(client)
        self.whole(agent, client)

    def test_agent_goes_in_mid_message_to_guest(self):
        """What the client still sends of its message, before or after it has
        heard of the next agent, is for nobody; the next message is whole."""
        parts = ag.pieces(ag.message(DATA, LONG))
        agent = self.agent()
        client = self.client()
        for before in (0, 1, 2):
            client.main.agent_data(parts[0])
            assert agent.read_chunk() == (ag.PORT_CLIENT, parts[0])
            self.close_agent()
            self.disconnected(client)
            agent = self.agent()
            for part in parts[1:1 + before]:
                client.main.agent_data(part)
            self.connected(client)
            for part in parts[1 + before:]:
                client.main.agent_data(part)
            client.say(DATA, b"whole")
            assert agent.take_message() == (DATA, b"whole"), before
            self.wait_tokens(WINDOW)

    def test_agent_goes_before_the_message_is_judged(self):
        """Likewise when all that came of it is its header."""
        data = ag.message(ag.CLIPBOARD, struct.pack("<II", 0, 1) + LONG)
        agent = self.agent()
        client = self.client()
        client.main.agent_data(data[:20])
        self.wait_tokens(WINDOW)
        self.close_agent()
        self.disconnected(client)
        agent = self.agent()
        self.connected(client)
        for part in ag.pieces(data[20:]):
            client.main.agent_data(part)
        client.say(DATA, b"whole")
        assert agent.take_message() == (DATA, b"whole")
        self.wait_tokens(WINDOW)

    def test_guest_reboots_with_queues_both_ways(self):
        """The port closes on a guest that slept: what waited for it is gone,
        and nothing of it comes to the next one; the window is whole."""
        agent = self.agent()
        client = self.client(tokens=2)
        for n in range(4):
            agent.say(DATA, b"old %d" % n)
        self.blocked(True)
        parts = ag.pieces(ag.message(DATA, LONG))
        client.say(DATA, b"old")
        for part in parts[:2]:
            client.main.agent_data(part)
        self.wait_tokens(WINDOW - 3)
        self.close_agent()
        self.disconnected(client)
        flow = self.flow()
        assert flow["to-guest-messages"] == flow["to-guest-bytes"] == 0
        agent = self.agent()
        self.connected(client)
        client.main.agent_data(parts[2])
        self.whole(agent, client)

    def test_next_agent_gets_nothing_of_before(self):
        """Of what the server itself would have said: a client's clipboard and
        transfer are not the next agent's business."""
        agent, client = self.pair()
        client.say(ag.FILE_XFER_START, struct.pack("<I", 1) + b"[x]\0")
        client.say(ag.CLIPBOARD_GRAB, struct.pack("<II", 0, 1))
        agent.expect(ag.CLIPBOARD_GRAB)
        self.blocked(True)
        self.set("agent-file-transfer", False)
        self.set("agent-clipboard", "off")
        agent.close()
        self.wait_open(False)
        self.agents.clear()
        agent = self.agent()
        assert agent.silent()
        client.session.close()
        self.wait_gone(client)
        assert agent.silent()
        self.set_defaults()

    def test_client_goes_in_mid_piece(self):
        """Half of an AGENT_DATA is nothing: the guest does not hear of it,
        and the next client's message is whole."""
        agent = self.agent()
        client = self.client()
        parts = ag.pieces(ag.message(DATA, LONG))
        client.main.agent_data(parts[0])
        whole = client.main.message(sc.MSGC_MAIN_AGENT_DATA, parts[1])
        client.main.connection.send(whole[:700])
        self.wait_tokens(WINDOW - 1)
        client.session.close()
        self.wait_gone(client)
        agent.read_chunk()
        assert agent.expect(ag.CLIENT_DISCONNECTED, ag.PORT_SERVER) == b""
        agent.streams[ag.PORT_CLIENT].clear()
        assert agent.silent()
        self.whole(agent, self.client())

    def test_client_goes_with_the_guest_asleep(self):
        """What it queued is dropped but for what the guest has begun; the
        next client's data comes after CLIENT_DISCONNECTED."""
        agent = self.agent()
        first = self.client()
        with self.guest_asleep():
            for n in range(WINDOW):
                first.say(DATA, b"first %d" % n)
            self.wait_tokens(0)
            first.session.close()
            self.wait_gone(first)
            second = self.client()
            second.say(DATA, b"second")
            self.wait_tokens(WINDOW - 1)
        heard = []
        while not heard or heard[-1] != (ag.PORT_CLIENT, b"second"):
            port, data = agent.read_chunk()
            heard.append((port, data[20:]))
        assert (ag.PORT_SERVER, b"") in heard, heard
        kept = [body for port, body in heard if body.startswith(b"first")]
        assert kept in ([], [b"first 0"]), kept

    def test_client_goes_in_mid_message_of_the_guests(self):
        """The next client begins with the next message."""
        agent = self.agent()
        first = self.client(tokens=2)
        stream = ag.chunks(ag.message(DATA, LONG))
        agent.write(stream)
        first.main.expect(sc.MSG_MAIN_AGENT_DATA)
        first.main.expect(sc.MSG_MAIN_AGENT_DATA)
        first.session.close()
        self.wait_gone(first)
        agent.write(ag.chunks(ag.message(DATA, LONG))[:3000])
        agent.wait_read()
        second = self.client()
        agent.write(ag.chunks(ag.message(DATA, LONG))[3000:])
        agent.say(DATA, b"next")
        assert second.take() == (DATA, b"next")

    def test_one_client_takes_the_place_of_another(self):
        """max-clients=1: the newest wins, in mid-message too."""
        agent = self.agent()
        first = self.client()
        first.main.agent_data(ag.pieces(ag.message(DATA, LONG))[0])
        agent.read_chunk()
        second = self.client()
        first.main.wait_closed()
        agent.streams[ag.PORT_CLIENT].clear()
        self.whole(agent, second)
        assert agent.take_message(ag.PORT_SERVER)[0] == \
            ag.CLIENT_DISCONNECTED

    def test_guest_breaks_the_protocol(self):
        """Each way to break it: the agent is dropped and its port closed; it
        gets nothing more, and the next agent and the same client work."""
        broken = (ag.chunk(b"", port=0), ag.chunk(b"x", port=3),
                  ag.chunk(ag.message(DATA, b"", protocol=0)),
                  ag.chunk(ag.message(DATA, b"", protocol=2)),
                  ag.chunks(ag.message(DATA, LONG)) + b"\xff" * 8)
        agent = self.agent()
        client = self.client()
        parts = ag.pieces(ag.message(DATA, LONG))
        closes = self.qemu.get(BRIDGE, "closes")
        for bad in broken:
            self.blocked(True)
            client.main.agent_data(parts[0])
            client.main.agent_data(parts[1])
            self.wait_tokens(WINDOW - 2)
            agent.write(bad + b"whatever follows" * 100)
            self.disconnected(client)
            closes += 1
            wait_until(lambda: self.qemu.get(BRIDGE, "closes") == closes, 5,
                       "the port is closed")
            client.main.agent_data(parts[2])
            self.blocked(False)
            assert agent.silent(), bad
            agent = self.agent()
            self.connected(client)
            self.whole(agent, client)
        assert self.qemu.get(BRIDGE, "opened")

    def test_port_that_flutters(self):
        """Two hundred agents in a row while the client says nothing; then it
        answers each announcement, as clients do, and all is well."""
        self.close_agent()
        client = self.client()
        for _ in range(200):
            agent = self.agent()
            agent.write(ag.chunks(ag.message(DATA, LONG))[:100])
            agent.wait_read()
            self.close_agent()
        agent = self.agent()
        for _ in range(200):
            client.main.agent_start()
        assert not self.client_flow()
        client.main.agent_start()
        wait_until(self.client_flow, 5, "the client is attached")
        for _ in range(200):
            assert self.connected_once(client) == WINDOW
        self.whole(agent, client)

    @staticmethod
    def connected_once(client):
        client.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        body = client.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        return struct.unpack("<I", body)[0]

    def test_last_words_before_a_pause(self):
        """A message that had to wait for tokens goes with the token, also
        when the guest has nothing more to say."""
        agent = self.agent()
        client = self.client(tokens=1)
        for n in range(40):
            agent.say(DATA, b"%d" % n)
            if n == 0:
                assert client.take() == (DATA, b"0")
                continue
            assert client.silent(0.02)
            client.main.agent_token(1)
            assert client.take() == (DATA, b"%d" % n)
