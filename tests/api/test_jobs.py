"""Reading, cancelling and retrying jobs; the wall between accounts, by query and by row-level security."""

from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from api import schemas
from api.product_schemas import ProductOut
from db.blobs import work_key
from db.session import Database
from tests.api.conftest import client_of
from tests.api.rows import count, settle
from tests.api.test_routes import operations, url_of
from tests.conftest import TestAccount

U = "http://shop.example/"


def submit(client: FlaskClient, n: int = 3, **options: Any) -> str:
    items = [{"url": f"{U}{i}.jpg", "id": f"c{i}", "product_id": "dress/1"} for i in range(n)]
    answer = client.post("/v1/jobs", json={"items": items, **options})
    assert answer.status_code == 202
    found = answer.json["id"]
    assert isinstance(found, str)
    return found


def test_pages_of_jobs_are_complete_and_in_order(client: FlaskClient) -> None:
    made = [submit(client, 1) for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = client.get(f"/v1/jobs?limit=2{cursor}").json
        seen += [job["id"] for job in page["jobs"]]
        cursor = f"&cursor={page['next']}"
    assert seen == made[::-1]
    assert page["next"] is None
    assert client.get("/v1/jobs?state=finished").json["jobs"] == []
    assert len(client.get("/v1/jobs?state=accepted").json["jobs"]) == 5


def test_items_by_page_outcome_and_code(client: FlaskClient, owner_db: Database) -> None:
    job = submit(client, 6)
    settle(owner_db, job, {0: None, 1: "http_404", 2: "timeout", 3: "http_404", 4: "cancelled"})

    def ids(query: str) -> list[str]:
        answer = client.get(f"/v1/jobs/{job}/items?{query}")
        assert answer.status_code == 200, answer.json
        return [row["id"] for row in answer.json["items"]]

    assert ids("") == [f"c{n}" for n in range(6)]
    assert ids("outcome=failed") == ["c1", "c2", "c3"]
    assert ids("outcome=done") == ["c0"]
    assert ids("outcome=cancelled") == ["c4"]
    assert ids("outcome=open") == []  # nothing is looked for in a job that has ended
    with owner_db.transaction() as session:
        session.execute(text("UPDATE jobs SET state = 'running', settled_at = NULL"))
    assert ids("outcome=open") == ["c5"]
    assert ids("code=http_404") == ["c1", "c3"]
    assert ids("outcome=done&code=http_404") == []
    first = client.get(f"/v1/jobs/{job}/items?outcome=failed&limit=2").json
    assert [row["id"] for row in first["items"]] == ["c1", "c2"]
    rest = client.get(f"/v1/jobs/{job}/items?outcome=failed&limit=2&cursor={first['next']}").json
    assert ([row["id"] for row in rest["items"]], rest["next"]) == (["c3"], None)
    for query in ("outcome=x", "code=x", "limit=1001", "code=' OR 1=1", "limit=-1"):
        assert client.get(f"/v1/jobs/{job}/items?{query}").json["code"] == "invalid_parameter"
    foreign = submit(client, 1)
    answer = client.get(f"/v1/jobs/{foreign}/items?cursor={first['next']}")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_cursor")


def test_one_item_its_thumbnail_and_its_product(
    app: Flask, client: FlaskClient, owner_db: Database, account: TestAccount
) -> None:
    sha = bytes(range(32))
    app.extensions["tagmill"].blobs.put(work_key(account.id, sha), b"\xff\xd8working copy")
    job = submit(client, 3)
    settle(owner_db, job, {0: None, 1: "http_404"})
    item = client.get(f"/v1/items/{UUID(job).hex}-0").json
    schemas.ItemOut.model_validate(item)
    assert (item["id"], item["seq"], item["outcome"]) == ("c0", 0, "done")
    assert item["tags"][0]["model"] == "tagger@1"
    assert item["facts"]["sha256"] == sha.hex()
    picture = client.get(item["links"]["thumbnail"])
    assert (picture.status_code, picture.get_data()) == (200, b"\xff\xd8working copy")
    assert picture.content_type == "image/jpeg"
    assert "sandbox" in picture.headers["Content-Security-Policy"]
    assert picture.headers["X-Content-Type-Options"] == "nosniff"
    assert picture.headers["Cache-Control"].startswith("private")
    failed = client.get(f"/v1/items/{UUID(job).hex}-1").json
    assert (failed["code"], failed["tags"], failed["moderation"]) == ("http_404", [], None)
    assert "thumbnail" not in failed["links"]
    for item_id, what in ((f"{UUID(job).hex}-1", "/thumbnail"), (f"{UUID(job).hex}-3", ""), (f"{job}-0", "")):
        assert client.get(f"/v1/items/{item_id}{what}").status_code == 404
    product = client.get("/v1/products/dress%2F1").json
    ProductOut.model_validate(product)
    assert product["tags"][0]["sources"][0]["item_id"] == f"{UUID(job).hex}-0"
    app.extensions["tagmill"].blobs.delete(work_key(account.id, sha))
    assert client.get(item["links"]["thumbnail"]).status_code == 404


def test_cancel(client: FlaskClient, owner_db: Database) -> None:
    job = submit(client)
    first = client.post(f"/v1/jobs/{job}/cancel")
    assert (first.status_code, first.json["state"]) == (200, "cancelled")
    assert client.post(f"/v1/jobs/{job}/cancel").json["cancelled_at"] == first.json["cancelled_at"]
    other = submit(client)
    settle(owner_db, other, dict.fromkeys(range(3)))
    answer = client.post(f"/v1/jobs/{other}/cancel")
    assert (answer.status_code, answer.json["code"]) == (409, "conflict")


@pytest.mark.parametrize("way", ["query", "body"])
def test_retry_only_these_codes(client: FlaskClient, owner_db: Database, way: str) -> None:
    job = submit(client, 5)
    answer = client.post(f"/v1/jobs/{job}/retry")
    assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    settle(owner_db, job, {0: None, 1: "http_404", 2: "timeout", 3: "timeout", 4: "dns_failed"})
    if way == "query":
        answer = client.post(f"/v1/jobs/{job}/retry?only=timeout,dns_failed")
    else:
        answer = client.post(f"/v1/jobs/{job}/retry", json={"only": ["timeout", "dns_failed"]})
    assert (answer.status_code, answer.json["requeued"]) == (202, 3)
    assert answer.json["job"]["state"] == "running"
    assert count(owner_db, "results") == 2
    assert client.get(f"/v1/jobs/{job}").json["progress"]["ingest"]["open"] == 3


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("?only=nonsense", None, 400, "invalid_parameter"),
        ("?only=", None, 400, "invalid_parameter"),
        ("?codes=timeout", None, 400, "invalid_parameter"),
        ("?only=timeout", b"{}", 400, "invalid_parameter"),
        ("", b'{"only": ["nonsense"]}', 422, "invalid_body"),
        ("", b'{"only": "timeout"}', 422, "invalid_body"),
        ("", b'{"only": []}', 422, "invalid_body"),
        ("", b'{"state": "done"}', 422, "invalid_body"),
        ("", b"[]", 422, "invalid_body"),
        ("", b"{", 400, "invalid_json"),
        ("", b'{"only": ["\xff"]}', 400, "invalid_json"),
        ("", b"[" * 60_000, 400, "invalid_json"),
        ("", b" " * 70_000, 413, "body_too_large"),
    ],
)
def test_bad_retries(
    client: FlaskClient, owner_db: Database, query: str, body: bytes | None, status: int, code: str
) -> None:
    job = submit(client)
    settle(owner_db, job, {0: "timeout", 1: None, 2: None})
    answer = client.post(f"/v1/jobs/{job}/retry{query}", data=body, content_type="application/json")
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.json
    assert client.get(f"/v1/jobs/{job}").json["state"] == "finished"


