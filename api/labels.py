"""What people say is in the pictures: of one item, or of many at once. What may be said is `db.labels`' business."""

from collections.abc import Iterator
from typing import Any, Final

from flask import Response, request
from pydantic import ValidationError

from api.answers import json_answer
from api.bodies import Row, ndjson_rows
from api.errors import MAX_FAULTS, Fault, Problem, faults_of
from api.label_schemas import ItemLabelsIn, ItemLabelsOut, LabelledOut, LabelsIn, ManyLabelsIn
from api.routing import Answer, Call, Routes
from api.small_body import checked, decoded, small_json
from api.spool import spooled
from db import erasure_fence, labels
from db.errors import Conflict, NotFound
from db.ids import item_id as public_id
from db.labels import BadLabels, Group, Subject
from db.session import Session

MAX_BODY: Final = 1024 * 1024
BATCH: Final = 200  # rows of a transaction

Vocabularies = dict[str | None, dict[str, Group]]

routes = Routes("labels", "What people say is in the pictures. It outranks the models and survives every rerun.")


@routes.route(
    "GET",
    "/v1/items/<item_id>/labels",
    scope="jobs:read",
    summary="Read an item's labels",
    answers={200: Answer("What counts, and what was said before.", ItemLabelsOut)},
    errors=("not_found", "conflict"),
)
def read(call: Call, item_id: str) -> Response:
    """Labels belong to the bytes: what was said of the same picture elsewhere is here too."""
    with call.transaction() as session:
        return _answer(session, labels.subject(session, call.account_id, item_id))


@routes.route(
    "PUT",
    "/v1/items/<item_id>/labels",
    scope="labels:write",
    summary="Label an item",
    body={"application/json": LabelsIn},
    answers={200: Answer("What counts now, and what was said before.", ItemLabelsOut)},
    errors=(
        "not_found", "conflict", "invalid_labels", "invalid_body", "invalid_json", "body_too_large",
        "unsupported_media_type",
    ),
)  # fmt: skip
def write(call: Call, item_id: str) -> Response:
    """Says of some label groups what is in the picture. The newest word on a group counts; the older ones are kept."""
    body, _ = small_json(call, MAX_BODY)
    sent = checked(LabelsIn, body)
    with call.transaction() as session:
        erasure_fence.share_lock(session, call.account_id)
        about = labels.subject(session, call.account_id, item_id)
        try:
            _say(call, session, about, sent, {})
        except BadLabels as error:
            raise Problem("invalid_labels", "Nothing was taken.", _faults(error)) from error
        return _answer(session, about)


@routes.route(
    "POST",
    "/v1/labels",
    scope="labels:write",
    summary="Label many items",
    body={"application/json": ManyLabelsIn, "application/x-ndjson": {"type": "string"}},
    answers={200: Answer("How many rows were taken, and what was wrong with the others.", LabelledOut)},
    errors=("invalid_body", "invalid_json", "invalid_utf8", "body_too_large", "unsupported_media_type"),
)
def write_many(call: Call) -> Response:
    """A line of NDJSON, or a member of `labels`, for each item. A wrong one is named and left out; the others are
    taken. The same list again changes nothing."""
    with spooled(call.house.blobs, request, call.settings, _limit(call)) as body:
        if request.mimetype == "application/x-ndjson":
            tally = _Tally("line")
            rows = ndjson_rows(body.file, call.settings.max_item_bytes)
        else:
            tally = _Tally("item")
            rows = enumerate(_listed(body.file.read()))
        _take(call, rows, tally)
    return json_answer(LabelledOut(labelled=tally.labelled, failed=tally.failed, errors=[*map(_row, tally.faults)]))


class _Tally:
    """Counts the rows of one list and keeps the first faults."""

    def __init__(self, unit: Any) -> None:
        self.unit = unit
        self.labelled = 0
        self.failed = 0
        self.faults: list[Fault] = []

    def fail(self, place: int, faults: list[Fault]) -> None:
        self.failed += 1
        self.faults += [fault.at(self.unit, place) for fault in faults][: MAX_FAULTS - len(self.faults)]


def _take(call: Call, rows: Iterator[Row], tally: _Tally) -> None:
    """All rows, in transactions of a few hundred: none of them waits for the client."""
    known: Vocabularies = {}
    rows = iter(rows)
    more = True
    while more:
        more = False
        with call.transaction() as session:
            erasure_fence.share_lock(session, call.account_id)
            for at, (place, row) in enumerate(rows, start=1):
                faults = [row] if isinstance(row, Fault) else _one(call, session, row, known)
                if faults:
                    tally.fail(place, faults)
                else:
                    tally.labelled += 1
                if at == BATCH:
                    more = True
                    break


def _one(call: Call, session: Session, row: dict[str, Any], known: Vocabularies) -> list[Fault]:
    """Take one row, or say what is wrong with it."""
    try:
        sent = ItemLabelsIn.model_validate(row)
        _say(call, session, labels.subject(session, call.account_id, sent.item_id), sent, known)
    except ValidationError as error:
        return faults_of(error)
    except BadLabels as error:
        return _faults(error)
    except (NotFound, Conflict) as error:
        return [Fault(error.code, error.detail, field="item_id")]
    return []


def _say(call: Call, session: Session, about: Subject, sent: LabelsIn, known: Vocabularies) -> None:
    if about.model not in known:
        known[about.model] = labels.vocabulary(session, about.model)
    own = [group for group in sent.groups if group not in known[about.model]]
    used = labels.kinds(session, about.account_id, own)
    words = labels.said(sent.groups, known[about.model], new=sent.new, used=used)
    labels.record(session, about, words, source=sent.source, actor=call.actor, comment=sent.comment)


def _answer(session: Session, about: Subject) -> Response:
    return json_answer(
        {
            "item_id": public_id(about.job_id, about.seq),
            "sha256": about.sha256.hex(),
            "model": about.model,
            "labels": labels.current(session, about.account_id, about.sha256),
            "history": labels.history(session, about.account_id, about.sha256),
        }
    )


def _faults(error: BadLabels) -> list[Fault]:
    return [Fault(fault.code, fault.detail, field=f"groups.{fault.group}") for fault in error.faults]


def _row(fault: Fault) -> dict[str, Any]:
    return {"field": None, "line": None, "item": None, "file": None, **fault.row()}


def _limit(call: Call) -> int:
    if request.mimetype == "application/x-ndjson":
        return call.settings.max_lines_bytes
    if request.mimetype == "application/json":
        return MAX_BODY
    raise Problem("unsupported_media_type", "Send application/json or application/x-ndjson.")


def _listed(data: bytes) -> Iterator[dict[str, Any] | Fault]:
    """The rows of a JSON body; what is wrong inside one is that row's fault."""
    value = decoded(data)
    rows = value.get("labels") if isinstance(value, dict) else None
    if not isinstance(rows, list) or len(value) != 1:
        fault = Fault("wrong_type", 'The body is an object {"labels": [...]}.', field="labels")
        raise Problem("invalid_body", "See `errors`.", [fault])
    for row in rows:
        yield row if isinstance(row, dict) else Fault("wrong_type", "A row is an object.")
