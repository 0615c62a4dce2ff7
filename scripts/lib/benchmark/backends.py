# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines of the backends, and where they listen."""

import socket
from pathlib import Path

PORT = 'org.spiceflow.bench.%d'
PASSWORD = 'correct horse'


class Place:
    """Where the chardev listens: a new address for each measurement.

    @tcp: not a UNIX socket; @certificates: encrypted (only over TCP: the
    peers can not do it otherwise); @password: clients have to know it.
    """

    def __init__(self, folder, tcp=False, certificates=None, password=False):
        self.path = str(Path(folder) / 'chardev.sock')
        self.certificates = certificates
        self.password = password
        self.port = None
        if tcp or certificates:
            with socket.socket() as s:
                s.bind(('127.0.0.1', 0))
                self.port = s.getsockname()[1]

    def peer_options(self, wire):
        options = {
            'connect': f'tcp:127.0.0.1:{self.port}' if self.port
                       else f'unix:{self.path}',
            'wire': wire,
            'tls': bool(self.certificates),
        }
        if self.password:
            options['password'] = PASSWORD
        return options

    def objects(self):
        """The credentials that the others refer to."""
        args = []
        if self.certificates:
            args += self.certificates.creds_args()
        if self.password:
            args += ['-object', f'secret,id=sec0,data={PASSWORD}']
        return args


def socket_args(place, devices=1):
    assert devices == 1 and not place.password
    where = f'host=127.0.0.1,port={place.port},nodelay=on' if place.port \
        else f'path={place.path}'
    tls = ',tls-creds=tls0' if place.certificates else ''
    return [*place.objects(),
            '-chardev', f'socket,id=c0,{where},server=on,wait=off{tls}']


def spicevmc_args(place, devices=1):
    if place.certificates:
        # Its TLS is OpenSSL's, which reads the files itself
        folder = place.certificates.server
        where = f'addr=127.0.0.1,tls-port={place.port},' \
            f'x509-cert-file={folder}/server-cert.pem,' \
            f'x509-key-file={folder}/server-key.pem,' \
            f'x509-cacert-file={folder}/ca-cert.pem'
    elif place.port:
        where = f'addr=127.0.0.1,port={place.port}'
    else:
        where = f'unix=on,addr={place.path}'
    where += ',password-secret=sec0' if place.password \
        else ',disable-ticketing=on'
    args = ['-object', f'secret,id=sec0,data={PASSWORD}'] \
        if place.password else []
    args += ['-spice', where]
    for number in range(devices):
        args += ['-chardev', f'spiceport,id=c{number},name={PORT % number}']
    return args


def spiceflow_server(place, max_clients=1):
    where = f'type=inet,host=127.0.0.1,port={place.port}' if place.port \
        else f'type=unix,path={place.path}'
    if place.certificates:
        where += ',tls-creds=tls0'
    if place.password:
        where += ',password-secret=sec0'
    return [*place.objects(), '-object',
            f'spiceflow-server,id=sf0,max-clients={max_clients},{where}']


def spiceflow_args(place, devices=1, max_clients=1):
    args = spiceflow_server(place, max_clients)
    for number in range(devices):
        args += ['-chardev', f'spiceflow,id=c{number},name={PORT % number}']
    return args


def device_args(backend, place, name):
    """A chardev c0 for a device of QEMU's, by the name that both SPICE
    backends have for it."""
    server = spicevmc_args(place, 0) if backend == 'spicevmc' \
        else spiceflow_server(place)
    return server + ['-chardev', f'{backend},id=c0,name={name}']


def bridge_args(backend, place, name, far):
    """The same, and a bridge between it and a socket, FAR, that stands for
    the guest's device."""
    return device_args(backend, place, name) + [
        '-chardev', f'socket,id=far,path={far},server=on,wait=off',
        '-device', 'spiceflow-bridge,chardev=c0,far=far']


def agent_args(place, max_clients, queue_size):
    return spiceflow_server(place, max_clients) + \
        ['-chardev', f'spiceflow,id=c0,name=vdagent,queue-size={queue_size}']


# Name: command line, what the peer has to speak.  `bare` is no backend but two
# peers with nothing between them: what the kernel allows at most.
BARE = 'bare'
BACKENDS = {
    BARE: (None, 'raw'),
    'socket': (socket_args, 'raw'),
    'spicevmc': (spicevmc_args, 'spice'),
    'spiceflow': (spiceflow_args, 'spice'),
}
SUBJECT = 'spiceflow'
