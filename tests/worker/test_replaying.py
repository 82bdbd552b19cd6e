"""Replays over a job that the line really decided: what a policy would change, and deciding the window again."""

import itertools
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from db import bank_entries, banks, decisions, policy, replays, whatif
from db.bank_entries import NewEntry
from db.blobs import LocalBlobs
from db.decisions import Decision
from db.errors import BadSelection, LeaseLost
from db.ids import item_id, uuid7
from db.session import Database, Session
from db.whatif import Window
from tests.conftest import TestAccount, make_account
from tests.db import bank_line
from tests.worker.line import ingested, install_models, jpeg, rows, run_sql, settings
from worker import banning
from worker.infer import Inference
from worker.predictors import Predictors
from worker.replaying import Replayer, replay

PDQ = "f0e1d2c3b4a5968778695a4b3c2d1e0f" * 2
FOUR = ["red", "green", "blue", "grey"]
NOW = datetime.now(UTC)
WINDOW = Window(NOW - timedelta(days=3), NOW + timedelta(hours=1))


def document(version: int = 2, **porn: float) -> dict[str, Any]:
    """The policy that the tests' jobs are decided by, with other thresholds for one class."""
    thresholds = {"Porn": porn or {"review": 0.30, "reject": 0.85}, "Hentai": {"review": 0.4, "reject": 0.9}}
    return {"name": "default", "version": version, "thresholds": {**thresholds, "Sexy": {"review": 0.6}}}


@pytest.fixture
def job(db: Database, owner_db: Database, database_url: str, account: TestAccount, tmp_path: Path) -> UUID:
    """Sixteen pictures of four colours, decided by the line: red is rejected, green reviewed."""
    install_models(owner_db, tmp_path / "models")
    blobs = LocalBlobs(tmp_path / "blobs")
    made = ingested(owner_db, blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(16)])
    given = settings(tmp_path, database_url)
    Inference(given, db, blobs, Predictors(given, db, "cpu"), uuid7()).run()
    return made


def moderation(database: Database, job: UUID) -> dict[int, dict[str, Any]]:
    sql = "SELECT seq, moderation FROM results WHERE job_id = :job ORDER BY seq"
    return {row.seq: row.moderation for row in rows(database, sql, job=job)}


def test_the_policy_that_decided_changes_nothing(db: Database, owner_db: Database, job: UUID) -> None:
    pinned = rows(owner_db, "SELECT policy FROM jobs WHERE id = :job", job=job)[0].policy
    found = replay(db, policy.validate(pinned), WINDOW)
    assert (found["analyses"], found["changed"], found["flips"]) == (16, 0, [])
    assert found["before"] == found["after"] == {"approve": 8, "review": 4, "reject": 4}


def test_a_replay_is_what_the_engine_says_of_each_result(db: Database, owner_db: Database, job: UUID) -> None:
    stricter = policy.validate(document(review=0.05, reject=0.999))
    expected = {}
    for seq, stood in moderation(owner_db, job).items():
        verdict = policy.decide(stricter, policy.Evidence(stood["scores"]))
        if verdict.verdict != stood["verdict"]:
            expected[item_id(job, seq)] = (stood["verdict"], verdict.verdict, verdict.rule)
    assert expected, "a replay without a flip shows nothing"
    found = replay(db, stricter, WINDOW)
    flips = {sample: (flip["before"], flip["after"]) for flip in found["flips"] for sample in flip["samples"]}
    assert flips == {item: pair[:2] for item, pair in expected.items()}
    rules = {rule["rule"] for flip in found["flips"] for rule in flip["rules"]}
    assert rules == {rule for _, _, rule in expected.values()}
    assert found["written"] == 0
    misspelt = policy.validate({"name": "m", "thresholds": {"Pron": {"review": 0.5}}})
    (flip, *others) = replay(db, misspelt, WINDOW)["flips"]
    (why, *_) = {(rule["rule"], rule["reason"]) for each in (flip, *others) for rule in each["rules"]}
    assert why == (None, "class_not_scored"), "of doubt the reason is told where there is no rule"
    assert all(stood["policy"] == "default@1" for stood in moderation(owner_db, job).values())


