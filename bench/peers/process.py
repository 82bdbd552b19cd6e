"""A system under test as the comparison holds it: its process, its rounds, its clock and its CPU time."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.peers.protocol import Result, Round
from bench.system import cpu_seconds, descendants

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 60.0


class Failed(Exception):
    """A system did not start or did not answer; the text is the end of what it said."""


@dataclass(frozen=True)
class Turn:
    """One system's part of a round."""

    count: int
    done: int
    seconds: float
    cpu_s: float
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Images a second by the clock."""
        return self.count / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU an image."""
        return 1000 * self.cpu_s / self.count


class Peer:
    """A running system. `about`: what it says of itself."""

    def __init__(self, command: list[str]) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - held until close()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, cwd=ROOT, text=True
        )
        try:
            self.about: dict[str, Any] = self._answer()["ready"]
        except BaseException:
            self.close()
            raise

    def turn(self, asked: Round) -> Turn:
        """One round, from asking to the answer. Raises Failed."""
        before, began = self._cpu(), time.perf_counter()
        result = self._ask(asked)
        seconds = time.perf_counter() - began
        return _turn(asked, result, seconds, self._cpu() - before)

    @classmethod
    def whole(cls, command: list[str], asked: Round) -> Turn:
        """A process for one round; its start counts. Raises Failed."""
        began = time.perf_counter()
        with cls(command) as peer:
            result = peer._ask(asked)
            seconds = time.perf_counter() - began
            return _turn(asked, result, seconds, peer._cpu())

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Its processes run inside the block and are stopped after it: some are busy while they have nothing to do."""
        self._signal(signal.SIGCONT)
        yield
        self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End its input, and with that the process."""
        self._signal(signal.SIGCONT)
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._words.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, asked: Round) -> Result:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asdict(asked)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        return Result(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _signal(self, number: signal.Signals) -> None:
        for pid in descendants(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _cpu(self) -> float:
        return cpu_seconds({"all": self._process.pid})["all"]

    def _last_words(self) -> str:
        self._words.seek(0)
        said = self._words.read().decode(errors="replace").strip().splitlines()
        return (said or ["it said nothing"])[-1][:300]


def _turn(asked: Round, result: Result, seconds: float, cpu_s: float) -> Turn:
    spent = cpu_s if result.cpu_s is None else result.cpu_s
    taken = seconds if result.seconds is None else result.seconds
    return Turn(asked.count, result.done, taken, spent, result.parts)
