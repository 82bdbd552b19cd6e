"""The command that lists the networks worth training, with what is known of them and, if asked, their speed here."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml.architectures import Choice


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Learn")(architectures)


def architectures(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="These only.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every classifier of torchvision, not only our choice.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the forward pass on this machine.")] = False,
    device: Annotated[str, typer.Option(help="Where to measure: cpu, cuda:0 …")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 8,
    seconds: Annotated[float, typer.Option(min=0, help="For how long each is measured, at least.")] = 2.0,
) -> None:
    """List networks to train: size, published accuracy, input size, and with --measure their speed on this machine."""
    from rich.console import Console
    from rich.table import Table

    from ml import architectures as known

    if names:
        choices = [known.published(name) for name in names]
    else:
        choices = [known.published(name) for name in known.torchvision_names()] if every else known.curated()
    table = Table(box=None, header_style="bold")
    table.add_column("architecture", no_wrap=True)
    for column in ("million\nparameters", "fp16\nMB", "ImageNet\ntop-1 %", "input\nside", "billion\nmult-adds"):
        table.add_column(column, justify="right")
    if measure:
        table.add_column("images/s\nhere", justify="right")
    about = ""
    for choice in choices:
        cells = _cells(choice)
        if measure:
            from ml import forward_speed

            speed = forward_speed.measure(choice.name, choice.side, device=device, batch=batch, seconds=seconds)
            cells.append(f"{speed.images_s:.1f}")
            about = f"Speed: forward pass, {speed.precision}, batches of {speed.batch}, on {device}, measured just now."
            typer.echo(f"{choice.name}: {speed.images_s:.1f} images/s, {speed.passes} passes", err=True)
        table.add_row(*cells)
    screen = Console(highlight=False)
    screen.print(table)
    screen.print("Size and top-1 as torchvision publishes them for its weights, which `train --init imagenet` takes.")
    if about:
        screen.print(about)
    screen.print(f"Licence: {known.TORCHVISION_LICENCE}.")


def _cells(choice: "Choice") -> list[str]:
    return [
        choice.name,
        f"{choice.parameters / 1e6:.1f}",
        f"{choice.half_megabytes:.1f}",
        f"{choice.top1:.1f}",
        str(choice.side),
        f"{choice.gigaflops:.2f}",
    ]
