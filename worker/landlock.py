"""A Landlock rule set: this process may read everything, and write under one folder only. Linux 5.13 and later."""

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

# The same numbers on every architecture (they came after the tables were unified).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION: Final = 1  # flag of landlock_create_ruleset: tell the ABI and make nothing
_PATH_BENEATH: Final = 1
# LANDLOCK_ACCESS_FS_*: execute, write_file, remove_dir, remove_file, make_char … make_sym; then by ABI refer, truncate,
# ioctl_dev. Reading (bits 2 and 3) is not handled, so it stays as it is.
_ABI_1: Final = 0b1_1111_1111_0011
_LATER: Final = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_EXECUTE: Final = 1


def write_only_under(folder: Path) -> bool:
    """Forbid, for good, to write outside of `folder` and to execute anything. False where the kernel cannot.

    Needs PR_SET_NO_NEW_PRIVS (or root) first.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if abi < 1:
        return False
    handled = _ABI_1 | sum(bit for since, bit in _LATER.items() if abi >= since)
    attributes = struct.pack("=Q", handled)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", handled & ~_EXECUTE, place)  # struct landlock_path_beneath_attr, packed
        return bool(
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) == 0
            and libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
        )
    finally:
        os.close(place)
        os.close(ruleset)
