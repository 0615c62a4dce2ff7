# SPDX-License-Identifier: GPL-2.0-or-later
"""USB redirection: a device on libusbredirparser in a real guest.

What the emulated CD drive cannot do: bulk out, interrupt and isochronous
endpoints, each request of exactly the size that is asked for.  Both ends check
every byte, and what the device has sent and got is compared with what passed
between the chardev and usb-redir.
"""

import re
import signal
import struct
import time

from lib import spiceclient as sc
from lib import usbredir as ur
from lib.guest import GuestError
from lib.paths import guest_images
from lib.process import wait_until
from lib.rig import not_with_peer, server_args, server_env, usb_args
from lib.samples import MIB
from lib.usbdevice import Tap, counted


# What the guest does, with the packets that it takes
TRANSFERS = (
    "control 1 3", "control 4000 20",
    "bulk-in 1 20", "bulk-in 512 20", "bulk-in 4096 50", "bulk-in 65535 20",
    "bulk-in 65536 20", "bulk-in 1000001 4",
    "bulk-out 1 20", "bulk-out 512 20", "bulk-out 4096 50",
    "bulk-out 65535 20", "bulk-out 65536 20", "bulk-out 1000001 4",
)
# On xHCI alone: QEMU's EHCI may forget an interrupt endpoint, and skips
# isochronous packets, when the host is busy or the VM was stopped; with every
# back end
PERIODIC = (
    "int-in 1 100", "int-in 64 100", "int-in 1024 200",
    "int-out 1 100", "int-out 64 100", "int-out 1024 200",
    "iso-in 1 100", "iso-in 192 100", "iso-in 3072 100",
    "iso-out 1 200", "iso-out 192 200", "iso-out 3072 200",
)
MANY = 1000000
LARGEST = 128 * MIB


class Devices:
    """A guest with usb-redir devices, the first of them tapped."""

    def __init__(self, rig, *controllers, clients=1, **properties):
        self.rig = rig
        self.tap = Tap(rig)
        self.guest = rig.guest(
            *server_args(rig.socket, clients=clients, **properties),
            *self.tap.add_to(usb_args(*controllers)), env=server_env(clients))
        self.qemu = self.guest.qemu

    def plug(self, channel=0):
        """A client with a device, which the guest has found."""
        device = self.rig.usb_device("--channel", str(channel))
        self.wait()
        return device

    def wait(self):
        self.guest.run("usbtool wait")

    def gone(self):
        self.guest.run("while grep -qs 1209 /sys/bus/usb/devices/*/idVendor;"
                       " do usleep 5000; done")

    def start(self, command):
        """Something in the guest that takes long, and is under way."""
        job = self.guest.start("usbtool " + command)
        before = self.passed()
        wait_until(lambda: self.passed() - before > MIB, 20, "the transfers")
        return job

    def passed(self):
        flow = self.qemu.flow("u0")
        return flow["total-to-guest-bytes"] + flow["total-from-guest-bytes"]

    def clients(self, number=0):
        return self.qemu.flow("u%d" % number)["clients"]

    def fails(self, job):
        """It ends with an error that a pulled plug has."""
        try:
            raise AssertionError("no error: %s" % job.result())
        except GuestError as error:
            assert re.search("bad (reap|URB|submit): (No such device|Cannot "
                             "send after|Protocol error|.*shutdown)",
                             str(error)), error

    def works(self, device):
        """A device does all that it should, and not a byte is another one on
        the way."""
        for command in ("bulk-in 65536 10", "bulk-out 65536 10",
                        "int-in 64 20", "iso-in 192 100"):
            self.guest.start("usbtool " + command).result()
        return device.status()


