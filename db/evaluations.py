"""Evaluations: how models did on datasets. Rows are only added; the newest of a model, dataset and split speaks."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.tables import Dataset, Evaluation, ModelVersion

TRAIN = "train"  # the split that `ml.train` learns from


def record(
    session: Session,
    model_id: int,
    dataset_id: int,
    split: str,
    *,
    images: int,
    metrics: Mapping[str, float],
    report: Mapping[str, Any],
) -> int:
    """Store an evaluation; its id. `metrics` are flat, named as `db.promotion` says."""
    return int(
        session.execute(
            text(
                "INSERT INTO evaluations (model_id, dataset_id, split, images, metrics, report) VALUES (:model_id,"
                " :dataset_id, :split, :images, CAST(:metrics AS jsonb), CAST(:report AS jsonb)) RETURNING id"
            ),
            {
                "model_id": model_id,
                "dataset_id": dataset_id,
                "split": split,
                "images": images,
                "metrics": json.dumps(dict(metrics)),
                "report": json.dumps(dict(report)),
            },
        ).scalar_one()
    )


def of_model(session: Session, model_id: int) -> list[Evaluation]:
    """The newest evaluation of the model on each dataset, split and kind of pixels, newest first."""
    rows = session.scalars(select(Evaluation).where(Evaluation.model_id == model_id).order_by(Evaluation.id.desc()))
    newest: dict[tuple[int, str, str], Evaluation] = {}
    for row in rows:
        newest.setdefault(_data(row), row)
    return list(newest.values())


def fair(session: Session, model: ModelVersion) -> list[Evaluation]:
    """Those of `of_model` that say how good the model is: not those on the pictures that it was trained on."""
    trained_on = model.card.get("data_manifest_sha256")
    return [
        row
        for row in of_model(session, model.id)
        if not (row.split == TRAIN and session.get_one(Dataset, row.dataset_id).sha256 == trained_on)
    ]


def pairs(of_active: Sequence[Evaluation], of_candidate: Sequence[Evaluation]) -> list[tuple[Evaluation, Evaluation]]:
    """Evaluations of the two on the same dataset, split and pixels, the candidate's newest first."""
    by_data = {_data(row): row for row in of_active}
    return [(by_data[_data(row)], row) for row in of_candidate if _data(row) in by_data]


def _data(row: Evaluation) -> tuple[int, str, str]:
    """What was measured on: originals are easier than working copies, so they are not compared."""
    return row.dataset_id, row.split, row.report.get("about", {}).get("pixels", "")
