"""Event streams, liveness, readiness, metrics."""

import json
import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from db.session import Database
from tests.api.conftest import Make, client_of, key_with
from tests.api.rows import settle
from tests.conftest import TestAccount


def events(answer: Any) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in answer.get_data(as_text=True).split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def submit(client: FlaskClient, n: int = 2) -> str:
    items = [{"url": f"http://shop.example/{i}"} for i in range(n)]
    found = client.post("/v1/jobs", json={"items": items}).json["id"]
    assert isinstance(found, str)
    return found


def test_a_finished_job_says_so_and_ends(client: FlaskClient, owner_db: Database) -> None:
    job = submit(client)
    settle(owner_db, job, {0: None, 1: "timeout"})
    answer = client.get(f"/v1/jobs/{job}/events")
    assert answer.content_type.startswith("text/event-stream")
    (first, progress), (last, finished) = events(answer)
    assert (first, last) == ("progress", "finished")
    assert progress == finished == client.get(f"/v1/jobs/{job}").json


def test_progress_then_finished(make_app: Make, account: TestAccount, owner_db: Database) -> None:
    client = client_of(make_app(events_poll_s=0.01, events_heartbeat_s=0.02), account)
    job = submit(client)
    answer = client.get(f"/v1/jobs/{job}/events", buffered=False)
    pieces = iter(answer.response)
    said = b""
    while b"still here" not in said:
        said += next(pieces)
    assert said.count(b"event: progress") == 1, "what has not changed is not said again"
    settle(owner_db, job, {0: None, 1: None})
    rest = b"".join(pieces)
    assert rest.count(b"event: progress") == 1
    assert b"event: finished" in rest
    answer.close()


def test_streams_end_by_themselves(make_app: Make, account: TestAccount) -> None:
    client = client_of(make_app(events_poll_s=0.01, events_max_s=0.05), account)
    found = events(client.get(f"/v1/jobs/{submit(client)}/events"))
    assert [name for name, _ in found] == ["progress"]


def test_streams_are_counted_and_given_back(make_app: Make, account: TestAccount) -> None:
    client = client_of(make_app(max_streams=2, events_poll_s=0.01), account)
    job = submit(client)
    held = [client.get(f"/v1/jobs/{job}/events", buffered=False) for _ in range(2)]
    answer = client.get(f"/v1/jobs/{job}/events")
    assert (answer.status_code, answer.json["code"], "Retry-After" in answer.headers) == (503, "too_many_streams", True)
    for stream in held:
        stream.close()
    for _ in range(5):
        assert client.head(f"/v1/jobs/{job}/events").status_code == 200
    assert client.get(f"/v1/jobs/{job}/events", buffered=False).status_code == 200


def test_liveness_asks_nobody_and_readiness_does(make_app: Make, app: Flask, owner_db: Database) -> None:
    away = make_app(database_url="postgresql://nobody:nothing@127.0.0.1:1/none").test_client()
    assert away.get("/healthz").status_code == 200
    answer = away.get("/readyz")
    assert (answer.status_code, answer.json["checks"]["database"]) == (503, "unreachable")
    assert app.test_client().get("/readyz").json == {"checks": {"database": "ok", "schema": "ok"}, "status": "ok"}
    with owner_db.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'older'"))
    answer = app.test_client().get("/readyz")
    assert answer.status_code == 503
    assert "older" in answer.json["checks"]["schema"]


def test_metrics_are_sums_over_all_accounts(
    make_app: Make, account: TestAccount, other: TestAccount, owner_db: Database
) -> None:
    app = make_app()
    done = submit(client_of(app, account))
    submit(client_of(app, other), 1)
    settle(owner_db, done, {0: None, 1: "timeout"})
    with owner_db.transaction() as session:
        session.execute(text("UPDATE chunks SET codes = '{\"timeout\": 1}' WHERE state = 'done'"))
    client_of(app, account).get(f"/v1/jobs/{done}")
    answer = app.test_client().get("/metrics", headers=key_with(owner_db, account, "system:read"))
    assert answer.content_type.startswith("text/plain")
    lines = answer.get_data(as_text=True).splitlines()
    for line in (
        "tagmill_database_up 1.0",
        'tagmill_chunks{stage="ingest",state="ready"} 1.0',
        'tagmill_jobs{state="finished"} 1.0',
        'tagmill_jobs{state="accepted"} 1.0',
        'tagmill_item_failures_last_hour{code="timeout"} 1.0',
        'tagmill_http_requests_total{method="POST",route="/v1/jobs",status="202"} 2.0',
        'tagmill_http_requests_total{method="GET",route="/v1/jobs/<uuid:job_id>",status="200"} 1.0',
    ):
        assert line in lines, line
    assert any(line.startswith('tagmill_oldest_ready_chunk_seconds{stage="ingest"}') for line in lines)


def test_metrics_can_be_opened_and_survive_an_outage(make_app: Make) -> None:
    app = make_app(metrics_open=True, database_url="postgresql://nobody:nothing@127.0.0.1:1/none")
    answer = app.test_client().get("/metrics")
    assert answer.status_code == 200
    assert "tagmill_database_up 0.0" in answer.get_data(as_text=True)


@pytest.mark.parametrize("n", [8])
def test_many_streams_at_once_do_not_mix(make_app: Make, account: TestAccount, owner_db: Database, n: int) -> None:
    app = make_app(events_poll_s=0.01, database_pool=3, max_streams_per_account=n)
    jobs = [submit(client_of(app, account), 1) for _ in range(n)]
    seen: dict[str, set[str]] = {}

    def follow(job: str) -> None:
        found = events(client_of(app, account).get(f"/v1/jobs/{job}/events"))
        seen[job] = {entry["id"] for _, entry in found} | {found[-1][0]}

    threads = [threading.Thread(target=follow, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for job in jobs:
        settle(owner_db, job, {0: None})
    for thread in threads:
        thread.join()
    assert seen == {job: {job, "finished"} for job in jobs}
