# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/spiceflow-doctor: each thing is broken, and it has to say which."""

import json
import os
import re
import socket
import struct
import threading

from lib import agentguest as ag
from lib import paths
from lib import spiceclient as sc
from lib import tools
from lib import vsc
from lib.agentguest import DATA
from lib.agentscript import WINDOW, AgentScript
from lib.certs import Certificates
from lib.process import wait_until
from lib.pump import Pump, pump_args
from lib.rig import (agent_args, card_args, port_args, server_args,
                     usb_args)
from lib.usbredir import Drive, boot_image

import diagnosis                # tests/lib/qemu.py says where
import vm

PORT_NAME = "org.example.doctor.0"


class Doctor:
    """Asks it: the program as a whole, or, which is quicker, what it is made
    of."""

    def __init__(self, rig, interval=0.1):
        self.monitor = rig.path("qmp")
        self.interval = interval

    def ask(self, *args, status=None):
        """What it says as JSON; its status must fit."""
        got, out, err = tools.run("spiceflow-doctor", "--json", "-i",
                                  str(self.interval), self.monitor, *args)
        assert got in (0, 1) and not err, (got, out, err)
        said = json.loads(out)
        features = said["features"].values()
        broken = [f for f in features if f["status"] == "broken"]
        there = [f for f in features if f["status"] != "absent"]
        assert got == (1 if broken or not there else 0), (got, said)
        assert status in (None, got), said
        for feature in features:
            wrong = [f for f in feature["findings"] if f["wrong"]]
            assert (feature["status"] == "broken") == bool(wrong), feature
            for finding in feature["findings"]:
                assert finding["text"], finding
                assert finding["advice"] or finding["code"] in (
                    "client-away",), finding
        return said

    def findings(self, feature, client=None):
        """What it finds about one feature, for any client or for this one."""
        machine = vm.Vm(self.monitor)
        try:
            case = diagnosis.Case(machine, self.interval)
        finally:
            machine.close()
        found = diagnosis.diagnose(case, [feature], client)[feature]
        return [diagnosis.absent(feature)] if found is None else found

    def wrong(self, feature, client=None):
        """Codes of what is wrong with a feature."""
        return [f.code for f in self.findings(feature, client) if f.wrong]

    def notes(self, feature, client=None):
        return [f.code for f in self.findings(feature, client)
                if not f.wrong]

    def finding(self, feature, code):
        return next(f for f in self.findings(feature) if f.code == code)


def with_monitor(rig):
    """What a class's setup starts from here on has a monitor for it."""
    start = rig.qemu
    rig.qemu = lambda *args, **options: start(
        *args, *tools.monitor_args(rig.path("qmp")), **options)


