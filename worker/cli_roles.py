"""Commands that run the system: `up` for all of it on one machine, one command per role, and `migrate`."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from worker import interrupts, roles

RUN = "Run"
Host = Annotated[str, typer.Option(envvar="TAGMILL_API_HOST", help="Address the API listens on.")]
Port = Annotated[int, typer.Option(envvar="TAGMILL_API_PORT", help="Port of the API; 0 takes any free one.")]
Workers = Annotated[int, typer.Option(envvar="TAGMILL_API_WORKERS", min=1, help="API processes.")]
Threads = Annotated[int, typer.Option(envvar="TAGMILL_API_THREADS", min=1, help="Threads of each API process.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel=RUN)(up)
    app.command(rich_help_panel=RUN)(demo)
    app.command(rich_help_panel=RUN)(api)
    app.command(rich_help_panel=RUN)(crawler)
    app.command(rich_help_panel=RUN)(worker)
    app.command(rich_help_panel=RUN)(maintenance)
    app.command(rich_help_panel=RUN)(trainer)
    app.command(rich_help_panel=RUN)(migrate)


def up(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    workers: Workers = 2,
    threads: Threads = 16,
    log: Annotated[bool, typer.Option("--log", help="Show the roles' log lines here too.")] = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C: Postgres, Valkey and every role.

    Data lives in TAGMILL_HOME (default ~/.local/share/tagmill). A configured TAGMILL_DATABASE_URL or
    TAGMILL_BROKER_URL is used instead of a server of our own.
    """
    import time

    from worker.home import Home
    from worker.screen import console, news
    from worker.supervise import Supervisor

    screen = console()
    interrupts.on(signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    home = Home.default()
    listen = roles.Listen(host, port, workers, threads)
    supervisor = Supervisor(home, listen=listen, say=lambda text: news(screen, text), echo_log=log)
    try:
        supervisor.start()
        supervisor.await_ready()
        _welcome(screen, supervisor)
        while True:
            supervisor.watch()
            time.sleep(0.5)
    except KeyboardInterrupt:
        screen.print("\n[dim]·[/] stopping (up to a minute)")
    finally:
        # A second Ctrl-C must not leave half of it running.
        interrupts.ignore(signal.SIGINT, signal.SIGTERM)
        supervisor.stop()
    screen.print("[dim]·[/] stopped")


def demo(
    images: Annotated[Path | None, typer.Option(help="A folder of your own pictures.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures at most.")] = 200,
    public: Annotated[bool, typer.Option("--public", help="Fetch public photos of clothes from GitHub (CC0).")] = False,
    mirror: Annotated[str | None, typer.Option(help="With --public: the URL of a folder with the same photos.")] = None,
) -> None:
    """Run everything on some pictures, show the results, and stop. Its data is in .tagmill/demo.

    Without options the pictures are the photos beside the checkout, if there are any, else drawings of its own.
    """
    from worker import demo as show
    from worker import public_photos
    from worker.home import Home

    if images is not None and public:
        raise typer.BadParameter("choose one of --images and --public", param_hint="--public")
    if mirror and not public:
        raise typer.BadParameter("is for --public", param_hint="--mirror")
    show.run(images, count, Home(Path(".tagmill") / "demo"), public=(mirror or public_photos.BASE) if public else None)


def _welcome(screen: "Console", supervisor: "Supervisor") -> None:  # type: ignore[name-defined]  # noqa: F821
    from rich.panel import Panel
    from rich.table import Table

    from worker.screen import plain

    home = supervisor.home
    url = plain(supervisor.url)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("Console", f"{url}/console")
    grid.add_row("API", f"{url}  [dim](documentation: {url}/docs)[/]")
    grid.add_row("API key", f"{plain(home.key)}  [dim](the tagmill commands use it; more: tagmill keys create NAME)[/]")
    models = supervisor.active_models()
    missing = "[yellow]none yet: tagmill models pull[/]"
    grid.add_row("Models", plain(", ".join(f"{task}: {ref}" for task, ref in models.items())) or missing)
    grid.add_row("Data", plain(home.root))
    grid.add_row("Log", plain(home.log))
    grid.add_row("Try", "tagmill submit urls.txt --wait --out results.csv")
    screen.print(Panel(grid, title="Tagmill is up", subtitle="Ctrl-C stops it", border_style="green", expand=False))
    # Outside of the box, and on a line of its own: whole, so that it can be clicked and copied.
    name, link = supervisor.sign_in_link()
    screen.print(f"[dim]·[/] sign in as {plain(name)}, once, within ten minutes:\n{plain(link)}", soft_wrap=True)


def api(host: Host = "127.0.0.1", port: Port = 8080, workers: Workers = 2, threads: Threads = 16) -> None:
    """Serve the HTTP API."""
    _become("api", roles.Listen(host, port, workers, threads))


def crawler() -> None:
    """Fetch and normalise pictures."""
    _become("crawler")


def worker() -> None:
    """Run the networks over fetched pictures (Celery)."""
    _become("worker")


def maintenance() -> None:
    """Send hints, free lost leases, finish jobs. Any number of these may run."""
    _become("maintenance")


def trainer() -> None:
    """Train the runs that wait, one at a time, stepping back for other work. Any number of these may run."""
    _become("trainer")


def _become(role: str, listen: roles.Listen | None = None) -> None:
    """Replace this process by the role, so that signals reach it directly."""
    import tempfile

    command = roles.command(role, listen)
    given = {}
    if role == "api" and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        # Several processes count together through files; they are of no use to a later start.
        given["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="tagmill-metrics-")
    sys.stdout.flush()
    os.execve(command[0], command, roles.environment(given))  # noqa: S606


def migrate() -> None:
    """Bring the database to the newest schema. Needs the owner's TAGMILL_DATABASE_URL, or our own Postgres.

    TAGMILL_API_PASSWORD and TAGMILL_WORKER_PASSWORD, where set, let the roles tagmill_api and tagmill_worker log in.
    """
    from db import migrate as migrations
    from worker.home import Home
    from worker.local import place

    with place(Home.default()) as where:
        migrations.upgrade(
            where.database_url,
            api_password=os.environ.get("TAGMILL_API_PASSWORD"),
            worker_password=os.environ.get("TAGMILL_WORKER_PASSWORD"),
        )
    typer.echo(f"The database ({where.origin}) is at revision {migrations.head()}.")
