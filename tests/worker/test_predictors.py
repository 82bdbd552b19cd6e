"""A model that does not load is left alone for a while, never for long, and its reason is told."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from db import workers
from db.blobs import LocalBlobs
from db.session import Database
from ml.predictor import Predictor
from tests.conftest import TestAccount
from tests.worker.line import ingested, install_models, jpeg, settings
from worker import predictors
from worker.child import Child
from worker.predictors import ModelUnavailable, Predictors

MODELS = {"tags": "tiny-tags@1"}


@pytest.fixture
def damaged(owner_db: Database, tmp_path: Path) -> Path:
    """The weights of the active model, with bytes appended."""
    install_models(owner_db, tmp_path / "models")
    weights = tmp_path / "models" / "tiny-tags" / "1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"more")
    return weights


@pytest.fixture
def damaged_moderation(owner_db: Database, tmp_path: Path) -> Path:
    install_models(owner_db, tmp_path / "models")
    weights = tmp_path / "models" / "tiny-moderation" / "1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"more")
    return weights


def refused(loading: Predictors) -> float:
    with pytest.raises(ModelUnavailable) as caught:
        loading.get(MODELS)
    return caught.value.retry_s


def test_the_pause_doubles_up_to_four_times_the_setting_and_ends_with_the_fault(
    db: Database, database_url: str, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter)
    monkeypatch.setattr(predictors, "time", clock)
    loading = Predictors(settings(tmp_path, database_url, model_retry_s=30), db, "cpu")
    pauses = []
    for _ in range(6):
        pauses.append(refused(loading))
        now += pauses[-1]
    assert pauses == [30, 60, 120, 120, 120, 120]
    (told,) = loading.not_loaded()
    assert (told["models"], told["code"]) == (["tiny-tags@1"], "weights_hash_mismatch")
    assert "the registry says" in told["reason"]
    # Nobody asks any more: that it once did not load is no news.
    now += 241
    assert loading.not_loaded() == []
    refused(loading)
    now += 120
    damaged.write_bytes(damaged.read_bytes()[:-4])
    loading.get(MODELS)
    assert loading.not_loaded() == []


def test_the_heartbeat_says_why_a_job_waits(
    owner_db: Database, database_url: str, damaged: Path, account: TestAccount, tmp_path: Path
) -> None:
    ingested(owner_db, LocalBlobs(tmp_path / "blobs"), account.id, [jpeg("red")])
    child = Child(settings(tmp_path, database_url), 0)
    child.drain(0)
    child.start()
    try:
        with owner_db.transaction() as session:
            (worker,) = workers.alive(session)
    finally:
        child.close()
    (told,) = worker["stats"]["not_loaded"]
    assert (told["models"], told["code"]) == (["tiny-moderation@1", "tiny-tags@1"], "weights_hash_mismatch")


def test_a_canary_loads_what_uploads_need_before_one_comes(
    owner_db: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[frozenset[str]] = []

    class Spied(Predictors):
        def get(self, models: Mapping[str, str]) -> Predictor:
            asked.append(frozenset(models.values()))
            return super().get(models)

    monkeypatch.setattr(predictors, "Predictors", Spied)
    cold = Child(settings(tmp_path, database_url, warm_models=False), 0)
    warm = Child(settings(tmp_path, database_url), 0)
    warm.heard_canary()
    assert asked == [], "there is no model yet"
    install_models(owner_db, tmp_path / "models")
    cold.heard_canary()
    assert asked == []
    warm.heard_canary()
    warm.heard_canary()
    assert asked == [frozenset({"tiny-moderation@1"})]


def test_what_does_not_load_ahead_is_tried_again(
    owner_db: Database, database_url: str, damaged_moderation: Path, tmp_path: Path
) -> None:
    child = Child(settings(tmp_path, database_url, model_retry_s=1), 0)
    child.heard_canary()
    child.start()
    try:
        with owner_db.transaction() as session:
            (worker,) = workers.alive(session)
    finally:
        child.close()
    assert worker["stats"]["not_loaded"][0]["code"] == "weights_hash_mismatch"
    damaged_moderation.write_bytes(damaged_moderation.read_bytes()[:-4])
    time.sleep(1.1)  # the pause
    child.heard_canary()
    assert child._warmed == {"moderation": "tiny-moderation@1"}
