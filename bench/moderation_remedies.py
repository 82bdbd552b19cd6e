"""What can be done about false alarms on goods: thresholds, calibration, tags, an allow bank; what each would save.

    python -m bench.moderation_remedies [--data ../shared/data/clothing] [--keep FOLDER]

Nothing here says what a remedy costs in pictures that ought to be stopped: there are none among these photos.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torchvision.transforms.v2 import functional as TF

from bench import moderation_photos as source
from bench.moderation_accuracy import alarms, scored
from bench.moderation_photos import CLASSES, Bools, Floats, Looker, Photo, ahead, averaged, halves, kept, percent
from bench.system import SHARED
from bench.verdict_stability import CHANGES
from ml import artifact, facts, images
from ml.predictor import Predictor, Prepared
from ml.shipped_models import FOLDER
from ml.views import View
from ml.working_copy import decode

PORN, HENTAI = CLASSES.index("Porn"), CLASSES.index("Hentai")
BUDGETS = (0.03, 0.02, 0.015, 0.01)
SPLITS = 500
WITHIN = 31
CONFIDENT = 0.9
Bytes = npt.NDArray[np.uint8]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=SHARED / "data" / "clothing")
    arguments.add_argument("--keep", type=Path)
    options = arguments.parse_args()
    started = time.perf_counter()
    photos = source.photos(options.data)
    scores = scored(Looker(), photos, options.keep)
    hashes = kept(options.keep, "facts", partial(source.found_facts, photos))
    wrong = np.nonzero(alarms("v1", averaged(scores, 1)))[0]
    again = kept(options.keep, "hashes-changed", partial(changed, [photos[at] for at in wrong]))
    tagger = artifact.load(FOLDER / "clothing")
    paths = {
        "training photos, which it learnt from": [photo.path for photo in photos],
        "validation photos": [photo.path for photo in source.photos(options.data, "validation")],
        "pictures without clothes": sorted((SHARED / "data" / "odd-images").iterdir()),
    }
    told = {
        name: kept(options.keep, f"tags-{at}", partial(tagged, tagger, some))
        for at, (name, some) in enumerate(paths.items())
    }
    console = Console(highlight=False, width=110)
    console.print(f"{len(photos)} photos, {len(wrong)} false alarms under v1; {time.perf_counter() - started:.0f} s")
    console.print(curve(scores))
    console.print(chosen_on_halves(photos, scores))
    console.print(shifted(averaged(scores, 1)))
    looks = kept(options.keep, "looks", partial(other_looks, photos))
    for name, rows in looks.items():
        console.print(f"{name}: {alarms('v1', rows).sum()} photos not approved by v1, {alarms('v2', rows).sum()} by v2")
    console.print(allow_bank(hashes, wrong, again))
    console.print(confidence({name: found["best"] for name, found in told.items()}))
    console.print(tag_rule(averaged(scores, 1), next(iter(told.values()))["best"]))


def explicit(scores: Floats) -> Floats:
    return scores[:, PORN] + scores[:, HENTAI]


def curve(scores: Floats) -> Table:
    title = "Photos that reach a threshold"
    at = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    table = Table("from", *(f"{t:g}" for t in at), title=title, title_justify="left", box=None)
    for count in (1, 2, 4):
        of = averaged(scores, count)
        for name, column in (("Porn", of[:, PORN]), ("Porn + Hentai", explicit(of))):
            shown = (f"{(column >= t).sum()}" for t in at)
            table.add_row(f"{name}, {count} view{'s' * (count > 1)}", *shown)
    return table


def chosen_on_halves(photos: Sequence[Photo], scores: Floats, seed: int = 0) -> Table:
    """The least threshold of Porn + Hentai that keeps a half of the people within the budget, on the other half."""
    senders = [photo.sender for photo in photos]
    random = np.random.default_rng(seed)
    splits = [halves(senders, random) for _ in range(SPLITS)]
    title = f"Threshold of Porn + Hentai chosen on half of the people, checked on the other: {SPLITS} splits"
    heads = ("budget", "views", "threshold: median (5 – 95 %)", "share on the other half: median (5 – 95 %)", "kept to")
    table = Table(*heads, title=title, title_justify="left", box=None)
    for budget in BUDGETS:
        for count in (1, 2):
            column = explicit(averaged(scores, count))
            found = np.array([_choose(column, half, budget) for half in splits])
            low, middle, high = np.quantile(found, (0.05, 0.5, 0.95), axis=0)
            shares = f"{100 * middle[1]:.2f} % ({100 * low[1]:.2f} – {100 * high[1]:.2f})"
            within = percent((found[:, 1] <= budget).sum(), SPLITS)
            table.add_row(
                f"{100 * budget:g} %", str(count), f"{middle[0]:.2f} ({low[0]:.2f} – {high[0]:.2f})", shares, within
            )
    return table


def _choose(column: Floats, half: Bools, budget: float) -> tuple[float, float]:
    ordered = np.sort(column[half])[::-1]
    threshold = ordered[int(budget * len(ordered))] + 1e-6  # just above the first that is one too many
    return float(threshold), float((column[~half] >= threshold).mean())


def shifted(scores: Floats) -> str:
    """Calibration from negatives alone can move the log-odds, and that is a threshold under another name."""
    odds = np.clip(explicit(scores).astype(np.float64), 1e-12, 1 - 1e-12)
    logit = np.log(odds / (1 - odds))
    for wanted in (0.5, 0.7):
        shift = np.log(wanted / (1 - wanted)) - np.log(0.3 / 0.7)
        assert ((logit - shift >= np.log(0.3 / 0.7)) == (logit >= np.log(wanted / (1 - wanted)))).all()
    return (
        "Log-odds of Porn + Hentai shifted by -0.85 and -1.69, then asked for 0.3: exactly the photos that reach 0.5"
        f" and 0.7 without a shift ({(explicit(scores) >= 0.5).sum()} and {(explicit(scores) >= 0.7).sum()})."
    )


def other_looks(photos: Sequence[Photo]) -> dict[str, Floats]:
    """Scores of a `closer` look (8 % cut off at every side) and of a `smooth` one (antialiased when scaled down)."""
    looker = Looker()

    def seen(photo: Photo) -> torch.Tensor:
        picture = decode(source.working_copy(photo.path.read_bytes()))
        size = looker.preset.size
        smooth = TF.resize(picture, [size, size], antialias=True).float()
        return torch.stack([looker.preset(View(margin=0.08)(picture)), smooth])

    with torch.inference_mode():
        rows = np.stack([looker.forward(both).numpy() for both in ahead(seen, photos, 2)])
    return {"closer": rows[:, 0], "smooth": rows[:, 1]}


def changed(photos: Sequence[Photo]) -> dict[str, npt.NDArray]:
    """Changes×N×32 bytes: the hashes of the same pictures, changed."""

    def made(photo: Photo) -> Bytes:
        image = source.original(photo)
        return np.stack([_pdq(change(image)) for change in CHANGES.values()])

    return {"pdq": np.stack(list(ahead(made, photos, 2)), axis=1)}


def _pdq(data: bytes) -> Bytes:
    return np.frombuffer(facts.pdq(images.read(data, source.LIMITS).image)[0], np.uint8)


def allow_bank(hashes: dict[str, npt.NDArray], wrong: npt.NDArray, again: dict[str, npt.NDArray]) -> Table:
    """False alarms that people approved once: which of them a bank knows again, and what else it would let pass."""
    bits = np.unpackbits(hashes["pdq"], axis=1).astype(np.int32)
    ones = bits.sum(1)
    entries = bits[wrong]
    distances = entries.sum(1)[:, None] + ones[None] - 2 * entries @ bits.T
    distances[np.arange(len(wrong)), wrong] = 256
    title = f"An allow bank of the {len(wrong)} false alarms: PDQ, at most {WITHIN} of 256 bits"
    table = Table(
        "the same photo again", "known", "distance: median", "95 %", "max", title=title, title_justify="left", box=None
    )
    for name, row in zip(CHANGES, again["pdq"], strict=True):
        apart = (np.unpackbits(row, axis=1) != entries).sum(1)
        low, high = np.quantile(apart, (0.5, 0.95))
        table.add_row(name, percent((apart <= WITHIN).sum(), len(wrong)), f"{low:.0f}", f"{high:.0f}", str(apart.max()))
    others = (distances <= WITHIN).any(0).sum()
    nearest = np.sort(distances.min(0))[:3]
    table.caption = (
        f"Other photos that an entry matches: {others} of {len(bits)}; the nearest are {', '.join(map(str, nearest))}"
        f" bits away. Quality below 50: {(hashes['quality'] < 50).sum()}."
    )
    return table


def tagged(tagger: artifact.Artifact, paths: Sequence[Path]) -> dict[str, npt.NDArray]:
    """The best category's score of every picture that can be decoded."""
    predictor = Predictor([tagger])
    columns = tagger.card.groups["category"]

    def prepared(path: Path) -> Prepared | None:
        try:
            return predictor.prepare(source.working_copy(path.read_bytes()))
        except images.ImageError:
            return None

    found = (each for each in ahead(prepared, paths, 2) if each is not None)
    best = [predictor.predict([each])[0][tagger.card.ref].values[columns].max() for each in found]
    return {"best": np.array(best)}


def confidence(best: dict[str, Floats]) -> Table:
    title = "How sure the tagger of clothes is of its best category"
    table = Table("pictures", "n", "median", "0.9 or more", "0.95 or more", title=title, title_justify="left", box=None)
    for name, column in best.items():
        shares = (percent((column >= least).sum(), len(column)) for least in (0.9, 0.95))
        table.add_row(name, str(len(column)), f"{np.median(column):.2f}", *shares)
    return table


def tag_rule(scores: Floats, best: Floats) -> Table:
    """Porn + Hentai from 0.5, from more where the tagger is sure of a garment."""
    title = f"Reviewed from 0.5 of Porn + Hentai, but from more where a category has {CONFIDENT} or more"
    table = Table("from, with such a tag", "photos", title=title, title_justify="left", box=None)
    for threshold in (0.5, 0.6, 0.7, 0.8, 1.01):
        reached = explicit(scores) >= np.where(best >= CONFIDENT, threshold, 0.5)
        table.add_row(
            "never" if threshold > 1 else f"{threshold:g}", f"{reached.sum()}  {percent(reached.sum(), len(best))}"
        )
    return table


if __name__ == "__main__":
    main()
