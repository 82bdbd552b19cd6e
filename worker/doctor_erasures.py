"""The doctor's look at erasures: those that do not get on, blobs that are not removed, journals that are missing.

It erases and repairs nothing, and names erasures by their ids: what was to be forgotten is not repeated.
"""

import os
from collections.abc import Iterator, Sequence
from uuid import UUID

from db import erasure_state
from db.erasure_state import Open, State, Step
from db.erasures import AGAIN_S
from worker.findings import Finding
from worker.live import span
from worker.local import Place
from worker.screen import counted

SLOW_S = 600.0
"""Most take seconds. One of a large account may take longer at its rows, and says so."""
NAMED = 3
NAME = "erasures"
_RUN = "tagmill maintenance must run: its log says more"
_STORE = "; maintenance's log says why it cannot"
_WORDS: dict[Step, tuple[str, str]] = {
    "asked": ("not begun", _RUN),
    "rows": ("still at its rows", "tagmill erase show ERASURE says how far it is, and maintenance's log what holds it"),
    "blobs": ("without its blobs removed", f"let maintenance remove files in the blob store{_STORE}"),
    "journal": ("without its journal written", f"let maintenance write to erasures/ of the blob store{_STORE}"),
    "again": ("not looked for once more", _RUN),
}
_LOST = "tagmill erase replay --all: what was erased is looked for again, and the journals are written"


def erasures(where: Place) -> Iterator[Finding]:
    """A finding for each kind of trouble, or a good one; none where nothing was ever to be forgotten."""
    with where.database() as at, at.transaction() as session:
        state = erasure_state.state(session)
    troubles = [*_slow(state), *_blobs(where, state), *_journals(where, state)]
    yield from troubles
    if state.asked and not troubles:
        waiting = sum(each.step != "again" for each in state.open)
        yield Finding(NAME, "good", f"{state.asked - waiting} finished, {waiting} open")


def _slow(state: State) -> Iterator[Finding]:
    for step, (words, remedy) in _WORDS.items():
        limit = SLOW_S + (AGAIN_S if step == "again" else 0)
        found = [each for each in state.open if each.step == step and each.since_s > limit]
        if found:
            said = f"{counted(len(found), 'erasure')} {words}: {_named(found)}"
            yield Finding(NAME, "warning", said, remedy)


def _blobs(where: Place, state: State) -> Iterator[Finding]:
    """Whatever they are to be removed for: an erasure, or their age."""
    if state.key is None or state.blobs_s <= SLOW_S:
        return
    said = f"{counted(state.blobs, 'blob')} to be removed, the first for {span(state.blobs_s)}"
    folder = (where.blob_root / state.key).parent
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        said += f"; {folder} cannot be written by this process"
    yield Finding(NAME, "warning", said, _WORDS["blobs"][1])


def _journals(where: Place, state: State) -> Iterator[Finding]:
    """Without its journal, a database that is restored from before an erasure does not know of it."""
    folder = where.blob_root / "erasures"
    if not where.store and folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        remedy = f"make it a folder that uid {os.geteuid()} can write: no erasure can end without its journal"
        yield Finding(NAME, "broken", f"{folder} cannot be written", remedy)
        return
    there = _there(where)
    lost = [each for each in state.finished if each not in there]
    if lost:
        first = ", ".join(str(each) for each in lost[:NAMED])
        at = f"{where.store['TAGMILL_BLOB_STORE']}/erasures" if where.store else str(folder)
        said = f"{counted(len(lost), 'journal')} missing in {at}: {first}{_rest(lost)}"
        yield Finding(NAME, "warning", said, _LOST)


def _there(where: Place) -> frozenset[UUID]:
    return frozenset(where.blobs().journals()) if where.store or where.blob_root.is_dir() else frozenset()


def _named(found: Sequence[Open]) -> str:
    named = ", ".join(
        f"{each.id} ({each.kind}, {span(each.since_s)}{f', {each.blobs} blobs' if each.blobs else ''})"
        for each in found[:NAMED]
    )
    return named + _rest(found)


def _rest(found: Sequence[object]) -> str:
    return f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
