#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what scripts/setup and scripts/qemu say when they cannot go on.

Usage: tests/scripts/test_setup.py [-v] [TEST]...

How it works.  scripts/setup is run in a cache folder of its own, with a folder
in front of PATH that holds what stands for the machine's tools: an apt-get
without a network, a dpkg-query that knows no package, another user's id.  So
nothing is installed, fetched or built here, and no test takes a second.
"""

import fcntl
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / 'tests'))

from lib import counted     # noqa: E402

DEBIAN = ('ID=debian\nVERSION_CODENAME=bookworm\n'
          'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
OTHER = 'ID=fedora\nPRETTY_NAME="Fedora Linux 40"\n'
ALL_THERE = 'for p; do echo "installed $p"; done\n'
NONE_THERE = 'exit 1\n'
MIRROR = ('case "$*" in *indextargets*) '
          'for s in bookworm bookworm-security; do '
          'echo "main http://mirror.invalid/$s $s $s"; done; exit;; esac\n')


class SetupCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix='spiceflow-setup-'))
        self.addCleanup(shutil.rmtree, self.folder)
        self.cache = self.folder / 'cache'
        self.tools = self.folder / 'tools'
        self.tools.mkdir()
        self.system(DEBIAN)
        self.tool('dpkg-query', 'shift 3\n' + ALL_THERE)
        self.tool('apt-get', MIRROR + 'echo "E: no network" >&2; exit 100\n')

    def system(self, text):
        (self.folder / 'os-release').write_text(text, encoding='utf-8')

    def tool(self, name, script):
        """A program that is found before the machine's own."""
        path = self.tools / name
        path.write_text('#!/bin/sh\n' + script, encoding='utf-8')
        path.chmod(0o755)

    def only_tools(self):
        """PATH without the machine's sudo, and with what setup needs."""
        for name in ('awk', 'bash', 'cat', 'cksum', 'comm', 'cut', 'date',
                     'df', 'env', 'flock', 'grep', 'id', 'mkdir', 'nproc',
                     'python3', 'rm', 'sed', 'sort', 'tail', 'tee', 'wc'):
            if not (self.tools / name).exists():
                os.symlink(shutil.which(name), self.tools / name)
        return str(self.tools)

    def environment(self, path=None):
        env = dict(os.environ, SPICEFLOW_CACHE=str(self.cache),
                   OS_RELEASE=str(self.folder / 'os-release'), TERM='xterm',
                   PATH=path or '%s:%s' % (self.tools, os.environ['PATH']))
        env.pop('SPICEFLOW_QEMU', None)
        return env

    def setup(self, *args, status=1, path=None):
        """What scripts/setup says, standard error included."""
        done = subprocess.run(
            [str(ROOT / 'scripts/setup'), *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self.environment(path), check=False, timeout=60)
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout

    def last(self, *args, **kwargs):
        """The last line, which is the message."""
        line = self.setup(*args, **kwargs).splitlines()[-1]
        self.assertTrue(line.startswith('setup: '), line)
        return line


class Arguments(SetupCase):
    def test_help(self):
        said = self.setup('--help', status=0)
        for option in ('--qemu-version', '--qemu-src', '--update',
                       '--no-packages', '--no-build', '--module', '-j'):
            self.assertIn('  ' + option, said)
        self.assertFalse(self.cache.exists())

    def test_wrong_ones(self):
        for args, text in (
                (['--nonsense'], 'unknown option --nonsense'),
                (['more'], 'unknown option more'),
                (['--qemu-version'], '--qemu-version needs a value'),
                (['--qemu-src'], '--qemu-src needs a value'),
                (['-j'], '-j needs a value'),
                (['-j', '0'], '-j 0: not a number of jobs'),
                (['-jx'], '-j x: not a number of jobs'),
                (['--qemu-version', '10.0.13'], 'give a series, such as'),
                (['--qemu-version', 'new'], 'give a series, such as'),
                (['--qemu-src', str(self.folder)],
                 '%s: not a QEMU source tree' % self.folder)):
            with self.subTest(args):
                self.assertIn(text, self.last(*args))
                self.assertFalse(self.cache.exists())

    def test_module_before_anything(self):
        self.assertIn('no source in', self.last('--module'))


class Place(SetupCase):
    def test_cache_not_writable(self):
        self.cache = self.folder / 'os-release' / 'cache'
        self.assertIn('cannot make the folder', self.last())

    def test_space_in_the_name(self):
        self.cache = self.folder / 'a b'
        self.assertIn('a folder\'s name has a space', self.last())

    def test_disk_full(self):
        self.tool('df', 'echo head; echo /dev/x 1000 900 100 90% /\n')
        line = self.last()
        self.assertIn('1024 MiB are needed, 100 MiB are free', line)
        self.assertIn('SPICEFLOW_CACHE', line)

    def test_lock(self):
        """A second run waits for the first, and says so."""
        home = self.cache / 'qemu-10.0'
        home.mkdir(parents=True)
        with open(home / 'lock', 'w', encoding='utf-8') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            child = subprocess.Popen(
                [str(ROOT / 'scripts/setup')], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=self.environment())
            try:
                self.assertIn('another scripts/setup is at work',
                              child.stdout.readline())
                with self.assertRaises(subprocess.TimeoutExpired):
                    child.wait(0.5)
                fcntl.flock(lock, fcntl.LOCK_UN)
                self.assertIn('* packages', child.stdout.read())
                self.assertEqual(child.wait(30), 1)
            finally:
                child.kill()
                child.stdout.close()
                child.wait()


class Packages(SetupCase):
    def setUp(self):
        super().setUp()
        self.tool('dpkg-query', NONE_THERE)
        self.tool('id', 'echo 0\n')

    def test_unknown_distribution(self):
        self.system(OTHER)
        line = self.last()
        self.assertIn('Fedora Linux 40 is not known here', line)
        self.assertIn('scripts/setup --no-packages --qemu-src DIR', line)

    def test_no_os_release(self):
        (self.folder / 'os-release').unlink()
        self.assertIn('this distribution is not known here', self.last())

    def test_no_sudo(self):
        self.tool('id', 'echo 1000\n')
        line = self.last(path=self.only_tools())
        self.assertIn('not root, and no sudo; as root: apt-get install ',
                      line)
        self.assertIn(' libgcrypt20-dev ', line)

    def test_sudo_refused(self):
        self.tool('id', 'echo 1000\n')
        self.tool('sudo', 'echo "sudo: no password" >&2; exit 1\n')
        said = self.setup()
        self.assertIn('packages are to be installed; sudo may ask', said)
        self.assertIn('sudo refused; as root: apt-get install ',
                      said.splitlines()[-1])

    def test_sudo_is_used(self):
        self.tool('id', 'echo 1000\n')
        self.tool('sudo', 'echo "sudo $*" >>"%s"\n' % (self.folder / 'ran'))
        self.setup()
        ran = (self.folder / 'ran').read_text(encoding='utf-8')
        self.assertIn('apt-get', ran)
        self.assertIn('install --no-install-recommends', ran)

    def test_no_network(self):
        said = self.setup()
        self.assertIn('E: no network', said)
        self.assertIn('packages could not be installed; is there a network? '
                      'Log: %s/qemu-10.0/setup.log' % self.cache,
                      said.splitlines()[-1])

    def test_only_what_is_missing(self):
        self.tool('dpkg-query', 'shift 3\nfor p; do [ "$p" = spin ] || '
                  'echo "installed $p"; done\n')
        self.tool('apt-get', 'echo "$*" >>"%s"\nexit 100\n' %
                  (self.folder / 'ran'))
        self.setup()
        ran = (self.folder / 'ran').read_text(encoding='utf-8').splitlines()
        self.assertTrue(ran[-1].endswith('--no-install-recommends spin'),
                        ran[-1])


class Source(SetupCase):
    def test_unknown_distribution(self):
        self.system(OTHER)
        self.assertIn('Fedora Linux 40 is not known here', self.last())

    def test_no_network(self):
        self.assertIn('no lists of trixie trixie-security from '
                      'http://mirror.invalid/bookworm; is there a network? '
                      'Log: ', self.last())

    def test_no_mirror(self):
        self.tool('apt-get', 'exit 0\n')
        self.assertIn('apt on this machine names no mirror for bookworm',
                      self.last())

    def lists(self, *versions):
        """apt's lists arrive, and name these versions of QEMU."""
        self.tool('apt-get', MIRROR + 'echo "$*" >>"%s"\n'
                  'case "$*" in *update*) exit 0;; esac\n'
                  'echo "E: 404 Not Found" >&2; exit 100\n' %
                  (self.folder / 'ran'))
        self.tool('apt-cache', ''.join('echo "Version: %s"\n' % v
                                       for v in versions) or 'exit 0\n')

    def test_series_gone(self):
        self.lists('1:11.0.1+ds-2', '1:10.10.0+ds-1')
        self.assertIn('the archive has no QEMU 10.0 any more; use --qemu-src '
                      'DIR', self.last())

    def test_newest_first_and_what_is_gone_is_passed_over(self):
        self.lists('1:10.0.2+ds-2', '1:10.0.13+ds-0+deb13u1',
                   '1:10.0.8+ds-0+deb13u1', '1:7.2.22')
        self.assertIn('no source of QEMU 10.0 could be fetched',
                      self.last())
        ran = (self.folder / 'ran').read_text(encoding='utf-8')
        self.assertEqual(
            [line.split('qemu=')[1] for line in ran.splitlines()
             if 'qemu=' in line],
            ['1:10.0.13+ds-0+deb13u1', '1:10.0.8+ds-0+deb13u1',
             '1:10.0.2+ds-2'])
        self.assertFalse((self.cache / 'qemu-10.0/src').exists())

    def test_machines_apt_is_only_read(self):
        self.lists('1:10.0.2+ds-2')
        self.setup()
        for line in (self.folder / 'ran').read_text('utf-8').splitlines():
            for option in ('Dir::Etc::SourceList=/dev/null',
                           'Dir::Etc::SourceParts=%s/apt' % self.cache,
                           'Dir::State::Lists=%s/apt' % self.cache,
                           'Dir::Cache=%s/apt' % self.cache):
                self.assertIn(option, line)


class OwnSource(SetupCase):
    def test_no_overlay_taken(self):
        tree = self.folder / 'tree'
        (tree / 'chardev').mkdir(parents=True)
        (tree / 'VERSION').write_text('10.1.0\n', encoding='utf-8')
        (tree / 'chardev/char.c').write_text('\n', encoding='utf-8')
        said = self.setup('--qemu-src', str(tree))
        self.assertIn('graft: chardev/char.c: anchor not found', said)
        self.assertIn('this QEMU source does not take the overlay; log: ',
                      said.splitlines()[-1])
        self.assertFalse((tree / 'chardev/spiceflow').exists())

    def test_too_old(self):
        tree = self.folder / 'tree'
        (tree / 'chardev').mkdir(parents=True)
        (tree / 'VERSION').write_text('9.2.0\n', encoding='utf-8')
        (tree / 'chardev/char.c').write_text('\n', encoding='utf-8')
        self.assertIn('QEMU 9.2.0 is too old, 10.0 or newer is needed',
                      self.setup('--qemu-src', str(tree)))


class Emulator(SetupCase):
    def qemu(self, *args, **env):
        done = subprocess.run(
            [str(ROOT / 'scripts/qemu'), *args], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            env=dict(self.environment(), **env))
        return done.returncode, done.stdout.strip()

    def test_nothing_built(self):
        status, said = self.qemu('--path')
        self.assertEqual(status, 1)
        self.assertEqual(said, 'qemu: no emulator in %s/qemu-10.0 yet; run '
                         'scripts/setup first' % self.cache)

    def test_another_series(self):
        status, said = self.qemu(SPICEFLOW_QEMU='10.2')
        self.assertEqual(status, 1)
        self.assertIn('run scripts/setup --qemu-version 10.2 first', said)

    def test_arguments_and_modules(self):
        build = self.cache / 'qemu-10.0/build'
        build.mkdir(parents=True)
        binary = build / 'qemu-system-x86_64'
        binary.write_text('#!/bin/sh\necho "$QEMU_MODULE_DIR"\n'
                          'for a; do echo "[$a]"; done\n', encoding='utf-8')
        binary.chmod(0o755)
        self.assertEqual(self.qemu('--path'), (0, str(binary)))
        status, said = self.qemu('-name', 'a b', '-S')
        self.assertEqual(status, 0)
        self.assertEqual(said.splitlines()[0], str(build))
        self.assertEqual(said.splitlines()[-3:], ['[-name]', '[a b]', '[-S]'])


class Terminal(SetupCase):
    """On a terminal a step is one line that changes in place."""

    def on_terminal(self, script):
        master, slave = pty.openpty()
        said = []

        def read():
            try:
                while True:
                    said.append(os.read(master, 65536))
            except OSError:
                pass            # the last writer has gone

        reader = threading.Thread(target=read)
        reader.start()
        subprocess.run(['bash', '-c', script], stdin=slave, stdout=slave,
                       stderr=slave, env=self.environment(), check=True,
                       timeout=60)
        os.close(slave)
        reader.join(10)
        os.close(master)
        return b''.join(said).decode('utf-8')

    def script(self, command):
        return ('set -euo pipefail\n. "%s/scripts/lib/common.sh"\n'
                'LOG="%s/log"\n%s\n' % (ROOT, self.folder, command))

    def test_progress_in_place(self):
        said = self.on_terminal(self.script(
            'work() { echo "[1/4] one"; echo "[2/4] two"; echo "[4/4] four"; }'
            '\nrun build work'))
        self.assertEqual(said.count('\n'), 1, repr(said))
        for text in ('25% one', '50% two', '100% four'):
            self.assertIn('\r\x1b[K  build                  ' + text, said)
        self.assertRegex(said.splitlines()[-1].split('\x1b[K')[-1],
                         r'\*.*build .*0 s')

    def test_lines_when_it_is_none(self):
        done = subprocess.run(
            ['bash', '-c', self.script(
                'work() { for i in $(seq 100); do echo "[$i/100] x"; done; }\n'
                'run build work')], stdout=subprocess.PIPE, text=True,
            env=self.environment(), check=True)
        self.assertNotIn('\x1b', done.stdout)
        self.assertEqual(len(done.stdout.splitlines()), 12)

    def test_failure_shows_what_matters(self):
        done = subprocess.run(
            ['bash', '-c', self.script(
                'work() { echo "[1/2] x"; echo "a.c:1: error: oh"; '
                'echo noise; return 3; }\n'
                'run build work || echo "status $?"')],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment(), check=True)
        self.assertIn('status 3', done.stdout)
        self.assertEqual(done.stderr, '  a.c:1: error: oh\n')


if __name__ == '__main__':
    counted.main()
