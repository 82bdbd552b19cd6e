"""Processes that die, stop and come back, at any moment: every item keeps its one outcome."""

import hashlib
import os
import re
import signal
from pathlib import Path

import pytest

from tests.faults.system import MODULES, PATIENT, Role, System, until
from tests.oracle import Expected, check

pytestmark = pytest.mark.faults


def working_child(system: System, worker: Role) -> int:
    """The prefork child that claims chunks, by its heartbeat."""
    sql = (
        "SELECT coalesce(max(pid), 0) FROM workers WHERE role = 'worker' AND gone_at IS NULL"
        " AND pid = ANY(:pids) AND last_seen_at > now() - interval '2 seconds'"
    )
    found: list[int] = []

    def beats() -> bool:
        found.append(system.count(sql, pids=worker.children()))
        return found[-1] > 0

    until(beats, 120, "a worker's child to beat")
    return found[-1]


def dropped(role: Role) -> set[str]:
    """The chunks that this role has given up because they were another's, or because it could not tell."""
    words = r"no longer ours|lease lost|not recorded yet"
    return {chunk[1] for line in role.log.read_text(errors="replace").splitlines() if re.search(words, line)
            and (chunk := re.search(r"chunk=(\d+)", line))}  # fmt: skip


def test_nothing_breaks(system: System) -> None:
    """The harness itself: outcomes of every kind, with all processes well."""
    job = system.submit(40, extra=[("status/404", Expected("http_404")), ("html", Expected("not_an_image"))])
    system.settle(job)


def test_worker_killed_in_the_middle_of_a_chunk(system: System) -> None:
    worker = system.role("worker")
    child = working_child(system, worker)
    job = system.submit(120)
    system.catch([child], "infer")
    worker.kill()
    assert system.leased("infer") > 0
    system.start("worker")
    system.settle(job)


def test_only_the_prefork_child_killed(system: System) -> None:
    worker = system.role("worker")
    child = working_child(system, worker)
    job = system.submit(120)
    system.catch([child], "infer")
    os.kill(child, signal.SIGKILL)
    system.settle(job)
    assert worker.process.poll() is None, "the worker's parent must survive its child"


def test_crawler_killed_in_the_middle_of_a_chunk(system: System) -> None:
    crawler = system.role("crawler")
    job = system.submit(120)
    system.catch([crawler.pid], "ingest")
    crawler.kill()
    assert system.leased("ingest") > 0
    system.start("crawler")
    system.settle(job)


def test_a_stopped_crawler_that_comes_back_writes_nothing(system: System) -> None:
    zombie = system.role("crawler")
    job = system.submit(80)
    system.catch([zombie.pid], "ingest")
    held = system.leased("ingest")
    system.start("crawler")
    system.settle(job)
    said = dropped(zombie)
    zombie.signal(signal.SIGCONT)
    until(lambda: len(dropped(zombie) - said) >= held, 60, "the zombie to notice that its chunks are gone")
    check(system.owner, system.accepted)


def test_a_stopped_worker_that_comes_back_writes_nothing(system: System) -> None:
    worker = system.role("worker")
    zombie = working_child(system, worker)
    job = system.submit(80)
    system.catch([zombie], "infer")
    system.start("worker")
    system.settle(job)
    said = dropped(worker)
    os.kill(zombie, signal.SIGCONT)
    # It says so, or, if it stood for longer than a process may, is gone before it can.
    until(
        lambda: dropped(worker) - said or "Timeout (" in worker.log.read_text(),
        60,
        "the zombie to notice that its chunk is gone",
    )
    check(system.owner, system.accepted)


def test_sigterm_ends_gracefully_and_costs_no_attempt(system: System) -> None:
    system.restart(*MODULES, **PATIENT)
    job = system.submit(200)
    until(lambda: system.outcomes(job) > 0, 120, "the first outcomes")
    for name in ("crawler", "worker", "maintenance"):
        role = system.role(name)
        if name == "worker":  # as from a supervisor that tells the whole group, and tells it again
            child = working_child(system, role)
            os.kill(child, signal.SIGTERM)
            os.kill(child, signal.SIGTERM)
        role.signal(signal.SIGTERM)
        assert role.process.wait(60) == 0, role.log.read_text()[-2000:]
    assert system.leased("ingest") + system.leased("infer") == 0
    system.mend()
    system.settle(job)
    attempts = system.count("SELECT max(attempts) FROM chunks WHERE job_id = :job", job=job)
    assert attempts == 1, "a graceful stop must give the attempt back"


