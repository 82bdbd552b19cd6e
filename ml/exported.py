"""A network as an OpenVINO file beside the artifact that it was made from, so that running it needs no torch.

    folder: network.xml, network.bin, probe.npz (inputs, and the logits of the fp32 reference for them), about.json

about.json has the SHA-256 of the other three and of the artifact's weights. Who reads it checks them, and that the
compiled network gives the reference's scores for the probe: what `ml.backends` asks of every backend. Writing takes
torch, reading does not.

An int8 network (`ml.quantise`) lies in a folder of its own: its probe has its own logits, and its about.json what the
evaluation said of it. One is never read in the place of the other.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ml.card import ModelCard
from ml.errors import BackendError
from ml.openvino_runtime import Array, openvino

if TYPE_CHECKING:
    from ml.artifact import Artifact

ABOUT = "about.json"
NETWORK, WEIGHTS, PROBE = "network.xml", "network.bin", "probe.npz"
MOST_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Exported:
    """A network that was read and checked: what OpenVINO compiles, and what it must give.

    `judged`: of an int8 network, what the evaluation said. `int8`: the same network in int8, where it may run so.
    """

    model: Any
    inputs: npt.NDArray[Any]
    logits: Array
    judged: Mapping[str, Any] | None = None
    int8: "Exported | None" = None


def write(artifact: "Artifact", folder: Path) -> None:
    """Export into `folder`, which is there and empty. Raises ArtifactError, BackendError('backend_unavailable')."""
    from ml import architectures, backends, presets
    from ml.card import ONNX
    from ml.scores import LabelSet

    card = artifact.card
    if card.architecture == ONNX:
        raise BackendError("backend_unavailable", f"{card.ref} was imported from ONNX and is not exported")
    preset = presets.from_card(card.preset)
    network = architectures.restore(card.architecture, len(card.labels), dict(artifact.state))
    reference = backends.Reference(network, preset, LabelSet(card).activate)
    model = backends.converted(network, preset)
    keep(Exported(model, reference.pictures.numpy(), reference.logits.numpy()), artifact.sha256, folder)


def keep(network: Exported, weights_sha256: str, folder: Path) -> None:
    """The files of a network into `folder`."""
    openvino().save_model(network.model, str(folder / NETWORK), compress_to_fp16=False)
    np.savez(folder / PROBE, inputs=network.inputs, logits=network.logits)
    about: dict[str, Any] = {name: _sha256((folder / name).read_bytes()) for name in (NETWORK, WEIGHTS, PROBE)}
    if network.judged is not None:
        about["int8"] = dict(network.judged)
    (folder / ABOUT).write_text(json.dumps({"artifact": weights_sha256, **about}, indent=1), encoding="utf-8")


def read(folder: Path, weights_sha256: str) -> Exported:
    """What was exported of the artifact with these weights. Raises BackendError('backend_unavailable') where it is
    missing, incomplete or other than it was when it was written."""
    found = _checked(folder, weights_sha256)
    if found.judged is not None:
        raise BackendError("backend_unavailable", f"{folder} holds an int8 network")
    return found


def read_int8(folder: Path, card: ModelCard, weights_sha256: str) -> Exported:
    """The int8 network of an artifact. Raises BackendError('backend_unavailable') as `read` does, and where the
    evaluation did not let it run, or the card asks for fp32 and nobody went past it."""
    found = _checked(folder, weights_sha256)
    if not isinstance(found.judged, dict) or found.judged.get("offered") is not True:
        raise BackendError("backend_unavailable", f"{folder}: no evaluation offers this network in int8")
    if card.precision == "fp32" and found.judged.get("below_card") is not True:
        raise BackendError("backend_unavailable", f"the card of {card.ref} asks for fp32")
    return found


def _checked(folder: Path, weights_sha256: str) -> Exported:
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        judged = about.pop("int8", None) if isinstance(about, dict) else None
        files = {name: _read(folder / name) for name in (NETWORK, WEIGHTS, PROBE)}
        if about != {"artifact": weights_sha256, **{name: _sha256(data) for name, data in files.items()}}:
            raise BackendError("backend_unavailable", f"{folder} is not as it was exported")
        # Parsed from the bytes that were hashed: files swapped between two reads would otherwise pass.
        ov = openvino()
        weights = np.frombuffer(files[WEIGHTS], np.uint8)
        model = ov.Core().read_model(model=files[NETWORK], weights=ov.Tensor(weights))
        with np.load(io.BytesIO(files[PROBE]), allow_pickle=False) as probe:
            return Exported(model, probe["inputs"], probe["logits"], judged)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BackendError("backend_unavailable", f"{folder}: {error}") from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path.name} is larger than {MOST_BYTES} bytes")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
