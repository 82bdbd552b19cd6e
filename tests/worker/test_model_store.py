"""Models from a folder, a mirror, npm and a .pth file: checked, converted, installed whole or not at all."""

import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ml import artifact, imagenet
from ml.architectures import build
from worker import js_literal, model_store
from worker.model_sources import Folder, NpmNsfwjs, SourceFailed, Torchvision, pth_to_safetensors
from worker.model_store import ModelStore, ModelStoreError

NSFWJS = "nsfwjs-mobilenet_v2"


@pytest.fixture(scope="module")
def published() -> Path:
    folder = (Path(__file__).resolve().parents[3] / "shared" / "models").resolve()
    if not folder.is_dir():
        pytest.skip("../shared/models is not here: no published models to install")
    return folder


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
    thread.join()
    server.server_close()


def no_leftovers(root: Path) -> bool:
    return not [path for path in root.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", model_store.RECIPES)
def test_a_model_from_a_folder(tmp_path: Path, published: Path, name: str) -> None:
    store = ModelStore(tmp_path, str(published))
    pulled = store.pull(name)
    assert pulled.source == f"folder {published}"
    assert pulled.tried == ()
    assert pulled.folder == tmp_path / name / pulled.version
    loaded = artifact.load(pulled.folder, pulled.sha256)
    assert loaded.card.ref == pulled.ref
    assert pulled.card == loaded.card.to_dict()
    assert loaded.card.task == pulled.task == model_store.RECIPES[name].task
    assert no_leftovers(tmp_path)


def test_the_second_pull_fetches_nothing(tmp_path: Path, published: Path) -> None:
    first = ModelStore(tmp_path, str(published)).pull(NSFWJS)
    second = ModelStore(tmp_path, str(tmp_path / "nowhere")).pull(NSFWJS)
    assert second.source == "installed"
    assert (second.ref, second.sha256, second.folder) == (first.ref, first.sha256, first.folder)


def test_a_damaged_model_is_installed_anew(tmp_path: Path, published: Path) -> None:
    store = ModelStore(tmp_path, str(published))
    first = store.pull(NSFWJS)
    weights = first.folder / artifact.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-1])
    again = store.pull(NSFWJS)
    assert again.source.startswith("folder")
    assert artifact.load(again.folder).sha256 == first.sha256
    assert no_leftovers(tmp_path)


def test_again_replaces_what_is_there(tmp_path: Path, published: Path) -> None:
    store = ModelStore(tmp_path, str(published))
    store.pull(NSFWJS)
    (tmp_path / NSFWJS / "4.3.0" / "stray").touch()
    assert store.pull(NSFWJS, again=True).source.startswith("folder")
    assert not (tmp_path / NSFWJS / "4.3.0" / "stray").exists()


@pytest.mark.parametrize("kind", ["file://", "http"])
def test_a_model_from_a_mirror(tmp_path: Path, published: Path, served: tuple[str, Path], kind: str) -> None:
    base, root = served
    shutil.copytree(published / NSFWJS, root / NSFWJS)
    pulled = ModelStore(tmp_path / "models", base if kind == "http" else root.as_uri()).pull(NSFWJS)
    assert pulled.source == (f"mirror {base}" if kind == "http" else f"folder {root}")
    assert artifact.load(pulled.folder, pulled.sha256).card.ref == f"{NSFWJS}@4.3.0"


