"""Measures the ways to run one network on this CPU and says which is the fastest that may go live; keeps nothing.

    for each family × precision × batch: build → compare with the fp32 reference → time in turns with an anchor

Times are CPU time of this process, so that other load on the machine counts little; each candidate is timed in turns
with the same anchor, so that the ratios hold when the machine's clock does not.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from ml import architectures, backends, onnx_model, presets
from ml.agreement import agrees, apart, turns
from ml.artifact import Artifact
from ml.backends import Backend, Builder, OpenVinoBackend, Reference
from ml.card import ONNX, Precision
from ml.choice import Choice
from ml.errors import BackendError
from ml.exported import Exported
from ml.openvino_runtime import SIZES
from ml.scores import LabelSet

BATCHES = (1, 2, 4, 8)
# A larger batch has to be faster by so much: it takes memory, and fewer pictures fill it.
WORTH_IT = 1.03
_LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to run a network. `images_s`: pictures a second and core; None where it cannot run here.

    `gap`: the largest difference of a score from the fp32 reference's on the probe. `refused`: why it may not go live.
    """

    choice: Choice
    images_s: float | None
    gap: float
    refused: str | None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured for one model; `choice` is the fastest of what may go live, if anything may."""

    measured: tuple[Measured, ...]
    choice: Choice | None

    @property
    def best(self) -> Measured | None:
        """The measurement of the choice."""
        return next((each for each in self.measured if each.choice == self.choice), None)


def tune(
    artifact: Artifact,
    *,
    seconds: float = 20.0,
    threads: int = 1,
    int8: Exported | None = None,
    clock: Callable[[], float] = time.process_time,
) -> Tuned:
    """Measure one model for about so many seconds of CPU time, and no shorter than a few passes each. `int8`: its
    network in int8, where an evaluation lets it run so.

    Raises ArtifactError where the weights do not fit their card, and BackendError('backend_unavailable') for a network
    that nothing here can run.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ways = _Ways(artifact, threads, int8)
        measured = _measured(ways, seconds, clock)
    finally:
        torch.set_num_threads(before)
    return Tuned(measured, best(measured))


def best(measured: tuple[Measured, ...]) -> Choice | None:
    """The fastest that may go live; of one family and precision a larger batch only where it is worth it."""
    chosen: Measured | None = None
    good = [each for each in measured if each.refused is None and each.images_s is not None]
    for each in sorted(good, key=lambda each: each.choice.batch):
        assert each.images_s is not None
        if chosen is None or chosen.images_s is None:
            chosen = each
            continue
        same = each.choice.name == chosen.choice.name
        if each.images_s > chosen.images_s * (WORTH_IT if same else 1.0):
            chosen = each
    return None if chosen is None else chosen.choice


