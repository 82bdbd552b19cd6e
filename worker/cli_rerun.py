"""Commands for reruns: plan, start, compare, publish, drop, roll back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

if TYPE_CHECKING:
    from db.rerun_diff import Difference
    from db.reruns import Plan, Selection
    from db.session import Database

app = typer.Typer(help="Analyse published results again with another model.", no_args_is_help=True)
Account = Annotated[str, typer.Option(help="Whose results.")]
Rerun = Annotated[UUID, typer.Argument(help="The rerun's id, as `start` printed it.", show_default=False)]
Model = Annotated[
    str | None, typer.Option(metavar="NAME@VERSION", help="The model; without it, the active one of --task.")
]
Task = Annotated[str, typer.Option(help="tags or moderation; for the active model of it.")]
Every = Annotated[bool, typer.Option("--all", help="Also results that this very model made.")]
Older = Annotated[
    str | None, typer.Option("--older-than", metavar="NAME@VERSION", help="Made by a version registered before it.")
]
Label = Annotated[str | None, typer.Option(help="Results with this label, or with this class's score in --score.")]
Score = Annotated[str, typer.Option(metavar="LOW:HIGH", help="Band of the label's score, or else of the best tag's.")]
Verdict = Annotated[str | None, typer.Option(help="Results with this verdict.")]
Reason = Annotated[
    str | None, typer.Option(metavar="CODE", help="Verdicts with this reason, as moderation_late, whoever made them.")
]
Product = Annotated[str | None, typer.Option(help="Results of this product; * stands for anything.")]
Job = Annotated[UUID | None, typer.Option(help="Results of this job.")]


@app.command()
def plan(
    model: Model = None,
    task: Task = "tags",
    every: Every = False,
    older_than: Older = None,
    label: Label = None,
    score: Score = "0:1",
    verdict: Verdict = None,
    reason: Reason = None,
    product: Product = None,
    job: Job = None,
    account: Account = "local",
) -> None:
    """Count what a rerun would analyse and estimate its time. Changes nothing."""
    selection = _selection(every, older_than, label, score, verdict, product, job, reason)
    with _opened(account) as (database, account_id):
        typer.echo(_words(_planned(database, account_id, model, task, selection)))


@app.command()
def start(
    model: Model = None,
    task: Task = "tags",
    every: Every = False,
    older_than: Older = None,
    label: Label = None,
    score: Score = "0:1",
    verdict: Verdict = None,
    reason: Reason = None,
    product: Product = None,
    job: Job = None,
    account: Account = "local",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Start a rerun in the bulk lane, after showing its plan. Prints its id; nothing published changes."""
    from db import reruns

    selection = _selection(every, older_than, label, score, verdict, product, job, reason)
    with _opened(account) as (database, account_id):
        planned = _planned(database, account_id, model, task, selection)
        typer.echo(_words(planned), err=True)
        if not yes and planned.items:
            typer.confirm("Start it?", abort=True, err=True)
        with database.transaction() as session:
            rerun = reruns.start(session, account_id, planned.model, selection)
    typer.echo(f"Watch it: tagmill wait {rerun.job_id}; then: tagmill rerun diff {rerun.id}", err=True)
    typer.echo(rerun.id)


@app.command(name="list")
def list_(account: Account = "local") -> None:
    """List the newest reruns."""
    from rich.console import Console
    from rich.table import Table

    from db import reruns

    with _opened(account) as (database, account_id), database.transaction() as session:
        found = reruns.newest(session, account_id)
    table = Table(box=None, header_style="bold")
    table.add_column("rerun", no_wrap=True, min_width=36)
    table.add_column("state", no_wrap=True, min_width=12)
    table.add_column("what")
    for rerun in found:
        counts = f"{rerun.total} items, {rerun.published} published, {rerun.restored} restored"
        what = f"{rerun.model}: {reruns.describe(rerun.selection)}; {counts}"
        table.add_row(str(rerun.id), rerun.state, what)
    Console(highlight=False).print(table)


