"""A job's progress as server-sent events. Each stream holds a thread, so their number and length are bounded."""

import time
from collections.abc import Iterator
from uuid import UUID

from flask import Response, request

from api.answers import json_bytes
from api.jobs import job_out, routes
from api.routing import Answer, Call
from api.schemas import JobOut
from db import jobs
from db.errors import NotFound, Unavailable
from db.progress import progress


@routes.route(
    "GET",
    "/v1/jobs/<uuid:job_id>/events",
    scope="jobs:read",
    summary="Follow a job",
    answers={200: Answer("Server-sent events.", content={"text/event-stream": {"type": "string"}})},
    errors=("not_found", "too_many_streams", "too_many_streams_of_account"),
)
def follow(call: Call, job_id: UUID) -> Response:
    """`progress` with the same JSON as the job, whenever it changes; `finished` when every item has its outcome, then
    the stream ends. It also ends after some minutes: clients reconnect, as browsers do by themselves."""
    first = _look(call, job_id)
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return Response(headers=headers)  # a response to HEAD is never closed, and would keep its seat
    seat = call.house.seats.take(call.account_id)
    response = Response(seat.during(_stream(call, job_id, first)), headers=headers)
    response.call_on_close(seat.leave)  # a generator that was never started has no end
    return response


def _look(call: Call, job_id: UUID) -> JobOut:
    with call.transaction() as session:
        return job_out(call, jobs.get(session, call.account_id, job_id), progress(session, job_id))


def _stream(call: Call, job_id: UUID, job: JobOut) -> Iterator[bytes]:
    settings = call.settings
    until = time.monotonic() + settings.events_max_s
    spoke = time.monotonic()
    last = b""
    yield b"retry: 2000\n\n"
    while True:
        text = json_bytes(job)
        if text != last:
            yield b"event: progress\ndata: " + text + b"\n\n"
            last, spoke = text, time.monotonic()
        elif time.monotonic() - spoke >= settings.events_heartbeat_s:
            yield b": still here\n\n"
            spoke = time.monotonic()
        if job.settled_at is not None:
            yield b"event: finished\ndata: " + text + b"\n\n"
            return
        if time.monotonic() + settings.events_poll_s > until:
            return
        time.sleep(settings.events_poll_s)
        try:
            job = _look(call, job_id)
        except NotFound:
            return  # deleted meanwhile
        except Unavailable:
            continue  # the client keeps its stream through a short outage