class _Ways:
    """The candidates of one model, how each is built, and how far from the reference it is."""

    def __init__(self, artifact: Artifact, threads: int, int8: Exported | None) -> None:
        card = artifact.card
        self._card, self._threads, self._int8 = card, threads, int8
        self._preset = presets.from_card(card.preset)
        self._scores = LabelSet(card).activate
        self.pictures: Tensor = backends.probe(self._preset)
        self._onnx: tuple[bytes, Tensor] | None = None
        if card.architecture == ONNX:
            self._onnx = onnx_model.unpack(artifact)
            return
        network = architectures.restore(card.architecture, len(card.labels), dict(artifact.state))
        self._build = Builder(network, self._preset, torch.device("cpu"), threads)
        self._reference = Reference(network, self._preset, self._scores)

    def __iter__(self) -> Iterator[Choice]:
        """Batch 1 in fp32 comes first: it is the anchor."""
        if self._onnx is not None:
            fixed = onnx_model.Feeding.of(self._card).batch
            yield from (Choice("openvino", self._card.precision, batch) for batch in ((fixed,) if fixed else BATCHES))
            return
        precisions: list[Precision] = ["fp32", "bf16"] if backends.cpu_has_bf16() else ["fp32"]
        families = ["openvino", "fused"] if find_spec("openvino") is not None else ["fused"]
        # torch takes a batch as it comes, so its batch is the predictor's.
        batches = {"openvino": BATCHES, "fused": (2 * max(SIZES),)}
        for precision in precisions:
            for family in families:
                yield from (Choice(family, precision, batch) for batch in batches[family])
        if self._int8 is not None:
            yield from (Choice("openvino", "int8", batch) for batch in BATCHES)

    def build(self, choice: Choice) -> Backend:
        """Raises BackendError('backend_unavailable')."""
        if choice.precision == "int8" and self._int8 is not None:
            size, sizes = self._preset.size, choice.sizes
            return OpenVinoBackend(self._int8.model, size, "int8", threads=self._threads, sizes=sizes)
        if self._onnx is None:
            return self._build(choice)
        data, _ = self._onnx
        return onnx_model.OnnxBackend(self._card, data, self._preset, threads=self._threads, sizes=choice.sizes)

    def judge(self, choice: Choice, backend: Backend) -> tuple[float, str | None]:
        """(gap, why it may not go live)."""
        if self._onnx is not None:
            assert isinstance(backend, onnx_model.OnnxBackend), "made by build"
            _, probed = self._onnx
            gap, relative, near = onnx_model.distance(self._card, backend, self.pictures, self._scores, probed)
        else:
            gap, relative = self._reference.distance(backend, torch.device("cpu"))
            if choice.precision == "int8":
                return gap, self._other_than_judged(backend)
            near = agrees(choice.precision, gap, relative)
        if not near:
            return gap, apart(gap, relative)
        if choice.precision == "bf16" and self._card.precision != "bf16":
            return gap, "the card asks for fp32"
        return gap, None

    def _other_than_judged(self, backend: Backend) -> str | None:
        """Why an int8 network may not go live here: it does not say what it said where it was evaluated."""
        assert self._int8 is not None
        assert isinstance(backend, OpenVinoBackend), "made by build"
        at = turns(len(self._int8.inputs), backend.compiled.sizes)
        found, expected = backend.compiled.infer(self._int8.inputs[at]), torch.from_numpy(self._int8.logits[at])
        gap = float((self._scores(torch.from_numpy(found)) - self._scores(expected)).abs().max())
        relative = float((torch.from_numpy(found) - expected).norm() / expected.norm().clamp(min=1e-12))
        return None if agrees("int8", gap, relative) else f"evaluated elsewhere: {apart(gap, relative)}"


def _measured(ways: _Ways, seconds: float, clock: Callable[[], float]) -> tuple[Measured, ...]:
    choices = list(ways)
    anchor: Callable[[], object] | None = None
    anchored: list[float] = []
    found: list[tuple[Choice, float | None, float, str | None]] = []
    for choice in choices:
        try:
            backend = ways.build(choice)
        except BackendError as error:
            found.append((choice, None, 0.0, error.detail))
            continue
        gap, refused = ways.judge(choice, backend)
        batch = ways.pictures[torch.arange(choice.batch) % len(ways.pictures)]
        run = _Pass(backend, batch)
        if anchor is None:
            anchor, size = run, choice.batch
        # In turns: the anchor's passes are over as many pictures as this one's.
        ratios: list[float] = []
        until = clock() + seconds / len(choices)
        while len(ratios) < _LEAST_ROUNDS or clock() < until:
            theirs = _took(anchor, max(1, 8 // size), clock) / (max(1, 8 // size) * size)
            own = _took(run, max(1, 8 // choice.batch), clock) / (max(1, 8 // choice.batch) * choice.batch)
            anchored.append(theirs)
            ratios.append(theirs / own)
        found.append((choice, statistics.median(ratios), gap, refused))
    speed = 1 / statistics.median(anchored) if anchored else 0.0
    return tuple(
        Measured(choice, None if ratio is None else ratio * speed, gap, refused)
        for choice, ratio, gap, refused in found
    )


@dataclass(frozen=True, slots=True)
class _Pass:
    """One forward pass."""

    backend: Backend
    batch: Tensor

    def __call__(self) -> object:
        return self.backend.forward(self.batch)


def _took(run: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(times):
        run()
    return clock() - began
