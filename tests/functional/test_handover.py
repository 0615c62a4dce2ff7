# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that follow a machine in a live migration, each message of it.

Scripted clients go the three ways, seamless, semi-seamless and switch-host,
and do it wrong in every way there is.  No guest runs in the machines: what is
sent to a port stays where it can be counted.  What a guest and its user see
is in test_handover_guest.
"""

import struct
import time

from lib import certs, handover, migration, spiceclient as sc, vsc
from lib.guest import words
from lib.process import wait_until
from lib.qemu import refused
from lib.rig import PORT, card_args, chardev_args, port_args


class Box:
    """Two machines without a guest, for each test: what is sent to a port
    stays in its queue."""

    def start(self, rig, **properties):
        self.rig = rig
        self.options = properties
        self.source = self.machine()
        self.target = self.machine("-incoming", "defer")

    def machine(self, *more):
        return self.rig.qemu(*handover.server_args(**self.options),
                             *port_args(PORT), *more, memory=32)

    def session(self, qemu=None, **options):
        return self.rig.raw(handover.address(qemu or self.source), **options)

    @staticmethod
    def wait_queued(qemu, count):
        qemu.wait_flow("p1", "to-guest-bytes", count)

    def lead(self, session):
        return handover.lead(session, self.source, self.target)

    def run(self):
        handover.run(self.source, self.target, self.rig.path("wire"))

    def works(self, qemu, session, count=0):
        """The session's port is the one of that machine."""
        port = session.channels[1]
        port.send_data(b"works")
        self.wait_queued(qemu, count + 5)


def box(rig, **properties):
    made = Box()
    made.start(rig, **properties)
    return made


def test_half_a_header(rig):
    """The state is saved when the client has sent a part of a header; in each
    kind of headers."""
    for common in (sc.COMMON_CAPS, sc.CAP_AUTH_SELECTION):
        b = box(rig)
        session = b.session(common=common)
        port = session.open_port(PORT)
        port.send_data(b"one")
        b.wait_queued(b.source, 3)
        arrival = b.lead(session)
        message = port.message(sc.MSGC_DATA, b"two")
        port.connection.send(message[:4])
        time.sleep(0.1)
        b.run()
        port.connection.send(message[4:])
        handover.swap(session, arrival)
        b.wait_queued(b.target, 6)
        handover.finish(b.source, b.target)
        b.works(b.target, session, 6)
        assert b.target.stats()["migration"]["lost"] == 0
        session.close()
        for qemu in (b.source, b.target):
            qemu.quit()


def test_semi_seamless(rig):
    """A client that can not go on begins anew, on links made beforehand."""
    b = box(rig)
    session = b.session(caps=sc.CAP_SEMI_SEAMLESS)
    port = session.open_port(PORT)
    port.send_data(b"lost")
    b.wait_queued(b.source, 4)
    handover.set_target(b.source, b.target)
    arrival = handover.follow(session, seamless=False)
    handover.wait_states(b.source, "connected")
    b.run()
    assert session.main.expect(sc.MSG_MAIN_MIGRATE_END) == b""
    main = arrival.links[sc.MAIN, 0]
    main.send(sc.MSGC_MAIN_MIGRATE_END)
    init = sc.Init(main.expect(sc.MSG_MAIN_INIT))
    assert init.session_id == session.init.session_id
    port = arrival.links[sc.PORT, 0]
    assert sc.PortInit(port.expect(sc.MSG_PORT_INIT)).name == PORT
    session.close()
    handover.finish(b.source, b.target)
    port.send_data(b"new")
    b.wait_queued(b.target, 3)
    arrival.close()


