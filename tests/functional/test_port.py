# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw ports with a real guest: bytes both ways, stalls, comings and goings."""

import os
import time

from lib import spiceclient as sc
from lib.guest import fields
from lib.process import wait_until
from lib.rig import PORT
from lib.samples import MIB


class TestPort:
    """One guest, one port, the client that people's viewers are built on."""

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.port_guest()

    def new_client(self, *options):
        client = self.rig.client(*options)
        client.find(r"^port-new %s$" % PORT)
        return client

    def test_to_client(self):
        """Guest to client: 32 MiB in order, complete, once."""
        client = self.new_client()
        client.send("port", PORT, "check", 32 * MIB, 7)
        job = self.guest.start("porttool gen %s %d -s 7" % (PORT, 32 * MIB))
        done = client.outcome("port", PORT, "check")
        assert done["bytes"] == 32 * MIB, done
        assert job.result()["bytes"] == 32 * MIB
        client.quit()

    def test_to_guest(self):
        """Client to guest: 32 MiB in order, complete, once."""
        client = self.new_client()
        job = self.guest.start("porttool check %s %d -s 9" % (PORT, 32 * MIB))
        client.send("port", PORT, "gen", 32 * MIB, 9)
        assert job.result(60)["bytes"] == 32 * MIB
        client.outcome("port", PORT, "gen")
        client.quit()

    def test_both_ways(self):
        """An echo in the guest: both directions at once."""
        client = self.new_client()
        total = MIB + 5     # less than all buffers: see test_migrate
        job = self.guest.start("porttool echo %s %d" % (PORT, total))
        client.wait_port(PORT)
        client.send("port", PORT, "check", total, 3)
        client.send("port", PORT, "gen", total, 3)
        client.expect(r"^done port \S+ check", 60, r"^failed")
        job.result()
        client.quit()

    def test_files(self):
        """Files with random content and odd sizes keep their SHA-256."""
        size = 5 * MIB + 4321
        source = self.rig.path("source")
        with open(source, "wb") as file:
            file.write(os.urandom(size))
        client = self.new_client()
        job = self.guest.start("porttool recv %s %d /tmp/a" % (PORT, size))
        client.send("port", PORT, "send", source)
        there = client.outcome("port", PORT, "send")["sha256"]
        job.result()
        assert self.guest.run("sha256sum /tmp/a").split()[0] == there

        client.send("port", PORT, "recv", size, self.rig.path("back"))
        job = self.guest.start("porttool send %s /tmp/a" % PORT)
        back = client.outcome("port", PORT, "recv")
        job.result()
        assert back["sha256"] == there, back
        self.guest.run("rm /tmp/a")
        client.quit()

    def test_stalled_client(self):
        """A client that stops reading stops the guest; nothing is lost, and
        QEMU does not grow by what it did not deliver.  The guest's own ring
        takes up to 32 MiB."""
        total = 128 * MIB
        client = self.new_client()
        self.warm_up(client)
        client.send("port", PORT, "check", total, 1)
        client.pause()
        before = self.guest.qemu.process.private_kib()
        job = self.guest.start("porttool gen %s %d -s 1 -p 50" %
                               (PORT, total))
        last = self.settle(job)
        assert last > 0
        assert last < total // 2, "the guest was not stopped: %d" % last
        grown = self.guest.qemu.process.private_kib() - before
        assert grown < 16 * 1024, "QEMU grew by %d KiB" % grown
        client.resume()
        client.outcome("port", PORT, "check")
        assert job.result()["bytes"] == total
        client.quit()

    def test_stalled_guest(self):
        """A guest that does not read stops the client; nothing is lost."""
        total = 64 * MIB
        client = self.new_client("--progress", "50")
        self.warm_up(client)
        job = self.guest.start("porttool check %s %d -s 2" % (PORT, total))
        client.wait_port(PORT)
        job.signal(19)
        before = self.guest.qemu.process.private_kib()
        client.send("port", PORT, "gen", total, 2)
        last = self.settle(client)
        assert last > 0
        assert last < total // 2, "the client was not stopped: %d" % last
        grown = self.guest.qemu.process.private_kib() - before
        assert grown < 16 * 1024, "QEMU grew by %d KiB" % grown
        job.signal(18)
        assert job.result(60)["bytes"] == total
        client.outcome("port", PORT, "gen")
        client.quit()

    def warm_up(self, client):
        """Some traffic each way, so that the emulated CPU's translations are
        not taken for queued data."""
        job = self.guest.start("porttool echo %s %d" % (PORT, 4 * MIB))
        client.send("port", PORT, "check", 4 * MIB)
        client.send("port", PORT, "gen", 4 * MIB)
        client.expect(r"^done port \S+ check", 60, r"^failed")
        job.result()
        client.find(r"^done port \S+ gen")
        client.wait_port_used(PORT)

    @staticmethod
    def settle(source, still=1.5):
        """Progress of a job or client once it has stopped changing."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < still:
            if hasattr(source, "guest"):
                source.guest.poll()
                lines = [line for line in source.output.splitlines()
                         if line.startswith("progress")]
                now = fields(lines[-1])["bytes"] if lines else 0
            else:
                now = (source.progress() or (0, 0))[0]
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.05)
        return last

    def test_client_returns(self):
        """The guest sees a client come, go and come again; the port works
        for each, and no byte of the one before reaches the next."""
        job = self.guest.start("porttool watch %s 8" % PORT)
        self.guest.run("true")
        for _ in range(2):
            client = self.new_client()
            job.line(r"host connected=1")
            client.quit()
            job.line(r"host connected=0")
        job.end()

        client = self.new_client()
        client.send("port", PORT, "check", 1000, 5)
        self.guest.start("porttool gen %s 1000 -s 5" % PORT).result()
        client.outcome("port", PORT, "check")
        client.quit()

    def test_latency(self):
        """One byte there and back, two hundred times."""
        client = self.new_client()
        job = self.guest.start("porttool echo %s 200" % PORT)
        client.wait_port(PORT)
        client.send("port", PORT, "ping", 200)
        done = client.outcome("port", PORT, "ping")
        assert done["count"] == 200
        job.result()
        client.quit()

    def test_scripted(self):
        """The same port for the scripted client, one byte at a time."""
        session = self.rig.raw()
        port = session.open_port(PORT)
        assert port.port_init.name == PORT
        job = self.guest.start("porttool echo %s 100" % PORT)
        port.expect_event(sc.EVENT_OPENED)
        text = bytes(range(100))
        port.connection.send_slowly(port.message(sc.MSGC_DATA, text))
        assert port.receive_data(100) == text
        job.result()
        port.expect_event(sc.EVENT_CLOSED)
        session.close()


def test_no_descriptor_leak(rig):
    """Two hundred sessions with their port leave QEMU as it was."""
    guest = rig.port_guest()
    process = guest.qemu.process

    def visit():
        session = rig.raw()
        session.open_port(PORT)
        session.close()

    for _ in range(5):
        visit()
    wait_until(lambda: guest.run("true") == "", 5, "the guest's answer")
    before = len(process.descriptors())
    for _ in range(200):
        visit()
    wait_until(lambda: len(process.descriptors()) <= before, 10,
               "closing of descriptors (now %d, before %d)" %
               (len(process.descriptors()), before))
