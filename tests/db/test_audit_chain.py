"""The chain over the audit log: every entry finds its place, and whatever is done to one afterwards is named."""

import threading
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db import audit, decisions, evidence, publishing, redecide, reruns
from db.audit_chain import BATCH, Finding, Head, Verifier, seal
from db.decisions import Decision
from db.redecide import Change
from db.reruns import Selection
from db.session import Database
from db.tables import Job
from tests.conftest import TestAccount, make_account
from tests.db.judged import judge, sha_of
from tests.db.test_reruns import end, infer, install, run


def record(db: Database, account: TestAccount | None, count: int = 6) -> None:
    with db.transaction() as session:
        for number in range(count):
            about = {"number": number, "share": 0.1, "text": "<script>é\n"}
            audit.record(session, account and account.id, "key:a", "test.act", f"s{number}", **about)


def sealed(db: Database) -> int:
    with db.transaction() as session:
        return seal(session)


def verified(db: Database, account: TestAccount | None = None, seq: int = 1, step: int = 4, **more: Any) -> Verifier:
    """The whole chain, in steps of a few entries."""
    found = Verifier(account_id=account and account.id, **more)
    scope = account and account.id
    with db.transaction(scope) as session:
        found.begin(session, seq)
    for _ in range(1000):
        with db.transaction(scope) as session:
            if not found.step(session, step):
                break
    with db.transaction(scope) as session:
        found.end(session)
    return found


def findings(db: Database, **more: Any) -> list[Finding]:
    return verified(db, **more).findings


def owner(owner_db: Database, *statements: str, **parameters: Any) -> None:
    """What only the owner of the tables can do."""
    with owner_db.transaction() as session:
        for sql in statements:
            assert session.execute(text(sql), parameters).rowcount > 0  # type: ignore[attr-defined]


@pytest.fixture
def chain(db: Database, account: TestAccount) -> Head:
    """Six sealed entries, ids 1 to 6."""
    record(db, account)
    assert sealed(db) == 6
    return verified(db).head


def test_an_untouched_chain_is_whole(db: Database, chain: Head) -> None:
    found = verified(db)
    assert (found.findings, found.entries, found.head.seq) == ([], 6, 6)
    assert sealed(db) == 0
    assert verified(db, expected=Head.parse(str(chain))).findings == []
    assert verified(db, seq=4).entries == 3


def test_an_entry_that_commits_late_is_not_skipped(db: Database, account: TestAccount) -> None:
    with db.transaction() as late:
        audit.record(late, account.id, "key:late", "test.act", "late")
        late.flush()
        record(db, account, 2)
        assert sealed(db) == 2
    assert sealed(db) == 1
    with db.transaction() as session:
        order = list(session.scalars(text("SELECT entry_id FROM audit_seals ORDER BY seq")))
    assert order == [2, 3, 1]
    assert findings(db) == []


def test_what_is_rolled_back_leaves_no_gap(db: Database, account: TestAccount) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction() as session:
        audit.record(session, account.id, "key:a", "test.act", "never")
        _ = 1 / 0
    record(db, account, 2)
    assert sealed(db) == 2
    assert findings(db) == []


def test_two_sealers_make_one_chain(db: Database, account: TestAccount) -> None:
    record(db, account, 3)
    with db.transaction() as first:
        assert seal(first, limit=2) == 2
        assert sealed(db) == 0, "it waits for its next turn, not for the lock"
    assert sealed(db) == 1
    assert findings(db) == []


def test_many_writers_and_sealers_at_once_make_one_chain(db: Database, account: TestAccount) -> None:
    writers = [threading.Thread(target=lambda: [record(db, account, 3) for _ in range(8)]) for _ in range(3)]
    done = threading.Event()

    def seal_on() -> None:
        while not done.is_set():
            sealed(db)

    sealers = [threading.Thread(target=seal_on) for _ in range(2)]
    for thread in (*writers, *sealers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in sealers:
        thread.join()
    sealed(db)
    found = verified(db, step=50)
    assert (found.findings, found.entries, found.head.seq) == ([], 72, 72)
    assert found.loose is not None
    assert found.loose.waiting == 0


def test_more_than_a_batch_takes_several_turns(db: Database, account: TestAccount) -> None:
    with db.transaction() as session:
        many = "INSERT INTO audit_log (actor, action, subject) SELECT 'a', 'b', n::text FROM generate_series(1, :n) n"
        session.execute(text(many), {"n": BATCH + 5})
        session.execute(text("INSERT INTO audit_unsealed SELECT id FROM audit_log"))
    assert [sealed(db), sealed(db), sealed(db)] == [BATCH, 5, 0]
    assert verified(db, step=BATCH).head.seq == BATCH + 5


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'key:b'",
        "action = 'test.other'",
        "subject = subject || ' '",
        "account_id = NULL",
        "created_at = created_at + interval '1 microsecond'",
        "detail = detail || '{\"number\": 9}'",
        "detail = jsonb_set(detail, '{share}', '0.10')",
        "detail = detail - 'text'",
    ],
)
def test_an_edited_entry_is_named(db: Database, owner_db: Database, chain: Head, change: str) -> None:
    owner(owner_db, f"UPDATE audit_log SET {change} WHERE id = 3")
    (found,) = findings(db)
    assert (found.what, found.seq, found.entry) == ("edited", 3, 3)


