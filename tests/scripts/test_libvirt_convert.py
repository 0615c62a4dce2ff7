#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/libvirt-convert, on domains in the style of many tools.

tests/scripts/domains has a domain each as virt-manager, virt-install, GNOME
Boxes, oVirt, Vagrant, Cockpit, Terraform, Nova and people write them.  For
each and both ways: what comes out is a domain of libvirt's schema without
anything of SPICE, nothing is lost or reordered that is not SPICE's, and
converting again changes nothing.  A real libvirtd gets them in tests/libvirt.
"""

import difflib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAM = ROOT / "scripts/libvirt-convert"
DOMAINS = sorted((HERE / "domains").glob("*.xml")) + \
    [ROOT / "docs/libvirt/rhel8-spice.xml"]
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"

loader = importlib.machinery.SourceFileLoader("libvirt_convert", str(PROGRAM))
spec = importlib.util.spec_from_loader("libvirt_convert", loader)
converter = importlib.util.module_from_spec(spec)
sys.dont_write_bytecode = True
loader.exec_module(converter)

# Lines of the input that may be missing in the output.
TOUCHED = re.compile(
    rb"spice|qxl|<source channel|<listen|</graphics|<(image|jpeg|zlib|playback|streaming|"
    rb"clipboard|filetransfer|mouse|gl|acceleration) |<alias|<channel name=|"
    rb'<channel mode=|<domain|</redirdev|state=|<target type=.virtio./>')


def run(*words, data=None):
    return subprocess.run([sys.executable, str(PROGRAM), *map(str, words)],
                          input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)


def convert(data, *words):
    """(text, [lines said])"""
    if isinstance(data, str):
        data = data.encode()
    text, said = converter.convert(data, converter.arguments(list(words)))
    return text, ["%s: %s" % entry[1:] for entry in said]


def domain(devices, more="", kind="kvm", attributes=""):
    return ("<domain type='%s'%s>\n  <name>vm</name>\n  <os>\n"
            "    <type machine='q35'>hvm</type>\n  </os>\n  <devices>\n"
            "%s\n  </devices>\n%s</domain>\n" % (kind, attributes, devices,
                                               more))


AGENT = ("    <channel type='spicevmc'>\n      <target type='virtio' "
         "name='com.redhat.spice.0'/>\n    </channel>")


def words_of(text):
    """QEMU's arguments of a domain."""
    root = ET.fromstring(text)
    return [arg.get("value") for arg in root.iter(QEMU + "arg")]


def skeleton(text):
    """The tree without what conversion is about, in its order."""
    root = ET.fromstring(text)
    for tag in ("commandline", "override"):
        for element in root.findall(QEMU + tag):
            root.remove(element)
    devices = root.find("devices")
    for element in list(devices):
        kind = element.get("type")
        if element.tag == "graphics" or (element.tag, kind) in (
                ("audio", "spice"), ("audio", "none")):
            devices.remove(element)
            continue
        if element.tag == "video":
            model = element.find("model")
            if model.get("type") in ("qxl", "vga", "virtio"):
                devices.remove(element)
        if kind in ("spicevmc", "spiceport", "null"):
            element.set("type", "-")
            for child in list(element):
                if child.tag in ("source", "alias"):
                    element.remove(child)
                if child.tag == "target":
                    child.attrib.pop("state", None)
                    child.attrib.setdefault("name", "com.redhat.spice.0")

    def flat(element):
        return (element.tag, sorted(element.attrib.items()),
                (element.text or "").strip(), [flat(c) for c in element])

    return flat(root)