def test_one_changed_byte_in_the_source(tmp_path: Path, published: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(published / NSFWJS, source / NSFWJS)
    shard = source / NSFWJS / "group1-shard1of1"
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    store = ModelStore(tmp_path / "models", str(source))
    (folder, *_) = store.sources(NSFWJS)
    with pytest.raises(ModelStoreError) as caught:
        store.pull(NSFWJS, sources=[folder])
    assert caught.value.code == "no_source"
    assert [failed.code for failed in caught.value.tried] == ["hash_mismatch"]
    assert not (tmp_path / "models").exists()


def test_sources_are_tried_in_order_and_the_error_lists_them(
    tmp_path: Path, served: tuple[str, Path], published: Path
) -> None:
    base, _ = served
    store = ModelStore(tmp_path / "models")
    files = model_store.RECIPES[NSFWJS].files
    absent = Folder(tmp_path / "absent", files, "4.3.0")
    gone = Torchvision(f"{base}/mobilenet_v2-b0353104.pth", "1")
    nobody = Torchvision("http://127.0.0.1:9/mobilenet_v2-b0353104.pth", "1")
    with pytest.raises(ModelStoreError) as caught:
        store.pull(NSFWJS, sources=[absent, gone, nobody])
    assert [failed.code for failed in caught.value.tried] == ["source_missing", "http_error", "http_error"]
    assert all(failed.source in str(caught.value) for failed in caught.value.tried)
    pulled = store.pull(NSFWJS, sources=[absent, Folder(published, files, "4.3.0")])
    assert [failed.source for failed in pulled.tried] == [absent.label]


def test_the_setting_comes_before_the_public_sources(tmp_path: Path) -> None:
    labels = [source.label for source in ModelStore(tmp_path, "/mirror").sources(NSFWJS)]
    assert labels == ["folder /mirror", "npm nsfwjs@4.3.0"]
    assert [s.label for s in ModelStore(tmp_path).sources("imagenet-mobilenet_v2")] == [
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
    ]


def test_an_unknown_model(tmp_path: Path) -> None:
    with pytest.raises(ModelStoreError) as caught:
        ModelStore(tmp_path).pull("../../etc")
    assert caught.value.code == "unknown_model"


def npm_answers() -> bool:
    if shutil.which("npm") is None:
        return False
    asked = ["npm", "view", "nsfwjs@4.3.0", "version", "--fetch-retries=0", "--fetch-timeout=10000"]
    try:
        return subprocess.run(asked, capture_output=True, timeout=60).stdout.strip() == b"4.3.0"
    except subprocess.TimeoutExpired:
        return False


def test_the_npm_package_gives_the_very_same_model(tmp_path: Path, published: Path) -> None:
    if not npm_answers():
        pytest.skip("no npm here, or its registry does not answer")
    from_npm = ModelStore(tmp_path / "a").pull(NSFWJS)
    assert from_npm.source == "npm nsfwjs@4.3.0"
    assert from_npm.sha256 == ModelStore(tmp_path / "b", str(published)).pull(NSFWJS).sha256


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceFailed) as caught:
        NpmNsfwjs("4.3.0").fetch()
    assert caught.value.code == "npm_missing"


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `npm` that does what `script` says, in the folder it is started in."""
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo 'npm error 404' >&2; exit 1", "npm_failed"),
        ("echo junk > nsfwjs-4.3.0.tgz", "package_unexpected"),
        ("tar czf nsfwjs-4.3.0.tgz --files-from /dev/null", "package_unexpected"),
        (
            "d=package/dist/models/mobilenet_v2; mkdir -p $d; "
            "echo 'module.exports={}' > $d/model.min.js; echo > $d/group1-shard1of1.min.js; "
            "tar czf nsfwjs-4.3.0.tgz package",
            "hash_mismatch",
        ),
    ],
)
def test_a_package_that_is_not_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: str
) -> None:
    fake_npm(tmp_path, script, monkeypatch)
    with pytest.raises(SourceFailed) as caught:
        NpmNsfwjs("4.3.0").fetch()
    assert caught.value.code == code


def test_a_pth_file_with_the_right_prefix(tmp_path: Path, served: tuple[str, Path]) -> None:
    """torchvision's file is not to be had here: one of the same kind, named by the same rule."""
    base, root = served
    state = build("squeezenet1_1", 1000).state_dict()
    torch.save(state, root / "made.pth")
    digest = hashlib.sha256((root / "made.pth").read_bytes()).hexdigest()
    (root / "made.pth").rename(root / f"squeezenet1_1-{digest[:8]}.pth")
    source = Torchvision(f"{base}/squeezenet1_1-{digest[:8]}.pth", "1-torchvision")
    pulled = ModelStore(tmp_path / "models").pull("imagenet-squeezenet1_1", sources=[source])
    assert pulled.ref == "imagenet-squeezenet1_1@1-torchvision"
    assert pulled.source == source.label
    assert pulled.card["precision"] == "fp32"
    loaded = artifact.load(pulled.folder)
    assert all(torch.equal(loaded.state[key], state[key]) for key in state)


def test_a_pth_file_with_another_hash_is_never_opened(served: tuple[str, Path]) -> None:
    base, root = served
    (root / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"anything")
    with pytest.raises(SourceFailed) as caught:
        Torchvision(f"{base}/squeezenet1_1-b8a52dc0.pth", "1").fetch()
    assert caught.value.code == "hash_mismatch"


class Gadget:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def test_a_pth_file_that_wants_to_run_code(tmp_path: Path) -> None:
    torch.save({"features": Gadget(tmp_path / "canary")}, tmp_path / "evil.pth")
    with pytest.raises(SourceFailed) as caught:
        pth_to_safetensors((tmp_path / "evil.pth").read_bytes())
    assert caught.value.code == "conversion_failed"
    assert not (tmp_path / "canary").exists()


def test_weights_of_another_network_are_not_installed(tmp_path: Path, served: tuple[str, Path]) -> None:
    base, root = served
    torch.save(build("squeezenet1_0", 1000).state_dict(), root / "made.pth")
    digest = hashlib.sha256((root / "made.pth").read_bytes()).hexdigest()
    (root / "made.pth").rename(root / f"squeezenet1_1-{digest[:8]}.pth")
    source = Torchvision(f"{base}/squeezenet1_1-{digest[:8]}.pth", "1-torchvision")
    with pytest.raises(ModelStoreError) as caught:
        ModelStore(tmp_path / "models").pull("imagenet-squeezenet1_1", sources=[source])
    assert caught.value.tried[0].code == "conversion_failed"
    assert not list((tmp_path / "models").rglob("card.json"))


def test_imagenet_weights_that_are_no_safetensors() -> None:
    with pytest.raises(artifact.ArtifactError) as caught:
        imagenet.weights("squeezenet1_1", b"\x80\x04pickle")
    assert caught.value.code == "weights_invalid"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{}", {}),
        ("[1,{a:[]}]]]", [1, {"a": []}]),
        (
            '{a:1,"b":[-.5,1e-3,2.0],$c:!0,d:!1,e:null}',
            {"a": 1, "b": [-0.5, 0.001, 2.0], "$c": True, "d": False, "e": None},
        ),
        (r'{f:"x\"{"}', {"f": 'x"{'}),
        ('{name:"relu",min:-.06673} ; the rest', {"name": "relu", "min": -0.06673}),
    ],
)
def test_a_minified_object_is_read(source: str, value: object) -> None:
    assert js_literal.parse(source, 0) == value


@pytest.mark.parametrize("source", ["{a:f()}", "{a:1", "{a:`x`}", "{a:1+1}", "", "{a b}", "{[]}"])
def test_anything_but_a_literal_is_refused(source: str) -> None:
    with pytest.raises(ValueError):
        js_literal.parse(source, 0)


def test_numbers_survive_as_they_were() -> None:
    numbers = [0.006666756611244351, -0.87334511607301, 1e-05, 4.2967e-19]
    source = json.dumps({"n": numbers}).replace("0.", ".")
    assert js_literal.parse(source, 0) == {"n": numbers}
