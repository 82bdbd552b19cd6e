"""Decode-ahead batching: keyed sources in, keyed scores or failures out, in order.

    sources ──threads: read, decode, presets; at most `ahead`──► batches ──this thread: forward──► results

Batches fill across whatever the caller's source spans. A bad picture becomes its own Failure and harms no
other.
"""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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


@dataclass(frozen=True, slots=True)
class Failure:
    """One picture without scores; `code` is stable, `detail` is for people."""

    code: str
    detail: str


@dataclass(slots=True)
class Timings:
    """Where the time of a stream went, in seconds; read and decode are summed over their threads.

    `starved_s`: forward had nothing to do and waited for a decoder; near 0 where the device is the
    bottleneck.
    """

    read_s: float = 0.0
    decode_s: float = 0.0
    forward_s: float = 0.0
    starved_s: float = 0.0
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
) -> Iterator[tuple[Key, dict[str, Scores] | Failure]]:
    """One outcome per source, in the source's order.

    `ahead` bounds the pictures held at once (default: four batches). `expected` are the errors that a load
    may raise for one picture; they become Failures with the error's own `code`, or `unreadable`. Everything
    else propagates.
    """
    size = batch_size or predictor.batch_size
    timings = timings if timings is not None else Timings()
    waiting: deque[tuple[Key, Future[_Loaded]]] = deque()
    batch: list[tuple[Key, Any]] = []
    ready = 0
    pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
    try:
        sources = iter(source)
        while True:
            _fill(waiting, sources, pool, predictor, expected, max(ahead or 4 * size, size))
            if not waiting:
                break
            key, future = waiting.popleft()
            outcome = _take(future, timings)
            batch.append((key, outcome))
            ready += not isinstance(outcome, Failure)
            if ready == size:
                yield from _forward(batch, predictor, timings)
                batch, ready = [], 0
        yield from _forward(batch, predictor, timings)
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


def _forward(
    batch: list[tuple[Key, Any]], predictor: Predicts, timings: Timings
) -> Iterator[tuple[Key, dict[str, Scores] | Failure]]:
    pictures = [outcome for _, outcome in batch if not isinstance(outcome, Failure)]
    start = time.perf_counter()
    results = iter(predictor.predict(pictures))
    timings.forward_s += time.perf_counter() - start
    timings.pictures += len(batch)
    timings.batches += bool(pictures)
    for key, outcome in batch:
        result = outcome if isinstance(outcome, Failure) else _finite(next(results))
        timings.failures += isinstance(result, Failure)
        yield key, result


def _finite(scores: dict[str, Scores]) -> dict[str, Scores] | Failure:
    broken = [ref for ref, of_model in scores.items() if not of_model.finite()]
    return Failure("scores_not_finite", f"{', '.join(broken)} gave NaN or infinity") if broken else scores
