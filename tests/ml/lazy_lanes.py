"""A device that does everything as late as it may: what was told to a lane happens when somebody waits for a mark.

A buffer that is filled again too early is therefore read with the wrong pictures in it. It asserts nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LazyMark:
    def __init__(self, lanes: "LazyLanes", lane: str) -> None:
        self._lanes, self._lane = lanes, lane
        self.passed = False

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self._lanes.run(self._lane, self)


class LazyLanes:
    """`told`: the order in which things happened: ("copy" or "compute", what)."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.queues: dict[str, list[Any]] = {"copy": [], "compute": []}
        self.happened: list[str] = []
        self.current = ""
        self.running = False
        self.released = 0

    def host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(*shape, dtype=dtype)

    @contextmanager
    def _lane(self, name: str) -> Iterator[None]:
        before, self.current = self.current, name
        with _Deferring(self):
            yield
        self.current = before

    def copying(self) -> Any:
        return self._lane("copy")

    def computing(self) -> Any:
        return self._lane("compute")

    def later(self, what: Callable[[], object]) -> None:
        self.queues[self.current].append(what)

    def mark(self) -> LazyMark:
        mark = LazyMark(self, self.current)
        self.later(mark)  # type: ignore[arg-type]
        return mark

    def after(self, mark: LazyMark) -> None:
        self.later(mark.synchronize)

    def seconds(self, begin: LazyMark, end: LazyMark) -> float:
        assert begin.passed
        assert end.passed
        return 0.25

    def capture(self, run: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], Sequence[Tensor]]:
        with self.computing():
            outputs = run()

        def replay() -> None:
            for output, now in zip(outputs, run(), strict=True):
                output.copy_(now)

        return replay, outputs

    def settle(self) -> None:
        for lane in self.queues:
            self.run(lane, None)

    def release(self) -> None:
        self.released += 1

    def room(self) -> float:
        return 1.0

    def run(self, lane: str, until: LazyMark | None) -> None:
        """Do what this lane was told, up to a mark."""
        before, self.running = self.running, True
        while self.queues[lane] and not (until is not None and until.passed):
            step = self.queues[lane].pop(0)
            if isinstance(step, LazyMark):
                step.passed = True
            else:
                with torch.inference_mode():
                    step()
        self.running = before


class _Deferring(TorchDispatchMode):  # type: ignore[misc]
    """Copies happen when their lane comes to them."""

    def __init__(self, lanes: LazyLanes) -> None:
        super().__init__()
        self._lanes = lanes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and not self._lanes.running:
            self._lanes.later(lambda: func(*args, **(kwargs or {})))
            return args[0]
        return func(*args, **(kwargs or {}))
