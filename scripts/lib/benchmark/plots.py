# SPDX-License-Identifier: GPL-2.0-or-later
"""The table as a picture: how many times better than each peer, by gnuplot.

Each row of the table is a line of the picture, each peer a mark on it with
the spread of its rounds; to the right of 1 is better, whether the row counts
MB/s or microseconds.  A hollow mark shows what is to be reached.
"""

import shutil
import subprocess

from .backends import BACKENDS, SUBJECT
from .figures import ITSELF
from .processes import BenchError

GNUPLOT = 'gnuplot'
TERMINALS = {'.png': 'pngcairo size {w},{h} font "sans,10"',
             '.svg': 'svg size {w},{h} font "sans,12" background "white"'}
COLOURS = {'socket': '#0072b2', 'spicevmc': '#d55e00'}


def require_gnuplot():
    if not shutil.which(GNUPLOT):
        raise BenchError('--plot needs gnuplot (Debian package gnuplot-nox)')


def points(rows, peer):
    """(line of the picture, better, least, most, to be reached or none)"""
    for y, row in enumerate(rows):
        for ratio in row.verdicts:
            if ratio['of'] != peer:
                continue
            found = [ratio[k] for k in ('median', 'least', 'most', 'limit')]
            if not row.figure.more_is_better:
                found = [v and 1 / v for v in found]
                found[1], found[2] = found[2], found[1]
            yield (y, *found)


def quoted(text):
    return '"' + text.replace('\\', '').replace('"', "'") + '"'


def script(rows, title, terminal, path):
    peers = [p for p in BACKENDS if p != SUBJECT and
             any(True for _ in points(rows, p))]
    tics = ', '.join(f'{quoted(f"{r.line}: {r.name}, {r.figure.unit}")} {y}'
                     for y, r in enumerate(rows))
    height = 120 + 24 * len(rows)
    lines = [
        'set terminal ' + terminal.format(w=1000, h=height),
        f'set output {quoted(str(path))}',
        f'set title {quoted(title)} noenhanced',
        f'set xlabel "{SUBJECT}: times better (log scale)"',
        'set logscale x 2', 'set grid x', 'set key outside bottom center '
        'horizontal',
        f'set yrange [{len(rows) - 0.5}:-0.5]',
        f'set ytics ({tics}) noenhanced',
        'set arrow from 1, graph 0 to 1, graph 1 nohead lw 2 lc "black"',
    ]
    plots, data = [], []
    for n, peer in enumerate(peers):
        shift = (n - (len(peers) - 1) / 2) * 0.3
        colour = COLOURS.get(peer, '#009e73')
        found = list(points(rows, peer))
        plots.append(f"'-' using 2:1:3:4 with xerrorbars pt 7 ps 1 lc rgb "
                     f"'{colour}' title 'than {peer}'")
        data += [f'{y + shift} {mid} {low} {high}'
                 for y, mid, low, high, _ in found] + ['e']
        wanted = [(y, limit) for y, _, _, _, limit in found if limit]
        if wanted:
            plots.append(f"'-' using 2:1 with points pt 6 ps 1.6 lc rgb "
                         f"'{colour}' title 'to be reached'")
            data += [f'{y + shift} {limit}' for y, limit in wanted] + ['e']
    return '\n'.join([*lines, 'plot ' + ', \\\n  '.join(plots), *data, ''])


def draw(rows, title, prefix):
    """Write PREFIX.png and PREFIX.svg; returns their names."""
    rows = [r for r in sorted(rows, key=lambda r: r.line)
            if any(v['of'] != ITSELF for v in r.verdicts)]
    if not rows:
        raise BenchError('--plot: no line was measured with a peer to compare '
                         'with')
    paths = []
    for suffix, terminal in TERMINALS.items():
        path = f'{prefix}{suffix}'
        run = subprocess.run([GNUPLOT], text=True, check=False,
                             input=script(rows, title, terminal, path),
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode:
            raise BenchError(f'gnuplot failed: {run.stdout.strip()}')
        paths.append(path)
    return paths
