"""Submitting jobs by URL: JSON, NDJSON and CSV, good and bad, at the limit and beyond it."""

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from db.session import Database
from tests.api.conftest import Make, client_of
from tests.api.rows import count
from tests.conftest import TestAccount

NDJSON = "application/x-ndjson"
U = "http://shop.example/"


def nothing_stored(database: Database) -> bool:
    return [count(database, table) for table in ("jobs", "items", "chunks", "idempotency")] == [0, 0, 0, 0]


def stored_items(database: Database) -> list[tuple[Any, ...]]:
    with database.transaction() as session:
        return [
            tuple(row)
            for row in session.execute(text("SELECT seq, url, client_id, product_id FROM items ORDER BY seq"))
        ]


def test_json_job(client: FlaskClient, owner_db: Database) -> None:
    items = [{"url": U + "1.jpg", "id": "sku-1", "product_id": "p"}, {"url": U + "ü.jpg?q=1"}]
    answer = client.post("/v1/jobs", json={"items": items, "analyses": ["tags"], "lane": "interactive", "name": "n"})
    body = answer.json
    assert (answer.status_code, body["total"], body["state"]) == (202, 2, "accepted")
    assert answer.headers["Location"] == body["url"] == f"/v1/jobs/{body['id']}"
    assert stored_items(owner_db) == [(0, U + "1.jpg", "sku-1", "p"), (1, U + "ü.jpg?q=1", None, None)]
    job = client.get(body["url"]).json
    assert (job["analyses"], job["lane"], job["name"]) == (["tags"], "interactive", "n")
    assert job["progress"]["ingest"] == {"done": 0, "failed": 0, "open": 2}


def test_the_facts_of_a_job_can_be_chosen(client: FlaskClient, owner_db: Database) -> None:
    item = {"url": U + "1.jpg"}
    line = json.dumps(item) + "\n"
    assert client.post("/v1/jobs", json={"items": [item]}).status_code == 202
    assert client.post("/v1/jobs", json={"items": [item], "facts": ["pdq", "colours", "pdq"]}).status_code == 202
    for query in ("facts=none", "facts=sharpness,pdq"):
        assert client.post(f"/v1/jobs?{query}", data=line, content_type=NDJSON).status_code == 202
    with owner_db.transaction() as session:
        stored = [row.options for row in session.execute(text("SELECT options FROM jobs ORDER BY created_at, id"))]
    assert stored == [{}, {"facts": ["colours", "pdq"]}, {"facts": []}, {"facts": ["pdq", "sharpness"]}]
    for body, query in (({"items": [item], "facts": ["taste"]}, ""), ({"items": [item]}, "?facts=pdq")):
        assert client.post(f"/v1/jobs{query}", json=body).status_code in (400, 422)
    answer = client.post("/v1/jobs?facts=taste", data=line, content_type=NDJSON)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (400, "facts.0")


def test_a_job_says_whether_what_is_known_is_fetched_again(client: FlaskClient, owner_db: Database) -> None:
    item = {"url": U + "1.jpg"}
    for asked in ({}, {"refetch": "if_changed"}, {"refetch": "always"}):
        assert client.post("/v1/jobs", json={"items": [item], **asked}).status_code == 202
    line = json.dumps(item) + "\n"
    answer = client.post("/v1/jobs?refetch=always", data=line, content_type=NDJSON)
    with owner_db.transaction() as session:
        stored = [row.options for row in session.execute(text("SELECT options FROM jobs ORDER BY created_at, id"))]
    assert stored == [{}, {}, {"refetch": "always"}, {"refetch": "always"}]
    assert client.post("/v1/jobs", json={"items": [item], "refetch": "never"}).status_code == 422
    assert client.post("/v1/jobs?refetch=never", data=line, content_type=NDJSON).status_code == 400
    counts = client.get(answer.json["url"]).json["progress"]["reused"]
    assert counts == {"not_modified": 0, "known_bytes": 0, "known_scores": 0}


@pytest.mark.parametrize("order", [("items", "name"), ("name", "items")])
def test_options_may_stand_before_or_after_the_items(client: FlaskClient, order: tuple[str, str]) -> None:
    values = {"items": [{"url": U}], "name": "spring"}
    body = json.dumps({name: values[name] for name in order}, indent=3)
    answer = client.post("/v1/jobs", data=body, content_type="application/json; charset=utf-8")
    assert client.get(answer.json["url"]).json["name"] == "spring"


