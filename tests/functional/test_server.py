# SPDX-License-Identifier: GPL-2.0-or-later
"""The server object: how many clients, which channels, hotplug, addresses,
and what it says to every option that is wrong."""

import os
import socket

from lib import spiceclient as sc
from lib.process import wait_until
from lib.pump import Pump, pattern, pump_args
from lib.qemu import QmpError, output_of

PORT_NAME = "org.example.server.0"


def server_args(rig, *settings):
    return ["-object", ",".join(("spiceflow-server", "id=sf0", "type=unix",
                                 "path=" + rig.socket) + settings)]


def port_args(name=PORT_NAME, chardev="p1"):
    return ["-chardev", "spiceflow,id=%s,name=%s" % (chardev, name)]


def clients(qemu):
    return qemu.stats()["clients"]


def refusal(function, *args, **options):
    """The error number that a link ends with."""
    try:
        function(*args, **options)
    except sc.LinkRefused as refused:
        return refused.error, refused.where
    raise AssertionError("it was not refused")


def qmp_error(function, *args, **options):
    """The text of the error that a command ends with."""
    try:
        function(*args, **options)
    except QmpError as error:
        return error.desc
    raise AssertionError("it was not refused")


# ---- clients ----

def test_one_client_replaces_the_other(rig):
    """max-clients=1: a new client takes the place of the old one, whose
    channels are all closed."""
    qemu = rig.qemu(*server_args(rig), *port_args(), *pump_args("p1"),
                    machine="none")
    pump = Pump(qemu)
    old = rig.raw()
    old_port = old.open_port(PORT_NAME)
    old_port.send_data(b"old")
    new = rig.raw()
    old.main.wait_closed(5)
    old_port.wait_closed(5)
    assert [c["connection-id"] for c in clients(qemu)] == \
        [new.init.session_id]
    port = new.open_port(PORT_NAME)
    pump.start("echo", total=0, verify=False)
    port.send_data(b"new")
    assert port.receive_data(3) == b"new"
    connection = rig.link()
    assert refusal(connection.link, sc.PORT, 0, old.init.session_id) == \
        (sc.ERR_BAD_CONNECTION_ID, "result")
    assert new.attach() == [(sc.PORT, 0)]


def test_clients_replace_each_other_quickly(rig):
    """A hundred in a row, each throwing the one before out."""
    qemu = rig.qemu(*server_args(rig), *port_args(), machine="none")
    sessions = []
    for _ in range(100):
        session = rig.raw()
        session.open_port(PORT_NAME)
        sessions.append(session)
    for session in sessions[:-1]:
        session.main.wait_closed(5)
    assert len(clients(qemu)) == 1
    assert sessions[-1].attach()


def test_two_clients_share(rig):
    """max-clients=2: both stay, each with its own ports; a third one is
    refused and disturbs nobody."""
    qemu = rig.qemu(*server_args(rig, "max-clients=2"), *port_args(),
                    *port_args("org.example.other.0", "p2"), machine="none")
    one, two = rig.raw(), rig.raw()
    assert one.init.session_id != two.init.session_id
    assert one.attach() == two.attach() == [(sc.PORT, 0), (sc.PORT, 1)]
    assert refusal(rig.raw) == (sc.ERR_PERMISSION_DENIED, "result")
    one.open(sc.PORT, 0)
    two.open(sc.PORT, 1)
    assert len(clients(qemu)) == 2
    one.close()
    wait_until(lambda: len(clients(qemu)) == 1, 5, "the leave")
    three = rig.raw()
    three.open(sc.PORT, 0)
    assert two.attach()


