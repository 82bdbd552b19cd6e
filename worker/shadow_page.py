"""How shadow runs look in a terminal: a report, and the line of `tagmill models show`. Computes and reads nothing."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from worker.screen import counted, plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from db.learning_tables import ShadowRun

SHOWN = 10
REASONS = {
    "pictures_reached": "it has its pictures",
    "days_over": "its days are over",
    "model_activated": "the candidate was activated",
    "model_retired": "the candidate was retired",
    "model_missing": "the candidate is no longer registered",
    "active_replaced": "another version became active",
}


def status(run: "ShadowRun") -> str:
    """In words, as markup: how far a run is, or why it ended."""
    done = counted(run.compared, "picture") + " compared" + (f", {run.failed} failed" if run.failed else "")
    if run.state == "finished":
        return f"finished, {REASONS[run.reason or '']}; {done}"
    if run.state == "failed":
        return f"[red]failed[/]: {plain(run.detail or '')} [dim]({plain(run.code)})[/]; {done}"
    trouble = f"; [yellow]last try[/]: {plain(run.detail)} [dim]({plain(run.code)})[/]" if run.code else ""
    return f"{'[green]running[/]' if run.state == 'running' else run.state}; {done}{trouble}"


def agreed(run: "ShadowRun") -> str:
    """By group, how often both have the same best label."""
    if not run.compared:
        return "–"
    return ", ".join(f"{plain(group)} {count / run.compared:.1%}" for group, count in run.agreed.items()) or "–"


def line(run: "ShadowRun") -> str:
    """A run in one line."""
    same = f"; same best label: {agreed(run)}" if run.compared else ""
    return f"against {plain(run.against)}: {status(run)}{same}"


def listed(runs: Sequence["ShadowRun"]) -> "RenderableType":
    """A table of runs."""
    table = _table("model", "started", "share", "what")
    for run in runs:
        table.add_row(plain(run.model), f"{run.created_at:%Y-%m-%d %H:%M}", f"{run.share:.4g}", line(run))
    table.columns[0].overflow = "fold"
    table.columns[0].min_width = 20
    return table


def report(run: "ShadowRun", document: Mapping[str, Any]) -> "RenderableType":
    """The report of a run."""
    from rich.console import Group
    from rich.table import Table

    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold", no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row("candidate", plain(run.model))
    head.add_row("active", plain(run.against))
    head.add_row("run", f"{status(run)}; {run.share:.4g} of the pictures since {run.created_at:%Y-%m-%d %H:%M}")
    for found in document["agreement"]:
        head.add_row("best label", f"{_same(found)} [dim](group {plain(found['group'])})[/]")
    if document["verdicts"]:
        head.add_row(
            "verdict", f"{_same(document['verdicts'])} [dim](policy {plain(document['verdicts']['policy'])})[/]"
        )
    if document["cost"]:
        both = document["cost"]
        head.add_row("cost", f"{both['candidate_ms']:.1f} ms an image, the active one {both['active_ms']:.1f} ms")
    for failed in document["failed"]:
        whose = {"picture": "working copy", "active": "active model", "candidate": "candidate"}[failed["side"]]
        words = f"{counted(failed['pictures'], 'picture')}: {plain(whose)} [dim]({plain(failed['code'])})[/]"
        head.add_row("[yellow]not compared[/]", words)
    for side, known in (("candidate", "only_candidate"), ("active", "only_active")):
        if document[known]:
            head.add_row(f"only the {side}", _labels(document[known]))
    parts: list[RenderableType] = [head]
    if document["compared"]:
        parts += [*_flips(document), *_rates(document), *_scores(document), *_examples(document)]
    return Group(*parts)


def _same(found: Mapping[str, Any]) -> str:
    if not found["pictures"]:
        return "no picture yet"
    interval = f"95 % interval {found['low']:.1%} to {found['high']:.1%}"
    return f"the same on {found['agree']} of {found['pictures']}, {found['share']:.1%} ({interval})"


def _flips(document: Mapping[str, Any]) -> list["RenderableType"]:
    groups = [*document["agreement"], *([document["verdicts"]] if document["verdicts"] else [])]
    flips = [(found["group"], flip) for found in groups for flip in found["flips"]]
    if not flips:
        return []
    table = _table("pictures", "group", "active says", "candidate says", title="What changes most")
    for group, flip in sorted(flips, key=lambda each: -each[1]["pictures"])[:SHOWN]:
        table.add_row(str(flip["pictures"]), plain(group), plain(flip["active"]), plain(flip["candidate"]))
    return ["", table]


def _rates(document: Mapping[str, Any]) -> list["RenderableType"]:
    rates = [rate for rate in document["rates"] if rate["active"] != rate["candidate"]]
    if not rates:
        return []
    table = _table("label", "active", "candidate", "", title="Pictures given a label")
    for rate in rates[:SHOWN]:
        more = rate["candidate"] > rate["active"]
        word = "[green]more often[/]" if more else "[red]less often[/]"
        table.add_row(_label(rate), f"{rate['active']:.1%}", f"{rate['candidate']:.1%}", word)
    return ["", table]


def _scores(document: Mapping[str, Any]) -> list["RenderableType"]:
    if not document["scores"]:
        return []
    table = _table(
        "label", "mean difference", "correlation", "active mean", "candidate mean", title="Scores of shared labels"
    )
    for shift in document["scores"][:SHOWN]:
        correlation = "–" if shift["correlation"] is None else f"{shift['correlation']:.3f}"
        means = f"{shift['active_mean']:.3f}", f"{shift['candidate_mean']:.3f}"
        table.add_row(_label(shift), f"{shift['mean_absolute']:.3f}", correlation, *means)
    return ["", table]


def _examples(document: Mapping[str, Any]) -> list["RenderableType"]:
    if not document["examples"]:
        return []
    table = _table("item", "sha256", "active", "candidate", title="Where they differ most")
    for example in document["examples"][:SHOWN]:
        sides = [f"{plain(side['label'])} {side['score']:.2f}" for side in (example["active"], example["candidate"])]
        table.add_row(example["item"], example["sha256"][:12], *sides)
    table.columns[0].no_wrap = True  # to be copied
    return ["", table]


def _label(row: Mapping[str, Any]) -> str:
    return plain(f"{row['group']}: {row['label']}")


def _labels(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = ", ".join(_label(row) for row in rows[:SHOWN])
    return shown + (f" … and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")


def _table(*columns: str, title: str | None = None) -> "Table":
    from rich.table import Table

    return Table(*columns, title=title, title_justify="left", box=None, header_style="bold", title_style="bold")
