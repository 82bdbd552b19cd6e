"""Suggestions end to end: from stored scores to a table that the import of labels takes back."""

import csv
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import labels, registry
from db.errors import BadSelection, NotFound
from db.session import Database
from tests.conftest import TestAccount, make_account
from tests.db.test_drift import JUDGE, NOON, TAGGER, install, pictures, tags, url
from tests.worker.test_learning import Commands
from worker import suggesting
from worker.label_lists import LabelList
from worker.suggesting import Suggested

SINCE = NOON - timedelta(days=1)


@pytest.fixture(autouse=True)
def installed(owner_db: Database) -> None:
    install(owner_db, TAGGER, JUDGE)
    with owner_db.transaction() as session:
        registry.activate(session, "tagger", "1")


def shop(db: Database, account: TestAccount, scored: list[float]) -> None:
    """Pictures with these scores of dress, each with a hash of its own."""
    pictures(db, account, [(url("a.test", n), str(n), NOON, tags(score)) for n, score in enumerate(scored)])
    hashed(db)


def hashed(db: Database) -> None:
    """Images of all results, their PDQ hash being that of their bytes."""
    with db.transaction() as session:
        session.execute(
            text(
                "INSERT INTO images (account_id, sha256, work_key, bytes, width, height, format, pdq, pdq_quality)"
                " SELECT DISTINCT account_id, sha256, 'k', 1, 1, 1, 'JPEG',"
                " CAST('x' || encode(sha256, 'hex') AS bit(256)), 90 FROM results ON CONFLICT DO NOTHING"
            )
        )


def chosen(db: Database, account: TestAccount, **how: Any) -> Suggested:
    given: dict[str, Any] = {"model": None, "count": 4, "since": SINCE} | how
    model, count = given.pop("model"), given.pop("count")
    return suggesting.choose(db, account.id, model, count, **given)


def urls(found: Suggested) -> list[str | None]:
    return [row.picture.url for row in found.rows]


def test_the_unclear_ones_first(owner_db: Database, db: Database, account: TestAccount) -> None:
    shop(owner_db, account, [0.99] * 10 + [0.52, 0.6])
    found = chosen(db, account)
    assert (found.model, found.groups, found.candidates, found.cut) == ("tagger@1", ("category", "kids"), 12, False)
    assert urls(found)[:2] == [url("a.test", 10), url("a.test", 11)]
    assert [row.why for row in found.rows] == ["uncertain", "uncertain", "diverse", "diverse"]
    assert found.rows[0].says == "category: dress 0.52, shirt 0.48; kids: nothing"
    assert urls(chosen(db, account)) == urls(found), "the same seed, the same choice"


def test_what_is_labelled_is_left_out_until_it_is_taken_back(
    owner_db: Database, db: Database, account: TestAccount
) -> None:
    shop(owner_db, account, [0.5, 0.6, 0.7])
    first = chosen(db, account, count=3).rows[0].picture

    def say(word: str | None, group: str = "category") -> None:
        with db.transaction(account.id) as session:
            subject = labels.subject(session, account.id, first.item_id)
            present = None if word is None else (word,)
            labels.record(session, subject, [labels.Said(group, "exclusive", present)], source="labelling", actor="a")

    say("approve", labels.VERDICT)
    assert first.url in urls(chosen(db, account, count=3)), "a verdict is no label of what is in the picture"
    say("dress")
    assert first.url not in urls(chosen(db, account, count=3))
    assert first.url in urls(chosen(db, account, count=3, groups=["kids"])), "another group is still open"
    say(None)
    assert first.url in urls(chosen(db, account, count=3))


