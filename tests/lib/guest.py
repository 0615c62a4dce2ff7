# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in the Linux guest, through its second serial port.

The other end is tests/guest/guestd.c, which says how the lines look.  Several
commands may run at once; their output is sorted out here.
"""

import base64
import re
import struct
import time

from .paths import RigError, seconds


class GuestError(Exception):
    """A command in the guest ended with an error."""


def escape(text):
    return "".join(c if " " <= c <= "~" and c != "%" else
                   "".join("%%%02x" % b for b in c.encode())
                   for c in text)


def unescape(text):
    raw = re.sub(rb"%([0-9a-f]{2})",
                 lambda m: bytes([int(m.group(1), 16)]), text.encode())
    return raw.decode(errors="replace")


def fields(line):
    """The key=value words of a line, numbers as numbers."""
    found = {}
    for word in line.split():
        key, sign, value = word.partition("=")
        if not sign:
            continue
        try:
            found[key] = int(value)
        except ValueError:
            try:
                found[key] = float(value)
            except ValueError:
                found[key] = value
    return found


def words(count, seed=0, first=0):
    """Words as porttool and the client's ports generate and check them."""
    return struct.pack("<%dQ" % count, *(seed << 48 | i for i in range(
        first, first + count)))


class Job:
    """One command in the guest, running or ended."""

    def __init__(self, guest, number, command):
        self.guest = guest
        self.number = number
        self.command = command
        self.output = ""
        self.status = None
        self._seen = 0          # of the output, by line()

    def wait(self, timeout=30, check=True):
        """Wait for its end; the output.  A failure raises unless not CHECK."""
        self.guest.pump(lambda: self.status is not None, timeout,
                        lambda: "'%s' to end; so far: %s" %
                        (self.command, self.output[-500:]))
        if check and self.status:
            raise GuestError("'%s' ended with status %d: %s" %
                             (self.command, self.status,
                              self.output.strip()))
        return self.output

    def line(self, pattern, timeout=30):
        """The next whole line of output that matches; the match."""
        found = []

        def look():
            while True:
                end = self.output.find("\n", self._seen)
                if end < 0:
                    break
                text = self.output[self._seen:end]
                self._seen = end + 1
                match = re.search(pattern, text)
                if match:
                    found.append(match)
                    return True
            return self.status is not None

        self.guest.pump(look, timeout, lambda: "a line '%s' of '%s'" %
                        (pattern, self.command))
        if not found:
            raise GuestError("'%s' ended with status %d and no line '%s': %s" %
                             (self.command, self.status, pattern,
                              self.output.strip()))
        return found[0]

    def result(self, timeout=30):
        """Fields of the "ok" line that porttool and its like end with."""
        output = self.wait(timeout, check=False).strip().splitlines()
        last = output[-1] if output else ""
        if self.status or not last.startswith("ok"):
            raise GuestError("'%s': %s" % (self.command,
                                           last or "no output"))
        return fields(last)

    def signal(self, number):
        """To all its processes."""
        self.guest.send("%d kill %d" % (self.number, number))

    def end(self):
        """Have it end, if it has not, and see that it does."""
        self.signal(15)
        self.wait(check=False)

    def running(self):
        self.guest.poll()
        return self.status is None


