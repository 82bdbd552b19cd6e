"""Shadow runs in Postgres: the sample, the limits, the lease and the fence, and who may see what."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db import registry, reruns, shadow, shadow_sample, stats
from db.errors import BadShadow, Conflict, LeaseLost, NotFound
from db.ids import uuid7
from db.learning_tables import ShadowRun
from db.reruns import Selection
from db.session import Database
from db.shadow import Limits
from db.shadow_sample import Compared, Sample, Spent
from tests.conftest import TestAccount, make_account
from tests.db.test_reruns import catalog, infer, install

ALL = Limits(1.0, pictures=1000)


def candidate(db: Database, ref: str = "m@2", task: str = "tags") -> str:
    name, _, version = ref.partition("@")
    with db.transaction() as session:
        registry.install_model(session, {"name": name, "version": version, "task": task}, f"{len(ref):064d}")
    return ref


def started(db: Database, limits: Limits = ALL, ref: str = "m@2") -> ShadowRun:
    with db.transaction() as session:
        return shadow.start(session, ref, limits)


def claimed(db: Database, limit: int = 100) -> tuple[ShadowRun, Sample]:
    with db.transaction() as session:
        run = shadow.claim(session, uuid7(), 60)
        assert run is not None
        return run, shadow_sample.next_pictures(session, run, limit, 0)


def scored(sample: Sample) -> list[Compared]:
    return [Compared(picture, [0.9, 0.1], [0.2, 0.8]) for picture in sample.pictures]


def record(db: Database, run: ShadowRun, sample: Sample) -> None:
    with db.transaction() as session:
        shadow_sample.record(session, run, scored(sample), sample.position, spent=Spent(1.0, 2.0), agreed={"g": 1})


def now(db: Database, run: ShadowRun) -> ShadowRun:
    with db.transaction() as session:
        return session.get_one(ShadowRun, run.id)


def settle(db: Database) -> int:
    with db.transaction() as session:
        return shadow.settle(session)


def look(db: Database, sql: str) -> list[tuple[object, ...]]:
    with db.transaction() as session:
        return [tuple(row) for row in session.execute(text(sql))]


def score(seq: int) -> list[tuple[str, float]]:
    return [("shirt", 0.9)]


@pytest.fixture
def line(db: Database) -> None:
    """An active tagger and a candidate."""
    install(db, "m@1")
    candidate(db)


@pytest.mark.usefixtures("line")
def test_the_sample_is_chosen_by_the_pictures_themselves(db: Database, account: TestAccount) -> None:
    small, large = started(db, Limits(0.3, pictures=1000)), started(db, Limits(0.6, 1000), candidate(db, "m@3"))
    catalog(db, account, score, count=60)
    taken: dict[UUID, set[bytes]] = {}
    for _ in range(2):
        run, sample = claimed(db)
        taken[run.id] = {picture.sha256 for picture in sample.pictures}
    with db.transaction() as session:
        shas = [bytes(sha) for sha in session.scalars(text("SELECT sha256 FROM images"))]

    def expected(share: float) -> set[bytes]:
        return {sha for sha in shas if int.from_bytes(hashlib.sha256(sha).digest()[:4], "big") < share * 2**32}

    assert taken == {small.id: expected(0.3), large.id: expected(0.6)}
    assert set() < taken[small.id] < taken[large.id] < set(shas)


@pytest.mark.usefixtures("line")
def test_only_live_pictures_of_the_active_model_from_now_on(db: Database, account: TestAccount) -> None:
    catalog(db, account, score, count=4)  # before the run
    started(db)
    assert claimed(db)[1].pictures == []


@pytest.mark.usefixtures("line")
def test_failed_items_reruns_and_other_tasks_are_not_in_it(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    run = started(db)
    job = catalog(db, account, score, count=16)
    with db.transaction(account.id) as session:
        reruns.start(session, account.id, "m@1", Selection(all=True))
    infer(db, score)
    install(db, "j@1", "moderation")
    catalog(db, account, score, count=8, task="moderation")
    with owner_db.transaction() as session:
        session.execute(text("UPDATE results SET outcome = 'failed', code = 'timeout' WHERE seq = 3"))
    found = claimed(db)[1].pictures
    assert {(picture.job_id, picture.seq) for picture in found} == {(job, n) for n in range(16) if n != 3}
    assert now(db, run).attempts == 1


@pytest.mark.usefixtures("line")
def test_turns_cover_every_picture_once_whatever_their_size(db: Database, account: TestAccount) -> None:
    run = started(db)
    first = catalog(db, account, score, count=30)
    turns = 0
    while True:
        mine, sample = claimed(db, limit=7)
        record(db, mine, sample)
        turns += 1
        if turns == 3:  # more comes while it works
            second = catalog(db, account, score, count=20)
        if not sample.pictures and turns > 3:
            break
    found = look(db, "SELECT sha256 FROM shadow_pictures")
    # Both jobs have pictures with the same bytes: the second one shows them again.
    images = look(db, "SELECT sha256 FROM images")
    assert sorted(found) == sorted(images)
    assert first != second
    ended = now(db, run)
    assert (ended.compared, ended.failed, ended.agreed) == (len(found), 0, {"g": turns})
    assert (ended.active_s, ended.candidate_s) == (turns, 2 * turns)
    with db.transaction() as session:
        assert not shadow.due(session, 0)


@pytest.mark.usefixtures("line")
def test_fresh_chunks_are_left_alone_for_a_moment(db: Database, account: TestAccount) -> None:
    started(db)
    catalog(db, account, score, count=4)
    with db.transaction() as session:
        assert not shadow.due(session, 60)
        assert shadow.due(session, 0)
        run = shadow.claim(session, uuid7(), 60)
        assert run is not None
        assert shadow_sample.next_pictures(session, run, 10, 60).pictures == []


@pytest.mark.usefixtures("line")
def test_it_waits_for_the_line(db: Database, account: TestAccount) -> None:
    from db import jobs
    from db.jobs import JobSpec, NewItem
    from tests.db.test_line import ingest_all

    started(db)
    catalog(db, account, score, count=4)
    with db.transaction(account.id) as session:
        jobs.submit(session, account.id, JobSpec(), [NewItem(url="http://pictures.test/x.jpg")], max_items=10)
    ingest_all(db, account)
    with db.transaction() as session:
        assert shadow.line_waits(session)
        assert not shadow.due(session, 0)
    infer(db, score)
    with db.transaction() as session:
        assert shadow.due(session, 0)


@pytest.mark.usefixtures("line")
def test_its_limit_of_pictures_is_exact(db: Database, account: TestAccount) -> None:
    run = started(db, Limits(1.0, pictures=10))
    catalog(db, account, score, count=30)
    for expected in (7, 3):
        mine, sample = claimed(db, limit=7)
        assert len(sample.pictures) == expected
        record(db, mine, sample)
    assert settle(db) == 1
    ended = now(db, run)
    assert (ended.state, ended.reason, ended.compared) == ("finished", "pictures_reached", 10)
    with db.transaction() as session:
        assert shadow.claim(session, uuid7(), 60) is None


def _activate(db: Database) -> None:
    with db.transaction() as session:
        registry.activate(session, "m", "2")


def _retire(db: Database) -> None:
    with db.transaction() as session:
        registry.retire(session, "m", "2")


def _another(db: Database) -> None:
    install(db, "m@7")


def _missing(db: Database) -> None:
    look_away = "UPDATE model_versions SET name = 'gone' WHERE version = '2'"
    with db.transaction() as session:
        session.execute(text(look_away))


def _days(db: Database) -> None:
    with db.transaction() as session:
        session.execute(text("UPDATE shadow_runs SET until = now() - interval '1 second'"))


@pytest.mark.usefixtures("line")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_activate, "model_activated"),
        (_retire, "model_retired"),
        (_another, "active_replaced"),
        (_missing, "model_missing"),
        (_days, "days_over"),
    ],
)
def test_it_ends_by_itself(db: Database, account: TestAccount, change: Callable[[Database], None], reason: str) -> None:
    """Also under a process that works on it: that one's turn is dropped."""
    run = started(db, Limits(1.0, days=2))
    catalog(db, account, score, count=4)
    mine, sample = claimed(db)
    assert settle(db) == 0
    change(db)
    assert settle(db) == 1
    with pytest.raises(LeaseLost):
        record(db, mine, sample)
    ended = now(db, run)
    assert (ended.state, ended.reason, ended.owner, ended.compared) == ("finished", reason, None, 0)
    assert ended.ended_at is not None
    assert look(db, "SELECT count(*) FROM shadow_pictures") == [(0,)]


