"""Appeals and statements of reasons over HTTP: taken, refused, walled by account, inert whatever is written in them."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from db import review_leases, review_verdicts
from db.ids import item_id
from db.review_verdicts import Answer
from db.session import Database
from tests.api.conftest import client_of, key_with
from tests.conftest import TestAccount
from tests.db.judged import judge

SCRIPT = "</script><script>alert(1)</script>\n<img src=x onerror=alert(2)>"
WORDS = {"text": "It is a drawing.", "contact": "me@shop.test"}


@pytest.fixture
def rejected(db: Database, account: TestAccount) -> str:
    """An item that the machine rejected."""
    return item_id(judge(db, account, ["reject"], "avatar").id, 0)


def decided(db: Database, account: TestAccount, verdict: str, reviewer: str = "key:reviewer", **more: Any) -> None:
    with db.transaction(account.id) as session:
        (task,) = review_leases.claim(session, account.id, reviewer)
        review_verdicts.decide(session, account.id, reviewer, Answer(task.id, task.version, verdict, **more))


def test_from_the_statement_to_the_answer(
    client: FlaskClient, db: Database, account: TestAccount, rejected: str
) -> None:
    why = client.get(f"/v1/items/{rejected}/statement").json
    assert (why["verdict"], why["decision"]["decided_by"], why["ground"]["code"]) == ("reject", "automation", "nudity")
    assert why["redress"]["appeal_possible"] is True
    opened = client.post(why["redress"]["appeal_url"], json=WORDS)
    assert opened.status_code == 201
    assert opened.headers["Location"] == opened.json["url"]
    assert {key: opened.json[key] for key in ("state", "verdict", "code", "text", "contact", "answer")} == {
        "state": "open", "verdict": "reject", "code": "nudity", **WORDS, "answer": None,
    }  # fmt: skip
    assert client.get(f"/v1/items/{rejected}/statement").json["redress"]["appeal_url"] is None
    decided(db, account, "approve", text="You are right.")
    answered = client.get(opened.json["url"]).json
    assert (answered["state"], answered["answer"]["verdict"]) == ("overturned", "approve")
    assert answered["answer"]["text"] == "You are right."
    assert "reviewer" not in str(answered)
    item = client.get(f"/v1/items/{rejected}").json["moderation"]
    assert (item["verdict"], item["automatic"], item["decision"]["kind"]) == ("approve", "reject", "appeal")
    why = client.get(f"/v1/items/{rejected}/statement").json
    assert (why["decision"]["decided_by"], why["redress"]["appeal_state"]) == ("person", "overturned")


def test_what_cannot_be_appealed_against(
    client: FlaskClient, db: Database, account: TestAccount, rejected: str
) -> None:
    approved = item_id(judge(db, account, ["approve"], "listing").id, 0)
    answer = client.post(f"/v1/items/{approved}/appeals", json=WORDS)
    assert (answer.status_code, answer.json["code"]) == (409, "not_appealable")
    assert client.post(f"/v1/items/{rejected}/appeals", json=WORDS).status_code == 201
    answer = client.post(f"/v1/items/{rejected}/appeals", json=WORDS)
    assert (answer.status_code, answer.json["code"]) == (409, "appeal_open")
    open_ = client.post("/v1/jobs", json={"items": [{"url": "http://shop.example/1.jpg"}]}).json["id"].replace("-", "")
    assert client.post(f"/v1/items/{open_}-0/appeals", json=WORDS).json["code"] == "not_appealable"
    assert client.get(f"/v1/items/{open_}-0/statement").json["code"] == "conflict"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "missing", "text"),
        ({"text": ""}, "too_short", "text"),
        ({"text": "x" * 4001}, "too_long", "text"),
        ({"text": "a\x00b"}, "bad_characters", "text"),
        ({"text": 7}, "wrong_type", "text"),
        ({"text": "x", "contact": "a\nb"}, "bad_characters", "contact"),
        ({"text": "x", "verdict": "approve"}, "unknown_field", "verdict"),
    ],
)
def test_bad_bodies_name_the_field(client: FlaskClient, rejected: str, body: Any, code: str, field: str) -> None:
    answer = client.post(f"/v1/items/{rejected}/appeals", json=body)
    assert answer.status_code == 422
    assert [(fault["code"], fault["field"]) for fault in answer.json["errors"]] == [(code, field)]


def test_script_is_text_in_every_answer(client: FlaskClient, rejected: str) -> None:
    opened = client.post(f"/v1/items/{rejected}/appeals", json={"text": SCRIPT, "contact": "<b>me</b>"})
    for answer in (opened, client.get(opened.json["url"]), client.get("/v1/appeals")):
        assert answer.content_type == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert opened.json["text"] == SCRIPT


def test_words_and_contacts_are_in_no_audit_entry_and_no_event(
    client: FlaskClient, db: Database, owner_db: Database, account: TestAccount, rejected: str
) -> None:
    client.post(f"/v1/items/{rejected}/appeals", json=WORDS)
    decided(db, account, "reject", code="nudity")
    with owner_db.transaction() as session:
        kept = [*session.scalars(text("SELECT detail::text FROM audit_log"))]
        kept += session.scalars(text("SELECT payload::text FROM outbox"))
    assert not any(word in each for each in kept for word in WORDS.values())


def test_pages_and_states(client: FlaskClient, db: Database, account: TestAccount) -> None:
    contexts = ["a", "b", "c"]
    made = []
    for context in contexts:
        item = item_id(judge(db, account, ["reject"], context).id, 0)
        made.append(client.post(f"/v1/items/{item}/appeals", json=WORDS).json)
    gone = client.post(f"{made[0]['url']}/withdraw")
    assert (gone.status_code, gone.json["state"]) == (200, "withdrawn")
    first = client.get("/v1/appeals?limit=2").json
    second = client.get(f"/v1/appeals?limit=2&cursor={first['next']}").json
    assert [row["id"] for row in first["appeals"] + second["appeals"]] == [row["id"] for row in made[::-1]]
    assert second["next"] is None
    assert [row["context"] for row in client.get("/v1/appeals?state=open").json["appeals"]] == ["c", "b"]
    assert client.get("/v1/appeals?cursor=x").json["code"] == "invalid_cursor"


def test_an_upload_is_appealed_against_and_stated_with_its_subject(
    client: FlaskClient, db: Database, owner_db: Database, account: TestAccount
) -> None:
    sent = client.post(
        "/v1/moderations", json={"url": "http://pictures.test/0.jpg", "subject": {"user": "u-<b>1"}}
    ).json
    place = f"/v1/moderations/{sent['id']}"
    assert client.get(f"{place}/statement").json["code"] == "conflict"
    assert client.post(f"{place}/appeals", json=WORDS).json["code"] == "not_appealable"
    judge(db, account, ["reject"])  # works off all that is ready, the upload first
    why = client.get(f"{place}/statement").json
    assert (why["subject"], why["moderation_id"]) == ({"user": "u-<b>1", "product": None}, sent["id"])
    opened = client.post(why["redress"]["appeal_url"], json=WORDS).json
    assert opened["moderation_id"] == sent["id"]
    decided(db, account, "approve")
    now = client.get(place).json
    assert (now["state"], now["verdict"], now["automatic"]) == ("decided", "approve", "reject")


def test_another_accounts_items_and_appeals_are_not_there(
    app: Flask, client: FlaskClient, other: TestAccount, rejected: str
) -> None:
    made = client.post(f"/v1/items/{rejected}/appeals", json=WORDS).json
    rival = client_of(app, other)
    answers = [
        rival.get(f"/v1/appeals/{made['id']}"),
        rival.post(f"/v1/appeals/{made['id']}/withdraw"),
        rival.post(f"/v1/items/{rejected}/appeals", json=WORDS),
        rival.get(f"/v1/items/{rejected}/statement"),
    ]
    assert [(answer.status_code, answer.json["code"]) for answer in answers] == [(404, "not_found")] * 4
    assert rival.get("/v1/appeals").json["appeals"] == []


def test_reading_needs_another_scope_than_writing(
    app: Flask, owner_db: Database, account: TestAccount, rejected: str
) -> None:
    reader, writer = (key_with(owner_db, account, f"moderation:{scope}") for scope in ("read", "write"))
    plain = app.test_client()
    place = f"/v1/items/{rejected}/appeals"
    assert plain.post(place, json=WORDS, headers=reader).json["code"] == "missing_scope"
    assert plain.post(place, json=WORDS, headers=writer).status_code == 201
    assert plain.get("/v1/appeals", headers=writer).json["code"] == "missing_scope"
    assert plain.get("/v1/appeals", headers=reader).status_code == 200