class Device:
    """The tests that every kind of host controller has to pass."""

    controller = None

    def setup(self, rig):
        self.rig = rig
        self.devices = Devices(rig, self.controller)
        self.guest = self.devices.guest

    def transfers(self, more=()):
        """All kinds of transfers, the largest packets of each included; what
        the client sent and got is what usb-redir got and sent."""
        tap = self.devices.tap
        before = tap.sizes()
        device = self.devices.plug()
        for command in TRANSFERS + more:
            result = self.guest.start("usbtool " + command).result()
            assert result["packets"] == int(command.split()[2]), command
        captured = device.captured()
        tap.same_as(captured, before)
        sent, most = counted(captured[0])
        got, most_got = counted(captured[1])
        # with their headers
        assert most[ur.BULK] == 1000001 + 10, most
        if more:
            assert most[ur.INTERRUPT] == most_got[ur.INTERRUPT] == 1024 + 4
            assert most[ur.ISO] == most_got[ur.ISO] == 3072 + 4
            assert sent[ur.ISO] == 300 and got[ur.ISO] == 600, (sent, got)
            assert got[ur.START_ISO_STREAM] and got[ur.START_INTERRUPT], got
        device.leave()
        self.devices.gone()

    def plug_and_unplug(self):
        """The device comes and goes while its client stays; the bytes of all
        that are the same on both sides."""
        before = self.devices.tap.sizes()
        device = self.devices.plug()
        for _ in range(5):
            self.devices.works(device)
            device.unplug()
            self.devices.gone()
            device.plug()
            self.devices.wait()
        self.devices.tap.same_as(device.captured(), before)
        device.leave()
        self.devices.gone()

    def stop_and_continue(self, *commands):
        """The VM stopped and continued in the middle of transfers."""
        before = self.devices.tap.sizes()
        device = self.devices.plug()
        for command in ("bulk-in 65536 600", "bulk-out 65536 600") + commands:
            job = self.guest.start("usbtool " + command)
            stops = 0
            while job.running() and stops < 100:
                self.devices.qemu.command("stop")
                here = self.devices.passed()
                time.sleep(0.03)
                assert self.devices.passed() == here
                self.devices.qemu.command("cont")
                time.sleep(0.03)
                stops += 1
            job.result()
            assert stops > 1, command
        self.devices.tap.same_as(device.captured(), before)
        device.leave()
        self.devices.gone()

    def killed(self):
        """The client is killed during a transfer of each direction: the guest
        has an error, and the next client's device works."""
        for command in ("bulk-in 65536 %d" % MANY, "bulk-out 65536 %d" % MANY):
            device = self.devices.plug()
            job = self.devices.start(command)
            device.process.send_signal(signal.SIGKILL)
            self.devices.fails(job)
            self.devices.gone()
        before = self.devices.tap.sizes()
        device = self.devices.plug()
        self.guest.start("usbtool bulk-in 65536 10").result()
        self.devices.tap.same_as(device.captured(), before)
        device.leave()
        self.devices.gone()

    def reboot(self):
        """The guest is reset with the device there, and in the middle of a
        transfer: it is there again afterwards."""
        before = self.devices.tap.sizes()
        device = self.devices.plug()
        self.devices.works(device)
        self.devices.start("bulk-in 65536 %d" % MANY)
        self.devices.qemu.command("set-action", reboot="reset")
        self.guest.reset()
        self.devices.wait()
        self.devices.works(device)
        self.devices.tap.same_as(device.captured(), before)
        device.leave()
        self.devices.gone()


