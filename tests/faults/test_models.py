"""Models change under running workers: no restart, nothing mixed within a job, and reruns end to end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from db import registry, reruns
from db.reruns import Selection
from ml.tiny import make_tiny
from tests.faults.system import COLOURS, SETTLE_S, System, until
from tests.faults.test_processes import working_child
from worker import rerun as reruns_work
from worker.rerun import STEPS

pytestmark = pytest.mark.faults
RENAMED = {"red": "crimson", "green": "lime"}


@pytest.fixture
def second(system: System) -> Iterator[str]:
    """A second version of the tagger, which has other names for two colours; the first is active again after."""
    folder = system.folder / "models" / "tiny-tags" / "2"
    if not folder.exists():
        artifact = make_tiny(folder, "tags", version="2", renamed=RENAMED)
        with system.owner.transaction() as session:
            registry.install_model(session, artifact.card.to_dict(), artifact.sha256)
    yield "tiny-tags@2"
    activate(system, "1")


def activate(system: System, version: str) -> None:
    with system.owner.transaction() as session:
        registry.activate(session, "tiny-tags", version)


def models_of(system: System, job: UUID) -> set[str]:
    """The models that the job's tags are of."""
    with system.owner.transaction() as session:
        sql = "SELECT DISTINCT t ->> 'model' FROM results r, jsonb_array_elements(r.tags) t WHERE r.job_id = :job"
        return set(session.scalars(text(sql), {"job": job}))


def best(system: System, job: UUID) -> list[str]:
    """Each item's best tag."""
    with system.owner.transaction() as session:
        sql = "SELECT tags -> 0 ->> 'label' FROM results WHERE job_id = :job ORDER BY seq"
        return list(session.scalars(text(sql), {"job": job}))


def start(system: System, model: str, **conditions: object) -> tuple[UUID, UUID]:
    """A rerun of the whole catalog; (rerun, job)."""
    with system.owner.transaction() as session:
        made = reruns.start(
            session,
            system.account_id,
            model,
            Selection(all=True, **conditions),
            chunk_size=32,  # type: ignore[arg-type]
        )
        return made.id, made.job_id


def ended(system: System, job: UUID) -> None:
    until(lambda: system.ended(job), SETTLE_S, "the rerun to end")


def carry_out(system: System, step: str, rerun: UUID) -> int:
    return reruns_work.carry_out(system.owner, system.account_id, rerun, STEPS[step], batch=50)


def catalog(system: System, jobs: list[UUID]) -> list[tuple[object, ...]]:
    with system.owner.transaction() as session:
        sql = "SELECT job_id, seq, outcome, code, tags, moderation, published FROM results WHERE job_id = ANY(:jobs)"
        return [tuple(row) for row in session.execute(text(sql + " ORDER BY 1, 2"), {"jobs": jobs})]


def forget(system: System, *jobs: UUID) -> None:
    """Reruns are no submissions: the oracle of the other tests must not meet their rows."""
    with system.owner.transaction() as session:
        for table in ("results", "ingests", "items"):
            session.execute(text(f"DELETE FROM {table} WHERE job_id = ANY(:jobs)"), {"jobs": list(jobs)})


def test_activation_and_rollback_reach_running_workers_and_mix_nothing(system: System, second: str) -> None:
    settled = system.submit(8)
    system.settle(settled)
    pids = {role.name: role.pid for role in system.roles}
    children = system.role("worker").children()
    one = system.submit(120)
    until(lambda: system.outcomes(one) > 0, 120, "the first outcomes")
    activate(system, "2")
    two = system.submit(60)
    with system.owner.transaction() as session:
        registry.rollback(session, "tags")
    three = system.submit(60)
    until(lambda: system.ended(one, two, three), SETTLE_S, "the three jobs to end")
    assert [models_of(system, job) for job in (one, two, three)] == [{"tiny-tags@1"}, {second}, {"tiny-tags@1"}]
    assert {"crimson", "lime"} <= set(best(system, two))
    assert set(best(system, one)) == set(best(system, three)) == set(COLOURS)
    assert {role.name: role.pid for role in system.roles} == pids
    assert system.role("worker").children() == children, "a worker's child was replaced"
    # What the second version said is not what this system's oracle expects.
    system.accepted.pop(two)
    forget(system, two)


