"""Cloth for the demo's drawings: colours, patterns, folds and grain, as Pillow images; knows no garment.

Noise is made from the caller's random numbers, never from the clock, so that a drawing is the same on every machine.
"""

from random import Random

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter

Size = tuple[int, int]
Colour = tuple[int, int, int]

COLOURS = {
    "red": "#b3202c", "orange": "#d9722b", "yellow": "#e3b92f", "green": "#3d7a4b", "olive": "#6b6b3c",
    "teal": "#2a8286", "blue": "#3a66a8", "navy": "#26304f", "purple": "#5d3a78", "pink": "#d58a9d", "brown": "#6f4e3b",
    "beige": "#cdb899", "grey": "#8a8c90", "black": "#2a2a2d", "white": "#e9e7e2",
}  # fmt: skip
DENIM = ("#4a6487", "#33486b", "#7d97b5", "#2b3750")


def rgb(paint: str) -> Colour:
    """The three bytes of a colour's name or hex code."""
    red, green, blue = ImageColor.getrgb(paint)[:3]
    return red, green, blue


def noise(random: Random, size: Size, grain: int, spread: int) -> Image.Image:
    """Smooth noise (L, 128 ± spread) whose blots are about ``grain`` pixels."""
    width, height = max(2, size[0] // grain + 2), max(2, size[1] // grain + 2)
    raw = Image.frombytes("L", (width, height), random.randbytes(width * height))
    flat = raw.point(lambda value: 128 + (value - 128) * spread // 128)
    return flat if grain == 1 and flat.size == size else flat.resize(size, Image.Resampling.BICUBIC)


def shaded(picture: Image.Image, light: Image.Image) -> Image.Image:
    """The RGB picture under the light (L): 128 leaves it as it is, 0 makes it black, 255 nearly twice as bright."""
    bands = []
    for band in picture.split():
        dark = ImageChops.multiply(band, light.point(lambda value: min(255, value * 2)))
        bright = light.point(lambda value: max(0, value - 128))
        bands.append(
            ImageChops.add(dark, ImageChops.multiply(ImageChops.add(band, Image.new("L", band.size, 60)), bright))
        )
    return Image.merge("RGB", bands)


def cloth(random: Random, size: Size, paint: Colour, pattern: str) -> Image.Image:
    """A piece of cloth with its pattern and the grain of its threads (RGB)."""
    picture = Image.new("RGB", size, paint)
    other = _partner(random, paint)
    if pattern in _PATTERNS:
        _PATTERNS[pattern](random, ImageDraw.Draw(picture), size, paint, other)
        if pattern == "plaid":
            picture = _crossed(random, size, paint, other)
    if pattern == "denim":
        worn = noise(random, size, 60, 60)
        picture = shaded(picture, worn.point(lambda value: 128 + (value - 110) // 2))
    if pattern == "knit":
        picture = shaded(picture, _ribs(size))
    return shaded(picture, noise(random, size, 1 if pattern != "denim" else 2, 12 if pattern != "denim" else 26))


def folds(random: Random, size: Size, count: int, slant: float) -> Image.Image:
    """Soft wrinkles (L around 128): pairs of a dark and a bright stroke, and the wide waves of cloth that lies."""
    width, height = size
    light = noise(random, size, max(24, min(size) // 4), 26)
    for blur, strength, share in ((7.0, 46, 1.0), (2.6, 34, 0.8)):
        layer = Image.new("L", size, 128)
        pen = ImageDraw.Draw(layer)
        for _ in range(int(count * share)):
            x, y = random.uniform(0, width), random.uniform(0, height)
            length, lean = random.uniform(0.15, 0.55) * height, slant + random.gauss(0, 0.35)
            bend = random.uniform(-0.1, 0.1) * length
            points = [(x, y), (x + lean * length / 2 + bend, y + length / 2), (x + lean * length, y + length)]
            depth = random.randint(strength // 2, strength)
            pen.line([(a + 4, b) for a, b in points], fill=128 + depth * 2 // 3, width=int(blur * 1.6))
            pen.line(points, fill=128 - depth, width=int(blur * 1.6))
        light = ImageChops.add(light, layer.filter(ImageFilter.GaussianBlur(blur)), offset=-128)
    return light


def _partner(random: Random, paint: Colour) -> Colour:
    """A second colour that is told apart from the first."""
    while True:
        other = rgb(random.choice(list(COLOURS.values())))
        if sum(abs(a - b) for a, b in zip(paint, other, strict=True)) > 160:
            return other


def _stripes(random: Random, pen: ImageDraw.ImageDraw, size: Size, paint: Colour, other: Colour) -> None:
    step = random.randint(14, 34)
    thick = random.randint(step // 4, step // 2)
    for y in range(0, size[1], step):
        pen.rectangle((0, y, size[0], y + thick), fill=other)


def _pinstripes(random: Random, pen: ImageDraw.ImageDraw, size: Size, paint: Colour, other: Colour) -> None:
    for x in range(0, size[0], random.randint(8, 14)):
        pen.line((x, 0, x, size[1]), fill=other, width=1)


def _dots(random: Random, pen: ImageDraw.ImageDraw, size: Size, paint: Colour, other: Colour) -> None:
    step, radius = random.randint(18, 30), random.randint(3, 6)
    for row, y in enumerate(range(0, size[1], step)):
        for x in range(row % 2 * step // 2, size[0], step):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=other)


def _flowers(random: Random, pen: ImageDraw.ImageDraw, size: Size, paint: Colour, other: Colour) -> None:
    third = _partner(random, paint)
    for _ in range(size[0] * size[1] // 900):
        x, y, radius = random.uniform(0, size[0]), random.uniform(0, size[1]), random.uniform(3, 7)
        fill = random.choice((other, other, third))
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            a, b = x + dx * radius * 0.8, y + dy * radius * 0.8
            pen.ellipse((a - radius * 0.7, b - radius * 0.7, a + radius * 0.7, b + radius * 0.7), fill=fill)
        pen.ellipse((x - radius * 0.4, y - radius * 0.4, x + radius * 0.4, y + radius * 0.4), fill=paint)


def _crossed(random: Random, size: Size, paint: Colour, other: Colour) -> Image.Image:
    """Plaid: see-through stripes both ways, so that crossings are darker."""
    picture = Image.new("RGB", size, paint)
    step = random.randint(30, 52)
    accent = _partner(random, other)
    for mode in (0, 1):
        mask = Image.new("L", size, 0)
        pen = ImageDraw.Draw(mask)
        thin = Image.new("L", size, 0)
        fine = ImageDraw.Draw(thin)
        for at in range(0, max(size), step):
            near, far, hair = at, at + step * 2 // 5, at + step * 7 // 10
            pen.rectangle((near, 0, far, size[1]) if mode else (0, near, size[0], far), fill=120)
            fine.line((hair, 0, hair, size[1]) if mode else (0, hair, size[0], hair), fill=150, width=2)
        picture.paste(other, mask=mask)
        picture.paste(accent, mask=thin)
    return picture


def _ribs(size: Size) -> Image.Image:
    row = Image.new("L", (6, 1))
    row.putdata((112, 122, 134, 140, 132, 120))
    ribs = Image.new("L", size)
    tile = row.resize((6, size[1]))
    for x in range(0, size[0], 6):
        ribs.paste(tile, (x, 0))
    return ribs


_PATTERNS = {"stripes": _stripes, "pinstripes": _pinstripes, "dots": _dots, "flowers": _flowers, "plaid": _pinstripes}
