"""Keeps a loop going that must never end: what a turn raises is logged and the next turn comes. Decides nothing."""

from types import TracebackType

from structlog.typing import FilteringBoundLogger

from worker.log import Throttle


class Steady:
    """`with steady:` around one turn. An exception costs that turn and one line in ten seconds, and goes no further.

    What ends a task or a process (cancellation, SystemExit) passes. For one thread or task.
    """

    def __init__(self, log: FilteringBoundLogger, loop: str) -> None:
        self._log = log
        self._loop = loop
        self._throttle = Throttle(10)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._throttle.reset()
            return False
        if not isinstance(error, Exception):
            return False
        if self._throttle.ready():
            self._log.error("turn failed unexpectedly, will try again", loop=self._loop, exc_info=error)
        return True