class TestXhci(Device):
    """A USB 3 controller."""

    controller = "qemu-xhci"

    def test_transfers(self):
        self.transfers(PERIODIC)

    def test_largest_bulk(self):
        """One request of 128 MiB each way: a packet that is larger than all
        queues together, and the largest that usbredir has."""
        before = self.devices.tap.sizes()
        device = self.devices.plug()
        self.guest.run("echo 0 > /sys/module/usbcore/parameters/"
                       "usbfs_memory_mb")
        for way in "bulk-out", "bulk-in":
            self.guest.start("usbtool %s %d 1" % (way, LARGEST)).result(60)
        captured = device.captured()
        self.devices.tap.same_as(captured, before)
        for stream in captured:
            assert counted(stream)[1][ur.BULK] == LARGEST + 10
        device.leave()
        self.devices.gone()

    def test_plug_and_unplug(self):
        self.plug_and_unplug()

    def test_stop_and_continue(self):
        self.stop_and_continue("int-in 1024 900", "int-out 1024 900")

    def test_killed(self):
        self.killed()

    def test_reboot(self):
        self.reboot()

    def test_d32_malformed(self):
        """Each packet that would end QEMU ends its client's channel instead,
        and what the guest reads from the next client's device is right."""
        for name, packet in ur.malformed().items():
            session = self.rig.raw()
            channel = session.open(sc.USBREDIR, 0)
            channel.send_data(ur.hello())
            channel.receive_data(80)
            channel.connection.offer(channel.message(
                sc.MSGC_DATA, packet + bytes(500)))
            channel.wait_closed(5)
            notice = session.main.expect(sc.MSG_NOTIFY)
            assert b"usbredir packet from the client" in notice, name
            session.close()
            wait_until(lambda: not self.devices.clients(), 5, "the leave")
            before = self.devices.tap.sizes()
            device = self.devices.plug()
            self.guest.start("usbtool bulk-in 65536 5").result()
            self.devices.tap.same_as(device.captured(), before)
            device.leave()
            self.devices.gone()

    def test_saved_with_requests_open(self):
        """Saved while the client owes answers: the state says which, another
        QEMU takes it, the guest sees the device go, and a next one works."""
        not_with_peer("it saves another state")
        device = self.devices.plug()
        job = self.devices.start("bulk-in 65536 %d" % MANY)
        device.process.send_signal(signal.SIGSTOP)
        qemu, path = self.devices.qemu, self.rig.path("state")
        qemu.command("stop")
        qemu.command("migrate", uri="file:" + path)
        wait_until(lambda: qemu.command("query-migrate")["status"] ==
                   "completed", 60, "the end of the migration")
        with open(path, "rb") as file:
            state = file.read()
        assert b"spiceflow/usbredir/order" in state
        qemu.command("cont")
        device.process.send_signal(signal.SIGCONT)
        device.close()
        self.devices.fails(job)
        self.devices.gone()
        there = self.rig.path("there")
        target = self.rig.qemu(
            *server_args(there), *self.devices.tap.add_to(usb_args(
                self.controller)), "-incoming", "file:" + path,
            guest=guest_images("base"))
        wait_until(lambda: target.command("query-status")["status"] ==
                   "paused", 60, "the load")
        target.command("cont")
        other = self.rig.usb_device(address="unix:" + there)
        wait_until(lambda: target.get("/machine/peripheral/redir0",
                                      "attached"), 10, "the device")
        other.leave()
        target.close()

    def test_device_del(self):
        """The device is deleted in the middle of transfers, and with it its
        chardev; another one in its place works."""
        device = self.devices.plug()
        job = self.devices.start("bulk-out 65536 %d" % MANY)
        qemu = self.devices.qemu
        qemu.command("device_del", id="redir0")
        qemu.qmp.event("DEVICE_DELETED", device="redir0")
        self.devices.fails(job)
        self.devices.gone()
        assert device.process.wait() == 1
        assert "u0" not in [c["label"] for c in qemu.command("query-chardev")]
        qemu.command("chardev-add", id="u0", backend={
            "type": "spiceflow", "data": {"name": "usbredir"}})
        qemu.command("device_add", driver="usb-redir", id="redir0",
                     bus="usb0.0", chardev="u0")
        device = self.devices.plug()
        self.devices.works(device)
        device.leave()
        self.devices.gone()


class TestEhci(Device):
    """A USB 2 controller."""

    controller = "usb-ehci"

    def test_transfers(self):
        self.transfers()

    def test_stop_and_continue(self):
        self.stop_and_continue()

    def test_killed(self):
        self.killed()