def test_max_clients_at_run_time(rig):
    """It can be changed under the clients that are there."""
    qemu = rig.qemu(*server_args(rig), *port_args(), machine="none")
    one = rig.raw()
    qemu.set("/objects/sf0", "max-clients", 3)
    two, three = rig.raw(), rig.raw()
    assert refusal(rig.raw) == (sc.ERR_PERMISSION_DENIED, "result")
    qemu.set("/objects/sf0", "max-clients", 2)
    assert refusal(rig.raw) == (sc.ERR_PERMISSION_DENIED, "result")
    for session in one, two, three:
        session.attach()
    qemu.set("/objects/sf0", "max-clients", 1)
    four = rig.raw()
    four.attach()
    wait_until(lambda: len(clients(qemu)) == 1, 5,
               "the end of all the clients before")


def test_max_clients_at_run_time_with_agent(rig):
    """Clients above the number that there was when the agent's device was
    made use the agent too."""
    qemu = rig.qemu(*server_args(rig), *port_args("vdagent"),
                    *pump_args("p1"), machine="none")
    Pump(qemu).start("sink", total=1 << 40, verify=False)
    qemu.set("/objects/sf0", "max-clients", 4)
    sessions = [rig.raw() for _ in range(4)]
    for session in sessions:
        assert session.init.agent_connected
        session.main.agent_start(10)
        session.attach()
    wait_until(lambda: len(qemu.flow("p1")["clients"]) == 4,
               5, "four clients at the agent")


def test_d27_second_client_on_a_busy_device(rig):
    """It is refused in the link result, and whoever has the device goes on;
    when that one leaves, the device is free."""
    qemu = rig.qemu(*server_args(rig, "max-clients=2"), *port_args(),
                    *pump_args("p1"), machine="none")
    Pump(qemu).start("echo", total=0, verify=False)
    one, two = rig.raw(), rig.raw()
    port = one.open_port(PORT_NAME)
    for session in two, one:
        assert refusal(session.open, sc.PORT, 0) == \
            (sc.ERR_CHANNEL_NOT_AVAILABLE, "result")
    port.send_data(b"still mine")
    assert port.receive_data(10) == b"still mine"
    one.drop(port)
    qemu.wait_flow("p1", "clients", [])
    port = two.open_port(PORT_NAME)
    port.send_data(b"now mine")
    assert port.receive_data(8) == b"now mine"


def test_main_channel_goes_and_takes_all_along(rig):
    """Closing the main channel ends the client's other channels."""
    qemu = rig.qemu(*server_args(rig), *port_args(),
                    *port_args("org.example.other.0", "p2"), machine="none")
    session = rig.raw()
    ports = [session.open(sc.PORT, 0), session.open(sc.PORT, 1)]
    session.drop(session.main)
    for port in ports:
        port.wait_closed(5)
    assert not clients(qemu)


def test_channel_ids_and_types(rig):
    """Names choose the type of channel, and ids count within a type."""
    names = ["usbredir", "a", "usbredir", "org.spice-space.webdav.0", "b",
             "smartcard", "vdagent", "usbredir"]
    args = []
    for number, name in enumerate(names):
        args += port_args(name, "c%d" % number)
    qemu = rig.qemu(*server_args(rig), *args, machine="none")
    session = rig.raw()
    assert sorted(session.attach()) == [
        (sc.SMARTCARD, 0), (sc.USBREDIR, 0), (sc.USBREDIR, 1),
        (sc.USBREDIR, 2), (sc.PORT, 0), (sc.PORT, 1), (sc.WEBDAV, 0)]
    for number, name in ((1, "a"), (4, "b"), (3, names[3])):
        flow = qemu.flow("c%d" % number)
        channel = session.open(flow["channel-type"], flow["channel-id"])
        assert sc.PortInit(channel.expect(sc.MSG_PORT_INIT)).name == name
    usb = session.open(sc.USBREDIR, 1)
    assert usb.silent(0.2), "a usbredir channel has no PORT_INIT"


# ---- hotplug ----

