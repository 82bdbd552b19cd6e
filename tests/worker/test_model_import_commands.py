"""The command itself: a foreign file becomes a candidate, is calibrated, activated, exported and brought in again."""

from pathlib import Path

import pytest

from tests.ml import datasets as pictures
from tests.ml.onnx_files import Small, export
from tests.worker.test_learning import Commands


@pytest.fixture
def tagmill(tmp_path: Path, database_url: str) -> Commands:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    return Commands(tmp_path, database_url)


@pytest.mark.slow
def test_a_foreign_file_becomes_a_model_like_any_other(tagmill: Commands, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(export(Small(3, ends="softmax"), (1, 3, 16, 16)))
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    words = [
        "models", "import", str(tmp_path / "net.onnx"), "--name", "foreign", "--task", "tags", "--labels",
        str(tmp_path / "labels.txt"), "--head", "softmax",
    ]  # fmt: skip
    assert "--scale" in tagmill(*words, code=2)
    out = tagmill(*words, "--scale", "-1..1")
    assert "foreign@1 for tags: candidate" in out
    assert "ONNX: 16×16 RGB in NCHW, 3 labels as probabilities" in out
    assert "candidate" in tagmill(*words, "--scale", "-1..1"), "the same once more changes nothing"
    (tmp_path / "four.txt").write_text("a\nb\nc\nd\n")
    wrong = [word.replace("labels.txt", "four.txt") for word in words]
    assert "(labels_mismatch)" in tagmill(*wrong, "--scale", "0..1", code=1)
    assert "onnx" in tagmill("models", "show", "foreign@1")

    for number, (label, colour) in enumerate(pictures.COLOURS.items()):
        for at in range(4):
            pictures.picture(tmp_path / "photos" / label / f"{at}.png", colour, 100 * number + at)
    shares = "train=0.5,validation=0.25,test=0.25"
    tagmill("datasets", "import", str(tmp_path / "photos"), "--name", "colours", "--shares", shares)
    calibrated = tagmill("calibrate", "foreign@1", "colours", "--version", "1-calibrated")
    assert "is a candidate" in calibrated
    assert "accuracy" in tagmill("evaluate", "foreign@1-calibrated", "colours", "--rounds", "20")
    assert "is active" in tagmill("models", "activate", "foreign@1-calibrated", "--force", "a test")
    folder = tagmill("models", "export", "foreign@1", str(tmp_path / "out")).strip()
    assert "foreign@1" in tagmill("models", "import", folder)
    assert "says all this itself" in tagmill("models", "import", folder, "--name", "other", code=2)
