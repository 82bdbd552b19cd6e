"""A job's pictures, and one picture with everything that is known of it."""

from typing import Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.console.jobs import pages
from api.console.pages import PageCall
from api.console.rendering import render
from api.errors import Problem
from api.routing import Parameters
from api.schemas import Verdict
from db import decision_history, items, job_figures, jobs, people, veils
from db import labels as said
from db.codes import CODES

PAGE = 48


class GalleryQuery(Parameters):
    """Which of the job's pictures."""

    outcome: Literal["done", "failed", "cancelled", "open"] | None = None
    verdict: Verdict | None = None
    code: str | None = Field(default=None, max_length=50)
    tag: str | None = Field(default=None, max_length=200)
    cursor: str | None = Field(default=None, max_length=100)


@pages.page("GET", "/console/jobs/<uuid:job_id>/pictures", role="viewer", title="Pictures", query=GalleryQuery)
def gallery(call: PageCall, job_id: UUID, query: GalleryQuery) -> Response:
    """Pictures with their tags and verdicts."""
    if query.code is not None and query.code not in CODES:
        raise Problem("invalid_parameter", "There is no such code.")
    after = paging.seq_of(query.cursor, job_id) if query.cursor is not None else -1
    with call.transaction() as session:
        job = jobs.get(session, call.account_id, job_id)
        found = items.page(
            session,
            call.account_id,
            job,
            outcome=query.outcome,
            code=query.code,
            verdict=query.verdict,
            label=query.tag,
            after_seq=after,
            limit=PAGE + 1,
        )
        labels = job_figures.labels(session, call.account_id, job)
    chosen = query.model_dump(exclude_none=True, exclude={"cursor"})
    here = f"/console/jobs/{job_id}/pictures"
    more = None
    if len(found) > PAGE:
        more = f"{here}?{urlencode({**chosen, 'cursor': paging.after_item(job_id, found[PAGE - 1].seq)})}"
    return render(
        call,
        "gallery.html",
        title=f"Pictures of {job.name or str(job.id)[:8]}",
        job=job,
        shown=found[:PAGE],
        query=query,
        labels=labels,
        codes=sorted(CODES),
        more=more,
        first=f"{here}?{urlencode(chosen)}" if query.cursor else None,
    )


@pages.page("GET", "/console/items/<item_id>", role="viewer", title="Picture")
def item(call: PageCall, item_id: str) -> Response:
    """Facts, scores, tags, what people said, the verdict and why, and every decision before it."""
    with call.transaction() as session:
        found = items.get(session, call.account_id, item_id)
        job = jobs.get(session, call.account_id, found.job_id)
        sha256 = bytes.fromhex(found.facts["sha256"]) if found.facts else None
        decisions: list[Any] = []
        history: list[Any] = []
        if sha256 is not None:
            decisions = decision_history.of_item(session, call.account_id, found.job_id, found.seq, sha256, job.context)
            history = said.history(session, call.account_id, sha256)
        names = people.names(session, call.account_id)
        veiled = not veils.clear_for_people(session, call.account_id, found)
    moderation = found.moderation or {}
    return render(
        call,
        "item.html",
        title=found.client_id or found.filename or f"Picture {found.seq + 1}",
        item=found,
        veiled=veiled,
        job=job,
        moderation=moderation,
        scores=dict(sorted((moderation.get("scores") or {}).items(), key=lambda each: -each[1])),
        decisions=decisions,
        history=history,
        names=names,
        code=CODES.get(found.code or ""),
        score_text="{:.3f}".format,
    )
