"""From POST /v1/moderations to the verdict, on an idle system and beside a bulk job of 100,000 pictures.

python -m bench.moderation_latency [--seconds 180] [--count 100000] [--other-account] [--by-url]

Single uploads start every second, whether or not the last one is through. Each is a photo that the system has not seen
yet (a photo of the folder with a few bytes behind its end), and so is each of the job. The job is cancelled at the end.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from bench.pictures import serving
from bench.system import SHARED, System, reaching, running, submit
from db import accounts
from db.session import Database
from worker.client import Client

WAIT_S = 25


@dataclass(frozen=True)
class Single:
    """One upload: how long its client waited for the verdict, in seconds."""

    id: str
    state: str
    seconds: float


@dataclass(frozen=True)
class Load:
    """What single uploads are made of. `port`: of the picture server, if they are sent as URLs."""

    folder: Path
    names: list[str]
    port: int | None

    def send(self, client: Client, number: int) -> Single:
        """Send one and hold on until the verdict."""
        name = self.names[number % len(self.names)]
        unique = f"single-{uuid4()}"
        kind, body = "image/jpeg", (self.folder / name).read_bytes() + unique.encode()
        if self.port is not None:
            kind, body = (
                "application/json",
                json.dumps({"url": f"http://127.0.0.1:{self.port}/{name}?{unique}"}).encode(),
            )
        began = time.perf_counter()
        answer = client.moderate(body, kind, params={}, wait_s=WAIT_S, idempotency_key=unique)
        while answer["state"] == "pending":
            answer = client.moderation(answer["id"], wait_s=WAIT_S)
        return Single(answer["id"], answer["state"], time.perf_counter() - began)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=180)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--every", type=float, default=1.0)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    arguments.add_argument("--other-account", action="store_true", help="The job is another account's.")
    arguments.add_argument("--by-url", action="store_true", help="Single uploads are URLs too.")
    options = arguments.parse_args()
    names = sorted(path.name for path in options.folder.iterdir())
    with serving(options.folder) as port, running(reaching(port)) as system:
        load = Load(options.folder, names, port if options.by_url else None)
        _measure(system, load, options, port)


def _measure(system: System, load: Load, options: argparse.Namespace, port: int) -> None:
    console = Console(width=110)
    database = Database(system.supervisor.database_url, pool_size=1)
    _series(system.client, load, 3, options.every)  # the model loads at the first
    count = int(options.seconds / options.every)
    idle = _series(system.client, load, min(60, count), options.every)
    console.print(f"models: {', '.join(system.models.values()) or 'none'}")
    with _bulk_client(system, database, options.other_account) as client:
        began = time.perf_counter()
        job = _submit(client, load.names, port, options.count)
        console.print(f"{options.count} pictures accepted in {time.perf_counter() - began:.1f} s")
        _under_way(client, job)
        before, began = _settled(client, job), time.perf_counter()
        busy = _series(system.client, load, count, options.every)
        rate = (_settled(client, job) - before) / (time.perf_counter() - began)
        assert client.job(job)["state"] == "running", "the job ended too early: nothing was measured beside it"
        client.cancel(job)
    table = Table("seconds from POST to verdict", "n", "p50", "p95", "p99", "max")
    table.add_row("idle", *_figures([single.seconds for single in idle]))
    table.add_row("beside the bulk job", *_figures([single.seconds for single in busy]))
    console.print(table)
    console.print(f"the bulk job went on at {rate:.0f} images/s")
    _stages(console, database, [UUID(single.id) for single in busy])
    failed = [single for single in [*idle, *busy] if single.state not in ("decided", "in_review")]
    assert not failed, f"{len(failed)} uploads have no verdict: {failed[:3]}"
    database.dispose()


def _series(client: Client, load: Load, count: int, every_s: float) -> list[Single]:
    """Uploads at a fixed pace, so that a slow one delays none that follow."""
    began = time.monotonic()
    sent = []
    with ThreadPoolExecutor(4, "single") as threads:
        for number in range(count):
            time.sleep(max(0.0, began + number * every_s - time.monotonic()))
            sent.append(threads.submit(load.send, client, number))
    return [each.result() for each in sent]


def _bulk_client(system: System, database: Database, other: bool) -> Client:
    key = system.supervisor.home.saved_key()
    if other:
        with database.transaction() as session:
            account = accounts.create(session, "bulk")
            _, key = accounts.create_key(session, account.id, "bench")
    return Client(system.supervisor.url, key)


def _submit(client: Client, names: list[str], port: int, count: int) -> str:
    return submit(client, ({"url": f"http://127.0.0.1:{port}/{names[n % len(names)]}?{n}"} for n in range(count)))


def _settled(client: Client, job: str) -> int:
    counts: dict[str, Any] = client.job(job)["progress"]
    return int(counts["settled"])


def _under_way(client: Client, job: str) -> None:
    """Until the job is in every stage of the line."""
    while _settled(client, job) < 1000:
        time.sleep(0.5)


def _figures(seconds: list[float]) -> list[str]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return [str(len(seconds)), *(f"{value:.2f}" for value in (cuts[49], cuts[94], cuts[98], max(seconds)))]


def _stages(console: Console, database: Database, ids: list[UUID]) -> None:
    """Where the time went, by the database's clock."""
    with database.transaction() as session:
        found = session.execute(_TIMES, {"ids": ids}).all()
    table = Table("stage, in seconds", "n", "p50", "p95", "p99", "max", title="beside the bulk job")
    names = ("accepted → fetched, decoded, stored", "→ scored, decided, stored", "accepted → decided")
    for name, values in zip(names, zip(*found, strict=True), strict=True):
        table.add_row(name, *_figures([float(value) for value in values]))
    console.print(table)


_TIMES = text(
    """
    SELECT extract(epoch FROM a.finished_at - a.created_at), extract(epoch FROM b.finished_at - a.finished_at),
      extract(epoch FROM b.finished_at - a.created_at)
    FROM moderations m JOIN chunks a ON a.job_id = m.job_id AND a.stage = 'ingest'
    JOIN chunks b ON b.job_id = m.job_id AND b.stage = 'infer' WHERE m.id = ANY(:ids)
    """
)

if __name__ == "__main__":
    main()
