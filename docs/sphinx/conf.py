# SPDX-License-Identifier: GPL-2.0-or-later
"""Sphinx's settings; scripts/docs runs it, on a copy of the documents."""

import os

project = 'spiceflow'
author = 'the spiceflow authors'
copyright = author              # pylint: disable=redefined-builtin
root_doc = 'README'
source_suffix = {'.md': 'markdown'}
extensions = ['myst_parser']
exclude_patterns = ['docs/sphinx']

# Links lead to headings as they do on the web: README.md#use-it
myst_heading_anchors = 4
nitpicky = True

html_theme = 'sphinx_rtd_theme'
html_theme_options = {'navigation_depth': 3}
html_static_path = [os.path.join(os.path.dirname(__file__), 'static')]
html_css_files = ['spiceflow.css']
html_title = 'spiceflow'
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = 'friendly'

man_pages = [('docs/user-guide', 'spiceflow',
              'SPICE devices of a QEMU virtual machine without spice-server',
              author, 7)]
man_show_urls = True
