"""Tells what a model file is by its content, never by its name; what is not imported is told what to do instead.

Opens no model: it looks at a folder's names, at a file's first bytes and at a ZIP's directory.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from worker.model_trial import ImportRefused

Kind = Literal["artifact", "onnx", "keras", "keras_h5"]

MAX_BYTES: Final = 1 << 30
MOST_UNPACKED: Final = 4 << 30
MOST_RATIO: Final = 200  # weights hardly compress; a thousandfold is a bomb
KERAS_FILES: Final = {"metadata.json", "config.json", "model.weights.h5"}
_TORCH_ADVICE: Final = (
    "opening it runs code. Where the model was made, export it: "
    "torch.onnx.export(model.eval(), torch.zeros(1, 3, 224, 224), 'model.onnx', external_data=False)"
)
_TF2ONNX: Final = "python -m tf2onnx.convert --opset 17 --output model.onnx"
_TAKEN: Final = "ONNX, Keras (.keras, .h5), or a folder that `tagmill models export` made"


@dataclass(frozen=True)
class Found:
    """What was found at `path`; `data` is the file's content, empty for a folder."""

    kind: Kind
    path: Path
    data: bytes = b""


def look(path: Path) -> Found:
    """Raises ImportRefused: model_missing, model_too_large, saved_model_refused, torchscript_refused, pickle_refused,
    safetensors_without_card, archive_bomb, keras_invalid, keras_weights_only, unknown_model_format.
    """
    if path.is_dir():
        return _folder(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImportRefused("model_missing", f"{path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ImportRefused("model_too_large", f"{path} is larger than {MAX_BYTES} bytes")
    return Found(_kind(path, data), path, data)


def _folder(path: Path) -> Found:
    if (path / "saved_model.pb").is_file():
        raise _saved_model(f"--saved-model {path}")
    if (path / "card.json").is_file():
        return Found("artifact", path)
    if (path / "model.json").is_file():
        what = f"{path} looks like a TensorFlow.js model: convert it with {_TF2ONNX} --tfjs {path / 'model.json'}"
        raise ImportRefused("unknown_model_format", what)
    raise ImportRefused("unknown_model_format", f"{path} holds no card.json; what can be imported: {_TAKEN}")


def _kind(path: Path, data: bytes) -> Kind:
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras_h5"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(path)
    if _pickle(data):
        raise ImportRefused("pickle_refused", f"{path} is a pickle (an old .pth, perhaps): {_TORCH_ADVICE}")
    if data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8:
        what = (
            f"{path} holds weights and no network. If they are of a torchvision architecture, train from them: "
            f"tagmill train DATASET --init {path} --architecture NAME; else export the network to ONNX"
        )
        raise ImportRefused("safetensors_without_card", what)
    if data[4:8] == b"TFL3":
        raise ImportRefused("unknown_model_format", f"{path} is TensorFlow Lite: {_TF2ONNX} --tflite {path}")
    # ONNX begins with its IR version (field 1, 3 or higher); TensorFlow's protobuf with its schema version, 1.
    if data[:1] == b"\x08" and data[1:2] != b"\x01":
        return "onnx"
    if data[:3] == b"\x08\x01\x12" and path.name == "saved_model.pb":
        raise _saved_model(f"--saved-model {path.parent}")
    raise ImportRefused("unknown_model_format", f"{path} is none of what can be imported: {_TAKEN}")


def _pickle(data: bytes) -> bool:
    """Protocols 2 and later say so; the older ones are text of opcodes that ends with a stop."""
    if data[:1] == b"\x80":
        return data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return data[:1] in (b"(", b"c", b"]", b"}") and data.rstrip(b"\n").endswith(b".")


def _archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ImportRefused("keras_invalid", f"{path} is a damaged ZIP archive: {error}") from None
    unpacked, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if unpacked > MOST_UNPACKED or unpacked > MOST_RATIO * max(packed, 1 << 16):
        raise ImportRefused("archive_bomb", f"{path} would unpack from {packed} to {unpacked} bytes")
    names = {entry.filename for entry in entries}
    parts = {name.split("/", 1)[-1] for name in names}
    if "data.pkl" in parts or "constants.pkl" in parts:
        if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
            raise ImportRefused(
                "torchscript_refused", f"{path} is TorchScript, a program and not only weights: {_TORCH_ADVICE}"
            )
        raise ImportRefused(
            "pickle_refused", f"{path} is a PyTorch file (.pth, .pt), which holds a pickle: {_TORCH_ADVICE}"
        )
    if "saved_model.pb" in {name.rpartition("/")[2] for name in names}:
        raise _saved_model("--saved-model FOLDER, after unpacking it")
    if names == KERAS_FILES:
        return "keras"
    if names > KERAS_FILES:
        more = ", ".join(sorted(names - KERAS_FILES)[:3])
        raise ImportRefused("keras_invalid", f"{path} brings more than a network and its weights: {more}")
    raise ImportRefused("unknown_model_format", f"{path} is a ZIP archive, and no model that can be imported: {_TAKEN}")


def _saved_model(how: str) -> ImportRefused:
    what = f"a TensorFlow SavedModel is a program: convert it where TensorFlow is, with {_TF2ONNX} {how}"
    return ImportRefused("saved_model_refused", what)
