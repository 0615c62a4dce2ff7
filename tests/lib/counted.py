# SPDX-License-Identifier: GPL-2.0-or-later
"""unittest for programs that scripts/check runs: the last line counts."""

import sys
import unittest


def main():
    """Run the tests of the program; never returns."""
    sys.stdout.flush()
    result = unittest.main(module="__main__", exit=False).result
    bad = {getattr(test, "test_case", test).id()
           for test, _ in result.failures + result.errors}
    bad |= {test.id() for test in result.unexpectedSuccesses}
    print("%d passed, %d failed" % (result.testsRun - len(bad), len(bad)),
          flush=True)
    sys.exit(1 if bad or not result.testsRun else 0)
