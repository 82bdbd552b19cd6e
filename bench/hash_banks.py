"""Hash banks, measured: new pictures against entries, and a ban over a million pictures there are.

python -m bench.hash_banks [--images 1000000] [--entries 0 1000 100000 1000000] [--runs 3]

New pictures: 512 hashes, an ingest chunk, meet a bank. What was weighed beside the index in memory is measured too, on
the largest bank: a GIN index over sixteen bands in Postgres, and counting the bits of all entries there.

A ban: one entry over all images of an account, of which k match, from the call that adds it to the last verdict.
Everything is of one real Postgres on this machine, through the code that serves.
"""

import argparse
import hashlib
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from db import accounts, bank_changes, bank_entries, bank_matching, bank_search, banks, migrate
from db.bank_entries import NewEntry
from db.ids import uuid7
from db.images import ImageRecord
from db.session import WORKER_ROLE, Database
from worker import banning, log
from worker.embedded import EmbeddedPostgres

CHUNK = 512
RIVAL_PICTURES = 8  # of the slow ways, so many pictures are asked about, and the time is scaled to a chunk
HASH = "f0e1d2c3b4a5968778695a4b3c2d1e0f" * 2
# A random hash of 256 bits, as text of zeros and ones, from nothing but the row's number.
_BITS = """(('x' || encode(sha256(convert_to('{salt}/' || {n}, 'UTF8')), 'hex'))::bit(256))"""
_IMAGES = f"""
    INSERT INTO images (account_id, sha256, work_key, bytes, width, height, format, pdq, pdq_quality, colours,
      sharpness, created_at)
    SELECT :account, sha256(convert_to('image/' || n, 'UTF8')), 'work/' || n, 100000, 800, 600, 'JPEG',
      {_BITS.format(salt="pdq", n="n")}, 90,
      '[{{"hex": "#a08070", "name": "brown", "share": 0.4}}, {{"hex": "#ffffff", "name": "white", "share": 0.3}}]', 300,
      now() - make_interval(secs => :count - n)
    FROM generate_series(1, :count) n"""
_ENTRIES = f"""
    INSERT INTO hash_entries (id, bank_id, account_id, pdq, revision, actor)
    SELECT gen_random_uuid(), :bank, :account, {_BITS.format(salt="entry", n="n")}, 1, 'bench'
    FROM generate_series(1, :count) n"""
_MATCHING = """
    UPDATE images SET pdq = CAST(m.bits AS bit(256))
    FROM unnest(CAST(:hashes AS text[])) WITH ORDINALITY AS m(bits, n)
    WHERE account_id = :account AND sha256 = sha256(convert_to('image/' || m.n * :step, 'UTF8'))"""
_JOB = """
    INSERT INTO jobs (id, account_id, state, lane, analyses, bucket, total, policy, settled_at)
    VALUES (:job, :account, 'finished', 'bulk', ARRAY['moderation'], 1, :count, CAST(:policy AS jsonb), now())"""
_ITEMS = """
    INSERT INTO items (bucket, job_id, seq, account_id, url)
    SELECT 1, :job, n, :account, 'https://shop.test/' || n || '.jpg' FROM generate_series(1, :count) n"""
_RESULTS = """
    INSERT INTO results (bucket, job_id, seq, account_id, outcome, sha256, moderation)
    SELECT 1, :job, n, :account, 'done', sha256(convert_to('image/' || n, 'UTF8')), CAST(:moderation AS jsonb)
    FROM generate_series(1, :count) n"""
POLICY = '{"name": "default", "version": 1, "thresholds": {"Porn": {"review": 0.3, "reject": 0.85}}}'
MODERATION = """{"scores": {"Porn": 0.01, "Neutral": 0.99}, "verdict": "approve", "reasons": [], "rule": null,
  "policy": "default@1", "model": "judge@1"}"""
# What was weighed: sixteen bands as an array under GIN, asked with each of them and all that differ from it in one bit.
_GIN = """
    CREATE TABLE rival AS SELECT id, pdq, ARRAY(
      SELECT (b << 16) | substring(pdq FROM b * 16 + 1 FOR 16)::int FROM generate_series(0, 15) b) AS bands
    FROM hash_entries WHERE bank_id = '{bank}'"""
