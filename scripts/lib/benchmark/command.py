# SPDX-License-Identifier: GPL-2.0-or-later
"""Options, rounds, the whole."""

import argparse
import contextlib
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import (agents, cards, crowds, guests, links, memory, plots, programs,
               transfers, usb)
from .backends import BACKENDS, SUBJECT
from .figures import Row, print_table
from .processes import BenchError

GIB = 1 << 30
CORE = 12
LINES = {
    1: 'guest to client, MB/s',
    2: 'client to guest, MB/s',
    3: 'round trip, guest to client and back',
    4: "QEMU's CPU seconds per GiB, in the runs of lines 1 and 2",
    5: 'lines 1 to 4 over TLS, with the same credentials (over TCP)',
    6: "a file copied to the guest's agent by spice-gtk, over TCP",
    7: 'USB redirection',
    8: "one stream of the guest's agent to many clients",
    9: 'many busy devices on one server',
    10: "QEMU's memory",
    11: 'from connecting to the list of channels',
    CORE: 'the flow-control machine by itself (tests/bench/bench-flow.c)',
}
JOBS = (transfers.JOBS + cards.JOBS + agents.JOBS + usb.JOBS + crowds.JOBS +
        memory.JOBS + links.JOBS)


class Setup:
    """What every measurement is given: programs, amounts, places."""

    def __init__(self, args, folder):
        self.qemu = args.qemu
        self.peer = None
        self.relay = None
        self.usb = None
        self.tcp = args.tcp
        self.pin = args.pin
        self.cpus = args.cpus
        self.total = args.total
        self.count = args.count
        self.stall = args.stall
        self.links = max(20, args.count // 100)
        self.folder = folder

    def place(self, apart=False):
        """The CPUs of QEMU and of its peers: one for both, or one each; None
        for any.  --pin may say something else."""
        if self.pin == 'auto':
            mine = os.sched_getaffinity(0)
            return max(mine), min(mine) if apart else max(mine)
        return self.cpus or (None, None)

    @functools.cached_property
    def certificates(self):
        sys.path.insert(0, str(programs.ROOT / 'tests'))
        from lib.certs import Certificates      # needs certtool: late
        from lib.paths import RigError
        try:
            return Certificates(os.path.join(self.folder, 'tls'))
        except RigError as error:
            raise BenchError(str(error)) from None


def progress(text):
    if sys.stderr.isatty():
        print(f'\r\x1b[K{text}', end='', file=sys.stderr, flush=True)


def machine():
    model = 'unknown CPU'
    with contextlib.suppress(OSError):
        for text in Path('/proc/cpuinfo').read_text().splitlines():
            if text.startswith('model name'):
                model = text.split(':', 1)[1].strip()
                break
    return {'cpu': model, 'cpus': os.cpu_count(),
            'kernel': platform.release(), 'load': os.getloadavg()[0]}


def labelled(backends):
    """A backend that is named twice is measured twice, under two names."""
    out = {}
    for name in backends:
        if name not in BACKENDS:
            raise BenchError(f'--backends: {name} is none of '
                             + ', '.join(BACKENDS))
        n = list(out.values()).count(name)
        out[f'{name}#{n + 1}' if n else name] = name
    return out


def parse_args():
    parser = argparse.ArgumentParser(
        prog='scripts/bench',
        description='Measure -chardev spiceflow beside -chardev socket and '
                    'spicevmc, in one run and in turn.')
    add = parser.add_argument
    add('--line', type=int, action='append', metavar='N',
        help='only this line of the table (may be repeated)')
    add('--list', action='store_true', help='show the lines and leave')
    add('--rounds', type=int, help='how often (default 7, --quick: 3)')
    add('--total', type=float, metavar='GIB',
        help='GiB per transfer (default 4, --quick: 0.5)')
    add('--count', type=int, metavar='N',
        help='round trips per run (default 50000, --quick: 5000)')
    add('--stall', type=float, metavar='S',
        help='seconds that a client stalls in line 10 (default 60, '
             '--quick: 5)')
    add('--quick', action='store_true', help='a first look in seconds')
    add('--guest', action='store_true',
        help='lines 1 to 3 also with a Linux guest and its virtio port')
    add('--backends', default='socket,spicevmc,spiceflow', metavar='LIST',
        help='which, in this order (default %(default)s); one that is named '
             'twice shows how far equals differ on this machine; "bare" is '
             'two programs and a socket, the most that the kernel allows')
    add('--tcp', action='store_true',
        help='over TCP on the loopback interface, not a UNIX socket')
    add('--pin', metavar='QEMU,PEER', default='auto',
        help='keep QEMU and the peer on these two CPUs; "none": let the '
             'kernel choose; default: one CPU for both in round trips')
    add('--targets', choices=('first', 'final'), default='first',
        help='which set of targets to judge by (default %(default)s)')
    add('--qemu', help='the emulator (default: that of scripts/qemu)')
    add('--json', metavar='FILE', help='write every single figure there')
    add('--plot', metavar='PREFIX',
        help='draw the ratios into PREFIX.png and PREFIX.svg (gnuplot)')
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 7)
    args.total = int((args.total or (0.5 if args.quick else 4)) * GIB)
    args.count = args.count or (5000 if args.quick else 50000)
    args.stall = args.stall or (5 if args.quick else 60)
    for name in ('rounds', 'total', 'count', 'stall'):
        if getattr(args, name) <= 0:
            parser.error(f'--{name} must be above 0')
    if args.guest and args.qemu:
        parser.error('--guest takes the emulator of scripts/qemu')
    for line in args.line or []:
        if line not in LINES:
            parser.error(f'--line: there is no line {line}; see --list')
    args.cpus = None
    if args.pin not in ('auto', 'none'):
        try:
            args.cpus = tuple(map(int, args.pin.split(',')))
            if len(args.cpus) != 2:
                raise ValueError
        except ValueError:
            parser.error('--pin expects two CPU numbers, as in 0,1')
        if not set(args.cpus) <= os.sched_getaffinity(0):
            parser.error(f'--pin: no such CPUs: {args.pin}')
    return args


