"""Shirts and dresses that the demo can draw; knows no colours and draws nothing."""

from random import Random

from worker.drawing_parts import (
    Garment,
    Line,
    Part,
    armhole,
    both,
    cuff_of,
    edges,
    flipped,
    inset,
    long_sleeve,
    mirrored,
    nape,
    neckline,
    short_sleeve,
    torso,
)


def t_shirt(random: Random) -> Garment:
    """Short sleeves, round neck."""
    length, width = random.uniform(0.72, 0.86), random.uniform(0.50, 0.58)
    body = torso(width, length, neck=0.2, drop=random.uniform(-0.56, -0.5))
    sleeve = short_sleeve(width, random.uniform(-0.02, 0.06))
    hem = Line(((-width, length - 0.05), (0, length - 0.03), (width, length - 0.05)), 0.006, 0.25)
    cuff = Line((inset(sleeve.outline[3], 0.05), inset(sleeve.outline[5], 0.05)), 0.006, 0.25)
    return Garment(
        (nape(0.2), sleeve, flipped(sleeve), body),
        (hem, *both(cuff), *both(armhole(width)), neckline(0.2, body)),
        patterns=("plain", "plain", "stripes", "print", "print"),
        print_at=(0, 0.0),
    )


def polo(random: Random) -> Garment:
    """A T-shirt with a collar and a short placket."""
    shirt = t_shirt(random)
    collar = Part(((0.02, -0.55), (0.13, -0.44), (0.25, -0.62), (0.19, -0.78), (0.1, -0.78)), 0.05, smooth=1, folds=0,
                  material="plain")  # fmt: skip
    placket = Part(((-0.045, -0.56), (0.045, -0.56), (0.045, -0.18), (-0.045, -0.18)), -0.05, smooth=0, folds=0)
    return Garment(
        (*shirt.parts, placket, collar, flipped(collar)),
        (*shirt.lines[:-1], *edges(placket), *edges(collar), *edges(flipped(collar))),
        ((0, -0.45), (0, -0.34), (0, -0.24)),
        ("plain", "plain", "stripes"),
    )


def longsleeve(random: Random) -> Garment:
    """A pullover: long sleeves, round neck."""
    length, width = random.uniform(0.66, 0.8), random.uniform(0.46, 0.54)
    body = torso(width, length, neck=0.18, drop=random.uniform(-0.6, -0.54))
    sleeve = long_sleeve(width, random.uniform(0.5, 0.7), random.uniform(0.8, 0.9))
    cuff = cuff_of(sleeve)
    end, narrow = length + 0.02, width - 0.03
    rib = Part(
        ((-width, length - 0.09), (width, length - 0.09), (narrow, end), (-narrow, end)), -0.06, 0, 0, "plain", 0
    )
    return Garment(
        (nape(0.18), sleeve, flipped(sleeve), cuff, flipped(cuff), body, rib),
        (*both(armhole(width)), neckline(0.18, body), *edges(rib)[:1]),
        patterns=("plain", "knit", "knit", "stripes"),
    )


def shirt(random: Random) -> Garment:
    """A buttoned shirt with a collar and long sleeves."""
    length, width = random.uniform(0.74, 0.86), random.uniform(0.46, 0.52)
    body = torso(width, length, neck=0.14, drop=-0.6, curved=True)
    sleeve = long_sleeve(width, random.uniform(0.5, 0.7), random.uniform(0.78, 0.86))
    cuff = cuff_of(sleeve)
    collar = Part(((0.005, -0.62), (0.1, -0.46), (0.23, -0.66), (0.15, -0.82), (0.08, -0.8)), 0.06, smooth=0, folds=0)
    placket = Part(((-0.04, -0.62), (0.04, -0.62), (0.04, length - 0.0), (-0.04, length - 0.0)), 0.02, 0, 1, "cloth", 0)
    pocket = Line(((0.13, -0.3), (0.13, -0.08), (0.22, -0.04), (0.31, -0.08), (0.31, -0.3), (0.13, -0.3)), 0.006, 0.3)
    buttons = tuple((0.0, -0.5 + n * (length + 0.4) / 6) for n in range(7))
    return Garment(
        (nape(0.16), sleeve, flipped(sleeve), cuff, flipped(cuff), body, placket, collar, flipped(collar)),
        (*both(armhole(width)), *edges(placket), *edges(collar), *edges(flipped(collar)), pocket),
        buttons,
        ("plaid", "plaid", "plaid", "pinstripes", "plain"),
    )


def undershirt(random: Random) -> Garment:
    """A tank top: wide armholes, low neck."""
    length, width = random.uniform(0.78, 0.92), random.uniform(0.42, 0.5)
    body = Part(
        mirrored(
            ((0, -0.38), (0.1, -0.42), (0.19, -0.58), (0.22, -0.86), (0.33, -0.86), (0.32, -0.55), (0.38, -0.32),
             (width, -0.2), (width - 0.02, 0.3), (width + 0.01, length), (width, length), (0, length + 0.02))
        )
    )  # fmt: skip
    back = Part(
        mirrored(((0, -0.6), (0.14, -0.65), (0.2, -0.86), (0.32, -0.86), (0.3, -0.4), (0, -0.3))), -0.35, folds=0
    )
    rim = body.outline[:5]
    hole = body.outline[4:9]
    hem = Line(((-width, length - 0.04), (0, length - 0.02), (width, length - 0.04)), 0.006, 0.25)
    return Garment(
        (back, body),
        (hem, *both(Line(rim, 0.02, 0.12)), *both(Line(hole, 0.02, 0.12))),
        patterns=("plain", "plain", "flowers", "print"),
        print_at=(0, 0.15),
    )


def dress(random: Random) -> Garment:
    """Sleeveless or with cap sleeves, a waist and a wide skirt."""
    length, flare, waist = random.uniform(1.0, 1.12), random.uniform(0.58, 0.74), random.uniform(0.27, 0.32)
    bodice = Part(
        mirrored(
            ((0, -0.72), (0.11, -0.78), (0.17, -1.0), (0.3, -1.0), (0.31, -0.78), (0.37, -0.6), (waist, -0.16),
             (waist, -0.16), (0, -0.14))
        )
    )  # fmt: skip
    back = Part(mirrored(((0, -0.9), (0.17, -1.0), (0.2, -0.7), (0, -0.6))), -0.35, folds=0)
    skirt_part = Part(
        mirrored(
            ((0, -0.17), (waist, -0.17), (waist, -0.17), ((waist + flare) / 2 + 0.04, 0.35), (flare, length - 0.06),
             (flare, length - 0.06), (flare * 0.6, length + 0.02), (0, length + 0.04))
        ),
        folds=13,
    )  # fmt: skip
    band = Part(((-waist, -0.2), (waist, -0.2), (waist + 0.01, -0.12), (-waist - 0.01, -0.12)), -0.12, 0, 0, "plain", 0)
    return Garment(
        (back, skirt_part, bodice, band),
        (
            *edges(band),
            Line(((-flare * 0.95, length - 0.1), (0, length - 0.02), (flare * 0.95, length - 0.1)), 0.006, 0.2),
        ),
        patterns=("plain", "flowers", "flowers", "dots"),
    )