class TestAgent(AgentScript):
    """Clipboard and files, with agent and viewers scripted."""

    max_clients = 2

    def setup(self, rig):
        with_monitor(rig)
        super().setup(rig)
        del rig.qemu
        self.doctor = Doctor(rig)

    def both(self, *codes):
        """What is wrong with clipboard and files alike."""
        for feature in ("clipboard", "files"):
            found = self.doctor.wrong(feature)
            assert found == list(codes), (feature, found)

    def test_all_is_well(self):
        agent, client = self.pair()
        self.both()
        assert self.doctor.notes("clipboard") == ["clipboard-unused"]
        client.say(ag.CLIPBOARD_GRAB, struct.pack("<II", 0, 1))
        agent.expect(ag.CLIPBOARD_GRAB)
        assert self.doctor.notes("clipboard") == []
        said = self.doctor.ask(status=0)
        assert said["status"] == "running"
        assert {name: f["status"] for name, f in said["features"].items()} \
            == {"clipboard": "works", "files": "works", "usb": "absent",
                "card": "absent", "port": "absent"}, said

    def test_no_client(self):
        self.agent()
        self.both("no-client")
        assert self.rig.socket in self.doctor.finding(
            "files", "no-client").advice

    def test_guest_closed(self):
        self.close_agent()
        self.client(tokens=None)
        self.both("guest-closed")

    def test_agent_broken(self):
        agent = self.agent()
        self.client()
        agent.write(ag.chunk(ag.message(DATA, protocol=2)))
        wait_until(lambda: not self.flow()["agent"]["connected"], 5, "broken")
        # The port is closed then; a guest that has not seen that yet:
        assert self.doctor.wrong("files")[0] in ("guest-closed",
                                                 "agent-broken")

    def test_agent_silent(self):
        self.agent()
        self.client()
        self.both("agent-silent")

    def test_agent_lacks(self):
        agent = self.agent()
        client = self.client()
        self.introduce(agent, client,
                       guest_caps=1 << ag.CAP_XFER_DISABLED | 1)
        self.both("agent-lacks")

    def test_client_without_agent(self):
        agent, _ = self.pair()
        other = self.client(tokens=None)
        self.both()
        assert "client-without-agent" in self.doctor.notes("files")
        assert self.doctor.wrong("files", other.id) == \
            ["client-without-agent"]

    def test_policy(self):
        self.pair()
        self.set("agent-clipboard", "off")
        assert self.doctor.wrong("clipboard") == ["policy"]
        assert self.doctor.wrong("files") == []
        self.set("agent-clipboard", "to-guest")
        assert "policy" in self.doctor.notes("clipboard")
        assert self.doctor.wrong("clipboard") == []
        self.set_defaults()
        self.set("agent-file-transfer", False)
        assert self.doctor.wrong("files") == ["policy"]
        assert self.doctor.wrong("clipboard") == []
        self.set_defaults()
        self.set("agent-max-clipboard", 0)
        assert self.doctor.wrong("clipboard") == ["policy-size"]
        self.set_defaults()
        self.both()

    def test_too_large(self):
        agent, client = self.pair()
        self.set("agent-max-clipboard", 100)
        client.say(ag.CLIPBOARD, struct.pack("<II", 0, 1) + bytes(101))
        wait_until(lambda: self.counts()["refused-size"], 5, "refused")
        notes = self.doctor.notes("clipboard")
        assert "policy-size" in notes and "refused-size" in notes, notes
        self.set_defaults()

    def test_guest_does_not_read(self):
        """No tokens are left to the client."""
        agent, client = self.pair()
        self.both()
        with self.guest_asleep():
            client.say(DATA, b"x")
            self.wait_tokens(WINDOW - 1)
            self.both("guest-does-not-read")
            for _ in range(WINDOW - 1):
                client.say(DATA, b"x")
            self.wait_tokens(0)
            self.both("guest-does-not-read")
            assert "no tokens are left to client %d" % client.id in \
                self.doctor.finding("files", "guest-does-not-read").text
        wait_until(lambda: not self.flow()["to-guest-bytes"], 5, "it is read")
        self.both()

    def test_client_takes_nothing(self):
        agent, client = self.pair()
        client.main.agent_start(0)
        wait_until(lambda: self.client_flow(client)["send-tokens"] == 0, 5,
                   "it takes nothing")
        self.both()
        agent.say(DATA, b"x")
        wait_until(lambda: self.flow()["guest-waits"], 5, "it waits")
        self.both("no-send-tokens")
        client.main.agent_start(10)
        client.expect(DATA)
        self.both()

    def test_client_does_not_read(self):
        """Its socket is full, then the queue."""
        agent, client = self.pair()
        stream = ag.chunk(ag.message(DATA, bytes(2000))) * 3000
        agent.fill(stream, lambda: self.flow()["guest-waits"])
        self.both("client-does-not-read")
        assert "the guest waits" in self.doctor.finding(
            "files", "client-does-not-read").text

    def test_vm_stopped(self):
        self.pair()
        self.qemu.command("stop")
        self.both("vm-stopped")
        self.qemu.command("cont")
        self.both()

    def test_unknown_client(self):
        status, _, err = tools.run("spiceflow-doctor", "--client", "1",
                                   self.rig.path("qmp"))
        assert status == 1 and "there is no client 1" in err, err

    def test_through_libvirt(self):
        env = tools.fake_virsh(self.rig, self.rig.path("qmp"))
        self.pair()
        status, out, err = tools.run("spiceflow-doctor", "-i", "0",
                                     "libvirt:demo", "files", env=env)
        assert status == 0 and "file copy   works" in out, (out, err)


def test_no_server(rig):
    """Nothing at all is set up."""
    rig.qemu(*tools.monitor_args(rig.path("qmp")), machine="none")
    doctor = Doctor(rig)
    said = doctor.ask(status=1)
    assert {c["code"] for f in said["features"].values()
            for c in f["findings"]} == {"no-server"}, said


def test_no_device(rig):
    """A server alone: what is asked for is not there."""
    rig.qemu(*server_args(rig.socket), *tools.monitor_args(rig.path("qmp")),
             machine="none")
    doctor = Doctor(rig)
    doctor.ask(status=1)
    for feature in ("clipboard", "files", "usb", "card", "port"):
        assert doctor.wrong(feature) == ["no-device"]


def test_socket_gone(rig):
    rig.qemu(*server_args(rig.socket), *port_args(PORT_NAME)[2:4],
             *tools.monitor_args(rig.path("qmp")), machine="none")
    os.unlink(rig.socket)
    assert Doctor(rig).wrong("port")[:2] == ["socket-gone", "no-client"]