@app.command()
def diff(
    rerun: Rerun,
    account: Account = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what publishing would change, or changed: tags added and removed, verdicts flipped, examples."""
    from rich.console import Console

    from worker.rerun import difference

    with _opened(account) as (database, account_id):
        found = difference(database, account_id, rerun)
    if as_json:
        typer.echo(json.dumps(found.document(), ensure_ascii=False))
    else:
        Console(highlight=False).print(_table(found))


@app.command()
def publish(rerun: Rerun, account: Account = "local") -> None:
    """Put a rerun's results in the place of the published ones. Interrupted, give it again: it goes on."""
    changed = _carry_out("publish", rerun, account)
    typer.echo(f"{changed} results published. To take them back: tagmill rerun rollback {rerun}")


@app.command()
def drop(rerun: Rerun, account: Account = "local") -> None:
    """Give up a rerun that is not published, and stop its work."""
    _carry_out("drop", rerun, account)
    typer.echo("Dropped; nothing published has changed.")


@app.command()
def rollback(rerun: Rerun, account: Account = "local") -> None:
    """Put back what a rerun's publication replaced, where nothing newer is published. Roll back the newest first."""
    changed = _carry_out("rollback", rerun, account)
    typer.echo(f"{changed} results are what they were before.")


@contextmanager
def _opened(account: str) -> "Iterator[tuple[Database, int]]":
    from db import accounts
    from worker.cli_keys import owners_database

    with owners_database() as database:
        with database.transaction() as session:
            account_id = accounts.by_name(session, account).id
        yield database, account_id


def _selection(
    every: bool,
    older_than: str | None,
    label: str | None,
    score: str,
    verdict: str | None,
    product: str | None,
    job: UUID | None,
    reason: str | None,
) -> "Selection":
    from db.reruns import Selection

    low, _, high = score.partition(":")
    try:
        band = float(low or 0), float(high or 1)
    except ValueError:
        raise typer.BadParameter("expected LOW:HIGH, as 0.3:0.7", param_hint="--score") from None
    return Selection(every, older_than, label, *band, verdict, product, job, reason)


def _planned(database: "Database", account_id: int, model: str | None, task: str, selection: "Selection") -> "Plan":
    from db import registry, reruns
    from db.errors import NotFound

    with database.transaction() as session:
        if model is None:
            active = registry.active(session, task)
            if active is None:
                raise NotFound(f"No model is active for {task}: name one with --model.")
            model = active.ref
        return reruns.plan(session, account_id, model, selection)


def _words(plan: "Plan") -> str:
    from worker.live import span

    now = ", ".join(f"{count} by {model}" for model, count in plan.by_model.items()) or "none"
    time = "unknown, no job has run here yet" if plan.seconds is None else f"about {span(plan.seconds)} or less"
    known = f", {plan.scored} of them scored by it before" if plan.scored else ""
    return f"{plan.task} with {plan.model}: {plan.items} results{known}\nnow: {now}\ntime: {time}"


def _carry_out(step: str, rerun: UUID, account: str) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from db import reruns
    from worker.rerun import STEPS, carry_out

    screen = Console(stderr=True, highlight=False)
    with _opened(account) as (database, account_id):
        with database.transaction() as session:
            total = reruns.get(session, account_id, rerun).total
        with Progress(console=screen, disable=not screen.is_terminal) as bar:
            task = bar.add_task(step, total=total)
            return carry_out(
                database, account_id, rerun, STEPS[step], progress=lambda items: bar.update(task, completed=items)
            )


def _table(found: "Difference") -> Any:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    document = found.document()
    table = Table("change", "label", "items", box=None, header_style="bold")
    for kind, colour in (("added", "green"), ("removed", "red")):
        for row in document[kind]:
            table.add_row(f"[{colour}]{kind}[/]", escape(f"{row['group']}: {row['label']}"), str(row["items"]))
    for row in document["flipped"]:
        table.add_row("[yellow]flipped[/]", f"{row['from']} → {row['to']}", str(row["items"]))
    for code, items in document["failed"].items():
        table.add_row("[red]not analysed[/]", code, str(items))
    lines = [f"{found.changed} results change, {found.same} stay the same"]
    examples = [escape(f"  {json.dumps(example, ensure_ascii=False)}") for example in document["examples"][:5]]
    return Group(*lines, table, *(["for example", *examples] if examples else []))
