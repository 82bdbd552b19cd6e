"""The recommended architectures exist, and their figures are those of the network that is built."""

import itertools

import pytest

from ml import architectures, forward_speed
from ml.errors import ArtifactError


def test_every_recommended_architecture_can_be_built_and_has_its_size() -> None:
    choices = architectures.curated()
    assert len({choice.name for choice in choices}) == len(choices)
    assert {choice.name for choice in choices} <= set(architectures.names())
    for choice in choices[:5]:
        built = architectures.build(choice.name, 1000)
        assert sum(parameter.numel() for parameter in built.parameters()) == choice.parameters
        assert 50 < choice.top1 < 90
        assert choice.gigaflops > 0
        assert choice.side >= 224


def test_a_name_that_is_none_gets_the_nearest() -> None:
    for ask in (architectures.known, architectures.published, lambda name: architectures.build(name, 2)):
        with pytest.raises(ArtifactError, match="near: resnet50") as caught:
            ask("resnet5")
        assert (caught.value.code, caught.value.field) == ("unknown_architecture", "architecture")
    assert architectures.known("tiny_colour") == "tiny_colour"


def test_every_classifier_of_torchvision_has_its_figures_and_its_weights() -> None:
    for name in architectures.torchvision_names():
        choice = architectures.published(name)
        assert choice.parameters > 1e5
        assert 50 < choice.top1 < 90
        assert architectures.weights_url(name).endswith(".pth")


def test_speed_is_the_median_of_the_passes_of_this_machine() -> None:
    """A clock that jumps a second, four and two at the three passes: two seconds for eight pictures."""
    ticks = itertools.chain([0.0, 0, 1, 1, 5, 5, 7], itertools.repeat(100.0))
    speed = forward_speed.measure("tiny_colour", 8, batch=8, seconds=0, clock=lambda: next(ticks))
    assert (speed.images_s, speed.passes, speed.batch) == (4.0, 3, 8)
    real = forward_speed.measure("tiny_colour", 8, batch=2, seconds=0.01)
    assert real.images_s > 0
    assert real.passes >= 3
