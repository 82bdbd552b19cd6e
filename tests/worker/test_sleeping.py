"""The predictor that sleeps: only in a test build, and with the scores of its labels."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ml import artifact
from ml.tiny import make_tiny
from worker.settings import WorkerSettings
from worker.sleeping import SleepingPredictor


def settings(folder: Path, **given: object) -> WorkerSettings:
    return WorkerSettings(database_url="postgresql://here/x", blob_root=folder, model_root=folder, **given)  # type: ignore[arg-type]


def test_only_a_test_build_may_sleep(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="TAGMILL_SLEEP_MS"):
        settings(tmp_path, sleep_ms=1)
    assert settings(tmp_path, sleep_ms=1, test_build=True).sleep_ms == 1
    assert settings(tmp_path).sleep_ms == 0


def test_every_picture_gets_the_scores_of_every_label(tmp_path: Path) -> None:
    made = make_tiny(tmp_path, "tags")
    card = artifact.card_of(tmp_path)
    predictor = SleepingPredictor([card], seconds=0.0)
    found = predictor.predict([predictor.prepare(b""), predictor.prepare(b"")])
    assert [each[card.ref].as_dict() for each in found] == [{label.name: 0.25 for label in made.card.labels}] * 2
