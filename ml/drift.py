"""How far a profile of scores has moved from a baseline: measures, their noise, and a level. Stores nothing.

Scores: the population stability index (PSI) over the bins of a histogram and one more for "nothing reported",
Σ (p − q) ln(p / q); its customary limits 0.1 and 0.25 are those of N. Siddiqi, Credit Risk Scorecards (2006). Without
any drift it is about (1/n + 1/m) χ² with bins − 1 degrees of freedom (B. Yurdakul and J. Naranjo, Statistical
properties of the population stability index, Journal of Risk Model Validation 14(4), 2020): below the 99 % quantile of
that, raised for the number of histograms of a group (Bonferroni), it is noise.
Rates: the difference of two shares with Newcombe's hybrid score interval (R. Newcombe, Statistics in Medicine 17, 1998,
method 10), widened for the number of labels compared (Bonferroni).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from ml import bootstrap
from ml.evaluation import Figure
from ml.score_profile import GroupProfile, Profile

Level = Literal["unknown", "ok", "watch", "drifted"]
LEVELS: tuple[Level, ...] = ("unknown", "ok", "watch", "drifted")

MIN_PICTURES = 200  # on either side; the noise of the PSI alone is then about 0.2 at most, and is allowed for
PSI_WATCH, PSI_DRIFTED = 0.1, 0.25
RATE_WATCH, RATE_DRIFTED = 0.05, 0.15
# A rare label (2 % unsafe pictures instead of 0.5 %) moves by few points: so many times as often, and at least so much.
RARE_WATCH, RARE_DRIFTED = (2.0, 0.01), (4.0, 0.02)
LEVEL = 0.99


@dataclass(frozen=True, slots=True)
class Measure:
    """One comparison. `what`: 'scores' (`value` is the PSI, `divergence` Jensen–Shannon's in bits, `live` and `base`
    are mean scores by the bins' middles, None without any) or 'rate' (`value` is the live share less the baseline's, in
    `low`…`high`). `label` is None: the best score of an exclusive group."""

    what: Literal["scores", "rate"]
    group: str
    label: str | None
    level: Level
    value: float
    live: float | None = None
    base: float | None = None
    low: float | None = None
    high: float | None = None
    divergence: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what does not apply."""
        found = {name: getattr(self, name) for name in self.__slots__}
        there = {name: value for name, value in found.items() if value is not None or name == "label"}
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in there.items()}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The worst level of all measures. `reason`: why the level is 'unknown' (too_few_pictures, baseline_too_small).
    `psi`: the largest of all histograms. `measures`: those that moved first, most severe first."""

    level: Level
    psi: float | None
    measures: tuple[Measure, ...]
    reason: str | None = None


def judge(live: Profile, base: Profile, *, same_mix: bool = True, min_pictures: int = MIN_PICTURES) -> Judgement:
    """Compare a day of a source with its baseline.

    `same_mix`: the baseline is of the same kind of pictures. If not (an evaluation's classes are mixed as its collector
    mixed them), a rate of an exclusive label that differs says first of all that the source sells other things: it is
    shown, and counts as 'watch' at most.
    """
    if live.pictures < min_pictures:
        return Judgement("unknown", None, (), "too_few_pictures")
    if base.pictures < min_pictures:
        return Judgement("unknown", None, (), "baseline_too_small")
    found: list[Measure] = []
    for name in sorted(live.groups.keys() | base.groups.keys()):
        found += _group(name, live, base, same_mix)
    found.sort(key=lambda m: (-LEVELS.index(m.level), m.what != "scores", -abs(m.value), m.group, m.label or ""))
    indices = [m.value for m in found if m.what == "scores"]
    worst = max((LEVELS.index(m.level) for m in found), default=LEVELS.index("ok"))
    return Judgement(LEVELS[worst], max(indices, default=None), tuple(found))


def psi(live: Sequence[int], base: Sequence[int]) -> float:
    """The population stability index of two histograms of counts; 0 where the shares are equal.

    An empty bin would make it infinite: half a picture of the smaller side is added to each bin's share, on both sides
    alike. NaN where a side is empty.
    """
    p, q = _smoothed(live, base)
    return float(((p - q) * np.log(p / q)).sum())


def psi_noise(live: Sequence[int], base: Sequence[int], level: float = LEVEL) -> float:
    """What the PSI of two samples of one population stays below, with probability `level`."""
    n, m = sum(live), sum(base)
    used = sum(1 for a, b in zip(live, base, strict=True) if a or b)
    return (1 / n + 1 / m) * _chi_squared(used - 1, level) if used > 1 else 0.0


def jensen_shannon(live: Sequence[int], base: Sequence[int]) -> float:
    """The Jensen–Shannon divergence in bits: 0 for equal shares, 1 where no bin is shared; NaN for an empty side."""
    p, q = _shares(live), _shares(base)
    middle = (p + q) / 2
    halves = [(side[side > 0] * np.log2(side[side > 0] / middle[side > 0])).sum() / 2 for side in (p, q)]
    return float(sum(halves)) if np.isfinite(middle).all() else math.nan


def rate_difference(live: int, n: int, base: int, m: int, level: float = LEVEL) -> Figure:
    """live/n − base/m with its interval."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    (low1, low2), (high1, high2) = bootstrap.wilson(np.array([live, base], float), np.array([n, m], float), z)
    p, q = live / n, base / m
    below = math.sqrt((p - low1) ** 2 + (high2 - q) ** 2)
    above = math.sqrt((high1 - p) ** 2 + (q - low2) ** 2)
    return Figure(p - q, p - q - below, p - q + above)


