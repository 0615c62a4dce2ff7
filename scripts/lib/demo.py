# SPDX-License-Identifier: GPL-2.0-or-later
"""The demonstration behind scripts/demo.

A Linux guest boots in a QEMU whose SPICE side is spiceflow alone, a client
built on the library of the common viewers connects, and a file goes through a
virtio port from the client into the guest and another one back; SHA-256 is
computed at both ends.  With --stay it does not end there, but opens a
terminal port and waits for a viewer.

Whatever it starts ends with it, also on Ctrl-C (tests/lib/process.py).
"""

import argparse
import hashlib
import os
import re
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from lib import paths, qemu as qemu_module      # noqa: E402
from lib.guest import Guest, GuestError         # noqa: E402
from lib.paths import RigError                  # noqa: E402
from lib.qemu import QmpError                   # noqa: E402
from lib.rig import (BACKENDS, PORT, Rig, chardev_args, port_args,  # noqa: E402
                     server_args)
from lib.sfclient import ClientFailed           # noqa: E402

MIB = 1 << 20
TERMINAL = "org.qemu.console.serial.0"
WIDTH = 32


class Mismatch(Exception):
    """The two ends do not have the same bytes."""


class Screen:
    """Progress bars where they can move, plain lines where they can not."""

    def __init__(self, stream=sys.stdout):
        self.stream = stream
        self.live = stream.isatty()
        self.open = False

    def line(self, text=""):
        if self.open:
            self.stream.write("\r\033[K")
            self.open = False
        self.stream.write(text + "\n")
        self.stream.flush()

    def passing(self, text):
        """A line that the next one replaces."""
        if self.live:
            self.stream.write("\r\033[K" + text)
            self.stream.flush()
            self.open = True

    def bar(self, title, part, whole, speed):
        full = WIDTH * part // whole
        self.passing("  %-16s [%s%s] %3d%%  %6.1f MB/s" %
                     (title, "#" * full, "." * (WIDTH - full),
                      100 * part // whole, speed))


def fact(screen, name, text):
    screen.line("  %-8s %s" % (name, text))


def follow(screen, client, title, size, finished):
    """Draw the bar until FINISHED() is true."""
    start = time.monotonic()
    client.lines.clear()
    client.seen = 0
    while not finished():
        part = (client.progress() or (0, size))[0]
        for line in client.lines:
            if line.startswith("failed"):
                raise ClientFailed(line)
        spent = time.monotonic() - start
        screen.bar(title, part, size, part / spent / 1e6)
        time.sleep(0.05)


def verdict(screen, title, size, speed, ours, theirs):
    if ours != theirs:
        raise Mismatch("%s: SHA-256 differs: %s at the client, %s in the"
                       " guest" % (title, ours, theirs))
    screen.line("  %-16s %d MiB  %6.1f MB/s  SHA-256 %s... at both ends" %
                (title, size // MIB, speed, ours[:16]))


def to_guest(screen, guest, client, source, size):
    title = "client to guest"
    job = guest.start("porttool recv %s %d /tmp/in" % (PORT, size))
    client.send("port", PORT, "send", source)
    follow(screen, client, title, size, lambda: not job.running())
    done = job.result()
    screen.passing("  %-16s the guest computes SHA-256" % title)
    theirs = guest.run("sha256sum /tmp/in && rm /tmp/in", 120).split()[0]
    with open(source, "rb") as file:
        ours = hashlib.sha256(file.read()).hexdigest()
    verdict(screen, title, size, done["rate"], ours, theirs)


def to_client(screen, guest, client, target, size):
    title = "guest to client"
    screen.passing("  %-16s the guest makes a file" % title)
    theirs = guest.run("head -c %d /dev/urandom > /tmp/out && "
                       "sha256sum /tmp/out" % size, 120).split()[0]
    client.send("port", PORT, "recv", size, target)
    job = guest.start("porttool send %s /tmp/out" % PORT)
    follow(screen, client, title, size, lambda: any(
        line.startswith("done") for line in client.lines))
    job.wait()
    done = client.outcome("port", PORT, "recv")
    guest.run("rm /tmp/out")
    with open(target, "rb") as file:
        ours = hashlib.sha256(file.read()).hexdigest()
    verdict(screen, title, size, done["rate"], ours, theirs)


def boot(screen, rig, backend, terminal):
    """Start QEMU and the guest; shows what they are."""
    args = server_args(rig.socket, backend) + port_args(PORT, which=backend)
    if terminal:
        args += chardev_args("term", TERMINAL, backend)
        args += ["-device", "virtconsole,chardev=term,name=" + TERMINAL]
    screen.passing("  looking for a usable accelerator")
    accel = qemu_module.accelerator()
    images = paths.guest_images()
    screen.passing("  the guest boots")
    start = time.monotonic()
    qemu = rig.qemu(*args, guest=images, name="demo")
    guest = Guest(qemu)
    guest.wait_ready(90)
    booted = time.monotonic() - start
    version = qemu.command("query-version")["qemu"]
    fact(screen, "QEMU", "%d.%d.%d, -chardev %s, no display, %s" % (
        version["major"], version["minor"], version["micro"], backend,
        accel.upper()))
    fact(screen, "guest", "Linux %s, booted in %.1f s" %
         (guest.run("uname -r"), booted))
    return guest


def client_version():
    log = os.popen("pkg-config --modversion spice-client-glib-2.0 2>/dev/null")
    with log:
        return log.read().strip()


def next_steps(screen, backend):
    """What to type by hand, ready to be pasted."""
    server = " ".join(server_args("vm.spice", backend))
    port = " ".join(chardev_args("p1", PORT, backend))
    screen.line("Next, by hand:")
    screen.line()
    screen.line("  scripts/demo --stay        keeps such a guest, with a"
                " terminal for remote-viewer")
    screen.line()
    screen.line("  or with a VM of your own:")
    screen.line()
    screen.line("  scripts/qemu YOUR-OPTIONS \\")
    screen.line("      %s \\" % server)
    screen.line("      %s \\" % port)
    screen.line("      -device virtio-serial -device virtserialport,"
                "chardev=p1,name=%s" % PORT)
    screen.line("  remote-viewer spice+unix://$PWD/vm.spice")


def stay(screen, rig, guest):
    """Wait for people's own viewers until Ctrl-C."""
    guest.start("while :; do getty -n -l /bin/sh 115200 hvc0 vt100; done")
    guest.start("while :; do porttool echo %s; done" % PORT)
    screen.line("The guest stays. In another terminal:")
    screen.line()
    screen.line("  remote-viewer spice+unix://%s" % rig.socket)
    screen.line()
    screen.line("It opens a shell in the guest through the port %s;" %
                TERMINAL)
    screen.line("the port %s sends back what it gets. Ctrl-C ends it all." %
                PORT)
    while guest.qemu.process.running():
        guest.poll()
        time.sleep(0.5)
    raise RigError("QEMU ended: " + guest.qemu.log())


def run(screen, rig, args):
    size = args.size * MIB
    screen.line("spiceflow demo: a file through a virtio port, each way")
    screen.line()
    guest = boot(screen, rig, args.backend, args.stay)
    client = rig.client("--progress", "50")
    client.find("^port-new %s$" % re.escape(PORT))
    fact(screen, "client", "libspice-client-glib %s, on %s" %
         (client_version(), "a UNIX socket"))
    screen.line()

    source, target = rig.path("to-guest"), rig.path("from-guest")
    with open(source, "wb") as file:
        for _ in range(args.size):
            file.write(os.urandom(MIB))
    to_guest(screen, guest, client, source, size)
    to_client(screen, guest, client, target, size)
    client.quit()
    screen.line()
    if args.stay:
        stay(screen, rig, guest)
    guest.qemu.quit()


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="A Linux guest, a SPICE client, and spiceflow between"
        " them: a file goes each way through a virtio port.")
    parser.add_argument("--size", type=int, default=64, metavar="MIB",
                        help="size of each file (default: %(default)s)")
    parser.add_argument("--stay", action="store_true",
                        help="keep the guest for viewers until Ctrl-C")
    parser.add_argument("--backend", choices=BACKENDS, default="spiceflow",
                        help="spicevmc: the same with spice-server, to"
                        " compare")
    parser.add_argument("--no-setup", action="store_true",
                        help="do not look whether everything is built")
    args = parser.parse_args()
    if not 1 <= args.size <= 256:
        parser.error("--size is from 1 to 256, the guest keeps it in memory")
    return args


def interrupted(_signum, _frame):
    raise KeyboardInterrupt


def main():
    args = parse()
    screen = Screen()
    rig = None
    # Ending means cleaning up, however it is asked for.
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    status = 0
    try:
        rig = Rig()
        run(screen, rig, args)
    except KeyboardInterrupt:
        screen.line()
        screen.line("interrupted")
        status = 130
    except BrokenPipeError:
        # Nobody reads any more, as with "| head"; nothing to say, then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except (RigError, QmpError, GuestError, ClientFailed,
            Mismatch) as error:
        screen.line()
        screen.line("demo: error: %s" % error)
        if rig and rig.report():
            screen.line(rig.report())
        status = 1
    finally:
        # From here on nothing may interrupt the cleaning up.
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        if rig:
            try:
                rig.close()
            except RigError as error:
                if not status:
                    screen.line("demo: error: %s" % error)
                    status = 1
    if status == 0:
        screen.line("Both files arrived whole; nothing is left running.")
        screen.line()
        next_steps(screen, args.backend)
    return status


if __name__ == "__main__":
    sys.exit(main())
