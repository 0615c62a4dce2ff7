# SPDX-License-Identifier: GPL-2.0-or-later
"""A SPICE client in plain Python that does what it is told, also wrongly.

Three layers, each usable alone:

    Connection  a socket, TLS if wanted, slow sending, exact receiving
    Channel     a Connection after its link phase: messages in and out
    Session     a main channel and the channels opened with its id

link() does a link phase as a well-behaved client does; every field of it can
be replaced, and a test that wants something else entirely builds the bytes
with link_header() and link_message() and sends them itself.

Message names are the protocol's own, from the client's point of view: what it
sends begins with MSGC, what it receives with MSG.
"""

import contextlib
import hashlib
import os
import select
import socket
import ssl
import struct
import time

from .paths import RigError, seconds

MAGIC = b"REDQ"
MAJOR, MINOR = 2, 2

# Channel types
MAIN, DISPLAY, INPUTS, CURSOR = 1, 2, 3, 4
SMARTCARD, USBREDIR, PORT, WEBDAV = 8, 9, 10, 11

# Errors of the link phase
ERR_OK, ERR_ERROR, ERR_INVALID_MAGIC, ERR_INVALID_DATA = 0, 1, 2, 3
ERR_VERSION_MISMATCH, ERR_NEED_SECURED, ERR_NEED_UNSECURED = 4, 5, 6
ERR_PERMISSION_DENIED, ERR_BAD_CONNECTION_ID = 7, 8
ERR_CHANNEL_NOT_AVAILABLE = 9

# Common capabilities, as bits of the first word
CAP_AUTH_SELECTION, CAP_AUTH_SPICE, CAP_AUTH_SASL, CAP_MINI_HEADER = 1, 2, 4, 8
COMMON_CAPS = CAP_AUTH_SELECTION | CAP_MINI_HEADER
# Main channel capabilities
CAP_SEMI_SEAMLESS, CAP_NAME_UUID, CAP_AGENT_TOKENS, CAP_SEAMLESS = 1, 2, 4, 8
MAIN_CAPS = (CAP_SEMI_SEAMLESS | CAP_NAME_UUID | CAP_AGENT_TOKENS |
             CAP_SEAMLESS)
CAP_LZ4 = 1

AUTH_SPICE, AUTH_SASL = 1, 2

# All channels, from the server
MSG_MIGRATE, MSG_MIGRATE_DATA, MSG_SET_ACK, MSG_PING = 1, 2, 3, 4
MSG_WAIT_FOR_CHANNELS, MSG_DISCONNECTING, MSG_NOTIFY, MSG_LIST = 5, 6, 7, 8
# All channels, from the client
MSGC_ACK_SYNC, MSGC_ACK, MSGC_PONG = 1, 2, 3
MSGC_MIGRATE_FLUSH_MARK, MSGC_MIGRATE_DATA, MSGC_DISCONNECTING = 4, 5, 6

# Main channel, from the server
MSG_MAIN_MIGRATE_BEGIN, MSG_MAIN_MIGRATE_CANCEL, MSG_MAIN_INIT = 101, 102, 103
MSG_MAIN_CHANNELS_LIST, MSG_MAIN_MOUSE_MODE = 104, 105
MSG_MAIN_MULTI_MEDIA_TIME, MSG_MAIN_AGENT_CONNECTED = 106, 107
MSG_MAIN_AGENT_DISCONNECTED, MSG_MAIN_AGENT_DATA = 108, 109
MSG_MAIN_AGENT_TOKEN, MSG_MAIN_MIGRATE_SWITCH_HOST = 110, 111
MSG_MAIN_MIGRATE_END, MSG_MAIN_NAME, MSG_MAIN_UUID = 112, 113, 114
MSG_MAIN_AGENT_CONNECTED_TOKENS = 115
MSG_MAIN_MIGRATE_BEGIN_SEAMLESS = 116
MSG_MAIN_MIGRATE_DST_SEAMLESS_ACK = 117
MSG_MAIN_MIGRATE_DST_SEAMLESS_NACK = 118
# Main channel, from the client
MSGC_MAIN_CLIENT_INFO, MSGC_MAIN_MIGRATE_CONNECTED = 101, 102
MSGC_MAIN_MIGRATE_CONNECT_ERROR, MSGC_MAIN_ATTACH_CHANNELS = 103, 104
MSGC_MAIN_MOUSE_MODE_REQUEST, MSGC_MAIN_AGENT_START = 105, 106
MSGC_MAIN_AGENT_DATA, MSGC_MAIN_AGENT_TOKEN = 107, 108
MSGC_MAIN_MIGRATE_END, MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS = 109, 110
MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS = 111
MSGC_MAIN_QUALITY_INDICATOR = 112

