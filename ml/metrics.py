"""How good scores are, given the truth: counts, averages, ranking, calibration. Pure numpy; reads no file.

Every figure is computed for the data as they are, or, with `weights` B×N, for B weightings of them at once: that is
how `ml.bootstrap` gets its resamples without a loop over pictures. Definitions are scikit-learn's, and its tests
compare them; what differs is said where it differs. An undefined figure (0/0) is NaN, never a flattering 0 or 1.
"""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Kind = Literal["exclusive", "attributes"]

UNKNOWN = -1
TOP_K = (1, 3, 5)
BINS = 15  # of equal width, as in Guo et al. 2017


@dataclass(frozen=True, slots=True)
class Scored:
    """One group's scores beside the truth, picture by picture.

    `scores`: float N×L in 0…1. `truth`: int8 N×L of 1, 0 and UNKNOWN; an exclusive row has exactly one 1 or is
    UNKNOWN throughout, attributes are known or unknown one by one. `thresholds`: L, the least score to report.
    """

    kind: Kind
    labels: tuple[str, ...]
    scores: Array
    truth: npt.NDArray[np.int8]
    thresholds: Array

    def __post_init__(self) -> None:
        if self.scores.shape != self.truth.shape or self.scores.shape[1:] != (len(self.labels),):
            raise ValueError(f"scores {self.scores.shape}, truth {self.truth.shape}, {len(self.labels)} labels")
        if self.thresholds.shape != (len(self.labels),):
            raise ValueError(f"{self.thresholds.shape} thresholds for {len(self.labels)} labels")
        one = ((self.truth == 1).sum(1) == 1) & (self.truth != UNKNOWN).all(1)
        if self.kind == "exclusive" and not (one | (self.truth == UNKNOWN).all(1)).all():
            raise ValueError("an exclusive group has exactly one true label per picture, or none known")

    @property
    def known(self) -> Bools:
        """N×L: what counts at all."""
        return cast("Bools", self.truth != UNKNOWN)

    @property
    def pictures(self) -> Bools:
        """N: pictures of which anything is known."""
        return cast("Bools", self.known.any(1))

    def said(self) -> Bools:
        """N×L: the decisions. Exclusive: the best label, whatever its threshold; attributes: score ≥ threshold."""
        if self.kind == "attributes":
            return self.scores >= self.thresholds
        said = np.zeros(self.scores.shape, bool)
        if len(said):
            said[np.arange(len(said)), self.scores.argmax(1)] = True
        return said


@dataclass(frozen=True, slots=True)
class Counts:
    """Per label; arrays (…, L). With weights they are sums of weights."""

    tp: Array
    fp: Array
    fn: Array
    tn: Array


def total(values: npt.ArrayLike, weights: Array | None) -> Array:
    """Sum over the pictures: N×… → …, or B×… under `weights` B×N."""
    values = np.asarray(values, np.float64)
    return cast("Array", values.sum(0) if weights is None else weights @ values)


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Array:
    """part/whole, NaN where there is no whole."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def count(scored: Scored, weights: Array | None = None) -> Counts:
    """True and false positives and negatives per label; unknown labels count nowhere."""
    said, true, known = scored.said(), scored.truth == 1, scored.known
    cells = (said & true, said & ~true & known, ~said & true, ~said & ~true & known)
    return Counts(*(total(cell, weights) for cell in cells))


def precision(counts: Counts) -> Array:
    """Of what was said, the share that is true; NaN where nothing was said."""
    return ratio(counts.tp, counts.tp + counts.fp)


def recall(counts: Counts) -> Array:
    """Of what is true, the share that was said; NaN where nothing is true."""
    return ratio(counts.tp, counts.tp + counts.fn)


def f1(counts: Counts) -> Array:
    """Harmonic mean of the two; NaN only where nothing is true and nothing was said."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def averages(counts: Counts) -> dict[str, Array]:
    """macro, micro and weighted precision, recall and F1.

    Macro and weighted run over the labels that occur in the truth: a label without a picture has no quality to
    measure. One that occurs and is never said has precision 0 here (scikit-learn's zero_division=0).
    """
    support = counts.tp + counts.fn
    pooled = Counts(*(cell.sum(-1) for cell in (counts.tp, counts.fp, counts.fn, counts.tn)))
    found: dict[str, Array] = {}
    for name, of in (("precision", precision), ("recall", recall), ("f1", f1)):
        values = np.nan_to_num(of(counts))
        found[f"macro_{name}"] = ratio((values * (support > 0)).sum(-1), (support > 0).sum(-1))
        found[f"micro_{name}"] = of(pooled)
        found[f"weighted_{name}"] = ratio((values * support).sum(-1), support.sum(-1))
    return found


