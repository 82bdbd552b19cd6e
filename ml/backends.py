"""The ways to run one network: torch as written, torch fused, CUDA, OpenVINO; all behind `Backend`.

`choose` takes the fastest that this machine has and that agrees with the fp32 reference on a probe batch.
Knows no labels and no files; precision is never lower than the model's card allows.
"""

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

from ml import openvino_runtime
from ml.agreement import TOLERANCE, agrees, apart, turns
from ml.card import Precision
from ml.choice import Choice
from ml.errors import BackendError
from ml.openvino_runtime import SIZES, Compiled
from ml.presets import Preset

__all__ = ["TOLERANCE", "Backend", "Builder", "Chosen", "Reference", "choose", "converted", "made_pictures", "probe"]

Family = Literal["auto", "reference", "fused", "openvino", "cuda"]


class Backend(Protocol):
    """One network made ready to run. `name` says how, for reports: family and precision."""

    name: str

    def forward(self, batch: Tensor) -> Tensor:
        """A batch as its preset made it, on the backend's device → float32 logits N×labels, there too."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backend taken, how far its scores were from the reference's, and what was refused and why."""

    backend: Backend
    gap: float
    refused: dict[str, str] = field(default_factory=dict)


class TorchBackend:
    """torch on the CPU or on CUDA. `fused` folds BatchNorm into the convolutions and keeps channels last."""

    def __init__(
        self, network: nn.Module, preset: Preset, device: torch.device, precision: Precision, *, fused: bool
    ) -> None:
        self.name = f"{device.type if device.type != 'cpu' else 'fused' if fused else 'reference'}-{precision}"
        self._layout = torch.channels_last if fused else torch.contiguous_format
        self._cuda = device.type == "cuda"
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._normaliser = preset.normaliser().to(device)
        folded = _folded(network) if fused else network
        self._network = folded.to(device, self._dtype).to(memory_format=self._layout)

    def forward(self, batch: Tensor) -> Tensor:
        with torch.inference_mode():
            ready = self._normaliser(batch).to(self._dtype, memory_format=self._layout)
            if not self._cuda:
                logits: Tensor = self._network(ready)
                return logits.float()
            # TF32 is on by default for convolutions and would make "fp32" three decimal digits.
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
                logits = self._network(ready)
            return logits.float()


class OpenVinoBackend:
    """OpenVINO on the CPU, the optional extra `cpu`. `sizes`: the batch sizes that the network is compiled for."""

    def __init__(self, model: Any, side: int, precision: Precision, *, threads: int, sizes: Sequence[int]) -> None:
        self.name = f"openvino-{precision}"
        self.compiled = Compiled(model, (3, side, side), sizes, precision=precision, threads=threads)

    def forward(self, batch: Tensor) -> Tensor:
        return torch.from_numpy(self.compiled.infer(batch.numpy()))


def converted(network: nn.Module, preset: Preset) -> Any:
    """The network behind its preset's normaliser as an OpenVINO model. Raises BackendError('backend_unavailable')."""
    ov = openvino_runtime.openvino()
    from openvino.frontend import GeneralFailure, OpConversionFailure

    example = preset(torch.zeros(3, preset.size, preset.size, dtype=torch.uint8)).unsqueeze(0)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # tracing warns about every shape that it fixes
            model = ov.convert_model(nn.Sequential(preset.normaliser(), network), example_input=example)
        model.reshape([-1, *example.shape[1:]])
        return model
    except (RuntimeError, GeneralFailure, OpConversionFailure) as error:
        raise BackendError("backend_unavailable", f"OpenVINO cannot take this network: {error}") from None


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 itself; emulated bf16 is slower than fp32 and no more exact."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose(
    network: nn.Module,
    preset: Preset,
    scores: Callable[[Tensor], Tensor],
    *,
    family: str = "auto",
    precision: Precision = "fp32",
    device: torch.device,
    threads: int,
    remembered: Choice | None = None,
) -> Chosen:
    """The fastest backend of `family` whose scores agree with the fp32 reference.

    `precision` is the lowest that the model's card allows, `scores` turns logits into scores. "auto" begins with what
    was measured here before, if that is `remembered`, and ends at the reference itself. Raises BackendError where a
    named family is unknown, missing here or disagrees.
    """
    if family not in get_args(Family):
        raise BackendError("backend_unknown", f"{family!r} is none of {', '.join(get_args(Family))}")
    reference = Reference(network, preset, scores)
    build = Builder(network, preset, device, threads)
    refused: dict[str, str] = {}
    for candidate in _candidates(family, precision, device, remembered):
        try:
            backend = build(candidate)
        except BackendError as error:
            refused[candidate.name] = error.detail
            continue
        gap, relative = reference.distance(backend, device)
        if agrees(candidate.precision, gap, relative):
            return Chosen(backend, gap, refused)
        refused[backend.name] = apart(gap, relative)
    if family == "auto" and device.type == "cpu":
        return Chosen(reference.backend, 0.0, refused)
    code = "backend_disagrees" if any("differ" in why for why in refused.values()) else "backend_unavailable"
    raise BackendError(code, "; ".join(f"{name}: {why}" for name, why in refused.items()) or f"no {family} on {device}")


