# SPDX-License-Identifier: GPL-2.0-or-later
"""Back pressure, stop and start, comings and goings, byte by byte exact.

There is no guest: a pump stands in its place, which takes and gives exactly
what it is told, so what is measured is the back end alone.
"""

import os
import re
import select
import time

from lib import spiceclient as sc
from lib.paths import seconds
from lib.process import wait_until
from lib.pump import Pump, pattern, pump_args
from lib.samples import MIB

PORT_NAME = "org.example.flow.0"
QUEUE = 256 * 1024


def start(rig, *more, queue=QUEUE, server="max-clients=2", paused=False,
          name=PORT_NAME):
    return rig.qemu(
        "-object", "spiceflow-server,id=sf0,%s,type=unix,path=%s" %
        (server, rig.socket),
        "-chardev", "spiceflow,id=p1,name=%s,queue-size=%d" % (name, queue),
        *pump_args("p1"), *more, machine="none", paused=paused)


class Flow:
    """What every test here begins with."""

    OPTIONS = {}

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig, **self.OPTIONS)
        self.pump = Pump(self.qemu)

    def begin(self):
        """A fresh client on the port, a pump at rest."""
        self.pump.stop()
        self.qemu.wait_flow("p1", "clients", [])
        self.session = self.rig.raw()
        self.port = self.session.open_port(PORT_NAME)
        return self.port

    def flow(self):
        return self.qemu.flow("p1")

    def kib(self):
        return self.qemu.process.private_kib()

    def queued(self, direction, timeout=5):
        """Wait until something waits in that direction; how much."""
        return wait_until(lambda: sum(c["to-%s-bytes" % direction]
                                      for c in self.flow()["clients"]),
                          timeout, "bytes that wait")


