"""Days computed end to end: against an evaluation, against first days, caught up, repeated, shown and measured."""

import json
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import drift, evaluations, locks, registry, stats
from db.learning_tables import DriftRow
from db.session import Database, Session
from ml.score_profile import Profile
from tests.conftest import TestAccount, make_account
from tests.db.test_drift import DAY, JUDGE, NOON, TAGGER, Scores, install, pictures, tags, url
from tests.worker.test_learning import Commands
from worker import doctor_drift, drifting
from worker.local import Place


@pytest.fixture
def tagmill(tmp_path: Path, database_url: str) -> Commands:
    return Commands(tmp_path, database_url)


@pytest.fixture
def installed(owner_db: Database) -> None:
    install(owner_db, TAGGER, JUDGE)


def shop(
    db: Database, account: TestAccount, day: date, scores: Scores, *, host: str = "a.test", count: int = 220
) -> None:
    """So many different pictures of that day, all with these scores."""
    at = datetime.combine(day, NOON.timetz())
    pictures(db, account, [(url(host, n), f"{day} {host} {n}", at, scores) for n in range(count)])


def measured(db: Database, sure: int, unsure: int, *, split: str = "test", counted: bool = True) -> int:
    """An evaluation of tagger@1 in which so many pictures got 0.95 for dress, and so many 0.5."""
    profile = Profile(sure + unsure)
    for at, count in ((9, sure), (5, unsure)):
        profile.add("category", "exclusive", "dress", at, scored=count, given=count, own=False)
    report: dict[str, Any] = {"about": {"dataset": "shop@1", "pixels": "working copy"}}
    with db.transaction() as session:
        dataset = session.scalar(
            text(
                "INSERT INTO datasets (name, version, sha256, manifest_key, images_root, entries) VALUES"
                " ('shop', CAST((SELECT count(*) FROM datasets) AS text), :sha, 'k', '/', 1) RETURNING id"
            ),
            {"sha": "0" * 64},
        )
        model = registry.by_ref(session, "tagger@1").id
        report |= {"scores": profile.to_dict() if counted else None}
        return evaluations.record(session, model, int(dataset or 0), split, images=1, metrics={}, report=report)


def of_day(db: Database, day: date = DAY) -> dict[str, DriftRow]:
    with db.transaction() as session:
        return {row.source: row for row in drift.since(session, None, day, day)}


@pytest.mark.usefixtures("installed")
def test_against_the_newest_evaluation_that_counted_its_scores(
    owner_db: Database, db: Database, account: TestAccount
) -> None:
    measured(owner_db, 0, 500)
    wanted = measured(owner_db, 500, 0)
    measured(owner_db, 0, 500, split="train")
    measured(owner_db, 0, 500, counted=False)
    shop(owner_db, account, DAY, tags(0.95))
    shop(owner_db, account, DAY, tags(0.55), host="b.test")
    shop(owner_db, account, DAY, tags(0.55), host="c.test", count=9)
    done = drifting.compute(db, DAY)
    assert (done.rows, done.pictures, done.levels) == (4, 449, {"ok": 1, "drifted": 2, "unknown": 1})
    rows = of_day(db)
    assert rows["a.test"].baseline == {
        "kind": "evaluation", "id": wanted, "dataset": "shop@1", "split": "test", "pictures": 500
    }  # fmt: skip
    assert {source: (row.level, row.reason) for source, row in rows.items()} == {
        "a.test": ("ok", None),
        "b.test": ("drifted", None),
        "c.test": ("unknown", "too_few_pictures"),
        "all": ("drifted", None),
    }
    first = rows["b.test"].measures[0]
    assert (first["what"], first["group"], first["label"], first["level"]) == ("scores", "category", None, "drifted")
    assert rows["b.test"].psi == pytest.approx(first["value"], abs=1e-5)
    assert rows["all"].pictures == 449
    assert rows["b.test"].figures["groups"]["category"]["histogram"] == [0] * 5 + [220] + [0] * 4


