#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the picture that scripts/bench draws, of rows made up here.

Usage: tests/scripts/test_plot.py [-v] [TEST]...
"""

import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'scripts/lib')]

from benchmark import figures, plots    # noqa: E402
from lib import counted                 # noqa: E402


def row(line, name, more_is_better, limits, **values):
    """A row of the table, of one round per value."""
    figure = figures.Figure('key', line, 'MB/s' if more_is_better else 'us',
                            1, more_is_better)
    job = SimpleNamespace(name=name, limits=lambda targets, figure: limits)
    rounds = [{label: {'key': v} for label, v in zip(values, found)}
              for found in zip(*values.values())]
    return figures.Row(job, figure, rounds, list(values), 'first')


FAST = row(1, 'a "fast" one', True, {'socket': 0.9},
           socket=[100, 110], spicevmc=[50, 10], spiceflow=[200, 210])
SHORT = row(3, 'a short one', False, {'spicevmc': 0.5},
            spicevmc=[8.0, 10.0], spiceflow=[2.0, 4.0])
ALONE = row(10, 'only itself', False, {figures.ITSELF: 9}, spiceflow=[1, 2])


class Picture(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix='spiceflow-plot-'))
        self.addCleanup(shutil.rmtree, self.folder)

    def test_both_formats(self):
        paths = plots.draw([SHORT, ALONE, FAST], 'the title',
                           {1: 'throughput', 3: 'time'},
                           self.folder / 'out')
        self.assertEqual([Path(p).name for p in paths],
                         ['out.png', 'out.svg'])
        self.assertTrue((self.folder / 'out.png').read_bytes().startswith(
            b'\x89PNG'))
        text = (self.folder / 'out.svg').read_text(encoding='utf-8')
        for word in ('the title', 'line 1: throughput', 'line 3: time',
                     "a 'fast' one", 'a short one', 'than socket',
                     'than spicevmc', 'to be reached',
                     '205 MB/s  (105 / 30.0)', '3.0 us  (- / 9.0)'):
            self.assertTrue(word in text, word)
        self.assertFalse('only itself' in text)

    def test_direction(self):
        """To the right is better, for times as well."""
        self.assertEqual(plots.better(SHORT, SHORT.verdicts[0]),
                         [1 / 0.325, 2.5, 4.0, 2.0])
        mid, least, most, limit = plots.better(FAST, FAST.verdicts[0])
        self.assertTrue(least < mid < most and limit == 0.9)

    def test_bounds_hold_marks_and_limits(self):
        low, high = plots.bounds([(0, 90.0, 1.0, 5000.0, None),
                                  (1, 0.3, 0.2, 0.4, 0.07)])
        self.assertTrue(low <= 0.07 and 90 <= high <= 512)
        self.assertEqual(plots.bounds([(0, 1.0, 1.0, 1.0, None)]), (0.5, 2.0))

    def test_tics(self):
        self.assertEqual(plots.tics(0.25, 4.0), '"1/4" 0.25, "1/2" 0.5, '
                         '"1" 1.0, "2" 2.0, "4" 4.0')

    def test_nothing_to_draw(self):
        with self.assertRaises(plots.BenchError):
            plots.draw([ALONE], '', {}, self.folder / 'out')


if __name__ == '__main__':
    counted.main()
