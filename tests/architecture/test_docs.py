"""The pages for people: made tables are fresh, links lead somewhere, and nothing is told that readers cannot have."""

import re

from api import metrics
from tests.architecture.pages import anchors, generator, links, pages
from tests.architecture.source import ROOT
from tests.architecture.test_settings import VARIABLE, command_variables, field_variables
from worker import app
from worker.settings import WorkerSettings

OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_made_tables_are_fresh() -> None:
    """If this fails, run `python docs/generate.py`."""
    made = generator()
    assert [page.name for page in made.pages()] == ["api.md", "codes.md", "configuration.md"]
    for page in made.pages():
        text = page.read_text(encoding="utf-8")
        assert made.rendered(text) == text, page.name


def test_every_made_table_is_on_a_page() -> None:
    made = generator()
    shown = [found["name"] for page in made.pages() for found in made.BLOCK.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(made.TABLES)


def test_links_lead_somewhere() -> None:
    broken = []
    for page in pages():
        for path, anchor in links(page):
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append(f"{page.relative_to(ROOT)}: {path}")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                broken.append(f"{page.relative_to(ROOT)}: {path}{anchor}")
    assert not broken


def test_decisions_are_numbered_and_have_their_parts() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert len({page.name[:4] for page in decisions}) == len(decisions), "two decisions have the same number"
    for page in decisions:
        text = page.read_text(encoding="utf-8")
        assert re.match(rf"# {page.name[:4]}:? ", text), f"{page.name}: its title begins with its number"
        parts = re.findall(r"^(?:## |\*\*)(Context|Decision|Consequences)", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"], page.name


def test_every_decision_is_linked_from_the_architecture() -> None:
    page = ROOT / "docs" / "architecture.md"
    linked = {path for path, _ in links(page)}
    assert {f"decisions/{p.name}" for p in (ROOT / "docs" / "decisions").glob("*.md")} <= linked


def test_every_celery_setting_has_its_reason() -> None:
    settings = WorkerSettings(database_url="postgresql://nowhere/x", blob_root="b", model_root="m")
    named = {*app.configuration(settings), *app.transport_options()} - {"broker_url"}
    section = OPERATIONS.partition("## Why Celery is set so")[2]
    assert {name for name in named if f"`{name}`" not in section} == set()


def test_every_metric_is_explained() -> None:
    names = {f"tagmill_{name}" for name in metrics._HELP}
    section = OPERATIONS.partition("## Monitoring")[2].partition("\n## ")[0]
    assert {name for name in names if f"`{name}`" not in section} == set()


def test_variables_in_the_documentation_exist() -> None:
    """A renamed setting must not live on in the prose."""
    known = field_variables() | command_variables()
    wrong = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages()
        for name in VARIABLE.findall(page.read_text(encoding="utf-8"))
        if name not in known
    ]
    assert not wrong


def test_files_that_the_documentation_names_exist() -> None:
    named = re.compile(r"`((?:api|db|ml|worker|migrations|tests|docs)/[\w./-]*\w)/?`")
    wrong = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages()
        for name in named.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / name).exists() and not (ROOT / f"{name.rpartition('.')[0]}.py").exists()
    ]
    assert not wrong
