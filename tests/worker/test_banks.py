"""Bans as the operator makes them: `tagmill banks` as a person types it, maintenance that works them off and dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from db import bank_changes, bank_entries, bank_redecisions, bank_sweep
from db.bank_entries import NewEntry
from db.session import Database
from tests.conftest import TestAccount
from tests.db.bank_line import infer, ingest, moderation, near, public, submit, verdicts
from tests.db.test_banks import FAR, H, ban, make_bank, sql, surge, work_off
from tests.worker.test_cli import Cli
from worker import banning, doctor_banks
from worker.local import Place


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Cli:
    return Cli(
        tmp_path / "none",
        TAGMILL_DATABASE_URL=database_url,
        TAGMILL_BLOB_ROOT=str(tmp_path / "blobs"),
        TAGMILL_MODEL_ROOT=str(tmp_path / "models"),
    )


def test_from_a_bank_to_a_ban_and_back(operator: Cli, db: Database, account: TestAccount) -> None:
    job = submit(db, account, ["same", "near", "other"])
    ingest(db, {"same": H, "near": near(H, 9), "other": FAR})
    infer(db)
    assert "tagmill banks create" in operator("banks", "list").stdout
    assert "The block bank stolen is made" in operator("banks", "create", "stolen").stdout
    said = operator("banks", "add", "stolen", "--item", public(job), "--reason", "[red]no[/]").stdout
    assert H in said
    assert "[red]no[/]" in said
    assert "2 pictures match:" in said
    assert public(job, 1) in said
    work_off(db)
    assert verdicts(db, job) == ["reject", "reject", "approve"]
    matches = operator("banks", "matches", "stolen", H).stdout
    assert matches.count("reject") == 2
    assert "1 on" in operator("banks", "list").stdout
    operator("banks", "switch", "stolen", H, "--off")
    work_off(db)
    assert verdicts(db, job) == ["approve"] * 3
    assert f"{H} off" in operator("banks", "list", "stolen").stdout
    operator("banks", "switch", "stolen", H, "--on")
    operator("banks", "remove", "stolen", H)
    assert "No entry." in operator("banks", "list", "stolen").stdout
    operator("banks", "remove", "stolen")
    assert "tagmill banks create" in operator("banks", "list").stdout


def test_lists_in_and_out(operator: Cli, tmp_path: Path, account: TestAccount) -> None:
    operator("banks", "create", "police", "--account", account.name, "--distance", "20")
    (tmp_path / "in.csv").write_text(f"pdq,reason\n{H},one\nxyz,two\n{FAR},three\n")
    said = operator("banks", "import", "police", str(tmp_path / "in.csv"), "--account", account.name, code=1).stderr
    assert "2 added, 0 known already, 0 removed" in said
    assert "line 3: pdq: A PDQ hash is 64 hexadecimal digits. (invalid_pdq)" in said
    assert "1 wrong line left out" in said
    out = tmp_path / "out.csv"
    operator("banks", "export", "police", "--account", account.name, "--out", str(out))
    again = operator("banks", "import", "police", str(out), "--account", account.name).stderr
    assert "0 added, 2 known already" in again
    (tmp_path / "more.txt").write_text("pdq " + "ab" * 32 + "\n")
    assert "1 added" in operator("banks", "import", "police", str(tmp_path / "more.txt"), "--account", "acme").stderr
    lines = operator("banks", "export", "police", "--account", account.name, "--format", "signals").stdout.splitlines()
    assert lines == [f"pdq {each}" for each in ("ab" * 32, FAR, H)]


def test_refusals_are_one_line_with_a_code(operator: Cli, tmp_path: Path) -> None:
    operator("banks", "create", "stolen")
    (tmp_path / "bad.csv").write_text("hash\n")
    refused = {
        ("create", "stolen"): "conflict",
        ("add", "nothing", H): "not_found",
        ("add", "stolen", "--item", "x-1"): "not_found",
        ("matches", "stolen", FAR): "not_found",
        ("matches", "stolen", "xyz"): "not_found",
        ("release", "stolen", H): "not_found",
        ("import", "stolen", str(tmp_path / "bad.csv")): "invalid_hash_list",
        ("list", "--account", "nobody"): "not_found",
    }
    for words, code in refused.items():
        said = operator("banks", *words, code=1).stderr.strip()
        assert said.endswith(f"({code})"), said
        assert "\n" not in said
    for words in (
        ("create", "No Name"),
        ("create", "x", "--kind", "deny"),
        ("add", "stolen", "xyz"),
        ("add", "stolen"),
    ):
        operator("banks", *words, code=2)


def test_a_ban_goes_on_where_a_killed_process_stopped(
    db: Database, database_url: str, account: TestAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"p{n}": near(H, n % 32) for n in range(30)}
    job = submit(db, account, list(names))
    ingest(db, names)  # type: ignore[arg-type]
    infer(db)
    ban(db, account.id, make_bank(db, account.id))
    code = (
        "import sys, threading\nfrom db.session import Database\nfrom worker import banning\nbanning.BATCH = 7\n"
        "banning.run_once(Database(sys.argv[1], role='tagmill_worker'), 200, threading.Event(), turn_s=60)"
    )
    markers = [tmp_path / f"marker{n}" for n in range(3)]
    for marker in markers:
        environment = {
            **os.environ,
            "TAGMILL_TEST_BUILD": "1",
            "TAGMILL_FAILPOINTS": f"before_ban_commit={marker}",
        }
        died = subprocess.run([sys.executable, "-c", code, database_url], env=environment, check=False, timeout=60)
        assert died.returncode == -9
        assert marker.exists()
        assert verdicts(db, job).count("reject") == 0, "what was not committed did not happen"
    monkeypatch.setattr(banning, "BATCH", 7)
    work_off(db)
    assert verdicts(db, job) == ["reject"] * 30
    assert sql(db, "SELECT state, pictures, results, changed FROM bank_changes") == [("done", 30, 30, 30)]
    assert sql(db, "SELECT count(*) FROM decisions WHERE kind = 'bank'") == [(30,)], "each is decided again once"


def test_the_newest_pictures_come_first(db: Database, owner_db: Database, account: TestAccount) -> None:
    names = {f"p{n}": near(H, n) for n in range(6)}
    job = submit(db, account, list(names))
    ingest(db, names)  # type: ignore[arg-type]
    infer(db)
    for n in range(6):
        sql(
            owner_db,
            "UPDATE images SET created_at = now() - make_interval(hours => :n) WHERE sha256 ="
            " (SELECT sha256 FROM results WHERE job_id = :job AND seq = :n)",
            n=n,
            job=job,
        )
    ban(db, account.id, make_bank(db, account.id))
    assert banning._step(db, 200) == 0, "listed"
    with db.transaction() as session:
        change = bank_changes.next_open(session)
        assert change is not None
        first = bank_changes.take(session, change.id, 2)
        bank_redecisions.redecide_pictures(session, account.id, [each.sha256 for each in first], "x")
    assert verdicts(db, job) == ["reject", "reject", "approve", "approve", "approve", "approve"]
    work_off(db)
    assert verdicts(db, job) == ["reject"] * 6


def test_a_single_ban_does_not_wait_for_a_long_list(
    db: Database, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pages of a list, bans of one entry are worked off."""
    monkeypatch.setattr(bank_sweep, "PAGE", 2)
    names = {f"p{n}": f"{n:02x}" * 32 for n in range(1, 8)} | {"same": H}
    job = submit(db, account, list(names))
    ingest(db, names)  # type: ignore[arg-type]
    infer(db)
    many = make_bank(db, account.id, "many")
    with db.transaction() as session:
        new = [NewEntry(f"{n:02x}{255 - n:02x}" * 16) for n in range(40, 70)]
        bank_entries.add_many(session, account.id, many, new, "test")
    pages: list[str] = []
    find = bank_sweep.find

    def count(*given: object) -> object:
        found = find(*given)  # type: ignore[arg-type]
        if given[1].entry_id is None:  # type: ignore[attr-defined]
            pages.append(moderation(db, job, 7)["verdict"])
            if len(pages) == 1:
                ban(db, account.id, make_bank(db, account.id, "one"))
        return found

    monkeypatch.setattr(bank_sweep, "find", count)
    work_off(db)
    assert pages[0] == "approve"
    assert pages[1:] == ["reject"] * (len(pages) - 1)
    assert len(pages) >= 4


