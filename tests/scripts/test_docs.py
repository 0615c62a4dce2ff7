#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what makes the documentation: scripts/docs, scripts/docs-check,
scripts/lib/reference.py, and of what QEMU's manual page becomes.

Usage: tests/scripts/test_docs.py [-v] [TEST]...

How it works.  Faults are put into a copy of this checkout's documents, one at
a time, and each must be found and named.  The schema's reader gets a schema
of its own.  The manual page is made by Sphinx with QEMU's own extension, from
the options of every QEMU source that scripts/setup keeps, grafted.
"""

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'scripts/lib')]

import reference                    # noqa: E402
from lib import counted             # noqa: E402
from lib.paths import cache_dir     # noqa: E402


def load(name):
    """One of the scripts as a module."""
    loader = importlib.machinery.SourceFileLoader(
        name.replace('-', '_'), str(ROOT / 'scripts' / name))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


graft = load('graft')
docs_check = load('docs-check')

SCHEMA = '''\
##
# @Thing:
#
# What a thing is.
#
# Two paragraphs of it.
#
# @first: the first one, with ``code``.  And a second sentence.
#
# @other-one: another (default: 3).  It | matters.
#
# @way: which way (default: left)
#
# Since: 9.9
##
{ 'struct': 'Thing',
  'data': { 'first': 'str',
            '*other-one': 'uint32',
            '*way': 'Way' } }

##
# @Way:
#
# @left: to the left
#
# @right: to the right
##
{ 'enum': 'Way', 'data': [ 'left', 'right' ] }

##
# @THING_DONE:
#
# Emitted when it is done.
#
# @what: the thing
##
{ 'event': 'THING_DONE',
  'data': { 'what': 'Thing' } }
'''


def run(*argv, **options):
    """Status and output of a program."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False,
                          **options)
    return done.returncode, done.stdout


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix='spiceflow-docs-'))
        self.addCleanup(shutil.rmtree, self.folder)


class Schema(Folder):
    def read(self, text=SCHEMA):
        (self.folder / 'qapi-x.json').write_text(text, encoding='utf-8')
        return reference.definitions(self.folder)

    def test_members(self):
        thing = self.read()['Thing']
        self.assertEqual(thing.kind, 'struct')
        self.assertEqual(thing.intro,
                         'What a thing is.\n\nTwo paragraphs of it.')
        self.assertEqual(
            [(m.name, m.type, m.optional, m.default, m.brief)
             for m in thing.members],
            [('first', 'str', False, None, 'the first one, with code'),
             ('other-one', 'uint32', True, '3', 'another'),
             ('way', 'Way', True, 'left', 'which way')])
        self.assertEqual(thing.member('other-one').text,
                         'another. It | matters.')

    def test_enum_and_event(self):
        defs = self.read()
        self.assertEqual([m.name for m in defs['Way'].members],
                         ['left', 'right'])
        self.assertEqual(defs['THING_DONE'].kind, 'event')
        self.assertEqual(defs['THING_DONE'].members[0].type, 'Thing')

    def test_not_documented(self):
        with self.assertRaisesRegex(ValueError, 'other-one is not documented'):
            self.read(SCHEMA.replace('@other-one:', '@another-one:'))

    def test_line_too_long(self):
        text = SCHEMA.replace('# What a thing is.', '# ' + 'x' * 69)
        with self.assertRaisesRegex(ValueError, 'longer than 70'):
            self.read(text)

    def test_synopsis_value(self):
        defs = self.read()
        self.assertEqual([reference.value(m, defs)
                          for m in defs['Thing'].members],
                         ['first', 'number', 'left|right'])

    def test_markdown(self):
        self.assertEqual(reference.markdown('a ``b`` | @c'), 'a `b` \\| `c`')