_ASK_GIN = """
    SELECT count(*) FROM rival WHERE bit_count(pdq # CAST(:pdq AS bit(256))) <= 31 AND bands && ARRAY(
      SELECT (b << 16) | (substring(CAST(:pdq AS bit(256)) FROM b * 16 + 1 FOR 16)::int # m)
      FROM generate_series(0, 15) b, (SELECT 0 UNION ALL SELECT 1 << s FROM generate_series(0, 15) s) f(m))"""
_ASK_ALL = "SELECT count(*) FROM rival WHERE bit_count(pdq # CAST(:pdq AS bit(256))) <= 31"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=1_000_000)
    arguments.add_argument("--entries", type=int, nargs="*", default=[0, 1_000, 100_000, 1_000_000])
    arguments.add_argument("--matching", type=int, nargs="*", default=[0, 10, 1_000, 10_000])
    arguments.add_argument("--runs", type=int, default=3)
    options = arguments.parse_args()
    log.configure(level=logging.WARNING)
    screen = Console(width=110, highlight=False)
    memory = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
    with (
        tempfile.TemporaryDirectory(prefix="tagmill-bench-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres", settings=memory) as postgres,
    ):
        migrate.upgrade(postgres.url, api_password="api", worker_password="worker")
        owner = Database(postgres.url, statement_timeout_ms=3_600_000)
        worker = Database(postgres.url, role=WORKER_ROLE)
        with owner.transaction() as session:
            account = accounts.create(session, "bench").id
        _new_pictures(screen, owner, worker, account, options.entries, options.runs)
        _bans(screen, owner, worker, account, options.images, options.matching, options.runs)
        for database in (owner, worker):
            database.dispose()


def timed(work: Callable[[], Any], runs: int) -> tuple[str, Any]:
    """Median and spread of so many runs in milliseconds, and what the last one answered."""
    seconds = []
    answer: Any = None
    for _ in range(runs):
        started = time.perf_counter()
        answer = work()
        seconds.append(time.perf_counter() - started)
    return f"{statistics.median(seconds) * 1000:.1f} ({min(seconds) * 1000:.1f} to {max(seconds) * 1000:.1f})", answer


def run(database: Database, sql: str, **parameters: Any) -> Any:
    with database.transaction() as session:
        found = session.execute(text(sql), parameters)
        return found.all() if found.returns_rows else None


def _near(apart: int, bits: str) -> str:
    """A hash that differs in so many bits, spread over all bands."""
    return f"{int(bits, 2) ^ sum(1 << (n * 17) % 256 for n in range(apart)):0256b}"


def _vacuum(owner: Database) -> None:
    with owner.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _chunk(salt: int) -> list[ImageRecord]:
    """Pictures of an ingest chunk; half of them lie within the distance of some entry."""
    rng = np.random.default_rng(salt)
    hashes = rng.integers(0, 256, (CHUNK, 32), dtype=np.uint8)
    return [
        ImageRecord(rng.bytes(32), "w", 1, 800, 600, "JPEG", None, hash_.tobytes(), 90, [], 1.0) for hash_ in hashes
    ]


