"""`tagmill tune`: measures how each model runs best on this machine, and remembers it for the workers here."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from db.session import Session
    from db.tables import ModelVersion
    from ml.card import ModelCard
    from ml.exported import Exported
    from ml.tuning import Measured, Tuned
    from worker.exporting import Networks


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Administer")(tune)


def tune(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME@VERSION]…", help="These models; without them, the active ones.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="CPU seconds of measuring for each model, about.")] = 10.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of one forward pass; unset: TAGMILL_THREADS, else 1.")
    ] = None,
    keep: Annotated[bool, typer.Option(help="Remember the choices for the workers of this machine.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Measure how each model runs fastest on this machine's CPU, and have its workers run it so.

    Backend, precision and batch size are tried in turns; what goes live must agree with the fp32 reference, and bf16
    only where the model's card allows it, int8 where `tagmill models quantise` has let it. Workers look when they load
    a model: restart those that run.
    """
    import os
    from functools import partial

    from db import registry
    from ml import artifact, exported, tuning
    from ml.card import ONNX
    from worker.cli_keys import owners_place
    from worker.exporting import Networks
    from worker.predictors import folder
    from worker.tuned import Tuned

    threads = threads or int(os.environ.get("TAGMILL_THREADS") or 1)
    found: list[dict[str, Any]] = []
    with owners_place() as where:
        with where.database() as database, database.transaction() as session:
            models = [registry.by_ref(session, ref) for ref in refs] if refs else _active(session)
        tuned = Tuned(where.model_root)
        for model in models:
            loaded = artifact.load(folder(where.model_root, model.name, model.version), model.sha256)
            networks = Networks(where.model_root)
            int8 = _int8(networks, loaded.card, model.sha256)
            result = tuning.tune(loaded, seconds=seconds, threads=threads, int8=int8)
            best = result.best
            if keep and best is not None:
                tuned.remember(
                    model.sha256, best.choice, threads, model=model.ref, images_s=best.images_s, gap=best.gap
                )
                if best.choice.family == "openvino" and loaded.card.architecture != ONNX:
                    networks.put(model.sha256, partial(exported.write, loaded))
            found.append(_document(model.ref, result))
            if not as_json:
                _show(model.ref, result)
    if as_json:
        typer.echo(json.dumps({"threads": threads, "cpu": tuned.cpu, "versions": tuned.versions, "models": found}))
    elif not found:
        typer.echo("No model is active: install one with `tagmill models pull`.", err=True)
    elif keep:
        typer.echo(f"Remembered in {tuned.file}; workers that start from now on run the models so.", err=True)


def _int8(networks: "Networks", card: "ModelCard", sha256: str) -> "Exported | None":
    """The int8 network that may run here; a damaged one is left out, and said to be."""
    from ml.errors import BackendError
    from worker import quantising

    try:
        return quantising.found(networks, card, sha256)
    except BackendError as error:
        typer.echo(f"{card.ref}: int8 is left out: {error.detail}", err=True)
        return None


def _active(session: "Session") -> "list[ModelVersion]":
    from db import registry

    return [model for model in registry.list_models(session) if model.state == "active"]


def _document(ref: str, result: "Tuned") -> dict[str, Any]:
    return {
        "model": ref,
        "chosen": result.choice and {"backend": result.choice.name, "batch": result.choice.batch},
        "measured": [
            {
                "backend": each.choice.name, "batch": each.choice.batch, "images_per_core_second": each.images_s,
                "gap": each.gap, "refused": each.refused, "chosen": each.choice == result.choice,
            }
            for each in result.measured
        ],
    }  # fmt: skip


def _show(ref: str, result: "Tuned") -> None:
    from rich.table import Table

    from worker.screen import console, plain

    table = Table(title=plain(ref), title_justify="left", title_style="bold", box=None, header_style="bold")
    for column in ("backend", "batch", "images/s\nand core", "score gap\nto fp32", ""):
        table.add_column(column, justify="right" if column not in ("backend", "") else "left")
    for each in result.measured:
        _row(table, each, chosen=each.choice == result.choice)
    console().print(table)


def _row(table: "Table", each: "Measured", *, chosen: bool) -> None:
    from worker.screen import plain

    said = "[green]chosen[/]" if chosen else f"[dim]{plain(each.refused)}[/]" if each.refused else ""
    speed = "–" if each.images_s is None else f"{each.images_s:.0f}"
    gap = "–" if each.images_s is None else f"{each.gap:.1e}"
    table.add_row(each.choice.name, str(each.choice.batch), speed, gap, said)
