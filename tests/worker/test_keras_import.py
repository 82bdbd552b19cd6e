"""Keras models: scores equal to what Keras says in another process, and files that were made to do harm."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ml.artifact import load
from ml.predictor import Predictor
from tests.worker.test_model_import import photo
from worker import foreign_models, keras_trial, model_import
from worker.model_import import Said
from worker.model_trial import ImportRefused

LABELS = ("dress", "shirt", "shoe", "hat")
# MobileNetV2 with random weights, its BatchNorms shaken so that pictures make a difference; and what it says itself.
MAKE = """
import sys
import keras
import numpy as np
folder = sys.argv[1]
keras.utils.set_random_seed(4)
model = keras.applications.MobileNetV2(weights=None, classes=4, input_shape=(64, 64, 3), alpha=0.35)
chance = np.random.default_rng(0)
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        gamma, beta, mean, variance = layer.get_weights()
        layer.set_weights([gamma * 1.5, beta + chance.normal(0, 0.3, beta.shape), mean, variance])
dense = model.layers[-1]
dense.set_weights([dense.get_weights()[0] * 8, dense.get_weights()[1]])
model.save(f"{folder}/model.keras")
model.save(f"{folder}/model.h5")
model.save_weights(f"{folder}/only.weights.h5")
np.save(f"{folder}/said.npy", model(np.load(f"{folder}/fed.npy"), training=False).detach().numpy())
evil = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x[:, 0, 0, :])])
evil.save(f"{folder}/lambda.keras")
two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
both = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Add()(list(two))))
keras.Model(list(two), both).save(f"{folder}/two.keras")
any_size = keras.Input((None, None, 3))
averaged = keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(any_size))
keras.Model(any_size, averaged).save(f"{folder}/any.keras")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that Keras saved, and a photo as they take it with what the first one says of it."""
    for library in ("keras", "h5py", "onnx", "onnxruntime", "openvino"):
        if find_spec(library) is None:
            pytest.skip(f"the extra `keras` ({library}) is not installed")
    from ml import presets
    from ml.working_copy import decode

    folder = tmp_path_factory.mktemp("keras")
    preset = presets.WholePreset(size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    np.save(folder / "fed.npy", preset.normaliser()(preset(decode(photo()))[None]).permute(0, 2, 3, 1).numpy())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "KERAS_BACKEND": "torch",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", MAKE, str(folder)], env=environment, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    return folder


def said(labels: int = 4) -> Said:
    return Said(
        {
            "name": "shop", "version": "1", "task": "tags", "head": "softmax",
            "labels": [{"name": name, "group": "kind"} for name in LABELS[:labels]],
            "preset": {"name": "whole", "mean": [0.5] * 3, "std": [0.5] * 3},
        }
    )  # fmt: skip


def refusal(path: Path, tmp_path: Path) -> ImportRefused:
    with pytest.raises(ImportRefused) as caught:
        model_import.make(foreign_models.look(path), said(), tmp_path / "new")
    return caught.value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_it_scores_as_in_keras(models: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(models / name, tmp_path / "model.bin")  # the name says nothing
    model_import.make(foreign_models.look(tmp_path / "model.bin"), said(), tmp_path / "new")
    model = load(tmp_path / "new")
    assert model.card.onnx is not None
    assert model.card.onnx["layout"] == "NHWC"
    assert model.card.onnx["outputs"] == "probabilities"
    assert 0 <= model.card.onnx["gap"] < 1e-4
    predictor = Predictor([model])
    (scored,) = predictor.predict([predictor.prepare(photo())])
    expected = np.load(models / "said.npy")[0]
    assert list(scored["shop@1"].as_dict().values()) == pytest.approx(expected.tolist(), abs=5e-5)
    assert np.ptp(expected) > 0.02, "a network that says the same of everything shows nothing"


@pytest.mark.slow
def test_a_size_that_is_open_must_be_given(models: Path, tmp_path: Path) -> None:
    assert refusal(models / "any.keras", tmp_path).code == "onnx_input"
    converted = keras_trial.convert((models / "any.keras").read_bytes(), ".keras", 32)
    assert converted.inputs.shape == (4, 32, 32, 3)
    assert converted.outputs.shape == (4, 4)


@pytest.mark.slow
def test_files_that_are_not_taken(models: Path, tmp_path: Path) -> None:
    assert refusal(models / "lambda.keras", tmp_path).code == "keras_layer_refused"
    assert refusal(models / "two.keras", tmp_path).code == "onnx_input"
    assert refusal(models / "only.weights.h5", tmp_path).code == "keras_weights_only"
    whole = (models / "model.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path / "cut.h5", tmp_path).code == "keras_invalid"


@pytest.mark.slow
def test_hdf5_may_not_point_out_of_itself(models: Path, tmp_path: Path) -> None:
    import h5py

    shutil.copy(models / "model.h5", tmp_path / "linked.h5")
    with h5py.File(tmp_path / "linked.h5", "r+") as file:
        file["more"] = h5py.ExternalLink("/etc/passwd", "/")
    assert refusal(tmp_path / "linked.h5", tmp_path).code == "keras_external_data"
    shutil.copy(models / "model.h5", tmp_path / "raw.h5")
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        file.create_dataset("more", (8,), "u1", external=[("/etc/passwd", 0, 8)])
    assert refusal(tmp_path / "raw.h5", tmp_path).code == "keras_external_data"


@pytest.mark.slow
def test_a_description_that_names_other_code_is_refused_before_keras_sees_it(models: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(models / "any.keras") as source, zipfile.ZipFile(tmp_path / "evil.keras", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                document = json.loads(data)
                document["config"]["layers"][1] |= {"module": "os", "class_name": "system"}
                data = json.dumps(document).encode()
            target.writestr(name, data)
    error = refusal(tmp_path / "evil.keras", tmp_path)
    assert error.code == "keras_layer_refused"
    assert "model.export('model.onnx', format='onnx')" in error.detail


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the walls are Linux's")
def test_the_process_that_opens_it_is_walled_in(tmp_path: Path) -> None:
    """Tried out from inside: no other folder can be written, no program started, no connection opened."""
    code = f"""
import os, socket, subprocess
from pathlib import Path
from worker.confinement import lock_in_reading
folder, outside = Path({str(tmp_path)!r}) / "in", Path({str(tmp_path)!r}) / "out"
walls = lock_in_reading(os.getppid(), 4 << 30, 60, 1 << 20, folder)
def refused(call):
    try:
        call()
    except OSError:
        return True
    return False
(folder / "a").write_text("ours")
print(refused(lambda: outside.write_text("x")) or not walls.writes_in_one_folder,
      refused(lambda: subprocess.run(["true"])), refused(socket.socket), os.path.exists("/etc/passwd"),
      walls.no_programs)
"""
    (tmp_path / "in").mkdir()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True"] * 5, done.stderr