def top_k(scored: Scored, k: int, weights: Array | None = None) -> Array:
    """Share of pictures whose true label is among the best `k`; equal scores rank in label order."""
    true = scored.truth.argmax(1)[:, None]
    at_truth = np.take_along_axis(scored.scores, true, 1)
    earlier = (scored.scores == at_truth) & (np.arange(len(scored.labels)) < true)
    rank = ((scored.scores > at_truth) | earlier).sum(1)
    return ratio(total((rank < k) & scored.pictures, weights), total(scored.pictures, weights))


def average_precision(scores: Array, true: Bools, known: Bools | None = None, weights: Array | None = None) -> Array:
    """Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores, best first, for one label; NaN where nothing is true.

    Equal scores are one step: no order within a tie can win anything.
    """
    kept = np.ones(len(scores), bool) if known is None else known
    scores, true = scores[kept], true[kept]
    rows = np.ones((1, len(scores))) if weights is None else weights[:, kept]
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)[: len(scores)]
    rows = rows[:, order]
    hits = np.cumsum(rows * true[order], axis=1)[:, last]
    said = np.cumsum(rows, axis=1)[:, last]
    steps = np.diff(hits, axis=1, prepend=0.0)
    area = (steps * np.nan_to_num(ratio(hits, said))).sum(1)
    value = ratio(area, hits[:, -1] if hits.shape[1] else np.zeros(len(rows)))
    return value[0] if weights is None else value


