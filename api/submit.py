"""POST /v1/jobs: five content types, one transaction. The body is complete and on disk before that begins."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from flask import Request, Response, request
from pydantic import Field, ValidationError

from api import uploads
from api.answers import json_answer
from api.bodies import Row, csv_rows, ndjson_rows
from api.errors import Fault, Problem, faults_of
from api.intake import Intake, OnInvalid
from api.jobs import links, routes
from api.json_body import JsonJob
from api.routing import Answer, Call, Parameters
from api.schemas import JobAccepted, JobIn, JobOptions, Lane, Refetch, SkippedOut
from api.small_body import IDEMPOTENCY_HEADER, idempotency_key, replayed
from api.spool import spooled
from db import idempotency, jobs, limits, policy_assignments
from db.jobs import JobSpec, NewItem

_TEXT: Final = {"type": "string"}
_BINARY: Final = {"type": "string", "contentMediaType": "application/octet-stream"}
_FORM: Final = {
    "type": "object",
    "properties": {
        "files": {"type": "array", "items": _BINARY, "description": "Any part with a file name is a picture."},
        "options": {"$ref": "#/components/schemas/JobOptions"},
    },
    "required": ["files"],
}


class SubmitQuery(Parameters):
    """Job options of bodies that have no room for them (NDJSON, CSV, ZIP, multipart without `options`)."""

    analyses: str | None = Field(default=None, description="`tags`, `moderation` or both, with a comma. Default both.")
    lane: Lane | None = Field(default=None, description="Interactive jobs go first. Default `bulk`.")
    name: str | None = Field(default=None, description="A name for people.")
    context: str | None = Field(default=None, description="Where the pictures are to be shown: avatar, listing, …")
    policy: str | None = Field(default=None, description="The policy that decides. Default the one assigned.")
    refetch: Refetch | None = Field(
        default=None, description="`always`: fetch and decode anew what is known. Default `if_changed`."
    )
    facts: str | None = Field(
        default=None, description="`pdq`, `colours`, `sharpness`, with commas, or `none`. Default all."
    )
    on_invalid: OnInvalid = Field(
        default="refuse",
        description="`refuse`: one bad line or item refuses the whole job, with the first 100 of them;"
        " `skip`: the others are accepted, and the answer says what was left out. Files and ZIPs are always whole.",
    )

    def options(self) -> dict[str, Any]:
        """The job options that were given."""
        given = self.model_dump(include={"lane", "name", "context", "policy", "refetch"}, exclude_none=True)
        if self.analyses is not None:
            given["analyses"] = self.analyses.split(",")
        if self.facts is not None:
            given["facts"] = [] if self.facts == "none" else self.facts.split(",")
        return given


@dataclass(frozen=True)
class Batch:
    """A job as it was sent, ready to be stored. `fingerprint` is of everything that makes the request what it is."""

    spec: JobSpec
    items: Iterable[NewItem]
    fingerprint: bytes
    skipped: Callable[[], SkippedOut | None] = lambda: None
    deliver: Callable[[], None] | None = None
    files: int = 0

    def request_hash(self) -> bytes:
        """What a repeated request with the same Idempotency-Key must have in common with the first."""
        query = repr(sorted(request.args.items())).encode()
        return hashlib.sha256(b"\0".join((request.mimetype.encode(), query, self.fingerprint))).digest()


def _spec(options: dict[str, Any], source: Literal["body", "query"]) -> JobSpec:
    try:
        asked = JobOptions.model_validate(options)
    except ValidationError as error:
        code = "invalid_body" if source == "body" else "invalid_parameter"
        raise Problem(code, "See `errors`.", faults_of(error)) from error
    analyses = tuple(dict.fromkeys(asked.analyses))
    pinned: dict[str, Any] = {} if asked.facts is None else {"facts": sorted(set(asked.facts))}
    if asked.refetch == "always":
        pinned["refetch"] = asked.refetch
    return JobSpec(analyses, asked.lane, asked.name, pinned, context=asked.context, policy=asked.policy)


def _no_options(query: SubmitQuery, where: str) -> None:
    if query.options():
        faults = [Fault("unknown_field", f"It belongs into {where}.", field=name) for name in query.options()]
        raise Problem("invalid_parameter", "Give the job's options in one place.", faults)


@contextmanager
def _json(call: Call, sent: Request, query: SubmitQuery) -> Iterator[Batch]:
    _no_options(query, "the body")
    settings = call.settings
    with spooled(call.house.blobs, sent, settings, settings.max_json_bytes) as body:
        job = JsonJob(body.file, settings.max_item_bytes)
        spec = _spec(job.options(), "body")
        intake = Intake(job.items, "item", query.on_invalid, settings.max_items_per_job)
        yield Batch(spec, intake.items(), body.sha256, intake.skipped)


@contextmanager
def _lines(call: Call, sent: Request, query: SubmitQuery, rows: Callable[..., Iterator[Row]]) -> Iterator[Batch]:
    settings = call.settings
    spec = _spec(query.options(), "query")
    with spooled(call.house.blobs, sent, settings, settings.max_lines_bytes) as body:
        intake = Intake(
            lambda: rows(body.file, settings.max_item_bytes), "line", query.on_invalid, settings.max_items_per_job
        )
        yield Batch(spec, intake.items(), body.sha256, intake.skipped)


def _ndjson(call: Call, sent: Request, query: SubmitQuery) -> Any:
    return _lines(call, sent, query, ndjson_rows)


def _csv(call: Call, sent: Request, query: SubmitQuery) -> Any:
    return _lines(call, sent, query, csv_rows)


@contextmanager
def _multipart(call: Call, sent: Request, query: SubmitQuery) -> Iterator[Batch]:
    spec = _spec(query.options(), "query")
    with uploads.Parcel(call) as parcel:
        form = uploads.Multipart(call, sent, parcel)
        form.read()
        if form.options is not None:
            _no_options(query, "the part `options`")
            spec = _spec(form.options, "body")
        yield Batch(spec, form.items, form.fingerprint, deliver=parcel.deliver, files=len(form.items))


@contextmanager
def _zip(call: Call, sent: Request, query: SubmitQuery) -> Iterator[Batch]:
    spec = _spec(query.options(), "query")
    limit = call.settings.max_zip_bytes
    with spooled(call.house.blobs, sent, call.settings, limit) as body, uploads.Parcel(call) as parcel:
        items = uploads.from_zip(call, body.file, parcel)
        yield Batch(spec, items, body.sha256, deliver=parcel.deliver, files=len(items))


_READERS: Final = {
    "application/json": _json,
    "application/x-ndjson": _ndjson,
    "text/csv": _csv,
    "multipart/form-data": _multipart,
    "application/zip": _zip,
}


@routes.route(
    "POST",
    "/v1/jobs",
    scope="jobs:write",
    summary="Submit a job",
    query=SubmitQuery,
    headers=IDEMPOTENCY_HEADER,
    body={
        "application/json": JobIn,
        "application/x-ndjson": _TEXT,
        "text/csv": _TEXT,
        "multipart/form-data": _FORM,
        "application/zip": _BINARY,
    },
    answers={
        202: Answer(
            "Accepted: the job is stored, its pictures are not yet looked at.",
            JobAccepted,
            headers={"Location": "The job.", "Idempotent-Replayed": "`true` when an earlier answer is repeated."},
        )
    },
    errors=(
        "bad_request", "body_incomplete", "body_timeout", "body_too_large", "empty_job", "file_too_large",
        "idempotency_in_flight", "idempotency_key_reused", "invalid_body", "invalid_csv", "invalid_idempotency_key",
        "invalid_items", "invalid_json", "invalid_multipart", "invalid_utf8", "quota_exceeded", "too_many_files",
        "too_many_items", "unknown_policy", "unsupported_encoding", "unsupported_media_type", "zip_bomb", "zip_corrupt",
        "zip_duplicate_name", "zip_encrypted", "zip_lying_size", "zip_method", "zip_nested", "zip_path",
        "zip_symlink", "zip_too_large", "zip_too_many_members",
    ),
)  # fmt: skip
def create(call: Call, query: SubmitQuery) -> Response:
    """Pictures by URL, one item each, or as files.

    - `application/json`: the object below, `items` of any allowed length.
    - `application/x-ndjson`: one item object a line; job options as query parameters.
    - `text/csv`: a header naming the columns `url`, `id`, `product_id`, `category` (the first is needed), then a row an
      item.
    - `multipart/form-data`: every part with a file name is a picture; a part `options` may hold job options as JSON.
    - `application/zip`: every member is a picture.

    With an `Idempotency-Key`, the same request again gives the same answer and no second job; another request with
    the same key is refused.
    """
    key = idempotency_key(request)
    reader = _READERS.get(request.mimetype)
    if reader is None:
        raise Problem("unsupported_media_type", f"Send one of {', '.join(_READERS)}.")
    with reader(call, request, query) as batch:
        if batch.deliver is not None:
            # A repeated or refused request stores nothing.
            if (answer := _answered(call, batch, key)) is not None:
                return answer
            batch.deliver()
        return _record(call, batch, key)


def _answered(call: Call, batch: Batch, key: str | None) -> Response | None:
    """The stored answer of an earlier request with this key. A new one that will be refused is so already now, before
    its bytes are kept: QuotaExceeded, UnknownPolicy."""
    with call.transaction() as session:
        stored = None if key is None else idempotency.begin(session, call.account_id, key)
        if stored is None:
            limits.check(session, call.account_id, call.settings.items_per_day, batch.files)
            policy_assignments.pinned(session, call.account_id, batch.spec.context, batch.spec.policy)
    return None if stored is None else replayed(stored, batch.request_hash())


def _record(call: Call, batch: Batch, key: str | None) -> Response:
    """The one transaction: the job and its stored answer, or neither."""
    fingerprint = batch.request_hash()
    with call.transaction() as session:
        if key is not None:
            stored = idempotency.begin(session, call.account_id, key)
            if stored is not None:
                return replayed(stored, fingerprint)
        job = jobs.submit(
            session,
            call.account_id,
            batch.spec,
            batch.items,
            max_items=call.settings.max_items_per_job,
            per_day=call.settings.items_per_day,
            chunk_size=call.settings.chunk_size,
        )
        url = f"{call.settings.public_url}/v1/jobs/{job.id}"
        accepted = JobAccepted(
            id=job.id, url=url, state="accepted", total=job.total, links=links(url), skipped=batch.skipped()
        )
        answer = accepted.model_dump(mode="json")
        if key is not None:
            idempotency.store(session, call.account_id, key, fingerprint, 202, answer, url)
    return json_answer(answer, 202, {"Location": url}, sort=True)
