"""One log file for all roles: each line with its role in front; it parses nothing."""

import sys
import threading
from pathlib import Path
from typing import IO

_ROTATE_BYTES = 50_000_000


class RoleLog:
    """Appends lines of several processes to one file; one past 50 MB is put aside at the start."""

    def __init__(self, path: Path, *, echo: bool = False) -> None:
        if path.exists() and path.stat().st_size > _ROTATE_BYTES:
            path.replace(path.with_suffix(".log.1"))
        self.path = path
        self._echo = echo
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the processes are
        self._pumps: list[threading.Thread] = []

    def line(self, role: str, text: bytes) -> None:
        whole = f"{role:<11} │ ".encode() + text.rstrip(b"\r\n") + b"\n"
        # One write of one line: lines of several threads do not mix.
        self._file.write(whole)
        if self._echo:
            sys.stderr.write(whole.decode(errors="replace"))

    def follow(self, role: str, pipe: IO[bytes]) -> threading.Thread:
        """Copy a process's output until it and all its children have closed it; the thread that does so."""
        pump = threading.Thread(target=self._pump, args=(role, pipe), name=f"log-{role}", daemon=True)
        self._pumps.append(pump)
        pump.start()
        return pump

    def _pump(self, role: str, pipe: IO[bytes]) -> None:
        with pipe:
            for text in pipe:
                self.line(role, text)

    def close(self) -> None:
        for pump in self._pumps:
            pump.join(timeout=2)
        if not any(pump.is_alive() for pump in self._pumps):
            self._file.close()
