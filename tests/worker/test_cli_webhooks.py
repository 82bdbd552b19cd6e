"""The commands for webhooks, against a real API and a real sender, and the receiver that they bring."""

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from db import outbox, webhook_secrets
from db.ids import uuid7
from db.session import Database
from tests.conftest import TestAccount
from tests.worker.line import rows, run_sql
from tests.worker.test_deliver import KEY, House
from worker import webhook_listener
from worker.cli import app
from worker.home import Home
from worker.webhook_listener import Heard

SECRET = bytes(range(32))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the API starts, which takes it from its environment."""
    monkeypatch.setenv("TAGMILL_WEBHOOK_KEYS", KEY)
    monkeypatch.setenv("TAGMILL_WEBHOOK_HTTP", "true")
    monkeypatch.setenv("TAGMILL_WEBHOOK_CIDRS", "127.0.0.0/8")


class Listener:
    """The receiver of `tagmill webhooks listen`, and what it heard."""

    def __init__(self, secret: bytes, status: int = 204) -> None:
        self.heard: list[Heard] = []
        self.server = webhook_listener.server(secret, 0, self.heard.append, status)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener(SECRET)
    yield made
    made.close()


def post(port: int, headers: dict[str, str], body: bytes) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def announced(port: int, length: int) -> int:
    """The answer to a body that is only announced."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_receiver_takes_what_is_signed_and_refuses_the_rest(listener: Listener) -> None:
    import time

    body = b'{"type":"job.finished","data":{}}'
    now = int(time.time())
    good = webhook_secrets.headers([SECRET], "event-1", now, body)
    old = webhook_secrets.headers([SECRET], "event-2", now - 1000, body)
    other = webhook_secrets.headers([bytes(32)], "event-3", now, body)
    not_json = webhook_secrets.headers([SECRET], "event-4", now, b"{")
    assert [post(listener.port, headers, body) for headers in (good, good, old, other, {})] == [204, 204, 401, 401, 401]
    assert post(listener.port, good, body + b" ") == 401
    assert post(listener.port, not_json, b"{") == 401
    assert announced(listener.port, webhook_listener.MAX_BODY + 1) == 413
    assert [(each.problem is None, each.again) for each in listener.heard[:3]] == [
        (True, False), (True, True), (False, False),
    ]  # fmt: skip
    assert listener.server.server_address[0] == "127.0.0.1"


@pytest.fixture
def run(api_url: str, account: TestAccount, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TAGMILL_URL", api_url)
    monkeypatch.setenv("TAGMILL_API_KEY", account.secret)

    def invoke(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["webhooks", *map(str, arguments)], env={"COLUMNS": "80"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return invoke


def test_from_adding_to_sending_again(
    run: Any, owner_db: Database, db: Database, database_url: str,
    account: TestAccount, tmp_path: Path,
) -> None:  # fmt: skip
    assert "No webhooks" in run("list").stdout
    added = run("add", "http://127.0.0.1/in", "--type", "job.finished", "--description", "[red]shop[/]")
    secret = added.stdout.strip()
    assert secret.startswith("whsec_")
    assert added.stderr.count("whsec_") == 0, "the secret alone on stdout"
    listed = run("list").stdout
    assert "[red]shop[/]" in listed, "as it was written"
    hook = next(line.split()[1] for line in listed.splitlines() if line.startswith("webhook"))
    with db.transaction() as session:
        outbox.emit(session, account.id, "job.finished", str(uuid7()), {"total": 3})
    house = House(owner_db, db, database_url, account, tmp_path)
    house.send(house.settings(webhook_ports=[80]))  # nobody listens there
    shown = run("deliveries", hook).stdout
    assert "pending (connect_failed), 1 try" in shown
    event = shown.split()[0]
    whole = run("deliveries", hook, event).stdout
    assert '"total": 3' in whole
    assert "connect_failed" in whole.splitlines()[2]

    receiver = Listener(webhook_secrets.read(secret))
    try:
        run_sql(owner_db, "UPDATE webhooks SET url = :url", url=f"http://127.0.0.1:{receiver.port}/")
        assert "1 delivery will be sent again" in run("redeliver", hook, event).stdout
        house.later()
        house.send(house.settings(webhook_ports=[receiver.port]))
    finally:
        receiver.close()
    assert [(str(each.event_id), each.event["data"]) for each in receiver.heard] == [(event, {"total": 3})]
    assert "delivered, 2 tries" in run("deliveries", hook, "--state", "delivered").stdout
    assert run("rotate", hook).stdout.startswith("whsec_")
    run("disable", hook)
    assert "disabled (owner)" in run("list").stdout
    run("enable", hook)
    assert "0 deliveries" in run("redeliver", hook, "--since", "2020-01-31").stdout
    run("redeliver", hook, code=2)
    run("redeliver", hook, event, "--since", "2020-01-31T00:00:00Z", code=2)
    run("remove", hook)
    assert "No webhooks" in run("list").stdout


def test_a_ping_of_an_endpoint_that_is_left_alone_says_until_when(run: Any, owner_db: Database) -> None:
    run("add", "https://hooks.example.com/")
    run_sql(owner_db, "UPDATE webhooks SET failures = 7, failing_since = now(), paused_until = now() + interval '1 h'")
    (until,) = rows(owner_db, "SELECT to_char(paused_until AT TIME ZONE 'UTC', 'HH24:MI:SS') AS at FROM webhooks")
    (hook,) = rows(owner_db, "SELECT id FROM webhooks")
    shown = run("ping", hook.id, code=1).stdout
    assert "pending, 0 tries, held back until" in shown, "and not: next, at a time that is past"
    assert f"{until.at}, 7 failures in a row: it is sent then" in shown


def test_a_refused_url_is_one_line_with_its_field(run: Any) -> None:
    from worker.client import ApiProblem

    with pytest.raises(ApiProblem) as refused:
        run("add", "https://10.0.0.1/")
    assert refused.value.errors[0]["field"] == "url"
    assert refused.value.errors[0]["code"] == "blocked_address"


def test_what_strangers_send_is_printed_as_it_is() -> None:
    from worker.cli_webhooks import _heard

    told = Heard("[blink]x", b'{"type":"[red]","data":"\\u001b[2J"}', None, True)
    assert "\x1b" not in _heard(told)
    assert "\\[red]" in _heard(told)


def test_an_installation_makes_its_key_once_and_keeps_it_to_itself(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    first = home.webhook_key()
    assert len(first) >= webhook_secrets.MIN_KEY
    assert Home(tmp_path).webhook_key() == first
    (file,) = tmp_path.glob("webhook-key*")
    assert file.stat().st_mode & 0o777 == 0o600
