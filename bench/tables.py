"""How benchmarks write figures: a median with its range, Markdown tables, and their places in pages of docs."""

import re
import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], form: str) -> str:
    """Median (least–most)."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def placed(text: str, name: str, made: str) -> str:
    """A page's text with `made` between the markers of `name`, which must be there."""
    block = re.compile(rf"(<!-- {name}: made by bench/\w+\.py -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    assert block.search(text), f"no place for {name}"
    return block.sub(lambda match: f"{match[1]}{made}{match[2]}", text)
