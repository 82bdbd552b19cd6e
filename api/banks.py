"""Hash banks: list, make, read, change, remove, and what is being worked off. Entries are in `api.bank_entries`."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from flask import Response

from api.answers import json_answer
from api.bank_schemas import BankChangeIn, BankIn, BankOut, BanksOut, ChangeOut, ChangesOut
from api.routing import Answer, Call, Routes
from api.small_body import checked, small_json
from db import bank_changes, banks
from db.bank_tables import Bank, BankChange

BODY_ERRORS: Final = (
    "body_incomplete", "body_timeout", "body_too_large", "invalid_body", "invalid_json", "unsupported_encoding",
    "unsupported_media_type",
)  # fmt: skip
_COPIED: Final = ("id", "name", "kind", "description", "distance", "quality", "enabled")
_OF_CHANGES: Final = ("id", "entry_id", "mode", "state", "pictures", "results", "changed", "kept")

routes = Routes(
    "banks",
    "Banks of PDQ hashes that block or allow pictures: matched as pictures come in, and over the pictures there are.",
)


def zoned(when: datetime | None) -> datetime | None:
    """The time as it is answered: in UTC."""
    return None if when is None else when.astimezone(UTC)


def change_out(change: BankChange) -> ChangeOut:
    """A change as clients see it."""
    return ChangeOut(
        **{name: getattr(change, name) for name in _OF_CHANGES},
        by=change.actor,
        created_at=change.created_at.astimezone(UTC),
        finished_at=zoned(change.finished_at),
    )


def _out(bank: Bank, states: dict[str, int]) -> BankOut:
    shared = bank.account_id is None
    values: dict[str, Any] = {name: getattr(bank, name) for name in _COPIED}
    return BankOut.model_validate(
        {
            **values,
            "shared": shared,
            "entries": None if shared else states,
            "created_at": bank.created_at.astimezone(UTC),
            "created_by": None if shared else bank.actor,
        }
    )


@routes.route(
    "GET",
    "/v1/banks",
    scope="banks:read",
    summary="List hash banks",
    answers={200: Answer("All of them.", BanksOut)},
)
def index(call: Call) -> Response:
    """The account's own, and the installation's (`shared`), which hold for every account and are changed by its
    operator."""
    with call.transaction() as session:
        found = banks.listed(session, call.account_id)
        return json_answer(BanksOut(banks=[_out(each.bank, each.states) for each in found]))


@routes.route(
    "POST",
    "/v1/banks",
    scope="banks:write",
    summary="Make a hash bank",
    body={"application/json": BankIn},
    answers={201: Answer("The bank, empty.", BankOut, headers={"Location": "The bank."})},
    errors=(*BODY_ERRORS, "conflict"),
)
def create(call: Call) -> Response:
    """What a hit means is the policy's to say; policies that name thresholds only reject what a block bank hits, and
    approve what an allow bank hits whatever the scores are."""
    body, _ = small_json(call)
    asked = checked(BankIn, {} if body is None else body)
    with call.transaction() as session:
        made = banks.create(session, call.account_id, **asked.model_dump(), actor=call.actor)
        answer = _out(made, {})
    return json_answer(answer, 201, {"Location": f"{call.settings.public_url}/v1/banks/{made.id}"})


@routes.route(
    "GET",
    "/v1/banks/<uuid:bank_id>",
    scope="banks:read",
    summary="Read a hash bank",
    answers={200: Answer("The bank.", BankOut)},
    errors=("not_found",),
)
def read(call: Call, bank_id: UUID) -> Response:
    """With the number of its entries by state."""
    with call.transaction() as session:
        bank = banks.visible(session, call.account_id, bank_id)
        return json_answer(_out(bank, banks.states(session, bank.id)))


@routes.route(
    "PATCH",
    "/v1/banks/<uuid:bank_id>",
    scope="banks:write",
    summary="Change a hash bank",
    body={"application/json": BankChangeIn},
    answers={200: Answer("The bank.", BankOut)},
    errors=(*BODY_ERRORS, "not_found"),
)
def change(call: Call, bank_id: UUID) -> Response:
    """Distance, quality and on or off hold at once for what comes in; the pictures there are follow within seconds."""
    body, _ = small_json(call)
    asked = checked(BankChangeIn, {} if body is None else body)
    with call.transaction() as session:
        values = asked.model_dump(include=asked.model_fields_set)
        bank = banks.change(session, call.account_id, bank_id, call.actor, **values)
        return json_answer(_out(bank, banks.states(session, bank.id)))


@routes.route(
    "DELETE",
    "/v1/banks/<uuid:bank_id>",
    scope="banks:write",
    summary="Remove a hash bank",
    answers={200: Answer("What is being worked off.", ChangeOut)},
    errors=("not_found",),
)
def remove(call: Call, bank_id: UUID) -> Response:
    """With its entries. What they had decided is decided again without them; decisions of the past keep naming them."""
    with call.transaction() as session:
        change_id = banks.remove(session, call.account_id, bank_id, call.actor)
        return json_answer(change_out(bank_changes.read(session, call.account_id, bank_id, change_id)))


@routes.route(
    "GET",
    "/v1/banks/<uuid:bank_id>/changes",
    scope="banks:read",
    summary="List what is being worked off",
    answers={200: Answer("The newest changes.", ChangesOut)},
    errors=("not_found",),
)
def changes(call: Call, bank_id: UUID) -> Response:
    """Each change of what counts is worked off over the pictures there are, the newest first."""
    with call.transaction() as session:
        banks.read(session, call.account_id, bank_id)
        found = bank_changes.newest(session, call.account_id, bank_id)
        return json_answer(ChangesOut(changes=[change_out(each) for each in found]))


@routes.route(
    "GET",
    "/v1/banks/<uuid:bank_id>/changes/<uuid:change_id>",
    scope="banks:read",
    summary="Read how far a change is",
    answers={200: Answer("The change.", ChangeOut)},
    errors=("not_found",),
)
def read_change(call: Call, bank_id: UUID, change_id: UUID) -> Response:
    """Also of a bank that was removed."""
    with call.transaction() as session:
        return json_answer(change_out(bank_changes.read(session, call.account_id, bank_id, change_id)))
