# SPDX-License-Identifier: GPL-2.0-or-later
"""USB redirection: the client library's emulated CD drive in a real guest.

The guest sees a USB mass storage device, sr_mod makes it /dev/srN, and every
byte of the image is read and compared by its SHA-256.  The client comes through
a relay that records, and its usbredir stream is compared with what passed
between the chardev and usb-redir.
"""

import hashlib
import os
import re
import subprocess
import time

from lib import spiceclient as sc
from lib.guest import GuestError
from lib.paths import scaled
from lib.process import wait_until
from lib.recorder import Recorder
from lib.rig import not_with_peer, server_args, server_env, usb_args
from lib.samples import MIB
from lib.usbdevice import Tap

IMAGE_SIZE = 24 * MIB


def make_image(path, size=IMAGE_SIZE):
    """A CD image of random bytes; its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


class Usb:
    """A guest with usb-redir devices, and what all tests do with it.  The
    first device is tapped, and all clients are recorded."""

    def __init__(self, rig, *controllers, clients=1, server=None, more=()):
        self.rig = rig
        self.tap = Tap(rig)
        self.guest = rig.guest(
            *(server or server_args(rig.socket, clients=clients)),
            *self.tap.add_to(usb_args(*controllers)), *more,
            env=server_env(clients))
        self.qmp = self.guest.qemu.qmp
        self.recorder = Recorder(rig.path("recorder"), rig.socket)
        rig.callback(self.recorder.close)
        # Not a second between finding a device and asking what it is.
        self.guest.run("echo 0 > /sys/module/usb_storage/parameters/delay_use")

    def client(self, *options, channel=0, uri=None):
        """A client with the channel of one device, already open."""
        self.before = self.tap.sizes()
        client = self.rig.client(
            "--usb-channel", str(channel), *options,
            uri=uri or "spice+unix://" + self.recorder.path)
        client.find(r"^channel-event usbredir %d opened" % channel)
        return client

    def captured(self):
        """What the last client of the first device has sent and got."""
        return self.recorder.last(sc.USBREDIR).captured()

    def all_captured(self):
        """Whether as much has been sent and got as has passed."""
        return [len(part) for part in self.captured()] == [
            now - before for now, before in zip(self.tap.sizes(),
                                                self.before)]

    def same_on_both_sides(self):
        """All that the last client has sent and got has passed."""
        # What it said when it left may be on its way to the relay
        wait_until(self.all_captured, 10, "the relay has all of it")
        captured = self.captured()
        assert min(map(len, captured)) > 1000, list(map(len, captured))
        self.tap.same_as(captured, self.before)

    def part_on_both_sides(self):
        """The same for one that was cut off: each receiver has the beginning
        of what was sent to it."""
        to_guest, to_client = self.captured()
        got, sent = self.tap.since(self.before)
        assert to_guest.startswith(got) and len(got) > MIB
        assert sent.startswith(to_client) and len(to_client) > 1000

    @staticmethod
    def plug(client, image):
        """Redirect an image as a drive."""
        client.send("usb", "cd", image)
        client.outcome("usb", "cd", os.path.basename(image))

    @staticmethod
    def unplug(client):
        client.send("usb", "unplug")
        assert client.outcome("usb", "unplug")["devices"] == 1

    def wait_drive(self, name="sr0", timeout=20):
        """Until the guest has a drive of that name."""
        self.guest.run("until [ -e /sys/block/%s ]; do usleep 5000; done" %
                       name, timeout)

    def wait_no_drive(self, name="sr0", timeout=20):
        self.guest.run("while [ -e /sys/block/%s ]; do usleep 5000; done" %
                       name, timeout)

    def digest(self, name="sr0", timeout=60):
        """SHA-256 of what the guest reads from a drive, first to last."""
        return self.guest.run("sha256sum /dev/" + name, timeout).split()[0]


class Cd:
    """The tests that every kind of host controller has to pass."""

    controller = None

    def setup(self, rig):
        self.rig = rig
        self.usb = Usb(rig, self.controller)
        self.guest = self.usb.guest
        self.image = rig.path("cd.img")
        self.sha256 = make_image(self.image)

    def read_all(self):
        """The guest mounts a file system; its file and the whole image have
        arrived byte by byte."""
        tree = self.rig.path("tree")
        image = self.rig.path("tree.iso")
        os.mkdir(tree)
        expected = make_image(os.path.join(tree, "data"))
        subprocess.run(["genisoimage", "-quiet", "-R", "-o", image, tree],
                       check=True)
        with open(image, "rb") as file:
            whole = hashlib.sha256(file.read()).hexdigest()
        client = self.usb.client()
        self.usb.plug(client, image)
        self.usb.wait_drive()
        assert self.usb.digest() == whole
        self.guest.run("echo 3 > /proc/sys/vm/drop_caches;"
                       " mount -t iso9660 -o ro /dev/sr0 /mnt")
        try:
            got = self.guest.run("sha256sum /mnt/data", 60).split()[0]
        finally:
            self.guest.run("umount /mnt")
        assert got == expected
        self.usb.same_on_both_sides()
        client.quit()
        self.usb.wait_no_drive()

    def replug(self, times):
        """Plugged in and out many times; each time it can be read."""
        client = self.usb.client()
        with open(self.image, "rb") as file:
            start = hashlib.sha256(file.read(256 << 10)).hexdigest()
        for turn in range(scaled(times)):
            self.usb.plug(client, self.image)
            self.usb.wait_drive()
            got = self.guest.run("dd if=/dev/sr0 bs=64k count=4 2>/dev/null |"
                                 " sha256sum").split()[0]
            assert got == start, "turn %d" % turn
            self.usb.unplug(client)
            self.usb.wait_no_drive()
        self.usb.same_on_both_sides()
        client.quit()

    def killed(self):
        """A client that dies during a read is an unplugged device: the guest
        gets an I/O error, and the next client's drive works.

        The read is a direct one: behind the page cache the kernel may report
        the end of a device that has shrunk to nothing instead."""
        client = self.usb.client()
        self.usb.plug(client, self.image)
        self.usb.wait_drive()
        job = self.guest.start("dd if=/dev/sr0 of=/dev/null bs=64k iflag=direct")
        self.guest.run("until [ $(awk '{print $3}' /sys/block/sr0/stat)"
                       " -gt 4096 ]; do :; done")
        client.pause()
        time.sleep(0.3)
        assert job.running(), "read before it could be interrupted: " + \
            job.output
        client.process.send_signal(9)
        client.process.wait()
        try:
            raise AssertionError("the read succeeded: " + job.wait())
        except GuestError as error:
            assert re.search("Input/output error|No such device",
                             str(error)), error
        self.usb.wait_no_drive()
        self.usb.part_on_both_sides()
        client = self.usb.client()
        self.usb.plug(client, self.image)
        self.usb.wait_drive()
        assert self.usb.digest() == self.sha256
        self.usb.same_on_both_sides()
        client.quit()
        self.usb.wait_no_drive()

    def stop_and_continue(self):
        """The VM stopped and continued every 100 ms during a read."""
        client = self.usb.client()
        self.usb.plug(client, self.image)
        self.usb.wait_drive()
        job = self.guest.start("sha256sum /dev/sr0")
        stops = 0
        while job.running():
            self.usb.qmp.command("stop")
            time.sleep(0.1)
            self.usb.qmp.command("cont")
            time.sleep(0.1)
            stops += 1
        assert job.wait().split()[0] == self.sha256
        assert stops >= 3, "stopped only %d times" % stops
        self.usb.same_on_both_sides()
        client.quit()
        self.usb.wait_no_drive()


class TestXhci(Cd):
    """A USB 3 controller."""

    controller = "qemu-xhci"

    def test_read(self):
        self.read_all()

    def test_replug(self):
        self.replug(50)

    def test_killed(self):
        self.killed()

    def test_stop_and_continue(self):
        self.stop_and_continue()


class TestEhci(Cd):
    """A USB 2 controller."""

    controller = "usb-ehci"

    def test_read(self):
        self.read_all()

    def test_replug(self):
        self.replug(10)

    def test_killed(self):
        self.killed()

    def test_stop_and_continue(self):
        self.stop_and_continue()


def test_two_clients(rig):
    """Two CDs from two clients, read at once; one leaves, one stays."""
    not_with_peer("spice-server lists its channels to one client only")
    usb = Usb(rig, "qemu-xhci", "qemu-xhci", clients=2)
    sums, clients, drives = [], [], []
    for number in range(2):
        image = rig.path("cd%d" % number)
        sums.append(make_image(image))
        clients.append(usb.client(channel=number))
        usb.plug(clients[-1], image)
        drives.append("sr%d" % number)
        usb.wait_drive(drives[-1])
    jobs = [usb.guest.start("sha256sum /dev/" + name) for name in drives]
    assert [job.wait(60).split()[0] for job in jobs] == sums
    clients[0].quit()
    usb.wait_no_drive(drives[0])
    usb.guest.run("echo 3 > /proc/sys/vm/drop_caches")
    assert usb.digest(drives[1]) == sums[1]
    clients[1].quit()
    usb.wait_no_drive(drives[1])


def test_tcp(rig):
    """Over TCP, where client and server compress what shrinks: it does, and
    the guest reads the same."""
    not_with_peer("it does not say what it has compressed")
    usb = Usb(rig, "qemu-xhci", server=[
        "-object", "spiceflow-server,id=sf0,type=inet,host=127.0.0.1,port=0"],
        more=["-trace", "spiceflow_channel_receive"])
    qemu = usb.guest.qemu
    bound = qemu.get("/objects/sf0", "addr")
    image = rig.path("cd.img")
    block = b"".join(b"line %d of a text that shrinks\n" % i
                     for i in range(10000))
    with open(image, "wb") as file:
        for _ in range(30):
            file.write(block)
        file.truncate(os.path.getsize(image) // 2048 * 2048)
    with open(image, "rb") as file:
        whole = hashlib.sha256(file.read()).hexdigest()
    client = usb.client(uri="spice://%s:%s" % (bound["host"], bound["port"]))
    usb.plug(client, image)
    usb.wait_drive()
    assert usb.digest() == whole
    sizes = [int(size) for size in re.findall(
        r"channel_receive channel 9:0 message %d size (\d+)" %
        sc.MSGC_COMPRESSED_DATA, qemu.log())]
    assert len(sizes) > 50, "%d messages were compressed" % len(sizes)
    assert sum(sizes) < os.path.getsize(image) / 2
    assert usb.tap.sizes()[0] > os.path.getsize(image)
    client.quit()
    usb.wait_no_drive()


def test_hotplug(rig):
    """A device that is added under a connected client, used by it, deleted
    in the middle of a read, and added again."""
    not_with_peer("spice-server's channels are there from the start")
    usb = Usb(rig, "qemu-xhci")
    image = rig.path("cd.img")
    whole = make_image(image, 8 * MIB)
    client = rig.client("--usb-channel", "1")
    client.find(r"^channel-new usbredir 0$")
    for turn in range(2):
        client.poll()
        client.lines.clear()
        client.seen = 0
        usb.qmp.command("chardev-add", id="u1", backend={
            "type": "spiceflow", "data": {"name": "usbredir"}})
        usb.qmp.command("device_add", driver="usb-redir", id="redir1",
                        bus="usb0.0", chardev="u1")
        client.find(r"^channel-event usbredir 1 opened")
        usb.plug(client, image)
        usb.wait_drive()
        assert usb.digest() == whole, "turn %d" % turn
        job = usb.guest.start("dd if=/dev/sr0 of=/dev/null bs=64k iflag=direct")
        usb.qmp.command("device_del", id="redir1")
        usb.qmp.event("DEVICE_DELETED", device="redir1")
        job.wait(check=False)
        usb.wait_no_drive()
        client.find(r"^channel-event usbredir 1 (closed|error)")
    client.quit()
