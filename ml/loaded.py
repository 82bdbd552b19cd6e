"""A model that is ready to run, and a picture that is ready for every model: what predictors hand around."""

from dataclasses import dataclass

from torch import Tensor

from ml.backends import Chosen
from ml.presets import Preset
from ml.scores import LabelSet
from ml.working_copy import decode


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture, ready for every model: one tensor per preset, shared by models with the same preset. `picture`: its
    pixels, where a model may look at it again. `encoded`: its bytes in the place of both, for a GPU that decodes."""

    inputs: tuple[Tensor, ...]
    picture: Tensor | None = None
    encoded: bytes | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    labels: LabelSet
    chosen: Chosen
    input: int  # position of its preset's tensor in Prepared.inputs
    preset: Preset


def pixels(prepared: Prepared) -> Tensor:
    """The picture that a model looks at again. Raises PrepareError."""
    if prepared.encoded is not None:
        return decode(prepared.encoded)
    assert prepared.picture is not None, "prepared by a predictor whose models look only once"
    return prepared.picture
