"""Datasets from lists of URLs: a CSV with labels, fetched by the crawler as a job, becomes labelled stored pictures.

    lines ─► job over the API ─► (the crawler's work) ─► results by line ─► working copies, checked ─► assemble

A URL that does not lead to a picture is listed with its code; the others go on.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from db import dataset_pictures, images, urls
from db.blob_store import Blobs
from db.images import ImageRecord
from db.session import Database
from ml.errors import DatasetError
from ml.importers import Seen, assemble
from ml.manifest import Group
from ml.tables import Column, Row, read
from worker.client import Client, ClientError
from worker.screen import counted
from worker.stored_pictures import Gathered, host_of, pinned

_BATCH = 1000
OURS = ("url", "host", "job", "label_source")  # columns that an entry gets whatever the list has


@dataclass(frozen=True)
class Pool:
    """The labelled URLs of a list, and the codes of those that need not be asked for, by line."""

    source: Path
    groups: Mapping[str, Group]
    rows: tuple[Row, ...]
    refused: Mapping[int, str]

    def body(self) -> Iterator[bytes]:
        """The job, a line for each URL; its `id` is the line of the list, by which results are found again."""
        for row in self.rows:
            if row.line not in self.refused:
                item = {"url": row.image, "id": str(row.line)}
                if product := row.columns.get("product_id", "").strip():
                    item["product_id"] = product
                yield json.dumps(item, ensure_ascii=False).encode() + b"\n"


def pool(source: Path, columns: Mapping[str, Column], *, url: str, split: str | None, by: str | None) -> Pool:
    """Read the list before anything is fetched. Raises ClientError('labels_missing') without label columns, and
    DatasetError('table_invalid', 'class_missing', 'dataset_empty')."""
    if not columns:
        raise ClientError(
            "labels_missing",
            f"{source}: a dataset needs labels. Name the columns that hold them (--label, --attribute); or submit the"
            " URLs as a job, label its pictures, and make the dataset with `tagmill datasets import --from-reviews`"
            " or `--from-job`.",
        )
    if not source.is_file():
        raise ClientError("no_such_file", f"{source}: no such file")
    groups, rows = read(source, columns, _url, image=url, split=split, wanted=None if by in OURS else by)
    refused = {row.line: code for row in rows if (code := urls.check(row.image)) is not None}
    if len(refused) == len(rows):
        raise DatasetError("dataset_empty", f"{source}: no URL that can be fetched")
    return Pool(source, groups, tuple(rows), refused)


def gather(
    database: Database,
    blobs: Blobs,
    client: Client,
    pool: Pool,
    job_id: str,
    *,
    name: str,
    version: str,
    by: str | None,
) -> Gathered:
    """The dataset of what a settled job fetched of the list; what it did not fetch is reported with its code.

    Raises ApiProblem, Unreachable, NotFound (a job of another system), DatasetError.
    """
    outcomes = _outcomes(client, job_id, {row.line: row.image for row in pool.rows})
    with database.transaction() as session:
        account_id = dataset_pictures.account_of(session, UUID(job_id))
    records = _records(database, account_id, {sha for sha, _ in outcomes.values() if sha is not None})
    rows: list[Row] = []
    seen: list[Seen] = []
    first: dict[str, Row] = {}
    notes: list[str] = []
    repeated = 0
    for row in pool.rows:
        sha, code = outcomes.get(row.line, (None, pool.refused.get(row.line, "not_submitted")))
        image = records.get(sha) if sha is not None else None
        if image is None:
            rows.append(row)
            seen.append(code or "blob_missing")
            continue
        before = first.setdefault(image.work_key, row)
        if before is not row:
            repeated += 1
            if before.labels != row.labels:
                notes.append(f"line {row.line} has other labels than line {before.line}, which shows the same picture")
            continue
        rows.append(replace(row, image=image.work_key, columns=_columns(row, job_id)))
        seen.append(pinned(blobs, image.work_key, image.work_sha256, image.pdq, image.pdq_quality or 0))
    if repeated:
        notes.insert(0, f"{counted(repeated, 'URL')} left out: the same picture as on an earlier line")
    made = assemble(name, version, pool.groups, rows, seen, column=by, origin=str(pool.source))
    return Gathered(made, tuple(notes))


def _url(text: str) -> str:
    if not text:
        raise ValueError("no URL")
    return text


def _outcomes(client: Client, job_id: str, url_of: Mapping[int, str]) -> dict[int, tuple[bytes | None, str | None]]:
    """By line of the list: the SHA-256 of the picture, or the code of the failure."""
    found: dict[int, tuple[bytes | None, str | None]] = {}
    for row in _results(client, job_id):
        line = int(row["id"]) if row["id"].isdecimal() else 0
        if line not in url_of or url_of[line] != row["url"]:
            what = row["url"] or row["filename"] or row["item_id"]
            raise ClientError(
                "wrong_job", f"job {job_id} did not fetch this list: its line {line or '?'} is not {what}"
            )
        facts = row["facts"] if row["outcome"] == "done" else None
        found[line] = (bytes.fromhex(facts["sha256"]) if facts else None, row["code"])
    return found


def _results(client: Client, job_id: str) -> Iterator[dict[str, Any]]:
    rest = b""
    with client.results(job_id, "ndjson") as stream:
        for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, lines)


def _records(database: Database, account_id: int, shas: set[bytes]) -> dict[bytes, ImageRecord]:
    found: dict[bytes, ImageRecord] = {}
    every: Sequence[bytes] = sorted(shas)
    for start in range(0, len(every), _BATCH):
        with database.transaction() as session:
            found |= images.known(session, account_id, every[start : start + _BATCH])
    return found


def _columns(row: Row, job_id: str) -> dict[str, str]:
    """What is known of a picture for slices; the list's own columns win."""
    values = (row.image, host_of(row.image), job_id, "list")
    return dict(zip(OURS, values, strict=True)) | dict(row.columns)
