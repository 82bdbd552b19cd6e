"""The whole line on real photos: URLs in over HTTP, rows out. Prints images/s, what each stage took, and the oracle.

python -m bench.line [--count 4000; from 16384 on, chunks have 512 pictures] [--folder ../shared/data/clothing/images]
"""

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from bench.pictures import paths, serving
from bench.system import SHARED, System, cpu_seconds, peak_rss_mb, reaching, running, submit, watched
from db import workers
from db.session import Database


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=4000)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    options = arguments.parse_args()
    available = paths(options.folder, options.count + 32)
    names, others = available[: options.count], available[options.count :]
    with serving(options.folder) as port, running(reaching(port)) as system:
        _warm(system, port, others)
        _measure(system, port, names)


def _submit(system: System, port: int, names: list[str]) -> str:
    return submit(system.client, ({"url": f"http://127.0.0.1:{port}/{name}", "id": name} for name in names))


def _warm(system: System, port: int, names: list[str]) -> None:
    """Models load at the first picture; that is paid once a process and is not what is measured. Other pictures are
    used, because known bytes are not analysed again."""
    watched(system, _submit(system, port, names))


def stats(database: Database) -> dict[str, dict[str, float]]:
    """Counters by role, summed over its processes."""
    summed: dict[str, dict[str, float]] = {}
    with database.transaction() as session:
        for worker in workers.alive(session):
            role = summed.setdefault(worker["role"], {})
            for name, value in worker["stats"].items():
                if isinstance(value, int | float):
                    role[name] = role.get(name, 0.0) + value
    return summed


def _measure(system: System, port: int, names: list[str]) -> None:
    console = Console(width=110)
    database = Database(system.supervisor.database_url, pool_size=1)
    time.sleep(6)  # a heartbeat, so that the counters before are those of the warm-up
    pids = system.pids
    before, cpu_before = stats(database), cpu_seconds(pids)
    started = time.perf_counter()
    job_id = _submit(system, port, names)
    accepted = time.perf_counter() - started
    watched(system, job_id)
    seconds = time.perf_counter() - started
    cpu_after = cpu_seconds(pids)
    time.sleep(6)
    after = stats(database)

    console.print(f"models: {', '.join(system.models.values()) or 'none'}")
    console.print(
        f"{len(names)} photos in {seconds:.1f} s: [bold]{len(names) / seconds:.0f} images/s[/];"
        f" accepted in {accepted:.2f} s"
    )
    _oracle(console, database, job_id, len(names))
    _stages(console, before, after, len(names), seconds)
    costs = Table("role", "CPU s", "ms an image", "peak MB of one process", title="CPU of the roles and their children")
    for role, pid in pids.items():
        spent = cpu_after[role] - cpu_before[role]
        costs.add_row(role, f"{spent:.1f}", f"{1000 * spent / len(names):.2f}", f"{peak_rss_mb(pid):.0f}")
    console.print(costs)
    _overheads(console, before, after, {role: cpu_after[role] - cpu_before[role] for role in pids}, len(names))
    database.dispose()


def _overheads(
    console: Console,
    before: dict[str, dict[str, float]],
    after: dict[str, dict[str, float]],
    spent: dict[str, float],
    count: int,
) -> None:
    """What claims and records cost, of the CPU of all: in the roles by their threads, in Postgres all that it did."""
    own = sum(
        after.get(role, {}).get(name, 0.0) - before.get(role, {}).get(name, 0.0)
        for role in ("crawler", "worker")
        for name in ("claim_cpu_s", "record_cpu_s")
    )
    total, server = sum(spent.values()), spent.get("postgres", 0.0)
    console.print(
        f"claim and record: {1000 * own / count:.3f} ms of CPU an image in crawler and worker, {own / total:.1%} of"
        f" all; with all of Postgres {1000 * (own + server) / count:.3f} ms, {(own + server) / total:.1%}"
    )


def _stages(
    console: Console, before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], count: int, wall: float
) -> None:
    stages = [
        ("fetch (waiting on the network)", "crawler", "fetch_s"),
        ("wait for a sandbox", "crawler", "sandbox_wait_s"),
        ("normalise: decode, resize, encode, facts", "crawler", "normalise_s"),
        ("write working copies", "crawler", "blob_s"),
        ("record ingest outcomes", "crawler", "record_s"),
        ("read working copies", "worker", "read_s"),
        ("decode working copies", "worker", "decode_s"),
        ("forward", "worker", "forward_s"),
        ("record results", "worker", "record_s"),
    ]
    table = Table("stage", "seconds", "ms an image", "share of the wall clock", title="Seconds inside each stage")
    for label, role, name in stages:
        spent = after.get(role, {}).get(name, 0.0) - before.get(role, {}).get(name, 0.0)
        table.add_row(label, f"{spent:.1f}", f"{1000 * spent / count:.2f}", f"{spent / wall:.0%}")
    console.print(table)
    console.print("Stages run side by side, and many requests wait at once: shares add up to more than 100 %.")


def _oracle(console: Console, database: Database, job_id: str, count: int) -> None:
    """Every accepted item has exactly one outcome; totals agree; one finished event."""
    with database.transaction() as session:
        rows = session.execute(
            text("SELECT outcome, code, count(*), count(DISTINCT seq) FROM results WHERE job_id = :id GROUP BY 1, 2"),
            {"id": job_id},
        ).all()
        events = session.scalar(text("SELECT count(*) FROM outbox WHERE subject = :id"), {"id": job_id})
    total = sum(row[2] for row in rows)
    assert total == sum(row[3] for row in rows) == count, f"{total} outcomes of {count} items"
    assert events == 1, f"{events} finished events"
    outcomes = ", ".join(f"{row[2]} {row[1] or row[0]}" for row in rows)
    console.print(f"oracle: {count} items, {total} outcomes ({outcomes}), {events} finished event")


if __name__ == "__main__":
    main()