# usbredir, port, webdav; smart card uses DATA alone
MSG_DATA = MSGC_DATA = 101
MSG_COMPRESSED_DATA = MSGC_COMPRESSED_DATA = 102
MSG_PORT_INIT, MSG_PORT_EVENT = 201, 202
MSGC_PORT_EVENT = 201
EVENT_OPENED, EVENT_CLOSED, EVENT_BREAK = 0, 1, 2

AGENT_DATA_MAX = 2048
UNLIMITED = 0xffffffff


class Closed(Exception):
    """The server closed the connection (or reset it)."""


class LinkRefused(Exception):
    """The server answered the link with an error."""

    def __init__(self, error, where):
        super().__init__("link refused with error %d in the %s" %
                         (error, where))
        self.error = error
        self.where = where      # "reply" or "result"


@contextlib.contextmanager
def refused(error=None, where=None):
    """The link that is made here is refused, with this error if given."""
    try:
        yield
    except LinkRefused as why:
        assert error in (None, why.error) and where in (None, why.where), why
    else:
        raise AssertionError("the link was not refused")


# ---- encryption of the ticket, with integers only ----

def _der(data, at=0):
    """One DER element: (tag, content, offset after it)."""
    tag, length, at = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7f
        length = int.from_bytes(data[at:at + count], "big")
        at += count
    if at + length > len(data):
        raise ValueError("DER element of %d bytes is cut off" % length)
    return tag, data[at:at + length], at + length


def rsa_public_key(spki):
    """(modulus, exponent) of a DER SubjectPublicKeyInfo for RSA."""
    tag, outer, _ = _der(spki)
    if tag != 0x30:
        raise ValueError("not a SubjectPublicKeyInfo")
    tag, algorithm, at = _der(outer)
    oid = bytes.fromhex("06092a864886f70d010101")
    if tag != 0x30 or not algorithm.startswith(oid):
        raise ValueError("not an RSA key")
    tag, bits, _ = _der(outer, at)
    if tag != 0x03 or bits[0] != 0:
        raise ValueError("no BIT STRING in the key")
    tag, key, _ = _der(bits[1:])
    _, modulus, at = _der(key)
    _, exponent, _ = _der(key, at)
    return int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")


def _mgf1(seed, length):
    out = b""
    counter = 0
    while len(out) < length:
        out += hashlib.sha1(seed + struct.pack(">I", counter)).digest()
        counter += 1
    return out[:length]


def oaep_encrypt(plain, spki):
    """RSA-OAEP with SHA-1, MGF1 with SHA-1 and an empty label (RFC 8017)."""
    modulus, exponent = rsa_public_key(spki)
    size = (modulus.bit_length() + 7) // 8
    room = size - 2 * 20 - 2
    if len(plain) > room:
        raise ValueError("%d bytes do not fit a key of %d" %
                         (len(plain), size * 8))
    block = (hashlib.sha1(b"").digest() + bytes(room - len(plain)) + b"\1" +
             plain)
    seed = os.urandom(20)
    masked = bytes(a ^ b for a, b in zip(block, _mgf1(seed, len(block))))
    hidden = bytes(a ^ b for a, b in zip(seed, _mgf1(masked, 20)))
    number = int.from_bytes(b"\0" + hidden + masked, "big")
    return pow(number, exponent, modulus).to_bytes(size, "big")


# ---- layouts ----

def link_header(size, magic=MAGIC, major=MAJOR, minor=MINOR):
    """The 16 bytes before a link message; SIZE is what follows them."""
    return magic + struct.pack("<III", major, minor, size)


def caps_words(value):
    """A bit set as the words that travel; none for zero."""
    words = []
    while value:
        words.append(value & 0xffffffff)
        value >>= 32
    return words


def link_message(channel_type, channel_id=0, connection_id=0, common=(),
                 channel=(), counts=None, offset=18):
    """A link message; COUNTS replaces the true numbers of capabilities."""
    num_common, num_channel = counts or (len(common), len(channel))
    words = list(common) + list(channel)
    return struct.pack("<IBBIII", connection_id, channel_type, channel_id,
                       num_common, num_channel, offset) + \
        struct.pack("<%dI" % len(words), *words)