def confusion(scored: Scored) -> npt.NDArray[np.int64]:
    """L×L counts of an exclusive group: rows are the truth, columns what was said."""
    rows = scored.pictures
    cells = np.zeros((len(scored.labels),) * 2, np.int64)
    np.add.at(cells, (scored.truth[rows].argmax(1), scored.scores[rows].argmax(1)), 1)
    return cells


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of confidence; arrays (…, bins). `confidence` and `accuracy` are means in the bin, NaN where it is empty."""

    count: Array
    confidence: Array
    accuracy: Array

    def error(self) -> Array:
        """Expected calibration error: mean |accuracy − confidence|, weighted by the bins' counts.

        A sample shows some error even of a perfect model: `ml.calibration` says how much.
        """
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return ratio((gaps * self.count).sum(-1), self.count.sum(-1))


def decisions(scored: Scored) -> tuple[Array, Bools, Bools]:
    """(confidence, right, counted), each N×C: what calibration is about.

    Exclusive, C = 1: the best label's score and whether it is right. Attributes, C = L: every label's score and
    whether it holds.
    """
    if scored.kind == "attributes":
        return scored.scores, cast("Bools", scored.truth == 1), scored.known
    right = (scored.said() & (scored.truth == 1)).any(1)
    return scored.scores.max(1, initial=0.0)[:, None], right[:, None], scored.pictures[:, None]


def reliability(
    scored: Scored, weights: Array | None = None, bins: int = BINS, edges: Array | None = None
) -> Reliability:
    """How often scores come true, in `bins` of equal width, or between ascending inner `edges`; each closed above."""
    confidence, right, counted = decisions(scored)
    if edges is None:
        place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    else:
        bins, place = len(edges) + 1, np.searchsorted(edges, confidence, side="left")
    # One column per bin, summed over the labels of a picture, so that a resample weighs whole pictures.
    inside = (place[:, :, None] == np.arange(bins)) & counted[:, :, None]
    counts = total(inside.sum(1), weights)
    sums = total((inside * confidence[:, :, None]).sum(1), weights)
    hits = total((inside & right[:, :, None]).sum(1), weights)
    return Reliability(counts, ratio(sums, counts), ratio(hits, counts))


@dataclass(frozen=True, slots=True)
class Sweep:
    """One label at each threshold, against all others: arrays (T,)."""

    thresholds: Array
    precision: Array
    recall: Array
    f1: Array


def sweep(scores: Array, true: Bools, thresholds: Array | None = None) -> Sweep:
    """Precision, recall and F1 of `score ≥ threshold`; default: 0, 0.01 … 1."""
    at = np.linspace(0, 1, 101) if thresholds is None else thresholds
    # Positions in the sorted scores give all thresholds at once, in N log N.
    ascending = np.sort(scores)
    of_true = np.sort(scores[true])
    said = len(ascending) - np.searchsorted(ascending, at, side="left")
    tp = len(of_true) - np.searchsorted(of_true, at, side="left")
    counts = Counts(*(np.asarray(cell, np.float64) for cell in (tp, said - tp, len(of_true) - tp, 0 * tp)))
    return Sweep(at, precision(counts), recall(counts), f1(counts))


def summary(
    scored: Scored, weights: Array | None = None, of_labels: dict[str, Array] | None = None
) -> dict[str, Array]:
    """Every figure of a whole group by name; scalars, or (B,) under `weights`. `of_labels`: what `per_label` gave, if
    it is at hand, for ranking is the slow part.

    Exclusive groups add accuracy, top-k, and what thresholds cost and bring: `coverage` (pictures whose best label
    reaches its threshold) and `accuracy_reported` (accuracy on those). Attributes add `accuracy` (share of right
    label decisions) and `exact_match` (share of pictures with every known label right).
    """
    counts = count(scored, weights)
    found = averages(counts)
    pictures = scored.pictures
    if scored.kind == "exclusive":
        said = scored.said()
        right = (said & (scored.truth == 1)).any(1)
        reported = (said & (scored.scores >= scored.thresholds)).any(1) & pictures
        found["accuracy"] = ratio(total(right, weights), total(pictures, weights))
        for k in TOP_K[1:]:
            if k < len(scored.labels):
                found[f"top_{k}"] = top_k(scored, k, weights)
        found["coverage"] = ratio(total(reported, weights), total(pictures, weights))
        found["accuracy_reported"] = ratio(total(right & reported, weights), total(reported, weights))
    else:
        wrong = (scored.said() != (scored.truth == 1)) & scored.known
        cells = counts.tp + counts.tn + counts.fp + counts.fn
        found["accuracy"] = ratio((counts.tp + counts.tn).sum(-1), cells.sum(-1))
        found["exact_match"] = ratio(total(pictures & ~wrong.any(1), weights), total(pictures, weights))
    ranked = per_label(scored, weights) if of_labels is None else of_labels
    found["mean_average_precision"] = _mean(ranked["average_precision"])
    found["calibration_error"] = reliability(scored, weights).error()
    return found


def per_label(scored: Scored, weights: Array | None = None) -> dict[str, Array]:
    """precision, recall, f1 and average_precision of every label: (L,), or (B, L) under `weights`."""
    counts = count(scored, weights)
    known = scored.known
    ranked = [
        average_precision(scored.scores[:, at], scored.truth[:, at] == 1, known[:, at], weights)
        for at in range(len(scored.labels))
    ]
    return {
        "precision": precision(counts),
        "recall": recall(counts),
        "f1": f1(counts),
        "average_precision": np.stack(ranked, axis=-1),
    }


def _mean(values: Array) -> Array:
    """Mean over the labels that have a value."""
    return ratio(np.nan_to_num(values).sum(-1), (~np.isnan(values)).sum(-1))
