"""Drawings of the demo: the same on every machine, all different, marked, and right for the shipped tagger."""

import hashlib
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageChops

from ml import images, shipped_models
from ml.artifact import load
from ml.predictor import Predictor
from worker import drawing_scene, drawings
from worker.drawings import GARMENTS, SIZE, drawn

EACH = 4 * len(GARMENTS)


def test_a_drawing_is_the_same_each_time_and_no_two_are(tmp_path: Path) -> None:
    first = drawings.draw(tmp_path / "a", EACH)
    again = drawings.draw(tmp_path / "b", EACH)
    assert [path.name for path in first] == [path.name for path in again]
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in first]
    assert digests == [hashlib.sha256(path.read_bytes()).digest() for path in again]
    assert len(set(digests)) == EACH
    assert digests[0] != hashlib.sha256(drawings.draw(tmp_path / "c", 1, seed=2)[0].read_bytes()).digest()
    assert {Image.open(path).size for path in first} == {SIZE}


def test_names_say_what_was_drawn(tmp_path: Path) -> None:
    paths = drawings.draw(tmp_path, EACH)
    assert Counter(drawn(path.name) for path in paths) == dict.fromkeys(GARMENTS, 4)
    assert drawn("photo.jpg") is None
    assert GARMENTS.keys() <= {label["name"] for label in shipped_models.card("clothing")["labels"]}


def test_every_drawing_is_marked_in_its_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    for label, make in GARMENTS.items():
        marked, bare = [], []
        for mark, found in (("drawing", marked), ("", bare)):
            monkeypatch.setattr(drawing_scene, "MARK", mark)
            random = Random(label)
            found.append(drawing_scene.picture(random, make(random), "#3a66a8", "plain"))
        box = ImageChops.difference(marked[0], bare[0]).getbbox()
        assert box is not None
        assert box[0] < 20
        assert box[1] > SIZE[1] - 40


def test_the_shipped_tagger_is_right_on_most(tmp_path: Path) -> None:
    """Over several seeds, on working copies as in production: no single score is looked at, and a margin is left."""
    artifact = load(shipped_models.folder("clothing"))
    predictor = Predictor([artifact])
    right: Counter[str] = Counter()
    for seed in (1, 2, 3):
        paths = drawings.draw(tmp_path / str(seed), EACH, seed)
        copies = [images.encode_working_copy(images.decode(path.read_bytes())) for path in paths]
        for path, scores in zip(paths, predictor.predict([predictor.prepare(copy) for copy in copies]), strict=True):
            categories = [tag for tag in scores[artifact.card.ref].top(20) if tag.group == "category"]
            best = max(categories, key=lambda tag: tag.score)
            right[best.label] += best.label == drawn(path.name)
    assert sum(right.values()) / (3 * EACH) >= 0.6, right
    assert sum(count >= 6 for count in right.values()) >= 6, right
