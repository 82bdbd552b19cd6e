"""Roles that are away for long, or are not given the time to leave: what was accepted waits, or is done again."""

import signal
import time

import pytest

from tests.faults.front import Front
from tests.faults.system import MODULES, System, signal_all
from tests.faults.test_processes import working_child

pytestmark = pytest.mark.faults


def test_all_workers_are_dead_and_the_api_accepts(system: System) -> None:
    """It answers as ever, and after their start everything drains."""
    for name in MODULES:
        system.end(system.role(name))
    with Front(system) as front:
        accepted = [front.job(front.submit(system.pictures.more(16))) for _ in range(4)]
        shown = front.ask("GET", f"/v1/jobs/{accepted[0]}")
        assert (shown.status, shown.body["state"]) == (200, "accepted")
        system.mend()
        system.settle(*accepted)


def test_sigterm_and_a_second_later_sigkill(system: System) -> None:
    """In the middle of a chunk of each stage: as if it had been killed at once."""
    for name, stage in (("crawler", "ingest"), ("worker", "infer")):
        role = system.role(name)
        role.wait_for("ready" if name == "worker" else "crawler started")
        busy = [working_child(system, role)] if name == "worker" else [role.pid]
        job = system.submit(120)
        system.catch(busy, stage)
        role.signal(signal.SIGTERM)
        time.sleep(1)  # it would need longer: it stands still
        role.kill()
        signal_all([pid for pid in busy if pid != role.pid], signal.SIGCONT)  # its parent's death ends it
        system.start(name)
        system.settle(job)


def test_a_worker_that_cannot_go_on_says_so(system: System) -> None:
    """All that it started is killed, also what Celery cannot do without: it ends, and not as if it was told to."""
    worker = system.role("worker")
    worker.wait_for("ready")
    working_child(system, worker)
    signal_all(worker.children(), signal.SIGKILL)
    assert worker.process.wait(120) > 0, worker.log.read_text()[-2000:]
    system.start("worker")
    system.settle(system.submit(16))
