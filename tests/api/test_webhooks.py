"""Webhooks over HTTP: registered within rules, the secret shown once, deliveries readable and repeatable, walled."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from api.webhook_schemas import ASKED_FOR, DeliveryState, WebhookReason, WebhookState
from db import delivery_queue, outbox, states, webhook_secrets
from db.delivery_queue import Bounds, Tried
from db.ids import uuid7
from db.session import Database
from tests.api.conftest import Make, client_of
from tests.conftest import TestAccount

URL = "https://hooks.example/in?token=hush"


@pytest.fixture
def app(make_app: Make) -> Flask:
    return make_app(webhook_keys=["k" * 40])


def made(client: FlaskClient, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/webhooks", json={"url": URL, **more})
    assert answer.status_code == 201, answer.json
    assert isinstance(answer.json, dict)
    return answer.json


def happened(db: Database, account: TestAccount, *outcomes: Tried | None) -> list[str]:
    """An event for each outcome, sent so (None: not yet sent); the events' ids."""
    ids = []
    for outcome in outcomes:
        with db.transaction() as session:
            outbox.emit(session, account.id, "job.finished", str(uuid7()), {"job": "j"})
        with db.transaction() as session:
            delivery_queue.fan_out(session)
            if outcome is not None:
                for each in delivery_queue.claim(session, uuid7(), 60, 1, Bounds()):
                    delivery_queue.record(session, each, outcome, disable_days=5)
            newest = session.scalar(text("SELECT id FROM outbox ORDER BY id DESC LIMIT 1"))
            ids.append(str(newest))
    return ids


FAILED = Tried("http_5xx", 500, 0.5, again_s=None)
DELIVERED = Tried(None, 204, 0.5)


def test_a_webhook_is_made_read_changed_and_deleted(client: FlaskClient) -> None:
    new = made(client, types=["job.finished", "item.failed", "job.finished"], description="the shop")
    path = f"/v1/webhooks/{new['id']}"
    assert (new["url"], new["types"], new["state"]) == (URL, ["item.failed", "job.finished"], "enabled")
    assert 24 <= len(webhook_secrets.read(new.pop("secret"))) <= 64
    assert client.get(path).json == new, "everything but the secret"
    assert client.get("/v1/webhooks").json == {"webhooks": [new], "next": None}
    changed = client.patch(path, json={"types": None, "enabled": False}).json
    assert (changed["types"], changed["state"], changed["reason"]) == (None, "disabled", "owner")
    assert changed["description"] == "the shop", "what is absent stays"
    assert client.patch(path, json={"enabled": True, "description": None}).json["description"] is None
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == client.delete(path).status_code == 404


def test_the_secret_is_shown_at_birth_and_rotation_only(
    client: FlaskClient, owner_db: Database, account: TestAccount, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    new = made(client)
    path = f"/v1/webhooks/{new['id']}"
    rotated = client.post(f"{path}/rotate").json
    assert rotated["secret"] != new["secret"]
    until = datetime.fromisoformat(rotated["rotating_until"])
    assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(hours=24)
    event = client.post(f"{path}/ping").json
    seen = "".join(
        client.get(where).get_data(as_text=True)
        for where in (path, "/v1/webhooks", f"{path}/deliveries", f"{path}/deliveries/{event['id']}")
    )
    assert "whsec_" not in seen + client.patch(path, json={"description": "x"}).get_data(as_text=True)
    assert "whsec_" not in caplog.text
    with owner_db.transaction() as session:
        log = str(session.execute(text("SELECT actor, action, detail FROM audit_log ORDER BY id")).all())
    assert "webhook.create" in log
    assert f"key:{account.key_id}" in log
    assert "hush" not in log


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://hooks.example/", "blocked_scheme"),
        ("ftp://hooks.example/", "blocked_scheme"),
        ("hooks.example", "invalid_url"),
        ("https://user:pw@hooks.example/", "blocked_userinfo"),
        ("https://hooks.example:8443/", "blocked_port"),
        ("https://hooks.example:80/", "blocked_port"),
        ("https://127.0.0.1/", "blocked_address"),
        ("https://[::1]/", "blocked_address"),
        ("https://[::ffff:10.0.0.1]/", "blocked_address"),
        ("https://[64:ff9b::a9fe:a9fe]/", "blocked_address"),
        ("https://169.254.169.254/latest", "blocked_address"),
        ("https://192.0.0.192/", "blocked_address"),
        ("https://localhost/", "blocked_address"),
        ("https://db.localhost./", "blocked_address"),
        ("https://2130706433/", "invalid_url"),
        ("https://0x7f.1/", "invalid_url"),
        ("https://127.1/", "invalid_url"),
        ("https://①②⑦.0.0.1/", "invalid_url"),
        ("https://hooks.example/#here", "invalid_url"),
        ("https://hooks.example/a b", "invalid_url"),
        ("https://hooks.example\\@127.0.0.1/", "invalid_url"),
        ("https://hooks.example/\r\nX: y", "invalid_url"),
        ("https://" + "a" * 300 + ".example/", "invalid_url"),
    ],
)
def test_urls_that_are_refused_by_their_text(client: FlaskClient, url: str, code: str) -> None:
    refused = client.post("/v1/webhooks", json={"url": url})
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_body")
    assert [(fault["field"], fault["code"]) for fault in refused.json["errors"]] == [("url", code)]
    hook = made(client)["id"]
    assert client.patch(f"/v1/webhooks/{hook}", json={"url": url}).status_code == 422