class Reference:
    """torch as written, in fp32, and what it says of the probe."""

    def __init__(self, network: nn.Module, preset: Preset, scores: Callable[[Tensor], Tensor]) -> None:
        self.backend = TorchBackend(network, preset, torch.device("cpu"), "fp32", fused=False)
        self.pictures = probe(preset)
        self.logits = self.backend.forward(self.pictures)
        self._scores = scores

    def distance(self, backend: Backend, device: torch.device) -> tuple[float, float]:
        """(largest difference of a score, relative L2 difference of the logits) on the probe, in every batch size."""
        sizes = backend.compiled.sizes if isinstance(backend, OpenVinoBackend) else ()
        at = turns(len(self.pictures), sizes)
        found, expected = backend.forward(self.pictures[at].to(device)).cpu(), self.logits[at]
        gap = float((self._scores(found) - self._scores(expected)).abs().max())
        return gap, float((found - expected).norm() / expected.norm().clamp(min=1e-12))


class Builder:
    """Makes backends of one network; what OpenVINO needs of it is converted once."""

    def __init__(self, network: nn.Module, preset: Preset, device: torch.device, threads: int) -> None:
        self._network, self._preset, self._device, self._threads = network, preset, device, threads
        self._model: Any = None

    def __call__(self, candidate: Choice) -> Backend:
        """Raises BackendError('backend_unavailable')."""
        kind, precision = candidate.family, candidate.precision
        if kind != "openvino":
            return TorchBackend(self._network, self._preset, self._device, precision, fused=kind != "reference")
        if self._model is None:
            self._model = converted(self._network, self._preset)
        return OpenVinoBackend(self._model, self._preset.size, precision, threads=self._threads, sizes=candidate.sizes)


def _candidates(
    family: str, precision: Precision, device: torch.device, remembered: Choice | None = None
) -> list[Choice]:
    """What was measured here first, then fastest first as measured on MobileNetV2, one thread."""
    lowest: list[Precision] = ["bf16", "fp32"] if precision == "bf16" else ["fp32"]
    if device.type == "cuda":
        # Older ones emulate bf16, as older CPUs do.
        lowest = lowest if torch.cuda.is_bf16_supported(including_emulation=False) else ["fp32"]
        kinds = {"auto": ["cuda"], "cuda": ["cuda"]}.get(family, [])
    else:
        lowest = lowest if cpu_has_bf16() else ["fp32"]
        kinds = {"auto": ["openvino", "fused"], "cuda": []}.get(family, [family])
        if family == "auto" and find_spec("openvino") is None:
            kinds = ["fused"]
    if family == "reference" and device.type == "cpu":
        lowest = ["fp32"]
    known = [Choice(kind, at, max(SIZES)) for at in lowest for kind in kinds]
    return known if remembered is None or family != "auto" else remembered.before(known)


def _folded(network: nn.Module) -> nn.Module:
    """A copy with every BatchNorm folded into its convolution; a plain copy where fx cannot trace it."""
    try:
        return fuse(network)
    except (TraceError, TypeError, NotImplementedError):
        return deepcopy(network)


def probe(preset: Preset) -> Tensor:
    """The made pictures as the preset gives them."""
    return torch.stack([preset(picture) for picture in made_pictures()])


def made_pictures() -> list[Tensor]:
    """Four pictures, uint8 3×H×W, the same on every machine: soft coloured fields with grain."""
    generator = torch.Generator().manual_seed(20_240_601)
    pictures = []
    for cells in (3, 5, 9, 17):
        coarse = torch.rand(1, 3, cells, cells, generator=generator) * 255
        smooth = F.interpolate(coarse, size=(448, 384), mode="bicubic", align_corners=False)[0]
        grain = torch.randn(3, 448, 384, generator=generator) * 12
        pictures.append((smooth + grain).clamp(0, 255).to(torch.uint8))
    return pictures
