"""docs/reliability.md names tests: each is there, and no number of the list is left out."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+(?:\.py)?)(?:::(\w+))?`", PAGE)))


def missing(named: list[tuple[str, str]]) -> list[str]:
    """What is named and is not there."""
    found = []
    for path, test in named:
        file = ROOT / path
        if not file.exists():
            found.append(path)
        elif test and test not in _functions(file):
            found.append(f"{path}::{test}")
    return found


def _functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_page_names_is_there() -> None:
    assert len(NAMED) > 100
    assert missing(NAMED) == []


def test_a_name_that_is_none_would_be_found() -> None:
    known = next(name for name in NAMED if name[1])
    assert missing([("tests/nowhere.py", ""), (known[0], "test_nothing"), known]) == [
        "tests/nowhere.py",
        f"{known[0]}::test_nothing",
    ]


def test_every_number_of_the_list_is_there_once() -> None:
    numbers: list[int] = []
    for cell in re.findall(r"^\| ([\d, –]+) \|", PAGE, re.MULTILINE):
        for part in cell.split(","):
            first, _, last = part.strip().partition("–")
            numbers += range(int(first), int(last or first) + 1)
    assert sorted(numbers) == list(range(1, 104))
