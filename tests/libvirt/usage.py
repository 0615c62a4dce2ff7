# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of docs/libvirt share: hosts and guests as the pages make
them, and the use that people make of these.

Nothing is written twice: the domains are the files, the commands are the
blocks of the pages, run as they stand in a place where /var/lib/libvirt and
the like are the test's own (tests/lib/libvirt.py).  What is changed there:
the guest's kernel, a serial line to command it by, the port, and KVM where
there is none.
"""

import re
import sys

from lib.libvirt import Host, block
from lib.paths import ROOT, TESTS
from lib.process import wait_until

sys.path.insert(0, str(TESTS / "functional"))

from test_agent import Agent, AgentRig              # noqa: E402
from test_smartcard import ATR, CardRig, Database   # noqa: E402
from test_usb import make_image                     # noqa: E402

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
        client = self.rig.client(*self.options, uri=self.uri)
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
        self.guest.adopt(self.machine, cut=True)

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
