"""docs/performance.md, remade: runs the benchmarks one after the other and puts what they print into the page.

python -m bench.page [--only NAME ...]    NAME: see SECTIONS; without it, those that end within 20 minutes together

What a benchmark prints goes between the page's markers as it is, with the command, the date, the load of the machine
before it began and how long it took. One that fails leaves what was there, and is said to.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from bench.compare import PAGE
from bench.report import machine
from bench.tables import placed


@dataclass(frozen=True)
class Section:
    """`command`: what is run after `python -m`; `quick`: part of `make bench`. `writes`: it fills the page itself."""

    command: tuple[str, ...]
    quick: bool = True
    writes: bool = False
    limit_s: float = 900.0


SECTIONS: Final = {
    "compare": Section(("bench.compare", "--write"), writes=True, limit_s=1200),
    "stock": Section(("bench.compare", "--stock", "--write"), quick=False, writes=True, limit_s=1800),
    "goals": Section(("bench.goals", "--rounds", "3"), quick=False, limit_s=1800),
    "line": Section(("bench.line", "--count", "2000")),
    "stages": Section(("bench.stages", "--count", "300")),
    "inference": Section(("bench.inference",)),
    "submit": Section(("bench.submit", "--repeats", "3")),
    "reuse": Section(("bench.reuse",), quick=False),
    "idle": Section(("bench.idle",), quick=False),
    "scaling": Section(("bench.scaling",), quick=False, limit_s=1800),
    "scale": Section(("bench.scale",), quick=False, limit_s=3600),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", choices=SECTIONS, metavar="NAME")
    options = arguments.parse_args()
    console = Console(width=110, highlight=False)
    chosen = options.only or [name for name, section in SECTIONS.items() if section.quick]
    failed = [name for name in chosen if not _run(console, name, SECTIONS[name])]
    if failed:
        raise SystemExit(f"failed, and left as they were in {PAGE.name}: {', '.join(failed)}")
    console.print(f"written to {PAGE.relative_to(PAGE.parents[1])}")


def _run(console: Console, name: str, section: Section) -> bool:
    said = " ".join(("python", "-m", *section.command))
    console.print(f"[bold]{name}[/]: {said}")
    load, began = os.getloadavg()[0], time.perf_counter()
    command = [sys.executable, "-m", *section.command]
    try:
        if section.writes:
            return subprocess.run(command, timeout=section.limit_s, check=False).returncode == 0
        ran = subprocess.run(command, timeout=section.limit_s, check=False, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        console.print(f"{name} took more than {section.limit_s:.0f} s")
        return False
    console.print(ran.stdout, markup=False, end="")
    if ran.returncode:
        console.print(ran.stderr[-2000:], markup=False)
        return False
    seconds = time.perf_counter() - began
    printed = "\n".join(line.rstrip() for line in ran.stdout.strip("\n").splitlines())
    origin = f"`{said}` on {time.strftime('%Y-%m-%d')}, load before it {load:.1f}, {seconds:.0f} s. {machine()}."
    text = placed(PAGE.read_text(encoding="utf-8"), name, f"```text\n{printed}\n```\n{origin}\n")
    PAGE.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    main()
