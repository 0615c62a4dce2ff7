# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines 8 and 9: many clients on one device, many devices on one server."""

import contextlib
import tempfile
import time

from .backends import Place, agent_args, spiceflow_args
from .figures import ITSELF, Figure, Job
from .processes import BenchError, Peer, Qemu

MIB, GIB = 1 << 20, 1 << 30
CHUNK, CHUNK_HEADER = 2056, 8           # of the pump as an agent
STREAM = 16 * MIB                       # to each of its clients


class AgentCrowd(Job):
    """One guest stream to several agent clients.

    The measure is QEMU's CPU time: by the clock the clients, which are one
    process here, would be what is measured.  A client that lags behind the
    fastest one by more than its queue is dropped, and here the guest writes
    without end or mercy, so the queues hold all of it.
    """

    def __init__(self, clients):
        super().__init__(
            f'agent, one stream to 1 and {clients} clients', [
                Figure('one', 8, 'CPU s/GiB', 3, False),
                Figure('extra', 8, 'of first', 2, False)],
            ('spiceflow',), rounds=3)
        self.clients = clients

    def cpu(self, setup, clients):
        """CPU seconds per GiB of the guest's stream."""
        total = STREAM // CHUNK * CHUNK
        # What the agent says before there is a client is heard by nobody
        pump = {'mode': 'source', 'agent': True, 'total': CHUNK}
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix='spiceflow-bench-'))
            place = Place(folder, setup.tcp)
            qemu = stack.enter_context(
                Qemu(setup, 'an agent',
                     agent_args(place, clients, total + MIB), [pump]))
            qemu.pumps[0].start()
            qemu.pumps[0].wait_done()
            peer = stack.enter_context(
                Peer(setup, 'an agent', {
                    **place.peer_options('spice'), 'mode': 'agents',
                    'clients': clients,
                    'total': total - total // CHUNK * CHUNK_HEADER}))
            peer.expect('connected')
            peer.expect('ready')
            peer.go()
            qemu.pumps[0].set('total', total)
            cpu = qemu.cpu_ns()
            qemu.pumps[0].start()
            peer.expect('done')
            qemu.pumps[0].wait_done()
            cpu = qemu.cpu_ns() - cpu
        return cpu / 1e9 / (total / GIB)

    def measure(self, setup, backend):
        one = self.cpu(setup, 1)
        all_of_them = self.cpu(setup, self.clients)
        return {'one': one, 'all': all_of_them,
                'extra': (all_of_them - one) / (self.clients - 1) / one}

    def limits(self, targets, figure):
        return {ITSELF: 0.2} \
            if targets == 'final' and figure.key == 'extra' else {}


class Devices(Job):
    """Many devices, all of them busy, and a probe on one more.

    What they have to move has no end, and what counts is what they move while
    all of them are at work: neither how long it takes to start them, one
    command after the other, nor who is the last to finish.

    QEMU has one CPU, and all that is at the other end of a connection has
    another one.  Left to the kernel, a probe that has nothing beside it now
    shares QEMU's CPU and now does not, which is a factor of two; and beside
    busy ones, on QEMU's CPU, it would measure the scheduler's slices.
    """

    BUSY = 64
    PROBES = 2000
    ENDLESS = 1 << 50
    SETTLE, WINDOW = 0.2, 1.0           # seconds

    def __init__(self):
        super().__init__(
            f'{self.BUSY} devices, guest to client, 64 KiB', [
                Figure('rate', 9, 'MB/s', 0, True),
                Figure('of-one', 9, 'of line 1', 2, True),
                Figure('cpu', 9, 'CPU s/GiB', 3, False),
                Figure('cpu-of-one', 9, 'CPU of line 1', 2, False),
                Figure('idle', 9, 'us idle', 1, False),
                Figure('probe', 9, 'us busy', 1, False),
                Figure('slower', 9, 'times idle', 1, False)],
            ('spiceflow',), rounds=5)

    def run(self, setup, busy, probe):
        """@busy of the devices stream; returns rate and QEMU's CPU seconds per
        GiB, or the probe's p50."""
        source = {'mode': 'source', 'write-size': 65536,
                  'total': self.ENDLESS}
        pumps = [source] * self.BUSY
        readers = {'mode': 'crowd', 'clients': self.BUSY} \
            if busy == self.BUSY else {'mode': 'drain'}
        qemu_cpu, peer_cpu = setup.place(apart=True)
        if probe:
            pumps = pumps + [{'mode': 'ping', 'write-size': 1,
                              'count': self.PROBES}]
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix='spiceflow-bench-'))
            place = Place(folder, setup.tcp)
            qemu = stack.enter_context(
                Qemu(setup, 'many devices',
                     spiceflow_args(place, self.BUSY + 1, 2), pumps,
                     qemu_cpu))
            address = place.peer_options('spice')
            peer = stack.enter_context(
                Peer(setup, f'{busy} devices', {
                    **address, **readers, 'total': self.ENDLESS}, peer_cpu))
            peer.expect('connected')
            if probe:
                echo = stack.enter_context(
                    Peer(setup, 'the probe', {
                        **address, 'mode': 'echo', 'channel': self.BUSY,
                        'size': 1, 'total': self.PROBES}, peer_cpu))
                echo.expect('connected')
                qemu.pumps[-1].wait_opened()
            for pump in qemu.pumps[:busy]:
                pump.wait_opened()
            for pump in qemu.pumps[:busy]:
                pump.start()
            time.sleep(self.SETTLE)
            if not probe:
                return self.watch(qemu, busy)
            qemu.pumps[-1].start()
            # Each look is a command to the main loop: not too many
            done = qemu.pumps[-1].wait_done(interval=0.05)
            self.written(qemu, busy)
            return {'p50': done['p50-ns'] / 1e3}

    @staticmethod
    def written(qemu, busy):
        """When and how much, of each of them."""
        found = []
        for number, pump in enumerate(qemu.pumps[:busy]):
            results = pump.results()
            if not results['running']:
                raise BenchError(f'device {number} is not busy: {results}')
            found.append((time.monotonic(), results['bytes-written']))
        return found

    def watch(self, qemu, busy):
        cpu, before = qemu.cpu_ns(), self.written(qemu, busy)
        time.sleep(self.WINDOW)
        cpu, after = qemu.cpu_ns() - cpu, self.written(qemu, busy)
        moved = sum(b[1] - a[1] for a, b in zip(before, after))
        rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(before, after)]
        return {'rate': sum(rates) / 1e6, 'cpu': cpu / 1e9 / (moved / GIB)}

    def measure(self, setup, backend):
        one = self.run(setup, 1, probe=False)
        crowd = self.run(setup, self.BUSY, probe=False)
        idle = self.run(setup, 0, probe=True)
        probed = self.run(setup, self.BUSY, probe=True)
        return {'rate': crowd['rate'], 'of-one': crowd['rate'] / one['rate'],
                'cpu': crowd['cpu'], 'cpu-of-one': crowd['cpu'] / one['cpu'],
                'idle': idle['p50'], 'probe': probed['p50'],
                'slower': probed['p50'] / idle['p50']}

    def limits(self, targets, figure):
        if targets != 'final':
            return {}
        return {'of-one': {ITSELF: 0.9},
                'slower': {ITSELF: 3.0}}.get(figure.key, {})


JOBS = [AgentCrowd(8), AgentCrowd(64), Devices()]
