"""What `tagmill evaluate` prints of an evaluation: figures, labels, confusions, slices and what was not read."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ml.evaluation import Evaluation, Figure, GroupEvaluation

# Most telling first; precision, recall and F1 follow as one table of their three averages.
FIGURES = (
    "accuracy", "exact_match", "top_3", "top_5", "coverage", "accuracy_reported", "mean_average_precision",
    "calibration_error", "calibration_error_equal_count", "calibration_error_by_chance",
)  # fmt: skip
AVERAGES = ("macro", "micro", "weighted")
SHOWN = 10


def render(found: "Evaluation") -> "Iterator[RenderableType]":
    """The page, part by part."""
    from worker.screen import plain

    for name, group in found.groups.items():
        unknown = f"; {group.unknown} more have no known label here" if group.unknown else ""
        yield f"\n[bold]{plain(name)}[/]: {group.pictures} pictures of {plain(found.about.split)}{unknown}"
        yield _figures(group, found.about.level)
        yield _labels(group)
        yield from _confusions(group)
        yield _slices(group)
    if found.unread:
        yield f"\n[yellow]{len(found.unread)} pictures were left out[/]:"
        yield from (f"  {plain(of.image)} ({plain(of.code)})" for of in found.unread[:SHOWN])
        if len(found.unread) > SHOWN:
            yield f"  … and {len(found.unread) - SHOWN} more, in the report"


def written(figure: "Figure") -> str:
    """0.869 (0.837 … 0.898); a dash where there is nothing."""
    if math.isnan(figure.value):
        return "–"
    known = math.isfinite(figure.low) and math.isfinite(figure.high)
    return f"{figure.value:.3f}" + (f" ({figure.low:.3f} … {figure.high:.3f})" if known else "")


def _figures(group: "GroupEvaluation", level: float) -> "Table":
    from rich.table import Table

    table = Table("figure", f"value ({100 * level:g} % interval)", box=None, header_style="bold")
    for name in FIGURES:
        if (figure := group.figures.get(name)) is not None:
            table.add_row(name.replace("_", " "), written(figure))
    for kind in ("precision", "recall", "f1"):
        for average in AVERAGES:
            table.add_row(f"{average} {kind}", written(group.figures[f"{average}_{kind}"]))
    return table


def _labels(group: "GroupEvaluation") -> "Table":
    from rich.table import Table

    from worker.screen import plain

    table = Table(box=None, header_style="bold")
    table.add_column("label", overflow="fold")
    for name in ("pictures", "prec.", "recall"):
        table.add_column(name, justify="right")
    table.add_column("F1 (interval)", no_wrap=True)
    table.add_column("AP", justify="right")
    table.add_column("thr.", justify="right")
    for of in sorted(group.labels, key=lambda label: -label.support):
        shares = [_share(of.figures[name].value) for name in ("precision", "recall", "average_precision")]
        cut = f"{of.threshold:.2f}" if of.threshold else "–"
        table.add_row(plain(of.label), str(of.support), *shares[:2], written(of.figures["f1"]), shares[2], cut)
    return table


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _confusions(group: "GroupEvaluation") -> "Iterator[RenderableType]":
    from worker.screen import plain

    names = [of.label for of in group.labels]
    wrong = [
        (count, row, column)
        for row, counts in enumerate(group.confusion)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    worst = sorted(wrong, reverse=True, key=lambda cell: cell[0])[:5]
    if worst:
        said = (f"{plain(names[row])} called {plain(names[column])} ({count})" for count, row, column in worst)
        yield f"most confused: {', '.join(said)}"


def _slices(group: "GroupEvaluation") -> str:
    from worker.screen import plain

    compared = sum(of.values == 1 for of in group.slices)
    if not compared:
        return "no slice is large enough to compare"
    flagged = [of for of in group.slices if of.flagged]
    if not flagged:
        return f"slices: {compared} compared, no gap is flagged"
    lines = [
        f"  {'[red]worse[/]' if of.worse else 'better'}  {plain(of.column)} {plain(of.value)}, {of.count} pictures:"
        f" accuracy {100 * of.gap.value:+.1f} points, F1 {_points(of.f1_gap)}"
        for of in flagged
    ]
    return "\n".join([f"slices: {compared} compared, {len(flagged)} stand out", *lines])


def _points(figure: "Figure") -> str:
    return "–" if math.isnan(figure.value) else f"{100 * figure.value:+.1f}"
