# SPDX-License-Identifier: GPL-2.0-or-later
"""Smart cards: the client's software card, used by programs in the guest.

From end to end it is what people use: opensc, pcscd and the CCID driver in
the guest, QEMU's reader, the channel, spice-gtk and libcacard, which makes a
CAC card of three certificates in an NSS database.  The readers are on a UHCI
controller: on xHCI, QEMU's reader loses step after an answer of exactly 64
bytes, whatever the back end.
"""

import base64
import hashlib
import os
import re
import struct
import subprocess
import time

from lib import migration, spiceclient
from lib.guest import GuestError
from lib.paths import seconds
from lib.process import wait_until
from lib.rig import card_args, not_with_peer, server_args

VARIANTS = ("card",)
VSC_ERROR, VSC_READER_ADD = 2, 3
ATR = "3b:7a:18:00:00:73:66:74:65:20:63:64:31:34:34"
MODULE = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
NAMES = ("id", "sign", "encrypt")
# An RSA key of 2048 bits as a certificate has it: 294 bytes that begin so.
SPKI = bytes.fromhex("30820122300d06092a864886f70d01010105000382010f00")
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


class Database:
    """An NSS database with the three certificates of one card."""

    def __init__(self, rig, name="card"):
        self.path = "sql:" + rig.path(name)
        os.mkdir(rig.path(name))
        noise = rig.path(name + ".noise")
        with open(noise, "wb") as file:
            file.write(os.urandom(2048))
        self.certutil("-N", "--empty-password")
        for serial, nick in enumerate(NAMES, 1):
            self.certutil("-S", "-s", "CN=%s %s" % (name, nick), "-n", nick,
                          "-x", "-t", "CTu,CTu,CTu", "-z", noise, "-m",
                          str(serial), "-k", "rsa", "-g", "2048")

    def certutil(self, *args):
        done = subprocess.run(["certutil", "-d", self.path, *args],
                              check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        return done.stdout

    def options(self):
        return ("--smartcard-db", self.path, "--smartcard-certs",
                ",".join(NAMES))

    def certificate(self, nick):
        """A certificate, DER."""
        return self.certutil("-L", "-n", nick, "-r")

    def verify(self, nick, data, signature):
        """Is this a PKCS #1 signature of DATA, with SHA-256?"""
        der = self.certificate(nick)
        at = der.index(SPKI)
        modulus, exponent = spiceclient.rsa_public_key(der[at:at + 294])
        plain = pow(int.from_bytes(signature, "big"), exponent, modulus)
        tail = DIGEST_INFO + hashlib.sha256(data).digest()
        wanted = b"\0\1" + b"\xff" * (256 - 3 - len(tail)) + b"\0" + tail
        return plain.to_bytes(256, "big") == wanted


class CardRig:
    """A guest with readers and pcscd, and what the tests do there."""

    def start_rig(self, rig, readers=1, more=(), **options):
        self.rig = rig
        self.guest = rig.guest(*server_args(rig.socket, **options),
                               *card_args(readers), *more, variant="card")
        # Nobody tells pcscd of devices that come later: there is no udev.
        self.guest.run(
            "until [ $(cat /sys/bus/usb/devices/*/bInterfaceClass |"
            " grep -c 0b) = %d ]; do usleep 20000; done; pcscd" % readers)

    def client(self, database):
        client = self.rig.client(*database.options())
        client.find(r"^card inserted software=1$")
        client.find(r"^channel-event smartcard 0 opened")
        return client

    def readers(self):
        """For each reader that pcscd knows: is there a card?"""
        text = self.guest.run("opensc-tool -l", 60, check=False)
        return [word == "Yes" for word in re.findall(r"^\d+ +(Yes|No)\b",
                                                     text, re.M)]

    def wait_readers(self, *wanted, timeout=20):
        """Until the readers are as wanted."""
        end = time.monotonic() + seconds(timeout)
        while True:
            found = self.readers()
            if found == list(wanted):
                return
            assert time.monotonic() < end, "readers: %s" % found

    def atr(self, reader=0):
        return self.guest.run("opensc-tool -r %d --atr 2>/dev/null" % reader,
                              60).splitlines()[-1]

    def certificate(self, ident, reader=0):
        """A certificate that the guest read from the card, DER."""
        text = self.guest.run(
            "pkcs15-tool -r %d --read-certificate %s 2>/dev/null" %
            (reader, ident), 60)
        match = re.search("-----BEGIN CERTIFICATE-----(.*)-----END", text,
                          re.S)
        return base64.b64decode(match.group(1))

    def sign_command(self, name, ident="0002", slot=0):
        return ("pkcs11-tool --module %s --slot-index %d -s -m SHA256-RSA-PKCS"
                " --id %s -l --pin 1234 -i /tmp/%s -o /tmp/%s.sig" %
                (MODULE, slot, ident, name, name))

    def apdus(self):
        """How many messages the reader has sent."""
        return self.guest.qemu.flow("card0")["total-from-guest-messages"]

    def pause_in_an_apdu(self, client, before):
        """Stop the client while the guest uses its card."""
        wait_until(lambda: self.apdus() > before + 2, 20, "an APDU")
        client.pause()
        time.sleep(0.7)

    def check_sign(self, database, nick="sign", ident="0002", slot=0):
        """A signature made in the guest is good on the host."""
        data = os.urandom(200)
        name = "data%d" % slot
        self.guest.write_file("/tmp/" + name, data)
        self.guest.run(self.sign_command(name, ident, slot), 60)
        signature = base64.b64decode(
            self.guest.run("base64 /tmp/%s.sig" % name))
        assert database.verify(nick, data, signature), nick
        assert not database.verify(nick, data + b"x", signature)


class TestCard(CardRig):
    """One reader, one client at a time."""

    def setup(self, rig):
        self.start_rig(rig, more=migration.disk(rig.path("disk")))
        self.database = Database(rig)

    def works(self):
        """A client comes, its card signs, and it goes."""
        client = self.client(self.database)
        self.wait_readers(True)
        self.check_sign(self.database)
        client.quit()
        self.wait_readers(False)

    def test_reader(self):
        """The reader is there, the card comes with the client and goes with
        it."""
        self.wait_readers(False)
        for _ in range(2):
            client = self.client(self.database)
            self.wait_readers(True)
            assert self.atr() == ATR, self.atr()
            client.quit()
            self.wait_readers(False)

    def test_certificates(self):
        """All three certificates arrive as they are in the database."""
        client = self.client(self.database)
        self.wait_readers(True)
        for number, nick in enumerate(NAMES, 1):
            assert self.certificate("%04d" % number) == \
                self.database.certificate(nick), nick
        client.quit()

    def test_signature(self):
        """A signature made by a program in the guest verifies on the host."""
        client = self.client(self.database)
        self.wait_readers(True)
        self.check_sign(self.database)
        self.check_sign(self.database, "id", "0001")
        client.quit()

    def test_card_removed(self):
        """The card is taken out and put in again."""
        client = self.client(self.database)
        self.wait_readers(True)
        for _ in range(3):
            client.send("card", "remove")
            client.outcome("card", "remove")
            self.wait_readers(False)
            client.send("card", "insert")
            client.outcome("card", "insert")
            self.wait_readers(True)
        assert self.atr() == ATR
        self.check_sign(self.database)
        client.quit()

    def test_stop_and_continue(self):
        """The VM is stopped and continued while the guest uses the card."""
        client = self.client(self.database)
        self.wait_readers(True)
        qmp = self.guest.qemu.qmp
        job = self.guest.start(
            "pkcs15-tool --read-certificate 0003 2>/dev/null")
        stops = 0
        while job.running():
            qmp.command("stop")
            time.sleep(0.1)
            qmp.command("cont")
            time.sleep(0.1)
            stops += 1
        text = job.wait().partition("-----BEGIN CERTIFICATE-----")[2]
        assert base64.b64decode(text.partition("-----END")[0]) == \
            self.database.certificate("encrypt")
        assert stops > 2, stops
        client.quit()

    def test_client_killed(self):
        """A client dies while the guest waits for its card's answer: the
        guest gets an error soon, and the next client's card works."""
        self.guest.write_file("/tmp/doomed", b"data")
        for _ in range(2):
            client = self.client(self.database)
            self.wait_readers(True)
            before = self.apdus()
            job = self.guest.start(self.sign_command("doomed"))
            self.pause_in_an_apdu(client, before)
            assert job.running(), job.output
            client.process.send_signal(9)
            client.process.wait()
            try:
                raise AssertionError("it was signed: " + job.wait(60))
            except GuestError:
                pass
            self.wait_readers(False)
            self.works()

    def test_snapshot_in_an_apdu(self):
        """A snapshot that is taken while the guest waits for its card's
        answer, and loaded when the card is gone: the guest gets an error
        soon, and the next client's card works."""
        self.guest.write_file("/tmp/doomed", b"data")
        client = self.client(self.database)
        self.wait_readers(True)
        before = self.apdus()
        self.guest.run("(%s; echo ended > /tmp/ended) > /dev/null 2>&1 &" %
                       self.sign_command("doomed"))
        self.pause_in_an_apdu(client, before)
        ended = "cat /tmp/ended 2>/dev/null; true"
        assert not self.guest.run(ended)
        migration.savevm(self.guest.qemu, "apdu")
        client.process.send_signal(9)
        client.process.wait()
        for _ in range(2):
            wait_until(lambda: self.guest.run(ended), 20, "an error")
            self.wait_readers(False)
            migration.loadvm(self.guest.qemu, "apdu")
        wait_until(lambda: self.guest.run(ended), 20, "an error")
        self.wait_readers(False)
        self.works()

    def test_unplug_and_replug(self):
        """The card slot is unplugged and plugged in again.  Under a client
        its card comes back by itself; with the chardev gone too, the next
        client's does."""
        qmp = self.guest.qemu.qmp
        client = self.client(self.database)

        def unplug():
            self.wait_readers(True)
            qmp.command("device_del", id="slot0")
            qmp.event("DEVICE_DELETED", device="slot0")
            self.wait_readers(False)

        def plug():
            qmp.command("device_add", driver="ccid-card-passthru",
                        id="slot0", bus="ccid0.0", chardev="card0")

        unplug()
        plug()
        self.wait_readers(True)
        self.check_sign(self.database)
        unplug()
        qmp.command("chardev-remove", id="card0")
        client.quit()
        qmp.command("chardev-add", id="card0", backend={
            "type": "spiceflow", "data": {"name": "smartcard"}})
        plug()
        self.works()


class TestTwoReaders(CardRig):
    """Two readers, each with the card of another client."""

    def setup(self, rig):
        not_with_peer("spice-server has one reader, and aborts at a second")
        self.start_rig(rig, readers=2, clients=2)

    def test_both(self):
        databases = [Database(self.rig, "anna"), Database(self.rig, "bert")]
        self.wait_readers(False, False)
        clients = [self.client(database) for database in databases]
        self.wait_readers(True, True)
        owners = []
        for reader in range(2):
            read = self.certificate("0001", reader)
            owners += [number for number, database in enumerate(databases)
                       if database.certificate("id") == read]
        assert sorted(owners) == [0, 1], owners
        for reader in range(2):
            self.check_sign(databases[owners[reader]], slot=reader)
        clients[0].quit()
        expected = [owner != 0 for owner in owners]
        self.wait_readers(*expected)
        reader = owners.index(1)
        assert self.certificate("0002", reader) == \
            databases[1].certificate("sign")
        client = self.client(databases[0])
        self.wait_readers(True, True)
        reader = owners.index(0)
        assert self.certificate("0003", reader) == \
            databases[0].certificate("encrypt")
        client.quit()
        clients[1].quit()
        self.wait_readers(False, False)


def test_main_channel_goes_first(rig):
    """A client whose main channel closes before its smart-card channel, with
    and without a reader; the next one can begin anew."""
    qemu = rig.qemu(*server_args(rig.socket), *card_args())

    def say(channel, kind, body=b""):
        channel.send(spiceclient.MSG_DATA, struct.pack(
            "<III", kind, 0xffffffff, len(body)) + body)

    for with_reader in (False, True, False):
        session = rig.raw()
        channel = session.open(spiceclient.SMARTCARD)
        if with_reader:
            say(channel, VSC_READER_ADD, b"reader")
            answer = channel.expect(spiceclient.MSG_DATA)
            assert struct.unpack("<II", answer[:8]) == (VSC_ERROR, 0), answer
        session.drop(session.main)
        channel.wait_closed()
        session.close()
    assert qemu.process.running()
    qemu.quit()
