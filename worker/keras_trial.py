"""Has a foreign Keras file turned into ONNX by a locked-in process of its own; opens nothing of it here."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.model_trial import CPU_S, ImportRefused, ask

if TYPE_CHECKING:
    from ml.openvino_runtime import Array

MEMORY: Final = 10 << 30  # of addresses: torch and its libraries alone take 4
MOST_FILE: Final = 1 << 30


@dataclass(frozen=True)
class Converted:
    """The network as ONNX, and what Keras itself says (`outputs`, N×labels) to a made batch (`inputs`)."""

    data: bytes
    inputs: "Array"
    outputs: "Array"


def convert(data: bytes, suffix: str, size: int | None) -> Converted:
    """`suffix`: .keras or .h5. `size`: of the pictures, where the file leaves it open.

    Raises ImportRefused: the codes of `ml.keras_convert`, model_too_large, import_crashed, import_timeout.
    """
    with tempfile.TemporaryDirectory(prefix="tagmill-keras-") as name:
        folder = Path(name).resolve()
        (folder / f"model{suffix}").write_bytes(data)
        walls = {
            "parent": os.getpid(), "memory_bytes": MEMORY + 8 * len(data), "cpu_s": CPU_S, "file_bytes": MOST_FILE,
        }  # fmt: skip
        request = {"folder": str(folder), "source": f"model{suffix}", "size": size, "walls": walls}
        environment = {
            "HOME": name, "TMPDIR": name, "KERAS_HOME": name, "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": "",
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        answer = ask("keras_child", [json.dumps(request)], environment, 1 << 20)
        try:
            document = json.loads(answer)
            if "code" in document:
                raise ImportRefused(str(document["code"]), str(document["detail"])[:400])
            arrays = [_array(folder / f"{what}.f32", document[what]) for what in ("inputs", "outputs")]
            return Converted(_read(folder / "model.onnx"), *arrays)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ImportRefused(
                "import_crashed", f"the process that opened the file gave no sane answer: {error}"
            ) from None


def _array(path: Path, shape: list[int]) -> "Array":
    import numpy as np

    return np.frombuffer(_read(path), np.float32).reshape(shape)


def _read(path: Path) -> bytes:
    """A file that the child wrote; a link that it put there is not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MOST_FILE + 1)
    if len(data) > MOST_FILE:
        raise ValueError(f"{path.name} is too large")
    return data
