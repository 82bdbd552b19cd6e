"""A drawn garment as a photo of it: what it lies on, its shadow, the light of a room; knows no kinds of garment."""

import math
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from worker.drawing_cloth import Colour, Size, cloth, folds, noise, rgb, shaded
from worker.drawing_parts import Garment, Line, Outline, Part

SIZE: Size = (480, 640)
MARK = "drawing"
_UNIT = 232  # pixels of 1.0
_SOLE = (228, 226, 220)
_WOOD = ("#b98d57", "#c9a46c", "#8d6a48", "#d8b98a", "#6b4a35")
_SHEETS = ("#e8e4dc", "#d9d4cf", "#a8122c", "#8f2453", "#c9c4b4", "#3a3d46", "#7c8795")


def picture(random: Random, garment: Garment, paint: str, pattern: str) -> Image.Image:
    """The garment in that colour and pattern, as if photographed from above (RGB, 480 × 640 pixels)."""
    things = _laid(random, _dressed(random, garment, rgb(paint), pattern))
    ground = _ground(random, rgb(paint))
    mask = things.getchannel("A")
    reach = random.uniform(5, 9)
    shadow = ImageChops.offset(mask, round(reach), round(reach)).filter(ImageFilter.GaussianBlur(reach))
    ground = shaded(ground, shadow.point(lambda value: 128 - value // 4))
    ground.paste(things.convert("RGB"), mask=mask)
    lit = shaded(ground, _light(random))
    grain = shaded(lit, noise(random, SIZE, 2, 5)).filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.7)))
    return _marked(grain)


def _dressed(random: Random, garment: Garment, paint: Colour, pattern: str) -> Image.Image:
    """The garment alone, flat and upright (RGBA)."""
    canvas = Image.new("RGBA", SIZE, (*paint, 0))
    dark = tuple(value * 5 // 8 for value in paint)
    trim = paint if random.random() < 0.6 else (dark[0], dark[1], dark[2])
    woven = {
        "cloth": (paint, pattern),
        "plain": (trim, "denim" if pattern == "denim" else "plain"),
        "trim": (trim, "plain"),
        "sole": (_SOLE, "plain"),
    }
    used = dict.fromkeys(part.material for part in garment.parts)
    textures = {material: cloth(random, SIZE, *woven[material]) for material in used}
    for part in garment.parts:
        _sew(random, canvas, part, textures[part.material])
        if pattern == "print" and garment.print_at and part is garment.parts[0 if len(garment.parts) < 3 else -1]:
            _print(random, canvas, garment.print_at, paint)
    _stitch(canvas, tuple(line for line in garment.lines if line.depth > 0), (20, 18, 18))
    _stitch(canvas, tuple(line for line in garment.lines if line.depth < 0), (240, 238, 232))
    for x, y in garment.buttons:
        _button(canvas, _at(x), _at(y, 1), paint)
    return canvas


def _sew(random: Random, canvas: Image.Image, part: Part, texture: Image.Image) -> None:
    """Lay one part over those before it: with folds, rounded edges, and a narrow shadow on what lies below."""
    mask = _mask(part.outline, part.smooth)
    box = mask.getbbox()
    if box is None:
        return
    box = (max(0, box[0] - 12), max(0, box[1] - 12), min(SIZE[0], box[2] + 12), min(SIZE[1], box[3] + 12))
    mask, size = mask.crop(box), (box[2] - box[0], box[3] - box[1])
    below = canvas.crop(box)
    soft = mask.filter(ImageFilter.GaussianBlur(5))
    alpha = below.getchannel("A")
    shadowed = shaded(below.convert("RGB"), soft.point(lambda value: 128 - value // 5))
    round_edge = ImageChops.add(
        folds(random, size, part.folds, part.slant), soft.point(lambda value: value // 4), offset=-58
    )
    light = round_edge.point(lambda value: max(0, min(255, int(value * (1 + part.shade)))))
    shadowed.paste(shaded(texture.crop(box), light), mask=mask)
    shadowed.putalpha(ImageChops.lighter(alpha, mask))
    canvas.paste(shadowed, box)


def _stitch(canvas: Image.Image, lines: tuple[Line, ...], ink: Colour) -> None:
    """Draw lines onto the cloth and nowhere beside it, as dark or as bright as each is deep."""
    layer = Image.new("L", (SIZE[0] * 2, SIZE[1] * 2), 0)
    pen = ImageDraw.Draw(layer)
    for line in lines:
        points = [(2 * _at(x), 2 * _at(y, 1)) for x, y in line.points]
        width = max(2, round(line.width * 2 * _UNIT))
        pen.line(points, fill=round(255 * abs(line.depth)), width=width, joint="curve")
    soft = layer.resize(SIZE, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.6))
    _inked(canvas, soft, ink)


def _inked(canvas: Image.Image, mask: Image.Image, ink: Colour) -> None:
    alpha = canvas.getchannel("A")
    canvas.paste((*ink, 255), mask=ImageChops.multiply(mask, alpha))
    canvas.putalpha(alpha)


def _button(canvas: Image.Image, x: float, y: float, paint: Colour) -> None:
    pen = ImageDraw.Draw(canvas)
    bright = sum(paint) > 380
    pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(90, 84, 78, 255) if bright else (214, 210, 202, 255))
    pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill=(40, 38, 36, 255))


def _print(random: Random, canvas: Image.Image, at: tuple[float, float], paint: Colour) -> None:
    """A motif on the chest: a word, or a disc with bars."""
    ink = (236, 232, 224) if sum(paint) < 400 else random.choice(((40, 42, 60), (160, 40, 44), (30, 90, 110)))
    layer = Image.new("L", SIZE, 0)
    pen = ImageDraw.Draw(layer)
    x, y = _at(at[0]), _at(at[1], 1)
    if random.random() < 0.5:
        for row, word in enumerate(random.sample(("TAG", "MILL", "SUMMER", "1987", "OCEAN", "CITY", "TEAM"), 2)):
            pen.text((x, y - 30 + 42 * row), word, fill=210, font_size=random.randint(30, 44), anchor="mm")
    else:
        radius = random.randint(34, 54)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=210, width=6)
        for step in range(-radius + 14, radius - 6, 14):
            reach = math.sqrt(radius**2 - step**2) - 8
            pen.line((x - reach, y + step, x + reach, y + step), fill=200, width=4)
    _inked(canvas, layer, ink)


