"""Reruns in Postgres, with hand-made scores: what is chosen, staged, compared, published, rolled back and dropped."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import chunks, endings, images, jobs, products, progress, publishing, registry, rerun_diff, reruns
from db.errors import BadSelection, Conflict, EmptyRerun, NotFound
from db.ids import uuid7
from db.jobs import JobSpec, NewItem
from db.recording import InferOutcome, finish_infer
from db.rerun_diff import Difference
from db.reruns import Selection
from db.session import Database
from db.tables import Rerun
from tests.conftest import TestAccount, make_account
from tests.db.test_line import claim, finish, ingest_all

EVERYTHING = Selection(all=True)
Score = Callable[[int], list[tuple[str, float]]]


def install(db: Database, ref: str, task: str = "tags") -> None:
    name, _, version = ref.partition("@")
    with db.transaction() as session:
        registry.install_model(session, {"name": name, "version": version, "task": task}, f"{len(ref):064d}")
        registry.activate(session, name, version)


def infer(db: Database, score: Score, *, fail: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """End every ready infer chunk with these tags and with a verdict from the first score."""
    while claimed := claim(db, "infer"):
        (chunk,) = claimed
        ref, judge = chunk.models.get("tags"), chunk.models.get("moderation")
        with db.transaction() as session:
            outcomes = []
            for member in chunks.images_of(session, chunk):
                if member.seq in fail:
                    outcomes.append(InferOutcome(member.seq, sha256=member.sha256, code="inference_failed"))
                    continue
                scored = score(member.seq)
                tags = [{"label": n, "group": "g", "score": s, "model": ref} for n, s in scored]
                verdict = {"verdict": scored[0][0], "scores": dict(scored), "model": judge} if judge else None
                outcomes.append(InferOutcome(member.seq, member.sha256, tags if ref else None, verdict))
            finish_infer(session, chunk, outcomes)


def catalog(db: Database, account: TestAccount, score: Score, count: int = 40, task: str = "tags") -> UUID:
    """A finished job of `count` pictures; every fourth is of one product."""
    with db.transaction(account.id) as session:
        new = [NewItem(url=f"http://pictures.test/{n}.jpg", product_id=f"p{n // 4}") for n in range(count)]
        job = jobs.submit(session, account.id, JobSpec(analyses=(task,)), new, max_items=10_000)
    ingest_all(db, account)
    infer(db, score)
    assert finish(db, job)
    return job.id


def start(db: Database, account: TestAccount, ref: str, selection: Selection = EVERYTHING) -> Rerun:
    with db.transaction(account.id) as session:
        return reruns.start(session, account.id, ref, selection, chunk_size=16)


def end(db: Database, rerun: Rerun) -> None:
    with db.transaction() as session:
        assert endings.finish(session, rerun.job_id)


def run(db: Database, step: Callable[..., publishing.Moved], account: TestAccount, rerun: Rerun, limit: int = 7) -> int:
    """Repeat a step in its own transactions until nothing is left; how many results it wrote."""
    changed = 0
    while True:
        with db.transaction(account.id) as session:
            moved = step(session, account.id, rerun.id, limit=limit)
        changed += moved.changed
        if not moved.more:
            return changed


def difference(db: Database, account: TestAccount, rerun: Rerun) -> Difference:
    found, after = Difference(rerun.task), -1
    with db.transaction(account.id) as session:
        while pairs := rerun_diff.batch(session, rerun, after=after, limit=9):
            for pair in pairs:
                found.add(pair)
            after = pairs[-1].seq
    return found


def labels(db: Database, job: UUID) -> list[str]:
    with db.transaction() as session:
        rows = session.execute(text("SELECT tags FROM results WHERE job_id = :job ORDER BY seq"), {"job": job})
        return [" ".join(f"{tag['label']}/{tag['model']}" for tag in row.tags) for row in rows]


def snapshot(db: Database) -> list[tuple[Any, ...]]:
    """Everything that a client can see of results."""
    with db.transaction() as session:
        sql = "SELECT bucket, job_id, seq, outcome, code, tags, moderation, published FROM results ORDER BY 2, 3"
        return [tuple(row) for row in session.execute(text(sql))]


def state(db: Database, account: TestAccount, rerun: Rerun) -> tuple[str, int, int]:
    with db.transaction(account.id) as session:
        now = reruns.get(session, account.id, rerun.id)
        return now.state, now.published, now.restored


def old(seq: int) -> list[tuple[str, float]]:
    return [("shirt", 0.9), ("cotton", 0.3)] if seq % 2 else [("dress", 0.6)]


def new(seq: int) -> list[tuple[str, float]]:
    return [("shirt", 0.95), ("linen", 0.4)] if seq % 2 else [("dress", 0.7)]


def test_staged_compared_published_and_rolled_back(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    job = catalog(db, account, old)
    before = snapshot(db)
    install(db, "m@2")
    rerun = start(db, account, "m@2")
    with db.transaction() as session:
        shown = progress.progress(session, rerun.job_id)
        assert (shown.total, shown.ingest.done, shown.ingest.open, shown.infer.open) == (40, 40, 0, 40)
    infer(db, new, fail={4, 5})
    end(db, rerun)
    assert snapshot(db)[:40] == before, "a rerun touched what is published"
    found = difference(db, account, rerun)
    assert (found.same, found.changed, found.failed) == (19, 19, {"inference_failed": 2})
    assert (found.added, found.removed) == ({("g", "linen"): 19}, {("g", "cotton"): 19})
    assert found.examples[0]["added"] == ["linen"]

    assert run(db, publishing.publish, account, rerun) == 38
    assert state(db, account, rerun) == ("published", 38, 0)
    wanted = ["shirt/m@2 linen/m@2" if n % 2 else "dress/m@2" for n in range(40)]
    wanted[4], wanted[5] = "dress/m@1", "shirt/m@1 cotton/m@1"
    assert labels(db, job) == wanted
    assert difference(db, account, rerun).document() == found.document(), "publishing must not empty the difference"
    with db.transaction() as session:
        view = products.view(session, account.id, "p2")
    assert {tag["label"] for tag in view.tags} == {"shirt", "linen", "dress"}
    assert {source["model"] for tag in view.tags for source in tag["sources"]} == {"m@2"}

    assert run(db, publishing.roll_back, account, rerun) == 38
    assert state(db, account, rerun) == ("rolled_back", 38, 38)
    assert snapshot(db)[:40] == before
    with pytest.raises(Conflict, match="rolled_back"):
        run(db, publishing.publish, account, rerun)


def test_the_catalog_sees_nothing_of_a_staged_rerun(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    catalog(db, account, old)
    install(db, "m@2")
    rerun = start(db, account, "m@2")
    infer(db, new)
    end(db, rerun)
    with db.transaction() as session:
        view = products.view(session, account.id, "p0")
        assert {tag["label"] for tag in view.tags} == {"shirt", "cotton", "dress"}
        assert session.scalar(text("SELECT count(*) FROM catalog_tags WHERE label = 'linen'")) == 0


def test_verdicts_flip_and_only_the_analysed_part_is_replaced(db: Database, account: TestAccount) -> None:
    install(db, "t@1")
    install(db, "j@1", "moderation")
    with db.transaction(account.id) as session:
        items = [NewItem(url=f"http://pictures.test/{n}.jpg") for n in range(20)]
        job = jobs.submit(session, account.id, JobSpec(), items, max_items=100)
    ingest_all(db, account)
    infer(db, lambda seq: [("approve", 0.6)])
    assert finish(db, job)
    install(db, "j@2", "moderation")
    rerun = start(db, account, "j@2")
    infer(db, lambda seq: [("reject" if seq < 3 else "approve", 0.9)])
    end(db, rerun)
    found = difference(db, account, rerun)
    assert (found.flipped, found.same) == ({("approve", "reject"): 3}, 17)
    assert run(db, publishing.publish, account, rerun) == 20
    assert set(labels(db, job.id)) == {"approve/t@1"}, "the tags are not the rerun's to change"
    with db.transaction() as session:
        judges = session.scalars(text("SELECT moderation ->> 'model' FROM results WHERE job_id = :j"), {"j": job.id})
        assert set(judges) == {"j@2"}


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(), 40),
        (Selection(all=True), 40),
        (Selection(older_than="m@2"), 40),
        (Selection(older_than="m@1"), 0),
        (Selection(label="shirt"), 20),
        (Selection(label="cotton", low=0.2, high=0.4), 20),
        (Selection(label="cotton", low=0.5), 0),
        (Selection(low=0.5, high=0.7), 20),
        (Selection(product="p1"), 4),
        (Selection(product="p*", label="dress"), 20),
        (Selection(product="p_"), 0),
        (Selection(job=UUID(int=5)), 0),
    ],
)
def test_what_a_selection_chooses(db: Database, account: TestAccount, selection: Selection, count: int) -> None:
    install(db, "m@1")
    catalog(db, account, old)
    install(db, "m@2")
    with db.transaction(account.id) as session:
        assert reruns.plan(session, account.id, "m@2", selection).items == count
    if count:
        assert start(db, account, "m@2", selection).total == count
    else:
        with pytest.raises(EmptyRerun):
            start(db, account, "m@2", selection)
        with db.transaction() as session:
            assert session.scalar(text("SELECT count(*) FROM jobs")) == 1


def test_moderation_is_chosen_by_verdict_and_by_a_class_and_its_band(db: Database, account: TestAccount) -> None:
    install(db, "j@1", "moderation")
    catalog(db, account, lambda seq: [("review" if seq < 5 else "approve", 0.5 + seq / 100)], task="moderation")
    install(db, "j@2", "moderation")

    def count(**conditions: Any) -> int:
        with db.transaction(account.id) as session:
            return reruns.plan(session, account.id, "j@2", Selection(**conditions)).items

    assert count(verdict="review") == 5
    assert count(label="review", low=0.52) == 3
    with pytest.raises(BadSelection):
        count(label="review")
    with pytest.raises(BadSelection):
        count(low=0.5, high=0.4)


def test_bad_selections_and_models_are_refused(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    catalog(db, account, old)
    for selection, error in (
        (Selection(verdict="review"), BadSelection),
        (Selection(reason="moderation_late"), BadSelection),
        (Selection(low=-0.1), BadSelection),
        (Selection(older_than="m@9"), NotFound),
    ):
        with pytest.raises(error):
            start(db, account, "m@1", selection)
    with pytest.raises(NotFound):
        start(db, account, "nobody@1")


def test_a_plan_counts_by_model_what_is_scored_already_and_how_long_the_rest_takes(
    db: Database, account: TestAccount
) -> None:
    install(db, "m@1")
    job = catalog(db, account, old)
    install(db, "m@2")
    with db.transaction() as session:
        shas = list(session.scalars(text("SELECT sha256 FROM images ORDER BY 1 LIMIT 15")))
        images.record_analyses(session, account.id, "m@2", {bytes(sha): {"tags": []} for sha in shas})
        # 16 + 16 + 8 pictures, the first chunk ended 8 s before the last.
        session.execute(
            text(
                "UPDATE chunks SET finished_at = finished_at - ((SELECT max(id) FROM chunks) - id)"
                " * interval '4 seconds' WHERE job_id = :job AND stage = 'infer'"
            ),
            {"job": job},
        )
        made = reruns.plan(session, account.id, "m@2", Selection())
    assert (made.items, made.scored, made.by_model) == (40, 15, {"m@1": 40})
    assert made.rate is not None
    assert made.rate == pytest.approx(4.0, rel=0.05)
    assert made.seconds == pytest.approx(25 / 4.0, rel=0.05)


def test_results_without_tags_know_who_made_them_also_after_publishing(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    catalog(db, account, lambda seq: [], count=16)
    install(db, "m@2")
    rerun = start(db, account, "m@2", Selection())
    infer(db, lambda seq: [])
    end(db, rerun)
    run(db, publishing.publish, account, rerun)
    with db.transaction(account.id) as session:
        assert reruns.plan(session, account.id, "m@2", Selection()).items == 0
        assert reruns.plan(session, account.id, "m@1", Selection()).by_model == {"m@2": 16}


def test_a_later_publication_is_not_rolled_back_by_an_earlier_one(db: Database, account: TestAccount) -> None:
    """Also where both published the very same tags."""
    install(db, "m@1")
    job = catalog(db, account, old)
    install(db, "m@2")
    first = start(db, account, "m@2")
    infer(db, new)
    end(db, first)
    run(db, publishing.publish, account, first)
    second = start(db, account, "m@2", Selection(all=True, label="linen"))
    infer(db, lambda seq: new(1))
    end(db, second)
    run(db, publishing.publish, account, second)
    assert run(db, publishing.roll_back, account, first) == 20
    assert labels(db, job)[1] == "shirt/m@2 linen/m@2"
    assert labels(db, job)[0] == "dress/m@1"
    assert run(db, publishing.roll_back, account, second) == 20
    # Newest first would have led all the way back; this way, the second one's rows show the first one again.
    assert labels(db, job)[1] == "shirt/m@2 linen/m@2"


def test_publishing_needs_an_ended_rerun_of_the_active_model(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    catalog(db, account, old)
    install(db, "m@2")
    rerun = start(db, account, "m@2")
    with pytest.raises(Conflict, match="still works"):
        run(db, publishing.publish, account, rerun)
    infer(db, new)
    end(db, rerun)
    with db.transaction() as session:
        registry.rollback(session, "tags")
    with pytest.raises(Conflict, match="not the active model"):
        run(db, publishing.publish, account, rerun)
    assert state(db, account, rerun)[0] == "staged"


def test_drop_stops_the_work_and_leaves_the_catalog(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    catalog(db, account, old)
    before = snapshot(db)
    install(db, "m@2")
    rerun = start(db, account, "m@2")
    assert run(db, publishing.drop, account, rerun) == 40
    assert claim(db, "infer") == []
    end(db, rerun)
    assert state(db, account, rerun)[0] == "dropped"
    assert snapshot(db)[:40] == before
    for step in (publishing.publish, publishing.roll_back, publishing.drop):
        with pytest.raises(Conflict):
            run(db, step, account, rerun)


def test_a_publication_taken_up_after_a_crash_goes_on_where_it_was(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    job = catalog(db, account, old)
    before = snapshot(db)
    install(db, "m@2")
    rerun = start(db, account, "m@2")
    infer(db, new)
    end(db, rerun)
    with db.transaction(account.id) as session:
        assert publishing.publish(session, account.id, rerun.id, limit=10).more
    with pytest.raises(RuntimeError), db.transaction(account.id) as session:
        publishing.publish(session, account.id, rerun.id, limit=10)
        raise RuntimeError("the process dies before its commit")
    assert [row.endswith("m@2") for row in labels(db, job)] == [True] * 10 + [False] * 30
    assert run(db, publishing.publish, account, rerun) == 30
    assert run(db, publishing.roll_back, account, rerun) == 40
    assert snapshot(db)[:40] == before


def test_a_half_published_rerun_can_be_rolled_back(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    catalog(db, account, old)
    before = snapshot(db)
    install(db, "m@2")
    rerun = start(db, account, "m@2")
    infer(db, new)
    end(db, rerun)
    with db.transaction(account.id) as session:
        publishing.publish(session, account.id, rerun.id, limit=10)
    assert run(db, publishing.roll_back, account, rerun) == 10
    assert snapshot(db)[:40] == before


def test_two_publishers_at_once_publish_each_result_once(db: Database, account: TestAccount) -> None:
    install(db, "m@1")
    catalog(db, account, old, count=200)
    install(db, "m@2")
    rerun = start(db, account, "m@2")
    infer(db, new)
    end(db, rerun)
    wrote: list[int] = []

    def publish() -> None:
        total = 0
        while True:
            try:
                with db.transaction(account.id) as session:
                    moved = publishing.publish(session, account.id, rerun.id, limit=11)
            except Conflict:  # the other one came to the end
                break
            total += moved.changed
            if not moved.more:
                break
        wrote.append(total)

    threads = [threading.Thread(target=publish) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wrote) == 200
    assert state(db, account, rerun) == ("published", 200, 0)


def test_another_account_sees_and_touches_nothing(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "other")
    install(db, "m@1")
    catalog(db, account, old)
    rerun = start(db, account, "m@1")
    with db.transaction(other.id) as session:
        assert reruns.plan(session, other.id, "m@1", EVERYTHING).items == 0
        with pytest.raises(NotFound):
            reruns.get(session, other.id, rerun.id)
        with pytest.raises(NotFound):
            publishing.drop(session, other.id, rerun.id)
    with api_db.transaction(other.id) as session:
        assert session.scalar(text("SELECT count(*) FROM reruns")) == 0
        assert session.scalar(text("SELECT count(*) FROM rerun_items")) == 0
    with api_db.transaction(account.id) as session:
        assert session.scalar(text("SELECT count(*) FROM rerun_items")) == 40


def test_failed_items_of_a_rerun_are_retried_like_any_jobs(db: Database, account: TestAccount) -> None:
    from db import retries

    install(db, "m@1")
    job = catalog(db, account, old)
    install(db, "m@2")
    rerun = start(db, account, "m@2")
    infer(db, new, fail={3})
    end(db, rerun)
    with db.transaction(account.id) as session:
        assert retries.retry(session, account.id, rerun.job_id) == 1
        with pytest.raises(Conflict, match="still works"):
            publishing.publish(session, account.id, rerun.id)
    assert claim(db, "ingest", uuid7()) == [], "the working copy is there: nothing is fetched again"
    infer(db, new)
    end(db, rerun)
    assert run(db, publishing.publish, account, rerun) == 40
    assert labels(db, job)[3] == "shirt/m@2 linen/m@2"
