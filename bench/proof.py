"""The faults and abuses as they ran: a table of the tests with outcome and time, from pytest's own report.

python -m bench.proof REPORT.xml [--write]    REPORT: of pytest --junitxml; --write: into docs/reliability.md
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from bench.report import machine
from bench.tables import markdown, placed

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
FOLDERS = ("tests.faults.", "tests.abuse.")


@dataclass
class File:
    """What became of the tests of one file, and how long they and their set-up took."""

    outcomes: Counter[str]
    seconds: float
    slowest: tuple[float, str]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("report", type=Path)
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    files = read(options.report)
    table = markdown(("tests", "passed", "failed", "skipped", "seconds", "the slowest"), rows(files))
    if options.write:
        text = placed(PAGE.read_text(encoding="utf-8"), "proof", f"{table}{machine()}\n")
        PAGE.write_text(text, encoding="utf-8")
    print(table, end="")


def read(report: Path) -> dict[str, File]:
    """The files of faults and abuses, by name."""
    files: dict[str, File] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("classname", "")
        if not name.startswith(FOLDERS):
            continue
        outcome = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")
        outcome = "failed" if outcome in ("failure", "error") else outcome
        seconds = float(case.get("time", 0))
        file = files.setdefault(name.replace(".", "/") + ".py", File(Counter(), 0.0, (0.0, "")))
        file.outcomes[outcome] += 1
        file.seconds += seconds
        file.slowest = max(file.slowest, (seconds, case.get("name", "")))
    return dict(sorted(files.items()))


def rows(files: dict[str, File]) -> list[list[str]]:
    """One for each file, and their sum."""
    shown = [
        [f"`{name}`", *_counts(file.outcomes), f"{file.seconds:.0f}", f"{file.slowest[1]}: {file.slowest[0]:.0f} s"]
        for name, file in files.items()
    ]
    total: Counter[str] = sum((file.outcomes for file in files.values()), Counter())
    return [*shown, ["all", *_counts(total), f"{sum(file.seconds for file in files.values()):.0f}", ""]]


def _counts(outcomes: Counter[str]) -> list[str]:
    return [str(outcomes[outcome]) for outcome in ("passed", "failed", "skipped")]


if __name__ == "__main__":
    main()
