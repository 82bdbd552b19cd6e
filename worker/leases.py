"""Keeps the leases of the chunks a process works on, as long as the work moves; takes and ends none.

A lease is extended only after progress: a process that lives but hangs loses its chunk to the reaper, like a dead one.
Chunks of one process wait for each other (for the sandbox, for the device), so progress of one counts for all, but
only for so long: a chunk that stands still beside moving ones is lost in the end too.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db import chunks
from db.chunks import Chunk
from db.errors import Unavailable
from db.session import Database
from worker.log import get
from worker.steady import Steady

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

    @contextmanager
    def moving(self, at_most_s: float) -> Iterator[None]:
        """Inside, count as moving for at most so long: for a step that shows no progress, like loading a model."""
        self._moving_until = time.monotonic() + at_most_s
        try:
            yield
        finally:
            self._moving_until = 0.0

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
    """A thread that calls `extend` in time, for stages that are not asyncio."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="leases", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        steady = Steady(get("lease"), "leases")
        while not self._stop.wait(self._leases.every_s):
            with steady:
                self._leases.extend()