def test_swapped_entries_and_seals_are_named(db: Database, owner_db: Database, chain: Head) -> None:
    swap = (
        "UPDATE audit_log a SET subject = b.subject, detail = b.detail FROM audit_log b"
        " WHERE (a.id, b.id) IN ((2, 4), (4, 2))"
    )
    owner(owner_db, swap)
    assert [(found.what, found.entry) for found in findings(db)] == [("edited", 2), ("edited", 4)]
    owner(owner_db, swap)
    assert findings(db) == []
    owner(
        owner_db,
        *(f"UPDATE audit_seals SET entry_id = {new} WHERE entry_id = {old}" for old, new in ((2, 0), (4, 2), (0, 4))),
    )
    assert [(found.what, found.seq, found.entry) for found in findings(db)] == [("edited", 2, 4), ("edited", 4, 2)]


def test_a_removed_entry_is_named_with_and_without_its_seal(db: Database, owner_db: Database, chain: Head) -> None:
    owner(owner_db, "DELETE FROM audit_log WHERE id = 3")
    (found,) = findings(db)
    assert (found.what, found.seq, found.entry) == ("removed", 3, 3)
    owner(owner_db, "DELETE FROM audit_seals WHERE entry_id = 3")
    (found,) = findings(db)
    assert (found.what, found.seq) == ("removed", 3)


def test_closing_the_gap_does_not_help(db: Database, owner_db: Database, chain: Head) -> None:
    owner(
        owner_db,
        "DELETE FROM audit_log WHERE id = 3",
        "DELETE FROM audit_seals WHERE seq = 3",
        *(f"UPDATE audit_seals SET seq = {seq - 1} WHERE seq = {seq}" for seq in (4, 5, 6)),
    )
    (found,) = findings(db)
    assert (found.what, found.seq, found.entry) == ("edited", 3, 4)


def test_an_inserted_entry_is_named(db: Database, owner_db: Database, chain: Head) -> None:
    owner(owner_db, "INSERT INTO audit_log (actor, action, subject) VALUES ('key:a', 'test.act', 'never was')")
    (found,) = findings(db)
    assert (found.what, found.entry) == ("inserted", 7)


def test_an_entry_removed_before_its_seal_is_named(db: Database, owner_db: Database, account: TestAccount) -> None:
    record(db, account, 2)
    owner(owner_db, "DELETE FROM audit_log WHERE id = 1")
    assert sealed(db) == 1
    assert sealed(db) == 0
    (found,) = findings(db)
    assert (found.what, found.entry) == ("removed", 1)


def test_a_cut_tail_shows_against_a_head_kept_elsewhere(db: Database, owner_db: Database, chain: Head) -> None:
    owner(owner_db, "DELETE FROM audit_log WHERE id > 4", "DELETE FROM audit_seals WHERE seq > 4")
    assert findings(db) == [], "the rest of a chain is a chain"
    (found,) = findings(db, expected=chain)
    assert found.what == "removed"
    assert str(chain) in found.detail


def test_a_chain_made_anew_shows_against_a_head_kept_elsewhere(db: Database, owner_db: Database, chain: Head) -> None:
    owner(
        owner_db,
        "UPDATE audit_log SET actor = 'key:b' WHERE id = 2",
        "DELETE FROM audit_seals",
        "INSERT INTO audit_unsealed SELECT id FROM audit_log",
    )
    assert sealed(db) == 6
    assert findings(db) == []
    (found,) = findings(db, expected=chain)
    assert (found.what, found.seq) == ("edited", 6)


