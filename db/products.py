"""The catalog's view: the tags of a product's pictures combined, each with where it came from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.decisions import decision_of, overlaid
from db.errors import NotFound
from db.ids import item_id
from db.labels import VERDICT, labels_of
from db.states import VERDICTS
from db.urls import without_fragment

MAX_PICTURES = 200
"""The newest pictures of a product that are combined."""
MAX_ROWS = 5000
"""The newest results of a product that are looked at, repeated analyses of the same pictures included."""


@dataclass(frozen=True)
class ProductView:
    """A product: its pictures (newest first, one entry per distinct picture), the combined tags and verdict."""

    product_id: str
    pictures: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    verdict: str | None


def view(session: Session, account_id: int, product_id: str) -> ProductView:
    """The product as its analysed pictures show it; NotFound when no item names it."""
    parameters = {"account_id": account_id, "product_id": product_id, "limit": MAX_ROWS}
    rows = session.execute(_ROWS, parameters).mappings().all()
    if not rows:
        raise NotFound("No item names this product.")
    read = [dict(row) | {"moderation": overlaid(row["moderation"], row["decision"])} for row in rows]
    pictures = distinct(read)[:MAX_PICTURES]
    return ProductView(product_id, pictures, combine(pictures), worst_verdict(pictures))


def distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per distinct picture from result rows, newest first.

    A source (URL or upload) shows the bytes it showed last; a failure counts only where the source never succeeded. Of
    several analyses of the same bytes the newest tags and the newest verdict speak, each for itself: a later job that
    asked for tags only takes no verdict away.
    """
    latest: dict[str, dict[str, Any]] = {}
    for row in rows:
        seen = latest.setdefault(_source(row), row)
        if seen["outcome"] != "done" and row["outcome"] == "done":
            latest[_source(row)] = row
    by_bytes: dict[bytes, list[dict[str, Any]]] = {}
    for row in rows:
        if row["outcome"] == "done":
            by_bytes.setdefault(bytes(row["sha256"]), []).append(row)
    shown: dict[object, dict[str, Any]] = {}
    for source, row in latest.items():
        same = by_bytes.get(bytes(row["sha256"]), [row]) if row["outcome"] == "done" else [row]
        shown.setdefault(row["sha256"] if row["outcome"] == "done" else source, _picture(row, same))
    return list(shown.values())


def _source(row: dict[str, Any]) -> str:
    return without_fragment(row["url"]) if row["url"] is not None else f"raw:{row['raw_key']}"


def _picture(row: dict[str, Any], same: list[dict[str, Any]]) -> dict[str, Any]:
    """`same`: all results of these bytes, newest first."""
    tags: list[dict[str, Any]] = next((other["tags"] for other in same if other["tags"] is not None), [])
    judged: dict[str, Any] = next((other["moderation"] for other in same if other["moderation"] is not None), {})
    public_id = item_id(row["job_id"], row["seq"])
    return {
        "item_id": public_id,
        "id": row["client_id"] or public_id,
        "url": row["url"],
        "filename": row["filename"],
        "outcome": row["outcome"],
        "code": row["code"],
        "sha256": None if row["sha256"] is None else bytes(row["sha256"]).hex(),
        "verdict": judged.get("verdict"),
        "automatic": judged.get("automatic"),
        "decision": judged.get("decision"),
        "tags": tags,
        "labels": row["labels"] or [],
    }


def combine(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tags over all pictures, best first: `score` is the highest, `pictures` how many show it, `sources` which.

    The highest score and not the mean: a detail photographed once (a collar, say) is still the product's. Where a
    person has spoken of a group of a picture, the model's tags of it do not count.
    """
    combined: dict[tuple[str, str], dict[str, Any]] = {}
    for picture in pictures:
        for tag in spoken(picture):
            entry = combined.setdefault(
                (tag["group"], tag["label"]),
                {"label": tag["label"], "group": tag["group"], "score": 0.0, "pictures": 0, "sources": []},
            )
            entry["score"] = max(entry["score"], tag["score"])
            entry["pictures"] += 1
            source = {"item_id": picture["item_id"], "score": tag["score"], "model": tag["model"]}
            entry["sources"].append(source)
    return sorted(combined.values(), key=lambda tag: (-tag["score"], tag["group"], tag["label"]))


def spoken(picture: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tags of a picture that count: a person's labels, of score 1 and without a model, and the model's tags of
    the other groups."""
    groups = {label["group"] for label in picture["labels"]}
    yield from (tag for tag in picture["tags"] if tag["group"] not in groups)
    for label in picture["labels"]:
        if label["group"] != VERDICT:
            for name in label["labels"]:
                yield {"label": name, "group": label["group"], "score": 1.0, "model": None}


def worst_verdict(pictures: list[dict[str, Any]]) -> str | None:
    """The most severe verdict of the pictures, where one without a verdict (it failed, or nobody asked) counts as
    `review`; None when no picture has a verdict at all."""
    verdicts = [picture["verdict"] for picture in pictures]
    if not any(verdicts):
        return None
    return max((verdict or "review" for verdict in verdicts), key=VERDICTS.index)


_ROWS = text(
    f"""
    SELECT i.job_id, i.seq, i.client_id, i.url, i.filename, i.raw_key, r.outcome, r.code, r.sha256, r.tags,
      r.moderation, {labels_of("i.account_id", "r.sha256")},
      {decision_of("i.account_id", "r.sha256", "j.context")}
    FROM items i JOIN jobs j ON j.id = i.job_id
    LEFT JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq
    WHERE i.account_id = :account_id AND i.product_id = :product_id
    ORDER BY i.job_id DESC, i.seq LIMIT :limit
    """
)
