"""Foreign models: imported they score as where they came from; what is not imported is refused with a reason."""

import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ml import artifact, onnx_import, presets
from ml.artifact import Artifact
from ml.card import Label
from ml.errors import ArtifactError, BackendError
from ml.heads import network as start_training
from ml.predictor import Predictor
from ml.tiny import make_tiny
from ml.working_copy import decode
from tests.ml import onnx_files
from tests.ml.onnx_files import LABELS, Small, export
from worker import foreign_labels, foreign_models, model_bundle, model_import, model_trial
from worker.foreign_models import Found
from worker.model_import import Said
from worker.model_trial import ImportRefused

SIZE = 16


@pytest.fixture(autouse=True)
def extra() -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")


def said(labels: int = len(LABELS), *, head: str = "softmax", **how: Any) -> Said:
    named = [{"name": name, "group": "kind"} for name in LABELS[:labels]]
    card = {
        "name": "shop", "version": "1", "task": "tags", "labels": named, "head": head, "licence": "MIT",
        "preset": {"name": "whole", "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]},
    }  # fmt: skip
    return replace(Said(card), **how)


def imported(tmp_path: Path, data: bytes, said: Said, name: str = "model.onnx") -> Artifact:
    (tmp_path / name).write_bytes(data)
    model_import.make(foreign_models.look(tmp_path / name), said, tmp_path / "new")
    return artifact.load(tmp_path / "new")


def refusal(call: Callable[[], object]) -> ImportRefused:
    with pytest.raises(ImportRefused) as caught:
        call()
    return caught.value


def photo() -> bytes:
    """A busy picture, as a working copy is encoded."""
    noise = Image.frombytes("L", (50, 60), random.Random(3).randbytes(3000))
    picture = Image.merge(
        "RGB", (noise, noise.rotate(90).resize((50, 60)), Image.linear_gradient("L").resize((50, 60)))
    )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def scores(model: Artifact, data: bytes) -> list[float]:
    predictor = Predictor([model])
    (scored,) = predictor.predict([predictor.prepare(data)])
    return list(scored[model.card.ref].as_dict().values())


def fed(model: Artifact, data: bytes) -> Tensor:
    """The picture as the preset says, normalised, 1×3×H×W."""
    preset = presets.from_card(model.card.preset)
    ready: Tensor = preset.normaliser()(preset(decode(data)).unsqueeze(0))
    return ready


@pytest.mark.parametrize("ends", ["logits", "softmax"])
def test_a_network_scores_as_in_torch(tmp_path: Path, ends: str) -> None:
    network = Small(ends=ends)
    model = imported(tmp_path, export(network, (1, 3, SIZE, SIZE)), said())
    assert model.card.onnx is not None
    assert model.card.onnx["outputs"] == ("logits" if ends == "logits" else "probabilities")
    assert model.card.onnx["layout"] == "NCHW"
    assert model.card.onnx["batch"] is None
    expected = Small().eval()(fed(model, photo())).softmax(1)[0]
    assert scores(model, photo()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert max(expected) - min(expected) > 0.1, "a network that says the same of everything shows nothing"


def test_the_other_way_round(tmp_path: Path) -> None:
    """Channels last, BGR, sigmoid, and a graph that takes one picture only."""
    network = Small(ends="sigmoid", layout="NHWC")
    data = export(network, (1, SIZE, SIZE, 3), dynamic=False)
    model = imported(tmp_path, data, said(head="sigmoid", channels="BGR"))
    assert model.card.onnx is not None
    assert (model.card.onnx["layout"], model.card.onnx["batch"]) == ("NHWC", 1)
    expected = Small().eval()(fed(model, photo()).flip(1)).sigmoid()[0]
    assert scores(model, photo()) == pytest.approx(expected.tolist(), abs=1e-5)
    predictor = Predictor([model], batch_size=4)
    prepared = [predictor.prepare(photo())] * 6
    for scored in predictor.predict(prepared):
        assert list(scored["shop@1"].as_dict().values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_it_runs_beside_a_model_of_ours(tmp_path: Path) -> None:
    ours = make_tiny(tmp_path / "tiny", "moderation")
    theirs = imported(tmp_path, export(Small(), (1, 3, SIZE, SIZE)), said())
    predictor = Predictor([ours, theirs])
    (scored,) = predictor.predict([predictor.prepare(photo())])
    assert scored.keys() == {"tiny-moderation@1", "shop@1"}


def test_one_flipped_byte_and_one_changed_label_are_noticed(tmp_path: Path) -> None:
    model = imported(tmp_path, export(Small(), (1, 3, SIZE, SIZE)), said())
    weights = tmp_path / "new" / artifact.WEIGHTS_FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    with pytest.raises(ArtifactError) as caught:
        artifact.load(tmp_path / "new", model.sha256)
    assert caught.value.code == "weights_hash_mismatch"
    weights.write_bytes(whole)
    card = json.loads((tmp_path / "new" / artifact.CARD_FILE).read_text())
    card["onnx"]["channels"] = "BGR"
    (tmp_path / "new" / artifact.CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(ArtifactError) as caught:
        artifact.load(tmp_path / "new", model.sha256)
    assert caught.value.code == "card_mismatch"


def test_a_network_that_no_longer_says_what_it_said_does_not_go_live(tmp_path: Path) -> None:
    model = imported(tmp_path, export(Small(), (1, 3, SIZE, SIZE)), said())
    other = model.state["probe"].flip(1)
    with pytest.raises(BackendError) as caught:
        Predictor([replace(model, state={**model.state, "probe": other})])
    assert caught.value.code == "backend_disagrees"
    with pytest.raises(BackendError) as caught:
        Predictor([model], backend="fused")
    assert caught.value.code == "backend_unavailable"


def test_nobody_trains_from_it(tmp_path: Path) -> None:
    from tests.ml import datasets

    model = imported(tmp_path, export(Small(), (1, 3, SIZE, SIZE)), said())
    with pytest.raises(ArtifactError) as caught:
        start_training("mobilenet_v2", datasets.coloured(tmp_path / "pictures"), model)
    assert caught.value.code == "architecture_not_trainable"


def test_an_exported_folder_is_tried_out_when_it_comes_in(tmp_path: Path) -> None:
    model = imported(tmp_path, export(Small(), (1, 3, SIZE, SIZE)), said())
    model_import.verify(tmp_path / "new")
    assert model_bundle.bring(tmp_path / "models", tmp_path / "new").sha256 == model.sha256
    artifact.save(tmp_path / "lying", model.card, {**model.state, "probe": model.state["probe"].flip(1)})
    assert refusal(lambda: model_import.verify(tmp_path / "lying")).code == "onnx_disagrees"
    evil = onnx_files.plain()
    evil.graph.node.append(onnx_files.onnx().helper.make_node("Shell", ["x"], ["z"], domain="evil.example"))
    packed = torch.frombuffer(bytearray(evil.SerializeToString()), dtype=torch.uint8)
    artifact.save(tmp_path / "evil", model.card, {**model.state, "onnx": packed})
    assert refusal(lambda: model_import.verify(tmp_path / "evil")).code == "onnx_custom_op"


WRONG: dict[str, tuple[Callable[[], bytes], Said, str]] = {
    "one label too few": (lambda: export(Small(), (1, 3, SIZE, SIZE)), said(4), "labels_mismatch"),
    "another size": (lambda: export(Small(), (1, 3, SIZE, SIZE)), said(size=32), "onnx_input"),
    "another layout": (lambda: export(Small(), (1, 3, SIZE, SIZE)), said(layout="NHWC"), "onnx_input"),
    "logits as probabilities": (
        lambda: export(Small(), (1, 3, SIZE, SIZE)), said(outputs="probabilities"), "output_mismatch",
    ),
    "probabilities as logits": (
        lambda: export(Small(ends="softmax"), (1, 3, SIZE, SIZE)), said(outputs="logits"), "output_mismatch",
    ),
    "sigmoid as softmax": (lambda: export(Small(ends="sigmoid"), (1, 3, SIZE, SIZE)), said(), "output_mismatch"),
    "numbers that are none": (lambda: export(NotFinite(), (1, 3, SIZE, SIZE)), said(), "onnx_not_finite"),
    "an operator that does not exist": (lambda: renamed("Gemm", "Gemn"), said(), "onnx_not_runnable"),
    "pictures of four pixels": (lambda: export(Small(), (1, 3, 4, 4)), said(), "onnx_input"),
    "memory without end": (lambda: greedy(), said(), "onnx_not_runnable"),
}  # fmt: skip


class NotFinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3)) - 1e9).log().repeat(1, 2)[:, :5]


def renamed(operator: str, other: str) -> bytes:
    data = export(Small(), (1, 3, SIZE, SIZE))
    assert data.count(operator.encode()) >= 1
    return data.replace(b"\x22\x04" + operator.encode(), b"\x22\x04" + other.encode())


def greedy() -> bytes:
    """A few hundred bytes that ask for 768 GB."""
    import numpy as np

    onnx = onnx_files.onnx()
    nodes = [
        onnx.helper.make_node("Expand", ["x", "huge"], ["e"]),
        onnx.helper.make_node("GlobalAveragePool", ["e"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["f"]),
        onnx.helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    huge = onnx.numpy_helper.from_array(np.array([1_000_000_000, 3, 8, 8], np.int64), "huge")
    weight = onnx.numpy_helper.from_array(np.ones((3, 5), np.float32), "w")
    port = onnx.helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])
    return bytes(onnx_files.made(nodes, inputs=[port], initializer=[huge, weight]).SerializeToString())


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused(tmp_path: Path, what: str) -> None:
    make, how, code = WRONG[what]
    assert refusal(lambda: imported(tmp_path, make(), how)).code == code
    assert not (tmp_path / "new").exists()


def torchscript() -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.trace(Small().eval(), torch.zeros(1, 3, SIZE, SIZE)), out)
    return out.getvalue()


