"""Numbers for the operator's metrics: sums over all accounts, never a row of one."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session


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
    (`tagmill_webhook_metrics`)."""
    rows = session.execute(
        text(
            "SELECT name, labels, value FROM tagmill_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_drift_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_shadow_metrics()"
            " UNION ALL SELECT name, labels, value FROM tagmill_webhook_metrics()"
        )
    )
    return [Sample(name, dict(labels), float(value)) for name, labels, value in rows]
