"""A training in the terminal: a bar of its steps, and a line for whatever is worth one. Trains nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from worker.live import span
from worker.screen import console
from worker.train_progress import Progress as Known
from worker.train_progress import words

_SILENT = ("step", "checkpoint", "trained")


@contextmanager
def bar() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What hears the events: epoch, step of steps, loss, rate and time left, and above it what is worth a line."""
    screen = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn("{task.fields[now]}"),
    )
    known = Known()
    with Progress(*columns, console=screen, expand=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("preparing", total=None, now="")

        def heard(event: Mapping[str, Any]) -> None:
            known.hear(event)
            live = known.snapshot()
            if event["event"] in ("started", "step", "epoch") and live.get("steps_per_epoch"):
                steps, done = live["steps_per_epoch"], live["step"]
                progress.update(
                    task,
                    description=f"epoch {min(done // steps + 1, live['epochs'])}/{live['epochs']}",
                    total=live["epochs"] * steps,
                    completed=done,
                    now=_now(live),
                )
            if event["event"] not in _SILENT:
                screen.print(words(event), soft_wrap=True, markup=False)

        yield heard


def _now(live: Mapping[str, Any]) -> str:
    parts = [f"step {live['step']}/{live['epochs'] * live['steps_per_epoch']}"]
    if live.get("loss") is not None:
        parts.append(f"loss {live['loss']:.3f}")
    if live.get("rate"):
        parts.append(f"{live['rate']:.1f} images/s")
    if live.get("eta_s") is not None:
        parts.append(f"{span(live['eta_s'])} to go")
    return " · ".join(parts)
