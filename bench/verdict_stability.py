"""How much scores and verdicts of one picture move when it comes in again: recompressed, resized, mirrored, cropped.

    python -m bench.verdict_stability [--data ../shared/data/clothing] [--keep FOLDER] [--sample 200]

The photos that score 0.1 or more in Porn, Hentai or Sexy, where verdicts are decided, and a random sample of all. Each
is changed as a shop or a phone might change it and goes through the whole line again; views are scored one by one, so
that one run compares 1, 2 and 4 of them. A flip is a verdict that differs from that on the unchanged picture by the
same model. `--keep`: scores are kept there between runs.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench import moderation_photos as source
from bench.moderation_photos import CLASSES, Floats, Looker, Photo, averaged, encoded, kept, original
from bench.moderation_policies import POLICIES, verdicts
from bench.system import SHARED
from ml.predictor import Predictor
from ml.views import VIEWS

NEAR = 0.1
ALARMING = [CLASSES.index(name) for name in ("Porn", "Hentai", "Sexy")]
COUNTS = (1, 2, 4)
TIMED, ROUNDS = 96, 5
Change = Callable[[Image.Image], bytes]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=SHARED / "data" / "clothing")
    arguments.add_argument("--keep", type=Path)
    arguments.add_argument("--sample", type=int, default=200)
    options = arguments.parse_args()
    started = time.perf_counter()
    photos = source.photos(options.data)
    looker = Looker()
    base = kept(options.keep, "photos", lambda: {"scores": looker.scores(map(_as_it_came, photos))})["scores"]
    near = np.nonzero(base[:, 0, ALARMING].max(1) >= NEAR)[0]
    sample = np.sort(np.random.default_rng(1).choice(len(photos), min(options.sample, len(photos)), replace=False))
    chosen = np.union1d(near, sample)
    found = {}
    for name, change in CHANGES.items():
        digest = hashlib.sha256(f"{name} {chosen.tolist()}".encode()).hexdigest()[:12]
        pictures = [photos[at] for at in chosen]
        found[name] = kept(options.keep, f"changed-{digest}", partial(_changed, looker, pictures, change))["scores"]
    console = Console(highlight=False, width=120)
    console.print(
        f"{len(near)} photos of {len(photos)} score {NEAR} or more; with a random {len(sample)}: {len(chosen)} photos,"
        f" {len(CHANGES)} changes; {looker.backend}; {time.perf_counter() - started:.0f} s"
    )
    for title, some in (("photos that score 0.1 or more", near), ("a random sample", sample)):
        at = np.searchsorted(chosen, some)
        console.print(moves(title, base[some], {name: scores[at] for name, scores in found.items()}))
        console.print(flips(title, base[some], {name: scores[at] for name, scores in found.items()}))
    console.print(highest(base[chosen], found))
    console.print(cost([photos[at] for at in sample[:TIMED]], base[sample[:TIMED]]))


def _as_it_came(photo: Photo) -> Callable[[], bytes]:
    return lambda: source.working_copy(photo.path.read_bytes())


def _changed(looker: Looker, photos: Sequence[Photo], change: Change) -> dict[str, Floats]:
    def made(photo: Photo) -> Callable[[], bytes]:
        return lambda: source.working_copy(change(original(photo)))

    return {"scores": looker.scores(map(made, photos))}


def _exactly(image: Image.Image) -> bytes:
    """These pixels, in the format that is quickest written and read."""
    return encoded(image, "BMP")


def _jpeg(quality: int) -> Change:
    return lambda image: encoded(image, "JPEG", quality=quality)


def _resized(pixels: int, how: Image.Resampling) -> Change:
    return lambda image: _exactly(image.resize((image.width + pixels, image.height + pixels), how))


def _cropped(share: float) -> Change:
    def crop(image: Image.Image) -> bytes:
        x, y = round(image.width * share / 2), round(image.height * share / 2)
        return _exactly(image.crop((x, y, image.width - x, image.height - y)))

    return crop


_HOW = Image.Resampling
CHANGES: dict[str, Change] = {
    **{f"JPEG {quality}": _jpeg(quality) for quality in (95, 85, 70, 50)},
    "PNG": lambda image: encoded(image, "PNG", compress_level=1),
    "WebP 80": lambda image: encoded(image, "WEBP", quality=80),
    "-1 pixel, bilinear": _resized(-1, _HOW.BILINEAR),
    "+2 pixels, bicubic": _resized(2, _HOW.BICUBIC),
    "-4 pixels, box": _resized(-4, _HOW.BOX),
    "+8 pixels, Lanczos": _resized(8, _HOW.LANCZOS),
    "mirrored": lambda image: _exactly(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "1 % cropped": _cropped(0.01),
    "2 % cropped": _cropped(0.02),
}


def moves(title: str, base: Floats, found: Mapping[str, Floats]) -> Table:
    """How far the class that moves most moves, per change: mean, 95th percentile, largest; for 1, 2 and 4 views."""
    table = Table("change", title=f"Moves of the scores, {title} (n = {len(base)}): mean, 95 %, max", box=None)
    for count in COUNTS:
        table.add_column(f"{count} view{'s' * (count > 1)}", justify="right")
    rows = {
        name: [np.abs(averaged(scores, n) - averaged(base, n)).max(1) for n in COUNTS] for name, scores in found.items()
    }
    rows["all"] = [np.concatenate(column) for column in zip(*rows.values(), strict=True)]
    for name, columns in rows.items():
        shown = (f"{m.mean():.3f} {np.quantile(m, 0.95):.3f} {m.max():.3f}" for m in columns)
        table.add_row(name, *shown, end_section=name == list(found)[-1])
    return table


def flips(title: str, base: Floats, found: Mapping[str, Floats]) -> Table:
    """Share of verdicts that are others than those on the unchanged picture, by policy and number of views."""
    table = Table("change", title=f"Verdicts that flip, {title} (n = {len(base)})", box=None)
    kinds = [(policy, count) for policy in POLICIES for count in COUNTS]
    for policy, count in kinds:
        table.add_column(f"{policy}, {count}", justify="right")
    before = {kind: verdicts(kind[0], averaged(base, kind[1])) for kind in kinds}
    rows = {
        name: [verdicts(policy, averaged(scores, count)) != before[policy, count] for policy, count in kinds]
        for name, scores in found.items()
    }
    rows["all"] = [np.concatenate(column) for column in zip(*rows.values(), strict=True)]
    for name, columns in rows.items():
        shown = (f"{100 * flipped.mean():.1f} %" for flipped in columns)
        table.add_row(name, *shown, end_section=name == list(found)[-1])
    return table


def highest(base: Floats, found: Mapping[str, Floats]) -> Table:
    """The highest scores that any version of any of these photos got: what a rejecting threshold must stay above."""
    everything = np.concatenate([base, *found.values()])
    names = [*(CLASSES[at] for at in ALARMING), "Porn + Hentai"]
    table = Table("views", *names, "looked at again", title="The highest scores of any of these", box=None)
    again = (everything[:, 0].max(1) < source.SURE).mean()
    for count in COUNTS:
        scores = averaged(everything, count)
        tops = [*(scores[:, at].max() for at in ALARMING), scores[:, ALARMING[:2]].sum(1).max()]
        table.add_row(str(count), *(f"{top:.3f}" for top in tops), f"{100 * again:.0f} %" if count > 1 else "")
    return table


def cost(photos: Sequence[Photo], base: Floats) -> Table:
    """CPU time a picture of the predictor as production runs it, and how far its scores are from those used above."""
    predictors = {count: Predictor([source.model(views=count)]) for count in COUNTS}
    copies = [_as_it_came(photo)() for photo in photos]
    prepared = {count: [predictor.prepare(copy) for copy in copies] for count, predictor in predictors.items()}
    spent: dict[int, list[float]] = {count: [] for count in COUNTS}
    gaps = dict.fromkeys(COUNTS, 0.0)
    for _ in range(ROUNDS):
        for count, predictor in predictors.items():
            began = time.process_time()
            results = predictor.predict(prepared[count])
            spent[count].append((time.process_time() - began) / len(photos) * 1000)
            (ref,) = predictor.models
            rows = np.stack([result[ref].values for result in results])
            gaps[count] = float(np.abs(rows - averaged(base, count)).max())
    title = f"CPU time of the moderation model, {len(photos)} random photos, {ROUNDS} rounds"
    table = Table("views", "ms a picture: median", "min", "max", "gap to the scores above", title=title, box=None)
    for count, times in spent.items():
        table.add_row(str(count), *(f"{f(times):.2f}" for f in (np.median, min, max)), f"{gaps[count]:.1e}")
    return table


if __name__ == "__main__":
    assert len(VIEWS) == max(COUNTS)
    main()
