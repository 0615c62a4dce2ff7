# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/spiceflow-log: what it prints, and that it goes on."""

import json
import os
import re
import socket
import struct
import time

from lib import agentguest as ag
from lib import spiceclient as sc
from lib import tools
from lib.agentscript import AgentScript
from lib.process import wait_until
from lib.rig import server_args

PORT_NAME = "org.example.log.0"
TRACE = ("-trace", "handle_qmp_command")    # for negotiated()
MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (.*)")


def vm(rig, *args):
    return rig.qemu("-object", "secret,id=sec0,data=secret",
                    *server_args(rig.socket, password_secret="sec0"),
                    "-chardev", "spiceflow,id=p1,name=" + PORT_NAME, *args,
                    *tools.monitor_args(rig.path("qmp")), *TRACE,
                    machine="none")


def listens(qemu):
    """Whether somebody has the monitor."""
    return [c for c in qemu.command("query-chardev")
            if c["label"].startswith("compat_monitor")
            and "disconnected" not in c["filename"]]


def attached(log, qemu):
    """Until the log has it, and is told of events."""
    wait_until(lambda: listens(qemu) and negotiated(qemu), 10,
               "the log is connected")
    # What it has said to QEMU is done before what comes after it
    for _ in range(2):
        qemu.command("query-status")
    assert log.process.running(), log.said()


def negotiated(qemu):
    """Whether another monitor than the test's own may give commands."""
    return qemu.log().count('"qmp_capabilities"') > 1


def virsh_waits(log):
    """Whether its virsh is the one that waits for events."""
    task = "/proc/%d/task/%d/children" % (log.process.pid, log.process.pid)
    with open(task, encoding="ascii") as file:
        children = file.read().split()
    for child in children:
        with open("/proc/%s/cmdline" % child, "rb") as file:
            if b"qemu-monitor-event" in file.read():
                return True
    return False


def plain(lines):
    """Without the time, which must be one."""
    return [MOMENT.fullmatch(line)[1] for line in lines]


def test_lines(rig):
    """Each event is a sentence."""
    qemu = vm(rig)
    log = tools.Running(rig, "spiceflow-log", rig.path("qmp"))
    attached(log, qemu)
    with sc.refused():
        rig.raw(password="wrong")
    session = rig.raw(password="secret")
    port = session.open_port(PORT_NAME)
    port.send(999)
    number = session.init.session_id
    assert plain(log.lines(6)) == [
        "sf0: connection from local refused: wrong password (authentication)",
        "sf0: client %d connected from local" % number,
        "sf0: client %d opened channel port:0" % number,
        "sf0: client %d has p1 (%s)" % (number, PORT_NAME),
        "sf0: client %d has p1 (%s) no more: message 999 of 0 bytes is not "
        "expected (protocol-error)" % (number, PORT_NAME),
        "sf0: client %d: channel port:0 is closed: message 999 of 0 bytes is "
        "not expected (protocol-error)" % number]
    rig.raw(password="secret")
    assert plain(log.lines(1)) == [
        "sf0: client %d from local is gone: a new client takes its place "
        "(replaced)" % number]
    assert log.said() == ""


class TestTransfers(AgentScript):
    """Sentences about contents, without contents."""

    def setup(self, rig):
        self.rig = rig
        self.extra = [*tools.monitor_args(rig.path("qmp")), *TRACE]
        start = rig.qemu
        rig.qemu = lambda *args, **options: start(*args, *self.extra,
                                                  **options)
        super().setup(rig)
        del rig.qemu

    def test_transfers(self):
        agent, client = self.pair()
        log = tools.Running(self.rig, "spiceflow-log", self.rig.path("qmp"),
                            "-e", "TRANSFER")
        attached(log, self.qemu)
        body = struct.pack("<II", 0, 1) + bytes(5000)
        client.say(ag.CLIPBOARD, body)
        agent.expect(ag.CLIPBOARD)
        client.say(ag.CLIPBOARD_REQUEST, struct.pack("<II", 0, 1))
        agent.expect(ag.CLIPBOARD_REQUEST)
        agent.say(ag.CLIPBOARD, struct.pack("<II", 0, 1) + b"x")
        client.expect(ag.CLIPBOARD)
        self.set("agent-file-transfer", False)
        self.set("agent-clipboard", "to-guest")
        client.say(ag.FILE_XFER_START, struct.pack("<I", 1) + b"secret name")
        client.expect(ag.FILE_XFER_STATUS)
        agent.say(ag.CLIPBOARD_GRAB, struct.pack("<II", 0, 1))
        told = plain(log.lines(4))
        assert told == [
            "sf0: clipboard from client %d to the guest, 4.9 KiB: passed" %
            client.id,
            "sf0: clipboard from the guest to client %d, 1 byte: passed" %
            client.id,
            "sf0: file from client %d to the guest: refused: the policy "
            "forbids it" % client.id,
            "sf0: clipboard from the guest to all clients: refused: the "
            "policy forbids it"], told
        self.set_defaults()


