"""What the whole system costs while nothing is to be done: CPU by role and server, and by duty of maintenance.

python -m bench.idle [--quiet 60] [--seconds 120] [--json FILE]

Goal: all roles and servers together need 2 % of one core at most. A small job runs before, so that nothing is new.
"""

import argparse
import json
import os
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.line import stats
from bench.submit import job_of_nowhere
from bench.system import System, cpu_seconds, running, watched
from db.session import Database


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quiet", type=float, default=60.0, help="seconds before, in which nothing happens")
    arguments.add_argument("--seconds", type=float, default=120.0)
    arguments.add_argument("--json", type=Path, default=None, help="write every figure there")
    options = arguments.parse_args()
    console = Console(width=110, highlight=False)
    with running({}, with_models=False) as system:
        watched(system, job_of_nowhere(system, 32))
        time.sleep(options.quiet)
        share, duties = _measure(system, options.seconds)
    total = sum(share.values())
    table = Table("role or server", "% of a core", title=f"{options.seconds:.0f} s, load {os.getloadavg()[0]:.1f}")
    for role, part in sorted(share.items(), key=lambda each: -each[1]):
        table.add_row(role, f"{part:.2%}")
    table.add_row("all", f"[bold]{total:.2%}[/]")
    console.print(table)
    table = Table("duty of maintenance", "% of a core")
    for duty, part in sorted(duties.items(), key=lambda each: -each[1]):
        table.add_row(duty, f"{part:.2%}")
    console.print(table)
    if options.json:
        found = {"seconds": options.seconds, "total": total, "roles": share, "duties": duties}
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _measure(system: System, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of one core: by role, and by what roles count of their own."""
    pids = system.pids
    database = Database(system.supervisor.database_url, pool_size=1)
    counted, before, started = stats(database), cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    spent, over = cpu_seconds(pids), time.monotonic() - started
    after = stats(database)
    database.dispose()
    duties = {
        f"{role}: {name.removesuffix('_cpu_s')}": (value - counted.get(role, {}).get(name, 0.0)) / over
        for role, values in after.items()
        for name, value in values.items()
        if name.endswith("_cpu_s")
    }
    return {role: (spent[role] - before[role]) / over for role in before if role in spent}, duties


if __name__ == "__main__":
    main()
