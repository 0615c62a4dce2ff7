# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots and migrations of a Qemu, by QMP; what is under way meanwhile."""

import subprocess
from pathlib import Path

from . import paths
from .paths import RigError
from .process import wait_until
from .qemu import QmpError
from .samples import MIB


def disk(path):
    """Options that add an empty qcow2 image at PATH, to hold snapshots."""
    emulator = subprocess.run([*paths.emulator(), "--path"], check=False,
                              stdout=subprocess.PIPE, text=True).stdout
    tool = Path(emulator.strip()).with_name("qemu-img")
    done = subprocess.run([tool, "create", "-q", "-f", "qcow2", path, "64M"],
                          check=False)
    if done.returncode:
        raise RigError("%s could not make %s" % (tool, path))
    return ["-drive", "file=%s,format=qcow2,if=none,id=disk0" % path]


def _snapshot(qemu, line, timeout):
    said = qemu.hmp(line, timeout).strip()
    if said:
        raise RigError("%s: %s" % (line, said))


def savevm(qemu, name, timeout=60):
    _snapshot(qemu, "savevm " + name, timeout)


def loadvm(qemu, name, timeout=60):
    _snapshot(qemu, "loadvm " + name, timeout)


def status(qemu):
    return qemu.command("query-migrate").get("status", "none")


__all__ = ["QmpError"]
ENDED = ("completed", "failed", "cancelled")


def wait_status(qemu, *wanted, timeout=60):
    """Until the migration's status is one of those."""
    seen = []

    def look():
        now = status(qemu)
        if not seen or seen[-1] != now:
            seen.append(now)
        if now in ENDED and now not in wanted:
            raise RigError("the migration of %s became %s: %s %s" % (
                qemu.name, " ".join(seen),
                qemu.command("query-migrate").get("error-desc", ""),
                qemu.log().strip()))
        return now in wanted

    wait_until(look, timeout, "a migration that is " + " or ".join(wanted))
    return seen[-1]


def unlimited(qemu):
    """As fast as it goes: downtime is not what these tests measure."""
    qemu.command("migrate-set-parameters", max_bandwidth=1 << 40,
                 downtime_limit=2000)


def migrate(qemu, uri, wanted="completed", timeout=60):
    """Migrate, to the end."""
    unlimited(qemu)
    qemu.command("migrate", uri=uri)
    return wait_status(qemu, wanted, timeout=timeout)


def capability(name, *qemus):
    """Switch on what both sides must have on."""
    for qemu in qemus:
        qemu.command("migrate-set-capabilities", capabilities=[
            {"capability": name, "state": True}])


def postcopy(source, target, path, meanwhile=lambda: None):
    """Migrate over a UNIX socket at PATH; the guest runs there before its
    memory has come, and MEANWHILE is called."""
    capability("postcopy-ram", source, target)
    target.command("migrate-incoming", uri="unix:" + path)
    source.command("migrate-set-parameters", max_bandwidth=4 * MIB)
    source.command("migrate", uri="unix:" + path)
    wait_status(source, "active")
    source.command("migrate-start-postcopy")
    meanwhile()
    source.command("migrate-set-parameters", max_bandwidth=1 << 40)
    wait_status(source, "completed")
    wait_running(target)


def incoming(qemu, uri, timeout=60):
    """Load in a QEMU that was started with -incoming defer."""
    qemu.command("migrate-incoming", uri=uri)
    wait_status(qemu, "completed", timeout=timeout)


def wait_running(qemu, timeout=20):
    wait_until(lambda: qemu.command("query-status")["running"], timeout,
               "%s to run" % qemu.name)


class Moving:
    """A guest that lives in one QEMU after the other.

    A test class derived from it has args(), the options of each of them."""

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(*self.args())

    @property
    def qemu(self):
        return self.guest.qemu

    def target(self):
        """A QEMU like the guest's, waiting."""
        return self.rig.qemu(*self.args(), "-incoming", "defer",
                             guest=paths.guest_images())
