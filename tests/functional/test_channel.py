# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of a client that is linked and means no good, or none at all."""

import os
import struct

from lib import agentguest as ag
from lib import lz4
from lib import spiceclient as sc
from lib.process import wait_until
from lib.pump import Pump, pattern, pump_args

PORT_NAME = "org.example.channel.0"
WITNESS = "org.example.witness.0"
KINDS = [(sc.PORT, 0), (sc.PORT, 1), (sc.USBREDIR, 0)]
HUGE = (0xffffffff, 0xfffffff8, 0x80000000, 0x7fffffff, 0x01000000)
# Messages that raw data may really come in, of any size
DATA = (sc.MSGC_DATA,)
# The largest piece of the agent's, an ordinary message
PIECE = ag.message(ag.CLIPBOARD, bytes(2048 - 20))


def start(rig, address=None, server="max-clients=4"):
    return rig.qemu(
        "-object", "spiceflow-server,id=sf0,%s,%s" %
        (server, address or "type=unix,path=" + rig.socket),
        "-chardev", "spiceflow,id=p1,name=" + PORT_NAME,
        "-chardev", "spiceflow,id=p2,name=" + WITNESS,
        "-chardev", "spiceflow,id=usb,name=usbredir",
        "-chardev", "spiceflow,id=agent,name=vdagent",
        *pump_args("p1"), *pump_args("p2", "witness"),
        *pump_args("usb", "pump-usb"), *pump_args("agent", "pump-agent"),
        machine="none")


class Witness:
    """Another client that must notice nothing of what goes on."""

    def __init__(self, rig, qemu):
        self.session = rig.raw()
        self.port = self.session.open_port(WITNESS)
        self.pump = Pump(qemu, "witness")
        self.pump.start("echo", total=0, verify=False)

    def asked(self):
        data = os.urandom(999)
        self.port.send_data(data)
        assert self.port.receive_data(len(data)) == data
        self.session.main.send(sc.MSGC_MAIN_MOUSE_MODE_REQUEST, b"\1\0")
        self.session.main.expect(sc.MSG_MAIN_MOUSE_MODE)


