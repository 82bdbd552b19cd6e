"""ImageNet-1k classifiers in torchvision's layout: their card, and their weights from safetensors bytes."""

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor
from torchvision.models import get_model_weights

from ml import architectures
from ml.card import CardPrecision, Label, ModelCard
from ml.errors import ArtifactError
from ml.presets import ImagenetPreset, to_card

GROUP = "imagenet"


def card(
    architecture: str,
    version: str,
    *,
    source: str,
    licence: str,
    precision: CardPrecision = "fp32",
) -> ModelCard:
    """The card for torchvision's `architecture` with 1000 outputs in torchvision's category order."""
    return ModelCard(
        name=f"imagenet-{architecture}",
        version=version,
        task="tags",
        architecture=architecture,
        labels=labels(architecture),
        head={GROUP: "softmax"},
        preset=to_card(ImagenetPreset()),
        precision=precision,
        licence=licence,
        source=source,
    )


def labels(architecture: str) -> tuple[Label, ...]:
    """ImageNet's 1000 classes as torchvision's weights of `architecture` name and order them."""
    categories: list[str] = get_model_weights(architecture)["IMAGENET1K_V1"].meta["categories"]
    return tuple(Label(category, GROUP) for category in categories)


def weights(architecture: str, data: bytes) -> dict[str, Tensor]:
    """The state dict in `data` (safetensors), checked against `architecture`. Raises ArtifactError."""
    try:
        state: dict[str, Tensor] = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ArtifactError("weights_invalid", str(error)) from None
    architectures.restore(architecture, len(labels(architecture)), state)
    return state