def test_ndjson_and_csv_store_the_same_items(client: FlaskClient, owner_db: Database) -> None:
    rows = [(f"{U}{n}", f"id,{n}" if n % 2 else None, 'p"q' if n % 3 == 0 else None) for n in range(700)]
    lines = "\r\n".join(
        json.dumps({k: v for k, v in zip(("url", "id", "product_id"), row, strict=True) if v is not None})
        for row in rows
    )
    answer = client.post("/v1/jobs?lane=interactive&analyses=tags&name=x", data=lines + "\n\n", content_type=NDJSON)
    assert (answer.status_code, answer.json["total"]) == (202, 700)
    by_ndjson = stored_items(owner_db)
    assert by_ndjson == [(n, *row) for n, row in enumerate(rows)]
    with owner_db.transaction() as session:
        session.execute(text("TRUNCATE items"))

    def cell(value: str | None) -> str:
        return "" if value is None else '"' + value.replace('"', '""') + '"'

    csv = "\ufeffURL,product_id, id\n" + "\n".join(f"{cell(u)},{cell(p)},{cell(i)}" for u, i, p in rows)
    answer = client.post("/v1/jobs", data=csv.encode(), content_type="text/csv; charset=utf-8")
    assert (answer.status_code, answer.json["total"]) == (202, 700)
    assert stored_items(owner_db) == by_ndjson


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("", 400, "invalid_json"),
        ("not json", 400, "invalid_json"),
        ("{", 400, "invalid_json"),
        ('{"items": [', 400, "invalid_json"),
        ('{"items": [{"url": "http://a/"}', 400, "invalid_json"),
        ('{"items": [{"url": "http://a/"}]', 400, "invalid_json"),
        ('{"items": [{"url": "http://a/"}]} x', 400, "invalid_json"),
        ('{"items": [{"url": "http://a/"},]}', 400, "invalid_json"),
        ('{"items": [{"url": "http://a/"} {"url": "http://b/"}]}', 400, "invalid_json"),
        ('{"items": [{"url": NaN}]}', 400, "invalid_json"),
        ('{"items": [{"url": "http://a/", "url": "http://b/"}]}', 400, "invalid_json"),
        ('{"items": [{"url": ' + "9" * 5000 + "}]}", 400, "invalid_json"),
        ('{"items": [' + DEEP, 400, "invalid_json"),
        (DEEP, 400, "invalid_json"),
        ('{"name": ' + DEEP, 400, "invalid_json"),
        ('{"a": ' * 100_000, 400, "invalid_json"),
        (b'{"items": [{"url": "http://\xff/"}]}', 400, "invalid_utf8"),
        (b'{"items": [{"url": "http://a/"}]}\xc3', 400, "invalid_utf8"),
        ("[]", 422, "invalid_body"),
        ("null", 422, "invalid_body"),
        ("{}", 422, "invalid_body"),
        ('{"items": {}}', 422, "invalid_body"),
        ('{"items": []}', 422, "empty_job"),
        ('{"items": [[]]}', 422, "invalid_items"),
        ('{"items": ["http://a/"]}', 422, "invalid_items"),
        ('{"items": [{"url": "http://a/"}], "items": []}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "lane": "fast"}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "account_id": 2}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "state": "finished"}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "analyses": []}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "analyses": "tags"}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "analyses": ["faces"]}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "name": 7}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "name": "\\u0000"}', 422, "invalid_body"),
        ('{"items": [{"url": "http://a/"}], "name": "\\ud800"}', 422, "invalid_body"),
        ('{"items": [{"url": "' + "x" * 9000 + '"}]}', 422, "invalid_body"),
    ],
)  # fmt: skip
def test_bad_json_bodies(client: FlaskClient, owner_db: Database, body: str | bytes, status: int, code: str) -> None:
    answer = client.post("/v1/jobs", data=body, content_type="application/json")
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.json
    assert nothing_stored(owner_db)


