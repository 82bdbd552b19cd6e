"""How far a training is: from events and a clock that the test turns."""

import json

import pytest

from worker.train_progress import Progress, status, words

STARTED = {"event": "started", "step": 0, "epochs": 3, "steps_per_epoch": 4, "pictures": 35, "batch": 8}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def step(number: int, loss: float = 1.0) -> dict[str, object]:
    return {"event": "step", "epoch": (number - 1) // 4, "step": number, "loss": loss, "lr": 0.1}


def epoch(number: int) -> dict[str, object]:
    return {"event": "epoch", "epoch": number, "epochs": 3, "step": 4 * number + 4, "metrics": {"score": 0.5}}


def test_rate_and_time_to_go_count_steps_and_validations_apart() -> None:
    clock = Clock()
    progress = Progress(clock=clock)
    progress.hear(STARTED)
    assert status(progress.snapshot()) == "epoch 1 of 3, step 0 of 12"
    for number in range(1, 5):
        clock.now += 2
        progress.hear(step(number, loss=5.0 - number))
    assert progress.snapshot()["rate"] == pytest.approx(8 / 2)
    clock.now += 10
    progress.hear(epoch(0))
    clock.now += 50  # a checkpoint, a pause: no step's
    progress.hear({"event": "checkpoint", "step": 4, "path": "x"})
    clock.now += 3
    progress.hear(step(5))
    live = progress.snapshot()
    assert live["rate"] == pytest.approx(8 / 2)
    assert live["eta_s"] == pytest.approx(7 * 2 + 2 * 10)
    assert live["history"] == [{"epoch": 0, "loss": 2.5, "metrics": {"score": 0.5}}]
    assert live["checkpoint"] == 4
    assert json.loads(json.dumps(live)) == live
    assert "epoch 2 of 3, step 5 of 12" in status(live)
    assert "4.0 images/s, 34 s to go" in status(live)


def test_a_successor_goes_on_from_what_was_left_and_forgets_what_is_done_again() -> None:
    first = Progress()
    for event in (STARTED, *map(step, range(1, 5)), epoch(0), *map(step, range(5, 9)), epoch(1)):
        first.hear(event)
    second = Progress(first.snapshot())
    second.hear(STARTED | {"step": 5})
    live = second.snapshot()
    assert [each["epoch"] for each in live["history"]] == [0]
    assert (live["step"], live["rate"], live["eta_s"]) == (5, None, None)


def test_nothing_told_is_said_so() -> None:
    assert status({}) == status(Progress().snapshot()) == "nothing told yet"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (STARTED, "starts: 12 steps, 4 an epoch, 35 pictures in batches of 8"),
        (STARTED | {"step": 5}, "goes on at step 5 of 12, 4 an epoch, 35 pictures in batches of 8"),
        (epoch(1), "epoch 2 of 3: score 0.500"),
        ({"event": "out_of_memory", "step": 3, "batch": 4, "accumulation": 2}, "goes on with 4 pictures at once"),
        ({"event": "failed", "code": "loss_not_finite", "detail": "at step 9"}, "failed: at step 9 (loss_not_finite)"),
        ({"event": "picture_skipped", "image": "a.png", "code": "truncated"}, "picture skipped: image a.png"),
    ],
)
def test_events_read_well(event: dict[str, object], text: str) -> None:
    assert text in words(event)