class LinkReply:
    """The server's answer to a link message."""

    def __init__(self, header, body):
        magic, self.major, self.minor, self.size = struct.unpack("<4sIII",
                                                                 header)
        if magic != MAGIC:
            raise RigError("the link reply begins with %r" % magic)
        self.raw = header + body
        self.error, self.public_key, commons, channels, self.offset = \
            struct.unpack_from("<I162sIII", body)
        count = commons + channels
        words = struct.unpack_from("<%dI" % count, body, self.offset) \
            if count else ()
        self.common, self.channel = words[:commons], words[commons:]


class Init:
    """MSG_MAIN_INIT."""

    def __init__(self, body):
        (self.session_id, self.display_hint, self.mouse_modes,
         self.mouse_mode, self.agent_connected, self.agent_tokens,
         self.mm_time, self.ram_hint) = struct.unpack("<8I", body)


class PortInit:
    """MSG_PORT_INIT."""

    def __init__(self, body):
        size, offset, self.opened = struct.unpack_from("<IIB", body)
        text = body[offset:offset + size]
        if len(text) != size or not text.endswith(b"\0"):
            raise RigError("PORT_INIT's name is cut off: %r" % body)
        self.name = text[:-1].decode()


def channels_list(body):
    """MSG_MAIN_CHANNELS_LIST as (type, id) pairs."""
    count, = struct.unpack_from("<I", body)
    if len(body) != 4 + 2 * count:
        raise RigError("CHANNELS_LIST of %d has %d bytes" %
                       (count, len(body)))
    return [tuple(body[4 + 2 * i:6 + 2 * i]) for i in range(count)]


# ---- connection ----

