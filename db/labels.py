"""What people say is in a picture, by label group. Rows are only added: the newest of a group counts, older ones are
its history. A model's tags stay what the model said; whoever reads both lets a person's word win.

Labels belong to the bytes (SHA-256) and not to the item that they were said of: the same picture elsewhere, and in
any rerun, has them too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.errors import Conflict, DbError, NotFound
from db.ids import item_id, parse_item_id
from db.learning_tables import LabelRow
from db.tables import ModelVersion

VERDICT: Final = "verdict"
"""The group of a moderator's decisions (approve, reject): no model's tags, and not for the labelling of pictures."""
MAX_HISTORY: Final = 100

Value = str | Sequence[str] | None


@dataclass(frozen=True)
class Group:
    """The labels of a group that a model knows; of `exclusive` ones exactly one holds, of `attributes` any number."""

    kind: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """A person's word on one group: what is there and what is not; `present` None takes an earlier word back."""

    group: str
    kind: str
    present: tuple[str, ...] | None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """The picture of an item, and the model whose labels people choose from ("name@version"; None: there is none)."""

    account_id: int
    job_id: UUID
    seq: int
    sha256: bytes
    model: str | None


@dataclass(frozen=True)
class LabelFault:
    """What is wrong with the word on one group. `code`: unknown_group, unknown_label or label_count."""

    code: str
    group: str
    detail: str


class BadLabels(DbError):
    """Labels that cannot be said of this picture; `faults` says which and why."""

    code = "invalid_labels"

    def __init__(self, faults: Sequence[LabelFault]) -> None:
        super().__init__("; ".join(f"{fault.group}: {fault.detail}" for fault in faults))
        self.faults = tuple(faults)


def subject(session: Session, account_id: int, public_id: str) -> Subject:
    """The picture of an item; NotFound, and Conflict for an item without a picture. The model is the one whose tags
    the item shows, else the active one. Who goes on to say something of it asks under `erasure_fence.share_lock`."""
    try:
        job_id, seq = parse_item_id(public_id)
    except ValueError:
        raise NotFound("There is no such item.") from None
    row = session.execute(_SUBJECT, {"account_id": account_id, "job_id": job_id, "seq": seq}).first()
    if row is None:
        raise NotFound("There is no such item.")
    if row.sha256 is None:
        raise Conflict("The item has no picture yet, or could not be read.")
    return Subject(account_id, job_id, seq, bytes(row.sha256), row.model)


def vocabulary(session: Session, model: str | None) -> dict[str, Group]:
    """The label groups of a registered model, in the order of its outputs; empty without one."""
    name, _, version = (model or "").rpartition("@")
    card = session.scalar(select(ModelVersion.card).where(ModelVersion.name == name, ModelVersion.version == version))
    labels: dict[str, list[str]] = {}
    for label in (card or {}).get("labels", ()):
        labels.setdefault(label["group"], []).append(label["name"])
    head = (card or {}).get("head", {})
    softmax = {group for group in labels if (head if isinstance(head, str) else head.get(group)) == "softmax"}
    return {
        group: Group("exclusive" if group in softmax else "attributes", tuple(names)) for group, names in labels.items()
    }


def kinds(session: Session, account_id: int, groups: Iterable[str]) -> dict[str, str]:
    """The kinds of those of these groups that the account's people have used before."""
    found = {}
    for group in groups:
        newest = select(LabelRow.kind).where(LabelRow.account_id == account_id, LabelRow.group == group)
        kind = session.scalar(newest.order_by(LabelRow.id.desc()).limit(1))
        if kind is not None:
            found[group] = kind
    return found


def said(
    values: Mapping[str, Value], known: Mapping[str, Group], *, new: bool = False, used: Mapping[str, str] | None = None
) -> list[Said]:
    """A person's words in order, checked against the `known` groups; BadLabels.

    A list says everything of a group of attributes: what it leaves out is not in the picture. None takes back. With
    `new`, labels and groups that the model does not know are taken too; then `used` says of which kind a group was
    before, and where it was not, a text makes it exclusive and a list attributes.
    """
    faults: list[LabelFault] = []
    words: list[Said] = []
    for name, value in values.items():
        group = known.get(name)
        if name == VERDICT or (group is None and not new and value is not None):
            faults.append(LabelFault("unknown_group", name, _choices("no such group; there is", known)))
            continue
        default = "exclusive" if isinstance(value, str) else "attributes"
        kind = group.kind if group else (used or {}).get(name, default)
        if value is None:
            words.append(Said(name, kind, None))
            continue
        present = tuple(dict.fromkeys([value] if isinstance(value, str) else value))
        if kind == "exclusive" and len(present) != 1:
            faults.append(LabelFault("label_count", name, "exactly one label of this group holds"))
            continue
        labels = group.labels if group else ()
        if not new and (unknown := [label for label in present if label not in labels]):
            faults.append(LabelFault("unknown_label", name, _choices(f"no label {unknown[0]!r}; there is", labels)))
            continue
        absent = tuple(label for label in labels if label not in present) if kind == "attributes" else ()
        words.append(Said(name, kind, present, absent))
    if faults:
        raise BadLabels(faults)
    return words


