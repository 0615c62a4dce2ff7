# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/spiceflow-top: what it shows, printed and on a terminal."""

import json
import time

from lib import spiceclient as sc
from lib import tools
from lib.agentguest import DATA
from lib.agentscript import STALL, AgentScript
from lib.process import wait_until
from lib.pump import Pump, pattern, pump_args
from lib.rig import server_args
from lib.samples import MIB
from lib.terminal import Terminal

PORT_NAME = "org.example.top.0"


def once(*args):
    """The lines that it prints."""
    status, out, err = tools.run("spiceflow-top", "--once", "-i", "0.2", *args)
    assert status == 0 and err == "", (status, out, err)
    return out.splitlines()


def table(lines, first):
    """The rows below a heading, each by the heading's words."""
    at = next(i for i, line in enumerate(lines) if first in line.split())
    titles = lines[at].split()
    rows = []
    for line in lines[at + 1:]:
        if not line.strip():
            break
        rows.append(dict(zip(titles, line.split())))
    return rows


class Screen:
    """What the tests on a terminal have in common."""

    def top(self, rows=24, columns=100, *args):
        terminal = Terminal(
            tools.program("spiceflow-top") + ["-i", "0.25", *args,
                                              self.rig.path("qmp")],
            rows, columns)
        self.rig._clients.callback(terminal.close)
        return terminal


