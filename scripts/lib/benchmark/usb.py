# SPDX-License-Identifier: GPL-2.0-or-later
"""Line 7: USB redirection.

What a user sees, in a Linux guest on an xHCI controller:

* the CD drive that libspice-client-glib emulates, read from first to last with
  requests of 1 MiB, past the guest's page cache;
* the device of tests/bench/usb.c, read in bulk through usbfs, which can also
  be reached by -chardev socket.

One guest for each backend is booted and kept for all rounds.  Where there is
no usable KVM it is emulated, and takes most of the time itself; QEMU's CPU time
then is mostly the guest's as well.

And what a backend adds to one bulk transfer, without a guest: a frontend that
behaves as usb-redir does asks the same device for one transfer after the other
(tests/qemu/pump/usb-pump.c).
"""

import hashlib
import os
import sys
import tempfile
import time
from contextlib import ExitStack

from .backends import Place, device_args, socket_args
from .figures import Figure, Job
from .processes import BenchError, Peer, Qemu
from .programs import ROOT

LINE = 7
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CD_MOST = 64 * MIB
CD_READ = 256 * MIB             # the same from the beginning
BULK_SIZE = 64 * KIB
BULK_DEPTH = 4
BULK_MOST = 128 * MIB
TIMEOUT = 120
WIRES = {'socket': 'raw', 'spicevmc': 'spice', 'spiceflow': 'spice'}


def usb_args(backend, place):
    """A usbredir chardev c0."""
    if backend == 'socket':
        return socket_args(place)
    return device_args(backend, place, 'usbredir')


class Machine:
    """A guest with one usb-redir, and the client whose device it has."""

    def __init__(self, setup, backend, tcp):
        sys.path.insert(0, str(ROOT / 'tests'))
        from lib import qemu, rig
        from lib.guest import GuestError
        from lib.paths import RigError
        from lib.sfclient import ClientFailed

        self.errors = RigError, qemu.QmpError, GuestError, ClientFailed
        self.backend = backend
        self.stack = ExitStack()
        self.rig = rig.Rig()
        self.stack.callback(self.rig.close)
        self.place = Place(self.rig.folder, tcp)
        try:
            self.guest = self.rig.guest(
                *usb_args(backend, self.place), '-device', 'qemu-xhci',
                '-device', 'usb-redir,chardev=c0')
        except self.errors as error:
            self.close()
            raise BenchError(f'a guest with {backend}: {error}') from None

    def close(self):
        self.stack.close()

    def run(self, command):
        return self.guest.run(command, TIMEOUT)

    def plug_cd(self, path):
        where = f'spice://127.0.0.1:{self.place.port}' if self.place.port \
            else f'spice+unix://{self.place.path}'
        self.run('echo 0 > /sys/module/usb_storage/parameters/delay_use')
        client = self.rig.client('--usb-channel', '0', uri=where)
        client.find(r'^channel-event usbredir 0 opened')
        client.send('usb', 'cd', path)
        client.outcome('usb', 'cd', os.path.basename(path))
        self.run('until [ -e /sys/block/sr0 ]; do usleep 5000; done')

    def plug_device(self, setup):
        options = self.place.peer_options(WIRES[self.backend])
        del options['tls']
        device = self.stack.enter_context(
            Peer(setup, f'a guest with {self.backend}', options,
                 program=setup.usb))
        device.expect('connected')
        self.run('usbtool wait')

    def cpu_seconds(self):
        return self.guest.qemu.process.cpu_seconds()


class GuestJob(Job):
    """Bytes read by a guest, which is kept from round to round."""

    def __init__(self, name, backends, tcp):
        super().__init__(
            'real guest, ' + name + (', TCP' if tcp else ''), [
                Figure('rate', LINE, 'MB/s', 0, True),
                Figure('cpu', LINE, 'CPU s/GiB', 2, False)], backends)
        self.tcp = tcp
        self.machines = {}

    def machine(self, setup, backend):
        if backend not in self.machines:
            machine = Machine(setup, backend, self.tcp)
            self.machines[backend] = machine
            self.plug(setup, machine)
        return self.machines[backend]

    def plug(self, setup, machine):
        raise NotImplementedError

    def read(self, setup, machine):
        """Returns bytes and seconds."""
        raise NotImplementedError

    def finish(self):
        while self.machines:
            self.machines.popitem()[1].close()

    def guarded(self, setup, backend, function):
        try:
            return function(self.machine(setup, backend))
        except Exception as error:
            machine = self.machines.get(backend)
            if machine and isinstance(error, machine.errors):
                raise BenchError(f'a guest with {backend}: {error}') from None
            raise

    def measure(self, setup, backend):
        def work(machine):
            cpu = machine.cpu_seconds()
            moved, seconds = self.read(setup, machine)
            cpu = machine.cpu_seconds() - cpu
            return {'rate': moved / 1e6 / seconds, 'seconds': seconds,
                    'cpu': cpu / (moved / GIB)}
        return self.guarded(setup, backend, work)


