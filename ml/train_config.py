"""The settings of a training run, every one with its meaning and its limits; trains nothing."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from ml.augment import Augmentation
from ml.backends import cpu_has_bf16
from ml.card import Precision
from ml.errors import TrainingError
from ml.presets import ImagenetPreset, WholePreset

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # as ml.card has it
# Came later: at their defaults they mean what their absence meant, also to the checkpoints of then.
_LATER: dict[str, Any] = {"devices": 1, "plain_epochs": 0}
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
    serve_precision: Precision = "fp32"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("name", "version"):
            # Else the card would be refused when all the work is done.
            what = "must be lower-case letters, digits, dots, - and _, 64 at most, beginning with a letter or digit"
            self._require(_IDENTIFIER.fullmatch(getattr(self, name)) is not None, name, what)
        whole = ("size", "batch_size", "accumulation", "workers", "cache_side", "checkpoint_steps", "devices")
        for name in whole:
            self._require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in ("head_epochs", "epochs", "plain_epochs", "warmup_epochs", "weight_decay", "balance"):
            self._require(getattr(self, name) >= 0, name, "must not be below 0")
        self._require(self.head_epochs + self.epochs > 0, "epochs", "must not be 0 with head_epochs 0")
        self._require(self.lr > 0 and self.head_lr > 0, "lr", "must be above 0")
        self._require(0 <= self.label_smoothing < 1, "label_smoothing", "must lie in 0…1, below 1")
        self._require(0 <= self.ema_decay < 1, "ema_decay", "must lie in 0…1, below 1")
        self._require(self.patience is None or self.patience >= 1, "patience", "must be at least 1")
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
    try:
        if isinstance(content.get("augmentation"), Mapping):
            how = dict(content["augmentation"])
            how["crop_scale"] = tuple(how.get("crop_scale", Augmentation().crop_scale))
            content["augmentation"] = Augmentation(**how)
        return TrainConfig(**content)
    except TypeError as error:
        raise TrainingError("config_invalid", str(error)) from None
