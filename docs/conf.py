"""The documentation site: `make docs` builds it into artifacts/site, and stops at a link that leads nowhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = (ROOT / "causal_spark" / "__init__.py").read_text(encoding="utf-8")

project = "causal_spark"
copyright = "the causal_spark authors"  # noqa: A001 - Sphinx's name
release = re.findall(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE)[0]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
# The pages lie where people read them in the repository, and link to each other as there.
include_patterns = ["*.md", "docs/*.md", "studies/README.md", "benchmarks/README.md", "benchmarks/results/*.md"]
myst_heading_anchors = 3
# Docstrings name code in single quotes of this kind, as people write it.
default_role = "code"
highlight_language = "none"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
add_module_names = False

html_theme = "furo"
html_title = f"causal_spark {release}"
html_extra_path = ["site"]
