# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running VM says about spiceflow, for the tools that show it."""

import re
import sys

import qmp

CANNOT_ASK = 3          # exit status when there is no VM to be asked

MONITOR_HELP = """\
MONITOR is where QEMU's QMP is:
  PATH            a UNIX socket, as from -qmp unix:PATH,server=on,wait=off
  HOST:PORT       TCP, as from -qmp tcp:HOST:PORT,server=on,wait=off
  libvirt:DOMAIN  a domain of libvirt, asked through virsh
QEMU serves one client at a time on each monitor: give these tools one that
nothing else uses."""


def add_monitor(parser):
    """The one argument that all of the tools have."""
    parser.add_argument("monitor", metavar="MONITOR",
                        help="QMP socket, HOST:PORT or libvirt:DOMAIN")


def fail(prog, address, error):
    """Say why the VM can not be asked; the exit status."""
    print("%s: %s: %s" % (prog, address, error), file=sys.stderr)
    return CANNOT_ASK


def other_version(prog, address, error):
    """Likewise when something that is expected there is not."""
    return fail(prog, address, "its spiceflow is of another version than "
                "this program: there is no %s" % error)


class Vm:
    """Questions to one VM."""

    def __init__(self, address):
        self.address = address
        self.monitor = qmp.monitor(address)
        self.name = self.monitor.execute("query-name").get("name", "")

    def close(self):
        self.monitor.close()

    def get(self, path, name):
        return self.monitor.execute("qom-get",
                                    {"path": path, "property": name})

    def children(self, path):
        """(name, type) of each object at a path."""
        try:
            found = self.monitor.execute("qom-list", {"path": path})
        except qmp.Refused:
            return []
        return [(f["name"], f["type"][len("child<"):-1]) for f in found
                if f["type"].startswith("child<")]

    def listed(self, path, kind):
        """Names of the objects at a path that are of that type, usb2 before
        usb10."""
        return sorted((name for name, type_ in self.children(path)
                       if type_ == kind), key=lambda name: [
                           int(part) if part.isdigit() else part
                           for part in re.split(r"(\d+)", name)])

    def status(self):
        """As query-status has it: running, paused, ..."""
        return self.monitor.execute("query-status")["status"]

    def servers(self):
        """Each spiceflow-server: its id, properties and stats."""
        names = ("addr", "tls-creds", "password-secret", "max-clients",
                 "agent-clipboard", "agent-max-clipboard",
                 "agent-file-transfer", "stats")
        found = []
        for server in self.listed("/objects", "spiceflow-server"):
            path = "/objects/" + server
            found.append({"id": server,
                          **{n: self.get(path, n) for n in names}})
        return found

    def devices(self):
        """Each spiceflow chardev: its id and its flow."""
        return [{"id": chardev,
                 "flow": self.get("/chardevs/" + chardev, "flow")}
                for chardev in self.listed("/chardevs", "chardev-spiceflow")]

    def state(self):
        """All of it."""
        return {"name": self.name, "qemu": self.monitor.version,
                "status": self.status(), "servers": self.servers(),
                "devices": self.devices()}


# ---- words

def address(addr):
    """A SocketAddress as people write it."""
    kind = addr.get("type")
    if kind == "inet":
        host = addr["host"]
        return "%s:%s" % ("[%s]" % host if ":" in host else host,
                          addr["port"])
    if kind == "unix":
        return addr["path"]
    if kind == "vsock":
        return "vsock %s:%s" % (addr["cid"], addr["port"])
    return "descriptor " + str(addr.get("str"))


def size(count):
    """A number of bytes in few characters: 999, 9.8K, 64K, 1.0M."""
    if count < 1000:
        return "%d" % count
    for unit in "KMGTPE":
        count /= 1024
        if count < 999.5 or unit == "E":
            return ("%.1f%s" if count < 9.95 else "%.0f%s") % (count, unit)


def bytes_text(count):
    """A number of bytes in words."""
    if count < 1000:
        return "%d byte%s" % (count, "s" * (count != 1))
    text = size(count)
    return "%s %siB" % (text[:-1], text[-1])


def printable(text):
    """Without what would do something to a terminal: peers have a say."""
    return "".join(c if c.isprintable() else "\\x%02x" % ord(c) for c in text)


CHANNELS = {1: "main", 2: "display", 3: "inputs", 4: "cursor", 5: "playback",
            6: "record", 8: "smartcard", 9: "usbredir", 10: "port",
            11: "webdav"}


def channel(kind, number):
    """A channel by its type and number."""
    return "%s:%d" % (CHANNELS.get(kind, kind), number)
