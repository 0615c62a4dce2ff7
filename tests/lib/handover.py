# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that follow a VM in a live migration.

For any client: server_args(), address(), uri() of a server that listens on
TCP, since SPICE clients follow to nothing else; begin() sets the target and
waits for the clients' answers, finish() waits until all have gone and come,
migrate() does all of it.

For a scripted session (spiceclient.Session): follow() answers MIGRATE_BEGIN
as a well-behaved client does, lead() sets the target too, and swap() does the
session's part at the end.
"""

import struct

from . import migration, spiceclient as sc
from .paths import RigError
from .process import wait_until

MAGIC = 0x444d4653
VERSION = 0x53460001


def server_args(clients=1, **properties):
    """A server on a TCP port of its own."""
    if clients > 1:
        properties["max_clients"] = clients
    more = "".join(",%s=%s" % (name.replace("_", "-"), value)
                   for name, value in properties.items())
    return ["-object", "spiceflow-server,id=sf0,type=inet,host=127.0.0.1,"
            "port=0" + more]


def address(qemu, server="sf0"):
    """(host, port), as spiceclient.Connection wants it."""
    addr = qemu.get("/objects/" + server, "addr")
    return addr["host"], int(addr["port"])


def uri(qemu, server="sf0"):
    """The same for remote-viewer and its like."""
    return "spice://%s:%d" % address(qemu, server)


def states(qemu, server="sf0"):
    """How far each client is."""
    return [client["migration"] for client in qemu.stats(server)["clients"]]


def set_target(source, target, server="sf0"):
    """Where the source's clients are to go; TARGET is a Qemu, or a text."""
    text = target if isinstance(target, str) else \
        "%s:%d" % address(target, server)
    source.set("/objects/" + server, "migrate-target", text)


def wait_states(qemu, *wanted, timeout=20, server="sf0"):
    """Until each client is in one of these states."""
    wait_until(lambda: all(s in wanted for s in states(qemu, server)),
               timeout, "clients that are %s, not %s" % (
                   " or ".join(wanted), states(qemu, server)))


def begin(source, target, *wanted, timeout=20, server="sf0"):
    """Ask the clients, and wait for their answers."""
    set_target(source, target, server)
    wait_states(source, *(wanted or ("seamless",)), timeout=timeout,
                server=server)


def finish(source, target, timeout=20, server="sf0"):
    """Until all clients have left the source and those who follow are at the
    target.  Only then the source may end."""
    wait_until(lambda: not source.stats(server)["clients"], timeout,
               "the clients to leave the source")
    wait_until(lambda: not target.stats(server)["migration"]["joining"] and
               not target.stats(server)["migration"]["arriving"], timeout,
               "the clients to arrive")


def run(source, target, path, timeout=60):
    """The migration itself, over a UNIX socket at PATH; then the target runs,
    also when the source was stopped."""
    running = source.command("query-status")["running"]
    target.command("migrate-incoming", uri="unix:" + path)
    migration.migrate(source, "unix:" + path, timeout=timeout)
    if not running:
        target.command("cont")
    migration.wait_running(target)


def migrate(source, target, path, *wanted, timeout=60, server="sf0"):
    """All of it, for clients that act by themselves."""
    begin(source, target, *wanted, server=server)
    run(source, target, path, timeout)
    finish(source, target, server=server)


def adopt(guest, target):
    """The guest lives there now, and what it was saying goes on there."""
    guest.poll()
    begun = guest.buffer
    guest.adopt(target)
    guest.buffer = begun


# ---- a scripted session that follows ----

def destination(body):
    """Of MIGRATE_BEGIN, MIGRATE_BEGIN_SEAMLESS and SWITCH_HOST: (host, port,
    TLS port, certificate subject)."""
    port, tls, size, at, subject_size, subject_at = \
        struct.unpack_from("<HHIIII", body)
    host = body[at:at + size]
    if len(host) != size or not host.endswith(b"\0"):
        raise RigError("the target's host is cut off: %r" % body)
    return (host[:-1].decode(), port, tls,
            body[subject_at:subject_at + subject_size])


