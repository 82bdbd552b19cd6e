"""A temperature per label group: read, written, applied, and refused where it names other groups."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from ml.artifact import ArtifactError
from ml.card import Label, ModelCard, from_dict
from ml.scores import LabelSet

CARD = ModelCard(
    name="two",
    version="1",
    task="tags",
    architecture="tiny_colour",
    labels=(Label("a", "x"), Label("b", "x"), Label("c", "y")),
    head={"x": "softmax", "y": "sigmoid"},
    preset={"name": "whole"},
)
LOGITS = torch.tensor([[2.0, -1.0, 3.0]])


def _read(card: ModelCard) -> ModelCard:
    return from_dict(json.loads(json.dumps(card.to_dict())))


def test_each_group_is_cooled_by_its_own() -> None:
    card = _read(replace(CARD, temperature={"x": 2.0, "y": 0.5}))
    assert card.temperature == {"x": 2.0, "y": 0.5}
    scores = LabelSet(card).activate(LOGITS)
    torch.testing.assert_close(scores[:, :2], (LOGITS[:, :2] / 2).softmax(1))
    torch.testing.assert_close(scores[:, 2], (LOGITS[:, 2] / 0.5).sigmoid())


def test_one_number_is_for_all_groups_as_before() -> None:
    card = _read(replace(CARD, temperature=2.0))
    assert card.temperature == 2.0
    assert card.to_dict()["temperature"] == 2.0
    same = _read(replace(CARD, temperature={"x": 2.0, "y": 2.0}))
    assert torch.equal(LabelSet(card).activate(LOGITS), LabelSet(same).activate(LOGITS))


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"x": 1.0}, "temperature"),
        ({"x": 1.0, "z": 1.0}, "temperature"),
        ({"x": 1.0, "y": 0.0}, "temperature.y"),
        ({"x": "hot", "y": 1.0}, "temperature.x"),
        (0, "temperature"),
    ],
)
def test_a_wrong_temperature_names_its_field(value: Any, field: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        from_dict(CARD.to_dict() | {"temperature": value})
    assert caught.value.field == field
