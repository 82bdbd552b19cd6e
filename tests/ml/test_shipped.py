"""The shipped tagger of clothes: small, whole, its card complete, and right on photos that it was not trained on."""

import csv
import tomllib
from pathlib import Path

import pytest

from ml import images, shipped_models
from ml.artifact import Artifact, load
from ml.predictor import Predictor

MAX_BYTES = 12_000_000


@pytest.fixture(scope="module")
def clothing() -> Artifact:
    return load(shipped_models.folder("clothing"))


def test_it_is_small_and_its_card_is_complete(clothing: Artifact) -> None:
    folder = shipped_models.folder("clothing")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MAX_BYTES
    card = clothing.card
    assert card.head == {"category": "softmax", "kids": "sigmoid"}
    assert not {"Not sure", "Other", "Skip"} & {label.name for label in card.labels}
    assert card.data_manifest_sha256 is not None
    assert card.parent == f"{card.ref}-averaged"
    assert card.metrics["validation"]["groups"]["category"]["figures"]["accuracy"]["value"] > 0.85
    assert "unknown" not in (card.licence, card.source)
    assert all(0.2 < card.temperature_of(group) < 5 for group in card.groups)
    ids = {label.name: label.taxonomy_id for label in card.labels}
    assert ids["T-Shirt"] == "shopify:aa-1-13-8,google:212"
    assert (ids["Body"], ids["Undershirt"], ids["Blazer"]) == ("shopify:aa-1-2-9-2", "google:2745", None)


def test_its_recipe_is_what_made_it(clothing: Artifact) -> None:
    recipe = tomllib.loads((shipped_models.folder("clothing") / "recipe.toml").read_text())
    card = clothing.card
    assert recipe["name"] == card.name
    assert recipe["train"]["architecture"] == card.architecture
    assert recipe["train"]["taxonomy"] == {
        f"{label.group}:{label.name}": label.taxonomy_id for label in card.labels if label.taxonomy_id
    }


def test_what_is_not_shipped_is_not_found() -> None:
    with pytest.raises(KeyError):
        shipped_models.folder("../shipped/clothing")


def test_it_is_right_on_photos_that_it_has_not_seen(clothing: Artifact, photos: Path) -> None:
    with (photos.parent / "images.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    known = {label.name for label in clothing.card.labels}
    chosen = [row for row in rows if row["label"] in known][:60]
    predictor = Predictor([clothing])
    copies = [images.encode_working_copy(images.decode((photos / row["image"]).read_bytes())) for row in chosen]
    found = predictor.predict([predictor.prepare(copy) for copy in copies])
    best = [
        max((tag for tag in scores[clothing.card.ref].top(20) if tag.group == "category"), key=lambda tag: tag.score)
        for scores in found
    ]
    right = sum(tag.label == row["label"] for tag, row in zip(best, chosen, strict=True))
    assert right / len(chosen) >= 0.75
