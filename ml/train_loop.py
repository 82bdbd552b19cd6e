"""The training loop: one epoch, one step, one pass over a split; knows no file and no card.

All randomness of a step comes from (seed, epoch, step): a run that starts again at a step sees what it would have
seen.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ml import augment
from ml.augment import Augmentation
from ml.distributed import Ranks
from ml.errors import TrainingError
from ml.heads import Head, loss
from ml.pixel_cache import PixelCache
from ml.presets import ImagenetPreset, WholePreset

_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory")
_AHEAD = 2  # batches prepared while the network works

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pictures:
    """One split: the pictures' paths in the cache, and their targets, N×labels."""

    images: tuple[str, ...]
    targets: Tensor
    cache: PixelCache


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a step needs of the configuration."""

    preset: ImagenetPreset | WholePreset
    size: int
    augmentation: Augmentation
    smoothing: float
    ema_decay: float
    seed: int
    workers: int
    bf16: bool
    device: torch.device
    ranks: Ranks = field(default_factory=Ranks)


class Learner:
    """A network that learns: its optimizer, its moving average, and how many pictures it takes at once."""

    def __init__(
        self, network: nn.Module, last: str, heads: Sequence[Head], recipe: Recipe, *, lr: float, decay: float
    ) -> None:
        self.network = network.to(recipe.device).to(memory_format=torch.channels_last)
        self.average = deepcopy(self.network).eval().requires_grad_(False)
        self.averaged = 0
        self.heads = heads
        self.recipe = recipe
        self.step = 0
        self.pieces = 1  # forwards per optimizer step
        self._last = last
        self._normaliser = recipe.preset.normaliser().to(recipe.device)
        parameters = list(self.network.parameters())
        # Biases and BatchNorm's scales are not pulled towards 0.
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=lr,
        )

    def train_mode(self, *, only_head: bool) -> None:
        """Let all layers learn, or the last alone: then BatchNorm keeps its statistics too."""
        self.network.train()
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not only_head or name.startswith(f"{self._last}."))
        if only_head:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def learn(self, batch: Tensor, targets: Tensor, lr: float, key: str, on_event: Callable[[Event], None]) -> float:
        """One optimizer step; its loss. A step that runs out of memory is done again in twice as many pieces.

        `batch` is this process' share of the step; the loss is that of the whole step. MixUp and CutMix mix within a
        share. Raises TrainingError: loss_not_finite, out_of_memory.
        """
        rng = random.Random(f"{key}/mix")
        batch, partner, share = augment.mix(batch, self.recipe.augmentation, rng)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        while True:
            # Another dropout in every process, for their pictures are others.
            torch.manual_seed(rng.getrandbits(60) + self.recipe.ranks.rank)
            try:
                value = self._backward(batch, targets, targets[partner], share)
                break
            except (MemoryError, RuntimeError) as error:
                self._shrink(len(batch), error)
            self._say_shrunk(len(batch), on_event)
        value = self._together(value, len(batch), on_event)
        if not math.isfinite(value):
            raise TrainingError("loss_not_finite", f"the loss is {value} at step {self.step}", step=self.step)
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        # BatchNorm normalises each share by its own statistics; what is remembered of them is their mean.
        self.recipe.ranks.average(buffer for buffer in self.network.buffers() if buffer.is_floating_point())
        self.step += 1
        self._follow()
        return value

    def _backward(self, batch: Tensor, first: Tensor, second: Tensor, share: float) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        device, value = self.recipe.device, 0.0
        size = math.ceil(len(batch) / self.pieces)
        for at in range(0, len(batch), size):
            part = slice(at, at + size)
            logits = self.logits(self.network, batch[part])
            piece = loss(
                self.heads, logits, first[part].to(device), second[part].to(device), share, self.recipe.smoothing
            ) * (len(logits) / len(batch))
            piece.backward()  # type: ignore[no-untyped-call]
            value += float(piece.detach())
        return value

    def _together(self, value: float, rows: int, on_event: Callable[[Event], None]) -> float:
        """Average gradients and loss over the processes; who needs more pieces than the others sets the number."""
        ranks = self.recipe.ranks
        if ranks.world == 1:
            return value
        told = ranks.gather((value, rows, self.pieces))
        total = sum(each[1] for each in told)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if rows * ranks.world != total:
            torch._foreach_mul_(gradients, rows * ranks.world / total)
        ranks.average(gradients)
        most = int(max(each[2] for each in told))
        if most > self.pieces:
            self.pieces = most
            self._say_shrunk(rows, on_event)
        return sum(each[0] * each[1] for each in told) / total

    def _say_shrunk(self, rows: int, on_event: Callable[[Event], None]) -> None:
        on_event({"event": "out_of_memory", "step": self.step, "batch": math.ceil(rows / self.pieces),
                  "accumulation": self.pieces})  # fmt: skip

    def logits(self, network: nn.Module, batch: Tensor) -> Tensor:
        """uint8 N×3×S×S on the CPU → float32 N×labels on the device."""
        ready = self._normaliser(batch.to(self.recipe.device)).contiguous(memory_format=torch.channels_last)
        with _autocast(self.recipe):
            found = network(ready)
        # Inception and GoogLeNet bring auxiliary heads along while they train.
        logits: Tensor = found if isinstance(found, Tensor) else found[0]
        return logits.float()

    def _shrink(self, pictures: int, error: Exception) -> None:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
            sign in str(error) for sign in _OUT_OF_MEMORY
        ):
            raise error
        if self.pieces >= pictures:
            raise TrainingError("out_of_memory", "a single picture does not fit", step=self.step) from error
        self.pieces = min(2 * self.pieces, pictures)
        self.optimizer.zero_grad(set_to_none=True)
        if self.recipe.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def _follow(self) -> None:
        """The exponential moving average takes a step; short runs would else remember how they began."""
        self.averaged += 1
        kept = min(self.recipe.ema_decay, self.averaged / (self.averaged + 9))
        now = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(now[name], 1 - kept)
            else:
                value.copy_(now[name])


def epoch_batches(
    pictures: Pictures, size: int, epoch: int, first: int, recipe: Recipe
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(step of the epoch, uint8 batch, targets) from step `first` on, prepared ahead by threads.

    `size`: pictures of a whole step, of which this process gets its share. The rest that fills no batch is left
    out, in every epoch another.
    """
    order = list(range(len(pictures.images)))
    random.Random(f"{recipe.seed}/{epoch}/order").shuffle(order)
    steps = range(first, batches_per_epoch(len(order), size))

    def prepared(at: int) -> Tensor:
        rng = random.Random(f"{recipe.seed}/{epoch}/{at}")
        picture = pictures.cache[pictures.images[at]]
        return augment.for_training(picture, recipe.preset, recipe.size, recipe.augmentation, rng)

    with ThreadPoolExecutor(recipe.workers) as pool:
        started = {}
        for step in steps:
            for ahead in range(step, min(step + 1 + _AHEAD, steps.stop)):
                if ahead not in started:
                    rows = recipe.ranks.share(order[ahead * size : (ahead + 1) * size])
                    started[ahead] = (rows, [pool.submit(prepared, at) for at in rows])
            rows, futures = started.pop(step)
            yield step, torch.stack([future.result() for future in futures]), pictures.targets[rows]


def batches_per_epoch(pictures: int, size: int) -> int:
    """At least one; only whole batches else, for BatchNorm learns nothing good from a rest of one."""
    return max(1, pictures // size)


def inputs(pictures: Pictures, recipe: Recipe, size: int) -> Iterator[Tensor]:
    """All pictures as at inference, uint8, in batches of at most `size`."""
    with ThreadPoolExecutor(recipe.workers) as pool:
        for at in range(0, len(pictures.images), size):
            chosen = (pictures.cache[image] for image in pictures.images[at : at + size])
            yield torch.stack([*pool.map(lambda picture: augment.for_inference(picture, recipe.preset), chosen)])


def predict(learner: Learner, network: nn.Module, pictures: Pictures, size: int) -> Tensor:
    """Logits N×labels of a whole split, on the CPU."""
    network.eval()
    with torch.inference_mode():
        parts = [learner.logits(network, batch).cpu() for batch in inputs(pictures, learner.recipe, size)]
    return torch.cat(parts)


def _autocast(recipe: Recipe) -> AbstractContextManager[Any]:
    autocast: AbstractContextManager[Any] = torch.autocast(recipe.device.type, torch.bfloat16, enabled=recipe.bf16)
    return autocast
