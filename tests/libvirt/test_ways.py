# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/libvirt with a real libvirtd: the other ways, an ordinary user's
daemon.  usage.py says how."""

import os
import re
import sys
from pathlib import Path

from lib import libvirt
from lib.libvirt import Host, VirshError, block
from lib.paths import TESTS

sys.path.insert(0, str(TESTS / "libvirt"))

from usage import (PAGE, PASSWORD, Guest, client_uri,      # noqa: E402
                   make_certificates, new_host, start)

VARIANTS = ("card",)


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
