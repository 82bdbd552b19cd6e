"""The documentation as the tests read it: its tables, its links, and the script that makes the tables."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from tests.architecture.source import ROOT

_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]+)?(#[^)\s]+)?\)")


def generator() -> ModuleType:
    """docs/generate.py. By path, because `docs` is no package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages() -> list[Path]:
    """Every page for people."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def table(page: str, name: str) -> list[list[str]]:
    """The cells of a made table, without its head."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name}: .*?-->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)
    assert found is not None, f"{page} has no table {name}"
    lines = found[1].strip().splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def links(page: Path) -> list[tuple[str, str]]:
    """The links of a page to other files or to places in this one: (path, anchor), either may be empty."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [(path, anchor) for path, anchor in _LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make, as forges spell them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