def able(job, backends):
    return {label: name for label, name in backends.items()
            if name in job.backends}


def check_content(setup, jobs, backends):
    """Every backend, every way, with content that is compared."""
    for job in jobs:
        for backend in dict.fromkeys(able(job, backends).values()):
            progress(f'checking {backend}: {job.name}')
            job.check(setup, backend)


def run_rounds(setup, rounds, jobs, backends):
    """Returns {job: [{label: result}, ...]}."""
    samples = {}
    for at, job in enumerate(jobs, 1):
        samples[job] = []
        n = min(rounds, job.rounds or rounds)
        for number in range(1, n + 1):
            this = {}
            for label, backend in able(job, backends).items():
                progress(f'[{at}/{len(jobs)}] {job.name}: round {number} of '
                         f'{n}, {label}')
                this[label] = job.measure(setup, backend)
            samples[job].append(this)
        job.finish()
    return samples


def compare(args, setup, jobs, backends, lines, report):
    """Measure @jobs, print the table; returns its rows."""
    version = subprocess.run([setup.qemu, '--version'], text=True, check=True,
                             stdout=subprocess.PIPE).stdout.split('\n')[0]
    begin = time.monotonic()
    check_content(setup, jobs, backends)
    samples = run_rounds(setup, args.rounds, jobs, backends)
    progress('')

    labels = list(backends)
    rows = [Row(job, figure, samples[job], labels, args.targets)
            for job in jobs for figure in job.figures
            if figure.line in lines]
    host = report['machine']
    over = 'TCP on loopback' if args.tcp else 'a UNIX socket'
    print(f'{version}; {host["cpus"]} x {host["cpu"]}; over {over}; '
          f'{args.rounds} rounds of {args.total / GIB:g} GiB or '
          f'{args.count} round trips, {time.monotonic() - begin:.0f} s')
    print_table(rows, labels, LINES)
    others = [r['others'] for rounds in samples.values() for this in rounds
              for r in this.values() if 'others' in r]
    others = statistics.median(others) if others else None
    if others and others > 0.15:
        print(f'note: other programs took {others:.1f} CPUs meanwhile; '
              'absolute figures are too low, ratios are spread')
    report.update({
        'qemu': version, 'over': 'tcp' if args.tcp else 'unix',
        'rounds': args.rounds, 'total': args.total, 'count': args.count,
        'stall': args.stall, 'pin': args.pin, 'others': others,
        'rows': [{'line': row.line, 'name': row.name, 'unit': row.figure.unit,
                  'values': row.values, 'subject': row.subject,
                  'ratios': row.verdicts} for row in rows],
        'samples': [{'name': job.name, 'rounds': rounds}
                    for job, rounds in samples.items()],
    })
    return rows


def run(args, folder):
    lines = set(args.line or LINES)
    backends = labelled(args.backends.split(','))
    fleet = guests.Fleet()
    jobs = JOBS + (guests.jobs(fleet) if args.guest else [])
    jobs = [job for job in jobs if able(job, backends) and
            any(f.line in lines for f in job.figures)]
    setup = Setup(args, folder)
    built = programs.build_programs()
    setup.peer = str(built / 'bench-peer')
    setup.relay = str(built / 'bench-relay')
    setup.usb = str(built / 'bench-usb')
    report = {'version': programs.git_version(), 'machine': machine(),
              'targets': args.targets}
    judged = missed = 0
    rows = []

    if jobs:
        setup.qemu = setup.qemu or programs.find_qemu()
        try:
            rows = compare(args, setup, jobs, backends, lines, report)
        finally:
            fleet.close()
            for job in jobs:
                job.finish()
        ratios = [r for row in rows for r in row.verdicts
                  if r['met'] is not None]
        judged += len(ratios)
        missed += sum(not r['met'] for r in ratios)
    if CORE in lines:
        print(f'-- line {CORE}: {LINES[CORE]}')
        text, core_judged, core_missed = programs.run_core(built)
        print(text, end='')
        report['core'] = text.splitlines()
        judged += core_judged
        missed += core_missed

    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + '\n')
    if args.plot:
        title = '; '.join((
            report.get('qemu', '').replace('emulator version ', ''),
            f"{report['machine']['cpus']} x {report['machine']['cpu']}",
            'TCP' if args.tcp else 'UNIX socket',
            f"{report.get('rounds')} rounds", report['version']))
        for path in plots.draw(rows, title, LINES, args.plot):
            print(f'picture: {path}')
    if jobs and SUBJECT not in backends.values():
        print(f'{SUBJECT} was not measured')
    print(f'{judged - missed} of {judged} targets met' if judged else
          'no targets to judge by')
    return 1 if missed else 0


def main():
    try:
        args = parse_args()
        if args.list:
            for number, text in LINES.items():
                print(f'{number:2}  {text}')
            return 0
        if args.plot:
            plots.require_gnuplot()
        with tempfile.TemporaryDirectory(prefix='spiceflow-bench-') as folder:
            return run(args, folder)
    except BenchError as error:
        progress('')
        print(f'bench: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        progress('')
        print('bench: interrupted', file=sys.stderr)
        return 130
