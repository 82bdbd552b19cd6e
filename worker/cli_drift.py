"""`tagmill drift`: how far scores and tags have moved, by source, worst first; and computing a day by hand."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from db.learning_tables import DriftRow

app = typer.Typer(help="How far scores and tags have moved from a model's baseline, by source.")
COLOURS = {"drifted": "red", "watch": "yellow", "ok": "green", "unknown": "dim"}
MARKS = {"drifted": "●", "watch": "◐", "ok": "·", "unknown": "–"}
REASONS = {
    "too_few_pictures": "too few pictures to judge",
    "baseline_too_small": "its baseline has too few pictures",
    "no_baseline": "no baseline yet: evaluate the model, or wait for its first 7 days",
}


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, max=400, help="How many days to look back.")] = 14,
    model: Annotated[str | None, typer.Option(metavar="NAME@VERSION", help="Only this model.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account; without it, all.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Every row of these days, with all that was measured.")
    ] = False,
) -> None:
    """Show the newest computed day of each source, the worst first, and how the days before it were."""
    if context.invoked_subcommand is not None:
        return
    from db import accounts
    from db import drift as rows
    from worker.cli_datasets import opened

    with opened() as (database, _, _), database.transaction() as session:
        newest = rows.newest_day(session)
        owner = accounts.by_name(session, account).id if account else None
        names = rows.owners(session)
        begin = newest.day - timedelta(days=days - 1) if newest else date.min
        found = rows.since(session, owner, begin, newest.day) if newest else []
    found = [row for row in found if model is None or row.model == model]
    if as_json:
        document = [{"account": names[row.account_id], **_document(row)} for row in found]
        day = str(newest.day) if newest else None
        typer.echo(json.dumps({"newest_day": day, "rows": document}, indent=2, ensure_ascii=False))
        return
    if newest is None:
        typer.echo("no day was computed yet: maintenance does so after midnight (UTC); by hand: tagmill drift compute")
        return
    if not found:
        typer.echo(f"no pictures in {days} days up to {newest.day}" + (f" by {model}" if model else ""))
        return
    _print(found, names, newest.day, days)


@app.command()
def compute(
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day (UTC); without it, yesterday. Today is counted so far."),
    ] = None,
) -> None:
    """Compute a day, or compute it again: what was stored of it is replaced."""
    from worker import drifting
    from worker.cli_datasets import opened

    today = datetime.now(UTC).date()
    wanted = day.date() if day else today - timedelta(days=1)
    if wanted > today:
        raise typer.BadParameter("that day has not begun", param_hint="--day")
    with opened() as (database, _, _):
        done = drifting.compute(database, wanted)
    words = ", ".join(f"{count} {level}" for level, count in sorted(done.levels.items())) or "nothing to judge"
    typer.echo(f"{done.day}: {done.pictures} pictures, {done.rows} sources: {words}")


def _document(row: "DriftRow") -> dict[str, Any]:
    return {
        "day": str(row.day),
        "model": row.model,
        "source": row.source,
        "pictures": row.pictures,
        "level": row.level,
        "reason": row.reason,
        "psi": row.psi,
        "baseline": row.baseline,
        "measures": row.measures,
        "figures": row.figures,
    }


def _print(found: Sequence["DriftRow"], names: dict[int, str], newest: date, days: int) -> None:
    from db.drift import severity
    from worker.screen import console, plain

    series: dict[tuple[int, str], dict[str, list[DriftRow]]] = {}
    for row in found:  # newest day first
        series.setdefault((row.account_id, row.model), {}).setdefault(row.source, []).append(row)
    screen = console()
    parts = [(key, sorted(by.values(), key=lambda rows: severity(rows[0]))) for key, by in series.items()]
    for (account, ref), sources in sorted(parts, key=lambda part: severity(part[1][0][0])):
        whose = f" of {plain(names[account])}" if len({key[0] for key in series}) > 1 else ""
        screen.print(f"[bold]{plain(ref)}[/]{whose} [dim]{plain(_baseline(sources))}[/]")
        screen.print(_table(sources, newest, min(days, 14)), "")
    legend = " ".join(f"[{COLOURS[level]}]{mark}[/] {level}" for level, mark in MARKS.items())
    screen.print(f"[dim]days up to {newest}:[/] {legend}")


def _table(sources: Sequence[Sequence["DriftRow"]], newest: date, days: int) -> "RenderableType":
    from rich.table import Table

    from worker.screen import plain

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("level", no_wrap=True, min_width=7)
    table.add_column("source", overflow="fold", min_width=10, max_width=28)
    table.add_column("pictures", justify="right", no_wrap=True)
    table.add_column("PSI", justify="right", no_wrap=True)
    table.add_column("what moved most", overflow="fold")
    table.add_column("days", no_wrap=True)
    for rows in sources:
        row = rows[0]
        level = f"[{COLOURS[row.level]}]{row.level}[/]"
        index = "–" if row.psi is None else f"{row.psi:.2f}"
        older = "" if row.day == newest else f"{row.day}: "
        moved = plain(older + _moved(row))
        moved = f"[dim]{moved}[/]" if row.level in ("ok", "unknown") else moved
        table.add_row(level, plain(row.source), str(row.pictures), index, moved, _trend(rows, newest, days))
    return table


def _baseline(sources: Sequence[Sequence["DriftRow"]]) -> str:
    """What the model's rows are compared with, in words; sources may have first days of their own."""
    kinds = {rows[0].baseline["kind"]: rows[0].baseline for rows in sources if rows[0].baseline}
    if "evaluation" in kinds:
        of = kinds["evaluation"]
        return f"against its evaluation {of['id']} on {of['dataset']}, {of['split']}, {of['pictures']} pictures"
    if kinds:
        return "against its first 7 days at each source: no evaluation counted its scores"
    return "without a baseline"


def _moved(row: "DriftRow") -> str:
    """The first of the measures in words."""
    if row.level == "unknown":
        return REASONS.get(row.reason or "", row.reason or "")
    if not row.measures:
        return ""
    first = row.measures[0]
    name = f"{first['group']}: {first['label']}" if first["label"] else first["group"]
    if first["what"] == "rate":
        return f"{name} {first['base']:.1%} → {first['live']:.1%}"
    means = ["none" if first.get(side) is None else f"{first[side]:.2f}" for side in ("base", "live")]
    return f"scores of {name}, mean {means[0]} → {means[1]}"


def _trend(rows: Sequence["DriftRow"], newest: date, days: int) -> str:
    by_day = {row.day: row.level for row in rows}
    wanted = [newest - timedelta(days=back) for back in range(days - 1, -1, -1)]
    return "".join(f"[{COLOURS[by_day[d]]}]{MARKS[by_day[d]]}[/]" if d in by_day else " " for d in wanted)
