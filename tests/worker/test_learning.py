"""From pictures to an activated model by the commands themselves: import, train, kill and go on, evaluate, export."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from uuid import UUID

import pytest

from db import registry, training
from db.blobs import LocalBlobs
from db.session import Database
from ml import artifact
from ml.manifest import Manifest
from ml.tiny import make_tiny
from tests.ml import datasets as pictures
from tests.worker.line import rows, run_sql
from worker import manifests, model_bundle
from worker.model_store import ModelStoreError
from worker.train_runs import Trainer

SETTINGS = {"size": 8, "lr": 0.05, "head_lr": 0.1, "threads": 1, "workers": 1, "cache_side": 12, "precision": "fp32"}


class Commands:
    """`tagmill` on a test's own database and folders."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.blobs = LocalBlobs(folder / "blobs")
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "TAGMILL_HOME": str(folder / "home"),
            "TAGMILL_DATABASE_URL": url,
            "TAGMILL_BLOB_ROOT": str(folder / "blobs"),
            "TAGMILL_MODEL_ROOT": str(folder / "models"),
            "COLUMNS": "200",
        }

    def __call__(self, *words: str, code: int = 0, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", *words],
            env=self._environment | environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout if code == 0 else done.stderr

    def train(self, name: str, *, code: int = 0, epochs: int = 3, **environment: str) -> str:
        settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        return self(
            "train", "colours", "--name", name, "--architecture", "tiny_colour", "--epochs", str(epochs),
            "--batch-size", "4", "--seed", "3", *settings, code=code, **environment,
        )  # fmt: skip


@pytest.fixture
def tagmill(tmp_path: Path, database_url: str) -> Commands:
    return Commands(tmp_path, database_url)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder per colour, 16 pictures in each."""
    for number, (label, colour) in enumerate(pictures.COLOURS.items()):
        for at in range(16):
            pictures.picture(tmp_path / "photos" / label / f"{at}.png", colour, 100 * number + at)
    return tmp_path / "photos"


@pytest.fixture
def dataset(tagmill: Commands, photos: Path) -> str:
    shares = "train=0.5,validation=0.25,test=0.25"
    assert "48 pictures" in tagmill("datasets", "import", str(photos), "--name", "colours", "--shares", shares)
    return "colours@1"


@pytest.mark.slow
def test_from_pictures_to_an_activated_model(tagmill: Commands, dataset: str, owner_db: Database) -> None:
    assert dataset in tagmill("datasets", "list")
    assert "green" in tagmill("datasets", "show", "colours")
    assert "colours-net@1 is a candidate" in tagmill.train("colours-net")
    assert "finished" in tagmill("runs", "list")
    shown = tagmill("evaluate", "colours-net@1", dataset, "--rounds", "50", "--report", str(tagmill.folder / "report"))
    assert "accuracy" in shown
    assert (tagmill.folder / "report" / "report.html").stat().st_size > 1000
    assert "is active" in tagmill("models", "activate", "colours-net@1")
    (row,) = rows(owner_db, "SELECT metrics, images FROM evaluations")
    assert row.images == 12
    assert row.metrics["overall/category/accuracy"] > 0.8

    assert "is a candidate" in tagmill("calibrate", "colours-net@1", dataset, "--version", "1-calibrated")
    assert "exists already" in tagmill("calibrate", "colours-net@1", dataset, "--version", "1-calibrated", code=1)
    cards = [artifact.load(tagmill.models / "colours-net" / version).card for version in ("1", "1-calibrated")]
    assert cards[0].temperature != cards[1].temperature
    assert cards[1].parent == "colours-net@1"
    assert "colours-net@1" in tagmill("models", "show", "colours-net@1-calibrated")

    out = tagmill("models", "export", "colours-net@1", str(tagmill.folder / "out")).strip()
    assert "active" in tagmill("models", "import", out), "what is there already is left as it is"

    # A candidate that has learned nothing must not pass.
    tagmill.train("colours-net", epochs=0)
    tagmill("evaluate", "colours-net@2", dataset, "--rounds", "20")
    run_sql(
        owner_db,
        "UPDATE evaluations SET metrics = metrics || '{\"overall/category/accuracy\": 0.1}' WHERE id ="
        " (SELECT max(id) FROM evaluations)",
    )
    refused = tagmill("models", "activate", "colours-net@2", code=1)
    assert "promotion_refused" in refused
    assert "overall/category/accuracy: 0.1000" in refused
    assert "closed" in tagmill("models", "show", "colours-net@2")
    assert "is active" in tagmill("models", "activate", "colours-net@2", "--force", "a test")
    assert "colours-net@1 is active" in tagmill("models", "rollback")
    assert "is retired" in tagmill("models", "retire", "colours-net@1-calibrated")
    (forced,) = rows(owner_db, "SELECT detail FROM audit_log WHERE detail ? 'forced'")
    assert forced.detail["forced"] == "a test"


@pytest.mark.slow
def test_a_killed_trainer_is_noticed_and_its_run_ends_with_the_same_weights(
    tagmill: Commands, dataset: str, owner_db: Database
) -> None:
    tagmill.train("whole")
    marker = tagmill.folder / "marker"
    tagmill.train(
        "broken", code=-signal.SIGKILL, TAGMILL_TEST_BUILD="1", TAGMILL_FAILPOINTS=f"train_checkpoint={marker}"
    )
    assert marker.exists()
    (run,) = rows(owner_db, "SELECT id, state FROM training_runs WHERE name = 'broken'")
    assert run.state == "running"
    tagmill("runs", "work", str(run.id))
    (early,) = rows(owner_db, "SELECT state, attempts FROM training_runs WHERE id = :id", id=run.id)
    assert (early.state, early.attempts) == ("running", 1), "its lease has not run out: the trainer may live"
    run_sql(owner_db, "UPDATE training_runs SET lease_until = now() WHERE state = 'running'")
    assert "broken@1 is a candidate" in tagmill("runs", "work")
    both = [artifact.load(tagmill.models / name / "1").state for name in ("whole", "broken")]
    assert both[0].keys() == both[1].keys()
    assert all((both[0][name] == both[1][name]).all() for name in both[0])
    (ended,) = rows(owner_db, "SELECT state, fence, attempts FROM training_runs WHERE id = :id", id=run.id)
    assert (ended.state, ended.fence) == ("finished", 2)
    assert ended.attempts == 1, "it went on from a checkpoint, which starts the count anew"


def queued(owner_db: Database, tmp_path: Path) -> tuple[UUID, Path]:
    """A run of the tiny network that waits, with its dataset."""
    images = tmp_path / "images"
    manifest: Manifest = pictures.coloured(images)
    stored = manifests.store(owner_db, LocalBlobs(tmp_path / "blobs"), manifest, str(images), {})
    config = pictures.config(epochs=3).to_dict()
    with owner_db.transaction() as session:
        return training.enqueue(session, stored.id, "tiny", "1", config).id, images


def trainer(db: Database, folder: Path, **how: object) -> Trainer:
    return Trainer(db, LocalBlobs(folder / "blobs"), folder / "models", **how)  # type: ignore[arg-type]


def test_a_stopped_trainer_hands_its_run_back_and_the_next_goes_on(
    db: Database, owner_db: Database, tmp_path: Path
) -> None:
    run_id, _ = queued(owner_db, tmp_path)
    first = trainer(db, tmp_path, on_event=lambda event: first.stop.set() if event["event"] == "epoch" else None)
    stopped = first.run_once()
    assert stopped is not None
    assert (stopped.state, stopped.attempts) == ("queued", 0)
    heard: list[str] = []
    second = trainer(db, tmp_path, on_event=lambda event: heard.append(str(event["event"])))
    ended = second.run_once(run_id)
    assert ended is not None
    assert ended.state == "finished"
    with db.transaction() as session:
        assert registry.by_ref(session, "tiny@1").state == "candidate"
    assert not second.folder(ended).exists(), "nobody needs its checkpoint and its decoded pictures any more"
    assert second.run_once() is None


def test_a_cancelled_run_stops_its_trainer(db: Database, owner_db: Database, tmp_path: Path) -> None:
    run_id, _ = queued(owner_db, tmp_path)
    noticed = threading.Event()

    def hear(event: object) -> None:
        if not noticed.is_set():
            noticed.set()
            with owner_db.transaction() as session:
                training.cancel(session, run_id)
        threading.Event().wait(0.05)  # longer in all than the quarter of a lease after which it beats

    ended = (here := trainer(db, tmp_path, on_event=hear, lease_s=0.2)).run_once()
    assert ended is not None
    assert ended.state == "cancelled"
    assert not here.folder(ended).exists()
    with db.transaction() as session:
        assert registry.list_models(session) == []


def test_a_changed_picture_fails_the_run_with_its_code(db: Database, owner_db: Database, tmp_path: Path) -> None:
    _, images = queued(owner_db, tmp_path)
    next(images.glob("train-*")).write_bytes(b"something else")
    ended = trainer(db, tmp_path).run_once()
    assert ended is not None
    assert (ended.state, ended.code) == ("failed", "dataset_changed")


def test_what_nobody_foresaw_fails_the_run_at_once_and_says_what_it_was(
    db: Database, owner_db: Database, tmp_path: Path
) -> None:
    run_id, _ = queued(owner_db, tmp_path)
    run_sql(owner_db, """UPDATE training_runs SET config = config || '{"device": "abacus"}'""")
    ended = trainer(db, tmp_path).run_once(run_id)
    assert ended is not None
    assert (ended.state, ended.code) == ("failed", "training_crashed")
    assert "RuntimeError" in (ended.detail or "")
    assert "abacus" in (ended.detail or "")


def test_a_model_goes_out_and_comes_in_whole_or_not_at_all(tmp_path: Path) -> None:
    made = make_tiny(tmp_path / "here" / "tiny-tags" / "1", "tags")
    out = model_bundle.export(tmp_path / "here", "tiny-tags", "1", made.sha256, tmp_path / "out")
    with pytest.raises(ModelStoreError, match="is there already"):
        model_bundle.export(tmp_path / "here", "tiny-tags", "1", made.sha256, tmp_path / "out")
    brought = model_bundle.bring(tmp_path / "there", out)
    assert (brought.ref, brought.sha256) == ("tiny-tags@1", made.sha256)
    assert artifact.load(tmp_path / "there" / "tiny-tags" / "1", made.sha256).card == made.card
    assert model_bundle.bring(tmp_path / "there", out).sha256 == made.sha256

    weights = out / artifact.WEIGHTS_FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(ModelStoreError) as refused:
        model_bundle.bring(tmp_path / "nowhere", out)
    assert refused.value.code == "weights_hash_mismatch"
    assert not (tmp_path / "nowhere").exists()

    other = make_tiny(tmp_path / "other", "tags", renamed={"red": "crimson"})
    with pytest.raises(ModelStoreError) as clash:
        model_bundle.bring(tmp_path / "there", tmp_path / "other")
    assert clash.value.code == "model_exists"
    assert other.sha256 != made.sha256
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["tiny-tags"]
