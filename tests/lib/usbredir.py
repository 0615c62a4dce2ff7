# SPDX-License-Identifier: GPL-2.0-or-later
"""usbredir packets, and a redirected USB drive in Python.

The drive is the usb-host's side of the protocol: it says hello, connects as a
mass storage device and answers what the guest asks of it, out of a bytearray.
"""

import os
import struct
import threading

from . import lz4
from . import spiceclient as sc
from .paths import RigError

(HELLO, DEVICE_CONNECT, DEVICE_DISCONNECT, RESET, INTERFACE_INFO, EP_INFO,
 SET_CONFIGURATION, GET_CONFIGURATION, CONFIGURATION_STATUS, SET_ALT_SETTING,
 GET_ALT_SETTING, ALT_SETTING_STATUS, START_ISO_STREAM, STOP_ISO_STREAM,
 ISO_STREAM_STATUS, START_INTERRUPT, STOP_INTERRUPT, INTERRUPT_STATUS,
 ALLOC_STREAMS, FREE_STREAMS, STREAMS_STATUS, CANCEL, FILTER_REJECT,
 FILTER_FILTER, DISCONNECT_ACK, START_BULK_RECEIVING, STOP_BULK_RECEIVING,
 BULK_RECEIVING_STATUS) = range(28)
CONTROL, BULK, ISO, INTERRUPT, BUFFERED_BULK = range(100, 105)

# Capabilities
(CAP_STREAMS, CAP_VERSION, CAP_FILTER, CAP_ACK, CAP_EP_MAX, CAP_ID_64,
 CAP_BULK_32, CAP_RECEIVING) = (1 << bit for bit in range(8))
CAPS = CAP_VERSION | CAP_FILTER | CAP_EP_MAX | CAP_ID_64 | CAP_BULK_32

SUCCESS, CANCELLED, INVAL, IOERROR, STALL = range(5)
NO_EP = 255


def packet(kind, payload=b"", ident=0, size=None, wide=True):
    """One packet; SIZE replaces the true one, WIDE means ids of 64 bits."""
    return struct.pack("<IIQ" if wide else "<III", kind,
                       len(payload) if size is None else size,
                       ident) + payload


def hello(caps=CAPS, version=b"a test"):
    return packet(HELLO, version.ljust(64, b"\0") + struct.pack("<I", caps),
                  wide=False)


def ep_info(eps):
    """EPS: {address: (type, interval, interface, packet size)}."""
    rows = [(NO_EP, 0, 0, 0)] * 32
    rows[0] = rows[16] = (0, 0, 0, 64)
    for address, row in eps.items():
        rows[(address & 0x80) >> 3 | address & 15] = row
    columns = list(zip(*rows))
    return bytes(columns[0]) + bytes(columns[1]) + bytes(columns[2]) + \
        struct.pack("<32H", *columns[3])


def interface_info(*rows):
    """ROWS: (interface, class, subclass, protocol)."""
    rows = list(rows)
    count = len(rows)
    rows += [(0, 0, 0, 0)] * (32 - count)
    return struct.pack("<I", count) + b"".join(bytes(c) for c in zip(*rows))


def bulk(endpoint, data=b"", status=SUCCESS, length=None, stream=0):
    """A bulk packet's payload; LENGTH for one that carries none."""
    length = len(data) if length is None else length
    return struct.pack("<BBHIH", endpoint, status, length & 0xffff, stream,
                       length >> 16) + data


def malformed():
    """Packets that end usb-redir, or QEMU with it: {what is wrong: packet}."""
    connect = struct.pack("<BBBBHHH", 2, 0, 0, 0, 0x46f4, 1, 0x100)
    return {
        "short": packet(DEVICE_CONNECT, connect[:-1]),
        "long": packet(DEVICE_CONNECT, connect + b"x"),
        "unknown type": packet(99),
        "bad length": packet(BULK, bulk(0x81, b"abc", length=4)),
        "wrong endpoint": packet(ISO, struct.pack("<BBH", 0x02, 0, 4) +
                                 b"abcd"),
        "garbage": os.urandom(4) + b"\xff" * 400,
        "huge": packet(BULK, b"", size=0xffffffff),
        "hello again": hello(),
        "filter": packet(FILTER_FILTER, b"-1,-1,-1,-1,1\0"),
        "interrupt": packet(INTERRUPT, struct.pack("<BBH", 0x81, 0, 9) +
                            b"abcd"),
        "tiny bulk packets": packet(EP_INFO, ep_info({0x81: (2, 0, 0, 0)})),
    }


