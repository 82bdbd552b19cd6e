"""Takes erased pictures out of datasets: a manifest without them takes the old one's place, under its own hash.

A dataset of stored pictures names working copies; one of a folder names files, which are its owner's to remove. What
was trained with a picture stays: a network's weights hold no picture that could be taken out.
"""

from collections import Counter
from dataclasses import replace
from uuid import UUID

from db import blob_removals, datasets, erasures
from db.blob_store import Blobs
from db.blobs import manifest_key
from db.errors import BlobError
from db.session import Database
from db.tables import Dataset
from ml.errors import DatasetError
from ml.manifest import Entry, Manifest
from worker import manifests
from worker.log import get


def forget(database: Database, blobs: Blobs, erasure_id: UUID) -> Counter[str]:
    """Remove the pictures of an erasure from every dataset that has them; how many entries."""
    counts: Counter[str] = Counter()
    with database.transaction() as session:
        erasure = erasures.by_id(session, erasure_id)
        keys = frozenset(blob_removals.of(session, erasure_id))
        found = datasets.every(session)
    everywhere = erasure.target if erasure.account_id is None else None

    def erased(dataset: Dataset, entry: Entry) -> bool:
        return (dataset.images_root == manifests.IN_STORE and entry.image in keys) or entry.sha256 == everywhere

    for dataset in found:
        if dataset.images_root != manifests.IN_STORE and everywhere is None:
            continue
        try:
            manifest = manifests.load(blobs, dataset)
        except (BlobError, DatasetError) as error:
            get("erasing").error("dataset not looked through", dataset=dataset.ref, code=error.code, error=str(error))
            continue
        gone = [entry for entry in manifest.entries if erased(dataset, entry)]
        if gone:
            _without(database, blobs, dataset, manifest, {entry.image for entry in gone})
            counts["dataset_entries"] += len(gone)
            counts["files_to_remove_by_hand"] += len(gone) * (dataset.images_root != manifests.IN_STORE)
    return +counts


def _without(database: Database, blobs: Blobs, dataset: Dataset, manifest: Manifest, gone: set[str]) -> None:
    kept = replace(manifest, entries=tuple(entry for entry in manifest.entries if entry.image not in gone))
    manifests.put(blobs, kept)
    with database.transaction() as session:
        datasets.shrink(
            session,
            dataset.id,
            kept.sha256,
            manifest_key=manifest_key(kept.sha256),
            entries=len(kept.entries),
            counts=kept.counts(),
            erased=len(gone),
        )
