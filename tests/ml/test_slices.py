"""Slices: planted gaps are flagged, chance is not, and rare values are pooled."""

import numpy as np
import pytest

from ml import metrics, slices
from ml.metrics import UNKNOWN, Scored
from tests.ml.scored import attributes, exclusive, names


def right_or_wrong(right: list[bool]) -> Scored:
    """Two labels; the true one is always the first, and is found where `right`."""
    scores = np.where(np.array(right)[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    truth = np.tile(np.array([[1, 0]], np.int8), (len(right), 1))
    return Scored("exclusive", names(2), scores, truth, np.zeros(2))


def test_a_slice_has_the_figures_of_its_pictures_alone() -> None:
    for scored in (exclusive(120, 4, 0, unknown=0.2), attributes(120, 4, 0)):
        values = ["a" if at % 3 else "b" for at in range(120)]
        found = {of.value: of for of in slices.by_column(scored, "source", values, rounds=50)}
        for value, of in found.items():
            rows = np.array(values) == value
            alone = metrics.summary(
                Scored(scored.kind, scored.labels, scored.scores[rows], scored.truth[rows], scored.thresholds)
            )
            others = metrics.summary(
                Scored(scored.kind, scored.labels, scored.scores[~rows], scored.truth[~rows], scored.thresholds)
            )
            assert of.accuracy.value == pytest.approx(float(alone["accuracy"]))
            assert of.macro_f1.value == pytest.approx(float(alone["macro_f1"]))
            assert of.gap.value == pytest.approx(float(alone["accuracy"] - others["accuracy"]))
            assert of.accuracy.low <= of.accuracy.value <= of.accuracy.high
            assert of.count == (rows & scored.pictures).sum()


def test_a_planted_gap_is_flagged_on_both_sides() -> None:
    scored = right_or_wrong([at % 10 != 0 for at in range(200)] + [at % 2 == 0 for at in range(100)])
    adults, kids = slices.by_column(scored, "who", ["adults"] * 200 + ["kids"] * 100)
    assert (adults.value, kids.value) == ("adults", "kids")
    assert kids.gap.value == pytest.approx(-0.4)
    assert kids.flagged
    assert adults.flagged


def test_chance_is_not_flagged_in_many_slices() -> None:
    random = np.random.default_rng(1)
    alarms = 0
    for seed in range(20):
        scored = right_or_wrong(list(random.random(500) < 0.8))
        values = [f"source {at}" for at in random.integers(10, size=500)]
        alarms += sum(of.flagged for of in slices.by_column(scored, "source", values, rounds=200, seed=seed))
    assert alarms <= 4, "of 200 slices without any gap"


def test_twenty_of_twenty_are_no_certainty() -> None:
    scored = right_or_wrong([True] * 20 + [at % 16 != 0 for at in range(320)])
    lucky = next(of for of in slices.by_column(scored, "who", ["lucky"] * 20 + ["rest"] * 320) if of.value == "lucky")
    assert lucky.gap.value > slices.GAP
    assert not lucky.flagged
    unlucky = right_or_wrong([False] * 20 + [at % 16 != 0 for at in range(320)])
    found = next(of for of in slices.by_column(unlucky, "who", ["poor"] * 20 + ["rest"] * 320) if of.value == "poor")
    assert found.flagged, "none of twenty where others have 94 %"


def test_rare_values_are_pooled_and_never_flagged() -> None:
    scored = right_or_wrong([True] * 100 + [False] * 40)
    values = ["often"] * 100 + [f"once {at}" for at in range(40)]
    often, pooled = slices.by_column(scored, "who", values)
    assert (often.value, often.values) == ("often", 1)
    assert (pooled.value, pooled.values, pooled.count) == ("40 other values", 40, 40)
    assert not pooled.flagged


def test_at_most_so_many_slices_are_named() -> None:
    values = [f"value {at % 30}" for at in range(900)]
    found = slices.by_column(right_or_wrong([True] * 900), "who", values, rounds=5)
    assert len(found) == slices.MAX_SLICES + 1
    assert found[-1].values == 10


def test_pictures_without_a_truth_count_nowhere() -> None:
    scored = right_or_wrong([True] * 60)
    truth = scored.truth.copy()
    truth[:30] = UNKNOWN
    half = Scored("exclusive", names(2), scored.scores, truth, np.zeros(2))
    (only,) = slices.by_column(half, "who", ["a"] * 30 + [""] * 30, rounds=5)
    assert (only.value, only.count) == (slices.ABSENT, 30)
    assert np.isnan(only.gap.value), "there are no others to compare with"
    assert not only.flagged
    nobody = Scored("exclusive", names(2), scored.scores, np.full((60, 2), UNKNOWN, np.int8), np.zeros(2))
    assert slices.by_column(nobody, "who", ["a"] * 60, rounds=5) == []


def test_clusters_widen_the_gaps_interval() -> None:
    # Five people a side, whose pictures are all right or all wrong.
    right = [at // 10 % 2 == 0 for at in range(100)] + [at // 10 % 3 != 0 for at in range(100)]
    who, people = ["a"] * 100 + ["b"] * 100, [at // 10 for at in range(200)]
    alone = slices.by_column(right_or_wrong(right), "side", who)[0].gap
    together = slices.by_column(right_or_wrong(right), "side", who, clusters=people)[0].gap
    assert together.high - together.low > 2 * (alone.high - alone.low)


def missed(found: list[bool], negatives: int) -> Scored:
    """One attribute: pictures that have it, found or missed, then `negatives` that do not and are told so."""
    truth = np.array([1] * len(found) + [0] * negatives, np.int8)[:, None]
    scores = np.array([0.9 if hit else 0.1 for hit in found] + [0.1] * negatives)[:, None]
    return Scored("attributes", names(1), scores, truth, np.full(1, 0.5))


def test_a_rare_attribute_that_one_slice_misses_is_flagged_though_accuracy_hardly_moves() -> None:
    # 40 of 1,000 pictures a side have it; one side finds 38 of them, the other 16.
    found = [at < 38 for at in range(40)] + [at < 16 for at in range(40)]
    values = ["summer"] * 40 + ["winter"] * 40 + ["summer", "winter"] * 960
    by_value = {of.value: of for of in slices.by_column(missed(found, 1920), "season", values, rounds=300)}
    winter = by_value["winter"]
    assert abs(winter.gap.value) < slices.GAP, "24 of 1,000 pictures"
    assert winter.f1_gap.value < -0.3
    assert winter.f1_gap.high < 0
    assert winter.flagged
    assert winter.worse
    assert by_value["summer"].flagged
    assert not by_value["summer"].worse


def test_an_f1_of_few_positives_is_never_flagged() -> None:
    found = [True] * 40 + [False] * 10
    values = ["summer"] * 40 + ["winter"] * 10 + ["summer", "winter"] * 475
    winter = next(
        of for of in slices.by_column(missed(found, 950), "season", values, rounds=300) if of.value == "winter"
    )
    assert winter.f1_gap.value == pytest.approx(-1.0)
    assert not winter.flagged, "ten pictures"


def test_chance_is_not_flagged_in_slices_of_attributes() -> None:
    alarms = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        scored = attributes(600, 3, seed)
        values = [f"source {at}" for at in random.integers(8, size=600)]
        alarms += sum(of.flagged for of in slices.by_column(scored, "source", values, rounds=200, seed=seed))
    assert alarms <= 5, "of 160 slices without any gap"


def test_the_f1_gap_of_an_exclusive_group_is_its_accuracy_gap() -> None:
    scored = exclusive(200, 4, 5)
    for of in slices.by_column(scored, "who", ["a" if at % 3 else "b" for at in range(200)], rounds=20):
        assert of.f1_gap.value == pytest.approx(of.gap.value)
