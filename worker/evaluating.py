"""Evaluates a registered model on a registered dataset, stores what the gate compares, writes the report."""

from pathlib import Path
from typing import Any

from db import datasets, evaluations, registry
from db.blob_store import Blobs
from db.session import Database
from ml.evaluation import Evaluation
from worker import manifests


def evaluate(
    database: Database,
    blobs: Blobs,
    model_root: Path,
    model_ref: str,
    dataset_ref: str,
    split: str,
    *,
    report_to: Path | None = None,
    **how: Any,
) -> tuple[Evaluation, int]:
    """The evaluation and the id of its row; `how` goes to `ml.evaluate.evaluate_model`.

    No transaction is open while pictures are read and scored. Raises NotFound, DatasetError, ArtifactError.
    """
    from ml import artifact, gate, report
    from ml.evaluate import evaluate_model

    with database.transaction() as session:
        model = registry.by_ref(session, model_ref)
        dataset = datasets.by_ref(session, dataset_ref)
    manifest = manifests.load(blobs, dataset)
    manifests.entries_of(manifest, split)
    loaded = artifact.load(model_root / model.name / model.version, model.sha256)
    with manifests.pictures(blobs, dataset, manifest) as root:
        found = evaluate_model(loaded, manifest, root, split, **how)
        if report_to is not None:
            report.write(found, report_to, root)
    with database.transaction() as session:
        stored = evaluations.record(
            session,
            model.id,
            dataset.id,
            split,
            images=found.pictures,
            metrics=gate.figures(found),
            report=found.to_dict(),
        )
    return found, stored
