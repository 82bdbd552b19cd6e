"""Metrics equal scikit-learn's on random predictions, and what scikit-learn does not define does what we say."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics as sk

from ml import metrics
from ml.metrics import UNKNOWN, Scored
from tests.ml.scored import attributes, exclusive, names, shares, sizes

few = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, about labels without pictures
        yield


def known(scored: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(true positions, said positions, scores) of the pictures whose truth is known."""
    rows = scored.pictures
    return scored.truth[rows].argmax(1), scored.scores[rows].argmax(1), scored.scores[rows]


@few
@given(size=sizes, unknown=shares)
def test_exclusive_figures_equal_scikit_learns(size: tuple[int, int, int], unknown: float) -> None:
    scored = exclusive(*size, unknown=unknown)
    true, said, scores = known(scored)
    if not len(true):
        assert np.isnan(metrics.summary(scored)["accuracy"])
        return
    found, of_label = metrics.summary(scored), metrics.per_label(scored)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    present = sorted(set(true))
    for average in ("macro", "micro", "weighted"):
        # Micro pools every label; the others run over those that occur.
        over = present if average != "micro" else range(size[1])
        p, r, f, _ = sk.precision_recall_fscore_support(true, said, labels=over, average=average, zero_division=0)
        got = [found[f"{average}_{name}"] for name in ("precision", "recall", "f1")]
        assert got == pytest.approx([p, r, f])
    p, r, f, _ = sk.precision_recall_fscore_support(true, said, labels=range(size[1]), zero_division=np.nan)
    assert of_label["precision"] == pytest.approx(p, nan_ok=True)
    assert of_label["recall"] == pytest.approx(r, nan_ok=True)
    assert of_label["f1"] == pytest.approx(f, nan_ok=True)
    assert (metrics.confusion(scored) == sk.confusion_matrix(true, said, labels=range(size[1]))).all()
    for k in (3, 5):
        if k < size[1]:
            expected = sk.top_k_accuracy_score(true, scores, k=k, labels=range(size[1]))
            assert found[f"top_{k}"] == pytest.approx(expected)
    for label in range(size[1]):
        expected = sk.average_precision_score(true == label, scores[:, label]) if label in present else np.nan
        assert of_label["average_precision"][label] == pytest.approx(expected, nan_ok=True)


@few
@given(size=sizes)
def test_attribute_figures_equal_scikit_learns(size: tuple[int, int, int]) -> None:
    scored = attributes(*size)
    true, said = scored.truth == 1, scored.said()
    found, of_label = metrics.summary(scored), metrics.per_label(scored)
    assert found["exact_match"] == pytest.approx(sk.accuracy_score(true, said))
    assert found["accuracy"] == pytest.approx(1 - sk.hamming_loss(true, said))
    present = np.flatnonzero(true.any(0))
    if len(present):
        for average in ("macro", "weighted"):
            p, r, f, _ = sk.precision_recall_fscore_support(
                true, said, labels=present, average=average, zero_division=0
            )
            got = [found[f"{average}_{name}"] for name in ("precision", "recall", "f1")]
            assert got == pytest.approx([p, r, f])
        assert found["mean_average_precision"] == pytest.approx(
            sk.average_precision_score(true[:, present], scored.scores[:, present], average="macro")
        )
    p, r, f, _ = sk.precision_recall_fscore_support(true, said, average=None, zero_division=np.nan)
    if size[1] > 1:
        assert of_label["precision"] == pytest.approx(p, nan_ok=True)
        assert of_label["recall"] == pytest.approx(r, nan_ok=True)


@few
@given(size=sizes)
def test_unknown_cells_count_like_cells_that_are_not_there(size: tuple[int, int, int]) -> None:
    scored = attributes(*size, unknown=0.4)
    of_label = metrics.per_label(scored)
    for at in range(size[1]):
        rows = scored.truth[:, at] != UNKNOWN
        if not rows.any():
            assert np.isnan(of_label["f1"][at])
            continue
        true, said = scored.truth[rows, at] == 1, scored.scores[rows, at] >= scored.thresholds[at]
        p, r, f, _ = sk.precision_recall_fscore_support(true, said, average=None, labels=[True], zero_division=np.nan)
        got = [of_label[name][at] for name in ("precision", "recall", "f1")]
        assert got == pytest.approx([p[0], r[0], f[0]], nan_ok=True)


