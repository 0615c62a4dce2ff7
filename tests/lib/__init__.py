# SPDX-License-Identifier: GPL-2.0-or-later
"""What the functional tests, the demo and the benches share.

    paths.py        where things are: the checkout, the cache, the emulator
    process.py      a child process that cannot outlive us
    qemu.py         a running QEMU with QMP, and which accelerator works here
    guest.py        the Linux guest and commands run in it
    sfclient.py     the client on libspice-client-glib
    spiceclient.py  a scripted client that speaks SPICE itself, also wrongly
    rig.py          all of that put together for one test
"""
