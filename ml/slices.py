"""Metrics by the values of a dataset's column, and the gaps between them: who is served worse? Pure numpy.

A slice is compared with all other pictures, not with the best slice: the best of many small slices is good by luck.
A gap is flagged when it is at least `GAP` and its interval leaves out 0. That interval is widened for the number of
slices that are compared (Bonferroni), so that a column with many values raises no alarm by chance alone. A slice that
is all right has no spread to draw from, and the bootstrap takes 20 of 20 for a certainty; so the Wilson interval of the
slice's own accuracy must leave out that of the others, too.

Of attributes most decisions are an easy no: a recall that falls by half hardly moves the accuracy of a rare one. So
their gap in micro F1 is judged as well, by the same rule (of an exclusive group, micro F1 is the accuracy).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
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
    ends = bootstrap.intervals(statistic, size, rounds=rounds, seed=seed, level=level, clusters=clusters)
    compared = max(1, len(frequent)) if len(frequent) != 2 or rare else 1  # two slices are one comparison
    judged = ("gap",) if scored.kind == "exclusive" else ("gap", "f1_gap")
    strict = 1 - (1 - level) / (compared * len(judged))
    ends |= bootstrap.intervals(
        lambda weights: {name: of for name, of in statistic(weights).items() if name in ("gap", "f1_gap")},
        size, rounds=rounds, seed=seed, level=strict, clusters=clusters,
    )  # fmt: skip
    found = []
    for at, rows in enumerate(members):
        of = {name: Figure(*(float(part[at]) for part in (point[name], *ends[name]))) for name in point}
        pooled = at == len(frequent)
        shares = _shares(scored, rows, of)
        out = [of[name] for name in judged if not pooled and _stands_out(of[name], *shares[name], strict, min_count)]
        name = f"{len(rare)} other values" if pooled and len(rare) > 1 else rare[0] if pooled else frequent[at]
        found.append(
            Slice(
                column, name or ABSENT, len(rare) if pooled else 1, int(rows.sum()),
                of["accuracy"], of["macro_f1"], of["gap"], bool(out),
                f1_gap=of["f1_gap"], worse=any(gap.value < 0 for gap in out),
            )
        )  # fmt: skip
    return found


def _shares(scored: Scored, rows: Bools, of: Mapping[str, Figure]) -> dict[str, tuple[float, float, float]]:
    """(hits, count, share of the others) of what each gap is about, as a share, which has a Wilson interval.

    The decisions of one picture are not independent, so its accuracy counts once. F1 is 2J/(1 + J) of J =
    tp/(tp + fp + fn), and is above or below another F1 as their J are.
    """
    counts = metrics.count(scored, rows[None].astype(np.float64))
    tp, positive = (float(cells.sum()) for cells in (counts.tp, counts.tp + counts.fp + counts.fn))
    pictures, accuracy = float(rows.sum()), of["accuracy"].value
    f1_of_others = 2 * tp / max(1.0, tp + positive) - of["f1_gap"].value
    return {
        "gap": (accuracy * pictures, pictures, accuracy - of["gap"].value),
        "f1_gap": (tp, positive, f1_of_others / (2 - f1_of_others)),
    }


def _stands_out(gap: Figure, hits: float, count: float, others: float, level: float, min_count: int) -> bool:
    """Whether a gap is large and no chance."""
    if count < min_count or not (abs(gap.value) >= GAP and (gap.low > 0 or gap.high < 0)):
        return False
    z = NormalDist().inv_cdf((1 + level) / 2)
    low, high = bootstrap.wilson(np.array(hits), np.array(count), z)
    return not low <= others <= high


def _figures(scored: Scored, inside: Bools, weights: Array) -> dict[str, Array]:
    """accuracy, macro_f1, gap and f1_gap, each B×slices."""
    own = [_of(scored, weights * rows) for rows in inside]
    others = [_of(scored, weights * ~rows) for rows in inside]
    accuracy, macro_f1, micro_f1 = (np.stack(each, axis=1) for each in zip(*own, strict=True))
    of_others, _, f1_of_others = (np.stack(each, axis=1) for each in zip(*others, strict=True))
    return {
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "gap": accuracy - of_others,
        "f1_gap": micro_f1 - f1_of_others,
    }


def _of(scored: Scored, weights: Array) -> tuple[Array, Array, Array]:
    """(accuracy, macro F1, micro F1), each (B,). For attributes, accuracy is the share of right label decisions."""
    counts = metrics.count(scored, weights)
    decided = counts.tp + (counts.fp if scored.kind == "exclusive" else counts.tn + counts.fp + counts.fn)
    right = counts.tp + (0 if scored.kind == "exclusive" else counts.tn)
    found = metrics.averages(counts)
    return metrics.ratio(right.sum(-1), decided.sum(-1)), found["macro_f1"], found["micro_f1"]
