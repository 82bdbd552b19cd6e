"""Sweeps with intervals: under weights they are the sweep of repeated pictures, and their ends hold the curve."""

import numpy as np
import pytest
from hypothesis import given, settings

from ml import metrics, sweeps
from ml.bootstrap import Drawing
from ml.metrics import UNKNOWN, Scored
from tests.ml.scored import attributes, exclusive, names, sizes

FEW = Drawing(rounds=60, seed=0, level=0.95)
GRID = np.linspace(0, 1, sweeps.POINTS)


@settings(max_examples=40, deadline=None)
@given(size=sizes)
def test_weights_count_like_repeated_pictures(size: tuple[int, int, int]) -> None:
    scored = attributes(*size, unknown=0.3)
    scores, true = scored.scores[:, 0].round(2), scored.truth[:, 0] == 1
    known = scored.truth[:, 0] != UNKNOWN
    times = np.random.default_rng(size[2]).integers(0, 4, size[0])
    kept = np.repeat(np.arange(size[0]), times)
    place = np.searchsorted(GRID, scores, side="right") - 1
    found = sweeps.weighted(place, true, known, times[None].astype(float))
    rows = kept[known[kept]]
    plain = metrics.sweep(scores[rows], true[rows], GRID)
    for name in ("precision", "recall", "f1"):
        assert found[name][0] == pytest.approx(getattr(plain, name), nan_ok=True), name


def test_the_curve_lies_in_its_intervals() -> None:
    for scored in (exclusive(150, 3, 1), attributes(150, 3, 1)):
        for curve in sweeps.curves(scored, FEW):
            assert len(curve.thresholds) == len(curve.intervals["f1"][0]) == 101
            low, high, value = (np.array(part) for part in (*curve.intervals["f1"], curve.f1))
            told = ~np.isnan(low) & ~np.isnan(value)
            assert told.sum() > 50
            inside = (low[told] - 1e-4 <= value[told]) & (value[told] <= high[told] + 1e-4)
            assert inside.mean() > 0.95


def test_more_pictures_make_narrower_intervals_and_clusters_wider_ones() -> None:
    def width(pictures: int, clusters: list[int] | None = None) -> float:
        (low, high) = sweeps.curves(exclusive(pictures, 2, 2), FEW, clusters)[0].intervals["recall"]
        return high[50] - low[50]

    assert width(2000) < width(200)
    assert width(200, [at // 40 for at in range(200)]) != width(200)


def test_a_label_without_a_picture_has_a_curve_and_no_interval() -> None:
    scored = Scored("attributes", names(1), np.array([[0.2], [0.7]]), np.zeros((2, 1), np.int8), np.full(1, 0.5))
    (curve,) = sweeps.curves(scored, FEW)
    assert curve.intervals == {}
    assert np.isnan(curve.recall).all()
