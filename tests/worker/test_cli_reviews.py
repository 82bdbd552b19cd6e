"""`tagmill reviews` as a person types it."""

import json
from pathlib import Path

import pytest

from db import review_exposure
from db.review_exposure import Shown
from db.session import Database
from tests.conftest import TestAccount
from tests.db.reviewing import sha_of, verdict, work_off
from tests.db.test_reviews_decide import ANN, BOB, claim, decide
from tests.worker.test_cli import Cli

ACME = ("--account", "acme")


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Cli:
    return Cli(
        tmp_path / "none",
        TAGMILL_DATABASE_URL=database_url,
        TAGMILL_BLOB_ROOT=str(tmp_path / "blobs"),
        TAGMILL_MODEL_ROOT=str(tmp_path / "models"),
    )


def test_what_waits_and_how_right_everybody_is(operator: Cli, db: Database, account: TestAccount) -> None:
    assert "Nothing waits" in operator("reviews", "list", *ACME).stderr
    work_off(db, account, {f"a{n}": verdict("approve") for n in range(12)}, audit_share=1.0)
    work_off(db, account, {"v": verdict("review")}, context="avatar")
    listed = operator("reviews", "list", *ACME).stdout
    assert "porn_review" in listed
    assert "avatar" in listed
    for task in claim(db, account, ANN, 20):
        wrong = bytes(task.sha256) in (sha_of("a0"), sha_of("v"))
        decide(db, account, ANN, task, "reject" if wrong else "approve", second_share=1.0)
    for task in claim(db, account, BOB, 20):
        decide(db, account, BOB, task, "approve")
    shown = operator("reviews", "quality", *ACME).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "approvals that people would reject" in shown
    assert "8.3% (0.2% … 38.5%)" in shown, "1 of 12, Clopper and Pearson"
    assert "caught of what people would reject (recall)  50.0%" in " ".join(shown.split(" ")).replace("   ", "  ")
    assert "13 second opinions, 11 the same" in shown
    (ann,) = (line.split() for line in shown.splitlines() if "user:ann" in line)
    assert ann == ["user:ann", "13", "–", "100%", "of", "11", "–"], "two are with the curators"
    document = json.loads(operator("reviews", "quality", *ACME, "--json").stdout)
    assert document["automation"]["missed"]["value"] == pytest.approx(1 / 12)
    assert document["agreement"][0]["pairs"] == 13
    assert "–" in operator("reviews", "quality", *ACME, "--policy", "other").stdout


def test_known_answers_and_exposure(operator: Cli, db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"a": verdict("approve")})
    item = f"{job.id.hex}-0"
    assert "There is none yet" in operator("reviews", "gold", "list", *ACME).stdout
    known = operator("reviews", "gold", "add", item, "reject", *ACME).stdout.split()[2].rstrip(":")
    listed = operator("reviews", "gold", "list", *ACME).stdout
    assert item in listed
    assert known in listed
    assert "Removed" in operator("reviews", "gold", "remove", known, *ACME).stdout
    assert operator("reviews", "gold", "remove", known, *ACME, code=1).stderr.strip().endswith("(not_found)")
    assert "approve or reject" in operator("reviews", "gold", "add", item, "maybe", *ACME, code=2).stderr
    assert "Nobody" in operator("reviews", "exposure", *ACME).stderr
    with db.transaction(account.id) as session:
        review_exposure.count(session, account.id, ANN, [Shown(sha_of("a"), verdict("review"))])
    assert "Porn 1" in operator("reviews", "exposure", *ACME).stdout
