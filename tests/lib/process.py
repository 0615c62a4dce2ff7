# SPDX-License-Identifier: GPL-2.0-or-later
"""A child process that cannot outlive us.

Each child gets a session of its own, so that Ctrl-C at the terminal reaches
only the program that knows how to end things in order, and asks the kernel to
be killed when its parent dies, so that even a killed parent leaves nothing.
Children are ended by their process id, never by name.
"""

import ctypes
import os
import signal
import subprocess
import time

from .paths import RigError, seconds

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper():
    """Orphaned descendants become our children, where they can be found."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children():
    """Process ids of all our children, also those not started here."""
    pids = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open("/proc/self/task/%s/children" % task,
                      encoding="ascii") as file:
                pids += [int(word) for word in file.read().split()]
        except FileNotFoundError:
            pass
    return pids


def describe(pid):
    """A process id with its command line, for messages."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            words = file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        words = ""
    return "%d (%s)" % (pid, words.strip()[:120] or "ended")


class Process:
    """A running program, its log, and its end."""

    def __init__(self, argv, *, log, env=None, pass_fds=(), stdin=None,
                 stdout=None):
        self.name = os.path.basename(argv[0])
        self.log_path = log
        self.forced = False     # end() had to kill it
        parent = os.getpid()

        def in_child():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(127)

        with open(log, "ab") as output:
            try:
                self.popen = subprocess.Popen(
                    argv, stdin=stdin or subprocess.DEVNULL,
                    stdout=stdout or output, stderr=output, env=env,
                    pass_fds=pass_fds, start_new_session=True,
                    preexec_fn=in_child)
            except OSError as error:
                raise RigError("cannot start %s: %s" % (argv[0], error)) \
                    from None

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def log(self):
        """What it has written to its log so far."""
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def send_signal(self, signum):
        self.popen.send_signal(signum)

    def wait(self, timeout=10):
        """Exit status, as subprocess has it; RigError if it takes longer."""
        try:
            return self.popen.wait(seconds(timeout))
        except subprocess.TimeoutExpired:
            raise RigError("%s still runs after %g s" % (self.name, timeout)) \
                from None

    def end(self, grace=5):
        """Ask it to end, then make it; returns the exit status."""
        if self.running():
            self.popen.terminate()
            try:
                self.popen.wait(seconds(grace))
            except subprocess.TimeoutExpired:
                self.forced = True
                self.popen.kill()
                self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass        # it had ended before it took all
        return self.popen.returncode

    def private_kib(self):
        """Resident memory of its own now: without files and shared memory,
        and so without a guest's memory, which qemu.py makes shared."""
        with open("/proc/%d/status" % self.pid, encoding="ascii") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1])
        raise RigError("%s has no memory; it has ended" % self.name)

    def descriptors(self):
        """What each of its open descriptors is, by number."""
        folder = "/proc/%d/fd" % self.pid
        found = {}
        for number in os.listdir(folder):
            try:
                found[int(number)] = os.readlink("%s/%s" % (folder, number))
            except FileNotFoundError:
                pass
        return found

    def cpu_seconds(self):
        """CPU time used so far, all threads."""
        with open("/proc/%d/stat" % self.pid, encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition, timeout, what, interval=0.02):
    """Look at something that has no event to wait for; returns its value.

    WHAT, a text or a function that makes one, is for who waits in vain."""
    end = time.monotonic() + seconds(timeout)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise RigError("%s did not happen within %g s" %
                           (what() if callable(what) else what, timeout))
        time.sleep(interval)
