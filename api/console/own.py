"""Somebody's own page: their password and the sessions that are open in their name."""

from uuid import UUID

from flask import Response
from pydantic import Field

from api.console.pages import Form, PageCall, Pages
from api.console.rendering import redirect, render
from api.errors import Fault, Problem
from db import passwords, people, sessions, sign_in

pages = Pages("own")
HERE = "/console/own"


@pages.page("GET", HERE, role="viewer", title="Your account")
def show(call: PageCall) -> Response:
    """Who they are here, and where they are signed in."""
    assert call.visit is not None
    with call.transaction() as session:
        found = sessions.of_person(session, call.person, idle_hours=call.settings.console_idle_hours)
    return render(call, "own.html", sessions=found, current=call.visit.session_id)


class PasswordForm(Form):
    """The password now, and the next one twice."""

    now: str = Field(default="", max_length=passwords.MAX_LENGTH)
    new: str = Field(default="", max_length=1000)
    again: str = Field(default="", max_length=1000)


@pages.page("POST", f"{HERE}/password", role="viewer", title="Your password")
def password(call: PageCall) -> Response:
    """A new password ends every other session. Who has one must know it; who came by a link may set the first."""
    assert call.visit is not None
    asked = call.checked(PasswordForm)
    if asked.new != asked.again:
        raise Problem(
            "invalid_form", "The two new passwords differ.", [Fault("invalid_value", "Differs.", field="again")]
        )
    if call.person.has_password:
        _check_now(call, asked.now)
    hashed = passwords.hashed(asked.new, name=call.person.name)
    with call.transaction() as session:
        people.set_password(session, call.person, hashed, actor=call.actor)
        ended = sessions.revoke_all(session, call.person, actor=call.actor, keep=call.visit.session_id)
    also = f" {ended} other {'session has' if ended == 1 else 'sessions have'} ended." if ended else ""
    return redirect(call, HERE, f"The password is changed.{also}")


def _check_now(call: PageCall, given: str) -> None:
    """Attempts are counted here too: an unattended browser is no way to guess a password."""
    most = call.settings.sign_in_attempts
    subject = f"own.{call.person.id}"
    with call.transaction() as session:
        sign_in.count(session, f"name:{subject}", most)
        stored = people.password_hash(session, call.person)
    if not passwords.verify(stored, given):
        raise Problem(
            "invalid_form", "The password is wrong.", [Fault("invalid_value", "It is another one.", field="now")]
        )
    with call.transaction() as session:
        sign_in.forgive(session, subject, "")


@pages.page("POST", f"{HERE}/sessions/<uuid:session_id>/end", role="viewer")
def end(call: PageCall, session_id: UUID) -> Response:
    """End one of their sessions."""
    with call.transaction() as session:
        sessions.revoke(session, call.person, session_id, actor=call.actor)
    return redirect(call, HERE, "That session has ended.")


@pages.page("POST", f"{HERE}/sessions/end-others", role="viewer")
def end_others(call: PageCall) -> Response:
    """End all but this one."""
    assert call.visit is not None
    with call.transaction() as session:
        ended = sessions.revoke_all(session, call.person, actor=call.actor, keep=call.visit.session_id)
    return redirect(call, HERE, f"{ended} {'session has' if ended == 1 else 'sessions have'} ended.")
