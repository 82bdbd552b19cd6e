"""Keeps the leases of the chunks a process works on, as long as the work moves; takes and ends none.

A lease is extended only after progress: a process that lives but hangs loses its chunk to the reaper, like a dead one.
Chunks of one process wait for each other (for the sandbox, for the device), so progress of one counts for all, but
only for so long: a chunk that stands still beside moving ones is lost in the end too.
"""

import faulthandler
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db import chunks
from db.chunks import Chunk
from db.errors import Unavailable
from db.session import Database
from worker.log import get
from worker.steady import Steady

STDERR = 2
PATIENCE = 10  # leases that a chunk may live by the progress of others


@dataclass
class _Held:
    chunk: Chunk
    moved_at: float
    progress: int = 0
    reported: int = 0


class Leases:
    """The leases held now. Safe to use from any thread."""

    def __init__(self, database: Database, lease_s: float, *, step_s: float = 0.0) -> None:
        """`step_s`: how long one step of the work may take by its own limits; until then, standing still is no hang."""
        self._database = database
        self._step_s = step_s
        self._lease_s = lease_s
        self._held: dict[tuple[int, int], _Held] = {}
        self._lock = threading.Lock()
        self._moving_until = 0.0
        self._steps = 0
        self._steps_reported = 0
        self._steps_watched = 0
        self.watched: Callable[[], None] = lambda: None
        """Called when the time that a step may take changes; whoever watches for hangs sets it."""

    @property
    def every_s(self) -> float:
        """How often `extend` should be called."""
        return self._lease_s / 3

    def add(self, chunk: Chunk) -> None:
        """Watch over a chunk that was just claimed."""
        with self._lock:
            self._held[chunk.id, chunk.fence] = _Held(chunk, time.monotonic())

    def remove(self, chunk: Chunk) -> None:
        """The chunk was ended or given up."""
        with self._lock:
            self._held.pop((chunk.id, chunk.fence), None)

    def clear(self) -> None:
        """Everything was given up."""
        with self._lock:
            self._held.clear()

    def moved(self, chunk: Chunk) -> None:
        """Work on this chunk went on."""
        with self._lock:
            self._steps += 1
            held = self._held.get((chunk.id, chunk.fence))
            if held is not None:
                held.progress += 1
                held.moved_at = time.monotonic()

    def trying(self) -> None:
        """Something outside is waited for, and asked again and again: not a hang."""
        with self._lock:
            self._steps += 1

    def allowance(self) -> float | None:
        """None if chunks are held and nothing moved since this was last asked; else the seconds for which a step that
        shows no progress may still go on beyond the usual."""
        now = time.monotonic()
        with self._lock:
            moved = not self._held or self._steps != self._steps_watched or now < self._moving_until
            self._steps_watched = self._steps
            return max(0.0, self._moving_until - now) if moved else None

    @contextmanager
    def moving(self, at_most_s: float) -> Iterator[None]:
        """Inside, count as moving for at most so long: for a step that shows no progress, like loading a model."""
        self._moving_until = time.monotonic() + at_most_s
        self.watched()
        try:
            yield
        finally:
            self._moving_until = 0.0
            self.trying()
            self.watched()

    def extend(self) -> list[Chunk]:
        """Extend what moved since the last call, in one transaction; the chunks found to be another's now.

        A database that is away extends nothing and loses nothing: the next call tries again.
        """
        now = time.monotonic()
        with self._lock:
            steps = self._steps
            all_moved = steps != self._steps_reported or now < self._moving_until
            moved = [
                (held, held.progress)
                for held in self._held.values()
                if held.progress != held.reported
                or now - held.moved_at < (PATIENCE * self._lease_s if all_moved else self._step_s)
            ]
        if not moved:
            return []
        lost: list[Chunk] = []
        try:
            with self._database.transaction() as session:
                for held, progress in moved:
                    if not chunks.extend(session, held.chunk, progress, self._lease_s):
                        lost.append(held.chunk)
        except Unavailable as error:
            get("lease").warning("leases not extended", error=str(error))
            return []
        self._steps_reported = steps
        for held, progress in moved:
            held.reported = progress
        for chunk in lost:
            self.remove(chunk)
            get("lease").warning("lease lost", chunk=chunk.id, fence=chunk.fence)
        return lost


class LeaseKeeper:
    """A thread that calls `extend` in time, for stages that are not asyncio.

    Where nothing moves for `hung_after_s` with chunks in hand, the process ends, saying where each thread stands: its
    leases are lost by then, and while it hangs its device does nothing. A timer of C does that, which needs no GIL:
    what hangs may hold it.
    """

    def __init__(self, leases: Leases, hung_after_s: float) -> None:
        self._leases = leases
        self._hung_after_s = hung_after_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="leases", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._leases.watched = self._wind
        self._wind()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._leases.watched = lambda: None
        faulthandler.cancel_dump_traceback_later()

    def _wind(self) -> None:
        """Give the work its time anew, if it moved."""
        allowed = self._leases.allowance()
        if allowed is not None:
            faulthandler.dump_traceback_later(self._hung_after_s + allowed, exit=True, file=STDERR)

    def _loop(self) -> None:
        steady = Steady(get("lease"), "leases")
        while not self._stop.wait(self._leases.every_s):
            self._wind()
            with steady:
                self._leases.extend()
