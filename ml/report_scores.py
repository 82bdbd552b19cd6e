"""The report's sections about scores: how they are calibrated, and what a threshold on them costs and brings."""

import math
from collections.abc import Sequence

from ml import plots
from ml.evaluation import Bin, Figure, GroupEvaluation
from ml.markup import Markup, el, join


def calibration(found: GroupEvaluation) -> Markup:
    """The reliability diagrams, and the calibration error beside what chance alone would show."""
    error, chance = found.figures["calibration_error"], found.figures["calibration_error_by_chance"]
    even = found.figures["calibration_error_equal_count"]
    meaning = (
        "Of the decisions with a score of 0.8, eight in ten should come true: dots on the dashed line. Dots above it: "
        "the model is too modest; below: too sure. Whiskers are 95 % intervals, the bars below count decisions."
    )
    rows = [
        el(
            "tr",
            el("th", name, scope="row"),
            el("td", _plain(figure), class_="n"),
            el("td", el("small", _ends(figure))),
        )
        for name, figure in (
            ("Calibration error", error),
            ("In bins of equal count", even),
            ("A perfect model's, by chance", chance),
        )
    ]
    said = el(
        "div", el("p", meaning, class_="soft"), el("table", el("tbody", *rows)), el("p", _verdict(error, chance)),
        class_="said-of",
    )  # fmt: skip
    drawn = (("bins of equal width", found.reliability), ("bins of equal count", found.reliability_equal_count))
    figures = [_diagram(name, bins) for name, bins in drawn if bins]
    return join(el("h3", "Calibration"), el("div", *figures, said, class_="side calibration"))


def thresholds(found: GroupEvaluation) -> Markup:
    """Precision, recall and F1 of each label at every threshold, frequent labels first."""
    support = {of.label: of for of in found.labels}
    shown = sorted((of for of in found.curves if support[of.label].support), key=lambda c: -support[c.label].support)
    figures = [
        el(
            "figure", el("figcaption", of.label, el("small", f" {support[of.label].support:,}")),
            plots.curve(of, support[of.label].threshold),
        )
        for of in shown
    ]  # fmt: skip
    names = (("precision", "precision"), ("recall", "recall"), ("f1", "F1, its interval shaded"))
    key = el("p", *(el("span", el("i", class_=name), said) for name, said in names), class_="key")
    explained = (
        "Each label against all others, at every threshold; the dashed upright is the threshold that is set. The small "
        "number is how many pictures have the label."
    )
    return join(el("h3", "Thresholds"), el("p", explained, class_="soft"), key, el("div", *figures, class_="sweeps"))


def _diagram(name: str, bins: Sequence[Bin]) -> Markup:
    return el("figure", el("figcaption", name), plots.reliability(bins, f"Reliability diagram, {name}"))


def _verdict(error: Figure, chance: Figure) -> str:
    if math.isnan(error.value) or math.isnan(chance.value):
        return ""
    if error.value <= chance.high:
        return "The error lies within what chance shows: these pictures are no sign that the scores are off."
    return "The error is more than chance shows: the scores are off. Calibrate on other pictures than these."


def _plain(figure: Figure) -> str:
    return "–" if math.isnan(figure.value) else f"{figure.value:.3f}"


def _ends(figure: Figure) -> str:
    known = math.isfinite(figure.low) and math.isfinite(figure.high)
    return f"{figure.low:.3f} – {figure.high:.3f}" if known else ""
