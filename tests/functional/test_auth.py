# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may connect: passwords, TLS, client certificates."""

import os
import select
import ssl
import struct
import time

from lib import spiceclient as sc
from lib.certs import Certificates
from lib.process import wait_until
from lib.pump import Pump, pattern, pump_args
from lib.qemu import QmpError, output_of

PORT_NAME = "org.example.auth.0"


def start(rig, *before, server=(), address=None, port=(), more=()):
    """A QEMU with objects BEFORE the server, which has settings SERVER."""
    words = ",".join(("spiceflow-server", "id=sf0") + tuple(server) +
                     (address or "type=unix,path=" + rig.socket,))
    return rig.qemu(*before, "-object", words,
                    "-chardev", ",".join(("spiceflow", "id=p1",
                                          "name=" + PORT_NAME) + tuple(port)),
                    *more, machine="none")


def secret_args(password, name="sec0"):
    return ["-object", "secret,id=%s,data=%s" % (name, password)]


def result_of(rig, plain, address=None, **options):
    """The link result of a ticket that holds these very bytes."""
    connection = rig.link(address, **options)
    reply = connection.start_link(sc.MAIN)
    connection.send_ticket(reply, plain=plain)
    result = connection.read_result()
    if result:
        assert connection.wait_closed() == b""
    connection.close()
    return result


class TestPassword:
    """A server with the password "secret"."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig, *secret_args("secret"),
                          server=["password-secret=sec0"])

    def expect(self, plain, result):
        got = result_of(self.rig, plain)
        assert got == result, "%r: %d, not %d" % (plain, got, result)

    def test_right_password(self):
        session = self.rig.raw(password="secret")
        assert session.attach() == [(sc.PORT, 0)]
        channel = session.open_port(PORT_NAME)
        assert channel.port_init.name == PORT_NAME

    def test_wrong_password(self):
        for plain in (b"secres\0", b"Secret\0", b"secre\0", b"ecret\0",
                      b"secrets\0", b"\0", b"x\0", b" secret\0", b"secret \0",
                      b"secret" * 10 + b"\0", b"\xff" * 60 + b"\0"):
            self.expect(plain, sc.ERR_PERMISSION_DENIED)
        self.expect(b"secret\0", sc.ERR_OK)

    def test_d35_bytes_behind_the_nul(self):
        """The whole decrypted text counts, not what strcmp would see."""
        for plain in (b"secret\0x", b"secret\0\0", b"secret\0secret\0",
                      b"secret\0" + bytes(60)):
            self.expect(plain, sc.ERR_PERMISSION_DENIED)

    def test_without_nul(self):
        """Clients encrypt the password with its NUL; without, and empty,
        it is not the password."""
        self.expect(b"secret", sc.ERR_PERMISSION_DENIED)
        self.expect(b"", sc.ERR_PERMISSION_DENIED)

    def test_ticket_that_is_none(self):
        """Bytes that do not decrypt are a wrong password and no more."""
        for ticket in (bytes(128), b"\xff" * 128, b"\0" * 127 + b"\1",
                       os.urandom(128), b"\x7f" + os.urandom(127)):
            connection = self.rig.link()
            connection.start_link(sc.MAIN)
            connection.send(struct.pack("<I", sc.AUTH_SPICE) + ticket)
            assert connection.read_result() == sc.ERR_PERMISSION_DENIED
            assert connection.wait_closed() == b""

    def test_ticket_with_wrong_padding(self):
        """The plain number, without OAEP, is no way in."""
        connection = self.rig.link()
        reply = connection.start_link(sc.MAIN)
        modulus, exponent = sc.rsa_public_key(reply.public_key)
        number = pow(int.from_bytes(b"secret\0", "big"), exponent, modulus)
        connection.send(struct.pack("<I", sc.AUTH_SPICE) +
                        number.to_bytes(128, "big"))
        assert connection.read_result() == sc.ERR_PERMISSION_DENIED

    def test_every_channel_needs_it(self):
        """A session's id alone opens none of its channels."""
        session = self.rig.raw(password="secret")
        session.password = "wrong"
        with sc.refused(sc.ERR_PERMISSION_DENIED, "result"):
            session.open(sc.PORT, 0)

    def test_wrong_password_puts_nobody_out(self):
        """With one client at a time, only who has the password takes the
        place of another."""
        session = self.rig.raw(password="secret")
        self.expect(b"wrong\0", sc.ERR_PERMISSION_DENIED)
        assert session.attach() == [(sc.PORT, 0)]

    def test_password_is_not_shown(self):
        """Neither in the server's properties nor in its numbers."""
        for name in ("password-secret", "stats"):
            assert "secret" not in str(self.qemu.get("/objects/sf0", name))

    def test_failures_are_counted(self):
        before = self.qemu.stats()["links-failed"]
        self.expect(b"wrong\0", sc.ERR_PERMISSION_DENIED)
        after = self.qemu.stats()["links-failed"]
        assert after == before + 1

    def test_zz_changed_secret(self):
        """Another password under the same id holds from the next link on;
        without any secret there is no way in."""
        session = self.rig.raw(password="secret")
        self.qemu.command("object-del", id="sec0")
        self.expect(b"secret\0", sc.ERR_PERMISSION_DENIED)
        self.expect(b"\0", sc.ERR_PERMISSION_DENIED)
        self.qemu.command("object-add", qom_type="secret", id="sec0",
                          data="another")
        self.expect(b"secret\0", sc.ERR_PERMISSION_DENIED)
        # that one is still there, and only the right password ends it
        assert session.attach() == [(sc.PORT, 0)]
        self.expect(b"another\0", sc.ERR_OK)


