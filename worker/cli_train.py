"""Commands for training and evaluating: start a run, take up one that waits, list, cancel; evaluate a model."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

if TYPE_CHECKING:
    from db.tables import TrainingRun

runs = typer.Typer(help="Look after training runs.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Learn")(train)
    app.command(rich_help_panel="Learn")(evaluate)
    app.command(rich_help_panel="Learn")(calibrate)
    app.add_typer(runs, name="runs", rich_help_panel="Learn")


def train(
    dataset: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A registered dataset.")],
    name: Annotated[str, typer.Option(help="The name of the model to make.")],
    version: Annotated[str | None, typer.Option(help="Its version; without it, the next number.")] = None,
    architecture: Annotated[str, typer.Option(help="A torchvision classifier.")] = "mobilenet_v2",
    init: Annotated[
        str | None, typer.Option(help="Start weights: a registered NAME@VERSION, or a .safetensors file.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs with all layers.")] = 8,
    head_epochs: Annotated[int, typer.Option(min=0, help="Epochs before them with the last layer only.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda:0 …")] = "cpu",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other setting of docs/models.md. Repeatable."),
    ] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Only queue it: `tagmill runs work` trains it.")] = False,
) -> None:
    """Train a model on a dataset and register it as a candidate.

    Interrupted or killed, it goes on from its last checkpoint: `tagmill runs work`.
    """
    from db import datasets, training
    from ml.train_config import from_dict
    from worker.cli_datasets import opened

    config: dict[str, Any] = {
        "architecture": architecture, "epochs": epochs, "head_epochs": head_epochs, "batch_size": batch_size,
        "device": device, "seed": seed, **_settings(setting),
    }  # fmt: skip
    if init is not None and "@" not in init:
        init = str(Path(init).resolve(strict=False))
        if not Path(init).is_file():
            raise typer.BadParameter(f"{init}: no such file", param_hint="--init")
    with opened() as (database, blobs, model_root):
        with database.transaction() as session:
            made = version or training.next_version(session, name)
            document = from_dict({**config, "name": name, "version": made}).to_dict()
            found = datasets.by_ref(session, dataset)
            run = training.enqueue(session, found.id, name, made, document, init=init)
        typer.echo(f"run {run.id} will make {name}@{made} from {found.ref}", err=True)
        if not queue:
            _work(database, blobs, model_root, run.id)


@runs.command()
def work(
    run: Annotated[UUID | None, typer.Argument(help="This run; without it, the oldest that waits.")] = None,
) -> None:
    """Take up a run that is queued, or whose trainer died, and train it here."""
    from worker.cli_datasets import opened

    with opened() as (database, blobs, model_root):
        _work(database, blobs, model_root, run)


@runs.command(name="list")
def list_() -> None:
    """List the newest training runs."""
    from rich.console import Console
    from rich.table import Table

    from db import training
    from worker.cli_datasets import opened

    with opened() as (database, _, _), database.transaction() as session:
        found = training.newest(session)
    table = Table(box=None, header_style="bold")
    table.add_column("run", no_wrap=True, min_width=36)
    for column in ("model", "state", "progress"):
        table.add_column(column)
    for run in found:
        table.add_row(str(run.id), f"{run.name}@{run.version}", run.code or run.state, _progress(run.progress))
    Console(highlight=False).print(table)


@runs.command()
def cancel(run: Annotated[UUID, typer.Argument(help="The run's id.")]) -> None:
    """Cancel a run; its trainer hears of it at its next heartbeat."""
    from db import training
    from worker.cli_datasets import opened

    with opened() as (database, _, _), database.transaction() as session:
        typer.echo(f"run {run} is {training.cancel(session, run).state}")


def evaluate(
    model: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A registered model.")],
    dataset: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A registered dataset.")],
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    report: Annotated[Path | None, typer.Option(help="A folder for report.html and report.json.")] = None,
    clusters: Annotated[str | None, typer.Option(help="A column whose values the bootstrap draws together.")] = None,
    rounds: Annotated[int, typer.Option(min=10, help="Rounds of the bootstrap.")] = 1000,
    backend: Annotated[str, typer.Option(help="auto, fused, openvino, cuda or reference.")] = "auto",
    originals: Annotated[bool, typer.Option("--originals", help="Original pictures, not working copies.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
) -> None:
    """Measure a model on a split of a dataset, with intervals; the promotion gate compares what is stored."""
    from rich.console import Console
    from rich.table import Table

    from ml.evaluate import Options
    from worker import evaluating
    from worker.cli_datasets import opened

    with opened() as (database, blobs, model_root):
        found, stored = evaluating.evaluate(
            database, blobs, model_root, model, dataset, split, report_to=report,
            options=Options(rounds=rounds, clusters=clusters), backend=backend, originals=originals, threads=threads,
        )  # fmt: skip
    screen = Console(highlight=False)
    for name, group in found.groups.items():
        table = Table("figure", "value", "95 % interval", title=f"{name}, {group.pictures} pictures", box=None)
        for figure, value in group.figures.items():
            table.add_row(figure, f"{value.value:.4f}", f"{value.low:.4f} … {value.high:.4f}")
        screen.print(table)
    typer.echo(f"evaluation {stored} of {model} on {dataset}, {split}", err=True)


def calibrate(
    model: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A registered model.")],
    dataset: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A registered dataset.")],
    version: Annotated[str, typer.Option(help="The version to make; the weights stay the same.")],
    split: Annotated[str, typer.Option(help="The split to fit on: never the one that is measured on.")] = "validation",
    precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="Most recall at this precision, instead of the best F1.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
) -> None:
    """Fit temperatures and thresholds of a model and register the result as a candidate."""
    from worker import calibrating
    from worker.cli_datasets import opened

    with opened() as (database, blobs, model_root):
        made = calibrating.calibrate(
            database, blobs, model_root, model, dataset, split, version, wanted_precision=precision, threads=threads
        )
    typer.echo(f"{made.ref} is a candidate, made from {model}, in {made.folder}")


def _work(database: Any, blobs: Any, model_root: Path, run_id: UUID | None) -> None:
    """Train one run with a bar; Ctrl-C or SIGTERM hands it back at its next step. Exit code 1 unless it finished."""
    import signal

    from worker.train_runs import Trainer

    with bar() as heard:
        trainer = Trainer(database, blobs, model_root, on_event=heard)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: trainer.stop.set())
        run = trainer.run_once(run_id)
    if run is None:
        typer.echo("no run waits", err=True)
        return
    typer.echo(_ended(run), err=run.state != "finished")
    if run.state != "finished":
        raise typer.Exit(1)


def _ended(run: "TrainingRun") -> str:
    ref = f"{run.name}@{run.version}"
    if run.state == "finished":
        return f"{ref} is a candidate: tagmill evaluate {ref} DATASET, then tagmill models activate {ref}"
    if run.state == "queued":
        return f"stopped; it goes on from its last checkpoint with: tagmill runs work {run.id}"
    return f"run {run.id} is {run.state}: {run.detail or ''} ({run.code or run.state})"


@contextmanager
def bar() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar of the epochs and the loss; what is worth a line is printed above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, TimeElapsedColumn(), console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task("epochs", total=None, now="")

        def heard(event: Mapping[str, Any]) -> None:
            if event["event"] == "step":
                bar.update(task, now=f"step {event['step']}, loss {event['loss']:.3f}, lr {event['lr']:.1e}")
            elif event["event"] == "epoch":
                bar.update(task, completed=event["epoch"] + 1, total=event["epochs"])
                figures = ", ".join(f"{name} {value:.3f}" for name, value in event["metrics"].items())
                screen.print(f"epoch {event['epoch'] + 1} of {event['epochs']}: {figures}")
            elif event["event"] not in ("checkpoint", "trained"):
                words = ", ".join(f"{key} {value}" for key, value in event.items() if key != "event")
                screen.print(f"{event['event'].replace('_', ' ')}: {words}", soft_wrap=True)

        yield heard


def _progress(progress: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in progress.items() if not isinstance(value, dict))


def _settings(given: list[str] | None) -> dict[str, Any]:
    """FIELD=VALUE pairs; a value is JSON where it reads as JSON, else text."""
    found: dict[str, Any] = {}
    for text in given or ():
        field, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter("expected FIELD=VALUE, as lr=0.001", param_hint="--set")
        try:
            found[field] = json.loads(value)
        except ValueError:
            found[field] = value
    return found
