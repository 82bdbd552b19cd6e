"""The calibration error beside what chance alone would show, for no small sample looks calibrated. Pure numpy.

The expected calibration error adds up absolute gaps, so the noise of each bin counts as error and the sum leans upwards
(Nixon et al. 2019; Roelofs et al. 2022). Two figures help to judge one:

- the same error in bins of equal count, which no empty or crowded bin distorts;
- the error of a perfectly calibrated model with these very scores: decisions that come true exactly as often as their
  scores say are drawn again and again. An error inside that range is no sign of bad calibration.
"""

import numpy as np

from ml import metrics
from ml.metrics import BINS, Array, Scored

_DRAWS = 1 << 27  # decisions drawn in all: a second or so
_BLOCK = 1 << 22


def equal_count_edges(scored: Scored, bins: int = BINS) -> Array:
    """Ascending inner edges that part the known decisions into `bins` of like count; fewer where scores are equal."""
    confidence, _, counted = metrics.decisions(scored)
    known = confidence[counted]
    if not known.size:
        return np.zeros(0)
    return np.unique(np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf"))


def by_chance(
    scored: Scored, *, rounds: int = 1000, seed: int = 0, level: float = 0.95, bins: int = BINS
) -> tuple[float, float, float]:
    """(mean, low, high) of the calibration error, in bins of equal width, that a perfectly calibrated model with these
    scores shows on as many pictures. NaN where nothing is known.

    Decisions are drawn one by one, so it is less than chance where pictures come in clusters.
    """
    confidence, _, counted = metrics.decisions(scored)
    known = np.sort(confidence[counted])
    if not known.size:
        return (float("nan"),) * 3
    place = np.clip(np.ceil(known * bins).astype(int) - 1, 0, bins - 1)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    expected = np.add.reduceat(known, starts)
    random = np.random.default_rng(seed)
    left = max(100, min(rounds, _DRAWS // known.size))
    errors = []
    while left > 0:
        rows = min(left, max(1, _BLOCK // known.size))
        hits = np.add.reduceat(random.random((rows, known.size)) < known, starts, axis=1, dtype=np.int64)
        errors.append(np.abs(hits - expected).sum(1) / known.size)
        left -= rows
    found = np.concatenate(errors)
    low, high = np.quantile(found, ((1 - level) / 2, (1 + level) / 2))
    return float(found.mean()), float(low), float(high)
