"""Hash banks over the tables: what is matched, what counts, what a change decides again, and nothing is missed."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import (
    bank_changes,
    bank_entries,
    bank_matching,
    bank_search,
    bank_sweep,
    banks,
    chunks,
    decisions,
    endings,
    publishing,
    recording,
)
from db.bank_entries import NewEntry
from db.bank_tables import Bank, Entry
from db.decisions import Decision
from db.errors import Conflict, NotFound
from db.recording import IngestOutcome
from db.session import Database
from tests.conftest import TestAccount, make_account
from tests.db.bank_line import (
    BAD,
    claimed,
    finish,
    image,
    infer,
    ingest,
    moderation,
    near,
    prepared,
    public,
    sha,
    submit,
    verdicts,
)
from tests.db.test_reruns import end, install, run, start
from worker import banning

H = "f0e1d2c3b4a5968778695a4b3c2d1e0f" * 2
FAR = "0123456789abcdef" * 4


def work_off(db: Database, surge: int = 200) -> int:
    return banning.run_once(db, surge, threading.Event(), turn_s=60)


def make_bank(db: Database, account_id: int | None, name: str = "banned", kind: str = "block", **more: Any) -> UUID:
    with db.transaction() as session:
        return banks.create(session, account_id, name, kind, actor="test", **more).id


def ban(db: Database, account_id: int | None, bank: UUID, pdq: str = H, **more: Any) -> UUID:
    with db.transaction() as session:
        entry, _ = bank_entries.add(session, account_id, bank, NewEntry(pdq, **more), "key:test")
        return entry.id


def change(db: Database, account_id: int | None, bank: UUID, entry: UUID, **values: Any) -> None:
    with db.transaction() as session:
        bank_entries.change(session, account_id, bank, entry, "key:test", **values)


def states_of(db: Database, bank: UUID) -> dict[str, int]:
    with db.transaction() as session:
        return banks.states(session, bank)


def sql(db: Database, statement: str, **parameters: Any) -> list[Any]:
    with db.transaction() as session:
        found = session.execute(text(statement), parameters)
        return list(found.all()) if found.returns_rows else []


def entry_of(db: Database, entry: UUID) -> Entry:
    with db.transaction() as session:
        return session.get_one(Entry, entry)


@pytest.fixture
def bank(db: Database, account: TestAccount) -> UUID:
    return make_bank(db, account.id)


# new pictures


def test_what_comes_in_meets_the_bank_before_any_network(db: Database, account: TestAccount, bank: UUID) -> None:
    entry = ban(db, account.id, bank, reason="stolen")
    job = submit(db, account, ["same", "near", "edge", "over", "other"])
    ingest(db, {"same": H, "near": near(H, 10), "edge": near(H, 31), "over": near(H, 32), "other": FAR})
    work = prepared(db)
    assert work is not None
    assert {s: hits[0].distance for s, hits in work.hits.items()} == {sha("same"): 0, sha("near"): 10, sha("edge"): 31}
    finish(db, work)
    assert verdicts(db, job) == ["reject", "reject", "reject", "approve", "approve"]
    found = moderation(db, job)
    assert found["rule"] == "bank_block"
    assert found["hits"] == [{"bank": "banned", "kind": "block", "entry": str(entry), "distance": 0}]


def test_a_banned_picture_waits_for_no_network(db: Database, account: TestAccount, bank: UUID) -> None:
    ban(db, account.id, bank)
    submit(db, account, ["same", "other"])
    ingest(db, {"same": H, "other": FAR})
    work = prepared(db)
    assert work is not None
    work.pinned["moderation"] = "another@1"
    work.__post_init__()
    assert set(work.waiting) == {sha("other")}


def test_an_allow_bank_stills_the_scores(db: Database, account: TestAccount) -> None:
    ban(db, account.id, make_bank(db, account.id, "fine", "allow"))
    job = submit(db, account, ["same", "other"])
    ingest(db, {"same": H, "other": FAR})
    infer(db, BAD)
    assert verdicts(db, job) == ["approve", "reject"]


def test_weak_hashes_and_pictures_without_one_are_not_matched(db: Database, account: TestAccount, bank: UUID) -> None:
    ban(db, account.id, bank)
    job = submit(db, account, ["weak", "none"])
    ingest(db, {"weak": H, "none": None}, quality=49)
    infer(db)
    assert verdicts(db, job) == ["approve", "approve"]
    assert sql(db, "SELECT * FROM hash_hits") == []


def test_banks_of_the_installation_hold_for_all_and_those_of_an_account_for_it(
    db: Database, owner_db: Database, account: TestAccount, bank: UUID
) -> None:
    other = make_account(owner_db, "rival")
    ban(db, account.id, bank)
    ban(db, None, make_bank(db, None, "shared"), FAR)
    mine, theirs = submit(db, account, ["a", "b"]), submit(db, other, ["a", "b"])
    ingest(db, {"a": H, "b": FAR})
    infer(db)
    assert verdicts(db, mine) == ["reject", "reject"]
    assert verdicts(db, theirs) == ["approve", "reject"]


def test_the_copy_in_memory_follows_every_change(db: Database, account: TestAccount, bank: UUID) -> None:
    def hit() -> bool:
        with db.transaction() as session:
            bank_changes.share_lock(session)
            session.execute(text("DELETE FROM hash_hits"))
            return bool(bank_matching.match(session, account.id, [image(account.id, "x", H)]))

    assert not hit()
    entry = ban(db, account.id, bank)
    assert hit()
    change(db, account.id, bank, entry, enabled=False)
    assert not hit()
    change(db, account.id, bank, entry, enabled=True)
    assert hit()
    with db.transaction() as session:
        bank_entries.remove(session, account.id, bank, entry, "test")
    assert not hit()
    ban(db, account.id, bank)
    assert hit()
    with db.transaction() as session:
        banks.change(session, account.id, bank, "test", enabled=False)
    assert not hit()


def test_the_copy_is_built_anew_after_many_changes(
    db: Database, account: TestAccount, bank: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_matching, "FRESH", 3)
    hashes = [f"{n:02x}" * 32 for n in range(1, 12)]
    for n, pdq in enumerate(hashes):
        ban(db, account.id, bank, pdq)
        with db.transaction() as session:
            known = [image(account.id, str(at), each) for at, each in enumerate(hashes[: n + 1])]
            found = bank_matching._INDEXES.get(session, bank, session.get_one(Bank, bank).revision)
            assert len(found.numbers) - len(found.changed) + len(found.fresh_numbers) >= n + 1 - 3
            bank_matching.match(session, account.id, known)
        assert sql(db, "SELECT count(DISTINCT sha256) FROM hash_hits")[0][0] == n + 1


# the pictures there are


def test_a_ban_finds_and_decides_again_what_was_accepted(db: Database, account: TestAccount, bank: UUID) -> None:
    first = submit(db, account, ["same", "other"])
    again = submit(db, account, ["same", "near"], context="avatar")
    ingest(db, {"same": H, "near": near(H, 20), "other": FAR})
    infer(db)
    entry = ban(db, account.id, bank, reason="stolen")
    assert work_off(db) == 3
    assert verdicts(db, first) == ["reject", "approve"]
    assert verdicts(db, again) == ["reject", "reject"]
    rows = sql(
        db,
        "SELECT verdict, kind, actor, rule, before ->> 'verdict' AS was, after ->> 'verdict' AS became, context"
        " FROM decisions ORDER BY context, seq",
    )
    assert [tuple(row) for row in rows] == [
        ("reject", "bank", "key:test", "bank_block", "approve", "reject", context)
        for context in ("", "avatar", "avatar")
    ]
    assert sql(db, "SELECT mode, state, pictures, results, changed, kept FROM bank_changes") == [
        ("match", "done", 2, 3, 3, 0)
    ]
    assert moderation(db, first)["hits"][0]["entry"] == str(entry)
    assert work_off(db) == 0, "nothing is done twice"


@pytest.mark.parametrize("how", ["remove", "disable", "expire", "bank off", "bank removed", "tighter", "share"])
def test_the_end_of_a_ban_is_worked_off_likewise(
    db: Database, owner_db: Database, account: TestAccount, bank: UUID, how: str
) -> None:
    job = submit(db, account, ["near"])
    ingest(db, {"near": near(H, 20)})
    infer(db)
    before = moderation(db, job)
    entry = ban(db, account.id, bank, expires_at=datetime.now(UTC) + timedelta(days=1))
    work_off(db)
    assert verdicts(db, job) == ["reject"]
    with db.transaction() as session:
        if how == "remove":
            bank_entries.remove(session, account.id, bank, entry, "test")
        elif how == "disable":
            bank_entries.change(session, account.id, bank, entry, "test", enabled=False)
        elif how == "share":
            bank_entries.change(session, account.id, bank, entry, "test", share=0.0)
        elif how == "bank off":
            banks.change(session, account.id, bank, "test", enabled=False)
        elif how == "bank removed":
            banks.remove(session, account.id, bank, "test")
        elif how == "tighter":
            banks.change(session, account.id, bank, "test", distance=19)
        else:
            session.execute(text("UPDATE hash_entries SET expires_at = now() - interval '1 second'"))
    work_off(db)
    after = moderation(db, job)
    assert {**before, "hits": []} == {**after}, "what it was before the ban"
    assert [row.verdict for row in sql(db, "SELECT verdict FROM decisions ORDER BY id")] == ["reject", "approve"]


def test_what_came_while_a_ban_was_off_is_found_when_it_is_on_again(
    db: Database, account: TestAccount, bank: UUID
) -> None:
    entry = ban(db, account.id, bank, enabled=False)
    work_off(db)
    job = submit(db, account, ["same"])
    ingest(db, {"same": H})
    infer(db)
    assert verdicts(db, job) == ["approve"]
    change(db, account.id, bank, entry, enabled=True)
    work_off(db)
    assert verdicts(db, job) == ["reject"]
    with db.transaction() as session:
        banks.change(session, account.id, bank, "test", distance=5)
    more = submit(db, account, ["near"])
    ingest(db, {"near": near(H, 12)})
    infer(db)
    assert verdicts(db, more) == ["approve"]
    with db.transaction() as session:
        banks.change(session, account.id, bank, "test", distance=31)
    work_off(db)
    assert verdicts(db, more) == ["reject"]


def test_a_picture_that_was_never_scored_goes_to_people_when_its_ban_ends(
    db: Database, account: TestAccount, bank: UUID
) -> None:
    entry = ban(db, account.id, bank)
    job = submit(db, account, ["same"])
    ingest(db, {"same": H})
    infer(db, scores=None)
    assert verdicts(db, job) == ["reject"]
    change(db, account.id, bank, entry, enabled=False)
    work_off(db)
    assert moderation(db, job)["reasons"] == [{"code": "no_moderation_model", "verdict": "review"}]
    assert sql(db, "SELECT count(*) FROM review_tasks WHERE state = 'open'")[0][0] == 1


def test_a_person_who_approved_is_asked_and_not_overruled(db: Database, account: TestAccount, bank: UUID) -> None:
    job = submit(db, account, ["same"], context="listing")
    ingest(db, {"same": H})
    infer(db)
    said = Decision(job, 0, sha("same"), "listing", "review", "approve", "user:1")
    with db.transaction() as session:
        decisions.append(session, account.id, [said])
    ban(db, account.id, bank)
    work_off(db)
    assert sql(db, "SELECT verdict, kind FROM human_decisions") == [("approve", "review")]
    assert sql(db, "SELECT reason, state FROM review_tasks") == [("banned_after_approval", "open")]
    assert sql(db, "SELECT kept FROM bank_changes") == [(1,)]
    with db.transaction() as session:
        _, (match,) = bank_search.matches(session, account.id, H, 31, 50, 5)
    assert match.verdict == "approve", "shown is what counts"


def test_a_long_list_takes_the_pictures_page_by_page(
    db: Database, account: TestAccount, bank: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_sweep, "PAGE", 3)
    names = {f"p{n}": f"{n:064x}" if n < 100 else near(H, n - 100) for n in (*range(1, 8), *range(100, 110))}
    names |= {f"q{n}": f"{(n * 0x9E3779B97F4A7C15 * (1 << 180)) % (1 << 256):064x}" for n in range(1, 8)}
    job = submit(db, account, list(names))
    ingest(db, names)
    infer(db)
    new = [NewEntry(names[f"q{n}"]) for n in range(1, 6)] + [NewEntry(H)]
    new += [NewEntry(f"{255 - n:02x}{n:02x}" * 16, external_id=str(n)) for n in range(20)]
    with db.transaction() as session:
        done = bank_entries.add_many(session, account.id, bank, new, "test")
    assert (done.added, done.known) == (26, 0)
    work_off(db)
    wanted = sum(
        any((int(names[n], 16) ^ int(e.pdq, 16)).bit_count() <= 31 for e in new) for n in names
    )  # fmt: skip
    assert verdicts(db, job).count("reject") == wanted
    assert 15 <= wanted < len(names)
    with db.transaction() as session:
        again = bank_entries.add_many(session, account.id, bank, new, "test", gone=["3", "4", "nothing"])
    assert (again.added, again.known, again.removed) == (0, 26, 2)


@pytest.mark.parametrize("extension", [False, True])
def test_the_search_counts_all_and_shows_the_newest(
    db: Database, owner_db: Database, account: TestAccount, bank: UUID, extension: bool
) -> None:
    if extension:
        if not sql(owner_db, "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"):
            pytest.skip("this Postgres has no pgvector")
        sql(owner_db, "CREATE EXTENSION vector")
    names = {f"n{bits}": near(H, bits) for bits in (0, 3, 31, 32)}
    job = submit(db, account, list(names))
    ingest(db, names)
    infer(db)
    with db.transaction() as session:
        count, found = bank_search.matches(session, account.id, H, 31, 50, 2)
        assert bank_search.apart(session) == (bank_search.VECTOR if extension else bank_search.PLAIN)
    assert count == 3
    assert len(found) == 2
    assert {(match.job_id, match.verdict) for match in found} == {(job, "approve")}
    ban(db, account.id, bank)
    work_off(db)
    assert verdicts(db, job) == ["reject", "reject", "reject", "approve"]


# what happens at the same time


def test_a_ban_waits_for_pictures_that_were_matched_without_it(db: Database, account: TestAccount, bank: UUID) -> None:
    """A transaction that ingests has matched already when the entry comes, and commits after the ban was begun to be
    worked off: the ban waits for it."""
    job = submit(db, account, ["same"])
    matched, go = threading.Event(), threading.Event()

    def ingest_slowly() -> None:
        chunk = claimed(db, "ingest")
        assert chunk is not None
        with db.transaction() as session:
            (item,) = chunks.items(session, chunk)
            recording.finish_ingest(session, chunk, [IngestOutcome(item.seq, image(account.id, "same", H))])
            matched.set()
            assert go.wait(20)

    thread = threading.Thread(target=ingest_slowly)
    thread.start()
    assert matched.wait(20)
    ban(db, account.id, bank)
    worker = threading.Thread(target=work_off, args=(db,))
    worker.start()
    worker.join(1)
    assert worker.is_alive(), "it waits"
    go.set()
    thread.join(20)
    worker.join(20)
    infer(db)
    work_off(db)
    assert verdicts(db, job) == ["reject"]


def test_a_ban_between_scoring_and_recording_is_not_missed(db: Database, account: TestAccount, bank: UUID) -> None:
    job = submit(db, account, ["same"])
    ingest(db, {"same": H})
    work = prepared(db)
    assert work is not None
    ban(db, account.id, bank)
    work_off(db)
    finish(db, work)
    assert verdicts(db, job) == ["approve"]
    work_off(db)
    assert verdicts(db, job) == ["reject"]
    assert sql(db, "SELECT count(*) FROM bank_rechecks") == [(0,)]


# entries that end by themselves


def surge(db: Database, account: TestAccount, count: int, tag: str) -> UUID:
    names = {f"{tag}{n}": near(H, n % 30) for n in range(count)}
    job = submit(db, account, list(names))
    ingest(db, names)
    infer(db)
    return job


def test_an_entry_that_suddenly_hits_too_much_goes_into_quarantine(
    db: Database, owner_db: Database, account: TestAccount, bank: UUID
) -> None:
    entry = ban(db, account.id, bank)
    work_off(db)
    old = surge(db, account, 3, "old")
    sql(db, "UPDATE hash_entries SET created_at = now() - interval '10 days'")
    sql(owner_db, "UPDATE hash_hits SET created_at = now() - interval '3 hours'")
    job = surge(db, account, 11, "new")
    assert verdicts(db, job) == ["reject"] * 11
    work_off(db, surge=11)
    assert entry_of(db, entry).state == "on", "eleven are not more than eleven"
    work_off(db, surge=10)
    assert entry_of(db, entry).state == "quarantined"
    assert verdicts(db, job) == ["review"] * 11
    assert verdicts(db, old) == ["reject"] * 3, "what it did before that hour stands"
    assert {r["code"] for r in moderation(db, job)["reasons"]} == {"bank_quarantined"}
    assert sql(db, "SELECT count(*) FROM review_tasks WHERE state = 'open'") == [(11,)]
    later = surge(db, account, 2, "later")
    assert verdicts(db, later) == ["approve"] * 2, "in quarantine it decides nothing"

    with db.transaction() as session:
        bank_entries.release(session, account.id, bank, entry, "user:1")
        with pytest.raises(Conflict):
            bank_entries.release(session, account.id, bank, entry, "user:1")
    work_off(db, surge=10)
    assert entry_of(db, entry).state == "on", "what it hit before it was released is no surge"
    assert verdicts(db, job) + verdicts(db, later) == ["reject"] * 13
    assert sql(db, "SELECT count(*) FROM review_tasks WHERE state = 'open'") == [(0,)]


def test_what_was_on_its_way_when_its_entry_went_into_quarantine_goes_to_people(
    db: Database, account: TestAccount, bank: UUID
) -> None:
    ban(db, account.id, bank)
    submit(db, account, ["p0", "p1", "p2"])
    job = submit(db, account, ["late"])
    ingest(db, {"late": H, **{f"p{n}": near(H, n) for n in range(3)}})
    work_off(db, surge=3)
    infer(db)
    assert verdicts(db, job) == ["approve"]
    work_off(db, surge=3)
    assert verdicts(db, job) == ["review"]
    assert [reason["code"] for reason in moderation(db, job)["reasons"]] == ["bank_quarantined"]


def test_a_removed_entry_in_quarantine_gives_its_pictures_back(db: Database, account: TestAccount, bank: UUID) -> None:
    entry = ban(db, account.id, bank)
    job = surge(db, account, 4, "new")
    work_off(db, surge=3)
    assert verdicts(db, job) == ["review"] * 4
    with db.transaction() as session:
        bank_entries.remove(session, account.id, bank, entry, "user:1")
    work_off(db, surge=3)
    assert verdicts(db, job) == ["approve"] * 4


def test_what_a_ban_finds_is_no_surge_and_what_comes_in_is_one_from_the_first_minute(
    db: Database, account: TestAccount, bank: UUID
) -> None:
    old = surge(db, account, 5, "old")
    entry = ban(db, account.id, bank)
    work_off(db, surge=4)
    assert entry_of(db, entry).state == "wide", "what a ban finds is no surge"
    assert verdicts(db, old) == ["reject"] * 5
    surge(db, account, 5, "old")
    work_off(db, surge=4)
    assert entry_of(db, entry).state == "wide", "nor are the same pictures, when they come again"
    new = surge(db, account, 5, "new")
    work_off(db, surge=4)
    assert entry_of(db, entry).state == "quarantined"
    assert verdicts(db, new) == ["review"] * 5
    assert verdicts(db, old) == ["reject"] * 5


# entries that find too much when they come


def test_an_entry_that_finds_too_much_is_wide_until_somebody_has_looked(
    db: Database, account: TestAccount, bank: UUID
) -> None:
    job = surge(db, account, 5, "old")
    entry = ban(db, account.id, bank)
    work_off(db, surge=5)
    assert entry_of(db, entry).state == "on", "five are not more than five"
    with db.transaction() as session:
        with pytest.raises(Conflict):
            bank_entries.release(session, account.id, bank, entry, "user:1")
        bank_entries.remove(session, account.id, bank, entry, "user:1")
    entry = ban(db, account.id, bank)
    work_off(db, surge=4)
    assert (entry_of(db, entry).state, entry_of(db, entry).wide) == ("wide", 5)
    assert states_of(db, bank) == {"wide": 1}
    with db.transaction() as session:
        (row,) = bank_entries.page(session, account.id, bank, state="wide")
        assert row.id == entry
        assert bank_entries.page(session, account.id, bank, state="on") == []
        assert bank_entries.release(session, account.id, bank, entry, "user:1")[1] is None, "nothing follows from it"
    assert (entry_of(db, entry).state, entry_of(db, entry).wide) == ("on", None)
    work_off(db, surge=4)
    change(db, account.id, bank, entry, expires_at=datetime.now(UTC) + timedelta(days=1))
    work_off(db, surge=4)
    assert entry_of(db, entry).state == "on", "what somebody has looked at is not brought up again"
    assert verdicts(db, job) == ["reject"] * 5


@pytest.mark.parametrize("how", ["off", "share", "distance", "quality", "bank off"])
def test_a_wide_entry_is_counted_again_when_it_is_made_narrower(
    db: Database, account: TestAccount, bank: UUID, how: str
) -> None:
    names = {f"p{n}": near(H, 20) for n in range(5)}
    submit(db, account, list(names))
    ingest(db, names, quality=60)
    infer(db)
    entry = ban(db, account.id, bank)
    work_off(db, surge=4)
    assert entry_of(db, entry).wide == 5
    with db.transaction() as session:
        if how in ("off", "share"):
            values: dict[str, Any] = {"off": {"enabled": False}, "share": {"share": 0.0}}[how]
            bank_entries.change(session, account.id, bank, entry, "user:1", **values)
        else:
            values = {"distance": {"distance": 19}, "quality": {"quality": 61}, "bank off": {"enabled": False}}[how]
            banks.change(session, account.id, bank, "user:1", **values)
    work_off(db, surge=4)
    assert entry_of(db, entry).wide is None
    with db.transaction() as session:
        if how in ("off", "share"):
            bank_entries.change(session, account.id, bank, entry, "user:1", enabled=True, share=1.0)
        else:
            banks.change(session, account.id, bank, "user:1", distance=31, quality=50, enabled=True)
    work_off(db, surge=4)
    assert entry_of(db, entry).wide == 5, "and when it is made wider"


def test_the_share_of_a_wide_entry_is_that_of_its_roll_out(db: Database, account: TestAccount, bank: UUID) -> None:
    names = [f"p{n}" for n in range(40)]
    surge(db, account, 40, "p")
    entry = ban(db, account.id, bank, share=0.3)
    work_off(db, surge=1)
    expected = sum(banks.rolled_out(sha(name), entry_of(db, entry).share) for name in names)
    assert 1 < expected < 40
    assert entry_of(db, entry).wide == expected


def test_entries_of_a_list_are_wide_each_by_itself(db: Database, account: TestAccount, bank: UUID) -> None:
    surge(db, account, 5, "old")
    with db.transaction() as session:
        new = [NewEntry(H), NewEntry(FAR), *(NewEntry(f"{n:02x}{255 - n:02x}" * 16) for n in range(40, 60))]
        bank_entries.add_many(session, account.id, bank, new, "test")
    work_off(db, surge=4)
    assert states_of(db, bank) == {"on": 21, "wide": 1}


def test_roll_out_is_a_share_of_pictures_always_the_same() -> None:
    pictures = [sha(str(n)) for n in range(4000)]
    shares = {share: {p for p in pictures if banks.rolled_out(p, share)} for share in (0.0, 0.1, 0.5, 1.0)}
    assert shares[0.0] == set()
    assert shares[1.0] == set(pictures)
    assert shares[0.1] < shares[0.5], "a larger share contains a smaller one"
    assert 300 < len(shares[0.1]) < 500
    assert 1850 < len(shares[0.5]) < 2150


# who sees what


def test_another_accounts_banks_are_not_there(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount, bank: UUID
) -> None:
    other = make_account(owner_db, "rival")
    entry = ban(db, account.id, bank)
    shared = make_bank(db, None, "shared")
    secret = ban(db, None, shared)
    with api_db.transaction(other.id) as session:
        assert [sums.bank.id for sums in banks.listed(session, other.id)] == [shared]
        for wrong in (bank, shared):
            with pytest.raises(NotFound):
                banks.read(session, other.id, wrong)
            with pytest.raises(NotFound):
                bank_entries.add(session, other.id, wrong, NewEntry(H), "x")
        with pytest.raises(NotFound):
            bank_entries.read(session, other.id, bank, entry)
        assert session.execute(text("SELECT count(*) FROM hash_entries")).scalar_one() == 0
        assert session.execute(text("UPDATE hash_banks SET enabled = false RETURNING id")).all() == []
    job = submit(db, other, ["same"])
    ingest(db, {"same": H})
    infer(db)
    assert verdicts(db, job) == ["reject"]
    with api_db.transaction(other.id) as session:
        assert session.scalars(text("SELECT id FROM hash_entries")).all() == [secret], "only what hit its pictures"
        assert {hit.entry for hit in banks.hits_of(session, other.id, [sha("same")])[sha("same")]} == {secret}


def test_a_bank_has_a_name_and_a_hash_once(db: Database, account: TestAccount, bank: UUID) -> None:
    entry = ban(db, account.id, bank)
    with pytest.raises(Conflict):
        ban(db, account.id, bank)
    with pytest.raises(Conflict):
        make_bank(db, account.id)
    make_bank(db, None)
    with db.transaction() as session:
        bank_entries.remove(session, account.id, bank, entry, "x")
    ban(db, account.id, bank)
    with db.transaction() as session:
        banks.remove(session, account.id, bank, "x")
    make_bank(db, account.id)


def test_a_picture_without_a_hash_cannot_be_banned_by_its_item(db: Database, account: TestAccount) -> None:
    job = submit(db, account, ["none", "same"])
    ingest(db, {"none": None, "same": H})
    with db.transaction(account.id) as session:
        assert bank_entries.picture_of(session, account.id, public(job, 1)).pdq == H
        with pytest.raises(Conflict):
            bank_entries.picture_of(session, account.id, public(job, 0))
        for wrong in ("x", public(job, 7), public(UUID(int=5), 0)):
            with pytest.raises(NotFound):
                bank_entries.picture_of(session, account.id, wrong)


def test_a_rerun_neither_forgets_a_ban_nor_brings_back_what_was_before_it(
    db: Database, account: TestAccount, bank: UUID
) -> None:
    install(db, "judge@1", "moderation")
    job = submit(db, account, ["same", "other"])
    ingest(db, {"same": H, "other": FAR})
    infer(db)
    with db.transaction() as session:
        assert endings.finish(session, job)
    install(db, "judge@2", "moderation")
    rerun = start(db, account, "judge@2")
    infer(db)
    end(db, rerun)
    staged = sql(db, "SELECT job_id FROM reruns")[0].job_id
    entry = ban(db, account.id, bank)
    work_off(db)
    assert verdicts(db, staged) == ["reject", "approve"], "what is published later is banned before"
    change(db, account.id, bank, entry, enabled=False)
    work_off(db)
    run(db, publishing.publish, account, rerun)
    change(db, account.id, bank, entry, enabled=True)
    work_off(db)
    assert verdicts(db, job) == ["reject", "approve"]
    run(db, publishing.roll_back, account, rerun)
    assert verdicts(db, job) == ["approve", "approve"], "as it was before the ban"
    work_off(db)
    assert verdicts(db, job) == ["reject", "approve"]