def test_a_redecision_writes_what_changes_and_keeps_what_was(
    db: Database, owner_db: Database, account: TestAccount, job: UUID
) -> None:
    before = moderation(owner_db, job)
    milder = policy.validate(document(review=0.9999, reject=1.0))
    found = replay(db, milder, WINDOW, account_id=account.id, write="key:test")
    after = moderation(owner_db, job)
    changed = [seq for seq in before if before[seq] != after[seq]]
    assert found["written"] == len(changed) > 0
    for seq in changed:
        assert after[seq]["policy"] == "default@2"
        assert after[seq]["verdict"] == policy.decide(milder, policy.Evidence(before[seq]["scores"])).verdict
        assert (after[seq]["scores"], after[seq]["model"]) == (before[seq]["scores"], before[seq]["model"])
    kept = rows(owner_db, "SELECT seq, kind, actor, before, after FROM decisions ORDER BY seq")
    assert {row.seq: (row.before, row.after) for row in kept} == {s: (before[s], after[s]) for s in changed}
    assert {(row.kind, row.actor) for row in kept} == {("policy", "key:test")}
    assert replay(db, milder, WINDOW, write="key:test")["written"] == 0, "the second time nothing is left to change"


def test_people_are_asked_what_became_doubtful_and_no_longer_what_is_clear(
    db: Database, owner_db: Database, job: UUID
) -> None:
    def asked() -> set[int]:
        return {row.seq for row in rows(owner_db, "SELECT seq FROM review_tasks WHERE state = 'open'")}

    review = {seq for seq, stood in moderation(owner_db, job).items() if stood["verdict"] == "review"}
    assert asked() == review, "the line opened a task for each"
    replay(db, policy.validate({"name": "default", "version": 3, "rules": []}), WINDOW, write="cli")
    assert asked() == set()
    doubtful = {"id": "all", "when": {"score": "Neutral", "at_least": 0.0}, "then": "review", "code": "look"}
    replay(db, policy.validate({"name": "default", "version": 4, "rules": [doubtful]}), WINDOW, write="cli")
    assert asked() == set(range(16))


def test_what_a_person_decided_is_counted_apart_and_never_written(
    db: Database, owner_db: Database, account: TestAccount, job: UUID
) -> None:
    sha = bytes(rows(owner_db, "SELECT sha256 FROM results WHERE job_id = :job AND seq = 0", job=job)[0].sha256)
    with owner_db.transaction() as session:
        decisions.append(session, account.id, [Decision(job, 0, sha, "", "review", "approve", "user:1")])
    before = moderation(owner_db, job)
    found = replay(db, policy.validate({"name": "default", "version": 3, "rules": []}), WINDOW, write="cli")
    assert found["analyses"] == 15
    assert found["people"] == {"decided": 1, "before_agrees": 0, "after_agrees": 1}
    after = moderation(owner_db, job)
    assert after[0] == before[0]
    assert all(stood["verdict"] == "approve" for seq, stood in after.items() if seq != 0)


def test_a_window_chooses(db: Database, owner_db: Database, account: TestAccount, job: UUID) -> None:
    nothing = policy.validate({"name": "default", "version": 3, "rules": []})
    other = make_account(owner_db, "rival")

    def seen(window: Window, account_id: int | None = None) -> object:
        return replay(db, nothing, window, account_id=account_id)["analyses"]

    since, until = WINDOW.since, WINDOW.until
    assert seen(WINDOW, account.id) == 16
    assert seen(WINDOW, other.id) == 0
    assert seen(Window(since, NOW - timedelta(days=1))) == 0
    assert seen(Window(since, until, context="avatar")) == 0
    assert seen(Window(since, until, job=job)) == 16
    assert seen(Window(since, until, job=uuid7())) == 0
    assert seen(Window(since, until, policy="default")) == 16
    assert seen(Window(since, until, policy="defaul")) == 0
    run_sql(owner_db, "UPDATE jobs SET context = 'avatar'")
    assert seen(Window(since, until, context="avatar")) == 16
    with pytest.raises(BadSelection, match="begins before it ends"):
        seen(Window(until, since))


def test_slices_cover_the_window_newest_first_without_a_gap() -> None:
    window = Window(datetime(2026, 3, 28, 5, tzinfo=UTC), datetime(2026, 3, 31, 0, tzinfo=UTC))
    parts = list(window.slices())
    assert parts[0][1] == window.until
    assert parts[-1][0] == window.since
    assert all(newer[0] == older[1] for newer, older in itertools.pairwise(parts))
    assert all(end - begin <= whatif.SLICE for begin, end in parts)
    assert len(parts) == 3


