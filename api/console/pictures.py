"""Pictures for people: small copies of working copies, grey and blurred unless there is a reason not to.

What a person approved or the machine let pass is shown as it is, unless somebody is to look at it again (`db.veils`).
Everything else is veiled on the server until somebody with the role `reviewer` asks for it. A grant to see one picture
is signed with the session's own token: it opens that picture, in that session, for ten minutes.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from flask import Response
from pydantic import Field

from api.answers import json_answer
from api.console import gate
from api.console.pages import Form, PageCall, Pages, wants_json
from api.console.rendering import inside, render
from api.errors import Problem
from api.pictures import jpeg, small, working_copy
from api.routing import Parameters
from db import items, veils
from db.items import ItemView
from db.session import Session

pages = Pages("pictures")
SIZES: Final = (96, 240, 480, 960)
GRANT_S: Final = 600
MAX_AT_ONCE: Final = 200

Counter = Callable[[PageCall, Session, Sequence[ItemView]], None]
GRANTED: Final[list[Counter]] = []
"""Told of the pictures that somebody asks to see clear, in the transaction of the grant; a Problem refuses it."""


def url(item_id: str, size: int = 240, *, veil: bool = False) -> str:
    """Where the picture is. With `veil` it is veiled whatever the verdict, so that it does not tell one."""
    return f"/console/pictures/{item_id}?size={size}" + ("&veil=true" if veil else "")


def clear_url(call: PageCall, item_id: str, size: int = 480) -> str:
    """The same with a grant in it. Only for what was counted as seen: see `grant`."""
    until = str(int(time.time()) + GRANT_S)
    return f"{url(item_id, size)}&clear={until}.{gate.sign(call.token, 'clear', item_id, until)}"


def grant(call: PageCall, session: Session, item_ids: Sequence[str]) -> list[ItemView]:
    """Count these pictures as seen clear by who asks. NotFound; Problems of the counters, `missing_role`."""
    if not call.may("reviewer"):
        raise Problem("missing_role", "Clear pictures need the role reviewer.")
    found = [items.get(session, call.account_id, item_id) for item_id in dict.fromkeys(item_ids)]
    for counter in GRANTED:
        counter(call, session, found)
    return found


class PictureQuery(Parameters):
    """How large, and by which right."""

    size: int = 240
    veil: bool = False
    clear: str | None = Field(default=None, max_length=100)


@pages.page("GET", "/console/pictures/<item_id>", role="viewer", query=PictureQuery)
def show(call: PageCall, item_id: str, query: PictureQuery) -> Response:
    """The item's working copy, made small."""
    _check(query.size)
    with call.transaction() as session:
        item = items.get(session, call.account_id, item_id)
        clear = _granted(call, item_id, query.clear)
        clear = clear or (not query.veil and veils.clear_for_people(session, call.account_id, item))
    return jpeg(small(working_copy(call.house.blobs, item), query.size, veiled=not clear), "private, max-age=300")


def _check(size: int) -> None:
    if size not in SIZES:
        raise Problem("invalid_parameter", f"There are the sizes {', '.join(map(str, SIZES))}.")


def _granted(call: PageCall, item_id: str, given: str | None) -> bool:
    until, _, mac = (given or "").partition(".")
    if not until.isdecimal() or len(until) > 12 or int(until) < time.time():
        return False
    return gate.is_signed(mac, call.token, "clear", item_id, until)


class ClearForm(Form):
    """Which pictures, and where to go back to."""

    items: list[str] = Field(min_length=1, max_length=MAX_AT_ONCE)
    size: int = 480
    back: str = Field(default="/console", max_length=2000)


@pages.page("POST", "/console/pictures/clear", role="reviewer", title="Clear pictures")
def clear(call: PageCall) -> Response:
    """Grants to see these pictures: their addresses for a script, a page with them for a browser without."""
    asked = call.checked(ClearForm)
    _check(asked.size)
    with call.transaction() as session:
        found = grant(call, session, asked.items)
    addresses = {item.item_id: clear_url(call, item.item_id, asked.size) for item in found}
    if wants_json():
        return json_answer({"pictures": addresses})
    return render(call, "clear.html", addresses=addresses, back=inside(asked.back))
