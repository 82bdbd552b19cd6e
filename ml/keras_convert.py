"""A Keras model file as ONNX, with the model's own outputs for made pictures; run only in a locked-in process.

Needs the optional extra `keras`: Keras 3 on its torch backend reads .keras and .h5 without TensorFlow. Before Keras
sees a file, its description is checked by `ml.keras_format`, and HDF5 may not point out of itself.
"""

import io
import json
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml import keras_format
from ml.errors import ArtifactError

if TYPE_CHECKING:
    from ml.openvino_runtime import Array

MAX_DESCRIPTION: Final = 64 << 20
PICTURES: Final = 4


@dataclass(frozen=True, slots=True)
class Converted:
    """`inputs`: the made batch, as the network takes it; `outputs`: what Keras itself says to it, N×labels."""

    inputs: "Array"
    outputs: "Array"


def convert(source: Path, target: Path, size: int | None) -> Converted:
    """Write `target` (ONNX) from `source` (.keras or .h5, told by content). `size`: of the pictures, where the file
    leaves it open.

    Raises ArtifactError: keras_invalid, keras_weights_only, keras_layer_refused, keras_external_data, onnx_input,
    onnx_output, keras_not_convertible.
    """
    archive = zipfile.is_zipfile(source)
    keras_format.check(_archived(source) if archive else _described(source))
    import keras
    import torch

    if keras.config.backend() != "torch":
        raise ArtifactError("keras_not_convertible", "Keras must run on torch: start with KERAS_BACKEND=torch")
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.saving.load_model(_named(source, archive), compile=False, safe_mode=True)
            shape = _shape(model, size)
            spec = [keras.InputSpec(shape=(None, *shape), dtype="float32", name="pictures")]
            pictures = _pictures((PICTURES, *shape))
            outputs = np.asarray(keras.ops.convert_to_numpy(model(pictures, training=False)), np.float32)
            model.export(str(target), format="onnx", verbose=False, input_signature=spec)
    except ArtifactError:
        raise
    except Exception as error:  # noqa: BLE001 — Keras and the exporter raise of every kind
        what = " ".join(str(error).split())[:300] or type(error).__name__
        raise ArtifactError("keras_not_convertible", f"Keras cannot load or export it: {what}") from None
    return Converted(pictures, outputs)


def _archived(source: Path) -> object:
    """The description inside a .keras file, its weights checked. Raises ArtifactError."""
    try:
        with zipfile.ZipFile(source) as archive:
            with archive.open("config.json") as file:
                text = file.read(MAX_DESCRIPTION + 1)
            with archive.open("model.weights.h5") as file:
                _stays_inside(io.BytesIO(file.read()))
        if len(text) > MAX_DESCRIPTION:
            raise ArtifactError("keras_invalid", "its description is too large")
        return json.loads(text)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, ValueError, RecursionError, NotImplementedError) as error:
        raise ArtifactError("keras_invalid", f"a damaged .keras file: {error}") from None


def _described(source: Path) -> object:
    """The description inside an .h5 file, which may not point out of itself. Raises ArtifactError."""
    import h5py

    _stays_inside(source)
    try:
        with h5py.File(source, "r") as file:
            if "model_config" not in file.attrs:
                what = "the .h5 file holds weights and no network: save the whole model, model.save('model.keras')"
                raise ArtifactError("keras_weights_only", what)
            text = file.attrs["model_config"]
        return json.loads(text)
    except (OSError, ValueError, RecursionError, TypeError, KeyError, RuntimeError) as error:
        raise ArtifactError("keras_invalid", f"a damaged .h5 file: {error}") from None


def _stays_inside(source: "Path | io.BytesIO") -> None:
    """Refuse HDF5 whose numbers lie in other files: links, external storage, virtual datasets."""
    import h5py

    def look(group: Any) -> None:
        for name in group:
            if isinstance(group.get(name, getlink=True), h5py.ExternalLink | h5py.SoftLink):
                raise ArtifactError("keras_external_data", f"{name} is a link: all numbers must lie in the file itself")
            member = group[name]
            if isinstance(member, h5py.Group):
                look(member)
            elif isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
                raise ArtifactError("keras_external_data", f"{name} lies in another file")

    try:
        with h5py.File(source, "r") as file:
            look(file)
    except (OSError, ValueError, KeyError, RuntimeError, RecursionError) as error:
        raise ArtifactError("keras_invalid", f"damaged HDF5: {error}") from None


def _named(source: Path, archive: bool) -> Path:
    """Keras goes by the name, we by the content: a link with the fitting name beside it."""
    wanted = source.with_suffix(".keras" if archive else ".h5")
    if wanted != source:
        source.rename(wanted)
    return wanted


def _shape(model: Any, size: int | None) -> tuple[int, int, int]:
    """The shape of one picture as the model takes it. Raises ArtifactError: onnx_input, onnx_output."""
    for what, ports, code in (("input", model.inputs, "onnx_input"), ("output", model.outputs, "onnx_output")):
        if len(ports) != 1:
            raise ArtifactError(code, f"one {what} is needed; the model has {len(ports)}")
    sides = tuple(model.inputs[0].shape[1:])
    channels = sides[0] if sides[0] == 3 and sides[-1] != 3 else sides[-1]
    if len(sides) != 3 or channels != 3:
        raise ArtifactError(
            "onnx_input", f"the input {model.inputs[0].shape} is no batch of pictures in three channels"
        )
    if None in sides and size is None:
        raise ArtifactError("onnx_input", "the model takes pictures of any size: give --size")
    first, second, third = (int(side or size or 0) for side in sides)
    return first, second, third


def _pictures(shape: tuple[int, ...]) -> "Array":
    """Random numbers in −1…1, the same every time."""
    return np.random.default_rng(20_240_601).uniform(-1, 1, shape).astype(np.float32)
