# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of options, properties and events, from the QAPI schema.

How it works
------------
chardev/spiceflow/qapi-*.json is the one place where an option is described.
Its comments are read here, and become

    chardev/spiceflow/descriptions.h   the help of -object spiceflow-server,help
    qemu-options.hx                    -help and QEMU's man page (scripts/graft)
    docs/user-guide.md                 the tables of options and properties
    docs/reference.md                  everything, with types and events

Of a member's text the first sentence is the short help, with its "(default:
...)" taken out; what follows is for those who read on.  ``words`` are code.

The first and the last two are files of this repository: generated() gives what
they should hold, scripts/docs --write writes it, scripts/docs-check compares.
"""

import ast
import hashlib
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = ROOT / 'chardev/spiceflow'

SERVER = 'SpiceflowServerProperties'
CHARDEV = 'ChardevSpiceflow'

# Where a document holds a table of ours: the note before it, and the struct.
TABLES = {
    'chardev options': (CHARDEV, 'option'),
    'server properties': (SERVER, 'property'),
}

# On the command line an address stands for itself.
ADDRESS = 'type=unix,path=path|type=inet,host=host,port=port|...'

# In a schema's comment, without "# ": newer QEMUs insist.
LONGEST = 68

# What every chardev has.
LOGGING = '[,logfile=PATH][,logappend=on|off]'


class Member:
    """One option, property, value or piece of data."""

    def __init__(self, name, text):
        self.name = name
        self.optional = False
        self.type = None
        text = re.sub(r'  +', ' ', text)
        found = re.search(r'\s*\(default: ([^()]*)\)', text)
        self.default = found[1] if found else None
        self.text = text.replace(found[0], '', 1) if found else text

    @property
    def brief(self):
        """The first sentence, as plain text."""
        return re.split(r'\.(\s|$)', self.text)[0].replace('``', '')

    def described(self):
        """All of the text, as sentences."""
        return self.text + ('' if self.text.endswith('.') else '.')


class Definition:
    """One struct, enum, event or command of the schema."""

    def __init__(self, name, doc, expression):
        self.name = name
        self.kind = next(k for k in ('struct', 'enum', 'event', 'command',
                                     'union', 'alternate') if k in expression)
        self.base = expression.get('base')
        self.intro = ''
        self.members = []
        self.read_doc(doc)
        data = expression.get('data', {})
        self.boxed = data if isinstance(data, str) else None
        if self.kind == 'enum':
            types = {v['name'] if isinstance(v, dict) else v: None
                     for v in data}
        elif isinstance(data, dict):
            types = data
        else:
            types = {}
        known = {member.name: member for member in self.members}
        for key, kind in types.items():
            bare = key.lstrip('*')
            if bare not in known:
                raise ValueError('%s: %s is not documented' % (name, bare))
            known[bare].optional = key != bare
            known[bare].type = kind['type'] if isinstance(kind, dict) \
                else kind

    def read_doc(self, doc):
        """Cut a comment into paragraphs; "@name:" begins a member."""
        for part in re.split(r'\n\s*\n', doc):
            words = ' '.join(part.split())
            found = re.match(r'@([\w-]+): ?(.*)', words)
            if found:
                self.members.append(Member(found[1], found[2]))
            elif re.match(r'(Since|Features|Returns|Example)\b', words):
                continue
            elif not self.members:
                self.intro += ('\n\n' if self.intro else '') + words

    def member(self, name):
        return next(m for m in self.members if m.name == name)


def definitions(folder=MODULE):
    """All that the schema defines, by name, in the order of its files."""
    found = {}
    for path in sorted(folder.glob('qapi-*.json')):
        text = path.read_text(encoding='utf-8')
        for doc, body in re.findall(
                r'^##\n((?:#.*\n)+?)##\n(\{(?:.|\n)*?\})(?=\n\n|\n*\Z)', text,
                re.M):
            lines = [line[2:] for line in doc.splitlines()]
            if max(map(len, lines)) > LONGEST:
                raise ValueError(
                    '%s: QEMU takes no documentation line longer than %d: %s' %
                    (path.name, LONGEST + 2, max(lines, key=len)))
            name = re.fullmatch(r'@([\w-]+):', lines[0])[1]
            body = re.sub(r'\btrue\b', 'True', re.sub(
                r'\bfalse\b', 'False', re.sub(r'(?m)#.*$', '', body)))
            found[name] = Definition(name, '\n'.join(lines[1:]),
                                     ast.literal_eval(body))
    return found


# ---- for QEMU: help and manual page

def value(member, defs):
    """What to write for a value in a synopsis."""
    kind = member.type
    if kind == 'bool':
        return 'on|off'
    if kind == 'size':
        return 'bytes'
    if kind in ('uint32', 'uint16', 'int', 'uint64', 'uint8'):
        return 'ms' if member.text.startswith('milliseconds') else 'number'
    if isinstance(kind, str) and kind in defs:
        return '|'.join(m.name for m in defs[kind].members)
    return 'id' if member.text.startswith('ID of') else member.name


def words_of(struct, defs):
    """The parts of a synopsis, to be joined or wrapped."""
    words = []
    for member in struct.members:
        if member.type == 'SocketAddress' and not member.optional:
            words.append(',' + ADDRESS)
        else:
            text = ',%s=%s' % (member.name, value(member, defs))
            words.append('[%s]' % text if member.optional else text)
    return words


def synopsis(what):
    """A line for the manual page: -chardev or -object."""
    defs = definitions()
    if what == '-chardev':
        return '-chardev spiceflow,id=id' + ''.join(
            words_of(defs[CHARDEV], defs)) + LOGGING
    return '-object spiceflow-server,id=id' + ''.join(
        words_of(defs[SERVER], defs))


def help_lines():
    """The lines of -help, as C strings, like those around them."""
    return '    "%s\\n"\n' % synopsis('-chardev')


def paragraph(text, indent):
    pad = ' ' * indent
    return textwrap.fill(text, 76, initial_indent=pad, subsequent_indent=pad,
                         break_long_words=False, break_on_hyphens=False)


def manual(what, indent=0):
    """reStructuredText for the manual page, as long as its neighbours."""
    struct = definitions()[CHARDEV if what == '-chardev' else SERVER]
    text = ['%s``%s``' % (' ' * indent, synopsis(what)),
            paragraph(struct.intro.split('\n\n')[0], indent + 4), '']
    for member in struct.members:
        first, _, rest = member.text.partition('. ')
        said = '``%s``: %s%s.%s' % (
            member.name, first.rstrip('.'),
            ' (default: %s)' % member.default if member.default else '',
            ' ' + rest if rest else '')
        text += [paragraph(said, indent + 4), '']
    return '\n'.join(text) + '\n'


# ---- for C: the descriptions of properties

def c_string(text, indent, width=79):
    """A string literal, over as many lines as it takes."""
    room = width - indent - 2
    parts = textwrap.wrap(text.replace('\\', '\\\\').replace('"', '\\"'),
                          room - 1, break_on_hyphens=False)
    pad = '\n' + ' ' * indent
    return pad.join('"%s"' % (part + (' ' if part is not parts[-1] else ''))
                    for part in parts)


def header():
    """descriptions.h: the short help of the server's properties."""
    rows = []
    for member in definitions()[SERVER].members:
        said = member.brief
        if member.default:
            said += ' (default: %s)' % member.default.replace('``', '')
        rows.append('    { "%s",\n      %s },' % (member.name,
                                                  c_string(said, 6)))
    return '''\
/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What -object spiceflow-server,help says of each property.
 *
 * Made from qapi-qom.json by scripts/docs --write; change it there.
 */
#ifndef CHARDEV_SPICEFLOW_DESCRIPTIONS_H
#define CHARDEV_SPICEFLOW_DESCRIPTIONS_H

static const struct {
    const char *name;
    const char *text;
} sf_server_descriptions[] = {
%s
};

#endif
''' % '\n'.join(rows)


