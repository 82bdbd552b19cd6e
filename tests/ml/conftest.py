"""Models for the tests of `ml`: the tiny ones always, the published ones where ../shared is."""

import io
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from ml import imagenet, nsfwjs
from ml.artifact import Artifact, load, save
from ml.tiny import make_tiny

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture
def tiny_tags(tmp_path: Path) -> Artifact:
    return make_tiny(tmp_path / "tiny-tags", "tags")


@pytest.fixture
def tiny_moderation(tmp_path: Path) -> Artifact:
    return make_tiny(tmp_path / "tiny-moderation", "moderation")


@pytest.fixture(scope="session")
def published() -> Path:
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip("../shared/models is not here: no published weights to test with")
    return folder


@pytest.fixture(scope="session")
def photos() -> Path:
    folder = SHARED / "data" / "clothing" / "images"
    if not folder.is_dir():
        pytest.skip("../shared/data/clothing is not here: no photos to test with")
    return folder


@pytest.fixture(scope="session")
def nsfwjs_artifact(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """NSFWJS's model, converted, saved and loaded again: the way that production takes."""
    source = published / "nsfwjs-mobilenet_v2"
    folder = tmp_path_factory.mktemp("nsfwjs")
    save(
        folder,
        *nsfwjs.convert((source / "model.json").read_bytes(), (source / "group1-shard1of1").read_bytes()),
    )
    return load(folder)


@pytest.fixture(scope="session")
def imagenet_artifact(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    card = imagenet.card("mobilenet_v2", "1", source="google-coral/test_data", licence="Apache-2.0")
    folder = tmp_path_factory.mktemp("imagenet")
    save(folder, card, load_file(published / "mobilenet_v2-imagenet1k.safetensors"))
    return load(folder)


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture of one colour, as our working copies are encoded."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def png(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()
