"""Intervals and agreement, with their sources. Pure: numbers in, numbers out; no library, since the API runs without
one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

CONFIDENCE: Final = 0.95
_STEPS: Final = 200
_TINY: Final = 1e-300


@dataclass(frozen=True)
class Estimate:
    """A number between its bounds; `n`: observations behind it. Without any, all three are None."""

    value: float | None
    low: float | None
    high: float | None
    n: int


NOTHING: Final = Estimate(None, None, None, 0)


def wilson(hits: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share with Wilson's score interval (E. B. Wilson, JASA 22, 1927, 209–212)."""
    if n == 0:
        return NOTHING
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), n)


def clopper_pearson(hits: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a share (C. J. Clopper, E. S. Pearson, Biometrika 26, 1934, 404–413), as quantiles of the
    beta distribution; `n` need not be whole (E. L. Korn, B. I. Graubard, Survey Methodology 24, 1998, 193–201)."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits <= 0 else _quantile(lambda p: beta(hits, n - hits + 1, p), tail, 0.0, 1.0)
    high = 1.0 if hits >= n else _quantile(lambda p: beta(hits + 1, n - hits, p), 1 - tail, 0.0, 1.0)
    return low, high


def weighted_share(groups: Sequence[tuple[int, int, float]], confidence: float = CONFIDENCE) -> Estimate:
    """A share of a population of which groups were drawn with different shares: (hits, drawn, weight = 1 / share) each.
    Clopper and Pearson's interval at Kish's effective number (Σw)² / Σw², which is the number itself where all weights
    are equal."""
    total = sum(n * weight for _, n, weight in groups)
    if total <= 0:
        return NOTHING
    p = sum(hits * weight for hits, _, weight in groups) / total
    effective = total * total / sum(n * weight * weight for _, n, weight in groups)
    low, high = clopper_pearson(p * effective, effective, confidence)
    return Estimate(p, low, high, sum(n for _, n, _ in groups))


def weighted_count(groups: Sequence[tuple[int, float]], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """How many there are in the whole when each of `hits` found stands for `weight`: the sum, and its gamma interval
    (M. P. Fay, E. J. Feuer, Statistics in Medicine 16, 1997, 791–801). With one weight it is the exact interval of a
    Poisson number, which a number of finds in a random sample never exceeds in spread."""
    tail = (1 - confidence) / 2
    y = sum(hits * weight for hits, weight in groups)
    v = sum(hits * weight * weight for hits, weight in groups)
    heaviest = max((weight for _, weight in groups), default=0.0)
    if heaviest == 0:
        return 0.0, 0.0, 0.0
    low = 0.0 if y == 0 else v / y * _gamma_quantile(y * y / v, tail)
    above, spread = y + heaviest, v + heaviest * heaviest
    return y, low, spread / above * _gamma_quantile(above * above / spread, 1 - tail)


def kappa(table: Sequence[Sequence[int]], confidence: float = CONFIDENCE) -> Estimate:
    """Agreement beyond chance of two opinions, `table[i][j]` pictures of which the first said i and the second j, with
    the standard error of its inventor (J. Cohen, Educational and Psychological Measurement 20, 1960, 37–46). None where
    chance alone would agree always: all said the same."""
    n = sum(map(sum, table))
    if n == 0:
        return NOTHING
    size = range(len(table))
    observed = sum(table[i][i] for i in size) / n
    chance = sum(sum(table[i]) * sum(row[i] for row in table) for i in size) / (n * n)
    if chance >= 1:
        return Estimate(None, None, None, n)
    value = (observed - chance) / (1 - chance)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(observed * (1 - observed) / n) / (1 - chance)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), n)


def beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - beta(b, a, 1 - x)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _STEPS * 10):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(front) * value / a


def gamma(a: float, x: float) -> float:
    """The regularised lower incomplete gamma function: a series (DLMF 8.11.4) below a + 1, above it the continued
    fraction of its complement (DLMF 8.9.2)."""
    if x <= 0:
        return 0.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for n in range(1, _STEPS * 100):
            term *= x / (a + n)
            total += term
            if term < total * 1e-16:
                break
        return front * total
    b = x + 1 - a
    c, d = 1 / _TINY, 1 / b
    value = d
    for n in range(1, _STEPS * 100):
        term = -n * (n - a)
        b += 2
        d = 1 / _away(term * d + b)
        c = _away(b + term / c)
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return 1 - front * value


def _away(value: float) -> float:
    """Lentz's method divides by it: never by nothing."""
    return value if abs(value) > _TINY else _TINY


def _gamma_quantile(a: float, p: float) -> float:
    high = a + 1
    while gamma(a, high) < p:
        high *= 2
    return _quantile(lambda x: gamma(a, x), p, 0.0, high)


def _quantile(rising: Callable[[float], float], p: float, low: float, high: float) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if rising(middle) < p else (low, middle)
    return (low + high) / 2
