"""What of an evaluation goes into a model's card: the figures of each group, with their intervals; decides nothing."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ml import calibrate, evaluate, scoring
from ml.card import ModelCard
from ml.evaluation import About, Evaluation, Figure, GroupEvaluation
from ml.metrics import Scored, reliability
from ml.scoring import Gathered

_DIGITS = 4


def of(evaluation: Evaluation) -> dict[str, Any]:
    """JSON-ready: {split, pictures, groups: {name: {pictures, figures, labels, flagged_slices}}}.

    A figure is {value, interval}; undefined ones are left out.
    """
    return {
        "split": evaluation.about.split,
        "dataset": evaluation.about.dataset,
        "pictures": evaluation.pictures,
        "groups": {name: _group(group) for name, group in evaluation.groups.items()},
    }


def calibrated(
    before: ModelCard, after: ModelCard, gathered: Gathered, about: About, options: evaluate.Options
) -> dict[str, Any]:
    """`of` the pictures that `after` was fitted on, from scores that `before` gave, as {split: …, "calibration": …}.

    The calibration says what it is before, with the fitted temperature, and where no picture is cooled by a
    temperature that it had a part in: the second flatters itself.
    """
    cooled, errors = {}, {}
    together = evaluate.clusters(gathered.entries, options.clusters)
    for name, scored in gathered.groups.items():
        cooled[name] = _cooled(before, after, name, scored)
        errors[name] = {
            "temperature": round(after.temperature_of(name), _DIGITS),
            "error_before": _number(reliability(scored).error()),
            "error_fitted": _number(reliability(cooled[name]).error()),
            "error_cross_fitted": _number(calibrate.cross_fitted_error(scored, together)),
        }
    found = evaluate.evaluate(replace(gathered, groups=cooled), about, options)
    return {about.split: of(found), "calibration": {"split": about.split, "groups": errors}}


def _cooled(before: ModelCard, after: ModelCard, group: str, scored: Scored) -> Scored:
    by = after.temperature_of(group) / before.temperature_of(group)
    cuts = scoring.thresholds(after)[group]
    limits = [
        default if cuts[label] is None else cuts[label]
        for label, default in zip(scored.labels, scored.thresholds, strict=True)
    ]
    return replace(calibrate.apply_temperature(scored, by), thresholds=np.array(limits, np.float64))


def _number(value: object) -> float | None:
    number = float(np.asarray(value, np.float64))
    return round(number, _DIGITS) if math.isfinite(number) else None


def _group(group: GroupEvaluation) -> dict[str, Any]:
    return {
        "pictures": group.pictures,
        "figures": {name: _figure(figure) for name, figure in group.figures.items() if math.isfinite(figure.value)},
        "labels": {
            label.label: {"pictures": label.support}
            | {
                key: round(label.figures[key].value, _DIGITS)
                for key in ("precision", "recall", "f1")
                if math.isfinite(label.figures[key].value)
            }
            for label in group.labels
        },
        "flagged_slices": [
            {"column": part.column, "value": part.value, "pictures": part.count, "gap": round(part.gap.value, _DIGITS)}
            for part in group.slices
            if part.flagged
        ],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    ends = (figure.low, figure.high)
    shown: dict[str, Any] = {"value": round(figure.value, _DIGITS)}
    return shown | ({"interval": [round(end, _DIGITS) for end in ends]} if all(map(math.isfinite, ends)) else {})
