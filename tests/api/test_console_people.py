"""The account's people, managed by its administrators, and the page of the system for operators."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from db import people, stats, workers
from db.blobs import LocalBlobs, work_key
from db.ids import uuid7
from db.session import Database
from tests.api.browsers import Browser, Page, somebody
from tests.api.test_console_jobs import submitted, urls
from tests.conftest import TestAccount

Browse = Callable[..., Browser]


def link_in(page: Page) -> str:
    return page.all("pre")[0].text.rpartition("/")[2]


def test_an_administrator_makes_somebody_and_the_link_lets_them_in(browse: Browse, app: Flask) -> None:
    admin = browse("admin")
    made = admin.post("/console/people", {"name": "Berta", "role": "reviewer", "email": "b@shop.example"})
    assert made.status_code == 200
    newcomer = Browser(app.test_client())
    assert newcomer.post("/console/link", {"link": link_in(Page(made.text))}).status_code == 303
    own = newcomer.page("/console/own")
    assert "berta" in own.text
    assert not own.all("input", name="now"), "there is no password to be known yet"
    again = admin.post("/console/people", {"name": "berta", "role": "viewer"}, json=True)
    assert (again.status_code, again.get_json()["code"]) == (409, "conflict")
    for fields in ({"name": "x y", "role": "viewer"}, {"name": "c", "role": "operator"}, {"name": "c", "role": "king"}):
        refused = admin.post("/console/people", fields, json=True)
        assert (refused.status_code, refused.get_json()["code"]) == (422, "bad_person")


def test_roles_count_at_once_and_shutting_out_ends_sessions(browse: Browse, owner_db: Database) -> None:
    admin, berta = browse("admin"), browse("viewer")
    assert berta.person is not None
    at = f"/console/people/{berta.person.id}"
    assert berta.get("/console/jobs/new").status_code == 403
    admin.post(f"{at}/role", {"role": "reviewer"})
    assert berta.get("/console/jobs/new").status_code == 200
    admin.post(f"{at}/disable")
    assert berta.get("/console/jobs").status_code == 303
    assert admin.post(f"{at}/link", json=True).status_code == 409
    admin.post(f"{at}/enable")
    assert berta.get("/console/jobs").status_code == 303, "the old session stays ended"
    assert admin.post(f"{at}/link").status_code == 200
    with owner_db.transaction() as session:
        acts = session.execute(text("SELECT action FROM audit_log WHERE subject = :id"), {"id": str(berta.person.id)})
        assert {"person.role", "person.disable", "person.enable", "person.link"} <= set(acts.scalars())


@pytest.mark.parametrize("act", ["role", "disable", "link", "end-sessions"])
def test_whom_an_administrator_may_not_change(
    browse: Browse, owner_db: Database, account: TestAccount, other: TestAccount, act: str
) -> None:
    """An operator (whose rights reach beyond the account), oneself, and other accounts' people."""
    admin = browse("admin")
    assert admin.person is not None
    operator = somebody(owner_db, account, "op", operator=True)
    stranger = somebody(owner_db, other, "stranger")
    fields = {"role": "viewer"} if act == "role" else {}
    for person, status in ((operator, 403), (admin.person, 409), (stranger, 404)):
        assert admin.post(f"/console/people/{person.id}/{act}", fields).status_code == status
    boss = browse("admin", operator=True)
    assert boss.post(f"/console/people/{operator.id}/{act}", fields).status_code in (200, 303)


def test_only_administrators_see_the_people(browse: Browse, other: TestAccount, owner_db: Database) -> None:
    somebody(owner_db, other, "stranger")
    assert browse("curator").get("/console/people").status_code == 403
    assert "stranger" not in browse("admin").get("/console/people").text


# --- the system ----------------------------------------------------------------------------------------------


def test_the_system_is_for_operators(browse: Browse) -> None:
    assert browse("admin").get("/console/system").status_code == 403
    assert "/console/system" not in browse("admin").get("/console/jobs").text
    assert browse("viewer", operator=True).get("/console/system").status_code == 200


