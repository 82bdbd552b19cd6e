import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from ml.artifact import CARD_FILE, WEIGHTS_FILE, Artifact, load, save
from ml.card import from_dict
from ml.errors import ArtifactError
from ml.tiny import make_tiny


def edit(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps(card | changes))


def refused(folder: Path, **options: Any) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        load(folder, **options)
    return caught.value


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    saved = make_tiny(tmp_path, "tags")
    loaded = load(tmp_path, saved.sha256)
    assert loaded.card == saved.card
    assert loaded.card.ref == "tiny-tags@1"
    assert loaded.sha256 == saved.sha256
    assert loaded.state.keys() == saved.state.keys()
    assert all(torch.equal(loaded.state[key], saved.state[key]) for key in loaded.state)


def test_the_same_model_has_the_same_digest_everywhere(tmp_path: Path) -> None:
    assert make_tiny(tmp_path / "a", "tags").sha256 == make_tiny(tmp_path / "b", "tags").sha256


@pytest.mark.parametrize("at", [0, 40, -1])
def test_one_flipped_byte_is_noticed(tmp_path: Path, at: int) -> None:
    make_tiny(tmp_path, "tags")
    data = bytearray((tmp_path / WEIGHTS_FILE).read_bytes())
    data[at] ^= 1
    (tmp_path / WEIGHTS_FILE).write_bytes(data)
    assert refused(tmp_path).code == "weights_hash_mismatch"


def test_another_model_than_the_registry_remembers(tmp_path: Path) -> None:
    make_tiny(tmp_path, "tags")
    assert refused(tmp_path, expect_sha256="0" * 64).code == "weights_hash_mismatch"


def test_the_pin_covers_the_card(tmp_path: Path) -> None:
    saved = make_tiny(tmp_path, "moderation")
    swapped = [{"name": n, "group": "nsfw"} for n in ("Porn", "Hentai", "Neutral", "Drawing", "Sexy")]
    edit(tmp_path, labels=swapped)
    assert refused(tmp_path, expect_sha256=saved.sha256).code == "card_mismatch"


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    make_tiny(tmp_path, "tags")
    (tmp_path / name).unlink()
    assert refused(tmp_path).code == "artifact_missing"


def test_a_file_larger_than_allowed_is_not_read(tmp_path: Path) -> None:
    make_tiny(tmp_path, "tags")
    assert refused(tmp_path, max_bytes=100).code == "artifact_too_large"


class Gadget:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_never_unpickled(tmp_path: Path, how: str) -> None:
    """Even when the card was made to fit it."""
    import hashlib

    folder, canary = tmp_path / "model", tmp_path / "canary"
    make_tiny(folder, "tags")
    if how == "pickle":
        (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(Gadget(canary)))
    else:
        torch.save(Gadget(canary), folder / WEIGHTS_FILE)
    evil = (folder / WEIGHTS_FILE).read_bytes()
    edit(folder, weights={"file": WEIGHTS_FILE, "sha256": hashlib.sha256(evil).hexdigest()})
    assert refused(folder).code == "weights_invalid"
    assert not canary.exists()


def test_a_header_that_claims_to_be_huge(tmp_path: Path) -> None:
    import hashlib

    make_tiny(tmp_path, "tags")
    lying = (2**63).to_bytes(8, "little") + b"{}"
    (tmp_path / WEIGHTS_FILE).write_bytes(lying)
    edit(tmp_path, weights={"sha256": hashlib.sha256(lying).hexdigest()})
    assert refused(tmp_path).code == "weights_invalid"


GOOD = {
    "name": "shop",
    "version": "1",
    "task": "tags",
    "architecture": "mobilenet_v2",
    "labels": [{"name": "dress", "group": "type", "threshold": 0.5}, {"name": "red", "group": "colour"}],
    "head": {"type": "softmax", "colour": "sigmoid"},
    "preset": {"name": "imagenet"},
}


def test_a_good_card_survives_the_round_trip() -> None:
    card = from_dict(GOOD)
    assert from_dict(json.loads(json.dumps(card.to_dict()))) == card
    assert card.groups == {"type": [0], "colour": [1]}
    assert card.precision == "fp32"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": "../etc"}),
        ("name", {"name": "Shop"}),
        ("version", {"version": "1/2"}),
        ("version", {"version": 1}),
        ("task", {"task": "captions"}),
        ("architecture", {"architecture": None}),
        ("labels", {"labels": []}),
        ("labels[1]", {"labels": [{"name": "a", "group": "type"}, "b"]}),
        ("labels[0].name", {"labels": [{"group": "type"}]}),
        ("labels[0].threshold", {"labels": [{"name": "a", "group": "type", "threshold": 2}]}),
        ("labels[0].colour", {"labels": [{"name": "a", "group": "type", "colour": 1}]}),
        ("labels[1].name", {"labels": [{"name": "a", "group": "type"}] * 2}),
        ("head", {"head": {"type": "softmax"}}),
        ("head.colour", {"head": {"type": "softmax", "colour": "relu"}}),
        ("preset.name", {"preset": {}}),
        ("precision", {"precision": "int8"}),
        ("temperature", {"temperature": 0}),
        ("temperature", {"temperature": float("nan")}),
        ("temperature", {"temperature": True}),
        ("metrics", {"metrics": []}),
        ("data_manifest_sha256", {"data_manifest_sha256": "abc"}),
        ("surprise", {"surprise": 1}),
    ],
)
def test_the_error_names_the_field(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError) as caught:
        from_dict(GOOD | change)
    assert (caught.value.code, caught.value.field) == ("card_invalid", field)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
def test_a_card_that_is_no_object(tmp_path: Path, text: str) -> None:
    make_tiny(tmp_path, "tags")
    (tmp_path / CARD_FILE).write_text(text)
    assert refused(tmp_path).code == "card_invalid"


def test_a_card_that_could_not_be_loaded_is_not_saved(tmp_path: Path, tiny_tags: Artifact) -> None:
    from dataclasses import replace

    with pytest.raises(ArtifactError):
        save(tmp_path / "bad", replace(tiny_tags.card, name="../up"), tiny_tags.state)
    assert not (tmp_path / "bad").exists()
