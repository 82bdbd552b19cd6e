"""The options that the commands of datasets share, and what they mean. Opens nothing."""

from typing import Annotated, Any

import typer

Name = Annotated[str, typer.Option(help="The dataset's name.")]
Version = Annotated[str, typer.Option(help="Its version.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="GROUP=COLUMN", help="A column with one label of several. Repeatable."),
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", metavar="GROUP=COLUMN", help="A column of true/false, or of a;b;c. Repeatable."),
]
Ignore = Annotated[list[str] | None, typer.Option(help="A value that means that nobody knows the label. Repeatable.")]
SplitColumn = Annotated[str, typer.Option(help="The column with the splits; empty for none.")]
By = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Pictures with one value here must not be parted by a split.")
]
Shares = Annotated[
    str | None,
    typer.Option(metavar="NAME=SHARE,…", help="Split anew, as train=0.8,validation=0.1,test=0.1, by near-duplicates."),
]
Seed = Annotated[int, typer.Option(help="Of the split.")]


def columns(exclusive: list[str] | None, attributes: list[str] | None, ignore: list[str] | None) -> dict[str, Any]:
    """The columns of labels by group; without `=`, the column has the group's name."""
    from ml.tables import Column

    found = {}
    for kind, given in (("exclusive", exclusive), ("attributes", attributes)):
        for text in given or ():
            group, equals, column = text.partition("=")
            found[group] = Column(column if equals else group, kind, frozenset(ignore or ()))  # type: ignore[arg-type]
    return found


def parsed(shares: str | None) -> dict[str, float]:
    """--shares by split; empty without it."""
    try:
        parts = [part.partition("=") for part in shares.split(",")] if shares else []
        return {name.strip(): float(share) for name, _, share in parts}
    except ValueError:
        raise typer.BadParameter("expected NAME=SHARE,…, as train=0.8,test=0.2", param_hint="--shares") from None
