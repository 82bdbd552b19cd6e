"""`tagmill models quantise`: a model in int8, offered to `tagmill tune` where labelled pictures show no loss."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml.quantise import Quantised
    from ml.tuning import Tuned

FP32, BF16, INT8 = "fp32", "bf16", "int8"


def quantise(
    ref: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A registered model.")],
    dataset: Annotated[str, typer.Argument(metavar="[DATASET]", help="A registered dataset, NAME or NAME@V.")] = "",
    pictures: Annotated[int, typer.Option(min=1, max=5000, help="Pictures to learn the ranges of numbers from.")] = 300,
    learn_from: Annotated[str, typer.Option(help="The split that they are from.")] = "train",
    split: Annotated[str, typer.Option(help="The split to judge on; another one.")] = "validation",
    below_card: Annotated[bool, typer.Option("--below-card", help="Although the model's card asks for fp32.")] = False,
    few_pictures: Annotated[
        bool, typer.Option("--few-pictures", help="Take it where the figures hold, but too few pictures prove it.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
    seconds: Annotated[float, typer.Option(min=0, help="CPU seconds of measuring the speed, about.")] = 10.0,
    remove: Annotated[bool, typer.Option("--remove", help="Take the model's int8 network away again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Make an int8 network of a model, and offer it if no figure of a label group falls by more than 0.5 points.

    fp32 and int8 score the same labelled pictures; top-1 counts for labels that exclude each other, mean average
    precision for attributes. What is offered runs only where `tagmill tune` then measures that it is the fastest.
    """
    from ml.quantise import How
    from worker import quantising
    from worker.cli_datasets import opened

    if bool(dataset) == remove:
        raise typer.BadParameter("give a dataset, or --remove", param_hint="DATASET")
    with opened() as (database, blobs, model_root):
        if remove:
            there = quantising.remove(database, model_root, ref)
            typer.echo(f"{ref} has no int8 network {'any more' if there else 'here'}.")
            return
        how = How(
            pictures=pictures, learn_from=learn_from, split=split, threads=threads,
            below_card=below_card, few_pictures=few_pictures,
        )  # fmt: skip
        loaded, made = quantising.quantise(database, blobs, model_root, ref, dataset, how)

    from ml import tuning

    tuned = tuning.tune(loaded, seconds=seconds, int8=made.network)
    speeds = {precision: _fastest(tuned, precision) for precision in (FP32, BF16, INT8)}
    if as_json:
        told = {"model": ref, "images_per_core_second": speeds, **(made.network.judged or {})}
        typer.echo(json.dumps(told | {"refused": made.refused and made.refused.code}))
    else:
        _show(ref, made, speeds)
    if made.refused is not None:
        raise made.refused
    typer.echo(f"Offered: `tagmill tune {ref}` has workers run it where it is the fastest.", err=True)


def _fastest(tuned: "Tuned", precision: str) -> float | None:
    """Images a second and core in the best batch, whether or not it may go live."""
    found = [each.images_s for each in tuned.measured if each.choice.name == f"openvino-{precision}"]
    return max((speed for speed in found if speed is not None), default=None)


def _show(ref: str, made: "Quantised", speeds: dict[str, float | None]) -> None:
    from rich.table import Table

    from worker.screen import console, plain

    judged = made.network.judged or {}
    title = f"{ref} on {judged['dataset']}, {judged['split']}"
    table = Table(title=plain(title), title_justify="left", title_style="bold", box=None, header_style="bold")
    for column in ("", "fp32", "bf16", "int8", "int8 − fp32, points", "95 % interval", "pictures", ""):
        table.add_column(column, justify="left" if column == "" else "right")
    for row in _rows(made):
        table.add_row(*(plain(cell) for cell in row))
    table.add_row("images/s and core", *("–" if (v := speeds[p]) is None else f"{v:.0f}" for p in (FP32, BF16, INT8)))
    console().print(table)


def _rows(made: "Quantised") -> "Sequence[Sequence[Any]]":
    names = {"accuracy": "top-1", "mean_average_precision": "mean average precision", "none": "no labelled picture"}
    rows = []
    for each in made.compared:
        told = {"kept": "kept", "unproven": "too few pictures to tell", "lost": "falls too far"}[each.verdict]
        if each.needed:
            told += f", about {each.needed} would"
        figures = (f"{each.before:.4f}", "", f"{each.after:.4f}", f"{100 * each.change:+.2f}")
        interval = f"{100 * each.low:+.2f} … {100 * each.high:+.2f}"
        name = f"{names[each.figure]}, {each.group}"
        rows.append((name, *(figures if each.pictures else ("–", "", "–", "–")), interval, str(each.pictures), told))
    return rows
