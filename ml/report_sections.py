"""The report's sections about one label group: figures, labels, confusions, slices, mistakes.

Each takes plain data and gives Markup; an empty one gives nothing. What is about scores is in `ml.report_scores`.
"""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from ml import plots
from ml import report_scores as scores
from ml.evaluation import Figure, GroupEvaluation, Mistake, Slice
from ml.markup import Markup, el, join

Thumbnail = Callable[[str], str | None]  # image path → data: URI, None where it cannot be shown

MAX_MATRIX = 40
_CONFUSIONS = 12

NAMES = {
    "accuracy": "Accuracy",
    "exact_match": "All labels right",
    "top_3": "Top 3",
    "top_5": "Top 5",
    "macro_f1": "Macro F1",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "micro_f1": "Micro F1",
    "micro_precision": "Micro precision",
    "micro_recall": "Micro recall",
    "weighted_f1": "Weighted F1",
    "weighted_precision": "Weighted precision",
    "weighted_recall": "Weighted recall",
    "mean_average_precision": "Mean average precision",
    "calibration_error": "Calibration error",
    "calibration_error_equal_count": "… in bins of equal count",
    "calibration_error_by_chance": "… of a perfect model, by chance",
    "coverage": "Reported",
    "accuracy_reported": "Accuracy where reported",
}
MEANINGS = {
    "accuracy of exclusive": "pictures whose best label is right",
    "accuracy of attributes": "yes-or-no decisions that are right; high for rare labels whatever the model does",
    "exact_match": "pictures with every label decided rightly",
    "top_3": "pictures whose true label is among the best three",
    "top_5": "pictures whose true label is among the best five",
    "macro_f1": "mean over the labels: a rare one counts as much as a frequent one",
    "mean_average_precision": "how well scores rank pictures, at all thresholds at once",
    "calibration_error": "how far scores lie from how often they come true; small is good",
    "calibration_error_equal_count": "the same, where every bin holds as many decisions",
    "calibration_error_by_chance": "what a perfectly calibrated model with these scores shows on so many pictures",
    "coverage": "pictures whose best label reaches its threshold",
    "accuracy_reported": "accuracy on those pictures",
}
_CARDS = {
    "exclusive": ("accuracy", "macro_f1", "top_3", "calibration_error"),
    "attributes": ("macro_f1", "mean_average_precision", "exact_match", "calibration_error"),
}


