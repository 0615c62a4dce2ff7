# SPDX-License-Identifier: GPL-2.0-or-later
"""Smart cards with a scripted client: first with QEMU's own device, then with
the device's end scripted as well, for what no guest would do on its own."""

import os
import struct
import time

from lib import spiceclient as sc
from lib import vsc
from lib.agentguest import bridge_args
from lib.paths import seconds
from lib.process import wait_until
from lib.rig import server_args

# What each command is answered with by a device that did it.
DONE = vsc.SUCCESS


def ccid_args(*names):
    """QEMU's own device, one for each name."""
    args = ["-device", "piix3-usb-uhci,id=usb"]
    for name in names:
        args += ["-device", "usb-ccid,id=ccid-%s,bus=usb.0" % name,
                 "-chardev", "spiceflow,id=%s,name=smartcard" % name,
                 "-device", "ccid-card-passthru,id=card-%s,chardev=%s,"
                 "bus=ccid-%s.0" % (name, name, name)]
    return args


class TestDevice:
    """QEMU's ccid-card-passthru on usb-ccid; a machine without a guest."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(*server_args(rig.socket, clients=2),
                             *ccid_args("a", "b"))

    def card(self):
        return vsc.Card(self.rig.raw())

    def bye(self, *cards):
        for card in cards:
            card.session.close()
        wait_until(lambda: not any(self.clients(name) for name in "ab"), 5,
                   "nobody has a reader any more")

    def clients(self, name):
        return self.qemu.flow(name)["clients"]

    def test_commands_are_answered(self):
        """Reader, card, no card, no reader: each is answered, once."""
        card = self.card()
        card.say(vsc.INIT, vsc.NO_READER, struct.pack("<II", 2, 1))
        assert card.add() == (0, DONE)
        card.say(vsc.ATR, 0, vsc.AN_ATR)
        assert card.take_answer() == (0, DONE)
        card.say(vsc.CARD_REMOVE, 0)
        assert card.take_answer() == (0, DONE)
        card.say(vsc.READER_REMOVE, 0)
        assert card.take_answer() == (0, DONE)
        assert card.silent()
        self.bye(card)

    def test_bad_atr(self):
        """The device's own error passes; the next ATR is good again."""
        card = self.card()
        assert card.add() == (0, DONE)
        for atr in (b"", b"\x3b", bytes(41), b"\x00\x01\x02"):
            card.say(vsc.ATR, 0, atr)
            assert card.take_answer() == (0, vsc.GENERAL_ERROR), atr
        card.say(vsc.ATR, 0, vsc.AN_ATR)
        assert card.take_answer() == (0, DONE)
        self.bye(card)

    def test_init_never_reaches_the_device(self):
        """An Init makes the device swap memory that is not its own; what
        it does not know it answers, which no command has asked for."""
        card = self.card()
        assert card.add() == (0, DONE)
        for payload in (b"", b"1234", bytes(12), bytes(1000)):
            card.say(vsc.INIT, 0, payload)
        card.say(vsc.FLUSH_COMPLETE, 0)
        card.say(77, 0, b"what")
        card.say(vsc.FLUSH, 0)
        assert card.silent()
        card.say(vsc.ATR, 0, vsc.AN_ATR)
        assert card.take_answer() == (0, DONE)
        assert "unexpected message" not in self.qemu.log()
        self.bye(card)

    def test_two_readers(self):
        """One client, both devices; a third there is not."""
        card = self.card()
        assert card.add() == (0, DONE)
        assert card.add() == (1, DONE)
        assert card.add() == (vsc.NO_READER, vsc.NO_MORE_READERS)
        card.say(vsc.READER_REMOVE, 0)
        assert card.take_answer() == (0, DONE)
        assert card.add() == (0, DONE)
        self.bye(card)

    def test_two_clients(self):
        """Each has a reader of its own, and can not touch the other's."""
        one, two = self.card(), self.card()
        assert one.add() == (0, DONE)
        assert two.add() == (1, DONE)
        two.say(vsc.ATR, 0, vsc.AN_ATR)
        assert two.take_answer() == (0, vsc.GENERAL_ERROR)
        two.say(vsc.APDU, 0, b"\0\xa4\4\0")
        assert two.silent() and one.silent()
        one.session.close()
        wait_until(lambda: not self.clients("a"), 5, "the reader is free")
        two.say(vsc.ATR, 1, vsc.AN_ATR)
        assert two.take_answer() == (1, DONE)
        assert two.add() == (0, DONE)
        self.bye(two)

    def test_client_leaves_with_a_reader(self):
        """The reader is removed in the guest; the device's answer to that is
        not the next client's."""
        for _ in range(5):
            card = self.card()
            assert card.add() == (0, DONE)
            card.say(vsc.ATR, 0, vsc.AN_ATR)
            assert card.take_answer() == (0, DONE)
            self.bye(card)
        card = self.card()
        assert card.silent()
        self.bye(card)

    def test_client_leaves_with_commands_queued(self):
        """Likewise when the VM is stopped: what the device never got is not
        answered, and no answer to a later client is taken for it."""
        self.qemu.command("stop")
        card = self.card()
        card.say(vsc.READER_ADD, vsc.NO_READER, b"r\0")
        card.say(vsc.ATR, 0, vsc.AN_ATR)
        wait_until(lambda: self.clients("a"), 5, "the command has come")
        assert card.silent()
        self.bye(card)
        card = self.card()
        card.say(vsc.READER_ADD, vsc.NO_READER, b"r\0")
        assert card.silent()
        self.qemu.command("cont")
        assert card.take_answer() == (0, DONE)
        assert card.silent()
        self.qemu.command("stop")
        self.bye(card)
        card = self.card()
        self.qemu.command("cont")
        assert card.add() == (0, DONE)
        assert card.silent()
        self.bye(card)

    def test_d34_too_large(self):
        """The largest message goes; one byte more is refused, and the device
        answers the next one, and the next client."""
        card = self.card()
        assert card.add() == (0, DONE)
        card.say(vsc.APDU, 0, bytes(vsc.LARGEST))
        card.say(vsc.APDU, 0, bytes(vsc.LARGEST + 1))
        assert card.take_answer() == (0, vsc.GENERAL_ERROR)
        card.say(vsc.ATR, 0, vsc.AN_ATR)
        assert card.take_answer() == (0, DONE)
        self.bye(card)
        card = self.card()
        assert card.add() == (0, DONE)
        self.bye(card)

    def test_d22_unplug_and_replug(self):
        """A device that goes takes its reader with it, any number of times,
        and another reader goes on."""
        card = self.card()
        assert card.add() == (0, DONE)
        assert card.add() == (1, DONE)
        for _ in range(12):
            self.qemu.command("device_del", id="card-b")
            self.qemu.qmp.event("DEVICE_DELETED", device="card-b")
            self.qemu.command("chardev-remove", id="b")
            card.say(vsc.ATR, 1, vsc.AN_ATR)
            assert card.take_answer() == (1, vsc.GENERAL_ERROR)
            self.qemu.command("chardev-add", id="b", backend={
                "type": "spiceflow", "data": {"name": "smartcard"}})
            self.qemu.command("device_add", driver="ccid-card-passthru",
                              id="card-b", chardev="b", bus="ccid-b.0")
            assert card.add() == (1, DONE)
            card.say(vsc.ATR, 0, vsc.AN_ATR)
            assert card.take_answer() == (0, DONE)
        self.bye(card)

    def test_d22_unplug_from_a_chardev_that_stays(self):
        """Likewise when only QEMU's device goes, under two clients: each
        keeps its reader, and what it says meanwhile waits."""
        cards = [self.card(), self.card()]
        for number, card in enumerate(cards):
            assert card.add() == (number, DONE)
            card.say(vsc.ATR, number, vsc.AN_ATR)
            assert card.take_answer() == (number, DONE)
        for turn in range(12):
            number = turn % 2
            card, other = cards[number], cards[1 - number]
            name = "ab"[number]
            self.qemu.command("device_del", id="card-" + name)
            self.qemu.qmp.event("DEVICE_DELETED", device="card-" + name)
            card.say(vsc.CARD_REMOVE, number)
            assert card.silent(0.05)
            other.say(vsc.ATR, 1 - number, vsc.AN_ATR)
            assert other.take_answer() == (1 - number, DONE)
            self.qemu.command("device_add", driver="ccid-card-passthru",
                              id="card-" + name, chardev=name,
                              bus="ccid-%s.0" % name)
            assert card.take_answer() == (number, DONE)
            card.say(vsc.ATR, number, vsc.AN_ATR)
            assert card.take_answer() == (number, DONE)
            assert card.silent(0.05) and other.silent(0.05)
        self.bye(*cards)
        self.bye(self.card())


