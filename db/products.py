"""The catalog's view: the tags of a product's pictures combined, each with where it came from."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.ids import item_id
from db.states import VERDICTS

MAX_PICTURES = 200
"""The newest pictures of a product that are combined."""


@dataclass(frozen=True)
class ProductView:
    """A product: its pictures (newest first, one entry per distinct picture), the combined tags and verdict."""

    product_id: str
    pictures: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    verdict: str | None


def view(session: Session, account_id: int, product_id: str) -> ProductView:
    """The product as its analysed pictures show it; NotFound when no item names it."""
    parameters = {"account_id": account_id, "product_id": product_id, "limit": MAX_PICTURES}
    rows = session.execute(_PICTURES, parameters).mappings().all()
    if not rows:
        raise NotFound("No item names this product.")
    pictures = [
        {
            "item_id": item_id(row["job_id"], row["seq"]),
            "id": row["client_id"] or item_id(row["job_id"], row["seq"]),
            "url": row["url"],
            "filename": row["filename"],
            "outcome": row["outcome"],
            "code": row["code"],
            "sha256": None if row["sha256"] is None else bytes(row["sha256"]).hex(),
            "verdict": (row["moderation"] or {}).get("verdict"),
            "tags": row["tags"] or [],
        }
        for row in rows
    ]
    return ProductView(product_id, pictures, combine(pictures), worst_verdict(pictures))


def combine(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tags over all pictures, best first: `score` is the highest, `pictures` how many show it, `sources` which.

    The highest score and not the mean: a detail photographed once (a collar, say) is still the product's.
    """
    combined: dict[tuple[str, str], dict[str, Any]] = {}
    for picture in pictures:
        for tag in picture["tags"]:
            entry = combined.setdefault(
                (tag["group"], tag["label"]),
                {"label": tag["label"], "group": tag["group"], "score": 0.0, "pictures": 0, "sources": []},
            )
            entry["score"] = max(entry["score"], tag["score"])
            entry["pictures"] += 1
            source = {"item_id": picture["item_id"], "score": tag["score"], "model": tag["model"]}
            entry["sources"].append(source)
    return sorted(combined.values(), key=lambda tag: (-tag["score"], tag["group"], tag["label"]))


def worst_verdict(pictures: list[dict[str, Any]]) -> str | None:
    """The most severe verdict of the pictures; None when none has one."""
    verdicts = [picture["verdict"] for picture in pictures if picture["verdict"] is not None]
    return max(verdicts, key=VERDICTS.index, default=None)


# One entry per distinct picture: the newest result of the same bytes speaks, older ones of re-submissions do not.
_PICTURES = text(
    """
    SELECT * FROM (
      SELECT DISTINCT ON (coalesce(encode(r.sha256, 'hex'), i.url, i.raw_key))
        i.job_id, i.seq, i.client_id, i.url, i.filename, r.outcome, r.code, r.sha256, r.tags, r.moderation
      FROM items i LEFT JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq
      WHERE i.account_id = :account_id AND i.product_id = :product_id
      ORDER BY coalesce(encode(r.sha256, 'hex'), i.url, i.raw_key), i.job_id DESC, i.seq DESC
    ) newest ORDER BY job_id DESC, seq LIMIT :limit
    """
)
