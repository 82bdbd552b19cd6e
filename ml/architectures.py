"""Networks by name: torchvision's classifiers and the few of our own; brings no weights."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.mobilenetv2 import mobilenet_v2
from torchvision.ops.misc import Conv2dNormActivation

from ml.card import ONNX
from ml.errors import ArtifactError


class NsfwjsMobileNetV2(nn.Module):
    """MobileNetV2 as NSFWJS trained it in keras.

    Differs from torchvision's in three ways that its scores depend on: stride-2 convolutions pad right and
    bottom only, BatchNorm's epsilon is 1e-3, and three dense layers follow the pooling. Input N×3×224×224
    float in 0…1, output N×labels logits.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = mobilenet_v2(norm_layer=partial(nn.BatchNorm2d, eps=1e-3)).features
        _pad_like_tensorflow(self.features)
        self.classifier = nn.Sequential(
            nn.Linear(1280, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


class TinyColour(nn.Module):
    """A network of a few dozen numbers whose scores depend on the mean colour only; for tests."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU6())
        self.classifier = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


OWN: dict[str, Callable[[int], nn.Module]] = {
    "nsfwjs_mobilenet_v2": NsfwjsMobileNetV2,
    "tiny_colour": TinyColour,
}


# Worth starting from, small to large; `build` takes every other classifier of torchvision too.
CURATED = (
    *("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_large"),
    *("efficientnet_b0", "regnet_y_400mf", "resnet18", "regnet_y_1_6gf", "efficientnet_v2_s", "resnet50"),
    *("convnext_tiny", "convnext_small", "swin_t", "vit_b_16"),
)
TORCHVISION_LICENCE = "BSD-3-Clause (code); ImageNet weights: see their own page"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is known of an architecture before it is trained: as torchvision publishes it, on ImageNet-1k."""

    name: str
    parameters: int
    gigaflops: float  # multiply-adds for one picture of `side`
    top1: float  # per cent, of the weights that `weights_url` names
    side: int  # of the square input that it was measured with
    licence: str = TORCHVISION_LICENCE

    @property
    def half_megabytes(self) -> float:
        """Size of an fp16 artifact with ImageNet's 1000 labels, in 10⁶ bytes."""
        return self.parameters * 2 / 1e6


def curated() -> list[Choice]:
    """The recommended architectures, with torchvision's own figures."""
    return [published(name) for name in CURATED]


def published(name: str) -> Choice:
    """What torchvision publishes of one of its classifiers. Raises ArtifactError('unknown_architecture')."""
    weights = _default_weights(name)
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    (side,) = weights.transforms().crop_size
    return Choice(name, weights.meta["num_params"], weights.meta["_ops"], accuracy, side)


def weights_url(name: str) -> str:
    """Where torchvision's own weights of a classifier are. Raises ArtifactError('unknown_architecture')."""
    url: str = _default_weights(name).url
    return url


def torchvision_names() -> list[str]:
    """Every classifier of torchvision."""
    found: list[str] = torchvision.models.list_models(module=torchvision.models)
    return found


def names() -> list[str]:
    """Every architecture that a card may name."""
    return sorted([*OWN, *torchvision_names()])


def known(name: str) -> str:
    """The name, if there is such an architecture. Raises ArtifactError('unknown_architecture') with the nearest."""
    if name not in OWN and name not in torchvision_names():
        raise _unknown(name)
    return name


def build(name: str, num_classes: int) -> nn.Module:
    """An untrained network in eval mode. Raises ArtifactError: unknown_architecture, architecture_not_trainable."""
    if name == ONNX:
        what = "a network imported from ONNX or Keras is run as it is, not trained: start from an architecture of ours"
        raise ArtifactError("architecture_not_trainable", what, field="architecture")
    if name in OWN:
        return OWN[name](num_classes).eval()
    network: nn.Module = torchvision.models.get_model(known(name), weights=None, num_classes=num_classes)
    return network.eval()


def restore(name: str, num_classes: int, state: dict[str, Tensor]) -> nn.Module:
    """The network with an artifact's weights, in eval mode, gradients off.

    Raises ArtifactError('weights_mismatch') where names, shapes or kinds of numbers do not fit the
    architecture.
    """
    network = build(name, num_classes)
    expected = network.state_dict()
    wrong = set(expected) ^ set(state)
    wrong |= {key for key in set(expected) & set(state) if expected[key].shape != state[key].shape}
    if wrong:
        raise ArtifactError("weights_mismatch", f"{name} with {num_classes} labels does not fit {sorted(wrong)[:3]}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise ArtifactError("weights_mismatch", f"the weights of {name} hold numbers that are not finite")
    network.load_state_dict(state)
    return network.requires_grad_(False)


def _default_weights(name: str) -> Any:
    if name not in torchvision_names():
        raise _unknown(name)
    return get_model_weights(name).DEFAULT


def _unknown(name: str) -> ArtifactError:
    near = difflib.get_close_matches(name, torchvision_names(), n=3, cutoff=0.5)
    hint = f"; near: {', '.join(near)}" if near else ""
    return ArtifactError("unknown_architecture", f"{name!r} is no classifier of torchvision{hint}", "architecture")


def _pad_like_tensorflow(network: nn.Module) -> None:
    """Give every stride-2 convolution TensorFlow's padding of even inputs: a row below, a column right."""
    for block in network.modules():
        if isinstance(block, Conv2dNormActivation) and block[0].stride == (2, 2):
            convolution = block[0]
            convolution.padding = (0, 0)
            # A separate module, so that convolution and BatchNorm stay neighbours and can be folded.
            block[0] = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), convolution)
