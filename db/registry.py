"""Model versions: which are installed, which is active for a task, and how one follows another.

    candidate → active    `activate`, through the promotion gate, or past it with a reason
    active    → retired   the activation of another version, `rollback`, or `retire`
    retired   → active    `activate` again, or `rollback` of the version that replaced it
    candidate → retired   `retire`

Jobs pin the versions that are active at their submission, and workers load what a job pinned: so an activation needs no
restart, and a running job notices nothing.
"""

import json
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, evaluations, locks, outbox, promotion
from db.errors import Conflict, NotFound, PromotionRefused
from db.promotion import MARGINS, Gate, Margins, Shortfall
from db.tables import Dataset, Evaluation, ModelVersion


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


def gate(session: Session, candidate: ModelVersion, current: ModelVersion | None, margins: Margins = MARGINS) -> Gate:
    """Whether the candidate falls behind the current version, by their newest evaluations on all data that they share:
    who is measured on something easier last does not get past what was measured before.

    Open when nothing is active or the active version was never evaluated: there is nothing to fall behind. A candidate
    that was not evaluated on any of the same data is behind in every metric of the active version's newest.
    """
    if current is None or current.id == candidate.id:
        return Gate()
    of_active, of_candidate = (evaluations.fair(session, model) for model in (current, candidate))
    if not of_active:
        return Gate(current.ref)
    shared = evaluations.pairs(of_active, of_candidate)
    if not shared:
        data = _data(session, of_active[0])
        found = promotion.shortfalls(of_active[0].metrics, {}, margins, data)
        return Gate(current.ref, missing=data, behind=tuple(found))
    on: list[tuple[str, int]] = []
    behind: list[Shortfall] = []
    for active_one, other in shared:
        data = _data(session, active_one)
        on.append((data, sum(margins.of(name) is not None for name in active_one.metrics)))
        behind += promotion.shortfalls(active_one.metrics, other.metrics, margins, data)
    return Gate(current.ref, tuple(on), None, tuple(behind))


def activate(
    session: Session,
    name: str,
    version: str,
    *,
    forced: str | None = None,
    margins: Margins = MARGINS,
    actor: str = "system",
) -> ModelVersion:
    """candidate or retired → active; the version before it → retired, and remembered for a rollback.

    Raises NotFound, and PromotionRefused when the gate is closed and no reason to force it is given. The reason and
    the shortfalls go into the audit log.
    """
    model = _existing(session, name, version)
    locks.lock(session, "activate", model.task)
    current = active(session, model.task)
    if current is not None and current.id == model.id:
        return model
    found = gate(session, model, current, margins)
    if not found.open and forced is None:
        raise PromotionRefused(model.ref, found)
    _retire(session, current)
    _make_active(session, model, replaced=current.id if current else None)
    detail: dict[str, Any] = {"replaced": current.ref if current else None, "gate": str(found)}
    if forced is not None:
        detail |= {"forced": forced, "shortfalls": [each.row() for each in found.behind]}
    audit.record(session, None, actor, "model.activate", model.ref, **detail)
    outbox.activated(session, model.task, model.ref, current.ref if current else None)
    session.refresh(model)
    return model


def rollback(session: Session, task: str, *, actor: str = "system") -> tuple[ModelVersion, ModelVersion]:
    """active → retired, and the version that it replaced → active again: (the one left, the one now active).

    Asks no gate: a rollback is for when things go wrong. A second one goes one version further back. Raises Conflict
    when nothing is active or the active version replaced none.
    """
    locks.lock(session, "activate", task)
    current = active(session, task)
    if current is None:
        raise Conflict(f"No model is active for {task}: nothing to roll back.")
    if current.replaced is None:
        raise Conflict(f"{current.ref} replaced no other version: there is nothing to go back to.")
    before = session.get_one(ModelVersion, current.replaced)
    _retire(session, current)
    _make_active(session, before, replaced=before.replaced)
    audit.record(session, None, actor, "model.rollback", before.ref, rolled_back=current.ref)
    outbox.activated(session, task, before.ref, current.ref)
    session.refresh(before)
    session.refresh(current)
    return current, before


def retire(session: Session, name: str, version: str, *, actor: str = "system") -> ModelVersion:
    """candidate → retired. Its files stay: jobs and results that name it must stay explicable.

    Raises Conflict for the active version: activate another one, or roll back, which retires it.
    """
    model = _existing(session, name, version)
    locks.lock(session, "activate", model.task)
    session.refresh(model)
    if model.state == "active":
        raise Conflict(f"{model.ref} is active for {model.task}. Activate another version, or roll back.")
    if model.state == "candidate":
        _retire(session, model)
        audit.record(session, None, actor, "model.retire", model.ref)
    return model


def active(session: Session, task: str) -> ModelVersion | None:
    """The active version of a task."""
    return session.scalar(select(ModelVersion).where(ModelVersion.task == task, ModelVersion.state == "active"))


def by_ref(session: Session, ref: str) -> ModelVersion:
    """The version that a job pinned as name@version; NotFound."""
    name, _, version = ref.rpartition("@")
    return _existing(session, name, version)


def lineage(session: Session, model: ModelVersion) -> list[str]:
    """What the model was made from, nearest first, by the `parent` of each card; ends at one not registered here."""
    line: list[str] = []
    parent = model.card.get("parent")
    while isinstance(parent, str) and parent not in line:
        line.append(parent)
        name, _, version = parent.rpartition("@")
        ancestor = _find(session, name, version)
        parent = ancestor.card.get("parent") if ancestor else None
    return line


def list_models(session: Session) -> list[ModelVersion]:
    """All registered versions, oldest first."""
    return list(session.scalars(select(ModelVersion).order_by(ModelVersion.id)))


def _retire(session: Session, model: ModelVersion | None) -> None:
    if model is not None:
        session.execute(
            text("UPDATE model_versions SET state = 'retired', retired_at = now() WHERE id = :id"), {"id": model.id}
        )
        session.refresh(model)


def _make_active(session: Session, model: ModelVersion, *, replaced: int | None) -> None:
    session.execute(
        text(
            "UPDATE model_versions SET state = 'active', activated_at = now(), retired_at = NULL, replaced = :replaced"
            " WHERE id = :id"
        ),
        {"id": model.id, "replaced": replaced},
    )


def _data(session: Session, evaluation: Evaluation) -> str:
    return f"{session.get_one(Dataset, evaluation.dataset_id).ref} {evaluation.split}"


def _existing(session: Session, name: str, version: str) -> ModelVersion:
    model = _find(session, name, version)
    if model is None:
        raise NotFound(f"No model {name}@{version} is registered.")
    return model


def _find(session: Session, name: str, version: str) -> ModelVersion | None:
    return session.scalar(select(ModelVersion).where(ModelVersion.name == name, ModelVersion.version == version))
