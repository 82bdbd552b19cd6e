"""False alarms of the moderation model on a shop's own goods: how many, by which rule, on which goods, of whom.

    python -m bench.moderation_accuracy [--data ../shared/data/clothing] [--keep FOLDER] [--sheet worst.png]

All training photos of the data set, each through the decoder, the working copy and the predictor of the line; the
verdicts are the engine's. `--sheet` draws the 24 worst, to be looked at. What can be done about them is measured by
`bench.moderation_remedies`, how steady verdicts are by `bench.verdict_stability`.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from bench import moderation_photos as source
from bench.moderation_photos import CLASSES, Bools, Floats, Looker, Photo, averaged, kept, percent
from bench.moderation_policies import POLICIES, decided
from bench.system import SHARED

COUNTS = (1, 2, 4)
ALARMING = [CLASSES.index(name) for name in ("Porn", "Hentai", "Sexy")]
DRAWS = 2000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=SHARED / "data" / "clothing")
    arguments.add_argument("--keep", type=Path)
    arguments.add_argument("--sheet", type=Path)
    options = arguments.parse_args()
    started = time.perf_counter()
    photos = source.photos(options.data)
    looker = Looker()
    scores = scored(looker, photos, options.keep)
    console = Console(highlight=False, width=110)
    console.print(
        f"{len(photos)} photos of {len({photo.sender for photo in photos})} people; {looker.predictor.models};"
        f" {looker.backend}; {time.perf_counter() - started:.0f} s"
    )
    console.print(by_policy(photos, scores))
    console.print(distributions(scores))
    console.print(by_rule(scores))
    console.print(by_category(photos, scores))
    console.print(by_colour(kept(options.keep, "facts", lambda: source.found_facts(photos))["skin"], scores))
    console.print(by_person(photos, scores))
    if options.sheet:
        sheet(photos, scores[:, 0]).save(options.sheet)


def scored(looker: Looker, photos: Sequence[Photo], keep: Path | None) -> Floats:
    """N×VIEWS×classes of the photos as they came."""

    def copy(photo: Photo) -> Callable[[], bytes]:
        return lambda: source.working_copy(photo.path.read_bytes())

    return kept(keep, "photos", lambda: {"scores": looker.scores(map(copy, photos))})["scores"]


def alarms(policy: str, scores: Floats) -> Bools:
    """Which photos are not approved."""
    return np.array([each.verdict != "approve" for each in decided(policy, scores)])


def interval(senders: Sequence[str], hits: Bools, seed: int = 0) -> tuple[float, float]:
    """95 % of the share of hits, by bootstrap over people: one person's photos stand on the same sofa."""
    people, member = np.unique(np.array(senders), return_inverse=True)
    photos, found = np.bincount(member), np.bincount(member, hits)
    drawn = np.random.default_rng(seed).integers(len(people), size=(DRAWS, len(people)))
    low, high = np.quantile(found[drawn].sum(1) / photos[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)


def by_policy(photos: Sequence[Photo], scores: Floats) -> Table:
    table = Table("policy", "views", "approve", "review", "reject", "false alarms", "95 %, by people", box=None)
    for policy in POLICIES:
        for count in COUNTS:
            found = Counter(each.verdict for each in decided(policy, averaged(scores, count)))
            wrong = len(photos) - found["approve"]
            low, high = interval([p.sender for p in photos], alarms(policy, averaged(scores, count)))
            numbers = (str(found[verdict]) for verdict in ("approve", "review", "reject"))
            spread = f"{100 * low:.1f} – {100 * high:.1f} %"
            table.add_row(policy, str(count), *numbers, percent(wrong, len(photos)), spread)
    return table


def distributions(scores: Floats) -> Table:
    quantiles = (0.5, 0.9, 0.95, 0.99, 0.999, 1)
    heads = ("class", *(f"{100 * q:g} %" for q in quantiles))
    table = Table(*heads, title="Scores, one view: percentiles over the photos", title_justify="left", box=None)
    rows = {name: scores[:, 0, at] for at, name in enumerate(CLASSES)}
    rows["Porn + Hentai"] = rows["Porn"] + rows["Hentai"]
    rows["Porn + Hentai + Sexy"] = rows["Porn + Hentai"] + rows["Sexy"]
    for name, column in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in np.quantile(column, quantiles)))
    return table


