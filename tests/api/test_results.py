"""Results in four formats: the same rows, the same columns, streamed in batches."""

import csv
import io
import json
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from api.exports import COLUMNS, NESTED
from db import decisions
from db.decisions import Decision
from db.session import Database
from db.spreadsheets import harmless
from tests.api.conftest import Make, client_of
from tests.api.rows import settle
from tests.conftest import TestAccount

U = "http://shop.example/"
N = 25


@pytest.fixture
def job(client: FlaskClient, owner_db: Database) -> str:
    items = [{"url": f"{U}{i}.jpg", "id": f"=1+{i}" if i % 5 == 0 else f'c{i},"ü\n'[:4]} for i in range(N)]
    found = client.post("/v1/jobs", json={"items": items}).json["id"]
    settle(owner_db, found, {i: None if i % 2 else "http_404" for i in range(N - 2)})
    assert isinstance(found, str)
    return found


def as_json(client: FlaskClient, job: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/jobs/{job}/results")
    assert answer.content_type == "application/json"
    assert (answer.json["job_id"], answer.json["state"], answer.json["total"]) == (job, "finished", N)
    rows = answer.json["results"]
    assert isinstance(rows, list)
    return rows


def as_ndjson(client: FlaskClient, job: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/jobs/{job}/results?format=ndjson")
    assert answer.content_type == "application/x-ndjson"
    return [json.loads(line) for line in answer.get_data(as_text=True).splitlines()]


def unflatten(row: dict[str, Any]) -> dict[str, Any]:
    return {k: json.loads(v) if k in NESTED and v is not None else v for k, v in row.items()}


def as_csv(client: FlaskClient, job: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/jobs/{job}/results?format=csv")
    assert answer.content_type.startswith("text/csv")
    read = csv.DictReader(io.StringIO(answer.get_data(as_text=True), newline=""))
    rows = []
    for row in read:
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())
        plain = {k: (v[1:] if v.startswith("'=") else v) or None for k, v in row.items()}
        rows.append(unflatten(plain))
    return rows


def as_parquet(client: FlaskClient, job: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/jobs/{job}/results", headers={"Accept": "application/vnd.apache.parquet"})
    assert answer.content_type == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.get_data()))
    assert set(map(str, table.schema.types)) == {"string"}
    return [unflatten(row) for row in table.to_pylist()]


@pytest.mark.parametrize("batch", [1, 7, 23, 2000])
def test_the_same_rows_in_every_format(
    make_app: Make, account: TestAccount, client: FlaskClient, job: str, batch: int
) -> None:
    client = client_of(make_app(export_batch=batch), account)
    rows = as_json(client, job)
    assert len(rows) == N - 2, "items without an outcome are no result"
    assert [row["url"] for row in rows] == [f"{U}{i}.jpg" for i in range(N - 2)]
    assert as_ndjson(client, job) == rows
    assert as_csv(client, job) == rows
    assert as_parquet(client, job) == rows
    assert all(tuple(row) == COLUMNS for row in rows)


def test_rows_are_what_the_description_says(client: FlaskClient, job: str) -> None:
    document = client.get("/openapi.json").json
    schema = {"$ref": "#/components/schemas/ResultRow", "components": document["components"]}
    validator = Draft202012Validator(schema)
    for row in as_json(client, job):
        validator.validate(row)
    done = next(row for row in as_json(client, job) if row["outcome"] == "done")
    assert set(done["facts"]) >= {"width", "height", "format", "bytes", "sha256", "pdq", "colours", "sharpness"}
    assert set(done["moderation"]) == {"scores", "verdict", "reasons", "policy", "model", "automatic", "decision"}


def test_a_persons_verdict_is_in_every_format(
    client: FlaskClient, db: Database, account: TestAccount, job: str
) -> None:
    with db.transaction(account.id) as session:
        made = Decision(UUID(job), 1, bytes(range(32)), "", "review", "reject", "key:x", "nudity", "Not here.")
        (decision_id,) = decisions.append(session, account.id, [made])
    for rows in (as_json(client, job), as_ndjson(client, job), as_csv(client, job), as_parquet(client, job)):
        for row in rows:
            said = row["moderation"]
            if row["outcome"] != "done":
                assert said is None
                continue
            assert (said["verdict"], said["automatic"]) == ("reject", "approve")
            assert (said["decision"]["id"], said["decision"]["text"]) == (str(decision_id), "Not here.")


def test_an_empty_export_is_valid_in_every_format(client: FlaskClient) -> None:
    job = client.post("/v1/jobs", json={"items": [{"url": U}]}).json["id"]
    assert client.get(f"/v1/jobs/{job}/results").json["results"] == []
    assert as_ndjson(client, job) == as_csv(client, job) == as_parquet(client, job) == []
    assert client.get(f"/v1/jobs/{job}/results").headers["Tagmill-Job-State"] == "accepted"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("application/x-ndjson;q=0.5, text/csv;q=0.9", "text/csv"),
        ("text/html, application/x-ndjson", "application/x-ndjson"),
    ],
)
def test_the_accept_header_chooses(client: FlaskClient, job: str, accept: str, kind: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/results", headers={"Accept": accept})
    assert answer.mimetype == kind
    assert "attachment" in answer.headers["Content-Disposition"]


def test_unknown_formats(client: FlaskClient, job: str) -> None:
    assert client.get(f"/v1/jobs/{job}/results", headers={"Accept": "text/html"}).json["code"] == "not_acceptable"
    assert client.get(f"/v1/jobs/{job}/results?format=xml").json["code"] == "invalid_parameter"


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", "\rx", " =1", "\n=cmd|' /C calc'!A0"])
def test_formulas_are_made_harmless(cell: str) -> None:
    assert harmless(cell) == "'" + cell
    assert harmless("a" + cell) == "a" + cell
    assert harmless(None) is None


def test_an_account_does_not_get_every_seat(
    make_app: Make, account: TestAccount, other: TestAccount, owner_db: Database
) -> None:
    app = make_app(max_streams=2, max_streams_per_account=1)
    ours, theirs = client_of(app, account), client_of(app, other)
    paths = []
    for client in (ours, theirs):
        job = client.post("/v1/jobs", json={"items": [{"url": f"{U}1.jpg"}]}).json["id"]
        settle(owner_db, job, {0: None})
        paths.append(f"/v1/jobs/{job}/results")
    held = ours.get(paths[0], buffered=False)
    for path in (paths[0], paths[0].replace("results", "events")):
        answer = ours.get(path)
        assert (answer.status_code, answer.json["code"]) == (429, "too_many_streams_of_account")
        assert "Retry-After" in answer.headers
    for _ in range(3):
        assert theirs.get(paths[1]).get_data()  # read to its end, it is over
        assert ours.head(paths[0]).status_code == 200
    held.close()
    assert ours.get(paths[0], buffered=False).status_code == 200
