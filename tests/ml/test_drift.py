"""The measures of drift against known cases, their noise against draws from one population, and what a level is."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from ml import drift
from ml.drift import jensen_shannon, judge, psi, psi_noise, rate_difference
from ml.score_profile import BINS, GroupProfile, LabelProfile, Profile

counts = st.lists(st.integers(0, 500), min_size=4, max_size=4).filter(any)


def test_psi_of_a_worked_example() -> None:
    """Shares of 10, 20, 30 and 40 % against four quarters: Σ (p − q) ln(p / q), by hand."""
    by_hand = 0.15 * math.log(2.5) + 0.05 * math.log(1.25) + 0.05 * math.log(0.3 / 0.25) + 0.15 * math.log(0.4 / 0.25)
    assert by_hand == pytest.approx(0.2282, abs=1e-4)
    many = 1_000_000
    quarters, sloped = [many] * 4, [n * many for n in (1, 2, 3, 4)]
    assert psi(quarters, sloped) == pytest.approx(by_hand, abs=1e-5)
    assert psi(sloped, quarters) == pytest.approx(by_hand, abs=1e-5)


@given(counts, st.integers(1, 50))
def test_equal_shares_are_no_drift(histogram: list[int], times: int) -> None:
    assert psi(histogram, [n * times for n in histogram]) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(histogram, [n * times for n in histogram]) == pytest.approx(0, abs=1e-9)


@given(counts, counts)
def test_measures_are_symmetric_finite_and_not_negative(one: list[int], two: list[int]) -> None:
    assert 0 <= psi(one, two) + 1e-12 < math.inf
    assert psi(one, two) == pytest.approx(psi(two, one))
    assert jensen_shannon(one, two) + 1e-12 >= 0
    assert jensen_shannon(one, two) <= 1 + 1e-12
    assert jensen_shannon(one, two) == pytest.approx(jensen_shannon(two, one))


def test_jensen_shannon_of_known_cases() -> None:
    assert jensen_shannon([5, 0], [0, 7]) == pytest.approx(1)
    # With equal sizes it is the mutual information of the bin and the side, in bits.
    one, two = [30, 50, 20], [60, 20, 20]
    sides = [0] * 100 + [1] * 100
    bins = [at for histogram in (one, two) for at, n in enumerate(histogram) for _ in range(n)]
    assert jensen_shannon(one, two) == pytest.approx(mutual_info_score(sides, bins) / math.log(2))


def test_without_drift_the_psi_stays_in_its_noise() -> None:
    random = np.random.default_rng(7)
    shares = random.dirichlet(np.full(11, 3.0))
    pairs = [(random.multinomial(400, shares), random.multinomial(900, shares)) for _ in range(2000)]
    over = [psi(a.tolist(), b.tolist()) > psi_noise(a.tolist(), b.tolist()) for a, b in pairs]
    assert np.mean(over) < 0.02, "99 % are to stay below"
    over = [psi(a.tolist(), b.tolist()) > psi_noise(a.tolist(), b.tolist(), 0.5) for a, b in pairs]
    assert 0.4 < np.mean(over) < 0.6, "a limit that nothing reaches would be no limit"


def test_many_histograms_are_no_drift_either() -> None:
    """Five classes of moderation have five histograms and one of the best: together they stay within one in fifty."""
    random = np.random.default_rng(3)
    shares = {name: random.dirichlet(np.full(BINS, 1.0)) for name in ("best", "a", "b", "c", "d", "e")}

    def drawn() -> Profile:
        counts = {name: random.multinomial(200, of).tolist() for name, of in shares.items()}
        labels = {name: LabelProfile(40, histogram) for name, histogram in counts.items() if name != "best"}
        return Profile(200, {"nsfw": GroupProfile("exclusive", counts["best"], labels)})

    alarms = [judge(drawn(), drawn()).level != "ok" for _ in range(500)]
    assert np.mean(alarms) < 0.02


@pytest.mark.parametrize(
    ("one", "two", "wanted"),
    [  # R. Newcombe, Statistics in Medicine 17 (1998), 873–890, table II, method 10
        ((56, 70), (48, 80), (0.2000, 0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.6000, 0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.5714, 0.0582, 0.8062)),
        ((5, 56), (0, 29), (0.0893, -0.0381, 0.1926)),
        ((0, 10), (0, 20), (0.0, -0.1611, 0.2775)),
        ((10, 10), (0, 20), (1.0, 0.6791, 1.0)),
    ],
)
def test_differences_of_shares_as_published(
    one: tuple[int, int], two: tuple[int, int], wanted: tuple[float, float, float]
) -> None:
    assert tuple(rate_difference(*one, *two, 0.95)) == pytest.approx(wanted, abs=1e-4)


def profile(pictures: int, best: Sequence[int], rates: dict[str, int], kids: int = 0) -> Profile:
    labels = {label: LabelProfile(given) for label, given in rates.items()}
    attribute = LabelProfile(kids, [0] * (BINS - 1) + [kids])
    groups = {"category": GroupProfile("exclusive", list(best), labels)}
    if kids:
        groups["kids"] = GroupProfile("attributes", [], {"kids": attribute})
    return Profile(pictures, groups)


SURE = [0, 0, 0, 0, 0, 0, 0, 100, 300, 600]
UNSURE = [0, 0, 0, 100, 200, 300, 200, 100, 50, 50]


def test_the_same_again_is_ok() -> None:
    base = profile(1000, SURE, {"dress": 600, "shirt": 400}, kids=100)
    judged = judge(base, base)
    assert (judged.level, judged.reason, judged.psi) == ("ok", None, pytest.approx(0))
    assert {(m.what, m.group, m.label) for m in judged.measures} == {
        ("scores", "category", None), ("scores", "kids", "kids"), ("rate", "kids", "kids"),
        ("rate", "category", "dress"), ("rate", "category", "shirt"),
    }  # fmt: skip


def test_scores_that_fell_are_drift() -> None:
    base = profile(1000, SURE, {"dress": 600, "shirt": 400})
    live = profile(1000, UNSURE, {"dress": 600, "shirt": 400})
    judged = judge(live, base)
    assert judged.level == "drifted"
    assert (judged.measures[0].what, judged.measures[0].label) == ("scores", None)
    assert judged.psi == judged.measures[0].value > drift.PSI_DRIFTED
    assert [m.level for m in judged.measures[1:]] == ["ok", "ok"]
    means = (judged.measures[0].base, judged.measures[0].live)
    assert means == pytest.approx((0.1 * 0.75 + 0.3 * 0.85 + 0.6 * 0.95, 0.585)), "by the middles of the bins"


def test_pictures_without_any_tag_are_a_bin_too() -> None:
    base = profile(1000, SURE, {"dress": 1000})
    live = profile(2000, SURE, {"dress": 1000})
    assert judge(live, base).measures[0].to_dict()["what"] == "scores"
    assert judge(live, base).psi == pytest.approx(psi([*SURE, 1000], [*SURE, 0]))


def test_another_mix_of_classes_is_drift_only_where_the_mix_should_be_the_same() -> None:
    base = profile(1000, SURE, {"dress": 600, "shirt": 400})
    live = profile(1000, SURE, {"dress": 100, "shirt": 900})
    assert judge(live, base).level == "drifted"
    judged = judge(live, base, same_mix=False)
    assert judged.level == "watch"
    assert judged.measures[0].to_dict() | {"low": 0, "high": 0} == {
        "what": "rate", "group": "category", "label": "dress", "level": "watch", "value": -0.5, "live": 0.1,
        "base": 0.6, "low": 0, "high": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "level"),
    [(100, 130, "ok"), (100, 190, "watch"), (100, 300, "drifted"), (5, 20, "watch"), (5, 40, "drifted"), (0, 3, "ok")],
)
def test_rare_labels_are_judged_by_how_many_times_as_often(before: int, after: int, level: str) -> None:
    """Of 1,000 pictures each; 0.5 % to 4 % is eight times as often."""
    base, live = (profile(1000, SURE, {}, kids=n or 0) for n in (before, after))
    (rate,) = (m for m in judge(live, base).measures if m.what == "rate")
    assert rate.level == level


@pytest.mark.parametrize(
    ("live", "base", "reason"), [(199, 1000, "too_few_pictures"), (200, 199, "baseline_too_small"), (200, 200, None)]
)
def test_few_pictures_are_not_judged(live: int, base: int, reason: str | None) -> None:
    judged = judge(Profile(live, {}), Profile(base, {}))
    assert (judged.level, judged.reason) == ("unknown" if reason else "ok", reason)
