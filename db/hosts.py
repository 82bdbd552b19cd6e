"""Web hosts that asked to be left alone for a while: kept here so that a crawler's restart does not forget it."""

from collections.abc import Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session


def blocked_until(session: Session, hosts: Sequence[str] | None = None) -> dict[str, float]:
    """Seconds from now until each host (of these, or any) may be asked again; free hosts are not in it."""
    rows = session.execute(
        text(
            "SELECT host, extract(epoch FROM not_before - now())::float8 FROM hosts"
            " WHERE not_before > now() AND (CAST(:hosts AS text[]) IS NULL OR host = ANY(:hosts))"
        ),
        {"hosts": None if hosts is None else list(hosts)},
    )
    return dict(rows.all())


def defer(session: Session, seconds_by_host: Mapping[str, float]) -> None:
    """Leave these hosts alone for so many seconds from now; a later time that is known already stays."""
    for host in sorted(seconds_by_host):
        session.execute(
            text(
                "INSERT INTO hosts (host, not_before) VALUES (:host, now() + make_interval(secs => :seconds))"
                " ON CONFLICT (host) DO UPDATE SET updated_at = now(),"
                " not_before = greatest(hosts.not_before, excluded.not_before)"
            ),
            {"host": host, "seconds": seconds_by_host[host]},
        )


def forget(session: Session) -> None:
    """Drop hosts that have been free for a day."""
    session.execute(text("DELETE FROM hosts WHERE not_before < now() - interval '1 day'"))
