# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/libvirt with a real libvirtd: way B with all that is done every day,
the page for domains written for SPICE, migration.  usage.py says how."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from lib import libvirt
from lib.libvirt import Host, VirshError, block
from lib.paths import TESTS
from lib.process import wait_until

sys.path.insert(0, str(TESTS / "libvirt"))

from usage import (MIB, PAGE, PASSWORD, Guest, client_uri,     # noqa: E402
                   make_certificates, new_host, start)

VARIANTS = ("card",)


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
        script = ""
        for path in domains:
            text = path.read_text(encoding="utf-8")
            name = re.search(r"<name>(.*?)</name>", text)[1]
            # these three are about the host, not about SPICE
            text = re.sub(r"type=(['\"])kvm['\"]", r"type=\1qemu\1", text,
                          count=1)
            text = re.sub(r"<cpu( [^>]*/>|\b[^>]*[^/]>.*?</cpu>)", "", text,
                          count=1, flags=re.S)
            text = re.sub(r"<features>.*?</features>",
                          "<features><acpi/></features>", text, flags=re.S)
            Path(self.host.path(self.host.work), path.name).write_text(
                text, encoding="utf-8")
            for way in "BC":
                script += """
scripts/libvirt-convert -q --way %s --machine %s -o out.xml \\
    --emulator /opt/spiceflow/bin/qemu-system-x86_64 %s
virsh define out.xml
virsh dumpxml --inactive --security-info '%s' >back.xml
scripts/libvirt-convert --check back.xml
virsh undefine '%s'
""" % (way, "q35" if "q35" in text else "pc", path.name, name, name)
        self.host.shell("set -x\n" + script)

    def test_install(self):
        """What was installed can be taken away again, and nothing else."""
        folder = self.host.path("/var/lib/libvirt/other")
        self.host.shell("scripts/install /var/lib/libvirt/other;"
                        "touch /var/lib/libvirt/other/bin/mine")
        assert os.access(folder + "/bin/qemu-system-x86_64", os.X_OK)
        assert list(Path(folder).rglob("chardev-spiceflow.so"))
        self.host.shell("scripts/install --remove /var/lib/libvirt/other")
        assert [str(path.relative_to(folder)) for path in
                Path(folder).rglob("*")] == ["bin", "bin/mine"]

    def test_all_blocks(self):
        """Every command of the pages is run by a test."""
        source = "".join(path.read_text(encoding="utf-8") for path in
                         (TESTS / "libvirt").glob("*.py"))
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
        self.guest.options = ()     # as viewers: no card

    def test_said(self):
        for line in self.said.splitlines():
            assert re.match(r"line \d+: (changed|lost|to do): ", line), line

    def test_clipboard(self):
        client = self.guest.connect()
        self.guest.check_clipboard(client)
        client.quit()

    def test_usb(self):
        client = self.guest.connect()
        client.find(r"^channel-new usbredir 1$")
        self.guest.check_cd(client)
        client.quit()
        self.guest.no_cd()

    def test_file_copy(self):
        """Beside a viewer, with the page's command."""
        client = self.guest.connect()
        path, sha256 = self.guest.file(4 * MIB, "report.pdf")
        shutil.move(path, self.host.path(self.host.work))
        self.host.shell(block(self.page, "from-spice-copy"))
        done = self.guest.agent.expect("^file-done .*name=report.pdf .*")
        assert done.group(0).endswith("sha256=" + sha256), done.group(0)
        self.guest.check_clipboard(client)
        client.quit()

    def test_card(self):
        """The same; the card is there until the command ends."""
        client = self.guest.connect()
        shutil.copytree(self.rig.path("card"),
                        self.host.path(self.host.work + "/nssdb"))
        self.guest.wait_readers(False)
        lender = self.host.spawn(block(self.page, "from-spice-card"))
        try:
            self.guest.check_card()
        finally:
            lender.end()
        self.guest.wait_readers(False)
        client.quit()


class TestMigration:
    """From one libvirtd to another."""

    def setup(self, rig):
        self.rig = rig
        self.hosts = [new_host(rig, "a"), new_host(rig, "b")]
        make_certificates(self.hosts[0])
        # both are signed by one authority, and for one name
        os.makedirs(self.hosts[1].path("/etc/pki"), exist_ok=True)
        subprocess.run(["cp", "-a", self.hosts[0].path("/etc/pki/spiceflow"),
                        self.hosts[1].path("/etc/pki")], check=True)

    def start(self, domain):
        start(self.hosts[0], domain)
        self.guest = Guest(self.rig, self.hosts[0])

    def migrate(self, source, target, tell=True):
        """The page's commands.  For two hosts on one machine: the address
        of the other, disks that are not shared, another SPICE port."""
        tell_it, migrate = block(PAGE, "migrate").strip().splitlines()
        if tell:
            source.shell(tell_it.replace("other.example.org:5930",
                                         "localhost:%d" % target.port))
        source.shell(
            "virsh dumpxml --migratable demo | sed s/port=%d/port=%d/ "
            ">other.xml; " % (source.port, target.port) + migrate.replace(
                "qemu+ssh://other.example.org/system",
                "'%s' --unsafe --undefinesource --xml other.xml --migrateuri "
                "tcp://127.0.0.1:%d" % (target.uri, libvirt.free_port())))
        self.guest.adopt(target)

    def end(self):
        self.guest.machine.close()
        self.guest.host.virsh("destroy", "demo")
        self.guest.host.virsh("undefine", "demo", check=False)

    def test_follow(self):
        """Over TLS: the client follows there and back, in the middle of a
        copy and with a drive plugged."""
        self.start("override-tcp.xml")
        self.guest.use(
            "spice://localhost?tls-port=%d" % self.hosts[0].port,
            "--ca-file", self.hosts[0].path(self.hosts[0].work +
                                            "/pki/ca-cert.pem"),
            "--password", PASSWORD, "--progress", "20")
        client = self.guest.connect()
        self.guest.check_card()
        sha256 = self.guest.check_cd(client)
        for source, target in (self.hosts, self.hosts[::-1]):
            name = "to-" + target.name
            path, digest = self.guest.file(32 * MIB, name)
            self.guest.copy(client, path)
            client.expect("^progress agent %s [1-9]" % name)
            # the guest's agent stands still until it is over there
            self.guest.agent.job.signal(signal.SIGSTOP)
            self.migrate(source, target)
            client.poll()
            assert "done agent copy " + name not in "\n".join(client.lines)
            self.guest.agent.job.signal(signal.SIGCONT)
            self.guest.copied(self.guest.agent, client, path, digest)
            self.guest.read_cd(sha256)
            self.guest.check_clipboard(client)
            self.guest.check_card()
        client.quit()
        self.end()

    test_follow.deadline = 300

    def test_reconnect(self):
        """A UNIX socket: who was connected comes back by itself."""
        self.start("override-unix.xml")
        self.guest.use(client_uri(self.hosts[0]), card=False)
        client = self.guest.connect()
        self.guest.check_clipboard(client)
        self.migrate(*self.hosts, tell=False)
        self.guest.gone(client)
        self.guest.alone()
        self.guest.uri = client_uri(self.hosts[1])
        self.guest.check_all()
        self.end()
