"""One role as a child process: logged, restarted with growing pauses, stopped with its own children."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from worker import leashed
from worker.rolelog import RoleLog

LIVED_WELL_S = 60.0
REFUSAL = 2  # the exit code of a role that cannot work with what it is given
REFUSED_WITHIN_S = 30.0


def pause_before_restart(failures: int) -> float:
    """Seconds to wait after the n-th end in a row (n ≥ 1): 0.5, 1, 2 … 30."""
    return min(30.0, 0.5 * 2.0 ** min(failures - 1, 10))


class RoleProcess:
    """A role's process group. `run` is the folder where its pid is noted for a later start's clean-up.

    `refused`: its first life ended at once with the exit code that says that starting it again is of no use.
    """

    def __init__(self, role: str, command: list[str], environment: dict[str, str], *, log: RoleLog, run: Path) -> None:
        self.role = role
        self.restarts = 0
        self.refused = False
        self._command = command
        self._environment = environment
        self._log = log
        self._note = run / f"{role}.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._failures = 0
        self._due = 0.0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def launch(self) -> None:
        self._process = leashed.spawn(self._command, env=self._environment, output=subprocess.PIPE)
        assert self._process.stdout is not None
        self._pump = self._log.follow(self.role, self._process.stdout)
        self._started = time.monotonic()
        self._note.write_text(json.dumps({"pid": self._process.pid, "command": self._command}))

    def watch(self, now: float) -> str | None:
        """Note an end, or start again when the pause is over; says in words what happened, if anything did.

        `now` is time.monotonic().
        """
        if self._process is None:
            if now < self._due:
                return None
            self.restarts += 1
            self.launch()
            return f"{self.role} started again"
        code = self._process.poll()
        if code is None:
            return None
        self._kill_group()
        self._pump.join(timeout=2)  # so that the log has its last words
        self._process = None
        # Only at the first start: later on, what it refuses may pass, and work is under way.
        self.refused = code == REFUSAL and self.restarts == 0 and now - self._started < REFUSED_WITHIN_S
        self._failures = 1 if now - self._started > LIVED_WELL_S else self._failures + 1
        pause = pause_before_restart(self._failures)
        self._due = now + pause
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"{self.role} {how}; starting it again in {pause:g} s (why: {self._log.path})"

    def ask_to_stop(self) -> None:
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)

    def stop(self, deadline: float) -> None:
        """After `ask_to_stop`: wait until `deadline` (time.monotonic()), then kill what is left."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._log.line(self.role, b"did not stop in time: killed")
        self._kill_group()
        self._process.wait()
        self._process = None
        self._note.unlink(missing_ok=True)

    def _kill_group(self) -> None:
        """End whatever the role started and left behind: it has a session, and so a group, of its own."""
        assert self._process is not None
        _kill_group(self._process.pid)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
    except PermissionError:
        return  # macOS says so of a group of zombies


def end_leftovers(run: Path) -> None:
    """Kill role processes that an earlier supervisor left: a noted pid that runs the noted command."""
    for note in run.glob("*.pid"):
        try:
            left = json.loads(note.read_text(encoding="utf-8"))
            pid, command = int(left["pid"]), [str(word) for word in left["command"]]
        except (OSError, ValueError, KeyError, TypeError):
            note.unlink(missing_ok=True)
            continue
        if (leashed.command_line(pid) or "").strip() == " ".join(command):
            _kill_group(pid)
            leashed.wait_gone(pid, 10)
        note.unlink(missing_ok=True)
