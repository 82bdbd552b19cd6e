"""The figures that a calibrated model's card carries: those of the scores after its temperature, and honest ones."""

from dataclasses import replace

import numpy as np
import pytest

from ml import calibrate, card_figures, metrics
from ml.card import Label, ModelCard
from ml.evaluate import Options
from ml.evaluation import About
from ml.manifest import Entry
from ml.metrics import Scored
from ml.scoring import Gathered

CARD = ModelCard(
    name="m", version="1", task="tags", architecture="tiny", head={"category": "softmax", "kids": "sigmoid"},
    labels=(Label("a", "category"), Label("b", "category"), Label("c", "category"), Label("kids", "kids")),
    preset={"name": "whole", "size": 8}, temperature={"category": 2.0, "kids": 1.0},
)  # fmt: skip


def gathered(pictures: int = 300, *, seed: int = 0) -> Gathered:
    """Overconfident scores: logits three times too large for how the truth is drawn. Two pictures per person."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(pictures, 3))
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    drawn = np.array([random.choice(3, p=row) for row in share])
    sharp = np.exp(3 * logits)
    truth = (drawn[:, None] == np.arange(3)).astype(np.int8)
    category = Scored("exclusive", ("a", "b", "c"), sharp / sharp.sum(1, keepdims=True), truth, np.zeros(3))
    kids = random.uniform(size=(pictures, 1))
    said = (random.uniform(size=(pictures, 1)) < kids).astype(np.int8)
    entries = tuple(
        Entry(f"{at}.jpg", f"{at:064x}", {"category": "abc"[drawn[at]], "kids": None}, "validation",
              {"person": str(at // 2)})
        for at in range(pictures)
    )  # fmt: skip
    return Gathered(
        entries, {"category": category, "kids": Scored("attributes", ("kids",), kids, said, np.full(1, 0.5))}, ()
    )


ABOUT = About(model="m@2", model_sha256="0" * 64, dataset="d@1", data_sha256="1" * 64, split="validation")


def test_the_card_says_what_the_calibrated_scores_say() -> None:
    found = gathered()
    after = calibrate.fitted(CARD, found.groups, thresholds_for=["kids"])
    figures = card_figures.calibrated(CARD, after, found, ABOUT, Options(rounds=50, clusters="person"))
    group = figures["validation"]["groups"]["category"]
    assert group["pictures"] == 300
    low, high = group["figures"]["accuracy"]["interval"]
    assert low < group["figures"]["accuracy"]["value"] < high
    # Scores came with temperature 2, three times too sharp: 6 is the truth.
    assert after.temperature_of("category") == pytest.approx(6.0, rel=0.25)
    cooled = calibrate.apply_temperature(found.groups["category"], after.temperature_of("category") / 2.0)
    error = float(metrics.reliability(cooled).error())
    calibration = figures["calibration"]["groups"]["category"]
    assert group["figures"]["calibration_error"]["value"] == calibration["error_fitted"] == round(error, 4)
    assert calibration["error_before"] > 0.15 > calibration["error_cross_fitted"]
    kids = next(label for label in after.labels if label.group == "kids")
    assert kids.threshold is not None
    assert figures["validation"]["groups"]["kids"]["labels"]["kids"]["recall"] == pytest.approx(
        float(metrics.recall(metrics.count(replace(found.groups["kids"], thresholds=np.array([kids.threshold]))))[0]),
        abs=0.02,
    )
    assert all(label.threshold is None for label in after.labels if label.group == "category")


def test_a_cross_fitted_error_uses_no_temperature_of_its_own_half() -> None:
    """Two halves that need opposite temperatures: fitted together they look better than either can be by the other."""
    one, other = gathered(200, seed=1).groups["category"], gathered(200, seed=2).groups["category"]
    other = calibrate.apply_temperature(other, 9.0)  # too soft, where `one` is too sharp
    both = Scored(
        "exclusive", one.labels, np.concatenate([one.scores, other.scores]), np.concatenate([one.truth, other.truth]),
        np.zeros(3),
    )  # fmt: skip
    halves = ["x"] * 200 + ["y"] * 200
    by = calibrate.temperature(both)
    fitted = float(metrics.reliability(calibrate.apply_temperature(both, by)).error())
    assert calibrate.cross_fitted_error(both, halves) > fitted + 0.05


def test_without_a_second_half_there_is_no_cross_fitted_error() -> None:
    scored = gathered(40).groups["category"]
    assert np.isnan(calibrate.cross_fitted_error(scored, ["one person"] * 40))