def test_an_operator_may_open_own_networks(make_app: Make, account: TestAccount) -> None:
    own = make_app(
        webhook_keys="k" * 40, webhook_http=True, webhook_ports="8000,9000", webhook_cidrs="10.1.0.0/16,127.0.0.0/8"
    )
    client = client_of(own, account)
    for url in ("http://10.1.2.3:8000/", "https://10.1.2.3/", "http://localhost:9000/", "http://receiver/in"):
        assert client.post("/v1/webhooks", json={"url": url}).status_code == 201, url
    assert client.post("/v1/webhooks", json={"url": "http://10.2.2.3:8000/"}).status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": 1}, "url"),
        ({"url": URL, "types": []}, "types"),
        ({"url": URL, "types": ["job.finish"]}, "types"),
        ({"url": URL, "types": ["webhook.ping"]}, "types"),
        ({"url": URL, "types": "job.finished"}, "types"),
        ({"url": URL, "description": "a\nb"}, "description"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
        ({"url": URL, "account_id": 1}, "account_id"),
    ],
)
def test_broken_bodies_name_the_field(client: FlaskClient, body: Any, field: str) -> None:
    refused = client.post("/v1/webhooks", json=body)
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_body")
    assert {fault["field"].split(".")[0] for fault in refused.json["errors"]} == {field}


def test_half_a_surrogate_is_refused(client: FlaskClient) -> None:
    """Where pydantic compares it with names of its own, it falls over it."""
    made = client.post("/v1/webhooks", json={"url": URL}).json["id"]
    for ask, path in ((client.post, "/v1/webhooks"), (client.patch, f"/v1/webhooks/{made}")):
        refused = ask(path, data=f'{{"url": "{URL}", "types": ["\\ud800"]}}', content_type="application/json")
        assert (refused.status_code, refused.json["code"]) == (422, "invalid_body")


def test_without_a_key_there_are_no_webhooks(make_app: Make, account: TestAccount) -> None:
    client = client_of(make_app(), account)
    refused = client.post("/v1/webhooks", json={"url": URL})
    assert (refused.status_code, refused.json["code"]) == (503, "webhooks_off")
    assert client.get("/v1/webhooks").status_code == 200


def test_there_is_a_most_of_them(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.webhooks.MAX_WEBHOOKS", 2)
    made(client), made(client)
    assert client.post("/v1/webhooks", json={"url": URL}).json["code"] == "too_many_webhooks"


def test_pages_of_webhooks(client: FlaskClient) -> None:
    ids = [made(client)["id"] for _ in range(3)]
    first = client.get("/v1/webhooks?limit=2").json
    second = client.get(f"/v1/webhooks?limit=2&cursor={first['next']}").json
    assert [each["id"] for each in first["webhooks"] + second["webhooks"]] == ids[::-1]
    assert second["next"] is None
    assert client.get("/v1/webhooks?cursor=abc").json["code"] == "invalid_cursor"


def test_the_log_of_deliveries(client: FlaskClient, db: Database, account: TestAccount) -> None:
    hook = made(client)["id"]
    path = f"/v1/webhooks/{hook}/deliveries"
    failed, delivered, waiting = happened(db, account, FAILED, DELIVERED, None)
    page = client.get(f"{path}?limit=2").json
    rest = client.get(f"{path}?limit=2&cursor={page['next']}").json
    rows = page["deliveries"] + rest["deliveries"]
    assert [(row["id"], row["state"]) for row in rows] == [
        (waiting, "pending"), (delivered, "delivered"), (failed, "failed"),
    ]  # fmt: skip
    assert [row["next_at"] is None for row in rows] == [False, True, True]
    assert [row["id"] for row in client.get(f"{path}?state=failed").json["deliveries"]] == [failed]
    assert client.get(f"{path}?type=item.failed").json["deliveries"] == []
    assert client.get(f"{path}?state=lost").json["code"] == "invalid_parameter"
    other = made(client)["id"]
    foreign = client.get(f"/v1/webhooks/{other}/deliveries?cursor={page['next']}")
    assert foreign.json["code"] == "invalid_cursor"
    whole = client.get(f"{path}/{failed}").json
    assert whole["data"] == {"job": "j"}
    (tried,) = whole["log"]
    assert {**tried, "at": None} == {"n": 1, "at": None, "code": "http_5xx", "status": 500, "seconds": 0.5}
    assert (whole["code"], whole["status"], whole["attempts"]) == ("http_5xx", 500, 1)


def test_sending_again(client: FlaskClient, db: Database, account: TestAccount) -> None:
    hook = made(client)["id"]
    path = f"/v1/webhooks/{hook}"
    failed, delivered = happened(db, account, FAILED, DELIVERED)
    again = client.post(f"{path}/deliveries/{failed}/redeliver")
    assert (again.status_code, again.json["id"], again.json["state"]) == (202, failed, "pending")
    assert client.post(f"{path}/deliveries/{delivered}/redeliver").json["state"] == "pending"
    client.patch(path, json={"enabled": False})
    assert client.post(f"{path}/deliveries/{failed}/redeliver").json["code"] == "conflict"
    assert client.post(f"{path}/redeliver", json={"since": "2026-01-01T00:00:00Z"}).json["code"] == "conflict"
    assert client.post(f"{path}/ping").json["code"] == "conflict"
    client.patch(path, json={"enabled": True})
    assert client.post(f"{path}/redeliver", json={"since": "2020-01-01T00:00:00+02:00"}).json == {"queued": 2}
    assert client.post(f"{path}/redeliver", json={"since": "2200-01-01T00:00:00Z"}).json == {"queued": 0}


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01T00:00:00", 1700000000, None, "2026-13-01T00:00:00Z"])
def test_a_time_is_a_time_with_its_zone(client: FlaskClient, since: Any) -> None:
    hook = made(client)["id"]
    refused = client.post(f"/v1/webhooks/{hook}/redeliver", json={"since": since})
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "since")