class TestScript:
    """Both ends scripted."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(
            *server_args(rig.socket, clients=2),
            *bridge_args(rig.path("a"), "smartcard", "a", "bridge-a"),
            *bridge_args(rig.path("b"), "smartcard", "b", "bridge-b"),
            "-trace", "spiceflow_card_*", machine="none")
        self.devices = {}

    def device(self, name="a"):
        if name in self.devices:
            self.devices[name].close()
        else:
            self.rig.callback(lambda: self.devices[name].close())
        self.devices[name] = vsc.Device(self.rig.path(name))
        return self.devices[name]

    def card(self):
        return vsc.Card(self.rig.raw())

    def reader(self, device, name="a"):
        """A card channel whose reader is this device."""
        card = self.card()
        card.say(vsc.READER_ADD, vsc.NO_READER, b"a reader\0")
        assert device.answer(vsc.READER_ADD)[2] == b"", "the name has gone on"
        assert card.take_answer() == (ord(name) - ord("a"), DONE)
        return card

    def bye(self, card, *devices, apdus=0):
        card.session.close()
        for device in devices:
            device.removed(apdus)
            device.close()

    def flow(self, name="a"):
        return self.qemu.flow(name)

    def test_upstream_list(self):
        """What spice-server's own test asserts of smart cards."""
        device = self.device()
        # a split Init of the device's is ignored
        init = vsc.message(">", vsc.INIT, 0, bytes(12))
        device.write(init[:7])
        device.wait_read()
        device.write(init[7:])
        card = self.card()
        assert card.silent()
        # in order, big-endian, without the name
        card.say(vsc.READER_ADD, vsc.NO_READER, b"hello\0")
        assert device.answer(vsc.READER_ADD) == (vsc.READER_ADD, 0, b"")
        assert card.take_answer() == (0, DONE)
        card.say(vsc.APDU, 0, b"an APDU")
        card.say(vsc.READER_REMOVE, 0)
        assert device.take() == (vsc.APDU, 0, b"an APDU")
        assert device.answer(vsc.READER_REMOVE) == (vsc.READER_REMOVE, 0, b"")
        assert card.take_answer() == (0, DONE)
        # once more: there is none
        card.say(vsc.READER_REMOVE, 0)
        assert card.take_answer() == (0, vsc.GENERAL_ERROR)
        for reader in (5, 261):
            card.say(vsc.READER_REMOVE, reader)
            assert card.take_answer() == (reader, vsc.GENERAL_ERROR)
        # split and coalesced
        card.say(vsc.READER_ADD, vsc.NO_READER, b"r")
        device.answer(vsc.READER_ADD)
        card.take_answer()
        first = vsc.message(">", vsc.APDU, 0, b"first one")
        second = vsc.message(">", vsc.APDU, 0, b"the second one")
        device.write(first[:5])
        device.wait_read()
        device.write(first[5:14])
        device.wait_read()
        device.write(first[14:] + second)
        assert card.take() == (vsc.APDU, 0, b"first one")
        assert card.take() == (vsc.APDU, 0, b"the second one")
        # an unknown type; the device's error as it is
        card.say(99, 0, b"?")
        device.say(vsc.ERROR, b"\1\2\3\4")
        assert card.take() == (vsc.ERROR, 0, b"\1\2\3\4")
        assert device.silent()
        # a reader that there can not be
        card.say(vsc.APDU, 0xabcd, b"x")
        card.channel.wait_closed()
        device.removed(apdus=2)
        device.close()
        card.session.close()

    def test_d10_sizes(self):
        """Both ways, with the borders of what upstream's buffer did wrong."""
        device = self.device()
        card = self.reader(device)
        sizes = (0, 1, 254, 271, 275, 281, 282, 2000, 4084, 4085, 60000,
                 vsc.LARGEST)
        for size in sizes:
            body = os.urandom(size)
            device.say(vsc.APDU, body)
            assert card.take() == (vsc.APDU, 0, body), size
            card.say(vsc.APDU, 0, body)
            assert device.take() == (vsc.APDU, 0, body), size
        # all at once, in pieces of a prime
        bodies = [os.urandom(size) for size in sizes]
        stream = b"".join(vsc.message(">", vsc.APDU, 0, body)
                          for body in bodies)
        for at in range(0, len(stream), 7919):
            device.write(stream[at:at + 7919])
        for body in bodies:
            assert card.take() == (vsc.APDU, 0, body)
        for body in bodies:
            card.say(vsc.APDU, 0, body)
        for body in bodies:
            assert device.take() == (vsc.APDU, 0, body)
        self.bye(card, device)

    def test_device_message_too_large(self):
        """The device's side is bounded as well: skipped, then in step."""
        device = self.device()
        card = self.reader(device)
        device.write(vsc.message(">", vsc.APDU, 0, bytes(vsc.LARGEST + 1)))
        device.say(vsc.APDU, b"next")
        assert card.take() == (vsc.APDU, 0, b"next")
        self.bye(card, device, apdus=1)

    def test_malformed_messages(self):
        """Each ends the channel that brought it, and nothing else; the
        next client works."""
        device = self.device()
        bad = [vsc.message("<", vsc.APDU, 0, b"abc", 4),
               vsc.message("<", vsc.APDU, 0, b"", 0xfffffff4),
               b"", b"12345678901",
               vsc.message("<", vsc.ERROR, 0, b"abc"),
               bytes(80000)]
        for body in bad:
            card = self.reader(device)
            card.channel.connection.offer(
                card.channel.message(sc.MSGC_DATA, body))
            if body[8:12] == b"\xf4\xff\xff\xff":
                assert card.take_answer() == (0, vsc.GENERAL_ERROR)
            else:
                card.channel.wait_closed()
            card.session.close()
            device.answer(vsc.READER_REMOVE)
        card = self.reader(device)
        card.channel.send(sc.MSGC_DATA + 7, b"123456789012")
        card.channel.wait_closed()
        device.answer(vsc.READER_REMOVE)
        device.close()
        card.session.close()

    def test_blocked_device(self):
        """Messages that the device does not take wait, the rest in the
        client's socket; none is lost, torn or answered for."""
        device = self.device()
        card = self.reader(device)
        self.qemu.set("/machine/peripheral/bridge-a", "blocked", True)
        sent = 0

        def body(number):
            return struct.pack("<I", number) * (1 + number * 37 % 15000)

        card.channel.connection.sock.setblocking(False)
        left = b""
        quiet = 0
        while quiet < 10:
            if not left:
                left = card.channel.message(sc.MSGC_DATA, vsc.message(
                    "<", vsc.APDU, 0, body(sent)))
                sent += 1
            try:
                left = left[card.channel.connection.sock.send(left):]
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.05)
        flow = self.flow()
        assert flow["clients"][0]["to-guest-bytes"] <= (1 << 20) + 131072, flow
        self.qemu.set("/machine/peripheral/bridge-a", "blocked", False)
        got = 0
        while got < sent - 1:
            assert device.take() == (vsc.APDU, 0, body(got)), got
            got += 1
        card.channel.connection.send(left)
        assert device.take() == (vsc.APDU, 0, body(got))
        assert card.silent()
        self.bye(card, device)

    def test_overflow_removes_the_client(self):
        """The device never waits: who does not read is removed when its
        queue is full, and the reader with it."""
        device = self.device()
        card = self.reader(device)
        data = vsc.message(">", vsc.APDU, 0, bytes(60000)) * 100
        device.write(data)
        device.removed(apdus=100)
        wait_until(lambda: not self.flow()["clients"], 5, "it is removed")
        card.session.close()
        other = self.reader(device)
        self.bye(other, device)

    def test_overflow_with_commands_queued(self):
        """Likewise while commands of its own wait: neither the device's
        answers nor the reader are miscounted for the next client."""
        for begun in (0, 1, 2):
            device = self.device()
            card = self.reader(device)
            self.block(True)
            queued = [(vsc.ATR, vsc.AN_ATR), (vsc.CARD_REMOVE, b""),
                      (vsc.READER_REMOVE, b"")][begun:]
            for kind, payload in queued:
                card.say(kind, 0, payload)
            wait_until(lambda: self.flow()["to-guest-messages"] == len(queued),
                       5, "the commands have come")
            device.write(vsc.message(">", vsc.APDU, 0, bytes(60000)) * 60)
            device.wait_read()
            wait_until(lambda: not self.flow()["clients"], 5, "it is removed")
            card.session.close()
            self.block(False)
            # The first is with the device already, as far as may be told.
            kind = queued[0][0]
            if kind == vsc.ATR:
                assert device.answer(vsc.ATR)[2] == vsc.AN_ATR
                device.removed()
            else:
                for _ in range(60):
                    assert device.take()[2] == vsc.GIVEN_UP
                device.answer(kind)
                if kind == vsc.CARD_REMOVE:
                    device.answer(vsc.READER_REMOVE)
            other = self.reader(device)
            other.say(vsc.ATR, 0, vsc.AN_ATR)
            device.answer(vsc.ATR, 7)
            assert other.take_answer() == (0, 7)
            assert other.silent()
            self.bye(other, device)

    def block(self, blocked):
        self.qemu.set("/machine/peripheral/bridge-a", "blocked", blocked)

    def test_client_leaves_in_an_apdu(self):
        """The guest gets an error, for what it sends next too; when it is
        quiet the reader goes, and then the next client's comes."""
        device = self.device()
        card = self.reader(device)
        device.say(vsc.APDU, b"one")
        card.take()
        card.session.close()
        assert device.take() == (vsc.APDU, 0, vsc.GIVEN_UP)
        other = self.card()
        other.say(vsc.READER_ADD, vsc.NO_READER, b"r")
        for _ in range(3):
            assert device.silent(0.1)
            device.say(vsc.APDU, b"another")
            assert device.take() == (vsc.APDU, 0, vsc.GIVEN_UP)
        quiet = time.monotonic()
        assert device.answer(vsc.READER_REMOVE)
        assert time.monotonic() - quiet > 0.4
        device.answer(vsc.READER_ADD)
        assert other.take_answer() == (0, DONE)
        device.say(vsc.APDU, b"for it")
        assert other.take() == (vsc.APDU, 0, b"for it")
        self.bye(other, device, apdus=1)

    def test_guest_that_does_not_give_up(self):
        """It is cut off after a few seconds."""
        device = self.device()
        card = self.reader(device)
        device.say(vsc.APDU, b"first")
        card.take()
        card.session.close()
        begin = time.monotonic()
        while True:
            message = device.take()
            if message[0] == vsc.READER_REMOVE:
                break
            assert message == (vsc.APDU, 0, vsc.GIVEN_UP)
            time.sleep(0.05)
            device.say(vsc.APDU, b"again")
        assert 4 < time.monotonic() - begin < seconds(12)
        device.say(vsc.ERROR, vsc.error(0))
        device.close()

    def test_stop_while_a_removal_waits(self):
        """The guest's time stands still meanwhile."""
        device = self.device()
        card = self.reader(device)
        device.say(vsc.APDU, b"one")
        card.take()
        self.qemu.command("stop")
        card.session.close()
        wait_until(lambda: not self.flow()["clients"], 5, "it has left")
        assert device.silent(0.7)
        self.qemu.command("cont")
        assert device.take() == (vsc.APDU, 0, vsc.GIVEN_UP)
        self.qemu.command("stop")
        assert device.silent(0.7)
        self.qemu.command("cont")
        device.answer(vsc.READER_REMOVE)
        device.close()

    def test_card_removed_in_an_apdu(self):
        """The client's own removals wait as well, and what follows them; an
        answer that comes late is for nobody."""
        device = self.device()
        card = self.reader(device)
        device.say(vsc.APDU, b"one")
        card.take()
        card.say(vsc.CARD_REMOVE, 0)
        card.say(vsc.ATR, 0, vsc.AN_ATR)
        assert device.take() == (vsc.APDU, 0, vsc.GIVEN_UP)
        assert device.silent(0.3)
        assert card.silent(0.05)
        device.answer(vsc.CARD_REMOVE)
        device.answer(vsc.ATR)
        assert card.take_answer() == (0, DONE)
        assert card.take_answer() == (0, DONE)
        self.bye(card, device)

    def test_device_unplugged_under_its_client(self):
        """What it owed is answered; the next device of that chardev gets the
        reader and the card, and the client notices nothing."""
        device = self.device()
        card = self.reader(device)
        card.say(vsc.ATR, 0, vsc.AN_ATR)
        device.answer(vsc.ATR)
        assert card.take_answer() == (0, DONE)
        for _ in range(3):
            device.say(vsc.APDU, b"one")
            card.take()
            card.say(vsc.ATR, 0, vsc.AN_ATR)
            assert device.take()[0] == vsc.ATR
            device.close()
            assert card.take_answer() == (0, vsc.GENERAL_ERROR)
            device = self.device()
            assert device.answer(vsc.READER_ADD)
            assert device.answer(vsc.ATR) == (vsc.ATR, 0, vsc.AN_ATR)
            assert card.silent()
            device.say(vsc.APDU, b"two")
            assert card.take() == (vsc.APDU, 0, b"two")
            card.say(vsc.APDU, 0, b"2")
            assert device.take() == (vsc.APDU, 0, b"2")
        # without its card, and with its removal asked for
        card.say(vsc.CARD_REMOVE, 0)
        device.answer(vsc.CARD_REMOVE)
        assert card.take_answer() == (0, DONE)
        device.close()
        device = self.device()
        device.answer(vsc.READER_ADD)
        card.say(vsc.READER_REMOVE, 0)
        assert device.take()[0] == vsc.READER_REMOVE
        device.close()
        assert card.take_answer() == (0, vsc.GENERAL_ERROR)
        card.session.close()
        device = self.device()
        assert device.silent()
        self.bye(self.reader(device), device)

    def test_without_a_client(self):
        """What the device says then is forgotten; the next client starts at a
        message's border, also when the device is inside of one."""
        device = self.device()
        device.say(vsc.APDU, b"for nobody")
        late = vsc.message(">", vsc.APDU, 0, b"begun before")
        device.write(late[:15])
        device.wait_read()
        card = self.card()
        card.say(vsc.READER_ADD, vsc.NO_READER, b"r")
        assert device.take()[0] == vsc.READER_ADD
        device.write(late[15:])
        device.say(vsc.ERROR, vsc.error(0))
        device.say(vsc.APDU, b"for it")
        got = [card.take(), card.take()]
        while got[-1][2] != b"for it":
            got.append(card.take())
        assert (vsc.ERROR, 0, vsc.error(0)) in got
        self.bye(card, device, apdus=2)

    def test_stop_with_apdus_in_flight(self):
        """In both directions: to the device it waits, from the device it is
        taken (it would spin otherwise)."""
        device = self.device()
        card = self.reader(device)
        for n in range(10):
            self.qemu.command("stop")
            card.say(vsc.APDU, 0, b"to %d" % n)
            device.say(vsc.APDU, b"from %d" % n)
            assert device.silent(0.1)
            self.qemu.command("cont")
            assert device.take() == (vsc.APDU, 0, b"to %d" % n)
            assert card.take() == (vsc.APDU, 0, b"from %d" % n)
        self.bye(card, device)

    def test_stale_answers(self):
        """Commands that a client left without an answer are answered to
        nobody, however late."""
        device = self.device()
        card = self.reader(device)
        card.say(vsc.ATR, 0, vsc.AN_ATR)
        card.say(vsc.CARD_REMOVE, 0)
        assert device.take()[0] == vsc.ATR
        assert device.take()[0] == vsc.CARD_REMOVE
        card.session.close()
        assert device.take()[0] == vsc.READER_REMOVE
        other = self.card()
        other.say(vsc.READER_ADD, vsc.NO_READER, b"r")
        assert device.take()[0] == vsc.READER_ADD
        for code in (11, 12, 13, 0):
            device.say(vsc.ERROR, vsc.error(code))
        assert other.take_answer() == (0, 0)
        assert other.silent()
        self.bye(other, device)

    def test_error_texts(self):
        """The traces name the reader, the command and what was wrong."""
        device, second = self.device(), self.device("b")
        card = self.reader(device)
        card.say(vsc.READER_REMOVE, 7)
        assert card.take_answer() == (7, vsc.GENERAL_ERROR)
        card.say(vsc.READER_ADD, vsc.NO_READER, b"r")
        second.answer(vsc.READER_ADD)
        assert card.take_answer() == (1, 0)
        card.say(vsc.READER_ADD, vsc.NO_READER, b"r")
        assert card.take_answer() == (vsc.NO_READER, vsc.NO_MORE_READERS)
        card.say(vsc.APDU, 0, bytes(vsc.LARGEST + 1))
        assert card.take_answer() == (0, vsc.GENERAL_ERROR)
        log = self.qemu.log()
        for text in ("reader 0x7 ReaderRemove: the client has no such reader",
                     "reader 0xffffffff ReaderAdd: there is no free "
                     "smart-card device",
                     "reader 0x0 APDU: the message is larger than 64 KiB"):
            assert text in log, log[-2000:]
        self.bye(card, device, second)
