"""What curators change in hash banks: make, add, import, switch, remove, release. Maintenance works it off afterwards;
the message on the next page says what was begun."""

import io
from typing import Literal
from uuid import UUID

from flask import Response
from pydantic import Field

from api.bank_lists import rows
from api.console.banks import HERE, pages
from api.console.pages import Form, PageCall
from api.console.rendering import redirect
from api.errors import Problem
from db import bank_entries, bank_search, banks
from db.bank_entries import NewEntry

MAX_LIST = 4 * 2**20
PLAIN = r"^[^\x00-\x1f\x7f]*$"


class BankForm(Form):
    """A new bank."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    kind: Literal["block", "allow"]
    description: str | None = Field(default=None, max_length=2000)


class SettingsForm(Form):
    """How near is near, and from which detail on."""

    distance: int = Field(ge=0, le=banks.MAX_DISTANCE)
    quality: int = Field(ge=0, le=100)


class EntryForm(Form):
    """A hash, or an item whose picture is meant."""

    what: str = Field(min_length=3, max_length=100)
    reason: str | None = Field(default=None, max_length=500, pattern=PLAIN)


class ListForm(Form):
    """A list, as text."""

    list: str = Field(max_length=MAX_LIST)
    form: Literal["csv", "signals", "threatexchange", "ncmec"]


@pages.page("POST", HERE, role="curator")
def create(call: PageCall) -> Response:
    """Make a bank."""
    asked = call.checked(BankForm)
    with call.transaction() as session:
        made = banks.create(
            session, call.account_id, asked.name, asked.kind, description=asked.description, actor=call.actor
        )
    return redirect(call, f"{HERE}/{made.id}", f"The {asked.kind} bank {asked.name} is made.")


@pages.page("POST", f"{HERE}/<uuid:bank_id>/settings", role="curator")
def settings(call: PageCall, bank_id: UUID) -> Response:
    """Change distance and quality."""
    asked = call.checked(SettingsForm)
    with call.transaction() as session:
        banks.change(session, call.account_id, bank_id, call.actor, distance=asked.distance, quality=asked.quality)
    return redirect(call, f"{HERE}/{bank_id}", "Saved. It holds at once for what comes in.")


@pages.page("POST", f"{HERE}/<uuid:bank_id>/<any(on, off):way>", role="curator")
def switch(call: PageCall, bank_id: UUID, way: str) -> Response:
    """Switch a whole bank."""
    with call.transaction() as session:
        banks.change(session, call.account_id, bank_id, call.actor, enabled=way == "on")
    return redirect(call, f"{HERE}/{bank_id}", f"The bank is {way}.")


@pages.page("POST", f"{HERE}/<uuid:bank_id>/remove", role="curator")
def remove(call: PageCall, bank_id: UUID) -> Response:
    """Remove a bank with its entries."""
    with call.transaction() as session:
        banks.remove(session, call.account_id, bank_id, call.actor)
    return redirect(call, HERE, "The bank is removed. What it had decided is decided again without it.")


@pages.page("POST", f"{HERE}/<uuid:bank_id>/entries", role="curator")
def add(call: PageCall, bank_id: UUID) -> Response:
    """Ban (or allow) a picture by its hash or by an item."""
    asked = call.checked(EntryForm)
    with call.transaction() as session:
        if bank_entries.HASH.fullmatch(asked.what):
            new = NewEntry(asked.what.lower(), reason=asked.reason)
        else:
            picture = bank_entries.of_item(session, call.account_id, bank_id, asked.what)
            new = NewEntry(picture.pdq, reason=asked.reason, sha256=picture.sha256)
        entry, _ = bank_entries.add(session, call.account_id, bank_id, new, call.actor)
        bank = banks.read(session, call.account_id, bank_id)
    with call.transaction() as session:
        count, _ = bank_search.matches(session, call.account_id, entry.hash, bank.distance, bank.quality, 1)
    told = {0: "No picture matches yet.", 1: "1 picture matches; it is being decided again."}
    many = f"{count} pictures match; they are being decided again."
    return redirect(call, f"{HERE}/{bank_id}", "Added. " + told.get(count, many))


@pages.page("POST", f"{HERE}/<uuid:bank_id>/import", role="curator", max_form=2 * MAX_LIST)
def import_(call: PageCall, bank_id: UUID) -> Response:
    """Take in a list that was pasted."""
    asked = call.checked(ListForm)
    new, gone, faults, failed = rows(asked.form, io.BytesIO(asked.list.encode()))
    if failed and not new and not gone:
        raise Problem("invalid_hash_list", "Nothing in it could be taken.", faults)
    with call.transaction() as session:
        done = bank_entries.add_many(session, call.account_id, bank_id, new, call.actor, gone=gone)
    told = f"{done.added} added, {done.known} known already, {done.removed} removed."
    if failed:
        first = "; ".join(f"{fault.line or fault.item}: {fault.detail}" for fault in faults[:3])
        return redirect(call, f"{HERE}/{bank_id}", f"{told} {failed} left out ({first})", "warn")
    return redirect(call, f"{HERE}/{bank_id}", told)


@pages.page(
    "POST", f"{HERE}/<uuid:bank_id>/entries/<uuid:entry_id>/<any(on, off, remove, release):way>", role="curator"
)
def entry(call: PageCall, bank_id: UUID, entry_id: UUID, way: str) -> Response:
    """Switch, remove or release an entry."""
    here = (call.account_id, bank_id, entry_id)
    with call.transaction() as session:
        if way == "remove":
            bank_entries.remove(session, *here, call.actor)
        elif way == "release":
            _, change = bank_entries.release(session, *here, call.actor)
            if change is None:
                return redirect(call, f"{HERE}/{bank_id}/entries/{entry_id}", "Noted: it is meant to hit that many.")
        else:
            bank_entries.change(session, *here, call.actor, enabled=way == "on")
    told = {"on": "The entry is on.", "off": "The entry is off.", "remove": "The entry is removed.",
            "release": "The entry is released: it counts again."}[way]  # fmt: skip
    back = f"{HERE}/{bank_id}" + ("" if way == "remove" else f"/entries/{entry_id}")
    return redirect(call, back, f"{told} What it had decided is decided again.")
