"""Pictures over the API: clear where the verdict that counts is approve or where nobody asked for one, else veiled;
clear ones that are asked for are counted; and what is kept is asked for again."""

import io
import itertools
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import text
from werkzeug.test import TestResponse

from db import jobs
from db.decisions import Decision, append
from db.ids import item_id
from db.jobs import JobSpec, NewItem
from db.review_queue import Candidate, enqueue
from db.session import Database
from tests.api.conftest import Make, client_of, key_with
from tests.api.rows import settle
from tests.api.test_console_jobs import SHA, colours, picture
from tests.conftest import TestAccount


def analysed(database: Database, account: TestAccount, *analyses: str, context: str = "") -> UUID:
    """A job with the picture SHA, approved where moderation was asked for."""
    with database.transaction() as session:
        spec = JobSpec(analyses=analyses or ("tags", "moderation"), context=context)
        job = jobs.submit(session, account.id, spec, [NewItem(url="https://shop.example/a.jpg")], max_items=9).id
    settle(database, str(job), {0: None})
    if "moderation" not in (analyses or ("moderation",)):
        run(database, "UPDATE results SET moderation = NULL WHERE job_id = :job", job=job)
    return job


def run(database: Database, statement: str, **values: Any) -> None:
    with database.transaction() as session:
        session.execute(text(statement), values)


def machine_says(database: Database, job: UUID, verdict: str | None) -> None:
    said = (
        "CAST(NULL AS jsonb)" if verdict is None else "jsonb_set(moderation, '{verdict}', to_jsonb(CAST(:v AS text)))"
    )
    run(database, f"UPDATE results SET moderation = {said} WHERE job_id = :job", job=job, v=verdict)


def person_says(database: Database, account: TestAccount, job: UUID, verdict: str, context: str = "") -> None:
    code = "nudity" if verdict == "reject" else None
    with database.transaction() as session:
        append(session, account.id, [Decision(job, 0, SHA, context, "review", verdict, "user:x", code=code)])


def get(client: FlaskClient, job: UUID, **headers: str) -> TestResponse:
    return client.get(f"/v1/items/{item_id(job, 0)}/thumbnail", headers=headers)


def veiled(answer: TestResponse) -> bool:
    """As the picture says itself, and as the header must."""
    assert answer.status_code == 200, answer.text
    image, grey = colours(answer.data)
    assert answer.headers["Tagmill-Veiled"] == str(int(grey))
    assert max(image.size) <= 480
    return grey


@pytest.fixture
def working_copy(app: Flask, account: TestAccount) -> bytes:
    return picture(app, account)


def test_what_is_approved_is_given_as_it_is(
    client: FlaskClient, owner_db: Database, account: TestAccount, working_copy: bytes
) -> None:
    job = analysed(owner_db, account)
    assert not veiled(get(client, job))
    assert get(client, job).data == working_copy
    with owner_db.transaction() as session:
        enqueue(session, account.id, [Candidate(job, 0, SHA, "", "appeal")])
    assert not veiled(get(client, job)), "until somebody says otherwise, the verdict counts"
    person_says(owner_db, account, job, "reject")
    assert veiled(get(client, job))


