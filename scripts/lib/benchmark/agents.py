# SPDX-License-Identifier: GPL-2.0-or-later
"""Line 6: a file copied to the guest's agent, by how far the client is away.

The client is the real one, on libspice-client-glib, and what it does is what
dropping a file on its window does.  The agent is a thread of ours behind a
bridge (tests/qemu/pump/bridge.c): it takes what the backend gives to the guest
as fast as it comes, so that the backend's window and the way there are what is
measured.  In between is a relay that delays (tests/bench/relay.c); without a
delay there is none.

The time is the client's, from the start of the copy to the agent's success.
"""

import contextlib
import hashlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from .backends import Place, bridge_args
from .figures import Figure, Job
from .processes import BenchError, Process, Qemu
from .programs import ROOT

MIB = 1 << 20
LINE = 6
DEADLINE = 120
CHUNK = struct.Struct('<II')            # port, size
MESSAGE = struct.Struct('<IIQI')        # protocol, type, opaque, size
CLIENT_PORT = 1
ANNOUNCE, XFER_START, XFER_STATUS, XFER_DATA = 6, 10, 11, 12
CAN_SEND, SUCCESS = 0, 3
DETAILED_ERRORS = 1 << 14           # a capability


class Agent(threading.Thread):
    """Takes one file after another; knows how many bytes, and their sum."""

    def __init__(self, path, verify):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.verify = verify
        self.error = None
        self.digest = None
        self.size = self.received = 0
        self.message = bytearray()      # the one that comes, if it is wanted
        self.left = self.kind = 0
        self.start()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self.sock.close()

    def run(self):
        try:
            self.serve()
        except (OSError, BenchError) as error:
            self.error = error

    def say(self, kind, payload):
        size = len(payload) + MESSAGE.size
        self.sock.sendall(CHUNK.pack(CLIENT_PORT, size) +
                          MESSAGE.pack(1, kind, 0, len(payload)) + payload)

    def serve(self):
        buffer = bytearray(MIB)
        view = memoryview(buffer)
        fill = 0
        while count := self.sock.recv_into(view[fill:]):
            fill += count
            used = self.take(view[:fill])
            view[:fill - used] = view[used:fill]
            fill -= used

    def take(self, data):
        """Whole chunks; returns how much that was."""
        at, end = 0, len(data)
        while end - at >= CHUNK.size:
            port, size = CHUNK.unpack_from(data, at)
            if end - at < CHUNK.size + size:
                break
            at += CHUNK.size
            if port == CLIENT_PORT:
                self.piece(data[at:at + size])
            at += size
        return at

    def piece(self, data):
        if not self.left:
            if len(data) < MESSAGE.size:
                raise BenchError('the agent got a piece of a header')
            _, self.kind, _, self.left = MESSAGE.unpack_from(data)
            data = data[MESSAGE.size:]
            self.message.clear()
            self.first = True
        self.left -= len(data)
        if self.kind == XFER_DATA:
            self.file(data[12:] if self.first else data)
        else:
            self.message += data
        self.first = False
        if not self.left:
            self.end()

    def file(self, data):
        self.received += len(data)
        if self.verify:
            self.digest.update(data)

    def end(self):
        if self.kind == ANNOUNCE and self.message[:4] == b'\1\0\0\0':
            self.say(ANNOUNCE, struct.pack('<II', 0, DETAILED_ERRORS))
        elif self.kind == XFER_START:
            text = bytes(self.message[4:]).decode()
            size = [line for line in text.splitlines()
                    if line.startswith('size=')]
            self.id = bytes(self.message[:4])
            self.size = int(size[0][5:])
            self.received = 0
            self.digest = hashlib.sha256()
            self.say(XFER_STATUS, self.id + struct.pack('<I', CAN_SEND))
        elif self.kind == XFER_DATA and self.received == self.size:
            self.say(XFER_STATUS, self.id + struct.pack('<I', SUCCESS))


