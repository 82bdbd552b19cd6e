"""The same photos twice: a job over all of them, then another over the same URLs, whose server answers 304.

python -m bench.reuse [--count 4000] [--folder ../shared/data/clothing/images] [--more] [--new ROUNDS]

Prints the CPU seconds of all roles and servers for both jobs, and their ratio. The roles' idle work is in both, and is
said. `--more`: also the same bytes behind new URLs (no sandbox), and everything anew (`refetch=always`). `--new`:
instead, what looking for known pictures costs where none is: new pictures, no models, both values of `refetch` in turn.
"""

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.pictures import paths, serving
from bench.system import SHARED, System, cpu_seconds, reaching, running, submit, watched
from bench.tables import spread

QUIET_S = 10.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=4000)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    arguments.add_argument("--more", action="store_true")
    arguments.add_argument("--new", type=int, default=0, metavar="ROUNDS")
    options = arguments.parse_args()
    names = paths(options.folder, options.count)
    with (
        serving(options.folder, etags=True) as port,
        serving(options.folder, etags=True) as other,
        running(reaching(port, other), with_models=not options.new) as system,
    ):
        watched(system, _submit(system, port, [f"{names[0]}?warm{n}" for n in range(32)], {}))
        if options.new:
            _new(system, port, names, options.new)
            return
        plan = [("first", port, {}), ("second, 304", port, {})]
        if options.more:
            plan += [("new URLs, known bytes", other, {}), ("anew", port, {"refetch": "always"})]
        _measure(system, [(name, at, names, params) for name, at, params in plan])


def _submit(system: System, port: int, names: list[str], params: dict[str, str]) -> str:
    rows = ({"url": f"http://127.0.0.1:{port}/{name}", "id": name} for name in names)
    return submit(system.client, rows, **params)


def _new(system: System, port: int, names: list[str], rounds: int) -> None:
    pids = system.pids
    found: dict[str, list[dict[str, float]]] = {"if_changed": [], "always": []}
    for number in range(2 * rounds):
        refetch = ("if_changed", "always")[(number + number // 2) % 2]
        fresh = [f"{name.partition('?')[0]}?new{number}-{n}" for n, name in enumerate(names)]
        before = cpu_seconds(pids)
        watched(system, _submit(system, port, fresh, {"refetch": refetch}), every_s=0.2)
        after = cpu_seconds(pids)
        found[refetch].append({role: 1000 * (after[role] - before[role]) / len(names) for role in after})
    table = Table("refetch", "crawler", "postgres", "both", title="ms of CPU a new picture, median (min–max)")
    for refetch, turns in found.items():
        columns = [[turn[role] for turn in turns] for role in ("crawler", "postgres")]
        columns.append([sum(both) for both in zip(*columns, strict=True)])
        table.add_row(refetch, *(spread(each, ".2f") for each in columns))
    Console(width=120).print(table)


def _measure(system: System, plan: list[tuple[str, int, list[str], dict[str, str]]]) -> None:
    pids = system.pids
    time.sleep(3)
    before, started = cpu_seconds(pids), time.monotonic()
    time.sleep(QUIET_S)
    idle = (sum(cpu_seconds(pids).values()) - sum(before.values())) / (time.monotonic() - started)
    spent: dict[str, dict[str, float]] = {}
    reused: dict[str, dict[str, int]] = {}
    walls: dict[str, float] = {}
    for name, port, names, params in plan:
        before, started = cpu_seconds(pids), time.monotonic()
        job = watched(system, _submit(system, port, names, params), every_s=0.2)
        walls[name] = time.monotonic() - started
        after = cpu_seconds(pids)
        spent[name] = {role: after[role] - before[role] for role in after}
        progress = job["progress"]
        assert isinstance(progress, dict)
        assert progress["outcomes"]["done"] == len(names), progress
        reused[name] = progress["reused"]
        time.sleep(1)
    _print(spent, reused, walls, idle, len(plan[0][2]))


def _print(
    spent: dict[str, dict[str, float]],
    reused: dict[str, dict[str, int]],
    walls: dict[str, float],
    idle: float,
    count: int,
) -> None:
    console = Console(width=150)
    columns = ("job", *spent["first"], "all", "ms an image", "of the first", "reused")
    table = Table(*columns, title=f"CPU s, {count} pictures")
    first = sum(spent["first"].values())
    for name, roles in spent.items():
        total = sum(roles.values())
        table.add_row(
            f"{name} ({walls[name]:.0f} s)",
            *(f"{seconds:.2f}" for seconds in roles.values()),
            f"{total:.2f}",
            f"{1000 * total / count:.2f}",
            f"{total / first:.1%}",
            " ".join(f"{kind} {n}" for kind, n in reused[name].items() if n),
        )
    console.print(table)
    console.print(f"idle: {idle:.3f} CPU s a second, in every row for its seconds")


if __name__ == "__main__":
    main()
