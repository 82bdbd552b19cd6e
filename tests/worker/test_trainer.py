"""The trainer role as a process: it takes what waits, is light while nothing does, and stops with a checkpoint."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from db import training, training_log, workers
from db.blobs import LocalBlobs
from db.session import WORKER_ROLE, Database
from db.tables import TrainingRun
from ml import checkpoint
from tests.ml import datasets as pictures
from tests.ml.test_distributed import ranks_of
from tests.worker import processes
from worker import doctor_roles, manifests, roles
from worker.local import Place
from worker.train_runs import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def until(seen: Callable[[], object], patience_s: float = 170.0) -> None:
    deadline = time.monotonic() + patience_s
    while not seen():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


class Setting:
    """A database, folders, and runs of the tiny network that are queued there."""

    def __init__(self, owner_db: Database, url: str, folder: Path) -> None:
        self.db = owner_db
        self.folder = folder
        self.models = folder / "models"
        self.blobs = LocalBlobs(folder / "blobs")
        self.environment = roles.environment(
            {
                "TAGMILL_DATABASE_URL": url,
                "TAGMILL_DATABASE_ROLE": WORKER_ROLE,
                "TAGMILL_BLOB_ROOT": str(folder / "blobs"),
                "TAGMILL_MODEL_ROOT": str(self.models),
                "TAGMILL_TRAINER_POLL_S": "0.2",
                "TAGMILL_HEARTBEAT_S": "0.5",
                "TAGMILL_LEASE_S": "10",
            }
        )
        self.images = folder / "images"
        self.manifest = pictures.coloured(self.images)

    def queue(self, version: str = "1", **config: object) -> UUID:
        stored = manifests.store(self.db, self.blobs, self.manifest, str(self.images), {})
        document = pictures.config(**{"epochs": 3, **config}).to_dict()
        with self.db.transaction() as session:
            run = training.enqueue(session, stored.id, "tiny", version, document)
            return run.id

    def run(self, run_id: UUID) -> TrainingRun:
        with self.db.transaction() as session:
            return training.get(session, run_id)

    def step(self, run_id: UUID) -> int:
        return int(self.run(run_id).live.get("step", 0))


@pytest.fixture
def setting(owner_db: Database, database_url: str, tmp_path: Path) -> Setting:
    return Setting(owner_db, database_url, tmp_path)


Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(setting: Setting) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def go() -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(roles.command("trainer"), env=setting.environment, start_new_session=True))
        return started[-1]

    yield go
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert processes.left(setting.folder, 20) == {}


def has_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def test_a_queued_run_just_happens_and_the_role_stays_light(setting: Setting, start: Start) -> None:
    role = start()
    run_id = setting.queue(epochs=300)
    until(lambda: setting.step(run_id) > 0)
    children = [pid for pid in processes.of(setting.folder) if pid != role.pid]
    assert [has_torch(pid) for pid in children] == [True]
    assert os.getpriority(os.PRIO_PROCESS, children[0]) >= 10
    assert not has_torch(role.pid)
    until(lambda: setting.run(run_id).state == "finished")
    until(lambda: set(processes.of(setting.folder)) == {role.pid})
    with setting.db.transaction() as session:
        (alive,) = workers.alive(session)
        events = [entry.event["event"] for entry in training_log.after(session, run_id)]
    assert (alive["role"], alive["pid"], alive["stats"]["children"]) == ("trainer", role.pid, 1)
    assert events[0] == "started"
    assert events[-2:] == ["trained", "finished"]
    assert events.count("epoch") == 301
    live = setting.run(run_id).live
    assert len(live["history"]) == 301
    assert live["rate"] > 0
    role.terminate()
    assert role.wait(20) == 0


@pytest.mark.faults
def test_a_stop_writes_a_checkpoint_and_hands_the_run_back(setting: Setting, start: Start) -> None:
    run_id = setting.queue(epochs=100_000, checkpoint_steps=100_000)
    role = start()
    until(lambda: setting.step(run_id) > 0)
    role.terminate()
    assert role.wait(60) == 0
    run = setting.run(run_id)
    assert (run.state, run.attempts) == ("queued", 0)
    saved = checkpoint.load(setting.models / ".runs" / str(run_id))
    with setting.db.transaction() as session:
        last = training_log.last(session, run_id, 1)[0].event
        assert workers.alive(session) == []
    assert last == {"event": "stopped", "why": f"training_stopped: asked to stop at step {saved.state['step']}"}
    heir = start()
    until(lambda: setting.step(run_id) > saved.state["step"])
    with setting.db.transaction() as session:
        training.cancel(session, run_id)
    until(lambda: set(processes.of(setting.folder)) == {heir.pid})


@pytest.mark.faults
def test_the_run_of_a_killed_trainer_is_taken_up_by_the_next(setting: Setting, start: Start) -> None:
    run_id = setting.queue(epochs=100_000)
    role = start()
    until(lambda: setting.run(run_id).progress.get("epoch", 0) > 1)
    os.killpg(role.pid, signal.SIGKILL)
    role.wait()
    assert processes.left(setting.folder, 20) == {}, "the training outlives its role"
    left = setting.run(run_id)
    assert (left.state, left.fence) == ("running", 1)
    heir = start()
    until(lambda: setting.step(run_id) > left.live["step"])
    with setting.db.transaction() as session:
        events = [entry.event for entry in training_log.after(session, run_id)]
        training.cancel(session, run_id)
    (resumed,) = (event for event in events if event["event"] == "resumed")
    assert resumed["step"] >= left.live["checkpoint"], "what was done is not done again"
    assert setting.run(run_id).fence == 2
    until(lambda: set(processes.of(setting.folder)) == {heir.pid})


def test_a_training_that_loses_a_process_is_tried_again(setting: Setting, db: Database) -> None:
    run_id = setting.queue(devices=2, batch_size=2, epochs=60)

    def hear(event: object) -> None:
        if isinstance(event, dict) and event["event"] == "step" and event["step"] == 20:
            os.kill(ranks_of(setting.models)[-1], signal.SIGKILL)

    trainer = Trainer(db, setting.blobs, setting.models, on_event=hear)
    ended = trainer.run_once()
    assert ended is not None
    assert (ended.id, ended.state, ended.attempts) == (run_id, "queued", 1)
    with setting.db.transaction() as session:
        assert training_log.last(session, run_id, 1)[0].event["code"] == "rank_died"


def test_the_doctor_says_when_runs_wait_and_nobody_trains(
    setting: Setting, database_url: str, owner_db: Database
) -> None:
    place = Place(database_url, "", setting.folder / "blobs", setting.models, "configured", True)

    def said() -> tuple[str, str]:
        (finding,) = (f for f in doctor_roles.roles(place) if f.name == "role: trainer")
        return finding.state, finding.found

    assert said() == ("good", "none is alive, and no training run waits")
    setting.queue()
    assert said() == ("warning", "none is alive, and 1 training run waits")
    setting.queue("2")
    assert said() == ("warning", "none is alive, and 2 training runs wait")
    with owner_db.transaction() as session:
        workers.beat(session, UUID(int=7), "trainer", "h", 1, {})
    assert said()[0] == "good"


def test_the_role_imports_no_torch() -> None:
    code = "import sys, worker.trainer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
