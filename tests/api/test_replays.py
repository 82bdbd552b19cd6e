"""Replays over HTTP: asked for, read, listed, cancelled; the counting itself is in tests/worker/test_replaying.py."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from db import replays
from db.ids import uuid7
from db.session import Database
from tests.api.conftest import client_of, key_with
from tests.conftest import TestAccount

SINCE = (datetime.now(UTC) - timedelta(days=7)).isoformat()
TEXT = "name: tried\nrules:\n  - {id: one, when: {score: Porn, at_least: 0.5}, then: reject, code: adult}\n"


def ask(client: FlaskClient, **body: Any) -> Any:
    return client.post("/v1/replays", json={"since": SINCE, **body})


def test_a_stored_policy_is_replayed(client: FlaskClient, owner_db: Database, account: TestAccount) -> None:
    answer = ask(client, policy="default", context="avatar")
    assert answer.status_code == 202
    body = answer.get_json()
    assert (body["kind"], body["state"], body["policy"], body["context"]) == (
        "what_if", "queued", "default@1", "avatar",
    )  # fmt: skip
    assert answer.headers["Location"] == body["url"]
    read = client.get(f"/v1/replays/{body['id']}").get_json()
    assert (read["id"], read["result"], read["decided_by"]) == (body["id"], None, None)
    with owner_db.transaction() as session:
        run = replays.claim(session, uuid7(), 60)
    assert run is not None
    assert (run.account_id, run.actor, run.document["name"]) == (account.id, f"key:{account.key_id}", "default")


def test_a_text_is_tried_without_being_stored(client: FlaskClient) -> None:
    body = ask(client, source=TEXT).get_json()
    assert (body["policy"], body["state"]) == ("tried@0", "queued")
    assert client.get("/v1/policies/tried").status_code == 404


def test_a_wrong_text_is_refused_with_its_lines(client: FlaskClient) -> None:
    answer = ask(client, source=TEXT.replace("reject", "burn"))
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_policy")
    (fault,) = answer.get_json()["errors"]
    assert (fault["field"], fault["line"]) == ("rules[0].then", 3)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "policy"),
        ({"policy": "default", "source": TEXT}, "policy"),
        ({"source": TEXT, "kind": "redecide"}, "source"),
        ({"policy": "default", "since": "2026-01-01T00:00:00"}, "since"),
        ({"policy": "default", "until": "2020-01-01T00:00:00Z"}, "until"),
        ({"policy": "default", "since": "2020-01-01T00:00:00Z"}, "until"),
        ({"policy": "default", "job": "x"}, "job"),
        ({"policy": "default", "limit": 3}, "limit"),
    ],
)
def test_what_is_wrong_is_named(client: FlaskClient, body: dict[str, Any], field: str) -> None:
    answer = ask(client, **body)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_body")
    assert [fault["field"] for fault in answer.get_json()["errors"]] == [field]


def test_a_re_decision_takes_what_the_policy_decided_and_an_active_version(client: FlaskClient) -> None:
    body = ask(client, policy="default", kind="redecide").get_json()
    assert (body["kind"], body["decided_by"]) == ("redecide", "default")
    assert ask(client, policy="default", kind="redecide", decided_by="*").get_json()["decided_by"] is None
    assert ask(client, policy="default", version=7, kind="redecide").status_code == 404


def test_replays_are_listed_and_cancelled(client: FlaskClient) -> None:
    made = [ask(client, policy="default").get_json()["id"] for _ in range(3)]
    first = client.get("/v1/replays?limit=2").get_json()
    rest = client.get(f"/v1/replays?limit=2&cursor={first['next']}").get_json()
    assert [run["id"] for run in first["replays"] + rest["replays"]] == made[::-1]
    assert rest["next"] is None
    cancelled = client.post(f"/v1/replays/{made[0]}/cancel")
    assert (cancelled.status_code, cancelled.get_json()["state"]) == (200, "cancelled")
    assert client.post(f"/v1/replays/{made[0]}/cancel").status_code == 409


def test_another_accounts_replay_is_not_found(app: Flask, client: FlaskClient, other: TestAccount) -> None:
    mine = ask(client, policy="default").get_json()["id"]
    rival = client_of(app, other)
    assert rival.get(f"/v1/replays/{mine}").status_code == 404
    assert rival.post(f"/v1/replays/{mine}/cancel").status_code == 404
    assert rival.get("/v1/replays").get_json()["replays"] == []


def test_reading_does_not_allow_replaying(app: Flask, owner_db: Database, account: TestAccount) -> None:
    reader = app.test_client()
    headers = key_with(owner_db, account, "policies:read")
    answer = reader.post("/v1/replays", json={"since": SINCE, "policy": "default"}, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "missing_scope")
    assert reader.get("/v1/replays", headers=headers).status_code == 200
