"""Every route: authenticated, scoped, described, and an error of it is a problem document."""

import re
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from api.errors import ERRORS
from api.routing import Operation
from db.accounts import SCOPES
from db.session import Database
from tests.api.conftest import Make, client_of, key_with
from tests.conftest import TestAccount

PUBLIC = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs.css"}


def operations(app: Flask) -> list[Operation]:
    """Those of the API; the console's pages have tests of their own."""
    views = [app.view_functions[rule.endpoint] for rule in app.url_map.iter_rules()]
    return [view.operation for view in views if hasattr(view, "operation")]


def url_of(path: str) -> str:
    """The path with parameters that name nothing."""
    path = path.replace("<item_id>", f"{uuid4().hex}-0")
    for kind, nothing in ((r"uuid:\w+", str(uuid4())), (r"int:\w+", "1"), (r"(path:)?\w+", "nothing")):
        path = re.sub(f"<{kind}>", nothing, path)
    return path


def test_every_rule_declares_its_operation_and_only_known_ones_are_public(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        assert hasattr(view, "operation") or hasattr(view, "page"), rule
    assert {op.path for op in operations(app) if op.scope is None} == PUBLIC
    assert all(op.scope in SCOPES for op in operations(app) if op.scope is not None)


def test_without_a_key_every_scoped_route_is_401(app: Flask) -> None:
    for op in operations(app):
        if op.scope is not None:
            answer = app.test_client().open(url_of(op.path), method=op.method)
            assert (answer.status_code, answer.json["code"]) == (401, "missing_key"), op.path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_scope_matrix(app: Flask, owner_db: Database, account: TestAccount) -> None:
    keys = {scope: key_with(owner_db, account, scope) for scope in SCOPES}
    for op in operations(app):
        for scope, headers in keys.items():
            answer = app.test_client().open(url_of(op.path), method=op.method, headers=headers)
            if op.scope in (None, scope):
                assert answer.status_code not in (401, 403), (op.path, scope)
            else:
                assert (answer.status_code, answer.json["code"]) == (403, "missing_scope"), (op.path, scope)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer nonsense",
        "Bearer " + "x" * 5000,
        "Bearer tgm_live_abcdefgh_" + "a" * 49,
        "Bearer ключ".encode().decode("latin-1"),
    ],
)
def test_keys_that_are_none(app: Flask, account: TestAccount, header: str) -> None:
    answer = app.test_client().get("/v1/jobs", headers={"Authorization": header})
    assert (answer.status_code, answer.json["code"]) == (401, "invalid_key")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz"])
def test_no_bearer_key(app: Flask, header: str) -> None:
    answer = app.test_client().get("/v1/jobs", headers={"Authorization": header})
    assert (answer.status_code, answer.json["code"]) == (401, "missing_key")


def test_truncated_revoked_and_expired_keys(app: Flask, owner_db: Database, account: TestAccount) -> None:
    from datetime import UTC, datetime, timedelta

    from db import accounts

    client = app.test_client()
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {account.secret[:-1]}"}).status_code == 401
    with owner_db.transaction() as session:
        _, expired = accounts.create_key(
            session, account.id, "old", SCOPES, expires_at=datetime.now(UTC) - timedelta(seconds=1)
        )
        key, revoked = accounts.create_key(session, account.id, "lost", SCOPES)
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {expired}"}).json["code"] == "invalid_key"
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {revoked}"}).status_code == 200
    with owner_db.transaction() as session:
        accounts.revoke_key(session, account.id, key.key_id)
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {revoked}"}).json["code"] == "invalid_key"


def test_a_key_in_the_url_is_no_key(app: Flask, account: TestAccount) -> None:
    for name in ("key", "api_key", "access_token", "token"):
        assert app.test_client().get(f"/v1/jobs?{name}={account.secret}").status_code == 401


