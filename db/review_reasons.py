"""The reasons that reviewers choose from when they reject: those of the policy that asked for people, with its words
for the person concerned. Changes nothing."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import policies, policy
from db.errors import NotFound
from db.review_tables import ReviewTask
from db.tables import Job


def offered(
    session: Session, account_id: int, tasks: Iterable[ReviewTask]
) -> dict[tuple[str | None, UUID], dict[str, str]]:
    """Texts by code, by a task's policy and job. The policy that a verdict names need not be the one that its job began
    with; one that is not stored is the job's."""
    wanted = {(task.policy, task.job_id) for task in tasks}
    documents = {ref: _document(session, account_id, ref) for ref in {ref for ref, _ in wanted}}
    lost = {job_id for ref, job_id in wanted if documents[ref] is None}
    query = select(Job.id, Job.policy).where(Job.account_id == account_id, Job.id.in_(lost))
    of_jobs = {row.id: _reasons(row.policy) for row in session.execute(query)} if lost else {}
    of_policies = {ref: _reasons(document) for ref, document in documents.items() if document is not None}
    return {(ref, job_id): of_policies.get(ref, of_jobs.get(job_id, {})) for ref, job_id in wanted}


def words(session: Session, account_id: int, task: ReviewTask, code: str) -> str | None:
    """What the policy says to the person concerned by this code; None where it says nothing."""
    return offered(session, account_id, [task])[task.policy, task.job_id].get(code) or None


def _document(session: Session, account_id: int, ref: str | None) -> Mapping[str, Any] | None:
    name, _, version = (ref or "").rpartition("@")
    try:
        return policies.get(session, account_id, name, int(version)).document if version.isdecimal() else None
    except NotFound:
        return None


def _reasons(document: Mapping[str, Any]) -> dict[str, str]:
    try:
        return policy.validate(document).offered
    except policy.PolicyError:
        return {}
