"""Carries replays out: reads a window's stored evidence, decides by the policy, counts, and for a re-decision writes.

    claim → newest day first: evidence → `policy.decide` → tally            (what-if: nothing is written but the result)
                              what changes, in batches → `redecide.apply`   (re-decision)
          → after each day: how far it is, lease renewed
    end   → the tally as the run's result

A what-if that is interrupted begins anew, for it takes seconds; a re-decision goes on with the day that it was in, and
what it had written there is no change any more.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from db import bank_changes, bank_doubt, bank_redecisions, policy, redecide, replays, whatif
from db.errors import LeaseLost, Unavailable
from db.ids import uuid7
from db.policy import Policy
from db.policy_rules import PolicyError
from db.redecide import Change
from db.replay_tables import Replay
from db.session import Database
from db.whatif import Known, Slice, Window
from db.whatif_tally import Tally
from worker import failpoints, log

LEASE_S = 60.0
BEAT_EVERY = 20_000  # results between two signs of life, a second or so
BATCH = 500
"""Results of one transaction of a re-decision."""
Beat = Callable[[int, int, datetime | None], None]


class Stopped(Exception):
    """The process is to end: the run is handed back."""


@dataclass
class Replayer:
    """One process that carries replays out, one at a time."""

    database: Database
    stop: threading.Event
    lease_s: float = LEASE_S

    def __post_init__(self) -> None:
        self._owner = uuid7()
        self._log = log.get("replay")

    def run_once(self) -> int:
        """Carry out one run if one waits; how many were."""
        with self.database.transaction() as session:
            if not replays.waits(session):
                return 0
            run = replays.claim(session, self._owner, self.lease_s)
        if run is None:
            return 0
        began = time.monotonic()
        try:
            self._carry_out(run)
        except LeaseLost:
            self._log.warning("replay given up, it is no longer ours", run=str(run.id))
            return 0
        except Stopped:
            with self.database.transaction() as session:
                replays.release(session, run)
            return 0
        self._log.info("replay ended", run=str(run.id), kind=run.kind, seconds=round(time.monotonic() - began, 1))
        return 1

    def _carry_out(self, run: Replay) -> None:
        try:
            decided_by = policy.validate(run.document)
        except PolicyError as error:
            with self.database.transaction() as session:
                replays.fail(session, run, error.code, str(error))
            return
        result = replay(
            self.database,
            decided_by,
            replays.window_of(run),
            account_id=run.account_id,
            beat=self._beat(run),
            write=None if run.kind == "what_if" else run.actor,
            seen=(run.analyses, run.changed) if run.kind == "redecide" else (0, 0),
        )
        with self.database.transaction() as session:
            replays.finish(session, run, result)

    def _beat(self, run: Replay) -> Beat:
        def beat(analyses: int, changed: int, reached: datetime | None) -> None:
            at = reached if run.kind == "redecide" else None
            with self.database.transaction() as session:
                replays.move(session, run, analyses, changed, at, self.lease_s)
            failpoints.hit("replay_moved")
            if self.stop.is_set():
                raise Stopped

        return beat


def replay(
    database: Database,
    decided_by: Policy,
    window: Window,
    *,
    account_id: int | None = None,
    beat: Beat = lambda analyses, changed, reached: None,
    write: str | None = None,
    seen: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """The tally of this policy over a window, of an account or of all. With `write`, the actor, what changes is
    written: every result whose verdict or deciding rule becomes another one.

    `beat` is told how many results were looked at and changed, and after each day up to where all is done; `seen` is
    what an interrupted run had counted before.
    """
    began = time.monotonic()
    tally = Tally()
    window.check()
    with database.transaction() as session:
        known = whatif.known(session, account_id)
    analyses, written = seen
    for part in window.slices():
        pending: list[tuple[int, Change]] = []
        for owner, change in _decided(database, decided_by, window, part, known, account_id, tally):
            analyses += 1
            if change is not None and write is not None:
                pending.append((owner, change))
            if len(pending) >= BATCH:
                written += _write(database, pending, write or "")
                pending.clear()
            if analyses % BEAT_EVERY == 0:
                beat(analyses, written if write else tally.changed, None)
        written += _write(database, pending, write or "")
        beat(analyses, written if write else tally.changed, part[0])
    return {**tally.document(), "written": written, "seconds": round(time.monotonic() - began, 2)}


def _decided(
    database: Database,
    decided_by: Policy,
    window: Window,
    part: Slice,
    known: Known,
    account_id: int | None,
    tally: Tally,
) -> Iterator[tuple[int, Change | None]]:
    """The account of each result of a slice, counted, and what becomes of it; None where nothing does."""
    with database.transaction() as session:
        for stored in whatif.stored(session, window, part, known, account_id=account_id, tags=decided_by.reads_tags):
            verdict = bank_doubt.decide(decided_by, stored.evidence, stored.suspended)
            tally.add(stored, verdict)
            same = verdict.verdict == stored.verdict and verdict.rule == stored.rule
            if same or stored.person is not None:
                yield stored.account_id, None
                continue
            yield (
                stored.account_id,
                Change(
                    bucket=stored.bucket,
                    job_id=UUID(stored.job_id),
                    seq=stored.seq,
                    sha256=stored.sha256,
                    context=stored.context,
                    was=(stored.verdict, stored.rule, stored.policy),
                    patch=redecide.patch(decided_by, verdict, stored.evidence.hits),
                ),
            )


def _write(database: Database, changes: list[tuple[int, Change]], actor: str) -> int:
    """One transaction for the changes of each account; how many were written. A passing outage is waited out."""
    written = 0
    for account in sorted({owner for owner, _ in changes}):
        mine = [change for owner, change in changes if owner == account]
        for attempt in range(5):
            try:
                with database.transaction() as session:
                    bank_changes.share_lock(session)
                    made = redecide.apply(session, account, mine, kind="policy", actor=actor)
                    used = {change.sha256: bank_doubt.entries(change.patch) for change in made}
                    # What banks said was read when the replay began: a ban since then must not be undone by it.
                    bank_redecisions.note_late(session, account, used)
                written += len(made)
                break
            except Unavailable:
                if attempt == 4:
                    raise
                time.sleep(0.5 * 2**attempt)
    return written
