# SPDX-License-Identifier: GPL-2.0-or-later
"""The table as a picture: how many times better than each peer, by gnuplot.

Each row of the table is a line of the picture, under the title of its line of
the table.  Each peer is a mark on it, with the spread of its rounds; to the
right of 1 is better, whether the row counts MB/s or microseconds.  A bar of
the peer's colour is what is to be reached: the mark should be on it or to its
right.  The medians themselves stand beside it.
"""

import math
import shutil
import statistics
import subprocess

from .backends import BACKENDS, SUBJECT
from .figures import ITSELF
from .processes import BenchError

GNUPLOT = 'gnuplot'
# pixels; the same picture, whatever its format
WIDTH, LEFT, RIGHT, ROW, HEAD, FOOT = 1240, 340, 270, 26, 92, 64
TERMINALS = {
    '.png': 'pngcairo size {w},{h} font "DejaVu Sans,10"',
    '.svg': 'svg size {w},{h} font "DejaVu Sans,12" background "white"',
}
COLOURS = {'socket': '#0072b2', 'spicevmc': '#d55e00'}
OTHER = '#009e73'


def require_gnuplot():
    if not shutil.which(GNUPLOT):
        raise BenchError('--plot needs gnuplot (Debian package gnuplot-nox)')


def quoted(text):
    return '"' + str(text).replace('\\', '').replace('"', "'") + '"'


def number(value, digits):
    """With as many digits as the table has, no more than tell something."""
    return f'{value:.{digits if abs(value) < 100 else 0}f}'


def better(row, ratio):
    """median, least, most, limit as "times better"; no limit: None."""
    found = [ratio[k] for k in ('median', 'least', 'most', 'limit')]
    if not row.figure.more_is_better:
        found = [v and 1 / v for v in found]
        found[1], found[2] = found[2], found[1]
    return found


def layout(rows, titles):
    """Lines of the picture from the top: a title, or a row of the table."""
    places, line = [], None
    for row in rows:
        if row.line != line:
            line = row.line
            places.append(f'line {line}: {titles.get(line, "")}'.rstrip(': '))
        places.append(row)
    return places


def bounds(points):
    """Powers of two that hold every mark and most of the spread."""
    centres = [v for p in points for v in (p[1], p[4]) if v]
    spread = [v for p in points for v in (p[2], p[3]) if v]
    low = max(min(centres + spread), min(centres + [1]) / 4)
    high = min(max(centres + spread), max(centres + [1]) * 4)
    return (2.0 ** min(-1, math.floor(math.log2(low * 0.9))),
            2.0 ** max(1, math.ceil(math.log2(high * 1.1))))


def tics(low, high):
    """Marks of the axis, as people say them: 1/4, 1/2, 1, 2, 4."""
    first, last = round(math.log2(low)), round(math.log2(high))
    step = max(1, math.ceil((last - first) / 10))
    powers = [n for n in range(first, last + 1) if n % step == 0]
    return ', '.join(quoted(f'1/{2 ** -n}' if n < 0 else str(2 ** n)) +
                     f' {2.0 ** n}' for n in powers)


def medians(row, peers):
    """What was measured, in the row's unit."""
    said = [number(statistics.median(row.values[label]), row.figure.digits)
            if label in row.values else '-' for label in [row.subject, *peers]]
    return f'{said[0]} {row.figure.unit}  ({" / ".join(said[1:])})'