def test_a_rerun_end_to_end_with_running_workers(system: System, second: str) -> None:
    """300 results analysed again, compared, published and rolled back, while new pictures go on coming."""
    jobs = [system.submit(150), system.submit(150)]
    system.settle(*jobs)
    before = catalog(system, jobs)
    activate(system, "2")
    with system.owner.transaction() as session:
        planned = reruns.plan(session, system.account_id, second, Selection(job=jobs[0]))
        assert (planned.items, planned.scored) == (150, 0)
        assert planned.seconds is not None
    made = [start(system, second, job=job) for job in jobs]
    with system.owner.transaction() as session:
        registry.rollback(session, "tags")
    beside = system.submit(40)
    for _, job in made:
        ended(system, job)
    assert catalog(system, jobs) == before, "a staged rerun changed what is published"
    activate(system, "2")
    for rerun, _ in made:
        found = reruns_work.difference(system.owner, system.account_id, rerun)
        assert found.changed + found.same == 150
        assert {label for _, label in found.added} == {"crimson", "lime"}
        assert {label for _, label in found.removed} == {"red", "green"}
        assert carry_out(system, "publish", rerun) == 150
    for job in jobs:
        assert models_of(system, job) == {second}
        assert {"crimson", "lime", "blue", "grey"} == set(best(system, job))
    for rerun, _ in reversed(made):
        assert carry_out(system, "rollback", rerun) == 150
    assert catalog(system, jobs) == before
    forget(system, *(job for _, job in made))
    system.settle(beside)


def test_a_worker_killed_in_a_rerun_costs_nothing(system: System, second: str) -> None:
    job = system.submit(150)
    system.settle(job)
    activate(system, "2")
    worker = system.role("worker")
    child = working_child(system, worker)
    rerun, rerun_job = start(system, second, job=job)
    activate(system, "1")  # for jobs that `catch` may add
    system.catch([child], "infer")
    os.kill(child, signal.SIGKILL)
    ended(system, rerun_job)
    activate(system, "2")
    assert carry_out(system, "publish", rerun) == 150
    assert models_of(system, job) == {second}
    assert carry_out(system, "rollback", rerun) == 150
    forget(system, rerun_job)


def test_a_publisher_killed_between_batches_is_continued(system: System, second: str, tmp_path: Path) -> None:
    """The command itself, as a process: killed after its first batch, given again, then rolled back."""
    job = system.submit(60)
    system.settle(job)
    before = catalog(system, [job])
    activate(system, "2")
    rerun, rerun_job = start(system, second, job=job)
    ended(system, rerun_job)
    program = (
        "import sys; from uuid import UUID; from db.session import Database; from worker.rerun import STEPS, carry_out;"
        " print(carry_out(Database(sys.argv[1]), int(sys.argv[2]), UUID(sys.argv[3]), STEPS['publish'], batch=25))"
    )

    def publish(**more: str) -> subprocess.CompletedProcess[str]:
        arguments = [system.database_url, str(system.account_id), str(rerun)]
        environment = system.environment(**more)
        return subprocess.run(
            [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, timeout=180
        )

    killed = publish(TAGMILL_FAILPOINTS=f"between_rerun_batches={tmp_path / 'marker'}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with system.owner.transaction() as session:
        half = reruns.get(session, system.account_id, rerun)
        assert (half.state, half.published) == ("publishing", 25)
    again = publish()
    assert again.stdout.strip() == "35", again.stderr
    assert models_of(system, job) == {second}
    assert carry_out(system, "rollback", rerun) == 60
    assert catalog(system, [job]) == before
    forget(system, rerun_job)


def test_the_commands(system: System, second: str) -> None:
    """`tagmill models` and `tagmill rerun` as an operator types them."""
    job = system.submit(20)
    system.settle(job)
    with system.owner.transaction() as session:
        session.execute(text("UPDATE accounts SET name = 'local' WHERE id = :id"), {"id": system.account_id})

    def tagmill(*words: str, fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", *words],
            env=system.environment(), capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stderr + done.stdout
        return done.stderr if fails else done.stdout

    assert "is active" in tagmill("models", "activate", second)
    assert "it is the active version" in tagmill("models", "show", second)
    assert "20 results" in tagmill("rerun", "plan", "--job", str(job))
    rerun = tagmill("rerun", "start", "--job", str(job), "--yes").strip()
    with system.owner.transaction() as session:
        rerun_job = reruns.get(session, system.account_id, UUID(rerun)).job_id
    ended(system, rerun_job)
    shown = json.loads(tagmill("rerun", "diff", rerun, "--json"))
    assert shown["same"] + shown["changed"] == 20
    assert "results change" in tagmill("rerun", "diff", rerun)
    assert "20 results published" in tagmill("rerun", "publish", rerun)
    assert models_of(system, job) == {second}
    assert "20 results are what they were" in tagmill("rerun", "rollback", rerun)
    assert "rolled_back" in tagmill("rerun", "publish", rerun, fails=True)
    assert "rolled_back" in tagmill("rerun", "list")
    assert "tiny-tags@1 is active for tags again" in tagmill("models", "rollback", "tags")
    assert "bad_selection" in tagmill("rerun", "plan", "--verdict", "review", fails=True)
    forget(system, rerun_job)
