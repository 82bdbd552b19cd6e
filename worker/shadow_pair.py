"""Two models over the same working copies: the scores of both, picture by picture, and the time that each took.

What one of them cannot score is a value in the answer; nothing but a fault of ours is raised.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from db.errors import BlobError
from db.shadow_sample import Compared, SamplePicture, Side, Spent
from ml import batcher
from ml.artifact import Artifact
from ml.batcher import Failure
from ml.disagreement import Pair
from ml.errors import ModelError
from ml.predictor import Predictor
from ml.scores import Scores
from worker import verdicts
from worker.infer_stream import CODES

Read = Callable[[SamplePicture], bytes]
# What a network may raise on a batch: of torch and of the device come RuntimeError, ValueError and MemoryError.
_DOES_NOT_SCORE = (ModelError, RuntimeError, ValueError, MemoryError)


@dataclass
class Outcome:
    """What comes of a turn: `analyses` are the candidate's scores by account and bytes, in their stored form."""

    compared: list[Compared] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    agreed: dict[str, int] = field(default_factory=dict)
    analyses: dict[int, dict[bytes, dict[str, Any]]] = field(default_factory=dict)


class Models:
    """The active model and the candidate, loaded. Raises what a model that does not load raises."""

    def __init__(
        self, active: Artifact, candidate: Artifact, *, device: str, backend: str, batch_size: int | None
    ) -> None:
        self.active, self.candidate = active.card, candidate.card
        self._predictors = [
            Predictor([artifact], device=device, backend=backend, batch_size=batch_size, threads=1)
            for artifact in (active, candidate)
        ]
        # Of a process, not of the wall: the line has the right of way, and what waits for it is no cost of a model.
        self._clock = time.perf_counter if device.startswith("cuda") else time.process_time

    def compare(self, pictures: Sequence[SamplePicture], read: Read) -> Outcome:
        """Score these pictures with both."""
        data: dict[int, bytes] = {}
        failed: dict[int, tuple[Side, Failure]] = {}
        for n, picture in enumerate(pictures):
            try:
                data[n] = read(picture)
            except (BlobError, OSError) as error:
                failed[n] = ("picture", Failure(str(getattr(error, "code", "blob_missing")), str(error)))
        active, active_s = self._scored(self._predictors[0], data)
        candidate, candidate_s = self._scored(self._predictors[1], data)
        for n in data:
            # A copy that not even the active model takes says nothing of the candidate.
            ours, theirs = active[n], candidate[n]
            if isinstance(ours, Failure):
                failed[n] = ("active", ours)
            elif isinstance(theirs, Failure):
                failed[n] = ("candidate", theirs)
        outcome = Outcome(spent=Spent(active_s, candidate_s))
        for n, picture in enumerate(pictures):
            if n in failed:
                side, failure = failed[n]
                outcome.compared.append(Compared(picture, side=side, code=CODES.get(failure.code, failure.code)))
        whole = [(pictures[n], _scores(active[n]), _scores(candidate[n])) for n in data if n not in failed]
        for picture, of_active, of_candidate in whole:
            outcome.compared.append(Compared(picture, _rounded(of_active), _rounded(of_candidate)))
            outcome.analyses.setdefault(picture.account_id, {})[picture.sha256] = verdicts.stored(of_candidate)
        outcome.agreed = self._agreed([each[1] for each in whole], [each[2] for each in whole])
        return outcome

    def _agreed(self, active: Sequence[Scores], candidate: Sequence[Scores]) -> dict[str, int]:
        if not active:
            return {}
        pair = Pair(
            self.active,
            self.candidate,
            np.stack([scores.values for scores in active]),
            np.stack([scores.values for scores in candidate]),
        )
        return {each.group: each.agree for each in pair.agreements()}

    def _scored(
        self, predictor: Predictor, data: Mapping[int, bytes]
    ) -> tuple[dict[int, Mapping[str, Scores] | Failure], float]:
        started = self._clock()
        try:
            found = _stream(predictor, data)
        except _DOES_NOT_SCORE:
            found = {n: _alone(predictor, n, copy) for n, copy in data.items()}  # one of them spoils the batch, or all
        return found, self._clock() - started


def _stream(predictor: Predictor, data: Mapping[int, bytes]) -> dict[int, Mapping[str, Scores] | Failure]:
    sources = ((n, partial(bytes, copy)) for n, copy in data.items())
    return dict(batcher.stream(sources, predictor, decode_threads=1))


def _alone(predictor: Predictor, n: int, copy: bytes) -> Mapping[str, Scores] | Failure:
    try:
        return _stream(predictor, {n: copy})[n]
    except _DOES_NOT_SCORE as error:
        return Failure(str(getattr(error, "code", "inference_failed")), str(error))


def _scores(result: Mapping[str, Scores] | Failure) -> Scores:
    """The scores of the one model."""
    assert not isinstance(result, Failure)
    (scores,) = result.values()
    return scores


def _rounded(scores: Scores) -> list[float]:
    return [round(value, 6) for value in scores.values.tolist()]
