"""Commands for training runs: list, show and follow one, its log, take up one that waits, cancel."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

if TYPE_CHECKING:
    from db.session import Database
    from db.tables import TrainingRun
    from db.training_log import Entry
    from worker.train_runs import Trainer

app = typer.Typer(help="Look after training runs.", no_args_is_help=True)
RunId = Annotated[UUID, typer.Argument(help="The run's id.", metavar="RUN")]
POLL_S = 1.0
ENDED = ("finished", "failed", "cancelled")


@app.command()
def work(
    run: Annotated[UUID | None, typer.Argument(help="This run; without it, the oldest that waits.")] = None,
) -> None:
    """Take up a run that is queued, or whose trainer died, and train it here."""
    from worker.cli_datasets import opened

    with opened() as (database, blobs, model_root), trainer(database, blobs, model_root) as here:
        ended = here.run_once(run)
    if ended is None:
        typer.echo("no run waits", err=True)
    else:
        report(ended)


@app.command(name="list")
def list_() -> None:
    """List the newest training runs."""
    from rich.table import Table

    from db import training
    from worker.cli_datasets import opened
    from worker.screen import console, plain
    from worker.train_progress import status

    with opened() as (database, _, _), database.transaction() as session:
        found = training.newest(session)
    table = Table(box=None, header_style="bold")
    table.add_column("run", no_wrap=True, min_width=36)
    for column in ("model", "state", "progress"):
        table.add_column(column)
    for run in found:
        shown = status(run.live, going=run.state == "running") if run.live else ""
        table.add_row(str(run.id), plain(f"{run.name}@{run.version}"), run.code or run.state, shown)
    console().print(table)


@app.command()
def show(
    run: RunId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until it has ended.")] = False,
) -> None:
    """Show a run: its state, settings, epochs, losses, rate, time to go, last checkpoint and the end of its log."""
    from db import datasets, training, training_log
    from worker import run_page
    from worker.cli_datasets import opened
    from worker.screen import console

    screen = console()
    with opened() as (database, _, _):
        with database.transaction() as session:
            found = training.get(session, run)
            dataset = datasets.by_id(session, found.dataset_id).ref
            entries = training_log.last(session, run, 10)
        screen.print(run_page.render(found, dataset, entries))
        if follow:
            _follow(database, run, entries[-1].seq if entries else 0)


@app.command()
def log(
    run: RunId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
) -> None:
    """Print a run's log: the newest 1000 entries."""
    from db import training, training_log
    from worker import run_page
    from worker.cli_datasets import opened

    with opened() as (database, _, _):
        with database.transaction() as session:
            training.get(session, run)
            entries = training_log.after(session, run)
        for entry in entries:
            typer.echo(run_page.line(entry))
        if follow:
            _follow(database, run, entries[-1].seq if entries else 0)


@app.command()
def cancel(run: RunId) -> None:
    """Cancel a run; its trainer hears of it at its next heartbeat."""
    from db import training
    from worker.cli_datasets import opened

    with opened() as (database, _, _), database.transaction() as session:
        typer.echo(f"run {run} is {training.cancel(session, run).state}")


@contextmanager
def trainer(database: "Database", blobs: Any, model_root: Path) -> "Iterator[Trainer]":
    """A trainer with a bar; Ctrl-C or SIGTERM lets it write a checkpoint and hand its run back."""
    import signal

    from worker.train_bar import bar
    from worker.train_runs import Trainer

    with bar() as heard:
        made = Trainer(database, blobs, model_root, on_event=heard)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: made.stop.set())
        yield made


def report(run: "TrainingRun") -> None:
    """Say how a run ended. Exit code 1 unless it finished."""
    from worker.screen import visible

    ref = f"{run.name}@{run.version}"
    if run.state == "finished":
        typer.echo(f"{ref} is a candidate: tagmill evaluate {ref} DATASET, then tagmill models activate {ref}")
        return
    if run.state == "queued":
        typer.echo(f"stopped; a trainer, or tagmill runs work {run.id}, goes on from its last checkpoint", err=True)
        typer.echo(f"give it up: tagmill runs cancel {run.id}", err=True)
    else:
        why = visible(run.detail or "")
        typer.echo(f"run {run.id} is {run.state}: {why} ({run.code or run.state})", err=True)
    raise typer.Exit(1)


def _follow(database: "Database", run_id: UUID, seen: int) -> None:
    """Log lines as they come, and below them, in a terminal, where the run is; until it has ended."""
    from db import training, training_log
    from worker import run_page
    from worker.screen import console
    from worker.train_progress import status

    screen = console()
    with screen.status("") if screen.is_terminal else _nothing() as spinner:
        while True:
            with database.transaction() as session:
                run = training.get(session, run_id)
                entries: list[Entry] = training_log.after(session, run_id, seen)
            for entry in entries:
                seen = entry.seq
                screen.print(run_page.line(entry), markup=False, soft_wrap=True)
            if run.state in ENDED:
                break
            if spinner is not None:
                spinner.update(f"{run.state}: {status(run.live)}")
            time.sleep(POLL_S)
    screen.print(f"{run.name}@{run.version}: {run.state}" + (f" ({run.code})" if run.code else ""), markup=False)


@contextmanager
def _nothing() -> Iterator[None]:
    yield None