class TestHotplug:
    """Devices and chardevs come and go under a client."""

    def setup(self, rig):
        self.rig = rig
        self.qemu = rig.qemu(*server_args(rig), *port_args(),
                             "-device", "virtio-serial-pci,id=vser",
                             machine="pc", paused=True)

    def add(self, chardev, name):
        self.qemu.command("chardev-add", id=chardev, backend={
            "type": "spiceflow", "data": {"name": name}})

    def plug(self, device, chardev, name):
        self.qemu.qmp.execute("device_add", {
            "driver": "virtserialport", "id": device, "chardev": chardev,
            "name": name, "bus": "vser.0"})

    def test_chardev_is_announced(self):
        """A list of one to who has had a list, nothing to who has not."""
        with_list, name = self.rig.raw(), "org.example.hot.1"
        before = with_list.attach()
        self.add("h1", name)
        added, = sc.channels_list(
            with_list.main.expect(sc.MSG_MAIN_CHANNELS_LIST))
        assert added[0] == sc.PORT and added not in before
        port = with_list.open(*added)
        assert sc.PortInit(port.expect(sc.MSG_PORT_INIT)).name == name

        self.qemu.command("chardev-remove", id="h1")
        port.wait_closed(5)
        assert with_list.attach() == before
        with_list.close()

        without = self.rig.raw()
        without.main.expect(sc.MSG_MAIN_NAME)
        without.main.expect(sc.MSG_MAIN_UUID)
        self.add("h1", name)
        assert without.main.silent(0.2)
        assert added in without.attach()
        self.qemu.command("chardev-remove", id="h1")

    def test_device_and_chardev(self):
        """A virtio port with its chardev, in and out, a client attached."""
        session = self.rig.raw()
        session.attach()
        for number in range(5):
            name = "org.example.hot.%d" % number
            self.add("h2", name)
            channel, = sc.channels_list(
                session.main.expect(sc.MSG_MAIN_CHANNELS_LIST))
            port = session.open(*channel)
            port.expect(sc.MSG_PORT_INIT)
            self.plug("hot", "h2", name)
            port.send_data(b"for a guest that is not there")
            assert "busy" in qmp_error(self.qemu.command, "chardev-remove",
                                       id="h2")
            self.qemu.command("device_del", id="hot")
            self.qemu.qmp.event("DEVICE_DELETED", device="hot")
            assert session.attach()
            self.qemu.command("chardev-remove", id="h2")
            port.wait_closed(5)
            session.drop(port)
        session.close()

    def test_usb_redir_unplugged(self):
        """usb-redir deletes its chardev when it goes."""
        qemu = self.rig.qemu(
            "-object", "spiceflow-server,id=sf0,type=unix,path=" +
            self.rig.path("usb"), *port_args("usbredir", "u1"),
            "-device", "qemu-xhci,id=xhci",
            "-device", "usb-redir,id=redir,chardev=u1")
        session = self.rig.raw(self.rig.path("usb"))
        usb = session.open(sc.USBREDIR, 0)
        assert usb.receive_data(80)[:4] == b"\0\0\0\0"      # its hello
        qemu.command("device_del", id="redir")
        qemu.qmp.event("DEVICE_DELETED", device="redir")
        usb.wait_closed(5)
        assert session.attach() == []
        assert [c["label"] for c in qemu.command("query-chardev")
                if c["label"] == "u1"] == []

    def test_id_is_used_again(self):
        """The lowest free number of a type, as before."""
        session = self.rig.raw()
        session.attach()
        seen = []
        for chardev in "x1", "x2", "x1":
            if chardev in seen:
                self.qemu.command("chardev-remove", id=chardev)
            self.add(chardev, "org.example." + chardev)
            seen.append(chardev)
            seen.append(sc.channels_list(session.main.expect(
                sc.MSG_MAIN_CHANNELS_LIST))[0])
        assert seen[1] == seen[5] != seen[3]
        for chardev in "x1", "x2":
            self.qemu.command("chardev-remove", id=chardev)
        session.close()

    def test_many_times(self):
        """Chardevs with a client attached leave nothing behind."""
        session = self.rig.raw()
        session.attach()

        def once():
            self.add("m", "org.example.many")
            channel, = sc.channels_list(
                session.main.expect(sc.MSG_MAIN_CHANNELS_LIST))
            port = session.open(*channel)
            port.send_data(bytes(5000))
            self.qemu.command("chardev-remove", id="m")
            port.wait_closed(5)
            session.drop(port)

        for _ in range(20):
            once()
        kib = self.qemu.process.private_kib()
        fds = len(self.qemu.process.descriptors())
        for _ in range(200):
            once()
        assert len(self.qemu.process.descriptors()) <= fds
        grown = self.qemu.process.private_kib() - kib
        assert grown < 500, "QEMU grew by %d KiB" % grown
        session.close()

    def test_chardev_change(self):
        """A port's chardev may be another one of the same name; the client
        of the old one is let go, and QEMU does not mind."""
        self.plug("chg", "p1", "org.example.chg")
        session = self.rig.raw()
        port = session.open_port(PORT_NAME)
        try:
            self.qemu.command("chardev-change", id="p1", backend={
                "type": "spiceflow", "data": {"name": PORT_NAME}})
            port.wait_closed(5)
        except QmpError as error:
            assert "p1" in error.desc or "change" in error.desc, error
        assert session.attach()
        self.qemu.command("device_del", id="chg")
        self.qemu.qmp.event("DEVICE_DELETED", device="chg")
        session.close()


