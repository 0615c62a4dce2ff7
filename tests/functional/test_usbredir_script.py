# SPDX-License-Identifier: GPL-2.0-or-later
"""USB redirection with a scripted client: QEMU's usb-redir, and for a guest
the firmware, which boots from the redirected drive; then with usb-redir's end
scripted as well."""

import ctypes
import os
import struct
import subprocess
import time

from lib import agentguest as ag
from lib import spiceclient as sc
from lib import usbredir as ur
from lib.process import wait_until
from lib.rig import server_args, usb_args
from lib.samples import KIB
from lib.skip import Skip

KIB = 1024
BLOCK = 32 * KIB


class Boot:
    """A machine whose firmware boots from the drive."""

    controller = None

    def setup(self, rig):
        self.rig = rig
        self.out = rig.path("debugcon")
        args = usb_args(self.controller)
        args[-1] += ",bootindex=1"
        self.qemu = rig.qemu(
            *self.server(), *args,
            "-chardev", "file,id=out,path=" + self.out,
            "-device", "isa-debugcon,chardev=out", memory=64,
            paused=True)
        self.qemu.command("set-action", reboot="reset")
        self.drives = []

    def server(self):
        return server_args(self.rig.socket)

    def session(self):
        return self.rig.raw()

    def drive(self, image, **options):
        drive = ur.Drive(self.session(), image, **options)
        self.rig.callback(drive.close)
        self.drives.append(drive)
        return drive

    def attached(self):
        return self.qemu.get("/machine/peripheral/redir0", "attached")

    def wait_attached(self, attached=True):
        wait_until(lambda: self.attached() == attached, 10,
                   "the device is %s" % ("there" if attached else "gone"))

    def boot(self):
        """Begin anew; what the guest writes from here on counts, and it may
        still be about to write what it read before."""
        self.qemu.command("stop")
        self.before = os.path.getsize(self.out)
        self.qemu.command("system_reset")
        self.qemu.command("cont")

    def written(self):
        with open(self.out, "rb") as file:
            file.seek(self.before)
            return file.read()

    def whole(self, content, timeout=60):
        def done():
            if self.drives[-1].failure:
                raise self.drives[-1].failure
            return len(self.written()) > len(content)
        wait_until(done, timeout, "the guest has read everything")
        assert self.written() == content + b"!"

    def flow(self):
        return self.qemu.flow("u0")

    def gone(self, drive):
        drive.close()
        self.drives.remove(drive)
        wait_until(lambda: not self.flow()["clients"], 5, "it has left")

    @staticmethod
    def describe(channel):
        """Connect a drive, of which nothing comes."""
        channel.send_data(ur.packet(ur.INTERFACE_INFO,
                                    ur.interface_info((0, 8, 6, 0x50))))
        channel.send_data(ur.packet(ur.EP_INFO, ur.ep_info(
            {0x81: (2, 0, 0, 512), 0x02: (2, 0, 0, 512)})))
        channel.send_data(ur.packet(ur.DEVICE_CONNECT, struct.pack(
            "<BBBBHHH", 2, 0, 0, 0, 0x46f4, 1, 0x100)))

    def boots(self, content):
        """A client comes, its drive is booted from, and it leaves."""
        drive = self.drive(ur.boot_image(content))
        self.wait_attached()
        self.boot()
        self.whole(content)
        self.gone(drive)


