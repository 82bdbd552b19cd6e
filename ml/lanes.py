"""Where batches are computed and how they get there: streams, events, page-locked memory and graphs of one device.

    copying lane:    host → device of the next batches      ┐ a mark of the one is waited for by the other
    computing lane:  forward passes, and their scores back  ┘

The only file that speaks of `torch.cuda`'s streams. `HostLanes` is the same on the CPU, where everything has happened
when a call returns.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UPS = 3  # passes before a capture: libraries choose their kernels and take their workspaces
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory")

Run = Callable[[], Sequence[Tensor]]


class Mark(Protocol):
    """A point in a lane's work."""

    def query(self) -> bool:
        """Whether the device has passed it."""
        ...

    def synchronize(self) -> None:
        """Wait until it has."""
        ...


class Lanes(Protocol):
    """One device. Not for several threads at once."""

    device: torch.device

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device copies from and to without waiting."""
        ...

    def copying(self) -> AbstractContextManager[Any]: ...

    def computing(self) -> AbstractContextManager[Any]: ...

    def mark(self) -> Any:
        """A mark behind what the current lane has been told so far."""
        ...

    def after(self, mark: Any) -> None:
        """What the current lane is told from now on begins after the mark."""
        ...

    def seconds(self, begin: Any, end: Any) -> float:
        """Time of the device between two marks that it has passed."""
        ...

    def capture(self, run: Run) -> tuple[Callable[[], None], Sequence[Tensor]]:
        """(what does on the computing lane all that `run` does there, the tensors that it gives each time)."""
        ...

    def settle(self) -> None:
        """Wait until both lanes are idle."""
        ...

    def release(self) -> None:
        """Give memory that nothing holds back to the device."""
        ...

    def room(self) -> float:
        """The share of the device's memory that is free."""
        ...


class CudaLanes:
    """Two streams of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._copy: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._compute: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = None

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(*shape, dtype=dtype, pin_memory=True)

    def copying(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._copy)

    def computing(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._compute)

    def mark(self) -> torch.cuda.Event:
        # "blocking": who waits leaves the core to a decoder.
        event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def after(self, mark: torch.cuda.Event) -> None:
        mark.wait()

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return float(begin.elapsed_time(end)) / 1000

    def capture(self, run: Run) -> tuple[Callable[[], None], Sequence[Tensor]]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with self.computing():
            for _ in range(WARM_UPS):
                run()
        self.settle()
        graph = torch.cuda.CUDAGraph()
        # "thread_local": what decoding threads ask of CUDA meanwhile is no part of the graph and does not end it.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._compute, capture_error_mode="thread_local"):
            outputs = run()
        return graph.replay, outputs

    def settle(self) -> None:
        self._copy.synchronize()
        self._compute.synchronize()

    def release(self) -> None:
        self._pool = None
        torch.cuda.empty_cache()

    def room(self) -> float:
        free, total = torch.cuda.mem_get_info(self.device)
        return free / total


class HostMark:
    """A moment."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        return


class HostLanes:
    """The CPU: nothing runs beside anything."""

    device = torch.device("cpu")

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(*shape, dtype=dtype)

    def copying(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def computing(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def mark(self) -> HostMark:
        return HostMark()

    def after(self, mark: HostMark) -> None:
        return

    def seconds(self, begin: HostMark, end: HostMark) -> float:
        return end.at - begin.at

    def capture(self, run: Run) -> tuple[Callable[[], None], Sequence[Tensor]]:
        outputs = run()

        def replay() -> None:
            for output, now in zip(outputs, run(), strict=True):
                output.copy_(now)

        return replay, outputs

    def settle(self) -> None:
        return

    def release(self) -> None:
        return

    def room(self) -> float:
        return 1.0


def of(device: torch.device) -> Lanes:
    """The lanes of a device."""
    return CudaLanes(device) if device.type == "cuda" else HostLanes()


def name(device: str) -> str | None:
    """What a CUDA device calls itself; None for others."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory has run out, of the host or of the device, or came of that (a broken capture)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | torch.OutOfMemoryError) or any(sign in str(seen) for sign in _OUT_OF_MEMORY):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
