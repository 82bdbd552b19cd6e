"""Verdicts decided again because what hash banks say of a picture changed: a ban, its end, or a quarantine.

    pictures → every result of theirs with a verdict → the evidence there is, with the hits that count now → `decide`
    → what differs is written by `db.redecide`; a person's approval that meets a ban goes to the review queue

The policy is the one that the verdict names. The models are not asked again: a picture that was never scored, because
a ban had settled its verdict, has no scores when the ban ends, and the policy says what happens then (to people,
unless it says otherwise).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import bank_changes, bank_doubt, banks, decisions, policy, redecide, review_queue
from db.policy import Policy
from db.policy_evidence import Evidence, Hit, facts
from db.redecide import Change
from db.review_queue import Candidate

BANNED_RISK: Final = 1.0


@dataclass(frozen=True, slots=True)
class Redecided:
    """`results` looked at, `changed` written; `kept`: pictures that a person approved and a bank now blocks."""

    results: int = 0
    changed: int = 0
    kept: int = 0

    def __add__(self, other: "Redecided") -> "Redecided":
        return Redecided(self.results + other.results, self.changed + other.changed, self.kept + other.kept)


def redecide_pictures(session: Session, account_id: int, shas: Sequence[bytes], actor: str) -> Redecided:
    """Decide every result of these pictures of an account again, and write what differs.

    What another transaction changed meanwhile is left alone and noted, to be decided once more.
    """
    rows = session.execute(_RESULTS, {"account_id": account_id, "shas": list(shas)}).all()
    if not rows:
        return Redecided()
    hits = banks.hits_of(session, account_id, shas)
    suspended = bank_doubt.suspended(session, account_id, shas)
    policies = _Policies(session, account_id)
    changes: list[Change] = []
    for row in rows:
        sha = bytes(row.sha256)
        made = _change(row, policies.of(row), hits.get(sha, []), suspended.get(sha, []))
        changes += [] if made is None else [made]
    written = redecide.apply(session, account_id, changes, kind="bank", actor=actor)
    missed = {change.sha256 for change in changes} - {change.sha256 for change in written}
    bank_changes.recheck(session, account_id, sorted(missed))
    return Redecided(len(rows), len(written), _against_people(session, account_id, written))


def note_late(session: Session, account_id: int, decided: Mapping[bytes, Iterable[str]]) -> None:
    """Of pictures that were just decided by these entries (ids), note those whose hits are others by now: a change of
    a bank came while they were being scored, or an entry that hit them is in quarantine since. To be called under
    `bank_changes.share_lock`."""
    now = banks.hits_of(session, account_id, list(decided))
    doubted = bank_doubt.suspended(session, account_id, list(decided))
    late = [
        sha
        for sha, used in decided.items()
        if set(used) != {str(hit.entry) for hit in (*now.get(sha, ()), *doubted.get(sha, ()))}
    ]
    bank_changes.recheck(session, account_id, late)


def _change(row: Any, rules: Policy, hits: Sequence[Hit], suspended: Sequence[Hit]) -> Change | None:
    """What becomes of a result; None where nothing does."""
    verdict = bank_doubt.decide(rules, _evidence(row, hits), suspended)
    before = row.moderation
    patch = redecide.patch(rules, verdict, hits)
    entries = {hit["entry"] for hit in before.get("hits") or ()}
    same = (verdict.verdict, verdict.rule) == (before["verdict"], before.get("rule"))
    if same and patch["reasons"] == before["reasons"] and entries == {hit["entry"] for hit in patch["hits"]}:
        return None
    was = (before["verdict"], before.get("rule"), before["policy"])
    return Change(row.bucket, row.job_id, row.seq, bytes(row.sha256), row.context, was, patch)


def _evidence(row: Any, hits: Sequence[Hit]) -> Evidence:
    moderation = row.moderation
    scores = moderation["scores"] or (row.analysis or {}).get("scores")
    return Evidence(
        scores=scores or None,
        tags=None if row.tagged is None else row.tagged["tags"],
        facts=facts(
            width=row.width,
            height=row.height,
            bytes=row.bytes,
            format=row.format,
            sharpness=row.sharpness,
            pdq_quality=row.pdq_quality,
        ),
        hits=hits,
        context=row.context,
        account=row.account,
        category=row.category,
        late=any(reason["code"] == "moderation_late" for reason in moderation["reasons"]),
    )


class _Policies:
    """The policies that verdicts name, read once each."""

    def __init__(self, session: Session, account_id: int) -> None:
        self._session = session
        self._account_id = account_id
        self._known: dict[tuple[str, UUID], Policy] = {}

    def of(self, row: Any) -> Policy:
        """The policy of a result's verdict: its job's, or the one that it was decided again by."""
        key = (row.moderation["policy"], row.job_id)
        if key not in self._known:
            self._known[key] = self._read(row.moderation["policy"], row.policy)
        return self._known[key]

    def _read(self, ref: str, pinned: Mapping[str, Any]) -> Policy:
        own = policy.validate(pinned)
        if own.ref == ref:
            return own
        name, _, version = ref.rpartition("@")
        parameters = {"account_id": self._account_id, "name": name, "version": int(version)}
        document = self._session.scalar(_DOCUMENT, parameters) if name else None
        return own if document is None else policy.validate(document)


def _against_people(session: Session, account_id: int, written: Sequence[Change]) -> int:
    """Tasks for approved pictures that are blocked now; how many pictures."""
    blocked = [
        change
        for change in written
        if change.patch["verdict"] == "reject" and any(hit["kind"] == "block" for hit in change.patch["hits"])
    ]
    tasks: list[Candidate] = []
    for context in sorted({change.context for change in blocked}):
        here = [change for change in blocked if change.context == context]
        people = decisions.human(session, account_id, sorted({change.sha256 for change in here}), context)
        tasks += [
            Candidate(
                change.job_id,
                change.seq,
                change.sha256,
                context,
                "banned_after_approval",
                change.patch["policy"],
                risk=BANNED_RISK,
            )
            for change in here
            if (said := people.get(change.sha256)) is not None and said.verdict == "approve"
        ]
    review_queue.enqueue(session, account_id, tasks)
    return len({(task.sha256, task.context) for task in tasks})


_RESULTS = text(
    """
    SELECT r.bucket, r.job_id, r.seq, r.sha256, r.moderation, j.context, j.policy, i.category, c.name AS account,
      g.width, g.height, g.bytes, g.format, g.sharpness, g.pdq_quality,
      (SELECT a.scores FROM analyses a WHERE a.account_id = r.account_id AND a.sha256 = r.sha256
        AND a.model = coalesce(r.published -> 'moderation' ->> 'model', j.models ->> 'moderation')) AS analysis,
      (SELECT a.scores FROM analyses a WHERE a.account_id = r.account_id AND a.sha256 = r.sha256
        AND a.model = coalesce(r.published -> 'tags' ->> 'model', j.models ->> 'tags')) AS tagged
    FROM results r JOIN jobs j ON j.id = r.job_id
    JOIN accounts c ON c.id = r.account_id
    JOIN items i ON i.bucket = r.bucket AND i.job_id = r.job_id AND i.seq = r.seq
    JOIN images g ON g.account_id = r.account_id AND g.sha256 = r.sha256
    WHERE r.account_id = :account_id AND r.sha256 = ANY(:shas) AND r.outcome = 'done' AND r.moderation IS NOT NULL
    """
)
_DOCUMENT = text(
    """
    SELECT document FROM policies WHERE name = :name AND version = :version
      AND (account_id = :account_id OR account_id IS NULL) ORDER BY account_id NULLS LAST LIMIT 1
    """
)
