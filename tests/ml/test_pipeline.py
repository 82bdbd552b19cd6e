"""Batches on their way through a device that is as late as it may be: nothing is mixed up, lost or filled too early."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ml import graphs, pipeline
from ml.batch_search import search
from ml.errors import PredictError
from ml.graphs import Graphs, Spec
from ml.lanes import HostLanes, is_out_of_memory
from ml.pipeline import SLOTS, Pipeline
from tests.ml.lazy_lanes import LazyLanes

SPECS = [Spec((3, 2, 2), torch.uint8), Spec((1,), torch.float32)]


class Network:
    """Two models: the mean of a picture's first input, and twice its second. `sizes` of the batches it was given."""

    def __init__(self, lanes: Any) -> None:
        self.lanes = lanes
        self.sizes: list[int] = []

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        count = len(inputs[0])
        self.sizes.append(count)
        found = [torch.empty(count, 1), torch.empty(count, 1)]

        def compute() -> None:
            found[0].copy_(inputs[0].float().mean((1, 2, 3))[:, None])
            found[1].copy_(inputs[1] * 2)

        self.lanes.later(compute) if isinstance(self.lanes, LazyLanes) else compute()
        return found


def pictures(first: int, count: int) -> list[tuple[Tensor, ...]]:
    numbers = range(first, first + count)
    return [(torch.full((3, 2, 2), at, dtype=torch.uint8), torch.tensor([float(at)])) for at in numbers]


def said(flight: pipeline.Flight) -> list[tuple[float, float]]:
    one, two = flight.result()
    return list(zip(one[:, 0].tolist(), two[:, 0].tolist(), strict=True))


def expected(first: int, count: int) -> list[tuple[float, float]]:
    return [(float(at), 2.0 * at) for at in range(first, first + count)]


@pytest.mark.parametrize("graphed", [False, True])
@pytest.mark.parametrize("lanes", [LazyLanes, HostLanes])
def test_every_batch_has_its_own_scores_however_late_the_device_is(lanes: type[Any], graphed: bool) -> None:
    device = lanes()
    network = Network(device)
    run = Graphs(device, network, SPECS, 4) if graphed else network
    line = Pipeline(device, run, SPECS, 4)
    counts = [4, 4, 1, 4, 3, 4, 2, 4, 4, 4]
    flights = [line.submit(pictures(sum(counts[:at]), count)) for at, count in enumerate(counts)]
    for at, flight in reversed(list(enumerate(flights))):
        assert said(flight) == expected(sum(counts[:at]), counts[at])
    assert line.busy_s == (pytest.approx(0.25 * len(counts)) if lanes is LazyLanes else pytest.approx(0, abs=60))


def test_nobody_waits_before_a_slot_is_needed() -> None:
    device = LazyLanes()
    line = Pipeline(device, Network(device), SPECS, 4)
    flights = [line.submit(pictures(4 * at, 4)) for at in range(SLOTS)]
    assert not any(flight.ready() for flight in flights), "a submit has waited for the device"
    flights.append(line.submit(pictures(40, 4)))
    assert [flight.ready() for flight in flights] == [True, *[False] * SLOTS]
    assert said(flights[1]) == expected(4, 4)
    assert not flights[2].ready()


def test_a_batch_that_fails_takes_no_other_with_it() -> None:
    device = LazyLanes()
    network = Network(device)
    line = Pipeline(device, network, SPECS, 4)
    before = line.submit(pictures(0, 4))
    broken = pictures(4, 4)
    broken[2] = (torch.zeros(3, 9, 9, dtype=torch.uint8), broken[2][1])
    with pytest.raises(RuntimeError):
        line.submit(broken)
    after = line.submit(pictures(8, 4))
    assert (said(before), said(after)) == (expected(0, 4), expected(8, 4))


def test_half_a_batch_under_way_is_waited_for_before_its_buffers_are_filled_again() -> None:
    device = LazyLanes()
    failing = [True]

    def compute(inputs: Sequence[Tensor]) -> list[Tensor]:
        if failing:
            failing.clear()
            raise RuntimeError("a kernel does not start")
        return Network(device)(inputs)

    line = Pipeline(device, compute, SPECS, 4)
    with pytest.raises(RuntimeError, match="kernel"):
        line.submit(pictures(0, 4))
    assert not any(device.queues.values())
    assert said(line.submit(pictures(4, 4))) == expected(4, 4)


