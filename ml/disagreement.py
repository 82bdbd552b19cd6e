"""How two models differ on the same pictures, without any truth: who says what, how often, and where most. Pure numpy.

It cannot tell which of the two is right: that needs labels (`ml.evaluation`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ml.bootstrap import wilson
from ml.card import ModelCard

Scores = npt.NDArray[np.float32]
"""N×L in 0…1, a row a picture, a column a label of the card, in its order."""

LabelKey = tuple[str, str]  # group, name
FLIPS: Final = 20


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of `pictures`, on how many both say the same; `low`…`high`: the 95 % Wilson interval of that share."""

    group: str
    pictures: int
    agree: int
    low: float
    high: float
    flips: list[tuple[str, str, int]]  # active says, candidate says, pictures; most frequent first

    @property
    def share(self) -> float:
        """NaN without pictures."""
        return self.agree / self.pictures if self.pictures else float("nan")


@dataclass(frozen=True, slots=True)
class Rate:
    """The share of pictures that are given a label by either model; a label that a model does not know has 0."""

    group: str
    label: str
    active: float
    candidate: float


@dataclass(frozen=True, slots=True)
class Shift:
    """How the scores of a label that both know lie to each other. `correlation` is Pearson's; None where one of them
    does not vary."""

    group: str
    label: str
    correlation: float | None
    mean_absolute: float
    active_mean: float
    candidate_mean: float


@dataclass(frozen=True, slots=True)
class Example:
    """A picture on which the two differ: in which group most, by how much (0…1), and what each says there."""

    row: int
    group: str
    distance: float
    active: tuple[str, float]
    candidate: tuple[str, float]


class Pair:
    """Both models' scores of the same pictures, row by row. Raises ValueError for arrays that do not fit the cards."""

    def __init__(self, active: ModelCard, candidate: ModelCard, a: Scores, c: Scores) -> None:
        if a.shape != (len(c), len(active.labels)) or c.shape != (len(a), len(candidate.labels)):
            raise ValueError(f"scores {a.shape} and {c.shape} for {len(active.labels)}, {len(candidate.labels)} labels")
        self.active = active
        self.candidate = candidate
        self.of_active = a
        self.of_candidate = c
        known = _columns(candidate)
        # label → its column in either, for the labels that both know
        self.shared = {key: (at, known[key]) for key, at in _columns(active).items() if key in known}

    @property
    def exclusive(self) -> list[str]:
        """The groups in which both models choose one label."""
        return [
            group
            for group in self.active.groups
            if self.active.head[group] == "softmax" and self.candidate.head.get(group) == "softmax"
        ]

    def agreements(self) -> list[Agreement]:
        """By exclusive group: how often the best label is the same, and which change into which."""
        found = []
        for group in self.exclusive:
            ours, theirs = _best(self.active, self.of_active, group), _best(self.candidate, self.of_candidate, group)
            found.append(agreement(group, ours, theirs))
        return found

    def rates(self, *, top_k: int, min_score: float) -> list[Rate]:
        """How often each model tags a picture with a label, largest difference first; labels never given are left out.

        A label is given when it is among the best `top_k` of a picture and reaches `min_score` and its own threshold.
        """
        if not len(self.of_active):
            return []
        ours = _given(self.active, self.of_active, top_k, min_score)
        theirs = _given(self.candidate, self.of_candidate, top_k, min_score)
        found = [
            Rate(*key, ours.get(key, 0.0), theirs.get(key, 0.0))
            for key in dict.fromkeys([*ours, *theirs])
            if ours.get(key) or theirs.get(key)
        ]
        return sorted(found, key=lambda rate: -abs(rate.candidate - rate.active))

    def shifts(self) -> list[Shift]:
        """The scores of every shared label, largest mean absolute difference first."""
        if not len(self.of_active):
            return []
        found = []
        for (group, label), (at, to) in self.shared.items():
            x, y = self.of_active[:, at].astype(np.float64), self.of_candidate[:, to].astype(np.float64)
            found.append(
                Shift(group, label, _pearson(x, y), float(np.abs(x - y).mean()), float(x.mean()), float(y.mean()))
            )
        return sorted(found, key=lambda shift: -shift.mean_absolute)

    def examples(self, number: int) -> list[Example]:
        """The pictures on which the two differ most, worst first; those on which they do not differ are left out.

        The distance in an exclusive group is the total variation (half the sum of the differences, a label that one
        does not know counting as 0 there); in a group of attributes the largest difference of a shared label.
        """
        groups = [group for group in self.active.groups if group in self.candidate.groups]
        if not groups or not len(self.of_active):
            return []
        distances = np.stack([self._distance(group) for group in groups], axis=1)
        worst = distances.max(axis=1)
        rows = [int(row) for row in np.argsort(-worst, kind="stable")[:number] if worst[row] > 0]
        return [self._example(row, groups[int(distances[row].argmax())], float(worst[row])) for row in rows]

    def _distance(self, group: str) -> npt.NDArray[np.float64]:
        columns = [(at, to) for (of, _), (at, to) in self.shared.items() if of == group]
        differences = np.zeros((len(self.of_active), max(1, len(columns))))
        for n, (at, to) in enumerate(columns):
            differences[:, n] = np.abs(self.of_active[:, at].astype(np.float64) - self.of_candidate[:, to])
        if group not in self.exclusive:
            return np.asarray(differences.max(axis=1))
        known_a, known_c = {at for at, _ in columns}, {to for _, to in columns}
        alone_a = [at for at in self.active.groups[group] if at not in known_a]
        alone_c = [at for at in self.candidate.groups[group] if at not in known_c]
        alone = self.of_active[:, alone_a].sum(axis=1, dtype=np.float64) + self.of_candidate[:, alone_c].sum(
            axis=1, dtype=np.float64
        )
        return np.asarray((differences.sum(axis=1) + alone) / 2)

    def _example(self, row: int, group: str, distance: float) -> Example:
        sides = [(self.active, self.of_active), (self.candidate, self.of_candidate)]
        if group not in self.exclusive:  # the attribute that differs most
            shared = [(key, at, to) for key, (at, to) in self.shared.items() if key[0] == group]
            (_, label), at, to = max(
                shared, key=lambda each: abs(float(self.of_active[row, each[1]] - self.of_candidate[row, each[2]]))
            )
            return Example(
                row,
                group,
                distance,
                (label, float(self.of_active[row, at])),
                (label, float(self.of_candidate[row, to])),
            )
        said = []
        for card, scores in sides:
            best = max(card.groups[group], key=lambda at: float(scores[row, at]))
            said.append((card.labels[best].name, float(scores[row, best])))
        return Example(row, group, distance, said[0], said[1])


