"""Full load held for long: what grows? Memory, open files, dead rows, the write-ahead log, the broker; and the oracle.

python -m bench.soak [--minutes 30] [--every 10] [--count 4000] [--folder ../shared/data/clothing/images]

Two jobs of new pictures are always in flight. Every few seconds the processes and the servers are looked at; the first
fifth of the samples, in which caches fill, is left out of the slopes. At the end every job is checked: each item with
exactly one outcome, sums that agree, one finished event.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from bench.pictures import serving
from bench.report import machine
from bench.system import SHARED, System, cpu_seconds, descendants, reaching, running, submit
from db.session import Database

IN_FLIGHT = 2
WARM = 0.2
PATIENCE_S = 300.0
DEAD = "SELECT coalesce(sum(n_dead_tup), 0), coalesce(sum(n_live_tup), 0) FROM pg_stat_user_tables"
LOG = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"
HORIZON = (
    "SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0) FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@dataclass
class Series:
    """What was seen of one thing, with the second at which it was."""

    unit: str
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, second: float, value: float) -> None:
        """One look."""
        self.seconds.append(second)
        self.values.append(value)

    def after(self, share: float) -> tuple[Sequence[float], Sequence[float]]:
        """(seconds, values) without the first of them."""
        start = int(len(self.values) * share)
        return self.seconds[start:], self.values[start:]

    def slope(self, share: float) -> float:
        """By how much it grows in an hour, by least squares, without the first of them."""
        seconds, values = self.after(share)
        return 3600 * statistics.linear_regression(seconds, values).slope if len(values) > 2 else float("nan")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--every", type=float, default=10)
    arguments.add_argument("--count", type=int, default=4000, help="pictures of each job")
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    options = arguments.parse_args()
    console = Console(width=130, highlight=False)
    names = sorted(path.name for path in options.folder.iterdir())
    with serving(options.folder) as port, running(reaching(port)) as system:
        soak = Soak(system, port, names, options.count)
        try:
            soak.hold(60 * options.minutes, options.every)
            console.print(soak.table())
            console.print(soak.judge())
        finally:
            soak.close()
    console.print(machine())


class Soak:
    """A system under load, and what was seen of it."""

    def __init__(self, system: System, port: int, names: Sequence[str], count: int) -> None:
        self._system = system
        self._base = f"http://127.0.0.1:{port}"
        self._names = names
        self._count = count
        self._database = Database(system.supervisor.database_url, pool_size=1)
        self._jobs: list[str] = []
        self._open: list[str] = []
        self._seen: dict[str, Series] = {}
        self._restarts = dict(system.supervisor.restarts)
        self._elapsed = 0.0

    def hold(self, seconds: float, every: float) -> None:
        """Keep the load up for so long, then wait for what is in flight."""
        began = time.monotonic()
        before = cpu_seconds(self._system.pids)
        while (now := time.monotonic() - began) < seconds:
            self._refill()
            self._look(now)
            time.sleep(max(0.0, every - (time.monotonic() - began - now)))
        while self._open and time.monotonic() - began < seconds + PATIENCE_S:
            self._refill(no_more=True)
            time.sleep(1)
        self._elapsed = time.monotonic() - began
        after = cpu_seconds(self._system.pids)
        self._spent = sum(after.values()) - sum(before.get(role, 0.0) for role in after)

    def _refill(self, *, no_more: bool = False) -> None:
        self._system.supervisor.watch()
        client = self._system.client
        self._open = [job for job in self._open if client.job(job)["settled_at"] is None]
        while len(self._open) < IN_FLIGHT and not no_more:
            turn = len(self._jobs)
            urls = (f"{self._base}/{self._names[n % len(self._names)]}?{turn}-{n}" for n in range(self._count))
            job = submit(client, ({"url": url} for url in urls))
            self._jobs.append(job)
            self._open.append(job)

    def _look(self, second: float) -> None:
        for role, pid in self._system.pids.items():
            memory, files = _held(descendants(pid))
            self._add(f"{role}: memory", "MB", second, memory)
            self._add(f"{role}: open files", "", second, files)
        with self._database.transaction() as session:
            dead, live = map(float, session.execute(text(DEAD)).one())
            self._add("Postgres: dead rows", "", second, dead)
            self._add("Postgres: dead of all rows", "%", second, 100 * dead / max(1, dead + live))
            self._add("Postgres: written-ahead log", "MB", second, float(session.scalar(text(LOG)) or 0) / 1e6)
            self._add("Postgres: oldest transaction", "s", second, float(session.scalar(text(HORIZON)) or 0))
        with redis.Redis.from_url(self._system.supervisor.broker_url) as client:
            self._add("Valkey: memory", "MB", second, client.info("memory")["used_memory"] / 1e6)

    def _add(self, name: str, unit: str, second: float, value: float) -> None:
        self._seen.setdefault(name, Series(unit)).add(second, value)

    def table(self) -> Table:
        """Each thing at its start, in its middle and at its end, and by how much it grows in an hour."""
        done = len(self._jobs) * self._count
        title = (
            f"{done:,} pictures in {self._elapsed / 60:.0f} minutes: {done / self._elapsed:.0f} a second,"
            f" {1000 * self._spent / done:.1f} ms of CPU each"
        )
        table = Table(
            "what",
            "after the first fifth",
            "median",
            "most",
            "at the end",
            "an hour",
            "… of the last half",
            title=title,
        )
        for name, series in self._seen.items():
            _, values = series.after(WARM)
            figures = (values[0], statistics.median(values), max(values), values[-1])
            unit = f" {series.unit}" if series.unit else ""
            slopes = (f"{series.slope(share):+,.1f}{unit}" for share in (WARM, 0.5))
            table.add_row(name, *(f"{value:,.1f}{unit}" for value in figures), *slopes)
        return table

    def judge(self) -> str:
        """The oracle over every job; AssertionError for what is wrong."""
        with self._database.transaction() as session:
            rows = session.execute(
                text("SELECT job_id, count(*), count(DISTINCT seq) FROM results WHERE job_id = ANY(:jobs) GROUP BY 1"),
                {"jobs": self._jobs},
            ).all()
            events = session.execute(
                text("SELECT subject, count(*) FROM outbox WHERE subject = ANY(:jobs) GROUP BY 1"), {"jobs": self._jobs}
            ).all()
        assert not self._open, f"{len(self._open)} jobs did not end"
        assert {(row[1], row[2]) for row in rows} == {(self._count, self._count)}, "items without exactly one outcome"
        assert len(rows) == len(self._jobs)
        assert [row[1] for row in events] == [1] * len(self._jobs), "a finished event is missing or doubled"
        again = {role: n - self._restarts.get(role, 0) for role, n in self._system.supervisor.restarts.items()}
        return (
            f"oracle: {len(self._jobs)} jobs, {len(self._jobs) * self._count:,} items, each with exactly one outcome,"
            f" one event each; started again: {sum(again.values())}"
        )

    def close(self) -> None:
        """Give the connection back."""
        self._database.dispose()


def _held(pids: set[int]) -> tuple[float, int]:
    """(MB of memory that is theirs alone, open files) of these processes."""
    memory, files = 0.0, 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            continue  # it has ended
        memory += sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
    return memory / 1024, files


if __name__ == "__main__":
    main()
