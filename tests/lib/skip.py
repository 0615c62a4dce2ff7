# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way for a test not to run."""

import os


class Skip(Exception):
    """Raised with the reason by a test that needs what only KVM gives, that
    the peer cannot do when it is run to prove the rig, or that is known to
    fail."""


def skip_unless_asked(why):
    """A test of what is known to be wrong, here or in QEMU: it says so each
    time, and runs with SPICEFLOW_TEST_KNOWN=1."""
    if not os.environ.get("SPICEFLOW_TEST_KNOWN"):
        raise Skip("known to fail: " + why)
