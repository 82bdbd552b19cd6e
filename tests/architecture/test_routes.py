"""The routes: each declares a scope or is on the short list of public ones, and says so in the documentation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.routing import Rule

from api.app import create_app
from api.routing import Operation
from api.settings import ApiSettings
from db import accounts
from db.accounts import SCOPES
from db.session import API_ROLE, Database
from tests.architecture.pages import generator, table
from tests.conftest import TestAccount

PUBLIC = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs.css"}
_ID = "01890000-0000-7000-8000-000000000000"
SAMPLE = {
    "uuid:bank_id": _ID,
    "uuid:entry_id": _ID,
    "uuid:change_id": _ID,
    "uuid:replay_id": _ID,
    "uuid:erasure_id": _ID,
    "uuid:webhook_id": _ID,
    "uuid:event_id": _ID,
    "uuid:job_id": _ID,
    "uuid:review_id": _ID,
    "uuid:gold_id": _ID,
    "uuid:run_id": _ID,
    "uuid:moderation_id": _ID,
    "uuid:appeal_id": _ID,
    "item_id": "x-1",
    "policy_name": "x",
    "int:policy_version": "1",
    "path:product_id": "x",
}


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    settings = ApiSettings(
        database_url=database_url, database_role=API_ROLE, blob_root=tmp_path / "blobs", model_root=tmp_path
    )
    application = create_app(settings)
    yield application
    application.extensions["tagmill"].database.dispose()


def _rules(app: Flask) -> list[tuple[Rule, Operation | None]]:
    """Those of the API; the console's pages are for test_console.py."""
    views = app.view_functions
    return [
        (rule, getattr(views[rule.endpoint], "operation", None))
        for rule in app.url_map.iter_rules()
        if not hasattr(views[rule.endpoint], "page")
    ]


def _address(rule: Rule) -> str:
    address = rule.rule
    for name, value in SAMPLE.items():
        address = address.replace(f"<{name}>", value)
    assert "<" not in address, f"add a sample for {rule.rule}"
    return address


def test_every_route_is_declared(app: Flask) -> None:
    undeclared = [rule.rule for rule, operation in _rules(app) if operation is None]
    assert not undeclared


def test_every_route_needs_a_scope_or_is_explicitly_public(app: Flask) -> None:
    scopes = {(rule.rule, operation.scope) for rule, operation in _rules(app) if operation is not None}
    assert {path for path, scope in scopes if scope is None} == PUBLIC
    assert {scope for _, scope in scopes} - {None} == set(SCOPES), "a scope that opens nothing, or an unknown one"


def test_what_writes_needs_the_scope_to_write(app: Flask) -> None:
    for rule, operation in _rules(app):
        assert operation is not None
        writes = operation.method not in ("GET", "HEAD")
        assert writes == (operation.scope is not None and operation.scope.endswith(":write")), rule.rule


def test_without_a_key_every_scoped_route_refuses(app: Flask) -> None:
    client = app.test_client()
    for rule, operation in _rules(app):
        assert operation is not None
        answer = client.open(_address(rule), method=operation.method)
        if operation.scope is None:
            assert answer.status_code == 200, rule.rule
        else:
            assert (answer.status_code, answer.get_json()["code"]) == (401, "missing_key"), rule.rule


def test_a_key_without_the_scope_is_refused(app: Flask, owner_db: Database, account: TestAccount) -> None:
    client = app.test_client()
    for rule, operation in _rules(app):
        assert operation is not None
        if operation.scope is None:
            continue
        others = tuple(scope for scope in SCOPES if scope != operation.scope)
        with owner_db.transaction() as session:
            _, secret = accounts.create_key(session, account.id, "others", others)
        headers = {"Authorization": f"Bearer {secret}"}
        answer = client.open(_address(rule), method=operation.method, headers=headers)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "missing_scope"), rule.rule


def test_the_documentation_lists_the_url_map(app: Flask) -> None:
    path = generator().path
    rows = {(row[0], row[1].strip("`"), row[2].split(",")[0].strip("`")) for row in table("docs/api.md", "routes")}
    assert rows == {
        (operation.method, path(rule.rule), operation.scope or "public")
        for rule, operation in _rules(app)
        if operation is not None
    }
