"""Decode-ahead batching: keyed sources in, keyed scores or failures out, in order.

    sources ──threads: read, decode, presets; at most `ahead`──► batches ──this thread: forward──► results

A predictor that `Submits` has some batches under way on its device while the next are gathered; results come in the
order of the sources all the same. Batches fill across whatever the caller's source spans. A bad picture becomes its own
Failure and harms no other.
"""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from ml.errors import PrepareError
from ml.scores import Scores

Key = TypeVar("Key", bound=Hashable)
Load = Callable[[], bytes]


class Predicts(Protocol):
    """What `ml.predictor.Predictor` and `ml.plain_predictor.PlainPredictor` do."""

    batch_size: int

    @property
    def backends(self) -> Mapping[str, Any]: ...

    def prepare(self, data: bytes) -> Any: ...

    def predict(self, pictures: Sequence[Any]) -> list[dict[str, Scores]]: ...


class Pending(Protocol):
    """A batch under way: scores by model, or why a picture has none, in the order of its pictures."""

    ready: Callable[[], bool]

    def result(self) -> Sequence[Mapping[str, Scores] | PrepareError]: ...


@runtime_checkable
class Submits(Predicts, Protocol):
    """A predictor with a device beside the CPU. `depth`: batches that may be under way; 0: none, just predict."""

    @property
    def depth(self) -> int: ...

    @property
    def figures(self) -> Mapping[str, float]:
        """What the device has counted so far; empty where there is none."""
        ...

    def submit(self, pictures: Sequence[Any]) -> Pending: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """One picture without scores; `code` is stable, `detail` is for people."""

    code: str
    detail: str


@dataclass(slots=True)
class Timings:
    """Where the time of a stream went, in seconds; read and decode are summed over their threads.

    `starved_s`: forward had nothing to do and waited for a decoder; near 0 where the device is the
    bottleneck. `wall_s`: how long a device beside the CPU has been served; what it was busy of that, it says itself.
    """

    read_s: float = 0.0
    decode_s: float = 0.0
    forward_s: float = 0.0
    starved_s: float = 0.0
    wall_s: float = 0.0
    pictures: int = 0
    failures: int = 0
    batches: int = 0


@dataclass(frozen=True, slots=True)
class _Loaded:
    outcome: Any
    read_s: float
    decode_s: float


def stream(
    source: Iterable[tuple[Key, Load]],
    predictor: Predicts,
    *,
    decode_threads: int = 1,
    batch_size: int | None = None,
    ahead: int | None = None,
    expected: tuple[type[Exception], ...] = (OSError,),
    timings: Timings | None = None,
) -> Iterator[tuple[Key, Mapping[str, Scores] | Failure]]:
    """One outcome per source, in the source's order.

    `ahead` bounds the pictures held at once (default: four batches). `expected` are the errors that a load
    may raise for one picture; they become Failures with the error's own `code`, or `unreadable`. Everything
    else propagates.
    """
    size = batch_size or predictor.batch_size
    timings = timings if timings is not None else Timings()
    device = _Beside(predictor, timings) if isinstance(predictor, Submits) and predictor.depth else _Here(predictor)
    waiting: deque[tuple[Key, Future[_Loaded]]] = deque()
    batch: list[tuple[Key, Any]] = []
    ready = 0
    ahead = max(ahead or 4 * size, size * (1 + device.depth))
    pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
    try:
        sources = iter(source)
        while True:
            _fill(waiting, sources, pool, predictor, expected, ahead)
            if not waiting:
                break
            key, future = waiting.popleft()
            outcome = _take(future, timings)
            batch.append((key, outcome))
            ready += not isinstance(outcome, Failure)
            if ready == size:
                yield from _forward(batch, device, timings)
                batch, ready = [], 0
        yield from _forward(batch, device, timings)
        yield from _rest(device, timings)
    finally:
        # Also when the caller stops early: no picture is decoded for nobody.
        pool.shutdown(wait=True, cancel_futures=True)


def _fill(
    waiting: deque[tuple[Key, Future[_Loaded]]],
    sources: Iterator[tuple[Key, Load]],
    pool: ThreadPoolExecutor,
    predictor: Predicts,
    expected: tuple[type[Exception], ...],
    ahead: int,
) -> None:
    while len(waiting) < ahead:
        entry = next(sources, None)
        if entry is None:
            return
        key, load = entry
        waiting.append((key, pool.submit(_load, load, predictor, expected)))


