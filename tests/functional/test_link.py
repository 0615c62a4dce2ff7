# SPDX-License-Identifier: GPL-2.0-or-later
"""The link phase against a client that does everything wrong, on purpose."""

import struct
import time

from lib import spiceclient as sc
from lib.paths import seconds
from lib.process import wait_until

PORT_NAME = "org.example.link.0"

GOOD = sc.link_message(sc.MAIN, 0, 0, [sc.COMMON_CAPS], [sc.MAIN_CAPS])


def start(rig, *server, machine="none"):
    """A QEMU with a server and one port that no frontend has."""
    words = ",".join(("spiceflow-server", "id=sf0", "type=unix",
                      "path=" + rig.socket) + server)
    return rig.qemu("-object", words,
                    "-chardev", "spiceflow,id=p1,name=" + PORT_NAME,
                    machine=machine)


def stats(qemu):
    return qemu.stats()


def error_reply(connection):
    """Receive a link reply that refuses, and the end of the connection."""
    reply = connection.read_reply()
    assert reply.error, "it was not refused"
    assert connection.wait_closed() == b"", "more came behind the reply"
    return reply.error


def header_plus(body, **changes):
    changes.setdefault("size", len(body))
    return sc.link_header(**changes) + body


class TestMalformed:
    """Each malformed link is answered by its error number, then closed; the
    server serves the next one as if nothing had been."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig)

    def refused(self, data, error):
        connection = self.rig.link()
        connection.offer(data)
        got = error_reply(connection)
        assert got == error, "error %d, not %d, for %r" % (got, error, data)
        connection.close()

    def honest(self):
        self.rig.raw().close()

    def test_invalid_magic(self):
        for magic in (b"\0\0\0\0", b"REDR", b"QDER", b"redq", b"GET ",
                      b"\x16\x03\x01\x02", b"\xff\xff\xff\xff"):
            self.refused(header_plus(GOOD, magic=magic),
                         sc.ERR_INVALID_MAGIC)
        self.refused(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     sc.ERR_INVALID_MAGIC)
        self.honest()

    def test_version_mismatch(self):
        for major in (0, 1, 3, 0x02000000, 0xffffffff):
            self.refused(header_plus(GOOD, major=major),
                         sc.ERR_VERSION_MISMATCH)
        self.honest()

    def test_any_minor_version(self):
        for minor in (0, 1, 99, 0xffffffff):
            connection = self.rig.link()
            connection.send(header_plus(GOOD, minor=minor))
            assert connection.read_reply().error == sc.ERR_OK
            connection.close()

    def test_invalid_size(self):
        for size in (0, 1, 17, 4097, 65536, 0x7fffffff, 0x80000000,
                     0xffffffff):
            self.refused(header_plus(GOOD, size=size), sc.ERR_INVALID_DATA)
        self.honest()

    def test_invalid_capabilities(self):
        """Counts and offsets that do not fit into the message."""
        one = [sc.COMMON_CAPS]
        for counts, offset in (
                ((1, 0), 0), ((1, 0), 17), ((1, 0), 19), ((1, 0), 22),
                ((1, 0), 0x7fffffff), ((1, 0), 0xfffffffc), ((2, 0), 18),
                ((1, 1), 18), ((0, 2), 18), ((1025, 0), 18),
                ((0, 1025), 18), ((0x40000000, 0), 18),
                ((0x80000000, 0x80000000), 18),
                ((0xffffffff, 0xffffffff), 18), ((0xffffffff, 2), 18)):
            body = sc.link_message(sc.MAIN, 0, 0, one, (), counts, offset)
            self.refused(header_plus(body), sc.ERR_INVALID_DATA)
        # 1025 words that really are there do not fit into 4096 bytes
        body = sc.link_message(sc.MAIN, 0, 0, [0] * 1025)
        self.refused(header_plus(body), sc.ERR_INVALID_DATA)
        self.honest()

    def test_largest_message(self):
        """A message of the very largest size is fine."""
        words = [sc.COMMON_CAPS] + [0] * 1018
        body = sc.link_message(sc.MAIN, 0, 0, words) + b"\0\0"
        assert len(body) == 4096
        connection = self.rig.link()
        connection.send(header_plus(body))
        reply = connection.read_reply()
        assert reply.error == sc.ERR_OK
        connection.send_ticket(reply)
        assert connection.read_result() == sc.ERR_OK
        connection.close()

    def test_unknown_mechanism(self):
        """Authentication is by ticket; SASL and nonsense are refused."""
        for mechanism in (0, sc.AUTH_SASL, 3, 0x01000000, 0xffffffff):
            connection = self.rig.link()
            connection.start_link(sc.MAIN)
            connection.offer(struct.pack("<I", mechanism) + bytes(128))
            assert error_reply(connection) == sc.ERR_INVALID_DATA
            connection.close()
        self.honest()

    def test_unknown_channel(self):
        """A channel that does not exist is refused as not available."""
        session = self.rig.raw()
        for kind, number in ((sc.PORT, 1), (sc.PORT, 255), (sc.USBREDIR, 0),
                             (sc.SMARTCARD, 0), (sc.WEBDAV, 0), (0, 0),
                             (sc.DISPLAY, 0), (sc.INPUTS, 0), (255, 255)):
            body = sc.link_message(kind, number, session.init.session_id,
                                   [sc.COMMON_CAPS])
            self.refused(header_plus(body), sc.ERR_CHANNEL_NOT_AVAILABLE)
        session.open(sc.PORT, 0)
        session.close()

    def test_wrong_connection_id(self):
        """Only a session's own id opens its channels."""
        session = self.rig.raw()
        good = session.init.session_id
        for wrong in (0, 1, good ^ 1, good ^ 0x80000000, 0xffffffff):
            connection = self.rig.link()
            with sc.refused(sc.ERR_BAD_CONNECTION_ID, "result"):
                connection.link(sc.PORT, 0, wrong)
            assert connection.wait_closed() == b""
            connection.close()
        session.open(sc.PORT, 0)
        session.close()

    def test_id_of_a_session_that_left(self):
        """An id is worth nothing once its session has gone."""
        session = self.rig.raw()
        old = session.init.session_id
        session.close()
        wait_until(lambda: not stats(self.qemu)["clients"], 5, "the leave")
        connection = self.rig.link()
        with sc.refused(sc.ERR_BAD_CONNECTION_ID):
            connection.link(sc.PORT, 0, old)

    def test_main_with_an_id(self):
        """A second main channel can not join a session, nor a migration that
        nobody has announced."""
        session = self.rig.raw()
        for number in (session.init.session_id, 1, 0xffffffff):
            connection = self.rig.link()
            with sc.refused(sc.ERR_BAD_CONNECTION_ID):
                connection.link(sc.MAIN, 0, number)
        assert session.attach()
        session.close()

    def test_cut_off_anywhere(self):
        """A client that leaves after each number of bytes leaves nothing."""
        whole = header_plus(GOOD)
        for size in range(len(whole) + 1):
            connection = self.rig.link()
            connection.send(whole[:size])
            connection.close()
        for size in (0, 3, 4, 5, 131):
            connection = self.rig.link()
            connection.start_link(sc.MAIN)
            connection.send((struct.pack("<I", sc.AUTH_SPICE) +
                             bytes(128))[:size])
            connection.close()
        wait_until(lambda: stats(self.qemu)["pending-links"] == 0, 5,
                   "the end of the links")
        self.honest()

    def test_every_first_byte(self):
        """Nothing that a connection may begin with hurts."""
        for first in range(256):
            connection = self.rig.link()
            connection.offer(bytes([first]) * 200)
            connection.close()
        wait_until(lambda: stats(self.qemu)["pending-links"] == 0, 5,
                   "the end of the links")
        self.honest()


