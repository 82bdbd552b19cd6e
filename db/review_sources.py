"""Which automatic verdicts people shall look at: those in doubt, and a random sample of the others. Pure: no I/O."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from db.review_queue import Audit, Candidate

UNKNOWN_RISK: Final = 0.5
"""Of a picture without any score, as when no model is active."""
AUDIT_RISK: Final = 0.1
"""The order of audits must not tell what the machine thinks: all have this one."""


def candidate(
    account_id: int, job_id: UUID, seq: int, sha256: bytes, context: str, moderation: Mapping[str, Any], share: float
) -> Candidate | None:
    """What a moderation object means for the queue; None: nothing. `share` of approvals and rejections is audited."""
    verdict = moderation["verdict"]
    policy = moderation.get("policy")
    if verdict == "review":
        reasons = moderation.get("reasons") or []
        return Candidate(job_id, seq, sha256, context, main_code(reasons), policy, risk=risk(reasons))
    if share > 0 and drawn(account_id, sha256, context) < share:
        return Candidate(
            job_id, seq, sha256, context, "audit", policy, risk=AUDIT_RISK, audit=Audit(verdict, min(share, 1.0))
        )
    return None


def main_code(reasons: Sequence[Mapping[str, Any]]) -> str:
    """The code of the first reason that asks for people."""
    asking = [reason for reason in reasons if reason.get("verdict") == "review"] or reasons
    return str(asking[0]["code"]) if asking else "review"


def risk(reasons: Iterable[Mapping[str, Any]]) -> float:
    """How likely the picture breaks the rules, 0…1: the highest score that a reason names."""
    scores = [reason["score"] for reason in reasons if isinstance(reason.get("score"), int | float)]
    known = [score for score in scores if score == score]  # a NaN is no score
    return max(known, default=UNKNOWN_RISK)


def main_class(moderation: Mapping[str, Any]) -> str:
    """What the machine takes the picture for: the class of its highest score, "none" without scores."""
    scores = moderation.get("scores") or {}
    known = {name: score for name, score in scores.items() if isinstance(score, int | float) and score == score}
    return max(known, key=lambda name: (known[name], name), default="none")


def drawn(account_id: int, sha256: bytes, context: str) -> float:
    """A number in 0…1 that is the same for a picture in a context wherever it comes up: a picture is drawn once or
    never, so that the ones seen often are not drawn more often."""
    digest = hashlib.sha256(b"audit\0%d\0%s\0%s" % (account_id, sha256, context.encode())).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64
