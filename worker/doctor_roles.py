"""The doctor's look at the roles: whether each of them reports that it is alive; starts and stops none."""

from collections.abc import Iterator

from db import training, workers
from worker.alive import SILENT_S
from worker.findings import Finding
from worker.local import Place
from worker.roles import BEATING
from worker.screen import counted

STARTING_S = 60.0


def roles(where: Place) -> Iterator[Finding]:
    """One finding for each role with a heartbeat; none where nothing runs."""
    if where.runs is False:
        return
    with where.database() as at, at.transaction() as session:
        heard = workers.heard(session)
        alive = workers.alive(session, SILENT_S)
        waiting = training.waiting(session)
    if not alive and where.runs is None:
        yield Finding("roles", "warning", "no crawler, worker or maintenance is alive", "start them, or: tagmill up")
        return
    for role in BEATING:
        count = sum(one["role"] == role for one in alive)
        if count:
            yield Finding(f"role: {role}", "good", f"{count} alive, heard {heard[role]:.0f} s ago")
        elif role == "trainer":
            yield _no_trainer(waiting)
        else:
            yield _missing(role, heard.get(role), max((one["up_s"] for one in alive), default=None))


def _no_trainer(waiting: int) -> Finding:
    """Only who trains needs one."""
    if not waiting:
        return Finding("role: trainer", "good", "none is alive, and no training run waits")
    runs = counted(waiting, "training run")
    found = f"none is alive, and {runs} wait{'s' if waiting == 1 else ''}"
    return Finding("role: trainer", "warning", found, "start one: tagmill trainer; or train here: tagmill runs work")


def _missing(role: str, silent_s: float | None, up_s: float | None) -> Finding:
    """`up_s`: how long the oldest process of any role has been there."""
    found = "none is alive" if silent_s is None else f"none is alive, the last was heard {silent_s:.0f} s ago"
    if up_s is not None and up_s < STARTING_S:
        return Finding(f"role: {role}", "warning", f"{found}, but all has just started", "tagmill doctor, in a minute")
    remedy = f"where it runs, its log says why; where it does not, start it: tagmill {role}"
    return Finding(f"role: {role}", "broken", found, remedy)