@pytest.mark.parametrize(
    "point", ["after_claim", "after_fetch", "after_blob_put", "before_ingest_commit", "after_ingest_commit"]
)
def test_crawler_dies_at(system: System, point: str, tmp_path: Path) -> None:
    marker = tmp_path / point
    system.end(system.role("crawler"))
    doomed = system.start("crawler", TAGMILL_FAILPOINTS=f"{point}={marker}")
    job = system.submit(24)
    assert doomed.process.wait(120) == -signal.SIGKILL
    assert marker.exists()
    system.start("crawler")
    system.settle(job)


def test_worker_dies_at_every_failpoint(system: System, tmp_path: Path) -> None:
    """One after the other, in one worker: its parent replaces the child each time."""
    points = ["infer_after_claim", "before_infer_commit", "after_infer_commit"]
    markers = [tmp_path / point for point in points]
    system.end(system.role("worker"))
    system.start("worker", TAGMILL_FAILPOINTS=",".join(f"{p}={m}" for p, m in zip(points, markers, strict=True)))
    job = system.submit(48)
    system.settle(job, timeout=240)
    assert [marker.name for marker in markers if not marker.exists()] == []


def test_maintenance_dies_while_it_ends_a_job(system: System, tmp_path: Path) -> None:
    marker = tmp_path / "finish"
    system.end(system.role("maintenance"))
    doomed = system.start("maintenance", TAGMILL_FAILPOINTS=f"before_finish_job={marker}")
    job = system.submit(16)
    assert doomed.process.wait(120) == -signal.SIGKILL
    assert marker.exists()
    system.start("maintenance")
    system.settle(job)


def test_three_maintenance_processes_at_once(system: System) -> None:
    system.start("maintenance")
    system.start("maintenance")
    submitted = [system.submit(16) for _ in range(4)]
    system.settle(*submitted)


def test_a_poison_picture_costs_one_item(system: System) -> None:
    """It kills its process each time; the others of its chunk, and of chunks beside it, are done."""
    (name, _), *_ = system.pictures.more(1)
    poison = hashlib.sha256(system.pictures.files[name]).hexdigest()
    system.end(system.role("worker"))
    system.start("worker", TAGMILL_FAILPOINTS=f"on_image=sha:{poison}")
    job = system.submit(15, extra=[(name, Expected("poison"))], chunk_size=4)
    system.settle(job)
    claims = system.count("SELECT max(attempts) FROM chunks WHERE job_id = :job AND stage = 'infer'", job=job)
    assert claims <= 3


@pytest.mark.parametrize("how", ["spin", pytest.param("hang", marks=pytest.mark.nemesis)])
def test_a_picture_that_never_ends_costs_one_item(system: System, how: str) -> None:
    """Whoever works on it stands still, in the second case without letting any other thread of the process run: the
    process ends itself, says where it stood, and the next one goes on."""
    (name, _), *_ = system.pictures.more(1)
    endless = hashlib.sha256(system.pictures.files[name]).hexdigest()
    system.end(system.role("worker"))
    worker = system.start("worker", TAGMILL_FAILPOINTS=f"on_image={how}:{endless}", TAGMILL_HUNG_AFTER_S="4")
    job = system.submit(0, extra=[(name, Expected("poison"))])
    others = system.submit(30)
    system.settle(job, others, timeout=240)
    assert "Timeout (0:00:04)" in worker.log.read_text()
    assert "failpoints.py" in worker.log.read_text(), "it does not say where it stood"
    assert worker.process.poll() is None, "the worker's parent must survive its child"


def test_a_process_that_holds_too_much_memory_is_replaced(system: System) -> None:
    """As one that leaks: between two tasks, and nothing is lost. Every process holds more than this limit."""
    system.end(system.role("worker"))
    worker = system.start("worker", TAGMILL_CHILD_MEMORY_MB="20")
    before = working_child(system, worker)
    system.settle(system.submit(30))
    until(lambda: before not in worker.children(), 120, "the child to be replaced")
    system.settle(system.submit(30))
    assert worker.process.poll() is None