def _load(load: Load, predictor: Predicts, expected: tuple[type[Exception], ...]) -> _Loaded:
    start = time.perf_counter()
    try:
        data = load()
    except expected as error:
        failure = Failure(str(getattr(error, "code", "unreadable")), str(error))
        return _Loaded(failure, time.perf_counter() - start, 0.0)
    read = time.perf_counter()
    outcome: Any
    try:
        outcome = predictor.prepare(data)
    except PrepareError as error:
        outcome = Failure(error.code, error.detail)
    return _Loaded(outcome, read - start, time.perf_counter() - read)


def _take(future: Future[_Loaded], timings: Timings) -> Any:
    start = time.perf_counter()
    loaded = future.result()
    timings.starved_s += time.perf_counter() - start
    timings.read_s += loaded.read_s
    timings.decode_s += loaded.decode_s
    return loaded.outcome


Batch = list[tuple[Any, Any]]
Outcomes = Sequence[Mapping[str, Scores] | PrepareError]


class _Here:
    """Batches go through at once."""

    depth = 0

    def __init__(self, predictor: Predicts) -> None:
        self._predictor = predictor

    def through(self, batch: Batch, pictures: Sequence[Any]) -> Iterator[tuple[Batch, Outcomes]]:
        yield batch, self._predictor.predict(pictures)

    def rest(self) -> Iterator[tuple[Batch, Outcomes]]:
        yield from ()


class _Beside:
    """Some batches are under way; the oldest comes back when there are more, or when it is there anyway."""

    def __init__(self, predictor: Submits, timings: Timings) -> None:
        self.depth = predictor.depth
        self._predictor, self._timings = predictor, timings
        self._under_way: deque[tuple[Batch, Pending]] = deque()
        self._since = time.perf_counter()

    def through(self, batch: Batch, pictures: Sequence[Any]) -> Iterator[tuple[Batch, Outcomes]]:
        try:
            self._under_way.append((batch, self._predictor.submit(pictures)))
        except Exception:
            yield from self.rest()  # what was sent before has its scores
            raise
        while self._under_way and (len(self._under_way) > self.depth or self._under_way[0][1].ready()):
            yield self._back()

    def rest(self) -> Iterator[tuple[Batch, Outcomes]]:
        while self._under_way:
            yield self._back()

    def _back(self) -> tuple[Batch, Outcomes]:
        batch, pending = self._under_way.popleft()
        outcomes = pending.result()
        now = time.perf_counter()
        self._timings.wall_s += now - self._since
        self._since = now
        return batch, outcomes


Result = Iterator[tuple[Any, Mapping[str, Scores] | Failure]]


def _forward(batch: Batch, device: _Here | _Beside, timings: Timings) -> Result:
    pictures = [outcome for _, outcome in batch if not isinstance(outcome, Failure)]
    timings.batches += bool(pictures)
    yield from _answers(device.through(batch, pictures), timings)


def _rest(device: _Here | _Beside, timings: Timings) -> Result:
    yield from _answers(device.rest(), timings)


def _answers(through: Iterator[tuple[Batch, Outcomes]], timings: Timings) -> Result:
    while True:
        start = time.perf_counter()
        landed = next(through, None)
        timings.forward_s += time.perf_counter() - start
        if landed is None:
            return
        batch, outcomes = landed
        results = iter(outcomes)
        timings.pictures += len(batch)
        for key, outcome in batch:
            result = outcome if isinstance(outcome, Failure) else _judged(next(results))
            timings.failures += isinstance(result, Failure)
            yield key, result


def _judged(outcome: Mapping[str, Scores] | PrepareError) -> Mapping[str, Scores] | Failure:
    return Failure(outcome.code, outcome.detail) if isinstance(outcome, PrepareError) else _finite(outcome)


def _finite(scores: Mapping[str, Scores]) -> Mapping[str, Scores] | Failure:
    broken = [ref for ref, of_model in scores.items() if not of_model.finite()]
    return Failure("scores_not_finite", f"{', '.join(broken)} gave NaN or infinity") if broken else scores
