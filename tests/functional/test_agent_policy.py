# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent's policy lets through, and what both sides are told of it."""

import struct

from lib import agentguest as ag
from lib import spiceclient as sc
from lib.agentguest import DATA
from lib.agentscript import WINDOW, AgentScript
from lib.clipboard import TEXT, ask, contents, grab
from lib.process import wait_until
from lib.samples import ramp

LONG = ramp(5000)
# Clipboard, by demand, selections, no release on regrab, grab serials
CLIPBOARD_CAPS = 1 << 3 | 1 << 5 | 1 << 6 | 1 << 16 | 1 << 17
GRAB = grab(TEXT)
ASK = ask()
RELEASE = struct.pack("<I", 0)


class TestPolicy(AgentScript):
    """One client; the policy changes under its feet."""

    def told(self, peer, *port):
        """The capabilities that a side is told now."""
        _, caps = struct.unpack("<II", peer.expect(
            ag.ANNOUNCE_CAPABILITIES, *port))
        return caps

    def refused(self, what="refused-policy"):
        return self.counts()[what]

    def test_clipboard_off(self):
        """Nothing of the kind passes, each question has an answer, and the
        capabilities are gone on both sides."""
        self.set("agent-clipboard", "off")
        agent = self.agent()
        client = self.client()
        client.announce(CLIPBOARD_CAPS | 1)
        assert self.told(agent) == 1
        agent.announce(CLIPBOARD_CAPS | 1)
        assert self.told(client) == 1
        before = self.refused()
        body = contents(LONG)
        client.say(ag.CLIPBOARD_GRAB, GRAB)
        client.say(ag.CLIPBOARD_RELEASE, RELEASE)
        client.say(ag.CLIPBOARD, body)
        client.say(DATA, b"passes")
        assert agent.take_message() == (DATA, b"passes")
        agent.say(ag.CLIPBOARD_GRAB, GRAB)
        agent.say(ag.CLIPBOARD_RELEASE, RELEASE)
        agent.say(ag.CLIPBOARD, body)
        agent.say(DATA, b"passes")
        assert client.take() == (ag.CLIPBOARD, struct.pack("<I", 0))
        assert client.take() == (DATA, b"passes")
        assert self.refused() == before + 6
        self.set_defaults()

    def test_each_way(self):
        """A grab from either side, and who may have it, for all four values;
        changed while everybody is connected."""
        agent, client = self.pair()
        for value, to_guest, to_client in (
                ("to-guest", True, False), ("to-client", False, True),
                ("off", False, False), ("both", True, True)):
            self.set("agent-clipboard", value)
            client.collect(0.1)
            self.settle(agent)
            client.say(ag.CLIPBOARD_GRAB, GRAB)
            client.say(DATA, b"mark")
            heard = self.until_mark(agent)
            assert (ag.CLIPBOARD_GRAB in heard) == to_guest, (value, heard)
            agent.say(ag.CLIPBOARD_GRAB, GRAB)
            agent.say(DATA, b"mark")
            heard = self.until_mark(client)
            assert (ag.CLIPBOARD_GRAB in heard) == to_client, (value, heard)
        self.set_defaults()

    @staticmethod
    def until_mark(peer):
        heard = []
        while True:
            kind, body = peer.take() if hasattr(peer, "take") \
                else peer.take_message()
            if (kind, body) == (DATA, b"mark"):
                return heard
            heard.append(kind)

    def settle(self, agent):
        """Whatever the guest was told is read."""
        while not agent.silent(0.1):
            agent.read_chunk()
        agent.streams[ag.PORT_CLIENT].clear()
        agent.streams[ag.PORT_SERVER].clear()

    def test_capabilities_are_announced_again(self):
        """Each change that matters reaches both sides, and only those."""
        agent, client = self.pair()
        selections = 1 << ag.CAP_SELECTION | 1 << ag.CAP_BY_DEMAND
        self.set("agent-clipboard", "off")
        assert self.told(agent, ag.PORT_SERVER) == ag.CAPS & ~selections
        assert self.told(client) == ag.CAPS & ~selections
        self.set("agent-file-transfer", False)
        disabled = 1 << ag.CAP_XFER_DISABLED
        assert self.told(agent, ag.PORT_SERVER) == \
            ag.CAPS & ~selections | disabled
        assert self.told(client) == ag.CAPS & ~selections | disabled
        self.set("agent-clipboard", "both")
        assert self.told(agent, ag.PORT_SERVER) == ag.CAPS | disabled
        assert self.told(client) == ag.CAPS | disabled
        self.set("agent-file-transfer", True)
        assert self.told(agent, ag.PORT_SERVER) == ag.CAPS
        assert self.told(client) == ag.CAPS
        for name, value in (("agent-clipboard", "both"),
                            ("agent-clipboard", "to-guest"),
                            ("agent-file-transfer", True)):
            self.set(name, value)
        assert agent.silent() and client.silent()
        self.set_defaults()

    def test_taken_away_while_owned(self):
        """Who owned the clipboard does not any more: a release to the other
        side; and what the guest has is offered when it is allowed again."""
        agent, client = self.pair()
        client.say(ag.CLIPBOARD_GRAB, GRAB)
        agent.expect(ag.CLIPBOARD_GRAB)
        self.set("agent-clipboard", "to-client")
        assert agent.take_message(ag.PORT_SERVER) == (
            ag.CLIPBOARD_RELEASE, RELEASE)
        agent.say(ag.CLIPBOARD_REQUEST, ASK)
        assert agent.take_message(ag.PORT_SERVER) == (
            ag.CLIPBOARD, contents(b""))
        agent.say(ag.CLIPBOARD_GRAB, GRAB)
        assert client.take() == (ag.CLIPBOARD_GRAB, GRAB)
        self.set("agent-clipboard", "to-guest")
        assert client.take() == (ag.CLIPBOARD_RELEASE, RELEASE)
        client.say(ag.CLIPBOARD_REQUEST, ASK)
        assert client.take() == (ag.CLIPBOARD, contents(b"", kind=0))
        self.set("agent-clipboard", "both")
        assert client.take() == (ag.CLIPBOARD_GRAB, GRAB)
        self.set_defaults()

    def test_next_border_to_guest(self):
        """What has begun to pass passes whole; the next is refused."""
        agent, client = self.pair()
        client.say(ag.CLIPBOARD_GRAB, GRAB)
        agent.expect(ag.CLIPBOARD_GRAB)
        body = contents(LONG)
        parts = ag.pieces(ag.message(ag.CLIPBOARD, body))
        client.main.agent_data(parts[0])
        agent.read_chunk()
        self.set("agent-clipboard", "to-client")
        for part in parts[1:]:
            client.main.agent_data(part)
        assert agent.take_message() == (ag.CLIPBOARD, body)
        before = self.refused()
        client.say(ag.CLIPBOARD, body)
        client.say(DATA, b"next")
        assert agent.take_message() == (DATA, b"next")
        assert self.refused() == before + 1
        self.set_defaults()

    def test_next_border_to_client(self):
        """Likewise of the guest's, also what is refused: its rest stays
        refused when the policy is relaxed in the middle of it."""
        agent, client = self.pair()
        client.say(ag.CLIPBOARD_REQUEST, ASK)
        agent.expect(ag.CLIPBOARD_REQUEST)
        body = contents(LONG)
        stream = ag.chunks(ag.message(ag.CLIPBOARD, body))
        agent.write(stream[:3000])
        client.stream += client.main.expect(sc.MSG_MAIN_AGENT_DATA)
        self.set("agent-clipboard", "to-guest")
        agent.write(stream[3000:])
        assert client.take() == (ag.CLIPBOARD, body)
        before = self.refused()
        agent.write(stream[:3000])
        wait_until(lambda: self.refused() == before + 1, 5, "the refusal")
        self.set("agent-clipboard", "both")
        agent.write(stream[3000:])
        agent.say(DATA, b"next")
        assert client.expect(DATA) == b"next"
        self.set_defaults()

    def test_max_clipboard_to_guest(self):
        """A byte too much, and it is refused whole, with an answer in its
        place; changed at run time."""
        agent, client = self.pair()
        for limit in (4000, 100, 0):
            self.set("agent-max-clipboard", limit)
            before = self.refused("refused-size")
            client.say(ag.CLIPBOARD, contents(bytes(limit)))
            assert agent.expect(ag.CLIPBOARD) == contents(bytes(limit))
            client.say(ag.CLIPBOARD, contents(bytes(limit + 1)))
            assert agent.expect(ag.CLIPBOARD, ag.PORT_SERVER) == contents(b"")
            client.say(DATA, b"next")
            assert agent.expect(DATA) == b"next"
            assert self.refused("refused-size") == before + 1
        self.set_defaults()

    def test_max_clipboard_to_client(self):
        """Likewise to the client; the guest is told of the limit when the
        client has told it one."""
        agent, client = self.pair()
        client.say(ag.MAX_CLIPBOARD, struct.pack("<i", -1))
        told, = struct.unpack("<I", agent.expect(ag.MAX_CLIPBOARD))
        assert told == 100 << 20, told
        for limit in (4000, 100, 0):
            self.set("agent-max-clipboard", limit)
            told, = struct.unpack("<I", agent.expect(ag.MAX_CLIPBOARD,
                                                     ag.PORT_SERVER))
            assert told == limit
            for extra in (0, 1):
                client.say(ag.CLIPBOARD_REQUEST, ASK)
                agent.expect(ag.CLIPBOARD_REQUEST)
                agent.say(ag.CLIPBOARD, contents(bytes(limit + extra)))
                got = client.expect(ag.CLIPBOARD)
                assert got == (contents(b"", kind=0) if extra
                               else contents(bytes(limit))), (limit, extra)
        # A client's own limit counts too.
        self.set("agent-max-clipboard", 100 << 20)
        client.say(ag.MAX_CLIPBOARD, struct.pack("<i", 5))
        assert agent.expect(ag.MAX_CLIPBOARD) == struct.pack("<i", 5)
        client.say(ag.CLIPBOARD_REQUEST, ASK)
        agent.say(ag.CLIPBOARD, contents(bytes(6)))
        assert client.expect(ag.CLIPBOARD) == contents(b"", kind=0)
        self.set_defaults()

    def test_claims_cost_no_memory(self):
        """What a peer says its message will be is not believed: 4 GiB are
        refused as they are announced, in both directions."""
        agent, client = self.pair()
        peak = self.flow()["pool-bytes"]
        head = ag.message(ag.CLIPBOARD, contents(b"x"), size=0xffffffff)
        client.say(ag.CLIPBOARD_REQUEST, ASK)
        agent.expect(ag.CLIPBOARD_REQUEST)
        client.main.agent_data(head)
        assert agent.expect(ag.CLIPBOARD, ag.PORT_SERVER) == contents(b"")
        agent.write(ag.chunk(head))
        assert client.expect(ag.CLIPBOARD) == contents(b"", kind=0)
        agent.write(ag.chunk(bytes(60000)) * 4)
        assert client.silent()
        assert self.flow()["pool-bytes"] <= peak + 65536
        self.wait_tokens(WINDOW)

    def test_files_off(self):
        """A copy is refused with a status; the guest hears nothing of it."""
        self.set("agent-file-transfer", False)
        agent, client = self.pair()
        client.say(ag.FILE_XFER_START, struct.pack("<I", 7) + b"name")
        kind, body = client.take()
        assert (kind, body[:4]) == (ag.FILE_XFER_STATUS,
                                    struct.pack("<I", 7))
        assert struct.unpack_from("<I", body, 4)[0] not in (0, 3), body
        client.say(ag.FILE_XFER_DATA, struct.pack("<IQ", 7, 3) + b"abc")
        agent.say(ag.FILE_XFER_STATUS, struct.pack("<II", 7, 0))
        client.say(DATA, b"next")
        assert agent.take_message() == (DATA, b"next")
        assert client.silent()
        self.set_defaults()

    def test_files_turned_off_during_a_copy(self):
        """It ends on both sides; the message under way is still whole."""
        agent, client = self.pair()
        client.say(ag.FILE_XFER_START, struct.pack("<I", 3) + b"name")
        number = agent.expect(ag.FILE_XFER_START)[:4]
        agent.say(ag.FILE_XFER_STATUS, number + struct.pack("<I", 0))
        client.expect(ag.FILE_XFER_STATUS)
        data = struct.pack("<IQ", 3, len(LONG)) + LONG
        parts = ag.pieces(ag.message(ag.FILE_XFER_DATA, data))
        client.main.agent_data(parts[0])
        agent.read_chunk()
        self.set("agent-file-transfer", False)
        status = client.expect(ag.FILE_XFER_STATUS)
        assert status[:4] == struct.pack("<I", 3)
        assert agent.expect(ag.FILE_XFER_STATUS,
                            ag.PORT_SERVER)[:4] == number
        for part in parts[1:]:
            client.main.agent_data(part)
        assert agent.take_message() == (ag.FILE_XFER_DATA, number + data[4:])
        client.say(ag.FILE_XFER_DATA, data)
        client.say(DATA, b"next")
        assert agent.take_message() == (DATA, b"next")
        assert self.flow()["agent"]["transfers"] == 0
        self.set_defaults()

    def test_many_copies_turned_off_at_once(self):
        """A client that grants nothing and copies more files than its queue
        has places is told of the end of each, and is not removed for it."""
        agent, client = self.pair(tokens=1)
        count = 3000
        for n in range(count):
            client.say(ag.FILE_XFER_START, struct.pack("<I", n) + b"name")
            agent.expect(ag.FILE_XFER_START)
            if n % WINDOW == WINDOW - 1:
                client.tokens_seen = client.main.expect(
                    sc.MSG_MAIN_AGENT_TOKEN)
        client.main.agent_start(0)
        wait_until(lambda: self.client_flow()["send-tokens"] == 0, 5, "0")
        self.set("agent-file-transfer", False)
        assert self.client_flow()["to-client-messages"] < 200
        seen = set()
        client.main.agent_token(2 * count)
        while len(seen) < count:
            kind, body = client.take()
            if kind == ag.FILE_XFER_STATUS:
                seen.add(struct.unpack_from("<I", body)[0])
        assert seen == set(range(count))
        self.set_defaults()

    def test_d9_only_first_pieces_are_rewritten(self):
        """A later piece that looks like an announcement is data."""
        self.set("agent-clipboard", "off")
        self.set("agent-file-transfer", False)
        agent, client = self.pair()
        looks = ag.message(ag.ANNOUNCE_CAPABILITIES, b"\xff" * 28)
        body = bytes(2028) + looks + bytes(2048 - len(looks)) + looks
        client.say(DATA, body)
        assert agent.expect(DATA) == body
        agent.say(DATA, body)
        assert client.expect(DATA) == body
        self.set_defaults()

    def test_capabilities_of_any_length(self):
        """None, a word cut short, more words than anyone knows."""
        self.set("agent-clipboard", "off")
        agent, client = self.pair()
        for size in (0, 3, 4, 5, 7, 8, 9, 12, 64, 2028, 2029, 6000):
            payload = b"\xff" * size
            agent.say(ag.ANNOUNCE_CAPABILITIES, payload)
            agent.say(DATA, b"mark")
            heard = []
            while True:
                kind, got = client.take()
                if kind == DATA:
                    break
                heard.append(got)
            if size >= 4:
                assert len(heard[0]) == size, (size, heard)
                assert heard[0][:4] == payload[:4]
                assert heard[0][24:] == payload[24:]
            if size >= 8:
                caps, = struct.unpack_from("<I", heard[0], 4)
                assert not caps & CLIPBOARD_CAPS, hex(caps)
        client.say(ag.ANNOUNCE_CAPABILITIES, b"\xff" * 6000)
        got = agent.expect(ag.ANNOUNCE_CAPABILITIES)
        assert len(got) == 6000
        self.set_defaults()

    def test_d19_words_to_the_server(self):
        """What the guest says on port 2 is for the server, which has no use
        for it; it may stand between the chunks of a message to the client."""
        agent, client = self.pair()
        message = ag.message(DATA, LONG)
        aside = ag.chunk(ag.message(ag.CLIPBOARD_GRAB, GRAB), ag.PORT_SERVER)
        agent.write(ag.chunk(message[:100]) + aside + ag.chunk(message[100:]) +
                    ag.chunk(b"nonsense" * 1000, ag.PORT_SERVER))
        agent.say(DATA, b"next")
        assert client.take() == (DATA, LONG)
        assert client.take() == (DATA, b"next")

    def test_d20_two_messages_in_a_chunk(self):
        """The guest may; a client gets them apart."""
        agent, client = self.pair()
        agent.write(ag.chunk(ag.message(DATA, b"one") + ag.message(DATA, LONG) +
                             ag.message(DATA, b"three")))
        for body in (b"one", LONG, b"three"):
            assert client.take() == (DATA, body)

    def test_d20_two_messages_in_a_clients_piece(self):
        """A client may not: it is told so, and removed."""
        agent, client = self.pair()
        client.main.agent_data(ag.message(DATA, b"one") +
                               ag.message(DATA, b"two"))
        text = client.main.expect(sc.MSG_NOTIFY)
        assert b"past the end" in text, text
        client.main.wait_closed()
        self.wait_gone(client)
        agent.expect(ag.CLIENT_DISCONNECTED, ag.PORT_SERVER)

    def test_client_breaks_the_protocol(self):
        """Each other way: told, removed, and nobody else is hurt."""
        agent = self.agent()
        for bad, words in ((b"x" * 19, b"whole header"),
                           (ag.message(DATA, b"x", protocol=2), b"protocol"),
                           (bytes(64), b"protocol")):
            client = self.client()
            client.main.agent_data(bad)
            assert words in client.main.expect(sc.MSG_NOTIFY), bad
            client.main.wait_closed()
            self.wait_gone(client)
            agent.expect(ag.CLIENT_DISCONNECTED, ag.PORT_SERVER)
        client = self.client()
        client.main.connection.send(client.main.header(
            sc.MSGC_MAIN_AGENT_DATA, 2049))
        client.main.wait_closed()
        self.wait_gone(client)
        client = self.client()
        client.say(DATA, b"fine")
        assert agent.expect(DATA) == b"fine"
