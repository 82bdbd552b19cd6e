"""Gives audit entries their place in the hash chain soon after they committed, and recomputes it (`db.audit_chain`)."""

from db import audit_chain
from db.audit_chain import Head, Verifier
from db.session import Database


def run_once(database: Database) -> int:
    """The duty: seal what waits, in transactions of some hundred entries; how many."""
    sealed = 0
    while True:
        with database.transaction() as session:
            more = audit_chain.seal(session)
        sealed += more
        if more < audit_chain.BATCH:
            return sealed


def recompute(
    database: Database, first: int, expected: Head | None, unsealed_s: float, *, with_evidence: bool
) -> Verifier:
    """Verify the chain from this seal to its end, in a transaction a batch."""
    verifier = Verifier(with_evidence=with_evidence, expected=expected)
    with database.transaction() as session:
        verifier.begin(session, first)
    more = True
    while more:
        with database.transaction() as session:
            more = verifier.step(session)
    with database.transaction() as session:
        verifier.end(session, unsealed_s)
    return verifier