def test_object_del(rig):
    """Refused while a chardev uses it; afterwards it takes its clients and
    its socket away, and another one can be made."""
    qemu = rig.qemu(*server_args(rig), *port_args(), machine="none")
    session = rig.raw()
    port = session.open_port(PORT_NAME)
    text = qmp_error(qemu.command, "object-del", id="sf0")
    assert text == "object 'sf0' is in use, can not be deleted", text
    assert session.attach()
    qemu.command("chardev-remove", id="p1")
    port.wait_closed(5)
    half = rig.link()
    qemu.command("object-del", id="sf0")
    session.main.wait_closed(5)
    half.wait_closed(5)
    assert not os.path.exists(rig.socket)
    qemu.command("object-add", qom_type="spiceflow-server", id="sf0",
                 addr={"type": "unix", "path": rig.socket})
    qemu.command("chardev-add", id="p1", backend={
        "type": "spiceflow", "data": {"name": PORT_NAME}})
    assert rig.raw().open_port(PORT_NAME)


def test_object_del_many_times(rig):
    """Servers that come and go leave nothing behind."""
    qemu = rig.qemu(machine="none")

    def once():
        qemu.command("object-add", qom_type="spiceflow-server", id="sf0",
                     addr={"type": "unix", "path": rig.socket})
        session = rig.raw()
        session.attach()
        qemu.command("object-del", id="sf0")
        session.main.wait_closed(5)
        session.close()

    for _ in range(5):
        once()
    kib = qemu.process.private_kib()
    fds = len(qemu.process.descriptors())
    for _ in range(30):
        once()
    assert len(qemu.process.descriptors()) <= fds
    assert qemu.process.private_kib() - kib < 500


