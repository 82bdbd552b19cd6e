"""What one check of an installation found, and the remedy; it checks nothing."""

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One check's result. ``remedy`` is empty when all is well."""

    name: str
    state: State
    found: str
    remedy: str = ""


def first_line(error: Exception) -> str:
    """An error in one line, its class where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
