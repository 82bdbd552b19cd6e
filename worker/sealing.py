"""The duty that gives audit entries their place in the hash chain (`db.audit_chain`), soon after they committed."""

from db import audit_chain
from db.session import Database


def run_once(database: Database) -> int:
    """Seal what waits, in transactions of some hundred entries; how many."""
    sealed = 0
    while True:
        with database.transaction() as session:
            more = audit_chain.seal(session)
        sealed += more
        if more < audit_chain.BATCH:
            return sealed