class TestSeveral:
    """Three usb-redir devices, and several clients."""

    def setup(self, rig):
        not_with_peer("spice-server lists its channels to one client only")
        self.rig = rig
        self.devices = Devices(rig, "qemu-xhci", "qemu-xhci", "usb-ehci",
                               clients=4)
        self.guest = self.devices.guest

    def taken(self):
        return [len(self.devices.clients(number)) for number in range(3)]

    def wait_taken(self, *numbers):
        wait_until(lambda: self.taken() == list(numbers), 5,
                   "clients %s" % (numbers,))

    def test_each_has_its_client(self):
        """Three clients have one each; a fourth gets none of them, and the one
        that is left when its client has gone."""
        here = [self.rig.usb_device("--channel", str(number))
                for number in range(3)]
        self.wait_taken(1, 1, 1)
        self.guest.run("until [ $(grep -s 1209 /sys/bus/usb/devices/*/idVendor"
                       " | wc -l) = 3 ]; do usleep 5000; done")
        session = self.rig.raw()
        for number in range(3):
            with sc.refused(sc.ERR_CHANNEL_NOT_AVAILABLE):
                session.open(sc.USBREDIR, number)
        here[1].leave()
        self.wait_taken(1, 0, 1)
        drive = ur.Drive(session, ur.boot_image(b""), channel=1)
        self.wait_taken(1, 1, 1)
        self.guest.run("until [ -e /sys/block/sda ]; do usleep 5000; done")
        drive.close()
        self.wait_taken(1, 0, 1)
        here[0].leave()
        here[2].leave()
        self.wait_taken(0, 0, 0)
        self.devices.gone()

    def busy(self):
        """The first device's client, whose transfers go on while another
        client does what it does; the guest finds devices in any order."""
        device = self.devices.plug(0)
        path = self.guest.run("grep -ls 1209 /sys/bus/usb/devices/*/idVendor")
        assert len(path.split()) == 1
        return device, self.devices.start("bulk-in 4096 %d" % MANY)

    def goes_on(self, device):
        before = device.status()["81"][0]
        wait_until(lambda: device.status()["81"][0] > before + 50, 5,
                   "the other device's transfers")

    def test_stalled(self):
        """A client that does nothing any more holds up its device alone, and
        the guest sees an unplug when it is gone."""
        device, job = self.busy()
        other = self.rig.usb_device("--channel", "1")
        attached = "/machine/peripheral/redir1"
        wait_until(lambda: self.devices.qemu.get(attached, "attached"), 5,
                   "the second device")
        other.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        self.goes_on(device)
        assert self.devices.qemu.get(attached, "attached")
        other.process.send_signal(signal.SIGKILL)
        wait_until(lambda: not self.devices.qemu.get(attached, "attached"), 5,
                   "the unplug")
        self.goes_on(device)
        job.signal(9)
        job.wait(check=False)
        device.leave()
        self.devices.gone()

    def test_flood(self):
        """A client that sends interrupt packets without end: usb-redir drops
        what nobody takes, the other device goes on, QEMU does not grow."""
        device, job = self.busy()
        session = self.rig.raw()
        channel = session.open(sc.USBREDIR, 1)
        channel.send_data(ur.hello())
        channel.receive_data(80)
        flood = channel.message(sc.MSGC_DATA, ur.packet(
            ur.INTERRUPT, struct.pack("<BBH", 0x83, 0, 1000) + bytes(1000)))
        flood *= 60
        kib = self.devices.qemu.process.private_kib()
        end = time.monotonic() + 1.5
        sent = 0
        while time.monotonic() < end:
            channel.connection.send(flood)
            sent += len(flood)
        self.goes_on(device)
        grown = self.devices.qemu.process.private_kib() - kib
        assert grown < 6000, "QEMU grew by %d KiB" % grown
        assert sent > 5 * MIB, sent
        session.close()
        self.wait_taken(1, 0, 0)
        self.goes_on(device)
        job.signal(9)
        job.wait(check=False)
        device.leave()
        self.devices.gone()
