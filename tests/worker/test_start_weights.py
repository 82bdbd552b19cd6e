"""torchvision's own weights to start from: pulled once, checked by their name, and no pickle is opened here."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ml import architectures, heads
from ml.architectures import build
from ml.errors import ArtifactError
from ml.manifest import Group, Manifest
from worker import start_weights
from worker.model_sources import SourceFailed


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback and the folder that it serves."""
    root = tmp_path / "served"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    server.server_close()
    thread.join()


def test_they_are_pulled_once_and_fit(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, root = served
    state = build("squeezenet1_1", 1000).state_dict()
    torch.save(state, root / "made.pth")
    name = f"squeezenet1_1-{hashlib.sha256((root / 'made.pth').read_bytes()).hexdigest()[:8]}.pth"
    (root / "made.pth").rename(root / name)
    monkeypatch.setattr(architectures, "weights_url", lambda architecture: f"{base}/{name}")
    path = start_weights.imagenet(tmp_path / "models", "squeezenet1_1")
    (root / name).unlink()
    assert start_weights.imagenet(tmp_path / "models", "squeezenet1_1") == path
    assert list(path.parent.iterdir()) == [path]
    manifest = Manifest("m", "1", {"g": Group("exclusive", ("a", "b"))}, ())
    network, last = heads.network("squeezenet1_1", manifest, path)
    found = network.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in found if not key.startswith(last))


def test_other_bytes_than_the_name_promises_are_refused(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, root = served
    (root / "resnet18-00000000.pth").write_bytes(b"something else")
    monkeypatch.setattr(architectures, "weights_url", lambda architecture: f"{base}/resnet18-00000000.pth")
    with pytest.raises(SourceFailed) as refused:
        start_weights.imagenet(tmp_path / "models", "resnet18")
    assert refused.value.code == "hash_mismatch"
    assert not (tmp_path / "models").exists()


def test_a_network_without_published_weights(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="unknown_architecture"):
        start_weights.imagenet(tmp_path, "tiny_colour")
