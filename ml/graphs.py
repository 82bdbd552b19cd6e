"""A forward pass over several networks as one CUDA graph a batch size: launched at once instead of kernel by kernel.

A batch goes through the smallest captured size that holds it; rows beyond it are whatever was there before, and their
scores are thrown away. Where a capture fails, everything runs kernel by kernel from then on, and `refused` says why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ml.errors import PredictError
from ml.lanes import Lanes, is_out_of_memory

Compute = Callable[[Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True, slots=True)
class Spec:
    """What one preset gives of a picture."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Graph:
    inputs: list[Tensor]
    outputs: Sequence[Tensor]
    replay: Callable[[], None]


class Graphs:
    """`compute` for batches of up to `size` pictures, on the computing lane. `refused`: why there are no graphs."""

    def __init__(
        self, lanes: Lanes, compute: Compute, specs: Sequence[Spec], size: int, *, refused: str | None = None
    ) -> None:
        self.refused = refused
        self.sizes = sizes(size)
        self._lanes, self._compute, self._specs = lanes, compute, specs
        self._graphs: dict[int, _Graph] = {}

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """One tensor of scores for each model, valid until the next call; the first of a size is captured."""
        count = len(inputs[0])
        graph = self._graph(next(size for size in self.sizes if size >= count))
        if graph is None:
            return self._compute(inputs)
        for static, rows in zip(graph.inputs, inputs, strict=True):
            static[:count].copy_(rows, non_blocking=True)
        graph.replay()
        return [output[:count] for output in graph.outputs]

    def _graph(self, size: int) -> _Graph | None:
        if self.refused is not None:
            return None
        if size not in self._graphs:
            try:
                self._graphs[size] = self._captured(size)
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise
                self._graphs.clear()
                self.refused = str(error).partition("\n")[0] or type(error).__name__
                return None
        return self._graphs[size]

    def _captured(self, size: int) -> _Graph:
        inputs = [torch.zeros(size, *spec.shape, dtype=spec.dtype, device=self._lanes.device) for spec in self._specs]
        replay, outputs = self._lanes.capture(lambda: self._compute(inputs))
        if any(len(output) != size for output in outputs):
            raise PredictError("wrong_output_length", f"{[len(each) for each in outputs]} results for {size} pictures")
        return _Graph(inputs, outputs, replay)


def sizes(size: int) -> tuple[int, ...]:
    """The batch sizes that are captured, least first: `size`, a quarter of it and so on, and 1."""
    found = [size]
    while found[-1] > 1:
        found.append(max(1, found[-1] // 4))
    return tuple(reversed(found))
