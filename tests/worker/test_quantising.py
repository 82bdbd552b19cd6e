"""`tagmill models quantise` and the workers: int8 is kept where it is offered, and runs where it was tuned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from db import registry
from db.blobs import LocalBlobs
from db.session import Database
from ml import artifact
from ml.artifact import Artifact
from ml.choice import Choice
from ml.errors import BackendError
from ml.quantise import How
from ml.tiny import make_tiny
from tests.ml.test_quantise import colours
from tests.worker.line import settings
from tests.worker.test_learning import Commands
from worker import exporting, manifests, quantising
from worker.exporting import Networks
from worker.predictors import Predictors
from worker.tuned import Tuned

pytest.importorskip("nncf", reason="the extra `int8` is not installed")
REF, WANTED = "tiny-tags@1", {"tags": "tiny-tags@1"}
ENOUGH, FEW = 264, 16


@pytest.fixture(autouse=True)
def in_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports by this process, which has torch already."""

    def export(folder: Path, sha256: str, staging: Path) -> None:
        exporting_of = artifact.load(folder, sha256)
        from ml import exported

        exported.write(exporting_of, staging)

    monkeypatch.setattr(exporting, "_in_child", export)


def install(db: Database, folder: Path, pictures: int) -> Artifact:
    """The tiny tagger, its card allowing bf16, and a dataset of so many pictures of each colour to learn from."""
    plain = make_tiny(folder / "plain", "tags")
    made = artifact.save(folder / "models" / "tiny-tags" / "1", replace(plain.card, precision="bf16"), plain.state)
    photos = folder / "photos"
    photos.mkdir()
    manifest = colours(photos, pictures)
    manifests.store(db, LocalBlobs(folder / "blobs"), manifest, str(photos), {})
    with db.transaction() as session:
        registry.install_model(session, made.card.to_dict(), made.sha256)
        registry.activate(session, made.card.name, made.card.version)
    return made


def backend(database: Database, folder: Path, url: str) -> str:
    """How a worker that starts now runs the model."""
    predictor = Predictors(settings(folder, url, backend="auto"), database, "cpu").get(WANTED)
    return str(predictor.backends[REF].backend.name)


def test_a_worker_takes_it_when_it_is_tuned_offered_and_whole(
    owner_db: Database, db: Database, database_url: str, tmp_path: Path
) -> None:
    model = install(owner_db, tmp_path, ENOUGH)
    root, blobs = tmp_path / "models", LocalBlobs(tmp_path / "blobs")
    _, made = quantising.quantise(owner_db, blobs, root, REF, "colours@1", How(pictures=40))
    assert made.refused is None
    assert "int8" not in backend(db, tmp_path, database_url), "offered, and not tuned"
    Tuned(root).remember(model.sha256, Choice("openvino", "int8", 4), 1)
    assert backend(db, tmp_path, database_url) == "openvino-int8"
    networks = Networks(root)
    (weights,) = (root / ".tuned").glob("*-int8/network.bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "int8" not in backend(db, tmp_path, database_url), "damaged"
    weights.write_bytes(whole)
    assert backend(db, tmp_path, database_url) == "openvino-int8"
    networks.put(model.sha256, lambda staging: exporting._in_child(root / "tiny-tags" / "1", model.sha256, staging))
    assert backend(db, tmp_path, database_url) == "openvino-int8", "exporting again leaves it alone"
    assert quantising.remove(owner_db, root, REF) is True
    assert "int8" not in backend(db, tmp_path, database_url)
    assert quantising.remove(owner_db, root, REF) is False
    assert not [path for path in (root / ".tuned").iterdir() if "int8" in path.name or "incoming" in path.name]


def test_a_refusal_takes_back_what_was_offered(owner_db: Database, tmp_path: Path) -> None:
    model = install(owner_db, tmp_path, FEW)
    root, blobs = tmp_path / "models", LocalBlobs(tmp_path / "blobs")
    _, taken = quantising.quantise(owner_db, blobs, root, REF, "colours@1", How(few_pictures=True))
    assert taken.refused is None
    assert quantising.found(Networks(root), model.card, model.sha256) is not None
    (weights,) = (root / ".tuned").glob("*-int8/*.bin")
    weights.write_bytes(b"\0" + weights.read_bytes()[1:] + b"\0")
    with pytest.raises(BackendError):  # and not as if there were none
        quantising.found(Networks(root), model.card, model.sha256)
    _, refused = quantising.quantise(owner_db, blobs, root, REF, "colours@1", How())
    assert refused.refused is not None
    assert quantising.found(Networks(root), model.card, model.sha256) is None


@pytest.mark.slow
def test_the_command(owner_db: Database, database_url: str, tmp_path: Path) -> None:
    tagmill = Commands(tmp_path, database_url)
    install(owner_db, tmp_path, FEW)
    words = ("models", "quantise", REF, "colours", "--seconds", "0")
    assert "int8_unproven" in tagmill(*words, code=1)
    assert not list((tmp_path / "models" / ".tuned").glob("*-int8"))
    shown = tagmill(*words, "--few-pictures")
    assert "top-1, colour" in shown
    assert "too few pictures to tell" in shown
    assert "images/s and core" in shown
    told = json.loads(tagmill(*words, "--few-pictures", "--json"))
    assert (told["offered"], told["refused"], told["few_pictures"]) == (True, None, True)
    assert told["images_per_core_second"]["int8"] > 0
    measured = json.loads(tagmill("tune", REF, "--seconds", "0", "--json"))["models"][0]["measured"]
    assert {each["refused"] for each in measured if each["backend"] == "openvino-int8"} == {None}
    assert "no int8 network any more" in tagmill("models", "quantise", REF, "--remove")
    assert "no int8 network here" in tagmill("models", "quantise", REF, "--remove")
    tagmill("models", "quantise", REF, code=2)
    tagmill("models", "quantise", REF, "colours", "--remove", code=2)
