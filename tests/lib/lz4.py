# SPDX-License-Identifier: GPL-2.0-or-later
"""LZ4 blocks: enough of the format to make good and bad ones, and to read."""


def _length(value):
    """What follows a token's four bits of 15."""
    out = bytearray()
    while value >= 255:
        out.append(255)
        value -= 255
    out.append(value)
    return bytes(out)


def literals(data):
    """A block that holds DATA as it is."""
    if len(data) < 15:
        return bytes([len(data) << 4]) + data
    return b"\xf0" + _length(len(data) - 15) + data


def zeros(count):
    """A small block that unpacks to COUNT bytes of zero, at least 32."""
    match = count - 1 - 12          # a block ends with literals
    return (b"\x1f\0" + b"\1\0" + _length(match - 4 - 15) +
            literals(bytes(12)))


def unpack(block):
    """The bytes that a block stands for."""
    out, at = bytearray(), 0

    def more(value):
        nonlocal at
        if value == 15:
            while True:
                value += block[at]
                at += 1
                if block[at - 1] != 255:
                    break
        return value

    while True:
        token = block[at]
        at += 1
        count = more(token >> 4)
        out += block[at:at + count]
        at += count
        if at >= len(block):
            return bytes(out)
        offset = block[at] | block[at + 1] << 8
        at += 2
        count = more(token & 15) + 4
        while count > 0:
            part = out[-offset:][:count] if offset > 0 else b""
            if not part:
                raise ValueError("LZ4 offset %d" % offset)
            out += part
            count -= len(part)
