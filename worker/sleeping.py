"""A predictor that sleeps instead of computing, for test builds: what the line does when no core is the limit."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml.card import ModelCard
from ml.scores import LabelSet, Scores

BATCH_SIZE = 8


class SleepingPredictor:
    """Takes so long for each picture, decodes none, and says the same of all: every label as likely as the others."""

    def __init__(self, cards: Sequence[ModelCard], *, seconds: float, batch_size: int | None = None) -> None:
        self.batch_size = batch_size or BATCH_SIZE
        self._seconds = seconds
        self._said = {card.ref: _even(LabelSet(card)) for card in cards}

    @property
    def backends(self) -> Mapping[str, Any]:
        """None: nothing is run."""
        return {}

    def prepare(self, data: bytes) -> None:
        """Nothing."""

    def predict(self, pictures: Sequence[None]) -> list[dict[str, Scores]]:
        """The same scores for each, after the time that they take."""
        time.sleep(self._seconds * len(pictures))
        return [self._said] * len(pictures)


def _even(labels: LabelSet) -> Scores:
    return Scores(labels, np.full(len(labels.labels), 1 / len(labels.labels), np.float32))
