"""Datasets from the system's own pictures: what models are sure of, what people say, and bytes that do not change."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from db import labels, review_leases, review_verdicts, training
from db.blobs import LocalBlobs
from db.dataset_pictures import Picture
from db.errors import Conflict, NotFound
from db.ids import item_id, uuid7
from db.labels import Group, Said
from db.review_verdicts import Answer
from db.session import Database
from ml import splits
from ml.errors import DatasetError
from ml.manifest import Manifest
from tests.conftest import TestAccount, make_account
from tests.ml import datasets as pictures
from tests.worker.line import ingested, install_models, jpeg, rows, run_sql, settings
from worker import finalise, manifests
from worker.infer import Inference
from worker.predictors import Predictors
from worker.stored_pictures import Gathered, Opinion, from_job, from_reviews, groups_of, joined, opinions
from worker.train_runs import Trainer

COLOURS = ["red", "green", "blue", "grey"]


class Shop:
    """An account's analysed pictures of plain colours."""

    def __init__(self, folder: Path, database: Database, url: str, account: TestAccount) -> None:
        self.folder, self.database, self.account = folder, database, account
        self.blobs = LocalBlobs(folder / "blobs")
        self._settings = settings(folder, url)
        install_models(database, folder / "models")

    def job(self, *copies: bytes) -> UUID:
        """A finished job of pictures with these working copies, scored by the tiny models."""
        job = ingested(self.database, self.blobs, self.account.id, copies)
        predictors = Predictors(self._settings, self.database, "cpu")
        Inference(self._settings, self.database, self.blobs, predictors, uuid7()).run()
        assert finalise.run_once(self.database) == 1
        return job

    def say(self, job: UUID, seq: int, source: str = "correction", **groups: Any) -> None:
        with self.database.transaction() as session:
            about = labels.subject(session, self.account.id, item_id(job, seq))
            known = labels.vocabulary(session, about.model)
            words = labels.said(groups, known, new=True, used=labels.kinds(session, self.account.id, groups))
            labels.record(session, about, words, source=source, actor="user:eva")

    def decide(self, job: UUID, seq: int, verdict: str) -> None:
        """As a review queue will."""
        with self.database.transaction() as session:
            about = labels.subject(session, self.account.id, item_id(job, seq))
            word = Said(labels.VERDICT, "exclusive", (verdict,))
            labels.record(session, about, [word], source="decision", actor="user:eva")

    def of_job(self, job: UUID, **how: Any) -> Gathered:
        return from_job(self.database, self.blobs, self.account.id, job, name="own", version="1", **how)

    def of_reviews(self, **how: Any) -> Gathered:
        return from_reviews(self.database, self.blobs, self.account.id, name="said", version="1", **how)


@pytest.fixture
def shop(tmp_path: Path, owner_db: Database, database_url: str, account: TestAccount) -> Shop:
    return Shop(tmp_path, owner_db, database_url, account)


def values(made: Manifest, group: str) -> list[object]:
    return [entry.labels[group] for entry in made.entries]


def test_a_job_becomes_a_dataset_of_its_sure_tags(shop: Shop) -> None:
    job = shop.job(*(jpeg(COLOURS[n % 4], n) for n in range(8)), jpeg("red", 0))
    run_sql(
        shop.database, "UPDATE items SET product_id = 'p1', url = 'http://a.test/1.jpg', raw_key = NULL WHERE seq = 0"
    )
    made = shop.of_job(job)
    manifest = made.imported.manifest
    assert values(manifest, "colour") == COLOURS * 2
    assert made.notes == ("1 item left out: the same picture as another one",)
    first, second = manifest.entries[:2]
    assert dict(first.columns) == {
        "host": "a.test",
        "product_id": "p1",
        "job": str(job),
        "item_id": item_id(job, 0),
        "label_source": "model",
    }
    assert second.columns["host"] == "upload"
    assert made.imported.manifest.groups["colour"].labels == tuple(sorted(COLOURS))


