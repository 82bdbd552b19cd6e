"""The audit log over HTTP: an account's own entries, and the check of the chain over everybody's."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from db import audit, audit_chain
from db.session import Database
from tests.api.conftest import client_of
from tests.conftest import TestAccount
from tests.db.judged import judge


def act(db: Database, account: TestAccount, count: int = 5) -> None:
    with db.transaction() as session:
        for number in range(count):
            audit.record(session, account.id, "key:<b>x", "test.act", f"s{number}", number=number)


def seal(db: Database) -> None:
    with db.transaction() as session:
        audit_chain.seal(session)


def test_pages_of_the_accounts_own_entries(
    client: FlaskClient, db: Database, account: TestAccount, other: TestAccount
) -> None:
    act(db, account)
    act(db, other)
    seal(db)
    act(db, account, 1)
    first = client.get("/v1/audit?limit=4").json
    assert [(row["subject"], row["seq"] is None) for row in first["entries"]] == [
        ("s0", True), ("s4", False), ("s3", False), ("s2", False),
    ]  # fmt: skip
    second = client.get(f"/v1/audit?limit=4&cursor={first['next']}").json
    assert [row["subject"] for row in second["entries"]] == ["s1", "s0"]
    assert second["next"] is None
    assert len(second["entries"][0]["hash"]) == 64
    assert [row["subject"] for row in client.get("/v1/audit?subject=s3").json["entries"]] == ["s3"]
    assert client.get("/v1/audit?action=test.other").json["entries"] == []


def test_the_chain_in_parts(client: FlaskClient, db: Database, account: TestAccount, other: TestAccount) -> None:
    act(db, account, 3)
    act(db, other, 3)
    seal(db)
    act(db, other, 2)
    whole = client.get("/v1/audit/verify").json
    assert whole == {
        "sound": True, "complete": True, "entries": 6, "evidence": 0, "head": whole["head"], "next": None, "waiting": 2,
        "findings": [],
    }  # fmt: skip
    part = client.get("/v1/audit/verify?limit=4").json
    assert (part["complete"], part["entries"], part["next"], part["waiting"]) == (False, 4, 5, None)
    rest = client.get(f"/v1/audit/verify?first={part['next']}").json
    assert (rest["complete"], rest["entries"], rest["head"]) == (True, 2, whole["head"])


def test_an_edited_entry_of_another_account_is_named_and_not_shown(
    client: FlaskClient, db: Database, owner_db: Database, account: TestAccount, other: TestAccount
) -> None:
    act(db, account, 2)
    act(db, other, 2)
    seal(db)
    with owner_db.transaction() as session:
        session.execute(text("UPDATE audit_log SET subject = 'their secret' WHERE id = 3"))
    answer = client.get("/v1/audit/verify")
    assert answer.json["sound"] is False
    (finding,) = answer.json["findings"]
    assert (finding["what"], finding["entry"], finding["seq"]) == ("edited", 3, 3)
    assert "secret" not in answer.get_data(as_text=True)


def test_a_cut_tail_against_an_earlier_head(
    client: FlaskClient, db: Database, owner_db: Database, account: TestAccount
) -> None:
    act(db, account, 4)
    seal(db)
    head = client.get("/v1/audit/verify").json["head"]
    assert client.get("/v1/audit/verify", query_string={"expect_head": head}).json["sound"] is True
    with owner_db.transaction() as session:
        for sql in ("DELETE FROM audit_log WHERE id > 2", "DELETE FROM audit_seals WHERE seq > 2"):
            session.execute(text(sql))
    assert client.get("/v1/audit/verify").json["sound"] is True
    found = client.get("/v1/audit/verify", query_string={"expect_head": head}).json
    assert [finding["what"] for finding in found["findings"]] == ["removed"]


def test_an_edited_verdict_is_named_to_its_account_only(
    app: Flask, client: FlaskClient, db: Database, owner_db: Database, account: TestAccount, other: TestAccount
) -> None:
    judge(db, account, ["reject"])
    seal(db)
    assert client.get("/v1/audit/verify").json["evidence"] == 1
    with owner_db.transaction() as session:
        session.execute(text("UPDATE results SET moderation = moderation - 'reasons'"))
    assert [f["what"] for f in client.get("/v1/audit/verify").json["findings"]] == ["edited"]
    assert client.get("/v1/audit/verify?evidence=false").json["sound"] is True
    assert client_of(app, other).get("/v1/audit/verify").json["sound"] is True


@pytest.mark.parametrize("query", ["expect_head=1", "first=0", "limit=100000", "expect_head=x%3Ay", "until=3"])
def test_bad_parameters_are_refused(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/v1/audit/verify?{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
    assert answer.json["errors"][0]["field"] == query.partition("=")[0]
