# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulator and the peer, each a fresh process for each measurement."""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

MIB = 1 << 20
DEADLINE = 120      # seconds for any one thing to happen
HEAP = ':'.join(f'glibc.malloc.{name}={32 * MIB}'
                for name in ('trim_threshold', 'mmap_threshold'))


class BenchError(Exception):
    """Why there can be no figures; its text is for the user."""


def die_with_parent():
    """In the child: a killed bench leaves no emulator behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG


class Process:
    """A child whose output is read line by line, with a deadline."""

    def __init__(self, what, argv, cpu=None, **kwargs):
        self.what = what
        self.errors = tempfile.TemporaryFile()
        self.child = subprocess.Popen(argv, stderr=self.errors,
                                      preexec_fn=die_with_parent, **kwargs)
        self.buffer = b''
        if cpu is not None:
            os.sched_setaffinity(self.child.pid, {cpu})

    def line(self, fd):
        """The next line from @fd."""
        end = time.monotonic() + DEADLINE
        while b'\n' not in self.buffer:
            left = max(0, end - time.monotonic())
            if not select.select([fd], [], [], left)[0]:
                raise BenchError(f'{self.what} said nothing for {DEADLINE} s')
            data = os.read(fd, 65536)
            if not data:
                raise BenchError(f'{self.what} ended: {self.complaint()}')
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return json.loads(line)

    def complaint(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(5)
        self.errors.seek(0)
        text = self.errors.read().decode(errors='replace').strip()
        return text or f'exit status {self.child.returncode}, no message'

    def close(self):
        self.child.kill()
        self.child.wait()
        self.errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Pump:
    """One pump in an emulator: see tests/qemu/pump."""

    def __init__(self, qemu, number):
        self.qemu = qemu
        self.path = f'/machine/peripheral/pump{number}'

    def set(self, name, value):
        self.qemu.command('qom-set', path=self.path, property=name,
                          value=value)

    def start(self):
        self.set('running', True)

    def results(self):
        return self.qemu.command('qom-get', path=self.path,
                                 property='results')

    def wait(self, wanted, interval=0.001):
        """Until the results are as @wanted says; returns them."""
        end = time.monotonic() + DEADLINE
        while True:
            results = self.results()
            if results['error']:
                raise BenchError(f"{self.qemu.what}: pump: {results['error']}")
            if wanted(results):
                return results
            if time.monotonic() > end:
                raise BenchError(f'{self.qemu.what}: the pump is stuck: '
                                 f'{results}')
            time.sleep(interval)

    def wait_opened(self):
        self.wait(lambda r: r['opened'])

    def wait_done(self, interval=0.001):
        results = self.wait(lambda r: not r['running'], interval)
        if not results['done']:
            raise BenchError(f'{self.qemu.what}: the pump stopped early: '
                             f'{results}')
        return results


class Qemu(Process):
    """An emulator without machine or guest.

    @args holds chardevs c0, c1, ...; @pumps the settings of a pump for each.
    """

    def __init__(self, setup, what, args, pumps=(), cpu=None):
        ours, theirs = socket.socketpair()
        self.monitor = ours
        argv = [setup.qemu, '-machine', 'none', '-display', 'none',
                '-nodefaults', '-no-user-config',
                '-chardev', f'socket,id=mon,fd={theirs.fileno()}',
                '-mon', 'chardev=mon,mode=control', *args]
        for number, settings in enumerate(pumps):
            device = {'driver': 'spiceflow-pump', 'id': f'pump{number}',
                      'chardev': f'c{number}'}
            argv += ['-device', json.dumps({**device, **settings})]
        env = dict(os.environ)
        env.setdefault('QEMU_MODULE_DIR', os.path.dirname(setup.qemu))
        env.setdefault('GLIBC_TUNABLES', HEAP)
        with theirs:
            super().__init__(f'QEMU with {what}', argv, cpu,
                             stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, env=env,
                             pass_fds=[theirs.fileno()])
        # The kernel's name for the CPU time of another process: see
        # clock_getcpuclockid(3); nanoseconds, where /proc counts in ticks.
        self.clock = (~self.child.pid << 3) | 2
        self.pumps = [Pump(self, n) for n in range(len(pumps))]
        try:
            self.line(ours.fileno())
            self.command('qmp_capabilities')
        except BaseException:
            self.close()
            raise

    def command(self, name, **arguments):
        message = {'execute': name, 'arguments': arguments}
        self.monitor.sendall(json.dumps(message).encode() + b'\n')
        while True:
            answer = self.line(self.monitor.fileno())
            if 'error' in answer:
                raise BenchError(f"{self.what}: {answer['error']['desc']}")
            if 'return' in answer:
                return answer['return']

    def cpu_ns(self):
        return time.clock_gettime_ns(self.clock)

    def memory(self):
        """Bytes that this process alone has, as the kernel counts them."""
        text = Path(f'/proc/{self.child.pid}/smaps_rollup').read_text()
        return sum(int(line.split()[1]) << 10 for line in text.splitlines()
                   if line.startswith(('Private_Clean:', 'Private_Dirty:')))

    def close(self):
        self.monitor.close()
        super().close()


class Peer(Process):
    """The other end of the connection: see tests/bench/peer.c."""

    def __init__(self, setup, what, options, cpu=None, program=None):
        argv = [program or setup.peer]
        for name, value in options.items():
            if value is True:
                argv += [f'--{name}']
            elif value is not False:
                argv += [f'--{name}', str(value)]
        super().__init__(f'the peer of {what}', argv, cpu,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def expect(self, event):
        answer = self.line(self.child.stdout.fileno())
        if answer['event'] != event:
            raise BenchError(f'{self.what} said {answer}, not {event}')
        return answer

    def go(self):
        self.child.stdin.write(b'go\n')
        self.child.stdin.flush()

    def close(self):
        self.child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(2)
        super().close()
        self.child.stdout.close()


def busy_ns():
    """CPU time that the whole machine has spent on anything."""
    fields = Path('/proc/stat').read_text().split('\n', 1)[0].split()
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, fields[1:9])
    return (user + nice + system + irq + soft + steal) * \
        (1000000000 // os.sysconf('SC_CLK_TCK'))
