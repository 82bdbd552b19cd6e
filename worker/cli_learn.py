"""The command that makes an activated model of labelled pictures in one go."""

import signal
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from worker.interrupts import Interrupted

if TYPE_CHECKING:
    from worker.learning import Learning, Wanted


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Learn")(learn)


def learn(
    source: Annotated[Path, typer.Argument(help="A folder with a folder per class, or a .csv.")],
    recipe: Annotated[
        Path | None, typer.Option(help="A .toml: columns, training, calibration. Without it, the defaults.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of model and dataset; else the recipe's, else the source's.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Of the model; without it, the next number.")] = None,
    images: Annotated[Path | None, typer.Option(help="Where a table's pictures are; without it, beside it.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Start weights: a registered NAME@VERSION, or a .safetensors file.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="A folder for report.html and report.json.")] = None,
    activate: Annotated[bool, typer.Option(help="Make it the model that new jobs use, if the gate lets it.")] = True,
    force: Annotated[str | None, typer.Option(metavar="REASON", help="Activate past a closed gate.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of calibration and evaluation.")] = 2,
) -> None:
    """Make a model of labelled pictures: import, train, calibrate, evaluate, activate.

    Interrupted or killed, the same command goes on from the last checkpoint. If no system runs, its database runs as
    long as this command does.
    """
    from worker import recipes
    from worker.learning import Wanted

    if force is not None and not force.strip():
        raise typer.BadParameter("say why", param_hint="--force")
    if not source.exists():
        raise typer.BadParameter(f"{source}: no such file or folder", param_hint="SOURCE")
    if init is not None and "@" not in init:
        if not Path(init).is_file():
            raise typer.BadParameter(f"{init}: no such file", param_hint="--init")
        init = str(Path(init).resolve())
    read = recipes.read(recipe) if recipe else recipes.Recipe()
    wanted = Wanted(
        source, images, read, name or read.name or source.resolve().stem.lower(),
        version=version, init=init, activate=activate, force=force, report_to=report, threads=threads,
    )  # fmt: skip
    _run(wanted)


def _run(wanted: "Wanted") -> None:
    from worker import evaluation_page, promotion_margins
    from worker.cli_datasets import opened
    from worker.learning import Learning
    from worker.screen import console, plain
    from worker.train_bar import bar

    margins = promotion_margins.configured()
    started = time.monotonic()

    def say(text: str) -> None:
        typer.echo(f"{_clock(time.monotonic() - started)}  {text}", err=True)

    with opened() as (database, blobs, model_root):
        with bar() as heard:
            learning = Learning(database, blobs, model_root, say=say, on_event=heard)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, partial(_stop, learning))
            learned = learning.run(wanted)
        for part in evaluation_page.render(learned.evaluation):
            console().print(part)
        active = wanted.activate and learning.activate(wanted, learned, margins)
    steps = ", ".join(f"{step} {_clock(took)}" for step, took in learned.seconds.items())
    state = "active" if active else "a candidate"
    after = _clock(time.monotonic() - started)
    console().print(f"{plain(learned.ref)} from {plain(learned.dataset)} is {state} after {after}: {steps}")


def _stop(learning: "Learning", number: int, frame: FrameType | None) -> None:
    """A training writes its checkpoint first; every other step can be done again."""
    learning.trainer.stop.set()
    if not learning.training:
        raise Interrupted


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
