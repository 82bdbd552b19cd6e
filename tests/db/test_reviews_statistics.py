"""The formulas of the figures of quality, against another implementation and against what they promise."""

import math
import random

import pytest
from scipy import stats

from db import review_statistics
from db.review_statistics import beta, clopper_pearson, gamma, kappa, weighted_count, weighted_share, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 30), (1, 30), (15, 30), (30, 30), (3, 2000), (1999, 2000)])
def test_clopper_pearson_and_wilson_are_what_scipy_says(hits: int, n: int) -> None:
    theirs = stats.binomtest(hits, n)
    exact = theirs.proportion_ci(method="exact")
    assert clopper_pearson(hits, n) == pytest.approx((exact.low, exact.high), abs=1e-9)
    score = theirs.proportion_ci(method="wilson")
    ours = wilson(hits, n)
    assert (ours.low, ours.high) == pytest.approx((score.low, score.high), abs=1e-9)
    assert (ours.value, ours.n) == (hits / n, n)


def test_the_special_functions_are_what_scipy_says() -> None:
    draw = random.Random(5)
    for _ in range(300):
        a, b, x = draw.uniform(0.1, 400), draw.uniform(0.1, 400), draw.random()
        assert beta(a, b, x) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-10)
        at = a * draw.uniform(0.3, 3)
        assert gamma(a, at) == pytest.approx(stats.gamma.cdf(at, a), abs=1e-10)


@pytest.mark.parametrize("hits", [0, 1, 5, 40])
def test_with_one_weight_a_count_has_the_exact_interval_of_a_poisson_number(hits: int) -> None:
    value, low, high = weighted_count([(hits, 20.0)])
    assert value == hits * 20
    assert low == pytest.approx(20 * (stats.chi2.ppf(0.025, 2 * hits) / 2 if hits else 0), rel=1e-9)
    assert high == pytest.approx(20 * stats.chi2.ppf(0.975, 2 * (hits + 1)) / 2, rel=1e-9)


def test_the_interval_of_a_count_holds_what_it_promises() -> None:
    """A known number of pictures, drawn with two shares: the interval covers it at least as often as it says."""
    draw = random.Random(11)
    covered = 0
    for _ in range(600):
        groups = [(sum(draw.random() < share for _ in range(60)), 1 / share) for share in (0.05, 0.2)]
        _, low, high = weighted_count(groups)
        covered += low <= 120 <= high
    assert covered >= 0.94 * 600


def test_a_share_over_strata_is_weighted_by_how_it_was_drawn() -> None:
    one = weighted_share([(3, 40, 10.0)])
    assert (one.low, one.high) == pytest.approx(clopper_pearson(3, 40))
    both = weighted_share([(0, 50, 100.0), (10, 50, 1.0)])
    assert both.value == pytest.approx(10 / 5050)
    assert both.high is not None
    assert both.high > weighted_share([(0, 50, 100.0)]).high * 0.9, "a hundred light ones tell little of the heavy"
    assert weighted_share([]) == review_statistics.NOTHING


def test_kappa_is_cohens() -> None:
    # Cohen's own example: two judges, three categories, 200 cases (1960, table 1): po 0.70, pe 0.41 → 0.492.
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    found = kappa(table)
    assert found.value == pytest.approx((0.70 - 0.41) / (1 - 0.41), abs=1e-12)
    assert found.n == 200
    assert found.low == pytest.approx(found.value - 1.959964 * math.sqrt(0.7 * 0.3 / 200) / 0.59, abs=1e-6)
    assert kappa([[10, 0], [0, 10]]).value == 1
    assert kappa([[5, 5], [5, 5]]).value == 0
    assert kappa([[9, 0], [0, 0]]).value is None, "all said the same: chance would agree too"
    assert kappa([[0, 0], [0, 0]]) == review_statistics.NOTHING
