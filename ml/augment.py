"""What training does to pictures, beside what inference does; every choice comes from a seed, so that a run
that starts again sees the same pictures. Decodes nothing.
"""

import math
import random
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from ml.presets import ImagenetPreset, WholePreset

_BILINEAR = InterpolationMode.BILINEAR
# RandAugment's operations whose strength is a number; Cubuk et al., "RandAugment" (2020), with its ranges.
_RAND_OPERATIONS = (
    *("identity", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
    *("brightness", "contrast", "saturation", "sharpness", "posterize", "autocontrast", "equalize"),
)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far training may change a picture. The defaults change little; 0 switches an operation off.

    `crop_scale`: share of the area that a random crop keeps; `crop_ratio`: how far its sides may be stretched.
    `flip`: probability of a mirror image; `rotation`: degrees to either side; `colour`: largest relative change of
    brightness, contrast and saturation; `hue`: of the hue, in turns. `rand_operations` operations of RandAugment
    at `rand_magnitude` of 10. `mixup`, `cutmix`: alpha of the Beta distribution; where both are on, each batch takes
    one. `mix_share`: share of batches that are mixed.
    """

    crop_scale: tuple[float, float] = (0.6, 1.0)
    crop_ratio: float = 4 / 3
    flip: float = 0.5
    rotation: float = 0.0
    colour: float = 0.0
    hue: float = 0.0
    rand_operations: int = 0
    rand_magnitude: float = 5.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_share: float = 0.5

    def plain(self) -> "Augmentation":
        """The same crops, flips and colours, but nothing mixed and nothing of RandAugment."""
        return replace(self, rand_operations=0, mixup=0.0, cutmix=0.0)


NONE = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=1.0, flip=0.0)


def for_training(
    picture: Tensor, preset: ImagenetPreset | WholePreset, size: int, how: Augmentation, rng: random.Random
) -> Tensor:
    """A random view of a picture: uint8 3×H×W → uint8 3×size×size.

    The frame that is cropped is what `preset` would show at inference: the whole picture squashed, or the
    picture in its proportions.
    """
    height, width = picture.shape[-2:]
    squashed = isinstance(preset, WholePreset)
    top, left, rows, columns = _box(height, width, squashed, how, rng)
    view: Tensor = TF.resized_crop(picture, top, left, rows, columns, [size, size], _BILINEAR, antialias=True)
    if rng.random() < how.flip:
        view = TF.horizontal_flip(view)
    if how.rotation:
        view = _turned(view, rng.uniform(-how.rotation, how.rotation))
    if how.colour or how.hue:
        view = _coloured(view, how, rng)
    for _ in range(how.rand_operations):
        view = _rand_operation(view, rng.choice(_RAND_OPERATIONS), how.rand_magnitude / 10 * rng.choice((-1, 1)))
    return view.contiguous()


def for_inference(picture: Tensor, preset: ImagenetPreset | WholePreset) -> Tensor:
    """What a predictor will make of it: the preset itself."""
    return preset(picture)


def mix(batch: Tensor, how: Augmentation, rng: random.Random) -> tuple[Tensor, Tensor, float]:
    """MixUp or CutMix of a batch with itself: (batch, the partner of each row, the share that is left of the row).

    Zhang et al. (2018), Yun et al. (2019). The targets are to be mixed by the same share; 1.0 means untouched.
    """
    same = torch.arange(len(batch))
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(how, kind) > 0]
    if not kinds or len(batch) < 2 or rng.random() >= how.mix_share:
        return batch, same, 1.0
    kind = rng.choice(kinds)
    alpha = getattr(how, kind)
    share = rng.betavariate(alpha, alpha)
    order = same.tolist()
    rng.shuffle(order)
    partner = torch.tensor(order)
    if kind == "mixup":
        mixed = batch.float().mul(share).add(batch[partner].float(), alpha=1 - share)
        return mixed.round().to(batch.dtype), partner, share
    height, width = batch.shape[-2:]
    rows, columns = (max(1, round(side * math.sqrt(1 - share))) for side in (height, width))
    top, left = rng.randint(0, height - rows), rng.randint(0, width - columns)
    pasted = batch.clone()
    pasted[:, :, top : top + rows, left : left + columns] = batch[partner, :, top : top + rows, left : left + columns]
    return pasted, partner, 1 - rows * columns / (height * width)


def _box(height: int, width: int, squashed: bool, how: Augmentation, rng: random.Random) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop; its proportions are the frame's, or a square's."""
    aspect = width / height if squashed else 1.0
    for _ in range(10):
        area = height * width * rng.uniform(*how.crop_scale)
        ratio = aspect * math.exp(rng.uniform(-1, 1) * math.log(how.crop_ratio))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            return rng.randint(0, height - rows), rng.randint(0, width - columns), rows, columns
    if squashed:
        return 0, 0, height, width
    side = min(height, width)
    return rng.randint(0, height - side), rng.randint(0, width - side), side, side


def _turned(view: Tensor, degrees: float) -> Tensor:
    """Rotated; what comes in at the corners repeats the edge, for black corners would be a label's mark."""
    size = view.shape[-1]
    margin = math.ceil(size * 0.5 * abs(math.sin(math.radians(degrees)))) + 1
    padded = F.pad(view.float().unsqueeze(0), (margin,) * 4, mode="replicate")
    turned = TF.rotate(padded, degrees, _BILINEAR)
    cut: Tensor = TF.center_crop(turned, [size, size])[0].round().clamp(0, 255).to(torch.uint8)
    return cut


def _coloured(view: Tensor, how: Augmentation, rng: random.Random) -> Tensor:
    changes = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation]
    rng.shuffle(changes)
    for change in changes:
        view = change(view, rng.uniform(max(0.0, 1 - how.colour), 1 + how.colour))
    if how.hue:
        view = TF.adjust_hue(view, rng.uniform(-how.hue, how.hue))
    return view


def _rand_operation(view: Tensor, name: str, strength: float) -> Tensor:
    """One of RandAugment's operations at `strength` in −1…1."""
    size = view.shape[-1]
    moved = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    grey = [128.0] * 3
    match name:
        case "rotate":
            return _affine(view, moved | {"angle": 30 * strength}, grey)
        case "shear_x":
            return _affine(view, moved | {"shear": [math.degrees(math.atan(0.3 * strength)), 0.0]}, grey)
        case "shear_y":
            return _affine(view, moved | {"shear": [0.0, math.degrees(math.atan(0.3 * strength))]}, grey)
        case "translate_x":
            return _affine(view, moved | {"translate": [round(0.3 * size * strength), 0]}, grey)
        case "translate_y":
            return _affine(view, moved | {"translate": [0, round(0.3 * size * strength)]}, grey)
        case "brightness" | "contrast" | "saturation" | "sharpness":
            changed: Tensor = getattr(TF, f"adjust_{name}")(view, 1 + 0.9 * strength)
            return changed
        case "posterize":
            changed = TF.posterize(view, 8 - round(4 * abs(strength)))
            return changed
        case "autocontrast" | "equalize":
            changed = getattr(TF, name)(view)
            return changed
        case _:
            return view


def _affine(view: Tensor, moved: dict[str, object], fill: list[float]) -> Tensor:
    changed: Tensor = TF.affine(view, **moved, interpolation=_BILINEAR, fill=fill)
    return changed
