"""Evaluations: how models did on datasets. Rows are only added; the newest of a model, dataset and split speaks."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.tables import Evaluation


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
    """The newest evaluation of the model on each dataset and split, newest first."""
    rows = session.scalars(select(Evaluation).where(Evaluation.model_id == model_id).order_by(Evaluation.id.desc()))
    newest: dict[tuple[int, str], Evaluation] = {}
    for row in rows:
        newest.setdefault((row.dataset_id, row.split), row)
    return list(newest.values())


def comparable(session: Session, active_id: int, candidate_id: int) -> tuple[Evaluation, Evaluation | None] | None:
    """The evaluations to compare two versions by: the candidate's newest on what the active one was measured on too.

    None when the active version was never evaluated; (its newest, None) when the candidate was not on the same data.
    """
    active = of_model(session, active_id)
    if not active:
        return None
    by_data = {(row.dataset_id, row.split): row for row in active}
    for row in of_model(session, candidate_id):
        if (row.dataset_id, row.split) in by_data:
            return by_data[row.dataset_id, row.split], row
    return active[0], None
