"""Training runs and datasets in Postgres: claimed by one, kept by heartbeats, taken up after a death, ended once."""

import threading
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db import datasets, training, training_log
from db.errors import Conflict, LeaseLost, NotFound
from db.session import Database
from db.tables import Dataset, TrainingRun
from tests.conftest import TestAccount

ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.fixture
def dataset(db: Database) -> Dataset:
    return add(db)


def add(db: Database, version: str = "1", sha: str = "a") -> Dataset:
    with db.transaction() as session:
        return datasets.add(
            session, "d", version, sha * 64, manifest_key="k", images_root="/", entries=3, summary={"leaks": 0}
        )


def enqueue(db: Database, dataset: Dataset, version: str = "1") -> TrainingRun:
    with db.transaction() as session:
        return training.enqueue(session, dataset.id, "m", version, {"epochs": 1})


def claim(db: Database, owner: UUID = ONE, lease_s: float = 60) -> TrainingRun | None:
    with db.transaction() as session:
        return training.claim(session, owner, lease_s)


def beat(db: Database, run: TrainingRun, **progress: int) -> bool:
    with db.transaction() as session:
        return training.beat(session, run, 60, progress or None)


def state(db: Database, run: TrainingRun) -> tuple[str, str | None, int]:
    with db.transaction() as session:
        now = training.get(session, run.id)
        return now.state, now.code, now.attempts


def test_a_run_is_claimed_once_and_oldest_first(db: Database, dataset: Dataset) -> None:
    first, second = enqueue(db, dataset), enqueue(db, dataset, "2")
    claimed = [claim(db, owner) for owner in (ONE, TWO)]
    assert [run and run.id for run in claimed] == [first.id, second.id]
    assert claim(db, TWO) is None


def test_a_dead_trainers_run_is_taken_up_and_the_zombie_writes_nothing(db: Database, dataset: Dataset) -> None:
    run = enqueue(db, dataset)
    dead = claim(db, ONE, lease_s=-1)
    heir = claim(db, TWO)
    assert dead is not None
    assert heir is not None
    assert (heir.id, heir.fence) == (run.id, dead.fence + 1)
    assert not beat(db, dead, epoch=1)
    for end in (training.finish, lambda s, r: training.fail(s, r, "x", "y")):
        with pytest.raises(LeaseLost), db.transaction() as session:
            end(session, dead)
    with db.transaction() as session:
        assert not training.release(session, dead)
    assert beat(db, heir)
    with db.transaction() as session:
        training.finish(session, heir)
    assert state(db, run)[0] == "finished"


def test_trainers_that_die_in_a_row_end_the_run(db: Database, dataset: Dataset) -> None:
    run = enqueue(db, dataset)
    for _ in range(training.MAX_ATTEMPTS):
        assert claim(db, lease_s=-1) is not None
    assert claim(db) is None
    assert state(db, run)[:2] == ("failed", "trainer_died")


def test_a_run_that_moves_may_be_interrupted_as_often_as_it_likes(db: Database, dataset: Dataset) -> None:
    enqueue(db, dataset)
    for epoch in range(3 * training.MAX_ATTEMPTS):
        run = claim(db, lease_s=-1)
        assert run is not None, f"given up after {epoch} epochs"
        with db.transaction() as session:
            assert training.beat(session, run, -1, {"epoch": epoch})


def test_release_gives_the_attempt_back_and_cancel_ends_it(db: Database, dataset: Dataset) -> None:
    enqueue(db, dataset)
    for _ in range(5):
        run = claim(db)
        assert run is not None
        assert run.attempts == 1
        with db.transaction() as session:
            assert training.release(session, run)
    run = claim(db)
    assert run is not None
    with db.transaction() as session:
        assert training.cancel(session, run.id).state == "cancelled"
        assert training.cancel(session, run.id).state == "cancelled"
    assert not beat(db, run), "the trainer must hear of it"
    assert claim(db) is None


def test_an_ended_run_cannot_be_cancelled_and_a_stranger_is_not_found(db: Database, dataset: Dataset) -> None:
    enqueue(db, dataset)
    run = claim(db)
    assert run is not None
    with db.transaction() as session:
        training.fail(session, run, "loss_not_finite", "at step 3")
    assert state(db, run)[:2] == ("failed", "loss_not_finite")
    with pytest.raises(Conflict), db.transaction() as session:
        training.cancel(session, run.id)
    with pytest.raises(NotFound), db.transaction() as session:
        training.cancel(session, TWO)


def test_who_asks_for_a_version_at_the_same_time_gets_the_next(db: Database, dataset: Dataset) -> None:
    made: list[str] = []

    def another() -> None:
        with db.transaction() as session:
            version = training.next_version(session, "m")
            made.append(training.enqueue(session, dataset.id, "m", version, {}).version)

    other = threading.Thread(target=another)
    with db.transaction() as session:
        version = training.next_version(session, "m")
        other.start()
        other.join(0.5)  # as long as we are not done, it waits
        assert made == []
        training.enqueue(session, dataset.id, "m", version, {})
    other.join(60)
    assert (version, made) == ("1", ["2"])


def test_versions_are_numbered_and_never_made_twice(db: Database, dataset: Dataset) -> None:
    with db.transaction() as session:
        assert training.next_version(session, "m") == "1"
    enqueue(db, dataset, "9")
    enqueue(db, dataset, "10")
    enqueue(db, dataset, "old")
    with db.transaction() as session:
        assert training.next_version(session, "m") == "11"
    with pytest.raises(Conflict):
        enqueue(db, dataset, "9")


