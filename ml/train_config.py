"""The settings of a training run, every one with its meaning and its limits; trains nothing."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import torch

from ml.augment import Augmentation
from ml.backends import cpu_has_bf16
from ml.card import CardPrecision
from ml.errors import TrainingError
from ml.presets import ImagenetPreset, WholePreset

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # as ml.card has it
# Least and most: far beyond what is sensible, and short of what would exhaust the machine before anybody can look.
_WHOLE: dict[str, tuple[int, int]] = {
    "size": (1, 1024), "train_size": (1, 1024), "head_epochs": (0, 100_000), "epochs": (0, 100_000),
    "plain_epochs": (0, 100_000), "batch_size": (1, 65_536), "accumulation": (1, 65_536), "patience": (1, 100_000),
    "devices": (1, 64), "threads": (1, 1024), "workers": (1, 1024), "seed": (-(2**31), 2**31 - 1),
    "init_seed": (-(2**31), 2**31 - 1), "cache_side": (1, 4096), "checkpoint_steps": (1, 1_000_000_000),
}  # fmt: skip
_NUMBERS: dict[str, tuple[float, float]] = {
    "head_lr": (0, 1000), "lr": (0, 1000), "warmup_epochs": (0, 100_000), "weight_decay": (0, 1000),
    "label_smoothing": (0, 1), "balance": (0, 10), "ema_decay": (0, 1),
}  # fmt: skip
_OPEN = {"train_size", "patience", "threads", "init_seed"}  # may be None
_TEXTS = ("name", "version", "architecture", "licence", "source", "train_split", "validation_split", "device")
# Came later: at their defaults they mean what their absence meant, also to the checkpoints of then.
_LATER: dict[str, Any] = {"devices": 1, "plain_epochs": 0, "init_seed": None}
_ONLY_IN_CARD = {"name", "version", "licence", "source", "taxonomy", "half_weights", "serve_precision"}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train. The defaults fine-tune a small network on some thousand photos on a CPU.

    name, version: of the artifact. architecture: see `ml.architectures`. licence, source: for its card.
    taxonomy: "group:label" → id in a public taxonomy, for its card.
    preset: how a picture becomes the input; "whole" squashes it, "imagenet" cuts the middle square out.
    size: the input's side at inference; train_size: while training (None: the same).
    train_split, validation_split: the names of the splits in the manifest; the second may be empty or missing.
    head_epochs: with all layers but the last frozen, at head_lr. epochs: with all layers, at lr.
    devices × batch_size × accumulation: pictures per optimizer step; on every device, `accumulation` parts go forward
    one by one.
    lr rises over warmup_epochs and falls as a cosine to lr × 0.01. weight_decay: AdamW's, not for biases.
    label_smoothing: share of the target spread over all labels. balance: 0 takes pictures as they come, 1 gives
    every label the same weight in the loss.
    ema_decay: of the moving average of the weights, which is what is validated and kept.
    plain_epochs: the last so many of them see pictures more like those of inference: nothing mixed, no RandAugment.
    patience: stop after so many epochs without a better validation, and keep the best; None runs to the end and
    keeps the last, so that the validation pictures choose nothing.
    precision: of the forward pass: "bf16", "fp32", or "auto": bf16 where the device multiplies it itself.
    device: as torch names it. devices: processes that train together, each with a GPU of its own if device is cuda.
    threads: torch's, None leaves them; workers: threads that prepare pictures.
    seed: of everything random. init_seed: of the weights that start as chance, where it is another: runs that begin
    alike can be averaged (`ml.soup`). cache_side: short side of the pictures that are kept decoded.
    checkpoint_steps: a checkpoint every so many optimizer steps, and after every epoch.
    half_weights: store fp16 weights. serve_precision: the card's `precision`.
    """

    name: str
    architecture: str = "mobilenet_v2"
    version: str = "1"
    licence: str = "unknown"
    source: str = "unknown"
    taxonomy: Mapping[str, str] = field(default_factory=dict)
    preset: Literal["whole", "imagenet"] = "whole"
    size: int = 224
    train_size: int | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    head_epochs: int = 1
    epochs: int = 8
    plain_epochs: int = 0
    batch_size: int = 32
    accumulation: int = 1
    head_lr: float = 2e-3
    lr: float = 5e-4
    warmup_epochs: float = 0.5
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    balance: float = 0.0
    ema_decay: float = 0.99
    patience: int | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "cpu"
    devices: int = 1
    threads: int | None = None
    workers: int = 2
    seed: int = 0
    init_seed: int | None = None
    cache_side: int = 256
    checkpoint_steps: int = 200
    half_weights: bool = True
    serve_precision: CardPrecision = "fp32"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in _TEXTS:
            self._require(isinstance(getattr(self, name), str), name, "must be a text")
        for name in ("name", "version"):
            # Else the card would be refused when all the work is done.
            what = "must be lower-case letters, digits, dots, - and _, 64 at most, beginning with a letter or digit"
            self._require(_IDENTIFIER.fullmatch(getattr(self, name)) is not None, name, what)
        for name, (low, high) in _WHOLE.items():
            value = getattr(self, name)
            holds = (value is None and name in _OPEN) or (type(value) is int and low <= value <= high)
            self._require(holds, name, f"must be a whole number from {low} to {high}")
        for name, (least, most) in _NUMBERS.items():
            value = getattr(self, name)
            holds = type(value) in (int, float) and least <= value <= most  # never true of NaN
            self._require(holds, name, f"must be a number from {least} to {most}")
        self._require(self.head_epochs + self.epochs > 0, "epochs", "must not be 0 with head_epochs 0")
        for name in ("lr", "head_lr"):
            self._require(getattr(self, name) > 0, name, "must be above 0")
        for name in ("label_smoothing", "ema_decay"):
            self._require(getattr(self, name) < 1, name, "must be below 1")
        self._require(self.preset in ("whole", "imagenet"), "preset", "must be whole or imagenet")
        together = self.devices == 1 or self.device in ("cpu", "cuda")
        self._require(together, "device", "must be cpu or cuda, without a number, for more than one of them")

    def _require(self, holds: bool, name: str, why: str) -> None:
        if not holds:
            raise TrainingError("config_invalid", f"{name} {why}")

    @property
    def step_size(self) -> int:
        """Pictures per optimizer step, of all devices."""
        return self.devices * self.batch_size * self.accumulation

    def preprocessing(self) -> ImagenetPreset | WholePreset:
        """The preset of inference."""
        if self.preset == "whole":
            return WholePreset(self.size)
        return ImagenetPreset(resize=round(self.size * 256 / 224), size=self.size)

    def bf16(self) -> bool:
        """Whether the forward pass computes in bf16; always without loss scaling, for its range is fp32's."""
        if self.precision != "auto":
            return self.precision == "bf16"
        if self.device.startswith("cuda"):
            return bool(torch.cuda.is_bf16_supported())
        return self.device == "cpu" and cpu_has_bf16()

    def sha256(self) -> str:
        """What a checkpoint remembers: two runs with the same one and the same data give the same weights.

        So what only the card says does not count.
        """
        document = {name: value for name, value in self.to_dict().items() if name not in _ONLY_IN_CARD}
        for name, default in _LATER.items():
            if document[name] == default:
                del document[name]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document


def from_dict(document: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `to_dict`. Raises TrainingError('config_invalid') naming the setting."""
    content = dict(document)
    known = {each.name for each in fields(TrainConfig)}
    if unknown := sorted(set(content) - known):
        raise TrainingError("config_invalid", f"{unknown[0]} is no setting; there are {', '.join(sorted(known))}")
    try:
        if isinstance(content.get("augmentation"), Mapping):
            how = dict(content["augmentation"])
            how["crop_scale"] = tuple(how.get("crop_scale", Augmentation().crop_scale))
            content["augmentation"] = _checked(Augmentation(**how))
        return TrainConfig(**content)
    except TypeError as error:
        raise TrainingError("config_invalid", str(error)) from None


def _checked(how: Augmentation) -> Augmentation:
    """Raises TrainingError('config_invalid') for what is not as `Augmentation` says."""
    for name, value in asdict(how).items():
        parts = value if name == "crop_scale" else (value,)
        numbers = all(type(part) in (int, float) and math.isfinite(part) and part >= 0 for part in parts)
        if not numbers or (name == "rand_operations" and type(value) is not int) or len(parts) not in (1, 2):
            raise TrainingError("config_invalid", f"augmentation.{name} must be a number, not below 0")
    return how