class CdRead(GuestJob):
    """The emulated CD drive, from first to last."""

    def __init__(self, tcp):
        super().__init__('emulated CD', ('spicevmc', 'spiceflow'), tcp)

    @staticmethod
    def image(folder, size):
        digest = hashlib.sha256()
        path = os.path.join(folder, 'cd.img')
        with open(path, 'wb') as file:
            for _ in range(size // MIB):
                block = os.urandom(MIB)
                digest.update(block)
                file.write(block)
        return path, digest.hexdigest()

    def plug(self, setup, machine):
        machine.size = min(CD_MOST, max(MIB, setup.total // 16 // MIB * MIB))
        path, machine.sum = self.image(machine.rig.folder, machine.size)
        machine.plug_cd(path)

    def read(self, setup, machine):
        times = max(1, min(CD_READ, setup.total // 8) // machine.size)
        begin = time.monotonic()
        machine.run(f'for i in $(seq {times}); do dd if=/dev/sr0 of=/dev/null '
                    'bs=1M iflag=direct 2>/dev/null || exit; done')
        return times * machine.size, time.monotonic() - begin

    def check(self, setup, backend):
        def work(machine):
            if machine.run('sha256sum /dev/sr0').split()[0] != machine.sum:
                raise BenchError(f'{self.name} with {backend}: the guest read '
                                 'another content')
        self.guarded(setup, backend, work)

    def limits(self, targets, figure):
        return {'spicevmc': 1.0} if figure.key == 'rate' else {}


class BulkRead(GuestJob):
    """The device of tests/bench, in bulk."""

    def __init__(self, tcp):
        super().__init__('bulk in, 64 KiB', tuple(WIRES), tcp)

    def plug(self, setup, machine):
        machine.plug_device(setup)

    @staticmethod
    def command(total, *options):
        return ' '.join(('usbtool bulk-in', str(BULK_SIZE),
                         str(total // BULK_SIZE), f'-d {BULK_DEPTH}',
                         *options))

    def read(self, setup, machine):
        total = min(BULK_MOST, setup.total // 8)
        done = machine.guest.start(self.command(total, '-n')).result(TIMEOUT)
        return done['bytes'], done['ns'] / 1e9

    def check(self, setup, backend):
        self.guarded(setup, backend, lambda machine: machine.guest.start(
            self.command(2 * MIB)).result(TIMEOUT))

    def limits(self, targets, figure):
        return {'socket': 0.95, 'spicevmc': 1.0} if figure.key == 'rate' \
            else {}


class Transfer(Job):
    """One bulk transfer after the other, without a guest."""

    def __init__(self, name, size):
        super().__init__(f'one bulk transfer, {name}', [
            Figure('p50', LINE, 'us p50', 1, False),
            Figure('p99', LINE, 'us p99', 1, False)], tuple(WIRES))
        self.size = size

    def measure(self, setup, backend):
        pump = {'driver': 'spiceflow-usb-pump', 'size': self.size,
                'count': max(100, setup.count // 2)}
        cpus = setup.place()            # as in line 3
        with ExitStack() as stack:
            place = Place(stack.enter_context(tempfile.TemporaryDirectory(
                prefix='spiceflow-bench-')), setup.tcp)
            qemu = stack.enter_context(
                Qemu(setup, backend, usb_args(backend, place), [pump],
                     cpus[0]))
            options = place.peer_options(WIRES[backend])
            del options['tls']
            device = stack.enter_context(
                Peer(setup, backend, options, cpus[1], setup.usb))
            device.expect('connected')
            qemu.pumps[0].wait_opened()
            qemu.pumps[0].start()
            done = qemu.pumps[0].wait_done()
        return {'p50': done['p50-ns'] / 1e3, 'p99': done['p99-ns'] / 1e3}

    def limits(self, targets, figure):
        return {'socket': 1.1} if figure.key == 'p50' else {}


JOBS = [CdRead(tcp=False), CdRead(tcp=True), BulkRead(tcp=False),
        BulkRead(tcp=True), Transfer('512 B', 512),
        Transfer('4 KiB', 4 * KIB), Transfer('16 KiB', 16 * KIB)]
