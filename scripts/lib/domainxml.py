# SPDX-License-Identifier: GPL-2.0-or-later
"""An XML file in which pieces are replaced, and nothing else is.

How it works.  expat tells where in the file each element begins and ends; the
tree of Elements keeps these places.  A change is a piece of the file with the
text that replaces it, and Document.text() puts them in.  So what nobody
changes comes out byte for byte as it was: comments, order, quotes, line ends.
New elements are indented as those around them.
"""

import re
import xml.parsers.expat

ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")


class Refusal(Exception):
    """The file is not understood; the text says what and where."""


class Element:
    """One element, and where its parts are in the file."""

    def __init__(self, tag, attributes, parent, line, start):
        self.tag = tag
        self.attributes = attributes    # name -> value
        self.parent = parent
        self.line = line
        self.start = start              # of the start tag
        self.open_end = 0               # behind it
        self.close = 0                  # of the end tag
        self.end = 0                    # behind all of it
        self.empty = False              # <tag/>
        self.spans = {}                 # attribute -> (start, end), all of it
        self.children = []
        if parent is not None:
            parent.children.append(self)

    def get(self, name, default=None):
        return self.attributes.get(name, default)

    def find(self, tag):
        return next((c for c in self.children if c.tag == tag), None)

    def all(self, tag):
        return [c for c in self.children if c.tag == tag]

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()

    def __str__(self):
        kind = self.get("type")
        return "<%s%s>" % (self.tag, " type='%s'" % kind if kind else "")


def parse(data):
    """The root element of a file."""
    parser = xml.parsers.expat.ParserCreate()
    stack, roots = [], []

    def start(tag, attributes):
        element = Element(tag, attributes, stack[-1] if stack else None,
                          parser.CurrentLineNumber, parser.CurrentByteIndex)
        at = element.start + 1 + len(tag.encode())
        while True:
            match = ATTRIBUTE.match(data, at)
            if not match:
                break
            element.spans[match[1].decode()] = match.span()
            at = match.end()
        close = re.compile(rb"\s*(/?)>").match(data, at)
        element.empty = close[1] == b"/"
        element.open_end = close.end()
        stack.append(element)
        if len(stack) == 1:
            roots.append(element)

    def end(_tag):
        element = stack.pop()
        if element.empty:
            element.close = element.end = element.open_end
        else:
            element.close = parser.CurrentByteIndex
            element.end = data.index(b">", element.close) + 1

    def declared(_version, encoding, _standalone):
        if encoding and encoding.lower() not in ("utf-8", "us-ascii",
                                                 "ascii"):
            raise Refusal("line 1: the encoding %s; convert it to UTF-8" %
                          encoding)

    def doctype(*_):
        raise Refusal("line %d: a document type; libvirt's XML has none" %
                      parser.CurrentLineNumber)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.XmlDeclHandler = declared
    parser.StartDoctypeDeclHandler = doctype
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Refusal("line 1: UTF-16; convert it to UTF-8")
    try:
        parser.Parse(data, True)
    except xml.parsers.expat.ExpatError as error:
        raise Refusal("line %d: not well-formed: %s" % (
            error.lineno, xml.parsers.expat.ErrorString(error.code))) \
            from None
    return roots[0]


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(
        "'", "&apos;")


def start_tag(tag, attributes, empty=False):
    return "<%s%s%s>" % (tag, "".join(
        " %s='%s'" % (name, escaped(value))
        for name, value in attributes.items()), "/" if empty else "")


class Document:
    """A file and what is to be changed in it."""

    def __init__(self, data):
        self.data = data
        self.root = parse(data)
        self.edits = []             # (start, end, order, text)
        self.newline = "\r\n" if b"\r\n" in data else "\n"

    # -- how it is laid out --

    def indent(self, element):
        """The white space before it, None if it does not begin a line."""
        start = self.data.rfind(b"\n", 0, element.start) + 1
        space = self.data[start:element.start]
        if space.strip() or (start == 0 and element.parent is not None):
            return None
        return space.decode()

    def inner(self, parent):
        """The white space before a child."""
        outer = self.indent(parent)
        for child in reversed(parent.children):
            if self.indent(child) is not None:
                return self.indent(child)
        line = self.data.rfind(b"\n", parent.open_end, parent.close) + 1
        if outer is None or (not parent.empty and (
                not line or self.data[line:parent.close].strip())):
            return None
        return outer + self.step()

    def step(self):
        for child in self.root.children:
            outer = self.indent(child)
            for inner in child.children:
                text = self.indent(inner)
                if outer is not None and text and text.startswith(outer) \
                        and text != outer:
                    return text[len(outer):]
        return "  "

    # -- changes --

    def replace(self, start, end, text):
        self.edits.append((start, end, len(self.edits), text.encode()))

    def set(self, element, name, value):
        """Give an attribute another value, or a new one."""
        text = " %s='%s'" % (name, escaped(value))
        if name in element.spans:
            start, end = element.spans[name]
            quote = self.data[end - 1:end].decode()
            if quote == '"':
                text = ' %s="%s"' % (name, escaped(value).replace(
                    "&apos;", "'").replace('"', "&quot;"))
            head = re.match(rb"\s+", self.data[start:end])[0].decode()
            self.replace(start, end, head + text[1:])
        else:
            at = element.open_end - (2 if element.empty else 1)
            while self.data[at - 1:at].isspace():
                at -= 1
            self.replace(at, at, text)

    def drop(self, element, name):
        if name in element.spans:
            self.replace(*element.spans[name], "")

    def remove(self, element):
        """An element with the line it stands on, if it stands alone."""
        start, end = element.start, element.end
        if self.indent(element) is not None:
            match = re.compile(rb"[ \t]*(\r?\n)").match(self.data, end)
            if match:
                start -= len(self.indent(element).encode())
                end = match.end()
        self.replace(start, end, "")

    def lines(self, nodes, indent):
        """Nodes, each a start tag or [start tag, node...], as text."""
        out = []
        for node in nodes:
            if isinstance(node, str):
                out.append((indent or "") + node)
                continue
            tag = re.match(r"<([^\s>]+)", node[0])[1]
            out.append((indent or "") + node[0])
            out += self.lines(node[1:], None if indent is None
                              else indent + self.step())
            out.append((indent or "") + "</%s>" % tag)
        return out

    def append(self, parent, *nodes, before=None):
        """New children, at the end or before one of those there are."""
        indent = self.inner(parent)
        text = self.lines(nodes, indent)
        if parent.empty:
            at = parent.open_end - 2
            while self.data[at - 1:at].isspace():
                at -= 1
            if self.indent(parent) is None:
                body = "".join(text)
            else:
                body = self.newline + self.newline.join(text) + \
                    self.newline + self.indent(parent)
            self.replace(at, parent.open_end, ">%s</%s>" % (body, parent.tag))
            return
        if indent is None:
            at = before.start if before else parent.close
            self.replace(at, at, "".join(text))
            return
        target = before.start if before else parent.close
        at = self.data.rfind(b"\n", 0, target) + 1
        if self.data[at:target].strip():
            # <a><b/>... in one line after all
            self.replace(target, target, "".join(t.strip() for t in text))
            return
        self.replace(at, at, self.newline.join(text) + self.newline)

    def text(self):
        data, out, at = self.data, [], 0
        for start, end, _order, text in sorted(self.edits):
            if start < at:
                raise AssertionError("two changes of one place: %r" %
                                     data[start:end])
            out += [data[at:start], text]
            at = end
        return b"".join(out + [data[at:]])
