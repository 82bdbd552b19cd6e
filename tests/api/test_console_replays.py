"""What-if in the console: asked for by curators, shown with flips, samples and load; walls between accounts."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from db import policy, replays
from db.ids import item_id, uuid7
from db.session import Database
from db.whatif import Window
from tests.api.browsers import Browser
from tests.conftest import TestAccount, make_account

Browse = Callable[..., Browser]
NASTY = "</title><script>alert(1)</script>"
TEXT = "name: tried\nrules:\n  - {id: one, when: {score: Porn, at_least: 0.5}, then: reject, code: adult}\n"
WINDOW = Window(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 4, tzinfo=UTC))


def finished(database: Database, account: TestAccount, **changed: Any) -> str:
    """A what-if of three days that found two flips."""
    document = {"name": "default", "version": 2, "rules": []}
    day = {"analyses": 5, "before": {"approve": 5, "review": 0, "reject": 0}}
    result = {
        "analyses": 10, "changed": 3, "written": 0, "seconds": 0.5,
        "before": {"approve": 9, "review": 1, "reject": 0}, "after": {"approve": 7, "review": 2, "reject": 1},
        "flips": [{"before": "approve", "after": "review", "count": 2, "samples": [item_id(uuid7(), 3)],
                   "rules": [{"rule": NASTY, "was": None, "count": 2}]}],
        "rules": [], "people": {"decided": 4, "before_agrees": 2, "after_agrees": 3},
        "days": [{**day, "day": f"2026-03-0{n}", "after": {"approve": 5 - n, "review": n, "reject": 0}} for n in (1, 2)]
    } | changed  # fmt: skip
    with database.transaction() as session:
        run = replays.enqueue(
            session, account.id, "what_if", policy.validate(document), document, WINDOW, actor="user:1"
        )
        claimed = replays.claim(session, uuid7(), 60)
        assert claimed is not None
        replays.finish(session, claimed, result)
        return str(run.id)


def test_a_what_if_is_shown_with_its_flips_and_samples(
    browse: Browse, owner_db: Database, account: TestAccount
) -> None:
    address = f"/console/replays/{finished(owner_db, account)}"
    page = browse("viewer").page(address)
    labels = {each.attributes.get("aria-label") for each in page.elements}
    assert {"Changed verdicts by the rule", "Reviews by day", "Verdicts now", "Verdicts with this policy"} <= labels
    (sample,) = [each for each in page.all("img") if "/console/pictures/" in (each.attributes.get("src") or "")]
    assert sample.attributes["alt"] == "Sample 1"
    assert NASTY in page.text, "a rule's id is text"
    assert not [each for each in page.all("script") if "src" not in each.attributes]
    assert not [each for each in page.elements if "data-refresh" in each.attributes], "it is finished"
    assert "default@2" in browse("viewer").page("/console/replays").text


def test_curators_replay_stored_policies_and_drafts(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    curator = browse("curator")
    for fields in ({"policy": "default", "days": "30"}, {"source": TEXT}):
        answer = curator.post("/console/replays", fields)
        assert answer.status_code == 303
        page = curator.page(answer.headers["Location"])
        assert [each for each in page.elements if "data-refresh" in each.attributes], "it is looked at again"
        assert curator.post(answer.headers["Location"] + "/cancel").status_code == 303
    with owner_db.transaction() as session:
        made = session.execute(text("SELECT policy, kind, actor, until - since AS days FROM replays ORDER BY id")).all()
    assert curator.person is not None
    assert [(row.policy, row.kind, row.actor, row.days.days) for row in made] == [
        ("default@1", "what_if", curator.person.actor, 30), ("tried@0", "what_if", curator.person.actor, 7),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"source": TEXT.replace("reject", "burn")}, 422, "line 3"),
        ({}, 422, "Choose a policy"),
        ({"policy": "nobody"}, 404, ""),
        ({"policy": "default", "days": "0"}, 422, ""),
        ({"policy": "default", "kind": "redecide"}, 403, "admin"),
    ],
)
def test_what_is_wrong_is_said(browse: Browse, fields: dict[str, str], status: int, words: str) -> None:
    answer = browse("curator").post("/console/replays", fields)
    assert answer.status_code == status
    assert words in answer.text


def test_administrators_decide_again_and_viewers_only_look(
    app: Flask, browse: Browse, owner_db: Database, account: TestAccount
) -> None:
    answer = browse("admin").post("/console/replays", {"policy": "default", "kind": "redecide"})
    assert answer.status_code == 303
    with owner_db.transaction() as session:
        (row,) = session.execute(text("SELECT kind, selection FROM replays")).all()
    assert (row.kind, row.selection) == ("redecide", {"policy": "default"})
    assert browse("reviewer").post("/console/replays", {"policy": "default"}).status_code == 403


def test_another_accounts_replay_is_not_found(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    theirs = finished(owner_db, make_account(owner_db, "rival"))
    browser = browse("admin")
    browser.page(f"/console/replays/{theirs}", 404)
    browser.page(f"/console/replays/{theirs}/live", 404)
    assert browser.post(f"/console/replays/{theirs}/cancel").status_code == 404
