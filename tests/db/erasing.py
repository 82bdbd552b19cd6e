"""What tests of erasures share: asking for one and working off its rows, and looking for what is left anywhere."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from db import erasures
from db.erasure_tables import Erasure
from db.session import Database

# Where erased ids and hashes may stand, and nothing else of what they were.
KEPT = {
    "accounts", "alembic_version", "audit_log", "audit_seals", "audit_unsealed", "blob_removals", "erased_items",
    "erased_pictures", "erasures", "buckets", "policies", "policy_activations", "policy_assignments",
}  # fmt: skip


def erase(database: Database, account_id: int | None, kind: str, target: str, **more: Any) -> Erasure:
    """Ask, and do all steps, each in a transaction of its own; blobs and journal are `worker.erasing`'s."""
    with database.transaction() as session:
        erasure_id = erasures.ask(session, account_id, kind, target, actor="test", **more).id
    return worked_off(database, erasure_id)


def worked_off(database: Database, erasure_id: UUID) -> Erasure:
    """Every step until no row is left."""
    for _ in range(100):
        with database.transaction() as session:
            if not erasures.step(session, erasure_id):
                return erasures.by_id(session, erasure_id)
    raise AssertionError("the erasure does not end")


def traces(owner_db: Database, *needles: str) -> list[str]:
    """Where in the whole database any of these texts or hex numbers still stand: tables, but those that keep ids."""
    with owner_db.transaction() as session:
        tables = session.scalars(
            text("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
                 " AND NOT relispartition ORDER BY relname")
        ).all()  # fmt: skip
        found = []
        for table in tables:
            if table in KEPT:
                continue
            for needle in needles:
                query = text(f'SELECT count(*) FROM "{table}" t WHERE position(:needle IN CAST(t AS text)) > 0')
                if session.execute(query, {"needle": needle}).scalar_one():
                    found.append(f"{table}: {needle[:40]}")
    return found
