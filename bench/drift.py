"""Computing the drift of one day: seconds, and the rows that it reads, with synthetic results of more days around it.

python -m bench.drift [--count 100000] [--days 5] [--labels 18]
"""

import argparse
import json
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy import text

from db import accounts, drift, migrate, registry
from db.ids import uuid7
from db.session import WORKER_ROLE, Database, Session
from worker import drifting
from worker.embedded import EmbeddedPostgres

DAY = date(2026, 3, 14)
CLASSES = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
# `t` is the number of the picture; scores are hashes of it, so that nothing needs to be sent.
_ITEMS = """
    INSERT INTO items (bucket, job_id, seq, account_id, url)
    SELECT :bucket, :job, t, :account, 'https://host-' || (hashint4(t) & 63) % 40 || '.test/' || t || '.jpg'
    FROM generate_series(1, :count) t"""
_RESULTS = """
    INSERT INTO results (bucket, job_id, seq, account_id, outcome, sha256, tags, moderation, created_at)
    SELECT :bucket, :job, t, :account, 'done', sha256(convert_to(:day || '/' || t, 'UTF8')),
      jsonb_build_array(jsonb_build_object('label', 'l1', 'group', 'category', 'score', 0.9, 'model', 'tagger@1')),
      jsonb_build_object('verdict', 'approve', 'scores', jsonb_build_object('Neutral', 0.9), 'model', 'judge@1'),
      CAST(CAST(:day AS text) AS date) + t * interval '0.5 second'
    FROM generate_series(1, :count) t"""
_TAGS = """
    INSERT INTO analyses (account_id, sha256, model, scores)
    SELECT :account, sha256(convert_to(:day || '/' || t, 'UTF8')), 'tagger@1', jsonb_build_object('tags', (
      SELECT jsonb_agg(jsonb_build_object('label', 'l' || (t + n) % :labels, 'group', 'category',
        'score', round((0.95 / n)::numeric, 6)) ORDER BY n) FROM generate_series(1, least(:labels, 20)) n))
    FROM generate_series(1, :count) t"""
_CLASSES = """
    INSERT INTO analyses (account_id, sha256, model, scores)
    SELECT :account, sha256(convert_to(:day || '/' || t, 'UTF8')), 'judge@1', jsonb_build_object('scores', (
      SELECT jsonb_object_agg(c, round(abs(hashtext(c || t))::numeric / 2147483648, 6))
      FROM unnest(CAST(:classes AS text[])) c))
    FROM generate_series(1, :count) t"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=100_000, help="results of a day")
    arguments.add_argument("--days", type=int, default=5)
    arguments.add_argument("--labels", type=int, default=18, help="labels of the tagger; 1000 are those of ImageNet")
    options = arguments.parse_args()
    screen = Console(width=110, highlight=False)
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        migrate.upgrade(postgres.url, api_password="api", worker_password="worker")
        owner = Database(postgres.url, statement_timeout_ms=600_000)
        screen.print(f"making {options.days} days of {options.count} results")
        with owner.transaction() as session:
            _install(session, options.labels)
            account = accounts.create(session, "bench").id
        for back in range(options.days):
            with owner.transaction() as session:
                _fill(session, account, DAY - timedelta(days=back), options.count, options.labels)
        with owner.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        worker = Database(postgres.url, role=WORKER_ROLE)
        for attempt in ("first", "again"):
            begun = time.perf_counter()
            done = drifting.compute(worker, DAY)
            seconds = time.perf_counter() - begun
            screen.print(f"{attempt}: {done.rows} rows from {done.pictures} pictures in {seconds:.2f} s")
        with owner.transaction() as session:
            read = _read(session)
            size = session.scalar(text("SELECT pg_total_relation_size('drift') / 1024"))
        screen.print(f"rows read, both tasks: {read}; the day's rows take {size} KiB")
        for database in (owner, worker):
            database.dispose()


def _install(session: Session, labels: int) -> None:
    tagger = {
        "name": "tagger", "version": "1", "task": "tags", "head": {"category": "softmax"},
        "labels": [{"name": f"l{n}", "group": "category"} for n in range(labels)],
    }  # fmt: skip
    judge = {
        "name": "judge", "version": "1", "task": "moderation", "head": {"class": "softmax"},
        "labels": [{"name": name, "group": "class"} for name in CLASSES],
    }  # fmt: skip
    for card in (tagger, judge):
        registry.install_model(session, card, "0" * 64)


def _fill(session: Session, account: int, day: date, count: int, labels: int) -> None:
    key: dict[str, Any] = {"job": uuid7(), "account": account, "day": str(day), "count": count, "labels": labels}
    key["bucket"] = session.scalar(text("SELECT id FROM buckets WHERE closed_at IS NULL"))
    session.execute(
        text(
            "INSERT INTO jobs (id, account_id, lane, analyses, options, bucket, models, policy, total, created_at)"
            " VALUES (:job, :account, 'bulk', '{tags,moderation}', '{}', :bucket, CAST(:models AS jsonb), '{}', :count,"
            " CAST(CAST(:day AS text) AS date))"
        ),
        {**key, "models": json.dumps({"tags": "tagger@1", "moderation": "judge@1"})},
    )
    for statement in (_ITEMS, _RESULTS, _TAGS, _CLASSES):
        session.execute(text(statement), {**key, "classes": list(CLASSES)})


def _read(session: Session) -> dict[str, int]:
    """Rows that the counting statements take from each table, as Postgres counts them; those that a filter or the
    block range index's recheck threw away too."""
    found: dict[str, int] = {}
    for task, statement in drift._COUNTS.items():
        parameters = {"day": DAY, "task": task, "sources": 20, "kept": 0.5, "upload": "upload", "other": "other"}
        (plan,) = session.execute(text(f"EXPLAIN (ANALYZE, FORMAT json) {statement.text}"), parameters).one()
        for node in _nodes(plan[0]["Plan"]):
            if "Relation Name" in node:
                name = node["Relation Name"].rstrip("0123456789").removesuffix("_b")
                thrown = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
                found[name] = found.get(name, 0) + round((node["Actual Rows"] + thrown) * node["Actual Loops"])
    return found


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(below for child in plan.get("Plans", ()) for below in _nodes(child))]


if __name__ == "__main__":
    main()
