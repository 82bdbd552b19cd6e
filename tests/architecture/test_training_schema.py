"""The API's settings of a training are those of `ml.train_config`: names, defaults, and nothing that it refuses."""

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from api.training_schemas import AugmentationIn, TrainingConfigIn, TrainingRunIn, TrainingState
from db import states
from db.architectures import NAMES
from ml import architectures
from ml.augment import Augmentation
from ml.card import from_dict as card_from_dict
from ml.errors import ArtifactError, TrainingError
from ml.tiny import make_tiny
from ml.train_config import TrainConfig, from_dict

OWN = {"name", "version"}  # beside the settings, not among them


def test_the_settings_have_the_same_names_and_defaults() -> None:
    wanted = {name: value for name, value in TrainConfig("x").to_dict().items() if name not in OWN}
    assert TrainingConfigIn().model_dump(mode="json") == wanted
    assert AugmentationIn().model_dump(mode="json") == {**asdict(Augmentation()), "crop_scale": [0.6, 1.0]}
    assert set(TrainingConfigIn.model_fields) == {field.name for field in fields(TrainConfig)} - OWN


def test_the_states_are_the_tables() -> None:
    assert get_args(TrainingState) == states.TRAINING_STATES


def test_the_architectures_exist_and_the_recommended_are_among_them() -> None:
    assert set(architectures.names()) >= NAMES
    assert set(architectures.CURATED) <= NAMES


def bounds(model: type[BaseModel]) -> list[tuple[str, float]]:
    """Every number just outside of a field's limits."""
    found: list[tuple[str, float]] = []
    for name, field in model.model_fields.items():
        step = 1 if field.annotation is int or "int" in str(field.annotation) else 1e-6
        for limit in field.metadata:
            match limit:
                case Ge(ge=low):
                    found.append((name, low - step))
                case Gt(gt=low):
                    found.append((name, low))
                case Le(le=high):
                    found.append((name, high + step))
                case Lt(lt=high):
                    found.append((name, high))
    return found


OUTSIDE = bounds(TrainingConfigIn)


def test_the_limits_are_kept() -> None:
    assert len(OUTSIDE) > 40
    for name, value in OUTSIDE:
        with pytest.raises(ValidationError):
            TrainingConfigIn.model_validate({name: value})
        with pytest.raises(TrainingError, match=name):
            from_dict({"name": "x", name: value})


NUMBERS = sorted({name for name, _ in OUTSIDE})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(NUMBERS),
        st.one_of(st.integers(-3, 3), st.floats(-2, 2), st.just(1), st.just(0.5), st.none()),
        max_size=4,
    )
)
def test_what_the_api_accepts_the_trainer_accepts(config: dict[str, Any]) -> None:
    try:
        accepted = TrainingConfigIn.model_validate(config)
    except ValidationError:
        return
    made = from_dict({**accepted.model_dump(mode="json"), "name": "x", "version": "1"})
    assert made.step_size == made.devices * made.batch_size * made.accumulation


def test_the_property_above_can_fail() -> None:
    """What the trainer refuses exists, and the API knows it too."""
    for config in ({"epochs": 0, "head_epochs": 0}, {"label_smoothing": 1.0}, {"device": "cuda:0", "devices": 2}):
        with pytest.raises(TrainingError):
            from_dict({**config, "name": "x"})
        with pytest.raises(ValidationError):
            TrainingConfigIn.model_validate(config)


def test_no_path_can_be_named() -> None:
    for init in ("/a@1", "a/b@1", "..@1", "a@..", "file.safetensors", "@1", "a@"):
        with pytest.raises(ValidationError):
            TrainingRunIn.model_validate({"dataset": "d", "name": "n", "init": init})


@pytest.mark.parametrize("name", ["a", "a" * 64, "0.9-rc_1", "", "A", "a" * 65, "-a", "a b", "ü", "a\n"])
def test_what_names_a_model_is_settled_before_it_is_trained(name: str, tmp_path: Path) -> None:
    """Schema, settings and card take the same names."""

    def taken(make: Callable[[], object]) -> bool:
        try:
            make()
        except (ValidationError, TrainingError, ArtifactError):
            return False
        return True

    card = {**make_tiny(tmp_path, "tags").card.to_dict(), "name": name}
    found = {
        taken(lambda: TrainingRunIn.model_validate({"dataset": "d", "name": name})),
        taken(lambda: TrainConfig(name)),
        taken(lambda: card_from_dict(card)),
    }
    assert len(found) == 1
