# SPDX-License-Identifier: GPL-2.0-or-later
"""The client on libspice-client-glib (tests/client), as one process."""

import os
import re
import select
import shlex
import signal
import subprocess
import time

from . import paths
from .guest import fields
from .paths import RigError, seconds
from .process import Process


class ClientFailed(Exception):
    """The client answered a command with "failed"."""


class SfClient:
    """One running client; events are kept until somebody asks for them."""

    def __init__(self, uri, *options, folder, name="sfclient"):
        self.log_path = os.path.join(folder, name + ".log")
        env = dict(os.environ, GSETTINGS_BACKEND="memory")
        env.pop("DISPLAY", None)
        self.process = Process([paths.client_program(), *options, uri],
                               log=self.log_path, env=env,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.buffer = b""
        self.lines = []         # everything it has said
        self.seen = 0           # how much of that expect() has passed

    def send(self, *words):
        """Give a command; words are quoted here."""
        line = " ".join(shlex.quote(str(word)) for word in words)
        try:
            self.process.popen.stdin.write(line.encode() + b"\n")
            self.process.popen.stdin.flush()
        except BrokenPipeError:
            raise RigError("the client has ended: " + self.tail()) from None

    def tail(self):
        """The last things it said, for messages."""
        return " | ".join(self.lines[-8:]) + self.process.log()[-500:]

    def _receive(self, timeout):
        stream = self.process.popen.stdout
        if not select.select([stream], [], [], max(timeout, 0))[0]:
            return False
        piece = os.read(stream.fileno(), 65536)
        if not piece:
            raise RigError("the client has ended: " + self.tail())
        self.buffer += piece
        *lines, self.buffer = self.buffer.split(b"\n")
        self.lines += [line.decode(errors="replace") for line in lines]
        return True

    def poll(self):
        """Take what it has said already."""
        while self._receive(0):
            pass

    def skip(self):
        """Pass over what it has said so far."""
        self.poll()
        self.seen = len(self.lines)

    def expect(self, pattern, timeout=20, fail=None):
        """The next line that matches; lines before it are passed over.

        A line that matches FAIL raises ClientFailed."""
        end = time.monotonic() + seconds(timeout)
        start = self.seen
        while True:
            while self.seen < len(self.lines):
                line = self.lines[self.seen]
                self.seen += 1
                if fail and re.search(fail, line):
                    raise ClientFailed(line)
                match = re.search(pattern, line)
                if match:
                    return match
            left = end - time.monotonic()
            if left <= 0:
                raise RigError("the client did not say '%s' within %g s, but:"
                               " %s" % (pattern, timeout,
                                        " | ".join(self.lines[start:][-12:])))
            self._receive(left)

    def find(self, pattern, timeout=20):
        """A line that matches, said at any time so far or to come."""
        end = time.monotonic() + seconds(timeout)
        looked = 0
        while True:
            for line in self.lines[looked:]:
                looked += 1
                match = re.search(pattern, line)
                if match:
                    return match
            left = end - time.monotonic()
            if left <= 0:
                raise RigError("the client never said '%s', but: %s" %
                               (pattern, " | ".join(self.lines[-12:])))
            self._receive(left)

    def wait_port(self, name, opened=True, timeout=20):
        """Until the last news of a port is that it is open, or closed."""
        self._wait_port_news(name, timeout, "open" if opened else "closed",
                             lambda news: news.endswith("01"[opened]))

    def wait_port_used(self, name, timeout=20):
        """Until a port has been open, and closed again.

        The guest's close passes what still lies in its ring, and the library
        takes data for an opening, so that may not be the last news."""
        self._wait_port_news(name, timeout, "open and closed",
                             lambda news: "10" in news)

    def _wait_port_news(self, name, timeout, what, good):
        pattern = re.compile(r"^port-opened %s (\d)$" % re.escape(name))
        end = time.monotonic() + seconds(timeout)
        while True:
            news = "".join(m.group(1) for m in map(pattern.match, self.lines)
                           if m)
            if good(news):
                return
            left = end - time.monotonic()
            if left <= 0:
                raise RigError("port %s is not %s after %g s: %s" % (
                    name, what, timeout, " | ".join(self.lines[-12:])))
            self._receive(left)

    def outcome(self, *words, timeout=60):
        """Wait for "done WORDS..."; its fields.  "failed" raises."""
        text = re.escape(" ".join(str(word) for word in words))
        match = self.expect(r"^done %s\b.*" % text, timeout,
                            r"^failed (%s\b|command|sha256)" % text)
        return fields(match.group(0))

    def fails(self, *words, timeout=60):
        """Wait for "failed WORDS..."; "done" is an error."""
        try:
            self.outcome(*words, timeout=timeout)
        except ClientFailed:
            return
        raise AssertionError("'%s' ended well" % " ".join(words))

    def progress(self):
        """Numbers of the last progress line so far, or None."""
        self.poll()
        for line in reversed(self.lines):
            if line.startswith("progress "):
                return tuple(int(word) for word in line.split()[-2:])
        return None

    def pause(self):
        """Stop the process: a client that reads nothing any more."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def quit(self, timeout=10):
        """End it in the orderly way."""
        self.send("quit")
        status = self.process.wait(timeout)
        if status != 0:
            raise RigError("the client quit with status %d: %s" %
                           (status, self.tail()))

    def wait_end(self, timeout=20):
        """Exit status of a client that ends by itself, its lines taken."""
        end = time.monotonic() + seconds(timeout)
        try:
            while True:
                left = end - time.monotonic()
                if left <= 0:
                    raise RigError("the client still runs after %g s: %s" %
                                   (timeout, self.tail()))
                stream = self.process.popen.stdout
                if select.select([stream], [], [], left)[0]:
                    piece = os.read(stream.fileno(), 65536)
                    if not piece:
                        break
                    self.buffer += piece
        finally:
            *lines, self.buffer = self.buffer.split(b"\n")
            self.lines += [line.decode(errors="replace") for line in lines]
        return self.process.wait(max(1, end - time.monotonic()))

    def close(self):
        if self.process.running():
            self.process.send_signal(signal.SIGCONT)
        self.process.end()
