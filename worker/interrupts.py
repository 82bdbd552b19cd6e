"""Lets signals end a command the way Ctrl-C does, so that its `finally` runs; imports nothing of ours."""

import signal
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A signal asked us to stop.

    A class of its own, because CPython remembers a bare KeyboardInterrupt that passed through exec() of a text (which
    dataclasses and namedtuples use, so nearly every import) even where it was caught: the process then ends by SIGINT
    instead of its exit code, and whoever supervises it takes a clean stop for a crash.
    """


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal handler. Raises Interrupted."""
    raise Interrupted


def on(*numbers: signal.Signals) -> None:
    """Raise Interrupted in the main thread at these signals. Call it from the main thread."""
    for number in numbers:
        signal.signal(number, interrupt)


def ignore(*numbers: signal.Signals) -> None:
    """Let nothing cut short what follows: half of a system must not be left running."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