class BootTests(Boot):
    """What holds on every controller."""

    def test_hello_while_stopped(self):
        """The client comes before the VM runs: its packets wait for
        usb-redir's hello, which comes when the VM does."""
        assert self.qemu.command("query-status")["status"] == "prelaunch"
        session = self.rig.raw()
        channel = session.open(sc.USBREDIR, 0)
        channel.send_data(ur.hello())
        assert channel.silent(0.3)
        self.qemu.command("cont")
        data = channel.receive_data(80)
        assert data[:8] == struct.pack("<II", ur.HELLO, 68), data
        self.describe(channel)
        self.wait_attached()
        session.close()
        self.wait_attached(False)

    def test_boot(self):
        """Control transfers, bulk in and bulk out: 1 MiB is the same on both
        sides, and what the guest writes arrives."""
        content = os.urandom(32 * BLOCK)
        image = ur.boot_image(content, 4096)
        drive = self.drive(image)
        self.wait_attached()
        self.boot()
        self.whole(content)
        assert drive.written_bytes == BLOCK
        assert image[4096 * 512:4096 * 512 + BLOCK] == content[-BLOCK:]
        self.gone(drive)

    def test_replug(self):
        """Clients come and go; each one's drive is booted from."""
        for _ in range(4):
            self.boots(os.urandom(BLOCK))
            self.wait_attached(False)

    def test_stop_and_cont_while_it_reads(self):
        """Every 100 ms; nothing is lost."""
        content = os.urandom(64 * BLOCK)
        drive = self.drive(ur.boot_image(content))
        self.wait_attached()
        self.boot()
        assert drive.reads.wait(20)
        stops = 0
        while len(self.written()) <= len(content) and stops < 200:
            self.qemu.command("stop")
            size = self.flow()["total-from-guest-bytes"]
            time.sleep(0.05)
            assert self.flow()["total-from-guest-bytes"] == size
            self.qemu.command("cont")
            time.sleep(0.05)
            stops += 1
        self.whole(content)
        assert stops > 1, stops
        self.gone(drive)

    def test_killed_while_it_reads(self):
        """The client goes in the middle of a transfer: the device is gone in
        the guest, and the next client's works."""
        content = os.urandom(64 * BLOCK)
        drive = self.drive(ur.boot_image(content))
        self.wait_attached()
        self.boot()
        assert drive.reads.wait(20)
        wait_until(lambda: self.written(), 20, "the guest reads")
        self.gone(drive)
        self.wait_attached(False)
        self.boots(content[:BLOCK])

    def test_d32_malformed(self):
        """Packets that usb-redir would end QEMU for end their client's
        channel, and an honest client can use the device right after."""
        info = ur.ep_info({0x81: (2, 0, 0, 512)})
        self.qemu.command("cont")
        for name, packet in ur.malformed().items():
            for prefix in (b"", ur.packet(ur.EP_INFO, info)):
                session = self.rig.raw()
                channel = session.open(sc.USBREDIR, 0)
                channel.send_data(ur.hello())
                channel.receive_data(80)
                channel.connection.offer(channel.message(
                    sc.MSGC_DATA, prefix + packet + bytes(500)))
                channel.wait_closed(5)
                notice = session.main.expect(sc.MSG_NOTIFY)
                assert b"usbredir packet from the client" in notice, name
                session.close()
            drive = self.drive(ur.boot_image(b""))
            self.wait_attached()
            self.gone(drive)
            self.wait_attached(False)
        self.boots(b"x" * BLOCK)

    def test_d32_before_hello(self):
        """Garbage instead of a hello, also hello and garbage in one."""
        self.qemu.command("cont")
        for data in (b"garbage" * 100,
                     ur.hello() + ur.packet(ur.FILTER_FILTER, b"x\0"),
                     ur.hello() + ur.packet(99)):
            session = self.rig.raw()
            channel = session.open(sc.USBREDIR, 0)
            channel.connection.offer(channel.message(sc.MSGC_DATA, data))
            channel.wait_closed(5)
            session.close()
        drive = self.drive(ur.boot_image(b""))
        self.wait_attached()
        self.gone(drive)

    def test_stalled_client(self):
        """A client that does not answer holds up its device alone, and can
        go on later."""
        self.qemu.command("cont")
        session = self.rig.raw()
        channel = session.open(sc.USBREDIR, 0)
        channel.send_data(ur.hello())
        channel.receive_data(80)
        self.describe(channel)
        self.wait_attached()
        self.boot()
        time.sleep(0.5)
        assert self.qemu.command("query-status")["running"]
        self.wait_attached()
        session.close()
        self.wait_attached(False)

    def test_device_del_while_it_reads(self):
        """The chardev goes with the device; the client is let go."""
        drive = self.drive(ur.boot_image(os.urandom(64 * BLOCK)))
        self.wait_attached()
        self.boot()
        assert drive.reads.wait(20)
        wait_until(lambda: self.written(), 20, "the guest reads")
        self.qemu.command("device_del", id="redir0")
        self.qemu.qmp.event("DEVICE_DELETED", device="redir0")
        drive.thread.join(10)
        assert not drive.thread.is_alive()
        assert isinstance(drive.failure, sc.Closed), drive.failure
        drive.close()
        self.drives.remove(drive)
        assert "u0" not in [c["label"] for c in
                            self.qemu.command("query-chardev")]
        self.qemu.command("chardev-add", id="u0", backend={
            "type": "spiceflow", "data": {"name": "usbredir"}})
        self.qemu.command("device_add", driver="usb-redir", id="redir0",
                          bus="usb0.0", chardev="u0", bootindex=1)
        self.boots(os.urandom(BLOCK))