def test_tags_below_the_score_are_not_believed(shop: Shop) -> None:
    job = shop.job(jpeg("red"), jpeg("blue"))
    run_sql(
        shop.database,
        """UPDATE analyses SET scores = '{"tags": [{"label": "green", "group": "colour", "score": 0.89}]}'
           WHERE model = 'tiny-tags@1' AND sha256 = (SELECT sha256 FROM results WHERE seq = 0)""",
    )
    made = shop.of_job(job)
    assert values(made.imported.manifest, "colour") == ["blue"]
    assert len(made.imported.report.unlabelled) == 1
    assert values(shop.of_job(job, min_score=0.8).imported.manifest, "colour") == ["green", "blue"]
    with pytest.raises(DatasetError) as refused:
        shop.of_job(job, min_score=1.0)
    assert refused.value.code == "dataset_empty"


def test_people_outrank_the_model_and_add_what_it_does_not_know(shop: Shop) -> None:
    job = shop.job(*(jpeg(COLOURS[n], n) for n in range(4)))
    shop.say(job, 0, colour="blue", features=["striped"])
    shop.say(job, 1, features=["striped", "old"])
    shop.say(job, 2, colour="crimson")
    made = shop.of_job(job).imported.manifest
    assert values(made, "colour") == ["blue", "green", "crimson", "grey"]
    # Who labelled the first picture may not have thought of "old": it is not known, and not absent.
    assert values(made, "features") == [None, ("old", "striped"), None, None]
    assert [entry.columns["label_source"] for entry in made.entries] == ["person", "both", "person", "model"]
    shop.say(job, 0, colour=None)
    assert values(shop.of_job(job).imported.manifest, "colour")[0] == "red", "taken back: the model speaks again"


def test_verdicts_are_a_group_when_asked_for(shop: Shop) -> None:
    job = shop.job(*(jpeg(colour) for colour in COLOURS))  # reject, review, approve, approve
    shop.decide(job, 3, "reject")
    assert set(shop.of_job(job).imported.manifest.groups) == {"colour"}
    made = shop.of_job(job, verdict=True).imported.manifest
    assert values(made, "verdict") == ["reject", None, "approve", "reject"], "a review is not a verdict yet"
    assert values(shop.of_reviews(verdict=True).imported.manifest, "verdict") == ["reject"]


def test_decisions_of_the_review_queue_become_a_dataset(shop: Shop) -> None:
    job = shop.job(*(jpeg("green", n) for n in range(3)))  # all in doubt
    with pytest.raises(DatasetError):
        shop.of_reviews()
    with shop.database.transaction(shop.account.id) as session:
        held = review_leases.claim(session, shop.account.id, "user:eva", count=3)
        for task, said in zip(held, ("reject", "approve", "reject"), strict=True):
            code = "nudity" if said == "reject" else None
            answer = Answer(task.id, task.version, said, code)
            review_verdicts.decide(session, shop.account.id, "user:eva", answer)
    expected = {item_id(job, task.seq): task.verdict for task in held}
    made = shop.of_reviews()
    assert made.notes == ()
    assert made.imported.manifest.groups["verdict"].labels == ("approve", "reject")
    found = {entry.columns["item_id"]: entry.labels["verdict"] for entry in made.imported.manifest.entries}
    assert found == expected
    shop.say(job, 0, colour="green")
    made = shop.of_reviews()
    assert set(made.imported.manifest.groups) == {"colour"}, "a tagger learns no verdicts unless asked to"
    assert made.notes == ("2 pictures left out: decided on, not labelled (--verdict takes them too)",)
    assert set(shop.of_reviews(verdict=True).imported.manifest.groups) == {"colour", "verdict"}


def test_labels_by_people_become_a_dataset(shop: Shop) -> None:
    job = shop.job(*(jpeg(COLOURS[n], n) for n in range(4)))
    shop.say(job, 0, colour="blue")
    shop.say(job, 1, colour="red")
    shop.say(job, 1, colour="grey")
    shop.say(job, 2, colour="red")
    shop.say(job, 2, colour=None)
    run_sql(shop.database, "UPDATE labels SET created_at = now() - interval '2 days' WHERE seq = 0")
    made = shop.of_reviews().imported.manifest
    assert sorted(map(str, values(made, "colour"))) == ["blue", "grey"]
    assert {entry.columns["label_source"] for entry in made.entries} == {"person"}
    assert {entry.columns["item_id"] for entry in made.entries} == {item_id(job, 0), item_id(job, 1)}
    late = shop.of_reviews(since=datetime.now(UTC) - timedelta(days=1))
    assert values(late.imported.manifest, "colour") == ["grey"]
    with pytest.raises(DatasetError, match="nobody is sure"):
        shop.of_reviews(since=datetime.now(UTC) + timedelta(days=1))