class Arrival:
    """A session's second self at the target, until its sockets are swapped."""

    def __init__(self, session, address, seamless=True, connection_id=None,
                 channels=None, version=VERSION):
        self.session = session
        self.address = address
        self.seamless = seamless
        self.links = {}
        self.id = session.init.session_id if connection_id is None \
            else connection_id
        try:
            main = self.link(sc.MAIN, 0, sc.MAIN_CAPS)
            if seamless:
                main.send(sc.MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS,
                          struct.pack("<I", version))
                kind, _ = main.receive()
                self.agreed = kind == sc.MSG_MAIN_MIGRATE_DST_SEAMLESS_ACK
            for channel in session.channels[1:] if channels is None \
                    else channels:
                self.link(channel.type, channel.id)
        except BaseException:
            self.close()
            raise

    def link(self, kind, number, caps=None):
        connection = sc.Connection(self.address, self.session.tls,
                                   self.session.timeout)
        try:
            channel = connection.link(kind, number, self.id,
                                      self.session.password,
                                      self.session.common, caps)
        except BaseException:
            connection.close()
            raise
        self.links[kind, number] = channel
        return channel

    def close(self):
        for channel in self.links.values():
            channel.close()


def question(session, kind=sc.MSG_MAIN_MIGRATE_BEGIN_SEAMLESS):
    """Expect to be told of a target; its address."""
    body = session.main.expect(kind)
    host, port, tls, subject = destination(body)
    assert subject == b"", subject
    if kind == sc.MSG_MAIN_MIGRATE_BEGIN_SEAMLESS:
        assert struct.unpack_from("<I", body, 20)[0] == VERSION, body
    return host, port or tls


def follow(session, seamless=True):
    """Do as asked: connect to the target, and say so.  The Arrival."""
    where = question(session, sc.MSG_MAIN_MIGRATE_BEGIN_SEAMLESS if seamless
                     else sc.MSG_MAIN_MIGRATE_BEGIN)
    arrival = Arrival(session, where, seamless)
    if seamless:
        assert arrival.agreed
    session.main.send(sc.MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS if seamless
                      else sc.MSGC_MAIN_MIGRATE_CONNECTED)
    return arrival


def lead(session, source, target):
    """Have the session follow from SOURCE to TARGET; the Arrival."""
    set_target(source, target)
    arrival = follow(session)
    wait_states(source, "seamless")
    return arrival


def swap_channel(channel, arrival, change=None):
    """MIGRATE to MIGRATE_DATA on one channel, and on with the new socket.

    CHANGE is given the data and returns what is sent in its place, or None
    for nothing.  What came before MIGRATE is in channel.pending."""
    before = []
    while True:
        kind, body = channel.receive()
        if kind == sc.MSG_MIGRATE:
            break
        before.append((kind, body))
    assert body == struct.pack("<I", 3), body
    channel.send(sc.MSGC_MIGRATE_FLUSH_MARK)
    kind, data = channel.receive_any()
    assert kind == sc.MSG_MIGRATE_DATA, kind
    old = channel.connection
    channel.connection = arrival.links.pop((channel.type, channel.id)) \
        .connection
    channel.pending = before
    if change:
        data = change(data)
    if data is not None:
        channel.send(sc.MSGC_MIGRATE_DATA, data)
    return old, data


def swap(session, arrival, change=None):
    """The end of a seamless hand-over, all channels."""
    old = []
    try:
        for channel in session.channels:
            old.append(swap_channel(channel, arrival, change)[0])
    finally:
        for connection in old:
            connection.close()
    session.address = arrival.address


def stream(data):
    """What is in MIGRATE_DATA."""
    magic, version, mini, size = struct.unpack_from("<IIII", data)
    assert magic == MAGIC and version == VERSION, data[:16]
    assert mini in (0, 1) and len(data) == 16 + size, (mini, size, len(data))
    return data[16:]


