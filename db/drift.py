"""Drift: counts of what models said on a day, by account, model and source; the rows of days and how they are read.

It counts the pictures of the day's results, distinct by bytes and source, and reads their scores from `analyses`: those
are never changed, so that a day computed again gives the same, whatever was published and whatever limits a job had.
Results of reruns are no new pictures and do not count. Judging is `ml.drift`'s business.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from db.learning_tables import DriftDay, DriftRow
from db.session import long_statements
from db.tables import Evaluation

SOURCES = 20  # sources of an account and model that stand for themselves on a day; the rest is `other`
UPLOAD, OTHER = "upload", "other"
GRACE_MINUTES = 10  # a transaction that began before midnight may commit after it
KEPT_DAYS = 400


@dataclass(frozen=True, slots=True)
class Count:
    """Pictures of a source whose score of a label lies in bin `at` (tenths). `given`: those that got the label. Without
    `label` it is the number of pictures. `own`: the label's scores are all counted, not only those given."""

    account_id: int
    model: str
    source: str
    group: str | None
    label: str | None
    exclusive: bool
    own: bool
    at: int
    scored: int
    given: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The row of a source to be written; fields as in `DriftRow`."""

    account_id: int
    model: str
    source: str
    pictures: int
    figures: Mapping[str, Any]
    level: str
    reason: str | None
    psi: float | None
    baseline: Mapping[str, Any] | None
    measures: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Early:
    """The figures of one of the first days of a model at a source."""

    account_id: int
    model: str
    source: str
    day: date
    figures: dict[str, Any]


def count(session: Session, day: date, *, sources: int = SOURCES, kept: float = 0.5) -> list[Count]:
    """What the models said on that day (UTC). `kept`: the score from which an attribute without a threshold is given.

    Reads that day's results with their items twice (once for each task) and one analysis for each of their distinct
    pictures and models.
    """
    # A day of millions of pictures takes longer than a statement of a request may, and should not sort on the disk.
    long_statements(session, 900)
    session.execute(text("SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)"))
    found: list[Count] = []
    for task, statement in _COUNTS.items():
        parameters = {"day": day, "task": task, "sources": sources, "kept": kept, "upload": UPLOAD, "other": OTHER}
        found += [Count(*row) for row in session.execute(statement, parameters)]
    return found


def clock(session: Session) -> datetime:
    """When this transaction began: what it counts is known as of then."""
    return session.scalars(select(func.now())).one()


def replace(session: Session, day: date, rows: Sequence[Figures], at: datetime | None = None) -> None:
    """The day's rows are these from now on, whatever they were. `at`: when they were counted, if not just now."""
    session.execute(text("DELETE FROM drift WHERE day = :day"), {"day": day})
    values = [
        {
            **asdict(row),
            "day": day,
            "figures": json.dumps(row.figures),
            "baseline": None if row.baseline is None else json.dumps(row.baseline),
            "measures": json.dumps(row.measures),
        }
        for row in rows
    ]
    if values:
        session.execute(_INSERT, values)
    session.execute(
        text(
            "INSERT INTO drift_days VALUES (:day, coalesce(CAST(:at AS timestamptz), clock_timestamp()))"
            " ON CONFLICT (day) DO UPDATE SET computed_at = excluded.computed_at"
        ),
        {"day": day, "at": at},
    )


def pending(session: Session, back: int) -> list[date]:
    """Of the last `back` whole days (UTC) those not computed since they ended, oldest first; of a new installation
    only those since its first job."""
    rows = session.execute(_PENDING, {"back": back, "grace": GRACE_MINUTES})
    return [row.day for row in rows]


def forget(session: Session) -> None:
    """Drop what is older than KEPT_DAYS."""
    for table in ("drift", "drift_days"):
        session.execute(text(f"DELETE FROM {table} WHERE day < current_date - :days"), {"days": KEPT_DAYS})


def baselines(session: Session, models: Sequence[str]) -> dict[str, Evaluation]:
    """By name@version the newest evaluation that counted its scores as production does; none on training pictures."""
    found = session.execute(_BASELINES, {"models": list(models)}).all()
    rows = session.scalars(select(Evaluation).where(Evaluation.id.in_([row.id for row in found])))
    by_id = {row.id: row for row in rows}
    return {row.model: by_id[row.id] for row in found}


def first_days(session: Session, models: Sequence[str], before: date, days: int) -> list[Early]:
    """Of each account, model and source the first `days` days with pictures, if they all lie before that day."""
    rows = session.execute(_FIRST_DAYS, {"models": list(models), "before": before, "days": days})
    return [Early(row.account_id, row.model, row.source, row.day, row.figures) for row in rows]


