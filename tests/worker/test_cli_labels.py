"""`tagmill label` and `tagmill labels import` as a person runs them."""

from pathlib import Path

import pytest

from db import registry
from db.session import Database
from tests.api.rows import count, settle
from tests.api.test_labels import CARD
from tests.worker.test_cli import Cli, operator, submitted, user  # noqa: F401  # fixtures
from worker.client import Client, ClientError
from worker.label_lists import LabelList, value


@pytest.fixture
def item(client: Client, owner_db: Database) -> str:
    """An item with a picture, tagged by a model of five labels."""
    with owner_db.transaction() as session:
        registry.install_model(session, CARD, "0" * 64)
        registry.activate(session, "tagger", "1")
    job = submitted(client, "n")
    settle(owner_db, job, {0: None})
    return f"{job.replace('-', '')}-0"


def test_an_item_is_labelled_and_shows_what_was_said(user: Cli, item: str) -> None:  # noqa: F811
    assert "Nobody has said" in user("label", item).stdout
    shown = user("label", item, "category=shoes", "features=kids;striped", "--comment", "new season").stdout
    assert "shoes" in shown
    assert "kids; striped" in shown
    user("label", item, "features=")
    shown = user("label", item, "--take-back", "category").stdout.splitlines()
    assert [line.split()[0] for line in shown[1:]] == ["category", "counts", "features", "category"]
    assert "taken back" in shown[1]
    assert "none of them" in shown[2]


def test_what_cannot_be_said_is_told_in_words(user: Cli, item: str) -> None:  # noqa: F811
    refused = user("label", item, "category=coat", code=1).stderr
    assert "there is dress, shirt, shoes" in refused
    assert "unknown_label" in refused
    assert "coat" in user("label", item, "category=coat", "--new").stdout
    assert "GROUP=LABEL" in user("label", item, "coat", code=2).stderr
    assert "given twice" in user("label", item, "category=coat", "category=shoes", code=2).stderr
    assert "not_found" in user("label", "nothing", "category=shoes", code=1).stderr


def test_a_table_names_its_wrong_lines_and_the_others_are_taken(
    user: Cli,  # noqa: F811
    item: str,
    owner_db: Database,
    tmp_path: Path,
) -> None:
    table = tmp_path / "results.csv"
    table.write_text(
        "id,item_id,tags,category,features,comment\n"
        f'1,{item},"[{{}}]",shoes,"kids;","said\nin two lines"\n'
        f"2,{item},,coat,,\n"
        f"3,{item},,,,nothing said\n"
        "4,nothing,,shoes,-,\n"
        f"5,{item},,,-,\n"
    )
    done = user("labels", "import", str(table), code=1).stderr
    assert "2 lines taken" in done
    assert "2 wrong lines left out" in done
    assert "line 4: groups.category" in done
    assert "line 6: item_id: There is no such item. (not_found)" in done
    assert count(owner_db, "labels") == 3
    table.write_text(f"item_id,category\n{item},shirt\n{item},dress\n")
    user("labels", "import", str(table))  # both in one transaction, at one time
    marked = [line for line in user("label", item).stdout.splitlines() if "category" in line]
    assert [line.split()[0] for line in marked[:2]] == ["counts", "category"]
    assert "dress" in marked[0]


def test_columns_are_chosen_and_must_be_there(user: Cli, item: str, tmp_path: Path) -> None:  # noqa: F811
    table = tmp_path / "results.csv"
    table.write_text(f"item_id,category,features\n{item},coat,kids;\n{item},coat,striped;\n{item},shoes,none\n")
    one = user("labels", "import", str(table), "--group", "features", code=1).stderr
    assert "2 lines taken" in one
    assert "1 wrong line left out" in one
    assert "no column named season" in user("labels", "import", str(table), "--group", "season", code=1).stderr


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("id,category\n1,a\n", "no_item_column"),
        ("item_id,url\nx,y\n", "labels_missing"),
        ("item_id,category\nx\n", "invalid_csv"),
        ("item_id,category,category\nx,a,b\n", "invalid_csv"),
        ("item_id,item_id,category\nx,y,b\n", "invalid_csv"),
        ('item_id,category\nx,"a\n', "invalid_csv"),
        ("item_id,category\nx,\xff\n", "invalid_csv"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, content: str, code: str) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(content.encode("latin-1"))
    with pytest.raises(ClientError) as refused:
        list(LabelList(table).ndjson())
    assert refused.value.code == code


def test_cells_are_labels_lists_or_none() -> None:
    assert [value(cell) for cell in ("Dress", "a;b", "a; b ;", "-", "")] == ["Dress", ["a", "b"], ["a", "b"], [], []]
