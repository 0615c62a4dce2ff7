# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirtd of Debian's packages, with a machine room of its own.

How it works.  Each Host is a libvirtd in a mount namespace and a process
namespace.  In there the folders that libvirt, its configuration and the
documents name (/etc/libvirt, /var/lib/libvirt, /run, /opt/spiceflow, ...) are
folders of the test, so that XML and commands are used as they stand in the
documents, two hosts do not meet, and the libvirt of the machine, if it has
one, is neither seen nor touched.  When the first process of the namespace
ends, the kernel ends all others, guests included.

Only libvirt's QEMU driver is loaded: nothing here changes networks, firewall
or storage.  Guests run as the user libvirt-qemu, which exists in there.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import uuid
from pathlib import Path

from . import paths
from .guest import Guest
from .paths import ROOT, RigError, seconds
from .process import Process, wait_until
from .qemu import KERNEL_LINE, QmpError, accelerator
from .skip import Skip

UID = 64055             # libvirt-qemu's in Debian
USER_UID = 64056        # somebody who may connect
STRANGER_UID = 64057    # somebody who may not
DOCS = ROOT / "docs/libvirt"
DRIVERS = "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver"
NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

# Folders of the test; those that the machine does not have appear in an empty
# file system that hides their parent.  /etc is a copy, /run a new one.
FOLDERS = ("/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt",
           "/opt/spiceflow")

INIT = r"""
set -euo pipefail
home=$1
shift
mount --make-rprivate /
place() {
    if [ ! -d "$1" ]; then
        mount -t tmpfs none "${1%/*}"
        mkdir "$1"
    fi
    mount --bind "$home$1" "$1"
}
for folder; do
    place "$folder"
done
mount --bind "$home/run" /run
mount --bind "$home/etc" /etc
mount --bind "$home/drivers" "$DRIVERS"
if [ -n "$HIDE_KVM" ]; then
    # not even root opens it there; else libvirtd, who can, and QEMU, who
    # cannot, disagree, and it is asked anew at each step
    mount --bind /dev/kvm /dev/kvm
    mount -o remount,bind,nodev /dev/kvm
fi
umask 022
if [ -n "${AS_USER:-}" ]; then
    setpriv --reuid "$AS_USER" --regid "$AS_USER" --clear-groups \
        env HOME="/run/user/$AS_USER" XDG_RUNTIME_DIR="/run/user/$AS_USER" \
        libvirtd </dev/null &
else
    libvirtd </dev/null &
fi
echo up
read -r _ || true
"""

# QEMU's guests under libvirt, where ours have no KVM: what has to change.
CONSOLE = """\
    <serial type='file'>
      <source path='%s'/>
      <target port='0'/>
    </serial>
"""
SERIAL = """\
    <serial type='unix'>
      <source mode='bind' path='%s'/>
      <target port='1'/>
    </serial>
"""


class VirshError(Exception):
    """A command failed; the text is what it said."""


