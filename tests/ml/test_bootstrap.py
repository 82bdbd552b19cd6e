"""Intervals against what is known of them: coverage, width, seeds, clusters."""

import numpy as np
import pytest

from ml import bootstrap, metrics
from ml.metrics import Array
from tests.ml.scored import exclusive


def mean_of(values: Array) -> bootstrap.Statistic:
    return lambda weights: {"mean": metrics.ratio(weights @ values, weights.sum(1))}


def test_a_row_draws_as_many_pictures_as_there_are() -> None:
    (weights,) = bootstrap.resamples(50, rounds=200, seed=1)
    assert weights.shape == (200, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.max() > 1
    assert weights.mean(0) == pytest.approx(np.ones(50), abs=0.35)


def test_blocks_are_the_same_resample_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = exclusive(40, 3, 0)
    whole = bootstrap.intervals(lambda w: metrics.summary(scored, w), 40, rounds=100, seed=3)
    monkeypatch.setattr(bootstrap, "_BLOCK", 40 * 7)
    parts = bootstrap.intervals(lambda w: metrics.summary(scored, w), 40, rounds=100, seed=3)
    assert whole.keys() == parts.keys()
    for name, ends in whole.items():
        assert np.array(parts[name]) == pytest.approx(np.array(ends), nan_ok=True), name


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).random(30)
    one, same, other = (bootstrap.intervals(mean_of(values), 30, seed=seed)["mean"] for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_interval_of_a_share_is_the_normal_one() -> None:
    values = np.repeat([1.0, 0.0], [160, 240])
    low, high = bootstrap.intervals(mean_of(values), 400, rounds=4000)["mean"]
    half = 1.96 * np.sqrt(0.4 * 0.6 / 400)
    assert (low, high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.006)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        values = (random.random(120) < 0.7).astype(float)
        low, high = bootstrap.intervals(mean_of(values), 120, rounds=300, seed=seed)["mean"]
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_pictures_that_come_together_make_wider_intervals() -> None:
    # 100 people with 4 pictures each, all of one person's right or all wrong: 100 facts, not 400.
    values = np.repeat(np.arange(100) % 2, 4).astype(float)
    people = [f"person {at // 4}" for at in range(400)]
    alone = bootstrap.intervals(mean_of(values), 400, rounds=4000)["mean"]
    together = bootstrap.intervals(mean_of(values), 400, rounds=4000, clusters=people)["mean"]
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(2.0, rel=0.15)


def test_clusters_of_one_are_no_clusters() -> None:
    values = np.random.default_rng(0).random(30)
    plain = bootstrap.intervals(mean_of(values), 30, seed=4)["mean"]
    assert bootstrap.intervals(mean_of(values), 30, seed=4, clusters=range(30))["mean"] == plain


def test_clusters_must_fit_the_pictures() -> None:
    with pytest.raises(ValueError, match="2 clusters for 3 pictures"):
        list(bootstrap.resamples(3, clusters=["a", "b"]))


def test_resamples_without_a_figure_are_left_out() -> None:
    def rare(weights: Array) -> dict[str, Array]:
        seldom = np.where(weights[:, 0] > 0, weights[:, 1], np.nan)
        return {"rare": seldom, "never": np.full(len(weights), np.nan)}

    found = bootstrap.intervals(rare, 10, rounds=100)
    assert found["rare"][0] == 0
    assert found["rare"][1] >= 2
    assert np.isnan(found["never"]).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_resamples_that_all_agree_prove_nothing(value: float) -> None:
    assert np.isnan(bootstrap.intervals(mean_of(np.full(4, value)), 4)["mean"]).all()


def test_no_pictures_make_no_interval() -> None:
    assert np.isnan(bootstrap.intervals(mean_of(np.zeros(0)), 0, rounds=5)["mean"]).all()


def test_wilson_of_known_cases() -> None:
    low, high = bootstrap.wilson(np.array([0.0, 5.0, 10.0, 0.0]), np.array([10.0, 10.0, 10.0, 0.0]))
    assert low[:3] == pytest.approx([0.0, 0.2366, 0.7225], abs=1e-4)
    assert high[:3] == pytest.approx([0.2775, 0.7634, 1.0], abs=1e-4)
    assert np.isnan([low[3], high[3]]).all()
