"""A model on disk: safetensors weights beside a readable card.json; never unpickles, builds no network.

The card is also embedded in the weights file's own metadata, so that the one SHA-256 that a registry pins
covers the labels, the preset and the thresholds as well as the numbers: a card.json edited by hand no longer
fits its weights. torch is imported only where tensors are made or written.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.card import ModelCard, from_dict
from ml.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
MAX_CARD_BYTES = 32 << 20
MAX_WEIGHTS_BYTES = 4 << 30

__all__ = ["CARD_FILE", "WEIGHTS_FILE", "Artifact", "ArtifactError", "ModelCard", "card_of", "load", "save"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A checked card with its weights; `sha256` is the digest (hex) of the weights file, card included."""

    card: ModelCard
    state: "Mapping[str, Tensor]"
    sha256: str


def save(folder: Path, card: ModelCard, state: "Mapping[str, Tensor]") -> Artifact:
    """Write the two files into `folder` (made if missing) and return what `load` would give back.

    The files are synced but not renamed into place: whoever installs a model does that with the whole folder.
    Raises ArtifactError('card_invalid') for a card that `load` would refuse.
    """
    import safetensors.torch

    document = from_dict(_plain(card.to_dict())).to_dict()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    weights = safetensors.torch.save(tensors, metadata={"card": _canonical(document)})
    digest = hashlib.sha256(weights).hexdigest()
    readable = document | {"weights": {"file": WEIGHTS_FILE, "sha256": digest, "bytes": len(weights)}}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS_FILE, weights)
    _write(folder / CARD_FILE, json.dumps(readable, indent=1, ensure_ascii=False).encode())
    return Artifact(from_dict(_plain(document)), tensors, digest)


def halved(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The weights as fp16, half the bytes; what is no floating-point number stays as it is."""
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def load(folder: Path, expect_sha256: str | None = None, *, max_bytes: int = MAX_WEIGHTS_BYTES) -> Artifact:
    """Read, check and return the artifact in `folder`.

    `expect_sha256` is the digest that a registry remembers. Raises ArtifactError with one of the codes
    artifact_missing, artifact_too_large, card_invalid, card_mismatch (card.json is not the card of these
    weights), weights_hash_mismatch (other bytes than the card or the registry says), weights_invalid (not
    safetensors).
    """
    import safetensors.torch
    from safetensors import SafetensorError

    card, weights, digest = _checked(folder, expect_sha256, max_bytes)
    try:
        state = safetensors.torch.load(weights)
    except SafetensorError as error:
        raise ArtifactError("weights_invalid", str(error)) from None
    return Artifact(card, state, digest)


def card_of(folder: Path, expect_sha256: str | None = None) -> ModelCard:
    """The card of the artifact in `folder`, its weights checked but not read as tensors. Raises as `load`."""
    card, _, _ = _checked(folder, expect_sha256, MAX_WEIGHTS_BYTES)
    return card


def _checked(folder: Path, expect_sha256: str | None, max_bytes: int) -> tuple[ModelCard, bytes, str]:
    document = _decoded(_read(folder / CARD_FILE, MAX_CARD_BYTES), CARD_FILE)
    weights_entry = document.pop("weights", None)
    if not isinstance(weights_entry, dict) or not isinstance(weights_entry.get("sha256"), str):
        raise ArtifactError("card_invalid", "weights must be an object with sha256", field="weights")
    card = from_dict(document)
    # Hashed and parsed from the same bytes: a file swapped between two reads would otherwise pass.
    weights = _read(folder / WEIGHTS_FILE, max_bytes)
    digest = hashlib.sha256(weights).hexdigest()
    for who, expected in (("the registry", expect_sha256), ("its card", weights_entry["sha256"])):
        if expected is not None and digest != expected:
            raise ArtifactError("weights_hash_mismatch", f"{folder} has SHA-256 {digest}, {who} says {expected}")
    if _embedded_card(weights) != _canonical(card.to_dict()):
        raise ArtifactError("card_mismatch", f"{folder / CARD_FILE} is not the card inside {WEIGHTS_FILE}")
    return card, weights, digest


def _embedded_card(weights: bytes) -> str | None:
    """The `card` entry of a safetensors header: 8 bytes of little-endian length, then JSON."""
    length = int.from_bytes(weights[:8], "little")
    if len(weights) < 8 or length > min(len(weights) - 8, MAX_CARD_BYTES):
        raise ArtifactError("weights_invalid", "no safetensors header")
    try:
        header = json.loads(weights[8 : 8 + length])
    except (ValueError, RecursionError):
        raise ArtifactError("weights_invalid", "the safetensors header is not JSON") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata.get("card") if isinstance(metadata, dict) else None


def _decoded(data: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError("card_invalid", f"{name} is not JSON: {error}", field="card") from None
    if not isinstance(document, dict):
        raise ArtifactError("card_invalid", f"{name} must hold an object", field="card")
    return document


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise ArtifactError("artifact_missing", f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise ArtifactError("artifact_too_large", f"{path} is larger than {limit} bytes")
    return data


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(document: Mapping[str, Any]) -> Any:
    """Through JSON and back, so that tuples compare like the lists that will be read again."""
    return json.loads(_canonical(document))
