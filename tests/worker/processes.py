"""Finds the processes of an installation by its folder, for tests that nothing is left running."""

import os
import time
from pathlib import Path


def of(folder: Path) -> dict[int, str]:
    """Live processes (not ours) whose command line, environment or working folder names it: pid → command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # Valkey writes its title over its environment; but its working folder is its data's.
            about = (entry / "environ").read_bytes().decode(errors="replace") + str((entry / "cwd").readlink())
        except OSError:
            continue
        if command and (str(folder) in command or str(folder) in about):
            found[int(entry.name)] = command
    return found


def left(folder: Path, patience_s: float) -> dict[int, str]:
    """What is still there after waiting up to `patience_s` for all to end."""
    deadline = time.monotonic() + patience_s
    while (found := of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