@pytest.mark.usefixtures("installed")
def test_without_an_evaluation_the_first_days_of_the_source_speak(
    owner_db: Database, db: Database, account: TestAccount
) -> None:
    for back in range(8, 0, -1):
        shop(owner_db, account, DAY - timedelta(days=back), tags(0.95), count=40)
        drifting.compute(db, DAY - timedelta(days=back))
    assert of_day(db, DAY - timedelta(days=2))["a.test"].reason == "no_baseline"
    before = of_day(db, DAY - timedelta(days=1))["a.test"]
    assert (before.reason, before.baseline) == (
        "too_few_pictures",
        {"kind": "first_days", "from": "2026-03-06", "to": "2026-03-12", "pictures": 280},
    )
    shop(owner_db, account, DAY, tags(0.95, label="shirt"))
    shop(owner_db, account, DAY, tags(0.95), host="new.test")
    drifting.compute(db, DAY)
    rows = of_day(db)
    assert rows["a.test"].level == "drifted", "its own mix of labels was another one"
    assert rows["a.test"].measures[0]["what"] == "rate"
    assert rows["new.test"].reason == "no_baseline"


@pytest.mark.usefixtures("installed")
def test_the_same_day_again_gives_the_same(owner_db: Database, db: Database, account: TestAccount) -> None:
    measured(owner_db, 300, 200)
    shop(owner_db, account, DAY, tags(0.7))
    pictures(
        owner_db,
        account,
        [(url("a.test"), "x", NOON, {"scores": {"Neutral": 1.0}})],
        model="judge@1",
        task="moderation",
    )

    def everything() -> list[tuple[Any, ...]]:
        with db.transaction() as session:
            return [tuple(row) for row in session.execute(text("SELECT * FROM drift ORDER BY 1, 2, 3, 4"))]

    drifting.compute(db, DAY)
    first = everything()
    assert {row[2] for row in first} == {"tagger@1", "judge@1"}
    with owner_db.transaction() as session:
        # What is published over a result later is no part of the day.
        session.execute(text("UPDATE results SET tags = '[]', published = '{}'"))
    drifting.compute(db, DAY)
    assert everything() == first


@pytest.mark.usefixtures("installed")
def test_missed_days_are_caught_up_once(owner_db: Database, db: Database, account: TestAccount) -> None:
    with db.transaction() as session:
        last = session.scalar(text("SELECT CAST(now() - interval '10 minutes' AS date) - 1"))
    assert isinstance(last, date)
    shop(owner_db, account, last - timedelta(days=3), tags(), count=2)
    shop(owner_db, account, last, tags(), count=3)
    assert drifting.run_once(db) in (4, 5)  # five, if midnight passes in between
    assert of_day(db, last)["a.test"].pictures == 3
    assert of_day(db, last - timedelta(days=1)) == {}
    assert of_day(db, last - timedelta(days=3))["a.test"].pictures == 2
    assert drifting.run_once(db) in (0, 1)


