# SPDX-License-Identifier: GPL-2.0-or-later
"""Smart-card (VSC) messages: a client that speaks them, and a device.

On a SPICE channel their headers are little-endian, toward the device
big-endian; an error's code is big-endian on both.
"""

import struct

from . import agentguest
from . import spiceclient as sc

(INIT, ERROR, READER_ADD, READER_REMOVE, ATR, CARD_REMOVE, APDU, FLUSH,
 FLUSH_COMPLETE) = range(1, 10)
SUCCESS, GENERAL_ERROR, NO_MORE_READERS = 0, 1, 2
NO_READER = 0xffffffff
HEADER = 12
# The device's input buffer; what is longer with its header is refused.
LARGEST = 65536 - HEADER

# What the guest's APDUs are answered with when their client has left.
GIVEN_UP = bytes.fromhex("6f00")

# T=0, four historical bytes
AN_ATR = bytes.fromhex("3b0453464c57")


def message(order, kind, reader=0, payload=b"", size=None):
    """One message; SIZE replaces the true one."""
    return struct.pack(order + "III", kind, reader,
                       len(payload) if size is None else size) + payload


def error(code):
    """The payload of an error message."""
    return struct.pack(">I", code)


class Card:
    """A client's smart-card channel."""

    def __init__(self, session):
        self.session = session
        self.channel = session.open(sc.SMARTCARD)

    def say(self, kind, reader=0, payload=b"", size=None):
        self.channel.send(sc.MSGC_DATA,
                          message("<", kind, reader, payload, size))

    def take(self, timeout=None):
        """The next message: (type, reader, payload)."""
        body = self.channel.expect(sc.MSG_DATA, timeout)
        kind, reader, size = struct.unpack_from("<III", body)
        assert len(body) == HEADER + size, body[:16]
        return kind, reader, body[HEADER:]

    def add(self, name=b"a reader\0"):
        """Add a reader; its id, or the error's code where there is none."""
        self.say(READER_ADD, NO_READER, name)
        return self.take_answer()

    def take_answer(self):
        """The next message, which must be an answer: (reader, code)."""
        kind, reader, payload = self.take()
        assert kind == ERROR, (kind, reader, payload)
        return reader, struct.unpack(">I", payload)[0]

    def silent(self, duration=0.2):
        return self.channel.silent(duration)


class Device(agentguest.FarEnd):
    """The device's end of a reader, over the bridge."""

    def say(self, kind, payload=b"", reader=0, size=None):
        self.write(message(">", kind, reader, payload, size))

    def take(self, timeout=None):
        """The next message: (type, reader, payload)."""
        kind, reader, size = struct.unpack(">III", self.read(HEADER, timeout))
        return kind, reader, self.read(size, timeout) if size else b""

    def answer(self, kind, code=SUCCESS):
        """Take a command of that type and answer it; the command."""
        command = self.take()
        assert command[0] == kind, command
        self.say(ERROR, error(code))
        return command

    def removed(self, apdus=0):
        """Be removed, after so many APDUs that no client has answered."""
        for _ in range(apdus):
            assert self.take() == (APDU, 0, GIVEN_UP)
        return self.answer(READER_REMOVE)
