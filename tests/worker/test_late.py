"""Maintenance decides what waits too long for a model: no worker is needed for it, and none is in its way."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from db import chunks, decisions, endings, moderations, reruns, rescue, stats, workers
from db.chunks import Chunk
from db.decisions import Decision
from db.errors import Unavailable
from db.ids import uuid7
from db.jobs import NewItem
from db.moderations import Asked
from db.reruns import Selection
from db.session import Database, Session
from tests.conftest import TestAccount
from tests.worker.line import fetched, ingested, jpeg, rows, run_sql, settings
from tests.worker.test_infer import Stage, models, stage  # noqa: F401  # fixtures
from tests.worker.test_verdicts import MODERATION, NUDITY, decides, moderated, waited
from worker import infer_rows, maintenance
from worker.dispatch import Dispatcher
from worker.infer_work import Work
from worker.late import Decider

pytestmark = pytest.mark.usefixtures("models")


def decider(stage: Stage, **more: object) -> Decider:  # noqa: F811
    """Maintenance's, in a process that the reaper knows."""
    owner = uuid7()
    with stage.database.transaction() as session:
        workers.beat(session, owner, "maintenance", "here", 1, {})
    return Decider(settings(stage.folder, stage.url, **more), stage.database, owner, threading.Event())


def uploaded(database: Database, stage: Stage, account_id: int, copy: bytes, waited_s: int = 601) -> UUID:  # noqa: F811
    """An upload that was submitted so long ago and fetched just now; the moderation's id."""
    with database.transaction() as session:
        row = moderations.submit(session, account_id, Asked(), NewItem(url="https://a.example/1.jpg"))
        made, job = row.id, row.job_id
    run_sql(
        database, "UPDATE jobs SET created_at = now() - make_interval(secs => :s) WHERE id = :job", s=waited_s, job=job
    )
    fetched(database, stage.blobs, account_id, [copy])
    return made


def said(database: Database, moderation: UUID) -> tuple[str, str | None]:
    (row,) = rows(database, "SELECT state, verdict FROM moderations WHERE id = :id", id=moderation)
    return row.state, row.verdict


def infer_chunks(database: Database) -> list[tuple[str, UUID | None, int]]:
    found = rows(database, "SELECT state, owner, fence FROM chunks WHERE stage = 'infer' ORDER BY id")
    return [(row.state, row.owner, row.fence) for row in found]


@pytest.mark.parametrize(
    ("on_late", "state", "verdict"),
    [("fail_open", "decided", "approve"), ("fail_closed", "decided", "reject"), ("review", "in_review", "review")],
)
def test_an_upload_is_decided_in_time_though_no_worker_is_alive(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
    on_late: str,
    state: str,
    verdict: str,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late=on_late, late_after_s=600)
    in_time = uploaded(owner_db, stage, account.id, jpeg("red"), waited_s=500)
    late = uploaded(owner_db, stage, account.id, jpeg("blue"))
    assert decider(stage).run_once() == 1
    assert said(owner_db, in_time) == ("pending", None)
    assert said(owner_db, late) == (state, verdict)
    (found,) = rows(owner_db, "SELECT moderation FROM results")
    assert found.moderation["reasons"] == [{"code": "moderation_late", "verdict": verdict}]
    assert found.moderation["model"] is None
    told = rows(owner_db, "SELECT subject, payload FROM outbox WHERE type = 'moderation.decided'")
    assert [(row.subject, row.payload["verdict"]) for row in told] == [(str(late), verdict)]
    tasks = rows(owner_db, "SELECT FROM review_tasks")
    assert len(tasks) == (verdict == "review")


def test_maintenance_has_it_among_its_duties(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late="fail_closed", late_after_s=600)
    late = uploaded(owner_db, stage, account.id, jpeg("red"))
    given = settings(stage.folder, stage.url)
    dispatcher = Dispatcher(given, stage.database)
    (duty,) = [
        duty
        for duty in maintenance.duties(given, stage.database, dispatcher, uuid7(), threading.Event())
        if duty.name == "late"
    ]
    assert duty.run() == 1
    assert said(owner_db, late) == ("decided", "reject")


