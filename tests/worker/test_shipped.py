"""Models that come with the project are installed from it: no source, the very bytes, older versions left alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from db import registry
from db.session import Database
from ml import shipped_models
from ml.artifact import WEIGHTS_FILE, load, save
from ml.tiny import make_tiny
from worker import cli, model_setup, shipped
from worker.model_store import ModelStore, ModelStoreError

NAME = "clothing"


@pytest.fixture(autouse=True)
def no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("TAGMILL_MODEL_SOURCE", raising=False)


def test_it_is_the_default_tagger_and_needs_no_source(owner_db: Database, tmp_path: Path) -> None:
    pulled = model_setup.install(owner_db, ModelStore(tmp_path), model_setup.DEFAULTS[0])
    origin = load(shipped_models.folder(NAME))
    assert (pulled.name, pulled.task, pulled.version) == (NAME, "tags", origin.card.version)
    assert (pulled.source, pulled.folder) == (shipped.SOURCE, tmp_path / NAME / origin.card.version)
    assert load(pulled.folder, origin.sha256).card == origin.card
    with owner_db.transaction() as session:
        active = registry.active(session, "tags")
        assert active is not None
        assert (active.ref, active.sha256) == (pulled.ref, origin.sha256)


def test_a_damaged_copy_is_mended_and_a_whole_one_stays(tmp_path: Path) -> None:
    weights = shipped.install(tmp_path, NAME).folder / WEIGHTS_FILE
    whole, written = weights.read_bytes(), weights.stat().st_mtime_ns
    shipped.install(tmp_path, NAME)
    assert weights.stat().st_mtime_ns == written
    weights.write_bytes(whole[:-1])
    shipped.install(tmp_path, NAME)
    assert weights.read_bytes() == whole


def test_other_weights_under_its_version_are_replaced_only_when_told(tmp_path: Path) -> None:
    card = shipped_models.card(NAME)
    place, other = tmp_path / NAME / card["version"], make_tiny(tmp_path / "tiny", "tags")
    mine = save(place, replace(other.card, name=NAME, version=card["version"]), other.state)
    with pytest.raises(ModelStoreError) as caught:
        shipped.install(tmp_path, NAME)
    assert caught.value.code == "model_exists"
    assert load(place).sha256 == mine.sha256
    shipped.install(tmp_path, NAME, again=True)
    assert load(place).sha256 == card["weights"]["sha256"]


def test_another_version_of_it_is_left_alone(tmp_path: Path) -> None:
    other = make_tiny(tmp_path / "tiny", "tags")
    old = save(tmp_path / NAME / "0", replace(other.card, name=NAME, version="0"), other.state)
    shipped.install(tmp_path, NAME)
    assert load(tmp_path / NAME / "0").sha256 == old.sha256
    assert not shipped.is_this(NAME, "0", old.sha256)


def test_the_list_names_it_and_pull_without_a_name_takes_it(
    database_url: str, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAGMILL_DATABASE_URL", database_url)
    monkeypatch.setenv("TAGMILL_MODEL_ROOT", str(tmp_path / "models"))
    monkeypatch.setenv("TAGMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    ref = f"{NAME}@{shipped_models.card(NAME)['version']}"
    listed = CliRunner().invoke(cli.app, ["models", "list"]).output
    assert [line.split()[:3] for line in listed.splitlines() if NAME in line] == [[NAME, "tags", "shipped"]]
    done = CliRunner().invoke(cli.app, ["models", "pull", "--from", str(shared / "models")])
    assert done.exit_code == 0, done.output
    assert f"{ref} for tags: active, from the project itself" in done.output
    assert "nsfwjs-mobilenet_v2@4.3.0 for moderation: active, from folder" in done.output
    listed = CliRunner().invoke(cli.app, ["models", "list"]).output
    assert [line.split()[:3] for line in listed.splitlines() if NAME in line] == [[ref, "tags", "active"]]
    shown = CliRunner().invoke(cli.app, ["models", "show", ref]).output
    assert "of category: " in shown
    assert "google:" in shown
    assert "validation, category: accuracy 0." in shown
    assert "Apache-2.0" in shown


def test_an_unknown_name_is_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelStoreError, match="clothing, imagenet-mobilenet_v2") as caught:
        ModelStore(tmp_path).pull("jackets")
    assert caught.value.code == "unknown_model"