def test_the_key_is_never_logged(app: Flask, account: TestAccount, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    app.test_client().get("/v1/jobs", headers={"Authorization": f"Bearer {account.secret[:-1]}x"})
    client_of(app, account).get("/v1/jobs")
    assert account.secret[20:50] not in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "//v1/jobs", 404, "not_found"),
        ("GET", "/v1/jobs/not-a-uuid", 404, "not_found"),
        ("GET", "/v1/jobs/../../etc/passwd", 404, "not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/jobs", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("TRACE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/items/abc", 404, "not_found"),
        ("GET", f"/v1/items/{'0' * 32}-99999999999", 404, "not_found"),
        ("GET", f"/v1/items/{'0' * 32}-1%00", 404, "not_found"),
        ("GET", "/v1/products/%00", 404, "not_found"),
        ("GET", f"/v1/products/{'p' * 300}", 404, "not_found"),
        ("GET", "/v1/products/'%20OR%201=1--", 404, "not_found"),
        ("GET", "/v1/jobs?limit=0", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?limit=x", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?state=wrong", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?limit=1&limit=2", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?sort=secret_hash", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?cursor=abc", 400, "invalid_cursor"),
        ("GET", "/v1/jobs?cursor=%01%ff", 400, "invalid_cursor"),
        ("GET", "/v1/jobs?cursor=%00%ff", 400, "invalid_parameter"),
    ],
)
def test_wrong_requests_get_problem_documents(
    client: FlaskClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    body = answer.json
    assert (body["code"], body["status"], body["title"]) == (code, *ERRORS[code])
    assert body["request_id"] == answer.headers["X-Request-Id"]
    if status == 405:
        assert "Allow" in answer.headers


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("DELETE", "/v1/jobs")])
def test_unknown_routes_are_told_in_our_words(client: FlaskClient, method: str, path: str) -> None:
    """Not in werkzeug's, which tell a person in front of a browser to check the spelling."""
    detail = client.open(path, method=method).json["detail"]
    assert "manually" not in detail
    assert detail.startswith(("There is nothing at this path", "This path does not take"))


def test_security_headers_are_everywhere(client: FlaskClient) -> None:
    for path in ("/v1/jobs", "/healthz", "/docs", "/nothing", "/v1/jobs?limit=0"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"


def test_the_openapi_document_is_valid_and_holds_exactly_the_routes(client: FlaskClient, app: Flask) -> None:
    document = client.get("/openapi.json").json
    validate(document)
    assert document["openapi"].startswith("3.1")
    described = {
        (method.upper(), path): entry
        for path, methods in document["paths"].items()
        for method, entry in methods.items()
    }
    real = {(op.method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", op.path)): op for op in operations(app)}
    assert described.keys() == real.keys()
    for key, op in real.items():
        assert described[key]["security"] == ([] if op.scope is None else [{"key": [op.scope]}])


def test_the_docs_page_names_every_route_and_code_and_loads_nothing_foreign(client: FlaskClient) -> None:
    answer = client.get("/docs")
    html = answer.get_data(as_text=True)
    assert answer.status_code == 200
    for path in client.get("/openapi.json").json["paths"]:
        assert path in html
    for code in ERRORS:
        assert f'id="error-{code}"' in html
    assert re.findall(r'(?:src|href)="(https?://[^"]+)"', html) == ["https://www.rfc-editor.org/rfc/rfc9457"]
    assert "<script" not in html
    assert "style=" not in html
    assert client.get("/docs.css").content_type.startswith("text/css")
    targets = set(re.findall(r'href="#([^"]+)"', html))
    assert targets <= set(re.findall(r'id="([^"]+)"', html)), "a link on the page leads nowhere"


def test_a_bug_of_ours_is_a_500_without_its_text(
    make_app: Make, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("db.jobs.page", broken)
    answer = client_of(app, account).get("/v1/jobs")
    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert "secret detail" not in answer.get_data(as_text=True)


def test_an_unreachable_database_is_a_503(make_app: Make, account: TestAccount) -> None:
    app = make_app(database_url="postgresql://nobody:nothing@127.0.0.1:1/none")
    answer = client_of(app, account).get("/v1/jobs")
    assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, "unavailable", "5")
    assert "127.0.0.1" not in answer.get_data(as_text=True)
