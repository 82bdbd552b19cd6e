"""A job from the console: pasted URLs, or files. Checked and stored by the same code as POST /v1/jobs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from flask import Request, Response, request
from pydantic import Field, ValidationError
from werkzeug.sansio.multipart import Event, File
from werkzeug.sansio.multipart import Field as Part

from api import uploads
from api.bodies import Row
from api.console import gate
from api.console.jobs import pages
from api.console.pages import Form, PageCall
from api.console.rendering import redirect, render
from api.errors import Fault, Problem, faults_of
from api.intake import Intake
from api.routing import Parameters
from api.schemas import Analysis, Lane
from db import jobs, limits
from db.errors import DbError
from db.jobs import JobSpec
from db.limits import QuotaExceeded

MAX_PASTED: Final = 8 << 20
MAX_FIELD: Final = 1000
FILES: Final = "/console/jobs/files"


class Asked(Form):
    """What is asked of the pictures; `product`: whose they are, all of them."""

    name: str | None = Field(default=None, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    context: str = Field(default="", pattern=r"^[a-z0-9_.-]{0,64}$")
    analyses: list[Analysis] = Field(min_length=1, max_length=2)
    lane: Lane = "bulk"
    product: str | None = Field(default=None, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")

    def spec(self) -> JobSpec:
        """For `db.jobs.submit`."""
        return JobSpec(tuple(dict.fromkeys(self.analyses)), self.lane, self.name, context=self.context)


class UrlsForm(Asked):
    """The same, and a URL a line."""

    urls: str = Field(default="", max_length=MAX_PASTED)


@pages.page("GET", "/console/jobs/new", role="reviewer", title="New job")
def new(call: PageCall) -> Response:
    """Two ways to hand pictures in."""
    return _form(call)


def _form(call: PageCall, status: int = 200, problem: Problem | None = None, urls: str = "") -> Response:
    token = gate.csrf(call.token, FILES)
    faults = [] if problem is None else [fault.row() for fault in problem.faults]
    return render(
        call, "job_new.html", status, title="New job", faults=faults,
        problem=problem, urls=urls, upload=f"{FILES}?token={token}"
    )  # fmt: skip


@pages.page("POST", "/console/jobs/urls", role="reviewer", title="New job", max_form=MAX_PASTED)
def from_urls(call: PageCall) -> Response:
    """One URL a line; one bad line refuses all of them, and says which."""
    given = call.form.get("urls", "")
    try:
        asked = call.checked(UrlsForm)
        intake = Intake(lambda: _lines(asked.urls, asked.product), "line", "refuse", call.settings.max_items_per_job)
        with call.transaction() as session:
            job = jobs.submit(
                session,
                call.account_id,
                asked.spec(),
                intake.items(),
                max_items=call.settings.max_items_per_job,
                per_day=call.settings.items_per_day,
                chunk_size=call.settings.chunk_size,
            )
    except Problem as problem:
        return _form(call, problem.response().status_code, problem, given)
    except QuotaExceeded as error:
        return _form(call, 429, Problem(error.code, error.detail), given)
    except DbError as error:
        if error.code != "empty_job":
            raise
        return _form(call, 422, Problem("empty_job", "Give at least one URL."), given)
    return redirect(call, f"/console/jobs/{job.id}", f"{job.total} pictures are on their way.")


def _lines(text: str, product: str | None) -> Iterator[Row]:
    """Each line that is not blank is an item, all of one product if it is given; places are the lines' own."""
    of = {} if product is None else {"product_id": product}
    for place, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield place, {"url": line.strip(), **of}


class FilesQuery(Parameters):
    """The token that the upload's address carries, because its body is read only later."""

    token: str


@pages.page("POST", FILES, role="reviewer", title="New job", query=FilesQuery, upload=True)
def from_files(call: PageCall, query: FilesQuery) -> Response:
    """Files go to the blob store as they come; nothing is kept of an upload that is refused."""
    try:
        with uploads.Parcel(call) as parcel:
            form = FilesForm(call, request, parcel)
            form.read()
            asked = form.asked()
            with call.transaction() as session:
                # Before their bytes are kept.
                limits.check(session, call.account_id, call.settings.items_per_day, len(form.items))
            parcel.deliver()
            with call.transaction() as session:
                job = jobs.submit(
                    session,
                    call.account_id,
                    asked.spec(),
                    [replace(item, product_id=asked.product) for item in form.items],
                    max_items=call.settings.max_items_per_job,
                    per_day=call.settings.items_per_day,
                    chunk_size=call.settings.chunk_size,
                )
    except Problem as problem:
        if problem.code in ("body_timeout", "body_incomplete"):
            raise
        return _form(call, problem.response().status_code, problem)
    except QuotaExceeded as error:
        return _form(call, 429, Problem(error.code, error.detail))
    return redirect(call, f"/console/jobs/{job.id}", f"{job.total} pictures are on their way.")


class FilesForm(uploads.Multipart):
    """A browser's upload: files, and the form's other fields as parts of their own."""

    def __init__(self, call: PageCall, sent: Request, parcel: uploads.Parcel) -> None:
        super().__init__(call, sent, parcel)
        self._fields: dict[str, Any] = {}

    def asked(self) -> Asked:
        """What the fields ask; Problem `invalid_form`."""
        try:
            return Asked.model_validate(self._fields)
        except ValidationError as error:
            raise Problem("invalid_form", "Some fields are wrong.", faults_of(error)) from error

    def _options(self, part: Part | File, events: Iterator[Event]) -> None:
        value = b""
        for piece in uploads.part_data(events):
            value += piece
            if len(value) > MAX_FIELD:
                raise Problem("invalid_form", "See `errors`.", [Fault("too_long", "Too long.", field=part.name[:100])])
        text = value.decode(errors="replace")
        if part.name == "analyses":
            self._fields.setdefault("analyses", []).append(text)
        elif text:
            self._fields[part.name] = text
