# SPDX-License-Identifier: GPL-2.0-or-later
"""Files to be copied and texts to be pasted, with their SHA-256."""

import base64
import hashlib
import os

KIB = 1 << 10
MIB = 1 << 20


def ramp(size):
    """Bytes of which none is like its neighbours."""
    return bytes(n * 7 & 0xff for n in range(size))


def make_file(path, size):
    """A file of random bytes; its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        while size:
            block = os.urandom(min(size, MIB))
            digest.update(block)
            file.write(block)
            size -= len(block)
    return digest.hexdigest()


def make_text(path, size):
    """The same with printable text, as clipboards carry it."""
    text = base64.b64encode(os.urandom(size))[:size]
    with open(path, "wb") as file:
        file.write(text)
    return hashlib.sha256(text).hexdigest()
