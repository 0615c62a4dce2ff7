# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/client: files and a card for a guest, without a viewer."""

import re
import signal
import subprocess

from lib.certs import Certificates
from lib.paths import ROOT, seconds
from lib.process import wait_until
from lib.rig import agent_args, server_args
from test_agent import Agent, make_file
from test_smartcard import CardRig, Database

VARIANTS = ("base", "card")
PROGRAM = str(ROOT / "scripts/client")


def run(*args, timeout=60):
    """Status, output and errors of the program."""
    done = subprocess.run([PROGRAM, *args], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=seconds(timeout), check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


class TestCopy:
    def setup(self, rig):
        self.rig = rig
        self.guest = rig.guest(*server_args(rig.socket), *agent_args())
        self.uri = "spice+unix://" + rig.socket

    def test_no_agent(self):
        """Nothing in the guest reads the port: it says so."""
        status, _, wrong = run("--wait=1", self.uri, "copy", __file__)
        assert status == 1, status
        assert wrong.startswith("client: the guest has no agent"), wrong

    def test_files(self):
        """Each is in the guest when it ends, and it says so."""
        agent = Agent(self.guest)
        paths = [self.rig.path("one file"), self.rig.path("empty")]
        sums = [make_file(path, size) for path, size in zip(
            paths, (3000000, 0))]
        status, said, wrong = run(self.uri, "copy", *paths)
        assert (status, wrong) == (0, ""), wrong
        assert re.fullmatch(r"(.*: copied, [\d.]+ MB/s\n){2}", said), said
        for sha256 in sums:
            done = agent.expect(r"^file-done .*")
            assert done.group(0).endswith("sha256=" + sha256), done.group(0)

    def test_refused(self):
        """The policy's refusal is told."""
        Agent(self.guest)
        self.guest.qemu.set("/objects/sf0", "agent-file-transfer", False)
        path = self.rig.path("refused")
        make_file(path, 1000)
        status, said, wrong = run(self.uri, "copy", path)
        assert status == 1 and said == "", said
        assert wrong.startswith(path + ": "), wrong

    def test_not_a_file(self):
        status, _, wrong = run(self.uri, "copy", self.rig.path("not there"))
        assert status == 2 and "no file that can be read" in wrong, wrong


def test_nobody_listens(rig):
    status, _, wrong = run("spice+unix://" + rig.path("nobody"), "copy",
                           __file__)
    assert status == 1 and wrong == \
        "client: nobody listens there, or not for us\n", wrong


def test_password_and_tls(rig):
    """A wrong password and a certificate of another authority are told from
    each other; with the right ones it goes on to look for the agent."""
    own = Certificates(rig.path("own"))
    other = Certificates(rig.path("other"))
    for name in "right", "wrong":
        with open(rig.path(name), "w", encoding="utf-8") as file:
            file.write(name)
    qemu = rig.qemu(
        *own.creds_args(), "-object", "secret,id=sec0,file=" +
        rig.path("right"), "-object", "spiceflow-server,id=sf0,type=inet,"
        "host=127.0.0.1,port=0,tls-creds=tls0,password-secret=sec0",
        machine="none")
    uri = "spice://localhost?tls-port=" + \
        qemu.get("/objects/sf0", "addr")["port"]
    assert run("--password-file=" + rig.path("wrong"), "--ca-file=" + own.authority,
               uri, "copy", __file__) == (
        1, "", "client: the password is wrong, or one is needed\n")
    status, _, wrong = run("--password-file=" + rig.path("right"),
                           "--ca-file=" + other.authority, uri, "copy", __file__)
    assert status == 1 and wrong.startswith("client: TLS failed"), wrong
    with subprocess.Popen(
            [PROGRAM, "--password-file=" + rig.path("right"), "--ca-file=" +
             own.authority, uri, "copy", __file__], stderr=subprocess.PIPE) as child:
        try:
            wait_until(lambda: qemu.stats()["clients"],
                       20, "a client")
        finally:
            child.send_signal(signal.SIGINT)
        assert child.wait(seconds(10)) == 130


class TestCard(CardRig):
    def setup(self, rig):
        self.start_rig(rig)

    def test_card(self):
        """The guest has the card until the program is interrupted."""
        database = Database(self.rig)
        with subprocess.Popen(
                [PROGRAM, "spice+unix://" + self.rig.socket, "card",
                 "--db=" + database.path, "--certs=id,sign,encrypt"],
                stdout=subprocess.PIPE, text=True) as child:
            try:
                said = child.stdout.readline()
                assert said.startswith("the card is in the reader"), said
                self.wait_readers(True)
                assert self.certificate("0001") == database.certificate("id")
            finally:
                child.send_signal(signal.SIGINT)
            assert child.wait(seconds(20)) == 0
        self.wait_readers(False)