def test_a_version_of_a_dataset_keeps_its_content(db: Database, dataset: Dataset) -> None:
    assert add(db).id == dataset.id
    with pytest.raises(Conflict, match="other content"):
        add(db, sha="b")
    second = add(db, "2", "b")
    with db.transaction() as session:
        assert datasets.by_ref(session, "d").id == second.id
        assert datasets.by_ref(session, "d@1").id == dataset.id
        assert [each.ref for each in datasets.every(session)] == ["d@1", "d@2"]
        with pytest.raises(NotFound):
            datasets.by_ref(session, "d@3")


def test_what_waits_is_queued_or_lost(db: Database, dataset: Dataset) -> None:
    def waiting(fresh_s: float = 0.0) -> int:
        with db.transaction() as session:
            return training.waiting(session, fresh_s)

    assert waiting() == 0
    enqueue(db, dataset)
    assert waiting() == 1
    assert waiting(fresh_s=60) == 0, "the command that queued it may carry it out"
    assert claim(db) is not None
    assert waiting() == 0
    enqueue(db, dataset, "2")
    assert claim(db, lease_s=-1) is not None
    assert waiting(fresh_s=60) == 1, "its trainer is dead"


def test_a_fault_that_may_pass_gives_the_run_back_and_not_for_ever(db: Database, dataset: Dataset) -> None:
    run = enqueue(db, dataset)
    states = []
    for _ in range(training.MAX_ATTEMPTS):
        claimed = claim(db)
        assert claimed is not None
        with db.transaction() as session:
            states.append(training.give_back(session, claimed, "rank_died", "one of 2"))
    assert states == ["queued"] * (training.MAX_ATTEMPTS - 1) + ["failed"]
    assert state(db, run)[:2] == ("failed", "rank_died")
    enqueue(db, dataset, "2")
    for _ in range(3 * training.MAX_ATTEMPTS):
        claimed = claim(db)
        assert claimed is not None
        assert beat(db, claimed, epoch=1)
        with db.transaction() as session:
            assert training.give_back(session, claimed, "rank_died", "it moves, though") == "queued"
    with pytest.raises(LeaseLost), db.transaction() as session:
        training.give_back(session, claimed, "rank_died", "no longer ours")


def test_what_is_only_shown_is_no_progress(db: Database, dataset: Dataset) -> None:
    enqueue(db, dataset)
    for _ in range(training.MAX_ATTEMPTS):
        run = claim(db, lease_s=-1)
        assert run is not None
        with db.transaction() as session:
            assert training.beat(session, run, -1, live={"step": 3})
    assert claim(db) is None
    with db.transaction() as session:
        assert training.get(session, run.id).live == {"step": 3}


def test_the_log_keeps_the_newest(db: Database, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_log, "KEPT", 5)
    run = enqueue(db, dataset)
    for first in (1, 4, 7):
        with db.transaction() as session:
            training_log.append(session, run.id, [{"event": "x", "n": n} for n in range(first, first + 3)])
    with db.transaction() as session:
        training_log.append(session, run.id, [])
        entries = training_log.after(session, run.id)
        assert [(entry.seq, entry.event["n"]) for entry in entries] == [(n, n) for n in range(5, 10)]
        assert training_log.after(session, run.id, 8) == entries[-1:]
        assert training_log.last(session, run.id, 2) == entries[-2:]


def test_runs_are_paged_newest_first(db: Database, dataset: Dataset) -> None:
    runs = [enqueue(db, dataset, str(version)) for version in range(4)]
    with db.transaction() as session:
        training.cancel(session, runs[1].id)
        first = training.page(session, state=None, before=None, limit=2)
        rest = training.page(session, state=None, before=first[-1].id, limit=9)
        assert [run.id for run in (*first, *rest)] == [run.id for run in reversed(runs)]
        assert [run.id for run in training.page(session, state="cancelled", before=None, limit=9)] == [runs[1].id]


def test_the_apis_role_starts_and_cancels_runs_and_does_no_more(
    db: Database, api_db: Database, dataset: Dataset, account: TestAccount
) -> None:
    with api_db.transaction(account.id) as session:
        run = training.enqueue(session, dataset.id, "m", "1", {}, actor="key:x", account_id=account.id)
        assert training.cancel(session, run.id, actor="key:y", account_id=account.id).state == "cancelled"
        assert training.cancel(session, run.id).state == "cancelled"
        assert training_log.after(session, run.id) == []
    with db.transaction() as session:
        told = session.execute(
            text("SELECT actor, account_id FROM audit_log WHERE action = 'training.cancel' AND subject = :id"),
            {"id": str(run.id)},
        ).all()
    assert [tuple(entry) for entry in told] == [("key:y", account.id)]
    for sql in (
        "DELETE FROM evaluations",
        "UPDATE training_runs SET progress = '{}'",
        "DELETE FROM training_runs",
        "DELETE FROM training_log",
        "INSERT INTO training_log (run_id, seq, event) SELECT id, 1, '{}' FROM training_runs",
        "UPDATE datasets SET images_root = '/etc'",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"), api_db.transaction(account.id) as session:
            session.execute(text(sql))
