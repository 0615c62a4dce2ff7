# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU, guest and clients put together for one test.

A Rig owns everything that a test starts, and ends it in the reverse order.
It is handed to each test; nothing else may be left behind by one.
"""

import contextlib
import os
import tempfile

from . import paths, spiceclient
from .guest import Guest
from .qemu import Qemu
from .sfclient import SfClient
from .skip import Skip
from .usbdevice import UsbDevice

PORT = "org.example.demo.0"
AGENT = "com.redhat.spice.0"    # the port that guests' agents open
BACKENDS = ("spiceflow", "spicevmc")


def backend():
    """The chardev back end under test; the peer serves to prove the rig."""
    name = os.environ.get("SPICEFLOW_TEST_BACKEND", "spiceflow")
    if name not in BACKENDS:
        raise paths.RigError("SPICEFLOW_TEST_BACKEND=%s: known are %s" %
                             (name, ", ".join(BACKENDS)))
    return name


def not_with_peer(why):
    """For a test that shows what only spiceflow does."""
    if backend() != "spiceflow":
        raise Skip(why)


def server_args(socket_path, which=None, clients=1, **properties):
    """Options that make QEMU listen for SPICE clients on a UNIX socket.

    PROPERTIES are spiceflow-server's, with underscores for dashes."""
    if (which or backend()) == "spiceflow":
        if clients > 1:
            properties["max_clients"] = clients
        more = "".join(",%s=%s" % (name.replace("_", "-"), value)
                       for name, value in properties.items())
        return ["-object", "spiceflow-server,id=sf0,type=unix,path=%s%s" %
                (socket_path, more)]
    return ["-spice", "unix=on,addr=%s,disable-ticketing=on" % socket_path]


def server_env(clients=1, which=None):
    """Environment of a QEMU that is to serve so many clients at once."""
    if clients > 1 and (which or backend()) == "spicevmc":
        return dict(os.environ, SPICE_DEBUG_ALLOW_MC="1")
    return None


def chardev_args(chardev_id, name, which=None):
    """Options for one chardev; NAME as in spicevmc, or a port's name."""
    if (which or backend()) == "spiceflow":
        return ["-chardev", "spiceflow,id=%s,name=%s" % (chardev_id, name)]
    kind = "spicevmc" if name in ("vdagent", "usbredir", "smartcard") \
        else "spiceport"
    return ["-chardev", "%s,id=%s,name=%s" % (kind, chardev_id, name)]


def port_args(*names, which=None):
    """A virtio-serial bus with one port for each name."""
    args = ["-device", "virtio-serial-pci,id=vser"]
    for number, name in enumerate(names, 1):
        args += chardev_args("p%d" % number, name, which)
        args += ["-device", "virtserialport,id=vp%d,chardev=p%d,name=%s" %
                 (number, number, name)]
    return args


def agent_port_args(which=None):
    """The agent's port, on a bus that is there."""
    return chardev_args("agent", "vdagent", which) + \
        ["-device", "virtserialport,id=vagent,chardev=agent,name=" + AGENT]


def agent_args(which=None):
    """The agent's port, as virt-install and libvirt make it."""
    return ["-device", "virtio-serial-pci,id=vser"] + agent_port_args(which)


def usb_args(*controllers, which=None):
    """A usb-redir device for each of these controllers, on a bus of its own.

    The channels of the devices are numbered in the same order, from 0."""
    args = []
    for number, controller in enumerate(controllers):
        args += ["-device", "%s,id=usb%d" % (controller, number)]
        args += chardev_args("u%d" % number, "usbredir", which)
        args += ["-device", "usb-redir,id=redir%d,bus=usb%d.0,chardev=u%d" %
                 (number, number, number)]
    return args


def card_args(readers=1, controller="piix3-usb-uhci", which=None):
    """Smart-card readers on a USB controller of their own, each with a card
    slot behind a chardev."""
    args = ["-device", controller + ",id=ccidbus"]
    for number in range(readers):
        args += ["-device", "usb-ccid,id=ccid%d,bus=ccidbus.0" % number]
        args += chardev_args("card%d" % number, "smartcard", which)
        args += ["-device", "ccid-card-passthru,id=slot%d,bus=ccid%d.0,"
                 "chardev=card%d" % (number, number, number)]
    return args


class Rig:
    """Everything that one test has started."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        self.folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="spiceflow-"))
        self._clients = self._stack.enter_context(contextlib.ExitStack())
        self.qemus = []
        self.clients = []
        self.guests = []
        self._counter = 0

    def path(self, name):
        """A path in this test's own folder."""
        return os.path.join(self.folder, name)

    def _name(self, kind):
        self._counter += 1
        return "%s-%d" % (kind, self._counter)

    @property
    def socket(self):
        """Path of the SPICE server's socket, as server_args() gets it."""
        return self.path("spice")

    def qemu(self, *args, **options):
        """Start a QEMU; see qemu.Qemu for the options."""
        options.setdefault("name", self._name("qemu"))
        qemu = Qemu(args, folder=self.folder, **options)
        self._stack.callback(qemu.close)
        self.qemus.append(qemu)
        return qemu

    def guest(self, *args, variant="base", boot_timeout=60, **options):
        """Start a QEMU with the Linux guest, and wait until it is up."""
        qemu = self.qemu(*args, guest=paths.guest_images(variant), **options)
        guest = Guest(qemu)
        self.guests.append(guest)
        guest.wait_ready(boot_timeout)
        return guest

    def port_guest(self, *names, **options):
        """The usual case: a server and a guest with these virtio ports."""
        return self.guest(*server_args(self.socket),
                          *port_args(*(names or (PORT,))), **options)

    def client(self, *options, uri=None):
        """Start the client on libspice-client-glib."""
        client = SfClient(uri or "spice+unix://" + self.socket, *options,
                          folder=self.folder, name=self._name("sfclient"))
        self._clients.callback(client.close)
        self.clients.append(client)
        return client

    def usb_device(self, *options, address=None, **more):
        """Plug in the USB device on libusbredirparser, as a client of its
        own."""
        device = UsbDevice(address or "unix:" + self.socket, *options,
                           folder=self.folder, name=self._name("usb"), **more)
        self._clients.callback(device.close)
        return device

    def raw(self, address=None, **options):
        """A scripted session: its main channel, linked."""
        session = spiceclient.Session(address or self.socket, **options)
        self._clients.callback(session.close)
        return session

    def link(self, address=None, **options):
        """A scripted connection that has sent nothing yet."""
        link = spiceclient.Connection(address or self.socket, **options)
        self._clients.callback(link.close)
        return link

    def callback(self, function, *args):
        """Something else to be done at the end."""
        self._stack.callback(function, *args)

    def report(self):
        """What the processes said, for a test that failed."""
        parts = []
        for qemu in self.qemus:
            parts += [(qemu.name, qemu.log()),
                      (qemu.name + " console", qemu.console())]
        for client in self.clients:
            parts += [("client said", "\n".join(client.lines)),
                      ("client log", client.process.log())]
        text = []
        for title, content in parts:
            lines = content.strip().splitlines()[-15:]
            if lines:
                text.append("--- %s" % title)
                text += lines
        return "\n".join(text)

    def tidy(self):
        """End clients and guests' commands, between the tests of a class."""
        self._clients.close()
        self.clients = []
        for guest in self.guests:
            if guest.qemu.process.running():
                guest.end_jobs()

    def close(self):
        self._clients.close()
        self._stack.close()
