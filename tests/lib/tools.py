# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs of scripts/ that look at a running VM, as a user runs them."""

import os
import subprocess
import sys

from . import paths
from .paths import RigError, seconds
from .process import Process, wait_until

VIRSH = """\
#!%s
# A virsh that knows one domain, whose monitor is the socket %%r.
import sys
sys.path.insert(0, %r)
import json, qmp
if sys.argv[2] != "demo":
    sys.exit("error: failed to get domain '%%%%s'" %%%% sys.argv[2])
monitor = qmp.monitor(%%r)
if sys.argv[1] == "qemu-monitor-command":
    request = json.loads(sys.argv[3])
    try:
        answer = {"return": monitor.execute(request["execute"],
                                            request.get("arguments"))}
    except qmp.Refused as error:
        answer = {"error": {"class": error.kind, "desc": error.desc}}
    print(json.dumps(answer))
elif sys.argv[1] == "qemu-monitor-event":
    assert sys.argv[3:] == ["--loop"], sys.argv
    open(%%r + ".events", "w").close()      # it is told of them from here on
    while True:
        event = monitor.next_event()
        print("event %%%%s at %%%%d.%%%%06d for domain 'demo': %%%%s" %%%% (
            event["event"], event["timestamp"]["seconds"],
            event["timestamp"]["microseconds"],
            json.dumps(event.get("data", {}))), flush=True)
""" % (sys.executable, str(paths.ROOT / "scripts" / "lib"))


def program(name):
    return [sys.executable, str(paths.ROOT / "scripts" / name)]


def monitor_args(path):
    """A QMP monitor for such a program, next to the test's own."""
    return ["-qmp", "unix:%s,server=on,wait=off" % path]


def run(name, *args, timeout=30, env=None):
    """Run one to its end: (status, standard output, standard error)."""
    try:
        done = subprocess.run(
            program(name) + list(args), stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
            timeout=seconds(timeout), env=env)
    except subprocess.TimeoutExpired:
        raise RigError("%s does not end" % name) from None
    return done.returncode, done.stdout, done.stderr


def fake_virsh(rig, socket):
    """An environment in which virsh is one that asks that monitor."""
    folder = rig.path("bin")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "virsh")
    with open(path, "w", encoding="ascii") as file:
        file.write(VIRSH % (socket, socket, socket))
    os.chmod(path, 0o755)
    return dict(os.environ, PATH=folder + ":" + os.environ["PATH"])


class Running:
    """One that runs on, and what it has printed."""

    def __init__(self, rig, name, *args, env=None):
        self.out = rig.path(rig._name(name) + ".out")
        with open(self.out, "wb") as file:
            self.process = Process(program(name) + list(args), stdout=file,
                                   log=self.out + ".err", env=env)
        rig.callback(self.close)
        self.read = 0

    def close(self):
        self.process.end()

    def said(self):
        """Its standard error."""
        return self.process.log()

    def lines(self, count, timeout=10):
        """The next lines of its standard output, so many."""
        def now():
            with open(self.out, encoding="utf-8") as file:
                return file.read().splitlines()[self.read:]
        wait_until(lambda: len(now()) >= count, timeout,
                   "%d lines are printed" % count)
        found = now()[:count]
        self.read += count
        return found