class TestHostile:
    """One channel after the other is used badly; what is refused closes that
    channel alone, QEMU stays as it was, and another client never notices."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig)
        self.agent = Pump(self.qemu, "pump-agent")
        self.agent.start("sink", total=1 << 40, verify=False)
        self.witness = None

    def look(self):
        """Begin: a witness, and QEMU's memory."""
        self.witness = Witness(self.rig, self.qemu)
        self.try_all(self.rig.raw(), [(sc.MSGC_ACK, 0)])
        self.kib = self.qemu.process.private_kib()

    def unharmed(self, kib=3000):
        self.witness.asked()
        grown = self.qemu.process.private_kib() - self.kib
        assert grown < kib, "QEMU grew by %d KiB" % grown

    @staticmethod
    def try_all(session, messages, body=b"\x5a" * 64, channel=None):
        """Send headers with those sizes to a session's channel, the body of
        each cut short; then leave."""
        target = session.main if channel is None else session.open(*channel)
        for kind, size in messages:
            target.connection.offer(target.message(kind, body[:size], size))
        session.close()

    def closes(self, channel, kind, body=b"", size=None):
        """The server answers that message by closing the channel."""
        channel.connection.offer(channel.message(kind, body, size))
        channel.wait_closed(5)

    def test_d4_huge_sizes_on_main(self):
        self.look()
        for kind in list(range(1, 125)) + [200, 201, 202, 65535]:
            for size in HUGE:
                self.try_all(self.rig.raw(), [(kind, size)])
        self.unharmed()

    def test_d4_huge_sizes_on_devices(self):
        self.look()
        for channel in KINDS[0], KINDS[2]:
            for kind in list(range(1, 8)) + list(range(100, 105)) + [
                    199, 200, 201, 202, 203, 65535]:
                for size in HUGE:
                    self.try_all(self.rig.raw(), [(kind, size)],
                                 channel=channel)
        self.unharmed()

    def test_d4_limits(self):
        """The largest message of each kind is taken, one byte more closes
        the channel before anything is allocated for it."""
        self.look()
        for kind, limit in ((sc.MSGC_MAIN_AGENT_DATA, 2048),
                            (sc.MSGC_PONG, 64), (sc.MSGC_ACK, 64),
                            (sc.MSGC_ACK_SYNC, 64),
                            (sc.MSGC_DISCONNECTING, 64),
                            (sc.MSGC_MAIN_CLIENT_INFO, 256),
                            (sc.MSGC_MAIN_QUALITY_INDICATOR, 256)):
            session = self.rig.raw()
            session.main.send(kind, PIECE if kind == sc.MSGC_MAIN_AGENT_DATA
                              else bytes(limit))
            assert session.attach() == KINDS, kind
            self.closes(session.main, kind, b"", limit + 1)
            session.close()
        self.unharmed()

    def test_d4_sizes_that_must_be_exact(self):
        for kind, right in ((sc.MSGC_MAIN_ATTACH_CHANNELS, 0),
                            (sc.MSGC_MAIN_MOUSE_MODE_REQUEST, 2),
                            (sc.MSGC_MAIN_AGENT_START, 4),
                            (sc.MSGC_MAIN_AGENT_TOKEN, 4)):
            for size in range(8):
                session = self.rig.raw()
                if size == right:
                    session.main.send(kind, bytes(size))
                    session.attach()
                else:
                    self.closes(session.main, kind, bytes(size))
                session.close()
        for size in (0, 2, 100):
            session = self.rig.raw()
            port = session.open(sc.PORT, 0)
            self.closes(port, sc.MSGC_PORT_EVENT, bytes(size))
            assert session.attach(), "the session ended with its channel"
            session.close()

    def test_d4_data_of_4_gib(self):
        """The size of raw data needs no memory: what comes is passed on."""
        self.look()
        session = self.rig.raw()
        port = session.open_port(PORT_NAME)
        pump = Pump(self.qemu)
        total = 3 << 20
        pump.start("sink", total=total, can_read_size=65536)
        port.connection.send(port.message(
            sc.MSGC_DATA, pattern(total), 0xffffffff))
        assert pump.wait()["bytes-read"] == total
        session.close()
        self.unharmed(5000)

    def test_d5_agent_token_before_agent_start(self):
        """Tokens for a channel that was not started mean nothing."""
        self.look()
        session = self.rig.raw()
        assert session.init.agent_connected
        session.main.agent_token(5)
        session.main.agent_token(sc.UNLIMITED)
        assert session.attach() == KINDS
        session.main.agent_start(3)
        session.main.agent_token(sc.UNLIMITED)
        session.main.agent_token(sc.UNLIMITED)
        session.main.agent_start(0)
        session.close()
        self.unharmed()

    def test_d5_agent_data_before_agent_start(self):
        self.look()
        session = self.rig.raw()
        for _ in range(300):
            session.main.agent_data(PIECE)
        assert session.attach() == KINDS
        session.close()
        self.unharmed()

    def test_d5_flush_mark(self):
        """A mark of a migration that nobody has begun closes that channel,
        and the session only if it is the main one."""
        self.look()
        session = self.rig.raw()
        for channel in KINDS[0], KINDS[2]:
            self.closes(session.open(*channel), sc.MSGC_MIGRATE_FLUSH_MARK)
            assert session.attach() == KINDS
        self.closes(session.main, sc.MSGC_MIGRATE_FLUSH_MARK)
        session.close()
        self.unharmed()

    def test_d5_migration_messages(self):
        """DO_SEAMLESS and its kin in a session that does not migrate: the
        client is put out or answered, and that is all."""
        self.look()
        for kind, body in (
                (sc.MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS, b"\1\0\0\0"),
                (sc.MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS, b"\xff\xff\xff\xff"),
                (sc.MSGC_MAIN_MIGRATE_DST_DO_SEAMLESS, b""),
                (sc.MSGC_MAIN_MIGRATE_CONNECTED, b""),
                (sc.MSGC_MAIN_MIGRATE_CONNECTED_SEAMLESS, b""),
                (sc.MSGC_MAIN_MIGRATE_CONNECT_ERROR, b""),
                (sc.MSGC_MAIN_MIGRATE_END, b""),
                (sc.MSGC_MIGRATE_DATA, bytes(100)),
                (sc.MSGC_MIGRATE_DATA, b""),
                (sc.MSGC_MIGRATE_DATA, b"MNMD" + b"\xff" * 61)):
            for times in 1, 2:
                session = self.rig.raw()
                for _ in range(times):
                    session.main.connection.offer(
                        session.main.message(kind, body))
                session.close()
            session = self.rig.raw()
            port = session.open(sc.PORT, 0)
            port.connection.offer(port.message(kind, body))
            session.close()
        self.unharmed()

    def test_every_type_and_size(self):
        """No message that is short and complete does harm."""
        self.look()
        for channel in (None, KINDS[0], KINDS[2]):
            for size in (0, 1, 2, 4, 12, 20, 40):
                for kind in list(range(0, 128)) + [
                        199, 200, 201, 202, 203, 255, 256, 32768, 65535]:
                    self.try_all(self.rig.raw(), [(kind, size)],
                                 channel=channel)
        self.unharmed()

    def test_random_bytes(self):
        """Noise in place of messages."""
        self.look()
        for channel in (None, KINDS[0], KINDS[2]):
            for _ in range(60):
                session = self.rig.raw()
                target = session.open(*channel) if channel else session.main
                target.connection.offer(os.urandom(5000))
                session.close()
        self.unharmed()

    def test_agent_noise(self):
        """Noise in agent messages, within what a window allows."""
        self.look()
        for _ in range(60):
            session = self.rig.raw()
            session.main.agent_start(1)
            for _ in range(8):
                data = os.urandom(os.urandom(1)[0] * 8 + 1)
                session.main.connection.offer(session.main.message(
                    sc.MSGC_MAIN_AGENT_DATA, data))
            session.close()
        self.unharmed()

    def test_cut_off_in_a_message(self):
        """A client that leaves after each number of bytes."""
        self.look()
        for channel in None, KINDS[0]:
            kind = sc.MSGC_MAIN_AGENT_START if channel is None \
                else sc.MSGC_DATA
            whole = struct.pack("<HI", kind, 4) + b"abcd"
            for size in range(len(whole)):
                session = self.rig.raw()
                target = session.open(*channel) if channel else session.main
                target.connection.send(whole[:size])
                session.close()
        self.unharmed()

    def test_d30_harmless_messages(self):
        """Empty data, CLIENT_INFO and QUALITY_INDICATOR are not worth a
        connection."""
        session = self.rig.raw()
        main = session.main
        main.send(sc.MSGC_MAIN_CLIENT_INFO, bytes(8))
        main.send(sc.MSGC_MAIN_QUALITY_INDICATOR, bytes(12))
        main.send(sc.MSGC_MAIN_QUALITY_INDICATOR)
        main.agent_data(b"")
        main.agent_start()
        main.agent_data(b"")
        assert session.attach() == KINDS
        port = session.open_port(PORT_NAME)
        pump = Pump(self.qemu)
        pump.start("echo", total=6, verify=False)
        for part in (b"", b"abc", b"", b"", b"def", b""):
            port.send(sc.MSGC_DATA, part)
        assert port.receive_data(6) == b"abcdef"
        session.close()

    def test_base_messages_are_ignored(self):
        """Those that every channel has and nobody needs to answer."""
        session = self.rig.raw()
        port = session.open_port(PORT_NAME)
        for channel in session.main, port:
            channel.send(sc.MSGC_ACK_SYNC, bytes(4))
            channel.send(sc.MSGC_ACK)
            channel.send(sc.MSGC_PONG, bytes(12))
            channel.send(sc.MSGC_DISCONNECTING, bytes(12))
        pump = Pump(self.qemu)
        pump.start("echo", total=3, verify=False)
        port.send_data(b"abc")
        assert port.receive_data(3) == b"abc"
        session.close()

    def test_one_byte_at_a_time(self):
        """Messages that come byte by byte, headers and bodies."""
        for common in sc.COMMON_CAPS, sc.CAP_AUTH_SELECTION:
            session = self.rig.raw(common=common)
            port = session.open_port(PORT_NAME)
            assert port.mini == (common == sc.COMMON_CAPS)
            pump = Pump(self.qemu)
            pump.start("echo", total=90, verify=False)
            data = os.urandom(90)
            port.connection.send_slowly(
                port.message(sc.MSGC_DATA, data[:40]) +
                port.message(sc.MSGC_PONG, bytes(12)) +
                port.message(sc.MSGC_DATA, b"") +
                port.message(sc.MSGC_DATA, data[40:]))
            assert port.receive_data(90) == data
            session.main.connection.send_slowly(
                session.main.message(sc.MSGC_MAIN_AGENT_START, bytes(4)) +
                session.main.message(sc.MSGC_MAIN_ATTACH_CHANNELS))
            session.main.expect(sc.MSG_MAIN_CHANNELS_LIST)
            session.close()

    def test_many_messages_in_one_packet(self):
        session = self.rig.raw()
        port = session.open_port(PORT_NAME)
        pump = Pump(self.qemu)
        data = pattern(20000)
        pump.start("sink", total=len(data), can_read_size=999)
        port.connection.send(b"".join(
            port.message(sc.MSGC_DATA, data[at:at + 7])
            for at in range(0, len(data), 7)))
        assert pump.wait()["bytes-read"] == len(data)
        session.close()


