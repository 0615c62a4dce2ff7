# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's tokens, in both directions, with both ends scripted."""

import struct

from lib import agentguest as ag
from lib import spiceclient as sc
from lib.agentguest import DATA
from lib.agentscript import NO_TOKENS_CAP, WINDOW, AgentScript
from lib.process import wait_until


class TestTokens(AgentScript):
    """What a client may send, and what it wants to be sent."""

    def exhaust(self, client, count, body=b"x"):
        """COUNT messages go into a guest that is asleep; then one more is one
        too many."""
        for _ in range(count):
            client.say(DATA, body)
        self.wait_tokens(0, client)
        flow = self.client_flow(client)
        assert flow["to-guest-messages"] + flow["due-tokens"] == WINDOW, flow

    def violates(self, client):
        before = self.flow()["token-violations"]
        client.say(DATA, b"one too many")
        text = client.main.expect(sc.MSG_NOTIFY)
        assert b"token" in text, text
        client.main.wait_closed()
        assert self.flow()["token-violations"] == before + 1
        self.wait_gone(client)

    def test_window_of_one(self):
        """One message at a time: each waits for the token of the one before,
        and there always is one."""
        agent = self.agent()
        self.set("agent-window", 1)
        client = self.client()
        assert client.session.init.agent_tokens == 1
        for n in range(50):
            client.say(DATA, bytes([n]))
            assert agent.expect(DATA) == bytes([n])
            given = client.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
            assert given == b"\1\0\0\0", given
        with self.guest_asleep():
            client.say(DATA, b"waits")
            self.wait_tokens(0)
            self.violates(client)
        self.set_defaults()

    def test_window_of_one_long_message(self):
        """A message of many pieces, each of which needs the same token."""
        agent = self.agent()
        self.set("agent-window", 1)
        client = self.client()
        body = bytes(n & 0xff for n in range(20000))
        for piece in ag.pieces(ag.message(DATA, body)):
            client.main.agent_data(piece)
            client.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        assert agent.expect(DATA) == body
        self.set_defaults()

    def test_lump_is_half_of_the_window(self):
        """Of a busy guest the client hears every half window, and of what is
        left over when the queue runs empty."""
        agent = self.agent()
        client = self.client()
        with self.guest_asleep():
            for _ in range(WINDOW):
                client.say(DATA, b"x")
            self.wait_tokens(0)
        for _ in range(WINDOW):
            agent.expect(DATA)
        lumps = []
        while sum(lumps) < WINDOW:
            lumps += struct.unpack(
                "<I", client.main.expect(sc.MSG_MAIN_AGENT_TOKEN))
        assert sum(lumps) == WINDOW and lumps[0] == WINDOW // 2, lumps

    def test_window_changes_at_the_next_announcement(self):
        """agent-window counts from the next INIT or CONNECTED_TOKENS on."""
        self.agent()
        client = self.client()
        self.set("agent-window", 3)
        assert self.client_flow(client)["window"] == WINDOW
        with self.guest_asleep():
            self.exhaust(client, WINDOW)
        self.close_agent()
        self.disconnected(client)
        self.agent()
        assert self.connected(client) == 3
        with self.guest_asleep():
            for _ in range(3):
                client.say(DATA, b"x")
            self.wait_tokens(0)
            self.violates(client)
        self.set_defaults()

    def test_d5_tokens_before_start(self):
        """AGENT_TOKEN before AGENT_START, with an agent and without one."""
        self.close_agent()
        client = self.client(tokens=None)
        client.main.agent_token(7)
        client.main.agent_start(9)
        agent = self.agent()
        client.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
        client.main.agent_token(100)
        self.start(client, 1)
        assert self.client_flow()["send-tokens"] == 1
        agent.say(DATA, b"1")
        agent.say(DATA, b"2")
        assert client.take() == (DATA, b"1")
        assert client.silent()
        client.main.agent_token(1)
        assert client.take() == (DATA, b"2")

    def test_start_sets_and_token_adds(self):
        """A second AGENT_START is a new number; sums stay at the top."""
        self.agent()
        client = self.client(tokens=5)
        client.main.agent_token(2)
        self.wait_send_tokens(7)
        client.main.agent_start(1)
        self.wait_send_tokens(1)
        client.main.agent_token(sc.UNLIMITED)
        client.main.agent_token(sc.UNLIMITED)
        self.wait_send_tokens(sc.UNLIMITED)
        client.main.agent_start(0)
        self.wait_send_tokens(0)
        assert self.client_flow()["client-tokens"] == WINDOW

    def wait_send_tokens(self, count):
        wait_until(lambda: self.client_flow()["send-tokens"] == count, 5,
                   "%d send tokens" % count)

    def test_client_stops_granting(self):
        """It grants, then no more: the guest waits, with little in memory,
        and goes on with every token."""
        agent = self.agent()
        client = self.client(tokens=10)
        body = bytes(2028)
        offered = ag.chunks(ag.message(DATA, body)) * 500
        taken = agent.offer(offered, 0.5)
        assert taken < len(offered)
        for _ in range(10):
            assert client.take() == (DATA, body)
        assert client.silent()
        flow = self.flow()
        assert flow["guest-waits"]
        # The one client makes the guest wait; nothing is queued for it.
        assert self.client_flow()["to-client-messages"] == 0
        for _ in range(5):
            client.main.agent_token(1)
            assert client.take() == (DATA, body)
        assert client.silent()
        client.main.agent_token(1000)
        agent.write(offered[taken:])
        for _ in range(500 - 15):
            assert client.take() == (DATA, body)

    def test_not_started_costs_no_token(self):
        """Data of before AGENT_START is for no agent, and for no window: the
        client was told a number, and has it when it starts."""
        agent = self.agent()
        client = self.client(tokens=None)
        for _ in range(2 * WINDOW):
            client.say(DATA, b"early")
        self.start(client)
        with self.guest_asleep():
            self.exhaust(client, WINDOW, b"late")
            self.violates(client)
        assert agent.take_message() == (DATA, b"late")

    def test_d21_client_without_connected_tokens(self):
        """A client that can not be told a number goes on counting, and loses
        nothing: not what it said too early, not what it said in vain."""
        self.close_agent()
        client = self.client(caps=NO_TOKENS_CAP)
        has = client.session.init.agent_tokens
        assert has == WINDOW
        agent = self.agent()
        assert client.main.expect(sc.MSG_MAIN_AGENT_CONNECTED) == b""
        for _ in range(3):
            client.say(DATA, b"early")
        has -= 3
        self.start(client)
        has += client.tokens_given()
        assert has == WINDOW, has

        # Into a guest that sleeps, and goes without having read it.
        self.blocked(True)
        for _ in range(5):
            client.say(DATA, b"in vain")
        has -= 5
        self.wait_tokens(WINDOW - 5)
        half = client.main.message(sc.MSGC_MAIN_AGENT_DATA,
                                   ag.message(DATA, b"half"))
        client.main.connection.send(half[:20])
        has -= 1
        self.wait_tokens(WINDOW - 6)
        self.close_agent()
        self.disconnected(client)
        client.main.connection.send(half[20:])
        agent = self.agent()
        client.main.expect(sc.MSG_MAIN_AGENT_CONNECTED)
        self.start(client)
        has += client.tokens_given()
        assert has == WINDOW, has
        self.blocked(True)
        self.exhaust(client, has, b"real")
        self.violates(client)
        self.blocked(False)
        assert agent.take_message() == (DATA, b"real")

    def test_d30_empty_message_costs_its_token(self):
        """AGENT_DATA of no bytes is a message as others: counted, and its
        token comes back."""
        self.agent()
        client = self.client()
        for _ in range(3):
            client.main.agent_data(b"")
        self.wait_tokens(WINDOW)
        assert client.tokens_given() == 3

    def test_refused_messages_give_their_tokens_back(self):
        """What the policy refuses costs nothing in the end."""
        self.set("agent-clipboard", "off")
        agent, client = self.pair()
        client.tokens_given()
        grab = ag.message(ag.CLIPBOARD_GRAB, struct.pack("<II", 0, 1))
        for _ in range(4 * WINDOW):
            client.main.agent_data(grab)
            client.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        self.wait_tokens(WINDOW)
        assert agent.silent()
        self.set_defaults()

    def test_answers_that_cross(self):
        """The agent comes, goes and comes before a client has answered once:
        what it sent for the first one is not charged to the second, and its
        window is that of the last announcement."""
        self.close_agent()
        client = self.client()
        self.agent()
        self.close_agent()
        agent = self.agent()
        for kind in (sc.MSG_MAIN_AGENT_CONNECTED_TOKENS,
                     sc.MSG_MAIN_AGENT_DISCONNECTED,
                     sc.MSG_MAIN_AGENT_CONNECTED_TOKENS):
            assert client.main.receive()[0] == kind
        violations = self.flow()["token-violations"]
        self.blocked(True)
        client.main.agent_start()
        for _ in range(WINDOW):
            client.say(DATA, b"for the first")
        client.main.agent_start()
        for _ in range(WINDOW):
            client.say(DATA, b"for the second")
        self.wait_tokens(0)
        assert self.flow()["token-violations"] == violations
        self.blocked(False)
        got = [agent.take_message()[1] for _ in range(WINDOW)]
        assert got == [b"for the second"] * WINDOW, got
        client.main.agent_start(5)
        self.wait_send_tokens(5)
        assert agent.silent()

    def test_answers_that_cross_in_mid_message(self):
        """Likewise while the client is in the middle of a message, whose
        rest is for nobody."""
        self.close_agent()
        client = self.client()
        self.agent()
        self.close_agent()
        agent = self.agent()
        client.main.agent_start()
        parts = ag.pieces(ag.message(DATA, b"o" * 5000))
        client.main.agent_data(parts[0])
        client.main.agent_start()
        client.main.agent_data(parts[1])
        client.main.agent_data(parts[2])
        client.say(DATA, b"new")
        assert agent.take_message() == (DATA, b"new")
        assert agent.silent()
        self.wait_tokens(WINDOW)

    def counts_like_a_client(self, client, news):
        """Send all that the client may, as it reads NEWS of the main channel,
        each of which it answers before it reads the next."""
        tokens = 0
        for kind, body in news:
            if kind == sc.MSG_MAIN_AGENT_CONNECTED_TOKENS:
                tokens, = struct.unpack("<I", body)
                client.main.agent_start()
            elif kind == sc.MSG_MAIN_AGENT_TOKEN:
                tokens += struct.unpack("<I", body)[0]
            while tokens:
                client.say(DATA, b"%d" % len(news))
                tokens -= 1

    def news(self, client, count):
        return [client.main.receive() for _ in range(count)]

    def test_window_shrinks_while_answers_cross(self):
        """Three agents and three windows in one round trip: what fits the
        first window is no violation of the last."""
        violations = self.flow()["token-violations"]
        for windows in ((16, 2, 4), (2, 16, 4), (4, 2, 16)):
            self.close_agent()
            client = self.client()
            for window in windows:
                self.set("agent-window", window)
                agent = self.agent()
            self.blocked(True)
            news = self.news(client, 2 * len(windows) - 1)
            self.counts_like_a_client(client, news)
            self.wait_tokens(0, client)
            assert self.client_flow()["window"] == windows[-1]
            assert client.silent()
            self.blocked(False)
            for _ in range(windows[-1]):
                assert agent.take_message() == (DATA, b"%d" % len(news))
            self.wait_tokens(windows[-1], client)
            assert agent.silent()
            client.session.close()
            self.wait_gone(client)
        assert self.flow()["token-violations"] == violations
        self.set_defaults()

    def test_tokens_given_while_answers_cross(self):
        """What a client sends on an old announcement earns it no tokens: it
        would read of them after the new announcement, and have too many."""
        violations = self.flow()["token-violations"]
        self.close_agent()
        client = self.client()
        self.agent()
        agent = self.agent()
        first, *later = self.news(client, 3)
        # The guest is awake and takes whatever it is given.
        self.counts_like_a_client(client, [first])
        client.main.send(sc.MSGC_MAIN_MOUSE_MODE_REQUEST, b"\1\0")
        while True:
            later.append(client.main.receive())
            if later[-1][0] == sc.MSG_MAIN_MOUSE_MODE:
                break
        self.blocked(True)
        self.counts_like_a_client(client, later)
        self.wait_tokens(0, client)
        self.blocked(False)
        for _ in range(WINDOW):
            assert agent.take_message() == (DATA, b"%d" % len(later))
        self.wait_tokens(WINDOW, client)
        assert self.flow()["token-violations"] == violations