def test_what_looks_like_a_labelled_picture_is_left_out(owner_db: Database, db: Database, account: TestAccount) -> None:
    shop(owner_db, account, [0.5, 0.6, 0.7])
    one, two, three = (row.picture for row in chosen(db, account, count=3).rows)
    with db.transaction(account.id) as session:
        subject = labels.subject(session, account.id, one.item_id)
        labels.record(
            session, subject, [labels.Said("category", "exclusive", ("dress",))], source="labelling", actor="a"
        )
    with owner_db.transaction() as session:
        same = "UPDATE images SET pdq = (SELECT pdq FROM images WHERE sha256 = :one) WHERE sha256 = :two"
        session.execute(text(same), {"one": one.sha256, "two": two.sha256})
    assert urls(chosen(db, account, count=3)) == [three.url]


def test_only_the_accounts_recent_pictures_of_that_model(
    owner_db: Database, db: Database, account: TestAccount
) -> None:
    rival = make_account(owner_db, "rival")
    pictures(owner_db, rival, [(url("rival.test"), "r", NOON, tags(0.5))])
    pictures(owner_db, account, [(url("old.test"), "o", NOON - timedelta(days=9), tags(0.5))])
    scores = {"scores": {"Neutral": 0.6, "Porn": 0.4}}
    pictures(owner_db, account, [(None, "u", NOON, scores)], model="judge@1", task="moderation")
    shop(owner_db, account, [0.5])
    assert urls(chosen(db, account)) == [url("a.test")]
    judged = chosen(db, account, model="judge@1")
    assert (judged.groups, [row.says for row in judged.rows]) == (("class",), ["class: Neutral 0.60, Porn 0.40"])
    with pytest.raises(BadSelection, match="no label group 'colour'; there is category, kids"):
        chosen(db, account, groups=["colour"])
    with pytest.raises(NotFound, match="No model nobody@1"):
        chosen(db, account, model="nobody@1")


def test_of_many_a_random_sample_is_looked_at(
    owner_db: Database, db: Database, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop(owner_db, account, [0.6] * 40)
    monkeypatch.setattr(suggesting, "POOL", 10)
    one, two = (chosen(db, account, count=10, seed=seed) for seed in (1, 2))
    assert (one.candidates, one.cut) == (10, True)
    assert set(urls(one)) != set(urls(two))


@pytest.mark.slow
def test_the_table_is_taken_back(owner_db: Database, account: TestAccount, tmp_path: Path, database_url: str) -> None:
    tagmill = Commands(tmp_path, database_url)
    shop(owner_db, account, [0.9, 0.5, 0.7])
    out = tmp_path / "label.csv"
    since = ("--since", f"{SINCE:%Y-%m-%d}", "--account", "acme")
    tagmill("datasets", "suggest", "--count", "2", "--out", str(out), *since)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*suggesting.COLUMNS, "category", "kids"]
    assert (rows[0]["url"], rows[0]["why"], rows[0]["score"]) == (url("a.test", 1), "uncertain", "1.000")
    assert b"".join(LabelList(out).ndjson()).strip() == b"", "nothing is filled in, nothing is said"
    rows[0] |= {"category": "shirt", "kids": "-"}
    with out.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    said = [json.loads(line) for line in LabelList(out).ndjson() if line.strip()]
    assert said == [{"item_id": rows[0]["item_id"], "groups": {"category": "shirt", "kids": []}}]
    assert tagmill("datasets", "suggest", "--count", "1", *since).startswith("item_id,sha256,url")
    assert "not_found" in tagmill("datasets", "suggest", "--account", "nobody", code=1)
    assert "no folder" in tagmill("datasets", "suggest", "--out", "/nowhere/x.csv", code=2)


def test_no_cell_is_a_formula_to_a_spreadsheet(owner_db: Database, db: Database, account: TestAccount) -> None:
    """File names and URLs are whatever somebody sent."""
    shop(owner_db, account, [0.5])
    with owner_db.transaction() as session:
        session.execute(
            text("UPDATE items SET url = NULL, raw_key = 'k', filename = '=HYPERLINK(\"http://evil\").jpg'")
        )
    out = io.StringIO()
    suggesting.write(chosen(db, account), out)
    (row,) = csv.DictReader(out.getvalue().splitlines())
    assert row["filename"] == '\'=HYPERLINK("http://evil").jpg'