@pytest.mark.parametrize(
    ("item", "field", "code"),
    [
        ({}, "url", "missing"),
        ({"url": 7}, "url", "wrong_type"),
        ({"url": None}, "url", "wrong_type"),
        ({"url": False}, "url", "wrong_type"),
        ({"url": ""}, "url", "invalid_url"),
        ({"url": "shop.example/1.jpg"}, "url", "invalid_url"),
        ({"url": "file:///etc/passwd"}, "url", "blocked_scheme"),
        ({"url": "ftp://shop.example/1"}, "url", "blocked_scheme"),
        ({"url": "data:image/png;base64,AAAA"}, "url", "blocked_scheme"),
        ({"url": "javascript:alert(1)"}, "url", "blocked_scheme"),
        ({"url": "http://user:pass@shop.example/"}, "url", "blocked_userinfo"),
        ({"url": "http://169.254.169.254@shop.example/"}, "url", "blocked_userinfo"),
        ({"url": "http://"}, "url", "invalid_url"),
        ({"url": "http://a:99999/"}, "url", "invalid_url"),
        ({"url": "http://[::1/"}, "url", "invalid_url"),
        ({"url": "http://a/\r\nHost: b"}, "url", "invalid_url"),
        ({"url": "http://a/\u0000"}, "url", "invalid_url"),
        ({"url": "http://a/\ud800"}, "url", "bad_characters"),
        ({"url": "http://a\\@b/"}, "url", "invalid_url"),
        ({"url": U + "x" * 2100}, "url", "too_long"),
        ({"url": U, "id": ""}, "id", "too_short"),
        ({"url": U, "id": 5}, "id", "wrong_type"),
        ({"url": U, "id": "x" * 257}, "id", "too_long"),
        ({"url": U, "id": "a\u0000"}, "id", "bad_characters"),
        ({"url": U, "product_id": "\ud800"}, "product_id", "bad_characters"),
        ({"url": U, "raw_key": "raw/1/aa/b"}, "raw_key", "unknown_field"),
        ({"url": U, "account_id": 2}, "account_id", "unknown_field"),
    ],
)
def test_bad_items_are_named_by_place_and_field(
    client: FlaskClient, owner_db: Database, item: dict[str, Any], field: str, code: str
) -> None:
    good = {"url": U + "1.jpg"}
    answer = client.post("/v1/jobs", json={"items": [good, item, good]})
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_items")
    assert [(e["item"], e["field"], e["code"]) for e in answer.json["errors"]] == [(1, field, code)]
    lines = "\n".join(json.dumps(row) for row in (good, item, good))
    answer = client.post("/v1/jobs", data=lines, content_type=NDJSON)
    assert [(e["line"], e["field"], e["code"]) for e in answer.json["errors"]] == [(2, field, code)]
    assert nothing_stored(owner_db)
    answer = client.post("/v1/jobs?on_invalid=skip", data=lines, content_type=NDJSON)
    assert (answer.status_code, answer.json["total"], answer.json["skipped"]["count"]) == (202, 2, 1)
    assert answer.json["skipped"]["errors"][0]["line"] == 2
    assert [seq for seq, *_ in stored_items(owner_db)] == [0, 1]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("nonsense", "invalid_json"),
        ('{"url": "http://a/"} {"url": "http://b/"}', "invalid_json"),
        ('{"url": "http://a/", "url": "http://b/"}', "invalid_json"),
        ('{"url": NaN}', "invalid_json"),
        ("[" * 8000, "invalid_json"),
        ('"http://a/"', "wrong_type"),
        ("[]", "wrong_type"),
        ('{"url": "http://a/' + "x" * 9000 + '"}', "line_too_long"),
    ],
)
def test_bad_ndjson_lines(client: FlaskClient, owner_db: Database, line: str, code: str) -> None:
    body = f'{{"url": "{U}1"}}\n\n{line}\n{{"url": "{U}2"}}\n'
    answer = client.post("/v1/jobs", data=body, content_type=NDJSON)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_items")
    assert [(e["line"], e["code"]) for e in answer.json["errors"]] == [(3, code)]
    assert nothing_stored(owner_db)
    answer = client.post("/v1/jobs?on_invalid=skip", data=body, content_type=NDJSON)
    assert (answer.status_code, answer.json["total"]) == (202, 2)


@pytest.mark.parametrize(
    ("body", "status", "code", "first"),
    [
        ("", 422, "empty_job", {}),
        ("url\n", 422, "empty_job", {}),
        ("http://a/\nhttp://b/\n", 400, "invalid_csv", {"line": 1, "code": "unknown_field"}),
        ("id,product_id\n1,2\n", 400, "invalid_csv", {"line": 1, "code": "missing", "field": "url"}),
        ("url,url\na,b\n", 400, "invalid_csv", {"line": 1, "code": "duplicate_field"}),
        ("url,price\na,b\n", 400, "invalid_csv", {"line": 1, "code": "unknown_field", "field": "price"}),
        ("url,id\nhttp://a/,1\nhttp://b/\n", 422, "invalid_items", {"line": 3, "code": "wrong_column_count"}),
        ("url,id\nhttp://a/,1\nfile:///x,2\n", 422, "invalid_items", {"line": 3, "code": "blocked_scheme"}),
        ("url,id\nhttp://a/,1\n,2\n", 422, "invalid_items", {"line": 3, "code": "missing", "field": "url"}),
        ('url,id\nhttp://a/,"open\n', 400, "invalid_csv", {"code": "invalid_csv"}),
        ('url,id\nhttp://a/,"open' + "\nx" * 5000, 400, "invalid_csv", {"code": "invalid_csv"}),
        ("url\nhttp://a/" + "x" * 9000 + "\n", 422, "invalid_items", {"line": 2, "code": "line_too_long"}),
        (b"url\nhttp://\xff\n", 400, "invalid_utf8", {}),
    ],
)  # fmt: skip
def test_bad_csv(
    client: FlaskClient, owner_db: Database, body: str | bytes, status: int, code: str, first: dict[str, Any]
) -> None:
    answer = client.post("/v1/jobs", data=body, content_type="text/csv")
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.json
    if first:
        assert first.items() <= answer.json["errors"][0].items(), answer.json
    assert nothing_stored(owner_db)


