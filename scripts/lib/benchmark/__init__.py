# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts/bench is made of.

processes.py   the emulator and the peer, started and talked to
backends.py    command lines of the backends, and where they listen
figures.py     what comes out: numbers, ratios, limits, the table, the file
plots.py       the same as a picture
transfers.py   lines 1 to 5: throughput, round trips, CPU time, TLS
usb.py         line 7: USB redirection
crowds.py      lines 8 and 9: many clients, many devices
memory.py      line 10
links.py       line 11: from connecting to the list of channels
guests.py      lines 1 to 3 again, with a real guest
programs.py    building what is compiled
command.py     options, rounds, the whole
"""
