"""Whether anything waits for maintenance, in one look at indexes: most of the time nothing does, of no kind."""

from typing import Final, Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

Kind = Literal["jobs", "audit", "replays", "moves", "banks", "erasures"]


def kinds(session: Session) -> frozenset[Kind]:
    """Of what something is there: jobs that have not ended, audit entries without a seal, replays and moves of models
    that wait for a process, entries or changes of hash banks, erasures to go on with and blobs to remove."""
    row = session.execute(_LOOK).mappings().one()
    return frozenset(kind for kind, there in row.items() if there)


def deliveries(session: Session) -> bool:
    """Whether an event waits for its deliveries, or a delivery for its end."""
    return bool(session.scalar(_DELIVERIES))


_LOOK: Final = text(
    """
    SELECT EXISTS (SELECT FROM jobs WHERE settled_at IS NULL) AS jobs,
      EXISTS (SELECT FROM audit_unsealed) AS audit,
      EXISTS (SELECT FROM replays WHERE state IN ('queued', 'running')) AS replays,
      EXISTS (SELECT FROM model_moves WHERE state = 'asked') AS moves,
      EXISTS (SELECT FROM hash_entries) OR EXISTS (SELECT FROM bank_rechecks)
        OR EXISTS (SELECT FROM bank_changes WHERE state <> 'done') AS banks,
      EXISTS (SELECT FROM erasures WHERE settled_at IS NULL
        AND (finished_at IS NULL OR finished_at < now() - interval '30 minutes'))
        OR EXISTS (SELECT FROM blob_removals WHERE gone_at IS NULL) AS erasures
    """
)
_DELIVERIES: Final = text(
    "SELECT EXISTS (SELECT FROM outbox WHERE fanned_at IS NULL)"
    " OR EXISTS (SELECT FROM deliveries WHERE state = 'pending')"
)