def test_a_ping_is_for_one_endpoint(client: FlaskClient) -> None:
    hook = made(client, types=["job.finished"])["id"]
    other = made(client)["id"]
    answer = client.post(f"/v1/webhooks/{hook}/ping")
    assert (answer.status_code, answer.json["type"], answer.json["state"]) == (202, "webhook.ping", "pending")
    assert len(client.get(f"/v1/webhooks/{hook}/deliveries").json["deliveries"]) == 1
    assert client.get(f"/v1/webhooks/{other}/deliveries").json["deliveries"] == []
    assert client.post(f"/v1/webhooks/{hook}/ping").json["id"] != answer.json["id"]


def test_another_accounts_webhook_is_not_there(
    app: Flask, client: FlaskClient, db: Database, account: TestAccount, other: TestAccount
) -> None:
    hook = made(client)["id"]
    own = f"/v1/webhooks/{hook}"
    (event,) = happened(db, account, FAILED)
    rival = client_of(app, other)
    theirs = made(rival)["id"]
    since = {"since": "2020-01-01T00:00:00Z"}
    tries: list[tuple[str, str, Any]] = [
        ("GET", own, None), ("PATCH", own, {"enabled": False}), ("DELETE", own, None), ("POST", f"{own}/rotate", None),
        ("POST", f"{own}/ping", None), ("GET", f"{own}/deliveries", None), ("GET", f"{own}/deliveries/{event}", None),
        ("POST", f"{own}/deliveries/{event}/redeliver", None), ("POST", f"{own}/redeliver", since),
        ("GET", f"/v1/webhooks/{theirs}/deliveries/{event}", None),
        ("POST", f"/v1/webhooks/{theirs}/deliveries/{event}/redeliver", None),
    ]  # fmt: skip
    for method, path, body in tries:
        answer = rival.open(path, method=method, json=body)
        assert (answer.status_code, answer.json["code"]) == (404, "not_found"), (method, path)
    assert rival.post(f"/v1/webhooks/{theirs}/redeliver", json=since).json == {"queued": 0}
    assert [each["id"] for each in rival.get("/v1/webhooks").json["webhooks"]] == [theirs]
    assert client.get(own).json["state"] == "enabled"
    assert client.get(f"/v1/webhooks/{uuid4()}").status_code == 404


def test_texts_of_clients_are_kept_as_they_are(client: FlaskClient) -> None:
    hostile = "<script>alert(1)</script> ' OR 1=1 --"
    hook = made(client, description=hostile)["id"]
    answer = client.get(f"/v1/webhooks/{hook}")
    assert answer.json["description"] == hostile
    assert answer.content_type == "application/json"
    assert json.loads(answer.get_data())["id"] == str(UUID(hook))


def test_the_wire_has_the_states_of_the_database() -> None:
    from typing import get_args

    assert get_args(DeliveryState) == states.DELIVERY_STATES
    assert get_args(WebhookState) == states.WEBHOOK_STATES
    assert get_args(WebhookReason) == states.WEBHOOK_REASONS
    assert set(ASKED_FOR) == outbox.EVENTS.keys() - {"webhook.ping"}
