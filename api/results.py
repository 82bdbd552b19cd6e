"""All results of a job as one stream: JSON, NDJSON, CSV or Parquet of the same rows. No transaction spans batches."""

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal
from uuid import UUID

from flask import Response, request
from pydantic import Field

from api import exports
from api.errors import Problem
from api.items import routes
from api.routing import Answer, Call, Parameters
from api.schemas import ResultRow
from db import items, jobs
from db.items import ItemView
from db.tables import Job

Format = Literal["json", "ndjson", "csv", "parquet"]
Batches = Iterator[list[dict[str, Any]]]

TYPES: Final[dict[str, str]] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",
    "parquet": "application/vnd.apache.parquet",
}
_WRITERS: Final[dict[str, Callable[[Job, Batches], Iterator[bytes]]]] = {
    "json": exports.json_stream,
    "ndjson": exports.ndjson_stream,
    "csv": exports.csv_stream,
    "parquet": exports.parquet_stream,
}
_ROWS: Final = {"type": "array", "items": {"$ref": f"#/components/schemas/{ResultRow.__name__}"}}


class ResultsQuery(Parameters):
    """In which form."""

    format: Format | None = Field(default=None, description="Wins over the Accept header. Default `json`.")


@routes.route(
    "GET",
    "/v1/jobs/<uuid:job_id>/results",
    scope="jobs:read",
    summary="Export a job's results",
    query=ResultsQuery,
    answers={
        200: Answer(
            "Every item that has its outcome, in the order of the submission.",
            content={
                "application/json": {
                    "type": "object",
                    "required": ["job_id", "state", "total", "results"],
                    "properties": {
                        "job_id": {"type": "string", "format": "uuid"},
                        "state": {"type": "string"},
                        "total": {"type": "integer"},
                        "results": _ROWS,
                    },
                },
                "application/x-ndjson": {"type": "string"},
                "text/csv": {"type": "string"},
                "application/vnd.apache.parquet": {"type": "string"},
            },
            headers={"Tagmill-Job-State": "The job's state when the export began.", "Content-Disposition": "A name."},
        )
    },
    errors=("not_acceptable", "not_found", "too_many_streams", "too_many_streams_of_account"),
)
def read(call: Call, job_id: UUID, query: ResultsQuery) -> Response:
    """One row an item, the same in every form. In CSV and Parquet, `tags`, `labels`,
    `moderation` and `facts` are JSON text.
    CSV cells that a spreadsheet would take for a formula begin with an apostrophe. While a job is running, the export
    holds what is settled as it goes by."""
    form = query.format or _accepted()
    with call.transaction() as session:
        job = jobs.get(session, call.account_id, job_id)
        # The first batch before the status line: an outage now is still a 503.
        first = items.settled_batch(session, call.account_id, job, size=call.settings.export_batch)
    headers = {
        "Content-Disposition": f'attachment; filename="{job.id}.{form}"',
        "Tagmill-Job-State": job.state,
        "Tagmill-Job-Total": str(job.total),
    }
    if request.method == "HEAD":
        return Response(content_type=TYPES[form], headers=headers)  # it is never closed, and would keep its seat
    seat = call.house.seats.take(call.account_id)
    stream = _WRITERS[form](job, _rows(call, job, first))
    response = Response(seat.during(stream), content_type=TYPES[form], headers=headers)
    response.call_on_close(seat.leave)  # a generator that was never started has no end
    return response


def _rows(call: Call, job: Job, batch: list[ItemView]) -> Batches:
    while batch:
        yield [item.row() for item in batch]
        if len(batch) < call.settings.export_batch:
            return
        with call.transaction() as session:
            batch = items.settled_batch(
                session, call.account_id, job, after_seq=batch[-1].seq, size=call.settings.export_batch
            )


def _accepted() -> str:
    if not request.accept_mimetypes:
        return "json"
    offered = {kind.partition(";")[0]: form for form, kind in TYPES.items()}
    best = request.accept_mimetypes.best_match(list(offered))
    if best is None:
        raise Problem("not_acceptable", f"There is {', '.join(offered)}.")
    return offered[best]