class TestFrontends:
    """Devices that nobody uses, or the wrong one."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(
            *server_args(rig.socket, clients=2),
            "-device", "virtio-serial-pci",
            "-chardev", "spiceflow,id=agent,name=vdagent",
            "-device", "virtserialport,chardev=agent,name=org.example.wrong",
            "-chardev", "spiceflow,id=usb,name=usbredir",
            "-chardev", "spiceflow,id=card,name=smartcard",
            "-device", "virtserialport,chardev=card,name=org.example.card",
            "-chardev", "spiceflow,id=p1,name=" + PORT_NAME,
            "-device", "virtserialport,chardev=p1,name=org.example.another",
            *tools.monitor_args(rig.path("qmp")), memory=16)
        self.doctor = Doctor(rig)

    def test_all(self):
        session = self.rig.raw()
        assert self.doctor.wrong("clipboard") == ["wrong-port-name"]
        assert self.doctor.wrong("files") == ["wrong-port-name"]
        assert self.doctor.wrong("usb") == ["no-frontend"]
        assert "-device usb-redir,chardev=usb" in self.doctor.finding(
            "usb", "no-frontend").advice
        assert self.doctor.wrong("card") == ["wrong-frontend"]
        assert self.doctor.notes("port") == ["other-port-name"]
        assert self.doctor.wrong("port") == ["no-driver", "not-opened"]
        session.attach()
        session.open(sc.PORT, 0)
        assert self.doctor.wrong("port") == ["no-driver"]

    def test_text(self):
        """As people see it."""
        session = self.rig.raw()
        status, out, err = tools.run("spiceflow-doctor", "-i", "0",
                                     self.rig.path("qmp"))
        assert status == 1 and not err, err
        lines = out.splitlines()
        assert lines[1] == "sf0: %s, client %d from local" % (
            self.rig.socket, session.init.session_id), out
        at = lines.index("clipboard   does not work")
        assert lines[at + 1].strip().startswith(
            "agent: the guest sees its port as 'org.example.wrong'"), out
        assert any("-> add name=com.redhat.spice.0" in line
                   for line in lines[at:]), out
        # said once
        assert out.count("-> add name=com.redhat.spice.0") == 1, out
        assert "USB         does not work" in lines


class TestUsb:
    """A redirected drive."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(*server_args(rig.socket, clients=2),
                             *usb_args("qemu-xhci"),
                             *tools.monitor_args(rig.path("qmp")), memory=16)
        self.doctor = Doctor(rig)

    def test_usb(self):
        assert self.doctor.wrong("usb") == ["no-client"]
        session = self.rig.raw()
        assert self.doctor.wrong("usb") == ["not-opened"]
        session.attach()
        channel = session.open(sc.USBREDIR, 0)
        assert self.doctor.wrong("usb") == []
        assert self.doctor.notes("usb") == ["no-usb-device"]
        session.drop(channel)
        self.qemu.wait_flow("u0", "clients", [])
        drive = Drive(session, boot_image(b""))
        self.rig.callback(drive.close)
        wait_until(lambda: self.qemu.get("/machine/peripheral/redir0",
                                         "attached"), 5, "it is plugged in")
        assert self.doctor.ask("usb", status=0)["features"]["usb"][
            "findings"] == []
        other = self.rig.raw()
        assert self.doctor.wrong("usb") == []
        assert self.doctor.notes("usb") == ["claimed"]
        assert self.doctor.wrong("usb", other.init.session_id) == ["claimed"]
        assert self.doctor.wrong("usb", session.init.session_id) == []
        for who, status in ((other, 1), (session, 0)):
            self.doctor.ask("usb", "--client", str(who.init.session_id),
                            status=status)


def test_card(rig):
    """A reader is offered, or not."""
    rig.qemu(*server_args(rig.socket), *card_args(),
             *tools.monitor_args(rig.path("qmp")), memory=16)
    doctor = Doctor(rig)
    assert doctor.wrong("card") == ["no-client"]
    session = rig.raw()
    assert doctor.wrong("card") == ["no-reader"]
    card = vsc.Card(session)
    assert doctor.wrong("card") == ["no-reader"]
    assert card.add() == (0, 0)
    assert doctor.wrong("card") == []
    doctor.ask(status=0)


def test_port_stalled(rig):
    """Raw streams: who does not read is named."""
    qemu = rig.qemu(*server_args(rig.socket),
                    "-chardev", "spiceflow,id=p1,name=" + PORT_NAME,
                    *pump_args("p1"), *tools.monitor_args(rig.path("qmp")),
                    machine="none")
    doctor = Doctor(rig)
    pump = Pump(qemu)
    session = rig.raw()
    port = session.open_port(PORT_NAME)
    pump.start("source", total=64 << 20)
    qemu.wait_flow("p1", "guest-waits", True, 10)
    assert doctor.wrong("port") == ["client-does-not-read"]
    port.close()
    pump.stop()


# ---- viewers that are not let in

