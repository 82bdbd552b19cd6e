"""Metrics by the values of a dataset's column, and the gaps between them: who is served worse? Pure numpy.

A slice is compared with all other pictures, not with the best slice: the best of many small slices is good by luck.
A gap is flagged when it is at least `GAP` and its interval leaves out 0. That interval is widened for the number of
slices that are compared (Bonferroni), so that a column with many values raises no alarm by chance alone. A slice that
is all right has no spread to draw from, and the bootstrap takes 20 of 20 for a certainty; so the Wilson interval of the
slice's own accuracy must leave out that of the others, too.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from ml import bootstrap, metrics
from ml.evaluation import Figure, Slice
from ml.metrics import Array, Bools, Scored

MIN_COUNT = 20  # a slice of fewer pictures says little: one picture is more than 5 points
MAX_SLICES = 20
GAP = 0.05
ABSENT = "(none)"


def by_column(
    scored: Scored,
    column: str,
    values: Sequence[str],
    *,
    rounds: int = bootstrap.ROUNDS,
    seed: int = 0,
    level: float = bootstrap.LEVEL,
    clusters: Sequence[object] | None = None,
    min_count: int = MIN_COUNT,
) -> list[Slice]:
    """The slices of `values` (one per picture), most frequent first; the rare ones pooled into one at the end."""
    known = scored.pictures
    counts = Counter(value for value, kept in zip(values, known, strict=True) if kept)
    frequent = [value for value, count in counts.most_common(MAX_SLICES) if count >= min_count]
    rare = [value for value in counts if value not in set(frequent)]
    cells = np.array(values, dtype=object)
    members: list[Bools] = [(cells == value) & known for value in frequent]
    if rare:
        members.append(np.isin(cells.astype(str), rare) & known)
    if not members:
        return []
    inside = np.stack(members)

    def statistic(weights: Array) -> dict[str, Array]:
        return _figures(scored, inside, weights)

    size = len(values)
    point = {name: of[0] for name, of in statistic(np.ones((1, size))).items()}
    plain = bootstrap.intervals(statistic, size, rounds=rounds, seed=seed, level=level, clusters=clusters)
    compared = max(1, len(frequent)) if len(frequent) != 2 or rare else 1  # two slices are one comparison
    strict = 1 - (1 - level) / compared
    wide = bootstrap.intervals(
        lambda weights: {"gap": statistic(weights)["gap"]},
        size, rounds=rounds, seed=seed, level=strict, clusters=clusters,
    )  # fmt: skip
    ends = {"accuracy": plain["accuracy"], "macro_f1": plain["macro_f1"], "gap": wide["gap"]}
    found = []
    for at, rows in enumerate(members):
        accuracy, macro_f1, gap = (
            Figure(float(point[name][at]), float(low[at]), float(high[at])) for name, (low, high) in ends.items()
        )
        pooled = at == len(frequent)
        count = int(rows.sum())
        flagged = not pooled and _stands_out(accuracy, gap, count, strict)
        name = f"{len(rare)} other values" if pooled and len(rare) > 1 else rare[0] if pooled else frequent[at]
        found.append(Slice(column, name or ABSENT, len(rare) if pooled else 1, count, accuracy, macro_f1, gap, flagged))
    return found


def _stands_out(accuracy: Figure, gap: Figure, count: int, level: float) -> bool:
    if not (abs(gap.value) >= GAP and (gap.low > 0 or gap.high < 0)):
        return False
    z = NormalDist().inv_cdf((1 + level) / 2)
    low, high = bootstrap.wilson(np.array(accuracy.value * count), np.array(float(count)), z)
    return not low <= accuracy.value - gap.value <= high


def _figures(scored: Scored, inside: Bools, weights: Array) -> dict[str, Array]:
    """accuracy, macro_f1 and gap, each B×slices."""
    columns = [_of(scored, weights * rows) for rows in inside]
    others = [_of(scored, weights * ~rows)[0] for rows in inside]
    accuracy = np.stack([column[0] for column in columns], axis=1)
    macro = np.stack([column[1] for column in columns], axis=1)
    return {"accuracy": accuracy, "macro_f1": macro, "gap": accuracy - np.stack(others, axis=1)}


def _of(scored: Scored, weights: Array) -> tuple[Array, Array]:
    """(accuracy, macro F1), each (B,). For attributes, accuracy is the share of right label decisions."""
    counts = metrics.count(scored, weights)
    decided = counts.tp + (counts.fp if scored.kind == "exclusive" else counts.tn + counts.fp + counts.fn)
    right = counts.tp + (0 if scored.kind == "exclusive" else counts.tn)
    return metrics.ratio(right.sum(-1), decided.sum(-1)), metrics.averages(counts)["macro_f1"]
