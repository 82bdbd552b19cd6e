"""Texts that Postgres refuses (a NUL, half a surrogate) or that are none: refused with their place, wherever they
stand, and repeated to nobody as they came."""

import io
import json
import socket
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from db.session import Database
from tests.api.conftest import gunicorn
from tests.api.rows import count
from tests.conftest import TestAccount
from tests.worker.line import rows

U = "http://shop.example/1.jpg"
JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
FIELDS = ("url", "id", "product_id", "category")
REFUSED = {"a NUL": "\0", "half a surrogate": "\ud800", "its other half": "\udfff"}
NOT_UTF8 = {
    "a surrogate": b"\xed\xa0\x80",
    "a long NUL": b"\xc0\x80",
    "half a letter": b"\xc3",
    "beyond": b"\xf4\x90\x80\x80",
}
HEADERS = (
    "Idempotency-Key", "X-Request-Id", "Prefer", "Content-Type", "Accept", "User-Agent", "Cookie", "If-None-Match",
    "Authorization", "Range", "Referer",
)  # fmt: skip


def body_of(kind: str, row: dict[str, str]) -> bytes:
    """A good item, and this one."""
    if kind == JSON:
        return json.dumps({"items": [{"url": U}, row]}).encode()
    if kind == NDJSON:
        return "\n".join(map(json.dumps, ({"url": U}, row))).encode()
    good = (U if name == "url" else "" for name in row)
    return "\n".join(",".join(cells) for cells in (row, good, row.values())).encode()


