"""What is fitted on validation pictures after training: a temperature per group and a threshold per label.

Pure numpy on scores; `fitted` gives a new card and writes no artifact. Fit on the validation split and judge on the
test split: on the pictures that they were fitted on, both look better than they are.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from ml.card import ModelCard
from ml.metrics import UNKNOWN, Array, Bools, Scored, reliability

# Beyond these a temperature says "nothing to learn from": too few pictures, or not one mistake among them.
COLDEST, HOTTEST = 0.05, 20.0
MIN_SUPPORT = 10  # a threshold fitted on fewer pictures of a label follows their chance
NEVER = 1.0
_STEPS = 80  # bisections: far below float precision
_SMALLEST = float(np.finfo(np.float32).tiny)


def temperature(scored: Scored) -> float:
    """The T for which softmax(z/T), or sigmoid(z/T), has the least negative log-likelihood; in COLDEST…HOTTEST.

    It is relative: scores already made with a temperature T₀ ask for T₀·T. Logits are taken back from the scores,
    exactly but for the part that softmax throws away. 1.0 where nothing is known. The likelihood is concave in 1/T,
    so its slope has one zero, and bisection finds it.
    """
    slope = _softmax_slope(scored) if scored.kind == "exclusive" else _sigmoid_slope(scored)
    if slope is None:
        return 1.0
    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) < 0 else (low, middle)
    return float(1 / np.exp((low + high) / 2))


def apply_temperature(scored: Scored, by: float) -> Scored:
    """The scores that the same network gives with its temperature multiplied by `by`."""
    if scored.kind == "exclusive":
        return replace(scored, scores=_softmax(_log(scored.scores) / by))
    return replace(scored, scores=_sigmoid(_logit(scored.scores) / by))


def negative_log_likelihood(scored: Scored) -> float:
    """Mean over the known pictures (softmax) or the known labels (sigmoid), in nats; NaN where nothing is known."""
    if scored.kind == "exclusive":
        of_truth = _log(scored.scores)[scored.truth == 1]
    else:
        of_truth = np.where(scored.truth == 1, _log(scored.scores), _log(1 - scored.scores))[scored.known]
    return float(-of_truth.mean()) if of_truth.size else float("nan")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A label's least score to report, and what it gives on the pictures it was fitted on."""

    value: float
    precision: float
    recall: float


def best_f1(scores: Array, true: Bools) -> Threshold | None:
    """The threshold with the greatest F1 (of equals the highest); None where the label never occurs."""
    curve = _curve(scores, true)
    if curve is None:
        return None
    _, precision, recall = curve
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    return _threshold(curve, int(f1.argmax()))


def most_recall(scores: Array, true: Bools, wanted_precision: float) -> Threshold | None:
    """The lowest threshold that keeps precision ≥ `wanted_precision`; None where no threshold does."""
    curve = _curve(scores, true)
    if curve is None:
        return None
    (reached,) = np.nonzero(curve[1] >= wanted_precision)
    return _threshold(curve, int(reached[-1])) if len(reached) else None


def thresholds(scored: Scored, wanted_precision: float | None = None) -> dict[str, Threshold | None]:
    """For each label against all others: best F1, or the most recall at `wanted_precision`; None: nothing fits."""
    found: dict[str, Threshold | None] = {}
    for at, label in enumerate(scored.labels):
        known = scored.truth[:, at] != UNKNOWN
        scores, true = scored.scores[known, at], scored.truth[known, at] == 1
        wanted = wanted_precision
        found[label] = best_f1(scores, true) if wanted is None else most_recall(scores, true, wanted)
    return found


