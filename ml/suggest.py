"""Which pictures to label next: some that the model is unsure of, some unlike all the others. Pure; fetches nothing.

Uncertain: the smallest margins (T. Scheffer et al., Active Hidden Markov Models for Information Extraction, 2001)
between the best two scores of an exclusive group, or between an attribute's score and its threshold. Diverse: farthest
first, the greedy 2-approximation of the k-centre problem (T. Gonzalez, 1985; as a choice of what to label: O. Sener and
S. Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018). The distance is the mean of
two, each in 0…1: of the score vectors, and of the PDQ hashes. No two picks are near-duplicates of each other, or of
what is labelled.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ml.splits import NEAR

Kind = Literal["exclusive", "attributes"]
Why = Literal["uncertain", "diverse"]
_UNRELATED = 128  # bits by which PDQ hashes of unrelated pictures differ on average


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture: its scores by group and label, and its PDQ hash (None: not to be matched, or not known).

    Scores may be the best few only. A second score that is not there is taken to be as high as it can be.
    """

    sha256: str
    scores: Mapping[str, Mapping[str, float]]
    pdq: bytes | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """How a group is read; `thresholds` of attributes, 0.5 where none is given."""

    kind: Kind
    thresholds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`score`: the uncertainty in 0…1, or the distance to the nearest earlier pick for a diverse one."""

    candidate: Candidate
    why: Why
    score: float


def uncertainty(candidate: Candidate, rules: Mapping[str, Rule]) -> float:
    """0: sure of every group; 1: a coin's toss in one of them, or nothing reported in an exclusive one."""
    return max((_of_group(candidate.scores.get(name, {}), rule) for name, rule in rules.items()), default=0.0)


def suggest(
    candidates: Sequence[Candidate],
    rules: Mapping[str, Rule],
    count: int,
    *,
    labelled: Sequence[bytes] = (),
    uncertain: float = 0.5,
    seed: int = 0,
) -> list[Suggestion]:
    """At most `count` pictures, those of the share `uncertain` first, then the diverse ones.

    The order of `candidates` does not matter; the same seed gives the same picks. `labelled`: PDQ hashes of pictures
    that need no label any more. Memory: 4 bytes for each candidate and label; time: candidates × labels × count.
    """
    pool = sorted(candidates, key=lambda each: each.sha256)
    random.Random(seed).shuffle(pool)  # so that equal scores are broken by chance, not by hash
    picks = _Picks(pool, rules, labelled)
    unsure = [uncertainty(each, rules) for each in pool]
    for at in sorted(range(len(pool)), key=lambda at: -unsure[at]):
        if len(picks.found) >= round(count * uncertain) or unsure[at] <= 0:
            break
        picks.take(at, "uncertain", unsure[at])
    while len(picks.found) < count and (far := picks.farthest()) is not None:
        picks.take(far[0], "diverse", far[1])
    return picks.found


class _Picks:
    """What was picked so far, and how far every other candidate is from it."""

    def __init__(self, pool: Sequence[Candidate], rules: Mapping[str, Rule], labelled: Sequence[bytes]) -> None:
        self.found: list[Suggestion] = []
        self._pool = pool
        self._scores = _vectors(pool, rules)
        self._squares = np.einsum("ij,ij->i", self._scores, self._scores)
        self._hashed = np.array([each.pdq is not None for each in pool], np.bool_)
        self._words = _words([each.pdq or bytes(32) for each in pool])
        self._labelled = _words(labelled)
        self._distance = np.ones(len(pool))  # to the nearest pick; nothing is farther apart than 1
        self._open = np.ones(len(pool), np.bool_)

    def take(self, at: int, why: Why, score: float) -> None:
        """Pick one, unless it repeats what is picked or labelled; its near-duplicates are closed with it."""
        if not self._open[at]:
            return
        self._open[at] = False
        if self._hashed[at] and (_bits(self._labelled, self._words[at]) <= NEAR).any():
            return
        bits = _bits(self._words, self._words[at])
        known = self._hashed & self._hashed[at]
        self._open &= ~(known & (bits <= NEAR))
        apart = np.where(known, np.minimum(bits / _UNRELATED, 1), 1.0)
        # ‖a − b‖² by one product of matrix and vector; rounded, so that its noise decides no tie.
        squares = self._squares + self._squares[at] - 2 * (self._scores @ self._scores[at])
        scores = np.sqrt(np.clip(squares, 0, 1))
        np.minimum(self._distance, np.round((scores + apart) / 2, 3), out=self._distance)
        self.found.append(Suggestion(self._pool[at], why, round(float(score), 6)))

    def farthest(self) -> tuple[int, float] | None:
        """The open candidate farthest from all picks, and that distance; None when none is open."""
        if not self._open.any():
            return None
        at = int(np.argmax(np.where(self._open, self._distance, -1.0)))
        return at, float(self._distance[at])


def _of_group(scores: Mapping[str, float], rule: Rule) -> float:
    if rule.kind == "exclusive":
        best, second, *_ = [*sorted(scores.values(), reverse=True), *([0.0, 0.0])]
        if len(scores) < 2:
            second = min(best, 1 - best)
        return min(1.0, max(0.0, 1 - (best - second))) if scores else 1.0
    found = 0.0
    for label, score in scores.items():
        limit = rule.thresholds.get(label, 0.5)
        room = 1 - limit if score >= limit else limit
        found = max(found, 1 - abs(score - limit) / room if room > 0 else 0.0)
    return found


def _vectors(pool: Sequence[Candidate], rules: Mapping[str, Rule]) -> npt.NDArray[np.float32]:
    """pool × labels, scaled so that two sure and different answers of one group are 1 apart."""
    columns: dict[tuple[str, str], int] = {}
    for each in pool:
        for group in rules:
            for label in each.scores.get(group, {}):
                columns.setdefault((group, label), len(columns))
    found = np.zeros((len(pool), max(1, len(columns))), np.float32)
    for at, each in enumerate(pool):
        for group, rule in rules.items():
            scale = 1 / math.sqrt(2) if rule.kind == "exclusive" else 1.0
            for label, score in each.scores.get(group, {}).items():
                found[at, columns[group, label]] = scale * score
    return found


def _words(hashes: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(hashes), np.uint64).reshape(len(hashes), 4)


def _bits(hashes: npt.NDArray[np.uint64], one: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.bitwise_count(hashes ^ one).sum(1, dtype=np.int64)
    return found
