"""What two models differ in, against figures worked out by hand and by other libraries."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from ml.card import Head, Label, ModelCard
from ml.disagreement import Pair, agreement, only
from ml.scores import LabelSet, Scores


def card(labels: dict[str, list[str]], *, sigmoid: tuple[str, ...] = (), **thresholds: float) -> ModelCard:
    made = tuple(Label(name, group, thresholds.get(name)) for group, names in labels.items() for name in names)
    head: dict[str, Head] = {group: "sigmoid" if group in sigmoid else "softmax" for group in labels}
    return ModelCard("m", "1", "tags", "tiny_colour", made, head, {"name": "x"})


def rows(*values: tuple[float, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


KIND = {"kind": ["coat", "dress", "shirt"]}


def test_agreement_flips_and_its_interval_by_hand() -> None:
    a = rows((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.2, 0.5, 0.3), (0.6, 0.3, 0.1), (0.5, 0.4, 0.1))
    c = rows((0.6, 0.3, 0.1), (0.1, 0.3, 0.6), (0.2, 0.3, 0.5), (0.2, 0.7, 0.1), (0.9, 0.1, 0.0))
    (found,) = Pair(card(KIND), card(KIND), a, c).agreements()
    assert (found.group, found.pictures, found.agree, found.share) == ("kind", 5, 2, 0.4)
    assert found.flips == [("dress", "shirt", 2), ("coat", "dress", 1)]
    # Wilson 1927, by its formula: z of 95 %, n = 5, p = 0.4.
    z = NormalDist().inv_cdf(0.975)
    centre, half = (0.4 + z * z / 10) / (1 + z * z / 5), z / (1 + z * z / 5) * (0.4 * 0.6 / 5 + z * z / 100) ** 0.5
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


def test_agreement_is_scipys_interval_too() -> None:
    found = agreement("verdict", ["approve"] * 90 + ["review"] * 10, ["approve"] * 85 + ["reject"] * 15)
    theirs = stats.binomtest(85, 100).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert found.flips == [("review", "reject", 10), ("approve", "reject", 5)]


def test_rates_are_those_of_the_tags_that_the_line_gives() -> None:
    """Against `Scores.top`, the rule by which tags are stored, on random scores with thresholds and attributes."""
    random = np.random.default_rng(5)
    groups = {"kind": ["coat", "dress", "shirt"], "for": ["kids", "adults"]}
    ours = card(groups, sigmoid=("for",), dress=0.6)
    theirs = card({**groups, "kind": ["coat", "dress", "hat"]}, sigmoid=("for",), kids=0.9)
    a = random.random((200, 5)).astype(np.float32)
    c = random.random((200, 5)).astype(np.float32)
    found = {(rate.group, rate.label): rate for rate in Pair(ours, theirs, a, c).rates(top_k=2, min_score=0.3)}

    def given(of: ModelCard, scores: np.ndarray[tuple[int, int], np.dtype[np.float32]], group: str, name: str) -> float:
        labels = LabelSet(of)
        tagged = [{(tag.group, tag.label) for tag in Scores(labels, row).top(2, 0.3)} for row in scores]
        return sum((group, name) in tags for tags in tagged) / len(scores)

    for group, name in found:
        assert found[group, name].active == pytest.approx(given(ours, a, group, name)), name
        assert found[group, name].candidate == pytest.approx(given(theirs, c, group, name)), name
    assert found["kind", "hat"].active == 0.0
    gaps = [abs(rate.candidate - rate.active) for rate in found.values()]
    assert gaps == sorted(gaps, reverse=True)
    assert only(ours, theirs) == [("kind", "shirt")]
    assert only(theirs, ours) == [("kind", "hat")]


def test_scores_of_shared_labels_as_numpy_and_scipy_see_them() -> None:
    random = np.random.default_rng(6)
    a = random.random((50, 3)).astype(np.float32)
    c = np.column_stack([a[:, 1], 1 - a[:, 0], np.full(50, 0.25)]).astype(np.float32)
    other = card({"kind": ["dress", "coat", "shirt"]})
    found = {shift.label: shift for shift in Pair(card(KIND), other, a, c).shifts()}
    assert found["dress"].correlation == pytest.approx(1.0)
    assert found["dress"].mean_absolute == pytest.approx(0.0)
    assert found["coat"].correlation == pytest.approx(stats.pearsonr(a[:, 0], c[:, 1]).statistic)
    assert found["coat"].mean_absolute == pytest.approx(np.abs(2 * a[:, 0] - 1).mean(), rel=1e-5)
    assert found["shirt"].correlation is None, "one that never varies correlates with nothing"
    assert found["shirt"].active_mean == pytest.approx(a[:, 2].mean())


def test_examples_are_the_worst_first_and_say_what_each_says() -> None:
    a = rows((0.9, 0.1, 0.0), (0.5, 0.5, 0.0), (0.2, 0.7, 0.1))
    c = rows((0.1, 0.1, 0.8), (0.5, 0.5, 0.0), (0.1, 0.8, 0.1))
    first, second = Pair(card(KIND), card(KIND), a, c).examples(10)
    assert (first.row, first.distance) == (0, pytest.approx(0.8))
    assert (first.active[0], first.candidate[0]) == ("coat", "shirt")
    assert (second.row, second.distance) == (2, pytest.approx(0.1))


def test_a_label_that_one_does_not_know_counts_whole_in_the_distance() -> None:
    """A renamed label: the two distributions have nothing in common but what is left of them."""
    other = card({"kind": ["jacket", "dress", "shirt"]})
    (found,) = Pair(card(KIND), other, rows((0.8, 0.1, 0.1)), rows((0.8, 0.1, 0.1))).examples(1)
    assert found.distance == pytest.approx(0.8)
    assert (found.active[0], found.candidate[0]) == ("coat", "jacket")


def test_attributes_and_groups_of_one_model_alone_are_no_choice() -> None:
    ours = card({"for": ["kids", "adults"]}, sigmoid=("for",))
    theirs = card({"for": ["kids", "adults"], "kind": ["coat"]})
    pair = Pair(ours, theirs, rows((0.9, 0.2)), rows((0.4, 0.6, 1.0)))
    assert pair.agreements() == []
    (found,) = pair.examples(5)
    assert (found.group, found.active[0]) == ("for", "kids")
    assert found.distance == pytest.approx(0.5)


def test_no_pictures_and_wrong_shapes() -> None:
    nothing = np.zeros((0, 3), np.float32)
    pair = Pair(card(KIND), card(KIND), nothing, nothing)
    (found,) = pair.agreements()
    assert (found.pictures, found.flips) == (0, [])
    assert np.isnan(found.low)
    assert pair.rates(top_k=5, min_score=0.0) == pair.shifts() == pair.examples(3) == []
    with pytest.raises(ValueError, match="scores"):
        Pair(card(KIND), card(KIND), nothing, np.zeros((1, 3), np.float32))
