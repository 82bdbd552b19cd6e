"""A shadow run beside live jobs, with real processes: it dies and goes on, and the line notices nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from db import registry, shadow
from db.learning_tables import ShadowRun
from ml.tiny import make_tiny
from tests.faults.system import Role, System, until
from worker import leashed

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
LONG = 240  # the lowest priority waits for everybody else on the machine


def candidate(system: System, version: str) -> str:
    """One more version of the tagger, which calls red crimson."""
    folder = system.folder / "models" / "tiny-tags" / version
    artifact = make_tiny(folder, "tags", version=version, renamed={"red": "crimson"})
    with system.owner.transaction() as session:
        registry.install_model(session, artifact.card.to_dict(), artifact.sha256)
    return artifact.card.ref


def worker_with(system: System, **more: str) -> Role:
    """The one worker, started anew with these settings."""
    system.end(system.role("worker"))
    return system.start("worker", **more)


def latest(system: System, ref: str) -> ShadowRun:
    with system.owner.transaction() as session:
        run = shadow.latest(session, ref)
        assert run is not None
        return run


def tagmill(system: System, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", *words],
        env=system.environment(), capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_run_whose_process_is_killed_goes_on_and_live_jobs_are_as_ever(system: System, tmp_path: Path) -> None:
    """Killed once after its claim and once before its commit, between live jobs; then the commands."""
    ref = candidate(system, "shadowed")
    points = ("shadow_after_claim", "before_shadow_commit")
    worker = worker_with(system, TAGMILL_FAILPOINTS=",".join(f"{name}={tmp_path / name}" for name in points))
    assert "compared with tiny-tags@1" in tagmill(system, "shadow", "start", ref, "--share", "1", "--pictures", "500")
    first = system.submit(40)
    system.settle(first)
    until(lambda: (tmp_path / points[0]).exists(), LONG, "the first death")
    second = system.submit(40)
    system.settle(second)
    until(lambda: (tmp_path / points[1]).exists(), LONG, "the second death")
    until(lambda: latest(system, ref).compared >= 80, LONG, "every picture to be compared")
    system.settle(system.submit(8))  # also the oracle's last word on all jobs
    until(lambda: latest(system, ref).compared >= 88, LONG, "these to be compared, too")
    assert worker.process.poll() is None
    run = latest(system, ref)
    assert (run.state, run.failed) == ("running", 0)
    assert system.count("SELECT count(*) FROM shadow_pictures WHERE run_id = :run", run=run.id) == run.compared

    found = json.loads(tagmill(system, "shadow", "report", ref, "--json"))
    (agreement,) = found["agreement"]
    assert agreement["flips"] == [{"active": "red", "candidate": "crimson", "pictures": found["compared"] // 4}]
    assert agreement["agree"] + found["compared"] // 4 == found["compared"]
    assert "crimson" in tagmill(system, "shadow", "report", ref)
    assert "running" in tagmill(system, "shadow", "list")
    assert "75.0%" in tagmill(system, "models", "show", ref)
    assert "Stopped after" in tagmill(system, "shadow", "stop", ref)


def test_a_damaged_candidate_fails_alone(system: System) -> None:
    ref = candidate(system, "damaged")
    weights = system.folder / "models" / "tiny-tags" / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"evil")
    worker = worker_with(system, TAGMILL_MODEL_RETRY_S="0.5")
    with system.owner.transaction() as session:
        shadow.start(session, ref, shadow.Limits(1.0, pictures=100))
    job = system.submit(24)
    system.settle(job)
    until(lambda: latest(system, ref).state == "failed", LONG, "the run to fail")
    run = latest(system, ref)
    assert (run.code, run.compared) == ("weights_hash_mismatch", 0)
    assert worker.process.poll() is None
    system.settle(system.submit(8))


def test_its_process_ends_with_the_worker(system: System) -> None:
    """SIGKILL to the worker leaves nobody scoring in the shadow."""
    ref = candidate(system, "orphaned")
    worker = worker_with(system)
    with system.owner.transaction() as session:
        shadow.start(session, ref, shadow.Limits(1.0, pictures=1000))
    system.settle(system.submit(16))

    def companions() -> list[int]:
        # A thread starts it, so it is no child of the main thread, whose children the kernel lists apart.
        listed = [path.read_text().split() for path in Path(f"/proc/{worker.pid}/task").glob("*/children")]
        words = {int(pid): leashed.command_line(int(pid)) or "" for pids in listed for pid in pids}
        return [pid for pid, line in words.items() if line.rstrip().endswith("-m worker.shadow")]

    until(lambda: bool(companions()), LONG, "the worker to start a process for the run")
    (companion,) = companions()
    until(lambda: latest(system, ref).compared == 16, LONG, "it to work")
    worker.kill()
    until(lambda: not Path(f"/proc/{companion}").exists(), 120, "it to end")
    with system.owner.transaction() as session:
        shadow.stop(session, ref)