def test_a_picture_outlives_its_job(shop: Shop) -> None:
    job = shop.job(jpeg("red"))
    shop.say(job, 0, colour="blue")
    run_sql(shop.database, "UPDATE labels SET job_id = :gone", gone=uuid4())
    (entry,) = shop.of_reviews().imported.manifest.entries
    assert (entry.columns["item_id"], entry.columns["host"]) == ("", "")


def test_whose_pictures_they_are(shop: Shop) -> None:
    job = shop.job(jpeg("red"))
    shop.say(job, 0, colour="blue")
    other = make_account(shop.database, "other")
    with pytest.raises(NotFound):
        from_job(shop.database, shop.blobs, other.id, job, name="own", version="1")
    with pytest.raises(DatasetError):
        from_reviews(shop.database, shop.blobs, other.id, name="own", version="1")


def test_a_job_that_goes_on_is_no_dataset(shop: Shop) -> None:
    job = ingested(shop.database, shop.blobs, shop.account.id, [jpeg("red")])
    with pytest.raises(Conflict, match="tagmill wait"):
        shop.of_job(job)


def test_bytes_that_are_gone_or_altered_are_left_out_and_listed(shop: Shop) -> None:
    job = shop.job(*(jpeg(COLOURS[n], n) for n in range(3)))
    keys = [entry.image for entry in shop.of_job(job).imported.manifest.entries]
    (shop.blobs.root / keys[0]).unlink()
    (shop.blobs.root / keys[1]).write_bytes(jpeg("grey"))
    made = shop.of_job(job).imported
    assert made.report.unreadable == {keys[0]: "blob_missing", keys[1]: "blob_altered"}
    assert [entry.image for entry in made.manifest.entries] == [keys[2]]


def test_an_unknown_column_is_named(shop: Shop) -> None:
    job = shop.job(jpeg("red"))
    with pytest.raises(DatasetError, match="no column 'colour' among host"):
        shop.of_job(job, by="colour")


def test_near_duplicates_are_found_by_the_hashes_that_are_stored(shop: Shop) -> None:
    job = shop.job(*(jpeg(COLOURS[n % 2], n) for n in range(16)))
    # Pictures 2 and 3, 4 and 5 … are alike: a bit apart, and far from the others.
    for seq in range(16):
        code = "".join(f"{(seq // 2 * 37 + at * 101) * 2654435761 % 2**32:032b}" for at in range(8))
        code = code[:-1] + str(seq % 2)
        run_sql(
            shop.database,
            "UPDATE images SET pdq = CAST(:code AS bit(256)), pdq_quality = :quality WHERE sha256 ="
            " (SELECT sha256 FROM results WHERE job_id = :job AND seq = :seq)",
            code=code, quality=0 if seq < 2 else 90, job=job, seq=seq,
        )  # fmt: skip
    made = shop.of_job(job).imported
    assert len(made.hashes) == 14, "a hash of little quality is not to be matched"
    assert sorted(distance for _, _, distance in made.report.near_duplicates) == [1] * 7
    assert len(made.report.conflicts) == 7, "red and green look alike here"
    split = splits.split(made.manifest, made.hashes, {"train": 0.5, "test": 0.5})
    assert {entry.split for entry in split.entries} == {"train", "test"}
    assert splits.leaks(split.entries, made.hashes) == []


@pytest.mark.slow
def test_a_stored_dataset_is_trained_on_and_refused_once_its_bytes_change(shop: Shop, db: Database) -> None:
    job = shop.job(*(jpeg(COLOURS[n % 4], n) for n in range(16)))
    made = shop.of_job(job).imported
    manifest = splits.split(made.manifest, made.hashes, {"train": 0.5, "validation": 0.5})
    stored = manifests.store(shop.database, shop.blobs, manifest, manifests.IN_STORE, {})
    assert manifests.load(shop.blobs, stored) == manifest

    def train(version: str, blobs: LocalBlobs) -> tuple[str, str | None]:
        config = pictures.config(name="own-net", version=version, epochs=1).to_dict()
        with shop.database.transaction() as session:
            training.enqueue(session, stored.id, "own-net", version, config)
        ended = Trainer(db, blobs, shop.folder / "models").run_once()
        assert ended is not None
        return ended.state, ended.code

    # Another machine sees the same store at another place.
    shop.blobs.root.rename(shop.folder / "elsewhere")
    moved = LocalBlobs(shop.folder / "elsewhere")
    assert train("1", moved) == ("finished", None)
    (moved.root / manifest.entries[3].image).write_bytes(jpeg("grey", 99))
    assert train("2", moved) == ("failed", "dataset_changed")