@pytest.mark.usefixtures("installed")
def test_a_day_that_fails_keeps_no_other_one_waiting(
    owner_db: Database, db: Database, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.transaction() as session:
        last = session.scalar(text("SELECT CAST(now() - interval '10 minutes' AS date) - 1"))
    assert isinstance(last, date)
    bad, good = last - timedelta(days=2), last - timedelta(days=1)
    shop(owner_db, account, bad, tags(), count=2)
    shop(owner_db, account, good, tags(), count=3)
    count, tried = drift.count, list[date]()

    def counted(session: Session, day: date, **more: Any) -> list[drift.Count]:
        tried.append(day)
        if day == bad:
            raise ValueError("something odd")
        return count(session, day, **more)

    monkeypatch.setattr(drift, "count", counted)
    failed: dict[date, float] = {}
    assert drifting.run_once(db, failed) >= 2
    assert set(failed) == {bad}
    assert of_day(db, good)["a.test"].pictures == 3
    drifting.run_once(db, failed)
    assert tried.count(bad) == 1  # later, not at each turn
    failed[bad] = 0.0
    monkeypatch.setattr(drift, "count", count)
    assert drifting.run_once(db, failed) >= 1
    assert (failed, of_day(db, bad)["a.test"].pictures) == ({}, 2)


@pytest.mark.usefixtures("installed")
def test_no_transaction_is_open_while_it_judges(
    owner_db: Database, db: Database, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(owner_db, 500, 0)
    shop(owner_db, account, DAY, tags(0.95))
    judge, seen = drifting.drift.judge, list[int]()

    def judging(*profiles: Profile, **more: Any) -> Any:
        with owner_db.transaction() as session:
            open_ones = text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            )
            seen.append(int(session.scalar(open_ones) or 0))
        return judge(*profiles, **more)

    monkeypatch.setattr(drifting.drift, "judge", judging)
    assert drifting.compute(db, DAY).levels == {"ok": 2}
    assert seen == [0, 0]


def test_one_at_a_time(db: Database) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with db.transaction() as session:
            assert locks.try_lock(session, "drift")
            held.set()
            go_on.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    try:
        with pytest.raises(drifting.DriftBusy):
            drifting.compute(db, DAY)
    finally:
        go_on.set()
        thread.join()
    assert drifting.compute(db, DAY).rows == 0


@pytest.mark.usefixtures("installed")
def test_the_doctor_and_the_metrics_see_it(
    owner_db: Database, db: Database, api_db: Database, account: TestAccount, database_url: str, tmp_path: Path
) -> None:
    where = Place(database_url, "", tmp_path, tmp_path, "a test")
    assert list(doctor_drift.drifted(where)) == []
    measured(owner_db, 500, 0)
    shop(owner_db, account, DAY, tags(0.55))
    drifting.compute(db, DAY)
    (idle,) = doctor_drift.drifted(where)
    assert (idle.state, "no pictures of active models" in idle.found) == ("good", True)
    with db.transaction() as session:
        registry.activate(session, "tagger", "1")
    (found,) = doctor_drift.drifted(where)
    assert (found.state, found.found) == ("warning", f"{DAY}: 2 drifted")
    assert "tagmill drift" in found.remedy
    with api_db.transaction() as session:
        samples = {sample.name: sample for sample in stats.samples(session)}
    assert samples["drift_sources"].labels == {"model": "tagger@1", "level": "drifted"}
    assert samples["drift_sources"].value == 2
    assert samples["drift_day_seconds"].value > 0


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_the_commands(owner_db: Database, db: Database, account: TestAccount, tagmill: Commands) -> None:
    assert "no day was computed yet" in tagmill("drift")
    assert json.loads(tagmill("drift", "--json")) == {"newest_day": None, "rows": []}
    measured(owner_db, 500, 0)
    rival = make_account(owner_db, "rival")
    shop(owner_db, account, DAY, tags(0.95), host="good.test")
    shop(owner_db, account, DAY, tags(0.55), host="bad.test")
    shop(owner_db, rival, DAY, tags(0.95), count=3)
    assert "443 pictures" in tagmill("drift", "compute", "--day", str(DAY))
    shown = tagmill("drift")
    assert shown.index("bad.test") < shown.index("good.test"), "the worst first"
    assert "too few pictures" in shown
    assert "against its evaluation" in shown
    assert "rival" not in tagmill("drift", "--account", "acme")
    rows = json.loads(tagmill("drift", "--json", "--account", "acme"))["rows"]
    assert {row["source"]: row["level"] for row in rows} == {"good.test": "ok", "bad.test": "drifted", "all": "drifted"}
    assert "no pictures" in tagmill("drift", "--model", "judge@1")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert "has not begun" in tagmill("drift", "compute", "--day", str(tomorrow), code=2)
    assert "not_found" in tagmill("drift", "--account", "nobody", code=1)
