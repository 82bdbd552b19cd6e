"""`tagmill shadow` as a person types it: what is refused is said in one line, and a report is read as it stands."""

from pathlib import Path

import pytest

from db.session import Database
from tests.conftest import TestAccount
from tests.worker.test_cli import Cli
from tests.worker.test_shadow import TAGS, Beside, jpeg, turns


@pytest.fixture
def beside(owner_db: Database, db: Database, database_url: str, tmp_path: Path) -> Beside:
    return Beside(owner_db, db, database_url, tmp_path)


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Cli:
    return Cli(
        tmp_path / "none",
        TAGMILL_DATABASE_URL=database_url,
        TAGMILL_BLOB_ROOT=str(tmp_path / "blobs"),
        TAGMILL_MODEL_ROOT=str(tmp_path / "models"),
    )


def test_from_start_to_stop(operator: Cli, beside: Beside, account: TestAccount) -> None:
    beside.candidate(renamed={"red": "crimson"})
    assert "tagmill shadow start" in operator("shadow", "list").stderr
    assert "compared with tiny-tags@1" in operator("shadow", "start", TAGS, "--share", "1", "--days", "2").stdout
    assert "running; 0 pictures compared" in operator("shadow", "report", TAGS).stdout
    beside.job(account, [jpeg("red", 1), jpeg("blue", 2)])
    turns(beside.stage())
    report = operator("shadow", "report", TAGS).stdout
    assert "the same on 1 of 2, 50.0% (95 % interval 9.5% to 90.5%)" in report
    assert "red" in report
    assert "crimson" in report
    assert "colour 50.0%" in operator("models", "show", TAGS).stdout
    assert "Stopped after 2 pictures" in operator("shadow", "stop", TAGS).stdout
    assert "stopped; 2 pictures compared" in operator("shadow", "list").stdout


def test_refusals_are_one_line_with_a_code(operator: Cli, beside: Beside) -> None:
    beside.candidate()
    refused = {
        ("start", "nobody@1"): "not_found",
        ("start", "tiny-tags@1"): "conflict",
        ("start", TAGS, "--share", "1.5"): "bad_shadow",
        ("stop", TAGS): "not_found",
        ("report", TAGS): "not_found",
    }
    for words, code in refused.items():
        said = operator("shadow", *words, code=1).stderr.strip()
        assert said.endswith(f"({code})"), said
        assert "\n" not in said
