"""The mean of trained networks: each weight is the mean, and networks of another kind are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ml import artifact, soup
from ml.artifact import Artifact
from ml.errors import ArtifactError
from ml.manifest import Manifest
from ml.train import train
from tests.ml import datasets


def trained(manifest: Manifest, images: Path, out: Path, **settings: object) -> Artifact:
    return train(manifest, images, datasets.config(epochs=2, half_weights=False, **settings), out)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def manifest(images: Path) -> Manifest:
    return datasets.coloured(images)


def test_every_weight_is_the_mean(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    one = trained(manifest, images, tmp_path / "1", seed=1)
    other = trained(manifest, images, tmp_path / "2", seed=2, init_seed=1)
    mean = soup.average([one, other])
    assert mean.keys() == one.state.keys()
    for name, value in mean.items():
        torch.testing.assert_close(value.double(), (one.state[name].double() + other.state[name].double()) / 2)
    assert any(bool((value != one.state[name]).any()) for name, value in mean.items())
    again = artifact.save(tmp_path / "mean", replace(one.card, version="mean"), mean)
    assert artifact.load(tmp_path / "mean", again.sha256).card.version == "mean"


def test_runs_with_one_init_seed_start_alike(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    """A rate of almost nothing leaves the weights where they started."""
    still = {"lr": 1e-12, "head_lr": 1e-12, "weight_decay": 0.0}
    one, other, third = (
        trained(manifest, images, tmp_path / str(number), seed=seed, init_seed=start, **still)
        for number, (seed, start) in enumerate([(1, None), (2, 1), (2, None)])
    )
    name = next(name for name, value in one.state.items() if value.ndim > 1)
    torch.testing.assert_close(one.state[name], other.state[name], atol=1e-6, rtol=0)
    assert not torch.allclose(one.state[name], third.state[name], atol=1e-3)


def test_networks_of_another_kind_are_refused(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    one = trained(manifest, images, tmp_path / "1")
    labels = (replace(one.card.labels[0], name="other"), *one.card.labels[1:])
    for card, what in (
        (replace(one.card, labels=labels), "labels"),
        (replace(one.card, architecture="mobilenet_v2"), "architecture"),
        (replace(one.card, preset={"name": "whole", "size": 9}), "preset"),
    ):
        with pytest.raises(ArtifactError, match=what) as raised:
            soup.average([one, replace(one, card=card)])
        assert raised.value.code == "weights_mismatch"
