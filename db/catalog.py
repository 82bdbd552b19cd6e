"""The catalog as people browse it: which products there are, and where a product's pictures contradict each other.

What a product shows is `db.products`' business; nothing is changed here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.labels import VERDICT, Group

LIKE: Final = str.maketrans({"%": r"\%", "_": r"\_", "\\": r"\\"})


@dataclass(frozen=True)
class GroupView:
    """A label group of a product. `labels`: label → how many pictures show it as their best of the group (of an
    exclusive one), or at all (of attributes), most first; `said`: of how many pictures a person said it; `conflict`:
    pictures disagree about an exclusive group and no person has settled it for all of them."""

    name: str
    kind: str
    labels: dict[str, int]
    said: int
    conflict: bool
    choices: tuple[str, ...]


def product_ids(
    session: Session, account_id: int, *, begins: str = "", after: str | None = None, limit: int = 24
) -> list[str]:
    """The account's products whose ids begin so, in order, behind `after`.

    Jumps from one product to the next in the index, so that a product of ten thousand pictures costs as much as one
    of two.
    """
    parameters = {
        "account_id": account_id,
        "pattern": begins.translate(LIKE) + "%",
        "after": after,
        "limit": limit,
    }
    return list(session.scalars(_IDS, parameters))


def groups(pictures: Iterable[Mapping[str, Any]], known: Mapping[str, Group]) -> list[GroupView]:
    """The label groups that these pictures (as `db.products` views them) show, those in conflict first; groups that
    the model knows and no picture shows come last, for people to fill in."""
    shown: dict[str, Counter[str]] = {name: Counter() for name in known}
    said: Counter[str] = Counter()
    by_machine: set[str] = set()
    for picture in pictures:
        spoken = {label["group"]: label["labels"] for label in picture["labels"] if label["group"] != VERDICT}
        said.update(spoken.keys())
        for group, labels in spoken.items():
            shown.setdefault(group, Counter()).update(labels)
        best: dict[str, list[str]] = {}
        for tag in picture["tags"]:
            if tag["group"] not in spoken:
                best.setdefault(tag["group"], []).append(tag["label"])
        for group, labels in best.items():
            exclusive = group not in known or known[group].kind == "exclusive"
            shown.setdefault(group, Counter()).update(labels[:1] if exclusive else labels)
            by_machine.add(group)
    return sorted(
        (_view(name, counts, said[name], name in by_machine, known.get(name)) for name, counts in shown.items()),
        key=lambda group: (not group.conflict, not group.labels, group.name),
    )


def _view(name: str, counts: Counter[str], said: int, by_machine: bool, group: Group | None) -> GroupView:
    kind = group.kind if group is not None else "exclusive"
    return GroupView(
        name=name,
        kind=kind,
        labels=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        said=said,
        conflict=kind == "exclusive" and len(counts) > 1 and by_machine,
        choices=group.labels if group is not None else (),
    )


_IDS = text(
    """
    WITH RECURSIVE found AS (
      (SELECT product_id FROM items
       WHERE account_id = :account_id AND product_id LIKE :pattern
         AND (CAST(:after AS text) IS NULL OR product_id > :after)
       ORDER BY product_id LIMIT 1)
      UNION ALL
      SELECT (SELECT i.product_id FROM items i
              WHERE i.account_id = :account_id AND i.product_id LIKE :pattern AND i.product_id > found.product_id
              ORDER BY i.product_id LIMIT 1)
      FROM found WHERE found.product_id IS NOT NULL)
    SELECT product_id FROM found WHERE product_id IS NOT NULL LIMIT :limit
    """
)
