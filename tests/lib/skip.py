# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way for a test not to run."""


class Skip(Exception):
    """Raised with the reason by a test that needs what only KVM gives, or,
    when the peer is run to prove the rig, that the peer cannot do."""
