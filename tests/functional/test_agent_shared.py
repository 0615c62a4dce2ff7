# SPDX-License-Identifier: GPL-2.0-or-later
"""One agent, several clients: whose turn it is, what is whose, who is slow."""

import struct
import time

from lib import agentguest as ag
from lib import spiceclient as sc
from lib.agentguest import DATA
from lib.agentscript import STALL, WINDOW, AgentScript
from lib.clipboard import PRIMARY, TEXT, ask, contents, grab
from lib.process import wait_until
from lib.samples import ramp

LONG = ramp(5000)
# Time that a stall takes to be noticed, and some for a busy machine
LATE = STALL * 1.25 + 5


class Shared(AgentScript):
    max_clients = 3

    def clients(self, count, agent=None, **options):
        """So many clients, which know the agent and the agent them."""
        found = []
        for _ in range(count):
            client = self.client(**options)
            found.append(client)
        if agent:
            self.introduce(agent, found[0])
            for client in found[1:]:
                client.collect(0.05)
                client.announce()
                client.expect(ag.ANNOUNCE_CAPABILITIES)
            agent.streams[ag.PORT_CLIENT].clear()
            agent.streams[ag.PORT_SERVER].clear()
            for client in found:
                client.collect(0.05)
        return found

    def wait_queued(self, client, messages):
        wait_until(lambda: self.client_flow(client)["to-guest-messages"] ==
                   messages, 5, "%d messages wait" % messages)


