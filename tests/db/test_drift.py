"""Counting the drift of a day in Postgres, with hand-made scores: day's borders, sources, labels, walls, repetition."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from db import drift, registry
from db.drift import Count, Figures
from db.ids import uuid7
from db.learning_tables import DriftRow
from db.session import Database
from tests.conftest import TestAccount, make_account

DAY = date(2026, 3, 14)
NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
TAGGER = {
    "name": "tagger", "version": "1", "task": "tags", "head": {"category": "softmax", "kids": "sigmoid"},
    "labels": [{"name": "dress", "group": "category"}, {"name": "shirt", "group": "category"},
               {"name": "kids", "group": "kids", "threshold": 0.4}],
}  # fmt: skip
JUDGE = {
    "name": "judge", "version": "1", "task": "moderation", "head": {"class": "softmax"},
    "labels": [{"name": "Neutral", "group": "class"}, {"name": "Porn", "group": "class"}],
}  # fmt: skip

MEASURE = {"what": "rate", "group": "g", "label": "x", "level": "ok", "value": 0.1, "live": 0.2, "base": 0.1}

Scores = Mapping[str, Any]


def tags(category: float = 0.95, kids: float | None = None, label: str = "dress") -> Scores:
    other = {"dress": "shirt", "shirt": "dress"}[label]
    found = [
        {"label": label, "group": "category", "score": category},
        {"label": other, "group": "category", "score": round(1 - category, 6)},
    ]
    return {"tags": found + ([] if kids is None else [{"label": "kids", "group": "kids", "score": kids}])}


def install(db: Database, *cards: dict[str, Any]) -> None:
    with db.transaction() as session:
        for card in cards:
            registry.install_model(session, card, hashlib.sha256(card["name"].encode()).hexdigest())


def pictures(
    db: Database,
    account: TestAccount,
    found: Sequence[tuple[str | None, str, datetime, Scores | None]],
    *,
    model: str = "tagger@1",
    task: str = "tags",
    rerun: bool = False,
) -> None:
    """A job whose results are these: (url, content, time, stored scores, or None for a failure)."""
    job = uuid7()
    with db.transaction() as session:
        bucket = session.scalar(text("SELECT id FROM buckets WHERE closed_at IS NULL"))
        key = {"bucket": bucket, "job": job, "account": account.id}
        session.execute(
            text(
                "INSERT INTO jobs (id, account_id, lane, analyses, options, bucket, models, policy, total, created_at)"
                " VALUES (:job, :account, 'bulk', :analyses, '{}', :bucket, CAST(:models AS jsonb), '{}', :total, :at)"
            ),
            {**key, "analyses": [task], "models": json.dumps({task: model}), "total": len(found),
             "at": min(at for _, _, at, _ in found)},
        )  # fmt: skip
        if rerun:
            session.execute(
                text(
                    "INSERT INTO reruns (id, account_id, job_id, task, model, selection, total)"
                    " VALUES (:id, :account, :job, :task, :model, '{}', 1)"
                ),
                {**key, "id": uuid7(), "task": task, "model": model},
            )
        for seq, (url, content, at, scores) in enumerate(found):
            sha = hashlib.sha256(content.encode()).digest()
            row = {**key, "seq": seq, "sha": sha, "url": url, "at": at, "model": model}
            session.execute(
                text(
                    "INSERT INTO items (bucket, job_id, seq, account_id, url, raw_key)"
                    " VALUES (:bucket, :job, :seq, :account, :url, CASE WHEN CAST(:url AS text) IS NULL THEN 'raw' END)"
                ),
                row,
            )
            session.execute(
                text(
                    "INSERT INTO results (bucket, job_id, seq, account_id, outcome, code, sha256, created_at) VALUES"
                    " (:bucket, :job, :seq, :account, :outcome, :code, :sha, :at)"
                ),
                {**row, "outcome": "failed" if scores is None else "done",
                 "code": "blob_missing" if scores is None else None},
            )  # fmt: skip
            if scores is not None:
                session.execute(
                    text(
                        "INSERT INTO analyses (account_id, sha256, model, scores)"
                        " VALUES (:account, :sha, :model, CAST(:scores AS jsonb)) ON CONFLICT DO NOTHING"
                    ),
                    {**row, "scores": json.dumps(scores)},
                )


def counted(db: Database, day: date = DAY, **how: Any) -> list[Count]:
    with db.transaction() as session:
        return drift.count(session, day, **how)


def by_source(found: list[Count]) -> dict[str, int]:
    return {count.source: count.scored for count in found if count.label is None}


def url(host: str, number: int = 0) -> str:
    return f"https://{host}/{number}.jpg"


@pytest.fixture
def installed(owner_db: Database) -> None:
    install(owner_db, TAGGER, JUDGE)


@pytest.mark.usefixtures("installed")
def test_a_day_is_utc_and_ends_where_the_next_begins(owner_db: Database, db: Database, account: TestAccount) -> None:
    midnight = datetime(2026, 3, 14, tzinfo=UTC)
    moment = timedelta(microseconds=1)
    times = [midnight - moment, midnight, midnight + timedelta(days=1) - moment, midnight + timedelta(days=1)]
    pictures(owner_db, account, [(url("a.test", n), str(n), at, tags()) for n, at in enumerate(times)])
    assert [sum(by_source(counted(db, DAY + timedelta(days=n))).values()) for n in (-1, 0, 1)] == [1, 2, 1]


@pytest.mark.usefixtures("installed")
def test_sources_are_hosts_uploads_and_the_rest(owner_db: Database, db: Database, account: TestAccount) -> None:
    urls = [
        *(url("big.test", n) for n in range(4)),
        "http://BIG.test:8080/x?y=http://small.test/", "https://big.test#frag",
        *(url("middle.test", n) for n in range(3)),
        "http://[2001:db8::1]:80/x", "http://[2001:db8::1]/y",
        url("small.test"), url("upload"), None, None, None, None,
    ]  # fmt: skip
    pictures(owner_db, account, [(each, str(n), NOON, tags()) for n, each in enumerate(urls)])
    wanted = {"big.test": 6, "upload": 4, "middle.test": 3, "[2001:db8::1]": 2, "small.test": 1, "upload.": 1}
    assert by_source(counted(db)) == wanted
    assert by_source(counted(db, sources=3)) == {"big.test": 6, "upload": 4, "middle.test": 3, "other": 4}


@pytest.mark.usefixtures("installed")
def test_labels_are_counted_by_score(owner_db: Database, db: Database, account: TestAccount) -> None:
    found = [
        tags(0.95),
        tags(0.6, label="shirt"),
        tags(1.0, kids=0.4),
        tags(0.3, kids=0.9, label="shirt"),
        {"tags": []},
    ]
    pictures(owner_db, account, [(url("a.test", n), str(n), NOON, scores) for n, scores in enumerate(found)])
    rows = {(c.group, c.label, c.at): (c.scored, c.given, c.exclusive, c.own) for c in counted(db) if c.label}
    assert rows == {
        ("category", "dress", 9): (2, 2, True, False),
        ("category", "dress", 7): (1, 1, True, False),  # 0.3 for shirt leaves 0.7
        ("category", "shirt", 6): (1, 1, True, False),
        ("kids", "kids", 4): (1, 1, False, True),
        ("kids", "kids", 9): (1, 1, False, True),
    }
    assert by_source(counted(db)) == {"a.test": 5}, "a picture without tags is a picture"


@pytest.mark.usefixtures("installed")
def test_all_classes_of_moderation_are_counted(owner_db: Database, db: Database, account: TestAccount) -> None:
    scored = [{"scores": {"Neutral": 0.97, "Porn": 0.03}}, {"scores": {"Neutral": 0.2, "Porn": 0.8}}]
    made = [(url("a.test", n), str(n), NOON, scores) for n, scores in enumerate(scored)]
    pictures(owner_db, account, made, model="judge@1", task="moderation")
    rows = {(c.label, c.at): (c.scored, c.given) for c in counted(db) if c.label}
    assert rows == {("Neutral", 9): (1, 1), ("Neutral", 2): (1, 0), ("Porn", 0): (1, 0), ("Porn", 8): (1, 1)}
    assert by_source(counted(db)) == {"a.test": 2}


@pytest.mark.usefixtures("installed")
def test_the_same_bytes_count_once_a_source_and_failures_and_reruns_never(
    owner_db: Database, db: Database, account: TestAccount
) -> None:
    same = [(url("a.test", n), "same", NOON, tags()) for n in range(5)]
    pictures(owner_db, account, [*same, (url("b.test"), "same", NOON, tags()), (url("a.test"), "bad", NOON, None)])
    pictures(owner_db, account, [(url("a.test"), "again", NOON, tags())], rerun=True)
    assert by_source(counted(db)) == {"a.test": 1, "b.test": 1}


@pytest.mark.usefixtures("installed")
def test_accounts_are_counted_apart_and_walled(
    owner_db: Database, db: Database, api_db: Database, account: TestAccount
) -> None:
    rival = make_account(owner_db, "rival")
    pictures(owner_db, account, [(url("a.test"), "1", NOON, tags())])
    pictures(owner_db, rival, [(url("b.test"), "1", NOON, tags(0.7))])
    assert {(c.account_id, c.source) for c in counted(db)} == {(account.id, "a.test"), (rival.id, "b.test")}
    with db.transaction() as session:
        rows = [figures(a.id, host) for a, host in ((account, "a.test"), (rival, "b.test"))]
        drift.replace(session, DAY, rows)
    with api_db.transaction(account.id) as session:
        assert [row.source for row in drift.since(session, None, DAY, DAY)] == ["a.test"], "row-level security"
        assert drift.history(session, account.id, DAY, 9) == [(DAY, {"ok": 1})]
    with api_db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM drift")) == 0


def figures(account_id: int, source: str, pictures: int = 5, level: str = "ok") -> Figures:
    return Figures(account_id, "tagger@1", source, pictures, {"pictures": pictures, "groups": {}}, level,
                   "no_baseline" if level == "unknown" else None, 0.1, None, [MEASURE])  # fmt: skip


def test_a_day_computed_again_is_replaced(db: Database, account: TestAccount) -> None:
    for wanted in (["a.test", "b.test"], ["b.test"], []):
        with db.transaction() as session:
            drift.replace(session, DAY, [figures(account.id, source) for source in wanted])
        with db.transaction() as session:
            assert [row.source for row in drift.since(session, None, DAY, DAY)] == wanted
            assert drift.computed(session, DAY) is not None


def test_the_worst_come_first_and_what_is_unknown_last(db: Database, account: TestAccount) -> None:
    with db.transaction() as session:
        levels = {"a": "unknown", "b": "ok", "c": "drifted", "d": "watch"}
        drift.replace(session, DAY, [figures(account.id, source, level=level) for source, level in levels.items()])
        rows: list[DriftRow] = drift.since(session, account.id, DAY, DAY)
        assert [row.source for row in rows] == ["c", "d", "b", "a"]
        assert drift.levels(session, DAY) == {("tagger@1", level): 1 for level in levels.values()}


def test_days_that_are_due(owner_db: Database, db: Database, account: TestAccount) -> None:
    def due() -> list[date]:
        with db.transaction() as session:
            return drift.pending(session, 5)

    with db.transaction() as session:
        # A day is whole ten minutes after its end: in the first ten minutes of a day yesterday is not yet due.
        last = session.scalar(text("SELECT CAST(now() - interval '10 minutes' AS date) - 1"))
    assert isinstance(last, date)
    assert due() == [], "a new installation has nothing to catch up with"
    long_ago = datetime.combine(last - timedelta(days=30), datetime.min.time(), UTC)
    pictures(owner_db, account, [(url("a.test"), "1", long_ago, tags())])
    assert due()[-3:] == [last - timedelta(days=n) for n in (2, 1, 0)]
    assert len(due()) in (4, 5)
    with db.transaction() as session:
        drift.replace(session, last - timedelta(days=1), [])
    assert due()[-2:] == [last - timedelta(days=2), last]
    with owner_db.transaction() as session:
        # Counted by hand in the course of the day: to be counted again when it is over.
        session.execute(
            text("INSERT INTO drift_days (day, computed_at) VALUES (:day, CAST(:day AS date) + interval '23 hours')"),
            {"day": last},
        )
    assert due()[-1] == last


def test_first_days_are_the_first_with_pictures(db: Database, account: TestAccount) -> None:
    days = [DAY + timedelta(days=2 * n) for n in range(4)]
    for at, day in enumerate(days):
        with db.transaction() as session:
            drift.replace(session, day, [figures(account.id, "a.test", pictures=at + 1)])
    with db.transaction() as session:
        early = drift.first_days(session, ["tagger@1"], days[3], 3)
        assert [(each.day, each.figures["pictures"]) for each in early] == [
            (day, n + 1) for n, day in enumerate(days[:3])
        ]
        assert drift.first_days(session, ["tagger@1"], days[2], 3) == [], "they are not yet complete"
        assert drift.first_days(session, ["other@1"], days[3], 3) == []


def test_old_days_are_forgotten(owner_db: Database, db: Database, account: TestAccount) -> None:
    today = datetime.now(UTC).date()
    old, young = (today - timedelta(days=n) for n in (drift.KEPT_DAYS + 2, drift.KEPT_DAYS - 2))
    for day in (old, young):
        with db.transaction() as session:
            drift.replace(session, day, [figures(account.id, "a.test")])
    with db.transaction() as session:
        drift.forget(session)
        assert [row.day for row in drift.since(session, None, old, today)] == [young]
        assert drift.computed(session, old) is None
