"""`tagmill policies` as a person runs it."""

from pathlib import Path

import pytest

from db import banks
from db.session import Database
from tests.conftest import TestAccount
from tests.worker.line import install_models, rows
from tests.worker.test_cli import EVIL, Cli, operator, user  # noqa: F401  # fixtures

SHOP = """\
name: shop  # ours
description: A shop's.
rules:
  - id: nudity
    when: {score: Porn, at_least: 0.5}
    then: reject
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    return file


def test_a_file_is_checked_without_a_database(shop: Path, tmp_path: Path) -> None:
    nowhere = Cli(tmp_path / "none", TAGMILL_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert "policy shop, 1 rules; classes: Porn" in nowhere("policies", "check", str(shop)).stdout
    shop.write_text(SHOP.replace("reject", f"'{EVIL}'").replace("0.5", "5"))
    refused = nowhere("policies", "check", str(shop), code=1).stderr.splitlines()
    assert refused[0].endswith("(invalid_policy)")
    assert refused[1].strip().startswith("line 5, column 25: rules[0].when.at_least: must be a number from 0 to 1")
    assert refused[2].strip().startswith("line 6, column 5: rules[0].then: must be approve, review or reject")
    shop.write_bytes(b"\xff\xfe")
    assert "no text in UTF-8" in nowhere("policies", "check", str(shop), code=2).stderr


def test_names_that_nothing_here_knows_are_told_wherever_a_policy_is_read(
    operator: Cli,  # noqa: F811
    shop: Path,
    tmp_path: Path,
    owner_db: Database,
    account: TestAccount,
) -> None:
    install_models(owner_db, tmp_path / "models")
    with owner_db.transaction() as session:
        banks.create(session, account.id, "stolen", "block", actor="cli")
    shop.write_text(
        """
        name: shop
        rules:
          - {id: a, when: {score: Pron, at_least: 0.5}, then: reject}
          - {id: b, when: {any: [{bank: stolen}, {not: {bank: stoln}}]}, then: reject}
          - {id: c, when: {all: [{score: Porn, at_least: 0.5}, {tag: no such tag}]}, then: reject}
        """
    )
    expected = [
        "Warning: Pron is no class of the active moderation model: pictures go to review",
        "Warning: no such tag is no tag of the active tagger: the condition holds for no picture",
        "Warning: There is no hash bank named stoln: the condition holds for no picture",
    ]
    for command in ("check", "try", "add"):
        assert operator("policies", command, str(shop)).stderr.splitlines() == expected, command
    nowhere = Cli(tmp_path / "none", TAGMILL_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert "cannot be asked" in nowhere("policies", "check", str(shop)).stderr
    assert Cli(tmp_path / "empty")("policies", "check", str(shop)).stderr == "", "none is started for it"
    assert not (tmp_path / "empty").exists()


def test_a_policy_is_added_activated_assigned_and_stepped_back(
    operator: Cli,  # noqa: F811
    shop: Path,
    account: TestAccount,
    owner_db: Database,
) -> None:
    assert operator("policies", "add", str(shop)).stdout == "shop@1 is draft\n"
    assert operator("policies", "add", str(shop), "--activate").stdout == "shop@1 is active\n"
    assert operator("policies", "show", "shop").stdout == SHOP
    said = operator("policies", "assign", "shop", "--account", account.name, "--context", "avatar").stdout
    assert said == "account acme, context avatar: shop decides\n"
    listed = operator("policies", "list", "--account", account.name).stdout
    assert "shop@1" in listed
    assert listed.index("account acme, context avatar: shop") < listed.index("all accounts, all contexts: default")
    assert "policy_in_use" in operator("policies", "retire", "shop@1", code=1).stderr
    assert "account acme, context avatar: shop" in operator("policies", "list").stdout, "operators see all"
    taken = operator("policies", "assign", "--nothing", "--account", account.name, "--context", "avatar").stdout
    assert taken == "account acme, context avatar: what was assigned is taken back; default decides\n"
    shop.write_text(SHOP.replace("0.5", "0.9"))
    operator("policies", "add", str(shop), "--activate")
    operator("policies", "activate", "shop@1")
    history = operator("policies", "history", "shop").stdout
    assert "version 1 active, after version 2" in history
    entries = rows(owner_db, "SELECT DISTINCT actor FROM audit_log WHERE action LIKE 'policy.%'")
    assert [entry.actor for entry in entries] == ["cli"]


def test_a_submission_names_its_context_and_its_policy(
    user: Cli,  # noqa: F811
    operator: Cli,  # noqa: F811
    shop: Path,
    tmp_path: Path,
    owner_db: Database,
) -> None:
    operator("policies", "add", str(shop), "--activate")
    urls = tmp_path / "urls.csv"
    urls.write_text("url,category\nhttp://example.org/1.jpg,dress\n")
    user("submit", str(urls), "--policy", "shop", "--context", "avatar")
    (job,) = rows(owner_db, "SELECT context, policy ->> 'name' AS policy FROM jobs")
    assert tuple(job) == ("avatar", "shop")
    (item,) = rows(owner_db, "SELECT category FROM items")
    assert item.category == "dress"
    assert "unknown_policy" in user("submit", str(urls), "--policy", "nope", code=1).stderr


def test_the_policy_of_the_whole_installation_is_not_taken_back_by_accident(
    operator: Cli,  # noqa: F811
    account: TestAccount,
) -> None:
    refused = operator("policies", "assign", "--nothing", code=2).stderr
    assert "every new picture will go to people" in " ".join(refused.replace("│", " ").split())
    assert "all accounts, all contexts: default" in operator("policies", "list").stdout
    of_one = operator("policies", "assign", "--nothing", "--account", account.name).stdout
    assert of_one == "account acme, all contexts: nothing was assigned; default decides\n"
    meant = operator("policies", "assign", "--nothing", "--yes").stdout
    assert "what was assigned is taken back; no policy decides: every new picture will go to people" in meant
    of_context = operator("policies", "assign", "--nothing", "--context", "avatar").stdout
    assert of_context.endswith("no policy decides: every new picture will go to people\n")


def test_mistakes_are_told_in_words(operator: Cli, shop: Path) -> None:  # noqa: F811
    assert "not_found" in operator("policies", "show", "nope", code=1).stderr
    assert "not_found" in operator("policies", "list", "--account", "nobody", code=1).stderr
    assert "NAME@VERSION" in operator("policies", "activate", "shop", code=2).stderr
    assert "a-z" in operator("policies", "assign", "default", "--context", "Ü x", code=2).stderr
    nothing = operator("policies", "redecide", "default")
    assert ("no results" in nothing.stdout, "--everything" in nothing.stderr) == (True, True), "and nothing is asked"
    shop.write_bytes(b"\xff\xfe")
    assert "no text in UTF-8" in operator("policies", "try", str(shop), code=2).stderr
    shop.write_text(SHOP.replace("name: shop", "name: default"))
    assert operator("policies", "add", str(shop)).stdout == "default@2 is draft\n"
