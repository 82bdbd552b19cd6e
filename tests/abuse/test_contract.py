"""Requests made from the OpenAPI document itself, right ones and wrong ones, against every route: no 5xx, and every
answer is one that the document describes. A bounded share always; many more with `-m nemesis`."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from db.session import Database
from tests.abuse.estate import WEBHOOK_KEYS, Estate, estate
from tests.api.conftest import Make
from tests.api.test_routes import operations
from tests.conftest import TestAccount

SEED = int(os.environ.get("TAGMILL_CONTRACT_SEED", "2026"))
CHECKS: list[Any] = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance,
]  # fmt: skip


@pytest.fixture
def app(make_app: Make) -> Flask:
    return make_app(webhook_keys=WEBHOOK_KEYS, events_max_s=0.05, events_poll_s=0.02, max_wait_s=0, body_idle_s=0.2)


@pytest.fixture
def known(app: Flask, db: Database, account: TestAccount, tmp_path: Path) -> Estate:
    return estate(app, db, account, tmp_path / "blobs", "acme")


def explore(
    app: Flask, account: TestAccount, known: Estate, each: int, only: str | None = None
) -> tuple[list[str], int]:
    """`each` requests of every route, right and wrong, at things there are and at things there are not; what was wrong
    with the answers, and how many there were."""
    found: list[str] = []
    asked = 0
    schema: Any = schemathesis.openapi.from_wsgi("/openapi.json", app)
    routes = [result.ok() for result in schema.get_all_operations()]
    # What removes comes last, so that the others find their things.
    order = ("get", "put", "patch", "post", "delete")
    routes.sort(key=lambda route: (order.index(route.method.lower()), route.path.endswith(("cancel", "retire"))))
    described = {(route.method.upper(), route.path) for route in routes}
    real = {(op.method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", op.path)) for op in operations(app)}
    assert described == real - {("GET", "/openapi.json")}  # the document does not ask for itself

    def tell(route: Any, mode: GenerationMode) -> None:
        @seed(SEED)
        @settings(
            max_examples=each, deadline=None, database=None, phases=[Phase.generate], verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=route.as_strategy(generation_mode=mode))
        def once(case: Any) -> None:
            nonlocal asked
            asked += 1
            if asked % 3 and case.path_parameters:
                case.path_parameters = {name: known.at.get(name, value) for name, value in case.path_parameters.items()}
            answer = case.call(headers={"Authorization": f"Bearer {account.secret}"})
            # A stream's schema is of its whole text; the checker takes it for that of each event.
            stream = "event-stream" in str(answer.headers.get("content-type"))
            checks = [each for each in CHECKS if not (stream and each is response_schema_conformance)]
            try:
                case.validate_response(answer, checks=checks)
            except schemathesis.checks.FailureGroup as group:
                why = "; ".join(f"{type(one).__name__}: {one.title} {one.message}"[:300] for one in group.exceptions)
                found.append(f"{route.method} {route.path} {answer.status_code}: {why}\n{case.as_curl_command()[:600]}")

        try:
            once()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, f"{route.method} {route.path}: the document allows no request"

    for route in (route for route in routes if only in (None, route.path)):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            tell(route, mode)
    return found, asked


def check(app: Flask, account: TestAccount, known: Estate, each: int) -> None:
    found, asked = explore(app, account, known, each)
    print(f"seed {SEED}: {asked} requests")
    assert not found, f"{len(found)} of {asked} answers, seed {SEED}:\n" + "\n".join(found[:20])
    assert asked >= each * (len(operations(app)) - 1)


def test_every_answer_is_documented(app: Flask, account: TestAccount, known: Estate) -> None:
    check(app, account, known, 2)


@pytest.mark.nemesis
@pytest.mark.timeout(1800)
def test_every_answer_is_documented_at_length(app: Flask, account: TestAccount, known: Estate) -> None:
    check(app, account, known, 30)


def test_an_undocumented_answer_is_found(
    app: Flask, account: TestAccount, known: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check bites: a status, and then a shape, that no line of the document mentions."""
    name = next(name for name, each in app.view_functions.items() if getattr(each, "operation", None)
                and (each.operation.method, each.operation.path) == ("GET", "/v1/banks"))  # fmt: skip
    view = app.view_functions[name]

    def odd(**path: Any) -> Any:
        return {"banks": "none"}, 200

    odd.operation = view.operation  # type: ignore[attr-defined]
    monkeypatch.setitem(app.view_functions, name, odd)
    found, _ = explore(app, account, known, 1, only="/v1/banks")
    assert any("/v1/banks 200" in each for each in found), found
