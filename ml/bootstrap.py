"""Percentile bootstrap: how far a figure may lie from the truth because the pictures are a sample. Pure numpy.

A resample is a row of weights: how often each picture was drawn. So a figure that knows weights (`ml.metrics`) gets
all its resamples from a few matrix products.

Nothing is stratified by label. The test pictures' share of each label is itself a sample, and resampling within
labels would hide that part of the uncertainty: intervals would be too narrow for accuracy and precision. What is
not independent, however, must be drawn together: pictures of one person, or near-duplicates. `clusters` draws whole
clusters; the intervals then are wider, and honest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from ml.metrics import Array

ROUNDS = 1000
LEVEL = 0.95
_BLOCK = 1 << 22  # weights held at once: 32 MiB

Statistic = Callable[[Array], Mapping[str, Array]]


class Drawing(TypedDict):
    """How resamples are drawn: how many, from which seed, and the share of them that an interval holds."""

    rounds: int
    seed: int
    level: float


def resamples(
    size: int, *, rounds: int = ROUNDS, seed: int = 0, clusters: Sequence[object] | None = None
) -> Iterator[Array]:
    """Blocks of weights b×size, `rounds` rows in all; the same seed gives the same rows.

    Without `clusters` every row sums to `size`. With them, as many clusters are drawn as there are, and the rows'
    sums vary as the clusters' sizes do.
    """
    if clusters is not None and len(clusters) != size:
        raise ValueError(f"{len(clusters)} clusters for {size} pictures")
    members = np.arange(size) if clusters is None else _numbered(clusters)
    units = int(members.max(initial=-1)) + 1
    random = np.random.default_rng(seed)
    at_once = max(1, _BLOCK // max(1, size))
    for start in range(0, rounds, at_once):
        rows = min(at_once, rounds - start)
        drawn = random.integers(units, size=(rows, units)) if units else np.zeros((rows, 0), np.int64)
        drawn += units * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        yield weights[:, members].astype(np.float64)


def intervals(
    statistic: Statistic,
    size: int,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    level: float = LEVEL,
    clusters: Sequence[object] | None = None,
) -> dict[str, tuple[Array, Array]]:
    """The percentile interval (low, high) of every figure that `statistic` gives for a block of weights.

    A resample in which a figure is undefined says nothing about it and is left out. The ends are NaN where nothing is
    left, and where every resample gives the same value: four pictures, all wrong, are no proof of an F1 of exactly 0.
    """
    blocks: dict[str, list[Array]] = {}
    for weights in resamples(size, rounds=rounds, seed=seed, clusters=clusters):
        for name, values in statistic(weights).items():
            blocks.setdefault(name, []).append(values)
    ends = ((1 - level) / 2, (1 + level) / 2)
    return {name: _quantiles(np.concatenate(values), ends) for name, values in blocks.items()}


def wilson(hits: Array, count: Array, z: float = 1.959963984540054) -> tuple[Array, Array]:
    """The Wilson score interval of a share; for the bins of a diagram, where n is small and no resample is needed."""
    n = np.maximum(count, 1e-12)
    share = hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.where(count > 0, centre - half, np.nan), np.where(count > 0, centre + half, np.nan)


def _quantiles(values: Array, ends: tuple[float, float]) -> tuple[Array, Array]:
    # fmax and fmin pass over NaN; compared with a hair of tolerance, for the resamples are sums of floats.
    spread = np.fmax.reduce(values, axis=0) - np.fmin.reduce(values, axis=0)
    silent = ~(spread > 1e-12)
    low, high = np.nanquantile(np.where(silent, 0.0, values), ends, axis=0)
    return np.where(silent, np.nan, low), np.where(silent, np.nan, high)


def _numbered(clusters: Sequence[object]) -> npt.NDArray[np.int64]:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], np.int64)