def test_qmp_is_typed(rig):
    """object-add and chardev-add check each argument by its schema."""
    qemu = rig.qemu(machine="none")
    addr = {"type": "unix", "path": rig.socket}

    def add(**properties):
        return qemu.command("object-add", qom_type="spiceflow-server",
                            id="sf0", **properties)

    def chardev(**data):
        return qemu.command("chardev-add", id="p1", backend={
            "type": "spiceflow", "data": data})

    for properties, text in (
            ({}, "Parameter 'addr' is missing"),
            ({"addr": addr, "nonsense": 1},
             "Parameter 'nonsense' is unexpected"),
            ({"addr": addr, "max_clients": "3"},
             "Parameter 'max-clients' expects uint64"),
            ({"addr": addr, "agent_file_transfer": "on"},
             "Invalid parameter type for 'agent-file-transfer',"
             " expected: boolean"),
            ({"addr": addr, "agent_clipboard": "left"},
             "Parameter 'agent-clipboard' does not accept value 'left'"),
            ({"addr": {"type": "unix"}}, "Parameter 'addr.path' is missing"),
            ({"addr": addr, "max_clients": 0},
             "max-clients: must be from 1 to 1024, not 0")):
        got = qmp_error(add, **properties)
        assert got == text, got
    add(addr=addr, max_clients=2, agent_window=20, agent_clipboard="off",
        agent_max_clipboard=1000, agent_file_transfer=False,
        link_timeout=5000, stall_timeout=6000, max_pending_links=7)
    for name, value in (("max-clients", 2), ("agent-window", 20),
                        ("agent-clipboard", "off"),
                        ("agent-max-clipboard", 1000),
                        ("agent-file-transfer", False),
                        ("link-timeout", 5000), ("stall-timeout", 6000),
                        ("max-pending-links", 7)):
        assert qemu.get("/objects/sf0", name) == value, name
    assert qemu.get("/objects/sf0", "addr")["path"] == rig.socket

    for data, text in (
            ({}, "Parameter 'backend.data.name' is missing"),
            ({"name": "x", "nonsense": 1},
             "Parameter 'backend.data.nonsense' is unexpected"),
            ({"name": "x", "queue-size": "big"},
             "Parameter 'backend.data.queue-size' expects uint64"),
            ({"name": "x", "queue-size": 1},
             "Failed to add chardev 'p1': chardev 'p1': queue-size must be"
             " from 65536 to 2147483647, not 1"),
            ({"name": ""}, "Failed to add chardev 'p1': chardev 'p1': name"
             " must not be empty")):
        got = qmp_error(chardev, **data)
        assert got == text, got
    chardev(name="x", **{"server-id": "sf0", "queue-size": 100000})
    assert qemu.flow("p1")["queue-size"] == 100000
    found, = [c for c in qemu.command("query-chardev") if c["label"] == "p1"]
    assert found["filename"] == "spiceflow:x"


def test_numbers_at_run_time(rig):
    """qom-set has the same limits and the same words."""
    qemu = rig.qemu(*server_args(rig), machine="none")
    for name, low, high in (
            ("max-clients", 1, 1024), ("agent-window", 1, 4096),
            ("agent-max-clipboard", 0, 4294967295),
            ("link-timeout", 1, 2147483647),
            ("stall-timeout", 1, 2147483647),
            ("max-pending-links", 1, 65536)):
        before = qemu.get("/objects/sf0", name)
        for wrong in ([low - 1] if low else []) + [high + 1]:
            text = qmp_error(qemu.set, "/objects/sf0", name, wrong)
            assert text == "%s: must be from %d to %d, not %d" % (
                name, low, high, wrong), text
        assert qemu.get("/objects/sf0", name) == before
        for right in low, high, before:
            qemu.set("/objects/sf0", name, right)
            assert qemu.get("/objects/sf0", name) == right
    assert "agent-clipboard" in qmp_error(qemu.set, "/objects/sf0",
                                          "agent-clipboard", "some")
    for value in "off", "to-guest", "to-client", "both":
        qemu.set("/objects/sf0", "agent-clipboard", value)
        assert qemu.get("/objects/sf0", "agent-clipboard") == value


# ---- addresses ----

def test_tcp_any_port(rig):
    """Port 0 is the system's choice; addr tells which it was."""
    qemu = rig.qemu("-object", "spiceflow-server,id=sf0,type=inet,"
                    "host=127.0.0.1,port=0", *port_args(), *pump_args("p1"),
                    machine="none")
    addr = qemu.get("/objects/sf0", "addr")
    assert addr["type"] == "inet" and int(addr["port"]) > 0
    session = rig.raw((addr["host"], int(addr["port"])))
    port = session.open_port(PORT_NAME)
    Pump(qemu).start("sink", total=100000)
    port.send_data(pattern(100000))
    Pump(qemu).wait()
    client, = clients(qemu)
    assert client["peer"].startswith("127.0.0.1:") and not client["tls"]


