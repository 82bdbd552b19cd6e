"""Templates to pages: the environment, the headers that wall a page, redirects and error pages. Decides nothing."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flask import Response, g, request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from api.console import charts, formats, gate
from db import sessions

if TYPE_CHECKING:
    from api.console.pages import Nav, PageCall

GROUPS: Final = ("Work", "Account", "Installation")
THEMES: Final = ("system", "light", "dark")
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script';"
    " trusted-types tagmill"
)
# `same-origin` and not `no-referrer`: with that, browsers would send forms with `Origin: null`.
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_NAVIGATION: "list[Nav]" = []


def protect(response: Response) -> Response:
    """The headers of every answer of the console; a view may have said more strictly."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def navigation(entries: "list[Nav]") -> None:
    """What the navigation offers; said once, when the app is made."""
    _NAVIGATION[:] = sorted(entries, key=lambda entry: entry.order)


def navigation_of(call: "PageCall") -> "list[Nav]":
    """What of it who asks may open."""
    return [entry for entry in _NAVIGATION if call.may(entry.role)]


def _grouped(entries: "list[Nav]") -> "list[tuple[str, list[Nav]]]":
    """By group, in the groups' order."""
    found = {group: [entry for entry in entries if entry.group == group] for group in GROUPS}
    return [(group, each) for group, each in found.items() if each]


@cache
def environment() -> Environment:
    """Everything is escaped, always; a name that a template does not get is an error."""
    made = Environment(
        loader=PackageLoader("api.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(formats.FILTERS)
    made.globals.update(asset=asset, charts=charts, now=lambda: datetime.now(UTC))
    return made


@cache
def asset(name: str) -> str:
    """The address of a file in static/, which changes with its content."""
    digest = hashlib.sha256(files("api.console").joinpath("static", name).read_bytes()).hexdigest()
    return f"/console/static/{name}?v={digest[:12]}"


def render(call: "PageCall", template: str, status: int = 200, *, title: str | None = None, **values: Any) -> Response:
    """The page. Templates see `call`, `person` (None when nobody is signed in), `csrf` (the hidden field), `title`."""
    visit = call.visit
    notices = visit.notices if visit is not None else ()
    if visit is not None and notices:
        with call.transaction() as session:
            sessions.clear_notices(session, visit)
    token = gate.csrf(call.token) if call.token else ""
    html = (
        environment()
        .get_template(template)
        .render(
            call=call,
            person=visit.person if visit is not None else None,
            csrf=Markup('<input type="hidden" name="csrf" value="{}">').format(token),
            csrf_token=token,
            title=call.page.title if title is None else title,
            theme=theme(),
            notices=notices,
            navigation=_grouped(navigation_of(call)),
            here=request.path,
            **values,
        )
    )
    return Response(html, status, content_type="text/html; charset=utf-8", headers={"Vary": "Cookie"})


def fragment(call: "PageCall", template: str, **values: Any) -> Response:
    """A part of a page, for a script that puts it in the place of an older one; notices wait for the next page."""
    token = gate.csrf(call.token)
    html = (
        environment()
        .get_template(template)
        .render(
            call=call,
            person=call.person,
            csrf=Markup('<input type="hidden" name="csrf" value="{}">').format(token),
            here=request.path,
            **values,
        )
    )
    return Response(html, content_type="text/html; charset=utf-8", headers={"Vary": "Cookie"})


def redirect(call: "PageCall", to: str, message: str | None = None, kind: str = "good") -> Response:
    """To a page of ours, which shows the message. Kinds: good, note, bad."""
    if message is not None and call.visit is not None:
        with call.transaction() as session:
            sessions.notify(session, call.visit, message, kind)
    return Response(status=303, headers={"Location": inside(to)})


def inside(path: str) -> str:
    """The path if it leads into the console, else its first page: no form sends anybody to another site."""
    parts = urlsplit(path)
    own = not parts.scheme and not parts.netloc and (parts.path == "/console" or parts.path.startswith("/console/"))
    return path if own and "\\" not in path and path.isprintable() else "/console"


def theme() -> str:
    """What the browser's owner chose; `system` follows the machine."""
    chosen = request.cookies.get("tagmill-theme", "system")
    return chosen if chosen in THEMES else "system"


def error_page(call: "PageCall", problem: Mapping[str, Any], status: int) -> Response:
    """A problem document as a page."""
    g.error_code = problem["code"]
    return render(call, "error.html", status, title=problem["title"], problem=problem)