def agreement(group: str, active: Sequence[str], candidate: Sequence[str]) -> Agreement:
    """How often two lists of answers agree, picture by picture, and which change into which; ties by name."""
    agree = sum(ours == theirs for ours, theirs in zip(active, candidate, strict=True))
    low, high = wilson(np.array([float(agree)]), np.array([float(len(active))]))
    changed = Counter(pair for pair in zip(active, candidate, strict=True) if pair[0] != pair[1])
    flips = [(ours, theirs, count) for (ours, theirs), count in changed.items()]
    flips.sort(key=lambda flip: (-flip[2], flip))
    return Agreement(group, len(active), agree, float(low[0]), float(high[0]), flips[:FLIPS])


def only(one: ModelCard, other: ModelCard) -> list[LabelKey]:
    """The labels that `one` knows and `other` does not."""
    known = _columns(other)
    return [key for key in _columns(one) if key not in known]


def _columns(card: ModelCard) -> dict[LabelKey, int]:
    return {(label.group, label.name): at for at, label in enumerate(card.labels)}


def _best(card: ModelCard, scores: Scores, group: str) -> list[str]:
    """The name of each picture's best label in a group; of equal ones the first."""
    columns = card.groups[group]
    names = [card.labels[at].name for at in columns]
    return [names[best] for best in scores[:, columns].argmax(axis=1)]


def _given(card: ModelCard, scores: Scores, top_k: int, min_score: float) -> dict[LabelKey, float]:
    """By label, the share of pictures that are tagged with it: as `ml.scores.Scores.top` chooses."""
    least = np.array([max(label.threshold or 0.0, min_score) for label in card.labels], np.float32)
    # What does not reach its threshold lets the next one in, so places count among those that do.
    reached = scores >= least
    places = (-np.where(reached, scores, -1.0)).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    shares = (reached & (places < top_k)).mean(axis=0)
    return {key: float(shares[at]) for key, at in _columns(card).items()}


def _pearson(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float | None:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / size) if size > 1e-12 else None