def test_inherited_descriptor(rig):
    """A listening socket that QEMU is started with, as management tools do
    it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(rig.socket)
        listener.listen(5)
        qemu = rig.qemu(
            "-object", '{"qom-type": "spiceflow-server", "id": "sf0", "addr":'
            ' {"type": "fd", "str": "%d"}}' % listener.fileno(),
            *port_args(), machine="none", inherit=[listener])
    assert rig.raw().open_port(PORT_NAME)
    assert len(clients(qemu)) == 1


def test_abstract_unix_socket(rig):
    """A name that is in no folder."""
    name = "spiceflow-test-%d" % os.getpid()
    rig.qemu("-object", "spiceflow-server,id=sf0,type=unix,abstract=on,"
             "path=" + name, *port_args(), machine="none")
    # QEMU pads names with zeros unless tight is off
    assert rig.raw("\0" + name).open_port(PORT_NAME)


def test_socket_of_a_dead_qemu(rig):
    """A path that nobody listens on any more is taken over."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(rig.socket)
    assert os.path.exists(rig.socket)
    rig.qemu(*server_args(rig), *port_args(), machine="none")
    assert rig.raw().open_port(PORT_NAME)


def test_socket_is_removed_at_the_end(rig):
    qemu = rig.qemu(*server_args(rig), *port_args(), machine="none")
    rig.raw().open_port(PORT_NAME)
    qemu.quit()
    assert not os.path.exists(rig.socket)


def test_two_servers(rig):
    """Each chardev is served by the one that it names."""
    other = rig.path("other")
    rig.qemu(*server_args(rig), "-object",
             "spiceflow-server,id=sf1,type=unix,path=" + other,
             "-chardev", "spiceflow,id=a,name=org.example.a,server-id=sf0",
             "-chardev", "spiceflow,id=b,name=org.example.b,server-id=sf1",
             machine="none")
    one, two = rig.raw(), rig.raw(other)
    one.open_port("org.example.a")
    two.open_port("org.example.b")
    connection = rig.link(other)
    assert refusal(connection.link, sc.PORT, 0, one.init.session_id) == \
        (sc.ERR_BAD_CONNECTION_ID, "result")


# ---- options ----

SERVER = "spiceflow-server,id=sf0,type=unix,path=@S"

