"""Keeps the manifests of datasets in the blob store, under the hash of their content, and gives them back checked."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from db import datasets
from db.blob_keys import is_key
from db.blob_store import Blobs
from db.blobs import manifest_key
from db.session import Database
from db.tables import Dataset
from ml.errors import DatasetError
from ml.manifest import Entry, Manifest, from_dict

IN_STORE: Final = "blob-store:"
"""The images' root of a dataset of stored pictures: wherever this process sees the blob store."""


@contextmanager
def pictures(blobs: Blobs, dataset: Dataset, manifest: Manifest) -> Iterator[Path]:
    """The folder that the paths of a dataset's pictures begin at, for the length of the block: pictures of an object
    store are fetched into one."""
    if dataset.images_root != IN_STORE:
        yield Path(dataset.images_root)
        return
    with blobs.folder_of({entry.image for entry in manifest.entries if is_key(entry.image)}) as folder:
        yield folder


def store(database: Database, blobs: Blobs, manifest: Manifest, images_root: str, found: Mapping[str, Any]) -> Dataset:
    """Register a version of a dataset; `found`: what its import saw, for the lists. Raises Conflict for a known
    version with other content, and DatasetError('manifest_invalid') for one that `load` would refuse."""
    from_dict(json.loads(json.dumps(manifest.to_dict())))
    digest = manifest.sha256
    key = put(blobs, manifest)
    groups = {name: {"kind": group.kind, "labels": list(group.labels)} for name, group in manifest.groups.items()}
    summary = {"groups": groups, "counts": manifest.counts(), **found}
    with database.transaction() as session:
        return datasets.add(
            session,
            manifest.name,
            manifest.version,
            digest,
            manifest_key=key,
            images_root=images_root,
            entries=len(manifest.entries),
            summary=summary,
        )


def put(blobs: Blobs, manifest: Manifest) -> str:
    """Store the manifest under the hash of its content; its key."""
    key = manifest_key(manifest.sha256)
    blobs.put(key, json.dumps(manifest.to_dict(), ensure_ascii=False).encode())
    return key


def load(blobs: Blobs, dataset: Dataset) -> Manifest:
    """The manifest as it was registered. Raises BlobMissing, DatasetError('dataset_changed')."""
    manifest = from_dict(json.loads(blobs.get(dataset.manifest_key)))
    if manifest.sha256 != dataset.sha256:
        raise DatasetError("dataset_changed", f"the stored manifest of {dataset.ref} is not the registered one")
    return manifest


def entries_of(manifest: Manifest, split: str) -> tuple[Entry, ...]:
    """The pictures of a split; DatasetError('dataset_empty') that says which splits there are, if it has none."""
    found = tuple(manifest.split(split))
    if not found:
        there = ", ".join(sorted({entry.split for entry in manifest.entries})) or "none"
        detail = f"{manifest.name}@{manifest.version} has no picture in split {split!r}; its splits: {there}"
        raise DatasetError("dataset_empty", detail, field="split")
    return found
