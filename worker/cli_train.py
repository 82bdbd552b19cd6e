"""Commands for training and evaluating: start a run, evaluate and calibrate a model. Runs are in `cli_runs`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from worker import cli_architectures, cli_runs


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Learn")(train)
    app.command(rich_help_panel="Learn")(evaluate)
    app.command(rich_help_panel="Learn")(calibrate)
    cli_architectures.register(app)
    app.add_typer(cli_runs.app, name="runs", rich_help_panel="Learn")


def train(
    dataset: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A registered dataset.")],
    name: Annotated[str, typer.Option(help="The name of the model to make.")],
    version: Annotated[str | None, typer.Option(help="Its version; without it, the next number.")] = None,
    architecture: Annotated[
        str, typer.Option(help="A torchvision classifier: see tagmill architectures.")
    ] = "mobilenet_v2",
    init: Annotated[
        str | None,
        typer.Option(help="Start weights: a registered NAME@VERSION, a .safetensors file, or imagenet: torchvision's."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs with all layers.")] = 8,
    head_epochs: Annotated[int, typer.Option(min=0, help="Epochs before them with the last layer only.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    devices: Annotated[int, typer.Option(min=1, help="Train on so many of them together.")] = 1,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other setting of docs/models.md. Repeatable."),
    ] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Only queue it: a trainer takes it.")] = False,
) -> None:
    """Train a model on a dataset and register it as a candidate.

    Interrupted or killed, a trainer (`tagmill up` has one) or `tagmill runs work` goes on from its last checkpoint.
    """
    from db import datasets, training
    from ml import architectures
    from ml.train_config import from_dict
    from worker import cli_runs, start_weights
    from worker.cli_datasets import opened

    config: dict[str, Any] = {
        "architecture": architecture, "epochs": epochs, "head_epochs": head_epochs, "batch_size": batch_size,
        "device": device, "devices": devices, "seed": seed, **_settings(setting),
    }  # fmt: skip
    architectures.known(config["architecture"])
    if init is not None and "@" not in init and init != start_weights.IMAGENET:
        init = str(Path(init).resolve(strict=False))
        if not Path(init).is_file():
            raise typer.BadParameter(f"{init}: no such file", param_hint="--init")
    with opened() as (database, blobs, model_root):
        if init == start_weights.IMAGENET:
            # Now, where the internet may be: the trainer may have none.
            start_weights.imagenet(model_root, config["architecture"])
        with cli_runs.trainer(database, blobs, model_root) as trainer:
            with database.transaction() as session:
                made = version or training.next_version(session, name)
                document = from_dict({**config, "name": name, "version": made}).to_dict()
                found = datasets.by_ref(session, dataset)
                run = training.enqueue(session, found.id, name, made, document, init=init)
                claimed = None if queue else trainer.claim(session, run.id)
            typer.echo(f"run {run.id} will make {name}@{made} from {found.ref}", err=True)
            if queue:
                typer.echo(f"watch it with: tagmill runs show {run.id} --follow", err=True)
            ended = None if claimed is None else trainer.carry_out(claimed)
    if ended is not None:
        cli_runs.report(ended)


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
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON instead.")] = False,
) -> None:
    """Measure a model on a split of a dataset, with intervals; the promotion gate compares what is stored."""
    from ml import report as pages
    from ml.evaluate import Options
    from worker import evaluating, evaluation_page
    from worker.cli_datasets import opened
    from worker.screen import console

    with opened() as (database, blobs, model_root):
        found, stored = evaluating.evaluate(
            database, blobs, model_root, model, dataset, split, report_to=report,
            options=Options(rounds=rounds, clusters=clusters), backend=backend, originals=originals, threads=threads,
        )  # fmt: skip
    if as_json:
        typer.echo(pages.as_json(found))
    else:
        screen = console()
        for part in evaluation_page.render(found):
            screen.print(part)
    typer.echo(f"evaluation {stored} of {model} on {dataset}, {split}", err=True)
    if report is not None:
        typer.echo(f"report: {report / pages.HTML_FILE}", err=True)


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