@pytest.mark.parametrize("kind", [JSON, NDJSON, CSV])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("what", REFUSED)
def test_in_an_item(client: FlaskClient, owner_db: Database, kind: str, field: str, what: str) -> None:
    if kind == CSV and what != "a NUL":
        return  # it cannot be written in UTF-8, see below
    row = {"url": U} | {field: f"{U if field == 'url' else 'a'}{REFUSED[what]}b"}
    answer = client.post("/v1/jobs", data=body_of(kind, row), content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_items")
    (fault,) = answer.json["errors"]
    place = fault["item"] == 1 if kind == JSON else fault["line"] == (2 if kind == NDJSON else 3)
    assert (place, fault["field"], fault["code"] in ("bad_characters", "invalid_url")) == (True, field, True), fault
    assert count(owner_db, "jobs") == 0


@pytest.mark.parametrize("kind", [JSON, NDJSON, CSV])
@pytest.mark.parametrize("what", NOT_UTF8)
def test_bytes_that_are_no_text(client: FlaskClient, owner_db: Database, kind: str, what: str) -> None:
    data = body_of(kind, {"url": U, "id": "here"}).replace(b"here", NOT_UTF8[what])
    answer = client.post("/v1/jobs", data=data, content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_utf8"), answer.json
    assert kind == JSON or f"Line {2 if kind == NDJSON else 3}" in answer.json["detail"]
    assert count(owner_db, "jobs") == 0


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("kind", [JSON, NDJSON])
def test_in_the_name_of_a_member_that_is_left_out(client: FlaskClient, kind: str, what: str) -> None:
    """The answer names it, and is kept: as a text that can be."""
    data = body_of(kind, {"url": U, f"x{REFUSED[what]}y": "1"})
    place = ("item", 1) if kind == JSON else ("line", 2)
    named = {"field": "x\ufffdy", "code": "unknown_field"} if what == "a NUL" else {"code": "bad_characters"}
    expected = {**named, place[0]: place[1]}
    refused = client.post("/v1/jobs", data=data, content_type=kind)
    assert (refused.status_code, told(refused.json["errors"], expected)) == (422, [expected])
    if kind == NDJSON:
        answers = [
            client.post("/v1/jobs?on_invalid=skip", data=data, content_type=kind, headers={"Idempotency-Key": "k"})
            for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [202, 202], answers[0].json
        assert told(answers[0].json["skipped"]["errors"], expected) == [expected]
        assert answers[0].data == answers[1].data


def told(errors: list[dict[str, Any]], expected: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: error.get(name) for name in expected} for error in errors]


def test_a_long_name_of_a_member_is_not_repeated_whole(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", data=body_of(NDJSON, {"url": U, "x" * 5000: "1"}), content_type=NDJSON)
    assert (answer.status_code, len(answer.json["errors"][0]["field"]) <= 300) == (422, True)


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("field", ["name", "context", "policy"])
def test_in_an_option(client: FlaskClient, owner_db: Database, what: str, field: str) -> None:
    options = {field: f"a{REFUSED[what]}"}
    sent = [
        client.post("/v1/jobs", json={"items": [{"url": U}], **options}),
        client.post("/v1/jobs", data={"files": (io.BytesIO(b"x"), "a.jpg"), "options": json.dumps(options)}),
    ]
    for answer in sent:
        assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, field), answer.json
    query = "%00" if what == "a NUL" else "%ed%a0%80"
    answer = client.post(f"/v1/jobs?{field}=a{query}", data=body_of(NDJSON, {"url": U}), content_type=NDJSON)
    assert answer.status_code in (400, 422) or (field == "name" and what != "a NUL"), "what is no text is replaced"
    assert count(owner_db, "jobs") <= (field == "name" and what != "a NUL")


def multipart(name: bytes, filename: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"; filename="' + filename + b'"\r\n\r\n'
    return head + b"picture\r\n--b--\r\n"


NAMES = [
    b"a\0b.jpg",
    b"\xed\xa0\x80.jpg",
    b"\xff\xfe.jpg",
    b"a\x7f\x1b[31m.jpg",
    "\u202egpj.exe".encode(),
    b"%00",
    b"\0",
    b" ",
]


@pytest.mark.parametrize("name", NAMES)
def test_in_the_name_of_a_file_or_a_part(client: FlaskClient, owner_db: Database, name: bytes) -> None:
    """A file's name is for people: what it cannot hold is taken out of it."""
    kind = "multipart/form-data; boundary=b"
    answer = client.post("/v1/jobs", data=multipart(b"files", name), content_type=kind)
    assert answer.status_code in (202, 400, 422), answer.json
    answer = client.post("/v1/jobs", data=multipart(name, b"a.jpg"), content_type=kind)
    assert answer.status_code in (202, 400, 422), answer.json
    assert shown(stored_names(owner_db))


@pytest.mark.parametrize("name", NAMES)
def test_in_the_name_of_a_member_of_an_archive(client: FlaskClient, owner_db: Database, name: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("N" * len(name), b"picture")
    for flag in (b"\0\0", b"\0\x08"):  # the name is in the code page of old, or in UTF-8
        data = out.getvalue().replace(b"N" * len(name), name)
        local, central = data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8
        data = data[:local] + flag + data[local + 2 : central] + flag + data[central + 2 :]
        answer = client.post("/v1/jobs", data=data, content_type="application/zip")
        assert answer.status_code in (202, 400, 422), answer.json
        if answer.status_code != 202:
            assert answer.json["code"].startswith("zip_")
            assert answer.json["errors"][0]["item"] == 0
    assert shown(stored_names(owner_db))


def shown(names: list[str]) -> bool:
    """Texts that a terminal and a page show as they are."""
    return all(name and all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in name) for name in names)


def stored_names(owner_db: Database) -> list[str]:
    return [row.filename for row in rows(owner_db, "SELECT filename FROM items")]


@pytest.mark.parametrize("value", ["a\0b", "\0", "a\x7f", "\x01", "é", "a b", "x" * 300])
def test_in_a_header_that_is_kept(client: FlaskClient, owner_db: Database, value: str) -> None:
    item = {"items": [{"url": U}]}
    answer = client.post("/v1/jobs", json=item, environ_overrides={"HTTP_IDEMPOTENCY_KEY": value})
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_idempotency_key")
    answer = client.get("/v1/jobs", environ_overrides={"HTTP_X_REQUEST_ID": value, "HTTP_PREFER": f"wait={value}"})
    assert answer.status_code == 200
    assert answer.headers["X-Request-Id"] not in (value, "")
    assert count(owner_db, "jobs") == 0


def test_in_every_header_of_a_real_server(database_url: str, account: TestAccount, tmp_path: Path) -> None:
    data = json.dumps({"items": [{"url": U}]}).encode()
    with gunicorn(database_url, tmp_path) as server:
        host, _, port = server.address.rpartition("/")[2].partition(":")
        for header in HEADERS:
            for value in (b"a\0b", b"\xff\xfe", b"\x01", b"a\x7fb", b"\xed\xa0\x80"):
                assert raw_status(host, int(port), account, header, value, data) < 500, (header, value)


def raw_status(host: str, port: int, account: TestAccount, header: str, value: bytes, data: bytes) -> int:
    headers: dict[str, bytes] = {
        "Host": host.encode(), "Authorization": f"Bearer {account.secret}".encode(), "Content-Type": JSON.encode(),
        "Content-Length": str(len(data)).encode(), "Connection": b"close",
    }  # fmt: skip
    headers[header] = value
    head = b"".join(name.encode() + b": " + each + b"\r\n" for name, each in headers.items())
    with socket.create_connection((host, port), timeout=30) as client:
        client.sendall(b"POST /v1/jobs HTTP/1.1\r\n" + head + b"\r\n" + data)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
            if b"\r\n" in answer:
                break
    return int(answer.split(b" ", 2)[1])
