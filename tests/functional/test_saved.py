# SPDX-License-Identifier: GPL-2.0-or-later
"""States that are saved at odd moments, by machines that are put together in
another order, and loaded again and again."""

import os
import re

from lib import agentguest as ag, migration, paths, spiceclient as sc, vsc
from lib.agentguest import DATA
from lib.agentscript import AgentScript
from lib.guest import words
from lib.paths import seconds
from lib.process import wait_until
from lib.rig import (AGENT, PORT, agent_port_args, chardev_args, port_args,
                     server_args)
from lib.samples import ramp

SECOND = "org.example.second.0"
TIMES = 20
LONG = ramp(3000)


class SavedAgent(AgentScript):
    """An agent's device without a guest, saved to a file and loaded in
    another QEMU, while the first one goes on."""

    def saved(self):
        path = self.rig.path("state")
        migration.migrate(self.qemu, "file:" + path)
        assert self.qemu.command("query-status")["status"] == "postmigrate"
        return path

    def load(self, path):
        """Another QEMU with that state, running, and the guest in it."""
        far = self.rig.path("agent-%d" % len(self.rig.qemus))
        server = list(server_args(self.rig.path("spice-%d" %
                                                len(self.rig.qemus))))
        qemu = self.rig.qemu(*server, *ag.bridge_args(far), "-incoming",
                             "defer", machine="none")
        migration.incoming(qemu, "file:" + path)
        agent = ag.Agent(far)
        self.rig.callback(agent.close)
        qemu.wait_flow("agent", "guest-open", True)
        migration.wait_running(qemu)
        return qemu, agent, server[1].rpartition("path=")[2]

    def next_client(self, qemu, path):
        """Another client, attached to the agent of a QEMU that was loaded."""
        session = self.rig.raw(path)
        session.wait_agent()
        session.main.agent_start()
        wait_until(lambda: qemu.flow("agent")["clients"], 5,
                   "the client to attach")
        return session


class TestD8(SavedAgent):
    """spice-server aborts its QEMU when it is migrated in these states."""

    def test_d8a_chunk_header_without_its_body(self):
        """The guest has written the header of a chunk, or a part of it, and
        no byte of the body."""
        agent = self.agent()
        client = self.client()
        stream = ag.chunks(ag.message(DATA, LONG))
        for cut in (8, 4, 8 + 2048 + 8, 8 + 20, 8 + 7):
            agent.write(stream[:cut])
            agent.wait_read()
            assert agent.silent(0.1)
            path = self.saved()
            other, theirs, address = self.load(path)
            self.qemu.command("cont")
            # here it goes on
            agent.write(stream[cut:])
            assert client.expect(DATA) == LONG
            # there the rest of it is for nobody, and the next one is whole
            theirs.write(stream[cut:])
            session = self.next_client(other, address)
            theirs.write(stream)
            got = bytearray()
            while len(got) < 20 + len(LONG):
                got += session.main.expect(sc.MSG_MAIN_AGENT_DATA)
            assert bytes(got) == ag.message(DATA, LONG)
            session.close()
            theirs.close()
            other.quit()

    def test_d8b_agent_without_agent_start(self):
        """There are an agent and a client, which has not said AGENT_START."""
        agent = self.agent()
        client = self.client(tokens=None)
        assert client.session.init.agent_connected
        assert not self.flow()["clients"]
        path = self.saved()
        other, theirs, address = self.load(path)
        self.qemu.command("cont")
        self.start(client)
        for far, session in ((agent, client.session),
                             (theirs, self.next_client(other, address))):
            session.main.agent_data(ag.message(DATA, b"after"))
            assert far.expect(DATA) == b"after"
            far.say(DATA, LONG)
            got = bytearray()
            while len(got) < 20 + len(LONG):
                got += session.main.expect(sc.MSG_MAIN_AGENT_DATA)
            assert bytes(got) == ag.message(DATA, LONG)


