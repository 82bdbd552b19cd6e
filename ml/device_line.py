"""Several networks on one device, all in one pass: batches sent ahead, memory that runs out survived, time counted.

Out of memory, or pictures that the device does not decode: the same pictures are sent again, in halves or decoded here.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ml import batch_search
from ml.agreement import TOLERANCE
from ml.device_decode import DeviceDecodeError
from ml.errors import PredictError, PrepareError
from ml.graphs import Graphs, Spec
from ml.lanes import Lanes, is_out_of_memory
from ml.pipeline import Array, Decode, Flight, Picture, Pipeline

# A batch as one preset made it, on the device → scores N×labels, there too.
Forward = Callable[[Tensor], Tensor]
_PASSES, _ROUNDS = 8, 3


class Sent:
    """Pictures that are under way, in one batch or, where memory ran out, in several."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.parts: list[tuple[list[int], Flight]] = []
        self.broken: dict[int, PrepareError] = {}

    def ready(self) -> bool:
        """Whether `result` would not wait."""
        return all(flight.ready() for _, flight in self.parts)

    def result(self) -> list[Array]:
        """Scores for each model, a row a picture; those of a picture in `broken` say nothing."""
        made: list[Array] = []
        for places, flight in self.parts:
            for at, rows in enumerate(flight.result()):
                if at == len(made):
                    made.append(np.full((self.count, rows.shape[1]), np.nan, np.float32))
                made[at][places] = rows
        return made


