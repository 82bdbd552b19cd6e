"""What a GPU reaches from working copies to scores, beside the bare network on tensors that are already there.

python -m bench.gpu [--models resnet50 convnext_tiny] [--rounds 5] [--seconds 1.5] [--threads N] [--processes 2]
                    [--folder PHOTOS] [--compile] [--json FILE]

Needs one CUDA device and nothing else: weights are random, pictures are made (or taken from a folder). At most 8
minutes on 16 cores. Without a device it says so and ends. `--device cpu` runs the same on the CPU, to try this file.

    bare      the folded bf16 network, channels last, over normalised device tensors: the best of eager and CUDA graph
              (and torch.compile with --compile) and of the batch sizes; in every round anew
    prepared  our predictor over pictures that are decoded and resized: page-locked copies, normalising, heads, scores
    copies    working copies to scores, decoded by CPU threads; `x2`: in so many processes on the one GPU
    nvjpeg    the same, decoded and resized by the GPU

Rounds are taken in turns and ratios inside a round. Idle: 1 − time that the GPU computed / time, by its own events.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench import gpu_ways
from bench.tables import spread
from ml import lanes
from ml.device_decode import DeviceDecodeError


@dataclass
class Way:
    """One way through the machine: images/s of each round, and the share of the time that the GPU was idle."""

    run: Callable[[float], tuple[float, float | None]]
    images_s: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)


def main() -> None:
    options = _options()
    screen = Console(highlight=False, width=150)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        screen.print("bench.gpu: no CUDA device here, so nothing was measured.")
        return
    copies = gpu_ways.made_copies(options.folder)
    where = lanes.name(options.device) or "CPU"
    about = {"device": where, "cores": os.cpu_count(), "threads": options.threads, "torch": torch.__version__}
    screen.print(", ".join(f"{name} {value}" for name, value in about.items()))
    result: dict[str, Any] = {"about": about, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            gpu_ways.saved(name, Path(folder) / name)
        result["machine"] = gpu_ways.machine(options, copies)
        _tell(screen, result["machine"])
        for name in options.models:
            result["models"][name] = _model(screen, options, name, Path(folder), copies)
        if len(options.models) > 1:
            result["together"] = _together(screen, options, Path(folder), copies)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def _options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", nargs="+", default=["resnet50", "convnext_tiny"])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=1.5)
    arguments.add_argument("--threads", type=int, default=max(2, (os.cpu_count() or 1) - 2))
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--compile", action="store_true")
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--json", type=Path)
    return arguments.parse_args()


def _tell(screen: Console, found: dict[str, float]) -> None:
    table = Table("", "figure", title="the machine", title_justify="left", box=None)
    for what, value in found.items():
        table.add_row(what, f"{value:,.1f}")
    screen.print(table)


def _model(
    screen: Console, options: argparse.Namespace, name: str, folder: Path, copies: Sequence[bytes]
) -> dict[str, Any]:
    sweep, bare = gpu_ways.bare(options, name, folder)
    table = Table("batch", *next(iter(sweep.values())), title=f"{name}: bare, images/s", title_justify="left", box=None)
    for size, row in sweep.items():
        table.add_row(str(size), *(f"{value:,.0f}" for value in row.values()))
    screen.print(table)
    cpu, gpu = (gpu_ways.ours(options, [folder / name], decoder) for decoder in ("cpu", "nvjpeg"))
    assert cpu.gpu is not None
    assert gpu.gpu is not None
    chosen = next(iter(cpu.backends.values()))
    said = {
        "backend": chosen.backend.name, "refused": chosen.refused, "batch": cpu.batch_size,
        "searched": {size: round(speed) for size, speed in cpu.gpu.searched.items()}, "nvjpeg": gpu.gpu.decoder,
    }  # fmt: skip
    screen.print(f"ours: {said}")
    prepared = [cpu.prepare(data) for data in copies]
    ways = {
        "bare": Way(lambda seconds: (bare(seconds), None)),
        "prepared": Way(partial(gpu_ways.submitted, cpu, prepared)),
        "copies": Way(partial(gpu_ways.streamed, cpu, copies, options.threads)),
    }
    if gpu.gpu.decoder[0] == "nvjpeg":
        ways["nvjpeg"] = Way(partial(gpu_ways.streamed, gpu, copies, options.threads))
        with suppress(DeviceDecodeError):
            many = copies[: gpu.batch_size]
            decoded = gpu_ways.rate_of(partial(gpu.gpu.line.decoded, many), len(many), 1.0)
            screen.print(f"nvJPEG and resize alone: {decoded:,.0f} images/s")
    for _ in range(options.rounds):
        for way in ways.values():
            speed, idle = way.run(options.seconds)
            way.images_s.append(speed)
            way.idle += [] if idle is None else [idle]
    several = f"copies x{options.processes}"
    if options.processes > 1:
        ways[several] = Way(lambda seconds: (0.0, None))
        ways[several].images_s = gpu_ways.in_processes(options, folder / name, cpu.batch_size)
    _shown(screen, name, ways)
    return {"sweep": sweep, **said, **{what: [way.images_s, way.idle] for what, way in ways.items()}}


def _shown(screen: Console, name: str, ways: dict[str, Way]) -> None:
    bare = ways["bare"].images_s
    table = Table("", "images/s", "of bare", "GPU idle", title=name, title_justify="left", box=None)
    for what, way in ways.items():
        pairs = zip(way.images_s, bare, strict=False)
        ratio = spread([speed / least for speed, least in pairs], ".2f")
        table.add_row(what, spread(way.images_s, ",.0f"), ratio, spread(way.idle, ".0%") if way.idle else "")
    screen.print(table)


def _together(screen: Console, options: argparse.Namespace, folder: Path, copies: Sequence[bytes]) -> dict[str, Any]:
    """All models in one pass over pictures that are decoded once."""
    predictor = gpu_ways.ours(options, [folder / name for name in options.models])
    rounds = [gpu_ways.streamed(predictor, copies, options.threads, options.seconds) for _ in range(options.rounds)]
    speeds, idle = [speed for speed, _ in rounds], [share for _, share in rounds]
    what = " and ".join(options.models)
    screen.print(
        f"{what} in one pass, from working copies: {spread(speeds, ',.0f')} images/s, idle {spread(idle, '.0%')}"
    )
    return {"images_s": speeds, "idle": idle, "batch": predictor.batch_size}


if __name__ == "__main__":
    main()
