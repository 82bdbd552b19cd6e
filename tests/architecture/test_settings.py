"""Settings: every field is described and documented; every variable that the code reads is known."""

import re

import pytest
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from db.settings import StorageSettings
from tests.architecture.pages import links, table
from tests.architecture.source import ROOT, sources, strings
from worker.settings import WorkerSettings

CLASSES: tuple[type[BaseSettings], ...] = (StorageSettings, ApiSettings, WorkerSettings)
TABLES = {
    "settings-storage": StorageSettings.model_fields.keys(),
    "settings-api": ApiSettings.model_fields.keys() - StorageSettings.model_fields.keys(),
    "settings-worker": WorkerSettings.model_fields.keys() - StorageSettings.model_fields.keys(),
}
VARIABLE = re.compile(r"TAGMILL_[A-Z0-9_]*[A-Z0-9]")


def field_variables() -> set[str]:
    """The variables that are fields of a settings class."""
    return {f"TAGMILL_{name.upper()}" for each in CLASSES for name in each.model_fields}


def command_variables() -> set[str]:
    """The variables that commands read without a settings class."""
    read = {v for source in sources() for value, _ in strings(source.tree) for v in VARIABLE.findall(value)}
    return read - field_variables()


@pytest.mark.parametrize("settings", CLASSES)
def test_every_field_is_described_in_a_sentence(settings: type[BaseSettings]) -> None:
    wrong = [n for n, f in settings.model_fields.items() if not re.fullmatch(r"[A-Z].*\.", f.description or "")]
    assert not wrong


@pytest.mark.parametrize("settings", CLASSES)
def test_no_field_of_one_class_means_something_else_in_another(settings: type[BaseSettings]) -> None:
    """One variable, one meaning: fields that two classes share are inherited from db's."""
    for other in CLASSES:
        shared = settings.model_fields.keys() & other.model_fields.keys()
        for name in shared:
            assert settings.model_fields[name].description == other.model_fields[name].description, name


@pytest.mark.parametrize("name", TABLES)
def test_every_field_has_its_row_and_every_row_its_field(name: str) -> None:
    rows = [row[0].strip("`") for row in table("docs/configuration.md", name)]
    assert sorted(rows) == sorted(f"TAGMILL_{field.upper()}" for field in TABLES[name])


def test_defaults_and_descriptions_are_the_codes() -> None:
    rows = {row[0].strip("`"): row for name in TABLES for row in table("docs/configuration.md", name)}
    for settings in CLASSES:
        for name, field in settings.model_fields.items():
            _, default, _, meaning = rows[f"TAGMILL_{name.upper()}"]
            assert meaning.replace("\\|", "|") == field.description
            value = None if field.is_required() else field.get_default(call_default_factory=True)
            if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
                assert default == f"`{value}`", name


def test_the_variables_of_commands_are_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = text.partition("## Commands")[2]
    assert set(VARIABLE.findall(section)) == command_variables()


def test_no_secret_is_shown_by_a_settings_object() -> None:
    settings = WorkerSettings(
        database_url="postgresql://u:hunter2@h/d", broker_url="redis://:hunter2@h/0", blob_root="b", model_root="m"
    )
    assert "hunter2" not in repr(settings)


def test_the_readme_links_to_the_configuration() -> None:
    assert "docs/configuration.md" in {path for path, _ in links(ROOT / "README.md")}
