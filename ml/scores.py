"""From a network's logits to named scores; knows labels and activations, no network and no picture."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

from ml.card import ModelCard

Array = npt.NDArray[np.float32]


class Tag(NamedTuple):
    """One reported label: its group, its score in 0…1 and the model (name@version) that gave it."""

    label: str
    group: str
    score: float
    model: str


class LabelSet:
    """The outputs of one model: turns its logits into scores and gives the scores their names."""

    def __init__(self, card: ModelCard) -> None:
        self.ref = card.ref
        self.task = card.task
        self.labels = card.labels
        self.thresholds = np.array([label.threshold or 0.0 for label in card.labels], np.float32)
        names = [label.name for label in card.labels]
        twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        # A name that two groups share gets its group in front, else one score would hide the other.
        self.keys = [f"{label.group}:{label.name}" if label.name in twice else label.name for label in card.labels]
        self._groups = [
            (card.head[group], card.temperature_of(group), np.array(at)) for group, at in card.groups.items()
        ]
        self._columns: dict[Any, list[Tensor]] = {}

    def activate(self, logits: "Tensor") -> "Tensor":
        """Logits N×labels → scores N×labels, float32 in 0…1: per group softmax (sums to 1) or sigmoid."""
        import torch

        logits = logits.float()
        if len(self._groups) == 1:
            head, temperature, _ = self._groups[0]
            return _activate(head, logits / temperature)
        scores = torch.empty_like(logits)
        for (head, temperature, _), at in zip(self._groups, self._on(logits.device), strict=True):
            scores[:, at] = _activate(head, logits[:, at] / temperature)
        return scores

    def plain(self, logits: Array) -> Array:
        """`activate` without torch."""
        scores = np.empty_like(logits)
        for head, temperature, at in self._groups:
            scores[:, at] = _plain(head, logits[:, at] / np.float32(temperature))
        return scores

    def sure(self, scores: "Tensor", least: float) -> "Tensor":
        """Which rows of scores N×labels leave no doubt in any group: of softmax the best score reaches `least`, of
        sigmoid every score does, or 1 − it. A row with NaN does not. Bool N, on the device of the scores."""
        import torch

        rows = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        for (head, _, _), at in zip(self._groups, self._on(scores.device), strict=True):
            group = scores[:, at]
            rows &= group.amax(1) >= least if head == "softmax" else (torch.maximum(group, 1 - group) >= least).all(1)
        return rows

    def _on(self, device: "torch.device") -> "list[Tensor]":
        """The columns of each group, copied to a device once: a CUDA graph cannot copy from the host."""
        import torch

        if device not in self._columns:
            with torch.inference_mode(mode=False):
                self._columns[device] = [torch.from_numpy(positions).to(device) for _, _, positions in self._groups]
        return self._columns[device]

    def plainly_sure(self, scores: Array, least: float) -> npt.NDArray[np.bool_]:
        """`sure` without torch."""
        rows = np.ones(len(scores), bool)
        bound = np.float32(least)
        for head, _, at in self._groups:
            group = scores[:, at]
            rows &= group.max(1) >= bound if head == "softmax" else (np.maximum(group, 1 - group) >= bound).all(1)
        return rows


class Scores:
    """The scores of one picture by one model; `values` is float32, in the order of the model's labels."""

    __slots__ = ("labels", "values")

    def __init__(self, labels: LabelSet, values: npt.NDArray[np.float32]) -> None:
        self.labels = labels
        self.values = values

    @property
    def model(self) -> str:
        """name@version of the model."""
        return self.labels.ref

    @property
    def task(self) -> str:
        """'tags' or 'moderation'."""
        return self.labels.task

    def finite(self) -> bool:
        """False where the network gave NaN or infinity: such scores must not be stored."""
        return bool(np.isfinite(self.values).all())

    def top(self, k: int, min_score: float = 0.0) -> list[Tag]:
        """The best `k` labels, best first, that reach both `min_score` and their own threshold."""
        (reached,) = np.nonzero(self.values >= np.maximum(self.labels.thresholds, np.float32(min_score)))
        # Stable, so that equal scores keep the label order on every machine.
        best = reached[np.argsort(-self.values[reached], kind="stable")[:k]]
        named = [(self.labels.labels[at], float(self.values[at])) for at in best]
        return [Tag(label.name, label.group, score, self.model) for label, score in named]

    def as_dict(self) -> dict[str, float]:
        """Every label's score by name; by group:name where two groups share a name."""
        return dict(zip(self.labels.keys, self.values.tolist(), strict=True))


def _activate(head: str, logits: "Tensor") -> "Tensor":
    return logits.softmax(1) if head == "softmax" else logits.sigmoid()


def _plain(head: str, logits: Array) -> Array:
    if head == "softmax":
        powers: Array = np.exp(logits - logits.max(1, keepdims=True))
        powers /= powers.sum(1, keepdims=True)
        return powers
    with np.errstate(over="ignore"):  # exp of a large number is infinity, and 1/infinity the 0 that is meant
        found: Array = np.float32(1) / (np.float32(1) + np.exp(-logits))
    return found
