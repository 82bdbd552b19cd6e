"""Architectures, presets and label sets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ml import architectures, imagenet, presets
from ml.artifact import Artifact
from ml.card import Label, from_dict
from ml.errors import ArtifactError
from ml.presets import ImagenetPreset, NsfwjsPreset
from ml.scores import LabelSet, Scores


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "resnet18", "nsfwjs_mobilenet_v2"])
def test_a_network_gives_one_logit_per_label(name: str) -> None:
    network = architectures.build(name, 7)
    with torch.inference_mode():
        assert network(torch.rand(2, 3, 224, 224)).shape == (2, 7)


@pytest.mark.parametrize("name", ["__import__", "quantized_mobilenet_v2", "fasterrcnn_resnet50_fpn", ""])
def test_only_classifiers_can_be_named(name: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        architectures.build(name, 2)
    assert caught.value.code == "unknown_architecture"


def test_weights_of_another_shape_or_name_are_refused(tiny_tags: Artifact) -> None:
    state = dict(tiny_tags.state)
    restored = architectures.restore("tiny_colour", 4, state)
    assert not any(parameter.requires_grad for parameter in restored.parameters())
    nan = state | {"classifier.bias": torch.tensor([0, float("nan"), 0, 0])}
    missing = {key: value for key, value in state.items() if key != "classifier.bias"}
    for labels, bad in [(5, state), (4, state | {"more": torch.ones(1)}), (4, missing), (4, nan)]:
        with pytest.raises(ArtifactError) as caught:
            architectures.restore("tiny_colour", labels, bad)
        assert caught.value.code == "weights_mismatch"


def test_tensorflow_pads_below_and_right_only() -> None:
    network = architectures.build("nsfwjs_mobilenet_v2", 5)
    padded = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2)]
    assert len(padded) == 5
    assert all(convolution.padding == (0, 0) for convolution in padded)
    assert sum(isinstance(module, torch.nn.ZeroPad2d) for module in network.modules()) == 5
    norms = [module.eps for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert set(norms) == {1e-3}


def picture(width: int, height: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("width", "height"), [(384, 513), (900, 384), (40, 30)])
def test_imagenet_preset_is_an_antialiased_resize_and_a_centre_crop(width: int, height: int) -> None:
    source = picture(width, height)
    made = ImagenetPreset()(source)
    assert (made.shape, made.dtype) == ((3, 224, 224), torch.uint8)
    # Pillow's bilinear filter antialiases too; the two differ by rounding only.
    image = Image.fromarray(source.permute(1, 2, 0).numpy())
    scale = 256 / min(width, height)
    new = (256, int(height * scale)) if width < height else (int(width * scale), 256)
    resized = image.resize(new, Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
    assert np.abs(made.numpy().astype(int) - expected.astype(int)).max() <= 2


def test_imagenet_preset_normalises_as_torchvision_does() -> None:
    batch = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    made = ImagenetPreset().normaliser()(batch)
    expected = (torch.tensor([0, 128, 255]) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    assert torch.allclose(made.flatten(), expected, atol=1e-6)


def test_nsfwjs_preset_aligns_corners_and_does_not_antialias() -> None:
    source = picture(384, 513)
    made = NsfwjsPreset()(source)
    assert (made.shape, made.dtype) == ((3, 224, 224), torch.float32)
    corners = (slice(None), slice(None, None, 223), slice(None, None, 223))
    assert torch.equal(made[corners], source[:, ::512, ::383].float())
    # The formula itself, at one inner point.
    y, x = 100 * 512 / 223, 77 * 383 / 223
    top, left = int(y), int(x)
    four = source[:, top : top + 2, left : left + 2].double()
    rows = four[:, 0] * (1 - (y - top)) + four[:, 1] * (y - top)
    expected = rows[:, 0] * (1 - (x - left)) + rows[:, 1] * (x - left)
    assert torch.allclose(made[:, 100, 77].double(), expected, atol=0.02)
    assert torch.equal(NsfwjsPreset().normaliser()(made[None])[0], made / 255)


@pytest.mark.parametrize("preset", [ImagenetPreset(resize=64, size=32), NsfwjsPreset(size=96)])
def test_a_preset_goes_through_the_card(preset: ImagenetPreset | NsfwjsPreset) -> None:
    assert presets.from_card(presets.to_card(preset)) == preset


@pytest.mark.parametrize(
    "card",
    [
        {"name": "magic"},
        {"name": "nsfwjs", "size": 0},
        {"name": "nsfwjs", "size": "224"},
        {"name": "nsfwjs", "crop": 224},
        {"name": "imagenet", "resize": 100, "size": 224},
        {"name": "imagenet", "std": [0, 1, 1]},
        {"name": "imagenet", "mean": [0.5]},
    ],
)
def test_a_preset_that_cannot_be(card: dict[str, object]) -> None:
    with pytest.raises(ArtifactError) as caught:
        presets.from_card(card)
    assert caught.value.code == "card_invalid"
    assert str(caught.value.field).startswith("preset")


def mixed_card() -> LabelSet:
    labels = [("dress", "type", None), ("shirt", "type", None), ("red", "colour", 0.9), ("blue", "colour", None)]
    return LabelSet(
        from_dict(
            {
                "name": "shop",
                "version": "2",
                "task": "tags",
                "architecture": "mobilenet_v2",
                "labels": [{"name": n, "group": g} | ({"threshold": t} if t else {}) for n, g, t in labels],
                "head": {"type": "softmax", "colour": "sigmoid"},
                "preset": {"name": "imagenet"},
                "temperature": 2.0,
            }
        )
    )


def test_every_group_has_its_own_activation_and_all_share_the_temperature() -> None:
    made = mixed_card().activate(torch.tensor([[2.0, 0.0, 2.0, -2.0]]))
    e = np.exp(1.0)
    sigmoid = 1 / (1 + np.exp(-1.0))
    assert np.allclose(made.numpy(), [[e / (e + 1), 1 / (e + 1), sigmoid, 1 - sigmoid]], atol=1e-6)


def test_top_respects_thresholds_and_order() -> None:
    scores = Scores(mixed_card(), np.array([0.3, 0.7, 0.8, 0.3], np.float32))
    assert [tag.label for tag in scores.top(5)] == ["shirt", "dress", "blue"]  # red needs 0.9
    assert [tag.label for tag in scores.top(1)] == ["shirt"]
    assert [tag.label for tag in scores.top(5, min_score=0.5)] == ["shirt"]
    assert scores.top(1)[0].model == "shop@2"
    assert scores.top(1)[0].group == "type"
    assert not Scores(mixed_card(), np.array([0, np.nan, 0, 0], np.float32)).finite()


def test_a_name_in_two_groups_keeps_both_scores(tiny_tags: Artifact) -> None:
    labels = (Label("navy", "colour"), Label("navy", "brand"))
    card = replace(tiny_tags.card, labels=labels, head={"colour": "softmax", "brand": "softmax"})
    scores = Scores(LabelSet(card), np.array([0.25, 0.75], np.float32))
    assert scores.as_dict() == {"colour:navy": 0.25, "brand:navy": 0.75}


def test_imagenet_labels_are_a_thousand_different_names() -> None:
    labels = imagenet.labels("mobilenet_v2")
    assert len({label.name for label in labels}) == 1000
    assert labels[0].name == "tench"
    assert labels[610].name == "jersey"
