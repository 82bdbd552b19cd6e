"""The report's drawings as SVG, made here and not in the browser: they need no script and print as they look.

Colours are CSS classes, so that light and dark are the page's business.
"""

import math
from collections.abc import Sequence

from ml.evaluation import Bin, Curve, Figure
from ml.markup import Markup, el, join

_EDGE = 36.0  # room for the axes' numbers


def svg(width: float, height: float, title: str, *children: Markup, class_: str = "plot") -> Markup:
    """A drawing that scales with its column; `title` is what a screen reader says."""
    box = f"0 0 {width:g} {height:g}"
    return el("svg", *children, viewBox=box, width=width, height=height, role="img", aria_label=title, class_=class_)


def bar(figure: Figure, scale: float = 1.0) -> Markup:
    """A value of 0…`scale` as a bar with the whiskers of its interval; for a table's cell."""
    width, middle = 140.0, 9.0
    if math.isnan(figure.value):
        return Markup("")
    at, low, high = (min(1.0, max(0.0, number / scale)) * width for number in _whole(figure))
    return svg(
        width, 18, f"{100 * figure.value:.1f} %",
        el("rect", x=0, y=3, width=width, height=12, rx=2, class_="track"),
        el("rect", x=0, y=3, width=at, height=12, rx=2, class_="bar"),
        _whisker(low, high, middle) if _known(figure) else Markup(""),
        class_="inline",
    )  # fmt: skip


def gap(figure: Figure, worse: bool, scale: float = 0.3) -> Markup:
    """A difference of −`scale`…`scale` as a bar to the left or right of zero."""
    width, zero = 140.0, 70.0
    if math.isnan(figure.value):
        return Markup("")
    at, low, high = (zero + zero * min(1.0, max(-1.0, number / scale)) for number in _whole(figure))
    return svg(
        width, 18, f"{100 * figure.value:+.1f} points",
        el("rect", x=0, y=3, width=width, height=12, rx=2, class_="track"),
        el("rect", x=min(zero, at), y=3, width=abs(at - zero), height=12, class_="bad" if worse else "bar"),
        el("line", x1=zero, y1=1, x2=zero, y2=17, class_="zero"),
        _whisker(low, high, 9.0) if _known(figure) else Markup(""),
        class_="inline",
    )  # fmt: skip


def reliability(bins: Sequence[Bin], title: str) -> Markup:
    """Share that came true against confidence, with Wilson whiskers; below it how many pictures each bin holds."""
    side, low = 300.0, 60.0
    drawn: list[Markup] = [_axes(side, side), _diagonal(side)]
    most = max((of.count for of in bins), default=0) or 1
    wide = side / len(bins)
    for at, of in enumerate(bins):
        left = _EDGE + at * wide
        tall = low * of.count / most
        foot = side + 112.0
        drawn.append(
            el(
                "rect", el("title", f"{of.count} in this bin"),
                x=left + 1, y=foot - tall, width=wide - 2, height=tall, class_="bar",
            )
        )  # fmt: skip
        if of.count:
            drawn.append(_point(of, side))
    drawn += [
        _label(_EDGE + side / 2, side + 42, "mean score of a bin; upwards, the share that came true", "middle"),
        _label(_EDGE, side + 128, "decisions in each bin", "start"),
    ]
    return svg(side + _EDGE + 12, side + 134, title, *drawn)


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> Markup:
    """Counts, shaded by the row's share: rows are the truth, columns what was said."""
    cell, left, top = 30.0, 96.0, 92.0
    drawn: list[Markup] = []
    for row, counts in enumerate(matrix):
        support = sum(counts) or 1
        y = top + row * cell
        drawn.append(_label(left - 6, y + cell / 2 + 4, _short(labels[row]), "end"))
        x = left + row * cell + cell / 2 + 4
        drawn.append(
            el("text", _short(labels[row]), x=x, y=top - 6, transform=f"rotate(-60 {x:g} {top - 6:g})", class_="tick")
        )
        for column, count in enumerate(counts):
            drawn.append(_cell(left + column * cell, y, cell, count, support, (labels[row], labels[column])))
    size = cell * len(labels)
    return svg(left + size + 50, top + size + 4, "Confusion matrix", *drawn, class_="plot fixed")


