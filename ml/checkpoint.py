"""A training run on disk, so that it can go on after a SIGKILL with the same result; never unpickles.

One safetensors file: the tensors, and in its metadata the rest as JSON. It is written beside the old one, synced
and renamed over it: whatever happens, one whole checkpoint is there.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ml.errors import TrainingError

FILE = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`tensors`: by part and name, as "network/…". `state`: JSON values."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, by their own names."""
        prefix = f"{name}/"
        return {key.removeprefix(prefix): tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Replace the folder's checkpoint. Raises OSError, the old one whole and no rest left, where the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    data = safetensors.torch.save(tensors, metadata={"state": json.dumps(checkpoint.state, sort_keys=True)})
    part = path.with_name(f"{FILE}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return path


def load(folder: Path) -> Checkpoint:
    """Raises TrainingError: checkpoint_missing, checkpoint_invalid."""
    path = folder / FILE
    if not path.is_file():
        raise TrainingError("checkpoint_missing", f"{path} is not there")
    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – it is no mapping
    except (SafetensorError, KeyError, ValueError) as error:
        raise TrainingError("checkpoint_invalid", f"{path}: {error}") from None
    return Checkpoint(tensors, state)
