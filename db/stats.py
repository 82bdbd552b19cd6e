"""Numbers for the operator's metrics: sums over all accounts, never a row of one."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import review_load


@dataclass(frozen=True)
class Sample:
    """One gauge: `name` (without prefix), its labels and value."""

    name: str
    labels: dict[str, str]
    value: float


def samples(session: Session) -> list[Sample]:
    """Chunks by stage and state, age of the oldest ready chunk, expired leases, jobs by state, items and failures
    of the last hour, live workers by role (the SQL function `tagmill_metrics`); sources by level of drift
    (`tagmill_drift_metrics`); running shadow runs (`tagmill_shadow_metrics`); webhooks and their deliveries
    (`tagmill_webhook_metrics`); hits and quarantined entries of hash banks (`tagmill_bank_metrics`); devices of
    workers, bytes in the database and in the blob store (`tagmill_system_metrics`); items of the last hour for which
    something was reused (`tagmill_reuse_metrics`); erasures in work (`tagmill_erasure_metrics`); pictures that living
    processes have decided late since their start; how long GPUs computed, and had work, since then; dead rows of the
    queue, which an old transaction keeps; what waits for people, as maintenance counted it last (`db.review_load`)."""
    rows = session.execute(
        text(
            "SELECT name, labels, value FROM tagmill_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_drift_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_shadow_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_webhook_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_bank_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_system_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_reuse_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_erasure_metrics()"
            " UNION ALL SELECT 'late_pictures', jsonb_build_object('role', role), sum((stats ->> 'late')::float8)"
            " FROM workers WHERE stats ? 'late' AND gone_at IS NULL AND last_seen_at > now() - interval '30 seconds'"
            " GROUP BY role"
            " UNION ALL SELECT told.name, jsonb_build_object('device', stats ->> 'device'),"
            " sum((stats ->> told.of)::float8) FROM workers, (VALUES ('device_busy_seconds', 'device_busy_s'),"
            " ('device_wall_seconds', 'device_wall_s')) told (name, of)"
            " WHERE stats ? told.of AND gone_at IS NULL AND last_seen_at > now() - interval '30 seconds'"
            " GROUP BY told.name, stats ->> 'device'"
            " UNION ALL SELECT 'dead_rows', jsonb_build_object('table', relname), n_dead_tup::float8"
            " FROM pg_stat_user_tables WHERE relname = 'chunks' AND schemaname = 'public'"
        )
    )
    found = [Sample(name, dict(labels), float(value)) for name, labels, value in rows]
    return found + [Sample(*each) for each in review_load.told(session)]


def throughput(session: Session, minutes: int = 60) -> dict[str, list[tuple[float, float]]]:
    """Stage → items that it ended in each of the last minutes, as (Unix seconds of the minute, items); minutes in
    which nothing ended are there too, the current one is not."""
    begin: datetime = session.execute(text("SELECT date_trunc('minute', now())")).scalar_one()
    counted = {(row.minute, row.stage): float(row.items) for row in session.execute(_THROUGHPUT)}
    steps = [begin - timedelta(minutes=back) for back in range(minutes, 0, -1)]
    return {
        stage: [(step.timestamp(), counted.get((step, stage), 0.0)) for step in steps] for stage in ("ingest", "infer")
    }


_THROUGHPUT = text("SELECT minute, stage, items FROM tagmill_throughput()")