class Guest:
    """The guest of a QEMU that was started with one."""

    def __init__(self, qemu):
        self.qemu = qemu
        self.sock = qemu.control
        self.buffer = b""
        self.jobs = {}
        self.last = 0
        self.ready = False
        self.resetting = False
        self.strangers = False  # commands that somebody else has given run
        self.cut = False        # the next line may lack its beginning

    def send(self, line):
        data = line.encode() + b"\n"
        if len(data) > 3500:
            raise RigError("a command of %d bytes is too long for the guest's"
                           " serial line" % len(data))
        self.sock.settimeout(seconds(10))
        self.sock.sendall(data)

    def _line(self, line):
        cut, self.cut = self.cut, False
        if line.endswith("ready") and self.resetting:
            self.resetting = False      # what was cut off stands before it
            self.ready = True
            return
        if line == "ready":
            self.ready = True
            return
        if self.resetting:
            return
        number, _, rest = line.partition(" ")
        word, _, text = rest.partition(" ")
        job = self.jobs.get(int(number)) if number.isdigit() else None
        if job and word == "out":
            job.output += unescape(text)
        elif job and word == "end":
            job.status = int(text)
            del self.jobs[job.number]
        elif line and not (self.strangers or cut):
            raise RigError("the guest said: %s" % line)

    def _receive(self, timeout):
        """Take what is there, at most after TIMEOUT; false if nothing."""
        self.sock.settimeout(timeout)
        try:
            piece = self.sock.recv(65536)
        except (TimeoutError, BlockingIOError):
            return False
        except ConnectionError:
            piece = b""
        if not piece:
            raise RigError("the guest's serial line closed")
        self.buffer += piece
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            self._line(line.decode(errors="replace").strip("\r"))
        return True

    def poll(self):
        """Take what is there already."""
        while self._receive(0):
            pass

    def pump(self, done, timeout, what):
        """Receive until DONE() holds."""
        end = time.monotonic() + seconds(timeout)
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                raise RigError("waited %g s for %s" % (timeout, what()))
            self._receive(left)

    def wait_ready(self, timeout=40):
        """Until the guest takes commands."""
        self.pump(lambda: self.ready, timeout, lambda:
                  "the guest to boot; its console ends with: " +
                  self.qemu.console()[-300:])

    def start(self, command):
        """Start a command; several may run at once."""
        self.last += 1
        job = Job(self, self.last, command)
        self.jobs[self.last] = job
        self.send("%d run %s" % (self.last, escape(command)))
        return job

    def run(self, command, timeout=30, check=True):
        """Run a command to its end; its output, without the last line end."""
        return self.start(command).wait(timeout, check).rstrip("\n")

    def hold(self, port):
        """Open a virtio port, and do no more with it until the job's end()."""
        job = self.start("porttool hold %s 600" % port)
        job.line("mode=hold")
        return job

    def forget(self, job):
        """A job is not there any more: the guest is one of another time."""
        self.poll()
        self.jobs.pop(job.number, None)

    def revive(self, job):
        """A job that has ended runs: the guest is one of an earlier time."""
        job.status = None
        job.output = ""
        job._seen = 0
        self.jobs[job.number] = job

    def end_jobs(self):
        """Kill what still runs here."""
        for job in list(self.jobs.values()):
            job.signal(9)
            job.wait(10, check=False)

    def reset(self, timeout=60):
        """Push the reset button, and wait until it is up again.

        Commands that ran are gone with their output."""
        self.poll()
        self.begins_anew()
        self.qemu.command("system_reset")
        self.wait_ready(timeout)

    def begins_anew(self):
        """It is about to boot: commands that ran are gone with their output,
        and what it says before it is ready is of no account."""
        for job in self.jobs.values():
            job.status = 129
        self.jobs = {}
        self.ready = False
        self.resetting = True

    def read_file(self, path):
        """The content of a small file there."""
        return bytes.fromhex(self.run("od -An -v -tx1 %s | tr -d ' \\n'" %
                                      path))

    def write_file(self, path, data):
        """Put a small file there; a large one should go another way."""
        self.run(": > %s" % path)
        for at in range(0, len(data), 1500):
            text = base64.b64encode(data[at:at + 1500]).decode()
            self.run("echo %s | base64 -d >> %s" % (text, path))

    def adopt(self, qemu, cut=False):
        """The guest has moved to another QEMU: go on talking to it there.

        A line may have begun here and end there; with CUT what was said
        before we listened is lost."""
        if cut:
            self.buffer = b""
        else:
            self.poll()
        self.cut = cut
        self.qemu = qemu
        self.sock = qemu.control

    @classmethod
    def twin(cls, guest, qemu):
        """What was saved of GUEST lives in QEMU too: talk to that one.

        What it has to say of the first one's commands is passed over."""
        twin = cls(qemu)
        twin.ready = True
        twin.strangers = True
        twin.last = guest.last + 1000
        return twin