def test_what_is_known_counts_and_people_stand_over_it(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    """Facts, stored scores, and what a person decided: lateness takes none of them."""
    small = {"id": "small", "when": {"fact": "height", "below": 17}, "then": "reject"}
    decides(owner_db, account.id, small, NUDITY, on_late="fail_open", late_after_s=600)
    by_fact = uploaded(owner_db, stage, account.id, jpeg("blue"))
    assert decider(stage).run_once() == 1
    assert said(owner_db, by_fact) == ("decided", "reject")

    decides(owner_db, account.id, NUDITY, on_late="fail_open", late_after_s=600)
    ingested(owner_db, stage.blobs, account.id, [jpeg("red")], analyses=MODERATION)
    stage.inference().run()
    by_score = uploaded(owner_db, stage, account.id, jpeg("red"))
    assert decider(stage).run_once() == 1
    assert said(owner_db, by_score) == ("decided", "reject")

    (job,) = rows(owner_db, "SELECT job_id FROM moderations WHERE id = :id", id=by_fact)
    (picture,) = rows(owner_db, "SELECT sha256 FROM results WHERE job_id = :job", job=job.job_id)
    with owner_db.transaction() as session:
        person = Decision(job.job_id, 0, bytes(picture.sha256), "", "review", "reject", "user:1", code="looked")
        decisions.append(session, account.id, [person])
    by_person = uploaded(owner_db, stage, account.id, jpeg("blue"))
    assert decider(stage).run_once() == 1
    assert said(owner_db, by_person) == ("decided", "reject")
    (row,) = rows(owner_db, "SELECT automatic FROM moderations WHERE id = :id", id=by_person)
    assert row.automatic == "approve", "the policy fails open, and the person's word stands over it"


def test_a_chunk_in_a_workers_hands_is_left_alone(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late="fail_closed", late_after_s=600)
    late = uploaded(owner_db, stage, account.id, jpeg("red"))
    worker = uuid7()
    with owner_db.transaction() as session:
        workers.beat(session, worker, "worker", "here", 1, {})
        assert len(chunks.claim(session, "infer", worker, 60)) == 1
    assert decider(stage).run_once() == 0
    assert infer_chunks(owner_db) == [("leased", worker, 1)]
    with owner_db.transaction() as session:
        workers.gone(session, worker)
    with owner_db.transaction() as session:
        assert rescue.reap(session).released == 1
    assert decider(stage).run_once() == 1
    assert said(owner_db, late) == ("decided", "reject")


def test_a_chunk_that_waits_for_a_model_to_load_is_late_all_the_same(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    """The worker lives, the model's files are gone: the chunk is to be tried again in an hour."""
    decides(owner_db, account.id, NUDITY, on_late="fail_closed", late_after_s=600)
    late = uploaded(owner_db, stage, account.id, jpeg("red"), waited_s=1)
    (stage.folder / "models").rename(stage.folder / "gone")
    stage.inference(model_retry_s=7200).run()
    run_sql(owner_db, "UPDATE jobs SET created_at = created_at - interval '600 s'")
    assert decider(stage).run_once() == 1
    assert said(owner_db, late) == ("decided", "reject")


def test_who_asks_for_more_than_verdicts_waits_for_a_worker(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    """Tags that only the policy reads are no such thing; neither are tags that no model makes."""
    red = {"id": "red", "when": {"tag": "red"}, "then": "reject"}
    decides(owner_db, account.id, red, NUDITY, on_late="fail_open", late_after_s=600)
    both = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    verdicts = ingested(owner_db, stage.blobs, account.id, [jpeg("red"), jpeg("blue")], analyses=MODERATION)
    run_sql(owner_db, "UPDATE model_versions SET state = 'retired', retired_at = now() WHERE task = 'tags'")
    tagless = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    for job in (both, verdicts, tagless):
        waited(owner_db, job, 601)
    assert decider(stage).run_once() == 3
    assert moderated(owner_db, both) == []
    assert [found["verdict"] for found in moderated(owner_db, verdicts)] == ["approve", "approve"]
    (row,) = rows(owner_db, "SELECT tags, moderation FROM results WHERE job_id = :job", job=tagless)
    assert (row.tags, row.moderation["verdict"]) == ([], "approve")
    stage.inference().run()
    (row,) = rows(owner_db, "SELECT tags, moderation FROM results WHERE job_id = :job", job=both)
    assert row.tags[0]["label"] == "red"


def test_uploads_wait_from_their_submit_and_bulk_pictures_from_when_they_are_ready(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late="fail_closed", late_after_s=600)
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")], analyses=MODERATION)
    run_sql(owner_db, "UPDATE jobs SET created_at = now() - interval '1 h'")
    assert decider(stage).run_once() == 0, "an hour of fetching, and ready just now"
    waited(owner_db, job, 601)
    assert decider(stage).run_once() == 1
    uploaded(owner_db, stage, account.id, jpeg("blue"), waited_s=601)
    assert decider(stage).run_once() == 1, "fetched just now, submitted long ago"


def test_a_halved_chunk_is_as_old_as_it_was(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late="fail_closed", late_after_s=600)
    copies = [jpeg("red", n) for n in range(4)]
    job = ingested(owner_db, stage.blobs, account.id, copies, analyses=MODERATION)
    waited(owner_db, job, 601)
    with owner_db.transaction() as session:
        chunks.claim(session, "infer", uuid7(), -1)
    run_sql(owner_db, "UPDATE chunks SET attempts = 3 WHERE state = 'leased'")
    with owner_db.transaction() as session:
        assert rescue.reap(session).split == 1
    assert decider(stage).run_once() == 4


def test_a_rerun_is_never_late(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
) -> None:
    """So it is the way to put right what was decided late, once the model is back; it is found by its reason."""
    decides(owner_db, account.id, NUDITY, on_late="fail_open", late_after_s=600)
    jobs = [
        ingested(owner_db, stage.blobs, account.id, [jpeg(colour)], analyses=MODERATION) for colour in ("red", "blue")
    ]
    waited(owner_db, jobs[0], 601)
    assert decider(stage).run_once() == 1
    stage.inference().run()
    assert [moderated(owner_db, job)[0]["verdict"] for job in jobs] == ["approve", "approve"]
    with owner_db.transaction() as session:
        for job in jobs:
            assert endings.finish(session, job)
    with owner_db.transaction() as session:
        rerun = reruns.start(session, account.id, "tiny-moderation@1", Selection(reason="moderation_late"))
        staged, total = rerun.job_id, rerun.total
    assert total == 1
    waited(owner_db, staged, 6000)
    assert decider(stage).run_once() == 0
    stage.inference().run()
    (found,) = moderated(owner_db, staged)
    assert (found["verdict"], found["rule"]) == ("reject", "nudity")


def test_the_slower_of_the_two_writes_nothing(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Maintenance stands still after its claim, its lease runs out, and a worker ends the chunk: by its model, because
    the scores are there."""
    decides(owner_db, account.id, NUDITY, on_late="fail_open", late_after_s=600)
    late = uploaded(owner_db, stage, account.id, jpeg("red"))
    record = infer_rows.record

    def slow(session: Session, work: Work, outcomes: list[object], *, audit_share: float) -> None:
        monkeypatch.setattr(infer_rows, "record", record)
        run_sql(owner_db, "UPDATE chunks SET lease_until = now() - interval '1 s' WHERE state = 'leased'")
        with owner_db.transaction() as other:
            assert rescue.reap(other).released == 1
        run_sql(owner_db, "UPDATE jobs SET created_at = now()")  # to the worker it is not late
        stage.inference().run()
        record(session, work, outcomes, audit_share=audit_share)  # type: ignore[arg-type]

    monkeypatch.setattr(infer_rows, "record", slow)
    assert decider(stage).run_once() == 0
    assert said(owner_db, late) == ("decided", "reject")
    assert len(rows(owner_db, "SELECT FROM results")) == 1
    assert len(rows(owner_db, "SELECT FROM outbox WHERE type = 'moderation.decided'")) == 1


def test_workers_and_maintenance_at_once_give_one_outcome_each(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    database_url: str,
    account: TestAccount,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late="fail_closed", late_after_s=600)
    made = [uploaded(owner_db, stage, account.id, jpeg("red", n)) for n in range(40)]
    stage.database = Database(database_url, pool_size=8)
    infer = [stage.inference(), stage.inference()]
    runs = [decider(stage).run_once, decider(stage).run_once, *(lambda one=one: one.run().images for one in infer)]
    barrier = threading.Barrier(len(runs))

    def start(run: Callable[[], int]) -> int:
        barrier.wait(20)
        return run()

    with ThreadPoolExecutor(len(runs)) as pool:
        assert sum(pool.map(start, runs)) == 40
    stage.database.dispose()
    assert {said(owner_db, each) for each in made} == {("decided", "reject")}
    assert len(rows(owner_db, "SELECT FROM results")) == 40
    assert len(rows(owner_db, "SELECT FROM outbox WHERE type = 'moderation.decided'")) == 40
    assert infer_chunks(owner_db) == [("done", None, 1)] * 40, "each was claimed once"


def test_metrics_count_what_was_late(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    api_db: Database,
    account: TestAccount,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late="fail_open", late_after_s=600)
    ingested(owner_db, stage.blobs, account.id, [jpeg("blue")])
    late = ingested(owner_db, stage.blobs, account.id, [jpeg("red"), jpeg("green")])
    waited(owner_db, late, 601)
    inference = stage.inference()
    inference.run()
    assert inference.counters.snapshot()["late"] == 2
    with owner_db.transaction() as session:
        for role, counted in (("worker", {"late": 2}), ("worker", {"late": 3}), ("maintenance", {"late": 5.0})):
            workers.beat(session, uuid7(), role, "here", 1, counted)
        workers.beat(session, uuid7(), "crawler", "here", 1, {})
        gone = uuid7()
        workers.beat(session, gone, "worker", "here", 1, {"late": 100})
        workers.gone(session, gone)
    with api_db.transaction(account.id) as session:
        found = {s.labels["role"]: s.value for s in stats.samples(session) if s.name == "late_pictures"}
    assert found == {"worker": 5, "maintenance": 5}


def test_what_cannot_be_recorded_goes_back_unharmed(
    stage: Stage,  # noqa: F811
    owner_db: Database,
    account: TestAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decides(owner_db, account.id, NUDITY, on_late="fail_closed", late_after_s=600)
    for colour in ("red", "blue", "green"):
        uploaded(owner_db, stage, account.id, jpeg(colour))

    def away(session: Session, chunk: Chunk) -> Work:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(infer_rows, "read", away)
        with pytest.raises(Unavailable):
            decider(stage).run_once()
    assert [state for state, _, _ in infer_chunks(owner_db)] == ["ready"] * 3
    attempts = rows(owner_db, "SELECT attempts FROM chunks WHERE stage = 'infer'")
    assert [row.attempts for row in attempts] == [0] * 3

    def fault(session: Session, chunk: Chunk) -> Work:
        raise ArithmeticError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(infer_rows, "read", fault)
        with pytest.raises(ArithmeticError):
            decider(stage).run_once()
    assert sorted(state for state, _, _ in infer_chunks(owner_db)) == ["leased", "ready", "ready"]
    assert decider(stage).run_once() == 2