def script(rows, title, titles, terminal, path):
    peers = [p for p in BACKENDS if p != SUBJECT and any(
        v['of'] == p for row in rows for v in row.verdicts)]
    places = layout(rows, titles)
    points = {p: [] for p in peers}
    for y, row in enumerate(places):
        for ratio in [] if isinstance(row, str) else row.verdicts:
            if ratio['of'] in points:
                points[ratio['of']].append((y, *better(row, ratio)))
    low, high = bounds([p for found in points.values() for p in found])
    height = HEAD + FOOT + ROW * len(places)
    lines = [
        'set terminal ' + terminal.format(w=WIDTH, h=height),
        f'set output {quoted(path)}',
        f'set lmargin screen {LEFT / WIDTH}',
        f'set rmargin screen {1 - RIGHT / WIDTH}',
        f'set tmargin screen {1 - HEAD / height}',
        f'set bmargin screen {FOOT / height}',
        f'set label 1 {quoted(title)} at screen 0.5, '
        f'screen {1 - 22 / height} center noenhanced',
        f'set key at screen 0.5, screen {1 - 46 / height} center '
        'horizontal maxrows 1 samplen 2 width 1',
        f'set xlabel "how many times better {SUBJECT} is" offset 0,-0.2',
        'set logscale x 2',
        f'set xrange [{low}:{high}]',
        f'set xtics ({tics(low, high)}) nomirror out',
        'set grid x lc rgb "#dddddd" lt 1',
        f'set yrange [{len(places) - 0.5}:-0.5]',
        'unset ytics',
        'set border 1 lc rgb "#888888"',
        'set bars 0.6',
        # what is worse, and who is as good
        'set object 1 rectangle from graph 0, graph 0 to 1, graph 1 behind '
        'fc rgb "#fbeeee" fs solid 1 noborder',
        'set arrow 1 from 1, graph 0 to 1, graph 1 nohead back lw 1.5 '
        'lc rgb "#444444"',
    ]
    head = f'{SUBJECT}  ({" / ".join(peers)})'
    lines.append(f'set label 2 {quoted(head)} at graph 1.02, screen '
                 f'{1 - (HEAD - 12) / height} left noenhanced '
                 'tc rgb "#666666"')
    tag = 10
    for y, row in enumerate(places):
        tag += 1
        if isinstance(row, str):
            lines.append(f'set label {tag} {quoted(row)} at screen 0.01, '
                         f'first {y} left noenhanced tc rgb "#000000"')
            lines.append(f'set object {tag} rectangle from screen 0.005, '
                         f'first {y - 0.42} to screen 0.995, '
                         f'first {y + 0.42} behind fc rgb "#eef2f7" '
                         'fs solid 1 noborder')
            continue
        lines.append(f'set label {tag} {quoted(row.name)} at graph -0.01, '
                     f'first {y} right noenhanced tc rgb "#333333"')
        tag += 1
        lines.append(f'set label {tag} {quoted(medians(row, peers))} at '
                     f'graph 1.02, first {y} left noenhanced '
                     'tc rgb "#333333"')
    plots, data = [], []
    for n, peer in enumerate(peers):
        shift = (n - (len(peers) - 1) / 2) * 0.36
        colour = COLOURS.get(peer, OTHER)
        wanted = [(y, limit) for y, _, _, _, limit in points[peer] if limit]
        style = f"lw 4 lc rgb '#66{colour[1:]}'"
        if wanted:
            plots.append("'-' using 1:2:(0):3 with vectors nohead "
                         f'{style} notitle')
            data += [f'{limit} {y + shift - 0.19} 0.38'
                     for y, limit in wanted] + ['e']
        plots.append(f"'-' using 2:1:3:4 with xerrorbars pt 7 ps 0.9 lw 1.3 "
                     f"lc rgb '{colour}' title 'than {peer}'")
        data += [f'{y + shift} {mid} {max(least, low)} {min(most, high)}'
                 for y, mid, least, most, _ in points[peer]] + ['e']
        if wanted:
            plots.append(f"keyentry with lines {style} "
                         "title 'to be reached   '")
    return '\n'.join([*lines, 'plot ' + ', \\\n  '.join(plots), *data, ''])


def draw(rows, title, titles, prefix):
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
                             input=script(rows, title, titles, terminal,
                                          path),
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode or run.stdout.strip():
            raise BenchError(f'gnuplot failed: {run.stdout.strip()}')
        paths.append(path)
    return paths
