"""How Sphinx builds the site: `make docs`."""

from crack_md import __version__

project = "crack-md"
author = "the crack-md developers"
copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"crack-md {__version__}"
html_theme_options = {"navigation_with_keys": True}

# GitHub's anchors, so that the pages work there and here
myst_heading_anchors = 3
myst_enable_extensions = ["amsmath", "dollarmath"]

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