def require():
    """Skip, and say why, where libvirt's tests cannot be run."""
    if os.geteuid() != 0:
        raise Skip("libvirt's tests make mount namespaces, which needs root")
    for program in ("libvirtd", "virsh", "unshare", "nsenter", "setpriv"):
        if not shutil.which(program):
            raise RigError("%s is not installed; run scripts/setup" % program)
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child",
         "--mount-proc", "mount", "--make-rprivate", "/"], check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Skip("no mount namespace can be made here: " +
                   done.stdout.strip())


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Host:
    """One libvirtd and its guests.

    SESSION makes it the daemon of an ordinary user."""

    def __init__(self, folder, name, session=False):
        require()
        self.name = name
        self.home = os.path.join(folder, name)
        self.session = session
        self.home_inside = "/run/user/%d" % USER_UID if session else \
            "/var/lib/libvirt"
        self.work = self.home_inside + "/work"
        self.port = free_port()
        self.guests = []
        self.process = None
        os.chmod(folder, 0o711)
        os.mkdir(self.home, 0o711)
        self._furnish()
        self._checkout()
        hide = accelerator() != "kvm" and os.path.exists("/dev/kvm")
        env = dict(os.environ, LC_ALL="C", DRIVERS=DRIVERS,
                   HIDE_KVM="yes" if hide else "")
        for variable in list(env):
            if variable.startswith(("XDG_", "LIBVIRT", "VIRSH")):
                del env[variable]
        if session:
            env["AS_USER"] = str(USER_UID)
        # A mount point of its own for /proc, as libvirtd asks it for pids.
        self.process = Process(
            ["unshare", "--mount", "--propagation", "private", "--pid",
             "--fork", "--kill-child", "--mount-proc", "bash", "-c", INIT,
             "init", self.home, *FOLDERS],
            log=self.path("libvirtd.log"), env=env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        if self.process.popen.stdout.readline() != b"up\n":
            raise RigError("no machine room for libvirtd: " +
                           self.process.log())
        with open("/proc/%d/task/%d/children" % (self.process.pid,
                                                 self.process.pid),
                  encoding="ascii") as file:
            self.init = int(file.read().split()[0])
        wait_until(lambda: os.path.exists(self.socket) or not
                   self.process.running(), 20, "the socket of libvirtd")

    def path(self, name):
        """Where a path inside is outside."""
        return self.home + ("" if name.startswith("/") else "/") + name

    @property
    def socket(self):
        if self.session:
            return self.path("/run/user/%d/libvirt/libvirt-sock" % USER_UID)
        return self.path("/run/libvirt/libvirt-sock")

    @property
    def uri(self):
        """How another host's virsh reaches it."""
        return "qemu+unix:///%s?socket=%s" % (
            "session" if self.session else "system", self.socket)

    @staticmethod
    def _displays():
        """Ports for VNC that no other host here takes at the same time."""
        first = free_port()
        return "remote_display_port_min = %d\nremote_display_port_max = %d\n" \
            % (first, min(first + 20, 65535))

    def _write(self, name, text, mode="w"):
        with open(self.path(name), mode, encoding="utf-8") as file:
            file.write(text)

    def _furnish(self):
        subprocess.run(["cp", "-a", "/etc", self.home + "/"], check=True)
        shutil.rmtree(self.path("/etc/libvirt"), ignore_errors=True)
        for folder in FOLDERS + ("/run", "/drivers", "/etc/libvirt"):
            os.makedirs(self.path(folder))
        for folder in ("lib/libvirt/images", "lib/libvirt/qemu",
                       "log/libvirt/qemu"):
            os.makedirs(self.path("/var/" + folder))
        shutil.copy(DRIVERS + "/libvirt_driver_qemu.so",
                    self.path("/drivers"))
        self._write("/etc/libvirt/libvirtd.conf",
                    'auth_unix_ro = "none"\nauth_unix_rw = "none"\n'
                    'host_uuid = "%s"\nlog_outputs = "3:stderr"\n' %
                    uuid.uuid4())
        # No virtlogd, no cgroups of the machine, no profiles in its kernel.
        self._write("/etc/libvirt/qemu.conf",
                    'stdio_handler = "file"\ncgroup_controllers = [ ]\n'
                    'security_driver = "none"\n' + self._displays())
        for file, lines in (
                ("passwd", ("libvirt-qemu:x:%d:%d::/var/lib/libvirt:/bin/"
                            "false" % (UID, UID),
                            "alice:x:%d:%d::/run/user/%d:/bin/sh" %
                            (USER_UID, USER_UID, USER_UID))),
                ("group", ("libvirt-qemu:x:%d:" % UID,
                           "spice:x:%d:alice" % (UID + 100),
                           "alice:x:%d:" % USER_UID))):
            kept = [line for line in Path("/etc", file).read_text(
                        encoding="utf-8").splitlines()
                    if line.split(":")[0] not in
                    {extra.split(":")[0] for extra in lines}]
            text = "\n".join([*kept, *lines]) + "\n"
            if file == "group":
                text = re.sub(r"^(kvm:.*?),?$", r"\1,libvirt-qemu", text,
                              flags=re.M).replace(":,", ":")
            self._write("/etc/" + file, text)
        if self.session:
            user = self.path("/run/user/%d" % USER_UID)
            os.makedirs(user + "/.config/libvirt")
            self._write("/run/user/%d/.config/libvirt/qemu.conf" % USER_UID,
                        'stdio_handler = "file"\n' + self._displays())
            for folder in ("", "/.config", "/.config/libvirt"):
                os.chown(user + folder, USER_UID, USER_UID)

    def _checkout(self):
        """A folder in there that looks like the checkout, for commands that
        are to be run in one; its domains are adapted to this place."""
        work = self.path(self.work)
        os.makedirs(work + "/docs/libvirt")
        os.symlink(ROOT / "scripts", work + "/scripts")
        for path in DOCS.glob("*.xml"):
            Path(work, "docs/libvirt", path.name).write_text(
                self.adapted(path.read_text(encoding="utf-8")),
                encoding="utf-8")

    # -- programs --

    def shell(self, script, check=True, timeout=120, user=None):
        """Run a script as it stands in a document; what it says."""
        words = ["nsenter", "-t", str(self.init), "-m", "-p"]
        env = dict(os.environ, LC_ALL="C")
        if user is None and self.session:
            user = USER_UID
        if user is not None:
            words += ["setpriv", "--reuid", str(user), "--regid", str(user),
                      "--clear-groups", "env", "HOME=/run/user/%d" % user,
                      "XDG_RUNTIME_DIR=/run/user/%d" % user]
        try:
            done = subprocess.run(
                [*words, "bash", "-euo", "pipefail", "-c",
                 'cd "$0"; ' + script, self.work], check=False, env=env,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                stderr=subprocess.STDOUT, timeout=seconds(timeout))
        except subprocess.TimeoutExpired as late:
            raise RigError("%s: no end after %g s: %s" % (
                script, timeout, (late.stdout or b"")[-500:])) from None
        # an error of QEMU's is an answer to virsh
        if check and (done.returncode or re.search(r'(?m)^\{.*"error":\{',
                                                   done.stdout)):
            raise VirshError("%s\n%s" % (script, done.stdout.strip()))
        return done.stdout

    def spawn(self, command):
        """Start a command of a document that goes on until it is ended."""
        return Process(
            ["nsenter", "-t", str(self.init), "-m", "bash", "-c",
             'cd "$0"; exec ' + command, self.work],
            log=self.path("spawned.log"))

    def virsh(self, *words, **options):
        return self.shell("virsh " + " ".join(
            shlex.quote(str(word)) for word in words), **options).strip()

    def without_spice(self):
        """Take spice-server's modules away again, which a build has where
        that is installed: as where spiceflow is needed."""
        for path in Path(self.path("/opt/spiceflow/lib")).rglob("*.so"):
            if re.search(r"-spice(\.|-)|-qxl\.", path.name):
                path.unlink()

    # -- guests --

    def adapted(self, xml):
        """A domain of the documents for this machine room: our kernel, a
        serial line to talk to it, a free port, and no KVM where there is
        none.  The network is the machine's own affair."""
        name = re.search(r"<name>(.*?)</name>", xml)[1]
        if accelerator() != "kvm":
            xml = xml.replace("<domain type='kvm'", "<domain type='qemu'")
            xml = xml.replace("<cpu mode='host-model' check='partial'/>",
                              "<cpu mode='maximum'/>")
        images = self.home_inside + ("" if self.session else "/images")
        xml = xml.replace(
            "<boot dev='hd'/>", "<kernel>%s/kernel</kernel><initrd>%s/initrd"
            "</initrd><cmdline>%s</cmdline>" % (images, images, KERNEL_LINE))
        serial = SERIAL % self.run_file(name, "control")
        if "<serial " not in xml:
            serial = CONSOLE % self.run_file(name, "console") + serial
        xml = re.sub(r" *<interface .*?</interface>\n", "", xml, flags=re.S)
        xml = xml.replace("port=5930", "port=%d" % self.port)
        # behind what is there, for its number in the guest
        at = xml.index("    <channel ") if "    <channel " in xml \
            else xml.index("    <graphics ")
        console = xml.find("    <console ")
        if console >= 0:
            at = console
        return xml[:at] + serial + xml[at:]

    def run_file(self, name, kind):
        """Where a guest's console and control socket are, inside."""
        if self.session:
            folder = self.home_inside
        elif kind == "console":
            folder = "/var/log/libvirt/qemu"
        else:
            folder = "/var/lib/libvirt/qemu"
        return "%s/%s.%s" % (folder, name, kind)

    def prepare(self, variant="base"):
        """Kernel and initramfs where the guests look for them."""
        folder = self.home_inside + ("" if self.session else "/images")
        for source, target in zip(paths.guest_images(variant),
                                  ("kernel", "initrd")):
            shutil.copy(source, self.path(folder + "/" + target))
            os.chmod(self.path(folder + "/" + target), 0o644)

    def machine(self, name):
        """The running guest of that name."""
        machine = Machine(self, name)
        self.guests.append(machine)
        return machine

    def log(self):
        return self.process.log() if self.process else ""

    def close(self):
        for machine in self.guests:
            machine.close()
        if not self.process:
            return
        try:
            self.process.popen.stdin.close()
            self.process.wait(20)
        finally:
            self.process.popen.stdout.close()
            self.process.end()
        logs = Path(self.path("/var/log/libvirt/qemu"))
        crashed = [line for path in logs.glob("*.log") for line in
                   path.read_text(encoding="utf-8",
                                  errors="replace").splitlines()
                   if "reason=crashed" in line]
        if crashed:
            raise RigError("a guest of %s crashed: %s" % (self.name,
                                                          crashed[0]))


class Machine:
    """A guest of libvirt's, with the face of qemu.Qemu that Guest and Rig
    need."""

    def __init__(self, host, name):
        self.host = host
        self.name = name
        self.control = None
        self.process = host.process
        self.connect()

    def _file(self, kind):
        if kind == "log":
            folder = self.host.home_inside + "/.cache/libvirt/qemu/log" \
                if self.host.session else "/var/log/libvirt/qemu"
            return self.host.path("%s/%s.log" % (folder, self.name))
        return self.host.path(self.host.run_file(self.name, kind))

    def connect(self):
        """To the guest's command server; a new QEMU has a new socket."""
        self.close()
        self.control = socket.socket(socket.AF_UNIX)
        self.control.connect(self._file("control"))

    def _read(self, kind):
        try:
            return Path(self._file(kind)).read_text(encoding="utf-8",
                                                    errors="replace")
        except OSError:
            return ""

    def log(self):
        """What QEMU said, without the command line."""
        return "\n".join(line for line in self._read("log").splitlines()
                         if not line.endswith("\\") and "=" not in line[:12])

    def console(self):
        return self._read("console")

    def command(self, name, arguments=None):
        """One QMP command through libvirt; its result."""
        request = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        said = self.host.virsh("qemu-monitor-command", self.name,
                               json.dumps(request), check=False)
        answer = json.loads(said)
        if "error" in answer:
            raise QmpError(answer["error"])
        return answer["return"]

    def get(self, path, name):
        return self.command("qom-get", {"path": path, "property": name})

    def boot(self, timeout=60):
        guest = Guest(self)
        guest.wait_ready(timeout)
        return guest

    def close(self):
        if self.control:
            self.control.close()
            self.control = None


# ---- the documents ----

def block(page, name):
    """The code block of a page that a comment gives that name."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"<!-- test: %s -->\n```\w*\n(.*?)```" %
                       re.escape(name), text, re.S)
    if len(found) != 1:
        raise RigError("%s has %d blocks named %s" % (page, len(found), name))
    return found[0]


__all__ = ["Host", "Machine", "QmpError", "VirshError", "block", "free_port",
           "require"]