def test_not_seamless_there(rig):
    """The target does not know the version: the client is told, and goes the
    second way."""
    b = box(rig)
    session = b.session()
    session.open_port(PORT)
    handover.set_target(b.source, b.target)
    where = handover.question(session)
    arrival = handover.Arrival(session, where, version=1)
    assert not arrival.agreed
    session.main.send(sc.MSGC_MAIN_MIGRATE_CONNECTED)
    handover.wait_states(b.source, "connected")
    b.run()
    session.main.expect(sc.MSG_MAIN_MIGRATE_END)
    arrival.links[sc.MAIN, 0].send(sc.MSGC_MAIN_MIGRATE_END)
    arrival.links[sc.MAIN, 0].expect(sc.MSG_MAIN_INIT)
    session.close()
    handover.finish(b.source, b.target)
    arrival.close()


def test_switch_host(rig):
    """Who knows nothing of migration, could not connect, or has another
    channel since, is sent there at the end."""
    b = box(rig, clients=3)
    simple = b.session(caps=0)
    refused = b.session()
    changed = b.session()
    handover.set_target(b.source, b.target)
    handover.question(refused)
    refused.main.send(sc.MSGC_MAIN_MIGRATE_CONNECT_ERROR)
    arrival = handover.follow(changed)
    wait_until(lambda: sorted(handover.states(b.source)) ==
               ["none", "refused", "seamless"], 5, "the answers")
    changed.open_port(PORT)
    # the migration's own question comes to nothing: nobody answers it
    b.run()
    for session in (simple, refused, changed):
        body = session.main.expect(sc.MSG_MAIN_MIGRATE_SWITCH_HOST)
        host, port, tls, subject = handover.destination(body)
        assert (host, port) == handover.address(b.target) and not tls
        assert subject == b""
    assert sc.MSG_MAIN_MIGRATE_CANCEL in [
        kind for kind, _ in changed.main.pending]
    for session in (simple, refused, changed):
        session.close()
    arrival.close()
    handover.finish(b.source, b.target)
    session = b.session(b.target)
    session.open_port(PORT)
    b.works(b.target, session)


def test_local_client(rig):
    """A client on a UNIX socket could only be sent back: it is let go."""
    path = rig.path("spice")
    source = rig.qemu("-object", "spiceflow-server,id=sf0,type=unix,path=" +
                      path, *port_args(PORT), memory=32)
    target = rig.qemu(*handover.server_args(), *port_args(PORT),
                      "-incoming", "defer", memory=32)
    session = rig.raw(path)
    handover.set_target(source, target)
    handover.question(session)
    session.main.send(sc.MSGC_MAIN_MIGRATE_CONNECT_ERROR)
    handover.wait_states(source, "refused")
    handover.run(source, target, rig.path("wire"))
    session.main.wait_closed()
    assert source.stats()["clients"] == []


def test_unreachable(rig):
    """With the client library: nobody listens there, then it does."""
    b = box(rig)
    client = rig.client(uri=handover.uri(b.source))
    client.find(r"^port-new %s$" % PORT)
    handover.begin(b.source, "127.0.0.1:1", "refused")
    handover.begin(b.source, b.target)
    b.run()
    handover.finish(b.source, b.target)
    client.quit()


def test_switch_host_client_library(rig):
    """It connects anew by itself."""
    b = box(rig)
    client = rig.client(uri=handover.uri(b.source))
    client.find(r"^port-new %s$" % PORT)
    handover.begin(b.source, "127.0.0.1:1", "refused")
    b.target.command("migrate-incoming", uri="unix:" + rig.path("wire"))
    b.source.set("/objects/sf0", "migrate-target", "%s:%d" %
                 handover.address(b.target))
    # no time to answer
    migration.migrate(b.source, "unix:" + rig.path("wire"))
    migration.wait_running(b.target)
    wait_until(lambda: not b.source.stats()["clients"] and
               len(b.target.stats()["clients"]) == 1, 20,
               "the client to be there")
    client.process.send_signal(9)


