# SPDX-License-Identifier: GPL-2.0-or-later
"""What is compiled: found or built."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from .processes import BenchError

ROOT = Path(__file__).resolve().parents[3]


def run_meson(argv):
    """Returns what it said when it failed, else nothing."""
    run = subprocess.run(argv, stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.STDOUT, check=False)
    return run.stdout if run.returncode else None


def build_programs():
    """Build the peer and the bench of the core; returns their folder."""
    cache = Path(os.environ.get('SPICEFLOW_CACHE') or
                 Path(os.environ.get('XDG_CACHE_HOME') or
                      Path.home() / '.cache') / 'spiceflow')
    checkout = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
    build = cache / f'bench-{checkout}'
    setup = ['meson', 'setup', str(build), str(ROOT)]
    make = ['meson', 'compile', '-C', str(build), 'bench-peer', 'bench-flow',
            'bench-relay', 'bench-usb']
    try:
        # An older folder may be of another meson, or broken off
        if not (build / 'build.ninja').exists() or run_meson(make):
            shutil.rmtree(build, ignore_errors=True)
            complaint = run_meson(setup) or run_meson(make)
            if complaint:
                raise BenchError(
                    'the programs of tests/bench do not build (GLib, GnuTLS, '
                    'libgcrypt, libusbredirparser and spice-protocol are needed; '
                    f'scripts/setup brings them):\n{complaint}')
    except FileNotFoundError:
        raise BenchError('meson was not found; run scripts/setup first') \
            from None
    return build / 'tests' / 'bench'


def find_qemu():
    run = subprocess.run([str(ROOT / 'scripts' / 'qemu'), '--path'],
                         stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise BenchError('there is no emulator to measure')
    return run.stdout.strip()


def run_core(programs):
    """Line 12; returns its output and how many promises it judged, missed."""
    run = subprocess.run([programs / 'bench-flow'], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode not in (0, 1):
        raise BenchError(f'bench-flow failed: {run.stderr.strip()}')
    words = run.stdout.replace('NOT MET', 'missed').split()
    missed = words.count('missed')
    return run.stdout, missed + words.count('met'), missed


def git_version():
    run = subprocess.run(['git', '-C', ROOT, 'describe', '--always',
                          '--dirty'], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, text=True, check=False)
    return run.stdout.strip() or 'unknown'
