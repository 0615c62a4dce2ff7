# SPDX-License-Identifier: GPL-2.0-or-later
"""A scripted guest agent: VDI chunks and agent messages over the bridge.

The QEMU of the test has a spiceflow-bridge between the vdagent chardev and a
socket; who connects to the socket is the agent that opened its port.
"""

import fcntl
import socket
import struct
import termios

from .paths import RigError, seconds
from .process import wait_until

PORT_CLIENT, PORT_SERVER = 1, 2

(MOUSE_STATE, MONITORS_CONFIG, REPLY, CLIPBOARD, DISPLAY_CONFIG,
 ANNOUNCE_CAPABILITIES, CLIPBOARD_GRAB, CLIPBOARD_REQUEST, CLIPBOARD_RELEASE,
 FILE_XFER_START, FILE_XFER_STATUS, FILE_XFER_DATA, CLIENT_DISCONNECTED,
 MAX_CLIPBOARD, AUDIO_VOLUME_SYNC, GRAPHICS_DEVICE_INFO) = range(1, 17)

# In messages of this type tests send what nobody looks into.
DATA = AUDIO_VOLUME_SYNC

(CAP_MOUSE_STATE, CAP_MONITORS_CONFIG, CAP_REPLY, CAP_CLIPBOARD,
 CAP_DISPLAY_CONFIG, CAP_BY_DEMAND, CAP_SELECTION) = range(7)
CAP_MAX_CLIPBOARD, CAP_XFER_DISABLED = 10, 13

CAPS = 1 << CAP_BY_DEMAND | 1 << CAP_SELECTION | 1 << CAP_REPLY | \
    1 << CAP_MONITORS_CONFIG | 1 << CAP_MAX_CLIPBOARD


def message(kind, payload=b"", opaque=0, size=None, protocol=1):
    """One agent message, header included; SIZE replaces the true one."""
    return struct.pack("<IIQI", protocol, kind, opaque,
                       len(payload) if size is None else size) + payload


def chunk(data, port=PORT_CLIENT, size=None):
    return struct.pack("<II", port, len(data) if size is None else size) + data


def chunks(data, piece=2048, port=PORT_CLIENT):
    """The chunks of one message, as an agent cuts it."""
    return b"".join(chunk(part, port) for part in pieces(data, piece))


def pieces(data, size=2048):
    """A message as it is cut, by agents and clients alike."""
    return [data[at:at + size] for at in range(0, len(data), size)]


def announce(caps=CAPS, request=0):
    return message(ANNOUNCE_CAPABILITIES, struct.pack("<II", request, caps))


# How the server tells the guest that a client is gone.
GONE = chunk(message(CLIENT_DISCONNECTED), PORT_SERVER)


def bridge_args(path, name="vdagent", chardev="agent", device="bridge",
                options=""):
    """QEMU's arguments for a chardev whose guest is a socket at PATH."""
    return ("-chardev", "spiceflow,id=%s,name=%s%s" % (chardev, name, options),
            "-chardev", "socket,id=%s-far,path=%s,server=on,wait=off" %
            (chardev, path),
            "-device", "spiceflow-bridge,id=%s,chardev=%s,far=%s-far" %
            (device, chardev, chardev))


class FarEnd:
    """The guest's side of a bridge: a byte stream."""

    def __init__(self, path, timeout=10):
        self.timeout = timeout
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)

    def close(self):
        self.socket.close()

    def write(self, data):
        self.socket.settimeout(seconds(self.timeout))
        self.socket.sendall(data)

    def wait_read(self, timeout=10):
        """Until QEMU has read all that was written."""
        wait_until(lambda: not self.unread(), timeout,
                   "QEMU has read what the guest wrote")

    def unread(self):
        """Memory of what was written and not read by QEMU, bytes."""
        return struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ,
                                              bytes(4)))[0]

    def offer(self, data, patience=0.3):
        """Write what is taken; returns how many bytes were."""
        done = 0
        self.socket.settimeout(seconds(patience))
        try:
            while done < len(data):
                done += self.socket.send(data[done:done + 65536])
        except socket.timeout:
            pass
        return done

    def fill(self, data, full, patience=0.3):
        """Write until FULL() says that no more is taken, which must come
        before the end of DATA; returns how much was written."""
        done = self.offer(data, patience)
        while not full():
            if done == len(data):
                raise RigError("all of the %d bytes were taken" % done)
            done += self.offer(data[done:], patience)
        return done

    def read(self, count, timeout=None):
        data = bytearray()
        self.socket.settimeout(seconds(timeout or self.timeout))
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise RigError("the bridge hung up after %d of %d bytes" %
                               (len(data), count))
            data += part
        return bytes(data)

    def silent(self, duration=0.2):
        self.socket.settimeout(seconds(duration))
        try:
            data = self.socket.recv(1, socket.MSG_PEEK)
        except socket.timeout:
            return True
        return data == b""


class Agent(FarEnd):
    """The same, in chunks and messages."""

    def __init__(self, path, timeout=10):
        super().__init__(path, timeout)
        self.streams = {PORT_CLIENT: bytearray(), PORT_SERVER: bytearray()}
        self.chunks = []        # (port, size) of each

    def say(self, kind, payload=b"", **options):
        self.write(chunks(message(kind, payload, **options)))

    def announce(self, caps=CAPS, request=0):
        self.write(chunks(announce(caps, request)))

    def read_chunk(self, timeout=None):
        port, size = struct.unpack("<II", self.read(8, timeout))
        data = self.read(size, timeout)
        self.chunks.append((port, size))
        self.streams[port] += data
        return port, data

    def take_message(self, port=PORT_CLIENT, timeout=None):
        """The next complete message on a port: (type, payload)."""
        stream = self.streams[port]
        while True:
            if len(stream) >= 20:
                protocol, kind, _, size = struct.unpack_from("<IIQI", stream)
                if protocol != 1:
                    raise RigError("agent protocol %d" % protocol)
                if len(stream) >= 20 + size:
                    payload = bytes(stream[20:20 + size])
                    del stream[:20 + size]
                    return kind, payload
            self.read_chunk(timeout)

    def expect(self, kind, port=PORT_CLIENT, timeout=None):
        """The payload of the next message of that type; others are passed."""
        while True:
            got, payload = self.take_message(port, timeout)
            if got == kind:
                return payload
