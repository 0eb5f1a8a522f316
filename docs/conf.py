"""How Sphinx builds the site: `make docs`."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

from crack_md import __version__

project = "crack-md"
author = "the crack-md developers"
copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"crack-md {__version__}"
html_theme_options = {"navigation_with_keys": True}

# GitHub's anchors, so that the pages work there and here
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

# generated tables keep the level of the page that they were made for
suppress_warnings = ["myst.header"]

# docstrings are written with single backquotes around names
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False

# notebooks run where they changed; an error of theirs ends the build
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

# browsers draw MathML themselves: pages need no script and no network
html_math_renderer = "mathml"


def _draw_inline(page: Any, node: nodes.math) -> None:
    page.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _draw_block(page: Any, node: nodes.math_block) -> None:
    page.body.append(f"<p>{convert(node.astext(), display='block')}</p>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the renderer of equations."""
    app.add_html_math_renderer("mathml", (_draw_inline, None), (_draw_block, None))
