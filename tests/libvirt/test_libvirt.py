# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains and commands of docs/libvirt, with a real libvirtd.

Nothing is written twice: the domains are the files, the commands are the
blocks of the pages, run as they stand in a place where /var/lib/libvirt and
the like are the test's own (tests/lib/libvirt.py).  What is changed there:
the guest's kernel, a serial line to command it by, the port, and KVM where
there is none.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

from lib import libvirt
from lib.libvirt import Host, VirshError, block
from lib.paths import ROOT, TESTS
from lib.process import wait_until

sys.path.insert(0, str(TESTS / "functional"))

from test_agent import Agent, AgentRig              # noqa: E402
from test_smartcard import ATR, CardRig, Database   # noqa: E402
from test_usb import make_image                     # noqa: E402

VARIANTS = ("card",)
PAGE = "README.md"
PORT = "org.example.demo.0"
MIB = 1 << 20
PASSWORD = "my password"


class Guest(AgentRig, CardRig):
    """A machine of the documents, and the use that people make of it."""

    def __init__(self, rig, host, name="demo", port=PORT):
        self.rig = rig
        self.host = host
        self.name = name
        self.port = port
        self.machine = host.machine(name)
        rig.qemus.append(self.machine)
        self.guest = self.machine.boot()
        self.uri = None
        self.options = ()
        self.database = None
        self.agent = None

    def use(self, uri, *options, card=True):
        """How clients connect."""
        self.uri = uri
        self.options = options
        if card:
            self.database = Database(self.rig)
            self.options += self.database.options()
        # Nobody tells pcscd of devices that come later: there is no udev.
        self.guest.run(
            "echo 0 > /sys/module/usb_storage/parameters/delay_use;"
            " until grep -q 0b /sys/bus/usb/devices/*/bInterfaceClass;"
            " do usleep 20000; done; pcscd")
        self.agent = Agent(self.guest)

    def connect(self):
        client = self.rig.client("--usb-channel", "0", *self.options,
                                 uri=self.uri)
        client.find(r"^agent-caps ")
        client.find(r"^channel-event usbredir 0 opened")
        return client

    @staticmethod
    def gone(client):
        """The server has left it.  The library does not end the session
        while a device is plugged in; a viewer would."""
        client.find(r"^channel-event main 0 closed")
        client.close()

    def check_clipboard(self, client):
        self.clip_to_guest(self.agent, client, 5000)
        self.clip_to_client(self.agent, client, 7000)

    def check_cd(self, client):
        image = self.rig.path("cd.img")
        sha256 = make_image(image, 2 * MIB)
        client.send("usb", "cd", image)
        client.outcome("usb", "cd", "cd.img")
        self.guest.run("until [ -e /sys/block/sr0 ]; do usleep 5000; done")
        self.read_cd(sha256)
        return sha256

    def read_cd(self, sha256):
        self.guest.run("echo 3 > /proc/sys/vm/drop_caches")
        got = self.guest.run("sha256sum /dev/sr0", 60).split()[0]
        assert got == sha256

    def no_cd(self):
        self.guest.run("while [ -e /sys/block/sr0 ]; do usleep 5000; done")

    def check_card(self):
        self.wait_readers(True)
        assert self.atr() == ATR, self.atr()
        self.check_sign(self.database)

    def check_port(self, client):
        job = self.guest.start("porttool check %s %d -s 9" % (self.port, MIB))
        client.send("port", self.port, "gen", MIB, 9)
        assert job.result(60)["bytes"] == MIB
        client.outcome("port", self.port, "gen")

    def check_all(self):
        """Clipboard, file, USB, card and port, with one client."""
        client = self.connect()
        self.check_clipboard(client)
        self.check_copy(self.agent, client, 2 * MIB)
        self.check_cd(client)
        if self.database:
            self.check_card()
        if self.port:
            self.check_port(client)
        client.quit()
        self.no_cd()

    def adopt(self, host=None):
        """A new QEMU, here or on another host, has the guest now."""
        for job in list(self.guest.jobs.values()):
            if job is not self.agent.job:
                self.guest.forget(job)
        if host and host is not self.host:
            self.machine = host.machine(self.name)
            self.rig.qemus[0] = self.machine
            self.host = host
        else:
            self.machine.connect()
        self.guest.adopt(self.machine)
        self.guest.cut = True   # what it said before we listened is lost

    def alone(self):
        """Until no client is left, nor the memory of one."""
        wait_until(lambda: not self.machine.get(
            "/chardevs/sf-agent", "flow")["clients"], 20,
            "an agent without clients", 0.1)


