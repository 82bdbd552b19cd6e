import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from ml.artifact import Artifact
from ml.batcher import Failure, Timings, stream
from ml.predictor import Predictor
from ml.scores import Scores
from ml.tiny import make_tiny
from tests.ml.conftest import jpeg, png

RED, BLUE = png((220, 10, 10)), png((10, 10, 220))


@pytest.fixture
def predictor(tiny_tags: Artifact) -> Predictor:
    return Predictor([tiny_tags], backend="reference", batch_size=4)


def label(outcome: dict[str, Scores] | Failure) -> str:
    return outcome.code if isinstance(outcome, Failure) else outcome["tiny-tags@1"].top(1)[0].label


def given(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def unreadable() -> bytes:
    raise FileNotFoundError("no such blob")


class BlobMissing(Exception):
    code = "blob_missing"


def missing() -> bytes:
    raise BlobMissing("gone")


def bug() -> bytes:
    raise ZeroDivisionError


def test_every_source_has_its_own_answer_in_order(predictor: Predictor) -> None:
    pictures = [RED if at % 3 else BLUE for at in range(37)]
    source = [(at, given(data)) for at, data in enumerate(pictures)]
    timings = Timings()
    results = list(stream(source, predictor, decode_threads=3, timings=timings))
    assert [key for key, _ in results] == list(range(37))
    assert [label(outcome) for _, outcome in results] == ["red" if at % 3 else "blue" for at in range(37)]
    assert (timings.pictures, timings.failures, timings.batches) == (37, 0, 10)
    assert timings.forward_s > 0
    assert timings.decode_s > 0


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (given(b""), "not_a_working_copy"),
        (given(jpeg((9, 9, 9))[:50]), "corrupt_working_copy"),
        (unreadable, "unreadable"),
        (missing, "blob_missing"),
    ],
)
def test_a_bad_picture_fails_alone(predictor: Predictor, at: int, bad: Callable[[], bytes], code: str) -> None:
    source = [(n, given(RED)) for n in range(5)]
    source.insert(at, (99, bad))
    results = dict(stream(source, predictor, expected=(OSError, BlobMissing)))
    assert label(results.pop(99)) == code
    assert [label(outcome) for outcome in results.values()] == ["red"] * 5


def test_only_bad_pictures(predictor: Predictor) -> None:
    timings = Timings()
    results = list(stream([(n, given(b"")) for n in range(9)], predictor, timings=timings))
    assert [label(outcome) for _, outcome in results] == ["not_a_working_copy"] * 9
    assert (timings.pictures, timings.failures, timings.batches) == (9, 9, 0)


def test_no_pictures(predictor: Predictor) -> None:
    assert list(stream([], predictor)) == []


def test_an_unexpected_error_is_not_swallowed(predictor: Predictor) -> None:
    with pytest.raises(ZeroDivisionError):
        list(stream([(0, given(RED)), (1, bug)], predictor))


@pytest.mark.parametrize("ahead", [4, 10])
def test_no_more_than_ahead_is_held(predictor: Predictor, ahead: int) -> None:
    """The source is asked for a picture only when there is room for it."""
    asked = 0
    answered = 0

    def source() -> Iterator[tuple[int, Callable[[], bytes]]]:
        nonlocal asked
        for at in range(50):
            asked += 1
            assert asked - answered <= ahead + predictor.batch_size
            yield at, given(RED)

    for _ in stream(source(), predictor, ahead=ahead, decode_threads=2):
        answered += 1
    assert answered == 50


def test_decoding_goes_on_while_the_caller_is_busy(predictor: Predictor) -> None:
    """With one result out, later pictures are decoded without anybody asking for them."""
    decoded = threading.Semaphore(0)

    def load() -> bytes:
        decoded.release()
        return RED

    results = stream([(n, load) for n in range(12)], predictor, ahead=8)
    next(results)
    for _ in range(8):
        assert decoded.acquire(timeout=30)
    assert len(list(results)) == 11


def test_stopping_early_leaves_no_thread(predictor: Predictor) -> None:
    before = threading.active_count()
    results = stream([(n, given(RED)) for n in range(100)], predictor, decode_threads=3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_scores_that_are_no_numbers_fail_their_picture_only(tmp_path: object) -> None:
    from pathlib import Path

    predictor = Predictor([make_tiny(Path(str(tmp_path)), "tags")], backend="reference", batch_size=4)
    whole = predictor.predict

    def one_nan(pictures: object) -> list[dict[str, Scores]]:
        results = whole(pictures)  # type: ignore[arg-type]
        results[1]["tiny-tags@1"].values[:] = np.nan
        return results

    predictor.predict = one_nan  # type: ignore[assignment,method-assign]
    results = list(stream([(n, given(RED)) for n in range(3)], predictor))
    assert [label(outcome) for _, outcome in results] == ["red", "scores_not_finite", "red"]
