"""Uploads for moderation over HTTP: three forms, waiting for the verdict, lists, and what is refused."""

import hashlib
import io
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from db.session import Database
from tests.api.conftest import Make, client_of, key_with
from tests.api.test_uploads import blobs
from tests.conftest import TestAccount
from tests.db.test_moderations import ingest, judge, person
from tests.worker.line import rows

URL = "https://shop.example/1.jpg"
PICTURE = b"\xff\xd8\xff" + bytes(range(256))


def by_url(client: FlaskClient, *, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
    return client.post("/v1/moderations", json={"url": URL} | more, headers=headers or {})


def by_form(client: FlaskClient, data: bytes = PICTURE, name: str = "me.jpg", **fields: Any) -> TestResponse:
    form = {"file": (io.BytesIO(data), name), **fields}
    return client.post("/v1/moderations", data=form, content_type="multipart/form-data")


def by_bytes(client: FlaskClient, query: str = "", data: bytes = PICTURE, kind: str = "image/jpeg") -> TestResponse:
    return client.post(f"/v1/moderations{query}", data=data, content_type=kind)


def faults(answer: TestResponse) -> list[tuple[str, str | None]]:
    assert answer.json is not None
    return [(fault["code"], fault.get("field")) for fault in answer.json["errors"]]


def test_the_three_forms_say_the_same(client: FlaskClient, owner_db: Database, tmp_path: Path) -> None:
    said = {"user": "u-1", "product": "shirt-42", "context": "avatar", "category": "Dress", "id": "mine"}
    subject = {"user": said["user"], "product": said["product"]}
    nested = {"subject": subject, **{name: said[name] for name in ("context", "category", "id")}}
    query = "?user=u-1&product=shirt-42&context=avatar&category=Dress&id=mine"
    answers = [by_url(client, **nested), by_form(client, **said), by_bytes(client, query)]
    for answer in answers:
        assert answer.status_code == 202
        assert answer.json is not None
        assert answer.headers["Location"] == answer.json["url"]
        body = {key: answer.json[key] for key in ("client_id", "subject", "context", "category", "state", "verdict")}
        assert body == {
            "client_id": "mine", "subject": subject, "context": "avatar", "category": "Dress", "state": "pending",
            "verdict": None,
        }  # fmt: skip
    items = rows(owner_db, "SELECT url, filename, raw_key, product_id FROM items ORDER BY job_id")
    digest = hashlib.sha256(PICTURE).hexdigest()
    assert [(item.url, item.filename, item.product_id) for item in items] == [
        (URL, None, "shirt-42"), (None, "me.jpg", "shirt-42"), (None, None, "shirt-42"),
    ]  # fmt: skip
    assert all(item.raw_key.endswith(digest) for item in items[1:])
    assert [blob.name for blob in blobs(tmp_path)] == [digest]
    jobs = rows(owner_db, "SELECT lane, listed, context FROM jobs")
    assert {tuple(job) for job in jobs} == {("interactive", False, "avatar")}


def test_a_verdict_is_read_with_all_it_is_made_of(client: FlaskClient, owner_db: Database) -> None:
    url = by_url(client).headers["Location"]
    ingest(owner_db)
    judge(owner_db, "review")
    answer = client.get(url)
    assert answer.status_code == 200
    assert answer.json is not None
    body = answer.json
    assert (body["state"], body["verdict"], body["automatic"]) == ("in_review", "review", "review")
    assert body["moderation"]["scores"] == {"Porn": 0.5}
    assert [reason["code"] for reason in body["moderation"]["reasons"]] == ["porn_review"]
    assert body["facts"]["width"] == 4
    assert client.get(body["links"]["item"]).status_code == client.get(body["links"]["job"]).status_code == 200
    person(owner_db, rows(owner_db, "SELECT account_id FROM moderations")[0].account_id, "approve")
    after = client.get(url).json
    assert after is not None
    assert (after["state"], after["verdict"], after["automatic"]) == ("decided", "approve", "review")
    assert after["moderation"]["decision"]["verdict"] == "approve"


def test_a_failure_says_its_code(client: FlaskClient, owner_db: Database) -> None:
    url = by_url(client).headers["Location"]
    ingest(owner_db, "http_404")
    body = client.get(url).json
    assert body is not None
    assert (body["state"], body["code"], body["verdict"], body["moderation"]) == ("failed", "http_404", None, None)


class Judged:
    """Inside the block somebody gives a verdict as soon as there is an upload, as the workers would."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = threading.Thread(target=self._judge)
        self._over = threading.Event()

    def _judge(self) -> None:
        while not rows(self._database, "SELECT 1 FROM moderations") and not self._over.wait(0.02):
            continue
        ingest(self._database)
        judge(self._database, "reject")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_prefer_wait_holds_the_answer_until_the_verdict(client: FlaskClient, owner_db: Database) -> None:
    with Judged(owner_db):
        answer = by_url(client, headers={"Prefer": "respond-async, wait=20"})
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["verdict"] == "reject"
    assert answer.headers["Preference-Applied"] == "wait=20"


def test_when_the_time_is_over_it_is_accepted_only(make_app: Make, account: TestAccount) -> None:
    client = client_of(make_app(max_wait_s=1), account)
    answer = by_url(client, headers={"Prefer": "wait=600"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=1")
    again = client.get(answer.headers["Location"], headers={"Prefer": "wait=1"})
    assert (again.status_code, again.headers["Preference-Applied"]) == (200, "wait=1")


@pytest.mark.parametrize("preference", ["wait=-1", "wait=soon", "wait", "return=minimal", "wait=0", ""])
def test_a_preference_that_cannot_be_met_is_no_error(client: FlaskClient, preference: str) -> None:
    answer = by_url(client, headers={"Prefer": preference})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize("few", [{"max_waits": 0}, {"max_waits_per_account": 0}])
def test_without_a_seat_nobody_waits(make_app: Make, account: TestAccount, few: dict[str, int]) -> None:
    answer = by_url(client_of(make_app(**few), account), headers={"Prefer": "wait=600"})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_a_seat_is_free_again_when_the_answer_went_out(make_app: Make, account: TestAccount) -> None:
    client = client_of(make_app(max_waits=1, max_wait_s=1), account)
    held = [by_url(client, headers={"Prefer": "wait=1"}) for _ in range(2)]
    assert [answer.headers.get("Preference-Applied") for answer in held] == ["wait=1", "wait=1"]


def test_an_idempotency_key_makes_one_upload_of_many(client: FlaskClient, owner_db: Database) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first, second = by_url(client, headers=headers), by_url(client, headers=headers)
    assert first.headers["Location"] == second.headers["Location"]
    assert (second.status_code, second.headers["Idempotent-Replayed"]) == (202, "true")
    other = by_url(client, headers=headers, context="avatar")
    assert (other.status_code, other.json and other.json["code"]) == (422, "idempotency_key_reused")
    assert len(rows(owner_db, "SELECT 1 FROM moderations")) == 1
    ingest(owner_db)
    judge(owner_db, "approve")
    late = by_url(client, headers=headers)
    assert (late.status_code, late.json and late.json["verdict"]) == (200, "approve")


def test_the_key_of_a_form_is_over_its_contents_not_its_boundary(client: FlaskClient, tmp_path: Path) -> None:
    def send(data: bytes, boundary: str, user: str) -> TestResponse:
        parts = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="user"\r\n\r\n{user}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n'
        ).encode()
        body = parts + data + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return client.post("/v1/moderations", data=body, content_type=kind, headers={"Idempotency-Key": "k"})

    first = send(PICTURE, "one", "u")
    assert send(PICTURE, "two", "u").headers["Location"] == first.headers["Location"]
    assert [send(PICTURE, "three", "v").status_code, send(PICTURE + b"x", "four", "u").status_code] == [422, 422]
    assert len(blobs(tmp_path)) == 1


def test_lists_are_filtered_and_turn_pages(client: FlaskClient, owner_db: Database) -> None:
    for n in range(3):
        by_bytes(client, f"?id={n}&user=u{n % 2}&context={'avatar' if n else ''}", data=PICTURE + bytes([n]))
    page = client.get("/v1/moderations?limit=2").json
    assert page is not None
    assert [row["client_id"] for row in page["moderations"]] == ["2", "1"]
    rest = client.get(f"/v1/moderations?limit=2&cursor={page['next']}").json
    assert rest is not None
    assert ([row["client_id"] for row in rest["moderations"]], rest["next"]) == (["0"], None)

    def found(query: str) -> list[str]:
        listed = client.get(f"/v1/moderations?{query}").json
        assert listed is not None
        return [row["client_id"] for row in listed["moderations"]]

    assert found("user=u0") == ["2", "0"]
    assert found("user=u0&context=avatar") == ["2"]
    assert found("context=") == ["0"]
    ingest(owner_db)
    judge(owner_db, "reject")
    assert found("state=pending") == found("verdict=approve") == []
    assert found("state=decided&verdict=reject&user=u1") == ["1"]
    assert client.get("/v1/moderations?state=odd").status_code == 400


def test_another_accounts_upload_is_not_found(client: FlaskClient, make_app: Make, other: TestAccount) -> None:
    answer = by_url(client)
    stranger = client_of(make_app(), other)
    url = answer.headers["Location"]
    assert [stranger.get(url).status_code, client.get(url).status_code] == [404, 200]
    listed = stranger.get("/v1/moderations").json
    assert listed is not None
    assert listed["moderations"] == []
    assert client.get(f"/v1/moderations/{UUID(int=0)}").status_code == 404


def test_jobs_do_not_list_uploads(client: FlaskClient) -> None:
    by_url(client)
    listed = client.get("/v1/jobs").json
    assert listed is not None
    assert listed["jobs"] == []


@pytest.mark.parametrize(
    ("sent", "code", "found"),
    [
        ({"url": "ftp://a/b"}, "invalid_body", "url"),
        ({"url": "http://u:p@a.example/b"}, "invalid_body", "url"),
        ({}, "invalid_body", "url"),
        ({"url": URL, "context": "Über"}, "invalid_body", "context"),
        ({"url": URL, "context": "x" * 65}, "invalid_body", "context"),
        ({"url": URL, "subject": {"who": "x"}}, "invalid_body", "subject.who"),
        ({"url": URL, "subject": {"user": "a\nb"}}, "invalid_body", "subject.user"),
        ({"url": URL, "id": ""}, "invalid_body", "id"),
        ({"url": URL, "lane": "bulk"}, "invalid_body", "lane"),
        ({"url": URL, "policy": 3}, "invalid_body", "policy"),
    ],
)
def test_bad_fields_are_named(client: FlaskClient, sent: dict[str, Any], code: str, found: str) -> None:
    answer = client.post("/v1/moderations", json=sent)
    assert (answer.status_code, answer.json and answer.json["code"]) == (422, code)
    assert [field for _, field in faults(answer)] == [found]


def test_an_unknown_policy_is_refused(client: FlaskClient, owner_db: Database) -> None:
    answer = by_url(client, policy="no-such")
    assert (answer.status_code, answer.json and answer.json["code"]) == (422, "unknown_policy")
    assert by_url(client, policy="default").status_code == 202
    assert len(rows(owner_db, "SELECT 1 FROM jobs")) == 1


def test_bad_forms_leave_nothing_behind(client: FlaskClient, tmp_path: Path, owner_db: Database) -> None:
    two = {"a": (io.BytesIO(PICTURE), "a.jpg"), "b": (io.BytesIO(PICTURE), "b.jpg")}
    refused = [
        client.post("/v1/moderations", data=two, content_type="multipart/form-data"),
        client.post("/v1/moderations", data={"user": "u"}, content_type="multipart/form-data"),
        by_form(client, options="{}"),
        by_form(client, context="A B"),
        by_form(client, user=["a", "b"]),
        by_form(client, user="x" * 5000),
        by_form(client, user="x" * 300),
    ]
    codes = [answer.json and answer.json["code"] for answer in refused]
    assert codes == ["too_many_files", "no_picture", *["invalid_body"] * 5]
    assert [faults(answer) for answer in refused[2:]] == [
        [("unknown_field", "options")],
        [("bad_characters", "context")],
        [("duplicate_field", "user")],
        [("too_long", "user")],
        [("too_long", "user")],
    ]
    assert blobs(tmp_path) == []
    assert rows(owner_db, "SELECT 1 FROM items") == []


def test_bad_bytes_are_refused(make_app: Make, account: TestAccount, tmp_path: Path) -> None:
    client = client_of(make_app(max_picture_bytes=1000), account)
    empty, large = by_bytes(client, data=b""), by_bytes(client, data=bytes(1001))
    assert (empty.status_code, empty.json and empty.json["code"]) == (422, "no_picture")
    assert (large.status_code, large.json and large.json["code"]) == (413, "body_too_large")
    nothing = by_form(client, b"")
    assert (nothing.status_code, nothing.json and nothing.json["code"]) == (422, "no_picture"), "as bare bytes"
    assert by_form(client, bytes(1001)).status_code == 413
    assert by_bytes(client, kind="text/html").status_code == 415
    twice = client.post("/v1/moderations?user=a", json={"url": URL})
    assert (twice.status_code, faults(twice)) == (400, [("unknown_field", "user")])
    wrong = by_bytes(client, "?context=A%20B")
    assert (wrong.status_code, faults(wrong)) == (400, [("bad_characters", "context")])
    assert blobs(tmp_path) == []


def test_reading_and_sending_are_scopes_of_their_own(
    client: FlaskClient, owner_db: Database, account: TestAccount, app: Any
) -> None:
    plain = app.test_client()
    reads = key_with(owner_db, account, "moderation:read")
    writes = key_with(owner_db, account, "moderation:write")
    assert plain.post("/v1/moderations", json={"url": URL}, headers=reads).status_code == 403
    made = plain.post("/v1/moderations", json={"url": URL}, headers=writes)
    assert made.status_code == 202
    assert plain.get(made.headers["Location"], headers=writes).status_code == 403
    assert plain.get(made.headers["Location"], headers=reads).status_code == 200
