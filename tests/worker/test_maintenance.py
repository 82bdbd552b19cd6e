"""Reaper, finaliser and the loop around them: under their locks, and without harm to each other."""

import threading
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from db import chunks, locks, workers
from db.blobs import LocalBlobs
from db.errors import Unavailable
from db.ids import uuid7
from db.rescue import Reaped
from db.session import Database
from tests.conftest import TestAccount
from tests.worker.line import ingested, jpeg, rows, run_sql
from worker import finalise
from worker.heartbeat import Counters, Heartbeat
from worker.leases import Leases
from worker.maintenance import Duty, keep
from worker.reap import Reaper


def job_with_leases(owner_db: Database, db: Database, account: TestAccount, folder: Path) -> list[chunks.Chunk]:
    """Three leased infer chunks of one owner that beats."""
    ingested(owner_db, LocalBlobs(folder / "blobs"), account.id, [jpeg("red", n) for n in range(12)], chunk_size=4)
    owner = uuid7()
    with db.transaction() as session:
        workers.beat(session, owner, "worker", "here", 1, {})
        return chunks.claim(session, "infer", owner, 60, 3)


def reap(database: Database) -> Reaped:
    """What a reaper takes back now, its grace time over."""
    return Reaper(database, stale_s=20, grace_s=0).run_once()


def states(database: Database) -> list[str]:
    return [row.state for row in rows(database, "SELECT state FROM chunks WHERE stage = 'infer' ORDER BY id")]


def test_only_lost_leases_are_taken_back(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path
) -> None:
    held = job_with_leases(owner_db, db, account, tmp_path)
    assert reap(db).released == 0
    run_sql(owner_db, "UPDATE chunks SET lease_until = now() - interval '1 s' WHERE id = :id", id=held[1].id)
    assert reap(db).released == 1
    assert states(db) == ["leased", "ready", "leased"]


def test_a_silent_owner_loses_all(owner_db: Database, db: Database, account: TestAccount, tmp_path: Path) -> None:
    job_with_leases(owner_db, db, account, tmp_path)
    run_sql(owner_db, "UPDATE workers SET last_seen_at = now() - interval '21 s'")
    assert reap(db).released == 3


def test_a_process_that_says_goodbye_loses_all_at_once(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path
) -> None:
    held = job_with_leases(owner_db, db, account, tmp_path)
    with Heartbeat(db, "worker", every_s=60, stats=dict, id=held[0].owner):
        assert reap(db).released == 0
    assert reap(db).released == 3


def test_one_reaper_at_a_time(owner_db: Database, db: Database, account: TestAccount, tmp_path: Path) -> None:
    job_with_leases(owner_db, db, account, tmp_path)
    run_sql(owner_db, "UPDATE chunks SET lease_until = now() - interval '1 s' WHERE state = 'leased'")
    with owner_db.transaction() as session:
        assert locks.try_lock(session, "reap")
        assert reap(db).released == 0
    assert reap(db).released == 3