class Stream:
    """Packets out of bytes, as they come."""

    def __init__(self, receive):
        self.receive = receive          # the next bytes, at least one
        self.data = bytearray()
        self.wide = False

    def read(self, count):
        while len(self.data) < count:
            self.data += self.receive()
        out = bytes(self.data[:count])
        del self.data[:count]
        return out

    def packet(self):
        """(type, id, payload)."""
        form = "<IIQ" if self.wide else "<III"
        kind, size, ident = struct.unpack(form,
                                          self.read(struct.calcsize(form)))
        return kind, ident, self.read(size)


DEVICE = struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x200, 0, 0, 0, 64, 0x46f4, 1,
                     0x100, 0, 0, 0, 1)
CONFIGURATION = (struct.pack("<BBHBBBBB", 9, 2, 32, 1, 1, 0, 0x80, 50) +
                 bytes((9, 4, 0, 0, 2, 8, 6, 0x50, 0)) +
                 struct.pack("<BBBBHB", 7, 5, 0x81, 2, 512, 0) +
                 struct.pack("<BBBBHB", 7, 5, 0x02, 2, 512, 0))


class Drive:
    """A USB drive redirected over one usbredir channel."""

    SECTOR = 512

    def __init__(self, session, image, channel=0, connect=True, caps=0):
        self.image = image
        self.session = session
        self.channel = session.open(sc.USBREDIR, channel, caps)
        self.caps = caps
        self.packed = self.unpacked = 0     # messages compressed by LZ4
        self.stream = Stream(self.receive)
        self.read_bytes = self.written_bytes = 0
        self.commands = []
        self.reads = threading.Event()
        self.answer = []                # for the IN endpoint, in order
        self.command = None             # a WRITE whose data is on its way
        self.failure = None
        self.channel.send_data(hello())
        kind, _, payload = self.stream.packet()
        if kind != HELLO:
            raise RigError("usb-redir's first packet is %d" % kind)
        self.peer_caps, = struct.unpack_from("<I", payload, 64)
        self.stream.wide = bool(self.peer_caps & CAP_ID_64)
        if connect:
            self.connect()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def send(self, kind, payload=b"", ident=0):
        data = packet(kind, payload, ident)
        if self.caps & sc.CAP_LZ4 and len(data) > 1000:
            self.packed += 1
            self.channel.send(sc.MSGC_COMPRESSED_DATA,
                              struct.pack("<BI", 1, len(data)) +
                              lz4.literals(data))
        else:
            self.channel.send_data(data)

    def receive(self):
        """The bytes of the next message that has some."""
        while True:
            kind, body = self.channel.receive(30)
            if kind == sc.MSG_DATA:
                return body
            if kind == sc.MSG_COMPRESSED_DATA:
                method, size = struct.unpack_from("<BI", body)
                data = lz4.unpack(body[5:])
                if method != 1 or len(data) != size or len(body) >= size:
                    raise RigError("a compressed message of %d bytes for %d, "
                                   "which has %d" % (len(body), size,
                                                     len(data)))
                self.unpacked += 1
                return data

    def describe(self):
        self.send(INTERFACE_INFO, interface_info((0, 8, 6, 0x50)))
        self.send(EP_INFO, ep_info({0x81: (2, 0, 0, 512),
                                    0x02: (2, 0, 0, 512)}))

    def connect(self):
        self.describe()
        self.send(DEVICE_CONNECT, struct.pack("<BBBBHHH", 2, 0, 0, 0, 0x46f4,
                                              1, 0x100))

    def close(self):
        self.session.close()
        self.thread.join(10)

    def _run(self):
        try:
            while True:
                self._packet(*self.stream.packet())
        except (sc.Closed, OSError, ValueError) as error:
            self.failure = error
        except Exception as error:              # seen by the test
            self.failure = error
            self.commands.append(repr(error))

    def _packet(self, kind, ident, payload):
        if kind == CONTROL:
            self._control(ident, payload)
        elif kind == BULK:
            endpoint, _, low, _, high = struct.unpack_from("<BBHIH", payload)
            if endpoint & 0x80:
                self._bulk_in(ident, low | high << 16)
            else:
                self._bulk_out(ident, payload[10:])
        elif kind == SET_CONFIGURATION:
            self.describe()
            self.send(CONFIGURATION_STATUS, bytes((SUCCESS, payload[0])),
                      ident)
        elif kind == GET_CONFIGURATION:
            self.send(CONFIGURATION_STATUS, bytes((SUCCESS, 1)), ident)
        elif kind == SET_ALT_SETTING:
            self.describe()
            self.send(ALT_SETTING_STATUS, bytes((SUCCESS, *payload)), ident)
        elif kind == CANCEL:
            self.send(BULK, bulk(0x81, b"", CANCELLED), ident)

    def _control(self, ident, payload):
        _, request, kind, _, value, index, length = struct.unpack_from(
            "<BBBBHHH", payload)
        data, status = b"", SUCCESS
        if (kind, request) == (0x80, 6) and value >> 8 in (1, 2):
            data = (DEVICE, CONFIGURATION)[(value >> 8) - 1][:length]
        elif (kind, request) == (0xa1, 0xfe):
            data = b"\0"
        elif kind & 0x80:
            status = STALL
        self.send(CONTROL, struct.pack("<BBBBHHH", kind & 0x80, request, kind,
                                       status, value, index,
                                       len(data)) + data, ident)

    def _bulk_in(self, ident, length):
        data = b""
        if self.answer:
            data, self.answer[0] = (self.answer[0][:length],
                                    self.answer[0][length:])
            if not self.answer[0]:
                self.answer.pop(0)
        self.send(BULK, bulk(0x81, data), ident)

    def _bulk_out(self, ident, data):
        self.send(BULK, bulk(0x02, length=len(data)), ident)
        if self.command:
            at, left, tag = self.command
            self.image[at:at + len(data)] = data
            self.written_bytes += len(data)
            left -= len(data)
            self.command = (at + len(data), left, tag) if left > 0 else None
            if left <= 0:
                self._status(tag)
            return
        signature, tag, length, _, _, size = struct.unpack_from("<IIIBBB",
                                                                data)
        if signature != 0x43425355:
            raise RigError("no command block: %r" % data[:31])
        self._scsi(tag, length, data[15:15 + size])

    def _status(self, tag, failed=0):
        self.answer.append(struct.pack("<IIIB", 0x53425355, tag, 0, failed))

    def _scsi(self, tag, length, command):
        self.commands.append(command[0])
        at = count = 0
        if command[0] in (0x28, 0x2a):
            at, = struct.unpack_from(">I", command, 2)
            count, = struct.unpack_from(">H", command, 7)
            at, count = at * self.SECTOR, count * self.SECTOR
        if command[0] == 0x2a:
            self.command = (at, count, tag)
            return
        data, failed = b"", 0
        if command[0] == 0x12:
            data = (bytes((0, 0x80, 4, 2, 31, 0, 0, 0)) + b"A test  " +
                    b"Scripted drive  " + b"1.0 ")
        elif command[0] == 0x25:
            data = struct.pack(">II", len(self.image) // self.SECTOR - 1,
                               self.SECTOR)
        elif command[0] == 0x28:
            data = bytes(self.image[at:at + count])
            self.read_bytes += count
            self.reads.set()
        elif command[0] == 0x03:
            data = bytes((0x70, 0, 5)) + bytes(15)
        elif command[0] != 0:
            failed = 1
        data = data[:length]
        if data:
            self.answer.append(data)
        elif length:
            self.answer.append(bytes(min(length, 4)))
        self._status(tag, failed)


def boot_image(content, writes_to=None):
    """A drive whose boot sector writes CONTENT, which comes behind it, to the
    port of isa-debugcon; then its last 32 KiB back to the sector WRITES_TO."""
    block = 64 * 512
    count = len(content) // block
    tail = b""
    if writes_to is not None:
        tail = bytes.fromhex("c706887c") + struct.pack("<H", writes_to) + \
            bytes.fromhex("be807cb80043cd13")
    tail += bytes.fromhex("b021e6e9")           # "!"
    body = bytes.fromhex(
        "1e52b800108ed831f6b90080bae900fcf36e5a1f"      # rep outsb
        "8306887c40ff0e907c75d8")
    code = bytes.fromhex("31c08ed8"             # no segment
                         "be807cb442cd13") + \
        bytes((0x72, len(body + tail))) + body + tail + \
        bytes.fromhex("f4ebfd")                 # halt
    sector = code.ljust(0x80, b"\xf4") + struct.pack(
        "<BBHHHQH", 16, 0, 64, 0, 0x1000, 1, count)
    sector = sector.ljust(510, b"\0") + b"\x55\xaa"
    # A firmware takes a drive of a few sectors for a diskette.
    return bytearray((sector + content).ljust(8 << 20, b"\0"))
