"""A shop's data for looking at the console: jobs as they end up, with pictures of one's own or drawn here."""

import hashlib
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image, ImageDraw
from sqlalchemy import text

from db import jobs, workers
from db.blobs import LocalBlobs, work_key
from db.decisions import Decision, append
from db.ids import uuid7
from db.jobs import JobSpec, NewItem
from db.review_queue import enqueue
from db.review_sources import candidate
from db.session import Database

KINDS = ("dress", "shirt", "shoes", "hat", "t-shirt", "pants", "shorts", "outwear")
CLASSES = ("Neutral", "Drawing", "Sexy", "Porn", "Hentai")


@dataclass(frozen=True)
class Shop:
    """What was put in."""

    finished: UUID
    running: UUID


def photos(folder: Path | None, count: int) -> Iterator[bytes]:
    """Working copies: of the photos in the folder, else drawn."""
    found = sorted(folder.glob("*.jpg"))[:count] if folder is not None and folder.is_dir() else []
    for number in range(count):
        if number < len(found):
            with Image.open(found[number]) as photo:
                drawn = photo.convert("RGB")
                drawn.thumbnail((640, 640))
        else:
            drawn = _drawn(number)
        out = io.BytesIO()
        drawn.save(out, "JPEG", quality=88)
        yield out.getvalue()


def _drawn(number: int) -> Image.Image:
    chance = random.Random(number)
    picture = Image.new("RGB", (480, 480 + 40 * (number % 5)), tuple(chance.randrange(200, 250) for _ in range(3)))
    draw = ImageDraw.Draw(picture)
    colour = tuple(chance.randrange(20, 200) for _ in range(3))
    draw.polygon([(150, 90), (330, 90), (400, 200), (340, 230), (330, 430), (150, 430), (140, 230), (80, 200)], colour)
    for stripe in range(chance.randrange(6)):
        draw.line((150, 150 + 45 * stripe, 330, 150 + 45 * stripe), tuple(chance.randrange(256) for _ in range(3)), 8)
    return picture


def stock(database: Database, account_id: int, blob_root: Path, folder: Path | None = None, count: int = 60) -> Shop:
    """A finished job, one at work, and processes that are heard of."""
    blobs = LocalBlobs(blob_root)
    chance = random.Random(7)
    items = [
        NewItem(url=f"https://{'cdn' if n % 7 else 'old'}.shop.example/pictures/{n:05d}.jpg", client_id=f"sku-{n:05d}",
                product_id=f"p-{n // 3:04d}")
        for n in range(count)
    ]  # fmt: skip
    with database.transaction() as session:
        done = jobs.submit(
            session, account_id, JobSpec(name="Spring collection", context="listing"), items, max_items=1000
        )
        running = jobs.submit(session, account_id, JobSpec(name="Sellers' uploads, week 47"), items, max_items=1000)
    pictures = list(photos(folder, count))
    rows: list[dict[str, Any]] = []
    codes: dict[str, int] = {}
    for seq, data in enumerate(pictures):
        sha = hashlib.sha256(data).digest()
        if seq % 11 == 10:
            code = "http_404" if seq % 3 else "timeout"
            codes[code] = codes.get(code, 0) + 1
            rows.append({"seq": seq, "outcome": "failed", "code": code, "sha": None, "tags": None, "moderation": None})
            continue
        blobs.put(work_key(account_id, sha), data)
        _image(database, account_id, sha, data)
        rows.append(_analysed(seq, sha, chance))
    _settle(database, done.id, rows, codes)
    _half_done(database, running.id, count)
    with database.transaction() as session:
        for role, stats in (
            ("crawler", {"work_bytes": 4.2e9, "raw_bytes": 1.1e9, "manifests_bytes": 2.2e5}),
            ("worker", {"device": "cpu", "busy": True, "not_loaded": []}), ("maintenance", {}), ("trainer", {}),
        ):  # fmt: skip
            workers.beat(session, uuid7(), role, "tags-1", 4000 + len(role), stats)
    return Shop(done.id, running.id)


def wait_for_people(database: Database, account_id: int, shop: Shop) -> None:
    """What the machine is not sure of waits in the review queue."""
    with database.transaction() as session:
        found = session.execute(
            text(
                "SELECT seq, sha256, moderation FROM results"
                " WHERE job_id = :job AND moderation ->> 'verdict' = 'review' ORDER BY seq"
            ),
            {"job": shop.finished},
        ).all()
        asked = [
            candidate(account_id, shop.finished, row.seq, bytes(row.sha256), "listing", row.moderation, 0.0)
            for row in found
        ]
        enqueue(session, account_id, [each for each in asked if each is not None])