def test_switch_host_after_joining(rig):
    """The client has connected to the target, but was not heard before the
    machine went: it is told to connect anew, and what it has there already
    does not keep its place."""
    for clients in (1, 2):
        b = box(rig, clients=clients)
        sessions = [b.session() for _ in range(clients)]
        handover.set_target(b.source, b.target)
        arrivals = [handover.Arrival(session, handover.question(session))
                    for session in sessions]
        b.run()
        for session in sessions:
            session.main.expect(sc.MSG_MAIN_MIGRATE_SWITCH_HOST)
            session.close()
        sessions = [b.session(b.target) for _ in range(clients)]
        port = sessions[-1].open_port(PORT)
        port.send_data(b"here")
        b.wait_queued(b.target, 4)
        for arrival in arrivals:
            arrival.links[sc.MAIN, 0].wait_closed()
        stats = b.target.stats()["migration"]
        assert (stats["joining"], stats["lost"]) == (0, clients)
        for qemu in (b.source, b.target):
            qemu.quit()


def test_cancelled(rig):
    """The client is told, and the next attempt succeeds."""
    b = box(rig)
    session = b.session()
    port = session.open_port(PORT)
    arrival = b.lead(session)
    b.source.command("migrate-set-parameters", max_bandwidth=1 << 16)
    b.source.command("migrate", uri="exec:cat > /dev/null")
    migration.wait_status(b.source, "active")
    b.source.command("migrate_cancel")
    migration.wait_status(b.source, "cancelled")
    session.main.expect(sc.MSG_MAIN_MIGRATE_CANCEL)
    arrival.close()
    b.works(b.source, session)
    wait_until(lambda: b.target.stats()["migration"]["joining"] == 0,
               5, "the links to be gone")
    arrival = b.lead(session)
    b.run()
    handover.swap(session, arrival)
    handover.finish(b.source, b.target)
    b.works(b.target, session, 5)
    assert port.silent(0.1)


def test_failed_late(rig):
    """The target refuses the state when all is saved and the channels are
    frozen: what the client sent meanwhile is read, and it goes on."""
    b = box(rig)
    b.target = rig.qemu(*handover.server_args(), "-device",
                        "virtio-serial-pci,id=vser", "-incoming", "defer",
                        memory=32)
    b.target.expected_end = True
    session = b.session()
    port = session.open_port(PORT)
    handover.set_target(b.source, b.target)
    handover.question(session)
    # a liar: the target does not have its port
    session.main.send(sc.MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS)
    handover.wait_states(b.source, "seamless")
    migration.capability("return-path", b.source, b.target)
    path = rig.path("wire")
    b.target.command("migrate-incoming", uri="unix:" + path)
    migration.unlimited(b.source)
    b.source.command("migrate", uri="unix:" + path)
    port.send_data(b"before")
    assert migration.wait_status(b.source, *migration.ENDED) == "failed"
    migration.wait_running(b.source)
    session.main.expect(sc.MSG_MAIN_MIGRATE_CANCEL)
    b.wait_queued(b.source, 6)
    b.works(b.source, session, 6)
    handover.wait_states(b.source, "none")


def test_never_comes(rig):
    """Clients that say they have connected and have not, and ones that have
    and bring nothing: both machines let them go in time."""
    b = box(rig, clients=2, migrate_timeout=700)
    liar, idle = b.session(), b.session()
    idle.open_port(PORT)
    handover.set_target(b.source, b.target)
    handover.question(liar)
    liar.main.send(sc.MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS)
    arrival = handover.follow(idle)
    handover.wait_states(b.source, "seamless")
    b.run()
    assert [c["connection-id"] for c in b.target.stats()["clients"]] \
        == [idle.init.session_id]
    assert handover.states(b.target) == ["arriving"]
    handover.finish(b.source, b.target)
    assert b.target.stats()["clients"] == []
    assert b.target.stats()["migration"]["lost"] == 1
    assert b.source.stats()["migration"]["lost"] == 2
    assert not b.target.flow("p1")["clients"]
    arrival.close()
    session = b.session(b.target)
    session.open_port(PORT)
    b.works(b.target, session)


