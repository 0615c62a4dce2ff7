# SPDX-License-Identifier: GPL-2.0-or-later
"""Line 3, smart cards: a guest's APDU to the client, and the answer back.

Both ends are this program, the guest's behind a bridge
(tests/qemu/pump/bridge.c): what it needs itself, and the bridge, is part of
the time with every backend.  254 bytes is what fits a short APDU.
"""

import contextlib
import os
import sys
import tempfile
import time

from .backends import Place, bridge_args
from .figures import Figure, Job
from .processes import BenchError, Qemu
from .programs import ROOT

LINE = 3
SIZE = 254
WARM_UP = 200


def receive(sock, count):
    data = b''
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise BenchError('a connection was closed')
        data += piece
    return data


@contextlib.contextmanager
def on_cpu(cpu):
    """This program's threads stay on one CPU meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Apdus(Job):
    def __init__(self):
        super().__init__(f'APDU round trips of {SIZE} bytes', [
            Figure('rate', LINE, '1/s', 0, True),
            Figure('p50', LINE, 'us p50', 1, False)],
            ('spicevmc', 'spiceflow'))

    def run(self, setup, backend, count):
        sys.path.insert(0, str(ROOT / 'tests'))
        from lib import spiceclient, vsc
        from lib.paths import RigError
        cpu, _ = setup.place()
        try:
            with contextlib.ExitStack() as stack:
                if cpu is not None:
                    stack.enter_context(on_cpu(cpu))
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix='spiceflow-bench-'))
                far = os.path.join(folder, 'reader')
                place = Place(folder)
                qemu = stack.enter_context(
                    Qemu(setup, backend,
                         bridge_args(backend, place, 'smartcard', far)))
                device = vsc.Device(far)
                stack.callback(device.close)
                session = spiceclient.Session(place.path)
                stack.callback(session.close)
                if backend == 'spicevmc':
                    session.attach()
                card = vsc.Card(session)
                card.say(vsc.READER_ADD, vsc.NO_READER, b'bench\0')
                device.answer(vsc.READER_ADD)
                card.take()
                return self.go(qemu, device.socket, card, vsc,
                               spiceclient.MSGC_DATA, count)
        except (RigError, OSError) as error:
            raise BenchError(f'{self.name} with {backend}: {error}') from None

    @staticmethod
    def go(qemu, guest, card, vsc, kind, count):
        client = card.channel.connection.sock
        for sock in guest, client:
            sock.settimeout(20)
        question = vsc.message('>', vsc.APDU, 0, bytes(range(SIZE)))
        answer = vsc.message('<', vsc.APDU, 0, bytes(SIZE))
        to_client = card.channel.message(
            kind, vsc.message('<', vsc.APDU, 0, bytes(range(SIZE))))
        from_client = card.channel.message(kind, answer)
        to_guest = vsc.message('>', vsc.APDU, 0, bytes(SIZE))
        times = []
        for number in range(WARM_UP + count):
            if number == WARM_UP:
                begin, cpu = time.monotonic(), qemu.cpu_ns()
            start = time.monotonic_ns()
            guest.sendall(question)
            got = receive(client, len(to_client))
            client.sendall(from_client)
            back = receive(guest, len(to_guest))
            times.append(time.monotonic_ns() - start)
            if got[6:] != to_client[6:] or back != to_guest:
                raise BenchError('an APDU came back changed')
        elapsed, cpu = time.monotonic() - begin, qemu.cpu_ns() - cpu
        times = sorted(times[WARM_UP:])
        return {'rate': count / elapsed, 'p50': times[count // 2] / 1e3,
                'p99': times[count * 99 // 100] / 1e3,
                'cpu': cpu / 1e3 / count}

    def check(self, setup, backend):
        self.run(setup, backend, 20)

    def measure(self, setup, backend):
        return self.run(setup, backend, max(500, setup.count // 5))

    def limits(self, targets, figure):
        return {'spicevmc': 1.0}


JOBS = [Apdus()]
