"""Model versions: which are installed, which is active for a task."""

import json
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.errors import Conflict, NotFound
from db.tables import ModelVersion, PolicyVersion


def install_model(session: Session, card: dict[str, Any], sha256: str) -> ModelVersion:
    """Register an artifact as a candidate. The same (name, version) with other weights is a Conflict."""
    known = _find(session, card["name"], card["version"])
    if known is not None:
        if known.sha256 != sha256:
            raise Conflict(f"{known.ref} is registered with other weights (SHA-256 {known.sha256}).")
        return known
    row_id = session.execute(
        text(
            "INSERT INTO model_versions (name, version, task, sha256, card)"
            " VALUES (:name, :version, :task, :sha256, CAST(:card AS jsonb)) RETURNING id"
        ),
        {
            "name": card["name"],
            "version": card["version"],
            "task": card["task"],
            "sha256": sha256,
            "card": json.dumps(card),
        },
    ).scalar_one()
    return session.get_one(ModelVersion, row_id)


def activate(session: Session, name: str, version: str) -> ModelVersion:
    """Make this version the active one of its task; the one before is retired. Jobs keep what they pinned."""
    model = _find(session, name, version)
    if model is None:
        raise NotFound(f"No model {name}@{version} is registered.")
    parameters = {"id": model.id, "task": model.task}
    session.execute(
        text("UPDATE model_versions SET state = 'retired' WHERE task = :task AND state = 'active' AND id <> :id"),
        parameters,
    )
    session.execute(
        text("UPDATE model_versions SET state = 'active', activated_at = now() WHERE id = :id AND state <> 'active'"),
        parameters,
    )
    session.refresh(model)
    return model


def active(session: Session, task: str) -> ModelVersion | None:
    """The active version of a task."""
    return session.scalar(select(ModelVersion).where(ModelVersion.task == task, ModelVersion.state == "active"))


def by_ref(session: Session, ref: str) -> ModelVersion:
    """The version that a job pinned as name@version; NotFound."""
    name, _, version = ref.rpartition("@")
    model = _find(session, name, version)
    if model is None:
        raise NotFound(f"No model {ref} is registered.")
    return model


def list_models(session: Session) -> list[ModelVersion]:
    """All registered versions, oldest first."""
    return list(session.scalars(select(ModelVersion).order_by(ModelVersion.id)))


def active_policy(session: Session) -> PolicyVersion | None:
    """The policy that new jobs are decided by."""
    return session.scalar(select(PolicyVersion).where(PolicyVersion.active))


def _find(session: Session, name: str, version: str) -> ModelVersion | None:
    return session.scalar(select(ModelVersion).where(ModelVersion.name == name, ModelVersion.version == version))
