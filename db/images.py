"""Images by content (SHA-256 of their bytes) and the stored scores of models: the same bytes are analysed once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

Digest = bytes
"""256 bits."""


@dataclass(frozen=True)
class ImageRecord:
    """An ingested picture: `width` × `height` pixels after orientation, `bytes` of the original, and its facts
    (`pdq` 32 bytes; `colours` [{name, hex, share}]; `sharpness` variance of the Laplacian). A fact switched off
    is None. `work_key`/`work_sha256` name the working copy in the blob store and pin its bytes; `made_by` says which
    normaliser, in which settings, made it."""

    sha256: Digest
    work_key: str
    bytes: int
    width: int
    height: int
    format: str
    work_sha256: Digest | None = None
    pdq: Digest | None = None
    pdq_quality: int | None = None
    colours: list[dict[str, Any]] | None = None
    sharpness: float | None = None
    made_by: int | None = None


def known(
    session: Session, account_id: int, shas: Sequence[bytes], made_by: int | None = None
) -> dict[bytes, ImageRecord]:
    """Those of these bytes that have a working copy already; with `made_by`, one that this normaliser made."""
    rows = session.execute(_KNOWN, {"account_id": account_id, "shas": list(shas), "made_by": made_by})
    return {bytes(row.sha256): record_of(row) for row in rows}


def record_images(session: Session, account_id: int, images: Sequence[ImageRecord]) -> None:
    """Add images; those known already get the working copy and the facts that were just made. Facts that were not asked
    for this time stay as they were."""
    if not images:
        return
    rows = [
        {
            "sha256": image.sha256.hex(),
            "work_key": image.work_key,
            "work_sha256": image.work_sha256.hex() if image.work_sha256 else None,
            "bytes": image.bytes,
            "width": image.width,
            "height": image.height,
            "format": image.format,
            "pdq": image.pdq.hex() if image.pdq else None,
            "pdq_quality": image.pdq_quality,
            "colours": image.colours,
            "sharpness": image.sharpness,
            "made_by": image.made_by,
        }
        for image in sorted(images, key=lambda image: image.sha256)
    ]
    session.execute(_ADD_IMAGES, {"account_id": account_id, "rows": json.dumps(rows)})


def analyses_of(session: Session, account_id: int, shas: Sequence[bytes], model: str) -> dict[bytes, dict[str, Any]]:
    """The stored scores of this model version ("name@version") for those of these bytes that have any."""
    rows = session.execute(
        text(
            "SELECT sha256, scores FROM analyses"
            " WHERE account_id = :account_id AND model = :model AND sha256 = ANY(:shas)"
        ),
        {"account_id": account_id, "model": model, "shas": list(shas)},
    )
    return {bytes(sha): scores for sha, scores in rows}


def record_analyses(session: Session, account_id: int, model: str, scores: Mapping[bytes, dict[str, Any]]) -> None:
    """Store scores by bytes, of images that are there; those stored already stay (sorted, so that two writers never
    deadlock)."""
    if not scores:
        return
    rows = [{"sha256": sha.hex(), "scores": scores[sha]} for sha in sorted(scores)]
    session.execute(_ADD_ANALYSES, {"account_id": account_id, "model": model, "rows": json.dumps(rows)})


def record_of(row: Any) -> ImageRecord:
    """The image in a row with these `COLUMNS`."""
    return ImageRecord(
        sha256=bytes(row.sha256),
        work_key=row.work_key,
        bytes=row.bytes,
        width=row.width,
        height=row.height,
        format=row.format,
        work_sha256=None if row.work_sha256 is None else bytes(row.work_sha256),
        pdq=None if row.pdq is None else int(row.pdq, 2).to_bytes(32, "big"),
        pdq_quality=row.pdq_quality,
        colours=row.colours,
        sharpness=row.sharpness,
        made_by=row.made_by,
    )


# Of an image row `i`; `record_of` reads them.
COLUMNS = """i.sha256, i.work_key, i.work_sha256, i.bytes, i.width, i.height, i.format, i.pdq::text AS pdq,
      i.pdq_quality, i.colours, i.sharpness, i.made_by"""
_KNOWN = text(
    f"""
    SELECT {COLUMNS} FROM images i
    WHERE i.account_id = :account_id AND i.sha256 = ANY(:shas)
      AND (CAST(:made_by AS bigint) IS NULL OR i.made_by = :made_by)
    """
)
_ADD_IMAGES = text(
    """
    INSERT INTO images (account_id, sha256, work_key, work_sha256, bytes, width, height, format, pdq, pdq_quality,
      colours, sharpness, made_by)
    SELECT :account_id, decode(sha256, 'hex'), work_key, decode(work_sha256, 'hex'), bytes, width, height, format,
      ('x' || pdq)::bit(256), pdq_quality, colours, sharpness, made_by
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(sha256 text, work_key text, work_sha256 text, bytes int,
      width int, height int, format text, pdq text, pdq_quality smallint, colours jsonb, sharpness real,
      made_by bigint)
    ON CONFLICT (account_id, sha256) DO UPDATE SET work_key = excluded.work_key, work_sha256 = excluded.work_sha256,
      made_by = excluded.made_by, aged_at = NULL,
      pdq = coalesce(excluded.pdq, images.pdq), pdq_quality = coalesce(excluded.pdq_quality, images.pdq_quality),
      colours = coalesce(excluded.colours, images.colours), sharpness = coalesce(excluded.sharpness, images.sharpness)
    WHERE images.aged_at IS NOT NULL
      OR images.work_key <> excluded.work_key OR images.made_by IS DISTINCT FROM excluded.made_by
      OR images.pdq IS NULL AND excluded.pdq IS NOT NULL
      OR images.colours IS NULL AND excluded.colours IS NOT NULL
      OR images.sharpness IS NULL AND excluded.sharpness IS NOT NULL
    """
)
_ADD_ANALYSES = text(
    """
    INSERT INTO analyses (account_id, sha256, model, scores)
    SELECT :account_id, decode(sha256, 'hex'), :model, scores
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(sha256 text, scores jsonb)
    WHERE EXISTS (SELECT FROM images i WHERE i.account_id = :account_id AND i.sha256 = decode(r.sha256, 'hex'))
    ON CONFLICT DO NOTHING
    """
)
