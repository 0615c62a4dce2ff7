# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest and its client at work, while the VM has no peace.

    machine     the VM: a guest that moves from one QEMU to the next
    load        what guest and client do, and the count of it
    events      what happens to them
    __main__    options, rounds, the table
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
