"""Who opens the console first on a machine of one's own: an administrator without a password, by one-time link."""

from db import accounts, people, sign_in
from db.errors import NotFound
from db.people import Person
from db.session import Database, Session
from worker.localkey import ACCOUNT

NAME = "admin"
ACTOR = "system"


def sign_in_link(database_url: str, url: str) -> tuple[str, str]:
    """The name of the local account's operator, who is made if there is none, and a link for them; the owner's URL."""
    database = Database(database_url, pool_size=1)
    try:
        with database.transaction() as session:
            person = _operator(session)
            return person.name, address(url, sign_in.issue_link(session, person, actor=ACTOR))
    finally:
        database.dispose()


def address(url: str, token: str) -> str:
    """Where the link of this token leads, at this console."""
    return f"{url.rstrip('/')}/console/link/{token}"


def _operator(session: Session) -> Person:
    try:
        account = accounts.by_name(session, ACCOUNT)
    except NotFound:
        account = accounts.create(session, ACCOUNT)
    for person in people.everybody(session, account.id):
        if person.operator and person.role == "admin" and person.disabled_at is None:
            return person
    taken = {person.name for person in people.everybody(session)}
    name = next(name for n in range(1, len(taken) + 2) if (name := NAME if n == 1 else f"{NAME}-{n}") not in taken)
    person = people.create(session, account.id, name, role="admin", actor=ACTOR)
    people.set_operator(session, person, True, actor=ACTOR)
    return people.get(session, account.id, person.id)