def percent(value: float) -> str:
    """87.3 %, or a dash where there is nothing."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def interval(figure: Figure) -> str:
    """85.1 – 89.3, in per cent; empty where there is none."""
    if math.isnan(figure.low) or math.isnan(figure.high):
        return ""
    return f"{100 * figure.low:.1f} – {100 * figure.high:.1f}"


def group(found: GroupEvaluation, thumbnail: Thumbnail) -> Markup:
    """Everything about one label group."""
    kind = "exactly one label a picture" if found.kind == "exclusive" else "any number of labels a picture"
    counted = f"{found.pictures:,} pictures; {kind}."
    if found.unknown:
        counted += f" {found.unknown:,} more have no known label here and count nowhere."
    return el(
        "section",
        el("h2", found.name),
        el("p", counted, class_="soft"),
        _cards(found), _all_figures(found), _labels(found), _confusion(found), scores.calibration(found),
        scores.thresholds(found), _slices(found), _mistakes(found, thumbnail),
    )  # fmt: skip


def _cards(found: GroupEvaluation) -> Markup:
    cards = []
    for name in _CARDS[found.kind]:
        figure = found.figures.get(name)
        if figure is not None:
            value, between = written(name, figure)
            cards.append(el("div", el("span", NAMES[name]), el("b", value), el("span", between), class_="card"))
    return el("div", *cards, class_="cards")


def _all_figures(found: GroupEvaluation) -> Markup:
    rows = []
    for name in NAMES:
        if (figure := found.figures.get(name)) is not None:
            said = MEANINGS.get(f"{name} of {found.kind}", MEANINGS.get(name))
            value, between = written(name, figure)
            cells = (el("td", value, class_="n"), el("td", el("small", between)), el("td", said))
            rows.append(el("tr", el("td", NAMES[name]), *cells))
    table = _table(("Figure", "Value", "Interval", "What it says"), rows, numbers=(1,))
    return el("details", el("summary", "All figures"), table)


def _labels(found: GroupEvaluation) -> Markup:
    rows = [
        el(
            "tr", el("th", of.label, scope="row"), el("td", f"{of.support:,}", class_="n"),
            el("td", plots.bar(of.figures["f1"])),
            *(_number(of.figures[name]) for name in ("f1", "precision", "recall", "average_precision")),
            el("td", f"{of.threshold:.2f}" if of.threshold else "–", class_="n"),
        )
        for of in sorted(found.labels, key=lambda label: -label.support)
    ]  # fmt: skip
    head = ("Label", "Pictures", "F1, 0 … 100 %", "F1", "Precision", "Recall", "Average precision", "Threshold")
    explained = "Small figures are intervals; a dash where nothing can be said."
    return join(el("h3", "Labels"), el("p", explained, class_="soft"), _table(head, rows, numbers=(1, 3, 4, 5, 6, 7)))


def _confusion(found: GroupEvaluation) -> Markup | None:
    if found.kind != "exclusive":
        return None
    labels = [of.label for of in found.labels]
    wrong = [
        (count, labels[row], labels[column], sum(counts))
        for row, counts in enumerate(found.confusion)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    worst = sorted(wrong, key=lambda cell: -cell[0])[:_CONFUSIONS]
    rows = [
        el("tr", el("td", true), el("td", said), el("td", f"{count} of {support}", class_="n"))
        for count, true, said, support in worst
    ]
    none = el("p", "No picture was confused.")
    table = _table(("Is", "Was called", "Pictures"), rows, numbers=(2,)) if rows else none
    explained = el("p", "Rows are what the pictures show, columns what the model said; shaded by the row's share.")
    matrix = join(explained, el("div", plots.confusion(labels, found.confusion), class_="wide"))
    return join(
        el("h3", "Confusions"),
        el("div", el("div", matrix) if len(labels) <= MAX_MATRIX else None, el("div", table), class_="side"),
    )


def _slices(found: GroupEvaluation) -> Markup | None:
    if not found.slices:
        return None
    tables = [
        _slice_table(column, list(members), found.kind == "attributes")
        for column, members in groupby(found.slices, lambda of: of.column)
    ]
    worse = sum(of.worse for of in found.slices)
    better = sum(of.flagged for of in found.slices) - worse
    explained = (
        "The gap is a slice's accuracy less that of all other pictures, in points. It is flagged where it is large and "
        "its interval, widened for the number of slices compared, leaves out zero."
    )
    if found.kind == "attributes":
        explained += " So is the gap in F1, for most decisions about a rare label are an easy no."
    verdict = f"Flagged: {worse} worse, {better} better." if worse or better else "No gap is flagged."
    return join(el("h3", "Slices"), el("p", f"{explained} {verdict}", class_="soft"), *tables)


def _slice_table(column: str, members: Sequence[Slice], of_f1: bool) -> Markup:
    rows = []
    for of in members:
        flag = el("span", "worse" if of.worse else "better", class_="flag worse" if of.worse else "flag")
        gaps = (of.gap, of.f1_gap) if of_f1 else (of.gap,)
        rows.append(
            el(
                "tr", el("th", of.value, scope="row"), el("td", f"{of.count:,}", class_="n"),
                el("td", plots.bar(of.accuracy)), _number(of.accuracy), _number(of.macro_f1),
                *(join(el("td", plots.gap(gap, of.worse)), el("td", _points(gap), class_="n")) for gap in gaps),
                el("td", flag if of.flagged else None),
            )
        )  # fmt: skip
    bars = ("Gap, −30 … +30 points", "Gap", *(("F1 gap, −30 … +30", "F1 gap") if of_f1 else ()))
    head = (column, "Pictures", "Accuracy, 0 … 100 %", "Accuracy", "Macro F1", *bars, "")
    return _table(head, rows, numbers=(1, 3, 4, 6, 8))


def _points(gap: Figure) -> Markup:
    """A difference in points with its interval below it."""
    if math.isnan(gap.value):
        return join("–")
    known = math.isfinite(gap.low) and math.isfinite(gap.high)
    between = f"{100 * gap.low:+.1f} … {100 * gap.high:+.1f}".replace("-", "−") if known else None
    return join(f"{100 * gap.value:+.1f}".replace("-", "−"), el("small", between) if between else None)


def _mistakes(found: GroupEvaluation, thumbnail: Thumbnail) -> Markup | None:
    if not found.mistakes:
        return None
    explained = "Wrong decisions, the surest first. Look here for wrong labels in the data, too."
    sheet = [_mistake(of, thumbnail(of.image)) for of in found.mistakes]
    return join(el("h3", "Worst mistakes"), el("p", explained, class_="soft"), el("div", *sheet, class_="sheet"))


def _mistake(of: Mistake, picture: str | None) -> Markup:
    shown = el("img", src=picture, alt=f"{of.truth}, called {of.said}", loading="lazy") if picture else None
    return el(
        "figure",
        el("div", shown or el("small", "no picture", class_="soft"), class_="picture", title=of.image),
        el(
            "figcaption", el("span", of.said, class_="said"), f" {of.score:.2f}",
            el("small", f"labelled {of.truth}, {of.truth_score:.2f}"),
        ),
    )  # fmt: skip


def written(name: str, figure: Figure) -> tuple[str, str]:
    """A figure of a whole group and its interval; the calibration error is no share and stays a plain number."""
    if not name.startswith("calibration_error") or math.isnan(figure.value):
        return percent(figure.value), interval(figure)
    known = math.isfinite(figure.low) and math.isfinite(figure.high)
    return f"{figure.value:.3f}", f"{figure.low:.3f} – {figure.high:.3f}" if known else ""


def _number(figure: Figure) -> Markup:
    between = interval(figure)
    return el("td", percent(figure.value), el("small", between) if between else None, class_="n")


def _table(head: Sequence[str], rows: Sequence[Markup], numbers: Sequence[int]) -> Markup:
    cells = [el("th", name, class_="n" if at in numbers else None) for at, name in enumerate(head)]
    return el("div", el("table", el("thead", el("tr", *cells)), el("tbody", *rows)), class_="wide")
