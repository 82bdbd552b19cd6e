"""A label at every threshold, with bootstrap intervals: what it would give, and how sure that is. Pure numpy."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ml import bootstrap, metrics
from ml.bootstrap import Drawing
from ml.evaluation import Curve
from ml.metrics import UNKNOWN, Array, Bools, Counts, Scored

Places = npt.NDArray[np.int64]
POINTS = 101  # 0, 0.01 … 1
_DIGITS = 4  # of what is kept: 101 thresholds of a thousand labels are a long list


def curves(scored: Scored, drawing: Drawing, clusters: Sequence[object] | None = None) -> tuple[Curve, ...]:
    """The curve of each label; one without a picture has no intervals."""
    return tuple(_curve(scored, at, drawing, clusters) for at in range(len(scored.labels)))


def _curve(scored: Scored, at: int, drawing: Drawing, clusters: Sequence[object] | None) -> Curve:
    known, true = scored.truth[:, at] != UNKNOWN, scored.truth[:, at] == 1
    grid = np.linspace(0, 1, POINTS)
    found = metrics.sweep(scored.scores[known, at], true[known], grid)
    ends: dict[str, tuple[Array, Array]] = {}
    if true.any():
        place = np.searchsorted(grid, scored.scores[:, at], side="right") - 1
        ends = bootstrap.intervals(partial(weighted, place, true, known), len(place), clusters=clusters, **drawing)
    return Curve(
        scored.labels[at], _rounded(found.thresholds), _rounded(found.precision), _rounded(found.recall),
        _rounded(found.f1), {name: (_rounded(low), _rounded(high)) for name, (low, high) in ends.items()},
    )  # fmt: skip


def weighted(place: Places, true: Bools, known: Bools, weights: Array) -> dict[str, Array]:
    """precision, recall and f1, each B×POINTS, under `weights` B×N; `place`, N: the last threshold a score reaches."""
    said = _reaching(place, weights * known)
    tp = _reaching(place, weights * true)
    whole = (weights * true).sum(1, keepdims=True)
    counts = Counts(tp, said - tp, whole - tp, np.zeros_like(tp))
    return {"precision": metrics.precision(counts), "recall": metrics.recall(counts), "f1": metrics.f1(counts)}


def _reaching(place: Places, weights: Array) -> Array:
    """B×POINTS: the weight of the pictures whose score reaches each threshold."""
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    at_each = np.zeros((len(weights), POINTS))
    at_each[:, place[order][starts]] = np.add.reduceat(weights[:, order], starts, axis=1)
    return np.cumsum(at_each[:, ::-1], axis=1)[:, ::-1]


def _rounded(values: Array) -> tuple[float, ...]:
    return tuple(np.round(values, _DIGITS).tolist())
