"""Pictures in doubt: what an entry of a hash bank hit in the hour before it went into quarantine goes to people, by
whatever policy, and however often it is decided again, until the entry is released or removed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import banks, policy
from db.policy import Policy, Verdict
from db.policy_evidence import Evidence, Hit

QUARANTINED: Final = "bank_quarantined"
"""Why people look at a picture: the entry that had decided on it suddenly hit too much."""


def suspended(session: Session, account_id: int, shas: Sequence[bytes]) -> dict[bytes, list[Hit]]:
    """Of these pictures of an account, the hits of the hour before their entry went into quarantine."""
    return banks.by_picture(session.execute(_SUSPENDED, {"account_id": account_id, "shas": list(shas)}))


def decide(rules: Policy, evidence: Evidence, doubted: Sequence[Hit]) -> Verdict:
    """The verdict of a policy on a picture with these suspended hits: for people, where their entries would have
    decided it."""
    without = policy.decide(rules, evidence)
    if not doubted or without.verdict == "reject":
        return without
    with_it = policy.decide(rules, replace(evidence, hits=[*evidence.hits, *doubted]))
    if (with_it.verdict, with_it.rule) == (without.verdict, without.rule):
        return without
    reasons = [
        {"code": QUARANTINED, "verdict": "review", "bank": hit.bank, "kind": hit.kind, "entry": str(hit.entry)}
        for hit in doubted
    ]
    return Verdict("review", [*reasons, *without.reasons])


def entries(moderation: Mapping[str, Any]) -> set[str]:
    """The entries that a stored verdict took into account: those that it hit, and those in quarantine."""
    doubted = {reason["entry"] for reason in moderation["reasons"] if reason["code"] == QUARANTINED}
    return doubted | {hit["entry"] for hit in moderation.get("hits") or ()}


_SUSPENDED = text(
    """
    SELECT h.sha256, h.entry_id, h.distance, b.name, b.kind, e.reason, e.share
    FROM hash_hits h JOIN hash_entries e ON e.id = h.entry_id JOIN hash_banks b ON b.id = e.bank_id
    WHERE h.account_id = :account_id AND h.sha256 = ANY(:shas) AND NOT h.retroactive
      AND e.quarantined_at IS NOT NULL AND h.created_at > e.quarantined_at - interval '1 hour'
      AND e.removed_at IS NULL AND e.enabled AND b.removed_at IS NULL AND b.enabled AND h.distance <= b.distance
    ORDER BY h.distance, h.entry_id
    """
)