def data_of(stream, magic=handover.MAGIC, version=handover.VERSION, mini=1,
            size=None):
    return struct.pack("<IIII", magic, version, mini, len(stream)
                       if size is None else size) + stream


# What clients may bring along instead of what they were given.
MALFORMED = {
    "nothing": lambda d: b"",
    "short": lambda d: d[:15],
    "magic": lambda d: data_of(d[16:], magic=0x444d5356),
    "version": lambda d: data_of(d[16:], version=1),
    "other headers": lambda d: data_of(d[16:], mini=0),
    "no headers": lambda d: data_of(d[16:], mini=2),
    "more than there is": lambda d: data_of(d[16:], size=100),
    "less than there is": lambda d: data_of(b"abc", size=2),
    "4 GiB": lambda d: data_of(d[16:], size=0xffffffff),
    "too much": lambda d: data_of(bytes((16 << 20) + 1)),
    "unknown message": lambda d: data_of(struct.pack("<HI", 999, 0)),
    "data again": lambda d: data_of(struct.pack("<HI", 5, 16) +
                                    data_of(b"")),
}


def test_malformed(rig):
    """A client that brings along something else loses that channel; the
    machine and its other channels are none the worse."""
    names = list(MALFORMED)
    ports = ["org.example.%d" % i for i in range(len(names))]

    def machine(*more):
        return rig.qemu(*handover.server_args(), *port_args(*ports), *more,
                        memory=32)

    source, target = machine(), machine("-incoming", "defer")
    session = rig.raw(handover.address(source))
    for number in range(len(names)):
        session.open(sc.PORT, number).expect(sc.MSG_PORT_INIT)
    arrival = handover.lead(session, source, target)
    handover.run(source, target, rig.path("wire"))
    main, _ = handover.swap_channel(session.main, arrival)
    for number, name in enumerate(names):
        port = session.channels[1 + number]
        old = port.connection
        try:
            handover.swap_channel(port, arrival, MALFORMED[name])
        except sc.Closed:
            pass
        old.close()
        try:
            port.wait_closed(5)
        except Exception as error:
            raise AssertionError("%s: %s" % (name, error)) from error
        assert not target.flow("p%d" % (number + 1)) \
            ["clients"], name
    main.close()
    session.address = arrival.address
    handover.finish(source, target)
    assert len(target.stats()["clients"]) == 1
    port = session.open(sc.PORT, 0)
    port.expect(sc.MSG_PORT_INIT)
    port.send_data(b"works")
    target.wait_flow("p1", "to-guest-bytes", 5)


def test_malformed_main(rig):
    """On the main channel that is the end of the client."""
    b = box(rig)
    session = b.session()
    session.open_port(PORT)
    arrival = b.lead(session)
    b.run()
    old = session.main.connection
    handover.swap_channel(session.main, arrival, MALFORMED["magic"])
    old.close()
    session.main.wait_closed()
    assert b.target.stats()["clients"] == []
    session.close()
    arrival.close()


def test_too_much(rig):
    """A client that does not stop to send is not gathered without end."""
    b = box(rig)
    session = b.session()
    port = session.open_port(PORT)
    arrival = b.lead(session)
    b.run()
    try:
        for _ in range(40):
            port.send_data(bytes(1 << 20), piece=1 << 20)
        raise AssertionError("40 MiB were taken")
    except sc.Closed:
        pass
    arrival.close()


