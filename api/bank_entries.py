"""Entries of hash banks: list, add, change, remove, release; what they match, and what a hash is matched by."""

from datetime import UTC
from typing import Final
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.bank_schemas import (
    ChangeOut,
    EntriesPage,
    EntryAddedOut,
    EntryChangedOut,
    EntryChangeIn,
    EntryIn,
    EntryOut,
    EntryState,
    LookUpHitOut,
    LookUpOut,
    MatchesOut,
    MatchesPage,
    MatchOut,
)
from api.banks import BODY_ERRORS, change_out, routes, zoned
from api.errors import Fault, Problem
from api.routing import Answer, Call, Parameters
from api.small_body import checked, small_json
from db import bank_changes, bank_entries, bank_search, banks
from db.bank_entries import NewEntry, Picture
from db.bank_search import Match
from db.bank_tables import Entry
from db.ids import item_id
from db.session import Session

SHOWN: Final = 50
"""Pictures of the answer to a ban."""
_COPIED: Final = (
    "id", "bank_id", "state", "enabled", "share", "reason", "source", "external_id", "comment",
)  # fmt: skip


def entry_out(entry: Entry) -> EntryOut:
    """An entry as clients see it."""
    return EntryOut(
        **{name: getattr(entry, name) for name in _COPIED},
        pdq=entry.hash,
        sha256=None if entry.sha256 is None else entry.sha256.hex(),
        added_by=entry.actor,
        added_at=entry.created_at.astimezone(UTC),
        expires_at=zoned(entry.expires_at),
        quarantined_at=zoned(entry.quarantined_at),
        wide=entry.wide if entry.state == "wide" else None,
    )


def match_out(match: Match) -> MatchOut:
    """A match as clients see it."""
    seen = None if match.job_id is None or match.seq is None else item_id(match.job_id, match.seq)
    return MatchOut.model_validate(
        {
            "sha256": match.sha256.hex(),
            "distance": match.distance,
            "seen_at": match.seen_at.astimezone(UTC),
            "item_id": seen,
            "verdict": match.verdict,
        }
    )


class EntriesQuery(Parameters):
    """Which entries."""

    state: EntryState | None = Field(default=None, description="Only entries in this state.")
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Entries of a page.")


@routes.route(
    "GET",
    "/v1/banks/<uuid:bank_id>/entries",
    scope="banks:read",
    summary="List entries",
    query=EntriesQuery,
    answers={200: Answer("A page, newest first.", EntriesPage)},
    errors=("not_found", "invalid_cursor", "invalid_parameter"),
)
def index(call: Call, bank_id: UUID, query: EntriesQuery) -> Response:
    """Of the account's own banks only: what is in a shared one is not shown."""
    after = None if query.cursor is None else paging.bank_entry_of(query.cursor, bank_id)
    with call.transaction() as session:
        found = bank_entries.page(
            session, call.account_id, bank_id, state=query.state, after=after, limit=query.limit + 1
        )
    shown = found[: query.limit]
    more = paging.after_bank_entry(bank_id, shown[-1].id) if len(found) > len(shown) else None
    return json_answer(EntriesPage(entries=[entry_out(each) for each in shown], next=more))


@routes.route(
    "POST",
    "/v1/banks/<uuid:bank_id>/entries",
    scope="banks:write",
    summary="Ban (or allow) a picture",
    body={"application/json": EntryIn},
    answers={201: Answer("The entry, what it matches, and the work on that.", EntryAddedOut)},
    errors=(*BODY_ERRORS, "not_found", "conflict", "weak_hash"),
)
def add(call: Call, bank_id: UUID) -> Response:
    """By a PDQ hash, or by an item that shows the picture. It holds at once for what comes in. The pictures there are
    are listed in the answer (how many, and the newest 50), and their verdicts are decided again within seconds:
    `change` says how far that is."""
    body, _ = small_json(call)
    asked = checked(EntryIn, {} if body is None else body)
    with call.transaction() as session:
        picture = None if asked.item_id is None else _picture(session, call, bank_id, asked.item_id)
        new = NewEntry(
            pdq=picture.pdq if picture else str(asked.pdq).lower(),
            sha256=picture.sha256 if picture else None,
            **asked.model_dump(exclude={"pdq", "item_id"}),
        )
        entry, change_id = bank_entries.add(session, call.account_id, bank_id, new, call.actor)
        bank = banks.read(session, call.account_id, bank_id)
        change = bank_changes.read(session, call.account_id, bank_id, change_id)
    # After the entry is there for those that match: a look at all pictures takes its time.
    with call.transaction() as session:
        count, found = bank_search.matches(session, call.account_id, entry.hash, bank.distance, bank.quality, SHOWN)
    matches = MatchesOut(count=count, pictures=[match_out(each) for each in found])
    answer = EntryAddedOut(entry=entry_out(entry), matches=matches, change=change_out(change))
    return json_answer(answer, 201)


def _picture(session: Session, call: Call, bank_id: UUID, public_id: str) -> Picture:
    return bank_entries.of_item(session, call.account_id, bank_id, public_id)


@routes.route(
    "GET",
    "/v1/banks/<uuid:bank_id>/entries/<uuid:entry_id>",
    scope="banks:read",
    summary="Read an entry",
    answers={200: Answer("The entry.", EntryOut)},
    errors=("not_found",),
)
def read(call: Call, bank_id: UUID, entry_id: UUID) -> Response:
    """With its state."""
    with call.transaction() as session:
        return json_answer(entry_out(bank_entries.read(session, call.account_id, bank_id, entry_id)))