def test_no_password_takes_any_ticket(rig):
    """Without a password what the client sends does not matter."""
    start(rig)
    for plain in (b"\0", b"", b"anything\0", b"x" * 80):
        assert result_of(rig, plain) == sc.ERR_OK
    connection = rig.link()
    connection.start_link(sc.MAIN)
    connection.send(struct.pack("<I", sc.AUTH_SPICE) + b"\xff" * 128)
    assert connection.read_result() == sc.ERR_OK


def test_d17_password_of_60_characters(rig):
    """The longest that clients can send works, and every one of its
    characters counts."""
    password = "".join(chr(ord("!") + i) for i in range(60)).replace(",", "~")
    start(rig, *secret_args(password), server=["password-secret=sec0"])
    plain = password.encode() + b"\0"
    assert result_of(rig, plain) == sc.ERR_OK
    for at in range(60):
        wrong = bytearray(plain)
        wrong[at] ^= 1
        assert result_of(rig, bytes(wrong)) == sc.ERR_PERMISSION_DENIED, at
    assert result_of(rig, plain[:59] + b"\0") == sc.ERR_PERMISSION_DENIED
    assert result_of(rig, plain[:60] + b"x\0") == sc.ERR_PERMISSION_DENIED


def test_d17_password_of_61_bytes_is_refused(rig):
    """What no client could send is not taken in the first place."""
    status, said = output_of(
        "-machine", "none", "-display", "none", *secret_args("x" * 61),
        "-object", "spiceflow-server,id=sf0,type=unix,path=%s,"
        "password-secret=sec0" % rig.socket)
    assert status == 1
    assert "password-secret: the password has 61 bytes, SPICE clients send" \
        " at most 60" in said, said


def test_password_in_utf8(rig):
    """The bytes of the text as they are."""
    password = "p\u00e4ssw\u00f6rd\u2713"
    start(rig, *secret_args(password), server=["password-secret=sec0"])
    rig.raw(password=password)
    assert result_of(rig, b"passwrd\0") == sc.ERR_PERMISSION_DENIED


def test_empty_password(rig):
    """A secret that holds nothing is a password of no characters."""
    path = rig.path("empty")
    with open(path, "w", encoding="ascii"):
        pass
    start(rig, "-object", "secret,id=sec0,file=" + path,
          server=["password-secret=sec0"])
    assert result_of(rig, b"\0") == sc.ERR_OK
    assert result_of(rig, b"x\0") == sc.ERR_PERMISSION_DENIED


