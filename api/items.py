"""Items with their outcomes: pages of a job, one item, its working copy. Whole exports are in `api.results`."""

from typing import Literal
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.errors import Fault, Problem
from api.routing import Answer, Call, Parameters, Routes
from api.schemas import ItemOut, ItemsPage
from db import items, jobs
from db.codes import CODES
from db.errors import BlobMissing, NotFound
from db.items import ItemView

routes = Routes("items", "What became of each picture.")

# Nobody's script may ever run from a picture, whatever a browser makes of its bytes.
PICTURE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=3600",
    "Content-Disposition": 'inline; filename="thumbnail.jpg"',
}


class ItemsQuery(Parameters):
    """Which items."""

    outcome: Literal["done", "failed", "cancelled", "open"] | None = Field(
        default=None, description="Only items with this outcome; `open`: those that have none yet."
    )
    code: str | None = Field(default=None, max_length=50, description="Only items that failed with this code.")
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Items of a page.")


@routes.route(
    "GET",
    "/v1/jobs/<uuid:job_id>/items",
    scope="jobs:read",
    summary="List a job's items",
    query=ItemsQuery,
    answers={200: Answer("A page, in the order of the submission.", ItemsPage)},
    errors=("not_found", "invalid_cursor"),
)
def index(call: Call, job_id: UUID, query: ItemsQuery) -> Response:
    """Result rows, those of open items too."""
    if query.code is not None and query.code not in CODES:
        fault = Fault("invalid_value", "There is no such code.", field="code")
        raise Problem("invalid_parameter", "See `errors`.", [fault])
    after = paging.seq_of(query.cursor, job_id) if query.cursor is not None else -1
    with call.transaction() as session:
        job = jobs.get(session, call.account_id, job_id)
        found = items.page(
            session,
            call.account_id,
            job,
            outcome=query.outcome,
            code=query.code,
            after_seq=after,
            limit=query.limit + 1,
        )
    shown = found[: query.limit]
    more = paging.after_item(job_id, shown[-1].seq) if len(found) > len(shown) else None
    return json_answer({"items": [item.row() for item in shown], "next": more})


@routes.route(
    "GET",
    "/v1/items/<item_id>",
    scope="jobs:read",
    summary="Read an item",
    answers={200: Answer("The item.", ItemOut)},
    errors=("not_found",),
)
def read(call: Call, item_id: str) -> Response:
    """Outcome, tags with the model version that gave them, moderation scores, content facts, the thumbnail's URL."""
    item = _item(call, item_id)
    url = f"{call.settings.public_url}/v1/items/{item.item_id}"
    links = {"job": f"{call.settings.public_url}/v1/jobs/{item.job_id}"}
    if item.work_key is not None:
        links["thumbnail"] = f"{url}/thumbnail"
    return json_answer({**item.row(), "job_id": item.job_id, "seq": item.seq, "detail": item.detail, "links": links})


@routes.route(
    "GET",
    "/v1/items/<item_id>/thumbnail",
    scope="jobs:read",
    summary="An item's working copy",
    answers={200: Answer("The picture, re-encoded by us.", content={"image/jpeg": {"type": "string"}})},
    errors=("not_found",),
)
def thumbnail(call: Call, item_id: str) -> Response:
    """A JPEG of bounded size without metadata. The bytes that were fetched or uploaded are never served."""
    item = _item(call, item_id)
    if item.work_key is None:
        raise NotFound("The item has no working copy.")
    try:
        picture = call.house.blobs.get(item.work_key)
    except BlobMissing:
        raise NotFound("The working copy is gone.") from None
    return Response(picture, content_type="image/jpeg", headers=PICTURE_HEADERS)


def _item(call: Call, item_id: str) -> ItemView:
    with call.transaction() as session:
        return items.get(session, call.account_id, item_id)
