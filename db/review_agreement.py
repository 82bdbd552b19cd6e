"""How right reviewers are, and how far they agree: against known answers, against what was decided in the end, and
with each other. How right the machine is: `db.review_quality`.

    gold      answers to pictures whose right answer a curator has said
    final     answers that somebody else has looked at since (a second opinion, a curator, an appeal), against the
              decision that holds now; not while the picture waits for another one
    kappa     Cohen's, of first and second opinions on the same picture

Shares have Wilson's interval. Answers that were taken back do not count.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.review_statistics import Estimate, kappa, wilson

SIDES: Final = ("approve", "reject")


@dataclass(frozen=True)
class Reviewer:
    """A reviewer in a time, `week` (its Monday) or all of it (None). `gold` and `final`: the share of right answers;
    `precision`: of the rejections among both, the share that was right; `kappa`: with whoever else looked."""

    actor: str
    week: date | None
    answers: int
    rejections: int
    gold: Estimate
    final: Estimate
    precision: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class Agreement:
    """All pairs of first and second opinions of a time."""

    week: date | None
    pairs: int
    agreed: int
    kappa: Estimate


@dataclass(frozen=True)
class Reviewing:
    """The whole time first, then by week, oldest first."""

    agreement: tuple[Agreement, ...]
    reviewers: tuple[Reviewer, ...]


@dataclass(frozen=True)
class _Counts:
    actor: str
    week: date
    answers: int
    rejections: int
    gold: int
    gold_right: int
    final: int
    final_right: int
    checked_rejections: int
    right_rejections: int


@dataclass(frozen=True)
class _Pair:
    week: date
    first: str
    second: str
    said: tuple[str, str]
    n: int


def reviewing(session: Session, account_id: int, since: datetime, until: datetime | None = None) -> Reviewing:
    """The figures of answers given in this time."""
    parameters = {"account_id": account_id, "since": since, "until": until}
    counts = [_Counts(*row) for row in session.execute(_COUNTS, parameters)]
    pairs = [_Pair(row[0], row[1], row[2], (row[3], row[4]), row[5]) for row in session.execute(_PAIRS, parameters)]
    by_actor: dict[str, list[_Counts]] = defaultdict(list)
    for each in counts:
        by_actor[each.actor].append(each)
    reviewers = []
    for actor in sorted(by_actor):
        own = [pair for pair in pairs if actor in (pair.first, pair.second)]
        reviewers += [
            _reviewer(actor, None, by_actor[actor], own),
            *(_reviewer(actor, c.week, [c], [pair for pair in own if pair.week == c.week]) for c in by_actor[actor]),
        ]
    weeks = sorted({pair.week for pair in pairs})
    by_week = (_agreement(week, [pair for pair in pairs if pair.week == week]) for week in weeks)
    return Reviewing((_agreement(None, pairs), *by_week), tuple(reviewers))


def _reviewer(actor: str, week: date | None, counts: list[_Counts], pairs: list[_Pair]) -> Reviewer:
    return Reviewer(
        actor=actor,
        week=week,
        answers=sum(each.answers for each in counts),
        rejections=sum(each.rejections for each in counts),
        gold=wilson(sum(each.gold_right for each in counts), sum(each.gold for each in counts)),
        final=wilson(sum(each.final_right for each in counts), sum(each.final for each in counts)),
        precision=wilson(
            sum(each.right_rejections for each in counts), sum(each.checked_rejections for each in counts)
        ),
        kappa=kappa(_table(pairs)),
    )


def _agreement(week: date | None, pairs: list[_Pair]) -> Agreement:
    agreed = sum(pair.n for pair in pairs if pair.said[0] == pair.said[1])
    return Agreement(week, sum(pair.n for pair in pairs), agreed, kappa(_table(pairs)))


def _table(pairs: Iterable[_Pair]) -> list[list[int]]:
    table = [[0] * len(SIDES) for _ in SIDES]
    for pair in pairs:
        first, second = (SIDES.index(said) for said in pair.said)
        table[first][second] += pair.n
    return table


_STANDING = """o.verdict IS NOT NULL AND NOT EXISTS (SELECT FROM review_opinions b WHERE b.takes_back = o.id)"""
_TIME = """o.account_id = :account_id AND o.created_at >= :since
      AND (CAST(:until AS timestamptz) IS NULL OR o.created_at < :until)"""
_WEEK = "date_trunc('week', o.created_at AT TIME ZONE 'UTC')::date"
_COUNTS = text(
    f"""
    WITH said AS (
      SELECT o.actor, {_WEEK} AS week, o.verdict, o.kind,
        CASE WHEN o.kind = 'gold' THEN o.expected
          WHEN e.id IS NULL AND (h.actor <> o.actor OR s.id IS NOT NULL) THEN h.verdict END AS truth
      FROM review_opinions o
      LEFT JOIN human_decisions h ON h.account_id = o.account_id AND h.sha256 = o.sha256 AND h.context = o.context
        AND o.kind <> 'gold'
      LEFT JOIN LATERAL (
        SELECT k.id FROM review_tasks k WHERE k.account_id = o.account_id AND k.sha256 = o.sha256
          AND k.context = o.context AND k.parent = o.task_id AND k.state = 'decided' LIMIT 1) s ON o.kind = 'first'
      LEFT JOIN review_tasks e ON e.account_id = o.account_id AND e.sha256 = o.sha256 AND e.context = o.context
        AND e.kind = 'first' AND e.state = 'open'
      WHERE {_TIME} AND {_STANDING})
    SELECT actor, week, count(*) FILTER (WHERE kind <> 'gold'),
      count(*) FILTER (WHERE kind <> 'gold' AND verdict = 'reject'),
      count(*) FILTER (WHERE kind = 'gold'), count(*) FILTER (WHERE kind = 'gold' AND verdict = truth),
      count(*) FILTER (WHERE kind <> 'gold' AND truth IS NOT NULL),
      count(*) FILTER (WHERE kind <> 'gold' AND verdict = truth),
      count(*) FILTER (WHERE verdict = 'reject' AND truth IS NOT NULL),
      count(*) FILTER (WHERE verdict = 'reject' AND verdict = truth)
    FROM said GROUP BY actor, week ORDER BY actor, week
    """
)
_PAIRS = text(
    f"""
    SELECT {_WEEK}, f.actor, o.actor, f.verdict, o.verdict, count(*)
    FROM review_opinions o JOIN review_tasks t ON t.id = o.task_id
    JOIN review_opinions f ON f.task_id = t.parent AND f.kind = 'first' AND f.verdict IS NOT NULL
      AND NOT EXISTS (SELECT FROM review_opinions b WHERE b.takes_back = f.id)
    WHERE o.kind = 'second' AND {_TIME} AND {_STANDING}
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3
    """
)