def test_entries_that_wait_too_long_are_told(db: Database, owner_db: Database, account: TestAccount) -> None:
    record(db, account, 3)
    assert findings(db) == []
    owner(owner_db, "UPDATE audit_log SET created_at = now() - interval '5 minutes' WHERE id = 2")
    (found,) = findings(db)
    assert found.what == "unsealed"
    assert found.detail.startswith("3 entries")


def test_the_roles_can_change_nothing(db: Database, api_db: Database, account: TestAccount, chain: Head) -> None:
    for role in (db, api_db):
        for table in ("audit_log", "audit_seals"):
            for sql in (
                f"DELETE FROM {table}",
                f"UPDATE {table} SET {'actor' if table == 'audit_log' else 'hash'} = NULL",
            ):
                with (
                    pytest.raises(ProgrammingError, match="permission denied"),
                    role.transaction(account.id) as session,
                ):
                    session.execute(text(sql))


def test_an_account_verifies_the_whole_chain_without_seeing_it(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    rival = make_account(owner_db, "rival")
    record(db, account, 2)
    record(db, rival, 2)
    record(db, None, 1)
    assert sealed(db) == 5
    found = verified(api_db, account)
    assert (found.findings, found.entries) == ([], 5)
    owner(owner_db, "UPDATE audit_log SET actor = 'key:b' WHERE id = 4")
    (flaw,) = verified(api_db, account).findings
    assert (flaw.what, flaw.entry) == ("edited", 4)
    with api_db.transaction(account.id) as session:
        assert [entry.id for entry in audit.page(session, account.id)] == [2, 1]
        assert session.scalar(text("SELECT count(*) FROM audit_log")) == 2


# decisions and verdicts


def redecided(db: Database, account: TestAccount, job: Job, verdict: str, seq: int = 0, actor: str = "system") -> None:
    """What another policy does to an item."""
    with db.transaction() as session:
        now: dict[str, Any] = session.execute(
            text("SELECT bucket, moderation FROM results WHERE job_id = :j AND seq = :s"), {"j": job.id, "s": seq}
        ).mappings().one()  # fmt: skip
        was = now["moderation"]["verdict"], now["moderation"]["rule"], now["moderation"]["policy"]
        patch = {"verdict": verdict, "reasons": [{"code": "c", "verdict": verdict, "score": 0.1}], "rule": "r1",
                 "policy": f"strict@{seq}", "hits": []}  # fmt: skip
        change = Change(now["bucket"], job.id, seq, sha_of(db, job.id, seq), job.context, was, patch)
        assert redecide.apply(session, account.id, [change], kind="policy", actor=actor) == [change]


def decided(db: Database, account: TestAccount, job: Job, verdict: str = "reject") -> UUID:
    made = Decision(job.id, 0, sha_of(db, job.id), "", "review", verdict, "key:a", comment="looked twice")
    with db.transaction() as session:
        (found,) = decisions.append(session, account.id, [made])
    return found


def test_verdicts_of_the_line_have_one_entry_a_chunk(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve", "review", "reject"])
    with db.transaction() as session:
        (entry,) = audit.page(session, account.id, action=evidence.OF_VERDICTS)
    assert (entry.subject, entry.detail["items"], entry.detail["seqs"]) == (str(job.id), 3, "0-2")
    sealed(db)
    found = verified(db)
    assert (found.findings, found.evidence) == ([], 1)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE results SET moderation = jsonb_set(moderation, '{verdict}', '\"approve\"') WHERE seq = 1",
        "UPDATE results SET moderation = jsonb_set(moderation, '{scores,Porn}', '0.31') WHERE seq = 1",
        "UPDATE results SET sha256 = sha256(sha256) WHERE seq = 1",
    ],
)
def test_an_edited_verdict_is_named(db: Database, owner_db: Database, account: TestAccount, edit: str) -> None:
    job = judge(db, account, ["approve", "review"])
    sealed(db)
    owner(owner_db, edit)
    (found,) = findings(db)
    assert found.what == "edited"
    assert str(job.id) in found.detail


