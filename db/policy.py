"""The policy engine: class scores in, a verdict with reasons out. Pure: no I/O, no clock, no torch.

A document names thresholds per class; the most severe verdict that any class reaches is the picture's:

    {"name": "default", "version": 1, "thresholds": {"Porn": {"review": 0.3, "reject": 0.85}}}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.states import VERDICTS


class PolicyError(ValueError):
    """The document is not a policy; `field` says where."""

    code = "invalid_policy"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


@dataclass(frozen=True)
class Policy:
    """`thresholds`: class → verdict (review, reject) → the score in 0..1 from which it holds, inclusive."""

    name: str
    version: int
    thresholds: Mapping[str, Mapping[str, float]]

    @property
    def ref(self) -> str:
        """How results name it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Verdict:
    """approve, review or reject, and why: [{code, class, score, threshold, verdict}]."""

    verdict: str
    reasons: list[dict[str, Any]]


def validate(document: Mapping[str, Any]) -> Policy:
    """The policy that a document describes; PolicyError names the field that is wrong."""
    unknown = set(document) - {"name", "version", "thresholds"}
    if unknown:
        raise PolicyError(sorted(unknown)[0], "unknown field")
    name, version = document.get("name"), document.get("version")
    if not isinstance(name, str) or not name:
        raise PolicyError("name", "must be a non-empty string")
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise PolicyError("version", "must be an integer from 0")
    thresholds = document.get("thresholds")
    if not isinstance(thresholds, Mapping):
        raise PolicyError("thresholds", "must map classes to thresholds")
    for label, levels in thresholds.items():
        _check_levels(f"thresholds.{label}", levels)
    return Policy(name, version, thresholds)


def _check_levels(field: str, levels: object) -> None:
    if not isinstance(levels, Mapping) or not levels:
        raise PolicyError(field, "must name review, reject or both")
    for verdict, threshold in levels.items():
        if verdict not in ("review", "reject"):
            raise PolicyError(f"{field}.{verdict}", "must be review or reject")
        number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if not number or not 0.0 < threshold <= 1.0:
            raise PolicyError(f"{field}.{verdict}", "must be a number above 0 and up to 1")
    if levels.get("review", 0.0) > levels.get("reject", 1.0):
        raise PolicyError(field, "review must not need a higher score than reject")


def decide(policy: Policy, scores: Mapping[str, float] | None) -> Verdict:
    """The verdict on a picture's class scores. Without scores (no model, or it failed) never `approve`; a class that
    the policy names and the model does not know sends the picture to review."""
    if scores is None:
        return Verdict("review", [{"code": "no_moderation_model", "verdict": "review"}])
    reasons: list[dict[str, Any]] = []
    for label, levels in policy.thresholds.items():
        if label not in scores:
            reasons.append({"code": "class_not_scored", "class": label, "verdict": "review"})
            continue
        score = scores[label]
        for verdict in ("reject", "review"):
            # `not score < t`: a NaN score is never an approval.
            if verdict in levels and not score < levels[verdict]:
                reasons.append(
                    {
                        "code": f"{label.lower()}_{verdict}",
                        "class": label,
                        "score": round(score, 5),
                        "threshold": levels[verdict],
                        "verdict": verdict,
                    }
                )
                break
    verdict = max((reason["verdict"] for reason in reasons), key=VERDICTS.index, default="approve")
    return Verdict(verdict, reasons)
