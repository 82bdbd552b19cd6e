"""Puts a job's outcomes into the database by hand, as the workers would, for tests that only read them."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import text

from db.blobs import work_key
from db.session import Database

TAGS = [{"label": "dress", "group": "category", "score": 0.91, "model": "tagger@1"}]
MODERATION = {
    "scores": {"Neutral": 0.97, "Porn": 0.01},
    "verdict": "approve",
    "reasons": [],
    "policy": "default@1",
    "model": "nsfwjs@1",
}


def settle(database: Database, job_id: str, outcomes: dict[int, str | None], sha: bytes = bytes(range(32))) -> None:
    """Write results: seq → None (done, with the picture `sha`) or the code it failed with; then the job is finished."""
    with database.transaction() as session:
        job = session.execute(text("SELECT account_id, bucket FROM jobs WHERE id = :id"), {"id": UUID(job_id)}).one()
        key: dict[str, Any] = {"bucket": job.bucket, "job": UUID(job_id), "account": job.account_id}
        session.execute(
            text(
                "INSERT INTO images (account_id, sha256, work_key, bytes, width, height, format, pdq, pdq_quality,"
                " colours, sharpness) VALUES (:account, :sha, :work, 10, 4, 3, 'JPEG', :pdq, 90,"
                " CAST(:colours AS jsonb), 0.5) ON CONFLICT DO NOTHING"
            ),
            {
                **key,
                "sha": sha,
                "work": work_key(job.account_id, sha),
                "pdq": "01" * 128,
                "colours": json.dumps([{"name": "red", "hex": "#ff0000", "share": 1.0}]),
            },
        )
        for seq, code in outcomes.items():
            if code != "cancelled":
                session.execute(
                    text(
                        "INSERT INTO ingests (bucket, job_id, seq, account_id, outcome, code, sha256)"
                        " VALUES (:bucket, :job, :seq, :account, :outcome, :code, :sha)"
                    ),
                    {
                        **key,
                        "seq": seq,
                        "outcome": "failed" if code else "done",
                        "code": code,
                        "sha": None if code else sha,
                    },
                )
            outcome = "done" if code is None else "cancelled" if code == "cancelled" else "failed"
            session.execute(
                text(
                    "INSERT INTO results (bucket, job_id, seq, account_id, outcome, code, detail, sha256, tags,"
                    " moderation) VALUES (:bucket, :job, :seq, :account, :outcome, :code, NULL, :sha,"
                    " CAST(:tags AS jsonb), CAST(:moderation AS jsonb))"
                ),
                {
                    **key,
                    "seq": seq,
                    "outcome": outcome,
                    "code": code,
                    "sha": sha if code is None else None,
                    "tags": json.dumps(TAGS) if code is None else None,
                    "moderation": json.dumps(MODERATION) if code is None else None,
                },
            )
        session.execute(text("UPDATE chunks SET state = 'done', finished_at = now() WHERE job_id = :job"), key)
        session.execute(
            text("UPDATE jobs SET state = 'finished', started_at = now(), settled_at = now() WHERE id = :job"), key
        )


def count(database: Database, table: str) -> int:
    """How many rows the table has, in all accounts."""
    with database.transaction() as session:
        found = session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        assert isinstance(found, int)
        return found