def record(
    session: Session,
    about: Subject,
    words: Sequence[Said],
    *,
    source: str,
    actor: str,
    comment: str | None = None,
) -> int:
    """Add what `actor` says; how many rows. What the same actor said last of the group, word for word, is not
    repeated, and nothing is taken back where nothing is said: a request may come twice.

    `source`: correction (of what a model said), decision (a moderator's) or labelling.
    """
    added = 0
    for word in words:
        parameters = {
            "account_id": about.account_id,
            "sha256": about.sha256,
            "group": word.group,
            "kind": word.kind,
            "present": None if word.present is None else list(word.present),
            "absent": list(word.absent),
            "source": source,
            "actor": actor,
            "job_id": about.job_id,
            "seq": about.seq,
            "comment": comment,
        }
        added += session.execute(_ADD, parameters).first() is not None
    return added


def current(session: Session, account_id: int, sha256: bytes) -> list[dict[str, Any]]:
    """What counts for a picture, by group, as result rows show it."""
    found = session.execute(
        text(f"SELECT {labels_of(':account_id', ':sha256')}"), {"account_id": account_id, "sha256": sha256}
    ).scalar()
    return found or []


def history(session: Session, account_id: int, sha256: bytes, limit: int = MAX_HISTORY) -> list[dict[str, Any]]:
    """Everything that was said of a picture, newest first."""
    rows = session.scalars(
        select(LabelRow)
        .where(LabelRow.account_id == account_id, LabelRow.sha256 == sha256)
        .order_by(LabelRow.id.desc())
        .limit(limit)
    )
    return [_past(row) for row in rows]


def labels_of(account_id: str, sha256: str) -> str:
    """SQL of the labels of a picture as JSON (NULL: none), for queries that show them beside tags."""
    return f"""
      (SELECT jsonb_agg(jsonb_build_object('group', l."group", 'labels', l.present, 'absent', l.absent,
        'source', l.source, 'by', l.actor, 'at', l.created_at) ORDER BY l."group")
      FROM current_labels l WHERE l.account_id = {account_id} AND l.sha256 = {sha256}) AS labels
    """


def _past(row: LabelRow) -> dict[str, Any]:
    at: datetime = row.created_at
    return {
        "group": row.group,
        "labels": row.present,
        "absent": row.absent,
        "source": row.source,
        "by": row.actor,
        "at": at.isoformat(),
        "item_id": None if row.job_id is None or row.seq is None else item_id(row.job_id, row.seq),
        "comment": row.comment,
    }


def _choices(lead: str, names: Iterable[str]) -> str:
    """The first few of what could be said: some models know a thousand labels."""
    every = list(names)
    shown = ", ".join(every[:12]) or "none"
    return f"{lead} {shown}" + (f" and {len(every) - 12} more" if len(every) > 12 else "")


_SUBJECT = text(
    """
    SELECT CASE WHEN r.outcome = 'done' THEN r.sha256 END AS sha256,
      coalesce(r.published -> 'tags' ->> 'model', j.models ->> 'tags',
        (SELECT m.name || '@' || m.version FROM model_versions m WHERE m.task = 'tags' AND m.state = 'active')) AS model
    FROM jobs j JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id
    LEFT JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq
    WHERE j.account_id = :account_id AND j.id = :job_id AND i.seq = :seq
    """
)
_ADD = text(
    """
    WITH newest AS (
      SELECT present, absent, source, actor, comment FROM labels
      WHERE account_id = :account_id AND sha256 = :sha256 AND "group" = :group ORDER BY id DESC LIMIT 1)
    INSERT INTO labels (account_id, sha256, "group", kind, present, absent, source, actor, job_id, seq, comment)
    SELECT :account_id, :sha256, :group, :kind, CAST(:present AS text[]), CAST(:absent AS text[]), :source, :actor,
      :job_id, :seq, :comment
    WHERE NOT EXISTS (
      SELECT FROM newest n WHERE n.present IS NOT DISTINCT FROM CAST(:present AS text[])
      AND (n.present IS NULL OR (n.absent = CAST(:absent AS text[]) AND n.source = :source AND n.actor = :actor
        AND n.comment IS NOT DISTINCT FROM CAST(:comment AS text))))
      AND (CAST(:present AS text[]) IS NOT NULL OR EXISTS (SELECT FROM newest))
    RETURNING id
    """
)
