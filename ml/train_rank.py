"""One of several processes that train together: `python -m ml.train_rank TASK`, started by torch's launcher only.

It says what happens through the socket of `ml.train_ranks`; what it prints goes into that run's ranks.log.
"""

import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from ml import artifact, distributed
from ml.errors import ArtifactError, DatasetError, TrainingError, TrainingStopped
from ml.manifest import Manifest
from ml.train import Place, train_here
from ml.train_config import from_dict


class _Line:
    """The connection to the process that started us all. When it breaks, this process ends at once."""

    def __init__(self, address: str) -> None:
        self.stop = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        threading.Thread(target=self._listen, name="line", daemon=True).start()

    def say(self, **what: Any) -> None:
        self._socket.sendall(json.dumps(what).encode() + b"\n")

    def _listen(self) -> None:
        while self._socket.recv(64):
            self.stop.set()
        os._exit(3)


def main(task_file: Path) -> int:
    """Exit code 0 at a good end or a stop, 1 for an error that was said."""
    task = json.loads(task_file.read_text())
    line = _Line(task["socket"])
    config = from_dict(task["config"])
    place = Place(Path(task["images_root"]), Path(task["out_dir"]), Path(task["cache_dir"]), task["max_threads"])
    try:
        ranks = distributed.join(config.device, task["wait_s"])
        line.say(rank=ranks.rank)
        made = train_here(
            Manifest.load(Path(task["manifest"])),
            config,
            place,
            init=_init(task["init"]),
            resume=task["resume"],
            stop_after=task["stop_after"],
            on_event=(lambda event: line.say(event=event)) if ranks.first else (lambda event: None),
            should_stop=line.stop.is_set,
            ranks=ranks,
        )
        if ranks.first:
            line.say(done=made.sha256)
    except TrainingStopped as stopped:
        if ranks.first:
            line.say(stopped=stopped.step, checkpoint=stopped.checkpoint)
    except TrainingError as error:
        line.say(error="TrainingError", code=error.code, detail=error.detail, step=error.step,
                 checkpoint=error.checkpoint)  # fmt: skip
        return 1
    except (ArtifactError, DatasetError) as error:
        line.say(error=type(error).__name__, code=error.code, detail=error.detail, field=error.field)
        return 1
    distributed.leave()
    return 0


def _init(given: dict[str, str] | None) -> artifact.Artifact | Path | None:
    if given is None:
        return None
    return artifact.load(Path(given["artifact"])) if "artifact" in given else Path(given["file"])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