def test_a_run_goes_from_queued_to_its_result(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount, job: UUID
) -> None:
    wanted = document(review=0.05, reject=0.999)
    with api_db.transaction(account.id) as session:
        run = replays.enqueue(session, account.id, "what_if", policy.validate(wanted), wanted, WINDOW, actor="key:test")
    worker = Replayer(db, threading.Event())
    assert worker.run_once() == 1
    with api_db.transaction(account.id) as session:
        done = replays.get(session, account.id, run.id)
    assert (done.state, done.analyses, done.owner) == ("finished", 16, None)
    assert done.result is not None
    assert done.changed == done.result["changed"] > 0
    assert worker.run_once() == 0


def test_a_run_that_is_cancelled_is_given_up(
    db: Database, owner_db: Database, account: TestAccount, job: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {"name": "default", "version": 3, "rules": []}
    with owner_db.transaction() as session:
        run = replays.enqueue(session, account.id, "redecide", policy.validate(nothing), nothing, WINDOW, actor="cli")
        claimed = replays.claim(session, uuid7(), 60)
        assert claimed is not None
    with owner_db.transaction() as session:
        replays.cancel(session, account.id, run.id, actor="cli")
    with pytest.raises(LeaseLost), owner_db.transaction() as session:
        replays.move(session, claimed, 1, 1, None, 60)
    assert Replayer(db, threading.Event()).run_once() == 0
    assert {stood["policy"] for stood in moderation(owner_db, job).values()} == {"default@1"}


def test_a_redecision_goes_on_where_its_days_were_done(db: Database, owner_db: Database, job: UUID) -> None:
    """Half of the results are of yesterday. The process ends after today; the next one does the rest, once."""
    run_sql(owner_db, "UPDATE results SET created_at = created_at - interval '1 day' WHERE seq >= 8")
    nothing = {"name": "default", "version": 3, "rules": []}
    with owner_db.transaction() as session:
        run = replays.enqueue(session, None, "redecide", policy.validate(nothing), nothing, WINDOW, actor="cli")
    stop = threading.Event()
    first = Replayer(db, stop)
    moved = replays.move

    def stop_after_today(session: Any, run: Any, analyses: int, changed: int, reached: Any, lease_s: float) -> None:
        moved(session, run, analyses, changed, reached, lease_s)
        if reached is not None and analyses:
            stop.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replays, "move", stop_after_today)
        assert first.run_once() == 0
    with owner_db.transaction() as session:
        waiting = replays.get(session, None, run.id)
    assert (waiting.state, waiting.attempts) == ("queued", 0)
    today = {seq for seq, stood in moderation(owner_db, job).items() if stood["policy"] == "default@3"}
    assert today
    assert today < set(range(8))
    assert Replayer(db, threading.Event()).run_once() == 1
    with owner_db.transaction() as session:
        done = replays.get(session, None, run.id)
    written = rows(owner_db, "SELECT count(*) AS n, count(DISTINCT seq) AS items FROM decisions")[0]
    assert done.changed == written.n == written.items == 8
    assert done.analyses == 16


def test_three_dead_owners_end_a_run(owner_db: Database, account: TestAccount) -> None:
    nothing = {"name": "default", "version": 3, "rules": []}
    with owner_db.transaction() as session:
        run = replays.enqueue(session, account.id, "what_if", policy.validate(nothing), nothing, WINDOW, actor="cli")
    for _ in range(3):
        with owner_db.transaction() as session:
            assert replays.claim(session, uuid7(), 60) is not None
        run_sql(owner_db, "UPDATE replays SET lease_until = now() - interval '1 second'")
    with owner_db.transaction() as session:
        assert replays.claim(session, uuid7(), 60) is None
        ended = replays.get(session, account.id, run.id)
    assert (ended.state, ended.code) == ("failed", "worker_died")


def test_a_result_that_changed_meanwhile_is_left_alone(db: Database, owner_db: Database, job: UUID) -> None:
    """A published rerun, or a ban, between the look and the write."""
    from db import redecide

    nothing = policy.validate({"name": "default", "version": 3, "rules": []})
    stood = rows(owner_db, "SELECT bucket, sha256, account_id FROM results WHERE job_id = :job AND seq = 0", job=job)[0]
    verdict = policy.decide(nothing, policy.Evidence(None))
    change = redecide.Change(
        stood.bucket, job, 0, bytes(stood.sha256), "", ("review", None, "default@1"), redecide.patch(nothing, verdict)
    )
    with db.transaction() as session:
        assert redecide.apply(session, stood.account_id, [change], kind="policy", actor="cli") == []
    assert moderation(owner_db, job)[0]["verdict"] == "reject"
    assert rows(owner_db, "SELECT 1 FROM decisions") == []


