"""Injection in every filter, path and header of the API, and in every field of the console: an answer that is meant,
quickly, and no row more than without it. The cases come from the route table."""

import itertools
import json
import re
from urllib.parse import quote

from flask import Flask
from flask.testing import FlaskClient

from api.routing import Operation
from db.session import Database
from tests.abuse import test_console_tenants
from tests.abuse.cases import BODIES
from tests.abuse.estate import Estate, rows_of
from tests.abuse.test_console_tenants import FORMS
from tests.abuse.test_inputs import address, app, known, quick, sound
from tests.abuse.test_tenants import name_of
from tests.api.browsers import signed_in, somebody
from tests.api.conftest import client_of
from tests.api.test_routes import operations
from tests.conftest import TestAccount

__all__ = ["app", "known"]
INJECTIONS = [
    "' OR '1'='1",
    "x'; DROP TABLE jobs; --",
    "' UNION SELECT secret_hash FROM api_keys --",
    "1); SELECT pg_sleep(10); --",
    "%",
    "_%",
    "\\",
    "\\' OR 1=1 --",
    '$.** ? (@ like_regex ".*")',
    "$[*] ? (@.id > 0)",
    "(?:a+)+$",
    '"] | ["a',
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1/x}",
    "../../../../etc/passwd",
    "\r\nX-Evil: 1",
    "‮⁦💥",
    "a" * 5000,
]
# As bytes of the query, because no text holds them.
RAW = ["%00", "%ff", "%ed%a0%80", "%", "%zz", "%2527%2520OR%25201"]
PAGES: dict[str, dict[str, str]] = {
    "/console/banks": {"name": "x", "kind": "block", "description": "x"},
    "/console/catalog/correct": {"item": "x", "product": "x", "group": "x", "labels": "x", "comment": "x"},
    "/console/jobs/urls": {"urls": "http://a.test/", "name": "x", "context": "x", "policy": "x"},
    "/console/people": {"name": "x", "email": "x", "role": "viewer"},
    "/console/policies/+new": {"source": "x"},
    "/console/policies/+assign": {"policy": "x", "context": "x"},
    "/console/replays": {"policy": "x", "source": "x", "context": "x", "days": "7"},
    "/console/review/claim": {"policy": "x", "reason": "x", "category": "x", "context": "x"},
    "/console/review/quality/gold": {"item": "x", "item_id": "x", "verdict": "approve"},
    "/console/sign-in": {"name": "x", "password": "x", "next": "x"},
    "/console/link": {"token": "x"},
    "/console/own/password": {"now": "x", "new": "correct horse battery", "again": "correct horse battery"},
    "/console/webhooks": {"url": "https://a.example/", "description": "x"},
    "/console/models/move": {"ref": "x", "reason": "x", "move": "x"},
}


def texts(op: Operation) -> list[str]:
    """The parameters of the query that are not of a closed set."""
    return [] if op.query is None else [name for name, each in op.query.model_fields.items()]


def test_injection_in_every_parameter_of_every_query(
    app: Flask, client: FlaskClient, owner_db: Database, known: Estate, account: TestAccount, other: TestAccount
) -> None:
    """No 5xx, no waiting, no row more than without it, and nothing of another account."""
    stranger = client_of(app, other)
    before, tried = rows_of(owner_db, account, asking=True), 0
    for op in operations(app):
        if op.method != "GET":
            continue
        for name, value in itertools.product(texts(op), [*map(quote, INJECTIONS), *RAW]):
            tried += 1
            for who in (client, stranger):
                answer = quick(who, op, f"{address(op, known)}?{name}={value}")
                sound(op, answer, f"{name}={value[:60]}")
                if who is stranger:
                    shown = answer.get_data(as_text=True)
                    assert not [each for each in known.ids() if each in shown], (name_of(op), name, value[:60])
    assert tried > 1000
    assert rows_of(owner_db, account, asking=True) == before


