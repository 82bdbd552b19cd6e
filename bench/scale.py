"""How long claims, ends of chunks, progress, pages and retention take beside 10^5, 10^6 and 10^7 pictures.

python -m bench.scale [--sizes 100000 1000000 10000000] [--repeats 60] [--folder /var/tmp] [--json FILE]

A throw-away Postgres grows from size to size. The calls are those of the system: the API's routes (without a socket),
and the functions of `db` in the workers' role, each in a committed transaction. 10^7 pictures take 15 GB of disk.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from flask.testing import FlaskClient
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from api import paging
from api.app import create_app
from api.settings import ApiSettings
from bench.report import machine
from bench.scale_rows import CHUNK, Filled, drop, fill
from db import accounts, chunks, images, jobs, migrate, recording
from db.chunks import Chunk
from db.images import ImageRecord
from db.jobs import JobSpec, NewItem
from db.recording import InferOutcome, IngestOutcome
from db.session import API_ROLE, WORKER_ROLE, Database
from worker.embedded import EmbeddedPostgres

JOB = 100_000
"""Items of an ordinary job: the default limit. From 10^7 on, half of what is added is one job."""
BYTES_EACH = 1_500
OWNER = uuid4()


@dataclass
class Times:
    """Milliseconds of every call, by what was called, at one size."""

    size: int
    load: float = 0.0
    gigabytes: float = 0.0
    calls: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """One call."""
        started = time.perf_counter()
        yield
        self.calls.setdefault(name, []).append(1000 * (time.perf_counter() - started))


@dataclass(frozen=True)
class House:
    """Postgres as the roles see it, and the API over it."""

    url: str
    owner: Database
    worker: Database
    api: Database
    client: FlaskClient
    key: str
    account: int

    def get(self, path: str) -> None:
        """A route's answer, which must be a good one."""
        answer = self.client.get(path, headers={"Authorization": f"Bearer {self.key}"})
        assert answer.status_code == 200, answer.text


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    arguments.add_argument("--repeats", type=int, default=60)
    arguments.add_argument("--folder", type=Path, default=None, help="where the throw-away Postgres lives")
    arguments.add_argument("--json", type=Path, default=None, help="write every figure there")
    options = arguments.parse_args()
    console = Console(width=150, highlight=False)
    found: list[Times] = []
    dropped: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory(prefix="tagmill-scale-", dir=options.folder) as folder, opened(folder) as house:
        there = 0
        added: list[tuple[int, int]] = []
        for size in sorted(options.sizes):
            free = shutil.disk_usage(folder).free
            if free < BYTES_EACH * (size - there) + 3e9:
                console.print(f"{size:,} pictures left out: {free / 1e9:.0f} GB free are not enough")
                break
            started = time.perf_counter()
            parts = _parts(size - there)
            bucket, filled = fill(house.owner, house.account, there, parts)
            added.append((bucket, size - there))
            there = size
            console.print(f"{size:,} pictures there, {time.perf_counter() - started:.0f} s to write what was missing")
            found.append(_measure(house, size, filled, options.repeats))
            console.print(_table(found))
            _write(options.json, found, dropped)
        for bucket, count in added:
            started = time.perf_counter()
            drop(house.owner, bucket)
            dropped.append((count, 1000 * (time.perf_counter() - started)))
    for count, milliseconds in dropped:
        console.print(f"dropping a bucket of {count:,} pictures, once: {milliseconds:.0f} ms")
    console.print(machine())
    _write(options.json, found, dropped)


def _write(path: Path | None, found: list[Times], dropped: list[tuple[int, float]]) -> None:
    if path is not None:
        shown = {"machine": machine(), "dropped": dropped, "sizes": [vars(each) for each in found]}
        path.write_text(json.dumps(shown, indent=1), encoding="utf-8")


