"""How right the automation is, by what people say of a random sample of its verdicts. Reviewers: `db.review_agreement`.

Every automatic approval or rejection is audited with a known probability (its share); each audited picture stands for
1 / share pictures. By verdict v (a stratum), with x of n answered audits that people reject:

    rate       p_v = Σ w x / Σ w n, Clopper and Pearson's interval at the effective number (w = 1 / share)
    precision  of rejections: p_reject
    missed     M = the pictures that were approved and people would reject: Σ w (drawn / answered) x, Fay and Feuer's
               gamma interval; caught likewise: rejections that people confirm, and what went to people (all of it) and
               was rejected there
    recall     caught / (caught + missed); its low bound takes the low bounds of what was caught and the high one of
               what was missed, each at a confidence of 1 − α / 3, so that all hold together (Bonferroni)

Answers are taken for a random part of what was drawn. `db.review_statistics` has formulas and sources.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.review_queue import OUTRANKING
from db.review_statistics import (
    CONFIDENCE,
    NOTHING,
    Estimate,
    clopper_pearson,
    weighted_count,
    weighted_share,
)

_PARTS: Final = 3


@dataclass(frozen=True)
class Group:
    """Pictures of one stratum that were drawn with the same share."""

    share: float
    drawn: int
    answered: int
    rejected: int

    @property
    def weight(self) -> float:
        """How many pictures one answer stands for."""
        return self.drawn / self.answered / self.share if self.answered else 0.0


@dataclass(frozen=True)
class Stratum:
    """What people say of one automatic verdict. `pictures`: how many had it, estimated from those drawn; exact for
    `review`, of which people see all. `rejected`: the share that people reject."""

    verdict: str
    pictures: float
    drawn: int
    answered: int
    rejected: Estimate


@dataclass(frozen=True)
class Automation:
    """`precision` of automatic rejections; `missed`: the share of automatic approvals that people would reject;
    `recall`: of all pictures that people would reject, the share that was not approved."""

    strata: tuple[Stratum, ...]
    precision: Estimate
    missed: Estimate
    recall: Estimate
    confidence: float


def automation(
    session: Session,
    account_id: int,
    since: datetime,
    until: datetime | None = None,
    *,
    policy: str | None = None,
    context: str | None = None,
    confidence: float = CONFIDENCE,
) -> Automation:
    """The figures of verdicts given in this time. `policy`: a name, with or without its version."""
    parameters = {
        "account_id": account_id,
        "since": since,
        "until": until,
        "policy": policy,
        "context": context,
        "outranking": list(OUTRANKING),
    }
    groups: dict[str, list[Group]] = defaultdict(list)
    for row in session.execute(_GROUPS, parameters):
        groups[row.verdict].append(Group(row.share, row.drawn, row.answered, row.rejected))
    strata = {verdict: _stratum(verdict, groups[verdict], confidence) for verdict in ("approve", "review", "reject")}
    return Automation(
        strata=tuple(strata.values()),
        precision=strata["reject"].rejected,
        missed=strata["approve"].rejected,
        recall=_recall(groups, confidence),
        confidence=confidence,
    )


def _stratum(verdict: str, groups: list[Group], confidence: float) -> Stratum:
    answered = [(group.rejected, group.answered, 1 / group.share) for group in groups if group.answered]
    return Stratum(
        verdict=verdict,
        pictures=sum(group.drawn / group.share for group in groups),
        drawn=sum(group.drawn for group in groups),
        answered=sum(group.answered for group in groups),
        rejected=weighted_share(answered, confidence),
    )


def _recall(groups: Mapping[str, list[Group]], confidence: float) -> Estimate:
    """Nothing is known before somebody has answered an audit of an approval: that is where misses are."""
    approved = [group for group in groups["approve"] if group.answered]
    if not approved:
        return NOTHING
    each = 1 - (1 - confidence) / _PARTS
    missed, missed_low, missed_high = weighted_count([(g.rejected, g.weight) for g in approved], each)
    rejected = [(g.rejected, g.weight) for g in groups["reject"] if g.answered]
    right, right_low, right_high = weighted_count(rejected, each)
    found, found_low, found_high = _of_all(groups["review"], each)
    caught = right + found
    if caught + missed == 0:
        return Estimate(None, None, None, sum(g.answered for g in approved))
    low = (right_low + found_low) / ((right_low + found_low + missed_high) or 1)
    high = (right_high + found_high) / ((right_high + found_high + missed_low) or 1)
    n = sum(group.answered for several in groups.values() for group in several)
    return Estimate(caught / (caught + missed), low, high, n)


def _of_all(groups: list[Group], confidence: float) -> tuple[float, float, float]:
    """Rejections among pictures that all go to people: counted where all are answered, bounded where some are open."""
    value = low = high = 0.0
    for group in groups:
        if group.answered == group.drawn:
            value, low, high = value + group.rejected, low + group.rejected, high + group.rejected
        elif group.answered:
            least, most = clopper_pearson(group.rejected, group.answered, confidence)
            value += group.drawn * group.rejected / group.answered
            low += max(group.rejected, group.drawn * least)
            high += min(group.drawn - group.answered + group.rejected, group.drawn * most)
        else:
            high += group.drawn
    return value, low, high


# What counts is what people say in the end: a curator's word after two disagreed, an appeal's.
_GROUPS = text(
    """
    SELECT t.verdict, t.share AS share, count(*) AS drawn, count(h.id) AS answered,
      count(*) FILTER (WHERE h.verdict = 'reject') AS rejected
    FROM (
      SELECT k.sha256, k.context, k.account_id, k.state, k.policy, coalesce(k.audit_verdict, 'review') AS verdict,
        coalesce(k.audit_share, 1) AS share
      FROM review_tasks k
      WHERE k.account_id = :account_id AND k.kind = 'first' AND k.state <> 'closed'
        AND (k.audit_verdict IS NOT NULL OR k.reason <> ALL(:outranking))
        AND k.created_at >= :since AND (CAST(:until AS timestamptz) IS NULL OR k.created_at < :until)
        AND (CAST(:context AS text) IS NULL OR k.context = :context)
        AND (CAST(:policy AS text) IS NULL OR k.policy = :policy
          OR starts_with(k.policy, CAST(:policy AS text) || '@'))) t
    LEFT JOIN human_decisions h ON t.state = 'decided' AND h.account_id = t.account_id AND h.sha256 = t.sha256
      AND h.context = t.context
    GROUP BY t.verdict, t.share
    """
)