def test_scores_that_are_missing_are_noticed() -> None:
    line = Pipeline(HostLanes(), lambda inputs: [inputs[1][1:]], SPECS, 4)
    with pytest.raises(PredictError) as caught:
        line.submit(pictures(0, 3))
    assert caught.value.code == "wrong_output_length"
    with pytest.raises(PredictError):
        Graphs(HostLanes(), lambda inputs: [inputs[1][1:]], SPECS, 4)([torch.zeros(3, 3, 2, 2), torch.zeros(3, 1)])


def test_what_the_device_decodes_comes_back_in_order() -> None:
    """Those of one size are decoded together, so their order on the device is another."""
    device = LazyLanes()

    def decode(data: Sequence[bytes], rows: Sequence[Tensor]) -> list[int]:
        order = list(reversed(range(len(data))))
        for at, place in enumerate(order):
            rows[0][at].copy_(torch.full((3, 2, 2), data[place][0], dtype=torch.uint8))
            rows[1][at].copy_(torch.tensor([float(data[place][0])]))
        return order

    line = Pipeline(device, Network(device), SPECS, 6, decode)
    mixed: list[Any] = [bytes([at]) if at % 3 else pictures(at, 1)[0] for at in range(6)]
    flights = [line.submit(mixed), line.submit([bytes([at]) for at in range(6)]), line.submit(pictures(0, 6))]
    assert [said(flight) for flight in flights] == [expected(0, 6)] * 3


def test_graphs_are_captured_once_a_size() -> None:
    assert graphs.sizes(256) == (1, 4, 16, 64, 256)
    assert graphs.sizes(6) == (1, 6)
    lanes = HostLanes()
    network = Network(lanes)
    captured: list[int] = []
    whole = lanes.capture

    def capture(run: Any) -> Any:
        captured.append(1)
        return whole(run)

    lanes.capture = capture  # type: ignore[method-assign]
    run = Graphs(lanes, network, SPECS, 8)
    for count in (8, 7, 3, 8, 2, 1, 2):
        inputs = [torch.stack([row[at] for row in pictures(5, count)]) for at in range(2)]
        one, two = run(inputs)
        assert (one[:, 0].tolist(), two[:, 0].tolist()) == (inputs[1][:, 0].tolist(), (inputs[1][:, 0] * 2).tolist())
    assert len(captured) == 3
    assert set(network.sizes) == {8, 2, 1}


def test_without_a_capture_it_runs_kernel_by_kernel_and_says_so() -> None:
    lanes = HostLanes()

    def refused(run: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nstack")

    lanes.capture = refused  # type: ignore[method-assign]
    run = Graphs(lanes, Network(lanes), SPECS, 4)
    line = Pipeline(lanes, run, SPECS, 4)
    assert said(line.submit(pictures(7, 3))) == expected(7, 3)
    assert run.refused == "operation not permitted when stream is capturing"


def test_memory_that_runs_out_in_a_capture_is_no_reason_to_do_without() -> None:
    lanes = HostLanes()

    def full(run: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    lanes.capture = full  # type: ignore[method-assign]
    run = Graphs(lanes, Network(lanes), SPECS, 4)
    with pytest.raises(torch.OutOfMemoryError):
        run([torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, 1)])
    assert run.refused is None


def test_memory_is_to_blame_also_behind_another_error() -> None:
    broken = RuntimeError("capture was invalidated")
    broken.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(broken)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2"))


@pytest.mark.parametrize(
    ("speeds", "best", "tried"),
    [
        ({16: 100, 32: 190, 64: 300, 128: 308, 256: 900}, 64, [16, 32, 64, 128]),  # 3 % is not worth twice as much
        ({16: 100, 32: 104, 64: 109, 128: 113, 256: 118, 512: 123}, 512, [16, 32, 64, 128, 256, 512]),
        ({16: 100, 32: 190, 64: None}, 32, [16, 32]),
        ({16: None}, 8, []),
        ({16: 100, 32: 50}, 16, [16, 32]),
    ],
)
def test_the_batch_size_is_searched(speeds: dict[int, float | None], best: int, tried: list[int]) -> None:
    size, found = search(lambda size: speeds[size], lambda: 0.5)
    assert (size, list(found)) == (best, tried)


def test_memory_is_left() -> None:
    left = iter([0.5, 0.3, 0.05])
    size, found = search(lambda size: size * 10.0, lambda: next(left))
    assert (size, list(found)) == (32, [16, 32, 64])
