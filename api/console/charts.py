"""Charts as SVG, drawn here: lines, bars, stacked bars, a matrix. Numbers in, markup out.

Colours are the style sheet's: classes `s0` … `s5` are the series. Every mark has a title that says its numbers, and
each chart a label for who cannot see it. No style attributes: the console's policy forbids them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from markupsafe import Markup, escape

from api.console.formats import number

Format = Callable[[float], str]
WIDTH: Final = 560
COLOURS: Final = 6
_LEFT: Final = 46
_RIGHT: Final = 10
_TOP: Final = 10
_BOTTOM: Final = 24


def line(
    series: Mapping[str, Sequence[tuple[float, float | None]]],
    *,
    label: str,
    height: int = 200,
    x: Format = number,
    y: Format = number,
    low: float | None = 0.0,
    high: float | None = None,
    mark: float | None = None,
) -> Markup:
    """A line a series over numbers; None breaks it. `low`, `high` fix the axis; `mark` draws a threshold."""
    points = [point for each in series.values() for point in each if point[1] is not None]
    if not points:
        return _nothing(label)
    xs = [each[0] for each in points]
    ys = [float(each[1] or 0) for each in points] + ([mark] if mark is not None else [])
    left, right = min(xs), max(xs)
    ticks = _ticks(min(ys) if low is None else low, max(ys) if high is None else high)
    across = _scale(left, right if right > left else left + 1, _LEFT, WIDTH - _RIGHT)
    up = _scale(ticks[0], ticks[-1], height - _BOTTOM, _TOP)
    parts = [_grid(ticks, up, y)]
    ends = [(left, "start"), ((left + right) / 2, "middle"), (right, "end")]
    for place, anchor in ends if right > left else ends[:1]:
        parts.append(_text(across(place), height - 6, x(place), anchor))
    if mark is not None:
        parts.append(
            Markup('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _LEFT, WIDTH - _RIGHT, _n(up(mark)), _n(up(mark))
            )
        )
    for index, (name, each) in enumerate(series.items()):
        path, pen = "", "M"
        for at, value in each:
            if value is None:
                pen = "M"
                continue
            path += f"{pen}{_n(across(at))} {_n(up(value))}"
            pen = "L"
        parts.append(Markup('<path class="line s{}" d="{}"/>').format(index % COLOURS, path))
        parts += [
            Markup('<circle class="dot s{}" cx="{}" cy="{}" r="{}"><title>{}: {} at {}</title></circle>').format(
                index % COLOURS, _n(across(at)), _n(up(value)), 3 if len(each) <= 40 else 1.5, name, y(value), x(at)
            )
            for at, value in each
            if value is not None
        ]
    return _figure(label, height, Markup("").join(parts), list(series))


def bars(
    values: Mapping[str, float],
    *,
    label: str,
    y: Format = number,
    limit: int = 12,
    links: Mapping[str, str] | None = None,
    top: float | None = None,
) -> Markup:
    """Lying bars with their names in front and their numbers behind, the greatest first; the rest is one bar.

    `top` is what a whole bar is worth: the greatest value, if it is not given.
    """
    shown = sorted(values.items(), key=lambda item: -item[1])
    if len(shown) > limit:
        rest = sum(value for _, value in shown[limit - 1 :])
        shown = [*shown[: limit - 1], (f"{len(shown) - limit + 1} more", rest)]
    if not shown:
        return _nothing(label)
    whole = top or max(value for _, value in shown) or 1
    rows = []
    for name, value in shown:
        words = Markup('<span class="name" title="{}">{}</span>').format(name, name)
        if links and name in links:
            words = Markup('<a class="name" href="{}" title="{}">{}</a>').format(links[name], name, name)
        rows.append(
            Markup(
                '<li>{}<svg aria-hidden="true"><rect class="track" width="100%" height="14" rx="4"/>'
                '<rect class="bar s0" width="{}%" height="14" rx="4"/></svg><span class="value">{}</span></li>'
            ).format(words, _n(max(0.0, min(100.0, 100 * value / whole))), y(value))
        )
    return Markup('<ul class="bars" aria-label="{}">{}</ul>').format(label, Markup("").join(rows))


def columns(
    rows: Sequence[tuple[str, Mapping[str, float]]], *, label: str, height: int = 200, y: Format = number
) -> Markup:
    """Standing bars, one a row, stacked of its parts; parts have the same colour in every row."""
    names = list(dict.fromkeys(name for _, parts in rows for name in parts))
    top = max((sum(parts.values()) for _, parts in rows), default=0)
    if not rows or top <= 0:
        return _nothing(label)
    ticks = _ticks(0, top)
    up = _scale(0, ticks[-1], height - _BOTTOM, _TOP)
    step = (WIDTH - _LEFT - _RIGHT) / len(rows)
    every = max(1, math.ceil(len(rows) / 10))
    drawn = [_grid(ticks, up, y)]
    for index, (name, parts) in enumerate(rows):
        left, base = _LEFT + index * step, 0.0
        for part, value in parts.items():
            if value <= 0:
                continue
            drawn.append(
                Markup(
                    '<rect class="bar s{}" x="{}" y="{}" width="{}" height="{}"><title>{}, {}: {}</title></rect>'
                ).format(
                    names.index(part) % COLOURS,
                    _n(left + step * 0.15),
                    _n(up(base + value)),
                    _n(step * 0.7),
                    _n(up(base) - up(base + value)),
                    name,
                    part,
                    y(value),
                )
            )
            base += value
        if index % every == 0:
            drawn.append(_text(left + step / 2, height - 6, name, "middle"))
    return _figure(label, height, Markup("").join(drawn), names if len(names) > 1 else [])


def stacked(parts: Mapping[str, tuple[float, str]], *, label: str) -> Markup:
    """One lying bar of shares: name → (value, kind). Kinds are the badges': good, warn, bad, note, off."""
    total = sum(value for value, _ in parts.values())
    drawn, left = [Markup('<rect class="track" width="{}" height="10" rx="5"/>').format(WIDTH)], 0.0
    for name, (value, kind) in parts.items():
        width = WIDTH * value / total if total else 0.0
        if width > 0:
            drawn.append(
                Markup('<rect class="part k-{}" x="{}" width="{}" height="10"><title>{}: {}</title></rect>').format(
                    kind, _n(left), _n(width), name, number(value)
                )
            )
        left += width
    return Markup(
        '<svg class="chart stacked" viewBox="0 0 {} 10" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, label, Markup("").join(drawn))


def matrix(names: Sequence[str], counts: Sequence[Sequence[float]], *, label: str, rows: str, columns: str) -> Markup:
    """A square table of counts (a confusion matrix): each row's shares are the cells' depth of colour, in ten steps."""
    if not names:
        return _nothing(label)
    head = Markup("").join(Markup('<th scope="col"><span>{}</span></th>').format(name) for name in names)
    body = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = Markup("").join(
            Markup('<td class="m{}" title="{} → {}: {}">{}</td>').format(
                round(10 * value / total) if total else 0, name, other, number(value), number(value) if value else ""
            )
            for other, value in zip(names, row, strict=True)
        )
        body.append(Markup('<tr><th scope="row">{}</th>{}</tr>').format(name, cells))
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="matrix"><caption>{} ↓ · {} →'
        "</caption><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(label, rows, columns, head, Markup("").join(body))


# --- pieces --------------------------------------------------------------------------------------------------


def _figure(label: str, height: float, drawn: Markup, legend: Sequence[str]) -> Markup:
    keys = Markup("").join(
        Markup(
            '<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true">'
            '<rect class="bar s{}" width="10" height="10" rx="2"/></svg>{}</li>'
        ).format(index % COLOURS, name)
        for index, name in enumerate(legend)
    )
    return Markup(
        '<figure class="figure"><svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>{}</figure>'
    ).format(WIDTH, height, label, drawn, Markup('<ul class="legend">{}</ul>').format(keys) if legend else "")


def _nothing(label: str) -> Markup:
    return Markup('<p class="quiet">{}: nothing yet.</p>').format(label)


def _grid(ticks: Sequence[float], up: Callable[[float], float], y: Format) -> Markup:
    lines = Markup("").join(
        Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, WIDTH - _RIGHT, _n(up(tick)), _n(up(tick))
        )
        + _text(_LEFT - 6, up(tick) + 4, y(tick), "end")
        for tick in ticks
    )
    return lines


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(_n(x), _n(y), anchor, escape(words))


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    reach = (high - low) or 1.0
    return lambda value: start + (value - low) / reach * (end - start)


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from at most `low` to at least `high` (steps of 1, 2 or 5 times a power of ten)."""
    if high <= low:
        high = low + 1
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
