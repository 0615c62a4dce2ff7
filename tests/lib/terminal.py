# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal for programs that draw: what they write becomes a screen.

It is as much of Linux's console as ncurses makes use of.  A sequence that it
does not know is an error, because the screen would be wrong from there on.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

from .paths import RigError, seconds

SEQUENCE = re.compile(rb"\x1b(?:\[([?0-9;]*)([@-~])|([()][0AB]|[=>78DEM]))")


class Screen:
    """Rows of characters, and how each stands out."""

    def __init__(self, rows, columns):
        self.resize(rows, columns)

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.looks = [[""] * columns for _ in range(rows)]
        self.row = self.column = 0
        self.look = ""
        self.region = (0, rows - 1)
        self.rest = b""

    def text(self):
        """The screen's lines."""
        return ["".join(row).rstrip() for row in self.cells]

    def look_of(self, text):
        """How the first occurrence of a text stands out: SGR numbers."""
        for row, line in enumerate(self.text()):
            if text in line:
                return self.looks[row][line.index(text)]
        raise RigError("%r is not on the screen" % text)

    def put(self, character):
        if self.column >= self.columns:
            self.column = 0
            self.down()
        self.cells[self.row][self.column] = character
        self.looks[self.row][self.column] = self.look
        self.column += 1

    def down(self):
        if self.row == self.region[1]:
            self.lines(self.region[0], -1)
        else:
            self.row = min(self.row + 1, self.rows - 1)

    def lines(self, at, count):
        """Insert lines at a row, or delete them, within the region."""
        for _ in range(abs(count)):
            out, into = (self.region[1], at) if count > 0 \
                else (at, self.region[1])
            for grid, blank in ((self.cells, " "), (self.looks, "")):
                del grid[out]
                grid.insert(into, [blank] * self.columns)

    def blank(self, row, start, end):
        for column in range(start, min(end, self.columns)):
            self.cells[row][column] = " "
            self.looks[row][column] = ""

    def feed(self, data):
        data, self.rest = self.rest + data, b""
        while data:
            if data[0] == 0x1b:
                found = SEQUENCE.match(data)
                if not found:
                    if len(data) > 20:
                        raise RigError("unknown sequence %r" % data[:20])
                    self.rest = data
                    return
                data = data[found.end():]
                if found[2]:
                    self.control(found[1].decode(), found[2].decode())
                elif found[3] == b"M":
                    if self.row == self.region[0]:
                        self.lines(self.row, 1)
                    else:
                        self.row -= 1
                continue
            byte, data = data[0], data[1:]
            if byte == 13:
                self.column = 0
            elif byte == 10:
                self.down()
            elif byte == 8:
                self.column = max(0, self.column - 1)
            elif byte == 9:
                self.column = min(self.columns - 1, (self.column // 8 + 1) * 8)
            elif byte in (7, 14, 15):
                pass
            else:
                self.put(chr(byte))

    def control(self, words, what):
        if words.startswith("?") or what in "lhn":
            return              # modes: cursor, alternate screen
        numbers = [int(n or 0) for n in words.split(";")]
        first = numbers[0]
        n = max(1, first)
        if what == "m":
            self.look = "" if words in ("", "0") else words
        elif what in "Hf":
            self.row = min(n, self.rows) - 1
            self.column = (max(1, numbers[1]) if len(numbers) > 1 else 1) - 1
        elif what == "d":
            self.row = min(n, self.rows) - 1
        elif what in "G`":
            self.column = n - 1
        elif what == "A":
            self.row = max(0, self.row - n)
        elif what == "B":
            self.row = min(self.rows - 1, self.row + n)
        elif what == "C":
            self.column = min(self.columns - 1, self.column + n)
        elif what == "D":
            self.column = max(0, self.column - n)
        elif what == "K":
            self.blank(self.row, self.column if first == 0 else 0,
                       self.columns if first != 1 else self.column + 1)
        elif what == "J":
            if first == 0:
                self.blank(self.row, self.column, self.columns)
            for row in range(self.row + 1 if first == 0 else 0, self.rows):
                self.blank(row, 0, self.columns)
        elif what == "X":
            self.blank(self.row, self.column, self.column + n)
        elif what == "@":
            for grid, blank in ((self.cells, " "), (self.looks, "")):
                grid[self.row][self.column:self.column] = [blank] * n
                del grid[self.row][self.columns:]
        elif what == "P":
            for grid, blank in ((self.cells, " "), (self.looks, "")):
                del grid[self.row][self.column:self.column + n]
                grid[self.row] += [blank] * (self.columns -
                                             len(grid[self.row]))
        elif what == "L":
            self.lines(self.row, n)
        elif what == "M":
            self.lines(self.row, -n)
        elif what == "r":
            self.region = (n - 1, (numbers[1] if len(numbers) > 1 and
                                   numbers[1] else self.rows) - 1)
            self.row = self.column = 0
        else:
            raise RigError("unknown sequence ESC [ %s %s" % (words, what))


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv, rows=24, columns=80, env=None):
        self.screen = Screen(rows, columns)
        self.status = None
        environment = dict(env or os.environ, TERM="linux", LC_ALL="C")
        environment.pop("LINES", None)
        environment.pop("COLUMNS", None)
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # What runs in the background has it ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execvpe(argv[0], argv, environment)
        self.size(rows, columns)

    def size(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows, columns):
        self.screen.resize(rows, columns)
        self.size(rows, columns)
        os.kill(self.pid, signal.SIGWINCH)

    def type(self, keys):
        os.write(self.master, keys.encode())

    def update(self, duration):
        """Take what comes; False when it has ended."""
        if not select.select([self.master], [], [], duration)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:         # the other end is closed
            data = b""
        self.screen.feed(data)
        return bool(data)

    def until(self, condition, what, timeout=10):
        """Until the screen is as wanted; its lines."""
        end = time.monotonic() + seconds(timeout)
        while not condition(self.screen.text()):
            if time.monotonic() > end or not self.update(0.1):
                raise RigError("not seen: %s; the screen:\n%s" % (
                    what, "\n".join(self.screen.text())))
        return self.screen.text()

    def shows(self, text, timeout=10):
        """Until a text is on the screen; the lines with it."""
        return [line for line in self.until(
            lambda lines: any(text in line for line in lines), repr(text),
            timeout) if text in line]

    def wait(self, timeout=10):
        """Its exit status."""
        end = time.monotonic() + seconds(timeout)
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise RigError("it does not end; the screen:\n%s" %
                               "\n".join(self.screen.text()))
            else:
                self.update(0.05)
        return self.status

    def rest(self):
        """The lines of its screen when it has ended."""
        self.wait()
        while self.update(1):
            pass
        return self.screen.text()

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.status = -9
        os.close(self.master)
