"""Computes the drift of days: counts in the database, judged against each model's baseline, stored day by day.

    pending days, oldest first ─► counts of the day ─► a profile for each account, model and source, and one of `all`
    the model's newest evaluation, else its first days at the source ─► baseline ─► `ml.drift.judge` ─► rows of the day

An advisory lock lets one process at a time count. A day computed again replaces its rows.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from db import drift as rows
from db import locks
from db.drift import Count, Figures
from db.errors import Conflict, DbError
from db.session import Database, Session
from ml import drift
from ml.score_profile import GIVEN_AT, Profile
from worker import log

CATCH_UP_DAYS = 14
RETRY_S = 3600.0  # a day that failed costs the database too much to be tried at each turn
FIRST_DAYS = 7  # of a model without a counted evaluation: the days that its later ones are compared with
SHOWN = 12  # measures kept of a row; those that moved most
ALL = "all"  # every source of the account together, for where each alone has few pictures

_Key = tuple[int, str, str]


@dataclass(frozen=True)
class Computed:
    """One day: rows written, distinct pictures counted (by model and source), and rows by level."""

    day: date
    rows: int
    pictures: int
    levels: Mapping[str, int]


class DriftBusy(Conflict):
    """Another process computes drift right now."""

    code = "drift_busy"


def run_once(database: Database, failed: dict[date, float] | None = None) -> int:
    """Compute the days that are due; how many. Nothing where another process does so.

    A day that fails is logged and keeps no other one waiting. `failed`: when each such day may be tried again, in
    monotonic seconds; kept by whoever calls this again and again.
    """
    failed = {} if failed is None else failed
    logger = log.get("maintenance")
    with database.transaction() as session:
        due = rows.pending(session, CATCH_UP_DAYS)
    done = 0
    for day in due:
        if time.monotonic() < failed.get(day, 0.0):
            continue
        try:
            computed = compute(database, day)
        except DriftBusy:
            break
        except DbError as error:
            failed[day] = time.monotonic() + RETRY_S
            logger.error("drift of a day failed, will try again", day=str(day), code=error.code, error=str(error))
            continue
        except Exception:  # top of the stage of a day: its fault must not end the others
            failed[day] = time.monotonic() + RETRY_S
            logger.exception("drift of a day failed unexpectedly, will try again", day=str(day))
            continue
        failed.pop(day, None)
        logger.info("drift computed", day=str(day), rows=computed.rows, pictures=computed.pictures, **computed.levels)
        done += 1
    if done:
        with database.transaction() as session:
            rows.forget(session)
    return done


def compute(database: Database, day: date) -> Computed:
    """Count and judge one day (UTC), and replace what was stored of it. Raises DriftBusy, Unavailable."""
    with database.transaction() as session:
        if not locks.try_lock(session, "drift"):
            raise DriftBusy("Another process computes drift right now: try again in a minute.")
        at = rows.clock(session)
        counts = rows.count(session, day, kept=GIVEN_AT)
        bases = _Baselines(session, sorted({count.model for count in counts}), day)
    # With no transaction open: many accounts and a thousand labels take longer to judge than the server lets one idle.
    judged = [_row(key, profile, bases) for key, profile in sorted(_profiles(counts).items())]
    with database.transaction() as session:
        locks.lock(session, "drift rows")
        rows.replace(session, day, judged, at)
    levels: dict[str, int] = {}
    for row in judged:
        levels[row.level] = levels.get(row.level, 0) + 1
    pictures = sum(row.pictures for row in judged if row.source != ALL)
    return Computed(day, len(judged), pictures, levels)


class _Baselines:
    """What a model's days are compared with."""

    def __init__(self, session: Session, models: list[str], day: date) -> None:
        self._evaluated: dict[str, tuple[dict[str, Any], Profile]] = {}
        for model, row in rows.baselines(session, models).items():
            about = row.report["about"]
            said = {"kind": "evaluation", "id": row.id, "dataset": about["dataset"], "split": row.split}
            profile = Profile.from_dict(row.report["scores"])
            self._evaluated[model] = ({**said, "pictures": profile.pictures}, profile)
        self._early: dict[_Key, tuple[dict[str, Any], Profile]] = {}
        unmeasured = [model for model in models if model not in self._evaluated]
        for early in rows.first_days(session, unmeasured, day, FIRST_DAYS):
            key = (early.account_id, early.model, early.source)
            said, profile = self._early.setdefault(key, ({"kind": "first_days", "from": str(early.day)}, Profile()))
            profile.merge(Profile.from_dict(early.figures))
            said |= {"to": str(early.day), "pictures": profile.pictures}

    def of(self, key: _Key) -> tuple[dict[str, Any], Profile] | None:
        return self._evaluated.get(key[1]) or self._early.get(key)


def _row(key: _Key, profile: Profile, bases: _Baselines) -> Figures:
    base = bases.of(key)
    if base is None:
        return Figures(*key, profile.pictures, profile.to_dict(), "unknown", "no_baseline", None, None, ())
    said, of = base
    judged = drift.judge(profile, of, same_mix=said["kind"] == "first_days")
    return Figures(
        *key,
        pictures=profile.pictures,
        figures=profile.to_dict(),
        level=judged.level,
        reason=judged.reason,
        psi=judged.psi,
        baseline=said,
        measures=[measure.to_dict() for measure in judged.measures[:SHOWN]],
    )


def _profiles(counts: Iterable[Count]) -> dict[_Key, Profile]:
    found: dict[_Key, Profile] = {}
    for count in counts:
        # A host that is called like our sum keeps apart from it by the dot that ends a complete name.
        source = f"{ALL}." if count.source == ALL else count.source
        for name in (source, ALL):
            profile = found.setdefault((count.account_id, count.model, name), Profile())
            if count.group is None or count.label is None:
                profile.pictures += count.scored
                continue
            profile.add(
                count.group,
                "exclusive" if count.exclusive else "attributes",
                count.label,
                count.at,
                scored=count.scored,
                given=count.given,
                own=count.own,
            )
    return found
