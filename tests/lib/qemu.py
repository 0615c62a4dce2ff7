# SPDX-License-Identifier: GPL-2.0-or-later
"""A running QEMU: start, QMP, end; and which accelerator works here.

QMP and the guest's two serial ports come through socket pairs whose other end
QEMU inherits: no path, no port, no race with start-up.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time

from . import paths
from .paths import RigError, seconds
from .process import Process, wait_until

sys.path.append(str(paths.ROOT / "scripts" / "lib"))

import qmp                                          # noqa: E402

MEMORY = 640
KERNEL_LINE = "console=ttyS0 loglevel=5 panic=-1 mitigations=off"

ACCELERATORS = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    "tcg": ["-accel", "tcg", "-cpu", "max"],
}


QmpError = qmp.Refused


@contextlib.contextmanager
def refused(*texts):
    """The command that is given here is refused, with all of these texts in
    what it says."""
    try:
        yield
    except QmpError as error:
        assert all(text in error.desc for text in texts), error
    else:
        raise AssertionError("the command was not refused")


class Qmp(qmp.Qmp):
    """The machine protocol on one end of a socket pair."""

    def __init__(self, sock, alive):
        super().__init__(sock)
        self.why_ended = lambda: "QEMU closed QMP: " + alive()

    def handshake(self, timeout):
        try:
            self.greet(seconds(timeout))
        except TimeoutError:
            raise RigError("no QMP greeting within %g s" % timeout) from None
        except qmp.Lost as lost:
            raise RigError(str(lost)) from None

    def command(self, name, timeout=10, **arguments):
        """Run one command; underscores in argument names become dashes."""
        arguments = {k.replace("_", "-"): v for k, v in arguments.items()}
        return self.execute(name, arguments, timeout)

    def execute(self, name, arguments=None, timeout=10):
        """The same, with the arguments as they are."""
        try:
            return super().execute(name, arguments, seconds(timeout))
        except qmp.Lost as lost:
            raise RigError(str(lost)) from None

    def event(self, name, timeout=10, **fields):
        """The next event of that name with those data fields; it is used up.

        Events that came earlier and were not asked for count too."""
        end = time.monotonic() + seconds(timeout)

        def fits(message):
            data = message.get("data", {})
            return message.get("event") == name and all(
                data.get(key) == value for key, value in fields.items())

        while True:
            for message in self.events:
                if fits(message):
                    self.events.remove(message)
                    return message.get("data", {})
            try:
                message = self.message(end)
            except TimeoutError:
                raise RigError("no event %s within %g s" %
                               (name, timeout)) from None
            except qmp.Lost as lost:
                raise RigError(str(lost)) from None
            if "event" in message:
                self.events.append(message)


class Qemu:
    """One QEMU process.

    ARGS are added to what every machine here has.  GUEST, a pair of kernel
    and initramfs, makes it boot; without one the machine is only as far as
    its firmware, and PAUSED keeps it from running even that.  The sockets of
    INHERIT are open in it under the numbers that they have here.
    """

    def __init__(self, args=(), *, folder, guest=None, machine="pc",
                 accel=None, memory=MEMORY, paused=False, name="qemu",
                 reboots=False,
                 env=None, binary=None, start_timeout=20, inherit=()):
        self.name = name
        self.expected_end = False
        self.args = list(args)
        self.guest_images = guest
        self.console_path = os.path.join(folder, name + ".console")
        argv = list(binary or paths.emulator())
        argv += ["-M", machine, "-nodefaults", "-no-user-config",
                 "-display", "none", "-name", name]
        if not reboots:
            argv += ["-no-reboot"]
        if machine != "none":
            argv += ACCELERATORS[accel or (accelerator() if guest else "tcg")]
            # Shared, so that what QEMU itself takes can be told from it.
            argv += ["-m", str(memory), "-smp", "1",
                     "-object", "memory-backend-memfd,id=rig-ram,share=on,"
                     "size=%dM" % memory,
                     "-machine", "memory-backend=rig-ram"]
        if paused:
            argv += ["-S"]

        ours, theirs = socket.socketpair()
        pairs = [theirs]
        argv += ["-chardev", "socket,id=rig-qmp,fd=%d" % theirs.fileno(),
                 "-mon", "chardev=rig-qmp,mode=control"]
        self.control = None
        if guest:
            self.control, theirs = socket.socketpair()
            pairs.append(theirs)
            argv += ["-kernel", guest[0], "-initrd", guest[1],
                     "-append", KERNEL_LINE,
                     "-chardev", "file,id=rig-con,path=" + self.console_path,
                     "-serial", "chardev:rig-con",
                     "-chardev", "socket,id=rig-ctl,fd=%d" % theirs.fileno(),
                     "-serial", "chardev:rig-ctl"]
        argv += self.args
        self.argv = argv
        try:
            self.process = Process(
                argv, log=os.path.join(folder, name + ".log"), env=env,
                pass_fds=[s.fileno() for s in (*pairs, *inherit)])
        except BaseException:
            ours.close()
            if self.control:
                self.control.close()
            raise
        finally:
            for sock in pairs:
                sock.close()
        self.qmp = Qmp(ours, self._why)
        try:
            self.qmp.handshake(start_timeout)
        except BaseException:
            self.expected_end = True
            self.close()
            raise

    def _why(self):
        try:
            status = self.process.wait(2)
        except RigError:
            return "it still runs"
        how = "signal %d" % -status if status < 0 else "status %d" % status
        return "it ended with %s; it said: %s" % (
            how, self.process.log().strip() or "nothing")

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        """What QEMU wrote to its standard error."""
        return self.process.log()

    def console(self):
        """The guest kernel's console so far."""
        try:
            with open(self.console_path, encoding="utf-8",
                      errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def command(self, name, **arguments):
        return self.qmp.command(name, **arguments)

    def hmp(self, line, timeout=30):
        """A command of the human monitor; its output."""
        return self.qmp.execute("human-monitor-command",
                                {"command-line": line}, timeout)

    def get(self, path, name):
        return self.command("qom-get", path=path, property=name)

    def set(self, path, name, value):
        return self.command("qom-set", path=path, property=name, value=value)

    def flow(self, chardev):
        """What a device of ours says of itself."""
        return self.get("/chardevs/" + chardev, "flow")

    def wait_flow(self, chardev, field, value, timeout=5):
        """Until that field of it has this value."""
        seen = []

        def look():
            seen[:] = [self.flow(chardev)[field]]
            return seen[0] == value

        wait_until(look, timeout, lambda: "%s of %s becoming %s (it is %s)"
                   % (field, chardev, value, *seen))

    def stats(self, server="sf0"):
        """What a server of ours says of itself."""
        return self.get("/objects/" + server, "stats")

    def wait_no_clients(self, timeout=5):
        """Until the server has let all its clients go."""
        wait_until(lambda: not self.stats()["clients"], timeout,
                   "the clients' leave")

    def quit(self, timeout=10):
        """End it in the orderly way, and see that it does."""
        self.expected_end = True
        try:
            self.command("quit")
        except RigError:
            pass                # it may be gone before the answer is read
        status = self.process.wait(timeout)
        if status != 0:
            raise RigError("QEMU quit with status %d: %s" %
                           (status, self.log().strip()))

    def close(self):
        """End it whatever state it is in.

        One that has died by itself, or does not end in order when asked
        to, is an error: no test may pass over a crash or a hang."""
        status = self.process.end()
        self.qmp.close()
        if self.control:
            self.control.close()
        if status != 0 and not self.expected_end:
            how = "was killed: it did not end when asked to" \
                if status == -9 and self.process.forced else \
                "ended with status %d" % status
            raise RigError("%s %s: %s" % (self.name, how,
                                          self.log().strip()))


def _boots(accel, images, deadline):
    """Does a guest reach its command server with this accelerator?"""
    from .guest import Guest

    with tempfile.TemporaryDirectory(prefix="spiceflow-accel-") as folder:
        try:
            qemu = Qemu(folder=folder, guest=images, accel=accel)
        except RigError:
            return False
        qemu.expected_end = True
        try:
            Guest(qemu).wait_ready(deadline)
            return True
        except RigError:
            return False
        finally:
            qemu.close()


def accelerator():
    """"kvm" where a guest really boots with it, else "tcg".

    /dev/kvm may be there and be useless (nested on an incomplete
    hypervisor), so that only trying tells.  The answer is kept for as long
    as the machine stays up.  SPICEFLOW_ACCEL overrides it."""
    forced = os.environ.get("SPICEFLOW_ACCEL")
    if forced:
        if forced not in ACCELERATORS:
            raise RigError("SPICEFLOW_ACCEL=%s: known are %s" %
                           (forced, ", ".join(sorted(ACCELERATORS))))
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"

    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    cache = paths.cache_dir() / "accelerator"
    try:
        known = cache.read_text(encoding="ascii").split()
        if len(known) == 2 and known[0] == boot and known[1] in ACCELERATORS:
            return known[1]
    except FileNotFoundError:
        pass
    answer = "kvm" if _boots("kvm", paths.guest_images(), 8) else "tcg"
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_suffix(".%d" % os.getpid())
    temporary.write_text("%s %s\n" % (boot, answer), encoding="ascii")
    temporary.rename(cache)
    return answer


def output_of(*args, timeout=20):
    """Run the emulator to its end; (status, what it printed).

    For options that it must refuse."""
    try:
        done = subprocess.run(paths.emulator() + list(args),
                              stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT,
                              timeout=seconds(timeout), check=False)
    except subprocess.TimeoutExpired:
        raise RigError("QEMU did not end within %g s: %s" %
                       (timeout, " ".join(args))) from None
    return done.returncode, done.stdout.decode(errors="replace")


__all__ = ["Qemu", "Qmp", "QmpError", "accelerator", "output_of",
           "wait_until"]
