"""Training runs and datasets in Postgres: claimed by one, kept by heartbeats, taken up after a death, ended once."""

from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db import datasets, training
from db.errors import Conflict, LeaseLost, NotFound
from db.session import Database
from db.tables import Dataset, TrainingRun

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


def test_the_apis_role_reads_none_of_it(db: Database, api_db: Database, dataset: Dataset) -> None:
    for table in ("datasets", "training_runs", "evaluations"):
        with pytest.raises(ProgrammingError, match="permission denied"), api_db.transaction() as session:
            session.execute(text(f"SELECT 1 FROM {table}"))
