"""Pieces of garments for the demo's drawings: outlines, seams, and the parts that several garments share.

Coordinates: the middle of the picture is (0, 0), y points down, and the picture is 2.07 wide and 2.76 high. Knows no
colours and draws nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Outline = tuple[Point, ...]


@dataclass(frozen=True)
class Part:
    """A piece of cloth. ``shade`` below 0 darkens it, ``slant`` leans its folds, ``smooth`` rounds its corners."""

    outline: Outline
    shade: float = 0.0
    slant: float = 0.0
    folds: int = 6
    material: str = "cloth"  # cloth, plain (without the pattern), trim (darker, without it), sole
    smooth: int = 2


@dataclass(frozen=True)
class Line:
    """A seam or an edge: drawn darker than the cloth (or lighter, below 0)."""

    points: Outline
    width: float = 0.008
    depth: float = 0.35


@dataclass(frozen=True)
class Garment:
    """What is drawn, from the back to the front, and the patterns that such a thing has."""

    parts: tuple[Part, ...]
    lines: tuple[Line, ...] = ()
    buttons: tuple[Point, ...] = ()
    patterns: tuple[str, ...] = ("plain",)
    print_at: Point | None = None


def mirrored(points: Sequence[Point]) -> Outline:
    """The outline whose right half, from the top middle to the bottom middle, is given."""
    return tuple(points) + tuple((-x, y) for x, y in reversed(points) if x)


def flipped(part: Part) -> Part:
    """The same part on the other side."""
    outline = tuple((-x, y) for x, y in part.outline)
    return Part(outline, part.shade, -part.slant, part.folds, part.material, part.smooth)


def both(line: Line) -> tuple[Line, Line]:
    """The line and its mirror image."""
    return line, Line(tuple((-x, y) for x, y in line.points), line.width, line.depth)


def edges(part: Part) -> tuple[Line, ...]:
    """The part's outline as seams, corner to corner."""
    outline = part.outline
    return tuple(Line((outline[n], outline[(n + 1) % len(outline)]), 0.006, 0.4) for n in range(len(outline)))


def inset(point: Point, by: float) -> Point:
    """A point of a sleeve's end, moved up the sleeve."""
    return point[0] - by, point[1] - by * 0.6


def torso(width: float, length: float, *, neck: float, drop: float, curved: bool = False) -> Part:
    """Front of a shirt from shoulder to hem; ``drop`` is where the neckline is lowest."""
    end = length - 0.14 if curved else length
    return Part(
        mirrored(
            ((0, drop), (neck * 0.6, drop - 0.05), (neck, -0.76), (neck, -0.76), (width - 0.08, -0.66),
             (width - 0.03, -0.6), (width - 0.07, -0.22), (width - 0.02, 0.2), (width, end), (width, end),
             (width * 0.6, length), (0, length + 0.02))
        ),
        folds=9,
    )  # fmt: skip


def short_sleeve(width: float, end: float) -> Part:
    """The right sleeve; ``end`` is how far down it reaches."""
    return Part(
        ((width - 0.2, -0.7), (width - 0.05, -0.65), (width + 0.12, -0.5), (width + 0.32, end - 0.16),
         (width + 0.32, end - 0.16), (width + 0.08, end + 0.02), (width + 0.08, end + 0.02), (width - 0.08, -0.2),
         (width - 0.15, -0.4)),
        -0.06, 0.6, 4,
    )  # fmt: skip


def long_sleeve(width: float, end: float, reach: float) -> Part:
    """The right sleeve; its end lies at (``reach``, ``end``)."""
    return Part(
        ((width - 0.2, -0.7), (width - 0.05, -0.64), (width + 0.1, -0.45), ((width + reach) / 2 + 0.14, 0.1),
         (reach + 0.04, end), (reach + 0.04, end), (reach - 0.14, end + 0.04), (reach - 0.14, end + 0.04),
         (width + 0.06, 0.2), (width - 0.08, -0.18)),
        -0.08, 0.3, 7,
    )  # fmt: skip


def cuff_of(sleeve: Part) -> Part:
    """The cuff of a long sleeve."""
    (outer_x, outer_y), (inner_x, inner_y) = sleeve.outline[4], sleeve.outline[6]
    outline = (
        (outer_x - 0.01, outer_y - 0.09),
        (outer_x - 0.01, outer_y + 0.02),
        (inner_x + 0.01, inner_y + 0.02),
        (inner_x + 0.01, inner_y - 0.08),
    )
    return Part(outline, -0.14, 0, 0, "plain", 0)


def nape(neck: float) -> Part:
    """The inside of the back, which the neck lets one see."""
    return Part(
        mirrored(((0, -0.72), (neck * 0.7, -0.74), (neck + 0.02, -0.78), (neck, -0.6), (0, -0.45))), -0.4, folds=0
    )


def armhole(width: float) -> Line:
    """The seam between the front and the right sleeve."""
    return Line(((width - 0.04, -0.62), (width - 0.1, -0.45), (width - 0.07, -0.22)), 0.008, 0.35)


def neckline(neck: float, body: Part) -> Line:
    """The rim of a round neck."""
    right = body.outline[:3]
    return Line((*((-x, y) for x, y in reversed(right)), *right[1:]), 0.035, 0.14)