@pytest.mark.parametrize("verdict", ["review", "reject", None])
def test_what_is_not_approved_is_veiled_until_a_person_approves_it(
    client: FlaskClient, owner_db: Database, account: TestAccount, working_copy: bytes, verdict: str | None
) -> None:
    job = analysed(owner_db, account)
    machine_says(owner_db, job, verdict)
    answer = get(client, job)
    assert veiled(answer)
    shapes = Image.open(io.BytesIO(answer.data)).convert("L")
    row = [shapes.getpixel((x, shapes.height // 2)) for x in range(shapes.width)]
    assert max(abs(a - b) for a, b in itertools.pairwise(row)) < 20, "the edge in the middle is gone"  # type: ignore[operator]
    person_says(owner_db, account, job, "approve")
    assert not veiled(get(client, job))


def test_what_nobody_asked_to_moderate_is_given_unless_it_was_refused_elsewhere(
    client: FlaskClient, owner_db: Database, account: TestAccount, working_copy: bytes
) -> None:
    tagged = analysed(owner_db, account, "tags")
    assert not veiled(get(client, tagged))
    moderated = analysed(owner_db, account, context="avatar")
    assert not veiled(get(client, tagged)), "approved there"
    machine_says(owner_db, moderated, "reject")
    assert veiled(get(client, tagged)), "the same bytes: no way around the verdict"
    person_says(owner_db, account, moderated, "approve", "avatar")
    assert not veiled(get(client, tagged))
    person_says(owner_db, account, moderated, "reject", "avatar")
    machine_says(owner_db, moderated, "approve")
    assert veiled(get(client, tagged))


def test_another_accounts_verdict_is_nothing_to_this_one(
    client: FlaskClient, owner_db: Database, account: TestAccount, other: TestAccount, working_copy: bytes
) -> None:
    tagged = analysed(owner_db, account, "tags")
    machine_says(owner_db, analysed(owner_db, other), "reject")
    assert not veiled(get(client, tagged))


def test_a_kept_copy_is_asked_for_again(
    client: FlaskClient, owner_db: Database, account: TestAccount, working_copy: bytes
) -> None:
    job = analysed(owner_db, account)
    clear = get(client, job)
    assert clear.headers["Cache-Control"] == "private, no-cache"
    assert "Authorization" in clear.headers["Vary"]
    again = get(client, job, **{"If-None-Match": clear.headers["ETag"]})
    assert (again.status_code, again.data, again.headers["Tagmill-Veiled"]) == (304, b"", "0")
    machine_says(owner_db, job, "reject")
    answer = get(client, job, **{"If-None-Match": clear.headers["ETag"]})
    assert veiled(answer), "what was kept is right no more"
    assert answer.headers["ETag"] != clear.headers["ETag"]
    again = get(client, job, **{"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.headers["Tagmill-Veiled"]) == (304, "1")


def test_no_scope_opens_what_is_veiled_without_a_count(
    make_app: Make, owner_db: Database, account: TestAccount, other: TestAccount
) -> None:
    """A key may have every scope: what it did not ask for clear comes veiled; what it did ask for is counted."""
    app = make_app(review_exposure_limit=1)
    working_copy = picture(app, account)
    job = analysed(owner_db, account)
    machine_says(owner_db, job, "reject")
    client = client_of(app, account)
    assert veiled(get(client, job))
    address = f"/v1/items/{item_id(job, 0)}/thumbnail"
    reviewer = key_with(owner_db, account, "reviews:write")
    for _ in range(2):
        answer = app.test_client().post(address, headers=reviewer)
        assert (answer.status_code, answer.data) == (200, working_copy)
        assert (answer.headers["Tagmill-Veiled"], answer.headers["Cache-Control"]) == ("0", "no-store")
    with owner_db.transaction() as session:
        rows = session.execute(text("SELECT actor, verdict, class, shown FROM review_exposures")).all()
    assert [tuple(row)[1:] for row in rows] == [("reject", "Neutral", 2)]
    assert rows[0].actor.startswith("key:")
    refused = app.test_client().post(address, headers=key_with(owner_db, account, "jobs:read", "reviews:read"))
    assert (refused.status_code, refused.get_json()["code"]) == (403, "missing_scope")
    assert client_of(app, other).post(address).status_code == 404
    run(owner_db, "UPDATE review_exposures SET sha256 = :sha", sha=bytes(32))
    enough = app.test_client().post(address, headers=reviewer)
    assert (enough.status_code, enough.get_json()["code"]) == (429, "exposure_limit")
    assert working_copy not in enough.data


def test_what_is_gone_is_not_counted(client: FlaskClient, owner_db: Database, account: TestAccount) -> None:
    job = analysed(owner_db, account)
    assert client.post(f"/v1/items/{item_id(job, 0)}/thumbnail").status_code == 404
    with owner_db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM review_exposures")) == 0
