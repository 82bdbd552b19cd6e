"""Drift over HTTP: the newest day, a day by name, the account's own rows only."""

from datetime import timedelta

from flask import Flask
from flask.testing import FlaskClient

from db import drift
from db.session import Database
from tests.api.conftest import client_of
from tests.conftest import TestAccount
from tests.db.test_drift import DAY, figures


def test_before_any_day_was_computed(client: FlaskClient) -> None:
    answer = client.get("/v1/drift")
    assert answer.get_json() == {"day": None, "computed_at": None, "sources": [], "history": []}
    missing = client.get("/v1/drift?day=2026-03-14")
    assert (missing.status_code, missing.get_json()["code"]) == (404, "not_found")


def test_the_newest_day_and_those_before_it(
    app: Flask, client: FlaskClient, db: Database, account: TestAccount, other: TestAccount
) -> None:
    before = DAY - timedelta(days=1)
    with db.transaction() as session:
        drift.replace(session, before, [figures(account.id, "a.test", level="drifted")])
    with db.transaction() as session:
        mine = [figures(account.id, "a.test"), figures(account.id, "b.test", level="unknown")]
        drift.replace(session, DAY, [*mine, figures(other.id, "secret.test", level="drifted")])
    found = client.get("/v1/drift").get_json()
    assert found["day"] == "2026-03-14"
    assert [(row["source"], row["level"], row["reason"]) for row in found["sources"]] == [
        ("a.test", "ok", None),
        ("b.test", "unknown", "no_baseline"),
    ]
    assert found["history"] == [
        {"day": "2026-03-14", "levels": {"ok": 1, "unknown": 1}},
        {"day": "2026-03-13", "levels": {"drifted": 1}},
    ]
    assert client.get("/v1/drift?days=1").get_json()["history"] == found["history"][:1]
    assert [row["source"] for row in client.get("/v1/drift?level=ok").get_json()["sources"]] == ["a.test"]
    assert client.get("/v1/drift?model=other@1").get_json()["sources"] == []
    earlier = client.get("/v1/drift?day=2026-03-13").get_json()
    assert [row["level"] for row in earlier["sources"]] == ["drifted"]
    rival = client_of(app, other).get("/v1/drift").get_json()
    assert [row["source"] for row in rival["sources"]] == ["secret.test"]


def test_parameters_are_checked(client: FlaskClient) -> None:
    for wrong in ("day=yesterday", "days=0", "days=91", "level=bad", "source=x"):
        answer = client.get(f"/v1/drift?{wrong}")
        assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_parameter"), wrong
