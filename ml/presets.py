"""How a picture becomes a network's input, stated exactly; decodes nothing and runs no network.

A preset is called on one picture on the CPU and gives the smallest tensor that still holds what the network
needs; its `normaliser` then runs on the whole batch where the network is. Scores depend on every detail:
NSFWJS's move by 0.07 when its input is resized with antialiasing. `plain` gives the same without torch, which only the
call and the normaliser import: within one grey level where the preset stays uint8, within 1e-4 where it is float.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.errors import ArtifactError
from ml.views import VIEWS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ml.normaliser import Normaliser

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preset(Protocol):
    """Input: uint8 RGB, 3×H×W or N×3×H×W, on the CPU, or on the GPU that decoded it.

    `views`, `sure`: see NsfwjsPreset; with one view there is no second look.
    """

    name: ClassVar[str]

    @property
    def size(self) -> int: ...

    @property
    def views(self) -> int: ...

    @property
    def sure(self) -> float: ...

    def __call__(self, picture: "Tensor") -> "Tensor": ...

    def plain(self, picture: Image.Image) -> npt.NDArray[Any]: ...

    def normaliser(self) -> "nn.Module": ...


@dataclass(frozen=True, slots=True)
class ImagenetPreset:
    """Short side to `resize` (bilinear, antialiased), centre crop of `size`; stays uint8 until the device.

    Output of the call: uint8 3×size×size. Normalised: float32, (x/255 − mean)/std.
    """

    name: ClassVar[str] = "imagenet"
    views: ClassVar[int] = 1
    sure: ClassVar[float] = 1.0
    resize: int = 256
    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _positive(self.resize, "resize")
        _positive(self.size, "size")
        if self.size > self.resize:
            raise ArtifactError("card_invalid", "preset.size must not exceed preset.resize", field="preset.size")
        _three(self.mean, "mean", allow_zero=True)
        _three(self.std, "std", allow_zero=False)

    def __call__(self, picture: "Tensor") -> "Tensor":
        from torchvision.transforms.v2 import functional as TF

        resized: Tensor = TF.resize(picture, [self.resize], antialias=True)
        cropped: Tensor = TF.center_crop(resized, [self.size, self.size])
        return cropped.contiguous()

    def plain(self, picture: Image.Image) -> npt.NDArray[Any]:
        width, height = picture.size
        # The sides and the corner as torchvision rounds them.
        if width <= height:
            columns, rows = self.resize, int(self.resize * height / width)
        else:
            columns, rows = int(self.resize * width / height), self.resize
        left, top = round((columns - self.size) / 2), round((rows - self.size) / 2)
        across, down = width / columns, height / rows
        # Only what is cut out is resized; pixels beyond its edges still count in it.
        box = (left * across, top * down, (left + self.size) * across, (top + self.size) * down)
        return _planes(picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box))

    def normaliser(self) -> "nn.Module":
        return _normaliser([255 * value for value in self.mean], [255 * value for value in self.std])


@dataclass(frozen=True, slots=True)
class NsfwjsPreset:
    """The whole picture squashed to size×size as tf.image.resizeBilinear(…, alignCorners=true) does: no crop,
    no antialiasing, in float. Output of the call: float32 3×size×size in 0…255. Normalised: x/255.

    `views`: a picture whose first scores are not `sure` (softmax: the best reaches it; sigmoid: every one is as near to
    0 or 1) gets the mean over this many of `ml.views.VIEWS`; what is sure at the first look is not looked at again.
    """

    name: ClassVar[str] = "nsfwjs"
    size: int = 224
    views: int = 1
    sure: float = 0.9

    def __post_init__(self) -> None:
        _positive(self.size, "size")
        if isinstance(self.views, bool) or not isinstance(self.views, int) or not 1 <= self.views <= len(VIEWS):
            what = f"preset.views must be an integer in 1…{len(VIEWS)}"
            raise ArtifactError("card_invalid", what, field="preset.views")
        if isinstance(self.sure, bool) or not isinstance(self.sure, int | float) or not 0.5 <= self.sure <= 1:
            raise ArtifactError("card_invalid", "preset.sure must be a number in 0.5…1", field="preset.sure")

    def __call__(self, picture: "Tensor") -> "Tensor":
        import torch.nn.functional as F

        batch = picture.float().reshape(-1, *picture.shape[-3:])
        made = F.interpolate(batch, size=(self.size, self.size), mode="bilinear", align_corners=True)
        return made.reshape(*picture.shape[:-2], self.size, self.size)

    def plain(self, picture: Image.Image) -> npt.NDArray[Any]:
        pixels = np.asarray(picture)
        height, width, _ = pixels.shape
        above, below, down = _between(height, self.size)
        left, right, across = _between(width, self.size)
        flat = pixels.reshape(height, width * 3)
        rows = flat[above].astype(np.float32)
        lower = flat[below].astype(np.float32)
        lower -= rows
        lower *= down[:, None]
        rows += lower
        # Channel by channel, as the network wants them.
        channels = np.arange(3)[:, None]
        found = np.take(rows, (left * 3 + channels).ravel(), axis=1)
        further = np.take(rows, (right * 3 + channels).ravel(), axis=1)
        further -= found
        further *= np.tile(across, 3)
        found += further
        return np.ascontiguousarray(found.reshape(self.size, 3, self.size).transpose(1, 0, 2))

    def normaliser(self) -> "nn.Module":
        return _normaliser([0.0] * 3, [255.0] * 3)


@dataclass(frozen=True, slots=True)
class WholePreset:
    """The whole picture squashed to size×size (bilinear, antialiased): no crop, so that long garments keep
    their sleeves and hems. Output of the call: uint8 3×size×size. Normalised: float32, (x/255 − mean)/std.
    """

    name: ClassVar[str] = "whole"
    views: ClassVar[int] = 1
    sure: ClassVar[float] = 1.0
    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _positive(self.size, "size")
        _three(self.mean, "mean", allow_zero=True)
        _three(self.std, "std", allow_zero=False)

    def __call__(self, picture: "Tensor") -> "Tensor":
        from torchvision.transforms.v2 import functional as TF

        squashed: Tensor = TF.resize(picture, [self.size, self.size], antialias=True)
        return squashed.contiguous()

    def plain(self, picture: Image.Image) -> npt.NDArray[Any]:
        return _planes(picture.resize((self.size, self.size), Image.Resampling.BILINEAR))

    def normaliser(self) -> "nn.Module":
        return _normaliser([255 * value for value in self.mean], [255 * value for value in self.std])


PRESETS: dict[str, Callable[..., Preset]] = {
    "imagenet": ImagenetPreset,
    "nsfwjs": NsfwjsPreset,
    "whole": WholePreset,
}


def from_card(preset: Mapping[str, Any]) -> Preset:
    """The preset that a card names. Raises ArtifactError('card_invalid') naming the field."""
    parameters = {key: tuple(value) if isinstance(value, list) else value for key, value in preset.items()}
    name = parameters.pop("name", None)
    if name not in PRESETS:
        raise ArtifactError("card_invalid", f"preset.name must be one of {sorted(PRESETS)}", field="preset.name")
    try:
        return PRESETS[name](**parameters)
    except TypeError as error:
        raise ArtifactError("card_invalid", f"preset: {error}", field="preset") from None


def to_card(preset: ImagenetPreset | NsfwjsPreset | WholePreset) -> dict[str, Any]:
    """The card's form of a preset, every parameter written out (`views` and `sure` where views are several)."""
    parameters = asdict(preset)
    if preset.views == 1:
        # The cards inside older artifacts, and so their digests, have no such fields.
        parameters.pop("views", None)
        parameters.pop("sure", None)
    return {"name": preset.name, **json.loads(json.dumps(parameters))}


def _normaliser(mean: list[float], std: list[float]) -> "Normaliser":
    from ml.normaliser import Normaliser

    return Normaliser(mean, std)


def _planes(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """uint8 3×H×W."""
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _between(side: int, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For each of `size` points spread from the first to the last of `side` pixels: the pixels before and after it,
    and how far it is from the one to the other."""
    scale = np.float32((side - 1) / (size - 1)) if size > 1 else np.float32(0)
    at = np.arange(size, dtype=np.float32) * scale
    before = np.minimum(at.astype(np.intp), side - 1)
    return before, np.minimum(before + 1, side - 1), at - before.astype(np.float32)


def _positive(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
        raise ArtifactError("card_invalid", f"preset.{name} must be an integer in 1…4096", field=f"preset.{name}")


def _three(value: object, name: str, *, allow_zero: bool) -> None:
    numbers = isinstance(value, tuple) and len(value) == 3 and all(type(v) in (int, float) for v in value)
    if not numbers or not (allow_zero or all(v > 0 for v in value)):  # type: ignore[attr-defined]
        raise ArtifactError("card_invalid", f"preset.{name} must be three numbers", field=f"preset.{name}")