class TestWellFormed:
    """What a correct client may do, however it does it."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig)

    def test_reply(self):
        """Capabilities and key are those that clients expect."""
        connection = self.rig.link()
        reply = connection.start_link(sc.MAIN)
        assert reply.common[0] & (sc.CAP_AUTH_SELECTION | sc.CAP_AUTH_SPICE |
                                  sc.CAP_MINI_HEADER) == 0x0b
        assert not reply.common[0] & sc.CAP_AUTH_SASL
        assert reply.channel[0] & (sc.CAP_NAME_UUID | sc.CAP_AGENT_TOKENS)
        modulus, exponent = sc.rsa_public_key(reply.public_key)
        assert modulus.bit_length() == 1024 and exponent == 65537
        connection.close()

    def test_one_byte_at_a_time(self):
        connection = self.rig.link()
        connection.send_slowly(header_plus(GOOD))
        reply = connection.read_reply()
        connection.send_slowly(struct.pack("<I", sc.AUTH_SPICE) +
                               sc.oaep_encrypt(b"\0", reply.public_key))
        assert connection.read_result() == sc.ERR_OK
        channel = sc.Channel(connection, sc.MAIN, 0)
        assert channel.receive()[0] == sc.MSG_MAIN_INIT

    def test_everything_at_once(self):
        """Without a password the ticket's content does not matter, so all of
        a link and the first message can be one packet."""
        connection = self.rig.link()
        connection.send(header_plus(GOOD) +
                        struct.pack("<I", sc.AUTH_SPICE) + bytes(128) +
                        struct.pack("<HI", sc.MSGC_MAIN_ATTACH_CHANNELS, 0))
        assert connection.read_reply().error == sc.ERR_OK
        assert connection.read_result() == sc.ERR_OK
        channel = sc.Channel(connection, sc.MAIN, 0)
        assert channel.receive()[0] == sc.MSG_MAIN_INIT
        assert sc.channels_list(channel.expect(sc.MSG_MAIN_CHANNELS_LIST)) \
            == [(sc.PORT, 0)]

    def test_without_auth_selection(self):
        """An old client sends its ticket without naming the mechanism."""
        session = self.rig.raw(common=sc.CAP_MINI_HEADER)
        assert session.attach() == [(sc.PORT, 0)]

    def test_without_capabilities(self):
        """Nor has it the short message header: the long one is used."""
        session = self.rig.raw(common=0, caps=0)
        assert not session.main.mini
        assert session.attach() == [(sc.PORT, 0)]
        channel = session.open(sc.PORT, 0)
        init = sc.PortInit(channel.expect(sc.MSG_PORT_INIT))
        assert init.name == PORT_NAME and not init.opened

    def test_order_of_the_first_messages(self):
        """INIT comes first, then name and identity for who knows them."""
        main = self.rig.raw().main
        assert main.receive()[0] == sc.MSG_MAIN_NAME
        kind, body = main.receive()
        assert kind == sc.MSG_MAIN_UUID and len(body) == 16
        main = self.rig.raw(caps=0).main
        assert main.silent(0.3), "more than INIT for a client without caps"

    def test_init(self):
        """What INIT says of a VM without display and agent."""
        init = self.rig.raw().init
        assert init.session_id != 0
        assert (init.display_hint, init.mouse_modes, init.mouse_mode,
                init.agent_connected, init.ram_hint) == (0, 1, 1, 0, 0)
        assert init.agent_tokens >= 10

    def test_connection_ids_differ(self):
        """Ids are random, not counted."""
        ids = []
        for _ in range(40):
            session = self.rig.raw()
            ids.append(session.init.session_id)
            session.close()
        assert len(set(ids)) == len(ids) and 0 not in ids
        steps = {(b - a) & 0xffffffff for a, b in zip(ids, ids[1:])}
        assert len(steps) > 35, "the ids follow a rule"
        bits = [sum(number >> bit & 1 for number in ids)
                for bit in range(32)]
        assert all(4 < ones < 36 for ones in bits), bits


class TestDeadline:
    """Who does not get on with it is put out, whoever else comes in."""

    LINK_TIMEOUT = 0.6

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig, "link-timeout=%d" %
                          (self.LINK_TIMEOUT * 1000))

    def closed_in_time(self, connection, since):
        connection.wait_closed(5)
        took = time.monotonic() - since
        assert 0.5 * self.LINK_TIMEOUT < took < self.LINK_TIMEOUT + 2, \
            "closed after %.2f s" % took

    def test_d6_silent_client(self):
        since = time.monotonic()
        self.closed_in_time(self.rig.link(), since)

    def test_d6_each_state(self):
        """The deadline holds in every part of the link phase."""
        whole = header_plus(GOOD)
        ticket = struct.pack("<I", sc.AUTH_SPICE) + bytes(128)
        for size in (1, 15, 16, 17, len(whole) - 1):
            since = time.monotonic()
            connection = self.rig.link()
            connection.send(whole[:size])
            self.closed_in_time(connection, since)
        for size in (0, 1, 4, 5, len(ticket) - 1):
            since = time.monotonic()
            connection = self.rig.link()
            connection.start_link(sc.MAIN)
            connection.send(ticket[:size])
            self.closed_in_time(connection, since)

    def test_d6_slowloris(self):
        """A byte now and then does not extend the deadline."""
        whole = header_plus(GOOD)
        since = time.monotonic()
        connection = self.rig.link()
        try:
            for byte in whole:
                connection.send(bytes([byte]))
                time.sleep(0.05)
            raise AssertionError("%d bytes were taken in %.1f s" %
                                 (len(whole), time.monotonic() - since))
        except sc.Closed:
            pass
        took = time.monotonic() - since
        assert took < self.LINK_TIMEOUT + seconds(1), "closed after %.2f s" % took

    def test_a_channel_has_no_deadline(self):
        """The deadline ends with the link phase."""
        session = self.rig.raw()
        time.sleep(2 * self.LINK_TIMEOUT)
        assert session.attach() == [(sc.PORT, 0)]

    def test_timeout_is_changeable(self):
        self.qemu.set("/objects/sf0", "link-timeout", 60000)
        connection = self.rig.link()
        time.sleep(2 * self.LINK_TIMEOUT)
        assert connection.silent(0)
        self.qemu.set("/objects/sf0", "link-timeout",
                      int(self.LINK_TIMEOUT * 1000))
        connection.close()


class TestHalfOpen:
    """Links that lead to nothing do not keep honest clients out."""

    LIMIT = 8

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig, "max-pending-links=%d" % self.LIMIT,
                          "link-timeout=60000")

    def pending(self):
        return stats(self.qemu)["pending-links"]

    def test_d6_up_to_the_limit(self):
        idle = [self.rig.link() for _ in range(self.LIMIT)]
        wait_until(lambda: self.pending() == self.LIMIT, 5, "the links")
        session = self.rig.raw()
        assert session.attach() == [(sc.PORT, 0)]
        # its own links have taken the oldest one's place
        idle[0].wait_closed(5)
        assert idle[-1].silent(0.1)

    def test_d6_over_the_limit(self):
        """Ten times as many: the oldest give way, and an honest one that
        comes in between is served."""
        idle = []
        for number in range(10 * self.LIMIT):
            idle.append(self.rig.link())
            if number % 20 == 19:
                self.rig.raw().close()
        assert self.pending() <= self.LIMIT
        for connection in idle[:-self.LIMIT]:
            connection.wait_closed(5)
        session = self.rig.raw()
        assert session.open_port(PORT_NAME).port_init.name == PORT_NAME

    def test_d6_half_open_with_a_part_sent(self):
        """The same with links that have got as far as the ticket."""
        for _ in range(4 * self.LIMIT):
            self.rig.link().start_link(sc.MAIN)
        self.rig.raw().close()
        assert self.pending() <= self.LIMIT

    def test_d6_84_half_open_links(self):
        """As many as were tried against spice-server, with room for them."""
        self.qemu.set("/objects/sf0", "max-pending-links", 64)
        for _ in range(84):
            self.rig.link()
        wait_until(lambda: self.pending() == 64, 5, "the links")
        session = self.rig.raw()
        assert session.attach() == [(sc.PORT, 0)]
        self.qemu.set("/objects/sf0", "max-pending-links", self.LIMIT)