def _parts(count: int) -> list[int]:
    """The jobs that hold so many pictures: ordinary ones, and a large one where there is room."""
    large = [count // 2] if count > 20 * JOB else []
    rest = count - sum(large)
    return [JOB] * (rest // JOB) + ([rest % JOB] if rest % JOB else []) + large


@contextmanager
def opened(folder: str) -> Iterator[House]:
    """A migrated throw-away Postgres in this folder."""
    root = Path(folder)
    # What is only for filling: 10^7 rows need no second copy in the log, and fewer checkpoints.
    settings = {"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "2GB", "maintenance_work_mem": "512MB"}
    with EmbeddedPostgres(root / "postgres", settings=settings) as postgres:
        migrate.upgrade(postgres.url)
        owner = Database(postgres.url, statement_timeout_ms=3_600_000)
        worker, api = Database(postgres.url, role=WORKER_ROLE), Database(postgres.url, role=API_ROLE)
        with owner.transaction() as session:
            account = accounts.create(session, "bench").id
            key = accounts.create_key(session, account, "bench")[1]
        wiring = ApiSettings(
            database_url=postgres.url, database_role=API_ROLE, blob_root=root / "blobs", model_root=root / "models"
        )
        yield House(postgres.url, owner, worker, api, create_app(wiring).test_client(), key, account)
        for database in (owner, worker, api):
            database.dispose()


def _measure(house: House, size: int, filled: list[Filled], repeats: int) -> Times:
    times = Times(size, load=os.getloadavg()[0])
    with house.owner.transaction() as session:
        stored = session.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    times.gigabytes = stored / 1e9
    ordinary = [job for job in filled if job.total == JOB] or filled
    large = max(filled, key=lambda job: job.total)
    fresh = through(house, times, size, repeats)
    chosen = random.Random(size)
    readers: dict[str, Callable[[], str]] = {
        "progress": lambda: f"/v1/jobs/{chosen.choice(ordinary).id}",
        "page, first": lambda: _page(chosen.choice(ordinary), 0.0),
        "page, middle": lambda: _page(chosen.choice(ordinary), chosen.uniform(0.3, 0.7)),
        "page, last": lambda: _page(chosen.choice(ordinary), 1.0),
        "page of a code": lambda: f"{_page(chosen.choice(ordinary), 0.5)}&code=http_404",
        "page of failures": lambda: f"{_page(chosen.choice(ordinary), 0.5)}&outcome=failed",
        "page, nothing open": lambda: f"{_page(chosen.choice(ordinary), 0.0)}&outcome=open",
        "new job: progress": lambda: f"/v1/jobs/{fresh.id}",
        "new job: page, first": lambda: _page(fresh, 0.0),
        "new job: page, middle": lambda: _page(fresh, chosen.uniform(0.3, 0.7)),
        "job list": lambda: "/v1/jobs",
    }
    if large.total > JOB:
        readers |= {
            "large job: progress": lambda: f"/v1/jobs/{large.id}",
            "large job: page, first": lambda: _page(large, 0.0),
            "large job: page, middle": lambda: _page(large, chosen.uniform(0.3, 0.7)),
            "large job: page, last": lambda: _page(large, 1.0),
        }
    for path in readers.values():
        house.get(path())  # plans and connections are made once
    for _ in range(repeats):
        for name, path in readers.items():
            wanted = path()
            with times.measured(name):
                house.get(wanted)
    _retention(house, times, max(30, repeats // 2))
    return times


def _page(job: Filled, share: float) -> str:
    after = int((job.total - 101) * share)
    cursor = f"&cursor={paging.after_item(job.id, after)}" if share else ""
    return f"/v1/jobs/{job.id}/items?limit=100{cursor}"


def through(house: House, times: Times, size: int, repeats: int) -> Filled:
    """A new job of so many chunks through claim and end of both stages. No statistics of it are made."""
    # A job of fewer than 32 full chunks is cut into smaller ones.
    count = max(32, repeats + 1) * CHUNK
    urls = (NewItem(url=f"https://new.test/{size}/{n}.jpg", client_id=f"n-{n}") for n in range(count))
    with house.api.transaction(house.account) as session:
        job = jobs.submit(session, house.account, JobSpec(), urls, max_items=10**7, chunk_size=CHUNK)
    for turn in range(repeats + 1):
        kept = times if turn else Times(size)  # the first warms connections
        with kept.measured("claim, ingest"), house.worker.transaction() as session:
            claimed = chunks.claim(session, "ingest", OWNER, 60)[0]
            members = chunks.items(session, claimed)
        outcomes = [_ingested(size, claimed, item.seq) for item in members]
        assert len(outcomes) == CHUNK
        with kept.measured(f"record {CHUNK}, ingest"), house.worker.transaction() as session:
            recording.finish_ingest(session, claimed, outcomes)
        with kept.measured("claim, infer"), house.worker.transaction() as session:
            claimed = chunks.claim(session, "infer", OWNER, 60)[0]
            pictures = chunks.images_of(session, claimed)
        assert len(pictures) == CHUNK
        with kept.measured(f"record {CHUNK}, infer"), house.worker.transaction() as session:
            scores = {picture.sha256: {"tags": TAGS, "scores": SCORES} for picture in pictures}
            images.record_analyses(session, house.account, "clothing@1", scores)
            results = [InferOutcome(each.seq, each.sha256, tags=TAGS, moderation=VERDICT) for each in pictures]
            recording.finish_infer(session, claimed, results)
    with house.owner.transaction() as session:
        session.execute(text("DELETE FROM chunks WHERE job_id = :id AND state <> 'done'"), {"id": job.id})
        session.execute(text("UPDATE jobs SET state = 'finished', settled_at = now() WHERE id = :id"), {"id": job.id})
    return Filled(job.id, (repeats + 1) * CHUNK)


TAGS = [{"label": "shirt", "group": "category", "score": 0.93, "model": "clothing@1"}]
SCORES = {"Drawing": 0.01, "Hentai": 0.01, "Neutral": 0.95, "Porn": 0.01, "Sexy": 0.02}
VERDICT = {"verdict": "approve", "policy": "default@1", "model": "judge@1", "scores": SCORES}


def _ingested(size: int, chunk: Chunk, seq: int) -> IngestOutcome:
    digest = random.Random(f"{size} {chunk.job_id} {seq}").randbytes(32)
    picture = ImageRecord(
        digest, f"work/{digest.hex()[:32]}", 28_000, 400, 533, "JPEG", digest, digest, 80,
        [{"name": "navy", "hex": "#1c2438", "share": 0.41}], 100.0, 1,
    )  # fmt: skip
    return IngestOutcome(seq, picture, status=200)


def _retention(house: House, times: Times, repeats: int) -> None:
    """Small buckets come and go beside the large ones."""
    for _ in range(repeats):
        with house.owner.transaction() as session:
            bucket = session.execute(text("SELECT tagmill_open_bucket()")).scalar_one()
            job = jobs.submit(
                session,
                house.account,
                JobSpec(),
                (NewItem(url=f"https://old.test/{n}.jpg") for n in range(1000)),
                max_items=1000,
            )
            session.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job.id})
        with times.measured("retention, 1,000 items"):
            drop(house.owner, bucket)


def _table(found: list[Times]) -> Table:
    heads = (f"{each.size:,}\n{each.gigabytes:.1f} GB, load {each.load:.1f}" for each in found)
    table = Table("ms: median / p95", *heads, title="Beside so many pictures")
    for name in dict.fromkeys(name for each in found for name in each.calls):
        row = []
        for each in found:
            calls = sorted(each.calls.get(name, ()))
            row.append(
                f"{statistics.median(calls):.1f} / {calls[int(0.95 * (len(calls) - 1) + 0.5)]:.1f}" if calls else ""
            )
        table.add_row(name, *row)
    return table


if __name__ == "__main__":
    main()