class TestCork(Flow):
    """Small messages that a guest writes without a pause go out together;
    nothing else waits for company."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig, "-trace", "spiceflow_channel_uncork")
        self.pump = Pump(self.qemu)
        self.seen = 0

    def corks(self):
        """How many messages went out together, each time since."""
        lines = re.findall(r"spiceflow_channel_uncork channel 10:0 messages "
                           r"(\d+)", self.qemu.log())
        new, self.seen = lines[self.seen:], len(lines)
        return [int(line) for line in new]

    def stream(self, total, **settings):
        """The client reads it all, and it is right."""
        self.begin()
        self.pump.start("source", total=total, **settings)
        assert self.port.receive_data(total, 30) == pattern(total)
        self.pump.wait()
        self.session.close()

    def test_burst(self):
        """However small the messages are, or however large as long as they
        are called small."""
        for size, most in ((1, 32), (50, 32), (2000, 32), (16000, 4)):
            self.stream(min(size * 5000, 4 * MIB), write_size=size)
            corks = self.corks()
            assert max(corks) == most, (size, max(corks))

    def test_large(self):
        """Large ones have no part in it."""
        self.stream(8 * MIB, write_size=20000)
        assert not self.corks()

    def test_few(self):
        """However few they are, they come, though nothing follows them."""
        self.begin()
        for count in range(1, 70):
            self.pump.start("source", total=count, write_size=1)
            assert self.port.receive_data(count, 5) == pattern(count), count
            self.pump.wait()
        assert self.corks()

    def test_answers(self):
        """Whoever waits for an answer gets what was said at once."""
        self.begin()
        self.pump.start("ping", write_size=100, count=500)
        for _ in range(500):
            self.port.send_data(self.port.receive_data(100))
        self.pump.wait()
        assert not self.corks()


class TestBackPressure(Flow):

    def test_stalled_client(self):
        """A client that does not read: the guest has to wait, no more than
        queue-size is kept, and when the client reads again nothing is lost,
        doubled or out of order."""
        self.begin()
        total = 64 * MIB
        kib = self.kib()
        self.pump.start("source", total=total, write_size=4096)
        written = self.pump.settle("bytes-written")
        assert written < 4 * MIB, "the guest was not held back: %d" % written
        flow = self.flow()
        client, = flow["clients"]
        assert 0 < client["to-client-bytes"] <= QUEUE, client
        assert flow["guest-waits"]
        grown = self.kib() - kib
        assert grown < QUEUE // 1024 + 1500, "grown by %d KiB" % grown
        expected, got = pattern(total), 0
        while got < total:
            part = self.port.receive_data(MIB, 20)
            assert part == expected[got:got + MIB], "differs after %d" % got
            got += MIB
        assert self.pump.wait()["bytes-written"] == total
        assert self.pump.results()["watches"] > 0

    def test_stalled_guest(self):
        """A guest that does not read: the client's socket blocks, no more
        than queue-size is kept, and nothing is lost."""
        port = self.begin()
        total = 64 * MIB
        kib = self.kib()
        data = port.message(sc.MSGC_DATA, pattern(total))
        sent = push(port.connection, data)
        assert sent < 4 * MIB, "the client was not held back: %d" % sent
        client, = self.flow()["clients"]
        assert 0 < client["to-guest-bytes"] <= QUEUE, client
        grown = self.kib() - kib
        assert grown < QUEUE // 1024 + 1500, "grown by %d KiB" % grown
        self.pump.start("sink", total=total, can_read_size=4096)
        port.connection.send(data[sent:], 30)
        assert self.pump.wait()["bytes-read"] == total
        assert self.flow()["to-guest-peak"] <= QUEUE

    def test_stalled_guest_small_messages(self):
        """Messages of one byte cost more than a byte: their number is
        bounded too (D25)."""
        port = self.begin()
        total = 300000
        kib = self.kib()
        data = b"".join(port.message(sc.MSGC_DATA, pattern(1, at))
                        for at in range(total))
        sent = push(port.connection, data)
        grown = self.kib() - kib
        assert grown < QUEUE // 1024 * 3 + 1500, "grown by %d KiB" % grown
        self.pump.start("sink", total=total, can_read_size=1000)
        port.connection.send(data[sent:], 30)
        assert self.pump.wait()["bytes-read"] == total

    def test_stalled_client_small_messages(self):
        """Likewise toward the client."""
        self.begin()
        total = 300000
        kib = self.kib()
        self.pump.start("source", total=total, write_size=1)
        self.pump.settle("bytes-written")
        grown = self.kib() - kib
        assert grown < QUEUE // 1024 * 3 + 1500, "grown by %d KiB" % grown
        assert self.port.receive_data(total, 30) == pattern(total)
        self.pump.wait()

    def test_both_stalled(self):
        """Full queues both ways at once, then both go on."""
        port = self.begin()
        total = 4 * MIB
        self.pump.start("source", total=total, write_size=9999)
        self.pump.settle("bytes-written")
        data = port.message(sc.MSGC_DATA, pattern(total))
        sent = push(port.connection, data)
        assert 0 < sent < len(data)
        assert port.receive_data(total, 20) == pattern(total)
        self.pump.wait()
        self.pump.start("sink", total=total, can_read_size=9999)
        port.connection.send(data[sent:])
        self.pump.wait()

    def test_guest_takes_little_at_a_time(self):
        """A frontend that takes one byte, or seven, per call."""
        port = self.begin()
        for step in 1, 7:
            total = 20000
            self.pump.start("sink", total=total, can_read_size=step)
            port.send_data(pattern(total), 4096)
            assert self.pump.wait()["bytes-read"] == total
            port.receive_data(1)

    def test_sizes_of_writes_and_messages(self):
        """Everything from one byte to more than a queue holds."""
        port = self.begin()
        for size in (1, 2, 100, 4096, 65535, 65536, 65537, QUEUE,
                     QUEUE + 1, MIB):
            total = max(size * 2, 5000) + 3
            self.pump.start("source", total=total, write_size=size)
            assert port.receive_data(total, 20) == pattern(total), size
            self.pump.wait()
            self.pump.start("sink", total=total, can_read_size=size)
            port.send_data(pattern(total), size)
            self.pump.wait()
            assert port.receive_data(1)

    def test_echo(self):
        """Both directions feed each other without standing still."""
        port = self.begin()
        total = 8 * MIB
        data = pattern(total)
        self.pump.start("echo", total=total, verify=False,
                        can_read_size=65536)
        back, sent = bytearray(), 0
        whole = b"".join(port.message(sc.MSGC_DATA, data[at:at + 50000])
                         for at in range(0, total, 50000))
        port.connection.sock.setblocking(False)
        stream = bytearray()
        end = time.monotonic() + seconds(30)
        while len(back) < total and time.monotonic() < end:
            try:
                sent += port.connection.sock.send(whole[sent:sent + 200000])
            except BlockingIOError:
                pass
            try:
                stream += port.connection.sock.recv(1 << 18)
            except BlockingIOError:
                time.sleep(0.001)
            while len(stream) >= 6:
                size = int.from_bytes(stream[2:6], "little")
                if len(stream) < 6 + size:
                    break
                if stream[:2] == b"\x65\0":
                    back += stream[6:6 + size]
                del stream[:6 + size]
        assert back == data

    def test_ping_pong(self):
        """Ten thousand round trips of one byte each."""
        port = self.begin()
        self.pump.start("echo", total=10000, verify=False)
        for number in range(10000):
            port.send(sc.MSGC_DATA, bytes([number & 255]))
            assert port.receive_data(1)[0] == number & 255
        self.pump.wait()

    def test_d13_idle_costs_nothing(self):
        """Full queues on both sides and nobody moving: no CPU is used."""
        port = self.begin()
        self.pump.start("source", total=4 * MIB)
        self.pump.settle("bytes-written")
        push(port.connection, port.message(sc.MSGC_DATA, bytes(4 * MIB)))
        before = self.qemu.process.cpu_seconds()
        time.sleep(1)
        used = self.qemu.process.cpu_seconds() - before
        assert used < 0.1, "%.2f s of CPU in one second of rest" % used


def push(connection, data, patience=0.5):
    """Send until the server takes no more; how much that was."""
    sock, sent = connection.sock, 0
    sock.setblocking(False)
    while sent < len(data):
        try:
            sent += sock.send(data[sent:sent + MIB])
        except BlockingIOError:
            if not select.select([], [sock], [], patience)[1]:
                break
    sock.setblocking(True)
    return sent


class TestComingsAndGoings(Flow):

    def test_d2_to_guest(self):
        """What a client has sent and the guest not taken goes with the
        client: the next one begins on a clean stream."""
        for offered in (0, 10, 5000):
            port = self.begin()
            self.pump.start("sink", total=offered or 1, verify=False)
            if offered == 0:
                self.pump.stop()
            port.send_data(b"\xee" * 50000)
            self.queued("guest")
            if offered:
                assert self.pump.wait()["bytes-read"] == offered
            self.session.close()
            wait_until(lambda: not self.pump.opened(), 5, "CLOSED")
            assert self.flow()["to-guest-bytes"] == 0
            port = self.begin()
            self.pump.start("sink", total=3000)
            port.send_data(pattern(3000))
            self.pump.wait()
            self.session.close()

    def test_d2_to_client(self):
        """What the guest wrote for a client is not for the next one."""
        self.begin()
        self.pump.start("source", total=4 * MIB, verify=False)
        self.pump.settle("bytes-written")
        self.queued("client")
        self.pump.stop()
        self.session.close()
        port = self.begin()
        assert port.silent(0.3)
        self.pump.start("source", total=100000)
        assert port.receive_data(100000) == pattern(100000)

    def test_d1_leave_with_data_queued(self):
        """A client that leaves while its data waits for the guest: the guest
        goes on, and so does QEMU."""
        for _ in range(20):
            port = self.begin()
            push(port.connection, port.message(sc.MSGC_DATA, bytes(MIB)), 0.05)
            self.session.close()
            self.pump.start("sink", total=10, verify=False)
        port = self.begin()
        self.pump.start("sink", total=10, verify=False)
        port.send_data(bytes(10))
        self.pump.wait()

    def test_d31_data_before_the_guest_opens(self):
        """What a client sends before the guest has opened the port arrives
        when it does, without another push."""
        port = self.begin()
        assert not port.port_init.opened
        port.send_data(pattern(3000))
        self.queued("guest")
        time.sleep(0.2)
        self.pump.start("sink", total=3000)
        assert self.pump.wait()["bytes-read"] == 3000
        port.expect_event(sc.EVENT_OPENED)

    def test_guest_sees_the_client(self):
        """OPENED and CLOSED follow the channel, not the session."""
        assert not self.pump.opened()
        session = self.rig.raw()
        session.attach()
        assert not self.pump.opened()
        port = session.open_port(PORT_NAME)
        wait_until(self.pump.opened, 5, "OPENED")
        session.drop(port)
        wait_until(lambda: not self.pump.opened(), 5, "CLOSED")
        session.listed = None
        session.open_port(PORT_NAME)
        wait_until(self.pump.opened, 5, "OPENED again")
        session.close()
        wait_until(lambda: not self.pump.opened(), 5, "CLOSED again")

    def test_client_sees_the_guest(self):
        """PORT_INIT says whether the guest is there, PORT_EVENT what
        changes."""
        port = self.begin()
        assert not port.port_init.opened
        for _ in range(3):
            self.pump.start("sink", total=1)
            port.expect_event(sc.EVENT_OPENED)
            self.pump.stop()
            port.expect_event(sc.EVENT_CLOSED)
        self.pump.start("sink", total=1)
        self.session.close()
        session = self.rig.raw()
        self.qemu.wait_flow("p1", "clients", [])
        assert session.open_port(PORT_NAME).port_init.opened

    def test_port_is_closed_while_its_queue_is_full(self):
        """Events come through in their order, behind data that waits."""
        self.begin()
        self.pump.start("source", total=4 * MIB)
        self.pump.settle("bytes-written")
        self.pump.stop()
        kinds = []
        while not kinds or kinds[-1] != (sc.MSG_PORT_EVENT, 1):
            kind, body = self.port.receive()
            kinds.append((kind, body[0] if kind == sc.MSG_PORT_EVENT
                          else None))
        assert kinds[0] == (sc.MSG_PORT_EVENT, 0)
        assert {k for k, _ in kinds[1:-1]} == {sc.MSG_DATA}

    def test_channel_is_opened_again_at_once(self):
        """A client may let a port go and take it back, many times."""
        session = self.rig.raw()
        self.pump.start("echo", total=0, verify=False)
        for number in range(100):
            port = wait_until(lambda: self.try_open(session), 5, "the port")
            port.send_data(b"%04d" % number)
            assert port.receive_data(4) == b"%04d" % number
            session.drop(port)

    @staticmethod
    def try_open(session):
        try:
            return session.open_port(PORT_NAME)
        except sc.LinkRefused as refused:
            assert refused.error == sc.ERR_CHANNEL_NOT_AVAILABLE
            return None


class TestStopAndStart(Flow):
    """QMP stop is a stop, for every reason; nothing is lost by it (D33)."""

    def begin(self):
        self.qemu.command("cont")
        return super().begin()

    def test_d33_nothing_to_the_guest_while_stopped(self):
        port = self.begin()
        self.pump.start("sink", total=20000)
        port.send_data(pattern(5000))
        wait_until(lambda: self.pump.results()["bytes-read"] == 5000, 5,
                   "the first part")
        self.qemu.command("stop")
        port.send_data(pattern(15000, 5000))
        self.queued("guest")
        time.sleep(0.2)
        assert self.pump.results()["bytes-read"] == 5000
        assert not self.flow()["running"]
        self.qemu.command("cont")
        assert self.pump.wait()["bytes-read"] == 20000

    def test_d33_nothing_from_the_guest_while_stopped(self):
        port = self.begin()
        self.qemu.command("stop")
        self.pump.start("source", total=20000)
        time.sleep(0.2)
        assert self.pump.results()["bytes-written"] == 0
        assert port.receive()[0] == sc.MSG_PORT_EVENT
        assert port.silent(0.1)
        self.qemu.command("cont")
        assert port.receive_data(20000) == pattern(20000)
        self.pump.wait()

    def test_budget_holds_while_stopped(self):
        """Sockets are served within the budget, then no longer read."""
        port = self.begin()
        self.qemu.command("stop")
        data = port.message(sc.MSGC_DATA, pattern(8 * MIB))
        sent = push(port.connection, data)
        assert sent < 2 * MIB
        assert self.queued("guest") <= QUEUE
        self.pump.start("sink", total=8 * MIB)
        self.qemu.command("cont")
        port.connection.send(data[sent:])
        self.pump.wait()

    def test_many_stops(self):
        """Stopped and started in the middle of everything."""
        port = self.begin()
        total = 4 * MIB
        self.pump.start("source", total=total, write_size=7000)
        got = bytearray()
        while len(got) < total:
            self.qemu.command("stop")
            self.qemu.command("cont")
            got += port.receive_data(min(100000, total - len(got)))
        assert got == pattern(total)
        data = port.message(sc.MSGC_DATA, pattern(total))
        self.pump.start("sink", total=total, can_read_size=7000)
        for at in range(0, len(data), 100000):
            self.qemu.command("stop")
            port.connection.send(data[at:at + 100000])
            self.qemu.command("cont")
        self.pump.wait()

    def test_client_leaves_while_stopped(self):
        """The frontend learns of it when the VM runs again."""
        self.begin()
        self.pump.start("sink", total=1)
        assert self.pump.opened()
        self.qemu.command("stop")
        self.session.close()
        self.qemu.wait_flow("p1", "clients", [])
        assert self.pump.opened()
        self.qemu.command("cont")
        wait_until(lambda: not self.pump.opened(), 5, "CLOSED")

    def test_another_client_while_stopped(self):
        """One goes, another comes: the guest sees both, and only the bytes
        of the second."""
        port = self.begin()
        self.pump.start("sink", total=3000)
        self.qemu.command("stop")
        port.send_data(b"\xee" * 9000)
        self.queued("guest")
        self.session.close()
        self.qemu.wait_flow("p1", "clients", [])
        port = self.rig.raw().open_port(PORT_NAME)
        port.send_data(pattern(3000))
        self.qemu.command("cont")
        assert self.pump.wait()["bytes-read"] == 3000

    def test_client_comes_while_stopped(self):
        self.begin()
        self.session.close()
        self.qemu.wait_flow("p1", "clients", [])
        self.pump.start("sink", total=3000)
        self.qemu.command("stop")
        port = self.rig.raw().open_port(PORT_NAME)
        port.send_data(pattern(3000))
        time.sleep(0.1)
        assert not self.pump.opened()
        self.qemu.command("cont")
        self.pump.wait()


def test_started_paused(rig):
    """A VM that was never started: a client may come before."""
    qemu = start(rig, paused=True)
    pump = Pump(qemu)
    port = rig.raw().open_port(PORT_NAME)
    pump.start("sink", total=3000)
    port.send_data(pattern(3000))
    time.sleep(0.2)
    assert pump.results()["bytes-read"] == 0
    qemu.command("cont")
    pump.wait()


def test_several_ports_do_not_disturb_each_other(rig):
    """Eight ports of one client, one of them stalled both ways."""
    names = ["org.example.%d" % number for number in range(8)]
    more = []
    for number, name in enumerate(names):
        more += ["-chardev", "spiceflow,id=c%d,name=%s" % (number, name)]
        more += pump_args("c%d" % number, "pump%d" % number)
    qemu = start(rig, *more)
    pumps = [Pump(qemu, "pump%d" % number) for number in range(8)]
    session = rig.raw()
    ports = [session.open(sc.PORT, 1 + number) for number in range(8)]
    pumps[0].start("source", total=64 * MIB)
    push(ports[0].connection, ports[0].message(sc.MSGC_DATA, bytes(8 * MIB)))
    for port, pump in zip(ports[1:], pumps[1:]):
        pump.start("echo", total=0, verify=False)
    for _ in range(50):
        data = [os.urandom(3000) for _ in ports]
        for port, part in zip(ports[1:], data[1:]):
            port.send_data(part)
        for port, part in zip(ports[1:], data[1:]):
            assert port.receive_data(len(part)) == part
    flow = [qemu.flow("c%d" % n) for n in range(8)]
    assert flow[0]["clients"][0]["to-client-bytes"] > 0
    for one in flow[1:]:
        assert one["to-guest-bytes"] == 0


def test_1000_connects_and_disconnects(rig):
    """Links, sessions and ports of every kind of end: neither memory nor a
    descriptor stays behind."""
    qemu = start(rig)
    process = qemu.process
    Pump(qemu).start("source", total=1 << 40, write_size=1000)

    def visit(number):
        way = number % 5
        if way == 0:                    # says nothing
            link = rig.link()
            link.close()
            return
        if way == 1:                    # leaves in the link phase
            link = rig.link()
            link.start_link(sc.MAIN)
            link.close()
            return
        session = rig.raw()
        if way == 2:
            session.attach()
        elif way == 3:                  # leaves with queues full
            port = session.open_port(PORT_NAME)
            port.send_data(bytes(5000))
        else:                           # breaks the protocol
            session.open_port(PORT_NAME)
            session.main.connection.offer(
                session.main.message(sc.MSGC_MIGRATE_DATA, b"", 1 << 31))
        session.close()
        wait_until(lambda: not qemu.stats()["clients"],
                   5, "the leave", 0.001)

    for number in range(100):
        visit(number)
    kib, open_before = process.private_kib(), len(process.descriptors())
    for number in range(1000):
        visit(number)
    wait_until(lambda: len(process.descriptors()) <= open_before, 5,
               "the end of all connections")
    grown = process.private_kib() - kib
    assert grown < 600, "QEMU grew by %d KiB in 1,000 visits" % grown


test_1000_connects_and_disconnects.deadline = 300