class TestDomains(unittest.TestCase):
    """Each domain, both ways."""

    def each(self):
        self.assertGreaterEqual(len(DOMAINS), 12)
        for path in DOMAINS:
            for way in "BC":
                with self.subTest(domain=path.stem, way=way):
                    data = path.read_bytes()
                    text, said = convert(data, "--way", way)
                    yield path, way, data, text, said

    def test_nothing_of_spice(self):
        for _path, _way, _data, text, _said in self.each():
            for element in ET.fromstring(text).iter():
                self.assertNotIn(element.get("type"), (
                    "spice", "spicevmc", "spiceport", "qxl"))

    def test_again(self):
        """What was converted stays as it is, by either way."""
        for _path, _way, _data, text, _said in self.each():
            for other in "BC":
                again, said = convert(text, "--way", other)
                self.assertEqual(again, text)
                self.assertEqual(said, [])

    def test_the_rest(self):
        """What is not SPICE's is there, in its order."""
        for _path, _way, data, text, _said in self.each():
            self.assertEqual(skeleton(text), skeleton(data))

    def test_bytes(self):
        """Lines are the same, unless they concern SPICE; so are comments."""
        comment = re.compile(rb"<!--.*?-->", re.S)
        for path, _way, data, text, _said in self.each():
            self.assertEqual(comment.findall(text), comment.findall(data))
            if path.stem == "one-line":
                continue
            matcher = difflib.SequenceMatcher(
                None, data.split(b"\n"), text.split(b"\n"), autojunk=False)
            for kind, start, end, _, _ in matcher.get_opcodes():
                if kind == "equal":
                    continue
                for line in data.split(b"\n")[start:end]:
                    self.assertRegex(line, TOUCHED)

    def test_line_ends(self):
        for _path, _way, data, text, _said in self.each():
            lone = re.compile(rb"(?<!\r)\n" if b"\r\n" in data else rb"\r")
            self.assertIsNone(lone.search(text))

    def test_devices(self):
        """Every device has its other half on the command line."""
        for path, way, data, text, said in self.each():
            root, old = ET.fromstring(text), ET.fromstring(data)
            wanted = [e for e in old.find("devices") if e.get("type") in
                      ("spicevmc", "spiceport") and e.tag != "console"]
            words = words_of(text)
            if not wanted:
                self.assertEqual(data, text)
                continue
            servers = [w for w in words if w.startswith("spiceflow-server,")]
            self.assertEqual(len(servers), 1, path)
            nulls = [e for e in root.find("devices") if
                     e.get("type") == "null" and e.tag != "console"]
            self.assertEqual(len(nulls), len(wanted))
            aliases = [e.find("alias").get("name") if e.find("alias")
                       is not None else "smartcard0" for e in nulls]
            self.assertEqual(len(set(aliases)), len(aliases))
            if way == "B":
                ids = [w.split(",")[1][3:] for w in words
                       if w.startswith("spiceflow,id=")]
                over = {d.get("alias"): d.find(".//" + QEMU + "property").get(
                    "value") for d in root.iter(QEMU + "device") if
                    d.get("alias") in aliases}
                self.assertEqual(sorted(over), sorted(aliases))
                self.assertEqual(sorted(over.values()), sorted(ids))
            else:
                for alias in aliases:
                    self.assertIn("chardev.char%s.backend=spiceflow" % alias,
                                  words)
            self.assertEqual(len([s for s in said if re.search(
                r"agent, for|USB device$|smart-card reader$|the port ", s)
                and s.startswith("changed")]), len(wanted))

    def test_schema(self):
        for tool, package in (("virt-xml-validate", "libvirt-clients"),
                              ("xmllint", "libxml2-utils")):
            self.assertTrue(shutil.which(tool), "%s is not installed: it is "
                            "in %s, which scripts/setup installs" %
                            (tool, package))
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for path, way, data, text, _said in self.each():
                for name, content in (("in", data), (way, text)):
                    file = Path(folder, "%s-%s.xml" % (path.stem, name))
                    file.write_bytes(content)
                    files.append(file)
            for file in sorted(set(files)):
                done = subprocess.run(["virt-xml-validate", file, "domain"],
                                      stdout=subprocess.PIPE, check=False,
                                      stderr=subprocess.STDOUT)
                self.assertEqual(done.returncode, 0, done.stdout.decode())