class Documents(Folder):
    """A copy of what the documentation is made of."""

    def setUp(self):
        super().setUp()
        self.root = self.folder / 'checkout'
        for name in ('README.md', 'COPYING', 'docs', 'chardev', 'include',
                     'scripts', 'tests/lib', 'tests/libvirt'):
            source = ROOT / name
            self.root.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, self.root / name)
            else:
                shutil.copy2(source, self.root / name)
        # named in documents, looked at by nothing here
        for path in ROOT.iterdir():
            if not (self.root / path.name).exists() and path.name[0] != '.':
                os.symlink(path, self.root / path.name)
        for path in (ROOT / 'tests').iterdir():
            if not (self.root / 'tests' / path.name).exists():
                os.symlink(path, self.root / 'tests' / path.name)

    def change(self, name, old, new):
        path = self.root / name
        text = path.read_text(encoding='utf-8')
        self.assertIn(old, text)
        path.write_text(text.replace(old, new, 1), encoding='utf-8')

    def check(self):
        return run(self.root / 'scripts/docs-check', '--no-run')

    def build(self, *args):
        return run(self.root / 'scripts/docs', '--output',
                   self.folder / 'out', *args)

    def found(self, *wanted):
        status, said = self.check()
        self.assertEqual(status, 1, said)
        for text in wanted:
            self.assertIn(text, said)

    def test_as_it_is(self):
        status, said = self.check()
        self.assertEqual(status, 0, said)
        status, said = self.build('--check')
        self.assertEqual(status, 0, said)
        page = (self.folder / 'out/html/README.html').read_text(
            encoding='utf-8')
        self.assertIn('docs/user-guide.html#tls', page)
        page = (self.folder / 'out/man/spiceflow.7').read_text(
            encoding='utf-8')
        self.assertTrue(page.count('spiceflow\\-server') > 5)

    def test_link_to_nowhere(self):
        self.change('README.md', 'user-guide.md#tls', 'user-guide.md#tsl')
        self.found('no heading for the link')
        status, said = self.build()
        self.assertEqual(status, 1, said)
        self.assertIn('tsl', said)

    def test_table_not_of_the_schema(self):
        self.change('docs/user-guide.md', 'clients served at a time',
                    'clients served for ever')
        self.found('docs/user-guide.md is not what the schema says')
        status, said = self.build('--check')
        self.assertEqual(status, 1, said)
        self.assertIn('docs/user-guide.md', said)

    def test_schema_changed(self):
        self.change('chardev/spiceflow/qapi-qom.json',
                    'clients served at a time', 'clients at a time')
        self.found(*('%s is not what the schema says' % name for name in (
            'chardev/spiceflow/descriptions.h', 'docs/user-guide.md',
            'docs/reference.md')))
        status, said = run(self.root / 'scripts/docs', '--write')
        self.assertEqual(status, 0, said)
        self.assertIn('| clients at a time,', (
            self.root / 'docs/user-guide.md').read_text(encoding='utf-8'))
        status, said = self.check()
        self.assertEqual(status, 0, said)

    def test_figure_changed(self):
        dot = next((self.root / 'docs').rglob('*.dot'))
        dot.write_text(dot.read_text(encoding='utf-8') + '// more\n',
                       encoding='utf-8')
        self.found('was not made from ' + dot.name)

    def test_block_that_nothing_runs(self):
        self.change('docs/user-guide.md', '## Limits\n',
                    '## Limits\n\n```sh\nls\n```\n')
        self.found('this is neither run nor does it say why not')

    def test_block_without_language(self):
        self.change('docs/user-guide.md', '## Limits\n',
                    '## Limits\n\n```\nls\n```\n')
        self.found('no language')

    def test_block_without_reason(self):
        self.change('docs/user-guide.md', '## Limits\n', '## Limits\n\n'
                    '<!-- docs-check: not run: -->\n```sh\nls\n```\n')
        self.found('no reason not to run it')

    def test_block_that_fails(self):
        """A block is run, and what it says is shown."""
        (self.folder / 'good').mkdir()
        (self.folder / 'bad').mkdir()
        self.assertIsNone(docs_check.shell(self.folder / 'good',
                                           'scripts/docs --help >/dev/null'))
        self.assertIn('no-such-program', docs_check.shell(
            self.folder / 'bad', 'no-such-program\necho after'))

    def test_viewer_that_does_not_get_in(self):
        self.assertIn('error-connect', docs_check.view(
            'remote-viewer spice+unix://$PWD/nobody', '', str(self.folder)))

    def test_viewer_finds_its_server(self):
        line = 'scripts/qemu -object spiceflow-server,id=s,type=%s'
        for options, uri, meant in (
                ('unix,path=a', 'spice+unix://$PWD/a', True),
                ('unix,path=b', 'spice+unix://$PWD/a', False),
                ('inet,port=1', 'spice://h?port=1', True),
                ('inet,port=1', 'spice://h?tls-port=1', False),
                ('inet,port=1,tls-creds=t', 'spice://h?tls-port=1', True),
                ('inet,port=1,tls-creds=t', 'spice://h?port=1', False)):
            job = docs_check.Job('', line % options, '')
            self.assertEqual(job.is_meant(uri), meant, (options, uri))


