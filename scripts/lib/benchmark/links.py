# SPDX-License-Identifier: GPL-2.0-or-later
"""Line 11: the time from connecting to the list of channels.

The peer does it over and over, each time as a new client; what it needs
itself, for the encrypted password and TLS, is part of the time with every
backend.
"""

import contextlib
import tempfile

from .backends import BACKENDS, Place
from .figures import Figure, Job
from .processes import Peer, Qemu


class Link(Job):
    def __init__(self, name, password=False, tls=False):
        super().__init__('connect to list of channels, ' + name,
                         [Figure('p50', 11, 'ms p50', 2, False)],
                         ('spicevmc', 'spiceflow'))
        self.password = password
        self.tls = tls

    def measure(self, setup, backend):
        command, wire = BACKENDS[backend]
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix='spiceflow-bench-'))
            place = Place(folder, setup.tcp,
                          setup.certificates if self.tls else None,
                          self.password)
            qemu = stack.enter_context(Qemu(setup, backend, command(place)))
            peer = stack.enter_context(
                Peer(setup, backend, {**place.peer_options(wire),
                                      'mode': 'link', 'count': setup.links}))
            peer.expect('connected')
            cpu = qemu.cpu_ns()
            done = peer.expect('done')
            cpu = qemu.cpu_ns() - cpu
        return {'p50': done['p50-ns'] / 1e6, 'p99': done['p99-ns'] / 1e6,
                'cpu': cpu / 1e6 / setup.links, 'peer': done}

    def limits(self, targets, figure):
        return {'spicevmc': 0.5} if targets == 'final' else {}


JOBS = [
    Link('no password'),
    Link('password', password=True),
    Link('TLS', tls=True),
]