class TestTop(Screen):
    """Two ports, one of them with a stream through it."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(
            "-object", "secret,id=sec0,data=secret",
            *server_args(rig.socket, clients=3, password_secret="sec0"),
            "-chardev", "spiceflow,id=p1,name=" + PORT_NAME,
            "-chardev", "spiceflow,id=p2,name=org.example.other.0",
            *pump_args("p1"), "-name", "a machine",
            *tools.monitor_args(rig.path("qmp")), machine="none")
        self.pump = Pump(self.qemu)

    def test_once(self):
        """One of everything."""
        session = self.rig.raw(password="secret")
        port = session.open_port(PORT_NAME)
        with sc.refused():
            self.rig.raw(password="wrong")
        self.pump.start("echo", total=0, verify=False)
        port.send_data(b"12345")
        assert port.receive_data(5) == b"12345"
        lines = once(self.rig.path("qmp"))
        assert lines[0].startswith("a machine: running (QEMU "), lines
        assert lines[1] == "sf0  1 of 3 clients, password, 1 refused  " + \
            self.rig.socket, lines
        one, two = table(lines, "NAME")
        assert (one["DEVICE"], one["NAME"], one["STATE"], one["CL"],
                one["IN"], one["OUT"]) == ("p1", PORT_NAME, "ok", "1", "5",
                                           "5"), one
        assert (two["DEVICE"], two["STATE"], two["CL"]) == ("p2", "closed",
                                                            "0"), two
        client, = table(lines, "CLIENT")
        assert client["CLIENT"] == str(session.init.session_id)
        assert (client["FROM"], client["DEVICE"], client["STATE"],
                client["TOKENS"]) == ("local", "p1", "ok", "-"), client

    def test_json(self):
        """The numbers as they are, and rates."""
        session = self.rig.raw(password="secret")
        port = session.open_port(PORT_NAME)
        self.pump.start("echo", total=0, verify=False)
        done = tools.Running(self.rig, "spiceflow-top", "--once", "--json",
                             "-i", "1.5", self.rig.path("qmp"))
        data = pattern(10000)
        while done.process.running():
            port.send_data(data)
            port.receive_data(len(data))
        with open(done.out, encoding="ascii") as file:
            state = json.load(file)
        assert state["status"] == "running"
        server, = state["servers"]
        assert server["id"] == "sf0" and server["max-clients"] == 3
        one, two = state["devices"]
        assert one["flow"]["total-to-guest-bytes"] >= 10000
        assert one["rates"]["to-guest"] > 5000, one["rates"]
        assert 0.5 < one["rates"]["from-guest"] / one["rates"]["to-guest"] < 2
        assert two["rates"] == {"to-guest": 0, "from-guest": 0}

    def test_full(self):
        """A client that reads nothing: the device's state says so."""
        session = self.rig.raw(password="secret")
        session.open_port(PORT_NAME)
        self.pump.start("source", total=64 * MIB)
        self.qemu.wait_flow("p1", "guest-waits", True, 10)
        lines = once(self.rig.path("qmp"))
        assert table(lines, "NAME")[0]["STATE"] == "full", lines
        client, = table(lines, "CLIENT")
        assert client["STATE"] == "full", lines
        assert client["TO-CLIENT"] == "1.0M", lines
        self.qemu.command("stop")
        lines = once(self.rig.path("qmp"))
        assert lines[0].startswith("a machine: paused")
        assert table(lines, "NAME")[0]["STATE"] == "stopped", lines
        self.qemu.command("cont")
        self.pump.stop()

    def test_narrow(self):
        """It always fits; what tells most stays longest."""
        session = self.rig.raw(password="secret")
        session.open_port(PORT_NAME)
        for width, there, left_out in (
                (200, ("PEAK", "VIOLATIONS", "SOCKET"), ()),
                (80, ("DEVICE", "STATE", "QUEUED"), ("PEAK", "IN")),
                (40, ("DEVICE", "STATE", "IN/s"), ("PEAK", "VIOLATIONS")),
                (12, ("DEVICE", "STATE"), ("IN/s",))):
            lines = once("--width", str(width), self.rig.path("qmp"))
            assert all(len(line) <= width for line in lines), lines
            words = " ".join(lines).split()
            assert set(there) <= set(words), (width, lines)
            assert not set(left_out) & set(words), (width, lines)

    def test_screen(self):
        """It comes up, moves on, takes keys, leaves the terminal as it was."""
        terminal = self.top()
        terminal.shows("a machine: running")
        terminal.shows("every 0.25 s")
        assert "p1" in terminal.shows(PORT_NAME)[0]
        session = self.rig.raw(password="secret")
        row, = terminal.shows("client %d from local uses no device" %
                              session.init.session_id)
        port = session.open_port(PORT_NAME)
        terminal.shows("%d local p1" % session.init.session_id)
        self.pump.start("echo", total=0, verify=False)
        def moves(lines):
            port.send_data(bytes(3000))
            port.receive_data(3000)
            return table(lines, "NAME")[0]["IN/s"] != "0"
        terminal.until(moves, "a rate")
        terminal.type("+")
        terminal.shows("every 0.5 s")
        terminal.type("--")
        terminal.shows("every 0.25 s")
        terminal.type("q")
        assert terminal.wait() == 0

    def test_screen_is_small(self):
        """On any size; also when that changes, and when not all fits."""
        session = self.rig.raw(password="secret")
        session.open_port(PORT_NAME)
        terminal = self.top(24, 200)
        terminal.shows("VIOLATIONS")
        terminal.resize(24, 40)
        lines = terminal.until(lambda lines: any(
            line.startswith("p1") for line in lines), "the device")
        assert not any("VIOLATIONS" in line for line in lines), lines
        terminal.resize(6, 60)
        terminal.shows("every")
        terminal.until(lambda lines: not any(
            str(session.init.session_id) in line for line in lines),
            "too small for the clients")
        terminal.type("\x1b[B" * 8)
        terminal.shows(str(session.init.session_id))
        for size in ((1, 40), (2, 10), (24, 1), (1, 1), (24, 80)):
            terminal.resize(*size)
            time.sleep(0.2)
            terminal.update(0.1)
        terminal.shows("every 0.25 s")
        terminal.type("q")
        assert terminal.wait() == 0

    def test_alarm(self):
        """What hinders stands out."""
        session = self.rig.raw(password="secret")
        session.open_port(PORT_NAME)
        self.pump.start("source", total=64 * MIB)
        terminal = self.top()
        row = terminal.shows("full")[0]
        assert "31" in terminal.screen.look_of(row).split(";"), \
            terminal.screen.look_of(row)
        terminal.type("q")
        assert terminal.wait() == 0
        self.pump.stop()

    def test_ctrl_c(self):
        terminal = self.top()
        terminal.shows("a machine: running")
        terminal.type("\x03")
        assert terminal.wait() == 0