def test_d28_wrong_id(rig):
    """Whoever comes with an id that the state does not list waits in vain;
    without a migration, or after it, there is nothing to come to."""
    b = box(rig, migrate_timeout=500)
    session = b.session()
    session.open_port(PORT)

    def may_not_join(qemu):
        with sc.refused(sc.ERR_BAD_CONNECTION_ID):
            handover.Arrival(session, handover.address(qemu),
                             connection_id=1234)

    may_not_join(b.source)
    stranger = handover.Arrival(session, handover.address(b.target),
                                connection_id=1234)
    assert stranger.agreed
    with sc.refused(sc.ERR_CHANNEL_NOT_AVAILABLE):
        stranger.link(sc.PORT, 0)
    # max-clients is 1: who follows the machine is not thrown out by another
    with sc.refused(sc.ERR_PERMISSION_DENIED):
        b.session(b.target)
    b.run()
    assert b.target.stats()["clients"] == []
    stranger.links[sc.PORT, 0].wait_closed()
    wait_until(lambda: b.target.stats()["migration"]["joining"] == 0,
               5, "the stranger to be gone")
    session.close()
    session = b.session(b.target)
    session.open_port(PORT)
    may_not_join(b.target)
    b.works(b.target, session)


def test_each_by_itself(rig):
    """Two clients on two ports: one goes on, the other one does not."""
    def machine(*more):
        return rig.qemu(*handover.server_args(clients=2),
                        *port_args(PORT, "org.example.2"), *more, memory=32)

    source, target = machine(), machine("-incoming", "defer")
    one, two = (rig.raw(handover.address(source)) for _ in range(2))
    one.open(sc.PORT, 0).send_data(b"one")
    two.open(sc.PORT, 1).send_data(b"two!")

    def queued(qemu):
        return [qemu.flow("p%d" % n)["to-guest-bytes"]
                for n in (1, 2)]

    wait_until(lambda: queued(source) == [3, 4], 5, "the data")
    handover.set_target(source, target)
    arrival = handover.follow(one)
    handover.question(two)
    two.main.send(sc.MSGC_MAIN_MIGRATE_CONNECT_ERROR)
    handover.wait_states(source, "seamless", "refused")
    handover.run(source, target, rig.path("wire"))
    handover.swap(one, arrival)
    two.main.expect(sc.MSG_MAIN_MIGRATE_SWITCH_HOST)
    two.close()
    handover.finish(source, target)
    assert queued(target) == [3, 0]
    assert [c["connection-id"] for c in target.stats()["clients"]] \
        == [one.init.session_id]


def test_other_order(rig):
    """The target's ports have other numbers: the client knows one device by
    the number of another, so it can not go on with either."""
    source = rig.qemu(*handover.server_args(), *port_args(PORT, "org.b.0"),
                      memory=32)
    target = rig.qemu(
        *handover.server_args(), "-device", "virtio-serial-pci,id=vser",
        *chardev_args("p2", "org.b.0"), *chardev_args("p1", PORT),
        "-device", "virtserialport,id=vp1,chardev=p1,nr=1,name=" + PORT,
        "-device", "virtserialport,id=vp2,chardev=p2,nr=2,name=org.b.0",
        "-incoming", "defer", memory=32)
    session = rig.raw(handover.address(source))
    session.open_port(PORT).send_data(b"lost")
    source.wait_flow("p1", "to-guest-bytes", 4)
    arrival = handover.lead(session, source, target)
    handover.run(source, target, rig.path("wire"))
    handover.swap(session, arrival)
    session.channels[1].wait_closed()
    handover.finish(source, target)
    assert len(target.stats()["clients"]) == 1
    assert target.flow("p1")["to-guest-bytes"] == 0
    assert not target.flow("p1")["clients"]
    assert not target.flow("p2")["clients"]


def test_source_goes_on(rig):
    """A source that is continued after all serves new clients."""
    b = box(rig)
    session = b.session()
    port = session.open_port(PORT)
    port.send_data(b"goes")
    b.wait_queued(b.source, 4)
    arrival = b.lead(session)
    b.run()
    handover.swap(session, arrival)
    handover.finish(b.source, b.target)
    b.wait_queued(b.target, 4)
    b.source.command("cont")
    assert b.source.flow("p1")["to-guest-bytes"] == 0
    other = b.session()
    other.open_port(PORT)
    b.works(b.source, other)