class TestManyTimes:
    """One stream, loaded again and again in one process with work between, as
    checkpoints are."""

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(
            *server_args(rig.socket), *port_args(PORT),
            *agent_port_args(),
            *migration.disk(rig.path("disk")))
        self.qemu = self.guest.qemu

    def test_twenty_loads(self):
        """Each time the guest that takes the port's bytes and the agent's
        message is the one of then, the clients are the same, and everything
        works; and QEMU has no more of anything at the end."""
        session = self.rig.raw()
        port = session.open_port(PORT)
        check = self.guest.start("porttool check %s 8000 -s 3" % PORT)
        port.expect_event(sc.EVENT_OPENED)
        piece = ag.message(ag.CLIPBOARD, bytes(500))
        agent = self.guest.start("porttool recv %s %d /tmp/got" % (
            AGENT, len(ag.chunk(piece)) * 2 + len(ag.GONE)))
        session.wait_agent()
        session.main.agent_start()
        session.main.agent_data(piece)
        session.main.expect(sc.MSG_MAIN_AGENT_TOKEN)
        self.guest.run("true")
        migration.savevm(self.qemu, "a")
        descriptors = None
        for turn in range(TIMES):
            if turn:
                self.guest.revive(check)
                self.guest.revive(agent)
            migration.loadvm(self.qemu, "a")
            session.main.expect(sc.MSG_MAIN_AGENT_DISCONNECTED)
            session.main.expect(sc.MSG_MAIN_AGENT_CONNECTED_TOKENS)
            session.main.agent_start()
            port.wait_event(sc.EVENT_OPENED)
            port.send_data(words(1000, 3))
            session.main.agent_data(piece)
            check.result()
            agent.result()
            if turn == 2:
                descriptors = len(self.qemu.process.descriptors())
        assert len(self.qemu.process.descriptors()) <= descriptors
        flow = self.qemu.flow("p1")
        assert flow["to-guest-bytes"] == 0 and len(flow["clients"]) == 1, flow
        assert self.qemu.flow("agent")["token-violations"] \
            == 0
        session.close()


class TestOrder:
    """Chardevs and devices that are hotplugged, and stand in another order on
    the other side: what belongs to one comes to it."""

    PORTS = ((PORT, "p1", 1), (SECOND, "p2", 2), (AGENT, "agent", 3))

    @staticmethod
    def port_device(name, chardev, number):
        return "virtserialport,id=v-%s,chardev=%s,name=%s,nr=%d" % (
            chardev, chardev, name, number)

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(
            *server_args(rig.path("first"), "spiceflow"), "-device",
            "virtio-serial-pci,id=vser,addr=8", "-trace",
            "spiceflow_migrate_*")
        self.qemu = self.guest.qemu
        for name, chardev, number in self.PORTS:
            self.qemu.command("chardev-add", id=chardev, backend={
                "type": "spiceflow", "data": {
                    "name": "vdagent" if chardev == "agent" else name}})
            self.qemu.qmp.execute("device_add", {
                "driver": "virtserialport", "id": "v-" + chardev,
                "chardev": chardev, "name": name, "nr": number})

    def target(self):
        args = [*server_args(self.rig.path("second"), "spiceflow"), "-device",
                "virtio-serial-pci,id=vser,addr=8", "-trace",
                "spiceflow_migrate_*"]
        for name, chardev, number in reversed(self.PORTS):
            args += chardev_args(chardev, "vdagent" if chardev == "agent"
                                 else name, "spiceflow")
        for name, chardev, number in (self.PORTS[1], self.PORTS[2],
                                      self.PORTS[0]):
            args += ["-device", self.port_device(name, chardev, number)]
        return self.rig.qemu(*args, "-incoming", "defer",
                             guest=paths.guest_images())

    @staticmethod
    def sections(qemu, kind):
        return sorted(re.findall(
            r"spiceflow_migrate_%s (chardev \w+ clients \d+ buffers \d+ bytes"
            r" \d+)" % kind, qemu.log()))

    def test_other_order(self):
        session = self.rig.raw(self.rig.path("first"))
        ports = {}
        for kind, number in session.attach():
            port = session.open(kind, number)
            ports[sc.PortInit(port.expect(sc.MSG_PORT_INIT)).name] = port
        holds = {}
        for name in PORT, SECOND, AGENT:
            if name == SECOND:
                continue
            holds[name] = self.guest.hold(name)
        session.wait_agent()
        session.main.agent_start()
        self.qemu.command("stop")
        ports[PORT].send_data(words(100, 1))
        ports[SECOND].send_data(words(300, 2))
        session.main.agent_data(ag.message(DATA, b"x" * 50))
        for chardev, size in ("p1", 800), ("p2", 2400), ("agent", 78):
            self.qemu.wait_flow(chardev, "to-guest-bytes", size)
        path = self.rig.path("state")
        migration.migrate(self.qemu, "file:" + path)
        target = self.target()
        migration.incoming(target, "file:" + path)
        saved = self.sections(self.qemu, "save")
        assert len(saved) == 3 and self.sections(target, "load") == saved, \
            (saved, self.sections(target, "load"))
        for chardev, opened in ("p1", True), ("p2", False), ("agent", True):
            flow = target.flow(chardev)
            assert flow["guest-open"] == opened, (chardev, flow)
        self.guest.poll()
        old = self.qemu
        self.guest.adopt(target)
        old.quit()
        target.command("cont")
        for job in holds.values():
            job.end()
        for seed, name in enumerate((SECOND, PORT), 3):
            session = self.rig.raw(self.rig.path("second"))
            port = session.open_port(name)
            job = self.guest.start("porttool echo %s 8000" % name)
            port.wait_event(sc.EVENT_OPENED)
            port.send_data(words(1000, seed))
            assert port.receive_data(8000) == words(1000, seed)
            job.result()
            session.close()