def new_host(rig, name="a", disk=True):
    """A host, prepared as the page says."""
    host = Host(rig.folder, name)
    rig.callback(host.close)
    host.shell(block(PAGE, "install"))
    host.without_spice()
    host.prepare("card")
    host.shell(block(PAGE, "folder"))
    if disk:
        host.shell(block(PAGE, "disk"))
    return host


def start(host, domain):
    """Define and start one of the domains."""
    host.shell(block(PAGE, "start").replace("override-unix.xml", domain))


def client_uri(host, page=PAGE, name="client"):
    """Where the page's client connects to, seen from outside."""
    match = re.fullmatch(r"remote-viewer spice\+unix://(\S+)\n",
                         block(page, name))
    return "spice+unix://" + host.path(match[1])


def make_certificates(host):
    """As the user's guide and the page say."""
    guide = (ROOT / "docs/user-guide.md").read_text(encoding="utf-8")
    script = re.search(r"<!-- docs-check: run tls -->\n```sh\n(.*?)```",
                       guide, re.S)[1]
    host.shell(script + block(PAGE, "tls"))


class TestOverride:
    """Way B, a UNIX socket; and what is done with a machine every day."""

    def setup(self, rig):
        self.rig = rig
        self.host = new_host(rig)
        start(self.host, "override-unix.xml")
        self.guest = Guest(rig, self.host)
        self.guest.use(client_uri(self.host))

    def test_user(self):
        """QEMU is the user it is under libvirt, and who is in the group
        gets in."""
        said = self.host.shell("stat -c '%U %G %a' "
                               "/var/lib/libvirt/spiceflow/demo.sock")
        assert said == "libvirt-qemu spice 775\n", said
        script = ("import socket; socket.socket(socket.AF_UNIX).connect("
                  "'/var/lib/libvirt/spiceflow/demo.sock')")
        for groups, good in (("spice", True), ("nogroup", False)):
            said = self.host.shell(
                "setpriv --reuid alice --regid alice --groups %s "
                "/usr/bin/python3 -c \"%s\" 2>&1 || true" % (groups, script))
            assert ("PermissionError" in said) != good, said
        xml = self.host.virsh("dumpxml", "demo")
        assert "<label>+%d:" % libvirt.UID in xml, xml[-1500:]

    def test_all(self):
        self.guest.check_all()

    def test_state(self):
        said = [json.loads(line)["return"] for line in self.host.shell(
            block(PAGE, "state")).splitlines() if line]
        assert said[0]["devices"] and said[1]["name"] == "vdagent", said

    def test_policy(self):
        self.host.shell(block(PAGE, "policy"))
        assert self.guest.machine.get("/objects/sf0", "agent-clipboard") == \
            "to-guest"
        self.host.shell(block(PAGE, "policy").replace("to-guest", "both"))

    def test_plug(self):
        """A slot more, in a client that is connected."""
        client = self.guest.connect()
        self.host.shell(block(PAGE, "plug"))
        client.find(r"^channel-new usbredir 2$")
        self.host.shell(block(PAGE, "unplug"))
        wait_until(lambda: "sf-usb2" not in str(
            self.guest.machine.command("query-chardev")), 10,
            "the end of the slot's chardev")
        self.guest.check_cd(client)
        client.quit()
        self.guest.no_cd()

    def saved(self, name):
        """Saved and restored under a client with everything in use."""
        client = self.guest.connect()
        self.guest.check_cd(client)
        self.host.shell(block(PAGE, name))
        self.guest.gone(client)
        self.guest.adopt()
        self.guest.no_cd()
        self.guest.alone()
        self.guest.check_all()

    def test_save(self):
        self.saved("save")

    def test_managedsave(self):
        self.saved("managedsave")

    def test_snapshot(self):
        create, revert = block(PAGE, "snapshot").strip().splitlines()
        self.host.shell(create)
        self.guest.guest.run("touch /tmp/later")
        client = self.guest.connect()
        self.host.shell(revert)
        self.guest.adopt()
        assert self.guest.guest.run("ls /tmp/later 2>/dev/null",
                                    check=False) == ""
        self.guest.gone(client)
        self.guest.check_all()


