"""The retention clocks, as maintenance runs them: each that is set, step by step, for a bounded time."""

import time
from collections.abc import Callable
from typing import Final

from db import datasets, locks, retention
from db.blob_store import Blobs
from db.errors import BlobError
from db.retention import Dropped
from db.session import Database, Session
from ml.errors import DatasetError
from worker import manifests
from worker.log import get
from worker.settings import WorkerSettings

BUDGET_S: Final = 20.0
"""How long one kind is worked off at a time: what is left waits for the next turn."""


def run_once(settings: WorkerSettings, database: Database, open_blobs: Callable[[], Blobs]) -> int:
    """One turn of every clock that is set; how many things were dropped."""
    steps: dict[str, Callable[[Session], Dropped]] = {}
    if (uploads := settings.retain_uploads_days) is not None:
        steps["uploads"] = lambda session: retention.uploads(session, uploads)
    if (copies := settings.retain_copies_days) is not None:
        needed = named_by_datasets(database, open_blobs())
        if needed is not None:
            steps["copies"] = lambda session: retention.copies(session, copies, needed)
    if (results := settings.retain_results_days) is not None:
        steps["results"] = lambda session: retention.results(session, results)
    if (evidence := settings.retain_evidence_days) is not None:
        steps["evidence"] = lambda session: retention.evidence(session, evidence)
    if (audit := settings.retain_audit_days) is not None:
        steps["audit"] = lambda session: retention.audit(session, audit)
    return sum(_turn(database, kind, step) for kind, step in steps.items())


def named_by_datasets(database: Database, blobs: Blobs) -> frozenset[str] | None:
    """The working copies that datasets name; None where that cannot be known, and so nothing may go."""
    with database.transaction() as session:
        stored = [each for each in datasets.every(session) if each.images_root == manifests.IN_STORE]
    named: set[str] = set()
    for dataset in stored:
        try:
            named |= {entry.image for entry in manifests.load(blobs, dataset).entries}
        except (BlobError, DatasetError) as error:
            get("retention").error("no working copy dropped", dataset=dataset.ref, code=error.code)
            return None
    return frozenset(named)


def _turn(database: Database, kind: str, step: Callable[[Session], Dropped]) -> int:
    dropped = 0
    until = time.monotonic() + BUDGET_S
    more = True
    while more and time.monotonic() < until:
        with database.transaction() as session:
            if not locks.try_lock(session, "retention", kind):
                break
            made = step(session)
            if made.count:
                retention.note(session, kind, made.count)
        dropped += made.count
        more = made.more
    if dropped:
        get("retention").info("dropped for their age", kind=kind, dropped=dropped)
    return dropped