def test_a_ban_during_a_redecision_is_not_undone_by_it(
    db: Database, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.transaction() as session:
        bank = banks.create(session, account.id, "banned", "block", actor="test").id
    banned = bank_line.submit(db, account, ["same"])
    bank_line.ingest(db, {"same": PDQ})
    bank_line.infer(db)
    read = whatif.known

    def known(session: Session, account_id: int | None = None) -> whatif.Known:
        found = read(session, account_id)
        with db.transaction() as other:
            bank_entries.add(other, account.id, bank, NewEntry(PDQ), "key:test")
        banning.run_once(db, 200, threading.Event())
        assert bank_line.verdicts(db, banned) == ["reject"]
        return found

    monkeypatch.setattr(whatif, "known", known)
    pinned = rows(db, "SELECT policy FROM jobs WHERE id = :job", job=banned)[0].policy
    assert replay(db, policy.validate({**pinned, "version": 2}), WINDOW, write="user:anna")["written"] == 1
    banning.run_once(db, 200, threading.Event())
    assert bank_line.verdicts(db, banned) == ["reject"]


def surge(db: Database, account: TestAccount) -> tuple[UUID, UUID, UUID]:
    """A bank, an entry of it that is in quarantine, and the job whose four pictures it hit."""
    with db.transaction() as session:
        bank = banks.create(session, account.id, "banned", "block", actor="test").id
        entry, _ = bank_entries.add(session, account.id, bank, NewEntry(PDQ), "key:test")
    pictures: dict[str, str | None] = {f"p{n}": bank_line.near(PDQ, n) for n in range(4)}
    made = bank_line.submit(db, account, list(pictures))
    bank_line.ingest(db, pictures)
    bank_line.infer(db)
    banning.run_once(db, 3, threading.Event())
    return bank, entry.id, made


def test_what_an_entry_in_quarantine_hit_stays_with_people(db: Database, account: TestAccount) -> None:
    """Another policy over the hour of a surge: what its entry would decide there too is still people's to say, until
    the entry is released."""
    bank, entry, made = surge(db, account)
    assert bank_line.verdicts(db, made) == ["review"] * 4
    before = bank_line.moderation(db, made)
    pinned = rows(db, "SELECT policy FROM jobs WHERE id = :job", job=made)[0].policy
    found = replay(db, policy.validate({**pinned, "version": 2}), WINDOW, write="user:anna")
    assert (found["analyses"], found["changed"], found["written"]) == (4, 0, 0)
    assert bank_line.moderation(db, made) == before

    blind = {"name": "default", "version": 3, "rules": []}
    assert replay(db, policy.validate(blind), WINDOW)["changed"] == 4, "a policy that asks no bank has no doubt"
    all_ = {"id": "all", "when": {"score": "Neutral", "at_least": 0.0}, "then": "reject", "code": "all"}
    replay(db, policy.validate({**blind, "version": 4, "rules": [all_]}), WINDOW, write="user:anna")
    assert bank_line.verdicts(db, made) == ["reject"] * 4, "what is rejected without the entry is"
    replay(db, policy.validate({**pinned, "version": 5}), WINDOW, write="user:anna")
    assert bank_line.verdicts(db, made) == ["review"] * 4
    again = bank_line.moderation(db, made)
    assert (again["policy"], again["reasons"]) == ("default@5", before["reasons"])
    assert [reason["code"] for reason in again["reasons"]] == ["bank_quarantined"]

    with db.transaction() as session:
        bank_entries.release(session, account.id, bank, entry, "user:anna")
    banning.run_once(db, 3, threading.Event())
    assert bank_line.verdicts(db, made) == ["reject"] * 4


def test_an_entry_that_is_removed_during_a_redecision_leaves_no_doubt_behind(
    db: Database, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, entry, made = surge(db, account)
    read = whatif.known

    def known(session: Session, account_id: int | None = None) -> whatif.Known:
        found = read(session, account_id)
        with db.transaction() as other:
            bank_entries.remove(other, account.id, bank, entry, "key:test")
        banning.run_once(db, 3, threading.Event())
        assert bank_line.verdicts(db, made) == ["approve"] * 4
        return found

    monkeypatch.setattr(whatif, "known", known)
    pinned = rows(db, "SELECT policy FROM jobs WHERE id = :job", job=made)[0].policy
    assert replay(db, policy.validate({**pinned, "version": 2}), WINDOW, write="user:anna")["written"] == 4
    banning.run_once(db, 3, threading.Event())
    assert bank_line.verdicts(db, made) == ["approve"] * 4
