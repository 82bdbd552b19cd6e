"""Pictures that the demo draws itself where there are no photos: garments in many colours, marked as such."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {
    "red": "#c62828", "orange": "#ef6c00", "yellow": "#f9c80e", "green": "#2e7d32", "teal": "#00897b",
    "blue": "#1565c0", "purple": "#6a1b9a", "pink": "#d81b60", "brown": "#6d4c41", "grey": "#757575",
    "black": "#212121", "white": "#fafafa",
}  # fmt: skip
_SHIRT = ((30, 20), (42, 15), (50, 22), (58, 15), (70, 20), (90, 40), (78, 52), (70, 44), (70, 88), (30, 88), (30, 44),
          (22, 52), (10, 40))  # fmt: skip
_TROUSERS = ((32, 10), (68, 10), (74, 92), (56, 92), (50, 38), (44, 92), (26, 92))
_DRESS = ((40, 8), (46, 16), (54, 16), (60, 8), (62, 40), (82, 92), (18, 92), (38, 40))
_HAT = ((30, 60), (34, 28), (66, 28), (70, 60), (94, 66), (94, 72), (6, 72), (6, 66))
_SHOE = ((10, 40), (34, 36), (44, 52), (84, 60), (92, 72), (92, 80), (10, 80))
SHAPES = {"shirt": _SHIRT, "trousers": _TROUSERS, "dress": _DRESS, "hat": _HAT, "shoe": _SHOE}
SIDE = 480


def draw(folder: Path, count: int) -> list[Path]:
    """Draw up to ``count`` PNGs of 480 × 480 pixels into the folder; there are 60 different ones at most."""
    folder.mkdir(parents=True, exist_ok=True)
    return list(islice(_drawn(folder), count))


def _drawn(folder: Path) -> Iterator[Path]:
    for number, (colour, paint) in enumerate(COLOURS.items()):
        for shape, outline in SHAPES.items():
            path = folder / f"drawing-{colour}-{shape}.png"
            _one(outline, paint, shade=200 + 4 * number).save(path)
            yield path


def _one(outline: tuple[tuple[int, int], ...], paint: str, *, shade: int) -> Image.Image:
    # Drawn large and shrunk: edges are smooth without a drawing library.
    large = Image.new("RGB", (2 * SIDE, 2 * SIDE), (shade, shade, min(255, shade + 8)))
    pen = ImageDraw.Draw(large)
    scale = 2 * SIDE / 100
    pen.polygon([(x * scale, y * scale) for x, y in outline], fill=paint, outline="#333333", width=10)
    pen.text((24, 2 * SIDE - 60), "drawing", fill="#555555", font_size=36)
    return large.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