class TestTurns(Shared):
    """Toward the guest: a message at a time."""

    def test_d23_messages_do_not_mix(self):
        """While one client is in the middle of its message, the others'
        messages wait."""
        agent = self.agent()
        a, b, c = self.clients(3)
        parts = ag.pieces(ag.message(DATA, LONG))
        a.main.agent_data(parts[0])
        assert agent.read_chunk() == (ag.PORT_CLIENT, parts[0])
        b.say(DATA, b"b")
        c.say(DATA, b"c")
        self.wait_queued(b, 1)
        self.wait_queued(c, 1)
        assert agent.silent()
        a.main.agent_data(parts[1])
        assert agent.read_chunk() == (ag.PORT_CLIENT, parts[1])
        assert agent.silent()
        a.main.agent_data(parts[2])
        assert agent.take_message() == (DATA, LONG)
        assert {agent.take_message(), agent.take_message()} == {
            (DATA, b"b"), (DATA, b"c")}
        for client in (a, b, c):
            self.wait_tokens(WINDOW, client)

    def test_fair(self):
        """Everyone's next message before anyone's next but one, however long
        the messages are and whoever came first."""
        agent = self.agent()
        a, b, c = self.clients(3)
        with self.guest_asleep():
            for client, size in ((a, 2500), (b, 10), (c, 1)):
                for _ in range(WINDOW // 2):
                    client.say(DATA, bytes([ord("a") + (a, b, c).index(
                        client)]) * size)
            for client, count in ((a, WINDOW), (b, WINDOW // 2),
                                  (c, WINDOW // 2)):
                self.wait_queued(client, count)
        order = "".join(chr(agent.take_message()[1][0])
                        for _ in range(3 * WINDOW // 2))
        for at in range(0, len(order), 3):
            assert sorted(order[at:at + 3]) == ["a", "b", "c"], order

    def test_pause_in_mid_message(self):
        """Who pauses there while others wait loses the turn: the guest is
        made to forget its part where that can not be ended otherwise, the
        others are introduced anew and go on, and the one who paused stays, and
        works again with its next message."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        parts = ag.pieces(ag.message(DATA, LONG))
        a.main.agent_data(parts[0])
        agent.read_chunk()
        b.say(DATA, b"patient")
        since = time.monotonic()
        assert agent.take_message(ag.PORT_SERVER, LATE) == (
            ag.CLIENT_DISCONNECTED, b"")
        waited = time.monotonic() - since
        assert STALL * 0.9 < waited, waited
        agent.streams[ag.PORT_CLIENT].clear()
        caps = agent.expect(ag.ANNOUNCE_CAPABILITIES, ag.PORT_SERVER)
        assert caps[:4] == b"\1\0\0\0", caps
        assert agent.take_message() == (DATA, b"patient")
        assert self.flow()["stalls"] >= 1
        a.main.agent_data(parts[1])
        a.main.agent_data(parts[2])
        a.say(DATA, b"again")
        assert agent.take_message() == (DATA, b"again")
        self.wait_tokens(WINDOW, a)
        self.wait_tokens(WINDOW, b)

    def test_timeout_changes(self):
        """A stall-timeout that is set counts at once, also for who pauses
        already."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        self.set("stall-timeout", 3600000)
        a.main.agent_data(ag.pieces(ag.message(DATA, LONG))[0])
        agent.read_chunk()
        b.say(DATA, b"patient")
        self.wait_queued(b, 1)
        assert agent.silent(STALL * 1.5)
        self.set("stall-timeout", int(STALL * 1000))
        assert agent.take_message(ag.PORT_SERVER)[0] == \
            ag.CLIENT_DISCONNECTED
        agent.streams[ag.PORT_CLIENT].clear()
        assert agent.take_message() == (DATA, b"patient")

    def test_who_waits_is_no_victim(self):
        """The message for which the guest is made to forget another's is not
        forgotten with it: a copy that is begun then, a question."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        a.main.agent_data(ag.pieces(ag.message(DATA, LONG))[0])
        agent.read_chunk()
        b.say(ag.FILE_XFER_START, struct.pack("<I", 1) + b"name")
        b.say(ag.CLIPBOARD_REQUEST, ask())
        assert agent.take_message(ag.PORT_SERVER, LATE)[0] == \
            ag.CLIENT_DISCONNECTED
        agent.streams[ag.PORT_CLIENT].clear()
        number = agent.expect(ag.FILE_XFER_START)[:4]
        assert agent.expect(ag.CLIPBOARD_REQUEST) == ask()
        for result in (0, 3):
            status = struct.pack("<I", result)
            agent.say(ag.FILE_XFER_STATUS, number + status)
            assert b.take() == (ag.FILE_XFER_STATUS,
                                struct.pack("<I", 1) + status)
        agent.say(ag.CLIPBOARD, contents(b"text"))
        assert b.take() == (ag.CLIPBOARD, contents(b"text"))
        assert b.silent()

    def begin_copy(self, agent, client, name):
        """A copy that the guest has agreed to; the guest's number for it."""
        number = struct.pack("<I", 1)
        client.say(ag.FILE_XFER_START, number + name)
        body = agent.expect(ag.FILE_XFER_START)
        assert body[4:] == name
        agent.say(ag.FILE_XFER_STATUS, body[:4] + bytes(4))
        assert client.take() == (ag.FILE_XFER_STATUS, number + bytes(4))
        return body[:4]

    def test_breaks_off_in_file_data(self):
        """Who pauses, or leaves, in the data of its file costs itself that
        copy, and nobody anything: the guest is told that it is cancelled, and
        gets as many bytes as it waits for."""
        cancelled = struct.pack("<I", 1)
        for leaves in (False, True):
            agent = self.agent()
            a, b = self.clients(2, agent)
            of_a = self.begin_copy(agent, a, b"a")
            of_b = self.begin_copy(agent, b, b"b")
            data = struct.pack("<IQ", 1, 9000) + b"a" * 9000
            parts = ag.pieces(ag.message(ag.FILE_XFER_DATA, data))
            for part in parts[:2]:
                a.main.agent_data(part)
                agent.read_chunk()
            last = struct.pack("<IQ", 1, 1) + b"b"
            b.say(ag.FILE_XFER_DATA, last)
            self.wait_queued(b, 1)
            if leaves:
                # what is on its way goes, and what the guest has yet to get
                with self.guest_asleep():
                    a.main.agent_data(parts[2])
                    self.wait_queued(a, 1)
                    a.session.close()
                    self.wait_gone(a)
            assert agent.take_message(ag.PORT_SERVER, LATE) == (
                ag.FILE_XFER_STATUS, of_a + cancelled)
            sent = 2048 * (3 if leaves else 2) - 20
            assert agent.take_message() == (
                ag.FILE_XFER_DATA,
                of_a + data[4:sent] + bytes(len(data) - sent))
            assert agent.take_message() == (ag.FILE_XFER_DATA,
                                            of_b + last[4:])
            agent.say(ag.FILE_XFER_STATUS, of_b + struct.pack("<I", 3))
            assert b.take() == (ag.FILE_XFER_STATUS,
                                struct.pack("<II", 1, 3))
            assert agent.silent()
            if not leaves:
                assert a.take() == (ag.FILE_XFER_STATUS,
                                    struct.pack("<I", 1) + cancelled)
                for part in parts[2:]:
                    a.main.agent_data(part)
                self.begin_copy(agent, a, b"again")
                a.session.close()
            b.session.close()

    def test_breaks_off_in_contents(self):
        """The same in clipboard contents: they are given up before they end,
        and offered again after that."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        of_b = self.begin_copy(agent, b, b"b")
        a.say(ag.CLIPBOARD_GRAB, grab(TEXT))
        agent.expect(ag.CLIPBOARD_GRAB)
        agent.say(ag.CLIPBOARD_REQUEST, ask())
        assert a.expect(ag.CLIPBOARD_REQUEST) == ask()
        body = contents(b"x" * 5000)
        parts = ag.pieces(ag.message(ag.CLIPBOARD, body))
        a.main.agent_data(parts[0])
        agent.read_chunk()
        last = struct.pack("<IQ", 1, 1) + b"b"
        b.say(ag.FILE_XFER_DATA, last)
        assert agent.take_message(ag.PORT_SERVER, LATE) == (
            ag.CLIPBOARD_RELEASE, struct.pack("<I", 0))
        assert not agent.streams[ag.PORT_SERVER]
        assert agent.take_message() == (
            ag.CLIPBOARD, body[:2028] + bytes(len(body) - 2028))
        assert agent.take_message(ag.PORT_SERVER) == (ag.CLIPBOARD_GRAB,
                                                      grab(TEXT))
        assert agent.take_message() == (ag.FILE_XFER_DATA, of_b + last[4:])
        for part in parts[1:]:
            a.main.agent_data(part)
        agent.say(ag.CLIPBOARD_REQUEST, ask())
        assert a.expect(ag.CLIPBOARD_REQUEST) == ask()
        a.say(ag.CLIPBOARD, contents(b"again"))
        assert agent.take_message() == (ag.CLIPBOARD, contents(b"again"))

    def test_pause_when_nobody_waits(self):
        """A pause costs nothing as long as nobody else has a message."""
        agent = self.agent()
        a, b = self.clients(2)
        parts = ag.pieces(ag.message(DATA, LONG))
        a.main.agent_data(parts[0])
        agent.read_chunk()
        time.sleep(STALL * 1.5)
        b.say(DATA, b"now")
        time.sleep(STALL * 0.3)
        a.main.agent_data(parts[1])
        a.main.agent_data(parts[2])
        assert agent.take_message() == (DATA, LONG)
        assert agent.take_message() == (DATA, b"now")

    def test_guest_that_pauses_costs_no_turn(self):
        """When it is the guest that does not read, nobody is late."""
        agent = self.agent()
        a, b = self.clients(2)
        parts = ag.pieces(ag.message(DATA, LONG))
        a.main.agent_data(parts[0])
        agent.read_chunk()
        with self.guest_asleep():
            a.main.agent_data(parts[1])
            self.wait_tokens(WINDOW - 1, a)
            b.say(DATA, b"b")
            time.sleep(STALL * 1.5)
        a.main.agent_data(parts[2])
        assert agent.take_message() == (DATA, LONG)
        assert agent.take_message() == (DATA, b"b")
        assert agent.silent()

    def test_leaves_in_mid_message(self):
        """One of two leaves there: the guest forgets its part, the other is
        introduced anew, and nothing of it is mistaken."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        a.main.agent_data(ag.pieces(ag.message(DATA, LONG))[0])
        agent.read_chunk()
        b.say(DATA, b"b")
        self.wait_queued(b, 1)
        a.session.close()
        assert agent.take_message(ag.PORT_SERVER) == (
            ag.CLIENT_DISCONNECTED, b"")
        agent.streams[ag.PORT_CLIENT].clear()
        assert agent.expect(ag.ANNOUNCE_CAPABILITIES,
                            ag.PORT_SERVER)[:4] == b"\1\0\0\0"
        assert agent.take_message() == (DATA, b"b")

    def test_leaves_between_messages(self):
        """Then the guest does not hear of it: CLIENT_DISCONNECTED is for the
        last one, and nobody but the server may say it."""
        agent = self.agent()
        a, b = self.clients(2)
        a.say(ag.CLIENT_DISCONNECTED)
        a.say(DATA, b"a")
        assert agent.take_message() == (DATA, b"a")
        a.session.close()
        self.wait_gone(a)
        b.say(DATA, b"b")
        assert agent.take_message() == (DATA, b"b")
        assert not agent.streams[ag.PORT_SERVER]
        b.session.close()
        assert agent.take_message(ag.PORT_SERVER) == (
            ag.CLIENT_DISCONNECTED, b"")

    def test_one_too_many(self):
        """A fourth client is refused, and the three stay."""
        self.close_agent()
        self.clients(3)
        with sc.refused(sc.ERR_PERMISSION_DENIED):
            self.rig.raw()


class TestSlow(Shared):
    """Toward the clients: nobody waits for one that is slow."""

    def flood(self, agent, count, size=1500):
        for n in range(count):
            agent.say(DATA, struct.pack("<I", n) + bytes(size))

    def check(self, client, count):
        for n in range(count):
            kind, body = client.take()
            assert kind == DATA and struct.unpack_from("<I", body)[0] == n

    def test_d13_without_tokens(self):
        """One grants nothing: the others get everything at once, and after
        the stall timeout it is told why, and really gone."""
        agent = self.agent()
        a, b, c = self.clients(3)
        a.main.agent_start(0)
        wait_until(lambda: self.client_flow(a)["send-tokens"] == 0, 5, "0")
        since = time.monotonic()
        self.flood(agent, 50)
        self.check(b, 50)
        self.check(c, 50)
        assert time.monotonic() - since < STALL
        assert self.client_flow(a)["to-client-messages"] == 50
        assert self.client_flow(a)["stalls"]
        text = a.main.expect(sc.MSG_NOTIFY, LATE)
        assert STALL * 0.9 < time.monotonic() - since
        assert b"stalled" in text, text
        a.main.wait_closed()
        self.wait_gone(a)
        self.flood(agent, 50)
        self.check(b, 50)
        self.check(c, 50)

    def test_d13_with_a_full_socket(self):
        """One does not read: the same, without ever reading a byte of it."""
        agent = self.agent()
        a, b = self.clients(2)
        since = time.monotonic()
        self.flood(agent, 300)
        self.check(b, 300)
        assert time.monotonic() - since < STALL
        flow = self.client_flow(a)
        assert flow["to-client-in-flight"] == flow["to-client-messages"] > 0
        self.wait_gone(a, LATE)
        assert STALL * 0.9 < time.monotonic() - since
        self.flood(agent, 20)
        self.check(b, 20)

    def test_more_than_the_queue_holds(self):
        """One that does not read while more comes than its queue holds does
        not last until the timeout, and costs nobody a message."""
        agent = self.agent()
        a, b = self.clients(2)
        self.set("stall-timeout", 60000)
        flow = self.flow()
        assert flow["queue-size"] == 1 << 20
        for _ in range(8):
            self.flood(agent, 100, 2000)
            self.check(b, 100)
            assert self.flow()["pool-bytes"] <= 4 << 20
        self.wait_gone(a)
        self.set("stall-timeout", int(STALL * 1000))

    def test_slow_but_alive(self):
        """One that takes a message now and then is waited for by nobody, and
        is not removed while its queue holds."""
        agent = self.agent()
        a, b = self.clients(2)
        a.main.agent_start(0)
        wait_until(lambda: self.client_flow(a)["send-tokens"] == 0, 5, "0")
        for n in range(5):
            agent.say(DATA, b"%d" % n)
        for n in range(5):
            assert b.take() == (DATA, b"%d" % n)
            time.sleep(STALL * 0.5)
            a.main.agent_token(1)
            assert a.take() == (DATA, b"%d" % n)
        assert self.client_flow(a)

    def test_alone_again(self):
        """Who was slow and is alone now makes the guest wait, and stays."""
        agent = self.agent()
        a, b = self.clients(2)
        a.main.agent_start(0)
        wait_until(lambda: self.client_flow(a)["send-tokens"] == 0, 5, "0")
        self.flood(agent, 3)
        self.check(b, 3)
        b.session.close()
        self.wait_gone(b)
        time.sleep(STALL * 1.5)
        assert self.client_flow(a)["to-client-messages"] == 3
        # Time that it was alone does not count against it later.
        c = self.client()
        time.sleep(STALL * 0.5)
        assert self.client_flow(a)
        a.main.agent_token(100)
        self.check(a, 3)
        agent.say(DATA, b"both")
        assert a.take() == c.take() == (DATA, b"both")

    def test_stop_does_not_run_the_clock(self):
        """A stopped VM makes nobody late."""
        agent = self.agent()
        a, b = self.clients(2)
        a.main.agent_start(0)
        wait_until(lambda: self.client_flow(a)["send-tokens"] == 0, 5, "0")
        self.flood(agent, 2)
        self.check(b, 2)
        self.qemu.command("stop")
        time.sleep(STALL * 1.5)
        assert self.client_flow(a)
        self.qemu.command("cont")
        a.main.agent_token(2)
        self.check(a, 2)


class TestRouting(Shared):
    """Whose contents, whose file, whose answer."""

    def test_d23_joins_during_a_message(self):
        """Its first message is the next one, whole."""
        agent = self.agent()
        a, = self.clients(1)
        stream = ag.chunks(ag.message(DATA, LONG))
        agent.write(stream[:2500])
        a.main.expect(sc.MSG_MAIN_AGENT_DATA)
        b = self.client()
        agent.write(stream[2500:])
        agent.say(DATA, b"next")
        assert b.take() == (DATA, b"next")
        a.main.expect(sc.MSG_MAIN_AGENT_DATA)
        a.main.expect(sc.MSG_MAIN_AGENT_DATA)
        assert a.take() == (DATA, b"next")

    def test_d23_joins_while_a_piece_waits(self):
        """The one client there is grants nothing, so a piece waits for it;
        another comes, which could have it, but it is not the first."""
        agent = self.agent()
        a, = self.clients(1, tokens=1)
        stream = ag.chunks(ag.message(DATA, LONG))
        agent.write(stream)
        a.main.expect(sc.MSG_MAIN_AGENT_DATA)
        assert a.silent()
        b = self.client()
        agent.say(DATA, b"next")
        assert b.take() == (DATA, b"next")
        a.main.agent_token(3)
        a.main.expect(sc.MSG_MAIN_AGENT_DATA)
        a.main.expect(sc.MSG_MAIN_AGENT_DATA)
        assert a.take() == (DATA, b"next")

    def test_capabilities(self):
        """The guest is told of all clients together, as one; a client that
        comes later is told of the guest by the server, and the guest is not
        reset by it."""
        agent = self.agent()
        a, b = self.clients(2)
        both = ag.CAPS
        self.introduce(agent, a, both, both)
        agent.streams[ag.PORT_CLIENT].clear()
        b.collect(0.05)
        b.announce(both & ~(1 << ag.CAP_SELECTION) | 1 << 4)
        # A layout that not all know is used by nobody.
        expect = both & ~(1 << ag.CAP_SELECTION)
        told = struct.unpack("<II", agent.expect(ag.ANNOUNCE_CAPABILITIES,
                                                 ag.PORT_SERVER))
        assert told == (0, expect | 1 << 4), told
        for client in (a, b):
            told = struct.unpack("<II",
                                 client.expect(ag.ANNOUNCE_CAPABILITIES))
            assert told == (0, expect), told
        assert agent.silent()
        b.session.close()
        told = struct.unpack("<II", agent.expect(ag.ANNOUNCE_CAPABILITIES,
                                                 ag.PORT_SERVER))
        assert told == (0, both), told

    def test_guests_clipboard(self):
        """Offered to all; the contents go to the one that asked."""
        agent = self.agent()
        a, b, c = self.clients(3, agent)
        agent.say(ag.CLIPBOARD_GRAB, grab(TEXT, 2))
        for client in (a, b, c):
            assert client.take() == (ag.CLIPBOARD_GRAB, grab(TEXT, 2))
        owner = self.flow()["agent"]["clipboards"]["clipboard"]
        assert owner == {"owner": "guest"}, owner
        b.say(ag.CLIPBOARD_REQUEST, ask())
        assert agent.expect(ag.CLIPBOARD_REQUEST) == ask()
        body = contents(LONG * 20)
        agent.say(ag.CLIPBOARD, body)
        assert b.take() == (ag.CLIPBOARD, body)
        assert a.silent() and c.silent()
        agent.say(ag.CLIPBOARD_RELEASE, grab())
        for client in (a, b, c):
            assert client.take() == (ag.CLIPBOARD_RELEASE, grab())

    def test_two_ask_at_once(self):
        """Answers find their askers: by type, and in order."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        agent.say(ag.CLIPBOARD_GRAB, grab(TEXT, 2))
        for client in (a, b):
            client.expect(ag.CLIPBOARD_GRAB)
        for client, kind in ((a, 2), (b, TEXT), (a, TEXT)):
            client.say(ag.CLIPBOARD_REQUEST, ask(kind))
            assert agent.expect(ag.CLIPBOARD_REQUEST) == ask(kind)
        agent.say(ag.CLIPBOARD, contents(b"for b", TEXT))
        agent.say(ag.CLIPBOARD, contents(b"for a", TEXT))
        agent.say(ag.CLIPBOARD, contents(b"picture for a", 2))
        assert b.take() == (ag.CLIPBOARD, contents(b"for b"))
        assert a.take() == (ag.CLIPBOARD, contents(b"for a"))
        assert a.take() == (ag.CLIPBOARD, contents(b"picture for a", 2))
        assert b.silent()

    def test_asker_leaves(self):
        """What it asked for is for nobody, and the others' answers are not
        mistaken for it."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        agent.say(ag.CLIPBOARD_GRAB, grab(TEXT))
        b.expect(ag.CLIPBOARD_GRAB)
        a.say(ag.CLIPBOARD_REQUEST, ask())
        agent.expect(ag.CLIPBOARD_REQUEST)
        b.say(ag.CLIPBOARD_REQUEST, ask())
        agent.expect(ag.CLIPBOARD_REQUEST)
        a.session.close()
        self.wait_gone(a)
        agent.say(ag.CLIPBOARD, contents(b"for a"))
        agent.say(ag.CLIPBOARD, contents(b"for b"))
        assert b.take() == (ag.CLIPBOARD, contents(b"for b"))

    def test_leaves_while_it_receives(self):
        """The rest of a long answer is dropped, and costs the others
        nothing."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        a.say(ag.CLIPBOARD_REQUEST, ask())
        agent.expect(ag.CLIPBOARD_REQUEST)
        data = ag.chunks(ag.message(ag.CLIPBOARD, contents(bytes(3 << 20))))
        taken = agent.offer(data, 0.3)
        assert taken < len(data)
        a.session.close()
        agent.write(data[taken:])
        agent.say(DATA, b"next")
        assert b.take() == (DATA, b"next")

    def test_clients_clipboards(self):
        """The last one that grabs is asked; nobody else's words about it
        count, and it never goes to another client."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        a.say(ag.CLIPBOARD_GRAB, grab(TEXT))
        assert agent.expect(ag.CLIPBOARD_GRAB) == grab(TEXT)
        b.say(ag.CLIPBOARD_GRAB, grab(TEXT, selection=PRIMARY))
        assert agent.expect(ag.CLIPBOARD_GRAB) == grab(TEXT,
                                                       selection=PRIMARY)
        owners = self.flow()["agent"]["clipboards"]
        assert owners["clipboard"] == {"owner": "client",
                                       "connection-id": a.id}, owners
        assert owners["primary"]["connection-id"] == b.id, owners
        agent.say(ag.CLIPBOARD_REQUEST, ask())
        assert a.take() == (ag.CLIPBOARD_REQUEST, ask())
        agent.say(ag.CLIPBOARD_REQUEST, ask(selection=PRIMARY))
        assert b.take() == (ag.CLIPBOARD_REQUEST, ask(selection=PRIMARY))
        b.say(ag.CLIPBOARD, contents(b"not asked"))
        a.say(ag.CLIPBOARD, contents(b"of a"))
        assert agent.expect(ag.CLIPBOARD) == contents(b"of a")
        b.say(ag.CLIPBOARD, contents(b"of b", selection=PRIMARY))
        assert agent.expect(ag.CLIPBOARD) == contents(b"of b",
                                                      selection=PRIMARY)
        b.say(ag.CLIPBOARD_RELEASE, grab())
        b.say(ag.CLIPBOARD_GRAB, grab(TEXT))
        assert agent.take_message() == (ag.CLIPBOARD_GRAB, grab(TEXT))
        assert a.silent() and b.silent()
        b.session.close()
        gone = [agent.take_message(ag.PORT_SERVER) for _ in range(2)]
        assert sorted(gone) == [
            (ag.CLIPBOARD_RELEASE, grab()),
            (ag.CLIPBOARD_RELEASE, grab(selection=PRIMARY))], gone

    def test_guest_loses_its_clipboard_to_one(self):
        """To the others that is a release."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        agent.say(ag.CLIPBOARD_GRAB, grab(TEXT))
        a.expect(ag.CLIPBOARD_GRAB)
        b.expect(ag.CLIPBOARD_GRAB)
        a.say(ag.CLIPBOARD_GRAB, grab(TEXT))
        assert b.take() == (ag.CLIPBOARD_RELEASE, grab())
        assert a.silent()

    def test_joins_while_the_guest_owns(self):
        """It is told what there is."""
        agent = self.agent()
        a, = self.clients(1, agent)
        agent.say(ag.CLIPBOARD_GRAB, grab(TEXT, 5))
        a.expect(ag.CLIPBOARD_GRAB)
        b = self.client()
        b.announce()
        assert b.expect(ag.CLIPBOARD_GRAB) == grab(TEXT, 5)
        assert a.silent() and agent.silent()

    def test_two_copy_files_at_once(self):
        """Both call theirs number 1; the guest sees two, each client its own
        status, and the data is whose it is."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        number = struct.Struct("<I")
        ids = {}
        for client, name in ((a, b"a"), (b, b"b")):
            client.say(ag.FILE_XFER_START, number.pack(1) + name)
            body = agent.expect(ag.FILE_XFER_START)
            ids[name] = body[:4]
            assert body[4:] == name
        assert ids[b"a"] != ids[b"b"]
        assert self.flow()["agent"]["transfers"] == 2
        can_send, success = number.pack(0), number.pack(3)
        agent.say(ag.FILE_XFER_STATUS, ids[b"b"] + can_send)
        assert b.take() == (ag.FILE_XFER_STATUS, number.pack(1) + can_send)
        agent.say(ag.FILE_XFER_STATUS, ids[b"a"] + can_send)
        assert a.take() == (ag.FILE_XFER_STATUS, number.pack(1) + can_send)
        files = {b"a": bytearray(), b"b": bytearray()}
        for n in range(4):
            for client, name in ((a, b"a"), (b, b"b")):
                part = name * (1700 * (n + 1))
                client.tokens_given()
                self.wait_tokens(WINDOW, client)
                client.say(ag.FILE_XFER_DATA, number.pack(1) +
                           struct.pack("<Q", len(part)) + part)
        for _ in range(8):
            body = agent.expect(ag.FILE_XFER_DATA)
            name = {one: two for two, one in ids.items()}[body[:4]]
            size, = struct.unpack_from("<Q", body, 4)
            assert len(body) == 12 + size
            files[name] += body[12:]
        for name, data in files.items():
            assert data == name * 17000, name
        agent.say(ag.FILE_XFER_STATUS, ids[b"a"] + success)
        assert a.take() == (ag.FILE_XFER_STATUS, number.pack(1) + success)
        assert b.silent()
        # The one that leaves now has its own cancelled, and no other.
        a.say(ag.FILE_XFER_START, number.pack(2) + b"again")
        other = agent.expect(ag.FILE_XFER_START)[:4]
        b.session.close()
        kind, body = agent.take_message(ag.PORT_SERVER)
        assert (kind, body[:4]) == (ag.FILE_XFER_STATUS, ids[b"b"])
        agent.say(ag.FILE_XFER_STATUS, ids[b"b"] + success)
        agent.say(ag.FILE_XFER_STATUS, other + success)
        assert a.take() == (ag.FILE_XFER_STATUS, number.pack(2) + success)

    def test_monitors_and_replies(self):
        """A client's monitors go to the agent, and its reply to that
        client."""
        agent = self.agent()
        a, b = self.clients(2, agent)
        screens = struct.pack("<II", 1, 0) + struct.pack(
            "<5I", 768, 1024, 32, 0, 0)
        for client, other in ((a, b), (b, a)):
            client.say(ag.MONITORS_CONFIG, screens)
            assert agent.expect(ag.MONITORS_CONFIG) == screens
            reply = struct.pack("<II", ag.MONITORS_CONFIG, 1)
            agent.say(ag.REPLY, reply)
            assert client.take() == (ag.REPLY, reply)
            assert other.silent()
            client.main.send(sc.MSGC_MAIN_MOUSE_MODE_REQUEST, b"\2\0")
            assert client.main.expect(sc.MSG_MAIN_MOUSE_MODE) == b"\1\0\1\0"
