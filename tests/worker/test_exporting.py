"""Workers without torch: networks exported once, where nobody else may write; torch where one cannot be."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from db import registry
from db.blobs import LocalBlobs
from db.session import Database
from ml import artifact, exported
from ml.artifact import Artifact
from ml.choice import Choice
from ml.errors import BackendError
from ml.plain_predictor import PlainPredictor
from ml.predictor import Predictor
from ml.tiny import make_tiny
from tests.conftest import TestAccount
from tests.worker.line import ingested, install_models, jpeg, rows, settings
from worker import exporting
from worker.exporting import Networks
from worker.predictors import ModelUnavailable, Predictors
from worker.tuned import Tuned

pytest.importorskip("openvino")

WORKER = """
import sys
from worker.child import Child
from worker.settings import WorkerSettings
child = Child(WorkerSettings(backend="auto", decode_threads=1), 0)
child.drain(0)
child.close()
sys.exit("torch was loaded" if {"torch", "torchvision", "safetensors"} & set(sys.modules) else 0)
"""


def tiny(root: Path) -> tuple[Artifact, Path]:
    folder = root / "tiny-tags" / "1"
    return make_tiny(folder, "tags"), folder


@pytest.fixture
def in_here(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Exports by this process, which has torch already; where each went."""
    made: list[Path] = []

    def export(folder: Path, sha256: str, staging: Path) -> None:
        exported.write(artifact.load(folder, sha256), staging)
        made.append(staging)

    monkeypatch.setattr(exporting, "_in_child", export)
    return made


def test_a_worker_scores_without_torch(
    owner_db: Database, database_url: str, account: TestAccount, tmp_path: Path
) -> None:
    install_models(owner_db, tmp_path / "models")
    colours = ["red", "green", "blue", "grey"]
    environment = {
        "TAGMILL_DATABASE_URL": database_url,
        "TAGMILL_BLOB_ROOT": str(tmp_path / "blobs"),
        "TAGMILL_MODEL_ROOT": str(tmp_path / "models"),
    }
    inodes = []
    for turn in range(2):
        copies = [jpeg(colour, 10 * turn + at) for at, colour in enumerate(colours)]
        job = ingested(owner_db, LocalBlobs(tmp_path / "blobs"), account.id, copies)
        ran = subprocess.run(
            [sys.executable, "-c", WORKER], env=environment, capture_output=True, text=True, timeout=240, cwd=Path.cwd()
        )
        assert ran.returncode == 0, ran.stderr + ran.stdout
        found = rows(owner_db, "SELECT seq, code, tags FROM results WHERE job_id = :job ORDER BY seq", job=job)
        assert [(row.code, row.tags[0]["label"]) for row in found] == [(None, colour) for colour in colours]
        inodes.append({path: path.stat().st_ino for path in (tmp_path / "models" / ".tuned").rglob("network.bin")})
    assert len(inodes[0]) == 2
    assert inodes[0] == inodes[1], "the second process takes what the first one exported"


def test_damaged_exports_are_made_again(tmp_path: Path, in_here: list[Path]) -> None:
    made, folder = tiny(tmp_path)
    networks = Networks(tmp_path)
    networks.get(made.card, made.sha256, folder)
    networks.get(made.card, made.sha256, folder)
    assert len(in_here) == 1
    (weights,) = networks.root.rglob("network.bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    networks.get(made.card, made.sha256, folder)
    assert len(in_here) == 2
    assert [path.name for path in networks.root.iterdir()] == [weights.parent.name], "nothing is left lying about"


@pytest.mark.usefixtures("in_here")
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path, mode: int) -> None:
    made, folder = tiny(tmp_path)
    networks = Networks(tmp_path)
    networks.get(made.card, made.sha256, folder)
    assert networks.root.stat().st_mode & 0o777 == 0o700
    networks.root.chmod(mode)
    with pytest.raises(BackendError, match="others may write"):
        networks.get(made.card, made.sha256, folder)


def test_what_the_child_says_is_passed_on(tmp_path: Path) -> None:
    made, folder = tiny(tmp_path)
    weights = folder / artifact.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes() + b"more")
    with pytest.raises(BackendError, match="weights_hash_mismatch"):
        Networks(tmp_path).get(made.card, made.sha256, folder)
    assert list((tmp_path / ".tuned").iterdir()) == []


@pytest.mark.usefixtures("in_here")
def test_torch_where_it_was_measured_to_be_faster(
    owner_db: Database, db: Database, database_url: str, tmp_path: Path
) -> None:
    root, wanted = tmp_path / "models", {"tags": "tiny-tags@1"}
    install_models(owner_db, root)
    auto = settings(tmp_path, database_url, backend="auto")
    assert isinstance(Predictors(auto, db, "cpu").get(wanted), PlainPredictor)
    assert isinstance(Predictors(settings(tmp_path, database_url), db, "cpu").get(wanted), Predictor)
    with owner_db.transaction() as session:
        sha256 = registry.by_ref(session, "tiny-tags@1").sha256
    unsparing = settings(tmp_path, database_url, backend="auto", spare_torch=False)
    assert isinstance(Predictors(unsparing, db, "cpu").get(wanted), Predictor)
    Tuned(root).remember(sha256, Choice("openvino", "fp32", 8), 1)
    plain = Predictors(auto, db, "cpu").get(wanted)
    assert isinstance(plain, PlainPredictor)
    assert plain.backends["tiny-tags@1"].backend.compiled.sizes == (8, 1)
    Tuned(root).remember(sha256, Choice("fused", "fp32", 8), 1)
    torch = Predictors(auto, db, "cpu").get(wanted)
    assert isinstance(torch, Predictor)
    assert torch.backends["tiny-tags@1"].backend.name == "fused-fp32"


@pytest.mark.usefixtures("in_here")
def test_where_nothing_can_be_exported_torch_does_it(
    owner_db: Database, db: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, sha256: str, staging: Path) -> None:
        raise OSError("no space left")

    root = tmp_path / "models"
    install_models(owner_db, root)
    monkeypatch.setattr(exporting, "_in_child", full)
    auto = settings(tmp_path, database_url, backend="auto")
    assert isinstance(Predictors(auto, db, "cpu").get({"tags": "tiny-tags@1"}), Predictor)
    made, folder = tiny(tmp_path / "other")
    foreign = replace(made.card, architecture="onnx")
    with pytest.raises(BackendError, match="imported from ONNX"):
        Networks(root).get(foreign, made.sha256, folder)
    weights = root / "tiny-tags" / "1" / artifact.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes() + b"more")
    with pytest.raises(ModelUnavailable):
        Predictors(auto, db, "cpu").get({"tags": "tiny-tags@1"})