class TestServer(unittest.TestCase):
    """Where clients connect, and what is asked of them."""

    def server(self, graphics, *words):
        text, said = convert(domain(graphics + "\n" + AGENT), *words)
        values = words_of(text)
        server = next(w for w in values if w.startswith("spiceflow-server,"))
        return server.partition("id=sf0,")[2], values, said

    def test_default(self):
        for graphics in ("<graphics type='spice'/>",
                         "<graphics type='spice' autoport='yes' port='5900'/>",
                         "<graphics type='spice' port='-1'/>"):
            where, _, said = self.server(graphics)
            self.assertEqual(
                where, "type=unix,path=/var/lib/libvirt/spiceflow/vm.sock")
            self.assertTrue([s for s in said if "--listen" in s])

    def test_port(self):
        where, _, said = self.server(
            "<graphics type='spice' port='5907' listen='10.1.2.3'/>")
        self.assertEqual(where, "type=inet,host=10.1.2.3,port=5907")
        self.assertTrue([s for s in said if "not encrypted" in s])

    def test_local_port(self):
        where, _, said = self.server("<graphics type='spice' port='5907'/>")
        self.assertEqual(where, "type=inet,host=127.0.0.1,port=5907")
        self.assertFalse([s for s in said if "not encrypted" in s])

    def test_tls_and_password(self):
        where, values, said = self.server(
            "<graphics type='spice' port='5907' tlsPort='5908' "
            "passwd='long enough, and more'>"
            "<listen type='address' address='::'/></graphics>")
        self.assertEqual(where, "type=inet,host=::,port=5908,"
                         "tls-creds=sf-tls,password-secret=sf-password")
        self.assertIn("secret,id=sf-password,file=/etc/pki/spiceflow/"
                      "vm.password", values)
        self.assertIn("tls-creds-x509,id=sf-tls,dir=/etc/pki/libvirt-spice,"
                      "endpoint=server,verify-peer=off", values)
        self.assertFalse([v for v in values if "long enough" in v])
        self.assertTrue([s for s in said if s.startswith("lost: the port")])
        self.assertTrue([s for s in said if "longer than 8" in s])

    def test_socket(self):
        where, _, _ = self.server(
            "<graphics type='spice'><listen type='socket' socket='/a,b'/>"
            "</graphics>")
        self.assertEqual(where, "type=unix,path=/a,,b")

    def test_options(self):
        where, _, _ = self.server("<graphics type='spice' port='5907'/>",
                                  "--listen", "unix:/run/x.sock")
        self.assertEqual(where, "type=unix,path=/run/x.sock")
        where, values, _ = self.server(
            "<graphics type='spice'/>", "--listen", "[::1]:5000",
            "--tls-dir", "/pki", "--password-file", "/pw")
        self.assertEqual(where, "type=inet,host=::1,port=5000,"
                         "tls-creds=sf-tls,password-secret=sf-password")
        self.assertIn("secret,id=sf-password,file=/pw", values)

    def test_max_clients(self):
        where, _, _ = self.server("<graphics type='spice'/>",
                                  "--max-clients", "4")
        self.assertTrue(where.endswith(".sock,max-clients=4"), where)

    def test_policy(self):
        where, _, _ = self.server(
            "<graphics type='spice'><clipboard copypaste='no'/>"
            "<filetransfer enable='no'/></graphics>")
        self.assertTrue(where.endswith(
            ",agent-clipboard=off,agent-file-transfer=off"), where)

    def test_display(self):
        text, said = convert(domain(
            "<graphics type='spice' passwd='0123456789'/>\n" + AGENT))
        graphics = ET.fromstring(text).findall("devices/graphics")
        self.assertEqual([g.attrib for g in graphics], [{
            "type": "vnc", "port": "-1", "autoport": "yes",
            "listen": "127.0.0.1", "passwd": "01234567"}])
        text, said = convert(domain("<graphics type='spice'/>\n" + AGENT),
                             "--display", "none")
        self.assertNotIn(b"graphics", text)
        self.assertTrue([s for s in said if "the machine has none" in s])

    def test_second_run_adds(self):
        """A device that was added later goes to the same server."""
        first, _ = convert(domain(AGENT))
        more = first.replace(b"  </devices>", b"    <redirdev bus='usb' "
                             b"type='spicevmc'/>\n  </devices>")
        text, _ = convert(more)
        words = words_of(text)
        self.assertEqual(len([w for w in words if "spiceflow-server" in w]),
                         1)
        self.assertIn("spiceflow,id=sf-usb0,name=usbredir", words)
        self.assertEqual(text.count(b"<qemu:commandline>"), 1)
        self.assertEqual(text.count(b"<qemu:override>"), 1)
        third = text.replace(b"  </devices>", b"    <redirdev bus='usb' "
                             b"type='spicevmc'/>\n  </devices>")
        self.assertIn("spiceflow,id=sf-usb1,name=usbredir",
                      words_of(convert(third)[0]))

    def test_commas(self):
        port = ("<channel type='spiceport'><source channel='a,b'/>"
                "<target type='virtio' name='a,b'/></channel>")
        self.assertIn("spiceflow,id=sf-port0,name=a,,b",
                      words_of(convert(domain(port))[0]))
        self.assertIn("chardev.charua-sf-port0.name=a,b",
                      words_of(convert(domain(port), "--way", "C")[0]))


