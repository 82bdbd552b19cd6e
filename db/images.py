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
    is None. `work_key`/`work_sha256` name the working copy in the blob store and pin its bytes."""

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


def known(session: Session, account_id: int, shas: Sequence[bytes]) -> dict[bytes, ImageRecord]:
    """Those of these bytes that have a working copy already."""
    rows = session.execute(_KNOWN, {"account_id": account_id, "shas": list(shas)})
    return {bytes(row.sha256): _record(row) for row in rows}


def record_images(session: Session, account_id: int, images: Sequence[ImageRecord]) -> None:
    """Add images; of those known already only the working copy changes, to the one that was just made."""
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
    """Store scores by bytes; those stored already stay (sorted, so that two writers never deadlock)."""
    if not scores:
        return
    rows = [{"sha256": sha.hex(), "scores": scores[sha]} for sha in sorted(scores)]
    session.execute(_ADD_ANALYSES, {"account_id": account_id, "model": model, "rows": json.dumps(rows)})


def _record(row: Any) -> ImageRecord:
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
    )


_KNOWN = text(
    """
    SELECT sha256, work_key, work_sha256, bytes, width, height, format, pdq::text AS pdq, pdq_quality, colours,
      sharpness FROM images WHERE account_id = :account_id AND sha256 = ANY(:shas)
    """
)
_ADD_IMAGES = text(
    """
    INSERT INTO images (account_id, sha256, work_key, work_sha256, bytes, width, height, format, pdq, pdq_quality,
      colours, sharpness)
    SELECT :account_id, decode(sha256, 'hex'), work_key, decode(work_sha256, 'hex'), bytes, width, height, format,
      ('x' || pdq)::bit(256), pdq_quality, colours, sharpness
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(sha256 text, work_key text, work_sha256 text, bytes int,
      width int, height int, format text, pdq text, pdq_quality smallint, colours jsonb, sharpness real)
    ON CONFLICT (account_id, sha256) DO UPDATE SET work_key = excluded.work_key, work_sha256 = excluded.work_sha256,
      pdq = coalesce(images.pdq, excluded.pdq), pdq_quality = coalesce(images.pdq_quality, excluded.pdq_quality),
      colours = coalesce(images.colours, excluded.colours), sharpness = coalesce(images.sharpness, excluded.sharpness)
    WHERE images.work_key <> excluded.work_key OR images.pdq IS NULL AND excluded.pdq IS NOT NULL
      OR images.colours IS NULL AND excluded.colours IS NOT NULL
      OR images.sharpness IS NULL AND excluded.sharpness IS NOT NULL
    """
)
_ADD_ANALYSES = text(
    """
    INSERT INTO analyses (account_id, sha256, model, scores)
    SELECT :account_id, decode(sha256, 'hex'), :model, scores
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(sha256 text, scores jsonb)
    ON CONFLICT DO NOTHING
    """
)