class TestXhci(BootTests):
    """On qemu-xhci."""

    controller = "qemu-xhci"


class TestEhci(BootTests):
    """On usb-ehci."""

    controller = "usb-ehci"


class TestLz4(Boot):
    """Over TCP, with a client that compresses and wants it so."""

    controller = "qemu-xhci"

    def setup(self, rig):
        super().setup(rig)
        self.qemu.command("cont")

    def server(self):
        return ["-object",
                "spiceflow-server,id=sf0,type=inet,host=127.0.0.1,port=0"]

    def session(self):
        bound = self.qemu.get("/objects/sf0", "addr")
        return self.rig.raw((bound["host"], int(bound["port"])))

    def both_ways(self, content, **options):
        image = ur.boot_image(content, 4096)
        drive = self.drive(image, **options)
        self.wait_attached()
        self.boot()
        self.whole(content)
        assert image[4096 * 512:4096 * 512 + BLOCK] == content[-BLOCK:]
        self.gone(drive)
        self.wait_attached(False)
        return drive

    def test_compressed(self):
        """What the guest reads comes compressed, and what it writes goes
        so."""
        content = b"".join(b"line %08d\n" % i for i in range(8 * BLOCK // 14))
        content = content.ljust(8 * BLOCK, b"-")
        drive = self.both_ways(content, caps=sc.CAP_LZ4)
        assert drive.packed >= 8, drive.packed
        assert drive.unpacked >= 1, drive.unpacked

    def test_noise(self):
        """What does not shrink is not compressed for the client."""
        drive = self.both_ways(os.urandom(8 * BLOCK), caps=sc.CAP_LZ4)
        assert drive.packed >= 8 and drive.unpacked == 0

    def test_without_the_capability(self):
        drive = self.both_ways(bytes(8 * BLOCK))
        assert drive.packed == drive.unpacked == 0


class TestScript:
    """usb-redir's end scripted too: what a firmware never does."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(
            *server_args(rig.socket, clients=2),
            *ag.bridge_args(rig.path("far"), "usbredir", "usb", "bridge"),
            machine="none")

    def flow(self):
        return self.qemu.flow("usb")

    def pair(self, caps=ur.CAPS):
        """Both ends, greeted: (guest's end, client's channel)."""
        far = ag.FarEnd(self.rig.path("far"))
        self.rig.callback(far.close)
        session = self.rig.raw()
        channel = session.open(sc.USBREDIR, 0)
        wait_until(lambda: self.qemu.get("/machine/peripheral/bridge",
                                         "opened"), 5, "OPENED")
        far.write(ur.hello(caps))
        channel.send_data(ur.hello(caps))
        assert far.read(80) == ur.hello(caps)
        assert channel.receive_data(80) == ur.hello(caps)
        channel.session = session
        return far, channel

    def bye(self, far, channel):
        far.close()
        channel.session.close()
        wait_until(lambda: not self.flow()["clients"] and
                   not self.flow()["guest-open"], 5, "both ends have left")

    def test_transfers_at_their_sizes(self):
        """Bulk, interrupt and isochronous packets of every kind, at the
        sizes that usbredir has; each byte the same on the other side."""
        far, channel = self.pair()
        to_client, to_guest = [], []
        for size in (0, 1, 64, 512, 1023, 1024, 3072, 65535):
            data = os.urandom(size)
            short = struct.pack("<BBH", 0x81, 0, size)
            out = struct.pack("<BBH", 0x02, 0, size)
            to_guest += [(ur.ISO, short + data), (ur.INTERRUPT, short + data)]
            to_client += [(ur.ISO, out + data), (ur.INTERRUPT, out + data)]
        for size in (0, 1, 511, 512, 16384, 65535, 65536, 100001, 8 << 20):
            data = os.urandom(size)
            to_client += [(ur.BULK, ur.bulk(0x02, data)),
                          (ur.BULK, ur.bulk(0x81, length=size))]
            to_guest += [(ur.BULK, ur.bulk(0x02, length=size)),
                         (ur.BULK, ur.bulk(0x81, data))]
        for sender, receiver, packets in (
                (far.write, channel.receive_data, to_client),
                (channel.send_data, far.read, to_guest)):
            for number, (kind, payload) in enumerate(packets):
                data = ur.packet(kind, payload, number)
                done = 0
                while done < len(data):
                    # no more than what may wait in between
                    piece = data[done:done + 500000]
                    sender(piece)
                    assert receiver(len(piece)) == piece, (kind, number)
                    done += len(piece)
        self.bye(far, channel)

    def test_answers_out_of_order(self):
        """QEMU's USB core asserts their order: the second before the first
        ends the client's channel, and does not reach usb-redir."""
        far, channel = self.pair()
        for ident in (1, 2):
            far.write(ur.packet(ur.BULK, ur.bulk(0x81, length=512), ident))
        channel.receive_data(2 * 26)
        channel.send_data(ur.packet(ur.BULK, ur.bulk(0x81, b"2"), 2))
        channel.wait_closed(5)
        assert far.silent()
        self.bye(far, channel)
        far, channel = self.pair()
        self.bye(far, channel)

    def test_answers_unseen(self):
        """A client that does not read is given no word on what it has not
        read: its answer waits until usb-redir's packets are through."""
        far, channel = self.pair()
        request = ur.packet(ur.BULK, ur.bulk(0x02, bytes(60000)), 7)
        sent = far.fill(request * 200, lambda: self.flow()["guest-waits"])
        channel.send_data(ur.packet(ur.INTERFACE_INFO, ur.interface_info()))
        assert far.silent(0.3)
        channel.receive_data(sent, 20)
        assert far.read(16 + 132)[:4] == struct.pack("<I", ur.INTERFACE_INFO)
        self.bye(far, channel)

    def test_flood(self):
        """A client that sends without end while the guest takes nothing is
        left in its socket, and QEMU keeps no more than queue-size of it."""
        far, channel = self.pair()
        self.qemu.set("/machine/peripheral/bridge", "blocked", True)
        data = channel.message(sc.MSGC_DATA, ur.packet(
            ur.INTERRUPT, struct.pack("<BBH", 0x81, 0, 60000) + bytes(60000)))
        kib = self.qemu.process.private_kib()
        channel.connection.send_until_blocked(data, 0.5)
        assert self.flow()["to-guest-bytes"] <= self.flow()["queue-size"]
        grown = self.qemu.process.private_kib() - kib
        assert grown < 4000, "QEMU grew by %d KiB" % grown
        self.qemu.set("/machine/peripheral/bridge", "blocked", False)
        self.bye(far, channel)
        far, channel = self.pair()
        self.bye(far, channel)

    def test_d2_nothing_stale(self):
        """What a client left behind does not reach the next one's usb-redir,
        nor the other way round."""
        far, channel = self.pair()
        self.qemu.set("/machine/peripheral/bridge", "blocked", True)
        channel.send_data(ur.packet(ur.INTERRUPT, struct.pack(
            "<BBH", 0x81, 0, 60000) + b"old" * 20000))
        wait_until(lambda: self.flow()["to-guest-bytes"], 5, "it waits")
        channel.session.close()
        wait_until(lambda: not self.flow()["clients"], 5, "it has left")
        self.qemu.set("/machine/peripheral/bridge", "blocked", False)
        far.close()
        far, channel = self.pair()
        assert far.silent()
        self.bye(far, channel)

    def test_second_client(self):
        """Refused while there is one, welcome when it has left."""
        far, channel = self.pair()
        other = self.rig.raw()
        with sc.refused(sc.ERR_CHANNEL_NOT_AVAILABLE):
            other.open(sc.USBREDIR, 0)
        other.close()
        self.bye(far, channel)
        far, channel = self.pair()
        self.bye(far, channel)


CLONE_NEWNET = 0x40000000


class Network:
    """A network of its own, joined to this one by a veth."""

    def __init__(self, rig):
        if os.geteuid() != 0:
            raise Skip("a network namespace needs root")
        tag = "sf%x" % os.getpid()
        self.name, self.here, self.there = tag, tag + "a", tag + "b"
        self.address = "198.51.100.1"
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.ip("netns", "add", self.name)
        rig.callback(self.ip, "netns", "del", self.name)
        self.ip("link", "add", self.here, "type", "veth", "peer", "name",
                self.there, "netns", self.name)
        self.ip("addr", "add", self.address + "/30", "dev", self.here)
        self.ip("link", "set", self.here, "up")
        self.ip("-n", self.name, "addr", "add", "198.51.100.2/30", "dev",
                self.there)
        self.ip("-n", self.name, "link", "set", self.there, "up")

    @staticmethod
    def ip(*args):
        subprocess.run(("ip",) + args, check=True, timeout=10)

    def _enter(self, path):
        with open(path, "rb") as file:
            if self.libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def within(self, function, *args):
        """Call it in there; the sockets it makes stay there."""
        with open("/proc/self/ns/net", "rb") as home:
            self._enter("/var/run/netns/" + self.name)
            try:
                return function(*args)
            finally:
                self.libc.setns(home.fileno(), CLONE_NEWNET)

    def cut(self):
        self.ip("link", "set", self.here, "down")

    def join(self):
        self.ip("link", "set", self.here, "up")


def test_vanished_client(rig):
    """A client whose machine is cut off without a word: the guest sees the
    device go within the stall timeout, and another client's works."""
    network = Network(rig)
    server = ["-object", "spiceflow-server,id=sf0,type=inet,host=%s,port=0,"
              "stall-timeout=2000" % network.address]
    qemu = rig.qemu(*server, *usb_args("qemu-xhci"), memory=64)
    bound = qemu.get("/objects/sf0", "addr")
    address = bound["host"], int(bound["port"])

    def attached():
        return qemu.get("/machine/peripheral/redir0", "attached")

    for _ in range(2):
        session = network.within(rig.raw, address)
        drive = network.within(ur.Drive, session, ur.boot_image(b""))
        wait_until(attached, 10, "the device is there")
        time.sleep(2.5)
        assert attached(), "an idle client was taken for gone"
        network.cut()
        start = time.monotonic()
        wait_until(lambda: not attached(), 10, "the device is gone")
        assert time.monotonic() - start > 0.5
        network.join()
        drive.close()
