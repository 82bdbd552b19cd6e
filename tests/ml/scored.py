"""Random scores beside random truths, as plain data and as hypothesis draws them. Judges nothing."""

import numpy as np
from hypothesis import strategies as st

from ml.metrics import UNKNOWN, Array, Scored


def exclusive(
    pictures: int, labels: int, seed: int, *, unknown: float = 0.0, thresholds: Array | None = None, skill: float = 1.0
) -> Scored:
    """Softmax scores that know the truth a little; `unknown` of the pictures have none."""
    random = np.random.default_rng(seed)
    true = random.integers(labels, size=pictures)
    logits = random.normal(size=(pictures, labels)) + skill * np.eye(labels)[true]
    powers = np.exp(logits)
    truth = np.eye(labels, dtype=np.int8)[true]
    truth[random.random(pictures) < unknown] = UNKNOWN
    cuts = np.zeros(labels) if thresholds is None else thresholds
    return Scored("exclusive", names(labels), powers / powers.sum(1, keepdims=True), truth, cuts)


def attributes(pictures: int, labels: int, seed: int, *, unknown: float = 0.0) -> Scored:
    """Sigmoid scores and thresholds of their own for each label; `unknown` of the cells have no truth."""
    random = np.random.default_rng(seed)
    truth = (random.random((pictures, labels)) < 0.4).astype(np.int8)
    scores = 1 / (1 + np.exp(-random.normal(size=truth.shape) - 2 * truth + 1))
    truth[random.random(truth.shape) < unknown] = UNKNOWN
    return Scored("attributes", names(labels), scores, truth, random.uniform(0.2, 0.8, labels))


def names(labels: int) -> tuple[str, ...]:
    return tuple(f"label {at}" for at in range(labels))


sizes = st.tuples(st.integers(1, 60), st.integers(2, 6), st.integers(0, 10_000))
shares = st.sampled_from([0.0, 0.3])
