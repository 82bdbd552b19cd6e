"""The doctor's look at hash banks: entries in quarantine, wide ones, and changes that nobody works off."""

from collections.abc import Iterator

from db import bank_surge
from worker.findings import Finding
from worker.local import Place

SLOW_S = 60.0


def banks(where: Place) -> Iterator[Finding]:
    """A finding for each thing that somebody should look at, or a good one; none where there are no banks."""
    with where.database() as at, at.transaction() as session:
        state = bank_surge.state(session)
    if not state.banks:
        return
    said = f"{state.banks} with {state.entries} entries"
    if state.quarantined:
        held = f"{said}; {state.quarantined} in quarantine ({', '.join(state.names)})"
        yield Finding("banks", "warning", held, "tagmill banks list BANK --state quarantined; then release or remove")
    if state.wide:
        wide = f"{said}; {state.wide} found very many of the pictures there were ({', '.join(state.wide_names)})"
        yield Finding("banks", "warning", wide, "tagmill banks list BANK --state wide; then release or remove")
    if state.quarantined or state.wide:
        return
    if state.waits_s > SLOW_S:
        said += f"; a change waits for {state.waits_s:.0f} s"
        yield Finding("banks", "warning", said, "tagmill maintenance must run: it works off bans")
    else:
        yield Finding("banks", "good", said)