def test_a_filter_by_an_injection_finds_nothing(client: FlaskClient, known: Estate) -> None:
    """A value that no row has, whatever it would mean as SQL, LIKE or JSONPath."""
    filters = {
        "/v1/moderations": ("user", "product", "context"),
        f"/v1/jobs/{known.at['job_id']}/items": ("code",),
        "/v1/reviews": ("policy", "reason", "category", "context"),
        "/v1/audit": ("action", "subject"),
        f"/v1/webhooks/{known.at['webhook_id']}/deliveries": ("type",),
    }
    for path, names in filters.items():
        full = client.get(path).json
        rows = next(name for name, value in full.items() if isinstance(value, list) and value and "id" in value[0])
        assert full[rows], path
        for name, value in itertools.product(names, INJECTIONS):
            answer = client.get(path, query_string={name: value})
            assert answer.status_code in (200, 400), (path, name, value)
            assert answer.status_code == 400 or answer.json[rows] == [], (path, name, value)


def test_unknown_parameters_are_refused(app: Flask, client: FlaskClient, known: Estate) -> None:
    names = ("sort", "order", "order_by", "fields", "include", "page", "offset", "account_id")
    for op, name in itertools.product(operations(app), names):
        if op.method == "GET" and op.query is not None and name not in op.query.model_fields:
            answer = client.get(f"{address(op, known)}?{name}=secret_hash")
            assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter"), name_of(op)


def test_injection_in_every_part_of_every_path(app: Flask, client: FlaskClient, known: Estate) -> None:
    for op in operations(app):
        for parameter in re.findall(r"<((?:\w+:)?\w+)>", op.path):
            kind, _, name = parameter.rpartition(":")
            for value in [*(quote(each, safe="") for each in INJECTIONS), *RAW]:
                path = op.path.replace(f"<{parameter}>", "\0")
                path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: known.at.get(found[1], "x"), path).replace("\0", value)
                answer = quick(client, op, path, **BODIES.get(name_of(op), {}))
                sound(op, answer, f"{name}={value[:60]}")
                assert answer.status_code in (400, 404, 405, 422), (name_of(op), kind, value[:60])


def test_no_page_of_the_console_breaks_by_a_parameter_or_a_field(
    app: Flask, owner_db: Database, known: Estate, account: TestAccount
) -> None:
    own = signed_in(app, owner_db, somebody(owner_db, account, "anna", "admin", operator=True))
    token, tried = own.csrf, 0
    things = {**known.at, "run_id": known.at["job_id"], "person_id": known.at["job_id"], "session_id": "x", "name": "x"}
    found = [getattr(app.view_functions[rule.endpoint], "page", None) for rule in app.url_map.iter_rules()]
    for page in [page for page in found if page is not None and "<token>" not in page.path and not page.upload]:
        path = test_console_tenants.address(page, things)
        names = list(page.query.model_fields) if page.query is not None else []
        for name, value in itertools.product(names, ["%00", "%ff", "%27%20OR%201=1--", "%25", "a" * 5000]):
            tried += 1
            assert own.client.get(f"{path}?{name}={value}", headers=own.headers).status_code < 500, (page.path, name)
        if page.method == "POST" and page.path not in ("/console/sign-out", "/console/own/sessions/end-others"):
            form = FORMS.get(page.path, {}) | PAGES.get(page.path, {})
            for name in form:
                tried += 1
                sent = {"csrf": token, **form, name: "a\0b"}
                answer = own.client.post(path, data=sent, headers=own.headers)
                assert answer.status_code < 500, (page.path, name)
    assert tried > 150


def test_headers_of_strangers_are_harmless(client: FlaskClient) -> None:
    long = "x" * 8000
    for name, value in (
        ("X-Request-Id", "' OR 1=1"), ("X-Request-Id", long), ("Accept", long), ("Accept", "*/*;q=nan"),
        ("Prefer", "wait=1e400"), ("Prefer", "wait=-1"), ("Prefer", "wait=" + "9" * 400), ("If-None-Match", '"' * 500),
        ("If-Modified-Since", "yesterday"), ("Range", "bytes=0-" + "9" * 400), ("Content-Length", "0"),
        ("Idempotency-Key", "'; --"), ("Cookie", "tagmill-session-80=' OR 1=1"), ("Content-Encoding", "gzip"),
        ("X-HTTP-Method-Override", "DELETE"), ("X-Forwarded-For", "127.0.0.1, " * 500), ("Host", "evil.example"),
    ):  # fmt: skip
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/moderations")):
            body = {"json": {"url": "http://a.test/"}} if method == "POST" else {}
            answer = client.open(path, method=method, headers={name: value}, **body)
            assert answer.status_code < 500, (name, value[:40])
            assert "evil.example" not in json.dumps(dict(answer.headers))
