"""Measures the tagger of clothes that comes with the project against its goals, on the validation photos.

    python -m bench.clothing_tagger --data ../shared/data/clothing [--fp32 FOLDER]

`tagmill learn` makes the model (docs/models/clothing.md); this prints what no single command says: top-1 on the ten
most frequent classes, the calibration error beside the one that a perfect model would show on as many photos, fp16 on
working copies beside fp32 on originals (`--fp32`: the folder of the model before its calibration).
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ml import artifact, bootstrap, calibrate, metrics, scoring
from ml.artifact import Artifact
from ml.importers import Column, from_table
from ml.manifest import Manifest
from ml.metrics import Scored
from ml.predictor import Predictor
from ml.scoring import Gathered
from ml.shipped_models import FOLDER

IGNORED = frozenset({"Not sure", "Other", "Skip"})
SPLIT = "validation"
DRAWS = 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data/clothing"))
    arguments.add_argument("--model", type=Path, default=FOLDER / "clothing")
    arguments.add_argument("--fp32", type=Path)
    options = arguments.parse_args()
    images = options.data / "images"
    groups = {"category": Column("label", ignore=IGNORED), "kids": Column("kids", "attributes")}
    manifest = from_table(
        options.data / "images.csv", images, groups, name="clothing", group_column="sender_id"
    ).manifest
    model = artifact.load(options.model)
    gathered = scored(model, manifest, images)
    rows = figures(model, gathered, manifest)
    if options.fp32:
        plain = scored(artifact.load(options.fp32), manifest, images, originals=True)
        rows["top-1, all classes, fp32 weights on originals"] = share(top1(plain.groups["category"]))
        rows["top-1, all classes, fp16 weights on working copies"] = share(top1(gathered.groups["category"]))
    show(model, rows)


def scored(model: Artifact, manifest: Manifest, images: Path, *, originals: bool = False) -> Gathered:
    """The validation photos' scores: as in production, or of the reference in fp32 on the original pixels."""
    predictor = Predictor([model], backend="reference" if originals else "auto", threads=2)
    known = scoring.model_groups(model.card, manifest)
    found = scoring.predictions(
        predictor, model.card, manifest.split(SPLIT), images, originals=originals, decode_threads=2
    )
    return scoring.gather(found, known, scoring.thresholds(model.card))


def figures(model: Artifact, gathered: Gathered, manifest: Manifest) -> dict[str, str]:
    category = gathered.groups["category"]
    people = [entry.columns["sender_id"] for entry in gathered.entries]
    columns = [category.labels.index(label) for label in most_frequent(manifest, 10)]
    ten = category.truth[:, columns].any(1) & category.pictures

    def told(weights: np.ndarray) -> dict[str, np.ndarray]:
        hits = (category.said() & (category.truth == 1)).any(1)
        return {
            "top-1, the ten most frequent classes, against all": metrics.ratio(
                metrics.total(hits & ten, weights), metrics.total(ten, weights)
            ),
            "top-1, all classes": metrics.ratio(
                metrics.total(hits & category.pictures, weights), metrics.total(category.pictures, weights)
            ),
            "macro-F1, all classes": metrics.averages(metrics.count(category, weights))["macro_f1"],
            "calibration error, 15 bins": metrics.reliability(category, weights).error(),
        }

    ends = bootstrap.intervals(told, len(people), clusters=people)
    rows = {}
    for name, value in told(np.ones((1, len(people)))).items():
        low, high = (float(np.asarray(end)) for end in ends[name])
        rows[name] = f"{float(np.asarray(value).ravel()[0]):.4f}  ({low:.4f} … {high:.4f})"
    among = (category.scores[ten][:, columns].argmax(1) == category.truth[ten][:, columns].argmax(1)).mean()
    heat = model.card.temperature_of("category")
    raw = calibrate.apply_temperature(category, 1 / heat)
    rows["top-1, told apart among these ten only"] = share(among)
    rows["calibration error without the temperature"] = share(metrics.reliability(raw).error())
    rows["… each half of the people cooled by the other half's"] = share(calibrate.cross_fitted_error(raw, people))
    low, middle, high = (share(end) for end in perfect(category))
    rows["… of a perfect model with these scores, 5, 50, 95 %"] = f"{low}, {middle}, {high}"
    kids = gathered.groups["kids"]
    known = kids.truth[:, 0] != metrics.UNKNOWN
    rows["kids: average precision"] = share(metrics.average_precision(kids.scores[:, 0], kids.truth[:, 0] == 1, known))
    return rows


def perfect(scored: Scored, seed: int = 0) -> np.ndarray:
    """Quantiles of the calibration error if every score were exactly the chance to be right: what chance alone does."""
    random = np.random.default_rng(seed)
    rows = scored.scores[scored.pictures]
    rows = rows / rows.sum(1, keepdims=True)
    labels = np.arange(len(scored.labels))
    errors = []
    for _ in range(DRAWS):
        drawn = (rows.cumsum(1) > random.random((len(rows), 1))).argmax(1)
        truth = (drawn[:, None] == labels).astype(np.int8)
        errors.append(float(metrics.reliability(replace(scored, scores=rows, truth=truth)).error()))
    return np.quantile(errors, (0.05, 0.5, 0.95))


def most_frequent(manifest: Manifest, count: int) -> list[str]:
    counts = {label: sum(by_split.values()) for label, by_split in manifest.counts()["category"].items()}
    return sorted(counts, key=lambda label: -counts[label])[:count]


def top1(scored: Scored) -> float:
    return float((scored.said() & (scored.truth == 1)).any(1)[scored.pictures].mean())


def share(value: object) -> str:
    return f"{float(np.asarray(value, np.float64)):.4f}"


def show(model: Artifact, rows: Mapping[str, str]) -> None:
    table = Table("figure", "value (95 % interval, by photographers)", title=model.card.ref, box=None)
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False, width=120).print(table)


if __name__ == "__main__":
    main()