# ---- for the documents

def markdown(text):
    """QAPI's markup as Markdown's; "|" would end a cell."""
    text = re.sub(r'``([^`]*)``', r'`\1`', text)
    return re.sub(r'@([\w-]+)', r'`\1`', text).replace('|', '\\|')


def default(member):
    if not member.optional:
        return 'required'
    if member.default is None:
        return ''
    said = markdown(member.default)
    return '`%s`' % said if re.fullmatch(r'[\w-]+', said) else said


def table(kind):
    """The lines of a table in the user's guide."""
    struct, what = TABLES[kind]
    defs = definitions()
    lines = ['| %s | what | default |' % what, '|---|---|---|']
    for member in defs[struct].members:
        said = markdown(member.text)
        if member.type in defs:
            said += ': ' + ', '.join('`%s`' % m.name
                                     for m in defs[member.type].members)
        lines.append('| `%s` | %s | %s |' % (member.name, said,
                                             default(member)))
    return lines


def with_tables(text):
    """A document with its tables of ours as they should be."""
    lines, out = text.splitlines(), []
    while lines:
        line = lines.pop(0)
        out.append(line)
        found = re.search(r'<!-- docs-check: ([^>]*?) *-->', line)
        if found and found[1] in TABLES:
            while lines and not lines[0].startswith('|'):
                out.append(lines.pop(0))
            fresh = table(found[1])
            # rows of what the schema does not have stay, at the end
            names = {m.name for m in definitions()[TABLES[found[1]][0]]
                     .members}
            while lines and lines[0].startswith('|'):
                row = lines.pop(0)
                name = re.match(r'\| `([\w-]+)`', row)
                if name and name[1] not in names and 'read only' in row:
                    fresh.append(row)
            out += fresh
    return '\n'.join(out) + '\n'