class ManualPage(Folder):
    """QEMU's own, made from grafted options."""

    def page(self, source):
        """The text of the options' part."""
        # ours are grafted into a copy
        tree = self.folder / 'tree'
        for name in {i.path for i in graft.INSERTIONS} | {'VERSION'}:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, tree / name)
        status, said = run(ROOT / 'scripts/graft', tree)
        self.assertEqual(status, 0, said)
        pages = self.folder / 'pages'
        pages.mkdir()
        (pages / 'conf.py').write_text(
            'import sys\n'
            'sys.path.insert(0, %r)\n'
            'extensions = ["hxtool"]\n'
            'hxtool_srctree = %r\n'
            'man_pages = [("index", "qemu", "", "", 1)]\n'
            'rst_epilog = ".. |qemu_system| replace:: qemu\\n"\n' % (
                str(source / 'docs/sphinx'), str(tree)), encoding='utf-8')
        (pages / 'index.rst').write_text(
            'QEMU\n====\n\n.. hxtool-doc:: qemu-options.hx\n',
            encoding='utf-8')
        status, said = run('/usr/bin/sphinx-build', '-q', '-b', 'man', pages,
                           self.folder / 'out')
        self.assertEqual(status, 0, said)
        # the rest of QEMU's documents is not there, which gives warnings
        ours, inside = set(), False
        for number, line in enumerate((tree / 'qemu-options.hx').read_text(
                encoding='utf-8').splitlines(), 1):
            inside = graft.BEGIN in line or (inside and
                                             graft.END not in line)
            if inside:
                ours.add(number)
        self.assertEqual([line for line in said.splitlines() if re.search(
            r'qemu-options\.hx:(\d+):', line) and int(re.search(
                r'qemu-options\.hx:(\d+):', line)[1]) in ours], [])
        return (self.folder / 'out/qemu.1').read_text(encoding='utf-8')

    def depth(self, roff, term):
        """How deep the description of an option is indented."""
        at = [m.start() for m in re.finditer(
            r'^\.B \\fB\\-' + re.escape(term), roff, re.M)]
        self.assertEqual(len(at), 1, term)
        before = roff[:at[0]]
        return before.count('\n.INDENT') - before.count('\n.UNINDENT')

    def test_spiceflow_is_in_it(self):
        sources = [v.parent for v in
                   sorted(cache_dir().glob('qemu-*/src/VERSION'))]
        self.assertTrue(sources, 'run scripts/setup first')
        for source in sources:
            with self.subTest(source.parent.name):
                for name in 'tree', 'pages', 'out', 'text':
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                roff = self.page(source)
                # each stands beside its like
                self.assertEqual(self.depth(roff, 'chardev spiceflow,'),
                                 self.depth(roff, 'chardev spicevmc,'))
                self.assertEqual(
                    self.depth(roff, 'object spiceflow\\-server,'),
                    self.depth(roff, 'object tls\\-cipher\\-suites,'))
                for struct in reference.SERVER, reference.CHARDEV:
                    for member in reference.definitions()[struct].members:
                        name = member.name.replace('-', '\\-')
                        self.assertTrue('\n\\fB%s\\fP: ' % name in roff, name)
                self.assertFalse('HXCOMM' in roff)
                self.assertTrue(re.search(
                    r'fBspiceflow\\fP,\s+\\fBpty', roff))


if __name__ == '__main__':
    counted.main()
