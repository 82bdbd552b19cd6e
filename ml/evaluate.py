"""A model on a split of a dataset: every figure with its interval, slices, and the worst mistakes.

    manifest's split ─► ml.scoring: scores beside the truth ─► ml.metrics, ml.bootstrap, ml.slices ─► Evaluation

Writes nothing and fits nothing (`ml.calibrate` does).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml import bootstrap, calibration, metrics, scoring, sweeps
from ml import slices as slicing
from ml.artifact import Artifact
from ml.bootstrap import Drawing
from ml.errors import DatasetError
from ml.evaluation import About, Bin, Evaluation, Figure, GroupEvaluation, LabelFigures, Mistake, Slice
from ml.manifest import Entry, Manifest, named
from ml.metrics import Array, Reliability, Scored
from ml.predictor import Predictor
from ml.score_profile import Profiler
from ml.scoring import Gathered

WORST = 24
# Figures of a group beside those of `metrics.summary`.
EQUAL_COUNT, BY_CHANCE = "calibration_error_equal_count", "calibration_error_by_chance"


@dataclass(frozen=True, slots=True)
class Options:
    """How to evaluate. `clusters`: a column whose equal values the bootstrap draws together. `slices`: the columns and
    label groups to slice by; None means all. `worst`: how many mistakes of each group to keep.
    """

    rounds: int = bootstrap.ROUNDS
    level: float = bootstrap.LEVEL
    seed: int = 0
    clusters: str | None = None
    slices: Sequence[str] | None = None
    min_slice: int = slicing.MIN_COUNT
    worst: int = WORST


def evaluate_model(
    artifact: Artifact,
    manifest: Manifest,
    root: Path,
    split: str,
    *,
    options: Options = Options(),
    originals: bool = False,
    backend: str = "auto",
    device: str = "cpu",
    threads: int = 1,
) -> Evaluation:
    """Everything about `artifact` on one split, whose pictures lie below `root`.

    `originals` with backend="reference" is the fp32 path without working copies, to compare with. Raises
    DatasetError: dataset_empty, label_unknown; and what Predictor raises.
    """
    predictor = Predictor([artifact], device=device, backend=backend, threads=threads)
    card = artifact.card
    groups = scoring.model_groups(card, manifest)
    entries = manifest.split(split)
    found = scoring.predictions(predictor, card, entries, root, originals=originals, decode_threads=threads)
    profiler = Profiler(card)
    gathered = scoring.gather(profiler.watch(found), groups, scoring.thresholds(card))
    about = About(
        model=card.ref,
        model_sha256=artifact.sha256,
        dataset=f"{manifest.name}@{manifest.version}",
        data_sha256=manifest.sha256,
        split=split,
        pixels="original" if originals else "working copy",
        backend=predictor.backends[card.ref].backend.name,
        rounds=options.rounds, level=options.level, seed=options.seed, clusters=options.clusters,
    )  # fmt: skip
    return replace(evaluate(gathered, about, options), scores=profiler.profile)


def evaluate(gathered: Gathered, about: About, options: Options = Options()) -> Evaluation:
    """Every figure, interval, slice and mistake of what was gathered."""
    groups = {name: _group(name, scored, gathered, options) for name, scored in gathered.groups.items()}
    return Evaluation(about, len(gathered.entries), groups, gathered.unread)


def mistakes(scored: Scored, entries: Sequence[Entry], worst: int = WORST) -> list[Mistake]:
    """The wrong decisions that the model was surest of, worst first; often a wrong label in the data."""
    wrong = scored.said() & (scored.truth != 1) & scored.known
    scores = scored.scores
    if scored.kind == "attributes":
        missed = ~scored.said() & (scored.truth == 1)
        scores = np.where(missed, 1 - scores, scores)
        wrong |= missed
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-scores[rows, columns], kind="stable")[:worst]
    pairs = zip(rows[order], columns[order], strict=True)
    return [_mistake(scored, entries[row], row, column) for row, column in pairs]


def _mistake(scored: Scored, entry: Entry, row: int, column: int) -> Mistake:
    score, label = float(scored.scores[row, column]), scored.labels[column]
    if scored.kind == "exclusive":
        true = int(scored.truth[row].argmax())
        return Mistake(entry.image, scored.labels[true], label, score, float(scored.scores[row, true]))
    held = scored.truth[row, column] == 1
    truth, said = (label, f"not {label}") if held else (f"not {label}", label)
    return Mistake(entry.image, truth, said, 1 - score if held else score, score if held else 1 - score)


def _group(name: str, scored: Scored, gathered: Gathered, options: Options) -> GroupEvaluation:
    size = len(gathered.entries)
    together = clusters(gathered.entries, options.clusters)
    edges = calibration.equal_count_edges(scored)
    drawing = Drawing(rounds=options.rounds, seed=options.seed, level=options.level)
    ends = bootstrap.intervals(partial(_figures, scored, edges), size, clusters=together, **drawing)
    point = metrics.summary(scored) | {EQUAL_COUNT: metrics.reliability(scored, edges=edges).error()}
    figures = {key: _figure(value, ends[key]) for key, value in point.items()}
    figures[BY_CHANCE] = Figure(*calibration.by_chance(scored, **drawing))
    sliced: list[Slice] = []
    for column, values in _columns(gathered, name, options.slices).items():
        # A slice by the clusters' own column is one cluster: drawn whole, it would have no spread at all.
        apart = None if column == options.clusters else together
        sliced += slicing.by_column(scored, column, values, clusters=apart, min_count=options.min_slice, **drawing)
    pictures = int(scored.pictures.sum())
    matrix = metrics.confusion(scored) if scored.kind == "exclusive" else np.zeros((0, 0), np.int64)
    return GroupEvaluation(
        name, scored.kind, pictures, size - pictures, figures,
        labels=_labels(scored, ends),
        confusion=tuple(tuple(map(int, row)) for row in matrix),
        reliability=_bins(metrics.reliability(scored)),
        reliability_equal_count=_bins(metrics.reliability(scored, edges=edges)),
        curves=sweeps.curves(scored, drawing, together),
        slices=tuple(sliced),
        mistakes=tuple(mistakes(scored, gathered.entries, options.worst)),
    )  # fmt: skip


def _figures(scored: Scored, edges: Array, weights: Array) -> dict[str, Array]:
    """Those of the group (B,) and those of its labels (B, L), under one set of weights."""
    of_labels = metrics.per_label(scored, weights)
    even = metrics.reliability(scored, weights, edges=edges).error()
    return {**metrics.summary(scored, weights, of_labels), EQUAL_COUNT: even, **of_labels}


def _figure(value: npt.ArrayLike, ends: tuple[npt.ArrayLike, npt.ArrayLike]) -> Figure:
    return Figure(*(float(np.asarray(number)) for number in (value, *ends)))


def _labels(scored: Scored, ends: Mapping[str, tuple[Array, Array]]) -> tuple[LabelFigures, ...]:
    point = metrics.per_label(scored)
    support = (scored.truth == 1).sum(0)
    said = (scored.said() & scored.known).sum(0)
    return tuple(
        LabelFigures(
            label, int(support[at]), int(said[at]), float(scored.thresholds[at]),
            {key: _figure(values[at], (ends[key][0][at], ends[key][1][at])) for key, values in point.items()},
        )
        for at, label in enumerate(scored.labels)
    )  # fmt: skip


def _bins(found: Reliability) -> tuple[Bin, ...]:
    low, high = bootstrap.wilson(np.nan_to_num(found.accuracy) * found.count, found.count)
    return tuple(
        Bin(int(found.count[at]), float(found.confidence[at]), _figure(found.accuracy[at], (low[at], high[at])))
        for at in range(len(found.count))
    )


def _columns(gathered: Gathered, own: str, wanted: Sequence[str] | None) -> dict[str, list[str]]:
    """The values of every column, and of every other label group, to slice by."""
    names = {column: None for entry in gathered.entries for column in entry.columns}
    found = {column: [entry.columns.get(column, "") for entry in gathered.entries] for column in names}
    for group in gathered.groups:
        if group != own and group not in found:
            found[group] = [_said_of(entry, group) for entry in gathered.entries]
    if wanted is not None:
        if missing := set(wanted) - set(found) - {own}:
            raise DatasetError("column_unknown", f"the pictures have no column {sorted(missing)[0]!r}", field="slices")
        found = {column: found[column] for column in wanted if column in found}
    return {column: values for column, values in found.items() if len(set(values)) > 1}


def _said_of(entry: Entry, group: str) -> str:
    value = entry.labels[group]
    return "unknown" if value is None else ", ".join(named(value)) or "none"


def clusters(entries: Sequence[Entry], column: str | None) -> list[object] | None:
    """What is drawn together: the column's values, a picture without one alone; None without a column.

    Raises DatasetError('column_unknown').
    """
    if column is None:
        return None
    if not any(column in entry.columns for entry in entries):
        raise DatasetError("column_unknown", f"the pictures have no column {column!r}", field="clusters")
    return [entry.columns.get(column) or at for at, entry in enumerate(entries)]