class TestTls:
    """A server with TLS, whose clients need no certificate."""

    def setup(self, rig):
        self.rig = rig
        self.certs = Certificates(rig.path("certs"))
        self.qemu = start(rig, *self.certs.creds_args(),
                          server=["tls-creds=tls0", "link-timeout=1500"],
                          port=["queue-size=65536"],
                          more=pump_args("p1"))
        self.pump = Pump(self.qemu)
        self.tls = sc.tls_context(self.certs.authority)

    def pending(self):
        return self.qemu.stats()["pending-links"]

    def test_client_with_tls(self):
        session = self.rig.raw(tls=self.tls)
        assert session.attach() == [(sc.PORT, 0)]
        session.open_port(PORT_NAME)
        client, = self.qemu.stats()["clients"]
        assert client["tls"] is True

    def test_plain_client_is_sent_to_tls(self):
        """It is answered in the clear, with the error that makes clients
        come back with TLS."""
        connection = self.rig.link()
        with sc.refused(sc.ERR_NEED_SECURED, "reply"):
            connection.start_link(sc.MAIN)
        assert connection.wait_closed() == b""

    def test_plain_client_byte_by_byte(self):
        connection = self.rig.link()
        body = sc.link_message(sc.MAIN, 0, 0, [sc.COMMON_CAPS])
        connection.send_slowly(sc.link_header(len(body)) + body)
        assert connection.read_reply().error == sc.ERR_NEED_SECURED

    def test_malformed_plain_client(self):
        """It can not get further than the first message."""
        connection = self.rig.link()
        connection.offer(sc.link_header(5000) + bytes(100))
        assert connection.read_reply().error == sc.ERR_INVALID_DATA

    def test_not_tls_at_all(self):
        """Garbage ends in the handshake."""
        for data in (bytes(64), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01",
                     b"\x16\x03\x01\xff\xff" + bytes(100), b"\x80" * 50):
            connection = self.rig.link()
            connection.offer(data)
            said = connection.wait_closed(4)
            assert not said.startswith(b"REDQ"), said
        assert self.pending() == 0
        self.rig.raw(tls=self.tls)

    def test_d6_silent_in_tls(self):
        """The deadline covers the handshake, and what it leaves behind
        neither runs nor keeps a descriptor."""
        before = len(self.qemu.process.descriptors())
        hello = self.client_hello()
        idle = []
        for data in (b"", hello[:1], hello[:50], hello):
            connection = self.rig.link()
            connection.send(data)
            idle.append(connection)
        for connection in idle:
            connection.wait_closed(5)
        assert self.pending() == 0
        busy = self.qemu.process.cpu_seconds()
        time.sleep(0.5)
        busy = self.qemu.process.cpu_seconds() - busy
        assert busy < 0.2, "%.2f s of CPU in 0.5 s" % busy
        assert len(self.qemu.process.descriptors()) <= before
        self.rig.raw(tls=self.tls)

    def client_hello(self):
        """What a TLS client says first."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.tls.wrap_bio(incoming, outgoing)
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return outgoing.read()

    def test_leave_in_the_handshake(self):
        hello = self.client_hello()
        for size in (1, 5, 30, len(hello)):
            connection = self.rig.link()
            connection.send(hello[:size])
            connection.close()
        wait_until(lambda: self.pending() == 0, 5, "the end of the links")
        self.rig.raw(tls=self.tls)

    def test_d16_to_guest(self):
        """A guest that does not read for a while: bytes that wait inside the
        TLS session raise no descriptor, and all of them arrive."""
        session = self.rig.raw(tls=self.tls)
        port = session.open_port(PORT_NAME)
        for total in (100000, 65536 + 1, 120000, 1000, 16384 * 5 + 3):
            self.pump.start("sink", total=total, can_read_size=7)
            self.pump.stop()
            port.send_data(pattern(total), piece=16000)
            time.sleep(0.1)         # nothing more comes after this
            self.pump.start("sink", total=total, can_read_size=4096)
            assert self.pump.wait()["bytes-read"] == total
            assert port.receive_data(1)

    def test_d16_to_guest_stalled(self):
        """Back pressure reaches the client through TLS, memory stays within
        the queue, and resuming loses nothing."""
        port = self.rig.raw(tls=self.tls).open_port(PORT_NAME)
        total = 16 << 20
        data = port.message(sc.MSGC_DATA, pattern(total))
        sent = send_some(port.connection, data)
        assert sent < len(data), "nothing held the client back"
        flow = self.qemu.flow("p1")
        assert flow["to-guest-bytes"] <= 65536 * 1.1, flow
        self.pump.start("sink", total=total, can_read_size=65536)
        port.connection.send(data[sent:], 30)
        assert self.pump.wait()["bytes-read"] == total

    def test_d16_to_client_stalled(self):
        """A client that does not read: the guest waits; then all comes, in
        order, though the TLS session was left in the middle of a record."""
        total = 16 << 20
        port = self.rig.raw(tls=self.tls).open_port(PORT_NAME)
        self.pump.start("source", total=total, write_size=5000)
        written = self.pump.settle("bytes-written")
        assert written < total, "nothing held the guest back"
        flow = self.qemu.flow("p1")
        client, = flow["clients"]
        assert client["to-client-bytes"] <= 65536, flow
        assert port.receive_data(total, 30) == pattern(total)
        self.pump.wait()

    def test_both_ways_at_once(self):
        port = self.rig.raw(tls=self.tls).open_port(PORT_NAME)
        total = 3 << 20
        self.pump.start("echo", total=total, can_read_size=3000,
                        verify=False)
        data = pattern(total)
        back = bytearray()
        for at in range(0, total, 65536):
            port.send(sc.MSGC_DATA, data[at:at + 65536])
            back += port.receive_data(len(data[at:at + 65536]))
        assert back == data
        self.pump.wait()


def send_some(connection, data):
    """Send until the server takes no more; how much that was.

    What is left of a TLS record must be offered again as it was."""
    sock, at = connection.sock, 0
    sock.setblocking(False)
    while at < len(data):
        try:
            at += sock.send(data[at:at + 16384])
        except (BlockingIOError, ssl.SSLWantWriteError):
            if not select.select([], [sock], [], 0.7)[1]:
                break
    sock.setblocking(True)
    return at


def test_tls_with_authorization(rig):
    """Only the certificate that the authorization object names gets in."""
    certs = Certificates(rig.path("certs"))
    qemu = start(rig, *certs.creds_args(verify_peer=True),
                 "-object", "authz-simple,id=az0,identity=CN=alice",
                 server=["tls-creds=tls0", "tls-authz=az0"])
    alice = sc.tls_context(certs.authority, *certs.client("alice"))
    bob = sc.tls_context(certs.authority, *certs.client("bob"))
    nobody = sc.tls_context(certs.authority)
    rig.raw(tls=alice).attach()
    for context in (bob, nobody):
        try:
            rig.raw(tls=context)
            raise AssertionError("it was let in")
        except (sc.Closed, ssl.SSLError, ConnectionError):
            pass
    stats = qemu.stats()
    assert len(stats["clients"]) == 1 and stats["links-failed"] == 2, stats


def test_tls_certificate_of_another_authority(rig):
    """A client whose certificate nobody here has signed stays out."""
    certs = Certificates(rig.path("certs"))
    start(rig, *certs.creds_args(verify_peer=True), server=["tls-creds=tls0"])
    other = Certificates(rig.path("other"))
    stranger = sc.tls_context(certs.authority, *other.client("alice"))
    try:
        rig.raw(tls=stranger)
        raise AssertionError("it was let in")
    except (sc.Closed, ssl.SSLError, ConnectionError):
        pass
    rig.raw(tls=sc.tls_context(certs.authority, *certs.client("alice")))


def test_tls_and_password(rig):
    """Both, on TCP."""
    certs = Certificates(rig.path("certs"))
    qemu = start(rig, *secret_args("secret"), *certs.creds_args(),
                 server=["tls-creds=tls0", "password-secret=sec0"],
                 address="type=inet,host=127.0.0.1,port=0")
    bound = qemu.get("/objects/sf0", "addr")
    address = (bound["host"], int(bound["port"]))
    tls = sc.tls_context(certs.authority)
    session = rig.raw(address, tls=tls, password="secret")
    assert session.open_port(PORT_NAME).port_init.name == PORT_NAME
    assert result_of(rig, b"wrong\0", address, tls=tls) == \
        sc.ERR_PERMISSION_DENIED


def test_what_is_fixed_once_it_listens(rig):
    """Address, TLS and the password's id can not be changed under clients."""
    qemu = start(rig, *secret_args("secret"), server=["password-secret=sec0"])
    for name, value in (("password-secret", "sec1"), ("tls-creds", "tls0"),
                        ("tls-authz", "az0"),
                        ("addr", {"type": "unix", "path": "/nowhere"})):
        try:
            qemu.set("/objects/sf0", name, value)
            raise AssertionError("%s was changed" % name)
        except QmpError as error:
            assert error.desc == "%s: can not be changed once the server" \
                " listens" % name, error