def saved(legacy: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(Small().state_dict(), out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def safetensors(tmp_path: Path) -> bytes:
    make_tiny(tmp_path / "tiny", "tags")
    return (tmp_path / "tiny" / artifact.WEIGHTS_FILE).read_bytes()


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def bomb() -> bytes:
    return archive({"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": bytes(64 << 20)})


KERAS = {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b""}
NOT_TAKEN: dict[str, tuple[Callable[[Path], bytes], str, str]] = {
    "TorchScript": (lambda _: torchscript(), "torchscript_refused", "torch.onnx.export"),
    "a .pth file": (lambda _: saved(), "pickle_refused", "torch.onnx.export"),
    "an old .pth file": (lambda _: saved(legacy=True), "pickle_refused", "torch.onnx.export"),
    "a pickle": (lambda _: pickle.dumps({"a": 1}), "pickle_refused", "runs code"),
    "a pickle of protocol 0": (lambda _: pickle.dumps({"a": 1}, 0), "pickle_refused", "runs code"),
    "safetensors": (safetensors, "safetensors_without_card", "tagmill train"),
    "TensorFlow Lite": (lambda _: b"\x1c\0\0\0TFL3" + bytes(20), "unknown_model_format", "--tflite"),
    "a ZIP bomb": (lambda _: bomb(), "archive_bomb", "unpack"),
    "a cut-off ZIP": (lambda _: archive(KERAS)[:-30], "keras_invalid", "damaged"),
    "Keras with more in it": (lambda _: archive(KERAS | {"run.py": b""}), "keras_invalid", "run.py"),
    "any ZIP": (lambda _: archive({"a.txt": b"a"}), "unknown_model_format", "ONNX"),
    "a picture": (lambda _: photo(), "unknown_model_format", "ONNX"),
    "nothing": (lambda _: b"", "unknown_model_format", "ONNX"),
}


@pytest.mark.parametrize("what", NOT_TAKEN)
def test_what_is_not_taken_is_told_what_to_do(tmp_path: Path, what: str) -> None:
    make, code, advice = NOT_TAKEN[what]
    path = tmp_path / "model.onnx"  # the name says nothing
    path.write_bytes(make(tmp_path))
    error = refusal(lambda: foreign_models.look(path))
    assert error.code == code
    assert advice in error.detail


def test_folders_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    assert refusal(lambda: foreign_models.look(tmp_path / "saved")).code == "unknown_model_format"
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
    error = refusal(lambda: foreign_models.look(tmp_path / "saved"))
    assert error.code == "saved_model_refused"
    assert f"tf2onnx.convert --opset 17 --output model.onnx --saved-model {tmp_path / 'saved'}" in error.detail
    inside = refusal(lambda: foreign_models.look(tmp_path / "saved" / "saved_model.pb"))
    assert inside.code == "saved_model_refused"
    assert refusal(lambda: foreign_models.look(tmp_path / "nowhere")).code == "model_missing"


def test_a_pickle_is_never_unpickled(tmp_path: Path) -> None:
    class Gadget:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "canary"),)

    for name, data in {"a": pickle.dumps(Gadget()), "b": archive({"x/data.pkl": pickle.dumps(Gadget())})}.items():
        (tmp_path / name).write_bytes(data)
        assert refusal(lambda at=tmp_path / name: foreign_models.look(at)).code == "pickle_refused"  # type: ignore[misc]
    assert not (tmp_path / "canary").exists()


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = model_import.find_spec
    monkeypatch.setattr(model_import, "find_spec", lambda name: None if name == "onnxruntime" else real(name))
    error = refusal(lambda: model_import.make(Found("onnx", tmp_path / "x", b""), said(), tmp_path / "new"))
    assert error.code == "extra_missing"
    assert "pip install 'tagmill[onnx]'" in error.detail


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the walls are Linux's")
def test_the_first_run_is_behind_walls(tmp_path: Path) -> None:
    data = export(Small(), (1, 3, SIZE, SIZE))
    planned = onnx_import.plan(data, said().card, layout=None, channels="RGB", size=None)
    (trial,) = model_trial.run(data, [planned.batch], None)
    assert trial.reference.shape == (4, 5)
    assert trial.walls["memory_limit"]
    assert trial.walls["seccomp"]
    assert trial.walls["no_network"]
    assert trial.walls["no_files"]


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from ml.predictor import Predictor
from ml.tiny import make_tiny
(chosen,) = Predictor([make_tiny(Path({str(tmp_path)!r}), "tags")], backend="openvino").backends.values()
assert chosen.backend.name == "openvino-fp32", chosen
assert sys.modules["openvino_telemetry"] is None
"""
    home = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "home" / "intel").exists()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("dress\nshirt\n", ["dress", "shirt"]),
        ('["dress", {"name": "shirt", "threshold": 0.4, "group": "top"}]', ["dress", "shirt"]),
        ('{"1": "shirt", "0": "dress"}', ["dress", "shirt"]),
        ('{"shirt": 1, "dress": 0}', ["dress", "shirt"]),
        ("name,group,threshold\ndress,type,0.5\nshirt,,\n", ["dress", "shirt"]),
    ],
)
def test_labels_are_read(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "labels").write_text(text)
    labels = foreign_labels.read(tmp_path / "labels", "kind")
    assert [label["name"] for label in labels] == names
    assert labels[0]["group"] == ("type" if "type" in text else "kind")
    assert all(Label(**label) for label in labels)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "no labels"),
        ("a\n\nb\n", "line 2"),
        ('["a", 3]', "entry 1"),
        ('[{"name": "a", "colour": 1}]', "entry 0"),
        ('{"0": "a", "2": "b"}', "every position"),
        ("[", "not JSON"),
        ("name,colour\na,red\n", "colour"),
        ("name,threshold\na,high\n", "line 2"),
        ("name,group\n,kind\n", "line 2"),
    ],
)
def test_wrong_labels_are_refused_with_the_place(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "labels").write_text(text)
    error = refusal(lambda: foreign_labels.read(tmp_path / "labels", "kind"))
    assert error.code == "labels_invalid"
    assert where in error.detail