class TestCompression:
    """Messages compressed by LZ4, over TCP, where the server offers it."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = start(rig, "type=inet,host=127.0.0.1,port=0")
        bound = self.qemu.get("/objects/sf0", "addr")
        self.address = (bound["host"], int(bound["port"]))
        self.pump = Pump(self.qemu)
        self.session = None

    def port(self, caps=sc.CAP_LZ4):
        if self.session:
            self.session.close()
            self.qemu.wait_flow("p1", "clients", [])
        self.session = self.rig.raw(self.address)
        port = self.session.open(sc.PORT, 0, caps)
        port.expect(sc.MSG_PORT_INIT)
        return port

    @staticmethod
    def body(block, size, kind=1):
        return struct.pack("<BI", kind, size) + block

    def test_capability(self):
        """It is offered over TCP, and for data channels alone."""
        port = self.port()
        assert port.reply.channel[0] & sc.CAP_LZ4

    def test_to_guest(self):
        port = self.port()
        data = pattern(500000)
        self.pump.start("sink", total=len(data), can_read_size=4096)
        for at in range(0, len(data), 30000):
            part = data[at:at + 30000]
            if at % 60000:
                port.send(sc.MSGC_DATA, part)
            else:
                port.send(sc.MSGC_COMPRESSED_DATA,
                          self.body(lz4.literals(part), len(part)))
        assert self.pump.wait()["bytes-read"] == len(data)

    def test_to_client(self):
        """What shrinks comes compressed, what does not comes as it is."""
        port = self.port()
        self.pump.start("echo", total=40000 + 5000, verify=False,
                        can_read_size=20000)
        zeros, noise = bytes(40000), os.urandom(5000)
        port.send_data(zeros)
        got, compressed = bytearray(), 0
        while len(got) < len(zeros):
            kind, body = port.receive()
            if kind == sc.MSG_COMPRESSED_DATA:
                compressed += 1
                method, size = struct.unpack_from("<BI", body)
                part = lz4.unpack(body[5:])
                assert method == 1 and len(part) == size
                got += part
            elif kind == sc.MSG_DATA:
                got += body
        assert got == zeros
        assert compressed
        port.send_data(noise)
        assert port.receive_data(len(noise)) == noise

    def test_to_client_without_the_capability(self):
        port = self.port(caps=0)
        self.pump.start("echo", total=40000, verify=False)
        port.send_data(bytes(40000))
        assert port.receive_data(40000) == bytes(40000)

    def test_d3_impossible_sizes(self):
        """The size that a message claims is checked before memory is taken
        for it, and has to be the true one."""
        kib = None
        good = lz4.zeros(1000)
        for block, size, kind in (
                (good, 0xfffffff0, 1), (good, 0xffffffff, 1),
                (good, 0x80000000, 1), (good, 0x7fffffff, 1),
                (good, 10 ** 9, 1), (good, 2 << 20, 1), (good, 0, 1),
                (good, 999, 1), (good, 1001, 1), (good[:-1], 1000, 1),
                (b"", 1000, 1), (b"\xff" * 50, 1000, 1),
                (b"\x0f\0\0", 1000, 1), (good, 1000, 0), (good, 1000, 2), (good, 1000, 255),
                (os.urandom(300), 1000, 1)):
            port = self.port()
            port.connection.offer(port.message(
                sc.MSGC_COMPRESSED_DATA, self.body(block, size, kind)))
            port.wait_closed(5)
            kib = kib or self.qemu.process.private_kib()
        for body in (b"", b"\1", b"\1\0\0\0"):
            port = self.port()
            port.connection.offer(port.message(sc.MSGC_COMPRESSED_DATA, body))
            port.wait_closed(5)
        grown = self.qemu.process.private_kib() - kib
        assert grown < 2000, "QEMU grew by %d KiB" % grown

    def test_d3_bombs(self):
        """A stalled guest: 4 KiB that stand for 1 MiB are counted as what
        they become, and all of it comes out in the end."""
        port = self.port()
        size, count = 1 << 20, 300
        message = port.message(sc.MSGC_COMPRESSED_DATA,
                               self.body(lz4.zeros(size), size))
        self.pump.stop()
        kib = self.qemu.process.private_kib()
        port.connection.sock.setblocking(False)
        sent, data = 0, message * count
        while sent < len(data):
            try:
                sent += port.connection.sock.send(data[sent:])
            except BlockingIOError:
                break
        wait_until(lambda: self.qemu.flow("p1")
                   ["to-guest-bytes"] > 0, 5, "the arrival")
        grown = self.qemu.process.private_kib() - kib
        # the budget and what one message stands for, however many follow
        assert grown < 4000, "QEMU grew by %d KiB" % grown
        flow = self.qemu.flow("p1")
        assert flow["to-guest-bytes"] <= flow["queue-size"], flow
        self.pump.start("sink", total=size * count, verify=False,
                        can_read_size=1 << 20)
        port.connection.send(data[sent:])
        self.pump.wait(60)


def test_compression_is_not_offered_on_unix_sockets(rig):
    start(rig)
    session = rig.raw()
    port = session.open(sc.PORT, 0, caps=sc.CAP_LZ4)
    port.expect(sc.MSG_PORT_INIT)
    assert not (port.reply.channel and port.reply.channel[0] & sc.CAP_LZ4)