def test_a_removed_result_is_named(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve", "review"])
    sealed(db)
    owner(owner_db, "DELETE FROM results WHERE seq = 1")
    (found,) = findings(db)
    assert found.what == "removed"
    assert f"{job.id.hex}-1" in found.detail


def test_verdicts_decided_again_can_still_be_verified(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve", "review", "approve"])
    for verdict in ("reject", "approve", "reject"):
        redecided(db, account, job, verdict)
    redecided(db, account, job, "reject", seq=2)
    sealed(db)
    found = verified(db)
    assert (found.findings, found.evidence) == ([], 5)
    owner(owner_db, 'UPDATE results SET moderation = moderation || \'{"verdict": "review"}\' WHERE seq = 0')
    (flaw,) = findings(db)
    assert (flaw.what, f"{job.id.hex}-0" in flaw.detail) == ("edited", True)


def test_clocks_that_differ_do_not_matter(db: Database, owner_db: Database, account: TestAccount) -> None:
    """Ids of decisions are made where the decision is: the later one may have the lower id."""
    job = judge(db, account, ["review"])
    redecided(db, account, job, "reject")
    redecided(db, account, job, "approve", seq=0)
    with owner_db.transaction() as session:
        changes = session.execute(text("SELECT before::text, after::text FROM decisions ORDER BY id DESC")).all()
        now, first = session.execute(text("SELECT moderation::text FROM results")).scalar_one(), changes[1].before
    for order in (changes, changes[::-1]):
        assert evidence.first_of(now, [tuple(change) for change in order]) == first
    assert evidence.first_of(now, [tuple(changes[1])]) is None


def test_published_and_rolled_back_reruns_can_be_verified(db: Database, account: TestAccount) -> None:
    install(db, "j@1", "moderation")
    judge(db, account, ["approve"] * 20)
    install(db, "j@2", "moderation")
    with db.transaction(account.id) as session:
        rerun = reruns.start(session, account.id, "j@2", Selection(all=True))
    infer(db, lambda seq: [("reject", 0.25)])
    end(db, rerun)
    run(db, publishing.publish, account, rerun)
    sealed(db)
    assert findings(db) == []
    run(db, publishing.roll_back, account, rerun)
    sealed(db)
    found = verified(db)
    assert found.findings == []
    assert found.evidence >= 4


@pytest.mark.parametrize(
    "edit",
    ["verdict = 'approve'", "actor = 'key:b'", "comment = NULL", "before = NULL", "sha256 = sha256(sha256)"],
)
def test_an_edited_decision_is_named(db: Database, owner_db: Database, account: TestAccount, edit: str) -> None:
    job = judge(db, account, ["review"])
    decided(db, account, job)
    sealed(db)
    assert findings(db) == []
    owner(owner_db, f"UPDATE decisions SET {edit}")
    (found,) = findings(db)
    assert (found.what, f"{job.id.hex}-0" in found.detail) == ("edited", True)


def test_removed_and_inserted_decisions_are_named(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["review"])
    first, second = decided(db, account, job), decided(db, account, job, "approve")
    sealed(db)
    owner(owner_db, "UPDATE decisions SET batch = :to WHERE id = :id", id=second, to=first)
    assert [found.what for found in findings(db)] == ["inserted", "removed"]
    owner(owner_db, "UPDATE decisions SET batch = NULL WHERE id = :id", id=second)
    assert [found.what for found in findings(db)] == ["removed", "inserted"]
    owner(owner_db, "DELETE FROM decisions WHERE id = :id", id=second)
    assert [found.what for found in findings(db)] == ["removed"]


def test_an_account_verifies_its_own_verdicts_only(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    rival = make_account(owner_db, "rival")
    job, theirs = judge(db, account, ["review"]), judge(db, rival, ["review"])
    decided(db, account, job)
    sealed(db)
    found = verified(api_db, account)
    assert (found.findings, found.evidence) == ([], 2)
    edit = 'UPDATE results SET moderation = moderation || \'{"verdict": "approve"}\' WHERE job_id = :job'
    owner(owner_db, edit, job=theirs.id)
    assert verified(api_db, account).findings == []
    owner(owner_db, edit, job=job.id)
    (flaw,) = verified(api_db, account).findings
    assert str(job.id) in flaw.detail


def test_numbers_in_short() -> None:
    for numbers, written in (([0], "0"), ([0, 1], "0-1"), ([0, 1, 2, 5, 7, 8], "0-2,5,7-8")):
        assert evidence.ranges(numbers) == written
        assert list(evidence.numbers(written)) == numbers


@pytest.mark.parametrize("written", ["", "1", "x:00", "0:" + "0" * 64, "1:" + "0" * 63, "1:" + "g" * 64])
def test_a_malformed_head_is_refused(written: str) -> None:
    with pytest.raises(ValueError):
        Head.parse(written)
