# SPDX-License-Identifier: GPL-2.0-or-later
"""Many busy devices on one server: each waits for its turn of the main loop,
and none loses, repeats or forgets a byte over it.

How much goes in a turn is a matter of tests/qemu/unit/test-pace.c; here is
what the channels make of it.  All pumps stream at once, so nearly always most
of the channels wait.
"""

import threading

from lib import spiceclient as sc
from lib.certs import Certificates
from lib.process import wait_until
from lib.pump import Pump, pattern, pump_args
from lib.samples import MIB

DEVICES = 12
NAME = "org.example.pace.%d"
# More than goes in a turn of the main loop, many times over
TOTAL = 4 * MIB


class Busy:
    """DEVICES ports with a pump behind each."""

    def setup(self, rig):
        self.rig = rig
        self.tls = None
        self.start([])

    def start(self, more, server=""):
        options = []
        for n in range(DEVICES):
            options += ["-chardev", "spiceflow,id=p%d,name=%s" % (n, NAME % n),
                        *pump_args("p%d" % n, "pump%d" % n)]
        self.qemu = self.rig.qemu(
            *more, "-object", "spiceflow-server,id=sf0,type=unix,path=%s%s" %
            (self.rig.socket, server), *options, machine="none")
        self.pumps = [Pump(self.qemu, "pump%d" % n) for n in range(DEVICES)]

    def open(self):
        """A client on every port, and pumps at rest."""
        for pump in self.pumps:
            pump.stop()
        for n in range(DEVICES):
            self.qemu.wait_flow("p%d" % n, "clients", [])
        self.session = self.rig.raw(tls=self.tls)
        ports = {}
        for kind, number in self.session.attach():
            port = self.session.open(kind, number)
            ports[sc.PortInit(port.expect(sc.MSG_PORT_INIT)).name] = port
        return [ports[NAME % n] for n in range(DEVICES)]

    @staticmethod
    def together(*jobs):
        """Run JOBS at once; the first failure of one is that of all."""
        failures = []

        def run(job):
            try:
                job()
            except Exception as error:      # whatever a thread meets
                failures.append(error)

        threads = [threading.Thread(target=run, args=(job,), daemon=True)
                   for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    @staticmethod
    def take(port, total=TOTAL, offset=0):
        """A job: that much of the stream comes, and every byte of it."""
        def job():
            assert port.receive_data(total, 60) == pattern(total, offset)
        return job

    def take_all(self, ports, total=TOTAL, offset=0):
        self.together(*(self.take(port, total, offset) for port in ports))

    def start_all(self, mode, **settings):
        for pump in self.pumps:
            pump.start(mode, **settings)


class TestStreams(Busy):
    """All devices stream to their client."""

    def test_all_of_it_arrives(self):
        ports = self.open()
        self.start_all("source", total=TOTAL, write_size=65536)
        self.take_all(ports)
        for n, pump in enumerate(self.pumps):
            pump.wait()
            assert not self.qemu.flow("p%d" % n)["guest-waits"]

    def test_odd_sizes(self):
        ports = self.open()
        for n, pump in enumerate(self.pumps):
            pump.start("source", total=MIB, write_size=977 + 5003 * n)
        self.take_all(ports, MIB)

    def test_both_ways(self):
        """What a channel that waits has to read waits too, and comes."""
        ports = self.open()
        data = pattern(TOTAL // 4)
        self.start_all("echo", total=len(data), can_read_size=65536)

        def feed(port):
            return lambda: port.send_data(data, timeout=60)

        self.together(*(feed(port) for port in ports),
                      *(self.take(port, len(data)) for port in ports))

    def test_to_the_guest(self):
        ports = self.open()
        self.start_all("sink", total=TOTAL, can_read_size=4096)
        data = pattern(TOTAL)
        self.together(*((lambda port=port: port.send_data(data, timeout=60))
                        for port in ports))
        for pump in self.pumps:
            assert pump.wait(60)["bytes-read"] == TOTAL

    def test_stop_and_cont(self):
        """A VM that stops while they wait goes on where it was."""
        ports = self.open()
        self.start_all("source", total=TOTAL, write_size=65536)

        def stop_and_cont():
            for _ in range(10):
                self.qemu.command("stop")
                self.qemu.command("cont")

        self.together(stop_and_cont, *map(self.take, ports))


class TestConsole(Busy):
    """A frontend that can not wait is not made to."""

    def test_nothing_is_lost(self):
        ports = self.open()
        console = self.pumps[0]
        total = 900 * 1024              # its queue holds that
        for pump in self.pumps[1:]:
            pump.start("source", total=4 * TOTAL, write_size=65536)

        def write():
            wait_until(lambda: self.pumps[1].results()["bytes-written"] >
                       TOTAL, 20, "busy devices")
            for _ in range(3):
                console.start("source", total=total, write_size=65536, burst=0,
                              drops=True)
                self.take(ports[0], total)()
                assert console.wait()["short-writes"] == 0

        self.together(write, *(self.take(port, 4 * TOTAL)
                               for port in ports[1:]))

    def test_it_would_be_noticed(self):
        """With a queue that is too small it does lose some."""
        self.open()
        self.pumps[0].start("source", total=8 * MIB, write_size=65536, burst=0,
                            drops=True)
        assert self.pumps[0].wait()["short-writes"] > 0


class TestLeaving(Busy):
    """Who goes while its channel waits leaves no hole in the line."""

    def stream_without_end(self):
        self.start_all("source", total=1 << 40, write_size=65536)

    def test_channels_close(self):
        ports = self.open()
        self.stream_without_end()
        self.take_all(ports)
        for port in ports[::2]:
            self.session.drop(port)
        for n in range(0, DEVICES, 2):
            self.qemu.wait_flow("p%d" % n, "clients", [])
        self.take_all(ports[1::2], offset=TOTAL)

    def test_client_leaves_and_another_comes(self):
        for _ in range(5):
            ports = self.open()
            self.stream_without_end()
            self.take_all(ports, 65536)
            self.session.close()

    def test_guest_closes(self):
        ports = self.open()
        self.stream_without_end()
        self.take_all(ports)
        for pump in self.pumps[::2]:
            pump.stop()
        for port in ports[::2]:
            port.wait_event(sc.EVENT_CLOSED)
        self.take_all(ports[1::2], offset=TOTAL)


class TestTls(TestStreams):
    """The same over TLS, where a byte costs more."""

    def setup(self, rig):
        self.rig = rig
        certs = Certificates(rig.path("certs"))
        self.tls = sc.tls_context(certs.authority)
        self.start(certs.creds_args(), ",tls-creds=tls0")

    def test_both_ways(self):
        """In one thread for each: a TLS session of Python is not for two."""
        ports = self.open()
        data, piece = pattern(TOTAL // 4), 65536
        self.start_all("echo", total=len(data), can_read_size=65536)

        def exchange(port):
            for at in range(0, len(data), piece):
                port.send_data(data[at:at + piece], timeout=60)
                self.take(port, piece, at)()

        self.together(*((lambda port=port: exchange(port)) for port in ports))
