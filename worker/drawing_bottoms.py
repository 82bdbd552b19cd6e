"""Trousers, skirts, hats and shoes that the demo can draw; knows no colours and draws nothing."""

from random import Random

from worker.drawing_parts import Garment, Line, Outline, Part, Point, both, edges, flipped, mirrored


def skirt(random: Random) -> Garment:
    """A waistband and a skirt that widens."""
    length, flare, waist = random.uniform(0.5, 0.72), random.uniform(0.62, 0.82), random.uniform(0.36, 0.42)
    cloth = Part(
        mirrored(
            ((0, -0.62), (waist, -0.64), (waist, -0.64), ((waist + flare) / 2 + 0.05, -0.1), (flare, length - 0.1),
             (flare, length - 0.1), (flare * 0.6, length), (0, length + 0.03))
        ),
        folds=14,
    )  # fmt: skip
    band = Part(
        ((-waist, -0.74), (waist, -0.74), (waist + 0.01, -0.62), (-waist - 0.01, -0.62)), -0.08, 0, 2, "plain", 0
    )
    return Garment((cloth, band), edges(band), patterns=("plain", "plain", "flowers", "dots"))


def pants(random: Random) -> Garment:
    """Long trousers with two legs."""
    top, waist = -1.0, 0.32
    legs = _legs(
        top, waist, 0.42, 0.58, random.uniform(1.02, 1.14), random.uniform(0.17, 0.23), random.gauss(0, 0.02), 0.02
    )
    pocket = Line(((waist - 0.12, top + 0.07), (waist - 0.1, top + 0.2), (waist + 0.06, top + 0.26)), 0.008, 0.4)
    return Garment(
        legs.parts,
        (*legs.lines, *both(pocket)),
        ((0.0, top + 0.015),),
        ("plain", "denim", "denim"),
    )


def shorts(random: Random) -> Garment:
    """Wide legs cut above the knee, often with a drawstring."""
    top, waist, hip = -0.52, random.uniform(0.52, 0.57), random.uniform(0.68, 0.74)
    rise, length = random.uniform(0.62, 0.7), random.uniform(0.42, 0.52)
    legs = _legs(top, waist, hip, rise, length, random.uniform(0.32, 0.35), random.uniform(0.04, 0.1), 0.06)
    lines = [*legs.lines, *both(Line(((waist - 0.02, top + 0.1), (hip - 0.06, top + 0.45)), 0.012, 0.5))]
    if random.random() < 0.7:
        ends = ((-0.02, -0.07, 0.3), (0.02, 0.05, 0.34))
        lines += [Line(((x, top + 0.02), (to, top + down)), 0.014, -0.6) for x, to, down in ends]
    return Garment(legs.parts, tuple(lines), patterns=("plain", "plain", "denim", "flowers"))


def _legs(
    top: float, waist: float, hip: float, rise: float, length: float, hem: float, out: float, tilt: float
) -> Garment:
    """Two legs, a waistband and a fly; ``hem`` is half a leg's width, ``out`` how far the legs stand apart."""
    crotch, middle = top + rise, hip - hem + out
    inner = middle - hem + (0.07 if hip < 0.5 else 0.0)
    leg = Part(
        ((-0.06, top), (-0.06, top), (waist, top), (waist, top), (hip, top + rise * 0.7), (middle + hem, length),
         (middle + hem, length), (inner, length + tilt), (inner, length + tilt), (0.015, crotch), (0.015, crotch),
         (-0.06, crotch - 0.06)),
        slant=0.1, folds=9,
    )  # fmt: skip
    band = Part(((-waist, top - 0.04), (waist, top - 0.04), (waist + 0.01, top + 0.08), (-waist - 0.01, top + 0.08)),
                -0.06, 0, 2, "plain", 0)  # fmt: skip
    inside = Part(mirrored(((0, top - 0.07), (waist - 0.02, top - 0.06), (waist - 0.02, top), (0, top))), -0.4, folds=0)
    fly = Line(((0, top + 0.07), (0, crotch)), 0.008, 0.4)
    stitch = Line(((0.07, top + 0.07), (0.07, crotch - 0.16), (0.0, crotch - 0.06)), 0.005, 0.3)
    cuff = Line(((middle + hem, length - 0.05), (inner, length + tilt - 0.05)), 0.006, 0.3)
    return Garment((inside, leg, flipped(leg), band), (fly, stitch, *both(cuff), *edges(band)))


