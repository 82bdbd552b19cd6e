"""The report's sections about one label group: figures, labels, confusions, calibration, thresholds, slices, mistakes.

Each takes plain data and gives Markup; an empty one gives nothing.
"""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from ml import plots
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
        _cards(found), _all_figures(found), _labels(found), _confusion(found), _reliability(found),
        _sweeps(found), _slices(found), _mistakes(found, thumbnail),
    )  # fmt: skip


def _cards(found: GroupEvaluation) -> Markup:
    cards = []
    for name in _CARDS[found.kind]:
        figure = found.figures.get(name)
        if figure is not None:
            value, between = _written(name, figure)
            cards.append(el("div", el("span", NAMES[name]), el("b", value), el("span", between), class_="card"))
    return el("div", *cards, class_="cards")


def _all_figures(found: GroupEvaluation) -> Markup:
    rows = []
    for name in NAMES:
        if (figure := found.figures.get(name)) is not None:
            said = MEANINGS.get(f"{name} of {found.kind}", MEANINGS.get(name))
            value, between = _written(name, figure)
            cells = (el("td", value, class_="n"), el("td", el("small", between)), el("td", said))
            rows.append(el("tr", el("td", NAMES[name]), *cells))
    table = _table(("Figure", "Value", "Interval", "What it says"), rows, numbers=(1,))
    return el("details", el("summary", "All figures"), table)


def _labels(found: GroupEvaluation) -> Markup:
    rows = []
    for of in sorted(found.labels, key=lambda label: -label.support):
        f1 = of.figures["f1"]
        rows.append(
            el(
                "tr", el("td", of.label), el("td", f"{of.support:,}", class_="n"),
                _number(of.figures["precision"]), _number(of.figures["recall"]), _number(f1),
                el("td", plots.bar(f1)), el("td", el("small", interval(f1))),
                _number(of.figures["average_precision"]),
                el("td", f"{of.threshold:.2f}" if of.threshold else "–", class_="n"),
            )
        )  # fmt: skip
    head = (
        "Label", "Pictures", "Precision", "Recall", "F1", "F1 with its interval", "", "Average precision", "Threshold"
    )  # fmt: skip
    return join(el("h3", "Labels"), _table(head, rows, numbers=(1, 2, 3, 4, 7, 8)))


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


def _reliability(found: GroupEvaluation) -> Markup:
    value, between = _written("calibration_error", found.figures["calibration_error"])
    said = (
        "Of the decisions with a score of 0.8, eight in ten should come true: dots on the dashed line. They lie "
        f"{value} from it on average{f' ({between})' if between else ''}. Dots above it: the model is too modest; "
        "below: too sure. Whiskers are 95 % intervals."
    )
    return join(
        el("h3", "Calibration"),
        el("div", el("div", plots.reliability(found.reliability)), el("p", said, class_="soft"), class_="side"),
    )


def _sweeps(found: GroupEvaluation) -> Markup:
    support = {of.label: of for of in found.labels}
    shown = sorted((of for of in found.curves if support[of.label].support), key=lambda c: -support[c.label].support)
    figures = [el("figure", el("figcaption", of.label), plots.curve(of, support[of.label].threshold)) for of in shown]
    names = (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))
    key = el("p", *(el("span", el("i", class_=name), said, class_=name) for name, said in names), class_="key")
    explained = "Each label against all others, at every threshold; the dashed line is the threshold that is set."
    return join(el("h3", "Thresholds"), el("p", explained, class_="soft"), key, el("div", *figures, class_="sweeps"))


def _slices(found: GroupEvaluation) -> Markup | None:
    if not found.slices:
        return None
    tables = [_slice_table(column, list(members)) for column, members in groupby(found.slices, lambda of: of.column)]
    worse = sum(of.flagged and of.gap.value < 0 for of in found.slices)
    better = sum(of.flagged for of in found.slices) - worse
    explained = (
        "The gap is a slice's accuracy less that of all other pictures, in points. It is flagged where it is large and "
        "its interval, widened for the number of slices compared, leaves out zero."
    )
    verdict = f"Flagged: {worse} worse, {better} better." if worse or better else "No gap is flagged."
    return join(el("h3", "Slices"), el("p", f"{explained} {verdict}", class_="soft"), *tables)


def _slice_table(column: str, members: Sequence[Slice]) -> Markup:
    rows = []
    for of in members:
        worse = of.flagged and of.gap.value < 0
        flag = el("span", "worse" if worse else "better", class_="flag worse" if worse else "flag")
        points = "–" if math.isnan(of.gap.value) else f"{100 * of.gap.value:+.1f}".replace("-", "−")
        rows.append(
            el(
                "tr", el("td", of.value), el("td", f"{of.count:,}", class_="n"),
                _number(of.accuracy), el("td", plots.bar(of.accuracy)), el("td", el("small", interval(of.accuracy))),
                _number(of.macro_f1), el("td", points, class_="n"),
                el("td", plots.gap(of.gap, worse)), el("td", flag if of.flagged else None),
            )
        )  # fmt: skip
    head = (column, "Pictures", "Accuracy", "", "", "Macro F1", "Gap", "−30 … +30 points", "")
    return _table(head, rows, numbers=(1, 2, 5, 6))


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


def _written(name: str, figure: Figure) -> tuple[str, str]:
    """A figure of a whole group and its interval; the calibration error is no share and stays a plain number."""
    if name != "calibration_error" or math.isnan(figure.value):
        return percent(figure.value), interval(figure)
    known = math.isfinite(figure.low) and math.isfinite(figure.high)
    return f"{figure.value:.3f}", f"{figure.low:.3f} – {figure.high:.3f}" if known else ""


def _number(figure: Figure) -> Markup:
    return el("td", percent(figure.value), class_="n")


def _table(head: Sequence[str], rows: Sequence[Markup], numbers: Sequence[int]) -> Markup:
    cells = [el("th", name, class_="n" if at in numbers else None) for at, name in enumerate(head)]
    return el("div", el("table", el("thead", el("tr", *cells)), el("tbody", *rows)), class_="wide")