def _laid(random: Random, flat: Image.Image) -> Image.Image:
    """Turned and shifted a little, and pulled out of true as nobody lays cloth exactly."""
    columns, rows = 3, 4
    width, height = SIZE
    angle, zoom = math.radians(random.gauss(0, 3.5)), 1 / random.uniform(1.0, 1.12)
    turn_x, turn_y = zoom * math.cos(angle), zoom * math.sin(angle)
    shift = (random.uniform(-10, 10), random.uniform(-14, 14))

    def source(column: int, row: int) -> tuple[float, float]:
        """Where in the flat picture this node of the result comes from."""
        x, y = (column / columns - 0.5) * width + shift[0], (row / rows - 0.5) * height + shift[1]
        pull = (random.gauss(0, 7), random.gauss(0, 7)) if 0 < column < columns and 0 < row < rows else (0.0, 0.0)
        return width / 2 + x * turn_x - y * turn_y + pull[0], height / 2 + x * turn_y + y * turn_x + pull[1]

    nodes = {(c, r): source(c, r) for c in range(columns + 1) for r in range(rows + 1)}
    mesh = []
    for c in range(columns):
        for r in range(rows):
            box = (c * width // columns, r * height // rows, (c + 1) * width // columns, (r + 1) * height // rows)
            corners = (nodes[c, r], nodes[c, r + 1], nodes[c + 1, r + 1], nodes[c + 1, r])
            mesh.append((box, tuple(value for corner in corners for value in corner)))
    return flat.transform(SIZE, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _ground(random: Random, paint: Colour) -> Image.Image:
    """A wooden floor, a sheet or a carpet, in a colour that the garment stands out from."""
    kind = random.choice(("wood", "sheet", "sheet", "carpet"))
    choices = [rgb(c) for c in (_WOOD if kind == "wood" else _SHEETS)]
    apart = [c for c in choices if sum(abs(a - b) for a, b in zip(c, paint, strict=True)) > 150]
    colour = random.choice(apart or choices)
    flat = Image.new("RGB", SIZE, colour)
    if kind == "wood":
        return _planks(random, flat)
    if kind == "carpet":
        return shaded(flat, ImageChops.add(noise(random, SIZE, 3, 60), noise(random, SIZE, 40, 16), offset=-128))
    return shaded(
        flat, folds(random, SIZE, 7, random.uniform(-0.8, 0.8)).point(lambda value: 128 + (value - 128) * 2 // 3)
    )


def _planks(random: Random, flat: Image.Image) -> Image.Image:
    width, height = SIZE
    light = Image.new("L", SIZE, 128)
    step, x = random.randint(50, 90), 0
    while x < width:
        tone = random.randint(-14, 14)
        grain = noise(random, (max(8, step // 3), height), 8, 26).resize((step, height))
        light.paste(grain.point(lambda value, tone=tone: value + tone), (x, 0))
        pen = ImageDraw.Draw(light)
        pen.line((x, 0, x, height), fill=70, width=2)
        y = random.randint(0, height)
        pen.line((x, y, x + step, y), fill=80, width=2)
        x += step
    turned = light if random.random() < 0.6 else light.transpose(Image.Transpose.ROTATE_90).resize(SIZE)
    return shaded(flat, turned)


def _light(random: Random) -> Image.Image:
    """A window to one side: brighter there, darker in the corners."""
    ramp = Image.linear_gradient("L").rotate(random.choice((0, 90, 180, 270)) + random.randint(-30, 30), fillcolor=128)
    side = ramp.resize(SIZE).filter(ImageFilter.GaussianBlur(40))
    return side.point(lambda value: 128 + (value - 128) // 6)


def _marked(photo: Image.Image) -> Image.Image:
    """With the word in a corner: nobody should take it for a photo."""
    pen = ImageDraw.Draw(photo)
    pen.text((10, SIZE[1] - 10), MARK, fill="white", stroke_fill="#303030", stroke_width=1, font_size=17, anchor="ls")
    return photo


def _mask(outline: Outline, smooth: int) -> Image.Image:
    points = list(outline)
    for _ in range(smooth):
        # Chaikin: each corner is cut; a point given twice stays sharp.
        points = [
            (a * (1 - t) + c * t, b * (1 - t) + d * t)
            for (a, b), (c, d) in zip(points, [*points[1:], points[0]], strict=True)
            for t in (0.25, 0.75)
        ]
    large = Image.new("L", (SIZE[0] * 2, SIZE[1] * 2), 0)
    ImageDraw.Draw(large).polygon([(2 * _at(x), 2 * _at(y, 1)) for x, y in points], fill=255)
    return large.resize(SIZE, Image.Resampling.BOX)


def _at(value: float, axis: int = 0) -> float:
    return SIZE[axis] / 2 + value * _UNIT
