"""The infer stage as it runs on a GPU, with the CPU in the GPU's place."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import ml.predictor
from db.blobs import LocalBlobs
from db.ids import uuid7
from db.session import Database
from ml import lanes
from ml.lanes import HostLanes
from ml.predictor import Predictor
from tests.conftest import TestAccount
from tests.worker.line import ingested, install_models, jpeg, rows, settings
from worker.infer import Inference
from worker.predictors import Predictors

FOUR = ["red", "green", "blue", "grey"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> HostLanes:
    """What the machine's "GPU" is: every predictor runs on it."""
    device = HostLanes()
    monkeypatch.setattr(lanes, "name", lambda device: "NVIDIA Example")
    monkeypatch.setattr(ml.predictor, "Predictor", partial(Predictor, on=device))
    return device


@pytest.mark.usefixtures("gpu")
def test_pictures_go_through_a_gpu(
    db: Database, owner_db: Database, database_url: str, tmp_path: Path, account: TestAccount
) -> None:
    install_models(owner_db, tmp_path / "models")
    blobs = LocalBlobs(tmp_path / "blobs")
    job = ingested(owner_db, blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(48)], chunk_size=6)
    ours = settings(tmp_path, database_url, spare_torch=False, backend="fused", batch_size=8, gpu_decode="nvjpeg")
    stage = Inference(ours, db, blobs, Predictors(ours, db, "cpu"), uuid7())
    assert stage.run().images == 48
    found = {row.seq: row.tags[0]["label"] for row in rows(owner_db, f"SELECT * FROM results WHERE job_id = '{job}'")}
    assert found == {n: FOUR[n % 4] for n in range(48)}
    counted = stage.counters.snapshot()
    assert counted["device_wall_s"] >= counted["device_busy_s"] > 0
    assert counted["device_out_of_memory"] == 0


def test_the_batch_size_is_searched_once_and_remembered(
    gpu: HostLanes, db: Database, owner_db: Database, database_url: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    install_models(owner_db, tmp_path / "models")
    ours = settings(tmp_path, database_url, spare_torch=False, backend="fused")
    models = {"tags": "tiny-tags@1", "moderation": "tiny-moderation@1"}
    first = Predictors(ours, db, "cpu").get(models)
    assert isinstance(first, Predictor)
    assert first.gpu is not None
    assert first.gpu.searched
    again = Predictors(ours, db, "cpu").get(models)
    assert isinstance(again, Predictor)
    assert again.gpu is not None
    assert (again.batch_size, again.gpu.searched) == (first.batch_size, {})
    other = Predictors(ours, db, "cpu").get({"tags": "tiny-tags@1"})
    assert isinstance(other, Predictor)
    assert other.gpu is not None
    assert other.gpu.searched, "another set of models is measured by itself"
    monkeypatch.setattr(lanes, "name", lambda device: "NVIDIA Other")
    elsewhere = Predictors(ours, db, "cpu").get(models)
    assert isinstance(elsewhere, Predictor)
    assert elsewhere.gpu is not None
    assert elsewhere.gpu.searched


def test_memory_that_runs_out_is_counted(
    gpu: HostLanes, db: Database, owner_db: Database, database_url: str, tmp_path: Path, account: TestAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    install_models(owner_db, tmp_path / "models", ["tags"])
    blobs = LocalBlobs(tmp_path / "blobs")
    ingested(owner_db, blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(16)], chunk_size=16)
    ours = settings(tmp_path, database_url, spare_torch=False, backend="fused", batch_size=8)
    predictors = Predictors(ours, db, "cpu")
    predictor = predictors.get({"tags": "tiny-tags@1"})
    assert isinstance(predictor, Predictor)
    failures = iter([True])
    after = gpu.after

    def full(mark: lanes.HostMark) -> None:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        after(mark)

    monkeypatch.setattr(gpu, "after", full)
    stage = Inference(ours, db, blobs, predictors, uuid7())
    assert stage.run().images == 16
    assert stage.counters.snapshot()["device_out_of_memory"] == 1
    assert predictor.batch_size == 4


@pytest.mark.parametrize(
    ("cores", "more", "threads"),
    [
        (16, {"devices": ["cuda:0"]}, 14),
        (16, {"devices": ["cuda:0", "cuda:0"]}, 7),
        (2, {"devices": ["cuda:0"]}, 2),
        (16, {"devices": ["cuda:0"], "decode_threads": 3}, 3),
    ],
)
def test_how_many_threads_decode(
    cores: int, more: dict[str, Any], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    ours = settings(tmp_path, "postgresql://nowhere", **{"decode_threads": None, **more})
    assert ours.decoders(gpu=True) == threads
    assert ours.decoders(gpu=False) == (more.get("decode_threads") or 2)
