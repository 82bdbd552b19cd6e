"""Trains in several processes of this machine: starts them by torch's launcher, listens to them, ends them.

    here ── torch.distributed.run ── rank 0, rank 1, …      each connects back through a socket file
    rank 0 → here: events, the end        here → rank 0: "stop"        any rank → here: its error

A rank that finds its socket closed ends itself, so nothing outlives this process, even if it is killed. A rank that
dies ends the others through the launcher; one that hangs, through the limit on each exchange (`distributed.WAIT_S`).
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml import artifact, distributed
from ml.artifact import Artifact
from ml.errors import ArtifactError, DatasetError, ModelError, TrainingError, TrainingStopped
from ml.manifest import Manifest
from ml.train import Place
from ml.train_config import TrainConfig
from ml.train_loop import Event

LOG = "ranks.log"
_END_S = 10.0
_LOOK_S = 0.2
_ERRORS: dict[str, type[ModelError]] = {each.__name__: each for each in (ArtifactError, DatasetError, TrainingError)}


def train(
    manifest: Manifest,
    config: TrainConfig,
    place: Place,
    *,
    init: Artifact | Path | None,
    resume: bool,
    stop_after: int | None,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
) -> Artifact:
    """As `ml.train.train`, on `config.devices` processes; their own words are in `out_dir`/ranks.log.

    Raises, beside what they raise themselves, TrainingError('rank_died').
    """
    place.out_dir.mkdir(parents=True, exist_ok=True)
    # In the system's folder for such: the path of a socket is limited to about 107 bytes.
    with tempfile.TemporaryDirectory(prefix="tagmill-ranks-") as folder:
        crew = _Crew(Path(folder), place.out_dir / LOG, on_event, should_stop)
        task = {
            "manifest": str(Path(folder) / "manifest.json"), "config": config.to_dict(), "resume": resume,
            "images_root": str(place.images_root), "out_dir": str(place.out_dir), "cache_dir": str(place.cache_dir),
            "max_threads": None if place.max_threads is None else max(1, place.max_threads // config.devices),
            "stop_after": stop_after, "socket": str(crew.address), "wait_s": distributed.WAIT_S,
            "init": _init(Path(folder), init),
        }  # fmt: skip
        manifest.save(Path(folder) / "manifest.json")
        (Path(folder) / "task.json").write_text(json.dumps(task))
        digest = crew.run(config.devices, Path(folder) / "task.json")
    return artifact.load(place.out_dir / "model", digest)


def _init(folder: Path, init: Artifact | Path | None) -> dict[str, str] | None:
    if init is None:
        return None
    if isinstance(init, Artifact):
        artifact.save(folder / "init", init.card, init.state)
        return {"artifact": str(folder / "init")}
    return {"file": str(init)}


class _Crew:
    """The processes, from their start to the end of the last one."""

    def __init__(
        self, folder: Path, log: Path, on_event: Callable[[Event], None], should_stop: Callable[[], bool]
    ) -> None:
        self.address = folder / "ranks"
        self._log = log
        self._on_event, self._should_stop = on_event, should_stop
        self._texts: dict[socket.socket, bytes] = {}
        self._first: socket.socket | None = None
        self._error: ModelError | None = None
        self._digest: str | None = None
        self._stopped: TrainingStopped | None = None
        self._asked = False

    def run(self, count: int, task: Path) -> str:
        """The SHA-256 of the artifact that they made."""
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
            "--nproc-per-node", str(count), "--max-restarts", "0", "-m", "ml.train_rank", str(task),
        ]  # fmt: skip
        with (
            socket.socket(socket.AF_UNIX) as listener,
            selectors.DefaultSelector() as selector,
            self._log.open("wb") as log,
        ):
            listener.bind(str(self.address))
            listener.listen(count)
            selector.register(listener, selectors.EVENT_READ)
            # A session of its own: a Ctrl-C is ours, and we ask them to stop.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            try:
                while process.poll() is None:
                    self._look(selector, listener, _LOOK_S)
                    self._pass_on_stop()
                while self._look(selector, listener, 0):
                    continue
            finally:
                for connection in self._texts:
                    connection.close()
                _end(process)
        return self._outcome(process.returncode)

    def _outcome(self, status: int) -> str:
        if self._stopped is not None:
            raise self._stopped
        if self._error is not None:
            raise self._error
        if self._digest is None or status != 0:
            last = self._log.read_text(errors="replace").strip().rpartition("\n")[2][:300]
            raise TrainingError("rank_died", f"the processes ended with {status}; {self._log} ends: {last}")
        return self._digest

    def _look(self, selector: selectors.BaseSelector, listener: socket.socket, wait_s: float) -> bool:
        """Take in what was said; False if nothing was, and nothing more comes at once."""
        ready = selector.select(wait_s)
        for key, _ in ready:
            if key.fileobj is listener:
                connection, _ = listener.accept()
                self._texts[connection] = b""
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment]
            try:
                data = connection.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                selector.unregister(connection)
                continue
            *lines, self._texts[connection] = (self._texts[connection] + data).split(b"\n")
            for line in lines:
                self._hear(connection, json.loads(line))
        return bool(ready)

    def _hear(self, connection: socket.socket, said: dict[str, Any]) -> None:
        match said:
            case {"rank": 0}:
                self._first = connection
            case {"event": event}:
                self._on_event(event)
            case {"done": digest}:
                self._digest = digest
            case {"stopped": step, "checkpoint": path}:
                self._stopped = TrainingStopped(step, path)
            case {"error": kind, **about} if self._error is None:
                self._error = _ERRORS[kind](**about)

    def _pass_on_stop(self) -> None:
        if not self._asked and self._first is not None and self._should_stop():
            self._asked = True
            try:
                self._first.sendall(b"stop\n")
            except OSError:
                return  # it has ended, and we shall hear how


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The launcher ends its processes on SIGTERM; those that it could not have lost their socket."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