def type_name(kind, defs):
    if isinstance(kind, list):
        return 'list of ' + type_name(kind[0], defs)
    return '[`%s`](#%s)' % (kind, kind.lower()) if kind in defs \
        else '`%s`' % kind


def members_of(definition, defs):
    """Its own, after those of what it is based on."""
    found = []
    for name in definition.base, definition.boxed:
        if name in defs:
            found += members_of(defs[name], defs)
    return found + definition.members


def reference_table(definition, defs):
    if definition.kind == 'enum':
        return ['| value | means |', '|---|---|'] + [
            '| `%s` | %s |' % (m.name, markdown(m.described()))
            for m in definition.members]
    if definition.kind == 'event':
        return ['| member | type | what |', '|---|---|---|'] + [
            '| `%s` | %s%s | %s |' % (
                m.name, type_name(m.type, defs),
                ', optional' if m.optional else '', markdown(m.described()))
            for m in members_of(definition, defs)]
    return ['| member | type | default | what |', '|---|---|---|---|'] + [
        '| `%s` | %s | %s | %s |' % (
            m.name, type_name(m.type, defs),
            'optional' if m.optional and not m.default else default(m),
            markdown(m.described()))
        for m in members_of(definition, defs)]


TITLES = {'event': 'Events', 'command': 'Commands', 'enum': 'Enumerations',
          'struct': 'Structures', 'union': 'Structures',
          'alternate': 'Structures'}


def reference():
    """docs/reference.md."""
    defs = definitions()
    out = ['# Reference', '',
           '<!-- Made from chardev/spiceflow/qapi-*.json by scripts/docs '
           '--write; change it there. -->', '',
           'Options, properties, types and events, as QEMU knows them. The '
           "[user's guide](user-guide.md) says what to do with them.", '']
    for title, struct, what in (
            ('-chardev spiceflow', CHARDEV, '-chardev'),
            ('-object spiceflow-server', SERVER, '-object')):
        out += ['## %s' % title, '', '```text']
        out += textwrap.wrap(re.sub(r'(\[?,)', r' \1', synopsis(what)), 100,
                             break_long_words=False, break_on_hyphens=False,
                             subsequent_indent='    ')
        out += ['```', '', 'In QMP: `%s`. %s' % (
            struct, markdown(defs[struct].intro)), '']
        out += reference_table(defs[struct], defs) + ['']
    # what is shown with what it is the data or the base of
    shown = {CHARDEV, CHARDEV + 'Wrapper', SERVER} | {
        d.boxed for d in defs.values()} | {d.base for d in defs.values()}
    for group in ('Events', 'Commands', 'Enumerations', 'Structures'):
        members = [d for d in defs.values()
                   if TITLES[d.kind] == group and d.name not in shown]
        if not members:
            continue
        out += ['## %s' % group, '']
        for definition in members:
            out += ['### %s' % definition.name, '']
            if definition.intro:
                out += [markdown(definition.intro), '']
            if members_of(definition, defs):
                out += reference_table(definition, defs) + ['']
    # a synopsis is one word: the blanks were for wrapping only
    text = '\n'.join(out)
    text = re.sub(r'(?s)```text\n.*?```', lambda m: re.sub(
        r'(?<=\S) (?=\[?,)', '', m[0]), text)
    return text.rstrip('\n') + '\n'


def stamp(source):
    """What a figure says of the source it was made from."""
    return '<!-- made from %s, sha256 %s -->' % (
        source.name, hashlib.sha256(source.read_bytes()).hexdigest())


def generated():
    """Path and content of every file that is made from the schema."""
    guide = ROOT / 'docs/user-guide.md'
    return {
        MODULE / 'descriptions.h': header(),
        guide: with_tables(guide.read_text(encoding='utf-8')),
        ROOT / 'docs/reference.md': reference(),
    }


def differing():
    """Those of them whose content is another one."""
    return [path for path, text in generated().items()
            if not path.is_file() or
            path.read_text(encoding='utf-8') != text]


def write():
    """Bring them up to date; the paths that were not."""
    wanted = generated()
    changed = differing()
    for path in changed:
        path.write_text(wanted[path], encoding='utf-8')
    return changed
