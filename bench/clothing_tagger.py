"""The shipped tagger of clothes, from photos to artifact: import, train in two runs, calibrate, measure.

python -m bench.clothing_tagger --data ../shared/data/clothing \\
    --init ../shared/models/mobilenet_v2-imagenet1k.safetensors --out clothing-run

Started again on the same --out it goes on where it stopped. docs/models/clothing.md says what came out.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ml import artifact, bootstrap, calibrate, metrics, scoring
from ml.artifact import Artifact
from ml.augment import Augmentation
from ml.card import ModelCard, from_dict
from ml.importers import Column, Imported, from_table
from ml.manifest import Manifest
from ml.metrics import Scored
from ml.predictor import Predictor
from ml.scoring import Gathered
from ml.train import train
from ml.train_config import TrainConfig

IGNORED = frozenset({"Not sure", "Other", "Skip"})
# Google's product taxonomy, where a class of the photos is one of its categories or lies inside exactly one.
GOOGLE = {
    **dict.fromkeys(("Blouse", "Longsleeve", "Polo", "Shirt", "T-Shirt", "Top"), "212"),
    **{"Dress": "2271", "Hat": "173", "Outwear": "203", "Pants": "204", "Shoes": "187"},
    **{"Shorts": "207", "Skirt": "1581", "Undershirt": "2745"},
}
FIRST = TrainConfig(
    name="clothing",
    version="1",
    licence="Apache-2.0 (weights); trained on CC0 photos from Apache-2.0 weights",
    source="github.com/alexeygrigorev/clothing-dataset 7ed86a9",
    taxonomy={f"category:{label}": f"google:{number}" for label, number in GOOGLE.items()},
    size=224,
    train_size=192,  # a crop shows clothes larger than the whole picture does; smaller inputs level that
    epochs=12,
    lr=5e-4,
    weight_decay=0.03,
    balance=0.2,
    threads=2,
    seed=1,
    checkpoint_steps=400,
    augmentation=Augmentation(
        crop_scale=(0.5, 1.0), crop_ratio=1.3333, colour=0.2, hue=0.02, rand_operations=1, mixup=0.2, mix_share=0.3
    ),
)
FIRST_EPOCHS = 4  # of FIRST, the head's among them, at its high rates; SECOND brings the rate down
SECOND = replace(
    FIRST,
    head_epochs=0,
    epochs=4,
    lr=4e-4,
    warmup_epochs=0.25,
    seed=2,
    validation_split="",  # nothing is chosen by it, and it costs time
    half_weights=False,
    # The last epochs see pictures more like those of inference.
    augmentation=Augmentation(crop_scale=(0.5, 1.0), crop_ratio=1.3333, colour=0.2),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--init", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    images = options.data / "images"
    manifest = _dataset(options.data, options.out)
    common: dict[str, Any] = {"resume": True, "cache_dir": options.out, "on_event": _tell}
    first = train(manifest, images, FIRST, options.out / "1", init=options.init, stop_after=FIRST_EPOCHS, **common)
    second = train(manifest, images, SECOND, options.out / "2", init=first, **common)
    made = ship(second, manifest, images, options.out / "model", parent=options.init.name)
    print(json.dumps(made.card.to_dict()["metrics"], indent=1))


def _dataset(data: Path, out: Path) -> Manifest:
    path = out / "manifest.json"
    if not path.exists():
        imported = clothing(data)
        (out / "import.json").write_text(json.dumps(imported.report.to_dict(), indent=1))
        imported.manifest.save(path)
    return Manifest.load(path)


def clothing(data: Path) -> Imported:
    """The photos as a dataset. Photos of the ignored classes still teach the attribute."""
    groups = {"category": Column("label", ignore=IGNORED), "kids": Column("kids", "attributes")}
    return from_table(data / "images.csv", data / "images", groups, name="clothing", group_column="sender_id")


def ship(trained: Artifact, manifest: Manifest, images: Path, folder: Path, *, parent: str) -> Artifact:
    """Calibrate, store as fp16, measure both ways that a picture can take, and write the figures into the card."""
    plain = _scored(trained, manifest, images, originals=True)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in trained.state.items()}
    card = replace(trained.card, temperature=1.0, parent=parent)
    made = artifact.save(folder, card, halved)
    raw = _scored(made, manifest, images, originals=False)
    temperatures = {name: calibrate.temperature(scored) for name, scored in raw.groups.items()}
    cooled = {name: calibrate.apply_temperature(scored, temperatures[name]) for name, scored in raw.groups.items()}
    kids = calibrate.thresholds(cooled["kids"])["kids"]
    labels = tuple(
        replace(label, threshold=round(kids.value, 4)) if kids and label.name == "kids" else label
        for label in card.labels
    )
    figures = _figures(raw, cooled, plain, manifest)
    card = replace(card, temperature=temperatures, labels=labels, metrics=figures)
    return artifact.save(folder, _checked(card), halved)


def _scored(model: Artifact, manifest: Manifest, images: Path, *, originals: bool) -> Gathered:
    predictor = Predictor([model], backend="reference" if originals else "auto", threads=1)
    groups = scoring.model_groups(model.card, manifest)
    found = scoring.predictions(predictor, model.card, manifest.split("validation"), images, originals=originals)
    return scoring.gather(found, groups)


def _figures(raw: Gathered, cooled: Mapping[str, Scored], plain: Gathered, manifest: Manifest) -> dict[str, Any]:
    category, people = cooled["category"], [entry.columns["sender_id"] for entry in raw.entries]
    frequent = _most_frequent(manifest, 10)
    ten = category.truth[:, [category.labels.index(label) for label in frequent]].any(1) & category.pictures

    def told(weights: np.ndarray) -> dict[str, np.ndarray]:
        hits = (category.said() & (category.truth == 1)).any(1)
        return {
            "top1": metrics.total(hits & category.pictures, weights) / metrics.total(category.pictures, weights),
            "top1_ten": metrics.total(hits & ten, weights) / metrics.total(ten, weights),
            "macro_f1": metrics.averages(metrics.count(category, weights))["macro_f1"],
        }

    once = np.ones((1, len(people)))
    ends = bootstrap.intervals(told, len(people), clusters=people)
    columns = [category.labels.index(label) for label in frequent]
    among_ten = (category.scores[ten][:, columns].argmax(1) == category.truth[ten][:, columns].argmax(1)).mean()
    return {
        "split": "validation",
        "pictures": int(category.pictures.sum()),
        "category": {
            name: {"value": round(float(value[0]), 4), "interval": [round(float(end), 4) for end in ends[name]]}
            for name, value in told(once).items()
        },
        "top1_among_ten": round(float(among_ten), 4),
        "ten_most_frequent": frequent,
        "ece": {"raw": _ece(raw.groups["category"]), "calibrated": _ece(category), "cross_fitted": _cross_fitted(raw)},
        "kids_average_precision": round(_average_precision(cooled["kids"]), 4),
        "fp32_originals_top1": round(_top1(plain.groups["category"]), 4),
        "fp16_working_copies_top1": round(_top1(category), 4),
    }


def _most_frequent(manifest: Manifest, count: int) -> list[str]:
    counts = {label: sum(by_split.values()) for label, by_split in manifest.counts()["category"].items()}
    return sorted(counts, key=lambda label: -counts[label])[:count]


def _top1(scored: Scored) -> float:
    return float((scored.said() & (scored.truth == 1)).any(1)[scored.pictures].mean())


def _ece(scored: Scored) -> float:
    return round(float(metrics.reliability(scored).error()), 4)


def _cross_fitted(raw: Gathered) -> float:
    """The calibration error with each half of the people cooled by the temperature of the other half."""
    scored = raw.groups["category"]
    half = np.array([int(entry.columns["sender_id"] or 0) % 2 == 0 for entry in raw.entries])
    scores = scored.scores.copy()
    for mine in (half, ~half):
        fitted = calibrate.temperature(_rows(scored, ~mine))
        scores[mine] = calibrate.apply_temperature(_rows(scored, mine), fitted).scores
    return _ece(replace(scored, scores=scores))


def _rows(scored: Scored, rows: np.ndarray) -> Scored:
    return replace(scored, scores=scored.scores[rows], truth=scored.truth[rows])


def _average_precision(scored: Scored) -> float:
    known = scored.truth[:, 0] != metrics.UNKNOWN
    return float(metrics.average_precision(scored.scores[:, 0], scored.truth[:, 0] == 1, known))


def _checked(card: ModelCard) -> ModelCard:
    return from_dict(json.loads(json.dumps(card.to_dict())))


def _tell(event: dict[str, Any]) -> None:
    if event["event"] != "step" or event["step"] % 20 == 0:
        print(time.strftime("%H:%M:%S"), json.dumps(event), flush=True)


if __name__ == "__main__":
    main()
