"""NSFWJS's own scores, and sensible ImageNet tags, from the predictor that production uses."""

import csv
import json
from pathlib import Path

import pytest

from ml import imagenet
from ml.artifact import Artifact, load
from ml.batcher import Predicts
from ml.images import Limits, read, working_copy
from ml.predictor import Predictor

FAMILIES = ["auto", "reference", "fused", "openvino"]


def gaps(predictor: Predicts, golden: dict[str, dict[str, float]], pictures: dict[str, bytes]) -> list[float]:
    """For each picture the largest difference of any class from the published score."""
    (ref,) = predictor.backends
    names = sorted(golden)
    results = predictor.predict([predictor.prepare(pictures[name]) for name in names])
    return [
        max(abs(result[ref].as_dict()[label] - score) for label, score in golden[name].items())
        for name, result in zip(names, results, strict=True)
    ]


@pytest.fixture(scope="module")
def jpeg_golden(published: Path) -> dict[str, dict[str, float]]:
    golden: dict[str, dict[str, float]] = json.loads((published / "nsfwjs-mobilenet_v2/golden.json").read_text())
    assert len(golden) == 95
    return golden


@pytest.fixture(scope="module")
def predictor(nsfwjs_artifact: Artifact) -> Predictor:
    return Predictor([nsfwjs_artifact])


@pytest.mark.parametrize("family", FAMILIES)
def test_same_pixels_same_scores(nsfwjs_artifact: Artifact, published: Path, family: str) -> None:
    if family == "openvino":
        pytest.importorskip("openvino")
    folder = published / "nsfwjs-mobilenet_v2/golden-png"
    golden = json.loads((folder / "golden.json").read_text())
    assert len(golden) == 24
    pictures = {name: (folder / name).read_bytes() for name in golden}
    worst = max(gaps(Predictor([nsfwjs_artifact], backend=family), golden, pictures))
    assert worst <= 1e-4


def test_another_jpeg_decoder_moves_the_scores_little(
    predictor: Predictor, jpeg_golden: dict[str, dict[str, float]], photos: Path
) -> None:
    found = gaps(predictor, jpeg_golden, {name: (photos / name).read_bytes() for name in jpeg_golden})
    assert sum(found) / len(found) <= 0.02


def test_the_working_copy_moves_the_scores_little(
    predictor: Predictor, jpeg_golden: dict[str, dict[str, float]], photos: Path
) -> None:
    copies = {
        name: working_copy(read((photos / name).read_bytes(), Limits(draft_short_side=384)), 384, 90)
        for name in jpeg_golden
    }
    found = gaps(predictor, jpeg_golden, copies)
    assert sum(found) / len(found) <= 0.03


TAGS = {
    "T-Shirt": {"jersey", "sweatshirt"},
    "Shoes": {"sandal", "clog", "Loafer", "running shoe", "cowboy boot", "shoe shop"},
    "Pants": {"jean", "velvet", "suit", "swimming trunks", "pajama", "sweatshirt", "sock"},
}


@pytest.mark.parametrize("kind", TAGS)
def test_imagenet_tags_on_photos_of_clothes(imagenet_artifact: Artifact, photos: Path, kind: str) -> None:
    """ImageNet has few classes of clothes: on four of five photos one that fits is among the first five."""
    with (photos.parent / "images.csv").open() as file:
        names = [row["image"] for row in csv.DictReader(file) if row["label"] == kind][:40]
    predictor = Predictor([imagenet_artifact])
    (ref,) = predictor.models
    prepared = [predictor.prepare((photos / name).read_bytes()) for name in names]
    hits = sum(bool(TAGS[kind] & {tag.label for tag in result[ref].top(5)}) for result in predictor.predict(prepared))
    assert hits >= 32


def test_squeezenet_in_bf16_or_whatever_agrees(published: Path, photos: Path, tmp_path: Path) -> None:
    """A card that allows bf16 gets it only where its scores stay close to fp32's."""
    from safetensors.torch import load_file

    from ml.artifact import save

    card = imagenet.card("squeezenet1_1", "1", source="SqueezeNet v1.1", licence="BSD-2", precision="bf16")
    save(tmp_path, card, load_file(published / "squeezenet1_1-imagenet1k.safetensors"))
    artifact = load(tmp_path)
    names = sorted(path.name for path in photos.glob("*.jpg"))[:32]
    tags = []
    for family in ("auto", "reference"):
        predictor = Predictor([artifact], backend=family)
        results = predictor.predict([predictor.prepare((photos / name).read_bytes()) for name in names])
        tags.append([result[card.ref].top(1)[0] for result in results])
    same = sum(a.label == b.label for a, b in zip(*tags, strict=True))
    assert same >= 31
    assert max(abs(a.score - b.score) for a, b in zip(*tags, strict=True) if a.label == b.label) <= 0.05
