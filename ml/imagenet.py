"""The card of an ImageNet-1k classifier of torchvision's; the weights come from whoever has them."""

from torchvision.models import get_model_weights

from ml.card import Label, ModelCard, Precision
from ml.presets import ImagenetPreset, to_card

GROUP = "imagenet"


def card(
    architecture: str,
    version: str,
    *,
    source: str,
    licence: str,
    precision: Precision = "fp32",
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
