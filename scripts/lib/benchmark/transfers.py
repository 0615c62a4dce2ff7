# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines 1 to 5: throughput, round trips, CPU time, plain and over TLS.

Pump and peer read the same clock, so a transfer lasts from the sender's first
write until its last byte is in the receiver's hands.  CPU time is the one
that the kernel charged to QEMU, all threads, from just before to just after.

Round trips are measured with both processes on one CPU. On two, the time that
it takes to wake a sleeping CPU is longer than all the work, and hides it.
Transfers use the CPUs as the kernel sees fit.  (--pin decides otherwise.)
"""

import contextlib
import os
import tempfile
import time

from .backends import BACKENDS, BARE, Place
from .figures import REAL, Figure, Job
from .processes import Peer, Qemu, busy_ns

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CHECKED = 64 * MIB
CHECKED_TRIPS = 500


class Transfer(Job):
    """Bytes through one chardev; the pump and the peer say how."""

    def __init__(self, name, pump, peer, figures, tls=False):
        super().__init__(name, figures, REAL if tls else (BARE, *REAL))
        self.pump = pump            # settings of the pump
        self.peer = peer            # settings of the peer
        self.tls = tls

    @property
    def is_ping(self):
        return self.pump['mode'] == 'ping'

    def check(self, setup, backend):
        if backend != BARE:
            self.run(setup, backend, min(setup.total, CHECKED), CHECKED_TRIPS,
                     verify=True)

    def measure(self, setup, backend):
        if backend == BARE:
            return self.run_bare(setup, setup.total, setup.count)
        return self.run(setup, backend, setup.total, setup.count)

    def limits(self, targets, figure):
        limits = FIRST if targets == 'first' else FINAL
        return limits(self, figure)

    def cpus(self, setup):
        return setup.place() if self.is_ping else setup.cpus or (None, None)

    def run(self, setup, backend, total, count, verify=False):
        pump, peer = dict(self.pump), dict(self.peer)
        if self.is_ping:
            pump['count'] = count
            peer['total'] = count * pump['write-size']
        else:
            pump['total'] = peer['total'] = total
        if verify:
            pump['verify'] = peer['verify'] = True
        command, wire = BACKENDS[backend]
        qemu_cpu, peer_cpu = self.cpus(setup)

        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix='spiceflow-bench-'))
            place = Place(folder, setup.tcp,
                          setup.certificates if self.tls else None)
            qemu = stack.enter_context(
                Qemu(setup, backend, command(place), [pump], qemu_cpu))
            far = stack.enter_context(
                Peer(setup, backend, {**place.peer_options(wire), **peer},
                     peer_cpu))
            return self.go(qemu, far, total)

    def run_bare(self, setup, total, count):
        """A second peer where the pump would be."""
        near_cpu, far_cpu = self.cpus(setup)
        near = {'mode': self.pump['mode'], 'count': count, 'total': total,
                'size': self.pump.get('write-size', 1)}
        far = {**self.peer,
               'total': count * near['size'] if self.is_ping else total}
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix='spiceflow-bench-'))
            path = f'{folder}/bare'
            pump = stack.enter_context(
                Peer(setup, BARE, {'connect': 'listen:' + path, **near},
                     near_cpu))
            while not os.path.exists(path):
                time.sleep(0.01)
            time.sleep(0.05)
            peer = stack.enter_context(
                Peer(setup, BARE, {'connect': 'unix:' + path, **far},
                     far_cpu))
            for process in pump, peer:
                process.expect('connected')
            for process, options in (pump, near), (peer, far):
                if options['mode'] in ('source', 'ping', 'feed'):
                    process.expect('ready')
                    process.go()
            near, far = pump.expect('done'), peer.expect('done')
        begin = far['started-ns'] if self.peer['mode'] == 'feed' \
            else near['started-ns']
        elapsed = max(far['finished-ns'], near['finished-ns']) - begin
        moved = near['sent'] + near['received']
        result = {'rate': moved * 1e3 / elapsed, 'elapsed': elapsed / 1e9,
                  'cpu': near['cpu-ns'] / 1e9 / (moved / GIB),
                  'pump': near, 'peer': far}
        if self.is_ping:
            result['p50'] = near['p50-ns'] / 1e3
            result['p99'] = near['p99-ns'] / 1e3
        return result

    def go(self, qemu, peer, total):
        pump = qemu.pumps[0]
        peer.expect('connected')
        pump.wait_opened()

        others, cpu = busy_ns(), qemu.cpu_ns()
        pump.start()
        if self.peer['mode'] == 'feed':
            peer.expect('ready')
            others, cpu = busy_ns(), qemu.cpu_ns()
            peer.go()
        far = peer.expect('done')
        near = pump.wait_done()
        cpu, others = qemu.cpu_ns() - cpu, busy_ns() - others

        begin = far['started-ns'] if self.peer['mode'] == 'feed' \
            else near['started-ns']
        elapsed = max(far['finished-ns'], near['finished-ns']) - begin
        moved = 2 * near['bytes-read'] if self.is_ping else total
        result = {
            'rate': moved * 1e3 / elapsed,
            'cpu': cpu / 1e9 / (moved / GIB),
            'others': max(0, others - cpu - far['cpu-ns']) / elapsed,
            'elapsed': elapsed / 1e9,
            'pump': near,
            'peer': far,
        }
        if self.is_ping:
            result['p50'] = near['p50-ns'] / 1e3
            result['p99'] = near['p99-ns'] / 1e3
        return result


def transfer(line, name, pump, peer, tls=False):
    return Transfer(name, pump, peer, [
        Figure('rate', line, 'MB/s', 0, True),
        Figure('cpu', 5 if tls else 4, 'CPU s/GiB', 3, False)], tls)


def round_trip(name, size, tls=False):
    line = 5 if tls else 3
    return Transfer(name, {'mode': 'ping', 'write-size': size,
                           'can-read-size': 4 * KIB},
                    {'mode': 'echo', 'size': size}, [
        Figure('p50', line, 'us p50', 1, False),
        Figure('p99', line, 'us p99', 1, False)], tls)


def to_client(name, write, tls=False):
    return transfer(5 if tls else 1, 'guest to client, ' + name,
                    {'mode': 'source', 'write-size': write},
                    {'mode': 'drain'}, tls)


def to_guest(name, write, can_read, tls=False):
    return transfer(5 if tls else 2, 'client to guest, ' + name,
                    {'mode': 'sink', 'can-read-size': can_read},
                    {'mode': 'feed', 'size': write}, tls)


def FIRST(job, figure):
    """What the first working version had to reach."""
    if job.tls:
        return {}
    return {
        'rate': {'socket': 0.9, 'spicevmc': 1.0},
        'p50': {'socket': 1.2},
    }.get(figure.key, {})


def FINAL(job, figure):
    if job.tls:
        return {'rate': {'socket': 0.95}, 'p50': {'socket': 1.05},
                'cpu': {'socket': 1.05}}.get(figure.key, {})
    if figure.key == 'rate':
        if job.pump['mode'] == 'source':
            return {'socket': 0.95, 'spicevmc': 1.5}
        return {'socket': 1.0} if job.pump['can-read-size'] == 4 * KIB \
            else {'socket': 2.0, 'spicevmc': 1.5}
    return {
        'p50': {'socket': 1.05, 'spicevmc': 0.8},
        'p99': {'socket': 1.05, 'spicevmc': 0.8},
        'cpu': {'socket': 1.05},
    }[figure.key]


# usb-redir's can_read is 1 MiB, that of a virtio port 4 KiB.
JOBS = [
    to_client('writes of 4 KiB', 4 * KIB),
    to_client('writes of 64 KiB', 64 * KIB),
    to_guest('writes of 4 KiB', 4 * KIB, 1 * MIB),
    to_guest('writes of 64 KiB', 64 * KIB, 1 * MIB),
    to_guest('64 KiB, can_read 4 KiB', 64 * KIB, 4 * KIB),
    round_trip('round trip, 1 byte', 1),
    round_trip('round trip, 4 KiB', 4 * KIB),
    to_client('4 KiB, TLS', 4 * KIB, tls=True),
    to_client('64 KiB, TLS', 64 * KIB, tls=True),
    to_guest('4 KiB, TLS', 4 * KIB, 1 * MIB, tls=True),
    to_guest('64 KiB, TLS', 64 * KIB, 1 * MIB, tls=True),
    round_trip('round trip, 1 byte, TLS', 1, tls=True),
    round_trip('round trip, 4 KiB, TLS', 4 * KIB, tls=True),
]