def _new_pictures(
    screen: Console, owner: Database, worker: Database, account: int, counts: list[int], runs: int
) -> None:
    table = Table("entries", "first time, s", "a chunk, ms (least to most)", "hits", title=f"{CHUNK} new pictures")
    for count in counts:
        bank = _bank(owner, worker, account, count)
        pictures = _chunk(count)
        if count:
            near = run(owner, f"SELECT pdq::text FROM hash_entries WHERE bank_id = '{bank}' LIMIT {CHUNK // 2}")
            for n, row in enumerate(near):
                pdq = int(_near(n % 32, row[0]), 2).to_bytes(32, "big")
                pictures[n] = replace(pictures[n], pdq=pdq)

        def match(pictures: list[ImageRecord] = pictures) -> int:
            with worker.transaction() as session:
                bank_changes.share_lock(session)
                found = bank_matching.match(session, account, pictures)
                session.execute(text("DELETE FROM hash_hits"))
                return found

        started = time.perf_counter()
        match()
        first = time.perf_counter() - started
        spent, hits = timed(match, max(runs, 3))
        assert hits == min(count, CHUNK // 2), "every planted pair is found, and no other"
        table.add_row(f"{count:,}", f"{first:.2f}", spent, str(hits))
        if count == max(counts) and count:
            _rivals(table, owner, bank, pictures, runs)
        with worker.transaction() as session:
            banks.remove(session, account, bank, "bench")
        run(owner, "DELETE FROM bank_changes")
    screen.print(table)


def _rivals(table: Table, owner: Database, bank: UUID, pictures: list[ImageRecord], runs: int) -> None:
    run(owner, _GIN.format(bank=bank))
    run(owner, "CREATE INDEX ON rival USING gin (bands)")
    _vacuum(owner)
    asked = [f"{int.from_bytes(picture.pdq or b'', 'big'):0256b}" for picture in pictures[:RIVAL_PICTURES]]
    for name, sql in (("GIN over bands, in Postgres", _ASK_GIN), ("all entries, in Postgres", _ASK_ALL)):
        started = time.perf_counter()
        found = sum(run(owner, sql, pdq=pdq)[0][0] for pdq in asked)
        each = (time.perf_counter() - started) / len(asked)
        assert found == len(asked)
        table.add_row(f"  {name}", "", f"{each * 1000 * CHUNK:.0f}, from {len(asked)} pictures", "")
    run(owner, "DROP TABLE rival")


def _bank(owner: Database, worker: Database, account: int, count: int) -> UUID:
    with worker.transaction() as session:
        bank = banks.create(session, account, f"bank-{uuid7().hex[:12]}", "block", actor="bench").id
    if count:
        run(owner, _ENTRIES, bank=bank, account=account, count=count)
        run(owner, "UPDATE hash_banks SET revision = 1 WHERE id = :id", id=bank)
        _vacuum(owner)
    return bank


def _bans(
    screen: Console, owner: Database, worker: Database, account: int, images: int, matching: list[int], runs: int
) -> None:
    screen.print(f"making {images:,} pictures with results")
    job = uuid7()
    run(owner, _IMAGES, account=account, count=images)
    run(owner, _JOB, account=account, job=job, count=images, policy=POLICY)
    run(owner, _ITEMS, account=account, job=job, count=images)
    run(owner, _RESULTS, account=account, job=job, count=images, moderation=MODERATION)
    _vacuum(owner)
    search = Table("Postgres", "one look at all pictures, ms (least to most)", title=f"{images:,} hashes")
    columns = ("Postgres", "matching", "answer, s", "all decided again, s", "un-ban, s")
    bans = Table(*columns, title=f"A ban over {images:,} pictures")
    for name in ("without pgvector", "with pgvector"):
        if name == "with pgvector":
            if not run(owner, "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"):
                search.add_row(name, "not in this Postgres")
                break
            run(owner, "CREATE EXTENSION vector")

        def look() -> int:
            with worker.transaction() as session:
                return bank_search.matches(session, account, HASH, 31, 50, 50)[0]

        look()
        search.add_row(name, timed(look, max(runs, 3))[0])
        for count in matching:
            bans.add_row(name, f"{count:,}", *_ban(owner, worker, account, f"{name}/{count}", count, images))
    screen.print(search)
    screen.print(bans)


def _ban(owner: Database, worker: Database, account: int, salt: str, count: int, images: int) -> list[str]:
    pdq = hashlib.sha256(salt.encode()).hexdigest()  # another one each time: nothing of the last ban matches it
    if count:
        run(
            owner,
            _MATCHING,
            account=account,
            step=images // count,
            hashes=[_near(n % 32, bank_search.bits(pdq)) for n in range(count)],
        )
        _vacuum(owner)
    bank = _bank(owner, worker, account, 0)
    stop = threading.Event()
    started = time.perf_counter()
    with worker.transaction() as session:
        entry, _ = bank_entries.add(session, account, bank, NewEntry(pdq), "bench")
    with worker.transaction() as session:
        found, _ = bank_search.matches(session, account, pdq, 31, 50, 50)
    answered = time.perf_counter() - started
    banning.run_once(worker, 1_000_000, stop, turn_s=3600)
    banned = time.perf_counter() - started
    rejected = run(owner, "SELECT count(*) FROM results WHERE moderation ->> 'verdict' = 'reject'")[0][0]
    started = time.perf_counter()
    with worker.transaction() as session:
        bank_entries.remove(session, account, bank, entry.id, "bench")
    banning.run_once(worker, 1_000_000, stop, turn_s=3600)
    freed = time.perf_counter() - started
    left = run(owner, "SELECT count(*) FROM results WHERE moderation ->> 'verdict' <> 'approve'")[0][0]
    assert (found, rejected, left) == (count, count, 0), (found, rejected, left)
    return [f"{answered:.2f}", f"{banned:.2f}", f"{freed:.2f}"]


if __name__ == "__main__":
    main()