def test_the_doctor_names_banks_with_entries_in_quarantine(
    db: Database, database_url: str, account: TestAccount, tmp_path: Path
) -> None:
    where = Place(database_url, "redis://x", tmp_path, tmp_path, "TAGMILL_DATABASE_URL")
    assert list(doctor_banks.banks(where)) == []
    ban(db, account.id, make_bank(db, account.id))
    work_off(db)
    (good,) = doctor_banks.banks(where)
    assert (good.state, good.found) == ("good", "1 with 1 entries")
    surge(db, account, 3, "new")
    work_off(db, surge=2)
    (found,) = doctor_banks.banks(where)
    assert found.state == "warning"
    assert "1 in quarantine (banned)" in found.found


def test_an_entry_that_finds_too_much_is_shown_until_somebody_has_looked(
    operator: Cli, db: Database, database_url: str, account: TestAccount, tmp_path: Path
) -> None:
    where = Place(database_url, "redis://x", tmp_path, tmp_path, "TAGMILL_DATABASE_URL")
    surge(db, account, 3, "old")
    operator("banks", "create", "stolen")
    operator("banks", "add", "stolen", H)
    work_off(db, surge=2)
    (found,) = doctor_banks.banks(where)
    assert found.state == "warning"
    assert "1 found very many of the pictures there were (stolen)" in found.found
    assert "1 wide" in operator("banks", "list").stdout
    said = operator("banks", "list", "stolen", "--state", "wide").stdout
    assert f"{H} wide" in said
    assert "found 3 of the pictures there were" in said
    operator("banks", "release", "stolen", H)
    assert f"{H} on" in operator("banks", "list", "stolen").stdout
    (good,) = doctor_banks.banks(where)
    assert good.state == "good"
