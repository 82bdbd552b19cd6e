"""How many pictures a second a network answers on this machine, measured now; trains nothing, keeps nothing."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ml import architectures
from ml.backends import cpu_has_bf16

_LABELS = 1000  # as the published figures; the last layer hardly counts


@dataclass(frozen=True, slots=True)
class Speed:
    """`images_s`: pictures a second, from the median of `passes` forward passes over `batch` pictures."""

    images_s: float
    passes: int
    batch: int
    precision: str


def measure(
    name: str,
    side: int,
    *,
    device: str = "cpu",
    batch: int = 8,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """The forward pass of an untrained network over random pictures, as training and the plain backend run it: bf16
    where the device multiplies it itself, channels last. At least three passes after one to warm up.

    Raises ArtifactError('unknown_architecture').
    """
    where = torch.device(device)
    network = architectures.build(name, _LABELS).to(where).to(memory_format=torch.channels_last)
    pictures = torch.rand(batch, 3, side, side, device=where).contiguous(memory_format=torch.channels_last)
    half = torch.cuda.is_bf16_supported() if where.type == "cuda" else cpu_has_bf16()
    took: list[float] = []
    with torch.inference_mode(), torch.autocast(where.type, torch.bfloat16, enabled=half):
        network(pictures)
        until = clock() + seconds
        while len(took) < 3 or clock() < until:
            began = clock()
            network(pictures)
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            took.append(clock() - began)
    return Speed(batch / statistics.median(took), len(took), batch, "bf16" if half else "fp32")
