"""Manifests: what is written is read again, the hash is of the content, errors name the place."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml.errors import DatasetError
from ml.manifest import Manifest, from_dict
from tests.ml import datasets


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return datasets.coloured(tmp_path / "images", per_label=4)


def test_what_is_saved_is_loaded(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifest.save(path)
    loaded = Manifest.load(path)
    assert loaded == manifest
    assert loaded.sha256 == manifest.sha256
    assert not list(tmp_path.glob("*.part"))


def test_the_hash_is_of_the_content_not_of_the_file(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    document = manifest.to_dict()
    path.write_text(json.dumps({key: document[key] for key in reversed(document)}, indent=7))
    assert Manifest.load(path).sha256 == manifest.sha256


def test_the_hash_sees_every_label(manifest: Manifest) -> None:
    first = manifest.entries[0]
    other = replace(first, labels={**first.labels, "colour": "blue"})
    assert replace(manifest, entries=(other, *manifest.entries[1:])).sha256 != manifest.sha256


def test_counts_by_label_and_split(manifest: Manifest) -> None:
    counts = manifest.counts()
    assert counts["colour"] == {label: {"train": 4, "validation": 2} for label in datasets.COLOURS}
    assert counts["warm"] == {"warm": {"train": 3, "validation": 2}}  # every fourth is unknown


def _with(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    *parents, last = path.split("/")
    place: Any = document
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("name", "No Spaces", "name"),
        ("other", 1, "other"),
        ("groups/colour/kind", "fuzzy", "groups.colour.kind"),
        ("groups/colour/labels", [], "groups.colour.labels"),
        ("groups/warm/labels", ["warm", "warm"], "groups.warm.labels[1]"),
        ("entries/2/image", "../passwd", "entries[2].image"),
        ("entries/2/image", "/etc/passwd", "entries[2].image"),
        ("entries/3/sha256", "ABC", "entries[3].sha256"),
        ("entries/3/split", "", "entries[3].split"),
        ("entries/4/labels/colour", "mauve", "entries[4].labels.colour"),
        ("entries/4/labels/colour", ["red"], "entries[4].labels.colour"),
        ("entries/4/labels/warm", "warm", "entries[4].labels.warm"),
        ("entries/4/labels", {"colour": "red"}, "entries[4].labels"),
        ("entries/5/columns", {"n": 1}, "entries[5].columns"),
        ("entries/5/image", "train-red-0.png", "entries[5]"),
    ],
)
def test_an_error_names_the_field(manifest: Manifest, path: str, value: object, field: str) -> None:
    with pytest.raises(DatasetError) as caught:
        from_dict(_with(manifest.to_dict(), path, value))
    assert (caught.value.code, caught.value.field) == ("manifest_invalid", field)


def test_broken_json_names_the_line(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifest.save(path)
    lines = path.read_text().splitlines()
    lines[-3] = lines[-3][:20]
    path.write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=r"manifest_invalid: .* line \d+"):
        Manifest.load(path)


def test_a_missing_file_has_its_own_code(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="manifest_missing"):
        Manifest.load(tmp_path / "nothing.json")
