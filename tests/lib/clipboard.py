# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in the agent's messages of the clipboard, for agents and clients
that use selections (agentguest.CAP_SELECTION)."""

import struct

CLIPBOARD, PRIMARY = 0, 1       # selections
TEXT = 1                        # a type of content: UTF-8


def grab(*types, selection=CLIPBOARD):
    return struct.pack("<I%dI" % len(types), selection, *types)


def ask(kind=TEXT, selection=CLIPBOARD):
    return struct.pack("<II", selection, kind)


def contents(body, kind=TEXT, selection=CLIPBOARD):
    return struct.pack("<II", selection, kind) + body
