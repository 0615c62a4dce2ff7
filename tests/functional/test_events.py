# SPDX-License-Identifier: GPL-2.0-or-later
"""What QMP is told of: who comes and goes and why, and what is transferred."""

import struct
import time

from lib import agentguest as ag
from lib import handover, migration
from lib import spiceclient as sc
from lib import vsc
from lib.agentguest import DATA
from lib.agentscript import STALL, AgentScript
from lib.certs import Certificates
from lib.clipboard import TEXT, contents, grab
from lib.paths import seconds
from lib.process import wait_until
from lib.rig import server_args

PORT_NAME = "org.example.events.0"
BURST = 100
RATE = 20
GRAB = grab(TEXT)


class Told:
    """The events of one QEMU that nobody has asked for yet."""

    def __init__(self, qemu):
        self.qmp = qemu.qmp

    def next(self, timeout=10):
        """The next event of ours: (name without its prefix, data)."""
        end = time.monotonic() + seconds(timeout)
        while True:
            for message in self.qmp.events:
                if message["event"].startswith("SPICEFLOW_"):
                    self.qmp.events.remove(message)
                    data = message["data"]
                    assert data.pop("server") == "sf0", message
                    return message["event"][len("SPICEFLOW_"):], data
            assert time.monotonic() < end, "no event came"
            self.qmp.command("query-status")
            time.sleep(0.01)

    def expect(self, *names, **data):
        """The next events have these names; each has these data among its
        own, as far as it has members of these names.  The last one's data."""
        for name in names:
            got, found = self.next()
            assert got == name, (got, found, name)
            for key, value in data.items():
                key = key.replace("_", "-")
                if key in found:
                    assert found[key] == value, (got, found, key, value)
        return found

    def nothing(self, duration=0.2):
        """And nothing else."""
        end = time.monotonic() + duration
        while time.monotonic() < end:
            self.qmp.command("query-status")
            time.sleep(0.02)
        left = [m for m in self.qmp.events
                if m["event"].startswith("SPICEFLOW_")]
        assert not left, left

    def settle(self):
        """All that has happened is told: events are sent by a bottom half,
        which may come after the answer to one command, not to the next."""
        for _ in range(2):
            self.qmp.command("query-status")

    def forget(self):
        self.settle()
        self.qmp.events.clear()


# ---- clients, channels, devices