# fmt: off
def _analysed(seq: int, sha: bytes, chance: random.Random) -> dict[str, Any]:
    kind = KINDS[seq % len(KINDS)]
    verdict = "reject" if seq % 19 == 18 else "review" if seq % 6 == 5 else "approve"
    worst = {"approve": 0.02, "review": 0.41, "reject": 0.91}[verdict] + chance.random() * 0.05
    rest = 1 - worst
    scores = dict(zip(CLASSES, (rest * 0.9, rest * 0.06, rest * 0.03, worst, rest * 0.01), strict=True))
    reason = {"code": "nudity", "text": "May show nudity", "rule": "porn", "verdict": verdict, "class": "Porn",
              "score": worst, "threshold": 0.3 if verdict == "review" else 0.85}  # fmt: skip
    sure = round(0.6 + chance.random() * 0.39, 3)
    tags = [{"label": kind, "group": "category", "score": sure, "model": "clothing@2"},
            {"label": "adults" if seq % 4 else "kids", "group": "age", "score": 0.93, "model": "clothing@2"}]
    moderation = {"scores": scores, "verdict": verdict, "reasons": [] if verdict == "approve" else [reason],
                  "policy": "default@2", "rule": None if verdict == "approve" else "porn", "model": "nsfwjs@1"}
    return {"seq": seq, "outcome": "done", "code": None, "sha": sha, "tags": json.dumps(tags),
            "moderation": json.dumps(moderation)}
# fmt: on


def _image(database: Database, account_id: int, sha: bytes, data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO images (account_id, sha256, work_key, bytes, width, height, format, pdq, pdq_quality,"
                " colours, sharpness) VALUES (:account, :sha, :key, :bytes, :width, :height, 'JPEG', :pdq, 94,"
                " CAST(:colours AS jsonb), 0.21) ON CONFLICT DO NOTHING"
            ),
            {
                "account": account_id, "sha": sha, "key": work_key(account_id, sha), "bytes": len(data) * 4,
                "width": width, "height": height, "pdq": "".join(f"{byte:08b}" for byte in sha),
                "colours": json.dumps([{"name": "white", "hex": "#f4f2ee", "share": 0.6},
                                       {"name": "blue", "hex": "#33508c", "share": 0.3}]),
            },
        )  # fmt: skip


def _settle(database: Database, job_id: UUID, rows: list[dict[str, Any]], codes: dict[str, int]) -> None:
    failed = sum(codes.values())
    with database.transaction() as session:
        job = session.execute(text("SELECT account_id, bucket FROM jobs WHERE id = :id"), {"id": job_id}).one()
        key = {"job": job_id, "account": job.account_id, "bucket": job.bucket}
        for row in rows:
            session.execute(
                text(
                    "INSERT INTO results (bucket, job_id, seq, account_id, outcome, code, sha256, tags, moderation)"
                    " VALUES (:bucket, :job, :seq, :account, :outcome, :code, :sha, CAST(:tags AS jsonb),"
                    " CAST(:moderation AS jsonb))"
                ),
                {**key, **row},
            )
        session.execute(
            text(
                "UPDATE chunks SET state = 'done', finished_at = now() - interval '3 minutes', done = :done,"
                " failed = :failed, codes = CAST(:codes AS jsonb) WHERE job_id = :job AND id ="
                " (SELECT min(id) FROM chunks WHERE job_id = :job)"
            ),
            {**key, "done": len(rows) - failed, "failed": failed, "codes": json.dumps(codes)},
        )
        session.execute(text("DELETE FROM chunks WHERE job_id = :job AND state <> 'done'"), key)
        session.execute(
            text(
                "INSERT INTO chunks (account_id, job_id, bucket, stage, state, lo, hi, done, finished_at)"
                " VALUES (:account, :job, :bucket, 'infer', 'done', 0, :n, :n, now() - interval '2 minutes')"
            ),
            {**key, "n": len(rows) - failed},
        )
        session.execute(
            text(
                "UPDATE jobs SET state = 'finished', started_at = now() - interval '5 minutes', settled_at = now()"
                " - interval '2 minutes', created_at = now() - interval '6 minutes' WHERE id = :job"
            ),
            key,
        )
        judged = next(row for row in rows if row["seq"] == 5)
        said = Decision(
            job_id, 5, judged["sha"], "listing", "review", "approve", "cli", comment="A swimsuit on a hanger."
        )
        append(session, job.account_id, [said])


def _half_done(database: Database, job_id: UUID, count: int) -> None:
    """Its first chunk is fetched, and half of that is through the networks."""
    with database.transaction() as session:
        session.execute(
            text(
                "UPDATE chunks SET state = 'done', finished_at = now(), done = hi - lo - 2, failed = 2,"
                " codes = '{\"http_404\": 2}' WHERE job_id = :job AND lo < :half"
            ),
            {"job": job_id, "half": count // 2},
        )
        session.execute(
            text(
                "INSERT INTO chunks (account_id, job_id, bucket, stage, state, lo, hi, done, finished_at)"
                " SELECT account_id, id, bucket, 'infer', 'done', 0, 16, 14, now() FROM jobs WHERE id = :job"
            ),
            {"job": job_id},
        )
        session.execute(
            text("UPDATE jobs SET state = 'running', started_at = now() - interval '20 seconds' WHERE id = :job"),
            {"job": job_id},
        )
