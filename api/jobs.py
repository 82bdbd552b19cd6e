"""Jobs: list, read, cancel, retry. Submitting is in `api.submit`, their rows in `api.items` and `api.results`."""

from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.errors import Fault, Problem
from api.routing import Answer, Call, Parameters, Routes
from api.schemas import JobOut, JobsPage, JobState, ProgressOut, RetryIn, RetryOut, StageOut
from api.small_body import checked, small_json
from db import jobs, retries
from db.codes import CODES
from db.progress import Progress, progress
from db.tables import Job

routes = Routes("jobs", "Submit pictures, follow the work, cancel it, try failures again.")


def links(url: str) -> dict[str, str]:
    """Where a job's parts are."""
    return {name: f"{url}/{name}" for name in ("items", "results", "events")}


def job_out(call: Call, job: Job, counts: Progress | None = None) -> JobOut:
    """A job as clients see it."""
    url = f"{call.settings.public_url}/v1/jobs/{job.id}"
    return JobOut.model_validate(
        {
            **{name: getattr(job, name) for name in _COPIED},
            "policy": f"{job.policy['name']}@{job.policy['version']}",
            "url": url,
            "links": links(url),
            "progress": None if counts is None else _progress_out(counts),
        }
    )


_COPIED = (
    "id", "name", "state", "lane", "analyses", "total", "models", "context", "created_at", "started_at", "cancelled_at",
    "settled_at",
)  # fmt: skip


def _progress_out(counts: Progress) -> ProgressOut:
    return ProgressOut(
        ingest=StageOut(**vars(counts.ingest)),
        infer=StageOut(**vars(counts.infer)),
        outcomes=counts.outcomes,
        codes=counts.codes,
        settled=counts.settled,
        rate=counts.rate,
        eta_s=counts.eta_s,
        reused=counts.reused,
    )


class JobsQuery(Parameters):
    """Which jobs."""

    state: JobState | None = Field(default=None, description="Only jobs in this state.")
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Jobs of a page.")


@routes.route(
    "GET",
    "/v1/jobs",
    scope="jobs:read",
    summary="List jobs",
    query=JobsQuery,
    answers={200: Answer("A page, newest first.", JobsPage)},
    errors=("invalid_cursor",),
)
def index(call: Call, query: JobsQuery) -> Response:
    """The account's jobs without their counts."""
    after = paging.job_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = jobs.page(session, call.account_id, state=query.state, after=after, limit=query.limit + 1)
    shown = found[: query.limit]
    more = paging.after_job(shown[-1].id) if len(found) > len(shown) else None
    return json_answer(JobsPage(jobs=[job_out(call, job) for job in shown], next=more))


@routes.route(
    "GET",
    "/v1/jobs/<uuid:job_id>",
    scope="jobs:read",
    summary="Read a job",
    answers={200: Answer("The job with its counts.", JobOut)},
    errors=("not_found",),
)
def read(call: Call, job_id: UUID) -> Response:
    """State, counts per stage and per error code, rate and estimated time to go."""
    with call.transaction() as session:
        job = jobs.get(session, call.account_id, job_id)
        return json_answer(job_out(call, job, progress(session, job_id)))


@routes.route(
    "POST",
    "/v1/jobs/<uuid:job_id>/cancel",
    scope="jobs:write",
    summary="Cancel a job",
    answers={200: Answer("The job, cancelled.", JobOut)},
    errors=("not_found", "conflict"),
)
def cancel(call: Call, job_id: UUID) -> Response:
    """Nothing new is begun; items never reached get the outcome `cancelled`. Cancelling twice changes nothing; a
    finished job is a conflict."""
    with call.transaction() as session:
        job = jobs.cancel(session, call.account_id, job_id, actor=call.actor)
        return json_answer(job_out(call, job, progress(session, job_id)))


class RetryQuery(Parameters):
    """Which failures."""

    only: str | None = Field(default=None, max_length=2000, description="Codes with commas; absent: all that failed.")


@routes.route(
    "POST",
    "/v1/jobs/<uuid:job_id>/retry",
    scope="jobs:write",
    summary="Try failures again",
    query=RetryQuery,
    body={"application/json": RetryIn},
    answers={202: Answer("How many items were put back.", RetryOut)},
    errors=("not_found", "conflict", "invalid_body", "invalid_json", "body_too_large", "unsupported_media_type"),
)
def retry(call: Call, job_id: UUID, query: RetryQuery) -> Response:
    """Puts failed items of a settled job back to work, those with the codes of `only` (in the query or in a JSON
    body), or all. Items that are done stay as they are."""
    codes = _codes(call, query)
    with call.transaction() as session:
        put_back = retries.retry(
            session, call.account_id, job_id, codes, chunk_size=call.settings.chunk_size, actor=call.actor
        )
        job = jobs.get(session, call.account_id, job_id)
        answer = RetryOut(requeued=put_back, job=job_out(call, job, progress(session, job_id)))
    return json_answer(answer, 202)


def _codes(call: Call, query: RetryQuery) -> list[str] | None:
    body, _ = small_json(call)
    if body is not None and query.only is not None:
        raise Problem("invalid_parameter", "Give `only` in the query or in the body, not in both.")
    in_query = None if query.only is None else query.only.split(",")
    given = in_query if body is None else checked(RetryIn, body).only
    unknown = [code for code in given or () if code not in CODES]
    if unknown:
        problem = "invalid_parameter" if body is None else "invalid_body"
        raise Problem(problem, "There is no such code.", [Fault("invalid_value", "Unknown code.", field="only")])
    return given
