"""What people say of pictures: taken, refused with its place, kept, seen in every form, and walled by account."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from db import erasures, registry
from db.session import Database
from tests.api.conftest import client_of
from tests.api.rows import count, settle
from tests.conftest import TestAccount
from tests.db.erasing import traces
from tests.db.test_erasure_words import held_up

U = "http://shop.example/"
CARD = {
    "name": "tagger",
    "version": "1",
    "task": "tags",
    "head": {"category": "softmax", "features": "sigmoid"},
    "labels": [
        *({"group": "category", "name": name} for name in ("dress", "shirt", "shoes")),
        *({"group": "features", "name": name} for name in ("kids", "striped")),
    ],
}


@pytest.fixture
def tagger(owner_db: Database) -> None:
    with owner_db.transaction() as session:
        registry.install_model(session, CARD, "0" * 64)
        registry.activate(session, "tagger", "1")


@pytest.fixture
def job(tagger: None, client: FlaskClient, owner_db: Database) -> str:
    """Three items of product p1: two of the same bytes, done; the last failed."""
    items = [{"url": f"{U}{n}.jpg", "id": f"c{n}", "product_id": "p1"} for n in range(3)]
    found = client.post("/v1/jobs", json={"items": items}).json["id"]
    settle(owner_db, found, {0: None, 1: None, 2: "http_404"})
    assert isinstance(found, str)
    return found


def item(job: str, seq: int = 0) -> str:
    return f"{job.replace('-', '')}-{seq}"


def put(client: FlaskClient, job: str, groups: dict[str, Any], seq: int = 0, **more: Any) -> Any:
    return client.put(f"/v1/items/{item(job, seq)}/labels", json={"groups": groups, **more})


def said(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["group"]: row["labels"] for row in rows}


def test_the_newest_word_counts_and_the_older_ones_are_kept(
    client: FlaskClient, account: TestAccount, job: str
) -> None:
    first = put(client, job, {"category": ["shirt"], "features": ["kids"]}, comment="looked twice")
    assert first.status_code == 200
    second = put(client, job, {"category": "shoes", "features": []}).json
    assert said(second["labels"]) == {"category": ["shoes"], "features": []}
    assert [row["absent"] for row in second["labels"]] == [[], ["kids", "striped"]]
    assert {row["by"] for row in second["labels"]} == {f"key:{account.key_id}"}
    assert [(row["group"], row["labels"], row["comment"]) for row in second["history"]] == [
        ("features", [], None),
        ("category", ["shoes"], None),
        ("features", ["kids"], "looked twice"),
        ("category", ["shirt"], "looked twice"),
    ]
    back = put(client, job, {"category": None}).json
    assert said(back["labels"]) == {"features": []}
    assert back["history"][0]["labels"] is None
    assert client.get(f"/v1/items/{item(job, 1)}/labels").json["labels"] == back["labels"], "labels are of the bytes"


def test_the_same_word_twice_is_one_row(client: FlaskClient, owner_db: Database, job: str) -> None:
    for _ in range(2):
        put(client, job, {"category": ["shirt"], "features": ["kids"]})
    put(client, job, {"unheard": None}, new=True)
    assert count(owner_db, "labels") == 2
    put(client, job, {"category": ["shirt"]}, comment="on purpose")
    assert count(owner_db, "labels") == 3


@pytest.mark.parametrize(
    ("groups", "code", "field"),
    [
        ({"category": ["coat"]}, "unknown_label", "groups.category"),
        ({"season": ["summer"]}, "unknown_group", "groups.season"),
        ({"category": []}, "label_count", "groups.category"),
        ({"category": ["shirt", "dress"]}, "label_count", "groups.category"),
        ({"features": ["kids", "spotted"]}, "unknown_label", "groups.features"),
        ({"verdict": ["reject"]}, "unknown_group", "groups.verdict"),
    ],
)
def test_what_cannot_be_said_names_its_group(
    client: FlaskClient, owner_db: Database, job: str, groups: dict[str, Any], code: str, field: str
) -> None:
    refused = put(client, job, {"features": ["kids"], **groups})
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_labels")
    assert [(fault["code"], fault["field"]) for fault in refused.json["errors"]] == [(code, field)]
    assert count(owner_db, "labels") == 0


def test_an_unknown_label_says_what_there_is(client: FlaskClient, job: str) -> None:
    assert "dress, shirt, shoes" in put(client, job, {"category": ["coat"]}).json["errors"][0]["detail"]


def test_new_labels_and_groups_are_taken_when_asked_for(client: FlaskClient, job: str) -> None:
    taken = put(client, job, {"category": ["coat"], "season": "summer", "colours": ["red", "blue"]}, new=True).json
    assert said(taken["labels"]) == {"category": ["coat"], "season": ["summer"], "colours": ["red", "blue"]}
    refused = put(client, job, {"season": ["summer", "winter"]}, new=True)
    assert refused.json["errors"][0]["code"] == "label_count", "a group stays of the kind that it was"
    assert put(client, job, {"verdict": "reject"}, new=True).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"groups": {}},
        {"groups": {"category": 1}},
        {"groups": {"": ["a"]}},
        {"groups": {"category": ["a\n"]}},
        {"groups": {"category": ["shirt"]}, "by": "me"},
        {"groups": {"category": ["shirt"]}, "source": "decision"},
    ],
)
def test_broken_bodies(client: FlaskClient, job: str, body: Any) -> None:
    assert client.put(f"/v1/items/{item(job)}/labels", json=body).json["code"] == "invalid_body"


def test_an_item_without_a_picture_cannot_be_labelled(client: FlaskClient, job: str) -> None:
    refused = put(client, job, {"category": ["shirt"]}, seq=2)
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")


def test_another_accounts_item_is_not_there(app: Flask, client: FlaskClient, other: TestAccount, job: str) -> None:
    put(client, job, {"category": ["shirt"]})
    rival = client_of(app, other)
    assert put(rival, job, {"category": ["dress"]}).status_code == 404
    assert rival.get(f"/v1/items/{item(job)}/labels").status_code == 404
    lines = json.dumps({"item_id": item(job), "groups": {"category": ["dress"]}})
    answer = rival.post("/v1/labels", data=lines, content_type="application/x-ndjson").json
    assert [fault["code"] for fault in answer["errors"]] == ["not_found"]


def test_the_table_is_walled_and_append_only(
    api_db: Database, client: FlaskClient, account: TestAccount, other: TestAccount, job: str
) -> None:
    put(client, job, {"category": ["shirt"]})
    for whose, expected in ((account, 1), (other, 0)):
        with api_db.transaction(whose.id) as session:
            for relation in ("labels", "current_labels"):
                assert session.scalar(text(f"SELECT count(*) FROM {relation}")) == expected
    for statement in ("UPDATE labels SET comment = ''", "DELETE FROM labels"):
        with pytest.raises(Exception, match="permission denied"), api_db.transaction(account.id) as session:
            session.execute(text(statement))


def test_people_outrank_the_model_wherever_tags_are_read(
    client: FlaskClient, api_db: Database, account: TestAccount, job: str
) -> None:
    put(client, job, {"category": ["shoes"], "features": ["kids"]})
    row = client.get(f"/v1/items/{item(job)}").json
    assert [tag["label"] for tag in row["tags"]] == ["dress"], "the model's word is not touched"
    assert said(row["labels"]) == {"category": ["shoes"], "features": ["kids"]}
    product = client.get("/v1/products/p1").json
    assert {(tag["group"], tag["label"], tag["score"]) for tag in product["tags"]} == {
        ("category", "shoes", 1.0),
        ("features", "kids", 1.0),
    }
    assert {source["model"] for tag in product["tags"] for source in tag["sources"]} == {None}
    assert said(product["pictures"][0]["labels"]) == said(row["labels"])
    with api_db.transaction(account.id) as session:
        seen = session.execute(text("SELECT DISTINCT label, model, score FROM catalog_tags ORDER BY label")).all()
    assert [tuple(each) for each in seen] == [("kids", None, 1.0), ("shoes", None, 1.0)]

    put(client, job, {"category": None})
    product = client.get("/v1/products/p1").json
    assert {tag["label"] for tag in product["tags"]} == {"dress", "kids"}


def lines_of(*rows: Any) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


def test_many_labels_name_the_wrong_lines_and_take_the_others(
    client: FlaskClient, owner_db: Database, job: str
) -> None:
    good = {"item_id": item(job), "groups": {"category": ["shoes"]}}
    rows = [
        good,
        "not json",
        {**good, "groups": {"category": ["coat"]}},
        "",
        {**good, "item_id": item(job, 2)},
        {**good, "item_id": "nothing"},
        {"item_id": item(job)},
        {**good, "groups": {"features": ["kids"]}},
    ]
    for _ in range(2):
        answer = client.post("/v1/labels", data=lines_of(*rows), content_type="application/x-ndjson").json
        assert (answer["labelled"], answer["failed"]) == (2, 5)
        assert [(fault["line"], fault["code"]) for fault in answer["errors"]] == [
            (2, "invalid_json"),
            (3, "unknown_label"),
            (5, "conflict"),
            (6, "not_found"),
            (7, "missing"),
        ]
        assert count(owner_db, "labels") == 2, "the same list again changes nothing"


def test_many_labels_as_json_name_the_member(client: FlaskClient, job: str) -> None:
    rows = [{"item_id": item(job), "groups": {"category": ["shoes"]}}, 7, {"item_id": "x", "groups": {"a": "b"}}]
    answer = client.post("/v1/labels", json={"labels": rows}).json
    assert (answer["labelled"], answer["failed"]) == (1, 2)
    assert [(fault["item"], fault["code"]) for fault in answer["errors"]] == [(1, "wrong_type"), (2, "not_found")]
    for body in ([], {"labels": 1}, {"labels": [], "more": 1}):
        assert client.post("/v1/labels", json=body).json["code"] == "invalid_body"
    wrong = client.post("/v1/labels", data="a,b", content_type="text/csv")
    assert wrong.status_code == 415


def test_a_list_longer_than_a_transaction_is_counted_whole(client: FlaskClient, owner_db: Database, job: str) -> None:
    rows = [{"item_id": item(job, n % 2), "groups": {"features": ["kids"][: n % 2]}} for n in range(401)]
    rows[250]["item_id"] = "nothing"
    answer = client.post("/v1/labels", data=lines_of(*rows), content_type="application/x-ndjson").json
    assert (answer["labelled"], answer["failed"]) == (400, 1)
    assert answer["errors"][0]["line"] == 251
    assert said(client.get(f"/v1/items/{item(job)}/labels").json["labels"]) == {"features": []}


@pytest.mark.parametrize("many", [False, True])
def test_what_is_said_of_a_picture_while_it_is_erased_is_refused(
    app: Flask, db: Database, owner_db: Database, account: TestAccount, job: str, many: bool
) -> None:
    def say() -> Any:
        client, groups = client_of(app, account), {"category": "dress"}
        if many:
            return client.post("/v1/labels", json={"labels": [{"item_id": item(job), "groups": groups}]})
        return client.put(f"/v1/items/{item(job)}/labels", json={"groups": groups})

    with owner_db.transaction() as session:
        sha = session.execute(text("SELECT encode(sha256, 'hex') FROM results WHERE seq = 0")).scalar_one()
    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as session:
            asked = erasures.ask(session, account.id, "picture", sha, actor="test")
            assert erasures.step(session, asked.id)
            said = pool.submit(say)
            held_up(owner_db, said)
        answer = said.result(30)
    assert (answer.status_code, answer.json["labelled"] if many else answer.json["code"]) == (
        (200, 0) if many else (409, "conflict")
    )
    assert traces(owner_db, sha) == []
