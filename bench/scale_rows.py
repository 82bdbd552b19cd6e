"""Synthetic rows of ended jobs, as many as are asked for, written where `db.recording` writes them; for bench.scale.

A picture has an item, an ingest row, a result with a tag and a verdict (one in a hundred failed), and an image; a job
has its chunks of both stages, all done. Stored scores and validators are left out.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.bulk import leaf
from db.ids import uuid7
from db.session import Database, driver_connection

CHUNK = 512
FAILED = 100
"""One picture in so many could not be fetched."""


@dataclass(frozen=True)
class Filled:
    """An ended job: `first` is the number of its first picture among all."""

    id: UUID
    total: int


_JOB = """
INSERT INTO jobs (id, account_id, state, lane, analyses, bucket, total, policy, started_at, settled_at)
SELECT :job, :account, 'finished', 'bulk', '{tags,moderation}', :bucket, :total, document, now(), now()
FROM policies WHERE name = 'default' AND state = 'active' LIMIT 1"""
_CHUNKS = """
INSERT INTO chunks (account_id, job_id, bucket, stage, state, lo, hi, done, failed, codes, progress, finished_at)
SELECT :account, :job, :bucket, stage, 'done', lo, least(lo + :size, :total),
  least(:size, :total - lo) - lost, CASE WHEN stage = 'ingest' THEN lost ELSE 0 END,
  CASE WHEN stage = 'ingest' AND lost > 0 THEN jsonb_build_object('http_404', lost) ELSE '{}' END,
  least(:size, :total - lo), now() - interval '1 hour'
FROM generate_series(0, :total - 1, :size) AS lo,
  LATERAL (SELECT (least(lo + :size, :total) + :failed - 1) / :failed - (lo + :failed - 1) / :failed AS lost) AS lost,
  unnest(ARRAY['ingest', 'infer']) AS stage"""
# {0} is the partition's leaf; the number of a picture among all is :first + t, and its bytes' digest is of that.
_ROWS = (
    (
        "items",
        "INSERT INTO {0} (bucket, job_id, seq, account_id, url, client_id) SELECT :bucket, :job, t, :account,"
        " 'https://cdn.shop.test/catalog/2026/' || lpad((:first + t)::text, 9, '0') || '/front.jpg',"
        " 'sku-' || :first + t FROM generate_series(0, :total - 1) t",
    ),
    (
        "ingests",
        "INSERT INTO {0} (bucket, job_id, seq, account_id, outcome, code, sha256, status) SELECT :bucket, :job, t,"
        " :account, CASE WHEN bad THEN 'failed' ELSE 'done' END, CASE WHEN bad THEN 'http_404' END,"
        " CASE WHEN NOT bad THEN sha256(int8send(:first + t)) END, CASE WHEN bad THEN 404 ELSE 200 END"
        " FROM generate_series(0, :total - 1) t, LATERAL (SELECT t % :failed = 0 AS bad) AS b",
    ),
    (
        "results",
        "INSERT INTO {0} (bucket, job_id, seq, account_id, outcome, code, sha256, tags, moderation) SELECT :bucket,"
        " :job, t, :account, CASE WHEN bad THEN 'failed' ELSE 'done' END, CASE WHEN bad THEN 'http_404' END,"
        " CASE WHEN NOT bad THEN sha256(int8send(:first + t)) END, CASE WHEN NOT bad THEN jsonb_build_array("
        "jsonb_build_object('label', 'shirt', 'group', 'category', 'score', t % 97 / 97.0, 'model', 'clothing@1')) END,"
        " CASE WHEN NOT bad THEN jsonb_build_object('verdict', 'approve', 'policy', 'default@1', 'model', 'judge@1',"
        " 'scores', jsonb_build_object('Neutral', t % 83 / 83.0, 'Porn', t % 79 / 79.0, 'Sexy', t % 73 / 73.0)) END"
        " FROM generate_series(0, :total - 1) t, LATERAL (SELECT t % :failed = 0 AS bad) AS b",
    ),
)
_IMAGES = """
INSERT INTO images (account_id, sha256, work_key, work_sha256, bytes, width, height, format, pdq, pdq_quality, colours,
  sharpness, made_by)
SELECT :account, sha256(int8send(t)), 'work/' || left(encode(sha256(int8send(t)), 'hex'), 32), sha256(int8send(t)),
  28000, 400, 533, 'JPEG', ('x' || encode(sha256(int8send(t)), 'hex'))::bit(256), 80,
  '[{"name": "navy", "hex": "#1c2438", "share": 0.41}]', 100, 1
FROM generate_series(CAST(:first AS bigint), :first + :total - 1) t"""


def fill(owner: Database, account: int, first: int, jobs: list[int]) -> tuple[int, list[Filled]]:
    """A new bucket, open from now on, with ended jobs of so many pictures each; its number and the jobs."""
    filled = []
    with owner.transaction() as session:
        # The index is made once at the end: a random insert each would cost the most of all.
        session.execute(text("ALTER TABLE images DROP CONSTRAINT images_pkey"))
        bucket: int = session.execute(text("SELECT tagmill_open_bucket()")).scalar_one()
        for total in jobs:
            filled.append(_job(session, account, bucket, first, total))
            first += total
        session.execute(text("ALTER TABLE images ADD PRIMARY KEY (account_id, sha256)"))
    with owner.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
    return bucket, filled


def drop(owner: Database, bucket: int) -> None:
    """Retention: a bucket's partitions go, in one transaction; its jobs stay with what their chunks counted."""
    with owner.transaction() as session:
        for table in ("items", "ingests", "results"):
            session.execute(text(f'DROP TABLE "{table}_b{bucket}"'))


def _job(session: Session, account: int, bucket: int, first: int, total: int) -> Filled:
    job = uuid7()
    place = {"job": job, "account": account, "bucket": bucket}
    parameters = {**place, "first": first, "total": total, "size": CHUNK, "failed": FAILED}
    session.execute(text(_JOB), parameters)
    session.execute(text(_CHUNKS), parameters)
    for table, statement in _ROWS:
        name = leaf(table, bucket).as_string(driver_connection(session))  # type: ignore[arg-type]
        session.execute(text(statement.format(name)), parameters)
    session.execute(text(_IMAGES), parameters)
    return Filled(job, total)