def test_target_paused(rig):
    """A machine that is not started at the target: its client waits."""
    b = box(rig)
    session = b.session()
    port = session.open_port(PORT)
    b.source.command("stop")
    port.send_data(b"paused")
    b.wait_queued(b.source, 6)
    arrival = b.lead(session)
    b.target.command("migrate-incoming", uri="unix:" + rig.path("wire"))
    migration.migrate(b.source, "unix:" + rig.path("wire"))
    handover.swap(session, arrival)
    port.send_data(b"more")
    assert not b.target.command("query-status")["running"]
    assert b.target.stats()["migration"]["joining"] == 1
    b.target.command("cont")
    b.wait_queued(b.target, 10)
    handover.finish(b.source, b.target)


def test_target_is_checked(rig):
    """What can not be a target is refused; none is none."""
    b = box(rig)
    for text in ("host", ":1", "host:", "host:0", "host:65536", "host:-1",
                 "host:1x", "::1:5", "[]:5", "/run/vm.spice", "a/b:5"):
        with refused("HOST:PORT"):
            handover.set_target(b.source, text)
    for text in ("host:1", "[::1]:65535", "10.0.0.1:5930", ""):
        handover.set_target(b.source, text)
        assert b.source.get("/objects/sf0", "migrate-target") == text


def test_tls(rig):
    """With TLS on both sides the port is one for TLS."""
    pki = certs.Certificates(rig.path("pki"))

    def machine(*more):
        return rig.qemu(*pki.creds_args(), *handover.server_args(tls_creds="tls0"),
                        *port_args(PORT), *more, memory=32)

    source, target = machine(), machine("-incoming", "defer")
    session = rig.raw(handover.address(source), tls=sc.tls_context())
    port = session.open_port(PORT)
    handover.set_target(source, target)
    body = session.main.expect(sc.MSG_MAIN_MIGRATE_BEGIN_SEAMLESS)
    host, plain, tls, _ = handover.destination(body)
    assert plain == 0 and (host, tls) == handover.address(target)
    session.main.pending.append((sc.MSG_MAIN_MIGRATE_BEGIN_SEAMLESS, body))
    arrival = handover.follow(session)
    handover.wait_states(source, "seamless")
    source.command("stop")
    message = port.message(sc.MSGC_DATA, words(20000))
    port.connection.send(message[:70000])
    wait_until(lambda: source.flow("p1")["to-guest-bytes"] >
               60000, 5, "the data")
    handover.run(source, target, rig.path("wire"))
    port.connection.send(message[70000:])
    handover.swap(session, arrival)
    target.wait_flow("p1", "to-guest-bytes", 160000)
    handover.finish(source, target)


def test_smart_card(rig):
    """The reader and its card stay; an answer that is owed comes once."""
    def machine(*more):
        return rig.qemu(*handover.server_args(), *card_args(readers=2), *more,
                        memory=32)

    source, target = machine(), machine("-incoming", "defer")
    session = rig.raw(handover.address(source))
    card = vsc.Card(session)
    assert card.add() == (0, vsc.SUCCESS)
    assert card.add() == (1, vsc.SUCCESS)
    card.say(vsc.ATR, 1, vsc.AN_ATR)
    assert card.take_answer() == (1, vsc.SUCCESS)
    arrival = handover.lead(session, source, target)
    source.command("stop")
    card.say(vsc.ATR, 0, vsc.AN_ATR)
    source.wait_flow("card0", "to-guest-messages", 1)
    handover.run(source, target, rig.path("wire"))
    card.say(vsc.CARD_REMOVE, 1)
    handover.swap(session, arrival)
    answers = [card.take_answer(), card.take_answer()]
    assert sorted(answers) == [(0, vsc.SUCCESS), (1, vsc.SUCCESS)], answers
    handover.finish(source, target)
    card.say(vsc.READER_REMOVE, 1)
    assert card.take_answer() == (1, vsc.SUCCESS)
    assert card.add() == (1, vsc.SUCCESS)
    assert card.silent()