class TestParts(unittest.TestCase):
    """Single pieces."""

    def test_card_controller(self):
        xhci = ("    <controller type='usb' model='qemu-xhci'/>\n%s"
                "    <smartcard mode='passthrough' type='spicevmc'/>")
        for ccid in ("", "    <controller type='ccid' index='0'/>\n",
                     "    <controller type='ccid' index='0'>\n      <address "
                     "type='usb' bus='0' port='2'/>\n    </controller>\n"):
            text, said = convert(domain(xhci % ccid))
            self.assertTrue([s for s in said if "--card-uhci" in s])
            self.assertNotIn(b"piix3", text)
            text, said = convert(domain(xhci % ccid), "--card-uhci")
            root = ET.fromstring(text)
            usb = [(c.get("index"), c.get("model")) for c in
                   root.iter("controller") if c.get("type") == "usb"]
            self.assertEqual(usb[1:], [("1", "piix3-uhci")])
            address = root.find(".//controller[@type='ccid']/address")
            self.assertEqual((address.get("bus"), address.get("port")),
                             ("1", "1"))
            self.assertEqual(convert(text, "--card-uhci")[0], text)

    def test_emulator_and_machine(self):
        old = domain("    <emulator>/usr/bin/kvm</emulator>\n" + AGENT)
        for source in (old, domain(AGENT)):
            text, _ = convert(source, "--emulator", "/opt/a&b", "--machine",
                              "pc")
            root = ET.fromstring(text)
            self.assertEqual(root.find("devices/emulator").text, "/opt/a&b")
            self.assertEqual(root.find("os/type").get("machine"), "pc")
            self.assertEqual(
                convert(text, "--emulator", "/opt/a&b", "--machine",
                        "pc"), (text, []))

    def test_rhel_machine(self):
        source = domain(AGENT).replace("q35", "pc-q35-rhel8.2.0")
        self.assertTrue([s for s in convert(source)[1]
                         if s.startswith("to do") and "rhel8.2.0" in s])

    def test_alias(self):
        text, _ = convert(domain(
            "<redirdev bus='usb' type='spicevmc'><alias name='ua-mine'/>"
            "</redirdev>\n<redirdev bus='usb' type='spicevmc'>"
            "<alias name='redir1'/></redirdev>"))
        self.assertEqual([a.get("name") for a in
                          ET.fromstring(text).iter("alias")],
                         ["ua-mine", "ua-sf-usb1"])

    def test_qxl_without_spice(self):
        text, said = convert(domain(
            "<video><model type='qxl' vram='8' vgamem='16384' heads='2'/>"
            "</video>"), "--video", "virtio")
        self.assertIn(b"<model type='virtio' heads='2'/>", text)
        self.assertEqual(len(said), 1)

    def test_graphics_alone(self):
        """Nothing to serve: no server."""
        text, said = convert(domain("<graphics type='spice'/>"))
        self.assertNotIn(b"spiceflow", text)
        self.assertTrue([s for s in said if s.startswith("lost: the SPICE")])


