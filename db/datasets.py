"""Datasets: versions of labelled sets of pictures, known by the hash of their manifest. Rows are only added, and
changed by nothing but an erasure."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import blob_removals
from db.errors import Conflict, NotFound
from db.tables import Dataset


def add(
    session: Session,
    name: str,
    version: str,
    sha256: str,
    *,
    manifest_key: str,
    images_root: str,
    entries: int,
    summary: Mapping[str, Any],
) -> Dataset:
    """Register a version. The same one again with the same content is the row that is there; with another, a
    Conflict: results that name it must stay explicable."""
    known = session.scalar(select(Dataset).where(Dataset.name == name, Dataset.version == version))
    if known is not None:
        if known.sha256 != sha256:
            raise Conflict(f"{known.ref} is registered with other content (SHA-256 {known.sha256}).")
        return known
    row_id = session.execute(
        text(
            "INSERT INTO datasets (name, version, sha256, manifest_key, images_root, entries, summary)"
            " VALUES (:name, :version, :sha256, :key, :root, :entries, CAST(:summary AS jsonb)) RETURNING id"
        ),
        {
            "name": name,
            "version": version,
            "sha256": sha256,
            "key": manifest_key,
            "root": images_root,
            "entries": entries,
            "summary": json.dumps(dict(summary)),
        },
    ).scalar_one()
    return session.get_one(Dataset, row_id)


def shrink(
    session: Session,
    dataset_id: int,
    sha256: str,
    *,
    manifest_key: str,
    entries: int,
    counts: Mapping[str, Any],
    erased: int,
) -> None:
    """Another manifest, without pictures that were erased, takes the place of a version's; its summary says how many
    are missing. The old manifest is to be removed, unless another dataset has it."""
    parameters = {
        "id": dataset_id,
        "sha256": sha256,
        "key": manifest_key,
        "entries": entries,
        "counts": json.dumps(counts),
        "erased": erased,
    }
    old = session.execute(_OLD, parameters).scalar_one()
    session.execute(_SHRINK, parameters)
    if not session.scalar(_NAMED, {"key": old}):
        blob_removals.ask(session, 0, [old])


def by_ref(session: Session, ref: str) -> Dataset:
    """name@version, or a name alone for its newest version; NotFound."""
    name, at, version = ref.rpartition("@")
    query = select(Dataset).where(Dataset.name == (name if at else ref)).order_by(Dataset.id.desc()).limit(1)
    found = session.scalar(query.where(Dataset.version == version) if at else query)
    if found is None:
        raise NotFound(f"No dataset {ref} is registered.")
    return found


def by_id(session: Session, dataset_id: int) -> Dataset:
    """The dataset of a run or an evaluation."""
    return session.get_one(Dataset, dataset_id)


def every(session: Session) -> list[Dataset]:
    """All versions, oldest first."""
    return list(session.scalars(select(Dataset).order_by(Dataset.id)))


_OLD = text("SELECT manifest_key FROM datasets WHERE id = :id FOR UPDATE")
_SHRINK = text(
    """
    UPDATE datasets SET sha256 = :sha256, manifest_key = :key, entries = :entries,
      summary = summary || jsonb_build_object('counts', CAST(:counts AS jsonb),
        'erased', coalesce((summary ->> 'erased')::int, 0) + :erased) WHERE id = :id
    """
)
_NAMED = text("SELECT EXISTS (SELECT FROM datasets WHERE manifest_key = :key)")
