"""Start programs that cannot outlive this process, stop them, and tell which program a recorded pid is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_LEASH = Path(__file__).with_name("leash.py")


def spawn(
    command: Sequence[str | Path],
    *,
    on_parent_death: signal.Signals = signal.SIGKILL,
    as_nobody: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    source: IO[bytes] | None = None,
    output: IO[bytes] | int | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` (absolute path first) in a session of its own; the kernel signals it when we die.

    Its own session keeps the terminal's Ctrl-C away: whoever started it decides when it stops. Call it from a
    thread that lives as long as the child should: Linux counts the thread, not the process, as parent.
    """
    argv = [sys.executable, "-I", "-S", str(_LEASH), str(int(on_parent_death)), str(os.getpid())]
    argv += ["MAP" if as_nobody else "PLAIN", *(str(part) for part in command)]
    return subprocess.Popen(
        argv,
        env=None if env is None else dict(env),
        cwd=cwd,
        stdin=source or subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
    )


def can_appear_as_nobody() -> bool:
    """True if root may enter a user namespace here (containers often forbid it)."""
    argv = [sys.executable, "-I", "-S", str(_LEASH), str(int(signal.SIGKILL)), str(os.getpid()), "MAP"]
    probe = subprocess.run([*argv, sys.executable, "-I", "-S", "-c", ""], capture_output=True, check=False)
    return probe.returncode == 0


def command_line(pid: int) -> str | None:
    """The command line of a live process, or None if there is no such process (a zombie counts as none)."""
    if Path("/proc/self/cmdline").exists():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return None
        return words.replace(b"\0", b" ").decode(errors="replace") or None
    asked = ["ps", "-o", "command=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or None


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait until a process that is not our child has ended; False if it still lives after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while command_line(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end_stranger(pid: int, steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Stop a process left over from an earlier run: each (signal, patience in seconds) in turn."""
    for step, patience in steps:
        try:
            os.kill(pid, step)
        except ProcessLookupError:
            return
        if wait_gone(pid, patience):
            return


def end_child(child: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Stop a child of ours: each (signal, seconds to wait) in turn until it has ended; reaps it."""
    for step, patience in steps:
        if child.poll() is not None:
            return
        child.send_signal(step)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    child.wait(5)
