"""Imports a foreign model: told by content, tried out by locked-in processes, written as an artifact. No database."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker import keras_trial, model_trial
from worker.foreign_models import Found
from worker.model_trial import ImportRefused

if TYPE_CHECKING:
    from ml.artifact import Artifact

EXTRAS: Final = {"onnx": ("onnxruntime", "openvino"), "keras": ("keras", "h5py", "onnx", "onnxruntime", "openvino")}
FORMATS: Final = {"onnx": "ONNX", "keras": "Keras (.keras)", "keras_h5": "Keras (.h5)"}


@dataclass(frozen=True)
class Said:
    """What the user says of a file that says nothing of it itself. `card`: its document, preset without size; `size`:
    of the pictures; `outputs`: logits or probabilities. None: what the file looks like.
    """

    card: Mapping[str, Any]
    layout: str | None = None
    channels: str = "RGB"
    size: int | None = None
    outputs: str | None = None


def make(found: Found, said: Said, folder: Path) -> "Artifact":
    """Write the artifact of a foreign model into `folder`, its sizes and scores tried out.

    Raises ImportRefused: extra_missing, the codes of the trials and of `ml.onnx_import`.
    """
    need("keras" if found.kind.startswith("keras") else "onnx")
    from ml.errors import ArtifactError

    try:
        return _make(found, said, folder)
    except ArtifactError as error:
        raise ImportRefused(error.code, error.detail) from None


def _make(found: Found, said: Said, folder: Path) -> "Artifact":
    from ml import onnx_import

    data, original = found.data, None
    if found.kind != "onnx":
        original = keras_trial.convert(data, ".keras" if found.kind == "keras" else ".h5", said.size)
        data = original.data
    planned = onnx_import.plan(data, said.card, layout=said.layout, channels=said.channels, size=said.size)
    batches = [planned.batch, *([] if original is None else [original.inputs])]
    trial, *rest = model_trial.run(data, batches, planned.feeding.batch)
    gap = 0.0
    if original is not None:
        gap = onnx_import.conversion_gap(rest[0].reference, original.outputs)
    about = {
        "format": FORMATS[found.kind], "original_sha256": hashlib.sha256(found.data).hexdigest(), "gap": gap,
    }  # fmt: skip
    return onnx_import.finish(
        planned, folder, trial.reference, trial.serving, batch=trial.batch, outputs=said.outputs, about=about
    )


def verify(folder: Path) -> None:
    """Try out an artifact that came as a folder, if it holds a foreign network; others need no trial.

    Raises ImportRefused.
    """
    from ml.artifact import load
    from ml.card import ONNX
    from ml.errors import ArtifactError

    try:
        artifact = load(folder)
        if artifact.card.architecture == ONNX:
            need("onnx")
            _verify(artifact)
    except ArtifactError as error:
        raise ImportRefused(error.code, error.detail) from None


def _verify(artifact: "Artifact") -> None:
    from ml import onnx_import

    data, batch, expected, fixed = onnx_import.verify(artifact)
    (trial,) = model_trial.run(data, [batch], fixed)
    if trial.serving.shape != expected.shape:
        raise ImportRefused("labels_mismatch", f"{artifact.card.ref} gives outputs of {trial.serving.shape}")
    onnx_import.agreement(artifact.card, expected, trial.serving)


def need(extra: str) -> None:
    """Raises ImportRefused('extra_missing') where a library of the optional extra is not installed."""
    missing = [library for library in EXTRAS[extra] if find_spec(library) is None]
    if missing:
        what = f"{', '.join(missing)} is missing: the extra `{extra}` is needed, pip install 'tagmill[{extra}]'"
        raise ImportRefused("extra_missing", what)
