"""What strangers write into every body, query and path of the API: a documented refusal, quickly, and never a 5xx.
The cases come from the route table."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import BaseModel

from api.errors import ERRORS
from api.routing import Operation
from db.session import Database
from tests.abuse import test_tenants
from tests.abuse.cases import BODIES, REFERRING
from tests.abuse.estate import POLICY, WEBHOOK_KEYS, Estate, estate, rows_of
from tests.abuse.test_tenants import name_of
from tests.api.conftest import Make
from tests.api.test_routes import operations
from tests.conftest import TestAccount

# Each takes milliseconds: nothing may grow with the depth or the length, or sleep for the ten seconds of an injection.
QUICK_S = 9.0
DEEP = 100_000
BROKEN = {
    "nested lists": b"[" * DEEP + b"]" * DEEP,
    "nested objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "nested and cut": b'{"items":' + b"[" * DEEP,
    "a name twice": b'{"name": 1, "name": 2}',
    "NaN": b'{"name": NaN, "version": NaN}',
    "infinity": b'{"version": -Infinity}',
    "a great number": b'{"version": 1e400, "count": ' + b"9" * 5000 + b"}",
    "half a surrogate": b'{"name": "\\ud800", "text": "\\udfff"}',
    "NUL": b'{"name": "a\\u0000b", "text": "\\u0000"}',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "two values": b"{} {}",
    "a list": b"[1, 2]",
    "a text": b'"x"',
    "null": b"null",
    "true": b"true",
    "nothing": b"",
    "spaces": b" " * 60_000,
}
ASSIGNED = {
    "account_id": 1, "account": 1, "owner": "account", "tenant_id": 1, "state": "finished", "status": "done",
    "id_": 1, "fence": 99, "priority": 9, "urgent": True, "created_at": "2000-01-01T00:00:00Z", "actor": "admin",
    "created_by": "admin", "shared": True, "__class__": "x", "__proto__": {"admin": True}, "scopes": ["system:read"],
}  # fmt: skip


NOTHING = ("nothing", "spaces", "null")

# A list of hashes whose lines are wrong is taken, and each wrong line is named.
LISTED = {("POST /v1/banks/<uuid:bank_id>/import", "a list")}
MAKING: dict[str, dict[str, Any]] = {
    "POST /v1/policies": {"source": POLICY.format(name="more")},
    "POST /v1/policies/validate": {"source": POLICY.format(name="more")},
    "POST /v1/webhooks": {"url": "https://more.example/in"},
    "POST /v1/banks": {"name": "more-bank", "kind": "block"},
    "POST /v1/training-runs": {"name": "more", "version": "1", "dataset": "none@1", "config": {}},
    "POST /v1/jobs/<uuid:job_id>/retry": {"only": ["timeout"]},
}


@pytest.fixture
def app(make_app: Make) -> Flask:
    return make_app(webhook_keys=WEBHOOK_KEYS, events_max_s=0.1, events_poll_s=0.02, max_wait_s=0)


@pytest.fixture
def known(app: Flask, db: Database, account: TestAccount, tmp_path: Path) -> Estate:
    return estate(app, db, account, tmp_path / "blobs", "acme")


def address(op: Operation, known: Estate) -> str:
    """The route's address with what there is; of the installation's trainings there is none."""
    return test_tenants.address(op, {**known.at, "run_id": known.at["job_id"]})


def statuses(op: Operation) -> set[int]:
    """What the route says that it may answer, besides what every route may."""
    general = {400, 401, 403, 404, 405, 406, 408, 411, 413, 415, 422, 429}
    return {*op.answers, *(ERRORS[code][0] for code in op.errors)} | general


def sound(op: Operation, answer: Any, about: str) -> None:
    assert answer.status_code < 500, (name_of(op), about, answer.get_data(as_text=True))
    assert answer.status_code in statuses(op), (name_of(op), about)
    if answer.status_code >= 400:
        assert answer.content_type == "application/problem+json", (name_of(op), about)
        assert answer.json["code"] in ERRORS, (name_of(op), about)
    assert not {"X-Evil"} & set(answer.headers.keys())


def quick(client: FlaskClient, op: Operation, path: str, **given: Any) -> Any:
    began = time.monotonic()
    answer = client.open(path, method=op.method, **given)
    answer.get_data()
    assert time.monotonic() - began < QUICK_S, (name_of(op), path[:200])
    return answer


def with_json(app: Flask) -> list[Operation]:
    return [op for op in operations(app) if "application/json" in op.body]


def test_broken_json_is_refused_by_every_route(
    app: Flask, client: FlaskClient, owner_db: Database, known: Estate, account: TestAccount
) -> None:
    before = rows_of(owner_db, account, asking=True)
    assert len(with_json(app)) > 25
    for what, op in itertools.product([what for what in BROKEN if what not in NOTHING], with_json(app)):
        if (name_of(op), what) not in LISTED:
            answer = quick(client, op, address(op, known), data=BROKEN[what], content_type="application/json")
            sound(op, answer, what)
            assert answer.status_code >= 400, (name_of(op), what)
    assert rows_of(owner_db, account, asking=True) == before
    for what, op in itertools.product(NOTHING, with_json(app)):
        answer = quick(client, op, address(op, known), data=BROKEN[what], content_type="application/json")
        sound(op, answer, what)


def test_nobody_assigns_what_is_not_theirs_to_say(
    app: Flask, client: FlaskClient, owner_db: Database, known: Estate, account: TestAccount
) -> None:
    """Unknown fields beside right ones, in every body: refused, and nothing has changed."""
    before = rows_of(owner_db, account, asking=True)
    tried = set()
    for op in with_json(app):
        name = name_of(op)
        good = good_body(op, known)
        for field, value in ASSIGNED.items():
            model = op.body["application/json"]
            if isinstance(model, type) and issubclass(model, BaseModel) and field in model.model_fields:
                continue
            answer = quick(client, op, address(op, known), json={**good, field: value})
            sound(op, answer, field)
            assert 400 <= answer.status_code < 500, (name, field)
            tried.add(name)
    assert len(tried) == len(with_json(app))
    assert rows_of(owner_db, account, asking=True) == before


def good_body(op: Operation, known: Estate) -> dict[str, Any]:
    """What the route takes, or would if what it names were the asker's."""
    name = name_of(op)
    found = BODIES.get(name, {}).get("json") or MAKING.get(name)
    return dict(found or (REFERRING[name](known)[1] if name in REFERRING else None) or {})


def test_no_text_of_a_body_takes_a_nul(app: Flask, client: FlaskClient, known: Estate) -> None:
    """Postgres has no such text: what came so far would be a fault of ours."""
    tried = 0
    for op in with_json(app):
        model = op.body["application/json"]
        if not isinstance(model, type):
            continue
        for field, about in model.model_fields.items():
            if "str" in str(about.annotation):
                tried += 1
                for value in ("a\0b", ["a\0b"], {"a\0b": "a\0b"}):
                    answer = quick(client, op, address(op, known), json={**good_body(op, known), field: value})
                    sound(op, answer, field)
                    assert answer.status_code >= 400, (name_of(op), field, value)
    assert tried > 30
