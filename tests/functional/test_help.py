# SPDX-License-Identifier: GPL-2.0-or-later
"""What the emulator says of spiceflow when it is asked: lists of backends and
objects, -help, and the text of each property, which is the schema's."""

import re
import sys

from lib.paths import ROOT
from lib.qemu import output_of

sys.path.insert(0, str(ROOT / "scripts/lib"))

import reference                    # noqa: E402


def said(*args):
    """What a question is answered by."""
    status, text = output_of(*args)
    assert status == 0, "%s: status %d: %s" % (" ".join(args), status, text)
    return text


def test_lists(rig):
    """Lists have the module's types before anything has used them."""
    del rig
    assert "\n  spiceflow\n" in said("-chardev", "help")
    assert "\n  spiceflow-server\n" in said("-object", "help")


def test_backends(rig):
    """Management programs find it without trying."""
    backends = rig.qemu(machine="none").command("query-chardev-backends")
    assert {"name": "spiceflow"} in backends, backends


def test_help(rig):
    """-help has one line for it, with all its options."""
    del rig
    lines = [line for line in said("-help").splitlines()
             if "spiceflow" in line]
    assert lines == [reference.synopsis("-chardev")], lines
    options = re.findall(r"[,\[]([\w-]+)=", lines[0])
    struct = reference.definitions()[reference.CHARDEV]
    assert {m.name for m in struct.members} < set(options), options


def test_properties(rig):
    """-object spiceflow-server,help has each property that can be given, the
    first sentence of what the schema says of it, and its default."""
    del rig
    text = said("-object", "spiceflow-server,help")
    found = dict(re.findall(r"^  ([\w-]+)=<\w+> +- (.*)$", text, re.M))
    wanted = {}
    for member in reference.definitions()[reference.SERVER].members:
        assert member.brief
        wanted[member.name] = member.brief + (
            " (default: %s)" % member.default.replace("``", "")
            if member.default else "")
    assert found == wanted, (found, wanted)


def test_other_objects(rig):
    """Help of QEMU's own objects is as it was."""
    del rig
    assert "secret options:\n" in said("-object", "secret,help")
    status, text = output_of("-object", "no-such-object,help")
    assert status == 1 and "no-such-object" in text, text