class TestClients:
    """Two clients at a time, a port, a card reader."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(
            *server_args(rig.socket, clients=2),
            "-chardev", "spiceflow,id=p1,name=" + PORT_NAME,
            *ag.bridge_args(rig.path("card"), "smartcard", "card", "card-dev"),
            machine="none")
        self.told = Told(self.qemu)
        self.told.forget()

    def session(self):
        session = self.rig.raw()
        data = self.told.expect("CLIENT_CONNECTED")
        assert data == {"connection-id": session.init.session_id,
                        "peer": "local", "tls": False}, data
        session.attach()
        return session

    def port(self, session):
        channel = session.open(sc.PORT, 0)
        assert self.told.expect("CHANNEL_OPENED") == {
            "connection-id": session.init.session_id,
            "channel-type": sc.PORT, "channel-id": 0, "tls": False}
        assert self.told.expect("DEVICE_CLAIMED") == {
            "connection-id": session.init.session_id,
            "device": "p1", "name": PORT_NAME}
        return channel

    def test_comes_and_leaves(self):
        """In the order in which it happens, each with what it is about."""
        session = self.session()
        self.port(session)
        number = session.init.session_id
        session.close()
        data = self.told.expect("DEVICE_RELEASED")
        assert data.pop("message")
        assert data == {"connection-id": number, "device": "p1",
                        "name": PORT_NAME, "reason": "left"}
        data = self.told.expect("CHANNEL_CLOSED")
        assert data.pop("message")
        assert data == {"connection-id": number, "channel-type": sc.PORT,
                        "channel-id": 0, "reason": "left"}
        data = self.told.expect("CLIENT_REMOVED", reason="left")
        assert data.pop("message")
        assert data == {"connection-id": number, "peer": "local",
                        "reason": "left"}
        self.told.nothing()

    def test_closes_a_channel(self):
        """The client stays, and may come again."""
        session = self.session()
        for _ in range(3):
            session.drop(self.port(session))
            self.told.expect("DEVICE_RELEASED", "CHANNEL_CLOSED",
                             reason="left",
                             connection_id=session.init.session_id)
        session.close()
        self.told.expect("CLIENT_REMOVED", reason="left")
        self.told.nothing()

    def test_only_main_breaks_the_protocol(self):
        """What goes with the client goes for the client's reason."""
        session = self.session()
        self.port(session)
        session.main.send(999, b"what")
        data = self.told.expect("DEVICE_RELEASED", "CHANNEL_CLOSED",
                                "CLIENT_REMOVED", reason="protocol-error")
        assert data["message"] == "message 999 of 4 bytes is not expected"
        self.told.nothing()

    def test_channel_breaks_the_protocol(self):
        """That costs the channel alone."""
        session = self.session()
        channel = self.port(session)
        channel.send(999)
        self.told.expect("DEVICE_RELEASED", "CHANNEL_CLOSED",
                         reason="protocol-error",
                         message="message 999 of 0 bytes is not expected")
        self.told.nothing()
        session.close()
        self.told.expect("CLIENT_REMOVED")

    def test_card_readers(self):
        """The channel is one thing, the reader of a client another."""
        device = vsc.Device(self.rig.path("card"))
        self.rig.callback(device.close)
        session = self.session()
        card = vsc.Card(session)
        number = session.init.session_id
        self.told.expect("CHANNEL_OPENED", channel_type=sc.SMARTCARD,
                         connection_id=number)
        self.told.nothing(0.1)
        card.say(vsc.READER_ADD, vsc.NO_READER, b"r")
        assert self.told.expect("DEVICE_CLAIMED") == {
            "connection-id": number, "device": "card", "name": "smartcard"}
        assert device.answer(vsc.READER_ADD)
        card.say(vsc.READER_REMOVE, 0)
        assert device.answer(vsc.READER_REMOVE)
        self.told.expect("DEVICE_RELEASED", reason="left", device="card",
                         message="the reader was removed")
        card.say(vsc.READER_ADD, vsc.NO_READER, b"r")
        assert device.answer(vsc.READER_ADD)
        self.told.expect("DEVICE_CLAIMED")
        device.write(vsc.message(">", vsc.APDU, 0, bytes(60000)) * 100)
        self.told.expect("DEVICE_RELEASED", "CHANNEL_CLOSED",
                         reason="overflow", connection_id=number)
        session.close()
        self.told.expect("CLIENT_REMOVED", reason="left")
        self.told.nothing()

    def test_zy_device_deleted(self):
        """A chardev that goes while it is used."""
        session = self.session()
        self.port(session)
        self.qemu.command("chardev-remove", id="p1")
        self.told.expect("DEVICE_RELEASED", "CHANNEL_CLOSED",
                         reason="device-deleted",
                         connection_id=session.init.session_id)
        self.told.nothing(0.1)
        session.close()
        self.told.expect("CLIENT_REMOVED", reason="left")


def test_replaced(rig):
    """One client at a time: the old one makes room."""
    qemu = rig.qemu(*server_args(rig.socket), machine="none")
    told = Told(qemu)
    first, second = rig.raw(), rig.raw()
    told.expect("CLIENT_CONNECTED", connection_id=first.init.session_id)
    told.expect("CLIENT_REMOVED", reason="replaced",
                connection_id=first.init.session_id)
    told.expect("CLIENT_CONNECTED", connection_id=second.init.session_id)
    told.nothing()


def test_server_deleted(rig):
    """The last thing that is told of a server."""
    qemu = rig.qemu(*server_args(rig.socket), machine="none")
    told = Told(qemu)
    rig.raw()
    told.expect("CLIENT_CONNECTED")
    qemu.command("object-del", id="sf0")
    told.expect("CLIENT_REMOVED", reason="server-deleted",
                message="the server is deleted")
    told.nothing()


