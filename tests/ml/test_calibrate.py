"""Temperatures and thresholds against cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import calibrate, metrics, scoring
from ml.artifact import Artifact
from ml.card import from_dict
from ml.manifest import Entry, Group
from ml.metrics import UNKNOWN, Scored
from ml.predictor import Predictor
from tests.ml.conftest import jpeg
from tests.ml.scored import attributes, exclusive, names


def drawn_from_its_scores(pictures: int, labels: int, seed: int) -> Scored:
    """Truths drawn from the scores themselves: perfectly calibrated, temperature 1."""
    random = np.random.default_rng(seed)
    powers = np.exp(2 * random.normal(size=(pictures, labels)))
    scores = powers / powers.sum(1, keepdims=True)
    true = (scores.cumsum(1) > random.random((pictures, 1))).argmax(1)
    return Scored("exclusive", names(labels), scores, np.eye(labels, dtype=np.int8)[true], np.zeros(labels))


def sigmoids_drawn(pictures: int, seed: int) -> Scored:
    random = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-2 * random.normal(size=(pictures, 2))))
    truth = (random.random(scores.shape) < scores).astype(np.int8)
    return Scored("attributes", names(2), scores, truth, np.full(2, 0.5))


@pytest.mark.parametrize("wrong", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_a_temperature_that_was_put_in_is_found(wrong: float) -> None:
    for honest in (drawn_from_its_scores(6000, 5, 0), sigmoids_drawn(6000, 0)):
        seen = calibrate.apply_temperature(honest, wrong)
        found = calibrate.temperature(seen)
        assert found * wrong == pytest.approx(1.0, rel=0.06)
        better = calibrate.apply_temperature(seen, found)
        assert metrics.reliability(better).error() < 0.02
        assert calibrate.negative_log_likelihood(better) <= calibrate.negative_log_likelihood(seen) + 1e-12


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(5, 80))
def test_no_other_temperature_is_better(seed: int, size: int) -> None:
    for scored in (exclusive(size, 4, seed, unknown=0.2), attributes(size, 3, seed, unknown=0.2)):
        found = calibrate.temperature(scored)
        if not calibrate.COLDEST * 1.01 < found < calibrate.HOTTEST * 0.99:
            continue
        best = calibrate.negative_log_likelihood(calibrate.apply_temperature(scored, found))
        for other in (0.5, 0.98, 1.02, 2.0):
            worse = calibrate.negative_log_likelihood(calibrate.apply_temperature(scored, found * other))
            assert worse >= best - 1e-12


def test_a_temperature_changes_no_ranking() -> None:
    scored = exclusive(200, 6, 1)
    cooled = calibrate.apply_temperature(scored, 0.3)
    assert (cooled.scores.argsort(1) == scored.scores.argsort(1)).all()
    assert cooled.scores.sum(1) == pytest.approx(np.ones(200))


def test_nothing_to_learn_from_stays_within_bounds() -> None:
    truth = np.array([[1, 0], [0, 1]], np.int8)
    flawless = Scored("exclusive", names(2), np.array([[0.8, 0.2], [0.1, 0.9]]), truth, np.zeros(2))
    assert calibrate.temperature(flawless) == pytest.approx(calibrate.COLDEST)
    always_wrong = Scored("exclusive", names(2), 1 - flawless.scores, truth, np.zeros(2))
    assert calibrate.temperature(always_wrong) == pytest.approx(calibrate.HOTTEST)
    nothing = Scored("exclusive", names(2), flawless.scores, np.full((2, 2), UNKNOWN, np.int8), np.zeros(2))
    assert calibrate.temperature(nothing) == 1.0


def test_scores_of_exactly_0_and_1_do_no_harm() -> None:
    truth = np.array([[0, 1], [1, 0], [1, 0]], np.int8)
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.4]])
    for kind in ("exclusive", "attributes"):
        found = calibrate.temperature(Scored(kind, names(2), scores, truth, np.full(2, 0.5)))
        assert calibrate.COLDEST <= found <= calibrate.HOTTEST
        assert found > 1, "a wrong answer given with certainty asks for doubt"


SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
TRUE = np.array([True, True, False, True, False, False])


def test_best_f1_of_a_known_case() -> None:
    found = calibrate.best_f1(SCORES, TRUE)
    assert found is not None
    assert (found.value, found.precision, found.recall) == pytest.approx((0.55, 0.75, 1.0))


@pytest.mark.parametrize(
    ("wanted", "value", "recall"), [(1.0, 0.75, 2 / 3), (0.75, 0.55, 1.0), (0.6, 0.45, 1.0), (0.5, 0.2, 1.0)]
)
def test_most_recall_at_a_wanted_precision(wanted: float, value: float, recall: float) -> None:
    found = calibrate.most_recall(SCORES, TRUE, wanted)
    assert found is not None
    assert (found.value, found.recall) == pytest.approx((value, recall))
    assert found.precision >= wanted


def test_a_precision_that_cannot_be_had_gives_no_threshold() -> None:
    assert calibrate.most_recall(SCORES, ~TRUE, 0.9) is None
    assert calibrate.best_f1(SCORES, np.zeros(6, bool)) is None


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999), size=st.integers(1, 40))
def test_thresholds_give_what_they_promise(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    scores, true = random.integers(0, 9, size) / 8, random.random(size) < 0.5
    best, kept = calibrate.best_f1(scores, true), calibrate.most_recall(scores, true, 0.7)
    for found in (best, kept):
        if found is not None:
            swept = metrics.sweep(scores, true, np.array([found.value]))
            assert (swept.precision[0], swept.recall[0]) == pytest.approx((found.precision, found.recall))
            assert 0 <= found.value <= 1
    if best is not None:
        assert np.nanmax(metrics.sweep(scores, true).f1) <= 2 / (1 / best.precision + 1 / best.recall) + 1e-9


def test_thresholds_see_known_pictures_only() -> None:
    truth = np.array([[1, UNKNOWN], [0, 1], [UNKNOWN, 0]], np.int8)
    scores = np.array([[0.9, 0.99], [0.3, 0.8], [0.95, 0.2]])
    found = calibrate.thresholds(Scored("attributes", ("a", "b"), scores, truth, np.full(2, 0.5)))
    assert found["a"] is not None
    assert found["b"] is not None
    assert (found["a"].value, found["b"].value) == pytest.approx((0.6, 0.5))
    assert calibrate.thresholds(exclusive(200, 3, 0), 0.999).keys() == {"label 0", "label 1", "label 2"}


def tiny_scores(artifact: Artifact, labels: list[str]) -> Scored:
    """What the tiny model says of pictures between grey and red, whose truth is `labels`."""
    predictor = Predictor([artifact])
    pictures = [predictor.prepare(jpeg((120 + 3 * at, 90, 90))) for at in range(len(labels))]
    rows = [found[artifact.card.ref].values for found in predictor.predict(pictures)]
    entries = [Entry(f"{at}", "0" * 64, {"colour": label}, "test", {}) for at, label in enumerate(labels)]
    names = tuple(label.name for label in artifact.card.labels)
    found = [(entry, {"colour": row}) for entry, row in zip(entries, rows, strict=True)]
    cuts = scoring.thresholds(artifact.card)
    return scoring.gather(found, {"colour": Group("exclusive", names)}, cuts).groups["colour"]


def test_a_fitted_card_gives_the_scores_that_were_fitted(tiny_tags: Artifact) -> None:
    labels = ["grey" if at % 5 == 0 or at < 12 else "red" for at in range(40)]
    before = tiny_scores(tiny_tags, labels)
    card = calibrate.fitted(tiny_tags.card, {"colour": before})
    assert from_dict(card.to_dict()) == card, "a card that an artifact can hold"
    after = tiny_scores(Artifact(card, tiny_tags.state, ""), labels)
    heat = calibrate.temperature(before)
    assert card.temperature_of("colour") == pytest.approx(heat)
    assert after.scores == pytest.approx(calibrate.apply_temperature(before, heat).scores, abs=1e-4)
    assert calibrate.temperature(after) == pytest.approx(1.0, abs=0.01), "nothing is left to fit"
    again = calibrate.fitted(card, {"colour": after})
    assert again.temperature_of("colour") == pytest.approx(card.temperature_of("colour"), rel=0.01)
    found = calibrate.best_f1(after.scores[:, 1], after.truth[:, 1] == 1)
    by_name = {label.name: label.threshold for label in card.labels}
    assert found is not None
    assert by_name["red"] == pytest.approx(found.value, abs=1e-3)
    assert by_name["blue"] is None, "no picture is blue"


def test_a_label_without_the_wanted_precision_is_never_reported(tiny_tags: Artifact) -> None:
    labels = ["red" if at < 20 else "grey" for at in range(40)]  # the redder, the more often grey
    scored = tiny_scores(tiny_tags, labels)
    by_name = {
        label.name: label.threshold
        for label in calibrate.fitted(tiny_tags.card, {"colour": scored}, wanted_precision=0.99).labels
    }
    assert by_name["red"] == calibrate.NEVER
    few = calibrate.fitted(tiny_tags.card, {"colour": scored}, wanted_precision=0.99, min_support=21)
    assert {label.threshold for label in few.labels} == {None}