def refusing(rig, *before, **options):
    """A server with a port, and the doctor."""
    qemu = rig.qemu(*before, *server_args(rig.socket, **options),
                    "-chardev", "spiceflow,id=p1,name=" + PORT_NAME,
                    *pump_args("p1"), *tools.monitor_args(rig.path("qmp")),
                    machine="none")
    Pump(qemu).start("echo", total=0, verify=False)
    doctor = Doctor(rig)
    assert doctor.wrong("port") == ["no-client"]
    return doctor


def refused(doctor, code, attempt):
    """ATTEMPT fails; the reason is named."""
    try:
        attempt()
    except (sc.LinkRefused, sc.Closed, OSError):
        pass
    wait_until(lambda: "refused-" + code in doctor.wrong("port"), 10,
               "it says " + code)


def test_wrong_password(rig):
    """It stays worth a note when somebody has the right one."""
    doctor = refusing(rig, "-object", "secret,id=sec0,data=secret",
                      password_secret="sec0")
    refused(doctor, "authentication", lambda: rig.raw(password="wrong"))
    session = rig.raw(password="secret")
    session.open_port(PORT_NAME)
    assert doctor.wrong("port") == []
    assert doctor.notes("port") == ["refused-authentication"]


def test_tls(rig):
    """In the clear, and without a certificate."""
    certs = Certificates(rig.path("certs"))
    doctor = refusing(rig, *certs.creds_args(verify_peer=True),
                      tls_creds="tls0")
    refused(doctor, "tls-required", rig.raw)
    refused(doctor, "tls-failed",
            lambda: rig.raw(tls=sc.tls_context(certs.authority)))


def test_no_viewer_at_all(rig):
    """One that says nothing, and one that speaks something else."""
    doctor = refusing(rig, link_timeout=300)
    refused(doctor, "timeout", rig.link)
    refused(doctor, "protocol-error",
            lambda: rig.link().offer(b"GET / HTTP/1.1\r\n\r\n"))


def test_refused_has_advice(rig):
    """For every reason that there is."""
    schema = (paths.ROOT / "chardev/spiceflow/qapi-events.json").read_text(
        encoding="utf-8")
    words = re.search(r"'SpiceflowRefusal',\s*'data': \[([^]]*)\]", schema)[1]
    assert set(re.findall(r"'([\w-]+)'", words)) == set(diagnosis.REFUSALS)


class TestGuest:
    """A real guest, and the client on a viewer's library."""

    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(*server_args(rig.socket), *agent_args(),
                               *tools.monitor_args(rig.path("qmp")))
        self.doctor = Doctor(rig)

    def test_agent(self):
        """No agent, an agent, one that hangs, none again."""
        assert self.doctor.wrong("clipboard") == ["no-client", "guest-closed"]
        self.rig.client().expect("agent no|main", fail=None)
        assert self.doctor.wrong("clipboard") == ["guest-closed"]
        job = self.guest.start("agenttool run")
        job.line("^open$", 30)
        wait_until(lambda: not self.doctor.wrong("clipboard"), 20, "it works")
        self.doctor.ask(status=0)
        job.signal(9)
        job.wait(10, check=False)
        wait_until(lambda: self.doctor.wrong("files") == ["guest-closed"], 10,
                   "the agent is gone")


def other_qemu(path):
    """A monitor whose QEMU knows a spiceflow that we do not."""
    answers = {"qmp_capabilities": {}, "query-name": {},
               "query-status": {"status": "running"}, "qom-get": {},
               "qom-list": [{"name": "x", "type": "child<spiceflow-server>"},
                            {"name": "y",
                             "type": "child<chardev-spiceflow>"}]}
    greeting = {"QMP": {"version": {"qemu": {"major": 99, "minor": 0,
                                             "micro": 0}}}}
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()

    def serve():
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client, client.makefile("rw") as file:
                print(json.dumps(greeting), file=file, flush=True)
                for line in file:
                    request = json.loads(line)
                    print(json.dumps({"return": answers[request["execute"]],
                                      "id": request["id"]}), file=file,
                          flush=True)

    threading.Thread(target=serve, daemon=True).start()
    return server


def test_other_version(rig):
    """No traceback, whatever is missing there."""
    server = other_qemu(rig.path("other"))
    for name, words in (("spiceflow-doctor", ["-i", "0"]),
                        ("spiceflow-top", ["--once", "-i", "0.05"])):
        got, out, err = tools.run(name, *words, rig.path("other"))
        assert got == 3 and not out, (got, out, err)
        assert "is of another version" in err and "Traceback" not in err, err
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_text_of_no_monitor(rig):
    for words, status in ((["-i", "x", "a"], 2), ([], 2), (["a", "usb2"], 2),
                          ([rig.path("none")], 3)):
        got, out, err = tools.run("spiceflow-doctor", *words)
        assert got == status and not out and err, (words, got, out, err)