class TestBound:
    """A state is never larger than `saved-max` says, whatever waits, and the
    bound follows what is allowed at run time."""

    CLIENTS = 3
    NAMES = (("agent", "vdagent"), ("a", PORT), ("card", "smartcard"),
             ("usb", "usbredir"))

    def setup(self, rig):
        self.rig = rig

    def machine(self):
        args = list(server_args(self.rig.path("spice-%d" %
                                              len(self.rig.qemus))))
        self.socket = args[1].rpartition("path=")[2]
        self.far = {}
        for chardev, name in self.NAMES:
            self.far[chardev] = self.rig.path("%s-%d" % (
                chardev, len(self.rig.qemus)))
            args += ag.bridge_args(self.far[chardev], name, chardev,
                                   "bridge-" + chardev)
        self.qemu = self.rig.qemu(*args, machine="none")

    def bound(self):
        return sum(self.qemu.flow(chardev)["saved-max"]
                   for chardev, _ in self.NAMES)

    def size(self):
        path = self.rig.path("state-%d" % len(self.rig.qemus))
        migration.migrate(self.qemu, "file:" + path)
        return os.path.getsize(path)

    def queued(self):
        flows = [self.qemu.flow(chardev) for chardev, _ in self.NAMES]
        return sum(flow["to-guest-bytes"] + sum(
            client["to-client-bytes"] for client in flow["clients"])
            for flow in flows)

    @staticmethod
    def fill(channel, message):
        """Send until nothing is taken any more."""
        sock = channel.connection.sock
        sock.settimeout(seconds(0.3))
        data = message
        try:
            while True:
                data = data[sock.send(data):] or message
        except TimeoutError:
            pass

    def open(self, name):
        far = ag.FarEnd(self.far[name])
        self.rig.callback(far.close)
        self.qemu.wait_flow(name, "guest-open", True)
        return far

    def test_full(self):
        """Everything that can wait waits, of as many clients as may be."""
        self.machine()
        one = self.bound()
        self.qemu.command("stop")
        empty = self.size()
        self.machine()
        self.qemu.set("/objects/sf0", "agent-window", 200)
        self.qemu.set("/objects/sf0", "max-clients", self.CLIENTS)
        bound = self.bound()
        assert bound > one + 2 * 200 * 2048, (one, bound)
        agent, guest = self.open("agent"), self.open("a")
        self.open("card")
        sessions = [self.rig.raw(self.socket) for _ in range(self.CLIENTS)]
        for session in sessions:
            session.wait_agent()
            session.main.agent_start(0)
        port = sessions[0].open_port(PORT)
        card = vsc.Card(sessions[1])
        card.say(vsc.READER_ADD, vsc.NO_READER, b"a reader\0")
        wait_until(lambda: self.qemu.flow("card")["clients"], 5, "the reader")
        guest.offer(bytes(64 << 20))
        agent.offer(ag.chunks(ag.message(ag.CLIPBOARD, bytes(8 << 20))))
        self.qemu.command("stop")
        self.fill(port, port.message(sc.MSGC_DATA, bytes(65536)))
        self.fill(card.channel, card.channel.message(
            sc.MSGC_DATA, vsc.message("<", vsc.APDU, 0, bytes(3000))))
        for session in sessions:
            piece = ag.message(DATA, bytes(2048 - 20))
            for _ in range(200):
                session.main.agent_data(piece)
        wait_until(lambda: self.qemu.flow("agent")
                   ["to-guest-bytes"] >= self.CLIENTS * 200 * 2048, 5,
                   "what clients sent the agent waits")
        queued = self.queued()
        assert queued > 3 << 20, queued
        full = self.size()
        assert queued < full - empty <= bound, (queued, full - empty, bound)
