# SPDX-License-Identifier: GPL-2.0-or-later
"""Line 10: memory of QEMU.

What counts is the memory that the process has for itself alone, after the
work has settled.  A client or a device is weighed as the difference that many
of them make.
"""

import contextlib
import tempfile
import time

from .backends import BACKENDS, Place, spiceflow_args
from .figures import ITSELF, Figure, Job
from .processes import Peer, Qemu

KIB, MIB = 1 << 10, 1 << 20
QUEUE = 1 * MIB             # queue-size, which is left at its default


class Weigh(Job):
    """Something in a QEMU with as few other things as can be."""

    def place(self, stack, setup):
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix='spiceflow-bench-'))
        return Place(folder, setup.tcp)


class Idle(Weigh):
    def __init__(self):
        super().__init__('QEMU with one idle device and no client', [
            Figure('idle', 10, 'MiB', 1, False)], rounds=3)

    def measure(self, setup, backend):
        command, _wire = BACKENDS[backend]
        with contextlib.ExitStack() as stack:
            place = self.place(stack, setup)
            qemu = stack.enter_context(Qemu(setup, backend, command(place)))
            return {'idle': qemu.memory() / MIB}


class PerClient(Weigh):
    CLIENTS = 200

    def __init__(self):
        super().__init__('each idle client', [
            Figure('each', 10, 'KiB', 1, False)], ('spiceflow',), rounds=3)

    def measure(self, setup, backend):
        with contextlib.ExitStack() as stack:
            place = self.place(stack, setup)
            qemu = stack.enter_context(
                Qemu(setup, backend, spiceflow_args(
                    place, max_clients=self.CLIENTS + 1)))
            options = {**place.peer_options('spice'), 'mode': 'idle'}
            # The first one brings in what all use
            first = stack.enter_context(Peer(setup, backend, options))
            first.expect('connected')
            first.expect('done')
            before = qemu.memory()
            many = stack.enter_context(
                Peer(setup, backend, {**options, 'clients': self.CLIENTS}))
            many.expect('connected')
            many.expect('done')
            return {'each': (qemu.memory() - before) / KIB / self.CLIENTS}

    def limits(self, targets, figure):
        return {ITSELF: 16} if targets == 'final' else {}


class PerDevice(Weigh):
    DEVICES = 100

    def __init__(self):
        super().__init__('each idle device', [
            Figure('each', 10, 'KiB', 1, False)], ('spicevmc', 'spiceflow'),
            rounds=3)

    def memory(self, setup, backend, devices):
        command, _wire = BACKENDS[backend]
        with contextlib.ExitStack() as stack:
            place = self.place(stack, setup)
            qemu = stack.enter_context(
                Qemu(setup, backend, command(place, devices)))
            return qemu.memory()

    def measure(self, setup, backend):
        few = self.memory(setup, backend, 1)
        many = self.memory(setup, backend, 1 + self.DEVICES)
        return {'each': (many - few) / KIB / self.DEVICES}


class Stalled(Weigh):
    """A client that reads nothing while the guest writes as it can."""

    def __init__(self):
        super().__init__('growth with a client that has stalled', [
            Figure('growth', 10, 'KiB', 0, False)], rounds=1)

    def measure(self, setup, backend):
        command, wire = BACKENDS[backend]
        with contextlib.ExitStack() as stack:
            place = self.place(stack, setup)
            qemu = stack.enter_context(
                Qemu(setup, backend, command(place),
                     [{'mode': 'source', 'total': 1 << 40}]))
            peer = stack.enter_context(
                Peer(setup, backend, {**place.peer_options(wire),
                                      'mode': 'stall'}))
            peer.expect('connected')
            qemu.pumps[0].wait_opened()
            before = qemu.memory()
            qemu.pumps[0].start()
            most, end = 0, time.monotonic() + setup.stall
            while time.monotonic() < end:
                time.sleep(0.2)
                most = max(most, qemu.memory())
            return {'growth': (most - before) / KIB,
                    'pump': qemu.pumps[0].results()}

    def limits(self, targets, figure):
        # The bound is that of the bytes; a quarter for what keeps them
        return {ITSELF: 1.25 * QUEUE / KIB} if targets == 'final' else {}


JOBS = [Idle(), PerClient(), PerDevice(), Stalled()]