def _group(name: str, live: Profile, base: Profile, same_mix: bool) -> list[Measure]:
    ours, theirs = live.groups.get(name), base.groups.get(name)
    kind = (ours or theirs or GroupProfile("attributes")).kind
    ours, theirs = ours or GroupProfile(kind), theirs or GroupProfile(kind)
    labels = sorted(ours.labels.keys() | theirs.labels.keys())
    level = 1 - (1 - LEVEL) / max(1, len(labels))
    # A moderation model has a histogram for each class: at 99 % each, five of them would cry wolf one day in twenty.
    own = [label for label in labels for of in (ours, theirs) if label in of.labels and of.labels[label].histogram]
    quiet = 1 - (1 - LEVEL) / max(1, len(set(own)) + (kind == "exclusive"))
    found = []
    if kind == "exclusive":
        found.append(_scores(name, None, ours.histogram, theirs.histogram, live.pictures, base.pictures, quiet))
    for label in labels:
        mine, its = ours.labels.get(label), theirs.labels.get(label)
        histograms = (mine.histogram if mine else [], its.histogram if its else [])
        if any(histograms):
            found.append(_scores(name, label, *histograms, live.pictures, base.pictures, quiet))
        capped = kind == "exclusive" and not same_mix
        given = (mine.given if mine else 0, its.given if its else 0)
        found.append(_rate(name, label, given, (live.pictures, base.pictures), level, capped))
    return found


def _scores(
    group: str, label: str | None, live: list[int], base: list[int], n: int, m: int, confidence: float
) -> Measure:
    bins = max(len(live), len(base))
    ours, theirs = ([*(counts or [0] * bins), of - sum(counts)] for counts, of in ((live, n), (base, m)))
    value = psi(ours, theirs)
    level: Level = "ok"
    if value > psi_noise(ours, theirs, confidence):
        level = "drifted" if value >= PSI_DRIFTED else "watch" if value >= PSI_WATCH else "ok"
    means = (_mean(live), _mean(base))
    return Measure("scores", group, label, level, value, *means, divergence=jensen_shannon(ours, theirs))


def _rate(
    group: str, label: str, given: tuple[int, int], of: tuple[int, int], confidence: float, capped: bool
) -> Measure:
    moved = rate_difference(given[0], of[0], given[1], of[1], confidence)
    live, base = given[0] / of[0], given[1] / of[1]
    size = abs(moved.value)
    level: Level = "ok"
    if moved.low > 0 or moved.high < 0:
        # Of a label never seen on one side nothing is known but that it is rarer than one picture.
        times = max(live, base) / max(min(live, base), 0.5 / max(of))
        if size >= RATE_DRIFTED or (times >= RARE_DRIFTED[0] and size >= RARE_DRIFTED[1]):
            level = "watch" if capped else "drifted"
        elif size >= RATE_WATCH or (times >= RARE_WATCH[0] and size >= RARE_WATCH[1]):
            level = "watch"
    return Measure("rate", group, label, level, moved.value, live, base, moved.low, moved.high)


def _mean(histogram: Sequence[int]) -> float | None:
    total = sum(histogram)
    middles = ((at + 0.5) / len(histogram) * count for at, count in enumerate(histogram))
    return sum(middles) / total if total else None


def _shares(counts: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = np.asarray(counts, np.float64)
    total = array.sum()
    return array / total if total else np.full(len(array), math.nan)


def _smoothed(live: Sequence[int], base: Sequence[int]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    least = max(1, min(sum(live), sum(base)))
    half = 0.5 / least
    return [(_shares(side) + half) / (1 + half * len(side)) for side in (live, base)]


def _chi_squared(freedom: int, level: float) -> float:
    """The quantile of χ², by Wilson and Hilferty's cube root (1931); within 1 % from 3 degrees of freedom on."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + NormalDist().inv_cdf(level) * math.sqrt(part)) ** 3)