@routes.route(
    "PATCH",
    "/v1/banks/<uuid:bank_id>/entries/<uuid:entry_id>",
    scope="banks:write",
    summary="Change an entry",
    body={"application/json": EntryChangeIn},
    answers={200: Answer("The entry, and the work that follows.", EntryChangedOut)},
    errors=(*BODY_ERRORS, "not_found"),
)
def change(call: Call, bank_id: UUID, entry_id: UUID) -> Response:
    """Switched off, it decides nothing any more, and what it had decided is decided again."""
    body, _ = small_json(call)
    asked = checked(EntryChangeIn, {} if body is None else body)
    values = asked.model_dump(include=asked.model_fields_set)
    with call.transaction() as session:
        entry, change_id = bank_entries.change(session, call.account_id, bank_id, entry_id, call.actor, **values)
        return json_answer(EntryChangedOut(entry=entry_out(entry), change=_change(session, call, bank_id, change_id)))


@routes.route(
    "DELETE",
    "/v1/banks/<uuid:bank_id>/entries/<uuid:entry_id>",
    scope="banks:write",
    summary="Remove an entry",
    answers={200: Answer("What is being worked off.", ChangeOut)},
    errors=("not_found",),
)
def remove(call: Call, bank_id: UUID, entry_id: UUID) -> Response:
    """What it had decided is decided again without it; decisions of the past keep naming it."""
    with call.transaction() as session:
        change_id = bank_entries.remove(session, call.account_id, bank_id, entry_id, call.actor)
        return json_answer(_change(session, call, bank_id, change_id))


@routes.route(
    "POST",
    "/v1/banks/<uuid:bank_id>/entries/<uuid:entry_id>/release",
    scope="banks:write",
    summary="Release an entry from quarantine",
    answers={200: Answer("The entry, and the work that follows.", EntryChangedOut)},
    errors=("not_found", "conflict"),
)
def release(call: Call, bank_id: UUID, entry_id: UUID) -> Response:
    """It counts again, also for what came meanwhile. What it had hit until now is no reason for another quarantine. Of
    a `wide` entry it says that somebody has looked: it is `on` again, and nothing follows (`change` is null)."""
    with call.transaction() as session:
        entry, change_id = bank_entries.release(session, call.account_id, bank_id, entry_id, call.actor)
        return json_answer(EntryChangedOut(entry=entry_out(entry), change=_change(session, call, bank_id, change_id)))


class MatchesQuery(Parameters):
    """Which page."""

    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Pictures of a page.")


@routes.route(
    "GET",
    "/v1/banks/<uuid:bank_id>/entries/<uuid:entry_id>/matches",
    scope="banks:read",
    summary="List what an entry hit",
    query=MatchesQuery,
    answers={200: Answer("A page, newest first.", MatchesPage)},
    errors=("not_found", "invalid_cursor", "invalid_parameter"),
)
def matches(call: Call, bank_id: UUID, entry_id: UUID, query: MatchesQuery) -> Response:
    """The account's pictures within the bank's distance, whether the entry counts now or not."""
    after = None if query.cursor is None else paging.hit_of(query.cursor, entry_id)
    with call.transaction() as session:
        bank_entries.read(session, call.account_id, bank_id, entry_id)
        found = bank_search.hits(session, call.account_id, entry_id, after=after, limit=query.limit + 1)
    shown = found[: query.limit]
    more = None
    if len(found) > len(shown):
        more = paging.after_hit(entry_id, shown[-1].seen_at, shown[-1].sha256)
    return json_answer(MatchesPage(pictures=[match_out(each) for each in shown], next=more))


class LookUpQuery(Parameters):
    """A hash, or an item."""

    pdq: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$", description="A PDQ hash.")
    item_id: str | None = Field(default=None, max_length=100, description="An item, for the hash of its picture.")


@routes.route(
    "GET",
    "/v1/banks/look-up",
    scope="banks:read",
    summary="Look a hash or an item up",
    query=LookUpQuery,
    answers={200: Answer("What the banks know of it.", LookUpOut)},
    errors=("not_found", "conflict", "invalid_parameter"),
)
def look_up(call: Call, query: LookUpQuery) -> Response:
    """Every entry of the account's banks within the bank's distance, also those that do not count now."""
    if (query.pdq is None) == (query.item_id is None):
        raise Problem("invalid_parameter", "See `errors`.", [Fault("missing", "Give pdq or item_id.", field="pdq")])
    with call.transaction() as session:
        shared = 0
        picture = None if query.item_id is None else bank_entries.picture_of(session, call.account_id, query.item_id)
        pdq = picture.pdq if picture else str(query.pdq).lower()
        found = bank_search.near(session, call.account_id, pdq)
        if picture is not None:
            hits = banks.hits_of(session, call.account_id, [picture.sha256]).get(picture.sha256, [])
            shared = len({hit.entry for hit in hits} - {each.entry.id for each in found})
    rows = [
        LookUpHitOut.model_validate(
            {
                "entry": entry_out(each.entry),
                "bank": each.bank,
                "kind": each.kind,
                "distance": each.distance,
                "counts": each.counts,
            }
        )
        for each in found
    ]
    return json_answer(LookUpOut(pdq=pdq, quality=picture and picture.quality, entries=rows, shared_hits=shared))


def _change(session: Session, call: Call, bank_id: UUID, change_id: UUID | None) -> ChangeOut | None:
    if change_id is None:
        return None
    return change_out(bank_changes.read(session, call.account_id, bank_id, change_id))