def hat(random: Random) -> Garment:
    """A cap from the front and above: six panels, a button and a peak."""
    wide, high = random.uniform(0.5, 0.58), random.uniform(0.6, 0.68)
    dome = Part(
        mirrored(((0, -high), (0.28, -high + 0.03), (wide - 0.06, -0.3), (wide, 0.06), (wide - 0.02, 0.22), (0.25, 0.1),
                  (0, 0.07))),
        folds=3,
    )  # fmt: skip
    peak = Part(
        mirrored(((0, 0.05), (0.3, 0.08), (wide, 0.2), (wide + 0.06, 0.38), (wide - 0.1, 0.58), (0.2, 0.68), (0, 0.7))),
        -0.12, 0, 2, "trim",
    )  # fmt: skip
    panels = (
        Line(((0, -high), (0, 0.07)), 0.008, 0.3),
        *both(Line(((0, -high), (0.24, -0.34), (0.33, 0.11)), 0.008, 0.3)),
    )
    stitches = tuple(
        Line(
            tuple(
                (x * k, 0.16 + (y - 0.16) * k)
                for x, y in ((-wide, 0.36), (-0.3, 0.56), (0, 0.62), (0.3, 0.56), (wide, 0.36))
            ),
            0.005,
            0.25,
        )
        for k in (0.95, 0.84)
    )
    holes = tuple(Line(((x, -0.3), (x + 0.02, -0.29)), 0.025, 0.5) for x in (-0.2, 0.18))
    return Garment((dome, peak), (*panels, *stitches, *holes), ((0, -high),), ("plain", "plain", "print"), (0, -0.12))


def shoes(random: Random) -> Garment:
    """A pair of sneakers from above."""
    gap = random.uniform(0.36, 0.42)
    pair = [_shoe(side, gap) for side in (-1, 1)]
    return Garment(
        tuple(part for shoe in pair for part in shoe.parts), tuple(line for shoe in pair for line in shoe.lines)
    )


def _shoe(side: int, gap: float) -> Garment:
    def at(*points: Point) -> Outline:
        return tuple((side * (gap + x), y) for x, y in points)

    sole = at((-0.1, -0.78), (0.14, -0.8), (0.31, -0.5), (0.3, -0.1), (0.24, 0.3), (0.22, 0.62), (0.06, 0.78),
              (-0.14, 0.74), (-0.24, 0.5), (-0.25, 0.1), (-0.28, -0.3), (-0.24, -0.6))  # fmt: skip
    upper = tuple((side * gap + (x - side * gap) * 0.86, y * 0.94) for x, y in sole)
    toe = at((-0.12, -0.7), (0.12, -0.72), (0.24, -0.46), (0.0, -0.36), (-0.2, -0.44))
    opening = at((-0.13, 0.16), (0.0, 0.06), (0.13, 0.16), (0.16, 0.46), (0.06, 0.62), (-0.08, 0.6), (-0.16, 0.44))
    tongue = at((-0.1, -0.34), (0.1, -0.36), (0.13, 0.2), (0.0, 0.24), (-0.12, 0.2))
    parts = (
        Part(sole, 0.1, folds=0, material="sole"),
        Part(upper, folds=5),
        Part(toe, 0.12, folds=0, material="plain"),
        Part(opening, -0.6, folds=0, material="trim"),
        Part(tongue, -0.1, folds=2, material="plain"),
    )
    laces = tuple(Line(at((-0.12, y), (0.12, y + 0.04)), 0.035, -0.75) for y in (-0.28, -0.16, -0.04, 0.08))
    seams = (Line(at((-0.14, -0.3), (-0.15, 0.16)), 0.008, 0.3), Line(at((0.13, -0.32), (0.16, 0.16)), 0.008, 0.3))
    return Garment(parts, (*laces, *seams))
