"""Liveness, readiness and metrics. Liveness asks nobody: a process without a database is alive, and says so."""

import time

from flask import Response

from api import metrics
from api.answers import json_answer
from api.routing import Answer, Call, Routes
from api.schemas import HealthOut
from db import migrate, stats
from db.errors import Unavailable

routes = Routes("system", "Health, metrics, this description.")


@routes.route("GET", "/healthz", scope=None, summary="Alive?", answers={200: Answer("The process serves.", HealthOut)})
def live(_: Call) -> Response:
    """Says that the process serves requests, whatever the database does."""
    return json_answer({"status": "ok", "checks": {}})


@routes.route(
    "GET",
    "/readyz",
    scope=None,
    summary="Ready?",
    answers={200: Answer("It can serve.", HealthOut), 503: Answer("It cannot serve now.", HealthOut)},
)
def ready(call: Call) -> Response:
    """Checks that the database answers and has the schema that this version needs."""
    checks = {"database": "ok", "schema": "ok"}
    try:
        with call.house.database.transaction() as session:
            revision = migrate.current(session)
        if revision != migrate.head():
            checks["schema"] = f"is at {revision or 'nothing'}, this version needs {migrate.head()}"
    except Unavailable:
        checks = {"database": "unreachable", "schema": "unknown"}
    good = all(state == "ok" for state in checks.values())
    answer = {"status": "ok" if good else "unavailable", "checks": checks}
    return json_answer(answer, 200 if good else 503)


@routes.route(
    "GET",
    "/metrics",
    scope="system:read",
    summary="Metrics",
    open_by="metrics_open",
    answers={200: Answer("Prometheus text.", content={"text/plain": {"type": "string"}})},
)
def measure(call: Call) -> Response:
    """Requests of this API process, and sums over all accounts from the database: chunks by stage and state, age of
    the oldest ready chunk, jobs by state, failures by code, live workers. The sums are the same from every process."""
    began = time.monotonic()
    try:
        with call.house.database.transaction() as session:
            found = stats.samples(session)
    except Unavailable:
        found = None
    text = metrics.exposition(call.house.registry, found, time.monotonic() - began)
    return Response(text, content_type=metrics.CONTENT_TYPE)
