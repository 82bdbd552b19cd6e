"""Replaying a policy over stored analyses, and deciding a window again: seconds, over synthetic results of many days.

python -m bench.whatif [--count 1000000] [--repeats 3]
"""

import argparse
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from db import accounts, migrate, policy
from db.ids import uuid7
from db.session import WORKER_ROLE, Database, Session
from db.whatif import Window
from worker.embedded import EmbeddedPostgres
from worker.replaying import replay

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
STEP = 100_000
# `t` is the number of the picture; scores are hashes of it, so that nothing needs to be sent. Most are low.
_SCORE = "round((abs(hashint4(t * {factor}))::numeric / 2147483648) ^ {power}, 6)"
_SCORES = ", ".join(
    f"'{name}', {_SCORE.format(factor=factor, power=power)}"
    for name, factor, power in (
        ("Drawing", 3, 2),
        ("Hentai", 5, 8),
        ("Neutral", 7, 1),
        ("Porn", 11, 8),
        ("Sexy", 13, 4),
    )
)
_FILL = (
    """
    INSERT INTO items (bucket, job_id, seq, account_id, url, category)
    SELECT :bucket, :job, t, :account, 'https://shop.test/' || t || '.jpg', 'l' || t % 17
    FROM generate_series(CAST(:low AS int), :high) t""",
    """
    INSERT INTO images (account_id, sha256, work_key, bytes, width, height, format, pdq_quality, sharpness)
    SELECT :account, sha256(int4send(t)), 'w/' || t, 50000 + t % 1000, 300 + t % 900, 300 + (t * 7) % 900, 'JPEG', 80,
      100 + t % 50 FROM generate_series(CAST(:low AS int), :high) t""",
    """
    INSERT INTO analyses (account_id, sha256, model, scores)
    SELECT :account, sha256(int4send(t)), 'tagger@1', jsonb_build_object('tags', (
      SELECT jsonb_agg(jsonb_build_object('label', 'l' || (t + n) % 17, 'group', 'category',
        'score', round((0.9 / (n + 1))::numeric, 6)) ORDER BY n) FROM generate_series(t % 40 / 39, 5) n))
    FROM generate_series(CAST(:low AS int), :high) t""",
    f"""
    INSERT INTO results (bucket, job_id, seq, account_id, outcome, sha256, tags, moderation, created_at)
    SELECT :bucket, :job, t, :account, 'done', sha256(int4send(t)), '[]'::jsonb, jsonb_build_object('verdict',
      'approve', 'rule', NULL, 'policy', 'default@1', 'model', 'judge@1', 'reasons', '[]'::jsonb, 'scores',
      jsonb_build_object({_SCORES})), CAST(:begin AS timestamptz) + t * CAST(:pace AS interval)
    FROM generate_series(CAST(:low AS int), :high) t""",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=1_000_000, help="stored analyses")
    arguments.add_argument("--days", type=int, default=30)
    arguments.add_argument("--repeats", type=int, default=3)
    options = arguments.parse_args()
    screen = Console(width=110, highlight=False)
    fast = {"max_wal_size": "4GB", "shared_buffers": "512MB"}
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "postgres", settings=fast) as postgres,
    ):
        migrate.upgrade(postgres.url, api_password="api", worker_password="worker")
        owner = Database(postgres.url, statement_timeout_ms=600_000)
        screen.print(f"making {options.count:,} results of {options.days} days")
        with owner.transaction() as session:
            key = _begin(session, options.count)
        pace = timedelta(days=options.days) / options.count
        for low in range(0, options.count, STEP):
            with owner.transaction() as session:
                for statement in _FILL:
                    high = min(low + STEP, options.count) - 1
                    session.execute(text(statement), {**key, "low": low, "high": high, "begin": BEGIN, "pace": pace})
        with owner.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        worker = Database(postgres.url, role=WORKER_ROLE)
        window = Window(BEGIN, BEGIN + timedelta(days=options.days))
        screen.print(_replays(worker, window, options.repeats))
        screen.print(_redecision(worker, window))
        for database in (owner, worker):
            database.dispose()


def _begin(session: Session, count: int) -> dict[str, Any]:
    bucket = session.scalar(text("SELECT id FROM buckets WHERE closed_at IS NULL"))
    key = {"job": uuid7(), "account": accounts.create(session, "bench").id, "bucket": bucket, "count": count}
    session.execute(
        text(
            "INSERT INTO jobs (id, account_id, lane, analyses, options, bucket, models, policy, total) VALUES"
            " (:job, :account, 'bulk', '{tags,moderation}', '{}', :bucket, CAST(:models AS jsonb), '{}', :count)"
        ),
        {**key, "models": json.dumps({"tags": "tagger@1", "moderation": "judge@1"})},
    )
    return key


def _policies() -> dict[str, policy.Policy]:
    """One of thresholds, as the default; one of many rules; and one that reads tags and facts too."""
    thresholds = {"Porn": {"review": 0.30, "reject": 0.85}, "Hentai": {"review": 0.4, "reject": 0.9}}
    scores = [
        _rule(f"porn_{number}", {"score": "Porn", "at_least": 0.3 + number / 60}, "review") for number in range(20)
    ]
    facts = [_rule("small", {"fact": "short_side", "below": 310}, "review")]
    tags = [_rule("mismatch", {"category_mismatch": 0.2}, "review")]
    return {
        "thresholds of 3 classes": policy.validate(
            {"name": "default", "version": 2, "thresholds": {**thresholds, "Sexy": {"review": 0.6}}}
        ),
        "20 rules over scores": policy.validate({"name": "default", "version": 3, "rules": scores}),
        "22 rules, facts and tags": policy.validate({"name": "default", "version": 4, "rules": scores + facts + tags}),
    }


def _rule(name: str, when: dict[str, Any], then: str) -> dict[str, Any]:
    return {"id": name, "when": when, "then": then, "code": name}


def _replays(database: Database, window: Window, repeats: int) -> Table:
    table = Table(title="What-if")
    for heading in ("Policy", "Results", "Flips", "Seconds (median)", "Min–max", "Results/s"):
        table.add_column(heading, justify="left" if heading == "Policy" else "right")
    for name, rules in _policies().items():
        seconds, found = [], {}
        for _ in range(repeats):
            began = time.perf_counter()
            found = replay(database, rules, window)
            seconds.append(time.perf_counter() - began)
        median = statistics.median(seconds)
        count = int(str(found["analyses"]))
        table.add_row(
            name, f"{count:,}", f"{found['changed']:,}", f"{median:.1f}", f"{min(seconds):.1f}–{max(seconds):.1f}",
            f"{count / median:,.0f}",
        )  # fmt: skip
    return table


def _redecision(database: Database, window: Window) -> Table:
    table = Table(title="Deciding the window again (once)")
    for heading in ("Policy", "Written", "Seconds", "Written/s"):
        table.add_column(heading, justify="left" if heading == "Policy" else "right")
    name, rules = next(iter(_policies().items()))
    began = time.perf_counter()
    found = replay(database, rules, window, write="bench")
    seconds = time.perf_counter() - began
    written = int(str(found["written"]))
    table.add_row(name, f"{written:,}", f"{seconds:.1f}", f"{written / seconds:,.0f}")
    return table


if __name__ == "__main__":
    main()