def tls_context(ca_file=None, cert=None, key=None):
    """A client's TLS settings; without CA_FILE any certificate will do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.verify_mode = ssl.CERT_NONE
    if cert:
        context.load_cert_chain(cert, key)
    return context


class Connection:
    """A stream to the server: a path is a UNIX socket, a pair is TCP."""

    def __init__(self, address, tls=None, timeout=10, receive_buffer=None):
        self.timeout = timeout
        family = socket.AF_UNIX if isinstance(address, str) \
            else socket.AF_INET
        sock = socket.socket(family)
        try:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                                receive_buffer)
            sock.settimeout(seconds(timeout))
            self._connect(sock, address)
            if tls:
                sock = tls.wrap_socket(sock, suppress_ragged_eofs=True)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    @staticmethod
    def _connect(sock, address):
        """A UNIX socket whose backlog is full says so instead of waiting."""
        end = time.monotonic() + sock.gettimeout()
        while True:
            try:
                return sock.connect(address)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)

    def close(self):
        self.sock.close()

    def fileno(self):
        return self.sock.fileno()

    def send(self, data, timeout=None):
        """Send everything."""
        self.sock.settimeout(seconds(timeout or self.timeout))
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise RigError("the server took no more for %g s" %
                           (timeout or self.timeout)) from None
        except (ConnectionError, ssl.SSLError) as error:
            raise Closed(str(error)) from None

    def offer(self, data):
        """Send what the server may refuse by closing in the middle of it."""
        try:
            self.send(data)
        except Closed:
            pass

    def send_slowly(self, data, piece=1, pause=0.0):
        """Send in small pieces, each a packet of its own."""
        if self.sock.family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), piece):
            self.send(data[at:at + piece])
            time.sleep(pause)

    def send_until_blocked(self, data, patience=1.0):
        """Send DATA again and again until the server takes nothing for
        PATIENCE seconds; how much it took."""
        taken = 0
        at = 0
        self.sock.setblocking(False)
        while True:
            try:
                count = self.sock.send(data[at:])
            except (BlockingIOError, ssl.SSLWantWriteError):
                if not select.select([], [self.sock], [], patience)[1]:
                    return taken
                continue
            except ConnectionError as error:
                raise Closed(str(error)) from None
            taken += count
            at = (at + count) % len(data)

    def receive(self, count, timeout=None):
        """Exactly that many bytes."""
        end = time.monotonic() + seconds(timeout or self.timeout)
        data = bytearray()
        while len(data) < count:
            self.sock.settimeout(max(end - time.monotonic(), 0.001))
            try:
                piece = self.sock.recv(min(count - len(data), 1 << 20))
            except TimeoutError:
                raise RigError("%d of %d bytes came within %g s" %
                               (len(data), count, timeout or self.timeout)) \
                    from None
            except (ConnectionError, ssl.SSLError) as error:
                raise Closed(str(error)) from None
            if not piece:
                raise Closed("end of file after %d of %d bytes" %
                             (len(data), count))
            data += piece
        return bytes(data)

    def silent(self, duration):
        """Does nothing come for that long?  (An end of file is something.)"""
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return False
        return not select.select([self.sock], [], [], duration)[0]

    def wait_closed(self, timeout=None):
        """Read to the end of file; what came before it."""
        end = time.monotonic() + seconds(timeout or self.timeout)
        data = bytearray()
        while True:
            self.sock.settimeout(max(end - time.monotonic(), 0.001))
            try:
                piece = self.sock.recv(65536)
            except TimeoutError:
                raise RigError("the server did not close within %g s" %
                               (timeout or self.timeout)) from None
            except (ConnectionError, ssl.SSLError):
                return bytes(data)
            if not piece:
                return bytes(data)
            data += piece

    # -- link phase --

    def read_reply(self):
        """Receive a link reply, whatever it says."""
        header = self.receive(16)
        size, = struct.unpack_from("<I", header, 12)
        if size > 4096:
            raise RigError("the link reply claims %d bytes" % size)
        return LinkReply(header, self.receive(size))

    def read_result(self):
        """Receive the link result: an error number."""
        return struct.unpack("<I", self.receive(4))[0]

    def start_link(self, channel_type, channel_id=0, connection_id=0,
                   common=COMMON_CAPS, caps=None):
        """Send a correct link message and receive the reply."""
        if caps is None:
            caps = MAIN_CAPS if channel_type == MAIN else 0
        body = link_message(channel_type, channel_id, connection_id,
                            caps_words(common), caps_words(caps))
        self.send(link_header(len(body)) + body)
        reply = self.read_reply()
        if reply.error:
            raise LinkRefused(reply.error, "reply")
        return reply

    def send_ticket(self, reply, password="", selection=True, plain=None):
        """Send the ticket; PLAIN replaces the password with its NUL."""
        if plain is None:
            plain = password.encode() + b"\0"
        data = oaep_encrypt(plain, reply.public_key)
        if selection:
            data = struct.pack("<I", AUTH_SPICE) + data
        self.send(data)

    def link(self, channel_type, channel_id=0, connection_id=0, password="",
             common=COMMON_CAPS, caps=None):
        """A whole link phase; the Channel that comes out of it."""
        reply = self.start_link(channel_type, channel_id, connection_id,
                                common, caps)
        self.send_ticket(reply, password,
                         bool(common & CAP_AUTH_SELECTION))
        error = self.read_result()
        if error:
            raise LinkRefused(error, "result")
        return Channel(self, channel_type, channel_id,
                       bool(common & CAP_MINI_HEADER), reply)


# ---- channel ----

class Channel:
    """A linked connection: messages."""

    def __init__(self, connection, channel_type, channel_id, mini=True,
                 reply=None):
        self.connection = connection
        self.type = channel_type
        self.id = channel_id
        self.mini = mini
        self.reply = reply
        self.serial = 0
        self.pending = []       # received while something else was wanted
        self.answer_pings = True

    def close(self):
        self.connection.close()

    def header(self, kind, size):
        """The header of one message."""
        if self.mini:
            return struct.pack("<HI", kind, size)
        self.serial += 1
        return struct.pack("<QHII", self.serial, kind, size, 0)

    def message(self, kind, body=b"", size=None):
        """The bytes of one message; SIZE replaces the true one."""
        return self.header(kind, len(body) if size is None else size) + body

    def send(self, kind, body=b"", timeout=None):
        self.connection.send(self.message(kind, body), timeout)

    def receive_any(self, timeout=None):
        """The next message from the socket: (type, body)."""
        if self.mini:
            kind, size = struct.unpack("<HI",
                                       self.connection.receive(6, timeout))
        else:
            _, kind, size, _ = struct.unpack(
                "<QHII", self.connection.receive(18, timeout))
        return kind, self.connection.receive(size, timeout)

    def receive(self, timeout=None):
        """The next message; pings are answered and passed over."""
        if self.pending:
            return self.pending.pop(0)
        while True:
            kind, body = self.receive_any(timeout)
            if kind == MSG_PING and self.answer_pings:
                self.send(MSGC_PONG, body[:12])
                continue
            return kind, body

    def expect(self, kind, timeout=None):
        """The body of the next message of that type; others wait."""
        for at, (other, body) in enumerate(self.pending):
            if other == kind:
                del self.pending[at]
                return body
        end = time.monotonic() + seconds(timeout or self.connection.timeout)
        passed = []
        held, self.pending = self.pending, []
        try:
            while True:
                left = end - time.monotonic()
                if left <= 0:
                    raise RigError("no message %d on channel %d/%d, but %s" %
                                   (kind, self.type, self.id,
                                    [p[0] for p in passed]))
                message = self.receive(left)
                if message[0] == kind:
                    return message[1]
                passed.append(message)
        finally:
            self.pending = held + passed

    def silent(self, duration):
        """Does no message come for that long?"""
        return not self.pending and self.connection.silent(duration)

    def wait_closed(self, timeout=None):
        """Until the server closes; messages before that are dropped."""
        return self.connection.wait_closed(timeout)

    # -- ports, usbredir, smart card --

    def send_data(self, data, piece=65536, timeout=None):
        """Raw bytes, in messages of at most PIECE."""
        for at in range(0, len(data), piece):
            self.send(MSGC_DATA, data[at:at + piece], timeout)

    def receive_data(self, count, timeout=None):
        """Exactly that many raw bytes; other messages wait."""
        data = bytearray()
        while len(data) < count:
            data += self.expect(MSG_DATA, timeout)
        if len(data) > count:
            self.pending.insert(0, (MSG_DATA, bytes(data[count:])))
        return bytes(data[:count])

    def send_event(self, event):
        self.send(MSGC_PORT_EVENT, bytes([event]))

    def expect_event(self, event):
        """The port's next event is this one."""
        body = self.expect(MSG_PORT_EVENT)
        assert body == bytes([event]), "event %s, not %d" % (body.hex(), event)

    def wait_event(self, event):
        """Until the port's event is this one; those before are passed."""
        while self.expect(MSG_PORT_EVENT) != bytes([event]):
            pass

    # -- main --

    def agent_start(self, tokens=UNLIMITED):
        self.send(MSGC_MAIN_AGENT_START, struct.pack("<I", tokens))

    def agent_token(self, tokens):
        self.send(MSGC_MAIN_AGENT_TOKEN, struct.pack("<I", tokens))

    def agent_data(self, data):
        self.send(MSGC_MAIN_AGENT_DATA, data)