@few
@given(size=sizes, unknown=shares)
def test_weights_count_like_repeated_pictures(size: tuple[int, int, int], unknown: float) -> None:
    for make in (exclusive, attributes):
        scored = make(*size, unknown=unknown)
        times = np.random.default_rng(size[2]).integers(0, 4, size[0])
        kept = np.repeat(np.arange(size[0]), times)
        repeated = Scored(scored.kind, scored.labels, scored.scores[kept], scored.truth[kept], scored.thresholds)
        weights = np.stack([times, np.ones(size[0])]).astype(float)
        for figures in (metrics.summary, metrics.per_label):
            weighted, plain, whole = figures(scored, weights), figures(repeated), figures(scored)
            for name in plain:
                assert weighted[name][0] == pytest.approx(plain[name], nan_ok=True), name
                assert weighted[name][1] == pytest.approx(whole[name], nan_ok=True), name


@few
@given(size=sizes)
def test_average_precision_with_ties_equals_scikit_learns(size: tuple[int, int, int]) -> None:
    random = np.random.default_rng(size[2])
    scores, true = random.integers(0, 4, size[0]) / 4, random.random(size[0]) < 0.5
    expected = sk.average_precision_score(true, scores) if true.any() else np.nan
    assert metrics.average_precision(scores, true) == pytest.approx(expected, nan_ok=True)


@few
@given(size=sizes)
def test_a_sweep_is_the_figures_at_each_threshold(size: tuple[int, int, int]) -> None:
    random = np.random.default_rng(size[2])
    scores, true = random.random(size[0]).round(2), random.random(size[0]) < 0.5
    swept = metrics.sweep(scores, true)
    assert len(swept.thresholds) == 101
    for at in (0, 13, 50, 100):
        p, r, _, _ = sk.precision_recall_fscore_support(
            true, scores >= swept.thresholds[at], average=None, labels=[True], zero_division=np.nan
        )
        assert [swept.precision[at], swept.recall[at]] == pytest.approx([p[0], r[0]], nan_ok=True)


def test_calibration_error_of_known_cases() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.int8)
    scores = np.array([[0.75, 0.25]] * 4)
    perfect = Scored("exclusive", names(2), scores, truth, np.zeros(2))
    bins = metrics.reliability(perfect)
    assert bins.count.sum() == 4
    assert bins.count[11] == 4, "0.75 lies in (11/15, 12/15]"
    assert bins.error() == pytest.approx(0.0)
    sure = Scored("exclusive", names(2), np.array([[1.0, 0.0]] * 4), truth, np.zeros(2))
    assert metrics.reliability(sure).error() == pytest.approx(0.25)
    # Attributes pool their cells: 8 scores of 0.5, of which 4 hold.
    flat = Scored("attributes", names(2), np.full((4, 2), 0.5), truth, np.full(2, 0.5))
    assert metrics.reliability(flat).count.sum() == 8
    assert metrics.reliability(flat).error() == pytest.approx(0.0)


def test_scores_at_the_ends_fall_into_the_outer_bins() -> None:
    scored = Scored("attributes", names(2), np.array([[0.0, 1.0]]), np.array([[0, 1]], np.int8), np.full(2, 0.5))
    assert metrics.reliability(scored).count[[0, -1]].tolist() == [1, 1]


def test_thresholds_of_an_exclusive_group_cost_coverage_not_accuracy() -> None:
    truth = np.array([[1, 0], [0, 1], [0, 1]], np.int8)
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = metrics.summary(Scored("exclusive", names(2), scores, truth, np.array([0.7, 0.5])))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["accuracy_reported"] == pytest.approx(1.0)


def test_equal_scores_rank_in_label_order() -> None:
    truth = np.array([[0, 0, 1]], np.int8)
    scored = Scored("exclusive", names(3), np.full((1, 3), 1 / 3), truth, np.zeros(3))
    assert metrics.top_k(scored, 2) == 0
    assert metrics.top_k(scored, 3) == 1


@pytest.mark.parametrize(
    "truth", [[[1, 1]], [[0, 0]], [[1, UNKNOWN]], [[1, 0, 0]]], ids=["two", "none", "half known", "too many"]
)
def test_a_truth_that_is_none_is_refused(truth: list[list[int]]) -> None:
    with pytest.raises(ValueError):
        Scored("exclusive", names(2), np.array([[0.5, 0.5]]), np.array(truth, np.int8), np.zeros(2))


def test_no_picture_gives_no_figure() -> None:
    for kind in ("exclusive", "attributes"):
        nothing = Scored(kind, names(2), np.zeros((0, 2)), np.zeros((0, 2), np.int8), np.zeros(2))
        assert all(np.isnan(value) for value in metrics.summary(nothing).values())
        assert np.isnan(metrics.per_label(nothing)["f1"]).all()