def test_after_an_outage_the_living_get_time_to_say_so(
    owner_db: Database, db: Database, database_url: str, account: TestAccount, tmp_path: Path
) -> None:
    job_with_leases(owner_db, db, account, tmp_path)
    run_sql(owner_db, "UPDATE workers SET last_seen_at = now() - interval '1 h'")
    now = 0.0
    impatient = Database(database_url, statement_timeout_ms=500)
    reaper = Reaper(impatient, stale_s=20, grace_s=10, clock=lambda: now)
    now = 9.0
    assert reaper.run_once().released == 0, "in the grace time after its own start"
    now = 10.0
    with owner_db.transaction() as session:
        # A lock that the reaper cannot wait for is an outage to it.
        session.execute(text("LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(Unavailable):
            reaper.run_once()
    now = 19.0
    assert reaper.run_once().released == 0, "in the grace time after the outage"
    now = 20.0
    assert reaper.run_once().released == 3
    impatient.dispose()


def test_jobs_are_finished_once(owner_db: Database, db: Database, account: TestAccount, tmp_path: Path) -> None:
    from db import recording
    from db.recording import InferOutcome

    held = job_with_leases(owner_db, db, account, tmp_path)
    assert finalise.run_once(db) == 0
    with db.transaction() as session:
        for chunk in held:
            recording.finish_infer(session, chunk, [InferOutcome(seq, tags=[]) for seq in chunk.members])
    with owner_db.transaction() as session:
        assert locks.try_lock(session, "finalise")
        assert finalise.run_once(db) == 0, "another finaliser is at it"
    assert [finalise.run_once(db), finalise.run_once(db)] == [1, 0]
    assert [row.type for row in rows(owner_db, "SELECT type FROM outbox")] == ["job.finished"]


def test_a_job_that_cannot_be_closed_yet_holds_up_no_other(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from db import endings, recording
    from db.recording import InferOutcome

    for _ in range(3):
        with db.transaction() as session:
            for chunk in job_with_leases(owner_db, db, account, tmp_path):
                recording.finish_infer(session, chunk, [InferOutcome(seq, tags=[]) for seq in chunk.members])
    with db.transaction() as session:
        locked, ended, due = endings.finishable(session, 10)
    finish = endings.finish

    def finish_some(session: Session, job: UUID) -> bool:
        if job == locked:
            raise Unavailable("somebody holds it")
        return finish(session, job) and job != ended  # as if another had ended that one

    monkeypatch.setattr(endings, "finish", finish_some)
    assert finalise.run_once(db) == 1
    assert [row.id for row in rows(owner_db, "SELECT id FROM jobs WHERE settled_at IS NULL")] == [locked]
    assert due != locked
    monkeypatch.undo()
    assert finalise.run_once(db) == 1


def test_only_a_cancelled_job_has_its_rest_cancelled(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path
) -> None:
    from db import endings

    held = job_with_leases(owner_db, db, account, tmp_path)
    with db.transaction() as session:
        assert endings.cancel_rest(session, held[0].job_id) is None
        assert endings.cancel_rest(session, uuid7()) is None
    assert states(db) == ["leased"] * 3
    run_sql(owner_db, "UPDATE jobs SET state = 'cancelled', cancelled_at = now() WHERE id = :id", id=held[0].job_id)
    with db.transaction() as session:
        assert endings.cancel_rest(session, held[0].job_id) is None, "what is in somebody's hands is theirs to end"
    assert rows(db, "SELECT 1 FROM results WHERE job_id = :id", id=held[0].job_id) == []


def test_more_lost_leases_than_a_batch_come_back_in_one_pass(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_with_leases(owner_db, db, account, tmp_path)
    run_sql(owner_db, "UPDATE chunks SET lease_until = now() - interval '1 s' WHERE state = 'leased'")
    monkeypatch.setattr("worker.reap.BATCH", 1)
    assert reap(db).released == 3


def test_a_suspect_of_items_put_off_is_halved_by_them(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path
) -> None:
    """Its items are no range: each half gets its own of them."""
    held = job_with_leases(owner_db, db, account, tmp_path)[0]
    run_sql(
        owner_db,
        "UPDATE chunks SET seqs = ARRAY[0, 2, 3], attempts = 3, lease_until = now() - interval '1 s' WHERE id = :id",
        id=held.id,
    )
    assert reap(db).split == 1
    halves = rows(db, "SELECT lo, hi, seqs, state, attempts FROM chunks WHERE seqs IS NOT NULL ORDER BY lo")
    assert [(row.lo, row.hi, row.seqs, row.state) for row in halves] == [(0, 1, [0], "ready"), (2, 4, [2, 3], "ready")]
    assert {row.attempts for row in halves} == {2}


def test_a_failing_duty_is_tried_again_and_logged_once() -> None:
    stop = threading.Event()
    turns = 0

    def duty() -> int:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise Unavailable("away")
        if turns < 5:
            raise ZeroDivisionError
        stop.set()
        return 7

    counters = Counters()
    with capture_logs() as lines:
        keep(Duty("reap", 0.001, duty), stop, counters)
    assert counters.snapshot()["reap"] == 7
    assert [line["duty"] for line in lines] == ["reap"]


def test_leases_are_extended_for_progress_only(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path
) -> None:
    held = job_with_leases(owner_db, db, account, tmp_path)
    run_sql(owner_db, "UPDATE chunks SET lease_until = now() + interval '1 s' WHERE state = 'leased'")
    renewed = "SELECT id FROM chunks WHERE lease_until > now() + interval '30 s' ORDER BY id"
    leases = Leases(db, 60)
    for chunk in held:
        leases.add(chunk)
    assert leases.extend() == []
    assert rows(db, renewed) == [], "extended a lease of a process that stands still"
    leases.moved(held[0])
    leases.extend()
    assert len(rows(db, renewed)) == 3, "chunks wait for each other: one moving pipeline keeps them all"
    leases.remove(held[2])
    run_sql(owner_db, "UPDATE chunks SET fence = fence + 1 WHERE id = :id", id=held[1].id)
    leases.moved(held[0])
    assert [chunk.id for chunk in leases.extend()] == [held[1].id]


def test_a_chunk_that_stands_still_beside_moving_ones_is_lost_in_the_end(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path
) -> None:
    stuck, moving, _ = job_with_leases(owner_db, db, account, tmp_path)
    leases = Leases(db, 0.01)
    leases.add(stuck)
    threading.Event().wait(0.2)  # more than ten leases
    leases.add(moving)
    run_sql(owner_db, "UPDATE chunks SET lease_until = now() - interval '1 h' WHERE state = 'leased'")
    leases.moved(moving)
    leases.extend()
    after = rows(db, "SELECT id FROM chunks WHERE state = 'leased' AND lease_until > now() - interval '1 min'")
    assert [row.id for row in after] == [moving.id]


def test_work_that_stands_still_gets_no_more_time(
    owner_db: Database, db: Database, account: TestAccount, tmp_path: Path
) -> None:
    """What the timer that ends a hung process is wound by."""
    held, *_ = job_with_leases(owner_db, db, account, tmp_path)
    leases = Leases(db, 60)
    assert leases.allowance() == 0, "nothing in hand is no hang"
    leases.add(held)
    leases.moved(held)
    assert leases.allowance() == 0
    assert leases.allowance() is None, "nothing moved since"
    leases.trying()
    assert leases.allowance() == 0, "a database that is away is no hang"
    told: list[float | None] = []
    leases.watched = lambda: told.append(leases.allowance())
    with leases.moving(100):
        assert 90 < (leases.allowance() or 0) <= 100
    assert 90 < (told[0] or 0) <= 100, "the step's own time counts from its start"
    assert told[1] == 0, "and no longer than the step"
    assert leases.allowance() is None
    leases.remove(held)
    assert leases.allowance() == 0
