"""Activations and rollbacks that somebody asked for in the console, carried out where the weights are."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from db import model_moves, registry
from db.errors import Conflict, NotFound
from db.model_tables import ModelMove
from db.promotion import MARGINS
from db.session import Database
from ml.artifact import WEIGHTS_FILE
from ml.tiny import make_tiny
from tests.conftest import TestAccount
from tests.worker.line import rows
from worker.model_moves import carry_out, due


def installed(database: Database, root: Path, version: str, *, active: bool = False) -> str:
    made = make_tiny(root / "tiny-tags" / version, "tags", version=version)
    with database.transaction() as session:
        registry.install_model(session, made.card.to_dict(), made.sha256)
        if active:
            registry.activate(session, "tiny-tags", version)
    return f"tiny-tags@{version}"


def asked(database: Database, action: str, ref: str, **given: Any) -> UUID:
    with database.transaction(given.get("account_id")) as session:
        return model_moves.ask(session, action, ref, actor="user:1", **given).id


def now(database: Database, move_id: UUID) -> tuple[str, str | None]:
    with database.transaction() as session:
        move = session.get_one(ModelMove, move_id)
        return move.state, move.code


def active(database: Database) -> str | None:
    with database.transaction() as session:
        model = registry.active(session, "tags")
        return model and model.ref


def carried_out(database: Database, root: Path) -> int:
    return due(database, lambda move_id: carry_out(database, root, move_id, MARGINS))


def test_an_activation_and_its_rollback(db: Database, api_db: Database, account: TestAccount, tmp_path: Path) -> None:
    first = installed(db, tmp_path, "1", active=True)
    second = installed(db, tmp_path, "2")
    move = asked(api_db, "activate", second, account_id=account.id)
    assert active(db) == first, "asking changes nothing"
    assert carried_out(db, tmp_path) == 1
    assert (now(db, move), active(db)) == (("done", None), second)
    assert carried_out(db, tmp_path) == 0
    move = asked(api_db, "rollback", second, account_id=account.id)
    assert carried_out(db, tmp_path) == 1
    assert (now(db, move), active(db)) == (("done", None), first)
    entries = rows(db, "SELECT actor, action FROM audit_log WHERE action IN ('model.activate', 'model.rollback')")
    assert {("user:1", "model.activate"), ("user:1", "model.rollback")} <= {
        (each.actor, each.action) for each in entries
    }


def test_damaged_weights_are_refused_with_their_code(db: Database, tmp_path: Path) -> None:
    first = installed(db, tmp_path, "1", active=True)
    second = installed(db, tmp_path, "2")
    weights = tmp_path / "tiny-tags" / "2" / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    move = asked(db, "activate", second, forced="because")
    carried_out(db, tmp_path)
    assert (now(db, move), active(db)) == (("refused", "weights_hash_mismatch"), first)


def test_one_change_of_a_task_at_a_time(db: Database, tmp_path: Path) -> None:
    first = installed(db, tmp_path, "1", active=True)
    second = installed(db, tmp_path, "2")
    asked(db, "activate", second)
    with pytest.raises(Conflict, match="under way"):
        asked(db, "rollback", first)
    with pytest.raises(NotFound):
        asked(db, "activate", "nobody@1")
    with pytest.raises(Conflict, match="not active"):
        asked(db, "rollback", second)


def test_a_rollback_of_what_is_not_active_any_more_does_nothing(db: Database, tmp_path: Path) -> None:
    """Between asking and doing somebody rolled back by hand: a second one would go one version further back."""
    installed(db, tmp_path, "1", active=True)
    second = installed(db, tmp_path, "2", active=True)
    third = installed(db, tmp_path, "3", active=True)
    move = asked(db, "rollback", third)
    with db.transaction() as session:
        registry.rollback(session, "tags")
    carried_out(db, tmp_path)
    assert (now(db, move), active(db)) == (("done", None), second)


def test_three_tries_that_died_end_it(db: Database, tmp_path: Path) -> None:
    installed(db, tmp_path, "1", active=True)
    move = asked(db, "activate", installed(db, tmp_path, "2"))
    tries: list[UUID] = []
    for _ in range(5):
        due(db, tries.append)
    assert tries == [move] * 3
    assert now(db, move) == ("refused", "worker_died")


def test_a_process_of_its_own_carries_it_out(
    db: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.model_moves import in_a_process

    installed(db, tmp_path, "1", active=True)
    second = installed(db, tmp_path, "2")
    move = asked(db, "activate", second)
    for name, value in (
        ("DATABASE_URL", database_url), ("MODEL_ROOT", str(tmp_path)), ("BLOB_ROOT", str(tmp_path / "blobs")),
    ):  # fmt: skip
        monkeypatch.setenv(f"TAGMILL_{name}", value)
    due(db, in_a_process)
    assert (now(db, move), active(db)) == (("done", None), second)
