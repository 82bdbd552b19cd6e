"""Limits under many requests at the same moment: never one more than allowed, and the others are told so."""

import io
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from db import limits, webhooks
from db.session import Database
from tests.abuse.estate import WEBHOOK_KEYS, estate
from tests.api.conftest import Make, client_of
from tests.api.rows import count
from tests.conftest import TestAccount

MANY = 40


def at_once(call: Callable[[int], int]) -> Counter[int]:
    """The statuses of as many calls that begin together."""
    barrier, found = threading.Barrier(MANY), []

    def one(number: int) -> None:
        barrier.wait(30)
        found.append(call(number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(MANY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == MANY
    return Counter(found)


def test_no_account_has_more_webhooks_than_it_may(
    make_app: Make, account: TestAccount, owner_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 5)
    app = make_app(webhook_keys=WEBHOOK_KEYS, database_pool=20)

    def create(number: int) -> int:
        body = {"url": f"https://hooks.example/{number}"}
        return client_of(app, account).post("/v1/webhooks", json=body).status_code

    found = at_once(create)
    assert count(owner_db, "webhooks") == 5
    assert found[201] == 5
    assert found.keys() == {201, 422}, found


def test_an_account_sends_no_more_requests_than_it_may(
    make_app: Make, account: TestAccount, other: TestAccount, owner_db: Database
) -> None:
    app = make_app(requests_per_minute=6, database_pool=20)
    began = time.monotonic()
    found = at_once(lambda _: client_of(app, account).get("/v1/jobs").status_code)
    given_back = int((time.monotonic() - began) / 10) + 1  # one in ten seconds
    assert found.keys() == {200, 429}
    assert 6 <= found[200] <= 6 + given_back
    refused = next(a for a in (client_of(app, account).get("/v1/jobs") for _ in range(5)) if a.status_code == 429)
    assert refused.json["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 10
    assert refused.headers["RateLimit-Policy"] == '"requests";q=6;w=60'
    assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')
    # Another account's are its own; keys of one account share.
    assert client_of(app, other).get("/v1/jobs").status_code == 200
    wait_for_it(owner_db, account, int(refused.headers["Retry-After"]))
    answer = client_of(app, account).get("/v1/jobs")
    assert answer.status_code == 200
    assert answer.headers["RateLimit"].startswith('"requests";r=')


def wait_for_it(owner_db: Database, account: TestAccount, seconds: float) -> None:
    """As if so much time had passed."""
    with owner_db.transaction() as session:
        session.execute(
            text(
                "UPDATE account_rates SET spent_until = spent_until - make_interval(secs => :s) WHERE account_id = :a"
            ),
            {"s": seconds, "a": account.id},
        )


def test_a_limit_of_its_own_goes_before_the_installations(
    make_app: Make, account: TestAccount, owner_db: Database
) -> None:
    app = make_app(requests_per_minute=1, items_per_day=1)
    own = {"requests_per_minute": 0, "items_per_day": 7}
    with owner_db.transaction() as session:
        limits.change(session, account.name, own, actor="test")
    client = client_of(app, account)
    assert [send(client, 3), send(client, 3), send(client, 3), send(client, 1)] == [202, 202, 429, 202]
    said = client.get("/v1/account").json
    assert (said["items"]["per_day"], said["items"]["today"], said["items"]["left"]) == (7, 7, 0)
    assert said["requests"] == {"per_minute": None, "left": None}
    with owner_db.transaction() as session:
        limits.change(session, account.name, dict.fromkeys(own), actor="test")
    assert [client.get("/v1/jobs").status_code for _ in range(2)] == [200, 429]


def send(client: FlaskClient, items: int, key: str | None = None) -> int:
    """The status of a job of so many items."""
    headers = {} if key is None else {"Idempotency-Key": key}
    urls = [{"url": f"http://shop.example/{n}.jpg"} for n in range(items)]
    return client.post("/v1/jobs", json={"items": urls}, headers=headers).status_code


def test_never_more_items_in_a_day_than_the_quota(make_app: Make, account: TestAccount, owner_db: Database) -> None:
    app = make_app(items_per_day=50, database_pool=20)
    found = at_once(lambda _: send(client_of(app, account), 3))
    assert found == {202: 16, 429: MANY - 16}
    assert count(owner_db, "items") == 48
    client = client_of(app, account)
    answer = client.post("/v1/jobs", json={"items": [{"url": "http://shop.example/"}] * 3})
    assert (answer.status_code, answer.json["code"]) == (429, "quota_exceeded")
    assert "2 of 50" in answer.json["detail"]
    assert 0 < int(answer.headers["Retry-After"]) <= 86_400
    assert [send(client, 2, "last"), send(client, 1)] == [202, 429]
    # What was accepted is answered again, quota or not, and costs nothing.
    assert send(client, 2, "last") == 202
    assert count(owner_db, "items") == 50


def test_a_refused_item_is_not_counted(make_app: Make, account: TestAccount, owner_db: Database) -> None:
    client = client_of(make_app(items_per_day=5, max_items_per_job=4), account)
    assert [send(client, 5), client.post("/v1/jobs", json={"items": [{"url": "x"}]}).status_code] == [422, 422]
    assert send(client, 4) == 202
    assert client.get("/v1/account").json["items"]["left"] == 1


def test_an_exhausted_quota_takes_no_bytes_in(
    make_app: Make, account: TestAccount, owner_db: Database, tmp_path: Path
) -> None:
    client = client_of(make_app(items_per_day=1), account)
    assert send(client, 1) == 202

    def file() -> dict[str, object]:
        return {"data": {"file": (io.BytesIO(b"bytes of a picture"), "a.jpg")}, "content_type": "multipart/form-data"}

    assert client.post("/v1/jobs", **file()).status_code == 429
    assert client.post("/v1/moderations", **file()).status_code == 429
    assert client.post("/v1/moderations", json={"url": "http://shop.example/"}).status_code == 429
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
    assert count(owner_db, "jobs") == 1


def test_what_is_refused_leaves_no_bytes(make_app: Make, account: TestAccount, tmp_path: Path) -> None:
    """Also where a little is left of the quota, but not enough; and where the policy is none."""
    client = client_of(make_app(items_per_day=2), account)

    def files(number: int) -> dict[str, object]:
        parts = [(io.BytesIO(b"bytes of picture %d" % n), f"{n}.jpg") for n in range(number)]
        return {"data": {"files": parts}, "content_type": "multipart/form-data"}

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        for n in range(3):
            made.writestr(f"{n}.jpg", b"bytes of picture %d" % n)
    packed = {"data": archive.getvalue(), "content_type": "application/zip"}
    assert [client.post("/v1/jobs", **given).status_code for given in (files(3), packed)] == [429, 429]
    assert client.post("/v1/jobs?policy=nope", **files(1)).json["code"] == "unknown_policy"
    upload = {"file": (io.BytesIO(b"bytes of a picture"), "a.jpg"), "policy": "nope"}
    assert client.post("/v1/moderations", data=upload).json["code"] == "unknown_policy"
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
    assert client.post("/v1/jobs", **files(2)).status_code == 202


def test_a_clock_that_steps_back_locks_nobody_out(make_app: Make, account: TestAccount, owner_db: Database) -> None:
    app = make_app(requests_per_minute=3)
    client = client_of(app, account)
    assert client.get("/v1/jobs").status_code == 200
    wait_for_it(owner_db, account, -3600)
    assert [client.get("/v1/jobs").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_the_next_day_begins_anew(make_app: Make, account: TestAccount, owner_db: Database) -> None:
    client = client_of(make_app(items_per_day=2), account)
    assert [send(client, 2), send(client, 1)] == [202, 429]
    with owner_db.transaction() as session:
        session.execute(text("UPDATE account_days SET day = day - 1"))
    assert [send(client, 2), send(client, 1)] == [202, 429]


def test_no_reviewer_sees_more_than_the_day_allows(
    make_app: Make, db: Database, account: TestAccount, owner_db: Database, tmp_path: Path
) -> None:
    app = make_app(webhook_keys=WEBHOOK_KEYS, review_exposure_limit=2, database_pool=20)
    known = estate(app, db, account, tmp_path / "blobs", "acme")

    def look(number: int) -> int:
        return client_of(app, account).post(f"/v1/items/{known.items[number % 3]}/thumbnail").status_code

    found = at_once(look)
    assert found.keys() <= {200, 429}, found
    assert found[200] >= 1
    assert count(owner_db, "review_exposures") <= 2
