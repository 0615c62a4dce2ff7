# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are, and how long to wait for them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = ROOT / "tests"


class RigError(Exception):
    """The rig itself could not do its part; the text says what and why."""


def cache_dir():
    """The folder outside the checkout that builds are kept in."""
    cache = os.environ.get("SPICEFLOW_CACHE")
    if not cache:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(
            "~/.cache")
        cache = os.path.join(home, "spiceflow")
    return Path(cache)


def seconds(value):
    """A deadline, stretched for slow machines and sanitizer builds."""
    return value * float(os.environ.get("SPICEFLOW_TIMEOUT_FACTOR", "1"))


def scaled(amount, least=1):
    """A size or a count; SPICEFLOW_TEST_SCALE=0.1 makes the tests shorter on
    slow machines.  Without it, what is written in the tests holds."""
    scale = float(os.environ.get("SPICEFLOW_TEST_SCALE", "1"))
    return max(least, int(amount * scale))


def unless_quick(quick, full):
    """QUICK, or FULL with SPICEFLOW_TEST_LONG=1, as scripts/check --long
    sets it: for sizes that take minutes."""
    return full if os.environ.get("SPICEFLOW_TEST_LONG") else quick


def emulator():
    """Command that starts QEMU; SPICEFLOW_QEMU_BINARY names another binary."""
    other = os.environ.get("SPICEFLOW_QEMU_BINARY")
    return [other] if other else [str(ROOT / "scripts" / "qemu")]


def builder(script, *args):
    """Run a build script of the rig; the words of its last line."""
    done = subprocess.run([str(script), *args], stdout=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode:
        raise RigError("%s failed" % Path(script).relative_to(ROOT))
    sys.stderr.flush()
    return done.stdout.strip().splitlines()[-1].split()


def guest_images(variant="base"):
    """Kernel and initramfs of the test guest, built if they are not there."""
    return builder(TESTS / "guest" / "build", "--variant", variant)


def client_program():
    """The client on libspice-client-glib, built if it is not there."""
    return builder(TESTS / "client" / "build")[0]


def usb_program():
    """The USB device of tests/bench, built if it is not there."""
    return builder(TESTS / "client" / "build")[1]
