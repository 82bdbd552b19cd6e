"""Signing in and out: by name and password, or by a one-time link. Who somebody is and may is `db.people`'s."""

from flask import Response, request
from pydantic import Field

from api.console import gate
from api.console.pages import Form, PageCall, Pages
from api.console.rendering import THEMES, inside, render
from api.errors import Problem
from api.routing import Parameters
from db import passwords, sessions, sign_in
from db.people import Person
from db.session import Session

pages = Pages("sign_in")
THEME_S = 365 * 86400


class NextQuery(Parameters):
    """Where to go on."""

    next: str | None = Field(default=None, max_length=2000)


class SignInForm(Form):
    """Name (or e-mail address) and password."""

    name: str = Field(default="", max_length=254)
    password: str = Field(default="", max_length=passwords.MAX_LENGTH)
    next: str = Field(default="/console", max_length=2000)


@pages.page("GET", "/console/sign-in", role=None, title="Sign in", query=NextQuery)
def show(call: PageCall, query: NextQuery) -> Response:
    """The form; whoever is signed in already goes on."""
    goal = inside(query.next or "/console")
    if call.visit is not None:
        return Response(status=303, headers={"Location": goal})
    return render(call, "sign_in.html", goal=goal, name="", problem=None)


@pages.page("POST", "/console/sign-in", role=None, title="Sign in")
def enter(call: PageCall) -> Response:
    """Two short transactions with the slow hash between them. A wrong name and a wrong password look the same."""
    asked = call.checked(SignInForm)
    settings, address = call.settings, gate.address(request, call.settings)
    most = settings.sign_in_attempts
    try:
        with call.house.database.transaction() as session:
            claimed = sign_in.claim(session, asked.name, address, most_of_name=most, most_of_address=3 * most)
    except sign_in.TooManyAttempts as refused:
        return _again(call, asked, 429, refused.detail)
    if not passwords.verify(claimed.password_hash, asked.password) or claimed.person is None:
        return _again(call, asked, 401, "The name or the password is wrong.")
    with call.house.database.transaction() as session:
        sign_in.forgive(session, asked.name, address)
        token = _begin(session, call, claimed.person, "password")
    return _signed_in(call, token, asked.next)


def _again(call: PageCall, asked: SignInForm, status: int, detail: str) -> Response:
    return render(call, "sign_in.html", status, goal=inside(asked.next), name=asked.name, problem=detail)


@pages.page("GET", "/console/link/<token>", role=None, title="Sign in")
def confirm(call: PageCall, token: str) -> Response:
    """Asks for a press of a button: programs that look at links in advance must not use it up."""
    return render(call, "sign_in_link.html", link=token[:200])


class LinkForm(Form):
    """The link's token."""

    link: str = Field(max_length=200)


@pages.page("POST", "/console/link", role=None, title="Sign in")
def use(call: PageCall) -> Response:
    """Signs in once."""
    asked = call.checked(LinkForm)
    try:
        with call.house.database.transaction() as session:
            token = _begin(session, call, sign_in.use_link(session, asked.link), "link")
    except sign_in.BadLink as refused:
        raise Problem("bad_link", "Make another one with `tagmill users link NAME`.") from refused
    return _signed_in(call, token, "/console")


def _begin(session: Session, call: PageCall, person: Person, means: str) -> str:
    return sessions.begin(
        session,
        person,
        means=means,
        address=gate.address(request, call.settings),
        agent=request.headers.get("User-Agent", ""),
        hours=call.settings.console_session_hours,
    )


def _signed_in(call: PageCall, token: str, goal: str) -> Response:
    """A session that was open in this browser ends: nobody keeps working under somebody else's name."""
    if call.visit is not None:
        with call.transaction() as session:
            sessions.revoke(session, call.person, call.visit.session_id, actor=call.actor)
    response = Response(status=303, headers={"Location": inside(goal)})
    gate.set_cookie(response, request, call.settings, "session", token, call.settings.console_session_hours * 3600)
    return response


@pages.page("POST", "/console/sign-out", role="viewer")
def leave(call: PageCall) -> Response:
    """Ends this session, here and in the database."""
    assert call.visit is not None
    with call.transaction() as session:
        sessions.revoke(session, call.person, call.visit.session_id, actor=call.actor)
    response = Response(status=303, headers={"Location": "/console/sign-in", "Clear-Site-Data": '"cache"'})
    gate.drop_cookie(response, request, call.settings, "session")
    return response


class ThemeForm(Form):
    """Light, dark, or as the machine has it."""

    theme: str = Field(pattern=f"^({'|'.join(THEMES)})$")
    back: str = Field(default="/console", max_length=2000)


@pages.page("POST", "/console/theme", role=None)
def theme(call: PageCall) -> Response:
    """Kept in a cookie of its own: it says nothing of anybody."""
    asked = call.checked(ThemeForm)
    response = Response(status=303, headers={"Location": inside(asked.back)})
    response.set_cookie(
        "tagmill-theme", asked.theme, max_age=THEME_S, path="/console", samesite="Lax", httponly=True,
        secure=gate.is_secure(request, call.settings),
    )  # fmt: skip
    return response
