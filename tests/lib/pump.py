# SPDX-License-Identifier: GPL-2.0-or-later
"""The pump: a frontend of tests/qemu/pump that stands where a guest would.

It needs no CPU and no guest, so a test is ready in a moment, and what it
writes and takes is set exactly.  Streams carry a pattern that tells of every
byte where it belongs; pattern() makes it here too.
"""

import functools
import time

from .paths import RigError
from .process import wait_until

PERIOD = 262139


@functools.lru_cache(maxsize=None)
def _table():
    x = 0x5f10a1d5c0ffee11
    mask = (1 << 64) - 1
    out = bytearray()
    for _ in range(PERIOD):
        x ^= x << 13 & mask
        x ^= x >> 7
        x ^= x << 17 & mask
        out.append(x >> 32 & 0xff)
    return bytes(out)


def pattern(size, offset=0):
    """That part of the stream that every pump writes and expects."""
    offset %= PERIOD
    table = _table()
    return (table * ((offset + size) // PERIOD + 1))[offset:offset + size]


def pump_args(chardev, name="pump", **settings):
    """Options for a pump on a chardev."""
    words = ["spiceflow-pump", "id=" + name, "chardev=" + chardev]
    words += ["%s=%s" % (key.replace("_", "-"),
                         {True: "on", False: "off"}.get(value, value))
              for key, value in settings.items()]
    return ["-device", ",".join(words)]


class Pump:
    """One pump in a running QEMU."""

    def __init__(self, qemu, name="pump"):
        self.qemu = qemu
        self.path = "/machine/peripheral/" + name

    def start(self, mode, **settings):
        """Open the frontend's side and begin; nothing is waited for."""
        if self.qemu.get(self.path, "running"):
            self.qemu.set(self.path, "running", False)
        settings = {"mode": mode, "verify": True, **settings}
        for key, value in settings.items():
            self.qemu.set(self.path, key.replace("_", "-"), value)
        self.qemu.set(self.path, "running", True)

    def stop(self):
        """Stop and close the frontend's side."""
        self.qemu.set(self.path, "running", False)

    def results(self):
        found = self.qemu.get(self.path, "results")
        if found["error"]:
            raise RigError("pump: " + found["error"])
        return found

    def wait(self, timeout=20):
        """Until it has done its work; the results."""
        def done():
            found = self.results()
            return found if found["done"] else None
        return wait_until(done, timeout, "the end of the pump's work "
                          "(%s)" % self.progress())

    def progress(self):
        found = self.qemu.get(self.path, "results")
        return "read %d, written %d" % (found["bytes-read"],
                                        found["bytes-written"])

    def opened(self):
        """Does the chardev say that its other end is there?"""
        return self.qemu.get(self.path, "results")["opened"]

    def settle(self, field, still=0.4, timeout=20):
        """A result once it has stopped changing for a while."""
        last, since = -1, time.monotonic()

        def steady():
            nonlocal last, since
            now = self.results()[field]
            if now != last:
                last, since = now, time.monotonic()
            return time.monotonic() - since >= still

        wait_until(steady, timeout, "an end of changes of " + field)
        return last
