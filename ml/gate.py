"""What the promotion gate compares: an evaluation as flat figures, each of them better when higher. Decides nothing.

The gate itself stands beside the registry, where activation happens; it subtracts what is given here. A figure of few
pictures is left out: the gate would only hear noise. Two models on the same pictures leave out the same figures, so a
figure that is missing is missing from the candidate.
"""

import math

from ml.evaluation import Evaluation, GroupEvaluation

MIN_SUPPORT = 30  # one picture of 30 moves a share by 3.3 points, less than the gate's margin for labels and slices

_OVERALL = {
    "exclusive": ("accuracy", "macro_f1"),
    "attributes": ("macro_f1", "mean_average_precision"),
}


def figures(evaluation: Evaluation, min_support: int = MIN_SUPPORT) -> dict[str, float]:
    """By name: overall/GROUP/FIGURE, label/GROUP/LABEL/f1 and slice/GROUP/COLUMN=VALUE/accuracy.

    Undefined ones are left out. `calibration` is 1 − calibration error, so that higher is better there too.
    """
    found: dict[str, float] = {}
    for name, group in evaluation.groups.items():
        found |= _of_group(name, group, min_support)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _of_group(name: str, group: GroupEvaluation, min_support: int) -> dict[str, float]:
    found = {f"overall/{name}/{key}": group.figures[key].value for key in _OVERALL[group.kind]}
    found[f"overall/{name}/calibration"] = 1 - group.figures["calibration_error"].value
    for label in group.labels:
        if label.support >= min_support:
            found[f"label/{name}/{label.label}/f1"] = label.figures["f1"].value
    for part in group.slices:
        if part.values == 1 and part.count >= min_support:
            found[f"slice/{name}/{part.column}={part.value}/accuracy"] = part.accuracy.value
    return found