# What is given, and what QEMU says before it ends with status 1.  @S is the
# path of a socket.
WRONG_OPTIONS = [
    (["-object", "spiceflow-server,id=sf0"], "Parameter 'type' is missing"),
    (["-object", "spiceflow-server,id=sf0,type=unix"],
     "Parameter 'path' is missing"),
    (["-object", "spiceflow-server,id=sf0,type=foo,path=@S"],
     "Parameter 'type' does not accept value 'foo'"),
    (["-object", "spiceflow-server,type=unix,path=@S"],
     "Parameter 'id' is missing"),
    (["-object", SERVER + ",nonsense=1"], "Invalid parameter 'nonsense'"),
    (["-object", "spiceflow-server,id=sf0,type=unix,path=/nonexistent/x"],
     "addr: Failed to bind socket to /nonexistent/x:"
     " No such file or directory"),
    (["-object", "spiceflow-server,id=sf0,type=inet,host=127.0.0.1,"
      "port=99999"], "addr: there is no port 99999"),
    (["-object", "spiceflow-server,id=sf0,type=fd,str=77"],
     "addr: File descriptor '77' is not a socket"),
    (["-object", SERVER + ",max-clients=0"],
     "max-clients: must be from 1 to 1024, not 0"),
    (["-object", SERVER + ",max-clients=1025"],
     "max-clients: must be from 1 to 1024, not 1025"),
    (["-object", SERVER + ",max-clients=many"],
     "Parameter 'max-clients' expects a uint64 value"),
    (["-object", SERVER + ",max-clients=-1"],
     "Parameter 'max-clients' expects a uint64 value"),
    (["-object", SERVER + ",agent-window=0"],
     "agent-window: must be from 1 to 4096, not 0"),
    (["-object", SERVER + ",agent-window=4097"],
     "agent-window: must be from 1 to 4096, not 4097"),
    (["-object", SERVER + ",agent-clipboard=some"],
     "Parameter 'agent-clipboard' does not accept value 'some'"),
    (["-object", SERVER + ",agent-file-transfer=maybe"],
     "Parameter 'agent-file-transfer' expects 'on' or 'off'"),
    (["-object", SERVER + ",agent-max-clipboard=5G"],
     "agent-max-clipboard: must be from 0 to 4294967295, not 5368709120"),
    (["-object", SERVER + ",link-timeout=0"],
     "link-timeout: must be from 1 to 2147483647, not 0"),
    (["-object", SERVER + ",stall-timeout=0"],
     "stall-timeout: must be from 1 to 2147483647, not 0"),
    (["-object", SERVER + ",max-pending-links=0"],
     "max-pending-links: must be from 1 to 65536, not 0"),
    (["-object", SERVER + ",tls-creds=nope"],
     "tls-creds: there is no TLS credentials object 'nope'"),
    (["-object", "secret,id=nope,data=x",
      "-object", SERVER + ",tls-creds=nope"],
     "tls-creds: there is no TLS credentials object 'nope'"),
    # not tls-creds-anon: QEMU 10.2 crashes on that by itself
    (["-object", "tls-creds-psk,id=t,endpoint=client,dir=@P",
      "-object", SERVER + ",tls-creds=t"],
     "tls-creds: Expected TLS credentials for a server endpoint"),
    (["-object", SERVER + ",tls-authz=nope"],
     "tls-authz: needs tls-creds"),
    (["-object", SERVER + ",password-secret=nope"],
     "password-secret: No secret with id 'nope'"),
    (["-object", SERVER,
      "-object", "spiceflow-server,id=sf1,type=unix,path=@S"],
     "addr: somebody listens on '@S' already"),
    (["-object", SERVER,
      "-object", "spiceflow-server,id=sf0,type=unix,path=@S-2"],
     "Duplicate ID 'sf0' for object"),
    (["-chardev", "spiceflow,id=c"],
     "chardev: spiceflow: no name given; it is vdagent, usbredir, smartcard"
     " or the name of a port"),
    (["-chardev", "spiceflow,id=c,name=x"],
     "chardev 'c': there is no spiceflow-server object: add -object"
     " spiceflow-server,id=...,type=unix,path=..."),
    (["-object", SERVER, "-chardev", "spiceflow,name=x"],
     "chardev: no id specified"),
    (["-object", SERVER, "-chardev", "spiceflow,id=c,name="],
     "chardev 'c': name must not be empty"),
    (["-object", SERVER, "-chardev", "spiceflow,id=c,name=x,nonsense=1"],
     "Invalid parameter 'nonsense'"),
    (["-object", SERVER, "-chardev", "spiceflow,id=c,name=x,server-id=sf1"],
     "chardev 'c': server-id: there is no spiceflow-server object 'sf1'"),
    (["-object", SERVER, "-object", "secret,id=s,data=x",
      "-chardev", "spiceflow,id=c,name=x,server-id=s"],
     "chardev 'c': server-id: there is no spiceflow-server object 's'"),
    (["-object", SERVER,
      "-object", "spiceflow-server,id=sf1,type=unix,path=@S-2",
      "-chardev", "spiceflow,id=c,name=x"],
     "chardev 'c': server-id: there are several spiceflow-server objects,"
     " name one"),
    (["-object", SERVER, "-chardev", "spiceflow,id=c,name=x,queue-size=0"],
     "chardev 'c': queue-size must be from 65536 to 2147483647, not 0"),
    (["-object", SERVER, "-chardev", "spiceflow,id=c,name=x,queue-size=65535"],
     "chardev 'c': queue-size must be from 65536 to 2147483647, not 65535"),
    (["-object", SERVER, "-chardev", "spiceflow,id=c,name=x,queue-size=2G"],
     "chardev 'c': queue-size must be from 65536 to 2147483647,"
     " not 2147483648"),
    (["-object", SERVER, "-chardev", "spiceflow,id=c,name=x,queue-size=big"],
     "Parameter 'queue-size' expects a non-negative number below 2^64"),
    (["-object", SERVER, "-chardev", "spiceflow,id=c,name=vdagent",
      "-chardev", "spiceflow,id=d,name=vdagent"],
     "chardev 'd': the server has a vdagent device already, 'c'"),
]