class TestSet:
    """Way C, TCP with TLS and a password."""

    def setup(self, rig):
        self.rig = rig
        self.host = new_host(rig)
        make_certificates(self.host)
        start(self.host, "set-tcp.xml")
        self.guest = Guest(rig, self.host)
        self.authority = self.host.path(self.host.work + "/pki/ca-cert.pem")
        self.guest.use("spice://localhost?tls-port=%d" % self.host.port,
                       "--ca-file", self.authority, "--password", PASSWORD)

    def test_all(self):
        self.guest.check_all()

    def test_password(self):
        client = self.rig.client("--ca-file", self.authority, "--password",
                                 "another", uri=self.guest.uri)
        assert client.wait_end() == 2
        client.find("error-auth")

    def test_save(self):
        self.host.shell(block(PAGE, "save"))
        self.guest.adopt()
        self.guest.check_all()

    def test_slot_taken_out(self):
        """The trap that the page warns of, and its way out."""
        self.guest.machine.close()
        self.host.virsh("destroy", "demo")
        xml = self.host.virsh("dumpxml", "--inactive", "demo")
        less, count = re.subn(r" *<redirdev bus='usb' type='null'>\s*"
                              r"<alias name='ua-sf-usb1'/>.*?</redirdev>\n",
                              "", xml, flags=re.S)
        assert count == 1, xml
        for text, good in ((less, False), (re.sub(
                r" *<qemu:arg value='-set'/>\s*<qemu:arg value='chardev."
                r"charua-sf-usb1\..*?/>\n", "", less), True)):
            Path(self.host.path(self.host.work + "/less.xml")).write_text(
                text, encoding="utf-8")
            self.host.virsh("define", "less.xml")
            try:
                self.host.virsh("start", "demo")
                assert good, "it started"
            except VirshError as error:
                assert not good and 'there is no chardev "charua-sf-usb1" ' \
                    'defined' in str(error), error


class TestCommandline:
    """Way A, a UNIX socket."""

    def setup(self, rig):
        self.host = new_host(rig)
        start(self.host, "commandline-unix.xml")
        self.guest = Guest(rig, self.host)
        self.guest.use(client_uri(self.host))

    def test_all(self):
        self.guest.check_all()

    def test_save(self):
        self.host.shell(block(PAGE, "save"))
        self.guest.adopt()
        self.guest.check_all()