def newest_day(session: Session) -> DriftDay | None:
    """The last day that was computed."""
    return session.scalar(select(DriftDay).order_by(DriftDay.day.desc()).limit(1))


def computed(session: Session, day: date) -> DriftDay | None:
    """That day, if it was computed."""
    return session.get(DriftDay, day)


def since(session: Session, account_id: int | None, begin: date, end: date) -> list[DriftRow]:
    """The rows of an account, or of all, from `begin` to `end` (both included), newest day first, worst first."""
    query = select(DriftRow).where(DriftRow.day.between(begin, end))
    if account_id is not None:
        query = query.where(DriftRow.account_id == account_id)
    return sorted(session.scalars(query), key=lambda row: (-row.day.toordinal(), *severity(row)))


def severity(row: DriftRow) -> tuple[int, float, str, str]:
    """A key that sorts the worst first; what cannot be judged last."""
    place = ("drifted", "watch", "ok", "unknown").index(row.level)
    return place, -(row.psi or 0.0), row.model, row.source


def levels(session: Session, day: date) -> dict[tuple[str, str], int]:
    """(model, level) → sources on that day, over all accounts."""
    rows = session.execute(
        text("SELECT model, level, count(*) FROM drift WHERE day = :day GROUP BY model, level"), {"day": day}
    )
    return {(model, level): int(sources) for model, level, sources in rows}


def owners(session: Session) -> dict[int, str]:
    """Account id → name, of accounts with rows."""
    rows = session.execute(text("SELECT id, name FROM accounts WHERE id IN (SELECT account_id FROM drift)"))
    return {int(number): str(name) for number, name in rows}


def history(session: Session, account_id: int, end: date, days: int) -> list[tuple[date, dict[str, int]]]:
    """The computed days among the last `days` up to `end`, newest first, each with its sources by level."""
    rows = session.execute(_HISTORY, {"account": account_id, "end": end, "days": days})
    return [(row.day, dict(row.levels)) for row in rows]


# The pictures of the day by source. A host that is called like one of our two names keeps apart from it by the dot that
# ends a complete name.
_NAMED = """
    WITH seen AS MATERIALIZED (
      SELECT DISTINCT r.account_id, j.models ->> :task AS model, r.sha256,
        CASE WHEN i.url IS NULL THEN CAST(:upload AS text)
          ELSE regexp_replace(substring(lower(i.url) FROM '^https?://(\\[[^\\]]*\\]|[^/?#:]+)'),
            '^(' || :upload || '|' || :other || ')$', '\\1.') END AS host
      FROM results r JOIN jobs j ON j.id = r.job_id
        JOIN items i ON i.bucket = r.bucket AND i.job_id = r.job_id AND i.seq = r.seq
      WHERE r.created_at >= CAST(:day AS date) AND r.created_at < CAST(:day AS date) + 1 AND r.outcome = 'done'
        AND r.sha256 IS NOT NULL AND :task = ANY (j.analyses) AND j.models ->> :task IS NOT NULL
        AND NOT EXISTS (SELECT FROM reruns WHERE reruns.job_id = j.id)
    ), hosts AS (
      SELECT account_id, model, host,
        row_number() OVER (PARTITION BY account_id, model ORDER BY count(*) DESC, host) AS place
      FROM seen GROUP BY account_id, model, host
    ), named AS (
      SELECT s.account_id, s.model, s.sha256, a.scores,
        CASE WHEN h.place <= :sources THEN s.host ELSE :other END AS source
      FROM seen s JOIN hosts h USING (account_id, model, host)
        JOIN analyses a ON a.account_id = s.account_id AND a.sha256 = s.sha256 AND a.model = s.model
    ), known AS MATERIALIZED (
      SELECT v.name || '@' || v.version AS model, l ->> 'group' AS "group", l ->> 'name' AS label,
        coalesce(v.card -> 'head' ->> (l ->> 'group'), v.card ->> 'head') = 'softmax' AS exclusive,
        coalesce(CAST(l ->> 'threshold' AS float8), :kept) AS threshold,
        CASE WHEN count(*) OVER (PARTITION BY v.id, l ->> 'name') > 1 THEN (l ->> 'group') || ':' ELSE '' END
          || (l ->> 'name') AS key
      FROM model_versions v, jsonb_array_elements(v.card -> 'labels') l
      WHERE v.name || '@' || v.version IN (SELECT model FROM hosts)
    )"""

