"""Idempotency-Key: one job a key, whatever arrives how often."""

import json
import threading

import pytest
from flask import Flask
from flask.testing import FlaskClient

from db import idempotency
from db.session import Database
from tests.api.conftest import client_of
from tests.api.rows import count
from tests.conftest import TestAccount

BODY = {"items": [{"url": "http://shop.example/1.jpg"}]}


def send(client: FlaskClient, key: str, body: object = BODY, query: str = "") -> object:
    return client.post(f"/v1/jobs{query}", json=body, headers={"Idempotency-Key": key})


def test_replay_is_the_same_answer(client: FlaskClient, owner_db: Database) -> None:
    first = send(client, "k1")
    again = send(client, "k1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.get_data() == again.get_data()
    assert first.headers["Location"] == again.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert count(owner_db, "jobs") == 1


def test_another_body_content_type_or_query_is_refused(client: FlaskClient, owner_db: Database) -> None:
    line = json.dumps(BODY["items"][0])
    post = {"data": line, "headers": {"Idempotency-Key": "k2"}}
    assert client.post("/v1/jobs?name=a", content_type="application/x-ndjson", **post).status_code == 202
    for query, kind, data in (
        ("?name=a", "application/x-ndjson", line + "\n"),
        ("?name=b", "application/x-ndjson", line),
        ("?name=a&on_invalid=skip", "text/csv", "url\nhttp://shop.example/1.jpg"),
    ):
        answer = client.post(f"/v1/jobs{query}", content_type=kind, data=data, headers=post["headers"])
        assert (answer.status_code, answer.json["code"]) == (422, "idempotency_key_reused")
    assert count(owner_db, "jobs") == 1


def test_a_refused_request_does_not_use_the_key_up(client: FlaskClient) -> None:
    assert send(client, "k3", {"items": []}).status_code == 422
    assert send(client, "k3").status_code == 202


def test_keys_are_the_accounts_own(app: Flask, account: TestAccount, other: TestAccount) -> None:
    first = send(client_of(app, account), "k4")
    second = send(client_of(app, other), "k4", {"items": [{"url": "http://rival.example/"}]})
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json["id"] != second.json["id"]


def test_in_flight_is_a_conflict(client: FlaskClient, api_db: Database, account: TestAccount) -> None:
    with api_db.transaction(account.id) as session:
        assert idempotency.begin(session, account.id, "k5") is None
        answer = send(client, "k5")
        assert (answer.status_code, answer.json["code"]) == (409, "idempotency_in_flight")
    assert send(client, "k5").status_code == 202


def test_fifty_at_once_make_one_job(app: Flask, account: TestAccount, owner_db: Database) -> None:
    barrier = threading.Barrier(50)
    answers: list[tuple[int, str]] = []

    def one() -> None:
        barrier.wait()
        answer = send(client_of(app, account), "k6")
        answers.append((answer.status_code, answer.json.get("code") or answer.json["id"]))

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(owner_db, "jobs") == 1
    assert len(answers) == 50
    assert {status for status, _ in answers} <= {202, 409}
    assert len({found for status, found in answers if status == 202}) == 1
    assert {found for status, found in answers if status == 409} <= {"idempotency_in_flight"}


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é"])
def test_malformed_keys(client: FlaskClient, key: str) -> None:
    answer = send(client, key)
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_idempotency_key")
