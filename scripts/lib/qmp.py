# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP, the protocol that QEMU is asked with.

Qmp speaks it over a socket that is there already.  monitor() opens what a
user names: a UNIX socket's path, HOST:PORT, or libvirt:DOMAIN, where virsh is
asked, because libvirt keeps the socket to itself.  QEMU serves one client per
socket and lets a second one wait without a word, so silence means "busy".
"""

import json
import os
import re
import socket
import subprocess
import time

GREETING = 3            # seconds that QEMU has to greet us


class Lost(Exception):
    """There is no connection, or not any more; the text says why."""


class Refused(Exception):
    """QEMU answered a command with an error."""

    def __init__(self, error):
        super().__init__("%s: %s" % (error["class"], error["desc"]))
        self.kind = error["class"]
        self.desc = error["desc"]


class Qmp:
    """The protocol on a connected socket."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        self.events = []
        self.next_id = 0
        self.version = None

    def close(self):
        self.sock.close()

    def fileno(self):
        return self.sock.fileno()

    def why_ended(self):
        """Text for an end of file."""
        return "QEMU has closed the connection"

    def message(self, end):
        """The next message; TimeoutError when none has come at END."""
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            try:
                piece = self.sock.recv(65536)
            except ConnectionError:
                piece = b""
            if not piece:
                raise Lost(self.why_ended())
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def greet(self, timeout):
        """Take QEMU's greeting, and answer it."""
        greeting = self.message(time.monotonic() + timeout)
        version = greeting["QMP"]["version"]["qemu"]
        self.version = "%(major)d.%(minor)d.%(micro)d" % version
        self.execute("qmp_capabilities")

    def execute(self, name, arguments=None, timeout=10):
        """Run a command and return what it returns."""
        self.next_id += 1
        request = {"execute": name, "id": self.next_id}
        if arguments:
            request["arguments"] = arguments
        try:
            self.sock.settimeout(timeout)
            self.sock.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise Lost(self.why_ended()) from None
        end = time.monotonic() + timeout
        while True:
            try:
                message = self.message(end)
            except TimeoutError:
                raise Lost("%s got no answer within %g s" %
                           (name, timeout)) from None
            if "event" in message:
                self.events.append(message)
            elif message.get("id") == self.next_id:
                if "error" in message:
                    raise Refused(message["error"])
                return message["return"]

    def next_event(self, timeout=None):
        """The next event; None when none has come after TIMEOUT."""
        end = time.monotonic() + (1e9 if timeout is None else timeout)
        while not self.events:
            try:
                message = self.message(end)
            except TimeoutError:
                return None
            if "event" in message:
                self.events.append(message)
        return self.events.pop(0)


class Virsh:
    """The same through libvirt; libvirt's connection is virsh's default."""

    EVENT = re.compile(r"event (\S+) at (\d+)\.(\d+) for domain '.*?':(.*)")

    def __init__(self, domain):
        self.domain = domain
        self.listener = None
        self.execute("query-status")
        version = self.execute("query-version")["qemu"]
        self.version = "%(major)d.%(minor)d.%(micro)d" % version

    def close(self):
        if self.listener:
            self.listener.terminate()
            self.listener.communicate()
            self.listener = None

    @staticmethod
    def words(text):
        """What virsh says, line by line."""
        return [re.sub(r"^error: ", "", line) for line in text.splitlines()
                if line.strip()]

    def execute(self, name, arguments=None, timeout=10):
        request = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        try:
            done = subprocess.run(
                ["virsh", "qemu-monitor-command", self.domain,
                 json.dumps(request)], stdin=subprocess.DEVNULL, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                timeout=timeout)
        except FileNotFoundError:
            raise Lost("virsh is not installed") from None
        except subprocess.TimeoutExpired:
            raise Lost("virsh did not answer within %g s" % timeout) from None
        if done.returncode:
            said = self.words(done.stderr)
            raise Lost(said[0] if said else
                       "virsh ends with status %d" % done.returncode)
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["return"]

    def next_event(self, timeout=None):
        """The next event; waits for as long as it takes."""
        if not self.listener:
            self.listener = subprocess.Popen(
                ["virsh", "qemu-monitor-event", self.domain, "--loop"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True)
        for line in self.listener.stdout:
            found = self.EVENT.match(line)
            if found:
                name, seconds, micros, data = found.groups()
                return {"event": name,
                        "data": json.loads(data) if data.strip() else {},
                        "timestamp": {"seconds": int(seconds),
                                      "microseconds": int(micros)}}
        said = self.words(self.listener.stderr.read())
        self.close()
        raise Lost(said[0] if said else "the domain is gone")


def _socket(address):
    """A connected socket for what the user named."""
    text = re.sub(r"^(unix|tcp):", "", address)
    network = re.fullmatch(r"\[?([^/\[\]]*)\]?:(\d+)", text)
    if address.startswith("unix:") or (network and os.path.exists(text)):
        network = None
    try:
        if network:
            return socket.create_connection(
                (network[1] or "localhost", int(network[2])), GREETING)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(GREETING)
            sock.connect(text)
        except BaseException:
            sock.close()
            raise
        return sock
    except FileNotFoundError:
        raise Lost("there is no such socket; QEMU makes it with "
                   "-qmp unix:%s,server=on,wait=off" % text) from None
    except ConnectionRefusedError:
        raise Lost("nobody listens there any more; has QEMU ended?") \
            from None
    except PermissionError:
        raise Lost("no permission; it belongs to the user that QEMU runs "
                   "as") from None
    except (BlockingIOError, TimeoutError):
        raise Lost("busy: others wait for it already") from None
    except OSError as error:
        raise Lost(error.strerror or str(error)) from None
    except OverflowError:
        raise Lost("there is no such port") from None


def monitor(address):
    """A connection to the VM at ADDRESS; Lost says why there is none."""
    if address.startswith("libvirt:"):
        return Virsh(address[len("libvirt:"):])
    qmp = Qmp(_socket(address))
    try:
        qmp.greet(GREETING)
    except TimeoutError:
        qmp.close()
        raise Lost("busy: QEMU serves one client at a time on a monitor, and "
                   "another one has it; give it a second -qmp") from None
    except (ValueError, KeyError, TypeError):
        qmp.close()
        raise Lost("that is no QMP monitor; it is what -qmp makes, not "
                   "-monitor") from None
    except (Lost, Refused):
        qmp.close()
        raise
    return qmp
