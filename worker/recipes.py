"""Recipes: a TOML document that says how labelled pictures become a model; reads it, names what is wrong in it, runs
nothing."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.errors import WorkerError

Share = Annotated[float, Field(gt=0, le=1)]


class RecipeInvalid(WorkerError):
    """The recipe cannot be read, or says something that cannot be done; `field` names the setting."""

    code = "recipe_invalid"

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.field = field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Strict):
    """How a table's columns are read (a folder per class needs none of it), and how pictures are split anew."""

    labels: dict[str, str] = {}  # group → column with one label of several
    attributes: dict[str, str] = {}  # group → column of true and false, or of a;b;c
    ignore: list[str] = []
    by: str | None = None
    image: str = "image"
    split: str = "split"
    shares: dict[str, Share] = {}
    seed: int = 0


class Calibration(_Strict):
    """`thresholds`: groups whose labels get one; without it, those of attributes. `precision`: wanted, else best F1.
    `half_weights`: store the calibrated weights as fp16; the trained ones before them stay what they are."""

    split: str = "validation"
    thresholds: list[str] | None = None
    precision: Annotated[float, Field(gt=0, le=1)] | None = None
    half_weights: bool = True


class Evaluation(_Strict):
    """`split`: without it, "test" where there is one, else the split of the calibration. `clusters`: see evaluate."""

    split: str | None = None
    clusters: str | None = None
    rounds: Annotated[int, Field(ge=10)] = 1000


class Recipe(_Strict):
    """`name`: of model and dataset, where the command gives none. `train`: fields of `ml.train_config.TrainConfig`.

    `average_seeds`: seeds of further trainings from the same start, whose weights are averaged with the first's.
    """

    name: str | None = None
    average_seeds: list[int] = []
    data: Data = Data()
    train: dict[str, Any] = {}
    calibration: Calibration = Calibration()
    evaluation: Evaluation = Evaluation()


def read(path: Path) -> Recipe:
    """The recipe in a file. Raises RecipeInvalid."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeInvalid(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeInvalid(f"{path}: {error}") from None
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RecipeInvalid(f"{path}: {field}: {first['msg']}", field) from None
