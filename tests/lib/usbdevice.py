# SPDX-License-Identifier: GPL-2.0-or-later
"""The USB device on libusbredirparser (tests/bench/usb.c), as one process, and
what passed by on its way, as bytes."""

import json
import os
import select
import struct
import subprocess
import time

from . import paths
from .paths import RigError, seconds
from .process import Process, wait_until


class UsbDevice:
    """A device that is plugged in when usb-redir has said hello."""

    def __init__(self, address, *options, folder, name="usb", wire="spice"):
        self.prefix = os.path.join(folder, name)
        self.process = Process(
            [paths.usb_program(), "--connect", address, "--wire", wire,
             "--capture", self.prefix, *options],
            log=self.prefix + ".log", stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        self.buffer = b""
        try:
            self.expect("connected")
        except RigError:
            self.process.end()
            raise

    def expect(self, event, timeout=20):
        """What it says next."""
        end = time.monotonic() + seconds(timeout)
        stream = self.process.popen.stdout
        while b"\n" not in self.buffer:
            left = max(0, end - time.monotonic())
            if not select.select([stream], [], [], left)[0]:
                raise RigError("the USB device said nothing for %g s" %
                               timeout)
            piece = os.read(stream.fileno(), 65536)
            if not piece:
                raise RigError("the USB device has ended: " +
                               self.process.log()[-500:])
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\n", 1)
        answer = json.loads(line)
        if answer["event"] != event:
            raise RigError("the USB device said %s, not %s" % (answer, event))
        return answer

    def send(self, line):
        self.process.popen.stdin.write(line.encode() + b"\n")
        self.process.popen.stdin.flush()

    def status(self):
        self.send("status")
        return self.expect("status")

    def unplug(self):
        self.send("unplug")

    def plug(self):
        self.send("plug")

    def captured(self):
        """What it has sent and got, (to guest, to client)."""
        return tuple(read(self.prefix + suffix)
                     for suffix in (".to-guest", ".to-client"))

    def leave(self):
        """As a client that quits."""
        self.process.popen.stdin.close()
        status = self.process.wait()
        if status:
            raise RigError("the USB device ended with status %d: %s" %
                           (status, self.process.log()[-500:]))

    def close(self):
        if self.process.running():
            self.process.send_signal(18)        # one that was stopped
        self.process.end()


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Tap:
    """What passes between a chardev and its usb-redir, both ways."""

    def __init__(self, rig, number=0):
        self.chardev = "u%d" % number
        self.to_guest = rig.path("tap%d.to-guest" % number)
        self.to_client = rig.path("tap%d.to-client" % number)

    def add_to(self, args):
        """Options with what is needed added."""
        return [word + ",logfile=" + self.to_client
                if ",id=%s," % self.chardev in word else word
                for word in args] + [
            "-device", "spiceflow-tap,of=%s,path=%s" %
            (self.chardev, self.to_guest)]

    def sizes(self):
        return (os.path.getsize(self.to_guest),
                os.path.getsize(self.to_client))

    def since(self, before):
        """What has passed since then, (to guest, to client)."""
        return (read(self.to_guest)[before[0]:],
                read(self.to_client)[before[1]:])

    def same_as(self, captured, before=(0, 0)):
        """What has passed since BEFORE is CAPTURED, byte by byte; what the
        client sent last may still be on its way."""
        def whole():
            return self.sizes()[0] - before[0] >= len(captured[0])

        wait_until(whole, 10, "everything has arrived at usb-redir")
        here = self.since(before)
        for way, mine, theirs in zip(("to guest", "to client"), here,
                                     captured):
            if mine != theirs:
                at = next((i for i, pair in enumerate(zip(mine, theirs))
                           if pair[0] != pair[1]), min(len(mine),
                                                       len(theirs)))
                raise AssertionError(
                    "%s: usb-redir has %d bytes, the client %d; they differ "
                    "from %d" % (way, len(mine), len(theirs), at))
        return tuple(map(len, here))


def counted(stream):
    """How many packets of each type are in a usbredir stream, and the largest
    length of each; ids have 64 bits after the hello."""
    counts, largest = {}, {}
    at, form = 0, "<III"
    while at + struct.calcsize(form) <= len(stream):
        kind, size = struct.unpack_from(form, stream, at)[:2]
        at += struct.calcsize(form) + size
        form = "<IIQ"
        counts[kind] = counts.get(kind, 0) + 1
        largest[kind] = max(largest.get(kind, 0), size)
    if at != len(stream):
        raise AssertionError("the last packet ends at %d of %d" %
                             (at, len(stream)))
    return counts, largest
