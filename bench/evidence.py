"""What evidence costs: reading a person's verdict beside the machine's, digests, seals, and verifying all of it.

python -m bench.evidence [--count 200000] [--repeats 300]
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from db import accounts, audit, audit_chain, evidence, items, migrate
from db.audit_chain import Verifier
from db.decisions import decision_of
from db.ids import uuid7
from db.session import WORKER_ROLE, Database
from db.tables import Job
from worker.embedded import EmbeddedPostgres

CHUNK = 512
DECIDED = 50
"""One picture in so many has a person's decision."""
_FILL = (
    """
    INSERT INTO items (bucket, job_id, seq, account_id, url)
    SELECT :bucket, :job, t, :account, 'https://shop.test/' || t || '.jpg' FROM generate_series(0, :last) t""",
    """
    INSERT INTO images (account_id, sha256, work_key, bytes, width, height, format, pdq_quality, sharpness, colours)
    SELECT :account, sha256(int4send(t)), 'w/' || t, 50000, 400, 533, 'JPEG', 80, 100,
      '[{"name": "navy", "hex": "#1c2438", "share": 0.41}]' FROM generate_series(0, :last) t""",
    """
    INSERT INTO results (bucket, job_id, seq, account_id, outcome, sha256, tags, moderation)
    SELECT :bucket, :job, t, :account, 'done', sha256(int4send(t)),
      '[{"label": "shirt", "group": "category", "score": 0.93, "model": "m@1"}]',
      jsonb_build_object('verdict', 'approve', 'rule', NULL, 'policy', 'default@1', 'model', 'judge@1', 'reasons', '[]',
        'hits', '[]', 'scores', jsonb_build_object('Drawing', t % 97 / 97.0, 'Hentai', t % 89 / 89.0,
        'Neutral', t % 83 / 83.0, 'Porn', t % 79 / 79.0, 'Sexy', t % 73 / 73.0))
    FROM generate_series(0, :last) t""",
    """
    INSERT INTO decisions (id, account_id, sha256, job_id, seq, kind, verdict, actor)
    SELECT gen_random_uuid(), :account, sha256(int4send(t)), :job, t, 'review', 'reject', 'key:bench'
    FROM generate_series(0, :last, :decided) t""",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=200_000, help="results with a verdict")
    arguments.add_argument("--repeats", type=int, default=300, help="pages to read")
    options = arguments.parse_args()
    screen = Console(width=100, highlight=False)
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        migrate.upgrade(postgres.url)
        owner = Database(postgres.url, statement_timeout_ms=600_000)
        job = _fill(owner, options.count)
        worker = Database(postgres.url, role=WORKER_ROLE)
        screen.print(_pages(worker, job, options.count, options.repeats))
        screen.print(_chain(worker, job, options.count))
        for database in (owner, worker):
            database.dispose()


def _fill(owner: Database, count: int) -> Job:
    with owner.transaction() as session:
        bucket = session.scalar(text("SELECT id FROM buckets WHERE closed_at IS NULL"))
        key: dict[str, Any] = {"job": uuid7(), "account": accounts.create(session, "bench").id, "bucket": bucket}
        session.execute(
            text(
                "INSERT INTO jobs (id, account_id, lane, analyses, options, bucket, models, policy, total)"
                " VALUES (:job, :account, 'bulk', '{tags,moderation}', '{}', :bucket, '{}', '{}', :count)"
            ),
            {**key, "count": count},
        )
        for statement in _FILL:
            session.execute(text(statement), {**key, "last": count - 1, "decided": DECIDED})
    with owner.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    with owner.transaction() as session:
        return session.get_one(Job, key["job"])


def _pages(database: Database, job: Job, count: int, repeats: int) -> Table:
    """The same pages with and without the look-up, in turns, so that both see the same machine."""
    overlay = decision_of("i.account_id", "r.sha256", ":context")
    assert overlay in str(items._PAGE), "the look-up is not where it was"
    bare = text(str(items._PAGE).replace(overlay, "NULL AS decision"))
    table = Table(title=f"A page of 100 of {count:,} items, one in {DECIDED} decided by a person")
    for heading in ("Reads", "Pages", "Median ms", "p95 ms", "Max ms"):
        table.add_column(heading, justify="left" if heading == "Reads" else "right")
    chosen = random.Random(7)
    both = {"the machine's verdict": bare, "the verdict that counts": items._PAGE}
    seconds: dict[str, list[float]] = {name: [] for name in both}
    query = items._PAGE
    for _ in range(repeats):
        after = chosen.randrange(count - 100)
        for name, each in both.items():
            items._PAGE = each  # type: ignore[misc]
            with database.transaction(job.account_id) as session:
                began = time.perf_counter()
                found = items.page(session, job.account_id, job, after_seq=after, limit=100)
                seconds[name].append(time.perf_counter() - began)
            assert len(found) == 100
    items._PAGE = query  # type: ignore[misc]
    for name, taken in seconds.items():
        p95 = statistics.quantiles(taken, n=20)[-1]
        figures = (statistics.median(taken), p95, max(taken))
        table.add_row(name, f"{repeats}", *(f"{1000 * each:.1f}" for each in figures))
    return table


def _chain(database: Database, job: Job, count: int) -> Table:
    table = Table(title="Digests, seals and the verifier (once)")
    for heading in ("Step", "Rows", "Seconds", "Rows/s"):
        table.add_column(heading, justify="left" if heading == "Step" else "right")

    def timed(step: str, rows: int, act: Callable[[], object]) -> None:
        began = time.perf_counter()
        act()
        seconds = time.perf_counter() - began
        table.add_row(step, f"{rows:,}", f"{seconds:.2f}", f"{rows / seconds:,.0f}")

    def digests() -> None:
        for low in range(0, count, CHUNK):
            with database.transaction() as session:
                seqs = range(low, min(low + CHUNK, count))
                evidence.cover_verdicts(session, job.account_id, job.bucket, job.id, seqs, low)

    def entries() -> None:
        with database.transaction() as session:
            for number in range(count // 10):
                audit.record(session, job.account_id, "key:bench", "bench.act", str(number), number=number)

    def seals() -> None:
        sealed = 1
        while sealed:
            with database.transaction() as session:
                sealed = audit_chain.seal(session)

    def verify(with_evidence: bool) -> None:
        verifier = Verifier(with_evidence=with_evidence)
        more = True
        while more:
            with database.transaction() as session:
                more = verifier.step(session)
        assert not verifier.findings
        assert verifier.evidence == (-(-count // CHUNK) if with_evidence else 0)

    timed(f"digest of verdicts, {CHUNK} a chunk", count, digests)
    timed("write audit entries", count // 10, entries)
    total = count // 10 + -(-count // CHUNK)
    timed("seal them", total, seals)
    timed("verify the chain", total, lambda: verify(False))
    timed("verify the chain and every verdict", count, lambda: verify(True))
    return table


if __name__ == "__main__":
    main()
