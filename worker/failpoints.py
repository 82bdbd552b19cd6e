"""Named places where a test build dies on request; in production every call is a comparison and nothing else.

`TAGMILL_FAILPOINTS` is a comma-separated list of `name=marker`: the process that first reaches `name` creates the
file `marker` and is killed; later arrivals, finding the file, live on. `name=sha:HEX` instead kills whoever reaches
the point with that subject, every time: a poison picture. `hang:HEX` and `spin:HEX` never come back, the first as a
wait does, the second without letting any other thread run.
"""

import os
import signal
import time
from pathlib import Path

NAMES = frozenset(
    {
        "after_claim",
        "after_fetch",
        "after_blob_put",
        "before_ingest_commit",
        "after_ingest_commit",
        "infer_after_claim",
        "on_image",
        "before_infer_commit",
        "after_infer_commit",
        "before_finish_job",
        "replay_moved",
        "between_rerun_batches",
        "train_checkpoint",
        "shadow_after_claim",
        "before_shadow_commit",
        "deliver_after_send",
        "before_ban_commit",
        "before_erasure_commit",
    }
)


class UnknownFailpoint(ValueError):
    """A failpoint was named that is nowhere in the code."""

    code = "unknown_failpoint"


def parse(text: str) -> dict[str, str]:
    """Read the list. Raises UnknownFailpoint for a name that does not exist: a test must not pass by a typing error."""
    points: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, action = part.partition("=")
        if name not in NAMES or not action:
            raise UnknownFailpoint(f"{part!r}: expected NAME=MARKER with NAME one of {', '.join(sorted(NAMES))}")
        points[name] = action
    return points


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    while True:
        time.sleep(60)


def _spin() -> None:
    import ctypes  # not in processes that are no test build

    while True:
        ctypes.PyDLL(None).pause()  # a library that is called so keeps the GIL


_OF_SUBJECT = {"sha": _die, "hang": _hang, "spin": _spin}
_ACTIVE = parse(os.environ.get("TAGMILL_FAILPOINTS", "")) if os.environ.get("TAGMILL_TEST_BUILD") == "1" else {}


def hit(name: str, subject: str = "") -> None:
    """Die here if a test asked for it."""
    if not _ACTIVE:
        return
    action = _ACTIVE.get(name)
    if action is None:
        return
    kind, _, wanted = action.partition(":")
    if kind in _OF_SUBJECT:
        if wanted == subject:
            _OF_SUBJECT[kind]()
        return
    try:
        Path(action).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
