"""An infer chunk between its claim and its end, in Postgres: what it needs is read here, and what came of it recorded.

For the infer stage, and for maintenance, which decides what waits too long for it: both end a chunk in the same way.
Functions take the session first and never commit. No torch here.
"""

from collections.abc import Sequence
from typing import Any

from db import banks, chunks, erasure_fence, images, policy, recording, rerun_policies
from db.chunks import Chunk
from db.recording import InferOutcome
from db.session import Session
from worker.infer_work import Work


def read(session: Session, chunk: Chunk) -> Work:
    """A chunk that was just claimed, with its pictures, its policies and all that is known of the pictures already."""
    members = chunks.images_of(session, chunk)
    rules = policy.validate(chunk.policy)
    others = {each: policy.validate(found) for each, found in chunk.options.get("policies", {}).items()}
    contexts = rerun_policies.contexts(session, chunk)
    models = {task: ref for task, ref in chunk.models.items() if ref}
    shas = [image.sha256 for image in members]
    scored: dict[bytes, dict[str, dict[str, Any]]] = {}
    for ref in models.values():
        for sha, analysis in images.analyses_of(session, chunk.account_id, shas, ref).items():
            scored.setdefault(sha, {})[ref] = analysis
    hits = banks.hits_of(session, chunk.account_id, shas)
    return Work(chunk, members, rules, models, scored, hits, contexts, others)


def record(session: Session, work: Work, outcomes: Sequence[InferOutcome], *, audit_share: float) -> None:
    """End a complete chunk: its new scores, its results, its `done`. Raises LeaseLost (roll back)."""
    store_scores(session, work)
    recording.finish_infer(session, work.chunk, outcomes, audit_share=audit_share, known_scores=work.known)


def store_scores(session: Session, work: Work) -> None:
    """Keep the scores that were made here, whatever becomes of the chunk, but none of pictures erased meanwhile."""
    erasure_fence.share_lock(session, work.chunk.account_id)
    for ref in sorted(work.fresh):
        images.record_analyses(session, work.chunk.account_id, ref, work.fresh[ref])
