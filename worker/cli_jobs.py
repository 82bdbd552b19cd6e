"""Commands of a client: submit pictures, wait, look, fetch results, cancel, retry; all of them over the HTTP API."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from worker.client import Client

CLIENT = "Use"
Job = Annotated[str, typer.Argument(help="The job's id.", show_default=False)]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write the results there: .jsonl, .csv, .parquet, .json")]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (submit, wait, status, results, cancel, retry):
        app.command(rich_help_panel=CLIENT)(command)


def _client() -> "Client":
    from worker.home import Home
    from worker.local import client

    return client(Home.default())


def _check_out(out: Path | None) -> None:
    """Refuse a bad --out before work is done, not after."""
    from worker.client import ClientError, form_of

    if out is None:
        return
    form_of(out)
    if not out.absolute().parent.is_dir():
        raise ClientError("no_such_folder", f"{out.parent}: no such folder")


def submit(
    source: Annotated[
        str, typer.Argument(help="A .txt, .csv or .jsonl of URLs, a folder of pictures, or - for stdin.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the job is done.")] = False,
    out: Out = None,
    analyses: Annotated[str, typer.Option(help="What to do, comma-separated.")] = "tags,moderation",
    lane: Annotated[str, typer.Option(help="bulk, or interactive (goes first).")] = "bulk",
    name: Annotated[str | None, typer.Option(help="A name for the job; without it, the file's.")] = None,
    context: Annotated[str, typer.Option(help="Where the pictures are to be shown: avatar, listing, …")] = "",
    policy: Annotated[str | None, typer.Option(help="The policy that decides; without it, the assigned one.")] = None,
    refetch: Annotated[
        str, typer.Option(help="if_changed, or always: fetch and decode anew what is known.")
    ] = "if_changed",
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out wrong lines instead of refusing all.")
    ] = False,
) -> None:
    """Submit pictures as a job. Prints the job's id; with --wait or --out, waits and saves the results.

    A big folder is sent as several jobs. If this command is interrupted while it waits, the job goes on:
    `tagmill wait JOB` shows it again.
    """
    from uuid import uuid4

    from worker import job_files
    from worker.screen import counted, visible

    def say(text: str) -> None:
        typer.echo(visible(text), err=True)

    _check_out(out)
    uploads = job_files.uploads(source, sys.stdin.buffer, skip=skip_invalid, say=say)
    jobs = []
    with _client() as client:
        for upload in uploads:
            params = {"analyses": analyses, "lane": lane, "name": name or upload.label}
            params |= {key: value for key, value in (("context", context), ("policy", policy)) if value}
            if refetch != "if_changed":
                params["refetch"] = refetch
            if skip_invalid:
                params["on_invalid"] = "skip"
            accepted = client.submit(
                upload.body,
                upload.content_type,
                params=params,
                idempotency_key=str(uuid4()),
                attempts=5 if upload.again else 1,
            )
            say(f"{counted(accepted['total'], 'picture')} accepted from {upload.label}")
            if skipped := upload.skipped() + (accepted.get("skipped") or {"count": 0})["count"]:
                say(f"{counted(skipped, 'wrong line')} left out")
            typer.echo(accepted["id"])
            jobs.append(str(accepted["id"]))
        if wait or out:
            _wait_and_save(client, jobs, out)


def wait(job: Job, out: Out = None) -> None:
    """Show a job's progress until it is done; then save its results, if asked to."""
    _check_out(out)
    with _client() as client:
        _wait_and_save(client, [job], out)


def _wait_and_save(client: "Client", jobs: list[str], out: Path | None) -> None:
    """Wait for each job; several jobs' results go to numbered files. Exit code 3 if a job was cancelled."""
    from functools import partial

    from worker import live
    from worker.patience import until_answered
    from worker.screen import console, plain

    screen = console(stderr=True)
    cancelled = False
    for number, job_id in enumerate(jobs, start=1):
        try:
            job = live.wait(client, job_id, screen)
        except KeyboardInterrupt:
            screen.print(f"The job goes on. Look again with: tagmill wait {plain(job_id)}", soft_wrap=True)
            raise
        screen.print(summary(job), soft_wrap=True)
        cancelled = cancelled or job["state"] == "cancelled"
        if out:
            target = out if len(jobs) == 1 else out.with_stem(f"{out.stem}-{number}")
            until_answered(partial(client.save_results, job_id, target))
            screen.print(f"results in {plain(target)}", soft_wrap=True)
    if cancelled:
        raise typer.Exit(3)


