"""Activates a model whose files are whole: what workers could not load is refused here, not found out by jobs."""

from pathlib import Path

from db import registry
from db.promotion import MARGINS, Gate, Margins
from db.session import Database
from db.tables import ModelVersion


def activate(
    database: Database,
    model_root: Path,
    name: str,
    version: str,
    *,
    forced: str | None = None,
    margins: Margins = MARGINS,
    actor: str = "system",
) -> tuple[ModelVersion, Gate | None]:
    """The version, active now, and what the gate said; None where it was active before.

    Its card and weights are read and compared with the registered hash first. Raises NotFound, PromotionRefused, and
    ArtifactError: artifact_missing, weights_hash_mismatch, weights_mismatch … A reason to force passes the gate, never
    damaged files.
    """
    from ml import artifact

    with database.transaction() as session:
        model = registry.by_ref(session, f"{name}@{version}")
    artifact.load(model_root / name / version, model.sha256)
    with database.transaction() as session:
        model = registry.by_ref(session, f"{name}@{version}")
        current = registry.active(session, model.task)
        same = current is not None and current.id == model.id
        gate = None if same else registry.gate(session, model, current, margins)
        return registry.activate(session, name, version, forced=forced, margins=margins, actor=actor), gate