def picture(**changed: Any) -> Picture:
    plain: dict[str, Any] = dict.fromkeys(("work_sha256", "pdq", "job_id", "seq", "url", "product_id", "verdict"))
    plain |= {"sha256": b"1" * 32, "work_key": "w", "pdq_quality": 0, "model": "m@1", "complete": True}
    return Picture(**{**plain, "tags": [], "labels": [], **changed})


def tags(**scores: float) -> list[dict[str, Any]]:
    return [{"label": label, "group": "features", "score": score} for label, score in scores.items()]


VOCABULARY: Mapping[str, Group] = {"features": Group("attributes", ("kids", "old", "striped"))}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"tags": tags(kids=0.95)}, ("kids",)),
        ({"tags": []}, ()),
        ({"tags": tags(kids=0.95, old=0.6)}, None),
        ({"tags": tags(kids=0.95), "complete": False}, None),
    ],
)
def test_of_attributes_the_model_must_be_sure_of_each(changed: dict[str, Any], named: tuple[str, ...] | None) -> None:
    found = opinions(picture(**changed), lambda model: VOCABULARY, 0.9, verdict=False)
    assert (found["features"].named if found else None) == named


def test_groups_keep_what_somebody_named_and_the_kind_of_most() -> None:
    def one(kind: str, *named: str) -> dict[str, Opinion]:
        return {"g": Opinion(kind, named, frozenset(named), "person")}

    groups, notes = groups_of([one("exclusive", "a"), one("exclusive", "b"), one("attributes", "c", "d")])
    assert (groups["g"].kind, groups["g"].labels) == ("exclusive", ("a", "b", "c", "d"))
    groups, notes = groups_of([one("attributes"), one("attributes")])
    assert groups == {}
    assert "g is left out" in notes[0]


def test_what_people_say_of_equal_pictures_is_put_together(shop: Shop) -> None:
    """Different bytes with one working copy: each has labels of its own, and all are of the one picture."""
    job = shop.job(jpeg("red"), jpeg("blue"), jpeg("grey"))
    run_sql(
        shop.database,
        "UPDATE images g SET (work_key, work_sha256) = (SELECT f.work_key, f.work_sha256 FROM images f, results r"
        " WHERE f.sha256 = r.sha256 AND r.seq = 0) WHERE sha256 IN (SELECT sha256 FROM results WHERE seq < 2)",
    )
    shop.say(job, 0, features=["old"])
    shop.say(job, 1, colour="crimson")
    for made in (shop.of_job(job), shop.of_reviews()):
        entry = next(e for e in made.imported.manifest.entries if e.labels["colour"] == "crimson")
        assert entry.labels["features"] == ("old",)
    shop.say(job, 0, colour="pink")
    made = shop.of_job(job)
    assert values(made.imported.manifest, "colour") == [None, "grey"], "one of them is wrong, and nobody knows which"
    assert any("colour is left out" in note and item_id(job, 0) in note for note in made.notes)


def test_a_persons_word_stands_before_a_models_on_equal_pictures() -> None:
    person, model = (Opinion("exclusive", (name,), frozenset(), name) for name in ("person", "model"))
    assert joined([{"g": model}, {"g": person}, {"g": model, "h": model}]) == ({"g": person, "h": model}, [])
    other = Opinion("exclusive", ("else",), frozenset(), "person")
    assert joined([{"g": person}, {"g": other}, {"g": person}]) == ({}, ["g"])


def test_a_rerun_of_the_model_leaves_the_word_of_a_person_alone(shop: Shop) -> None:
    job = shop.job(jpeg("red"))
    shop.say(job, 0, colour="blue")
    with shop.database.transaction() as session:
        session.execute(text('UPDATE results SET tags = \'[]\', published = \'{"tags": {"model": "other@2"}}\''))
    assert values(shop.of_job(job).imported.manifest, "colour") == ["blue"]
    assert len(rows(shop.database, "SELECT 1 FROM current_labels")) == 1