def by_rule(scores: Floats) -> Table:
    table = Table(
        "policy", "views", "rule", "photos", title="False alarms by deciding rule", title_justify="left", box=None
    )
    for policy in POLICIES:
        for count in COUNTS[:2]:
            found = Counter(each.rule for each in decided(policy, averaged(scores, count)) if each.verdict != "approve")
            for rule, number in found.most_common():
                table.add_row(policy, str(count), str(rule), str(number))
    return table


def by_category(photos: Sequence[Photo], scores: Floats) -> Table:
    kinds = [(policy, count) for policy in POLICIES for count in COUNTS[:2]]
    heads = ("goods", "photos", *(f"{policy}, {count} view{'s' * (count > 1)}" for policy, count in kinds))
    table = Table(*heads, title="False alarms by goods", title_justify="left", box=None)
    hits = [alarms(policy, averaged(scores, count)) for policy, count in kinds]
    labels = np.array([photo.label for photo in photos])
    for label, number in Counter(labels.tolist()).most_common():
        of = labels == label
        table.add_row(label, str(number), *(f"{hit[of].sum()}  {100 * hit[of].mean():.1f} %" for hit in hits))
    return table


def by_colour(skin: Floats, scores: Floats) -> Table:
    """By the part of the photo, garment or floor, that is of a colour that skin has."""
    hits = {policy: alarms(policy, scores[:, 0]) for policy in POLICIES}
    title = f"False alarms by the share of {', '.join(source.SKIN_TONES)}"
    table = Table("share", "photos", *POLICIES, title=title, title_justify="left", box=None)
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.01)):
        of = (skin >= low) & (skin < high)
        shown = (f"{hit[of].sum()}  {percent(hit[of].sum(), of.sum())}" for hit in hits.values())
        table.add_row(f"{100 * low:.0f} – {min(100, 100 * high):.0f} %", str(of.sum()), *shown)
    return table


def by_person(photos: Sequence[Photo], scores: Floats) -> Table:
    """The people with most false alarms under the default policy: it is their floor or sofa rather than their goods."""
    hits = alarms("v1", scores[:, 0])
    total = Counter(photo.sender for photo in photos)
    found = Counter(photo.sender for photo, hit in zip(photos, hits, strict=True) if hit)
    title = f"v1: {len(found)} of {len(total)} people"
    table = Table("person", "photos", "false alarms", title=title, title_justify="left", box=None)
    for person, number in found.most_common(10):
        table.add_row(person, str(total[person]), f"{number}  {percent(number, total[person])}")
    return table


def sheet(photos: Sequence[Photo], scores: Floats, count: int = 24, across: int = 8) -> Image.Image:
    """The worst ones with what is said of them: whoever states a share of false alarms has looked at them."""
    worst = np.argsort(-scores[:, ALARMING].max(1))[:count]
    drawn = Image.new("RGB", (across * 240, -(-count // across) * 300), "white")
    pen = ImageDraw.Draw(drawn)
    for position, at in enumerate(worst):
        left, top = position % across * 240, position // across * 300
        thumb = source.original(photos[at])
        thumb.thumbnail((236, 256))
        drawn.paste(thumb, (left, top))
        most = max(ALARMING, key=lambda column: scores[at, column])
        words = f"{photos[at].label}: {CLASSES[most]} {scores[at, most]:.2f}\nperson {photos[at].sender}"
        pen.text((left + 2, top + 260), words, fill="black", font_size=14)
    return drawn


if __name__ == "__main__":
    main()