class TestOthers:
    """What needs no guest that runs."""

    def setup(self, rig):
        self.rig = rig
        self.host = new_host(rig)
        make_certificates(self.host)

    def test_other_domains(self):
        """The remaining three of the six: they start, and clients get in."""
        authority = self.host.path(self.host.work + "/pki/ca-cert.pem")
        for domain in ("commandline-tcp", "override-tcp", "set-unix"):
            start(self.host, domain + ".xml")
            if domain.endswith("tcp"):
                client = self.rig.client(
                    "--ca-file", authority, "--password", PASSWORD,
                    uri="spice://localhost?tls-port=%d" % self.host.port)
            else:
                client = self.rig.client(uri=client_uri(self.host))
            for channel in ("usbredir 0", "usbredir 1", "port 0"):
                client.find("^channel-new %s$" % channel)
            client.quit()
            self.host.virsh("destroy", "demo")
            self.host.virsh("undefine", "demo")

    def test_messages(self):
        """What the page says that is said."""
        page = (libvirt.DOCS / PAGE).read_text(encoding="utf-8")
        folder = self.host.path(self.host.work + "/")

        def refused(domain, change, *messages, command="define"):
            text = change(Path(folder, "docs/libvirt", domain).read_text(
                encoding="utf-8"))
            Path(folder, "bad.xml").write_text(text, encoding="utf-8")
            try:
                self.host.virsh("define", "bad.xml")
                assert command == "start", "it was defined"
                self.host.virsh("start", "demo")
                raise AssertionError("it was started")
            except VirshError as error:
                self.host.virsh("undefine", "demo", check=False)
                for message in messages:
                    assert message in page, message
                    for part in message.split("..."):
                        assert part in str(error), error

        refused("rhel8-spice.xml", lambda text: text.replace(
            "pc-q35-rhel8.2.0", "q35").replace(
                "/usr/libexec/qemu-kvm",
                "/opt/spiceflow/bin/qemu-system-x86_64"),
            "domain configuration does not support video model 'qxl'")
        refused("override-unix.xml", lambda text: text.replace(
            "<graphics type='vnc'", "<graphics type='spice'"),
            "spice graphics are not supported with this QEMU")
        refused("override-unix.xml", lambda text: text.replace(
            "<channel type='null'", "<channel type='spicevmc'", 1),
            "chardev 'spicevmc' not supported without spice graphics")
        refused("override-unix.xml", lambda text: text.replace(
            "<channel type='null'", "<channel type='spiceflow'", 1),
            "unknown type presented to host for character device: spiceflow")
        refused("override-unix.xml", lambda text: text.replace(
            "/spiceflow/demo.sock", "/none/demo.sock"),
            "addr: ... No such file or directory", command="start")
        refused("override-unix.xml", lambda text: text.replace(
            "/var/lib/libvirt/spiceflow/demo.sock", "/run/demo.sock"),
            "addr: ... Permission denied", command="start")
        refused("commandline-unix.xml", lambda text: re.sub(
            r"'\{\"driver\":\"virtserialport\",\"id\":\"sf-agent-port\".*\}'",
            "'virtserialport,bus=virtio-serial0.0,chardev=sf-agent'", text),
            "Bus 'virtio-serial0.0' not found", command="start")
        self.host.shell("chmod 600 /etc/pki/spiceflow/server-key.pem")
        refused("override-tcp.xml", lambda text: text,
                "Cannot load certificate ... Error while reading file",
                command="start")

    def test_converted(self):
        """Domains of many tools' style, converted: libvirt takes them, and
        there is nothing left to convert in what it gives back."""
        domains = sorted((TESTS / "scripts/domains").glob("*.xml"))
        assert len(domains) >= 12
        for path in domains:
            machine = "q35" if b"q35" in path.read_bytes() else "pc"
            for way in "BC":
                self.host.shell(
                    "scripts/libvirt-convert -q --way %s --machine %s -o "
                    "out.xml --emulator /opt/spiceflow/bin/qemu-system-x86_64"
                    " %s" % (way, machine, path))
                text = Path(self.host.path(self.host.work + "/out.xml"))
                name = re.search(r"<name>(.*?)</name>", text.read_text(
                    encoding="utf-8"))[1]
                # these three are about the host, not about SPICE
                content = text.read_text(encoding="utf-8")
                content = re.sub(r"type=(['\"])kvm['\"]", r"type=\1qemu\1",
                                 content, count=1)
                content = re.sub(r"<cpu( [^>]*/>|\b[^>]*[^/]>.*?</cpu>)",
                                 "", content, count=1, flags=re.S)
                content = re.sub(r"<features>.*?</features>",
                                 "<features><acpi/></features>", content,
                                 flags=re.S)
                text.write_text(content, encoding="utf-8")
                self.host.virsh("define", "out.xml")
                self.host.shell(
                    "virsh dumpxml --inactive --security-info '%s' >back.xml;"
                    " scripts/libvirt-convert --check back.xml" % name)
                self.host.virsh("undefine", name)

    def test_all_blocks(self):
        """Every command of the pages is run by a test."""
        source = Path(__file__).read_text(encoding="utf-8")
        for page in libvirt.DOCS.glob("*.md"):
            text = page.read_text(encoding="utf-8")
            for name, words in re.findall(
                    r"(?:<!-- test: (\S+) -->\n)?^```sh\n(.*?)^```$", text,
                    re.S | re.M):
                assert name, "%s: no name for: %s" % (page.name, words)
                assert '"%s"' % name in source, "%s is run by no test" % name
        for path in libvirt.DOCS.glob("*.xml"):
            name = path.name
            assert '"%s' % path.stem in source or name in block(
                "from-spice.md", "from-spice-convert"), name


