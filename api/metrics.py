"""Prometheus metrics: request counters of the process, and gauges of what the database says. Asks nothing itself."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from db.stats import Sample

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_HELP: Final = {
    "chunks": "Chunks that are not done.",
    "oldest_ready_chunk_seconds": "Age of the oldest chunk that could be claimed.",
    "expired_leases": "Leased chunks whose lease ran out.",
    "dead_rows": "Rows of a hot table that no one needs and that are still there: many, if a transaction is old.",
    "jobs": "Jobs by state.",
    "items_finished_last_hour": "Items that a stage ended in the last hour.",
    "item_failures_last_hour": "Items that failed in the last hour.",
    "items_reused_last_hour": "Items of the last hour that what was known before spared work, by kind.",
    "erasures_open": "Erasures that are not finished.",
    "erasures_oldest_seconds": "Age of the oldest of them.",
    "blob_removals_waiting": "Blobs that are to be removed and are still there.",
    "bank_hits_last_hour": "Pictures of the last hour that entries of hash banks hit.",
    "bank_entries_quarantined": "Entries of hash banks in quarantine.",
    "bank_entries_wide": "Entries of hash banks that found too many of the pictures there were.",
    "bank_oldest_change_seconds": "Age of the oldest change of a hash bank that is not worked off.",
    "devices": "Worker processes that were heard of lately, by device and whether it works.",
    "device_busy_seconds": "How long a GPU has computed, since the living processes started.",
    "device_wall_seconds": "How long it had work in that time.",
    "database_bytes": "Size of the database.",
    "table_bytes": "Size of a table with its indexes and partitions, of those from 1 MiB on.",
    "blob_bytes": "Size of the blob store by kind, as a crawler last counted it.",
    "drift_sources": "Sources by level of drift, on the newest computed day.",
    "drift_day_seconds": "How long ago that day ended.",
    "shadow_pictures": "Pictures that running shadow runs have looked at.",
    "shadow_agreement_ratio": "Share of them on which a candidate and the active model have the same best label.",
    "webhooks": "Endpoints of webhooks.",
    "webhook_pending": "Deliveries that wait for their first or next try.",
    "webhook_oldest_pending_seconds": "Age of the oldest of them.",
    "webhook_oldest_due_seconds": "How long the longest has been waiting beyond its time.",
    "webhook_attempts_last_hour": "Tries of webhooks in the last hour.",
    "webhook_given_up_last_day": "Deliveries that were given up in the last day.",
    "outbox_waiting": "Events that are not yet made into deliveries.",
    "late_pictures": "Pictures decided after waiting too long for a model, since the living processes started.",
    "review_open": "Open review tasks by reason; of the largest reasons, the others together.",
    "review_leased": "Open review tasks that a reviewer has in hand.",
    "review_oldest_waiting_seconds": "Age of the oldest open review task that nobody has in hand, by level.",
    "appeals_open": "Appeals that are not decided.",
    "appeals_oldest_seconds": "Age of the oldest of them.",
    "workers": "Processes that were heard of in the last 30 seconds.",
}


@dataclass(frozen=True)
class Requests:
    """Counters of the HTTP requests that this process served, by route (never by URL: ids would be labels)."""

    total: Counter
    seconds: Histogram


def requests(registry: CollectorRegistry) -> Requests:
    """The request metrics, registered."""
    return Requests(
        Counter("tagmill_http_requests", "Requests served.", ("method", "route", "status"), registry=registry),
        Histogram(
            "tagmill_http_request_seconds",
            "Time until the answer began.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=registry,
        ),
    )


class _FromDatabase(Collector):
    def __init__(self, samples: Sequence[Sample] | None, seconds: float) -> None:
        self._samples = samples
        self._seconds = seconds

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "tagmill_database_up", "Whether the database answered.", float(self._samples is not None)
        )
        yield GaugeMetricFamily("tagmill_database_seconds", "How long it took to ask.", self._seconds)
        families: dict[str, GaugeMetricFamily] = {}
        for sample in self._samples or ():
            names = sorted(sample.labels)
            family = families.setdefault(
                sample.name,
                GaugeMetricFamily(f"tagmill_{sample.name}", _HELP.get(sample.name, sample.name), labels=names),
            )
            family.add_metric([sample.labels[name] for name in names], sample.value)
        yield from families.values()


def exposition(registry: CollectorRegistry, samples: Sequence[Sample] | None, seconds: float) -> bytes:
    """The text that Prometheus reads. Under several processes (PROMETHEUS_MULTIPROC_DIR), counters of all of them."""
    counted = registry
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        counted = CollectorRegistry()
        MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    asked = CollectorRegistry()
    asked.register(_FromDatabase(samples, seconds))
    return generate_latest(counted) + generate_latest(asked)
