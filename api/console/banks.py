"""Hash banks for people: the list, one bank with its entries and what they hit, one entry. What is changed here is in
`api.console.bank_forms`."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.bank_schemas import EntryState
from api.console.pages import Nav, PageCall, Pages
from api.console.rendering import render
from api.routing import Parameters
from db import bank_changes, bank_entries, bank_search, banks, people
from db.bank_search import Match
from db.bank_tables import Entry
from db.ids import item_id

HERE = "/console/banks"
pages = Pages("banks", Nav("Banks", HERE, icon="bank", role="viewer", order=55))
ENTRIES = 20
SHOWN = 5
PICTURES = 36
STATES = {"on": "good", "wide": "warn", "off": "off", "expired": "off", "quarantined": "bad"}
MODES = {
    "match": "looks for pictures",
    "recheck": "decides again what was hit",
    "surge": "sends what was hit in an hour to people",
}


class BankQuery(Parameters):
    """Which entries."""

    state: EntryState | None = None
    cursor: str | None = Field(default=None, max_length=100)
    item: str | None = Field(default=None, max_length=100, description="An item to fill into the form.")


class EntryQuery(Parameters):
    """Which page of its pictures."""

    cursor: str | None = Field(default=None, max_length=100)


class BanksQuery(Parameters):
    """An item that is to go into a bank."""

    item: str | None = Field(default=None, max_length=100)


@pages.page("GET", HERE, role="viewer", title="Banks", query=BanksQuery)
def index(call: PageCall, query: BanksQuery) -> Response:
    """The account's banks, and the installation's that hold for it; with an item, to choose one for its picture."""
    with call.transaction() as session:
        found = banks.listed(session, call.account_id)
    return render(call, "banks.html", banks=found, kinds=STATES, item=query.item)


@pages.page("GET", f"{HERE}/<uuid:bank_id>", role="viewer", title="Bank", query=BankQuery)
def show(call: PageCall, bank_id: UUID, query: BankQuery) -> Response:
    """A bank, its entries with the newest pictures that each hit, and what is being worked off."""
    after = None if query.cursor is None else paging.bank_entry_of(query.cursor, bank_id)
    with call.transaction() as session:
        bank = banks.read(session, call.account_id, bank_id)
        found = bank_entries.page(
            session, call.account_id, bank_id, state=query.state, after=after, limit=ENTRIES + 1
        )  # fmt: skip
        rows = [
            {"entry": each, "pictures": pictures(bank_search.hits(session, call.account_id, each.id, limit=SHOWN))}
            for each in found[:ENTRIES]
        ]
        states = banks.states(session, bank_id)
        changes = bank_changes.newest(session, call.account_id, bank_id, 8)
    more = None
    if len(found) > ENTRIES:
        chosen = {"state": query.state} if query.state else {}
        more = f"{HERE}/{bank_id}?" + urlencode({**chosen, "cursor": _after(bank_id, found[ENTRIES - 1])})
    return render(
        call, "bank.html", title=bank.name, bank=bank, rows=rows, states=states, kinds=STATES, changes=changes,
        modes=MODES, more=more, query=query,
    )  # fmt: skip


@pages.page("GET", f"{HERE}/<uuid:bank_id>/entries/<uuid:entry_id>", role="viewer", title="Entry", query=EntryQuery)
def entry(call: PageCall, bank_id: UUID, entry_id: UUID, query: EntryQuery) -> Response:
    """An entry, everything known of it, and the pictures that it hit."""
    after = None if query.cursor is None else paging.hit_of(query.cursor, entry_id)
    with call.transaction() as session:
        bank = banks.read(session, call.account_id, bank_id)
        found = bank_entries.read(session, call.account_id, bank_id, entry_id)
        hits = bank_search.hits(session, call.account_id, entry_id, after=after, limit=PICTURES + 1)
        names = people.names(session, call.account_id)
    more = None
    if len(hits) > PICTURES:
        last = hits[PICTURES - 1]
        cursor = paging.after_hit(entry_id, last.seen_at, last.sha256)
        more = f"{HERE}/{bank_id}/entries/{entry_id}?" + urlencode({"cursor": cursor})
    return render(
        call, "bank_entry.html", title=found.hash[:12], bank=bank, entry=found, kinds=STATES, more=more,
        pictures=pictures(hits[:PICTURES]), first=query.cursor is not None, by=names.get(found.actor, found.actor),
    )  # fmt: skip


def pictures(matches: list[Match]) -> list[dict[str, Any]]:
    """Matches as the pages show them; without `item`, a picture that no result shows yet."""
    return [
        {
            "item": None if each.job_id is None or each.seq is None else item_id(each.job_id, each.seq),
            "distance": each.distance,
            "verdict": each.verdict,
            "seen_at": each.seen_at,
        }
        for each in matches
    ]


def _after(bank_id: UUID, last: Entry) -> str:
    return paging.after_bank_entry(bank_id, last.id)