def summary(job: dict[str, Any]) -> str:
    """A job's end in one line of rich markup."""
    from worker.screen import plain

    outcomes = job["progress"]["outcomes"]
    parts = [f"[green]{outcomes.get('done', 0)} done[/]"]
    if failed := outcomes.get("failed", 0):
        codes = ", ".join(f"{code} {count}" for code, count in sorted(job["progress"]["codes"].items()))
        parts.append(f"[red]{failed} failed[/] ({plain(codes)})")
    if cancelled := outcomes.get("cancelled", 0):
        parts.append(f"[yellow]{cancelled} cancelled[/]")
    if known := reused(job["progress"]):
        parts.append(known)
    return f"job {plain(job['id'])} {plain(job['state'])}: " + ", ".join(parts)


def reused(progress: dict[str, Any]) -> str:
    """What was known before spared of a job's work, in words; empty if nothing."""
    counts = progress.get("reused", {})  # an older server says nothing of it
    words = {"not_modified": "fetched", "known_bytes": "decoded", "known_scores": "scored"}
    return ", ".join(f"{counts[kind]} not {word} again" for kind, word in words.items() if counts.get(kind))


def status(
    job: Annotated[str | None, typer.Argument(help="The job's id; without it, the newest jobs.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many jobs to list.")] = 20,
) -> None:
    """Show one job's counts, or list the newest jobs."""
    from worker.screen import console

    with _client() as client:
        console().print(_one(client.job(job)) if job else _many(client.jobs(limit)))


def _one(job: dict[str, Any]) -> Any:
    from rich.table import Table

    from worker.live import span
    from worker.screen import plain

    progress = job["progress"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_row("job", plain(f"{job['id']}  {job['name'] or ''}"))
    table.add_row("state", plain(job["state"]))
    table.add_row("pictures", str(job["total"]))
    for stage in ("ingest", "infer"):
        counts = progress[stage]
        table.add_row(stage, f"{counts['done']} done, {counts['failed']} failed, {counts['open']} open")
    table.add_row(
        "outcomes", plain(", ".join(f"{count} {name}" for name, count in progress["outcomes"].items())) or "none yet"
    )
    if known := reused(progress):
        table.add_row("reused", known)
    for code, count in sorted(progress["codes"].items()):
        table.add_row("", f"[red]{count} × {plain(code)}[/]")
    if progress["rate"]:
        eta = f", {span(progress['eta_s'])} to go" if progress["eta_s"] is not None else ""
        table.add_row("rate", f"{progress['rate']:.1f} images/s{eta}")
    table.add_row("models", plain(", ".join(f"{task}: {ref or 'none'}" for task, ref in job["models"].items())))
    return table


def _many(jobs: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    from worker.screen import plain

    table = Table(box=None, header_style="bold")
    # Ids are there to be copied: whatever the width, they stay whole.
    table.add_column("job", no_wrap=True, min_width=36)
    for column in ("name", "state", "pictures", "created"):
        table.add_column(column)
    for job in jobs:
        created = str(job["created_at"])[:19].replace("T", " ")
        table.add_row(
            plain(job["id"]), plain(job["name"] or ""), plain(job["state"]), str(job["total"]), plain(created)
        )
    return table if jobs else "No jobs yet. Submit some: tagmill submit urls.txt --wait"


def results(
    job: Job,
    out: Out = None,
    form: Annotated[str, typer.Option("--format", help="Format on stdout: ndjson, csv, json.")] = "ndjson",
) -> None:
    """Save a job's results to a file, or print them."""
    _check_out(out)
    with _client() as client:
        if out:
            size = client.save_results(job, out)
            typer.echo(f"{out}: {size} bytes", err=True)
            return
        with client.results(job, form) as stream:
            for piece in stream:
                sys.stdout.buffer.write(piece)


def cancel(job: Job) -> None:
    """Cancel a job. What has its outcome keeps it."""
    with _client() as client:
        typer.echo(f"job {job} is {client.cancel(job)['state']}")


def retry(
    job: Job,
    only: Annotated[str, typer.Option(help="Only failures with these codes, comma-separated.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the job is done.")] = False,
    out: Out = None,
) -> None:
    """Try failed pictures again."""
    from worker.screen import counted

    _check_out(out)
    codes = [code.strip() for code in only.split(",") if code.strip()]
    with _client() as client:
        answer = client.retry(job, codes)
        typer.echo(f"{counted(answer['requeued'], 'picture')} put back", err=True)
        if not answer["requeued"] and (hint := cancelled_hint(answer["job"])):
            typer.echo(hint, err=True)
        if wait or out:
            _wait_and_save(client, [job], out)


def cancelled_hint(job: dict[str, Any]) -> str:
    """What brings back the pictures of a cancelled job, which are no failures; empty if there are none."""
    from worker.screen import counted

    cancelled = job["progress"]["outcomes"].get("cancelled", 0)
    hint = f"{counted(cancelled, 'picture')} cancelled; to put them back: tagmill retry {job['id']} --only cancelled"
    return hint if cancelled else ""