def test_the_system_page_says_what_metrics_says(
    browse: Browse, owner_db: Database, other: TestAccount, tmp_path: Path
) -> None:
    submitted(owner_db, other, urls("a"))
    with owner_db.transaction() as session:
        workers.beat(session, uuid7(), "crawler", "host-7", 4711, {"work_bytes": 12_300_000.0, "raw_bytes": 5.0})
        workers.beat(session, uuid7(), "worker", "host-8", 4712, {
            "device": "cuda:3", "busy": True, "not_loaded": [], "device_busy_s": 31.0, "device_wall_s": 40.0,
        })  # fmt: skip
        job = session.execute(text("SELECT id FROM jobs")).scalar_one()
        session.execute(
            text(
                "INSERT INTO chunks (account_id, job_id, bucket, stage, state, lo, hi, done, failed, codes,"
                " finished_at)"
                " SELECT account_id, id, bucket, 'infer', 'done', 0, 9, 5, 4, CAST(:codes AS jsonb),"
                " now() - interval '10 minutes' FROM jobs WHERE id = :id"
            ),
            {"id": job, "codes": json.dumps({"http_404": 4})},
        )
        samples = {each.name: each for each in stats.samples(session)}
        flow = stats.throughput(session)
    assert samples["database_bytes"].value > 1_000_000
    assert samples["devices"].labels == {"device": "cuda:3", "busy": "true"}
    busy, wall = samples["device_busy_seconds"], samples["device_wall_seconds"]
    assert (busy.labels, busy.value, wall.value) == ({"device": "cuda:3"}, 31.0, 40.0)
    assert sum(items for _, items in flow["infer"]) == 9
    assert len(flow["infer"]) == len(flow["ingest"]) == 60
    browser = browse("viewer", operator=True)
    page = browser.page("/console/system")
    for words in ("host-7", "host-8", "cuda:3", "busy", "GPU idle 22 %", "12.3", "http_404", "No maintenance"):
        assert words in page.text, words
    assert page.all("div", **{"data-refresh": "/console/system/now"})
    assert browser.page("/console/system/now").all("div", **{"data-refresh": "/console/system/now"})


def test_how_large_the_blob_store_is(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    for n in range(3):
        blobs.put(work_key(n, bytes([n]) * 32), b"x" * 100)
    blobs.put_raw(1, [b"y" * 7], 100)
    blobs.stage_raw(1, [b"z" * 50], 100)
    assert blobs.usage() == {"raw": 7, "work": 300, "manifests": 0}, "what is kept aside is no blob yet"
    looks = iter((False, False, True))
    assert blobs.usage(lambda: next(looks)) is None, "a count that shall end tells no part of the sum"


def test_a_store_that_nobody_has_counted_is_not_called_empty(browse: Browse, owner_db: Database) -> None:
    page = browse("viewer", operator=True).page("/console/system")
    assert page.text.count("not counted yet") == 3
    with owner_db.transaction() as session:
        workers.beat(session, uuid7(), "crawler", "there", 1, {"raw_bytes": 0.0, "work_bytes": 0.0, "chunks": 1})
    page = browse("viewer", operator=True).page("/console/system")
    assert page.text.count("not counted yet") == 1


def test_the_largest_tables_are_told_with_their_partitions(owner_db: Database, account: TestAccount) -> None:
    with owner_db.transaction() as session:
        session.execute(
            text("INSERT INTO audit_log (account_id, actor, action, subject, detail)"
                 " SELECT :id, 'x', 'y', repeat('z', 500), '{}' FROM generate_series(1, 4000)"),
            {"id": account.id},
        )  # fmt: skip
    with owner_db.transaction() as session:
        tables = {each.labels["table"]: each.value for each in stats.samples(session) if each.name == "table_bytes"}
    assert tables["audit_log"] >= 2_000_000
    assert all(value >= 1 << 20 for value in tables.values())


def test_somebody_is_of_one_account(owner_db: Database, account: TestAccount, other: TestAccount) -> None:
    person = somebody(owner_db, account, "anna")
    with owner_db.transaction() as session:
        assert people.names(session, account.id) == {person.actor: "anna"}
        assert people.names(session, other.id) == {}
