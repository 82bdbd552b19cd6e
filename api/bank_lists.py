"""Whole lists of hashes in and out. What the forms are is `db.bank_formats`' business."""

from collections.abc import Iterator
from typing import IO, Final, Literal
from uuid import UUID

from flask import Response, request
from pydantic import Field

from api.answers import json_answer
from api.bank_schemas import ImportedOut
from api.banks import change_out, routes
from api.errors import MAX_FAULTS, Fault, Problem
from api.routing import Answer, Call, Parameters
from api.schemas import FaultOut
from api.spool import spooled
from db import bank_changes, bank_entries, bank_formats, banks
from db.bank_entries import NewEntry
from db.bank_rows import BadList, Row

MAX_BYTES: Final = 64 * 2**20
MAX_ENTRIES: Final = 100_000
"""Entries of one import, which is one transaction."""
PAGE: Final = 5000
FORMS: Final = {
    "text/csv": "csv",
    "text/plain": "signals",
    "application/json": "threatexchange",
    "application/xml": "ncmec",
    "text/xml": "ncmec",
}
_TEXT: Final = {"type": "string"}


@routes.route(
    "POST",
    "/v1/banks/<uuid:bank_id>/import",
    scope="banks:write",
    summary="Import a list of hashes",
    body=dict.fromkeys(FORMS, _TEXT),
    answers={200: Answer("What was taken, and what was wrong with the rest.", ImportedOut)},
    errors=(
        "body_incomplete", "body_timeout", "body_too_large", "invalid_hash_list", "not_found", "too_many_items",
        "unsupported_encoding", "unsupported_media_type",
    ),
)  # fmt: skip
def import_(call: Call, bank_id: UUID) -> Response:
    """`text/csv`: our own form. `text/plain`: lines `pdq HASH`, as ThreatExchange's tools write them.
    `application/json`: an answer of ThreatExchange's /threat_updates or /threat_descriptors. `application/xml`: one of
    NCMEC's /v2/entries. Wrong lines and items are named and left out; hashes that the bank has are passed over;
    deletions that a list names remove the entries that came under the same id. The same list again changes nothing."""
    form = FORMS.get(request.mimetype)
    if form is None:
        raise Problem("unsupported_media_type", f"Send one of {', '.join(FORMS)}.")
    with call.transaction() as session:
        banks.read(session, call.account_id, bank_id)
    with spooled(call.house.blobs, request, call.settings, MAX_BYTES) as body:
        new, gone, faults, failed = rows(form, body.file)
    with call.transaction() as session:
        done = bank_entries.add_many(session, call.account_id, bank_id, new, call.actor, gone=gone)
        change = None
        if done.change_id is not None:
            change = change_out(bank_changes.read(session, call.account_id, bank_id, done.change_id))
    return json_answer(
        ImportedOut(
            added=done.added,
            known=done.known,
            removed=done.removed,
            failed=failed,
            errors=[FaultOut(**fault.row()) for fault in faults],
            change=change,
        )
    )


def rows(form: str, file: IO[bytes]) -> tuple[list[NewEntry], list[str], list[Fault], int]:
    """Entries, ids of those that are gone, the first faults, and how many rows were wrong."""
    new: list[NewEntry] = []
    gone: list[str] = []
    faults: list[Fault] = []
    failed = 0
    try:
        for row in bank_formats.read(form, file):
            if row.gone is not None:
                gone.append(row.gone)
            elif row.entry is not None:
                new.append(row.entry)
            else:
                failed += 1
                faults += [_fault(form, row)] if len(faults) < MAX_FAULTS else []
            if len(new) + len(gone) > MAX_ENTRIES:
                raise Problem("too_many_items", f"A list has at most {MAX_ENTRIES} entries: send it in parts.")
    except BadList as error:
        fault = Fault("invalid_value", error.detail, line=error.line)
        raise Problem("invalid_hash_list", "Nothing was taken.", [fault]) from error
    return new, gone, faults, failed


def _fault(form: str, row: Row) -> Fault:
    fault = Fault(str(row.code), row.detail, field=row.name)
    return fault.at("line" if bank_formats.unit(form) == "line" else "item", row.place)


class ExportQuery(Parameters):
    """Which form."""

    format: Literal["csv", "signals"] = Field(
        default="csv", description="csv: everything, to be imported again. signals: lines `pdq HASH`."
    )


@routes.route(
    "GET",
    "/v1/banks/<uuid:bank_id>/export",
    scope="banks:read",
    summary="Export a bank",
    query=ExportQuery,
    answers={200: Answer("The list.", content={"text/csv": _TEXT, "text/plain": _TEXT})},
    errors=("not_found", "invalid_parameter"),
)
def export(call: Call, bank_id: UUID, query: ExportQuery) -> Response:
    """Every entry that was not removed, newest first."""
    with call.transaction() as session:
        bank = banks.read(session, call.account_id, bank_id)
    kind = "text/csv" if query.format == "csv" else "text/plain"
    name = f"{bank.name}.{'csv' if query.format == 'csv' else 'txt'}"
    return Response(
        _export(call, bank_id, query.format),
        content_type=f"{kind}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _export(call: Call, bank_id: UUID, form: str) -> Iterator[bytes]:
    """Page by page: no transaction waits for a slow client."""
    after: UUID | None = None
    while True:
        with call.transaction() as session:
            found = bank_entries.page(session, call.account_id, bank_id, after=after, limit=PAGE)
        text = bank_formats.written(found, form, head=after is None)
        yield "".join(text).encode()
        if len(found) < PAGE:
            return
        after = found[-1].id
