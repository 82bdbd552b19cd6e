"""The commands as a person runs them: texts of others are shown as they are, mistakes are told in words."""

import io
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from db import accounts, registry
from db.accounts import CLIENT_SCOPES
from db.session import Database
from tests.conftest import TestAccount
from tests.worker.test_up import TAGMILL, clean_environment
from worker import cli_jobs, cli_roles, demo_report, roles
from worker.client import Client
from worker.home import Home
from worker.job_files import NDJSON
from worker.screen import console, news, plain
from worker.supervise import Supervisor
from worker.url_lists import row

EVIL = "evil [/x] [red]job[/] :x: \\"


class Cli:
    """`tagmill` with these variables, and none of the shell's."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.environment = clean_environment(home, COLUMNS="250", **variables)

    def __call__(self, *words: str, code: int = 0, stdin: bytes = b"") -> "subprocess.CompletedProcess[str]":
        ended = subprocess.run(
            [*TAGMILL, *words], env=self.environment, input=stdin, capture_output=True, timeout=60, check=False
        )
        shown = subprocess.CompletedProcess(words, ended.returncode, ended.stdout.decode(), ended.stderr.decode())
        assert shown.returncode == code, shown.stdout + shown.stderr
        assert "Traceback" not in shown.stderr
        return shown


@pytest.fixture
def user(api_url: str, account: TestAccount, tmp_path: Path) -> Cli:
    """Somebody with a key."""
    return Cli(tmp_path / "none", TAGMILL_URL=api_url, TAGMILL_API_KEY=account.secret)


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Cli:
    """Somebody with the database."""
    return Cli(tmp_path / "none", TAGMILL_DATABASE_URL=database_url)


def submitted(client: Client, name: str) -> str:
    rows = [row({"url": "http://example.org/1.jpg"})]
    return str(client.submit(lambda: rows, NDJSON, params={"name": name}, idempotency_key="k")["id"])


def test_a_jobs_name_is_shown_as_it_is(user: Cli, client: Client) -> None:
    job = submitted(client, EVIL)
    assert EVIL in user("status", job).stdout
    assert EVIL in user("status").stdout
    summary = cli_jobs.summary({"id": job, "state": EVIL, "progress": {"outcomes": {"failed": 1}, "codes": {EVIL: 1}}})
    assert on_screen(summary).count(EVIL) == 2


def test_a_summary_says_what_was_reused() -> None:
    progress = {
        "outcomes": {"done": 3},
        "codes": {},
        "reused": {"not_modified": 2, "known_bytes": 0, "known_scores": 3},
    }
    said = on_screen(cli_jobs.summary({"id": "1", "state": "finished", "progress": progress}))
    assert "3 done, 2 not fetched again, 3 not scored again" in said


def test_a_keys_name_is_shown_as_it_is(operator: Cli, owner_db: Database, account: TestAccount) -> None:
    with owner_db.transaction() as session:
        accounts.create_key(session, account.id, EVIL)
    assert EVIL in operator("keys", "list", "--account", account.name).stdout


def test_a_models_card_is_shown_as_it_is(operator: Cli, owner_db: Database) -> None:
    card = {"name": "own[/x]", "version": "1", "task": "tags", "labels": [], "licence": EVIL}
    with owner_db.transaction() as session:
        registry.install_model(session, card, "0" * 64)
    shown = operator("models", "list").stdout
    assert EVIL in shown
    assert "own[/x]@1" in shown


def test_paths_of_up_are_shown_as_they_are(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = Supervisor(Home(tmp_path / "h [/x]"), listen=roles.Listen("[/x]", 1, 1, 1))
    supervisor.database_url = database_url
    cli_roles._welcome(Console(width=250, emoji=False), supervisor)
    shown = capsys.readouterr().out
    assert str(tmp_path / "h [/x]") in shown
    assert "http://[/x]:1/docs" in shown
    assert "\nhttp://[/x]:1/console/link/" in shown, "whole, on a line of its own"
    news(console(), EVIL)
    assert capsys.readouterr().out == f"· {EVIL}\n"


def test_what_the_demo_reports_is_shown_as_it_is() -> None:
    item = {"id": "[/x]", "outcome": "failed", "code": "[/x]", "tags": None, "moderation": None}
    scored = {"verdict": "review", "scores": {"[/x]": 0.5}, "reasons": []}
    job = {"progress": {"outcomes": {"done": 1}, "codes": {"[/x]": 1}}, "total": 2, "models": {"tags": "[/x]@1"}}
    screen = Console(file=io.StringIO(), width=250)
    demo_report.show(screen, job, [item, item | {"outcome": "done", "moderation": scored}], 1.0)
    assert screen.file.getvalue().count("[/x]") == 6  # type: ignore[attr-defined]


def test_control_characters_and_wrong_bytes_are_written_out() -> None:
    assert on_screen(plain("a\x1b[31mb\udcff\nc")) == "a\\x1b[31mb\\udcff\nc\n"


def on_screen(markup: str) -> str:
    made = console()
    made.file = io.StringIO()
    made.print(markup, soft_wrap=True)
    return made.file.getvalue()


def test_wrong_lines_are_named_and_can_be_skipped(user: Cli, tmp_path: Path) -> None:
    urls = tmp_path / "urls.csv"
    urls.write_text("url,price\nhttp://example.org/1.jpg,3\nhttp://example.org/2.jpg\nftp://example.org/3.jpg,1\n")
    refused = user("submit", str(urls), code=1).stderr
    assert "line 3: 1 cells" in refused
    assert "--skip-invalid" in refused
    taken = user("submit", str(urls), "--skip-invalid").stderr
    assert "1 picture accepted from urls.csv" in taken
    assert "2 wrong lines left out" in taken
    assert taken.count("price") == 1
    urls.write_text("url\nftp://example.org/3.jpg\n")
    refused = user("submit", str(urls), code=1).stderr
    assert "`--skip-invalid` accepts the others" in refused
    assert "on_invalid" not in refused


def test_a_refused_file_is_named_by_its_name(user: Cli, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "archive [x].jpg").write_bytes(b"PK\x03\x04 a ZIP under another name")
    assert "file archive [x].jpg: " in user("submit", str(tmp_path / "pictures"), code=1).stderr


def test_an_empty_list_is_told_once(user: Cli) -> None:
    assert user("submit", "-", code=1).stderr.count("at least one item") == 1


def test_pictures_of_a_cancelled_job_are_hinted_at(user: Cli, client: Client, db: Database) -> None:
    from worker import finalise

    job = submitted(client, "n")
    user("cancel", job)
    finalise.run_once(db)
    shown = user("retry", job).stderr
    assert "0 pictures put back" in shown
    assert f"1 picture cancelled; to put them back: tagmill retry {job} --only cancelled" in shown
    assert shown.count("\n") == 2
    # However narrow the screen of a log is.
    assert f"job {job} cancelled: 0 done, 1 cancelled\n" in user("wait", job, code=3).stderr
    assert user("retry", job, "--only", "cancelled").stderr == "1 picture put back\n"


def test_a_new_key_opens_only_the_accounts_own(operator: Cli, owner_db: Database) -> None:
    operator("keys", "create", "shop", "--account", "shop")
    operator("keys", "create", "metrics", "--account", "shop", "--scope", "system:read")
    with owner_db.transaction() as session:
        made = accounts.list_keys(session, accounts.by_name(session, "shop").id)
        scopes = {key.name: list(key.scopes) for key in made}
        _, secret = accounts.create_key(session, made[0].account_id, "default")
        assert accounts.authenticate(session, secret).scopes == set(accounts.CLIENT_SCOPES)
    assert scopes == {"shop": list(CLIENT_SCOPES), "metrics": ["system:read"]}
    assert not {scope.split(":")[0] for scope in CLIENT_SCOPES} & {"system", "models", "policies", "banks"}


@pytest.mark.parametrize(
    "words",
    [("",), (" ",), ("a\nb",), ("x" * 201,), ("good", "--account", ""), ("good", "--account", "x" * 201)],
)
def test_names_that_cannot_be_are_refused_in_words(operator: Cli, words: tuple[str, ...]) -> None:
    assert "1 to 200 visible characters" in operator("keys", "create", *words, code=2).stderr


@pytest.mark.parametrize("key", ["schlüssel", "two words", "a\nb"])
def test_a_key_that_cannot_be_one_is_told_in_words(tmp_path: Path, key: str) -> None:
    cli = Cli(tmp_path, TAGMILL_URL="http://127.0.0.1:1", TAGMILL_API_KEY=key)
    shown = cli("status", code=1).stderr
    assert "TAGMILL_API_KEY" in shown
    assert key not in shown
