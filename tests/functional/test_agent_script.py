# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent with both ends scripted: tokens, framing, comings and goings."""

import struct

from lib import agentguest as ag
from lib import spiceclient as sc
from lib.agentguest import DATA
from lib.agentscript import WINDOW, AgentScript
from lib.process import wait_until
from lib.samples import ramp


class TestAgent(AgentScript):
    """The way of a message, from the link to the last byte."""

    def test_connects_both_orders(self):
        """INIT says whether the agent is there, and the window; an agent that
        comes later is announced with it."""
        first = self.client()
        assert not first.session.init.agent_connected
        assert first.session.init.agent_tokens == WINDOW
        agent = self.agent()
        tokens = first.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        assert struct.unpack("<I", tokens)[0] == WINDOW
        second = self.client()
        assert second.session.init.agent_connected
        agent.close()
        error = second.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        assert error == b"\0\0\0\0"
        self.wait_open(False)

    def test_messages_both_ways(self):
        """One byte to 100 KiB in each direction, framed as promised."""
        agent = self.agent()
        client = self.client()
        agent.announce()
        assert client.expect(ag.ANNOUNCE_CAPABILITIES)
        for size in (0, 1, 2027, 2028, 2029, 5000, 100 * 1024):
            body = ramp(size)
            agent.say(DATA, body)
            assert client.take() == (DATA, body), size
        assert max(client.pieces) <= 2048
        client.tokens_given()
        for size in (0, 1, 2027, 2028, 2029, 5000):
            body = bytes(i * 5 & 0xff for i in range(size))
            client.say(DATA, body)
            assert agent.expect(DATA) == body, size
        assert all(port == 1 for port, _ in agent.chunks
                   if port != ag.PORT_SERVER)

    def test_d26_window_is_exact(self):
        """As many as the window go; one more removes the client."""
        agent = self.agent()
        client = self.client()
        self.qemu.set("/machine/peripheral/bridge", "blocked", True)
        for _ in range(WINDOW):
            client.main.agent_data(ag.message(DATA, b"x"))
        wait_until(lambda: self.client_flow()["client-tokens"] == 0, 5,
                   "all tokens are used")
        flow = self.client_flow()
        assert flow["to-guest-messages"] + flow["due-tokens"] == WINDOW
        assert client.main.silent(0.2)
        client.main.agent_data(ag.message(DATA, b"y"))
        assert client.main.expect(sc.MSG_NOTIFY)
        client.main.wait_closed()
        assert self.flow()["token-violations"] == 1
        self.qemu.set("/machine/peripheral/bridge", "blocked", False)
        agent.expect(ag.CLIENT_DISCONNECTED, ag.PORT_SERVER)
        assert agent.silent()
        # The buffer that the guest was about to get is completed, no other.
        left = bytes(agent.streams[ag.PORT_CLIENT])
        assert left == ag.message(DATA, b"x"), left
        agent.streams[ag.PORT_CLIENT].clear()
        another = self.client()
        another.say(DATA, b"z")
        assert agent.expect(DATA) == b"z"

    def test_d15_no_token_is_withheld(self):
        """One message sent, consumed: its token is back, whatever the lump."""
        agent = self.agent()
        client = self.client()
        for n in range(1, 2 * WINDOW):
            client.say(DATA, b"n")
            agent.expect(DATA)
            wait_until(lambda: self.client_flow()["client-tokens"] == WINDOW,
                       5, "the window is whole again after %d" % n)

    def test_send_tokens_pace(self):
        """A client that grants three gets three, then what it grants more."""
        agent = self.agent()
        client = self.client(tokens=0)
        self.start(client, 3)
        for n in range(6):
            agent.say(DATA, bytes([n]))
        for n in range(3):
            assert client.take()[1] == bytes([n])
        assert client.main.silent(0.3)
        client.main.agent_token(1)
        assert client.take()[1] == b"\3"
        assert client.main.silent(0.3)
        client.main.agent_token(100)
        assert client.take()[1] == b"\4"
        assert client.take()[1] == b"\5"

    def test_no_tokens_lone_client_is_not_removed(self):
        """A lone client without tokens makes the guest wait, for ever."""
        agent = self.agent()
        client = self.client(tokens=1)
        body = bytes(2000)
        count = 450
        data = ag.chunks(ag.message(DATA, body)) * count
        taken = agent.offer(data, 1.0)
        assert taken < len(data)
        assert client.take()[1] == body
        assert client.main.silent(2.5)
        assert len(self.flow()["clients"]) == 1
        client.main.agent_token(10000)
        agent.write(data[taken:])
        got = 0
        while got < count - 1:
            assert client.take()[1] == body
            got += 1

    def test_d18_guest_breaks_protocol(self):
        """The agent is dropped, its port closed; reopened it works."""
        agent = self.agent()
        client = self.client()
        agent.write(ag.chunk(b"x" * 40))
        client.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        wait_until(lambda: not self.qemu.get("/machine/peripheral/bridge",
                                             "opened"), 5, "the port closed")
        agent.close()
        self.wait_open(False)
        agent = self.agent()
        client.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        self.start(client)
        agent.say(DATA, b"again")
        assert client.take() == (DATA, b"again")

    def test_d12_agent_restarts_in_mid_piece(self):
        """A piece half sent when the agent goes costs no token of the next."""
        agent = self.agent()
        client = self.client()
        piece = client.main.message(
            sc.MSGC_MAIN_AGENT_DATA, ag.message(DATA, b"a" * 900))
        client.main.connection.send(piece[:300])
        agent.close()
        client.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
        agent = self.agent()
        client.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        client.main.connection.send(piece[300:])
        client.main.agent_start()
        self.qemu.set("/machine/peripheral/bridge", "blocked", True)
        for _ in range(WINDOW):
            client.main.agent_data(ag.message(DATA, b"b"))
        wait_until(lambda: self.flow()["clients"] and
                   self.client_flow()["client-tokens"] == 0, 5, "all are in")
        self.qemu.set("/machine/peripheral/bridge", "blocked", False)
        for _ in range(WINDOW):
            assert agent.expect(DATA) == b"b"

    def test_d11_zero_size_chunk(self):
        agent = self.agent()
        client = self.client()
        agent.write(ag.chunk(b"") + ag.chunk(b"", ag.PORT_SERVER) +
                    ag.chunks(ag.message(DATA, b"on")))
        assert client.take() == (DATA, b"on")

    def test_last_client_leaves(self):
        """CLIENT_DISCONNECTED, framing intact, and never a port close."""
        agent = self.agent()
        client = self.client()
        client.main.agent_data(ag.message(DATA, b"", size=5000)
                               + b"c" * 1000)
        agent.read_chunk()
        client.session.close()
        agent.streams[ag.PORT_CLIENT].clear()
        assert agent.expect(ag.CLIENT_DISCONNECTED, ag.PORT_SERVER) == b""
        assert self.qemu.get("/machine/peripheral/bridge", "opened")
        again = self.client()
        agent.streams[ag.PORT_CLIENT].clear()
        again.say(DATA, b"next")
        assert agent.expect(DATA) == b"next"

    def test_d30_harmless_messages(self):
        agent = self.agent()
        client = self.client()
        client.main.agent_data(b"")
        client.main.send(sc.MSGC_MAIN_MOUSE_MODE_REQUEST, b"\2\0")
        assert client.main.expect(sc.MSG_MAIN_MOUSE_MODE) == b"\1\0\1\0"
        client.say(DATA, b"still")
        assert agent.expect(DATA) == b"still"
