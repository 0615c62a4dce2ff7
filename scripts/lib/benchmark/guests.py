# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines 1 to 3 with a real guest: what a user sees.

One Linux guest for each backend is booted and kept for all rounds; its virtio
port is the chardev's frontend, tests/guest/porttool.c writes and reads there,
and the peer is the same as with the pump.  Where there is no usable KVM the
guest is emulated, and then it, not the backend, is what limits.

Times are the peer's where it sees both ends of the work, else the guest's.
"""

import sys

from .backends import BACKENDS, PORT, Place
from .figures import Figure, Job
from .processes import BenchError, Peer
from .programs import ROOT

MIB = 1 << 20
NAME = PORT % 0
MOST = 256 * MIB
TIMEOUT = 120


class Machine:
    """A guest whose port 0 is the chardev c0."""

    def __init__(self, setup, backend):
        sys.path.insert(0, str(ROOT / 'tests'))
        from lib import qemu, rig
        from lib.guest import GuestError
        from lib.paths import RigError

        self.errors = (RigError, qemu.QmpError, GuestError)
        command, self.wire = BACKENDS[backend]
        self.backend = backend
        self.rig = rig.Rig()
        self.place = Place(self.rig.folder, setup.tcp)
        try:
            self.guest = self.rig.guest(
                '-device', 'virtio-serial-pci', *command(self.place),
                '-device', f'virtserialport,chardev=c0,name={NAME}')
        except self.errors as error:
            self.close()
            raise BenchError(f'a guest with {backend}: {error}') from None

    def close(self):
        self.rig.close()

    def peer(self, setup, options):
        return Peer(setup, f'a guest with {self.backend}',
                    {**self.place.peer_options(self.wire), **options})


class Fleet:
    """The guests that run, one for each backend."""

    def __init__(self):
        self.machines = {}

    def machine(self, setup, backend):
        if backend not in self.machines:
            self.machines[backend] = Machine(setup, backend)
        return self.machines[backend]

    def close(self):
        while self.machines:
            self.machines.popitem()[1].close()


class GuestJob(Job):
    def __init__(self, fleet, name, figure):
        super().__init__('real guest, ' + name, [figure])
        self.fleet = fleet

    def measure(self, setup, backend):
        machine = self.fleet.machine(setup, backend)
        try:
            return self.work(setup, machine)
        except machine.errors as error:
            raise BenchError(f'a guest with {backend}: {error}') from None

    def work(self, setup, machine):
        raise NotImplementedError


class ToClient(GuestJob):
    def __init__(self, fleet, name, size):
        super().__init__(fleet, 'guest to client, ' + name,
                         Figure('rate', 1, 'MB/s', 0, True))
        self.size = size

    def work(self, setup, machine):
        total = min(setup.total, MOST)
        with machine.peer(setup, {'mode': 'drain', 'total': total}) as peer:
            peer.expect('connected')
            job = machine.guest.start(
                f'porttool gen {NAME} {total} -w {self.size}')
            done = peer.expect('done')
            job.result(TIMEOUT)
        return {'rate': total * 1e3 / (done['finished-ns'] -
                                       done['first-ns']), 'peer': done}


class ToGuest(GuestJob):
    def __init__(self, fleet, name, size):
        super().__init__(fleet, 'client to guest, ' + name,
                         Figure('rate', 2, 'MB/s', 0, True))
        self.size = size

    def work(self, setup, machine):
        total = min(setup.total, MOST)
        with machine.peer(setup, {'mode': 'feed', 'total': total,
                                  'size': self.size}) as peer:
            peer.expect('connected')
            job = machine.guest.start(f'porttool drain {NAME} {total}')
            peer.expect('ready')
            peer.go()
            return job.result(TIMEOUT)


class RoundTrip(GuestJob):
    def __init__(self, fleet):
        super().__init__(fleet, 'round trip, 1 byte',
                         Figure('median_us', 3, 'us p50', 1, False))

    def work(self, setup, machine):
        count = max(100, setup.count // 10)
        with machine.peer(setup, {'mode': 'echo', 'total': count}) as peer:
            peer.expect('connected')
            job = machine.guest.start(f'porttool ping {NAME} {count}')
            return job.result(TIMEOUT)


def jobs(fleet):
    return [ToClient(fleet, '4 KiB', 4096),
            ToClient(fleet, '64 KiB', 65536),
            ToGuest(fleet, '64 KiB', 65536),
            RoundTrip(fleet)]