# A picture without tags counts as a picture, too: hence the row without a label for each.
_COUNTS = {
    "tags": text(
        rf"""{_NAMED}
    SELECT n.account_id, n.model, n.source, k."group", k.label, coalesce(k.exclusive, true),
      NOT coalesce(k.exclusive, true),
      coalesce(least(floor(t.score * 10)::int, 9), 0) AS at, count(*),
      count(*) FILTER (WHERE CASE WHEN k.exclusive THEN t.place = 1 ELSE t.score >= k.threshold END)
    FROM named n CROSS JOIN LATERAL (
      SELECT e.label, e."group", e.score,
        row_number() OVER (PARTITION BY e."group" ORDER BY e.score DESC, e.at) AS place
      FROM ROWS FROM (jsonb_to_recordset(n.scores -> 'tags') AS (label text, "group" text, score float8))
        WITH ORDINALITY AS e(label, "group", score, at)
      UNION ALL SELECT NULL, NULL, NULL, NULL
    ) t LEFT JOIN known k ON k.model = n.model AND k."group" = t."group" AND k.label = t.label
    WHERE t.label IS NULL OR t.place = 1 OR NOT k.exclusive
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"""
    ),
    "moderation": text(
        rf"""{_NAMED}, scored AS (
      SELECT n.account_id, n.model, n.source, k."group", k.label, k.exclusive, k.threshold, t.score, row_number() OVER
        (PARTITION BY n.account_id, n.model, n.source, n.sha256, k."group" ORDER BY t.score DESC, k.label) AS place
      FROM named n CROSS JOIN LATERAL (
        SELECT e.key, CAST(e.value AS float8) AS score FROM jsonb_each_text(n.scores -> 'scores') e
        UNION ALL SELECT NULL, NULL
      ) t LEFT JOIN known k ON k.model = n.model AND k.key = t.key
      WHERE t.key IS NULL OR k.key IS NOT NULL
    )
    SELECT account_id, model, source, "group", label, coalesce(exclusive, true), true,
      coalesce(least(floor(score * 10)::int, 9), 0) AS at, count(*),
      count(*) FILTER (WHERE CASE WHEN exclusive THEN place = 1 ELSE score >= threshold END)
    FROM scored GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"""
    ),
}
_INSERT = text(
    "INSERT INTO drift (day, account_id, model, source, pictures, figures, level, reason, psi, baseline, measures)"
    " VALUES (:day, :account_id, :model, :source, :pictures, CAST(:figures AS jsonb), :level, :reason, :psi,"
    " CAST(:baseline AS jsonb), CAST(:measures AS jsonb))"
)
_PENDING = text(
    """
    SELECT CAST(d AS date) AS day
    FROM generate_series(greatest(current_date - :back,
        coalesce((SELECT CAST(created_at AS date) FROM jobs ORDER BY id LIMIT 1), current_date)),
      current_date - 1, interval '1 day') d
    WHERE now() >= d + interval '1 day' + make_interval(mins => :grace) AND NOT EXISTS (SELECT FROM drift_days c
      WHERE c.day = CAST(d AS date) AND c.computed_at >= d + interval '1 day' + make_interval(mins => :grace))
    ORDER BY 1
    """
)
_BASELINES = text(
    """
    SELECT DISTINCT ON (v.id) v.name || '@' || v.version AS model, e.id
    FROM model_versions v JOIN evaluations e ON e.model_id = v.id
    WHERE v.name || '@' || v.version = ANY (:models) AND e.report -> 'scores' ? 'groups' AND e.split <> 'train'
      AND e.report -> 'about' ->> 'pixels' = 'working copy'
    ORDER BY v.id, e.id DESC
    """
)
_FIRST_DAYS = text(
    """
    SELECT account_id, model, source, day, figures FROM (
      SELECT account_id, model, source, day, figures,
        row_number() OVER (PARTITION BY account_id, model, source ORDER BY day) AS place,
        count(*) OVER (PARTITION BY account_id, model, source) AS days
      FROM drift WHERE model = ANY (:models) AND day < :before
    ) d WHERE place <= :days AND days >= :days ORDER BY account_id, model, source, day
    """
)
_HISTORY = text(
    """
    SELECT c.day, coalesce(d.levels, '{}') AS levels FROM drift_days c
    LEFT JOIN (
      SELECT day, jsonb_object_agg(level, sources) AS levels FROM (
        SELECT day, level, count(*) AS sources FROM drift
        WHERE day > CAST(:end AS date) - CAST(:days AS integer) AND day <= :end AND account_id = :account
        GROUP BY day, level
      ) l GROUP BY day
    ) d USING (day)
    WHERE c.day > CAST(:end AS date) - CAST(:days AS integer) AND c.day <= :end ORDER BY c.day DESC
    """
)
