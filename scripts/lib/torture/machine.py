# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM of a torture run: one guest, and the QEMUs that it lives in.

Every QEMU has the same devices and an address of its own.  Servers are on TCP,
because that is what a client is told of a migration's target.
"""

import os
import random
import socket
import time

from lib import migration, paths
from lib.guest import Guest
from lib.qemu import QmpError
from lib.rig import PORT, chardev_args, port_args, usb_args

# Below those that the kernel gives to connections that go out.
TCP_PORTS = range(20000, 32000)


def free_port():
    """A TCP port that nobody listens on."""
    while True:
        number = random.choice(TCP_PORTS)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", number))
                return number
            except OSError:
                pass


class Machine:
    """The guest, wherever it is."""

    def __init__(self, rig, which):
        self.rig = rig
        self.which = which
        self.ports = {}         # Qemu: its TCP port
        self.downtimes = []     # ms, as QEMU reckons
        port = free_port()
        self.guest = rig.guest(*self._args(port))
        self.ports[self.qemu] = port

    def _args(self, port):
        if self.which == "spiceflow":
            server = ["-object", "spiceflow-server,id=sf0,type=inet,"
                      "host=127.0.0.1,port=%d" % port,
                      "-trace", "spiceflow_migrate_*"]
        else:
            server = ["-spice", "addr=127.0.0.1,port=%d,disable-ticketing=on,"
                      "seamless-migration=on" % port]
        return [*server, *port_args(PORT, which=self.which),
                *chardev_args("agent", "vdagent", self.which), "-device",
                "virtserialport,chardev=agent,name=com.redhat.spice.0",
                *usb_args("qemu-xhci", which=self.which)]

    @property
    def qemu(self):
        return self.guest.qemu

    @property
    def uri(self):
        return self.uri_of(self.qemu)

    def uri_of(self, qemu):
        return "spice://127.0.0.1:%d" % self.ports[qemu]

    def violations(self):
        """What the flow machines of this QEMU have against its clients."""
        if self.which != "spiceflow":
            return 0
        return sum(self.qemu.get("/chardevs/" + name, "flow")
                   ["token-violations"] for name in ("p1", "agent", "u0"))

    def target(self):
        """Another QEMU with the same devices, waiting."""
        port = free_port()
        qemu = self.rig.qemu(*self._args(port), "-incoming", "defer",
                             guest=paths.guest_images())
        self.ports[qemu] = port
        return qemu

    def follows(self):
        """Can clients be told where to go?"""
        if self.which != "spiceflow":
            return True
        return any(item["name"] == "migrate-target" for item in
                   self.qemu.command("qom-list", path="/objects/sf0"))

    def announce(self, target, poll):
        """Tell the clients where the guest goes, and wait for them there."""
        if self.which == "spiceflow":
            self.qemu.set("/objects/sf0", "migrate-target",
                          "127.0.0.1:%d" % self.ports[target])
            self._look(poll, lambda: all(
                client["migration"] == "seamless" for client in
                self.clients(self.qemu)), "the clients to be ready")
        else:
            self.qemu.command("client_migrate_info", protocol="spice",
                              hostname="127.0.0.1", port=self.ports[target])

    @staticmethod
    def clients(qemu):
        return qemu.get("/objects/sf0", "stats")["clients"]

    @staticmethod
    def _look(poll, condition, what, timeout=20):
        end = time.monotonic() + paths.seconds(timeout)
        while not condition():
            poll()
            time.sleep(0.01)
            if time.monotonic() > end:
                raise migration.RigError("waited %g s for %s" %
                                         (timeout, what))

    def cont(self):
        """Go on, also where a migration has just been."""
        end = time.monotonic() + paths.seconds(5)
        while True:
            try:
                self.qemu.command("cont")
                return
            except QmpError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    # -- saved to a file --

    def save(self, path, poll):
        """The state into a file; the guest stands still after that."""
        migration.unlimited(self.qemu)
        self.qemu.command("migrate", uri="file:" + path)
        self._wait(self.qemu, poll)

    @staticmethod
    def _wait(qemu, poll, wanted="completed", timeout=60):
        """Until the migration has that end; meanwhile guest and client are
        listened to."""
        end = time.monotonic() + paths.seconds(timeout)
        while migration.wait_status(qemu, wanted, "active", "setup", "device",
                                    "cancelling", "pre-switchover", "none",
                                    timeout=timeout) != wanted:
            poll()
            time.sleep(0.01)
            if time.monotonic() > end:
                raise migration.RigError(
                    "the migration of %s takes longer than %g s" %
                    (qemu.name, timeout))

    def restore(self, path):
        """The guest of a file, in a QEMU of its own beside this one."""
        qemu = self.target()
        migration.incoming(qemu, "file:" + path)
        return Guest.twin(self.guest, qemu)

    def discard(self, guest):
        self._end(guest.qemu)

    def _end(self, qemu):
        qemu.quit()
        qemu.close()
        del self.ports[qemu]
        self.rig.qemus.remove(qemu)
        os.unlink(qemu.console_path)

    # -- live --

    def cancel(self, delay, poll):
        """A migration that somebody thinks better of."""
        self.qemu.command("migrate-set-parameters", max_bandwidth=1 << 20)
        self.qemu.command("migrate", uri="exec:cat > /dev/null")
        migration.wait_status(self.qemu, "active")
        end = time.monotonic() + delay
        while time.monotonic() < end:
            poll()
            time.sleep(0.01)
        self.qemu.command("migrate_cancel")
        self._wait(self.qemu, poll, "cancelled")

    def move(self, target, poll, during=None):
        """Live, into another QEMU.  What is left of the old one is returned,
        to be ended when the clients are gone from there."""
        path = self.rig.path("wire")
        running = self.qemu.command("query-status")["running"]
        target.command("migrate-incoming", uri="unix:" + path)
        migration.unlimited(self.qemu)
        self.qemu.command("migrate", uri="unix:" + path)
        if during:
            during()
        self._wait(self.qemu, poll)
        self.downtimes.append(
            self.qemu.command("query-migrate").get("downtime", 0))
        if running:
            migration.wait_running(target)
        else:
            migration.wait_status(target, "completed")
        old = self.qemu
        self.guest.adopt(target)
        return old

    def end(self, old, poll):
        """The old QEMU goes when the clients have left it."""
        if self.which == "spiceflow":
            self._look(poll, lambda: not self.clients(old),
                       "the clients to leave the source")
        else:
            poll()
            old.qmp.event("SPICE_MIGRATE_COMPLETED", 20)
        self._end(old)

    # -- figures --

    def times(self):
        """Microseconds that saving and loading a device took, and the bytes
        that were queued then, from the traces of all QEMUs so far."""
        found = {"save": [], "load": []}
        for name in sorted(os.listdir(self.rig.folder)):
            if not name.startswith("qemu") or not name.endswith(".log"):
                continue
            with open(self.rig.path(name), encoding="utf-8",
                      errors="replace") as log:
                for line in log:
                    for kind, into in found.items():
                        if "spiceflow_migrate_%s " % kind in line:
                            into.append(line)
        return found

