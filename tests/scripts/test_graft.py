#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/graft.

Usage: tests/scripts/test_graft.py [-v] [TEST]...

How it works.  Two kinds of tree are grafted, both in a temporary folder:

* A made-up one.  Its files hold no more than the anchors, between lines of no
  meaning, so every byte that QEMU would own is known, and each anchor can be
  taken away or doubled in turn.

* A copy of the files that the graft touches, taken from every QEMU source
  that scripts/setup keeps.  At least the default one must be there.  The
  checksums that setup wrote down before it grafted tell whether taking the
  overlay out gives QEMU's own files.
"""

import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / 'tests'))

from lib import counted             # noqa: E402
from lib.paths import cache_dir     # noqa: E402


def load_graft():
    """scripts/graft as a module, for its table of insertions."""
    loader = importlib.machinery.SourceFileLoader(
        'graft', str(ROOT / 'scripts/graft'))
    spec = importlib.util.spec_from_loader('graft', loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


graft = load_graft()
TOUCHED = list(dict.fromkeys(i.path for i in graft.INSERTIONS))
FOLDERS = list({**graft.OWNED, **graft.TEST_OWNED})
ANCHORED = [i for i in graft.INSERTIONS if i.anchor is not None]


def anchor_line(insertion):
    """A line that the anchor matches."""
    if insertion.regex:
        return insertion.anchor.replace('.*', 'something else')
    return insertion.anchor


def made_up(path):
    """Content of a file that has what the graft looks for, and no more."""
    lines = ['first line']
    for ins in graft.INSERTIONS:
        if ins.path == path and ins.anchor is not None:
            line = anchor_line(ins)
            if line not in lines:
                lines += ['before', line, 'after']
    return '\n'.join(lines + ['last line', ''])


def snapshot(root):
    """Every file below @root: mode and bytes."""
    return {p.relative_to(root).as_posix():
            (stat.S_IMODE(p.stat().st_mode), p.read_bytes())
            for p in sorted(root.rglob('*')) if p.is_file()}


def times(root):
    return {p: p.stat().st_mtime_ns for p in root.rglob('*')}


def sources():
    """Folders of the QEMU sources that scripts/setup keeps."""
    return sorted(p.parent.parent for p in cache_dir().glob('qemu-*/src/VERSION'))


class GraftCase(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix='spiceflow-graft-'))
        self.addCleanup(shutil.rmtree, self.root)

    def graft(self, *args, status=0):
        """Run scripts/graft on the tree; what it said."""
        done = subprocess.run(
            [sys.executable, str(ROOT / 'scripts/graft'), *args,
             str(self.root)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False)
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout

    def assert_only_inserted(self, before, after):
        """@after is @before with lines added between its own."""
        rest = iter(after.splitlines(keepends=True))
        for line in before.splitlines(keepends=True):
            self.assertIn(line, rest)


class MadeUpTree(GraftCase):
    """A tree of which every byte is known."""

    def setUp(self):
        super().setUp()
        for path in TOUCHED:
            self.write(path, made_up(path))
        self.write('VERSION', '10.0.99\n')
        self.write('chardev/other/file.c', 'not touched\n')

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode('utf-8'))

    def read(self, path):
        return (self.root / path).read_bytes().decode('utf-8')

    def refused(self, *wanted):
        """A graft fails, says all of @wanted, and leaves the tree alone."""
        before = snapshot(self.root)
        said = self.graft('--tests', status=1)
        for text in wanted:
            self.assertIn(text, said)
        self.assertNotIn('Traceback', said)
        self.assertEqual(snapshot(self.root), before)

    # -- what it does

    def test_undo_gives_every_byte_and_mode_back(self):
        (self.root / 'qapi/qom.json').chmod(0o600)
        (self.root / 'chardev/char.c').chmod(0o755)
        before = snapshot(self.root)
        self.graft('--tests')
        self.assertNotEqual(snapshot(self.root), before)
        self.graft('--undo')
        self.assertEqual(snapshot(self.root), before)
        for folder in FOLDERS:
            self.assertFalse((self.root / folder).exists(), folder)

    def test_undo_of_nothing(self):
        before = snapshot(self.root)
        self.assertIn('nothing to do', self.graft('--undo'))
        self.assertEqual(snapshot(self.root), before)

    def test_qemus_lines_stay_in_order(self):
        self.graft('--tests')
        for path in TOUCHED:
            with self.subTest(path):
                self.assert_only_inserted(made_up(path), self.read(path))

    def test_insertions_stand_before_their_anchors(self):
        self.graft('--tests')
        for ins in ANCHORED:
            with self.subTest(ins.path, anchor=ins.anchor):
                text = self.read(ins.path)
                self.assertEqual(text.count(ins.render()), 1)
                after = text.split(ins.render())[1]
                # only other insertions of ours between it and the anchor
                after = graft.DOCUMENTED.sub('', graft.MARKED.sub('', after))
                self.assertTrue(after.startswith(anchor_line(ins) + '\n'))

    def test_folders_equal_the_overlay(self):
        self.graft('--tests')
        copied = 0
        for target, source in {**graft.OWNED, **graft.TEST_OWNED}.items():
            for file in (self.root / target).rglob('*'):
                name = file.relative_to(self.root / target)
                if file.is_file() and (ROOT / source / name).is_file():
                    self.assertEqual((ROOT / source / name).read_bytes(),
                                     file.read_bytes(), name)
                    copied += 1
        ours = [p for folder in ('chardev', 'include', 'tests/qemu',
                                 'tests/unit')
                for p in (ROOT / folder).rglob('*')
                if p.is_file() and not graft.UNWANTED.search(
                    p.relative_to(ROOT).as_posix())]
        self.assertEqual(copied, len(ours))

    def test_again_changes_nothing(self):
        self.graft('--tests')
        before = times(self.root)
        self.assertIn('nothing to do', self.graft('--tests'))
        self.assertEqual(times(self.root), before)

    def test_check(self):
        self.assertIn('chardev/char.c',
                      self.graft('--check', '--tests', status=1))
        self.graft('--tests')
        self.assertIn('has this overlay', self.graft('--check', '--tests'))
        self.write('chardev/spiceflow/chardev.c', 'changed\n')
        before = snapshot(self.root)
        said = self.graft('--check', '--tests', status=1)
        self.assertIn('chardev/spiceflow/chardev.c', said)
        self.assertNotIn('chardev/char.c', said)
        self.assertEqual(snapshot(self.root), before)

    def test_an_older_overlay_is_replaced(self):
        self.graft('--tests')
        want = snapshot(self.root)
        self.write('chardev/spiceflow/gone.c', 'of an older overlay\n')
        self.write('chardev/spiceflow/old/gone.c', 'of an older overlay\n')
        self.write('chardev/spiceflow/chardev.c', 'of an older overlay\n')
        text = self.read('chardev/meson.build')
        self.write('chardev/meson.build',
                   text.replace("subdir('spiceflow')",
                                "subdir('an-older-name')"))
        self.graft('--tests')
        self.assertEqual(snapshot(self.root), want)
        self.assertFalse((self.root / 'chardev/spiceflow/old').exists())

    def test_tests_only_when_wanted(self):
        self.graft()
        for folder in graft.TEST_OWNED:
            self.assertFalse((self.root / folder).exists(), folder)
        plain = snapshot(self.root)
        self.assertNotIn('spiceflow-pump', self.read('chardev/meson.build'))
        self.graft('--tests')
        self.assertIn('spiceflow-pump', self.read('chardev/meson.build'))
        self.assertIn('spiceflow', self.read('tests/meson.build'))
        self.graft()
        self.assertEqual(snapshot(self.root), plain)

    def test_changes_of_qemu_survive(self):
        """A line that the user adds stays, grafting again or undoing."""
        self.graft('--tests')
        for path in TOUCHED:
            self.write(path, 'of the user\n' + self.read(path))
        self.graft('--tests')
        self.graft('--undo')
        for path in TOUCHED:
            self.assertEqual(self.read(path), 'of the user\n' + made_up(path))

    def test_other_line_ends_stay(self):
        text = made_up('qapi/qom.json') + 'with a carriage return\r\n'
        self.write('qapi/qom.json', text)
        self.graft()
        self.graft('--undo')
        self.assertEqual(self.read('qapi/qom.json'), text)

    # -- what it refuses

    def test_anchor_missing(self):
        for ins in ANCHORED:
            with self.subTest(ins.path, anchor=ins.anchor):
                line = anchor_line(ins)
                self.write(ins.path, made_up(ins.path).replace(
                    '\n' + line + '\n', '\nsomething else\n'))
                self.refused(ins.path + ': anchor not found: ' +
                             ins.anchor.strip())
                self.write(ins.path, made_up(ins.path))

    def test_anchor_twice(self):
        for ins in ANCHORED:
            with self.subTest(ins.path, anchor=ins.anchor):
                self.write(ins.path, made_up(ins.path) + anchor_line(ins) +
                           '\n')
                self.refused(ins.path + ': anchor found 2 times: ' +
                             ins.anchor.strip())
                self.write(ins.path, made_up(ins.path))

    def test_anchor_twice_in_a_grafted_tree(self):
        """What was inserted before is no reason to take an anchor twice."""
        self.graft('--tests')
        ins = ANCHORED[0]
        self.write(ins.path, self.read(ins.path) + anchor_line(ins) + '\n')
        self.refused(ins.path + ': anchor found 2 times')

    def test_every_fault_is_named(self):
        self.write('qapi/char.json', 'nothing\n')
        self.write('qapi/qom.json', 'nothing\n')
        self.refused('qapi/char.json: anchor', 'qapi/qom.json: anchor')

    def test_file_missing(self):
        for path in TOUCHED:
            if path == 'chardev/char.c':
                continue        # then it is no QEMU tree at all
            with self.subTest(path):
                (self.root / path).unlink()
                self.refused(path + ': no such file')
                self.write(path, made_up(path))

    def test_marker_damaged(self):
        self.graft('--tests')
        for path in TOUCHED:
            grafted = self.read(path)
            for lost in (graft.BEGIN, graft.END):
                with self.subTest(path, lost=lost):
                    lines = grafted.splitlines(keepends=True)
                    where = next(i for i, line in enumerate(lines)
                                 if lost in line)
                    self.write(path, ''.join(lines[:where] +
                                             lines[where + 1:]))
                    self.refused(path + ': a marker of an earlier graft is '
                                 'damaged')
            self.write(path, grafted)

    def test_no_end_of_line(self):
        path = 'chardev/trace-events'
        self.write(path, made_up(path).rstrip('\n'))
        self.refused(path + ': last line has no end of line')

    def test_too_old(self):
        for version in ('9.2.4', '7.2.13', 'unknown', ''):
            self.write('VERSION', version + '\n')
            self.refused('too old', version)

    def test_new_enough(self):
        for version in ('10.0.0', '10.2.50', '11.0.0'):
            self.write('VERSION', version + '\n')
            self.graft('--tests')
            self.graft('--undo')

    def test_no_qemu_tree(self):
        (self.root / 'VERSION').unlink()
        self.refused('not a QEMU source tree')


class RealTree(GraftCase):
    """The files of QEMU that the graft touches, from the cache."""

    def take(self, home):
        """Copy what there is to see of the source in @home."""
        for path in TOUCHED + ['VERSION']:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(home / 'src' / path, self.root / path)

    def each(self, check):
        """Call @check for every source, with the tree a fresh copy of it."""
        homes = sources()
        self.assertTrue(homes, 'no QEMU source in %s: run scripts/setup first'
                        % cache_dir())
        for home in homes:
            with self.subTest(home.name):
                shutil.rmtree(self.root)
                self.root.mkdir()
                self.take(home)
                self.graft('--undo')
                check(home)

    def test_undo_gives_qemus_own_files(self):
        def check(home):
            listed = home / 'pristine.sha256'
            self.assertTrue(listed.is_file(),
                            '%s is missing: setup writes it when it fetches '
                            'the source; run scripts/setup --update' % listed)
            wanted = dict(reversed(line.split(maxsplit=1)) for line in
                          listed.read_text(encoding='utf-8').splitlines())
            for path in TOUCHED:
                data = (self.root / path).read_bytes()
                self.assertNotIn(b'spiceflow', data)
                self.assertEqual(wanted.get(path),
                                 hashlib.sha256(data).hexdigest(), path)
        self.each(check)

    def test_there_and_back(self):
        def check(_):
            before = snapshot(self.root)
            self.graft('--tests')
            for path in TOUCHED:
                self.assert_only_inserted(
                    before[path][1].decode('utf-8'),
                    (self.root / path).read_bytes().decode('utf-8'))
            grafted = snapshot(self.root)
            self.assertIn('nothing to do', self.graft('--tests'))
            self.graft('--undo')
            self.assertEqual(snapshot(self.root), before)
            self.graft('--tests')
            self.assertEqual(snapshot(self.root), grafted)
        self.each(check)


class CommandLine(unittest.TestCase):
    def run_graft(self, *args):
        return subprocess.run(
            [sys.executable, str(ROOT / 'scripts/graft'), *args],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False)

    def test_no_folder(self):
        done = self.run_graft(os.path.join(tempfile.gettempdir(),
                                           'there-is-no-such-folder'))
        self.assertEqual(done.returncode, 1)
        self.assertIn('not a QEMU source tree', done.stdout)

    def test_undo_or_check(self):
        done = self.run_graft('--undo', '--check', '.')
        self.assertEqual(done.returncode, 2)
        self.assertIn('not allowed with', done.stdout)

    def test_help(self):
        done = self.run_graft('--help')
        self.assertEqual(done.returncode, 0)
        for option in ('--tests', '--undo', '--check'):
            self.assertIn(option, done.stdout)


if __name__ == '__main__':
    counted.main()
