"""How the documentation is built: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import geococa  # noqa: E402

project = "geococa"
author = "The geococa developers"
copyright = "The geococa developers"  # noqa: A001
release = version = geococa.__version__

extensions = [
    "generated_pages",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext"]
default_role = "py:obj"  # `geococa.open_tile` in a docstring is a link

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache", "myst.header", "ref.footnote"]

autosummary_generate = False
autodoc_typehints = "none"  # the docstrings name types in words
autodoc_member_order = "bysource"
autodoc_default_options = {"members": False}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"geococa {version}"
html_show_sphinx = False
html_copy_source = False
html_last_updated_fmt = None  # same sources, same pages
