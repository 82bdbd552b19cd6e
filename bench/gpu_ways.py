"""The parts of `bench.gpu`: pictures, models with random weights, and each way through the machine, timed."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from ml import architectures, artifact, backends, batcher, batchnorm, imagenet, images, lanes
from ml.graphs import Graphs, Spec
from ml.predictor import Predictor, Prepared
from ml.presets import ImagenetPreset
from ml.working_copy import decode

SIZES = (32, 64, 128, 256, 512)
SIDE = 224
PICTURES = 256
BACKEND = {"cuda": "cuda", "cpu": "fused"}


def made_copies(folder: Path | None) -> list[bytes]:
    """Working copies of photos, or of made pictures of 512 × 384: soft fields with grain, some 50 KB."""
    if folder is not None:
        photos = sorted(folder.glob("*.jpg"))[:PICTURES]
        limits = images.Limits(draft_short_side=384)
        return [images.working_copy(images.read(photo.read_bytes(), limits)) for photo in photos]
    made = []
    generator = torch.Generator().manual_seed(5)
    for _ in range(PICTURES):
        coarse = torch.rand(1, 3, 12, 16, generator=generator) * 255
        smooth = torch.nn.functional.interpolate(coarse, size=(384, 512), mode="bicubic")[0]
        grain = torch.randn(3, 384, 512, generator=generator) * 4
        pixels = (smooth + grain).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
        out = BytesIO()
        Image.fromarray(pixels.numpy()).save(out, "JPEG", quality=90, subsampling=0)
        made.append(out.getvalue())
    return made


def saved(name: str, folder: Path) -> None:
    """An artifact with random weights whose scores are spread as trained ones are."""
    torch.manual_seed(20_260_101)
    network = architectures.build(name, 1000).eval()
    preset = ImagenetPreset()
    ready = preset.normaliser()(backends.probe(preset))
    for at, module in network.named_modules():
        if at.endswith(".bn3"):
            # Random branches as large as what they are added to would multiply every rounding, as trained ones do not.
            nn.init.constant_(module.weight, 0.1)
    with torch.inference_mode():
        with suppress(ValueError, IndexError, AssertionError):  # a network without BatchNorm has nothing to measure
            batchnorm.measure(network, [ready])
        logits = network.eval()(ready)
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.mul_(2.5 / float(logits.std()))
    card = imagenet.card(name, "1", source="bench/gpu.py", licence="Apache-2.0", precision="bf16")
    artifact.save(folder, card, network.state_dict())


def machine(options: argparse.Namespace, copies: Sequence[bytes]) -> dict[str, float]:
    """What bounds every model: decoding, by one thread and by all, and the way to the device."""
    device = torch.device(options.device)
    preset = ImagenetPreset()
    tiny = BytesIO()
    Image.new("RGB", (16, 16)).save(tiny, "JPEG", quality=90, subsampling=0)
    torch.set_num_threads(1)

    def prepare(data: bytes) -> Tensor:
        return preset(decode(data))

    with ThreadPoolExecutor(options.threads) as pool:
        several = rate_of(lambda: list(pool.map(prepare, copies)), len(copies), options.seconds)
    found = {
        "decode and resize, images/s, one thread": rate_of(
            lambda: [prepare(data) for data in copies[:64]], 64, options.seconds
        ),
        f"decode and resize, images/s, {options.threads} threads": several,
        "the same of 16 × 16 pixels, images/s, one thread: what the interpreter lets through": rate_of(
            lambda: [ImagenetPreset(8, 8)(decode(tiny.getvalue())) for _ in range(256)], 256, 0.5
        ),
    }
    if device.type == "cuda":
        host = torch.empty(256, 3, SIDE, SIDE, dtype=torch.uint8, pin_memory=True)
        there = torch.empty_like(host, device=device)

        def copy() -> None:
            for _ in range(16):
                there.copy_(host, non_blocking=True)
            torch.cuda.synchronize()

        rate = rate_of(copy, 16 * len(host), 0.5)
        found["page-locked host to device, images/s"] = rate
        found["the same in GB/s"] = rate * 3 * SIDE * SIDE / 1e9
    found["bytes of a working copy"] = statistics.mean(len(data) for data in copies)
    return found


def rate_of(run: Callable[[], object], pictures: int, seconds: float) -> float:
    run()
    began = time.perf_counter()
    times = 0
    while times == 0 or time.perf_counter() - began < seconds:
        run()
        times += 1
    return pictures * times / (time.perf_counter() - began)


def bare(
    options: argparse.Namespace, name: str, folder: Path
) -> tuple[dict[int, dict[str, float]], Callable[[float], float]]:
    """(images/s by batch size and way, the best of them to measure again)."""
    device = lanes.of(torch.device(options.device))
    loaded = artifact.load(folder / name)
    network = architectures.restore(loaded.card.architecture, len(loaded.card.labels), dict(loaded.state))
    network = fuse(network).to(device.device, torch.bfloat16).to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[Tensor], object]] = {"eager": network}
    graphs = Graphs(device, lambda batch: [network(batch[0])], [Spec((3, SIDE, SIDE), torch.bfloat16)], max(SIZES))
    graphs.sizes = SIZES
    ways["graph"] = lambda batch: graphs([batch])
    if options.compile:
        ways["compile"] = torch.compile(network, mode="reduce-overhead")
    best, sweep = (0.0, "", 0), {}

    def measured(way: str, size: int, seconds: float) -> float:
        batch = torch.randn(size, 3, SIDE, SIDE).to(device.device, torch.bfloat16)
        batch = batch.contiguous(memory_format=torch.channels_last)

        def passes() -> None:
            for _ in range(4):
                ways[way](batch)
            device.settle()

        with torch.inference_mode(), device.computing(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            return rate_of(passes, 4 * size, seconds)

    for size in SIZES if device.device.type == "cuda" else SIZES[:1]:
        sweep[size] = {way: measured(way, size, options.seconds / 4) for way in ways}
        best = max(best, *((speed, way, size) for way, speed in sweep[size].items()))
    return sweep, lambda seconds: measured(best[1], best[2], seconds)


def ours(
    options: argparse.Namespace, folders: Sequence[Path], decoder: str = "cpu", batch: int | None = None
) -> Predictor:
    models = [artifact.load(folder) for folder in folders]
    on = lanes.of(torch.device(options.device))
    return Predictor(
        models,
        device=options.device,
        backend=BACKEND[on.device.type],
        decoder=decoder,
        decode_threads=options.threads,
        on=on,
        batch_size=batch,
    )


def submitted(predictor: Predictor, prepared: Sequence[Prepared], seconds: float) -> tuple[float, float]:
    """Batches sent ahead, as the batcher does it."""
    pictures = [prepared[at % len(prepared)] for at in range(predictor.batch_size)]
    predictor.predict(pictures)
    busy, began, done = predictor.figures["device_busy_s"], time.perf_counter(), 0
    under_way: list[Any] = []
    while time.perf_counter() - began < seconds or under_way:
        if time.perf_counter() - began < seconds:
            under_way.append(predictor.submit(pictures))
        if len(under_way) > predictor.depth or time.perf_counter() - began >= seconds:
            done += len(under_way.pop(0).result())
    took = time.perf_counter() - began
    return done / took, 1 - (predictor.figures["device_busy_s"] - busy) / took


def streamed(predictor: Predictor, copies: Sequence[bytes], threads: int, seconds: float) -> tuple[float, float]:
    """The worker's batcher over working copies, until the time is up; what is still under way then counts, too."""
    began = time.perf_counter()

    def source() -> Iterator[tuple[int, Callable[[], bytes]]]:
        at = 0
        while time.perf_counter() - began < seconds:
            yield at, partial(bytes, copies[at % len(copies)])
            at += 1

    busy = predictor.figures["device_busy_s"]
    done = sum(isinstance(scores, dict) for _, scores in batcher.stream(source(), predictor, decode_threads=threads))
    took = time.perf_counter() - began
    return done / took, 1 - (predictor.figures["device_busy_s"] - busy) / took


def in_processes(options: argparse.Namespace, folder: Path, batch: int) -> list[float]:
    """Images/s of several processes on one device together, each with its part of the threads; one figure a round."""
    context = get_context("spawn")
    barrier = context.Barrier(options.processes)
    answers: Any = context.Queue()
    several = [
        context.Process(target=one_process, args=(options, folder, batch, barrier, answers))
        for _ in range(options.processes)
    ]
    for process in several:
        process.start()
    rounds = [answers.get(timeout=300) for _ in several]
    for process in several:
        process.join()
    return [sum(speeds) for speeds in zip(*rounds, strict=True)]


def one_process(options: argparse.Namespace, folder: Path, batch: int, barrier: Any, answers: Any) -> None:
    predictor = ours(options, [folder], batch=batch)
    copies = made_copies(options.folder)
    speeds = []
    for _ in range(options.rounds):
        barrier.wait(timeout=300)
        speeds.append(streamed(predictor, copies, max(1, options.threads // options.processes), options.seconds)[0])
    answers.put(speeds)
