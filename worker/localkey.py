"""The account and API key that this machine's own commands use, kept in the home folder."""

from db import accounts
from db.errors import BadKey, NotFound
from db.session import Database
from worker.home import Home
from worker.service import write_private

ACCOUNT = "local"


def ensure(database_url: str, home: Home) -> str:
    """The saved key if the database knows it with all scopes, else a new one, which is saved. Needs the owner's URL."""
    database = Database(database_url, pool_size=1)
    try:
        saved = home.saved_key()
        if saved is not None and _is_good(database, saved):
            return saved
        with database.transaction() as session:
            try:
                account = accounts.by_name(session, ACCOUNT)
            except NotFound:
                account = accounts.create(session, ACCOUNT)
            _, secret = accounts.create_key(session, account.id, "tagmill up", accounts.SCOPES)
        write_private(home.key, secret)
        return secret
    finally:
        database.dispose()


def _is_good(database: Database, presented: str) -> bool:
    try:
        with database.transaction() as session:
            # A key of an older version opens less than this one's commands need.
            return accounts.authenticate(session, presented).scopes >= set(accounts.SCOPES)
    except BadKey:
        return False
