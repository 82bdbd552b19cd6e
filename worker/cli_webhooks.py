"""Commands for webhooks: register, look, rotate, try out, send again; all but `listen` over the HTTP API."""

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

if TYPE_CHECKING:
    from worker.client import Client
    from worker.webhook_listener import Heard

app = typer.Typer(help="Have events sent to your servers, and see how that went.", no_args_is_help=True)
Id = Annotated[UUID, typer.Argument(metavar="WEBHOOK", help="Its id, see list.", show_default=False)]
PING_S = 30
"""How long a ping is waited for."""
_COLOURS = {"enabled": "green", "delivered": "green", "pending": "yellow", "disabled": "red", "failed": "red"}


def _client() -> "Client":
    from worker.home import Home
    from worker.local import client

    return client(Home.default())


@app.command(name="list")
def list_() -> None:
    """List the webhooks: where they go, what they get, how they do."""
    from rich.table import Table

    from worker.screen import console, counted, plain

    with _client() as client:
        found = client.call("GET", "/v1/webhooks", params={"limit": "1000"})["webhooks"]
    screen = console()
    if not found:
        screen.print("No webhooks. Make one: tagmill webhooks add https://…")
        return
    for hook in found:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row("webhook", plain(hook["id"]))
        grid.add_row("url", plain(hook["url"]))
        if hook["description"]:
            grid.add_row("about", plain(hook["description"]))
        grid.add_row("events", plain(", ".join(hook["types"] or ["all"])))
        state = _coloured(hook["state"]) + (f" ({plain(hook['reason'])})" if hook["reason"] else "")
        if hook["failures"]:
            state += f", {counted(hook['failures'], 'failure')} in a row since {_when(hook['failing_since'])}"
        grid.add_row("state", state)
        grid.add_row("delivered", _when(hook["delivered_at"]))
        screen.print(grid)
        screen.print()


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Where to: https://…", show_default=False)],
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="An event to get; repeat for several. Without it: all.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> None:
    """Register an endpoint. Its secret is printed, and is not shown again."""
    with _client() as client:
        made = client.call("POST", "/v1/webhooks", json={"url": url, "types": type_, "description": description})
    typer.echo(f"Webhook {made['id']}. Its secret, which is not shown again:", err=True)
    typer.echo(made["secret"])


@app.command()
def rotate(webhook: Id) -> None:
    """Print a new secret; for 24 hours the one before signs too."""
    with _client() as client:
        made = client.call("POST", f"/v1/webhooks/{webhook}/rotate")
    typer.echo(f"The one before signs until {_when(made['rotating_until'])}. The new secret:", err=True)
    typer.echo(made["secret"])


@app.command()
def enable(webhook: Id) -> None:
    """Enable it again, with a clean record."""
    with _client() as client:
        client.call("PATCH", f"/v1/webhooks/{webhook}", json={"enabled": True})
    typer.echo(f"Enabled. What it missed: tagmill webhooks redeliver {webhook} --since 2026-01-31T00:00:00Z")


@app.command()
def disable(webhook: Id) -> None:
    """Send it nothing, and give up what waits for it."""
    with _client() as client:
        client.call("PATCH", f"/v1/webhooks/{webhook}", json={"enabled": False})
    typer.echo("Disabled.")


@app.command()
def remove(webhook: Id) -> None:
    """Delete it with its deliveries and their log."""
    with _client() as client:
        client.call("DELETE", f"/v1/webhooks/{webhook}")
    typer.echo("Deleted.")


@app.command()
def ping(webhook: Id) -> None:
    """Send a `webhook.ping` to it alone, and wait for how that ends. Exit code 1 if it failed, or is held back because
    the endpoint only fails."""
    import time
    from datetime import timedelta

    from worker.screen import console, counted

    with _client() as client:
        made = client.call("POST", f"/v1/webhooks/{webhook}/ping")
        hook = client.call("GET", f"/v1/webhooks/{webhook}")
        since, until = datetime.fromisoformat(made["created_at"]), hook["paused_until"]
        if until and datetime.fromisoformat(until) > since + timedelta(seconds=PING_S):
            why = f"held back until {_when(until)}, {counted(hook['failures'], 'failure')} in a row"
            console().print(f"{_line(made)}, {why}: it is sent then", soft_wrap=True)
            raise typer.Exit(1)
        for _ in range(2 * PING_S):
            found = client.call("GET", f"/v1/webhooks/{webhook}/deliveries/{made['id']}")
            if found["state"] != "pending":
                break
            time.sleep(0.5)
    console().print(_line(found), soft_wrap=True)
    if found["state"] != "delivered":
        raise typer.Exit(1)