class TestFromSpice:
    """The page for who has a domain written for SPICE, from top to end."""

    page = "from-spice.md"

    def setup(self, rig):
        self.rig = rig
        self.host = Host(rig.folder, "a")
        rig.callback(self.host.close)
        self.host.shell(block(self.page, "from-spice-prepare"))
        self.host.without_spice()
        self.host.prepare("card")
        self.host.shell("/opt/spiceflow/bin/qemu-img create -q -f qcow2 "
                        "/var/lib/libvirt/images/rhel8.qcow2 1G")
        self.said = self.host.shell(block(self.page, "from-spice-convert"))
        self.host.shell(block(self.page, "from-spice-start"))
        self.guest = Guest(rig, self.host, "rhel8", None)
        self.guest.use(client_uri(self.host, self.page, "from-spice-client"))

    def test_said(self):
        for line in self.said.splitlines():
            assert re.match(r"line \d+: (changed|lost|to do): ", line), line

    def test_clipboard(self):
        client = self.guest.connect()
        self.guest.check_clipboard(client)
        client.quit()

    def test_file_copy(self):
        client = self.guest.connect()
        self.guest.check_copy(self.guest.agent, client, 4 * MIB)
        client.quit()

    def test_usb(self):
        client = self.guest.connect()
        client.find(r"^channel-new usbredir 1$")
        self.guest.check_cd(client)
        client.quit()
        self.guest.no_cd()

    def test_card(self):
        client = self.guest.connect()
        self.guest.check_card()
        client.quit()


class TestMigration:
    """From one libvirtd to another."""

    def setup(self, rig):
        self.rig = rig
        self.hosts = [new_host(rig, "a"), new_host(rig, "b")]
        start(self.hosts[0], "override-unix.xml")
        self.guest = Guest(rig, self.hosts[0])
        self.guest.use(client_uri(self.hosts[0]))

    def migrate(self, source, target, tell=True):
        """The page's commands, with the addresses of here."""
        tell_it, migrate = block(PAGE, "migrate").strip().splitlines()
        if tell:
            source.shell(tell_it.replace(
                "other.example.org:5930",
                client_uri(target).partition("//")[2]))
        # two hosts on one machine: same name, disks that are not shared
        source.shell(migrate.replace(
            "qemu+ssh://other.example.org/system",
            "'%s' --unsafe --undefinesource --migrateuri tcp://127.0.0.1:%d" %
            (target.uri, libvirt.free_port())))
        self.guest.adopt(target)
        self.guest.uri = client_uri(target)

    def test_reconnect(self):
        """Without a target: who was connected comes back by itself."""
        client = self.guest.connect()
        self.guest.check_clipboard(client)
        self.migrate(*self.hosts, tell=False)
        self.guest.gone(client)
        self.guest.alone()
        self.guest.check_all()


class TestSession:
    """The daemon of an ordinary user."""

    def setup(self, rig):
        self.host = Host(rig.folder, "s", session=True)
        rig.callback(self.host.close)
        self.host.shell(block(PAGE, "install"), user=0)
        self.host.without_spice()
        self.host.prepare("card")
        self.host.shell(block(PAGE, "session"))
        self.guest = Guest(rig, self.host)
        socket = self.host.path(self.host.home_inside + "/demo.sock")
        assert os.stat(socket).st_uid == libvirt.USER_UID
        self.guest.use("spice+unix://" + socket)

    def test_all(self):
        self.guest.check_all()

    def test_save(self):
        self.host.virsh("-c", "qemu:///session", "managedsave", "demo")
        self.host.virsh("-c", "qemu:///session", "start", "demo")
        self.guest.adopt()
        self.guest.check_all()
