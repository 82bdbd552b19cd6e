"""Works off changes of hash banks: finds the pictures that they concern, and has each of their verdicts decided again.

    entries whose time is over, entries that hit too much ─► changes
    late:    pictures whose hits changed while they were being scored
    waiting: wait for who matches right now ─► what new entries hit among the pictures there are ─► entries that found
             too much are wide ─► list, newest first
    deciding: the next few pictures of the list ─► `db.bank_redecisions` ─► nothing left: done

Each step is a transaction. One that a process dies in is done again by the next process; a ban of one picture does not
wait for a list of thousands. Any number of processes may run.
"""

import threading
import time
from typing import Final
from uuid import UUID

from db import bank_changes, bank_redecisions, bank_surge, bank_sweep
from db.bank_changes import Recheck
from db.bank_redecisions import Redecided
from db.session import Database, Session
from worker import failpoints, log

BATCH: Final = 200
TURN_S: Final = 10.0


def run_once(database: Database, surge: int, stop: threading.Event, turn_s: float = TURN_S) -> int:
    """Work until nothing is left, the turn is over or `stop` is set; how many results were decided again.

    `surge`: pictures that an entry may hit in an hour, beyond its average, before it goes into quarantine; and that it
    may find among those there are before it is shown as wide.
    """
    logger = log.get("maintenance")
    with database.transaction() as session:
        bank_surge.expire(session)
        for found in bank_surge.quarantine(session, surge):
            logger.warning("bank entry quarantined", **{**vars(found), "entry_id": str(found.entry_id)})
    until = time.monotonic() + turn_s
    done = 0
    while not stop.is_set() and time.monotonic() < until and (results := _step(database, surge)) is not None:
        done += results
    return done


def _step(database: Database, surge: int) -> int | None:
    """One step of whatever comes next; how many results were decided again, None when nothing is left."""
    with database.transaction() as session:
        late = bank_changes.take(session, None, BATCH)
        if late:
            return _redecided(session, late, "system").results
        change = bank_changes.next_open(session)
    if change is None:
        return None
    if change.state == "waiting":
        _match(database, change.id, surge)
        return 0
    with database.transaction() as session:
        pictures = bank_changes.take(session, change.id, BATCH)
        sums = _redecided(session, pictures, change.actor)
        bank_changes.count(session, change.id, results=sums.results, changed=sums.changed, kept=sums.kept)
        failpoints.hit("before_ban_commit")
        ended = not pictures and bank_changes.end(session, change.id)
    if ended:
        log.get("maintenance").info("bank change worked off", change=str(change.id), mode=change.mode)
    return None if not pictures and not ended else sums.results


def _match(database: Database, change_id: UUID, surge: int) -> None:
    """What a change concerns: found among the pictures there are, and listed."""
    with database.transaction() as session:
        bank_changes.wait_for_matching(session)
    position: tuple[int, bytes] | None = None
    while True:
        with database.transaction() as session:
            change = bank_changes.get(session, change_id)
            if change.mode == "match":
                position = bank_sweep.find(session, change, position)
        if position is None:
            break
        _let_through(database, surge)
    with database.transaction() as session:
        wide = bank_surge.measure(session, bank_changes.get(session, change_id), surge)
    for found in wide:
        log.get("maintenance").warning("bank entry is wide", **{**vars(found), "entry_id": str(found.entry_id)})
    with database.transaction() as session:
        bank_changes.list_hit(session, change_id)


def _let_through(database: Database, surge: int) -> None:
    """Between two pages of a long list: what a single ban concerns."""
    while True:
        with database.transaction() as session:
            change = bank_changes.next_open(session)
        if change is None or change.entry_id is None or _step(database, surge) is None:
            return


def _redecided(session: Session, pictures: list[Recheck], actor: str) -> Redecided:
    sums = Redecided()
    for account in sorted({picture.account_id for picture in pictures}):
        shas = sorted({picture.sha256 for picture in pictures if picture.account_id == account})
        sums += bank_redecisions.redecide_pictures(session, account, shas, actor)
    return sums