def test_guest_replaced(rig):
    """A snapshot is loaded under a client with a card: its channel ends,
    because no message says that the reader is gone."""
    qemu = rig.qemu(*server_args(rig.socket),
                    *ag.bridge_args(rig.path("card"), "smartcard", "card",
                                    "card-dev"),
                    *migration.disk(rig.path("disk")), memory=16, paused=True)
    told = Told(qemu)
    device = vsc.Device(rig.path("card"))
    rig.callback(device.close)
    qemu.command("cont")
    session = rig.raw()
    card = vsc.Card(session)
    card.say(vsc.READER_ADD, vsc.NO_READER, b"r")
    assert device.answer(vsc.READER_ADD)
    device.wait_read()
    told.expect("CLIENT_CONNECTED", "CHANNEL_OPENED", "DEVICE_CLAIMED")
    migration.savevm(qemu, "a")
    migration.loadvm(qemu, "a")
    told.expect("DEVICE_RELEASED", "CHANNEL_CLOSED", reason="guest-replaced",
                message="the guest was replaced")
    told.nothing(0.1)


def test_migration(rig):
    """A client goes with its machine: it leaves the one and is at the other,
    with all that it has."""
    def machine(name, *more):
        return rig.qemu(*handover.server_args(),
                        *ag.bridge_args(rig.path("agent-" + name)),
                        "-chardev", "spiceflow,id=p1,name=" + PORT_NAME, *more,
                        memory=16)

    def agent_flow(qemu):
        return qemu.flow("agent")

    source, target = machine("a"), machine("b", "-incoming", "defer")
    agent = ag.Agent(rig.path("agent-a"))
    rig.callback(agent.close)
    wait_until(lambda: agent_flow(source)["guest-open"], 5, "the agent")
    session = rig.raw(handover.address(source))
    session.attach()
    session.main.agent_start()
    session.open(sc.PORT, 0).expect(sc.MSG_PORT_INIT)
    wait_until(lambda: agent_flow(source)["clients"], 5, "it has the agent")
    number = session.init.session_id
    told = Told(source)
    told.forget()
    handover.set_target(source, target)
    arrival = handover.follow(session)
    rig.callback(arrival.close)
    handover.wait_states(source, "seamless")
    handover.run(source, target, rig.path("wire"))
    handover.swap(session, arrival)
    handover.finish(source, target)
    left = []
    while "CLIENT_REMOVED" not in left:
        name, data = told.next()
        assert (data["connection-id"], data["reason"]) == (
            number, "migration"), (name, data)
        left.append(name)
    assert sorted(left) == ["CHANNEL_CLOSED", "CLIENT_REMOVED",
                            "DEVICE_RELEASED", "DEVICE_RELEASED"], left
    told = Told(target)
    come = []
    while len(come) < 4:
        name, data = told.next()
        assert data["connection-id"] == number, (name, data)
        come.append((name, data.get("device")))
    assert come[0] == ("CLIENT_CONNECTED", None)
    assert sorted(come[1:], key=str) == [
        ("CHANNEL_OPENED", None), ("DEVICE_CLAIMED", "agent"),
        ("DEVICE_CLAIMED", "p1")], come
    told.nothing(0.1)


# ---- who is not let in

