"""Statements of reasons: why a picture has the verdict that it has, for the person concerned. Never who decided.

The parts are those of Article 17 (3) of Regulation (EU) 2022/2065, as far as they can be known here: facts and
circumstances (b), automated means (c), legal or contractual ground (d, e), redress (f). What the platform does about a
verdict, where and for how long (a), only the platform knows.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import appeals
from db.errors import Conflict
from db.evidence_tables import AppealRow
from db.items import ItemView
from db.moderation_tables import ModerationRow
from db.tables import Job

LAW: Final = "Regulation (EU) 2022/2065, Article 17"
_CONTENT: Final = ("sha256", "width", "height", "format", "bytes")


def statement(session: Session, account_id: int, item: ItemView, upload: ModerationRow | None = None) -> dict[str, Any]:
    """What is decided about an item now, and why. `upload`: the moderation it is of. Conflict without a verdict."""
    moderation = item.moderation
    if moderation is None or item.facts is None:
        raise Conflict("There is no verdict on this picture, so there is nothing to state.")
    about = appeals.standing(session, account_id, item)
    appeal = appeals.newest(session, account_id, item.job_id, item.seq)
    decision = moderation["decision"]
    kind, decided_at = _last_change(session, account_id, item)
    if decision is not None:
        kind, decided_at = decision["kind"], decision["at"]
    return {
        "item_id": item.item_id,
        "moderation_id": None if upload is None else upload.id,
        "subject": None if upload is None else {"user": upload.subject_user, "product": upload.subject_product},
        "context": about.context,
        "verdict": moderation["verdict"],
        "decision": {
            "id": None if decision is None else decision["id"],
            "kind": kind,
            "decided_by": "automation" if decision is None else "person",
            "received_at": _received(session, account_id, item.job_id),
            "decided_at": decided_at,
        },
        "facts": _facts(item, moderation),
        "automation": {
            "detection": any(each.get("rule") for each in moderation["reasons"] if each.get("verdict") != "approve"),
            "decision": "fully" if decision is None and moderation["verdict"] != "review" else "not",
            "automatic_verdict": moderation["automatic"],
            "model": moderation["model"],
        },
        "ground": _ground(moderation),
        "redress": _redress(about.refusal, appeal),
        "law": LAW,
    }


def _facts(item: ItemView, moderation: dict[str, Any]) -> dict[str, Any]:
    """What the verdict relies on. Of a bank's entry its distance and reason, never its hash, nor the picture's own PDQ
    hash, which would give it away."""
    facts = item.facts or {}
    why = {each.get("entry"): each.get("bank_reason") for each in moderation["reasons"]}
    hits = [
        {
            **{key: hit.get(key) for key in ("bank", "kind", "distance")},
            "reason": why.get(hit["entry"], hit.get("reason")),
        }
        for hit in moderation.get("hits") or ()
    ]
    return {
        "content": {key: facts[key] for key in _CONTENT},
        "reasons": [{key: value for key, value in each.items() if key != "entry"} for each in moderation["reasons"]],
        "scores": moderation["scores"],
        "bank_hits": hits,
    }


def _ground(moderation: dict[str, Any]) -> dict[str, Any]:
    """Which term of the policy the picture breaks: a person's code and words, else those of the reason that decided."""
    decision = moderation["decision"]
    reasons = [each for each in moderation["reasons"] if each.get("verdict") == moderation["verdict"]]
    rule = moderation.get("rule")
    said: dict[str, Any] = next((each for each in reasons if each.get("rule") == rule), next(iter(reasons), {}))
    if decision is not None:
        said = {"code": decision["code"], "text": decision["text"]}
        rule = None
    return {
        "kind": "contractual",
        "policy": moderation["policy"],
        "rule": rule,
        "code": said.get("code"),
        "text": said.get("text"),
    }


def _redress(refusal: str | None, appeal: AppealRow | None) -> dict[str, Any]:
    state = None if appeal is None else appeal.state
    if refusal is None and state == "open":
        refusal = "An appeal against this verdict is open."
    return {
        "appeal_possible": refusal is None,
        "refusal": refusal,
        "appeal_id": None if appeal is None else appeal.id,
        "appeal_state": state,
    }


def _received(session: Session, account_id: int, job_id: UUID) -> datetime | None:
    return session.scalar(select(Job.created_at).where(Job.account_id == account_id, Job.id == job_id))


def _last_change(session: Session, account_id: int, item: ItemView) -> tuple[str, datetime | None]:
    """What gave the automatic verdict its present form, and when: the line itself, or a later re-decision."""
    parameters = {"account_id": account_id, "job_id": item.job_id, "seq": item.seq}
    row = session.execute(_LAST_CHANGE, parameters).first()
    return ("automatic", item.finished_at) if row is None else (row.kind, row.created_at)


_LAST_CHANGE = text(
    """
    SELECT kind, created_at FROM decisions
    WHERE account_id = :account_id AND job_id = :job_id AND seq = :seq AND kind IN ('policy', 'bank', 'rerun')
    ORDER BY id DESC LIMIT 1
    """
)