class TestRefusals(unittest.TestCase):
    """What is not understood ends it, with the line."""

    def refused(self, source, pattern, *words):
        if isinstance(source, str):
            source = source.encode()
        with self.assertRaisesRegex(converter.Refusal, pattern):
            convert(source, *words)

    def test_documents(self):
        self.refused("<network/>", "line 1: <network>, where <domain>")
        self.refused("<domain", "line 1: not well-formed")
        self.refused("", "line 1: not well-formed: no element")
        self.refused("<!DOCTYPE d [<!ENTITY a 'b'>]><domain/>",
                     "line 1: a document type")
        self.refused("<?xml version='1.0' encoding='latin1'?><domain/>",
                     "encoding latin1")
        self.refused(domain("").encode("utf-16"), "UTF-16")
        self.refused(domain("", kind="xen"), "not a domain of QEMU")
        self.refused("<domain type='kvm'/>", "no <devices>")
        self.refused("<domain type='kvm' xmlns='urn:x'><devices/></domain>",
                     "default namespace")

    def test_devices(self):
        for device, pattern in (
                ("<graphics type='spice' shiny='yes'/>", "attribute shiny"),
                ("<graphics type='spice'><fog/></graphics>", "<fog> in it"),
                ("<graphics type='spice' port='x'/>", "port='x' is no number"),
                ("<channel type='spicevmc'><target type='virtio' name='x'/>"
                 "</channel>", "not the agent's"),
                (AGENT + AGENT, "one agent only"),
                ("<channel type='spiceport'><target type='virtio' name='x'/>"
                 "</channel>", "no <source channel"),
                ("<console type='spiceport'><source channel='c'/>"
                 "<target type='virtio'/></console>", "write it as"),
                ("<parallel type='spiceport'/>", "not understood here"),
                ("<redirdev bus='usb' type='spicevmc'><fog/></redirdev>",
                 "<fog> in it"),
                ("<rng model='virtio'><backend model='egd' type='spicevmc'/>"
                 "</rng>", "not understood here"),
                ("<smartcard mode='host' type='spicevmc'/>", "mode host")):
            with self.subTest(device):
                self.refused(domain(device), "line [789]: .*" + pattern)

    def test_command_line(self):
        more = ("  <qemu:commandline>\n    <qemu:arg value='%s'/>\n"
                "  </qemu:commandline>\n")
        attributes = " xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
        for value in ("-spice", "spicevmc,id=a", "qxl-vga.ram_size=1",
                      '{"driver":"qxl"}', "spice-app"):
            self.refused(domain(AGENT, more % value, attributes=attributes),
                         "line 12: '.*' on QEMU's own command line")
        text, _ = convert(domain(AGENT, more % "name=opt/spices,string=a",
                                 attributes=attributes))
        self.assertIn("name=opt/spices,string=a", words_of(text))


class TestCommand(unittest.TestCase):
    """The program as it is used."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "vm.xml"
        self.file.write_text(domain(AGENT), encoding="utf-8")

    def test_streams(self):
        done = run(data=self.file.read_bytes())
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stdout, convert(domain(AGENT))[0])
        self.assertRegex(done.stderr, rb"(?m)^line 7: changed: the agent")

    def test_output(self):
        out = self.folder / "new.xml"
        done = run("-q", "-o", out, self.file)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (0, b"", b""))
        self.assertEqual(out.read_bytes(), convert(domain(AGENT))[0])
        self.assertEqual(out.stat().st_mode & 0o777, 0o600)

    def test_in_place(self):
        os.chmod(self.file, 0o644)
        self.assertEqual(run("-o", self.file, self.file).returncode, 0)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o644)
        first = self.file.read_bytes()
        done = run("-o", self.file, self.file)
        self.assertEqual(self.file.read_bytes(), first)
        self.assertEqual(done.stderr, b"nothing to convert\n")
        self.assertEqual(os.listdir(self.folder), ["vm.xml"])

    def test_check(self):
        before = self.file.read_bytes()
        done = run("--check", self.file)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertEqual(self.file.read_bytes(), before)
        self.assertEqual(run("--check", HERE / "domains/vnc-only.xml")
                         .returncode, 0)

    def test_errors(self):
        for words, pattern in (
                ([self.folder / "none.xml"], b"No such file"),
                (["--listen", "5900", self.file], b"HOST:PORT"),
                (["--video", "qxl", self.file], b"what is to go"),
                (["--max-clients", "0", self.file], b"1 to 1024"),
                (["-o", self.folder / "a/b", self.file], b"No such file")):
            done = run(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(pattern, done.stderr)
            self.assertNotIn(b"Traceback", done.stderr)
        self.file.write_text("<domain type='kvm'><devices><graphics "
                             "type='spice' x='y'/></devices></domain>")
        done = run("-o", self.folder / "out.xml", self.file)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"vm.xml: line 1: <graphics type='spice'>: the "
                      b"attribute x is not understood", done.stderr)
        self.assertFalse((self.folder / "out.xml").exists())


if __name__ == "__main__":
    unittest.main()