def test_json(rig):
    """As QEMU said it, with all there is when that is asked for."""
    qemu = vm(rig)
    log = tools.Running(rig, "spiceflow-log", "--json", "--all",
                        "unix:" + rig.path("qmp"))
    attached(log, qemu)
    qemu.command("stop")
    session = rig.raw(password="secret")
    stop, come = map(json.loads, log.lines(2))
    assert stop["event"] == "STOP"
    assert come["event"] == "SPICEFLOW_CLIENT_CONNECTED"
    assert come["data"] == {"server": "sf0", "peer": "local", "tls": False,
                            "connection-id": session.init.session_id}
    assert abs(come["timestamp"]["seconds"] - time.time()) < 60


def test_comes_back(rig):
    """QEMU ends and another one takes its place; the log goes on."""
    log = tools.Running(rig, "spiceflow-log", "--wait", rig.path("qmp"))
    wait_until(lambda: "no such socket" in log.said(), 5, "it waits")
    qemu = vm(rig)
    attached(log, qemu)
    rig.raw(password="secret")
    assert "connected from local" in log.lines(1)[0]
    qemu.quit()
    wait_until(lambda: "closed the connection" in log.said(), 5, "it says so")
    qemu = vm(rig)
    attached(log, qemu)
    rig.raw(password="secret")
    assert "connected from local" in log.lines(1)[0]
    said = log.said().splitlines()
    assert said[-1].endswith("connected again; what happened meanwhile is "
                             "not known"), said
    assert 3 <= len(said) <= 6, said


def test_ends_with_the_monitor(rig):
    qemu = vm(rig)
    log = tools.Running(rig, "spiceflow-log", "--no-reconnect",
                        rig.path("qmp"))
    attached(log, qemu)
    qemu.quit()
    assert log.process.wait() == 3
    assert "QEMU has closed the connection" in log.said()


def test_no_monitor(rig):
    """Each way in which there is none has words of its own."""
    def error(address):
        status, out, err = tools.run("spiceflow-log", address)
        assert status == 3 and out == "", (status, out, err)
        name, _, text = err.partition(": " + address + ": ")
        assert name == "spiceflow-log", err
        return text

    assert "-qmp unix:" in error(rig.path("none"))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(rig.path("dead"))
    assert "nobody listens" in error(rig.path("dead"))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        sock.listen()
        assert "busy" in error("127.0.0.1:%d" % port)
    assert "nobody listens" in error("127.0.0.1:%d" % port)
    vm(rig, "-monitor", "unix:%s,server=on,wait=off" % rig.path("hmp"))
    assert "not -monitor" in error(rig.path("hmp"))
    session = tools.Running(rig, "spiceflow-log", rig.path("qmp"))
    attached(session, rig.qemus[-1])
    assert "busy" in error(rig.path("qmp"))


def test_libvirt(rig):
    """Through virsh, for which a program stands here that speaks like it."""
    qemu = vm(rig)
    env = tools.fake_virsh(rig, rig.path("qmp"))
    status, _, err = tools.run("spiceflow-log", "libvirt:other", env=env)
    assert status == 3 and "failed to get domain 'other'" in err, err
    log = tools.Running(rig, "spiceflow-log", "libvirt:demo", "-e",
                        "CLIENT_CONNECTED", env=env)
    wait_until(lambda: virsh_waits(log) and
               os.path.exists(rig.path("qmp.events")), 20, "virsh listens")
    session = rig.raw(password="secret")
    assert plain(log.lines(1)) == ["sf0: client %d connected from local" %
                                   session.init.session_id]