def test_another_accounts_objects_are_not_found_on_any_route(
    app: Flask, client: FlaskClient, owner_db: Database, other: TestAccount
) -> None:
    job = submit(client)
    settle(owner_db, job, {0: None, 1: "timeout"})
    stranger = client_of(app, other)
    tried = 0
    for op in operations(app):
        url = op.path.replace("<uuid:job_id>", job).replace("<item_id>", f"{UUID(job).hex}-0")
        url = url.replace("<path:product_id>", "dress%2F1")
        if url == op.path:
            continue
        tried += 1
        # A body is read before anything is looked up.
        body = {"json": {"groups": {"category": ["Dress"]}}} if op.method == "PUT" else {}
        body = {"json": {"text": "It is a dress."}} if op.path.endswith("/appeals") else body
        answer = stranger.open(url, method=op.method, **body)
        assert (answer.status_code, answer.json["code"]) == (404, "not_found"), op.path
        # And the answer is the one for what does not exist at all.
        nothing = stranger.open(url_of(op.path), method=op.method, **body)
        assert {**answer.json, "request_id": None} == {**nothing.json, "request_id": None}
    assert tried >= 9
    assert stranger.get("/v1/jobs").json["jobs"] == []
    assert client.get(f"/v1/jobs/{job}").json["state"] == "finished"


def test_row_level_security_is_a_second_wall(
    client: FlaskClient, api_db: Database, owner_db: Database, account: TestAccount, other: TestAccount
) -> None:
    job = submit(client)
    settle(owner_db, job, {0: None, 1: "timeout"})
    client.post("/v1/jobs", json={"items": [{"url": U}]}, headers={"Idempotency-Key": "k"})
    tables = ("jobs", "chunks", "items", "results", "images", "idempotency")
    for table in tables:
        for account_id, expected in ((account.id, True), (other.id, False), (None, False)):
            with api_db.transaction(account_id) as session:
                found = session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            assert (found > 0) is expected, (table, account_id)


def test_without_the_query_wall_the_database_still_hides(
    app: Flask, client: FlaskClient, other: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from db import jobs
    from db.errors import NotFound
    from db.tables import Job

    def careless(session: Session, _account: int, job_id: UUID) -> Job:
        job = session.scalar(select(Job).where(Job.id == job_id))
        if job is None:
            raise NotFound("There is no such job.")
        return job

    job = submit(client)
    monkeypatch.setattr(jobs, "get", careless)
    assert client.get(f"/v1/jobs/{job}").status_code == 200
    assert client_of(app, other).get(f"/v1/jobs/{job}").status_code == 404