class Session:
    """A client as a whole: the main channel and what it opens."""

    def __init__(self, address, tls=None, password="", common=COMMON_CAPS,
                 caps=MAIN_CAPS, timeout=10):
        self.address = address
        self.tls = tls
        self.password = password
        self.common = common
        self.timeout = timeout
        self.channels = []
        self.listed = None
        self.main = self._link(MAIN, 0, 0, caps)
        try:
            kind, body = self.main.receive()
            if kind != MSG_MAIN_INIT:
                raise RigError("the first message is %d, not INIT" % kind)
            self.init = Init(body)
        except BaseException:
            self.close()
            raise

    def _link(self, channel_type, channel_id, connection_id, caps=None):
        connection = Connection(self.address, self.tls, self.timeout)
        try:
            channel = connection.link(channel_type, channel_id, connection_id,
                                      self.password, self.common, caps)
        except BaseException:
            connection.close()
            raise
        self.channels.append(channel)
        return channel

    def wait_agent(self):
        """Until the client knows of an agent; the window it has there."""
        if self.init.agent_connected:
            return self.init.agent_tokens
        return struct.unpack("<I", self.main.expect(
            MSG_MAIN_AGENT_CONNECTED_TOKENS))[0]

    def attach(self):
        """Ask for the list of channels; (type, id) pairs."""
        self.main.send(MSGC_MAIN_ATTACH_CHANNELS)
        self.listed = channels_list(self.main.expect(MSG_MAIN_CHANNELS_LIST))
        return self.listed

    def open(self, channel_type, channel_id=0, caps=None):
        """Link another channel of this session."""
        return self._link(channel_type, channel_id, self.init.session_id,
                          caps)

    def open_port(self, name, opened=None, timeout=10):
        """Find the port of that name among the listed ones and link it.

        With OPENED, also wait until the guest has opened or closed it."""
        if self.listed is None:
            self.attach()
        names = []
        for channel_type, channel_id in self.listed:
            if channel_type not in (PORT, WEBDAV):
                continue
            channel = self.open(channel_type, channel_id)
            init = PortInit(channel.expect(MSG_PORT_INIT))
            names.append(init.name)
            if init.name != name:
                self.drop(channel)
                continue
            channel.port_init = init
            now = bool(init.opened)
            while opened is not None and now != opened:
                event = channel.expect(MSG_PORT_EVENT, timeout)[0]
                now = event == EVENT_OPENED
            return channel
        raise RigError("no port named %s, but %s" % (name, names))

    def drop(self, channel):
        """Close one channel."""
        channel.close()
        self.channels.remove(channel)

    def close(self):
        for channel in reversed(self.channels):
            channel.close()
        self.channels = []
