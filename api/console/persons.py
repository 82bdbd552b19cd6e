"""The people of the account, for its administrators: make, let in by a link, give roles, shut out.

An operator may be changed by operators only: else an account's administrator could sign in as one.
"""

from uuid import UUID

from flask import Response, request
from pydantic import Field

from api.console.pages import Form, Nav, PageCall, Pages
from api.console.rendering import redirect, render
from api.errors import Problem
from db import people, sessions, sign_in
from db.people import Person
from db.session import Session

pages = Pages("people", Nav("People", "/console/people", icon="people", role="admin", order=80, group="Account"))
HERE = "/console/people"


@pages.page("GET", HERE, role="admin", title="People")
def index(call: PageCall) -> Response:
    """Who may sign in, with which role."""
    return _page(call)


def _page(call: PageCall, link: tuple[str, str] | None = None) -> Response:
    with call.transaction() as session:
        found = people.everybody(session, call.account_id)
    return render(call, "people.html", title="People", people=found, roles=people.ROLES, link=link)


class NewForm(Form):
    """Somebody new."""

    name: str = Field(max_length=63)
    email: str | None = Field(default=None, max_length=254)
    role: str = Field(max_length=20)


@pages.page("POST", HERE, role="admin", title="People")
def create(call: PageCall) -> Response:
    """Make somebody, and show the link that lets them in: once, on this page."""
    asked = call.checked(NewForm)
    with call.transaction() as session:
        person = people.create(
            session, call.account_id, asked.name, role=asked.role, email=asked.email, actor=call.actor
        )
        token = sign_in.issue_link(session, person, actor=call.actor)
    return _page(call, (person.name, _address(call, token)))


def _address(call: PageCall, token: str) -> str:
    return f"{call.settings.public_url or request.host_url.rstrip('/')}/console/link/{token}"


def _other(call: PageCall, session: Session, person_id: UUID) -> Person:
    """Somebody whom who asks may change. NotFound, Problem `missing_role`."""
    person = people.get(session, call.account_id, person_id)
    if person.operator and not call.may("operator"):
        raise Problem("missing_role", "Only operators change an operator.")
    if person.id == call.person.id:
        raise Problem("conflict", "Nobody changes their own role or shuts themselves out.")
    return person


@pages.page("POST", f"{HERE}/<uuid:person_id>/link", role="admin", title="People")
def link(call: PageCall, person_id: UUID) -> Response:
    """A one-time link for somebody who has no password, or forgot it."""
    with call.transaction() as session:
        person = _other(call, session, person_id)
        if person.disabled_at is not None:
            raise Problem("conflict", f"{person.name} is disabled.")
        token = sign_in.issue_link(session, person, actor=call.actor)
    return _page(call, (person.name, _address(call, token)))


class RoleForm(Form):
    """Another role."""

    role: str = Field(max_length=20)


@pages.page("POST", f"{HERE}/<uuid:person_id>/role", role="admin")
def role(call: PageCall, person_id: UUID) -> Response:
    """Counts from their next request on."""
    asked = call.checked(RoleForm)
    with call.transaction() as session:
        person = _other(call, session, person_id)
        people.set_role(session, person, asked.role, actor=call.actor)
    return redirect(call, HERE, f"{person.name} is {asked.role} now.")


@pages.page("POST", f"{HERE}/<uuid:person_id>/disable", role="admin")
def disable(call: PageCall, person_id: UUID) -> Response:
    """Ends their sessions too."""
    with call.transaction() as session:
        person = _other(call, session, person_id)
        people.set_disabled(session, person, True, actor=call.actor)
        sessions.revoke_all(session, person, actor=call.actor)
    return redirect(call, HERE, f"{person.name} is shut out.")


@pages.page("POST", f"{HERE}/<uuid:person_id>/enable", role="admin")
def enable(call: PageCall, person_id: UUID) -> Response:
    """Let somebody in again."""
    with call.transaction() as session:
        person = _other(call, session, person_id)
        people.set_disabled(session, person, False, actor=call.actor)
    return redirect(call, HERE, f"{person.name} may sign in again.")


@pages.page("POST", f"{HERE}/<uuid:person_id>/end-sessions", role="admin")
def end_sessions(call: PageCall, person_id: UUID) -> Response:
    """They must sign in again."""
    with call.transaction() as session:
        person = _other(call, session, person_id)
        ended = sessions.revoke_all(session, person, actor=call.actor)
    return redirect(call, HERE, f"{ended} {'session' if ended == 1 else 'sessions'} of {person.name} ended.")
