"""Erasures over HTTP: asked for, read, listed; what they do is in tests/db and tests/worker."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from db.ids import item_id
from db.session import Database
from tests.api.conftest import client_of, key_with
from tests.conftest import TestAccount
from tests.db.erasing import worked_off
from tests.db.test_erasure import run
from tests.db.test_line import urls


def ask(client: FlaskClient, **body: Any) -> Any:
    return client.post("/v1/erasures", json=body)


def test_an_item_is_erased_and_its_receipt_read(client: FlaskClient, db: Database, account: TestAccount) -> None:
    job = run(db, account, urls(3))
    item = item_id(job.id, 1)
    answer = ask(client, kind="item", target=item, reference="DSR-7")
    assert answer.status_code == 202
    body = answer.get_json()
    assert (body["state"], body["target"], body["reference"], body["actor"]) == (
        "asked", item, "DSR-7", f"key:{account.key_id}"
    )  # fmt: skip
    assert answer.headers["Location"] == body["url"]
    worked_off(db, body["id"])
    read = client.get(f"/v1/erasures/{body['id']}").get_json()
    assert (read["state"], read["counts"]["items"]) == ("running", 1), "the blobs are maintenance's"
    assert read["rows_at"] is not None
    gone = client.get(f"/v1/items/{item}").get_json()
    assert (gone["outcome"], gone["code"], gone["url"]) == ("failed", "erased", None)
    assert client.get(f"/v1/items/{item}/thumbnail").status_code == 404
    assert b"1.jpg" not in client.get(f"/v1/jobs/{job.id}/results?format=csv").data


def test_a_name_is_not_in_the_receipt(client: FlaskClient) -> None:
    body = ask(client, kind="subject", target="person-7").get_json()
    assert body["target"] is None
    assert "person-7" not in client.get(f"/v1/erasures/{body['id']}").text


def test_of_another_account_nothing_is_erased_or_seen(
    client: FlaskClient, app: Flask, db: Database, account: TestAccount, other: TestAccount
) -> None:
    theirs = run(db, other, urls(2))
    for kind, target in (("item", item_id(theirs.id, 0)), ("job", str(theirs.id)), ("account", other.name)):
        assert ask(client, kind=kind, target=target).status_code == 404
    made = ask(client_of(app, other), kind="product", target="x").get_json()["id"]
    assert client.get(f"/v1/erasures/{made}").status_code == 404
    assert client.get("/v1/erasures").get_json()["erasures"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "kind"),
        ({"kind": "everything", "target": "x"}, "kind"),
        ({"kind": "picture", "target": "abc"}, "target"),
        ({"kind": "product", "target": ""}, "target"),
        ({"kind": "product", "target": "x", "account_id": 2}, "account_id"),
        ({"kind": "product", "target": "x", "reference": "a\n"}, "reference"),
    ],
)
def test_what_is_wrong_is_named(client: FlaskClient, body: dict[str, Any], field: str) -> None:
    answer = ask(client, **body)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_body")
    assert field in [fault["field"] for fault in answer.get_json()["errors"]]


def test_erasures_are_listed_by_pages(client: FlaskClient) -> None:
    made = [ask(client, kind="product", target=f"p{n}").get_json()["id"] for n in range(3)]
    page = client.get("/v1/erasures?limit=2").get_json()
    assert [each["id"] for each in page["erasures"]] == made[:0:-1]
    rest = client.get(f"/v1/erasures?cursor={page['next']}").get_json()
    assert ([each["id"] for each in rest["erasures"]], rest["next"]) == (made[:1], None)


def test_to_erase_needs_a_scope_of_its_own(app: Flask, owner_db: Database, account: TestAccount) -> None:
    headers = key_with(owner_db, account, "jobs:write", "erasures:read")
    answer = app.test_client().post("/v1/erasures", json={"kind": "product", "target": "x"}, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "missing_scope")
    metrics = app.test_client().get("/metrics", headers=key_with(owner_db, account, "system:read"))
    assert "tagmill_erasures_open 0.0" in metrics.text
