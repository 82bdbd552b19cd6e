"""What `ml.predictor` does on a GPU: which decoder, batches sent ahead, second looks at what came back."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml import device_decode
from ml.backends import TorchBackend
from ml.device_decode import DeviceDecoder
from ml.device_line import Line, Sent
from ml.errors import PrepareError
from ml.graphs import Spec
from ml.lanes import Lanes
from ml.loaded import Loaded, Prepared, pixels
from ml.pipeline import SLOTS
from ml.presets import Preset
from ml.scores import Scores
from ml.views import VIEWS
from ml.working_copy import decode

DEPTH = SLOTS - 1  # batches under way while the next is made ready
_UNSEARCHED = 8  # where the search starts from

# Scores by name@version, or why a picture has none.
Outcome = Mapping[str, Scores] | PrepareError


class Pending:
    """Pictures under way."""

    def __init__(self, ready: Callable[[], bool], finish: Callable[[], list[Outcome]]) -> None:
        self.ready = ready
        self._finish = finish

    def result(self) -> list[Outcome]:
        """Wait for them; one outcome for each, in their order."""
        return self._finish()


class OnDevice:
    """Loaded models on one device. `searched`: images/s of the batch sizes that were tried.

    `decoder`: (cpu or nvjpeg, why it is not nvjpeg though it was asked for).
    """

    def __init__(
        self, models: Callable[[], Sequence[Loaded]], presets: Sequence[Preset], lanes: Lanes, batch_size: int | None
    ) -> None:
        self.searched: dict[int, float] = {}
        self.decoder: tuple[str, str | None] = ("cpu", None)
        self._models, self._presets = models, presets
        blank = [preset(torch.zeros(3, 8, 8, dtype=torch.uint8)) for preset in presets]
        ours = all(isinstance(model.chosen.backend, TorchBackend) for model in models())
        self.line = Line(
            lanes,
            [(model.input, partial(self._first_look, at)) for at, model in enumerate(models())],
            [Spec(tuple(each.shape), each.dtype) for each in blank],
            batch_size or _UNSEARCHED,
            here=lambda data: [preset(decode(data)) for preset in presets],
            decode=DeviceDecoder(lanes, presets),
            no_graphs=None if ours else "a model runs on the CPU",
        )
        if batch_size is None:
            self.searched = self.line.search()
        else:
            self.line.warm()

    @property
    def figures(self) -> dict[str, float]:
        """Seconds that it has computed, batches halved for lack of memory, pictures decoded here in its place."""
        return {
            "device_busy_s": self.line.busy_s,
            "device_out_of_memory": self.line.out_of_memory,
            "device_decoded_here": self.line.decoded_here,
        }

    def takes(self, data: bytes) -> bool:
        """Whether the device shall decode this."""
        return self.decoder[0] == "nvjpeg" and device_decode.suits(data)

    def choose_decoder(self, prepare: Callable[[bytes], Prepared], wanted: str, threads: int) -> None:
        """Have the device decode, where its scores agree and, for "auto", where it is faster than the threads."""
        copies = device_decode.copies()
        here = self.submit([prepare(data) for data in copies]).result()
        there = self.submit([Prepared((), None, data) for data in copies]).result()
        if self.line.decoded_here:
            self.decoder = ("cpu", self.line.decode_fault)
            return
        gap = max(_gap(one, other) for one, other in zip(here, there, strict=True))
        if not gap <= device_decode.SCORE_GAP:
            self.decoder = ("cpu", f"scores differ by {gap:.2g}")
            return
        if wanted == "auto":
            ours = device_decode.images_s(lambda: [prepare(data) for data in copies], len(copies)) * threads
            batch = copies * max(1, self.line.size // len(copies))
            theirs = device_decode.images_s(partial(self.line.decoded, batch), len(batch))
            if theirs < ours:
                self.decoder = ("cpu", f"{theirs:.0f} images/s, {threads} CPU threads about {ours:.0f}")
                return
        self.decoder = ("nvjpeg", None)

    def submit(self, pictures: Sequence[Prepared]) -> Pending:
        """Send pictures on their way and come back at once. Raises PredictError('out_of_memory')."""
        sent = self.line.submit([each.inputs if each.encoded is None else each.encoded for each in pictures])
        return Pending(sent.ready, partial(self._landed, sent, pictures))

    def _first_look(self, at: int, batch: Tensor) -> Tensor:
        model = self._models()[at]
        return model.labels.activate(model.chosen.backend.forward(batch))

    def _landed(self, sent: Sent, pictures: Sequence[Prepared]) -> list[Outcome]:
        models, values = self._models(), sent.result()
        for at, model in enumerate(models):
            if model.preset.views > 1 and values:
                self._look_again(at, values[at], sent, pictures)
        outcomes: list[Outcome] = []
        for row in range(len(pictures)):
            if row in sent.broken:
                outcomes.append(sent.broken[row])
                continue
            named = zip(models, values, strict=True)
            outcomes.append({model.labels.ref: Scores(model.labels, array[row]) for model, array in named})
        return outcomes

    def _look_again(self, at: int, values: npt.NDArray[np.float32], sent: Sent, pictures: Sequence[Prepared]) -> None:
        """Put the mean over its preset's views where the model is not sure."""
        model = self._models()[at]
        again: dict[int, Tensor] = {}
        for row in np.flatnonzero(~model.labels.plainly_sure(values, model.preset.sure)).tolist():
            try:
                if row not in sent.broken:
                    again[row] = pixels(pictures[row])
            except PrepareError as error:
                sent.broken[row] = error
        if not again:
            return
        unsure = list(again)
        total = values[unsure]
        for view in VIEWS[1 : model.preset.views]:
            total += self.line.look(at, [model.preset(view(picture)) for picture in again.values()])
        values[unsure] = total / np.float32(model.preset.views)


def _gap(one: Outcome, other: Outcome) -> float:
    """The largest difference of a score; not a number where there is none."""
    if isinstance(one, PrepareError) or isinstance(other, PrepareError):
        return float("nan")
    return max(float(np.abs(scores.values - other[ref].values).max()) for ref, scores in one.items())
