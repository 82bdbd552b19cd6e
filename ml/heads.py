"""Several label groups as heads of one network: where it starts from, its targets and its loss.

The heads are slices of one last layer, in the order of the manifest's labels; softmax for an exclusive group,
sigmoid for attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from ml import architectures
from ml.artifact import Artifact
from ml.card import ONNX
from ml.errors import ArtifactError, DatasetError
from ml.manifest import Entry, Group, Manifest, named

UNKNOWN = -1.0


@dataclass(frozen=True, slots=True)
class Head:
    """One group's outputs: columns `start`…`stop` of the logits. `weights`: per label, for the loss."""

    name: str
    kind: str
    labels: tuple[str, ...]
    start: int
    stop: int
    weights: Tensor


def heads(manifest: Manifest, entries: Sequence[Entry], balance: float) -> tuple[Head, ...]:
    """The heads, their labels weighted by how rare they are in `entries`.

    weight = (mean count / count)^balance: 0 for none, 1 for the same total weight for every label. Raises
    DatasetError('class_missing') for a label that no entry has, and for a group with nothing to tell apart.
    """
    found, start = [], 0
    for name, group in manifest.groups.items():
        counts = torch.zeros(len(group.labels))
        for entry in entries:
            for label in named(entry.labels[name]):
                counts[group.labels.index(label)] += 1
        if (empty := counts == 0).any():
            label = group.labels[int(empty.nonzero()[0])]
            raise DatasetError("class_missing", f"no picture to learn {name}:{label} from", field=f"{name}:{label}")
        if group.kind == "exclusive" and len(group.labels) < 2:
            raise DatasetError("class_missing", f"group {name!r} has one label, nothing to tell apart", field=name)
        stop = start + len(group.labels)
        found.append(Head(name, group.kind, group.labels, start, stop, _weights(counts, group, entries, name, balance)))
        start = stop
    return tuple(found)


def _weights(counts: Tensor, group: Group, entries: Sequence[Entry], name: str, balance: float) -> Tensor:
    if group.kind == "exclusive":
        return (counts.mean() / counts) ** balance
    known = sum(entry.labels[name] is not None for entry in entries)
    return ((known - counts).clamp(min=1) / counts) ** balance


def targets(manifest: Manifest, entries: Sequence[Entry]) -> Tensor:
    """float32 N×labels of 1 and 0, and UNKNOWN across a group of which nothing is known."""
    columns = [(name, label) for name, group in manifest.groups.items() for label in group.labels]
    rows = torch.zeros(len(entries), len(columns))
    for at, entry in enumerate(entries):
        held = {name: set(named(value)) for name, value in entry.labels.items()}
        rows[at] = torch.tensor(
            [UNKNOWN if entry.labels[name] is None else float(label in held[name]) for name, label in columns]
        )
    return rows


def loss(
    heads: Sequence[Head], logits: Tensor, first: Tensor, second: Tensor, share: float, smoothing: float
) -> Tensor:
    """Mean over the rows of the sum over the groups. `first`, `second`: targets of the pictures that were mixed by
    `share` and 1 − `share`. A row counts in a group only where both are known.
    """
    total = logits.new_zeros(())
    logits = logits.float()
    for head in heads:
        at = slice(head.start, head.stop)
        known = (first[:, at] != UNKNOWN).all(1) & (second[:, at] != UNKNOWN).all(1)
        if not bool(known.any()):
            continue
        wanted = share * first[known, at] + (1 - share) * second[known, at]
        weights = head.weights.to(logits.device)
        if head.kind == "exclusive":
            rows = (wanted * weights).sum(1)
            wanted = wanted * (1 - smoothing) + smoothing / wanted.shape[1]
            part = -(wanted * logits[known, at].log_softmax(1)).sum(1) * rows
        else:
            wanted = wanted * (1 - smoothing) + smoothing / 2
            part = F.binary_cross_entropy_with_logits(
                logits[known, at], wanted, pos_weight=weights, reduction="none"
            ).sum(1)
        total = total + part.sum() / len(logits)
    return total


def last_layer(network: nn.Module, outputs: int) -> str:
    """The name of the layer that gives the logits. Raises ArtifactError('unknown_architecture') where none does."""
    found = ""
    for name, module in network.named_modules():
        linear = isinstance(module, nn.Linear) and module.out_features == outputs
        pointwise = isinstance(module, nn.Conv2d) and module.out_channels == outputs and module.kernel_size == (1, 1)
        if linear or pointwise:
            found = name
    if not found:
        raise ArtifactError("unknown_architecture", "no layer with one output per label", field="architecture")
    return found


def network(architecture: str, manifest: Manifest, init: Artifact | Path | None) -> tuple[nn.Module, str]:
    """(the network, the name of its last layer), from `init`: an artifact, safetensors in torchvision's layout, or
    nothing.

    The last layer is taken over where a label of the same group and name exists, else it starts small. Raises
    ArtifactError: weights_invalid, weights_mismatch, unknown_architecture, architecture_not_trainable.
    """
    columns = [(name, label) for name, group in manifest.groups.items() for label in group.labels]
    built = architectures.build(architecture, len(columns))
    last = last_layer(built, len(columns))
    if init is None:
        return built, last
    own: Mapping[tuple[str, str], int] = {}
    if isinstance(init, Artifact):
        if init.card.architecture == ONNX:
            what = f"{init.card.ref} was imported from ONNX: it can be run, not trained on"
            raise ArtifactError("architecture_not_trainable", what)
        if init.card.architecture != architecture:
            what = f"{init.card.ref} is a {init.card.architecture}, not {architecture}"
            raise ArtifactError("weights_mismatch", what)
        state = dict(init.state)
        own = {(label.group, label.name): at for at, label in enumerate(init.card.labels)}
    else:
        state = _read(init)
    _load(built, last, state, architecture, {at: own[pair] for at, pair in enumerate(columns) if pair in own})
    return built, last


def _load(built: nn.Module, last: str, state: dict[str, Tensor], architecture: str, rows: Mapping[int, int]) -> None:
    expected = built.state_dict()
    body = {key for key in expected if not key.startswith(f"{last}.")}
    wrong = {key for key in body if key not in state or state[key].shape != expected[key].shape}
    wrong |= {key for key in state if key not in expected}
    if wrong:
        raise ArtifactError("weights_mismatch", f"{architecture} does not fit {sorted(wrong)[:3]}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise ArtifactError("weights_mismatch", f"the weights for {architecture} hold numbers that are not finite")
    for key in expected:
        if key in body:
            expected[key] = state[key]
            continue
        # Small, so that the first scores are even; a large random head would shake the layers below it.
        fresh = torch.randn(expected[key].shape) * 0.01 if key.endswith("weight") else torch.zeros_like(expected[key])
        for to, source in rows.items():
            fresh[to] = state[key][source].to(fresh)
        expected[key] = fresh
    built.load_state_dict(expected)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise ArtifactError("artifact_missing", f"{path}: {error.strerror}") from None
    except SafetensorError as error:
        raise ArtifactError("weights_invalid", f"{path}: {error}") from None
