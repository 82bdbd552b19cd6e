"""The comparison's figures as tables: for the screen, and as Markdown between the markers of docs/performance.md."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.peers.environments import PINS
from bench.peers.process import Turn
from bench.systems import GOALS, STOCK, SYSTEMS, TODAY, Goal
from bench.tables import markdown, placed, spread

NONE = "not measured"
ROLES = ("crawler", "worker", "api", "maintenance", "trainer", "valkey", "postgres")
LIBRARIES = ("torch", "openvino", "pillow", "aiohttp", "celery")


@dataclass(frozen=True)
class Found:
    """A run: the turns of every system, in the order of the rounds, and why others have none. `stock`: of the peers
    with what their own examples have for decoding and scoring, and not of those with ours."""

    turns: dict[str, list[Turn]]
    missing: dict[str, str]
    rounds: int
    count: int
    machine: str
    seconds: float
    stock: bool = False
    when: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))

    @property
    def names(self) -> tuple[str, ...]:
        """Who was to take part."""
        return STOCK if self.stock else TODAY

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: every figure of every round, and the ratios."""
        ratios = {goal.name: {"clock": ratio(self, goal), "cpu": ratio(self, goal, cpu=True)} for goal in wanted(self)}
        return asdict(self) | {"ratios": ratios}


Rows = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # a title, the heads, the rows


def machine() -> str:
    """Processor, cores, memory, versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    own = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    return (
        f"{names[0] if names else platform.processor()}, {cores} cores, {memory:.0f} GiB, Python"
        f" {platform.python_version()}, {own}"
    )


def ratio(found: Found, goal: Goal, *, cpu: bool = False) -> list[float]:
    """Images a second (or a core-second) of ours by the other's, one a round that both took part in."""
    ours, other = found.turns.get(goal.ours, []), found.turns.get(goal.other, [])
    pairs = zip(ours, other, strict=False)
    if goal.startless:
        return [_startless(b) / a.cpu_ms for a, b in pairs] if cpu else []
    return [b.cpu_ms / a.cpu_ms if cpu else a.rate / b.rate for a, b in pairs]


def _startless(turn: Turn) -> float:
    """Milliseconds of CPU an image, less what starting cost."""
    return 1000 * (turn.cpu_s - turn.parts.get("start_cpu_s", 0.0)) / turn.count


def wanted(found: Found) -> list[Goal]:
    """The goals about those who were to take part."""
    return [goal for goal in GOALS if {goal.ours, goal.other} <= set(found.names)]


def systems(found: Found) -> Rows:
    """What each reached."""
    rows: list[tuple[str, ...]] = []
    for name in found.names:
        recipe = SYSTEMS[name]
        turns = found.turns.get(name)
        if not turns:
            rows.append((recipe.label, found.missing.get(name, NONE), NONE, ""))
            continue
        rate, cpu = spread([turn.rate for turn in turns], ".0f"), spread([turn.cpu_ms for turn in turns], ".2f")
        rows.append((recipe.label, rate, cpu, str(turns[0].count)))
        if "steady" in turns[0].parts:
            steady = spread([turn.parts["steady"] for turn in turns], ".0f")
            rows.append(
                (f"{recipe.label.partition(',')[0]}, steady: the last four fifths of its results", steady, "", "")
            )
        if "start_cpu_s" in turns[0].parts:
            less = [_startless(turn) for turn in turns]
            rows.append((f"{recipe.label}, without its start", "", spread(less, ".2f"), ""))
    return "Systems", ("system", "images/s", "CPU ms an image", "pictures a round"), rows


def goals(found: Found) -> Rows:
    """Ratios beside what was asked for."""
    rows: list[tuple[str, ...]] = []
    for goal in wanted(found):
        clock, cpu = ratio(found, goal), ratio(found, goal, cpu=True)
        asked = "" if goal.least is None else f"≥ {goal.least:g}"
        counted = cpu if goal.cpu else clock
        reached = ""
        if counted and goal.least is not None:
            reached = "yes" if statistics.median(counted) >= goal.least else "**no**"
        times = [spread(values, ".2f") if values else NONE for values in (clock, cpu)]
        if goal.startless:
            times[0] = ""
        rows.append((goal.name if " : " in goal.name else f"Tagmill : {goal.name}", asked, *times, reached))
    return "Ratios", ("ratio", "goal", "images/s", "images a core-second", "met"), rows


def roles(found: Found) -> Rows:
    """Where Tagmill's CPU goes; Postgres is shown and not counted."""
    turns = found.turns.get("line", [])
    rows: list[tuple[str, ...]] = []
    for role in ROLES:
        spent = [turn.parts[f"{role}_cpu_ms"] for turn in turns if f"{role}_cpu_ms" in turn.parts]
        name = f"{role} (not counted above)" if role == "postgres" else role
        rows.append((name, spread(spent, ".2f") if spent else NONE))
    return "Tagmill's CPU by role, with its children", ("role", "CPU ms an image"), rows


PARTS: dict[str, Callable[[Found], Rows]] = {"end-to-end": systems, "ratios": goals, "cpu-by-role": roles}
STOCK_PARTS: dict[str, Callable[[Found], Rows]] = {"stock": systems, "stock-ratios": goals}


def tables(found: Found) -> list[Table]:
    """For the screen."""
    shown = []
    for part in (STOCK_PARTS if found.stock else PARTS).values():
        title, heads, rows = part(found)
        table = Table(*heads, title=title)
        for row in rows:
            table.add_row(*row)
        shown.append(table)
    return shown


def write(page: Path, found: Found) -> None:
    """Replace what stands between the markers of each table, and the line that says where they are from."""
    text = page.read_text(encoding="utf-8")
    for name, part in (STOCK_PARTS if found.stock else PARTS).items():
        _, heads, rows = part(found)
        text = placed(text, name, markdown(heads, rows))
    pins = ", ".join(pin.replace("==", " ") for pin in dict.fromkeys(pin for each in PINS.values() for pin in each))
    command = 'make bench ARGS="--only stock"' if found.stock else "make bench"
    origin = (
        f"`{command}` on {found.when}: {found.rounds} rounds, {found.count} pictures, {found.seconds / 60:.0f}"
        f" minutes. {found.machine}; {pins}.\n"
    )
    page.write_text(placed(text, "stock-origin" if found.stock else "origin", origin), encoding="utf-8")