class TestRefused:
    """A password, one client, one port, little patience."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(
            "-object", "secret,id=sec0,data=secret",
            *server_args(rig.socket, clients=2, password_secret="sec0",
                         link_timeout=600, max_pending_links=4),
            "-chardev", "spiceflow,id=p1,name=" + PORT_NAME, machine="none")
        self.told = Told(self.qemu)
        self.told.forget()

    def refused(self, reason, message):
        """It is told, and counted under the same name."""
        data = self.told.expect("LINK_REFUSED")
        assert data == {"peer": "local", "reason": reason,
                        "message": message}, data
        stats = self.qemu.stats()
        assert stats["last-refused"] == data, stats
        assert stats["links-refused"][reason] >= 1, stats

    def try_to(self, function, *args, **options):
        with sc.refused():
            function(*args, **options)

    def test_password(self):
        self.try_to(self.rig.raw, password="wrong")
        self.refused("authentication", "wrong password")
        self.told.nothing()

    def test_no_spice(self):
        self.rig.link().offer(b"GET / HTTP/1.1\r\n\r\n")
        self.refused("protocol-error", "malformed link header")
        self.told.nothing()

    def test_too_slow(self):
        self.rig.link()
        self.refused("timeout", "the deadline has passed")
        self.told.nothing()

    def test_too_many(self):
        links = [self.rig.link() for _ in range(5)]
        self.refused("too-many-links", "too many pending links")
        for link in links:
            link.close()
        self.told.nothing()

    def test_leaves(self):
        """Who only looks whether somebody listens is no news."""
        self.rig.link().close()
        link = self.rig.link()
        link.start_link(sc.MAIN)
        link.close()
        self.told.nothing()

    def test_channels(self):
        session = self.rig.raw(password="secret")
        other = self.rig.raw(password="secret")
        session.attach()
        session.open(sc.PORT, 0)
        self.told.expect("CLIENT_CONNECTED", "CLIENT_CONNECTED",
                         "CHANNEL_OPENED", "DEVICE_CLAIMED")
        self.try_to(other.open, sc.PORT, 0)
        self.refused("channel-busy", "the channel is not free")
        self.try_to(other.open, sc.PORT, 5)
        self.refused("no-such-channel", "no such channel")
        self.try_to(self.rig.raw, password="secret")
        self.refused("max-clients", "there are max-clients clients")
        link = self.rig.link()
        self.try_to(link.link, sc.PORT, 0,
                    session.init.session_id ^ other.init.session_id ^ 1,
                    password="secret")
        self.refused("unknown-client", "no client has this connection id")
        self.told.nothing()

    def test_zz_flood(self):
        """A burst is told one by one; the rest in numbers."""
        time.sleep(1)           # what the tests before used is given back
        before = self.qemu.stats()
        start = time.monotonic()
        count = 4 * BURST
        for _ in range(count):
            link = self.rig.link()
            link.offer(b"x" * 16)
            link.close()
        wait_until(lambda: self.qemu.stats()[
            "links-failed"] - before["links-failed"] == count, 10,
            "all are refused")
        spent = time.monotonic() - start
        self.told.settle()
        suppressed = self.qemu.stats()[
            "events-suppressed"] - before["events-suppressed"]
        told = [m["data"] for m in self.qemu.qmp.events
                if m["event"] == "SPICEFLOW_LINK_REFUSED"]
        self.qemu.qmp.events.clear()
        assert BURST - 20 <= len(told) <= BURST + RATE * spent + 1, len(told)
        assert len(told) + suppressed == count, (len(told), suppressed)
        time.sleep(0.2)
        self.rig.link().offer(b"x" * 16)
        data = self.told.expect("LINK_REFUSED")
        assert suppressed == data["suppressed"] + sum(
            d.get("suppressed", 0) for d in told), (data, suppressed)
        self.rig.link().offer(b"x" * 16)
        self.told.expect("LINK_REFUSED")


def test_tls_refused(rig):
    """In the clear, with garbage, and without the certificate."""
    certs = Certificates(rig.path("certs"))
    qemu = rig.qemu(*certs.creds_args(verify_peer=True),
                    *server_args(rig.socket, tls_creds="tls0"),
                    machine="none")
    told = Told(qemu)
    with sc.refused():
        rig.link().start_link(sc.MAIN)
    told.expect("LINK_REFUSED", reason="tls-required",
                message="TLS is required", peer="local")
    rig.link().offer(bytes(64))
    data = told.expect("LINK_REFUSED", reason="tls-failed", peer="local")
    assert "handshake" in data["message"], data
    try:
        rig.raw(tls=sc.tls_context(certs.authority))
        raise AssertionError("it was let in")
    except (sc.Closed, OSError):
        told.expect("LINK_REFUSED", reason="tls-failed")
    session = rig.raw(tls=sc.tls_context(certs.authority,
                                         *certs.client("alice")))
    data = told.expect("CLIENT_CONNECTED")
    assert data["tls"] is True
    session.close()
    told.expect("CLIENT_REMOVED", reason="left")
    told.nothing()


def test_peer_by_network(rig):
    """Where it comes from, by its number."""
    qemu = rig.qemu("-object", "spiceflow-server,id=sf0,type=inet,"
                    "host=127.0.0.1,port=0,max-clients=2", machine="none")
    told = Told(qemu)
    addr = qemu.get("/objects/sf0", "addr")
    address = addr["host"], int(addr["port"])
    session = rig.raw(address)
    peer = "%s:%d" % session.main.connection.sock.getsockname()
    told.expect("CLIENT_CONNECTED", peer=peer)
    link = rig.link(address)
    link.offer(b"x" * 16)
    told.expect("LINK_REFUSED", peer="%s:%d" % link.sock.getsockname())
    session.close()
    told.expect("CLIENT_REMOVED", peer=peer)
    told.nothing()


# ---- the agent

class TestAgent(AgentScript):
    """A scripted agent and scripted clients."""

    max_clients = 2

    def setup(self, rig):
        super().setup(rig)
        self.told = Told(self.qemu)

    def agent(self, caps=None):
        agent = super().agent(caps)
        self.told.forget()
        return agent

    def joined(self, **options):
        """A client that uses the agent, and all that is told of that."""
        client = self.client(**options)
        self.told.expect("CLIENT_CONNECTED", "DEVICE_CLAIMED",
                         connection_id=client.id, device="agent",
                         name="vdagent")
        return client

    def left(self, client, reason, message=None):
        data = {"reason": reason}
        if message:
            data["message"] = message
        self.told.expect("DEVICE_RELEASED", "CLIENT_REMOVED",
                         connection_id=client.id, **data)
        self.told.nothing(0.1)

    def test_uses_the_agent(self):
        self.agent()
        one = self.joined()
        two = self.joined()
        one.session.close()
        self.left(one, "left")
        two.session.close()
        self.left(two, "left")

    def test_agent_goes_and_comes(self):
        """Told of each client, once each way, and not of a second start."""
        self.agent()
        client = self.joined()
        client.main.agent_start(5)
        self.told.nothing(0.1)
        self.close_agent()
        self.told.expect("DEVICE_RELEASED", reason="guest-closed",
                         message="the guest closed its end", device="agent",
                         connection_id=client.id)
        self.told.nothing(0.1)
        super().agent()
        self.connected(client)
        self.told.expect("DEVICE_CLAIMED", connection_id=client.id)
        self.told.nothing(0.1)

    def test_agent_breaks_the_protocol(self):
        agent = self.agent()
        client = self.joined()
        agent.write(ag.chunk(ag.message(DATA, protocol=2)))
        data = self.told.expect("DEVICE_RELEASED", reason="guest-closed",
                                connection_id=client.id)
        assert "closed its end" not in data["message"], data
        client.session.close()
        self.told.expect("CLIENT_REMOVED", reason="left")

    def test_token_violation(self):
        self.agent()
        client = self.joined()
        with self.guest_asleep():
            for _ in range(self.window + 1):
                client.say(DATA, b"x")
            self.left(client, "token-violation", "token violation")

    def test_protocol_error(self):
        self.agent()
        client = self.joined()
        client.main.agent_data(bytes(20))
        data = self.told.expect("DEVICE_RELEASED", "CLIENT_REMOVED",
                                reason="protocol-error")
        assert "protocol" in data["message"], data

    def test_stalled(self):
        agent = self.agent()
        lazy = self.joined()
        other = self.joined()
        lazy.main.agent_start(0)
        wait_until(lambda: self.client_flow(lazy)["send-tokens"] == 0, 5,
                   "it takes nothing")
        agent.say(DATA, b"for both")
        other.expect(DATA)
        time.sleep(STALL * 0.5)
        self.told.nothing(0.1)
        agent.say(DATA, b"more")
        other.expect(DATA)
        time.sleep(STALL * 0.7)
        agent.say(DATA, b"more")
        self.left(lazy, "stalled", "stalled")

    def test_server_not_read(self):
        """Control messages that pile up."""
        self.agent()
        client = self.joined()
        client.main.answer_pings = False
        ask = client.main.message(sc.MSGC_MAIN_MOUSE_MODE_REQUEST, b"\1\0")
        for _ in range(200):
            client.main.connection.offer(ask * 200)
            if not any(c["connection-id"] == client.id for c in
                       self.qemu.stats()["clients"]):
                break
        self.left(client, "overflow", "it does not read what it is sent")

    # -- transfers

    def transfer(self, client, kind, direction, outcome, size=None):
        data = self.told.expect("TRANSFER")
        want = {"device": "agent", "kind": kind, "direction": direction,
                "outcome": outcome}
        if client:
            want["connection-id"] = client.id
        if size is not None:
            want["bytes"] = size
        assert data == want, (data, want)

    def joined_pair(self):
        agent, client = self.pair()
        self.told.expect("CLIENT_CONNECTED", "DEVICE_CLAIMED")
        return agent, client

    def test_clipboard(self):
        """One for each contents, whatever pieces they come in."""
        agent, client = self.joined_pair()
        body = contents(bytes(9000))
        for size in (9000, 1):
            client.say(ag.CLIPBOARD_GRAB, GRAB)
            client.say(ag.CLIPBOARD, contents(bytes(size)))
            agent.expect(ag.CLIPBOARD)
            self.transfer(client, "clipboard", "to-guest", "passed", size)
        client.say(ag.CLIPBOARD_REQUEST, GRAB)
        agent.expect(ag.CLIPBOARD_REQUEST)
        agent.say(ag.CLIPBOARD, body)
        assert client.expect(ag.CLIPBOARD) == body
        self.transfer(client, "clipboard", "to-client", "passed", 9000)
        self.told.nothing()

    def test_clipboard_refused(self):
        agent, client = self.joined_pair()
        self.set("agent-clipboard", "to-guest")
        agent.say(ag.CLIPBOARD_GRAB, GRAB)
        self.transfer(None, "clipboard", "to-client", "refused-policy")
        self.set("agent-clipboard", "to-client")
        client.say(ag.CLIPBOARD_GRAB, GRAB)
        self.transfer(client, "clipboard", "to-guest", "refused-policy")
        self.set("agent-clipboard", "both")
        self.set("agent-max-clipboard", 100)
        client.say(ag.CLIPBOARD, contents(bytes(101)))
        self.transfer(client, "clipboard", "to-guest", "refused-size", 101)
        agent.say(ag.CLIPBOARD, contents(bytes(102)))
        self.transfer(client, "clipboard", "to-client", "refused-size", 102)
        self.told.nothing()
        self.set_defaults()

    def xfer(self, client, kind, number, *words, data=b""):
        client.say(kind, struct.pack("<%dI" % (1 + len(words)), number,
                                     *words) + data)

    def test_files(self):
        agent, client = self.joined_pair()
        self.xfer(client, ag.FILE_XFER_START, 1, data=b"[x]\n\0")
        for size in (5000, 3000):
            self.xfer(client, ag.FILE_XFER_DATA, 1, size, 0, data=bytes(size))
            agent.expect(ag.FILE_XFER_DATA)
        self.told.nothing(0.1)
        agent.say(ag.FILE_XFER_STATUS, struct.pack("<II", 1, 3))
        self.transfer(client, "file", "to-guest", "passed", 8000)
        self.xfer(client, ag.FILE_XFER_START, 2, data=b"[x]\n\0")
        self.xfer(client, ag.FILE_XFER_DATA, 2, 10, 0, data=bytes(10))
        self.xfer(client, ag.FILE_XFER_STATUS, 2, 1)
        self.transfer(client, "file", "to-guest", "cancelled", 10)
        self.xfer(client, ag.FILE_XFER_START, 3, data=b"[x]\n\0")
        agent.expect(ag.FILE_XFER_START)
        client.session.close()
        self.told.expect("DEVICE_RELEASED")
        self.transfer(client, "file", "to-guest", "cancelled", 0)
        self.told.expect("CLIENT_REMOVED")
        self.told.nothing()

    def test_files_refused(self):
        agent, client = self.joined_pair()
        self.xfer(client, ag.FILE_XFER_START, 1, data=b"[x]\n\0")
        agent.expect(ag.FILE_XFER_START)
        self.set("agent-file-transfer", False)
        self.transfer(client, "file", "to-guest", "refused-policy", 0)
        self.xfer(client, ag.FILE_XFER_START, 2, data=b"[x]\n\0")
        self.transfer(client, "file", "to-guest", "refused-policy")
        self.told.nothing()
        self.set_defaults()

    def test_many_small_clipboards(self):
        """As fast as the guest takes them: not each is told of, but all are
        counted."""
        agent, client = self.joined_pair()
        time.sleep(1)
        before = self.qemu.stats()["events-suppressed"]
        count = 3 * BURST
        for _ in range(count):
            client.say(ag.CLIPBOARD, contents(b"x"))
            agent.expect(ag.CLIPBOARD)
        self.told.settle()
        after = self.qemu.stats()["events-suppressed"]
        told = [m["data"] for m in self.qemu.qmp.events
                if m["event"] == "SPICEFLOW_TRANSFER"]
        assert len(told) + after - before == count, (len(told), after, before)
        self.told.forget()
        client.session.close()
        self.told.expect("DEVICE_RELEASED", "CLIENT_REMOVED")