class Line:
    """The networks of one process on one device. Not for several threads at once.

    `forwards`: for each model, which preset's rows it takes, and its network with what makes scores of logits. `decode`
    decodes on the device, `here` decodes what it could not. `no_graphs`: why there shall be none.
    """

    def __init__(
        self,
        lanes: Lanes,
        forwards: Sequence[tuple[int, Forward]],
        specs: Sequence[Spec],
        size: int,
        *,
        here: Callable[[bytes], Sequence[Tensor]],
        decode: Decode | None = None,
        no_graphs: str | None = None,
    ) -> None:
        self.out_of_memory = 0
        self.decoded_here = 0
        self.decode_fault = ""
        self._lanes, self._forwards, self._specs = lanes, forwards, specs
        self._here, self._decode = here, decode
        self._busy_s = 0.0
        self._refused = no_graphs
        self._graphs, self._pipeline = self._made_for(size)

    @property
    def size(self) -> int:
        """The most pictures of one batch."""
        return self._pipeline.size

    @property
    def busy_s(self) -> float:
        """How long the device has computed, of what has landed."""
        return self._busy_s + self._pipeline.busy_s

    @property
    def no_graphs(self) -> str | None:
        """Why the networks run kernel by kernel, if they do."""
        return self._graphs.refused

    def submit(self, pictures: Sequence[Picture]) -> Sent:
        """Send pictures on their way. Raises PredictError('out_of_memory') where a single one does not fit."""
        sent = Sent(len(pictures))
        left = list(enumerate(pictures))
        while left:
            part = left[: self.size]
            try:
                flight = self._pipeline.submit([picture for _, picture in part])
            except DeviceDecodeError as error:
                self.decode_fault = str(error)
                self.decoded_here += sum(isinstance(picture, bytes) for _, picture in part)
                left[: len(part)] = self._decoded(part, sent.broken)
                continue
            except (RuntimeError, MemoryError) as error:
                self._shrink(len(part), error)
                continue
            sent.parts.append(([at for at, _ in part], flight))
            del left[: len(part)]
        return sent

    def look(self, model: int, pictures: Sequence[Tensor]) -> Array:
        """Scores of one model, at once and with nothing beside it: for the few that are looked at again."""
        found: list[Array] = []
        at = 0
        while at < len(pictures):
            part = pictures[at : at + self.size]
            try:
                found.append(self._looked(model, part))
            except (RuntimeError, MemoryError) as error:
                self._shrink(len(part), error)
                continue
            at += len(part)
        return np.concatenate(found)

    def decoded(self, data: Sequence[bytes]) -> None:
        """Have the device decode pictures and wait for that; to measure it. Raises DeviceDecodeError."""
        assert self._decode is not None
        with torch.inference_mode(), self._lanes.copying():
            into = [
                torch.empty(len(data), *spec.shape, dtype=spec.dtype, device=self._lanes.device) for spec in self._specs
            ]
            self._decode(data, into)
            self._lanes.mark().synchronize()

    def search(self) -> dict[int, float]:
        """Take the batch size that this device is best at; images/s of what was tried, without copies and decoding."""
        size, speeds = batch_search.search(self._tried, self._lanes.room)
        self._begin(size)
        self.warm()
        return speeds

    def warm(self) -> None:
        """Capture the largest batch, so that its faults are known now; graphs that say something else are refused."""
        while True:
            size = self.size
            try:
                with torch.inference_mode(), self._lanes.computing():
                    inputs = self._noise(size)
                    expected = [each.clone() for each in self._compute(inputs)]
                    found = self._graphs(inputs)
                    gaps = [float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)]
                break
            except (RuntimeError, MemoryError) as error:
                self._shrink(size, error)
        if not all(gap <= TOLERANCE["bf16"][0] for gap in gaps):
            self._refused = f"scores of a graph differ by {max(gaps):.2g}"
            self._begin(size)

    def _begin(self, size: int) -> None:
        """With new buffers, after the old ones were given back."""
        self._pipeline.land()
        self._busy_s += self._pipeline.busy_s
        self._refused = self._refused or self._graphs.refused
        del self._pipeline, self._graphs
        self._lanes.release()
        self._graphs, self._pipeline = self._made_for(size)

    def _made_for(self, size: int) -> tuple[Graphs, Pipeline]:
        graphs = Graphs(self._lanes, self._compute, self._specs, size, refused=self._refused)
        return graphs, Pipeline(self._lanes, graphs, self._specs, size, self._decode)

    def _compute(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [forward(inputs[at]) for at, forward in self._forwards]

    def _looked(self, model: int, pictures: Sequence[Tensor]) -> Array:
        with torch.inference_mode(), self._lanes.computing():
            rows = torch.stack(list(pictures)).to(self._lanes.device)
            begin = self._lanes.mark()
            scores = self._forwards[model][1](rows)
            end = self._lanes.mark()
            found: Array = scores.cpu().numpy().astype(np.float32)
        self._busy_s += self._lanes.seconds(begin, end)
        if len(found) != len(pictures):
            raise PredictError("wrong_output_length", f"{len(found)} results for {len(pictures)} pictures")
        return found

    def _decoded(
        self, part: Sequence[tuple[int, Picture]], broken: dict[int, PrepareError]
    ) -> list[tuple[int, Picture]]:
        """The same pictures without those that the device was to decode and nobody can."""
        made: list[tuple[int, Picture]] = []
        for at, picture in part:
            try:
                made.append((at, self._here(picture) if isinstance(picture, bytes) else picture))
            except PrepareError as error:
                broken[at] = error
        return made

    def _shrink(self, tried: int, error: BaseException) -> None:
        """Halve the batch after running out of memory; anything else is raised again."""
        if not is_out_of_memory(error):
            raise error
        if tried == 1:
            what = f"a single picture does not fit on {self._lanes.device}"
            raise PredictError("out_of_memory", what) from error
        self.out_of_memory += 1
        self._begin(tried // 2)

    def _noise(self, size: int) -> list[Tensor]:
        """A few pictures of noise again and again, on the device."""
        generator = torch.Generator().manual_seed(1)
        few = [torch.randint(0, 256, (min(size, 8), *spec.shape), generator=generator) for spec in self._specs]
        at = torch.arange(size, device=self._lanes.device) % min(size, 8)
        return [each.to(self._lanes.device, spec.dtype)[at] for each, spec in zip(few, self._specs, strict=True)]

    def _tried(self, size: int) -> float | None:
        """Images/s at one batch size; None where it does not fit."""
        try:
            self._begin(size)
            with torch.inference_mode(), self._lanes.computing():
                inputs = self._noise(size)
                self._graphs(inputs)
                rounds = []
                for _ in range(_ROUNDS):
                    begin = self._lanes.mark()
                    for _ in range(_PASSES):
                        self._graphs(inputs)
                    end = self._lanes.mark()
                    end.synchronize()
                    rounds.append(self._lanes.seconds(begin, end))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return size * _PASSES / max(min(rounds), 1e-9)