def curve(of: Curve, threshold: float) -> Markup:
    """Precision, recall and F1 of one label at each threshold, and where its threshold stands."""
    wide, tall = 200.0, 120.0
    lines = [
        el("polyline", points=_points(of.thresholds, values, wide, tall), class_=name)
        for name, values in (("precision", of.precision), ("recall", of.recall), ("f1", of.f1))
    ]
    x = _EDGE + threshold * wide
    mark = el("line", x1=x, y1=8.0, x2=x, y2=8.0 + tall, class_="mark") if threshold > 0 else None
    axis = _label(_EDGE + wide / 2, tall + 38, "threshold", "middle")
    title = f"{of.label} at each threshold"
    return svg(
        wide + _EDGE + 12, tall + 44, title, _axes(wide, tall), _band(of, wide, tall), *lines, join(mark), axis
    )  # fmt: skip


def _band(of: Curve, wide: float, tall: float) -> Markup:
    """The interval of F1; where there is none, the curve itself."""
    if "f1" not in of.intervals:
        return Markup("")
    ends = [
        [value if math.isnan(end) else end for value, end in zip(of.f1, side, strict=True)]
        for side in of.intervals["f1"]
    ]
    low, high = (_points(of.thresholds, side, wide, tall) for side in ends)
    return el("polygon", points=f"{low} {' '.join(reversed(high.split()))}", class_="band")


def _known(figure: Figure) -> bool:
    return math.isfinite(figure.low) and math.isfinite(figure.high)


def _whole(figure: Figure) -> tuple[float, float, float]:
    """A figure without an interval has one of no width."""
    return (figure.value, figure.low, figure.high) if _known(figure) else (figure.value,) * 3


def _whisker(low: float, high: float, y: float) -> Markup:
    return el("path", d=f"M{low:.1f} {y - 3:g}v6M{low:.1f} {y:g}H{high:.1f}M{high:.1f} {y - 3:g}v6", class_="whisker")


def _axes(wide: float, tall: float) -> Markup:
    drawn = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = 8 + tall * (1 - share), _EDGE + wide * share
        drawn.append(el("line", x1=_EDGE, y1=y, x2=_EDGE + wide, y2=y, class_="grid"))
        drawn.append(_label(_EDGE - 6, y + 4, f"{share:g}", "end"))
        drawn.append(_label(x, 8 + tall + 15, f"{share:g}", "middle"))
    return join(*drawn)


def _diagonal(side: float) -> Markup:
    return el("line", x1=_EDGE, y1=8 + side, x2=_EDGE + side, y2=8.0, class_="ideal")


def _point(of: Bin, side: float) -> Markup:
    x = _EDGE + side * of.confidence
    at, low, high = (8 + side * (1 - number) for number in of.accuracy)
    title = el("title", f"{of.count} decisions, mean score {of.confidence:.2f}, {of.accuracy.value:.2f} came true")
    return el(
        "g", title,
        el("path", d=f"M{x - 3:.1f} {low:.1f}h6m-3 0V{high:.1f}m-3 0h6", class_="whisker"),
        el("circle", cx=x, cy=at, r=4.0, class_="dot"),
    )  # fmt: skip


def _cell(x: float, y: float, size: float, count: int, support: int, pair: tuple[str, str]) -> Markup:
    share = count / support
    shade = el("rect", x=x, y=y, width=size - 1, height=size - 1, class_="track")
    right = pair[0] == pair[1]
    fill = el(
        "rect", x=x, y=y, width=size - 1, height=size - 1, class_="good" if right else "bad",
        # Square root: a confusion of a tenth must be seen. Never opaque: the number on it must be read.
        fill_opacity=0.65 * math.sqrt(share),
    )  # fmt: skip
    number = el(
        "text", count or None, x=x + size / 2 - 0.5, y=y + size / 2 + 4, text_anchor="middle",
        class_="count strong" if share > 0.2 else "count",
    )  # fmt: skip
    return el("g", el("title", f"{pair[0]} called {pair[1]}: {count} of {support}"), shade, fill, number)


def _points(xs: Sequence[float], ys: Sequence[float], wide: float, tall: float) -> str:
    known = [(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(y)]
    return " ".join(f"{_EDGE + x * wide:.1f},{8 + tall * (1 - y):.1f}" for x, y in known)


def _label(x: float, y: float, said: str, anchor: str) -> Markup:
    return el("text", said, x=x, y=y, text_anchor=anchor, class_="tick")


def _short(label: str) -> str:
    return label if len(label) <= 14 else f"{label[:13]}…"
