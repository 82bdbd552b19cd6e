"""Batches on their way through a device: one computes, the next lies ready, a third is being filled.

    host rows ─copying lane─► device rows ─computing lane─► scores ─► host
    a slot's buffers are filled again only when the device has passed its last mark

Nobody waits for a batch but who asks for its scores, or who needs its slot.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml.errors import PredictError
from ml.graphs import Compute, Spec
from ml.lanes import Lanes, Mark

SLOTS = 3

Array = npt.NDArray[np.float32]
# A tensor for each preset, or the bytes of a working copy that the device is to decode.
Picture = Sequence[Tensor] | bytes
# Puts pictures that are still encoded into device rows, on the copying lane: (bytes, device rows from the first of
# theirs on) → the order in which it put them there.
Decode = Callable[[Sequence[bytes], Sequence[Tensor]], list[int]]


class Flight:
    """One batch that was submitted: its scores, one array N×labels for each model, in the order of its pictures."""

    def __init__(self, count: int, order: Sequence[int], landed: Callable[["Flight"], None]) -> None:
        self.count = count
        self.marks: tuple[Any, Any, Mark] | None = None  # begin and end of the forward pass, scores on the host
        self.found: list[Tensor] = []
        self._order = np.argsort(order)
        self._landed = landed
        self._arrays: list[Array] | None = None

    def ready(self) -> bool:
        """Whether `result` would not wait."""
        return self._arrays is not None or (self.marks is not None and self.marks[2].query())

    def result(self) -> list[Array]:
        """Wait for the scores; any number of times."""
        if self._arrays is None:
            assert self.marks is not None
            self.marks[2].synchronize()
            # Copies: the buffers belong to the slot's next batch.
            self._arrays = [rows.numpy().astype(np.float32)[self._order] for rows in self.found]
            self._landed(self)
        return self._arrays


class _Slot:
    def __init__(self, lanes: Lanes, specs: Sequence[Spec], size: int) -> None:
        self.host = [lanes.host((size, *spec.shape), spec.dtype) for spec in specs]
        self.device = [torch.empty(size, *spec.shape, dtype=spec.dtype, device=lanes.device) for spec in specs]
        self.scores: list[Tensor] = []
        self.flight: Flight | None = None


class Pipeline:
    """Batches of up to `size` pictures. `busy_s`: how long the device computed those that have landed."""

    def __init__(
        self, lanes: Lanes, compute: Compute, specs: Sequence[Spec], size: int, decode: Decode | None = None
    ) -> None:
        self.size = size
        self.busy_s = 0.0
        self._lanes, self._compute, self._specs, self._decode = lanes, compute, specs, decode
        self._slots: list[_Slot] = []
        self._next = 0

    def submit(self, pictures: Sequence[Picture]) -> Flight:
        """Send a batch on its way.

        What it raises leaves no trace: batches submitted before go on, and this one may be submitted again.
        """
        slot = self._free()
        try:
            with torch.inference_mode():
                flight = self._sent(slot, pictures)
        except BaseException:
            # Half a batch may be under way: nobody fills its buffers while the device reads them.
            self._lanes.settle()
            raise
        slot.flight = flight
        self._next = (self._next + 1) % SLOTS
        return flight

    def land(self) -> None:
        """Wait for all that is under way; its scores are kept for who asks."""
        for slot in self._slots:
            if slot.flight is not None:
                slot.flight.result()

    def _free(self) -> _Slot:
        if len(self._slots) <= self._next:
            self._slots.append(_Slot(self._lanes, self._specs, self.size))
        slot = self._slots[self._next]
        if slot.flight is not None:
            slot.flight.result()
            slot.flight = None
        return slot

    def _sent(self, slot: _Slot, pictures: Sequence[Picture]) -> Flight:
        count = len(pictures)
        plain = [(at, rows) for at, rows in enumerate(pictures) if not isinstance(rows, bytes)]
        encoded = [(at, data) for at, data in enumerate(pictures) if isinstance(data, bytes)]
        order, first = [at for at, _ in plain], len(plain)
        for preset, host in enumerate(slot.host if plain else ()):
            torch.stack([rows[preset] for _, rows in plain], out=host[:first])
        with self._lanes.copying():
            if encoded:
                # Before the copies: the decoder waits for the copying lane.
                assert self._decode is not None, "prepared for a device that decodes"
                places = self._decode([data for _, data in encoded], [rows[first:count] for rows in slot.device])
                order += [encoded[place][0] for place in places]
            for host, device in zip(slot.host, slot.device, strict=True):
                device[:first].copy_(host[:first], non_blocking=True)
            copied = self._lanes.mark()
        with self._lanes.computing():
            self._lanes.after(copied)
            begin = self._lanes.mark()
            scores = self._compute([device[:count] for device in slot.device])
            end = self._lanes.mark()
            if any(len(each) != count for each in scores):
                raise PredictError("wrong_output_length", f"{[len(s) for s in scores]} results for {count} pictures")
            flight = Flight(count, order, self._landed)
            flight.found = self._back(slot, scores, count)
            flight.marks = (begin, end, self._lanes.mark())
        return flight

    def _back(self, slot: _Slot, scores: Sequence[Tensor], count: int) -> list[Tensor]:
        if not slot.scores:
            slot.scores = [self._lanes.host((self.size, *each.shape[1:]), torch.float32) for each in scores]
        found = [host[:count] for host in slot.scores]
        for host, each in zip(found, scores, strict=True):
            host.copy_(each, non_blocking=True)
        return found

    def _landed(self, flight: Flight) -> None:
        assert flight.marks is not None
        begin, end, _ = flight.marks
        self.busy_s += self._lanes.seconds(begin, end)
