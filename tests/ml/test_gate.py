"""Promotion decisions on real evaluations: what `ml.gate` gives, and what the registry's gate makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from db.promotion import Margins, shortfalls
from ml import gate
from ml.evaluate import Options, evaluate
from ml.evaluation import About, Evaluation
from ml.manifest import Entry
from ml.metrics import Scored
from ml.scoring import Gathered
from tests.ml.scored import attributes, exclusive

ABOUT = About("tagger@1", "0" * 64, "clothes@1", "1" * 64, "test")
FEW = Options(rounds=20)


def evaluation(scored: Scored, values: list[str]) -> Evaluation:
    entries = tuple(
        Entry(f"{at}.jpg", "0" * 64, {"category": None}, "test", {"who": value}) for at, value in enumerate(values)
    )
    return evaluate(Gathered(entries, {"category": scored}, ()), ABOUT, FEW)


def worsened(scored: Scored, rows: np.ndarray) -> Scored:
    """The same with the scores of these pictures turned round: the best label becomes the worst."""
    scores = scored.scores.copy()
    scores[rows] = (1 - scores[rows]) / (1 - scores[rows]).sum(1, keepdims=True)
    return replace(scored, scores=scores)


GOOD = exclusive(600, 4, 0, skill=6.0)
WHO = ["kids" if at % 6 == 0 else "adults" for at in range(600)]
ACTIVE = gate.figures(evaluation(GOOD, WHO))


def reasons(candidate: Scored) -> list[str]:
    return [short.metric for short in shortfalls(ACTIVE, gate.figures(evaluation(candidate, WHO)))]


def test_the_figures_are_named_for_the_gate_and_better_when_higher() -> None:
    assert {name.partition("/")[0] for name in ACTIVE} == {"overall", "label", "slice"}
    assert {"overall/category/accuracy", "overall/category/macro_f1", "overall/category/calibration"} < ACTIVE.keys()
    assert {"label/category/label 0/f1", "slice/category/who=kids/accuracy"} < ACTIVE.keys()
    assert all(Margins().of(name) is not None for name in ACTIVE), "the gate judges every one of them"
    assert all(0 < value <= 1 for value in ACTIVE.values())


def test_an_equal_candidate_passes() -> None:
    assert reasons(GOOD) == []


def test_a_candidate_that_is_worse_everywhere_is_refused_for_each_reason() -> None:
    found = reasons(exclusive(600, 4, 0, skill=1.0))
    assert {name.partition("/")[0] for name in found} == {"overall", "label", "slice"}


def test_a_candidate_that_loses_one_slice_is_refused_for_the_slice() -> None:
    kids = np.flatnonzero(np.array(WHO) == "kids")
    found = reasons(worsened(GOOD, kids[:8]))
    assert "slice/category/who=kids/accuracy" in found
    assert "slice/category/who=adults/accuracy" not in found


def test_a_candidate_that_loses_one_label_is_refused_for_the_label() -> None:
    of_label = np.flatnonzero(GOOD.truth[:, 2] == 1)
    assert "label/category/label 2/f1" in reasons(worsened(GOOD, of_label[:30]))


def test_a_candidate_that_is_too_sure_is_refused_for_its_calibration() -> None:
    doubtful = exclusive(600, 4, 0, skill=1.0)
    sure = replace(doubtful, scores=np.eye(4)[doubtful.scores.argmax(1)] * 0.97 + 0.0075)
    before, after = (gate.figures(evaluation(scored, WHO)) for scored in (doubtful, sure))
    assert before["overall/category/accuracy"] == pytest.approx(after["overall/category/accuracy"])
    assert "overall/category/calibration" in [short.metric for short in shortfalls(before, after)]


def test_what_few_pictures_say_is_not_judged() -> None:
    rare = ["one" if at < 29 else f"rare {at}" if at < 40 else "rest" for at in range(600)]
    found = gate.figures(evaluation(GOOD, rare))
    assert not [name for name in found if "who=one" in name or "other values" in name]
    assert "slice/category/who=rest/accuracy" in found
    assert "slice/category/who=one/accuracy" in gate.figures(evaluation(GOOD, rare), min_support=29)


def test_undefined_figures_are_left_out() -> None:
    scored = attributes(60, 2, 0)
    never = replace(scored, truth=np.zeros_like(scored.truth))
    found = gate.figures(evaluation(never, ["a"] * 60))
    assert found.keys() == {"overall/category/calibration"}


def test_a_label_that_the_candidate_does_not_have_is_a_shortfall() -> None:
    fewer = {name: value for name, value in ACTIVE.items() if "label 3" not in name}
    (short,) = shortfalls(ACTIVE, fewer)
    assert (short.metric, short.candidate) == ("label/category/label 3/f1", None)
