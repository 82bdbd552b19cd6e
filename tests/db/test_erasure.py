"""Erasing by item, product, subject, job, picture and account: what goes, what stays, and what goes on to add up."""

import hashlib
from contextlib import suppress
from uuid import UUID

import pytest
from sqlalchemy import text

from db import appeals, audit_chain, erasures, items, jobs, moderations, retries
from db.appeals import Grounds
from db.audit_chain import Verifier
from db.errors import BadSelection, NotFound
from db.ids import item_id
from db.jobs import JobSpec, NewItem
from db.moderations import Asked
from db.session import Database
from db.tables import Job
from tests.conftest import TestAccount, make_account
from tests.db.erasing import erase, traces
from tests.db.judged import judge, sha_of
from tests.db.test_line import finish, infer_all, ingest_all, read, submit, urls
from tests.oracle import Expected, check, problems
from tests.worker.line import rows, run_sql


@pytest.fixture
def rival(owner_db: Database) -> TestAccount:
    return make_account(owner_db, "rival")


def run(db: Database, account: TestAccount, pictures: list[str], **spec: object) -> Job:
    """A finished job."""
    job = submit(db, account, pictures, **spec)
    ingest_all(db, account)
    infer_all(db)
    assert finish(db, job)
    return job


def sha(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


DONE = Expected(tag="shirt")
GONE = Expected(code="erased")


def test_an_item_goes_with_its_picture(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = run(db, account, urls(20))
    erasure = erase(db, account.id, "item", item_id(job.id, 7))
    assert traces(owner_db, "pictures.test/7.jpg", sha("http://pictures.test/7.jpg")) == []
    check(owner_db, {job.id: [GONE if n == 7 else DONE for n in range(20)]})
    view = read(db, account, job)[7]
    assert (view.outcome, view.code, view.url, view.client_id, view.facts) == ("failed", "erased", None, None, None)
    assert {name: erasure.counts[name] for name in ("items", "results", "pictures")} == {
        "items": 1, "results": 1, "pictures": 1
    }  # fmt: skip
    assert rows(owner_db, "SELECT key FROM blob_removals WHERE key LIKE 'work/%'")


def test_a_picture_that_another_item_shows_stays(db: Database, owner_db: Database, account: TestAccount) -> None:
    first, second = run(db, account, urls(3)), run(db, account, urls(3))
    erase(db, account.id, "item", item_id(first.id, 1))
    assert rows(owner_db, "SELECT 1 FROM images WHERE sha256 = :s", s=bytes.fromhex(sha(urls(3)[1])))
    check(owner_db, {first.id: [DONE, GONE, DONE], second.id: [DONE] * 3})
    erase(db, account.id, "item", item_id(second.id, 1))
    assert traces(owner_db, urls(3)[1], sha(urls(3)[1])) == []


def test_items_that_repeat_its_url_go_too(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = run(db, account, [*urls(3), urls(3)[0], urls(3)[0] + "#again"])
    erase(db, account.id, "item", item_id(job.id, 3))
    check(owner_db, {job.id: [GONE, DONE, DONE, GONE, GONE]})


def test_a_product_and_a_job(db: Database, owner_db: Database, account: TestAccount) -> None:
    with db.transaction(account.id) as session:
        new = [NewItem(url=url, product_id=f"p{n % 2}") for n, url in enumerate(urls(6))]
        job = jobs.submit(session, account.id, JobSpec(name="secret"), new, max_items=100)
    ingest_all(db, account, fail={2: "http_404"})
    infer_all(db)
    finish(db, job)
    erase(db, account.id, "product", "p0")
    check(owner_db, {job.id: [GONE, DONE] * 3})
    erase(db, account.id, "job", str(job.id))
    check(owner_db, {job.id: [GONE] * 6})
    assert traces(owner_db, "pictures.test", "p0", "p1", "secret") == []


def test_a_picture_of_one_account_is_not_anothers(
    db: Database, owner_db: Database, account: TestAccount, rival: TestAccount
) -> None:
    mine, theirs = run(db, account, urls(2)), run(db, rival, urls(2))
    erase(db, account.id, "picture", sha(urls(2)[0]))
    check(owner_db, {mine.id: [GONE, DONE], theirs.id: [DONE, DONE]})
    assert [row.account_id for row in rows(owner_db, "SELECT account_id FROM images WHERE sha256 = :s",
            s=bytes.fromhex(sha(urls(2)[0])))] == [rival.id]  # fmt: skip
    erase(db, None, "picture", sha(urls(2)[0]))
    check(owner_db, {mine.id: [GONE, DONE], theirs.id: [GONE, DONE]})
    assert traces(owner_db, sha(urls(2)[0])) == []


def test_everything_that_was_said_of_it_goes(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["reject", "review", "approve"], context="shop")
    with db.transaction(account.id) as session:
        job_item = items.at(session, account.id, job.id, 0)
        assert job_item is not None
        grounds = Grounds("MyFace is mine", "me@example.com")
        appeals.start(session, account.id, job_item, grounds, actor="key:x")
    picture = sha_of(db, job.id).hex()
    run_sql(
        owner_db,
        "INSERT INTO labels (account_id, sha256, \"group\", kind, present, source, actor, comment)"
        " VALUES (:a, :s, 'category', 'exclusive', '{shirt}', 'correction', 'x', 'MyFace')",
        a=account.id, s=bytes.fromhex(picture),
    )  # fmt: skip
    run_sql(owner_db, "INSERT INTO validators (account_id, url_hash, sha256, etag) VALUES (:a, :h, :s, 'tag')",
            a=account.id, h=b"x" * 16, s=bytes.fromhex(picture))  # fmt: skip
    erasure = erase(db, account.id, "picture", picture)
    assert traces(owner_db, "MyFace", "me@example.com", picture) == []
    assert erasure.counts["labels"] == erasure.counts["validators"] == 1
    assert rows(owner_db, "SELECT count(*) AS n FROM results WHERE outcome = 'done'")[0].n == 2


def upload(db: Database, account: TestAccount, number: int, **asked: str) -> UUID:
    """A moderation that was decided; its id."""
    with db.transaction(account.id) as session:
        item = NewItem(url=f"http://pictures.test/upload-{number}.jpg", client_id=f"client-{number}")
        row = moderations.submit(session, account.id, Asked(**asked), item)
    ingest_all(db, account)
    infer_all(db)
    return row.id


def test_a_subject_goes_with_all_uploads_and_what_was_told_of_them(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    mine = upload(db, account, 1, user="person-7", product="shoe")
    upload(db, account, 2, user="person-8", product="shoe")
    run_sql(
        owner_db,
        "INSERT INTO outbox (id, account_id, type, subject, payload) SELECT gen_random_uuid(), :a,"
        " 'moderation.decided', CAST(:m AS text), jsonb_build_object('subject', 'person-7')",
        a=account.id, m=str(mine),
    )  # fmt: skip
    run_sql(
        owner_db,
        "INSERT INTO idempotency (account_id, key, request_hash, status, response) VALUES"
        " (:a, 'k', '', 202, jsonb_build_object('id', CAST(:m AS text), 'user', 'person-7'))",
        a=account.id, m=str(mine),
    )  # fmt: skip
    erasure = erase(db, account.id, "subject", "person-7")
    assert traces(owner_db, "person-7", "client-1", "upload-1.jpg") == []
    assert traces(owner_db, "person-8") == ["moderations: person-8"]
    assert (erasure.counts["moderations"], erasure.counts["events"], erasure.counts["answers"]) == (1, 1, 1)
    with db.transaction(account.id) as session:
        row, _ = moderations.get(session, account.id, mine)
    assert (row.state, row.code, row.verdict) == ("failed", "erased", None)


def test_an_account_goes_and_the_other_one_stays(
    db: Database, owner_db: Database, account: TestAccount, rival: TestAccount
) -> None:
    mine, open_, theirs = run(db, account, urls(20)), submit(db, account, urls(4)), run(db, rival, urls(20))
    erase(db, account.id, "account", "acme", ends_account=True)
    assert {row.account_id for row in rows(owner_db, "SELECT account_id FROM images")} == {rival.id}
    assert rows(owner_db, "SELECT name FROM accounts WHERE id = :i", i=account.id)[0].name == f"erased-{account.id}"
    assert not rows(owner_db, "SELECT 1 FROM api_keys WHERE account_id = :a AND revoked_at IS NULL", a=account.id)
    assert ingest_all(db, account) == []
    assert finish(db, open_)
    check_without_events(owner_db, mine, 20)
    check_without_events(owner_db, open_, 4)
    check_without_events(owner_db, theirs, 20, DONE)


def check_without_events(owner_db: Database, job: Job, total: int, expected: Expected = GONE) -> None:
    """As the oracle, but for events: those of an account go with it."""
    found = [p for p in problems(owner_db, {job.id: [expected] * total}) if "nobody submitted" not in p]
    assert [p for p in found if "events of round" not in p] == []


def test_what_is_erased_is_not_tried_again(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(4))
    ingest_all(db, account, fail={1: "timeout", 2: "timeout"})
    infer_all(db)
    finish(db, job)
    erase(db, account.id, "item", item_id(job.id, 1))
    with db.transaction(account.id) as session:
        assert retries.retry(session, account.id, job.id) == 1
    ingest_all(db, account)
    infer_all(db)
    assert finish(db, job)
    check(owner_db, {job.id: [DONE, GONE, DONE, DONE]})


def test_a_cancelled_job_goes_on_to_add_up(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(40))
    with db.transaction(account.id) as session:
        jobs.cancel(session, account.id, job.id)
    assert finish(db, job)
    erase(db, account.id, "item", item_id(job.id, 3))
    check(owner_db, {job.id: [GONE if n == 3 else Expected(code="cancelled") for n in range(40)]})


def findings(db: Database) -> list[str]:
    """What verifying the audit log and its evidence finds."""
    with db.transaction() as session:
        audit_chain.seal(session)
    verifier = Verifier()
    with db.transaction() as session:
        verifier.begin(session, 1)
        verifier.step(session)
        verifier.end(session)
    return [f"{each.what} {each.detail}" for each in verifier.findings]


def test_the_audit_log_verifies_afterwards(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve", "review", "reject", "approve"])
    assert findings(db) == []
    erase(db, account.id, "item", item_id(job.id, 1))
    assert findings(db) == []
    erase(db, account.id, "item", item_id(job.id, 2))
    assert findings(db) == []
    run_sql(owner_db, 'UPDATE results SET moderation = moderation || \'{"verdict": "reject"}\' WHERE seq = 3')
    assert [found.split(" of ")[0] for found in findings(db)] == ["edited a verdict"]
    erase(db, account.id, "job", str(job.id))
    assert len(findings(db)) == 1, "an erasure does not hide what somebody changed before"


def test_only_what_there_is_and_what_is_ones_own(
    db: Database, api_db: Database, account: TestAccount, rival: TestAccount
) -> None:
    theirs = run(db, rival, urls(2))
    for kind, target in (("item", item_id(theirs.id, 0)), ("job", str(theirs.id)), ("account", "rival"), ("item", "x")):
        with pytest.raises(NotFound), api_db.transaction(account.id) as session:
            erasures.ask(session, account.id, kind, target, actor="key:x")
    for kind, target in (("picture", "abc"), ("product", "")):
        with pytest.raises(BadSelection), api_db.transaction(account.id) as session:
            erasures.ask(session, account.id, kind, target, actor="key:x")
    with pytest.raises(BadSelection), db.transaction() as session:
        erasures.ask(session, None, "product", "x", actor="cli")
    with api_db.transaction(rival.id) as session:
        asked = erasures.ask(session, rival.id, "product", "x", actor="key:x").id
    with pytest.raises(NotFound), api_db.transaction(account.id) as session:
        erasures.get(session, account.id, asked)
    with api_db.transaction(account.id) as session:
        assert session.scalar(text("SELECT count(*) FROM erasures")) == 0, "row-level security"


def test_people_s_words_go_only_where_a_tombstone_says_so(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    run_sql(
        owner_db,
        "INSERT INTO labels (account_id, sha256, \"group\", kind, present, source, actor)"
        " VALUES (:a, :s, 'category', 'exclusive', '{shirt}', 'correction', 'x')",
        a=account.id, s=bytes(32),
    )  # fmt: skip
    run_sql(db, "DELETE FROM labels")
    assert rows(owner_db, "SELECT count(*) AS n FROM labels")[0].n == 1


def test_a_preview_counts_and_changes_nothing(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = run(db, account, urls(3))
    with suppress(ZeroDivisionError), db.transaction() as session:
        counts, more = erasures.preview(session, account.id, "job", str(job.id))
        raise ZeroDivisionError
    assert (counts["items"], counts["pictures"], more) == (3, 3, False)
    check(owner_db, {job.id: [DONE] * 3})
