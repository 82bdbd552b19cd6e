"""From scores to what is stored and answered: analyses, tags, moderation. Pure: no I/O, no clock, no torch."""

from collections.abc import Mapping
from typing import Any, Protocol

from db.policy import Evidence, Policy, decide

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


def moderation(policy: Policy, evidence: Evidence, model: str | None) -> dict[str, Any]:
    """The verdict of a result row, by `policy` and rule; `model`: whose scores the evidence has, if any."""
    verdict = decide(policy, evidence)
    row = {
        "scores": dict(evidence.scores or {}),
        "verdict": verdict.verdict,
        "reasons": verdict.reasons,
        "rule": verdict.rule,
        "policy": policy.ref,
        "model": model,
    }
    if evidence.hits:
        row["hits"] = [
            {"bank": hit.bank, "kind": hit.kind, "entry": str(hit.entry), "distance": hit.distance}
            for hit in evidence.hits
        ]
    return row
