"""Jobs: the list, one job with its live progress, cancel and retry. Its pictures are in `api.console.gallery`."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.console.pages import Form, Nav, PageCall, Pages
from api.console.rendering import fragment, redirect, render
from api.errors import Problem
from api.routing import Parameters
from api.schemas import JobState
from db import items, job_figures, jobs, retries
from db.codes import CODES
from db.progress import Progress, progress
from db.tables import Job

pages = Pages("jobs", Nav("Jobs", "/console/jobs", icon="jobs", role="viewer", order=10))
PAGE = 25
PREVIEW = 12


class JobsQuery(Parameters):
    """Which jobs."""

    state: JobState | None = None
    cursor: str | None = Field(default=None, max_length=100)


@dataclass(frozen=True)
class JobLine:
    """A job in the list, with its counts."""

    job: Job
    counts: Progress


@pages.page("GET", "/console/jobs", role="viewer", title="Jobs", query=JobsQuery)
def index(call: PageCall, query: JobsQuery) -> Response:
    """The account's jobs, newest first."""
    after = paging.job_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = jobs.page(session, call.account_id, state=query.state, after=after, limit=PAGE + 1)
        lines = [JobLine(job, progress(session, job.id)) for job in found[:PAGE]]
    more = None
    if len(found) > PAGE:
        state = {"state": query.state} if query.state else {}
        more = "/console/jobs?" + urlencode({**state, "cursor": paging.after_job(lines[-1].job.id)})
    return render(call, "jobs.html", lines=lines, state=query.state, more=more, first=query.cursor is not None)


@pages.page("GET", "/console/jobs/<uuid:job_id>", role="viewer", title="Job")
def show(call: PageCall, job_id: UUID) -> Response:
    """How far it is, what came of it, what failed and where."""
    with call.transaction() as session:
        job = jobs.get(session, call.account_id, job_id)
        counts = progress(session, job_id)
        figures = job_figures.figures(session, call.account_id, job)
        preview = items.page(session, call.account_id, job, outcome="done", limit=PREVIEW)
    return render(
        call,
        "job.html",
        title=job.name or f"Job {str(job.id)[:8]}",
        job=job,
        counts=counts,
        figures=figures,
        preview=preview,
        codes=CODES,
        most=job_figures.MOST,
    )


@pages.page("GET", "/console/jobs/<uuid:job_id>/progress", role="viewer")
def live(call: PageCall, job_id: UUID) -> Response:
    """The part of the page that changes while it is looked at."""
    with call.transaction() as session:
        job = jobs.get(session, call.account_id, job_id)
        counts = progress(session, job_id)
    return fragment(call, "job_progress.html", job=job, counts=counts)


@pages.page("POST", "/console/jobs/<uuid:job_id>/cancel", role="reviewer")
def cancel(call: PageCall, job_id: UUID) -> Response:
    """Nothing new is begun."""
    with call.transaction() as session:
        jobs.cancel(session, call.account_id, job_id, actor=call.actor)
    return redirect(call, f"/console/jobs/{job_id}", "The job is cancelled. What is in work now still ends.")


class RetryForm(Form):
    """Which failures: all, those that may pass, or those of one code."""

    only: str = Field(default="all", max_length=50)


@pages.page("POST", "/console/jobs/<uuid:job_id>/retry", role="reviewer")
def retry(call: PageCall, job_id: UUID) -> Response:
    """Failed items go back to work; what is done stays."""
    only = call.checked(RetryForm).only
    if only not in ("all", "retryable") and only not in CODES:
        raise Problem("invalid_form", "There is no such code.")
    passing = [code for code, entry in CODES.items() if entry.retryable]
    codes = None if only == "all" else passing if only == "retryable" else [only]
    with call.transaction() as session:
        put_back = retries.retry(
            session, call.account_id, job_id, codes, chunk_size=call.settings.chunk_size, actor=call.actor
        )
    kind: Literal["good", "note"] = "good" if put_back else "note"
    said = f"{put_back} {'picture goes' if put_back == 1 else 'pictures go'} back to work." if put_back else (
        "Nothing failed that way."
    )  # fmt: skip
    return redirect(call, f"/console/jobs/{job_id}", said, kind)
