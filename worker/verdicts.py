"""From scores to what is stored and answered: analyses, tags, moderation. Pure: no I/O, no clock, no torch."""

from collections.abc import Mapping
from typing import Any, Protocol

from db.policy import Policy, decide

STORED_TAGS = 20  # more than a job may ask for: a stored analysis serves later jobs with other limits


class Tag(Protocol):
    """One label with its score in 0…1."""

    @property
    def label(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def score(self) -> float: ...


class Scores(Protocol):
    """What a predictor says of one picture for one model."""

    @property
    def task(self) -> str: ...
    def top(self, k: int, min_score: float = 0.0) -> list[Any]: ...
    def as_dict(self) -> dict[str, float]: ...


def stored(scores: Scores) -> dict[str, Any]:
    """The form in which an analysis is kept: the best tags, or all classes of a moderation model."""
    if scores.task == "moderation":
        return {"scores": {name: round(value, 6) for name, value in scores.as_dict().items()}}
    best = [{"label": t.label, "group": t.group, "score": round(t.score, 6)} for t in scores.top(STORED_TAGS)]
    return {"tags": best}


def tags(analysis: Mapping[str, Any], model: str, *, top_k: int, min_score: float) -> list[dict[str, Any]]:
    """The tags of a result row, best first, from a stored analysis of `model`."""
    good = [tag for tag in analysis["tags"] if tag["score"] >= min_score]
    return [{**tag, "model": model} for tag in good[:top_k]]


def moderation(analysis: Mapping[str, Any] | None, model: str | None, policy: Policy) -> dict[str, Any]:
    """The verdict of a result row. Without a moderation model there are no scores and people must look: `review`."""
    scores = None if analysis is None else analysis["scores"]
    verdict = decide(policy, scores)
    return {
        "scores": scores or {},
        "verdict": verdict.verdict,
        "reasons": verdict.reasons,
        "policy": policy.ref,
        "model": model,
    }
