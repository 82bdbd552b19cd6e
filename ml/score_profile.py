"""What a model said of many pictures, as counts: histograms of scores and how often each label was given.

    an evaluation's scores ─► Profiler ─┐
    a day's stored scores  ─► `add`    ─┴─► Profile, which `ml.drift` compares

Counts by the rule by which scores are stored in production (`KEPT` best tags that reach their thresholds, or all
classes of a moderation model), so that both sides are cut alike. Knows no threshold of drift.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ml.card import ModelCard

BINS = 10  # of equal width over 0…1
KEPT = 20  # the tags of a picture that are stored; a test compares this with `worker.verdicts`
GIVEN_AT = 0.5  # an attribute without a threshold of its own counts as given from here

Kind = Literal["exclusive", "attributes"]
Key = TypeVar("Key")


@dataclass(slots=True)
class LabelProfile:
    """`given`: pictures that got the label: of exclusive ones the best of its group, of attributes those that reach
    the threshold. `histogram`: of its scores by bin, empty where only the group's best score is counted."""

    given: int = 0
    histogram: list[int] = field(default_factory=list)


@dataclass(slots=True)
class GroupProfile:
    """`histogram`: of the best score of an exclusive group; empty for attributes."""

    kind: Kind
    histogram: list[int] = field(default_factory=list)
    labels: dict[str, LabelProfile] = field(default_factory=dict)


@dataclass(slots=True)
class Profile:
    """`pictures` that were scored. Where nothing reached a threshold, a picture is in no bin of the histogram."""

    pictures: int = 0
    groups: dict[str, GroupProfile] = field(default_factory=dict)

    def add(self, group: str, kind: Kind, label: str, at: int, *, scored: int, given: int, own: bool) -> None:
        """Count a label's scores of bin `at`: `scored` pictures have it, of which `given` got the label. `own`: the
        label keeps a histogram of its own (attributes and the classes of moderation do)."""
        of_group = self.groups.setdefault(group, GroupProfile(kind, [0] * BINS if kind == "exclusive" else []))
        of_label = of_group.labels.setdefault(label, LabelProfile(0, [0] * BINS if own else []))
        of_label.given += given
        if of_group.histogram:
            of_group.histogram[at] += given
        if of_label.histogram:
            of_label.histogram[at] += scored

    def merge(self, other: "Profile") -> None:
        """Add another profile of the same model to this one."""
        self.pictures += other.pictures
        for name, theirs in other.groups.items():
            ours = self.groups.setdefault(name, GroupProfile(theirs.kind, [0] * len(theirs.histogram)))
            ours.histogram = _sum(ours.histogram, theirs.histogram)
            for label, counts in theirs.labels.items():
                mine = ours.labels.setdefault(label, LabelProfile(0, [0] * len(counts.histogram)))
                mine.given += counts.given
                mine.histogram = _sum(mine.histogram, counts.histogram)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "pictures": self.pictures,
            "groups": {
                name: {
                    "kind": group.kind,
                    "histogram": group.histogram,
                    "labels": {
                        label: {"given": counts.given, "histogram": counts.histogram}
                        for label, counts in group.labels.items()
                    },
                }
                for name, group in self.groups.items()
            },
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Profile":
        """What `to_dict` gave. Raises KeyError or TypeError for anything else."""
        return cls(
            stored["pictures"],
            {
                name: GroupProfile(
                    group["kind"],
                    list(group["histogram"]),
                    {
                        label: LabelProfile(counts["given"], list(counts["histogram"]))
                        for label, counts in group["labels"].items()
                    },
                )
                for name, group in stored["groups"].items()
            },
        )


class Profiler:
    """Makes the profile of one model's scores as they pass by."""

    def __init__(self, card: ModelCard) -> None:
        self.profile = Profile()
        self._card = card
        self._moderation = card.task == "moderation"
        # As `ml.scores` compares: in float32, and 0 where the card sets none.
        self._least = np.array([label.threshold or 0.0 for label in card.labels], np.float32)

    def watch(self, found: Iterable[tuple[Key, Any]]) -> Iterator[tuple[Key, Any]]:
        """Pass on (entry, scores by group, or a failure) and count the scores."""
        for key, outcome in found:
            if isinstance(outcome, Mapping):
                self.count(outcome)
            yield key, outcome

    def count(self, scores: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """One picture; `scores` by group, each (labels of the group,), in the card's order."""
        values = np.empty(len(self._card.labels), np.float32)
        for group, positions in self._card.groups.items():
            values[positions] = scores[group]
        kept = self._stored(values)
        self.profile.pictures += 1
        for group, positions in self._card.groups.items():
            kind: Kind = "exclusive" if self._card.head[group] == "softmax" else "attributes"
            there = [at for at in positions if kept[at]]
            best = max(there, key=lambda at: values[at]) if there else None
            for at in there:
                label = self._card.labels[at]
                score = round(float(values[at]), 6)  # as it is stored
                limit = GIVEN_AT if label.threshold is None else label.threshold
                given = at == best if kind == "exclusive" else score >= limit
                own = self._moderation or kind == "attributes"
                if own or given:
                    self.profile.add(group, kind, label.name, bin_of(score), scored=1, given=int(given), own=own)

    def _stored(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        if self._moderation:
            return np.ones(len(values), np.bool_)
        (reached,) = np.nonzero(values >= self._least)
        kept = np.zeros(len(values), np.bool_)
        kept[reached[np.argsort(-values[reached], kind="stable")[:KEPT]]] = True
        return kept


def bin_of(score: float) -> int:
    """0 for [0, 0.1) … 9 for [0.9, 1]."""
    return min(int(score * BINS), BINS - 1)


def _sum(a: list[int], b: list[int]) -> list[int]:
    if len(a) != len(b):  # a group that was counted in another way before: begin anew
        return list(b or a)
    return [x + y for x, y in zip(a, b, strict=True)]
