"""The state of the installation, for its operators: queues, throughput, processes, failures, storage.

The numbers are those of /metrics (`db.stats`), sums over all accounts.
"""

import shutil
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from flask import Response

from api.console import formats
from api.console.pages import Nav, PageCall, Pages
from api.console.rendering import fragment, render
from db import stats, workers
from db.codes import CODES
from db.stats import Sample

pages = Pages(
    "system", Nav("System", "/console/system", icon="system", role="operator", order=90, group="Installation")
)
STAGES = (("ingest", "Fetch and check"), ("infer", "Networks"))
ROLES = ("crawler", "worker", "maintenance", "trainer")
OLD_S = 120.0
"""A chunk that could be claimed and has waited so long: too few of its role, or none."""


def numbers(call: PageCall) -> dict[str, Any]:
    """What the page shows."""
    with call.house.database.transaction() as session:
        samples = stats.samples(session)
        flow = stats.throughput(session)
        alive = workers.alive(session)
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_name[sample.name].append(sample)

    def of(name: str, *labels: str) -> dict[Any, float]:
        """The values of a gauge by these labels."""
        return {
            tuple(each.labels[label] for label in labels) if len(labels) > 1 else each.labels[labels[0]]: each.value
            for each in by_name[name]
        }

    def one(name: str) -> float | None:
        return by_name[name][0].value if by_name[name] else None

    disk = shutil.disk_usage(call.settings.blob_root)
    return {
        "stages": STAGES,
        "chunks": of("chunks", "stage", "state"),
        "oldest": of("oldest_ready_chunk_seconds", "stage"),
        "expired": one("expired_leases") or 0.0,
        "jobs": of("jobs", "state"),
        "finished": of("items_finished_last_hour", "stage"),
        "failures": dict(sorted(of("item_failures_last_hour", "code").items(), key=lambda each: -each[1])),
        "flow": {words: flow[stage] for stage, words in STAGES},
        "alive": alive,
        "missing": [role for role in ROLES[:3] if role not in {each["role"] for each in alive}],
        "database": one("database_bytes"),
        "tables": dict(sorted(of("table_bytes", "table").items(), key=lambda each: -each[1])),
        "blobs": of("blob_bytes", "kind"),
        "disk": disk,
        "disk_of": "temporary files" if call.settings.blob_store else "the blobs",
        "codes": CODES,
        "old_s": OLD_S,
        "size_text": formats.size,
        "clock": lambda at: f"{datetime.fromtimestamp(at, UTC):%H:%M}",
    }


@pages.page("GET", "/console/system", role="operator", title="System")
def show(call: PageCall) -> Response:
    """Everything that /metrics says of the database, for people."""
    return render(call, "system.html", **numbers(call))


@pages.page("GET", "/console/system/now", role="operator")
def now(call: PageCall) -> Response:
    """The same, in the place of an older one."""
    return fragment(call, "system_now.html", **numbers(call))
