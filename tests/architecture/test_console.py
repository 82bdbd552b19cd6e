"""The console's pages: each needs a role or is on the short list of public ones; templates hold nothing inline and
nothing of other hosts; every form carries the token."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.routing import Rule

from api.app import create_app
from api.console.pages import Page
from api.console.rendering import POLICY
from api.settings import ApiSettings
from db.people import OPERATOR, ROLES
from db.session import API_ROLE
from tests.architecture.source import ROOT

PUBLIC = {
    "/console/static/<name>": "the same for everybody",
    "/console/sign-in": "the way in",
    "/console/link/<token>": "the way in, by a link",
    "/console/link": "the way in, by a link",
    "/console/theme": "says nothing of anybody",
}
FOLDER = ROOT / "api" / "console"
TEMPLATES = sorted((FOLDER / "templates").glob("*.html"))
SCRIPTS = sorted((FOLDER / "static").glob("*.js"))
STYLES = sorted((FOLDER / "static").glob("*.css"))
_ID = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    settings = ApiSettings(
        database_url=database_url, database_role=API_ROLE, blob_root=tmp_path / "blobs", model_root=tmp_path
    )
    application = create_app(settings)
    yield application
    application.extensions["tagmill"].database.dispose()


def _pages(app: Flask) -> list[tuple[Rule, Page]]:
    found = [
        (rule, getattr(app.view_functions[rule.endpoint], "page", None))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/console")
    ]
    assert len(found) > 20
    undeclared = [rule.rule for rule, page in found if page is None]
    assert not undeclared
    return [(rule, page) for rule, page in found if page is not None]


def _address(rule: Rule) -> str:
    """An address of the rule's shape, of which nothing is known."""
    address = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", rule.rule)
    address = re.sub(r"<uuid:\w+>", _ID, re.sub(r"<(?:int|float):\w+>", "1", address))
    return re.sub(r"<(?:\w+:)?(\w+)>", r"\1", address)


def test_every_page_needs_a_role_or_is_explicitly_public(app: Flask) -> None:
    public = {rule.rule for rule, page in _pages(app) if page.role is None}
    assert public == PUBLIC.keys()
    assert {page.role for _, page in _pages(app)} - {None} <= {*ROLES, OPERATOR}


def test_nobody_who_is_signed_out_sees_or_does_anything(app: Flask) -> None:
    client = app.test_client()
    for rule, page in _pages(app):
        if page.role is None:
            continue
        answer = client.open(_address(rule), method=page.method, headers={"Sec-Fetch-Site": "same-origin"})
        if page.method == "GET":
            assert answer.status_code == 303, rule.rule
            assert answer.headers["Location"].startswith("/console/sign-in?next="), rule.rule
        else:
            assert answer.status_code == 401, rule.rule


def test_every_form_is_refused_from_other_sites_and_without_its_token(app: Flask) -> None:
    client = app.test_client()
    for rule, page in _pages(app):
        if page.method == "GET":
            continue
        foreign = client.open(_address(rule), method=page.method, headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403, rule.rule
        if page.role is None:
            bare = client.open(_address(rule), method=page.method, headers={"Sec-Fetch-Site": "same-origin"})
            assert bare.status_code == 403, rule.rule


def test_reading_changes_nothing(app: Flask) -> None:
    """Only GET and POST: what GET does is safe to do twice, and by a browser that looks ahead."""
    assert {page.method for _, page in _pages(app)} == {"GET", "POST"}


def test_the_policy_allows_nothing_inline_and_no_other_host() -> None:
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert not re.search(r"https?:|\*|data:|blob:", POLICY)
    for part in ("script-src", "style-src", "img-src", "connect-src", "form-action"):
        assert f"{part} 'self';" in POLICY


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_hold_nothing_inline(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle\s*=", text), "a style that the policy forbids"
    assert not re.search(r"\son[a-z]+\s*=\s*[\"'{]", text), "a handler that the policy forbids"
    assert all(re.search(r"src=\"\{\{ asset\(", tag) for tag in re.findall(r"<script[^>]*>", text)), "an inline script"
    assert not re.search(r"\|\s*safe\b|autoescape\s+false", text), "text that is not escaped"
    assert "javascript:" not in text


@pytest.mark.parametrize("path", [*TEMPLATES, *SCRIPTS, *STYLES], ids=lambda path: path.name)
def test_nothing_comes_from_another_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//", text)
    assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//|import\s*\(|importScripts", text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_form_that_changes_something_carries_the_token(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for form in re.findall(r"<form\b[^>]*method=\"post\"[^>]*>.*?</form>", text, re.DOTALL):
        # An upload's token is in its address, because its body is read only later.
        assert "{{ csrf }}" in form or "multipart/form-data" in form, form[:200]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_markup_in_one_place_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\beval\(|new Function|document\.write|outerHTML\s*=|insertAdjacentHTML", text)
    assert not re.search(r"innerHTML\s*=(?!=)", text)
    if path.name != "console.js":
        assert "createPolicy" not in text
        assert "parseFromString" not in text


def test_every_template_and_asset_is_used() -> None:
    told = "".join(
        path.read_text(encoding="utf-8") for path in (*FOLDER.glob("*.py"), *TEMPLATES, *SCRIPTS)
    )  # fmt: skip
    unused = [path.name for path in (*TEMPLATES, *SCRIPTS, *STYLES) if f'"{path.name}"' not in told.replace("'", '"')]
    assert not unused
