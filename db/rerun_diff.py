"""The difference that publishing a rerun makes, or made: tags added and removed, verdicts flipped. Writes nothing."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.ids import item_id
from db.tables import Job, Rerun

EXAMPLES = 20
"""Changed items that a difference keeps by name."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A published result and the staged one for it; `code`: why there is no staged one."""

    seq: int
    item: str
    product_id: str | None
    old: Any
    new: Any
    code: str | None


@dataclass
class Difference:
    """Sums over the pairs seen so far. Labels are (group, label), flips (verdict before, verdict after)."""

    task: str
    same: int = 0
    changed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    added: Counter[tuple[str, str]] = field(default_factory=Counter)
    removed: Counter[tuple[str, str]] = field(default_factory=Counter)
    flipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """Count one pair."""
        if pair.code is not None:
            self.failed[pair.code] += 1
            return
        change = self._tags(pair) if self.task == "tags" else self._verdict(pair)
        if not change:
            self.same += 1
            return
        self.changed += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append({"item": pair.item, "product_id": pair.product_id, **change})

    def document(self) -> dict[str, Any]:
        """JSON-ready, most frequent first."""
        return {
            "task": self.task,
            "same": self.same,
            "changed": self.changed,
            "failed": dict(self.failed.most_common()),
            "added": [{"group": g, "label": name, "items": n} for (g, name), n in self.added.most_common()],
            "removed": [{"group": g, "label": name, "items": n} for (g, name), n in self.removed.most_common()],
            "flipped": [{"from": old, "to": new, "items": n} for (old, new), n in self.flipped.most_common()],
            "examples": self.examples,
        }

    def _tags(self, pair: Pair) -> dict[str, Any]:
        old, new = ({(tag["group"], tag["label"]) for tag in tags or []} for tags in (pair.old, pair.new))
        added, removed = sorted(new - old), sorted(old - new)
        self.added.update(added)
        self.removed.update(removed)
        if not added and not removed:
            return {}
        return {"added": [name for _, name in added], "removed": [name for _, name in removed]}

    def _verdict(self, pair: Pair) -> dict[str, Any]:
        old, new = ((side or {}).get("verdict") or "none" for side in (pair.old, pair.new))
        if old == new:
            return {}
        self.flipped[old, new] += 1
        return {"from": old, "to": new}


def batch(session: Session, rerun: Rerun, *, after: int, limit: int = 2000) -> list[Pair]:
    """The next pairs after item `after`, in order; empty at the end. What was published is compared with what it
    replaced, so that the difference stays the same after it."""
    job = session.get_one(Job, rerun.job_id)
    parameters = {"rerun": rerun.id, "job": job.id, "bucket": job.bucket, "after": after, "limit": limit}
    rows = session.execute(_PAIRS[rerun.task], parameters)
    return [
        Pair(row.seq, item_id(row.job_id, row.source_seq), row.product_id, row.old, row.new, row.code) for row in rows
    ]


_PAIRS = {
    column: text(
        f"""
        SELECT k.seq, k.job_id, k.source_seq, i.product_id, s.{column} AS new,
          CASE WHEN k.before IS NULL THEN r.{column} ELSE k.before -> 'value' END AS old,
          CASE WHEN s.seq IS NULL THEN 'open' ELSE s.code END AS code
        FROM rerun_items k
        JOIN items i ON i.bucket = k.bucket AND i.job_id = k.job_id AND i.seq = k.source_seq
        LEFT JOIN results r ON r.bucket = k.bucket AND r.job_id = k.job_id AND r.seq = k.source_seq
        LEFT JOIN results s ON s.bucket = :bucket AND s.job_id = :job AND s.seq = k.seq
        WHERE k.rerun_id = :rerun AND k.seq > :after ORDER BY k.seq LIMIT :limit
        """
    )
    for column in ("tags", "moderation")
}
