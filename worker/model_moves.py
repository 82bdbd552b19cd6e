"""Carries out an activation or a rollback that somebody asked for in the console: `python -m worker.model_moves ID`.

A process of its own, because it reads weights: the maintenance role, whose duty starts it, stays without torch.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from db import model_moves, registry
from db.errors import DbError
from db.model_tables import ModelMove
from db.promotion import Margins
from db.session import Database
from worker import log

PATIENCE_S = 300


def due(database: Database, carry_out: Callable[[UUID], None]) -> int:
    """Carry out the move that waits, if one does; how many."""
    with database.transaction() as session:
        move = model_moves.take(session)
    if move is None:
        return 0
    carry_out(move.id)
    return 1


def in_a_process(move_id: UUID) -> None:
    """Its end, good or bad, is in the database; one that hangs is ended and counts as a try."""
    command = [sys.executable, "-m", "worker.model_moves", str(move_id)]
    try:
        ended = subprocess.run(command, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        log.get("models").warning("a change of models hung", move=str(move_id))
        return
    if ended.returncode != 0:
        log.get("models").warning("a change of models died", move=str(move_id), code=ended.returncode)


def carry_out(database: Database, model_root: Path, move_id: UUID, margins: Margins) -> None:
    """Do it and note its end in one transaction. What speaks against it is noted with its code."""
    from ml.errors import ModelError

    with database.transaction() as session:
        move = model_moves.lock(session, move_id)
    if move is None:
        return
    try:
        if move.action == "activate":
            _look_at_files(database, model_root, move)
        with database.transaction() as session:
            if model_moves.lock(session, move_id) is None:
                return
            if move.action == "activate":
                name, _, version = move.ref.rpartition("@")
                registry.activate(session, name, version, forced=move.forced, margins=margins, actor=move.actor)
            else:
                current = registry.active(session, move.task)
                if current is not None and current.ref == move.ref:  # else somebody was quicker: what he wanted is so
                    registry.rollback(session, move.task, actor=move.actor)
            model_moves.end(session, move_id)
    except (DbError, ModelError) as error:
        detail = error.detail if isinstance(error, ModelError) else str(error)
        with database.transaction() as session:
            model_moves.end(session, move_id, error.code, detail)


def _look_at_files(database: Database, model_root: Path, move: ModelMove) -> None:
    """Raises ArtifactError: what workers could not load is never activated."""
    from ml import artifact

    with database.transaction() as session:
        model = registry.by_ref(session, move.ref)
    name, _, version = move.ref.rpartition("@")
    artifact.load(model_root / name / version, model.sha256)


def main() -> int:
    """Carry out the move that the command line names."""
    from worker import promotion_margins, wiring
    from worker.settings import WorkerSettings

    settings = WorkerSettings()
    log.configure(settings.log_format)
    database = wiring.database(settings, "models")
    carry_out(database, settings.model_root, UUID(sys.argv[1]), promotion_margins.configured())
    database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
