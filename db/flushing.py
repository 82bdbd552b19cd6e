"""Brings written files to the disk, many at once where the file system can; it knows no blob.

fsync makes the disk flush its cache for every single file; syncfs does that once for all that was written before.
"""

import ctypes
import os
import platform
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

# statfs's f_type of ext2/3/4, XFS, Btrfs and F2FS, whose syncfs waits until everything is on the disk. A FUSE server,
# to name one, is not even told of it.
_GOOD: Final = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010})
_TELLS_ERRORS: Final = (5, 8)  # older kernels' syncfs succeeds where a write failed
_FEW: Final = 3  # up to so many it is not worth bothering whoever else writes to this file system


class Flushing:
    """For files on the file system of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._syncfs = can_sync(folder)

    def open(self) -> int:
        """A descriptor for `flush`, to be had before anything is written, so that it learns of every failure."""
        return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def flush(self, whole: int, files: Sequence[int]) -> None:
        """What was written to these open files, or renamed in these open folders, is on the disk when this returns.

        `whole`: of `open`."""
        if not self._syncfs or len(files) <= _FEW:
            for file in files:
                os.fsync(file)
        elif _LIBC.syncfs(whole) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self._folder))


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def can_sync(folder: Path) -> bool:
    """Whether one flush of this folder's whole file system is as good as one of each file."""
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.system() != "Linux" or release is None or tuple(map(int, release.groups())) < _TELLS_ERRORS:
        return False
    with suppress(AttributeError):  # a C library without it
        found = ctypes.create_string_buffer(512)  # struct statfs, which begins with f_type, a long
        if _LIBC.syncfs and _LIBC.statfs(os.fsencode(folder), found) == 0:
            return ctypes.c_ulong.from_buffer(found).value in _GOOD
    return False
