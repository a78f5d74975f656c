"""Code blocks of Markdown pages."""

from __future__ import annotations

import re


def fenced(page: str, language: str) -> list[str]:
    """Texts of the fenced blocks in that language, in their order; those without one for ``""``."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]
