"""The Celery tasks, one line each; they run in the prefork child."""

from celery import shared_task

from worker import child
from worker.app import CANARY_TASK, INFER_TASK, SCHEMA_VERSION


@shared_task(name=INFER_TASK)  # type: ignore[untyped-decorator]
def infer(chunk_id: int, v: int) -> None:
    """Drain ready chunks, this one first. A hint of another schema version is not ours to read."""
    if v == SCHEMA_VERSION:
        child.current().drain(chunk_id)


@shared_task(name=CANARY_TASK)  # type: ignore[untyped-decorator]
def canary() -> None:
    """Note that a message came through the broker."""
    child.current().heard_canary()
