"""What `tagmill runs show` prints of a training run; asks nobody."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from db.tables import TrainingRun
from db.training_log import Entry
from worker.screen import visible
from worker.train_progress import status, words

_EPOCHS = 12
_BARS = "▁▂▃▄▅▆▇█"


def render(run: TrainingRun, dataset: str, entries: Sequence[Entry]) -> RenderableType:
    """State, progress, settings, history and the end of the log."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _facts(run, dataset):
        grid.add_row(name, Text(visible(value)))
    parts: list[RenderableType] = [grid]
    if history := run.live.get("history"):
        parts += [Text(), _epochs(history)]
    if entries:
        parts += [Text(), Text("log", style="bold"), *(Text(line(entry)) for entry in entries)]
    return Group(*parts)


def line(entry: Entry) -> str:
    """A log entry with its time (UTC)."""
    return f"{entry.at:%Y-%m-%d %H:%M:%S}  {visible(words(entry.event))}"


def _facts(run: TrainingRun, dataset: str) -> list[tuple[str, str]]:
    live = run.live
    code = f" ({run.code})" if run.code else ""
    facts = [
        ("run", str(run.id)),
        ("makes", f"{run.name}@{run.version} from {dataset}, starting from {run.init or 'nothing'}"),
        ("state", f"{run.state}{code}" + (f", attempt {run.attempts}" if run.attempts > 1 else "")),
    ]
    if run.detail:
        facts.append(("why", run.detail))
    if live:
        facts.append(("progress", status(live, going=run.state == "running")))
    if "checkpoint" in live:
        facts.append(("checkpoint", f"step {live['checkpoint']}"))
    settings = {name: value for name, value in run.config.items() if value and name not in ("name", "version")}
    facts.append(("settings", ", ".join(f"{name} {_short(value)}" for name, value in sorted(settings.items()))))
    return facts


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_short(each)}" for name, each in sorted(value.items()) if each) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _epochs(history: Sequence[Mapping[str, Any]]) -> Table:
    figures = list(dict.fromkeys(name for epoch in history for name in epoch["metrics"]))
    losses = [epoch["loss"] for epoch in history if epoch.get("loss") is not None]
    title = f"epochs, loss {_spark(losses)}" if len(losses) > 1 else "epochs"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim")
    for column in ("epoch", "loss", *figures):
        table.add_column(column, justify="right")
    for epoch in history[-_EPOCHS:]:
        loss = epoch.get("loss")
        values = [f"{epoch['metrics'][name]:.4f}" if name in epoch["metrics"] else "–" for name in figures]
        table.add_row(str(epoch["epoch"] + 1), "–" if loss is None else f"{loss:.4f}", *values)
    return table


def _spark(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return "".join(_BARS[round((value - low) / (high - low) * 7)] if high > low else _BARS[0] for value in values)
