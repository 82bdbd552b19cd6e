"""Cells that a spreadsheet would take for a formula, made harmless; reads and writes no file."""

import re
from typing import Final

# What a spreadsheet may take for a formula (OWASP, CSV injection): also after white space that it strips.
_FORMULA: Final = re.compile(r"\s*[=+\-@]|[\t\r]")


def harmless(cell: str | None) -> str | None:
    """The cell, with an apostrophe in front if a spreadsheet would calculate it."""
    return f"'{cell}" if cell is not None and _FORMULA.match(cell) else cell
