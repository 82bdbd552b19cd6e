"""What is done to a server for a while."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.faults.system import signal_all
from worker.service import Service

# What is aborted: when which table is written how.
PLACES = {
    "submit": "BEFORE INSERT ON jobs FOR EACH ROW",
    "claim": "BEFORE UPDATE ON chunks FOR EACH ROW WHEN (OLD.state = 'ready' AND NEW.state = 'leased')",
    "chunk_end": "BEFORE UPDATE ON chunks FOR EACH ROW WHEN (OLD.state = 'leased' AND NEW.state = 'done')",
    "job_end": "BEFORE UPDATE ON jobs FOR EACH ROW WHEN (OLD.settled_at IS NULL AND NEW.settled_at IS NOT NULL)",
    "event": "BEFORE INSERT ON outbox FOR EACH ROW",
    "outbox": "BEFORE UPDATE ON outbox FOR EACH ROW",
    "delivery_lease": "BEFORE UPDATE ON deliveries FOR EACH ROW WHEN (OLD.owner IS NULL AND NEW.owner IS NOT NULL)",
    "delivery_end": "BEFORE UPDATE ON deliveries FOR EACH ROW WHEN (NEW.state = 'delivered')",
}
# A sequence counts on when its transaction is aborted.
FAILS = """
    CREATE FUNCTION public.fails_at_first() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public
    AS $$
    DECLARE n bigint := nextval('reached_' || TG_ARGV[0]);
    BEGIN
      IF n % 4 = 1 THEN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected'; END IF;
      IF n % 4 = 2 THEN RAISE EXCEPTION 'no serial order' USING ERRCODE = 'serialization_failure'; END IF;
      RETURN NEW;
    END $$
"""


@contextmanager
def frozen(server: Service) -> Iterator[None]:
    """Within, every process of the server stands still; the first of them is stopped first, so that it starts none."""
    first = server.pid
    assert first is not None, f"{server.name} does not run"
    signal_all([first], signal.SIGSTOP)
    others = [int(pid) for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split()]
    signal_all(others, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_all([first, *others], signal.SIGCONT)


@contextmanager
def failing(url: str) -> Iterator[Callable[[str], int]]:
    """Within, of every four times that a place is reached, the first two end their transaction. Yields how often one
    was reached."""
    with psycopg.connect(url, autocommit=True) as owner:

        def reached(place: str) -> int:
            row = owner.execute(
                f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM reached_{place}"
            ).fetchone()
            assert row is not None
            return int(row[0])

        owner.execute("SET lock_timeout = '60s'")
        owner.execute(FAILS)
        try:
            for place, when in PLACES.items():
                owner.execute(f"CREATE SEQUENCE reached_{place}")
                owner.execute(f"CREATE TRIGGER fails_{place} {when} EXECUTE FUNCTION fails_at_first('{place}')")
            yield reached
        finally:
            for place, when in PLACES.items():  # one table at a time: else this would be a deadlock of its own
                owner.execute(f"DROP TRIGGER IF EXISTS fails_{place} ON {when.split()[3]}")
                owner.execute(f"DROP SEQUENCE IF EXISTS reached_{place}")
            owner.execute("DROP FUNCTION fails_at_first")