class TestTokens(AgentScript, Screen):
    """The agent, with its tokens."""

    max_clients = 2

    def setup(self, rig):
        start = rig.qemu
        rig.qemu = lambda *args, **options: start(
            *args, *tools.monitor_args(rig.path("qmp")), **options)
        super().setup(rig)
        del rig.qemu

    def test_tokens(self):
        """As many as the client has, and what it grants."""
        self.agent()
        one, two = self.client(), self.client(tokens=5)
        with self.guest_asleep():
            one.say(DATA, b"x" * 100)
            self.wait_tokens(self.window - 1, one)
            rows = table(once("--width", "150", self.rig.path("qmp")),
                         "CLIENT")
        rows = {int(row["CLIENT"]): row for row in rows}
        row = rows[one.id]
        assert row["TOKENS"] == str(self.window - 1), row
        assert row["WINDOW"] == str(self.window), row
        assert row["SEND"] == "all", row
        assert row["TO-GUEST"] == "128", row
        assert rows[two.id]["SEND"] == "5", rows

    def test_stalls(self):
        """A client that takes nothing while the other one does."""
        agent = self.agent()
        lazy, other = self.client(), self.client()
        terminal = self.top(24, 120)
        lazy.main.agent_start(0)
        wait_until(lambda: self.client_flow(lazy)["send-tokens"] == 0, 5,
                   "it takes nothing")
        agent.say(DATA, b"for both")
        other.expect(DATA)
        terminal.until(lambda lines: any(
            str(lazy.id) in line and "stalls" in line for line in lines),
            "it stalls", STALL)
        agent.say(DATA, b"more")
        terminal.until(lambda lines: not any(str(lazy.id) in line
                                             for line in lines),
                       "it is removed", STALL + 10)
        terminal.type("q")
        assert terminal.wait() == 0


def test_vm_comes_back(rig):
    """While there is no VM that is said; then it goes on."""
    def vm():
        return rig.qemu(*server_args(rig.socket),
                        *tools.monitor_args(rig.path("qmp")), machine="none")
    qemu = vm()
    terminal = Terminal(tools.program("spiceflow-top") +
                        ["-i", "0.25", rig.path("qmp")])
    rig.callback(terminal.close)
    terminal.shows("running")
    qemu.quit()
    terminal.shows("no answer: QEMU has closed the connection")
    vm()
    terminal.until(lambda lines: not any("no answer" in line
                                         for line in lines), "an answer")
    terminal.shows("0 of 1 clients")
    terminal.type("q")
    assert terminal.wait() == 0


def test_errors(rig):
    """No monitor, no terminal, no sense."""
    path = rig.path("qmp")
    status, out, err = tools.run("spiceflow-top", "--once", path)
    assert status == 3 and not out
    assert err.startswith("spiceflow-top: %s: there is no such socket" % path)
    terminal = Terminal(tools.program("spiceflow-top") + [path])
    rig.callback(terminal.close)
    assert terminal.wait() == 3
    assert "there is no such socket" in " ".join(terminal.rest())
    status, _, err = tools.run("spiceflow-top", path)
    assert status == 2 and "use --once" in err
    for words in (["--json", path], ["-i", "0", path], []):
        assert tools.run("spiceflow-top", *words)[0] == 2
    qemu = rig.qemu(*tools.monitor_args(path), machine="none")
    status, out, _ = tools.run("spiceflow-top", "--once", "-i", "0.1", path)
    assert status == 0
    assert out.splitlines()[1] == "this machine has no spiceflow-server"
    assert qemu.process.running()
    terminal = Terminal(["env", "TERM=nothing"] + tools.program(
        "spiceflow-top") + [path])
    rig.callback(terminal.close)
    assert terminal.wait() == 2
    assert "use --once" in " ".join(terminal.rest())
