"""`tagmill learn`: from pictures to an activated model with one command, again after an interruption."""

import json
import re
from pathlib import Path

import pytest

from db import evaluations, registry, training
from db.session import Database
from tests.worker.line import run_sql
from tests.worker.test_learning import SETTINGS, Commands, photos, tagmill
from worker import recipes

__all__ = ["photos", "tagmill"]

RECIPE = """
name = "colours"
[data]
shares = {train = 0.5, validation = 0.25, test = 0.25}
[train]
architecture = "tiny_colour"
epochs = 4
batch_size = 4
seed = 3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE + "\n".join(f"{key} = {json.dumps(value)}" for key, value in SETTINGS.items()))
    return path


def test_one_command_makes_an_active_model(
    tagmill: Commands, photos: Path, recipe: Path, db: Database, tmp_path: Path
) -> None:
    said = tagmill("learn", str(photos), "--recipe", str(recipe), "--report", str(tmp_path / "report"))
    assert "colours@1 from colours@1 is active" in said
    with db.transaction() as session:
        model = registry.by_ref(session, "colours@1")
        assert model.state == "active"
        assert model.card["parent"] == "colours@1-trained"
        assert [evaluation.split for evaluation in evaluations.of_model(session, model.id)] == ["test"]
    figures = model.card["metrics"]
    assert figures["validation"]["groups"]["category"]["pictures"] == 12
    assert figures["calibration"]["groups"]["category"]["temperature"] == pytest.approx(
        model.card["temperature"]["category"], abs=1e-4
    )
    assert not any("threshold" in label for label in model.card["labels"])  # of attributes alone, unless asked for
    assert (tmp_path / "report" / "report.html").exists()


def test_killed_in_training_the_same_command_goes_on(
    tagmill: Commands, photos: Path, recipe: Path, owner_db: Database
) -> None:
    killed = {"TAGMILL_FAILPOINTS": f"train_checkpoint={tagmill.folder / 'marker'}", "TAGMILL_TEST_BUILD": "1"}
    tagmill("learn", str(photos), "--recipe", str(recipe), code=-9, **killed)
    with owner_db.transaction() as session:
        run = training.by_name(session, "colours", "1-trained")
    assert run.state == "running"
    assert "another trainer" in tagmill("learn", str(photos), "--recipe", str(recipe), code=1)
    run_sql(owner_db, "UPDATE training_runs SET lease_until = now()")  # what else takes a minute
    said = tagmill("learn", str(photos), "--recipe", str(recipe))
    assert "colours@1 from colours@1 is active" in said
    with owner_db.transaction() as session:
        assert training.by_name(session, "colours", "1-trained").id == run.id


def test_a_second_call_makes_the_next_version_of_the_same_data(
    tagmill: Commands, photos: Path, recipe: Path, db: Database
) -> None:
    tagmill("learn", str(photos), "--recipe", str(recipe), "--no-activate")
    said = tagmill("learn", str(photos), "--recipe", str(recipe), "--no-activate")
    assert "colours@2 from colours@1 is a candidate" in said
    said = tagmill("learn", str(photos), "--recipe", str(recipe), "--version", "1", "--no-activate")
    assert "colours@1 from colours@1 is a candidate" in said
    recipe.write_text(recipe.read_text().replace("seed = 3", "seed = 4"))
    wrong = tagmill("learn", str(photos), "--recipe", str(recipe), "--version", "1", code=1)
    assert "other settings" in wrong


def test_a_folder_without_splits_gets_some(tagmill: Commands, photos: Path, recipe: Path, db: Database) -> None:
    recipe.write_text(recipe.read_text().replace("shares = {train = 0.5, validation = 0.25, test = 0.25}", ""))
    tagmill("learn", str(photos), "--recipe", str(recipe))
    with db.transaction() as session:
        model = registry.by_ref(session, "colours@1")
        assert [evaluation.split for evaluation in evaluations.of_model(session, model.id)] == ["test"]


def test_a_model_that_nothing_compares_it_with_stays_active(
    tagmill: Commands, photos: Path, recipe: Path, db: Database
) -> None:
    tagmill("models", "pull", "clothing")
    said = tagmill("learn", str(photos), "--recipe", str(recipe))
    assert "accuracy" in said
    assert "colours@1 from colours@1 is a candidate" in said
    with db.transaction() as session:
        current = registry.active(session, "tags")
        assert current is not None
        assert current.name == "clothing"
    said = tagmill("learn", str(photos), "--recipe", str(recipe), "--version", "1", "--force", "it is for another shop")
    assert "colours@1 from colours@1 is active" in said


def test_a_split_that_is_not_there_is_named_with_those_that_are(tagmill: Commands, photos: Path, recipe: Path) -> None:
    tagmill("learn", str(photos), "--recipe", str(recipe))
    said = tagmill("evaluate", "colours@1", "colours@1", "--split", "holdout", code=1)
    assert "'holdout'; its splits: test, train, validation" in said


def test_the_mean_of_several_trainings_is_what_is_calibrated(
    tagmill: Commands, photos: Path, recipe: Path, db: Database
) -> None:
    recipe.write_text("average_seeds = [7, 9]\n" + recipe.read_text())
    said = tagmill("learn", str(photos), "--recipe", str(recipe))
    assert "colours@1 from colours@1 is active" in said
    with db.transaction() as session:
        runs = [training.by_name(session, "colours", f"1-trained{end}") for end in ("", "-2", "-3")]
        model = registry.by_ref(session, "colours@1")
        mean = registry.by_ref(session, "colours@1-averaged")
    assert [(run.config["seed"], run.config["init_seed"]) for run in runs] == [(3, None), (7, 3), (9, 3)]
    assert model.card["parent"] == mean.ref
    assert [of["model"] for of in mean.card["metrics"]["average_of"]] == [f"{run.name}@{run.version}" for run in runs]
    tagmill("learn", str(photos), "--recipe", str(recipe), "--version", "1")  # makes nothing anew, which would conflict


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("[data]\nshares = {train = 2.0}", "data.shares.train"),
        ("[dada]", "dada"),
        ("[evaluation]\nrounds = 3", "evaluation.rounds"),
        ("[calibration]\nprecision = 'high'", "calibration.precision"),
    ],
)
def test_a_recipe_says_what_is_wrong_in_it(tmp_path: Path, line: str, field: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(line)
    with pytest.raises(recipes.RecipeInvalid, match=re.escape(field)) as raised:
        recipes.read(path)
    assert raised.value.field == field


def test_a_setting_of_training_that_does_not_exist_is_named(tagmill: Commands, photos: Path, recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "\nlearning_rate = 0.1")
    assert "learning_rate" in tagmill("learn", str(photos), "--recipe", str(recipe), code=1)


def test_toml_that_is_none_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("name = 'x'\n[data\n")
    with pytest.raises(recipes.RecipeInvalid, match="line 2"):
        recipes.read(path)