def fitted(
    card: ModelCard,
    groups: Mapping[str, Scored],
    *,
    wanted_precision: float | None = None,
    min_support: int = MIN_SUPPORT,
    thresholds_for: Collection[str] | None = None,
) -> ModelCard:
    """`card` with the temperature of each of `groups`, and on those scores the threshold of each of their labels.

    `groups` are scores that this card gave. A label that cannot have `wanted_precision` gets the threshold NEVER; one
    with fewer than `min_support` pictures keeps what it has, and so do those of groups not in `thresholds_for`.
    """
    heat = {group: card.temperature_of(group) for group in card.groups}
    cuts: dict[tuple[str, str], float] = {}
    for name, scored in groups.items():
        by = temperature(scored)
        heat[name] *= by
        if thresholds_for is not None and name not in thresholds_for:
            continue
        support = (scored.truth == 1).sum(0)
        found = thresholds(apply_temperature(scored, by), wanted_precision)
        for (label, cut), pictures in zip(found.items(), support, strict=True):
            if pictures >= min_support:
                cuts[name, label] = NEVER if cut is None else cut.value
    labels = tuple(
        replace(label, threshold=cuts.get((label.group, label.name), label.threshold)) for label in card.labels
    )
    return replace(card, temperature=heat, labels=labels)


def cross_fitted_error(scored: Scored, clusters: Sequence[object] | None = None) -> float:
    """The calibration error where no picture is cooled by a temperature that it had a part in: each half of the
    `clusters` (else of the pictures) takes the temperature of the other half. NaN where a half knows nothing."""
    names = list(range(len(scored.truth))) if clusters is None else list(clusters)
    order = {name: at for at, name in enumerate(dict.fromkeys(names))}
    first = np.array([order[name] % 2 == 0 for name in names], dtype=bool)
    if not (scored.known[first].any() and scored.known[~first].any()):
        return float("nan")
    scores = scored.scores.copy()
    for mine in (first, ~first):
        by = temperature(_rows(scored, ~mine))
        scores[mine] = apply_temperature(_rows(scored, mine), by).scores
    return float(reliability(replace(scored, scores=scores)).error())


def _rows(scored: Scored, rows: Bools) -> Scored:
    return replace(scored, scores=scored.scores[rows], truth=scored.truth[rows])


_Curve = tuple[Array, Array, Array]


def _curve(scores: Array, true: Bools) -> _Curve | None:
    """(cuts, precision, recall) at every distinct score, highest first.

    A cut lies halfway to the next lower score: nearer to what new pictures will do, and safe from rounding to float32.
    """
    if not true.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.diff(ranked) != 0, True)
    hits = np.cumsum(true[order])[last]
    said = np.arange(1, len(ranked) + 1)[last]
    distinct = ranked[last]
    cuts = (distinct + np.append(distinct[1:], 0.0)) / 2
    return cuts, hits / said, hits / hits[-1]


def _threshold(curve: _Curve, at: int) -> Threshold:
    cuts, precision, recall = curve
    return Threshold(float(cuts[at]), float(precision[at]), float(recall[at]))


def _softmax_slope(scored: Scored) -> Callable[[float], float] | None:
    """d NLL / d(1/T) = mean(E[z] − z of the truth): negative while the scores should be sharper."""
    rows = scored.pictures
    if not rows.any():
        return None
    logits = _log(scored.scores[rows])
    of_truth = logits[scored.truth[rows] == 1]
    return lambda sharpness: float(((_softmax(logits * sharpness) * logits).sum(1) - of_truth).mean())


def _sigmoid_slope(scored: Scored) -> Callable[[float], float] | None:
    known = scored.known
    if not known.any():
        return None
    logits, true = _logit(scored.scores[known]), scored.truth[known] == 1
    return lambda sharpness: float(((_sigmoid(logits * sharpness) - true) * logits).mean())


def _log(scores: Array) -> Array:
    return cast("Array", np.log(np.maximum(scores, _SMALLEST)))


def _logit(scores: Array) -> Array:
    # float32's step below 1 bounds what a sigmoid can still tell apart.
    inside = np.clip(scores, _SMALLEST, 1 - 2.0**-24)
    return cast("Array", np.log(inside) - np.log1p(-inside))


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return cast("Array", powers / powers.sum(1, keepdims=True))


def _sigmoid(logits: Array) -> Array:
    # exp of a negative number only: no overflow at either end.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
