"""When int8 is good enough: by how much a figure may fall, and how many pictures it takes to know."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from ml import int8_gate
from ml.manifest import Entry
from ml.metrics import Kind, Scored
from ml.scoring import Gathered


def gathered(kind: Kind, scores: np.ndarray, truth: np.ndarray) -> Gathered:
    labels = tuple("abcdef"[: scores.shape[1]])
    entries = tuple(Entry(f"{at}.png", "0" * 64, {}, "validation", {}) for at in range(len(scores)))
    scored = Scored(kind, labels, scores.astype(float), truth.astype(np.int8), np.full(len(labels), 0.5))
    return Gathered(entries, {"group": scored}, ())


def top1(right: Sequence[bool]) -> Gathered:
    """Pictures of two labels, all of them `a`; what is not right is said to be `b`."""
    said = np.where(np.array(right)[:, None], [0.9, 0.1], [0.2, 0.8])
    return gathered("exclusive", said, np.tile([1, 0], (len(right), 1)))


def judged(pictures: int, lost: int, won: int = 0) -> int8_gate.Compared:
    before, after = np.ones(pictures, bool), np.ones(pictures, bool)
    after[:lost] = False
    before[pictures - won :] = False
    (found,) = int8_gate.compare(top1(before), top1(after), ["group"])  # type: ignore[arg-type]
    assert (found.lost, found.won, found.pictures) == (lost, won, pictures)
    assert found.change == pytest.approx((won - lost) / pictures)
    return found


@pytest.mark.parametrize(
    ("pictures", "lost", "won", "verdict"),
    [
        (10_000, 10, 0, "kept"),
        (10_000, 51, 0, "lost"),
        (10_000, 40, 0, "unproven"),  # -0.40, but -0.53 is as likely as any end of an interval
        (10_000, 400, 400, "unproven"),  # the same figure, on other pictures
        (400, 2, 0, "unproven"),  # -0.5 exactly
        (400, 3, 0, "lost"),
        (400, 0, 0, "kept"),
        (300, 0, 0, "unproven"),  # nothing changed, of too few
        (300, 0, 5, "kept"),
    ],
)
def test_the_fall_and_its_interval(pictures: int, lost: int, won: int, verdict: str) -> None:
    found = judged(pictures, lost, won)
    assert found.verdict == verdict, found
    assert found.low < found.change < found.high or pictures < 500


def test_the_interval_covers_what_it_says() -> None:
    """Samples of a known difference, 1.5 % lost and 1 % won: 95 % of the intervals hold it."""
    random = np.random.default_rng(5)
    cells = random.multinomial(2000, [0.015, 0.010, 0.975], size=2000)
    held = [low <= -0.005 <= high for low, high in (int8_gate.paired(a, b, 2000) for a, b, _ in cells)]
    assert 0.93 <= np.mean(held) <= 0.98


def test_how_many_pictures_would_tell() -> None:
    few = judged(400, 2, 2)
    assert few.needed is not None
    times = few.needed / 400
    assert judged(few.needed + 50, round(2 * times), round(2 * times)).verdict == "kept"
    assert judged(400, 2).needed is None, "no number of pictures proves a fall of 0.5 to be less"
    assert judged(10_000, 10).needed is None


def test_attributes_are_judged_by_their_ranking() -> None:
    random = np.random.default_rng(1)
    truth = (random.random((4000, 2)) < 0.3).astype(np.int8)
    scores = np.clip(truth * 0.3 + random.normal(0.3, 0.15, truth.shape), 0, 1)
    truth[::7, 0] = -1
    before = gathered("attributes", scores, truth)
    (same,) = int8_gate.compare(before, before, ["group"])
    assert (same.figure, same.verdict, same.change) == ("mean_average_precision", "kept", 0)
    (near,) = int8_gate.compare(before, gathered("attributes", scores + 1e-3 * truth, truth), ["group"])
    assert near.verdict == "kept"
    noisy = np.clip(scores + random.normal(0, 0.1, scores.shape), 0, 1)
    (worse,) = int8_gate.compare(before, gathered("attributes", noisy, truth), ["group"])
    assert worse.verdict == "lost"
    assert worse.low < worse.change < worse.high < 0


def test_the_worst_group_counts_and_one_without_pictures_is_unproven() -> None:
    good, bad, none = judged(10_000, 1), judged(10_000, 100), judged(300, 0)
    assert int8_gate.worst([good, none, bad]) == "lost"
    assert int8_gate.worst([good, none]) == "unproven"
    assert int8_gate.worst([good]) == "kept"
    assert int8_gate.worst([]) == "unproven"
    (empty,) = int8_gate.compare(top1([True]), top1([True]), ["other"])
    assert (empty.verdict, empty.pictures, empty.needed) == ("unproven", 0, None)
    assert math.isnan(empty.before)
    assert empty.to_dict()["before"] is None
    unknown = gathered("exclusive", np.array([[0.9, 0.1]]), np.array([[-1, -1]]))
    (silent,) = int8_gate.compare(unknown, unknown, ["group"])
    assert silent.verdict == "unproven"