def test_at_most_100_faults_are_listed_and_skip_counts_all(client: FlaskClient) -> None:
    body = "\n".join(["x"] * 250 + [json.dumps({"url": U})])
    answer = client.post("/v1/jobs", data=body, content_type=NDJSON)
    assert [e["line"] for e in answer.json["errors"]] == list(range(1, 101))
    answer = client.post("/v1/jobs?on_invalid=skip", data=body, content_type=NDJSON)
    assert (answer.json["total"], answer.json["skipped"]["count"]) == (1, 250)
    assert len(answer.json["skipped"]["errors"]) == 100


def test_skipping_everything_leaves_no_job(client: FlaskClient, owner_db: Database) -> None:
    answer = client.post("/v1/jobs?on_invalid=skip", data="x\ny\n", content_type=NDJSON)
    assert (answer.status_code, answer.json["code"], len(answer.json["errors"])) == (422, "empty_job", 2)
    assert nothing_stored(owner_db)


@pytest.mark.parametrize("kind", ["application/json", NDJSON, "text/csv"])
def test_one_item_over_the_limit_leaves_nothing_behind(client: FlaskClient, owner_db: Database, kind: str) -> None:
    def body(n: int) -> bytes:
        urls = (f"{U}{i}.jpg" for i in range(n))
        if kind == "text/csv":
            return ("url\n" + "\n".join(urls)).encode()
        if kind == NDJSON:
            return "\n".join(f'{{"url": "{url}"}}' for url in urls).encode()
        return ('{"items": [' + ",".join(f'{{"url": "{url}"}}' for url in urls) + "]}").encode()

    answer = client.post("/v1/jobs", data=body(100_001), content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (422, "too_many_items")
    assert nothing_stored(owner_db)
    if kind == "application/json":
        answer = client.post("/v1/jobs", data=body(100_000), content_type=kind)
        assert (answer.status_code, answer.json["total"]) == (202, 100_000)
        assert (count(owner_db, "items"), count(owner_db, "jobs")) == (100_000, 1)


def test_the_limit_is_a_setting_and_counts_bad_lines(make_app: Make, account: TestAccount) -> None:
    client = client_of(make_app(max_items_per_job=3), account)
    body = "x\n" * 3 + json.dumps({"url": U})
    answer = client.post("/v1/jobs?on_invalid=skip", data=body, content_type=NDJSON)
    assert answer.json["code"] == "too_many_items"


@pytest.mark.parametrize(
    ("kind", "headers", "status", "code"),
    [
        ("application/xml", {}, 415, "unsupported_media_type"),
        ("", {}, 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", {}, 415, "unsupported_media_type"),
        (NDJSON, {"Content-Encoding": "gzip"}, 415, "unsupported_encoding"),
    ],
)
def test_content_types(client: FlaskClient, kind: str, headers: dict[str, str], status: int, code: str) -> None:
    answer = client.post("/v1/jobs", data="{}", content_type=kind, headers=headers)
    assert (answer.status_code, answer.json["code"]) == (status, code)


@pytest.mark.parametrize("kind", ["application/json", NDJSON, "text/csv", "application/zip"])
def test_bodies_over_the_byte_limit(make_app: Make, account: TestAccount, kind: str) -> None:
    app: Flask = make_app(max_json_bytes=1000, max_lines_bytes=1000, max_zip_bytes=1000)
    answer = client_of(app, account).post("/v1/jobs", data=b" " * 1001, content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "query",
    [
        "lane=fast",
        "analyses=faces",
        "analyses=",
        "name=" + "x" * 201,
        "on_invalid=maybe",
        "tenant_id=1",
        "lane=bulk&lane=bulk",
    ],
)
def test_wrong_job_options_in_the_query(client: FlaskClient, owner_db: Database, query: str) -> None:
    answer = client.post(f"/v1/jobs?{query}", data=json.dumps({"url": U}), content_type=NDJSON)
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
    assert nothing_stored(owner_db)


def test_options_of_a_json_job_belong_into_the_body(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs?lane=bulk", json={"items": [{"url": U}]})
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (400, "lane")