@pytest.mark.usefixtures("line")
def test_a_zombie_writes_nothing_and_nothing_is_counted_twice(db: Database, account: TestAccount) -> None:
    run = started(db)
    catalog(db, account, score, count=10)
    dead, sample = claimed(db)
    with db.transaction() as session:
        assert shadow.claim(session, uuid7(), 60) is None, "two processes on one run"
        session.execute(text("UPDATE shadow_runs SET lease_until = now() - interval '1 second'"))
    living, again = claimed(db)
    assert [picture.sha256 for picture in again.pictures] == [picture.sha256 for picture in sample.pictures]
    record(db, living, again)
    with pytest.raises(LeaseLost):
        record(db, dead, sample)
    with db.transaction() as session:
        assert not shadow.beat(session, dead, 60)
        assert not shadow.release(session, dead)
        with pytest.raises(LeaseLost):
            shadow.not_loaded(session, dead, "x", "x", 0)
    ended = now(db, run)
    assert (ended.compared, ended.attempts) == (10, 0)
    assert look(db, "SELECT count(*) FROM shadow_pictures") == [(10,)]


@pytest.mark.usefixtures("line")
def test_three_deaths_in_a_row_end_it_and_a_graceful_stop_is_none(db: Database, account: TestAccount) -> None:
    run = started(db)
    catalog(db, account, score, count=10)
    for _ in range(4):
        mine, _ = claimed(db)
        with db.transaction() as session:
            assert shadow.release(session, mine)
    for attempt in (1, 2, 3):
        assert settle(db) == 0
        assert claimed(db)[0].attempts == attempt
        with db.transaction() as session:
            session.execute(text("UPDATE shadow_runs SET lease_until = now() - interval '1 second'"))
    assert settle(db) == 1
    ended = now(db, run)
    assert (ended.state, ended.code) == ("failed", "worker_died")