def test_wrong_options(rig):
    """Each of them ends QEMU with one error that names the option."""
    keys = rig.path("psk")
    os.mkdir(keys)
    with open(os.path.join(keys, "keys.psk"), "w", encoding="ascii") as file:
        file.write("qemu:00112233445566778899aabbccddeeff\n")
    for args, expected in WRONG_OPTIONS:
        args = [arg.replace("@S", rig.socket).replace("@P", keys)
                for arg in args]
        expected = expected.replace("@S", rig.socket)
        status, said = output_of("-machine", "none", "-display", "none", "-S",
                                 *args)
        assert status == 1, "%s: status %d, %s" % (args, status, said)
        assert said.splitlines()[0].endswith(": " + expected), \
            "%s: %s" % (args, said)
        assert len(said.splitlines()) == 1 or "queue-size=big" in args[-1], \
            said
        for path in rig.socket, rig.socket + "-2":
            if os.path.exists(path):        # QEMU ends without tidying up
                os.unlink(path)


def test_address_in_use(rig):
    """Somebody else's TCP port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        status, said = output_of(
            "-machine", "none", "-display", "none", "-object",
            "spiceflow-server,id=sf0,type=inet,host=127.0.0.1,port=%d" % port)
    assert status == 1
    assert "addr: Failed to" in said and "Address already in use" in said, \
        said


def test_path_of_a_running_qemu(rig):
    """It is not taken away from who listens there."""
    rig.qemu(*server_args(rig), *port_args(), machine="none")
    status, said = output_of("-machine", "none", "-display", "none",
                             *server_args(rig))
    assert status == 1
    assert "addr: somebody listens on '%s' already" % rig.socket in said
    assert rig.raw().open_port(PORT_NAME)


def test_256_channels_of_a_kind(rig):
    """As many as ids exist; one more is refused by name."""
    args = []
    for number in range(256):
        args += port_args("org.example.%d" % number, "c%d" % number)
    qemu = rig.qemu(*server_args(rig), *args, machine="none")
    session = rig.raw()
    assert session.attach() == [(sc.PORT, n) for n in range(256)]
    text = qmp_error(qemu.command, "chardev-add", id="one-more", backend={
        "type": "spiceflow", "data": {"name": "x"}})
    assert text.endswith("chardev 'one-more': the server has 256 channels of"
                         " this kind already"), text
    session.open(sc.PORT, 255)
    qemu.command("chardev-remove", id="c7")
    qemu.command("chardev-add", id="again", backend={
        "type": "spiceflow", "data": {"name": "x"}})
    assert sc.channels_list(session.main.expect(
        sc.MSG_MAIN_CHANNELS_LIST)) == [(sc.PORT, 7)]


def test_record_replay_is_refused(rig):
    """A recorded run can not have a network client in it."""
    status, said = output_of(
        "-machine", "none", "-display", "none",
        "-icount", "shift=auto,rr=record,rrfile=" + rig.path("rr"),
        *server_args(rig), *port_args())
    assert status == 1
    assert "chardev 'p1': spiceflow does not support record/replay" in said, \
        said