class Relay(Process):
    def __init__(self, setup, target, round_trip):
        super().__init__('the relay',
                         [setup.relay, '--connect', target,
                          '--round-trip', str(round_trip)],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = self.line(self.child.stdout.fileno())['port']

    def close(self):
        self.child.stdin.close()
        super().close()
        self.child.stdout.close()


class FileCopy(Job):
    """One file, by a client that is so many ms of round trip away."""

    def __init__(self, round_trip, size):
        super().__init__(
            f'file copy, {round_trip} ms, {size / MIB:g} MiB', [
                Figure('rate', LINE, 'MB/s', 2, True)],
            ('spicevmc', 'spiceflow'), rounds=3)
        self.round_trip = round_trip
        self.size = size

    def run(self, setup, backend, size, verify=False):
        sys.path.insert(0, str(ROOT / 'tests'))
        from lib.paths import RigError
        from lib.sfclient import ClientFailed, SfClient
        try:
            with contextlib.ExitStack() as stack:
                return self.copy(setup, backend, size, verify, stack,
                                 SfClient)
        except (RigError, ClientFailed) as error:
            raise BenchError(f'{self.name} with {backend}: {error}') from None

    def copy(self, setup, backend, size, verify, stack, client_class):
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix='spiceflow-bench-'))
        path = os.path.join(folder, 'file')
        content = os.urandom(MIB)
        with open(path, 'wb') as file:
            for at in range(0, size, MIB):
                file.write(content[:min(MIB, size - at)])
        far = os.path.join(folder, 'agent')
        place = Place(folder, tcp=True)
        qemu = stack.enter_context(
            Qemu(setup, backend, bridge_args(backend, place, 'vdagent', far)))
        agent = Agent(far, verify)
        stack.callback(agent.close)
        port = place.port
        if self.round_trip:
            port = stack.enter_context(
                Relay(setup, f'tcp:127.0.0.1:{port}', self.round_trip)).port
        client = client_class(f'spice://127.0.0.1:{port}', folder=folder)
        stack.callback(client.close)
        client.find(r'^agent-caps ', DEADLINE)
        # What is exchanged at the beginning is not part of the copy
        time.sleep(0.1 + 2 * self.round_trip / 1e3)
        cpu = qemu.cpu_ns()
        client.send('agent', 'copy', path)
        done = client.outcome('agent', 'copy', 'file', timeout=DEADLINE)
        cpu = qemu.cpu_ns() - cpu
        if agent.error:
            raise BenchError(f'{self.name} with {backend}: {agent.error}')
        if agent.received != size:
            raise BenchError(f'{self.name} with {backend}: the agent got '
                             f'{agent.received} of {size} bytes')
        if verify and agent.digest.digest() != self.expected(content, size):
            raise BenchError(f'{self.name} with {backend}: the agent got '
                             'another content')
        seconds = float(done['seconds'])
        return {'rate': size / 1e6 / seconds, 'seconds': seconds,
                'cpu': cpu / 1e9 / (size / (1 << 30))}

    @staticmethod
    def expected(content, size):
        digest = hashlib.sha256()
        for at in range(0, size, MIB):
            digest.update(content[:min(MIB, size - at)])
        return digest.digest()

    def check(self, setup, backend):
        self.run(setup, backend, min(self.size, 2 * MIB) // 2 + 777,
                 verify=True)

    def measure(self, setup, backend):
        return self.run(setup, backend, min(self.size, setup.total))

    def limits(self, targets, figure):
        least = {0: 1.0, 50: 5.0}
        if targets == 'final':
            least.update({10: 3.0, 200: 5.0})
        return {'spicevmc': least[self.round_trip]} \
            if self.round_trip in least else {}


JOBS = [FileCopy(0, 256 * MIB), FileCopy(10, 16 * MIB), FileCopy(50, 4 * MIB),
        FileCopy(200, 2 * MIB)]
