"""The shapes of training runs on the wire. The settings repeat `ml.train_config` and its limits, because the API has
no torch: a test compares names, defaults and limits. No behaviour but checks."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from api.schemas import PLAIN, Sent
from db.architectures import NAMES

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"  # as model cards have it
TrainingState = Literal["queued", "running", "finished", "failed", "cancelled"]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=100_000)]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]


class AugmentationIn(Sent):
    """How far training may change a picture; 0 switches an operation off."""

    crop_scale: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[0.6, 1.0], min_length=2, max_length=2, description="Least and largest share of the area that is kept."
    )
    crop_ratio: float = Field(default=4 / 3, ge=1, le=10, description="How far the sides may be stretched.")
    flip: Share = Field(default=0.5, description="Probability of a mirror image.")
    rotation: float = Field(default=0.0, ge=0, le=180, description="Degrees to either side.")
    colour: Share = Field(default=0.0, description="Largest change of brightness, contrast and saturation.")
    hue: float = Field(default=0.0, ge=0, le=0.5, description="Largest change of the hue, in turns.")
    rand_operations: int = Field(default=0, ge=0, le=20, description="Operations of RandAugment.")
    rand_magnitude: float = Field(default=5.0, ge=0, le=10, description="Their strength.")
    mixup: float = Field(default=0.0, ge=0, le=100, description="Alpha of MixUp's Beta distribution.")
    cutmix: float = Field(default=0.0, ge=0, le=100, description="Alpha of CutMix's Beta distribution.")
    mix_share: Share = Field(default=0.5, description="Share of batches that are mixed.")

    @field_validator("crop_scale")
    @classmethod
    def _ascending(cls, value: list[float]) -> list[float]:
        if value[0] > value[1]:
            raise ValueError("the first must not be above the second")
        return value


class TrainingConfigIn(Sent):
    """How to train; what is left out has a default that fine-tunes a small network on a CPU."""

    architecture: str = Field(default="mobilenet_v2", max_length=64, description="A classifier of torchvision.")
    licence: Text = "unknown"
    source: Text = "unknown"
    taxonomy: dict[Annotated[str, Field(max_length=300)], Annotated[str, Field(max_length=300)]] = Field(
        default={}, max_length=10_000, description="`group:label` → id in a public taxonomy, for the card."
    )
    preset: Literal["whole", "imagenet"] = Field(
        default="whole", description="`whole` squashes the picture, `imagenet` cuts its middle square out."
    )
    size: int = Field(default=224, ge=1, le=1024, description="The input's side at inference.")
    train_size: int | None = Field(default=None, ge=1, le=1024, description="While training; null: the same.")
    train_split: Text = "train"
    validation_split: Text = "validation"
    head_epochs: Count = Field(default=1, description="With the last layer only, at `head_lr`.")
    epochs: Count = Field(default=8, description="With all layers, at `lr`.")
    plain_epochs: Count = Field(default=0, description="The last so many without MixUp, CutMix and RandAugment.")
    batch_size: int = Field(default=32, ge=1, le=65_536, description="Pictures per forward pass and device.")
    accumulation: int = Field(default=1, ge=1, le=65_536, description="Forward passes per step.")
    head_lr: float = Field(default=2e-3, gt=0, le=1000)
    lr: float = Field(default=5e-4, gt=0, le=1000)
    warmup_epochs: float = Field(default=0.5, ge=0, le=100_000)
    weight_decay: float = Field(default=0.02, ge=0, le=1000)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    balance: float = Field(default=0.0, ge=0, le=10, description="1 gives every label the same weight in the loss.")
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    patience: int | None = Field(default=None, ge=1, le=100_000, description="Epochs without a better validation.")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    devices: int = Field(default=1, ge=1, le=64, description="Processes that train together, each on a GPU of its own.")
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d{1,2})?)$", description="`cpu`, `cuda`, `cuda:1`.")
    threads: int | None = Field(default=None, ge=1, le=1024, description="Threads that compute on a CPU.")
    workers: int = Field(default=2, ge=1, le=1024, description="Threads that prepare pictures.")
    seed: int = Field(default=0, ge=-(2**31), lt=2**31)
    init_seed: int | None = Field(
        default=None, ge=-(2**31), lt=2**31, description="Of the weights that start as chance, where it is another."
    )
    cache_side: int = Field(default=256, ge=1, le=4096, description="Short side of the pictures kept decoded.")
    checkpoint_steps: int = Field(default=200, ge=1, le=1_000_000_000)
    half_weights: bool = True
    serve_precision: Literal["fp32", "bf16"] = "fp32"
    augmentation: AugmentationIn = AugmentationIn()

    @field_validator("architecture")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NAMES:
            raise ValueError("no classifier of torchvision has this name")
        return value

    @field_validator("epochs")
    @classmethod
    def _some(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("head_epochs") == 0:
            raise ValueError("must not be 0 with head_epochs 0")
        return value

    @field_validator("device")
    @classmethod
    def _unnumbered(cls, value: str, info: ValidationInfo) -> str:
        if ":" in value and info.data.get("devices", 1) > 1:
            raise ValueError("must be cpu or cuda, without a number, for more than one of them")
        return value


class TrainingRunIn(Sent):
    """A training to be queued."""

    dataset: str = Field(min_length=1, max_length=200, pattern=PLAIN, description="NAME@VERSION, or NAME: the newest.")
    name: str = Field(pattern=NAME, description="Of the model to make.")
    version: str | None = Field(default=None, pattern=NAME, description="Of the model; else the next number.")
    init: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9._-]{0,63}$",
        description="A registered model, NAME@VERSION, to start from; else random weights.",
    )
    config: TrainingConfigIn = TrainingConfigIn()


class EpochOut(BaseModel):
    """One epoch, from 0: the mean loss of its steps, and what the validation found."""

    epoch: int
    loss: float | None = None
    metrics: dict[str, float]


class TrainingLiveOut(BaseModel):
    """Where a run is, as of its trainer's last word."""

    epoch: int | None = Field(default=None, description="From 0.")
    epochs: int | None = None
    step: int | None = Field(default=None, description="Steps done.")
    steps_per_epoch: int | None = None
    pictures: int | None = None
    batch: int | None = Field(default=None, description="Pictures per step, of all devices.")
    loss: float | None = Field(default=None, description="Running mean.")
    lr: float | None = None
    rate: float | None = Field(default=None, description="Pictures a second.")
    eta_s: float | None = Field(default=None, description="Seconds to go at that rate.")
    checkpoint: int | None = Field(default=None, description="The step of the last checkpoint.")
    history: list[EpochOut] = []


class TrainingRunOut(BaseModel):
    """A training run. `live` and `config` are null in lists."""

    id: UUID
    url: str
    name: str
    version: str
    dataset: str
    init: str | None
    state: TrainingState
    code: str | None
    detail: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]
    config: dict[str, Any] | None = None
    live: TrainingLiveOut | None = None


class TrainingRunsPage(BaseModel):
    """Runs, newest first. `next` is the cursor of the following page, null at the end."""

    runs: list[TrainingRunOut]
    next: str | None


class LogEntryOut(BaseModel):
    """One entry: its number in the run, and the event as the training told it (`event` in it is its kind)."""

    seq: int
    at: datetime
    event: dict[str, Any]


class TrainingLogOut(BaseModel):
    """Entries, oldest first; ask again with `after` set to `last`. The newest 1000 are kept."""

    state: TrainingState
    entries: list[LogEntryOut]
    last: int