@app.command()
def deliveries(
    webhook: Id,
    event: Annotated[UUID | None, typer.Argument(help="One event: each of its tries, and what it says.")] = None,
    state: Annotated[str | None, typer.Option(help="Only pending, delivered or failed ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
) -> None:
    """Show what was sent, what waits and what was given up."""
    from worker.screen import console, plain

    screen = console()
    path = f"/v1/webhooks/{webhook}/deliveries"
    with _client() as client:
        if event is None:
            params = {"limit": str(limit)} | ({"state": state} if state else {})
            for row in client.call("GET", path, params=params)["deliveries"]:
                screen.print(_line(row), soft_wrap=True)
            return
        found = client.call("GET", f"{path}/{event}")
    screen.print(_line(found), soft_wrap=True)
    for each in found["log"]:
        how = plain(each["code"]) if each["code"] else "taken"
        status = f" ({each['status']})" if each["status"] else ""
        screen.print(f"  {each['n']:>3}  {_when(each['at'])}  {each['seconds']:.2f} s  {how}{status}", soft_wrap=True)
    screen.print(plain(json.dumps(found["data"], indent=2, ensure_ascii=False)), soft_wrap=True)


@app.command()
def redeliver(
    webhook: Id,
    event: Annotated[UUID | None, typer.Argument(help="One event, also one that was delivered.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d"], help="All that it missed since then; a day is UTC's."
        ),
    ] = None,
) -> None:
    """Send again: one event, or all that failed or happened while it was disabled since a time."""
    from datetime import UTC

    if (event is None) == (since is None):
        raise typer.BadParameter("give one event or --since", param_hint="EVENT, --since")
    with _client() as client:
        if event is not None:
            client.call("POST", f"/v1/webhooks/{webhook}/deliveries/{event}/redeliver")
            queued = 1
        else:
            assert since is not None
            at = since if since.tzinfo else since.replace(tzinfo=UTC)
            answer = client.call("POST", f"/v1/webhooks/{webhook}/redeliver", json={"since": at.isoformat()})
            queued = int(answer["queued"])
    typer.echo(f"{queued} {'delivery' if queued == 1 else 'deliveries'} will be sent again.")


@app.command()
def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine only; 0 takes any free one.")] = 8099,
    answer: Annotated[int, typer.Option(min=200, max=599, help="The status to answer verified events with.")] = 204,
) -> None:
    """Receive events on this machine, verify and print them, until Ctrl-C. For trying out.

    Asks for the webhook's secret; it can also be piped in.
    """
    from db import webhook_secrets
    from worker import webhook_listener
    from worker.screen import console

    try:
        given = typer.prompt("Secret", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
        secret = webhook_secrets.read(given.strip())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="the secret") from error
    screen = console()
    with webhook_listener.server(secret, port, lambda heard: screen.print(_heard(heard)), answer) as server:
        screen.print(f"[dim]·[/] listening at http://{webhook_listener.HOST}:{server.server_port}/", soft_wrap=True)
        server.serve_forever()


def _heard(heard: "Heard") -> str:
    from worker.screen import plain

    if heard.problem:
        return f"[red]refused[/] {plain(heard.problem)}"
    text = json.dumps(heard.event.get("data"), indent=2, ensure_ascii=False)
    again = " [yellow]again[/]" if heard.again else ""
    return f"[green]verified[/]{again} [bold]{plain(heard.event.get('type'))}[/] {plain(heard.event_id)}\n{plain(text)}"


def _line(row: dict[str, Any]) -> str:
    from worker.screen import plain

    how = f" ({plain(row['code'])})" if row["code"] else ""
    tries = "1 try" if row["attempts"] == 1 else f"{row['attempts']} tries"
    due = f", next {_when(row['next_at'])}" if row["next_at"] and row["attempts"] else ""  # untried: as soon as it may
    head = f"{plain(row['id'])}  {_when(row['created_at'])}  [bold]{plain(row['type'])}[/]"
    return f"{head}\n  {_coloured(row['state'])}{how}, {tries}{due}"


def _coloured(state: str) -> str:
    return f"[{_COLOURS[state]}]{state}[/]"


def _when(text: str | None) -> str:
    return "never" if text is None else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}"
