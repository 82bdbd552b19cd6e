"""The calibration error beside chance: known cases, and models that are calibrated by construction."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from ml import calibration, metrics
from ml.metrics import UNKNOWN, Scored
from tests.ml.scored import attributes, exclusive, names, sizes


def calibrated(pictures: int, seed: int) -> Scored:
    """One attribute that holds exactly as often as its score says."""
    random = np.random.default_rng(seed)
    scores = random.random((pictures, 1))
    truth = (random.random((pictures, 1)) < scores).astype(np.int8)
    return Scored("attributes", names(1), scores, truth, np.full(1, 0.5))


def test_chance_of_one_bin_is_the_mean_distance_of_a_share() -> None:
    # Of 400 decisions at 0.5, the share that comes true is normal around 0.5 with σ = 0.025; mean distance σ·√(2/π).
    flat = Scored("attributes", names(1), np.full((400, 1), 0.5), np.zeros((400, 1), np.int8), np.full(1, 0.5))
    mean, low, high = calibration.by_chance(flat, rounds=4000)
    assert mean == pytest.approx(0.025 * np.sqrt(2 / np.pi), rel=0.06)
    assert low == pytest.approx(0.0, abs=0.002)
    assert high == pytest.approx(0.025 * 2.2414, rel=0.1)  # the 97.5 % point of |normal|


def test_a_calibrated_model_lies_within_chance_as_often_as_said() -> None:
    inside = 0
    for seed in range(100):
        scored = calibrated(300, seed)
        _, low, high = calibration.by_chance(scored, rounds=300, seed=seed)
        inside += low <= float(metrics.reliability(scored).error()) <= high
    assert 88 <= inside <= 100, "95 % wanted"


def test_a_model_that_is_too_sure_lies_above_chance() -> None:
    scored = calibrated(300, 1)
    sure = replace(scored, scores=np.clip(scored.scores * 2 - 0.5, 0.01, 0.99))
    _, _, high = calibration.by_chance(sure)
    assert float(metrics.reliability(sure).error()) > 2 * high


def test_chance_needs_known_decisions_only() -> None:
    scored = exclusive(200, 4, 3)
    half = scored.truth.copy()
    half[::2] = UNKNOWN
    kept = Scored("exclusive", scored.labels, scored.scores[1::2], scored.truth[1::2], scored.thresholds)
    assert calibration.by_chance(replace(scored, truth=half)) == calibration.by_chance(kept)
    nobody = replace(scored, truth=np.full_like(scored.truth, UNKNOWN))
    assert np.isnan(calibration.by_chance(nobody)).all()
    assert calibration.equal_count_edges(nobody).size == 0


@settings(max_examples=40, deadline=None)
@given(size=sizes)
def test_bins_of_equal_count_hold_like_many_and_every_decision(size: tuple[int, int, int]) -> None:
    for make in (exclusive, attributes):
        scored = make(*size, unknown=0.2)
        _, _, counted = metrics.decisions(scored)
        found = metrics.reliability(scored, edges=calibration.equal_count_edges(scored, bins=5))
        assert found.count.sum() == counted.sum()
        if counted.sum() >= 5:  # random scores, so no ties
            assert len(found.count) == 5
            assert found.count.max() - found.count.min() <= 1


def test_equal_scores_are_one_bin() -> None:
    flat = Scored("attributes", names(1), np.full((40, 1), 0.5), np.zeros((40, 1), np.int8), np.full(1, 0.5))
    found = metrics.reliability(flat, edges=calibration.equal_count_edges(flat))
    assert found.count.sum() == found.count.max() == 40
    assert found.error() == pytest.approx(0.5)