@pytest.mark.usefixtures("line")
def test_a_model_that_does_not_load_is_tried_three_times(db: Database, account: TestAccount) -> None:
    run = started(db)
    catalog(db, account, score, count=10)
    for attempt in (1, 2, 3):
        mine, _ = claimed(db)
        with db.transaction() as session:
            shadow.not_loaded(session, mine, "weights_hash_mismatch", "m@2: other bytes", 30)
            waiting = shadow.claim(session, uuid7(), 60)
            assert waiting is None, "it must wait before the next try"
            session.execute(text("UPDATE shadow_runs SET not_before = now()"))
        assert now(db, run).state == ("failed" if attempt == 3 else "running")
    ended = now(db, run)
    assert (ended.code, ended.detail, ended.owner) == ("weights_hash_mismatch", "m@2: other bytes", None)


def test_what_is_refused(db: Database) -> None:
    candidate(db)
    with pytest.raises(NotFound):
        started(db, ref="nobody@1")
    with pytest.raises(Conflict, match="nothing to compare"):
        started(db)
    install(db, "m@1")
    for limits in (
        Limits(0, 1),
        Limits(1.1, 1),
        Limits(0.5),
        Limits(0.5, 0),
        Limits(0.5, days=0),
        Limits(float("nan"), 1),
    ):
        with pytest.raises(BadShadow):
            started(db, limits)
    with pytest.raises(Conflict, match="is active"):
        started(db, ref="m@1")
    with db.transaction() as session, pytest.raises(NotFound):
        shadow.stop(session, "m@2")
    started(db)
    with pytest.raises(Conflict, match="has a shadow run already"):
        started(db)
    with db.transaction() as session:
        assert shadow.stop(session, "m@2").state == "stopped"
    second = started(db, Limits(0.5, days=3))
    assert second.until is not None
    assert second.until - second.created_at == timedelta(days=3)
    with db.transaction() as session:
        assert [run.state for run in shadow.newest(session)] == ["running", "stopped"]
        latest = shadow.latest(session, "m@2")
        assert latest is not None
        assert latest.id == second.id


@pytest.mark.usefixtures("line")
def test_the_operators_metrics(db: Database, api_db: Database, account: TestAccount) -> None:
    started(db)
    catalog(db, account, score, count=10)
    mine, sample = claimed(db)
    both = [*scored(sample)[:8], *(Compared(p, side="candidate", code="inference_failed") for p in sample.pictures[8:])]
    with db.transaction() as session:
        shadow_sample.record(session, mine, both, sample.position, agreed={"g": 6})

    def told() -> dict[str, float]:
        with api_db.transaction() as session:
            found = [each for each in stats.samples(session) if each.name.startswith("shadow_")]
        assert all(each.labels.pop("model") == "m@2" for each in found)
        return {" ".join([each.name, *each.labels.values()]): each.value for each in found}

    assert told() == {"shadow_pictures compared": 8, "shadow_pictures failed": 2, "shadow_agreement_ratio g": 0.75}
    with db.transaction() as session:
        shadow.stop(session, "m@2")
    assert told() == {}


@pytest.mark.usefixtures("line")
def test_pictures_are_walled_by_account_and_runs_are_the_operators(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "other")
    started(db)
    catalog(db, account, score, count=6)
    catalog(db, other, score, count=5)
    record(db, *claimed(db))
    assert sorted(look(db, "SELECT account_id, count(*) FROM shadow_pictures GROUP BY 1")) == sorted(
        [(account.id, 6), (other.id, 5)]
    )
    for mine, count in ((account, 6), (other, 5)):
        with api_db.transaction(mine.id) as session:
            assert session.scalar(text("SELECT count(*) FROM shadow_pictures")) == count
    with api_db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM shadow_pictures")) == 0
    for sql in ("SELECT 1 FROM shadow_runs", "DELETE FROM shadow_pictures"):
        with pytest.raises(ProgrammingError, match="permission denied"), api_db.transaction(account.id) as session:
            session.execute(text(sql))
