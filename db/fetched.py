"""Folders of files that are here only as long as somebody works with them; the next removes those of the dead."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_LOCK: Final = ".lock"
_YOUNG_S: Final = 60.0
"""One so young may not be locked yet."""


@contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, removed at the end of the block."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    made = Path(tempfile.mkdtemp(dir=parent))
    handle = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(handle)


def sweep(parent: Path) -> int:
    """Remove the folders whose owners are dead; how many."""
    swept = 0
    with suppress(FileNotFoundError):
        for made in parent.iterdir():
            with suppress(FileNotFoundError, BlockingIOError):
                swept += _removed(made)
    return swept


def _removed(made: Path) -> bool:
    if time.time() - made.stat().st_mtime < _YOUNG_S:
        return False
    handle = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(made, ignore_errors=True)
    finally:
        os.close(handle)
    return True
