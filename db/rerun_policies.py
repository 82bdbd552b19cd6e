"""What a rerun's job decides by: the policies that decide now, in the contexts of the results chosen for it.

A rerun spans contexts and a job pins one policy; where the contexts differ, `options.policies` holds the document of
each, and the infer stage asks which context an item's result is of. Reads and plans only: the rows are `db.reruns`'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import policy, policy_assignments, registry
from db.chunks import Chunk


@dataclass(frozen=True)
class Pins:
    """What the rerun's job is given: its context, its policy, the other contexts' policies, and its models by task."""

    context: str
    document: dict[str, Any]
    others: Mapping[str, dict[str, Any]]
    models: Mapping[str, str]


def pins(session: Session, account_id: int, task: str, model: str) -> Pins:
    """For the results in the temporary table `chosen`, to be analysed again by `model`."""
    contexts = list(session.scalars(_CONTEXTS)) or [""]
    documents = {each: policy_assignments.pinned(session, account_id, each) for each in contexts}
    first = contexts[0]
    others = {each: document for each, document in documents.items() if each != first}
    models = {task: model}
    if task == "moderation" and any(policy.validate(document).reads_tags for document in documents.values()):
        tagger = registry.active(session, "tags")
        models |= {} if tagger is None else {"tags": tagger.ref}
    return Pins(first, documents[first], others, models)


def contexts(session: Session, chunk: Chunk) -> dict[int, str]:
    """The context of each member of a chunk of such a job; empty where the job's own is that of all."""
    if "policies" not in chunk.options:
        return {}
    parameters = {"rerun": chunk.options["rerun"], "lo": chunk.lo, "hi": chunk.hi, "account_id": chunk.account_id}
    return {row.seq: row.context for row in session.execute(_SOURCES, parameters)}


_CONTEXTS = text("SELECT DISTINCT j.context FROM chosen c JOIN jobs j ON j.id = c.job_id ORDER BY 1")
_SOURCES = text(
    """
    SELECT x.seq, j.context FROM rerun_items x JOIN jobs j ON j.id = x.job_id
    WHERE x.rerun_id = CAST(:rerun AS uuid) AND x.account_id = :account_id AND x.seq >= :lo AND x.seq < :hi
    """
)
