"""A job's progress until it ends, as a bar in the terminal or as lines in a log.

It changes nothing and can be started again at any time.
"""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from worker.client import FINAL_STATES, Client, ClientError
from worker.patience import until_answered

POLL_S = 0.5
LINE_EVERY_S = 5.0


class _Rate(ProgressColumn):
    """Pictures per second and time to go, as the server counts them."""

    def render(self, task: Task) -> Text:
        rate, eta = task.fields.get("rate"), task.fields.get("eta_s")
        words = [f"{rate:.1f} images/s" if rate else "– images/s"]
        if eta is not None:
            words.append(f"{span(eta)} to go")
        return Text(" · ".join(words), style="cyan")


def span(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def wait(
    client: Client, job_id: str, console: Console, *, meanwhile: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Show the job's progress until every item has its outcome, and return the job.

    An API that is away, or that says so itself (502, 503, 504), is waited for up to ten minutes; then ApiProblem or
    Unreachable. ``meanwhile`` runs at every look.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("{task.fields[failures]}", style="red"),
    )
    lines = Lines(console, LINE_EVERY_S)
    # With no terminal behind it, a bar would only fill a log.
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting", total=None, failures="", rate=None, eta_s=None)

        def waiting(error: ClientError) -> None:
            bar.update(task, description="no answer, trying again")
            lines.say(f"{error} Trying again for up to ten minutes.")

        while True:
            meanwhile()
            job = until_answered(lambda: client.job(job_id), waiting=waiting, meanwhile=meanwhile)
            _show(bar, task, job)
            lines.show(job)
            if is_settled(job):
                return job
            time.sleep(POLL_S)


class Lines:
    """Progress where there is no terminal: a line at once and one every few seconds, none for a settled job."""

    def __init__(self, console: Console, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._every_s = every_s
        self._clock = clock
        self._next = clock()

    def show(self, job: dict[str, Any]) -> None:
        """Print how far the job is, if it is time for it."""
        if is_settled(job):
            return
        progress = job["progress"]
        words = [f"{job['state']}: {progress['settled']}/{job['total']} done"]
        words += [f"{progress['rate']:.1f} images/s"] if progress["rate"] else []
        words += [f"{span(progress['eta_s'])} to go"] if progress["eta_s"] is not None else []
        if failed := progress["outcomes"].get("failed", 0):
            words.append(f"{failed} failed")
        self.say(", ".join(words))

    def say(self, text: str) -> None:
        """Print a line, if it is time for one."""
        if self._console.is_terminal or self._clock() < self._next:
            return
        self._next = self._clock() + self._every_s
        self._console.print(text, soft_wrap=True, markup=False)


def is_settled(job: dict[str, Any]) -> bool:
    """True when every item has its outcome and the job knows it."""
    return job["state"] in FINAL_STATES and job["settled_at"] is not None


def _show(bar: Progress, task: Any, job: dict[str, Any]) -> None:
    progress = job["progress"]
    failed = progress["outcomes"].get("failed", 0)
    fetched = progress["ingest"]["done"] + progress["ingest"]["failed"]
    bar.update(
        task,
        total=job["total"],
        completed=progress["settled"],
        description=f"{job['state']}, {fetched} fetched",
        # The server's rate is of the last minute and none at the end: the last one known is the better close.
        **({"rate": progress["rate"]} if progress["rate"] else {}),
        eta_s=progress["eta_s"] if progress["settled"] < job["total"] else None,
        failures=f"{failed} failed" if failed else "",
    )
